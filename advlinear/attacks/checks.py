"""The model itself against the radii that follow from its weights.

`attack` computes radii from weights. Here the model is evaluated in its own precision: just below
each radius it has to be right, and just above it wrong. Refused is what rounding in the scores may
hide, and a model whose `predict` does not follow its scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear import samples
from advlinear.attacks import models, rivals, targets
from advlinear.attacks.moves import BELOW, OVERSHOOT, Moves, TargetMoves, by_pair
from advlinear.balls import ORDER, blocks, box_of, dual_norm, exponent_of
from advlinear.samples import dense

MOST_ASKED = 128  # points that a model is evaluated at in one call; they fit the processor's cache
PROMISED = 1e-4  # of a radius: an error that rounding of the scores makes may be as large
SURPRISE = (
    "sample {}: the model is {} just {} the radius that follows from its weights: its scores are "
    "not linear, or round too much"
)

# From rows (m,) and what is added to their margins (m, K) to sizes (m,) and perturbations (m, d).
Solve = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


# --- both sides of each radius -------------------------------------------------------------------


def confirmed(moves: Moves, scores: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sizes (n,) at which the model itself is wrong, and whether a rival only ties (n,).

    The model has to be right at a millionth of the radius below it, and wrong at a millionth above;
    for the norm "0" right with one feature less, and wrong with as many. Where it is not, it is
    evaluated again, at the radii of margins that are smaller, or larger, by the rounding of its
    scores. (Without a box the samples of a sparse X would be dense once moved. So the model is
    evaluated for the first 128, and for the others its scores of X are changed by the weights.)

    Raises:
        ValueError: the model is not right below, or not wrong above, even so.
    """
    task = moves.task
    below, beyond = _sides(radii, task.norm)
    tied = np.zeros(len(radii), bool)
    by_direction = [rows for _, _, rows in by_pair(moves.own, moves.rival, moves.moving)]
    in_order = np.concatenate([np.empty(0, int), *by_direction])
    if task.form.kind == "sparse" and task.box is None:
        _require_computed(moves, scores, below, beyond)
        in_order = np.sort(in_order)[:MOST_ASKED]
    for rows in blocks(in_order, task.form.x.shape[1], MOST_ASKED):
        delta = moves.delta_of(rows, beyond[rows])
        for want, sizes in ((-1, beyond), (1, below)):
            if want > 0:  # towards the same point, which is as near the worst case
                delta = moves.delta_of(rows, sizes[rows]) if task.norm == "0" else delta * BELOW
            margins = moves.margins_at(rows, task.placed(rows, delta))
            missed = rows[~(want * margins > 0)]
            if len(missed):
                sizes[missed], tied[missed] = _further(moves, missed, want)
    return beyond, tied & (radii > 0)


def _require_computed(
    moves: Moves, scores: np.ndarray, below: np.ndarray, beyond: np.ndarray
) -> None:
    """Raise ValueError unless scores from the weights are right below, wrong above, or level.

    Args:
        scores: (n, K) of X; below, beyond: sizes (n,).
    """
    rows = np.flatnonzero(moves.moving)
    for want, sizes in ((-1, beyond), (1, below)):
        change = moves.changes(rows, sizes[rows])
        margins = moves.margins_in(scores[rows] + change, rows)
        terms = (np.abs(scores[rows]) + np.abs(change)).sum(axis=1)
        missed = ~(want * margins > -4 * moves.task.model.score_error * terms)
        if missed.any():
            state = ("not right", "below") if want > 0 else ("not wrong", "above")
            raise ValueError(SURPRISE.format(rows[np.argmax(missed)], *state))


