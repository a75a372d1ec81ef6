"""A vertex of a part of the program of several classes, by HiGHS's simplex method.

Its dual is solved, (M5) of docs/theory.md: one variable for each row, one constraint for each
column, each bias, and each sample with several options. At a vertex the weights of columns that
are not in use are exactly 0.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from advlinear.minima.joint.program import Part, Solution
from advlinear.minima.vertex import BOUND_SHARE, SIMPLEX_TOLERANCE


def solve(part: Part, near: Solution | None) -> Solution | None:
    """The solution at a vertex; None where HiGHS has none.

    near: a solution to start from, with its columns in use and alpha.
    """
    import highspy  # here, as `attack` does not need it

    owner, c, m = part.owner, part.c, len(part.column_set.features)
    counts = np.bincount(owner.sample, minlength=len(c))
    several = np.flatnonzero(counts > 1)
    rows = np.flatnonzero(counts[owner.sample] > 1)
    place = np.searchsorted(several, owner.sample[rows])
    sums = scipy.sparse.csc_array(
        (np.ones(len(rows)), (place, rows)), shape=(len(several), len(owner.sample))
    )
    matrix = scipy.sparse.vstack([scipy.sparse.csc_array(part.matrix().T), sums], format="csc")
    program, infinite = highspy.HighsLp(), highspy.kHighsInf
    program.num_row_, program.num_col_ = matrix.shape
    program.col_cost_ = -np.ones(matrix.shape[1])
    program.col_lower_ = np.zeros(matrix.shape[1])
    program.col_upper_ = c[owner.sample]
    n_biases = part.program.n_classes - 1
    program.row_lower_ = np.concatenate(
        [np.full(m, -infinite), np.zeros(n_biases), np.full(len(several), -infinite)]
    )
    program.row_upper_ = np.concatenate([np.zeros(m + n_biases), c[several]])
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = matrix.indptr
    program.a_matrix_.index_ = matrix.indices
    program.a_matrix_.value_ = matrix.data
    solver = highspy.Highs()
    solver.silent()
    for side in ("primal", "dual"):
        solver.setOptionValue(f"{side}_feasibility_tolerance", SIMPLEX_TOLERANCE)
    solver.passModel(program)
    if near is not None:
        status, basis = highspy.HighsBasisStatus, highspy.HighsBasis()
        share = part.gathered(near.alpha) / c[owner.sample]
        whole = (share > 1 - BOUND_SHARE) & (counts[owner.sample] == 1)
        basis.col_status = [
            status.kLower if zero else status.kUpper if one else status.kBasic
            for zero, one in zip(share < BOUND_SHARE, whole, strict=True)
        ]
        full = owner.sum(share)[several] > 1 - BOUND_SHARE
        active = np.concatenate([near.in_use[part.columns], np.ones(n_biases, dtype=bool), full])
        basis.row_status = [status.kUpper if one else status.kBasic for one in active]
        solver.setBasis(basis)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    solution = solver.getSolution()
    alpha = np.clip(solution.col_value, 0, c[owner.sample])
    theta = -np.array(solution.row_dual)[: m + n_biases]
    theta[:m] = np.where(theta[:m] > SIMPLEX_TOLERANCE, theta[:m], 0)
    in_use = np.zeros(part.columns.shape, dtype=bool)
    in_use[part.columns] = theta[:m] > 0
    return Solution(*part.weights(theta), part.spread(alpha), in_use)
