"""What users of other attack libraries reported missing or wrong, done for a linear model."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import advlinear


@pytest.fixture
def samples():
    """60 samples (n, 5) in [0, 1] and labels that two of the features decide, but for noise."""
    random = np.random.default_rng(0)
    x = random.random((60, 5))
    return x, (x[:, 0] - x[:, 1] + random.normal(0, 0.1, 60) > 0).astype(int)


def test_each_feature_has_a_budget_of_its_own():
    """Trusted-AI/adversarial-robustness-toolbox #623: eps per feature, as columns of a table have
    different ranges."""
    w, b, budget = np.array([1.0, 0.01, -3.0]), 0.5, np.array([0.1, 40.0, 0.01])
    x = np.array([[0.2, 30.0, 0.1]])
    found = advlinear.attack((w, b), x, [1], scale=budget)
    score = (x @ w + b)[0]
    share = score / (0.1 * 1 + 40 * 0.01 + 0.01 * 3)  # of each budget, by hand
    np.testing.assert_allclose(found.radii, share, rtol=1e-12)
    moved = np.abs(found.perturbed() - x)[0]
    np.testing.assert_allclose(moved, share * budget, rtol=2e-6)


def test_a_search_over_a_pipeline_is_taken_with_its_frame(samples):
    """Trusted-AI/adversarial-robustness-toolbox #2105: attack the best model of a GridSearchCV over
    a Pipeline, fitted on a table."""
    x, y = samples
    frame = pd.DataFrame(x, columns=list("abcde"))
    steps = [("scale", StandardScaler()), ("classifier", LogisticRegression())]
    search = GridSearchCV(Pipeline(steps), {"classifier__C": [0.1, 10]}, cv=3).fit(frame, y)
    y = search.predict(frame)
    found = advlinear.attack(search, frame, y)
    best = search.best_estimator_
    w = best["classifier"].coef_[0] / best["scale"].scale_
    radii = np.abs(search.decision_function(frame)) / np.abs(w).sum()
    np.testing.assert_allclose(found.radii, radii, rtol=1e-9)
    assert (search.predict(found.perturbed()) != y).all()


def test_locked_columns_stay_and_of_a_one_hot_group_one_is_set():
    """Trusted-AI/adversarial-robustness-toolbox #1797: an attacker who may change some attributes
    only, and of several columns that encode one category leaves exactly one at 1.

    The category may be any: the smallest of the radii for each of them. They are compared with a
    bisection over the size of the two columns that are free.
    """
    random = np.random.default_rng(3)
    frame = pd.DataFrame(random.random((60, 7)), columns=list("ABCDEFG"))
    group, free = list("CDE"), frame.columns.isin(["F", "G"]).astype(float)
    frame[group] = np.eye(3)[random.integers(0, 3, 60)]
    y = (frame["A"] + 0.3 * frame["C"] + 2 * frame["F"] - frame["G"] > 1).to_numpy().astype(int)
    model = LogisticRegression(C=100).fit(frame, y)
    for category in np.eye(3):
        table = frame.copy()
        table[group] = category
        found = advlinear.attack(model, table, y, box=(0, 1), scale=free)
        moved, flips = found.perturbed(), (found.radii > 0) & np.isfinite(found.radii)
        assert flips.any()
        assert (moved[list("ABCDE")] == table[list("ABCDE")]).all(axis=None)
        assert (model.predict(moved)[flips] != y[flips]).all()

        a, x = np.outer(2 * y - 1, model.coef_[0, -2:]), table[["F", "G"]].to_numpy()
        margin = (2 * y - 1) * model.decision_function(table)
        room = np.where(a > 0, x, 1 - x)
        low, high = np.zeros(60), np.ones(60)
        for _ in range(60):
            middle = (low + high) / 2
            enough = (np.abs(a) * np.minimum(middle[:, None], room)).sum(axis=1) >= margin
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        never = (np.abs(a) * room).sum(axis=1) < margin
        np.testing.assert_allclose(found.radii, np.where(never, np.inf, high), atol=1e-9)


def test_a_pipeline_that_makes_features_of_a_raw_sequence():
    """Trusted-AI/adversarial-robustness-toolbox #1634: a pipeline from raw sequences over features
    to a logistic regression; wrapped for an attack it fails, as its input has no known shape.

    Features that are linear in the sequence are taken, others refused in one line.
    """
    random = np.random.default_rng(0)
    x = random.normal(size=(100, 20)).cumsum(axis=1)
    y = (x[:, -1] > x[:, 0]).astype(int)

    def linear(sequences):  # differences, and means of four neighbours
        means = np.apply_along_axis(np.convolve, 1, sequences, np.full(4, 0.25), "valid")
        return np.hstack([np.diff(sequences), means])

    def spectrum(sequences):
        return np.abs(np.fft.rfft(sequences))

    def fitted(features):
        steps = FunctionTransformer(features), StandardScaler(), LogisticRegression()
        return Pipeline(list(zip("fsl", steps, strict=True))).fit(x, y)

    model = fitted(linear)
    y = model.predict(x)
    found = advlinear.attack(model, x, y)
    weights = (model["l"].coef_[0] / model["s"].scale_) @ linear(np.eye(20)).T
    radii = np.abs(model.decision_function(x)) / np.abs(weights).sum()
    np.testing.assert_allclose(found.radii, radii, rtol=1e-9)
    assert (model.predict(found.perturbed()) != y).all()
    with pytest.raises(ValueError, match="linear"):
        advlinear.attack(fitted(spectrum), x, y)


def test_pixels_that_rounding_puts_outside_the_box():
    """Harry24k/adversarial-attacks-pytorch #136: images in float32 that were normalized and back
    are outside [0, 1] by 3e-8, and refused."""
    mean, deviation = (
        np.float32(three)[:, None, None]
        for three in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 3, 8, 8)).astype(np.float32) / np.float32(255)
    back = (images - mean) / deviation * deviation + mean
    assert back.dtype == np.float32
    assert back.min() == pytest.approx(-2.98e-8, rel=1e-3)  # as in the report
    W, b = random.normal(size=(4, 192)), np.zeros(4)
    own = (images.reshape(40, -1) @ W.T).argmax(axis=1)
    known = dict(y=own, box=(0, 1))
    found = advlinear.attack((W, b), back, **known)
    inside = advlinear.attack((W, b), np.clip(np.float64(back), 0, 1), **known)
    np.testing.assert_array_equal(found.radii, inside.radii)
    moved = found.perturbed()
    assert (moved.min() >= 0) & (moved.max() <= 1)
    for more in (back * np.float32(1 + 6e-7), np.float64(back)):
        with pytest.raises(ValueError, match="outside the box"):
            advlinear.attack((W, b), more, **known)


@pytest.mark.parametrize("norm", ["inf", "2", "1", "0"])
def test_a_feature_that_may_not_vary_does_not(samples, norm):
    """interpretml/DiCE #260: a counterfactual changed a feature that was not to vary."""
    x, y = samples
    frame = pd.DataFrame(x, columns=list("abcde"))
    model = LogisticRegression(C=100).fit(frame, y)
    y, vary = model.predict(frame), np.array([0.0, 1, 1, 1, 1])  # the first one decides most
    found = advlinear.attack(model, frame, y, norm, box=(0, 1), scale=vary)
    moved, flips = found.perturbed(), (found.radii > 0) & np.isfinite(found.radii)
    assert (moved["a"] == frame["a"]).all()
    assert flips.any()
    assert (model.predict(moved)[flips] != y[flips]).all()


