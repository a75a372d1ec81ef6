"""The exact attack on a linear model of any number of classes. NumPy alone."""

from __future__ import annotations

import numbers
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear import models
from advlinear.worst_case import distance, dual_norm, robust_correct, step

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BEYOND = 1e-6  # `perturbed` goes so much further than the radius, to be on the other side


@dataclass(frozen=True, repr=False, eq=False)
class Found:
    """The smallest perturbations that make each of n samples wrong; see `attack`.

    Attributes:
        radii: (n,) their sizes: 0 where the model is wrong already, inf where nothing makes it so.
        rival: (n,) the class that the sample is then taken for; its own where the radius is inf.
    """

    radii: np.ndarray
    rival: np.ndarray
    _x: np.ndarray
    _direction: dict  # (own class, rival class) -> a (d,) and the rows that it is for
    _norm: str
    _box: tuple | None

    def __repr__(self) -> str:
        wrong, never = np.count_nonzero(self.radii == 0), np.count_nonzero(np.isinf(self.radii))
        return (
            f"Found({len(self.radii)} samples, norm {self._norm}, {'with' if self._box else 'no'} "
            f"box: {wrong} wrong already, {never} that nothing flips, median radius "
            f"{np.median(self.radii):.4g})"
        )

    def curve(self, eps: ArrayLike) -> np.ndarray:
        """Accuracy under the worst case at each radius: the share of radii > eps."""
        return robust_correct(self.radii, np.asarray(eps)) / len(self.radii)

    def perturbed(self, eps: float | None = None) -> np.ndarray:
        """The samples (n, d) moved towards their rivals: nearest adversarial examples.

        By a millionth more than their radii, or by `eps`. Samples of radius 0 or inf do not move,
        and none leaves the box.

        Raises:
            ValueError: eps is negative or not finite.
        """
        if eps is not None and not 0 <= eps < np.inf:
            raise ValueError(f"eps must be finite and at least 0, not {eps}")
        sizes = self.radii * (1 + BEYOND) if eps is None else np.full(len(self.radii), float(eps))
        moved = self._x.copy()
        for a, rows in self._direction.values():
            moved[rows] += step(a, self._x[rows], sizes[rows], self._norm, self._box)
        return moved if self._box is None else np.clip(moved, *self._box)


def attack(
    model: Any,
    X: ArrayLike,
    y: ArrayLike,
    norm: str | float = "inf",
    box: tuple | None = None,
    n_jobs: int | None = None,
) -> Found:
    """The exact attack on a linear model of any number of classes.

    Args:
        model: a fitted scikit-learn classifier or pipeline whose decision_function is linear; or a
            function from X (m, d) to scores (m, K), or (m,) for two classes; or (W, b) with W
            (K, d) and b (K,), or w (d,) and a number.
        X: samples (n, d).
        y: labels (n,): those of model.classes_, else 0 to K - 1; with a single score 0 and 1, or
            -1 and +1. A tie is an error.
        norm: "inf", "2" or "1", or np.inf, 2 or 1.
        box: None, or (low, high) that x + delta stays in, numbers or one per feature (d,).
        n_jobs: how many processes share the samples, as in scikit-learn: None is one, or what
            `joblib.parallel_config` says; -1 is one per core. More than one needs joblib.

    Raises:
        ValueError: an argument is not as described, or the model is not linear: its scores on X,
            or far from it, are not X @ W.T + b to 1e-5, or `predict` is not their largest.
    """
    x, norm = models.samples(X), str(norm)
    box = models.bounds(box, x)
    dual_norm(np.zeros(1), norm)  # refuses an unknown norm
    scores_of, weights = models.scores(model, x)
    classes, own = models.labels(model, scores_of, x, y)
    if weights is None:
        weights = models.weights_of(model, scores_of, classes, x)
    scores, rows = scores_of(x), np.arange(len(x))
    gaps = scores[rows, own][:, None] - scores
    gaps[rows, own] = np.inf
    shares = _in_parallel(_nearest_rivals, n_jobs, (gaps, own, x), common=(weights, norm, box))
    radii, rival = (np.concatenate(parts) for parts in zip(*shares, strict=True))
    movable = _by_pair(weights, own, rival, (radii > 0) & np.isfinite(radii))
    direction = {tuple(classes[pair]): (a, chosen) for pair, a, chosen in movable}
    return Found(radii, classes[rival], x, direction, norm, box)


def _nearest_rivals(gaps, own, x, weights, norm: str, box) -> tuple[np.ndarray, np.ndarray]:
    """The radius (n,) of each sample, and the index (n,) of the class that it is then taken for."""
    rows, right = np.arange(len(x)), (gaps > 0).all(axis=1)
    costs = np.array([[dual_norm(one - other, norm) for other in weights] for one in weights])
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(gaps > 0, gaps / costs[own], 0)  # of the radius: exact without the box
    bounds[rows, own] = np.inf
    radii, rival = np.where(right, np.inf, 0.0), np.where(right, own, np.argmin(gaps, axis=1))
    nearest = np.argsort(bounds, axis=1, kind="stable")
    for k in nearest.T[:-1]:  # the rivals of each sample, the nearest by this bound first
        hopeful = right & (bounds[rows, k] < radii)
        for pair, a, chosen in _by_pair(weights, own, k, hopeful):
            found = distance(gaps[chosen, pair[1]], a, x[chosen], norm, box)
            nearer = found < radii[chosen]
            radii[chosen[nearer]], rival[chosen[nearer]] = found[nearer], pair[1]
    return radii, rival


def _by_pair(weights, own, rival, among) -> Iterator[tuple]:
    """Each pair (class, rival) of the samples where `among` (n,), its direction a, and its rows."""
    for pair in np.unique(np.stack([own, rival], axis=1)[among], axis=0):
        chosen = np.flatnonzero(among & (own == pair[0]) & (rival == pair[1]))
        yield pair, weights[pair[0]] - weights[pair[1]], chosen


def _in_parallel(work, n_jobs: int | None, per_sample: tuple, common: tuple) -> list:
    """What `work` returns for each share of the samples, in their order.

    Without n_jobs, joblib is asked only where it is imported already: a caller that has set a
    `joblib.parallel_config` has done that.
    """
    if n_jobs is not None and (not isinstance(n_jobs, numbers.Integral) or n_jobs == 0):
        raise ValueError(f"n_jobs needs a whole number other than 0, not {n_jobs!r}")
    if n_jobs == 1 or (n_jobs is None and "joblib" not in sys.modules):
        return [work(*per_sample, *common)]
    try:
        import joblib
    except ModuleNotFoundError:
        raise ValueError("n_jobs needs joblib: type pip install joblib, or leave it out") from None
    count = joblib.effective_n_jobs(n_jobs)
    if count == 1:
        return [work(*per_sample, *common)]
    shares = zip(*(np.array_split(values, count) for values in per_sample), strict=True)
    shares = [share for share in shares if len(share[0])]
    tasks = (joblib.delayed(work)(*share, *common) for share in shares)
    return joblib.Parallel(n_jobs=n_jobs)(tasks)
