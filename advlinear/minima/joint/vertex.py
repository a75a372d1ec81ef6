"""A vertex of a part of the program of several classes, by HiGHS's simplex method.

Its dual is solved, (M5) of docs/theory.md: one variable for each row, one constraint for each
column, each bias, and each sample with several options. At a vertex the weights of columns that
are not in use are exactly 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Indices
from advlinear.minima.joint.program import Part, Solution
from advlinear.minima.vertex import SIMPLEX_TOLERANCE

ROUNDED = 1e-12  # of c: a smaller alpha is what rounding leaves of 0


def solve(part: Part, near: Solution | None) -> Solution | None:
    """The solution at a vertex; None where HiGHS reaches no optimum.

    near: one whose columns in use, `basic` and `full` make the first basis.
    """
    import highspy  # here, as `attack` does not need it

    several = np.bincount(part.owner.sample, minlength=len(part.c)) > 1
    solver = highspy.Highs()
    solver.silent()
    for side in ("primal", "dual"):
        solver.setOptionValue(f"{side}_feasibility_tolerance", SIMPLEX_TOLERANCE)
    solver.passModel(_linear_program(part, several))
    if near is not None:
        solver.setBasis(_basis(part, near, several))
    if solver.run() == highspy.HighsStatus.kError:  # the basis was close to a singular one
        solver.clearSolver()
        solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    return _solution(part, solver, several)


def _linear_program(part: Part, several: NDArray[np.bool_]) -> Any:
    """The dual as HiGHS takes it; several: which samples or groups have more than one option."""
    import highspy
    import scipy.sparse

    owner, c, m = part.owner, part.c, len(part.column_set.features)
    rows = np.flatnonzero(several[owner.sample])
    place = np.searchsorted(np.flatnonzero(several), owner.sample[rows])
    sums = scipy.sparse.csc_array(
        (np.ones(len(rows)), (place, rows)), shape=(several.sum(), len(owner.sample))
    )
    matrix = scipy.sparse.vstack([scipy.sparse.csc_array(part.matrix().T), sums], format="csc")
    upper = np.append(np.zeros(m + part.program.n_classes - 1), c[several])
    lower = np.full(len(upper), -highspy.kHighsInf)
    lower[m : len(upper) - several.sum()] = 0  # of the biases
    program = highspy.HighsLp()
    program.num_row_, program.num_col_ = matrix.shape
    program.col_cost_ = -np.ones(len(owner.sample))
    program.col_lower_, program.col_upper_ = np.zeros(len(owner.sample)), c[owner.sample]
    program.row_lower_, program.row_upper_ = lower, upper
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = matrix.indptr
    program.a_matrix_.index_ = matrix.indices
    program.a_matrix_.value_ = matrix.data
    return program


def _basis(part: Part, near: Solution, several: NDArray[np.bool_]) -> Any:
    """The basis of a solution of another part, in this one."""
    import highspy

    owner, status, basis = part.owner, highspy.HighsBasisStatus, highspy.HighsBasis()
    whole = part.gathered(near.alpha) > part.c[owner.sample] / 2
    sample, rival = part.single
    between = np.zeros(len(whole), dtype=bool)
    between[: len(sample)] = near.basic[sample, rival]
    none = owner.sum(between.astype(int)) == 0  # a sample that was in a group
    between |= whole & (several & none)[owner.sample]
    basis.col_status = [
        status.kBasic if basic else status.kUpper if upper else status.kLower
        for basic, upper in zip(between, whole, strict=True)
    ]
    biases = np.ones(part.program.n_classes - 1, dtype=bool)
    active = [near.in_use[part.columns], biases, near.full[_with_several(part, several)]]
    basis.row_status = [status.kUpper if one else status.kBasic for one in np.concatenate(active)]
    return basis


def _with_several(part: Part, several: NDArray[np.bool_]) -> Indices:
    """The samples with more than one option; a group has one."""
    samples = np.unique(part.single[0])
    return samples[several[: len(samples)]]


def _solution(part: Part, solver: Any, several: NDArray[np.bool_]) -> Solution:
    """What HiGHS found: theta are the multipliers of the constraints."""
    import highspy

    m, n_biases = len(part.column_set.features), part.program.n_classes - 1
    solution, basis, c = solver.getSolution(), solver.getBasis(), part.c[part.owner.sample]
    alpha = np.clip(solution.col_value, 0, c)
    whole = part.spread(np.where(alpha < ROUNDED * c, 0, alpha))
    theta = -np.array(solution.row_dual)[: m + n_biases]
    theta[:m] = np.where(theta[:m] > SIMPLEX_TOLERANCE, theta[:m], 0)
    constraints, options = (
        np.array([one == highspy.HighsBasisStatus.kBasic for one in states], dtype=bool)
        for states in (basis.row_status, basis.col_status)
    )
    in_use, basic = np.zeros_like(part.columns), np.zeros_like(part.options)
    in_use[part.columns] = ~constraints[:m]
    basic[part.single] = options[: len(part.single[0])]
    full = whole.sum(axis=1) > part.program.c / 2
    full[_with_several(part, several)] = ~constraints[m + n_biases :]
    return Solution(*part.weights(theta), whole, in_use, basic, full)
