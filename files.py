"""Files and folders that are written whole or not at all, and read with suspicion."""

import contextlib
import csv
import shutil
import tempfile
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cli import InputError

# What NumPy raises on an npz file that is cut short, altered, or no npz file.
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


@contextlib.contextmanager
def whole_folder(place: Path):
    """A new folder to fill, renamed to `place` at the end; on any failure all stays as it was.

    Raises:
        InputError: the folder cannot be written.
    """
    new = old = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
        yield new
        new.chmod(place.parent.stat().st_mode & 0o777)  # mkdtemp's own is for one user only
        if place.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent)) / "old"
            place.rename(old)
        new.rename(place)
    except OSError as error:
        raise InputError(f"cannot write {place}: {error.strerror or error}") from None
    finally:
        if old and old.exists() and not place.exists():
            old.rename(place)
        for folder in (new, old and old.parent):
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: Path):
    """A path to write, renamed to `path` at the end; on any failure `path` stays as it was."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
            yield Path(folder) / path.name
            (Path(folder) / path.name).replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def check_writable(results: Path) -> None:
    """Raise InputError at once where a run could not be written at the end. Leaves no trace."""
    existing = results
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=existing):
            pass
    except OSError as error:
        raise InputError(f"cannot write to --results {results}: {error.strerror}") from None


def write_csv(path: Path, columns: dict) -> None:
    """Columns of equal length; floats with nine digits, enough for every float32."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(f"{v:.9g}" if isinstance(v, float | np.floating) else v for v in row)


def read_csv(path: Path, text: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Columns of a csv written by `write_csv`: strings for those in `text`, else finite floats.

    Raises:
        InputError: the file is missing, has no header, is ragged, or a number is none.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
        if any(len(row) != len(header) for row in rows) or len(columns) != len(header):
            raise ValueError("its rows and its header differ")
        for name, column in columns.items():
            columns[name] = np.array(column, dtype=str if name in text else np.float64)
            if name not in text and not np.isfinite(columns[name]).all():
                raise ValueError(f"{name} holds a number that is not finite")
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error})") from None
    return columns


def read_npz(path: Path, names: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Arrays of an npz, all of them numbers and none NaN; never unpickles.

    Raises:
        InputError: the file is missing, damaged, lacks one of `names`, or holds anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({type(error).__name__}: {reason})") from None
    if missing := [name for name in names if name not in arrays]:
        raise InputError(f"{path} lacks {', '.join(missing)}")
    for name, array in arrays.items():
        numbers = isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
        if not numbers or np.isnan(array).any():
            raise InputError(f"{path}: {name} holds something that is no number")
    return arrays
