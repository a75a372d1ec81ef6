"""Training by several processes, as TF_CONFIG tells: the same weights, written by the chief."""

import json
from types import SimpleNamespace

from common import cluster, runs
from common.cli import InputError

import numpy as np
import pytest
from conftest import tree

import train


@pytest.fixture
def join(monkeypatch):
    """Let this process take itself for one of so many workers that `cluster.join` has joined."""

    def take_for(workers: int, **methods):
        strategy = SimpleNamespace(num_replicas_in_sync=workers, **methods)
        monkeypatch.setattr(cluster, "join", lambda: strategy)

    return take_for


def test_two_workers_train_as_one_process_does(workers, tmp_path):
    """They share batches of 799 images and of 1, and sum their gradients in another order than one
    process does: sums of 799 products of size 1 in float32 are off by 1e-6, and 40 steps add
    few of these."""
    options = dict(robust=True, recipe="converged", box=True, epochs=20, dataset="mnist-sample")
    options |= dict(batch_size=799)
    (folder,) = train.main(**options, results=tmp_path, quiet=True)
    alone = runs.load(folder)
    together = runs.load(workers.results / folder.relative_to(tmp_path))
    assert workers.written.startswith(f"{alone.name}: test accuracy ")
    assert together.config == alone.config | {"workers": 2}
    np.testing.assert_allclose(together.w, alone.w, rtol=0, atol=1e-5)
    for name in train.STEP_COLUMNS:
        np.testing.assert_allclose(together.steps[name], alone.steps[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("images", [2, 7, 12])
def test_shares_make_up_the_batch(join, monkeypatch, images):
    """Of three workers, one of them a chief. No share is larger than another by two."""
    batch, shares = np.arange(images), []
    join(3)
    hosts = dict(chief=["a:1"], worker=["b:1", "c:1"])
    for kind, index in (("chief", 0), ("worker", 0), ("worker", 1)):
        config = dict(cluster=hosts, task=dict(type=kind, index=index))
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        assert cluster.is_chief() == (kind == "chief")
        shares.append(cluster.share(batch))
    assert sorted(np.concatenate(shares)) == batch.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_workers_with_different_options(join, tmp_path):
    """The sum over both is then not twice the number that stands for the options of this one."""
    join(2, reduce=lambda how, value, axis: value + 1)
    with pytest.raises(InputError, match="the workers are given different options or data"):
        train.main(dataset="mnist-sample", results=tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": ["a:1"], "task": {"type": "worker", "index": 0}}',
    ],
)
def test_tf_config_that_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=r"^TF_CONFIG must be JSON like \{.*\)$"):
        train.main(dataset="mnist-sample", results=tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_without_a_cluster_there_is_no_strategy(monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert cluster.is_chief()
    assert cluster.join.__wrapped__() is None


def test_worker_that_has_lost_the_other_says_so(workers):
    """What it had written is whole."""
    _, err = workers.chief.communicate(timeout=60)
    assert workers.chief.returncode == 2
    waiting, *_, error = err.splitlines()  # between them TensorFlow tells of the lost connection
    assert "waiting for the others" in waiting
    assert error.startswith("train.py: error: another worker has ended or is out of reach, ")
    written = list((workers.results / "mnist-sample-0-1" / "runs").iterdir())
    assert written
    assert all(runs.load(folder) for folder in written)
    assert not [name for name in tree(workers.results) if name.endswith(".new")]
