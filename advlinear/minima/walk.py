"""The corners of P, the least plain hinge over ||w'|| <= s, in the L-infinity ball; see path.py.

There P is piecewise linear, the path of the 1-norm support vector machine (Zhu, Rosset, Hastie and
Tibshirani, NeurIPS 2003). `Walk` follows it by the parametric simplex method: a corner of P is a
model, and a piece of P is an alpha, which proves that the models at its two ends are both best at
its own r.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from advlinear.balls import exponent_of
from advlinear.minima.pieces import SAME
from advlinear.samples import MOST_DENSE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SHIFT = 1e-9  # the largest shift of a sample's target, so that no two of them tie
WATCHED, CLOSE = 2000, 0.01  # watched: so many samples, and all that are so close to the kink
WIDER = 4.0  # features are looked at that may come into use until c is so much smaller
ZERO = 1e-10  # relative to the largest rate; a smaller one is rounding


class Corner(NamedTuple):
    """A corner of P, and the straight piece that starts there, towards larger s and smaller eps.

    w (d,) and b: the model at the corner, where P(s) = p. alpha (n,): the dual solution of the
    piece, of the sum `total`, which proves the models at both its ends best at the radius eps.
    """

    w: np.ndarray
    b: float
    s: float
    p: float
    alpha: np.ndarray
    total: float
    eps: float


class _Rows:
    """y (1, x) of each sample (n, 1 + d), of an array x (n, d). Column 0 is that of the bias.

    Attributes:
        size: (1 + d,) the largest number of each column, in absolute value.
        features: (d,) which features they are of.
        least: as long as c is not below it, no other feature comes into use.
    """

    least = 0.0

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self._data = np.hstack([y[:, None], y[:, None] * x])
        self._columns = self._data.T.copy()  # the same, column by column: some of many are needed
        self.size = np.abs(self._data).max(axis=0)
        self.features = np.arange(x.shape[1])

    def row(self, sample: int) -> np.ndarray:
        """The row (1 + d,) of a sample."""
        row: np.ndarray = self._data[sample]
        return row

    def total(self, chosen: np.ndarray) -> np.ndarray:
        """The sum (1 + d,) of the rows that are chosen (n,)."""
        total: np.ndarray = self._data[chosen].sum(axis=0)
        return total

    def pulls(self, samples: list[int], *alphas: np.ndarray) -> list[np.ndarray]:
        """The sum (1 + d,) of some rows, times each of the alphas (m,)."""
        rows = self._data[samples]
        return [alpha @ rows for alpha in alphas]

    def columns(self, places: list[int]) -> np.ndarray:
        """Some columns (k, n)."""
        columns: np.ndarray = self._columns[places]
        return columns

    def entries(self, samples: list[int], places: list[int]) -> np.ndarray:
        """The numbers (m, k) of some samples and columns."""
        entries: np.ndarray = self._data[np.ix_(samples, places)]
        return entries

    def widen(self) -> None:
        """Take more features and lower `least`. Columns keep their places."""


class _SparseRows:
    """The same of a CSR array x, of the features that may come into use.

    As 0 <= alpha_i <= 1/n, the pull of feature j, sum_i alpha_i y_i x_ij, is at most
    bound_j = max(sum_i max(y_i x_ij, 0), sum_i max(-y_i x_ij, 0)) / n. Features come into use with
    a pull of c, and c only falls. So few features of text matter at radii that are not tiny.

    Columns that are asked for become arrays, and stay.
    """

    def __init__(self, x: Any, y: np.ndarray):
        n = len(y)
        yx = x.multiply(y[:, None]).tocsr()
        sums = [(sign * yx).maximum(0).sum(axis=0) for sign in (1, -1)]
        bounds = np.maximum(*sums) / n
        order = np.argsort(-bounds, kind="stable")
        self._bounds, self._order, self._y = bounds[order], order, y
        self._every = yx[:, order].tocsc()
        self._known = np.empty((0, n))
        self._places = np.full(1 + x.shape[1], -1)  # of the columns in `_known`
        self._count = 0
        self.least = float(self._bounds[0])
        self.widen()

    def widen(self) -> None:
        self.least /= WIDER
        if not self._bounds[-1] >= self.least:
            m = int(np.count_nonzero(self._bounds >= self.least))
        else:
            m, self.least = len(self._bounds), 0.0
        self.features = self._order[:m]
        self._x = self._every[:, :m].tocsr()
        self.size = np.append(1.0, abs(self._x).max(axis=0).toarray().ravel())

    def row(self, sample: int) -> np.ndarray:
        row, part = np.zeros(len(self.size)), slice(*self._x.indptr[sample : sample + 2])
        row[0], row[1 + self._x.indices[part]] = self._y[sample], self._x.data[part]
        return row

    def total(self, chosen: np.ndarray) -> np.ndarray:
        return np.append(self._y[chosen].sum(), self._x.T @ chosen.astype(np.float64))

    def pulls(self, samples: list[int], *alphas: np.ndarray) -> list[np.ndarray]:
        rows, y = self._x[samples].T, self._y[samples]
        return [np.append(alpha @ y, rows @ alpha) for alpha in alphas]

    def columns(self, places: list[int]) -> np.ndarray:
        self._make(places)
        columns: np.ndarray = self._known[self._places[places]]
        return columns

    def entries(self, samples: list[int], places: list[int]) -> np.ndarray:
        self._make(places)
        return self._known[np.ix_(self._places[places], samples)].T

    def _make(self, places: list[int]) -> None:
        """Make arrays of the columns that are none yet. Raises ValueError: they are too many."""
        for place in places:
            if self._places[place] < 0:
                self._places[place] = self._add(place)

    def _add(self, place: int) -> int:
        if self._count == len(self._known):
            more = np.empty((max(self._count, 64), len(self._y)))
            if self._known.size + more.size > MOST_DENSE:
                raise ValueError(
                    f"the path has had {self._count - 1} features of a sparse X in use, and more "
                    f"would not fit an array of {MOST_DENSE:g} numbers: raise eps_min"
                )
            self._known = np.concatenate([self._known, more])
        column = self._known[self._count]
        column[:] = 0 if place else self._y
        if place:
            part = slice(*self._every.indptr[place - 1 : place + 1])
            column[self._every.indices[part]] = self._every.data[part]
        self._count += 1
        return self._count - 1


class Walk:
    """The parametric simplex method for P(s): from w = 0 on, a step for each change of the basis.

    The bias is column 0 of `rows`, and feature j column j + 1. In use are the bias and k features;
    k samples are at the kink, where the margin is 1. These two sets are the basis. While it stays,
    k + 1 equations (a margin of 1 at the kink, ||w'|| = s) give the weights, which are linear in s.
    The transposed equations give alpha at the kink, and c, minus the slope of P; alpha is 1/n below
    the kink and 0 above. Where a weight or another sample's slack reaches 0, P has a corner. There
    alpha moves along a line until a sample may leave the kink or a feature may come into use.

    Many samples may reach the kink at once. So each margin is compared to a target of its own, by
    at most SHIFT above 1, which decides the order. The corners are computed without the shifts.

    The bias has a column of ones. So that x is as large in any unit, it is divided by a power of
    two, which makes no error; w, s and eps of a corner are in the unit of x again.
    """

    def __init__(self, x: Any, y: np.ndarray):
        """x (n, d) is an array or a CSR array."""
        self.rows: _Rows | _SparseRows
        if isinstance(x, np.ndarray):
            self.exponent = exponent_of(x)
            self.rows = _Rows(np.ldexp(x, -self.exponent), y)
        else:
            self.exponent, x = exponent_of(x.data), x.copy()
            x.data = np.ldexp(x.data, -self.exponent)
            self.rows = _SparseRows(x, y)
        self.y, self.size, self.n_features = y, self.rows.size, x.shape[1]
        self.target = 1 + SHIFT * np.random.default_rng(0).random(len(y))
        # With w = 0 the slope of the loss in b is (-(y > 0).sum() + passed targets y b) / n.
        first = int(np.argsort(y * self.target)[np.count_nonzero(y > 0)])
        bias = y[first] * self.target[first]
        self.side = np.where(y * bias < self.target, -1, 1)  # below the kink, at it (0), above it
        self.side[first] = 0
        self.kink, self.used, self.signs = [first], [0], [0.0]
        self._watch(np.array([bias]), WATCHED)

    def corners(self) -> Iterator[Corner]:
        """From w = 0 to P = 0, or to where no more weight is of use; the last one has c = 0."""
        from scipy.linalg import lu_factor, lu_solve  # here, as `attack` does not need it

        n = len(self.y)
        s, exact_s, point = 0.0, 0.0, np.zeros(len(self.size))  # `exact` is without the shifts
        point[0] = self.y[self.kink[0]]
        alpha = -self.below[:1] / n / point[0]  # balances the samples below
        while True:
            pull = self.below / n + self.rows.pulls(self.kink, alpha)[0]
            feature = int(np.argmax(np.abs(pull)))
            if np.abs(pull[feature]) >= self.rows.least:
                break
            self._widen()
        if np.abs(pull[feature]) <= ZERO * self.size[feature]:  # classes of the same mean
            yield self._corner(point, 0.0, alpha, 0.0)
            return
        self._use(feature, np.sign(pull[feature]))
        while True:
            matrix = np.vstack([self.rows.entries(self.kink, self.used), self.signs])
            factors = lu_factor(matrix, check_finite=False)
            sides = np.zeros((len(self.used), 3))
            sides[:-1, 0], sides[:-1, 1], sides[-1, 2] = self.target[self.kink], 1, 1
            shifted, exact, rate = lu_solve(factors, sides, check_finite=False).T
            *alpha, slope = lu_solve(factors, -self.below[self.used] / n, 1, check_finite=False)
            yield self._corner(point, exact_s, np.array(alpha), -slope)

            time, position, sample = self._next_event(shifted + s * rate, rate)
            s += time
            direction = np.zeros(len(self.used))
            if sample is None:
                exact_s = -exact[position] / rate[position]
                direction[position] = -self.signs[position]
            else:
                row = self.rows.entries([sample], self.used)[0]
                exact_s = (1 - row @ exact) / (row @ rate)
                direction = -self.side[sample] * row
            *alpha_rate, slope_rate = lu_solve(factors, direction, 1, check_finite=False)
            point = self._point(exact + exact_s * rate)
            if sample is None:
                del self.used[position], self.signs[position]
                self.watched = np.delete(self.watched, position, axis=0)
            else:
                alpha.append(1 / n if self.side[sample] < 0 else 0.0)
                alpha_rate.append(self.side[sample])
                self.kink.append(sample)
                self._put(sample, 0)
                if self.side.min() == 0:  # no sample is below the kink: P = 0
                    yield self._corner(point, exact_s, np.zeros(len(self.kink)), 0.0)
                    return
            end = self._change_basis(np.array(alpha), np.array(alpha_rate), -slope, -slope_rate)
            if end is not None:
                yield self._corner(point, exact_s, end, 0.0)
                return

    def _next_event(self, weights: np.ndarray, rate: np.ndarray) -> tuple:
        """The increase of s up to the next corner; which weight is 0 there, or which sample comes.

        weights: of the bias and features in use; rate: their change with s. Returns the increase,
        the position in `used`, and the sample, or None if it is the weight.
        """
        signs = np.array(self.signs)
        times = _time_to_zero(signs * weights, signs * rate, ZERO * np.abs(rate).max())
        position = int(np.argmin(times))
        for count in (0, WATCHED, 10 * WATCHED, len(self.y)):
            if count:
                self._watch(weights, count)
            near, side = self.watched, self.side[self.near]
            arrivals = _time_to_zero(
                side * (weights @ near - self.target[self.near]),
                side * (rate @ near),
                ZERO * (self.size[self.used] @ np.abs(rate)),
            )
            k = int(np.argmin(arrivals))
            time = min(arrivals[k], times[position])
            if time < np.inf:
                moved = self._point(weights + time * rate) - self.centre
                if self.size @ np.abs(moved) <= self.reach:
                    break
        if time == np.inf:
            raise ValueError("no path: rounding is too large; scale the features to a range of 1")
        return time, position, int(self.near[k]) if arrivals[k] < times[position] else None

    def _change_basis(self, alpha, alpha_rate, c: float, c_rate: float) -> np.ndarray | None:
        """Move alpha (at the kink) and c until a sample leaves it or a feature comes into use.

        Returns the alpha at which c reaches 0, if that comes first: the end of the path.
        """
        n = len(self.y)
        tiny = ZERO * np.abs(alpha_rate).max()
        leaves = np.stack(
            [
                _time_to_zero(alpha, alpha_rate, tiny),
                _time_to_zero(1 / n - alpha, -alpha_rate, tiny),
            ]
        )
        end = _time_to_zero(c, c_rate, 0)
        while True:
            enters = self._entering(alpha, alpha_rate, c, c_rate, tiny)
            time = min(enters.min(), leaves.min(), end)
            if not self.rows.least or c + time * c_rate >= self.rows.least:
                break
            self._widen()
        if end * (1 - ZERO) <= min(enters.min(), leaves.min()):
            return alpha + end * alpha_rate
        if leaves.min() <= enters.min():
            below, position = np.unravel_index(np.argmin(leaves), leaves.shape)
            self._put(self.kink.pop(position), -1 if below else 1)
        else:
            negative, feature = np.unravel_index(np.argmin(enters), enters.shape)
            self._use(int(feature), -1.0 if negative else 1.0)
        return None

    def _entering(self, alpha, alpha_rate, c: float, c_rate: float, tiny: float) -> np.ndarray:
        """How long until each feature that is not in use has a pull of c, or of -c (2, 1 + d)."""
        pull, pull_rate = self.rows.pulls(self.kink, alpha, alpha_rate)
        pull += self.below / len(self.y)
        enters = np.stack(
            [
                _time_to_zero(c - sign * pull, c_rate - sign * pull_rate, tiny * self.size)
                for sign in (1, -1)
            ]
        )
        enters[:, self.used] = np.inf
        return enters

    def _widen(self) -> None:
        """Look at more features from now on. The weights of new ones are 0."""
        self.rows.widen()
        self.size = self.rows.size
        self.centre = np.append(self.centre, np.zeros(len(self.size) - len(self.centre)))
        self.below = self.rows.total(self.side < 0)

    def _use(self, feature: int, sign: float) -> None:
        """Take a feature into use, whose weight will have this sign."""
        self.used.append(feature)
        self.signs.append(sign)
        column = self.rows.columns([feature])[:, self.near]
        self.watched = np.concatenate([self.watched, column])

    def _put(self, sample: int, side: int) -> None:
        """Note on which side of the kink a sample now is."""
        self.below += ((side < 0) - float(self.side[sample] < 0)) * self.rows.row(sample)
        self.side[sample] = side

    def _watch(self, weights: np.ndarray, count: int) -> None:
        """Look at the margins of all samples; from now on at those of `count` near the kink.

        That is enough until a margin may have changed by `reach`: never, if there are few samples,
        and soon, if all of many are watched. Also sums `below` anew, against rounding.
        """
        n = len(self.y)
        self.centre = self._point(weights)
        columns = self.rows.columns(self.used)
        distance = np.abs(weights @ columns - self.target)
        furthest = max(np.partition(distance, min(count, n) - 1)[min(count, n) - 1], CLOSE)
        self.near = np.flatnonzero(distance <= furthest)
        self.watched = columns[:, self.near]
        self.reach = np.inf if n <= WATCHED else furthest if count < n else 0.0
        self.below = self.rows.total(self.side < 0)

    def _point(self, weights: np.ndarray) -> np.ndarray:
        """The bias and weights of all features, (1 + d,)."""
        point = np.zeros(len(self.size))
        point[self.used] = weights
        return point

    def _corner(self, point, s: float, alpha, c: float) -> Corner:
        every = np.where(self.side < 0, 1 / len(self.side), 0.0)
        every[self.kink] = alpha
        total = every.sum()
        eps = c / total if c > 0 else 0.0
        near = np.where(np.abs(point[1:]) > SAME * s, point[1:], 0.0)  # what rounding leaves of 0
        w = np.zeros(self.n_features)
        w[self.rows.features[: len(near)]] = np.ldexp(near, -self.exponent)
        scaled = np.ldexp([s, eps], [-self.exponent, self.exponent])
        return Corner(w, point[0], scaled[0], total - c * s, every, total, scaled[1])


def _time_to_zero(value: ArrayLike, rate: ArrayLike, tiny: ArrayLike) -> np.ndarray:
    """How long until values that are at least 0, but for rounding, fall to 0; inf if they do not.

    Rates that are not below -tiny are taken for rounding.
    """
    falls = np.less(rate, -np.asarray(tiny))
    return np.where(falls, np.maximum(value, 0) / np.where(falls, np.negative(rate), 1), np.inf)
