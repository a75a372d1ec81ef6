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

All this is of the budget "each": every sample moves by at most eps. With the budget "mean" only the
mean of how far the samples move is at most eps, and the largest expected hinge is the plain hinge
plus eps ||w||. So minimum(eps) = min_s P(s) + eps s. A model is a straight line again, now of the
minimum itself, which is concave; nothing is scaled. alpha proves D for eps >= c, with c the size of
sum_i alpha_i y_i x_i, and two of them the chord through their points (c, D). For separable classes
(0, 0) is such a point. budgets.py has what differs. Models and dual solutions are the same ones.

A `Path` states these bounds for exact arithmetic on the float64 numbers X, w and b; pieces.py says
what is done about rounding. One interval is left without a bound, where rounding does not tell
whether the classes are separable: from radii[0], or from eps_min where they are not separable, to
the least r, which is proved[0]. There weak duality still gives, for all weights,

    loss(w, b) >= D (1 - (r - eps) ||w||),

so that the lower bound D (1 - (r - eps) reach) holds for all weights of ||w|| <= reach. (Of "mean"
this is D - (c - eps) reach, from 0 to the least c, and only of classes not known to be separable.)
At eps = 0 float64 allows no more, as r = 0 is an equation. `reach` is at least twice the norm of
the best weights, and 1000 / the range of X. From proved[0] on, a bound holds for all weights.

In the L-infinity ball P is piecewise linear. walk.py visits its corners: each is a model, and each
piece of P is an alpha, which proves that the models at its two ends are both best at its own r.

