"""Which pictures are those that would be drawn again: of the same numbers, by the same code.

A folder of pictures has a file .drawn.json. For each picture it holds the digest of what it was
made from, and that of its bytes. Who deletes it has all pictures drawn again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from pathlib import Path

from lab import store
from lab.cli import ROOT

CODE = ("*.py", "figures/*", "lab/*.py", "advlinear/**/*.py")
LIBRARIES = ("matplotlib", "numpy", "pillow")


class Drawn:
    """The pictures below a folder, and what they were made from."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / ".drawn.json"
        try:
            self._known = dict(json.loads(self.file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):  # there is none, or it is damaged: all is drawn
            self._known = {}

    def holds(self, picture: Path, source: str) -> bool:
        """Whether the picture is there as it was made from this source."""
        known = self._known.get(self._name(picture))
        return picture.is_file() and known == [source, _digest(picture.read_bytes())]

    def add(self, picture: Path, source: str, content: bytes) -> None:
        self._known[self._name(picture)] = [source, _digest(content)]

    def save(self) -> None:
        store.write(self.file, json.dumps(self._known, indent=0).encode())

    def _name(self, picture: Path) -> str:
        return picture.relative_to(self.folder).as_posix()


def source(function, given: tuple, *how) -> str:
    """The digest of a picture's function and what it is given, of all code, and of libraries."""
    import joblib  # whose hash of equal arrays and objects is equal

    name = f"{function.__module__}.{function.__name__}"
    return str(joblib.hash((_code(), name, given, how)))


@functools.cache
def _code() -> str:
    files = sorted(path for pattern in CODE for path in ROOT.glob(pattern) if path.is_file())
    versions = [importlib.metadata.version(name) for name in LIBRARIES]
    return _digest(b"".join(path.read_bytes() for path in files) + " ".join(versions).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
