"""The least robust loss of a linear model, and the dual solution that proves it.

certificate.py states the problem, its dual, and what both bounds prove; program.py finds w, b and
alpha. Those of more than two classes are in joint/.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear import chunks, samples
from advlinear.balls import shown
from advlinear.minima import certificate, program, roads, threads
from advlinear.minima.joint import solver as joint

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

LARGEST_GAP = 1e-6


@dataclass(frozen=True, repr=False, eq=False)
class Minimum:
    """The least robust loss and what proves it; see `minimise`.

    Attributes:
        w, b: weights (d,) and bias of the best model; for K > 2 classes (K, d) and (K,).
        eps, norm, loss, box, budget: of the problem.
        primal: the robust loss of (w, b), an upper bound of the minimum.
        dual: a lower bound.
        gap: the duality gap, (primal - dual) / max(primal, s), with s the smallest share of a
            sample in the mean that is not 0: 1 / n without weights.
        violation: 0 where the lower bound is one for all weights; see `certificate`.
        alpha: (n,) the dual solution; for K > 2 classes (n, K), 0 for the own class of a sample.
            Of a dask array X a dask array with its chunks.
        classes: (2,) the labels that stand for -1 and +1; or (K,) those of the rows of w.
        names: (d,) the names of the features, the columns of a DataFrame X; None without names.
        flow: for K > 2 classes in the L2 and L1 balls, and at eps = 0, (K, K, d), a part of the
            dual solution, which `certificate` needs in the L2 and L1 balls; else None.
        W: w as a matrix: (K, d), or (1, d) for two classes, as coef_ of scikit-learn.

    Example, of samples without an order by class: the best w is 1 / (1 - eps), the loss w / 2.

        >>> import advlinear
        >>> best = advlinear.minimise([[0], [1], [1], [2]], [0, 1, 0, 1], eps=0.2)
        >>> round(best.primal, 6), round(best.dual, 6)
        (0.625, 0.625)
        >>> best.w.round(6), round(best.b, 6)
        (array([1.25]), -1.25)
    """

    w: np.ndarray
    b: Any
    eps: float
    norm: str
    loss: str
    box: tuple | None
    primal: float
    dual: float
    gap: float
    violation: float
    alpha: np.ndarray
    classes: np.ndarray
    names: Any = None
    flow: np.ndarray | None = None
    budget: str = "each"

    @property
    def W(self) -> np.ndarray:
        return np.atleast_2d(self.w)

    def __repr__(self) -> str:
        several = f"{len(self.classes)} classes, " * (len(self.classes) > 2)
        of_mean = " of the mean" * (self.budget == "mean")
        return (
            f"Minimum({several}{self.loss}, eps={self.eps:g}{of_mean}, norm "
            f"{self.norm}, {'with' if self.box else 'no'} box: primal={self.primal:.9g}, "
            f"gap={self.gap:.1e}, "
            f"{np.count_nonzero(self.w)} of {self.w.size} weights other than 0)"
        )


def minimise(
    X: ArrayLike,
    y: ArrayLike,
    eps: float,
    norm: str | float = "inf",
    loss: str = "hinge",
    box: tuple | None = None,
    sample_weight: ArrayLike | None = None,
    tol: float = LARGEST_GAP,
    report: Callable[[str], object] | None = None,
    budget: str = "each",
    fit_intercept: bool = True,
) -> Minimum:
    """The minimum of the robust loss, and the dual solution that proves it.

    With the hinge in the L-infinity ball unused weights are exactly 0.0, except where the least
    loss is 0. Where several (w, b) are optimal, it is one of them.

    K > 2 classes are trained together, with the worst-case margins m_k of a sample over each other
    class k. The hinge is that of Crammer and Singer, max(0, max_k 1 - m_k), which is exactly the
    largest in the ball. The logistic loss is log(1 + sum_k exp(-m_k)), an upper bound of the
    largest cross-entropy in the ball, at most log(K - 1) above it. See docs/theory.md, "Several
    classes". One vector may be added to the weights of all classes without a change. So in the
    L-infinity ball, with eps > 0, the most common weight of each feature is made 0.

    Args:
        X: samples (n, d), real numbers; of a DataFrame every column needs to be of numbers. In the
            L-infinity and the L2 ball a SciPy sparse X stays sparse, with eps > 0 and without a
            box; else it is made an array of at most 5e7 numbers. An array of more than 2e7 numbers,
            an np.memmap, and a dask array are read block by block, several times, and not copied:
            they may be larger than the memory. A dask array is read by its workers, chunk by chunk
            of rows; call X.persist() if it fits their memory.
        y: labels (n,) of 2 to 16 values, by place and not by index; of two the lower counts as -1.
            With more than two, the hinge in the L-infinity ball with eps > 0 takes any number d of
            features, and all else K (d + 1) <= 1000.
        eps: radius of the ball, in the units of X. 0 is the loss without an attack.
        norm: of the ball: "inf", "2" or "1", or np.inf, 2 or 1.
        loss: "hinge" or "logistic".
        box: None, or for the L-infinity ball (low, high) that perturbed samples stay in, numbers
            or one per feature (d,). Where X is a DataFrame, a Series goes by its column names.
            For two classes alone.
        sample_weight: (n,) at least 0, of which only the ratios matter.
        tol: the largest duality gap of the certificate, above 0 and below 1.
        report: called with a line of text after each step.
        budget: "each": every sample moves by at most eps. "mean": the mean of how far all samples
            move, by sample_weight, is at most eps. Then the loss is the mean loss without an attack
            plus eps times the dual norm of w, the 1-norm where the ball is that of L-infinity. For
            two classes, without a box.
        fit_intercept: whether there is a bias; if not, b is 0. False takes two classes without a
            box, and copies X twice.

    Returns:
        A `Minimum`: the weights `w` and `b`, the bounds `primal` and `dual`, their `gap`, the dual
        solution `alpha` that proves the lower one, `violation`, which is 0 where it holds for all
        weights, and `classes`, the labels.

    Raises:
        ValueError: an argument is not as described, the problem is too large, or no certificate
            with such a gap is reached.

    Example, of two samples that are further apart than 2 eps, so that the least loss is 0:

        >>> import advlinear
        >>> best = advlinear.minimise([[0.0], [1.0]], ["no", "yes"], eps=0.1)
        >>> best.primal, best.gap, best.classes.tolist()
        (0.0, 0.0, ['no', 'yes'])

    And of three classes, the corners of a triangle:

        >>> best = advlinear.minimise([[0, 0], [1, 0], [0, 1]], ["a", "b", "c"], eps=0.25)
        >>> best.W.shape, best.b.shape, best.alpha.shape, best.primal, best.violation
        ((3, 2), (3,), (3, 3), 0.0, 0.0)
    """
    problem = samples.problem(X, y, eps, norm, loss, box, sample_weight, budget, fit_intercept)
    if not samples.is_number(tol) or not 0 < tol < 1:
        raise ValueError(f"tol must be above 0 and below 1, not {shown(tol)}")
    flow = None
    with threads.one():
        if isinstance(problem, samples.Problem):
            w, b, alpha, proof = roads.solve(problem, tol, report)
            if problem.mirrored:  # the best bias is 0, and the best alpha the same for both halves
                b, alpha = 0.0, np.add(*np.split(alpha, 2))
                proof = certificate.bounds(problem, w, b, problem.of_all(alpha))
        else:
            w, b, alpha, flow, proof = joint.solve(problem, tol, report)
    if not -1e-12 <= proof["gap"] <= tol:
        raise ValueError(
            f"no certificate: the duality gap is {proof['gap']:.1e}, above tol {tol:g}: "
            + program.advice(problem)
        )
    x: Any = problem.x
    if chunks.is_chunked(x):
        parts = x.chunks[0][: len(x.chunks[0]) * len(alpha) // len(problem.y)]
        alpha = sys.modules["dask.array"].from_array(alpha, chunks=(parts,))
    named, _ = samples.names(X)
    return Minimum(
        w,
        b,
        eps=problem.eps,
        norm=problem.norm,
        loss=problem.loss,
        box=problem.box,
        **proof,
        alpha=alpha,
        classes=problem.classes,
        names=named,
        flow=flow,
        budget=problem.budget,
    )
