"""Exact robustness of linear models: the smallest perturbations, and the certified best weights.

    import advlinear

    found = advlinear.attack(model, X, y, norm="inf", box=(0, 1))   # any linear model, any classes
    found.radii                   # (n,) the smallest perturbation that makes each sample wrong
    found.curve([0, 0.1, 0.2])    # accuracy under the worst perturbation of at most each size
    found.compare(points)         # how far another attack's examples are from the smallest ones

    best = advlinear.minimise(X, y, eps=0.1)    # the least possible robust hinge, 2 to 16 classes
    best.w, best.b, best.primal, best.dual      # its weights, and both bounds that prove it

    path = advlinear.path(X, y, 0.05, 0.5)      # of two classes at every radius from 0.05 to 0.5
    path.at(0.1).w                              # any of its models

    classifier = advlinear.RobustClassifier(eps=0.1)    # the minimum as a scikit-learn estimator
    scoring = advlinear.robust_accuracy(eps=0.1)        # the attack as a scorer for GridSearchCV

    advlinear.RobustnessDisplay.from_found(found)       # the curve as a picture, by Matplotlib
    advlinear.PathDisplay.from_path(path)               # the minimum and the weights in use

docs/package.md of the repository says what counts as a model and what is promised, docs/theory.md
why it holds.
"""

import importlib.util
from typing import TYPE_CHECKING

from advlinear.attacks.attack import Found, attack
from advlinear.attacks.comparison import Comparison
from advlinear.displays import PathDisplay, RobustnessDisplay
from advlinear.minima.certificate import certificate
from advlinear.minima.minimum import Minimum, minimise
from advlinear.minima.path import Best, Path, path

if TYPE_CHECKING:
    from advlinear.estimator import RobustClassifier as RobustClassifier
    from advlinear.estimator import robust_accuracy as robust_accuracy

__version__ = "1.0.0"  # pyproject.toml reads it from here

# Without what needs scikit-learn, which `from advlinear import *` must not import.
__all__ = [
    "Best",
    "Comparison",
    "Found",
    "Minimum",
    "Path",
    "PathDisplay",
    "RobustnessDisplay",
    "attack",
    "certificate",
    "minimise",
    "path",
]

_WITH_SKLEARN = ("RobustClassifier", "robust_accuracy")

if not TYPE_CHECKING:  # else a type checker would take any name for one of these

    def __getattr__(name: str):
        """Import what needs scikit-learn when it is first asked for."""
        if name not in _WITH_SKLEARN:
            raise AttributeError(f"module 'advlinear' has no attribute {name!r}")
        try:
            from advlinear import estimator
        except ImportError as error:
            if not (error.name or "").startswith("sklearn"):
                raise
            needed = "scikit-learn 1.6 or later: type pip install -U scikit-learn"
            raise ImportError(f"advlinear.{name} needs {needed}", name="sklearn") from None
        return getattr(estimator, name)

    def __dir__() -> list[str]:
        """The public names, and those that Python gives to every package."""
        found = importlib.util.find_spec("sklearn") is not None
        given = (name for name in globals() if name.startswith("__"))
        return sorted((*given, *__all__, *(_WITH_SKLEARN if found else ())))
