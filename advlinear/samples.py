"""X, y, sample_weight, scale, box and eps: read and checked, all in one place.

X may be an array (n, d), or of any shape (n, ...) whose samples are flattened; a SciPy sparse
matrix, which stays one; or a pandas DataFrame, of which the numeric columns are the d features.
Nothing here imports SciPy or pandas: who passes their objects has done that.
"""

from __future__ import annotations

import math
import numbers as kinds
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear import chunks
from advlinear.balls import ball, blocks, exponent_of, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

EDGE = 1e-9  # of the box's width: what is outside by no more is taken as on the edge
ULPS = 4  # or by so many units in the last place of 1, where X is of a coarser type than float64
MOST = 2**20  # rows in a block, where nothing but memory limits it
SWEEP = 2**16  # rows of X whose least and largest numbers are looked for at a time
HUGE = 2.0**1000  # 1e301: sums of a million such numbers are finite
LIGHTEST = 1e-100  # of the largest sample_weight: the smallest other than 0
BUDGETS = "each", "mean"  # of every sample, or of all together
LOSSES = ("hinge", "logistic")
LARGE = 2e7  # numbers in an array X from which on it is taken as it is, without a copy
MOST_CLASSES = 16  # that are trained together: a certificate looks at 2^(K - 1) sets of them
MOST_DENSE = 5e7  # numbers of a sparse X that is made an array: 400 MB
SCALES = 1e-100, 1e100  # units of features: others overflow or underflow


def array(values: Any, what: str) -> np.ndarray:
    """The values as an array of any type and shape; a PyTorch tensor, too, from any device.

    Everything that users pass as numbers or labels is read here, apart from sparse samples and the
    columns of a DataFrame X.

    Args:
        what: the name of the values in messages.

    Raises:
        ValueError: they are sparse, masked, structured, complex, dates, durations or missing; or a
            tensor that NumPy cannot hold.
    """
    if hasattr(values, "toarray"):
        raise ValueError(f"{what} is sparse: make it an array by toarray()")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        try:
            values = values.detach().cpu().numpy()
        except Exception:  # bfloat16, sparse, quantised, or without data
            raise ValueError(
                f"{what} is a tensor ({values.dtype}, {values.layout}, {values.device}) that NumPy "
                "cannot hold: pass one of float32 or float64"
            ) from None
    parts = values if isinstance(values, list | tuple) else [values]  # asarray would drop masks
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise ValueError(f"{what} is a masked array: fill its gaps, or leave them out")
    try:
        values = np.asarray(values)
    except Exception:  # rows of different lengths, or an array of another library's device
        raise ValueError(f"{what} needs to be an array, or what NumPy makes one of") from None
    kinds = {values.dtype.kind}
    if values.dtype == object:
        kinds = {one.dtype.kind for one in values.flat if isinstance(one, np.generic)}
        kinds |= {"c" for one in values.flat if isinstance(one, complex)}
        pandas = sys.modules.get("pandas")
        if pandas is not None and any(one is pandas.NA for one in values.flat):
            raise ValueError(f"{what} holds missing values: fill them, or leave them out")
    if "V" in kinds:
        raise ValueError(f"{what} is structured (type {values.dtype}): pass a plain array")
    if "c" in kinds:
        raise ValueError(f"{what} holds complex numbers: pass real ones")
    if kinds & {"M", "m"}:
        raise ValueError(f"{what} holds dates or durations: pass them as numbers")
    return values


def real(values: Any, what: str = "X", copy: bool = False) -> np.ndarray:
    """The values as float64, of any shape; a copy if asked for, and where the type changes.

    Raises:
        ValueError: as from `array`; or they are not numbers, such as text.
    """
    values = array(values, what)
    try:
        if values.dtype.kind not in "biufO":
            raise TypeError
        if values.dtype == object and any(isinstance(one, str | bytes) for one in values.flat):
            raise TypeError
        return values.astype(np.float64, copy=copy)
    except (TypeError, ValueError):
        raise ValueError(f"{what} needs real numbers") from None
    except OverflowError:  # whole numbers of Python, in an array of objects
        raise ValueError(f"{what} holds numbers above 1e301, which overflow") from None


