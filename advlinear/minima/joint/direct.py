"""The minimum of several classes in the L2 and L1 balls, over all weights at once.

theta holds the weights and the biases of all classes but the last, and for each pair of classes p
and q a bound of eps ||w_p - w_q||*. The interior point (interior.py) solves for them; the dual
variables of these bounds are the flow of the certificate.

Some classes may be separable from the others, with all worst-case margins between the two groups
positive. The weights can then be made as large as wanted, and alpha is 0 for all options between the groups:
the dual has no point inside its constraints, near which the interior point could end. So alpha and
the flow are then solved for in each group by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from advlinear.minima import interior, program
from advlinear.minima.joint import certificate, cones, losses, operators
from advlinear.samples import JointProblem

MOST_WEIGHTS = 1000  # K (d + 1): the matrix of a step has as many rows, and one for each pair
MOST_TRIES = 4  # steps that the interior point is given to bring alpha within the constraints
# Of the sum of alpha: classes with less between them may be separable.
SEPARABLE = (1e-9, 1e-7, 1e-5, 1e-3)
Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, float]]


def solve(problem: JointProblem, tol: float, report: Callable | None) -> Found:
    """W (K, d), b (K,), alpha (n, K), a flow (K, K, d), and what `certificate` says of them.

    Samples of weight 0 are left out of the solver, not of the proof.

    Raises:
        ValueError: there are too many classes and features; or the steps overflow.
    """
    K, d = len(problem.classes), problem.x.shape[1]
    if K * (d + 1) > MOST_WEIGHTS:
        raise ValueError(
            f"the norm {problem.norm} takes K (d + 1) <= {MOST_WEIGHTS:,} for K > 2 classes of d "
            f"features, not {K} classes of {d:,}: take norm inf, or fewer features"
        )
    used = problem.weights > 0
    of_weight = {name: getattr(problem, name)[used] for name in ("x", "y", "weights")}
    found = _Solver(replace(problem, **of_weight), tol, report).solve()
    if used.all():
        return found
    W, b, inner, flow, _ = found
    alpha = np.zeros((len(used), K))
    alpha[used] = inner
    return W, b, alpha, flow, certificate.bounds(problem, W, b, alpha, flow)


class _Solver:
    """The interior point for one problem.

    Attributes:
        used, centre, span: of the features that vary, as from `program.unit_ranges`.
        operator: of these features, centred and scaled to a range of 1.
        cone: of a slightly smaller eps than `ball`, so that alpha and the flow end further inside
            their constraints than rounding reaches.
        sample_weight: (n,) the shares of the samples times n; lightest: the smallest.
        found: what was tried as a proof.
    """

    def __init__(self, problem: JointProblem, tol: float, report: Callable | None):
        self.problem, self.tol, self.report = problem, tol, report
        self.n_classes = len(problem.classes)
        self.used, self.centre, self.span, eps = program.unit_ranges(problem.x, problem.eps)
        x = (problem.x[:, self.used] - self.centre) / self.span
        self.operator = operators.Classes(x, problem.y, self.n_classes)
        self.ball, self.cone = (
            cones.Pairs(program.norm_cone(problem.norm, one / self.span), self.n_classes)
            for one in (eps, eps * (1 - program.INSIDE * tol))
        )
        self.sample_weight = problem.weights / problem.weights.sum() * len(x)
        self.lightest = self.sample_weight.min()
        self.found: list[Found] = []

    def solve(self) -> Found:
        """The best of what was found."""
        operator, c = self.operator, self.sample_weight
        none = np.zeros(self.cone.n_pairs + (self.n_classes - 1) * operator.x.shape[1])
        start = none.copy()
        start[: self.cone.n_pairs] = 1
        first = functools.partial(
            losses.first_state, self.problem.loss, c, operator.options, operator.own, operator.rival
        )
        point = interior.solve(operator, self.cone, none, first, start, self._stopping_rule)
        if not self.found or not self._proves(self.found[-1]):
            self._try(self._weights(point), *self._alpha_and_flow(point))
        if not self._proves(self.found[-1]):
            self._try_groups(point)
        enough = [one for one in self.found if one[-1]["gap"] <= self.tol] or self.found
        return min(enough, key=lambda one: (one[-1]["violation"] > 0, one[-1]["gap"]))

    def _stopping_rule(self, point: interior.Point, number: int) -> tuple[bool, float]:
        """Once the bounds are close, the certificate decides."""
        margins = self.operator.matvec(self.ball.tightest(point.theta))
        primal = self._total(margins)
        gap = (primal - self._dual(point.alpha)) / max(primal, self.lightest)
        done = bool(margins.min() > 0)
        if abs(gap) <= self.tol / 2 and not done:
            self._try(self._weights(point), *self._alpha_and_flow(point))
            done = self._proves(self.found[-1]) or len(self.found) == MOST_TRIES
        if self.report:
            n = len(self.sample_weight)
            self.report(f"{n} samples, step {number}: loss {primal / n:.7f}, gap {gap:.1e}")
        return done, 0.1 * self.tol * max(primal, self.lightest)

    # --- values ----------------------------------------------------------------------------------

    def _total(self, margins: np.ndarray) -> float:
        each = losses.losses_of(self.problem.loss, self.operator.options, margins)
        return float(self.sample_weight @ each)

    def _dual(self, alpha: np.ndarray) -> float:
        """The dual value of alpha (R,), but for its constraints."""
        if self.problem.loss == "hinge":
            return float(alpha.sum())
        c, options = self.sample_weight, self.operator.options
        parts = np.append(alpha / c[options.sample], 1 - options.sum(alpha) / c)
        weights = np.append(c[options.sample], c)
        kept = parts > 0
        return float(-weights[kept] @ (parts[kept] * np.log(parts[kept])))

    # --- proofs ----------------------------------------------------------------------------------

    def _try(
        self, weights: tuple[np.ndarray, np.ndarray], alpha: np.ndarray, flow: np.ndarray
    ) -> None:
        """Add to what is found."""
        proof = certificate.bounds(self.problem, *weights, alpha, flow)
        self.found.append((*weights, alpha, flow, proof))

    def _proves(self, found: Found) -> bool:
        """At eps = 0 alpha keeps its constraint to rounding, as that is an equation."""
        proof = found[-1]
        return proof["gap"] <= self.tol and (proof["violation"] == 0 or self.problem.eps == 0)

    def _weights(self, point: interior.Point) -> tuple[np.ndarray, np.ndarray]:
        """W (K, d) and b (K,) of an iterate, or those of the two cases in which they are known."""
        theta = self.ball.tightest(point.theta)
        margins, weights = self.operator.matvec(theta), self.operator.weights(theta)
        if margins.min() > 0:  # the loss is then (near) 0
            enough = 1 + program.INSIDE * self.tol
            if self.problem.loss == "logistic":
                enough = np.log(2 * len(margins) / (self.lightest * self.tol))
            weights = weights * max(1.0, enough / margins.min())
        else:
            without = self._without_weights()
            loss, least = (self._total(self.operator.matvec(one)) for one in (without, theta))
            if loss - least <= self.tol / 4 * max(least, self.lightest):
                weights = self.operator.weights(without)
        weights = weights - weights.mean(axis=0)  # one vector may be added to those of all classes
        W = np.zeros((self.n_classes, self.problem.x.shape[1]))
        W[:, self.used] = weights[:, :-1] / self.span
        b = weights[:, -1] - W[:, self.used] @ self.centre
        if not (np.isfinite(W).all() and np.isfinite(b).all()):
            raise ValueError(
                "no certificate: the steps of the solver overflow: " + program.advice(self.problem)
            )
        return W, b

    def _without_weights(self) -> np.ndarray:
        """theta of the best biases where all weights are 0."""
        masses = np.bincount(self.problem.y, self.sample_weight)
        biases = np.log(masses)
        if self.problem.loss == "hinge":
            biases = (masses > masses.sum() / 2).astype(float)
        classes = np.zeros((self.n_classes - 1, self.operator.x.shape[1]))
        classes[:, -1] = biases[:-1] - biases[-1]
        return np.append(np.zeros(self.cone.n_pairs), classes)

    def _alpha_and_flow(self, point: interior.Point) -> tuple[np.ndarray, np.ndarray]:
        """alpha (n, K) and the flow (K, K, d) of an iterate; 0 where all margins are positive."""
        n, K = self.operator.others.shape
        alpha, flow = np.zeros((n, K)), np.zeros((K, K, self.problem.x.shape[1]))
        if self.operator.matvec(self.ball.tightest(point.theta)).min() > 0:
            return alpha, flow
        alpha[self.operator.others] = point.alpha / n
        back = np.stack([self.cone.cone.rmatvec(one) for one in self.cone.each(point.z)]) / n
        pairs = self.cone.first[:, None], self.cone.second[:, None], self.used
        flow[pairs] = -back[:, 1:-1] * self.span
        return alpha, flow - flow.transpose(1, 0, 2)

    # --- groups of classes -----------------------------------------------------------------------

    def _try_groups(self, point: interior.Point) -> None:
        """With alpha and the flow of each group of classes by itself."""
        import scipy.sparse.csgraph  # here, as `attack` does not need it

        y, K = self.problem.y, self.n_classes
        alpha, flow = self._alpha_and_flow(point)
        mass = np.array([alpha[y == p].sum(axis=0) for p in range(K)])
        counts = {1, K + 1}
        for least in SEPARABLE:
            n_groups, group = scipy.sparse.csgraph.connected_components(
                mass > least * mass.sum(), directed=False
            )
            if n_groups in counts:
                continue
            counts.add(n_groups)
            alpha, flow = np.zeros_like(alpha), np.zeros_like(flow)
            for members in (np.flatnonzero(group == one) for one in range(n_groups)):
                if len(members) > 1:
                    self._solve_group(members, alpha, flow)
            self._try(self._weights(point), alpha, flow)
            if self._proves(self.found[-1]):
                return

    def _solve_group(self, members: np.ndarray, alpha: np.ndarray, flow: np.ndarray) -> None:
        """Set alpha and the flow, in place, between these classes."""
        problem = self.problem
        rows = np.flatnonzero(np.isin(problem.y, members))
        part = replace(
            problem,
            x=problem.x[rows],
            y=np.searchsorted(members, problem.y[rows]),
            classes=problem.classes[members],
            weights=problem.weights[rows],
        )
        _, _, inner, inner_flow, _ = _Solver(part, self.tol, self.report).solve()
        share = part.weights.sum() / problem.weights.sum()
        alpha[np.ix_(rows, members)] = share * inner
        flow[np.ix_(members, members)] = share * inner_flow
