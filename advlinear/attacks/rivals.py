"""The nearest rival of each sample among many classes, with few exact distances."""

from __future__ import annotations

from typing import Any

import numpy as np

from advlinear.attacks.moves import by_pair, exact
from advlinear.balls import DUAL, blocks, box_of, distance, dual_norm, exponent_of
from advlinear.samples import MOST, dense

METRIC = {"inf": "cityblock", "2": "euclidean", "1": "chebyshev"}  # of weights: the dual norms
FEW = 30  # classes: with more, products of matrices are worth their cost, and SciPy its import
CLOSE = 1e-9  # of a bound: no rounding is larger
SAME = 2.0**-42  # of a radius: a rival that is nearer by no more is as near (2e-13)


def nearest(
    gaps: np.ndarray,
    own: np.ndarray,
    x: Any,
    box: tuple | None,
    weights: np.ndarray,
    norm: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The radius (n,) of each sample, and the index (n,) of the class that it is then taken for.

    Args:
        gaps: (n, K) the lead of the own class over each other; inf at the own class.
        own: (n,) the index of the own class.
        x: (n, d); box: None or two sides; weights: (K, d).
    """
    rows, right = np.arange(len(gaps)), (gaps > 0).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(gaps > 0, gaps / costs(weights, norm)[own], 0)
    if norm == "0":  # no rival with other weights is nearer than one feature
        bounds = np.where(np.isfinite(bounds), 1.0, np.inf)
    bounds[rows, own] = np.inf
    radii, rival = np.where(right, np.inf, 0.0), np.where(right, own, np.argmin(gaps, axis=1))
    if box is not None and gaps.shape[1] > 2 and norm in ("inf", "2"):
        if norm == "inf" and gaps.shape[1] > FEW:
            _search_in_cube(gaps, own, x, box, weights, bounds, radii, rival)
            return radii, rival
        _raise_bounds(gaps, own, x, box, weights, norm, bounds, right)
    order = np.argsort(bounds, axis=1, kind="stable") if box is not None else None
    for k in range(gaps.shape[1] - 1):  # the rivals of each sample, the nearest by its bound first
        candidate = bounds.argmin(axis=1) if order is None else order[:, k]
        hopeful = right & (bounds[rows, candidate] * (1 - CLOSE) < radii)
        if not hopeful.any():
            break
        for one, other, chosen in by_pair(own, candidate, hopeful):
            found = exact(gaps[chosen, other], weights[one] - weights[other], x, chosen, norm, box)
            nearer = found < radii[chosen]
            radii[chosen[nearer]], rival[chosen[nearer]] = found[nearer], other
        if order is None:
            break  # without a box the bounds are the radii
    return radii, rival


def costs(weights: np.ndarray, norm: str) -> np.ndarray:
    """The dual norm (K, K) of the difference of the weights of each two classes."""
    norm = "1" if norm == "0" else norm  # which features count is all that matters then
    if len(weights) <= FEW:
        return np.array([[dual_norm(one - other, norm) for other in weights] for one in weights])
    from scipy.spatial.distance import cdist  # here, as few classes do not need it

    exponent = exponent_of(weights)
    weights = np.ldexp(weights, -exponent)
    found = cdist(weights, weights, METRIC[norm])
    for one, other in np.argwhere(found < 1e-100):  # squares may have underflowed
        found[one, other] = dual_norm(weights[one] - weights[other], norm)
    return np.ldexp(found, exponent)


def _raise_bounds(gaps, own, x, box, weights, norm, bounds, right) -> None:
    """Raise the bounds (n, K) of the radii: a feature at the edge of the box cannot move past it.

    The others lower the lead over rival k, a = w_own - w_k, by at most their dual norm per unit of
    radius: the sum of their |a_j|, or the root of the sum of their squares. For all rivals these
    sums are two products of matrices.
    """
    power = DUAL[norm]
    for one in np.unique(own[right]):
        exponent = exponent_of(weights[one] - weights)
        a = np.ldexp(weights[one] - weights, -exponent)
        positive, negative = np.maximum(a, 0) ** power, np.maximum(-a, 0) ** power
        for rows in blocks(np.flatnonzero(right & (own == one)), x.shape[1]):
            part, (low, high) = dense(x, rows), box_of(rows, box)
            sums = (part > low) @ positive.T + (part < high) @ negative.T
            with np.errstate(divide="ignore"):
                raised = np.ldexp(gaps[rows], -exponent) / sums ** (1 / power)
            bounds[rows] = np.maximum(bounds[rows], raised)


def _search_in_cube(gaps, own, x, box, weights, bounds, radii, rival) -> None:
    """Fill in radii (n,) and rival (n,) of the right samples, in the L-infinity ball and the box.

    At a radius r the lead over rival k, a = w_own - w_k, falls by

        sum_j |a_j| min(r, c_j) = sum_j |a_j| (D_j + U_j) / 2 + a_j (D_j - U_j) / 2,

    where D_j and U_j are how far feature j can fall and rise, within r and the box. So two products
    of matrices say which rivals are nearer than r, the radius for the best rival so far, by more
    than 2e-13 of it (otherwise all would be computed where many are equally near). The one with
    the largest ratio of fall to lead is computed exactly next, until none is nearer.
    """
    right = np.isinf(radii)
    for one in np.unique(own[right]):
        for rows in blocks(np.flatnonzero(right & (own == one)), x.shape[1], MOST):
            part, sides = dense(x, rows), box_of(rows, box)
            left, gap = bounds[rows], gaps[rows]  # the bounds of rivals that are not tried yet
            todo, candidate = np.arange(len(rows)), bounds[rows].argmin(axis=1)
            while len(todo):
                for _, other, chosen in by_pair(np.zeros_like(todo), candidate, todo >= 0):
                    places, a = todo[chosen], weights[one] - weights[other]
                    known = part[places], "inf", box_of(places, sides)
                    found = distance(gap[places, other], a, *known)
                    nearer = found < radii[rows[places]]
                    radii[rows[places[nearer]]] = found[nearer]
                    rival[rows[places[nearer]]] = other
                    left[places, other] = np.inf
                todo, candidate = _next(weights, one, radii[rows], left, gap, part, sides, todo)


def _next(weights, one, radii, left, gap, part, sides, todo) -> tuple[np.ndarray, np.ndarray]:
    """Which samples of `todo` may have a nearer rival, and which is tried next."""
    todo = todo[(left[todo] * (1 - CLOSE) < radii[todo, None]).any(axis=1)]
    never = np.isinf(radii[todo])
    candidate = left[todo].argmin(axis=1)  # for those that nothing flips so far
    reached = todo[~never]
    if not len(reached):
        return todo, candidate
    hopeful = left[reached] * (1 - CLOSE) < radii[reached, None]
    others = np.flatnonzero(hopeful.any(axis=0))
    r = radii[reached, None] * (1 - SAME)
    low, high = box_of(reached, sides)
    fall, rise = part[reached] - low, high - part[reached]
    np.minimum(fall, r, out=fall)
    np.minimum(rise, r, out=rise)
    more, both = (fall - rise) / 2, (fall + rise) / 2
    drop = np.empty((len(reached), len(others)))
    for few in blocks(np.arange(len(others)), part.shape[1]):  # in the processor's cache
        a = weights[others[few]]
        np.subtract(weights[one], a, out=a)
        drop[:, few] = more @ a.T
        drop[:, few] += both @ np.abs(a, out=a).T
    here = np.ix_(reached, others)
    ahead, bound = gap[here], left[here]
    terms = r * ahead / np.where(bound > 0, bound, 1)  # ahead / bound is ||a||_1
    rounding = np.sqrt(part.shape[1]) * 2.0**-52 * terms  # errors of random signs
    nearer = (drop > ahead - rounding) & hopeful[:, others]
    left[here] = np.where(nearer, bound, np.inf)  # farther than r: never nearer than a smaller one
    ratio = np.where(nearer, drop / ahead, -np.inf)
    keep = never.copy()
    keep[~never] = nearer.any(axis=1)
    candidate[~never] = others[ratio.argmax(axis=1)]
    return todo[keep], candidate[keep]
