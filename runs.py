"""What is stored of the experiment: trained models, attacks on them, studies. See lab/store.py.

    results/<dataset>/runs/<run>.npz                a trained or solved model
    results/<dataset>/attacks/<threat>/<run>.npz    the attack on it
    results/<dataset>/illustrations/<run>.npz       what only pictures need of it
    results/<dataset>/studies/<study>.npz           a study

The weights of a run are tied by their SHA-256 to all that was computed from them.
"""

from __future__ import annotations

import hashlib
import platform
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import store
from lab.cli import ResultsWarning
from lab.store import Missing, Table, Unsound

import numpy as np

import recipes

PIXEL_IN_USE = 0.01  # a pixel is in use where |w_j| exceeds this share of the largest |w|


@dataclass(frozen=True)
class Run:
    """A trained or solved model.

    Attributes:
        facts: digits, image_shape, train_samples, test_samples, data_sha256 and versions; of a run
            of optimum.py its certificate, and a note where there is one.
        w, b: weights (d,) and bias, in float64; of ten digits (10, d) and (10,).
        history, steps: name -> array with one number per epoch, per step. A run of optimum.py has
            one epoch and no steps.
        alpha: of a run of optimum.py, the dual solution (n,), of ten digits (n, 10); else None.
    """

    settings: recipes.Settings
    facts: dict
    w: np.ndarray
    b: float | np.ndarray
    history: Table
    steps: Table
    alpha: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def weights_sha256(self) -> str:
        """Ties numbers that were computed from these weights to them."""
        parts = (np.asarray(part, "<f8").tobytes() for part in (self.w, self.b))
        return hashlib.sha256(b"".join(parts)).hexdigest()

    @property
    def pixels_in_use(self) -> int:
        """How many weights exceed 1 % of the largest, in absolute value."""
        size = np.abs(self.w)
        return int(np.count_nonzero(size > PIXEL_IN_USE * size.max(initial=0.0)))


@dataclass(frozen=True)
class Attack:
    """What attack.py computes of one run in one threat model, on n test images.

    Attributes:
        facts: norm, box, the SHA-256 of weights and data, ||w||_1.
        eps, correct: (k,) radii, and how many test images withstand each.
        labels, logits, radii: (n,) of each test image; the radius is the least eps that flips it.
    """

    facts: dict
    eps: np.ndarray
    correct: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    radii: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """The share (k,) of test images that withstand each eps."""
        return self.correct / len(self.labels)

    def arrays(self) -> Table:
        """Everything but the facts, as a file holds it."""
        return {name: value for name, value in vars(self).items() if name != "facts"}


@dataclass(frozen=True)
class Illustration:
    """What only pictures need of one run, in the L-infinity ball. illustrations.py computes it.

    Attributes:
        facts: the SHA-256 of weights and data.
        image_index, images: (m,) and (m, height, width), the test images that figures show.
        nearest: columns eps, rank, index, label, logit of misclassified images.
        landscape: columns pixel, index, weight, hinge, robust_hinge; empty where there is none.
    """

    facts: dict
    image_index: np.ndarray
    images: np.ndarray
    nearest: Table
    landscape: Table

    def image(self, index: int) -> np.ndarray:
        """The stored test image (height, width) of this index, in [0, 1]."""
        return self.images[np.flatnonzero(self.image_index == index)[0]]

    def arrays(self) -> Table:
        """Everything but the facts, as a file holds it."""
        tables = store.flat(dict(nearest=self.nearest, landscape=self.landscape))
        return dict(image_index=self.image_index, images=self.images) | tables


@dataclass(frozen=True)
class Model:
    """A run with the attack on it in one threat model, as figures and tables need it."""

    run: Run
    attack: Attack
    illustration: Illustration | None = None

    @property
    def label(self) -> str:
        settings = self.run.settings
        if not settings.robust:
            return "regular"
        ball = "" if settings.norm == "inf" else f", {recipes.NORMS[settings.norm]}"
        kind = "exact minimum" if settings.recipe == recipes.OPTIMAL else "robust"
        loss = "" if settings.loss == "hinge" else f", {settings.loss}"
        return f"{kind} ε = {settings.eps:g}{ball}{', box' * settings.box}{loss}"

    def accuracy(self, eps: float) -> float:
        """Exact accuracy on the test set at any radius: the share of samples that withstand it."""
        return float(np.mean(self.attack.radii > eps))

    def illustrated(self) -> Illustration:
        """What pictures need of the run. Raises Missing if it is not there."""
        if self.illustration is None:
            raise Missing(f"{self.run.name} needs images: run {attack_command(self.run.name)}")
        return self.illustration


