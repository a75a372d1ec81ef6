"""The cone of several classes: theta bounds the norm of the difference of each pair of weights.

Numbers in brackets are equations of docs/theory.md, "The interior point".
"""

from __future__ import annotations

import numpy as np

from advlinear.minima import Array
from advlinear.minima.cones import Largest, Lorentz, Scaling


class Pairs:
    """t_pq >= eps ||w_p - w_q||* for each pair p < q: one `Lorentz` or `Largest` each.

    theta = (t, (w_p, b_p) of each class p but the last, which has the weights and the bias 0), as
    of `Classes`. s, and z, are those of the pairs, one after the other.

    cone: of theta = (t, w, b) of one pair.
    """

    def __init__(self, cone: Lorentz | Largest, n_classes: int):
        self.cone = cone
        self.first, self.second = np.triu_indices(n_classes, 1)
        self.n_pairs, self.n_classes = len(self.first), n_classes
        self.degree = self.n_pairs * cone.degree
        known = np.arange(n_classes - 1)
        self.differ = np.equal.outer(self.first, known) - 1.0 * np.equal.outer(self.second, known)

    def parts(self, theta: Array) -> Array:
        """(t_pq, w_p - w_q, b_p - b_q) of each pair, (K (K - 1) / 2, d + 2)."""
        classes = theta[self.n_pairs :].reshape(self.n_classes - 1, -1)
        return np.column_stack([theta[: self.n_pairs], self.differ @ classes])

    def matvec(self, theta: Array) -> Array:
        return np.concatenate([self.cone.matvec(part) for part in self.parts(theta)])

    def each(self, z: Array) -> Array:
        """s or z with one row for each pair."""
        return z.reshape(self.n_pairs, -1)

    def rmatvec(self, z: Array) -> Array:
        back = np.stack([self.cone.rmatvec(part) for part in self.each(z)])
        return np.concatenate([back[:, 0], (self.differ.T @ back[:, 1:]).ravel()])

    def barrier(self, s: Array) -> float:
        return sum(self.cone.barrier(part) for part in self.each(s))

    def barrier_gradient(self, s: Array) -> Array:
        return np.concatenate([self.cone.barrier_gradient(part) for part in self.each(s)])

    def scaling(self, s: Array, z: Array) -> PairsScaling:
        both = zip(self.each(s), self.each(z), strict=True)
        return PairsScaling(self, [self.cone.scaling(*pair) for pair in both])

    def tightest(self, theta: Array) -> Array:
        """theta with the same weights and biases and the largest margins, (28)."""
        least = [self.cone.tightest(part)[0] for part in self.parts(theta)]
        return np.append(least, theta[self.n_pairs :])


class PairsScaling:
    """Newton's equation of each pair's (s, z) by itself."""

    def __init__(self, cone: Pairs, scalings: list[Scaling]):
        self.cone, self.scalings = cone, scalings

    def complement(self, mu: float, predicted: tuple[Array, Array] | None = None) -> Array:
        if predicted is None:
            return np.concatenate([one.complement(mu) for one in self.scalings])
        steps = zip(self.scalings, *(self.cone.each(one) for one in predicted), strict=True)
        return np.concatenate([one.complement(mu, (ds, dz)) for one, ds, dz in steps])

    def hessian(self, ds: Array) -> Array:
        parts = zip(self.scalings, self.cone.each(ds), strict=True)
        return np.concatenate([one.hessian(part) for one, part in parts])

    def add_hessian(self, gram: Array) -> None:
        """Of w_p - w_q each block goes to (p, p) and (q, q), and less it to (p, q) and (q, p)."""
        n_pairs, n_classes = self.cone.n_pairs, self.cone.n_classes
        size = (len(gram) - n_pairs) // (n_classes - 1)  # d + 1
        for pair, one in enumerate(self.scalings):
            of_pair = np.zeros((size + 1,) * 2)
            one.add_hessian(of_pair)
            gram[pair, pair] += of_pair[0, 0]
            signs = self.cone.differ[pair]
            for p in np.flatnonzero(signs):
                of_p = slice(n_pairs + p * size, n_pairs + (p + 1) * size)
                gram[pair, of_p] += signs[p] * of_pair[0, 1:]
                gram[of_p, pair] += signs[p] * of_pair[1:, 0]
                for q in np.flatnonzero(signs):
                    of_q = slice(n_pairs + q * size, n_pairs + (q + 1) * size)
                    gram[of_p, of_q] += signs[p] * signs[q] * of_pair[1:, 1:]

    def longest(self, ds: Array, dz: Array) -> tuple[float, float]:
        steps = zip(self.scalings, self.cone.each(ds), self.cone.each(dz), strict=True)
        primal, dual = zip(*(one.longest(*changes) for one, *changes in steps), strict=True)
        return min(primal), min(dual)
