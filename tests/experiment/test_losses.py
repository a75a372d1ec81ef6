"""The losses and their gradients, against attacks, finite differences and NumPy.

Everything is computed in float64, where sums of up to 49 numbers of size 1 are right to about
1e-14; the tolerance of 1e-9 is far above that and far below any term of a formula.
"""

import numpy as np
import pytest
import tensorflow as tf
from conftest import flat
from hypothesis import given
from hypothesis import strategies as st

import losses
import recipes
import worst_case
from advlinear.balls import slack

THREATS = [("inf", False), ("2", False), ("1", False), ("inf", True)]  # those of train.py
EXACT = dict(rtol=1e-9, atol=1e-9)
# Each of recipes.LOSSES -> the loss of each margin in NumPy, and its derivative by the margin.
REFERENCE = {
    "hinge": (worst_case.hinge, lambda margins: -1.0 * (margins < 1)),
    "logistic": (
        lambda margins: np.logaddexp(0, -margins),
        lambda margins: -1 / (1 + np.exp(margins)),
    ),
}
every_threat = pytest.mark.parametrize(("norm", "box"), THREATS)
every_loss = pytest.mark.parametrize("loss", REFERENCE)


@pytest.fixture(scope="module")
def problem(tiny):
    """Images, labels, and weights that leave some margins below 1 and some above."""
    x, y = flat(tiny.x_test), np.float64(tiny.y_test)
    towards_ones = 0.5 * (x[y > 0].mean(0) - x[y < 0].mean(0))
    return x, y, np.random.default_rng(0).normal(towards_ones, 0.05), 0.1


def worst_margins(x, y, w, b, eps, norm, box):
    """The worst-case margins (n,), as train.py computes them."""
    margins = losses.margins(tf.linalg.matvec(x, w) + b, y)
    return losses.worst_case_margins(margins, x, y, w, eps, norm, box)


def value_and_gradients(loss, x, y, w, b, *threat):
    """The mean loss of the worst-case margins, and its gradients by w, b and x."""
    variables = [tf.Variable(v, dtype=tf.float64) for v in (w, b, x)]
    with tf.GradientTape() as tape:
        worst = worst_margins(variables[2], tf.constant(y), *variables[:2], *threat)
        value = getattr(losses, loss)(worst)
    return value.numpy(), [g.numpy() for g in tape.gradient(value, variables)]


@pytest.mark.parametrize("shape", [(5, 1), (5,)])
def test_margins_take_logits_of_either_shape(shape):
    logits, y = np.arange(-2.0, 3.0), np.float64([1, -1, 1, -1, -1])
    margins = losses.margins(tf.constant(logits.reshape(shape)), tf.constant(y))
    assert margins.numpy().tolist() == [-2, 1, 0, -1, -2]


@given(
    threat=st.sampled_from(THREATS),
    eps=st.just(0.0) | st.floats(0, 2),
    scale=st.sampled_from([0.01, 0.3, 10]),
    seed=st.integers(0, 2**32 - 1),
)
def test_worst_case_margins_are_those_of_the_perturbed_images(threat, eps, scale, seed):
    """Sample by sample, for weights of which some are 0. That no other perturbation does worse is
    shown in tests/experiment/test_worst_case.py."""
    random = np.random.default_rng(seed)
    x, y = random.random((4, 6)), random.choice([-1.0, 1.0], 4)
    w, b = scale * random.normal(size=6) * (random.random(6) < 0.8), random.normal()
    expected = y * ((x + worst_case.perturbation(x, y, w, eps, *threat)) @ w + b)
    found = worst_margins(*map(tf.constant, (x, y, w)), b, eps, *threat)
    np.testing.assert_allclose(found, expected, **EXACT)
    np.testing.assert_allclose(losses.hinge(found), np.maximum(0, 1 - expected).mean(), **EXACT)


@every_threat
@pytest.mark.parametrize("eps", [0.05, 0.3])
def test_worst_case_margins_in_single_precision(problem, norm, box, eps):
    """As in training: images of rank 4, weights (d, 1). Sums of 49 products are right to 1e-5."""
    x, y, w, b = problem
    expected = y * ((x + worst_case.perturbation(x, y, w, eps, norm, box)) @ w + b)
    margins, x, y, w = (tf.constant(np.float32(v)) for v in (y * (x @ w + b), x, y, w))
    x, w = tf.reshape(x, [-1, 7, 7, 1]), w[:, None]
    found = losses.worst_case_margins(margins, x, y, w, eps, norm, box)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("norm", "box"), [("inf", False), ("2", False), ("inf", True)])
