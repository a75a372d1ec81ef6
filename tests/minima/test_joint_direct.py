"""The minima of several classes with all options in one program, against Clarabel and two classes.

They are those in the L2 and L1 balls, and of the logistic loss in the L-infinity ball, too.
"""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.special
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import minmax_scale

import advlinear
from advlinear import samples
from advlinear.minima.joint import direct, generation, groups, solver

TOL = 1e-6
NORMS, LOSSES = ("2", "1"), ("hinge", "logistic")
CASES = pytest.mark.parametrize(
    ("norm", "loss"), [*itertools.product(NORMS, LOSSES), ("inf", "logistic")]
)
MANY = pytest.param(range(40, 300), marks=pytest.mark.slow, id="many")


def objective(problem, W, b):
    """The mean robust loss, written out."""
    order = {"inf": 1, "2": 2, "1": np.inf}[problem.norm]
    behind = np.zeros((len(problem.y), len(W)))  # less the margins; 0 for the own class
    for i, y in enumerate(problem.y):
        for k in set(range(len(W))) - {y}:
            cost = problem.eps * np.linalg.norm(W[y] - W[k], order)
            behind[i, k] = (W[k] - W[y]) @ problem.x[i] + b[k] - b[y] + cost
    if problem.loss == "logistic":
        losses = scipy.special.logsumexp(behind, axis=1)
    else:
        behind[np.arange(len(behind)), problem.y] = -1
        losses = np.maximum(1 + behind.max(axis=1), 0)
    return np.average(losses, weights=problem.weights)


def check(problem, tol=TOL):
    """`solve` against the objective written out; the certificate is tested by itself."""
    W, b, alpha, flow, proof = solver.solve(problem, tol, None)
    share = problem.weights / problem.weights.sum()
    value = objective(problem, W, b)
    # What separates groups of classes may be large, and with it the allowance for rounding.
    assert proof["primal"] == pytest.approx(value, rel=tol, abs=1e-8)
    assert -1e-12 <= proof["gap"] <= tol
    if problem.eps > 0:
        assert proof["violation"] == 0
    assert alpha.min() >= 0
    assert (alpha.sum(axis=1) <= share * (1 + tol)).all()  # the certificate cuts what is above
    if problem.norm != "inf":
        np.testing.assert_array_equal(flow, -flow.transpose(1, 0, 2))
    return W, b, alpha, proof


def random_problem(seed, norm, loss):
    """Three to six classes: apart or not, duplicates, one sample of a class, units, weights."""
    random = np.random.default_rng(seed)
    K, d = int(random.integers(3, 7)), int(random.integers(1, 8))
    n = int(random.integers(K, 50))
    y = random.integers(0, K - 1 if seed % 7 == 0 else K, n)
    y[:K] = np.arange(K)
    x = random.random((n, d))
    if seed % 3:
        x = x * (0.3, 0.15)[seed % 3 - 1] + (0.7, 1)[seed % 3 - 1] * random.random((K, d))[y]
    if seed % 5 == 0:
        x = np.round(3 * x) / 3
    if seed % 6 == 0:
        x[:, 0] = 0.4
    if seed % 11 == 0:
        x = x * random.choice([1e-3, 1, 1e3], d) + random.choice([0, 100], d)
    weights = np.ones(n)
    if seed % 4 == 0:
        weights = random.choice([0, 0.01, 1, 3.3], n)
        weights[:K] = 1
    eps = float(random.choice([0, 1e-3, 0.02, 0.1, 0.3]) * np.ptp(x, axis=0).max())
    return samples.problem(x, y, eps, norm, loss, None, weights)


