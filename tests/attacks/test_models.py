"""The exact attack on the models, samples and constraints that people have.

Every radius is compared with a linear program, bisection or brute force; and every model itself is
asked on either side of it.
"""

import decimal
import fractions
import inspect
import itertools
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.optimize
import scipy.sparse
import sklearn.base
import sklearn.datasets
from conftest import flat
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    RidgeClassifier,
    SGDClassifier,
    SGDOneClassSVM,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC, OneClassSVM
from sklearn.utils import all_estimators

import advlinear
import model as linear_model
import runs
from advlinear import balls, samples
from advlinear.attacks import models, moves, refusals, rivals

NORMS = ["inf", "2", "1", "0"]
BELOW, ABOVE = 1 - 1e-6, 1 + 1e-6


def gaussian(n, d, k, seed):
    """Samples in [0, 1], a third of them at each end, the labels that (W, b) gives, and (W, b)."""
    random = np.random.default_rng(seed)
    x = np.clip(random.uniform(-1, 2, (n, d)), 0, 1)
    W, b = random.normal(size=(k, d)) * (random.random((k, d)) < 0.8), random.normal(size=k)
    return x, (x @ W.T + b).argmax(axis=1), W, b


def length(delta, scale, norm):
    """The size of a perturbation in units of the scale; inf if a fixed feature moves."""
    with np.errstate(divide="ignore", invalid="ignore"):
        units = np.where(delta == 0, 0, np.abs(delta) / scale)
    if norm == "0":
        return np.count_nonzero(units, axis=-1).astype(float)
    return np.linalg.norm(units, balls.ORDER[norm], axis=-1)


# --- references ------------------------------------------------------------------------------


def by_program(a, g, norm, low, high, scale):
    """The least size of delta in [low, high] with a @ delta <= -g for each row: by HiGHS for inf
    and 1, SLSQP for 2, all subsets of features for 0."""
    low, high = (np.where(scale > 0, side, 0) for side in (low, high))
    d = len(scale)
    if norm == "0":
        for m in range(d + 1):
            for chosen in itertools.combinations(np.flatnonzero(scale), m):
                c = np.zeros(d)
                c[list(chosen)] = 1
                ends = np.where(c > 0, np.where(a[0] > 0, low, high), 0)
                with np.errstate(invalid="ignore"):
                    reached = np.where(a[0] == 0, 0, a[0] * ends).sum()
                if reached <= -g[0]:
                    return float(m)
        return np.inf
    unit = np.where(scale > 0, scale, 1)
    if norm == "2" and len(a) == 1:  # delta is -t a, cut to the box, for some t
        ends = np.where(a[0] > 0, low, np.where(a[0] < 0, high, 0))
        with np.errstate(invalid="ignore"):
            if np.where(a[0] == 0, 0, a[0] * ends).sum() > -g[0]:
                return np.inf

        def delta(t):
            return np.clip(-t * a[0] * unit**2, low, high)

        t = scipy.optimize.bisect(lambda t: a[0] @ delta(t) + g[0], 0, 1e9, xtol=1e-15, rtol=1e-15)
        return np.linalg.norm(delta(t) / unit)
    if norm == "2":
        start = by_program(a, g, "1", low, high, scale)
        if np.isinf(start):
            return np.inf
        found = scipy.optimize.minimize(
            lambda v: v @ v / 2,
            np.zeros(d),
            jac=lambda v: v,
            bounds=list(zip(low / unit, high / unit, strict=True)),
            constraints=dict(
                type="ineq", fun=lambda v: -g - (a * unit) @ v, jac=lambda v: -(a * unit)
            ),
            method="SLSQP",
            options=dict(ftol=1e-15, maxiter=1000),
        )
        assert found.status in (0, 8)  # solved, or no step makes a difference any more
        return np.linalg.norm(found.x)
    parts = np.eye(d) if norm == "inf" else np.ones((1, d))  # of up + down, in units
    solved = scipy.optimize.linprog(
        [0] * (2 * d) + [1],
        A_ub=np.vstack(
            [
                np.hstack([a * unit, -a * unit, np.zeros((len(a), 1))]),
                np.hstack([parts, parts, -np.ones((len(parts), 1))]),
            ]
        ),
        b_ub=np.concatenate([-g, np.zeros(len(parts))]),
        bounds=[(0, s) for s in [*(high / unit), *(-low / unit), np.inf]],
        method="highs",
        options=dict(primal_feasibility_tolerance=1e-10, dual_feasibility_tolerance=1e-10),
    )
    assert solved.status in (0, 2)
    return solved.fun if solved.status == 0 else np.inf


def reference(x, own, W, b, norm, box, scale, target=None):
    """The radius of one sample: the least over the rivals, or that which beats all for a target."""
    low, high = (np.broadcast_to(side, x.shape) - x for side in box or (-np.inf, np.inf))
    scale = np.ones(len(x)) if scale is None else scale
    scores = W @ x + b
    if target is not None:
        others = np.arange(len(W)) != target
        a, g = (W - W[target])[others], (scores - scores[target])[others]
        return by_program(a, g, norm, low, high, scale) if (g > 0).any() else 0.0
    others = np.flatnonzero(np.arange(len(W)) != own)
    a, g = W[own] - W[others], scores[own] - scores[others]
    if (g <= 0).any():
        return 0.0
    pairs = zip(a, g, strict=True)
    return min(by_program(one[None], gap[None], norm, low, high, scale) for one, gap in pairs)


def tolerance(norm):
    """SLSQP ends when its steps are 1e-8 or so; HiGHS on a vertex."""
    return 1e-6 if norm == "2" else 1e-9


def box_of(kind, x, seed):
    random = np.random.default_rng(seed)
    if kind == "per sample":
        return x - random.random(x.shape), x + random.random(x.shape)
    if kind == "one side":
        return 0, np.inf
    return None if kind == "none" else (0, 1)


@pytest.mark.parametrize("kind", ["none", "numbers", "one side", "per sample"])
@pytest.mark.parametrize("norm", NORMS)
def test_radius_is_that_of_a_solver_whatever_the_box_the_scale_and_the_model(norm, kind):
    """2 to 5 classes; the model is (W, b), a function, or an estimator, in turn."""
    every = []
    for seed in range(9):
        k = 2 + seed % 4
        x, y, W, b = gaussian(8, 5, k, seed)
        y[0] = (y[0] + 1) % k
        box, scale = box_of(kind, x, seed), [None, [1, 2, 0, 0.3, 1], [0, 1, 1, 0, 5]][seed % 3]
        scale = scale if scale is None else np.float64(scale)
        model = (W, b)
        if seed // 3 == 1:
            model = lambda points, W=W, b=b: points @ W.T + b  # noqa: E731
        elif seed // 3 == 2 and k > 2:
            model = LogisticRegression()
            model.coef_, model.intercept_, model.classes_ = W, b, np.arange(k)
        found = advlinear.attack(model, x, y, norm, box, scale=scale)
        sides = [None] * len(x)
        if box is not None:
            sides = list(zip(*(np.broadcast_to(side, x.shape) for side in box), strict=True))
        expected = [reference(x[i], y[i], W, b, norm, sides[i], scale) for i in range(len(x))]
        np.testing.assert_allclose(found.radii, expected, rtol=tolerance(norm))
        moving = (found.radii > 0) & np.isfinite(found.radii)
        points = found.perturbed()
        assert (((points @ W.T + b).argmax(axis=1) != y) | found.tied)[moving].all()
        sizes = length(points - x, 1 if scale is None else scale, norm)
        assert (sizes <= found.radii * (1 + 2e-6) + 1e-12)[moving].all()
        assert (sizes[~moving] == 0).all()
        assert box is None or ((points >= box[0]) & (points <= box[1])).all()
        every.extend(found.radii)
    assert 0 in every
    assert len(set(every)) > (4 if norm == "0" and kind != "none" else 1)


