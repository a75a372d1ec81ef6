"""The exact worst case of a linear model under every threat model: the method, in NumPy.

A threat model is a ball, ||delta||_p <= eps for p = inf, 2 or 1, with or without the pixel box
(perturbed pixels stay in [0, 1]). The margin of x + delta is m + y w.delta, so the attacker
moves each pixel against y w_j. Without the box the worst case costs eps times the dual norm of
w. With the box, pixel j has only room c_j to move, and as the budget grows pixels fill up:

    inf   each moves by min(eps, c_j): all at one speed until full
    2     each moves by min(t |w_j|, c_j), eps^2 being the sum of their squares (the conditions
          of Karush, Kuhn and Tucker)
    1     the pixels of largest |w_j| fill first (a fractional knapsack)

In each case the cost is concave, increasing and piecewise known, so one sort and prefix sums
give the smallest eps that flips a sample. Shapes: x (n, d), y and margins (n,), w (d,).
"""

import numpy as np

ORDER = {"inf": np.inf, "2": 2, "1": 1}  # ball -> order of the norm of delta
DUAL = {"inf": 1, "2": 2, "1": np.inf}  # ball -> order of the norm of w that it costs


def dual_norm(w: np.ndarray, norm: str = "inf") -> float:
    """What a unit of radius costs in margin: ||w||_1, ||w||_2, ||w||_inf for "inf", "2", "1".

    Raises:
        ValueError: the norm is none of the three.
    """
    if norm not in DUAL:
        raise ValueError(f"norm must be inf, 2 or 1, not {norm!r}")
    return float(np.linalg.norm(w, DUAL[norm]))


def hinge(margins: np.ndarray) -> np.ndarray:
    """max(0, 1 - m) of each sample (article, "Regular Binary Classification")."""
    return np.maximum(0, 1 - margins)


def worst_case_margins(x, y, w, b: float, eps: float, norm: str = "inf", box: bool = False):
    """The smallest margins (n,) within the ball of radius eps; exact.hinge of them is the robust
    hinge."""
    margins = y * (x @ w + b)
    if box:
        return margins + y * (perturbation(x, y, w, eps, norm, box) @ w)
    return margins - eps * dual_norm(w, norm)


def perturbation(x, y, w, eps: float, norm: str = "inf", box: bool = False) -> np.ndarray:
    """The worst-case delta (n, d) within the ball of radius eps, and in the box if asked for.

    Without the box: -y eps sign(w) for L-infinity (article, "in our linear case"),
    -y eps w / ||w||_2 for L2, and for L1 -y eps sign(w_k) on the pixel k of largest |w_k|.

    Raises:
        ValueError: eps is negative or not finite, or the norm is none of the three.
    """
    if not 0 <= eps < np.inf:
        raise ValueError(f"eps must be finite and at least 0, not {eps}")
    cost = dual_norm(w, norm)  # refuses an unknown norm
    size = np.abs(w)
    c = room(x, y, w) if box else np.full(x.shape, np.inf)
    if norm == "inf":
        amount = np.minimum(eps, c)
    elif norm == "2" and box:
        t = time_to_reach(c, size, c**2, size**2, np.full(len(y), eps**2), power=2)
        amount = np.minimum(_times(t, size), c)
    elif norm == "2":
        amount = np.broadcast_to(eps * size / (cost or 1.0), x.shape)
    else:
        order = np.argsort(-size, kind="stable")
        c = np.minimum(c, eps)[:, order]
        amount = np.zeros(x.shape)
        amount[:, order] = np.clip(eps - (np.cumsum(c, axis=1) - c), 0, c)
    return -y[:, None] * np.sign(w) * amount


