"""The bounds of advlinear/minima/joint/certificate.py without rounding, in whole numbers.

For the hinge in the L-infinity ball, as advlinear/minima/rational.py has them for two classes.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np

from advlinear.minima.joint.certificate import balance, between, cut
from advlinear.minima.rational import COLUMNS, multiple, proof, unit_of, whole
from advlinear.minima.rounding import REACH
from advlinear.samples import JointProblem


def bounds(problem: JointProblem, W: np.ndarray, b: np.ndarray, alpha: np.ndarray) -> dict:
    """What `certificate` returns with `exact` of K > 2 classes, of finite float64 numbers.

    Raises:
        ValueError: the loss is logistic, or the ball not that of the L-infinity norm.
    """
    if problem.loss != "hinge" or problem.norm != "inf":
        raise ValueError(
            "exact=True needs the hinge in the L-infinity ball for more than two classes: leave it "
            "out for the others"
        )
    weights = whole(problem.weights, unit_of(problem.weights))
    total = int(weights.sum())
    floor = Fraction(min(weights[weights > 0]), total)
    primal, (dual, violation) = _primal(problem, W, b), _dual(problem, W, alpha, weights)
    return proof(primal, dual, violation, floor)


def _primal(problem: JointProblem, W: np.ndarray, b: np.ndarray) -> Fraction:
    """F(W, b). Scores, costs and losses are whole multiples of 2^unit."""
    K, used = len(W), np.flatnonzero(W.any(axis=0))
    unit_x, unit_w = unit_of(problem.x[:, used]), unit_of(W)
    unit = min(unit_x + unit_w, unit_w + unit_of(np.array([problem.eps])), unit_of(b), 0)
    scores = np.tile(whole(b, unit), (len(problem.y), 1))
    weights = whole(W, unit_w)
    for j in used.tolist():
        x = whole(problem.x[:, j], unit_x) << (unit_x + unit_w - unit)
        for k in np.flatnonzero(W[:, j]).tolist():
            scores[:, k] += x * weights[k, j]
    costs = np.zeros((K, K), dtype=object)
    for p, q in combinations(range(K), 2):
        size = Fraction(problem.eps) * int(np.abs(weights[p] - weights[q]).sum())
        costs[p, q] = costs[q, p] = multiple(size * Fraction(2) ** unit_w, unit)
    own = np.take_along_axis(scores, problem.y[:, None], axis=1)
    margins = own - scores - costs[problem.y]
    losses = multiple(Fraction(1), unit) - margins
    losses[np.arange(len(problem.y)), problem.y] = 0
    shares = whole(problem.weights, unit_of(problem.weights))
    return Fraction(int(shares @ losses.max(axis=1)), int(shares.sum())) * Fraction(2) ** unit


def _dual(
    problem: JointProblem, W: np.ndarray, alpha: np.ndarray, weights: np.ndarray
) -> tuple[Fraction, Fraction]:
    """The lower bound and the violation, of alpha cut and balanced.

    In `mass` alpha is a whole multiple of 2^unit / sum_i a_i, with a_i, the weights, and their sum
    in the same unit.
    """
    (n, d), K = problem.x.shape, len(W)
    total, unit = int(weights.sum()), min(unit_of(alpha), 0)
    mass = np.maximum(whole(alpha, unit), 0) * total
    mass[np.arange(n), problem.y] = 0
    cut(mass, weights * 2**-unit)
    balance(mass, problem.y)
    scale = Fraction(2) ** unit / total
    value = int(mass.sum()) * scale
    if not value:
        return Fraction(0), Fraction(0)
    masses = between(mass, problem.y)
    unit_x = min(unit_of(problem.x), unit_of(np.array([problem.eps])))
    G = np.zeros((K, d), dtype=object)
    used = np.flatnonzero(mass.any(axis=1))
    of_pair = [
        (p, k, np.flatnonzero((problem.y[used] == p) & (mass[used, k] > 0)))
        for p, k in np.argwhere(masses > 0)
    ]
    for j in range(0, d, COLUMNS):
        block = slice(j, j + COLUMNS)
        x = whole(problem.x[used, block], unit_x)
        for p, k, rows in of_pair:
            moved = mass[used[rows], k] @ x[rows]
            G[p, block] += moved
            G[k, block] -= moved
    misses = _misses(masses + masses.T, G, multiple(Fraction(problem.eps), unit_x))
    ranges = [
        Fraction(high) - Fraction(low)
        for high, low in zip(
            problem.x.max(axis=0).tolist(), problem.x.min(axis=0).tolist(), strict=True
        )
    ]
    unit_of_G = scale * Fraction(2) ** unit_x
    shares = [miss * unit_of_G / one for miss, one in zip(misses, ranges, strict=True) if one]
    violation = max(shares, default=Fraction(0))
    spread = [
        Fraction(high) - Fraction(low)
        for high, low in zip(W.max(axis=0).tolist(), W.min(axis=0).tolist(), strict=True)
    ]
    size = sum(map(Fraction.__mul__, spread, ranges), Fraction(0))
    return max(value - violation * REACH * (size + 1), Fraction(0)), violation


def _misses(A: np.ndarray, G: np.ndarray, eps: int) -> list:
    """By how much |sum of G| exceeds eps times the mass A between, at most, over sets; (d,).

    Each set of the first K - 1 classes differs from the one before by one class (a Gray code).
    """
    K, d = G.shape
    inside, sums, crossed = np.zeros(K, dtype=bool), np.zeros(d, dtype=object), 0
    misses = np.zeros(d, dtype=object)
    for step in range(1, 2 ** (K - 1)):
        p = (step & -step).bit_length() - 1
        sign = -1 if inside[p] else 1
        inside[p] = False
        crossed += sign * int(A[p, ~inside].sum() - A[p, inside].sum())  # A[p, p] is 0
        inside[p] = sign > 0
        sums = sums + sign * G[p]
        misses = np.maximum(misses, np.abs(sums) - eps * crossed)
    return misses.tolist()
