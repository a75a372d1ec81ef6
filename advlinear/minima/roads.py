"""Which solver takes a problem of two classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear import samples
from advlinear.minima import certificate, program, working_sets
from advlinear.samples import Problem

FEW_NUMBERS = 2e4  # n d up to which a sparse X is solved for as an array
FEW_FEATURES = 300  # up to which an array is given to the interior point with all its features


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them."""
    n, d = problem.x.shape
    dense = isinstance(problem.x, np.ndarray)
    many = d > max(n, FEW_FEATURES) if dense else n * d > FEW_NUMBERS
    if many and problem.norm == "inf" and problem.box is None and _attacked(problem):
        return working_sets.solve(problem, tol, report)
    if dense:
        return program.solve(problem, tol, report)
    x = samples.as_array(problem.x, "this problem")
    w, b, alpha, _ = program.solve(replace(problem, x=x), tol, report)
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)


def _attacked(problem: Problem) -> bool:
    """Whether eps is not so small that it is solved as 0."""
    ranges = problem.x.max(axis=0) - problem.x.min(axis=0)
    return problem.eps > program.LEAST_EPS * ranges.max()
