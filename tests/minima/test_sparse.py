"""A sparse X against the array of the same numbers: minimise, certificate and path."""

import importlib
import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse

import advlinear
from advlinear import samples
from advlinear.minima import signed

path_module = importlib.import_module("advlinear.minima.path")  # `path` is a function, too
CASES = list(itertools.product(("inf", "2", "1"), ("hinge", "logistic")))


def few_numbers(seed):
    """X (n, d), a SciPy sparse array, and y, sample_weight or None, and eps.

    Some rows and columns are empty, some columns of one sign, some numbers stored as 0 or in two
    parts; some classes are separable, and some eps so large that no weights are best.
    """
    random = np.random.default_rng(seed)
    n, d = int(random.integers(4, 40)), int(random.integers(1, 30))
    y = np.append(random.integers(0, 2, n - 2), [0, 1])
    x = random.normal(size=(n, d)) + random.choice([0, 0, 1, 3]) * y[:, None]
    x[random.random((n, d)) < random.choice([0.5, 0.8, 0.95])] = 0
    if random.random() < 0.4:
        x = np.abs(np.round(2 * x)) / 4
    x[:, random.random(d) < 0.1] = 0
    x *= random.choice([1, 1, 0.01, 100])
    weights = random.uniform(0.1, 2, n) if random.random() < 0.4 else None
    eps = random.choice([0.001, 0.02, 0.1, 0.3, 3]) * max(np.abs(x).max(), 1e-3)
    kind = random.choice(["csr", "csc", "coo"])
    sparse = getattr(scipy.sparse, f"{kind}_array")(x)
    if kind == "coo":  # each number in two parts, whose sum does not round, and zeros
        half = sparse.data / 2
        rows, columns = (np.tile(one, 3) for one in (sparse.row, sparse.col))
        data = np.concatenate([half, half, 0 * half])
        sparse = scipy.sparse.coo_array((data, (rows, columns)), shape=x.shape)
    return sparse, x, y, weights, float(eps)


@pytest.mark.parametrize(("norm", "loss"), CASES)
def test_the_minimum_of_a_sparse_x_is_that_of_its_array(norm, loss):
    """50 random problems of each case; at most one of them has no certificate as either."""
    refused = 0
    for seed in range(50):
        sparse, x, y, weights, eps = few_numbers(seed)
        found, expected = [], []
        for one, outcome in ((sparse, found), (x, expected)):
            try:
                outcome.append(advlinear.minimise(one, y, eps, norm, loss, sample_weight=weights))
            except ValueError as error:
                assert "no certificate" in str(error)  # noqa: PT017
        refused += not found
        if not found or not expected:
            continue
        (best,), (other,) = found, expected
        floor = 1 / len(y) if weights is None else weights.min() / weights.sum()
        assert abs(best.primal - other.primal) <= 2e-6 * max(other.primal, floor)
        assert best.gap <= 1e-6
        assert best.violation == 0
        arguments = y, best.w, best.b, best.alpha, eps, norm, loss
        proof = advlinear.certificate(sparse, *arguments, sample_weight=weights)
        assert proof == {name: getattr(best, name) for name in proof}
        twin = advlinear.certificate(x, *arguments, sample_weight=weights)
        assert twin["primal"] == pytest.approx(proof["primal"], rel=1e-9, abs=1e-12)
        assert twin["dual"] == pytest.approx(proof["dual"], rel=1e-9, abs=1e-12)
    assert refused <= 1


