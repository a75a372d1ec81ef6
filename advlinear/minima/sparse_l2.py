"""Sparse X in the L2 ball, by products with X and its Gram matrix on the samples in use.

The robust logistic loss is smooth where w is not 0, and Newton's method (newton.py) finds its
minimum. The hinge goes through ordinary support vector machines

    min  sum_i c_i max(0, 1 - y_i (w.x_i + b)) + penalty ||w||^2 / 2

whose alpha proves a bound at the radius r = ||sum_i alpha_i y_i x_i|| / sum_i alpha_i; with a
budget for all samples at r = ||sum_i alpha_i y_i x_i||, of shares c_i. r rises with the penalty,
which is changed until r is eps. Mixtures of an alpha of a smaller and one of a larger
radius prove the bound at eps. docs/theory.md, "Wide and sparse samples in the L2 ball", has it all.
Each machine is solved by the augmented Lagrangian method: its losses are those of `Smoothed`, whose
centre moves to the alpha that was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from advlinear.minima import Array, certificate, newton, program
from advlinear.samples import Problem

MOST_MACHINES = 80  # machines
MOST_UNTRUSTED = 8  # machines in a row, before the search is given up
SHARPER = 3.0  # by which the smoothed hinge is sharper in each round
SHARPEST = 1e5
TRUSTED = 0.1  # of |log(r / eps)|: the gap of a machine below which its r says how to go on
ELASTICITY = 0.3  # of r in the penalty, as first assumed
SLACK = 1e-6  # of an elasticity, for rounding
FLATTEST = 0.01  # the smallest elasticity
LONGEST = np.log(10)  # the largest change of log(penalty)
ACROSS = 0.1  # the share of the last error of log r by which the next one is to be beyond eps
KEPT = 8  # pieces
LOOSEST_MACHINE, OF_GAP = 1e-3, 1e-2  # its error: at most so much, and a share of the gap
MOST_INSIDE = 0.1  # of tol: by that share of eps a smaller ball is solved for at most


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them; x is a CSR array.

    eps and all weights are above 0.
    """
    search = Search(problem, tol, report)
    inside = program.INSIDE * tol
    while True:
        found = search.logistic(inside) if problem.loss == "logistic" else search.hinge(inside)
        inside *= 10
        if found[-1]["violation"] == 0 or inside > MOST_INSIDE * tol:
            return found


class Smoothed:
    """The hinge, smoothed: max over 0 <= a <= c of a (1 - m) - (a - centre)^2 / (2 sharpness c)."""

    def __init__(self, c: Array, centre: Array, sharpness: float):
        self.c, self.centre, self.slope = c, centre, sharpness * c

    def _raw(self, margins: Array) -> Array:
        return self.centre + self.slope * (1 - margins)

    def total(self, margins: Array) -> tuple[float, Array]:
        alpha = np.clip(self._raw(margins), 0, self.c)
        away = alpha - self.centre
        return float(alpha @ (1 - margins) - away @ (away / self.slope) / 2), alpha

    def curvature(self, margins: Array) -> Array:
        raw = self._raw(margins)
        return np.where((raw > 0) & (raw < self.c), self.slope, 0.0)


class Logistic:
    """c log(1 + exp(-m))."""

    def __init__(self, c: Array):
        self.c = c

    def total(self, margins: Array) -> tuple[float, Array]:
        alpha = self.c * np.exp(-np.logaddexp(0, margins))
        return float(self.c @ np.logaddexp(0, -margins)), alpha

    def curvature(self, margins: Array) -> Array:
        return self.c * np.exp(-np.logaddexp(0, margins) - np.logaddexp(0, -margins))


@dataclass(frozen=True)
class Piece:
    """A balanced alpha (n,), its pull sum_i alpha_i y_i x_i (d,), and its sum.

    n: with a budget for all samples how many they are; else 0.
    """

    alpha: Array
    pull: Array
    total: float
    n: int = 0

    @property
    def mass(self) -> float:
        """The length of the pull, at most eps times this, proves the bound."""
        return self.n or self.total

    @property
    def radius(self) -> float:
        return float(np.linalg.norm(self.pull)) / self.mass if self.mass > 0 else np.inf


