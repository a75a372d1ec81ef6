"""The two-digit data sets: MNIST through tensorflow-datasets, and scikit-learn's 8x8 digits.

`load` is all that other scripts need. Whatever the source, the arrays are put in one order
(the lower digit first, each digit in its source's order) and every digit's images are held
against a recorded SHA-256, so equal names mean equal bytes on every machine.
"""

import contextlib
import hashlib
import http.client
import os
import re
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import files
from cli import ROOT, InputError, import_tensorflow

CACHE = ROOT / "cache"
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
PROBE_SECONDS = 4

SHAPES = {"mnist": (28, 28, 1), "digits": (8, 8, 1)}
WHITE = {"mnist": 255, "digits": 16}  # the value of a fully lit pixel

# source -> digit -> (training images, test images, SHA-256 of both, in this order).
# MNIST's counts are those of the official label files.
# fmt: off
KNOWN = {
    "mnist": {
        0: (5923, 980, "c8707b236e87cccc1a76b8fd14259f6715cda7a92c09d08f0400a3cc18359fb7"),
        1: (6742, 1135, "4d7367f553d4826ddd3cdc224bf3b1de83edad002a9a720934eebc18dfc3f18b"),
        2: (5958, 1032, "4e2f81e81622d2a1c26fb6f3f2c388c2a83c422138d732a96a780c8823ee4cc3"),
        3: (6131, 1010, "e9b18ea9dcab0fcc1611e0aed95c81fcd71079bcc4decea313f349fc0487ec9a"),
        4: (5842, 982, "7f97ccb164b40e5fa9bb03c924d9b3c4463ba057f68def012485e70033bbc79c"),
        5: (5421, 892, "9725e10c2fbf8873b85b948212a26baa4d256204f1f7197f8dd8a1933bb8232e"),
        6: (5918, 958, "d1d691620dcd96b9cfb81de0ed68d05c255bc0471b8a97a32bfd8f32b6a8779d"),
        7: (6265, 1028, "6f650ee3aa9f91d26e9a569b6a29aab678360feb26660b042f1fbf4fe4f2e814"),
        8: (5851, 974, "f5769b84d7812f4743054cf2159207c65e28ab2de2504e54d925aba2eb39773d"),
        9: (5949, 1009, "08052aad9067d80f00bd704d826d81e5ca31770aeb6fa77624b364385c2a61b6"),
    },
    "digits": {
        0: (119, 59, "6e48ab26f77fe9b9b0aa73ea397951d7609de5414338f34d26cb22029d9b2f33"),
        1: (121, 61, "8eded24a4a1330ec3a6374947d5d8ad60dcb8053e9855bf96dff2fe48c53d45d"),
        2: (118, 59, "2e130c6ab8e9318d76f87313666f55244ff6d688291fee10d092d0ecdb53d695"),
        3: (122, 61, "5040e26ab9d2d5bdb645b691da868d57fed75ffdd602c0aed98a5da3a08665e3"),
        4: (121, 60, "04efee8f5b7920084491b52871f28ae516b59a5b577c4741ad3f328dfae5effb"),
        5: (121, 61, "0c8c75e35b7438764bdf3d9918e8038415e824be0f74a234506d2e43a59f41b7"),
        6: (121, 60, "e238615d2b45efc15bfd22dbe6b1cd270be1278a282c744cc6ef927cd0915719"),
        7: (119, 60, "0a2007441c138e232b35d5102ad3c90293816e7645b9d6a6ff96264d635c9dfd"),
        8: (116, 58, "628a593ab2eec5dc5eb4e80e0600c4ac2610d050399b7eab3fc7e4d4c88731f4"),
        9: (120, 60, "afeffe8dd328a6e2b6bc46683928aafdd18b5167d216791a6ffdf13b152b54b7"),
    },
}
# fmt: on


@dataclass(frozen=True)
class Dataset:
    """Two digits, split for training and test.

    Attributes:
        name: names the results folder, e.g. "mnist-0-1".
        source: "mnist" or "digits".
        digits: (A, B), A < B; A has the label -1 and B the label +1.
        x_train, x_test: images, float32 in [0, 1], shape (n, height, width, 1).
        y_train, y_test: labels, float32 in {-1, +1}, shape (n,).
        checksum: SHA-256 over both digits' images.
    """

    name: str
    source: str
    digits: tuple[int, int]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    checksum: str


def dataset_name(source: str, digits: tuple[int, int]) -> str:
    return f"{source}-{digits[0]}-{digits[1]}"


