"""What counts as a linear model, and how its weights are obtained.

A model gives one linear score per class. It may be a pair (W, b), a scikit-learn estimator, a
Keras or a PyTorch model, or a function from samples to scores. The weights of an estimator, and of
the affine steps before it, are read from its attributes; those of a network are its Jacobian; those
of a function are differences of its scores. They are then compared with the scores of the model.
Shapes: x (n, d), W (K, d), b and scores (K,) for each of K classes.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear.attacks import refusals
from advlinear.balls import Box, blocks, box_of, shown
from advlinear.samples import (
    MOST,
    Form,
    array,
    dense,
    real,
    require_finite,
    weights_in_order,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LINEAR = 1e-5  # the largest relative error of scores that count as linear
ROUNDING = 2.0**-50  # the least relative error that is assumed of a score
NOT_LARGEST = (
    "the model does not predict the class of its largest score: pass (W, b) of the scores that it "
    "compares; if it has a threshold, subtract this from b"
)
PROBE = 2.0**20  # to find its weight, a feature is first moved by so many times the largest number


@dataclass(frozen=True)
class Model:
    """A linear model, as the attack needs it.

    Attributes:
        scores: from points (m, d) and their rows in X (m,) to the scores (m, K) that the model
            itself gives, K >= 2. A single score f becomes (-f / 2, f / 2), so that the margins of
            the two classes over each other are -f and f.
        predict: from the same to the index (m,) of the class predicted; None where only scores are.
        classes: (K,) the labels, in the order of the scores.
        weights: (K, d). Only their differences count: a multiple of (1, ..., 1) may be added to
            each column, and so may a function of x to all scores.
        score_error: the largest relative error of the scores found: of the difference between a
            score and that of the weights, over the sum of the |terms| of the score.
        weight_error: (K, d) bounds of the errors of the weights, or None where they were read.
    """

    scores: Callable[[Any, np.ndarray], np.ndarray]
    predict: Callable[[Any, np.ndarray], np.ndarray] | None
    classes: np.ndarray
    weights: np.ndarray
    score_error: float
    weight_error: np.ndarray | None

    def error(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """A bound (m, K) of the errors of scores at points: four times the relative error found."""
        terms = np.abs(centred(scores)) + np.abs(points) @ np.abs(self.weights).T
        return 4 * self.score_error * terms

    def require_largest(self, points: np.ndarray, rows: np.ndarray) -> None:
        """Raise ValueError where the model predicts a class whose score is not the largest.

        A score that is smaller by no more than rounding counts as the largest.
        """
        if self.predict is None:
            return
        scores = self.scores(points, rows)
        behind = scores.max(axis=1) - scores[np.arange(len(rows)), self.predict(points, rows)]
        if (behind > 2 * self.error(points, scores).max(axis=1)).any():
            raise ValueError(NOT_LARGEST)


def read(
    model: Any, form: Form, y: ArrayLike | None, frozen: np.ndarray, box: Box | None
) -> tuple[Model, np.ndarray, np.ndarray]:
    """The model, the class (n,) of each sample as an index, and the scores (n, K) of X.

    Args:
        model: as of `attack`.
        form: the samples.
        y: labels (n,), or None: then the class of each sample is that of its largest score.
        frozen: (d,) whether a feature never moves.
        box: None, or as `samples.bounds` returns it: the model need be linear only in the box.

    Raises:
        ValueError: the model or y is not as described in `attack`.
    """
    ask, given = scorer(model, form)
    n = form.x.shape[0]
    scores = ask(form.x, np.arange(n))
    require_finite(scores, "what the model returns")
    classes, own = labels(model, scores.shape[1], y, n)
    own = scores.argmax(axis=1) if own is None else own
    if given is not None:
        return Model(ask, None, classes, given, ROUNDING, None), own, scores
    predict = None
    if hasattr(model, "predict") and (_scores_of_estimator(model) is not None):
        predict = lambda points, rows: labels_to_indices(  # noqa: E731
            _call(model.predict, form(points, rows)), classes, "what the model predicts"
        )
        best, second = np.sort(scores, axis=1)[:, :-3:-1].T
        predicted = predict(form.x, np.arange(n))
        if (predicted != scores.argmax(axis=1))[best > second].any():
            raise ValueError(NOT_LARGEST)
    away = ask if box is not None else _advising_a_box(ask)
    domain = Domain.of(form, frozen, box)
    weights, score_error, weight_error = weights_of(model, away, domain, scores)
    return Model(ask, predict, classes, weights, score_error, weight_error), own, scores


# --- scores --------------------------------------------------------------------------------------


def scorer(model: Any, form: Form) -> tuple[Callable, np.ndarray | None]:
    """`Model.scores`, and the weights (K, d) if the model is (W, b)."""
    weights = None
    refusals.by_name(model)
    model = _found(model, form) if _is_minimum(model) else model
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if isinstance(model, tuple):
        W, b = given(model, form)
        weights = W if W.ndim == 2 else np.stack([-W / 2, W / 2])
        raw = lambda points, rows: points @ W.T + b  # noqa: E731
    elif isinstance(model, list):
        raise ValueError(
            "a list is no model: make it a tuple, (W, b) or (w, b); of Keras's get_weights() pass "
            "(kernel.T, bias), as Keras keeps (d, K)"
        )
    elif hasattr(model, "__array__") or hasattr(model, "tocsr"):
        raise ValueError("weights alone are no model: pass (W, b) or (w, b), with a bias b")
    elif keras is not None and isinstance(model, keras.Model):
        raw = lambda points, rows: _keras_scores(model, form(points, rows))  # noqa: E731
    elif torch is not None and isinstance(model, torch.nn.Module):
        _require_evaluating(model)
        raw = lambda points, rows: _torch_scores(model, form(points, rows))  # noqa: E731
    else:
        function = _scores_of_estimator(model) or (model if callable(model) else None)
        if function is None:
            raise ValueError(
                "model needs a decision_function or predict_joint_log_proba, or be a function, "
                f"(W, b), or a Keras or PyTorch model: {type(model).__name__} is none of these"
            )
        raw = lambda points, rows: function(form(points, rows))  # noqa: E731

    def ask(points: Any, rows: np.ndarray) -> np.ndarray:
        scores = _call(raw, points, rows)
        refusals.by_scores(scores)
        scores = real(scores, "what the model returns")
        if scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if scores.shape[:1] != points.shape[:1] or scores.ndim > 2:
            raise ValueError(f"{points.shape[0]} samples have scores of shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise ValueError("the model gives NaN or infinite scores")
        return scores if scores.ndim == 2 else np.stack([-scores / 2, scores / 2], axis=1)

    return ask, weights


def _is_minimum(model: Any) -> bool:
    """Whether it is a `Minimum`, or a `Best`, which has no classes."""
    return hasattr(model, "primal") and hasattr(model, "w") and hasattr(model, "b")


def _found(model: Any, form: Form) -> tuple:
    """(w, b) of a `Minimum` or a `Best`, w with names where both it and X have some."""
    names, w = getattr(model, "names", None), model.w
    if names is not None and form.columns is not None:
        pandas = sys.modules["pandas"]
        several = np.ndim(w) == 2
        w = pandas.DataFrame(w, columns=names) if several else pandas.Series(w, names)
    return w, model.b


def given(model: tuple, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """W (K, d) and b (K,), or w (d,) and b (), of a pair; those of pandas by name.

    Raises:
        ValueError: they are not that.
    """
    if len(model) != 2:
        raise ValueError(f"(W, b) needs two arrays of numbers, not {len(model)}")
    d = form.x.shape[1]
    pair = weights_in_order(*model, form.columns)
    W, b = (real(part, "(W, b)", copy=True) for part in pair)
    W, b = (W[0], b.reshape(-1)[0]) if W.ndim == 2 and len(W) == 1 and b.size == 1 else (W, b)
    if W.shape[-1:] != (d,) or b.shape != W.shape[:-1] or W.ndim > 2:
        transposed = W.ndim == 2 and len(W) == d and b.shape == W.shape[1:]
        raise ValueError(
            f"(W, b) needs shapes (K, {d}) and (K,), or ({d},) and a number, not {W.shape} and "
            f"{b.shape}" + transposed * ": Keras keeps (d, K), pass W.T"
        )
    for part in (W, b):
        require_finite(part, "(W, b)")
    return W, b


def _scores_of_estimator(model: Any) -> Callable | None:
    """What gives an estimator's scores; None if it has none per class."""
    for name in ("decision_function", "predict_joint_log_proba"):
        if hasattr(model, name):
            return getattr(model, name)
    return None