In the other balls `penalised` minimises the plain hinge plus c ||w'|| for one c after another. With
its value D, the model has p = D - c s, and alpha has the sum D and the size c: so r = c / D. Let I
be the height to which the minimum jumps at the margin 1 / s0. P has the slope -c0 at s0, with c0 =
I / s0. From c0 down to 0 the model is that of the largest margin, and r is the margin itself. Above
c0, s0 - s and c - c0 fall to 0 alike, in the L2 ball with the root of r - 1 / s0. So the problems
near the margin are no harder than others, unlike those of a robust hinge, whose weights w grow
without bound there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from advlinear import samples
from advlinear.balls import ball, shown
from advlinear.minima import threads
from advlinear.minima.budgets import BUDGET_OF, FINEST, Budget
from advlinear.minima.minimum import LARGEST_GAP
from advlinear.minima.pieces import Found
from advlinear.minima.program import penalised
from advlinear.minima.rounding import U
from advlinear.minima.walk import Corner, Walk

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LARGEST_X = 1e100  # of the numbers in X, and of 1 / their range: no overflow, no underflow
STARTS = 1.0, 2.0, 0.3  # of `penalised`, one after the other
SHARE, NEAREST = 0.1, 1e-10  # of `penalised`: the gap is this share of tol, but no smaller
SMALL_SPARSE = 1e6  # numbers of a sparse X up to which the walk is quicker on an array
BEYOND = 1e-6  # relative; the path is followed so far below eps_min


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
    With the budget "mean" they are w[k] and b[k], and its hinge is p[k] + eps s[k].
    `bounds(radii)` gives the minima at the breakpoints. Both bounds allow for all rounding: the
    exact loss of the float64 numbers that `at` returns is at most `primal`, and no weights have a
    loss below `dual`; from eps_min or radii[0] to proved[0], no weights of norm at most `reach`.

    Attributes:
        eps_min, eps_max, norm, budget: of the problem.
        classes: (2,) the labels that stand for -1 and +1.
        n: how many samples.
        w: (K, d) weights of the K models, a SciPy CSR array.
        b: (K,) their biases.
        s: (K,) the norms of these weights, rounded up.
        p: (K,) the plain hinge of these models, an upper bound.
        radii: (K - 1,) rising, the breakpoints: above radii[k] model k + 1 is better than model k.
        proved: (J,) rising radii at which a dual solution bounds the minimum from below.
        dual: (J,) these lower bounds. In between 1 / dual may be interpolated linearly, or dual
            itself if the budget is "mean".
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
    budget: str = "each"
    names: Any = None

    def __repr__(self) -> str:
        return (
            f"Path({len(self.s)} models, eps {self.eps_min:g} to {self.eps_max:g}, norm "
            f"{self.norm}, budget {self.budget}, gap={self.gap:.1e})"
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
        chosen, shrunk = slice(*self.w.indptr[k : k + 2]), self._shrunk(eps, k)
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
        primal = BUDGET_OF[self.budget].loss(self.s[k], self.p[k], eps)
        return primal, np.where(primal > 0, self._lower(eps), 0.0)

    def _shrunk(self, eps: Any, k: Any) -> Any:
        """What the weights and the bias of model k are divided by at eps, each (m,) or ()."""
        return BUDGET_OF[self.budget].shrunk(self.s[k], eps)

    def _lower(self, eps: np.ndarray) -> np.ndarray:
        """The lower bound: the chord of two, and below proved[0] what `reach` allows."""
        budget = BUDGET_OF[self.budget]
        above = np.searchsorted(self.proved, eps, side="right")
        left, right = np.clip([above - 1, above], 0, len(self.proved) - 1)
        width, short = self.proved[right] - self.proved[left], self.proved[right] - eps
        weight = np.divide(short, width, out=np.ones(eps.shape), where=left < right)
        other = np.divide(
            eps - self.proved[left], width, out=np.zeros(eps.shape), where=left < right
        )
        heights = budget.height(self.dual[left], weight), budget.height(self.dual[right], other)
        chord = budget.height(sum(heights))
        lost = self.reach * np.where(above == 0, short, 1) / budget.unit(self.dual[right])
        return chord * np.maximum(1 - 10 * U - np.where(above == 0, lost, 0), 0)

    @property
    def gap(self) -> float:
        """The largest (primal - dual) / max(primal, 1 / n) over all radii of the interval."""
        return float(self._gaps()[1].max())

    def _gaps(self) -> tuple[np.ndarray, np.ndarray]:
        """The radii where the gap may be largest, and the gaps there.

        From a radius in `radii` or `proved` to the next, dual / primal is a quotient of straight
        lines, below proved[0] their product: so it is least at one of the two. Of the budget "mean"
        both are straight lines, and the gap may also be largest where primal is 1 / n. (Of "each"
        primal is 0 or at least 2 / n.)
        """
        ends = self.eps_min, self.eps_max
        eps = np.concatenate([ends, self.radii, np.nextafter(self.radii, 0), self.proved])
        if self.budget == "mean":
            tilted = self.s > 0
            eps = np.append(eps, (1 / self.n - self.p[tilted]) / self.s[tilted])
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
    budget: str = "each",
    fit_intercept: bool = True,
) -> Path:
    """The least robust hinge of two classes at every radius from eps_min to eps_max.

    In the L-infinity ball the path starts at w = 0, best at large radii, and visits each corner
    down to eps_min. It keeps only the corners needed to bound every minimum to `tol`; with tol=0
    all that change one by more than rounding. In the L2 and L1 balls minima are added until the
    bounds agree.

    Args:
        X: samples (n, d), real numbers; of a DataFrame every column needs to be of numbers. A SciPy
            sparse X stays one in the L-infinity ball. In the others it is made an array of at most
            5e7 numbers.
        y: labels (n,) of two values; the lower one counts as -1.
        eps_min, eps_max: the interval of radii, in the units of X.
        norm: "inf", "2" or "1", or np.inf, 2 or 1.
        tol: how far both bounds may be apart, (primal - dual) / max(primal, 1 / n). At least 0 and
            below 1.
        report: called with a line of text now and then.
        budget: "each": every sample moves by at most eps. "mean": the mean of how far all samples
            move is at most eps. The minimum is then that of the plain hinge plus eps times the dual
            norm of w, which is the 1-norm in the L-infinity ball.
        fit_intercept: whether there is a bias; if not, b is 0. False copies X twice.

    Returns:
        A `Path`: `at(eps)` is the best model at a radius, `bounds(radii)` are both bounds at many,
        `radii` the breakpoints, and `gap` the largest gap of the interval. For eps below
        `proved[0]` the lower bound holds only for norms of w up to `reach`; from there on for all
        weights.

    Raises:
        ValueError: an argument is not as described; tol is 0 in the L2 or L1 ball; a sparse X has
            too many numbers, or too many features in use, for an array of them; or the bounds do
            not agree to `tol` (with tol=0: to 1e-6).

    Example:

        >>> import advlinear
        >>> path = advlinear.path([[0], [1], [1], [2]], [0, 1, 0, 1], eps_min=0.1, eps_max=0.4)
        >>> round(path.at(0.2).primal, 6), path.gap <= 1e-4
        (0.625, True)
    """
    x, norm = samples.matrix(X), ball(norm)
    if norm != "inf" or math.prod(x.shape) <= SMALL_SPARSE:
        x = samples.as_array(x, f"a path in the L{norm} ball")
    samples.require_budget(budget)
    samples.require_flag(fit_intercept, "fit_intercept")
    eps_min, eps_max = samples.radius(eps_min), samples.radius(eps_max)
    if eps_min > eps_max:
        raise ValueError(f"eps_min must not be above eps_max, not {eps_min:g} and {eps_max:g}")
    if not samples.is_number(tol) or not 0 <= tol < 1 or (tol == 0 and norm != "inf"):
        raise ValueError(
            "tol must be at least 0 and below 1, and above 0 in the L2 and L1 balls, not "
            + shown(tol)
        )
    classes, signs = samples.two_classes(y, x.shape[0])
    low, high = samples.extremes(x)
    size, span = max(-low.min(), high.max()), (high - low).max()
    if size > LARGEST_X or 0 < span < 1 / LARGEST_X:
        raise ValueError(
            f"X must be below {LARGEST_X:g}, and its range above 1 / {LARGEST_X:g}: scale X"
        )
    found = Found(x, signs, classes, norm, eps_min, eps_max, tol, budget, fit_intercept)
    signs = found.y
    found.add_model(np.zeros(x.shape[1]), np.sign(signs.sum()))
    counts = np.where(signs > 0, np.count_nonzero(signs > 0), np.count_nonzero(signs < 0))
    found.add_alpha(counts.min() / counts / len(signs))  # which proves w = 0 best where it is
    with threads.one():
        if norm == "inf":
            _keep_corners(found, max(0.999 * tol, FINEST), report or (lambda line: None))
        else:
            _sandwich(found, tol, report or (lambda line: None))
        whole = Path(**found.known(), names=samples.names(X)[0])
    if not whole.gap <= (tol or LARGEST_GAP):
        radii, gaps = whole._gaps()
        raise ValueError(
            f"no certificate: the relative gap is {gaps.max():.1e} at eps = "
            f"{radii[np.argmax(gaps)]:.3g}: raise tol, or eps_min above it"
        )
    return whole


