"""worst_case.py, against brute force, linear programs, bisection and random perturbations."""

from lab import store
from lab.cli import RESULTS

import numpy as np
import pytest
import scipy.optimize
from conftest import dual_norm, flat
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import runs
import worst_case

EPS = np.arange(101) * 0.5 / 100  # the grid of attack.py
every_threat = pytest.mark.parametrize(
    ("norm", "box"), [(norm, box) for norm in ("inf", "2", "1") for box in (False, True)]
)

# Weights of very different sizes, some of them zero; the square of each is a normal number.
weight = st.just(0.0) | st.floats(1e-6, 1e3) | st.floats(-1e3, -1e-6)
radii = st.just(0.0) | st.floats(1e-100, 10)  # their squares are normal numbers
linear = dict(
    y=arrays(np.float64, st.integers(1, 4), elements=st.sampled_from([-1.0, 1.0])),
    w=arrays(np.float64, st.integers(1, 8), elements=weight),
    seed=st.integers(0, 999),
)
affine = linear | dict(b=st.floats(-10, 10), norm=st.sampled_from(["inf", "2", "1"]))


def images(n, d, seed):
    """Pixels in [0, 1], a third of them exactly 0 and a third exactly 1, as MNIST has many."""
    return np.clip(np.random.default_rng(seed).uniform(-1, 2, (n, d)), 0, 1)


def gaussian(n, d, seed):
    """Images, labels, and weights of which a fifth are zero."""
    random = np.random.default_rng(seed)
    w = random.normal(size=d) * (random.random(d) < 0.8)
    return images(n, d, seed), random.choice([-1.0, 1.0], n), w


# --- several classes -------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_margins_over_several_classes_are_the_smallest_over_pairs(norm):
    """Each pair is a model of two classes, w_y - w_k, whose worst-case margin is tested below."""
    random = np.random.default_rng(0)
    x, y = images(40, 6, 0), random.integers(0, 4, 40)
    W, b = random.normal(size=(4, 6)), random.normal(size=4)
    found = worst_case.margins(x, y.astype(float), W, b, 0.1, norm)
    for one, own, margin in zip(x, y, found, strict=True):
        pairs = [
            worst_case.margins(one[None], np.ones(1), W[own] - W[k], b[own] - b[k], 0.1, norm)[0]
            for k in range(4)
            if k != own
        ]
        assert margin == pytest.approx(min(pairs), rel=1e-12, abs=1e-12)
    clean = worst_case.margins(x, y, W, b) > 0
    assert np.array_equal(clean, (x @ W.T + b).argmax(axis=1) == y)


@given(arrays(np.int8, (4, 5), elements=st.integers(-1, 1)))
def test_the_sparsest_weights_have_the_same_differences_and_the_most_zeros(whole):
    W = whole.astype(float)
    found = worst_case.sparsest(W)
    assert np.array_equal(found - found[0], W - W[0])
    for column, before in zip(found.T, W.T, strict=True):
        most = max(np.count_nonzero(before == value) for value in before)
        assert np.count_nonzero(column == 0) == most
    assert np.array_equal(worst_case.sparsest(W[0]), W[0])


# --- the perturbation ------------------------------------------------------------------------


@given(**affine, eps=radii)
def test_perturbation_fills_the_ball_and_lowers_each_margin_by_the_dual_norm(
    y, w, seed, b, norm, eps
):
    """Up to eight products of at most 1e4 each, rounded to 1e-16 of their size."""
    x = images(len(y), len(w), seed)
    delta = worst_case.perturbation(x, y, w, eps, norm)
    size, _ = dual_norm(w, norm)
    assert worst_case.dual_norm(w, norm) == pytest.approx(size, rel=1e-12)
    np.testing.assert_allclose(y * (delta @ w), -eps * size, rtol=1e-12, atol=1e-12)
    sizes = np.linalg.norm(delta, {"inf": np.inf, "2": 2, "1": 1}[norm], axis=1)
    np.testing.assert_allclose(sizes, eps if w.any() else 0.0, rtol=1e-12, atol=0)
    worst = worst_case.margins(x, y, w, b, eps, norm)
    expected = y * (x @ w + b) - eps * size
    np.testing.assert_allclose(worst, expected, rtol=1e-12, atol=1e-12)


