"""`minimise` as a scikit-learn classifier, and `attack` as a scorer. Needs scikit-learn.

Importing advlinear does not import this module: its two names are looked up on first use.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from advlinear import forms, models
from advlinear.attack import attack
from advlinear.minimum import LARGEST_GAP, Minimum, minimise
from advlinear.worst_case import ORDER, ball

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

SMALLEST = np.finfo(np.float64).tiny


def _is_logistic(classifier: RobustClassifier) -> bool:
    if classifier.loss != "logistic":
        raise AttributeError(f"predict_proba needs loss='logistic', not {classifier.loss!r}")
    return True


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier whose robust training loss is the least possible, with a certificate.

    Two classes are one call of `advlinear.minimise`. K > 2 classes are trained one against the
    rest: K such calls, of which each minimum is certified; the largest score is predicted. No
    bound on the robust loss of the K classes together is certified, nor is it minimised. With a
    large eps the least loss of one class against the rest may be that of no weights at all (a row
    of 0 in coef_); such a class is hardly ever predicted.

    Args:
        eps: radius of the ball, in the units of X as `fit` gets it, so after a scaler in those of
            its output.
        norm, loss, box, tol: as of `advlinear.minimise`; the box in the units of eps. Where `fit`
            gets a DataFrame, a Series in the box is read by the names of its columns.
        class_weight: None, "balanced" or a dict from labels to weights, which are multiplied with
            sample_weight. "balanced" gives all classes the same total weight.

    Attributes:
        classes_: (K,) the labels, sorted.
        coef_, intercept_: weights (1, d) and bias (1,) for two classes, whose score is that of
            classes_[1]; else (K, d) and (K,).
        certificate_: the `advlinear.Minimum` of each row of coef_, with both bounds on its loss.
        n_features_in_: d. feature_names_in_: (d,) where X has names.
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    certificate_: list[Minimum]

    def __init__(
        self,
        eps: float,
        norm: str | float = "inf",
        loss: str = "hinge",
        box: tuple | None = None,
        tol: float = LARGEST_GAP,
        class_weight: dict | str | None = None,
    ) -> None:
        self.eps = eps
        self.norm = norm
        self.loss = loss
        self.box = box
        self.tol = tol
        self.class_weight = class_weight

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> RobustClassifier:
        """Find the weights of least robust loss on X (n, d) with labels y (n,).

        Labels and sample_weight (n,) go by place, and not by an index that they may have.

        Raises:
            ValueError: an argument is not as described, or a certificate is not reached.
        """
        x, y = self._read(X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        box = self.box if self.box is None else forms.sides(self.box, *forms.names(X))
        check_classification_targets(y)
        self.classes_, own = np.unique(y, return_inverse=True)
        several = len(self.classes_) > 2
        targets = [y == label for label in self.classes_] if several else [y]
        weights = self._weights(y, own, sample_weight)
        self.certificate_ = [
            minimise(x, target, self.eps, self.norm, self.loss, box, weights, self.tol)
            for target in targets
        ]
        self.coef_ = np.stack([found.w for found in self.certificate_])
        self.intercept_ = np.array([found.b for found in self.certificate_])
        return self

    def _read(self, *given: ArrayLike, **known: Any) -> Any:
        """`validate_data` of X, or X and y; refuses masked arrays and dates, which it takes."""
        found = validate_data(self, *given, **known)
        for values, what in zip(given, "Xy", strict=False):
            forms.array(values, what)
        return found

    def _weights(self, y, own, sample_weight) -> ArrayLike | None:
        """sample_weight times the weight of each sample's class; only the ratios matter.

        As "balanced" counts the weights of the samples, a weight of 2 is a sample taken twice.
        """
        if sample_weight is None and self.class_weight is None:
            return None
        weights = np.ones(len(y))
        if sample_weight is not None:
            weights = forms.real(sample_weight, "sample_weight")
        if weights.shape != y.shape:
            raise ValueError(f"sample_weight needs shape {y.shape}, not {weights.shape}")
        if not weights.any():
            raise ValueError("sample_weight holds zeros alone: it needs a number above 0 per class")
        if self.class_weight == "balanced":
            per_class = 1 / np.maximum(np.bincount(own, weights), SMALLEST)
        else:
            per_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        return weights * per_class[own]

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Scores w.x + b: (n,) for two classes, positive for classes_[1]; else (n, K)."""
        check_is_fitted(self)
        x = self._read(X, dtype=np.float64, reset=False)
        scores = x @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The label (n,) of the largest score."""
        scores = self.decision_function(X)
        best = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[best]

    @available_if(_is_logistic)
    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Probabilities (n, K), of the logistic loss alone: 1 / (1 + exp(-score)).

        With more than two classes they are divided by their sum.
        """
        scores = self.decision_function(X)
        scores = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        return softmax(log_expit(scores), axis=1)


def robust_accuracy(
    eps: float,
    norm: str | float = "inf",
    box: tuple | None = None,
    scale: ArrayLike | None = None,
) -> Callable[[Any, ArrayLike, ArrayLike], float]:
    """A scorer: the accuracy under the worst perturbation of at most eps, by `advlinear.attack`.

    It is exact, for any classifier whose decision_function is linear, and any number of classes.
    For `scoring=` of GridSearchCV, cross_val_score and the like.

    Args:
        eps: radius of the ball, in the units of X as the scorer gets it: for a pipeline, those of
            what is passed to the pipeline.
        norm, box, scale: as of `advlinear.attack`.

    Raises:
        ValueError: eps or norm is not as described; from the scorer, as from `advlinear.attack`.
    """
    norm = ball(norm, (*ORDER, "0"))
    known = dict(eps=models.radius(eps), norm=norm, box=box, scale=scale)
    return functools.partial(_robust_accuracy, **known)


def _robust_accuracy(estimator, X, y, eps, norm, box, scale) -> float:
    with warnings.catch_warnings():
        if hasattr(X, "columns"):  # the attack passes arrays: compare the names of X before
            estimator.decision_function(X)
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        return float(attack(estimator, X, y, norm, box, scale=scale).curve(eps))
