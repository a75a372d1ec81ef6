"""The hinge, the robust hinge and their gradients, against attacks and formulas written afresh.

Everything is computed in float64, where sums of up to 64 numbers of size 1 are right to about
1e-14; the tolerance of 1e-9 is far above that and far below any term of a formula.
"""

import numpy as np
import pytest
import tensorflow as tf
from conftest import dual_norm, flat
from hypothesis import given
from hypothesis import strategies as st

import exact
import losses

NORMS = ["inf", "2", "1"]
BALL_ORDER = {"inf": np.inf, "2": 2, "1": 1}  # the norm that measures a perturbation
EXACT = dict(rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def problem(digits):
    """Images, labels, and weights that leave some samples inside the knee and some outside."""
    x, y = flat(digits.x_test), np.float64(digits.y_test)
    towards_ones = 0.3 * (x[y > 0].mean(0) - x[y < 0].mean(0))
    return x, y, np.random.default_rng(0).normal(towards_ones, 0.05), 0.1


def hinge(x, y, w, b):
    """The hinge of every sample, in NumPy."""
    return np.maximum(0, 1 - y * (x @ w + b))


def loss_tensor(x, y, w, b, eps, norm):
    """The robust hinge as train.py composes it; the hinge itself for norm None."""
    margins = losses.margins(tf.linalg.matvec(x, w) + b, y)
    return losses.hinge(margins) if norm is None else losses.robust_hinge(margins, w, eps, norm)


def value_and_gradients(x, y, w, b, eps, norm):
    """The loss, and its gradients by w, b and x."""
    variables = [tf.Variable(v, dtype=tf.float64) for v in (w, b, x)]
    with tf.GradientTape() as tape:
        loss = loss_tensor(variables[2], tf.constant(y), *variables[:2], eps, norm)
    return loss.numpy(), [g.numpy() for g in tape.gradient(loss, variables)]


@pytest.mark.parametrize("shape", [(5, 1), (5,)])
def test_margins_take_logits_of_either_shape(shape):
    logits, y = np.arange(-2.0, 3.0), np.float64([1, -1, 1, -1, -1])
    margins = losses.margins(tf.constant(logits.reshape(shape)), tf.constant(y))
    assert margins.numpy().tolist() == [-2, 1, 0, -1, -2]


def test_hinge(problem):
    value, _ = value_and_gradients(*problem, 0.0, None)
    np.testing.assert_allclose(value, hinge(*problem).mean(), **EXACT)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3])
def test_robust_hinge_is_the_hinge_at_the_worst_perturbation(problem, norm, eps):
    """Sample by sample, so that no average hides a difference."""
    x, y, w, b = problem
    worst = hinge(x + exact.perturbation(x, y, w, eps, norm), y, w, b)
    for i in range(len(y)):
        one = slice(i, i + 1)
        value = loss_tensor(*map(tf.constant, (x[one], y[one], w)), b, eps, norm)
        np.testing.assert_allclose(value, worst[i], **EXACT)


@pytest.mark.parametrize("norm", NORMS)
def test_worst_case_margins_are_those_of_the_worst_perturbation(problem, norm):
    x, y, w, b = problem
    found = losses.worst_case_margins(tf.constant(y * (x @ w + b)), tf.constant(w), 0.2, norm)
    expected = y * ((x + exact.perturbation(x, y, w, 0.2, norm)) @ w + b)
    np.testing.assert_allclose(found, expected, **EXACT)


