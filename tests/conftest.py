"""Data sets, trained runs and switches that several test files share."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

from lab import cli

import hypothesis
import numpy as np
import pytest
import scipy.linalg  # noqa: F401
import threadpoolctl

import data
import train

# Two processes of tests share the cores: more threads of linear algebra would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
threadpoolctl.threadpool_limits(1)

cli.import_tensorflow()  # once for all tests, set up as the scripts set it up

# The same examples on every machine, and no limit on the time of one.
hypothesis.settings.register_profile("suite", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def sample():
    """The zeros and ones of mnist-sample: 800 images for training, 200 for the test."""
    return data.load("mnist-sample")


@pytest.fixture(scope="session")
def tiny(sample):
    """Some of the sample with each 4x4 pixels as their mean: 160 and 80 images of 7x7 pixels."""

    def shrink(x):
        return x[::5].reshape(-1, 7, 4, 7, 4, 1).mean(axis=(2, 4))

    return dataclasses.replace(
        sample,
        x_train=shrink(sample.x_train),
        y_train=sample.y_train[::5],
        x_test=shrink(np.repeat(sample.x_test, 2, axis=0)),
        y_test=np.repeat(sample.y_test, 2)[::5],
    )


@pytest.fixture(scope="session")
def tiny_ten():
    """The ten digits of the sample with each 4x4 pixels as the darkest: 400 and 1,000 images."""
    every = data.load_all("mnist-sample")

    def shrink(x):
        return x.reshape(-1, 7, 4, 7, 4, 1).max(axis=(2, 4))

    return dataclasses.replace(
        every,
        x_train=shrink(every.x_train[::10]),
        y_train=every.y_train[::10],
        x_test=shrink(every.x_test),
    )


@pytest.fixture(scope="session")
def mnist():
    """Real MNIST zeros and ones; never downloaded by a test."""
    prepared = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    sources = data.CACHE / "mnist-0-1.npz", prepared / "mnist/3.0.1/dataset_info.json"
    if not any(source.is_file() for source in sources):
        pytest.skip(f"MNIST is absent: there is neither {sources[0]} nor {sources[1]}")
    return data.load("mnist")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A results folder with a regular and a robust run on the sample. To be read, not changed."""
    results, options = tmp_path_factory.mktemp("trained"), dict(dataset="mnist-sample", quiet=True)
    train.main(epochs=5, results=results, **options)
    train.main(robust=True, eps=0.05, epochs=5, results=results, **options)
    return results


@pytest.fixture
def float64():
    """Keras in double precision, so that only the mathematics can differ from NumPy."""
    import keras

    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_floatx(floatx)


def flat(x):
    """Images (n, height, width, 1) as float64 rows (n, d)."""
    return x.reshape(len(x), -1).astype("float64")


def dual_norm(w, norm):
    """The norm of w that the ball called `norm` costs, and a subgradient of it (0 at a kink)."""
    if norm == "inf":
        return np.abs(w).sum(), np.sign(w)
    if norm == "2":
        size = np.sqrt((w * w).sum())
        return size, w / size if size else np.zeros_like(w)
    size = np.abs(w).max()
    return size, np.sign(w) * (np.abs(w) == size)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def script(*arguments, **options) -> subprocess.CompletedProcess:
    """Run `python *arguments` in the checkout, as a user would."""
    command = [sys.executable, *map(str, arguments)]
    options = dict(cwd=cli.ROOT, capture_output=True, text=True, timeout=120) | options
    return subprocess.run(command, **options)