def _advising_a_box(ask: Callable) -> Callable:
    """The same function for points away from X, whose message for no scores adds what to do.

    An example are log-odds, which are infinite where a probability is 1 in float64.
    """

    def scores(points: Any, rows: np.ndarray) -> np.ndarray:
        try:
            return ask(points, rows)
        except ValueError as error:
            said = str(error).rstrip(".")
            raise ValueError(f"{said}, away from X: give a box that features stay in") from None

    return scores


def _call(function: Callable, *arguments: Any) -> Any:
    """What a function of another library returns; if it raises, its message in a ValueError."""
    try:
        return function(*arguments)
    except Exception as error:  # it is not fitted, or has other features
        lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
        said = [line.strip() for line in lines if line.strip()]
        if said and said[0].startswith("Exception encountered when calling"):  # Keras: where; why
            said = said[1:] or said
        reason = said[0] if said else type(error).__name__
        raise ValueError(f"the model gives no scores: {reason}") from None


def _keras_scores(model: Any, points: np.ndarray) -> np.ndarray:
    scores = model(_keras_input(model, points), training=False)  # as `predict` of Keras does
    return sys.modules["keras"].ops.convert_to_numpy(scores)


def _keras_input(model: Any, points: np.ndarray) -> np.ndarray:
    """The points in the model's own precision, and in its shape if they are rows of numbers."""
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and np.prod(shape[1:], dtype=object) == points[0].size:
        points = points.reshape(-1, *shape[1:])
    return points.astype(model.compute_dtype if model.compute_dtype != "bfloat16" else "float32")


