"""A result is a file: how one is written, read back, and found to be damaged.

    results/<dataset>/<folder>/.../<name>.npz

Each file holds arrays, and `facts`, a JSON text. It is written under another name and renamed, so
that a reader finds the old file or the new one. The SHA-256 of all that it holds must be the one
that was written with it, and its place the one that it was written for. What a file is about is
the business of the module that saves it (runs.py). docs/reference.md lists all files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shlex
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab.cli import RESULTS, InputError, ResultsWarning

import numpy as np

Table = dict[str, np.ndarray]  # arrays by name; columns, if all have one dimension


class Unsound(InputError):
    """A file that is damaged or stale. The message says what to do."""


class Missing(InputError):
    """What a figure or study needs and the results do not hold; the message says how to get it."""


# --- places --------------------------------------------------------------------------------------


def file(dataset: Path, *parts: str) -> Path:
    *folders, name = parts
    return dataset.joinpath(*folders, f"{name}.npz")


def place(path: Path) -> tuple[str, ...]:
    """Where a file lies below the folder of all results, such as mnist-0-1, runs, regular."""
    depth = 4 if path.parent.parent.name == "attacks" else 3
    return (*path.absolute().parts[-depth:-1], path.name.removesuffix(".npz"))


def again(command: str, path: Path) -> str:
    """The command that makes this file, with the folder of all results if it is not the usual."""
    results = path.parents[len(place(path)) - 1]
    if results.resolve() == RESULTS or not command.startswith("python"):
        return command
    return f"{command} --results {shlex.quote(str(results))}"


def datasets(results: Path) -> list[Path]:
    """The folders of the data sets that have runs."""
    return [folder for folder in folders(results) if (folder / "runs").is_dir()]


def folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*") if path.is_dir())


def files(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("*.npz") if not path.name.startswith("."))
    return sorted(found, key=lambda path: path.name.removesuffix(".npz"))


def names(folder: Path) -> list[str]:
    """The names of the files in a folder, such as runs/, sound or not."""
    return [place(path)[-1] for path in files(folder)]


# --- files ---------------------------------------------------------------------------------------


def write(path: Path, content: bytes) -> None:
    """Put a file in place whole: a reader finds the old content or the new.

    Raises:
        InputError: the file cannot be written.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}.new")  # of this process alone
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def to_npz(arrays: dict) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def from_npz(path: Path) -> Table:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def save(path: Path, command: str, facts: dict, arrays: dict) -> Path:
    """Write the facts and arrays that this command makes; returns the path.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    if objects := [name for name, values in arrays.items() if values.dtype.hasobject]:
        raise TypeError(f"{objects[0]} holds Python objects: give numbers or text alone")
    facts = dict(place="/".join(place(path)), command=command) | facts
    facts["sha256"] = _sha256(facts, arrays)
    write(path, to_npz(dict(facts=json.dumps(facts)) | arrays))
    return path


@contextlib.contextmanager
def loaded(path: Path, command: str) -> Iterator[tuple[dict, Table]]:
    """The facts and arrays of a file, for a block that makes an object of them.

    Raises:
        Unsound: the file is damaged, or the block cannot use it. NumPy and zipfile have many types
            of errors for that. The message ends with the command that makes the file again.
    """
    try:
        arrays = from_npz(path)
        facts = json.loads(arrays.pop("facts").item())
        if facts.pop("sha256") != _sha256(facts, arrays):
            raise ValueError("it does not hold what was written")
        if facts["place"] != "/".join(place(path)):
            raise ValueError(f"it was written as {facts['place']}")
        yield facts, arrays
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise Unsound(f"{path} is damaged ({reason}): run {command}") from None


def sound(load, *arguments):
    """What `load` returns, or None and a warning where a file is damaged or stale."""
    try:
        return load(*arguments)
    except Unsound as error:
        warnings.warn(str(error), ResultsWarning, stacklevel=3)


def _sha256(facts: dict, arrays: Table) -> str:
    """Of the facts and arrays, in any order."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


# --- tables --------------------------------------------------------------------------------------


def columns(rows: list[dict], names: Iterable[str] = ()) -> dict[str, list]:
    """Rows, each a dict, as columns; `names` is needed where there may be no row."""
    return {name: [row[name] for row in rows] for name in names or rows[0]}


def flat(tables: dict[str, dict]) -> dict:
    """Tables of arrays as single arrays, named TABLE_NAME."""
    return {f"{table}_{name}": values for table in tables for name, values in tables[table].items()}


def take_table(arrays: Table, name: str) -> Table:
    """The reverse of `flat` for one table; takes its arrays out of `arrays`."""
    found = [key for key in arrays if key.startswith(f"{name}_")]
    return {key.removeprefix(f"{name}_"): arrays.pop(key) for key in found}
