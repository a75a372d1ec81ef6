"""The curvature D of the samples: how much alpha falls per unit of the margins.

D is the symmetric, positive semidefinite matrix of (8) and (9) in docs/theory.md. It is never
formed: a curvature multiplies vectors, and forms the matrix of Newton's system from an operator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from advlinear.minima import Array

GRAM_BLOCK = 2048  # rows taken at a time in the product of the matrices


class Curvature(Protocol):
    """What the interior point and its operators ask of D, a matrix (n, n) of n margins."""

    def matvec(self, margins: Array) -> Array:
        """D x (n,) of changes x (n,) of the margins."""

    def gram(self, matrix: Array) -> Array:
        """M^T D M (k, k) of a matrix M (n, k), with no copy of the whole matrix."""


@dataclass(frozen=True)
class Diagonal:
    """D of two classes, where each margin has a sample of its own. diagonal: (n,), at least 0."""

    diagonal: Array

    def matvec(self, margins: Array) -> Array:
        return self.diagonal * margins

    def gram(self, matrix: Array) -> Array:
        if not isinstance(matrix, np.ndarray):  # `Columns` of working_sets.py
            return matrix.gram(self)
        gram, roots = np.zeros((matrix.shape[1],) * 2), np.sqrt(self.diagonal)[:, None]
        for k in range(0, len(matrix), GRAM_BLOCK):
            part = matrix[k : k + GRAM_BLOCK] * roots[k : k + GRAM_BLOCK]
            gram += part.T @ part
        return gram
