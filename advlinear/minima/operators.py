"""The operators A: worst-case margins m = A theta as linear functions of theta.

The dual norm of the weights is not smooth, so theta holds more than the weights and the bias. An
operator stores the samples, centred and scaled, and solves Newton's system (8) with them. Numbers
in brackets are equations of docs/theory.md, "The interior point"; sizes are n samples, d features
and p for theta, whose last entry is the bias b.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from advlinear.minima import Array, Indices
from advlinear.minima.cones import OrthantScaling, Scaling, halves
from advlinear.minima.curvatures import Curvature
from advlinear.minima.scaled import Scaled, in_blocks

Solve = Callable[[Array], Array]
Matrix = Any  # an array, or what has its products and indices: see scaled.py


class Operator(Protocol):
    """What the interior point asks of the margins."""

    def matvec(self, theta: Array) -> Array:
        """The margins A theta (n,)."""

    def rmatvec(self, alpha: Array) -> Array:
        """A^T alpha (p,)."""

    def gram(self, curvature: Curvature) -> Array:
        """A^T D A, or a smaller matrix that it follows from; that of more samples adds to it."""

    def applied(self, gram: Array, theta: Array) -> Array:
        """A^T D A theta (p,)."""

    def solver(self, gram: Array, scaling: Scaling) -> Solve:
        """A function that maps r (p,) to x (p,) with (A^T D A + K^T H K) x = r, (8).

        Raises:
            np.linalg.LinAlgError: the matrix is not finite.
        """

    def tightened(self, margins: Array, theta: Array, tight: Array) -> Array:
        """A tight (n,) from the margins A theta: the weights and the bias are the same, (28)."""

    def loaded(self) -> Operator:
        """The same, to take several products at a time."""

    def blocks(self) -> Iterator[tuple[slice, Operator]]:
        """The operator in blocks of samples that follow each other, each with its slice of them."""


class SampleOperator(Operator, Protocol):
    """What `minimise` asks besides, of two classes.

    Attributes:
        y: (n,) the signs of the classes, -1 and 1, with which the bias enters; 0 without a bias.
        n_columns: of the array of samples, from which `gram` forms its matrix.
    """

    y: NDArray[Any]
    n_columns: int

    def weights(self, theta: Array) -> Array:
        """w (d,)."""

    def subset(self, samples: Indices | slice) -> Self:
        """The operator of these samples alone, from their indices."""


# --- what operators share ------------------------------------------------------------------------


def factorised(gram: Array) -> Solve:
    """A function that solves with the matrix, which is overwritten.

    The diagonal is scaled to 1, as features may differ much in their units. What is added to it
    makes the factor exist where features depend on each other. Raises LinAlgError: the matrix is
    not finite.
    """
    import scipy.linalg  # here, as `attack` does not need it

    diagonal = np.diagonal(gram).copy()
    if not (diagonal < np.inf).all():
        raise np.linalg.LinAlgError("the matrix is not finite")
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))  # 0: nothing depends on it
    gram *= scale
    gram *= scale[:, None]
    index = np.arange(len(gram))
    for added in 10.0 ** np.arange(-14, 0, 2):
        gram[index, index] = 1 + added
        try:
            factor = scipy.linalg.cho_factor(gram, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            continue
        return lambda right: (
            scale * scipy.linalg.cho_solve(factor, scale * right, check_finite=False)
        )
    raise np.linalg.LinAlgError("the matrix has no Cholesky factor")


class Direct:
    """What operators share whose gram is A^T D A itself."""

    def applied(self, gram: Array, theta: Array) -> Array:
        return gram @ theta

    def solver(self, gram: Array, scaling: Scaling) -> Solve:
        gram = gram.copy()
        scaling.add_hessian(gram)
        return factorised(gram)


class InBlocks:
    """What operators of two classes share, which hold one row of numbers for each sample.

    yx: (n, n_columns). It and y may be of any real type.
    """

    def __init__(self, yx: Matrix, y: NDArray[Any]):
        self.yx, self.y, self.n_columns = yx, y, yx.shape[1]

    def of(self, yx: Matrix, y: NDArray[Any]) -> Self:
        """The same operator of other samples."""
        return type(self)(yx, y)

    def subset(self, samples: Indices | slice) -> Self:
        return self.of(self.yx[samples], self.y[samples])

    @property
    def array(self) -> Array:
        """yx as an array."""
        return self.yx.block() if isinstance(self.yx, Scaled) else self.yx

    def loaded(self) -> Self:
        return self.of(self.array, self.y)

    def blocks(self) -> Iterator[tuple[slice, Self]]:
        for rows in in_blocks(len(self.y), self.n_columns):
            yield rows, self.subset(rows)


# --- the three operators -------------------------------------------------------------------------


class Plain(Direct, InBlocks):
    """theta = (t, w, b) with t >= eps ||w||_dual: the margin is y x.w + y b - charge t. p = d + 2.

    yx: (n, d), y x. charge: how much of t each margin pays: 1; or 0 where the linear term has t.
    """

    def __init__(self, yx: Matrix, y: NDArray[Any], charge: float = 1.0):
        super().__init__(yx, y)
        self.charge = charge

    def of(self, yx: Matrix, y: NDArray[Any]) -> Plain:
        return Plain(yx, y, self.charge)

    def matvec(self, theta: Array) -> Array:
        margins: Array = self.yx @ theta[1:-1] + self.y * theta[-1] - self.charge * theta[0]
        return margins

    def rmatvec(self, alpha: Array) -> Array:
        return np.concatenate([[-self.charge * alpha.sum()], alpha @ self.yx, [alpha @ self.y]])

    def gram(self, curvature: Curvature) -> Array:
        """A^T D A (p, p), (16)."""
        gram = np.empty((self.n_columns + 2,) * 2)
        gram[1:-1, 1:-1] = curvature.gram(self.array)
        gram[0] = gram[:, 0] = -self.charge * self.rmatvec(curvature.matvec(np.ones(len(self.y))))
        gram[-1] = gram[:, -1] = self.rmatvec(curvature.matvec(self.y))
        return gram

    def tightened(self, margins: Array, theta: Array, tight: Array) -> Array:
        return margins + self.charge * (theta[0] - tight[0])

    def weights(self, theta: Array) -> Array:
        return theta[1:-1]


class Split(InBlocks):
    """theta = (u, v, b), w = u - v, u and v >= 0: the margin is y x.w + y b - charge t.

    Here t = price.(u + v), and p = 2 d + 1. The cone is `Nonnegative`.

    price: (d,) of each feature: eps in its unit. charge: as of `Plain`.
    """

    def __init__(self, yx: Matrix, y: NDArray[Any], price: Array, charge: float = 1.0):
        super().__init__(yx, y)
        self.price, self.charge = price, charge

    def of(self, yx: Matrix, y: NDArray[Any]) -> Split:
        return Split(yx, y, self.price, self.charge)

    def matvec(self, theta: Array) -> Array:
        u, v = halves(theta[:-1])
        t = self.charge * float(self.price @ (u + v))
        margins: Array = self.yx @ (u - v) + self.y * theta[-1] - t
        return margins

    def rmatvec(self, alpha: Array) -> Array:
        plain, price = alpha @ self.yx, self.charge * alpha.sum() * self.price
        return np.concatenate([plain - price, -plain - price, [alpha @ self.y]])

    def gram(self, curvature: Curvature) -> Array:
        """P^T D P (d + 2, d + 2) of `Plain`, in (t, w, b)."""
        return Plain(self.yx, self.y, self.charge).gram(curvature)

    def applied(self, gram: Array, theta: Array) -> Array:
        u, v = halves(theta[:-1])
        found = gram @ np.concatenate([[self.price @ (u + v)], u - v, theta[-1:]])
        price, w = found[0] * self.price, found[1:-1]
        return np.concatenate([price + w, price - w, found[-1:]])

    def solver(self, gram: Array, scaling: Scaling) -> Solve:
        """By a system in (t, w, b), a quarter of the size."""
        assert isinstance(scaling, OrthantScaling)  # H is diagonal
        reduced, gram = Reduction.of(self.charge * self.price, scaling.ratio), gram.copy()
        reduced.add_to(gram)
        solve = factorised(gram)
        return lambda right: reduced.solve(right, solve)

    def tightened(self, margins: Array, theta: Array, tight: Array) -> Array:
        return margins + self.charge * float(self.price @ sum(halves((theta - tight)[:-1])))

    def weights(self, theta: Array) -> Array:
        return np.subtract(*halves(theta[:-1]))

    def restricted(self, samples: Indices, columns: Indices) -> Split:
        """Of some samples, and of the features of some columns, which hold both u_j and v_j."""
        features = columns[: len(columns) // 2]
        yx = self.yx[np.ix_(samples, features)]
        return Split(yx, self.y[samples], self.price[features], self.charge)

    def entries(self, samples: Indices, columns: Indices) -> Array:
        """The entries of A (samples, columns), of columns among those of u and v."""
        d = len(self.price)
        feature, sign = columns % d, np.where(columns < d, 1.0, -1.0)
        price = self.charge * self.price[feature]
        entries: Array = sign * self.yx[np.ix_(samples, feature)] - price
        return entries


@dataclass(frozen=True)
class Reduction:
    """Newton's system of `Split` in (t, w, b) alone, (17) to (20).

    u + v follows from w and one multiplier. Greek letters are those of docs/theory.md.

    Attributes:
        price: (d,) of each feature; 0 where margins pay none of t, which is then left at 0.
        h_u, h_v: (d,) the diagonal of H; both: their sum.
        lean: kappa (d,), (h_u - h_v) / both.
        spread: sigma, 4 sum_j price_j^2 / both_j; 1 without a price.
        along: nu (d + 1,), the coefficients (1, price lean) of t and w in the multiplier.
    """

    price: Array
    h_u: Array
    h_v: Array
    both: Array
    lean: Array
    spread: float
    along: Array

    @classmethod
    def of(cls, price: Array, hessian: Array) -> Self:
        h_u, h_v = halves(hessian)
        both = h_u + h_v
        lean = (h_u - h_v) / both
        spread = float(4 * price @ (price / both)) or 1.0
        return cls(price, h_u, h_v, both, lean, spread, np.append(1.0, price * lean))

    def add_to(self, gram: Array) -> None:
        """Add to the matrix (d + 2, d + 2) of `Plain` what is left of K^T H K, (19)."""
        gram[:-1, :-1] += np.outer(self.along, self.along) / self.spread
        index = np.arange(1, len(self.price) + 1)
        gram[index, index] += self.h_u * self.h_v / self.both

    def solve(self, right: Array, solve: Solve) -> Array:
        """(u, v, b) for a right side of the same shape, with the solver of the small system."""
        right_u, right_v = halves(right[:-1])
        free = 2 * self.price @ ((right_u + right_v) / self.both)  # phi, (18)
        small = np.zeros(len(self.price) + 2)  # (20)
        small[:-1] = free / self.spread * self.along
        small[1:-1] += (right_u * self.h_v - right_v * self.h_u) / self.both
        small[-1] = right[-1]
        solved = solve(small)
        t, w = solved[0], solved[1:-1]
        multiplier = (free - self.along[1:] @ w - t) / self.spread  # pi, (18)
        total = 2 * (right_u + right_v - 2 * multiplier * self.price) / self.both
        total -= self.lean * w  # u + v, (17)
        return np.concatenate([(total + w) / 2, (total - w) / 2, solved[-1:]])


class Boxed(Direct, InBlocks):
    """As Split, where the price of a feature depends on the sample. p = 2 d + 1.

    yx: here (n, 2 d), what a unit of u and a unit of v add to the margins.
    """

    def matvec(self, theta: Array) -> Array:
        margins: Array = self.yx @ theta[:-1] + self.y * theta[-1]
        return margins

    def rmatvec(self, alpha: Array) -> Array:
        return np.append(alpha @ self.yx, alpha @ self.y)

    def gram(self, curvature: Curvature) -> Array:
        """A^T D A (p, p), (16)."""
        gram = np.empty((self.n_columns + 1,) * 2)
        gram[:-1, :-1] = curvature.gram(self.array)
        gram[-1] = gram[:, -1] = self.rmatvec(curvature.matvec(self.y))
        return gram

    def tightened(self, margins: Array, theta: Array, tight: Array) -> Array:
        return self.matvec(tight)

    def weights(self, theta: Array) -> Array:
        return np.subtract(*halves(theta[:-1]))

    def restricted(self, samples: Indices, columns: Indices) -> Boxed:
        """Of some samples, and of some columns of u and v."""
        return Boxed(self.entries(samples, columns), self.y[samples])

    def entries(self, samples: Indices, columns: Indices) -> Array:
        """The entries of A (samples, columns), of columns among those of u and v."""
        entries: Array = self.yx[np.ix_(samples, columns)]
        return entries