@given(
    norm=st.sampled_from(NORMS),
    eps=st.floats(0, 2),
    scale=st.sampled_from([0.01, 0.3, 10]),
    seed=st.integers(0, 2**32 - 1),
    surface=st.booleans(),
)
def test_no_perturbation_exceeds_the_robust_hinge(norm, eps, scale, seed, surface):
    random = np.random.default_rng(seed)
    n, d = 4, 6
    x, y = random.random((n, d)), random.choice([-1.0, 1.0], n)
    w, b = scale * random.normal(size=d) * (random.random(d) < 0.8), random.normal()
    # Gaussian directions, and sparse ones and signs, which are the corners of the L1 and the
    # L-infinity ball.
    delta = random.normal(size=(50, n, d))
    delta[::3] *= random.random((17, n, d)) < 0.2
    delta[1::3] = np.sign(delta[1::3])
    size = np.linalg.norm(delta, BALL_ORDER[norm], axis=2, keepdims=True)
    delta *= eps / np.where(size, size, 1) * (1 if surface else random.random((50, n, 1)))
    for i in range(n):
        one = slice(i, i + 1)
        closed = loss_tensor(*map(tf.constant, (x[one], y[one], w)), b, eps, norm).numpy()
        assert hinge(x[i] + delta[:, i], y[i], w, b).max() <= closed + 1e-9


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_projected_gradient_ascent_reaches_the_robust_hinge(problem, norm):
    """An attack that knows no closed form: steps along the gradient, projected on the ball."""
    x, y, w, b = problem
    w, eps = w / 10, 0.2  # flat enough that every sample is inside the knee and has a gradient
    closed = [
        loss_tensor(*map(tf.constant, (x[[i]], y[[i]], w)), b, eps, norm) for i in range(len(y))
    ]
    assert (hinge(x, y, w, b) > 0).all()
    delta = np.random.default_rng(0).uniform(-eps, eps, x.shape) / 8  # inside either ball
    for _ in range(200):
        shifted = tf.constant(x + delta)
        with tf.GradientTape() as tape:
            tape.watch(shifted)
            logits = tf.linalg.matvec(shifted, tf.constant(w)) + b
            loss = losses.hinge(losses.margins(logits, tf.constant(y)))
        ascent = tape.gradient(loss, shifted).numpy()
        if norm == "inf":
            delta = np.clip(delta + 0.01 * np.sign(ascent), -eps, eps)
        else:
            delta = delta + 0.02 * ascent / np.linalg.norm(ascent, axis=1, keepdims=True)
            size = np.linalg.norm(delta, axis=1, keepdims=True)
            delta = delta * np.minimum(1, eps / np.where(size, size, 1))
        assert (hinge(x + delta, y, w, b) <= np.float64(closed) + 1e-9).all()
    # The L-infinity ascent ends in the corner; the L2 one turns towards w by a constant factor
    # each step, so 200 steps end within rounding.
    np.testing.assert_allclose(hinge(x + delta, y, w, b), closed, **EXACT)


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_gradients_are_the_closed_formulas(problem, norm):
    """On an active sample d/dw = -y x + eps d||w||/dw, d/db = -y and d/dx = -y w; else 0."""
    x, y, w, b = problem
    eps = 0.05
    size, slope = (0, 0) if norm is None else dual_norm(w, norm)
    active = (y * (x @ w + b) - eps * size < 1)[:, None]
    assert 0 < active.sum() < len(y)
    _, (by_w, by_b, by_x) = value_and_gradients(x, y, w, b, eps, norm)
    np.testing.assert_allclose(by_w, (active * (-y[:, None] * x + eps * slope)).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, (active[:, 0] * -y).mean(), **EXACT)
    np.testing.assert_allclose(by_x, active * np.outer(-y, w) / len(y), **EXACT)


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_gradients_are_the_finite_differences(problem, norm):
    """Central differences over 2e-6; the loss is linear between kinks (L2: nearly), so what is
    left is rounding, 1e-16 / 1e-6, and the L2 norm's curvature: 1e-8 covers both."""
    x, y, w, b = problem
    _, (by_w, by_b, _) = value_and_gradients(x, y, w, b, 0.05, norm)
    parameters = np.append(w, b)

    def loss(parameters):
        return value_and_gradients(x, y, parameters[:-1], parameters[-1], 0.05, norm)[0]

    for j, expected in enumerate([*by_w, by_b]):
        step = np.zeros_like(parameters)
        step[j] = 1e-6
        difference = (loss(parameters + step) - loss(parameters - step)) / 2e-6
        np.testing.assert_allclose(difference, expected, rtol=0, atol=1e-8)


def boxed_margins(x, y, w, b, eps):
    """The worst-case margins in the box as train.py composes them."""
    margins = losses.margins(tf.linalg.matvec(x, w) + b, y)
    return losses.worst_case_margins_in_box(margins, x, y, w, eps)


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.3, 1.0, 2.0])
def test_margins_in_the_box_are_those_of_the_worst_perturbation(problem, eps):
    x, y, w, b = problem
    expected = y * ((x + exact.perturbation(x, y, w, eps, "inf", True)) @ w + b)
    np.testing.assert_allclose(
        boxed_margins(*map(tf.constant, (x, y, w)), b, eps), expected, **EXACT
    )
    # As in training: images of rank 4, weights (d, 1), and float32, whose sums of 64 products
    # of size 1 are right to 1e-5.
    single = [tf.constant(np.float32(v)) for v in (y * (x @ w + b), x, y, w)]
    found = losses.worst_case_margins_in_box(
        single[0], tf.reshape(single[1], [-1, 8, 8, 1]), single[2], single[3][:, None], eps
    )
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    shifted = y * (x @ w + b) - eps * np.abs(w).sum()
    assert (found.numpy() >= shifted - 1e-5).all()