def load(
    source: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    cache: Path = CACHE,
) -> Dataset:
    """The data set of two digits.

    Args:
        source: "mnist", "digits" (scikit-learn's, always at hand), or "auto": MNIST where it
            can be had, else digits, with a notice on stderr.
        digits: two different digits; the order does not matter.
        mnist_dir: folder with the four official .gz files, used where MNIST is neither cached
            nor prepared by tensorflow-datasets.
        cache: folder of the cached pairs (uint8 npz).

    Raises:
        InputError: MNIST was asked for and cannot be had, or a file is not what it should be.
    """
    digits = (min(digits), max(digits))
    if digits[0] == digits[1]:
        raise InputError(f"--digits needs two different digits, not {digits[0]} twice")
    if mnist_dir is not None:
        if source == "digits":
            raise InputError("--mnist-dir goes with --dataset mnist, not with digits")
        missing = [name for name in MNIST_FILES if not (Path(mnist_dir) / name).is_file()]
        if missing:
            raise InputError(f"--mnist-dir {mnist_dir} lacks {', '.join(missing)}")
    if source == "digits":
        return _dataset("digits", digits, _bundled_digits(digits))
    try:
        return _dataset("mnist", digits, _mnist(digits, mnist_dir, cache))
    except _Unreachable as error:
        if source == "mnist":
            raise InputError(str(error)) from None
        print(f"NOTICE: using the 8x8 digits of scikit-learn. {error}", file=sys.stderr)
        return load("digits", digits)


def load_named(name: str, mnist_dir: Path | None = None, cache: Path = CACHE) -> Dataset:
    """The data set of this `Dataset.name`, as `load` would give it.

    Raises:
        InputError: the name is not one of ours, or the data cannot be had.
    """
    match = re.fullmatch(r"(mnist|digits)-(\d)-(\d)", name)
    if not match:
        raise InputError(f"{name} is no data set: folders are named like mnist-0-1")
    source, low, high = match.groups()
    return load(source, (int(low), int(high)), mnist_dir if source == "mnist" else None, cache)


class _Unreachable(Exception):
    """MNIST is not on this machine and cannot be downloaded now."""


def _dataset(source: str, digits: tuple[int, int], images: dict[str, np.ndarray]) -> Dataset:
    """Scale and label checked uint8 images, keyed as `_keys` names them."""
    arrays = {}
    for split in ("train", "test"):
        low, high = (images[f"{split}_{digit}"] for digit in digits)
        x = np.concatenate([low, high]).astype(np.float32) / np.float32(WHITE[source])
        arrays[f"x_{split}"] = x.reshape(-1, *SHAPES[source])
        arrays[f"y_{split}"] = np.repeat(np.float32([-1, 1]), [len(low), len(high)])
    checksum = hashlib.sha256("".join(KNOWN[source][d][2] for d in digits).encode()).hexdigest()
    return Dataset(dataset_name(source, digits), source, digits, **arrays, checksum=checksum)


def _keys(digits: tuple[int, int]) -> list[str]:
    return [f"{split}_{digit}" for digit in digits for split in ("train", "test")]


def digit_record(train: np.ndarray, test: np.ndarray) -> tuple[int, int, str]:
    """Counts and SHA-256 of one digit's images (uint8), as `KNOWN` holds them."""
    digest = hashlib.sha256()
    for images in (train, test):
        if images.dtype != np.uint8 or images.ndim < 2:
            return 0, 0, "no images"
        digest.update(np.ascontiguousarray(images))
    return len(train), len(test), digest.hexdigest()


def _differing(source: str, digits: tuple[int, int], images: dict[str, np.ndarray]) -> list[int]:
    """The digits whose counts or checksum are not the recorded ones."""
    return [
        d
        for d in digits
        if digit_record(images[f"train_{d}"], images[f"test_{d}"]) != KNOWN[source][d]
    ]


def _check(source: str, digits: tuple[int, int], images: dict[str, np.ndarray]) -> None:
    if wrong := _differing(source, digits, images):
        raise InputError(
            f"the {source} images of {' and '.join(map(str, wrong))} are not the known ones "
            "(count or SHA-256 differs): install the versions pinned in requirements.txt and "
            "prepare the data anew"
        )


# --- scikit-learn's digits -------------------------------------------------------------------


