"""One training run on disk: its settings, the folder they name, saving, loading, listing.

`results/<dataset>/<run>/` holds

    config.json   every setting, the data's checksum, the versions that trained it
    weights.npz   w (d,) and b (), float32
    history.csv   one row per epoch: losses and accuracies on train and test
    steps.npz     one number per step: loss, accuracy, active, w_l1, gradient, pixels

A run is written beside its place and renamed into it, so there is never half a run.
"""

import hashlib
import json
import math
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

import numpy as np

import files
from cli import InputError

NORMS = {"inf": "L∞", "2": "L2", "1": "L1"}
LOSSES = ("hinge", "logistic")
INITS = ("glorot", "zeros", "pytorch")
SCHEDULES = ("constant", "linear")
PIXEL_IN_USE = 0.01  # a pixel is in use where |w_j| exceeds this share of the largest |w|

# recipe -> its defaults on MNIST; {regular, robust} where they differ. The article's robust loss
# is a sum over 100 samples at learning rate 1e-4, which is 1e-2 on the mean.
RECIPES = {
    "article": dict(
        loss="hinge",
        epochs=10,
        batch_size=100,
        learning_rate={"regular": 0.1, "robust": 0.01},
        momentum=0.0,
        schedule="constant",
        init="glorot",
        seed=0,
        eager=False,
    ),
    "converged": dict(
        loss="hinge",
        epochs=150,
        batch_size=200,
        learning_rate=0.02,
        momentum=0.95,
        schedule="linear",
        init="zeros",
        seed=0,
        eager=False,
    ),
    "kolter-madry": dict(  # Adversarial Robustness: Theory and Practice, chapter 2
        loss="logistic",
        epochs={"regular": 10, "robust": 20},
        batch_size=100,
        learning_rate={"regular": 1.0, "robust": 0.1},
        momentum=0.0,
        schedule="constant",
        init="pytorch",
        seed=0,
        eager=False,
    ),
}
# The offline digits give 3 steps an epoch in place of 127: this many times the epochs.
DIGITS_EPOCHS = {"article": 42, "converged": 5, "kolter-madry": 42}
NO_RUNS = ("attack", "benchmark", "claims", "figures")  # folders beside those of the runs
OPTIMAL = "optimal"  # what stands for the recipe of a run that optimum.py solved


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run's outcome; the later half is None where nothing was trained.

    `eps` is 0 for a regular run.
    """

    dataset: str
    recipe: str
    robust: bool
    eps: float
    norm: str
    box: bool
    loss: str
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    schedule: str | None = None
    init: str | None = None
    seed: int | None = None
    eager: bool | None = None

    @property
    def model(self) -> str:
        """What is trained, not how: "regular", "robust-eps0.2", "robust-eps0.2-box"."""
        if not self.robust:
            return "regular"
        norm = "" if self.norm == "inf" else f"-l{self.norm}"
        return f"robust-eps{_short(self.eps)}{norm}{'-box' * self.box}"

    @property
    def variant(self) -> str:
        """How it is trained, where that is not the article's recipe: "converged-seed1"."""
        if self.recipe == OPTIMAL:
            return OPTIMAL
        parts = [] if self.recipe == "article" else [self.recipe]
        defaults = recipe_defaults(self.recipe, self.robust, self.dataset.split("-")[0])
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                parts.append(name.replace("_", "") + _short(value))
        return "-".join(parts)

    @property
    def name(self) -> str:
        """The run's folder under results/<dataset>: a different setting, a different name."""
        if self.recipe == OPTIMAL:
            return self.model.replace("robust", OPTIMAL)
        return "-".join(filter(None, [self.model, self.variant]))

    @property
    def repetition(self) -> bool:
        """Whether this is a recipe's run with another seed: in tables, but in no figure."""
        return self.recipe != OPTIMAL and self.seed != RECIPES[self.recipe]["seed"]

    def steps_per_epoch(self, samples: int) -> int:
        """The last batch may be smaller."""
        return -(-samples // self.batch_size)

    def folder(self, results: Path) -> Path:
        return results / self.dataset / self.name


def article(dataset: str, eps: float = 0.0) -> Settings:
    """The settings of the article's recipe: regular, or robust with a radius in its ball."""
    robust = eps > 0
    defaults = recipe_defaults("article", robust, dataset.split("-")[0])
    return Settings(dataset, "article", robust, eps, "inf", False, **defaults)


def optimal(dataset: str, eps: float) -> Settings:
    """The settings of the exact minimum of the robust hinge for the L-infinity ball."""
    return Settings(dataset, OPTIMAL, True, eps, "inf", False, "hinge")


def recipe_defaults(recipe: str, robust: bool, source: str) -> dict:
    """The recipe's settings for a regular or robust model on "mnist" or "digits"."""
    kind = "robust" if robust else "regular"
    defaults = {
        name: value[kind] if isinstance(value, dict) else value
        for name, value in RECIPES[recipe].items()
    }
    if source == "digits":
        defaults["epochs"] *= DIGITS_EPOCHS[recipe]
    return defaults


def _short(value) -> str:
    """A setting as it stands in a name: 0.2, 1, constant. Different values stay different."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


@dataclass(frozen=True)
class Run:
    """A run as read from its folder.

    Attributes:
        w, b: weights (d,) and bias, float64 copies of the float32 ones.
        config: config.json: the settings, image_shape, checksum and versions.
        history, steps: column name -> array with one number per epoch, per step; an optimum has
            one epoch and no steps.
    """

    folder: Path
    settings: Settings
    config: dict
    w: np.ndarray
    b: float
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def weights_sha256(self) -> str:
        """Ties numbers derived from these weights to them."""
        return hashlib.sha256(self.w.astype("<f8").tobytes() + np.float64(self.b)).hexdigest()


def threat(norm: str, box: bool) -> str:
    """The folder of a threat model's numbers: linf, linf-box, l2, ..."""
    return f"l{norm}{'-box' * box}"


def pixels_in_use(w: np.ndarray) -> int:
    """How many weights exceed 1 % of the largest, in absolute value."""
    size = np.abs(w)
    return int(np.count_nonzero(size > PIXEL_IN_USE * size.max(initial=0.0)))


def has_landscape(settings: Settings) -> bool:
    """Whether attack.py stores the loss over one weight: where eps decides which pixels stay."""
    threat = (settings.norm, settings.box, settings.loss)
    return settings.robust and threat == ("inf", False, "hinge")


def facts(split, versions: dict[str, str]) -> dict:
    """What config.json holds besides the settings, for a run on a `data.Dataset`."""
    return dict(
        digits=list(split.digits),
        image_shape=list(split.x_train.shape[1:]),
        train_samples=len(split.y_train),
        test_samples=len(split.y_test),
        data_sha256=split.checksum,
        versions=dict(python=platform.python_version(), numpy=np.__version__) | versions,
    )


def save(results: Path, settings: Settings, facts: dict, w, b, history: dict, **archives) -> Path:
    """Write a run whole, in place of an earlier one of the same settings.

    Args:
        results: the folder of all data sets.
        facts: what config.json holds besides the settings.
        w, b: weights (d,) and bias ().
        history: column name -> one number per epoch.
        archives: arrays by name, each written to an npz of its own: steps (by train.py), dual
            (by optimum.py).

    Returns:
        The run's folder.
    """
    place = settings.folder(results)
    with files.whole_folder(place) as folder:
        config = asdict(settings) | facts
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        np.savez(folder / "weights.npz", w=w, b=b)
        epochs = range(1, len(next(iter(history.values()))) + 1)
        files.write_csv(folder / "history.csv", {"epoch": epochs} | history)
        for name, arrays in archives.items():
            np.savez_compressed(folder / f"{name}.npz", **arrays)
    return place


def load(folder: Path) -> Run:
    """Read a run back.

    Raises:
        InputError: a file is missing, damaged, of the wrong shape or not finite; it is named.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        settings = Settings(**{f.name: config[f.name] for f in fields(Settings)})
        _check(settings)
        size = math.prod(config["image_shape"])
        config["data_sha256"]
        if settings.recipe == OPTIMAL:
            config["certificate"]["dual"]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: train the run again or remove its folder") from None
    except files.DAMAGED as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    path = folder / "weights.npz"
    weights = files.read_npz(path, ("w", "b"))
    for key, shape in (("w", (size,)), ("b", ())):
        if weights[key].shape != shape:
            raise InputError(f"{path}: {key} has shape {weights[key].shape}, not {shape}")
        if not np.isfinite(weights[key]).all():
            raise InputError(f"{path}: {key} is not finite")
    history = files.read_csv(folder / "history.csv")
    wanted = {"epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    if not wanted <= set(history) or not len(history["epoch"]):
        raise InputError(f"{folder / 'history.csv'} lacks rows or columns")
    steps = {}
    if settings.recipe != OPTIMAL:
        steps = files.read_npz(folder / "steps.npz", ("loss", "active", "w_l1", "pixels"))
    w, b = weights["w"].astype(np.float64), float(weights["b"])
    return Run(folder, settings, config, w, b, history, steps)


def _check(settings: Settings) -> None:
    """Raise TypeError or ValueError at a setting that train.py would not have written."""
    for f in fields(Settings):
        value = getattr(settings, f.name)
        kinds = get_args(f.type) or (f.type,)
        if type(value) not in kinds or (value is None and settings.recipe != OPTIMAL):
            raise TypeError(f"{f.name} is {value!r}")
        if type(value) in (int, float) and not 0 <= value < math.inf:
            raise ValueError(f"{f.name} is {value}")
    known = {
        "recipe": [*RECIPES, OPTIMAL],
        "norm": NORMS,
        "loss": LOSSES,
        "schedule": [*SCHEDULES, None],
        "init": [*INITS, None],
    }
    for name, values in known.items():
        if getattr(settings, name) not in values:
            raise ValueError(f"{name} is {getattr(settings, name)!r}")


def list_datasets(results: Path) -> list[Path]:
    """The data set folders under `results` that hold runs."""
    return [folder for folder in _folders(results) if list_runs(folder)]


def list_runs(dataset: Path) -> list[Path]:
    """The run folders of one data set, by name."""
    return [folder for folder in _folders(dataset) if folder.name not in NO_RUNS]


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    files.recover(parent)
    return sorted(f for f in parent.iterdir() if f.is_dir() and not f.name.startswith("."))
