"""The least robust loss of a sparse X in the L-infinity ball: features on demand.

Of 74,000 words some hundreds have a weight at the minimum. The interior point is given a working
set of features. Then X^T (alpha y) shows which constraints its alpha misses, (W) of docs/theory.md,
"Working sets". Their features join, and none leaves. When none is missing, the solution is that of
all features. X stays sparse, and so does its part of the features in the working set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from advlinear.minima import Array, Indices, certificate, cones, program
from advlinear.minima.curvatures import Diagonal
from advlinear.minima.operators import Split
from advlinear.minima.rounding import U
from advlinear.samples import Problem

FEWEST_AT_FIRST, MOST_AT_FIRST = 100, 1000  # features
SEARCH_TOL = 1e-2  # of the rounds that look for features
FEW_MISSING = 0.05  # of the working set: if no more are missing, the tolerance is that of the end
MOST_FEATURES = 8000  # in the working set: 512 MB for the matrix of Newton's system
MOST_AT_VERTEX = 600  # weights other than 0; the simplex method took 16 s with 1,000
HEAVY = 0.06  # a column with a larger share of numbers other than 0 is multiplied as an array


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them.

    Args:
        problem: in the L-infinity ball, without a box; x is a CSR array or an array. eps and all
            weights are above 0.
        tol, report: as of `minimise`.

    Raises:
        ValueError: more than MOST_FEATURES features would join the working set.
    """
    whole = _whole(problem, tol, report)

    def prove(theta: Array, alpha: Array) -> tuple:
        w = whole.program.operator.weights(theta) / whole.span
        b = float(theta[-1] - w @ whole.centre)
        if not (np.isfinite(w).all() and np.isfinite(b)):
            raise ValueError("no certificate: the steps overflow: " + program.advice(problem))
        alpha = problem.of_all(alpha / len(alpha))
        return w, b, alpha, certificate.bounds(problem, w, b, alpha)

    proofs: list[tuple] = []
    for theta, alphas in _solutions(whole):
        theta, alphas = program._simplest(whole.program, theta, alphas)
        for alpha in alphas:
            proofs.append(prove(theta, alpha))
            proof = proofs[-1][-1]
            if proof["gap"] <= tol and not proof["violation"]:
                return proofs[-1]
    return program.best_proved(proofs, tol)


@dataclass(frozen=True)
class Whole:
    """The program over all features.

    Attributes:
        program: what the interior point is given a part of. Its price is that of a slightly smaller
            eps, so that alpha ends further inside its constraints than rounding reaches.
        yx: (n, d) y x of its operator, a CSR array or an array.
        allowed: (d,) between that price and eps: the constraints that alpha is held against, times
            the sum of alpha, or with a budget for all samples times n.
        centre, span: (d,) what was subtracted from each feature, and what it was then divided by.
    """

    program: program.Program
    yx: Any
    allowed: Array
    centre: Array
    span: Array

    def ratios(self, alpha: Array) -> Array:
        """|sum_i alpha_i y_i x_ij| over what is allowed (d,): above 1 for a missing feature."""
        descent: Array = alpha @ self.yx
        total = len(alpha) if self.program.shares_budget else alpha.sum()
        return np.abs(descent) / (self.allowed * total)


def _whole(problem: Problem, tol: float, report: Callable | None) -> Whole:
    """The program over all features."""
    d, low, high = problem.x.shape[1], problem.x.min(axis=0), problem.x.max(axis=0)
    x, y, sample_weight, of_bias = problem.half()
    n, n_all = len(y), len(problem.y)
    if isinstance(x, np.ndarray):
        n_terms, span = np.full(d, 2 * np.sqrt(n_all)), high - low
        centre, largest = low + span / 2, span / 2
    else:
        low, high = low.toarray().ravel(), high.toarray().ravel()
        n_terms, span = np.bincount(problem.x.indices, minlength=d), high - low
        centre = np.where(n_terms == n_all, low + span / 2, 0.0)  # X stays as sparse as it is
        largest = np.maximum(-low, high)
    span = np.where(span > 0, span, 1.0)  # a feature that does not vary is now 0
    price = min(problem.eps, program.LARGEST_EPS * span.max()) / span
    slack = np.minimum(6 * (n_terms + 20) * U * largest / span, price / 2)
    signs, operator = y * 1.0, Split
    if isinstance(x, np.ndarray):
        yx: Any = signs[:, None] * (x - centre) / span
    else:
        yx, operator = x.copy(), SparseSplit
        yx.data = (
            np.repeat(signs, np.diff(x.indptr)) * (x.data - centre[x.indices]) / span[x.indices]
        )
    sample_weight = sample_weight / sample_weight.mean()
    cone, charge = cones.Nonnegative(2 * d), 0.0 if problem.budget == "mean" else 1.0
    size = np.append(np.tile(price - slack, 2), 0.0)
    start = np.append(np.tile(0.5 / price, 2), 0.0)  # u and v add the same to the norm
    return Whole(
        program=program.Program(
            operator=operator(yx, of_bias * 1.0, price - slack, charge),
            cone=cone,
            ball=cone,
            sample_weight=sample_weight,
            lightest=sample_weight.min(),
            start=start * (charge or cone.degree / n / (size @ start)),
            loss=problem.loss,
            tol=tol,
            exact=False,
            report=report,
            cost=(1 - charge) * n * size,
        ),
        yx=yx,
        allowed=price - slack / 2,
        centre=centre,
        span=span,
    )