@pytest.mark.parametrize("kind", ["none", "numbers", "per sample"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_target_is_that_of_a_solver(norm, kind):
    """And each sample moved a little further than its radius is taken for its target."""
    every, several = [], 0
    for seed in range(6):
        k = 2 + seed
        x, y, W, b = gaussian(5, 6, k, seed)
        target = np.random.default_rng(seed).integers(0, k, len(x))
        target[0] = y[0]
        box, scale = box_of(kind, x, seed), None if seed % 2 else np.float64([1, 0, 2, 1, 1, 3])
        found = advlinear.attack((W, b), x, None, norm, box, scale=scale, target=target)
        sides = [None] * len(x)
        if box is not None:
            sides = list(zip(*(np.broadcast_to(side, x.shape) for side in box), strict=True))
        expected = [
            reference(x[i], y[i], W, b, norm, sides[i], scale, target[i]) for i in range(len(x))
        ]
        np.testing.assert_allclose(found.radii, expected, rtol=max(tolerance(norm), 1e-7))
        reached = (found.perturbed() @ W.T + b).argmax(axis=1)
        finite = np.isfinite(found.radii)
        assert (reached == target)[finite].all()
        assert (found.rival == target)[finite].all()
        sizes = length(found.perturbed() - x, 1 if scale is None else scale, norm)
        assert (sizes <= found.radii * (1 + 1e-4) + 1e-12)[finite].all()
        assert (
            length(found.perturbed(1e-3) - x, 1 if scale is None else scale, norm) <= 1.001e-3
        ).all()
        alone = advlinear.attack((W, b), x, y, norm, box, scale=scale)
        assert (found.radii >= alone.radii * (1 - 1e-9))[target != y].all()
        every.extend(found.radii)
        several += k > 2 and (found.radii > alone.radii * 1.001).sum()
    assert {0, np.inf} < set(every) if kind != "none" else 0 in every
    assert several > 2


def test_target_of_a_sample_that_several_rivals_lead():
    """In the plane, by hand: from 0, where both lead by 1, w_t - w_k = (1, 0) and (0, 1) ask for
    (1, 1), at sqrt(2) in L2 and 2 in L1; and one rival alone asks for 1."""
    W, b = [[0, 0], [-1, 0], [0, -1]], [0, 1, 1]
    for norm, size in (("inf", 1), ("2", np.sqrt(2)), ("1", 2)):
        found = advlinear.attack((W, b), [[0, 0]], None, norm, target=0)
        np.testing.assert_allclose(found.radii, size, rtol=1e-9)
        assert advlinear.attack((W, b), [[0, 0]], None, norm, (0, 0.9), target=0).radii == np.inf
    with pytest.raises(ValueError, match="a target is not taken with norm 0"):
        advlinear.attack((W, b), [[0, 0]], None, 0, target=0)
    with pytest.raises(ValueError, match=r"label .*3.* in target is none of the classes"):
        advlinear.attack((W, b), [[0, 0]], None, target=3)
    with pytest.raises(ValueError, match="target needs a class, or one per sample"):
        advlinear.attack((W, b), [[0, 0]], None, target=[1, 2])


# --- never a wrong radius ----------------------------------------------------------------------


def swallowed():
    """One large weight and 783 small ones, samples, and the radii m / ||w||_1."""
    w = np.r_[1, np.random.default_rng(0).normal(0, 1e-4, 783)].astype("f4")
    x = np.zeros((4, 784))
    x[:, 0] = [1, 0.5, 0, 0.2]
    exact = np.float64(w)
    return w, np.float32(0.3), x, (x @ exact + np.float32(0.3)) / np.abs(exact).sum()


@pytest.mark.parametrize("box", [None, (-1e6, 1e6)])
def test_a_function_in_float32(box):
    """Moves of a thousandth would be lost in its rounding: radii would be 0.3 % too large."""
    w, b, x, expected = swallowed()
    found = advlinear.attack(lambda P: P.astype("f4") @ w + b, x, np.ones(4, int), "inf", box)
    np.testing.assert_allclose(found.radii, expected, rtol=1e-6)
    assert (np.float32(found.perturbed()) @ w + b <= 0).all()


def test_a_function_in_float32_that_cannot_be_asked_far_away():
    """In the data its small weights are lost in rounding, which is refused; in a box they are not,
    as features may move by 1 in it."""
    w, b, x, expected = swallowed()

    def function(points):
        assert (np.abs(points) <= 40).all()
        return points.astype("f4") @ w + b

    found = advlinear.attack(function, x, np.ones(4, int), "inf", (-40, 40))
    np.testing.assert_allclose(found.radii, expected, rtol=1e-4)
    message = "the model's scores are exact to .* too coarse for the radius of sample"
    with pytest.raises(ValueError, match=message):
        advlinear.attack(function, x, np.ones(4, int))


NOT_LINEAR = [
    lambda p: 1e6 + np.tanh(5 * p[:, 0]),
    lambda p: np.stack([1e6 + np.tanh(5 * p[:, 0]), 1e6 + 0 * p[:, 0]], axis=1),
    lambda p: p @ np.ones(3) + 1e-3 * np.sin(9 * p[:, 1]),
    lambda p: np.float32(p @ np.ones(3) + 1e6 + np.float32(0)) - np.float32(1e6),
    lambda p: np.abs(p @ np.ones(3) + 2),
]


@pytest.mark.parametrize("function", NOT_LINEAR)
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_a_function_that_is_not_linear_is_refused(function, norm):
    x = np.random.default_rng(0).random((20, 3))
    y = np.zeros(20, int) if np.ndim(function(x)) == 2 else np.ones(20, int)
    with pytest.raises(ValueError, match=r"not linear|too coarse|just (below|above)"):
        advlinear.attack(function, x, y, norm)


def test_the_model_has_the_last_word():
    """A function that is linear wherever it is probed, but not where its samples are moved to."""
    w, x = np.float64([1, -2, 3]), np.random.default_rng(0).random((3, 3)) + np.array([1, 0, 1])
    known = np.append(x, x.mean(axis=0)[None], axis=0)

    def function(points):
        near = np.abs(points[:, None] - known).max(axis=2).min(axis=1)
        return points @ w + 1 + 0.5 * ((near > 1e-9) & (points @ w + 1 < 1e-3) & (near < 2))

    with pytest.raises(ValueError, match="sample 0: the model is not wrong just above the radius"):
        advlinear.attack(function, x, np.ones(3, int))


def test_what_predicts_otherwise_near_the_boundary_is_refused():
    x = gaussian(40, 4, 2, seed=1)[0]
    y = (x[:, 0] > 0.5).astype(int)
    model = LogisticRegression().fit(x, y)

    class Shifted:
        classes_ = model.classes_
        decision_function = staticmethod(model.decision_function)

        def predict(self, points):
            return (model.decision_function(points) > 1e-3).astype(int)

    with pytest.raises(ValueError, match=r"sample \d+: the model is not|does not predict"):
        advlinear.attack(Shifted(), x, y)


def test_a_tie_at_the_edge_of_the_box():
    """[.5, .5] between [1, 0] and [0, 0] can only tie, at (0, .5), whoever is asked; with a bias of
    -1e-3 on its own class it flips before."""
    ties = advlinear.attack(([[1, 0], [0, 0]], [0, 0]), [[0.5, 0.5]], [0], box=(0, 1))
    assert ties.radii == [0.5]
    assert ties.tied.all()
    assert ties.perturbed().tolist() == [[0, 0.5]]
    flips = advlinear.attack(([[1, 0], [0, 0]], [-1e-3, 0]), [[0.5, 0.5]], [0], box=(0, 1))
    np.testing.assert_allclose(flips.radii, 0.499, rtol=1e-12)
    assert not flips.tied.any()
    assert flips.perturbed()[0, 0] < 1e-3


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("size", [1e-160, 1e-100, 1.0, 1e100, 1e155])
def test_weights_and_samples_of_any_size(size, norm, box):
    """Squares underflow or overflow, radii do not: they are those of size 1, times the size."""
    x, y, W, b = gaussian(6, 4, 3, seed=3)
    expected = advlinear.attack((W, b), x, y, norm, (0, 1) if box else None).radii
    for weights, unit in ((size, 1.0), (1.0, size)):
        known = (W * weights, b * weights * unit), x * unit, y, norm
        found = advlinear.attack(*known, (0, unit) if box else None)
        np.testing.assert_allclose(found.radii, expected * unit, rtol=1e-12)


def test_a_small_radius_is_not_missed_for_one_with_a_smaller_bound():
    """Rival 1 has the smaller bound, 0.0004 or so, but the box lets its first feature move by
    0.0001 only, and so is 0.0016 away; rival 2 is 0.001 away."""
    W = np.float64([[0, 0, 0], [-1, 0, -0.25], [0, -1, -1e-3]])
    x, b = np.float64([[0.4995, 0.5, 0.5]]), np.float64([0, 0.624, 0.4995])
    box = np.float64([0.4994, 0, 0]), np.ones(3)
    for norm in ("inf", "2", "1"):
        found = advlinear.attack((W, b), x, [0], norm, box)
        np.testing.assert_allclose(
            found.radii, reference(x[0], 0, W, b, norm, box, None), rtol=1e-6
        )
        assert found.radii < 1.1e-3
        assert found.rival == 2


def test_a_knapsack_that_the_last_feature_fills_by_a_millionth():
    """A target a ten-millionth above what all but the last feature give needs that one, too."""
    size, c = np.float64([3, 2, 1]), np.float64([[1, 1, 1]])
    target = np.float64([5 * (1 + 1e-7)])
    assert balls.knapsack(c, size, target) == pytest.approx(2 + 5e-7, rel=1e-12)
    assert np.isinf(balls.knapsack(c, size, np.float64([6 * (1 + 1e-7)])))


# --- networks ------------------------------------------------------------------------------------


def check_network(model, scores, w, x, y):
    """Radii to 1e-5 of float64's and 1e-7 of the data, and every perturbed sample flips."""
    exact = y * (x.reshape(len(x), -1) @ w + scores(0 * x[:1])[0])
    for norm in ("inf", "2", "1"):
        for box in (None, (0, 1)):
            found = advlinear.attack(model, x, y, norm, box)
            if box is None:
                expected = np.maximum(exact / balls.dual_norm(w, norm), 0)
                np.testing.assert_allclose(found.radii, expected, rtol=1e-5, atol=1e-7)
            flips = (found.radii > 0) & np.isfinite(found.radii)
            assert flips.sum() > 0.9 * len(x)
            assert found.perturbed().shape == x.shape
            assert (y * scores(found.perturbed()) <= 0)[flips].all()


def test_a_keras_model(trained, sample):
    import keras

    run = runs.read_runs(trained / sample.name)["regular-epochs5"]
    model = linear_model.linear((28, 28, 1))
    w = np.float32(run.w)
    model.set_weights([w[:, None], np.float32([run.b])])
    check_network(
        model,
        lambda points: model(np.float32(points)).numpy()[:, 0].astype(float),
        np.float64(w),
        np.float64(sample.x_test[::4]),
        sample.y_test[::4].astype(int),
    )
    rows = flat(sample.x_test[:9])  # rows of numbers take the shape of the model's input
    y = sample.y_test[:9]
    images = advlinear.attack(model, sample.x_test[:9], y)
    assert (advlinear.attack(model, rows, y).radii == images.radii).all()
    with pytest.raises(ValueError, match=r"the model gives no scores: .*(shape|dimension)"):
        advlinear.attack(model, rows[:, :7], y)
    probabilities = keras.Sequential([model, keras.layers.Dense(3), keras.layers.Softmax()])
    with pytest.raises(ValueError, match=r"not linear.* look like probabilities: pass the logits"):
        advlinear.attack(probabilities, sample.x_test[:9], np.zeros(9, int))
    with pytest.raises(ValueError, match=r"a list is no model: .* Keras keeps"):
        advlinear.attack(model.get_weights(), rows, y)
    random = [keras.layers.RandomFlip(), keras.layers.RandomRotation(0.5)]
    random += [keras.layers.GaussianNoise(1.0)]
    random += [keras.layers.Dropout(0.5), keras.layers.RandomTranslation(0.5, 0.5)]
    augmented = keras.Sequential([keras.Input((28, 28, 1)), *random, *model.layers])
    np.testing.assert_array_equal(
        advlinear.attack(augmented, sample.x_test[:9], y).radii, images.radii
    )


def test_a_torch_model():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1))
    x = np.random.default_rng(0).random((40, 1, 6, 6))

    def scores(points):
        return (
            model(torch.as_tensor(points, dtype=torch.float32)).detach().numpy()[:, 0].astype(float)
        )

    y = np.where(scores(x) > 0, 1, -1)
    check_network(model, scores, np.float64(model[1].weight.detach().numpy()[0]), x, y)


