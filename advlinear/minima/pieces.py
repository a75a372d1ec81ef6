"""Models and dual solutions of a path, each reduced to what it proves of the float64 numbers.

A model is one s and one p: its norm, and its plain hinge. A dual solution is one r and one D, or
with the budget "mean" one c and one D. path.py says what these prove. With u = 2^-53, gamma_k = k u
/ (1 - k u) bounds the relative error of k roundings in any order (Higham, Accuracy and Stability of
Numerical Algorithms, section 3.1).

- p is the mean of max(0, 1 + e - margin), rounded up. Here e = gamma_k (|w|.|x| + |b|), with the
  largest |x| of each feature, is what rounding may change: in the margin itself, in 1 - eps s, and
  in w / (1 - eps s) and b / (1 - eps s), the weights and the bias at a radius eps.
- n alpha is rounded to whole multiples of a power of 2, so that sums of them are exact, and made
  balanced exactly. So D is known, and x may be centred: an offset costs nothing. r is the computed
  size plus gamma_k times half the range.
- The separating model of the largest margin is scaled up until its margins are at least 1 + e, so
  that p = 0: the minimum is 0 below radii[0], just below 1 / s. With the budget "mean" the minimum
  is 0 at eps = 0 alone, and (c, D) = (0, 0) is added to the dual solutions.
- With the budget "mean" p + eps s is rounded up, and c is r D, rounded up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear import samples
from advlinear.balls import BLOCK, ORDER, dual_norm
from advlinear.minima.budgets import BUDGET_OF, FINEST, Budget
from advlinear.minima.minimum import LARGEST_GAP
from advlinear.minima.rounding import U

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LOST = 5e-10  # relative; what the lower bound may lose below proved[0], to hold up to `reach`
TIMES, LEAST_REACH = 2, 1000  # `reach` is at least so many norms, and so much over the range
SAME = 3e-13  # relative; weights below it are 0, and models that differ by less are one


class Found:
    """Models and dual solutions, each reduced to what it proves in exact arithmetic.

    For dual solutions, which are balanced, x may be replaced by away = x - centre. Of a CSR array x
    centre is 0, and a product with it adds up the numbers of each column one after the other.
    """

    def __init__(
        self,
        x,
        y,
        classes,
        norm: str,
        eps_min: float,
        eps_max: float,
        tol: float,
        budget: str = "each",
        fit_intercept: bool = True,
    ):
        if not fit_intercept:
            x, y = samples.mirrored(x), np.append(y, -y)
        self.x, self.y, self.classes, self.norm = x, y, classes, norm
        self.fit_intercept = fit_intercept
        self.eps_min, self.eps_max, self.tol = eps_min, eps_max, tol
        self.name, self.budget = budget, BUDGET_OF[budget]
        low, high = samples.extremes(x)
        self.largest = np.maximum(-low, high)
        self.centre, self.away, self.furthest = np.zeros(x.shape[1]), x, self.largest
        if isinstance(x, np.ndarray):
            self.centre = low / 2 + high / 2
            self.away = x - self.centre
            self.furthest = np.abs(self.away).max(axis=0)
        self._block = int(np.sqrt(len(y))) + 1  # samples in a partial sum
        self._models: list[tuple[np.ndarray, float]] = []  # not looked at yet
        self._alphas: list[np.ndarray] = []  # nor these
        self._weights: list[Any] = []
        self._lines: list[np.ndarray] = []
        self._points: list[np.ndarray] = []
        self.margin = 0.0  # below it the minimum is 0
        # The largest margin of a model, and the model.
        self._separating: tuple[float, Any] = 0.0, None

    def add_model(self, w: np.ndarray, b: float) -> None:
        """w (d,) and b as they enter P: of the budget "each", divided by 1 + eps ||w||."""
        self._models.append((w, b if self.fit_intercept else 0.0))
        if len(self._models) == BLOCK:
            self._look_at_models()

    def add_alpha(self, alpha: np.ndarray) -> None:
        """alpha (n,), which is balanced and cut to what is allowed."""
        self._alphas.append(alpha)
        if len(self._alphas) == BLOCK:
            self._look_at_alphas()

    def _look_at_models(self) -> None:
        """Bounds of the norm and the plain hinge of each model.

        They allow for what `Path.at` rounds: 1 - eps s, the loss, each weight and the bias.
        """
        from scipy.sparse import csr_array  # here, as `attack` does not need it

        w, b = (np.array(parts) for parts in zip(*self._models, strict=True))
        used = np.flatnonzero(w.any(axis=0))
        some, x = w[:, used], self.x[:, used]
        terms = np.count_nonzero(some, axis=1)
        error = gamma(terms + 7) * (np.abs(some) @ self.largest[used] + np.abs(b))
        p, least = np.zeros(len(w)), np.full(len(w), np.inf)
        for rows in self._blocks():
            margins = (x[rows] @ some.T + b) * self.y[rows, None]
            p += np.maximum(1 + error - margins, 0).sum(axis=0)
            least = np.minimum(least, margins.min(axis=0))
        p *= (1 + self._sum_error(7)) / len(self.y)
        s = np.array([dual_norm(one, self.norm) for one in w]) * (1 + gamma(terms + 6))
        self._lines.append(np.stack([s, p, b]))
        self._weights.append(csr_array(w))
        self._models = []
        least -= 3 * error
        separates = np.flatnonzero(least > 0)
        for k in separates[np.argsort(s[separates] / least[separates])[:1]]:
            if least[k] / s[k] > self._separating[0]:
                self._separating = least[k] / s[k], (w[k] / least[k], b[k] / least[k])

    def _look_at_alphas(self) -> None:
        """Bounds of the radius from which each alpha bounds the minimum, and of its sum D."""
        n, d = self.away.shape
        alpha, both = balanced(np.array(self._alphas) * n, self.y > 0)
        alpha *= self.y
        pull = np.zeros((len(both), d))
        more = 6 if self.norm == "inf" else d + 6
        if isinstance(self.away, np.ndarray):
            for rows in self._blocks():
                pull += alpha[:, rows] @ self.away[rows]
            error = self._sum_error(more) * self.furthest
        else:
            pull += (self.away.T @ alpha.T).T
            terms = np.bincount(self.away.indices, minlength=d)
            error = gamma(terms + more) * self.furthest
        mean = np.abs(pull) / (2 * both)[:, None] + error
        r = np.linalg.norm(mean, ORDER[self.norm], axis=1)
        total = 2 * both / n
        self._points.append(np.stack([r * self.budget.unit(total), np.nextafter(total, 0)]))
        self._alphas = []

    def _blocks(self) -> list[slice]:
        """The samples in parts, so that sums round less."""
        return [slice(k, k + self._block) for k in range(0, len(self.y), self._block)]

    def _sum_error(self, more: int) -> float:
        """Of a sum over the samples in blocks, with so many more operations on each term."""
        return float(gamma(2 * self._block + more))

    def known(self) -> dict[str, Any]:
        """Of all that is found, what matters from eps_min to eps_max: the fields of a `Path`."""
        from scipy.sparse import vstack

        if self._models:
            self._look_at_models()
        if self._separating[1] is not None:
            self.add_model(*self._separating[1])
            self._separating = self._separating[0], None
            self._look_at_models()
        if self._alphas:
            self._look_at_alphas()
        (s, p, b), (proved, dual) = (
            np.concatenate(parts, axis=1) for parts in (self._lines, self._points)
        )
        order = np.argsort(proved)
        # A bound holds at all larger radii; of radii that rounding does not tell apart, the last.
        proved, dual = proved[order], np.maximum.accumulate(dual[order])
        apart = np.append(np.diff(proved) > FINEST * proved[1:], True)
        proved, dual, reach = proved[apart], dual[apart], np.inf
        if (p == 0).any() and self.name == "each":
            self.margin = (1 - FINEST) / s[p == 0].min()
        elif (p == 0).any():  # alpha = 0 proves the minimum at eps = 0
            proved, dual = np.append(0.0, proved), np.append(0.0, dual)
        start = max(self.eps_min, self.margin)
        kept = np.arange(len(s))
        if start < min(proved[0], self.eps_max):
            first, norm = self._first_point(s[p > 0], p[p > 0], proved, dual)
            proved, dual = proved[first:], dual[first:]
            size = np.linalg.norm(self.furthest, ORDER[self.norm])
            reach = max(LOST, self.tol / 10) / (proved[0] - start) * self.budget.unit(dual[0])
            reach = max(reach, TIMES * norm, LEAST_REACH / size)
            kept = np.flatnonzero((p == 0) | (s < reach * self.budget.shrunk(s, proved[0])))
        if self.norm != "inf":  # there the points are corners
            corners = convex(proved, self.budget.height(dual))
            proved, dual = proved[corners], dual[corners]
        best, radii = envelope(s[kept], p[kept], self.budget)
        best = kept[best]
        first, last = np.searchsorted(radii, [self.eps_min, self.eps_max], side="right")
        best, radii = best[first : last + 1], radii[first:last]
        return dict(
            eps_min=self.eps_min,
            eps_max=self.eps_max,
            norm=self.norm,
            classes=self.classes,
            n=len(self.y) // (1 if self.fit_intercept else 2),
            w=vstack(self._weights, format="csr")[best],
            b=b[best],
            s=s[best],
            p=p[best],
            radii=radii,
            proved=proved,
            dual=dual,
            reach=reach,
            budget=self.name,
        )

    def _first_point(self, s, p, proved, dual) -> tuple[int, float]:
        """The first point that proves a model best, to the tolerance, and the norm of its weights.

        The first of all, if none does.
        """
        chosen = None
        for j, (eps, value) in enumerate(zip(proved, dual, strict=True)):
            shrunk = self.budget.shrunk(s, eps)
            some = np.flatnonzero(shrunk > 0)
            losses = self.budget.loss(s[some], p[some], eps)
            k = some[np.argmin(losses)]
            if value >= losses.min() * (1 - (self.tol or LARGEST_GAP)):
                return j, s[k] / shrunk[k]
            chosen = chosen or (j, s[k] / shrunk[k])
        assert chosen is not None
        return chosen


def gamma(count: ArrayLike) -> np.ndarray:
    """The relative error of so many roundings (Higham, Accuracy and Stability, section 3.1)."""
    rounded = np.multiply(count, U)
    return rounded / (1 - rounded)


def balanced(alpha: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """alpha (m, n) within [0, 1] and of equal sums over the two classes, exactly; and these sums.

    The larger sum is scaled down to the other. All is rounded down to whole multiples of a power
    of 2, so large that no sum of them rounds; then the largest number of a class gives up what
    this class still has more. Left out is an alpha that is 0 on a whole class.
    """
    alpha, classes = np.clip(alpha, 0, 1), (positive, ~positive)
    sums = np.array([alpha[:, one].sum(axis=1) for one in classes])
    kept = sums.min(axis=0) > 0
    alpha, sums = alpha[kept], sums[:, kept]
    least = sums.min(axis=0)
    unit = np.ldexp(1.0, np.frexp(least)[1] - 52)[:, None]
    for one, total in zip(classes, sums, strict=True):
        alpha[:, one] = np.floor(alpha[:, one] * (least / total)[:, None] / unit) * unit
    sums = np.array([alpha[:, one].sum(axis=1) for one in classes])
    least = sums.min(axis=0)
    for one, total in zip(classes, sums, strict=True):
        largest = np.flatnonzero(one)[alpha[:, one].argmax(axis=1)]
        alpha[np.arange(len(alpha)), largest] -= total - least
    return alpha, least


def envelope(s: np.ndarray, p: np.ndarray, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Which of the models have the smallest bound somewhere, and where one follows another.

    Args:
        s, p: (m,) at least 0. Of the budget "each" the bound of a model of p = 0 ends just below
            eps = 1 / s, so that 1 - eps s is not 0.
        budget: what gives the bound of a model at eps, and where two of them are equal.

    Returns:
        The K models, in the order of rising eps, and the K - 1 radii where one follows another.
    """
    best: list[int] = []
    radii: list[float] = []
    for k in np.lexsort((p, -s)):  # from the largest norm on
        if best and s[k] >= s[best[-1]] * (1 - budget.same) and p[k] >= p[best[-1]]:
            continue
        while best:
            last = best[-1]
            same = s[k] > s[last] * (1 - SAME) and p[k] < p[last] * (1 + SAME)
            if p[k] > p[last] and not same:
                crossing = budget.crossing(s[k], p[k], s[last], p[last])
                crossing *= 1 if p[last] else 1 - FINEST
                if not radii or crossing > radii[-1] * (1 + 2 * FINEST):
                    radii.append(crossing)
                    break
            best.pop()
            del radii[-1:]
        best.append(k)
    return np.array(best), np.array(radii)


def convex(x: np.ndarray, y: np.ndarray) -> list[int]:
    """The corners of the largest convex function that is nowhere above y (m,) at rising x (m,)."""
    corners: list[int] = []
    for k in range(len(x)):
        while len(corners) > 1:
            i, j = corners[-2:]
            if (y[j] - y[i]) * (x[k] - x[i]) < (y[k] - y[i]) * (x[j] - x[i]):
                break
            corners.pop()
        corners.append(k)
    return corners
