"""Exact robustness of linear models: the smallest perturbations, and the certified best weights.

    import advlinear

    found = advlinear.attack(model, X, y, norm="inf", box=(0, 1))   # any linear model, any classes
    found.radii                   # (n,) the smallest perturbation that makes each sample wrong
    found.curve([0, 0.1, 0.2])    # accuracy under the worst perturbation of at most each size

    best = advlinear.minimise(X, y, eps=0.1)    # two classes: the least possible robust hinge
    best.w, best.b, best.primal, best.dual      # its weights, and both bounds that prove it

    path = advlinear.path(X, y, 0.05, 0.5)      # the same at every radius from 0.05 to 0.5
    path.at(0.1).w                              # any of its models

docs/method.md of the repository says what counts as a model, what is promised, and why it holds.
"""

from advlinear.attack import Found, attack
from advlinear.minimum import Minimum, certificate, minimise
from advlinear.path import Best, Path, path
from advlinear.worst_case import (
    ORDER,
    check_perturbation,
    dual_norm,
    hinge,
    perturbation,
    ranks,
    robust_correct,
    sample_radii,
    worst_case_margins,
)

__all__ = [
    "ORDER",
    "Best",
    "Found",
    "Minimum",
    "Path",
    "attack",
    "certificate",
    "check_perturbation",
    "dual_norm",
    "hinge",
    "minimise",
    "path",
    "perturbation",
    "ranks",
    "robust_correct",
    "sample_radii",
    "worst_case_margins",
]