@every_threat
def test_radius_zero_changes_nothing(norm, box):
    x, y, w = gaussian(5, 7, 0)
    assert (worst_case.perturbation(x, y, w, 0, norm, box) == 0).all()
    assert (worst_case.margins(x, y, w, 0.3, 0, norm, box) == y * (x @ w + 0.3)).all()


@pytest.mark.parametrize("norm", ["3", "l2"])
@pytest.mark.parametrize("box", [False, True])
def test_an_unknown_norm_is_refused(norm, box):
    x, y, w = gaussian(2, 3, 0)
    with pytest.raises(ValueError, match="norm must be inf, 2 or 1"):
        worst_case.perturbation(x, y, w, 0.1, norm, box)
    with pytest.raises(ValueError, match="norm must be inf, 2 or 1"):
        worst_case.margins(x, y, w, 0.3, 0.1, norm, box)
    with pytest.raises(ValueError, match="norm must be inf, 2 or 1"):
        worst_case.signed_radii(x, y, w, 0.3, norm, box)


def test_check_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="not finite"):
        worst_case.check(np.full((2, 3), 0.5), np.full((2, 3), np.nan), 0.1)


@pytest.mark.parametrize(("norm", "size"), [("inf", 0.1), ("2", 0.2), ("1", 0.4)])
def test_check_knows_the_balls(norm, size):
    x, delta = np.full((1, 4), 0.5), np.full((1, 4), 0.1)
    worst_case.check(x, delta, size, norm)
    with pytest.raises(ValueError, match="leaves the ball"):
        worst_case.check(x, delta, size - 1e-6, norm)


@pytest.mark.parametrize(("pixel", "step"), [(0.05, -0.06), (0.95, 0.06), (0, -1e-8), (1, 1e-8)])
def test_check_refuses_to_leave_the_box(pixel, step):
    x, delta = np.full((2, 3), 0.5), np.zeros((2, 3))
    x[1, 2], delta[1, 2] = pixel, step
    worst_case.check(x, delta, 0.1)
    with pytest.raises(ValueError, match=r"a perturbed pixel leaves \[0, 1\]"):
        worst_case.check(x, delta, 0.1, box=True)


# --- it is the optimum -----------------------------------------------------------------------


def test_losses():
    margins = np.float64([-1, 0, 0.5, 1, 2])
    assert worst_case.hinge(margins).tolist() == [2, 1, 0.5, 0, 0]
    np.testing.assert_allclose(worst_case.logistic(margins), np.log(1 + np.exp(-margins)))


@pytest.mark.parametrize("eps", [0.1, 0.6, 1.5])
@every_threat
def test_no_perturbation_on_a_grid_does_worse(norm, box, eps):
    """Brute force: every perturbation of three pixels by multiples of eps / 30 that is allowed.

    The worst one, rounded towards 0, is on the grid and allowed, and the rounding costs at most
    a step times ||w||_1. That is the gap that is left between the grid and the closed form.
    """
    x, y, w = gaussian(6, 3, seed=2)
    assert w.all()
    steps, b = np.linspace(-eps, eps, 61), 0.3
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    size = {"inf": np.max, "2": lambda v, axis: np.sqrt((v * v).sum(axis)), "1": np.sum}[norm]
    grid = grid[size(np.abs(grid), axis=1) <= eps + 1e-12]
    closed = worst_case.margins(x, y, w, b, eps, norm, box)
    for i in range(len(y)):
        moved = x[i] + grid
        if box:
            moved = moved[((moved >= -1e-12) & (moved <= 1 + 1e-12)).all(axis=1)]
        least = (y[i] * (moved @ w + b)).min()
        assert closed[i] - 1e-9 <= least <= closed[i] + eps / 30 * np.abs(w).sum()


