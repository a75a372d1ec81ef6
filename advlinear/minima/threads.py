"""Linear algebra on one thread.

Most products of matrices here take microseconds, in which a second thread costs more than it
brings: twice the CPU time on a quiet machine, and up to thirty times the time where another process
runs, as the threads wait for each other (docs/benchmarks.md, "One thread and two").
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any


def one() -> contextlib.AbstractContextManager[Any]:
    """Within it BLAS has one thread; then the caller's number comes back."""
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _controller() -> Any:
    import scipy.linalg  # noqa: F401  it brings a BLAS of its own, which is then found, too
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()
