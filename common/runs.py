"""What results/<dataset>/ holds: trained runs, the attacks on them, and the studies.

    runs/<run>/              config.json, weights.npz, history.csv, steps.npz (or dual.npz)
    attacks/<threat>/<run>/  attack.json, accuracy.csv, nearest.csv, samples.npz, landscape.csv
    studies/<study>.json     and the csv and npz files that it lists
    figures/                 the pictures drawn from these numbers

docs/reference.md describes each file. `read` verifies all of them.
"""

import hashlib
import platform
import shlex
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from common import files
from common.cli import RESULTS, InputError, ResultsWarning
from common.files import Unsound

import numpy as np

import recipes

PIXEL_IN_USE = 0.01  # a pixel is in use where |w_j| exceeds this share of the largest |w|


class Missing(InputError):
    """What a figure or study needs and the results do not hold; the message says how to get it."""


@dataclass(frozen=True)
class Run:
    """A trained or solved model.

    Attributes:
        config: config.json: the settings, the shape of an image, checksum and versions.
        w, b: weights (d,) and bias, in float64.
        history, steps: column -> array with one number per epoch, per step. A run of optimum.py
            has one epoch and no steps.
        alpha: of a run of optimum.py, the dual solution (n,); else None.
    """

    settings: recipes.Settings
    config: dict
    w: np.ndarray
    b: float
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    alpha: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def weights_sha256(self) -> str:
        """Ties numbers that were computed from these weights to them."""
        return hashlib.sha256(self.w.astype("<f8").tobytes() + np.float64(self.b)).hexdigest()

    @property
    def pixels_in_use(self) -> int:
        """How many weights exceed 1 % of the largest, in absolute value."""
        size = np.abs(self.w)
        return int(np.count_nonzero(size > PIXEL_IN_USE * size.max(initial=0.0)))


@dataclass(frozen=True)
class Attack:
    """What attack.py computes of one run in one threat model.

    Attributes:
        facts: attack.json: norm, box, the checksums of weights and data, ||w||_1.
        accuracy: columns eps, correct, samples, accuracy.
        nearest: columns eps, rank, index, label, logit of misclassified samples.
        samples: labels, logits, radii (n,); image_index (k,), images (k, height, width).
        landscape: columns pixel, index, weight, hinge, robust_hinge; None where there is none.
    """

    facts: dict
    accuracy: dict[str, np.ndarray]
    nearest: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]
    landscape: dict[str, np.ndarray] | None = None

    def image(self, index: int) -> np.ndarray:
        """The stored test image (height, width) of this index, in [0, 1]."""
        return self.samples["images"][np.flatnonzero(self.samples["image_index"] == index)[0]]


@dataclass(frozen=True)
class Model:
    """A run with the attack on it in one threat model, as figures and tables need it."""

    run: Run
    attack: Attack

    @property
    def label(self) -> str:
        settings = self.run.settings
        if not settings.robust:
            return "regular"
        ball = "" if settings.norm == "inf" else f", {recipes.NORMS[settings.norm]}"
        kind = "exact minimum" if settings.recipe == recipes.OPTIMAL else "robust"
        return f"{kind} ε = {settings.eps:g}{ball}{', box' * settings.box}"

    def accuracy(self, eps: float) -> float:
        """Exact accuracy on the test set at any radius: the share of samples that withstand it."""
        return float(np.mean(self.attack.samples["radii"] > eps))


@dataclass(frozen=True)
class Results:
    """All that results/<dataset>/ holds and that is verified.

    Attributes:
        runs: name -> run.
        attacks: threat -> name of a run -> attack on its present weights.
        studies: name of a csv file -> its columns; name of an npz file, such as example.npz -> its
            arrays.
    """

    folder: Path
    runs: dict[str, Run]
    attacks: dict[str, dict[str, Attack]]
    studies: dict[str, dict[str, np.ndarray]]

    def models(self, threat: str = "linf") -> dict[str, Model]:
        """The runs that are attacked in this threat model, by name."""
        attacks = self.attacks.get(threat, {})
        return {
            name: Model(run, attacks[name]) for name, run in self.runs.items() if name in attacks
        }

    def choose(self, names, threat: str = "linf") -> list[Model]:
        """The models of these names. Raises Missing if one is not there."""
        models = self.models(threat)
        for name in names:
            if name not in self.runs:
                again = recipes.command(name) + _place(self.folder)
                raise Missing(f"{name} is needed: run {again}")
        if missing := [name for name in names if name not in models]:
            again = again_attack(" ".join(missing), threat, self.folder)
            raise Missing(f"{', '.join(missing)} must be attacked in {threat}: run {again}")
        return [models[name] for name in names]

    def study(self, name: str) -> dict[str, np.ndarray]:
        """The columns of studies/NAME.csv, or the arrays of an npz. Raises Missing if absent."""
        if name not in self.studies:
            file = self.folder / "studies" / (name if name.endswith(".npz") else f"{name}.csv")
            raise Missing(f"{file} is needed: run {again_study(study_of(file.stem))}")
        return self.studies[name]


