"""Groups of classes that are separable from each other, each of which is solved for by itself.

Groups are separable if some weights, the same for all classes of a group, make all worst-case
margins between groups positive. Any multiple of them may be added to the weights, and alpha is 0
between the groups. The dual then has no point strictly inside all its constraints, which the
interior point would need. See docs/theory.md, "Separable groups".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear.minima import Array, Indices, rounding
from advlinear.minima.joint.losses import large_margin
from advlinear.samples import JointProblem

NOTHING = 1e-9  # of the sum of alpha: the simplex method may leave less between separable classes

Found = tuple[Array, Array, Array, Array | None, dict[str, float]]
Groups = tuple[Indices, Array, Array]  # the group (K,) of each class; W and b of each
Solver = Callable[[JointProblem, float], Found]  # `solve` of direct.py or generation.py, given tol


def connected(mass: Array, few: float) -> Indices:
    """The group (K,) of each class, so that any two have at most `few` of all mass between them.

    mass: (K, K), of the options of each class towards each.
    """
    import scipy.sparse.csgraph  # here, as `attack` does not need it

    return scipy.sparse.csgraph.connected_components(mass > few * mass.sum(), directed=False)[1]


def separable(problem: JointProblem, group: Indices, tol: float, solve: Solver) -> Groups | None:
    """Groups that are separable: those given (K,), or unions of them; None if there are none.

    With the groups as classes the least hinge is 0. If it is not, no alpha is between those groups
    that are separable, and all the others are joined.
    """
    share = problem.weights / problem.weights.sum()
    while (n_groups := int(group.max()) + 1) > 1:
        y = group[problem.y]
        between = replace(problem, y=y, classes=np.arange(n_groups), loss="hinge")
        W, b, alpha, _, proof = solve(between, tol)
        if proof["primal"] < share[share > 0].min():  # no margin is below 0
            return group, W, b
        union = connected(np.array([alpha[y == p].sum(axis=0) for p in range(n_groups)]), NOTHING)
        if union.max() + 1 == n_groups:  # alpha is not that of a minimum
            return None
        group = union[group]
    return None


def solve_each(problem: JointProblem, groups: Groups, tol: float, solve: Solver) -> tuple:
    """W (K, d), b (K,), alpha (n, K) and a flow (K, K, d), 0 if `solve` gives none.

    They are the minima of all groups, moved apart by a multiple of the groups' own weights.
    """
    group, apart, shift = groups
    K, (n, d) = len(group), problem.x.shape
    W, b, alpha, flow = np.zeros((K, d)), np.zeros(K), np.zeros((n, K)), np.zeros((K, K, d))
    for members in (np.flatnonzero(group == one) for one in range(len(apart))):
        if len(members) == 1:
            continue
        rows = np.flatnonzero(np.isin(problem.y, members))
        part = replace(
            problem,
            x=problem.x[rows],
            y=np.searchsorted(members, problem.y[rows]),
            classes=problem.classes[members],
            weights=problem.weights[rows],
        )
        W[members], b[members], inner, between, _ = solve(part, tol / 4)  # their gaps add up
        share = part.weights.sum() / problem.weights.sum()
        alpha[np.ix_(rows, members)] = share * inner
        if between is not None:
            flow[np.ix_(members, members)] = share * between
    crossed = (group[problem.y][:, None] != group) & (problem.weights > 0)[:, None]
    apart, shift = apart[group], shift[group]
    moved, stayed = (_margins(problem, *one)[crossed].min() for one in ((apart, shift), (W, b)))
    times = max(0.0, large_margin(problem.loss, K, problem.weights, tol) - stayed) / moved
    return W + times * apart, b + times * shift, alpha, flow  # margins are concave


def _margins(problem: JointProblem, W: Array, b: Array) -> Array:
    """The worst-case margins (n, K); those over the own class are 0."""
    order, centre = {"inf": 1, "2": 2, "1": np.inf}[problem.norm], problem.x.mean(axis=0)
    scores = (problem.x - centre) @ W.T + (b + W @ centre)
    costs = [[problem.eps * rounding.norm(np.abs(p - q), order) for q in W] for p in W]
    return (
        np.take_along_axis(scores, problem.y[:, None], axis=1) - scores - np.array(costs)[problem.y]
    )
