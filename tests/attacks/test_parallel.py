"""The attack in several processes: the same radii, in their order, on this machine and on Dask."""

import os

from lab.cli import ROOT

import joblib
import numpy as np
import pytest

import advlinear
from advlinear.attacks.attack import _in_parallel


@pytest.fixture(scope="module")
def attacked():
    """Three classes in a box, and what one process finds."""
    random = np.random.default_rng(0)
    X, W, b = random.random((70, 9)), random.normal(size=(3, 9)), random.normal(size=3)
    given = dict(model=(W, b), X=X, y=(X @ W.T + b).argmax(axis=1), norm="2", box=(0, 1))
    return given, advlinear.attack(**given)


def check_same(found, expected):
    """To the rounding of sums over another number of rows at a time."""
    np.testing.assert_allclose(found.radii, expected.radii, rtol=1e-13)
    assert np.array_equal(found.rival, expected.rival)
    np.testing.assert_allclose(found.perturbed(), expected.perturbed(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("n_jobs", [1, 2, -1, 200])
def test_shares_of_the_samples_give_the_same_radii(attacked, n_jobs):
    given, expected = attacked
    with joblib.parallel_config("threading"):
        check_same(advlinear.attack(**given, n_jobs=n_jobs), expected)


def test_without_n_jobs_the_configuration_of_joblib_decides(attacked):
    given, expected = attacked
    seen = []

    def work(x, box):
        seen.append(len(x))
        return (x,)

    for config, shares in ((dict(n_jobs=1), [70]), (dict(n_jobs=3), [24, 23, 23])):
        with joblib.parallel_config("threading", **config):
            (found,) = _in_parallel(work, None, dict(x=np.arange(70)), None, {})
            check_same(advlinear.attack(**given), expected)
        assert found.tolist() == list(range(70))
        assert sorted(seen) == sorted(shares)
        seen.clear()


@pytest.mark.parametrize("n_jobs", [0, "two", 1.5])
def test_a_number_of_processes_that_is_none_is_refused(attacked, n_jobs):
    given, _ = attacked
    with pytest.raises(ValueError, match=r"^n_jobs needs a whole number other than 0, not "):
        advlinear.attack(**given, n_jobs=n_jobs)


def test_two_workers_of_a_dask_cluster_give_the_same_radii(attacked, monkeypatch):
    """In processes of their own, which find the package as this one does."""
    distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed")
    given, expected = attacked
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = dict(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with (
        distributed.LocalCluster(processes=True, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        workers = set(client.run(os.getpid).values())
        assert len(workers) == 2
        assert os.getpid() not in workers
        with joblib.parallel_config("dask"):
            check_same(advlinear.attack(**given), expected)
