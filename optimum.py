"""Find the global minimum of a robust loss, and certify it.

    python optimum.py --eps 0.1 0.2 0.3           the robust hinge in the L-infinity ball
    python optimum.py --eps 0.2 --box             perturbed pixels stay in [0, 1]
    python optimum.py --eps 1.5 --norm 2          in the L2 ball
    python optimum.py --eps 0.2 --loss logistic   the robust logistic loss
    python optimum.py --path                      the robust hinge at every radius from 0 to 0.5
    python optimum.py --verify                    the bounds of the stored minima, without rounding
    python optimum.py --digits all --eps 0.05     the robust hinge of all ten digits at once

Stored as a run like any other (results/<dataset>/runs/optimal-eps0.2.npz), with the dual solution
alpha, so that attack.py and plots.py pick it up and anyone can check the certificate anew.
docs/theory.md states the problem, its dual, and how it is solved; the path of all radii, too, which
is stored as studies/path.npz. Runs of all ten digits are in results/mnist-all/; studies.py attacks
them, and attack.py and plots.py leave them alone.
"""

from __future__ import annotations

import functools
import importlib.metadata
import time
from pathlib import Path

from lab import cli
from lab.cli import RESULTS, InputError
from lab.store import columns

import numpy as np

import advlinear
import data
import recipes
import runs
import worst_case
from advlinear.minima import threads
from advlinear.minima.minimum import LARGEST_GAP

PATH_END = 0.5
FINE = 1e-9  # the duality gap that is tried first: it leaves fewer tiny weights in place of 0


def main(
    eps: float | list[float] = (),
    norm: str = "inf",
    box: bool = False,
    loss: str = "hinge",
    path: bool = False,
    verify: bool = False,
    dataset: str = "auto",
    digits: tuple[int, int] | str = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
    quiet: bool = False,
) -> list[Path]:
    """Minimise, certify and store one model per radius, or all radii at once; returns the files.

    The loss is that of `losses.py`, in the ball of radius `eps` by `norm`. With `box`, which goes
    with the norm inf, perturbed pixels stay in [0, 1]. `path` stores the minima of the hinge in
    the L-infinity ball at all radii from 0 to 0.5, and takes no other problem. `verify` computes
    the bounds of the stored minima of these data anew, in rational arithmetic. With `digits` "all"
    the ten digits are the classes; that takes the hinge in the L-infinity ball without the box.

    Raises:
        InputError: the data or the folder cannot be had, or a certificate fails.
    """
    radii, results = recipes.several(eps), cli.results_folder(results)
    usual = (norm, box, loss) == ("inf", False, "hinge")
    problem, ten = bool(radii) or not usual, recipes.several(digits) == ["all"]
    if ten and (path or not usual):
        raise InputError(
            "--digits all is of the hinge in the L∞ ball, at the radii of --eps: leave --path, "
            "--norm, --box and --loss out"
        )
    if path and (problem or verify):
        raise InputError("--path is of the hinge in the L∞ ball at all radii: leave the rest out")
    if verify and problem:
        raise InputError("--verify is of all stored minima: leave the problem out")
    if not (radii or path or verify):
        raise InputError("nothing to minimise: give a radius by --eps, or --path, or --verify")

    def wanted(dataset: str) -> list[recipes.Settings]:
        return [recipes.optimal(dataset, radius, norm, box, loss) for radius in radii]

    wanted("mnist-0-1")  # bad settings are refused before the data are read
    cli.check_writable(results)
    split = data.load_all(dataset, mnist_dir) if ten else data.load(dataset, digits, mnist_dir)
    if verify:
        return [verify_stored(split, results)]
    with threads.one():  # so that no sum depends on the number of cores
        if path:
            return [follow_path(split, results, quiet)]
        return [optimise(settings, split, results, quiet) for settings in wanted(split.name)]


def optimise(settings, split: data.Dataset, results: Path, quiet: bool = False) -> Path:
    """Minimise, certify and store one model; print the certificate in one line."""
    started = time.perf_counter()
    ball, box = (settings.eps, settings.norm), (0, 1) if settings.box else None
    x, y = split.flat("train")
    solve = functools.partial(
        advlinear.minimise, x, y, *ball, settings.loss, box, report=functools.partial(_tell, quiet)
    )
    try:
        try:
            found = solve(tol=FINE)
        except ValueError:
            found = solve()
    except ValueError as error:
        raise InputError(f"{settings.name}: {error}") from None
    w, b = found.w, found.b
    proof = {name: getattr(found, name) for name in ("primal", "dual", "gap", "violation")}
    note, history = in_words(w, found.primal, len(y)), {}
    used = np.count_nonzero(worst_case.sparsest(w))
    losses_of = getattr(worst_case, settings.loss)
    for part in ("train", "test"):
        x, y = split.flat(part)
        margins = worst_case.margins(x, y, w, b)
        worst = worst_case.margins(x, y, w, b, *ball, settings.box)
        history[f"{part}_loss"] = [losses_of(worst).mean()]
        history[f"{part}_accuracy"] = [np.mean(margins > 0)]
        history[f"{part}_{settings.loss}"] = [losses_of(margins).mean()]
        history[f"{part}_robust_accuracy"] = [np.mean(worst > 0)]
    versions = dict(highspy=importlib.metadata.version("highspy"))
    facts = runs.facts_of(split, versions) | {"certificate": proof}
    facts |= {"note": note} if note else {}
    solved = dict(alpha=found.alpha) | ({} if split.index is None else dict(index=split.index))
    file = runs.save_run(results, settings, facts, w, b, history, **solved)
    print(
        f"{settings.name}: minimum {found.primal:.9f}, certified gap {found.gap:.1e}, "
        f"{used} weights other than 0, {time.perf_counter() - started:.1f} s, "
        f"written to {file}{f' ({note})' * bool(note)}",
        flush=True,
    )
    return file