@pytest.mark.parametrize("norm", ["inf", "1"])
def test_the_certificate_of_a_sparse_x_in_exact_arithmetic_is_that_of_its_array(norm):
    """To the last bit; and the one in float64 allows for its rounding."""
    for seed in range(150):
        sparse, x, y, weights, eps = few_numbers(seed)
        random = np.random.default_rng(seed)
        n, d = x.shape
        w, b, alpha = random.normal(size=d), random.normal(), random.random(n) / n
        w[random.random(d) < 0.5] = 0
        if seed % 2:
            try:
                found = advlinear.minimise(x, y, eps, norm, sample_weight=weights, tol=0.9)
                w, b, alpha = found.w, found.b, found.alpha
            except ValueError:
                pass
        arguments = dict(y=y, w=w, b=b, alpha=alpha, eps=eps, norm=norm, sample_weight=weights)
        exact = advlinear.certificate(sparse, **arguments, exact=True)
        assert exact == advlinear.certificate(x, **arguments, exact=True)
        proof = advlinear.certificate(sparse, **arguments)
        assert proof["primal"] >= exact["primal"] * (1 - 2.0**-52)
        assert proof["dual"] <= exact["dual"] * (1 + 2.0**-52)
        assert Fraction(proof["violation"]) >= Fraction(exact["violation"]) * (1 - 2**-52)


def test_numbers_that_cancel_in_a_sparse_column_are_summed_exactly():
    """1e15 + 1 - 1e15 in a column, of which float64 loses the 1 in some orders."""
    x = np.array([[1e15, 0], [1, 0], [-1e15, 2.0], [0, 0.5]])
    y, alpha = [1, 1, 1, 0], [0.1, 0.1, 0.1, 0.25]
    for norm in ("inf", "1"):
        for w in ([1e-15, 2.0], [0, 0]):
            arguments = dict(y=y, w=w, b=0.25, alpha=alpha, eps=0.125, norm=norm, exact=True)
            found, expected = (
                advlinear.certificate(one, **arguments) for one in (scipy.sparse.csr_array(x), x)
            )
            assert found == expected


