"""More features than samples in the L2 ball: the same problem in at most n features.

The weights lie in the span of the centred samples, and their length is kept by an orthogonal
factor. With X_c^T = Q R, where Q (d, n) has orthonormal columns, sample i is c + Q z_i with z_i
column i of R. docs/theory.md, "Wide and sparse samples in the L2 ball", has the proof. Without an
attack (eps = 0) all balls are the same, and so the L2 ball, too.

Q stays a product of Householder's reflections, which is exact to rounding even where the samples
depend on each other, as centred ones always do. Their Gram matrix would lose half of the digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear.minima import certificate, program
from advlinear.samples import Problem

SMALLEST_FEATURE = 1e-14  # relative to the samples: a feature that is smaller is rounding


def takes(problem: Problem) -> bool:
    """Whether the problem is one of an array with more features than samples of a weight."""
    n = np.count_nonzero(problem.weights)
    return (problem.norm == "2" or problem.eps == 0) and n < problem.x.shape[1]


def solve(problem: Problem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """w (d,), b, alpha (n,), and what the certificate says of them."""
    import scipy.linalg  # here, as `attack` does not need it

    used = problem.weights > 0
    centre = problem.x[used].mean(axis=0)
    away = (problem.x[used] - centre).T  # in the order that LAPACK overwrites
    (reflections, tau), r = scipy.linalg.qr(away, mode="raw", overwrite_a=True, check_finite=False)
    z = np.ascontiguousarray(r.T)
    sizes = np.abs(z).max(axis=0)
    z[:, sizes <= SMALLEST_FEATURE * sizes.max()] = 0
    of_used = dict(x=z, y=problem.y[used], weights=problem.weights[used])
    v, b, inner, _ = program.solve(replace(problem, **of_used), tol, report)
    w = np.zeros((len(centre), 1), order="F")
    w[: len(v), 0] = v
    multiply = scipy.linalg.lapack.dormqr
    size = int(multiply("L", "N", reflections, tau, w, lwork=-1)[1][0])
    w = multiply("L", "N", reflections, tau, w, lwork=size)[0][:, 0]
    b -= float(centre @ w)
    alpha = np.zeros(len(used))
    alpha[used] = inner
    return w, b, alpha, certificate.bounds(problem, w, b, alpha)