def test_projected_gradient_ascent_reaches_the_robust_hinge(problem, norm, box):
    """An attack that knows no closed form: steps along the gradient of the hinge, projected."""
    x, y, w, b = problem
    w, eps = w / 10, 0.2  # so flat that every sample has a hinge, and so a gradient
    closed = worst_case.hinge(
        worst_margins(*map(tf.constant, (x, y, w)), b, eps, norm, box).numpy()
    )
    assert (worst_case.hinge(y * (x @ w + b)) > 0).all()
    delta = np.random.default_rng(0).uniform(-eps, eps, x.shape) / 8  # inside either ball
    for _ in range(200):
        delta = np.clip(x + delta, 0, 1) - x if box else delta
        shifted = tf.constant(x + delta)
        with tf.GradientTape() as tape:
            tape.watch(shifted)
            logits = tf.linalg.matvec(shifted, tf.constant(w)) + b
            loss = losses.hinge(losses.margins(logits, tf.constant(y)))
        assert (worst_case.hinge(y * logits.numpy()) <= closed + 1e-9).all()
        ascent = tape.gradient(loss, shifted).numpy()
        if norm == "inf":
            delta = np.clip(delta + 0.01 * np.sign(ascent), -eps, eps)
        else:
            delta = delta + 0.02 * ascent / np.linalg.norm(ascent, axis=1, keepdims=True)
            delta *= np.minimum(1, eps / np.linalg.norm(delta, axis=1, keepdims=True))
    # The L-infinity ascent ends in the corner; the L2 one turns towards w by a constant factor
    # each step, so 200 steps end within rounding.
    np.testing.assert_allclose(worst_case.hinge(y * logits.numpy()), closed, **EXACT)


def test_every_loss_that_can_be_trained_has_a_reference():
    told = "each of recipes.LOSSES needs its value and its derivative in REFERENCE of this file"
    assert REFERENCE.keys() == set(recipes.LOSSES), told


@pytest.mark.parametrize("loss", recipes.LOSSES)
def test_no_loss_rises_in_the_margin(loss):
    """Else its worst case is not at the worst-case margin. Sums in float64 are right to 1e-12."""
    margins = np.linspace(-20, 20, 401)
    values = [getattr(losses, loss)(tf.constant([m])).numpy() for m in margins]
    rises = [m for m, rise in zip(margins, np.diff(values), strict=False) if rise > 1e-12]
    assert rises == [], f"losses.{loss} rises above these margins"
    assert values[0] > values[-1]


@every_loss
@every_threat
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3])
def test_values_and_gradients_are_the_closed_formulas(problem, loss, norm, box, eps):
    """They are those of the plain loss at the perturbed images (Danskin's theorem).

    In the L-infinity ball an active sample so adds -y x_j + eps sign(w_j) to d/dw_j, -y to d/db
    and -y w_j to d/dx_j. (In the box, a pixel that is moved up to 0 or 1 adds 0 to d/dx_j.)
    """
    x, y, w, b = problem
    delta = worst_case.perturbation(x, y, w, eps, norm, box)
    worst = y * ((x + delta) @ w + b)
    assert (worst < 1).any()
    assert (worst > 1).any() or eps == 0.3
    value_of, slope_of = REFERENCE[loss]
    pull = (slope_of(worst) * y)[:, None]
    value, (by_w, by_b, by_x) = value_and_gradients(loss, x, y, w, b, eps, norm, box)
    np.testing.assert_allclose(value, value_of(worst).mean(), **EXACT)
    np.testing.assert_allclose(by_w, (pull * (x + delta)).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, pull.mean(), **EXACT)
    free = slack(x, y[:, None] * w) >= eps if box else 1
    np.testing.assert_allclose(by_x, pull * w * free / len(y), **EXACT)


@every_loss
@every_threat
def test_gradients_are_the_finite_differences(problem, loss, norm, box):
    """Central differences over 2e-6, away from the kinks at w_j = 0 and at margin 1. Rounding,
    1e-16 / 1e-6, and the curvature of the L2 norm and of the logistic loss are below 1e-8."""
    x, y, w, b = problem
    threat = 0.05, norm, box
    worst = y * ((x + worst_case.perturbation(x, y, w, *threat)) @ w + b)
    assert np.abs(w).min() > 1e-5
    assert np.abs(1 - worst).min() > 1e-4
    images, labels = tf.constant(x), tf.constant(y)

    def value(parameters):
        w, b = tf.constant(parameters[:-1]), parameters[-1]
        return getattr(losses, loss)(worst_margins(images, labels, w, b, *threat)).numpy()

    _, (by_w, by_b, _) = value_and_gradients(loss, x, y, w, b, *threat)
    found = [
        (value(np.append(w, b) + step) - value(np.append(w, b) - step)) / 2e-6
        for step in 1e-6 * np.eye(len(w) + 1)
    ]
    np.testing.assert_allclose(found, [*by_w, by_b], rtol=0, atol=1e-8)


@every_threat
def test_gradient_at_zero_weights_is_that_of_the_plain_hinge(problem, norm, box):
    x, y, w, _ = problem
    value, (by_w, by_b, by_x) = value_and_gradients("hinge", x, y, 0 * w, 0.0, 0.2, norm, box)
    assert value == 1
    np.testing.assert_allclose(by_w, -(y[:, None] * x).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, -y.mean(), **EXACT)
    assert (by_x == 0).all()


def test_logistic_of_large_margins_does_not_overflow():
    """To float32's 1e-7, rounded up."""
    found = [losses.logistic(tf.constant([m])).numpy() for m in (-1000.0, 0.0, 1000.0)]
    np.testing.assert_allclose(found, [1000, np.log(2), 0], rtol=1e-6)


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="norm must be inf, 2 or 1"):
        losses.worst_case_margins(tf.zeros(2), None, None, tf.ones(3), 0.1, "l2")
