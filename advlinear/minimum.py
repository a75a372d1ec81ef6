"""The least robust loss of a linear model of two classes, and the certificate that proves it.

With shares s_i of the samples (1 / n each without weights), and ||.||* the dual norm of the ball,

    primal: min  F(w, b) = sum_i s_i l(y_i (w.x_i + b) - eps ||w||*)      over w (d,) and b
    dual:   max  sum_i s_i h(alpha_i / s_i)      over 0 <= alpha <= s with sum_i alpha_i y_i = 0
                 and ||sum_i alpha_i y_i x_i|| <= eps sum_i alpha_i, in the norm of the ball

where l is the hinge, l(m) = max(0, 1 - m), and h(a) = a; or l is the logistic loss, l(m) =
log(1 + exp(-m)), and h(a) = -a log(a) - (1 - a) log(1 - a). Read: the means of the two classes,
weighted by alpha, are at most 2 eps apart. F of any (w, b) bounds the minimum from above, and the
value of any alpha within the constraints bounds it from below: F(w, b) >= the dual's value, since
l(m) >= h(a) - a m for all m and 0 <= a <= 1.

With a box, which the L-infinity ball alone may have, feature j of sample i costs w_j min(eps, room)
in place of eps |w_j|, with the room that it has against the sign of y_i w_j. The last constraint
becomes one for the positive and one for the negative side of each feature.

`certificate` knows nothing of how the numbers were found. `minimise` finds them by the interior
point of advlinear/interior.py and, where the minimum is that of a linear program whose weights are
mostly 0, goes on to a vertex (advlinear/vertex.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from advlinear import forms, interior, models, vertex
from advlinear.worst_case import ORDER, ball, dual_norm, hinge, room

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LOSSES = ("hinge", "logistic")
LARGEST_GAP = 1e-6
TINY = 1e-100  # of the largest range; a smaller eps is solved as 0
ROUNDING = np.finfo(np.float64).eps / 2  # the largest relative error of one operation
REACH = 1000  # see `certificate`
BLOCK = 1024  # samples taken at a time, to save memory
FIRST_TOL = 1e-2  # of the first look, on a sixteenth of the samples
FEWEST = 1500  # or at least so many
FAR = 0.5  # a constraint with less than this share of the median slack may be in use
LATE = 20  # steps that the interior point is given to bring alpha within the constraints
SMALL = 4e9  # n d^2 up to which all samples are given to the interior point at once


@dataclass(frozen=True, repr=False, eq=False)
class Minimum:
    """The least robust loss and what proves it; see `minimise`.

    Attributes:
        w, b: weights (d,) and bias of the best model.
        eps, norm, loss, box: of the problem.
        primal: the robust loss of (w, b), an upper bound of the minimum.
        dual: a lower bound.
        gap: (primal - dual) / max(primal, 1 / n).
        violation: 0 where the lower bound is one for all weights; see `certificate`.
        alpha: (n,) the dual solution.
        classes: (2,) the labels that stand for -1 and +1.
    """

    w: np.ndarray
    b: float
    eps: float
    norm: str
    loss: str
    box: tuple | None
    primal: float
    dual: float
    gap: float
    violation: float
    alpha: np.ndarray
    classes: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Minimum({self.loss}, eps={self.eps:g}, norm {self.norm}, "
            f"{'with' if self.box else 'no'} box: primal={self.primal:.9g}, gap={self.gap:.1e}, "
            f"{np.count_nonzero(self.w)} of {len(self.w)} weights other than 0)"
        )


def minimise(
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    norm: str | float = "inf",
    loss: str = "hinge",
    box: tuple | None = None,
    sample_weight: ArrayLike | None = None,
    tol: float = LARGEST_GAP,
    report: Callable[[str], object] | None = None,
) -> Minimum:
    """The minimum of the robust loss of two classes, and the dual solution that proves it.

    The hinge in the L-infinity ball ends on a vertex: weights that are 0 are exactly 0. Where
    several (w, b) are optimal, it is one of them.

    Args:
        X: samples (n, d), real numbers.
        y: labels (n,) of two values, by place and not by index; the lower one counts as -1.
        eps: radius of the ball, in the units of X. 0 is the loss without an attack.
        norm: of the ball: "inf", "2" or "1", or np.inf, 2 or 1.
        loss: "hinge" or "logistic".
        box: None, or for the L-infinity ball (low, high) that perturbed samples stay in, numbers
            or one per feature (d,). Where X is a DataFrame, a Series goes by its column names.
        sample_weight: (n,) at least 0, of which only the ratios matter.
        tol: the largest gap of the certificate.
        report: called with a line of text after each step.

    Raises:
        ValueError: an argument is not as described, or no certificate with such a gap is reached.
    """
    x, eps = models.samples(X), models.radius(eps)
    classes, y = models.two_classes(y, len(x))
    norm, box, x = _check(norm, loss, box, X, x)
    shares = models.shares(sample_weight, y)
    if not 0 < tol < 1:
        raise ValueError(f"tol must be between 0 and 1, not {tol!r}")
    used = shares > 0
    if used.all():
        w, b, alpha, proof = _solve(x, y, shares, eps, norm, loss, box, tol, report)
    else:
        part = x[used], y[used], shares[used]
        finer = tol * used.mean()  # as the gap is in units of 1 / n
        w, b, inner, _ = _solve(*part, eps, norm, loss, box, finer, report)
        alpha = np.zeros(len(y))
        alpha[used] = inner
        proof = _bounds(x, y, shares, w, b, alpha, eps, norm, loss, box)
    if not proof["gap"] <= tol:
        raise ValueError(
            f"no certificate: the gap is {proof['gap']:.1e}, above tol {tol:g}: raise tol, "
            "scale the features to a range of about 1, or change eps by a thousandth"
        )
    return Minimum(w, b, eps, norm, loss, box, **proof, alpha=alpha, classes=classes)


def _check(norm, loss, box, X, x) -> tuple[str, tuple | None, np.ndarray]:
    """The norm as a string, the box as two arrays (d,), and x, moved to its edge by rounding.

    How much that may be, the type of X says.
    """
    norm = ball(norm)
    if loss not in LOSSES:
        raise ValueError(f"loss must be hinge or logistic, not {loss!r}")
    if box is None:
        return norm, None, x
    if norm != "inf":
        raise ValueError(f"a box needs the norm inf, not {norm}: leave one of the two out")
    form = forms.Form(forms.array(X, "X"), *forms.names(X))
    low, high = forms.bounds(box, form)
    if low.ndim == 2 or high.ndim == 2:
        raise ValueError("box needs (low, high), each a number or one per feature (d,)")
    return norm, (low, high), form.x


# --- the certificate: it shares no code with the solver ------------------------------------------


def certificate(
    X: ArrayLike,
    y: ArrayLike,
    w: np.ndarray,
    b: float,
    alpha: np.ndarray,
    eps: float,
    norm: str | float = "inf",
    loss: str = "hinge",
    box: tuple | None = None,
    sample_weight: ArrayLike | None = None,
) -> dict[str, float]:
    """Both bounds on the minimum, from w, b and alpha alone.

    First alpha is cut to [0, s], and that of the class with the larger sum scaled down until the
    sums are equal. What is left to check is the constraint on the features, with what rounding may
    have added to it. If alpha keeps it, no weights whatever have a loss below `dual`. If alpha
    misses it, F(w, b) >= value - v sum_j r_j |w_j| is all that weak duality gives, where r_j is the
    range of feature j. Then `violation` is v, and no weights have a loss below `dual` whose sum
    is at most 1000 times (1 + that of w). At eps = 0 this is all that float64 allows, as the
    constraint is an equation. v is then some 1e-13.

    Args:
        X, y, eps, norm, loss, box, sample_weight: the problem, as for `minimise`.
        w, b: weights (d,) and bias.
        alpha: dual variables (n,).

    Returns:
        primal, dual: the two bounds; gap: (primal - dual) / max(primal, 1 / n), as one sample
        weighs 1 / n; violation: v, or 0.

    Raises:
        ValueError: the problem is not as described, or shapes do not fit.
    """
    x, eps = models.samples(X), models.radius(eps)
    _, y = models.two_classes(y, len(x))
    norm, box, x = _check(norm, loss, box, X, x)
    if np.shape(w) != x.shape[1:] or np.shape(alpha) != y.shape:
        raise ValueError(
            f"w and alpha need shapes {x.shape[1:]} and {y.shape}, not {np.shape(w)} and "
            f"{np.shape(alpha)}"
        )
    shares = models.shares(sample_weight, y)
    return _bounds(x, y, shares, w, b, alpha, eps, norm, loss, box)


def _bounds(x, y, shares, w, b, alpha, eps, norm, loss, box) -> dict[str, float]:
    """What `certificate` returns."""
    margins = _worst_margins(x, y, w, b, eps, norm, box)
    primal = float(shares @ losses_of(loss, margins))
    alpha, total = _balanced(alpha, y, shares)
    span = np.ptp(x, axis=0)
    varies = span > 0  # else e is 0
    misses = _misses(x, y, alpha, total, eps, norm, box)
    violation = float((misses[varies] / span[varies]).max(initial=0.0))
    value = total if loss == "hinge" else _entropy(alpha, shares)
    dual = value * (1 - _rounding(len(y))) - violation * REACH * (np.abs(w) @ span + 1)
    dual = max(float(dual), 0.0)  # that of alpha = 0
    gap = (primal - dual) / max(primal, 1 / len(y))
    return {"primal": primal, "dual": dual, "gap": gap, "violation": violation}


def _rounding(n: int) -> float:
    """The largest relative error of a sum of n positive products, in blocks of sqrt(n).

    It is that of three such sums: where alpha is balanced, two more are divided by each other.
    """
    return (6 * np.sqrt(n) + 20) * ROUNDING


def _worst_margins(x, y, w, b, eps, norm, box) -> np.ndarray:
    """The smallest margins (n,) in the ball and the box."""
    margins = y * (x @ w + b)
    if box is None:
        return margins - eps * dual_norm(w, norm)
    for sign in (-1, 1):
        chosen = np.flatnonzero(y == sign)
        for rows in (chosen[k : k + BLOCK] for k in range(0, len(chosen), BLOCK)):
            margins[rows] -= np.minimum(eps, room(x[rows], sign * w, box)) @ np.abs(w)
    return margins


def _balanced(alpha, y, shares) -> tuple[np.ndarray, float]:
    """alpha within [0, s], with equal sums over the two classes; and its sum."""
    alpha = np.clip(alpha, 0, shares)
    sums = [float(alpha[y == sign].sum()) for sign in (-1, 1)]
    least = min(sums)
    scales = [least / one if one > 0 else 0.0 for one in sums]
    return alpha * np.where(y > 0, scales[1], scales[0]), 2 * least


def _misses(x, y, alpha, total, eps, norm, box) -> np.ndarray:
    """e (d,) >= 0 with F(w, b) >= the value of alpha - e.|w|: 0 where alpha keeps the constraint.

    Of what its two sides are, rounding is given the worst of.
    """
    low, span = x.min(axis=0), np.ptp(x, axis=0)
    centre = low + span / 2  # a shift of the features changes b alone
    pull, terms = np.zeros(len(centre)), np.zeros(len(centre))
    moves = np.zeros((2, len(centre)))  # against a positive weight, against a negative one
    block = int(np.sqrt(len(y))) + 1
    for k in range(0, len(y), block):
        rows = slice(k, k + block)
        away = x[rows] - centre
        pull += (alpha[rows] * y[rows]) @ away
        terms += alpha[rows] @ np.abs(away)
        if box is not None:
            down, up = np.minimum(eps, x[rows] - box[0]), np.minimum(eps, box[1] - x[rows])
            ones = y[rows, None] > 0
            moves[0] += alpha[rows] @ np.where(ones, down, up)
            moves[1] += alpha[rows] @ np.where(ones, up, down)
    rounding = _rounding(len(y))
    terms *= rounding
    if box is not None:
        sides = np.array([pull, -pull]) + terms - moves * (1 - rounding)
        return np.maximum(sides.max(axis=0), 0)
    pull, allowed = np.abs(pull) + terms, eps * total * (1 - rounding)
    if norm == "inf":
        return np.maximum(pull - allowed, 0)
    size = np.linalg.norm(pull, ORDER[norm]) * (1 + rounding)
    return pull * (1 - allowed / size) if size > allowed else np.zeros(len(pull))


def _entropy(alpha, shares) -> float:
    """sum_i s_i h(alpha_i / s_i) of the logistic loss."""
    inside = (alpha > 0) & (alpha < shares)
    a = alpha[inside] / shares[inside]
    return float(-shares[inside] @ (a * np.log(a) + (1 - a) * np.log1p(-a)))


# --- the solver ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """What the interior point is given, and what its bounds are held against.

    Attributes:
        rows, cone: as in advlinear/interior.py, over features centred and scaled to a range of 1.
        costs: (n,) the shares times n.
        start: theta inside the cone.
        loss, tol: as of `minimise`.
        exact: at eps = 0 alpha keeps the constraint to rounding, as there is no room to spare.
        report: called with a line of text after each step.
    """

    rows: interior.Plain | interior.Split | interior.Boxed
    cone: interior.Nonnegative | interior.Largest | interior.Lorentz
    costs: np.ndarray
    start: np.ndarray
    loss: str
    tol: float
    exact: bool
    report: Callable[[str], object] | None

    @property
    def ends_on_vertex(self) -> bool:
        return self.loss == "hinge" and isinstance(self.rows, interior.Split | interior.Boxed)


def _solve(x, y, shares, eps, norm, loss, box, tol, report) -> tuple:
    """w (d,), b, alpha (n,), and what `certificate` says of them."""
    n, d = x.shape
    centre, span = x.mean(axis=0), np.ptp(x, axis=0)
    eps = eps if eps > TINY * span.max() else 0.0  # squares would underflow
    used = np.flatnonzero(span > 0)  # a feature that does not vary does nothing that b does not
    if not len(used):
        used, span = np.arange(1), np.ones(d)
    rows, cone, start = _scaled(x, y, eps, norm, box, used, centre[used], span[used])
    problem = Problem(rows, cone, shares * n, start, loss, tol, eps == 0, report)

    def prove(theta, alphas):
        """The best proof for theta: one for all weights, if there is one that is near enough."""
        theta, alphas = _simplest(problem, theta, alphas)
        w = np.zeros(d)
        w[used] = rows.weights(theta) / span[used]
        b = float(theta[-1] - w @ centre)
        proofs = []
        for alpha in alphas:
            proof = _bounds(x, y, shares, w, b, alpha / n, eps, norm, loss, box)
            proofs.append((w, b, alpha / n, proof))
        enough = [one for one in proofs if one[3]["gap"] <= tol] or proofs
        return min(enough, key=lambda one: (one[3]["violation"] > 0, one[3]["gap"]))

    return _by_parts(problem, prove)


def _scaled(x, y, eps, norm, box, used, centre, span) -> tuple:
    """The rows and the cone of the interior point, and a theta inside."""
    scale, d = eps / span, len(used)
    boxed = box is not None and eps > 0
    both = np.empty((len(y), 2 * d if boxed else d))
    for k in range(0, len(y), BLOCK):
        rows, sign = slice(k, k + BLOCK), y[k : k + BLOCK, None]
        yx = sign * (x[rows, used] - centre) / span
        both[rows, :d] = yx
        if boxed:  # y x - plus beside -y x - minus: what a unit of u and of v adds to the margins
            low, high = x[rows, used] - box[0][used], box[1][used] - x[rows, used]
            both[rows, :d] -= np.minimum(eps, np.where(sign > 0, low, high)) / span
            both[rows, d:] = -yx - np.minimum(eps, np.where(sign > 0, high, low)) / span
    if norm == "inf" and eps > 0:
        rows = interior.Boxed(both, y) if boxed else interior.Split(both, y, scale)
        return rows, interior.Nonnegative(2 * d), np.append(np.full(2 * d, 0.5 / d), 0.0)
    cone = interior.Lorentz(scale) if norm == "2" and eps > 0 else interior.Largest(scale)
    return interior.Plain(both, y), cone, np.append(1.0, np.zeros(d + 1))


def _by_parts(problem: Problem, prove: Callable) -> tuple:
    """What `prove` returns of theta and alphas, from the samples that decide where there are many.

    Most margins are far from 1, where the hinge is linear: a look at a few samples shows on which
    side. Those near 1, and those found on the wrong side, are solved for exactly. Features far
    from use are left out, too, where `vertex.finish` adds those that it misses.
    """
    rows, costs, cone, n = problem.rows, problem.costs, problem.cone, len(problem.costs)
    if problem.loss == "logistic" or n * rows.width**2 <= SMALL:
        return prove(*_finish(problem, _interior(problem, np.arange(n), np.zeros(n), problem.tol)))
    count = max(n // 16, FEWEST)
    chosen = np.random.default_rng(0).permutation(n)[:count]
    chosen = np.union1d(chosen, [np.argmax(rows.y), np.argmin(rows.y)])  # both classes
    point, wrong = _interior(problem, chosen, np.zeros(n), FIRST_TOL), np.zeros(0, dtype=np.int64)
    columns = None
    if problem.ends_on_vertex:
        close = point.z < FAR * np.median(point.z)
        close = (close | (point.theta[:-1] > point.z)).reshape(2, -1).any(axis=0)
        columns = np.flatnonzero(np.tile(close, 2))
    count = n // 8
    margins = rows.dot(cone.tight(point.theta))
    while True:
        nearest = np.argsort(np.abs(margins - 1), kind="stable")[:count]
        chosen = np.union1d(nearest, wrong)
        if len(chosen) == n:
            columns = None
        fixed = np.where(margins < 1, costs, 0.0)
        fixed[chosen] = 0
        point = _interior(problem, chosen, fixed, problem.tol, columns)
        found = prove(*_finish(problem, point))
        if found[-1]["gap"] <= problem.tol or len(chosen) == n:
            return found
        margins = rows.dot(cone.tight(point.theta))
        wrong = np.union1d(chosen, np.flatnonzero((margins < 1) != (fixed > 0)))
        count = min(2 * count, n)


def _finish(problem: Problem, point: interior.Point) -> tuple[np.ndarray, list]:
    """theta and alphas to choose from: a vertex, or as the interior point left them."""
    if problem.exact and problem.loss == "hinge":
        return _vertex_without_attack(problem, point)
    if problem.ends_on_vertex:
        return _vertex(problem, point)
    if isinstance(problem.rows, interior.Split | interior.Boxed):
        return _sparse(problem, point)
    return problem.cone.tight(point.theta), [point.alpha]


def _interior(problem: Problem, samples, fixed, tol, columns=None) -> interior.Point:
    """The interior point over some samples and columns of theta (all by default).

    Of the other samples alpha is `fixed` (n,), and of the other columns theta is 0.
    """
    n, costs = len(problem.costs), problem.costs[samples]
    rows, cone, start, pull = problem.rows, problem.cone, problem.start, problem.rows.adjoint(fixed)
    if columns is not None:
        kept = np.append(columns, len(start) - 1)
        rows, cone = rows.subset(samples, columns), interior.Nonnegative(len(columns))
        start, pull = start[kept], pull[kept]
    elif len(samples) < n:
        rows = rows.subset(samples)
    known = float(fixed.sum())
    late = 0

    def judge(point, number):
        nonlocal late
        theta = cone.tight(point.theta)
        margins, total = rows.dot(theta), point.alpha.sum() + known
        primal = (costs @ losses_of(problem.loss, margins) + known - pull @ theta) / n
        value = total if problem.loss == "hinge" else _entropy(point.alpha, costs)
        gap = (primal - value / n) / max(primal, 1 / n)
        left = rows.adjoint(point.alpha) + pull
        if problem.exact:
            largest = REACH * (1 + np.abs(rows.weights(theta)).sum())
            inside = np.abs(left[1:-1]).max() * largest <= tol / 4 * max(primal * n, 1)
        else:
            inside = cone.room(left, _rounding(n) * total + 2 * abs(left[-1])) >= 0
        inside &= abs(left[-1]) <= tol / 100 * max(primal * n, 1)
        if problem.report:
            problem.report(
                f"{len(samples)} samples, step {number}: loss {primal:.7f}, gap {gap:.1e}"
                f"{'' if inside else ', not yet within the constraints'}"
            )
        late += abs(gap) <= tol / 2
        done = (abs(gap) <= tol / 2 and inside) or late == LATE
        separated = not known and margins.min() > 0
        return done or separated or primal < -1, 0.1 * tol * max(primal, 1 / n) * n

    point = interior.solve(rows, cone, costs, pull, problem.loss, start, judge)
    alpha = fixed.copy()
    alpha[samples] = point.alpha
    if columns is None:
        return interior.Point(point.theta, alpha, point.z)
    theta, z = np.zeros(len(problem.start)), np.ones(len(problem.start) - 1)
    theta[kept], z[columns] = point.theta, point.z
    return interior.Point(theta, alpha, z)


def losses_of(loss: str, margins: np.ndarray) -> np.ndarray:
    """The loss "hinge" or "logistic" at margins of any shape."""
    return hinge(margins) if loss == "hinge" else np.logaddexp(0, -margins)


def _vertex(problem: Problem, point: interior.Point) -> tuple[np.ndarray, list]:
    """theta of a vertex, or the interior point's where there is none; and alphas to choose from.

    The vertex's alpha would be on the boundary of the constraints, but for a margin for rounding.
    """
    margin = 4 * _rounding(len(point.alpha)) * point.alpha.sum()
    found = vertex.finish(problem.rows, problem.costs, point.theta, point.alpha, point.z, margin)
    if found is None:
        return problem.cone.tight(point.theta), [point.alpha]
    return found[0], [found[1], point.alpha]


def _vertex_without_attack(problem: Problem, point: interior.Point) -> tuple[np.ndarray, list]:
    """The same at eps = 0, where all balls are one and alpha has no room beside the vertices."""
    w, b = point.theta[1:-1], point.theta[-1:]
    rows = interior.Split(problem.rows.yx, problem.rows.y, np.zeros(len(w)))
    theta = np.concatenate([np.maximum(w, 0), np.maximum(-w, 0), b])
    found = vertex.finish(rows, problem.costs, theta, point.alpha, np.zeros(2 * len(w)), 0.0)
    if found is None:
        return problem.cone.tight(point.theta), [point.alpha]
    theta, alpha = found
    return np.concatenate([[0.0], rows.weights(theta), theta[-1:]]), [alpha, point.alpha]


def _sparse(problem: Problem, point: interior.Point) -> tuple[np.ndarray, list]:
    """theta with the weights at 0 that the constraints hold there, if its loss is no larger.

    Nor may it lose that all margins are positive: the interior point may have stopped for that.
    """
    tight = problem.cone.tight(point.theta)
    sparse = np.append(np.where(point.theta[:-1] > point.z, tight[:-1], 0), tight[-1])
    margins = [problem.rows.dot(one) for one in (tight, sparse)]
    losses = [problem.costs @ losses_of(problem.loss, one) for one in margins]
    no_larger = losses[1] - losses[0] <= problem.tol / 4 * max(losses[0], 1)
    separates = margins[1].min() > 0 or not margins[0].min() > 0
    return sparse if no_larger and separates else tight, [point.alpha]


def _simplest(problem: Problem, theta, alphas: list) -> tuple[np.ndarray, list]:
    """theta and alphas of the two cases in which the minimum is known.

    No weights where they are as good; and where all margins are positive those times what brings
    the loss (near) 0, with alpha 0.
    """
    rows, costs = problem.rows, problem.costs
    margins = rows.dot(theta)
    if margins.min() > 0:
        enough = 1 if problem.loss == "hinge" else np.log(2 * len(costs) / problem.tol)
        return theta * max(1, enough / margins.min()), [*alphas, np.zeros(len(costs))]
    none, sums = np.zeros(len(theta)), [costs[rows.y == sign].sum() for sign in (-1, 1)]
    odds = sums[1] / sums[0]
    none[-1] = np.sign(odds - 1) if problem.loss == "hinge" else np.log(odds)
    least, without = (costs @ losses_of(problem.loss, rows.dot(one)) for one in (theta, none))
    as_good = without - least <= problem.tol / 4 * max(least, 1)
    return none if as_good else theta, alphas