def test_a_torch_model_in_training_mode_is_refused_before_it_is_called():
    """Whichever of its modules is; its running statistics stay, and then eval() uses them."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    x = np.random.default_rng(0).random((30, 4))
    for _ in range(50):
        model(torch.randn(64, 4))
    y = model.eval()(torch.as_tensor(x, dtype=torch.float32)).argmax(axis=1).numpy()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    known = advlinear.attack(model, x, y).radii
    for training in (model, model[1]):
        model.eval()
        training.train()
        with pytest.raises(ValueError, match=r"training mode \(BatchNorm1d\).*call model.eval\(\)"):
            advlinear.attack(model, x, y)
    for off in (torch.nn.Dropout(0.5), torch.nn.Sequential(torch.nn.RReLU())):
        with pytest.raises(ValueError, match=r"training mode .*call model.eval\(\)"):
            advlinear.attack(torch.nn.Sequential(model.eval(), off), x, y)
    np.testing.assert_array_equal(advlinear.attack(model.eval(), x, y).radii, known)
    assert all((value == state[name]).all() for name, value in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters())
    norm = model[1]
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().double().numpy()
    W = model[0].weight.detach().double().numpy() * scale[:, None]
    gaps = model(torch.as_tensor(x, dtype=torch.float32)).detach().double().numpy()
    gaps = gaps[np.arange(30), y][:, None] - gaps
    with np.errstate(invalid="ignore"):
        radii = np.nanmin(gaps / np.abs(W[y][:, None] - W).sum(axis=2), axis=1)
    np.testing.assert_allclose(known, radii, rtol=1e-4)


def test_torch_tensors_are_taken_as_weights_samples_and_labels():
    """With gradients; a tensor that NumPy cannot hold is refused by name."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    layer, x = torch.nn.Linear(5, 3), torch.rand(20, 5, requires_grad=True)
    torch.nn.init.normal_(layer.weight)
    y = layer(x).argmax(axis=1)
    W, b = (part.detach().numpy() for part in (layer.weight, layer.bias))
    known = advlinear.attack((W, b), x.detach().numpy(), y.numpy(), "2", (0, 1))
    ones = torch.ones(5, requires_grad=True)
    for found in (
        advlinear.attack((layer.weight, layer.bias), x, y, "2", (0, 1)),
        advlinear.attack((layer.weight, layer.bias), x, y, "2", (0 * ones, ones), scale=ones),
    ):
        np.testing.assert_array_equal(found.radii, known.radii)
        np.testing.assert_array_equal(found.perturbed(), known.perturbed())
    function = lambda points: layer(torch.as_tensor(points, dtype=torch.float32))  # noqa: E731
    probed = advlinear.attack(function, x, y, "2", (0, 1))
    np.testing.assert_allclose(probed.radii, known.radii, rtol=1e-4)
    one = (x[:, 0] > 0.5).int()
    taken = advlinear.minimise(x, one, 0.1, sample_weight=torch.ones(20))
    assert taken.primal == advlinear.minimise(x.detach().numpy(), one.numpy(), 0.1).primal
    for spoiled in (x.bfloat16(), x.to_sparse(), x.to("meta")):
        with pytest.raises(ValueError, match=r"X is a tensor .* that NumPy cannot hold: pass one"):
            advlinear.attack((W, b), spoiled, y)
    for spoiled in (layer.weight.bfloat16(), layer.weight.to("meta")):
        with pytest.raises(ValueError, match=r"\(W, b\) is a tensor .* that NumPy cannot hold"):
            advlinear.attack((spoiled, b), x, y)
    with pytest.raises(ValueError, match="X holds complex numbers"):
        advlinear.attack((W, b), x + 1j, y)


def test_torch_buffers_set_the_precision_like_parameters():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Frozen(torch.nn.Module):
        def __init__(self, W, b):
            super().__init__()
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("W", W)
            self.register_buffer("b", b)

        def forward(self, points):
            return points @ self.W.T + self.b

    x, y, W, b = gaussian(20, 5, 3, seed=0)
    for kind, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-12)):
        model = Frozen(torch.as_tensor(W, dtype=kind), torch.as_tensor(b, dtype=kind)).eval()
        weights = model.W.double().numpy(), model.b.double().numpy()
        known = advlinear.attack(weights, x, y, "2", (0, 1))
        found = advlinear.attack(model, x, y, "2", (0, 1))
        np.testing.assert_allclose(found.radii, known.radii, rtol=tolerance, atol=1e-6)


