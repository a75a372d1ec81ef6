"""A budget for all samples together, and no bias: against other solvers and fractions."""

import itertools
import warnings
from fractions import Fraction

import cvxpy
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import minmax_scale

import advlinear
from advlinear.minima import sparse_l2, wide, working_sets
from advlinear.samples import problem

NORMS, LOSSES = ("inf", "2", "1"), ("hinge", "logistic")
DUAL = {"inf": 1, "2": 2, "1": np.inf}
CASES = list(itertools.product(NORMS, LOSSES))
MEAN, NO_BIAS = dict(budget="mean"), dict(fit_intercept=False)
KINDS = {"mean": MEAN, "no bias": NO_BIAS, "both": MEAN | NO_BIAS}
EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def random_problem(seed):
    """X, y, eps, norm, loss and sample_weight of a small problem."""
    random = np.random.default_rng(seed)
    norm, loss = CASES[seed % 6]
    n, d = int(random.integers(2, 40)), int(random.integers(1, 12))
    d = n + 5 if seed % 5 == 0 else d
    x = random.normal(size=(n, d)) * 10.0 ** random.uniform(-1, 1, d) + random.normal(size=d)
    if seed % 4 == 0:
        x = np.round(x)  # samples that tie
    y = random.integers(0, 2, n) * 2 - 1
    y[:2] = -1, 1
    weights = random.random(n) + 0.01 if seed % 3 == 0 else np.ones(n)
    return x, y, float(10 ** random.uniform(-3, 0.5)), norm, loss, weights


