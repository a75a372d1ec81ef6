"""Minima of samples in a dask array, on a cluster of two workers and on threads.

Each is held against that of the same numbers in an array, to 1e-12: of the largest weight, and of
the loss. At eps = 0 alpha misses its equation by rounding, for which the lower bound of an array
allows by a bit more or less; there it is to 1e-9.
"""

import subprocess
import sys

import numpy as np
import pytest

import advlinear
from advlinear import samples
from advlinear.minima import scaled

dask = pytest.importorskip("dask", reason="dask is not installed")
array = pytest.importorskip("dask.array", reason="dask.array is not installed")

N, D = 400, 5
CASES = [(norm, loss) for norm in ("inf", "2", "1") for loss in ("hinge", "logistic")]
CHUNKS = (150, 0, 90, 160)  # of rows


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes; what is computed without another choice is computed there."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with (
        distributed.LocalCluster(processes=True, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def threads(monkeypatch):
    """The scheduler of threads; and blocks of 30 samples."""
    monkeypatch.setattr(scaled, "BLOCK_SIZE", 0)
    monkeypatch.setattr(scaled, "FEWEST_ROWS", 30)
    with dask.config.set(scheduler="threads"):
        yield


def data(kind=np.float32):
    """Samples of two classes that overlap, one of whose features does not vary; and labels."""
    random = np.random.default_rng(1)
    y = random.integers(0, 2, N)
    x = random.normal(size=(N, D)) + 0.7 * y[:, None] * (np.arange(D) < 3)
    x[:, 3] = 1
    return x.astype(kind), np.where(y == 1, "yes", "no")


def chunked(x):
    return array.from_array(x, chunks=(CHUNKS, (2, 3)))


def assert_same(found, expected, dual=1e-12):
    tolerance = dict(rtol=0, atol=1e-12 * (1 + np.abs(expected.w).max()))
    np.testing.assert_allclose(found.w, expected.w, **tolerance)
    np.testing.assert_allclose(found.b, expected.b, **tolerance)
    assert found.primal == pytest.approx(expected.primal, rel=1e-12)
    assert found.dual == pytest.approx(expected.dual, rel=dual)
    assert found.classes.tolist() == expected.classes.tolist()


def check(norm, loss, eps, weight=None):
    """The minimum of chunks is that of the array; and what its certificate says is what it has."""
    x, y = data()
    expected = advlinear.minimise(x, y, eps, norm, loss, sample_weight=weight)
    w = None if weight is None else array.from_array(weight, chunks=100)
    given = chunked(x), array.from_array(y, chunks=N)
    found = advlinear.minimise(*given, eps, norm, loss, sample_weight=w)
    assert_same(found, expected, 1e-12 if eps else 1e-9)
    assert (found.violation == 0) or not eps
    assert isinstance(found.alpha, array.Array)
    assert found.alpha.chunks == (tuple(size for size in CHUNKS if size),)
    proof = advlinear.certificate(
        *given, found.w, found.b, found.alpha, eps, norm, loss, sample_weight=w
    )
    assert all(proof[name] == getattr(found, name) for name in proof)
    alone = advlinear.certificate(
        x, y, found.w, found.b, np.asarray(found.alpha), eps, norm, loss, sample_weight=weight
    )
    assert proof["primal"] == pytest.approx(alone["primal"], rel=1e-13)
    assert proof["dual"] == pytest.approx(alone["dual"], rel=1e-13 if eps else 1e-9)


@pytest.mark.parametrize(("norm", "loss"), CASES)
def test_two_workers_find_the_minimum_of_the_array(norm, loss, cluster):
    check(norm, loss, 0.3, np.random.default_rng(2).uniform(0.5, 2, N))


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize(("norm", "loss"), CASES)
def test_threads_find_the_minimum_of_the_array(norm, loss, eps, threads):
    check(norm, loss, eps)


@pytest.mark.parametrize("seed", range(5))
def test_both_bounds_of_chunks_hold_in_rational_arithmetic(seed, threads):
    """Of any weights and any alpha, in chunks of one row and of more."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(40, 3)) + 1e3, random.integers(0, 2, 40)
    w, b, alpha = random.normal(size=3), random.normal(), random.random(40) / 40
    given = y, w, b, alpha, 0.05 * seed
    exact = advlinear.certificate(x, *given, exact=True)
    for size in (1, 7, 40):
        found = advlinear.certificate(array.from_array(x, chunks=(size, 3)), *given)
        assert found["primal"] >= exact["primal"]
        assert found["dual"] <= exact["dual"]
        assert found["violation"] >= exact["violation"]
        assert found["primal"] == pytest.approx(exact["primal"], rel=1e-11)


def test_samples_without_weight_are_left_out(threads):
    x, y = data()
    weight = np.where(np.arange(N) < 200, 1.0, 0.0)
    found = advlinear.minimise(chunked(x), y, 0.3, "2", sample_weight=weight)
    assert_same(found, advlinear.minimise(x[:200], y[:200], 0.3, "2"))


def test_separable_samples_have_the_loss_0(threads):
    x, y = np.array([[0.0], [0.1], [1.0], [1.1]]), [0, 0, 1, 1]
    for norm, loss in CASES:
        given = array.from_array(x, chunks=(1, 1)), y, 0.1, norm, loss
        found = advlinear.minimise(*given)
        assert found.primal == pytest.approx(0, abs=1e-6)
        assert found.violation == 0


def test_the_state_of_the_samples_stays_on_the_workers(cluster, monkeypatch):
    """A summary that comes to the driver in a step holds less than one number of each sample."""
    from advlinear.minima import spread

    sizes = []
    each = spread.Spread.each

    def watched(self, method, *args):
        after, summary = each(self, method, *args)
        sizes.append(sum(np.size(one) for one in (*summary.sums, *summary.least)))
        assert all(len(one) == 2 for one in dask.compute(*after.kept))
        return after, summary

    monkeypatch.setattr(spread.Spread, "each", watched)
    x, y = data()
    advlinear.minimise(chunked(x), y, 0.3, "2")
    assert len(sizes) > 20
    assert max(sizes) < N


def test_several_classes_the_path_and_the_exact_certificate_take_few_samples(threads):
    x, y = data()
    three = np.arange(N) % 3
    found = advlinear.minimise(chunked(x), three, 0.3, "2")
    assert_same(found, advlinear.minimise(x, three, 0.3, "2"))
    paths = (advlinear.path(one, y, 0.2, 0.4) for one in (chunked(x), x))
    np.testing.assert_array_equal(*(one.at(0.3).w for one in paths))
    best = advlinear.minimise(x, y, 0.3)
    exact = (
        advlinear.certificate(one, y, best.w, best.b, best.alpha, 0.3, exact=True)
        for one in (chunked(x), x)
    )
    assert next(exact) == next(exact)


def test_what_is_not_taken_is_refused(threads, monkeypatch):
    x, y = data()
    refused = {
        "real numbers": chunked(x).astype(complex),
        r"shape \(n, d\)": chunked(x)[:, 0],
        "compute_chunk_sizes": chunked(x)[array.from_array(x[:, 0], chunks=100) > 0],
        "NaN or infinite": array.where(chunked(x) > 2, np.nan, chunked(x)),
        "above 1e301": chunked(x.astype(float)) * 2.0**1001,
    }
    for message, one in refused.items():
        with pytest.raises(ValueError, match=message):
            advlinear.minimise(one, y, 0.1)
    with pytest.raises(ValueError, match="y needs shape"):
        advlinear.minimise(chunked(x), y[1:], 0.1)
    monkeypatch.setattr(samples, "MOST_DENSE", 100)
    with pytest.raises(ValueError, match="X is a dask array, and a box needs it as an array"):
        advlinear.minimise(chunked(x), y, 0.1, box=(-9, 9))


def test_nothing_imports_dask_unless_an_argument_is_of_it():
    code = (
        "import sys, advlinear; advlinear.minimise([[0.0], [1.0]], [0, 1], 0.1);"
        "assert not any(name.split('.')[0] in ('dask', 'distributed') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
