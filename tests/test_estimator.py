"""RobustClassifier and robust_accuracy, against minimise, certificate, attack and scikit-learn."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from conftest import script
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, minmax_scale
from sklearn.utils.estimator_checks import parametrize_with_checks

import advlinear
from advlinear import RobustClassifier, robust_accuracy

PROBLEMS = [
    dict(eps=0.1),
    dict(eps=0.1, loss="logistic"),
    dict(eps=0.2, norm="2"),
    dict(eps=0.3, norm=1, loss="logistic", tol=1e-8),
    dict(eps=0.1, box=(0, 1)),
    dict(eps=0.05, budget="mean"),
    dict(eps=0.05, loss="logistic", budget="mean", fit_intercept=False),
]
OF_TWO_CLASSES = {"box", "budget", "fit_intercept"}  # a problem with one of these


def clouds(classes=2, n=60, seed=0):
    """Samples in [0, 1]^4 whose classes overlap, so that the minimum is one point."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = 0.2 + 0.6 * np.eye(4)
    return np.clip(random.normal(centres[y], 0.2), 0, 1), np.array(list("abcd"))[y]


# The checks compare the scores of minima that are found in two ways, which is fair where the
# minimum is one point: with a smaller ball some of their data can be separated, and it is not.
@pytest.mark.filterwarnings("ignore:coef_ is 0")
@parametrize_with_checks(
    [
        RobustClassifier(eps=0.25),
        RobustClassifier(eps=0.25, loss="logistic", tol=1e-9, multi_class="ovr"),
        RobustClassifier(eps=0.25, multi_class="ovr"),
        RobustClassifier(eps=0.02, loss="logistic", tol=1e-9, budget="mean"),
    ]
)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_two_classes_are_one_minimum_with_its_certificate(problem):
    x, y = clouds()
    fitted, found = RobustClassifier(**problem).fit(x, y), advlinear.minimise(x, y, **problem)
    assert fitted.classes_.tolist() == ["a", "b"]
    assert fitted.coef_.shape == (1, 4)
    assert fitted.intercept_.shape == (1,)
    assert np.array_equal(fitted.coef_[0], found.w)
    assert fitted.intercept_[0] == found.b
    assert np.array_equal(fitted.decision_function(x), x @ found.w + found.b)
    assert np.array_equal(fitted.predict(x), np.where(x @ found.w + found.b > 0, "b", "a"))
    (best,) = fitted.certificate_
    of_problem = {name: value for name, value in problem.items() if name != "tol"}
    proof = advlinear.certificate(x, y, best.w, best.b, best.alpha, **of_problem)
    assert proof == {name: getattr(best, name) for name in proof}
    assert proof["primal"] > 0.1
    assert proof["gap"] <= problem.get("tol", 1e-6)


@pytest.mark.parametrize("way", ["auto", "joint"])
@pytest.mark.parametrize(
    "problem", [one for one in PROBLEMS if not OF_TWO_CLASSES & {*one}], ids=str
)
def test_more_classes_are_one_minimum_of_all_together(problem, way):
    """One certificate, checked with nothing of the solver."""
    x, y = clouds(4)
    fitted = RobustClassifier(**problem, multi_class=way).fit(x, y)
    (best,) = fitted.certificate_
    found = advlinear.minimise(x, y, **problem)
    assert np.array_equal(fitted.coef_, found.w)
    assert fitted.intercept_ == pytest.approx(found.b - found.b.mean(), rel=1e-12, abs=1e-12)
    assert fitted.coef_.shape == (4, 4)
    scores = x @ fitted.coef_.T + fitted.intercept_
    assert np.array_equal(fitted.decision_function(x), scores)
    assert np.array_equal(fitted.predict(x), np.array(list("abcd"))[scores.argmax(axis=1)])
    of_problem = {name: value for name, value in problem.items() if name != "tol"}
    parts = best.w, best.b, best.alpha
    proof = advlinear.certificate(x, y, *parts, **of_problem, flow=best.flow)
    assert proof == {name: getattr(best, name) for name in proof}
    assert proof["primal"] > 0.1
    assert proof["gap"] <= problem.get("tol", 1e-6)


