"""What is attacked (`Task`), and where its samples are moved to (`Moves`, `TargetMoves`).

A sample moves against the margin of its class over one rival, so that all samples of one pair of
classes move along one direction a = w_class - w_rival. Towards a target each has a perturbation of
its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from advlinear.attacks.models import Model
from advlinear.balls import Box, blocks, box_of, distance, shown, slack, step
from advlinear.samples import MOST, Form, dense, is_number, require_finite

OVERSHOOT = 1e-6  # of a radius: a sample that is moved so much further is on the other side
BELOW = (1 - OVERSHOOT) / (1 + OVERSHOOT)  # from the size above the radius to that below it
WHOLE = 1e-6  # of a step of the grid: what is no further from a whole number of steps is one
OFF = 0.1  # of a step: what is further is none, even where the type of X rounds by more


# --- what is attacked ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What is attacked: a model, samples, and the ball and the box that the perturbations stay in.

    In units of the scale |delta_j| / scale_j is |delta_j|, so that balls.py, rivals.py and
    targets.py know nothing of the scale.

    Attributes:
        model: the model, whose weights are those of features in their own units.
        form: the samples; box: None or two sides; both in the units of X.
        norm: of the ball: "inf", "2", "1" or "0".
        scale: (d,) or None.
        x: (n, d) samples, an array or a sparse matrix; sides: the box; weights: (K, d); all three
            in units of the scale, where a frozen feature is 0.
    """

    model: Model
    form: Form
    box: Box | None
    norm: str
    scale: np.ndarray | None
    x: Any
    sides: Box | None
    weights: np.ndarray

    @classmethod
    def of(
        cls, model: Model, form: Form, box: Box | None, norm: str, scale: np.ndarray | None
    ) -> Task:
        """The task in both units. Raises ValueError: a number overflows in units of the scale."""
        x = _scaled(form.x, scale)
        sides = None if box is None else (_scaled(box[0], scale), _scaled(box[1], scale))
        weights = model.weights if scale is None else model.weights * scale
        require_finite(weights, "W in units of the scale")
        require_finite(x.data if form.kind == "sparse" else x, "X in units of the scale")
        return cls(model, form, box, norm, scale, x, sides, weights)

    @property
    def weight_error(self) -> np.ndarray | None:
        """(K, d) bounds of the errors of `weights`, or None where they were read."""
        error = self.model.weight_error
        return error if error is None or self.scale is None else error * self.scale

    def placed(self, rows: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The samples (m, d) of these rows, moved by delta (m, d) in units of the scale."""
        moved = dense(self.form.x, rows) + (delta if self.scale is None else delta * self.scale)
        if self.box is not None:  # as np.clip, which takes twice as long
            low, high = box_of(rows, self.box)
            np.minimum(np.maximum(moved, low, out=moved), high, out=moved)
        return moved

    def restored(self, points: Callable[[np.ndarray], np.ndarray]) -> Any:
        """What `points` gives for all rows, a block at a time, in the form of X."""
        n, d = self.form.x.shape
        rows = np.arange(n)
        if self.form.kind == "sparse":
            kind = type(self.form.x)
            parts = [kind(points(part)) for part in blocks(rows, d, MOST)]
            return sys.modules["scipy.sparse"].vstack(parts, format="csr")
        every = np.empty((n, d))
        for part in blocks(rows, d, MOST):
            every[part] = points(part)
        return self.form(every, rows)


def _scaled(values: Any, scale: np.ndarray | None) -> Any:
    """Samples, or a side of a box, in units of the scale (d,); 0 where a feature is frozen."""
    if scale is None:
        return values
    if hasattr(values, "tocsr"):
        factor = np.divide(1, scale, out=np.zeros(len(scale)), where=scale > 0)
        return (values @ sys.modules["scipy.sparse"].diags(factor)).tocsr()
    return np.divide(values, scale, out=np.zeros(np.shape(values)), where=scale > 0)


# --- pairs of classes ----------------------------------------------------------------------------


def by_pair(own: np.ndarray, rival: np.ndarray, among: np.ndarray) -> Iterator[tuple]:
    """Each pair (class, rival) of the samples where `among` (n,), and its rows."""
    rows = np.flatnonzero(among)
    order = np.lexsort((rival[rows], own[rows]))
    rows = rows[order]
    changes = (np.diff(own[rows]) != 0) | (np.diff(rival[rows]) != 0)
    for chosen in np.split(rows, np.flatnonzero(changes) + 1) if len(rows) else ():
        yield own[chosen[0]], rival[chosen[0]], np.sort(chosen)


def distances(
    margins: np.ndarray, a: np.ndarray, x: Any, rows: np.ndarray, norm: str, box: Box | None
) -> np.ndarray:
    """`distance` (m,) of some rows of x, which may be sparse, with margins (m,)."""
    if box is None:
        return distance(margins, a, np.empty((len(margins), 0)), norm)
    found = np.empty(len(rows))
    for part in blocks(np.arange(len(rows)), len(a), MOST):
        chosen = rows[part]
        found[part] = distance(margins[part], a, dense(x, chosen), norm, box_of(chosen, box))
    return found


# --- where samples are moved to ------------------------------------------------------------------


@dataclass(frozen=True)
class Moves:
    """How samples are moved until another class than their own has the largest score.

    Attributes:
        task: what is attacked.
        own, rival: (n,) the class of each sample, and the one that it is moved towards, as indices.
        margins: (n,) of the sample's own class over the rival.
        moving: (n,) whether the radius is neither 0 nor inf.
    """

    task: Task
    own: np.ndarray
    rival: np.ndarray
    margins: np.ndarray
    moving: np.ndarray

    def delta_of(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The perturbations (m, d) of sizes (m,), in units of the scale.

        One of infinite size moves each feature to the edge of the box.
        """
        task = self.task
        x, delta = dense(task.x, rows), None
        for a, chosen in self.directions(rows, self.moving[rows]):
            some, part, box = sizes, x, box_of(rows, task.sides)
            if len(chosen) < len(rows):
                some, part, box = sizes[chosen], x[chosen], box_of(rows[chosen], task.sides)
            if np.isinf(some).all() and box is not None:
                moved = -np.sign(a) * slack(part, a, box)
            else:
                moved = step(a, part, some, task.norm, box, self.margins[rows[chosen]])
            if len(chosen) == len(rows):
                return moved
            delta = np.zeros(x.shape) if delta is None else delta
            delta[chosen] = moved
        return np.zeros(x.shape) if delta is None else delta

    def directions(self, rows: np.ndarray, among: np.ndarray) -> Iterator[tuple]:
        """Each direction a (d,) against which some of the rows move, and their places in rows."""
        for own, rival, chosen in by_pair(self.own[rows], self.rival[rows], among):
            yield self.task.weights[own] - self.task.weights[rival], chosen

    def radii_of(self, rows: np.ndarray, margins: np.ndarray) -> np.ndarray:
        """The radii (m,) that some rows would have if these were their margins (m,)."""
        radii, task = np.zeros(len(rows)), self.task
        for a, chosen in self.directions(rows, margins > 0):
            where = rows[chosen]
            radii[chosen] = distances(margins[chosen], a, task.x, where, task.norm, task.sides)
        return radii

    def points(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The samples (m, d) of these rows, moved by sizes (m,)."""
        return self.task.placed(rows, self.delta_of(rows, sizes))

    def margins_at(
        self, rows: np.ndarray, points: np.ndarray, rounding: float | np.ndarray = 0.0
    ) -> np.ndarray:
        """The margins (m,) of the own class over the best other, in the model's scores of points.

        A margin is NaN, neither above nor below 0, where it is further from 0 than the rounding
        (m,) and `predict` of the model contradicts its sign.
        """
        model = self.task.model
        margins = self.margins_in(model.scores(points, rows), rows)
        if model.predict is not None:
            right = model.predict(points, rows) == self.own[rows]
            odd = (right & (margins < -rounding)) | (~right & (margins > rounding))
            margins = np.where(odd, np.nan, margins)
        return margins

    def margins_in(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The margins (m,) of the own class over the best other in scores (m, K) of some rows."""
        here, others = (np.arange(len(rows)), self.own[rows]), scores.copy()
        others[here] = -np.inf
        return scores[here] - others.max(axis=1)

    def changes(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """By how much perturbations of sizes (m,) change the scores (m, K) of rows, without a box.

        All samples of one direction then move alike, in proportion to the size; for the norm "0",
        in proportion to the margin.
        """
        weights, norm = self.task.weights, self.task.norm
        nowhere = np.zeros((1, len(weights[0])))
        changes = np.empty((len(rows), len(weights)))
        for a, chosen in self.directions(rows, self.moving[rows]):
            unit = step(a, nowhere, np.ones(1), norm, None, np.ones(1))[0]
            amount = sizes[chosen]
            if norm == "0":
                amount = np.where(amount > 0, self.margins[rows[chosen]], 0)
            changes[chosen] = np.outer(amount, weights @ unit)
        return changes

    def rounding(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """A bound (m,) of the error of the margin over the rival, at points that are sizes away."""
        points, here = self.points(rows, sizes), np.arange(len(rows))
        model = self.task.model
        error = model.error(points, model.scores(points, rows))
        return error[here, self.own[rows]] + error[here, self.rival[rows]]

    def on_grid(self, size: float, radii: np.ndarray, tied: np.ndarray) -> Callable:
        """A function from rows to adversarial examples at whole multiples of `size`.

        The slack of each feature is a whole number of steps. So in the L-infinity and the L1 ball a
        worst perturbation of a whole size is made of whole steps, and the smallest that is enough
        has the radius, rounded up. A tie needs one more step. Where rounding has moved a sample off
        the grid, its radius may be too large by as much, and one step less is tried first.

        Raises:
            ValueError: see `Found.perturbed`.
        """
        size = _step(size)
        low, high = (0.0, 0.0) if self.task.sides is None else self.task.sides
        start = np.where(np.isfinite(low), low, 0.0)
        end, unit = np.where(np.isfinite(high), high, start), self.task.form.unit / size
        off, bad = _off_grid((end - start) / size, unit * np.maximum(np.abs(start), np.abs(end)))
        if bad.any():
            raise ValueError(
                f"the high edge of the box is {np.max(off):.1e} of a step from a whole number of "
                f"steps ({size:g}) above its low edge, or above 0: change the box or the step"
            )

        def points(rows: np.ndarray) -> np.ndarray:
            first = start[rows] if start.ndim == 2 else start
            x = dense(self.task.x, rows)
            place = (x - first) / size
            off, bad = _off_grid(place, unit * np.maximum(np.abs(x), np.abs(first)))
            if bad.any():
                i, j = np.argwhere(bad)[0]
                raise ValueError(
                    f"X[{rows[i]}, {j}] is {off[i, j]:.1e} of a step ({size:g}) off the grid: it "
                    "begins at the low edge of the box, or at 0. Round X to it: "
                    "low + step * np.rint((X - low) / step)"
                )
            # How many steps a radius may be too large by, and then steps besides, for a tie, or for
            # rounding in the model's scores.
            off = off.max(axis=1) if self.task.norm == "inf" else off.sum(axis=1)
            early, more = np.clip(off, WHOLE, 1), np.zeros(len(rows))
            for _ in range(4):
                steps = self._whole_steps(rows, radii[rows], size, early, more)
                moved = self._at_places(rows, (np.rint(place) + steps) * size + first, steps != 0)
                short = self.moving[rows] & ~(self.margins_at(rows, moved) < 0) & ~tied[rows]
                if not short.any():
                    return moved
                more += short
            i = rows[np.argmax(short)]
            raise ValueError(f"sample {i} is not taken for another class at whole steps of {size}")

        return points

    def _whole_steps(
        self,
        rows: np.ndarray,
        radii: np.ndarray,
        size: float,
        early: np.ndarray,
        more: np.ndarray,
    ) -> np.ndarray:
        """How many steps each feature (m, d) moves.

        Args:
            early: (m,) what a radius may be too large by, in steps; more: (m,) steps besides.
        """
        if self.task.norm in ("inf", "1"):
            steps = np.maximum(np.ceil(radii / size - early), 1) + more
            sizes = np.where(self.moving[rows], steps * size, 0)
            return np.rint(self.delta_of(rows, sizes) / size)
        sizes = np.where(self.moving[rows], radii * (1 + OVERSHOOT), 0)
        delta = self.delta_of(rows, sizes) / size
        return np.sign(delta) * np.ceil(np.abs(delta))

    def _at_places(self, rows: np.ndarray, places: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Samples (m, d) with the features that move at these places, in units of the scale.

        Those that do not move keep their numbers, which places have rounded.
        """
        task = self.task
        moved = places if task.scale is None else places * task.scale
        moved = np.where(moves, moved, dense(task.form.x, rows))
        return moved if task.box is None else np.clip(moved, *box_of(rows, task.box))


@dataclass(frozen=True)
class TargetMoves(Moves):
    """How samples are moved until a target has the largest score: each by a part of its delta.

    `own` is then the target, which is to win; `rival` the class of largest score, and `margins`
    those of the rival over the target.

    Attributes:
        delta: (n, d) perturbations, in units of the scale; full: (n,) their sizes.
    """

    delta: np.ndarray
    full: np.ndarray

    def delta_of(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        share = np.minimum(sizes / np.where(self.moving, self.full, 1)[rows], 1)
        return self.delta[rows] * share[:, None]


def _step(size: float) -> float:
    """The step as a float. Raises ValueError: it is no finite number above 0."""
    try:
        if is_number(size) and 0 < float(size) < np.inf:
            return float(size)
    except OverflowError:  # a whole number above 1e308
        pass
    raise ValueError(f"step must be a finite number above 0, not {shown(size)}")


def _off_grid(steps: np.ndarray, rounding: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far numbers of steps are from whole ones, and whether by more than rounding allows."""
    off = np.abs(steps - np.rint(steps))
    return off, ~(off <= np.clip(rounding, WHOLE, OFF))
