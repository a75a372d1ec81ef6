"""The exact attack on linear models of any number of classes, against solvers and scikit-learn."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import advlinear
import worst_case
from advlinear import balls
from advlinear.attacks.moves import OVERSHOOT

NORMS, BOXES = ["inf", "2", "1"], ["none", "numbers", "per feature"]
BELOW, ABOVE = 1 - OVERSHOOT, 1 + OVERSHOOT


def gaussian(n, d, k, seed):
    """Samples in [0, 1], a third of them at each end, labels, and (W, b) with a fifth zero."""
    random = np.random.default_rng(seed)
    x = np.clip(random.uniform(-1, 2, (n, d)), 0, 1)
    W = random.normal(size=(k, d)) * (random.random((k, d)) < 0.8)
    return x, random.integers(0, k, n), W, random.normal(size=k)


def box_of(kind, x, seed):
    """No box, one of numbers, or one per feature; of these some sides are infinite, or at x."""
    if kind != "per feature":
        return None if kind == "none" else (0, 1)
    low = x.min(axis=0) - np.random.default_rng(seed).random(x.shape[1])
    high = x.max(axis=0) + 0.1
    low[::4], high[1::4], low[2::4] = x.min(axis=0)[::4], np.inf, -np.inf
    return low, high


def moved(x, W, own, rival, sizes, norm, box):
    """The samples moved by the given sizes so that the score of one rival gains the most."""
    x = x.copy()
    for one in np.unique(own):
        x[own == one] += balls.step(W[one] - W[rival], x[own == one], sizes[own == one], norm, box)
    return x if box is None else np.clip(x, *box)


# --- it is the optimum -----------------------------------------------------------------------


def linear_program(x, a, gap, norm, low, high):
    """The smallest eps for one rival: the least t such that every up + down, or for L1 their sum,
    is at most t, where delta = up - down. The gap is scaled to 1, as HiGHS has tolerances."""
    parts = np.eye(len(a)) if norm == "inf" else np.ones((1, len(a)))
    size = np.hstack([parts, parts, -np.ones((len(parts), 1))])
    solved = scipy.optimize.linprog(
        [0] * (2 * len(a)) + [1],
        A_ub=np.vstack([np.concatenate([a, -a, [0]]) / gap, size]),
        b_ub=[-1] + [0] * len(parts),
        bounds=[(0, side) for side in [*(high - x), *(x - low), np.inf]],
        method="highs",
        options=dict(primal_feasibility_tolerance=1e-10, dual_feasibility_tolerance=1e-10),
    )
    assert solved.status in (0, 2)  # solved, or nothing is enough
    return solved.fun if solved.status == 0 else np.inf


def bisection(x, a, gap, norm, low, high):
    """The same for L2: by the conditions of Karush, Kuhn and Tucker delta is -t a, cut to the box,
    for some t >= 0. Its a.delta decreases with t. At t = 1e9 all features fill their room."""

    def delta(t):
        return np.clip(-t * a, low - x, high - x)

    if a @ delta(1e9) > -gap:
        return np.inf
    t = scipy.optimize.bisect(lambda t: a @ delta(t) + gap, 0, 1e9, xtol=1e-15, rtol=1e-15)
    return np.linalg.norm(delta(t))


def reference(x, own, W, b, norm, box):
    """The smallest eps over the rivals, 0 where one of them is at least equal from the start."""
    low, high = (np.broadcast_to(side, len(x)) for side in box or (-np.inf, np.inf))
    a = W[own] - np.delete(W, own, axis=0)
    gaps = a @ x + b[own] - np.delete(b, own)
    if (gaps <= 0).any():
        return 0.0
    solve = bisection if norm == "2" else linear_program
    return min(solve(x, one, gap, norm, low, high) for one, gap in zip(a, gaps, strict=True))


@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("norm", NORMS)
def test_radius_is_the_optimum_of_a_solver(norm, kind):
    """2 to 10 classes, 1 to 9 features, to 1e-9 of a radius: HiGHS ends on a vertex, which it
    computes to rounding, and so does bisection. NaN equals nothing, and inf only inf."""
    every = []
    for k in range(2, 11):
        x, own, W, b = gaussian(10, 1 + (5 * k) % 9, k, seed=k)
        own[:8] = (x @ W.T + b).argmax(axis=1)[:8]  # else most would be wrong
        if k == 3:
            W[:] = W[0]  # no perturbation tells these classes apart
        box = box_of(kind, x, seed=k)
        found = advlinear.attack((W, b), x, own, norm, box)
        expected = [reference(x[i], own[i], W, b, norm, box) for i in range(len(x))]
        np.testing.assert_allclose(found.radii, expected, rtol=1e-9, atol=0, equal_nan=False)
        assert (found.rival == own)[np.isinf(found.radii)].all()
        every.extend(found.radii)
    assert {0, np.inf} < set(every)
    assert len(set(every)) > 40


sizes = dict(n=st.integers(1, 4), d=st.integers(1, 6), k=st.integers(2, 5), seed=st.integers(0))


@given(**sizes, norm=st.sampled_from(NORMS), kind=st.sampled_from(BOXES))
def test_no_class_overtakes_below_the_radius_and_the_rival_does_above(n, d, k, seed, norm, kind):
    """A millionth below it no rival has the larger score, and a millionth above it one does, or at
    the corner of the box is equal. Rounding is 1e-13 of sums of at most 7 terms near 1."""
    x, own, W, b = gaussian(n, d, k, seed)
    box, rows, scores = box_of(kind, x, seed), np.arange(n), x @ W.T + b
    found = advlinear.attack((W, b), x, own, norm, box)
    largest = scores.max(axis=1, where=np.arange(k) != own[:, None], initial=-np.inf)
    assert ((found.radii == 0) == (scores[rows, own] <= largest)).all()
    finite = np.isfinite(found.radii)
    below = np.where(finite, found.radii * BELOW, 1e3)  # where nothing flips, nor does 1e3
    for rival in range(k):
        scores = moved(x, W, own, rival, below, norm, box) @ W.T + b
        gaps = scores[rows, own][:, None] - scores
        assert (gaps >= -1e-13 * (1 + below[:, None]))[found.radii > 0].all()
    scores = found.perturbed() @ W.T + b
    gaps = scores[rows, own] - scores[rows, found.rival]
    assert (gaps <= 1e-13 * (1 + found.radii))[finite].all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_gap_that_the_whole_box_only_just_uses_up(norm):
    """Weights of tenths and one of rounding size, so that it matters or not by rounding. The move
    is that of the others, to 1e-9, or more, but not more than fits in the box."""
    random = np.random.default_rng(0)
    for _ in range(1000):
        w = random.integers(1, 20, 7) / 20 * random.choice([-1, 1], 7)
        w[6] = random.choice([1e-18, 1e-16, 1e-15])
        x = np.append(random.integers(0, 11, 6) / 10, 0.5)
        found = advlinear.attack((w, -np.minimum(w, 0).sum()), [x], [1], norm, (0, 1)).radii
        room = np.where(w > 0, x, 1 - x)
        least, most = (np.linalg.norm(part, balls.ORDER[norm]) for part in (room[:6], room))
        assert least * (1 - 1e-9) <= found <= most * (1 + 1e-9)
    assert balls.reach(np.float64([[1, 3]]), np.float64([1, 1e-14]), np.float64([1 + 3.5e-14])) <= 3


# --- models and labels -----------------------------------------------------------------------


@pytest.mark.parametrize("box", [None, (0, 1)])
@pytest.mark.parametrize("norm", NORMS)
def test_a_single_score_in_each_form_is_that_of_two_classes(norm, box):
    """To 1e-12: the weights of a function are differences of its scores."""
    x, _, W, b = gaussian(40, 6, 1, seed=1)
    w, b, y = W[0], float(b[0]), np.arange(40) % 2
    expected = np.maximum(worst_case.signed_radii(x, 2 * y - 1, w, b, norm, box is not None), 0)
    single = [(w, b), (W, [b]), lambda p: p @ w + b, lambda p: (p @ w + b)[:, None]]
    double = [([0 * w, w], [0, b]), lambda p: np.stack([0 * p[:, 0], p @ w + b], axis=1)]
    for models, labels, others in [(single + double, y, 1 - y), (single, 2 * y - 1, 1 - 2 * y)]:
        for model in models:
            found = advlinear.attack(model, x, labels, norm, box)
            np.testing.assert_allclose(found.radii, expected, rtol=1e-12)
            assert (found.rival == np.where(np.isinf(expected), labels, others)).all()


def test_a_function_of_many_scores_and_other_types_of_the_arguments():
    x, y, W, b = gaussian(20, 5, 4, seed=2)
    expected = advlinear.attack((W, b), x, y, "inf", (0, 1))
    network = lambda points: points @ W.T + b  # noqa: E731
    network.predict = network  # as in Keras, scores in place of labels
    for model in (network, (W.tolist(), b.tolist())):
        found = advlinear.attack(
            model, x.tolist(), y.astype(float).tolist(), np.inf, [0.0, [1] * 5]
        )
        np.testing.assert_allclose(found.radii, expected.radii, rtol=1e-12)
        assert (found.rival == expected.rival).all()
    assert (
        advlinear.attack((W, b), x, y, 2).radii == advlinear.attack((W, b), x, y, "2").radii
    ).all()


@pytest.mark.parametrize("norm", NORMS)
def test_weights_of_a_feature_that_is_nearly_constant(norm):
    """To 1e-10: differences of scores are taken over steps that are not as small as the noise."""
    x, y, W, b = gaussian(50, 4, 3, seed=3)
    x[:, 0], W[:, 0] = 0.5 + 1e-13 * x[:, 0], [1, -2, 3]
    found = advlinear.attack(lambda points: points @ W.T + b, x, y, norm)
    np.testing.assert_allclose(found.radii, advlinear.attack((W, b), x, y, norm).radii, rtol=1e-10)


x, y = datasets.load_digits(return_X_y=True)
digits = x, np.array(list("ABCDEFGHIJ"))[y], (0, 16)
zeros_and_ones = np.round(x[y < 2] * 255 / 16), 2.0 * y[y < 2] - 1, (0, 255)
x, y = datasets.load_breast_cancer(return_X_y=True)
cancer = x, np.array(["malignant", "benign"])[y], (x.min(axis=0), x.max(axis=0))
ESTIMATORS = [
    (digits, LogisticRegression(C=0.01, max_iter=500)),
    (zeros_and_ones, LogisticRegression()),
    (digits, LinearSVC(C=0.001, random_state=0)),
    (digits, RidgeClassifier()),
    (cancer, RidgeClassifier()),
    (zeros_and_ones, SVC(kernel="linear")),
    (digits, LinearDiscriminantAnalysis()),
    (digits, SGDClassifier(random_state=0)),
    (cancer, make_pipeline(StandardScaler(), LogisticRegression(C=0.1))),
    (digits, make_pipeline(MinMaxScaler(), LogisticRegression())),
    (digits, make_pipeline(StandardScaler(), PCA(20), LogisticRegression())),
]


@pytest.fixture(scope="module", params=ESTIMATORS)
def fitted(request):
    """An estimator that is fitted to two thirds of its data, samples of the rest, and the box."""
    (x, y, box), model = request.param
    test = np.arange(len(x)) % 3 == 0
    return model.fit(x[~test], y[~test]), x[test][:150], y[test][:150], box


@pytest.mark.parametrize("boxed", [False, True], ids=["free", "boxed"])
@pytest.mark.parametrize("norm", NORMS)
def test_an_estimator_is_right_below_the_radius_and_wrong_above(fitted, norm, boxed):
    """A millionth of it below, towards any class, and above. Sizes are kept to 1e-9 of a radius,
    and rounding of the samples. No sample here has two nearest rivals, or only ties in the box."""
    model, x, y, box = fitted
    box = box if boxed else None
    found = advlinear.attack(model, x, y, norm, box)
    radii, right = found.radii, model.predict(x) == y
    flips = right & np.isfinite(radii)
    assert flips.sum() > 80
    assert ((radii > 0) == right).all()  # nor NaN
    points, eps = found.perturbed(), np.median(radii) * ABOVE
    assert (model.predict(points) != y)[flips].all()
    assert (found.rival == np.where(np.isinf(radii), y, model.predict(points))).all()
    assert ((points == x) & (found.perturbed(eps) == x))[~flips].all()
    assert box is None or ((points >= box[0]) & (points <= box[1])).all()
    lengths = np.linalg.norm(points - x, balls.ORDER[norm], axis=1)
    off = np.abs(lengths - radii * ABOVE)[flips]
    assert (off <= 1e-9 * radii[flips] + 1e-14 * np.abs(x).max()).all()
    # Scalers are hidden in a pipeline, so the weights are differences of scores again.
    centre, far = x.mean(axis=0), np.ptp(x)
    scores = model.decision_function(np.vstack([centre, centre + far * np.eye(len(centre))]))
    W = (scores[1:] - scores[0]).T / far
    W = W if W.ndim == 2 else np.stack([-W, W]) / 2
    own = np.searchsorted(model.classes_, y)
    below = np.where(np.isfinite(radii), radii * BELOW, 9 * far)  # inf comes with the box alone
    for rival in range(len(W)):
        assert (model.predict(moved(x, W, own, rival, below, norm, box)) == y)[right].all()
    assert ((model.predict(found.perturbed(eps)) == y) == (radii > eps)).all()


def test_curve_is_the_share_of_larger_radii_and_perturbed_refuses_sizes_that_are_none():
    x, y, W, b = gaussian(60, 5, 3, seed=4)
    found = advlinear.attack((W, b), x, y, "inf", (0, 1))
    eps = np.append(np.linspace(0, 1, 11), found.radii[:5])  # equal to a radius is an error
    assert found.curve(eps).tolist() == [(found.radii > e).mean() for e in eps]
    assert found.curve(0) == ((x @ W.T + b).argmax(axis=1) == y).mean()
    assert (advlinear.attack((0 * W, 0 * b), x, y).radii == 0).all()  # a tie is an error
    for size in (-1e-9, np.nan, np.inf):
        with pytest.raises(ValueError, match="eps must be finite and at least 0, not"):
            found.perturbed(size)


# --- what it refuses -------------------------------------------------------------------------

X, Y, W, B = gaussian(30, 6, 3, seed=5)


@given(n=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), norm=st.sampled_from([*NORMS, "0"]))
def test_curve_of_a_mean_budget_is_that_of_the_best_subset_of_samples(n, seed, norm):
    """By brute force: the largest subset whose radii have a sum of at most n eps, in fractions."""
    x, y, W, b = gaussian(n, 4, 2, seed)
    found = advlinear.attack((W, b), x, y, norm=norm, box=(0, 1))
    sums = {0: Fraction(0)}  # the least sum of so many radii
    for k in range(1, 1 + np.count_nonzero(np.isfinite(found.radii))):
        finite = map(Fraction, found.radii[np.isfinite(found.radii)].tolist())
        sums[k] = min(map(sum, itertools.combinations(finite, k)))
    eps = np.random.default_rng(seed).uniform(0, 1.5 * float(max(sums.values())) / n + 0.1, 20)
    eps = np.append(eps, [float(one) / n * (1 + 1e-12) for one in sums.values()])
    most = [max(k for k, least in sums.items() if least <= Fraction(one) * n) for one in eps]
    assert found.curve(eps, budget="mean").tolist() == [(n - k) / n for k in most]
    assert (found.curve(eps, budget="mean") <= found.curve(eps)).all()


def test_curve_of_a_mean_budget_counts_sums_that_are_equal_but_for_rounding():
    """3 times .1 is 10 times .03, and .1 + .2 + .3 is 3 times .2."""
    ten = advlinear.attack((np.ones(1), 0.0), np.full((10, 1), 0.1), np.ones(10))
    assert ten.curve(0.03, budget="mean") == 0.7
    three = advlinear.attack((np.ones(1), 0.0), [[0.1], [0.2], [0.3]], [1, 1, 1])
    assert three.curve(0.2, budget="mean") == 0


def test_curve_refuses_another_budget():
    found = advlinear.attack((np.ones(2), 0.0), np.eye(2), [1, 1])
    for wrong in ("all", None, ["mean"]):
        with pytest.raises(ValueError, match="budget must be each or mean, not"):
            found.curve(0.1, wrong)


def fit(*steps):
    return make_pipeline(*map(clone, steps)).fit(X, Y)


LOGISTIC, UNFITTED = fit(LogisticRegression()), LogisticRegression()
NOT_LINEAR = "the model is not linear: its scores are not X @ W.T"
REFUSED = [
    (dict(norm=3), "norm must be inf, 2, 1 or 0, not 3"),
    (dict(y=Y + 5), r"label .*\d.* in y is none of the classes \[0, 1, 2\]"),
    (dict(y=np.eye(3)[Y]), r"y needs shape \(30,\), .* not \(30, 3\)"),
    (dict(y=[*Y, 0]), r"y needs shape \(30,\), .* not \(31,\)"),
    (dict(model=(W.T, B)), r"shapes \(K, 6\) and \(K,\).* not \(6, 3\) and \(3,\)"),
    (dict(model=(1.0, 2.0)), r"shapes \(K, 6\) and \(K,\).* not \(\) and \(\)"),
    (dict(model=(W, B, 0)), r"\(W, b\) needs two arrays of numbers"),
    (dict(model=(np.nan * W, B)), r"\(W, b\) holds NaN"),
    (dict(X=X + 1e-8, box=(0, 1)), r"X\[\d+, \d\] is 1.00000001, outside the box: \[0.0, 1.0\]"),
    (dict(y=None), "y is None: pass the labels, or a target"),
    (dict(box=(1, 0)), r"box needs low <= high, not 1.0 and 0.0 \(feature 0\)"),
    (dict(box=(0, np.nan)), "box needs low <= high, not 0.0 and nan"),
    (dict(box=(np.zeros(99), 1)), r"a number or of shape \(6,\) or \(30, 6\), not \(array"),
    (dict(X=np.nan * X), "X holds NaN or infinite numbers"),
    (dict(X=np.ones((30, 7))), r"shapes \(K, 7\) .* not \(3, 6\) and \(3,\)"),
    (dict(X=np.ones((30, 7)), model=LOGISTIC), "7 features.* 6 features"),
    (dict(X=X[0]), r"X needs shape \(n, d\), not \(6,\)"),
    (dict(X=X[:0], y=Y[:0]), r"X needs shape \(n, d\), not \(0, 6\)"),
    (dict(model=UNFITTED), "the model gives no scores: .* not fitted yet"),
    (dict(model=DecisionTreeClassifier()), "needs a decision_function.* DecisionTreeClassifier"),
    (dict(model=lambda points: next(iter(()))), "the model gives no scores: StopIteration"),
    (dict(model=lambda points: 3.0), r"samples have scores of shape \(\)"),
    (dict(model=lambda points: np.nan * points), "NaN or infinite scores"),
    (dict(model=fit(SVC(kernel="linear", decision_function_shape="ovo"))), "SVC .* vote"),
    (dict(model=fit(SVC(kernel="linear"))), "SVC of more than two classes .* vote"),
    (dict(model=fit(MinMaxScaler(clip=True), UNFITTED)), NOT_LINEAR),
    (dict(model=fit(PolynomialFeatures(2), UNFITTED)), NOT_LINEAR),
    (dict(model=lambda p: p @ W.T + B + 0.01 * np.fmax(p[:, :3], 3)), NOT_LINEAR),
    (dict(model=lambda p: p @ W.T + B + 0.01 * (p[:, :3] == X[:1, :3])), NOT_LINEAR),
    (dict(model=lambda points: scipy.special.softmax(points @ W.T + B, axis=1)), NOT_LINEAR),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        advlinear.attack(**dict(model=(W, B), X=X, y=Y) | change)
    assert "\n" not in str(error.value)
