"""The exact worst case of one pair of classes: distance and step in each ball. NumPy alone.

Numbers in brackets are equations of docs/theory.md, "The attack".

A perturbation delta lies in a ball, ||delta||_p <= eps for p = inf, 2 or 1. With a box, x + delta
also stays in it, such as pixels in [0, 1]. The margin m of a sample is y f(x) or, with many
classes, the score of its class minus that of a rival. A perturbation changes m by a.delta, where a
is y w or w_class - w_rival, so the attacker moves each feature j against a_j. Without the box the
worst delta of size eps lowers m by eps times the dual norm of a, (A1). With the box, feature j can
move only by its slack c_j, the distance to the side of the box that it moves towards. The worst
delta is then, (A3):

    inf   each feature moves by min(eps, c_j)
    2     each moves by min(t |a_j|, c_j), where t makes the size eps (the conditions of Karush,
          Kuhn and Tucker)
    1     the features of largest |a_j| move first (a fractional knapsack)
    0     (the number of features that move) those of largest |a_j| c_j move by c_j

How much m falls is in each case a concave, piecewise linear function of eps, or for the L2 ball of
t. So a few Newton steps, or one sort, give the smallest eps that lowers m to 0. Shapes: x (n, d), y
and margins (n,), a and w (d,); a box is a pair (low, high) of numbers, arrays (d,), or arrays
(n, d).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import numpy as np

ORDER = {"inf": np.inf, "2": 2, "1": 1}  # ball -> order of the norm of delta
DUAL = {"inf": 1, "2": 2, "1": np.inf}  # ball -> order of the dual norm, that of a
BLOCK = 256  # samples or features taken at a time, to save memory

Box = tuple[Any, Any]  # (low, high): numbers, or arrays (d,) or (n, d)


def shown(value: Any) -> str:
    """An argument in a message: in one line, and a number or text of NumPy as that of Python."""
    value = value.item() if isinstance(value, np.generic) else value
    return " ".join(repr(value).split())[:99]


def ball(norm: str | float, known: Iterable[str] = ORDER) -> str:
    """The name of a ball: "inf", "2" or "1", from these and such as 2.0, "l2" and "Linf".

    Raises:
        ValueError: it is none of the names known.
    """
    name, known = str(norm).lower().removeprefix("l").removesuffix(".0"), list(known)
    if isinstance(norm, bool) or name not in known:
        raise ValueError(f"norm must be {', '.join(known[:-1])} or {known[-1]}, not {shown(norm)}")
    return name


def dual_norm(w: np.ndarray, norm: str = "inf") -> float:
    """By how much a margin falls per unit of radius: ||w||_1, ||w||_2, ||w||_inf for inf, 2, 1."""
    exponent = exponent_of(w)  # so that no square underflows or overflows
    return float(np.ldexp(np.linalg.norm(np.ldexp(w, -exponent), DUAL[norm]), exponent))


def exponent_of(values: np.ndarray) -> int:
    """The k with 2^(k - 1) <= the largest |value| < 2^k; to divide by 2^k makes no error."""
    return int(np.frexp(np.abs(values).max(initial=0.0))[1])


# --- one pair of classes -------------------------------------------------------------------------


def slack(x: np.ndarray, a: np.ndarray, box: Box = (0.0, 1.0)) -> np.ndarray:
    """c (n, d): how far each feature can move against a within the box; 0 where a_j = 0."""
    low, high = box
    offset = np.where(a > 0, np.negative(low), np.where(a < 0, high, 0.0))
    c = x * np.sign(a)
    c += offset  # x - low, high - x or 0: in place, as a second array (n, d) takes longer
    return c


@overload
def box_of(rows: np.ndarray | int, box: None) -> None: ...
@overload
def box_of(rows: np.ndarray | int, box: Box) -> Box: ...
def box_of(rows: np.ndarray | int, box: Box | None) -> Box | None:
    """The box of these rows, or of one: sides (n, d) are one per sample, others those of all."""
    if box is None:
        return None
    low, high = (side[rows] if np.ndim(side) == 2 else side for side in box)
    return low, high


@overload
def _columns(box: None, columns: np.ndarray) -> None: ...
@overload
def _columns(box: Box, columns: np.ndarray) -> Box: ...
def _columns(box: Box | None, columns: np.ndarray) -> Box | None:
    """The box of some features."""
    if box is None:
        return None
    low, high = (side[..., columns] if np.ndim(side) else side for side in box)
    return low, high


def blocks(rows: np.ndarray, d: int, most: int = BLOCK) -> list[np.ndarray]:
    """The rows in parts of at most `most`, and of at most 2^18 numbers if there are d features."""
    most = max(1, min(most, 2**18 // max(d, 1)))
    return [rows[k : k + most] for k in range(0, len(rows), most)]


def distance(
    margin: np.ndarray, a: np.ndarray, x: np.ndarray, norm: str = "inf", box: Box | None = None
) -> np.ndarray:
    """The size (n,) of the smallest perturbation of each sample that lowers its margin to 0.

    Without the box it is margin / ||a||_dual, (A2), which is <= 0 where the margin is. With the
    box, (A3), and for the norm "0" it is 0 there, and inf where nothing in the box is enough.
    """
    if box is None and norm == "0":
        return np.where(margin > 0, 1.0 if a.any() else np.inf, 0.0)
    if box is None:
        fall = dual_norm(a, norm)
        return margin / fall if fall else np.where(margin > 0, np.inf, -np.inf)
    columns, radii, exponent = np.flatnonzero(a), np.zeros(len(margin)), exponent_of(a)
    used, size = a[columns], np.ldexp(np.abs(a[columns]), -exponent)
    for rows in blocks(np.flatnonzero(margin > 0), x.shape[1]):
        target = np.ldexp(margin[rows], -exponent)
        if norm == "1":
            radii[rows] = _in_prefixes(rows, target, a, x, box, exponent)
            continue
        part, sides = (x, box) if len(rows) == len(x) else (x[rows], box_of(rows, box))
        c = slack(_some(part, columns), used, _columns(sides, columns))
        if norm == "inf":
            radii[rows] = reach(c, size, target)
        elif norm == "2":
            t = reach(c / size, size**2, target)
            moved = np.where(np.isfinite(t), t, 0)[:, None] * size
            lengths = _lengths(np.minimum(moved, c, out=moved))
            radii[rows] = np.where(np.isfinite(t), lengths, np.inf)
        else:
            radii[rows] = fewest(c, size, target)
    return radii


def _some(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Some columns of x; row by row in memory, which x[:, columns] is not, and so twice as fast."""
    return x if len(columns) == x.shape[1] else np.take(x, columns, axis=1)


