"""The least robust hinge at every radius of an interval: the best models, and both bounds.

Without a box, put w' = w / (1 + eps ||w||) and b' alike, with the norm that the ball costs, and
s = ||w'||. The robust hinge of (w, b) is the plain hinge of (w', b') over 1 - eps s. So with P(s),
the least plain hinge over ||w'|| <= s, which is convex and falling,

    1 / minimum(eps) = max_s (1 - eps s) / P(s).

Each model (w', b') is one s and one hinge P, so a straight line in eps; the largest of the lines is
1 / minimum. It is convex: lines bound it from below. Dual solutions bound it from above. For any
alpha with 0 <= alpha_i <= 1/n and sum_i alpha_i y_i = 0 put D = sum_i alpha_i and let r be the size
of sum_i alpha_i y_i x_i over D, in the ball's norm: minimum(eps) >= D for eps >= r. Mixtures of two
of them prove that 1 / minimum(eps) is at most the chord through their points (r, 1 / D).

Rounding. A `Path` states these bounds for exact arithmetic on the float64 numbers X, w and b. Let
u = 2^-53 and gamma_k = k u / (1 - k u), which bounds the relative error of k roundings in any order
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).

- p is the mean of max(0, 1 + e - margin), rounded up. Here e = gamma_k (|w|.|x| + |b|), with the
  largest |x| of each feature, is what rounding may change: in the margin itself, in 1 - eps s, and
  in w / (1 - eps s) and b / (1 - eps s), the weights and the bias at a radius eps.
- n alpha is rounded to whole multiples of a power of 2, so that sums of them are exact, and made
  balanced exactly. So D is known, and x may be centred: an offset costs nothing. r is the computed
  size plus gamma_k times half the range.
- The separating model of the largest margin is scaled up until its margins are at least 1 + e, so
  that p = 0: the minimum is 0 below radii[0], just below 1 / s.

So one interval is left without a bound, where rounding does not tell whether the classes are
separable: from radii[0], or from eps_min where they are not separable, to the least r, which is
proved[0]. There weak duality still gives, for all weights,

    loss(w, b) >= D (1 - (r - eps) ||w||),

so that the lower bound D (1 - (r - eps) reach) holds for all weights of ||w|| <= reach. At eps = 0
float64 allows no more, as r = 0 is an equation. `reach` is at least twice the norm of the
best weights, and 1000 / the range of X. From proved[0] on, a bound holds for all weights whatever.

In the L-infinity ball P is piecewise linear, the path of the 1-norm support vector machine (Zhu,
Rosset, Hastie and Tibshirani, NeurIPS 2003). `_Walk` follows it by the parametric simplex method: a
corner of P is a model, and a piece of P is an alpha, which proves that the models at its two ends
are both best at its own r.

In the other balls `penalised` minimises the plain hinge plus c ||w'|| for one c after another. With
its value D, the model has p = D - c s, and alpha has the sum D and the size c: so r = c / D. Let I
be the height to which the minimum jumps at the margin 1 / s0. P has the slope -c0 at s0, with c0 =
I / s0. From c0 down to 0 the model is that of the largest margin, and r is the margin itself. Above
c0, s0 - s and c - c0 fall to 0 alike, in the L2 ball with the root of r - 1 / s0. So the problems
near the margin are no harder than others, unlike those of a robust hinge, whose weights w grow
without bound there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from advlinear import samples
from advlinear.balls import BLOCK, ORDER, ball, dual_norm, exponent_of, shown
from advlinear.minima import threads
from advlinear.minima.minimum import LARGEST_GAP
from advlinear.minima.program import penalised

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

UNIT = 2.0**-53  # the largest relative error of one operation in float64
LOST = 5e-10  # relative; what the lower bound may lose below proved[0], to hold up to `reach`
TIMES, LEAST_REACH = 2, 1000  # `reach` is at least so many norms, and so much over the range
LARGEST_X = 1e100  # of the numbers in X, and of 1 / their range: no overflow, no underflow
STARTS = 1.0, 2.0, 0.3  # of `penalised`, one after the other
SHARE, NEAREST = 0.1, 1e-10  # of `penalised`: the gap is this share of tol, but no smaller
FINEST = 1e-12  # relative; breakpoints that change no minimum by more are not told apart
SAME = 3e-13  # relative; weights below it are 0, and models that differ by less are one
BEYOND = 1e-6  # relative; the path is followed so far below eps_min
SHIFT = 1e-9  # the largest shift of a sample's target, so that no two of them tie
WATCHED, CLOSE = 2000, 0.01  # watched: so many samples, and all that are so close to the kink
ZERO = 1e-10  # relative to the largest rate; a smaller one is rounding


class Best(NamedTuple):
    """The best model (w, b) at a radius eps, and the bounds dual <= minimum <= primal.

    Example, of samples of which the best w is 1 / (1 - eps), and the minimum w / 2:

        >>> import advlinear
        >>> best = advlinear.path([[0], [1], [1], [2]], [0, 1, 0, 1], 0.1, 0.4).at(0.2)
        >>> best.w.round(6), round(best.b, 6), best.eps, round(best.primal, 6)
        (array([1.25]), -1.25, 0.2, 0.625)
    """

    w: np.ndarray
    b: float
    eps: float
    primal: float
    dual: float


@dataclass(frozen=True, repr=False, eq=False)
class Path:
    """The least robust hinge at every radius from eps_min to eps_max; see `path`.

    Model k is best from radii[k - 1] to radii[k]. At a radius eps in between its weights are
    w[k] / (1 - eps s[k]), its bias b[k] / (1 - eps s[k]), its robust hinge p[k] / (1 - eps s[k]).
    `bounds(radii)` gives the minima at the breakpoints. Both bounds allow for all rounding: the
    exact loss of the float64 numbers that `at` returns is at most `primal`, and no weights have a
    loss below `dual`; from eps_min or radii[0] to proved[0], no weights of norm at most `reach`.

    Attributes:
        eps_min, eps_max, norm: of the problem.
        classes: (2,) the labels that stand for -1 and +1.
        n: how many samples.
        w: (K, d) weights of the K models, a SciPy CSR array.
        b: (K,) their biases.
        s: (K,) the norms of these weights, rounded up.
        p: (K,) the plain hinge of these models, an upper bound.
        radii: (K - 1,) rising, the breakpoints: above radii[k] model k + 1 is better than model k.
        proved: (J,) rising radii at which a dual solution bounds the minimum from below.
        dual: (J,) these lower bounds. In between 1 / dual may be interpolated linearly.
        reach: below proved[0] the lower bound holds for weights of norm ||w|| at most this; inf
            where it holds for all, as the minimum is 0 there, or proved[0] is at most eps_min.
        names: (d,) the names of the features, the columns of a DataFrame X; None without names.

    Example, of samples whose minimum is .5 / (1 - eps) up to eps = .5, and from there 1:

        >>> import advlinear
        >>> path = advlinear.path([[0], [1], [1], [2]], [0, 1, 0, 1], 0.1, 0.8)
        >>> path.radii.round(6)
        array([0.5])
        >>> upper, lower = path.bounds([0.2, 0.6])
        >>> upper.round(6), lower.round(6)
        (array([0.625, 1.   ]), array([0.625, 1.   ]))
    """

    eps_min: float
    eps_max: float
    norm: str
    classes: np.ndarray
    n: int
    w: Any
    b: np.ndarray
    s: np.ndarray
    p: np.ndarray
    radii: np.ndarray
    proved: np.ndarray
    dual: np.ndarray
    reach: float
    names: Any = None

    def __repr__(self) -> str:
        return (
            f"Path({len(self.s)} models, eps {self.eps_min:g} to {self.eps_max:g}, norm "
            f"{self.norm}, gap={self.gap:.1e})"
        )

    def at(self, eps: float) -> Best:
        """The best model at a radius, and both bounds of the minimum there.

        Raises:
            ValueError: eps is not between eps_min and eps_max.
        """
        if np.ndim(eps):
            raise ValueError(f"eps needs one number, not {shown(eps)}: `bounds` takes several")
        primal, dual = self.bounds(eps)
        eps = float(eps)  # of any type that `bounds` takes
        k = np.searchsorted(self.radii, eps, side="right")
        chosen, shrunk = slice(*self.w.indptr[k : k + 2]), 1 - eps * self.s[k]
        w = np.zeros(self.w.shape[1])
        w[self.w.indices[chosen]] = self.w.data[chosen] / shrunk
        return Best(w, float(self.b[k] / shrunk), eps, float(primal), float(dual))

    def bounds(self, eps: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Upper and lower bounds of the minimum at radii (m,).

        Raises:
            ValueError: a radius is not between eps_min and eps_max.
        """
        eps = samples.real(eps, "eps")
        inside = (self.eps_min <= eps) & (eps <= self.eps_max)
        if not inside.all():
            known = f"from {self.eps_min:g} to {self.eps_max:g}"
            raise ValueError(f"eps must be {known}, not {shown(eps[~inside][0])}")
        k = np.searchsorted(self.radii, eps, side="right")
        primal = self.p[k] / (1 - eps * self.s[k])
        return primal, np.where(primal > 0, self._lower(eps), 0.0)

    def _lower(self, eps: np.ndarray) -> np.ndarray:
        """The lower bound: the chord of 1 / dual, and below proved[0] what `reach` allows."""
        above = np.searchsorted(self.proved, eps, side="right")
        left, right = np.clip([above - 1, above], 0, len(self.proved) - 1)
        width, short = self.proved[right] - self.proved[left], self.proved[right] - eps
        weight = np.divide(short, width, out=np.ones(eps.shape), where=left < right)
        other = np.divide(
            eps - self.proved[left], width, out=np.zeros(eps.shape), where=left < right
        )
        chord = 1 / (weight / self.dual[left] + other / self.dual[right])
        lost = np.where(above == 0, self.reach * np.where(above == 0, short, 1), 0)
        return chord * np.maximum(1 - 10 * UNIT - lost, 0)

    @property
    def gap(self) -> float:
        """The largest (primal - dual) / max(primal, 1 / n) over all radii of the interval."""
        return float(self._gaps()[1].max())

    def _gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """The radii where the gap may be largest, and the gaps there.

        From a radius in `radii` or `proved` to the next, dual / primal is a quotient of straight
        lines, below proved[0] their product: so it is least at one of the two.
        """
        ends = self.eps_min, self.eps_max
        eps = np.concatenate([ends, self.radii, np.nextafter(self.radii, 0), self.proved])
        eps = eps[(eps >= self.eps_min) & (eps <= self.eps_max)]
        primal, dual = self.bounds(eps)
        return eps, (primal - dual) / np.maximum(primal, 1 / self.n)


