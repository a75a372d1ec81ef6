"""Find the global minimum of the robust hinge as a linear program, and certify it.

    python optimum.py --eps 0.1 0.2 0.3
    python optimum.py --eps 0.2 --box           perturbed pixels stay in [0, 1]

Stored as a run like any other (results/<dataset>/runs/optimal-eps0.2), with the dual solution in
dual.npz, so that attack.py and plots.py pick it up and anyone can check the certificate anew.

With w = u - v, the robust hinge over n samples is the value of

    primal: min (1/n) sum_i xi_i   over u, v, xi >= 0 and b,
            xi_i >= 1 - y_i ((u - v).x_i + b) + eps sum_j (u_j + v_j)
    dual:   max sum_i alpha_i      over 0 <= alpha_i <= 1/n,
            sum_i alpha_i y_i = 0,  |sum_i alpha_i y_i x_ij| <= eps sum_i alpha_i for each j.

With the box, eps becomes how far pixel j of sample i can move against a positive weight (beside
u_j) and against a negative one (beside v_j), and the last constraint one for each of the two.

Only samples whose worst-case margin is at most 1, and the pixels in use, matter to either. So
HiGHS, the solver, is given few of both. Samples and pixels whose constraints a solution violates
are added, and HiGHS goes on from that solution.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from common import cli, runs
from common.cli import RESULTS, InputError

import highspy
import numpy as np

import data
import exact
import recipes

TOLERANCE = 1e-9  # on each constraint; about the solver's own
LARGEST_GAP = 1e-6
MOST_PIXELS = 60  # added at a time
MOST_ITERATIONS = 20_000  # of a solve; the largest of ours takes some thousands
START_SLACK = 0.3  # the program starts with the samples of worst-case margin below 1 + START_SLACK


def main(
    eps: float | list[float],
    box: bool = False,
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
    quiet: bool = False,
) -> list[Path]:
    """Minimise, certify and store one model per radius; returns the runs' folders.

    With `box`, perturbed pixels stay in [0, 1].

    Raises:
        InputError: the data or the folder cannot be had, or a certificate fails.
    """
    radii, results = recipes.several(eps), cli.results_folder(results)
    if not radii:
        raise InputError("nothing to minimise: give at least one radius")
    for radius in radii:
        recipes.optimal("mnist-0-1", radius, box)  # bad radii are refused before the data are read
    cli.check_writable(results)
    split = data.load(dataset, digits, mnist_dir)
    return [
        optimise(recipes.optimal(split.name, radius, box), split, results, quiet)
        for radius in radii
    ]


def optimise(settings, split: data.Dataset, results: Path, quiet: bool = False) -> Path:
    """Minimise, certify and store one model; print the certificate in one line."""
    started = time.perf_counter()
    eps, box = settings.eps, settings.box
    x, y = split.flat("train")
    w, b, alpha = minimise(x, y, eps, None if quiet else cli.tell_progress, box)
    proof = certificate(x, y, w, b, alpha, eps, box)
    check_certificate(proof)
    note = in_words(w, proof["primal"], len(y))
    history = {}
    for part in ("train", "test"):
        x, y = split.flat(part)
        margins = y * (x @ w + b)
        worst = exact.worst_case_margins(x, y, w, b, eps, box=box)
        history[f"{part}_loss"] = [exact.hinge(worst).mean()]
        history[f"{part}_accuracy"] = [np.mean(margins > 0)]
        history[f"{part}_hinge"] = [exact.hinge(margins).mean()]
        history[f"{part}_robust_accuracy"] = [np.mean(worst > 0)]
    from importlib.metadata import version

    facts = runs.facts(split, dict(highspy=version("highspy"))) | {"certificate": proof}
    facts |= {"note": note} if note else {}
    folder = runs.save(results, settings, facts, w, b, history, dual=dict(alpha=alpha))
    print(
        f"{settings.name}: minimum {proof['primal']:.9f}, certified gap {proof['gap']:.1e}, "
        f"{np.count_nonzero(w)} weights other than 0, {time.perf_counter() - started:.1f} s, "
        f"written to {folder}{f' ({note})' * bool(note)}",
        flush=True,
    )
    return folder


def in_words(w, primal: float, n: int) -> str:
    """What is special about this minimum over n samples, where something is; else nothing."""
    if not w.any():
        return "w = 0 is optimal: no weights are better than the same answer for every image"
    if primal <= LARGEST_GAP / n:  # every worst-case margin is positive; larger w make it 1
        return "the minimum is 0: the classes are separable with a worst-case margin of 1"
    return ""


def moves(x, y, eps: float, box: bool) -> tuple:
    """How far a pixel can move against a positive weight, and against a negative one.

    Both are (n, d) with the box, and the number eps without.
    """
    if not box:
        return eps, eps
    down, up = np.minimum(eps, x), np.minimum(eps, 1 - x)
    ones = y[:, None] > 0
    return np.where(ones, down, up), np.where(ones, up, down)


def pixel_excess(alpha, yx, moves: tuple) -> np.ndarray:
    """By how much alpha (n,) exceeds the constraint of each pixel (d,); at most 0 if it keeps it.

    yx: y_i x_ij, shape (n, d).
    """
    pull = alpha @ yx
    plus, minus = (alpha @ move if np.ndim(move) else move * alpha.sum() for move in moves)
    return np.maximum(pull - plus, -pull - minus)


def certificate(x, y, w, b, alpha, eps: float, box: bool = False) -> dict[str, float]:
    """Both bounds on the minimum, from w, b and alpha alone, in float64.

    Any (w, b) bounds the minimum from above, by its objective; any alpha within the dual's
    constraints bounds it from below, by its sum (weak duality).

    Args:
        x, y: images (n, d) and labels (n,).
        w, b: weights (d,) and bias.
        alpha: dual variables (n,).

    Returns:
        primal, dual: the two bounds; gap: (primal - dual) / max(primal, 1 / n), as one sample
        weighs 1 / n; the largest violation by alpha of each kind of constraint: violation_box
        (0 <= alpha <= 1/n), violation_balance (sum alpha y = 0), violation_pixel
        (|sum alpha y x_j| <= eps sum alpha, or the two that the box makes of it). The primal has
        none: xi is read off (w, b).
    """
    n = len(y)
    primal = float(exact.hinge(exact.worst_case_margins(x, y, w, b, eps, box=box)).mean())
    excess = pixel_excess(alpha, y[:, None] * x, moves(x, y, eps, box))
    dual = float(alpha.sum())
    return {
        "primal": primal,
        "dual": dual,
        "gap": (primal - dual) / max(primal, 1 / n),
        "violation_box": max(0.0, float(-alpha.min()), float(alpha.max() - 1 / n)),
        "violation_balance": abs(float(alpha @ y)),
        "violation_pixel": max(0.0, float(excess.max())),
    }


def check_certificate(proof: dict[str, float]) -> None:
    """Raise InputError unless the gap is at most 1e-6 and alpha keeps every constraint."""
    if not proof["gap"] <= LARGEST_GAP:
        raise InputError(f"no certificate: the relative gap is {proof['gap']:.1e}")
    for name in ("violation_box", "violation_balance", "violation_pixel"):
        if not proof[name] <= 10 * TOLERANCE:
            raise InputError(f"no certificate: {name} is {proof[name]:.1e}")


def minimise(
    x, y, eps: float, report=None, box: bool = False
) -> tuple[np.ndarray, float, np.ndarray]:
    """The exact minimum of the robust hinge, and the dual solution that proves it.

    Args:
        x, y: samples (n, d) and labels (n,) of both classes, -1 and +1, float64.
        eps: radius of the L-infinity ball.
        report: called with a line of text after each solve.
        box: perturbed samples stay in [0, 1], where all of x must be.

    Returns:
        w (d,), b, alpha (n,). Where several (w, b) are optimal, the one with the fewest pixels
        among the solutions on the way.

    Raises:
        ValueError: a label is not -1 or +1, a class is absent, or x is outside the box.
    """
    _check_samples(x, y, box)
    yx, move = y[:, None] * x, moves(x, y, eps, box)
    alpha = _alpha_of_no_weights(y)
    if pixel_excess(alpha, yx, move).max() <= TOLERANCE:
        return np.zeros(x.shape[1]), float(np.sign(y.sum())), alpha
    w, b = approximate_minimum(x, y, eps, box)
    size, worst = np.abs(w), exact.worst_case_margins(x, y, w, b, eps, box=box)
    program = Program(yx, y, move)
    program.add_samples(np.flatnonzero(worst < 1 + START_SLACK))
    program.add_pixels(np.flatnonzero(size > runs.PIXEL_IN_USE * size.max(initial=0.0)))
    candidates = []
    while True:
        w, b, alpha = program.solve()
        if cli.INTERRUPTED.is_set():  # HiGHS may swallow Ctrl-C
            raise KeyboardInterrupt
        worst = exact.worst_case_margins(x, y, w, b, eps, box=box)
        primal = exact.hinge(worst).mean()
        candidates.append(Candidate(primal, w, b))
        excess = pixel_excess(alpha, yx, move)
        samples = np.setdiff1d(np.flatnonzero(worst < 1 - TOLERANCE), program.samples)
        pixels = np.setdiff1d(np.flatnonzero(excess > TOLERANCE), program.pixels)
        if report:
            report(
                f"eps {eps:g}: {len(program.samples)} samples, {len(program.pixels)} pixels, "
                f"bounds {alpha.sum():.7f} to {primal:.7f}"
            )
        if not len(samples) and not len(pixels):
            break
        program.add_samples(samples)
        program.add_pixels(pixels[np.argsort(-excess[pixels])][:MOST_PIXELS])
    least = primal + TOLERANCE * max(primal, 1 / len(y))
    optimal = [candidate for candidate in candidates if candidate.primal <= least]
    sparsest = min(optimal, key=lambda candidate: np.count_nonzero(candidate.w))
    return sparsest.w, sparsest.b, alpha


def _check_samples(x, y, box: bool) -> None:
    labels = np.unique(y)
    if not np.array_equal(labels, [-1, 1]):
        raise ValueError(f"labels y must be -1 and +1, and both occur, not {labels[:5].tolist()}")
    if box and not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"with the box x must be in [0, 1], not from {x.min():g} to {x.max():g}")


def _alpha_of_no_weights(y) -> np.ndarray:
    """The alpha (n,) that proves w = 0 optimal if it keeps the constraint of each pixel.

    1 / n on each sample of the smaller class, and the same sum spread evenly over the larger one.
    """
    ones = y > 0
    count = np.where(ones, ones.sum(), (~ones).sum())
    return count.min() / count / len(y)


@dataclass(frozen=True)
class Candidate:
    """A solution on the way: weights (d,), bias, and the loss on all samples."""

    primal: float
    w: np.ndarray
    b: float


class Program:
    """The linear program over some of the samples and pixels, in HiGHS, which keeps its basis.

    Row k is sample `samples[k]`. Column 0 is b; the others are xi, u and v in order of arrival.
    """

    def __init__(self, yx: np.ndarray, y: np.ndarray, moves: tuple):
        """yx: y_i x_ij, shape (n, d); y: labels (n,); moves: as the function of this name."""
        self.yx, self.y, self.moves = yx, y, moves
        self.samples, self.pixels = (np.empty(0, dtype=np.int64) for _ in range(2))
        self.plus, self.minus = (np.empty(0, dtype=np.int32) for _ in range(2))  # columns u, v
        self.solver = highspy.Highs()
        self.solver.silent()
        for side in ("primal", "dual"):
            self.solver.setOptionValue(f"{side}_feasibility_tolerance", TOLERANCE)
        self.solver.setOptionValue("simplex_iteration_limit", MOST_ITERATIONS)
        self.solver.addVar(-highspy.kHighsInf, highspy.kHighsInf)

    def _add_columns(self, cost: float, columns: np.ndarray) -> np.ndarray:
        """Variables >= 0 with these dense columns (k, rows); returns their numbers."""
        k, rows = columns.shape
        first = self.solver.getNumCol()
        self.solver.addCols(
            k,
            np.full(k, cost),
            np.zeros(k),
            np.full(k, highspy.kHighsInf),
            columns.size,
            np.arange(k, dtype=np.int32) * rows,
            np.tile(np.arange(rows, dtype=np.int32), k),
            columns.ravel(),
        )
        return np.arange(first, first + k, dtype=np.int32)

    def _coefficients(self, samples, pixels) -> tuple[np.ndarray, np.ndarray]:
        """Of u_j, y x_j - eps without the box, and of v_j, -y x_j - eps: (samples, pixels) each."""
        chosen = np.ix_(samples, pixels)
        plus, minus = (move[chosen] if np.ndim(move) else move for move in self.moves)
        return self.yx[chosen] - plus, -self.yx[chosen] - minus

    def add_samples(self, new: np.ndarray) -> None:
        """A row y b + xi + sum_j (y x_j - eps) u_j + (-y x_j - eps) v_j >= 1 for each."""
        k = len(new)
        slack = self._add_columns(1 / len(self.y), np.empty((k, 0)))
        plus, minus = self._coefficients(new, self.pixels)
        rows = np.hstack([self.y[new, None], np.ones((k, 1)), plus, minus])
        columns = np.empty(rows.shape, dtype=np.int32)
        columns[:, 0], columns[:, 1] = 0, slack
        columns[:, 2:] = np.concatenate([self.plus, self.minus])
        self.solver.addRows(
            k,
            np.ones(k),
            np.full(k, highspy.kHighsInf),
            rows.size,
            np.arange(k, dtype=np.int32) * rows.shape[1],
            columns.ravel(),
            rows.ravel(),
        )
        self.samples = np.concatenate([self.samples, new])

    def add_pixels(self, new: np.ndarray) -> None:
        """Columns u_j and v_j for each, at no cost of their own."""
        plus, minus = self._coefficients(self.samples, new)
        self.plus = np.concatenate([self.plus, self._add_columns(0.0, plus.T)])
        self.minus = np.concatenate([self.minus, self._add_columns(0.0, minus.T)])
        self.pixels = np.concatenate([self.pixels, new])

    def solve(self) -> tuple[np.ndarray, float, np.ndarray]:
        """w (d,), b and alpha (n,), zero outside the program's pixels and samples."""
        self.solver.run()
        if self.solver.getModelStatus() == highspy.HighsModelStatus.kIterationLimit:
            # From a poor start HiGHS may cycle once rows are added: let it start from nothing.
            self.solver.clearSolver()
            self.solver.run()
        if self.solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise RuntimeError(f"HiGHS: {self.solver.getModelStatus()}")
        solution = self.solver.getSolution()
        values = np.array(solution.col_value)
        w, alpha = np.zeros(self.yx.shape[1]), np.zeros(len(self.y))
        w[self.pixels] = values[self.plus] - values[self.minus]
        alpha[self.samples] = solution.row_dual
        return w, float(values[0]), alpha


