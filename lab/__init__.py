"""What serves the scripts and is no experiment: command lines, files of results, MNIST's images.

A script imports this first. From then on a library that is not installed ends the script with one
line in place of Python's traceback. A standard stream that was closed (`2>&-`) leads nowhere.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def missing_library(name: str) -> str:
    """What to type where a library is not installed, in one line."""
    if sys.version_info >= (3, 14):
        return (
            f"{name} is not installed, and TensorFlow has no wheel for Python 3.14: install Python "
            "3.13, then type python3.13 -m venv .venv && "
            ".venv/bin/pip install -r requirements.txt"
        )
    return (
        f"{name} is not installed in this Python ({sys.executable}): type python3 -m venv .venv && "
        ".venv/bin/pip install -r requirements.txt, then .venv/bin/python in place of python"
    )


def _end_in_one_line(kind, error, traceback):
    if not issubclass(kind, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, traceback)
    script = Path(sys.argv[0]).name
    print(f"{script}: error: {missing_library(error.name)}", file=sys.stderr, flush=True)
    sys.exit(2)


def _open_standard_streams() -> None:
    """Let those that are closed, which Python has as None, lead nowhere.

    Each gets its old number, the lowest that is free. Else the next file opened would get it, and
    with it what libraries in C print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open to the end)


_script = getattr(sys.modules["__main__"], "__file__", None)
if _script and Path(_script).resolve().parent == ROOT:  # not in a notebook or a test
    _open_standard_streams()
    sys.excepthook = _end_in_one_line
