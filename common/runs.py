"""What results/<dataset>/ holds: trained runs, attacks on them, and studies. A result is a file.

    runs/<run>.npz                a trained or solved model
    attacks/<threat>/<run>.npz    the attack on it
    studies/<study>.npz           a study

Each file holds arrays, and `facts`, a JSON text. It is written under another name and renamed, so
it is never half there. `_load` alone reads it: the SHA-256 of all that the file holds must be the
one that was written with it, and its data set, folder and name those that it was written with.
docs/reference.md lists what each kind of file holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import shlex
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from common.cli import RESULTS, InputError, ResultsWarning

import numpy as np

import recipes

PIXEL_IN_USE = 0.01  # a pixel is in use where |w_j| exceeds this share of the largest |w|
Table = dict[str, np.ndarray]  # arrays by name; columns, if all have one dimension


class Unsound(InputError):
    """A file that is damaged or stale. The message says what to run."""


class Missing(InputError):
    """What a figure or study needs and the results do not hold; the message says how to get it."""


@dataclass(frozen=True)
class Run:
    """A trained or solved model.

    Attributes:
        facts: digits, image_shape, train_samples, test_samples, data_sha256 and versions; of a run
            of optimum.py its certificate, and a note where there is one.
        w, b: weights (d,) and bias, in float64.
        history, steps: name -> array with one number per epoch, per step. A run of optimum.py has
            one epoch and no steps.
        alpha: of a run of optimum.py, the dual solution (n,); else None.
    """

    settings: recipes.Settings
    facts: dict
    w: np.ndarray
    b: float
    history: Table
    steps: Table
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
    """What attack.py computes of one run in one threat model, on n test images.

    Attributes:
        facts: norm, box, the SHA-256 of weights and data, ||w||_1.
        eps, correct: (k,) radii, and how many test images withstand each.
        labels, logits, radii: (n,) of each test image; the radius is the least eps that flips it.
        image_index, images: (m,) and (m, height, width), the test images that figures show.
        nearest: columns eps, rank, index, label, logit of misclassified images.
        landscape: columns pixel, index, weight, hinge, robust_hinge; empty where there is none.
    """

    facts: dict
    eps: np.ndarray
    correct: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    radii: np.ndarray
    image_index: np.ndarray
    images: np.ndarray
    nearest: Table
    landscape: Table

    @property
    def accuracy(self) -> np.ndarray:
        """The share (k,) of test images that withstand each eps."""
        return self.correct / len(self.labels)

    def image(self, index: int) -> np.ndarray:
        """The stored test image (height, width) of this index, in [0, 1]."""
        return self.images[np.flatnonzero(self.image_index == index)[0]]

    def arrays(self) -> Table:
        """Everything but the facts, as a file holds it."""
        single = {name: value for name, value in vars(self).items() if not isinstance(value, dict)}
        return single | _flat(dict(nearest=self.nearest, landscape=self.landscape))


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
        loss = "" if settings.loss == "hinge" else f", {settings.loss}"
        return f"{kind} ε = {settings.eps:g}{ball}{', box' * settings.box}{loss}"

    def accuracy(self, eps: float) -> float:
        """Exact accuracy on the test set at any radius: the share of samples that withstand it."""
        return float(np.mean(self.attack.radii > eps))


@dataclass(frozen=True)
class Results:
    """All that results/<dataset>/ holds and that is sound.

    Attributes:
        runs: name -> run.
        attacks: threat -> name of a run -> attack on its present weights.
        studies: name of a table -> its arrays, of all studies.
    """

    folder: Path
    runs: dict[str, Run]
    attacks: dict[str, dict[str, Attack]]
    studies: dict[str, Table]

    def models(self, threat: str = "linf") -> dict[str, Model]:
        """The runs that are attacked in this threat model, by name."""
        attacks = self.attacks.get(threat, {})
        return {
            name: Model(run, attacks[name]) for name, run in self.runs.items() if name in attacks
        }

    def choose(self, names: Iterable[str], threat: str = "linf") -> list[Model]:
        """The models of these names. Raises Missing if one is not there."""
        models = self.models(threat)
        for name in names:
            if name not in self.runs:
                again = command(file(self.folder, "runs", name))
                raise Missing(f"{name} is needed: run {again}")
        if missing := [name for name in names if name not in models]:
            again = command(file(self.folder, "attacks", threat, " ".join(missing)))
            raise Missing(f"{', '.join(missing)} must be attacked in {threat}: run {again}")
        return [models[name] for name in names]

    def study(self, table: str, study: str = "") -> Table:
        """A table of the study of this name, or of the same name. Raises Missing if absent."""
        if table not in self.studies:
            path = file(self.folder, "studies", study or table)
            raise Missing(f"{path} is needed: run {command(path)}")
        return self.studies[table]


def threat(norm: str, box: bool) -> str:
    """The folder of a threat model: linf, linf-box, l2, ..."""
    return f"l{norm}{'-box' * box}"


# --- the command that makes a file -------------------------------------------------------------


def command(path: Path) -> str:
    """The command that makes this file again, read off the file's place.

    The file itself stores it, too, but a file that is damaged may have lost it.
    """
    made, results = _command(_place(path)), path.parents[len(_place(path)) - 1]
    if results.resolve() == RESULTS or not made.startswith("python"):
        return made
    return f"{made} --results {shlex.quote(str(results))}"


def _command(place: tuple[str, ...]) -> str:
    dataset, kind, *_, name = place
    source, *digits = dataset.rsplit("-", 2)
    data = f" --dataset {source}" if source != "mnist" else ""
    data += f" --digits {' '.join(digits)}" if digits != ["0", "1"] else ""
    if kind == "runs":
        made = recipes.command(name)
        return made + data if made.startswith("python") else made
    if kind == "attacks":
        norm, _, box = place[2].removeprefix("l").partition("-")
        ball = "" if norm == "inf" else f" --norm {norm}"
        return f"python attack.py --runs {name}{ball}{' --box' if box else ''}"
    if name.startswith("benchmark-"):
        return f"python benchmark.py --parts {name.removeprefix('benchmark-')}{data}"
    if name == "example":
        return "python attack.py"
    if name == "path":
        return f"python optimum.py --path{data}"
    return f"python studies.py {name}{data}"


def file(dataset: Path, *parts: str) -> Path:
    *folders, name = parts
    return dataset.joinpath(*folders, f"{name}.npz")


def _place(path: Path) -> tuple[str, ...]:
    """Where a file lies below the folder of all results, such as mnist-0-1, runs, regular."""
    depth = 4 if path.parent.parent.name == "attacks" else 3
    return (*path.absolute().parts[-depth:-1], path.name.removesuffix(".npz"))


# --- files -------------------------------------------------------------------------------------


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole: a reader finds the old content or the new.

    Raises:
        InputError: the file cannot be written.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # of this process alone
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def to_npz(arrays: dict) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def from_npz(path: Path) -> Table:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _save(path: Path, facts: dict, arrays: dict) -> Path:
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    if objects := [name for name, values in arrays.items() if values.dtype.hasobject]:
        raise TypeError(f"{objects[0]} holds Python objects: give numbers or text alone")
    facts = dict(place="/".join(_place(path)), command=_command(_place(path))) | facts
    facts["sha256"] = _sha256(facts, arrays)
    write(path, to_npz(dict(facts=json.dumps(facts)) | arrays))
    return path


def _load(path: Path) -> tuple[dict, Table]:
    """The facts and arrays of a file. Raises one of many exceptions where it is not as written."""
    arrays = from_npz(path)
    facts = json.loads(arrays.pop("facts").item())
    if facts.pop("sha256") != _sha256(facts, arrays):
        raise ValueError("it does not hold what was written")
    if facts["place"] != "/".join(_place(path)):
        raise ValueError(f"it was written as {facts['place']}")
    return facts, arrays


def _sha256(facts: dict, arrays: Table) -> str:
    """Of the facts and arrays, in any order."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


