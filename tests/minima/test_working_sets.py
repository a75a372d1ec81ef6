"""The minimum in the L-infinity ball by working sets of features, against that of all features."""

import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from sklearn.datasets import load_digits

import advlinear
from advlinear import samples
from advlinear.minima import program, roads, working_sets

TOL = 1e-6
LOSSES = pytest.mark.parametrize("loss", ["hinge", "logistic"])
MANY = pytest.param(range(60, 300), marks=pytest.mark.slow, id="many")


def random_problem(seed):
    """X as an array, y, sample_weight, eps, and whether eps may be exactly a margin of classes.

    Duplicates, empty rows and columns, one-sided columns, full columns with an offset, units,
    columns that nearly or fully separate the classes, and radii above which w = 0 is best.
    """
    random = np.random.default_rng(seed)
    n, d = random.integers(2, 80), random.integers(1, 60)
    whole_numbers = seed % 2 == 0
    x = random.integers(1, 4, (n, d)) * 1.0 if whole_numbers else random.normal(size=(n, d))
    x *= random.random((n, d)) < random.choice([0.05, 0.2, 0.6])
    y = np.where(random.random(n) < 0.5, 1, -1)
    y[:2] = 1, -1
    kind = seed % 7
    if kind == 0:
        x[n // 2 :] = x[: n - n // 2]
    elif kind == 1:
        x[:, 0] = 1000 + random.random(n)
    elif kind == 2:
        x = x * 10.0 ** random.integers(-4, 5, d)
    elif kind == 3:
        x[:, 0] += y * random.random() * 3
    elif kind == 4:
        x[:, -1] = x[-1] = 0
    elif kind == 5:
        x = np.abs(x)
    weights = None
    if random.random() < 0.4:
        weights = random.integers(0, 4, n) * 1.0
        weights[:2] = 1
    eps = random.choice([1e-3, 0.02, 0.1, 0.3, 1, 5])
    eps *= (np.ptp(x, 0).max() or 1) if random.random() < 0.3 else 1
    return x, y, weights, float(eps), whole_numbers


def solve(X, y, eps, loss, weights=None):
    """What the working sets find, whatever roads.py would choose; of a sparse X as it is."""
    problem = samples.problem(X, y, eps, "inf", loss, None, weights)
    return roads.solve(problem, TOL, None, working_sets.solve)


@LOSSES
@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "array"])
@pytest.mark.parametrize("seeds", [pytest.param(range(60), id="few"), MANY])
@pytest.mark.parametrize("few_at_first", [False, True], ids=["hundred", "one"])
def test_random_minima_are_those_of_all_features(seeds, sparse, loss, few_at_first, monkeypatch):
    """Within 1e-6 of the larger of the minimum and the smallest share; without a violation."""
    if few_at_first:  # so that the rounds of adding features are run on small problems, too
        monkeypatch.setattr(working_sets, "FEWEST_AT_FIRST", 1)
        monkeypatch.setattr(working_sets, "MOST_AT_FIRST", 2)
    for seed in seeds:
        x, y, weights, eps, whole_numbers = random_problem(seed)
        X = scipy.sparse.csr_array(x) if sparse else x
        w, b, alpha, proof = solve(X, y, eps, loss, weights)
        twin = samples.problem(x, y, eps, "inf", loss, None, weights)
        wanted = roads.solve(twin, TOL, None, program.solve)[-1]["primal"]
        share = twin.weights / twin.weights.sum()
        largest = TOL * max(wanted, share[share > 0].min())
        assert proof["primal"] == pytest.approx(wanted, rel=0, abs=largest), seed
        assert proof["gap"] <= TOL, seed
        assert proof["violation"] <= 1e-12 * whole_numbers, seed
        again = advlinear.certificate(X, y, w, b, alpha, eps, loss=loss, sample_weight=weights)
        assert again == proof, seed