def test_classes_that_are_not_trained_together_by_default():
    """Those with a box; those with many weights in another ball or loss; and more than 16."""
    x, y = clouds(3)
    wide = np.hstack([x, np.zeros((60, 330))])  # 3 x 335 weights and biases
    many = np.arange(60) % 17
    for features, labels, problem, rows in (
        (x, y, dict(box=(0, 1)), 3),
        (wide, y, dict(norm="2"), 3),
        (wide, y, dict(loss="logistic"), 3),
        (wide[:, :333], y, dict(norm="2"), 3),
        (x, many, dict(), 17),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = RobustClassifier(0.1, **problem).fit(features, labels)
        assert len(fitted.certificate_) == rows
        with pytest.raises(ValueError, match=r"pass multi_class='ovr'\)$") as error:
            RobustClassifier(0.1, **problem, multi_class="joint").fit(features, labels)
        assert "\n" not in str(error.value)
    assert len(RobustClassifier(0.1).fit(wide, y).certificate_) == 1
    assert len(RobustClassifier(0.1, norm="2").fit(wide[:, :60], y).certificate_) == 1


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_against_the_rest_each_class_has_a_minimum_of_its_own(problem):
    x, y = clouds(4)
    fitted = RobustClassifier(**problem, multi_class="ovr").fit(x, y)
    assert fitted.classes_.tolist() == list("abcd")
    for label, w, b, best in zip(
        "abcd", fitted.coef_, fitted.intercept_, fitted.certificate_, strict=True
    ):
        found = advlinear.minimise(x, y == label, **problem)
        assert np.array_equal(w, found.w)
        assert w.any()
        assert b == found.b
        assert (best.primal, best.dual) == (found.primal, found.dual)
    scores = x @ fitted.coef_.T + fitted.intercept_
    assert np.array_equal(fitted.decision_function(x), scores)
    assert np.array_equal(fitted.predict(x), np.array(list("abcd"))[scores.argmax(axis=1)])


@pytest.mark.parametrize("class_weight", [None, "balanced", {"a": 3.0, "b": 0.5}], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6))
def test_a_weight_of_two_is_a_sample_taken_twice(classes, class_weight, seed):
    x, y = clouds(classes, n=40, seed=seed)
    count = np.random.default_rng(seed).integers(0, 4, 40)
    count[:classes] = 1
    classifier = RobustClassifier(0.1, class_weight=class_weight)
    weighted = classifier.fit(x, y, sample_weight=count).certificate_
    repeated = clone(classifier).fit(np.repeat(x, count, axis=0), np.repeat(y, count)).certificate_
    for one, other in zip(weighted, repeated, strict=True):
        assert one.primal == pytest.approx(other.primal, rel=3e-6, abs=1e-8)  # gaps of 1e-6


@pytest.mark.filterwarnings("ignore:coef_ is 0")
def test_the_weights_of_classes():
    x, y = clouds(3)
    x, y = x[:50], np.append(y[:20], np.full(30, "c"))
    count = {label: np.count_nonzero(y == label) for label in "abc"}
    own = np.random.default_rng(0).uniform(0.5, 2, 50)
    totals = {label: own[y == label].sum() for label in "abc"}
    for class_weight, sample_weight, weights in (
        ("balanced", None, [1 / count[label] for label in y]),
        ("balanced", own, [one / totals[label] for one, label in zip(own, y, strict=True)]),
        ({"a": 2, "b": 1, "c": 5}, None, [{"a": 2, "b": 1, "c": 5}[label] for label in y]),
        ({"c": 0.1}, own, own * np.where(y == "c", 0.1, 1)),
    ):
        (together,) = (
            RobustClassifier(0.1, class_weight=class_weight)
            .fit(x, y, sample_weight=sample_weight)
            .certificate_
        )
        found = advlinear.minimise(x, y, 0.1, sample_weight=weights)
        assert together.primal == pytest.approx(found.primal, rel=3e-6)
        classifier = RobustClassifier(0.1, class_weight=class_weight, multi_class="ovr")
        classifier.fit(x, y, sample_weight=sample_weight)
        plain = RobustClassifier(0.1, multi_class="ovr").fit(x, y)
        for label, best, other in zip(
            "abc", classifier.certificate_, plain.certificate_, strict=True
        ):
            found = advlinear.minimise(x, y == label, 0.1, sample_weight=weights)
            assert best.primal == pytest.approx(found.primal, rel=3e-6)
            assert best.primal != pytest.approx(other.primal, rel=1e-3)


def test_probabilities_are_those_of_the_logistic_loss_alone():
    x, y = clouds()
    fitted = RobustClassifier(0.1, loss="logistic").fit(x, y)
    share = 1 / (1 + np.exp(-fitted.decision_function(x)))
    assert fitted.predict_proba(x) == pytest.approx(np.stack([1 - share, share], axis=1), rel=1e-12)
    fitted = RobustClassifier(0.1, loss="logistic").fit(*clouds(3))
    shares = np.exp(fitted.decision_function(x))  # the softmax
    expected = shares / shares.sum(axis=1, keepdims=True)
    assert fitted.predict_proba(x) == pytest.approx(expected, rel=1e-12)
    assert fitted.predict_proba(1e6 * x).sum(axis=1) == pytest.approx(np.ones(len(x)))
    fitted = RobustClassifier(0.1, loss="logistic", multi_class="ovr").fit(*clouds(3))
    shares = 1 / (1 + np.exp(-fitted.decision_function(x)))
    expected = shares / shares.sum(axis=1, keepdims=True)
    assert fitted.predict_proba(x) == pytest.approx(expected, rel=1e-12)
    far = fitted.predict_proba(1e6 * x)  # where each of the three is 0 in float64
    assert far.sum(axis=1) == pytest.approx(np.ones(len(x)))
    hinge = RobustClassifier(0.1).fit(x, y)
    assert not hasattr(hinge, "predict_proba")
    with pytest.raises(AttributeError, match="there is no predict_proba: take decision_function"):
        advlinear.attack(hinge.predict_proba, x, y)


