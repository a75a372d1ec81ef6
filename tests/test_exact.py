"""The exact attack, against brute force, linear programs, bisection and random perturbations."""

import numpy as np
import pytest
import scipy.optimize
from conftest import dual_norm, flat
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import cli
import exact
import runs

NORMS = ["inf", "2", "1"]
BALL_ORDER = {"inf": np.inf, "2": 2, "1": 1}  # the norm that measures a perturbation
EPS = np.arange(101) * 0.5 / 100  # the grid of attack.py

norms = st.sampled_from(NORMS)
radii = st.just(0.0) | st.floats(1e-100, 10)  # their squares are normal numbers
# Weights of very different sizes, some of them zero; the square of each is a normal number.
weight = st.just(0.0) | st.floats(1e-6, 1e3) | st.floats(-1e3, -1e-6)
weights = arrays(np.float64, st.integers(1, 8), elements=weight)
labels = arrays(np.float64, st.integers(1, 4), elements=st.sampled_from([-1.0, 1.0]))


def images(n, d, seed):
    """Pixels in [0, 1], a third of them exactly 0 and a third exactly 1, as MNIST has many."""
    random = np.random.default_rng(seed)
    return np.clip(random.uniform(-1, 2, (n, d)), 0, 1)


def gaussian(n, d, seed):
    """Images, labels, and weights of which a fifth are zero."""
    random = np.random.default_rng(seed)
    w = random.normal(size=d) * (random.random(d) < 0.8)
    return images(n, d, seed), random.choice([-1.0, 1.0], n), w


# --- the perturbation ------------------------------------------------------------------------


@given(y=labels, w=weights, eps=radii, norm=norms)
def test_perturbation_fills_the_ball_and_lowers_each_margin_by_the_dual_norm(y, w, eps, norm):
    x = images(len(y), len(w), 0)
    delta = exact.perturbation(x, y, w, eps, norm)
    exact.check_perturbation(x, delta, eps, norm)
    size, _ = dual_norm(w, norm)
    # Up to eight products of at most 1e4 each, rounded to 1e-16 of their size.
    np.testing.assert_allclose(y * (delta @ w), -eps * size, rtol=1e-12, atol=1e-12)
    surface = eps if w.any() else 0.0
    sizes = np.linalg.norm(delta, BALL_ORDER[norm], axis=1)
    np.testing.assert_allclose(sizes, surface, rtol=1e-12, atol=0)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_perturbation_of_radius_zero_is_the_identity(norm, box):
    x, y, w = gaussian(5, 7, 0)
    assert (x + exact.perturbation(x, y, w, 0, norm, box) == x).all()


@pytest.mark.parametrize("eps", [-0.1, -1e-300, np.nan, np.inf])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [False, True])
def test_perturbation_of_no_radius_is_refused(eps, norm, box):
    with pytest.raises(ValueError, match="eps must be finite and at least 0"):
        exact.perturbation(np.ones((2, 3)), np.ones(2), np.ones(3), eps, norm, box)


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (np.zeros((2, 4)), "shape"),
        (np.zeros(6), "shape"),
        (np.full((2, 3), np.nan), "not finite"),
        (np.full((2, 3), -np.inf), "not finite"),
        (np.eye(2, 3) * 0.11, "leaves the ball"),
        (-np.eye(2, 3) * (0.1 + 1e-8), "leaves the ball"),
    ],
)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [False, True])
def test_check_perturbation_refuses(delta, message, norm, box):
    with pytest.raises(ValueError, match=message):
        exact.check_perturbation(np.full((2, 3), 0.5), delta, 0.1, norm, box)


def test_check_perturbation_knows_the_balls():
    x, delta = np.full((1, 4), 0.5), np.full((1, 4), 0.1)  # size 0.1, 0.2 and 0.4 in the norms
    for norm, size in zip(NORMS, (0.1, 0.2, 0.4), strict=True):
        exact.check_perturbation(x, delta, size, norm)
        with pytest.raises(ValueError, match="leaves the ball"):
            exact.check_perturbation(x, delta, size - 1e-6, norm)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("pixel", "step"), [(0.05, -0.06), (0.95, 0.06), (0, -1e-8), (1, 1e-8)])
def test_check_perturbation_refuses_to_leave_the_box(norm, pixel, step):
    x = np.full((2, 3), 0.5)
    x[1, 2] = pixel
    delta = np.zeros((2, 3))
    delta[1, 2] = step
    exact.check_perturbation(x, delta, 0.1, norm)
    with pytest.raises(ValueError, match=r"a perturbed pixel leaves \[0, 1\]"):
        exact.check_perturbation(x, delta, 0.1, norm, box=True)


