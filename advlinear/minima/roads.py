"""Which solver takes a problem of two classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear import chunks, samples
from advlinear.minima import certificate, program
from advlinear.samples import Problem


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them."""
    if isinstance(problem.x, np.ndarray) or chunks.is_chunked(problem.x):
        return program.solve(problem, tol, report)
    x = samples.as_array(problem.x, "this problem")
    w, b, alpha, _ = program.solve(replace(problem, x=x), tol, report)
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)