def whole_minimum(X, y, eps):
    """The least robust hinge by HiGHS, over u, v >= 0 with w = u - v, b and the losses."""
    n, d = X.shape
    yx = scipy.sparse.csr_array(scipy.sparse.diags_array(y * 1.0) @ X)
    price = np.full((n, d), eps)
    above = np.hstack([price - yx, price + yx, -y[:, None], -np.eye(n)])
    found = scipy.optimize.linprog(
        np.append(np.zeros(2 * d + 1), np.full(n, 1 / n)),
        above,
        -np.ones(n),
        bounds=[(0, None)] * (2 * d) + [(None, None)] + [(0, None)] * n,
        options=dict(primal_feasibility_tolerance=1e-10, dual_feasibility_tolerance=1e-10),
    )
    return found.fun


def text(n, d, per_row, seed):
    """X (n, d) CSR with words by Zipf's law, in rows of Euclidean norm 1; y with 2 % wrong."""
    random = np.random.default_rng(seed)
    y = np.where(random.random(n) < 0.35, 1, -1)
    tilt = random.normal(scale=0.5, size=d) * (random.random(d) < 0.1)
    rows = np.repeat(np.arange(n), per_row)
    columns = np.empty(len(rows), dtype=np.int64)
    for sign in (-1, 1):
        share = np.exp(sign * tilt) / (np.arange(d) + 10)
        of_class = y[rows] == sign
        columns[of_class] = random.choice(d, of_class.sum(), p=share / share.sum())
    X = scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, d))
    X.sum_duplicates()
    X.data /= np.repeat(np.sqrt(X.power(2).sum(axis=1)), np.diff(X.indptr))
    return X, np.where(random.random(n) < 0.02, -y, y)


@pytest.mark.parametrize("eps", [0.003, 0.01, 0.02])
def test_text_has_the_minimum_of_highs(eps):
    """Within 1e-8 of it; the gap of a vertex is that of rounding."""
    X, y = text(300, 800, 40, 0)
    w, _, _, proof = solve(X, y, eps, "hinge")
    assert proof["primal"] == pytest.approx(whole_minimum(X, y, eps), abs=1e-8)
    assert proof["gap"] < 1e-8
    assert proof["violation"] == 0
    assert np.count_nonzero(w) < 300


@LOSSES
def test_features_join_until_none_is_missing(loss, monkeypatch):
    """From 20 features; what joins is at most as much as there is, and nothing leaves."""
    X, y = text(1500, 4000, 60, 1)
    wanted = solve(X, y, 0.003, loss)
    for name in ("FEWEST_AT_FIRST", "MOST_AT_FIRST"):
        monkeypatch.setattr(working_sets, name, 20)
    lines = []
    problem = samples.problem(X, y, 0.003, "inf", loss)
    _, _, _, proof = roads.solve(problem, TOL, lines.append, working_sets.solve)
    sizes = [
        [int(word) for word in line.split() if word.isdecimal()]
        for line in lines
        if "in the working set" in line
    ]
    assert sizes[0][0] == 20
    assert len(sizes) > 2
    for (before, missing), (after, _) in itertools.pairwise(sizes):
        assert after == before + min(missing, before)
    assert sizes[-1][1] == 0
    assert proof["gap"] <= TOL
    assert proof["violation"] == 0
    assert proof["primal"] == pytest.approx(wanted[-1]["primal"], rel=2 * TOL)


def test_with_many_weights_the_simplex_method_is_left_out(monkeypatch):
    X, y = text(300, 800, 40, 0)
    vertex = solve(X, y, 0.003, "hinge")
    monkeypatch.setattr(working_sets, "MOST_AT_VERTEX", 3)
    w, _, _, proof = solve(X, y, 0.003, "hinge")
    assert proof["gap"] <= TOL
    assert proof["violation"] == 0
    assert proof["primal"] == pytest.approx(vertex[-1]["primal"], rel=TOL)
    assert 0 < np.count_nonzero(w) < 400  # the others are exactly 0


