"""Sparse X in the L2 ball, against its dense twin and a conic solver."""

import tracemalloc

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse
from test_minimum import objective

import advlinear
from advlinear import samples
from advlinear.minima import newton, roads, sparse_l2

TOL = 1e-6
LOSSES = ("hinge", "logistic")
MANY = pytest.param(range(150, 1500), marks=pytest.mark.slow, id="many")
SEEDS = pytest.mark.parametrize("seeds", [pytest.param(range(150), id="some"), MANY])


def random_problem(seed):
    """x (n, d) with most numbers 0, y, eps and weights.

    Numbers or ones, samples that repeat with any label, one-sided features, features in other
    units, one sample of a class, an offset, samples and features without a number; eps from far
    below the distance of the classes to where no weights are best.
    """
    random = np.random.default_rng(seed)
    n, d = int(random.integers(5, 60)), int(random.integers(1, 200))
    y = random.integers(0, 2, n) * 2.0 - 1
    y[:2] = -1, 1
    x = random.normal(size=(n, d)) if seed % 3 else np.ones((n, d))
    x *= random.random((n, d)) < random.choice([0.05, 0.2, 0.6])
    x[:, 0] += y * random.choice([0, 0, 1, 3]) * (random.random(n) < 0.9)
    kind = seed % 7
    if kind == 1:
        x[n // 2 :] = x[: n - n // 2]
    if kind == 2:
        x = np.abs(x)
    if kind == 3:
        x *= 10.0 ** random.uniform(-3, 3, d)
    if kind == 4:
        y[1:] = -y[0]
    if kind == 5:
        x[:, -1] = 1
        x[n // 2] = 0
    x *= 10.0 ** random.integers(-3, 4)
    weights = random.choice([0.5, 1, 7], n) if random.random() < 0.3 else np.ones(n)
    means = [np.average(x[y == sign], axis=0, weights=weights[y == sign]) for sign in (-1, 1)]
    apart = np.linalg.norm(means[1] - means[0]) / 2
    if apart < 1e-9 * np.abs(x).max():  # equal means, but for rounding
        apart = 1.0
    eps = apart * float(random.choice([0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 1.01, 3]))
    return x, y, eps, weights


@pytest.mark.parametrize("loss", LOSSES)
@SEEDS
def test_random_problems_have_the_minimum_of_their_dense_twins(seeds, loss):
    """To the sum of both gaps; the twin may be refused, near the margin of the classes."""
    for seed in seeds:
        x, y, eps, weights = random_problem(seed)
        sparse = samples.problem(scipy.sparse.csr_array(x), y, eps, "2", loss, None, weights)
        w, b, alpha, found = roads.solve(sparse, TOL, None, sparse_l2.solve)
        assert 0 <= found["gap"] <= TOL, seed
        assert found["violation"] == 0, seed
        twin = samples.problem(x, y, eps, "2", loss, None, weights)
        _, _, _, wanted = roads.solve(twin, TOL, None)
        lightest = weights.min() / weights.sum()
        same = (TOL + max(wanted["gap"], TOL)) * max(wanted["primal"], lightest)
        assert abs(found["primal"] - wanted["primal"]) <= same, seed
        proof = advlinear.certificate(x, y, w, b, alpha, eps, "2", loss, None, weights)
        assert proof["gap"] <= 1.01 * TOL, seed
        assert proof["violation"] == 0, seed


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(2000, 2015))
def test_random_problems_against_a_conic_solver(seed, loss):
    """Clarabel, to 1e-5 as its gap; where it does not say "optimal" the minimum is not attained."""
    x, y, eps, weights = random_problem(seed)
    unit = np.abs(x).max()
    x, eps = x / unit, eps / unit
    w, b = cp.Variable(x.shape[1]), cp.Variable()
    margins = cp.multiply(y, x @ w + b) - eps * cp.norm(w, 2)
    losses = cp.pos(1 - margins) if loss == "hinge" else cp.logistic(-margins)
    conic = cp.Problem(cp.Minimize((weights / weights.sum()) @ losses))
    try:
        conic.solve(solver="CLARABEL")
    except cp.SolverError:
        conic = None
    if conic is None or conic.status != "optimal":
        pytest.skip("the conic solver does not find a minimum")
    problem = samples.problem(scipy.sparse.csr_array(x), y, eps, "2", loss, None, weights)
    _, _, _, found = roads.solve(problem, TOL, None, sparse_l2.solve)
    assert found["primal"] <= conic.value + 1e-5
    assert found["dual"] >= conic.value - 1e-5


def text(n, d, seed=0):
    """Term counts (n, d) as a CSR array, rows of length 1, and labels that some terms tell."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.arange(n), 30)
    columns = np.minimum(random.zipf(1.3, len(rows)) - 1 + random.integers(0, 20, len(rows)), d - 1)
    x = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, d))
    score = x @ random.normal(size=d)
    y = np.where(score + random.normal(0, score.std() / 3, n) > np.median(score), 1, -1)
    sizes = np.sqrt(x.multiply(x).sum(axis=1))
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / sizes) @ x), y


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("form", ["csc", "coo", "lil"])
def test_text_is_solved_without_an_array_of_it(form, loss):
    """12 million numbers, of which 0.2 % are not 0; the array would hold 96 MB."""
    x, y = text(600, 20_000)
    weights = np.arange(600) % 3
    X = x.asformat(form)
    tracemalloc.start()
    found = advlinear.minimise(X, y, 0.05, "2", loss, sample_weight=weights)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6
    assert found.violation == 0
    assert 0.1 < found.primal < 1
    primal = objective(x.toarray(), y, found.w, found.b, 0.05, "2", loss, weights=weights)
    assert found.primal == pytest.approx(primal, rel=1e-9)
    twin = advlinear.minimise(x.toarray(), y, 0.05, "2", loss, sample_weight=weights)
    assert found.primal == pytest.approx(twin.primal, rel=2 * TOL)
    proof = advlinear.certificate(
        X, y, found.w, found.b, found.alpha, 0.05, "2", loss, sample_weight=weights
    )
    assert proof == {name: getattr(found, name) for name in proof}


@pytest.mark.parametrize("loss", LOSSES)
def test_conjugate_gradients_do_what_the_gram_matrix_does(monkeypatch, loss):
    """Of many margins near 1 the Gram matrix would be too large, as if it took no row here."""
    x, y = text(300, 5000)
    monkeypatch.setattr(newton, "MOST_ROWS", 0)
    found = advlinear.minimise(x, y, 0.05, "2", loss, tol=1e-5)
    wanted = advlinear.minimise(x.toarray(), y, 0.05, "2", loss)
    assert found.primal == pytest.approx(wanted.primal, rel=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_two_cases_in_which_the_minimum_is_known(loss):
    x, y = text(300, 5000)
    none = advlinear.minimise(x, y, 10, "2", loss)
    assert not none.w.any()
    assert none.gap < 1e-9
    separable = advlinear.minimise(x[:40], y[:40], 1e-4, "2", loss)
    assert separable.primal < 1e-7
    assert not separable.alpha.any()


def test_steps_are_reported():
    x, y = text(300, 5000)
    lines = []
    advlinear.minimise(x, y, 0.05, "2", report=lines.append)
    assert len(lines) > 2
    assert all("300 samples, step" in line for line in lines)


def test_a_mixture_proves_the_radius_between():
    """Of (3, 4) / 1 and (0, 1) / 2 at eps 1: the pull is as long as eps times the sum."""
    high = sparse_l2.Piece(np.array([1.0, 1.0]), np.array([3.0, 4.0]), 2.0)
    low = sparse_l2.Piece(np.array([0.5, 0.5]), np.array([0.0, 0.1]), 1.0)
    alpha, total = sparse_l2.mixture(high, low, 1.0)
    share = 2 * alpha[0] - 1
    pull = low.pull + share * (high.pull - low.pull)
    assert total == pytest.approx(alpha.sum())
    assert np.linalg.norm(pull) == pytest.approx(total)
    assert 0 < share < 1


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [("1", 0.1, "the L1 ball needs it as an array"), ("2", 0, "eps = 0 needs it as an array")],
)
def test_what_needs_an_array_that_is_too_large_is_refused(norm, eps, message):
    x, y = text(3000, 20_000)
    with pytest.raises(ValueError, match=message):
        advlinear.minimise(x, y, eps, norm)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("eps", [0, 0.05])
def test_small_sparse_samples_go_as_an_array(norm, eps):
    x, y = text(200, 90 if norm == "inf" else 500)
    found, wanted = (advlinear.minimise(one, y, eps, norm) for one in (x, x.toarray()))
    assert found.primal == pytest.approx(wanted.primal, rel=1e-9, abs=1e-12)
    np.testing.assert_array_equal(found.w, wanted.w)