def conic(x, y, eps, norm, loss, weights, budget="each", fit_intercept=True):
    """The minimum by Clarabel, through cvxpy."""
    w, b = cvxpy.Variable(x.shape[1]), cvxpy.Variable() if fit_intercept else 0.0
    size = eps * cvxpy.norm(w, DUAL[norm])
    margins = cvxpy.multiply(y, x @ w + b) - (size if budget == "each" else 0)
    losses = cvxpy.pos(1 - margins) if loss == "hinge" else cvxpy.logistic(-margins)
    value = weights @ losses / weights.sum() + (size if budget == "mean" else 0)
    program = cvxpy.Problem(cvxpy.Minimize(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an inaccurate solution
        try:
            program.solve(solver="CLARABEL")
        except cvxpy.SolverError:
            return np.nan
    return program.value


def linear(x, y, eps, norm, weights):
    """The mean hinge plus eps times the 1-norm (the largest weight for "1"), by HiGHS."""
    n, d = x.shape
    columns, share = np.hstack([x, -x, np.ones((n, 1))]), weights / weights.sum()
    rows, below = [np.hstack([-y[:, None] * columns, -np.eye(n), np.zeros((n, 1))])], -np.ones(n)
    cost = np.concatenate([np.full(2 * d, eps), [0], share, [0]])
    if norm == "1":  # u_j + v_j <= t
        cost[: 2 * d], cost[-1] = 0, eps
        sizes = [np.eye(d), np.eye(d), np.zeros((d, 1 + n)), -np.ones((d, 1))]
        rows, below = [*rows, np.hstack(sizes)], np.append(below, np.zeros(d))
    bounds = [(0, None)] * (2 * d) + [(None, None)] + [(0, None)] * (n + 1)
    return scipy.optimize.linprog(cost, np.vstack(rows), below, bounds=bounds).fun


def objective(x, y, w, b, eps, norm, loss, weights, budget="each", fit_intercept=True):
    """The loss, written out."""
    size = eps * np.linalg.norm(w, DUAL[norm])
    margins = y * (x @ w + b) - (size if budget == "each" else 0)
    losses = np.maximum(0, 1 - margins) if loss == "hinge" else np.logaddexp(0, -margins)
    return np.average(losses, weights=weights) + (size if budget == "mean" else 0)


def exact_value(x, y, alpha, eps, norm, weights, budget="each", fit_intercept=True):
    """The bound that alpha proves for the hinge, in fractions; None outside the constraints."""
    weights = list(map(Fraction, weights.tolist()))
    shares = [one / sum(weights) for one in weights]
    alpha = [min(max(a, 0), s) for a, s in zip(map(Fraction, alpha.tolist()), shares, strict=True)]
    if fit_intercept:
        sums = [sum(a for a, side in zip(alpha, y, strict=True) if side == s) for s in (-1, 1)]
        if not all(sums):
            return Fraction(0)
        alpha = [a * min(sums) / sums[int(s > 0)] for a, s in zip(alpha, y, strict=True)]
    pulls = [
        sum(a * int(s) * Fraction(v) for a, s, v in zip(alpha, y, column, strict=True))
        for column in x.T.tolist()
    ]
    total = sum(alpha)
    allowed = Fraction(eps) * (1 if budget == "mean" else total)
    size = max(map(abs, pulls)) if norm == "inf" else sum(map(abs, pulls))
    if norm == "2":
        size, allowed = sum(one * one for one in pulls), allowed**2
    return total if size <= allowed else None


# --- the minimum ---------------------------------------------------------------------------------


@EACH_KIND
def test_random_problems_against_clarabel_and_fractions(kind):
    """To what Clarabel leaves: 1e-5 of max(minimum, 1 / n), 1e-4 with logarithms."""
    seen = 0
    for seed in range(180):
        x, y, eps, norm, loss, weights = random_problem(seed)
        found = advlinear.minimise(x, y, eps, norm, loss, sample_weight=weights, **kind)
        assert found.violation == 0
        assert found.gap <= 1e-6
        value = conic(x, y, eps, norm, loss, weights, **kind)
        if np.isfinite(value):
            seen += 1
            left = 1e-5 if loss == "hinge" else 1e-4
            assert abs(found.primal - value) <= left * max(value, 1 / len(y)), seed
        by_hand = objective(x, y, found.w, found.b, eps, norm, loss, weights, **kind)
        assert found.primal == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
        known = found.w, found.b, found.alpha, eps, norm, loss, None, weights
        proof = advlinear.certificate(x, y, *known, **kind)
        assert {name: getattr(found, name) for name in proof} == proof
        if loss == "hinge":
            exact = exact_value(x, y, found.alpha, eps, norm, weights, **kind)
            assert exact is not None
            assert exact >= Fraction(found.dual)
        assert found.b == 0 or kind.get("fit_intercept", True)
    assert seen >= 170


def test_random_problems_of_a_mean_budget_against_linear_programs():
    """HiGHS keeps constraints to 1e-7: the minima agree to 1e-6 of max(minimum, 1 / n)."""
    for seed in range(240):
        x, y, eps, norm, _, weights = random_problem(seed)
        norm = "inf" if norm == "2" else norm
        found = advlinear.minimise(x, y, eps, norm, sample_weight=weights, budget="mean")
        value = linear(x, y, eps, norm, weights)
        assert abs(found.primal - value) <= 1e-6 * max(value, 1 / len(y)), seed


@EACH_KIND
@pytest.mark.parametrize("loss", LOSSES)
def test_every_solver_finds_the_same(loss, kind):
    """Those of sparse and of wide samples, which small problems do not reach, and arrays."""
    solvers = {"inf": (working_sets,), "2": (sparse_l2, wide), "1": ()}
    for seed in range(60):
        x, y, eps, norm, _, weights = random_problem(seed)
        least = advlinear.minimise(x, y, eps, norm, loss, sample_weight=weights, **kind)
        for solver in solvers[norm]:
            sparse = solver is sparse_l2 or (solver is working_sets and seed % 2)
            form = scipy.sparse.csr_array(x) if sparse else x
            known = problem(form, y, eps, norm, loss, None, weights, **kind)
            if solver is wide and not wide.takes(known):
                continue
            proof = solver.solve(known, 1e-6, None)[-1]
            floor = 1e-6 * max(proof["primal"], 1 / len(y))
            assert proof["dual"] <= least.primal + 1e-15
            assert abs(proof["primal"] - least.primal) <= 2 * floor


@EACH_KIND
def test_samples_of_other_forms(tmp_path, kind):
    """On disk, of whole numbers, sparse, in a frame, and as a dask array: the same minimum."""
    array = pytest.importorskip("dask.array")
    random = np.random.default_rng(0)
    x = random.integers(-128, 128, (60, 5)).astype(np.int8)
    x[0] = -128  # of which the negative is no int8
    y = np.where(x[:, 0] + 30 * random.normal(size=60) > 0, "b", "a")
    least = advlinear.minimise(x.astype(float), y, 4.0, **kind)
    on_disk = np.memmap(tmp_path / "x", np.int8, "w+", shape=x.shape)
    on_disk[:] = x
    for form in (on_disk, x, scipy.sparse.coo_matrix(x), array.from_array(x, chunks=(17, 5))):
        found = advlinear.minimise(form, y, 4.0, **kind)
        assert found.primal == pytest.approx(least.primal, rel=1e-6)
        alpha = np.asarray(found.alpha)
        assert alpha.shape == (60,)
        proof = advlinear.certificate(form, y, found.w, found.b, found.alpha, 4.0, **kind)
        assert proof["gap"] <= 1e-6
        assert proof["violation"] == 0


def test_a_small_and_a_large_budget():
    """At 0 both budgets are one problem; from some eps on no weights are best."""
    x, y = minmax_scale(load_breast_cancer().data), load_breast_cancer().target
    for norm, loss in CASES:
        none = [advlinear.minimise(x, y, 0.0, norm, loss, budget=one) for one in ("each", "mean")]
        assert none[0].primal == pytest.approx(none[1].primal, rel=1e-12)
        for eps in (10, 1e30, 1e300):
            found = advlinear.minimise(x, y, eps, norm, loss, budget="mean")
            assert not found.w.any()
            share = np.mean(y)
            least = 2 * min(share, 1 - share)
            if loss == "logistic":
                least = -share * np.log(share) - (1 - share) * np.log(1 - share)
            assert found.primal == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(("norm", "loss"), CASES)
def test_small_budgets_near_which_weights_grow(norm, loss):
    x, y = minmax_scale(load_breast_cancer().data), load_breast_cancer().target
    for eps in (1e-4, 1e-6, 1e-8):
        found = advlinear.minimise(x, y, eps, norm, loss, budget="mean")
        assert found.gap <= 1e-6


def test_no_advice_without_a_bias_is_to_subtract_the_mean():
    x, y = minmax_scale(load_breast_cancer().data) + 1e6, load_breast_cancer().target
    with pytest.raises(ValueError, match="no certificate") as error:
        advlinear.minimise(x, y, 0.02, budget="mean", fit_intercept=False, tol=1e-12)
    assert "mean" not in str(error.value)


def test_weights_out_of_use_are_exactly_zero():
    """On the 1-norm support vector machine: as many weights as the vertex of its program has."""
    x, y = minmax_scale(load_breast_cancer().data), load_breast_cancer().target
    found = advlinear.minimise(x, y, 0.01, budget="mean")
    signs = np.where(y == 1, 1, -1)
    assert found.primal == pytest.approx(linear(x, signs, 0.01, "inf", np.ones(len(y))), rel=1e-6)
    assert 0 < np.count_nonzero(found.w) < 15


@given(seed=st.integers(0, 2**32 - 1), norm=st.sampled_from(NORMS), share=st.floats(0.01, 1))
def test_it_is_the_largest_loss_that_the_mean_movement_allows(seed, norm, share):
    """Moving one sample of a margin below 1 by all of the budget raises the mean hinge so much;
    no other movement by hand raises it further. (Of split mass any sample is as good.)"""
    random = np.random.default_rng(seed)
    n, d = int(random.integers(1, 8)), int(random.integers(1, 5))
    x, y = random.normal(size=(n, d)), random.integers(0, 2, n) * 2 - 1
    w, b, eps = random.normal(size=d), random.normal(), float(random.random())
    size = np.linalg.norm(w, DUAL[norm])
    value = objective(x, y, w, b, eps, norm, "hinge", np.ones(n), "mean")
    margins = y * (x @ w + b)
    spent = random.dirichlet(np.full(n, share)) * n * eps  # of each sample, with the mean eps
    assert np.maximum(0, 1 - margins + spent * size).mean() <= value + 1e-12
    if margins.min() < 1:
        spent = np.where(np.arange(n) == np.argmin(margins), n * eps, 0)
        assert np.maximum(0, 1 - margins + spent * size).mean() == pytest.approx(value, rel=1e-12)


def test_of_the_logistic_loss_it_is_the_limit_of_split_mass():
    """A share of a sample that goes far has a loss of its distance times ||w||, but for little."""
    w, far = np.array([1.0, -2.0]), 1e6
    x, y, eps = np.array([[3.0, 1.0], [0.0, 2.0]]), np.array([1, -1]), 0.1
    value = objective(x, y, w, 0.0, eps, "inf", "logistic", np.ones(2), "mean")
    share = 2 * eps / far  # of the first sample, moved by `far`
    losses = np.logaddexp(0, -y * (x @ w))
    moved = np.logaddexp(0, -(x[0] @ w - far * 3))
    reached = (losses.sum() - share * losses[0] + share * moved) / 2
    assert value - 1e-5 < reached < value


@pytest.mark.parametrize("budget", ["each", "mean"])
def test_a_path_without_a_bias_is_that_of_the_minima(budget):
    """At both ends and in between the bounds of path and minimise do not cross."""
    known = dict(budget=budget, fit_intercept=False)
    for seed in range(60):
        x, y, eps, norm, _, _ = random_problem(seed)
        path = advlinear.path(x, y, eps / 10, eps, norm, tol=1e-3, **known)
        assert path.n == len(y)
        for at in np.geomspace(eps / 10, eps * (1 - 1e-12), 4):
            best, least = path.at(at), advlinear.minimise(x, y, at, norm, **known)
            assert best.dual <= least.primal * (1 + 1e-12)
            assert least.dual <= best.primal * (1 + 1e-12)
            assert best.b == 0
            by_hand = objective(x, y, best.w, 0.0, at, norm, "hinge", np.ones(len(y)), **known)
            assert by_hand <= best.primal * (1 + 1e-12) + 1e-300


# --- the certificate -----------------------------------------------------------------------------


@EACH_KIND
def test_bounds_in_float64_contain_those_in_rational_arithmetic(kind):
    """Over offsets to 1e15, weights of 1e17 and alpha of any size."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        n, d = int(random.integers(2, 9)), int(random.integers(1, 4))
        y = random.integers(0, 2, n) * 2 - 1
        y[:2] = -1, 1
        scale = 10.0 ** random.integers(-8, 9)
        x = (random.normal(size=(n, d)) + random.choice([0, 1, 1e3, 1e15])) * scale
        eps = float(random.choice([0, 0.01, 0.5])) * scale
        w, b = random.normal(size=d) / scale * random.choice([1, 1e17]), random.normal()
        b = b if kind.get("fit_intercept", True) else 0.0
        alpha = random.random(n) / n * random.choice([1, 0.01])
        norm = ("inf", "1")[seed % 2]
        if seed % 3 == 0:
            found = advlinear.minimise(x, y, eps, norm, tol=0.9, **kind)
            w, b, alpha = found.w, found.b, found.alpha
        proof, exact = (
            advlinear.certificate(x, y, w, b, alpha, eps, norm, exact=one, **kind)
            for one in (False, True)
        )
        assert proof["primal"] >= exact["primal"], seed
        if proof["violation"] == 0:
            assert exact["violation"] == 0
        assert proof["dual"] <= exact["dual"], seed
        if seed % 3 == 0 and exact["violation"] == 0:
            value = exact_value(x, y, alpha, eps, norm, np.ones(n), **kind)
            assert exact["dual"] == pytest.approx(float(value), rel=1e-12)


def test_margins_that_overflow_are_refused():
    known = [[1.0], [2.0]], [0, 1], [1e200], 0.0, [0.5, 0.5], 1e200
    with pytest.raises(ValueError, match=r"the margins of \(w, b\) overflow"):
        advlinear.certificate(*known, budget="mean")


# --- what it refuses -----------------------------------------------------------------------------

X, Y = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]), np.array([0, 1, 1])
REFUSED = [
    (dict(budget="all"), "budget must be each or mean, not 'all'"),
    (dict(budget=None), "budget must be each or mean, not None"),
    (dict(budget="mean", box=(0, 2)), "budget='mean' takes no box"),
    (dict(budget="mean", y=[0, 1, 2]), "budget='mean' needs two classes, not"),
    (dict(fit_intercept="no"), "fit_intercept must be True or False, not 'no'"),
    (dict(fit_intercept=0), "fit_intercept must be True or False, not 0"),
    (dict(fit_intercept=False, box=(0, 2)), "fit_intercept=False takes no box"),
    (dict(fit_intercept=False, y=[0, 1, 2]), "fit_intercept=False needs two classes, not"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused_in_one_line(change, message):
    given = dict(X=X, y=Y, eps=0.1) | change
    with pytest.raises(ValueError, match=message):
        advlinear.minimise(**given)
    proof = given | dict(w=[0.0, 0.0], b=0.0, alpha=np.zeros(3))
    with pytest.raises(ValueError, match=message):
        advlinear.certificate(**proof)
    if set(change) <= {"budget", "fit_intercept"}:
        del given["eps"]
        with pytest.raises(ValueError, match=message):
            advlinear.path(**given, eps_min=0.1, eps_max=0.2)


def test_a_bias_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match=r"b must be 0 with fit_intercept=False, not 0\.5"):
        advlinear.certificate(X, Y, [1.0, 1.0], 0.5, np.zeros(3), 0.1, fit_intercept=False)
