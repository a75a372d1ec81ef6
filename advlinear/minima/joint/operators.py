"""The operators of several classes: worst-case margins (R,), one of each option.

In an option a sample of the class `own` meets the class `rival`. Numbers in brackets are equations
of docs/theory.md, "The interior point".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Array, Indices
from advlinear.minima.curvatures import Curvature, Diagonal
from advlinear.minima.joint.losses import Coupled, Options
from advlinear.minima.operators import Direct


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


class InOneBlock(Direct):
    """What the operators of several classes share."""

    def matvec(self, theta: Array) -> Array:
        raise NotImplementedError

    def tightened(self, margins: Array, theta: Array, tight: Array) -> Array:
        return self.matvec(tight)

    def loaded(self) -> Self:
        return self

    def blocks(self) -> Iterator[tuple[slice, Self]]:
        yield slice(None), self


class Columns(InOneBlock):
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

    def gram(self, curvature: Curvature) -> Array:
        return curvature.gram(self.matrix)


class Classes(InOneBlock):
    """theta = (t, (w_p, b_p) of each class p but the last, which has the weights and the bias 0).

    There is a t_pq >= eps ||w_p - w_q||* for each pair p < q, and the options are all those of all
    samples: the margin of the sample x of class y over class k is (w_y - w_k).x + b_y - b_k - t_yk.
    The cone is `Pairs`.

    x: (n, d); y: (n,) from 0 to K - 1.
    """

    def __init__(self, x: Array, y: Indices, n_classes: int):
        self.x = np.column_stack([x, np.ones(len(x))])  # the last column is that of the biases
        self.y, self.n_classes = y, n_classes
        self.others = np.arange(n_classes) != y[:, None]  # (n, K), the options
        sample, self.rival = np.nonzero(self.others)
        self.options, self.own = Options(sample), y[sample]
        self.first, self.second = np.triu_indices(n_classes, 1)
        self.pair = np.zeros((n_classes, n_classes), dtype=np.intp)  # the place of t_pq in theta
        self.pair[self.first, self.second] = np.arange(len(self.first))
        self.pair += self.pair.T

    def weights(self, theta: Array) -> Array:
        """(w_p, b_p) of all classes (K, d + 1)."""
        known = theta[len(self.first) :].reshape(self.n_classes - 1, -1)
        return np.vstack([known, np.zeros(known.shape[1])])

    def matvec(self, theta: Array) -> Array:
        scores = self.x @ self.weights(theta).T
        own = np.take_along_axis(scores, self.y[:, None], axis=1)
        return (own - scores - theta[self.pair[self.y]])[self.others]

    def rmatvec(self, alpha: Array) -> Array:
        """Less the mass between each two classes; and G_p and h_p of each class but the last."""
        every = np.zeros(self.others.shape)
        every[self.others] = alpha
        between = np.array([every[self.y == p].sum(axis=0) for p in range(self.n_classes)])
        mass = (between + between.T)[self.first, self.second]
        signed = -every
        np.put_along_axis(signed, self.y[:, None], every.sum(axis=1)[:, None], axis=1)
        return np.append(-mass, signed[:, :-1].T @ self.x)

    def gram(self, curvature: Curvature) -> Array:
        """A^T D A (p, p), by pairs of classes, (38) to (40)."""
        assert isinstance(curvature, Coupled)
        n_pairs, K, size = len(self.first), self.n_classes, self.x.shape[1]
        shares = np.zeros(self.others.shape)
        shares[self.others] = curvature.d
        np.put_along_axis(shares, self.y[:, None], curvature.e[:, None], axis=1)
        over = shares / curvature.total[:, None]
        flat = np.zeros((n_pairs + K * size,) * 2)  # with the last class
        by_class = flat[n_pairs:, n_pairs:].reshape(K, size, K, size)
        by_pair = flat[:n_pairs, n_pairs:].reshape(n_pairs, K, size)
        joined = shares[:, self.first] * over[:, self.second]  # (n, K (K - 1) / 2)
        for pair, (p, q) in enumerate(zip(self.first, self.second, strict=True)):
            block = Diagonal(joined[:, pair]).gram(self.x)
            by_class[p, :, p] += block
            by_class[q, :, q] += block
            by_class[p, :, q] -= block
            by_class[q, :, p] -= block
        for y in range(K):
            own = self.y == y
            sums = joined[own].T @ self.x[own]
            laplacian = np.zeros((K, K, size))
            laplacian[self.first, self.second] = laplacian[self.second, self.first] = -sums
            laplacian[np.arange(K), np.arange(K)] = -laplacian.sum(axis=1)
            rivals = np.flatnonzero(np.arange(K) != y)
            pairs = self.pair[y, rivals]
            by_pair[pairs] += laplacian[rivals]
            flat[np.ix_(pairs, pairs)] += laplacian[np.ix_(rivals, rivals)][:, :, -1]
        flat[n_pairs:, :n_pairs] = flat[:n_pairs, n_pairs:].T
        return flat[:-size, :-size]