def test_a_fitted_model_offers_what_its_loss_offers_whatever_is_set_later():
    x, y = clouds()
    fitted = RobustClassifier(0.1, loss="logistic").fit(x, y)
    shares = fitted.predict_proba(x)
    fitted.set_params(loss="hinge", eps=0.2)
    assert np.array_equal(fitted.predict_proba(x), shares)
    assert not hasattr(fitted.fit(x, y), "predict_proba")
    fitted.set_params(loss="logistic")
    assert not hasattr(fitted, "predict_proba")
    assert hasattr(clone(fitted), "predict_proba")  # which is not fitted


# --- a class that cannot win ---------------------------------------------------------------------


def test_classes_without_weights_are_told_of():
    """Of sklearn's digits, where predict takes the first of equal scores, and the attack none."""
    x, y = load_digits(return_X_y=True)
    x, y = x / 16, np.array(list("abcdefghij"))[y]
    with pytest.warns(UserWarning, match="coef_ is 0") as told:
        fitted = RobustClassifier(eps=0.1, multi_class="ovr").fit(x, y)
    (one,) = told
    assert one.filename == __file__
    empty = fitted.classes_[~fitted.coef_.any(axis=1)]
    assert len(empty) == 4
    assert str(one.message) == (
        f"coef_ is 0 for 4 of 10 classes ({', '.join(map(repr, empty.tolist()))}): at eps=0.1 "
        "weights of 0 have the least robust loss, but with them every sample has the same score of "
        "such a class; choose a smaller eps"
    )
    for label, best in zip(fitted.classes_, fitted.certificate_, strict=True):
        if label in empty:
            assert best.b == -1
            assert best.primal == pytest.approx(2 * np.mean(y == label), rel=1e-12)
    scores = x @ fitted.coef_.T + fitted.intercept_
    tied = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1
    right = fitted.predict(x) == y
    assert fitted.score(x, y) == right.mean() == pytest.approx(0.668, abs=5e-4)
    found = advlinear.attack(fitted, x, y)
    assert found.curve(0) == (right & ~tied).mean() == pytest.approx(0.578, abs=5e-4)


