"""The exact worst case of one pair of classes: distance and step in each ball. NumPy alone.

A perturbation delta lies in a ball, ||delta||_p <= eps for p = inf, 2 or 1; with a box, x + delta
also stays in it, such as pixels in [0, 1]. The gap of a sample is its margin y f(x) or, with many
classes, the score of its class minus that of a rival. A perturbation changes the gap by a.delta,
where a is y w or w_class - w_rival, so the attacker moves each feature j against a_j. Without the
box a ball of radius eps costs eps times the dual norm of a. With the box, feature j has only room
c_j to move:

    inf   each feature moves by min(eps, c_j)
    2     each moves by min(t |a_j|, c_j), where t makes the size eps (the conditions of Karush,
          Kuhn and Tucker)
    1     the features of largest |a_j| move first (a fractional knapsack)

In each case the cost is a concave, piecewise linear function, so that a few Newton steps, or one
sort, give the smallest eps that uses up the gap. Shapes: x (n, d), y and gaps (n,), a and w (d,).
"""

from __future__ import annotations

import numpy as np

ORDER = {"inf": np.inf, "2": 2, "1": 1}  # ball -> order of the norm of delta
DUAL = {"inf": 1, "2": 2, "1": np.inf}  # ball -> order of the norm of a that it costs
ROWS = 256  # samples or features taken at a time, to save memory


def hinge(margins: np.ndarray) -> np.ndarray:
    """max(0, 1 - m) of each sample (article, "Regular Binary Classification")."""
    return np.maximum(0, 1 - margins)


def dual_norm(w: np.ndarray, norm: str = "inf") -> float:
    """What a unit of radius costs in margin: ||w||_1, ||w||_2, ||w||_inf for "inf", "2", "1".

    Raises:
        ValueError: the norm is none of the three.
    """
    if str(norm) not in DUAL:
        raise ValueError(f"norm must be inf, 2 or 1, not {norm!r}")
    return float(np.linalg.norm(w, DUAL[str(norm)]))


# --- one pair of classes -------------------------------------------------------------------------


def room(x: np.ndarray, a: np.ndarray, box: tuple = (0.0, 1.0)) -> np.ndarray:
    """c (n, d): how far each feature can move against a within the box; 0 where a_j = 0."""
    low, high = box
    return np.where(a != 0, np.where(a > 0, x - low, high - x), 0.0)


def distance(
    gap: np.ndarray, a: np.ndarray, x: np.ndarray, norm: str = "inf", box: tuple | None = None
) -> np.ndarray:
    """The smallest perturbation (n,) of each sample that brings its gap to 0.

    Without the box gap / ||a||_dual, which is <= 0 where the gap is. With the box it is 0 there,
    and inf where nothing in the box is enough.
    """
    cost = dual_norm(a, norm)
    if box is None:
        return gap / cost if cost else np.where(gap > 0, np.inf, -np.inf)
    used, radii = a != 0, np.zeros(len(gap))
    size = np.abs(a[used])
    positive = np.flatnonzero(gap > 0)
    for rows in (positive[k : k + ROWS] for k in range(0, len(positive), ROWS)):
        c, target = room(x[rows], a, box)[:, used], gap[rows]
        if norm == "inf":
            radii[rows] = reach(c, size, target)
        elif norm == "2":
            t = reach(c / size, size**2, target)
            moved = np.minimum(np.where(np.isfinite(t), t, 0)[:, None] * size, c)
            radii[rows] = np.where(np.isfinite(t), np.linalg.norm(moved, axis=1), np.inf)
        else:
            radii[rows] = knapsack(c, size, target)
    return radii


