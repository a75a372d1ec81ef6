"""The files of runs, attacks and claims that figures and tables rest on: what each must hold.

Nothing is taken on trust. A file that is cut short, altered, of another shape or at odds with the
others is an InputError that names it. (A digit changed within a stored loss or share may pass;
python attack.py --check recomputes those that rest on the weights alone.)
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np

import exact
import files
import runs
from cli import InputError

NEAREST = 10  # misclassified samples recorded at each tenth radius
SHOWN = 8  # of the clean misclassified samples, the images stored for the figure
FACTS = dict(
    norm=str,
    box=bool,
    weights_sha256=str,
    data_sha256=str,
    w_l1=float,
    w_l1_unlit=float,
    pixels_unlit=int,
)

NOISY = ("regular", "regular-initzeros", "robust-eps0.1", "robust-eps0.2", "robust-eps0.3")
NOISE_RADII = tuple(k / 20 for k in range(11))
COPIES = ("regular", *(f"regular-seed{k}" for k in range(1, 6)))
TRANSFERRED = ("regular", "regular-seed1", "regular-initzeros", "regular-initzeros-seed1")
TRANSFERRED += ("robust-eps0.1", "robust-eps0.2", "robust-eps0.3")
TRANSFER_RADII = (0.1, 0.2)
MASKED_RADII = tuple(k / 50 for k in range(16))  # as a share of the pixel range
# Tables in claims/: the columns that name a row, each combination of their values having one; all
# other columns are shares.
KEYS = {
    "noise": dict(run=NOISY, eps=NOISE_RADII),
    "transfer": dict(eps=TRANSFER_RADII, source=TRANSFERRED, target=TRANSFERRED),
    "copies": dict(eps=TRANSFER_RADII, source=COPIES, target=COPIES),
    "masking": dict(eps=MASKED_RADII),
}
SHARES = {
    "noise": ("random", "error", "normal", "worst"),
    "transfer": ("accuracy",),
    "copies": ("accuracy",),
    "masking": ("exact", "fgsm", "pgd", "fgsm_margin"),
}


def _require(path: Path, holds, wrong: str) -> None:
    """Raise InputError unless this holds of the file."""
    if not holds:
        raise InputError(f"{path} is damaged ({wrong})")


def _read_table(path: Path, columns: tuple[str, ...], text=()) -> dict[str, np.ndarray]:
    """A csv of exactly these columns, to its last line."""
    table = files.read_csv(path, text)
    _require(path, set(table) == set(columns), f"its columns are not {', '.join(columns)}")
    _require_end(path)
    return table


def _require_end(path: Path) -> None:
    _require(path, path.read_bytes().endswith(b"\n"), "its last line is cut short")


def read_claim(path: Path) -> dict[str, np.ndarray]:
    """A table of claims/ by its name, with every row of its keys in order."""
    keys, shares = KEYS[path.stem], SHARES[path.stem]
    table = _read_table(path, (*keys, *shares), text=tuple(keys.keys() - {"eps"}))
    rows = list(zip(*(table[key] for key in keys), strict=True))
    expected = list(itertools.product(*keys.values()))
    _require(path, rows == expected, f"its rows are not the {len(expected)} of {', '.join(keys)}")
    for share in shares:
        within = (table[share] >= 0) & (table[share] <= 1)
        _require(path, within.all(), f"{share} is not from 0 to 1")
    return table


def _counts(*values) -> bool:
    """Whether all are whole numbers above 0, and no bool."""
    return all(type(value) is int and value > 0 for value in values)


def check_run(run: runs.Run) -> None:
    """Raise InputError unless a run that `runs.load` took holds all that figures and tables need.

    A run of n epochs has a row of history for each, and a step for each batch of each.
    """
    path, config = run.folder / "config.json", run.config
    named = run.settings.name
    _require(path, run.name == named, f"its settings are those of a run called {named}")
    sizes = [config.get("train_samples"), config.get("test_samples")]
    _require(path, _counts(*sizes), "train_samples or test_samples is no number of samples")
    shape, digits = config["image_shape"], config.get("digits")
    _require(path, len(shape) == 3 and _counts(*shape), "image_shape is no shape of images")
    two = isinstance(digits, list) and len(digits) == 2
    two = two and all(type(digit) is int and 0 <= digit <= 9 for digit in digits)
    _require(path, two, "digits are not two digits")
    if run.settings.recipe == runs.OPTIMAL:
        proof = config["certificate"]
        entries = "primal dual gap violation_box violation_balance violation_pixel".split()
        finite = [type(proof.get(name)) is float and math.isfinite(proof[name]) for name in entries]
        _require(path, all(finite), f"the certificate is not {', '.join(entries)}")
    path = run.folder / "history.csv"
    _require_end(path)
    epoch = run.history["epoch"]
    _require(path, (epoch == range(1, len(epoch) + 1)).all(), "its epochs are not 1, 2, ...")
    if run.steps:
        steps = len(run.steps["loss"].flat)
        for name, values in run.steps.items():
            fitting = values.shape == (steps,) and np.isfinite(values).all()
            _require(run.folder / "steps.npz", fitting, f"{name} is not {steps} finite numbers")
        epochs = steps / run.settings.steps_per_epoch(sizes[0])
        _require(path, len(epoch) == epochs, f"steps.npz is of {epochs:g} epochs, not {len(epoch)}")


def read_facts(path: Path) -> dict:
    """What attack.json tells, each of its type."""
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run python attack.py again") from None
    except files.DAMAGED as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    _require(path, isinstance(facts, dict), "it does not hold names and values")
    wrong = [name for name, kind in FACTS.items() if type(facts.get(name)) is not kind]
    _require(path, not wrong, f"{', '.join(wrong)}: absent or of another type")
    return facts


def check_facts(path: Path, facts: dict, run: runs.Run) -> None:
    """Raise InputError unless attack.json is of this run and of its folder's threat model."""
    norm, box, size = facts["norm"], facts["box"], np.abs(run.w).sum()
    at_home = norm in runs.NORMS and runs.threat(norm, box) == path.parent.parent.name
    _require(path, at_home, "norm and box are not those of its folder")
    known = facts["data_sha256"] == run.config["data_sha256"]
    _require(path, known, "it attacked with other data than the run was trained on")
    unlit, pixels = facts["w_l1_unlit"], facts["pixels_unlit"]
    fitting = np.isclose(facts["w_l1"], size, rtol=1e-9) and 0 <= unlit <= size * (1 + 1e-9)
    _require(path, fitting and 0 <= pixels <= len(run.w), "its norms are not those of the weights")