def approximate_minimum(
    x, y, eps: float, box: bool = False, steps: int = 4000, batch: int = 200
) -> tuple[np.ndarray, float]:
    """w (d,) and b near the minimum, by SGD in NumPy as `--recipe converged` does it, in a second.

    A warm start: missing rows and columns are added later, surplus ones cost a little time. With
    the box, a step takes the perturbed images themselves, in place of the penalty eps ||w||_1.
    """
    penalty = 0.0 if box else eps
    x, y = x.astype(np.float32), y.astype(np.float32)
    w, b = np.zeros(x.shape[1], np.float32), np.float32(0)
    w_velocity, b_velocity = np.zeros_like(w), b
    shuffle = np.random.default_rng(0)
    for step in range(steps):
        chosen = shuffle.integers(len(y), size=batch)
        images = x[chosen]
        if box:
            against = eps * y[chosen, None] * np.sign(w)
            images = images - np.clip(against, images - 1, images)
        margins = y[chosen] * (images @ w + b) - penalty * np.abs(w).sum()
        pull = np.where(margins < 1, y[chosen], 0) / batch
        rate = 0.05 * (1 - step / steps)
        gradient = penalty * np.abs(pull).sum() * np.sign(w) - pull @ images
        w_velocity = 0.95 * w_velocity - np.float32(rate) * gradient
        b_velocity = 0.95 * b_velocity + np.float32(rate) * pull.sum()
        w, b = w + w_velocity, b + b_velocity
    return w.astype(np.float64), float(b)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="optimum.py",
        description="Find and certify the global minimum of the robust hinge (L-infinity ball).",
    )
    parser.add_argument(
        "--eps",
        type=float,
        nargs="+",
        required=True,
        help="radii of the perturbation ball, in pixel units of [0, 1]; one model each",
    )
    parser.add_argument("--box", action="store_true", help="perturbed pixels stay in [0, 1]")
    parser.add_data()
    parser.add_results()
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