def linear_program(x, y, w, eps, norm, box):
    """The most that one image's margin can fall, by HiGHS: delta = up - down, both >= 0."""
    limit = eps if norm == "inf" else np.inf
    room = np.concatenate([1 - x, x]) if box else np.full(2 * len(w), np.inf)
    bounds = [(0, upper) for upper in np.minimum(limit, room)]
    budget = {} if norm == "inf" else dict(A_ub=np.ones((1, 2 * len(w))), b_ub=[eps])
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
        constraints=dict(type="ineq", fun=lambda v: eps**2 - v @ v, jac=lambda v: -2 * v),
        method="SLSQP",
        options=dict(ftol=1e-10, maxiter=500),
    )
    assert solved.status in (0, 8)  # solved, or no step makes a difference any more
    return -solved.fun


@pytest.mark.parametrize("eps", [0.05, 0.4, 1.1, 3.0])
@every_threat
def test_perturbation_is_the_optimum_of_a_solver(norm, box, eps):
    """Ten images of nine pixels. HiGHS keeps its constraints to 1e-7, SLSQP the ball to 1e-6."""
    x, y, w = gaussian(10, 9, seed=3)
    delta = worst_case.perturbation(x, y, w, eps, norm, box)
    worst_case.check(x, delta, eps, norm, box)
    falls = -y * (delta @ w)
    for i in range(len(y)):
        if norm == "2":
            np.testing.assert_allclose(falls[i], bisection(x[i], y[i], w, eps, box), rtol=1e-9)
            found = quadratic_program(x[i], y[i], w, eps, box)
            np.testing.assert_allclose(falls[i], found, rtol=0, atol=1e-5)
        else:
            found = linear_program(x[i], y[i], w, eps, norm, box)
            np.testing.assert_allclose(falls[i], found, rtol=0, atol=1e-6)


@given(**linear, eps=radii, box=st.booleans())
def test_perturbation_in_the_l2_ball_is_that_of_bisection(y, w, seed, eps, box):
    """Where the ball holds the whole box, bisection ends at t = 1e9, which is enough for weights
    of 1e-6 and more. Margins agree to 1e-9 of the largest possible cost."""
    x = images(len(y), len(w), seed)
    delta = worst_case.perturbation(x, y, w, eps, "2", box)
    expected = [bisection(x[i], y[i], w, eps, box) for i in range(len(y))]
    scale = max(1.0, eps) * np.abs(w).sum()
    np.testing.assert_allclose(-y * (delta @ w), expected, rtol=1e-9, atol=1e-9 * scale)


@given(**affine, eps=radii, box=st.booleans())
def test_no_random_perturbation_does_worse(y, w, seed, b, norm, eps, box):
    """And the worst-case margins are those of the perturbed images, to 1e-12 of the terms."""
    x, random = images(len(y), len(w), seed), np.random.default_rng(seed)
    worst = worst_case.perturbation(x, y, w, eps, norm, box)
    worst_case.check(x, worst, eps, norm, box)
    closed = worst_case.margins(x, y, w, b, eps, norm, box)
    rounding = 1e-12 * (1 + eps) * (np.abs(w).sum() + abs(b))
    np.testing.assert_allclose(y * ((x + worst) @ w + b), closed, rtol=0, atol=rounding)
    # Gaussian directions, sparse ones, signs, and neighbours of the closed form.
    delta = random.normal(size=(60, *x.shape))
    delta[::4] *= random.random((15, *x.shape)) < 0.2
    delta[1::4] = np.sign(delta[1::4])
    delta[2::4] = worst * (1 + 0.3 * delta[2::4])
    size = np.linalg.norm(delta, worst_case.BALL[norm], axis=2, keepdims=True)
    delta *= eps / np.where(size, size, 1)
    if box:  # cutting moves no pixel further, so the perturbation stays in the ball
        delta = np.clip(x + delta, 0, 1) - x
    assert (y * ((x + delta) @ w + b) >= closed - rounding).all()