def read_samples(path: Path, run: runs.Run) -> dict[str, np.ndarray]:
    """labels (n,), logits (n,), radii (n,), image_index (k,), images (k, height, width).

    Only radii may be infinite: of samples that nothing flips, or whose model answers all alike.
    """
    names = ("labels", "logits", "radii", "image_index", "images")
    samples = files.read_npz(path, names)
    n, k = run.config["test_samples"], samples["image_index"].size
    shapes = ((n,), (n,), (n,), (k,), (k, *run.config["image_shape"][:2]))
    for name, kind, shape in zip(names, "fffif", shapes, strict=True):
        array = samples[name]
        fitting = (array.dtype.kind, array.shape) == (kind, shape)
        _require(path, fitting, f"{name} is {array.dtype} {array.shape}, not {kind} {shape}")
    labels, index, images = samples["labels"], samples["image_index"], samples["images"]
    _require(path, (np.abs(labels) == 1).all(), "a label is not -1 or 1")
    _require(path, np.isfinite(samples["logits"]).all(), "a logit is not finite")
    known = np.unique(index).size == k and np.isin(index, np.arange(n)).all()
    _require(path, known, "image_index is not of different test samples")
    _require(path, ((images >= 0) & (images <= 1)).all(), "a pixel is not from 0 to 1")
    return samples


def _edge(eps: np.ndarray) -> np.ndarray:
    """How far a radius of nine digits may be from the one that was counted with."""
    return 1e-8 * eps


