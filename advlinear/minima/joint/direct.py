"""The minimum of several classes in the L2 and L1 balls, and at eps = 0 in any, over all weights.

theta holds the weights and the biases of all classes but the last, and for each pair of classes p
and q a bound of eps ||w_p - w_q||*. The interior point (interior.py) solves for them. The dual
variables of these bounds are the flow of the certificate, which decides what is returned.
Groups of classes that are separable from each other are solved for by themselves (groups.py).
Numbers in brackets are equations of docs/theory.md, "The interior point".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from advlinear.minima import interior, program
from advlinear.minima.joint import certificate, cones, groups, losses, operators
from advlinear.samples import JointProblem

SEPARABLE = 1e-5, 1e-7  # of the sum of alpha: classes with less between them may be separable
DROPPED = 0.0, 1e-9, 1e-7  # of its bound: a smaller alpha is 0 in one of the proofs that are tried
ROUNDS = 20  # in which what (4) misses is taken off alpha and the flow
VANISHING = 1e-30  # times z of a pair of classes whose alpha is set to 0

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, float]]


def solve(problem: JointProblem, tol: float, report: Callable | None) -> Found:
    """W (K, d), b (K,), alpha (n, K), a flow (K, K, d), and what `certificate` says of them.

    Samples of weight 0 are left out of the solver, not of the proof.

    Raises:
        ValueError: the steps overflow.
    """
    used = problem.weights > 0
    of_weight = {name: getattr(problem, name)[used] for name in ("x", "y", "weights")}
    found = _Solver(replace(problem, **of_weight), tol, report).solve()
    if used.all():
        return found
    W, b, inner, flow, _ = found
    alpha = np.zeros((len(used), len(W)))
    alpha[used] = inner
    return W, b, alpha, flow, certificate.bounds(problem, W, b, alpha, flow)


class _Solver:
    """The interior point for one problem, all of whose weights are positive.

    Attributes:
        used, centre, span: of the features that vary, as from `program.unit_ranges`.
        exact: at eps = 0 alpha keeps its constraint to rounding, as it is an equation.
        operator: of these features, centred and scaled to a range of 1.
        cone: of a slightly smaller eps than `ball`, so that alpha and the flow end further inside
            their constraints than rounding reaches.
        sample_weight: (n,) the shares of the samples times n; lightest: the smallest.
        found: what was tried as a proof; late: after how many steps.
        tried: groups of classes of which it is known whether they are separable.
    """

    def __init__(self, problem: JointProblem, tol: float, report: Callable | None):
        self.problem, self.tol, self.report = problem, tol, report
        self.n_classes = len(problem.classes)
        self.used, self.centre, self.span, eps = program.unit_ranges(problem.x, problem.eps)
        self.exact = eps == 0
        x = (problem.x[:, self.used] - self.centre) / self.span
        self.operator = operators.Classes(x, problem.y, self.n_classes)
        self.ball, self.cone = (
            cones.Pairs(program.norm_cone(problem.norm, one / self.span), self.n_classes)
            for one in (eps, eps * (1 - program.INSIDE * tol))
        )
        self.sample_weight = problem.weights / problem.weights.sum() * len(x)
        self.lightest = float(self.sample_weight.min())
        self.found: list[Found] = []
        self.late = 0
        self.tried: set[bytes] = set()

    def solve(self) -> Found:
        """The best of what is found."""
        operator, c = self.operator, self.sample_weight
        none = np.zeros(self.cone.n_pairs + (self.n_classes - 1) * operator.x.shape[1])
        start = none.copy()
        start[: self.cone.n_pairs] = 1
        first = functools.partial(
            losses.first_state, self.problem.loss, c, operator.options, operator.own, operator.rival
        )
        point = interior.solve(operator, self.cone, none, first, start, self._stopping_rule)
        if not self._is_proved():
            self._try_iterate(point)
        return program.best_proved(self.found, self.tol)

    def _stopping_rule(self, iterate: interior.Iterate, number: int) -> tuple[bool, float]:
        """The certificate decides: once the bounds are close, or once groups are separable."""
        point = iterate.point
        margins = self.operator.matvec(self.ball.tightest(point.theta))
        primal = self._total(margins)
        dual = losses.dual_value(
            self.problem.loss, self.operator.options, self.sample_weight, point.alpha
        )
        gap = (primal - dual) / max(primal, self.lightest)
        done = bool(margins.min() > 0)
        if not done:
            if abs(gap) <= self.tol / 2:
                self._try_iterate(point)
                self.late += 1
            if not self._is_proved():
                self._try_groups(point)
            done = self._is_proved() or self.late == program.LATE
        if self.report:
            n = len(self.sample_weight)
            self.report(
                f"{self.n_classes} classes, {n} samples, step {number}: loss {primal / n:.7f}, "
                f"gap {gap:.1e}"
            )
        return done, 0.1 * self.tol * max(primal, self.lightest)

    # --- values ----------------------------------------------------------------------------------

    def _total(self, margins: np.ndarray) -> float:
        each = losses.losses_of(self.problem.loss, self.operator.options, margins)
        return float(self.sample_weight @ each)

    def _masses(self, alpha: np.ndarray) -> np.ndarray:
        """The sum of alpha (R,) between the classes of each pair."""
        return -self.operator.rmatvec(alpha)[: self.cone.n_pairs]

    def _are_positive(self, point: interior.Point) -> bool:
        """Whether all worst-case margins are, so that the minimum is 0."""
        return bool(self.operator.matvec(self.ball.tightest(point.theta)).min() > 0)

    # --- proofs ----------------------------------------------------------------------------------

    def _try(self, W: np.ndarray, b: np.ndarray, alpha: np.ndarray, flow: np.ndarray) -> None:
        """Add to what is found."""
        proof = certificate.bounds(self.problem, W, b, alpha, flow)
        self.found.append((W, b, alpha, flow, proof))

    def _try_iterate(self, point: interior.Point) -> None:
        weights = self._weights(point)
        for one in [point] if self._are_positive(point) else self._polished(point):
            self._try(*weights, *self._alpha_and_flow(one))
            if self._is_proved():
                return

    def _is_proved(self) -> bool:
        """Whether the last one found will do."""
        if not self.found:
            return False
        proof = self.found[-1][-1]
        return proof["gap"] <= self.tol and (proof["violation"] == 0 or self.exact)

    def _weights(self, point: interior.Point) -> tuple[np.ndarray, np.ndarray]:
        """W (K, d) and b (K,) of an iterate, or those of the two cases in which they are known."""
        theta = self.ball.tightest(point.theta)
        margins, weights = self.operator.matvec(theta), self.operator.weights(theta)
        if margins.min() > 0:
            enough = losses.large_margin(
                self.problem.loss, self.n_classes, self.sample_weight, self.tol
            )
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
        """theta of the best biases where all weights are 0, (42)."""
        masses = np.bincount(self.problem.y, self.sample_weight)
        biases = losses.best_biases(self.problem.loss, masses)
        classes = np.zeros((self.n_classes - 1, self.operator.x.shape[1]))
        classes[:, -1] = biases[:-1] - biases[-1]
        return np.append(np.zeros(self.cone.n_pairs), classes)

    def _alpha_and_flow(self, point: interior.Point) -> tuple[np.ndarray, np.ndarray]:
        """alpha (n, K) and the flow (K, K, d) of an iterate; 0 where all margins are positive."""
        n, K = self.operator.others.shape
        alpha, flow = np.zeros((n, K)), np.zeros((K, K, self.problem.x.shape[1]))
        if self._are_positive(point):
            return alpha, flow
        alpha[self.operator.others] = point.alpha / n
        back = np.stack([self.cone.cone.rmatvec(one) for one in self.cone.each(point.z)]) / n
        pairs = self.cone.first[:, None], self.cone.second[:, None], self.used
        flow[pairs] = -back[:, 1:-1] * self.span
        return alpha, flow - flow.transpose(1, 0, 2)

    def _polished(self, point: interior.Point) -> Iterator[interior.Point]:
        """The iterate with alpha and z that keep (4) to rounding; then without the smallest alpha.

        Near the end alpha changes by up to 1e9 times the margins, so that Newton's steps keep (4)
        to some 1e-10 only. Here each number changes in proportion to its size, (41).
        """
        operator, cone, options = self.operator, self.cone, self.operator.options
        c = self.sample_weight
        for least in DROPPED:
            alpha = np.where(point.alpha > least * c[options.sample], point.alpha, 0)
            few = self._masses(alpha) <= least * alpha.sum()  # of pairs
            alpha[few[operator.pair[operator.own, operator.rival]]] = 0
            z = (cone.each(point.z) * np.where(few, VANISHING, 1)[:, None]).ravel()
            rest = np.maximum(c - options.sum(alpha), least * c)
            curvature = losses.Coupled(options, alpha, rest)
            scaling = cone.scaling(cone.barrier_gradient(z), z)
            solve = operator.solver(operator.gram(curvature), scaling)
            for _ in range(ROUNDS):
                x = solve(operator.rmatvec(alpha) + cone.rmatvec(z))
                alpha = np.maximum(alpha - curvature.matvec(operator.matvec(x)), 0)
                z = z - scaling.hessian(cone.matvec(x))
            yield replace(point, alpha=alpha, z=z)

    # --- groups of classes -----------------------------------------------------------------------

    def _try_groups(self, point: interior.Point) -> None:
        """Classes with little alpha between them may be separable: then each group by itself."""
        mass = np.zeros((self.n_classes,) * 2)
        mass[self.cone.first, self.cone.second] = self._masses(point.alpha)

        def alone(problem: JointProblem, tol: float) -> Found:
            return _Solver(problem, tol, self.report).solve()

        for few in SEPARABLE:
            group = groups.connected(mass, few)
            if group.max() == 0 or group.tobytes() in self.tried:
                continue
            self.tried.add(group.tobytes())
            found = groups.separable(self.problem, group, self.tol, alone)
            if found is not None:
                self._try(*groups.solve_each(self.problem, found, self.tol, alone))
                return
