"""From near a minimum to a vertex: the hinge in the L-infinity ball, by the simplex method.

The interior point ends near all optimal vertices, with tiny weights in place of 0. It knows which
constraints are tight, and so nearly the basis of one of them, from where HiGHS goes on. It is given
the dual of advlinear/interior.py, over the samples whose loss may still be 0 or not and over the
columns of theta that may be in use. What the solution misses of the others' constraints is added.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-9  # on each constraint; about HiGHS's own
MOST_ROUNDS = 20
NEARBY = 0.01  # samples whose margin is so close to 1 are in the program from the start


def finish(rows, costs, theta, alpha, z, margin) -> tuple[np.ndarray, np.ndarray] | None:
    """theta and alpha (n,) of a vertex, from those of an interior point; None where HiGHS has none.

    Args:
        rows: Split or Boxed of advlinear/interior.py, of all samples.
        costs: c (n,), positive.
        theta, alpha, z: of an interior point. alpha is 0 or c where the side is known.
        margin: how far the vertex's alpha is to stay inside the constraints. It moves no theta.
    """
    inside = (alpha > 1e-3 * costs) & (alpha < costs * (1 - 1e-3))
    samples = np.flatnonzero(inside | (np.abs(rows.dot(theta) - 1) < NEARBY))
    columns = np.flatnonzero(theta[:-1] > z)
    tight = np.ones(len(columns), dtype=bool)
    for _ in range(MOST_ROUNDS):
        solved = _simplex(rows, costs, alpha, samples, columns, tight, margin)
        if solved is None and len(samples) < len(costs):  # a side was not known: there is no alpha
            samples = np.arange(len(costs))
            solved = _simplex(rows, costs, alpha, samples, columns, tight, margin)
        if solved is None:
            return None
        theta, alpha, basic = solved
        margins, excess = rows.dot(theta), rows.adjoint(alpha)[:-1]
        wrong = np.where(alpha > costs / 2, margins > 1 + TOLERANCE, margins < 1 - TOLERANCE)
        wrong[samples] = False
        missing = excess > (-margin if margin else TOLERANCE)
        missing[columns] = False
        if not wrong.any() and not missing.any():
            return theta, alpha
        samples = np.append(samples, np.flatnonzero(wrong))
        tight = np.append(~basic, np.zeros(np.count_nonzero(missing), dtype=bool))
        columns = np.append(columns, np.flatnonzero(missing))
    return None


def _simplex(rows, costs, alpha, samples, columns, tight, margin):
    """Maximise the sum of alpha over the samples, given those of the others, 0 or c.

    tight: which columns' constraints are so at the start. Returns theta, alpha, and which columns'
    constraints are in the basis (not tight) at the end; None unless it is optimal.
    """
    import highspy  # here, as `attack` does not need it

    alpha = alpha.copy()
    start = alpha[samples]
    alpha[samples] = 0
    alpha = np.where(alpha > costs / 2, costs, 0.0)
    outside = rows.adjoint(alpha)
    limits = -np.append(outside[columns] + margin, outside[-1])
    matrix = np.hstack([rows.columns(samples, columns), rows.y[samples, None]])
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = matrix.shape
    program.col_cost_ = -np.ones(len(samples))
    program.col_lower_, program.col_upper_ = np.zeros(len(samples)), costs[samples]
    program.row_lower_ = np.append(np.full(len(columns), -highspy.kHighsInf), limits[-1])
    program.row_upper_ = limits
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.arange(len(samples) + 1) * matrix.shape[1]
    program.a_matrix_.index_ = np.tile(np.arange(matrix.shape[1]), len(samples))
    program.a_matrix_.value_ = matrix.ravel()
    solver = highspy.Highs()
    solver.silent()
    for side in ("primal", "dual"):
        solver.setOptionValue(f"{side}_feasibility_tolerance", TOLERANCE)
    solver.passModel(program)
    status, basis = highspy.HighsBasisStatus, highspy.HighsBasis()
    share = start / costs[samples]
    basis.col_status = [
        status.kLower if part < 1e-3 else status.kUpper if part > 1 - 1e-3 else status.kBasic
        for part in share
    ]
    basis.row_status = [status.kUpper if one else status.kBasic for one in tight] + [status.kUpper]
    solver.setBasis(basis)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    solution = solver.getSolution()
    alpha[samples] = np.clip(solution.col_value, 0, costs[samples])
    duals = -np.array(solution.row_dual)
    theta = np.zeros(len(outside))
    theta[columns] = np.where(
        duals[:-1] > TOLERANCE, duals[:-1], 0
    )  # else it is 0 but for rounding
    theta[-1] = duals[-1]
    basic = np.array([one == status.kBasic for one in solver.getBasis().row_status[:-1]], bool)
    return theta, alpha, basic