def follow_path(split: data.Dataset, results: Path, quiet: bool = False) -> Path:
    """Store the minima at all radii up to PATH_END; print in one line what is proved.

    The study has two tables. path: for each of 501 radii both bounds of the minimum, how many
    pixels the best model uses, and its accuracy at this radius on train and test. path-models: the
    models, as arrays of advlinear's Path, the weights in float32.
    """
    started = time.perf_counter()
    tell = functools.partial(_tell, quiet)
    try:
        path = advlinear.path(*split.flat("train"), 0.0, PATH_END, tol=0, report=tell)
    except ValueError as error:
        raise InputError(f"path: {error}") from None
    rows = []
    for eps in np.arange(501) * PATH_END / 500:
        best, kept = path.at(eps), {}
        for part in ("train", "test"):
            x, y = split.flat(part)
            worst = worst_case.margins(x, y, best.w, best.b, eps)
            kept[f"{part}_accuracy"] = np.mean(worst > 0)
        bounds = dict(primal=best.primal, dual=best.dual, pixels=np.count_nonzero(best.w))
        rows.append(dict(eps=eps) | bounds | kept)
    weights = dict(w_data=np.float32(path.w.data), w_indices=path.w.indices.astype(np.uint16))
    arrays = {
        name: getattr(path, name) for name in ("b", "s", "p", "radii", "proved", "dual", "reach")
    }
    models = weights | dict(w_indptr=path.w.indptr) | arrays
    tables = {"path": columns(rows), "path-models": models}
    file = runs.save_study(results / split.name, "path", tables)
    print(
        f"path: {len(path.s)} models, certified gap {path.gap:.1e} at every radius from 0 to "
        f"{PATH_END:g}, {time.perf_counter() - started:.0f} s, written to {file}",
        flush=True,
    )
    return file


def verify_stored(split: data.Dataset, results: Path) -> Path:
    """Compute the bounds of the stored minima in rational arithmetic; print a line for each.

    The hinge in the L-infinity and L1 balls is rational; the other problems need roots or
    logarithms. The study `rational` has both bounds, rounded outwards, the gap and the violation.
    """
    dataset, rows = results / split.name, []
    used = list(runs.trained_on(split, runs.read_runs(dataset), dataset).values())
    used = [run for run in used if "certificate" in run.facts]
    for run in used:
        try:
            proof = certificate(run, split, exact=True)
        except ValueError as error:
            print(f"{run.name}: not verified: {error}", flush=True)
            continue
        rows.append(dict(run=run.name) | proof)
        print(
            f"{run.name}: minimum from {proof['dual']!r} to {proof['primal']!r}, "
            f"violation {proof['violation']:g}",
            flush=True,
        )
    if not rows:
        raise InputError(f"no minimum in {dataset} to verify: python optimum.py --eps makes one")
    verified = [run for run in used if run.name in {row["run"] for row in rows}]
    file = runs.save_study(dataset, "rational", {"rational": columns(rows)}, verified)
    print(f"written to {file}")
    return file


def certificate(run: runs.Run, split: data.Dataset, exact: bool = False) -> dict[str, float]:
    """The certificate of a stored minimum, computed anew from its weights and alpha."""
    settings, box = run.settings, (0, 1) if run.settings.box else None
    problem = settings.eps, settings.norm, settings.loss, box
    x, y = split.flat("train")
    return advlinear.certificate(x, y, run.w, run.b, run.alpha, *problem, exact=exact)


def _tell(quiet: bool, line: str) -> None:
    if cli.INTERRUPTED.is_set():  # HiGHS may swallow Ctrl-C
        raise KeyboardInterrupt
    if not quiet:
        cli.tell_progress(line)


def in_words(w, primal: float, n: int) -> str:
    """What is special about this minimum over n samples, where something is; else nothing."""
    if not worst_case.sparsest(w).any():
        return "w = 0 is optimal: no weights are better than the same answer for every image"
    if primal <= LARGEST_GAP / n:  # every worst-case margin is positive; larger w make it 1
        return "the minimum is 0: the classes are separable with a worst-case margin of 1"
    return ""


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="optimum.py",
        description="Find and certify the global minimum of a robust loss.",
    )
    parser.add_argument(
        "--eps",
        type=float,
        nargs="+",
        default=(),
        help="radii of the perturbation ball, in pixel units of [0, 1]; one model each",
    )
    parser.add_ball(recipes.NORMS, "perturbed pixels stay in [0, 1] (norm inf only)")
    parser.add_argument(
        "--loss", choices=recipes.SOLVED, default="hinge", help="of the margin (default: hinge)"
    )
    parser.add_argument(
        "--path", action="store_true", help="all radii from 0 to 0.5 at once, of the hinge in L∞"
    )
    parser.add_argument(
        "--verify", action="store_true", help="the bounds of the stored minima, without rounding"
    )
    parser.add_data(all_digits=True)
    parser.add_results()
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