def read_accuracy(path: Path, radii: np.ndarray) -> dict[str, np.ndarray]:
    """eps from 0 in equal steps; correct and accuracy are those that the radii (n,) give."""
    table = _read_table(path, ("eps", "correct", "samples", "accuracy"))
    eps, correct, n = table["eps"], table["correct"], len(radii)
    equal = len(eps) > 1 and np.allclose(eps, np.linspace(0, eps[-1], len(eps)), 1e-8, 0)
    _require(path, equal and eps[-1] > 0, "eps is not from 0 up in equal steps")
    fewest, most = (exact.robust_correct(radii, eps + side * _edge(eps)) for side in (1, -1))
    counted = (fewest <= correct) & (correct <= most) & (table["samples"] == n)
    shared = np.isclose(table["accuracy"], correct / n, 1e-8, 0)
    _require(path, (counted & shared).all(), "it does not count the radii in samples.npz")
    return table


def read_nearest(
    folder: Path, run: runs.Run, facts: dict, samples: dict, accuracy: dict
) -> dict[str, np.ndarray]:
    """At each tenth radius with k misclassified samples, the ranks 0, 1, ... to min(k, NEAREST)."""
    path = folder / "nearest.csv"
    table = _read_table(path, ("eps", "rank", "index", "label", "logit"))
    eps, rank, index, label = (table[name] for name in ("eps", "rank", "index", "label"))
    radii, largest = samples["radii"], accuracy["eps"][-1]
    tenths = np.union1d(accuracy["eps"][::10], eps[eps > largest])
    fewest, most = (
        len(radii) - exact.robust_correct(radii, tenths + side * _edge(tenths)) for side in (-1, 1)
    )
    ranks = [rank[eps == tenth] for tenth in tenths]
    for found, low, high in zip(ranks, fewest, most, strict=True):
        enough = min(NEAREST, low) <= len(found) <= min(NEAREST, high)
        _require(path, enough and (found == range(len(found))).all(), "rows are missing or moved")
    _require(path, sum(map(len, ranks)) == len(eps), "eps is not a tenth radius of accuracy.csv")
    lost = tenths[-1] > largest
    _require(folder / "accuracy.csv", not lost, f"it lacks rows: {path.name} has larger radii")
    _require(path, np.isin(index, np.arange(len(radii))).all(), "index is not of a test sample")
    table["index"] = index = index.astype(int)
    _require(path, (label == samples["labels"][index]).all(), "label is not that of samples.npz")
    if not facts["box"]:  # where pixels stay in [0, 1], the logit depends on the image, too
        cost = eps * exact.dual_norm(run.w, facts["norm"])
        logits = samples["logits"][index] - label * cost
        allowed = 1e-8 * (1 + np.abs(samples["logits"][index]) + cost)
        near = np.abs(table["logit"] - logits) <= allowed
        _require(path, near.all(), "logit is not that of samples.npz, perturbed")
    if folder.parent.name == "linf" and not run.settings.repetition:  # the runs in figures
        drawn = index[(rank == 0) | ((eps == 0) & (rank < SHOWN))]
        imaged = np.isin(drawn, samples["image_index"]).all()
        _require(folder / "samples.npz", imaged, f"it lacks an image that {path.name} names")
    return table


def read_landscape(path: Path, w: np.ndarray) -> dict[str, np.ndarray]:
    """Two losses over 121 values of one weight: of the strong pixel, and of a weak one if any."""
    names = ("pixel", "index", "weight", "hinge", "robust_hinge")
    table = _read_table(path, names, text=("pixel",))
    reach, values = 1.5 * np.abs(w).max(), 121
    pixels = ("strong", "weak")[: len(table["pixel"]) // values]
    whole = pixels and table["pixel"].tolist() == np.repeat(pixels, values).tolist()
    _require(path, whole, f"it has not {values} rows of a strong pixel, and of a weak one if any")
    grid = np.tile(np.linspace(-reach, reach, values), len(pixels))
    near = np.isclose(table["weight"], grid, 1e-8, 1e-8 * reach)
    _require(path, near.all(), "weight is not in equal steps to 1.5 times the largest")
    index = table["index"].reshape(-1, values)
    known = (index == index[:, :1]).all() and np.isin(index, np.arange(len(w))).all()
    _require(path, known and index[0, 0] == np.argmax(np.abs(w)), "index is not of such pixels")
    losses = table["hinge"], table["robust_hinge"]
    above = (losses[0] >= 0) & (losses[1] >= losses[0] * (1 - 1e-8))
    _require(path, above.all(), "a hinge is below 0, or a robust one below it")
    return table
