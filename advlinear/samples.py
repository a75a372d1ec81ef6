"""The problem of a robust minimum: samples, labels, weights, ball and loss, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from advlinear import forms, models
from advlinear.worst_case import ball, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LOSSES = ("hinge", "logistic")


@dataclass(frozen=True)
class Problem:
    """The robust loss of two classes, sum_i a_i l(worst margin of sample i) / sum_i a_i.

    Attributes:
        x: (n, d) samples, float64, inside the box.
        y: (n,) -1 or +1.
        classes: (2,) the labels that stand for -1 and +1.
        weights: (n,) a_i: sample_weight times a power of two, the largest below 1; or ones.
        eps: radius of the ball; norm: "inf", "2" or "1"; loss: "hinge" or "logistic".
        box: None, or (low, high), each (d,).
    """

    x: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    weights: np.ndarray
    eps: float
    norm: str
    loss: str
    box: tuple[np.ndarray, np.ndarray] | None


def problem(
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    norm: str | float = "inf",
    loss: str = "hinge",
    box: tuple | None = None,
    sample_weight: ArrayLike | None = None,
) -> Problem:
    """The problem that the arguments of `advlinear.minimise` describe.

    Raises:
        ValueError: an argument is not as described there.
    """
    x, eps = models.samples(X), models.radius(eps)
    classes, y = models.two_classes(y, len(x))
    norm = ball(norm)
    if loss not in LOSSES:
        raise ValueError(f"loss must be hinge or logistic, not {shown(loss)}")
    if box is not None:
        if norm != "inf":
            raise ValueError(f"a box needs the norm inf, not {norm}: leave one of the two out")
        form = forms.Form(np.asarray(X))  # its type says by how much rounding may leave the box
        box = forms.bounds(box, form)
        if box[0].ndim == 2 or box[1].ndim == 2:
            raise ValueError("box needs (low, high), each a number or one per feature (d,)")
        x = form.x
    with np.errstate(over="ignore"):
        ranges = np.ptp(x, axis=0)
    if not np.isfinite(ranges).all():
        raise ValueError(f"the range of feature {np.argmax(ranges)} of X overflows: scale X down")
    return Problem(x, y, classes, models.weights(sample_weight, y), eps, norm, loss, box)


def numbers(values: ArrayLike, name: str, shape: tuple = ()) -> np.ndarray:
    """Finite real numbers of a shape, as float64.

    Raises:
        ValueError: they are not that.
    """
    found = forms.real(values, name)
    if found.shape != shape:
        raise ValueError(f"{name} needs shape {shape}, not {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} holds NaN or infinite numbers")
    return found