# --- radii and the curve ---------------------------------------------------------------------


@given(**affine, box=st.booleans())
def test_the_worst_case_margin_is_zero_at_the_radius(y, w, seed, b, norm, box):
    """A millionth below and above it, the margin is not below and not above 0: to 1e-11 of the
    terms, as weights differ by 1e9. The radius is inf where no perturbation in the box flips."""
    assume(w.any())
    x = images(len(y), len(w), seed)
    margins = y * (x @ w + b)
    zero = 1e-11 * (np.abs(w).sum() + abs(b))
    assume((np.abs(margins) > zero).all())
    found = worst_case.signed_radii(x, y, w, b, norm, box)
    assert not np.isnan(found).any()
    assert ((found > 0) == (margins > 0)).all()
    if box:
        corner = np.where(w == 0, x, y[:, None] * w < 0)  # every pixel as far as the box lets it
        least = y * (corner @ w + b)
        assert np.isinf(found[(margins > 0) & (least > zero)]).all()
        assert np.isfinite(found[least < -zero]).all()
        assert (found[margins <= 0] == 0).all()
    for i in np.flatnonzero((margins > 0) & np.isfinite(found)):
        for factor in (1 - 1e-6, 1.0, 1 + 1e-6):
            delta = worst_case.perturbation(x[[i]], y[[i]], w, factor * found[i], norm, box)
            margin = y[i] * ((x[i] + delta[0]) @ w + b)
            assert margin >= -zero or factor > 1
            assert margin <= zero or factor < 1


def check_flips(x, y, w, b, norm, box):
    """A millionth below its radius a sample is still correct, and a millionth above it is wrong.

    Rounding is 1e-13 of the terms of a margin. Returns how many samples this was tested on.
    """
    found = worst_case.signed_radii(x, y, w, b, norm, box)
    flipped = np.flatnonzero((found > 0) & np.isfinite(found))
    for i in flipped:
        for factor, correct in ((1 - 1e-6, True), (1 + 1e-6, False)):
            delta = worst_case.perturbation(x[[i]], y[[i]], w, factor * found[i], norm, box)
            worst_case.check(x[[i]], delta, factor * found[i], norm, box)
            assert (y[i] * ((x[i] + delta[0]) @ w + b) > 0) == correct
    return len(flipped)


@every_threat
def test_a_sample_flips_at_its_radius(norm, box):
    for seed in range(5):
        assert check_flips(*gaussian(40, 12, seed), 0.3, norm, box) > 8


@every_threat
def test_a_real_image_flips_at_its_radius_under_trained_weights(trained, sample, norm, box):
    x, y = flat(sample.x_test)[::5], np.float64(sample.y_test[::5])
    for run in runs.read_runs(trained / sample.name).values():
        assert check_flips(x, y, run.w, run.b, norm, box) > 30


@given(**affine)
def test_the_box_makes_no_radius_smaller(y, w, seed, b, norm):
    """To a billionth for rounding, where the sign of no margin is a matter of rounding."""
    x = images(len(y), len(w), seed)
    assume((np.abs(y * (x @ w + b)) > 1e-11 * (np.abs(w).sum() + abs(b))).all())
    free, boxed = (worst_case.signed_radii(x, y, w, b, norm, box) for box in (False, True))
    assert (boxed >= np.maximum(free, 0) * (1 - 1e-9)).all()