def _further(moves: Moves, rows: np.ndarray, want: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (m,) that rounding cannot hide, and whether a rival only ties there (m,).

    Raises:
        ValueError: the model is still not right below (want 1) or wrong above (-1).
    """
    task, margins = moves.task, moves.margins[rows]
    sizes = _sides(moves.radii_of(rows, margins), task.norm)[want < 0]
    rounding = moves.rounding(rows, sizes) + moves.rounding(rows, 0 * sizes)
    rounding = rounding + 1e-12 * margins  # `distance` takes a margin to be 0 up to 1e-14 of it
    radii = moves.radii_of(rows, margins - want * rounding)
    sizes = _sides(radii, task.norm)[want < 0]
    margins = moves.margins_at(rows, moves.points(rows, sizes))
    tied = np.isinf(sizes) & (np.abs(margins) <= rounding)
    missed = ~(want * margins > 0) & (sizes > 0) & ~tied
    if missed.any():
        state = ("not right", "below") if want > 0 else ("not wrong", "above")
        raise ValueError(SURPRISE.format(rows[np.argmax(missed)], *state))
    return sizes, tied


def confirmed_at_target(
    moves: TargetMoves, radii: np.ndarray, solve: Solve
) -> tuple[TargetMoves, np.ndarray]:
    """The moves after which the model itself predicts the target, and whether it only ties (n,).

    They are those to a target that leads by a millionth of the margin, or by as much more as the
    scores round. At a millionth of the radius below it the model must not predict the target yet.

    Raises:
        ValueError: it predicts the target below its radius, or not above.
    """
    rows, hardest = np.arange(len(radii)), moves.margins
    delta, full, moving = moves.delta.copy(), moves.full.copy(), moves.moving
    tied = (radii == 0) & (hardest == 0)
    below = moves.points(rows, radii * (1 - OVERSHOOT))
    rounding = 1e-12 * np.abs(hardest)
    for part in blocks(np.flatnonzero(moving), len(moves.task.weights[0]), MOST_ASKED):
        rounding[part] += moves.rounding(part, radii[part]) + moves.rounding(part, 0 * radii[part])
        margins = moves.margins_at(part, below[part], rounding[part])
        early = part[~(margins <= rounding[part])]
        if len(early):
            raise ValueError(SURPRISE.format(early[0], "at its target", "below"))
    left = np.flatnonzero(moving)  # not seen at the target yet
    for lead in (OVERSHOOT * hardest, OVERSHOOT * hardest + rounding):
        if not len(left):
            break
        sizes, further = solve(left, lead[left, None])
        enough = np.isfinite(sizes)
        full[left[enough]], delta[left[enough]] = sizes[enough], further[enough]
        tied[left] = ~enough
        moves = replace(moves, delta=delta, full=full)
        left = left[~(moves.margins_at(left, moves.points(left, full[left])) > 0)]
    missed = left[~tied[left]]
    if len(missed):
        raise ValueError(SURPRISE.format(missed[0], "not at its target", "above"))
    tied[moving & ~np.isin(rows, left) & (radii > 0)] = False
    return moves, tied


def _sides(radii: np.ndarray, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes just below and just above the radii."""
    if norm == "0":
        return np.maximum(radii - 1, 0), radii.copy()
    return radii * (1 - OVERSHOOT), radii * (1 + OVERSHOOT)


# --- what rounding may hide ----------------------------------------------------------------------


def refuse_coarse(moves: Moves, scores: np.ndarray, radii: np.ndarray) -> None:
    """Raise ValueError where the model's precision cannot give a radius to 1e-4.

    The errors of the scores and of the weights make an error of a radius. It must be at most 1e-4
    of the radius, or of the largest sample in the same norm.
    """
    task = moves.task
    if task.norm == "0":
        return
    model, norm, weight_error = task.model, task.norm, task.weight_error
    offsets = np.abs(models.centred(scores))
    for own, rival, rows in by_pair(moves.own, moves.rival, moves.moving):
        fall = dual_norm(task.weights[own] - task.weights[rival], norm)
        error = model.score_error * (offsets[rows, own] + offsets[rows, rival]) / fall
        if weight_error is not None:
            both = dual_norm(weight_error[own] + weight_error[rival], norm)
            error = error + radii[rows] * both / fall
        coarse = error > PROMISED * radii[rows]
        if coarse.any():
            coarse = error > PROMISED * (radii[rows] + _largest(moves))
        if coarse.any():
            raise ValueError(
                f"the model's scores are exact to {model.score_error:.0e} only, too coarse for the "
                f"radius of sample {rows[np.argmax(coarse)]}: let it compute in float64, or pass "
                "(W, b)"
            )


def _largest(moves: Moves) -> float:
    """The norm of the largest sample, in units of the scale and in the norm of the ball."""
    largest = 0.0
    for part in blocks(np.arange(len(moves.own)), moves.task.form.x.shape[1]):
        x = dense(moves.task.x, part)
        exponent = exponent_of(x)  # so that no square overflows
        sizes = np.linalg.norm(np.ldexp(x, -exponent), ORDER[moves.task.norm], axis=1)
        largest = max(largest, float(np.ldexp(sizes.max(), exponent)))
    return largest


def refuse_hidden(moves: Moves, margins: np.ndarray, radii: np.ndarray) -> None:
    """Raise ValueError where a radius may depend on weights that rounding hides, or overflows.

    The weights of a function are differences of its scores. One that is not above its error may
    have any value up to that error. Within the radius such weights must change no margin by more
    than 1e-4 of it.

    Args:
        margins: (n, K) of the own class over each other, or of each over the target.
    """
    task, own, never = moves.task, moves.own, np.isinf(radii)
    weights, errors = task.weights, task.weight_error
    if task.box is None and not isinstance(moves, TargetMoves):
        for i in np.flatnonzero(never):
            if (weights[own[i]] != weights).any():
                raise ValueError(f"the radius of sample {i} overflows: change the unit of X")
    if errors is None:
        return
    norm = "1" if task.norm == "0" else task.norm
    sizes = np.where((task.norm == "0") & (radii > 1), np.inf, radii)
    sizes = np.minimum(sizes, samples.HUGE)[:, None]  # finite, so that times an error of 0 it is 0
    allowed = np.where(margins > 0, PROMISED * margins, np.inf)
    for rows in blocks(np.flatnonzero(radii > 0), len(errors[0])):
        if task.sides is None:
            change = sizes[rows] * np.array([dual_norm(one, norm) for one in errors])
        else:
            x, (low, high) = dense(task.x, rows), box_of(rows, task.sides)
            reach = np.minimum(sizes[rows], np.maximum(x - low, high - x))
            change = reach @ errors.T
        change = change + np.take_along_axis(change, own[rows, None], axis=1)
        for i, k in np.argwhere(change > allowed[rows]):  # if all errors counted
            row = rows[i]
            error = errors[own[row]] + errors[k]
            hidden = np.where(np.abs(weights[own[row]] - weights[k]) <= error, error, 0)
            change = reach[i] @ hidden if task.box else sizes[row, 0] * dual_norm(hidden, norm)
            if change > allowed[row, k]:
                raise ValueError(
                    f"sample {row}: its radius may depend on weights that are lost in the rounding "
                    "of the scores: pass (W, b), or a finite box"
                )


# --- whether the model predicts the class of its largest score -----------------------------------


def require_predicted(moves: Moves, margins: np.ndarray, radii: np.ndarray) -> None:
    """Raise ValueError where the model's `predict` does not follow its scores.

    A model may predict by a threshold of its own, or shift its scores first. Then a radius that
    follows from the scores is too large where a class other than the rival is favoured, and an
    infinite one may be finite. So samples are moved just less than their radii, or, where they are
    infinite, to the edge of the box, towards every class. For each pair of classes it is the sample
    that comes nearest, of those with a finite radius and of those without; at most 128 of either,
    or one per class.

    Args:
        margins: (n, K) of the own class over each other, or of each over the target.
    """
    task = moves.task
    if task.model.predict is None:
        return
    n, count = margins.shape
    norms = rivals.dual_norms(task.weights, task.norm)[moves.own]
    finite, every = np.isfinite(radii), np.ones(n, bool)
    for k in range(count):
        own, rival = moves.own, np.full(n, k)
        if isinstance(moves, TargetMoves):  # against the margin of class k over the target
            own, rival = rival, own
        towards = Moves(task, own, rival, margins[:, k], every)
        possible = (radii > 0) & (moves.own != k) & (norms[:, k] > 0) & (margins[:, k] > 0)
        for among in (finite, ~finite):
            rows = np.flatnonzero(possible & among)
            left = margins[rows, k] / norms[rows, k] - np.where(finite, radii, 0)[rows]
            rows = rows[np.argsort(left, kind="stable")]
            nearest = np.sort(np.unique(moves.own[rows], return_index=True)[1])
            chosen = rows[nearest[: max(1, MOST_ASKED // count)]]
            for part in blocks(chosen, len(task.weights[0])):
                sizes = _sides(radii[part], task.norm)[0]
                if among is not finite:  # towards a target, one class alone may be overtaken
                    sizes = _sides(towards.radii_of(part, margins[part, k]), task.norm)[1]
                task.model.require_largest(towards.points(part, sizes), part)


def require_predicted_short_of(moves: TargetMoves, margins: np.ndarray, solve: Solve) -> None:
    """The same where the target is only just behind.

    It is a millionth ahead of all classes but one, and a millionth behind that one: for each target
    and each class that the radius of some sample depends on. Where no perturbation is enough, the
    margin of one class over the target, or the largest of all, is made as small as possible: for
    one sample per target.

    Args:
        margins: (n, K) of each class over the target.
    """
    task = moves.task
    if task.model.predict is None:
        return
    for k in range(margins.shape[1]):
        change = moves.delta * (task.weights[k] - task.weights[moves.own])
        used = moves.moving & (margins[:, k] + change.sum(axis=1) >= -OVERSHOOT * moves.margins)
        rows = np.flatnonzero(used)
        rows = rows[np.unique(moves.own[rows], return_index=True)[1]]
        short = np.full((len(rows), margins.shape[1]), OVERSHOOT)
        short[:, k] = -OVERSHOOT
        sizes, delta = solve(rows, short * moves.margins[rows, None])
        reached = np.isfinite(sizes)
        if reached.any():
            points = task.placed(rows[reached], delta[reached])
            task.model.require_largest(points, rows[reached])
    never = np.flatnonzero(np.isinf(moves.full))
    for row in never[np.unique(moves.own[never], return_index=True)[1]]:
        one = np.array([row])
        others = np.flatnonzero(np.arange(margins.shape[1]) != moves.own[row])
        a, g = task.weights[others] - task.weights[moves.own[row]], margins[row, others]
        for ahead in (np.ones(len(others)), *np.eye(len(others))):
            found = targets.least_margin(a, g, task.x[one], box_of(one, task.sides), ahead)
            if found is not None:
                task.model.require_largest(task.placed(one, found[None]), one)
