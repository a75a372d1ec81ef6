"""What counts as a linear model, and how its weights are obtained.

A model gives one linear score per class. It may be a pair (W, b), a scikit-learn estimator, a
Keras or a PyTorch model, or a function from samples to scores. Weights that a model says are read:
those of an estimator and of the affine steps before it, and the Jacobian of a network. Those of a
function are differences of scores. Either are compared with the scores that the model itself gives.
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
from advlinear.balls import blocks, box_of, shown
from advlinear.samples import MOST, Form, array, dense, real, require_finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LINEAR = 1e-5  # scores are linear if they are to this share of their terms
ROUNDING = 2.0**-50  # of terms, where nothing larger is measured
NOT_LARGEST = "the model does not predict the class of its largest score"
FAR = 2.0**20  # features move by so many times their size, where nothing forbids it


@dataclass(frozen=True)
class Model:
    """A linear model, as the attack needs it.

    Attributes:
        ask: from points (m, d) and their rows in X (m,) to scores (m, K), K >= 2. A single score f
            becomes (-f / 2, f / 2), whose gaps are f and -f.
        predict: from the same to the index (m,) of the class predicted; None where only scores are.
        classes: (K,) the labels, in the order of the scores.
        weights: (K, d). Only their differences count: a multiple of (1, ..., 1) may be added to
            each column, and so may a function of x to all scores.
        noise: the largest error found in a score, as a share of the sum of its |terms|.
        blur: (K, d) bounds of the errors of the weights, or None where they were read.
    """

    ask: Callable[[Any, np.ndarray], np.ndarray]
    predict: Callable[[Any, np.ndarray], np.ndarray] | None
    classes: np.ndarray
    weights: np.ndarray
    noise: float
    blur: np.ndarray | None

    def error(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """A bound (m, K) of the errors of scores: four times the share of |terms| found."""
        return 4 * self.noise * (np.abs(centred(scores)) + np.abs(points) @ np.abs(self.weights).T)

    def require_largest(self, points: np.ndarray, rows: np.ndarray) -> None:
        """Raise ValueError unless a class of largest score, up to rounding, is predicted."""
        scores = self.ask(points, rows)
        behind = scores.max(axis=1) - scores[np.arange(len(rows)), self.predict(points, rows)]
        if (behind > 2 * self.error(points, scores).max(axis=1)).any():
            raise ValueError(NOT_LARGEST)


def read(model: Any, form: Form, y: ArrayLike | None, fixed: np.ndarray, box: tuple | None):
    """The model, the class (n,) of each sample as an index, and the scores (n, K) of X.

    Args:
        y: labels (n,), or None.
        fixed: (d,) whether a feature never moves.
        box: None, or (low, high) as `forms.bounds` returns it: the model need be linear only there.

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
        told = predict(form.x, np.arange(n))
        if (told != scores.argmax(axis=1))[best > second].any():
            raise ValueError(NOT_LARGEST)
    away = ask if box is not None else _advising_a_box(ask)
    weights, noise, blur = weights_of(model, away, Domain.of(form, fixed, box), scores)
    return Model(ask, predict, classes, weights, noise, blur), own, scores


# --- scores --------------------------------------------------------------------------------------


def scorer(model: Any, form: Form) -> tuple[Callable, np.ndarray | None]:
    """`Model.ask`, and the weights (K, d) if they are given."""
    weights, d = None, form.x.shape[1]
    refusals.by_name(model)
    model = (model.w, model.b) if _is_minimum(model) else model
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if isinstance(model, tuple):
        W, b = given(model, d)
        weights = W if W.ndim == 2 else np.stack([-W / 2, W / 2])
        raw = lambda points, rows: points @ W.T + b  # noqa: E731
    elif isinstance(model, list):
        raise ValueError(
            "a list is no model: pass (W, b), of Keras's get_weights() (kernel.T, bias), as Keras "
            "keeps (d, K)"
        )
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

    def ask(points, rows):
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


