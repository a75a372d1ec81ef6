"""A sparse X against the array of the same numbers: minimise, certificate and path."""

import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse

import advlinear

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
    """Which would hold 48 MB."""
    x = scipy.sparse.random_array((300, 20_000), density=1e-4, random_state=0, format="csr")
    y, random = np.arange(300) % 2, np.random.default_rng(0)
    w, alpha = random.normal(size=20_000), random.random(300) / 300
    tracemalloc.start()
    proof = advlinear.certificate(x, y, w, 0.5, alpha, 0.01, exact=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    other = advlinear.certificate(x, y, w, 0.5, alpha, 0.01)
    assert proof["primal"] == pytest.approx(other["primal"], rel=1e-9)
    assert proof["violation"] == pytest.approx(other["violation"], rel=1e-9)
