"""Adversarial examples of other attacks against the radii, below which there are none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from advlinear import samples
from advlinear.attacks import targets
from advlinear.attacks.checks import MOST_ASKED
from advlinear.attacks.moves import OVERSHOOT, Moves, TargetMoves, Task
from advlinear.balls import ORDER, blocks, box_of
from advlinear.samples import dense

AS_GOOD = 1e-3  # what exceeds the radius by at most this share of it counts as the best in `repr`


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """How far the points of another attack are from the best; see `Found.compare`.

    Three kinds of samples have no best to compare with, and an excess of nan: those of radius 0,
    which are wrong without an attack; those of radius inf, which nothing makes wrong; and those
    whose point is not adversarial, is outside the box, or moves a frozen feature. The shares in
    `repr` are of all samples with a radius other than 0 and inf, so that a sample that an attack
    does not find counts against it.

    Attributes:
        adversarial: (n,) whether the model takes the point for another class than the label, or
            with a target for the target. A tie counts, as in `attack`.
        inside: (n,) whether the point is in the box; True without one.
        size: (n,) of the perturbation, in the norm and the scale of the attack; inf where a frozen
            feature moved. For the norm "0" the number of features that changed.
        excess: (n,) size / radius - 1, where the point is adversarial and inside; else nan. It may
            be below 0 by what the radius may be off for rounding.

    Example, of a model whose score is x1 - 2 x2. The points are the samples, moved along x2:

        >>> import advlinear
        >>> found = advlinear.attack(([1.0, -2.0], 0.0), [[3.0, 0.0], [0.0, 3.0]], [1, 0])
        >>> comparison = found.compare([[3.0, 1.6], [0.0, 0.5]])
        >>> comparison.adversarial
        array([ True, False])
        >>> comparison.excess.round(3)  # of a radius of 1
        array([0.6, nan])
    """

    adversarial: np.ndarray
    inside: np.ndarray
    size: np.ndarray
    excess: np.ndarray
    _radii: np.ndarray
    _norm: str

    def __repr__(self) -> str:
        radii = self._radii
        wrong, never = np.count_nonzero(radii == 0), np.count_nonzero(np.isinf(radii))
        excess = self.excess[~np.isnan(self.excess)]
        others = len(radii) - wrong - never
        told = f"{len(excess)} of the other {others} adversarial and inside"
        if len(excess):
            best = np.count_nonzero(excess <= AS_GOOD) / others
            told += f", {best:.1%} within 0.1% of the radius, median excess {np.median(excess):.3g}"
        return (
            f"Comparison({len(radii)} samples, norm {self._norm}: {wrong} wrong already, {never} "
            f"that nothing flips, {told})"
        )


def compare(moves: Moves, radii: np.ndarray, points: Any) -> Comparison:
    """See `Found.compare`.

    Args:
        moves, radii: of the `Found`.
        points: as of `Found.compare`.
    """
    task, n = moves.task, len(radii)
    given, kinds = task.form.alike(points)
    edge = max(task.form.edge, samples.ULPS * samples.coarsest(kinds))
    bits = np.array([kind.itemsize if kind.kind == "f" else 8 for kind in kinds])
    adversarial, inside, size = np.empty(n, bool), np.empty(n, bool), np.empty(n)
    for rows in blocks(np.arange(n), task.form.x.shape[1], MOST_ASKED):
        placed, inside[rows] = _placed(task, rows, dense(given, rows), bits, edge)
        scores = task.model.scores(placed, rows)
        margins = moves.margins_in(scores, rows)
        adversarial[rows] = margins >= 0 if isinstance(moves, TargetMoves) else margins <= 0
        delta = _in_units(task, rows, placed)
        size[rows] = _sizes(delta, task.norm)
        below = size[rows] < radii[rows] * (1 - OVERSHOOT)
        below &= adversarial[rows] & inside[rows]
        if below.any():
            some = rows[below]
            found = placed[below], scores[below], delta[below]
            explained = _explained(moves, some, radii[some], *found)
            refuted = size[some] < explained * (1 - OVERSHOOT)
            if refuted.any():
                i = some[np.argmax(refuted)]
                raise ValueError(
                    f"sample {i}: its point is adversarial at a size of {size[i]:.9g}, below the "
                    f"radius of {radii[i]:.9g}: call attack again if the model has changed since; "
                    "if it has not, this is an error of advlinear: please report it"
                )
    compared = adversarial & inside & (radii > 0) & np.isfinite(radii) & np.isfinite(size)
    excess = np.full(n, np.nan)
    excess[compared] = size[compared] / radii[compared] - 1
    return Comparison(adversarial, inside, size, excess, radii, task.norm)


def _placed(
    task: Task, rows: np.ndarray, points: np.ndarray, bits: np.ndarray, edge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Points (m, d) as they are compared, and whether they are in the box (m,).

    Two differences count as none. A feature that holds the number of the sample, as the type of the
    points rounds it, has not changed; so an attack that computes in float32 changes no feature of a
    float64 sample that it does not move. And points that are outside the box by rounding are moved
    to its edge, as samples are.

    Args:
        bits: (d,) or (1,) the size in bytes of the type of each feature; edge: as of `Form`.
    """
    x, points = dense(task.form.x, rows), points.copy()
    for size in np.unique(bits[bits < 8]):
        with np.errstate(over="ignore"):
            same = (bits == size) & (points == x.astype(f"f{size}"))
        points[same] = x[same]
    if task.box is None:
        return points, np.ones(len(rows), bool)
    low, high = box_of(rows, task.box)
    inside = np.logical_not(samples.outside(points, low, high, edge).any(axis=1))
    points[inside] = np.clip(points, low, high)[inside]
    return points, inside


