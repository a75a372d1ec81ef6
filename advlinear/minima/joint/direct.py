"""The minimum of several classes in the L2 and L1 balls, over all weights at once.

theta holds the weights and the biases of all classes but the last, and for each pair of classes p
and q a bound of eps ||w_p - w_q||*. The interior point (interior.py) solves for them. The dual
variables of these bounds are the flow of the certificate, which decides what is returned.

Groups of classes may be separable from each other: some weights, the same for all classes of a
group, make all worst-case margins between groups positive. Any multiple of them may be added to the
weights, and alpha is 0 between the groups. The dual then has no point strictly inside all its
constraints, which the interior point would need. So each group is solved for by itself. Numbers in
brackets are equations of docs/theory.md, "The interior point".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from advlinear.minima import interior, program
from advlinear.minima.joint import certificate, cones, losses, operators
from advlinear.samples import JointProblem

SEPARABLE = 1e-5, 1e-7  # of the sum of alpha: classes with less between them may be separable
DROPPED = 0.0, 1e-9, 1e-7  # of its bound: a smaller alpha is 0 in one of the proofs that are tried
ROUNDS = 20  # in which what (4) misses is taken off alpha and the flow
VANISHING = 1e-30  # times z of a pair of classes whose alpha is set to 0

Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, float]]
Groups = tuple[np.ndarray, np.ndarray, np.ndarray]  # the group (K,) of each class; W and b of each


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
        groups: the last ones that are.
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
        self.groups: Groups | None = None

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
        enough = [one for one in self.found if one[-1]["gap"] <= self.tol] or self.found
        return min(enough, key=lambda one: (one[-1]["violation"] > 0, one[-1]["gap"]))

    def _stopping_rule(self, point: interior.Point, number: int) -> tuple[bool, float]:
        """The certificate decides: once the bounds are close, or once groups are separable."""
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

    def _margins(self, W: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The worst-case margins (R,)."""
        weights = np.column_stack([W[:, self.used] * self.span, b + W[:, self.used] @ self.centre])
        theta = np.append(np.zeros(self.cone.n_pairs), (weights - weights[-1])[:-1])
        return self.operator.matvec(self.ball.tightest(theta))

    def _are_positive(self, point: interior.Point) -> bool:
        """Whether all worst-case margins are, so that the minimum is 0."""
        return bool(self.operator.matvec(self.ball.tightest(point.theta)).min() > 0)

    def _enough(self) -> float:
        """Margins from which on the loss is 0, or near enough."""
        if self.problem.loss == "hinge":
            return 1 + program.INSIDE * self.tol
        return float(np.log(2 * len(self.operator.own) / (self.lightest * self.tol)))

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
            weights = weights * max(1.0, self._enough() / margins.min())
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
            solve = operator.newton_solver(curvature, scaling)
            for _ in range(ROUNDS):
                x = solve(operator.rmatvec(alpha) + cone.rmatvec(z))
                alpha = np.maximum(alpha - curvature.matvec(operator.matvec(x)), 0)
                z = z - scaling.hessian(cone.matvec(x))
            yield replace(point, alpha=alpha, z=z)

    # --- groups of classes -----------------------------------------------------------------------

    def _try_groups(self, point: interior.Point) -> None:
        """Classes with little alpha between them may be separable: then each group by itself."""
        import scipy.sparse.csgraph  # here, as `attack` does not need it

        mass = np.zeros((self.n_classes,) * 2)
        mass[self.cone.first, self.cone.second] = self._masses(point.alpha)
        for few in SEPARABLE:
            n_groups, group = scipy.sparse.csgraph.connected_components(
                mass > few * mass.sum(), directed=False
            )
            if n_groups == 1 or group.tobytes() in self.tried:
                continue
            self.tried.add(group.tobytes())
            self.groups = self._separate(group)
            if self.groups is not None:
                self._solve_groups(*self.groups)
                return

    def _separate(self, group: np.ndarray) -> Groups | None:
        """Groups of classes that are separable: those given (K,) or unions of them; None if none.

        With the groups as classes the least hinge is 0.
        """
        y = group[self.problem.y]
        between = replace(self.problem, y=y, classes=np.arange(y.max() + 1), loss="hinge")
        solver = _Solver(between, self.tol, self.report)
        W, b, _, _, proof = solver.solve()
        if proof["primal"] < self.lightest / len(y):  # no margin is below 0
            return group, W, b
        if solver.groups is None:
            return None
        union, W, b = solver.groups
        return union[group], W, b

    def _solve_groups(self, group: np.ndarray, apart: np.ndarray, shift: np.ndarray) -> None:
        """Try the minima of all groups, moved apart by a multiple of the groups' own weights."""
        y, weights = self.problem.y, self.problem.weights
        (K, d), n = (self.n_classes, self.problem.x.shape[1]), len(y)
        W, b, alpha, flow = np.zeros((K, d)), np.zeros(K), np.zeros((n, K)), np.zeros((K, K, d))
        for members in (np.flatnonzero(group == one) for one in range(len(apart))):
            if len(members) == 1:
                continue
            rows = np.flatnonzero(np.isin(y, members))
            part = replace(
                self.problem,
                x=self.problem.x[rows],
                y=np.searchsorted(members, y[rows]),
                classes=self.problem.classes[members],
                weights=weights[rows],
            )
            found = _Solver(part, self.tol / 4, self.report).solve()  # their gaps add up
            share = weights[rows].sum() / weights.sum()
            W[members], b[members] = found[:2]
            alpha[np.ix_(rows, members)] = share * found[2]
            flow[np.ix_(members, members)] = share * found[3]
        crossed = group[self.operator.own] != group[self.operator.rival]
        apart, shift = apart[group], shift[group]
        moved, stayed = (self._margins(*one)[crossed].min() for one in ((apart, shift), (W, b)))
        times = max(0.0, self._enough() - stayed) / moved  # margins are concave
        self._try(W + times * apart, b + times * shift, alpha, flow)