def conic_minimum(problem):
    """Clarabel's minimum, of features with a range of 1; None where it finds none."""
    cp = pytest.importorskip("cvxpy")
    used = problem.weights > 0
    x, y, weights = problem.x[used], problem.y[used], problem.weights[used]
    span = np.where(np.ptp(x, axis=0) > 0, np.ptp(x, axis=0), 1)
    x, scale, K = (x - x.mean(axis=0)) / span, problem.eps / span, len(problem.classes)
    W, b = cp.Variable((K, x.shape[1])), cp.Variable(K)
    order = {"inf": 1, "2": 2, "1": "inf"}[problem.norm]
    costs = {
        (p, q): cp.norm(cp.multiply(scale, W[p] - W[q]), order)
        for p, q in itertools.permutations(range(K), 2)
    }
    losses = []
    for i, own in enumerate(y):
        behind = [
            costs[own, k] + (W[k] - W[own]) @ x[i] + b[k] - b[own] for k in range(K) if k != own
        ]
        if problem.loss == "hinge":
            losses.append(cp.maximum(0, *(1 + one for one in behind)))
        else:
            losses.append(cp.log_sum_exp(cp.hstack([0, *behind])))
    found = cp.Problem(
        cp.Minimize(weights @ cp.hstack(losses) / weights.sum()), [W[0] == 0, b[0] == 0]
    )
    try:
        found.solve(solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    except cp.error.SolverError:  # it stops without progress
        return None
    return found.value


# --- random problems -----------------------------------------------------------------------------


@CASES
@pytest.mark.parametrize("seeds", [pytest.param(range(40), id="some"), MANY])
def test_random_problems_are_certified(seeds, norm, loss):
    """All of them, to 1e-6. Some have a minimum of 0, and some one without weights."""
    values = []
    for seed in seeds:
        W, _, _, proof = check(random_problem(seed, norm, loss))
        values.append((proof["primal"] < 1e-6, not W.any()))
    assert set(np.array(values)[:, 0]) == {False, True}
    assert np.array(values)[:, 1].any()


@CASES
@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param((0, 3, 6, 22), id="some"),
        pytest.param(range(100), marks=pytest.mark.slow, id="many"),
    ],
)
def test_minima_are_those_of_clarabel(seeds, norm, loss):
    """To 2e-6 of the minimum, or of the smallest share: both stop at gaps of up to 1e-6.

    And to 1e-8, as Clarabel's own minima of 0 are off by up to 3e-9.
    """
    failed = 0
    for seed in seeds:
        problem = random_problem(seed, norm, loss)
        _, _, _, proof = check(problem)
        minimum = conic_minimum(problem)
        if minimum is None:
            failed += 1
            continue
        weights = problem.weights[problem.weights > 0] / problem.weights.sum()
        error = 2e-6 * max(proof["primal"], weights.min()) + 1e-8
        assert proof["primal"] == pytest.approx(minimum, rel=0, abs=error)
    assert failed <= len(seeds) / 20


@CASES
@pytest.mark.parametrize("seed", range(6))
def test_two_classes_have_the_minimum_of_minimise(seed, norm, loss):
    """Through the solver and the certificate of several; to the sum of both gaps."""
    random = np.random.default_rng(seed)
    x, y = random.random((40, 3)), random.integers(0, 2, 40)
    x += 0.3 * y[:, None]
    weights = random.random(40) if seed % 2 else np.ones(40)
    eps = (0.0, 0.05, 0.2)[seed % 3]
    alone = advlinear.minimise(x, y, eps, norm, loss, None, weights)
    problem = samples.JointProblem(x, y, np.arange(2), weights, eps, norm, loss)
    W, _, _, proof = check(problem)
    assert proof["primal"] == pytest.approx(alone.primal, rel=2e-6)
    if loss == "logistic":  # it has one minimum alone
        np.testing.assert_allclose(W[1] - W[0], alone.w, rtol=0.02, atol=0.02)


# --- what is special -----------------------------------------------------------------------------


