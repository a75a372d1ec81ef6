"""The nearest rival of each sample among many classes, with few exact distances.

The dual norm gives a lower bound of the distance to each rival, which is exact without a box: (A2)
of docs/theory.md. In a box the rival of the smallest bound is computed exactly, then the next,
until no bound is below the smallest distance found. `_raise_bounds` and `_search_in_cube` leave
fewer to compute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from advlinear.attacks.moves import by_pair, distances
from advlinear.balls import DUAL, Box, blocks, box_of, distance, dual_norm, exponent_of
from advlinear.samples import MOST, dense

METRIC = {"inf": "cityblock", "2": "euclidean", "1": "chebyshev"}  # SciPy's names of dual norms
FEW_CLASSES = 30  # with more, products of matrices are faster, and worth the import of SciPy
BOUND_ERROR = 1e-9  # relative; rounding makes no bound wrong by more
AS_NEAR = 2.0**-42  # of a radius: a rival that is nearer by no more counts as equally near (2e-13)


def nearest(
    margins: np.ndarray,
    own: np.ndarray,
    x: Any,
    box: Box | None,
    weights: np.ndarray,
    norm: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The radius (n,) of each sample, and the index (n,) of the class that it is then taken for.

    Args:
        margins: (n, K) of the own class over each other; inf at the own class.
        own: (n,) the index of the own class.
        x: (n, d) samples, which may be sparse; box: None or two sides; weights: (K, d).
        norm: of the ball, "inf", "2", "1" or "0".
    """
    rows, right = np.arange(len(margins)), (margins > 0).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(margins > 0, margins / dual_norms(weights, norm)[own], 0)
    if norm == "0":  # no rival with other weights is nearer than one feature
        bounds = np.where(np.isfinite(bounds), 1.0, np.inf)
    bounds[rows, own] = np.inf
    radii, rival = np.where(right, np.inf, 0.0), np.where(right, own, np.argmin(margins, axis=1))
    if box is not None and margins.shape[1] > 2 and norm in ("inf", "2"):
        if norm == "inf" and margins.shape[1] > FEW_CLASSES:
            _search_in_cube(margins, own, x, box, weights, bounds, radii, rival)
            return radii, rival
        _raise_bounds(margins, own, x, box, weights, norm, bounds, radii)
    order = np.argsort(bounds, axis=1, kind="stable") if box is not None else None
    for k in range(margins.shape[1] - 1):  # the rivals of each sample, the smallest bound first
        candidate = bounds.argmin(axis=1) if order is None else order[:, k]
        hopeful = right & (bounds[rows, candidate] * (1 - BOUND_ERROR) < radii)
        if not hopeful.any():
            break
        for one, other, chosen in by_pair(own, candidate, hopeful):
            a = weights[one] - weights[other]
            found = distances(margins[chosen, other], a, x, chosen, norm, box)
            nearer = found < radii[chosen]
            radii[chosen[nearer]], rival[chosen[nearer]] = found[nearer], other
        if order is None:
            break  # without a box the bounds are the radii
    return radii, rival


def dual_norms(weights: np.ndarray, norm: str) -> np.ndarray:
    """The dual norm (K, K) of the difference of the weights of each two classes."""
    norm = "1" if norm == "0" else norm  # then all that matters is whether it is 0
    if len(weights) <= FEW_CLASSES:
        return np.array([[dual_norm(one - other, norm) for other in weights] for one in weights])
    from scipy.spatial.distance import cdist  # here, as few classes do not need it

    exponent = exponent_of(weights)
    weights = np.ldexp(weights, -exponent)
    found: np.ndarray = cdist(weights, weights, METRIC[norm])
    for one, other in np.argwhere(found < 1e-100):  # squares may have underflowed
        found[one, other] = dual_norm(weights[one] - weights[other], norm)
    return np.ldexp(found, exponent)


def _raise_bounds(
    margins: np.ndarray,
    own: np.ndarray,
    x: Any,
    box: Box,
    weights: np.ndarray,
    norm: str,
    bounds: np.ndarray,
    radii: np.ndarray,
) -> None:
    """Raise the bounds (n, K) of the radii: a feature at the edge of the box cannot move past it.

    The other features lower the margin over rival k, with a = w_own - w_k, by at most their dual
    norm per unit of radius: the sum of their |a_j|, or the root of the sum of their squares. For
    all rivals these sums are two products of matrices.
    """
    power, right = DUAL[norm], np.isinf(radii)
    for one in np.unique(own[right]):
        exponent = exponent_of(weights[one] - weights)
        a = np.ldexp(weights[one] - weights, -exponent)
        positive, negative = np.maximum(a, 0) ** power, np.maximum(-a, 0) ** power
        for rows in blocks(np.flatnonzero(right & (own == one)), x.shape[1]):
            part, (low, high) = dense(x, rows), box_of(rows, box)
            sums = (part > low) @ positive.T + (part < high) @ negative.T
            with np.errstate(divide="ignore"):
                raised = np.ldexp(margins[rows], -exponent) / sums ** (1 / power)
            bounds[rows] = np.maximum(bounds[rows], raised)