def given(model: tuple, d: int) -> tuple[np.ndarray, np.ndarray]:
    """W (K, d) and b (K,), or w (d,) and b (). Raises ValueError: they are not that."""
    if len(model) != 2:
        raise ValueError(f"(W, b) needs two arrays of numbers, not {len(model)}")
    W, b = (real(part, "(W, b)") for part in model)
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
    """The same, for points away from X; where the model has no scores, the message adds what to do.

    As log-odds that are infinite where a probability is 1 in float64.
    """

    def asked(points, rows):
        try:
            return ask(points, rows)
        except ValueError as error:
            raise ValueError(f"{error}, away from X: give a box that features stay in") from None

    return asked


def _call(function: Callable, *arguments: Any) -> Any:
    """What a function of another library returns; its own reason in a ValueError if it raises."""
    try:
        return function(*arguments)
    except Exception as error:  # it is not fitted, or has other features
        lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()
        told = [line.strip() for line in lines if line.strip()]
        if told and told[0].startswith("Exception encountered when calling"):  # Keras: where; why
            told = told[1:] or told
        reason = told[0] if told else type(error).__name__
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

    Of the modules of PyTorch, those below are the same in both modes.
    """
    nn = sys.modules["torch"].nn
    same = (nn.Sequential, nn.Flatten, nn.Unflatten, nn.Identity, nn.Linear)
    same += (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
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
    classes = np.asarray(classes)
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
    """Scores (m, K) less their mean: what tells the classes apart."""
    return scores - scores.mean(axis=1, keepdims=True)


@dataclass(frozen=True)
class Domain:
    """Where the model need be linear: about the samples, and in the box.

    Attributes:
        fixed: (d,) whether a feature never moves.
        base: (d,) a typical sample; span: (d,) the range of each feature; size: the largest number.
    """

    form: Form
    fixed: np.ndarray
    box: tuple | None
    base: np.ndarray
    span: np.ndarray
    size: float

    @classmethod
    def of(cls, form: Form, fixed: np.ndarray, box: tuple | None) -> Domain:
        x = form.x
        if form.kind == "sparse":
            base = np.asarray(x.mean(axis=0)).ravel()
            span = (x.max(axis=0) - x.min(axis=0)).toarray().ravel()
        else:
            base, span = x.mean(axis=0), np.ptp(x, axis=0)
        base = np.where(fixed, dense(x, np.arange(1))[0], base)
        if box is not None:
            base = np.clip(base, *box_of(0, box))
        size = abs(x).max() or 1e3
        return cls(form, fixed, box, base, np.where(span > 0, span, 1e-3 * size), size)


def weights_of(
    model: Any, ask: Callable, domain: Domain, scores: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray | None]:
    """Weights (K, d), `Model.noise` and `Model.blur`.

    Of the weights that the model says, those from large moves of its features, and those from
    moves within the data or the box, the first are taken to which its scores are linear.

    Raises:
        ValueError: it is linear to none; or its scores are too coarse for the weights.
    """
    for weights, steps in _candidates(model, ask, domain, scores.shape[1]):
        noise = max(_mismatch(ask, domain, weights, scores), ROUNDING)
        if noise <= LINEAR and steps is None:
            return weights, noise, None
        if noise <= LINEAR:  # an error of a score is one of a weight times the step
            offset = np.abs(centred(ask(domain.base[None], np.zeros(1, int))))[0]
            offset = offset + np.abs(weights) @ np.abs(domain.base)
            moved = ~domain.fixed & (steps > 0)
            share = np.divide(1, steps, out=np.zeros(len(steps)), where=moved)
            return weights, noise, 2 * noise * (np.abs(weights) + np.outer(offset, share))
    hint, looks = "", _looks_like(scores)
    if looks:
        hint = f" (they look like {looks})"
    elif domain.form.kind == "frame":
        hint = " (a column of codes is no number: make it a category, or fix it with scale 0)"
    raise ValueError(f"the model is not linear: its scores are not X @ W.T + b{hint}")


def _looks_like(scores: np.ndarray) -> str:
    """What scores (n, K) that are not linear may be, and what to pass instead; else ""."""
    single = 2 * scores[:, 1]  # see `Model.ask`
    if (scores[:, 0] == -scores[:, 1]).all():
        if (single == np.rint(single)).all():
            return "labels: pass the model, not its predict"
        sums_to_1 = (single <= 1).all()
    else:
        single, sums_to_1 = scores, (np.abs(scores.sum(axis=1) - 1) < 1e-5).all()
    return "probabilities: pass the logits" if (single >= 0).all() and sums_to_1 else ""


def _candidates(model: Any, ask: Callable, domain: Domain, count: int) -> Iterator[tuple]:
    """Weights (K, d), and the steps (d,) that they came from, or None for those that were read."""
    base, size, fixed = domain.base, domain.size, domain.fixed
    told = _told(model, domain.form, base)
    if told is not None and len(told) == 1:
        told = np.concatenate([-told / 2, told / 2])
    if told is not None and told.shape == (count, len(base)):
        yield told, None
    large = np.full(len(base), np.exp2(np.ceil(np.log2(size))) * FAR)
    within = np.maximum(domain.span, 1e-3 * size)  # no smaller, against rounding
    if domain.box is not None:
        low, high = box_of(0, domain.box)
        up, down = np.minimum(large, high - base), np.minimum(large, base - low)
        within = np.where(up >= down, up, -down)
    for steps in (large, within):
        try:
            yield _probed(ask, base, steps, fixed), np.abs(steps)
        except ValueError:  # it cannot be asked so far away
            if steps is within:
                raise


def _probed(ask: Callable, base: np.ndarray, steps: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """W (K, d), from scores with one feature moved at a time."""
    offset = ask(base[None], np.zeros(1, int))[0]
    weights = np.zeros((len(offset), len(base)))
    for columns in blocks(np.flatnonzero(~fixed & (steps != 0)), len(base)):
        points = np.tile(base, (len(columns), 1))
        here = np.arange(len(columns)), columns
        points[here] += steps[columns]
        moved = points[here] - base[columns]
        weights[:, columns] = (ask(points, np.zeros(len(columns), int)) - offset).T / moved
    return weights


def _mismatch(ask: Callable, domain: Domain, weights: np.ndarray, scores: np.ndarray) -> float:
    """The largest error of scores on X, and up to ten times as far, as a share of its |terms|.

    The error is that of the change of the scores from a point with the typical value of each
    feature that is not fixed.
    """
    form, fixed, base = domain.form, domain.fixed, domain.base
    n, d = form.x.shape
    apart = fixed.any() or form.kind == "frame"  # each row has a rest of its own

    def share(points, rows, values):
        reference = base[None]
        if apart:
            reference = np.where(fixed, dense(form.x, rows), base)
        start = ask(reference, rows[: len(reference)])
        change = points @ weights.T - reference @ weights.T
        error = np.abs(centred(values - start - change))
        terms = np.abs(centred(values)) + abs(points) @ np.abs(weights).T
        terms = terms + np.abs(centred(start)) + np.abs(reference) @ np.abs(weights).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(error > 0, error / terms, 0).max()

    found = 0.0
    whole = form.kind == "sparse" and not apart
    for rows in [np.arange(n)] if whole else blocks(np.arange(n), d, MOST):
        points = form.x if whole else dense(form.x, rows)
        found = max(found, share(points, rows, scores[rows]))
    rows = np.arange(30) % n
    random = np.random.default_rng(0).uniform(-1, 1, (3, 10, d))
    far = base + (random * domain.span * np.array([0.1, 1, 10])[:, None, None]).reshape(30, d)
    far = np.where(fixed, dense(form.x, rows), far)
    if domain.box is not None:
        far = np.clip(far, *box_of(rows, domain.box))
    return max(found, share(far, rows, ask(far, rows)))


def _told(model: Any, form: Form, base: np.ndarray) -> np.ndarray | None:
    """The weights (K, d) that a model says: those of an estimator, the Jacobian of a network."""
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
    point = tf.constant(_keras_input(model, point))
    with tf.GradientTape() as tape:
        tape.watch(point)
        scores = model(point, training=False)
    return tape.jacobian(scores, point).numpy().astype(np.float64).reshape(-1, tf.size(point))


def _torch_jacobian(model: Any, point: np.ndarray) -> np.ndarray:
    """(K, d)."""
    torch = sys.modules["torch"]
    point = _torch_input(model, point)
    jacobian = torch.autograd.functional.jacobian(model, point)
    return jacobian.double().cpu().numpy().reshape(-1, point.numel())


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
        known = each and all(one is not None and len(one) == 1 for one in each)
        return np.concatenate(each) if known else None
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
