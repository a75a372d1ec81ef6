"""benchmark.py on the sample: that it measures what it says, not how fast anything is."""

import time

from lab import library, rivals, text

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl

import benchmark
import runs
import tables


@pytest.fixture
def once(monkeypatch):
    """One turn for each contender, and no library."""
    race = benchmark.race
    monkeypatch.setattr(library, "installed", lambda: False)
    monkeypatch.setattr(benchmark, "LARGEST", 0)  # numbers that rivals are given
    monkeypatch.setattr(benchmark, "race", lambda contenders, turns, slow=(): race(contenders, 1))


@pytest.mark.parametrize("part", ["epoch", "attack"])
def test_part(tmp_path, capsys, once, part):
    """That the contenders agree on the weights is asserted on the way."""
    benchmark.main([part], dataset="mnist-sample", results=tmp_path)
    path = tmp_path / "mnist-sample-0-1" / "studies" / f"benchmark-{part}.npz"
    table = runs.load_study(path, {})[f"benchmark-{part}"]
    assert table["ratio"] == pytest.approx(table["seconds"] / table["seconds"][0], rel=1e-6)
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading == f"{part} (mnist-sample-0-1)"
    for line, what in zip(lines, table["what"], strict=True):
        assert line.startswith(f"  {what} ")
    assert len(lines) >= 2


def test_contenders_that_do_not_agree_are_refused(sample, once, monkeypatch):
    loop = benchmark.numpy_loop

    def wrong(*arguments, **options):
        seconds, w = loop(*arguments, **options)
        return seconds, w + 0.01

    monkeypatch.setattr(benchmark, "numpy_loop", wrong)
    with pytest.raises(AssertionError, match=r"NumPy.*: weights differ by 0\.01"):
        benchmark.epoch(sample)


def test_contenders_take_turns_and_slow_ones_one():
    order = []
    contenders = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = benchmark.race(contenders | {"d": lambda: 5.0}, 3, slow=("b", "d"))
    assert "".join(order) == "abcacac"
    assert {name: len(values) for name, values in seconds.items()} == dict(a=3, b=1, c=3, d=1)
    assert seconds["d"] == [5.0]  # it has timed itself


def test_table_gives_medians_and_ratios():
    found = benchmark.table({"ours": [2.0, 1.0, 9.0], "other": [8.0]}, "ours")
    assert found == dict(what=["ours", "other"], runs=[3, 1], seconds=[2.0, 8.0], ratio=[1.0, 4.0])


def test_threads_are_set_for_each_turn_and_given_back(sample, monkeypatch):
    blas, seen = threadpoolctl.ThreadpoolController().select(user_api="blas"), []

    def task():
        seen.append({one["num_threads"] for one in blas.info()})

    monkeypatch.setattr(benchmark, "FEW_RUNS", 2)
    monkeypatch.setattr(benchmark, "_on_threads", lambda split: [("a task", task)])
    before = [one["num_threads"] for one in blas.info()]
    table = benchmark.threads(sample)
    assert [one["num_threads"] for one in blas.info()] == before
    assert seen[::2] == [{1}, {1}]  # a BLAS that was loaded with one thread may keep it in between
    assert table["what"] == ["a task", "a task, two threads"]
    assert table["runs"] == [2, 2]


@pytest.fixture(scope="module")
def three_classes():
    random = np.random.default_rng(0)
    own = random.integers(0, 3, 60)
    return np.clip(np.eye(3, 4)[own] + random.normal(scale=0.3, size=(60, 4)), 0, 1), own


def test_minima_of_several_classes_beside_those_of_others(tmp_path, monkeypatch, three_classes):
    """Labels that are not 0 to K - 1; with the default problem HiGHS, too. The table reads it."""
    pytest.importorskip("cvxpy")
    x, own = three_classes
    problems = [
        ("inf", (x, 3 - own, 0.1, {})),
        ("2", (x, own, 0.3, dict(norm="2", loss="logistic"))),
        ("1", (x, own, 0.3, dict(norm="1"))),
    ]
    monkeypatch.setattr(benchmark, "_joint", lambda split: iter(problems))
    benchmark.main(["classes-minimum"], dataset="mnist-sample", results=tmp_path)
    stored = runs.read(tmp_path / "mnist-sample-0-1")
    table = stored.study("benchmark-classes-minimum")
    ends = ["", ", cvxpy, Clarabel", ", HiGHS, simplex", ", HiGHS, interior point"]
    expected = [f"inf{end}" for end in ends] + [n + end for n in "21" for end in ends[:2]]
    assert table["what"].tolist() == expected
    assert np.abs(table["gap"]).max() <= 1e-6  # of all: they agree
    ours = ~np.isnan(table["weights"])
    assert ours.sum() == 3
    assert (table["violation"][ours] == 0).all()
    assert (table["minimum"][ours] > 0.01).all()
    assert (table["megabytes"][ours] > 30).all()  # NumPy alone takes as much
    heads = 2  # lines
    assert tables._joint_minima(stored).count("\n") == heads + 3
    assert tables._joint_rivals(stored).count("\n") == heads + 3


