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
from advlinear.minima.signed import Signed, SignedSparse

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SHIFT = 1e-9  # the largest shift of a sample's target, so that no two of them tie
WATCHED, CLOSE = 2000, 0.01  # watched: so many samples, and all that are so close to the kink
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


class Walk:
    """The parametric simplex method for P(s): from w = 0 on, a step for each change of the basis.

    The bias is column 0 of `signed`, and each feature a column after it. In use are the bias and k
    features; k samples are at the kink, where the margin is 1. These two sets are the basis. While
    it stays, k + 1 equations (a margin of 1 at the kink, ||w'|| = s) give the weights, which are
    linear in s. The transposed equations give alpha at the kink, and c, minus the slope of P; alpha
    is 1/n below the kink and 0 above. Where a weight or another sample's slack reaches 0, P has a
    corner. There alpha moves along a line until a sample may leave the kink or a feature may come
    into use, as its pull, sum_i alpha_i y_i x_ij, reaches c or -c.

    Many samples may reach the kink at once. So each margin is compared to a target of its own, by
    at most SHIFT above 1, which decides the order. The corners are computed without the shifts.

    The bias has a column of ones. So that x is as large in any unit, it is divided by a power of
    two, which makes no error; w, s and eps of a corner are in the unit of x again.
    """

    signed: Signed | SignedSparse
    centre: np.ndarray
    watched: np.ndarray
    below: np.ndarray

    def __init__(self, x: Any, y: np.ndarray):
        """x (n, d) is an array or a CSR array."""
        if isinstance(x, np.ndarray):
            self.exponent = exponent_of(x)
            self.signed = Signed(np.ldexp(x, -self.exponent), y)
        else:
            self.exponent, x = exponent_of(x.data), x.copy()
            x.data = np.ldexp(x.data, -self.exponent)
            self.signed = SignedSparse(x, y)
        self.y, self.size, self.n_features = y, self.signed.size, x.shape[1]
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
            pull = self.below / n + self.signed.pulls(self.kink, alpha)[0]
            feature = int(np.argmax(np.abs(pull)))
            if np.abs(pull[feature]) >= self.signed.least:
                break
            self._widen()
        if np.abs(pull[feature]) <= ZERO * self.size[feature]:  # classes of the same mean
            yield self._corner(point, 0.0, alpha, 0.0)
            return
        self._use(feature, np.sign(pull[feature]))
        while True:
            matrix = np.vstack([self.signed.entries(self.kink, self.used), self.signs])
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
                row = self.signed.entries([sample], self.used)[0]
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
                if self.signed.reach(moved) <= self.reach:
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
            if not self.signed.least or c + time * c_rate >= self.signed.least:
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
        pull, pull_rate = self.signed.pulls(self.kink, alpha, alpha_rate)
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
        self.signed.widen()
        self.size = self.signed.size
        self.centre = np.append(self.centre, np.zeros(len(self.size) - len(self.centre)))
        self.below = self.signed.total(self.side < 0)

    def _use(self, feature: int, sign: float) -> None:
        """Take a feature into use, whose weight will have this sign."""
        self.used.append(feature)
        self.signs.append(sign)
        column = self.signed.columns([feature])[:, self.near]
        self.watched = np.concatenate([self.watched, column])

    def _put(self, sample: int, side: int) -> None:
        """Note on which side of the kink a sample now is."""
        self.below += ((side < 0) - float(self.side[sample] < 0)) * self.signed.row(sample)
        self.side[sample] = side

    def _watch(self, weights: np.ndarray, count: int) -> None:
        """Look at the margins of all samples; from now on at those of `count` near the kink.

        That is enough until a margin may have changed by `reach`: never, if there are few samples,
        and soon, if all of many are watched. Also sums `below` anew, against rounding.
        """
        n = len(self.y)
        self.centre = self._point(weights)
        columns = self.signed.columns(self.used)
        distance = np.abs(weights @ columns - self.target)
        furthest = max(np.partition(distance, min(count, n) - 1)[min(count, n) - 1], CLOSE)
        self.near = np.flatnonzero(distance <= furthest)
        self.watched = columns[:, self.near]
        self.reach = np.inf if n <= WATCHED else furthest if count < n else 0.0
        self.below = self.signed.total(self.side < 0)

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
        w[self.signed.features[: len(near)]] = np.ldexp(near, -self.exponent)
        scaled = np.ldexp([s, eps], [-self.exponent, self.exponent])
        return Corner(w, point[0], scaled[0], total - c * s, every, total, scaled[1])


def _time_to_zero(value: ArrayLike, rate: ArrayLike, tiny: ArrayLike) -> np.ndarray:
    """How long until values that are at least 0, but for rounding, fall to 0; inf if they do not.

    Rates that are not below -tiny are taken for rounding.
    """
    falls = np.less(rate, -np.asarray(tiny))
    return np.where(falls, np.maximum(value, 0) / np.where(falls, np.negative(rate), 1), np.inf)