@pytest.mark.filterwarnings("error")
def test_classes_trained_together_have_weights_where_those_against_the_rest_have_none():
    """At the radius of the test above; the attack agrees with the margins of each pair."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    fitted = RobustClassifier(eps=0.1).fit(x, y)
    (best,) = fitted.certificate_
    assert 0 < best.primal - best.dual <= 1e-6 * best.primal
    found = advlinear.attack(fitted, x, y)
    assert found.curve(0) == fitted.score(x, y) > 0.8
    W, own = fitted.coef_, np.arange(len(y))
    margins = fitted.decision_function(x)
    margins = margins[own, y][:, None] - margins - 0.1 * np.abs(W[y][:, None] - W).sum(axis=2)
    margins[own, y] = np.inf
    assert found.curve(0.1) == np.mean(margins.min(axis=1) > 0) > 0.4


def test_classes_trained_together_without_weights_are_told_of():
    x, y = clouds(3)
    line = "^coef_ is 0: at eps=5 weights of 0 have .* but with them every sample has the same scor"
    with pytest.warns(UserWarning, match=line) as told:
        fitted = RobustClassifier(eps=5).fit(x, y)
    assert told[0].filename == __file__
    assert not np.ptp(fitted.coef_, axis=0).any()


@pytest.mark.filterwarnings("error")
def test_the_default_radius_suits_features_from_0_to_1():
    x, y = load_digits(return_X_y=True)
    fitted = RobustClassifier(multi_class="ovr").fit(x / 16, y)
    assert fitted.get_params()["eps"] == 0.02
    assert fitted.coef_.any(axis=1).all()
    assert fitted.score(x / 16, y) > 0.97
    x, y = load_iris(return_X_y=True)
    x = minmax_scale(x)
    fitted = RobustClassifier().fit(x, y)
    assert len(fitted.certificate_) == 1
    assert fitted.score(x, y) > 0.95


def test_two_classes_without_weights_are_told_of_where_a_smaller_radius_helps():
    x, y = clouds()
    line = "^coef_ is 0: at eps=5 weights of 0 have the least robust loss, but with them every "
    with pytest.warns(UserWarning, match=line):
        fitted = RobustClassifier(eps=5).fit(x, y)
    assert not fitted.coef_.any()
    both = np.concatenate([x, x])  # each sample in both classes: no radius has weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = RobustClassifier(eps=0).fit(both, np.repeat([0, 1], len(x)))
    assert not fitted.coef_.any()


@pytest.mark.parametrize("threat", [dict(), dict(norm="2"), dict(box=(0, 1))], ids=str)
@pytest.mark.parametrize("classes", [2, 4])
def test_the_scorer_is_the_accuracy_curve_of_the_attack(classes, threat):
    x, y = clouds(classes)
    for model in (
        RobustClassifier(0.1),
        LogisticRegression(),
        make_pipeline(StandardScaler(), RobustClassifier(0.1)),
    ):
        fitted = model.fit(x, y)
        found = advlinear.attack(fitted, x, y, **threat)
        scores = [robust_accuracy(eps, **threat)(fitted, x, y) for eps in (0, 0.05, 0.1, 5)]
        assert scores == found.curve([0, 0.05, 0.1, 5]).tolist()
        assert scores[0] == fitted.score(x, y) > scores[2]


def frail(n=80):
    """A feature that is right for 9 in 10 and survives the attack, and a faint one that is right.

    Also the samples' classes, -1 and +1.
    """
    random = np.random.default_rng(1)
    y = random.permutation(np.repeat([-1, 1], n // 2))
    strong = y * np.where(np.arange(n) % 10 == 0, -1, 1)
    return np.stack([strong, 0.05 * y], axis=1) + random.normal(0, 0.005, (n, 2)), y


def test_a_grid_search_chooses_by_robust_accuracy():
    x, y = frail()
    folds = StratifiedKFold(4)
    scoring = {"clean": "accuracy", "robust": robust_accuracy(0.2)}
    grid = {"robustclassifier__eps": [0.0, 0.3], "robustclassifier__norm": ["inf", "2"]}
    model = make_pipeline(StandardScaler(with_std=False), RobustClassifier(eps=0.1))
    chosen = {}
    for name in scoring:
        search = GridSearchCV(model, grid, scoring=scoring, refit=name, cv=folds).fit(x, y)
        chosen[name] = search.best_params_["robustclassifier__eps"]
    assert chosen == {"clean": 0.0, "robust": 0.3}
    assert pickle.loads(pickle.dumps(search)).scorer_["robust"](search, x, y) == pytest.approx(0.9)
    assert search.best_estimator_[-1].certificate_[0].gap <= 1e-6
    for eps, norm, score in zip(
        search.cv_results_["param_robustclassifier__eps"],
        search.cv_results_["param_robustclassifier__norm"],
        search.cv_results_["mean_test_robust"],
        strict=True,
    ):
        expected = []
        for train, test in folds.split(x, y):
            centre = x[train].mean(axis=0)
            found = advlinear.minimise(x[train] - centre, y[train], eps, norm)
            radii = advlinear.attack((found.w, found.b), x[test] - centre, y[test]).radii
            expected.append(np.mean(radii > 0.2))
        assert score == pytest.approx(np.mean(expected))


# --- sparse X ------------------------------------------------------------------------------------


def counts(classes=2, n=60, d=30, seed=0):
    """Few numbers in each of n samples, many of them of the words of its class."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = random.poisson(np.where(np.arange(d) % classes == y[:, None], 0.4, 0.1)) / 4
    return x, np.array(list("abcd"))[y]


def in_all_formats(x):
    """The sparse formats of SciPy, old and new, with indices of 32 and of 64 bits."""
    for kind in ("csr", "csc", "coo", "dia", "bsr", "lil", "dok"):
        for form in ("array", "matrix"):
            yield getattr(scipy.sparse, f"{kind}_{form}")(x)
    for kind in ("csr", "csc"):
        wide = getattr(scipy.sparse, f"{kind}_array")(x)
        wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
        yield wide
    yield scipy.sparse.csr_array(x.astype(np.float32))  # quarters are the same there


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("way", ["auto", "ovr"])
def test_a_sparse_x_of_any_format_is_fitted_as_its_array(classes, way):
    x, y = counts(classes)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y))
    model = RobustClassifier(0.02, multi_class=way)
    expected = clone(model).fit(x, y, sample_weight=weights)
    for sparse in in_all_formats(x):
        before = sparse.toarray()
        fitted = clone(model).fit(sparse, y, sample_weight=weights)
        assert isinstance(fitted.coef_, np.ndarray)
        for best, other in zip(fitted.certificate_, expected.certificate_, strict=True):
            assert best.primal == pytest.approx(other.primal, rel=1e-6)
            assert 0 <= best.gap <= 1e-6
            assert best.violation == 0
        scores = x @ fitted.coef_.T + fitted.intercept_
        scores = scores[:, 0] if classes == 2 else scores
        np.testing.assert_allclose(fitted.decision_function(sparse), scores, rtol=0, atol=1e-12)
        assert fitted.predict(sparse).tolist() == fitted.predict(x).tolist()
        assert fitted.score(sparse, y) == fitted.score(x, y) > 0.6
        assert np.array_equal(sparse.toarray(), before)


