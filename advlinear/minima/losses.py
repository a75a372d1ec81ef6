"""The losses: their values at margins, and Newton's equations of each sample.

A loss is a state of all samples at an iterate: alpha, and for the hinge the two variables that
complement it. Steps return a new state. Numbers in brackets are equations of docs/theory.md, "The
interior point".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Array
from advlinear.minima.cones import longest_step
from advlinear.minima.curvatures import Curvature, Diagonal


def hinge(margins: Array) -> Array:
    """max(0, 1 - m) of margins of any shape."""
    return np.maximum(0, 1 - margins)


def logistic(margins: Array) -> Array:
    """log(1 + exp(-m)) of margins of any shape, without overflow."""
    return np.logaddexp(0, -margins)


def losses_of(loss: str, margins: Array) -> Array:
    """The loss of this name, a key of `BY_NAME`, at margins of any shape."""
    return BY_NAME[loss].values(margins)


@dataclass(frozen=True)
class First:
    """Makes the state of the first iterate, of the loss of this name, from its margins (n,).

    alpha is half of c for the lighter class, with the same sum for the other class, (27).

    sums: of c (n,) where y (n,) is -1, and where it is 1, of all samples.
    """

    loss: str
    sample_weight: Array
    y: NDArray[Any]
    sums: tuple[float, float]

    @classmethod
    def of(cls, loss: str, sample_weight: Array, y: NDArray[Any]) -> Self:
        sums = [float(sample_weight[y == sign].sum()) for sign in (-1, 1)]
        negative, positive = sums if any(sums) else (1.0, 1.0)  # without a bias alpha is c / 2
        return cls(loss, sample_weight, y, (negative, positive))

    def part(self, rows: slice) -> Self:
        """That of some samples."""
        return replace(self, sample_weight=self.sample_weight[rows], y=self.y[rows])

    def __call__(self, margins: Array) -> Loss:
        sums = np.where(np.array(self.sums) > 0, self.sums, np.inf)  # a part may be of one class
        shares = 0.5 * sums.min() / sums
        alpha = self.sample_weight * np.where(self.y > 0, shares[1], shares[0])
        return BY_NAME[self.loss].start(self.sample_weight, alpha, margins)


class Target(NamedTuple):
    """What Newton's equations ask for if alpha stays: of margins, over and under, each (n,)."""

    margins: Array
    over: Array
    under: Array


class SampleStep(NamedTuple):
    """Changes of the state's variables, each (n,), and the longest steps that keep all bounds.

    rest: that of several classes; of two it is -alpha, and not stored.
    """

    alpha: Array
    over: Array
    under: Array
    longest_primal: float  # of over and under
    longest_dual: float  # of alpha and rest
    rest: Array | None = None


class Loss(Protocol):
    """What the interior point asks of a loss: the state of its samples at an iterate.

    Attributes:
        sample_weight: c (n,), positive.
        alpha: the dual variables, one of each margin.
        curvature: D, how much alpha falls per unit of the margins.
        n_products: how many complementary products the state has. 0: the loss is smooth, alpha is a
            function of the margins, and steps are damped by `total`.
        products: their sum.
        dual_value: the sum of c h(alpha / c), which alpha proves where it keeps the constraints.
    """

    @property
    def sample_weight(self) -> Array: ...
    @property
    def alpha(self) -> Array: ...
    @property
    def curvature(self) -> Curvature: ...
    @property
    def n_products(self) -> int: ...
    @property
    def products(self) -> np.float64: ...
    @property
    def dual_value(self) -> float: ...

    def part(self, rows: slice) -> Self:
        """The state of some samples before the first step, as views."""

    def total(self, margins: Array) -> float:
        """The sum of c l over the samples, at these margins."""

    def at(self, margins: Array) -> Self:
        """The state from which the next step starts, at these margins."""

    def target(self, mu: float, predicted: SampleStep | None = None) -> Target:
        """tau of (9), for products that are equal to mu.

        predicted: the predictor's step, for whose products the target then corrects.
        """

    def step(self, target: Target, d_margins: Array) -> SampleStep:
        """The whole step of the samples, from the change of the margins, by (9)."""

    def move(self, step: SampleStep, primal: float, dual: float) -> Self:
        """The state after a step of these two lengths."""