# --- it is the optimum -----------------------------------------------------------------------


def linear_program(x, y, w, eps, norm, box):
    """The most that one image's margin can fall, by HiGHS: delta = up - down, both >= 0."""
    d = len(w)
    limit = eps if norm == "inf" else None
    room = np.concatenate([1 - x, x]) if box else np.full(2 * d, np.inf)
    bounds = [(0, room[j] if limit is None else min(limit, room[j])) for j in range(2 * d)]
    budget = {} if norm == "inf" else dict(A_ub=np.ones((1, 2 * d)), b_ub=[eps])
    solved = scipy.optimize.linprog(y * np.concatenate([w, -w]), bounds=bounds, **budget)
    assert solved.success
    return -solved.fun


def bisection(x, y, w, eps, box):
    """The same in the L2 ball: delta = -y t w, cut to the box, is in the ball up to some t."""

    def delta(t):
        return np.clip(-y * t * w, -x, 1 - x) if box else -y * t * w

    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        inside = np.linalg.norm(delta(middle)) <= eps
        low, high = (middle, high) if inside else (low, middle)
    return -y * (delta(low) @ w)


def quadratic_program(x, y, w, eps, box):
    """The same by SLSQP, which knows nothing of the form of the solution."""
    solved = scipy.optimize.minimize(
        lambda delta: y * (delta @ w),
        np.zeros(len(w)),
        jac=lambda delta: y * w,
        bounds=list(zip(-x, 1 - x, strict=True)) if box else None,
        constraints=[
            dict(type="ineq", fun=lambda v: eps**2 - v @ v, jac=lambda v: -2 * v),
        ],
        method="SLSQP",
        options=dict(ftol=1e-10, maxiter=500),
    )
    assert solved.status in (0, 8)  # solved, or no step makes a difference any more
    return -solved.fun


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.05, 0.4, 1.1, 3.0])
def test_perturbation_is_the_optimum_of_a_solver(norm, box, eps):
    """Ten images of nine pixels. HiGHS keeps its constraints to 1e-7, SLSQP the ball to 1e-6."""
    x, y, w = gaussian(10, 9, seed=3)
    delta = exact.perturbation(x, y, w, eps, norm, box)
    exact.check_perturbation(x, delta, eps, norm, box)
    falls = -y * (delta @ w)
    for i in range(len(y)):
        if norm == "2":
            np.testing.assert_allclose(falls[i], bisection(x[i], y[i], w, eps, box), rtol=1e-9)
            found = quadratic_program(x[i], y[i], w, eps, box)
            np.testing.assert_allclose(falls[i], found, rtol=0, atol=1e-5)
        else:
            found = linear_program(x[i], y[i], w, eps, norm, box)
            np.testing.assert_allclose(falls[i], found, rtol=0, atol=1e-6)


@given(y=labels, w=weights, eps=radii, seed=st.integers(0, 99), box=st.booleans())
def test_perturbation_in_l2_is_the_bisections(y, w, eps, seed, box):
    """Weights from 1e-6 to 1e3. Where the largest t is met the bisection ends at 1e9, which is
    1e-6 off for the least weights; margins are compared to 1e-9 of the largest cost."""
    x = images(len(y), len(w), seed)
    delta = exact.perturbation(x, y, w, eps, "2", box)
    exact.check_perturbation(x, delta, eps, "2", box)
    expected = [bisection(x[i], y[i], w, eps, box) for i in range(len(y))]
    scale = max(1.0, eps) * np.abs(w).sum()
    np.testing.assert_allclose(-y * (delta @ w), expected, rtol=1e-9, atol=1e-9 * scale)


@given(y=labels, w=weights, eps=radii, norm=norms, box=st.booleans(), seed=st.integers(0, 999))
def test_no_feasible_perturbation_does_worse(y, w, eps, norm, box, seed):
    random = np.random.default_rng(seed)
    x = images(len(y), len(w), seed)
    worst = exact.perturbation(x, y, w, eps, norm, box)
    exact.check_perturbation(x, worst, eps, norm, box)
    # Gaussian directions, sparse ones, signs, and neighbours of the closed form.
    delta = random.normal(size=(60, *x.shape))
    delta[::4] *= random.random((15, *x.shape)) < 0.2
    delta[1::4] = np.sign(delta[1::4])
    delta[2::4] = worst * (1 + 0.3 * delta[2::4])
    size = np.linalg.norm(delta, BALL_ORDER[norm], axis=2, keepdims=True)
    delta *= eps / np.where(size, size, 1)
    if box:  # cutting brings each pixel nearer, so that it leaves no ball
        delta = np.clip(x + delta, 0, 1) - x
    falls = -y * (delta @ w)
    assert (falls <= -y * (worst @ w) + 1e-12 * (1 + eps) * np.abs(w).sum()).all()