def test_a_sparse_x_gives_probabilities_and_robust_accuracy():
    x, y = counts(3)
    sparse = scipy.sparse.csr_matrix(x)
    fitted = RobustClassifier(0.02, loss="logistic").fit(sparse, y)
    np.testing.assert_allclose(fitted.predict_proba(sparse), fitted.predict_proba(x), rtol=1e-12)
    scorer = robust_accuracy(0.02)
    assert scorer(fitted, sparse, y) == scorer(fitted, x, y) < fitted.score(x, y)


def test_classes_of_a_sparse_x_are_trained_together_where_it_fits_an_array(monkeypatch):
    x, y = counts(3)
    sparse, model = scipy.sparse.csr_array(x), RobustClassifier(0.02)
    assert len(clone(model).fit(sparse, y).certificate_) == 1
    monkeypatch.setattr(advlinear.samples, "MOST_DENSE", x.size - 1)
    with pytest.raises(ValueError, match=r"as an array.* pass multi_class='ovr'") as error:
        clone(model).set_params(multi_class="joint").fit(sparse, y)
    assert "\n" not in str(error.value)
    assert len(clone(model).fit(x, y).certificate_) == 1
    given = []

    def minimise(X, y, **known):
        given.append(X)
        return advlinear.minimise(X.toarray(), y, **known)

    monkeypatch.setattr(advlinear.estimator, "minimise", minimise)
    assert len(clone(model).fit(sparse, y).certificate_) == 3
    assert all(np.shares_memory(one.data, sparse.data) for one in given)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_mean_budget_and_the_logistic_loss_are_l1_logistic_regression(fit_intercept):
    """saga of scikit-learn minimises C times the sum of the losses plus ||w||_1; to 1e-4."""
    x, labels = clouds()
    known = dict(loss="logistic", budget="mean", fit_intercept=fit_intercept)
    own = RobustClassifier(0.02, **known).fit(x, labels)
    given = dict(C=1 / (0.02 * len(x)), solver="saga", fit_intercept=fit_intercept)
    saga = LogisticRegression(l1_ratio=1.0, tol=1e-8, max_iter=100_000, **given).fit(x, labels)
    np.testing.assert_allclose(own.coef_, saga.coef_, atol=1e-4)
    np.testing.assert_allclose(own.intercept_, saga.intercept_, atol=1e-4)
    assert own.certificate_[0].budget == "mean"
    assert (own.intercept_ == 0).all() == (not fit_intercept)


def test_several_classes_with_a_mean_budget_or_without_a_bias_are_one_against_the_rest():
    x, labels = clouds(3)
    for known in (dict(budget="mean"), dict(fit_intercept=False)):
        fitted = RobustClassifier(0.02, **known).fit(x, labels)
        assert len(fitted.certificate_) == 3
        for one, name in zip(fitted.certificate_, fitted.classes_, strict=True):
            assert one.primal == advlinear.minimise(x, labels == name, 0.02, **known).primal
        with pytest.raises(ValueError, match=r"needs two classes.*multi_class='ovr'"):
            RobustClassifier(0.02, multi_class="joint", **known).fit(x, labels)
    assert (fitted.intercept_ == 0).all()


def test_text_and_categories_in_pipelines():
    """Each step keeps X sparse; the scores are those of the array that it would be."""
    random = np.random.default_rng(0)
    y = np.arange(80) % 2
    words = np.array(["one", "two", "three", "four", "five", "six"])
    texts = [" ".join(random.choice(words[one : one + 5], 4)) for one in y]
    table = pd.DataFrame({"a": random.choice(list("pqr"), 80), "b": [str(one) for one in y]})
    table["b"] = table["b"].where(random.random(80) < 0.8, "2")
    for first, X in ((TfidfVectorizer(), texts), (OneHotEncoder(handle_unknown="ignore"), table)):
        model = make_pipeline(first, StandardScaler(with_mean=False), RobustClassifier(0.1))
        fitted = clone(model).fit(X, y)
        numbers = fitted[:-1].transform(X)
        assert scipy.sparse.issparse(numbers)
        expected = RobustClassifier(0.1).fit(numbers.toarray(), y)
        assert fitted[-1].certificate_[0].primal == pytest.approx(
            expected.certificate_[0].primal, rel=1e-6
        )
        assert fitted.score(X, y) > 0.6
        plain = make_pipeline(clone(first), RobustClassifier(0.02))
        search = GridSearchCV(plain, {"robustclassifier__eps": [0.01, 0.05]}, cv=3).fit(X, y)
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    numbers = TfidfVectorizer().fit_transform(texts)
    grid = {"eps": [0.01, 0.05]}
    search = GridSearchCV(RobustClassifier(), grid, scoring=robust_accuracy(0.02), cv=3)
    scores = [
        clone(search).fit(one, y).cv_results_["mean_test_score"]
        for one in (numbers, numbers.toarray())
    ]
    assert np.isfinite(scores).all()
    assert scores[0] == pytest.approx(scores[1], abs=0.03)  # several minima: other weights