@CASES
def test_classes_that_are_all_separable_have_the_minimum_0(norm, loss):
    x = np.array([[0.0, 0], [0, 0.1], [1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    problem = samples.problem(x, [0, 0, 1, 1, 2, 2], 0.1, norm, loss)
    _, _, alpha, proof = check(problem)
    assert proof["dual"] == 0
    assert not alpha.any()
    assert proof["primal"] <= (0 if loss == "hinge" else TOL / 6)


@CASES
def test_a_class_apart_leaves_the_minimum_to_the_others(norm, loss):
    """Two classes overlap, the third is far from both: two thirds of the minimum of the two."""
    random = np.random.default_rng(0)
    x = random.random((60, 2)) + np.repeat([0, 0.2, 50], 20)[:, None]
    y = np.repeat([0, 1, 2], 20)
    alone = advlinear.minimise(x[:40], y[:40], 0.1, norm, loss)
    _, _, alpha, proof = check(samples.problem(x, y, 0.1, norm, loss))
    assert proof["primal"] == pytest.approx(alone.primal * 2 / 3, rel=2e-6)
    assert not alpha[40:].any()
    assert not alpha[:, 2].any()


@CASES
def test_two_pairs_of_classes_apart_have_the_sum_of_two_minima(norm, loss):
    """Found among four groups of one class each; and together they are solved for with weights."""
    random = np.random.default_rng(5)
    x = random.random((60, 2)) + np.repeat([0, 0.2, 50, 50.3], 15)[:, None]
    y, weights = np.repeat([0, 1, 2, 3], 15), np.repeat([1.0, 3.0], 30)
    pairs = [advlinear.minimise(x[k : k + 30], y[k : k + 30], 0.1, norm, loss) for k in (0, 30)]
    problem = samples.problem(x, y, 0.1, norm, loss, None, weights)
    group, _, _ = groups.separable(
        replace(problem, norm="inf"), np.arange(4), TOL, partial(generation.solve, report=None)
    )
    np.testing.assert_array_equal(group, [0, 0, 1, 1])
    _, _, alpha, proof = check(problem)
    expected = (pairs[0].primal + 3 * pairs[1].primal) / 4
    assert proof["primal"] == pytest.approx(expected, rel=2e-6)
    assert not alpha[:30, 2:].any()
    assert not alpha[30:, :2].any()


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-8])
def test_the_logistic_loss_reaches_any_duality_gap(tol):
    """In the L-infinity ball, where no column may be missing at a large one, either."""
    for seed in (1, 3, 9, 21):
        problem = replace(random_problem(seed, "inf", "logistic"), eps=0.05)
        _, _, _, proof = check(problem, tol)
        _, _, _, exact = check(problem)
        assert proof["dual"] <= exact["primal"]
        assert exact["dual"] <= proof["primal"]


def test_the_logistic_loss_without_weights_needs_no_round():
    """From half the largest distance between the mean of a class and that of the others, (M6)."""
    x, y = load_iris(return_X_y=True)
    most = max(abs(x[y == p].mean(axis=0) - x[y != p].mean(axis=0)).max() for p in range(3)) / 2
    lines = []

    def solve(eps):
        problem = samples.problem(x, y, eps, "inf", "logistic")
        return generation.solve(problem, TOL, lines.append)

    W, _, alpha, _, proof = solve(most * (1 + 1e-9))
    assert not lines
    assert not W.any()
    assert proof["violation"] == 0
    assert proof["primal"] == pytest.approx(np.log(3), rel=1e-12)
    np.testing.assert_allclose(alpha, (np.arange(3) != y[:, None]) / 450, rtol=1e-12)
    assert solve(most * 0.99)[0].any()
    assert lines


@pytest.mark.parametrize("norm", NORMS)
def test_three_classes_around_a_point_are_separable_together_alone(norm):
    """No class is from the other two by a plane: each is a sector of 120 degrees."""
    angle = np.arange(360)[np.arange(360) % 120 > 20] * np.pi / 180
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    x, y = np.vstack([0.2 * circle, circle]), np.tile(angle // (2 * np.pi / 3), 2).astype(int)
    one_against_two = advlinear.minimise(x, y == 0, 0.01, norm)
    assert one_against_two.dual > 0.01
    _, _, _, proof = check(samples.problem(x, y, 0.01, norm, "hinge"))
    assert proof["primal"] == 0


@CASES
def test_a_large_radius_leaves_no_weights(norm, loss):
    """And the minimum that the shares of the classes give, (42)."""
    random = np.random.default_rng(1)
    x, y = random.random((60, 2)), np.repeat([0, 1, 2], [40, 12, 8])
    W, _, _, proof = check(samples.problem(x, y, 2.0, norm, loss))
    assert not W.any()
    shares = np.bincount(y) / 60
    expected = 2 * (1 - shares[0]) if loss == "hinge" else -shares @ np.log(shares)
    assert proof["primal"] == pytest.approx(expected, rel=1e-9)
    if loss == "hinge":  # no class has more than half
        _, _, _, proof = check(samples.problem(x, np.arange(60) % 3, 2.0, norm, loss))
        assert proof["primal"] == pytest.approx(1, rel=1e-9)


@CASES
def test_samples_of_weight_0_are_left_out(norm, loss):
    random = np.random.default_rng(2)
    x, y = random.random((40, 3)), np.arange(40) % 3
    weights = random.random(40)
    weights[30:] = 0
    _, _, alpha, proof = check(samples.problem(x, y, 0.1, norm, loss, None, weights))
    _, _, inner, other = check(samples.problem(x[:30], y[:30], 0.1, norm, loss, None, weights[:30]))
    assert proof["primal"] == pytest.approx(other["primal"], rel=1e-12)
    np.testing.assert_array_equal(alpha, np.vstack([inner, np.zeros((10, 3))]))


@CASES
def test_classes_may_be_in_any_order_and_features_in_any_unit(norm, loss):
    x, y = load_iris(return_X_y=True)
    x = minmax_scale(x)
    _, _, _, proof = check(samples.problem(x, y, 0.1, norm, loss))
    _, _, _, other = check(samples.problem(1e4 * x + 1e5, 2 - y, 1e3, norm, loss))
    assert other["primal"] == pytest.approx(proof["primal"], rel=2e-6)


def test_each_step_is_reported():
    x, y = load_iris(return_X_y=True)
    lines = []
    direct.solve(samples.problem(x, y, 0.3, "2"), TOL, lines.append)
    assert lines[0].startswith("3 classes, 150 samples, step 0: loss ")
    assert "gap" in lines[-1]


@pytest.mark.parametrize(
    ("norm", "eps", "minimum"), [("2", 0.05, 0), ("2", 0.5, 0.7695739), ("1", 1.0, 0.3313741)]
)
def test_ten_digits(norm, eps, minimum):
    """1,797 images of 8 x 8 pixels; at .05 they are separable."""
    x, y = load_digits(return_X_y=True)
    W, b, alpha, flow, proof = direct.solve(samples.problem(x / 16, y, eps, norm), TOL, None)
    assert (W.shape, b.shape) == ((10, 64), (10,))
    assert (alpha.shape, flow.shape) == ((1797, 10), (10, 10, 64))
    assert proof["gap"] <= TOL
    assert proof["violation"] == 0
    assert proof["primal"] == pytest.approx(minimum, abs=1e-6)