def _in_units(task: Task, rows: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The perturbations (m, d) in units of the scale; inf where a frozen feature moved."""
    delta = points - dense(task.form.x, rows)
    if task.scale is None:
        return delta
    with np.errstate(over="ignore", divide="ignore"):
        return np.divide(delta, task.scale, out=np.zeros(delta.shape), where=delta != 0)


def _sizes(delta: np.ndarray, norm: str) -> np.ndarray:
    """The norms (m,) of perturbations (m, d), of which some may be inf."""
    largest = np.abs(delta).max(axis=1)
    if norm == "0":
        return np.where(np.isinf(largest), np.inf, np.count_nonzero(delta, axis=1))
    unit = np.where((largest > 0) & (largest < np.inf), largest, 1)  # so that no square overflows
    return np.linalg.norm(delta / unit[:, None], ORDER[norm], axis=1) * unit


def _explained(
    moves: Moves,
    rows: np.ndarray,
    radii: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    delta: np.ndarray,
) -> np.ndarray:
    """The sizes (m,) down to which rounding explains adversarial points of rows of radii (m,).

    The model's scores (m, K) at the points say that a rival is ahead. Up to the errors of the
    scores its margin at the sample then was at most `most`, when the radius was found, and the
    rival is not nearer than at a margin of `least`. So a point may be smaller than the radius in
    the ratio of the radii of these two margins. The radii themselves are not taken from these, so
    that a point also refutes a wrong choice of the rival, and a wrong distance to it. (Towards a
    target the same holds of the margins of all rivals at once.)
    """
    task, model, here = moves.task, moves.task.model, np.arange(len(rows))
    x, own = dense(task.form.x, rows), moves.own[rows]
    before = model.scores(x, rows)
    errors = 2 * model.error(x, before) + model.error(points, scores)  # x: now, and in `attack`
    if task.weight_error is not None:
        errors = errors + np.abs(delta) @ task.weight_error.T
    margins = before[here, own][:, None] - before
    errors = errors + errors[here, own][:, None]  # (m, K) of the margin over each class
    errors = errors + 1e-12 * np.abs(margins)  # `distance` takes a margin to be 0 up to 1e-14 of it
    if isinstance(moves, TargetMoves):
        least, most = (_to_target(moves, rows, -margins + side * errors) for side in (-1, 1))
    else:
        others, rival = scores.copy(), moves.rival.copy()
        others[here, own] = -np.inf
        rival[rows] = others.argmax(axis=1)
        towards, over = replace(moves, rival=rival), (here, rival[rows])
        least, most = (towards.radii_of(rows, (margins + side * errors)[over]) for side in (-1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(np.isinf(most), np.minimum(radii, least), radii * (least / most))
    return np.where(most > 0, found, radii)  # 0: the model has changed since


def _to_target(moves: TargetMoves, rows: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """The radii (m,) that rows would have with these margins (m, K) of each class over the target.

    Raises ValueError: a program is not solved.
    """
    task, own, margins = moves.task, moves.own[rows], margins.copy()
    margins[np.arange(len(rows)), own] = -np.inf
    box = box_of(rows, task.sides)
    return targets.nearest(margins, own, task.x[rows], box, task.weights, task.norm)[0]
