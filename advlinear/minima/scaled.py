"""Centred and scaled samples, made from raw ones when they are needed.

An operator of two classes works with y (x - centre) / span, which for few samples is a ready array.
Of many, or of samples on disk, `Scaled` holds what it is made of, and makes one block at a time. So
there is no copy of x, whatever its type is. Both have the same products and the same indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from advlinear.minima import Array

BLOCK_SIZE = 2**19  # numbers in a block of samples, about what a processor's cache holds
FEWEST_ROWS = 4096  # but at least so many samples
FILLED_ROWS = 1024  # samples of an array that are scaled at a time


def in_blocks(n: int, n_columns: int) -> Iterator[slice]:
    """Slices of n samples, of so many numbers each, that follow each other."""
    size = max(FEWEST_ROWS, BLOCK_SIZE // n_columns)
    for first in range(0, n, size):
        yield slice(first, first + size)


@dataclass(frozen=True)
class Sides:
    """A box: low and high, each (d,), and the radius eps, of features that are not scaled."""

    low: Array
    high: Array
    eps: float


@dataclass(frozen=True)
class Scaled:
    """y (x - centre) / span (n, d); in a box (n, 2 d), what a unit of u and of v adds to margins.

    Attributes:
        x: (n, ...) samples of any real type; used: (d,) which of their features are meant.
        y: (n,) -1 or 1.
        centre, span: (d,). box: None, or of the features (d,).
    """

    x: np.ndarray
    y: np.ndarray
    used: np.ndarray
    centre: Array
    span: Array
    box: Sides | None = None

    __array_ufunc__ = None  # so that an array to the left of @ leaves the product to this class

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.used) * (1 if self.box is None else 2)

    def __getitem__(self, key: Any) -> Any:
        """Those of a slice of the samples; or an array of some samples, as from indices or ix_."""
        if isinstance(key, slice):
            return replace(self, x=self.x[key], y=self.y[key])
        samples, columns = key if isinstance(key, tuple) else (key, None)
        samples = np.ravel(samples)
        array = replace(self, x=self.x[samples], y=self.y[samples]).block()
        return array if columns is None else array[:, np.ravel(columns)]

    def blocks(self) -> Iterator[slice]:
        return in_blocks(*self.shape)

    def block(self) -> Array:
        """The whole as an array: to be used of few samples."""
        x = self.x if len(self.used) == self.x.shape[1] else self.x[:, self.used]
        sign, d = self.y[:, None].astype(np.float64), len(self.used)
        scaled: Array = x.astype(np.float64)
        scaled -= self.centre
        scaled /= self.span
        scaled *= sign
        if self.box is None:
            return scaled
        both, below, above = np.empty(self.shape), x - self.box.low, self.box.high - x
        for columns, array, moves in (
            (slice(None, d), scaled, np.where(sign > 0, below, above)),
            (slice(d, None), -scaled, np.where(sign > 0, above, below)),
        ):
            both[:, columns] = array - np.minimum(self.box.eps, moves) / self.span
        return both

    def array(self) -> Array:
        """The whole as an array, which is filled by small blocks, to save memory."""
        array = np.empty(self.shape)
        for first in range(0, len(array), FILLED_ROWS):
            rows = slice(first, first + FILLED_ROWS)
            array[rows] = self[rows].block()
        return array

    def __matmul__(self, w: Array) -> Array:
        product = np.empty(len(self.y))
        for rows in self.blocks():
            np.matmul(self[rows].block(), w, out=product[rows])
        return product

    def __rmatmul__(self, alpha: Array) -> Array:
        product = np.zeros(self.shape[1])
        for rows in self.blocks():
            product += alpha[rows] @ self[rows].block()
        return product
