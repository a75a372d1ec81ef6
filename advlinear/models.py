"""What counts as a linear model, and how its weights are had; and what counts as samples.

A model gives one linear score per class. It may be a pair (W, b), an estimator with a linear
decision_function, or a function from samples to scores. The weights of the latter two are
differences of scores. Shapes: x (n, d), W (K, d), b and scores (K,) for each of K classes.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear.worst_case import ROWS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def samples(X: ArrayLike) -> np.ndarray:
    """X as (n, d) float64. Raises ValueError: it is not n finite real numbers each of d."""
    if isinstance(X, np.ma.MaskedArray):
        raise ValueError("X is a masked array: fill its gaps (X.filled), or leave the rows out")
    if hasattr(X, "toarray"):
        raise ValueError("X is sparse, which is not taken: pass X.toarray()")
    try:
        x = np.asarray(X)
        if np.iscomplexobj(x):
            raise TypeError
        x = x.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError("X needs real numbers of shape (n, d)") from None
    if x.ndim != 2 or not x.size:
        raise ValueError(f"X needs shape (n, d), not {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("X holds NaN or infinite numbers")
    return x


def two_classes(y: ArrayLike, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The two values in y (n,), the lower one first, and y as -1 and +1.

    Raises:
        ValueError: y has another shape, a gap, or not two values.
    """
    if isinstance(y, np.ma.MaskedArray):
        raise ValueError("y is a masked array: leave the rows without a label out")
    y = np.asarray(y)
    if y.shape != (n,):
        raise ValueError(f"y needs shape ({n},), one label per sample, not {y.shape}")
    try:
        gap = (y != y).any()  # NaN, or pandas' NaT, is not equal to itself
        classes = np.unique(y)
    except TypeError:
        gap = True
    if gap:
        raise ValueError("y needs labels that can be sorted, without NaN or None")
    if len(classes) != 2:
        shown = ", ".join(map(str, classes[:5].tolist())) + ", ..." * (len(classes) > 5)
        raise ValueError(f"y needs labels of two classes, not {len(classes)}: {shown}")
    return classes, np.where(y == classes[1], 1.0, -1.0)


def radius(eps: float) -> float:
    """eps as a float. Raises ValueError: it is no number, negative or not finite."""
    if not isinstance(eps, numbers.Real) or isinstance(eps, bool) or not 0 <= eps < np.inf:
        raise ValueError(f"eps must be a finite number of at least 0, not {eps!r}")
    return float(eps)


def shares(sample_weight: ArrayLike | None, y: np.ndarray) -> np.ndarray:
    """The share (n,) of each sample in the mean: 1 / n without weights.

    Raises:
        ValueError: the weights are not n finite numbers of at least 0, or one of the two classes,
            y -1 and +1, has none.
    """
    if sample_weight is None:
        return np.full(len(y), 1 / len(y))
    try:
        weights = np.asarray(sample_weight, np.float64)
    except (TypeError, ValueError):
        raise ValueError("sample_weight needs numbers") from None
    if weights.shape != y.shape:
        raise ValueError(f"sample_weight needs shape {y.shape}, not {weights.shape}")
    if not ((weights >= 0) & (weights < np.inf)).all():
        raise ValueError("sample_weight needs finite numbers of at least 0")
    for sign in (-1, 1):
        if not weights[y == sign].any():
            raise ValueError("sample_weight needs a number above 0 in each class")
    weights = weights / weights.max()  # their sum is finite
    return weights / weights.sum()


def bounds(box: tuple | None, x: np.ndarray) -> tuple | None:
    """The box as two arrays (d,). Raises ValueError: it is none, or a sample is outside."""
    if box is None:
        return None
    try:
        low, high = (np.broadcast_to(np.asarray(side, np.float64), x.shape[1]) for side in box)
    except (TypeError, ValueError):
        came = " ".join(repr(box).split())[:99]
        raise ValueError(
            f"box needs (low, high), each a number or of shape ({x.shape[1]},), not {came}"
        ) from None
    if not (low <= high).all():  # nor NaN
        k = np.argmin(low <= high)
        raise ValueError(f"box needs low <= high, not {low[k]} and {high[k]} (feature {k})")
    inside = (low <= x) & (x <= high)
    if not inside.all():
        i, k = np.argwhere(~inside)[0]
        raise ValueError(f"X[{i}, {k}] is {x[i, k]}, outside the box: [{low[k]}, {high[k]}]")
    return low, high