class Search:
    """The minimum of one problem. c: (n,) the shares times n."""

    def __init__(self, problem: Problem, tol: float, report: Callable[[str], object] | None):
        self.problem, self.tol, self.report = problem, tol, report
        self.samples = newton.Samples(problem.x, problem.y)
        self.n = len(problem.y)
        self.c = problem.weights / problem.weights.sum() * self.n
        self.lightest = float(self.c.min())
        ones = problem.y > 0
        self.sums = self.c[ones].sum(), self.c[~ones].sum()
        # Of all balanced alpha that are the same in a class, which w = 0 has.
        self.central = self.c * min(self.sums) / np.where(ones, *self.sums)
        self.gram: newton.Gram | None = None
        self.shares_budget = problem.budget == "mean"

    def proved(self, w: Array, b: float, alpha: Array) -> tuple:
        alpha = alpha / self.n
        return w, b, alpha, certificate.bounds(self.problem, w, b, alpha)

    def without_weights(self) -> tuple[float, float]:
        """The best bias without weights, and its loss times n."""
        odds = self.sums[0] / self.sums[1]
        if self.problem.loss == "hinge":
            return float(np.sign(odds - 1)), 2 * min(self.sums)
        share = self.sums[0] / self.n
        return float(np.log(odds)), -self.n * (
            share * np.log(share) + (1 - share) * np.log1p(-share)
        )

    def say(self, number: int, loss: float, gap: float) -> None:
        if self.report:
            self.report(f"{self.n} samples, step {number}: loss {loss:.7f}, gap {gap:.1e}")

    def separating(self, w: Array, b: float, scores: Array) -> tuple | None:
        """The proof of the loss (near) 0, if all worst-case margins of (w, b) are positive."""
        margins = self.problem.y * (scores + b) - self.problem.eps * np.linalg.norm(w)
        if self.shares_budget or not margins.min() > 0:
            return None
        enough = 1 + program.INSIDE * self.tol
        if self.problem.loss == "logistic":
            enough = np.log(2 * self.n / (self.lightest * self.tol))
        factor = max(1.0, enough / margins.min())
        return self.proved(w * factor, b * factor, np.zeros(self.n))

    def start(self, eps: float) -> tuple[Piece, tuple | None]:
        """The piece of `central`, and the proof that no weights are best, if it is one."""
        alpha = self.central
        if self.problem.loss == "logistic":
            alpha = alpha * max(self.sums) / self.n
        piece = self.piece_of(alpha)
        if piece.radius > eps:
            return piece, None
        b, _ = self.without_weights()
        return piece, self.proved(np.zeros(len(piece.pull)), b, alpha)

    # --- the logistic loss -----------------------------------------------------------------------

    def logistic(self, inside: float) -> tuple:
        """Newton's method on the robust loss itself, from the difference of the class means."""
        eps = self.problem.eps * (1 - inside)
        piece, found = self.start(eps)
        if found:
            return found
        w = piece.pull * (2 * piece.total / (piece.pull @ piece.pull))
        loss = Logistic(self.c)
        price, cost = (0.0, self.n * eps) if self.shares_budget else (eps, 0.0)
        state = newton.minimise(
            self.samples, loss, price, cost, 0.0, w, self.problem.x @ w, 0.1 * inside, None
        )
        found = self.separating(state.w, state.b, state.scores)
        return found or self.proved(state.w, state.b, state.alpha)

    # --- the hinge -------------------------------------------------------------------------------

    def hinge(self, inside: float) -> tuple:
        """Support vector machines, one after the other, until a mixture of alphas proves eps."""
        eps = self.problem.eps * (1 - inside)
        piece, found = self.start(eps)
        if found:
            return found
        self.gram = self.gram or newton.Gram(self.samples)
        bias, largest = self.without_weights()
        best = largest, np.zeros(len(piece.pull)), bias
        pieces: list[Piece] = []
        alpha, dual, proof = piece.alpha, 0.0, np.zeros(self.n)
        penalty = float(piece.pull @ piece.pull) / (2 * piece.total)
        w = piece.pull / penalty
        scores = self.problem.x @ w
        sharpness, gap, untrusted = 1.0, 1.0, 0
        penalties = Penalties(penalty)
        for number in range(MOST_MACHINES):
            loss = Smoothed(self.c, alpha, sharpness)
            exact = min(LOOSEST_MACHINE, OF_GAP * gap)
            known = self.samples, loss, 0.0, 0.0, penalty
            state = newton.minimise(*known, w, scores, exact, self.gram)
            w, scores, alpha = state.w, state.scores, state.alpha
            found = self.separating(w, state.b, scores)
            if found:
                return found
            best = min(best, self.robust(state), key=lambda one: one[0])
            piece = self.piece(alpha)
            pieces = [*pieces[-KEPT:], piece]
            for other in pieces:
                mixed, total = mixture(piece, other, eps)
                if total > dual:
                    dual, proof = total, mixed
            gap = (best[0] - dual) / max(best[0], self.lightest)
            self.say(number, best[0] / self.n, gap)
            if gap <= self.tol / 2:
                break
            away = np.log(piece.radius / eps)
            sharpness = min(sharpness * SHARPER, SHARPEST)
            trusted = self.machine_gap(state, penalty) <= TRUSTED * min(abs(away), 1)
            untrusted = 0 if trusted else untrusted + 1
            if untrusted == MOST_UNTRUSTED:
                break
            if trusted and piece.total > 0:
                step = penalties.move(away)
                penalty *= np.exp(step)
                sharpness = min(sharpness, SHARPER / max(abs(step), SHARPER / SHARPEST))
        if largest - best[0] <= self.tol / 4 * max(best[0], self.lightest):
            best = largest, np.zeros(len(w)), bias
        return self.proved(*best[1:], proof)

    def robust(self, state: newton.Found) -> tuple[float, Array, float]:
        """The robust loss times n of a machine's weights, scaled for eps, and these weights."""
        size = self.problem.eps * float(np.linalg.norm(state.w))
        plain = float(self.c @ np.maximum(0, 1 - self.problem.y * (state.scores + state.b)))
        if self.shares_budget:
            return plain + self.n * size, state.w, state.b
        shrunk = 1 - size
        if not shrunk > 0:
            return np.inf, state.w, state.b
        return plain / shrunk, state.w / shrunk, state.b / shrunk

    def machine_gap(self, state: newton.Found, penalty: float) -> float:
        """The relative duality gap of a machine itself, whose w is the pull of alpha / penalty."""
        plain = float(self.c @ np.maximum(0, 1 - self.problem.y * (state.scores + state.b)))
        square = penalty * float(state.w @ state.w)
        return abs(plain + square - state.alpha.sum()) / (plain + square / 2)

    def piece(self, alpha: Array) -> Piece:
        """alpha, with the class of the larger sum scaled down to the other."""
        ones = self.problem.y > 0
        sums = alpha[ones].sum(), alpha[~ones].sum()
        return self.piece_of(
            alpha * np.where(ones, *(min(sums) / max(one, 1e-300) for one in sums))
        )

    def piece_of(self, alpha: Array) -> Piece:
        pull, total = self.samples.transposed @ (self.problem.y * alpha), float(alpha.sum())
        return Piece(alpha, pull, total, self.n * self.shares_budget)


