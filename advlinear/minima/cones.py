"""The cones: s = K theta in C says that theta bounds the norm of the weights.

Each cone is its own dual, so that z, the dual variable of s, lies in C, too. A cone knows K and its
barrier; its scaling, made anew at each iterate, knows Newton's equation of the pair (s, z).
Numbers in brackets are equations of docs/theory.md, "The interior point"; sizes are p for theta and
k for s and z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from advlinear.minima import Array


class Cone(Protocol):
    """What the interior point asks of a cone C and its linear map K.

    Attributes:
        degree: the number of complementary products that s.z counts for.
    """

    degree: int

    def matvec(self, theta: Array) -> Array:
        """s = K theta (k,)."""

    def rmatvec(self, z: Array) -> Array:
        """K^T z (p,)."""

    def barrier(self, s: Array) -> float:
        """B(s), which falls to minus infinity at the boundary; see (26)."""

    def barrier_gradient(self, s: Array) -> Array:
        """The gradient (k,) of B; s.gradient is the degree."""

    def scaling(self, s: Array, z: Array) -> Scaling:
        """Newton's equation at s and z, both inside the cone."""


class NormCone(Cone, Protocol):
    """What `minimise` asks of a cone besides, to decide whether an iterate will do."""

    def tightest(self, theta: Array) -> Array:
        """theta (p,) with the same weights and bias and the largest margins, (28)."""

    def dual_slack(self, descent: Array, error: float) -> float:
        """How far alpha is inside the dual's constraints, at least; negative outside, (29).

        descent: A^T alpha + linear_term (p,), whose entries of weights may be wrong by the error.
        """


class Scaling(Protocol):
    """Newton's equation of the pair (s, z) at an iterate: dz = g - H ds, (10).

    H is symmetric and positive definite.
    """

    def complement(self, mu: float, predicted: tuple[Array, Array] | None = None) -> Array:
        """g (k,): the change of z that makes the products s o z equal to mu if s stays.

        predicted: the predictor's ds and dz, for whose product g then corrects.
        """

    def hessian(self, ds: Array) -> Array:
        """H ds (k,)."""

    def add_hessian(self, gram: Array) -> None:
        """Add K^T H K to the matrix (p, p), in place."""

    def longest(self, ds: Array, dz: Array) -> tuple[float, float]:
        """The longest steps along ds and along dz that stay in the cone; may be infinite."""


def halves(x: Array) -> tuple[Array, Array]:
    """The first and the second half of a vector, as views."""
    middle = len(x) // 2
    return x[:middle], x[middle:]


def longest_step(values: Array, change: Array) -> float:
    """The largest step for which values + step * change are all >= 0, (23)."""
    falling = change < 0
    return float((values[falling] / -change[falling]).min(initial=np.inf))


@dataclass(frozen=True)
class OrthantScaling:
    """s >= 0 and z >= 0, entry by entry. `ratio` is the diagonal of H."""

    s: Array
    z: Array
    ratio: Array

    def complement(self, mu: float, predicted: tuple[Array, Array] | None = None) -> Array:
        wanted = mu - self.s * self.z
        if predicted is not None:
            wanted -= predicted[0] * predicted[1]
        return wanted / self.s  # (13)

    def hessian(self, ds: Array) -> Array:
        return self.ratio * ds

    def add_hessian(self, gram: Array) -> None:
        index = np.arange(len(self.ratio))
        gram[index, index] += self.ratio

    def longest(self, ds: Array, dz: Array) -> tuple[float, float]:
        return longest_step(self.s, ds), longest_step(self.z, dz)


class Orthant:
    """s >= 0: all entries of theta but the last ones, the biases. n_biases: how many these are."""

    def __init__(self, size: int, n_biases: int = 1):
        self.degree, self.n_biases = size, n_biases

    def matvec(self, theta: Array) -> Array:
        return theta[: -self.n_biases]

    def rmatvec(self, z: Array) -> Array:
        return np.append(z, np.zeros(self.n_biases))

    def barrier(self, s: Array) -> float:
        return float(np.log(s).sum())

    def barrier_gradient(self, s: Array) -> Array:
        return 1 / s

    def scaling(self, s: Array, z: Array) -> OrthantScaling:
        return OrthantScaling(s, z, z / s)


class Nonnegative(Orthant):
    """theta = (u, v, b) of the L-infinity ball, k = 2 d."""

    def tightest(self, theta: Array) -> Array:
        """u_j or v_j is 0."""
        both = np.minimum(*halves(theta[:-1]))
        return np.append(theta[:-1] - np.tile(both, 2), theta[-1])

    def dual_slack(self, descent: Array, error: float) -> float:
        return float(-descent[:-1].max() - error)


@dataclass(frozen=True)
class LargestScaling(OrthantScaling):
    """The same for the K of `Largest`."""

    e: Array

    def add_hessian(self, gram: Array) -> None:  # (15)
        below, above = halves(self.ratio)
        index = np.arange(1, len(self.e) + 1)
        gram[0, 0] += self.ratio.sum()
        gram[index, index] += self.e**2 * (below + above)
        gram[0, index] += self.e * (above - below)
        gram[index, 0] += self.e * (above - below)