def _solutions(whole: Whole) -> Iterator[tuple[Array, list]]:
    """theta (2 d + 1,) and alphas to try as proofs, until one is."""
    inner = whole.program
    n, d = len(inner.sample_weight), len(whole.span)
    features, tol = _first(whole), max(SEARCH_TOL, inner.tol)
    while True:
        columns = np.append(features, features + d)
        point = program._interior(inner, np.arange(n), np.zeros(n), tol, columns)
        theta = inner.ball.tightest(point.theta)
        plain = not inner.shares_budget
        if plain and inner.operator.matvec(theta).min() > 0:  # its margins prove the loss 0
            yield theta, []
        ratios = whole.ratios(point.alpha)
        ratios[features] = 0
        missing = np.flatnonzero(ratios > 1)
        if inner.report:
            inner.report(f"{len(features)} features in the working set, {len(missing)} missing")
        if not len(missing) and tol == inner.tol:
            in_use = np.count_nonzero(point.theta[:-1] > point.z)
            end = program._finish if in_use <= MOST_AT_VERTEX else program._sparse
            yield end(inner, point)
            return
        if len(missing) <= FEW_MISSING * len(features):
            tol = inner.tol
        features = _joined(features, missing, ratios)


def _first(whole: Whole) -> Indices:
    """The features that the alpha of no weights misses most, at least a few."""
    c, y = whole.program.sample_weight, whole.program.operator.y
    masses = np.where(y > 0, c[y > 0].sum(), c[y < 0].sum()) if y.any() else 1.0
    ratios = whole.ratios(c / masses)
    n_missing = int(np.count_nonzero(ratios > 1))
    count = min(max(n_missing, FEWEST_AT_FIRST), MOST_AT_FIRST, len(ratios))
    return np.sort(np.argpartition(-ratios, count - 1)[:count])


def _joined(features: Indices, missing: Indices, ratios: Array) -> Indices:
    """The working set with the features that are missing most, at most twice as large."""
    worst = missing[np.argsort(-ratios[missing], kind="stable")][: len(features)]
    if len(features) + len(worst) > MOST_FEATURES:
        raise ValueError(
            f"more than {MOST_FEATURES} of {len(ratios)} features would have weights at this eps, "
            "which is too many for this solver: raise eps, or leave out features"
        )
    return np.union1d(features, worst)


# --- sparse samples ------------------------------------------------------------------------------


class SparseSplit(Split):
    """`Split` with a CSR array yx; its parts are `Columns`."""

    def restricted(self, samples: Indices, columns: Indices) -> Split:
        features = columns[: len(columns) // 2]
        part: Any = Columns(self.yx[samples][:, features])
        return Split(part, self.y[samples], self.price[features], self.charge)

    def entries(self, samples: Indices, columns: Indices) -> Array:
        d = len(self.price)
        feature, sign = columns % d, np.where(columns < d, 1.0, -1.0)
        part: Any = self.yx[samples][:, feature]
        entries: Array = sign * part.toarray() - self.charge * self.price[feature]
        return entries


class Columns:
    """Some columns (n, k) of a CSR array, as the operator of the interior point uses them.

    Some words are in nearly all texts, most words in a few. Products of the columns of the former,
    the heavy ones, are quicker as those of an array.
    """

    __array_ufunc__ = None  # so that an array on the left leaves the product to __rmatmul__

    def __init__(self, matrix: Any):
        self.matrix, self.shape = matrix, matrix.shape
        n_terms = np.bincount(matrix.indices, minlength=self.shape[1])
        heavy = n_terms > HEAVY * self.shape[0]
        self.order = np.append(np.flatnonzero(heavy), np.flatnonzero(~heavy))
        self.heavy = matrix[:, np.flatnonzero(heavy)].toarray()
        self.light = matrix[:, np.flatnonzero(~heavy)]
        self.light_rows = self.light.T.tocsr()

    def __getitem__(self, rows: slice) -> Columns:
        return Columns(self.matrix[rows])

    def __matmul__(self, w: Array) -> Array:
        return self.matrix @ w

    def __rmatmul__(self, alpha: Array) -> Array:
        return self.matrix.T @ alpha

    def gram(self, curvature: Diagonal) -> Array:
        """M^T D M (k, k)."""
        weighted = self.light.copy()
        weighted.data *= np.repeat(curvature.diagonal, np.diff(weighted.indptr))
        gram, h = np.empty((len(self.order),) * 2), self.heavy.shape[1]
        gram[:h, :h] = curvature.gram(self.heavy)
        gram[h:, :h] = weighted.T @ self.heavy
        gram[:h, h:] = gram[h:, :h].T
        gram[h:, h:] = (self.light_rows @ weighted).toarray()
        place = np.argsort(self.order)
        return gram[np.ix_(place, place)]
