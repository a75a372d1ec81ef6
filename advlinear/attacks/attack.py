"""The exact attack on a linear model of any number of classes. NumPy alone, but for what is named.

`attack` reads the model (models.py) and the samples (advlinear/samples.py), looks for the nearest
rival of each sample (rivals.py) or for the way to a target (targets.py), and evaluates the model
itself on both sides of each radius.
"""

from __future__ import annotations

import functools
import numbers
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from advlinear import samples
from advlinear.attacks import models, rivals, targets
from advlinear.attacks.moves import BELOW, BEYOND, Moves, by_pair, scaled
from advlinear.balls import (
    ORDER,
    ball,
    blocks,
    box_of,
    dual_norm,
    exponent_of,
    shown,
)
from advlinear.samples import dense

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MOST_ASKED = 128  # rows at a time; they then stay in the processor's cache
_SURPRISE = (
    "sample {}: the model is {} just {} the radius that follows from its weights: its scores are "
    "not linear, or round too much"
)
PROMISED = 1e-4  # of a radius: the largest error by the model's own rounding that is not refused


@dataclass(frozen=True, repr=False, eq=False)
class Found:
    """The smallest perturbations that make each of n samples wrong; see `attack`.

    With a target: the smallest after which the model predicts the target.

    Attributes:
        radii: (n,) their sizes: 0 where the model is wrong already, inf where nothing makes it so.
        rival: (n,) the class that the sample is then taken for; its own where the radius is inf.
            (For the norm "0" one that then overtakes its own.)
        tied: (n,) whether the rival can only draw level, at the edge of the box. (A tie is an
            error, but a model that has to say a class may still say the right one.)
    """

    radii: np.ndarray
    rival: np.ndarray
    tied: np.ndarray
    _moves: Moves
    _beyond: np.ndarray  # (n,) sizes at which the model was asked and is wrong

    def __repr__(self) -> str:
        wrong, never = np.count_nonzero(self.radii == 0), np.count_nonzero(np.isinf(self.radii))
        box = "no" if self._moves.box is None else "with"
        return (
            f"Found({len(self.radii)} samples, norm {self._moves.norm}, {box} "
            f"box: {wrong} wrong already, {never} that nothing flips, median radius "
            f"{np.median(self.radii):.4g})"
        )

    def curve(self, eps: ArrayLike) -> np.ndarray:
        """Accuracy under the worst case at each radius: the share of radii > eps.

        Args:
            eps: one radius, or several of any shape; each is that of all n samples. For a radius
                per sample, eps (n,), take (found.radii > eps).mean().

        Returns:
            An accuracy per radius, of the shape of eps.

        Raises:
            ValueError: eps holds what is no number of at least 0.
        """
        sizes = samples.real(eps, "eps")
        if not (sizes >= 0).all():
            wrong = shown(sizes[~(sizes >= 0)][0])
            raise ValueError(f"eps needs numbers of at least 0, not {wrong}")
        withstand = len(self.radii) - np.searchsorted(np.sort(self.radii), sizes, side="right")
        return withstand / len(self.radii)

    def perturbed(self, eps: ArrayLike | None = None, step: float | None = None) -> Any:
        """The samples moved towards their rivals, in the form of X: nearest adversarial examples.

        By a millionth more than their radii, or by `eps`; or by the smallest whole multiple of
        `step` that is enough. Samples of radius 0 or inf do not move, and none leaves the box.

        Args:
            eps: one size, or one per sample (n,). (Towards a target no sample moves further than
                it has to.)
            step: the distance of neighbouring values, such as 1/255 of images with 256 levels. In
                the L-infinity and the L1 ball no smaller move in whole steps is enough; in the L2
                ball each feature takes the next whole step after the nearest example.

        Raises:
            ValueError: eps is negative, not finite, or not one or n numbers; step is not above 0,
                comes with eps or a target, or X or the box is not a multiple of it; or the model
                itself does not take the sample for another class at a whole step.
        """
        rows = np.arange(len(self.radii))
        if step is not None:
            if eps is not None:
                raise ValueError("perturbed takes eps or step, not both")
            if self._moves.delta is not None:
                raise ValueError("perturbed takes a step only where attack had no target")
            if self._moves.norm == "0":
                raise ValueError("perturbed takes a step with norm inf, 2 or 1: pass norm 1")
            return self._moves.restored(self._moves.on_grid(step, self.radii, self.tied))
        sizes = self._beyond
        if eps is not None:
            eps = samples.real(eps, "eps")
            try:
                sizes = np.broadcast_to(eps, rows.shape)
            except ValueError:
                raise ValueError(f"eps needs a number, or {len(rows)}: one per sample") from None
            moving = sizes[self._moves.moving] if eps.ndim else sizes
            right = (moving >= 0) & (moving < np.inf)
            if not right.all():
                raise ValueError(
                    f"eps must be finite and at least 0, not {shown(moving[~right][0])}"
                )
        return self._moves.restored(lambda part: self._moves.points(part, sizes[part]))


