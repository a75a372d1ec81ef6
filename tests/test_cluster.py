"""Training by several processes, as TF_CONFIG tells: the same weights, written by the chief."""

import json

import numpy as np
import pytest

import cluster
import runs
import train
from cli import InputError

OPTIONS = dict(robust=True, recipe="converged", box=True, epochs=20)


def test_two_workers_train_as_one_process_does(workers, tmp_path):
    """They share each batch of 200 images, and the last of 40, and sum their gradients in another
    order than one process does: 200 products of size 1 in float32 are off by 1e-6, and 40 steps
    add few of these. (What a worker does that has lost the other: see test_command_line.py.)"""
    (folder,) = train.main(**OPTIONS, dataset="digits", results=tmp_path, quiet=True)
    alone, together = runs.load(folder), runs.load(workers.results / "digits-0-1" / folder.name)
    assert workers.written.startswith(f"{alone.name}: test accuracy ")
    assert together.config == alone.config | {"workers": 2}
    np.testing.assert_allclose(together.w, alone.w, rtol=0, atol=1e-5)
    for name in train.RECORD:
        np.testing.assert_allclose(together.steps[name], alone.steps[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": false}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_wrong_tf_config(tmp_path, monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match=r"^TF_CONFIG must be JSON like \{.*\)$"):
        train.main(dataset="digits", results=tmp_path / "results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "index", "chief"), [("worker", 0, False), ("worker", 1, False), ("chief", 0, True)]
)
def test_a_chief_that_is_named_is_the_chief(monkeypatch, kind, index, chief):
    hosts = dict(chief=["a:1"], worker=["b:1", "c:1"])
    text = json.dumps(dict(cluster=hosts, task=dict(type=kind, index=index)))
    monkeypatch.setenv("TF_CONFIG", text)
    assert cluster.task() == dict(type=kind, index=index, workers=3, chief=chief)


def test_without_tf_config_there_is_no_strategy(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert cluster.task() is None
    assert cluster.join.__wrapped__() is None