def sample_radii(x, y, w, b: float, norm: str = "inf", box: bool = False) -> np.ndarray:
    """The smallest eps that flips each sample, (n,): it stays correct at exactly the radii below.

    Without the box r = m / ||w||_dual, which is <= 0 for a sample that is wrong from the start.
    With the box such a sample has r = 0, and one that nothing in the box flips has r = inf.
    """
    margins, cost = y * (x @ w + b), dual_norm(w, norm)
    size = np.abs(w)
    if not box:
        return margins / cost if cost else np.where(margins > 0, np.inf, -np.inf)
    c = room(x, y, w)
    if norm == "1":
        order = np.argsort(-size, kind="stable")
        c, size = c[:, order], size[order]
        cost = np.cumsum(c * size, axis=1)
        k = np.minimum(np.argmax(cost >= margins[:, None], axis=1), len(size) - 1)
        spent = np.take_along_axis(np.cumsum(c, axis=1), k[:, None], axis=1)[:, 0]
        over = np.take_along_axis(cost, k[:, None], axis=1)[:, 0] - margins
        radii = spent - over / np.where(size[k] > 0, size[k], 1)
        flips = cost[:, -1] >= margins
    else:
        speed = np.ones_like(size) if norm == "inf" else size
        t = time_to_reach(c, speed, size * c, size * speed, margins, power=1)
        flips = t < np.inf
        t = np.where(flips, t, 0)
        radii = t if norm == "inf" else np.linalg.norm(np.minimum(_times(t, speed), c), axis=1)
    return np.where(margins > 0, np.where(flips, radii, np.inf), 0.0)


def time_to_reach(c, speed, full, rate, target, power: int) -> np.ndarray:
    """The time t (n,) at which sum_j min(rate_j t^power, full_j) reaches the target; else inf.

    Pixel j fills up at t = c_j / speed_j, where rate_j t^power = full_j. c, full: (n, d); speed,
    rate: (d,); target: (n,). Between two such moments the sum is A + B t^power.

    An example with three pixels in the L-infinity ball: weights of size 1, 2, 3 (the rates) and
    room 0.1, 0.2, 0.5 (all speeds are 1, so pixels fill up at t = 0.1, 0.2, 0.5). The margin falls
    by 6 t up to t = 0.1, then by 0.1 + 5 t up to 0.2, then by 0.5 + 3 t. A margin of 0.8 is used
    up at 0.5 + 3 t = 0.8, so at t = 0.1, which is too early for that piece; on the second piece
    0.1 + 5 t = 0.8 gives t = 0.14, which lies between 0.1 and 0.2: the sample flips at 0.14.
    """
    fills = np.divide(c, speed, out=np.zeros_like(c), where=speed > 0)
    order = np.argsort(fills, axis=1)
    fills, full = (np.take_along_axis(values, order, axis=1) for values in (fills, full))
    rate = rate[order]
    filled = np.cumsum(full, axis=1) - full  # A: what is full before
    filling = np.cumsum(rate[:, ::-1], axis=1)[:, ::-1]  # B: what is filling still
    reached = filled + filling * fills**power >= target[:, None]
    k = np.argmax(reached, axis=1)[:, None]
    before, still = (np.take_along_axis(values, k, axis=1)[:, 0] for values in (filled, filling))
    left = np.maximum(target - before, 0)
    t = np.divide(left, still, out=np.zeros_like(left), where=still > 0) ** (1 / power)
    return np.where(reached.any(axis=1), t, np.inf)


def _times(t, speed) -> np.ndarray:
    """t_i speed_j, with 0 where the speed is 0, for t (n,) that may be inf."""
    return np.multiply(t[:, None], speed, out=np.zeros((len(t), len(speed))), where=speed > 0)


def room(x, y, w) -> np.ndarray:
    """c (n, d): how far each pixel can move against the margin within [0, 1]; 0 where w_j = 0."""
    return np.where(y[:, None] * w > 0, x, 1 - x) * (w != 0)


def robust_correct(radii: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """How many samples withstand each radius: #{r > eps}, by one sort. Shapes (n,), (k,)."""
    return len(radii) - np.searchsorted(np.sort(radii), eps, side="right")


def check_perturbation(x, delta, eps: float, norm: str = "inf", box: bool = False) -> None:
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
