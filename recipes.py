"""The settings of a run, the named recipes that fill them in, and the name of a run.

A recipe gives every setting its default. A setting that differs from its recipe shows in the name
of the run, so that different settings never share a file.
"""

import itertools
import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from lab.cli import InputError

NORMS = {"inf": "L∞", "2": "L2", "1": "L1"}
# What train.py minimises, each a function in losses.py.
LOSSES = ("hinge", "logistic")
SOLVED = ("hinge", "logistic")  # those whose minimum optimum.py finds
INITS = ("glorot", "zeros", "pytorch")
SCHEDULES = ("constant", "linear")

# recipe -> its defaults on MNIST, as (regular, robust) where the two differ.
RECIPES = {
    # The article's robust loss is a sum over 100 samples at learning rate 1e-4. That is 1e-2 on
    # the mean, and we always take the mean.
    "article": dict(
        loss="hinge",
        epochs=10,
        batch_size=100,
        learning_rate=(0.1, 0.01),
        momentum=0.0,
        schedule="constant",
        init="glorot",
        seed=0,
        eager=False,
    ),
    # Close to the minimum of the loss; found by a grid search on the training loss.
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
    # Kolter and Madry, Adversarial Robustness: Theory and Practice, chapter 2.
    "kolter-madry": dict(
        loss="logistic",
        epochs=(10, 20),
        batch_size=100,
        learning_rate=(1.0, 0.1),
        momentum=0.0,
        schedule="constant",
        init="pytorch",
        seed=0,
        eager=False,
    ),
}
# An epoch of mnist-sample has a sixteenth of MNIST's steps. The recipes take as many steps as on
# MNIST; the converged one needs some more, and larger ones, to come within 1 % of the minimum.
SAMPLE = {
    "article": dict(epochs=160),
    "converged": dict(epochs=3000, learning_rate=0.05),
    "kolter-madry": dict(epochs=(160, 320)),
}
ALL_DIGITS = "-all"  # ends the name of a data set of ten digits, as mnist-all
OPTIMAL = "optimal"  # the recipe of a run that optimum.py solved
CALLBACKS = "-callbacks"  # ends the name of a run with callbacks of the caller's own


