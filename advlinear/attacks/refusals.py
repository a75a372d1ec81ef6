"""What is no linear model, known by its name: each is refused with the line that helps.

`models.py` finds out whether scores are linear, but not why they are not. Here are the models of
scikit-learn, Keras and PyTorch of which that is known. Nothing here imports these libraries.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

COARSE = ("float16", "bfloat16")
QUANTISED = re.compile("qu?int|int[48]$|float8")
SVMS = dict(SVC="LinearSVC", NuSVC="LinearSVC", OneClassSVM="SGDOneClassSVM")
NO_SCORES = dict(predict="labels", predict_proba="probabilities")  # methods of a classifier


def by_name(model: Any) -> None:
    """Raise ValueError for a model that is known to have no linear scores."""
    keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
    if isinstance(model, type):
        raise ValueError(f"{model.__name__} is a class: pass a fitted instance of it")
    if type(model).__name__ == "Path" and hasattr(model, "at"):
        raise ValueError("a Path has a model for every radius: pass that of one, path.at(eps)")
    if keras is not None and isinstance(model, keras.Model):
        for layer in model.layers:
            _types(layer.compute_dtype, getattr(layer, "quantization_mode", None))
    elif torch is not None and isinstance(model, torch.nn.Module):
        buffers = (one for one in model.buffers() if one.dtype.is_floating_point)
        _types(*(one.dtype for one in (*model.parameters(), *buffers)))
        if any(".quantized" in type(part).__module__ for part in model.modules()):
            _types("qint8")  # its weights are packed, and no parameters
    else:
        _method(model)
        _estimator(_final(model))


def by_scores(scores: Any) -> None:
    """Raise ValueError for what a model returns: text, or numbers of too few digits."""
    kind = getattr(scores, "dtype", None)
    _types(kind)
    first = np.ravel(scores)[:1] if getattr(kind, "kind", "") in tuple("USTO") else ()
    if any(isinstance(one, str | bytes) for one in first):
        raise ValueError("the model gives labels, not scores: pass the model, not its predict")


def _types(*types: Any) -> None:
    """Types of numbers, of scores or weights, that are too coarse."""
    for kind in (str(one).removeprefix("torch.") for one in types):
        if kind in COARSE:
            raise ValueError(
                f"the model computes in {kind}, too coarse for a radius: let it compute in float32 "
                "or float64, or pass (W, b)"
            )
        if QUANTISED.match(kind):
            raise ValueError(
                f"the model is quantised ({kind}), so that its scores are not linear: attack the "
                "model that it was made from"
            )


def _method(function: Any) -> None:
    """A classifier's method that gives labels or probabilities."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", None)
    if name in NO_SCORES and (hasattr(owner, "classes_") or hasattr(owner, "decision_function")):
        raise ValueError(
            f"{type(owner).__name__}.{name}: these are {NO_SCORES[name]}, not scores: pass the "
            "model itself"
        )


def _final(model: Any) -> Any:
    """What a search or a pipeline ends in."""
    while hasattr(model, "best_estimator_") or hasattr(model, "steps"):
        model = model.best_estimator_ if hasattr(model, "best_estimator_") else model.steps[-1][1]
    return model


def _estimator(final: Any) -> None:
    """An estimator whose decision_function is not linear, or not one score per class."""
    name = type(final).__name__
    if name == "ClassifierChain":
        raise ValueError(
            "ClassifierChain predicts several labels, each from those before it, which is not "
            "linear: attack a classifier of each label"
        )
    if name == "MultiOutputClassifier" or getattr(final, "multilabel_", False):
        raise ValueError(
            f"{name} predicts several labels per sample: attack them one by one, estimators_[k] "
            "with y[:, k]"
        )
    votes = "lets pairs of classes vote, and has no linear score per class: use"
    if name == "OneVsOneClassifier":
        raise ValueError(f"OneVsOneClassifier {votes} OneVsRestClassifier")
    svm = _final(getattr(final, "estimator", final))
    kind, kernel = type(svm).__name__, getattr(svm, "kernel", None)
    if kind in SVMS and (kernel in ("rbf", "sigmoid") or (kernel == "poly" and svm.degree > 1)):
        raise ValueError(f"{kind}: {kernel} is not linear: use {SVMS[kind]}, or kernel='linear'")
    if name in ("SVC", "NuSVC") and len(getattr(final, "classes_", ())) > 2:
        raise ValueError(
            f"{name} of more than two classes {votes} LinearSVC, or OneVsRestClassifier(SVC(...))"
        )
