"""Attack every trained run with the exact worst-case perturbation, then redraw the figures.

    python attack.py                       every run under results/, in the L-infinity ball
    python attack.py --runs regular        one of them
    python attack.py --norm 2 --box        in the L2 ball, pixels staying in [0, 1]
    python attack.py --check               recompute what is stored, and print what differs

For a linear model the smallest perturbation that flips a sample is known exactly (exact.py), so
one forward pass and one sort give the whole curve of accuracy over radius. The raw numbers go to
results/<dataset>/attack/<threat>/<run>/, the threat being linf, linf-box, l2 and so on:

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
import tqdm

import cli
import data
import exact
import files
import plots
import runs
import stored
from cli import RESULTS, InputError
from records import NEAREST, SHOWN

EPS_MAX = {"inf": 0.5, "2": 5.0, "1": 20.0}  # in pixel units, by the norm of the ball


def main(
    runs_named: list[str] | None = None,
    norm: str = "inf",
    box: bool = False,
    eps_max: float | None = None,
    eps_steps: int = 100,
    check: bool = False,
    results: Path = RESULTS,
    mnist_dir: Path | None = None,
) -> None:
    """Attack the runs on their test sets, store the numbers, print a table, draw the figures.

    With `check`, in place of that: recompute the runs' stored attacks, certificates and last rows
    of history.csv, without `runs_named` also claims/, and print the numbers that differ; nothing
    is written.

    Raises:
        InputError: there is no such run, a run is damaged, no data set can be had, or a stored
            number differs from the recomputed one.
    """
    if check and (norm, box, eps_max, eps_steps) != ("inf", False, None, 100):
        raise InputError(
            "--check takes the balls and radii from the stored numbers: leave --norm, --box, "
            "--eps-max and --eps-steps out"
        )
    loaded = {}
    for dataset, folders in _choose(results, runs_named).items():
        members = [runs.load(folder) for folder in folders]
        try:
            split = data.load_named(dataset.name, mnist_dir)
        except InputError as error:
            names = ", ".join(run.name for run in members)
            print(
                f"NOTICE: not attacking {dataset.name} ({names}), stored numbers stay: {error}",
                file=sys.stderr,
            )
            continue
        loaded[dataset] = split, members
    if not loaded:
        raise InputError(
            "no data set of these runs can be had here, so nothing is attacked; "
            "python plots.py redraws the figures from the stored numbers alone"
        )
    if check:
        return check_stored(loaded, all_runs=runs_named is None)
    eps = np.arange(eps_steps + 1) * (eps_max or EPS_MAX[norm]) / eps_steps
    attacked = {
        dataset: [(run, evaluate(run, split, eps, norm, box)) for run in _progress(members)]
        for dataset, (split, members) in loaded.items()
    }
    for dataset, pairs in attacked.items():
        for run, numbers in pairs:
            _save(dataset / "attack" / runs.threat(norm, box) / run.name, numbers)
        print(_table(f"{dataset.name}, {runs.threat(norm, box)}", pairs))
    article = (norm, box) == ("inf", False)  # the threat model of all figures but one
    for path in plots.draw(results, None if article else ["threats"]):
        print(path)


def check_stored(loaded: dict, all_runs: bool) -> None:
    """Do what `main` does with `check`, for data set folder -> (data.Dataset, runs).

    Raises:
        InputError: something does.
    """
    import checks
    import optimum

    differing = 0
    for dataset, (split, members) in loaded.items():
        attacks, rows = 0, []
        train_set = optimum.flat(split.x_train, split.y_train)
        test_set = optimum.flat(split.x_test, split.y_test)
        for run in _progress(members):
            found = list(checks.history(run, train_set, test_set))
            if run.settings.recipe == runs.OPTIMAL:
                found += checks.certificate(run, *train_set)
            if not (dataset / "attack" / "linf" / run.name).exists():
                found.append(("linf: no attack is stored", np.inf, 0))
            for folder in sorted((dataset / "attack").glob(f"*/{run.name}")):
                old = stored.load_attack(folder, run)
                new = old and evaluate(
                    run, split, old.accuracy["eps"], old.facts["norm"], old.facts["box"]
                )
                compared = checks.attack(old, new) if old else [("of other weights", np.inf, 0)]
                found += [(f"{folder.parent.name}: {what}", *rest) for what, *rest in compared]
                attacks += 1
            rows += [(f"{run.name}: {what}", *rest) for what, *rest in found]
        if all_runs and (dataset / "claims").exists():
            rows += [
                (f"claims: {what}", *rest)
                for what, *rest in checks.claimed(dataset, stored.load_models(dataset))
            ]
        farthest = {}
        for what, difference, allowed in rows:
            farthest[allowed] = max(farthest.get(allowed, 0), difference)
            if difference > allowed:
                differing += 1
                print(f"{what}: {difference:.2g} apart, {allowed:g} allowed")
        print(f"{dataset.name}: recomputed {len(members)} runs and {attacks} attacks on them")
        for allowed, difference in sorted(farthest.items()):
            print(f"largest difference where {allowed:g} is allowed: {difference:.2g}")
    if differing:
        raise InputError(f"{differing} stored numbers differ from the recomputed ones")


def evaluate(
    run: runs.Run, split: data.Dataset, eps: np.ndarray, norm: str = "inf", box: bool = False
) -> dict:
    """Everything that `attack.py` stores about one run, as name -> columns or arrays.

    Raises:
        InputError: the run was trained on other data than `split`.
    """
    if run.config["data_sha256"] != split.checksum:
        raise InputError(f"{run.folder / 'config.json'}: trained on other data than {split.name}")
    x = split.x_test.reshape(len(split.y_test), -1).astype(np.float64)
    y = split.y_test.astype(np.float64)
    logits = x @ run.w + run.b
    radii = exact.sample_radii(x, y, run.w, run.b, norm, box)
    correct = exact.robust_correct(radii, eps)
    nearest = {name: [] for name in ("eps", "rank", "index", "label", "logit")}
    for radius in eps[::10]:
        delta = exact.perturbation(x, y, run.w, radius, norm, box)
        exact.check_perturbation(x, delta, radius, norm, box)
        perturbed = (x + delta) @ run.w + run.b
        wrong = np.flatnonzero(y * perturbed <= 0)
        wrong = wrong[np.argsort(np.abs(perturbed[wrong]), kind="stable")][:NEAREST]
        for rank, i in enumerate(wrong):
            row = (float(radius), rank, int(i), int(y[i]), perturbed[i])
            for column, value in zip(nearest.values(), row, strict=True):
                column.append(value)
    figures_show = (norm, box) == ("inf", False) and not run.settings.repetition
    shown = {
        i
        for radius, rank, i in zip(nearest["eps"], nearest["rank"], nearest["index"], strict=True)
        if figures_show and (rank == 0 or (radius == 0 and rank < SHOWN))
    }
    shown = np.array(sorted(shown), dtype=np.int64)
    unlit = ~split.x_train.any(axis=(0, 3)).ravel()
    return {
        "facts": {
            "norm": norm,
            "box": box,
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


def _progress(members: list[runs.Run]):
    return tqdm.tqdm(members, "attacking", leave=False, disable=not sys.stderr.isatty())


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
        description="Attack the trained runs exactly, store the numbers and redraw all figures.",
    )
    add = parser.add_argument
    add(
        "--runs",
        dest="runs_named",
        nargs="+",
        metavar="RUN",
        help="runs to attack, as robust-eps0.2 or mnist-0-1/robust-eps0.2 (default: all)",
    )
    add("--norm", choices=runs.NORMS, default="inf", help="of the ball (default: inf)")
    add("--box", action="store_true", help="perturbed pixels stay in [0, 1]")
    add(
        "--eps-max",
        type=cli.positive,
        metavar="EPS",
        help="largest radius, in pixel units of [0, 1] "
        f"(default: {', '.join(f'{v:g} for norm {k}' for k, v in EPS_MAX.items())})",
    )
    add(
        "--eps-steps",
        type=cli.positive_int,
        default=100,
        metavar="N",
        help="equal steps from 0 to it (default: 100, so 101 radii)",
    )
    add("--check", action="store_true", help="recompute what is stored and print what differs")
    parser.add_mnist_dir()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
