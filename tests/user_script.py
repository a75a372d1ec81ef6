"""What a user may write: every public name, with the types that mypy is to find in the results.

test_types.py runs it, and mypy on it.
"""
# mypy: disallow-untyped-calls, disallow-untyped-defs, disallow-any-generics, warn-return-any

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas
from sklearn.model_selection import cross_val_score

import advlinear

SAMPLES, LABELS = np.array([[0.0], [1.0], [1.0], [2.0]]), np.array([0, 1, 0, 1])


def nearest(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Adversarial examples, and what else an attack finds."""
    found: advlinear.Found = advlinear.attack(([1.0, -2.0], 0.0), X, y, norm="inf", box=(-9, 9))
    radii: np.ndarray = found.radii
    rivals: np.ndarray = found.rival
    ties: np.ndarray = found.tied
    assert radii.tolist() == [1, 2]
    assert rivals.tolist() == [0, 1]
    assert not ties.any()
    accuracy: float = found.curve([0.5, 1.5]).min()
    assert accuracy == 0.5
    moved: np.ndarray = found.perturbed()
    half: np.ndarray = found.perturbed(eps=0.5)
    whole: np.ndarray = found.perturbed(step=0.25)
    assert moved.shape == half.shape == whole.shape == X.shape
    comparison: advlinear.Comparison = found.compare(moved)
    both: np.ndarray = comparison.adversarial & comparison.inside
    excess: np.ndarray = comparison.size / radii - 1
    assert both.all()
    assert (excess == comparison.excess).all()
    return moved


def in_a_frame(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The form of X comes back: here a DataFrame, whose columns are units of their own."""
    scale = pandas.Series({"b": 2.0, "a": 1.0})
    found = advlinear.attack(lambda X: X.to_numpy() @ [1.0, -2.0], frame, [1, 0], scale=scale)
    moved: pandas.DataFrame = found.perturbed()
    return moved


def to_a_target(W: np.ndarray, b: np.ndarray, X: np.ndarray) -> float:
    found = advlinear.attack((W, b), X, None, norm=2, target=1, n_jobs=None)
    return float(np.median(found.radii))


def least_loss(lines: list[str]) -> tuple[advlinear.Minimum, dict[str, float]]:
    """The minimum, what it proves, and the same proof from its weights and alpha alone."""
    best: advlinear.Minimum = advlinear.minimise(
        SAMPLES, LABELS, 0.25, norm=np.inf, sample_weight=np.ones(4), report=lines.append
    )
    upper: float = best.primal
    lower: float = best.dual
    assert upper - lower <= best.gap
    proof: dict[str, float] = advlinear.certificate(
        SAMPLES, LABELS, best.w, best.b, best.alpha, best.eps, exact=True
    )
    assert advlinear.attack(best, SAMPLES, LABELS).curve(0.1) == 0.5
    return best, proof


def every_radius() -> np.ndarray:
    path: advlinear.Path = advlinear.path(SAMPLES, LABELS, 0.1, 0.6)
    best: advlinear.Best = path.at(0.25)
    w, b, eps, primal, dual = best
    weights: np.ndarray = w
    numbers: tuple[float, ...] = (b, eps, primal, dual)
    assert len(weights) == 1
    assert len(numbers) == 4
    upper, lower = path.bounds([0.2, 0.3])
    gaps: np.ndarray = upper - lower
    return gaps


def in_scikit_learn() -> float:
    classifier = advlinear.RobustClassifier(eps=0.25, class_weight="balanced")
    fitted: advlinear.RobustClassifier = classifier.fit(SAMPLES, LABELS)
    proofs: list[advlinear.Minimum] = fitted.certificate_
    labels: np.ndarray = fitted.predict(SAMPLES)
    assert len(proofs) == 1
    assert len(labels) == len(fitted.decision_function(SAMPLES))
    scorer: Callable[[Any, Any, Any], float] = advlinear.robust_accuracy(eps=0.1, box=(0, 2))
    many: np.ndarray = cross_val_score(
        classifier, np.tile(SAMPLES, (5, 1)), np.tile(LABELS, 5), scoring=scorer
    )
    assert (many == 0.5).all()
    return scorer(fitted, SAMPLES, LABELS)


def pictures() -> float:
    """The curve of an attack, one more in its axes, and a path; and what was drawn."""
    model = [1.0, -2.0], 0.0
    curve: advlinear.RobustnessDisplay = advlinear.RobustnessDisplay.from_estimator(
        model, np.array([[3.0, 0.0], [0.0, 3.0]]), [1, 0], norm=2, box=(0, 3), color="black"
    )
    found = advlinear.attack(model, np.array([[3.0, 0.0], [0.0, 3.0]]), [1, 0], norm=2)
    advlinear.RobustnessDisplay(found, name="no box").plot(curve.ax_)
    path = advlinear.path(SAMPLES, LABELS, 0.1, 0.6)
    display = advlinear.PathDisplay.from_path(path, coefficients=True, feature_names=["x"])
    assert len(display.axes_) == 3
    assert curve.ax_.figure is curve.figure_
    return curve.median


def main() -> None:
    version: str = advlinear.__version__
    names: list[str] = [*advlinear.__all__, version]
    X = np.array([[3.0, 0.0], [0.0, 3.0]])
    np.testing.assert_allclose(nearest(X, np.array([1, 0])), [[2, 1], [2, 1]], atol=1e-5)
    moved = in_a_frame(pandas.DataFrame(X, columns=["a", "b"]))
    assert list(moved.columns) == ["a", "b"]
    radius = to_a_target(np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2), X)
    lines: list[str] = []
    best, proof = least_loss(lines)
    print(len(names), round(radius, 3), round(best.primal, 6), round(proof["dual"], 6))
    print(bool(lines), every_radius().max() < 1e-4, in_scikit_learn())
    print(round(pictures(), 3))


if __name__ == "__main__":
    main()