def require_finite(values: np.ndarray, what: str) -> None:
    """Raise ValueError unless all values are finite, and none is above 2^1000 in absolute value.

    Sums and differences of larger ones overflow.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low >= -HUGE and high <= HUGE:  # False for NaN
        return
    if np.isfinite(values).all():
        raise ValueError(f"{what} holds numbers above 1e301, which overflow: change its unit")
    raise ValueError(f"{what} holds NaN or infinite numbers: fill them, or leave them out")


# --- names ---------------------------------------------------------------------------------------


def names(X: Any) -> tuple[Any, Any]:
    """The column names and the index of a DataFrame, as pandas objects; else None twice."""
    pandas = sys.modules.get("pandas")
    known = pandas is not None and isinstance(X, pandas.DataFrame)
    return (X.columns, X.index) if known else (None, None)


def in_order(values: Any, columns: Any, index: Any, what: str) -> Any:
    """A Series or DataFrame with its entries in the order of X, by name; other values as they are.

    The names of a Series are those of the columns of X. A DataFrame has those of the columns and
    the index of X. Where X has no names, only the default index of pandas is taken, in its order.

    Args:
        columns, index: those of X, as from `names`.

    Raises:
        ValueError: a name is missing, unknown, or there twice; or X has no names.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(values, pandas.Series | pandas.DataFrame):
        return values
    if isinstance(values, pandas.Series):
        return values.iloc[_places(values.index, columns, what, "column")]
    rows = _places(values.index, index, what, "row")
    return values.iloc[rows, _places(values.columns, columns, what, "column")]


