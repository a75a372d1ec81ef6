"""Attack every trained run with the exact worst-case perturbation, and draw the figures.

    python attack.py                       every run under results/, in the L-infinity ball
    python attack.py --runs regular        one of them
    python attack.py --norm 2 --box        in the L2 ball, pixels staying in [0, 1]

For a linear model the smallest perturbation that flips a sample is known exactly (advlinear), so
one forward pass and one sort give the whole curve of accuracy over radius. The numbers go to
results/<dataset>/attacks/<threat>/<run>.npz, where the threat is linf, linf-box, l2 and so on. The
figure attack shows one typical test image, which goes to studies/example.npz.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from common import cli, runs
from common.cli import RESULTS, InputError

import numpy as np

import advlinear
import data
import plots
import recipes

EPS_MAX = {"inf": 0.5, "2": 5.0, "1": 20.0}  # in pixel units, by the norm of the ball
NEAREST = 10  # misclassified samples recorded at every tenth radius
SHOWN = 8  # of the clean misclassified samples, the images stored for the figure
EXAMPLE = ("regular", "robust-eps0.2", "optimal-eps0.2")  # the models of the figure attack


def main(
    runs_named: list[str] | None = None,
    norm: str = "inf",
    box: bool = False,
    eps_max: float | None = None,
    eps_steps: int = 100,
    results: Path = RESULTS,
    mnist_dir: Path | None = None,
) -> None:
    """Attack the runs on their test sets, store the numbers, print a table, draw the figures.

    Raises:
        InputError: there is no such run, or no data set can be had.
    """
    norm, results = str(norm), cli.results_folder(results)
    recipes.check(norm=norm, box=box)
    eps_max = EPS_MAX[norm] if eps_max is None else eps_max
    recipes.require("eps-max", eps_max, "size")
    recipes.require("eps-steps", eps_steps, "steps")
    eps = np.arange(eps_steps + 1) * eps_max / eps_steps
    cli.check_writable(results)
    chosen, threat = choose(results, runs_named), runs.threat(norm, box)
    attacked, shown = False, []  # the settings of the runs whose figures show this attack
    for dataset, names in chosen.items():
        try:
            split = data.load_named(dataset.name, mnist_dir)
        except InputError as error:
            absent = error  # no notice for runs that were not named
            if runs_named:
                cli.notice(f"not attacking {dataset.name}: {error}")
            continue
        known = runs.trained_on(split, runs.read_runs(dataset), dataset)
        members = [run for name, run in known.items() if name in names]
        attacks = {
            run.name: evaluate(run, split, eps, norm, box) for run in cli.bar(members, "attacking")
        }
        for name, found in attacks.items():
            runs.save_attack(dataset, name, found)
        save_example(dataset, known, split)
        if attacks:
            print(table(dataset.name, attacks))
            print(f"numbers in {dataset / 'attacks' / threat}")
        shown += [run.settings for run in members if plots.threat_of(run.settings) == threat]
        attacked = True
    if not attacked:
        raise InputError(
            f"nothing is attacked, as no data set of these runs can be had here ({absent}); "
            "python plots.py redraws the figures from the stored numbers"
        )
    # Draw the figures of the groups attacked, if they show this threat model; else only that of all
    # threat models. Groups that were trained in the box are drawn on request, by plots.py.
    names = None if shown and not (box and runs_named) else ["threats"]
    groups = {plots.group_of(settings) for settings in shown} if runs_named and not names else ()
    with contextlib.suppress(runs.Missing):  # of which plots.main has told
        plots.main(names, sorted(groups) or None, results=results)


def choose(results: Path, named: list[str] | None) -> dict[Path, set[str]]:
    """Folder of a data set -> the names of the runs to attack: those named, or all.

    Raises:
        InputError: there are no runs, or none of this name.
    """
    found = {dataset: set(runs.names(dataset / "runs")) for dataset in runs.datasets(results)}
    if not found:
        raise InputError(f"no runs in {results}: python train.py makes one")
    if named is None:
        return found
    named = list(map(str, recipes.several(named)))
    known = {f"{dataset.name}/{name}" for dataset, names in found.items() for name in names}
    for name in named:
        if not any(full == name or full.endswith("/" + name) for full in known):
            raise InputError(f"no run {name} in {results}; there are: {', '.join(sorted(known))}")
    chosen = {
        dataset: {name for name in names if name in named or f"{dataset.name}/{name}" in named}
        for dataset, names in found.items()
    }
    return {dataset: names for dataset, names in chosen.items() if names}


def evaluate(
    run: runs.Run, split: data.Dataset, eps: np.ndarray, norm: str = "inf", box: bool = False
) -> runs.Attack:
    """Attack a run on its test set, at the radii `eps` (k,)."""
    x, y = split.flat("test")
    logits = x @ run.w + run.b
    radii = advlinear.sample_radii(x, y, run.w, run.b, norm, box)
    nearest = nearest_misclassified(run, x, y, eps[::10], norm, box)
    shown = set()
    if (norm, box) == ("inf", False):  # the threat model of the figures that show images
        shown = {
            row["index"]
            for row in nearest
            if row["rank"] == 0 or (row["eps"] == 0 and row["rank"] < SHOWN)
        }
    shown = np.array(sorted(shown), dtype=np.int64)
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
        correct=advlinear.robust_correct(radii, eps),
        labels=split.y_test,
        logits=logits,
        radii=radii,
        image_index=shown,
        images=split.x_test[shown, ..., 0],
        nearest=runs.columns(nearest, ("eps", "rank", "index", "label", "logit")),
        landscape=weight_landscape(run, split) if has_landscape(run.settings) else {},
    )


def save_example(dataset: Path, known: dict[str, runs.Run], split: data.Dataset) -> None:
    """Store the image of the figure attack, once the first two of its models are attacked."""
    attacked = runs.names(dataset / "attacks" / "linf")
    members = [known[name] for name in EXAMPLE if name in known and name in attacked]
    if {run.name for run in members} >= set(EXAMPLE[:2]):
        runs.save_study(dataset, "example", {"example": example(members, split)}, members)


def example(members: list[runs.Run], split: data.Dataset) -> dict[str, np.ndarray]:
    """A test image of the lower digit that is typical for each of the runs.

    Each run ranks the images of this digit by their radii in the L-infinity ball. We take the image
    that minimises the largest distance of its ranks from the middle rank.

    Returns:
        index (), image (height, width), and runs: their names.
    """
    x, y = split.flat("test")
    lower = np.flatnonzero(y < 0)
    farthest = np.zeros(len(lower))
    for run in members:
        radii = advlinear.sample_radii(x[lower], y[lower], run.w, run.b)
        farthest = np.maximum(farthest, np.abs(advlinear.ranks(radii) - (len(lower) - 1) / 2))
    index = lower[np.argmin(farthest)]
    names = np.array([run.name for run in members])
    return dict(index=index, image=split.x_test[index, ..., 0], runs=names)


def nearest_misclassified(run: runs.Run, x, y, radii, norm: str, box: bool) -> list[dict]:
    """At each radius, the misclassified perturbed samples whose logits are nearest to 0."""
    rows = []
    for eps in radii:
        delta = advlinear.perturbation(x, y, run.w, eps, norm, box)
        advlinear.check_perturbation(x, delta, eps, norm, box)
        logits = (x + delta) @ run.w + run.b
        wrong = np.flatnonzero(y * logits <= 0)
        wrong = wrong[np.argsort(np.abs(logits[wrong]), kind="stable")][:NEAREST]
        rows += [
            dict(eps=float(eps), rank=rank, index=int(i), label=int(y[i]), logit=logits[i])
            for rank, i in enumerate(wrong)
        ]
    return rows


def has_landscape(settings) -> bool:
    """Whether eps decides which pixels stay in use: the robust hinge in the plain ball."""
    return settings.robust and settings.plain_hinge


def weight_landscape(run: runs.Run, split: data.Dataset) -> dict[str, list]:
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
    rows = [
        dict(
            pixel=pixel,
            index=j,
            weight=v,
            hinge=advlinear.hinge(plain[:, j] + yx[:, j] * v).mean(),
            robust_hinge=advlinear.hinge(robust[:, j] + yx[:, j] * v - eps * abs(v)).mean(),
        )
        for pixel, j in pixels.items()
        for v in grid
    ]
    return runs.columns(rows)


def table(dataset: str, attacks: dict[str, runs.Attack]) -> str:
    """Clean accuracy and accuracy at four radii, a line per run, with a heading."""
    one = next(iter(attacks.values()))
    eps, norm = one.eps, recipes.NORMS[one.facts["norm"]]
    box = ", pixels kept in [0, 1]" * one.facts["box"]
    columns = [int(np.argmin(np.abs(eps - e))) for e in eps[-1] * np.arange(5) / 5]
    lines = [
        f"{dataset}: accuracy on {len(one.labels)} test images, clean and under the "
        f"worst perturbation of size eps ({norm}{box})"
    ]
    width = max(map(len, attacks))
    heads = ["clean", *(f"eps {eps[c]:.3g}" for c in columns[1:])]
    lines.append(f"{'':{width}}  " + "  ".join(f"{head:7}" for head in heads).rstrip())
    for name, attack in attacks.items():
        shares = "  ".join(f"{attack.accuracy[c]:<7.4f}" for c in columns)
        lines.append(f"{name:{width}}  {shares}".rstrip())
    at = columns[2]
    kept = {name: attack.accuracy[at] for name, attack in attacks.items()}
    weakest, strongest = min(kept, key=kept.get), max(kept, key=kept.get)
    if kept[weakest] < kept[strongest]:
        lines.append(
            f"At eps {eps[at]:.3g}, {weakest} is right on {100 * kept[weakest]:.1f} % of the "
            f"images and {strongest} on {100 * kept[strongest]:.1f} %."
        )
    return "\n".join(lines)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="attack.py",
        description="Attack the trained runs exactly, store the numbers and draw the figures.",
    )
    add = parser.add_argument
    add(
        "--runs",
        dest="runs_named",
        nargs="+",
        metavar="RUN",
        help="runs to attack, as robust-eps0.2 or mnist-0-1/robust-eps0.2 (default: all)",
    )
    add("--norm", choices=recipes.NORMS, default="inf", help="of the ball (default: inf)")
    add("--box", action="store_true", help="perturbed pixels stay in [0, 1]")
    add(
        "--eps-max",
        type=float,
        metavar="EPS",
        help="largest radius, in pixel units of [0, 1] "
        f"(default: {', '.join(f'{v:g} for norm {k}' for k, v in EPS_MAX.items())})",
    )
    add(
        "--eps-steps",
        type=int,
        default=100,
        metavar="N",
        help="equal steps from 0 to it (default: 100, so 101 radii)",
    )
    parser.add_mnist_dir()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