def _prefixes(a: np.ndarray) -> list[np.ndarray]:
    """The features with a weight, the largest |a_j| first: the first 64, the first 512, and all.

    In the L1 ball few features move, and the others need not be looked at.
    """
    used = np.flatnonzero(a)
    used = used[np.argsort(-np.abs(a[used]), kind="stable")]
    return [used[:most] for most in (64, 512)] + [used]


def _in_prefixes(
    rows: np.ndarray, target: np.ndarray, a: np.ndarray, x: np.ndarray, box: Box, exponent: int
) -> np.ndarray:
    """The L1 distance (m,) of rows of x whose margins are target (m,) times 2^exponent."""
    radii, left = np.full(len(rows), np.inf), np.arange(len(rows))
    for columns in _prefixes(a):
        sides = _columns(box_of(rows[left], box), columns)
        c = slack(x[np.ix_(rows[left], columns)], a[columns], sides)
        radii[left] = knapsack(c, np.ldexp(np.abs(a[columns]), -exponent), target[left])
        left = left[np.isinf(radii[left])]
        if not len(left):
            break
    return radii


def _lengths(moved: np.ndarray) -> np.ndarray:
    """The Euclidean length (n,) of each row, also where its squares underflow or overflow."""
    exponents = np.frexp(moved.max(axis=1, initial=0.0))[1][:, None]
    if (np.abs(exponents) < 500).all():
        return np.sqrt(np.einsum("ij,ij->i", moved, moved))
    return np.ldexp(np.linalg.norm(np.ldexp(moved, -exponents), axis=1), exponents[:, 0])


