"""Attack every trained run with the exact worst-case perturbation, and draw the figures.

    python attack.py                       every run under results/, in the L-infinity ball
    python attack.py --runs regular        one of them
    python attack.py --norm 2 --box        in the L2 ball, pixels staying in [0, 1]

For a linear model the worst perturbation of size eps is delta = -y eps sign(w): it lowers the
margin m = y f(x) of every image by eps ||w||_1. So an image flips at the radius r = m / ||w||_1,
and the radii of all images, sorted, give the whole curve of accuracy over eps.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from lab import cli, store
from lab.cli import RESULTS, InputError

import numpy as np

import data
import illustrations
import plots
import recipes
import runs
import worst_case

EPS_MAX = {"inf": 0.5, "2": 5.0, "1": 20.0}  # in pixel units, by the norm of the ball


def attack(run: runs.Run, split: data.Dataset, norm: str = "inf", box: bool = False) -> runs.Attack:
    """Attack a run on its test set, at 101 radii from 0 to EPS_MAX.

    Raises:
        AssertionError: a perturbed image flips where its radius says that it does not, or not
            where it says that it does.
    """
    x, y = split.flat("test")
    radii = worst_case.signed_radii(x, y, run.w, run.b, norm, box)  # m / ||w||_1
    eps = np.arange(101) * EPS_MAX[norm] / 100
    correct = worst_case.withstand(radii, eps)  # the radius is larger than eps
    for size in eps[20:81:20]:  # those of the table: perturb every image, and ask the model again
        delta = worst_case.perturbation(x, y, run.w, size, norm, box)  # -y eps sign(w)
        worst_case.check(x, delta, size, norm, box)
        margins = y * ((x + delta) @ run.w + run.b)
        sure = np.abs(margins) > 1e-9 * np.abs(run.w).sum()  # smaller ones may be rounding
        assert np.array_equal((margins > 0)[sure], (radii > size)[sure]), (run.name, size)
    unlit = ~split.x_train.any(axis=(0, 3)).ravel()
    return runs.Attack(
        facts={
            "norm": norm,
            "box": box,
            "weights_sha256": run.weights_sha256,
            "data_sha256": split.checksum,
            "w_l1": np.abs(run.w).sum(),
            "w_l1_unlit": np.abs(run.w[unlit]).sum(),  # on pixels that no training image lights
            "pixels_unlit": int(unlit.sum()),
        },
        eps=eps,
        correct=correct,
        labels=split.y_test,
        logits=x @ run.w + run.b,
        radii=radii,
    )


def main(
    runs_named: list[str] | None = None,
    norm: str = "inf",
    box: bool = False,
    results: Path = RESULTS,
    mnist_dir: Path | None = None,
) -> None:
    """Attack the runs on their test sets, store the numbers, print a table, draw the figures.

    Raises:
        InputError: there is no such run, or no data set can be had.
    """
    norm, results = str(norm), cli.results_folder(results)
    recipes.check(norm=norm, box=box)
    cli.check_writable(results)
    attacked = {}  # folder of a data set -> the runs attacked
    for dataset, names in choose(results, runs_named).items():
        try:
            split = data.load_named(dataset.name, mnist_dir)
        except InputError as error:
            absent = error  # no notice for runs that were not named
            if runs_named:
                cli.notice(f"not attacking {dataset.name}: {error}")
            continue
        known = runs.trained_on(split, runs.read_runs(dataset), dataset)
        attacked[dataset] = [run for name, run in known.items() if name in names]
        found = {}
        for run in cli.bar(attacked[dataset], "attacking"):
            found[run.name] = attack(run, split, norm, box)
            runs.save_attack(dataset, run.name, found[run.name])
            if (norm, box) == ("inf", False):
                runs.save_illustration(dataset, run.name, illustrations.of_run(run, split))
        illustrations.save_example(dataset, known, split)
        if found:
            print(table(dataset.name, found))
            print(f"numbers in {dataset / 'attacks' / runs.threat(norm, box)}")
    if not attacked:
        raise InputError(
            f"nothing is attacked, as no data set of these runs can be had here ({absent}); "
            "python plots.py redraws the figures from the stored numbers"
        )
    with contextlib.suppress(store.Missing):  # of which plots.py has told
        plots.draw_attacked(attacked, norm, box, everything=runs_named is None)


def choose(results: Path, named: list[str] | None) -> dict[Path, set[str]]:
    """Folder of a data set -> the names of the runs to attack: those named, or all.

    Raises:
        InputError: there are no runs, or none of this name.
    """
    datasets = runs.of_two_digits(results)
    found = {dataset: set(store.names(dataset / "runs")) for dataset in datasets}
    if not found:
        raise InputError(f"no runs of two digits in {results}: python train.py makes one")
    if named is None:
        return found
    named = list(map(str, recipes.several(named)))
    if ten := [name for name in named if name.partition("/")[0].endswith(recipes.ALL_DIGITS)]:
        raise InputError(f"{ten[0]} is of ten digits: python studies.py ten-digits attacks those")
    known = {f"{dataset.name}/{name}" for dataset, names in found.items() for name in names}
    for name in named:
        if not any(full == name or full.endswith("/" + name) for full in known):
            raise InputError(f"no run {name} in {results}; there are: {', '.join(sorted(known))}")
    chosen = {
        dataset: {name for name in names if name in named or f"{dataset.name}/{name}" in named}
        for dataset, names in found.items()
    }
    return {dataset: names for dataset, names in chosen.items() if names}


def table(dataset: str, attacks: dict[str, runs.Attack]) -> str:
    """Clean accuracy and accuracy at four radii, a line per run, with a heading."""
    one = next(iter(attacks.values()))
    eps, norm = one.eps, recipes.NORMS[one.facts["norm"]]
    box = ", pixels kept in [0, 1]" * one.facts["box"]
    lines = [
        f"{dataset}: accuracy on {len(one.labels)} test images, clean and under the "
        f"worst perturbation of size eps ({norm}{box})"
    ]
    width = max(map(len, attacks))
    heads = ["clean", *(f"eps {size:.3g}" for size in eps[20:81:20])]
    lines.append(f"{'':{width}}  " + "  ".join(f"{head:7}" for head in heads).rstrip())
    for name, attack in attacks.items():
        shares = "  ".join(f"{share:<7.4f}" for share in attack.accuracy[:81:20])
        lines.append(f"{name:{width}}  {shares}".rstrip())
    kept = {name: attack.accuracy[40] for name, attack in attacks.items()}
    weakest, strongest = min(kept, key=kept.get), max(kept, key=kept.get)
    if kept[weakest] < kept[strongest]:
        lines.append(
            f"At eps {eps[40]:.3g}, {weakest} is right on {100 * kept[weakest]:.1f} % of the "
            f"images and {strongest} on {100 * kept[strongest]:.1f} %."
        )
    return "\n".join(lines)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="attack.py",
        description="Attack the trained runs exactly, store the numbers and draw the figures.",
    )
    parser.add_argument(
        "--runs",
        dest="runs_named",
        nargs="+",
        metavar="RUN",
        help="runs to attack, as robust-eps0.2 or mnist-0-1/robust-eps0.2 (default: all)",
    )
    parser.add_ball(recipes.NORMS)
    parser.add_mnist_dir()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