def path(
    X: ArrayLike,
    y: ArrayLike,
    eps_min: float,
    eps_max: float,
    norm: str | float = "inf",
    tol: float = 1e-4,
    report: Callable[[str], object] | None = None,
) -> Path:
    """The least robust hinge of two classes at every radius from eps_min to eps_max.

    In the L-infinity ball the path starts at w = 0, best at large radii, and visits each corner
    down to eps_min. It keeps only the corners needed to bound every minimum to `tol`; with tol=0
    all that change one by more than rounding. In the L2 and L1 balls minima are added until the
    bounds agree.

    Args:
        X: samples (n, d), real numbers; of a DataFrame every column needs to be of numbers.
        y: labels (n,) of two values; the lower one counts as -1.
        eps_min, eps_max: the interval of radii, in the units of X.
        norm: "inf", "2" or "1", or np.inf, 2 or 1.
        tol: how far both bounds may be apart, (primal - dual) / max(primal, 1 / n). At least 0 and
            below 1.
        report: called with a line of text now and then.

    Returns:
        A `Path`: `at(eps)` is the best model at a radius, `bounds(radii)` are both bounds at many,
        `radii` the breakpoints, and `gap` the largest gap of the interval. For eps below
        `proved[0]` the lower bound holds only for norms of w up to `reach`; from there on for all
        weights.

    Raises:
        ValueError: an argument is not as described; tol is 0 in the L2 or L1 ball; or the bounds
            do not agree to `tol` (with tol=0: to 1e-6).

    Example:

        >>> import advlinear
        >>> path = advlinear.path([[0], [1], [1], [2]], [0, 1, 0, 1], eps_min=0.1, eps_max=0.4)
        >>> round(path.at(0.2).primal, 6), path.gap <= 1e-4
        (0.625, True)
    """
    x, norm = samples.as_array(samples.matrix(X), "the path"), ball(norm)
    eps_min, eps_max = samples.radius(eps_min), samples.radius(eps_max)
    if eps_min > eps_max:
        raise ValueError(f"eps_min must not be above eps_max, not {eps_min:g} and {eps_max:g}")
    if not samples.is_number(tol) or not 0 <= tol < 1 or (tol == 0 and norm != "inf"):
        raise ValueError(
            "tol must be at least 0 and below 1, and above 0 in the L2 and L1 balls, not "
            + shown(tol)
        )
    classes, y = samples.two_classes(y, len(x))
    size, span = np.abs(x).max(), np.ptp(x, axis=0).max()
    if size > LARGEST_X or 0 < span < 1 / LARGEST_X:
        raise ValueError(
            f"X must be below {LARGEST_X:g}, and its range above 1 / {LARGEST_X:g}: scale X"
        )
    found = _Found(x, y, classes, norm, eps_min, eps_max, tol)
    found.add_model(np.zeros(x.shape[1]), np.sign(y.sum()))
    counts = np.where(y > 0, np.count_nonzero(y > 0), np.count_nonzero(y < 0))
    found.add_alpha(counts.min() / counts / len(y))  # which proves w = 0 best where it is
    with threads.one():
        if norm == "inf":
            _keep_corners(found, max(0.999 * tol, FINEST), report or (lambda line: None))
        else:
            _sandwich(found, tol, report or (lambda line: None))
        whole = replace(found.path(), names=samples.names(X)[0])
    if not whole.gap <= (tol or LARGEST_GAP):
        radii, gaps = whole._gaps()
        raise ValueError(
            f"no certificate: the relative gap is {gaps.max():.1e} at eps = "
            f"{radii[np.argmax(gaps)]:.3g}: raise tol, or eps_min above it"
        )
    return whole


