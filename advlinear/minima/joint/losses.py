"""The losses of samples with several options: their values, and Newton's equations of each sample.

As in losses.py of two classes, a loss is a state of all samples at an iterate. There are R options
(rows) of n samples: margins and alpha are (R,), weights and what is left of them (n,). Numbers in
brackets are equations of docs/theory.md, "The interior point".
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from advlinear.minima import Array, Indices
from advlinear.minima.cones import longest_step
from advlinear.minima.curvatures import GRAM_BLOCK
from advlinear.minima.losses import Loss, SampleStep, Target
from advlinear.minima.program import INSIDE

LEAST_SUM = np.finfo(np.float64).tiny  # above a sum of d that underflows to 0


@dataclass(frozen=True)
class Options:
    """Which sample each option belongs to.

    sample: (R,) indices of samples in rising order, in which each of 0 to n - 1 occurs.
    """

    sample: Indices

    @cached_property
    def starts(self) -> Indices:
        """The first option (n,) of each sample."""
        return np.flatnonzero(np.diff(self.sample, prepend=-1))

    def sum(self, values: Array) -> Array:
        """The sums (n, ...) of values (R, ...) over the options of each sample."""
        return np.add.reduceat(values, self.starts, axis=0)

    def least(self, values: Array) -> Array:
        """The least (n,) of values (R,) among the options of each sample."""
        return np.minimum.reduceat(values, self.starts)


def hinge(options: Options, margins: Array) -> Array:
    """max(0, 1 - m) (n,) of the least margin of each sample."""
    return np.maximum(0, 1 - options.least(margins))


def logistic(options: Options, margins: Array) -> Array:
    """log(1 + sum exp(-m)) (n,) over the options of each sample, without overflow."""
    low = np.minimum(options.least(margins), 0)
    sums = options.sum(np.exp(low[options.sample] - margins))
    return np.log1p(sums + np.expm1(low)) - low


def losses_of(loss: str, options: Options, margins: Array) -> Array:
    """The losses (n,) of this name at margins (R,)."""
    return dict(hinge=hinge, logistic=logistic)[loss](options, margins)


def large_margin(loss: str, n_classes: int, sample_weight: Array, tol: float) -> float:
    """A margin from which on the loss is 0, or near enough for a duality gap of tol.

    sample_weight: (n,), of any sum.
    """
    if loss == "hinge":
        return 1 + INSIDE * tol
    used = sample_weight[sample_weight > 0]
    return float(np.log(2 * (n_classes - 1) * used.sum() / (used.min() * tol)))


def best_biases(loss: str, masses: np.ndarray) -> Array:
    """b (K,) of the least loss with W = 0, from the sum of weights (K,) of each class, (42)."""
    return np.log(masses) if loss == "logistic" else 1.0 * (masses > masses.sum() / 2)


def dual_value(loss: str, options: Options, sample_weight: Array, alpha: Array) -> float:
    """What alpha (R,) proves where it is within its constraints: its sum, or for the logistic loss
    sum_i c_i H(alpha_i / c_i), with the entropy H of alpha_i / c_i and what is left of 1."""
    if loss == "hinge":
        return float(alpha.sum())
    parts = np.append(alpha / sample_weight[options.sample], 1 - options.sum(alpha) / sample_weight)
    weights = np.append(sample_weight[options.sample], sample_weight)
    kept = parts > 0
    return float(-weights[kept] @ (parts[kept] * np.log(parts[kept])))


def first_state(
    loss: str, sample_weight: Array, options: Options, own: Indices, rival: Indices, margins: Array
) -> Loss:
    """The state of the first iterate, of the loss of this name, at these margins (R,).

    alpha is c / 2 times the share of the rival in the sum of all c. With all options of all
    samples, each class then has the same sum of alpha as own class and as rival, (37).

    Args:
        sample_weight: c (n,), positive.
        own, rival: (R,) the classes of each option.
    """
    n_classes = max(own.max(), rival.max()) + 1
    masses = np.bincount(own[options.starts], sample_weight, n_classes)
    masses[masses == 0] = masses.mean() / 2  # of a rival without samples: alpha is to be above 0
    alpha = 0.5 * sample_weight[options.sample] * masses[rival] / sample_weight.sum()
    states: dict[str, type[Hinge] | type[Logistic]] = dict(hinge=Hinge, logistic=Logistic)
    return states[loss].start(options, sample_weight, alpha, margins)


@dataclass(frozen=True)
class Coupled:
    """D of samples with several options: of each sample, diag(d) - d d^T / (e + sum d), (32).

    d: (R,), at least 0; e: (n,), positive.
    """

    options: Options
    d: Array
    e: Array

    @cached_property
    def sums(self) -> Array:
        """sum d (n,)."""
        return self.options.sum(self.d)

    @cached_property
    def total(self) -> Array:
        """e + sum d (n,)."""
        return self.e + self.sums

    def mean(self, margins: Array) -> Array:
        """d.x / (e + sum d) (n,)."""
        return self.options.sum(self.d * margins) / self.total

    def matvec(self, margins: Array) -> Array:
        """d (x - d.x / (e + sum d)), without the rounding of this difference where e is small."""
        sample = self.options.sample
        centre = self.options.sum(self.d * margins) / np.maximum(self.sums, LEAST_SUM)
        spread = margins - centre[sample]
        return self.d * (spread + (centre * (self.e / self.total))[sample])

    def gram(self, matrix: Array) -> Array:
        """B^T B with B = (I - gamma v v^T) V M, v = sqrt(d), V = diag(v), (33).

        No large matrices are subtracted from each other.
        """
        import scipy.sparse  # here, as `attack` does not need it

        starts, rows = self.options.starts, np.append(self.options.starts, len(self.d))
        v, gamma = np.sqrt(self.d), 1 / (self.total + np.sqrt(self.e * self.total))
        gram = np.zeros((matrix.shape[1],) * 2)
        firsts = np.searchsorted(starts, np.arange(0, len(v), GRAM_BLOCK))
        bounds = np.unique(np.append(firsts, len(starts)))
        for first, end in itertools.pairwise(bounds):  # whole samples
            block = slice(rows[first], rows[end])
            part = matrix[block] * v[block, None]
            inner = (v[block], np.arange(len(part)), rows[first : end + 1] - rows[first])
            along = scipy.sparse.csr_array(inner, shape=(end - first, len(part)))  # v of each
            part -= along.T @ (gamma[first:end, None] * (along @ part))
            gram += part.T @ part
        return gram


class _State:
    """What both states share."""

    options: Options
    sample_weight: Array
    alpha: Array
    loss: ClassVar[str]

    @property
    def dual_value(self) -> float:
        return dual_value(self.loss, self.options, self.sample_weight, self.alpha)

    def part(self, rows: slice) -> Self:
        """Itself: the operators of several classes have all samples in one block."""
        return self


@dataclass(frozen=True)
class Hinge(_State):
    """c max(0, 1 - m) of the least margin m of a sample: m - 1 = over - under, (31).

    alpha over = mu for each option, and rest under = mu for each sample.

    over: (R,). under: (n,), the loss of each sample at the end.
    rest: (n,), c - sum alpha, which is kept as it would be lost to rounding where it is near 0.
    residual: (R,), by how much m - 1 = over - under does not yet hold.
    """

    options: Options
    sample_weight: Array
    alpha: Array
    rest: Array
    over: Array
    under: Array
    residual: Array | float = 0.0

    loss = "hinge"

    @staticmethod
    def start(options: Options, sample_weight: Array, alpha: Array, margins: Array) -> Hinge:
        under = np.maximum(1 - options.least(margins), 0) + 1
        over = under[options.sample] + (margins - 1)
        rest = sample_weight - options.sum(alpha)
        return Hinge(options, sample_weight, alpha, rest, over, under)

    @property
    def n_products(self) -> int:
        return len(self.alpha) + len(self.rest)

    @property
    def products(self) -> np.float64:
        return np.float64(self.alpha @ self.over + self.rest @ self.under)

    @cached_property
    def curvature(self) -> Coupled:
        return Coupled(self.options, self.alpha / self.over, self.rest / self.under)

    def total(self, margins: Array) -> float:
        return float(self.sample_weight @ hinge(self.options, margins))

    def at(self, margins: Array) -> Hinge:
        residual = margins - 1 - self.over + self.under[self.options.sample]
        return Hinge(
            self.options,
            self.sample_weight,
            self.alpha,
            self.rest,
            self.over,
            self.under,
            residual,
        )

    def target(self, mu: float, predicted: SampleStep | None = None) -> Target:
        over, under = mu - self.alpha * self.over, mu - self.rest * self.under
        if predicted is not None:
            assert predicted.rest is not None
            over -= predicted.alpha * predicted.over
            under -= predicted.rest * predicted.under
        over, under = over / self.alpha, under / self.rest  # (34)
        return Target(over - under[self.options.sample] - self.residual, over, under)

    def step(self, target: Target, d_margins: Array) -> SampleStep:
        change = target.margins - d_margins
        alpha, mean = self.curvature.matvec(change), self.curvature.mean(change)
        rest = -self.curvature.e * mean  # -sum alpha, but exact where it is small, (35)
        over = target.over - self.over / self.alpha * alpha
        under = target.under + mean
        primal = min(longest_step(self.over, over), longest_step(self.under, under))
        dual = min(longest_step(self.alpha, alpha), longest_step(self.rest, rest))
        return SampleStep(alpha, over, under, primal, dual, rest)

    def move(self, step: SampleStep, primal: float, dual: float) -> Hinge:
        """Of sum alpha and rest, the larger one follows from the other, so that errors stay small.

        Where over is nearly 0 for two options of a sample, the alpha of each feels rounding in the
        margins much more than their sum does.
        """
        assert step.rest is not None
        alpha, rest, c = (
            self.alpha + dual * step.alpha,
            self.rest + dual * step.rest,
            self.sample_weight,
        )
        sums = self.options.sum(alpha)
        alpha *= np.where(rest < sums, (c - rest) / sums, 1.0)[self.options.sample]
        rest = np.where(rest < sums, rest, c - sums)
        return Hinge(
            self.options,
            c,
            alpha,
            rest,
            self.over + primal * step.over,
            self.under + primal * step.under,
        )


@dataclass(frozen=True)
class Logistic(_State):
    """c log(1 + sum exp(-m)): alpha = c exp(-m) / (1 + sum exp(-m)), (36). It has no products."""

    options: Options
    sample_weight: Array
    alpha: Array
    rest: Array

    loss = "logistic"
    n_products = 0
    products = np.float64(0)

    @staticmethod
    def start(options: Options, sample_weight: Array, alpha: Array, margins: Array) -> Logistic:
        return Logistic(options, sample_weight, alpha, sample_weight - options.sum(alpha))

    @cached_property
    def curvature(self) -> Coupled:
        return Coupled(self.options, self.alpha, self.rest)

    def total(self, margins: Array) -> float:
        return float(self.sample_weight @ logistic(self.options, margins))

    def at(self, margins: Array) -> Logistic:
        low = np.minimum(self.options.least(margins), 0)
        shares, none = np.exp(low[self.options.sample] - margins), np.exp(low)
        unit = self.sample_weight / (none + self.options.sum(shares))
        alpha = unit[self.options.sample] * shares
        return Logistic(self.options, self.sample_weight, alpha, unit * none)

    def target(self, mu: float, predicted: SampleStep | None = None) -> Target:
        return Target(*(np.zeros(len(one)) for one in (self.alpha, self.alpha, self.rest)))

    def step(self, target: Target, d_margins: Array) -> SampleStep:
        change = target.margins - d_margins
        alpha, rest = self.curvature.matvec(change), -self.rest * self.curvature.mean(change)
        return SampleStep(alpha, target.over, target.under, np.inf, np.inf, rest)

    def move(self, step: SampleStep, primal: float, dual: float) -> Logistic:
        """alpha moves linearly, for a proof: that of the new margins would miss the constraints."""
        assert step.rest is not None
        alpha, rest = (
            np.maximum(one + dual * change, 0)
            for one, change in ((self.alpha, step.alpha), (self.rest, step.rest))
        )
        return Logistic(self.options, self.sample_weight, alpha, rest)
