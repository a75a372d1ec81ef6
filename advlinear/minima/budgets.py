"""What a model and a dual solution prove at eps, under the budget of each sample or of their mean.

A model is its norm s and its plain hinge p. A dual solution is the sum D of its alpha, and the size
c of sum_i alpha_i y_i x_i in the ball's norm. docs/theory.md derives the bounds, in "Every radius
at once".

|                             | "each": every sample   | "mean": all samples    |
|                             | moves by at most eps   | move by eps on average |
|-----------------------------|------------------------|------------------------|
| upper bound of the model    | p / (1 - eps s)        | p + eps s              |
| its weights                 | w / (1 - eps s)        | w                      |
| the lower bound D holds for | eps >= c / D           | eps >= c               |
| two of them prove           | the chord of 1 / D     | the chord of D         |
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from advlinear.minima.rounding import U

FINEST = 1e-12  # relative; breakpoints that change no minimum by more are not told apart


class Budget(Protocol):
    """What a path asks of a budget; all arguments may be arrays.

    A model of a larger p is of no use if its s is smaller by a share of at most `same`.
    """

    same: float

    def shrunk(self, s: Any, eps: Any) -> Any:
        """What w and b of a model are divided by at eps. It has a bound where this is above 0."""

    def loss(self, s: Any, p: Any, eps: Any) -> Any:
        """The upper bound of a model at eps."""

    def crossing(self, s: Any, p: Any, t: Any, q: Any) -> Any:
        """The eps at which the upper bounds of (s, p) and of (t, q) are equal, for s < t, p > q."""

    def unit(self, dual: Any) -> Any:
        """The lower bound `dual` holds from unit * c / dual on. Rounded up."""

    def height(self, dual: Any, share: Any = 1.0) -> Any:
        """share times what may be interpolated linearly between lower bounds.

        That of the best lower bounds is convex in eps. Of a share of 1 this is its own inverse.
        """


class Each:
    """Every sample moves by at most eps."""

    same = 0.0  # near 1 / s any smaller norm is of use

    def shrunk(self, s, eps):
        return 1 - eps * s

    def loss(self, s, p, eps):
        return p / (1 - eps * s)

    def crossing(self, s, p, t, q):
        return (p - q) / (p * t - q * s)

    def unit(self, dual):
        return 1.0

    def height(self, dual, share=1.0):
        return share / dual


class Mean:
    """The mean of how far all samples move is at most eps."""

    same = FINEST

    def shrunk(self, s, eps):
        return np.ones(np.shape(eps * s))

    def loss(self, s, p, eps):
        above = np.nextafter(np.nextafter(p + eps * s, np.inf), np.inf)  # of two roundings
        return np.where(np.logical_and(eps, s), above, p)

    def crossing(self, s, p, t, q):
        return (p - q) / (t - s)

    def unit(self, dual):
        return dual * (1 + 4 * U)

    def height(self, dual, share=1.0):
        return -share * dual


BUDGET_OF: dict[str, Budget] = {"each": Each(), "mean": Mean()}
