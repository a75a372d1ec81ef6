"""Minima of samples that are not copied: large arrays, and arrays on disk.

Each is held against the minimum of the same numbers in a small float64 array.
"""

import tracemalloc

import numpy as np
import pytest

import advlinear
from advlinear import samples
from advlinear.minima import operators, program, scaled

N, D = 230, 7
BOX = (np.full(D, -3.0), np.full(D, 2.5))
CASES = [(norm, loss, None) for norm in ("inf", "2", "1") for loss in ("hinge", "logistic")]
CASES += [("inf", "hinge", BOX), ("inf", "logistic", BOX)]
TYPES = ["float32", "float64", "float16", "int8", "uint8", ">f4"]


@pytest.fixture
def large(monkeypatch):
    """Every array is large, and a block has 30 samples."""
    monkeypatch.setattr(samples, "LARGE", 0)
    monkeypatch.setattr(program, "LARGE", 0)
    monkeypatch.setattr(scaled, "BLOCK_SIZE", 0)
    monkeypatch.setattr(scaled, "FEWEST_ROWS", 30)


def data(kind="float32"):
    """Samples of two classes that overlap, one of whose features does not vary; and labels."""
    random = np.random.default_rng(1)
    y = random.integers(0, 2, N)
    x = random.normal(size=(N, D)) + 0.7 * y[:, None] * (np.arange(D) < 3)
    x = np.clip(x, -3, 2.5)
    if np.dtype(kind).kind in "iu":
        x = 20 * (x + 3)
    x[:, 4] = 1
    return x.astype(kind), y


def on_disk(x, folder):
    stored = np.memmap(folder / "x", x.dtype, "w+", shape=x.shape)
    stored[:] = x
    stored.flush()
    return np.memmap(folder / "x", x.dtype, "r", shape=x.shape)


def assert_same(found, expected):
    """To 1e-12 of the largest weight, and of the loss."""
    tolerance = dict(rtol=0, atol=1e-12 * (1 + np.abs(expected.w).max()))
    np.testing.assert_allclose(found.w, expected.w, **tolerance)
    np.testing.assert_allclose(found.b, expected.b, **tolerance)
    assert found.primal == pytest.approx(expected.primal, rel=1e-12)
    assert found.dual == pytest.approx(expected.dual, rel=1e-12)
    assert found.violation == expected.violation == 0


@pytest.mark.parametrize(("norm", "loss", "box"), CASES)
def test_samples_on_disk_have_the_minimum_of_the_array(norm, loss, box, large, tmp_path):
    x, y = data()
    weight = np.random.default_rng(2).uniform(0.5, 2, N)
    given = dict(norm=norm, loss=loss, box=box, sample_weight=weight)
    found = advlinear.minimise(on_disk(x, tmp_path), y, 0.3, **given)
    with pytest.MonkeyPatch.context() as patch:  # a list is read as a float64 array
        patch.setattr(program, "LARGE", np.inf)
        expected = advlinear.minimise(x.tolist(), y, 0.3, **given)
    assert_same(found, expected)
    proof = advlinear.certificate(
        on_disk(x, tmp_path), y, found.w, found.b, found.alpha, 0.3, **given
    )
    assert proof == dict(
        primal=found.primal, dual=found.dual, gap=found.gap, violation=found.violation
    )


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_of_numbers_is_read_as_float64(kind, large):
    """To the last bit: the same blocks of the same numbers."""
    x, y = data(kind)
    eps = 4.0 if x.dtype.kind in "iu" else 0.2
    for norm in ("inf", "2"):
        found = advlinear.minimise(x, y, eps, norm)
        expected = advlinear.minimise(x.astype(np.float64), y, eps, norm)
        np.testing.assert_array_equal(found.w, expected.w)
        assert (found.primal, found.dual) == (expected.primal, expected.dual)
        if norm == "inf":
            given = found.w, found.b, found.alpha, eps
            exact = advlinear.certificate(x, y, *given, exact=True)
            assert exact == advlinear.certificate(x.astype(np.float64), y, *given, exact=True)


def test_samples_without_weight_are_left_out(large, tmp_path):
    x, y = data()
    weight = np.where(np.arange(N) < 150, 1.0, 0.0)
    found = advlinear.minimise(on_disk(x, tmp_path), y, 0.3, "2", sample_weight=weight)
    assert_same(found, advlinear.minimise(x[:150].tolist(), y[:150], 0.3, "2"))