# --- radii and the curve ---------------------------------------------------------------------


@given(y=labels, w=weights, b=st.floats(-10, 10), norm=norms, seed=st.integers(0, 99))
def test_a_sample_stays_correct_at_exactly_the_radii_below_its_own(y, w, b, norm, seed):
    x = np.random.default_rng(seed).random((len(y), len(w)))
    margins = y * (x @ w + b)
    size, _ = dual_norm(w, norm)
    # A margin of a millionth of the terms that make it has ten exact digits, enough for the
    # 1e-3 by which the radius is missed on either side.
    assume((np.abs(margins) > 1e-6 * (np.abs(w).sum() + abs(b))).all() and size > 0)
    for i, radius in enumerate(exact.sample_radii(x, y, w, b, norm)):
        if margins[i] <= 0:
            assert radius <= 0
            continue
        for factor, correct in ((0.999, True), (1.001, False)):
            delta = exact.perturbation(x[[i]], y[[i]], w, factor * radius, norm)[0]
            assert (y[i] * ((x[i] + delta) @ w + b) > 0) == correct


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [False, True])
def test_zero_weights_withstand_everything_or_nothing(norm, box):
    x, y = images(3, 4, 0), np.float64([1, 1, -1])
    for b, expected in ((0.5, [1, 1, -1]), (0.0, [-1, -1, -1]), (-0.5, [-1, -1, 1])):
        radii = exact.sample_radii(x, y, np.zeros(4), b, norm, box)
        wrong = 0.0 if box else -np.inf
        assert radii.tolist() == [np.inf if e > 0 else wrong for e in expected]
        correct = [e > 0 for e in expected].count(True)
        found = exact.robust_correct(radii, np.array([0, 1e9]))
        assert found.tolist() == [correct, correct]
    assert (exact.perturbation(x, y, np.zeros(4), 3.0, norm, box) == 0).all()


GRID = [0.0, 0.1, 0.2, 0.30000000000000004, 1.0]  # so that radii and eps are often equal


@given(
    radii=st.lists(st.sampled_from([*GRID, -np.inf, np.inf, -0.1]) | st.floats(-1, 2), max_size=20),
    eps=st.lists(st.sampled_from(GRID) | st.floats(0, 2), min_size=1, max_size=9),
)
def test_robust_correct_counts_the_larger_radii(radii, eps):
    """In any order, and with equal ones: a tie is an error."""
    found = exact.robust_correct(np.array(radii, dtype=float), np.array(eps))
    assert found.tolist() == [sum(r > e for r in radii) for e in eps]


# --- radii in the box ------------------------------------------------------------------------


def corner(x, y, w):
    """The images with every pixel moved against the margin as far as the box lets it."""
    return np.where(w == 0, x, (y[:, None] * w < 0).astype(float))


@given(
    y=labels,
    w=weights,
    b=st.floats(-10, 10),
    norm=norms,
    box=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_margin_vanishes_at_the_radius(y, w, b, norm, box, seed):
    """Not above 0 where the radius says flipped, not below where it does not: to 1e-11 of the
    terms, as weights differ by 1e9. Where no perturbation in the box flips, the radius is inf."""
    assume(w.any())
    x = images(len(y), len(w), seed)
    margins = y * (x @ w + b)
    zero = 1e-11 * (np.abs(w).sum() + abs(b))
    assume((np.abs(margins) > zero).all())
    radii = exact.sample_radii(x, y, w, b, norm, box)
    assert not np.isnan(radii).any()
    assert ((radii > 0) == (margins > 0)).all()
    if box:
        least = y * (corner(x, y, w) @ w + b)
        assert np.isinf(radii[(margins > 0) & (least > zero)]).all()
        assert np.isfinite(radii[least < -zero]).all()
        assert (radii[margins <= 0] == 0).all()
    for i in np.flatnonzero((margins > 0) & np.isfinite(radii)):
        one = slice(i, i + 1)
        for factor in (1 - 1e-6, 1.0, 1 + 1e-6):
            delta = exact.perturbation(x[one], y[one], w, factor * radii[i], norm, box)
            margin = y[i] * ((x[i] + delta[0]) @ w + b)
            assert margin >= -zero or factor > 1
            assert margin <= zero or factor < 1


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(5))
def test_a_sample_flips_between_just_below_and_just_above_its_radius(norm, box, seed):
    """By a millionth on either side, where rounding is 1e-13 of the margin's terms."""
    x, y, w = gaussian(40, 12, seed)
    b = 0.3
    margins = y * (x @ w + b)
    radii = exact.sample_radii(x, y, w, b, norm, box)
    tested = np.flatnonzero((margins > 0) & np.isfinite(radii))
    assert len(tested) > 8
    for i in tested:
        for factor, correct in ((1 - 1e-6, True), (1 + 1e-6, False)):
            delta = exact.perturbation(x[[i]], y[[i]], w, factor * radii[i], norm, box)
            exact.check_perturbation(x[[i]], delta, factor * radii[i], norm, box)
            assert (y[i] * ((x[i] + delta[0]) @ w + b) > 0) == correct
    for i in np.flatnonzero(np.isinf(radii)):  # nothing in the box flips these, at any radius
        delta = exact.perturbation(x[[i]], y[[i]], w, 1e6, norm, box)
        assert y[i] * ((x[i] + delta[0]) @ w + b) > 0