def _bundled_digits(digits: tuple[int, int]) -> dict[str, np.ndarray]:
    """The 1797 digits of scikit-learn, a third of each digit for the test, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    splits = train_test_split(
        images.astype(np.uint8), labels, test_size=1 / 3, stratify=labels, random_state=0
    )
    x_train, x_test, y_train, y_test = splits
    found = {}
    for d in digits:
        found[f"train_{d}"], found[f"test_{d}"] = x_train[y_train == d], x_test[y_test == d]
    _check("digits", digits, found)
    return found


# --- MNIST -----------------------------------------------------------------------------------


def _mnist(digits: tuple[int, int], mnist_dir: Path | None, cache: Path) -> dict[str, np.ndarray]:
    path = cache / f"{dataset_name('mnist', digits)}.npz"
    images = _read_cache(path, digits)
    if images is None:
        images = _read_tfds(digits, mnist_dir)
        _check("mnist", digits, images)
        _write_cache(path, images)
    return images


def _read_cache(path: Path, digits: tuple[int, int]) -> dict[str, np.ndarray] | None:
    """The cached images, or None where the file is absent or not exactly what it should be."""
    if not path.exists():
        return None
    try:
        images = files.read_npz(path, tuple(_keys(digits)))
    except InputError as error:
        print(f"NOTICE: rebuilding the cache: {error}", file=sys.stderr)
        return None
    if _differing("mnist", digits, images):
        print(f"NOTICE: rebuilding the cache: {path} has a wrong checksum", file=sys.stderr)
        return None
    return images


def _write_cache(path: Path, images: dict[str, np.ndarray]) -> None:
    try:
        with files.whole_file(path) as new:
            np.savez_compressed(new, **images)
    except InputError as error:  # a read-only checkout still works, only slower
        print(f"NOTICE: MNIST is not cached: {error}", file=sys.stderr)


def _read_tfds(digits: tuple[int, int], mnist_dir: Path | None) -> dict[str, np.ndarray]:
    """Two digits of MNIST 3.0.1, prepared first where it has to be."""
    prepared = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    ready = (prepared / "mnist/3.0.1/dataset_info.json").is_file()
    if not ready and mnist_dir is None and (why := _unreachable()):
        raise _Unreachable(
            f"MNIST is neither cached nor prepared in {prepared}, and its host cannot be reached "
            f"({why}): go online once, or point TFDS_DATA_DIR at a prepared copy, or download "
            "the four official .gz files and pass their folder with --mnist-dir"
        )
    tf = import_tensorflow()
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    builder = tfds.builder("mnist:3.0.1", data_dir=prepared)
    if not ready:
        print(f"preparing MNIST in {prepared} (once, under a minute)", flush=True)
        tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig(manual_dir=mnist_dir)
        try:
            with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(None):
                builder.download_and_prepare(download_dir=downloads, download_config=config)
        except (OSError, DownloadError, NonMatchingChecksumError) as error:
            reason = " ".join(str(error).split(":\n")[0].split())
            raise InputError(f"MNIST could not be prepared in {prepared}: {reason}") from None

    print(f"reading digits {digits[0]} and {digits[1]} of MNIST (once; then cached)", flush=True)

    def chosen(example):
        return tf.reduce_any(tf.equal(example["label"], digits))

    def decoded(example):
        return tf.io.decode_png(example["image"], channels=1), example["label"]

    images = {}
    for split in ("train", "test"):
        examples = builder.as_dataset(
            split=split, shuffle_files=False, decoders={"image": tfds.decode.SkipDecoding()}
        )
        # The filter comes first, so that only two digits in ten are decoded.
        examples = examples.filter(chosen).map(decoded).batch(70000)
        try:
            x, y = next(iter(examples.as_numpy_iterator()))
        except (tf.errors.OpError, StopIteration) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{builder.data_path} is damaged; remove it to have it prepared anew ({reason})"
            ) from None
        for digit in digits:
            images[f"{split}_{digit}"] = x[y == digit]
    return images


def _unreachable() -> str:
    """Why MNIST's host does not answer within a few seconds, or "" where it does.

    The request honours the proxy settings of the environment, and runs in a thread of its own
    since a name look-up has no time limit.
    """
    reason = [f"no answer within {PROBE_SECONDS} s"]

    def probe():
        request = urllib.request.Request(MNIST_URL + MNIST_FILES[-1], method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
            reason[0] = ""
        except urllib.error.HTTPError as error:
            reason[0] = f"HTTP status {error.code}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason[0] = " ".join(str(getattr(error, "reason", error)).split())

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return reason[0]
