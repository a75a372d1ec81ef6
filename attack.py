"""Attack every trained run with the exact worst-case perturbation, then redraw the figures.

    python attack.py                       every run under results/
    python attack.py --runs regular        one of them

For a linear model the attack has a closed form: no perturbation of the ball beats delta* below,
and the largest radius that a correct sample withstands is r = m / ||w||_dual. One forward pass
and one sort therefore give the whole curve of accuracy over radius, exactly. The raw numbers go
to results/<dataset>/attack/linf/<run>/:

    attack.json    the threat model, the checksums of the weights and data, norms of the weights
    accuracy.csv   eps, correct, samples, accuracy
    nearest.csv    at each tenth radius, the misclassified samples nearest to the boundary
    samples.npz    per test sample: label, logit, radius; and the images that figures show
    landscape.csv  mean training loss over one weight, for a strong and a weak pixel
"""

import json
import sys
from pathlib import Path

import numpy as np

import cli
import data
import files
import plots
import runs
from cli import RESULTS, InputError

NEAREST = 10  # misclassified samples recorded at each tenth radius
SHOWN = 8  # of the clean misclassified samples, the images stored for the figure
DUAL = {"inf": 1, "2": 2, "1": np.inf}  # ball -> order of the norm of w that it costs


def main(
    runs_named: list[str] | None = None,
    eps_max: float = 0.5,
    eps_steps: int = 100,
    results: Path = RESULTS,
    mnist_dir: Path | None = None,
) -> None:
    """Attack the runs on their test sets, store the numbers, print a table, draw the figures.

    Raises:
        InputError: there is no such run, a run is damaged, or no data set can be had.
    """
    eps = np.arange(eps_steps + 1) * eps_max / eps_steps
    chosen = _choose(results, runs_named)
    attacked = {}
    for dataset, folders in chosen.items():
        members = [runs.load(folder) for folder in folders]
        try:
            split = data.load_named(dataset.name, mnist_dir)
        except InputError as error:
            names = ", ".join(run.name for run in members)
            print(f"NOTICE: skipping {dataset.name} ({names}): {error}", file=sys.stderr)
            continue
        attacked[dataset] = [(run, evaluate(run, split, eps)) for run in members]
    if not attacked:
        raise InputError(
            "no data set of these runs can be had here, so nothing is attacked; "
            "python plots.py redraws the figures from the stored numbers alone"
        )
    for dataset, pairs in attacked.items():
        for run, numbers in pairs:
            _save(dataset / "attack" / "linf" / run.name, numbers)
        print(_table(dataset.name, pairs))
    for path in plots.draw(results):
        print(path)


# --- the attack ------------------------------------------------------------------------------


def dual_norm(w: np.ndarray, norm: str = "inf") -> float:
    """What a unit of radius costs in margin: ||w||_1, ||w||_2, ||w||_inf for "inf", "2", "1"."""
    return float(np.linalg.norm(w, DUAL[norm]))


def perturbation(y: np.ndarray, w: np.ndarray, eps: float, norm: str = "inf") -> np.ndarray:
    """The worst case within the ball of radius eps, without a pixel box.

    -y eps sign(w) for the L-infinity ball (article, "in our linear case"), -y eps w / ||w||_2
    for L2, and -y eps sign(w_k) on the one pixel k of largest |w_k| for L1. Each lowers the
    margin by eps ||w||_dual, which by Hoelder's inequality nothing in the ball exceeds.

    Args:
        y: labels (n,) in {-1, +1}.
        w: weights (d,).
        eps: radius >= 0, in pixel units.

    Returns:
        delta (n, d).

    Raises:
        ValueError: eps is negative or not finite.
    """
    if not 0 <= eps < np.inf:
        raise ValueError(f"eps must be finite and at least 0, not {eps}")
    if norm == "inf":
        direction = np.sign(w)
    elif norm == "2":
        direction = w / (np.linalg.norm(w) or 1.0)
    else:
        direction = np.zeros_like(w)
        strongest = np.argmax(np.abs(w))
        direction[strongest] = np.sign(w[strongest])
    return -eps * np.outer(y, direction)


