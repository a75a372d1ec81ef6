"""Which solver takes a problem of two classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear import samples
from advlinear.minima import certificate, program, wide
from advlinear.samples import Problem

MOST_BYTES = 2e9  # of the matrix that the interior point factors


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them."""
    if not isinstance(problem.x, np.ndarray):
        x = samples.as_array(problem.x, "this problem")
        w, b, alpha, _ = solve(replace(problem, x=x), tol, report)
        return w, b, alpha, certificate.bounds(problem, w, b, alpha)
    if wide.takes(problem):
        return wide.solve(problem, tol, report)
    _refuse_matrix(problem)
    return program.solve(problem, tol, report)


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
