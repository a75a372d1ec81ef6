"""The forms that samples come in, as rows of numbers, and the way back to what the model takes.

X may be an array (n, d), or of any shape (n, ...) whose samples are flattened; a SciPy sparse
matrix, which stays one; or a pandas DataFrame, of which the numeric columns are the d features.
Nothing here imports SciPy or pandas: who passes their objects has done that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear.worst_case import blocks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

EDGE = 1e-9  # of the box's width: what is outside by no more is taken as on the edge
ULPS = 4  # or by so many units in the last place of 1, where X is of a coarser type than float64
MOST = 2**20  # rows in a block, where nothing but memory limits it


def real(X: ArrayLike, name: str = "X") -> np.ndarray:
    """X as float64, of any shape. Raises ValueError: it is masked, or not of real numbers."""
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array: fill its gaps ({name}.filled)")
    try:
        x = np.asarray(X)
        if np.iscomplexobj(x):
            raise TypeError
        return x.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} needs real numbers") from None


class Form:
    """Samples as numbers, and their form.

    Attributes:
        x: (n, d) float64, an array or, for a sparse X, a CSR matrix.
        kind: "array", "sparse" or "frame".
        edge: the share of the box's width by which rounding may have put x outside: 1e-9, or
            4.8e-7 where X is float32.
    """

    def __init__(self, X: Any):
        """Raises ValueError: X is not n samples of finite real numbers."""
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(X, pandas.DataFrame):
            self.kind, self._frame, self._columns = "frame", X, numeric_columns(X)
            x = X.iloc[:, self._columns].to_numpy(np.float64, na_value=np.nan)
            types = X.dtypes.iloc[self._columns]
        elif hasattr(X, "tocsr"):
            self.kind = "sparse"
            if X.ndim != 2 or X.dtype.kind not in "biuf":
                raise ValueError("X needs real numbers of shape (n, d)")
            x, types = X.tocsr().astype(np.float64), [X.dtype]
        else:
            self.kind, x, types = "array", real(X), [np.asarray(X).dtype]
        self.shape, self.edge = x.shape, max(EDGE, ULPS * coarsest(types))
        if x.ndim < 2 or not np.prod(x.shape):
            raise ValueError(f"X needs shape (n, d), not {x.shape}")
        if not np.isfinite(x.data if self.kind == "sparse" else x).all():
            raise ValueError("X holds NaN or infinite numbers")
        self.x = x if self.kind == "sparse" else x.reshape(len(x), -1)

    def __call__(self, points: Any, rows: np.ndarray) -> Any:
        """Points (m, d) in the form of X, each with what else the row `rows` (m,) of X holds.

        A column of a DataFrame keeps its type where no number in it has changed.
        """
        if self.kind == "sparse":
            return points
        if self.kind == "array":
            return points.reshape(len(points), *self.shape[1:])
        frame = self._frame.iloc[rows].copy()
        for j in np.flatnonzero((points != self.x[rows]).any(axis=0)):
            frame.isetitem(self._columns[j], points[:, j])
        return frame

    def per_feature(self, values: ArrayLike) -> np.ndarray:
        """Values as (d,) or (n, d). Raises TypeError or ValueError: they have another shape."""
        values = np.asarray(values, np.float64)
        n, d = self.x.shape
        if values.shape in (self.shape, (n, d)) and values.ndim > 1:
            return values.reshape(n, d)
        if values.shape in ((), self.shape[1:]):
            return np.broadcast_to(values, self.shape[1:]).reshape(d)
        return np.broadcast_to(values, d)


def coarsest(types: Iterable) -> float:
    """The largest unit in the last place of 1 among the types that are floating; 0 without one."""
    sizes = [kind.itemsize for kind in types if kind.kind == "f"]
    return float(np.finfo(f"f{min(sizes)}").eps) if sizes else 0.0


def numeric_columns(frame: Any) -> np.ndarray:
    """The places of a DataFrame's numeric columns; the others, bool too, stay as they are.

    Raises:
        ValueError: there is none, one is sparse, or numbers hide in a column of objects.
    """
    types = sys.modules["pandas"].api.types
    refuse_sparse_columns(frame)
    places = []
    for place, (name, column) in enumerate(frame.items()):
        if types.is_bool_dtype(column.dtype):
            continue
        if types.is_numeric_dtype(column.dtype):
            places.append(place)
        elif column.dtype == object and types.infer_dtype(column) in (
            *("floating", "integer", "mixed-integer-float", "mixed-integer", "boolean"),
            *("decimal", "complex"),
        ):
            raise ValueError(f"column {name!r} of X holds numbers as objects: change its type")
    if not places:
        raise ValueError("X has no column of numbers")
    return np.array(places)


def refuse_sparse_columns(X: Any) -> None:
    """Raise ValueError for a DataFrame with a column of pandas' SparseDtype."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(X, pandas.DataFrame):
        for name, kind in X.dtypes.items():
            if isinstance(kind, pandas.SparseDtype):
                raise ValueError(
                    f"column {name!r} of X is sparse: change its type to {kind.subtype}"
                )