class Largest(Nonnegative):
    """s = (t - e w, t + e w) >= 0: t is at least every e_j |w_j|, the L1 ball; k = 2 d."""

    def __init__(self, e: Array):
        super().__init__(2 * len(e))
        self.e = e

    def matvec(self, theta: Array) -> Array:
        scaled = self.e * theta[1:-1]
        return np.concatenate([theta[0] - scaled, theta[0] + scaled])

    def rmatvec(self, z: Array) -> Array:
        below, above = halves(z)
        return np.concatenate([[z.sum()], self.e * (above - below), [0.0]])

    def scaling(self, s: Array, z: Array) -> LargestScaling:
        return LargestScaling(s, z, z / s, self.e)

    def tightest(self, theta: Array) -> Array:
        return np.append(np.abs(self.e * theta[1:-1]).max(), theta[1:])

    def dual_slack(self, descent: Array, error: float) -> float:
        return float(-descent[0] - ((np.abs(descent[1:-1]) + error) / self.e).sum())


def _determinant(s: Array) -> float:
    """s_0^2 - ||s_1||^2, positive inside the second-order cone."""
    size = np.linalg.norm(s[1:])
    determinant: float = (s[0] - size) * (s[0] + size)
    return determinant


def _product(s: Array, z: Array) -> Array:
    """s o z of the second-order cone."""
    return np.append(s @ z, s[0] * z[1:] + z[0] * s[1:])


def _longest_in_lorentz(s: Array, change: Array) -> float:
    """The least positive root of the determinant of s + step * change, (24)."""
    square = _determinant(change)
    half = s[0] * change[0] - s[1:] @ change[1:]
    constant = _determinant(s)
    fall = np.sqrt(max(half * half - square * constant, 0.0)) - half
    return np.inf if (square >= 0 and half >= 0) or fall <= 0 else constant / fall


class LorentzScaling:
    """Nesterov and Todd's: W z = W^-1 s = lam, and H = W^-2, (14)."""

    def __init__(self, s: Array, z: Array, e: Array):
        self.s, self.z, self.e = s, z, e
        size_s, size_z = np.sqrt(_determinant(s)), np.sqrt(_determinant(z))
        s, z = s / size_s, z / size_z
        self.point = s + np.append(z[0], -z[1:])
        self.point /= np.sqrt(2 * (1 + s @ z))
        self.beta = np.sqrt(size_s / size_z)
        self.lam = self._scaled(z * size_z, 1)

    def _scaled(self, x: Array, sign: int) -> Array:
        """W x (sign 1), or W^-1 x (sign -1)."""
        first, rest = self.point[0], sign * self.point[1:]
        along = rest @ x[1:]
        scaled = np.append(first * x[0] + along, x[1:] + rest * (x[0] + along / (1 + first)))
        return np.asarray(scaled * self.beta**sign)

    def complement(self, mu: float, predicted: tuple[Array, Array] | None = None) -> Array:
        wanted = -_product(self.lam, self.lam)
        wanted[0] += mu  # times the unit (1, 0, ..., 0) of the product
        if predicted is not None:
            ds, dz = predicted
            wanted -= _product(self._scaled(ds, -1), self._scaled(dz, 1))
        first, rest = self.lam[0], self.lam[1:]  # now x with lam o x = wanted
        x = (first * wanted[0] - rest @ wanted[1:]) / _determinant(self.lam)
        x = np.append(x, (wanted[1:] - x * rest) / first)
        return self._scaled(x, -1)

    def hessian(self, ds: Array) -> Array:
        return self._scaled(self._scaled(ds, -1), -1)

    def add_hessian(self, gram: Array) -> None:  # (15)
        mirrored = np.append(self.point[0], -self.point[1:]) * self.e
        index = np.arange(len(self.e))
        gram[:-1, :-1] += 2 / self.beta**2 * np.outer(mirrored, mirrored)
        gram[index, index] += (self.e**2 * np.append(-1.0, np.ones(len(self.e) - 1))) / (
            self.beta**2
        )

    def longest(self, ds: Array, dz: Array) -> tuple[float, float]:
        return _longest_in_lorentz(self.s, ds), _longest_in_lorentz(self.z, dz)


class Lorentz:
    """s = (t, e w) in the second-order cone: t >= ||e w||_2, the L2 ball; k = d + 1."""

    degree = 1

    def __init__(self, e: Array):
        self.e = np.append(1.0, e)

    def matvec(self, theta: Array) -> Array:
        return self.e * theta[:-1]

    def rmatvec(self, z: Array) -> Array:
        return np.append(self.e * z, 0.0)

    def barrier(self, s: Array) -> float:
        return float(np.log(_determinant(s)) / 2)

    def barrier_gradient(self, s: Array) -> Array:
        return np.append(s[0], -s[1:]) / _determinant(s)

    def scaling(self, s: Array, z: Array) -> LorentzScaling:
        return LorentzScaling(s, z, self.e)

    def tightest(self, theta: Array) -> Array:
        return np.append(np.linalg.norm(self.e[1:] * theta[1:-1]), theta[1:])

    def dual_slack(self, descent: Array, error: float) -> float:
        return float(-descent[0] - np.linalg.norm((np.abs(descent[1:-1]) + error) / self.e[1:]))
