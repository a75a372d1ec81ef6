"""The data sets, the cache, and what happens where MNIST cannot be had."""

import gzip
import json
import os
import shutil
import socket
import struct
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import script, tree
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import data
from cli import ROOT, InputError


def multiset(images) -> Counter:
    return Counter(image.tobytes() for image in images)


def arrays(dataset) -> list[bytes]:
    return [getattr(dataset, name).tobytes() for name in ("x_train", "y_train", "x_test", "y_test")]


def check_shape_and_range(dataset, shape):
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        assert x.shape == (len(y), *shape)
        assert x.dtype == y.dtype == np.float32
        assert x.min() == 0
        assert x.max() == 1
        assert set(y) == {-1, 1}


# --- scikit-learn's digits -------------------------------------------------------------------


def test_digits_shape_and_range(digits):
    assert (digits.name, digits.source, digits.digits) == ("digits-0-1", "digits", (0, 1))
    check_shape_and_range(digits, (8, 8, 1))


@pytest.mark.parametrize("pair", [(0, 1), (3, 8), (9, 4)])
def test_digits_are_all_of_scikit_learns(pair):
    """Train and test together are every image of the two digits, each with its label."""
    dataset = data.load("digits", pair)
    images, labels = load_digits(return_X_y=True)
    x = np.concatenate([dataset.x_train, dataset.x_test])
    y = np.concatenate([dataset.y_train, dataset.y_test])
    for label, digit in ((-1, min(pair)), (1, max(pair))):
        # Sixteenths are exact in float32, so the images are compared bit by bit.
        expected = np.float32(images[labels == digit] / 16)
        assert multiset(x[y == label]) == multiset(expected)


@pytest.mark.parametrize("pair", [(0, 1), (2, 7)])
def test_digits_split_is_fixed_and_stratified(pair):
    dataset = data.load("digits", pair)
    images, labels = load_digits(return_X_y=True)
    _, x_test, _, y_test = train_test_split(
        images, labels, test_size=1 / 3, stratify=labels, random_state=0
    )
    for label, digit in zip((-1, 1), pair, strict=True):
        assert np.array_equal(
            dataset.x_test[dataset.y_test == label].reshape(-1, 64), x_test[y_test == digit] / 16
        )
        # A third of each digit, up to the rounding of the split.
        assert (dataset.y_test == label).sum() == pytest.approx((labels == digit).sum() / 3, abs=1)


def test_order_of_digits_is_irrelevant():
    one, other = data.load("digits", (6, 2)), data.load("digits", (2, 6))
    assert arrays(one) == arrays(other)
    assert (one.name, one.checksum) == (other.name, other.checksum) == ("digits-2-6", one.checksum)


def test_checksum_tells_pairs_apart():
    pairs = [(a, b) for b in range(5) for a in range(b)]
    assert len({data.load("digits", pair).checksum for pair in pairs}) == 10


def test_changed_digits_are_refused(monkeypatch):
    """As an edition of scikit-learn with other images would be."""
    images, labels = load_digits(return_X_y=True)
    images[np.flatnonzero(labels == 1)[0], 20] += 1
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (images, labels))
    with pytest.raises(InputError, match=r"digits images of 1 are not the known ones"):
        data.load("digits")
    assert data.load("digits", (0, 2)).name == "digits-0-2"  # these are untouched


@pytest.mark.parametrize("source", ["digits", "mnist", "auto"])
def test_same_digit_twice(source):
    with pytest.raises(InputError, match="two different digits, not 3 twice"):
        data.load(source, (3, 3))


def test_load_named(digits):
    assert arrays(data.load_named("digits-0-1")) == arrays(digits)


@pytest.mark.parametrize("name", ["attack", "digits", "digits-0-10", "fashion-0-1", "digits-0-1x"])
def test_load_named_refuses_other_names(name):
    with pytest.raises(InputError, match=f"{name} is no data set"):
        data.load_named(name)


# --- MNIST -----------------------------------------------------------------------------------


@pytest.mark.mnist
def test_mnist_counts_shape_and_range(mnist):
    check_shape_and_range(mnist, (28, 28, 1))
    assert [(mnist.y_train == label).sum() for label in (-1, 1)] == [5923, 6742]
    assert [(mnist.y_test == label).sum() for label in (-1, 1)] == [980, 1135]