@LOSSES
def test_an_array_with_more_features_than_samples_takes_this_road(loss):
    random = np.random.default_rng(0)
    y = np.where(random.random(150) < 0.5, 1, -1)
    x = random.normal(size=(150, 900)) + 0.3 * y[:, None] * (random.random(900) < 0.05)
    lines = []
    best = advlinear.minimise(x, y, 0.45, loss=loss, report=lines.append)
    assert lines[-1].endswith("0 missing")
    twin = samples.problem(x, y, 0.45, "inf", loss)
    wanted = roads.solve(twin, TOL, None, program.solve)[-1]["primal"]
    assert best.primal == pytest.approx(wanted, rel=2 * TOL)
    assert best.violation == 0


@LOSSES
def test_separable_classes_have_loss_0(loss):
    """Where they are further apart than 2 eps, the working set stops growing once that is seen."""
    X, y = text(300, 5000, 40, 2)
    lines = []
    problem = samples.problem(X, y, 1e-4, "inf", loss)
    _, _, alpha, proof = roads.solve(problem, TOL, lines.append, working_sets.solve)
    assert proof["primal"] <= TOL / 300
    assert proof["dual"] == 0
    assert not alpha.any()


@LOSSES
def test_above_the_largest_useful_eps_there_are_no_weights(loss):
    X, y = text(300, 800, 40, 0)
    w, _, _, proof = solve(X, y, 0.5, loss)
    assert not w.any()
    assert proof["gap"] <= TOL
    assert proof["violation"] == 0


def test_a_full_column_with_an_offset_does_no_harm():
    """A year beside words: it is centred, and the bias takes up its mean."""
    X, y = text(300, 800, 40, 0)
    year = 2000 + 3.0 * np.random.default_rng(0).integers(0, 10, 300) + y
    both = scipy.sparse.hstack([X, year[:, None]], format="csr")
    proof = solve(both, y, 0.01, "hinge")[-1]
    shifted = scipy.sparse.hstack([X, year[:, None] - 2000], format="csr")
    wanted = solve(shifted, y, 0.01, "hinge")[-1]
    assert proof["violation"] == 0
    assert proof["gap"] <= TOL
    assert proof["primal"] == pytest.approx(wanted["primal"], rel=TOL)


@LOSSES
def test_sparse_samples_stay_sparse(loss):
    """At its most the solver holds 1/20 of what X would hold as an array, 160 MB."""
    X, y = text(1000, 20000, 30, 3)
    tracemalloc.start()
    best = advlinear.minimise(X, y, 0.003, loss=loss)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.count_nonzero(best.w)
    assert peak < 8 * X.shape[0] * X.shape[1] / 20


def test_too_many_features_are_refused(monkeypatch):
    monkeypatch.setattr(working_sets, "MOST_FEATURES", 110)
    X, y = text(600, 2000, 60, 1)
    with pytest.raises(ValueError, match=r"more than 110 of 2000 features .*: raise eps"):
        advlinear.minimise(X, y, 0.002)


@pytest.mark.parametrize("eps", [1e-110, 1e-320, 0])
def test_an_eps_of_nearly_0_is_left_to_the_solver_for_0(eps, monkeypatch):
    monkeypatch.setattr(roads, "AS_ARRAY", {"inf": 0})
    x, digit = load_digits(return_X_y=True, n_class=2)
    best = advlinear.minimise(scipy.sparse.csr_array(x), digit, eps)
    assert best.primal == 0


def test_columns_multiply_as_an_array_does():
    """Heavy and light columns, in any order, and all of one kind: to 1e-13."""
    random = np.random.default_rng(0)
    for shares in ([0.9, 0.01, 0.5, 0, 0.03, 1, 0.02], [0.01] * 5, [0.8] * 4):
        dense = random.normal(size=(300, len(shares))) * (random.random((300, 1)) < shares)
        columns = working_sets.Columns(scipy.sparse.csr_array(dense))
        curvature = working_sets.Diagonal(random.random(300))
        w, alpha = random.normal(size=len(shares)), random.normal(size=300)
        np.testing.assert_allclose(columns @ w, dense @ w, atol=1e-13)
        np.testing.assert_allclose(alpha @ columns, alpha @ dense, atol=1e-12)
        wanted = dense.T @ (curvature.diagonal[:, None] * dense)
        np.testing.assert_allclose(curvature.gram(columns), wanted, atol=1e-12)
