"""Linear algebra on one thread where more of them would wait for each other.

A step on few features takes microseconds, in which a second thread costs more than it brings: twice
the CPU time on a quiet machine, and many times the time where another process runs.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

WIDE = 200  # features from which on products of matrices are faster on several threads


def one() -> contextlib.AbstractContextManager[Any]:
    """Within it BLAS has one thread; then the caller's number comes back."""
    return _controller().limit(limits=1, user_api="blas")


def suited(features: int) -> contextlib.AbstractContextManager[Any]:
    """One thread where there are few features; else as many as the caller allows."""
    return one() if features < WIDE else contextlib.nullcontext()


@functools.cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  it brings a BLAS of its own, which is then found, too
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