@pytest.mark.parametrize(
    ("norm", "radius"), [("inf", 0.375), ("2", 0.375 * np.sqrt(2)), ("1", 0.75)]
)
def test_radius_by_hand(norm, radius):
    """w = (1, -1) and b = 3 leave a margin of at least 3 - 1 = 2 in the box. b = 0.5 makes a
    margin of 0.75, with room of 0.5 and 0.75: inf and 2 move both by 0.375, 1 moves 0.75 in all."""
    x, y, w = np.float64([[0.5, 0.25]]), np.ones(1), np.float64([1, -1])
    assert worst_case.signed_radii(x, y, w, 3.0, norm, box=True) == np.inf
    assert np.isfinite(worst_case.signed_radii(x, y, w, 3.0, norm))
    found = worst_case.signed_radii(x, y, w, 0.5, norm, box=True)
    np.testing.assert_allclose(found, radius, rtol=1e-15)


@every_threat
def test_zero_weights_withstand_everything_or_nothing(norm, box):
    x, y, zeros = images(3, 4, 0), np.float64([1, 1, -1]), np.zeros(4)
    never = 0.0 if box else -np.inf
    for b, correct in ((0.5, [1, 1, 0]), (0.0, [0, 0, 0]), (-0.5, [0, 0, 1])):
        found = worst_case.signed_radii(x, y, zeros, b, norm, box)
        assert found.tolist() == [np.inf if c else never for c in correct]
        assert worst_case.withstand(found, np.array([0, 1e9])).tolist() == [sum(correct)] * 2
    assert (worst_case.perturbation(x, y, zeros, 3.0, norm, box) == 0).all()


GRID = [0.0, 0.1, 0.2, 0.30000000000000004, 1.0]  # so that radii and eps are often equal


@given(
    radii=st.lists(st.sampled_from([*GRID, -np.inf, np.inf, -0.1]) | st.floats(-1, 2), max_size=20),
    eps=st.lists(st.sampled_from(GRID) | st.floats(0, 2), min_size=1, max_size=9),
)
def test_those_withstand_that_have_a_larger_radius(radii, eps):
    """In any order, and with equal ones: a tie is an error."""
    found = worst_case.withstand(np.array(radii, dtype=float), np.array(eps))
    assert found.tolist() == [sum(r > e for r in radii) for e in eps]
    if radii:
        shares = worst_case.accuracy(np.array(radii, dtype=float), np.array(eps))
        assert shares.tolist() == (found / len(radii)).tolist()


@given(st.lists(st.sampled_from(GRID), max_size=9))
def test_ranks_are_places_in_ascending_order(radii):
    """Equal ones are in the order given."""
    order = sorted(range(len(radii)), key=lambda k: (radii[k], k))
    assert worst_case.ranks(np.array(radii)).tolist() == [order.index(k) for k in range(len(radii))]


def check_curve_in_the_box(run, split, eps):
    """The article's way: at each radius, all images moved against the margin and cut to [0, 1]."""
    x, y = flat(split.x_test), np.float64(split.y_test)
    found = worst_case.signed_radii(x, y, run.w, run.b, "inf", box=True)
    perturbed = (np.clip(x - e * y[:, None] * np.sign(run.w), 0, 1) for e in eps)
    correct = np.array([y * (moved @ run.w + run.b) > 0 for moved in perturbed])
    assert (correct == (found > eps[:, None])).all()
    counts = correct.sum(axis=1).tolist()
    assert worst_case.withstand(found, eps).tolist() == counts
    assert len(set(counts)) > 10


def test_curve_in_the_box(trained, sample):
    found = runs.read_runs(trained / sample.name)
    assert len(found) == 2
    for run in found.values():
        check_curve_in_the_box(run, sample, EPS)


@pytest.mark.mnist
@pytest.mark.parametrize("name", ["regular", "robust-eps0.2"])
def test_curve_in_the_box_on_mnist(mnist, name):
    check_curve_in_the_box(
        runs.load_run(store.file(RESULTS / "mnist-0-1", "runs", name)), mnist, EPS[::5]
    )