def threat(norm: str, box: bool) -> str:
    """The folder of a threat model: linf, linf-box, l2, ..."""
    return f"l{norm}{'-box' * box}"


# --- the commands that make a folder again -----------------------------------------------------


def again_attack(name: str, threat: str, dataset: Path) -> str:
    norm, _, box = threat.removeprefix("l").partition("-")
    ball = "" if norm == "inf" else f" --norm {norm}"
    box = " --box" if box else ""
    return f"python attack.py --runs {name}{ball}{box}{_results(dataset)}"


def study_of(table: str) -> str:
    """The study that makes this csv file: of the same name, except for three."""
    others = {
        "copies": "transfer",
        "ten-digits-library": "ten-digits",
        "ten-digits-rivals": "ten-digits",
    }
    return others.get(table, table)


def again_study(name: str) -> str:
    if name.startswith("benchmark-"):
        return f"python benchmark.py --parts {name.removeprefix('benchmark-')}"
    if name == "example":
        return "python attack.py, once there are regular and robust-eps0.2"
    return f"python studies.py {name}"


def _place(dataset: Path) -> str:
    """The options of a command that choose this data set, where it is not the default."""
    source, *digits = dataset.name.rsplit("-", 2)
    options = f" --dataset {source}" if source != "mnist" else ""
    options += f" --digits {' '.join(digits)}" if digits != ["0", "1"] else ""
    return options + _results(dataset)


def _results(dataset: Path) -> str:
    return (
        f" --results {shlex.quote(str(dataset.parent))}"
        if dataset.parent.resolve() != RESULTS
        else ""
    )


# --- writing -----------------------------------------------------------------------------------


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


def folder(results: Path, settings: recipes.Settings) -> Path:
    return Path(results) / settings.dataset / "runs" / settings.name


def save(results: Path, settings, facts: dict, w, b, history: dict, **archives) -> Path:
    """Write a run; returns its folder.

    Args:
        results: the folder of all data sets.
        facts: what config.json holds besides the settings.
        w, b: weights (d,) and bias ().
        history: column -> one number per epoch.
        archives: arrays by name, each written to an npz of its own: steps (by train.py), dual
            (by optimum.py).

    Raises:
        InputError: a file cannot be written.
    """
    place = folder(results, settings)
    epochs = range(1, len(next(iter(history.values()))) + 1)
    contents = {
        "weights.npz": files.to_npz(dict(w=w, b=b), compressed=False),
        "history.csv": files.to_csv({"epoch": epochs} | history),
        **{f"{name}.npz": files.to_npz(arrays) for name, arrays in archives.items()},
    }
    config = asdict(settings) | facts
    if not config["given_name"]:
        del config["given_name"]
    files.write_numbers(place / "config.json", config, contents)
    return place


def save_attack(dataset: Path, name: str, attack: Attack) -> None:
    """Write the attack on the run of this name. Raises InputError: a file cannot be written."""
    place = dataset / "attacks" / threat(attack.facts["norm"], attack.facts["box"]) / name
    contents = {
        "accuracy.csv": files.to_csv(attack.accuracy),
        "nearest.csv": files.to_csv(attack.nearest),
        "samples.npz": files.to_npz(attack.samples),
    }
    if attack.landscape:
        contents["landscape.csv"] = files.to_csv(attack.landscape)
    files.write_numbers(place / "attack.json", attack.facts, contents)


def save_study(
    dataset: Path, name: str, tables: dict[str, dict], used=None, arrays=None
) -> list[Path]:
    """Write studies/NAME.json, and a csv for each table, computed from the runs `used` by name.

    Arrays, if there are any, go to NAME.npz. Returns the paths of the csv and npz files.
    """
    weights = {name: run.weights_sha256 for name, run in (used or {}).items()}
    contents = {f"{table}.csv": files.to_csv(columns) for table, columns in tables.items()}
    if arrays:
        contents[f"{name}.npz"] = files.to_npz(arrays)
    index = dataset / "studies" / f"{name}.json"
    files.write_numbers(index, {"weights_sha256": weights}, contents)
    return [index.with_name(file) for file in contents]


# --- reading -----------------------------------------------------------------------------------


