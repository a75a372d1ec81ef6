"""Find the global minimum of the robust hinge as a linear program, and certify it.

    python optimum.py --eps 0.1 0.2 0.3

Stored as a run like any other (results/<dataset>/runs/optimal-eps0.2), with the dual solution in
dual.npz, so that attack.py and plots.py pick it up and anyone can check the certificate anew.

With w = u - v, the robust hinge over n samples is the value of

    primal: min (1/n) sum_i xi_i   over u, v, xi >= 0 and b,
            xi_i >= 1 - y_i ((u - v).x_i + b) + eps sum_j (u_j + v_j)
    dual:   max sum_i alpha_i      over 0 <= alpha_i <= 1/n,
            sum_i alpha_i y_i = 0,  |sum_i alpha_i y_i x_ij| <= eps sum_i alpha_i for each j.

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
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
    quiet: bool = False,
) -> list[Path]:
    """Minimise, certify and store one model per radius; returns the runs' folders.

    Raises:
        InputError: the data or the folder cannot be had, or a certificate fails.
    """
    radii, results = recipes.several(eps), cli.folder("results", results)
    if not radii:
        raise InputError("nothing to minimise: give at least one radius")
    for radius in radii:
        recipes.optimal("mnist-0-1", radius)  # bad radii are refused before the data are read
    cli.check_writable(results)
    split = data.load(dataset, digits, mnist_dir)
    return [optimise(split, radius, results, quiet) for radius in radii]


def optimise(split: data.Dataset, eps: float, results: Path, quiet: bool = False) -> Path:
    """Minimise, certify and store one model; print the certificate in one line."""
    started = time.perf_counter()
    x, y = split.flat("train")
    w, b, alpha = minimise(x, y, eps, None if quiet else cli.tell_progress)
    proof = certificate(x, y, w, b, alpha, eps)
    check_certificate(proof)
    history = {}
    for part in ("train", "test"):
        x, y = split.flat(part)
        margins = y * (x @ w + b)
        worst = exact.worst_case_margins(x, y, w, b, eps)
        history[f"{part}_loss"] = [exact.hinge(worst).mean()]
        history[f"{part}_accuracy"] = [np.mean(margins > 0)]
        history[f"{part}_hinge"] = [exact.hinge(margins).mean()]
        history[f"{part}_robust_accuracy"] = [np.mean(worst > 0)]
    from importlib.metadata import version

    settings = recipes.optimal(split.name, eps)
    facts = runs.facts(split, dict(highspy=version("highspy"))) | {"certificate": proof}
    folder = runs.save(results, settings, facts, w, b, history, dual=dict(alpha=alpha))
    print(
        f"{settings.name}: minimum {proof['primal']:.9f}, certified gap {proof['gap']:.1e}, "
        f"{np.count_nonzero(w)} pixels, {time.perf_counter() - started:.1f} s, "
        f"written to {folder}",
        flush=True,
    )
    return folder


def certificate(x, y, w, b, alpha, eps: float) -> dict[str, float]:
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
        (|sum alpha y x_j| <= eps sum alpha). The primal has none: xi is read off (w, b).
    """
    n = len(y)
    primal = float(exact.hinge(exact.worst_case_margins(x, y, w, b, eps)).mean())
    dual = float(alpha.sum())
    return {
        "primal": primal,
        "dual": dual,
        "gap": (primal - dual) / max(primal, 1 / n),
        "violation_box": max(0.0, float(-alpha.min()), float(alpha.max() - 1 / n)),
        "violation_balance": abs(float(alpha @ y)),
        "violation_pixel": max(0.0, float(np.abs((alpha * y) @ x).max() - eps * alpha.sum())),
    }


def check_certificate(proof: dict[str, float]) -> None:
    """Raise InputError unless the gap is at most 1e-6 and alpha keeps every constraint."""
    if not proof["gap"] <= LARGEST_GAP:
        raise InputError(f"no certificate: the relative gap is {proof['gap']:.1e}")
    for name in ("violation_box", "violation_balance", "violation_pixel"):
        if not proof[name] <= 10 * TOLERANCE:
            raise InputError(f"no certificate: {name} is {proof[name]:.1e}")


def minimise(x, y, eps: float, report=None) -> tuple[np.ndarray, float, np.ndarray]:
    """The exact minimum of the robust hinge, and the dual solution that proves it.

    Args:
        x, y: images (n, d) in [0, 1] and labels (n,) in {-1, +1}, float64.
        eps: radius of the L-infinity ball.
        report: called with a line of text after each solve.

    Returns:
        w (d,), b, alpha (n,). Where several (w, b) are optimal, the one with the fewest pixels
        among the solutions on the way.
    """
    yx = y[:, None] * x
    w, b = approximate_minimum(x, y, eps)
    size = np.abs(w)
    program = Program(yx, y, eps)
    program.add_samples(np.flatnonzero(exact.worst_case_margins(x, y, w, b, eps) < 1 + START_SLACK))
    program.add_pixels(np.flatnonzero(size > runs.PIXEL_IN_USE * size.max(initial=0.0)))
    candidates = []
    while True:
        w, b, alpha = program.solve()
        if cli.INTERRUPTED.is_set():  # HiGHS may swallow Ctrl-C
            raise KeyboardInterrupt
        worst = exact.worst_case_margins(x, y, w, b, eps)
        primal = exact.hinge(worst).mean()
        candidates.append(Candidate(primal, w, b))
        excess = np.abs(alpha @ yx) - eps * alpha.sum()
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

    def __init__(self, yx: np.ndarray, y: np.ndarray, eps: float):
        """yx: y_i x_ij, shape (n, d); y: labels (n,)."""
        self.yx, self.y, self.eps = yx, y, eps
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

    def add_samples(self, new: np.ndarray) -> None:
        """A row y b + xi + sum_j (y x_j - eps) u_j + (-y x_j - eps) v_j >= 1 for each."""
        k = len(new)
        slack = self._add_columns(1 / len(self.y), np.empty((k, 0)))
        yx = self.yx[np.ix_(new, self.pixels)]
        rows = np.hstack([self.y[new, None], np.ones((k, 1)), yx - self.eps, -yx - self.eps])
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
        yx = self.yx[np.ix_(self.samples, new)].T
        self.plus = np.concatenate([self.plus, self._add_columns(0.0, yx - self.eps)])
        self.minus = np.concatenate([self.minus, self._add_columns(0.0, -yx - self.eps)])
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


def approximate_minimum(x, y, eps: float, steps: int = 4000, batch: int = 200):
    """w (d,) and b near the minimum, by SGD in NumPy as `--recipe converged` does it, in a second.

    A warm start: missing rows and columns are added later, surplus ones cost a little time.
    """
    x, y = x.astype(np.float32), y.astype(np.float32)
    w, b = np.zeros(x.shape[1], np.float32), np.float32(0)
    w_velocity, b_velocity = np.zeros_like(w), b
    shuffle = np.random.default_rng(0)
    for step in range(steps):
        chosen = shuffle.integers(len(y), size=batch)
        margins = y[chosen] * (x[chosen] @ w + b) - eps * np.abs(w).sum()
        pull = np.where(margins < 1, y[chosen], 0) / batch
        rate = 0.05 * (1 - step / steps)
        gradient = eps * np.abs(pull).sum() * np.sign(w) - pull @ x[chosen]
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
    parser.add_data()
    parser.add_results()
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
