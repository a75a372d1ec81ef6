"""A primal-dual interior-point method for the least robust loss, in any ball and for either loss.

With weights c_i of the samples, an operator A, a linear map K and a cone C, it solves

    primal: min  sum_i c_i l(m_i) - f.theta    over theta with m = A theta and K theta in C    (1)
    dual:   max  sum_i c_i h(alpha_i / c_i)    over 0 <= alpha <= c and z in C
                                               with A^T alpha + f + K^T z = 0                  (2)

where l is the hinge and h(a) = a, or l is the logistic loss and h the entropy of a coin. Of several
classes a sample has several margins m, one over each rival, and the same holds with the losses of
joint/losses.py.

Each step solves Newton's equations of the conditions of optimality twice with one Cholesky factor:
first to predict how far the complementary products can fall, then to go there with the second-order
correction of Mehrotra (SIAM Journal on Optimization 2, 1992). `Newton` holds the equations of one
step, and `_step` takes it. Whatever there is one of for each sample is in a `Block` of them, which
also multiplies with their rows of A: so a step passes over A four times, and over one block after
the other. Numbers in brackets are equations of docs/theory.md, "The interior point", where all is
derived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np

from advlinear.minima import Array
from advlinear.minima.cones import Cone
from advlinear.minima.losses import Loss, SampleStep, Target
from advlinear.minima.operators import Operator

MOST_STEPS = 100
BOUNDARY_SHARE = 0.99  # of the way to the boundary is taken at most
SHORTEST_STEP = 1e-10  # the smallest step that is accepted
REFINEMENTS = 2
ALLOWED_RISE = 1e-12  # relative: a rise of the damped objective by no more is rounding


@dataclass(frozen=True)
class Point:
    """theta (p,) of an iterate, the dual variables alpha (n,) of margins and z (k,) of the cone."""

    theta: Array
    alpha: Array
    z: Array


def solve(
    operator: Operator,
    cone: Cone,
    linear_term: Array,
    start: Callable[[Array], Loss],
    theta: Array,
    stopping_rule: Callable[[Iterate, int], tuple[bool, float]],
    begin: Callable[..., tuple[Array, Samples]] | None = None,
) -> Point:
    """The iterate at which the rule stops, or the last one that rounding or MOST_STEPS allow.

    All its alpha are inside their bounds, and after a full step they keep the constraints up to
    rounding.

    Args:
        operator, cone: A, and K and C.
        linear_term: f (p,).
        start: makes the first state of the samples from their margins (n,).
        theta: (p,) with K theta inside the cone, from which to start.
        stopping_rule: given an iterate and its number, says whether to stop, and the smallest sum
            of complementary products that is wanted.
        begin: `in_memory`, or what takes its place for samples that are elsewhere.
    """
    return descend(
        operator,
        cone,
        linear_term,
        start_from(cone, *(begin or in_memory)(operator, start, theta)),  # no name keeps its memory
        stopping_rule,
    ).point


def descend(
    operator: Operator,
    cone: Cone,
    linear_term: Array,
    iterate: Iterate,
    stopping_rule: Callable[[Iterate, int], tuple[bool, float]],
) -> Iterate:
    """The last iterate of `solve`, from the first one.

    operator: for what does not depend on the samples.
    """
    for number in range(MOST_STEPS):
        stop, least_products = stopping_rule(iterate, number)
        if stop:
            break
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # they end it, too
                iterate = _step(Newton(operator, cone, linear_term, iterate), least_products)
        except np.linalg.LinAlgError:  # rounding leaves no way to go
            break
    return iterate


def in_memory(
    operator: Operator, start: Callable[[Array], Loss], theta: Array
) -> tuple[Array, Samples]:
    """theta, scaled down to margins of at most 1, and the samples at its margins."""
    margins = operator.matvec(theta)
    size = max(1.0, np.abs(margins).max())  # further off, losses are flat
    margins /= size
    return theta / size, Samples.of(operator, start(margins), margins)


@dataclass(frozen=True)
class Iterate:
    """All variables of an iterate. adjoint: A^T alpha (p,)."""

    theta: Array
    samples: Samples
    z: Array
    adjoint: Array

    @property
    def margins(self) -> Array:
        """A theta (n,)."""
        return self.samples.whole("margins")

    @property
    def alpha(self) -> Array:
        return self.samples.whole("alpha")

    @property
    def point(self) -> Point:
        return Point(self.theta, self.alpha, self.z)


def start_from(cone: Cone, theta: Array, samples: Samples) -> Iterate:
    """z is on the central path of the cone, at the mu of the samples, (27)."""
    samples, ((n_products, products, weight, adjoint), _) = samples.each(Block.start)
    mu = products / n_products if n_products else weight * np.log(2) / cone.degree
    z = mu * cone.barrier_gradient(cone.matvec(theta))
    return Iterate(theta, samples, z, adjoint)


def _step(newton: Newton, least_products: float) -> Iterate:
    """The next iterate. Raises LinAlgError: there is none, for rounding."""
    least_mu = least_products / newton.n_products
    predicted = newton.direction(0.0)
    primal, dual = newton.lengths(predicted, 1.0)
    left = newton.products_after(predicted, primal, dual)
    share = np.maximum(left / newton.products, 0)
    mu: float = share**3 * newton.products / newton.n_products  # (22)
    # At the least mu the step only centres. Else the corrected direction is tried first.
    if newton.damped:  # the samples need no correction, and their changes much memory
        predicted = replace(predicted, samples=newton.samples)
    corrections, mu = (predicted, None) if mu > least_mu else (None,), max(mu, least_mu)
    for correction in corrections:
        change = newton.direction(mu, correction)
        primal, dual = newton.lengths(change, BOUNDARY_SHARE)
        if newton.damped:
            primal = dual = newton.damped_length(change, mu, primal)
        if primal > 0:
            break
    if not np.isfinite(change.theta).all() or max(primal, dual) < SHORTEST_STEP:
        raise np.linalg.LinAlgError("no step is left")
    samples, ((mass, n_cut), _) = change.samples.each(Block.move, primal, dual)
    if not np.isfinite(mass):
        raise np.linalg.LinAlgError("alpha is not finite")
    adjoint = newton.adjoint + dual * change.adjoint
    if n_cut:  # then alpha is not where the step leads
        samples, ((adjoint,), _) = samples.each(Block.pull)
    theta, z = newton.theta + primal * change.theta, newton.z + dual * change.z
    return Iterate(theta, samples, z, adjoint)


# --- the samples ---------------------------------------------------------------------------------


class Summary(NamedTuple):
    """What is known of some samples: numbers and arrays that add up, and least numbers."""

    sums: tuple[Any, ...]
    least: tuple[float, ...] = ()

    def joined(self, other: Summary) -> Summary:
        """That of the samples of both."""
        sums = (one + two for one, two in zip(self.sums, other.sums, strict=True))
        return Summary(tuple(sums), tuple(map(min, self.least, other.least)))


@dataclass(frozen=True)
class Block:
    """Some samples: their rows of A, their state, and the step that is being made.

    Each method returns the block after it, and a `Summary` of it.

    Attributes:
        operator: their rows of A.
        state: of the samples; margins: (n,), to which `begin` brings the state.
        target: tau of (9), with what belongs to it.
        d_margins, change: A theta of the direction theta, and the step of the samples.
    """

    operator: Operator
    state: Loss
    margins: Array
    target: Target | None = None
    d_margins: Array | None = None
    change: SampleStep | None = None

    @property
    def alpha(self) -> Array:
        return self.state.alpha

    def start(self) -> tuple[Block, Summary]:
        """Sums: the number of products, the products, c, and A^T alpha."""
        state = self.state
        adjoint = self.operator.rmatvec(state.alpha)
        sums = state.n_products, state.products, state.sample_weight.sum(), adjoint
        return self, Summary(sums)

    def judge(self, theta: Array, tight: Array) -> tuple[Block, Summary]:
        """At `tight`, as of `Operator.tightened`. Sums: c l(m), c h(alpha / c), alpha. Least: m."""
        state, margins = self.state, self.operator.tightened(self.margins, theta, tight)
        sums = state.total(margins), state.dual_value, state.alpha.sum()
        return self, Summary(sums, (margins.min(),))

    def begin(self) -> tuple[Block, Summary]:
        """The target of the predictor.

        Sums: A^T D A, A^T alpha, A^T D tau, the products, and their number.
        """
        A, state = self.operator.loaded(), self.state.at(self.margins)
        D, target = state.curvature, state.target(0.0)
        towards = A.rmatvec(D.matvec(target.margins))
        sums = A.gram(D), A.rmatvec(state.alpha), towards, state.products, state.n_products
        return Block(self.operator, state, self.margins, target), Summary(sums)

    def aim(self, mu: float, corrected: bool) -> tuple[Block, Summary]:
        """The target of products mu; corrected: by the last step. Sums: A^T D tau."""
        state = self.state
        target = state.target(mu, self.change if corrected else None)
        towards = self.operator.rmatvec(state.curvature.matvec(target.margins))
        return Block(self.operator, state, self.margins, target), Summary((towards,))

    def follow(self, theta: Array, is_last: bool) -> tuple[Block, Summary]:
        """The step, (9). Sums: A^T d_alpha, of the last step. Least: both longest steps."""
        assert self.target is not None
        A = self.operator.loaded()
        d_margins = A.matvec(theta)
        change = self.state.step(self.target, d_margins)
        sums = (A.rmatvec(change.alpha),) if is_last else (0.0,)
        summary = Summary(sums, (change.longest_primal, change.longest_dual))
        return replace(self, d_margins=d_margins, change=change), summary

    def products_after(self, primal: float, dual: float) -> tuple[Block, Summary]:
        """Sums: the products after steps of these lengths."""
        assert self.change is not None
        return self, Summary((self.state.move(self.change, primal, dual).products,))

    def total_after(self, length: float) -> tuple[Block, Summary]:
        """Sums: c l(m) after a step of this length."""
        assert self.d_margins is not None
        return self, Summary((self.state.total(self.margins + length * self.d_margins),))

    def move(self, primal: float, dual: float) -> tuple[Block, Summary]:
        """The step is taken, with these lengths. Sums: alpha, and how many of it met a bound."""
        assert self.change is not None
        assert self.d_margins is not None
        state, margins = self.state.move(self.change, primal, dual), primal * self.d_margins
        margins += self.margins
        n_cut = np.count_nonzero(state.alpha != self.state.alpha + dual * self.change.alpha)
        return Block(self.operator, state, margins), Summary((state.alpha.sum(), n_cut))

    def pull(self) -> tuple[Block, Summary]:
        """Sums: A^T alpha."""
        return self, Summary((self.operator.rmatvec(self.state.alpha),))


Method = Callable[..., tuple[Block, Summary]]


class Samples:
    """All samples, in blocks, of which one is in work at a time."""

    def __init__(self, blocks: Sequence[Block]):
        self.blocks = blocks

    @classmethod
    def of(cls, operator: Operator, state: Loss, margins: Array) -> Self:
        """operator, state, margins: of all samples."""
        cut = list(operator.blocks())
        if len(cut) == 1:
            return cls([Block(operator, state, margins)])
        return cls([Block(one, state.part(rows), margins[rows]) for rows, one in cut])

    def each(self, method: Method, *args: Any) -> tuple[Self, Summary]:
        """The samples after a method of `Block`, and the summary of all."""
        blocks, whole = [], None
        for block in self.blocks:
            after, summary = method(block, *args)
            blocks.append(after)
            whole = summary if whole is None else whole.joined(summary)
        assert whole is not None
        return type(self)(blocks), whole

    def whole(self, name: str) -> Array:
        """An attribute (n,) of the blocks, of all samples."""
        parts = [getattr(block, name) for block in self.blocks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


# --- Newton's equations --------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """A solution of Newton's equations: the changes of all variables.

    Attributes:
        theta, s, z: the changes of these; samples: with those of their own.
        adjoint: A^T d_alpha (p,), but of the predictor.
        longest_primal, longest_dual: the longest steps of the samples.
    """

    theta: Array
    s: Array
    z: Array
    samples: Samples
    adjoint: Array
    longest_primal: float
    longest_dual: float


class Newton:
    """Newton's equations of the conditions of optimality, (4) to (7), at one iterate.

    Attributes:
        operator, cone, linear_term: of the problem: A, K with C, and f.
        theta, z: of the iterate; samples: at its margins; s: K theta (k,).
        gram: A^T D A with D of the samples; scaling: of the cone, at s and z.
        adjoint: A^T alpha (p,); towards: A^T D tau (p,) of the predictor.
        descent: A^T alpha + f (p,), along which the loss falls.
        residual: A^T alpha + f + K^T z (p,), 0 where (4) holds.
        products: the sum of all complementary products, (21); n_products: how many there are.
        inverse: solves the system (8).
        damped: alpha is a function of the margins, so that both take the same, damped step.
    """

    def __init__(self, operator: Operator, cone: Cone, linear_term: Array, iterate: Iterate):
        """Raises LinAlgError: the matrix of (8) is not finite."""
        self.operator, self.cone, self.linear_term = operator, cone, linear_term
        self.theta, self.z = iterate.theta, iterate.z
        self.s = cone.matvec(self.theta)
        self.samples, (sums, _) = iterate.samples.each(Block.begin)
        self.gram, self.adjoint, self.towards, products, n_products = sums
        self.descent = self.adjoint + linear_term
        self.residual = self.descent + cone.rmatvec(self.z)  # (4)
        self.products = products + np.float64(self.s @ self.z)  # (21)
        self.n_products = n_products + cone.degree
        self.scaling = cone.scaling(self.s, self.z)
        self.inverse = operator.solver(self.gram, self.scaling)
        self.damped = n_products == 0

    def direction(self, mu: float, predicted: Direction | None = None) -> Direction:
        """The solution with every complementary product at mu.

        predicted: the predictor, for whose second-order terms the right side corrects.
        """
        K, H, samples, towards = self.cone, self.scaling.hessian, self.samples, self.towards
        if mu > 0 and not self.damped:  # else tau is that of the predictor, (12)
            samples = samples if predicted is None else predicted.samples
            samples, ((towards,), _) = samples.each(Block.aim, mu, predicted is not None)
        g = self.scaling.complement(mu, None if predicted is None else (predicted.s, predicted.z))
        right = self.residual + towards + K.rmatvec(g)  # (8)
        theta = self.inverse(right)
        for _ in range(REFINEMENTS):  # of rounding in the Cholesky factor
            applied = self.operator.applied(self.gram, theta) + K.rmatvec(H(K.matvec(theta)))
            theta = theta + self.inverse(right - applied)
        s = K.matvec(theta)
        samples, ((adjoint,), longest) = samples.each(Block.follow, theta, mu > 0)  # (9)
        return Direction(theta, s, g - H(s), samples, adjoint, *longest)  # (10)

    def lengths(self, change: Direction, share: float) -> tuple[float, float]:
        """The lengths of the primal and the dual step: a share of the way to the boundary, (25)."""
        primal, dual = self.scaling.longest(change.s, change.z)
        primal, dual = min(primal, change.longest_primal), min(dual, change.longest_dual)
        if self.damped:
            primal = dual = min(primal, dual)
        return min(1.0, share * primal), min(1.0, share * dual)

    def products_after(self, change: Direction, primal: float, dual: float) -> np.float64:
        """The sum (21) after steps of these lengths."""
        left = np.float64((self.s + primal * change.s) @ (self.z + dual * change.z))
        if not self.damped:
            _, ((products,), _) = change.samples.each(Block.products_after, primal, dual)
            left += products
        return left

    def damped_length(self, change: Direction, mu: float, length: float) -> float:
        """The length, halved until the objective with the barrier, (26), does not rise.

        0 if the direction is not one of descent, which the second-order correction may cause.
        """
        slope = self.descent + mu * self.cone.rmatvec(self.cone.barrier_gradient(self.s))
        if not slope @ change.theta > 0:
            return 0.0
        here = self.objective(change, mu, 0.0)
        allowed = ALLOWED_RISE * abs(here)
        while length > SHORTEST_STEP and not self.objective(change, mu, length) - here <= allowed:
            length /= 2
        return length

    def objective(self, change: Direction, mu: float, length: float) -> float:
        """phi after a step of this length, (26)."""
        _, ((value,), _) = change.samples.each(Block.total_after, length)
        value -= float(self.linear_term @ (self.theta + length * change.theta))
        return float(value - mu * self.cone.barrier(self.s + length * change.s))
