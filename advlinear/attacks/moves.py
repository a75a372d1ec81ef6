"""Where samples are moved to: along one direction per pair of classes, or straight to a target."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from advlinear.attacks.models import Model
from advlinear.balls import blocks, box_of, distance, room, shown, step
from advlinear.samples import MOST, Form, dense, is_number

BEYOND = 1e-6  # of a radius: moved so much further, a sample is on the other side
BELOW = (1 - BEYOND) / (1 + BEYOND)  # from the size above the radius to that below it
WHOLE = 1e-6  # of a step of the grid: what is no further off is on it


def by_pair(own: np.ndarray, rival: np.ndarray, among: np.ndarray) -> Iterator[tuple]:
    """Each pair (class, rival) of the samples where `among` (n,), and its rows."""
    rows = np.flatnonzero(among)
    order = np.lexsort((rival[rows], own[rows]))
    rows = rows[order]
    changes = (np.diff(own[rows]) != 0) | (np.diff(rival[rows]) != 0)
    for chosen in np.split(rows, np.flatnonzero(changes) + 1) if len(rows) else ():
        yield own[chosen[0]], rival[chosen[0]], np.sort(chosen)


def exact(gap: np.ndarray, a: np.ndarray, x: Any, rows: np.ndarray, norm: str, box: tuple | None):
    """`distance` (m,) of some rows of x, with gaps (m,)."""
    if box is None:
        return distance(gap, a, np.empty((len(gap), 0)), norm)
    found = np.empty(len(rows))
    for part in blocks(np.arange(len(rows)), len(a), MOST):
        chosen = rows[part]
        found[part] = distance(gap[part], a, dense(x, chosen), norm, box_of(chosen, box))
    return found


def scaled(values: Any, scale: np.ndarray | None) -> Any:
    """Samples or sides of a box in units of the scale (d,); 0 where a feature is fixed.

    In these units |delta_j| / scale_j is |delta_j|, so that nothing else knows of the scale.
    """
    if scale is None:
        return values
    if hasattr(values, "tocsr"):
        factor = np.divide(1, scale, out=np.zeros(len(scale)), where=scale > 0)
        return (values @ sys.modules["scipy.sparse"].diags(factor)).tocsr()
    return np.divide(values, scale, out=np.zeros(np.shape(values)), where=scale > 0)


@dataclass(frozen=True)
class Moves:
    """How the samples are moved.

    Attributes:
        form: the samples; box: None or (low, high) in their units; norm: of the ball.
        scale: (d,) or None. x, sides: samples and box in units of it.
        model: what is asked; its weights times the scale are `weights`.
        own, rival: (n,) indices of classes; gaps: (n,) the lead of the own one over the rival.
        moving: (n,) whether the radius is neither 0 nor inf.
        delta: None, or (n, d) what a sample is moved by, in units of the scale, and its sizes
            `full` (n,).
    """

    form: Form
    norm: str
    box: tuple | None
    scale: np.ndarray | None
    x: Any
    sides: tuple | None
    model: Model
    weights: np.ndarray
    own: np.ndarray
    rival: np.ndarray
    gaps: np.ndarray
    moving: np.ndarray
    delta: np.ndarray | None = None
    full: np.ndarray | None = None

    def shift(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """delta (m, d) of sizes (m,), in units of the scale; an infinite one fills the box."""
        if self.delta is not None:
            share = np.minimum(sizes / np.where(self.moving, self.full, 1)[rows], 1)
            return self.delta[rows] * share[:, None]
        x, shift = dense(self.x, rows), None
        for a, chosen in self.directions(rows, self.moving[rows]):
            known, part, box = sizes, x, box_of(rows, self.sides)
            if len(chosen) < len(rows):
                known, part, box = sizes[chosen], x[chosen], box_of(rows[chosen], self.sides)
            if np.isinf(known).all():
                moved = -np.sign(a) * room(part, a, box)
            else:
                moved = step(a, part, known, self.norm, box, self.gaps[rows[chosen]])
            if len(chosen) == len(rows):
                return moved
            shift = np.zeros(x.shape) if shift is None else shift
            shift[chosen] = moved
        return np.zeros(x.shape) if shift is None else shift

    def directions(self, rows: np.ndarray, among: np.ndarray) -> Iterator[tuple]:
        """Each direction a (d,) against which some of the rows move, and their places."""
        for own, rival, chosen in by_pair(self.own[rows], self.rival[rows], among):
            yield self.weights[own] - self.weights[rival], chosen

    def radii_of(self, rows: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """The radii (m,) of some rows if the leads of their own classes were the given gaps."""
        radii = np.zeros(len(rows))
        for a, chosen in self.directions(rows, gaps > 0):
            known = gaps[chosen], a, self.x, rows[chosen], self.norm, self.sides
            radii[chosen] = exact(*known)
        return radii

    def points(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """The samples (m, d) of these rows, moved by sizes (m,)."""
        return self.placed(rows, self.shift(rows, sizes))

    def placed(self, rows: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The samples (m, d) of these rows, moved by shift (m, d) in units of the scale."""
        moved = dense(self.form.x, rows) + (shift if self.scale is None else shift * self.scale)
        if self.box is not None:  # as np.clip, which takes twice as long
            low, high = box_of(rows, self.box)
            np.minimum(np.maximum(moved, low, out=moved), high, out=moved)
        return moved

    def leads(
        self, rows: np.ndarray, points: np.ndarray, rounding: float | np.ndarray = 0.0
    ) -> np.ndarray:
        """The lead (m,) of the own class over the best other, in the model's own scores of points.

        It is NaN, neither above nor below 0, where it is beyond the rounding and the class that the
        model predicts says otherwise.
        """
        lead = self.lead_in(self.model.ask(points, rows), rows)
        if self.model.predict is not None:
            right = self.model.predict(points, rows) == self.own[rows]
            odd = (right & (lead < -rounding)) | (~right & (lead > rounding))
            lead = np.where(odd, np.nan, lead)
        return lead

    def lead_in(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The lead (m,) of the own class over the best other in scores (m, K) of some rows."""
        here, others = (np.arange(len(rows)), self.own[rows]), scores.copy()
        others[here] = -np.inf
        return scores[here] - others.max(axis=1)

    def changes(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """How the scores (m, K) of rows change with moves of sizes (m,), without a box.

        Then all that move against one direction move alike, in proportion to the size; for the
        norm "0", to the gap.
        """
        nowhere = np.zeros((1, len(self.weights[0])))
        changes = np.empty((len(rows), len(self.weights)))
        for a, chosen in self.directions(rows, self.moving[rows]):
            unit = step(a, nowhere, np.ones(1), self.norm, None, np.ones(1))[0]
            amount = sizes[chosen]
            if self.norm == "0":
                amount = np.where(amount > 0, self.gaps[rows[chosen]], 0)
            changes[chosen] = np.outer(amount, self.weights @ unit)
        return changes

    def rounding(self, rows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """A bound (m,) of the error of the lead over the rival, at points that are sizes away."""
        points, here = self.points(rows, sizes), np.arange(len(rows))
        error = self.model.error(points, self.model.ask(points, rows))
        return error[here, self.own[rows]] + error[here, self.rival[rows]]

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

    def on_grid(self, size: float, radii: np.ndarray, tied: np.ndarray) -> Callable:
        """A function from rows to adversarial examples at whole multiples of `size`.

        In the L-infinity and the L1 ball they are as many steps away as the radius, rounded up: the
        room of each feature is a whole number of steps, so the worst case of a whole size is made
        of whole steps. A tie needs one more.

        Raises:
            ValueError: see `Found.perturbed`.
        """
        if not is_number(size) or not 0 < size < np.inf:
            raise ValueError(f"step must be a finite number above 0, not {shown(size)}")
        low, high = (0.0, 0.0) if self.sides is None else self.sides
        start = np.where(np.isfinite(low), low, 0.0)
        _require_whole((np.where(np.isfinite(high), high, start) - start) / size, "box")

        def points(rows: np.ndarray) -> np.ndarray:
            x, first = dense(self.form.x, rows), start[rows] if start.ndim == 2 else start
            place = (dense(self.x, rows) - first) / size
            _require_whole(place, "X")
            more = np.zeros(len(rows))  # steps
            for _ in range(3):
                if self.norm in ("inf", "1"):
                    steps = np.maximum(np.ceil(radii[rows] / size - WHOLE), 1) + more
                    sizes = np.where(self.moving[rows], steps * size, 0)
                    shift = np.rint(self.shift(rows, sizes) / size)
                else:
                    sizes = np.where(self.moving[rows], radii[rows] * (1 + BEYOND), 0)
                    shift = self.shift(rows, sizes) / size
                    shift = np.sign(shift) * np.ceil(np.abs(shift))
                moved = (np.rint(place) + shift) * size + first
                moved = moved if self.scale is None else moved * self.scale
                moved = np.where(shift != 0, moved, x)
                moved = moved if self.box is None else np.clip(moved, *box_of(rows, self.box))
                short = self.moving[rows] & ~(self.leads(rows, moved) < 0) & ~tied[rows]
                if not short.any():
                    return moved
                more += short
            i = rows[np.argmax(short)]
            raise ValueError(f"sample {i} is not taken for another class at whole steps of {size}")

        return points


def _require_whole(steps: np.ndarray, what: str) -> None:
    if not (np.abs(steps - np.rint(steps)) <= WHOLE).all():
        raise ValueError(f"{what} is not whole steps from the low edge of the box, or from 0")
