"""The operators of several classes: worst-case margins (R,), one of each option.

In an option a sample of the class `own` meets the class `rival`. Numbers in brackets are equations
of docs/theory.md, "The interior point".
"""

from __future__ import annotations

import numpy as np

from advlinear.minima import Array, Indices
from advlinear.minima.cones import Scaling
from advlinear.minima.curvatures import Curvature
from advlinear.minima.operators import Solve, factorised


class Columns:
    """theta = (lambda, b): the margin is entries lambda + b_own - b_rival. p = m + K - 1.

    The last class has the bias 0, as one number may be added to all biases. The cone is `Orthant`,
    with K - 1 biases.

    entries: (R, m), one column for each lambda >= 0.
    own, rival: (R,) the classes of each option, 0 to K - 1.
    """

    def __init__(self, entries: Array, own: Indices, rival: Indices, n_classes: int):
        known = np.arange(n_classes - 1)
        biases = np.equal.outer(own, known) - 1.0 * np.equal.outer(rival, known)
        self.matrix = np.hstack([entries, biases])  # A

    def matvec(self, theta: Array) -> Array:
        return self.matrix @ theta

    def rmatvec(self, alpha: Array) -> Array:
        return alpha @ self.matrix

    def newton_solver(self, curvature: Curvature, scaling: Scaling) -> Solve:
        gram = curvature.gram(self.matrix)
        scaling.add_hessian(gram)
        return factorised(gram)