def test_a_sparse_x_with_a_number_that_is_none_is_refused_in_one_line():
    x, y = counts()
    fitted = RobustClassifier(0.02).fit(x, y)
    sparse = scipy.sparse.csr_array(x)
    sparse.data[3] = np.nan
    for refused in (lambda: clone(fitted).fit(sparse, y), lambda: fitted.predict(sparse)):
        with pytest.raises(ValueError, match=r"^Input X contains NaN"):
            refused()
    with pytest.raises(ValueError, match=r"^X has 29 features, but RobustClassifier is expecting"):
        fitted.predict(scipy.sparse.csr_array(x[:, :-1]))
    with pytest.raises(ValueError, match=r"y is sparse|Sparse data was passed"):
        clone(fitted).fit(x, scipy.sparse.csr_array(x[:, :1] > 0))


def test_single_precision_may_be_outside_the_box_by_its_rounding():
    x, y = clouds()
    single = np.float32(x)
    high = single.max()
    model = RobustClassifier(0.1, box=(x.min(), high))
    above = single + np.float32(2e-7) * high * (single == high)
    assert above.max() > high
    np.testing.assert_array_equal(model.fit(above, y).coef_, model.fit(single, y).coef_)
    with pytest.raises(ValueError, match="outside the box"):
        model.fit(np.float64(above), y)


