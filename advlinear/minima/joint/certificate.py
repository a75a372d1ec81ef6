"""Both bounds on the least robust loss of K > 2 classes, from W, b and alpha alone, and a flow.

With the shares s_i of the samples, their classes y_i in 0 to K - 1, and ||.||* the dual norm of the
ball,

    F(W, b) = sum_i s_i l(m_i),    m_ik = (w_y - w_k).x_i + b_y - b_k - eps ||w_y - w_k||*

with y = y_i, k one of the other classes, and l(m) = max(0, max_k 1 - m_k), the hinge, or the
logistic loss, l(m) = log(1 + sum_k exp(-m_k)). A pair (i, k) is an *option*.

Weak duality, (M3) to (M6) of docs/theory.md. Let alpha_ik >= 0 with sum_k alpha_ik <= s_i. Option
(i, k) adds alpha_ik to the mass A_pk of the pair of its two classes p = y_i and k, and alpha_ik x_i
to N_pk = -N_kp. Let alpha be balanced: the mass of the options of class p is that of the options
towards p. G_p = sum_q N_pq is then the same for x_i - c with any c. So for every W and b

    F(W, b) >= value - sum_p G_p.w_p + eps sum_pq A_pq ||w_p - w_q||*      (pq: p < q)

where the value is sum alpha for the hinge, and for the logistic loss sum_i s_i H(alpha_i / s_i),
with the entropy H(a) = -sum_k a_k log(a_k) - (1 - sum a) log(1 - sum a).

- A flow u_pq = -u_qp with sum_q u_pq = G_p turns sum_p G_p.w_p into sum_pq u_pq.(w_p - w_q). If the
  size of each u_pq in the ball's norm is at most eps A_pq, the value is a lower bound. If not, with
  a rest e_pq, it is one less sum_pq |e_pq|.|w_p - w_q|.
- In the L-infinity ball such a flow exists if and only if for each set S of classes and each
  feature |sum G_pj| <= eps sum A_pq, over p in S and q not in S. With e_j the largest miss of these
  constraints over S, the value less sum_j e_j (max_p w_pj - min_p w_pj) is a lower bound.

The theorem in float64; advlinear/minima/certificate.py states what is assumed of it.

- `primal` is at least the exact F of the float64 numbers (W, b), x and weights.
- alpha, cut to alpha_ik >= 0 and sum_k alpha_ik <= s_i, is rounded down to whole multiples of a
  power of two, at most 2^-59 of their sum. So sums of it are exact. Where it is not balanced, mass
  is taken off along paths from class to class, which is exact, too. Times 1 - 4 u for the rounding
  of s_i, it is within its bounds. If `violation` is 0, `dual` is at most the exact F of every W and
  b. Else, with r_j the range of feature j, it is at most that of every W and b with sum_j r_j
  (max_p w_pj - min_p w_pj) <= 1000 (1 + that sum of the given W).
- A flow needs to have its sums G_p to rounding only: what they lack is added to it exactly, along a
  tree of classes, and in the proof only the size of what is added is computed.

N_pq is a sum of rounded products, each at most alpha_ik r_j. So it is off by at most k u A_pq r_j
with k the number of roundings in a row: every error is a share of the mass that it belongs to.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from advlinear.minima import rounding
from advlinear.minima.rounding import FEW, MARGIN_LIMIT, REACH, ROWS, SMALLEST, TINY, U
from advlinear.samples import JointProblem

BITS = 61  # of the sum of alpha: its parts are whole numbers below 2^61
CUTS = 512  # sets of classes in a block, to save memory
LEAST, LARGEST = 2.0**-900, 2.0**100  # of scaled numbers: their products neither underflow nor
# overflow. Features are scaled to a range of about 1, and alpha to a sum of about 1.


def bounds(
    problem: JointProblem,
    W: np.ndarray,
    b: np.ndarray,
    alpha: np.ndarray,
    flow: np.ndarray | None = None,
) -> dict[str, float]:
    """What `certificate` returns of K > 2 classes, of finite float64 numbers.

    Args:
        W, b: (K, d) and (K,).
        alpha: (n, K), of which alpha[i, y_i] is not used.
        flow: (K, K, d), of which u_pq with p < q is used, in the L2 and L1 balls at eps > 0 alone.

    Raises:
        ValueError: the margins of (W, b) overflow; or there is no flow where one is used.
    """
    low, ranges = problem.x.min(axis=0), np.ptp(problem.x, axis=0)
    centre = low + ranges / 2  # amid the samples; any between them would do
    total = math.fsum(problem.weights.tolist())
    share = problem.weights / total
    primal = _upper(problem, centre, ranges, W, b, total)
    mass, unit = balanced(alpha, problem.y, share)
    value = math.ldexp(float(mass.sum()), unit)
    scale = unit + BITS  # 2^scale is about the sum of alpha
    if flow is not None:
        with np.errstate(over="ignore"):
            flow = np.ldexp(flow, -scale)
    violation = _violation(problem, centre, ranges, mass, flow)
    if violation > 0:
        violation = max(float(np.ldexp(violation, scale)), SMALLEST)
    if problem.loss == "logistic":
        value = _entropy(np.ldexp(mass.astype(float), unit), share)
    lost = 0.0
    if violation > 0:
        size = float(np.ptp(W, axis=0) @ ranges)
        lost = violation * REACH * (size * (1 + len(ranges) * FEW) + 1) * (1 + FEW)
    dual = max(value - lost - FEW * value, 0.0)  # 0 is the bound of alpha = 0
    gap = (primal - dual) / max(primal, share[share > 0].min())
    return dict(primal=primal, dual=dual, gap=float(gap), violation=violation)


# --- the upper bound -----------------------------------------------------------------------------


def _upper(
    problem: JointProblem,
    centre: np.ndarray,
    ranges: np.ndarray,
    W: np.ndarray,
    b: np.ndarray,
    total: float,
) -> float:
    """An upper bound of F(W, b); total: the sum of the weights.

    The terms of score k add up to at most sum_j r_j |w_kj| and the bias, in absolute value. So what
    rounding may do to a margin is the same for all samples of a class, as its cost in the ball is.
    """
    K, used = len(W), np.flatnonzero(W.any(axis=0))
    W, centre = W[:, used], centre[used]
    order = {"inf": 1, "2": 2, "1": np.inf}[problem.norm]
    losses = np.empty(len(problem.y))
    with np.errstate(over="ignore", invalid="ignore"):
        bias = np.array([rounding.exact_bias(centre, *one) for one in zip(W, b, strict=True)])
        terms = np.abs(W) @ ranges[used] + np.abs(bias)
        falls = np.zeros((K, K))
        for p, q in combinations(range(K), 2):
            cost = problem.eps * rounding.norm(np.abs(W[p] - W[q]), order)
            off = (len(used) + 8) * 2 * U * (terms[p] + terms[q] + cost)
            falls[p, q] = falls[q, p] = cost + off
        for k in range(0, len(losses), ROWS):
            rows = slice(k, k + ROWS)
            y = problem.y[rows]
            scores = np.dot(problem.x[rows, used] - centre, W.T) + bias
            own = np.take_along_axis(scores, y[:, None], axis=1)
            behind = scores - own + falls[y]  # -m_ik from above; 0 for the own class
            if not (np.abs(behind) < MARGIN_LIMIT).all():
                raise ValueError(
                    "the margins of (W, b) overflow: scale X, W, b and eps to smaller numbers"
                )
            losses[rows] = _losses(behind, y, problem.loss)
    return math.fsum((problem.weights * losses).tolist()) / total * (1 + K * FEW)


def _losses(behind: np.ndarray, y: np.ndarray, loss: str) -> np.ndarray:
    """The loss (m,) of -m_ik (m, K), which is 0 for the own class k = y_i; to K 8 u of itself."""
    samples = np.arange(len(y))
    if loss == "hinge":
        above = behind + 1
        above[samples, y] = 0
        return above.max(axis=1)
    first = behind.argmax(axis=1)
    largest = behind[samples, first]
    rest = np.exp(behind - largest[:, None])
    rest[samples, first] = 0  # in place of 1, which log1p adds
    return largest + np.log1p(rest.sum(axis=1)) + TINY


# --- alpha ---------------------------------------------------------------------------------------


def balanced(alpha: np.ndarray, y: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, int]:
    """alpha within its bounds and balanced, exactly: whole numbers (n, K), times 2^unit."""
    alpha = np.clip(alpha, 0, share[:, None])
    alpha[np.arange(len(y)), y] = 0
    size = math.fsum(alpha.sum(axis=1).tolist())
    if size <= TINY:
        return np.zeros(alpha.shape, np.int64), -BITS
    unit = math.frexp(size)[1] + 1 - BITS
    mass = np.ldexp(alpha, -unit).astype(np.int64)
    cut(mass, np.ldexp(np.minimum(share, size), -unit).astype(np.int64))
    balance(mass, y)
    return mass, unit


def cut(mass: np.ndarray, most: np.ndarray) -> None:
    """Lower whole numbers (n, K), in place, so that each row has at most the sum `most` (n,)."""
    over = np.maximum(mass.sum(axis=1) - most, 0)
    for k in range(mass.shape[1]):
        off = np.minimum(mass[:, k], over)
        mass[:, k] -= off
        over -= off


def between(mass: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The mass (K, K) of the options of each class p towards each class k."""
    return np.array([mass[y == p].sum(axis=0) for p in range(mass.shape[1])])