def test_several_classes_and_the_path_take_samples_on_disk(large, tmp_path):
    x, y = data()
    stored, three = on_disk(x, tmp_path), np.arange(N) % 3
    found = advlinear.minimise(stored, three, 0.3, "2")
    assert_same(found, advlinear.minimise(x.tolist(), three, 0.3, "2"))
    paths = (advlinear.path(one, y, 0.2, 0.4) for one in (stored, x.tolist()))
    np.testing.assert_array_equal(*(one.at(0.3).w for one in paths))


def test_large_arrays_are_not_copied(large, tmp_path):
    x, _ = data()
    for given in (x, on_disk(x, tmp_path)):
        read = samples.matrix(given)
        assert np.shares_memory(read, given)
        assert read.dtype == np.float32
        assert type(read) is np.ndarray
    assert not np.shares_memory(samples.matrix(x.astype(np.longdouble)), x)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 2.0**1001])
def test_large_arrays_are_checked_as_small_ones(wrong, large, tmp_path):
    x, y = data("float64")
    x[-1, 2] = wrong
    with pytest.raises(ValueError, match="X holds") as expected:
        advlinear.minimise(x.tolist(), y, 0.1)
    for given in (x, on_disk(x, tmp_path)):
        with pytest.raises(ValueError, match="X holds") as found:
            advlinear.minimise(given, y, 0.1)
        assert str(found.value) == str(expected.value)
    with pytest.raises(ValueError, match="needs shape"):
        advlinear.minimise(x[:, 0], y, 0.1)
    with pytest.raises(ValueError, match="complex"):
        advlinear.minimise(x.astype(complex), y, 0.1)


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_no_copy_of_the_samples_is_made(norm, loss, tmp_path, monkeypatch):
    """Of 60,000 x 100 numbers: less memory than 60 % of them as float64, most of it for blocks."""
    monkeypatch.setattr(samples, "LARGE", 1e6)
    monkeypatch.setattr(program, "LARGE", 1e6)
    random = np.random.default_rng(3)
    x = random.normal(size=(60_000, 100)).astype(np.float32)
    y = x[:, :5].sum(axis=1) + 2 * random.normal(size=len(x)) > 0
    x = on_disk(x, tmp_path)
    tracemalloc.start()
    try:
        found = advlinear.minimise(x, y, 0.1, norm, loss)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.violation == 0
    assert peak < 0.6 * 8 * x.size


@pytest.mark.parametrize("box", [None, scaled.Sides(np.full(3, -2.0), np.full(3, 3.0), 0.4)])
def test_scaled_samples_are_those_of_the_definition(box, monkeypatch):
    """Products and parts, against y (x - centre) / span of the whole, entry by entry; to 1e-14."""
    monkeypatch.setattr(scaled, "BLOCK_SIZE", 0)
    monkeypatch.setattr(scaled, "FEWEST_ROWS", 4)
    random = np.random.default_rng(4)
    x, used = random.uniform(-2, 3, (11, 5)).astype(np.float32), np.array([0, 2, 3])
    y = np.where(random.random(11) < 0.5, -1, 1).astype(np.int8)
    centre, span = random.normal(size=3), random.uniform(1, 2, 3)
    expected = np.empty((11, 3 if box is None else 6))
    for i in range(11):
        for j in range(3):
            value = y[i] * (float(x[i, used[j]]) - centre[j]) / span[j]
            expected[i, j] = value
            if box is not None:
                below, above = x[i, used[j]] - box.low[j], box.high[j] - x[i, used[j]]
                u, v = (below, above) if y[i] > 0 else (above, below)
                expected[i, j] = value - min(box.eps, u) / span[j]
                expected[i, j + 3] = -value - min(box.eps, v) / span[j]
    found = scaled.Scaled(x, y, used, centre, span, box)
    exact = dict(rtol=1e-14, atol=1e-14)
    assert found.shape == expected.shape
    assert len(list(found.blocks())) == 3
    np.testing.assert_allclose(found.array(), expected, **exact)
    w, alpha = random.normal(size=expected.shape[1]), random.normal(size=11)
    np.testing.assert_allclose(found @ w, expected @ w, **exact)
    np.testing.assert_allclose(alpha @ found, alpha @ expected, **exact)
    some, columns = np.array([7, 2, 9]), np.array([2, 0])
    np.testing.assert_allclose(found[some], expected[some], **exact)
    np.testing.assert_allclose(found[3:8].array(), expected[3:8], **exact)
    chosen = np.ix_(some, columns)
    np.testing.assert_allclose(found[chosen], expected[chosen], **exact)
    operator = operators.Boxed(found, y)
    np.testing.assert_allclose(operator.loaded().yx, expected, **exact)