def reach(c: np.ndarray, rate: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The t (n,) at which sum_j rate_j min(t, c_j) reaches the target >= 0; inf where none does.

    The sum is concave in t. A Newton step from the left never goes too far, and each but the last
    ends on a later one of its straight pieces. About three are enough. c (n, d), rate (d,) > 0.

    An example with three features: rates 1, 2, 3, slacks 0.1, 0.2, 0.5 and target 0.8. The sum is
    6 t up to t = 0.1, then 0.1 + 5 t up to 0.2, then 0.5 + 3 t. The first step goes to 0.8 / 6 =
    0.133, on the second piece, and the next to (0.8 - 0.1) / 5 = 0.14, which is still on it: the
    answer.
    """
    if not len(rate):
        return np.where(target > 0, np.inf, 0.0)
    most = c.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.fmin(
            target / ((c > 0) @ rate), most
        )  # the step from t = 0, where features without slack do not count
    left = np.arange(len(t))
    while len(left):
        now = t[left, None]
        short = target[left] - np.minimum(c, now) @ rate
        slope = (c > now) @ rate
        unsolved = short > 1e-14 * target[left]
        with np.errstate(divide="ignore", invalid="ignore"):
            change = short / slope
        further = t[left] + np.where(unsolved | (np.abs(change) < 1e-6 * t[left]), change, 0)
        t[left] = np.where(slope > 0, np.minimum(further, most[left]), further)
        more = unsolved & (slope > 0)
        left, c = left[more], c[more]
    return t


def knapsack(c: np.ndarray, size: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least sum_j m_j (n,) with sum_j size_j m_j = target and 0 <= m_j <= c_j; else inf.

    The sizes are in descending order.
    """
    if not len(size):
        return np.where(target > 0, np.inf, 0.0)
    c = np.minimum(c, 2 * target[:, None] / size)
    fall, moved = np.cumsum(c * size, axis=1), np.cumsum(c, axis=1)
    reached = fall >= target[:, None] * (1 - 1e-14)
    k = np.argmax(reached, axis=1)[:, None]
    over = np.maximum(np.take_along_axis(fall, k, axis=1)[:, 0] - target, 0)
    least = np.take_along_axis(moved, k, axis=1)[:, 0] - over / size[k[:, 0]]
    return np.where(reached[:, -1], least, np.inf)


def fewest(c: np.ndarray, size: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least number (n,) of features that lower a margin by the target; inf where all do not.

    Feature j lowers it by at most its gain size_j c_j. So k features lower it by at most the sum of
    the k largest gains, which they reach at the edge of the box. The answer is the least k whose
    sum is at least the target.
    """
    if not len(size):
        return np.where(target > 0, np.inf, 0.0)
    gains = size * np.minimum(c, 2 * target[:, None] / size)  # c may be inf; one gain is enough
    reached = np.cumsum(-np.sort(-gains, axis=1), axis=1) >= target[:, None] * (1 - 1e-14)
    return np.where(reached[:, -1], np.argmax(reached, axis=1) + 1.0, np.inf)


def step(
    a: np.ndarray,
    x: np.ndarray,
    eps: np.ndarray,
    norm: str = "inf",
    box: Box | None = None,
    margin: np.ndarray | None = None,
) -> np.ndarray:
    """The delta (n, d) of sizes eps (n,) that lowers the margin most.

    For the norm "0" eps counts features. Each moves to the edge of the box, or, if that is nearer,
    to where it alone lowers the margin (n,) by twice its size. (The other norms need no margin.)
    """
    exponent = exponent_of(a)
    a = np.ldexp(a, -exponent)
    size, eps = np.abs(a), eps[:, None]
    if norm == "1":
        return -np.sign(a) * _along_largest(a, x, eps, box)
    if norm == "2" and box is None:
        return -eps * a / (dual_norm(a, norm) or 1.0)
    if norm == "inf":
        c = np.full(x.shape, np.inf) if box is None else slack(x, a, box)
        np.minimum(eps, c, out=c)
        c *= -np.sign(a)
        return c
    columns = np.flatnonzero(a)
    c = np.full((len(x), len(columns)), np.inf)
    if box is not None:
        c = slack(_some(x, columns), a[columns], _columns(box, columns))
    size = size[columns]
    if norm == "2":
        amount = _in_ball(c, size, eps)
    else:
        assert margin is not None
        c = np.minimum(c, 2 * np.ldexp(margin, -exponent)[:, None] / size)
        order = np.argsort(-c * size, axis=1, kind="stable")
        amount = np.where(np.argsort(order, axis=1) < eps, c, 0)
    amount *= -np.sign(a[columns])
    if len(columns) == len(a):
        return amount
    delta = np.zeros(x.shape)
    delta[:, columns] = amount
    return delta


def _in_ball(c: np.ndarray, size: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """How far each feature (n, d) moves in the L2 ball of sizes eps (n, 1), with slack c (n, d)."""
    unit = np.ldexp(1.0, np.clip(np.frexp(eps)[1], -1000, 1000))  # to divide makes no error
    eps = eps / unit
    limit = c / unit
    np.minimum(limit, 2 * eps, out=limit)  # no feature can move further than eps
    limit /= size
    limit *= limit
    t = np.sqrt(reach(limit, size**2, eps[:, 0] ** 2))
    amount = t[:, None] * unit * size
    return np.minimum(amount, c, out=amount)


def _along_largest(a: np.ndarray, x: np.ndarray, eps: np.ndarray, box: Box | None) -> np.ndarray:
    """How far each feature (n, d) moves in the L1 ball of sizes eps (n, 1)."""
    amount, left = np.zeros(x.shape), np.arange(len(x))
    for columns in _prefixes(a):
        c = np.broadcast_to(np.inf, (len(left), len(columns)))
        if box is not None:
            sides = _columns(box_of(left, box), columns)
            c = slack(x[np.ix_(left, columns)], a[columns], sides)
        c = np.minimum(c, eps[left])
        total = np.cumsum(c, axis=1)
        amount[np.ix_(left, columns)] = np.clip(eps[left] - (total - c), 0, c)
        left = left[(total[:, -1:] < eps[left])[:, 0]] if len(columns) else left[:0]
        if not len(left):
            break
    return amount