def test_adversarial_examples_survive_rounding_to_pixels():
    """fra31/auto-attack #44: after images are rounded to whole levels of 255 most examples fail."""
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, (50, 30))
    W, b = random.normal(size=(3, 30)), np.zeros(3)
    x = levels / 255
    y = (x @ W.T).argmax(axis=1)
    found = advlinear.attack((W, b), x, y, box=(0, 1))

    def saved(images):
        return np.rint(images * 255).astype(np.uint8)

    def wrong(images):
        return ((saved(images) / 255) @ W.T).argmax(axis=1) != y

    assert not wrong(found.perturbed()).all()  # the nearest examples do not survive
    whole = saved(found.perturbed(step=1 / 255))
    assert wrong(whole / 255).all()
    steps = np.abs(whole.astype(int) - levels).max(axis=1)
    np.testing.assert_array_equal(steps, np.ceil(found.radii * 255))


def test_probabilities_are_refused_and_logits_taken(samples):
    """bethgelab/foolbox #618: given probabilities, not logits, an attack gets weaker."""
    x, y = samples
    model = LogisticRegression().fit(x, y)
    y = model.predict(x)
    with pytest.raises(ValueError, match="probabilities, not scores: pass the model itself"):
        advlinear.attack(model.predict_proba, x, y, "2")
    with pytest.raises(ValueError, match="probabilities: pass the logits"):
        advlinear.attack(lambda points: model.predict_proba(points), x, y, "2")
    radii = advlinear.attack(model.decision_function, x, y, "2").radii
    distances = np.abs(model.decision_function(x)) / np.linalg.norm(model.coef_)
    np.testing.assert_allclose(radii, distances, rtol=1e-9)


def test_a_budget_of_features_is_enough_or_not():
    """carlini/nn_robust_attacks #19: fix how many pixels change, and know whether that is enough.

    Here every set of pixels of that size is tried, each moved to the edge that lowers the score.
    """
    random = np.random.default_rng(1)
    x, w, b = random.random((20, 6)), random.normal(size=6), 0.3
    y = (x @ w + b > 0).astype(int)
    found = advlinear.attack((w, b), x, y, "0", box=(0, 1))
    for i, radius in enumerate(found.radii):
        a = np.where(y[i], w, -w)
        gains = a * (x[i] - np.where(a > 0, 0, 1))
        enough = [
            m
            for m in range(1, 7)
            for chosen in itertools.combinations(gains, m)
            if sum(chosen) >= abs(x[i] @ w + b)
        ]
        assert radius == min(enough, default=np.inf)


def test_labels_are_indices_and_one_hot_ones_are_told_how():
    """Trusted-AI/adversarial-robustness-toolbox #2825: labels (n,) as scikit-learn takes them fail,
    and the error says nothing of it."""
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(x, y)
    own = model.predict(x)
    scores, a = model.decision_function(x), model.coef_[own][:, None] - model.coef_  # (n, 3, d)
    with np.errstate(invalid="ignore"):
        each = (scores.max(axis=1)[:, None] - scores) / np.abs(a).sum(axis=2)
    np.testing.assert_allclose(
        advlinear.attack(model, x, own).radii, np.nanmin(each, axis=1), rtol=1e-9
    )
    with pytest.raises(ValueError, match=r"one-hot, pass y\.argmax"):
        advlinear.attack(model, x, np.eye(3)[own])