def boxed_loss_and_gradients(loss_of, x, y, w, b, eps):
    """A loss at the worst-case margins in the box, and its gradients by w and b."""
    variables = [tf.Variable(v, dtype=tf.float64) for v in (w, b)]
    with tf.GradientTape() as tape:
        loss = loss_of(boxed_margins(tf.constant(x), tf.constant(y), *variables, eps))
    return loss.numpy(), [g.numpy() for g in tape.gradient(loss, variables)]


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("eps", [0.05, 0.3])
def test_gradients_in_the_box(problem, loss, eps):
    """The closed formulas, and central differences away from the kinks at w_j = 0 and at the
    knee: over 2e-6, rounding is 1e-10 and the logistic loss's third derivative less."""
    x, y, w, b = problem
    loss_of = getattr(losses, loss)
    worst = y * ((x + exact.perturbation(x, y, w, eps, "inf", True)) @ w + b)
    assert np.abs(w).min() > 1e-5
    assert np.abs(1 - worst).min() > 1e-4
    _, (by_w, by_b) = boxed_loss_and_gradients(loss_of, x, y, w, b, eps)
    slope = worst < 1 if loss == "hinge" else 1 / (1 + np.exp(worst))
    moved = np.minimum(eps, exact.room(x, y, w)) * np.sign(w)
    np.testing.assert_allclose(by_w, (slope[:, None] * (moved - y[:, None] * x)).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, (slope * -y).mean(), **EXACT)

    parameters = np.append(w, b)
    for j, expected in enumerate([*by_w, by_b]):
        step = np.zeros_like(parameters)
        step[j] = 1e-6
        up, down = (
            boxed_loss_and_gradients(loss_of, x, y, p[:-1], p[-1], eps)[0]
            for p in (parameters + step, parameters - step)
        )
        np.testing.assert_allclose((up - down) / 2e-6, expected, rtol=0, atol=1e-8)


def test_gradient_in_the_box_at_zero_weights_is_the_plain_hinges(problem):
    x, y, w, _ = problem
    zeros = np.zeros_like(w)
    _, (by_w, by_b) = boxed_loss_and_gradients(losses.hinge, x, y, zeros, 0.0, 0.2)
    np.testing.assert_allclose(by_w, -(y[:, None] * x).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, -y.mean(), **EXACT)


def test_logistic(problem):
    """log(1 + exp(-m)) and its gradient -sigmoid(-m) y x, in NumPy."""
    x, y, w, b = problem
    margins = y * (x @ w + b)
    variables = [tf.Variable(v, dtype=tf.float64) for v in (w, b)]
    with tf.GradientTape() as tape:
        logits = tf.linalg.matvec(tf.constant(x), variables[0]) + variables[1]
        loss = losses.logistic(losses.margins(logits, tf.constant(y)))
    by_w, by_b = tape.gradient(loss, variables)
    np.testing.assert_allclose(loss, np.logaddexp(0, -margins).mean(), **EXACT)
    slope = -y / (1 + np.exp(margins))
    np.testing.assert_allclose(by_w, (slope[:, None] * x).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, slope.mean(), **EXACT)


def test_logistic_of_large_margins():
    """No overflow: 1000 for a margin of -1000, and 0 for one of 1000."""
    found = [losses.logistic(tf.constant([m])).numpy() for m in (-1000.0, 0.0, 1000.0)]
    np.testing.assert_allclose(found, [1000, np.log(2), 0], rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_gradient_at_zero_weights_is_the_plain_hinges(problem, norm):
    x, y, w, _ = problem
    zeros = np.zeros_like(w)
    _, (by_w, by_b, by_x) = value_and_gradients(x, y, zeros, 0.0, 0.2, norm)
    np.testing.assert_allclose(by_w, -(y[:, None] * x).mean(0), **EXACT)
    np.testing.assert_allclose(by_b, -y.mean(), **EXACT)
    assert (by_x == 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_dual_norm(problem, norm):
    _, _, w, _ = problem
    expected, _ = dual_norm(w, norm)
    np.testing.assert_allclose(losses.dual_norm(tf.constant(w[:, None]), norm), expected, **EXACT)
    np.testing.assert_allclose(exact.dual_norm(w, norm), expected, **EXACT)
    assert losses.dual_norm(tf.zeros(3), norm).numpy() == 0


@pytest.mark.parametrize("norm", ["l2", "", 2])
def test_unknown_norm_is_refused(norm):
    with pytest.raises(ValueError, match="norm must be inf, 2 or 1"):
        losses.robust_hinge(tf.zeros(2), tf.ones(3), 0.1, norm)
