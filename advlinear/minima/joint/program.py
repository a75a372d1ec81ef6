"""The program of several classes in the L-infinity ball, and a part of it that can be solved.

The whole program has a row for each option and a column for each set S of classes and each feature,
(M7) of docs/theory.md: for ten classes and 784 features 801,248 columns, of which some 600 are in
use at the minimum. `Program` looks at all of them; `Part` holds those that a solver is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Array, Indices
from advlinear.minima.joint.losses import Options, losses_of
from advlinear.minima.joint.operators import ColumnSet

PER_FEATURE = 5  # columns of a feature that may join at a time
MOST_COLUMNS = 1200  # that may join at a time


@dataclass(frozen=True)
class Program:
    """The problem with features centred and scaled to a range of 1, and weights of mean 1.

    Attributes:
        x, y, c: (n, d) samples, (n,) classes and (n,) weights.
        sets: (2^K - 2, K), the sets S of classes, but for the empty one and that of all.
        price: (d,) eps in the unit of each feature, less a little, so that alpha ends further
            inside its constraints than rounding reaches.
        allowed: (d,) between price and eps: the constraints that alpha is held against.
        loss, tol: as of `minimise`. report: called with a line of text after each step.
    """

    x: Array
    y: Indices
    c: Array
    sets: NDArray[np.bool_]
    price: Array
    allowed: Array
    loss: str
    tol: float
    report: Callable[[str], object] | None

    @property
    def n_classes(self) -> int:
        return self.sets.shape[1]

    @property
    def lightest(self) -> float:
        return float(self.c.min())

    @cached_property
    def rivals(self) -> NDArray[np.bool_]:
        """Which (n, K) are options: all classes but the own."""
        rivals: NDArray[np.bool_] = np.arange(self.n_classes) != self.y[:, None]
        return rivals

    def behind(self, W: Array, b: Array) -> Array:
        """-m_ik (n, K), and 0 for the own class: by how much option (i, k) is worse than a tie."""
        scores = self.x @ W.T + b
        costs = np.abs(W[:, None] - W) @ self.price
        scores -= np.take_along_axis(scores, self.y[:, None], axis=1)
        scores += costs[self.y]
        return scores

    def values(self, behind: Array) -> Array:
        """1 - m_ik (n, K), and 0 for the own class, from `behind`: the hinge is the largest."""
        values = behind + 1
        values[np.arange(len(self.y)), self.y] = 0
        return values

    def total(self, behind: Array) -> float:
        """The sum of c times the loss, from `behind`."""
        if self.loss == "hinge":
            return float(self.c @ self.values(behind).max(axis=1))
        options = Options(np.nonzero(self.rivals)[0])
        return float(self.c @ losses_of(self.loss, options, -behind[self.rivals]))

    def slack(self, alpha: Array, price: Array) -> tuple[Array, Array]:
        """How far alpha (n, K) is inside the constraint of each set and feature (2^K - 2, d), (M6).

        And the mass (2^K - 2,) between each set and the rest, which the price multiplies.
        """
        own = alpha.sum(axis=1)
        towards = -alpha
        towards[np.arange(len(own)), self.y] += own
        used = np.flatnonzero(own)
        G = towards[used].T @ self.x[used]
        masses = np.array([alpha[self.y == p].sum(axis=0) for p in range(self.n_classes)])
        inside = 1.0 * self.sets
        across = np.einsum("sp,pq,sq->s", inside, masses + masses.T, 1 - inside)
        return across[:, None] * price - inside @ G, across

    def slack_share(self, alpha: Array, price: Array) -> Array:
        """`slack` as a share of its right side, at the price of the program; NaN without mass."""
        slack, across = self.slack(alpha, price)
        with np.errstate(divide="ignore", invalid="ignore"):
            slack /= across[:, None] * self.price
        return slack


@dataclass(frozen=True)
class Part:
    """Some options and columns of a program. Of the other samples the worst option is assumed.

    Where it is as assumed, the hinge of these samples is linear. So all of a class with the same
    worst option are one row, that of their mean. The hinge of a mean is at most the mean of the
    hinges. So with fewer options and with such rows the minimum is at most that of the program on
    these columns, and at least 0.

    Attributes:
        options: (n, K) which are in the part.
        worst: (n,) the worst option of a sample without any in the part; its own class where its
            loss is 0.
        columns: (2^K - 2, d) which are in the part.
    """

    program: Program
    options: NDArray[np.bool_]
    worst: Indices
    columns: NDArray[np.bool_]

    @cached_property
    def column_set(self) -> ColumnSet:
        places, features = np.nonzero(self.columns)
        return ColumnSet(self.program.sets[places], features, self.program.price[features])

    @cached_property
    def single(self) -> tuple[Indices, Indices]:
        """The samples and rivals of the options that have a row each, the first rows."""
        sample, rival = np.nonzero(self.options)
        return sample, rival

    @cached_property
    def groups(self) -> list[Indices]:
        """The samples of each of the other rows."""
        y, rest = self.program.y, np.flatnonzero(~self.options.any(axis=1))
        rest = rest[self.worst[rest] != y[rest]]
        pairs = y[rest] * self.program.n_classes + self.worst[rest]
        return [rest[pairs == pair] for pair in np.unique(pairs)]

    @cached_property
    def owner(self) -> Options:
        """Which sample or group each row (R,) belongs to."""
        _, place = np.unique(self.single[0], return_inverse=True)
        n_samples = place.max(initial=-1) + 1
        return Options(np.append(place, n_samples + np.arange(len(self.groups))))

    @cached_property
    def c(self) -> Array:
        """The weight of each sample or group of `owner`."""
        groups = [self.program.c[members].sum() for members in self.groups]
        return np.append(self.program.c[np.unique(self.single[0])], groups)

    @cached_property
    def classes(self) -> tuple[Indices, Indices]:
        """The own class and the rival (R,) of each row."""
        sample, rival = self.single
        first = np.array([members[0] for members in self.groups], dtype=np.int64)
        return self.program.y[np.append(sample, first)], np.append(rival, self.worst[first])

    def matrix(self) -> Array:
        """A (R, m + K - 1) of `operators.Columns`."""
        program, (own, rival), columns = self.program, self.classes, self.column_set
        known, m = np.arange(program.n_classes - 1), len(columns.features)
        means = np.zeros((len(self.groups), program.x.shape[1]))
        for mean, members in zip(means, self.groups, strict=True):
            mean[:] = program.c[members] @ program.x[members] / program.c[members].sum()
        matrix = np.zeros((len(own), m + len(known)))
        sample = self.single[0]
        for rows, x, places in (
            (slice(0, len(sample)), program.x, sample),
            (slice(len(sample), None), means, np.arange(len(means))),
        ):
            columns.fill(matrix[rows, :m], x, places, own[rows], rival[rows])
        matrix[:, m:] = np.equal.outer(own, known) - 1.0 * np.equal.outer(rival, known)
        return matrix

    def spread(self, alpha: Array) -> Array:
        """alpha (n, K) of the program from that of the rows (R,)."""
        whole, (sample, rival) = np.zeros(self.options.shape), self.single
        whole[sample, rival] = alpha[: len(sample)]
        for members, mass in zip(self.groups, alpha[len(sample) :], strict=True):
            weights = self.program.c[members]
            whole[members, self.worst[members]] = mass / weights.sum() * weights
        return whole

    def gathered(self, alpha: Array) -> Array:
        """alpha of the rows (R,) from that of the program (n, K)."""
        groups = [alpha[members, self.worst[members]].sum() for members in self.groups]
        return np.append(alpha[self.single], groups)

    def weights(self, theta: Array) -> tuple[Array, Array]:
        """W (K, d) and b (K,) from theta (m + K - 1,)."""
        m = len(self.column_set.features)
        W = self.column_set.weights(theta[:m], self.program.x.shape[1])
        return W, np.append(theta[m:], 0.0)

    def extended(self, behind: Array, alpha: Array, band: float) -> Part:
        """The part with what a solution misses; this one itself if it misses nothing.

        Args:
            behind: of its W and b.
            alpha: (n, K).
            band: a sample that misses its worst option gets all whose 1 - m is less than this below
                that of the worst.
        """
        options, columns = self._more_options(behind, band), self._more_columns(alpha)
        if np.array_equal(options, self.options) and np.array_equal(columns, self.columns):
            return self
        return Part(self.program, options, self.worst, columns)

    def _more_options(self, behind: Array, band: float) -> NDArray[np.bool_]:
        program, samples = self.program, np.arange(len(self.worst))
        if program.loss == "logistic":  # all are in
            return self.options
        values = program.values(behind)
        largest, single = values.max(axis=1), self.options.any(axis=1)
        in_part = np.where(self.options, values, 0).max(axis=1)
        here = np.where(single, in_part, values[samples, self.worst])
        allowed = program.tol / 10 * max(program.c @ largest / len(samples), program.lightest)
        joins = np.flatnonzero(largest - here > allowed)
        options = self.options.copy()
        options[joins] = self.options[joins] | (values[joins] >= largest[joins, None] - band)
        grouped = joins[np.logical_not(single)[joins]]
        options[grouped, self.worst[grouped]] = True
        options[samples, program.y] = False
        return options

    def _more_columns(self, alpha: Array) -> NDArray[np.bool_]:
        slack = self.program.slack_share(alpha, self.program.allowed)
        return self.columns | least(np.where(slack < 0, slack, np.inf), PER_FEATURE)


@dataclass(frozen=True)
class Solution:
    """Of a part: W (K, d), b (K,) and alpha (n, K); and what a basis of the simplex method holds.

    Attributes:
        in_use: (2^K - 2, d) the columns whose constraint is active.
        basic: (n, K) the options whose alpha is between its bounds.
        full: (n,) the samples whose sum of alpha is c.
    """

    W: Array
    b: Array
    alpha: Array
    in_use: NDArray[np.bool_]
    basic: NDArray[np.bool_]
    full: NDArray[np.bool_]


def least(values: Array, per_feature: int) -> NDArray[np.bool_]:
    """Which entries (2^K - 2, d) are the least finite ones of their feature, and of all.

    per_feature: so many of each feature; and if these are more than MOST_COLUMNS, only those that
    are at most the next after the MOST_COLUMNS least.
    """
    chosen = np.zeros(values.shape, dtype=bool)
    first = np.argpartition(values, min(per_feature, len(values)) - 1, axis=0)[:per_feature]
    np.put_along_axis(chosen, first, True, axis=0)
    chosen &= values < np.inf
    if np.count_nonzero(chosen) > MOST_COLUMNS:
        chosen &= values <= np.partition(values[chosen], MOST_COLUMNS)[MOST_COLUMNS]
    return chosen