def weights_in_order(W: Any, b: Any, columns: Any) -> tuple[Any, Any]:
    """Weights W or w with their features in the order of X, by name; other values as they are.

    A Series w, and the columns of a DataFrame W, have the names of the columns of X. The rows of W,
    and a Series b, are those of the classes 0 to K - 1.

    Args:
        columns: those of X, as from `names`.

    Raises:
        ValueError: as from `in_order`; or W and b name other classes.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return W, b
    what = "(W, b)"
    if isinstance(W, pandas.Series):
        W = in_order(W, columns, None, what)
    elif isinstance(W, pandas.DataFrame):
        _require_counted(W.index, "W")
        W = W.sort_index().iloc[:, _places(W.columns, columns, what, "column")]
    if isinstance(b, pandas.Series):
        _require_counted(b.index, "b")
        b = b.sort_index()
    return W, b


def _require_counted(index: Any, what: str) -> None:
    """Raise ValueError unless an index is 0 to K - 1, in any order."""
    if sorted(index, key=str) != sorted(range(len(index)), key=str):
        raise ValueError(
            f"the index of {what} needs to be 0 to {len(index) - 1}, the classes of (W, b): pass "
            f"{what} as an array to take it by place"
        )


def _places(given: Any, wanted: Any, what: str, axis: str) -> np.ndarray:
    """Where each of the wanted names is among those given. Raises ValueError: see `in_order`."""
    by_place = f"pass {what} as an array to take it by place"
    if wanted is None:
        if not given.equals(sys.modules["pandas"].RangeIndex(len(given))):
            raise ValueError(f"{what} has {axis} names, but X has none: {by_place}")
        return np.arange(len(given))
    if given.equals(wanted):
        return np.arange(len(given))
    for one, owner in ((given, what), (wanted, "X")):
        if not one.is_unique:
            twice = one[one.duplicated()].tolist()[0]
            raise ValueError(f"{owner} has {axis} {twice!r} more than once: {by_place}")
    missing, unknown = (
        one.difference(other, sort=False).tolist()
        for one, other in ((wanted, given), (given, wanted))
    )
    if missing:
        raise ValueError(f"{what} lacks {axis} {missing[0]!r} of X: add it, or {by_place}")
    if unknown:
        numeric = " of numbers" if axis == "column" else ""
        raise ValueError(f"{what} has {axis} {unknown[0]!r}, which is no {axis}{numeric} of X")
    return given.get_indexer(wanted)


# --- samples -------------------------------------------------------------------------------------


class Form:
    """Samples as numbers, and their form; copied, so that X may change afterwards.

    Attributes:
        x: (n, d) float64, an array or, for a sparse X, a CSR matrix.
        kind: "array", "sparse" or "frame".
        edge: the share of the box's width by which rounding may have put x outside: 1e-9, or
            4.8e-7 where X is float32.
        unit: the share of a number in X by which rounding may have changed it: 8.9e-16, or 4.8e-7
            where X is float32; 0 where all are whole numbers.
        columns, index: the names of the d features and of the n samples, or None.
    """

    def __init__(self, X: Any, columns: Any = None, index: Any = None):
        """Columns and index, of an array X, are as from `names`.

        Raises:
            ValueError: X is not n samples of finite real numbers.
        """
        self.columns, self.index = columns, index
        pandas = sys.modules.get("pandas")
        if pandas is not None and isinstance(X, pandas.DataFrame):
            self._columns = numeric_columns(X)
            X = X.copy()  # of which x may be a view
            self.kind, self._frame = "frame", X
            x = X.iloc[:, self._columns].to_numpy(np.float64, na_value=np.nan)
            types = X.dtypes.iloc[self._columns]
            self.columns, self.index = X.columns[self._columns], X.index
        elif hasattr(X, "tocsr"):
            self.kind = "sparse"
            if X.ndim != 2 or X.dtype.kind not in "biuf":
                raise ValueError("X needs real numbers of shape (n, d)")
            x, types = X.tocsr().astype(np.float64), [X.dtype]
        else:
            X = array(X, "X")
            self.kind, x, types = "array", real(X, copy=True), [X.dtype]
        self.shape, self.unit = x.shape, ULPS * coarsest(types)
        self.edge = max(EDGE, self.unit)
        if x.ndim < 2 or not np.prod(x.shape):
            raise ValueError(f"X needs shape (n, d), not {x.shape}")
        require_finite(x.data if self.kind == "sparse" else x, "X")
        self.x = x if self.kind == "sparse" else x.reshape(len(x), -1)

    def __call__(self, points: Any, rows: np.ndarray) -> Any:
        """Points (m, d) in the form of X, each with what else the row `rows` (m,) of X holds.

        A copy, as some models work in place, such as scalers with copy=False.
        A column of a DataFrame keeps its type where no number in it has changed.
        """
        if self.kind == "sparse":
            return points.copy()
        if self.kind == "array":
            return points.copy(order="K").reshape(len(points), *self.shape[1:])
        frame = self._frame.iloc[rows].copy()
        for j in np.flatnonzero((points != self.x[rows]).any(axis=0)):
            frame.isetitem(self._columns[j], points[:, j])
        return frame

    def alike(self, points: Any) -> tuple[Any, list]:
        """Other points in the form of X, as (n, d) float64, and the type of all or of each feature.

        An array, or for a sparse X a CSR matrix.

        Raises:
            ValueError: they have another form or shape, other columns or another index; a column
                that is not attacked differs; or they are not finite real numbers.
        """
        if self.kind == "frame":
            points = self._attacked_columns(points)
            types = list(points.dtypes)
            x = points.to_numpy(np.float64, na_value=np.nan)
        elif self.kind == "sparse":
            if not hasattr(points, "tocsr") or points.dtype.kind not in "biuf":
                raise ValueError("points needs to be a sparse matrix of real numbers, as X is")
            x, types = points.tocsr().astype(np.float64), [points.dtype]
        else:
            if hasattr(points, "columns"):
                raise ValueError("points needs to be an array, as X is: pass points.to_numpy()")
            points = array(points, "points")
            x, types = real(points, "points"), [points.dtype]
        if x.shape != (self.x.shape if self.kind == "frame" else self.shape):
            raise ValueError(f"points needs the shape of X, {self.shape}, not {x.shape}")
        values = x.data if self.kind == "sparse" else x
        if not np.isfinite(values).all():
            raise ValueError(
                "points holds NaN or infinite numbers: put the numbers of X in their place, which "
                "counts as not found"
            )
        require_finite(values, "points")
        return (x if self.kind == "sparse" else x.reshape(len(x), -1)), types

    def _attacked_columns(self, points: Any) -> Any:
        """The numeric columns of another DataFrame. Raises ValueError: see `alike`."""
        pandas, frame = sys.modules["pandas"], self._frame
        if not isinstance(points, pandas.DataFrame):
            raise ValueError("points needs to be a DataFrame with the columns of X, as X is")
        for axis, own in (("columns", frame.columns), ("index", frame.index)):
            if not getattr(points, axis).equals(own):
                raise ValueError(f"points needs the {axis} of X, in its order: set points.{axis}")
        types = pandas.api.types
        for place, name in enumerate(frame.columns):
            column = points.iloc[:, place]
            if place not in self._columns:
                if not column.equals(frame.iloc[:, place]):
                    raise ValueError(
                        f"column {name!r} of points differs from that of X, which is not attacked "
                        "as it holds no numbers: take over the one of X"
                    )
            elif (
                types.is_bool_dtype(column.dtype)
                or types.is_complex_dtype(column.dtype)
                or not types.is_numeric_dtype(column.dtype)
            ):
                raise ValueError(f"column {name!r} of points needs real numbers")
        return points.iloc[:, self._columns]

    def per_feature(self, values: np.ndarray) -> np.ndarray:
        """Values as (d,) or (n, d). Raises ValueError: they have another shape."""
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
        ValueError: there is none, one is sparse or complex, or numbers hide in a column of objects.
    """
    types = sys.modules["pandas"].api.types
    refuse_sparse_columns(frame)
    places = []
    for place, (name, column) in enumerate(frame.items()):
        if types.is_bool_dtype(column.dtype):
            continue
        if types.is_complex_dtype(column.dtype):
            raise ValueError(f"column {name!r} of X holds complex numbers: pass real ones")
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


