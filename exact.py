"""The exact worst case of a linear classifier, in NumPy alone.

    found = exact.attack(model, X, y, norm="2", box=(0, 1))    # any linear model, any classes

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

from dataclasses import dataclass

import numpy as np

ORDER = {"inf": np.inf, "2": 2, "1": 1}  # ball -> order of the norm of delta
DUAL = {"inf": 1, "2": 2, "1": np.inf}  # ball -> order of the norm of a that it costs
ROWS = 256  # samples or features taken at a time, to save memory
BEYOND = 1e-6  # `perturbed` goes so much further than the radius, to be on the other side


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


def room(x, a, box=(0.0, 1.0)) -> np.ndarray:
    """c (n, d): how far each feature can move against a within the box; 0 where a_j = 0."""
    low, high = box
    return np.where(a != 0, np.where(a > 0, x - low, high - x), 0.0)


def distance(gap, a, x, norm: str = "inf", box=None) -> np.ndarray:
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


def reach(c, rate, target) -> np.ndarray:
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


def knapsack(c, size, target) -> np.ndarray:
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


def step(a, x, eps, norm: str = "inf", box=None) -> np.ndarray:
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


def sample_radii(x, y, w, b: float, norm: str = "inf", box: bool = False) -> np.ndarray:
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


def perturbation(x, y, w, eps: float, norm: str = "inf", box: bool = False) -> np.ndarray:
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


def _by_label(x, y, w, box: bool):
    """The label, the rows that have it, and the box, for both labels; checks x, y and w."""
    if np.ndim(x) != 2 or np.shape(y) != x.shape[:1] or np.shape(w) != x.shape[1:]:
        shapes = ", ".join(str(np.shape(value)) for value in (x, y, w))
        raise ValueError(f"x, y, w need shapes (n, d), (n,), (d,), not {shapes}")
    if not (np.abs(y) == 1).all():
        raise ValueError(f"labels y must be -1 or +1, not {y[np.abs(y) != 1][0]!r}")
    if box and not ((x >= 0) & (x <= 1)).all():
        raise ValueError("with the box all pixels must be in [0, 1]")
    return [(sign, y == sign, (0.0, 1.0) if box else None) for sign in (-1, 1)]


def worst_case_margins(x, y, w, b: float, eps: float, norm: str = "inf", box: bool = False):
    """The smallest margins (n,) within the ball; their `hinge` is the robust hinge."""
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


# --- any linear model ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The smallest perturbations that make each of n samples wrong; see `attack`.

    Attributes:
        radii: (n,) their sizes: 0 where the model is wrong already, inf where nothing makes it so.
        rival: (n,) the class that the sample is then taken for; its own where the radius is inf.
    """

    radii: np.ndarray
    rival: np.ndarray
    _x: np.ndarray
    _direction: dict  # (own class, rival class) -> a (d,) and the rows that it is for
    _norm: str
    _box: tuple | None

    def curve(self, eps):
        """Accuracy under the worst case at each radius: the share of radii > eps."""
        return robust_correct(self.radii, np.asarray(eps)) / len(self.radii)

    def perturbed(self, eps: float | None = None) -> np.ndarray:
        """The samples (n, d) moved towards their rivals: nearest adversarial examples.

        By a millionth more than their radii, or by `eps`. Samples of radius 0 or inf do not move,
        and none leaves the box.

        Raises:
            ValueError: eps is negative or not finite.
        """
        if eps is not None and not 0 <= eps < np.inf:
            raise ValueError(f"eps must be finite and at least 0, not {eps}")
        sizes = self.radii * (1 + BEYOND) if eps is None else np.full(len(self.radii), float(eps))
        moved = self._x.copy()
        for a, rows in self._direction.values():
            moved[rows] += step(a, self._x[rows], sizes[rows], self._norm, self._box)
        return moved if self._box is None else np.clip(moved, *self._box)