def test_cross_validation_of_a_table_with_names():
    x, y = clouds(3)
    table = pd.DataFrame(x, columns=list("pqrs"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = cross_val_score(RobustClassifier(0.1), table, y, scoring=robust_accuracy(0.05))
        plain = cross_val_score(RobustClassifier(0.1), x, y, scoring=robust_accuracy(0.05))
    assert scores.tolist() == plain.tolist()
    fitted = RobustClassifier(0.1).fit(table, y)
    assert fitted.feature_names_in_.tolist() == list("pqrs")
    with pytest.raises(ValueError, match="feature names"):
        robust_accuracy(0.05)(fitted, table[list("qprs")], y)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (dict(eps=-1), "eps must be a finite number of at least 0, not -1"),
        (dict(eps=np.float64(-1)), "eps must be a finite number of at least 0, not -1.0"),
        (dict(eps=[0.1, 0.2, 0.1, 0.1]), "for a radius per feature, r (d,), divide X and the box"),
        (dict(eps={"a": 0.1, "b": 0.2}), "eps must be one number"),
        (dict(eps=pd.Series([0.1, 0.2])), "eps must be one number"),
        (dict(tol="a"), "tol must be above 0 and below 1, not 'a'"),
        (dict(eps=np.timedelta64(1, "s")), "eps must be a finite number of at least 0, not datet"),
        (
            dict(tol=np.timedelta64(0, "s")),
            "tol must be above 0 and below 1, not datetime.timedelta(0)",
        ),
        (dict(tol=None), "tol must be above 0 and below 1, not None"),
        (dict(tol=np.float64(2)), "tol must be above 0 and below 1, not 2.0"),
        (dict(norm="3"), "norm must be inf, 2 or 1, not '3'"),
        (dict(loss="log"), "loss must be hinge or logistic, not 'log'"),
        (dict(tol=0), "tol must be above 0 and below 1, not 0"),
        (dict(box=(0, 0.5)), "outside the box"),
        (dict(box=(0, 1), norm="2"), "a box needs the norm inf, not 2"),
        (dict(loss=pd.Series(["hinge", "hinge"])), "loss must be hinge or logistic, not 0"),
        (dict(multi_class="multinomial"), "multi_class must be auto, joint or ovr, not 'multinom"),
        (dict(multi_class=None), "multi_class must be auto, joint or ovr, not None"),
        (dict(multi_class=pd.Series(["ovr"])), "multi_class must be auto, joint or ovr, not 0"),
        (dict(class_weight="even"), "class_weight"),
        (dict(class_weight=pd.Series(["balanced"] * 2)), "class_weight"),
        (dict(class_weight=pd.NA), "class_weight"),
        (dict(class_weight={"a": 10**400, "b": 1}), "class_weight holds numbers above 1e301"),
        (dict(class_weight={"a": pd.NA, "b": 1}), "class_weight holds missing values"),
        (dict(class_weight={"a": [1, 2], "b": 1}), "class_weight needs"),
        (dict(X=[[10**400] * 4] * 60), "X holds numbers above 1e301"),
        (dict(y=np.array([0, 1, pd.NA] * 20)), "y holds missing values"),
        (dict(y=pd.Series(["a", "b", pd.NA] * 20, dtype="string")), "y holds missing values"),
        (dict(y=np.zeros(60, [("a", int)])), "y is structured"),
        (dict(class_weight={"z": 2}), "are not in class_weight"),
        (dict(class_weight={"a": -1}), "sample_weight needs finite numbers of at least 0"),
        (dict(y=["a"] * 60), "y needs labels of two classes, not 1: a"),
        (dict(y=np.linspace(0, 1, 60)), "continuous"),
        (dict(sample_weight=np.ones(59)), "sample_weight needs shape (60,), not (59,)"),
        (dict(sample_weight=np.zeros(60)), "sample_weight holds zeros alone"),
        (dict(sample_weight=np.arange(60) % 2), "a number above 0 in each class"),
        (dict(sample_weight=np.arange(60) % 2, class_weight="balanced"), "above 0 in each class"),
        (dict(sample_weight=np.full(60, np.nan)), "sample_weight needs finite numbers"),
    ],
    ids=str,
)
def test_a_refusal_is_one_line(change, line):
    x, y = clouds()
    change = dict(change)
    x, y, weights = change.pop("X", x), change.pop("y", y), change.pop("sample_weight", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as error:  # noqa: PT011
            RobustClassifier(**(dict(eps=0.1) | change)).fit(x, y, sample_weight=weights)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("way", ["auto", "joint", "ovr"])
def test_what_is_wrong_in_any_way_of_training_has_no_hint(way):
    x, y = clouds(3)
    for change, line in (
        (dict(eps=-1), "eps must be a finite number of at least 0, not -1"),
        (dict(norm="3"), "norm must be inf, 2 or 1, not '3'"),
        (dict(loss="log"), "loss must be hinge or logistic, not 'log'"),
    ):
        with pytest.raises(ValueError, match=f"^{line}$"):
            RobustClassifier(**change, multi_class=way).fit(x, y)
    with pytest.raises(ValueError, match=r"^y needs labels of two classes, not 1: a$"):
        RobustClassifier(multi_class=way).fit(x, ["a"] * 60)


def test_a_radius_per_feature_by_scaling_is_exact():
    """The line of the message above, against the linear program with a radius of each feature.

    Over (u, v, b, t) with w = u - v it is the least mean t, t_i >= 1 - y_i (w.x_i + b) + r.(u + v).
    HiGHS solves it to 1e-7.
    """
    x, y = clouds()
    r = np.array([0.05, 0.2, 0.01, 0.1])
    found = advlinear.minimise(x / r, y, 1)
    w, sign = found.w / r, np.where(y == "b", 1.0, -1.0)
    margins = sign * (x @ w + found.b) - r @ np.abs(w)
    assert found.primal == pytest.approx(np.maximum(0, 1 - margins).mean(), rel=1e-12)
    signed, n = sign[:, None] * x, len(y)
    solved = linprog(
        [0] * 9 + [1 / n] * n,
        A_ub=np.hstack([r - signed, r + signed, -sign[:, None], -np.eye(n)]),
        b_ub=-np.ones(n),
        bounds=[(0, None)] * 8 + [(None, None)] + [(0, None)] * n,
        method="highs",
    )
    assert found.primal == pytest.approx(solved.fun, rel=1e-6)
    assert found.primal > 0.05


def test_a_table_with_sparse_columns_is_refused_by_name():
    x, y = clouds()
    table = pd.DataFrame(x, columns=list("pqrs"))
    sparse = table.astype({"r": pd.SparseDtype(float, 0.0)})
    fitted = RobustClassifier(0.1).fit(table, y)
    for refused in (
        lambda: clone(fitted).fit(sparse, y),
        lambda: fitted.predict(sparse),
        lambda: advlinear.attack(fitted, sparse, y),
        lambda: advlinear.attack((fitted.coef_, fitted.intercept_), sparse, y),
    ):
        with pytest.raises(ValueError, match="column 'r' of X is sparse: change its type to float"):
            refused()


@pytest.mark.parametrize("arguments", [(-0.1,), (np.inf,), ("0.1",), (0.1, "3")], ids=str)
def test_a_scorer_that_cannot_be_is_refused_before_the_search(arguments):
    with pytest.raises(ValueError, match="must be"):
        robust_accuracy(*arguments)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (1, "box needs .low, high."),
        ((0, 0.5, 1), "box needs .low, high."),
        (pd.DataFrame({"min": [0], "max": [1]}), "box needs .low, high."),
        ((0, "one"), "box needs real numbers"),
        ((1, 0), r"box needs low <= high, not \(1, 0\)"),
        (([0, 0], [1, np.nan]), "box needs low <= high"),
        ((0, pd.NA), "box holds missing values"),
    ],
    ids=str,
)
def test_a_box_of_no_table_is_refused_when_the_scorer_is_made(box, message):
    with pytest.raises(ValueError, match=message) as error:
        robust_accuracy(0.1, box=box)
    assert "\n" not in str(error.value)