class _Found:
    """Models and dual solutions, each reduced to what it proves in exact arithmetic.

    For dual solutions, which are balanced, x may be replaced by away = x - centre.
    """

    def __init__(self, x, y, classes, norm: str, eps_min: float, eps_max: float, tol: float):
        self.x, self.y, self.classes, self.norm = x, y, classes, norm
        self.eps_min, self.eps_max, self.tol = eps_min, eps_max, tol
        low, high = x.min(axis=0), x.max(axis=0)
        self.centre = low / 2 + high / 2
        self.away = x - self.centre
        self.furthest = np.abs(self.away).max(axis=0)
        self.largest = np.maximum(-low, high)
        self._block = int(np.sqrt(len(y))) + 1  # samples in a partial sum
        self._models: list[tuple[np.ndarray, float]] = []  # not looked at yet
        self._alphas: list[np.ndarray] = []  # nor these
        self._weights: list[Any] = []
        self._lines: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self.margin = 0.0  # below it the minimum is 0
        # The largest margin of a model, and the model.
        self._separating: tuple[float, Any] = 0.0, None

    def add_model(self, w: np.ndarray, b: float) -> None:
        """w (d,) and b as they enter P: divided by 1 + eps ||w||."""
        self._models.append((w, b))
        if len(self._models) == BLOCK:
            self._look_at_models()

    def add_alpha(self, alpha: np.ndarray) -> None:
        """alpha (n,), which is balanced and cut to what is allowed."""
        self._alphas.append(alpha)
        if len(self._alphas) == BLOCK:
            self._look_at_alphas()

    def _look_at_models(self) -> None:
        """Bounds of the norm and the plain hinge of each model.

        They allow for what `Path.at` rounds: 1 - eps s, the loss, each weight and the bias.
        """
        from scipy.sparse import csr_array  # here, as `attack` does not need it

        w, b = (np.array(parts) for parts in zip(*self._models, strict=True))
        used = np.flatnonzero(w.any(axis=0))
        some, x = w[:, used], self.x[:, used]
        terms = np.count_nonzero(some, axis=1)
        error = _gamma(terms + 7) * (np.abs(some) @ self.largest[used] + np.abs(b))
        p, least = np.zeros(len(w)), np.full(len(w), np.inf)
        for rows in self._blocks():
            margins = (x[rows] @ some.T + b) * self.y[rows, None]
            p += np.maximum(1 + error - margins, 0).sum(axis=0)
            least = np.minimum(least, margins.min(axis=0))
        p *= (1 + self._sum_error(7)) / len(self.y)
        s = np.array([dual_norm(one, self.norm) for one in w]) * (1 + _gamma(terms + 6))
        self._lines.append(np.stack([s, p, b]))
        self._weights.append(csr_array(w))
        self._models = []
        least -= 3 * error
        separates = np.flatnonzero(least > 0)
        for k in separates[np.argsort(s[separates] / least[separates])[:1]]:
            if least[k] / s[k] > self._separating[0]:
                self._separating = least[k] / s[k], (w[k] / least[k], b[k] / least[k])

    def _look_at_alphas(self) -> None:
        """Bounds of the radius r from which each alpha bounds the minimum, and of its sum D."""
        n, d = self.away.shape
        alpha, both = _balanced(np.array(self._alphas) * n, self.y > 0)
        alpha *= self.y
        pull = np.zeros((len(both), d))
        for rows in self._blocks():
            pull += alpha[:, rows] @ self.away[rows]
        error = self._sum_error(6 if self.norm == "inf" else d + 6) * self.furthest
        mean = np.abs(pull) / (2 * both)[:, None] + error
        r = np.linalg.norm(mean, ORDER[self.norm], axis=1)
        self._points.append(np.stack([r, np.nextafter(2 * both / n, 0)]))
        self._alphas = []

    def _blocks(self) -> list[slice]:
        """The samples in parts, so that sums round less."""
        return [slice(k, k + self._block) for k in range(0, len(self.y), self._block)]

    def _sum_error(self, more: int) -> float:
        """Of a sum over the samples in blocks, with so many more operations on each term."""
        return float(_gamma(2 * self._block + more))

    def path(self) -> Path:
        """Of all that is found, what matters between eps_min and eps_max."""
        from scipy.sparse import vstack

        if self._models:
            self._look_at_models()
        if self._separating[1] is not None:
            self.add_model(*self._separating[1])
            self._separating = self._separating[0], None
            self._look_at_models()
        if self._alphas:
            self._look_at_alphas()
        (s, p, b), (proved, dual) = (
            np.concatenate(parts, axis=1) for parts in (self._lines, self._points)
        )
        order = np.argsort(proved)
        # A bound holds at all larger radii; of radii that rounding does not tell apart, the last.
        proved, dual = proved[order], np.maximum.accumulate(dual[order])
        apart = np.append(np.diff(proved) > FINEST * proved[1:], True)
        proved, dual, reach = proved[apart], dual[apart], np.inf
        if (p == 0).any():
            self.margin = (1 - FINEST) / s[p == 0].min()
        start = max(self.eps_min, self.margin)
        kept = np.arange(len(s))
        if start < min(proved[0], self.eps_max):
            first, norm = self._first_point(s[p > 0], p[p > 0], proved, dual)
            proved, dual = proved[first:], dual[first:]
            size = np.linalg.norm(self.furthest, ORDER[self.norm])
            reach = max(LOST, self.tol / 10) / (proved[0] - start)
            reach = max(reach, TIMES * norm, LEAST_REACH / size)
            kept = np.flatnonzero((p == 0) | (s < reach * (1 - proved[0] * s)))
        if self.norm != "inf":  # there the points are corners
            corners = _convex(proved, 1 / dual)
            proved, dual = proved[corners], dual[corners]
        best, radii = upper_envelope(s[kept], p[kept])
        best = kept[best]
        first, last = np.searchsorted(radii, [self.eps_min, self.eps_max], side="right")
        best, radii = best[first : last + 1], radii[first:last]
        return Path(
            self.eps_min,
            self.eps_max,
            self.norm,
            self.classes,
            len(self.y),
            vstack(self._weights, format="csr")[best],
            b[best],
            s[best],
            p[best],
            radii,
            proved,
            dual,
            reach,
        )

    def _first_point(self, s, p, proved, dual) -> tuple[int, float]:
        """The first point that proves a model best, to the tolerance, and the norm of its weights.

        The first of all, if none does.
        """
        chosen = None
        for j, (eps, value) in enumerate(zip(proved, dual, strict=True)):
            shrunk = 1 - eps * s
            k = np.argmax(shrunk / np.where(shrunk > 0, p, 1))
            if value * shrunk[k] >= p[k] * (1 - (self.tol or LARGEST_GAP)):
                return j, s[k] / shrunk[k]
            chosen = chosen or (j, s[k] / shrunk[k])
        assert chosen is not None
        return chosen


