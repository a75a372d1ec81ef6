"""More features than samples in the L2 ball: the same problem in at most n features.

The weights lie in the span of the centred samples, and their length is kept by an orthogonal
factor. With X_c^T = Q R, where Q (d, n) has orthonormal columns, sample i is c + Q z_i with z_i
column i of R. docs/theory.md, "Wide and sparse samples in the L2 ball", has the proof. Without an
attack (eps = 0) large weights cost nothing: there what rounding leaves of a feature would be used.

Q stays a product of Householder's reflections, which is exact to rounding even where the samples
depend on each other. Their Gram matrix would lose half of the digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear.minima import certificate, program
from advlinear.samples import Problem

WIDE_ROUNDING = 8  # a new feature below so many U, times d, of the largest one is rounding


def takes(problem: Problem) -> bool:
    """Whether the problem is one of more features than samples in the L2 ball, with eps > 0."""
    n, d = problem.x.shape
    return n < d and problem.norm == "2" and problem.eps > 0


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them; x is an array."""
    import scipy.linalg  # here, as `attack` does not need it

    used, centre, _, _ = program.unit_ranges(problem.x, problem.eps)
    away = np.take(problem.x, used, axis=1) - centre
    mean = away.mean(axis=0)  # without it z would have a direction in which only rounding varies
    away -= mean
    (reflections, tau), r = scipy.linalg.qr(
        away.T, mode="raw", overwrite_a=True, check_finite=False
    )
    reflections = reflections[:, : len(tau)]
    z = np.ascontiguousarray(r[: len(problem.y)].T)
    sizes = np.abs(z).max(axis=0)
    z[:, sizes <= WIDE_ROUNDING * certificate.U * len(centre) * sizes.max()] = 0
    v, b, alpha, _ = program.solve(replace(problem, x=z), tol, report)
    inner = np.zeros((len(used), 1), order="F")
    inner[: len(v), 0] = v
    multiply = scipy.linalg.lapack.dormqr
    size = int(multiply("L", "N", reflections, tau, inner, lwork=-1)[1][0])
    w = np.zeros(problem.x.shape[1])
    w[used] = multiply("L", "N", reflections, tau, inner, lwork=size)[0][:, 0]
    b -= float((centre + mean) @ w[used])
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)