def test_minima_of_any_data_beside_those_of_others(tmp_path, monkeypatch):
    """Sparse samples, a float32 array on disk, and one in memory. The tables read it."""
    x, y = text.zipf(60, 200, 20, seed=0)
    on_disk = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (60, 4))
    on_disk[:] = np.random.default_rng(0).normal(size=(60, 4)) + 0.5 * y[:, None]
    logistic = dict(norm="2", loss="logistic")
    problems = [
        ("sparse", (x, y, 0.02, {}), ("liblinear", "HiGHS")),
        ("disk", (on_disk, y, 0.1, logistic), ()),
        ("memory", (np.array(on_disk), y, 0.1, logistic), ("liblinear", "saga")),
    ]
    monkeypatch.setattr(benchmark, "_any_data", lambda split, folder: iter(problems))
    benchmark.main(["data"], dataset="mnist-sample", results=tmp_path)
    stored = runs.read(tmp_path / "mnist-sample-0-1")
    table = stored.study("benchmark-data")
    ends = ["sparse", "sparse, liblinear", "sparse, HiGHS", "disk", "memory"]
    assert table["what"].tolist() == [*ends, "memory, liblinear", "memory, saga"]
    ours = ~np.isnan(table["weights"])
    assert ours.tolist() == [True, False, False, True, True, False, False]
    assert (table["violation"][ours] == 0).all()
    assert table["gap"][2] == pytest.approx(0, abs=1e-6)  # HiGHS solves the same program
    assert (table["gap"][~ours] > -1e-6).all()
    assert table["minimum"][3] == pytest.approx(table["minimum"][4], rel=1e-6)
    assert table["numbers"].tolist() == [x.nnz] * 3 + [240] * 4
    heads = 2  # lines
    assert tables._minima_of_any_data(stored).count("\n") == heads + 3
    assert tables._rivals_on_any_data(stored).count("\n") == heads + 2


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_no_penalised_model_has_a_lower_loss_than_the_minimum(norm, loss):
    """Nor is it far from it, after the best factor and bias."""
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 5))
    y = np.where(x[:, 0] + random.normal(size=200) > 0, 1, -1)
    found = benchmark.advlinear.minimise(x, y, 0.1, norm, loss)
    for solver in ("liblinear", "saga")[: 1 + (loss == "logistic")]:
        value = rivals.penalised(x, y, 0.1, norm, loss, solver, C=0.1)
        assert found.dual <= value <= 1.1 * found.primal


@pytest.fixture(scope="module")
def two_classes():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 5)) + 0.5
    return x, np.where(x[:, 0] + random.normal(size=200) > 0.5, 1.0, -1.0)


@pytest.mark.parametrize(
    ("rival", "norm", "loss"),
    [(rival, *problem) for rival in rivals.OF_THE_MEAN for problem in rival.problems],
    ids=lambda one: getattr(one, "name", one),
)
def test_other_solvers_minimise_the_same_under_a_budget_of_the_mean(two_classes, rival, norm, loss):
    """To 2e-6, which is what the tolerances of liblinear and of skglm leave.

    In a process of its own, as PyTorch, which dro needs, and TensorFlow may break each other.
    """
    if not rival.installed():
        pytest.skip(f"{rival.package} is not installed")
    x, y = two_classes
    how = dict(norm=norm, loss=loss, budget="mean")
    found = benchmark.advlinear.minimise(x, y, 0.05, **how)
    weights = benchmark.within(None, rival.weights, (x, y, 0.05, norm, loss))[0]
    value = rivals.loss_of(x, y, *weights, 0.05, **how)
    assert 0.3 < found.dual < 0.9
    assert found.dual <= value <= (1 + 2e-6) * found.primal


def endless(x, y, eps, norm, loss):
    """It comes to an end with the tiny problem of the start alone."""
    while len(y) != 20:
        time.sleep(0.01)
    return np.zeros(x.shape[1]), 0.0


def test_minima_of_the_mean_beside_those_of_others(tmp_path, monkeypatch, capsys, two_classes):
    """A solver that does not end is stopped, one that is not installed left out."""
    x, y = two_classes
    problems = [("first", (x, y, 0.05, "inf", "hinge")), ("second", (x, y, 0.1, "2", "hinge"))]
    highs = next(one for one in rivals.OF_THE_MEAN if one.name == "HiGHS")
    slow = rivals.Rival("slow", "numpy", highs.problems, np.inf, endless)
    others = highs, slow, slow._replace(name="absent", package="no_such_package")
    monkeypatch.setattr(rivals, "OF_THE_MEAN", others)
    monkeypatch.setattr(benchmark, "MEAN_LIMIT", 5.0)
    monkeypatch.setattr(benchmark, "_of_the_mean", lambda split: iter(problems))
    benchmark.main(["mean"], dataset="mnist-sample", results=tmp_path)
    assert "absent is left out, as no_such_package is not installed" in capsys.readouterr().out
    stored = runs.read(tmp_path / "mnist-sample-0-1")
    table = stored.study("benchmark-mean")
    assert table["what"].tolist() == ["first", "first, HiGHS", "first, slow", "second"]
    assert (table["runs"] > 0).tolist() == [True, True, False, True]
    assert table["seconds"][2] == benchmark.MEAN_LIMIT
    assert np.isnan(table["loss"]).tolist() == [False, False, True, False]
    assert np.nanmax(np.abs(table["gap"])) <= 1e-6
    assert (table["violation"][[0, 3]] == 0).all()
    heads = 2  # lines, and one more for each problem
    lines = tables._minima_of_the_mean(stored).splitlines()[heads:]
    solvers = [line.split(" | ")[0].strip("| ") for line in lines]
    assert solvers == ["**first**", "advlinear", "HiGHS", "slow", "**second**", "advlinear"]
    assert "stopped" in lines[3]


def test_random_text_has_the_size_asked_for():
    x, y = text.zipf(300, 2000, 50, seed=0)
    assert x.shape == (300, 2000)
    assert isinstance(x, scipy.sparse.csr_array)
    assert 30 < x.nnz / 300 < 60
    np.testing.assert_allclose(np.sqrt(x.power(2).sum(axis=1)), 1, rtol=1e-12)
    assert 0.2 < np.mean(y > 0) < 0.5
    counts = np.sort(x.count_nonzero(axis=0))[::-1]
    assert counts[0] > 10 * counts[300]  # Zipf's law
