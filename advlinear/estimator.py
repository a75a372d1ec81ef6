"""`minimise` as a scikit-learn classifier, and `attack` as a scorer. Needs scikit-learn.

Importing advlinear does not import this module: its two names are looked up on first use.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import issparse
from scipy.special import log_expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from advlinear import samples
from advlinear.attacks.attack import attack
from advlinear.balls import ORDER, ball, shown
from advlinear.minima.joint.solver import takes
from advlinear.minima.minimum import LARGEST_GAP, Minimum, minimise

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MULTI_CLASS = ("auto", "joint", "ovr")
SMALLEST_NORMAL = np.finfo(np.float64).tiny


class RobustClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier whose robust training loss is the least possible, with a certificate.

    K > 2 classes are trained together where `advlinear.minimise` offers that: the least robust loss
    of all classes at once, in one call, with its certificate. Otherwise they are trained one
    against the rest: K calls, of which each minimum is certified, while no bound on the robust loss
    of the K classes together is. The largest score is predicted.

    What one against the rest loses: with a large eps the least loss of one class against the rest
    may be that of no weights at all. Its row of coef_ is then 0, its score is intercept_ for every
    sample, and `fit` warns. With the hinge all such classes of less than half of the samples have
    the same intercept, -1, and tie. `predict`, and so `score`, takes the first of them;
    `advlinear.attack` counts a tie as an error. So attack(...).curve(0) is then below score. On all
    ten digits of MNIST (pixels in [0, 1], no box) at eps=.1 eight rows are 0: on the test set
    attack(...).curve([0, .1]) is .20 and .17. Trained together, it is .81 and .55. At eps=.05
    curve([0, .05]) is .64 and .56 for one against the rest, and .88 and .76 together.

    Args:
        eps: radius of the ball, in the units of X as `fit` gets it, so after a scaler in those of
            its output. The default, .02, suits features in [0, 1]: 2 % of their range.
        norm, loss, box, tol: as of `advlinear.minimise`; the box in the units of eps. Where `fit`
            gets a DataFrame, a Series in the box is read by the names of its columns.
        class_weight: None, "balanced" or a dict from labels to weights, which are multiplied with
            sample_weight. "balanced" gives all classes the same total weight.
        multi_class: of more than two classes, "auto", "joint" or "ovr". "joint" trains them
            together. That is offered without a box, with the budget "each" and a bias, for at most
            16 classes; in the L2 and L1 balls and with the logistic loss for K (d + 1) of at most
            1,000. "ovr" trains each class against the rest. "auto" is "joint" where that is
            offered, and "ovr" elsewhere.
        budget: "each", eps of every sample, or "mean", eps of the mean of all samples; as of
            `advlinear.minimise`. With "mean" and the hinge this is the 1-norm support vector
            machine in the L-infinity ball; with the logistic loss l1-logistic regression.
        fit_intercept: whether there is a bias; if not, intercept_ is 0.

    Attributes:
        classes_: (K,) the labels, sorted.
        coef_, intercept_: weights (1, d) and bias (1,) for two classes, whose score is that of
            classes_[1]; else (K, d) and (K,). Of classes trained together only the differences of
            the rows matter: coef_ has the weights of the minimum, and intercept_ its biases less
            their mean.
        certificate_: a list of `advlinear.Minimum`, with both bounds on the loss: of the one
            minimum of all classes together or of two, or of each row of coef_.
        n_features_in_: d. feature_names_in_: (d,) where X has names.

    Example, of two samples that are 1 apart: no weights with an eps of .5 or more, and with less
    those whose robust hinge is 0.

        >>> import advlinear
        >>> classifier = advlinear.RobustClassifier(eps=0.25).fit([[0.0], [1.0]], ["no", "yes"])
        >>> classifier.predict([[0.4], [0.6]]).tolist(), classifier.certificate_[0].primal
        (['no', 'yes'], 0.0)
    """

    classes_: np.ndarray
    coef_: np.ndarray
    intercept_: np.ndarray
    certificate_: list[Minimum]

    def __init__(
        self,
        eps: float = 0.02,
        norm: str | float = "inf",
        loss: str = "hinge",
        box: tuple | None = None,
        tol: float = LARGEST_GAP,
        class_weight: dict | str | None = None,
        multi_class: str = "auto",
        budget: str = "each",
        fit_intercept: bool = True,
    ) -> None:
        self.eps = eps
        self.norm = norm
        self.loss = loss
        self.box = box
        self.tol = tol
        self.class_weight = class_weight
        self.multi_class = multi_class
        self.budget = budget
        self.fit_intercept = fit_intercept

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> RobustClassifier:
        """Find the weights of least robust loss on X (n, d) with labels y (n,).

        X may be a SciPy sparse matrix of any format, which `advlinear.minimise` keeps sparse.
        Labels and sample_weight (n,) go by place, and not by an index that they may have.

        Warns:
            UserWarning: at this eps the best weights are all 0, or of classes that are trained
                together the same for all; against the rest those of at least one class.

        Raises:
            ValueError: an argument is not as described, or a certificate is not reached.
        """
        if not isinstance(self.multi_class, str) or self.multi_class not in MULTI_CLASS:
            raise ValueError(
                f"multi_class must be auto, joint or ovr, not {shown(self.multi_class)}"
            )
        samples.refuse_other_columns(X)
        x, labels = self._read(X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        box = self.box if self.box is None else samples.sides(self.box, *samples.names(X))
        check_classification_targets(labels)
        self.classes_, own = np.unique(labels, return_inverse=True)
        weights = self._weights(labels, own, sample_weight)
        known: dict[str, Any] = dict(
            eps=self.eps,
            norm=self.norm,
            loss=self.loss,
            box=box,
            sample_weight=weights,
            budget=self.budget,
            fit_intercept=self.fit_intercept,
        )
        if self._against_the_rest(x):
            found = [minimise(x, labels == one, tol=self.tol, **known) for one in self.classes_]
        else:
            found = [self._at_once(x, labels, **known)]
        names = samples.names(X)[0]
        self.certificate_ = found = [replace(one, names=names) for one in found]
        self.coef_ = np.concatenate([np.atleast_2d(one.w) for one in found])
        self.intercept_ = np.concatenate([np.atleast_1d(one.b) for one in found])
        if self._are_together():  # one number may be added to all
            self.intercept_ = self.intercept_ - self.intercept_.mean()
        self._warn_of_no_weights()
        return self

    def _against_the_rest(self, x: Any) -> bool:
        """Whether the classes of samples x (n, d) are trained one against the rest."""
        several = len(self.classes_)
        if several <= 2 or self.multi_class != "auto":
            return several > 2 and self.multi_class == "ovr"
        if self.box is not None or self.budget != "each" or not self.fit_intercept:
            return True
        if several > samples.MOST_CLASSES or not samples.fits_array(x):
            return True
        return not takes(several, x.shape[1], ball(self.norm), self.loss, samples.radius(self.eps))

    def _are_together(self) -> bool:
        """Whether several classes were trained together."""
        return len(self.certificate_) < len(self.coef_)

    def _at_once(self, x: Any, labels: np.ndarray, **known: Any) -> Minimum:
        """The minimum of all classes. Raises ValueError as `minimise`, with what else to try."""
        try:
            return minimise(x, labels, tol=self.tol, **known)
        except ValueError as error:
            refused = error
        if len(self.classes_) > 2:
            samples.problem(x, labels == self.classes_[0], **known)  # raises what is no better
            refused = ValueError(f"{refused} (or pass multi_class='ovr')")
        raise refused

    def _read(self, *given: ArrayLike, **known: Any) -> Any:
        """`validate_data` of X, or X and y; refuses masked arrays and dates, which it takes.

        A sparse X becomes one of CSR, of which no copy is made if it is one.
        """
        samples.refuse_sparse_columns(given[0])
        try:
            found = validate_data(self, *given, accept_sparse="csr", **known)
        except OverflowError:  # whole numbers of Python
            raise ValueError("X holds numbers above 1e301, which overflow") from None
        except TypeError:  # of missing values, in several lines or unclear
            self._refuse(*given)
            raise
        self._refuse(*given)
        return found

    def _refuse(self, X: ArrayLike, *y: ArrayLike) -> None:
        """Raise ValueError for what scikit-learn takes or does not name, in an X or y."""
        if not issparse(X):
            samples.array(X, "X")
        for labels in y:
            samples.array(labels, "y")

    def _warn_of_no_weights(self) -> None:
        """No ConvergenceWarning, as each of these minima is reached and certified."""
        eps, together = self.certificate_[0].eps, self._are_together()
        # Of classes trained together only the differences of the rows matter.
        weights = self.coef_ - self.coef_[0] if together else self.coef_
        empty = np.flatnonzero(~weights.any(axis=1))
        if eps == 0 or len(empty) < (len(self.coef_) if together else 1):
            return
        where, what = "coef_ is 0", "every sample has the same score"
        if together:
            what = "every sample has the same scores"
        elif len(self.coef_) > 1:
            first = ", ".join(map(shown, self.classes_[empty[:5]])) + ", ..." * (len(empty) > 5)
            where = f"coef_ is 0 for {len(empty)} of {len(self.coef_)} classes ({first})"
            what = "every sample has the same score of such a class"
        warnings.warn(
            f"{where}: at eps={eps:g} weights of 0 have the least robust loss, but with them "
            f"{what}; choose a smaller eps",
            stacklevel=3,
        )

    def _weights(
        self, y: np.ndarray, own: np.ndarray, sample_weight: ArrayLike | None
    ) -> np.ndarray | None:
        """sample_weight times the weight of each sample's class; only the ratios matter.

        As "balanced" counts the weights of the samples, a weight of 2 is a sample taken twice.
        """
        if sample_weight is None and self.class_weight is None:
            return None
        weights = np.ones(len(y))
        if sample_weight is not None:
            weights = samples.real(sample_weight, "sample_weight")
        if weights.shape != y.shape:
            raise ValueError(f"sample_weight needs shape {y.shape}, not {weights.shape}")
        if not weights.any():
            raise ValueError("sample_weight holds zeros alone: it needs a number above 0 per class")
        given = self.class_weight
        if isinstance(given, str) and given == "balanced":
            per_class = 1 / np.maximum(np.bincount(own, weights), SMALLEST_NORMAL)
        elif given is None or isinstance(given, dict):
            if given is not None:
                of_class = samples.numbers(list(given.values()), "class_weight", (len(given),))
                given = dict(zip(given, of_class, strict=True))
            per_class = compute_class_weight(given, classes=self.classes_, y=y)
        else:
            raise ValueError(f"class_weight must be None, 'balanced' or a dict, not {shown(given)}")
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

    @property
    def predict_proba(self) -> Callable[[ArrayLike], np.ndarray]:
        """A method, of the logistic loss alone: from X (n, d) to probabilities (n, K).

        They are 1 / (1 + exp(-score)) for two classes. With more they are the softmax of the
        scores, or of classes trained one against the rest these numbers divided by their sum. The
        loss is that of the last `fit`; before it, that of the argument.

        Raises:
            AttributeError: the loss is the hinge.
        """
        fitted = getattr(self, "certificate_", None)
        loss = fitted[0].loss if fitted else self.loss
        if loss != "logistic":
            raise AttributeError(
                f"loss={loss!r} gives no probabilities, so there is no predict_proba: take "
                "decision_function, or fit with loss='logistic'"
            )
        return self._predict_proba

    def _predict_proba(self, X: ArrayLike) -> np.ndarray:
        scores = self.decision_function(X)
        if self._are_together():
            return softmax(scores, axis=1)
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
        norm, box, scale: as of `advlinear.attack`. A box with a side per sample (n, d) fits the X
            of n samples alone: cross-validation scores parts of X, and gives nan.

    Returns:
        A function from a fitted classifier, X and y to its robust accuracy, a number in [0, 1].

    Raises:
        ValueError: eps, norm or box is not as described; from the scorer, as from
            `advlinear.attack`.

    Example, of samples .1 and .4 away from the boundary at .5:

        >>> import advlinear
        >>> classifier = advlinear.RobustClassifier(eps=0.25).fit([[0.0], [1.0]], [0, 1])
        >>> advlinear.robust_accuracy(eps=0.2)(classifier, [[0.4], [0.9]], [0, 1])
        0.5
    """
    norm = ball(norm, (*ORDER, "0"))
    eps = samples.radius(eps)
    if box is not None:
        _require_box(box)
    return functools.partial(_robust_accuracy, eps=eps, norm=norm, box=box, scale=scale)


def _require_box(box: tuple) -> None:
    """Raise ValueError for what is no box of any X; cross-validation would give nan for it."""
    if isinstance(box, tuple | list) and any(hasattr(side, "iloc") for side in box):
        return  # its names are those of X
    low, high = samples.sides(box, None, None)
    try:
        ordered = bool((low <= high).all())  # nor NaN
    except ValueError:  # shapes that may fit X, such as (d,) and (n, d), or not
        return
    if not ordered:
        raise ValueError(f"box needs low <= high, not {shown(box)}")


def _robust_accuracy(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    eps: float,
    norm: str,
    box: tuple | None,
    scale: ArrayLike | None,
) -> float:
    with warnings.catch_warnings():
        if hasattr(X, "columns"):  # the attack passes arrays: compare the names of X before
            estimator.decision_function(X)
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        return float(attack(estimator, X, y, norm, box, scale=scale).curve(eps))