def _require_evaluating(model: Any) -> None:
    """Raise ValueError where a module is in training mode, in which a call may change it.

    The types listed below do the same in both modes.
    """
    nn = sys.modules["torch"].nn
    same = (
        *(nn.Sequential, nn.Flatten, nn.Unflatten, nn.Identity, nn.Linear),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    )
    for module in model.modules():
        if module.training and type(module) not in same:
            raise ValueError(
                f"the model is in training mode ({type(module).__name__}), in which a call may "
                "change it: call model.eval()"
            )


def _torch_scores(model: Any, points: np.ndarray) -> np.ndarray:
    with sys.modules["torch"].no_grad():
        return model(_torch_input(model, points)).double().cpu().numpy()


def _torch_input(model: Any, points: np.ndarray) -> Any:
    """The points as a tensor of the precision, and on the device, of the model's weights."""
    weights = itertools.chain(model.parameters(), model.buffers())
    first = next((one for one in weights if one.is_floating_point()), None)
    known = {} if first is None else dict(dtype=first.dtype, device=first.device)
    return sys.modules["torch"].as_tensor(np.ascontiguousarray(points), **known)


# --- labels --------------------------------------------------------------------------------------


def labels(
    model: Any, count: int, y: ArrayLike | None, n: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The classes (K,) in the order of the scores, and the index (n,) of each sample's own."""
    y = None if y is None else array(y, "y")
    if y is not None and y.shape != (n,):
        hint = ""
        if y.shape == (n, 1):
            hint = ": pass y.ravel()"
        elif y.ndim == 2 and len(y) == n:
            hint = ": if they are one-hot, pass y.argmax(axis=1)"
            if ((y != 0).sum(axis=1) != 1).any():
                hint = ": if a sample has several labels, attack a classifier of each label k "
                hint += "with y[:, k]"
        raise ValueError(f"y needs shape ({n},), one label per sample, not {y.shape}{hint}")
    classes, hint = getattr(model, "classes" if _is_minimum(model) else "classes_", None), ""
    if classes is None:
        if count == 2:
            hint = " (the model gives the scores of two classes; labels are no scores)"
        if _is_minimum(model):
            hint = " (a Best has none of its own: pass y == path.classes[1])"
        negative = hasattr(model, "decision_function")  # an outlier detector: +1 is an inlier
        negative |= count == 2 and y is not None and bool((y == -1).any())
        classes = np.array([-1, 1]) if negative else np.arange(count)
    if len(classes) != count:
        raise ValueError(f"the model has {len(classes)} classes, but {count} scores per sample")
    classes = np.array(classes)  # a copy, as of all that is kept
    return classes, None if y is None else labels_to_indices(y, classes, hint=hint)


def labels_to_indices(
    y: np.ndarray, classes: np.ndarray, what: str = "y", hint: str = ""
) -> np.ndarray:
    """The place (n,) of each label among the classes. Raises ValueError: it is none of them."""
    if np.ndim(y) != 1:
        raise ValueError(f"{what} has shape {np.shape(y)}: several labels per sample are not taken")
    matches = np.asarray(y)[:, None] == classes
    known = np.broadcast_to(matches, (len(y), len(classes))).any(axis=1)
    if not known.all():
        label, known = shown(y[~known][0]), classes.tolist()
        raise ValueError(f"label {label} in {what} is none of the classes {known}{hint}")
    return matches.argmax(axis=1)


# --- weights -------------------------------------------------------------------------------------


def centred(scores: np.ndarray) -> np.ndarray:
    """Scores (m, K) less their mean over the classes, which does not affect predictions."""
    return scores - scores.mean(axis=1, keepdims=True)


@dataclass(frozen=True)
class Domain:
    """Where the model need be linear: about the samples, and in the box.

    Attributes:
        form: the samples; box: None or two sides.
        frozen: (d,) whether a feature never moves.
        base: (d,) the mean sample, in the box, with the frozen features of the first sample.
        span: (d,) the range of each feature; size: the largest number in X.
    """

    form: Form
    frozen: np.ndarray
    box: Box | None
    base: np.ndarray
    span: np.ndarray
    size: float

    @classmethod
    def of(cls, form: Form, frozen: np.ndarray, box: Box | None) -> Domain:
        x = form.x
        if form.kind == "sparse":
            base = np.asarray(x.mean(axis=0)).ravel()
            span = (x.max(axis=0) - x.min(axis=0)).toarray().ravel()
        else:
            base, span = x.mean(axis=0), np.ptp(x, axis=0)
        base = np.where(frozen, dense(x, np.arange(1))[0], base)
        if box is not None:
            base = np.clip(base, *box_of(0, box))
        size = abs(x).max() or 1e3
        return cls(form, frozen, box, base, np.where(span > 0, span, 1e-3 * size), size)


def weights_of(
    model: Any, ask: Callable, domain: Domain, scores: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Weights (K, d), `Model.score_error` and `Model.weight_error`.

    There are up to three candidates: the weights that are read from the model, the differences of
    its scores at points far apart, and those at points within the data or the box. The first that
    fit the scores are taken.

    Raises:
        ValueError: none of them fit, to a relative error of 1e-5; or the model gives no scores.
    """
    for weights, steps in _candidates(model, ask, domain, scores.shape[1]):
        error = max(_mismatch(ask, domain, weights, scores), ROUNDING)
        if error <= LINEAR and steps is None:
            return weights, error, None
        if error <= LINEAR:  # a weight is a difference of two scores over the step
            offset = np.abs(centred(ask(domain.base[None], np.zeros(1, int))))[0]
            offset = offset + np.abs(weights) @ np.abs(domain.base)
            moved = ~domain.frozen & (steps > 0)
            inverse = np.divide(1, steps, out=np.zeros(len(steps)), where=moved)
            return weights, error, 2 * error * (np.abs(weights) + np.outer(offset, inverse))
    hint, looks = "", _looks_like(scores)
    if looks:
        hint = f" (they look like {looks})"
    elif domain.form.kind == "frame":
        hint = " (a column of codes is no number: make it a category, or freeze it with scale 0)"
    raise ValueError(f"the model is not linear: its scores are not X @ W.T + b{hint}")


def _looks_like(scores: np.ndarray) -> str:
    """What scores (n, K) that are not linear may be, and what to pass instead; else ""."""
    single = 2 * scores[:, 1]  # see `Model.scores`
    if (scores[:, 0] == -scores[:, 1]).all():
        if (single == np.rint(single)).all():
            return "labels: pass the model, not its predict"
        sums_to_1 = (single <= 1).all()
    else:
        single, sums_to_1 = scores, (np.abs(scores.sum(axis=1) - 1) < 1e-5).all()
    return "probabilities: pass the logits" if (single >= 0).all() and sums_to_1 else ""


def _candidates(model: Any, ask: Callable, domain: Domain, count: int) -> Iterator[tuple]:
    """Weights (K, d), and the steps (d,) that they came from, or None for those that were read."""
    base, size, frozen = domain.base, domain.size, domain.frozen
    known = _known(model, domain.form, base)
    if known is not None and len(known) == 1:
        known = np.concatenate([-known / 2, known / 2])
    if known is not None and known.shape == (count, len(base)):
        yield known, None
    large = np.full(len(base), np.exp2(np.ceil(np.log2(size))) * PROBE)
    within = np.maximum(domain.span, 1e-3 * size)  # no smaller, against rounding
    if domain.box is not None:
        low, high = box_of(0, domain.box)
        up, down = np.minimum(large, high - base), np.minimum(large, base - low)
        within = np.where(up >= down, up, -down)
    for steps in (large, within):
        try:
            yield _probed(ask, base, steps, frozen), np.abs(steps)
        except ValueError:  # the model has no scores so far away
            if steps is within:
                raise


def _probed(ask: Callable, base: np.ndarray, steps: np.ndarray, frozen: np.ndarray) -> np.ndarray:
    """W (K, d), from scores with one feature moved at a time."""
    offset = ask(base[None], np.zeros(1, int))[0]
    weights = np.zeros((len(offset), len(base)))
    for columns in blocks(np.flatnonzero(~frozen & (steps != 0)), len(base)):
        points = np.tile(base, (len(columns), 1))
        here = np.arange(len(columns)), columns
        points[here] += steps[columns]
        moved = points[here] - base[columns]
        weights[:, columns] = (ask(points, np.zeros(len(columns), int)) - offset).T / moved
    return weights


def _mismatch(ask: Callable, domain: Domain, weights: np.ndarray, scores: np.ndarray) -> float:
    """The largest relative error of the scores that follow from the weights.

    It is looked for on X, where the model gives the scores (n, K), and at 30 points up to ten times
    as far from `base` as X.
    """
    form, d = domain.form, domain.form.x.shape[1]
    n, found = form.x.shape[0], 0.0
    whole = form.kind == "sparse" and not domain.frozen.any()
    for rows in [np.arange(n)] if whole else blocks(np.arange(n), d, MOST):
        points = form.x if whole else dense(form.x, rows)
        found = max(found, _relative_error(ask, domain, weights, points, rows, scores[rows]))
    rows = np.arange(30) % n
    random = np.random.default_rng(0).uniform(-1, 1, (3, 10, d))
    far = domain.base + (random * domain.span * np.array([0.1, 1, 10])[:, None, None]).reshape(
        30, d
    )
    far = np.where(domain.frozen, dense(form.x, rows), far)
    if domain.box is not None:
        far = np.clip(far, *box_of(rows, domain.box))
    return max(found, _relative_error(ask, domain, weights, far, rows, ask(far, rows)))


def _relative_error(
    ask: Callable,
    domain: Domain,
    weights: np.ndarray,
    points: Any,
    rows: np.ndarray,
    scores: np.ndarray,
) -> float:
    """The largest error of the weights' scores at points (m, d) of some rows, over their |terms|.

    Compared are the changes of the scores from `base` to the points: the bias is not known. Where a
    feature is frozen, or X is a DataFrame, whose other columns count too, each row has a base of
    its own.
    """
    form, base = domain.form, domain.base
    reference = base[None]
    if domain.frozen.any() or form.kind == "frame":
        reference = np.where(domain.frozen, dense(form.x, rows), base)
    start = ask(reference, rows[: len(reference)])
    change = points @ weights.T - reference @ weights.T
    error = np.abs(centred(scores - start - change))
    terms = np.abs(centred(scores)) + abs(points) @ np.abs(weights).T
    terms = terms + np.abs(centred(start)) + np.abs(reference) @ np.abs(weights).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(error > 0, error / terms, 0).max())


def _known(model: Any, form: Form, base: np.ndarray) -> np.ndarray | None:
    """The weights (K, d) that can be read: those of an estimator, the Jacobian of a network."""
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if keras is not None and isinstance(model, keras.Model):
        return _call(_keras_jacobian, model, form(base[None], np.zeros(1, int)))
    if torch is not None and isinstance(model, torch.nn.Module):
        return _call(_torch_jacobian, model, form(base[None], np.zeros(1, int)))
    return _coefficients(model)


def _keras_jacobian(model: Any, point: np.ndarray) -> np.ndarray | None:
    """(K, d), where Keras runs on TensorFlow; None elsewhere."""
    if sys.modules["keras"].backend.backend() != "tensorflow":
        return None
    tf = sys.modules["tensorflow"]
    tensor = tf.constant(_keras_input(model, point))
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        scores = model(tensor, training=False)
    return tape.jacobian(scores, tensor).numpy().astype(np.float64).reshape(-1, tf.size(tensor))


def _torch_jacobian(model: Any, point: np.ndarray) -> np.ndarray:
    """(K, d)."""
    tensor = _torch_input(model, point)
    jacobian = sys.modules["torch"].autograd.functional.jacobian(model, tensor)
    return jacobian.double().cpu().numpy().reshape(-1, tensor.numel())


def _coefficients(model: Any) -> np.ndarray | None:
    """W (K, d) or (1, d) of an estimator, through the affine steps of a pipeline; else None."""
    if hasattr(model, "best_estimator_"):
        return _coefficients(model.best_estimator_)
    if hasattr(model, "steps"):
        weights = _coefficients(model.steps[-1][1])
        for _, before in reversed(model.steps[:-1]):
            weights = None if weights is None else _before(before, weights)
        return weights
    if type(model).__name__ == "OneVsRestClassifier":
        each = [_coefficients(one) for one in getattr(model, "estimators_", ())]
        known = [one for one in each if one is not None and len(one) == 1]
        return np.concatenate(known) if known and len(known) == len(each) else None
    for name in ("coef_", "feature_log_prob_"):
        weights = getattr(model, name, None)
        if weights is not None:
            weights = weights.toarray() if hasattr(weights, "toarray") else np.asarray(weights)
            return np.atleast_2d(weights).astype(np.float64)
    return None


def _before(step: Any, weights: np.ndarray) -> np.ndarray | None:
    """The weights (K, d) before an affine step of a pipeline, from those after it, or None.

    A step that is not affine after all, as it clips, shows in the scores.
    """
    kind = type(step).__name__
    if step in (None, "passthrough"):
        return weights
    if kind in ("StandardScaler", "MaxAbsScaler", "RobustScaler"):
        return weights if step.scale_ is None else weights / step.scale_
    if kind == "MinMaxScaler":
        return weights * step.scale_
    if kind == "PCA":
        weights = weights / np.sqrt(step.explained_variance_) if step.whiten else weights
        return weights @ step.components_
    if kind == "TruncatedSVD":
        return weights @ step.components_
    if hasattr(step, "get_support"):
        every = np.zeros((len(weights), step.n_features_in_))
        every[:, step.get_support()] = weights
        return every
    return None
