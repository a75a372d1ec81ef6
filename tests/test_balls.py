"""balls.py: names of balls and dual norms. The worst cases of a pair of classes are tested by those
who use them: tests/attacks/ and tests/experiment/test_worst_case.py."""

from fractions import Fraction

import numpy as np
import pytest

from advlinear import balls


def test_the_example_in_the_docstring_of_reach():
    c, rate, target = np.array([[0.1, 0.2, 0.5]]), np.array([1.0, 2, 3]), np.array([0.8])
    assert balls.reach(c, rate, target) == pytest.approx([0.14], rel=1e-12)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("size", [1e-300, 1e-160, 1.0, 1e160, 1e300])
def test_dual_norms_neither_underflow_nor_overflow(norm, size):
    """Against rational arithmetic, to 1e-15; the square root by its square."""
    w = np.random.default_rng(0).normal(size=9) * size
    parts = [abs(Fraction(float(one))) for one in w]
    found = Fraction(balls.dual_norm(w, norm))
    exact = {"inf": sum(parts), "1": max(parts), "2": sum(one**2 for one in parts)}[norm]
    found = found**2 if norm == "2" else found
    assert abs(found / exact - 1) <= Fraction(1, 10**15)


@pytest.mark.parametrize("names", ["inf Linf linf", "2 2.0 l2", "1 1.0 L1"])
def test_names_of_balls(names):
    name, *others = names.split()
    assert {balls.ball(one) for one in (name, *others, float(name))} == {name}
    with pytest.raises(ValueError, match="norm must be inf, 2 or 1, not True"):
        balls.ball(True)
