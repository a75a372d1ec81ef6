"""What both certificates know of the rounding of float64: how large it is, and sums without much.

advlinear/minima/certificate.py states what is assumed of float64 and NumPy.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np

U = 2.0**-53  # the largest relative error of one operation of float64
FEW = 16 * U  # of a few operations, one after the other
SMALLEST = 2.0**-1074  # the smallest number above 0
MARGIN_LIMIT = 1e300  # sums of the losses of smaller margins do not overflow
TINY = 1e-200  # above a logistic loss that underflows, and the alpha of one
REACH = 1000  # how much larger than w the weights are that a bound with a violation holds for
ROWS = 1024  # samples in a block, to save memory


def total(values: np.ndarray) -> float:
    """The sum of values (n,), rounded once."""
    blocks = (values[k : k + ROWS].tolist() for k in range(0, len(values), ROWS))
    return math.fsum(itertools.chain.from_iterable(blocks))


def exact_bias(centre: np.ndarray, w: np.ndarray, b: float) -> float:
    """b + c.w, rounded once; infinite where it overflows."""
    used = (centre != 0) & (w != 0)  # of sparse samples the centre is 0
    pairs = zip(centre[used].tolist(), w[used].tolist(), strict=True)
    try:
        return float(sum((Fraction(c) * Fraction(v) for c, v in pairs), Fraction(b)))
    except OverflowError:
        return math.inf


def norm(sizes: np.ndarray, order: float) -> float:
    """The norm of sizes (k,) >= 0, to 4 u of itself: no square overflows, sums are rounded once."""
    largest = float(sizes.max(initial=0.0))
    if order == np.inf or not 0 < largest < np.inf:
        return largest
    exponent = math.frexp(largest)[1]
    sizes = np.ldexp(sizes, -exponent)
    size = math.fsum(sizes.tolist()) if order == 1 else math.sqrt(math.fsum((sizes**2).tolist()))
    return math.ldexp(size, exponent)