def test_exact_arithmetic_makes_no_array_of_a_sparse_x():
    """Which would hold 96 MB."""
    x = scipy.sparse.random_array((3000, 4000), density=1e-3, random_state=0, format="csr")
    y, random = np.arange(3000) % 2, np.random.default_rng(0)
    w, alpha = random.normal(size=4000), random.random(3000) / 3000
    tracemalloc.start()
    proof = advlinear.certificate(x, y, w, 0.5, alpha, 0.01, exact=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    other = advlinear.certificate(x, y, w, 0.5, alpha, 0.01)
    assert proof["primal"] == pytest.approx(other["primal"], rel=1e-9)
    assert proof["violation"] == pytest.approx(other["violation"], rel=1e-9)


# --- every radius at once -------------------------------------------------------------------------


@pytest.fixture
def sparse_walk(monkeypatch):
    """Also a small sparse X is not made an array for the path."""
    monkeypatch.setattr(path_module, "SMALL_SPARSE", 0)


def text(n, d, per_row, seed):
    """X (n, d) with the frequencies of words in texts of two kinds, and y."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % 2
    share = 1 / (np.arange(d) + 10)
    tilt = random.normal(scale=0.7, size=d) * (random.random(d) < 0.2)
    rows = np.repeat(np.arange(n), per_row)
    words = np.empty(len(rows), dtype=np.int64)
    for kind, sign in ((0, -1), (1, 1)):
        chance = share * np.exp(sign * tilt)
        of_kind = y[rows] == kind
        words[of_kind] = random.choice(d, np.count_nonzero(of_kind), p=chance / chance.sum())
    ones = np.full(len(rows), 1 / per_row)
    return scipy.sparse.coo_array((ones, (rows, words)), shape=(n, d)), y


def largest_radius(x, y):
    """That below which weights other than 0 are best, of classes of the same size."""
    return np.abs(x.T @ (2 * y - 1.0)).max() / len(y)


def agree(found, expected, radii, n, tol):
    """Both bounds of two paths at radii, to what tol allows."""
    (primal, dual), (other, below) = found.bounds(radii), expected.bounds(radii)
    assert (np.abs(primal - other) <= max(tol, 1e-7) * np.maximum(other, 1 / n)).all()
    assert (dual <= other * (1 + 1e-9) + 1e-12).all()
    assert (below <= primal * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("tol", [0, 1e-4])
def test_the_path_of_a_sparse_x_is_that_of_its_array(tol, sparse_walk):
    """100 random problems, a fifth of them from eps = 0, where classes may be separable."""
    for seed in range(100):
        sparse, x, y, _, _ = few_numbers(seed)
        ends = np.random.default_rng(seed).uniform(0, 0.7, 2) * max(np.abs(x).max(), 1e-3)
        low, high = sorted(ends if seed % 5 else [0, ends[0]])
        found, expected = (advlinear.path(one, y, low, high, tol=tol) for one in (sparse, x))
        assert found.gap <= (tol or 1e-6)
        agree(found, expected, np.linspace(low, high, 7), len(y), tol)


@pytest.mark.parametrize("wider", [1.05, 4.0, 1e9])
def test_which_features_a_walk_looks_at_does_not_matter(wider, sparse_walk, monkeypatch):
    """A few more at a time, as is usual, or all from the start; and more than 64 in use."""
    x, y = text(300, 1500, 30, 0)
    monkeypatch.setattr(signed, "WIDER", wider)
    low = 0.1 * largest_radius(x, y)
    found, expected = (advlinear.path(one, y, low, 1, tol=0) for one in (x, x.toarray()))
    assert found.gap <= 1e-9
    assert len(np.unique(found.w.indices)) > 64
    radii = np.linspace(low, 1.1 * expected.radii[-1], 1000)
    np.testing.assert_allclose(found.bounds(radii)[0], expected.bounds(radii)[0], rtol=1e-10)


def test_a_path_makes_no_array_of_a_sparse_x():
    """Which would hold 96 MB."""
    x, y = text(600, 20_000, 50, 1)
    x = x.tocsr()
    before = x.copy()
    low = 0.3 * largest_radius(x, y)
    tracemalloc.start()
    found = advlinear.path(x, y, low, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 48e6
    assert found.gap <= 1e-4
    assert found.at(low).w.any()
    assert found.w.shape == (len(found.s), 20_000)
    used = np.union1d(found.w.indices, np.argsort(-np.abs(x.T @ (2 * y - 1)))[:500])
    expected = advlinear.path(x[:, used], y, low, 1)  # of which the path is: no other is in use
    agree(found, expected, np.linspace(low, 1, 20), len(y), 2e-4)
    assert (x != before).nnz == 0


def test_a_path_that_would_need_too_many_features_as_arrays_is_refused(sparse_walk, monkeypatch):
    x, y = text(200, 1500, 40, 0)
    monkeypatch.setattr(signed, "MOST_DENSE", 100 * 200)
    line = "the path has had 63 features of a sparse X in use, and more would .*: raise eps_min$"
    with pytest.raises(ValueError, match=line) as error:
        advlinear.path(x, y, 0.05 * largest_radius(x, y), 1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("norm", ["2", "1"])
def test_paths_of_the_other_balls_take_a_sparse_x_as_an_array(norm, monkeypatch):
    x, y = text(30, 8, 5, 0)
    low = 0.5 * largest_radius(x, y)
    found, expected = (
        advlinear.path(one, y, low, 3, norm, tol=1e-2) for one in (x.tocsc(), x.toarray())
    )
    assert found.radii.tolist() == expected.radii.tolist()
    monkeypatch.setattr(samples, "MOST_DENSE", 100)
    line = rf"X is sparse, and a path in the L{norm} ball needs it as an array, which would hold"
    with pytest.raises(ValueError, match=line) as error:
        advlinear.path(x, y, low, 3, norm)
    assert "\n" not in str(error.value)


def test_numbers_of_a_sparse_x_that_a_path_does_not_take(sparse_walk):
    with pytest.raises(ValueError, match=r"X must be below 1e\+100, and its range above"):
        advlinear.path(scipy.sparse.csr_array([[1e101], [0]]), [0, 1], 0.1, 0.2)
    found = advlinear.path(scipy.sparse.csr_array((3, 2)), [0, 1, 1], 0, 1, tol=0)
    assert found.at(0).primal == pytest.approx(2 / 3, rel=1e-14)
