"""Newton's method for smooth losses of sparse samples, which products with X alone can reach.

With losses l_i that are convex, fall and have a derivative, it minimises over w and b

    f(w, b) = sum_i l_i(m_i) + cost ||w|| + penalty ||w||^2 / 2,
    m_i = y_i (w.x_i + b) - price ||w||.

Let alpha_i = -l_i'(m_i), D_i = l_i''(m_i), u = w / ||w|| and a_i = (y_i x_i - price u, y_i). With
kappa = (price sum_i alpha_i + cost) / ||w|| the Hessian is

    sum_i D_i a_i a_i^T  +  penalty I + kappa (I - u u^T)  for w.

Its system is solved by conjugate gradients, preconditioned by the diagonal. Where few samples have
a curvature D_i, and there is no price, it is solved directly through their Gram matrix: there
conjugate gradients would need many products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from advlinear.minima import Array, Indices

MOST_NEWTON = 60  # steps
MOST_PRODUCTS = 1000  # with X and with X^T, of one step
FEW_PRODUCTS = 100  # before a direct solution is preferred
LOOSEST = 0.1  # the share of the residual that conjugate gradients leave
FLAT = 0.3  # the share of the slope that the search along a line leaves
MOST_ON_LINE = 40  # points
FEW_ROWS = 1000  # with a curvature, for which the system is solved directly at once
MOST_ROWS = 4000  # for which it is solved directly at all
ALLOWED = 1e-13  # relative: a rise of f by no more is rounding


class SmoothLoss(Protocol):
    """Losses l_i of n samples."""

    def total(self, margins: Array) -> tuple[float, Array]:
        """sum_i l_i(m_i), and alpha (n,)."""

    def curvature(self, margins: Array) -> Array:
        """D (n,)."""


class Samples:
    """Sparse samples x (n, d), and their products; y: (n,) -1 or 1."""

    def __init__(self, x: Any, y: Array):
        self.x, self.y, self.transposed = x, y, x.T.tocsr()
        self.squares = self.transposed.copy()
        self.squares.data **= 2

    def subset(self, rows: Indices) -> Samples:
        return Samples(self.x[rows], self.y[rows])


class Gram:
    """The products y_i y_j x_i.x_j of samples, each of which is computed once while it is kept."""

    def __init__(self, samples: Samples):
        self.samples = samples
        self._forget()

    def _forget(self) -> None:
        self.rows, self.known = np.zeros(0, dtype=np.int64), np.zeros((0, 0))
        self.place = np.full(len(self.samples.y), -1)

    def __call__(self, rows: Indices) -> Array:
        """The matrix (k, k) of some samples; a copy."""
        if len(np.union1d(self.rows, rows)) > 1.5 * MOST_ROWS:
            self._forget()
        new, x, y = rows[self.place[rows] < 0], self.samples.x, self.samples.y
        if len(new):
            k = len(self.rows)
            self.rows = np.append(self.rows, new)
            self.place[new] = np.arange(k, len(self.rows))
            added = (x[new] @ x[self.rows].T).toarray() * y[new, None] * y[self.rows]
            known = np.empty((len(self.rows),) * 2)
            known[:k, :k], known[k:], known[:k, k:] = self.known, added, added[:, :k].T
            self.known = known
        places = self.place[rows]
        return self.known[np.ix_(places, places)]


@dataclass(frozen=True)
class Found:
    """w (d,) and b, their margins and alpha (n,), and scores w.x_i (n,)."""

    w: Array
    b: float
    margins: Array
    alpha: Array
    scores: Array


def minimise(
    samples: Samples,
    loss: SmoothLoss,
    price: float,
    cost: float,
    penalty: float,
    w: Array,
    scores: Array,
    tol: float,
    gram: Gram | None = None,
) -> Found:
    """The minimum of f, or where the steps end; the bias is the best one for the w of the start.

    Args:
        w: (d,) of the start, other than 0 if there is a price or a cost; scores: (n,) its w.x_i.
        tol: the length of the gradient, relative to that of its parts, at which to stop.
        gram: of these samples, if a direct solution is wanted.
    """
    y = samples.y
    b = best_bias(samples, loss, scores, price * float(np.linalg.norm(w)))
    few_rows = FEW_ROWS
    for step in range(MOST_NEWTON + 1):
        size = float(np.linalg.norm(w))
        margins = y * (scores + b) - price * size
        alpha = loss.total(margins)[1]
        pull, total = samples.transposed @ (y * alpha), alpha.sum()
        kappa = (price * total + cost) / size if price or cost else 0.0
        right, right_b = pull - (kappa + penalty) * w, float(alpha @ y)  # minus the gradient
        error = max(
            np.linalg.norm(right) / max(np.linalg.norm(pull), price * total + cost, 1e-300),
            abs(right_b) / max(total, 1e-300),
        )
        if error <= tol or step == MOST_NEWTON:
            break
        system = System(samples, loss.curvature(margins), w, scores, price, kappa, penalty)
        k, share = len(system.rows), min(LOOSEST, np.sqrt(error))
        direct = gram is not None and 0 < k <= MOST_ROWS
        dw, db, solved = w, b, False
        if not direct or k > few_rows:
            most = FEW_PRODUCTS if direct else MOST_PRODUCTS
            dw, db, solved = system.iterate(right, right_b, share, most)
        if gram is not None and direct and not solved:
            few_rows = MOST_ROWS  # conjugate gradients would fail again
            dw, db = system.direct(gram, right, right_b)
        line = Line(samples, loss, price, cost, penalty, w, dw, scores, b, db)
        length = line.search()
        if not length > 0:
            break
        w, b, scores = w + length * dw, b + length * db, scores + length * line.d_scores
    return Found(w, b, margins, alpha, scores)


def best_bias(samples: Samples, loss: SmoothLoss, scores: Array, cost: float) -> float:
    """The b at which alpha is balanced: sum_i alpha_i y_i = 0."""
    import scipy.optimize  # here, as `attack` does not need it

    def excess(b: float) -> float:
        return float(loss.total(samples.y * (scores + b) - cost)[1] @ samples.y)

    reach = float(np.abs(scores).max()) + cost + 1
    while not excess(-reach) >= 0 >= excess(reach):
        reach *= 2
    found: float = scipy.optimize.brentq(excess, -reach, reach, xtol=1e-12 * reach)
    return found


class System:
    """Newton's system at w. rows: the samples with a curvature."""

    def __init__(
        self,
        samples: Samples,
        curvature: Array,
        w: Array,
        scores: Array,
        price: float,
        kappa: float,
        penalty: float,
    ):
        self.rows = np.flatnonzero(curvature)
        self.used = samples
        if len(self.rows) < len(curvature) / 2:
            self.used = samples.subset(self.rows)
            curvature = curvature[self.rows]
        self.curvature = curvature
        self.along = w / np.linalg.norm(w) if kappa else np.zeros(len(w))
        self.price, self.kappa, self.round = price, kappa, kappa + penalty

    def apply(self, v: Array, b: float) -> tuple[Array, float]:
        """The Hessian times (v, b)."""
        part = self.along @ v
        y = self.used.y
        change = self.curvature * (y * (self.used.x @ v + b) - self.price * part)
        pull = self.used.transposed @ (y * change)
        pull += self.round * v - (self.kappa * part + self.price * change.sum()) * self.along
        return pull, float(change @ y)

    def iterate(
        self, right: Array, right_b: float, share: float, most: int
    ) -> tuple[Array, float, bool]:
        """Its solution by conjugate gradients, and whether at most `share` of the residual is left.

        most: products.
        """
        diagonal = self.round + self.used.squares @ self.curvature
        total = self.curvature.sum()
        diagonal_b = total if total > 0 else np.inf  # then b stays
        x, x_b = np.zeros(len(right)), 0.0
        z, z_b = right / diagonal, right_b / diagonal_b
        p, p_b = z, z_b
        product = right @ z + right_b * z_b
        least = share**2 * product
        for _ in range(most):
            if not product > least:
                break
            q, q_b = self.apply(p, p_b)
            length = product / (p @ q + p_b * q_b)
            if not 0 < length < np.inf:
                break
            x, x_b = x + length * p, x_b + length * p_b
            right, right_b = right - length * q, right_b - length * q_b
            z, z_b = right / diagonal, right_b / diagonal_b
            before, product = product, right @ z + right_b * z_b
            p, p_b = z + product / before * p, z_b + product / before * p_b
        return x, x_b, not product > least

    def direct(self, gram: Gram, right: Array, right_b: float) -> tuple[Array, float]:
        """Its solution without price and cost: a system with the matrix G / penalty + 1 / D.

        G is the Gram matrix of the rows. Its unknowns are the changes of alpha.
        """
        import scipy.linalg

        y, x = gram.samples.y[self.rows], gram.samples.x[self.rows]
        curvature = self.curvature
        if len(curvature) > len(self.rows):
            curvature = curvature[self.rows]
        matrix = gram(self.rows)
        matrix /= self.round
        matrix[np.arange(len(y)), np.arange(len(y))] += 1 / curvature
        factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        sides = np.column_stack([y, y * (x @ right) / self.round])
        one, other = scipy.linalg.cho_solve(factor, sides, check_finite=False).T
        b = float((right_b - y @ other) / (y @ one))
        return (right - (y * (other + b * one)) @ x) / self.round, b