@pytest.mark.mnist
def test_mnist_is_the_official_one(mnist):
    """Each digit's images, as a multiset, are those of the .gz files (in no common order)."""
    if "MNIST_DIR" not in os.environ:
        pytest.skip("MNIST_DIR does not name a folder with the four official .gz files")
    folder = Path(os.environ["MNIST_DIR"])
    for split, prefix in (("train", "train"), ("test", "t10k")):
        labels = gzip.decompress((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        pixels = gzip.decompress((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        magic, n, height, width = struct.unpack(">4i", pixels[:16])
        assert (magic, height, width) == (2051, 28, 28)
        labels = np.frombuffer(labels, np.uint8, offset=8)
        images = np.frombuffer(pixels, np.uint8, offset=16).reshape(n, 784)
        x, y = getattr(mnist, f"x_{split}"), getattr(mnist, f"y_{split}")
        for label, digit in ((-1, 0), (1, 1)):
            found = np.rint(x[y == label] * 255)
            assert np.array_equal(np.float32(found / 255), x[y == label])  # whole grey levels
            assert multiset(found.astype(np.uint8)) == multiset(images[labels == digit])


# --- the cache -------------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch):
    """Made-up images that stand for MNIST's zeros and ones, their counts and checksums too."""
    random = np.random.default_rng(0)
    sizes = {"train_0": 7, "test_0": 3, "train_1": 8, "test_1": 4}
    images = {key: random.integers(0, 256, (n, 28, 28, 1), "uint8") for key, n in sizes.items()}
    for x in images.values():
        x[random.random(x.shape) < 0.8] = 0  # mostly dark, as digits are, so that they compress
    for digit in (0, 1):
        record = data.digit_record(images[f"train_{digit}"], images[f"test_{digit}"])
        monkeypatch.setitem(data.KNOWN["mnist"], digit, record)
    return images


@pytest.fixture
def reads(monkeypatch, made_up):
    """Lets tensorflow-datasets give the made-up images; a list that grows with each read."""
    calls = []

    def read(digits, mnist_dir):
        calls.append(digits)
        return made_up

    monkeypatch.setattr(data, "_read_tfds", read)
    return calls


def test_cache_is_written_once(tmp_path, made_up, reads):
    first = data.load("mnist", cache=tmp_path / "new")
    written = tree(tmp_path)
    again = data.load("mnist", (1, 0), cache=tmp_path / "new")
    assert reads == [(0, 1)]
    assert arrays(first) == arrays(again)
    assert list(written) == ["new/mnist-0-1.npz"]
    assert tree(tmp_path) == written
    expected = np.concatenate([made_up["train_0"], made_up["train_1"]]) / 255
    # Both round the same quotient, one in double precision first.
    np.testing.assert_allclose(again.x_train, expected, rtol=1e-7)
    assert again.y_train.tolist() == [-1] * 7 + [1] * 8


def test_cache_is_read_without_tensorflow(tmp_path, made_up, reads):
    data.load("mnist", cache=tmp_path)
    code = """if True:
        import json, sys, pathlib, data
        known = json.loads(sys.argv[1])
        data.KNOWN["mnist"].update({int(digit): tuple(known[digit]) for digit in known})
        dataset = data.load("mnist", cache=pathlib.Path(sys.argv[2]))
        print(dataset.x_train.shape, {"tensorflow", "tensorflow_datasets"} & set(sys.modules))
    """
    known = json.dumps({digit: data.KNOWN["mnist"][digit] for digit in (0, 1)})
    done = script("-c", code, known, tmp_path)
    assert (done.stdout, done.stderr) == ("(15, 28, 28, 1) set()\n", "")


def truncated(path, images):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path, images):
    path.write_bytes(b"")


def no_zip(path, images):
    path.write_bytes(b"no zip file\n" * 100)


def plain_array(path, images):
    with open(path, "wb") as file:
        np.save(file, images["train_0"])


def changed_pixel(path, images):
    """A whole file whose own checksums are right, with one bit of one pixel changed."""
    images["test_1"][2, 14, 14] ^= 1
    np.savez_compressed(path, **images)


def missing_image(path, images):
    np.savez_compressed(path, **images | {"train_1": images["train_1"][:-1]})


def wrong_keys(path, images):
    np.savez_compressed(path, **{key.replace("0", "7"): x for key, x in images.items()})


def swapped(path, images):
    """Right images under wrong names."""
    np.savez_compressed(path, **{f"{key[:-1]}{1 - int(key[-1])}": x for key, x in images.items()})


def pickled(path, images):
    np.savez_compressed(path, **{key: x.astype(object) for key, x in images.items()})


def signed(path, images):
    """The right bytes, read as -128 to 127."""
    np.savez_compressed(path, **{key: x.view(np.int8) for key, x in images.items()})


def scalar(path, images):
    np.savez_compressed(path, **images | {"test_0": np.uint8(0)})


DAMAGES = [truncated, empty, no_zip, plain_array, changed_pixel, missing_image]
DAMAGES += [wrong_keys, swapped, pickled, signed, scalar]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cache_is_rebuilt(tmp_path, made_up, reads, capsys, damage):
    whole = data.load("mnist", cache=tmp_path)
    before = tree(tmp_path)
    capsys.readouterr()
    damage(tmp_path / "mnist-0-1.npz", {key: x.copy() for key, x in made_up.items()})
    assert tree(tmp_path) != before
    assert arrays(data.load("mnist", cache=tmp_path)) == arrays(whole)
    assert len(reads) == 2
    notice = capsys.readouterr().err
    assert notice.startswith(f"NOTICE: rebuilding the cache: {tmp_path / 'mnist-0-1.npz'}")
    assert notice.count("\n") == 1
    assert tree(tmp_path) == before


def test_no_flipped_bit_of_the_cache_is_trusted(tmp_path, made_up, reads):
    """The file is either rebuilt, or the bit told nothing of the images (a zip's date, say)."""
    whole = arrays(data.load("mnist", cache=tmp_path))
    path = tmp_path / "mnist-0-1.npz"
    bytes_before = path.read_bytes()
    random = np.random.default_rng(0)
    # In the arrays, and in the table at the end of the file that says where they lie.
    places = [*random.integers(0, len(bytes_before), 60), *range(-500, 0, 3)]
    for place in places:
        damaged = bytearray(bytes_before)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        assert arrays(data.load("mnist", cache=tmp_path)) == whole
    assert len(reads) > 60


def test_unwritable_cache_is_no_error(tmp_path, reads, capsys):
    (tmp_path / "file").touch()
    dataset = data.load("mnist", cache=tmp_path / "file" / "cache")
    assert len(dataset.y_train) == 15
    assert "NOTICE: MNIST is not cached: " in capsys.readouterr().err
    assert list(tree(tmp_path)) == ["file"]


def test_wrong_images_are_neither_cached_nor_used(tmp_path, made_up, reads):
    made_up["train_0"][0, 0, 0] ^= 1
    with pytest.raises(InputError, match="the mnist images of 0 are not the known ones"):
        data.load("mnist", cache=tmp_path)
    assert tree(tmp_path) == {}


def test_mnist_dir_without_its_files(tmp_path):
    for name in data.MNIST_FILES[::2]:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="lacks") as caught:
        data.load("mnist", mnist_dir=tmp_path)
    assert [name in str(caught.value) for name in data.MNIST_FILES] == [False, True, False, True]


def test_mnist_dir_with_digits_is_refused(tmp_path):
    with pytest.raises(InputError, match="--mnist-dir"):
        data.load("digits", mnist_dir=tmp_path)


# --- MNIST out of reach ----------------------------------------------------------------------


@pytest.fixture
def out_of_reach(tmp_path):
    """A checkout with an empty cache, and a way to run it whose network goes nowhere.

    Every connection ends at a proxy of ours. It never answers, or gives the answer that it is
    told to give.
    """
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "home").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        lower = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), address)
        nowhere = lower | {name.upper(): value for name, value in lower.items()}
        nowhere |= {"HOME": str(tmp_path / "home"), "TFDS_DATA_DIR": str(tmp_path / "prepared")}
        kept = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"}

        def answer(text):
            connection, _ = proxy.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(text)

        def run(*arguments, proxy_says: bytes = b""):
            if proxy_says:
                threading.Thread(target=answer, args=[proxy_says], daemon=True).start()
            return script(*arguments, cwd=tmp_path, env=kept | nowhere)

        yield run


