"""A first W and b of several classes by stochastic gradients, from which working sets are chosen.

Nothing that is proved depends on it. Adam (Kingma and Ba, 2015) is within about 1 % of the minimum
after 6,000 steps, in a few seconds.
"""

from __future__ import annotations

import numpy as np

from advlinear.minima import Array, Indices

STEPS = 6000
BATCH = 400  # samples in a step
RATE = 0.02  # of the first step; it falls to 0
DECAYS = 0.9, 0.999  # of Adam's two means


def descend(x: Array, y: Indices, c: Array, price: Array, n_classes: int) -> Array:
    """W and b, side by side (K, d + 1).

    Args:
        x: (n, d), centred, of a range of about 1.
        y: (n,) classes, 0 to K - 1.
        c: (n,) weights of the samples, 1 on average.
        price: (d,) what a difference of 1 between two classes' weights of a feature costs.
    """
    n, d = x.shape
    ones = np.ones((n, d + 1), np.float32)
    ones[:, :-1] = x
    price = np.append(price, 0)
    theta, mean, square = (np.zeros((n_classes, d + 1)) for _ in range(3))
    random = np.random.default_rng(0)
    for step in range(STEPS):
        rows = random.integers(n, size=min(n, BATCH))
        gradient = _gradient(theta, ones[rows], y[rows], c[rows], price)
        mean += (1 - DECAYS[0]) * (gradient - mean)
        square += (1 - DECAYS[1]) * (gradient**2 - square)
        unbiased = [1 - decay ** (step + 1) for decay in DECAYS]
        change = (mean / unbiased[0]) / (np.sqrt(square / unbiased[1]) + 1e-8)
        theta = theta - RATE * (1 - step / STEPS) ** 2 * change
    return theta


def _gradient(theta: Array, x: Array, y: Indices, c: Array, price: Array) -> Array:
    """The gradient (K, d + 1) of the mean robust hinge of some samples."""
    differences = theta[:, None] - theta
    costs = np.abs(differences) @ price
    scores = x @ theta.T.astype(np.float32)
    values = scores - np.take_along_axis(scores, y[:, None], axis=1) + costs[y]
    alpha = c[:, None] * shares(values, y, 0.0) / len(y)
    masses = np.zeros((len(theta),) * 2)
    np.add.at(masses, y, alpha)
    towards = alpha
    towards[np.arange(len(y)), y] = -alpha.sum(axis=1)
    push = np.einsum("pq,pqj->pj", masses + masses.T, np.sign(differences))
    return towards.T.astype(np.float32) @ x + push * price


def shares(behind: Array, y: Indices, smoothing: float) -> Array:
    """alpha (n, K) of samples of weight 1 from -m_ik (n, K); 0 for the own class.

    smoothing: above 0 to spread alpha over options that are nearly as bad.
    """
    samples = np.arange(len(y))
    values = behind + 1
    values[samples, y] = 0
    if not smoothing:
        alpha = np.zeros(values.shape)
        alpha[samples, values.argmax(axis=1)] = 1
    else:
        alpha = np.exp((values - values.max(axis=1, keepdims=True)) / smoothing)
        alpha /= alpha.sum(axis=1, keepdims=True)
    alpha[samples, y] = 0
    return alpha