def refuse_other_columns(X: Any) -> None:
    """Raise ValueError for a DataFrame with a column that an attack would not change.

    A minimum with weights for such columns would be that of another attack.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(X, pandas.DataFrame):
        return
    for place in np.setdiff1d(np.arange(X.shape[1]), numeric_columns(X)):
        raise ValueError(
            f"column {X.columns[place]!r} of X has the type {X.dtypes.iloc[place]}, which attack "
            "does not take for numbers: leave it out, or change its type"
        )


def dense(x: Any, rows: np.ndarray) -> np.ndarray:
    """These rows of an array or a sparse matrix as an array, which is not to be changed."""
    together = len(rows) > 0 and (np.diff(rows) == 1).all()
    part = x[rows[0] : rows[-1] + 1] if together else x[rows]
    return part if isinstance(part, np.ndarray) else part.toarray()


def bounds(box: tuple, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """The box as two arrays, each (d,) or (n, d); moves samples that are outside by rounding.

    Raises:
        ValueError: it is no box, or a sample is outside.
    """
    n, d = form.x.shape
    both = sides(box, form.columns, form.index)
    try:
        low, high = (form.per_feature(side) for side in both)
    except ValueError:
        came = " ".join(repr(box).split())[:99]
        raise ValueError(
            f"box needs (low, high), each a number or of shape ({d},) or ({n}, {d}), not {came}"
        ) from None
    ordered = low <= high
    if not ordered.all():  # nor NaN
        place = np.unravel_index(np.argmin(ordered), ordered.shape)
        low, high = (np.broadcast_to(side, ordered.shape)[place] for side in (low, high))
        raise ValueError(f"box needs low <= high, not {low} and {high} (feature {place[-1]})")
    for side in (low, high):
        require_finite(side[np.isfinite(side)], "box")
    form.x = inside(form.x, low, high, form.edge)
    return low, high


def sides(box: Any, columns: Any, index: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both sides of a box as new float64 arrays, in the order of X; errors as of `in_order`."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(box, pandas.DataFrame):
        rows = (f"box.iloc[{row}]" for row in (0, 1))
        if len(box) == 2 and box.index.is_unique:
            rows = (f"box.loc[{row!r}]" for row in box.index.tolist())
        raise ValueError("box needs (low, high), not a DataFrame: pass ({}, {})".format(*rows))
    pair = isinstance(box, tuple | list) or (isinstance(box, np.ndarray) and box.ndim > 0)
    if not pair or len(box) != 2:  # a dict would give its keys
        came = " ".join(repr(box).split())[:99]
        raise ValueError(f"box needs (low, high), each a number or one per feature, not {came}")
    low, high = (real(in_order(side, columns, index, "box"), "box", copy=True) for side in box)
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
            far = outside(part, least, most, edge)
            if far.any():
                i, k = np.argwhere(far)[0]
                edges = (np.broadcast_to(side, part.shape)[i, k] for side in (least, most))
                raise ValueError(
                    "X[{}, {}] is {}, outside the box: [{}, {}]; clip X or widen it".format(
                        rows[i], k, part[i, k], *edges
                    )
                )
            part, changed = np.clip(part, least, most), True
        parts.append(part if isinstance(x, np.ndarray) else type(x)(part))
    if not changed:
        return x
    if isinstance(x, np.ndarray):
        return np.concatenate(parts)
    return sys.modules["scipy.sparse"].vstack(parts, format="csr")


def outside(x: np.ndarray, low: np.ndarray, high: np.ndarray, edge: float) -> np.ndarray:
    """Whether numbers (m, d) are outside the box by more than `edge` of its width."""
    with np.errstate(invalid="ignore"):
        width = np.where(np.isfinite(high - low), high - low, 0)
    return np.abs(x - np.clip(x, low, high)) > edge * width


def units(scale: ArrayLike | None, form: Form) -> np.ndarray | None:
    """The scale (d,). Raises ValueError: it is not d numbers of 0, or from 1e-100 to 1e100."""
    if scale is None:
        return None
    d = form.x.shape[1]
    scale = real(in_order(scale, form.columns, form.index, "scale"), "scale", copy=True)
    try:
        scale = form.per_feature(scale)
    except ValueError:
        raise ValueError(f"scale needs {d} numbers, one per feature, not {scale.shape}") from None
    if scale.ndim > 1:
        raise ValueError(f"scale needs {d} numbers, one per feature, not {scale.shape}")
    if not ((scale >= 0) & (scale < np.inf)).all():
        raise ValueError("scale needs finite numbers of at least 0; 0 freezes a feature")
    used = scale[scale > 0]
    if not ((SCALES[0] <= used) & (used <= SCALES[1])).all():
        raise ValueError("scale needs 0 or numbers from 1e-100 to 1e100: others overflow")
    return scale


# --- the problem of a robust minimum -------------------------------------------------------------


def matrix(X: Any) -> Any:
    """X as (n, d) float64: an array or, for a sparse X, a CSR array without stored zeros.

    A large array, one on disk and a dask array are not copied, and keep their type.

    Raises:
        ValueError: it is not n finite real numbers each of d.
    """
    if chunks.is_chunked(X):
        x = chunks.of_rows(X)
        chunks.each(x, require_finite, ["X"] * len(x.chunks[0]))
        return x
    if hasattr(X, "tocsr"):
        return _csr(X)
    refuse_other_columns(X)
    x = np.asarray(X) if _stays(X) else real(X, copy=True)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"X needs shape (n, d), not {x.shape}")
    require_finite(x, "X")
    return x


def _stays(X: Any) -> bool:
    """Whether X is large, or on disk, and is read by blocks, each as float64."""
    plain = isinstance(X, np.memmap) or (type(X) is np.ndarray and X.size > LARGE)
    return plain and X.dtype.kind in "biuf" and X.dtype.itemsize <= 8


def extremes(x: Any) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest number (d,) of each feature of x, of `matrix`, as float64."""
    if chunks.is_chunked(x):
        lows, highs = zip(*chunks.each(x, extremes), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0)
    if not isinstance(x, np.ndarray):
        return x.min(axis=0).toarray().ravel(), x.max(axis=0).toarray().ravel()
    low, high = np.full((2, x.shape[1]), ((np.inf,), (-np.inf,)))
    for rows in range(0, len(x), SWEEP):
        block = x[rows : rows + SWEEP]
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    return low, high