def balance(mass: np.ndarray, y: np.ndarray) -> None:
    """Take mass off, in place, until as much is in each class's options as in those towards it.

    While a class has more in its own, a path of options leads from it to one that has less: else
    the classes that it reaches would have more in their own options, and no option leads out of
    them. The shortest path loses the same mass at each of its steps.
    """
    given = between(mass, y)
    left = given.copy()
    excess = left.sum(axis=1) - left.sum(axis=0)
    while (excess > 0).any():
        path = _path(left > 0, int(excess.argmax()), excess < 0)
        steps = path[:-1], path[1:]
        off = min(excess[path[0]], -excess[path[-1]], left[steps].min())
        left[steps] -= off
        excess[path[0]] -= off
        excess[path[-1]] += off
    for p, k in np.argwhere(left < given):
        rows = np.flatnonzero((y == p) & (mass[:, k] > 0))
        mass[rows, k] = _less(mass[rows, k].astype(object), int(given[p, k] - left[p, k]))


def _path(steps: np.ndarray, start: int, ends: np.ndarray) -> list[int]:
    """The classes of a shortest path from the start to one of the ends (K,), by steps (K, K)."""
    paths = [[start]]
    seen = {start}
    for path in paths:  # it grows
        if ends[path[-1]]:
            return path
        for k in np.flatnonzero(steps[path[-1]]).tolist():
            if k not in seen:
                seen.add(k)
                paths.append([*path, k])
    raise AssertionError("the masses do not add up")


