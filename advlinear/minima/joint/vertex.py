"""A vertex of a part of the program of several classes, by HiGHS's simplex method.

Its dual is solved, (M5) of docs/theory.md: one variable for each row, one constraint for each
column, each bias, and each sample with several options. At a vertex the weights of columns that
are not in use are exactly 0.
"""

from __future__ import annotations

import numpy as np

from advlinear.minima.joint.program import Part, Solution
from advlinear.minima.vertex import SIMPLEX_TOLERANCE

ROUNDED = 1e-12  # of c: a smaller alpha is what rounding leaves of 0


def solve(part: Part, near: Solution | None) -> Solution | None:
    """The solution at a vertex; None where HiGHS has none.

    near: a solution to start from, with its columns in use and alpha.
    """
    import highspy  # here, as `attack` does not need them
    import scipy.sparse

    owner, c, m = part.owner, part.c, len(part.column_set.features)
    n_biases, n_options = part.program.n_classes - 1, len(owner.sample)
    several = np.bincount(owner.sample, minlength=len(c)) > 1
    rows = np.flatnonzero(several[owner.sample])
    place = np.searchsorted(np.flatnonzero(several), owner.sample[rows])
    sums = scipy.sparse.csc_array(
        (np.ones(len(rows)), (place, rows)), shape=(several.sum(), n_options)
    )
    matrix = scipy.sparse.vstack([scipy.sparse.csc_array(part.matrix().T), sums], format="csc")
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = matrix.shape
    program.col_cost_ = -np.ones(n_options)
    program.col_lower_, program.col_upper_ = np.zeros(n_options), c[owner.sample]
    upper = np.concatenate([np.zeros(m + n_biases), c[several]])
    lower = np.full(len(upper), -highspy.kHighsInf)
    lower[m : m + n_biases] = 0
    program.row_lower_, program.row_upper_ = lower, upper
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = matrix.indptr
    program.a_matrix_.index_ = matrix.indices
    program.a_matrix_.value_ = matrix.data
    solver = highspy.Highs()
    solver.silent()
    for side in ("primal", "dual"):
        solver.setOptionValue(f"{side}_feasibility_tolerance", SIMPLEX_TOLERANCE)
    solver.passModel(program)
    status = highspy.HighsBasisStatus
    if near is not None:
        basis, whole = highspy.HighsBasis(), part.gathered(near.alpha) > c[owner.sample] / 2
        sample, rival = part.single
        between = np.zeros(n_options, dtype=bool)
        between[: len(sample)] = near.basic[sample, rival]
        none = owner.sum(between.astype(int)) == 0  # of a sample that had one option before
        between |= whole & (several & none)[owner.sample]
        basis.col_status = [
            status.kBasic if basic else status.kUpper if upper else status.kLower
            for basic, upper in zip(between, whole, strict=True)
        ]
        full = near.full[np.unique(sample)][several[: len(np.unique(sample))]]
        active = np.concatenate([near.in_use[part.columns], np.ones(n_biases, dtype=bool), full])
        basis.row_status = [status.kUpper if one else status.kBasic for one in active]
        solver.setBasis(basis)
    if solver.run() == highspy.HighsStatus.kError:  # the basis was close to a singular one
        solver.clearSolver()
        solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    solution, basis = solver.getSolution(), solver.getBasis()
    alpha = np.clip(solution.col_value, 0, c[owner.sample])
    alpha[alpha < ROUNDED * c[owner.sample]] = 0
    theta = -np.array(solution.row_dual)[: m + n_biases]
    theta[:m] = np.where(theta[:m] > SIMPLEX_TOLERANCE, theta[:m], 0)
    in_use = np.zeros(part.columns.shape, dtype=bool)
    in_use[part.columns] = [one != status.kBasic for one in basis.row_status[:m]]
    sample, rival = part.single
    basic = np.zeros(part.options.shape, dtype=bool)
    basic[sample, rival] = [one == status.kBasic for one in basis.col_status[: len(sample)]]
    full = part.spread(alpha).sum(axis=1) > part.program.c / 2
    full[np.unique(sample)[several[: len(np.unique(sample))]]] = [
        one != status.kBasic for one in basis.row_status[m + n_biases :]
    ]
    return Solution(*part.weights(theta), part.spread(alpha), in_use, basic, full)