def _real(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _whole(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


KINDS = {  # the values that an option may have, in words and as a test
    "radius": ("a finite number of at least 0", lambda v: _real(v) and 0 <= v < math.inf),
    "positive": ("a finite number above 0", lambda v: _real(v) and 0 < v < math.inf),
    "fraction": ("a number from 0 to below 1", lambda v: _real(v) and 0 <= v < 1),
    "count": ("a whole number of at least 1", lambda v: _whole(v) and v >= 1),
    "size": ("a number above 0, at most 1e6", lambda v: _real(v) and 0 < v <= 1e6),
    "steps": ("a whole number from 1 to 10000", lambda v: _whole(v) and 1 <= v <= 10_000),
    "seed": ("a whole number from 0 to 2^32 - 1", lambda v: _whole(v) and 0 <= v < 2**32),
    "dpi": ("a whole number from 10 to 1200", lambda v: _whole(v) and 10 <= v <= 1200),
    "flag": ("True or False", lambda v: isinstance(v, bool)),
}
VALID = {  # setting -> its kind, or its possible values
    "recipe": (*RECIPES, OPTIMAL),
    "robust": "flag",
    "eps": "radius",
    "norm": tuple(NORMS),
    "box": "flag",
    "loss": LOSSES,
    "epochs": "count",
    "batch_size": "count",
    "learning_rate": "positive",
    "momentum": "fraction",
    "schedule": SCHEDULES,
    "init": INITS,
    "seed": "seed",
    "eager": "flag",
}


OPTIONS = {  # setting of a recipe -> what the command line takes for it, and what it is
    "epochs": (dict(type=int, metavar="N"), "passes over the training set"),
    "batch_size": (dict(type=int, metavar="N"), "images per step; the last batch is smaller"),
    "learning_rate": (dict(type=float, metavar="X"), "of SGD on the mean loss"),
    "momentum": (dict(type=float, metavar="X"), "of SGD, from 0 to below 1"),
    "schedule": (dict(choices=SCHEDULES), "learning rate: constant, or linearly to 0"),
    "loss": (dict(choices=LOSSES), "of the margin"),
    "init": (dict(choices=INITS), "initial weights"),
}


def require(option: str, value, kind) -> None:
    """Raise InputError unless the value is of this kind, or one of these values."""
    if isinstance(kind, tuple):
        wanted, holds = f"one of {', '.join(kind)}", kind.__contains__
    else:
        wanted, holds = KINDS[kind]
    if not holds(value):
        raise InputError(f"--{option.replace('_', '-')} needs {wanted}, not {value!r}")


def check(**settings) -> None:
    """Raise InputError at the first of these settings that does not exist or is not valid."""
    for name, value in settings.items():
        if name not in VALID:
            raise InputError(f"no setting {name}; there are: {', '.join(VALID)}")
        require(name, value, VALID[name])


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a run ends. The later half is None for a run of optimum.py.

    `eps` is the radius of the perturbation ball, in pixel units of [0, 1]; 0 for a regular run.

    Raises:
        InputError: a setting is not valid, or two contradict each other.
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
    given_name: str = ""  # the name of a run with callbacks of the caller's own

    def __post_init__(self):
        for field in fields(self)[1:-1]:
            value = getattr(self, field.name)
            if value is None and self.recipe == OPTIMAL:
                continue
            check(**{field.name: value})
            if field.type in (float, float | None):
                value = float(value) + 0.0  # so that -0.0 and 0 have one name
            elif field.type in (int, int | None):
                value = int(value)
            object.__setattr__(self, field.name, value)
        if not self.robust and (self.eps, self.norm, self.box) != (0, "inf", False):
            raise InputError("--eps, --norm and --box need --robust: a regular run has no ball")
        if self.box and self.norm != "inf":
            raise InputError(f"--box needs --norm inf, not {self.norm}: leave one of them out")
        if self.norm == "inf" and self.eps > 1:
            raise InputError(
                f"--eps {self.eps:g} is too large: the L∞ ball of radius 1 around any image holds "
                "every image; choose at most 1"
            )

    @property
    def model(self) -> str:
        """What is trained, not how: "regular", "robust-eps0.2", "robust-eps0.2-box"."""
        if not self.robust:
            return "regular"
        norm = "" if self.norm == "inf" else f"-l{self.norm}"
        return f"robust-eps{_short(self.eps)}{norm}{'-box' * self.box}"

    @property
    def plain_hinge(self) -> bool:
        """Whether the loss is the article's: the hinge, in the L-infinity ball without the box."""
        return (self.loss, self.norm, self.box) == ("hinge", "inf", False)

    @property
    def variant(self) -> str:
        """How it is trained, where that is not the article's recipe: "converged-seed1"."""
        if self.recipe == OPTIMAL:
            return OPTIMAL if self.loss == "hinge" else f"{OPTIMAL}-loss{self.loss}"
        parts = [] if self.recipe == "article" else [self.recipe]
        parts += [name.replace("_", "") + _short(value) for name, value in self.changed.items()]
        return "-".join([*parts, "callbacks"] if self.given_name else parts)

    @property
    def changed(self) -> dict:
        """The settings that are not those of the recipe."""
        usual = dict(loss="hinge")
        if self.recipe != OPTIMAL:
            usual = defaults(self.recipe, self.robust, self.dataset)
        return {name: now for name in usual if (now := getattr(self, name)) != usual[name]}

    @property
    def name(self) -> str:
        """The run's file: a different setting, a different name."""
        if self.given_name:
            return self.given_name
        if self.recipe == OPTIMAL:
            return self.model.replace("robust", OPTIMAL) + self.variant.removeprefix(OPTIMAL)
        return "-".join(filter(None, [self.model, self.variant]))

    def command(self) -> str:
        """The command that makes the run."""
        if self.given_name:
            return "the Python code that made it"
        solved = self.recipe == OPTIMAL
        parts = ["python optimum.py" if solved else "python train.py"]
        if self.robust:
            parts += ["--robust"] * (not solved) + [f"--eps {_short(self.eps)}"]
        parts += [f"--norm {self.norm}"] * (self.norm != "inf") + ["--box"] * self.box
        parts += [f"--recipe {self.recipe}"] * (self.recipe not in ("article", OPTIMAL))
        for name, value in self.changed.items():
            parts.append(f"--{name.replace('_', '-')} {_short(value)}".rstrip())
        return " ".join(parts) + data_options(self.dataset)

    def steps_per_epoch(self, samples: int) -> int:
        """The last batch may be smaller."""
        return -(-samples // self.batch_size)


def defaults(recipe: str, robust: bool, dataset: str) -> dict:
    """The recipe's settings for a regular or robust model on a data set such as mnist-0-1."""
    settings = RECIPES[recipe]
    if dataset.startswith("mnist-sample"):
        settings = settings | SAMPLE[recipe]
    return {
        name: value[robust] if isinstance(value, tuple) else value
        for name, value in settings.items()
    }


def several(value) -> list:
    """A single radius, seed or callback as a list of one; several as they come, each once."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [value]
    values = list(value)
    return [value for k, value in enumerate(values) if value not in values[:k]]


def settings(
    dataset: str,
    robust: bool = False,
    eps: float | None = None,
    norm: str = "inf",
    box: bool = False,
    recipe: str = "article",
    **changed,
) -> Settings:
    """The settings of a recipe, some of them changed. `eps` is 0.2 unless given.

    Raises:
        InputError: a setting is not valid.
    """
    require("recipe", recipe, tuple(RECIPES))
    check(robust=robust, **changed)
    if eps is None:
        eps = 0.2 if robust else 0.0
    tuned = defaults(recipe, robust, dataset) | changed
    return Settings(dataset, recipe, robust, eps, str(norm), box, **tuned)


def grid(
    dataset: str,
    robust: bool,
    radii: list,
    norm: str,
    box: bool,
    recipe: str,
    seeds: list,
    **changed,
) -> list[Settings]:
    """The settings of one model for each radius and seed, the seeds of a radius in turn."""
    ball = dict(norm=norm, box=box, recipe=recipe)
    return [
        settings(dataset, robust, eps, **ball, **changed, seed=seed)
        for eps, seed in itertools.product(radii, seeds)
    ]


def with_callbacks(settings: Settings) -> Settings:
    """The settings of a run with callbacks of the caller's own, which gets a name of its own."""
    return replace(settings, given_name=settings.name + CALLBACKS)


def optimal(
    dataset: str, eps: float, norm: str = "inf", box: bool = False, loss: str = "hinge"
) -> Settings:
    """The settings of the exact minimum of a robust loss."""
    require("loss", loss, SOLVED)
    return Settings(dataset, OPTIMAL, True, eps, str(norm), box, loss)


def shown(dataset: str) -> dict[str, Settings]:
    """The runs that figures, tables and studies ask for, by name."""
    if dataset.endswith(ALL_DIGITS):
        return {one.name: one for one in (optimal(dataset, eps) for eps in (0.05, 0.1))}
    found = [settings(dataset, init="zeros"), optimal(dataset, 0.2, box=True)]
    found += [optimal(dataset, 1.5, "2"), optimal(dataset, 20, "1")]
    found += [optimal(dataset, eps) for eps in (0.1, 0.2, 0.3)]
    for recipe in RECIPES:
        found.append(settings(dataset, recipe=recipe))
        for eps, box in itertools.product((0.1, 0.2, 0.3), (False, True)):
            found.append(settings(dataset, True, eps, box=box, recipe=recipe))
    return {one.name: one for one in found}


def data_options(dataset: str) -> str:
    """The options of a command that choose this data set, as mnist-sample-3-7 or mnist-all."""
    source, *digits = dataset.rsplit("-", 2 - dataset.endswith(ALL_DIGITS))
    options = f" --dataset {source}" if source != "mnist" else ""
    return options + (f" --digits {' '.join(digits)}" if digits != ["0", "1"] else "")


def describe_default(name: str) -> str:
    """The default of a setting in each recipe, as text; regular / robust where they differ."""
    values = {recipe: found[name] for recipe, found in RECIPES.items()}
    texts = [
        f"{recipe}: {' / '.join(map(str, value)) if isinstance(value, tuple) else value}"
        for recipe, value in values.items()
    ]
    return f"(default: {'; '.join(texts)})"


def _short(value) -> str:
    """A setting as it stands in a name: 0.2, 1, constant. Different values stay different."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)
