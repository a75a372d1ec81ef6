"""The operators of several classes: worst-case margins (R,), one of each option.

In an option a sample of the class `own` meets the class `rival`. Numbers in brackets are equations
of docs/theory.md, "The interior point".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Array, Indices
from advlinear.minima.cones import Scaling
from advlinear.minima.curvatures import Curvature
from advlinear.minima.operators import Solve, factorised


@dataclass(frozen=True)
class ColumnSet:
    """Columns (S, j): lambda_Sj is added to the weight of feature j of each class in the set S.

    sets: (m, K), whether S holds a class. features: (m,) the j. prices: (m,) of these features.
    """

    sets: NDArray[np.bool_]
    features: Indices
    prices: Array

    def fill(self, out: Array, x: Array, sample: Indices, own: Indices, rival: Indices) -> None:
        """The entries (R, m) of options (R,), of the samples x[sample], into an array of zeros.

        An entry is x_j - price_j where S holds the class `own` alone, -x_j - price_j where it
        holds the rival alone, and else 0.
        """
        n_classes = self.sets.shape[1]
        for pair in np.unique(own * n_classes + rival):
            p, k = divmod(int(pair), n_classes)
            rows = np.flatnonzero((own == p) & (rival == k))
            sign = 1.0 * self.sets[:, p] - self.sets[:, k]
            across = np.flatnonzero(sign)
            part = x[np.ix_(sample[rows], self.features[across])] * sign[across]
            out[np.ix_(rows, across)] = part - self.prices[across]

    def weights(self, values: Array, d: int) -> Array:
        """W (K, d) from lambda (m,)."""
        W = np.zeros((self.sets.shape[1], d))
        for k, inside in enumerate(self.sets.T):
            np.add.at(W[k], self.features[inside], values[inside])
        return W


class Columns:
    """theta = (lambda, b): the margin is entries lambda + b_own - b_rival. p = m + K - 1.

    The last class has the bias 0, as one number may be added to all biases. The cone is `Orthant`,
    with K - 1 biases.

    matrix: A (R, p), of which the last K - 1 columns are those of the biases.
    """

    def __init__(self, matrix: Array):
        self.matrix = matrix

    def matvec(self, theta: Array) -> Array:
        return self.matrix @ theta

    def rmatvec(self, alpha: Array) -> Array:
        return alpha @ self.matrix

    def newton_solver(self, curvature: Curvature, scaling: Scaling) -> Solve:
        gram = curvature.gram(self.matrix)
        scaling.add_hessian(gram)
        return factorised(gram)
