"""Which solver takes a problem of two classes.

| X | ball | solver |
|---|---|---|
| array, more features than samples | L2, eps > 0 | wide.py |
| array, more features than samples, more than 300 | L-infinity, no box, eps > 0 | working_sets.py |
| array | any other | program.py |
| sparse, of more than 2e4 numbers as an array | L-infinity, eps > 0 | working_sets.py |
| sparse, of more than 1e6 numbers as an array | L2, eps > 0 | sparse_l2.py |
| sparse, of at most 5e7 numbers as an array | any other | as an array |
| sparse | any other | refused |
| dask array | any | program.py |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear import chunks, samples
from advlinear.minima import certificate, program, sparse_l2, wide, working_sets
from advlinear.samples import Problem

FEW_FEATURES = 300  # up to which an array is given to the interior point with all its features
AS_ARRAY = {"inf": 2e4, "2": 1e6}  # numbers up to which a sparse X is solved for as an array
MOST_BYTES = 2e9  # of the matrix that the interior point factors


def solve(
    problem: Problem,
    tol: float,
    report: Callable[[str], object] | None,
    solver: Callable[..., tuple] | None = None,
) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them.

    Samples of weight 0 are left out of the solver, not of the proof.

    Args:
        solver: which one to take, in place of that of the table.

    Raises:
        ValueError: the problem is too large for the solver.
    """
    solver = solver or _by_table
    used = np.flatnonzero(problem.weights)
    if len(used) == len(problem.weights):
        return solver(problem, tol, report)
    of_weight = {name: getattr(problem, name)[used] for name in ("x", "y", "weights")}
    w, b, inner, _ = solver(replace(problem, **of_weight), tol, report)
    alpha = np.zeros(len(problem.weights))
    alpha[used] = inner
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)


def _by_table(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    (n, d), in_linf = problem.x.shape, problem.norm == "inf"
    if isinstance(problem.x, np.ndarray):
        if wide.takes(problem) and _attacked(problem):
            return wide.solve(problem, tol, report)
        if in_linf and problem.box is None and d > max(n, FEW_FEATURES) and _attacked(problem):
            return working_sets.solve(problem, tol, report)
    if isinstance(problem.x, np.ndarray) or chunks.is_chunked(problem.x):
        _refuse_matrix(problem)
        return program.solve(problem, tol, report)
    if n * d > AS_ARRAY.get(problem.norm, np.inf) and _attacked(problem):
        return (working_sets if in_linf else sparse_l2).solve(problem, tol, report)
    x = samples.as_array(problem.x, _where(problem))
    w, b, alpha, _ = _by_table(replace(problem, x=x), tol, report)
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)


def _attacked(problem: Problem) -> bool:
    """Whether eps is not so small that it is solved as 0."""
    low, high = samples.extremes(problem.x)
    return bool(problem.eps > program.LEAST_EPS * (high - low).max())


def _where(problem: Problem) -> str:
    """What needs a sparse X as an array, for the message of `samples.as_array`."""
    if problem.eps == 0:
        return "eps = 0"
    return f"the L{problem.norm.replace('inf', '-infinity')} ball"


def _refuse_matrix(problem: Problem) -> None:
    """Raise ValueError if the matrix of the interior point is too large for memory."""
    d = problem.x.shape[1]
    size = 8 * float((2 * d + 1 if problem.box else d + 2) ** 2)
    if size > MOST_BYTES:
        raise ValueError(
            f"{d} features need a matrix of {size:.2g} bytes in this ball, and at most "
            f"{MOST_BYTES:g} are taken: leave out features, or take the L2 ball without a box, if "
            "the samples are fewer"
        )