# --- the L-infinity ball: every corner ------------------------------------------------------------


def _keep_corners(found: Found, tol: float, report: Callable) -> None:
    """Add to `found` what bounds the minima at all its radii to the relative tolerance.

    A kept piece gives a dual solution, and the corners at its two ends samples. Between two kept
    pieces as many others as possible are left out.
    """

    def keep(corner: Corner, following: Corner) -> None:
        found.add_alpha(corner.alpha)
        for one in (corner, following):
            found.add_model(one.w, one.b - found.centre @ one.w)

    budget, walk = found.budget, Walk(found.away, found.y).corners()
    kept = last = next(walk)
    following = None  # the corner after the kept one, once this is known to be kept
    for count, corner in enumerate(walk, 1):
        eps = _place(corner, budget)
        if eps >= found.eps_max:
            kept = corner
        elif following is None or _gap_between(kept, following, corner, budget) > tol:
            kept, following = last, corner
            keep(kept, following)
        last = corner
        if count % 1000 == 0:
            report(f"eps {eps:.4f}: {count} steps, {np.count_nonzero(corner.w)} features")
        if eps <= found.eps_min * (1 - BEYOND):
            break
    keep(last, last)


def _place(corner: Corner, budget: Budget) -> float:
    """The eps from which on the alpha of a corner is a lower bound."""
    return corner.eps * budget.unit(corner.total)


def _gap_between(first: Corner, second: Corner, last: Corner, budget: Budget) -> float:
    """The largest gap between the places of two corners, given the models `second` and `last`."""
    high, low = _place(first, budget), _place(last, budget)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = budget.crossing(second.s, second.p, last.s, last.p)
        eps = np.clip(crossing, low, high)
        share = (eps - low) / (high - low)
        heights = budget.height(first.total, share), budget.height(last.total, 1 - share)
        return 1 - budget.height(sum(heights)) / budget.loss(second.s, second.p, eps)


# --- the other balls: as many minima as it takes --------------------------------------------------


def _sandwich(found: Found, tol: float, report: Callable) -> None:
    """Add to `found` what `penalised` finds where the gap is largest, until it is small.

    c is eps times the upper bound at eps, of the budget "mean" eps itself. If that bound is above
    the minimum, the model found has a lower one (Dinkelbach, Management Science 13, 1967); if not,
    alpha proves it. Below proved[0] a little less than c gives an alpha of a radius of at most eps
    or, just above the margin, of the margin. A c that comes again, as the solver failed, is tried
    from another start.
    """
    budget = found.budget
    solved: set[tuple[str, float]] = set()
    while True:
        whole = Path(**found.known())
        radii, gaps = whole._gaps()
        report(f"{len(solved)} minima, largest gap {gaps.max():.1e}")
        if gaps.max() <= tol:
            return
        eps = float(radii[np.argmax(gaps)])
        k = np.searchsorted(whole.radii, eps, side="right")
        left = float(whole._shrunk(eps, k))  # the share of the upper bound in the value p + c s
        c = eps if found.name == "mean" else eps * float(whole.p[k]) / left
        accuracy = max(SHARE * tol * left, NEAREST)
        if eps < whole.proved[0]:
            c, accuracy = c * (1 - tol / 4), NEAREST
            least = whole.proved[0] * whole.dual[0] / budget.unit(whole.dual[0])
            c = c or least / 16  # towards 0, where eps is
        new = [(f"{c:.10g}", start) for start in STARTS if (f"{c:.10g}", start) not in solved]
        if not new:
            return
        solved.add(new[0])
        w, b, alpha = penalised(found.x, found.y, c, found.norm, accuracy, new[0][1])
        found.add_model(w, b)
        found.add_alpha(alpha)
