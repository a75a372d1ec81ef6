"""The smallest perturbation after which a given class, the target t, has the largest score.

With a_k = w_k - w_t, and g_k the margin of class k over the target, this is (A4) of docs/theory.md,

    min ||delta||  over  a_k.delta <= -g_k for each k other than t,  low <= x + delta <= high:

a linear program for the L-infinity and the L1 norm, a quadratic one for L2. Few rivals matter. So
the program begins with the hardest one alone, of which `balls.step` is the solution, and gets
those that the solution does not beat, until there are none. For any lambda >= 0 whatever beats all
rivals also beats one of a = sum_k lambda_k a_k and g = sum_k lambda_k g_k. So the radius of that
one, by `balls.distance`, is a lower bound, and with the multipliers of the solution as lambda it
proves the solution.
"""

from __future__ import annotations

import numpy as np

from advlinear.balls import ORDER, Box, box_of, distance, step

EXACT = 1e-7  # the largest relative difference of a radius and its proof
BEATEN = 1e-10  # a rival counts as beaten if its margin is at most this share of the hardest's


def nearest(
    margins: np.ndarray,
    target: np.ndarray,
    x: np.ndarray,
    box: Box | None,
    weights: np.ndarray,
    norm: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The sizes (n,) of the smallest perturbations, and these, delta (n, d).

    A size is 0 where no class is ahead of the target, inf where nothing in the box is enough.

    Args:
        margins: (n, K) of each class over the target; -inf at the target.
        target: (n,) its index; x: (n, d); box: None or two sides; weights: (K, d).
        norm: of the ball, "inf", "2" or "1".

    Raises:
        ValueError: a solution is not proved to 1e-7 of its size.
    """
    radii, delta = np.zeros(len(x)), np.zeros(x.shape)
    for i in np.flatnonzero((margins > 0).any(axis=1)):
        others = np.flatnonzero(np.arange(len(weights)) != target[i])
        a, g = weights[others] - weights[target[i]], margins[i, others]
        one = np.array([i])
        found = _one(a, g, x[one], box_of(one, box), norm)
        if found is None:
            raise ValueError(f"the program of sample {i} is not solved to {EXACT} of its radius")
        radii[i], delta[i] = found
    return radii, delta


def _one(
    a: np.ndarray, g: np.ndarray, x: np.ndarray, box: Box | None, norm: str
) -> tuple[float, np.ndarray] | None:
    """Size and delta (d,) of one sample x (1, d), from a (k, d) and the margins g (k,) of rivals.

    None where no solution is proved.
    """
    alone = [distance(g[[k]], a[k], x, norm, box)[0] if g[k] > 0 else 0.0 for k in range(len(g))]
    hardest = int(np.argmax(alone))
    radius = alone[hardest]
    if np.isinf(radius):
        return np.inf, np.zeros(x.shape[1])
    delta = step(a[hardest], x, np.array([radius]), norm, box, g[[hardest]])[0]
    program = [hardest]
    while True:
        missing = g + a @ delta
        missing[program] = -np.inf
        worst = int(np.argmax(missing))
        if missing[worst] <= BEATEN * g[hardest]:
            return radius, delta
        program.append(worst)
        unit = alone[hardest]  # so that the solver sees numbers near 1
        low, high = (-np.inf, np.inf) if box is None else ((side - x)[0] / unit for side in box)
        low, high, _ = np.broadcast_arrays(low, high, a[0])
        rows, margins = a[program], g[program] / unit
        sizes = np.abs(rows).max(axis=1)
        rows, margins = rows / sizes[:, None], margins / sizes
        if norm == "2":
            solved = _quadratic(rows, margins, low, high)
        else:
            solved = _linear(rows, margins, low, high, norm)
        if solved is None:
            return np.inf, np.zeros(x.shape[1])
        delta, multipliers = solved
        delta = delta * unit
        radius = np.linalg.norm(delta, ORDER[norm])
        proof = distance(multipliers @ margins[:, None] * unit, multipliers @ rows, x, norm, box)[0]
        if not abs(radius - proof) <= EXACT * radius:
            return None


def least_margin(
    a: np.ndarray, g: np.ndarray, x: np.ndarray, box: Box | None, ahead: np.ndarray
) -> np.ndarray | None:
    """The delta (d,) with the least margin of the rivals `ahead` (k,), 1 or 0, over the target.

    The other rivals are not ahead of the target. None where there is no such delta, or where the
    linear program is not solved.

    Args:
        a, g: as of `_one`; x: (1, d); box: None or two sides.
    """
    import scipy.optimize

    rows = np.column_stack([a, -ahead])
    low, high = (-np.inf, np.inf) if box is None else ((side - x)[0] for side in box)
    bounds = np.append(np.broadcast_arrays(low, high, a[0])[:2], [[-np.inf], [np.inf]], axis=1).T
    objective = np.append(np.zeros(a.shape[1]), 1.0)
    found = scipy.optimize.linprog(objective, rows, -g, bounds=bounds, method="highs")
    return found.x[:-1] if found.status == 0 else None


def _linear(
    a: np.ndarray, g: np.ndarray, low: np.ndarray, high: np.ndarray, norm: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """delta (d,) and multipliers (k,) in the L-infinity or the L1 ball, by HiGHS.

    None where nothing between low and high (d,) is enough.

    Raises:
        ValueError: HiGHS does not solve the program.
    """
    import scipy.optimize
    import scipy.sparse

    k, d = a.shape
    if norm == "1":  # delta = up - down, both at least 0
        rows, right = np.hstack([a, -a]), -g
        objective = np.ones(2 * d)
        bounds = np.stack([np.zeros(2 * d), np.concatenate([high, -low])], axis=1)
    else:  # the last variable is the size, which bounds each |delta_j|
        one, eye = scipy.sparse.csr_array(np.ones((d, 1))), scipy.sparse.eye_array(d)
        rows = scipy.sparse.block_array([[a, None], [eye, -one], [-eye, -one]])
        right = np.concatenate([-g, np.zeros(2 * d)])
        objective = np.append(np.zeros(d), 1.0)
        bounds = np.stack([np.append(low, 0), np.append(high, np.inf)], axis=1)
    found = scipy.optimize.linprog(
        objective,
        rows,
        right,
        bounds=bounds,
        method="highs",
        options=dict(primal_feasibility_tolerance=1e-10, dual_feasibility_tolerance=1e-10),
    )
    if found.status == 2:
        return None
    if found.status != 0:
        raise ValueError(f"a program towards the target is not solved: {found.message}")
    delta = found.x[:d] - found.x[d:] if norm == "1" else found.x[:d]
    return delta, -found.ineqlin.marginals[:k]


def _quadratic(
    a: np.ndarray, g: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """The same in the L2 ball, from the dual in the k multipliers.

    The dual is concave: max over lambda >= 0 of lambda.g + sum_j min over delta_j in the box of
    delta_j^2 / 2 + (a^T lambda)_j delta_j. L-BFGS-B comes near the maximum. Newton steps on the
    multipliers, over the features that are not at a bound, end where all used margins are 0 up to
    rounding.
    """
    import scipy.optimize

    if _linear(a, g, low, high, "1") is None:
        return None

    def delta_of(multipliers: np.ndarray) -> np.ndarray:
        return np.clip(-multipliers @ a, low, high)

    def dual(multipliers: np.ndarray) -> tuple[float, np.ndarray]:
        delta = delta_of(multipliers)
        return -(multipliers @ (g + a @ delta) + delta @ delta / 2), -(g + a @ delta)

    start = np.maximum(g, 0) / (a * a).sum(axis=1)
    found = scipy.optimize.minimize(
        dual,
        start,
        jac=True,
        bounds=[(0, None)] * len(g),
        method="L-BFGS-B",
        options=dict(maxiter=1000, ftol=1e-15, gtol=1e-10),
    )
    multipliers = found.x
    for _ in range(50):
        delta = delta_of(multipliers)
        short = g + a @ delta
        used = (multipliers > 0) | (short > 0)
        free = a[:, (delta > low) & (delta < high)]
        change = np.zeros(len(g))
        change[used] = np.linalg.lstsq(free[used] @ free[used].T, short[used])[0]
        multipliers = np.maximum(multipliers + change, 0)
        if np.abs(change).max() <= 1e-15 * multipliers.max():
            break
    return delta_of(multipliers), multipliers