@dataclass(frozen=True)
class Hinge:
    """c max(0, 1 - m): m - 1 = over - under, alpha over = mu = (c - alpha) under, (6).

    rest: c - alpha, which is kept as it would be lost to rounding where alpha is near c.
    residual: by how much m - 1 = over - under does not yet hold.
    """

    sample_weight: Array
    alpha: Array
    rest: Array
    over: Array
    under: Array
    residual: Array | float = 0.0

    @staticmethod
    def start(sample_weight: Array, alpha: Array, margins: Array) -> Hinge:
        over = np.maximum(margins - 1, 0) + 1
        return Hinge(sample_weight, alpha, sample_weight - alpha, over, over - (margins - 1))

    def part(self, rows: slice) -> Hinge:
        every = self.sample_weight, self.alpha, self.rest, self.over, self.under
        return Hinge(*(one[rows] for one in every))

    @property
    def n_products(self) -> int:
        return 2 * len(self.alpha)

    @property
    def dual_value(self) -> float:
        return float(self.alpha.sum())

    @property
    def products(self) -> np.float64:
        return np.float64(self.alpha @ self.over + self.rest @ self.under)

    @cached_property
    def ratios(self) -> tuple[Array, Array]:
        """How much over falls, and under rises, per unit of alpha."""
        return self.over / self.alpha, self.under / self.rest

    @cached_property
    def curvature(self) -> Diagonal:
        over, under = self.ratios
        return Diagonal(1 / (over + under))  # (11)

    @staticmethod
    def values(margins: Array) -> Array:
        return hinge(margins)

    def total(self, margins: Array) -> float:
        return float(self.sample_weight @ hinge(margins))

    def at(self, margins: Array) -> Hinge:
        residual = margins - 1 - self.over + self.under
        return Hinge(self.sample_weight, self.alpha, self.rest, self.over, self.under, residual)

    def target(self, mu: float, predicted: SampleStep | None = None) -> Target:
        over, under = mu - self.alpha * self.over, mu - self.rest * self.under
        if predicted is not None:
            over -= predicted.alpha * predicted.over
            under += predicted.alpha * predicted.under
        over, under = over / self.alpha, under / self.rest  # (11)
        return Target(over - under - self.residual, over, under)

    def step(self, target: Target, d_margins: Array) -> SampleStep:
        d_alpha = self.curvature.matvec(target.margins - d_margins)
        over = target.over - self.ratios[0] * d_alpha  # (11)
        under = target.under + self.ratios[1] * d_alpha
        primal = min(longest_step(self.over, over), longest_step(self.under, under))
        dual = min(longest_step(self.alpha, d_alpha), longest_step(self.rest, -d_alpha))
        return SampleStep(d_alpha, over, under, primal, dual)

    def move(self, step: SampleStep, primal: float, dual: float) -> Hinge:
        alpha, rest = self.alpha + dual * step.alpha, self.rest - dual * step.alpha
        over, under = self.over + primal * step.over, self.under + primal * step.under
        return Hinge(self.sample_weight, alpha, rest, over, under)


@dataclass(frozen=True)
class Logistic:
    """c log(1 + exp(-m)): alpha = c / (1 + exp(m)), (7). It has no products of its own."""

    sample_weight: Array
    alpha: Array

    n_products = 0
    products = np.float64(0)

    @staticmethod
    def start(sample_weight: Array, alpha: Array, margins: Array) -> Logistic:
        return Logistic(sample_weight, alpha)

    def part(self, rows: slice) -> Logistic:
        return Logistic(self.sample_weight[rows], self.alpha[rows])

    @property
    def dual_value(self) -> float:
        kept = (self.alpha > 0) & (self.alpha < self.sample_weight)
        weight = self.sample_weight[kept]
        a = self.alpha[kept] / weight
        return float(-weight @ (a * np.log(a) + (1 - a) * np.log1p(-a)))

    @property
    def curvature(self) -> Diagonal:
        return Diagonal(self.alpha * (1 - self.alpha / self.sample_weight))  # (12)

    @staticmethod
    def values(margins: Array) -> Array:
        return logistic(margins)

    def total(self, margins: Array) -> float:
        return float(self.sample_weight @ logistic(margins))

    def at(self, margins: Array) -> Logistic:
        return Logistic(self.sample_weight, self.sample_weight / (1 + np.exp(margins)))

    def target(self, mu: float, predicted: SampleStep | None = None) -> Target:
        none = np.broadcast_to(0.0, self.alpha.shape)  # which takes no memory
        return Target(none, none, none)

    def step(self, target: Target, d_margins: Array) -> SampleStep:
        d_alpha = self.curvature.matvec(target.margins - d_margins)
        return SampleStep(d_alpha, target.over, target.under, np.inf, np.inf)

    def move(self, step: SampleStep, primal: float, dual: float) -> Logistic:
        """alpha moves linearly, for a proof: that of the new margins would miss the constraints."""
        alpha = np.clip(self.alpha + dual * step.alpha, 0, self.sample_weight)
        return Logistic(self.sample_weight, alpha)


BY_NAME: dict[str, type[Hinge] | type[Logistic]] = {"hinge": Hinge, "logistic": Logistic}
