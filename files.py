"""Files and folders that are written whole or not at all, and read with suspicion.

What is being written lies in a hidden folder, `.<name>.part`, beside its place. A process that is
killed leaves it there; the next that reads or writes beside it puts back what was moved aside, and
removes the rest, once the lock on it tells that its writer has ended. Where there are no locks, on
Windows and on some network folders, it stays, and the next writer of the same is told of it.
"""

import contextlib
import csv
import os
import shutil
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cli import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PART = ".part"

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
        InputError: the folder cannot be written, or another process is just writing it.
    """
    with _workshop(place) as workshop:
        new = workshop / "new"
        new.mkdir()
        yield new
        if place.exists():
            place.rename(workshop / "old")
        new.rename(place)


@contextlib.contextmanager
def whole_file(path: Path):
    """A path to write, renamed to `path` at the end; on any failure `path` stays as it was.

    Raises:
        InputError: the file cannot be written, or another process is just writing it.
    """
    with _workshop(path) as workshop:
        yield workshop / path.name
        (workshop / path.name).replace(path)


@contextlib.contextmanager
def _workshop(place: Path):
    """The hidden folder beside `place`, locked for this process, gone at the end."""
    workshop = place.with_name(f".{place.name}{PART}")
    with contextlib.ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(3):  # another's `recover` may come between the folder and its lock
                recover(place.parent)
                with contextlib.suppress(FileExistsError):
                    workshop.mkdir()
                    if stack.enter_context(_locked(workshop)) is not False:
                        break
            else:
                with _locked(workshop) as held:
                    ended = "" if held is False else f"; if there is none, remove {workshop}"
                raise InputError(
                    f"another process is writing {place}, so this one leaves it alone: "
                    f"wait for the other, or write elsewhere (--results){ended}"
                )
            stack.callback(_put_back, workshop)
            yield workshop
        except OSError as error:
            raise InputError(f"cannot write {place}: {error.strerror or error}") from None


@contextlib.contextmanager
def _locked(folder: Path):
    """Whether this process alone holds the folder; None where there are no locks.

    The hold ends with the block or the process.
    """
    if fcntl is None:
        yield None
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # it is gone
        yield False
        return
    try:
        yield _flock(handle) and _is(handle, folder)
    finally:
        os.close(handle)


def _flock(handle: int) -> bool | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks
        return None
    return True


def _is(handle: int, folder: Path) -> bool:
    """Whether the open folder is still the one of this name, and not an earlier one."""
    return folder.exists() and os.path.samestat(os.fstat(handle), folder.stat())


def recover(parent: Path) -> None:
    """Put back what a killed process had moved aside, and remove what it left unfinished.

    Where there are no locks, remove nothing: its writer may be at work.
    """
    for workshop in parent.glob(f".*{PART}"):
        with _locked(workshop) as held:
            if held is not False:
                _put_back(workshop, clear=held)


def _put_back(workshop: Path, clear: bool = True) -> None:
    place, old = workshop.with_name(workshop.name[1 : -len(PART)]), workshop / "old"
    with contextlib.suppress(OSError):  # a reader of read-only results can change nothing
        if old.exists() and not place.exists():
            old.rename(place)
        if clear:
            shutil.rmtree(workshop)


def check_writable(results: Path) -> None:
    """Raise InputError at once where a run could not be written at the end. Leaves no trace."""
    existing = results
    while not existing.exists():
        existing = existing.parent
    probe = existing / f".probe-{os.getpid()}{PART}"  # what `recover` removes, should it stay
    try:
        probe.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            probe.rmdir()
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