def _csr(X: Any) -> Any:
    """A SciPy sparse X, which is not changed; its numbers may be shared. Errors as of `matrix`."""
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError("X needs real numbers of shape (n, d)")
    if not all(X.shape):
        raise ValueError(f"X needs shape (n, d), not {X.shape}")
    x = sys.modules["scipy.sparse"].csr_array(X, dtype=np.float64)
    require_finite(x.data, "X")
    if not (x.has_canonical_format and x.data.all()):
        x = x.copy()  # of the numbers of X
        x.sum_duplicates()
        x.eliminate_zeros()
        require_finite(x.data, "X")  # sums may overflow
    return x


def fits_array(x: Any) -> bool:
    """Whether x (n, d) is an array, or sparse with at most so many numbers that it is made one."""
    return isinstance(x, np.ndarray) or math.prod(x.shape) <= MOST_DENSE


def as_array(x: Any, what_for: str) -> np.ndarray:
    """x, of `matrix`, as a float64 array. Raises ValueError: it is sparse and has too many numbers.

    what_for: what needs an array, in the message.
    """
    if isinstance(x, np.ndarray):
        return x.astype(np.float64, copy=False)
    kind = "a dask array" if chunks.is_chunked(x) else "sparse"
    if not fits_array(x):
        raise ValueError(
            f"X is {kind}, and {what_for} needs it as an array, which would hold "
            f"{math.prod(x.shape):.2g} numbers: at most {MOST_DENSE:g} are taken; take fewer "
            "features, or two classes, the L-infinity or the L2 ball, eps above 0 and no box"
        )
    if chunks.is_chunked(x):
        return np.asarray(x, np.float64)
    dense: np.ndarray = x.toarray()
    return dense


