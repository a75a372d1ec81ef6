"""The global minimum of the robust hinge as a linear program, and the certificate that proves it.

With w = u - v, the robust hinge over n samples in the L-infinity ball is the value of

    primal: min (1/n) sum_i xi_i   over u, v, xi >= 0 and b,
            xi_i >= 1 - y_i ((u - v).x_i + b) + eps sum_j (u_j + v_j)
    dual:   max sum_i alpha_i      over 0 <= alpha_i <= 1/n,
            sum_i alpha_i y_i = 0,  |sum_i alpha_i y_i x_ij| <= eps sum_i alpha_i for each j.

With the box, eps becomes how far feature j of sample i can move against a positive weight (beside
u_j) and against a negative one (beside v_j), and the last constraint one for each of the two.

Only samples whose worst-case margin is at most 1, and the features in use, matter to either. So
HiGHS, the solver, is given few of both. Samples and features whose constraints a solution violates
are added, and HiGHS goes on from that solution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from advlinear import models
from advlinear.worst_case import hinge, worst_case_margins

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TOLERANCE = 1e-9  # on each constraint; about the solver's own
LARGEST_GAP = 1e-6
MOST_FEATURES = 60  # added at a time
MOST_ITERATIONS = 20_000  # of a solve; the largest of MNIST takes some thousands
START_SLACK = 0.3  # the program starts with the samples of worst-case margin below 1 + START_SLACK
IN_USE = 0.01  # and with the features whose weight exceeds this share of the largest


@dataclass(frozen=True, repr=False, eq=False)
class Minimum:
    """The least robust hinge and what proves it; see `minimise`.

    Attributes:
        w, b: weights (d,) and bias of the best model.
        eps, box: of the problem.
        primal: the robust hinge of (w, b), an upper bound of the minimum.
        dual: the sum of alpha, a lower bound.
        gap: (primal - dual) / max(primal, 1 / n).
        alpha: (n,) the dual solution.
        classes: (2,) the labels that stand for -1 and +1.
    """

    w: np.ndarray
    b: float
    eps: float
    box: bool
    primal: float
    dual: float
    gap: float
    alpha: np.ndarray
    classes: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Minimum(eps={self.eps:g}{', box=True' * self.box}, primal={self.primal:.9g}, "
            f"gap={self.gap:.1e}, {np.count_nonzero(self.w)} of {len(self.w)} weights other than 0)"
        )


def minimise(
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    report: Callable[[str], object] | None = None,
    box: bool = False,
) -> Minimum:
    """The exact minimum of the robust hinge of two classes, and the dual solution that proves it.

    Where several (w, b) are optimal, it is the one with the fewest features among the solutions on
    the way.

    Args:
        X: samples (n, d), real numbers.
        y: labels (n,) of two values; the lower one counts as -1.
        eps: radius of the L-infinity ball, in the units of X.
        report: called with a line of text after each solve.
        box: perturbed samples stay in [0, 1], where all of X must be.

    Raises:
        ValueError: an argument is not as described, or the solution is not certified: its gap is
            above 1e-6, or alpha misses a constraint by more than 1e-8 (that of a feature: 1e-8 of
            the feature's range).
    """
    x, eps = models.samples(X), models.radius(eps)
    classes, y = models.two_classes(y, len(x))
    if box and not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"with the box X must be in [0, 1], not from {x.min():g} to {x.max():g}")
    w, b, alpha = _solve(x, y, eps, report, box)
    proof = certificate(x, y, w, b, alpha, eps, box)
    _check(proof, x, y, alpha, eps, box)
    bounds = (proof[name] for name in ("primal", "dual", "gap"))
    return Minimum(w, b, eps, box, *bounds, alpha, classes)


def _check(proof: dict[str, float], x, y, alpha, eps: float, box: bool) -> None:
    """Raise ValueError unless the certificate proves the minimum, to the tolerances of `minimise`.

    What alpha may miss of a feature's constraint is relative to the feature's range: an absolute
    tolerance cannot tell values apart that differ by less than it.
    """
    if not proof["gap"] <= LARGEST_GAP:
        raise ValueError(f"no certificate: the relative gap is {proof['gap']:.1e}")
    for name in ("violation_box", "violation_balance"):
        if not proof[name] <= 10 * TOLERANCE:
            raise ValueError(f"no certificate: {name} is {proof[name]:.1e}")
    span = np.ptp(x, axis=0)
    scale = np.where(span > 0, span, np.maximum(np.abs(x).max(axis=0), 1))
    excess = feature_excess(alpha, y[:, None] * x, moves(x, y, eps, box)) / scale
    if not excess.max() <= 10 * TOLERANCE:
        raise ValueError(
            f"no certificate: alpha misses the constraint of feature {np.argmax(excess)} by "
            f"{excess.max():.1e} of the feature's range: scale the features to a range of about 1"
        )


def certificate(
    X: ArrayLike,
    y: ArrayLike,
    w: np.ndarray,
    b: float,
    alpha: np.ndarray,
    eps: float,
    box: bool = False,
) -> dict[str, float]:
    """Both bounds on the minimum, from w, b and alpha alone, in float64.

    Any (w, b) bounds the minimum from above, by its objective; any alpha within the dual's
    constraints bounds it from below, by its sum (weak duality).

    Args:
        X, y: samples (n, d) and labels (n,) of two values.
        w, b: weights (d,) and bias.
        alpha: dual variables (n,).

    Returns:
        primal, dual: the two bounds; gap: (primal - dual) / max(primal, 1 / n), as one sample
        weighs 1 / n; the largest violation by alpha of each kind of constraint: violation_box
        (0 <= alpha <= 1/n), violation_balance (sum alpha y = 0), violation_pixel
        (|sum alpha y x_j| <= eps sum alpha, or the two that the box makes of it). The primal has
        none: xi is read off (w, b).

    Raises:
        ValueError: X, y or eps is not as described, or shapes do not fit.
    """
    x, eps = models.samples(X), models.radius(eps)
    _, y = models.two_classes(y, len(x))
    n = len(y)
    if np.shape(w) != x.shape[1:] or np.shape(alpha) != (n,):
        raise ValueError(
            f"w and alpha need shapes {x.shape[1:]} and {(n,)}, not {np.shape(w)} and "
            f"{np.shape(alpha)}"
        )
    primal = float(hinge(worst_case_margins(x, y, w, b, eps, box=box)).mean())
    excess = feature_excess(alpha, y[:, None] * x, moves(x, y, eps, box))
    dual = float(alpha.sum())
    return {
        "primal": primal,
        "dual": dual,
        "gap": (primal - dual) / max(primal, 1 / n),
        "violation_box": max(0.0, float(-alpha.min()), float(alpha.max() - 1 / n)),
        "violation_balance": abs(float(alpha @ y)),
        "violation_pixel": max(0.0, float(excess.max())),
    }


def moves(x: np.ndarray, y: np.ndarray, eps: float, box: bool) -> tuple:
    """How far a feature can move against a positive weight, and against a negative one.

    Both are (n, d) with the box, and the number eps without.
    """
    if not box:
        return eps, eps
    down, up = np.minimum(eps, x), np.minimum(eps, 1 - x)
    ones = y[:, None] > 0
    return np.where(ones, down, up), np.where(ones, up, down)


def feature_excess(alpha: np.ndarray, yx: np.ndarray, moves: tuple) -> np.ndarray:
    """By how much alpha (n,) exceeds the constraint of each feature (d,); at most 0 if it keeps it.

    yx: y_i x_ij, shape (n, d).
    """
    pull = alpha @ yx
    plus, minus = (alpha @ move if np.ndim(move) else move * alpha.sum() for move in moves)
    return np.maximum(pull - plus, -pull - minus)


def _solve(x, y, eps: float, report, box: bool) -> tuple[np.ndarray, float, np.ndarray]:
    """w (d,), b and alpha (n,), by rows and columns that are added on the way."""
    yx, move = y[:, None] * x, moves(x, y, eps, box)
    alpha = _alpha_of_no_weights(y)
    if feature_excess(alpha, yx, move).max() <= TOLERANCE:
        return np.zeros(x.shape[1]), float(np.sign(y.sum())), alpha
    w, b = approximate_minimum(x, y, eps, box)
    size, worst = np.abs(w), worst_case_margins(x, y, w, b, eps, box=box)
    program = Program(yx, y, move)
    program.add_samples(np.flatnonzero(worst < 1 + START_SLACK))
    program.add_features(np.flatnonzero(size > IN_USE * size.max(initial=0.0)))
    candidates = []
    while True:
        w, b, alpha = program.solve()
        worst = worst_case_margins(x, y, w, b, eps, box=box)
        primal = hinge(worst).mean()
        candidates.append(Candidate(primal, w, b))
        excess = feature_excess(alpha, yx, move)
        samples = np.setdiff1d(np.flatnonzero(worst < 1 - TOLERANCE), program.samples)
        features = np.setdiff1d(np.flatnonzero(excess > TOLERANCE), program.features)
        if report:
            report(
                f"eps {eps:g}: {len(program.samples)} samples, {len(program.features)} features, "
                f"bounds {alpha.sum():.7f} to {primal:.7f}"
            )
        if not len(samples) and not len(features):
            break
        program.add_samples(samples)
        program.add_features(features[np.argsort(-excess[features])][:MOST_FEATURES])
    least = primal + TOLERANCE * max(primal, 1 / len(y))
    optimal = [candidate for candidate in candidates if candidate.primal <= least]
    sparsest = min(optimal, key=lambda candidate: np.count_nonzero(candidate.w))
    return sparsest.w, sparsest.b, alpha


def _alpha_of_no_weights(y) -> np.ndarray:
    """The alpha (n,) that proves w = 0 optimal if it keeps the constraint of each feature.

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
    """The linear program over some of the samples and features, in HiGHS, which keeps its basis.

    Row k is sample `samples[k]`. Column 0 is b; the others are xi, u and v in order of arrival.
    """

    def __init__(self, yx: np.ndarray, y: np.ndarray, moves: tuple):
        """yx: y_i x_ij, shape (n, d); y: labels (n,); moves: as the function of this name."""
        self.yx, self.y, self.moves = yx, y, moves
        self.samples, self.features = (np.empty(0, dtype=np.int64) for _ in range(2))
        self.plus, self.minus = (np.empty(0, dtype=np.int32) for _ in range(2))  # columns u, v
        import highspy  # here, as `attack` does not need it

        self.inf = highspy.kHighsInf
        self.solver = highspy.Highs()
        self.solver.silent()
        for side in ("primal", "dual"):
            self.solver.setOptionValue(f"{side}_feasibility_tolerance", TOLERANCE)
        self.solver.setOptionValue("simplex_iteration_limit", MOST_ITERATIONS)
        self.solver.addVar(-self.inf, self.inf)

    def _add_columns(self, cost: float, columns: np.ndarray) -> np.ndarray:
        """Variables >= 0 with these dense columns (k, rows); returns their numbers."""
        k, rows = columns.shape
        first = self.solver.getNumCol()
        self.solver.addCols(
            k,
            np.full(k, cost),
            np.zeros(k),
            np.full(k, self.inf),
            columns.size,
            np.arange(k, dtype=np.int32) * rows,
            np.tile(np.arange(rows, dtype=np.int32), k),
            columns.ravel(),
        )
        return np.arange(first, first + k, dtype=np.int32)

    def _coefficients(self, samples, features) -> tuple[np.ndarray, np.ndarray]:
        """Of u_j, y x_j - eps without the box, and of v_j, -y x_j - eps: (samples, features)."""
        chosen = np.ix_(samples, features)
        plus, minus = (move[chosen] if np.ndim(move) else move for move in self.moves)
        return self.yx[chosen] - plus, -self.yx[chosen] - minus

    def add_samples(self, new: np.ndarray) -> None:
        """A row y b + xi + sum_j (y x_j - eps) u_j + (-y x_j - eps) v_j >= 1 for each."""
        k = len(new)
        slack = self._add_columns(1 / len(self.y), np.empty((k, 0)))
        plus, minus = self._coefficients(new, self.features)
        rows = np.hstack([self.y[new, None], np.ones((k, 1)), plus, minus])
        columns = np.empty(rows.shape, dtype=np.int32)
        columns[:, 0], columns[:, 1] = 0, slack
        columns[:, 2:] = np.concatenate([self.plus, self.minus])
        self.solver.addRows(
            k,
            np.ones(k),
            np.full(k, self.inf),
            rows.size,
            np.arange(k, dtype=np.int32) * rows.shape[1],
            columns.ravel(),
            rows.ravel(),
        )
        self.samples = np.concatenate([self.samples, new])

    def add_features(self, new: np.ndarray) -> None:
        """Columns u_j and v_j for each, at no cost of their own."""
        plus, minus = self._coefficients(self.samples, new)
        self.plus = np.concatenate([self.plus, self._add_columns(0.0, plus.T)])
        self.minus = np.concatenate([self.minus, self._add_columns(0.0, minus.T)])
        self.features = np.concatenate([self.features, new])

    def solve(self) -> tuple[np.ndarray, float, np.ndarray]:
        """w (d,), b and alpha (n,), zero outside the program's features and samples."""
        self.solver.run()
        if self.solver.getModelStatus().name == "kIterationLimit":
            # From a poor start HiGHS may cycle once rows are added: let it start from nothing.
            self.solver.clearSolver()
            self.solver.run()
        if self.solver.getModelStatus().name != "kOptimal":
            raise ValueError(f"no minimum: HiGHS ended with {self.solver.getModelStatus().name}")
        solution = self.solver.getSolution()
        values = np.array(solution.col_value)
        w, alpha = np.zeros(self.yx.shape[1]), np.zeros(len(self.y))
        w[self.features] = values[self.plus] - values[self.minus]
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
