"""From near a minimum to a vertex: the hinge in the L-infinity ball, by the simplex method.

The interior point ends near all optimal vertices, with tiny weights in place of 0. It knows which
constraints are active, and so nearly the basis of one vertex, which warm-starts HiGHS. HiGHS is
given the dual, (30) of docs/theory.md, over the samples near the kink of the hinge and over the
columns of A whose u_j or v_j may be positive. Then the constraints that the solution misses are
added, until it misses none.

Of a small problem HiGHS is given the whole dual at once, in place of the interior point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Array, Indices
from advlinear.minima.operators import Boxed, Split

SIMPLEX_TOLERANCE = 1e-9  # on each constraint; about HiGHS's own
MOST_PROGRAMS = 20
KINK_DISTANCE = 0.01  # samples whose margin is so close to 1 are in the program from the start
BOUND_SHARE = 1e-3  # of c: alpha that is closer to 0 or to c is taken to be there


def finish(
    operator: Split | Boxed,
    sample_weight: Array,
    theta: Array,
    alpha: Array,
    z: Array,
    cost: Array,
    dual_slack: float,
) -> tuple[Array, Array] | None:
    """theta (p,) and alpha (n,) of a vertex, from an interior point; None where HiGHS has none.

    Args:
        operator: of all samples and all columns.
        sample_weight: c (n,), positive.
        theta, alpha, z: of an interior point. alpha is 0 or c where a sample's side is known.
        cost: (p - 1,) what the entries of theta but the bias cost beside the losses.
        dual_slack: how far the vertex's alpha is to stay inside the constraints. It moves no theta.
    """
    c = sample_weight
    free = (alpha > BOUND_SHARE * c) & (alpha < c * (1 - BOUND_SHARE))
    samples = np.flatnonzero(free | (np.abs(operator.matvec(theta) - 1) < KINK_DISTANCE))
    columns = np.flatnonzero(theta[:-1] > z)
    active = np.ones(len(columns), dtype=bool)
    for _ in range(MOST_PROGRAMS):
        limits = cost[columns] - dual_slack
        solved = _simplex(operator, c, alpha, samples, columns, active, limits)
        if solved is None and len(samples) < len(c):  # a side was not known: there is no alpha
            samples = np.arange(len(c))
            solved = _simplex(operator, c, alpha, samples, columns, active, limits)
        if solved is None:
            return None
        theta, alpha, active = solved
        margins, descent = operator.matvec(theta), operator.rmatvec(alpha)[:-1] - cost
        wrong = np.where(
            alpha > c / 2, margins > 1 + SIMPLEX_TOLERANCE, margins < 1 - SIMPLEX_TOLERANCE
        )
        wrong[samples] = False
        missing = descent > (-dual_slack if dual_slack else SIMPLEX_TOLERANCE)
        missing[columns] = False
        if not wrong.any() and not missing.any():
            return theta, alpha
        samples = np.append(samples, np.flatnonzero(wrong))
        active = np.append(active, np.zeros(np.count_nonzero(missing), dtype=bool))
        columns = np.append(columns, np.flatnonzero(missing))
    return None


def at_once(
    operator: Split | Boxed, sample_weight: Array, cost: Array, dual_slack: float
) -> tuple[Array, Array] | None:
    """theta (p,) and alpha (n,) of a vertex, of a small problem; None where HiGHS has none.

    Args:
        operator: of all samples and all columns.
        sample_weight: c (n,), positive.
        cost: (p - 1,) as of `finish`.
        dual_slack: how far alpha is to stay inside the constraints, as a share of its sum.
    """
    n = len(sample_weight)
    entries = operator.entries(np.arange(n), np.arange(len(cost))) + dual_slack
    solved = _run(entries, operator.y, np.append(cost, 0.0), sample_weight)
    if solved is None:
        return None
    alpha, theta, _ = solved
    # A margin of 1 by these entries is by so much smaller by those of A.
    return theta / (1 - dual_slack * theta[:-1].sum()), alpha


def _simplex(
    operator: Split | Boxed,
    sample_weight: Array,
    alpha: Array,
    samples: Indices,
    columns: Indices,
    active: NDArray[np.bool_],
    limits: Array,
) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """Solve (30): maximise the sum of alpha over the samples, given that of the others, 0 or c.

    limits: of A^T alpha in each column. active: which columns' constraints are active at the start.
    Returns theta, alpha, and which are active at the end; None unless it is optimal.
    """
    share = alpha[samples] / sample_weight[samples]
    alpha = alpha.copy()
    alpha[samples] = 0
    alpha = np.where(alpha > sample_weight / 2, sample_weight, 0.0)
    outside = operator.rmatvec(alpha)
    limits = np.append(limits, 0.0) - np.append(outside[columns], outside[-1])
    entries = operator.entries(samples, columns)
    solved = _run(entries, operator.y[samples], limits, sample_weight[samples], (share, active))
    if solved is None:
        return None
    alpha[samples], prices, active = solved
    theta = np.zeros(len(outside))
    theta[columns], theta[-1] = prices[:-1], prices[-1]
    return theta, alpha, active


def _run(
    entries: Array,
    y: Array,
    limits: Array,
    sample_weight: Array,
    start: tuple[Array, NDArray[np.bool_]] | None = None,
) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """Maximise the sum of alpha (m,), where alpha @ entries <= limits[:-1], alpha @ y = limits[-1].

    Args:
        entries: (m, k).
        limits: (k + 1,).
        sample_weight: (m,), the largest alpha.
        start: a basis, as alpha / sample_weight and which constraints are active; else alpha = 0.

    Returns:
        alpha; the prices (k + 1,) of the constraints, entries of theta; and which of the first k
        are active. None unless it is optimal.
    """
    import highspy  # here, as `attack` does not need it

    matrix = np.hstack([entries, y[:, None]])
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = matrix.shape
    program.col_cost_ = -np.ones(len(y))
    program.col_lower_, program.col_upper_ = np.zeros(len(y)), sample_weight
    program.row_lower_ = np.append(np.full(len(limits) - 1, -highspy.kHighsInf), limits[-1])
    program.row_upper_ = limits
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.arange(len(y) + 1) * matrix.shape[1]
    program.a_matrix_.index_ = np.tile(np.arange(matrix.shape[1]), len(y))
    program.a_matrix_.value_ = matrix.ravel()
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("presolve", "off")  # which takes longer than it saves
    for side in ("primal", "dual"):
        solver.setOptionValue(f"{side}_feasibility_tolerance", SIMPLEX_TOLERANCE)
    solver.passModel(program)
    status = highspy.HighsBasisStatus
    if start is not None:
        share, active = start
        at_zero, at_weight = share < BOUND_SHARE, share > 1 - BOUND_SHARE
        basis = highspy.HighsBasis()
        basis.col_status = [
            status.kLower if zero else status.kUpper if whole else status.kBasic
            for zero, whole in zip(at_zero, at_weight, strict=True)
        ]
        rows = [*active, True]
        basis.row_status = [status.kUpper if one else status.kBasic for one in rows]
        solver.setBasis(basis)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    solution = solver.getSolution()
    prices = -np.array(solution.row_dual)
    prices[:-1][prices[:-1] <= SIMPLEX_TOLERANCE] = 0  # 0 but for rounding
    active = np.array([one != status.kBasic for one in solver.getBasis().row_status[:-1]], bool)
    return np.clip(solution.col_value, 0, sample_weight), prices, active
