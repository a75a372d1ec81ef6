"""benchmark.py on the small digits: that it measures what it says, not how fast anything is."""

import numpy as np
import pytest

import benchmark
import files


@pytest.fixture
def few(monkeypatch):
    """One turn for each contender, and no library."""
    race = benchmark.race
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(benchmark, "race", lambda contenders, turns, slow=(): race(contenders, 1))


@pytest.mark.parametrize("part", ["epoch", "attack", "optimum", "growth"])
def test_part(tmp_path, capsys, few, part):
    """The contenders' agreement on weights and minima is asserted on the way."""
    benchmark.main([part], dataset="digits", results=tmp_path)
    table = files.read_csv(tmp_path / f"digits-0-1/benchmark/{part}.csv", text=("what", "with"))
    assert (table["seconds"] > 0).all()
    out = capsys.readouterr().out
    assert out.startswith(f"{part} (digits-0-1)\n")
    assert all(what in out for what in table["what"])
    if "ratio" in table:
        assert table["ratio"][0] == 1
        np.testing.assert_allclose(
            table["ratio"], table["seconds"] / table["seconds"][0], rtol=1e-6
        )
    else:
        assert table["samples"].tolist() == 3 * [240, 480, 960, 240, 240]
        assert table["pixels"].tolist() == 3 * [64, 64, 64, 64, 256]


def test_contenders_take_turns_and_slow_ones_one():
    order = []
    contenders = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = benchmark.race(contenders, 3, slow=("b",))
    assert "".join(order) == "abcacac"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 1, "c": 3}


def test_table_gives_medians_and_ratios():
    found = benchmark.table({"ours": [2.0, 1.0, 9.0], "other": [8.0]}, "ours")
    assert found == dict(what=["ours", "other"], runs=[3, 1], seconds=[2.0, 8.0], ratio=[1.0, 4.0])


def test_enlarged_digits(digits):
    bigger = benchmark.enlarged(digits, 3, 2)
    assert bigger.x_train.shape == (720, 16, 16, 1)
    assert (bigger.x_train[:240, ::2, 1::2] == digits.x_train).all()
    assert np.abs(bigger.x_train[480:, ::2, ::2] - digits.x_train).max() < 0.2
    assert (bigger.y_train[240:480] == digits.y_train).all()
    assert bigger.x_train.min() >= 0
    assert bigger.x_train.max() <= 1
