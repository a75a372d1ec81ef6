"""From a problem to w, b and alpha: what the interior point is given, and what follows it.

Features are centred and scaled to a range of 1. The interior point (interior.py) solves that
program; of many samples, those that decide. Where the minimum is that of a linear program whose
weights are mostly 0, the simplex method goes on to a vertex (vertex.py). The certificate decides
what is returned.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from advlinear import chunks
from advlinear.minima import certificate, cones, interior, operators, spread, vertex
from advlinear.minima.losses import First, losses_of
from advlinear.minima.scaled import Scaled, Sides
from advlinear.samples import LARGE, JointProblem, Problem, extremes

ADVICE_OF_SPARSE = (
    "raise tol; change eps, as near the margin of separable classes there may be none in reach; or "
    "scale X, or pass X.toarray(), where a feature has a range much smaller than its numbers"
)
ADVICE = (
    "raise tol, subtract the mean of each feature and scale it to a range of about 1, or change "
    "eps by a thousandth"
)
ADVICE_WITHOUT_BIAS = (  # to subtract the mean would be another problem
    "raise tol, scale each feature to numbers of about 1, or change eps by a thousandth"
)
UNEVEN = 1e4  # the ratio of two weights from which they may be why there is no certificate
LEAST_EPS = 1e-100  # of the largest range; a smaller eps is solved as 0
LEAST_PENALTY = 1e-20  # of the largest range: a smaller one has the same weights, but for rounding
LARGEST_EPS = 1e20  # of the largest range; a larger eps is solved as this: w = 0 is best at both
INSIDE = 1e-3  # of tol: by that share of eps a smaller L2 or L1 ball is solved for
FIRST_TOL = 1e-2  # of the first look, on a sixteenth of the samples
FEWEST = 1500  # or at least so many
FAR = 0.5  # a constraint with less than this share of the median slack may be in use
LATE = 20  # steps that the interior point is given to bring alpha within the constraints
MANY = 0.1  # of the columns: if more are missing, the interior point is given them, too
AT_ONCE = 6e4  # entries of A up to which HiGHS is quicker without an interior point before it
SMALL = 4e9  # n d^2 up to which all samples are given to the interior point at once


@dataclass(frozen=True)
class Program:
    """What the interior point is given, and what its bounds are held against.

    Attributes:
        operator, cone: of the interior point, over features centred and scaled to a range of 1.
        ball: the cone of eps itself, where `cone` is that of a slightly smaller eps: so alpha ends
            further inside its constraint than rounding reaches.
        sample_weight: (n,) the shares s_i of the samples times n; lightest: the smallest.
        start: theta inside the cone.
        loss, tol: as of `minimise`.
        exact: at eps = 0 alpha keeps the constraint to rounding, as it is an equation.
        report: called with a line of text after each step.
        cost: (p,) what theta costs beside the sum of the losses: 0; or with a budget for all
            samples together n t, as then no margin pays t.
    """

    operator: operators.Plain | operators.Split | operators.Boxed
    cone: cones.NormCone
    ball: cones.NormCone
    sample_weight: np.ndarray
    lightest: float
    start: np.ndarray
    loss: str
    tol: float
    exact: bool
    report: Callable[[str], object] | None
    cost: np.ndarray

    @property
    def shares_budget(self) -> bool:
        """Whether eps is a budget for all samples together."""
        return bool(self.cost.any())

    def value(self, theta: np.ndarray, margins: np.ndarray) -> float:
        """n times what is minimised, of theta and its margins."""
        losses = losses_of(self.loss, margins)
        return float(self.sample_weight @ losses + self.cost @ theta)

    @property
    def is_spread(self) -> bool:
        """Whether the samples are in a dask array."""
        return isinstance(self.operator.yx, spread.ScaledChunks)

    @property
    def ends_on_vertex(self) -> bool:
        return self.loss == "hinge" and isinstance(self.operator, operators.Split | operators.Boxed)


def advice(problem: Problem | JointProblem) -> str:
    """What to do where the bounds do not come together."""
    used = problem.weights[problem.weights > 0]
    advice = ADVICE if isinstance(problem.x, np.ndarray) else ADVICE_OF_SPARSE
    if isinstance(problem, Problem) and problem.mirrored:
        advice = ADVICE_WITHOUT_BIAS
    if used.max() < UNEVEN * used.min():
        return advice
    return (
        f"the numbers in sample_weight differ by a factor of {used.max() / used.min():.0e}, and "
        f"the gap is in units of the smallest: make small ones 0, or larger; or {advice}"
    )


def solve(problem: Problem, tol: float, report: Callable | None) -> tuple:
    """w (d,), b, alpha (n,), and what `certificate` says of them."""
    d = problem.x.shape[1]
    program, used, centre, span = _program(problem, tol, report)
    n = len(program.sample_weight)

    def prove(theta: np.ndarray, alphas: list) -> tuple:
        """The best proof for theta: one for all weights, if there is one that is near enough."""
        theta, alphas = _simplest(program, program.ball.tightest(theta), alphas)
        w, b = _model(program, theta, d, used, centre, span)
        if not (np.isfinite(w).all() and np.isfinite(b)):
            raise ValueError("no certificate: the steps of the solver overflow: " + advice(problem))
        proofs = []
        for one in alphas:
            alpha = problem.of_all(one / n)
            proofs.append((w, b, alpha, certificate.bounds(problem, w, b, alpha)))
        return best_proved(proofs, tol)

    return _by_parts(program, prove)


def _model(
    program: Program,
    theta: np.ndarray,
    d: int,
    used: np.ndarray,
    centre: np.ndarray,
    span: np.ndarray,
) -> tuple[np.ndarray, float]:
    """w (d,) and b of theta, in the units of the samples."""
    w = np.zeros(d)
    w[used] = program.operator.weights(theta) / span
    return w, float(theta[-1] - w[used] @ centre)


def penalised(
    x: np.ndarray, y: np.ndarray, c: float, norm: str, tol: float, start: float = 1.0
) -> tuple:
    """The least mean hinge plus c ||w||, where ||w|| is what the L2 or L1 ball costs.

    The dual is to maximise sum_i alpha_i over 0 <= alpha_i <= 1/n with sum_i alpha_i y_i = 0, where
    the size of sum_i alpha_i y_i x_i is at most c in the ball's norm. Nothing is certified.

    Args:
        x: (n, d).
        y: (n,) of -1 and 1, both of them.
        c: above 0. Below 1e-20 of the largest range, this is taken.
        norm: "2" or "1".
        tol: the duality gap aimed at, over max(minimum, 1/n).
        start: a factor of the solver's first theta.

    Returns:
        w (d,), b and alpha (n,).
    """
    n, d = x.shape
    classes, weights = np.array([-1, 1]), np.broadcast_to(1.0, n)
    c = max(c, LEAST_PENALTY * float(np.ptp(x, axis=0).max()))
    problem = Problem(x, y, classes, weights, c, norm, "hinge", None, "mean")
    program, used, centre, span = _program(problem, tol, None)
    program = replace(program, start=start * program.start)

    def prove(theta, alphas):
        value = program.value(theta, program.operator.matvec(theta))
        gap = (value - alphas[0].sum()) / max(value, 1)
        return *_model(program, theta, d, used, centre, span), alphas[0] / n, dict(gap=gap)

    return _by_parts(program, prove)[:3]


def best_proved(found: list, tol: float) -> tuple:
    """The best of several tuples that end with a proof, as of `certificate`.

    One for all weights, if there is one whose gap is small enough; of several the smallest gap.
    """
    enough = [one for one in found if one[-1]["gap"] <= tol] or found
    best: tuple = min(enough, key=lambda one: (one[-1]["violation"] > 0, one[-1]["gap"]))
    return best


def unit_ranges(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Which features (k,) vary, their centres and ranges (k,), and the eps to solve for.

    Where none varies it is the first one, with a range of 1.
    """
    centre = np.asarray(x.mean(axis=0, dtype=np.float64))
    low, high = extremes(x)
    span = high - low
    used = np.flatnonzero(span > 0)  # a feature that does not vary does nothing that b does not
    if not len(used):
        used, span = np.arange(1), np.ones(len(span))
    centre, span = centre[used], span[used]
    eps = eps if eps > LEAST_EPS * span.max() else 0.0  # squares would underflow
    if eps / LARGEST_EPS > span.max():  # or overflow
        eps = LARGEST_EPS * span.max()
    return used, centre, span, eps


