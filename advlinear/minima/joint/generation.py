"""The least robust loss of several classes in the L-infinity ball: columns and options on demand.

A solver is given those columns whose constraints are nearly active, and those options that may be
the worst of their sample. After each round all others are looked at. A column joins whose
constraint alpha misses, and an option that is worse than those of its sample. At the end there are
none, and the solution is that of the whole program. First the interior point solves, then the
simplex method, from where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from advlinear.minima import Array, interior
from advlinear.minima.cones import Orthant
from advlinear.minima.joint import certificate, descent, groups, vertex
from advlinear.minima.joint.losses import (
    best_biases,
    dual_value,
    first_state,
    large_margin,
    losses_of,
)
from advlinear.minima.joint.operators import Columns
from advlinear.minima.joint.program import Part, Program, Solution, least
from advlinear.minima.program import best_proved, unit_ranges
from advlinear.minima.rounding import U
from advlinear.minima.vertex import BOUND_SHARE, KINK_DISTANCE
from advlinear.samples import JointProblem

ALL_AT_ONCE = 3e5  # rows times columns up to which the simplex method is given a part from nothing
MOST_ROUNDS = 40
FEWEST_SINGLE = 300  # samples, or an eighth of all, that have rows of their own at first
NEARLY_ACTIVE = 0.1  # a column with less slack, as a share of its right side, is in the first part
SMOOTHING = 0.02  # of the hinge, for the first alpha
ROUND_TOL = 1e-3  # of the first round; then a tenth of the gap that is left
BAND = 0.05  # a sample that joins brings all options whose hinge is so near its largest
NEAR_VERTEX = 1e-5  # a duality gap from which the simplex method has few steps to go
LARGE_WEIGHTS = 1e4  # sum_j r_j R_j(W), (M7), from which classes may be separable
FEW_STEPS = 40  # of the interior point; it needs more near to separable classes
LEAST_COST = 1e-5  # of a lambda, in units of the loss of a sample
OFF_BALANCE = 1e-12  # of the loss; the certificate takes it off alpha, which may then miss a column
FURTHER_INSIDE = 0.01  # of tol: by that share of eps a smaller ball is solved for at last


def solve(problem: JointProblem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """W (K, d), b (K,), alpha (n, K), no flow, and what the certificate says of them.

    With the logistic loss, where classes are separable, the weights grow without end, with a proof
    or without. So where they are large, each group of separable classes is solved for by itself.
    """
    found = _solve(problem, tol, report)
    W, gap = found[0], found[-1]["gap"]
    size = float(np.ptp(W, axis=0) @ np.ptp(problem.x, axis=0))
    if problem.loss == "hinge" or (gap <= tol and size < LARGE_WEIGHTS):
        return found
    by_this = partial(solve, report=report)
    separable = groups.separable(problem, np.arange(len(problem.classes)), tol, by_this)
    if separable is None:
        return found
    W, b, alpha, _ = groups.solve_each(problem, separable, tol, by_this)
    proof = certificate.bounds(problem, W, b, alpha)
    return (W, b, alpha, None, proof) if proof["gap"] <= max(gap, tol) else found


def _solve(problem: JointProblem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """The same, over all classes at once."""
    weighted = problem.weights > 0
    parts = {name: getattr(problem, name)[weighted] for name in ("x", "y", "weights")}
    program, used, centre, span = _program(replace(problem, **parts), tol, report)

    def prove(W: Array, b: Array, alpha: Array) -> tuple:
        whole = np.zeros((len(W), problem.x.shape[1]))
        whole[:, used] = W / span
        offset = b - whole[:, used] @ centre
        spread = np.zeros((len(weighted), len(W)))
        spread[weighted] = alpha / len(alpha)
        return whole, offset, spread, None, certificate.bounds(problem, whole, offset, spread)

    proofs = []
    for solution in _solutions(program):
        proofs.append(prove(*_simplest(program, solution)))
        proof = proofs[-1][-1]
        if proof["gap"] <= tol and not proof["violation"]:
            break
    return best_proved(proofs, tol)


def _program(problem: JointProblem, tol: float, report: Callable | None) -> tuple:
    """The program; which features vary; and their centres and ranges."""
    x, n_classes = problem.x, len(problem.classes)
    used, centre, span, eps = unit_ranges(x, problem.eps)
    price = eps / span
    slack = np.minimum((100 * np.sqrt(len(x)) + 1000) * U, price / 2)
    sets = (np.arange(1, 2**n_classes - 1)[:, None] >> np.arange(n_classes)) & 1
    program = Program(
        x=(x[:, used] - centre) / span,
        y=problem.y,
        c=problem.weights / problem.weights.mean(),
        sets=sets.astype(bool),
        price=price - slack,
        allowed=price - slack / 2,
        loss=problem.loss,
        tol=tol,
        report=report,
    )
    return program, used, centre, span


def _solutions(program: Program) -> Iterator[Solution]:
    """Solutions to try as proofs, until one is."""
    n_columns = len(program.sets) * program.x.shape[1]
    if program.loss == "logistic":
        without = _without_weights(program)
        yield without
        part = Part(program, program.rivals, program.y, without.in_use)
        part = part.extended(program.behind(without.W, without.b), without.alpha, BAND)
    elif program.rivals.sum() * n_columns <= ALL_AT_ONCE:
        columns = np.ones((len(program.sets), program.x.shape[1]), dtype=bool)
        part = Part(program, program.rivals, program.y, columns)
        yield from _at_vertices(part, None)
    else:
        part = narrow = _first(program)
        near = None
        if len(part.owner.sample) * part.columns.sum() > ALL_AT_ONCE:
            near, part = _rounds(part, complete=False)
            narrow = part if near is None else _narrowed(part, near)
            if near is not None and not near.alpha.any():  # the loss is 0
                yield near
        yield from _at_vertices(narrow, near)
    if part.columns.any():
        near, _ = _rounds(part, complete=True)
        assert near is not None
        yield near


def _without_weights(program: Program) -> Solution:
    """The least logistic loss with W = 0, and its alpha: it is optimal if no column is missing."""
    masses, d = np.bincount(program.y, program.c), program.x.shape[1]
    return Solution(
        W=np.zeros((len(masses), d)),
        b=best_biases(program.loss, masses),
        alpha=program.c[:, None] * masses / masses.sum() * program.rivals,
        in_use=np.zeros((len(program.sets), d), dtype=bool),
        basic=program.rivals,
        full=np.zeros(len(program.y), dtype=bool),
    )


def _at_vertices(part: Part, near: Solution | None) -> Iterator[Solution]:
    """Those of the simplex method.

    It may miss a constraint by 1e-9, which can be more than the room that the smaller eps of the
    program leaves. So a vertex for a still smaller eps is next.
    """
    program = part.program
    further_inside = replace(
        program,
        price=program.price * (1 - FURTHER_INSIDE * program.tol),
        allowed=program.allowed * (1 - FURTHER_INSIDE * program.tol / 2),
    )
    for one in (program, further_inside):
        at_vertex = _to_vertex(replace(part, program=one), near)
        if at_vertex is not None:
            yield at_vertex


def _first(program: Program) -> Part:
    """The options that may be worst, and the columns that may be in use, at a nearby W and b."""
    n = len(program.y)
    theta = descent.descend(program.x, program.y, program.c, program.price, program.n_classes)
    behind = program.behind(theta[:, :-1], theta[:, -1])
    alpha = program.c[:, None] * descent.shares(behind, program.y, SMOOTHING)
    slack = program.slack_share(alpha, program.price)
    columns = least(np.where(slack < NEARLY_ACTIVE, slack, np.inf), len(slack))
    if not columns.any():  # as no weights may be better than 0; the interior point needs one
        columns.flat[np.nanargmin(slack)] = True
    values = program.values(behind)
    below = values.max(axis=1, keepdims=True) - values
    second = np.partition(below, 1, axis=1)[:, 1]
    count = min(max(FEWEST_SINGLE, n // 8), n)
    band = np.partition(second, count - 1)[count - 1]
    options = (below <= band) & (second <= band)[:, None] & program.rivals
    return Part(program, options, values.argmax(axis=1), columns)


def _rounds(part: Part, complete: bool) -> tuple[Solution | None, Part]:
    """The interior point on one part after the other, until the duality gap is small enough.

    complete: until it is a proof, and nothing is missing. If not complete, it ends at a gap of
    NEAR_VERTEX, and the simplex method starts from this solution; or where the interior point takes
    more than FEW_STEPS, as it does near separable classes, and the simplex method starts without
    one (None). A small cost of each lambda keeps those bounded that grow there without a gain.
    """
    program = part.program
    tol, enough = ROUND_TOL, program.tol / 2 if complete else NEAR_VERTEX
    for number in range(1, MOST_ROUNDS + 1):
        solution = _interior(part, tol, complete)
        if solution is None:
            break
        behind = program.behind(solution.W, solution.b)
        primal, mass = program.total(behind), part.gathered(solution.alpha)
        dual = dual_value(program.loss, part.owner, part.c, mass)
        gap = abs(primal - dual) / max(primal, program.lightest)  # too large a dual misses columns
        larger = part.extended(behind, solution.alpha, BAND)
        if program.report:
            n_rows, m = len(part.owner.sample), np.count_nonzero(part.columns)
            program.report(
                f"round {number}: {n_rows} rows, {m} columns, loss {primal / len(behind):.7f}, "
                f"gap {gap:.1e}"
            )
        done = gap <= enough and (larger is part or not complete)
        if done or (larger is part and tol <= enough / 2):
            break
        if larger is part or gap < 10 * tol:
            tol = max(min(tol, gap) / 10, enough / 2)
        part = larger
    return solution, part


def _interior(part: Part, tol: float, complete: bool) -> Solution | None:
    """An iterate of the interior point with a duality gap of the part of at most tol, or None.

    Where all margins are positive, it is theta times what makes them at least 1, with alpha 0, as
    the loss is then 0.

    complete: as of `_rounds`. If not, lambda has a cost, and None is returned after FEW_STEPS.
    """
    cost, most_steps = (0.0, np.inf) if complete else (LEAST_COST, FEW_STEPS)
    program, owner, c, m = part.program, part.owner, part.c, len(part.column_set.features)
    off_balance = tol / 10 if program.loss == "hinge" else OFF_BALANCE  # a vertex has none
    operator, cone = Columns(part.matrix()), Orthant(m, program.n_classes - 1)

    number_of_steps = 0

    def stopping_rule(point: interior.Iterate, number: int) -> tuple[bool, float]:
        nonlocal number_of_steps
        number_of_steps = number
        margins = operator.matvec(point.theta)
        primal = float(c @ losses_of(program.loss, owner, margins))
        dual = dual_value(program.loss, owner, c, point.alpha)
        left = operator.rmatvec(point.alpha) + linear_term
        total = max(primal, program.lightest)
        inside = left[:m].max() <= 0 and np.abs(left[m:]).max() <= off_balance * total
        gap = primal + cost * point.theta[:m].sum() - dual
        done = margins.min() > 0 or (inside and gap <= tol * total)
        return bool(done or number == most_steps), 0.1 * tol * total

    first = partial(first_state, program.loss, c, owner, *part.classes)
    start = np.append(np.full(m, 0.5 / m), np.zeros(program.n_classes - 1))
    linear_term = np.append(np.full(m, -cost), np.zeros(program.n_classes - 1))
    point = interior.solve(operator, cone, linear_term, first, start, stopping_rule)
    if number_of_steps == most_steps:
        return None
    least_margin = float(operator.matvec(point.theta).min())
    if least_margin > 0:
        times = _times(program, least_margin)
        point = interior.Point(point.theta * times, 0 * point.alpha, point.z)
    in_use = np.zeros(part.columns.shape, dtype=bool)
    in_use[part.columns] = point.theta[:m] > point.z
    alpha = part.spread(point.alpha)
    share = alpha / program.c[:, None]
    basic = (share > BOUND_SHARE) & (share < 1 - BOUND_SHARE)
    full = share.sum(axis=1) > 1 - BOUND_SHARE
    return Solution(*part.weights(point.theta), alpha, in_use, basic, full)


def _times(program: Program, least_margin: float) -> float:
    """What to multiply weights by so that the loss is (near) 0, where all margins are positive."""
    enough = large_margin(program.loss, program.n_classes, program.c, program.tol)
    return max(1.0, enough / least_margin)


def _narrowed(part: Part, near: Solution) -> Part:
    """The part of columns in use, and of samples with more than one option that may be worst.

    That a sample has no loss is one of its options here, in the column of its own class.
    """
    program, samples = part.program, np.arange(len(near.alpha))
    values, alpha = program.values(program.behind(near.W, near.b)), near.alpha.copy()
    alpha[samples, program.y] = program.c - alpha.sum(axis=1)
    may_be = values > values.max(axis=1, keepdims=True) - KINK_DISTANCE
    may_be |= alpha > BOUND_SHARE * program.c[:, None]
    may_be &= may_be.sum(axis=1, keepdims=True) > 1
    may_be[samples, program.y] = False
    return Part(program, may_be, values.argmax(axis=1), near.in_use)


def _to_vertex(part: Part, near: Solution | None) -> Solution | None:
    """The simplex method on one part after the other, until nothing is missing."""
    program = part.program
    for _ in range(MOST_ROUNDS):
        solution = near = vertex.solve(part, near)
        if solution is None:
            return None
        behind = program.behind(solution.W, solution.b)
        larger = part.extended(behind, solution.alpha, KINK_DISTANCE)
        if program.report:
            program.report(f"vertex: loss {program.total(behind) / len(behind):.9f}")
        if larger is part:
            return solution
        part = larger
    return None


def _simplest(program: Program, solution: Solution) -> tuple[Array, Array, Array]:
    """W, b and alpha of a solution, or what is simpler where it is as good.

    No weights; and where all margins are positive those times what brings the loss (near) 0. Else
    the most common value of each feature is made 0: one vector may be added to all weights.
    """
    W, b, alpha = solution.W, solution.b, solution.alpha
    behind = program.behind(W, b)
    least_margin = -float(behind[program.rivals].max())
    if least_margin > 0:
        times = _times(program, least_margin)
        return W * times, b * times, 0 * alpha
    bias = best_biases(program.loss, np.bincount(program.y, program.c))
    with_weights, without = program.total(behind), program.total(program.behind(0 * W, bias))
    if without - with_weights <= program.tol / 4 * max(with_weights, program.lightest):
        return 0 * W, bias, alpha
    often = (W[:, None] == W).sum(axis=0)
    rank = np.argsort(np.argsort(W, axis=0, kind="stable"), axis=0)
    amid = -np.abs(2 * rank - program.n_classes + 1)  # of several values the one in the middle
    common = np.lexsort((amid, often), axis=0)[-1:]
    return W - np.take_along_axis(W, common, axis=0), b, alpha
