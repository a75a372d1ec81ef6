"""Which solver takes a problem of several classes."""

from __future__ import annotations

from collections.abc import Callable

from advlinear.minima.joint import direct, generation
from advlinear.minima.program import unit_ranges
from advlinear.samples import JointProblem

MOST_WEIGHTS = 1000  # K (d + 1) where all weights, or all options, are solved for at once


def takes(n_classes: int, d: int, norm: str, loss: str, eps: float) -> bool:
    """Whether so many classes and features d are not too many, for this norm, loss and eps."""
    return ((norm, loss) == ("inf", "hinge") and eps > 0) or n_classes * (d + 1) <= MOST_WEIGHTS


def solve(problem: JointProblem, tol: float, report: Callable[[str], object] | None) -> tuple:
    """W (K, d), b (K,), alpha (n, K), a flow or None, and what the certificate says of them.

    Raises:
        ValueError: there are too many classes and features for this norm, loss or eps.
    """
    eps = unit_ranges(problem.x, problem.eps)[-1]
    K, d = len(problem.classes), problem.x.shape[1]
    if not takes(K, d, problem.norm, problem.loss, eps):
        raise ValueError(
            f"{K} classes of {d:,} features: K (d + 1) above {MOST_WEIGHTS:,} needs the hinge in "
            "the L-infinity ball with eps above 0: choose this, or fewer features"
        )
    by_columns = problem.norm == "inf" and eps > 0
    return (generation if by_columns else direct).solve(problem, tol, report)
