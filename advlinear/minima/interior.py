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
step, and `_step` takes it. Numbers in brackets are equations of docs/theory.md, "The interior
point", where all is derived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from advlinear.minima import Array
from advlinear.minima.cones import Cone
from advlinear.minima.losses import Loss, SampleStep
from advlinear.minima.operators import Operator

MOST_STEPS = 100
BOUNDARY_SHARE = 0.99  # of the way to the boundary is taken at most
SHORTEST_STEP = 1e-10  # the smallest step that is accepted
REFINEMENTS = 2
ALLOWED_RISE = 1e-12  # relative: a rise of the damped objective by no more is rounding


@dataclass(frozen=True)
class Point:
    """An iterate: theta (p,), the dual variables alpha (n,) of margins and z (k,) of the cone."""

    theta: Array
    alpha: Array
    z: Array


def solve(
    operator: Operator,
    cone: Cone,
    linear_term: Array,
    start: Callable[[Array], Loss],
    theta: Array,
    stopping_rule: Callable[[Point, int], tuple[bool, float]],
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
    """
    theta = theta / max(1.0, np.abs(operator.matvec(theta)).max())  # further off, losses are flat
    iterate = _start(cone, theta, start(operator.matvec(theta)))
    n_products = iterate.state.n_products + cone.degree
    for number in range(MOST_STEPS):
        stop, least_products = stopping_rule(iterate.point, number)
        if stop:
            break
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # they end it, too
                newton = Newton(operator, cone, linear_term, iterate)
                iterate = _step(newton, least_products / n_products)
        except np.linalg.LinAlgError:  # rounding leaves no way to go
            break
    return iterate.point


@dataclass(frozen=True)
class Iterate:
    """A `Point` with the whole state of the samples, of which alpha is a part."""

    theta: Array
    state: Loss
    z: Array

    @property
    def point(self) -> Point:
        return Point(self.theta, self.state.alpha, self.z)


def _start(cone: Cone, theta: Array, state: Loss) -> Iterate:
    """z is on the central path of the cone, at the mu of the samples, (27)."""
    if state.n_products:
        mu = state.products / state.n_products
    else:
        mu = state.sample_weight.sum() * np.log(2) / cone.degree
    return Iterate(theta, state, mu * cone.barrier_gradient(cone.matvec(theta)))


def _step(newton: Newton, least_mu: float) -> Iterate:
    """The next iterate. Raises LinAlgError: there is none, for rounding."""
    predicted = newton.direction(0.0)
    primal, dual = newton.lengths(predicted, 1.0)
    left = newton.products_after(predicted, primal, dual)
    share = np.maximum(left / newton.products, 0)
    mu: float = share**3 * newton.products / newton.n_products  # (22)
    # At the least mu the step only centres. Else the corrected direction is tried first.
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
    state = newton.state.move(change.samples, primal, dual)
    if not np.isfinite(state.alpha.sum()):
        raise np.linalg.LinAlgError("alpha is not finite")
    return Iterate(newton.theta + primal * change.theta, state, newton.z + dual * change.z)


@dataclass(frozen=True)
class Direction:
    """A solution of Newton's equations: the changes of all variables."""

    theta: Array
    margins: Array
    s: Array
    z: Array
    samples: SampleStep


class Newton:
    """Newton's equations of the conditions of optimality, (4) to (7), at one iterate.

    Attributes:
        operator, cone, linear_term: of the problem: A, K with C, and f.
        theta, z: of the iterate; state: of its samples, at the margins.
        margins, s: A theta (n,) and K theta (k,).
        descent: A^T alpha + f (p,), along which the loss falls.
        residual: A^T alpha + f + K^T z (p,), 0 where (4) holds.
        products: the sum of all complementary products, (21); n_products: how many there are.
        curvature: D of the samples; scaling: of the cone, at s and z.
        inverse: solves the system (8).
        damped: alpha is a function of the margins, so that both take the same, damped step.
    """

    def __init__(self, operator: Operator, cone: Cone, linear_term: Array, iterate: Iterate):
        """Raises LinAlgError: the matrix of (8) is not finite."""
        self.operator, self.cone, self.linear_term = operator, cone, linear_term
        self.theta, self.z = iterate.theta, iterate.z
        self.margins, self.s = operator.matvec(self.theta), cone.matvec(self.theta)
        self.state = iterate.state.at(self.margins)
        self.descent = operator.rmatvec(self.state.alpha) + linear_term
        self.residual = self.descent + cone.rmatvec(self.z)  # (4)
        self.products = self.state.products + np.float64(self.s @ self.z)  # (21)
        self.n_products = self.state.n_products + cone.degree
        self.curvature, self.scaling = self.state.curvature, cone.scaling(self.s, self.z)
        self.inverse = operator.newton_solver(self.curvature, self.scaling)
        self.damped = self.state.n_products == 0

    def direction(self, mu: float, predicted: Direction | None = None) -> Direction:
        """The solution with every complementary product at mu.

        predicted: the predictor, for whose second-order terms the right side corrects.
        """
        A, K, D, H = self.operator, self.cone, self.curvature, self.scaling.hessian
        if predicted is None:
            tau, g = self.state.target(mu), self.scaling.complement(mu)
        else:
            tau = self.state.target(mu, predicted.samples)
            g = self.scaling.complement(mu, (predicted.s, predicted.z))
        right = self.residual + A.rmatvec(D.matvec(tau.margins)) + K.rmatvec(g)  # (8)
        theta = self.inverse(right)
        for _ in range(REFINEMENTS):  # of rounding in the Cholesky factor
            applied = A.rmatvec(D.matvec(A.matvec(theta)))
            applied += K.rmatvec(H(K.matvec(theta)))
            theta = theta + self.inverse(right - applied)
        margins, s = A.matvec(theta), K.matvec(theta)
        z = g - H(s)  # (10)
        return Direction(theta, margins, s, z, self.state.step(tau, margins))  # (9)

    def lengths(self, change: Direction, share: float) -> tuple[float, float]:
        """The lengths of the primal and the dual step: a share of the way to the boundary, (25)."""
        primal, dual = self.scaling.longest(change.s, change.z)
        primal = min(primal, change.samples.longest_primal)
        dual = min(dual, change.samples.longest_dual)
        if self.damped:
            primal = dual = min(primal, dual)
        return min(1.0, share * primal), min(1.0, share * dual)

    def products_after(self, change: Direction, primal: float, dual: float) -> np.float64:
        """The sum (21) after steps of these lengths."""
        samples = self.state.move(change.samples, primal, dual).products
        return samples + np.float64((self.s + primal * change.s) @ (self.z + dual * change.z))

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
        value = self.state.total(self.margins + length * change.margins)
        value -= float(self.linear_term @ (self.theta + length * change.theta))
        return float(value - mu * self.cone.barrier(self.s + length * change.s))