@dataclass(frozen=True)
class Results:
    """All that results/<dataset>/ holds and that is sound.

    Attributes:
        runs: name -> run.
        attacks: threat -> name of a run -> attack on its present weights.
        illustrations: name of a run -> what pictures need of it.
        studies: name of a table -> its arrays, of all studies.
    """

    folder: Path
    runs: dict[str, Run]
    attacks: dict[str, dict[str, Attack]]
    illustrations: dict[str, Illustration]
    studies: dict[str, Table]

    def models(self, threat: str = "linf") -> dict[str, Model]:
        """The runs that are attacked in this threat model, by name."""
        attacks = self.attacks.get(threat, {})
        return {
            name: Model(run, attacks[name], self.illustrations.get(name))
            for name, run in self.runs.items()
            if name in attacks
        }

    def choose(self, names: Iterable[str], threat: str = "linf") -> list[Model]:
        """The models of these names. Raises Missing if one is not there."""
        models = self.models(threat)
        for name in names:
            if name not in self.runs:
                raise Missing(f"{name} is needed: run {command(_run(self.folder, name))}")
        if missing := [name for name in names if name not in models]:
            again = command(store.file(self.folder, "attacks", threat, " ".join(missing)))
            raise Missing(f"{', '.join(missing)} must be attacked in {threat}: run {again}")
        return [models[name] for name in names]

    def study(self, table: str, study: str = "") -> Table:
        """A table of the study of this name, or of the same name. Raises Missing if absent."""
        if table not in self.studies:
            path = store.file(self.folder, "studies", study or table)
            raise Missing(f"{path} is needed: run {command(path)}")
        return self.studies[table]


def report(run: Run, results: Path) -> str:
    """The result of a trained run in one line, beside the certified minimum if it is stored."""
    settings, last = run.settings, {name: values[-1] for name, values in run.history.items()}
    parts = [f"{run.name}: test accuracy {last['test_accuracy']:.4f}"]
    if settings.robust:
        ball = recipes.NORMS[settings.norm] + " box" * settings.box
        kept = f"robust accuracy {last['test_robust_accuracy']:.4f} at {ball} radius {settings.eps}"
        parts += [kept, f"training loss {last['train_loss']:.4f}"]
        if minimum := certified_minimum(run, results):
            parts.append(f"the least possible is {minimum:.7f} (certified)")
    return ", ".join([*parts, f"written to {run_file(results, settings)}"])


def certified_minimum(run: Run, results: Path) -> float | None:
    """The least possible training loss, where optimum.py has stored it for this very problem."""
    settings = run.settings
    if settings.loss not in recipes.SOLVED:
        return None
    problem = settings.eps, settings.norm, settings.box, settings.loss
    solved = read_run(run_file(results, recipes.optimal(settings.dataset, *problem)))
    if solved is None or solved.facts["data_sha256"] != run.facts["data_sha256"]:
        return None
    return solved.facts["certificate"]["dual"]


# --- places and commands -------------------------------------------------------------------------


def threat(norm: str, box: bool) -> str:
    """The folder of a threat model: linf, linf-box, l2, ..."""
    return f"l{norm}{'-box' * box}"


def of_two_digits(results: Path) -> list[Path]:
    """The folders of the data sets that have runs, without those of ten digits.

    Attacks, figures and tables are of two digits; studies.py attacks the models of all ten.
    """
    return [path for path in store.datasets(results) if not path.name.endswith(recipes.ALL_DIGITS)]


THREATS = {threat(norm, box): (norm, box) for norm in recipes.NORMS for box in (False, True)}