def _less(mass: np.ndarray, amount: int) -> np.ndarray:
    """Python's whole numbers (m,), lowered in proportion, so that their sum falls by the amount."""
    left = mass - mass * amount // mass.sum()
    rest = left.sum() - (mass.sum() - amount)  # less than m
    return left - np.clip(rest - (np.cumsum(left) - left), 0, left)


# --- the lower bound -----------------------------------------------------------------------------


def _violation(
    problem: JointProblem,
    centre: np.ndarray,
    ranges: np.ndarray,
    mass: np.ndarray,
    flow: np.ndarray | None,
) -> float:
    """The largest share of a feature's range by which alpha = mass 2^-61 misses its constraints.

    Here alpha, and the flow, are in units of 2^scale, of which the sum of alpha is at most half.
    Features are scaled by powers of two, in the L-infinity ball each by its own.
    """
    by_cuts = problem.norm == "inf" or problem.eps == 0
    varies = np.flatnonzero(ranges > 0)  # elsewhere x - c is 0
    if not len(varies) or not mass.any():
        return 0.0
    if flow is None and not by_cuts:
        raise ValueError(
            f"the norm {problem.norm} needs a flow (K, K, d) for more than two classes: pass "
            "flow=best.flow, of the result of minimise"
        )
    mantissas, own = np.frexp(ranges[varies])
    exponents = own if by_cuts else np.full(len(own), own.max())
    p, q = np.triu_indices(len(problem.classes), 1)
    masses = between(mass, problem.y)
    A = (masses + masses.T)[p, q]
    N, steps = _differences(problem, varies, centre, exponents, mass)
    off = (steps + 2 * len(p) + 32) * U * np.maximum(np.ldexp(mantissas, own - exponents), LEAST)
    with np.errstate(over="ignore"):
        eps = np.minimum(np.ldexp(problem.eps, -exponents), LARGEST)
    eps[eps < LEAST] = 0
    if by_cuts:
        misses = _misses_of_cuts(A, N[p, q], p, q, eps - off)
    else:
        assert flow is not None
        with np.errstate(over="ignore"):
            given = np.ldexp(flow[p, q][:, varies], -exponents)
        given = np.clip(given, -LARGEST, LARGEST)
        misses = _misses_of_flow(A, N[p, q], p, q, given, int(problem.norm), eps[0], off)
    with np.errstate(over="ignore"):
        return float(np.ldexp(misses / mantissas, exponents - own).max())