def _program(problem: Problem, tol: float, report: Callable | None) -> tuple:
    """The program; which features vary; and their centres and ranges."""
    used, centre, span, eps = unit_ranges(problem.x, problem.eps)
    if problem.mirrored:
        centre = np.zeros(len(used))
    sample_weight = problem.half()[2]
    scaled = functools.partial(_scaled, problem, used, centre, span)
    operator, ball, start, cost = scaled(eps)
    cone = ball
    if problem.norm != "inf":
        cone = norm_cone(problem.norm, eps * (1 - INSIDE * tol) / span)
    if sample_weight.min() < 1:  # else all are 1
        sample_weight = sample_weight / sample_weight.sum() * len(sample_weight)
    return (
        Program(
            operator,
            cone,
            ball,
            sample_weight,
            sample_weight.min(),
            start,
            problem.loss,
            tol,
            eps == 0,
            report,
            cost,
        ),
        used,
        centre,
        span,
    )


def _scaled(
    problem: Problem, used: np.ndarray, centre: np.ndarray, span: np.ndarray, eps: float
) -> tuple:
    """The operator and the cone of the interior point, a theta inside, and what theta costs."""
    x, y, _, of_bias = problem.half()
    norm, scale, d, sides = problem.norm, eps / span, len(used), None
    charge = 0.0 if problem.budget == "mean" and eps > 0 else 1.0
    if problem.box is not None and eps > 0:
        sides = Sides(problem.box[0][used], problem.box[1][used], eps)
    yx: np.ndarray | Scaled | spread.ScaledChunks
    if chunks.is_chunked(x):
        yx = spread.ScaledChunks.of(x, y, used, centre, span)
    else:
        scaled = Scaled(x, y, used, centre, span, sides)
        yx = scaled.array() if math.prod(scaled.shape) <= LARGE else scaled
    operator: operators.Plain | operators.Split | operators.Boxed
    cone: cones.NormCone
    if norm == "inf" and eps > 0:
        operator = operators.Split(yx, of_bias, scale, charge)
        if sides is not None:
            operator = operators.Boxed(yx, of_bias)
        cone = cones.Nonnegative(2 * d)
        start, size = np.append(np.full(2 * d, 0.5 / d), 0.0), np.append(np.tile(scale, 2), 0.0)
    else:
        operator, cone = operators.Plain(yx, of_bias, charge), norm_cone(norm, scale)
        start = size = np.append(1.0, np.zeros(d + 1))
    if not charge:  # z fulfils (4) up to A^T alpha, unless w would be far too large for that
        start = start * (min(cone.degree / len(y), eps / span.max()) / (size @ start))
    return operator, cone, start, (1 - charge) * len(y) * size


