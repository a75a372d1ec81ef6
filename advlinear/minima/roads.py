"""Which solver takes a problem of two classes.

| X | ball | solver |
|---|---|---|
| array, more features than samples | L2, eps > 0 | wide.py |
| array | any other | program.py |
| sparse, of at most 1e6 numbers as an array | any | as an array |
| sparse | L2, eps > 0 | sparse_l2.py |
| sparse, of at most 5e7 numbers as an array | any other | as an array |
| sparse | any other | refused |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear import samples
from advlinear.minima import certificate, program, sparse_l2, wide
from advlinear.samples import Problem

SMALL_DENSE = 1e6  # numbers of a sparse X that is solved as an array in every ball
MOST_BYTES = 2e9  # of the matrix that the interior point factors


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them.

    Samples of weight 0 are left out of the solver, not of the proof.
    """
    used = problem.weights > 0
    if used.all():
        return _solve(problem, tol, report)
    of_weight = {name: getattr(problem, name)[used] for name in ("x", "y", "weights")}
    w, b, inner, _ = _solve(replace(problem, **of_weight), tol, report)
    alpha = np.zeros(len(used))
    alpha[used] = inner
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)


def _solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    if not isinstance(problem.x, np.ndarray):
        in_l2 = problem.norm == "2" and problem.eps > 0
        if in_l2 and math.prod(problem.x.shape) > SMALL_DENSE:
            return sparse_l2.solve(problem, tol, report)
        x = samples.as_array(problem.x, _where(problem))
        w, b, alpha, _ = _solve(replace(problem, x=x), tol, report)
        return w, b, alpha, certificate.bounds(problem, w, b, alpha)
    if wide.takes(problem):
        return wide.solve(problem, tol, report)
    _refuse_matrix(problem)
    return program.solve(problem, tol, report)


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