def _differences(
    problem: JointProblem,
    varies: np.ndarray,
    centre: np.ndarray,
    exponents: np.ndarray,
    mass: np.ndarray,
) -> tuple[np.ndarray, int]:
    """N (K, K, k) of the features that vary, and the number of roundings in a row behind it.

    Samples are centred, features times 2^-exponent. The error of a sum grows with the block and
    the number of blocks.
    """
    K, used = mass.shape[1], mass.any(axis=1)
    N = np.zeros((K, K, len(varies)))
    longest = 0
    for p in range(K):
        own = np.flatnonzero(used & (problem.y == p))
        block = math.isqrt(len(own)) + 1
        longest = max(longest, block)
        for k in range(0, len(own), block):
            rows = own[k : k + block]
            away = np.ldexp(problem.x[np.ix_(rows, varies)] - centre[varies], -exponents)
            N[p] += np.dot(np.ldexp(mass[rows].astype(float), -BITS).T, away)
    return N - N.transpose(1, 0, 2), 2 * longest + 12


def _misses_of_cuts(
    A: np.ndarray, N: np.ndarray, p: np.ndarray, q: np.ndarray, allowed: np.ndarray
) -> np.ndarray:
    """By how much |sum of N| exceeds `allowed` times sum of A at most, over sets of classes; (k,).

    The sums are over the pairs that a set separates. As many numbers are 0 exactly where A is.

    Args:
        A, N: (m,) and (m, k), of the pairs of classes p (m,) and q (m,).
        allowed: (k,).
    """
    misses, last = np.zeros(len(allowed)), int(q.max())
    for start in range(1, 2**last, CUTS):  # sets without the last class: the others are the rest
        sets = np.arange(start, min(start + CUTS, 2**last))
        inside = (sets[:, None] >> np.arange(last + 1)) & 1
        crossed = inside[:, p] - inside[:, q]
        masses = np.ldexp((np.abs(crossed) @ A).astype(float), -BITS)
        sizes = np.abs(np.dot(crossed.astype(float), N))
        np.maximum(misses, (sizes - masses[:, None] * allowed).max(axis=0), out=misses)
    return misses


