"""y (1, x) of each sample, as the walk along the path needs it: of an array, and of a sparse X.

walk.py says what the bias, c, alpha and the pull of a feature are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from advlinear.samples import MOST_DENSE

WIDER = 4.0  # features are looked at that may come into use until c is so much smaller


class Signed:
    """y (1, x) of each sample (n, 1 + d), of an array x (n, d). Column 0 is that of the bias.

    Attributes:
        size: (1 + d,) the largest number of each column, in absolute value.
        features: (d,) which features they are of.
        least: as long as c is not below it, no other feature comes into use.
    """

    least = 0.0

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self._data = np.hstack([y[:, None], y[:, None] * x])
        self._columns = self._data.T.copy()  # the same, column by column: some of many are needed
        self.size = np.abs(self._data).max(axis=0)
        self.features = np.arange(x.shape[1])

    def row(self, sample: int) -> np.ndarray:
        """The row (1 + d,) of a sample."""
        row: np.ndarray = self._data[sample]
        return row

    def total(self, chosen: np.ndarray) -> np.ndarray:
        """The sum (1 + d,) of the rows that are chosen (n,)."""
        total: np.ndarray = self._data[chosen].sum(axis=0)
        return total

    def pulls(self, samples: list[int], *alphas: np.ndarray) -> list[np.ndarray]:
        """The sum (1 + d,) of some rows, times each of the alphas (m,)."""
        rows = self._data[samples]
        return [alpha @ rows for alpha in alphas]

    def columns(self, places: list[int]) -> np.ndarray:
        """Some columns (k, n)."""
        columns: np.ndarray = self._columns[places]
        return columns

    def entries(self, samples: list[int], places: list[int]) -> np.ndarray:
        """The numbers (m, k) of some samples and columns."""
        entries: np.ndarray = self._data[np.ix_(samples, places)]
        return entries

    def reach(self, moved: np.ndarray) -> float:
        """A bound of how far any margin moves, of the change (1 + d,) of bias and weights."""
        return float(self.size @ np.abs(moved))

    def widen(self) -> None:
        """Take more features and lower `least`. Columns keep their places."""


class SignedSparse:
    """The same of a CSR array x, of the features that may come into use.

    As 0 <= alpha_i <= 1/n, the pull of feature j, sum_i alpha_i y_i x_ij, is at most
    bound_j = max(sum_i max(y_i x_ij, 0), sum_i max(-y_i x_ij, 0)) / n. Features come into use with
    a pull of c, and c only falls. So few features of text matter at radii that are not tiny.

    Columns that are asked for become arrays, and stay.
    """

    def __init__(self, x: Any, y: np.ndarray):
        n = len(y)
        yx = x.multiply(y[:, None]).tocsr()
        sums = [(sign * yx).maximum(0).sum(axis=0) for sign in (1, -1)]
        bounds = np.maximum(*sums) / n
        order = np.argsort(-bounds, kind="stable")
        self._bounds, self._order, self._y = bounds[order], order, y
        self._every = yx[:, order].tocsc()
        self._known = np.empty((0, n))
        self._places = np.full(1 + x.shape[1], -1)  # of the columns in `_known`
        self._count = 0
        self._longest = float(np.sqrt(yx.power(2).sum(axis=1).max()))  # of the samples
        self.least = float(self._bounds[0])
        self.widen()

    def widen(self) -> None:
        self.least /= WIDER
        m = int(np.count_nonzero(self._bounds >= self.least))
        if m == np.count_nonzero(self._bounds):  # all that are not 0 everywhere
            self.least = 0.0
        self.features = self._order[:m]
        self._x = self._every[:, :m].tocsr()
        self.size = np.append(1.0, abs(self._x).max(axis=0).toarray().ravel())

    def row(self, sample: int) -> np.ndarray:
        row, part = np.zeros(len(self.size)), slice(*self._x.indptr[sample : sample + 2])
        row[0], row[1 + self._x.indices[part]] = self._y[sample], self._x.data[part]
        return row

    def total(self, chosen: np.ndarray) -> np.ndarray:
        return np.append(self._y[chosen].sum(), self._x.T @ chosen.astype(np.float64))

    def pulls(self, samples: list[int], *alphas: np.ndarray) -> list[np.ndarray]:
        rows, y = self._x[samples].T, self._y[samples]
        return [np.append(alpha @ y, rows @ alpha) for alpha in alphas]

    def reach(self, moved: np.ndarray) -> float:
        by_length = abs(moved[0]) + self._longest * np.linalg.norm(moved[1:])
        return float(min(self.size @ np.abs(moved), by_length))

    def columns(self, places: list[int]) -> np.ndarray:
        self._make(places)
        columns: np.ndarray = self._known[self._places[places]]
        return columns

    def entries(self, samples: list[int], places: list[int]) -> np.ndarray:
        self._make(places)
        entries: np.ndarray = self._known[self._places[places][:, None], samples].T
        return entries

    def _make(self, places: list[int]) -> None:
        """Make arrays of the columns that are none yet. Raises ValueError: they are too many."""
        for place in places:
            if self._places[place] < 0:
                self._places[place] = self._add(place)

    def _add(self, place: int) -> int:
        if self._count == len(self._known):
            more = np.empty((max(self._count, 64), len(self._y)))
            if self._known.size + more.size > MOST_DENSE:
                raise ValueError(
                    f"the path has had {self._count - 1} features of a sparse X in use, and more "
                    f"would not fit an array of {MOST_DENSE:g} numbers: raise eps_min"
                )
            self._known = np.concatenate([self._known, more])
        column = self._known[self._count]
        column[:] = 0 if place else self._y
        if place:
            part = slice(*self._every.indptr[place - 1 : place + 1])
            column[self._every.indices[part]] = self._every.data[part]
        self._count += 1
        return self._count - 1
