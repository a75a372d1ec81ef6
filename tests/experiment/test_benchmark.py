"""benchmark.py on the sample: that it measures what it says, not how fast anything is."""

from lab import library

import pytest
import threadpoolctl

import benchmark
import runs


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