def dense(x: Any, rows: np.ndarray) -> np.ndarray:
    """These rows of an array or a sparse matrix as an array, which is not to be changed."""
    together = len(rows) > 0 and (np.diff(rows) == 1).all()
    part = x[rows[0] : rows[-1] + 1] if together else x[rows]
    return part if isinstance(part, np.ndarray) else part.toarray()


def bounds(box: tuple | None, form: Form) -> tuple | None:
    """The box as two arrays, each (d,) or (n, d); moves samples that are outside by rounding.

    Raises:
        ValueError: it is none, or a sample is outside.
    """
    if box is None:
        return None
    n, d = form.x.shape
    try:
        low, high = (form.per_feature(side) for side in box)
    except (TypeError, ValueError):
        came = " ".join(repr(box).split())[:99]
        raise ValueError(
            f"box needs (low, high), each a number or of shape ({d},) or ({n}, {d}), not {came}"
        ) from None
    ordered = low <= high
    if not ordered.all():  # nor NaN
        place = np.unravel_index(np.argmin(ordered), ordered.shape)
        low, high = (np.broadcast_to(side, ordered.shape)[place] for side in (low, high))
        raise ValueError(f"box needs low <= high, not {low} and {high} (feature {place[-1]})")
    form.x = inside(form.x, low, high, form.edge)
    return low, high


def inside(x: Any, low: np.ndarray, high: np.ndarray, edge: float) -> Any:
    """x, with what is outside by at most `edge` of the box's width put on its edge; else raises."""
    n, d = x.shape
    parts, changed = [], False
    for rows in blocks(np.arange(n), d):
        part = dense(x, rows)
        least, most = (side[rows] if side.ndim == 2 else side for side in (low, high))
        within = (least <= part) & (part <= most)
        if not within.all():
            with np.errstate(invalid="ignore"):
                width = np.where(np.isfinite(most - least), most - least, 0)
            clipped = np.clip(part, least, most)
            far = np.abs(part - clipped) > edge * width
            if far.any():
                i, k = np.argwhere(far)[0]
                edges = (np.broadcast_to(side, part.shape)[i, k] for side in (least, most))
                raise ValueError(
                    "X[{}, {}] is {}, outside the box: [{}, {}]; clip X or widen it".format(
                        rows[i], k, part[i, k], *edges
                    )
                )
            part, changed = clipped, True
        parts.append(part if isinstance(x, np.ndarray) else type(x)(part))
    if not changed:
        return x
    if isinstance(x, np.ndarray):
        return np.concatenate(parts)
    return sys.modules["scipy.sparse"].vstack(parts, format="csr")


def units(scale: ArrayLike | None, form: Form) -> np.ndarray | None:
    """The scale (d,). Raises ValueError: it is not d finite numbers of at least 0."""
    if scale is None:
        return None
    d = form.x.shape[1]
    try:
        scale = form.per_feature(scale)
    except (TypeError, ValueError):
        raise ValueError(f"scale needs {d} numbers, one per feature") from None
    if scale.ndim > 1:
        raise ValueError(f"scale needs {d} numbers, one per feature, not {scale.shape}")
    if not ((scale >= 0) & (scale < np.inf)).all():
        raise ValueError("scale needs finite numbers of at least 0; 0 fixes a feature")
    return scale
