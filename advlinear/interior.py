"""A primal-dual interior-point method for the least robust loss, in any ball and for either loss.

The variables theta hold the weights, the bias and, as the dual norm of the weights is not smooth, a
few more (see `Split` and `Plain`). Worst-case margins m = R theta are linear in them, and theta
stays in a cone, s = K theta in C. With costs c_i that sum to the number of samples, the problem is

    primal: min  sum_i c_i l(m_i) - fixed.theta     over theta with K theta in C
    dual:   max  sum_i c_i h(alpha_i / c_i)         over 0 <= alpha <= c and z in C (each its own
                                                    dual) with R^T alpha + fixed + K^T z = 0

where l is the hinge and h(a) = a, or l is the logistic loss and h the entropy of a coin. `fixed` is
the sum of c_i times row i over samples that are known to have a loss and are left out.

Each step solves, by one Cholesky factor, the Newton equations of the conditions of optimality with
every product of complementary variables at mu, and then once more with the second-order correction
of Mehrotra (SIAM Journal on Optimization 2, 1992). The second-order cone is scaled as by Nesterov
and Todd; see Vandenberghe, "The CVXOPT linear and quadratic cone program solvers" (2010).

All alpha on the way are inside their bounds, and after a full step they keep the constraints up to
rounding, with room to spare: mu does not go below what the tolerance asks for.

For the logistic loss each step starts at the alpha that belongs to the margins, and is halved until
the loss less mu times the sum of log s does not rise: where the loss is nearly flat, a full Newton
step would be far too long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK = 2048  # samples taken at a time in the product of the matrices
MOST_STEPS = 100
NEAR = 0.99  # of the way to the boundary is taken at most
SHORTEST = 1e-10  # the smallest step that is accepted
SAME = 1e-12  # relative: a rise by no more is rounding


@dataclass(frozen=True)
class Point:
    """An iterate: theta, the dual variables alpha (n,) of samples and z of the cone."""

    theta: np.ndarray
    alpha: np.ndarray
    z: np.ndarray


# --- the rows: worst-case margins as linear functions of theta -----------------------------------


def weighted_gram(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """rows.T @ diag(weights) @ rows, with no copy of all rows."""
    gram, roots = np.zeros((rows.shape[1],) * 2), np.sqrt(weights)[:, None]
    for k in range(0, len(rows), BLOCK):
        part = rows[k : k + BLOCK] * roots[k : k + BLOCK]
        gram += part.T @ part
    return gram


def _solver(rows, curvature: np.ndarray, cone) -> Callable | None:
    """A function that solves with R^T diag(curvature) R + K^T H K; None if it is not finite."""
    gram = rows.gram(curvature)
    cone.add_hessian(gram)
    return factorised(gram)


class Plain:
    """theta = (t, w, b) with t >= eps ||w||_dual: the margin is y x.w + y b - t."""

    def __init__(self, yx: np.ndarray, y: np.ndarray):
        self.yx, self.y, self.width = yx, y, yx.shape[1]

    def dot(self, theta):
        return self.yx @ theta[1:-1] + self.y * theta[-1] - theta[0]

    def adjoint(self, alpha):
        return np.concatenate([[-alpha.sum()], alpha @ self.yx, [alpha @ self.y]])

    def gram(self, weights):
        gram = np.empty((self.yx.shape[1] + 2,) * 2)
        gram[1:-1, 1:-1] = weighted_gram(self.yx, weights)
        gram[0] = gram[:, 0] = -self.adjoint(weights)
        gram[-1] = gram[:, -1] = self.adjoint(weights * self.y)
        return gram

    solver = _solver

    def weights(self, theta):
        return theta[1:-1]

    def subset(self, samples):
        return Plain(self.yx[samples], self.y[samples])


class Split:
    """theta = (u, v, b) with w = u - v, u and v >= 0: the margin is y x.w + y b - cost.(u + v)."""

    def __init__(self, yx: np.ndarray, y: np.ndarray, cost: np.ndarray):
        self.yx, self.y, self.cost, self.width = yx, y, cost, len(cost)

    def dot(self, theta):
        u, v = np.split(theta[:-1], 2)
        return self.yx @ (u - v) + self.y * theta[-1] - self.cost @ (u + v)

    def adjoint(self, alpha):
        pull, cost = alpha @ self.yx, alpha.sum() * self.cost
        return np.concatenate([pull - cost, -pull - cost, [alpha @ self.y]])

    def solver(self, curvature, cone):
        """As `_solver`, by a system in (t, w, b) with t = cost.(u + v), a quarter of the size.

        With h the second derivatives of the cone, stationarity gives u_j + v_j from w_j and one
        number, the price of t. What is left is a diagonal and one rank more.
        """
        plain = Plain(self.yx, self.y)
        h_u, h_v = np.split(cone.ratio, 2)
        both = h_u + h_v
        lean = (h_u - h_v) / both
        spread = 4 * self.cost @ (self.cost / both)
        along = np.append(1.0, self.cost * lean)
        gram = plain.gram(curvature)
        gram[:-1, :-1] += np.outer(along, along) / spread
        index = np.arange(1, len(self.cost) + 1)
        gram[index, index] += h_u * h_v / both
        solve = factorised(gram)
        if solve is None:
            return None

        def solver(right):
            right_u, right_v = np.split(right[:-1], 2)
            free = 2 * self.cost @ ((right_u + right_v) / both)
            small = np.zeros(len(gram))
            small[:-1] = free / spread * along
            small[1:-1] += (right_u * h_v - right_v * h_u) / both
            small[-1] = right[-1]
            solved = solve(small)
            t, w = solved[0], solved[1:-1]
            price = (free - along[1:] @ w - t) / spread
            total = 2 * (right_u + right_v - 2 * price * self.cost) / both - lean * w
            return np.concatenate([(total + w) / 2, (total - w) / 2, solved[-1:]])

        return solver

    def columns(self, rows, chosen):
        """The coefficients (rows, chosen) of some of u and v."""
        d = len(self.cost)
        feature, sign = chosen % d, np.where(chosen < d, 1.0, -1.0)
        return sign * self.yx[np.ix_(rows, feature)] - self.cost[feature]

    def weights(self, theta):
        return np.subtract(*np.split(theta[:-1], 2))

    def subset(self, samples, columns=None):
        """Of some samples and, for both signs of their weights, of the features of some columns."""
        if columns is None:
            return Split(self.yx[samples], self.y[samples], self.cost)
        features = columns[: len(columns) // 2]
        return Split(self.yx[np.ix_(samples, features)], self.y[samples], self.cost[features])


class Boxed:
    """As Split, where how far a feature can move depends on the sample.

    both: (n, 2 d), y x - plus beside -y x - minus.
    """

    def __init__(self, both: np.ndarray, y: np.ndarray):
        self.both, self.y, self.width = both, y, both.shape[1]

    def dot(self, theta):
        return self.both @ theta[:-1] + self.y * theta[-1]

    def adjoint(self, alpha):
        return np.append(alpha @ self.both, alpha @ self.y)

    def gram(self, weights):
        gram = np.empty((self.both.shape[1] + 1,) * 2)
        gram[:-1, :-1] = weighted_gram(self.both, weights)
        gram[-1] = gram[:, -1] = self.adjoint(weights * self.y)
        return gram

    def columns(self, rows, chosen):
        return self.both[np.ix_(rows, chosen)]

    solver, weights = _solver, Split.weights

    def subset(self, samples, columns=None):
        both = self.both[samples] if columns is None else self.both[np.ix_(samples, columns)]
        return Boxed(both, self.y[samples])


# --- the cones -----------------------------------------------------------------------------------


def to_boundary(values: np.ndarray, change: np.ndarray) -> float:
    """The largest step for which values + step * change are all >= 0."""
    falling = change < 0
    return float((values[falling] / -change[falling]).min(initial=np.inf))


class Nonnegative:
    """s >= 0 and z >= 0, with s = theta[:-1]."""

    def __init__(self, size: int):
        self.degree = size

    def slack(self, theta):
        return theta[:-1]

    def adjoint(self, z):
        return np.append(z, 0.0)

    def scale(self, s, z):
        self.s, self.z, self.ratio = s, z, z / s

    def hessian(self, s):
        """How much z changes with s while their products stay the same."""
        return self.ratio * s

    def add_hessian(self, gram):
        index = np.arange(self.degree)
        gram[index, index] += self.ratio

    def towards(self, mu, s=0.0, z=0.0):
        """The change of z that makes its products with s equal to mu, if s stays as it is.

        s, z: the predicted changes, whose product is corrected for.
        """
        return (mu - self.s * self.z - s * z) / self.s

    def inverse(self, s):
        return 1 / s

    def barrier(self, s):
        return np.log(s).sum()

    longest = staticmethod(to_boundary)

    def tight(self, theta):
        """theta with the same weights and the largest margins: u_j or v_j is 0."""
        both = np.minimum(*np.split(theta[:-1], 2))
        return np.append(theta[:-1] - np.tile(both, 2), theta[-1])

    def room(self, pull, error):
        """How far alpha is inside the constraints, at least.

        From pull = R^T alpha + fixed, of which the weights' part may be wrong by the error.
        """
        return -pull[:-1].max() - error


class Largest(Nonnegative):
    """The same with s = (t - e w, t + e w): t is at least every e_j |w_j|."""

    def __init__(self, scale: np.ndarray):
        super().__init__(2 * len(scale))
        self.e = scale

    def slack(self, theta):
        w = self.e * theta[1:-1]
        return np.concatenate([theta[0] - w, theta[0] + w])

    def adjoint(self, z):
        below, above = np.split(z, 2)
        return np.concatenate([[z.sum()], self.e * (above - below), [0.0]])

    def add_hessian(self, gram):
        below, above = np.split(self.ratio, 2)
        index = np.arange(1, len(self.e) + 1)
        gram[0, 0] += self.ratio.sum()
        gram[index, index] += self.e**2 * (below + above)
        gram[0, index] += self.e * (above - below)
        gram[index, 0] += self.e * (above - below)

    def tight(self, theta):
        return np.append(np.abs(self.e * theta[1:-1]).max(), theta[1:])

    def room(self, pull, error):
        return -pull[0] - ((np.abs(pull[1:-1]) + error) / self.e).sum()


class Lorentz:
    """s = (t, e w) and z in the second-order cone: first entry at least the norm of the rest.

    Nesterov and Todd's scaling W has W z = W^-1 s.
    """

    degree = 1

    def __init__(self, scale: np.ndarray):
        self.e = np.append(1.0, scale)
        self.unit = np.append(1.0, np.zeros(len(scale)))

    def slack(self, theta):
        return self.e * theta[:-1]

    def adjoint(self, z):
        return np.append(self.e * z, 0.0)

    def tight(self, theta):
        return np.append(np.linalg.norm(self.e[1:] * theta[1:-1]), theta[1:])

    def room(self, pull, error):
        return -pull[0] - np.linalg.norm((np.abs(pull[1:-1]) + error) / self.e[1:])

    @staticmethod
    def _determinant(s):
        size = np.linalg.norm(s[1:])
        return (s[0] - size) * (s[0] + size)

    @staticmethod
    def _product(s, z):
        return np.append(s @ z, s[0] * z[1:] + z[0] * s[1:])

    def _scaled(self, x, sign):
        """W x (sign 1), or W^-1 x (sign -1)."""
        first, rest = self.point[0], sign * self.point[1:]
        along = rest @ x[1:]
        scaled = np.append(first * x[0] + along, x[1:] + rest * (x[0] + along / (1 + first)))
        return scaled * self.length**sign

    def scale(self, s, z):
        size_s, size_z = np.sqrt(self._determinant(s)), np.sqrt(self._determinant(z))
        s, z = s / size_s, z / size_z
        self.point = s + np.append(z[0], -z[1:])
        self.point /= np.sqrt(2 * (1 + s @ z))
        self.length = np.sqrt(size_s / size_z)
        self.middle = self._scaled(z * size_z, 1)

    def hessian(self, s):
        return self._scaled(self._scaled(s, -1), -1)

    def add_hessian(self, gram):
        mirrored = np.append(self.point[0], -self.point[1:]) * self.e
        index = np.arange(len(self.e))
        gram[:-1, :-1] += 2 / self.length**2 * np.outer(mirrored, mirrored)
        gram[index, index] += (self.e**2 * np.append(-1.0, np.ones(len(self.e) - 1))) / (
            self.length**2
        )

    def towards(self, mu, s=None, z=None):
        wanted = mu * self.unit - self._product(self.middle, self.middle)
        if s is not None:
            wanted -= self._product(self._scaled(s, -1), self._scaled(z, 1))
        first, rest = self.middle[0], self.middle[1:]
        quotient = (first * wanted[0] - rest @ wanted[1:]) / self._determinant(self.middle)
        quotient = np.append(quotient, (wanted[1:] - quotient * rest) / first)
        return self._scaled(quotient, -1)

    def inverse(self, s):
        return np.append(s[0], -s[1:]) / self._determinant(s)

    def barrier(self, s):
        return np.log(self._determinant(s)) / 2

    def longest(self, s, change):
        """The least root of a quadratic, the determinant of s + step * change."""
        square = self._determinant(change)
        half = s[0] * change[0] - s[1:] @ change[1:]
        constant = self._determinant(s)
        fall = np.sqrt(max(half * half - square * constant, 0.0)) - half
        return np.inf if (square >= 0 and half >= 0) or fall <= 0 else constant / fall


# --- the losses ----------------------------------------------------------------------------------


class Hinge:
    """c max(0, 1 - m): m - 1 = over - under, both >= 0; alpha over = mu = (c - alpha) under."""

    def __init__(self, costs, alpha, margins):
        self.costs, self.rest, self.pairs = costs, costs - alpha, 2 * len(costs)
        self.over = np.maximum(margins - 1, 0) + 1
        self.under = self.over - (margins - 1)

    def at(self, alpha, margins):
        """The alpha to continue from."""
        return alpha

    def residual(self, alpha, margins):
        return margins - 1 - self.over + self.under

    def products(self, alpha, change=None, primal=0.0, dual=0.0):
        """The sum of the complementary products, here or after steps of these lengths."""
        if change is None:
            return alpha @ self.over + self.rest @ self.under
        alpha, rest = alpha + dual * change["alpha"], self.rest - dual * change["alpha"]
        return alpha @ (self.over + primal * change["over"]) + rest @ (
            self.under + primal * change["under"]
        )

    def curvature(self, alpha):
        """How much alpha falls per unit of margin."""
        return 1 / (self.over / alpha + self.under / self.rest)

    def towards(self, alpha, mu, predicted):
        """What over and under gain, besides what a change of alpha makes of them."""
        over, under = mu - alpha * self.over, mu - self.rest * self.under
        if predicted:
            over = over - predicted["alpha"] * predicted["over"]
            under = under + predicted["alpha"] * predicted["under"]
        return over / alpha, under / self.rest

    def complete(self, alpha, change, gained):
        over, under = gained
        change["over"] = over - self.over / alpha * change["alpha"]
        change["under"] = under + self.under / self.rest * change["alpha"]

    def longest(self, alpha, change):
        primal = min(
            to_boundary(self.over, change["over"]), to_boundary(self.under, change["under"])
        )
        return primal, min(
            to_boundary(alpha, change["alpha"]), to_boundary(self.rest, -change["alpha"])
        )

    def move(self, alpha, change, primal, dual):
        self.over = self.over + primal * change["over"]
        self.under = self.under + primal * change["under"]
        self.rest = self.rest - dual * change["alpha"]
        return alpha + dual * change["alpha"]


class Logistic:
    """c log(1 + exp(-m)): alpha = c / (1 + exp(m)). It has no products of its own."""

    pairs = 0

    def __init__(self, costs, alpha, margins):
        self.costs = costs

    def at(self, alpha, margins):
        """The alpha to continue from: that of the margins."""
        self.rest = self.costs / (1 + np.exp(-margins))
        return self.costs / (1 + np.exp(margins))

    def value(self, margins):
        return self.costs @ np.logaddexp(0, -margins)

    def residual(self, alpha, margins):
        return 0.0

    def products(self, alpha, change=None, primal=0.0, dual=0.0):
        return 0.0

    def curvature(self, alpha):
        return alpha * self.rest / self.costs

    def towards(self, alpha, mu, predicted):
        return 0.0, 0.0

    def complete(self, alpha, change, gained):
        pass

    def longest(self, alpha, change):
        return np.inf, np.inf

    def move(self, alpha, change, primal, dual):
        """Moved linearly, for a proof: the alpha of the new margins would miss the constraints."""
        return np.clip(alpha + dual * change["alpha"], 0, self.costs)


LOSSES = {"hinge": Hinge, "logistic": Logistic}


# --- the method ----------------------------------------------------------------------------------


def solve(
    rows,
    cone,
    costs: np.ndarray,
    fixed: np.ndarray,
    loss: str,
    theta: np.ndarray,
    judge: Callable[[Point, int], tuple[bool, float]],
) -> Point:
    """The last iterate, starting from theta inside the cone.

    Args:
        rows, cone: of the problem above.
        costs: c (n,), positive.
        fixed: as theta.
        judge: given an iterate and its number, says whether to stop, and the smallest sum of
            complementary products that is wanted.
    """
    theta = theta / max(1.0, np.abs(rows.dot(theta)).max())  # further off, losses are flat
    alpha = _start(costs, rows.y)
    state = LOSSES[loss](costs, alpha, rows.dot(theta))
    pairs = state.pairs + cone.degree
    mu = state.products(alpha) / state.pairs if state.pairs else costs.sum() * np.log(2) / pairs
    z = mu * cone.inverse(cone.slack(theta))
    point = Point(theta, alpha, z)
    for number in range(MOST_STEPS):
        stop, least = judge(point, number)
        if stop:
            break
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # then it is the last
            following = _step(rows, cone, fixed, state, point, least / pairs)
        if following is None:
            break
        point = following
    return point


def _start(costs, y):
    """alpha (n,) half of the costs of the smaller class, and of the other class the same sum."""
    ones = y > 0
    sums = np.where(ones, costs[ones].sum(), costs[~ones].sum())
    return 0.5 * costs * sums.min() / sums


def _step(rows, cone, fixed, state, point, least_mu):
    """One predictor-corrector step; None where rounding leaves no way to go."""
    theta, alpha, z = point.theta, point.alpha, point.z
    s, margins = cone.slack(theta), rows.dot(theta)
    alpha = state.at(alpha, margins)
    pairs = state.pairs + cone.degree
    products = state.products(alpha) + s @ z
    descent = rows.adjoint(alpha) + fixed  # of the loss
    dual_residual = descent + cone.adjoint(z)
    residual, curvature = state.residual(alpha, margins), state.curvature(alpha)
    cone.scale(s, z)
    inverse = rows.solver(curvature, cone)
    if inverse is None:
        return None

    def direction(mu, predicted=None):
        over, under = gained = state.towards(alpha, mu, predicted)
        pull = cone.towards(mu, predicted["s"], predicted["z"]) if predicted else cone.towards(mu)
        wanted = over - under - residual
        right = dual_residual + rows.adjoint(curvature * wanted) + cone.adjoint(pull)
        change = inverse(right)
        for _ in range(2):  # rounding in the Cholesky factor
            applied = rows.adjoint(curvature * rows.dot(change))
            applied += cone.adjoint(cone.hessian(cone.slack(change)))
            change = change + inverse(right - applied)
        found = dict(theta=change, s=cone.slack(change))
        found["z"] = pull - cone.hessian(found["s"])
        found["margins"] = rows.dot(change)
        found["alpha"] = curvature * (wanted - found["margins"])
        state.complete(alpha, found, gained)
        return found

    def lengths(change, share):
        primal, dual = state.longest(alpha, change)
        primal = min(primal, cone.longest(s, change["s"]))
        dual = min(dual, cone.longest(z, change["z"]))
        if not state.pairs:  # margins and alpha depend on each other: the same step for both
            primal = dual = min(primal, dual)
        return min(1.0, share * primal), min(1.0, share * dual)

    def falling(change, mu, length):
        """The length, halved until the logistic loss less mu times the sum of log s does not rise.

        0 if the direction is not one of descent, which the second-order correction may cause.
        """
        if not (descent + mu * cone.adjoint(cone.inverse(s))) @ change["theta"] > 0:
            return 0.0

        def value(step):
            loss = state.value(margins + step * change["margins"])
            loss -= fixed @ (theta + step * change["theta"])
            return loss - mu * cone.barrier(s + step * change["s"])

        here = value(0.0)
        while length > SHORTEST and not value(length) - here <= SAME * abs(here):
            length /= 2
        return length

    predicted = direction(0.0)
    primal, dual = lengths(predicted, 1.0)
    left = state.products(alpha, predicted, primal, dual)
    left += (s + primal * predicted["s"]) @ (z + dual * predicted["z"])
    mu = max(left / products, 0.0) ** 3 * products / pairs
    # At the least mu the step only centres. Else the corrected direction is tried first.
    corrections, mu = (predicted, None) if mu > least_mu else (None,), max(mu, least_mu)
    for correction in corrections:
        change = direction(mu, correction)
        primal, dual = lengths(change, NEAR)
        if not state.pairs:
            primal = dual = falling(change, mu, primal)
        if primal > 0:
            break
    if not np.isfinite(change["theta"]).all() or max(primal, dual) < SHORTEST:
        return None
    alpha = state.move(alpha, change, primal, dual)
    return Point(theta + primal * change["theta"], alpha, z + dual * change["z"])


def factorised(gram: np.ndarray) -> Callable | None:
    """A function that solves with the matrix, which is overwritten; None if it is not finite.

    The diagonal is scaled to 1, as features may differ much in their units. What is added to it
    makes the factor exist where features depend on each other.
    """
    import scipy.linalg  # here, as `attack` does not need it

    diagonal = np.diagonal(gram).copy()
    if not (diagonal < np.inf).all():
        return None
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
    return None
