"""What results/ holds, as the figures and tables need it: runs with the attacks on them."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import files
import records
import runs
from cli import InputError


@dataclass(frozen=True)
class Attack:
    """What attack.py stored about one run: attack.json, tables as column -> array, samples.npz."""

    facts: dict
    accuracy: dict[str, np.ndarray]
    nearest: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]
    landscape: dict[str, np.ndarray] | None

    def image(self, index: int) -> np.ndarray:
        """The stored test image (height, width) of this index, in [0, 1]."""
        return self.samples["images"][np.flatnonzero(self.samples["image_index"] == index)[0]]


@dataclass(frozen=True)
class Model:
    run: runs.Run
    attack: Attack

    @property
    def label(self) -> str:
        settings = self.run.settings
        if not settings.robust:
            return "regular"
        ball = "" if settings.norm == "inf" else f", {runs.NORMS[settings.norm]}"
        return f"robust ε = {settings.eps:g}{ball}{', box' * settings.box}"

    def accuracy(self, eps: float) -> float:
        """Exact accuracy on the test set at any radius: the share of samples that withstand it."""
        return float(np.mean(self.attack.samples["radii"] > eps))


class Missing(InputError):
    """What a figure needs and the results do not hold; the message says how to get it."""


def first(models: list, robust: bool):
    """The regular model, or the robust one with the radius closest to the article's 0.2."""
    chosen = [model for model in models if model.run.settings.robust == robust]
    if not chosen:
        command = "python train.py --robust --eps 0.2" if robust else "python train.py"
        raise Missing(f"it needs a {'robust' if robust else 'regular'} run ({command})")
    return min(chosen, key=lambda model: abs(model.run.settings.eps - 0.2 * robust))


def load_models(dataset: Path) -> dict[str, Model]:
    """The runs of a data set by name, attacked in the plain L-infinity ball.

    A notice tells of each that is not.

    Raises:
        InputError: a file of a run or of an attack is damaged; it is named.
    """
    models = {}
    for folder in runs.list_runs(dataset):
        run = runs.load(folder)
        records.check_run(run)
        if attack := load_attack(dataset / "attack" / "linf" / run.name, run):
            models[run.name] = Model(run, attack)
        else:
            print(f"NOTICE: {run.name} is not drawn until python attack.py is run", file=sys.stderr)
    return models


def under(threat: str, models: dict[str, Model]) -> dict[str, Model]:
    """Those of the models that are attacked in another threat model, too, with that attack."""
    found = {}
    for name, model in models.items():
        folder = model.run.folder.parent / "attack" / threat / name
        if attack := load_attack(folder, model.run):
            found[name] = Model(model.run, attack)
    return found


def claim(dataset: Path, name: str) -> dict[str, np.ndarray]:
    """A table of numbers from results/<dataset>/claims/: column -> array.

    Raises:
        Missing: the file is not there.
        InputError: it is damaged.
    """
    path = dataset / "claims" / f"{name}.csv"
    if not path.exists():
        script = "masking.py" if name == "masking" else "claims.py"
        raise Missing(f"{path} is missing: python {script} makes it")
    return records.read_claim(path)


def groups(models: dict[str, Model]) -> dict[str, list[Model]]:
    """Models that differ only in their radius, by ball and variant: regular first, then by radius.

    Repetitions with other seeds are left out.
    """
    found = {}
    for model in models.values():
        settings = model.run.settings
        if not settings.repetition:
            ball = runs.threat(settings.norm, settings.box).removeprefix("linf").strip("-")
            found.setdefault("-".join(filter(None, [ball, settings.variant])), []).append(model)
    for members in found.values():
        members.sort(
            key=lambda model: (model.run.settings.robust, model.run.settings.eps, model.run.name)
        )
    return dict(sorted(found.items()))


def load_attack(folder: Path, run: runs.Run) -> Attack | None:
    """The stored attack on this run, or None where there is none of its present weights.

    Raises:
        InputError: a file of it is damaged; it is named.
    """
    files.recover(folder.parent)
    if not folder.exists():
        return None
    facts = records.read_facts(folder / "attack.json")
    if facts["weights_sha256"] != run.weights_sha256:
        return None
    records.check_facts(folder / "attack.json", facts, run)
    samples = records.read_samples(folder / "samples.npz", run)
    accuracy = records.read_accuracy(folder / "accuracy.csv", samples["radii"])
    nearest = records.read_nearest(folder, run, facts, samples, accuracy)
    landscape = None
    if runs.has_landscape(run.settings):
        landscape = records.read_landscape(folder / "landscape.csv", run.w)
    return Attack(facts, accuracy, nearest, samples, landscape)
