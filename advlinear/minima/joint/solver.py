"""Which solver takes a problem of several classes."""

from __future__ import annotations

from collections.abc import Callable

from advlinear.minima.joint import direct, generation
from advlinear.minima.program import unit_ranges
from advlinear.samples import JointProblem

MOST_WEIGHTS = 1000  # K (d + 1) where all weights, or all options, are solved for at once


def solve(problem: JointProblem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """W (K, d), b (K,), alpha (n, K), a flow or None, and what the certificate says of them.

    Raises:
        ValueError: there are too many classes and features for this norm, loss or eps.
    """
    by_columns = problem.norm == "inf" and unit_ranges(problem.x, problem.eps)[-1] > 0
    K, d = len(problem.classes), problem.x.shape[1]
    if not (by_columns and problem.loss == "hinge") and K * (d + 1) > MOST_WEIGHTS:
        raise ValueError(
            f"{K} classes of {d:,} features: K (d + 1) above {MOST_WEIGHTS:,} needs the hinge in "
            "the L-infinity ball with eps above 0: choose this, or fewer features"
        )
    return (generation if by_columns else direct).solve(problem, tol, report)