Args = ParamSpec("Args")
Result = TypeVar("Result")


def _without_eps(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """The function, which tells a caller who passes eps to it what takes eps."""

    @functools.wraps(function)
    def checked(*args: Args.args, **kwargs: Args.kwargs) -> Result:
        if "eps" in kwargs:
            raise TypeError(
                "attack takes no eps, as it finds all radii: curve(eps) and perturbed(eps) of its "
                "result do"
            )
        return function(*args, **kwargs)

    return checked


@_without_eps
def attack(
    model: Any,
    X: Any,
    y: ArrayLike | None,
    norm: str | float = "inf",
    box: tuple | None = None,
    n_jobs: int | None = None,
    scale: ArrayLike | None = None,
    target: Any = None,
) -> Found:
    """The exact attack on a linear model of any number of classes.

    Args:
        model: a fitted scikit-learn classifier, outlier detector or pipeline whose scores are
            linear; a Keras or PyTorch model of logits; a function from X (m, ...) to scores (m, K),
            or (m,) for two classes; or (W, b) with W (K, d) and b (K,), or w (d,) and a number; or
            a `Minimum`, with its classes, or a `Best`, which counts as (w, b).
        X: samples (n, d), or (n, ...) as the model takes them; a sparse matrix; or a DataFrame,
            whose d numeric columns are attacked.
        y: labels (n,), by place and not by index: those of model.classes_, else 0 to K - 1; with a
            single score 0 and 1, or -1 and +1. A tie is an error. With a target they have no part,
            and may be None.
        norm: "inf", "2", "1", or "0": how many features change; or np.inf, 2, 1 or 0.
        box: None, or (low, high) that x + delta stays in: numbers, one per feature (d,), or one
            per sample and feature (n, d). Where X is a DataFrame, a Series is read by the names of
            its columns, and a DataFrame by those and by its index. X may be outside by 1e-9 of the
            width, for rounding; by 4.8e-7 of it, four times the machine epsilon, where X is
            float32.
        n_jobs: how many processes share the samples, as in scikit-learn: None is one, or what
            `joblib.parallel_config` says; -1 is one per core. More than one needs joblib.
        scale: None, or (d,) the unit of each feature: |delta_j| / scale_j enters the norm, and 0
            freezes a feature. A Series is read by the names of the columns of X.
        target: None, or the class that the model is to predict, or one per sample (n,); not with
            norm "0" or a sparse X.

    Raises:
        ValueError: an argument is not as described; the model is not linear: its scores on X, or
            far from it, are not X @ W.T + b to 1e-5 of their terms; its own rounding hides a
            radius, by more than 1e-4; or asked a millionth of the radius below and above, or as
            much further as its scores round, it does not say what the radius says.
    """
    if y is None and target is None:
        raise ValueError("y is None: pass the labels, or a target")
    norm, form = ball(norm, (*ORDER, "0")), samples.Form(X)
    scale, box = samples.units(scale, form), samples.bounds(box, form)
    fixed = np.zeros(form.x.shape[1], bool) if scale is None else scale == 0
    linear, own, scores = models.read(model, form, y, fixed, box)
    x = scaled(form.x, scale)
    sides = None if box is None else tuple(scaled(side, scale) for side in box)
    weights = linear.weights if scale is None else linear.weights * scale
    samples.require_finite(weights, "W in units of the scale")
    samples.require_finite(x.data if form.kind == "sparse" else x, "X in units of the scale")
    known = dict(form=form, norm=norm, box=box, scale=scale, x=x, sides=sides)
    known |= dict(model=linear, weights=weights)
    if target is None:
        return _away(known, scores, own, n_jobs)
    return _towards(known, scores, _targets(target, linear, len(own)), n_jobs)


def _targets(target: Any, model: models.Model, n: int) -> np.ndarray:
    """The index (n,) of the class that each sample is to be taken for."""
    target = samples.array(target, "target")
    if target.shape not in ((), (n,)):
        raise ValueError(f"target needs a class, or one per sample ({n},), not {target.shape}")
    return models.labels_to_indices(np.broadcast_to(target, n), model.classes, "target")


def _away(known: dict, scores: np.ndarray, own: np.ndarray, n_jobs: int | None) -> Found:
    """The perturbations after which another class than the own one has the largest score."""
    rows = np.arange(len(own))
    gaps = scores[rows, own][:, None] - scores
    gaps[rows, own] = np.inf
    common = dict(weights=known["weights"], norm=known["norm"])
    per_sample = dict(gaps=gaps, own=own, x=known["x"])
    radii, rival = _in_parallel(rivals.nearest, n_jobs, per_sample, known["sides"], common)
    moving = (radii > 0) & np.isfinite(radii)
    gap = np.where(moving, gaps[rows, rival], 0)
    moves = Moves(**known, own=own, rival=rival, gaps=gap, moving=moving)
    _refuse_coarse(moves, scores, radii)
    _refuse_hidden(moves, gaps, radii)
    _require_predicted(moves, gaps, radii)
    beyond, tied = _confirmed(moves, radii, scores)
    return Found(radii, moves.model.classes[rival], tied, moves, beyond)


def _confirmed(
    moves: Moves, radii: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The sizes (n,) at which the model itself is wrong, and whether a rival only ties (n,).

    Asked at a millionth of the radius below it, the model must be right, and above it wrong; for
    the norm "0" with one feature less, and with as many. Where it is not so, the same is asked at
    the radii of gaps that are smaller, or larger, by the rounding of the model's scores. (Without a
    box the samples of a sparse X would be dense once moved. So the first 128 are asked for, and the
    scores of the others are those of X, changed as the weights say.)

    Raises:
        ValueError: that does not hold either.
    """
    below, beyond = _sides(radii, moves.norm)
    tied = np.zeros(len(radii), bool)
    by_direction = [rows for _, _, rows in by_pair(moves.own, moves.rival, moves.moving)]
    in_order = np.concatenate([np.empty(0, int), *by_direction])
    if moves.form.kind == "sparse" and moves.box is None:
        _require_computed(moves, scores, below, beyond)
        in_order = np.sort(in_order)[:MOST_ASKED]
    for rows in blocks(in_order, moves.form.x.shape[1], MOST_ASKED):
        shift = moves.shift(rows, beyond[rows])
        for want, sizes in ((-1, beyond), (1, below)):
            if want > 0:  # towards the same point, which is as near the worst case
                shift = moves.shift(rows, sizes[rows]) if moves.norm == "0" else shift * BELOW
            lead = moves.leads(rows, moves.placed(rows, shift))
            off = rows[~(want * lead > 0)]
            if len(off):
                sizes[off], tied[off] = _further(moves, off, want)
    return beyond, tied & (radii > 0)


def _require_computed(moves: Moves, scores: np.ndarray, below, beyond) -> None:
    """The same without asking. Raises ValueError unless right below and wrong above, or level."""
    rows = np.flatnonzero(moves.moving)
    for want, sizes in ((-1, beyond), (1, below)):
        change = moves.changes(rows, sizes[rows])
        lead = moves.lead_in(scores[rows] + change, rows)
        rounding = 4 * moves.model.noise * (np.abs(scores[rows]) + np.abs(change)).sum(axis=1)
        off = ~(want * lead > -rounding)
        if off.any():
            told = ("not right", "below") if want > 0 else ("not wrong", "above")
            raise ValueError(_SURPRISE.format(rows[np.argmax(off)], *told))


def _further(moves: Moves, rows: np.ndarray, want: int) -> tuple[np.ndarray, np.ndarray]:
    """Sizes (m,) that rounding cannot hide, and whether a rival only ties there (m,).

    Raises:
        ValueError: the model is still not right below (want 1) or wrong above (-1).
    """
    sizes = _sides(moves.radii_of(rows, moves.gaps[rows]), moves.norm)[want < 0]
    rounding = moves.rounding(rows, sizes) + moves.rounding(rows, 0 * sizes)
    rounding = rounding + 1e-12 * moves.gaps[rows]  # `distance` takes a gap as used up to 1e-14
    radii = moves.radii_of(rows, moves.gaps[rows] - want * rounding)
    sizes = _sides(radii, moves.norm)[want < 0]
    lead = moves.leads(rows, moves.points(rows, sizes))
    tied = np.isinf(sizes) & (np.abs(lead) <= rounding)
    wrong = ~(want * lead > 0) & (sizes > 0) & ~tied
    if wrong.any():
        i = rows[np.argmax(wrong)]
        told = ("right", "below") if want > 0 else ("wrong", "above")
        raise ValueError(_SURPRISE.format(i, f"not {told[0]}", told[1]))
    return sizes, tied


def _sides(radii: np.ndarray, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """Sizes just below and just above the radii."""
    if norm == "0":
        return np.maximum(radii - 1, 0), radii.copy()
    return radii * (1 - BEYOND), radii * (1 + BEYOND)


def _refuse_coarse(moves: Moves, scores: np.ndarray, radii: np.ndarray) -> None:
    """Raise ValueError where the model's precision cannot give a radius to 1e-4.

    Scores that are off by a share of the offsets, or weights by their blur, are a radius that is
    off. The error is to be 1e-4 of the radius, or of the largest sample in the same norm.
    """
    if moves.norm == "0":
        return
    model, norm = moves.model, moves.norm
    offsets = np.abs(models.centred(scores))
    for own, rival, rows in by_pair(moves.own, moves.rival, moves.moving):
        cost = dual_norm(moves.weights[own] - moves.weights[rival], norm)
        off = model.noise * (offsets[rows, own] + offsets[rows, rival]) / cost
        if model.blur is not None:
            blur = model.blur[own] + model.blur[rival]
            blur = blur if moves.scale is None else blur * moves.scale
            off = off + radii[rows] * dual_norm(blur, norm) / cost
        coarse = off > PROMISED * radii[rows]
        if coarse.any():
            coarse = off > PROMISED * (radii[rows] + _largest(moves))
        if coarse.any():
            raise ValueError(
                f"the model's scores are exact to {model.noise:.0e} only, too coarse for the "
                f"radius of sample {rows[np.argmax(coarse)]}: let it compute in float64, or pass "
                "(W, b)"
            )


def _refuse_hidden(moves: Moves, gaps: np.ndarray, radii: np.ndarray) -> None:
    """Raise ValueError where a radius may depend on weights that rounding hides, or overflows.

    The weights of a function are differences of its scores. Those that are not above their errors
    may have any value up to these. Within the radius they are to change no margin by more than 1e-4
    of it.

    Args:
        gaps: (n, K) the lead of the own class over each other, or of each over the target.
    """
    own, weights, never = moves.own, moves.weights, np.isinf(radii)
    if moves.box is None and moves.delta is None:
        for i in np.flatnonzero(never):
            if (weights[own[i]] != weights).any():
                raise ValueError(f"the radius of sample {i} overflows: change the unit of X")
    if moves.model.blur is None:
        return
    errors = moves.model.blur if moves.scale is None else moves.model.blur * moves.scale
    norm = "1" if moves.norm == "0" else moves.norm
    sizes = np.where((moves.norm == "0") & (radii > 1), np.inf, radii)
    sizes = np.minimum(sizes, samples.HUGE)[:, None]  # times an error of 0 it is 0
    allowed = np.where(gaps > 0, PROMISED * gaps, np.inf)
    for rows in blocks(np.flatnonzero(radii > 0), len(errors[0])):
        if moves.box is None:
            change = sizes[rows] * np.array([dual_norm(one, norm) for one in errors])
        else:
            x, (low, high) = dense(moves.x, rows), box_of(rows, moves.sides)
            reach = np.minimum(sizes[rows], np.maximum(x - low, high - x))
            change = reach @ errors.T
        change = change + np.take_along_axis(change, own[rows, None], axis=1)
        for i, k in np.argwhere(change > allowed[rows]):  # if all errors counted
            row = rows[i]
            error = errors[own[row]] + errors[k]
            hidden = np.where(np.abs(weights[own[row]] - weights[k]) <= error, error, 0)
            change = reach[i] @ hidden if moves.box else sizes[row, 0] * dual_norm(hidden, norm)
            if change > allowed[row, k]:
                raise ValueError(
                    f"sample {row}: its radius may depend on weights that are lost in the rounding "
                    "of the scores: pass (W, b), or a finite box"
                )


def _require_predicted(moves: Moves, gaps: np.ndarray, radii: np.ndarray) -> None:
    """Raise ValueError where the model's `predict` is seen not to follow its scores.

    A model may predict by a threshold of its own, or shift its scores before. Then a radius that
    follows from the scores is too large where a class other than the rival is favoured, and an
    infinite one may be finite. So samples are moved just less than their radii, or, where they are
    infinite, to the edge of the box, towards every class. For each pair of classes it is the sample
    that comes nearest, of those with a finite radius and of those without; at most 128 of either,
    or one per class.

    Args:
        gaps: (n, K) the lead of the own class over each other, or of each over the target.
    """
    if moves.model.predict is None:
        return
    n, count = gaps.shape
    costs = rivals.costs(moves.weights, moves.norm)[moves.own]
    finite = np.isfinite(radii)
    for k in range(count):
        pair = dict(rival=np.full(n, k))
        if moves.delta is not None:  # to the target, against the lead of class k over it
            pair = dict(own=np.full(n, k), rival=moves.own, delta=None)
        towards = replace(moves, **pair, gaps=gaps[:, k], moving=np.ones(n, bool))
        possible = (radii > 0) & (moves.own != k) & (costs[:, k] > 0) & (gaps[:, k] > 0)
        for among in (finite, ~finite):
            rows = np.flatnonzero(possible & among)
            left = gaps[rows, k] / costs[rows, k] - np.where(finite, radii, 0)[rows]
            rows = rows[np.argsort(left, kind="stable")]
            nearest = np.sort(np.unique(moves.own[rows], return_index=True)[1])
            for part in blocks(rows[nearest[: max(1, MOST_ASKED // count)]], len(moves.weights[0])):
                sizes = _sides(radii[part], moves.norm)[0]
                if among is not finite:  # towards a target, one class alone may be overtaken
                    sizes = _sides(towards.radii_of(part, gaps[part, k]), moves.norm)[1]
                moves.model.require_largest(towards.points(part, sizes), part)


def _require_predicted_short_of(moves: Moves, gaps: np.ndarray, solved: Callable) -> None:
    """The same where the target is only just behind.

    It leads all classes but one, over which it is a millionth short: for each target, and each
    class that the radius of some sample depends on. Where no perturbation is enough, the lead of
    one class over it, or the largest of all, is the least possible: for one sample per target.

    Args:
        gaps: (n, K) the lead of each class over the target.
        solved: from rows and what is added to their gaps to sizes and perturbations.
    """
    if moves.model.predict is None:
        return
    for k in range(gaps.shape[1]):
        change = moves.delta * (moves.weights[k] - moves.weights[moves.own])
        used = moves.moving & (gaps[:, k] + change.sum(axis=1) >= -BEYOND * moves.gaps)
        rows = np.flatnonzero(used)
        rows = rows[np.unique(moves.own[rows], return_index=True)[1]]
        short = np.full((len(rows), gaps.shape[1]), BEYOND)
        short[:, k] = -BEYOND
        sizes, delta = solved(rows, short * moves.gaps[rows, None])
        reached = np.isfinite(sizes)
        if reached.any():
            points = moves.placed(rows[reached], delta[reached])
            moves.model.require_largest(points, rows[reached])
    never = np.flatnonzero(np.isinf(moves.full))
    for row in never[np.unique(moves.own[never], return_index=True)[1]]:
        one, others = np.array([row]), np.flatnonzero(np.arange(gaps.shape[1]) != moves.own[row])
        a, g = moves.weights[others] - moves.weights[moves.own[row]], gaps[row, others]
        for ahead in (np.ones(len(others)), *np.eye(len(others))):
            delta = targets.least_lead(a, g, moves.x[one], box_of(one, moves.sides), ahead)
            if delta is not None:
                moves.model.require_largest(moves.placed(one, delta[None]), one)


def _largest(moves: Moves) -> float:
    """The largest sample, in units of the scale and in the norm of the ball."""
    largest = 0.0
    for part in blocks(np.arange(len(moves.own)), moves.form.x.shape[1]):
        x = dense(moves.x, part)
        exponent = exponent_of(x)  # so that no square overflows
        sizes = np.linalg.norm(np.ldexp(x, -exponent), ORDER[moves.norm], axis=1)
        largest = max(largest, np.ldexp(sizes.max(), exponent))
    return largest


def _towards(known: dict, scores: np.ndarray, target: np.ndarray, n_jobs: int | None) -> Found:
    """The perturbations after which the target has the largest score."""
    if known["form"].kind == "sparse":
        raise ValueError("a target needs a dense X: pass X.toarray()")
    if known["norm"] == "0":  # with several rivals, a matter of trying sets of features
        raise ValueError("a target is not taken with norm 0: use norm 1")
    rows = np.arange(len(target))
    gaps = scores - scores[rows, target][:, None]
    gaps[rows, target] = -np.inf
    common = dict(weights=known["weights"], norm=known["norm"])

    def solved(chosen, margin):
        per_sample = dict(gaps=gaps[chosen] + margin, target=target[chosen])
        sides = box_of(chosen, known["sides"])
        return _in_parallel(
            targets.nearest, n_jobs, per_sample | dict(x=known["x"][chosen]), sides, common
        )

    radii, delta = solved(rows, np.zeros(gaps.shape))
    moving, hardest = (radii > 0) & np.isfinite(radii), gaps.argmax(axis=1)
    tied = (radii == 0) & (gaps[rows, hardest] == 0)
    gap = gaps[rows, hardest]
    moves = Moves(
        **known, own=target, rival=hardest, gaps=gap, moving=moving, delta=delta, full=radii.copy()
    )
    _refuse_coarse(moves, scores, radii)
    _refuse_hidden(moves, gaps, radii)
    _require_predicted(moves, gaps, radii)
    _require_predicted_short_of(moves, gaps, solved)
    below = moves.points(rows, radii * (1 - BEYOND))
    rounding = 1e-12 * np.abs(gap)
    for part in blocks(np.flatnonzero(moving), len(moves.weights[0]), MOST_ASKED):
        rounding[part] += moves.rounding(part, radii[part]) + moves.rounding(part, 0 * radii[part])
        early = part[~(moves.leads(part, below[part], rounding[part]) <= rounding[part])]
        if len(early):
            raise ValueError(_SURPRISE.format(early[0], "at its target", "below"))
    left = np.flatnonzero(moving)  # not seen at the target yet
    for margin in (BEYOND * gap, BEYOND * gap + rounding):
        if not len(left):
            break
        sizes, further = solved(left, margin[left, None])
        enough = np.isfinite(sizes)
        moves.full[left[enough]], delta[left[enough]] = sizes[enough], further[enough]
        tied[left] = ~enough
        left = left[~(moves.leads(left, moves.points(left, moves.full[left])) > 0)]
    missed = left[~tied[left]]
    if len(missed):
        raise ValueError(_SURPRISE.format(missed[0], "not at its target", "above"))
    tied[moving & ~np.isin(rows, left) & (radii > 0)] = False
    never = np.where(np.isinf(radii), hardest, target)
    return Found(radii, moves.model.classes[never], tied, moves, moves.full)


def _in_parallel(work, n_jobs: int | None, per_sample: dict, box, common: dict) -> tuple:
    """What `work` returns for all samples, each a tuple of arrays; in shares if so many jobs.

    Without n_jobs, joblib is asked only where it is imported already: a caller that has set a
    `joblib.parallel_config` has done that.
    """
    if n_jobs is not None and (not isinstance(n_jobs, numbers.Integral) or n_jobs == 0):
        raise ValueError(f"n_jobs needs a whole number other than 0, not {shown(n_jobs)}")
    if n_jobs == 1 or (n_jobs is None and "joblib" not in sys.modules):
        return work(**per_sample, box=box, **common)
    try:
        import joblib
    except ModuleNotFoundError:
        raise ValueError("n_jobs needs joblib: type pip install joblib, or leave it out") from None
    count = joblib.effective_n_jobs(n_jobs)
    if count == 1:
        return work(**per_sample, box=box, **common)
    shares = np.array_split(np.arange(per_sample["x"].shape[0]), count)
    tasks = (
        joblib.delayed(work)(
            **{name: values[rows] for name, values in per_sample.items()},
            box=box_of(rows, box),
            **common,
        )
        for rows in shares
        if len(rows)
    )
    found = joblib.Parallel(n_jobs=n_jobs)(tasks)
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))
