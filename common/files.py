"""Csv and npz files, and folders of numbers that a reader can verify.

A json file lists the other files with the SHA-256 of each. Whoever writes removes the json first,
puts each file in place whole, and writes the json last. So a folder with its json is complete, a
folder without it is unfinished, and a reader that finds another SHA-256 knows of the damage.
"""

import csv
import hashlib
import io
import json
import os
from pathlib import Path

from common.cli import InputError

import numpy as np


class Unsound(InputError):
    """A folder of numbers that is unfinished, damaged or stale. The message says what to run."""


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


def write_numbers(index: Path, facts: dict, contents: dict[str, bytes]) -> None:
    """Write the files `contents` beside the json file `index`, then the json with the facts.

    Raises:
        InputError: a file cannot be written; then the folder is unfinished.
    """
    try:
        index.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {index}: {error.strerror or error}") from None
    for name, content in contents.items():
        write(index.with_name(name), content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    write(index, (json.dumps(facts | {"files": sums}, indent=2) + "\n").encode())


def read_numbers(index: Path, again: str) -> tuple[dict, dict[str, bytes]]:
    """The facts of a json file, and the bytes of each file that it lists, verified.

    Args:
        again: the command that makes the folder again, for the message.

    Raises:
        Unsound: the json or a file is missing, or a file is not the one that was written.
    """
    if not index.exists():
        raise Unsound(f"{index.parent} is unfinished ({index.name} is missing): run {again}")
    try:
        facts = json.loads(index.read_bytes())
        sums = facts.pop("files")
        contents = {name: index.with_name(name).read_bytes() for name in dict(sums)}
    except FileNotFoundError as error:
        raise Unsound(f"{error.filename} is missing: run {again}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise Unsound(f"{index} is damaged ({reason}): run {again}") from None
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise Unsound(
                f"{index.with_name(name)} is damaged (its SHA-256 is not that in {index.name}): "
                f"run {again}"
            )
    return facts, contents


def tables(contents: dict[str, bytes]) -> dict[str, dict[str, np.ndarray]]:
    """Each csv file as columns, by its name without the ending; each npz file as arrays."""
    return {
        name.removesuffix(".csv"): from_csv(content) if name.endswith(".csv") else from_npz(content)
        for name, content in contents.items()
    }


def columns(names, rows: list[dict]) -> dict[str, list]:
    """Rows, each a dict, as columns of these names."""
    return {name: [row[name] for row in rows] for name in names}


def to_csv(columns: dict) -> bytes:
    """Columns of equal length; floats with nine digits, enough for every float32."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(f"{v:.9g}" if isinstance(v, float | np.floating) else v for v in row)
    return text.getvalue().encode()


def from_csv(content: bytes) -> dict[str, np.ndarray]:
    """Columns as float64, or as text where one of the values is no number."""
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    values = list(zip(*rows, strict=True)) or [()] * len(header)
    table = {}
    for name, column in zip(header, values, strict=True):
        try:
            table[name] = np.array(column, np.float64)
        except ValueError:
            table[name] = np.array(column, str)
    return table


def to_npz(arrays: dict, compressed: bool = True) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def from_npz(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)