def attack(model, X, y, norm="inf", box=None) -> Found:
    """The exact attack on a linear model of any number of classes.

    Args:
        model: a fitted scikit-learn classifier or pipeline whose decision_function is linear; or a
            function from X (m, d) to scores (m, K), or (m,) for two classes; or (W, b) with W
            (K, d) and b (K,), or w (d,) and a number.
        X: samples (n, d).
        y: labels (n,): those of model.classes_, else 0 to K - 1; with a single score 0 and 1, or
            -1 and +1. A tie is an error.
        norm: "inf", "2" or "1", or np.inf, 2 or 1.
        box: None, or (low, high) that x + delta stays in, numbers or one per feature (d,).

    Raises:
        ValueError: an argument is not as described, or the model is not linear: its scores on X,
            or far from it, are not X @ W.T + b to 1e-5, or `predict` is not their largest.
    """
    x, norm = _samples(X), str(norm)
    box = _bounds(box, x)
    dual_norm(np.zeros(1), norm)  # refuses an unknown norm
    scores_of, weights = _scores(model, x)
    classes, own = _labels(model, scores_of, x, y)
    if weights is None:
        weights = _weights(model, scores_of, classes, x)
    scores, rows = scores_of(x), np.arange(len(x))
    gaps = scores[rows, own][:, None] - scores
    gaps[rows, own] = np.inf
    right = (gaps > 0).all(axis=1)
    costs = np.array([[dual_norm(one - other, norm) for other in weights] for one in weights])
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.where(gaps > 0, gaps / costs[own], 0)  # of the radius: exact without the box
    bounds[rows, own] = np.inf
    radii, rival = np.where(right, np.inf, 0.0), np.where(right, own, np.argmin(gaps, axis=1))
    nearest = np.argsort(bounds, axis=1, kind="stable")
    for k in nearest.T[:-1]:  # the rivals of each sample, the nearest by this bound first
        hopeful = right & (bounds[rows, k] < radii)
        for pair, a, chosen in _by_pair(weights, own, k, hopeful):
            found = distance(gaps[chosen, pair[1]], a, x[chosen], norm, box)
            nearer = found < radii[chosen]
            radii[chosen[nearer]], rival[chosen[nearer]] = found[nearer], pair[1]
    movable = _by_pair(weights, own, rival, right & np.isfinite(radii))
    direction = {tuple(classes[pair]): (a, chosen) for pair, a, chosen in movable}
    return Found(radii, classes[rival], x, direction, norm, box)


def _by_pair(weights, own, rival, among):
    """Each pair (class, rival) of the samples where `among` (n,), its direction a, and its rows."""
    for pair in np.unique(np.stack([own, rival], axis=1)[among], axis=0):
        chosen = np.flatnonzero(among & (own == pair[0]) & (rival == pair[1]))
        yield pair, weights[pair[0]] - weights[pair[1]], chosen


def _samples(X) -> np.ndarray:
    try:
        x = np.asarray(X, np.float64)
    except (TypeError, ValueError):
        raise ValueError("X needs numbers of shape (n, d)") from None
    if x.ndim != 2 or not x.size:
        raise ValueError(f"X needs shape (n, d), not {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("X holds NaN or infinite numbers")
    return x


def _bounds(box, x) -> tuple | None:
    if box is None:
        return None
    try:
        low, high = (np.broadcast_to(np.asarray(side, np.float64), x.shape[1]) for side in box)
    except (TypeError, ValueError):
        came = " ".join(repr(box).split())[:99]
        raise ValueError(
            f"box needs (low, high), each a number or of shape ({x.shape[1]},), not {came}"
        ) from None
    if not (low <= high).all():  # nor NaN
        k = np.argmin(low <= high)
        raise ValueError(f"box needs low <= high, not {low[k]} and {high[k]} (feature {k})")
    inside = (low <= x) & (x <= high)
    if not inside.all():
        i, k = np.argwhere(~inside)[0]
        raise ValueError(f"X[{i}, {k}] is {x[i, k]}, outside the box: [{low[k]}, {high[k]}]")
    return low, high


def _scores(model, x):
    """A function from X (m, d) to scores (m, K), K >= 2, and the weights (K, d) if they are given.

    A single score f becomes (-f / 2, f / 2), whose gaps are f and -f.
    """
    weights = None
    if isinstance(model, tuple):
        try:
            W, b = (np.asarray(part, np.float64) for part in model)
        except (TypeError, ValueError):
            raise ValueError("(W, b) needs two arrays of numbers") from None
        W, b = (W[0], b.reshape(-1)[0]) if W.ndim == 2 and len(W) == 1 and b.size == 1 else (W, b)
        if W.shape[-1:] != x.shape[1:] or b.shape != W.shape[:-1] or W.ndim > 2:
            raise ValueError(
                f"(W, b) needs shapes (K, {x.shape[1]}) and (K,), or ({x.shape[1]},) and a number, "
                f"not {W.shape} and {b.shape}"
            )
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError("(W, b) holds NaN or infinite numbers")
        weights = W if W.ndim == 2 else np.stack([-W / 2, W / 2])
        raw = lambda points: points @ W.T + b  # noqa: E731
    elif hasattr(model, "decision_function"):
        raw = model.decision_function
    elif callable(model):
        raw = model
    else:
        raise ValueError(
            f"model needs a decision_function, or be a function or (W, b): {type(model).__name__} "
            "is none of these"
        )

    def scores_of(points):
        try:
            scores = np.asarray(raw(points), np.float64)
        except Exception as error:  # of another library: it is not fitted, or has other features
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"the model gives no scores: {reason}") from None
        if scores.ndim == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if scores.shape[:1] != points.shape[:1] or scores.ndim > 2:
            raise ValueError(f"{len(points)} samples have scores of shape {scores.shape}")
        if not np.isfinite(scores).all():
            raise ValueError("the model gives NaN or infinite scores")
        return scores if scores.ndim == 2 else np.stack([-scores / 2, scores / 2], axis=1)

    return scores_of, weights