def check_says_the_ways_out(line):
    assert line.count("\n") == 1
    for way in ("online", "TFDS_DATA_DIR", "--mnist-dir"):
        assert way in line


def test_mnist_out_of_reach_is_told_within_ten_seconds(tmp_path, out_of_reach):
    start = time.monotonic()
    done = out_of_reach("train.py", "--dataset", "mnist")
    assert time.monotonic() - start < 10
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("train.py: error: MNIST is neither cached nor prepared in ")
    check_says_the_ways_out(done.stderr)
    assert not {"cache", "prepared", "results"} & {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("says", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"no HTTP\r\n\r\n"])
def test_proxy_without_passage(out_of_reach, says):
    done = out_of_reach("train.py", "--dataset", "mnist", proxy_says=says)
    assert (done.returncode, done.stdout) == (2, "")
    check_says_the_ways_out(done.stderr)


def test_auto_takes_digits_where_mnist_is_out_of_reach(out_of_reach):
    code = "import data; data.PROBE_SECONDS = 0.5; print(data.load().name)"
    done = out_of_reach("-c", code)
    assert (done.returncode, done.stdout) == (0, "digits-0-1\n")
    assert done.stderr.startswith("NOTICE: using the 8x8 digits of scikit-learn. ")
    check_says_the_ways_out(done.stderr)


def test_mnist_dir_without_its_files_is_no_reason_for_digits(tmp_path, out_of_reach):
    done = out_of_reach("train.py", "--mnist-dir", tmp_path / "home")
    assert (done.returncode, done.stdout) == (2, "")
    assert "lacks train-images-idx3-ubyte.gz" in done.stderr
    assert done.stderr.count("\n") == 1
