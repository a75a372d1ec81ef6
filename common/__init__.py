"""What the scripts share; no experiment in here.

A script imports this before NumPy and TensorFlow. From then on Ctrl-C, or a library that is not
installed, ends the script with one line in place of Python's traceback. A standard stream that was
closed (`2>&-`) leads nowhere.
"""

import importlib.util
import os
import signal
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


def _end(status: int, line: str):
    print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr, flush=True)
    os._exit(status)


def _end_in_one_line(kind, error, traceback):
    if not issubclass(kind, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, traceback)
    _end(2, f"error: {missing_library(error.name)}")


def _open_standard_streams() -> None:
    """Let those that are closed, which Python has as None, lead nowhere.

    Each gets its old number, the lowest that is free. Else the next file opened would get it, and
    with it what libraries in C print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (open to the end)


def _import_when_used(name: str) -> None:
    """Let `import NAME` do nothing until the library is used: --help is answered without it."""
    if name not in sys.modules and (spec := importlib.util.find_spec(name)):
        spec.loader = importlib.util.LazyLoader(spec.loader)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


_script = getattr(sys.modules["__main__"], "__file__", None)
if _script and Path(_script).resolve().parent == ROOT:  # not in a notebook or a test
    _open_standard_streams()
    sys.excepthook = _end_in_one_line
    _import_when_used("numpy")
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # until `cli.run` does it
        signal.signal(signal.SIGINT, lambda *_: _end(130, "interrupted"))