def _search_in_cube(
    margins: np.ndarray,
    own: np.ndarray,
    x: Any,
    box: Box,
    weights: np.ndarray,
    bounds: np.ndarray,
    radii: np.ndarray,
    rival: np.ndarray,
) -> None:
    """Fill in radii (n,) and rival (n,) of the right samples, in the L-infinity ball and the box.

    At a radius r the margin over rival k, with a = w_own - w_k, falls by (A5) of docs/theory.md,

        sum_j |a_j| min(r, c_j) = sum_j |a_j| (D_j + U_j) / 2 + a_j (D_j - U_j) / 2,

    where D_j and U_j are how far feature j can fall and rise, within r and the box. So two products
    of matrices tell which rivals are nearer than r, the smallest distance so far. (By more than
    2e-13 of it: else all would be computed where many are equally near.) Of these the one with the
    largest ratio of fall to margin is computed exactly next, until none is nearer.
    """
    right = np.isinf(radii)
    for one in np.unique(own[right]):
        for rows in blocks(np.flatnonzero(right & (own == one)), x.shape[1], MOST):
            part, sides = dense(x, rows), box_of(rows, box)
            left, margin = bounds[rows], margins[rows]  # bounds of the rivals not computed yet
            todo, candidate = np.arange(len(rows)), bounds[rows].argmin(axis=1)
            while len(todo):
                for _, other, chosen in by_pair(np.zeros_like(todo), candidate, todo >= 0):
                    places, a = todo[chosen], weights[one] - weights[other]
                    some = part[places], "inf", box_of(places, sides)
                    found = distance(margin[places, other], a, *some)
                    nearer = found < radii[rows[places]]
                    radii[rows[places[nearer]]] = found[nearer]
                    rival[rows[places[nearer]]] = other
                    left[places, other] = np.inf
                todo, candidate = _next(weights, one, radii[rows], left, margin, part, sides, todo)


def _next(
    weights: np.ndarray,
    one: int,
    radii: np.ndarray,
    left: np.ndarray,
    margin: np.ndarray,
    x: np.ndarray,
    box: Box,
    todo: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Which samples of `todo` may have a nearer rival, and which rival of each to compute next.

    Args:
        weights: (K, d); one: the own class of all m samples.
        radii: (m,) the smallest distances so far.
        left: (m, K) bounds of the rivals not computed yet, inf of the others. Rivals that are found
            not to be nearer become inf, too.
        margin: (m, K); x: (m, d); box: two sides.
        todo: indices among the m samples.
    """
    todo = todo[(left[todo] * (1 - BOUND_ERROR) < radii[todo, None]).any(axis=1)]
    never = np.isinf(radii[todo])
    candidate = left[todo].argmin(axis=1)  # for those that nothing flips so far
    reached = todo[~never]
    if not len(reached):
        return todo, candidate
    hopeful = left[reached] * (1 - BOUND_ERROR) < radii[reached, None]
    others = np.flatnonzero(hopeful.any(axis=0))
    r = radii[reached, None] * (1 - AS_NEAR)
    low, high = box_of(reached, box)
    fall, rise = x[reached] - low, high - x[reached]
    np.minimum(fall, r, out=fall)
    np.minimum(rise, r, out=rise)
    more, both = (fall - rise) / 2, (fall + rise) / 2
    drop = np.empty((len(reached), len(others)))
    for few in blocks(np.arange(len(others)), x.shape[1]):  # in the processor's cache
        a = weights[others[few]]
        np.subtract(weights[one], a, out=a)
        drop[:, few] = more @ a.T
        drop[:, few] += both @ np.abs(a, out=a).T
    here = np.ix_(reached, others)
    ahead, bound = margin[here], left[here]
    terms = r * ahead / np.where(bound > 0, bound, 1)  # ahead / bound is ||a||_1
    rounding = np.sqrt(x.shape[1]) * 2.0**-52 * terms  # errors of random signs
    nearer = (drop > ahead - rounding) & hopeful[:, others]
    left[here] = np.where(nearer, bound, np.inf)  # farther than r: never nearer than a smaller one
    ratio = np.where(nearer, drop / ahead, -np.inf)
    keep = never.copy()
    keep[~never] = nearer.any(axis=1)
    candidate[~never] = others[ratio.argmax(axis=1)]
    return todo[keep], candidate[keep]