class Line:
    """f along a direction from (w, b)."""

    def __init__(
        self,
        samples: Samples,
        loss: SmoothLoss,
        price: float,
        cost: float,
        penalty: float,
        w: Array,
        dw: Array,
        scores: Array,
        b: float,
        db: float,
    ):
        self.y, self.loss, self.penalty = samples.y, loss, penalty
        self.price, self.cost = price, cost
        self.d_scores = samples.x @ dw
        self.plain, self.change = self.y * (scores + b), self.y * (self.d_scores + db)
        self.squares = float(w @ w), float(w @ dw), float(dw @ dw)

    def at(self, length: float) -> tuple[float, float]:
        """f and its derivative after a step of this length."""
        ww, wd, dd = self.squares
        square, half = max(ww + length * (2 * wd + length * dd), 0.0), wd + length * dd
        size = float(np.sqrt(square))
        rise = half / size if size > 0 else 0.0
        value, alpha = self.loss.total(self.plain + length * self.change - self.price * size)
        value += self.cost * size + self.penalty * square / 2
        slope = self.cost * rise + self.penalty * half
        return value, slope - float(alpha @ (self.change - self.price * rise))

    def search(self) -> float:
        """A length at which the slope is a share of that at 0, and f no larger; 0: there is none.

        By the secant rule between a length with a negative and one with a positive slope.
        """
        value, slope = self.at(0.0)
        if not slope < 0:
            return 0.0
        short, falls, long, rises, length = 0.0, slope, np.inf, np.inf, 1.0
        for _ in range(MOST_ON_LINE):
            found, slope_here = self.at(length)
            if abs(slope_here) <= -FLAT * slope and found <= value + ALLOWED * abs(value):
                return length
            if slope_here < 0:
                short, falls = length, slope_here
            else:
                long, rises = length, slope_here
            if long == np.inf:
                length *= 4
            else:
                length = short + (long - short) * min(max(falls / (falls - rises), 0.1), 0.9)
        return short