def test_any_box_of_the_attack_is_one_of_the_scorer():
    """By place or by name, in any order of the names; one per sample for the whole X alone."""
    x, y = clouds()
    table = pd.DataFrame(x, columns=list("pqrs"))
    fitted = RobustClassifier(0.1).fit(table, y)
    low, high = table.min() - [1, 0, 2, 0], table.max().add([0, 3, 0, 1])
    expected = float(advlinear.attack(fitted, table, y, box=(low, high)).curve(0.2))
    wide = np.broadcast_to(low.to_numpy(), x.shape)
    for box in ((low[::-1], high), (low.to_numpy(), list(high)), (wide, high.to_numpy())):
        assert robust_accuracy(0.2, box=box)(fitted, table, y) == expected
    folds = (RobustClassifier(0.1), table, y)
    assert np.isfinite(cross_val_score(*folds, scoring=robust_accuracy(0.2, box=(low, high)))).all()
    with pytest.warns(UserWarning, match="Scoring failed"):
        scores = cross_val_score(*folds, scoring=robust_accuracy(0.2, box=(wide, high.to_numpy())))
    assert np.isnan(scores).all()


def run(code: str) -> str:
    done = script("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scikit_learn_is_imported_when_it_is_first_asked_for():
    code = (
        "import sys; from advlinear import *; import advlinear; dir(advlinear)\n"
        "print('sklearn' in sys.modules, 'RobustClassifier' in dir(advlinear))\n"
        "print(advlinear.RobustClassifier(0.1), 'sklearn' in sys.modules)\n"
        "print(hasattr(advlinear, 'RobustClassifiers'), 'robust_accuracy' in dir(advlinear))\n"
    )
    assert run(code) == "False True\nRobustClassifier(eps=0.1) True\nFalse True\n"


@pytest.mark.parametrize("lacks", ["sklearn", "sklearn.utils.validation"])
def test_one_line_says_that_scikit_learn_is_absent(lacks):
    code = (
        f"import sys; sys.modules[{lacks!r}] = None\n"
        "import advlinear\n"
        "print('RobustClassifier' in dir(advlinear), hasattr(advlinear, 'minimise'))\n"
        "for line in ('from advlinear import RobustClassifier', 'advlinear.robust_accuracy'):\n"
        "    try:\n"
        "        exec(line)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    said = "needs scikit-learn 1.6 or later: type pip install -U scikit-learn\n"
    listed, *errors = run(code).splitlines(keepends=True)
    assert listed == f"{lacks != 'sklearn'} True\n"
    assert errors == [
        f"advlinear.{name} {said}" for name in ("RobustClassifier", "robust_accuracy")
    ]


@pytest.mark.parametrize("eps", [0.05, 0.1])
def test_weights_of_separable_classes_are_those_that_are_certified(eps):
    """One class of iris is separable: what is fitted has the gap that is promised."""
    x, y = load_iris(return_X_y=True)
    x = minmax_scale(x)
    fitted = advlinear.RobustClassifier(eps, loss="logistic").fit(x, y)
    assert np.abs(fitted.coef_).max() < 1e4
    alpha = fitted.certificate_[0].alpha
    proof = advlinear.certificate(
        x, y, fitted.coef_, fitted.intercept_, alpha, eps, loss="logistic"
    )
    assert proof["gap"] <= 1e-6
    assert proof["violation"] == 0


def test_the_minima_of_a_frame_keep_its_names():
    """So their weights are read by name where the columns come in another order."""
    x, labels = clouds()
    frame = pd.DataFrame(x, columns=list("pqrs"))
    best = RobustClassifier(0.1).fit(frame, labels).certificate_[0]
    assert list(best.names) == list("pqrs")
    straight, turned = (
        advlinear.attack(best, one, labels).radii for one in (frame, frame[list("srqp")])
    )
    np.testing.assert_allclose(straight, turned, rtol=1e-12)