def run_file(results: Path, settings: recipes.Settings) -> Path:
    return _run(Path(results) / settings.dataset, settings.name)


def _run(dataset: Path, name: str) -> Path:
    return store.file(dataset, "runs", name)


def attack_command(names: str, norm: str = "inf", box: bool = False) -> str:
    return f"python attack.py --runs {names}{f' --norm {norm}' * (norm != 'inf')}{' --box' * box}"


def study_command(dataset: str, name: str) -> str:
    if name == "example":
        return "python attack.py"
    options = recipes.data_options(dataset)
    if made := {"path": "--path", "rational": "--verify"}.get(name):
        return f"python optimum.py {made}{options}"
    if name.startswith("benchmark-"):
        return f"python benchmark.py --parts {name.removeprefix('benchmark-')}{options}"
    return f"python studies.py {name}{options}"


def command(path: Path) -> str:
    """The command that makes the file of this place, whatever the file holds.

    Of a run it is known where figures, tables or studies ask for the run. The file of any other run
    holds its command, which a damaged file has lost.
    """
    dataset, kind, *middle, name = store.place(path)
    if kind == "attacks":
        made = attack_command(name, *THREATS.get(middle[0], ("inf", False)))
    elif kind == "illustrations":
        made = attack_command(name)
    elif kind == "studies":
        made = study_command(dataset, name)
    elif settings := recipes.shown(dataset).get(name):
        made = settings.command()
    else:
        made = "the command that made it, or remove it"
    return store.again(made, path)


# --- writing -------------------------------------------------------------------------------------


def facts_of(split, versions: dict[str, str]) -> dict:
    """What the file of a run says of the `data.Dataset` that it is trained on, and of libraries."""
    return dict(
        digits=list(split.digits),
        image_shape=list(split.x_train.shape[1:]),
        train_samples=len(split.y_train),
        test_samples=len(split.y_test),
        data_sha256=split.checksum,
        versions=dict(python=platform.python_version(), numpy=np.__version__) | versions,
    )