def _labels(model, scores_of, x, y) -> tuple[np.ndarray, np.ndarray]:
    """The classes (K,) in the order of the scores, and the index (n,) of each sample's own."""
    y = np.asarray(y)
    if y.shape != (len(x),):
        raise ValueError(f"y needs shape ({len(x)},), one label per sample, not {y.shape}")
    count = scores_of(x[:1]).shape[1]
    classes = getattr(model, "classes_", None)
    if classes is None:
        classes = np.array([-1, 1]) if count == 2 and (y == -1).any() else np.arange(count)
    if len(classes) != count:
        raise ValueError(f"the model has {len(classes)} classes, but {count} scores per sample")
    classes = np.asarray(classes)
    matches = y[:, None] == classes
    if not matches.any(axis=1).all():
        unknown = y[~matches.any(axis=1)][0]
        raise ValueError(f"label {unknown!r} in y is none of the classes {classes.tolist()}")
    return classes, matches.argmax(axis=1)


def _weights(model, scores_of, classes, x) -> np.ndarray:
    """W (K, d), from scores with one feature moved at a time; raises ValueError if not linear."""
    centre, span = x.mean(axis=0), np.ptp(x, axis=0)
    moves = np.maximum(span, 1e-3 * (np.abs(x).max() or 1e3))  # no smaller, against rounding
    span = np.where(span > 0, span, moves)
    offset = scores_of(centre[None])[0]
    weights = np.empty((len(offset), x.shape[1]))
    for first in range(0, x.shape[1], ROWS):
        columns = np.arange(first, min(first + ROWS, x.shape[1]))
        points = np.tile(centre, (len(columns), 1))
        points[np.arange(len(columns)), columns] += moves[columns]
        moved = points[np.arange(len(columns)), columns] - centre[columns]
        weights[:, columns] = (scores_of(points) - offset).T / moved
    random = np.random.default_rng(0).uniform(-1, 1, (3, 10, x.shape[1]))
    far = centre + (random * span * np.array([0.1, 1, 10])[:, None, None]).reshape(30, -1)
    predict = getattr(model, "predict", None) if hasattr(model, "decision_function") else None
    for points in (x, far):
        away, scores = points - centre, scores_of(points)
        terms = np.abs(offset) + np.abs(away) @ np.abs(weights).T
        if not (np.abs(offset + away @ weights.T - scores) <= 1e-5 * terms).all():
            raise ValueError("the model is not linear: its scores are not X @ W.T + b")
        best = classes[scores.argmax(axis=1)]
        if predict and not (np.asarray(predict(points)) == best).all():
            raise ValueError("the model does not predict the class of its largest score")
    return weights
