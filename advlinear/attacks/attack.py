"""The exact attack on a linear model of any number of classes. NumPy alone, but for what is named.

`attack` reads the model (models.py) and the samples (advlinear/samples.py), looks for the nearest
rival of each sample (rivals.py) or for the way to a target (targets.py), and evaluates the model
itself on both sides of each radius (checks.py).
"""

from __future__ import annotations

import functools
import numbers
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

from advlinear import samples
from advlinear.attacks import checks, models, rivals, targets
from advlinear.attacks.comparison import Comparison, compare
from advlinear.attacks.moves import Moves, TargetMoves, Task
from advlinear.balls import ORDER, Box, ball, box_of, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, repr=False, eq=False)
class Found:
    """The smallest perturbations that make each of n samples wrong; see `attack`.

    With a target: the smallest after which the model predicts the target.

    Attributes:
        radii: (n,) their sizes: 0 where the model is wrong already, inf where nothing makes it so.
        rival: (n,) the class that the sample is then taken for; its own where the radius is inf.
            (For the norm "0" one that then overtakes its own.)
        tied: (n,) True where even the whole box only makes the rival's score equal. Then `radii`
            counts it as an error, and `predict` may still be right after `perturbed()`.

    Example, of a model whose score is x1 - 2 x2:

        >>> import advlinear
        >>> found = advlinear.attack(([1.0, -2.0], 0.0), [[3.0, 0.0], [0.0, 3.0]], [1, 0])
        >>> found.curve([0.5, 1.5])  # of the radii 1 and 2
        array([1. , 0.5])
        >>> found.perturbed(1.0)
        array([[2., 1.],
               [1., 2.]])
    """

    radii: np.ndarray
    rival: np.ndarray
    tied: np.ndarray
    _moves: Moves
    _beyond: np.ndarray  # (n,) sizes at which the model itself has been seen to be wrong

    def __repr__(self) -> str:
        wrong, never = np.count_nonzero(self.radii == 0), np.count_nonzero(np.isinf(self.radii))
        box = "no" if self._moves.task.box is None else "with"
        return (
            f"Found({len(self.radii)} samples, norm {self._moves.task.norm}, {box} "
            f"box: {wrong} wrong already, {never} that nothing flips, median radius "
            f"{np.median(self.radii):.4g})"
        )

    def curve(self, eps: ArrayLike, budget: str = "each") -> np.ndarray:
        """Accuracy under the worst case at each radius: the share of samples that stay right.

        Args:
            eps: one radius, or several of any shape; each is that of all n samples. For a radius
                per sample, eps (n,), take (found.radii > eps).mean().
            budget: "each": every sample moves by at most eps, so that those of radii > eps stay
                right. "mean": the mean of all n sizes is at most eps. Samples move as a whole. The
                worst case makes those of the smallest radii wrong, as many as have a sum of radii
                of at most n eps. Sums are compared to 1e-12, as radii are no more exact.

        Returns:
            An accuracy per radius, of the shape of eps.

        Raises:
            ValueError: eps holds what is no number of at least 0; there is no such budget.
        """
        samples.require_budget(budget)
        sizes, spent = samples.real(eps, "eps"), np.sort(self.radii)
        if not (sizes >= 0).all():
            wrong = shown(sizes[~(sizes >= 0)][0])
            raise ValueError(f"eps needs numbers of at least 0, not {wrong}")
        if budget == "mean":
            spent = np.cumsum(spent) / len(spent) * (1 - 1e-12)
        withstand = len(spent) - np.searchsorted(spent, sizes, side="right")
        return withstand / len(spent)

    def perturbed(self, eps: ArrayLike | None = None, step: float | None = None) -> Any:
        """The samples moved towards their rivals; by default the nearest adversarial examples.

        They move by a millionth more than their radii, or by `eps`; or by the smallest whole
        multiple of `step` that is enough. Samples of radius 0 or inf do not move, and none leaves
        the box.

        Args:
            eps: one size, or one per sample (n,). (Towards a target no sample moves further than
                it has to.)
            step: the distance of neighbouring values, such as 1/255 of images with 256 levels. In
                the L-infinity and the L1 ball no smaller perturbation in whole steps is enough; in
                the L2 ball each feature takes the next whole step after the nearest example.

        Returns:
            All n samples, in the form that X had: a float64 array of its shape, a SciPy CSR matrix
            or array, or a DataFrame.

        Raises:
            ValueError: eps is negative, not finite, or not one or n numbers; step is not above 0,
                comes with eps or a target; X or the high edge of the box is off the grid, which
                begins at the low edge, or at 0 without one, by more than 1e-6 of a step and more
                than its type rounds; or the model itself does not take the sample for another class
                at a whole step.
        """
        moves = self._moves
        if step is not None:
            if eps is not None:
                raise ValueError("perturbed takes eps or step, not both")
            if isinstance(moves, TargetMoves):
                raise ValueError("perturbed takes a step only where attack had no target")
            if moves.task.norm == "0":
                raise ValueError("perturbed takes a step with norm inf, 2 or 1: pass norm 1")
            return moves.task.restored(moves.on_grid(step, self.radii, self.tied))
        sizes = self._beyond if eps is None else self._sizes(eps)
        return moves.task.restored(lambda rows: moves.points(rows, sizes[rows]))

    def compare(self, points: Any) -> Comparison:
        """How far the adversarial examples of another attack are from the smallest ones.

        A point counts as adversarial by the scores of the model itself, and as inside the box with
        the tolerance that X has, or that its own type would have: 4.8e-7 of the width for float32.

        Args:
            points: for each of the n samples the one that the other attack found, in the form that
                X had: an array or tensor of its shape, a sparse matrix, or a DataFrame with its
                columns and index. Where an attack finds nothing, give the sample itself.

        Returns:
            A `Comparison`: whether each point is `adversarial` and `inside`, its `size`, and its
            `excess` over the radius.

        Raises:
            ValueError: points are not as described, or a column of a DataFrame that is not attacked
                differs; or a point is adversarial, inside, and smaller than the radius by more than
                a millionth and by more than the rounding of the model's scores can explain. That
                would refute the radius.
        """
        return compare(self._moves, self.radii, points)

    def _sizes(self, eps: ArrayLike) -> np.ndarray:
        """eps as a size (n,) of each sample. Raises ValueError: see `perturbed`."""
        given, n = samples.real(eps, "eps"), len(self.radii)
        try:
            sizes = np.broadcast_to(given, n)
        except ValueError:
            raise ValueError(f"eps needs a number, or {n}: one per sample") from None
        moving = sizes[self._moves.moving] if given.ndim else sizes
        right = (moving >= 0) & (moving < np.inf)
        if not right.all():
            raise ValueError(f"eps must be finite and at least 0, not {shown(moving[~right][0])}")
        return sizes


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
            a `Minimum`, with its classes, or a `Best`, which counts as (w, b). Where X is a
            DataFrame, a Series w, the columns of a DataFrame W, and the weights of a `Minimum` that
            was found on a DataFrame are read by the names of its columns.
        X: samples (n, d), or (n, ...) as the model takes them; a sparse matrix; or a DataFrame,
            whose d numeric columns are attacked.
        y: labels (n,), by place and not by index: those of model.classes_, else 0 to K - 1; with a
            single score 0 and 1, or -1 and +1. A tie is an error. With a target, y does not change
            the result, and may be None.
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

    Returns:
        A `Found`: its `radii` (n,), `rival` (n,) and `tied` (n,), its methods `curve`, the accuracy
        at any radius, and `perturbed`, the moved samples.

    Raises:
        ValueError: an argument is not as described; the scores of the model, on X or up to ten
            times as far from it, differ from X @ W.T + b by more than 1e-5 relative to
            sum_j |W_kj x_j|; rounding
            in its scores may change a radius by more than 1e-4; or the model is not right just
            below a radius and wrong just above it.
        TypeError: eps is passed, which `Found.curve` and `Found.perturbed` take.

    Example, of a model whose score is x1 - 2 x2, so that a radius is the |score| over 1 + 2:

        >>> import advlinear
        >>> found = advlinear.attack(([1.0, -2.0], 0.0), [[3.0, 0.0], [0.0, 3.0]], [1, 0])
        >>> found.radii
        array([1., 2.])
        >>> found.rival
        array([0, 1])
    """
    if y is None and target is None:
        raise ValueError("y is None: pass the labels, or a target")
    norm, form = ball(norm, (*ORDER, "0")), samples.Form(X)
    scale = samples.units(scale, form)
    box = None if box is None else samples.bounds(box, form)
    frozen = np.zeros(form.x.shape[1], bool) if scale is None else scale == 0
    linear, own, scores = models.read(model, form, y, frozen, box)
    task = Task.of(linear, form, box, norm, scale)
    if target is None:
        return _away(task, own, scores, n_jobs)
    return _towards(task, _targets(target, linear, len(own)), scores, n_jobs)


def _targets(target: Any, model: models.Model, n: int) -> np.ndarray:
    """The index (n,) of the class that each sample is to be taken for."""
    target = samples.array(target, "target")
    if target.shape not in ((), (n,)):
        raise ValueError(f"target needs a class, or one per sample ({n},), not {target.shape}")
    return models.labels_to_indices(np.broadcast_to(target, n), model.classes, "target")


def _away(task: Task, own: np.ndarray, scores: np.ndarray, n_jobs: int | None) -> Found:
    """The perturbations after which another class than the own one has the largest score.

    Args:
        own: (n,) the class of each sample, as an index; scores: (n, K) of X.
    """
    rows = np.arange(len(own))
    margins = scores[rows, own][:, None] - scores  # (n, K) over each other class
    margins[rows, own] = np.inf
    common = dict(weights=task.weights, norm=task.norm)
    per_sample = dict(margins=margins, own=own, x=task.x)
    radii, rival = _in_parallel(rivals.nearest, n_jobs, per_sample, task.sides, common)
    moving = (radii > 0) & np.isfinite(radii)
    moves = Moves(task, own, rival, np.where(moving, margins[rows, rival], 0), moving)
    checks.refuse_coarse(moves, scores, radii)
    checks.refuse_hidden(moves, margins, radii)
    checks.require_predicted(moves, margins, radii)
    beyond, tied = checks.confirmed(moves, scores, radii)
    return Found(radii, task.model.classes[rival], tied, moves, beyond)


def _towards(task: Task, target: np.ndarray, scores: np.ndarray, n_jobs: int | None) -> Found:
    """The perturbations after which the target, an index (n,), has the largest score."""
    if task.form.kind == "sparse":
        raise ValueError("a target needs a dense X: pass X.toarray()")
    if task.norm == "0":  # with several rivals, a matter of trying sets of features
        raise ValueError("a target is not taken with norm 0: use norm 1")
    rows = np.arange(len(target))
    margins = scores - scores[rows, target][:, None]  # (n, K) of each class over the target
    margins[rows, target] = -np.inf
    common = dict(weights=task.weights, norm=task.norm)

    def solve(rows: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and perturbations of some rows, with more (m, K) added to their margins."""
        per_sample = dict(margins=margins[rows] + more, target=target[rows], x=task.x[rows])
        sides = box_of(rows, task.sides)
        sizes, delta = _in_parallel(targets.nearest, n_jobs, per_sample, sides, common)
        return sizes, delta

    radii, delta = solve(rows, np.zeros(margins.shape))
    moving, hardest = (radii > 0) & np.isfinite(radii), margins.argmax(axis=1)
    moves = TargetMoves(
        task, target, hardest, margins[rows, hardest], moving, delta, full=radii.copy()
    )
    checks.refuse_coarse(moves, scores, radii)
    checks.refuse_hidden(moves, margins, radii)
    checks.require_predicted(moves, margins, radii)
    checks.require_predicted_short_of(moves, margins, solve)
    moves, tied = checks.confirmed_at_target(moves, radii, solve)
    never = np.where(np.isinf(radii), hardest, target)
    return Found(radii, task.model.classes[never], tied, moves, moves.full)


def _in_parallel(
    work: Callable[..., tuple[np.ndarray, ...]],
    n_jobs: int | None,
    per_sample: dict[str, Any],
    box: Box | None,
    common: dict[str, Any],
) -> tuple[np.ndarray, ...]:
    """What `work` returns for all samples, a tuple of arrays; computed in shares, one per process.

    Without n_jobs, joblib decides only if it is imported already: a caller that has set a
    `joblib.parallel_config` has imported it.

    Args:
        work: takes the arguments per_sample, box and common by name.
        per_sample: arguments of which each process gets its share, such as `x`.
        box: None or two sides; common: arguments that are the same for all.
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