@given(y=labels, w=weights, b=st.floats(-10, 10), norm=norms, seed=st.integers(0, 99))
def test_the_box_only_helps_the_defender(y, w, b, norm, seed):
    """The radius with it is no smaller, to a billionth for rounding. (No margin is so near to 0
    that its sign is rounding.)"""
    x = images(len(y), len(w), seed)
    assume((np.abs(y * (x @ w + b)) > 1e-11 * (np.abs(w).sum() + abs(b))).all())
    free, boxed = (exact.sample_radii(x, y, w, b, norm, box) for box in (False, True))
    assert (boxed >= np.maximum(free, 0) * (1 - 1e-9)).all()
    assert (boxed >= 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_radius_is_infinite_where_nothing_in_the_box_flips(norm):
    """By hand: w = (1, -1), b = 3 leaves at least 3 - 1 = 2 in the box, b = 0.5 does not."""
    x, y, w = np.float64([[0.5, 0.25]]), np.ones(1), np.float64([1, -1])
    assert exact.sample_radii(x, y, w, 3.0, norm, box=True) == np.inf
    assert np.isfinite(exact.sample_radii(x, y, w, 3.0, norm))
    # Margin 0.75; rooms 0.5 and 0.75. inf and 2: both by 0.375; 1: 0.75 in all.
    expected = {"inf": 0.375, "2": 0.375 * np.sqrt(2), "1": 0.75}[norm]
    found = exact.sample_radii(x, y, w, 0.5, norm, box=True)
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def check_radii_are_the_clipped_images(run, split):
    """Sample by sample at each radius of the grid: the images moved against the margin, cut."""
    x, y = flat(split.x_test), np.float64(split.y_test)
    radii = exact.sample_radii(x, y, run.w, run.b, "inf", box=True)
    counts = []
    for eps in EPS:
        perturbed = np.clip(x - eps * y[:, None] * np.sign(run.w), 0, 1)
        correct = y * (perturbed @ run.w + run.b) > 0
        assert (correct == (radii > eps)).all()
        counts.append(int(correct.sum()))
    assert exact.robust_correct(radii, EPS).tolist() == counts
    assert len(set(counts)) > 3


def test_radii_are_the_clipped_images(trained, digits):
    folders = runs.list_runs(trained / "digits-0-1")
    assert len(folders) == 2
    for folder in folders:
        check_radii_are_the_clipped_images(runs.load(folder), digits)


@pytest.mark.mnist
@pytest.mark.parametrize("name", ["regular", "robust-eps0.2"])
def test_radii_are_the_clipped_images_on_mnist(mnist, name):
    check_radii_are_the_clipped_images(runs.load(cli.RESULTS / "mnist-0-1" / name), mnist)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_digits_flip_at_their_radii(trained, digits, norm, box):
    """As above in every ball, a millionth below and above, with trained weights and real images."""
    x, y = flat(digits.x_test), np.float64(digits.y_test)
    for folder in runs.list_runs(trained / "digits-0-1"):
        run = runs.load(folder)
        radii = exact.sample_radii(x, y, run.w, run.b, norm, box)
        for i in np.flatnonzero((radii > 0) & np.isfinite(radii))[::5]:
            for factor, correct in ((1 - 1e-6, True), (1 + 1e-6, False)):
                eps = factor * radii[i]
                delta = exact.perturbation(x[[i]], y[[i]], run.w, eps, norm, box)[0]
                assert (y[i] * ((x[i] + delta) @ run.w + run.b) > 0) == correct
