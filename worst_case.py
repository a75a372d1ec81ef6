"""The worst case of one trained model f(x) = w.x + b, in NumPy: the twin of losses.py.

A perturbation delta lies in a ball, ||delta||_p <= eps for p = inf, 2 or 1. With the box, x + delta
also stays in [0, 1], as pixels do. The margin of a sample is m = y f(x), and delta changes it by
y w.delta. Without the box the worst one lowers m by eps times the dual norm of w:

    delta = -y eps sign(w),    m - eps ||w||_1,    r = m / ||w||_1    in the L-infinity ball.

With the box each pixel has its own slack, and the package advlinear solves the problem.
Shapes: x (n, d), y (n,), w (d,); all in float64. `margins` takes several classes, too.
Of the losses, only those of `recipes.SOLVED` have a twin here, which optimum.py calls by their
name.
"""

import numpy as np

from advlinear.balls import distance, step

DUAL = {"inf": 1, "2": 2, "1": np.inf}  # ball -> order of its dual norm, that of w
BALL = {"inf": np.inf, "2": 2, "1": 1}  # ball -> order of the norm of delta
PIXELS = (0.0, 1.0)


def dual_norm(w: np.ndarray, norm: str = "inf") -> float:
    """By how much a margin falls per unit of radius: ||w||_1, ||w||_2, ||w||_inf for inf, 2, 1."""
    _require_ball(norm)
    return float(np.linalg.norm(w, DUAL[norm]))


def _require_ball(norm: str) -> None:
    if norm not in DUAL:
        raise ValueError(f"norm must be inf, 2 or 1, not {norm!r}")


def perturbation(x, y, w, eps: float, norm: str = "inf", box: bool = False) -> np.ndarray:
    """The delta (n, d) in the ball of radius eps, and in the box if asked, that lowers m most.

    Without the box: -y eps sign(w) for L-infinity (article, "in our linear case"),
    -y eps w / ||w||_2 for L2, and for L1 -y eps sign(w_k) on the pixel k of largest |w_k|.
    """
    _require_ball(norm)
    if norm == "inf" and not box:
        return -y[:, None] * eps * np.sign(w)
    delta = np.empty(x.shape)
    for label in (-1, 1):
        rows = y == label
        sizes = np.full(np.count_nonzero(rows), float(eps))
        delta[rows] = step(label * w, x[rows], sizes, norm, PIXELS if box else None)
    return delta


def check(x, delta, eps: float, norm: str = "inf", box: bool = False) -> None:
    """Raise ValueError unless delta is finite, in the ball and, if asked, in the box, to 1e-9."""
    if not np.isfinite(delta).all():
        raise ValueError("the perturbation is not finite")
    largest = np.linalg.norm(delta, BALL[norm], axis=1).max(initial=0.0)
    if largest > eps + 1e-9:
        raise ValueError(f"a perturbation of size {largest} leaves the ball of radius {eps}")
    if box and not ((x + delta >= -1e-9) & (x + delta <= 1 + 1e-9)).all():
        raise ValueError("a perturbed pixel leaves [0, 1]")


def margins(x, y, w, b: float, eps: float = 0.0, norm: str = "inf", box: bool = False):
    """The smallest margins (n,) within the ball of radius eps: m - eps ||w||_dual, or in the box.

    Their `hinge` is the robust hinge. For weights (K, d) and b (K,), labels are 0 to K - 1, and a
    sample has a margin over each other class k, f_y(x) - f_k(x), which falls by eps ||w_y - w_k||.
    The smallest of these is returned (without a box).
    """
    if np.ndim(w) == 2:
        return _margins_over_classes(x, y.astype(np.int64), w, b, eps, norm)
    clean = y * (x @ w + b)
    if box:
        return clean + y * (perturbation(x, y, w, eps, norm, box) @ w)
    return clean - eps * dual_norm(w, norm)


def _margins_over_classes(x, y, w, b, eps: float, norm: str) -> np.ndarray:
    own, scores = np.arange(len(y)), x @ w.T + b
    falls = np.array([[eps * dual_norm(one - other, norm) for other in w] for one in w])
    margins = scores[own, y][:, None] - scores - falls[y]
    margins[own, y] = np.inf
    return margins.min(axis=1)


def sparsest(w: np.ndarray) -> np.ndarray:
    """Weights (K, d) with as many zeros as possible that give the same margins; others as they are.

    A vector added to the weights of all classes changes no margin. So each feature loses the weight
    that most classes have there.
    """
    if w.ndim == 1:
        return w
    same = (w[:, None] == w).sum(axis=1)  # (K, d): how many classes have this weight
    return w - np.take_along_axis(w, same.argmax(axis=0)[None], axis=0)


def hinge(margins: np.ndarray) -> np.ndarray:
    """max(0, 1 - m) of each sample (article, "Regular Binary Classification")."""
    return np.maximum(0, 1 - margins)


def logistic(margins: np.ndarray) -> np.ndarray:
    """log(1 + exp(-m)) of each sample."""
    return np.logaddexp(0, -margins)


def signed_radii(x, y, w, b: float, norm: str = "inf", box: bool = False) -> np.ndarray:
    """The smallest eps (n,) that flips each sample: it stays correct at exactly the radii below.

    Without the box r = m / ||w||_dual, which is <= 0 for a sample that is wrong from the start.
    With the box such a sample has r = 0, and one that nothing flips r = inf.
    """
    _require_ball(norm)
    m, radii = y * (x @ w + b), np.empty(len(y))
    if not box:
        return distance(m, w, x, norm)
    for label in (-1, 1):
        rows = y == label
        radii[rows] = distance(m[rows], label * w, x[rows], norm, PIXELS)
    return radii


def withstand(radii: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """How many samples withstand each radius: #{r > eps}, by one sort. Shapes (n,), (k,)."""
    return len(radii) - np.searchsorted(np.sort(radii), eps, side="right")


def accuracy(radii: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """The share (k,) of samples that withstand each radius."""
    return withstand(radii, eps) / len(radii)


def ranks(radii: np.ndarray) -> np.ndarray:
    """The place (n,) of each radius in ascending order, from 0; equal ones in the order given."""
    return np.argsort(np.argsort(radii, kind="stable"))