def norm_cone(norm: str, scale: np.ndarray) -> cones.Lorentz | cones.Largest:
    """The cone of Plain: t is at least the dual norm of w times the scale."""
    return cones.Lorentz(scale) if norm == "2" and scale.any() else cones.Largest(scale)


def _by_parts(program: Program, prove: Callable) -> tuple:
    """What `prove` returns of theta and alphas, from the samples that decide where there are many.

    Most margins are far from 1, where the hinge is linear: a look at a few samples shows on which
    side. Those near 1, and those found on the wrong side, are solved for exactly. Features far
    from use are left out, too, where `vertex.finish` adds those that it misses.
    """
    operator, ball, sample_weight = program.operator, program.ball, program.sample_weight
    n = len(sample_weight)
    if program.ends_on_vertex and n * len(program.start) <= AT_ONCE and not program.is_spread:
        found = _at_once(program, prove)
        if found and found[-1]["gap"] <= program.tol and not found[-1]["violation"]:
            return found
    small = program.is_spread or n * operator.n_columns**2 <= SMALL
    plain = program.loss == "hinge" and not program.shares_budget
    if program.loss == "logistic" or small:
        point = _interior(program, None, None, program.tol)
        if plain and operator.matvec(ball.tightest(point.theta)).min() > 0:
            found = prove(point.theta, [])  # its margins prove the loss 0
            if found[-1]["gap"] <= program.tol:
                return found
        return prove(*_finish(program, point))
    count = max(n // 16, FEWEST)
    chosen = np.random.default_rng(0).permutation(n)[:count]
    chosen = np.union1d(chosen, [np.argmax(operator.y), np.argmin(operator.y)])  # both classes
    point, wrong = _interior(program, chosen, np.zeros(n), FIRST_TOL), np.zeros(0, dtype=np.int64)
    columns = None
    if program.ends_on_vertex:
        near = (point.z < FAR * np.median(point.z)) | (point.theta[:-1] > point.z)
        close = np.logical_or(*near.reshape(2, -1))  # u_j or v_j
        columns = np.flatnonzero(np.tile(close, 2)) if close.any() else None
    count = n // 8
    margins = operator.matvec(ball.tightest(point.theta))
    while True:
        nearest = np.argsort(np.abs(margins - 1), kind="stable")[:count]
        chosen = np.union1d(nearest, wrong)
        if len(chosen) == n:
            columns = None
        alpha_outside = np.where(margins < 1, sample_weight, 0.0)
        alpha_outside[chosen] = 0
        point = _interior(program, chosen, alpha_outside, program.tol, columns)
        theta = ball.tightest(point.theta)
        margins = operator.matvec(theta)
        if plain and margins.min() > 0:
            return prove(theta, [])  # its margins prove the loss 0
        # With wrong sides the losses that are taken to be linear may fall without end.
        assumed = sample_weight[chosen] @ losses_of("hinge", margins[chosen])
        assumed += alpha_outside @ (1 - margins)
        missing = _missing(program, point.alpha, columns)
        if columns is not None and len(missing) > MANY * len(columns):
            columns = np.union1d(columns, missing)
        elif assumed >= 0 or len(chosen) == n:
            found = prove(*_finish(program, point))
            if found[-1]["gap"] <= program.tol or len(chosen) == n:
                return found
        wrong = np.union1d(chosen, np.flatnonzero((margins < 1) != (alpha_outside > 0)))
        count = min(2 * count, n)


def _missing(program: Program, alpha: np.ndarray, columns: np.ndarray | None) -> np.ndarray:
    """The columns of theta, beside those given, whose constraints alpha misses; with u_j v_j."""
    if columns is None:
        return np.zeros(0, dtype=np.int64)
    misses = program.operator.rmatvec(alpha)[:-1] > program.cost[:-1]
    misses[columns] = False
    return np.flatnonzero(np.tile(np.logical_or(*misses.reshape(2, -1)), 2))


def _at_once(program: Program, prove: Callable) -> tuple | None:
    """What `prove` returns of a vertex that HiGHS finds without an interior point; None without."""
    operator, n = program.operator, len(program.sample_weight)
    assert isinstance(operator, operators.Split | operators.Boxed)
    cost = program.cost[:-1]
    vertex_found = vertex.at_once(operator, program.sample_weight, cost, 4 * _inside(n))
    if vertex_found is None:
        return None
    theta, alpha = vertex_found
    found: tuple = prove(theta, [alpha])
    if program.report:
        proof = found[-1]
        program.report(f"{n} samples at once: loss {proof['primal']:.7f}, gap {proof['gap']:.1e}")
    return found


def _finish(program: Program, point: interior.Point) -> tuple[np.ndarray, list]:
    """theta and alphas to choose from: a vertex, or as the interior point left them."""
    operator = program.operator
    if isinstance(operator, operators.Plain):
        if program.exact and program.loss == "hinge":
            return _vertex_without_attack(program, operator, point)
        return program.ball.tightest(point.theta), [point.alpha]
    if program.loss == "hinge":
        return _vertex(program, operator, point)
    return _sparse(program, point)


def _interior(
    program: Program,
    samples: np.ndarray | None,
    alpha_outside: np.ndarray | None,
    tol: float,
    columns: np.ndarray | None = None,
) -> interior.Point:
    """The interior point over some samples and columns of theta (all where they are None).

    Of the other samples alpha is `alpha_outside` (n,), and of the other columns theta is 0.
    """
    operator, cone, ball, start = program.operator, program.cone, program.ball, program.start
    n, sample_weight = len(program.sample_weight), program.sample_weight
    linear_term, known = np.zeros(len(start)), 0.0
    if samples is not None and alpha_outside is not None:
        sample_weight, known = sample_weight[samples], float(alpha_outside.sum())
        linear_term = operator.rmatvec(alpha_outside)
    linear_term -= program.cost
    if columns is not None:
        assert samples is not None
        assert isinstance(operator, operators.Split | operators.Boxed)
        kept = np.append(columns, len(start) - 1)
        operator, cone = operator.restricted(samples, columns), cones.Nonnegative(len(columns))
        ball = cone
        start, linear_term = start[kept], linear_term[kept]
    elif samples is not None and len(samples) < n:
        operator = operator.subset(samples)
    late, lightest = 0, program.lightest

    def stopping_rule(iterate: interior.Iterate, number: int) -> tuple[bool, float]:
        nonlocal late
        theta = ball.tightest(iterate.theta)
        judged = iterate.samples.each(interior.Block.judge, iterate.theta, theta)[1]
        (losses, value, mass), (least_margin,) = judged
        total = mass + known
        primal = (losses + known - linear_term @ theta) / n
        gap = (primal - (value + known) / n) / max(primal, lightest / n)
        left = iterate.adjoint + linear_term
        if program.exact:
            largest = certificate.REACH * (1 + np.abs(operator.weights(theta)).sum())
            inside = np.abs(left[1:-1]).max() * largest <= tol / 4 * max(primal * n, lightest)
        else:
            inside = ball.dual_slack(left, _inside(n) * total + 2 * abs(left[-1])) >= 0
        inside &= abs(left[-1]) <= tol / 100 * max(primal * n, lightest)
        if program.report:
            program.report(
                f"{len(sample_weight)} samples, step {number}: loss {primal:.7f}, gap {gap:.1e}"
                f"{'' if inside else ', not yet within the constraints'}"
            )
        late += abs(gap) <= tol / 2
        done = (abs(gap) <= tol / 2 and inside) or late == LATE
        separated = not known and not program.shares_budget and least_margin > 0
        separated = separated and operator.matvec(theta).min() > 0  # not by rounding alone
        return done or separated or primal < -1, 0.1 * tol * max(primal * n, lightest)

    first = First.of(program.loss, sample_weight, operator.y)
    given = operator, cone, linear_term, first, start, stopping_rule
    point = interior.solve(*given, begin=spread.Spread.start if program.is_spread else None)
    if samples is None or alpha_outside is None:
        return point
    alpha = alpha_outside.copy()
    alpha[samples] = point.alpha
    if columns is None:
        return interior.Point(point.theta, alpha, point.z)
    theta, z = np.zeros(len(program.start)), np.ones(len(program.start) - 1)
    theta[kept], z[columns] = point.theta, point.z
    return interior.Point(theta, alpha, z)


def _inside(n: int) -> float:
    """How far inside the constraints alpha is to be, as a share of its sum, for the certificate."""
    return (6 * np.sqrt(n) + 20) * certificate.U


def _vertex(
    program: Program, operator: operators.Split | operators.Boxed, point: interior.Point
) -> tuple[np.ndarray, list]:
    """theta of a vertex, or the interior point's where there is none; and alphas to choose from.

    The vertex's alpha would be on the boundary of the constraints, but for a margin for rounding.
    """
    margin = 4 * _inside(len(point.alpha)) * point.alpha.sum()
    found = vertex.finish(
        operator,
        program.sample_weight,
        point.theta,
        point.alpha,
        point.z,
        program.cost[:-1],
        margin,
    )
    if found is None:
        return program.ball.tightest(point.theta), [point.alpha]
    return found[0], [found[1], point.alpha]


def _vertex_without_attack(
    program: Program, plain: operators.Plain, point: interior.Point
) -> tuple[np.ndarray, list]:
    """The same at eps = 0, where all balls are one and the constraints on alpha are equations."""
    w, b = point.theta[1:-1], point.theta[-1:]
    operator = operators.Split(plain.yx, plain.y, np.zeros(len(w)))
    theta = np.concatenate([np.maximum(w, 0), np.maximum(-w, 0), b])
    nothing = np.zeros(2 * len(w))
    found = vertex.finish(
        operator, program.sample_weight, theta, point.alpha, nothing, nothing, 0.0
    )
    if found is None:
        return program.ball.tightest(point.theta), [point.alpha]
    theta, alpha = found
    return np.concatenate([[0.0], operator.weights(theta), theta[-1:]]), [alpha, point.alpha]


def _sparse(program: Program, point: interior.Point) -> tuple[np.ndarray, list]:
    """theta with the weights at 0 that the constraints hold there, if its loss is no larger.

    Nor may it lose that all margins are positive: the interior point may have stopped for that.
    """
    tight = program.ball.tightest(point.theta)
    sparse = np.append(np.where(point.theta[:-1] > point.z, tight[:-1], 0), tight[-1])
    margins = [program.operator.matvec(one) for one in (tight, sparse)]
    values = list(map(program.value, (tight, sparse), margins))
    no_larger = values[1] - values[0] <= program.tol / 4 * max(values[0], program.lightest)
    separates = margins[1].min() > 0 or not margins[0].min() > 0
    return sparse if no_larger and separates else tight, [point.alpha]


def _simplest(program: Program, theta: np.ndarray, alphas: list) -> tuple[np.ndarray, list]:
    """theta and alphas of the two cases in which the minimum is known.

    No weights where they are as good; and where all margins are positive those times what brings
    the loss (near) 0, with alpha 0.
    """
    operator, sample_weight = program.operator, program.sample_weight
    margins = operator.matvec(theta)
    if margins.min() > 0 and not program.shares_budget:
        enough = 1 + INSIDE * program.tol
        if program.loss == "logistic":
            enough = np.log(2 * len(sample_weight) / (program.lightest * program.tol))
        return theta * max(1, enough / margins.min()), [*alphas, np.zeros(len(sample_weight))]
    none, sums = np.zeros(len(theta)), [sample_weight[operator.y == sign].sum() for sign in (-1, 1)]
    if all(sums):  # else there is no bias
        odds = sums[1] / sums[0]
        none[-1] = np.sign(odds - 1) if program.loss == "hinge" else np.log(odds)
    least = program.value(theta, margins)
    without = program.value(none, operator.matvec(none))
    as_good = without - least <= program.tol / 4 * max(least, program.lightest)
    return none if as_good else theta, alphas