def check_perturbation(delta: np.ndarray, shape: tuple, eps: float, norm: str = "inf") -> None:
    """Raise ValueError unless delta is finite, of this shape, and inside the ball (to 1e-9)."""
    if delta.shape != shape:
        raise ValueError(f"perturbation of shape {delta.shape}, not {shape}")
    if not np.isfinite(delta).all():
        raise ValueError("perturbation is not finite")
    order = {"inf": np.inf, "2": 2, "1": 1}[norm]
    largest = np.linalg.norm(delta, order, axis=1).max(initial=0.0)
    if largest > eps + 1e-9:
        raise ValueError(f"perturbation of size {largest} leaves the ball of radius {eps}")


def sample_radii(margins: np.ndarray, w: np.ndarray, norm: str = "inf") -> np.ndarray:
    """r = m / ||w||_dual, shape (n,): a sample stays correct at exactly the radii below r.

    A sample that is wrong from the start (m <= 0) has r <= 0. Zero weights make r infinite.
    """
    size = dual_norm(w, norm)
    if size == 0:
        return np.where(margins > 0, np.inf, -np.inf)
    return margins / size


def robust_correct(radii: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """How many samples withstand each radius: #{r > eps}, by one sort. Shapes (n,), (k,)."""
    return len(radii) - np.searchsorted(np.sort(radii), eps, side="right")


# --- its evaluation --------------------------------------------------------------------------


def evaluate(run: runs.Run, split: data.Dataset, eps: np.ndarray) -> dict:
    """Everything that `attack.py` stores about one run, as name -> columns or arrays.

    Raises:
        InputError: the run was trained on other data than `split`.
    """
    if run.config["data_sha256"] != split.checksum:
        raise InputError(f"{run.folder / 'config.json'}: trained on other data than {split.name}")
    x = split.x_test.reshape(len(split.y_test), -1).astype(np.float64)
    y = split.y_test.astype(np.float64)
    logits = x @ run.w + run.b
    radii = sample_radii(y * logits, run.w)
    correct = robust_correct(radii, eps)
    nearest = {name: [] for name in ("eps", "rank", "index", "label", "logit")}
    for radius in eps[::10]:
        delta = perturbation(y, run.w, radius)
        check_perturbation(delta, x.shape, radius)
        perturbed = (x + delta) @ run.w + run.b
        wrong = np.flatnonzero(y * perturbed <= 0)
        wrong = wrong[np.argsort(np.abs(perturbed[wrong]), kind="stable")][:NEAREST]
        for rank, i in enumerate(wrong):
            row = (float(radius), rank, int(i), int(y[i]), perturbed[i])
            for column, value in zip(nearest.values(), row, strict=True):
                column.append(value)
    shown = {
        i
        for radius, rank, i in zip(nearest["eps"], nearest["rank"], nearest["index"], strict=True)
        if rank == 0 or (radius == 0 and rank < SHOWN)
    }
    shown = np.array(sorted(shown), dtype=np.int64)
    unlit = ~split.x_train.any(axis=(0, 3)).ravel()
    return {
        "facts": {
            "norm": "inf",
            "box": False,
            "weights_sha256": run.weights_sha256,
            "data_sha256": split.checksum,
            "w_l1": np.abs(run.w).sum(),
            "w_l1_unlit": np.abs(run.w[unlit]).sum(),  # on pixels that no training image lights
            "pixels_unlit": int(unlit.sum()),
        },
        "accuracy": {
            "eps": eps,
            "correct": correct,
            "samples": [len(y)] * len(eps),
            "accuracy": correct / len(y),
        },
        "nearest": nearest,
        "samples": {
            "labels": split.y_test,
            "logits": logits,
            "radii": radii,
            "image_index": shown,
            "images": split.x_test[shown, ..., 0],
        },
        "landscape": weight_landscape(run, split) if runs.has_landscape(run.settings) else None,
    }


def weight_landscape(run: runs.Run, split: data.Dataset) -> dict:
    """Mean training loss over one weight v, all others as trained: two pixels, two losses.

    The strong pixel has the largest |w_j|. The weak one is dropped by the robust loss: at
    v = 0 the mean of y x_j over the active samples is at most eps in absolute value, so the
    loss is least at exactly v = 0. Of those it is the one on which the plain hinge pulls most.
    """
    eps, w = run.settings.eps, run.w
    y = split.y_train.astype(np.float64)
    x = split.x_train.reshape(len(y), -1)
    margins = y * (x @ w + run.b)
    yx = y[:, None] * x
    plain = margins[:, None] - yx * w  # margins with w_j = 0, for each j
    robust = plain - eps * (np.abs(w).sum() - np.abs(w))
    active = robust < 1
    dropped = np.abs((active * yx).sum(0)) <= eps * active.sum(0)
    pull = np.abs(((plain < 1) * yx).mean(0))
    pixels = {"strong": int(np.argmax(np.abs(w)))}
    if (dropped & (pull > 0)).any():
        pixels["weak"] = int(np.argmax(np.where(dropped, pull, -1.0)))
    grid = 1.5 * np.abs(w).max() * np.arange(-60, 61) / 60  # 0 exactly, which linspace may miss
    columns = {name: [] for name in ("pixel", "index", "weight", "hinge", "robust_hinge")}
    for pixel, j in pixels.items():
        for v in grid:
            columns["pixel"].append(pixel)
            columns["index"].append(j)
            columns["weight"].append(v)
            columns["hinge"].append(np.maximum(0, 1 - plain[:, j] - yx[:, j] * v).mean())
            worst = robust[:, j] + yx[:, j] * v - eps * abs(v)
            columns["robust_hinge"].append(np.maximum(0, 1 - worst).mean())
    return columns


def _choose(results: Path, names: list[str] | None) -> dict[Path, list[Path]]:
    """Data set folder -> the run folders to attack, all of them or those named."""
    found = {dataset: runs.list_runs(dataset) for dataset in runs.list_datasets(results)}
    if not found:
        raise InputError(f"no runs in {results}: python train.py makes one")
    if names is None:
        return found
    known = {f"{d.name}/{run.name}" for d, folders in found.items() for run in folders}
    for name in names:
        if not any(full == name or full.endswith("/" + name) for full in known):
            raise InputError(f"no run {name} in {results}; there are: {', '.join(sorted(known))}")
    chosen = {
        d: [run for run in folders if run.name in names or f"{d.name}/{run.name}" in names]
        for d, folders in found.items()
    }
    return {d: folders for d, folders in chosen.items() if folders}


def _save(place: Path, numbers: dict) -> None:
    with files.whole_folder(place) as folder:
        (folder / "attack.json").write_text(json.dumps(numbers["facts"], indent=2) + "\n")
        files.write_csv(folder / "accuracy.csv", numbers["accuracy"])
        files.write_csv(folder / "nearest.csv", numbers["nearest"])
        np.savez_compressed(folder / "samples.npz", **numbers["samples"])
        if numbers["landscape"]:
            files.write_csv(folder / "landscape.csv", numbers["landscape"])


def _table(title: str, pairs: list) -> str:
    """Accuracy at a few radii, one line per run."""
    eps = pairs[0][1]["accuracy"]["eps"]
    columns = [int(np.argmin(np.abs(eps - e))) for e in eps[-1] * np.arange(6) / 5]
    width = max(len(title), *(len(run.name) for run, _ in pairs))
    lines = [f"{title:{width}}  " + "  ".join(f"e={eps[c]:<5.3g}" for c in columns)]
    for run, numbers in pairs:
        accuracy = numbers["accuracy"]["accuracy"]
        lines.append(f"{run.name:{width}}  " + "  ".join(f"{accuracy[c]:.4f} " for c in columns))
    return "\n".join(lines)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="attack.py",
        description="Attack the trained runs exactly (L-infinity ball, no pixel box), store the "
        "numbers and redraw all figures.",
    )
    add = parser.add_argument
    add(
        "--runs",
        dest="runs_named",
        nargs="+",
        metavar="RUN",
        help="runs to attack, as robust-eps0.2 or mnist-0-1/robust-eps0.2 (default: all)",
    )
    add(
        "--eps-max",
        type=cli.positive,
        default=0.5,
        metavar="EPS",
        help="largest radius, in pixel units of [0, 1] (default: 0.5)",
    )
    add(
        "--eps-steps",
        type=cli.positive_int,
        default=100,
        metavar="N",
        help="equal steps from 0 to it (default: 100, so 101 radii)",
    )
    parser.add_mnist_dir()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
