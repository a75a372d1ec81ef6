"""Linear algebra on one thread where more of them would wait for each other."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

WIDE = 200  # features from which on products of matrices are faster on several threads


def limited(features: int) -> contextlib.AbstractContextManager[Any]:
    """Within it BLAS has one thread, if there are few features; the caller's number comes back.

    A step on few features takes microseconds, in which threads cost more than they bring: twice the
    CPU time on a quiet machine, ten times the time where another process runs.
    """
    if features >= WIDE:
        return contextlib.nullcontext()
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  it brings a BLAS of its own, which is then found, too
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