def _gamma(count: ArrayLike) -> np.ndarray:
    """The relative error of so many roundings (Higham, Accuracy and Stability, section 3.1)."""
    rounded = np.multiply(count, UNIT)
    return rounded / (1 - rounded)


def _balanced(alpha: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha (m, n) within [0, 1] and of equal sums over the two classes, exactly; and these sums.

    The larger sum is scaled down to the other. All is rounded down to whole multiples of a power
    of 2, so large that no sum of them rounds; then the largest number of a class gives up what
    this class still has more. Left out is an alpha that is 0 on a whole class.
    """
    alpha, classes = np.clip(alpha, 0, 1), (positive, ~positive)
    sums = np.array([alpha[:, one].sum(axis=1) for one in classes])
    kept = sums.min(axis=0) > 0
    alpha, sums = alpha[kept], sums[:, kept]
    least = sums.min(axis=0)
    unit = np.ldexp(1.0, np.frexp(least)[1] - 52)[:, None]
    for one, total in zip(classes, sums, strict=True):
        alpha[:, one] = np.floor(alpha[:, one] * (least / total)[:, None] / unit) * unit
    sums = np.array([alpha[:, one].sum(axis=1) for one in classes])
    least = sums.min(axis=0)
    for one, total in zip(classes, sums, strict=True):
        largest = np.flatnonzero(one)[alpha[:, one].argmax(axis=1)]
        alpha[np.arange(len(alpha)), largest] -= total - least
    return alpha, least


def upper_envelope(s: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of the lines (1 - eps s) / p are the largest somewhere, and where one follows another.

    Args:
        s, p: (m,) at least 0; a line of p = 0 is infinite up to eps = 1 / s, or just below, so that
            1 - eps s is not 0.

    Returns:
        The K lines, in the order of rising eps, and the K - 1 radii where they cross.
    """
    best: list[int] = []
    radii: list[float] = []
    for k in np.lexsort((p, -s)):  # from the steepest on
        if best and s[k] == s[best[-1]]:
            continue
        while best:
            last = best[-1]
            same = s[k] > s[last] * (1 - SAME) and p[k] < p[last] * (1 + SAME)
            if p[k] > p[last] and not same:
                crossing = (p[k] - p[last]) / (p[k] * s[last] - p[last] * s[k])
                crossing *= 1 if p[last] else 1 - FINEST
                if not radii or crossing > radii[-1] * (1 + 2 * FINEST):
                    radii.append(crossing)
                    break
            best.pop()
            del radii[-1:]
        best.append(k)
    return np.array(best), np.array(radii)


def _convex(x: np.ndarray, y: np.ndarray) -> list[int]:
    """The corners of the largest convex function that is nowhere above y (m,) at rising x (m,)."""
    corners: list[int] = []
    for k in range(len(x)):
        while len(corners) > 1:
            i, j = corners[-2:]
            if (y[j] - y[i]) * (x[k] - x[i]) < (y[k] - y[i]) * (x[j] - x[i]):
                break
            corners.pop()
        corners.append(k)
    return corners


# --- the L-infinity ball: every corner ------------------------------------------------------------


class _Corner(NamedTuple):
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


def _keep_corners(found: _Found, tol: float, report: Callable) -> None:
    """Add to `found` what bounds the minima at all its radii to the relative tolerance.

    A kept piece gives a dual solution, and the corners at its two ends samples. Between two kept
    pieces as many others as possible are left out.
    """

    def keep(corner: _Corner, following: _Corner) -> None:
        found.add_alpha(corner.alpha)
        for one in (corner, following):
            found.add_model(one.w, one.b - found.centre @ one.w)

    walk = _Walk(found.away, found.y).corners()
    kept = last = next(walk)
    following = None  # the corner after the kept one, once this is known to be kept
    for count, corner in enumerate(walk, 1):
        if corner.eps >= found.eps_max:
            kept = corner
        elif following is None or _gap_between(kept, following, corner) > tol:
            kept, following = last, corner
            keep(kept, following)
        last = corner
        if count % 1000 == 0:
            report(f"eps {corner.eps:.4f}: {count} steps, {np.count_nonzero(corner.w)} features")
        if corner.eps <= found.eps_min * (1 - BEYOND):
            break
    keep(last, last)


def _gap_between(first: _Corner, second: _Corner, last: _Corner) -> float:
    """The largest gap from first.eps down to last.eps, given the models `second` and `last`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = (second.p - last.p) / (second.p * last.s - last.p * second.s)
        eps = np.clip(crossing, last.eps, first.eps)
        share = (eps - last.eps) / (first.eps - last.eps)
        inverse = share / first.total + (1 - share) / last.total
        return 1 - 1 / inverse / (second.p / (1 - eps * second.s))


class _Walk:
    """The parametric simplex method for P(s): from w = 0 on, a step for each change of the basis.

    The bias is column 0 of `data`, and feature j column j + 1. In use are the bias and k features;
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

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.exponent = exponent_of(x)
        x = np.ldexp(x, -self.exponent)
        self.data = np.hstack([y[:, None], y[:, None] * x])
        self.columns = self.data.T.copy()  # the same, feature by feature: some of many are needed
        self.size = np.abs(self.data).max(axis=0)
        self.target = 1 + SHIFT * np.random.default_rng(0).random(len(y))
        # With w = 0 the slope of the loss in b is (-(y > 0).sum() + passed targets y b) / n.
        first = int(np.argsort(y * self.target)[np.count_nonzero(y > 0)])
        bias = y[first] * self.target[first]
        self.side = np.where(y * bias < self.target, -1, 1)  # below the kink, at it (0), above it
        self.side[first] = 0
        self.kink, self.used, self.signs = [first], [0], [0.0]
        self._watch(np.array([bias]), WATCHED)

    def corners(self) -> Iterator[_Corner]:
        """From w = 0 to P = 0, or to where no more weight is of use; the last one has c = 0."""
        from scipy.linalg import lu_factor, lu_solve  # here, as `attack` does not need it

        n, d = self.data.shape
        s, exact_s, point = 0.0, 0.0, np.zeros(d)  # `exact` is without the shifts
        point[0] = self.data[self.kink[0], 0]
        alpha = -self.below[:1] / n / point[0]  # balances the samples below
        pull = self.below / n + alpha @ self.data[self.kink]
        feature = int(np.argmax(np.abs(pull)))
        if np.abs(pull[feature]) <= ZERO * self.size[feature]:  # classes of the same mean
            yield self._corner(point, 0.0, alpha, 0.0)
            return
        self._use(feature, np.sign(pull[feature]))
        while True:
            matrix = np.vstack([self.data[np.ix_(self.kink, self.used)], self.signs])
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
                row = self.data[sample, self.used]
                exact_s = (1 - row @ exact) / (row @ rate)
                direction = -self.side[sample] * row
            *alpha_rate, slope_rate = lu_solve(factors, direction, 1, check_finite=False)
            point = self._point(exact + exact_s * rate)
            if sample is None:
                del self.used[position], self.signs[position], self.watched[position]
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
        for count in (0, WATCHED, 10 * WATCHED, len(self.data)):
            if count:
                self._watch(weights, count)
            near = np.array(self.watched)
            side = self.side[self.near]
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
        n = len(self.data)
        pull = self.below / n + alpha @ self.data[self.kink]
        pull_rate = alpha_rate @ self.data[self.kink]
        tiny = ZERO * np.abs(alpha_rate).max()
        enters = np.stack(
            [
                _time_to_zero(c - sign * pull, c_rate - sign * pull_rate, tiny * self.size)
                for sign in (1, -1)
            ]
        )
        enters[:, self.used] = np.inf
        leaves = np.stack(
            [
                _time_to_zero(alpha, alpha_rate, tiny),
                _time_to_zero(1 / n - alpha, -alpha_rate, tiny),
            ]
        )
        end = _time_to_zero(c, c_rate, 0)
        if end * (1 - ZERO) <= min(enters.min(), leaves.min()):
            return alpha + end * alpha_rate
        if leaves.min() <= enters.min():
            below, position = np.unravel_index(np.argmin(leaves), leaves.shape)
            self._put(self.kink.pop(position), -1 if below else 1)
        else:
            negative, feature = np.unravel_index(np.argmin(enters), enters.shape)
            self._use(int(feature), -1.0 if negative else 1.0)
        return None

    def _use(self, feature: int, sign: float) -> None:
        """Take a feature into use, whose weight will have this sign."""
        self.used.append(feature)
        self.signs.append(sign)
        self.watched.append(self.columns[feature, self.near])

    def _put(self, sample: int, side: int) -> None:
        """Note on which side of the kink a sample now is."""
        self.below += ((side < 0) - float(self.side[sample] < 0)) * self.data[sample]
        self.side[sample] = side

    def _watch(self, weights: np.ndarray, count: int) -> None:
        """Look at the margins of all samples; from now on at those of `count` near the kink.

        That is enough until a margin may have changed by `reach`: never, if there are few samples,
        and soon, if all of many are watched. Also sums `below` anew, against rounding.
        """
        n = len(self.data)
        self.centre = self._point(weights)
        columns = self.columns[self.used]
        distance = np.abs(weights @ columns - self.target)
        furthest = max(np.partition(distance, min(count, n) - 1)[min(count, n) - 1], CLOSE)
        self.near = np.flatnonzero(distance <= furthest)
        self.watched = list(columns[:, self.near])
        self.reach = np.inf if n <= WATCHED else furthest if count < n else 0.0
        self.below = self.data[self.side < 0].sum(axis=0)

    def _point(self, weights: np.ndarray) -> np.ndarray:
        """The bias and weights of all features, (1 + d,)."""
        point = np.zeros(self.data.shape[1])
        point[self.used] = weights
        return point

    def _corner(self, point, s: float, alpha, c: float) -> _Corner:
        every = np.where(self.side < 0, 1 / len(self.side), 0.0)
        every[self.kink] = alpha
        total = every.sum()
        eps = c / total if c > 0 else 0.0
        w = np.where(np.abs(point[1:]) > SAME * s, point[1:], 0.0)  # what rounding leaves of 0
        w, scaled = np.ldexp(w, -self.exponent), np.ldexp([s, eps], [-self.exponent, self.exponent])
        return _Corner(w, point[0], scaled[0], total - c * s, every, total, scaled[1])


def _time_to_zero(value: ArrayLike, rate: ArrayLike, tiny: ArrayLike) -> np.ndarray:
    """How long until values that are at least 0, but for rounding, fall to 0; inf if they do not.

    Rates that are not below -tiny are taken for rounding.
    """
    falls = np.less(rate, -np.asarray(tiny))
    return np.where(falls, np.maximum(value, 0) / np.where(falls, np.negative(rate), 1), np.inf)


# --- the other balls: as many minima as it takes --------------------------------------------------


def _sandwich(found: _Found, tol: float, report: Callable) -> None:
    """Add to `found` what `penalised` finds where the gap is largest, until it is small.

    c is eps times the upper bound at eps. If that bound is above the minimum, the model found has a
    lower one (Dinkelbach, Management Science 13, 1967); if not, alpha proves it. Below proved[0] a
    little less than c gives an alpha of a radius of at most eps or, just above the margin, of the
    margin. A c that comes again, as the solver failed, is tried from another start.
    """
    solved: set[tuple[str, float]] = set()
    while True:
        whole = found.path()
        radii, gaps = whole._gaps()
        report(f"{len(solved)} minima, largest gap {gaps.max():.1e}")
        if gaps.max() <= tol:
            return
        eps = float(radii[np.argmax(gaps)])
        k = np.searchsorted(whole.radii, eps, side="right")
        left = 1 - eps * float(whole.s[k])  # the share of the hinge p in the value p + c s
        c, accuracy = eps * float(whole.p[k]) / left, max(SHARE * tol * left, NEAREST)
        if eps < whole.proved[0]:
            c, accuracy = c * (1 - tol / 4), NEAREST
            c = c or whole.proved[0] * whole.dual[0] / 16  # towards 0, where eps is
        new = [(f"{c:.10g}", start) for start in STARTS if (f"{c:.10g}", start) not in solved]
        if not new:
            return
        solved.add(new[0])
        w, b, alpha = penalised(found.x, found.y, c, found.norm, accuracy, new[0][1])
        found.add_model(w, b)
        found.add_alpha(alpha)