def _misses_of_flow(
    A: np.ndarray,
    N: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    flow: np.ndarray,
    order: int,
    eps: float,
    off: np.ndarray,
) -> np.ndarray:
    """sum_pq |e_pq| (k,): what a flow (m, k), once its sums are right, is too large by.

    It is tried as it is and with its sums made right by potentials, which spreads what they lack in
    proportion to A; what rounding leaves of that goes along the tree, in both.

    Args:
        A, N, p, q: as of `_misses_of_cuts`.
        off: (k,) the error of N is at most off A.
    """
    K, mass = int(q.max()) + 1, np.ldexp(A.astype(float), -BITS)
    flow = np.where(A[:, None] > 0, flow, 0)
    ends = np.zeros((len(p), K))
    ends[np.arange(len(p)), p], ends[np.arange(len(p)), q] = 1, -1
    inverse = np.linalg.pinv(ends.T @ (mass[:, None] * ends), hermitian=True)
    potentials = inverse @ (ends.T @ (N - flow))
    level = flow + mass[:, None] * (ends @ potentials)
    tree = _tree(A, p, q, K)
    few, tried = (2 * len(p) + 32) * U, []
    for one in (flow, level):
        size = np.abs(one)
        for pair, inside in tree:
            crossed = inside[p] - inside[q]
            lacks = np.abs(np.dot(crossed, N - one))
            size[pair] += lacks + np.abs(crossed) @ (mass[:, None] * off + few * np.abs(one))
        misses = np.zeros(len(off))
        for sizes, allowed in zip(size, eps * mass * (1 - FEW), strict=True):
            length = rounding.norm(sizes, order) * (1 + FEW)
            if length > allowed:
                misses += sizes * (1 - allowed / length)
        tried.append(misses * (1 + len(p) * FEW))
    return min(tried, key=np.max)


def _tree(A: np.ndarray, p: np.ndarray, q: np.ndarray, K: int) -> list[tuple[int, np.ndarray]]:
    """A spanning forest of pairs of large mass: their places, and the classes on the side of p.

    The classes are marked by 1.0 in an array (K,).
    """
    part, chosen = np.arange(K), []
    for pair in np.argsort(-A, kind="stable").tolist():
        one, other = part[p[pair]], part[q[pair]]
        if A[pair] > 0 and one != other:
            part[part == other] = one
            chosen.append(pair)
    found = []
    for pair in chosen:
        side = np.arange(K) == p[pair]
        for _ in range(K):
            for other in chosen:
                if other != pair and (side[p[other]] or side[q[other]]):
                    side[p[other]] = side[q[other]] = True
        found.append((pair, side.astype(float)))
    return found


def _entropy(alpha: np.ndarray, share: np.ndarray) -> float:
    """A lower bound of sum_i s_i H(alpha_i / s_i), for alpha (n, K) without its own classes.

    alpha_ik / s_i, and their sum over k, are off by less than 8 K u of themselves. Both terms of H
    are concave in them. So each is least at one of the two ends of what it may be.
    """
    used = alpha.any(axis=1)
    alpha, share = alpha[used], share[used]
    a, terms = alpha / share[:, None], np.zeros(len(share))
    for one, term in (*((column, _term) for column in a.T), (a.sum(axis=1), _term_of_rest)):
        ends = [term(np.minimum(one * (1 + side * len(a.T) * 8 * U), 1.0)) for side in (-1, 1)]
        terms += np.minimum(*ends)
    return math.fsum((share * terms).tolist()) * (1 - a.shape[1] * FEW)


def _term(a: np.ndarray) -> np.ndarray:
    """-a log(a), and 0 below TINY, where it is more."""
    return -a * np.log(np.where(a > TINY, a, 1.0))


def _term_of_rest(a: np.ndarray) -> np.ndarray:
    """-(1 - a) log(1 - a)."""
    return -(1 - a) * np.log1p(-np.where(a < 1, a, 0.0))
