"""Both bounds on the least robust loss, from w, b and alpha alone. It uses nothing of the solver.

With weights a_i of the samples, s_i = a_i / sum_k a_k, and ||.||* the dual norm of the ball,

    F(w, b) = sum_i s_i l(m_i),    m_i = y_i (w.x_i + b) - eps ||w||*

is the robust loss; l is the hinge, l(m) = max(0, 1 - m), or the logistic loss, l(m) = log(1 +
exp(-m)). With a box, feature j of sample i lowers m_i by |w_j| min(eps, c_ij) in place of
eps |w_j|, where c_ij is how far it can move against y_i w_j.

Weak duality, (C2) and (C3) of docs/theory.md. Let 0 <= alpha_i <= s_i with sum_i alpha_i y_i = 0,
and let h(a) = a for the hinge, and h(a) = -a log(a) - (1 - a) log(1 - a) for the logistic loss. For
0 <= a <= 1 and every m, l(m) >= h(a) - a m. So for every w and b

    F(w, b) >= sum_i s_i h(alpha_i / s_i) - (g.w - eps D ||w||*),    g = sum_i alpha_i y_i x_i,

where D = sum_i alpha_i. If the size of g in the ball's norm is at most eps D, what is subtracted is
at most 0, and the sum is a lower bound of every F(w, b). (With a box: if g_j is at most sum_i
alpha_i min(eps, c_ij) for w_j > 0, and -g_j likewise for w_j < 0.) If not, g splits into a part
that keeps this constraint and a rest e, and F(w, b) is at least the sum less |e|.|w|: |e_j| is what
|g_j| exceeds its side by, in the L-infinity ball, and e = (1 - eps D / ||g||) g in the others. As
sum_i alpha_i y_i = 0, g is the same for x_i - c with any c.

Without a bias each sample is taken twice, see `samples.mirrored`.

With a budget for all samples together F is sum_i s_i l(y_i (w.x_i + b)) + eps ||w||*, and the same
holds with eps in place of eps D.

The theorem in float64. Let u = 2^-53. Every sum of k products that float64 computes, in whatever
order, is off by at most k u / (1 - k u) times the sum of their absolute values, and k 2^-1074 for
products below 2^-1022 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition,
section 3.1). `math.fsum` rounds once. NumPy's exp, log and log1p are taken to be right to 4 u of
their values; all else follows from IEEE 754. Then

- `primal` is at least the exact F of the float64 numbers (w, b), x and a. (In a box, x is first
  moved to its edge where it is outside by no more than `minimise` allows for rounding.)
- alpha, cut to [0, a_i / sum a], times 1 - 4 u for the rounding of that quotient, and for the class
  with the larger sum times the exact quotient of the two sums, is within 0 <= alpha <= s with
  sum_i alpha_i y_i = 0. If `violation` is 0, `dual` is at most the exact F of every w and b. Else,
  with r_j the range of feature j, it is at most that of every w and b with sum_j r_j |w_j| <= 1000
  (1 + that sum of the given w).

Samples are centred first, so that an offset of the features costs no accuracy: x_ij - c_j is
rounded to u of itself, and b + c.w is computed exactly and rounded once. (Columns of sparse ones
that have zeros are not, as they would no longer be sparse.)
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear import chunks, samples
from advlinear.balls import shown
from advlinear.minima import rounding
from advlinear.minima.joint import certificate as joint
from advlinear.minima.rounding import FEW, MARGIN_LIMIT, REACH, ROWS, SMALLEST, TINY, U
from advlinear.samples import JointProblem, Problem

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

OVERFLOW = "the margins of (w, b) overflow: scale X, w, b and eps to smaller numbers"
MOST_BLOCKS = 400  # of a sparse x, each of which takes time for all d columns


def certificate(
    X: ArrayLike,
    y: ArrayLike,
    w: ArrayLike,
    b: ArrayLike,
    alpha: ArrayLike,
    eps: float,
    norm: str | float = "inf",
    loss: str = "hinge",
    box: tuple | None = None,
    sample_weight: ArrayLike | None = None,
    exact: bool = False,
    flow: ArrayLike | None = None,
    budget: str = "each",
    fit_intercept: bool = True,
) -> dict[str, float]:
    """Both bounds on the least robust loss, from w, b and alpha alone.

    The docstrings of advlinear/minima/certificate.py, and of joint/certificate.py beside it for
    more than two classes, state what is proved of the float64 numbers given, with all that
    rounding may do. With `exact` there is no rounding to believe in: both bounds are computed in
    whole numbers, of which float64 numbers are multiples by powers of two, and rounded outwards at
    the end.

    Args:
        X, y, eps, norm, loss, box, sample_weight, budget, fit_intercept: the problem, as for
            `minimise`.
        w, b: weights (d,) and bias; for K > 2 classes (K, d) and (K,), in the sorted order of their
            labels. Where X is a DataFrame, a Series w, or a DataFrame w with the index 0 to K - 1,
            goes by its column names.
        alpha: dual variables (n,), of any signs and sizes; for K > 2 classes (n, K). Best those of
            `minimise`.
        exact: in rational arithmetic, for the hinge in the L-infinity and the L1 ball, for K > 2
            classes in the L-infinity ball alone. Some seconds for 10,000 samples of 784 features.
        flow: for K > 2 classes in the L2 and L1 balls (K, K, d), the other part of the dual
            solution, as of `minimise`; u_pq, with p < q, is used. Else it is not needed.

    Returns:
        primal, dual: the upper and the lower bound. violation: 0 if the lower bound holds for all
        weights; else the bound holds for weights up to a thousand times as large as w, and this is
        an upper bound of the largest share of a feature's range by which alpha misses its
        constraint (at eps = 0 it misses an equation by its rounding, some 1e-13). gap: (primal -
        dual) / max(primal, s), with s the smallest share of a sample that is not 0: 1 / n without
        weights.

    Raises:
        ValueError: the problem is not as described; w, b, alpha or flow are not finite real numbers
            of these shapes; the margins overflow; `exact` does not go with the norm or the loss.

    Example, of weights and an alpha found by hand:

        >>> import advlinear
        >>> X, y, alpha = [[0], [1], [1], [2]], [0, 1, 0, 1], [1 / 12, 1 / 4, 1 / 4, 1 / 12]
        >>> proof = advlinear.certificate(X, y, [4 / 3], -4 / 3, alpha, eps=0.25)
        >>> {name: round(value, 6) for name, value in proof.items()}
        {'primal': 0.666667, 'dual': 0.666667, 'gap': 0.0, 'violation': 0.0}

    And of three classes at a radius at which no weights are better than 0:

        >>> X, W, alpha = [[0, 0], [1, 0], [0, 1]], [[0, 0]] * 3, [[1 / 6] * 3] * 3
        >>> proof = advlinear.certificate(X, [0, 1, 2], W, [0, 0, 0], alpha, eps=0.6)
        >>> {name: round(value, 6) for name, value in proof.items()}
        {'primal': 1.0, 'dual': 1.0, 'gap': 0.0, 'violation': 0.0}
    """
    samples.require_flag(exact, "exact")
    problem = samples.problem(X, y, eps, norm, loss, box, sample_weight, budget, fit_intercept)
    columns, (n, d) = samples.names(X)[0], problem.x.shape
    if isinstance(problem, JointProblem):
        K = len(problem.classes)
        W, b = samples.weights_in_order(w, b, columns)
        W, b = samples.numbers(W, "w", (K, d)), samples.numbers(b, "b", (K,))
        alpha = samples.numbers(alpha, "alpha", (n, K))
        flow = None if flow is None else samples.numbers(flow, "flow", (K, K, d))
        if not exact:
            return joint.bounds(problem, W, b, alpha, flow)
        from advlinear.minima.joint import rational as joint_rational  # here, as few ask for it

        return joint_rational.bounds(problem, W, b, alpha)
    if flow is not None:
        raise ValueError("flow is for more than two classes: leave it out")
    w = samples.in_order(w, columns, None, "w")
    w, b = samples.numbers(w, "w", (d,)), float(samples.numbers(b, "b"))
    if problem.mirrored:
        if b != 0:
            raise ValueError(f"b must be 0 with fit_intercept=False, not {shown(b)}")
        alpha = problem.of_all(samples.numbers(alpha, "alpha", (n // 2,)))
    alpha = samples.numbers(alpha, "alpha", (n,))
    if not exact:
        return bounds(problem, w, b, alpha)
    from advlinear.minima import rational  # here, as few ask for it

    if not _is_sparse(problem.x):
        problem = replace(problem, x=samples.as_array(problem.x, "exact"))
    return rational.bounds(problem, w, b, alpha, REACH)


def bounds(problem: Problem, w: np.ndarray, b: float, alpha: np.ndarray) -> dict[str, float]:
    """What `certificate` returns, of finite float64 numbers."""
    centre, ranges = _centre_and_ranges(problem.x)
    total = rounding.total(problem.weights)
    share = problem.weights / total
    reach = problem.eps * rounding.norm(np.abs(w), {"inf": 1, "2": 2, "1": np.inf}[problem.norm])
    if problem.budget == "mean":
        if not reach < MARGIN_LIMIT:
            raise ValueError(OVERFLOW)
        primal = (_upper(problem, centre, w, b, total, 0.0) + reach) * (1 + FEW)
    else:
        primal = _upper(problem, centre, w, b, total, reach)
    size = float(np.abs(w) @ ranges)
    alpha = np.clip(alpha, 0, share)
    sums = {sign: rounding.total(alpha[problem.y == sign]) for sign in (-1, 1)}
    least = min(sums.values())
    least = least if least > TINY else 0.0  # else a factor could be too small to be accurate
    factors = {sign: least / one if one > 0 else 0.0 for sign, one in sums.items()}
    value = 2 * least
    misses = _misses(problem, centre, alpha, factors, value)
    if problem.loss == "logistic":
        alpha *= np.where(problem.y > 0, factors[1], factors[-1])
        value = rounding.total(_entropies(alpha, share))
    varies = ranges > 0  # elsewhere x - c is 0
    violation = float((misses[varies] / ranges[varies]).max(initial=0.0))
    lost = violation * REACH * (size * (1 + len(w) * FEW) + 1)
    dual = max(value - lost - FEW * value, 0.0)  # 0 is the bound of alpha = 0
    gap = (primal - dual) / max(primal, share[share > 0].min() * (1 + problem.mirrored))
    return dict(primal=primal, dual=dual, gap=float(gap), violation=violation)


def _centre_and_ranges(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """A c (d,) amid the samples, and the range (d,) of each feature.

    c is 0 for a column of a sparse x that has zeros, as it would not be sparse any more.
    """
    low, high = samples.extremes(x)
    centre = low + (high - low) / 2
    if _is_sparse(x):
        centre[_counts(x) < x.shape[0]] = 0
    return centre, high - low


def _is_sparse(x: Any) -> bool:
    return hasattr(x, "indptr")


def _counts(x: Any) -> np.ndarray:
    """How many numbers each column (d,) of a sparse x has."""
    return np.bincount(x.indices, minlength=x.shape[1])


def _away(x: Any, centre: np.ndarray) -> Any:
    """x - centre of an array, or of a sparse x with `_centre_and_ranges`."""
    if not _is_sparse(x):
        return x - centre
    away = x.copy()
    away.data -= centre[x.indices]
    return away


def _dot(a: Any, b: Any) -> np.ndarray:
    """a @ b, of which one may be sparse, which np.dot does not take."""
    found: np.ndarray = a @ b if _is_sparse(a) or _is_sparse(b) else np.dot(a, b)
    return found


# --- the upper bound -----------------------------------------------------------------------------


def _upper(
    problem: Problem, centre: np.ndarray, w: np.ndarray, b: float, total: float, reach: float
) -> float:
    """An upper bound of the mean loss, the sum of which is divided by total.

    reach: what is taken off each margin; in a box it is found for each sample.
    """
    if chunks.is_chunked(problem.x):
        bound = functools.partial(
            _upper_of_chunk, centre=centre, w=w, b=b, total=total, reach=reach
        )
        return math.fsum(chunks.each(problem.x, bound, _in_chunks(problem))) * (1 + FEW)
    sparse = _is_sparse(problem.x)
    used = np.arange(len(w)) if sparse else np.flatnonzero(w)  # columns of a CSR array take long
    n_terms = int(np.diff(problem.x.indptr).max()) if sparse else len(used)
    bias = rounding.exact_bias(centre[used], w[used], b)
    w, size = w[used], np.abs(w[used])
    losses = np.empty(len(problem.y))
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(0, len(losses), ROWS):
            rows = slice(k, k + ROWS)
            x, y = problem.x[rows] if sparse else problem.x[rows, used], problem.y[rows]
            cost = reach if problem.box is None else np.dot(_moves(problem, x, y, used, w), size)
            x = _away(x, centre[used])
            terms = _dot(abs(x), size) + abs(bias) + cost
            margins = y * (_dot(x, w) + bias) - cost - (n_terms + 8) * 2 * U * terms
            losses[rows] = problem.weights[rows] * _losses(problem.loss, margins)
    return rounding.total(losses) / total * (1 + FEW)


def _upper_of_chunk(x: np.ndarray, problem: Problem, **given: Any) -> float:
    """Of the terms of the samples of a chunk."""
    return _upper(replace(problem, x=x), **given)


def _in_chunks(problem: Problem) -> list[Problem]:
    """For each chunk of a dask array the problem of its samples, but for x."""
    return [
        replace(problem, x=None, y=problem.y[rows], weights=problem.weights[rows])
        for rows in chunks.rows_of(problem.x)
    ]


def _losses(loss: str, margins: np.ndarray) -> np.ndarray:
    """At margins of some samples. Raises ValueError: the margins overflow."""
    if not (np.abs(margins) < MARGIN_LIMIT).all():
        raise ValueError(OVERFLOW)
    return np.maximum(1 - margins, 0) if loss == "hinge" else np.logaddexp(0, -margins) + TINY


def _moves(
    problem: Problem, x: np.ndarray, y: np.ndarray, used: np.ndarray, w: np.ndarray
) -> np.ndarray:
    """How far the features of some samples (m, k) can move against y w, within eps and the box."""
    assert problem.box is not None
    low, high = (side[used] for side in problem.box)
    falls = y[:, None] * np.sign(w) > 0
    return np.minimum(problem.eps, np.where(falls, x - low, high - x))


# --- the lower bound -----------------------------------------------------------------------------


def _misses(
    problem: Problem,
    centre: np.ndarray,
    alpha: np.ndarray,
    factors: dict[int, float],
    total: float,
) -> np.ndarray:
    """|e| (d,): by how much alpha, times the factor of its class, misses the constraints; or 0.

    Let t be the sum of the terms of g, in absolute value, and M the other side: eps D, or eps with
    a budget for all samples, or the moves in the box. Either is computed to at most k u of t or M,
    with k = 2 block + 12; for a dask array k is that of the largest chunk plus the number of
    chunks, which are added up; for a column of a sparse x it is at most how many numbers it has,
    plus 12, as adding 0 is exact. What is added to g is 3 k u t. If M >= 2 t, then |g| <= t < M
    whatever rounding does. Else the error of M is at most 2 k u t, and that of g k u t: so |g| +
    3 k u t <= M in float64 proves |g| <= M.
    """
    n, d = problem.x.shape
    if not total:
        return np.zeros(d)
    in_blocks = _of_chunks if chunks.is_chunked(problem.x) else _in_blocks
    g, terms, n_terms, moves = in_blocks(problem, centre, alpha, factors)
    terms = 3 * (n_terms + 12) * U * terms + 3 * n * SMALLEST
    if problem.box is not None:
        return np.maximum(np.maximum(g - moves[0], -g - moves[1]) + terms, 0)
    g = np.abs(g) + terms
    allowed = problem.eps * (1.0 if problem.budget == "mean" else total)
    if problem.norm == "inf":
        return np.maximum(g - allowed, 0)
    size = rounding.norm(g, int(problem.norm))
    return g * (1 - allowed / size) if size > allowed else np.zeros(d)


def _in_blocks(
    problem: Problem, centre: np.ndarray, alpha: np.ndarray, factors: dict[int, float]
) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray]:
    """g, the sum (d,) of its terms in absolute value, k - 12, and in a box M (2, d)."""
    n, d = problem.x.shape
    g, terms, moves = np.zeros(d), np.zeros(d), np.zeros((2, d))
    block = math.isqrt(n) + 1  # the error of a sum grows with the block and the number of blocks
    if sparse := _is_sparse(problem.x):
        block = max(block, n // MOST_BLOCKS)
    for sign in (-1, 1):
        every = np.flatnonzero(problem.y == sign)
        for k in range(0, len(every), block):
            rows = every[k : k + block]
            x, part = problem.x[rows], alpha[rows]
            away = _away(x, centre)
            g += sign * factors[sign] * _dot(part, away)
            terms += factors[sign] * _dot(part, abs(away))
            if problem.box is not None:  # against a positive weight, and against a negative one
                sides = (x - problem.box[0], problem.box[1] - x)[::sign]
                for against, side in enumerate(sides):
                    moves[against] += factors[sign] * np.dot(part, np.minimum(problem.eps, side))
    n_terms = np.minimum(_counts(problem.x), 2 * block) if sparse else 2 * block
    return g, terms, n_terms, moves


def _of_chunks(
    problem: Problem, centre: np.ndarray, alpha: np.ndarray, factors: dict[int, float]
) -> tuple[np.ndarray, np.ndarray, Any, np.ndarray]:
    """The same of a dask array: of all chunks, one after the other."""
    parts = [alpha[rows] for rows in chunks.rows_of(problem.x)]
    of_chunk = functools.partial(_blocks_of_chunk, centre=centre, factors=factors)
    g, terms, n_terms, _ = zip(
        *chunks.each(problem.x, of_chunk, _in_chunks(problem), parts), strict=True
    )
    return sum(g), sum(terms), max(n_terms) + len(parts), np.zeros((2, 0))


def _blocks_of_chunk(x: np.ndarray, problem: Problem, alpha: np.ndarray, **given: Any) -> tuple:
    return _in_blocks(replace(problem, x=x), alpha=alpha, **given)


def _entropies(alpha: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Lower bounds (n,), but for some u, of s_i h(alpha_i / s_i) of the logistic loss.

    a is off by some u of itself, which h feels by that times a (2 + |log a| + |log(1 - a)|).
    """
    found = np.zeros(len(alpha))
    for k in range(0, len(alpha), ROWS):
        one, most = alpha[k : k + ROWS], share[k : k + ROWS]
        inside = (one > TINY) & (one < most)
        most = most[inside]
        a = one[inside] / most
        logs = np.log(a), np.log1p(-a)
        terms = a * (2 - logs[0] - logs[1]) - logs[1]
        h = -a * logs[0] - (1 - a) * logs[1] - FEW * terms
        found[k : k + ROWS][inside] = most * np.maximum(h, 0)
    return found