def classes_of(y: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The values in y (n,), sorted, and for each sample the place (n,) of its own among them.

    Raises:
        ValueError: y has another shape, a missing label, or one value alone.
    """
    y = array(y, "y")
    if y.shape != (n,):
        raise ValueError(f"y needs shape ({n},), one label per sample, not {y.shape}")
    try:
        missing = (y != y).any()  # NaN, or pandas' NaT, is not equal to itself
        classes, own = np.unique(y, return_inverse=True)
    except TypeError:
        missing = True
    if missing:
        raise ValueError("y needs labels that can be sorted, without NaN or None")
    if len(classes) == 1:
        raise ValueError(f"y needs labels of two classes, not 1: {classes.tolist()[0]}")
    return classes, own


def two_classes(y: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The two values in y (n,), the lower one first, and y as -1 and +1.

    Raises:
        ValueError: as from `classes_of`; or there are more than two.
    """
    classes, own = classes_of(y, n)
    if len(classes) > 2:
        raise ValueError(
            f"path needs labels of two classes, not {listed(classes)}: take minimise for more"
        )
    return classes, np.where(own == 1, 1.0, -1.0)


def listed(classes: np.ndarray) -> str:
    """How many there are, and the first five."""
    first = ", ".join(map(str, classes[:5].tolist())) + ", ..." * (len(classes) > 5)
    return f"{len(classes)}: {first}"


def is_number(value: Any) -> bool:
    """Whether it is one real number; True, False and durations are none."""
    return isinstance(value, kinds.Real) and not isinstance(value, bool | np.timedelta64)


def radius(eps: float) -> float:
    """eps as a float. Raises ValueError: it is no number, negative or not finite."""
    if isinstance(eps, dict) or np.ndim(eps):
        raise ValueError(
            "eps must be one number: for a radius per feature, r (d,), divide X and the box by r, "
            "pass eps=1, and divide the w found by r, which is exact"
        )
    try:
        if is_number(eps) and 0 <= float(eps) < np.inf:
            return float(eps)
    except OverflowError:  # a whole number above 1e308
        pass
    raise ValueError(f"eps must be a finite number of at least 0, not {shown(eps)}")


def require_budget(budget: str) -> None:
    """Raise ValueError unless the budget is "each" or "mean"."""
    if not isinstance(budget, str) or budget not in BUDGETS:
        raise ValueError(f"budget must be each or mean, not {shown(budget)}")


def require_flag(value: bool, name: str) -> None:
    """Raise ValueError unless the value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, not {shown(value)}")


def weights(sample_weight: ArrayLike | None, y: np.ndarray) -> np.ndarray:
    """The weight (n,) of each sample, times a power of two so that the largest is below 1; or ones.

    Raises:
        ValueError: the weights are not n finite numbers of at least 0; those of a class, a value of
            y, are all 0; or one is below 1e-100 of the largest, and not 0.
    """
    if sample_weight is None:
        return np.broadcast_to(1.0, len(y))  # which takes no memory
    found = real(sample_weight, "sample_weight")
    if found.shape != y.shape:
        raise ValueError(f"sample_weight needs shape {y.shape}, not {found.shape}")
    if not ((found >= 0) & (found < np.inf)).all():
        raise ValueError("sample_weight needs finite numbers of at least 0")
    for one in np.unique(y):
        if not found[y == one].any():
            raise ValueError("sample_weight needs a number above 0 in each class")
    if found[found > 0].min() < LIGHTEST * found.max():
        raise ValueError(
            f"sample_weight has a number below {LIGHTEST:g} of the largest: make it 0, or larger"
        )
    return np.ldexp(found, -exponent_of(found))


@dataclass(frozen=True)
class Problem:
    """The robust loss of two classes, sum_i a_i l(worst margin of sample i) / sum_i a_i.

    Attributes:
        x: (n, d) samples, inside the box; an array, or without a box a CSR array or a dask array
            in chunks of rows. float64, or of a large array or a dask array as it came.
        y: (n,) -1 or +1, int8.
        classes: (2,) the labels that stand for -1 and +1.
        weights: (n,) a_i: sample_weight times a power of two, the largest below 1; or ones.
        eps: radius of the ball; norm: "inf", "2" or "1"; loss: "hinge" or "logistic".
        box: None, or (low, high), each (d,).
        budget: "each", or "mean": then it is sum_i a_i l(margin of sample i) / sum_i a_i plus eps
            times the dual norm of the weights. box is None.
        mirrored: whether the second half of the samples is the first with other signs of x and y;
            see `mirrored`.
    """

    x: Any
    y: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    eps: float
    norm: str
    loss: str
    box: tuple[np.ndarray, np.ndarray] | None
    budget: str = "each"
    mirrored: bool = False

    def half(self) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """x, y and weights, of what is mirrored the first half; and y as the bias enters margins.

        (Of a dask array all samples, as its workers know one y alone.)
        """
        if not self.mirrored or chunks.is_chunked(self.x):
            return self.x, self.y, self.weights, self.y
        n = len(self.y) // 2
        return self.x[:n], self.y[:n], self.weights[:n], np.zeros(n, np.int8)

    def of_all(self, alpha: np.ndarray) -> np.ndarray:
        """alpha (n,) of all samples, from that of `half` or of all."""
        return alpha if len(alpha) == len(self.y) else np.tile(alpha / 2, 2)


@dataclass(frozen=True)
class JointProblem:
    """The robust loss of K > 2 classes that are trained together; equation (M1) of docs/theory.md.

    Attributes:
        x: (n, d) samples, float64.
        y: (n,) the class of each sample, whole numbers from 0 to K - 1.
        classes: (K,) their labels, sorted.
        weights, eps, norm, loss: as of `Problem`. box: None. budget: "each".
    """

    x: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    eps: float
    norm: str
    loss: str
    box: None = None
    budget: str = "each"


def problem(
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    norm: str | float = "inf",
    loss: str = "hinge",
    box: tuple | None = None,
    sample_weight: ArrayLike | None = None,
    budget: str = "each",
    fit_intercept: bool = True,
) -> Problem | JointProblem:
    """The problem that the arguments of `advlinear.minimise` describe.

    Returns:
        A `Problem` of two classes, or for more labels a `JointProblem`.

    Raises:
        ValueError: an argument is not as described there.
    """
    x, eps = matrix(X), radius(eps)
    classes, own = classes_of(y, x.shape[0])
    norm = ball(norm)
    if not isinstance(loss, str) or loss not in LOSSES:
        raise ValueError(f"loss must be hinge or logistic, not {shown(loss)}")
    require_budget(budget)
    require_flag(fit_intercept, "fit_intercept")
    for option, given in (
        ("fit_intercept=False", not fit_intercept),
        ("budget='mean'", budget == "mean"),
    ):
        if given and len(classes) > 2:
            raise ValueError(
                f"{option} needs two classes, not {listed(classes)}: take one class against the "
                "rest at a time"
            )
        if given and box is not None:
            raise ValueError(f"{option} takes no box: leave one of the two out")
    if len(classes) > MOST_CLASSES:
        raise ValueError(
            f"y needs labels of at most {MOST_CLASSES} classes, not {listed(classes)}; for more, "
            "take one class against the rest at a time"
        )
    if len(classes) > 2:
        if box is not None:
            raise ValueError(
                f"a box needs two classes, not {listed(classes)}; leave it out, or take one class "
                "against the rest at a time"
            )
        x = as_array(x, "training more than two classes together")
        return JointProblem(x, own, classes, weights(sample_weight, own), eps, norm, loss)
    if box is not None:
        if norm != "inf":
            raise ValueError(f"a box needs the norm inf, not {norm}: leave one of the two out")
        X = X if isinstance(x, np.ndarray) else as_array(x, "a box")
        # The type of X says by how much rounding may leave the box.
        form = Form(array(X, "X"), *names(X))
        box = bounds(box, form)
        if any(side.ndim == 2 for side in box):
            raise ValueError("box needs (low, high), each a number or one per feature (d,)")
        x = form.x
    signs = np.where(own == 1, np.int8(1), np.int8(-1))
    of_samples = weights(sample_weight, signs)
    if not fit_intercept:
        x, signs, of_samples = mirrored(x), np.append(signs, -signs), np.tile(of_samples, 2)
    known = classes, of_samples, eps, norm, loss, box, budget
    return Problem(x, signs, *known, mirrored=not fit_intercept)


def mirrored(x: Any) -> Any:
    """x (2 n, d) of `matrix`: the samples, and after them the samples times -1.

    With -y as their labels, the mean loss of all 2 n is convex in the bias, and the same for b and
    -b. So it is least at b = 0, where it is that of the n samples without a bias.
    """
    if not isinstance(x, np.ndarray) and not chunks.is_chunked(x):
        return sys.modules["scipy.sparse"].vstack([x, -x], format="csr")
    x = x if x.dtype.kind == "f" else x.astype(np.float64)  # -x of whole numbers may overflow
    together = np if isinstance(x, np.ndarray) else sys.modules["dask.array"]
    return together.concatenate([x, -x])


def numbers(values: ArrayLike, name: str, shape: tuple = ()) -> np.ndarray:
    """Finite real numbers of a shape, as float64.

    Raises:
        ValueError: they are not that.
    """
    found = real(values, name)
    if found.shape != shape:
        raise ValueError(f"{name} needs shape {shape}, not {found.shape}")
    require_finite(found, name)
    return found