def save_run(
    results: Path, settings: recipes.Settings, facts: dict, w, b, history, steps=None, **solved
) -> Path:
    """Write a run; returns its file.

    Args:
        results: the folder of all data sets.
        facts: those of `facts_of`; of a run of optimum.py also the certificate.
        w, b: weights (d,) and bias (), of ten digits (10, d) and (10,).
        history: name -> one number per epoch.
        steps: name -> one number per step, of a run of train.py.
        solved: alpha of a run of optimum.py, and the index (n,) of each training image in the
            official file, where it is known.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = dict(w=w, b=b, **solved) | store.flat(dict(history=history, steps=steps or {}))
    facts = dict(settings=asdict(settings)) | facts
    return store.save(run_file(results, settings), settings.command(), facts, arrays)


def save_attack(dataset: Path, name: str, attack: Attack) -> Path:
    """Write the attack on the run of this name. Raises InputError: it cannot be written."""
    norm, box = attack.facts["norm"], attack.facts["box"]
    path = store.file(dataset, "attacks", threat(norm, box), name)
    return store.save(path, attack_command(name, norm, box), attack.facts, attack.arrays())


def save_illustration(dataset: Path, name: str, found: Illustration) -> Path:
    """Write what pictures need of a run. Raises InputError: it cannot be written."""
    path = store.file(dataset, "illustrations", name)
    return store.save(path, attack_command(name), found.facts, found.arrays())


def save_study(dataset: Path, name: str, tables: dict[str, dict], used: Iterable[Run] = ()) -> Path:
    """Write the tables of a study, computed from the runs `used`; returns its file.

    A table is a dict of columns, or of arrays of any shape. Its name has no underscore, which parts
    it from those of its columns. A run of another data set is called mnist-all/optimal-eps0.1.
    """
    for table in tables:
        if "_" in table:
            raise ValueError(f"the name of a table has no underscore: {table}")
    facts = dict(weights_sha256={})
    for run in used:
        own = run.settings.dataset == dataset.name
        named = run.name if own else f"{run.settings.dataset}/{run.name}"
        facts["weights_sha256"][named] = run.weights_sha256
    path = store.file(dataset, "studies", name)
    return store.save(path, study_command(dataset.name, name), facts, store.flat(tables))


# --- reading -------------------------------------------------------------------------------------


def load_run(path: Path | str) -> Run:
    """Read a run. Raises Unsound: it is damaged, or not the one of this name."""
    path = Path(path)
    with store.loaded(path, command(path)) as (facts, arrays):
        settings = recipes.Settings(**facts.pop("settings"))
        history, steps = (store.take_table(arrays, name) for name in ("history", "steps"))
        w, b = (arrays[name].astype(np.float64) for name in "wb")
        b = b if b.ndim else float(b)
        return Run(settings, facts, w, b, history, steps, arrays.get("alpha"))


def load_attack(path: Path, run: Run) -> Attack:
    """Read the attack on this run. Raises Unsound: it is damaged, or it attacked other weights."""
    with store.loaded(path, command(path)) as (facts, arrays):
        attack = Attack(facts, **arrays)
    _require_weights(path, facts["weights_sha256"], run)
    return attack


def load_illustration(path: Path, run: Run) -> Illustration:
    """Read what pictures need of this run. Raises Unsound: damaged, or made of other weights."""
    with store.loaded(path, command(path)) as (facts, arrays):
        tables = {name: store.take_table(arrays, name) for name in ("nearest", "landscape")}
        found = Illustration(facts, **arrays, **tables)
    _require_weights(path, facts["weights_sha256"], run)
    return found


def load_study(path: Path, runs: dict[str, Run]) -> dict[str, Table]:
    """The tables of a study. Raises Unsound: it is damaged, or it used other weights of a run."""
    with store.loaded(path, command(path)) as (facts, arrays):
        names = dict.fromkeys(key.partition("_")[0] for key in arrays)
        tables = {name: store.take_table(arrays, name) for name in names}
        used = dict(facts["weights_sha256"])
    for name, sha256 in used.items():
        other, _, run = name.rpartition("/")
        run = read_run(_run(path.parents[2] / other, run)) if other else runs.get(name)
        if run:
            _require_weights(path, sha256, run)
    return tables


def _require_weights(path: Path, sha256: str, run: Run) -> None:
    if sha256 != run.weights_sha256:
        told = f"{path} is stale (it used other weights of {run.name}): run {command(path)}"
        raise Unsound(told)


def read(dataset: Path) -> Results:
    """All that the folder of a data set holds and that is sound.

    What is damaged or stale is left out, with a ResultsWarning for each.
    """
    runs, studies = read_runs(dataset), {}
    attacks = {
        folder.name: _of_runs(load_attack, folder, runs)
        for folder in store.folders(dataset / "attacks")
    }
    for path in store.files(dataset / "studies"):
        studies |= store.sound(load_study, path, runs) or {}
    illustrations = _of_runs(load_illustration, dataset / "illustrations", runs)
    return Results(dataset, runs, attacks, illustrations, studies)


def _of_runs(load, folder: Path, runs: dict[str, Run]) -> dict:
    """The files of a folder that belong to these runs and are sound, by the name of the run."""
    return {
        run.name: found
        for path in store.files(folder)
        if (run := runs.get(store.place(path)[-1])) and (found := store.sound(load, path, run))
    }


def read_runs(dataset: Path) -> dict[str, Run]:
    """The runs of a data set by name; each that is not sound is left out, with a warning."""
    found = (store.sound(load_run, path) for path in store.files(dataset / "runs"))
    return {run.name: run for run in found if run}


def read_run(path: Path) -> Run | None:
    """The run in this file; None where there is none, and with a warning where it is not sound."""
    return store.sound(load_run, path) if path.exists() else None


def trained_on(split, runs: dict[str, Run], dataset: Path) -> dict[str, Run]:
    """The runs that were trained on these data; a warning tells of each other one."""
    found = {}
    for name, run in runs.items():
        if run.facts["data_sha256"] == split.checksum:
            found[name] = run
        else:
            again = store.again(run.settings.command(), _run(dataset, name))
            line = f"{name} was trained on other images than {split.name} has now: run {again}"
            warnings.warn(line, ResultsWarning, stacklevel=2)
    return found
