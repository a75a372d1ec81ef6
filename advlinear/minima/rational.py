"""The bounds of advlinear/minima/certificate.py without rounding, in whole numbers.

A float64 number is a whole multiple of a power of two. So the loss of the hinge, and both sides of
the constraints on alpha in the L-infinity and the L1 ball, are quotients of whole numbers, which
Python computes exactly. They are rounded once, outwards, at the end. (The L2 ball needs roots, and
the logistic loss logarithms.)
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from advlinear.samples import Problem

COLUMNS = 8  # features in a block, to save memory


def bounds(
    problem: Problem, w: np.ndarray, b: float, alpha: np.ndarray, reach: int
) -> dict[str, float]:
    """What `certificate` returns with `exact`, of finite float64 numbers.

    reach: how much larger than w the weights are that a bound with a violation holds for.

    Raises:
        ValueError: the loss is logistic, or the ball that of the L2 norm.
    """
    if problem.loss != "hinge" or problem.norm == "2":
        raise ValueError(
            "exact=True needs the hinge in the L-infinity or the L1 ball: roots and logarithms are "
            "not rational"
        )
    if not isinstance(problem.x, np.ndarray):
        problem = replace(problem, x=problem.x.tocsc())  # which is read feature by feature
    total = sum(whole(problem.weights, unit := unit_of(problem.weights)).tolist())
    least = min(problem.weights[problem.weights > 0])
    floor = Fraction(float(least)) / (total * Fraction(2) ** unit) * (1 + problem.mirrored)
    primal, (dual, violation) = _primal(problem, w, b), _dual(problem, w, alpha, reach)
    return proof(primal, dual, violation, floor)


def proof(
    primal: Fraction, dual: Fraction, violation: Fraction, floor: Fraction
) -> dict[str, float]:
    """What `certificate` returns, rounded outwards; floor: the smallest share of a sample."""
    return dict(
        primal=rounded(primal, math.inf),
        dual=rounded(dual, -math.inf),
        gap=rounded((primal - dual) / max(primal, floor), math.inf),
        violation=rounded(violation, math.inf),
    )


def _primal(problem: Problem, w: np.ndarray, b: float) -> Fraction:
    """F(w, b). Margins and losses are whole multiples of 2^unit."""
    unit_x, unit_w = _unit_of_samples(problem), unit_of(w)
    eps, used = Fraction(problem.eps), np.flatnonzero(w)
    sizes = [abs(Fraction(float(one))) for one in w[used]]
    cost = eps * (max(sizes, default=Fraction(0)) if problem.norm == "1" else sum(sizes))
    once = Fraction(0)  # what is paid by all samples together
    if problem.budget == "mean":
        cost, once = once, cost
    unit = min(unit_x + unit_w, unit_of(np.array([b])), 0)
    if problem.box is None:  # a product of two float64 numbers, or a sum of such
        unit = min(unit, 1 - cost.denominator.bit_length())
    margins = np.full(len(problem.y), multiple(Fraction(b), unit), dtype=object)
    costs = np.full(len(problem.y), 0 if problem.box else multiple(cost, unit), dtype=object)
    shift = unit_x + unit_w - unit
    for j in used.tolist():
        rows, values = _column(problem.x, j)
        x, factor = whole(values, unit_x), whole(w[j], unit_w) << shift
        margins[rows] += x * factor
        if problem.box is not None:
            costs += _room(problem, j, x, unit_x, problem.y * np.sign(w[j])) * abs(factor)
    losses = np.maximum(multiple(Fraction(1), unit) - (problem.y.astype(int) * margins - costs), 0)
    weights = whole(problem.weights, unit_of(problem.weights))
    return Fraction(int(weights @ losses), int(weights.sum())) * Fraction(2) ** unit + once


def _dual(
    problem: Problem, w: np.ndarray, alpha: np.ndarray, reach: int
) -> tuple[Fraction, Fraction]:
    """The lower bound and the violation, of alpha cut and balanced.

    In `mass` alpha is a whole multiple of 2^unit / sum_i a_i, with a_i and their sum in the unit of
    the weights.
    """
    weights = whole(problem.weights, unit_of(problem.weights))
    total, unit = int(weights.sum()), min(unit_of(alpha), 0)
    mass = np.minimum(np.maximum(whole(alpha, unit), 0) * total, weights * 2**-unit)
    sums = np.array([mass[problem.y == sign].sum() for sign in (-1, 1)], dtype=object)
    if not sums.all():
        return Fraction(0), Fraction(0)
    mass *= sums[np.where(problem.y > 0, 0, 1)]  # times the sum of the other class: balanced
    scale = Fraction(2) ** unit / (total * max(sums))
    value = 2 * sums[0] * sums[1] * scale
    unit_x, d = _unit_of_samples(problem), problem.x.shape[1]
    scale_x = scale * Fraction(2) ** unit_x
    g = [one * scale_x for one in _sums(problem.x, problem.y.astype(int) * mass, unit_x)]
    sides = problem.x.max(axis=0), problem.x.min(axis=0)
    if not isinstance(problem.x, np.ndarray):
        sides = tuple(side.toarray().ravel() for side in sides)
    high, low = (map(Fraction, side.tolist()) for side in sides)
    ranges = [most - least for most, least in zip(high, low, strict=True)]
    allowed, zero = Fraction(problem.eps) * (1 if problem.budget == "mean" else value), Fraction(0)
    if problem.box is not None:
        misses, rows = [], np.flatnonzero(mass)
        for j in range(d):
            x = whole(problem.x[rows, j], unit_x)
            down, up = (  # against a positive weight, and against a negative one
                mass[rows] @ _room(problem, j, x, unit_x, problem.y[rows] * side) * scale_x
                for side in (1, -1)
            )
            misses.append(max(g[j] - down, -g[j] - up, zero))
    elif problem.norm == "inf":
        misses = [max(abs(one) - allowed, zero) for one in g]
    else:
        size = sum(map(abs, g), zero)
        share = 1 - allowed / size if size > allowed else zero
        misses = [abs(one) * share for one in g]
    shares = [miss / one for miss, one in zip(misses, ranges, strict=True) if one]
    violation = max(shares, default=zero)
    size = sum((abs(Fraction(float(v))) * r for v, r in zip(w, ranges, strict=True)), zero)
    return max(value - violation * reach * (size + 1), zero), violation


def _column(x: Any, j: int) -> tuple[Any, np.ndarray]:
    """Feature j of an array or a CSC array: which samples, and their numbers. The others are 0."""
    if isinstance(x, np.ndarray):
        return slice(None), x[:, j]
    part = slice(*x.indptr[j : j + 2])
    return x.indices[part], x.data[part]


def _sums(x: Any, mass: np.ndarray, unit: int) -> list[int]:
    """mass @ x of each feature, of whole numbers in mass, in units of 2^unit."""
    d = x.shape[1]
    if isinstance(x, np.ndarray):
        rows = np.flatnonzero(mass)
        parts = (x[rows, k : k + COLUMNS] for k in range(0, d, COLUMNS))
        return [one for part in parts for one in (mass[rows] @ whole(part, unit)).tolist()]
    columns = (_column(x, j) for j in range(d))
    return [int(mass[rows] @ whole(values, unit)) for rows, values in columns]


def _room(problem: Problem, j: int, x: np.ndarray, unit: int, against: np.ndarray) -> np.ndarray:
    """min(eps, distance to the box) of feature j, whole multiples of 2^unit, as x is.

    against: the sign of the weight times the label; where it is positive, x falls.
    """
    assert problem.box is not None
    eps = multiple(Fraction(problem.eps), unit)
    low, high = (
        multiple(Fraction(float(side[j])), unit) if np.isfinite(side[j]) else None
        for side in problem.box
    )
    down = np.full(len(x), eps, dtype=object) if low is None else np.minimum(x - low, eps)
    up = np.full(len(x), eps, dtype=object) if high is None else np.minimum(high - x, eps)
    return np.where(against > 0, down, up)


def _unit_of_samples(problem: Problem) -> int:
    """The k of `_unit` for X, and in a box for its sides and eps."""
    units = [min(unit_of(_column(problem.x, j)[1]) for j in range(problem.x.shape[1]))]
    if problem.box is not None:
        units += [unit_of(side[np.isfinite(side)]) for side in problem.box]
        units.append(unit_of(np.array([problem.eps])))
    return min(units)


def unit_of(values: np.ndarray) -> int:
    """A k such that all values are whole multiples of 2^k."""
    return int(np.frexp(values[values != 0])[1].min(initial=2000)) - 53


def whole(values: Any, unit: int) -> Any:
    """Values / 2^unit, as Python's whole numbers."""
    mantissa, exponent = np.frexp(values)
    whole = np.asarray(mantissa * 2.0**53).astype(np.int64).astype(object)
    shift = np.where(np.equal(values, 0), 0, exponent - 53 - unit)
    return whole << shift.astype(object)


def multiple(value: Fraction, unit: int) -> int:
    """value / 2^unit, which is a whole number."""
    quotient = value / Fraction(2) ** unit
    assert quotient.denominator == 1
    return quotient.numerator


def rounded(value: Fraction, towards: float) -> float:
    """The float64 number nearest to value on the side of `towards`."""
    try:
        found = float(value)
    except OverflowError:
        raise ValueError("the bounds overflow: scale X, w, b and eps to smaller numbers") from None
    wrong = Fraction(found) < value if towards > 0 else Fraction(found) > value
    return math.nextafter(found, towards) if wrong else found