def load(folder: Path) -> Run:
    """Read a run back.

    Raises:
        Unsound: it is unfinished or damaged.
    """
    again = recipes.command(folder.name) + _place(folder.parent.parent)
    index = folder / "config.json"
    config, contents = files.read_numbers(index, again)
    try:
        known = {f.name for f in fields(recipes.Settings)}
        settings = recipes.Settings(**{k: v for k, v in config.items() if k in known})
        if settings.name != folder.name:
            raise ValueError(f"its settings are those of {settings.name}")
        tables = files.tables(contents)
        weights, history = tables["weights.npz"], tables["history"]
        w, b = weights["w"].astype(np.float64), float(weights["b"])
        steps, dual = (tables.get(name, {}) for name in ("steps.npz", "dual.npz"))
    except Exception as error:  # what NumPy raises on a file that is no npz has many types
        raise Unsound(
            f"{index} is damaged ({type(error).__name__}: {error}): run {again}"
        ) from None
    return Run(settings, config, w, b, history, steps, dual.get("alpha"))


def load_attack(folder: Path, run: Run) -> Attack:
    """Read the attack on this run.

    Raises:
        Unsound: it is unfinished or damaged, or it attacked other weights.
    """
    again = again_attack(run.name, folder.parent.name, folder.parents[2])
    index = folder / "attack.json"
    facts, contents = files.read_numbers(index, again)
    try:
        if threat(facts["norm"], facts["box"]) != folder.parent.name:
            raise ValueError("it is the attack of another threat model")
        stale = facts["weights_sha256"] != run.weights_sha256
        tables = files.tables(contents)
        tables["nearest"]["index"] = tables["nearest"]["index"].astype(int)
        attack = Attack(facts, samples=tables.pop("samples.npz"), **tables)
    except Exception as error:
        raise Unsound(
            f"{index} is damaged ({type(error).__name__}: {error}): run {again}"
        ) from None
    if stale:
        raise Unsound(f"{folder} is stale (it attacked other weights of {run.name}): run {again}")
    return attack


def load_study(index: Path, runs: dict[str, Run]) -> dict[str, dict[str, np.ndarray]]:
    """The tables of a study by the names of their csv files; its arrays by that of the npz file.

    Raises:
        Unsound: it is unfinished or damaged, or it used other weights than a run has now.
    """
    again = again_study(index.stem) + _place(index.parent.parent)
    facts, contents = files.read_numbers(index, again)
    for name, sha256 in facts.get("weights_sha256", {}).items():
        if name in runs and runs[name].weights_sha256 != sha256:
            raise Unsound(f"{index} is stale (it used other weights of {name}): run {again}")
    return files.tables(contents)


def read(dataset: Path) -> Results:
    """All that the folder of a data set holds, verified.

    What is unfinished, damaged or stale is left out, with a ResultsWarning for each.
    """
    runs, attacks, studies, indexes = read_runs(dataset), {}, {}, set()
    for place in _folders(dataset / "attacks"):
        attacks[place.name] = {
            folder.name: attack
            for folder in _folders(place)
            if folder.name in runs and (attack := sound(load_attack, folder, runs[folder.name]))
        }
    for file in (dataset / "studies").glob("*.*"):
        if file.suffix in (".json", ".csv", ".npz"):
            indexes.add(file.with_name(f"{study_of(file.stem)}.json"))
    for index in sorted(indexes):
        studies |= sound(load_study, index, runs) or {}
    return Results(dataset, runs, attacks, studies)


def read_runs(dataset: Path) -> dict[str, Run]:
    """The runs of a data set by name; each that is not sound is left out, with a warning."""
    found = (sound(load, folder) for folder in _folders(dataset / "runs"))
    return {run.name: run for run in found if run}


def trained_on(split, dataset: Path, runs: dict[str, Run]) -> dict[str, Run]:
    """The runs that were trained on these data; a warning tells of each other one."""
    found = {}
    for name, run in runs.items():
        if run.config["data_sha256"] == split.checksum:
            found[name] = run
        else:
            again = recipes.command(name) + _place(dataset)
            line = f"{name} was trained on other images than {split.name} has now: run {again}"
            warnings.warn(line, ResultsWarning, stacklevel=2)
    return found


def datasets(results: Path) -> list[Path]:
    """The folders of the data sets that have runs."""
    return [folder for folder in _folders(Path(results)) if (folder / "runs").is_dir()]


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir())


def sound(load, *arguments):
    """What `load` returns, or None and a warning."""
    try:
        return load(*arguments)
    except Unsound as error:
        warnings.warn(str(error), ResultsWarning, stacklevel=3)