def check_messages(messages, X, y):
    """Each model is refused by its line, with a box and without."""
    for model, message in messages:
        for box in (None, (0, 1)):
            with pytest.raises(ValueError, match=message) as error:
                advlinear.attack(model, X, y, box=box)
            assert "\n" not in str(error.value)


QUANTISED = r"the model is quantised \({}\), so that its scores are not linear: attack the model"


@pytest.mark.filterwarnings("ignore")
def test_messages_for_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    x = np.random.default_rng(0).random((30, 6))
    linear, quantization = torch.nn.Linear(6, 1).eval(), torch.ao.quantization

    def copied(*more):
        return torch.nn.Sequential(torch.nn.Linear(6, 1), *more).eval()

    static = torch.nn.Sequential(quantization.QuantStub(), linear, quantization.DeQuantStub())
    static.eval().qconfig = quantization.get_default_qconfig("x86")
    prepared = quantization.prepare(static)
    prepared(torch.as_tensor(x, dtype=torch.float32))
    check_messages(
        [
            (torch.nn.Linear, "Linear is a class: pass a fitted instance of it"),
            (copied().half(), "the model computes in float16, too coarse"),
            (copied().bfloat16(), "the model computes in bfloat16, too coarse"),
            (lambda p: linear(torch.as_tensor(p).float()).bfloat16(), "computes in bfloat16"),
            (copied(torch.nn.Sigmoid()), "look like probabilities: pass the logits"),
            (
                quantization.quantize_dynamic(copied(), {torch.nn.Linear}, dtype=torch.qint8),
                QUANTISED.format("qint8"),
            ),
            (quantization.convert(prepared), QUANTISED.format("qint8")),
        ],
        x,
        np.arange(30) % 2,
    )


@pytest.mark.filterwarnings("ignore")
def test_messages_for_keras():
    import keras

    def model(*more, dtype=None):
        first = keras.layers.Dense(1, dtype=dtype)
        return keras.Sequential([keras.layers.Input((6,)), first, *more])

    def quantised(mode):
        made = model()
        made.quantize(mode)
        return made

    x = np.random.default_rng(0).random((30, 6))
    float32 = keras.layers.Activation("linear", dtype="float32")
    check_messages(
        [
            (keras.Sequential, "Sequential is a class: pass a fitted instance of it"),
            (model(dtype="float16"), "the model computes in float16, too coarse"),
            (model(float32, dtype="mixed_bfloat16"), "the model computes in bfloat16, too coarse"),
            (model(keras.layers.Activation("sigmoid")), "look like probabilities: pass the logits"),
            *((quantised(one), QUANTISED.format(one)) for one in ("int8", "int4", "float8")),
        ],
        x,
        np.arange(30) % 2,
    )


def test_messages_for_torch_by_name(monkeypatch):
    """Of a stand-in, also where PyTorch is not installed."""

    class Module:
        def __init__(self, kind=None):
            self.kind = kind

        def parameters(self):
            return [SimpleNamespace(dtype=self.kind)] if self.kind else []

        def buffers(self):
            return []

        def modules(self):
            return [self]

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(nn=SimpleNamespace(Module=Module)))
    packed = type("Linear", (Module,), dict(__module__="torch.ao.nn.quantized.modules.linear"))
    for model, message in (
        (Module("torch.float16"), "computes in float16"),
        (Module("torch.bfloat16"), "computes in bfloat16"),
        (Module("torch.qint8"), QUANTISED.format("qint8")),
        (packed("torch.float32"), QUANTISED.format("qint8")),
    ):
        with pytest.raises(ValueError, match=message):
            refusals.by_name(model)
    refusals.by_name(Module("torch.float32"))


# --- the line that helps -------------------------------------------------------------------------


def logistic(points):
    return 1 / (1 + np.exp(-(points @ [8, -6, 4, -2] - 2)))


VOTES = "lets pairs of classes vote, and has no linear score per class: use"
ONE_BY_ONE = r"predicts several labels per sample: attack them one by one, estimators_\[k\] with"


@pytest.mark.filterwarnings("ignore")
def test_models_that_are_not_linear_are_refused_by_the_line_that_helps():
    x = np.random.default_rng(0).random((60, 4))
    sums = x @ [1, 2, -1, 0.5]
    two, three = (sums > 1.2).astype(int), np.digitize(sums, [0.9, 1.5])
    several = (x[:, :3] > 0.5).astype(int)
    fitted, words = LogisticRegression().fit(x, three), np.array(list("abc"))[three]
    in_words, pair = clone(fitted).fit(x, words), clone(fitted).fit(x, two)
    search = GridSearchCV(make_pipeline(StandardScaler(), SVC()), {}, cv=2).fit(x, two)
    of_each = OneVsRestClassifier(make_pipeline(StandardScaler(), SVC(kernel="poly"))).fit(x, three)
    labels, chain = ": these are labels, not scores: pass the model itself", ClassifierChain(fitted)
    for model, y, message in (
        (LogisticRegression, two, "LogisticRegression is a class: pass a fitted instance of it"),
        (fitted.predict, three, "LogisticRegression.predict" + labels),
        (in_words.predict, words, "LogisticRegression.predict" + labels),
        (search.predict, two, "GridSearchCV.predict" + labels),
        (lambda p: pair.predict(p), two, "look like labels: pass the model, not its predict"),
        (lambda p: fitted.predict(p), three, "scores of two classes; labels are no scores"),
        (lambda p: in_words.predict(p), words, "gives labels, not scores: pass the model"),
        (lambda p: in_words.predict(p).astype(object), words, "gives labels, not scores"),
        (fitted.predict_proba, three, "predict_proba: these are probabilities, not scores"),
        (lambda p: fitted.predict_proba(p), three, "look like probabilities: pass the logits"),
        (logistic, two, "look like probabilities: pass the logits"),
        (lambda p: logistic(p)[:, None], two, "look like probabilities: pass the logits"),
        (lambda p: (p @ np.ones(4)).astype(np.float16), two, "computes in float16, too coarse"),
        (SVC().fit(x, two), two, "SVC: rbf is not linear: use LinearSVC, or kernel='linear'"),
        (SVC(kernel="sigmoid").fit(x, three), three, "SVC: sigmoid is not linear"),
        (NuSVC(kernel="poly").fit(x, two), two, "NuSVC: poly is not linear"),
        (search, two, "SVC: rbf is not linear"),
        (of_each, three, "SVC: poly is not linear"),
        (OneClassSVM().fit(x), 2 * two - 1, "OneClassSVM: rbf is not linear: use SGDOneClassSVM"),
        (SVC(kernel="linear").fit(x, three), three, f"SVC of more than two classes {VOTES} Linear"),
        (OneVsOneClassifier(fitted).fit(x, two), two, f"OneVsOneClassifier {VOTES} OneVsRest"),
        (OneVsOneClassifier(fitted).fit(x, three), three, f"OneVsOneClassifier {VOTES} OneVsRest"),
        (chain.fit(x, several), several, "ClassifierChain predicts several labels, each from"),
        (chain, three, "ClassifierChain predicts several labels, each from those before it"),
        (MultiOutputClassifier(fitted).fit(x, several), several, "MultiOutput.*" + ONE_BY_ONE),
        (OneVsRestClassifier(pair).fit(x, several), several, "OneVsRest.*" + ONE_BY_ONE),
        (
            fitted,
            several,
            r"\(60, 3\): if a sample has several labels, attack a classifier of each",
        ),
    ):
        with pytest.raises(ValueError, match=message) as error:
            advlinear.attack(model, x, y)
        assert "\n" not in str(error.value)
    with pytest.raises(
        ValueError, match=r"predicts has shape \(60, 3\): several labels per sample"
    ):
        advlinear.attack(RidgeClassifier().fit(x, several), x, None, target=1)