def scores(model: Any, x: np.ndarray) -> tuple[Callable, np.ndarray | None]:
    """A function from X (m, d) to scores (m, K), K >= 2, and the weights (K, d) if they are given.

    A single score f becomes (-f / 2, f / 2), whose gaps are f and -f.
    """
    weights = None
    if isinstance(model, tuple):
        try:
            W, b = (np.asarray(part, np.float64) for part in model)
        except (TypeError, ValueError):
            raise ValueError("(W, b) needs two arrays of numbers") from None
        W, b = (W[0], b.reshape(-1)[0]) if W.ndim == 2 and len(W) == 1 and b.size == 1 else (W, b)
        if W.shape[-1:] != x.shape[1:] or b.shape != W.shape[:-1] or W.ndim > 2:
            raise ValueError(
                f"(W, b) needs shapes (K, {x.shape[1]}) and (K,), or ({x.shape[1]},) and a number, "
                f"not {W.shape} and {b.shape}"
            )
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError("(W, b) holds NaN or infinite numbers")
        weights = W if W.ndim == 2 else np.stack([-W / 2, W / 2])
        raw = lambda points: points @ W.T + b  # noqa: E731
    elif hasattr(model, "decision_function"):
        raw = model.decision_function
    elif callable(model):
        raw = model
    else:
        raise ValueError(
            f"model needs a decision_function, or be a function or (W, b): {type(model).__name__} "
            "is none of these"
        )

    def scores_of(points):
        try:
            scores = np.asarray(raw(points), np.float64)
        except Exception as error:  # of another library: it is not fitted, or has other features
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"the model gives no scores: {reason}") from None
        if scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if scores.shape[:1] != points.shape[:1] or scores.ndim > 2:
            raise ValueError(f"{len(points)} samples have scores of shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise ValueError("the model gives NaN or infinite scores")
        return scores if scores.ndim == 2 else np.stack([-scores / 2, scores / 2], axis=1)

    return scores_of, weights


def labels(
    model: Any, scores_of: Callable, x: np.ndarray, y: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """The classes (K,) in the order of the scores, and the index (n,) of each sample's own."""
    y = np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(f"y needs shape ({len(x)},), one label per sample, not {y.shape}")
    count = scores_of(x[:1]).shape[1]
    classes = getattr(model, "classes_", None)
    if classes is None:
        classes = np.array([-1, 1]) if count == 2 and (y == -1).any() else np.arange(count)
    if len(classes) != count:
        raise ValueError(f"the model has {len(classes)} classes, but {count} scores per sample")
    classes = np.asarray(classes)
    matches = y[:, None] == classes
    if not matches.any(axis=1).all():
        unknown = y[~matches.any(axis=1)][0]
        raise ValueError(f"label {unknown!r} in y is none of the classes {classes.tolist()}")
    return classes, matches.argmax(axis=1)


def weights_of(model: Any, scores_of: Callable, classes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """W (K, d), from scores with one feature moved at a time; raises ValueError if not linear."""
    centre, span = x.mean(axis=0), np.ptp(x, axis=0)
    moves = np.maximum(span, 1e-3 * (np.abs(x).max() or 1e3))  # no smaller, against rounding
    span = np.where(span > 0, span, moves)
    offset = scores_of(centre[None])[0]
    weights = np.empty((len(offset), x.shape[1]))
    for first in range(0, x.shape[1], ROWS):
        columns = np.arange(first, min(first + ROWS, x.shape[1]))
        points = np.tile(centre, (len(columns), 1))
        points[np.arange(len(columns)), columns] += moves[columns]
        moved = points[np.arange(len(columns)), columns] - centre[columns]
        weights[:, columns] = (scores_of(points) - offset).T / moved
    random = np.random.default_rng(0).uniform(-1, 1, (3, 10, x.shape[1]))
    far = centre + (random * span * np.array([0.1, 1, 10])[:, None, None]).reshape(30, -1)
    predict = getattr(model, "predict", None) if hasattr(model, "decision_function") else None
    for points in (x, far):
        away, scores = points - centre, scores_of(points)
        terms = np.abs(offset) + np.abs(away) @ np.abs(weights).T
        if not (np.abs(offset + away @ weights.T - scores) <= 1e-5 * terms).all():
            raise ValueError("the model is not linear: its scores are not X @ W.T + b")
        best = classes[scores.argmax(axis=1)]
        if predict and not (np.asarray(predict(points)) == best).all():
            raise ValueError("the model does not predict the class of its largest score")
    return weights