def reach(c: np.ndarray, rate: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The t (n,) at which sum_j rate_j min(t, c_j) reaches the target >= 0; inf where none does.

    The sum is concave in t. A Newton step from the left never goes too far, and each but the last
    ends on a later one of its straight pieces. About three are enough. c (n, d), rate (d,) > 0.

    An example with three features: rates 1, 2, 3 and room 0.1, 0.2, 0.5, target 0.8. The sum is 6 t
    up to t = 0.1, then 0.1 + 5 t up to 0.2, then 0.5 + 3 t. The first step goes to 0.8 / 6 = 0.133,
    on the second piece, and the next to (0.8 - 0.1) / 5 = 0.14, which is still on it: the answer.
    """
    if not len(rate):
        return np.where(target > 0, np.inf, 0.0)
    t = target / rate.sum()
    left = np.arange(len(t))
    while len(left):
        now = t[left, None]
        short = target[left] - np.minimum(c, now) @ rate
        slope = (c > now) @ rate
        unsolved = short > 1e-14 * target[left]
        with np.errstate(divide="ignore", invalid="ignore"):
            change = short / slope
        further = t[left] + np.where(unsolved | (np.abs(change) < 1e-6 * t[left]), change, 0)
        t[left] = np.where(slope > 0, np.minimum(further, c.max(axis=1)), further)
        more = unsolved & (slope > 0)
        left, c = left[more], c[more]
    return t


def knapsack(c: np.ndarray, size: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least sum_j m_j (n,) with sum_j size_j m_j = target and 0 <= m_j <= c_j; else inf."""
    if not len(size):
        return np.where(target > 0, np.inf, 0.0)
    order = np.argsort(-size, kind="stable")
    c, size = np.minimum(c[:, order], 2 * target[:, None] / size[order]), size[order]
    cost, spent = np.cumsum(c * size, axis=1), np.cumsum(c, axis=1)
    reached = cost >= target[:, None] * (1 - 1e-14)
    k = np.argmax(reached, axis=1)[:, None]
    over = np.maximum(np.take_along_axis(cost, k, axis=1)[:, 0] - target, 0)
    least = np.take_along_axis(spent, k, axis=1)[:, 0] - over / size[k[:, 0]]
    return np.where(reached[:, -1], least, np.inf)


def step(
    a: np.ndarray, x: np.ndarray, eps: np.ndarray, norm: str = "inf", box: tuple | None = None
) -> np.ndarray:
    """The delta (n, d) of sizes eps (n,) that lowers the gap most."""
    cost, size, eps = dual_norm(a, norm), np.abs(a), eps[:, None]
    c = np.full(x.shape, np.inf) if box is None else room(x, a, box)
    if norm == "inf":
        amount = np.minimum(eps, c)
    elif norm == "2" and box is None:
        amount = eps * size / (cost or 1.0)
    elif norm == "2":
        used, amount = size > 0, np.zeros(x.shape)
        c, size = c[:, used], size[used]
        t = np.sqrt(reach((c / size) ** 2, size**2, eps[:, 0] ** 2))
        amount[:, used] = np.minimum(t[:, None] * size, c)
    else:
        order = np.argsort(-size, kind="stable")
        c = np.minimum(c, eps)[:, order]
        amount = np.zeros(x.shape)
        amount[:, order] = np.clip(eps - (np.cumsum(c, axis=1) - c), 0, c)
    return -np.sign(a) * amount


# --- two classes: labels y in {-1, +1}, one score x.w + b -----------------------------------------


def sample_radii(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, b: float, norm: str = "inf", box: bool = False
) -> np.ndarray:
    """The smallest eps that flips each sample, (n,): it stays correct at exactly the radii below.

    Without the box r = m / ||w||_dual, which is <= 0 for a sample that is wrong from the start.
    With the box, pixels in [0, 1], such a sample has r = 0, and one that nothing flips r = inf.

    Raises:
        ValueError: the norm is unknown, a label is not -1 or +1, a pixel is outside the box, or
            the shapes do not fit.
    """
    by_label = _by_label(x, y, w, box)
    margins, radii = y * (x @ w + b), np.empty(len(y))
    if not box:
        return distance(margins, w, x, str(norm))
    for sign, rows, bounds in by_label:
        radii[rows] = distance(margins[rows], sign * w, x[rows], str(norm), bounds)
    return radii


def perturbation(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, eps: float, norm: str = "inf", box: bool = False
) -> np.ndarray:
    """The worst-case delta (n, d) within the ball of radius eps, and in the box if asked for.

    Without the box: -y eps sign(w) for L-infinity (article, "in our linear case"),
    -y eps w / ||w||_2 for L2, and for L1 -y eps sign(w_k) on the pixel k of largest |w_k|.

    Raises:
        ValueError: eps is negative or not finite; and as `sample_radii`.
    """
    if not 0 <= eps < np.inf:
        raise ValueError(f"eps must be finite and at least 0, not {eps}")
    delta = np.empty(x.shape)
    for sign, rows, bounds in _by_label(x, y, w, box):
        sizes = np.full(np.count_nonzero(rows), float(eps))
        delta[rows] = step(sign * w, x[rows], sizes, str(norm), bounds)
    return delta


def _by_label(x: np.ndarray, y: np.ndarray, w: np.ndarray, box: bool) -> list[tuple]:
    """The label, the rows that have it, and the box, for both labels; checks x, y and w."""
    if np.ndim(x) != 2 or np.shape(y) != x.shape[:1] or np.shape(w) != x.shape[1:]:
        shapes = ", ".join(str(np.shape(value)) for value in (x, y, w))
        raise ValueError(f"x, y, w need shapes (n, d), (n,), (d,), not {shapes}")
    if not (np.abs(y) == 1).all():
        raise ValueError(f"labels y must be -1 or +1, not {y[np.abs(y) != 1][0]!r}")
    if box and not ((x >= 0) & (x <= 1)).all():
        raise ValueError("with the box all pixels must be in [0, 1]")
    return [(sign, y == sign, (0.0, 1.0) if box else None) for sign in (-1, 1)]


def worst_case_margins(
    x: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    b: float,
    eps: float,
    norm: str = "inf",
    box: bool = False,
) -> np.ndarray:
    """The smallest margins (n,) within the ball; their `hinge` is the robust hinge.

    Raises:
        ValueError: the norm is unknown; with the box also as `perturbation`.
    """
    margins = y * (x @ w + b)
    if box:
        return margins + y * (perturbation(x, y, w, eps, norm, box) @ w)
    return margins - eps * dual_norm(w, norm)


def robust_correct(radii: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """How many samples withstand each radius: #{r > eps}, by one sort. Shapes (n,), (k,)."""
    return len(radii) - np.searchsorted(np.sort(radii), eps, side="right")


def ranks(radii: np.ndarray) -> np.ndarray:
    """The place (n,) of each radius in ascending order, from 0; equal ones in the order given."""
    return np.argsort(np.argsort(radii, kind="stable"))


def check_perturbation(
    x: np.ndarray, delta: np.ndarray, eps: float, norm: str = "inf", box: bool = False
) -> None:
    """Raise ValueError unless delta is finite, shaped like x, in the ball and, if asked, the box.

    The tolerance on either is 1e-9.
    """
    if delta.shape != x.shape:
        raise ValueError(f"perturbation of shape {delta.shape}, not {x.shape}")
    if not np.isfinite(delta).all():
        raise ValueError("perturbation is not finite")
    largest = np.linalg.norm(delta, ORDER[norm], axis=1).max(initial=0.0)
    if largest > eps + 1e-9:
        raise ValueError(f"perturbation of size {largest} leaves the ball of radius {eps}")
    if box and not ((x + delta >= -1e-9) & (x + delta <= 1 + 1e-9)).all():
        raise ValueError("a perturbed pixel leaves [0, 1]")