def test_linear_models_that_look_alike_are_taken():
    """SVMs with a linear kernel in other words, a regression's predict, float16 weights."""
    x = np.random.default_rng(0).random((60, 4))
    y = (x @ [1, 2, -1, 0.5] > 1.2).astype(int)
    regression, half = LinearRegression().fit(x, 2 * y - 1), np.float16([1, 2, -1, 0.1])
    for model, w, b in (
        (SVC(kernel="poly", degree=1, gamma=1).fit(x, y), None, None),
        (SVC(kernel=lambda one, other: one @ other.T).fit(x, y), None, None),
        (regression.predict, regression.coef_, regression.intercept_),
        ((half, np.float16(-1.2)), np.float64(half), np.float64(np.float16(-1.2))),
    ):
        if w is None:
            w = (model.dual_coef_ @ x[model.support_])[0]
            b = model.intercept_[0]
        expected = np.maximum((2 * y - 1) * (x @ w + b) / np.abs(w).sum(), 0)
        np.testing.assert_allclose(
            advlinear.attack(model, x, y).radii, expected, rtol=1e-6, atol=1e-12
        )


@pytest.mark.filterwarnings("ignore:overflow")
def test_log_odds_that_are_infinite_far_away_need_a_box():
    """Of probabilities 1e-4 to 1 - 1e-4; in the box they are those of the logits, to rounding."""
    x = np.random.default_rng(0).random((60, 4))

    def log_odds(points):
        with np.errstate(divide="ignore"):
            return np.log(logistic(points) / (1 - logistic(points)))

    y = (log_odds(x) > 0).astype(int)
    assert np.isposinf(log_odds(10 * np.eye(4))).any()
    with pytest.raises(ValueError, match="infinite scores, away from X: give a box that features"):
        advlinear.attack(log_odds, x, y)
    found, expected = (
        advlinear.attack(model, x, y, box=(0, 1)).radii
        for model in (log_odds, ([8, -6, 4, -2], -2))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_minimum_and_a_model_of_a_path_are_models():
    """A `Minimum` with its labels; a `Best`, which has none, as (w, b)."""
    x = np.random.default_rng(0).random((60, 4))
    own = (x @ [1, 2, -1, 0.5] > 1.2).astype(int)
    y = np.array(["no", "yes"])[own]
    best, path = advlinear.minimise(x, y, 0.1), advlinear.path(x, y, 0.05, 0.2)
    found = advlinear.attack(best, x, y, "2")
    expected = advlinear.attack((best.w, best.b), x, own, "2")
    np.testing.assert_array_equal(found.radii, expected.radii)
    assert (found.rival == np.array(["no", "yes"])[expected.rival]).all()
    towards = advlinear.attack(best, x, None, target="yes").radii
    assert ((towards == 0) == (x @ best.w + best.b >= 0)).all()
    model = path.at(0.1)
    expected = advlinear.attack((model.w, model.b), x, own).radii
    for labels in (own, 2 * own - 1, y == path.classes[1]):
        np.testing.assert_array_equal(advlinear.attack(model, x, labels).radii, expected)
    with pytest.raises(ValueError, match=r"label 'no' .*Best has none of its own: pass y == path"):
        advlinear.attack(model, x, y)
    with pytest.raises(ValueError, match=r"a Path has a model for every radius: .* path.at\(eps\)"):
        advlinear.attack(path, x, y)


def test_a_minimum_of_several_classes_is_a_model():
    """With its labels and, where it was found on a DataFrame, its names; else as (W, b)."""
    x = np.random.default_rng(0).random((60, 4))
    own = np.argmax(x[:, :3] * [1, 1.2, 0.9], axis=1)
    y = np.array(["low", "mid", "top"])[own]
    best = advlinear.minimise(x, y, 0.05)
    assert best.W.shape == (3, 4)
    for norm in NORMS:
        found = advlinear.attack(best, x, y, norm)
        expected = advlinear.attack((best.W, best.b), x, own, norm)
        np.testing.assert_array_equal(found.radii, expected.radii)
        assert (found.rival == best.classes[expected.rival]).all()
    towards = advlinear.attack(best, x, None, target="mid").radii
    assert ((towards == 0) == ((x @ best.W.T + best.b).argmax(axis=1) == 1)).all()
    frame = pd.DataFrame(x, columns=list("abcd"))
    named = advlinear.minimise(frame, y, 0.05)
    expected = advlinear.attack((best.W, best.b), x, own).radii
    for known in (x, frame, frame[list("cadb")]):
        radii = advlinear.attack(named, known, y).radii
        np.testing.assert_allclose(radii, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="lacks column 'e' of X"):
        advlinear.attack(named, frame.rename(columns={"d": "e"}), y)


def test_attack_says_what_takes_eps():
    with pytest.raises(
        TypeError, match=r"attack takes no eps.*: curve\(eps\) and perturbed\(eps\)"
    ):
        advlinear.attack((W, B), X, Y, eps=0.1)
    assert "eps" not in inspect.signature(advlinear.attack).parameters
    assert list(inspect.signature(advlinear.attack).parameters)[:3] == ["model", "X", "y"]


def test_numbers_and_text_of_numpy_are_shown_as_those_of_python():
    found, model = advlinear.attack((W, B), X, Y), LogisticRegression().fit(X, Y.astype(str))
    path = advlinear.path(X, Y > 0, 0.1, 0.2)
    long = np.linspace(0, 1, 200) - 0.5
    for refused, message in (
        (lambda: advlinear.attack(model, X, np.full(30, "7")), "label '7' in y is none of the"),
        (lambda: advlinear.attack(model, X, None, target="7"), "label '7' in target is none"),
        (lambda: advlinear.attack((W, B), X, Y + 7), r"label \d+ in y is none of .* \[0, 1, 2\]$"),
        (lambda: advlinear.attack((W, B), X, Y, np.str_("3")), "norm .* not '3'"),
        (lambda: advlinear.minimise(X, Y > 0, np.float32(-1)), "eps .* not -1.0"),
        (lambda: advlinear.minimise(X, Y > 0, 0.1, tol=np.float64(2)), "tol .* not 2.0"),
        (lambda: advlinear.minimise(X, Y > 0, 0.1, loss=np.str_("l")), "loss .* not 'l'"),
        (
            lambda: advlinear.path(X, Y > 0, 0.1, 0.2, tol="a"),
            "tol must be at least 0 and below 1, .* not 'a'",
        ),
        (lambda: path.at("a"), "eps needs real numbers"),
        (lambda: path.bounds(long), "eps must be from 0.1 to 0.2, not -0.5"),
        (lambda: found.curve(long), "eps needs numbers of at least 0, not -0.5"),
        (lambda: found.perturbed(long[:30]), "eps must be finite and at least 0, not -0."),
        (lambda: found.perturbed(step="0.1"), "step must be a finite number above 0, not '0.1'"),
        (lambda: found.perturbed(step=np.float64(0)), "step .* not 0.0"),
        (lambda: found.perturbed(step=1j), "step must be a finite number above 0, not 1j"),
        (lambda: found.perturbed(step=[0.1]), "step must be a finite number above 0"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            refused()
        assert "np." not in str(error.value)
        assert "\n" not in str(error.value)


# --- scikit-learn --------------------------------------------------------------------------------

NO_SCORES = "needs a decision_function or predict_joint_log_proba"
REFUSED = dict.fromkeys(
    """BaggingClassifier CalibratedClassifierCV DecisionTreeClassifier DummyClassifier
    ExtraTreeClassifier ExtraTreesClassifier GaussianProcessClassifier KNeighborsClassifier
    LabelPropagation LabelSpreading MLPClassifier OutputCodeClassifier RadiusNeighborsClassifier
    RandomForestClassifier VotingClassifier""".split(),
    NO_SCORES,
) | dict.fromkeys(
    """AdaBoostClassifier BernoulliNB GaussianNB GradientBoostingClassifier
    HistGradientBoostingClassifier QuadraticDiscriminantAnalysis StackingClassifier""".split(),
    "the model is not linear",
)
REFUSED |= dict(
    CategoricalNB="the model gives no scores: index",
    NearestCentroid="does not predict the class of its largest score",
    NuSVC="NuSVC: rbf is not linear: use LinearSVC",
    OneVsOneClassifier="lets pairs of classes vote, .*: use OneVsRestClassifier",
    SVC="SVC: rbf is not linear: use LinearSVC",
)
EXACT = """ComplementNB LinearDiscriminantAnalysis LinearSVC LogisticRegression LogisticRegressionCV
    MultinomialNB OneVsRestClassifier PassiveAggressiveClassifier Perceptron RidgeClassifier
    RidgeClassifierCV SGDClassifier""".split()
ELSEWHERE = """ClassifierChain FixedThresholdClassifier MultiOutputClassifier SelfTrainingClassifier
    TunedThresholdClassifierCV""".split()  # of two classes, or of several outputs


def made(kind):
    needed = {"estimator": LogisticRegression(), "estimators": [("a", LogisticRegression())]}
    names = kind.__init__.__code__.co_varnames
    without = kind.__name__ in ("AdaBoostClassifier", "BaggingClassifier")
    return kind(**{name: needed[name] for name in needed if name in names and not without})


@pytest.mark.filterwarnings("ignore")
def test_each_classifier_of_scikit_learn_is_exact_or_refused():
    """Three classes in the plane of positive numbers; each is in one of the lists above."""
    random = np.random.default_rng(0)
    x = random.random((120, 5))
    y = np.array(list("abc"))[np.digitize(x @ [1, 2, -1, 0.5, 0], [0.6, 1.4])]
    seen = set()
    for name, kind in all_estimators(type_filter="classifier"):
        seen.add(name)
        if name in ELSEWHERE:
            continue
        model = made(kind).fit(x, y)
        if name in REFUSED:
            with pytest.raises(ValueError, match=REFUSED[name]) as error:
                advlinear.attack(model, x, y, box=(0, 1))
            assert "\n" not in str(error.value)
            continue
        assert name in EXACT
        for norm in NORMS:
            found = advlinear.attack(model, x, y, norm, (0, 1))
            flips = (found.radii > 0) & np.isfinite(found.radii)
            assert ((found.radii > 0) == (model.predict(x) == y)).all()
            assert flips.sum() > 20
            predicted = model.predict(found.perturbed())
            assert (predicted != y)[flips & ~found.tied].all()
            assert norm == "0" or (predicted == found.rival)[flips & ~found.tied].all()
            assert (found.rival != y)[flips].all()
    assert seen == {*EXACT, *REFUSED, *ELSEWHERE}


@pytest.mark.parametrize("model", [OneClassSVM(kernel="linear", nu=0.3), SGDOneClassSVM(nu=0.3)])
def test_one_class(model):
    """Labels are +1 and -1, though all may be +1. w.x - rho is the score."""
    x = np.random.default_rng(0).random((60, 4)) + 0.1
    model = sklearn.base.clone(model).fit(x)
    scores = model.decision_function(x)
    found = advlinear.attack(model, x, np.ones(60), "2")
    expected = np.maximum(scores / np.linalg.norm(model.coef_), 0)
    np.testing.assert_allclose(found.radii, expected, rtol=1e-9, atol=1e-15)
    flips = found.radii > 0
    assert (model.predict(found.perturbed()) == -1)[flips].all()
    assert (found.rival == -1).all()
    assert (advlinear.attack(model, x, model.predict(x)).radii > 0).mean() > 0.9


AFFINE = [
    StandardScaler(),
    StandardScaler(with_std=False),
    MinMaxScaler(),
    MaxAbsScaler(),
    RobustScaler(),
    PCA(3),
    PCA(3, whiten=True),
    TruncatedSVD(3),
    SelectKBest(k=3),
    "passthrough",
]


@pytest.mark.parametrize("step", AFFINE, ids=str)
def test_weights_through_the_affine_steps_of_a_pipeline(step, monkeypatch):
    """They are read, not probed: those of differences of scores, to 1e-9."""
    x, y, _, _ = gaussian(60, 5, 3, seed=0)
    x = x * [1, 2, 3, 4, 5] + 1
    model = make_pipeline(
        step,
        OneVsRestClassifier(LogisticRegression())
        if step == "passthrough"
        else LogisticRegression(),
    ).fit(x, y)
    probed = advlinear.attack(lambda points: model.decision_function(points), x, model.predict(x))
    monkeypatch.setattr(models, "_probed", None)
    found = advlinear.attack(GridSearchCV(model, {}).fit(x, y), x, model.predict(x))
    np.testing.assert_allclose(found.radii, probed.radii, rtol=1e-9)


# --- samples -------------------------------------------------------------------------------------


def table(n=80, seed=0):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        dict(
            age=random.integers(20, 60, n),
            job=random.choice(["a", "b", "c"], n),
            income=random.normal(3, 1, n).astype(np.float32),
            member=random.random(n) < 0.5,
        ),
        index=[f"row {i}" for i in range(n)],
    )
    y = np.where(frame["age"] / 20 + frame["income"] + (frame["job"] == "a") > 5.2, "yes", "no")
    return frame, y


@pytest.mark.filterwarnings("error")
def test_a_frame_keeps_its_columns_and_what_is_no_number_is_fixed():
    """Through a search over a transformer by names. The radius is that of the encoded table."""
    frame, y = table()
    encode = ColumnTransformer(
        [
            ("words", OneHotEncoder(), ["job"]),
            ("numbers", StandardScaler(), make_column_selector(dtype_include="number")),
        ],
        remainder="passthrough",
    )
    model = GridSearchCV(make_pipeline(encode, LogisticRegression()), {}, cv=2).fit(frame, y)
    right = model.predict(frame) == y
    inner = model.best_estimator_[-1].coef_[0]
    spread = model.best_estimator_[0].named_transformers_["numbers"].scale_
    w = np.array([inner[3] / spread[0], inner[4] / spread[1]])  # age, income; member is a bool
    for norm in ("inf", "2", "1"):
        found = advlinear.attack(model, frame, y, norm)
        expected = np.abs(model.decision_function(frame)) / balls.dual_norm(w, norm)
        np.testing.assert_allclose(found.radii[right], expected[right], rtol=1e-6)
        moved = found.perturbed()
        assert list(moved.columns) == list(frame.columns)
        assert (moved[["job", "member"]] == frame[["job", "member"]]).all(axis=None)
        assert (moved.index == frame.index).all()
        assert (model.predict(moved) != y)[right].all()
    old = advlinear.attack(model, frame, y, scale=[0, 1]).perturbed()
    assert (old[["age", "member"]] == frame[["age", "member"]]).all(axis=None)
    assert (model.predict(old) != y)[right].all()


def test_a_frame_of_numbers_as_objects_is_refused():
    frame, y = table()
    for spoiled, message in (
        (frame.astype({"age": object}), "column 'age' of X holds numbers as objects"),
        (frame[["job"]], "X has no column of numbers"),
        (frame.assign(age=np.nan), "X holds NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            advlinear.attack(LogisticRegression(), spoiled, y)


@pytest.mark.parametrize("box", [None, (0, 1)])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [*map("{}_matrix".format, ["csr", "csc", "coo"]), "csr_array"])
def test_sparse_samples_are_those_of_the_dense_array(kind, norm, box):
    random = np.random.default_rng(0)
    x = np.where(random.random((150, 30)) < 0.2, random.random((150, 30)), 0)
    y = np.digitize(x @ random.normal(size=30), [-0.3, 0.3])
    model = make_pipeline(MaxAbsScaler(), LinearSVC(random_state=0)).fit(x, y)
    sparse = getattr(scipy.sparse, kind)(x)
    found, dense = (advlinear.attack(model, one, y, norm, box) for one in (sparse, x))
    np.testing.assert_allclose(found.radii, dense.radii, rtol=1e-9)
    assert (found.rival == dense.rival).all()
    assert scipy.sparse.issparse(found.perturbed())
    flips = (found.radii > 0) & np.isfinite(found.radii)
    assert (model.predict(found.perturbed()) != y)[flips].all()
    scaled = [
        advlinear.attack(model, one, y, norm, box, scale=np.arange(30.0)) for one in (sparse, x)
    ]
    np.testing.assert_allclose(scaled[0].radii, scaled[1].radii, rtol=1e-9)


def test_wide_and_sparse_samples_take_little_memory(monkeypatch):
    """No block of samples, weights or points has more than 2^18 numbers, or one row."""
    sizes, dense = {rivals: [], moves: []}, samples.dense
    for module, seen in sizes.items():
        monkeypatch.setattr(
            module, "dense", lambda x, rows, seen=seen: seen.append(len(rows)) or dense(x, rows)
        )
    random = np.random.default_rng(0)
    x = scipy.sparse.random(60, 40_000, 1e-3, format="csr", random_state=0)
    for classes in (3, 2):  # two classes have one rival, and need no search
        y = random.integers(0, classes, 60)
        model = MultinomialNB().fit(x, y)
        found = advlinear.attack(model, x, y, "inf", (0, np.inf))
        assert (model.predict(found.perturbed()) != y)[found.radii > 0].all()
    assert all(max(seen) * 40_000 <= 2**18 for seen in sizes.values())
    model = SGDClassifier(random_state=0).fit(x, y)
    monkeypatch.setattr(models, "_probed", None)  # weights are read
    free = advlinear.attack(model, x, y)
    expected = np.abs(model.decision_function(x)) / np.abs(model.coef_).sum()
    np.testing.assert_allclose(free.radii[free.radii > 0], expected[free.radii > 0], rtol=1e-9)


def test_sparse_is_refused_with_a_target():
    x = scipy.sparse.csr_array(np.float64([[0, 1], [1, 0], [2, 0]]))
    with pytest.raises(ValueError, match=r"a target needs a dense X: pass X.toarray\(\)"):
        advlinear.attack(ComplementNB().fit(x, [0, 1, 1]), x, None, target=1)


# --- the box, the scale, whole steps -------------------------------------------------------------


def test_samples_outside_the_box_by_rounding_are_on_its_edge():
    x, y, W, b = gaussian(9, 4, 3, seed=0)
    off = x + np.where(x == 1, 2.2e-16, 0) - np.where(x == 0, 9e-10, 0)
    found, exact = (advlinear.attack((W, b), one, y, "2", (0, 1)) for one in (off, x))
    np.testing.assert_array_equal(found.radii, exact.radii)
    assert found.perturbed().min() >= 0
    far = np.where(x == 0, -1.1e-9, x)
    with pytest.raises(ValueError, match=r"X\[\d, \d\] is -1.1e-09, outside the box"):
        advlinear.attack((W, b), far, y, "2", (0, 1))
    with pytest.raises(ValueError, match=r"X\[\d, \d\] is -9e-10, outside the box"):
        advlinear.attack((W, b), off, y, "2", (0, np.inf))  # it has no width
    frame = pd.DataFrame(x, columns=list("abcd")).astype({"a": np.float32})
    for single in (scipy.sparse.csr_array(x, dtype=np.float32), frame, np.float32(x)):
        above = single + np.float32(4e-7) * (x == 1)
        assert above.max(axis=None) > 1
        np.testing.assert_array_equal(
            advlinear.attack((W, b), above, y, "2", (0, 1)).radii,
            advlinear.attack((W, b), single, y, "2", (0, 1)).radii,
        )
        with pytest.raises(ValueError, match=r"outside the box"):
            advlinear.attack((W, b), single + np.float32(6e-7) * (x == 1), y, "2", (0, 1))


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
@pytest.mark.parametrize("low", [0, -1])
def test_whole_steps(norm, low):
    """Images of 256 levels, as numbers from 0 to 1 and from -1 to 1, survive the saving; and in
    the L-infinity and L1 ball no smaller number of steps is enough."""
    random = np.random.default_rng(0)
    levels = np.clip(random.integers(-100, 356, (60, 9)), 0, 255)
    step = (1 - low) / 255
    x, W, b = levels * step + low, random.normal(size=(3, 9)), random.normal(size=3) / 9
    y = (x @ W.T + b).argmax(axis=1)
    found = advlinear.attack((W, b), x, y, norm, (low, 1))
    moved = found.perturbed(step=step)
    saved = np.rint((moved - low) / step).astype(int)
    np.testing.assert_allclose(moved, saved * step + low, rtol=0, atol=1e-15)
    assert ((saved >= 0) & (saved <= 255)).all()
    flips = np.isfinite(found.radii)
    assert flips.sum() > 40
    assert ((saved * step + low) @ W.T + b).argmax(axis=1)[flips].tolist() != y[flips].tolist()
    assert (((saved * step + low) @ W.T + b).argmax(axis=1) != y)[flips].all()
    if norm in ("inf", "1"):
        steps = np.linalg.norm(saved - levels, balls.ORDER[norm], axis=1)
        fewer = (steps - 1) * step
        assert (fewer < found.radii)[flips].all()
        assert (fewer * (1 + 1e-9) >= found.radii - step)[flips].all()
    for size, message in ((0, "above 0"), (0.3, "high edge of the box is 3.3e-01 of a step")):
        with pytest.raises(ValueError, match=message):
            found.perturbed(step=size)
    with pytest.raises(ValueError, match="eps or step, not both"):
        found.perturbed(0.1, step=step)
    for other, message in ((dict(target=0), "had no target"), (dict(norm="0"), "pass norm 1")):
        found = advlinear.attack((W, b), x, y, **dict(norm=norm, box=(low, 1)) | other)
        with pytest.raises(ValueError, match=message):
            found.perturbed(step=step)


@pytest.mark.parametrize("norm", ["inf", "1", "2"])
@pytest.mark.parametrize("mean", [0, 0.1307])
def test_whole_steps_of_images_in_float32(norm, mean):
    """They end at the levels that the same images in float64 do: also as they are normalised for
    PyTorch, and with the box and the step in float32."""
    random = np.random.default_rng(1)
    levels = random.integers(0, 256, (60, 9), dtype=np.uint8)
    spread = 0.3081 if mean else 1
    exact, single = (
        (kind(levels) / kind(255) - kind(mean)) / kind(spread) for kind in (np.float64, np.float32)
    )
    low, high, step = -mean / spread, (1 - mean) / spread, 1 / 255 / spread
    assert np.abs((single - low) / step - levels).max() > 2e-6
    W, b = random.normal(size=(3, 9)), random.normal(size=3) / 9
    y = (exact @ W.T + b).argmax(axis=1)
    known = advlinear.attack((W, b), exact, y, norm, (low, high)).perturbed(step=step)
    known = np.rint((known - low) / step)
    assert (known != levels).any(axis=1).sum() > 40
    for box, size in (
        ((low, high), step),
        ((np.float32(low), np.float32(high)), np.float32(step)),
    ):
        moved = advlinear.attack((W, b), single, y, norm, box).perturbed(step=size)
        np.testing.assert_array_equal(np.rint((moved - low) / step), known)
    if not mean:
        moved = advlinear.attack((W, b), single, y, norm).perturbed(step=step)
        assert (np.abs(moved / step - np.rint(moved / step)) < 1e-4).all()


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_whole_steps_count_from_the_grid_and_not_from_a_rounded_sample(norm):
    """Each feature that moves, in the L1 ball the first alone, lies above its place by more than
    what ten steps are more than enough by."""
    levels = np.arange(256)
    above = np.float32(levels / 255).astype(float) * 255 - levels
    k = levels[np.argsort(above)][-4:]
    assert (above[k] > 5e-6).all()
    x, w = np.float32(k / 255)[None], np.float64([2, 1, 1, 1])
    moved = np.where(w >= (0 if norm == "inf" else 2), (k - 10) / 255, x.astype(float))
    found = advlinear.attack((w, -w @ moved[0] - 2e-6 / 255), x, [1], norm, (0, 1))
    assert found.radii[0] * 255 > 10 + 1e-6
    moved = k - np.rint(found.perturbed(step=1 / 255)[0] * 255)
    assert (moved.max() if norm == "inf" else moved.sum()) == 10


def test_what_is_off_the_grid_is_named():
    x = np.float32(np.arange(8).reshape(2, 4) * 30 / 255)
    model = np.float64([1, -1, 1, 1]), -0.5
    found = advlinear.attack(model, x.astype(float), [0, 1], box=(0, 1))
    message = r"X\[0, 3\] is 2\.2e-06 of a step \(0.00392157\) off the grid: .* Round X to it: low"
    with pytest.raises(ValueError, match=message):
        found.perturbed(step=1 / 255)
    x[1, 2] += np.float32(0.002)
    found = advlinear.attack(model, x, [0, 1], box=(0, 1))
    with pytest.raises(ValueError, match=r"X\[1, 2\] is 4.9e-01 of a step"):
        found.perturbed(step=1 / 255)
    fine = advlinear.attack(model, x, [0, 1], box=(0, 1))
    with pytest.raises(ValueError, match=r"X\[0, \d\] is .* of a step"):
        fine.perturbed(step=2.0**-20 / 255 * 3)  # float32 does not hold so fine a grid


def test_a_step_may_be_any_real_number():
    x, y = np.float64([[3, 0], [0, 3]]) / 4, [1, 0]
    found = advlinear.attack(([1, -2], 0), x, y)
    known = found.perturbed(step=1 / 16)
    for step in (fractions.Fraction(1, 16), np.float32(1 / 16)):
        assert (found.perturbed(step=step) == known).all()
    for step in (10**400, decimal.Decimal("0.1"), True, "a", np.nan, np.inf, -1, [1]):
        with pytest.raises(ValueError, match="step must be a finite number above 0, not"):
            found.perturbed(step=step)


def test_integer_radii_of_binary_features():
    """As many features flip as the L1 radius, rounded up, and as the radius of norm 0: no smaller
    set of features does it, by trying all."""
    random = np.random.default_rng(0)
    x, W, b = random.integers(0, 2, (30, 8)), random.normal(size=(3, 8)), random.normal(size=3)
    y = (x @ W.T + b).argmax(axis=1)
    found = advlinear.attack((W, b), x, y, "1", (0, 1))
    counts = advlinear.attack((W, b), x, y, "0", (0, 1)).radii
    assert (np.ceil(found.radii) == counts).all()
    flips = np.array(list(itertools.product([0, 1], repeat=8)))
    for i in range(len(x)):
        wrong = (np.abs(x[i] - flips) @ W.T + b).argmax(axis=1) != y[i]
        least = flips[wrong].sum(axis=1).min() if wrong.any() else np.inf
        assert counts[i] == least
    moved, finite = found.perturbed(step=1), np.isfinite(counts)
    assert (np.abs(moved - x).sum(axis=1) == np.where(finite, counts, 0)).all()
    assert ((moved @ W.T + b).argmax(axis=1) != y)[finite].all()


def test_one_radius_per_sample():
    x, y, W, b = gaussian(20, 4, 3, seed=2)
    found = advlinear.attack((W, b), x, y)
    moved = found.perturbed(found.radii * 0.5)
    np.testing.assert_allclose(np.abs(moved - x).max(axis=1), found.radii / 2, rtol=1e-12)
    for wrong, message in (
        (np.ones(19), "eps needs a number, or 20"),
        ("a", "eps needs real numbers"),
        (-found.radii, "eps must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            found.perturbed(wrong)
    for wrong in ("a", np.nan, [0.1, np.nan], -1):
        with pytest.raises(ValueError, match=r"eps needs (real )?numbers"):
            found.curve(wrong)


X, Y, W, B = gaussian(30, 6, 3, seed=5)
MESSAGES = [
    (dict(model=(W.T, B)), "Keras keeps .d, K., pass W.T"),
    (dict(y=np.eye(3)[Y]), r"if they are one-hot, pass y.argmax\(axis=1\)"),
    (dict(y=Y[:, None]), r"y needs shape \(30,\).*: pass y.ravel\(\)"),
    (dict(norm="1.5"), "norm must be inf, 2, 1 or 0, not '1.5'"),
    (dict(norm=True), "norm must be inf, 2, 1 or 0, not True"),
    (dict(scale=np.ones(5)), "scale needs 6 numbers"),
    (dict(scale=-np.ones(6)), "scale needs finite numbers of at least 0"),
    (dict(scale=np.ones((30, 6))), "scale needs 6 numbers"),
    (dict(X=np.ma.masked_array(X)), "X is a masked array"),
    (dict(X=scipy.sparse.csr_array(np.nan * X)), "X holds NaN"),
]


@pytest.mark.parametrize(("change", "message"), MESSAGES)
def test_messages(change, message):
    with pytest.raises(ValueError, match=message):
        advlinear.attack(**dict(model=(W, B), X=X, y=Y) | change)


@pytest.mark.parametrize(
    ("one", "other"),
    [("inf", "Linf"), ("inf", np.inf), ("2", "l2"), ("2", 2.0), ("1", "1.0"), ("0", 0)],
)
def test_spellings_of_the_norm(one, other):
    found = [advlinear.attack((W, B), X, Y, norm, (0, 1)).radii for norm in (one, other)]
    np.testing.assert_array_equal(*found)


# --- many classes --------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["inf", "2", "1"]), box=st.booleans())
def test_many_classes_are_those_of_every_pair(seed, norm, box):
    """The nearest of 40 rivals, by the distance to each, to 1e-12."""
    x, y, W, b = gaussian(12, 7, 40, seed)
    sides = (np.zeros(7), np.ones(7)) if box else None
    found = advlinear.attack((W, b), x, y, norm, sides)
    scores = x @ W.T + b
    every = np.full((12, 40), np.inf)
    for own, k in itertools.product(np.unique(y), range(40)):
        rows = np.flatnonzero(y == own)
        if k != own:
            gap = scores[rows, own] - scores[rows, k]
            every[rows, k] = balls.distance(gap, W[own] - W[k], x[rows], norm, sides)
    np.testing.assert_allclose(found.radii, every.min(axis=1), rtol=1e-12)


# --- others' attacks -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_no_attack_of_a_library_finds_a_smaller_perturbation():
    """DeepFool, Carlini and Wagner's attack, and the fast gradient method with the smallest step
    that is enough, on ten digits; the library computes in float32."""
    evasion = pytest.importorskip("art.attacks.evasion", reason="ART is not installed")
    from art.estimators.classification.scikitlearn import ScikitlearnLogisticRegression

    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x = np.float32(x / 16)
    model = LogisticRegression(C=0.1, max_iter=500).fit(x, y)
    x, y = x[:20], y[:20]
    wrapped = ScikitlearnLogisticRegression(model, clip_values=(0, 1))
    quick = dict(norm=np.inf, minimal=True, eps_step=0.005, eps=1.0)
    attacks = [
        ("2", evasion.DeepFool(wrapped, verbose=False)),
        ("2", evasion.CarliniL2Method(wrapped, max_iter=10, verbose=False)),
        ("inf", evasion.FastGradientMethod(wrapped, **quick)),
    ]
    for norm, attack in attacks:
        own = advlinear.attack(model, x, y, norm, (0, 1)).radii
        moved = attack.generate(x)
        flips = (model.predict(moved) != y) & (own > 0)
        sizes = length(np.float64(moved) - x, 1, norm)
        assert flips.sum() > 10
        assert (sizes >= own * (1 - 1e-5))[flips].all()


def test_jobs_share_the_samples_of_each_form():
    """Two processes as one, to rounding, with a box per sample, sparse samples, and a target."""
    x, y, W, b = gaussian(21, 5, 4, seed=1)
    box = x - 0.3, x + 0.4
    for form, more in (
        (x, dict(box=box)),
        (x, dict(box=box, target=2)),
        (scipy.sparse.csr_array(x), dict(box=(0, 1), scale=[1, 2, 0, 1, 1])),
    ):
        one, two = (advlinear.attack((W, b), form, y, "2", n_jobs=n, **more) for n in (1, 2))
        np.testing.assert_allclose(one.radii, two.radii, rtol=1e-12)
        assert (one.rival == two.rival).all()
        assert abs(one.perturbed() - two.perturbed()).max() <= 1e-12
    reached = advlinear.attack((W, b), x, None, target=(x @ W.T + b).argmax(axis=1))
    assert (reached.radii == 0).all()
    assert (reached.perturbed() == x).all()


def test_rivals_that_are_as_near_are_not_all_tried(monkeypatch):
    """Centres at equal distances: each coordinate 0.25 or 0.75, by the rows of a Hadamard matrix.

    Two of them differ in half of the coordinates, so that all rivals are 0.25 away.
    """
    centres = 0.5 + 0.25 * scipy.linalg.hadamard(64)[1:41]
    tried, distance = [], rivals.distance

    def counted(gap, *rest):
        tried.append(len(gap))
        return distance(gap, *rest)

    monkeypatch.setattr(rivals, "distance", counted)
    offsets = -(centres**2).sum(axis=1) / 2
    found = advlinear.attack((centres, offsets), centres, np.arange(40), box=(0, 1))
    np.testing.assert_allclose(found.radii, 0.25, rtol=1e-12)
    assert sum(tried) == 40
