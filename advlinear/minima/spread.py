"""Samples that are spread over the workers of dask: what Samples and Scaled are for others.

The state of the samples of a chunk stays beside the chunk, on its worker, from one step to the
next. Of all samples the driver has the labels, the weights, and at the end alpha and the margins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from advlinear import chunks
from advlinear.minima import Array
from advlinear.minima.interior import Block, Method, Samples, Summary
from advlinear.minima.losses import First
from advlinear.minima.operators import Plain, Split
from advlinear.minima.scaled import Scaled


@dataclass(frozen=True)
class ScaledChunks:
    """y (x - centre) / span (n, d), as `Scaled` without a box, of a dask array.

    Attributes:
        x: (n, ...) in chunks of rows. y: (n,) -1 or 1.
        bare: the `Scaled` of no samples.
        signs: y of each chunk, on its worker.
    """

    x: Any
    y: np.ndarray
    bare: Scaled
    signs: list[Any]

    __array_ufunc__ = None  # so that an array to the left of @ leaves the product to this class

    @classmethod
    def of(cls, x: Any, y: np.ndarray, used: np.ndarray, centre: Array, span: Array) -> Self:
        dask = sys.modules["dask"]
        bare = Scaled(np.empty((0, x.shape[1]), x.dtype), y[:0], used, centre, span)
        parts = zip(chunks.parts_of(x), chunks.rows_of(x), strict=True)
        (signs,) = dask.persist([dask.delayed(_beside)(part, y[rows]) for part, rows in parts])
        return cls(x, y, bare, signs)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.y), len(self.bare.used)

    def each(self, function: Callable, *given: list[Any]) -> list[Any]:
        """What a function returns of the `Scaled` of each chunk, and of what else is given."""
        bare = [self.bare] * len(self.signs)
        functions = [function] * len(self.signs)
        return chunks.each(self.x, _of_scaled, self.signs, bare, functions, *given)

    def __getitem__(self, key: Any) -> Array:
        """An array of some samples, as from indices or ix_."""
        samples, columns = key if isinstance(key, tuple) else (key, None)
        samples = np.ravel(samples)
        order = np.argsort(samples, kind="stable")
        bounds = [np.searchsorted(samples[order], one.stop) for one in chunks.rows_of(self.x)]
        parts = np.split(samples[order], bounds[:-1])
        inside = [part - one.start for part, one in zip(parts, chunks.rows_of(self.x), strict=True)]
        array = np.empty((len(samples), self.shape[1]))
        array[order] = np.concatenate(self.each(Scaled.__getitem__, inside))
        return array if columns is None else array[:, np.ravel(columns)]

    def __matmul__(self, w: Array) -> Array:
        return np.concatenate(self.each(Scaled.__matmul__, [w] * len(self.signs)))

    def __rmatmul__(self, alpha: Array) -> Array:
        parts = [alpha[rows] for rows in chunks.rows_of(self.x)]
        return np.asarray(sum(self.each(Scaled.__rmatmul__, parts)))


def _beside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """y, on the worker that holds x."""
    return y


def _of_scaled(x: np.ndarray, y: np.ndarray, bare: Scaled, function: Callable, *given: Any) -> Any:
    return function(replace(bare, x=x, y=y), *given)


Bare = Plain | Split  # of no samples
Kept = tuple[list[Block], Summary]


class Spread(Samples):
    """All samples: those of each chunk are blocks, which have their operator during a call alone.

    Attributes:
        scaled: of the operator; bare: the operator of no samples.
        kept: of each chunk, on its worker, what the last method returned: blocks and their summary.
    """

    def __init__(self, scaled: ScaledChunks, bare: Bare, kept: list[Any]):
        self.scaled, self.bare, self.kept = scaled, bare, kept

    @classmethod
    def start(cls, operator: Bare, first: First, theta: Array) -> tuple[Array, Self]:
        """theta, scaled down to margins of at most 1, and the samples at its margins."""
        dask, scaled = sys.modules["dask"], operator.yx
        assert isinstance(scaled, ScaledChunks)
        bare = operator.of(scaled.bare, scaled.bare.y)
        count = len(scaled.signs)
        sizes = scaled.each(_largest, [bare] * count, [theta] * count)
        theta = theta / max(1.0, *sizes)
        start = dask.delayed(_start)
        kept = [
            start(x, y, bare, first.part(rows), theta)
            for x, y, rows in zip(
                chunks.parts_of(scaled.x), scaled.signs, chunks.rows_of(scaled.x), strict=True
            )
        ]
        return theta, cls(scaled, bare, dask.persist(kept)[0])

    def each(self, method: Method, *args: Any) -> tuple[Self, Summary]:
        dask = sys.modules["dask"]
        call, summary_of = dask.delayed(_call), dask.delayed(_summary)
        parts = zip(chunks.parts_of(self.scaled.x), self.scaled.signs, self.kept, strict=True)
        (kept,) = dask.persist([call(*part, self.bare, method, args) for part in parts])
        whole, *others = dask.compute(*map(summary_of, kept))
        for other in others:
            whole = whole.joined(other)
        return type(self)(self.scaled, self.bare, kept), whole

    def whole(self, name: str) -> Array:
        dask = sys.modules["dask"]
        parts = [dask.delayed(_whole)(kept, name) for kept in self.kept]
        return np.concatenate(dask.compute(*parts))


def _largest(scaled: Scaled, bare: Bare, theta: Array) -> float:
    return float(np.abs(bare.of(scaled, scaled.y).matvec(theta)).max())


def _cut(samples: Samples, bare: Bare) -> list[Block]:
    """The blocks without their operators."""
    return [replace(block, operator=bare) for block in samples.blocks]


def _operator(x: np.ndarray, y: np.ndarray, bare: Bare) -> Bare:
    assert isinstance(bare.yx, Scaled)
    return bare.of(replace(bare.yx, x=x, y=y), y)


def _start(x: np.ndarray, y: np.ndarray, bare: Bare, first: First, theta: Array) -> Kept:
    operator = _operator(x, y, bare)
    margins = operator.matvec(theta)
    return _cut(Samples.of(operator, first(margins), margins), bare), Summary(())


def _call(
    x: np.ndarray, y: np.ndarray, kept: Kept, bare: Bare, method: Method, args: tuple
) -> Kept:
    cut: Iterator[tuple[slice, Any]] = _operator(x, y, bare).blocks()
    blocks = [replace(block, operator=one) for block, (_, one) in zip(kept[0], cut, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # they end the method, too
        samples, summary = Samples(blocks).each(method, *args)
    return _cut(samples, bare), summary


def _summary(kept: Kept) -> Summary:
    return kept[1]


def _whole(kept: Kept, name: str) -> Array:
    return Samples(kept[0]).whole(name)