def mixture(one: Piece, other: Piece, eps: float) -> tuple[Array, float]:
    """The mixture of two pieces with the largest sum that proves its bound at eps; and its sum."""
    low, high = (one, other) if one.total <= other.total else (other, one)
    if high.radius <= eps:
        return high.alpha, high.total
    if low.radius > eps:
        low = Piece(0 * low.alpha, 0 * low.pull, 0.0, low.n)
    # ||low + t (high - low)|| = eps (its mass): a quadratic equation in t
    pull, mass = high.pull - low.pull, high.mass - low.mass
    a = pull @ pull - (eps * mass) ** 2
    half = low.pull @ pull - eps**2 * low.mass * mass
    constant = low.pull @ low.pull - (eps * low.mass) ** 2
    root = np.sqrt(np.maximum(half * half - a * constant, 0))
    share = -constant / (half + root) if half + root > 0 else 0.0
    share = float(np.clip(share, 0, 1))
    total = low.total + share * (high.total - low.total)
    return low.alpha + share * (high.alpha - low.alpha), total


class Penalties:
    """The penalties of the machines, in logarithms, and log(r / eps) of those that are trusted.

    log r rises with log(penalty), by at most as much: what a sharper machine shows to be wrong is
    forgotten.
    """

    def __init__(self, penalty: float):
        self.here = float(np.log(penalty))
        self.path: list[tuple[float, float]] = []
        self.widths = [np.inf, np.inf]  # between penalties on both sides of eps

    def move(self, away: float) -> float:
        """The step to the next penalty, by the secant rule, with bisection where it is slow.

        away: log(r / eps) here.
        """
        x = self.here
        self.path = [
            one
            for one in self.path
            if one[0] != x and -SLACK <= (one[1] - away) / (one[0] - x) <= 1
        ]
        elasticity = ELASTICITY
        if self.path:
            z, before = self.path[-1]
            elasticity = max((away - before) / (x - z), FLATTEST)
        self.path.append((x, away))
        wanted = x + min(max(-(1 + ACROSS) * away / elasticity, -LONGEST), LONGEST)
        low = max((x for x, f in self.path if f < 0), default=-np.inf)
        high = min((x for x, f in self.path if f > 0), default=np.inf)
        self.widths.append(high - low)
        slow = self.widths[-1] > self.widths[-3] / 2
        if np.isfinite(high - low) and (slow or not low < wanted < high):
            wanted = (low + high) / 2
        self.here = float(wanted)
        return self.here - x