def _flat(tables: dict[str, dict]) -> dict:
    """Tables of arrays as single arrays, named TABLE_NAME."""
    return {f"{table}_{name}": values for table in tables for name, values in tables[table].items()}


def _table(arrays: Table, name: str) -> Table:
    """The reverse of `_flat` for one table; takes its arrays out of `arrays`."""
    found = [key for key in arrays if key.startswith(f"{name}_")]
    return {key.removeprefix(f"{name}_"): arrays.pop(key) for key in found}


def columns(rows: list[dict], names: Iterable[str] = ()) -> dict[str, list]:
    """Rows, each a dict, as columns; `names` is needed where there may be no row."""
    return {name: [row[name] for row in rows] for name in names or rows[0]}


# --- writing -----------------------------------------------------------------------------------


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


def run_file(results: Path, settings: recipes.Settings) -> Path:
    return file(Path(results) / settings.dataset, "runs", settings.name)


def save_run(
    results: Path, settings: recipes.Settings, facts: dict, w, b, history, steps=None, **solved
) -> Path:
    """Write a run; returns its file.

    Args:
        results: the folder of all data sets.
        facts: those of `facts_of`; of a run of optimum.py also the certificate.
        w, b: weights (d,) and bias ().
        history: name -> one number per epoch.
        steps: name -> one number per step, of a run of train.py.
        solved: alpha (n,) of a run of optimum.py, and the index (n,) of each training image in the
            official file, where it is known.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = dict(w=w, b=b, **solved) | _flat(dict(history=history, steps=steps or {}))
    return _save(run_file(results, settings), dict(settings=asdict(settings)) | facts, arrays)


def save_attack(dataset: Path, name: str, attack: Attack) -> Path:
    """Write the attack on the run of this name. Raises InputError: it cannot be written."""
    place = threat(attack.facts["norm"], attack.facts["box"])
    return _save(file(dataset, "attacks", place, name), attack.facts, attack.arrays())


def save_study(dataset: Path, name: str, tables: dict[str, dict], used: Iterable[Run] = ()) -> Path:
    """Write the tables of a study, computed from the runs `used`; returns its file.

    A table is a dict of columns, or of arrays of any shape.

    Raises:
        InputError: the file cannot be written.
        ValueError: the name of a table has an underscore, which parts it from those of its columns.
    """
    for table in tables:
        if "_" in table:
            raise ValueError(f"the name of a table has no underscore: {table}")
    facts = dict(weights_sha256={run.name: run.weights_sha256 for run in used})
    return _save(file(dataset, "studies", name), facts, _flat(tables))


# --- reading -----------------------------------------------------------------------------------


def load_run(path: Path) -> Run:
    """Read a run. Raises Unsound: it is damaged, or not the one of this name."""
    with _named(path):
        facts, arrays = _load(path)
        settings = recipes.Settings(**facts.pop("settings"))
        history, steps = (_table(arrays, name) for name in ("history", "steps"))
        w, b = arrays["w"].astype(np.float64), float(arrays["b"])
        return Run(settings, facts, w, b, history, steps, arrays.get("alpha"))


def load_attack(path: Path, run: Run) -> Attack:
    """Read the attack on this run. Raises Unsound: it is damaged, or it attacked other weights."""
    with _named(path):
        facts, arrays = _load(path)
        tables = {name: _table(arrays, name) for name in ("nearest", "landscape")}
        attack = Attack(facts, **arrays, **tables)
    if facts["weights_sha256"] != run.weights_sha256:
        reason = f"it attacked other weights of {run.name}"
        raise Unsound(f"{path} is stale ({reason}): run {command(path)}")
    return attack


def load_study(path: Path, runs: dict[str, Run]) -> dict[str, Table]:
    """The tables of a study. Raises Unsound: it is damaged, or it used other weights of a run."""
    with _named(path):
        facts, arrays = _load(path)
        names = dict.fromkeys(key.partition("_")[0] for key in arrays)
        tables = {name: _table(arrays, name) for name in names}
    for name, sha256 in facts["weights_sha256"].items():
        if name in runs and runs[name].weights_sha256 != sha256:
            raise Unsound(f"{path} is stale (it used other weights of {name}): run {command(path)}")
    return tables


def read(dataset: Path) -> Results:
    """All that the folder of a data set holds and that is sound.

    What is damaged or stale is left out, with a ResultsWarning for each.
    """
    runs, studies = read_runs(dataset), {}
    attacks = {
        place.name: {
            run.name: attack
            for path in _files(place)
            if (run := runs.get(_place(path)[-1])) and (attack := _sound(load_attack, path, run))
        }
        for place in _folders(dataset / "attacks")
    }
    for path in _files(dataset / "studies"):
        studies |= _sound(load_study, path, runs) or {}
    return Results(dataset, runs, attacks, studies)


def read_runs(dataset: Path) -> dict[str, Run]:
    """The runs of a data set by name; each that is not sound is left out, with a warning."""
    found = (_sound(load_run, path) for path in _files(dataset / "runs"))
    return {run.name: run for run in found if run}


def read_run(path: Path) -> Run | None:
    """The run in this file; None where there is none, and with a warning where it is not sound."""
    return _sound(load_run, path) if path.exists() else None


def trained_on(split, runs: dict[str, Run], dataset: Path) -> dict[str, Run]:
    """The runs that were trained on these data; a warning tells of each other one."""
    found = {}
    for name, run in runs.items():
        if run.facts["data_sha256"] == split.checksum:
            found[name] = run
        else:
            again = command(file(dataset, "runs", name))
            line = f"{name} was trained on other images than {split.name} has now: run {again}"
            warnings.warn(line, ResultsWarning, stacklevel=2)
    return found


def datasets(results: Path) -> list[Path]:
    """The folders of the data sets that have runs."""
    return [folder for folder in _folders(results) if (folder / "runs").is_dir()]


def names(folder: Path) -> list[str]:
    """The names of the files in a folder, such as runs/, sound or not."""
    return [_place(path)[-1] for path in _files(folder)]


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir())


def _files(parent: Path) -> list[Path]:
    found = (path for path in parent.glob("*.npz") if not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name.removesuffix(".npz"))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever goes wrong in the block, for which NumPy and zipfile have many types, as Unsound."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Unsound(f"{path} is damaged ({reason}): run {command(path)}") from None


def _sound(load, *arguments):
    """What `load` returns, or None and a warning."""
    try:
        return load(*arguments)
    except Unsound as error:
        warnings.warn(str(error), ResultsWarning, stacklevel=3)
