"""Samples in a dask array: what is known of each chunk of them, on the workers that hold it.

Nothing here imports dask: who passes a dask array has done that. It may be on the scheduler of
threads, or on a cluster of `distributed`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def is_chunked(x: Any) -> bool:
    """Whether x is a dask array."""
    dask = sys.modules.get("dask.array")
    return dask is not None and isinstance(x, dask.Array)


def of_rows(X: Any) -> Any:
    """X (n, d) in chunks of rows alone, none of them empty.

    Raises:
        ValueError: it is not n real numbers each of d, or dask does not know how many rows it has.
    """
    if X.ndim != 2 or X.dtype.kind not in "biuf" or X.dtype.itemsize > 8:
        raise ValueError("X needs real numbers of shape (n, d)")
    if not isinstance(X._meta, np.ndarray):
        raise ValueError(f"X needs chunks that are NumPy arrays, not {type(X._meta).__name__}")
    if np.isnan(X.shape).any():
        raise ValueError("X has chunks of unknown size: call X.compute_chunk_sizes() first")
    if not all(X.shape):
        raise ValueError(f"X needs shape (n, d), not {X.shape}")
    return X.rechunk((tuple(size for size in X.chunks[0] if size), -1))


def rows_of(x: Any) -> list[slice]:
    """The rows of each chunk."""
    ends = itertools.accumulate(x.chunks[0], initial=0)
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def parts_of(x: Any) -> list[Any]:
    """Each chunk, as a delayed array."""
    parts: list[Any] = x.to_delayed()[:, 0].tolist()
    return parts


def each(x: Any, function: Callable, *given: Iterable[Any]) -> list[Any]:
    """What a function returns of each chunk of x, and of what else is given for each chunk."""
    dask = sys.modules["dask"]
    calls = zip(parts_of(x), *given, strict=True)
    found: tuple[list[Any]] = dask.compute([dask.delayed(function)(*one) for one in calls])
    return found[0]
