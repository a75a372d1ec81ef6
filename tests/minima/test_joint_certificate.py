"""The certificate of several classes, against fractions, linear programs and maximum flows.

No upper bound is below the exact loss, and no lower bound that is said to hold for all weights is
above the exact loss of weights that HiGHS found.
"""

import collections
import dataclasses
import functools
import pathlib
import types
from decimal import Decimal, getcontext
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
import scipy.sparse as sp
import test_certificate as two_classes
from scipy.optimize import linprog
from scipy.sparse.csgraph import maximum_flow

import advlinear
from advlinear import samples
from advlinear.minima.joint import certificate as module


def fractions(values):
    return [Fraction(float(one)) for one in np.ravel(values)]


def exact_hinge(x, y, W, b, eps, norm="inf", weights=None):
    """F(W, b), rational, one number after the other; in the L2 ball with its costs left out."""
    weights = [Fraction(1)] * len(y) if weights is None else fractions(weights)
    W, b, eps = [fractions(one) for one in W], fractions(b), Fraction(float(eps))
    size = {"inf": sum, "1": max, "2": lambda sizes: 0}[norm]
    total = Fraction(0)
    for row, p, weight in zip(x, y.tolist(), weights, strict=True):
        row, losses = fractions(row), [Fraction(0)]
        for k in {*range(len(W))} - {p}:
            a = [one - other for one, other in zip(W[p], W[k], strict=True)]
            margin = sum(map(Fraction.__mul__, a, row)) + b[p] - b[k] - eps * size(map(abs, a))
            losses.append(1 - margin)
        total += weight * max(losses)
    return total / sum(weights)


def linear_program(x, y, eps, norm, weights=None):
    """The least robust hinge by HiGHS, with variables for |w_pj - w_qj|; W, b, alpha and a flow."""
    (n, d), K = x.shape, int(y.max()) + 1
    share = np.ones(n) / n if weights is None else weights / weights.sum()
    pairs = list(combinations(range(K), 2))
    per_pair = d if norm == "inf" else 1
    sizes, losses = K * d + K, K * d + K + len(pairs) * per_pair
    options = [(i, k) for i in range(n) for k in range(K) if k != y[i]]
    rows = sp.lil_matrix((len(options) + 2 * len(pairs) * d, losses + n))
    for r, (i, k) in enumerate(options):
        p = y[i]
        rows[r, p * d : (p + 1) * d], rows[r, k * d : (k + 1) * d] = -x[i], x[i]
        rows[r, K * d + p], rows[r, K * d + k], rows[r, losses + i] = -1, 1, -1
        first = sizes + pairs.index((min(p, k), max(p, k))) * per_pair
        rows[r, first : first + per_pair] = eps
    r = len(options)
    for m, (p, q) in enumerate(pairs):
        for j in range(d):
            for sign in (1, -1):
                rows[r, p * d + j], rows[r, q * d + j] = sign, -sign
                rows[r, sizes + m * per_pair + j % per_pair] = -1
                r += 1
    right = np.append(-np.ones(len(options)), np.zeros(r - len(options)))
    free = [(None, None)] * sizes + [(0, None)] * (losses + n - sizes)
    costs = np.append(np.zeros(losses), share)
    found = linprog(costs, rows.tocsr(), right, bounds=free, method="highs")
    assert found.status == 0
    duals = -found.ineqlin.marginals
    alpha, flow = np.zeros((n, K)), np.zeros((K, K, d))
    alpha[tuple(np.transpose(options))] = duals[: len(options)]
    for (p, q), one in zip(pairs, duals[len(options) :].reshape(-1, d, 2), strict=True):
        flow[p, q] = one[:, 0] - one[:, 1]
        flow[q, p] = -flow[p, q]
    W, b = found.x[: K * d].reshape(K, d), found.x[K * d : sizes]
    return found.fun, W, b, alpha, flow


def small(seed):
    """A problem of 3 to 6 classes: equal rows, constant features, offsets of 1e6, weights."""
    random = np.random.default_rng(seed)
    K, d = int(random.integers(3, 7)), int(random.integers(1, 5))
    n = int(random.integers(K, 21))
    y = np.append(np.arange(K), random.integers(0, K, n - K))
    x = random.normal(size=(n, d)) + random.choice([0, 1, 3]) * random.normal(size=(K, d))[y]
    if random.random() < 0.3:
        x = np.round(x)
    if random.random() < 0.3:
        x[n // 2 :] = x[: n - n // 2]
    if random.random() < 0.3:
        x[:, 0] = 0.1
    if random.random() < 0.3:
        x = x + 1e6
    weights = random.random(n) + 0.01 if random.random() < 0.4 else None
    return x, y, float(random.choice([0, 0.01, 0.1, 0.5, 2])), weights


def solved(seed, norm):
    """A small problem as arguments of `certificate`, with the solution of HiGHS, and its value."""
    x, y, eps, weights = small(seed)
    centre = x.mean(axis=0)
    least, W, b, alpha, flow = linear_program(x - centre, y, eps, norm, weights)
    return least, dict(
        X=x,
        y=y,
        w=W,
        b=b - W @ centre,
        alpha=alpha,
        eps=eps,
        norm=norm,
        sample_weight=weights,
        flow=flow,
    )


def loss_of(case):
    names = ("X", "y", "w", "b", "eps", "norm")
    return exact_hinge(*(case[name] for name in names), weights=case["sample_weight"])


@pytest.mark.parametrize("norm", ["inf", "1"])
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_bounds_of_small_problems(norm, first):
    """The solution of HiGHS proves its value to 1e-6; and no alpha, good or bad, more than the
    exact loss of its weights, which is at least the minimum."""
    proved = collections.Counter()
    for seed in range(first, first + 50):
        least, case = solved(seed, norm)
        loss, random = loss_of(case), np.random.default_rng(seed)
        proof = advlinear.certificate(**case)
        assert loss <= Fraction(proof["primal"]) <= loss + Fraction(1e-8)
        assert abs(proof["primal"] - least) < 1e-6
        assert proof["gap"] <= 1e-6
        assert proof["violation"] < 1e-9
        sizes = case["alpha"].shape
        wrong = (
            case["alpha"],
            case["alpha"] * random.random(sizes),
            random.normal(size=sizes) / len(case["y"]),
            np.where(case["alpha"] > 0, 1.0, 0.0),
        )
        # At a radius that is a little larger the solution is inside its constraints.
        for alpha, eps in zip(wrong, (case["eps"] * (1 + 1e-6), *[case["eps"]] * 3), strict=True):
            changed = case | dict(alpha=alpha, eps=eps)
            proof = advlinear.certificate(**changed)
            assert Fraction(proof["dual"]) <= loss_of(changed)  # within the reach, too
            proved[proof["violation"] == 0 and proof["dual"] > 0, eps > case["eps"]] += 1
            if alpha is case["alpha"] and eps > 0:
                assert proof["violation"] == 0
                assert proof["dual"] >= least - 1e-8
    assert proved[True, True] > 20
    assert proved[True, False] > 5


def test_exact_bounds_are_those_of_fractions_and_float64_is_outside_of_them():
    """The exact alpha is cut and balanced in other units, which changes the dual by 1e-13."""
    decided = collections.Counter()
    for seed in range(60):
        _, case = solved(seed, "inf")
        random = np.random.default_rng(seed)
        for alpha in (case["alpha"] * 0.999, random.normal(size=case["alpha"].shape)):
            changed = case | dict(alpha=alpha)
            proof = advlinear.certificate(**changed)
            exact = advlinear.certificate(**changed, exact=True)
            loss = loss_of(changed)
            assert 0 <= Fraction(exact["primal"]) - loss <= loss / 2**52
            assert Fraction(exact["dual"]) <= loss <= Fraction(proof["primal"])
            assert exact["violation"] <= proof["violation"] <= exact["violation"] + 1e-13
            if proof["violation"] == 0:
                assert exact["dual"] - 1e-12 <= proof["dual"] <= exact["dual"] + 1e-13
            decided[exact["violation"] > 0] += 1
    assert min(decided.values()) > 20


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_bounds_in_the_l2_ball_are_those_of_clarabel():
    """To 1e-5, with its alpha and flow; at a radius larger by 1e-4 of itself for all weights.

    As given, the flow has its sums right to about 1e-8 only. What an interior point leaves of an
    alpha of 0 is set to 0: alone between two classes it misses a constraint of its own.
    """
    cvxpy = pytest.importorskip("cvxpy")
    for seed in range(25):
        x, y, eps, _ = small(seed)
        x = x - x.mean(axis=0)
        (n, d), K, eps = x.shape, int(y.max()) + 1, max(eps, 0.01)
        W, b, losses = cvxpy.Variable((K, d)), cvxpy.Variable(K), cvxpy.Variable(n)
        sizes = {pair: cvxpy.Variable() for pair in combinations(range(K), 2)}
        cones = {(p, q): cvxpy.SOC(sizes[p, q], W[p] - W[q]) for p, q in sizes}
        options = {
            (i, k): losses[i]
            >= 1 - (W[p] - W[k]) @ x[i] - b[p] + b[k] + eps * sizes[min(p, k), max(p, k)]
            for i, p in enumerate(y.tolist())
            for k in range(K)
            if k != p
        }
        constraints = [*cones.values(), *options.values(), losses >= 0]
        program = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(losses) / n), constraints)
        least = program.solve(solver="CLARABEL")
        alpha, flow = np.zeros((n, K)), np.zeros((K, K, d))
        for option, one in options.items():
            alpha[option] = one.dual_value
        for pair, cone in cones.items():
            flow[pair] = -np.ravel(cone.dual_value[1])
        alpha[alpha < 1e-8] = 0
        case = dict(X=x, y=y, w=W.value, b=b.value, alpha=alpha, norm="2", flow=flow)
        proof = advlinear.certificate(**case, eps=eps)
        assert abs(proof["primal"] - least) < 1e-5
        assert abs(proof["dual"] - least) < 1e-5 or proof["violation"] > 0
        assert proof["violation"] < 1e-6
        assert proof["dual"] <= least + 1e-6
        proof = advlinear.certificate(**case, eps=eps * (1 + 1e-4))
        assert proof["violation"] == 0
        assert least - 1e-6 <= proof["dual"] <= proof["primal"] <= least + 1e-2


def test_no_logistic_bound_is_above_the_loss_of_any_weights():
    """The loss of 50 random weights each, to its own rounding; the value at W = 0 is log K."""
    for seed in range(40):
        x, y, eps, weights = small(seed)
        x, K, random = x - x.mean(axis=0), int(y.max()) + 1, np.random.default_rng(seed)
        alpha = random.random((len(y), K)) / len(y) / K
        norm = str(random.choice(["inf", "1", "2"]))
        flow = np.zeros((K, K, x.shape[1]))
        for radius in (eps, 10.0):
            how = dict(eps=radius, norm=norm, loss="logistic", sample_weight=weights, flow=flow)
            for _ in range(10):
                W = random.normal(size=(K, x.shape[1])) * 10.0 ** random.uniform(-3, 1)
                proof = advlinear.certificate(x, y, W, random.normal(size=K), alpha, **how)
                assert proof["dual"] <= proof["primal"]
            proof = advlinear.certificate(x, y, 0 * W, np.zeros(K), alpha, **how)
            assert np.log(K) <= proof["primal"] <= np.log(K) + 1e-13


# --- balance, cuts and flows ---------------------------------------------------------------------


def test_alpha_is_cut_and_balanced_exactly():
    """In whole numbers; nothing is added, and what is balanced but for rounding stays nearly so."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        K, n = int(random.integers(2, 7)), int(random.integers(10, 60))
        y, share = np.append(np.arange(K), random.integers(0, K, n - K)), random.random(n)
        share /= share.sum()
        alpha = random.normal(size=(n, K)) * share[:, None] * random.choice([1e-60, 0.5, 100])
        mass, unit = module.balanced(alpha, y, share)
        exact = [[int(one) * Fraction(2) ** unit for one in row] for row in mass]
        for row, given, p, most in zip(exact, alpha, y, share, strict=True):
            assert row[p] == 0
            assert all(
                0 <= one <= max(Fraction(float(g)), 0) for one, g in zip(row, given, strict=True)
            )
            assert sum(row) <= Fraction(float(most))
        between = module.between(mass, y)
        assert (between.sum(axis=0) == between.sum(axis=1)).all()
        # What is balanced stays as it is, but for the last unit.
        again, unit = module.balanced(np.ldexp(mass.astype(float), unit), y, np.ones(n))
        assert again.sum() * Fraction(2) ** unit >= sum(map(sum, exact)) * (1 - Fraction(2) ** -40)


def test_cuts_find_a_miss_if_and_only_if_there_is_no_flow():
    """Against maximum flows of whole numbers: 400 circulations of masses and differences."""
    found = collections.Counter()
    for seed in range(400):
        random = np.random.default_rng(seed)
        K = int(random.integers(2, 8))
        p, q = np.triu_indices(K, 1)
        A = random.integers(0, 6, len(p)) * (random.random(len(p)) < 0.7)
        N = random.integers(-5, 6, len(p)) * (A > 0)
        allowed = int(random.integers(1, 3))
        scaled = np.ldexp(N.astype(float), -20)[:, None]
        misses = module._misses_of_cuts(A << 41, scaled, p, q, np.array([float(allowed)]))
        G, capacity = np.zeros(K, int), np.zeros((K + 2, K + 2), np.int32)
        np.add.at(G, p, N)
        np.add.at(G, q, -N)
        capacity[p, q] = capacity[q, p] = allowed * A
        capacity[K, :K], capacity[:K, K + 1] = np.maximum(G, 0), np.maximum(-G, 0)
        flow = maximum_flow(sp.csr_matrix(capacity), K, K + 1).flow_value
        lacks = int(np.maximum(G, 0).sum()) - flow
        assert (misses[0] > 0) == (lacks > 0)
        assert misses[0] <= np.ldexp(float(lacks), -20)
        found[lacks > 0] += 1
    assert min(found.values()) > 50


def circulating(seed, chain=False):
    """Samples of three to five classes, and an alpha that balances: whole multiples of a power of
    two, so that nothing of it is rounded.

    In a chain only neighbours have options, and each second sample is nearly the one before times
    -1: what adds up to little has large terms.
    """
    random = np.random.default_rng(seed)
    K, n = int(random.integers(3, 6)), 2 * int(random.integers(2, 6))
    y, x = np.repeat(np.arange(K), n), random.normal(size=(K * n, 3))
    if chain:
        x[1::2] = -x[::2] + 1e-6 * random.normal(size=x[::2].shape)
    alpha = np.zeros((K * n, K))
    for p in range(K):
        for k in range(K):
            if p != k and (abs(p - k) == 1 or not chain):
                parts = random.multinomial(2**11, np.full(n // 2, 2 / n))
                alpha[y == p, k] = np.repeat(parts, 2)
    return x, y, alpha / 2**20


def differences(x, y, alpha):
    """The mass A of each pair of classes, and the sum N (d,) of its samples, in fractions."""
    K, d = alpha.shape[1], x.shape[1]
    A = {pair: Fraction(0) for pair in combinations(range(K), 2)}
    N = {pair: [Fraction(0)] * d for pair in A}
    for row, p, masses in zip(x, y.tolist(), alpha, strict=True):
        row = fractions(row)
        for k, mass in enumerate(fractions(masses)):
            if mass:
                pair, sign = (min(p, k), max(p, k)), 1 if p < k else -1
                A[pair] += mass
                N[pair] = [one + sign * mass * v for one, v in zip(N[pair], row, strict=True)]
    return A, N


def least_radius(x, y, alpha):
    """The smallest eps at which alpha keeps the constraints of the L-infinity ball, a fraction."""
    A, N = differences(x, y, alpha)
    K, radius = alpha.shape[1], Fraction(0)
    for size in range(1, K):
        for inside in map(set, combinations(range(K), size)):
            across = {pair: (pair[0] in inside) - (pair[1] in inside) for pair in A}
            mass = sum(A[pair] * abs(sign) for pair, sign in across.items())
            for j in range(x.shape[1]):
                moved = sum(N[pair][j] * sign for pair, sign in across.items())
                radius = max(radius, abs(moved) / mass)
    return radius


def below(keeps, value):
    """The largest float64 number, up to a value, that keeps what smaller ones keep."""
    value = float(np.nextafter(value, np.inf))
    while not keeps(Fraction(value)):
        value = float(np.nextafter(value, 0))
    return value


def problem_of(x, y, eps, norm, loss="hinge"):
    return samples.JointProblem(x, y, np.arange(y.max() + 1), np.ones(len(y)), eps, norm, loss)


# Each check takes `bounds`, so that it can be given one without a term for rounding.


def check_alpha_that_misses_a_cut_by_less_than_rounding(bounds):
    """eps is the float64 number just below the radius at which alpha is feasible; or above it."""
    for seed in range(40):
        x, y, alpha = circulating(seed)
        K, radius = alpha.shape[1], least_radius(x, y, alpha)
        just = below(lambda eps, radius=radius: eps < radius, float(radius))
        for eps in (just, float(radius) * (1 + 1e-11)):
            case = problem_of(x, y, eps, "inf", ("hinge", "logistic")[seed % 2])
            proof = bounds(case, np.zeros((K, 3)), np.zeros(K), alpha)
            assert (proof["violation"] > 0) == (Fraction(eps) < radius)
            assert proof["violation"] < 1e-12


def check_a_flow_that_is_too_large_by_less_than_rounding(bounds):
    """In a chain of classes the flow of each pair is given by alpha, whatever is passed."""
    for seed in range(60):
        x, y, alpha = circulating(seed, chain=True)
        K, norm, random = alpha.shape[1], ("1", "2")[seed % 2], np.random.default_rng(seed)
        pairs = [
            (A, N)
            for A, N in zip(*(one.values() for one in differences(x, y, alpha)), strict=True)
            if A
        ]
        if norm == "1":
            radius = float(max(sum(map(abs, N)) / A for A, N in pairs))
        else:
            radius = float(max(sum(one * one for one in N) / A**2 for A, N in pairs)) ** 0.5

        def too_small(eps, pairs=pairs, norm=norm):
            if norm == "1":
                return any(sum(map(abs, N)) > eps * A for A, N in pairs)
            return any(sum(one * one for one in N) > (eps * A) ** 2 for A, N in pairs)

        just = below(too_small, radius)
        flow = np.zeros((K, K, 3))
        for (p, q), one in differences(x, y, alpha)[1].items():
            flow[p, q] = [float(v) for v in one]
        for given in (flow, flow * random.random(), random.normal(size=flow.shape)):
            for eps in (just, radius + 1e-12):
                proof = bounds(
                    problem_of(x, y, eps, norm), np.zeros((K, 3)), np.zeros(K), alpha, given
                )
                assert (proof["violation"] > 0) == (eps == just)
                assert proof["violation"] < 1e-12


def check_terms_that_cancel(bounds):
    """Weights of 1e17 on features that are nearly equal, offsets to 1e15; the exact loss."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        K, n, d = int(random.integers(3, 6)), int(random.integers(5, 9)), int(random.integers(1, 4))
        y = np.append(np.arange(K), random.integers(0, K, n - K)) if n > K else np.arange(n)
        x = random.normal(size=(len(y), d)) + random.choice([0, 1, 1e7, 1e15])
        W, norm = random.normal(size=(y.max() + 1, d)), str(random.choice(["inf", "1"]))
        if seed % 3 == 0 and d > 1:
            x[:, 1] = x[:, 0] + random.normal(size=len(y)) * 1e-16
            W[:, 0] = 1e17 * random.normal(size=len(W))
            W[:, 1] = -W[:, 0]
        if seed % 3 == 1:
            W *= 1e17
        b = -W @ x[0] if seed % 2 else random.normal(size=len(W))
        proof = bounds(problem_of(x, y, 0.1, norm), W, b, np.zeros((len(y), len(W))))
        assert Fraction(proof["primal"]) >= exact_hinge(x, y, W, b, 0.1, norm)


def check_a_bias_that_vanishes_beside_one(bounds):
    """The mean of 1 - b, twice, and of 1 + b, for b = -1e-20, is above 1."""
    x, y, b = np.zeros((4, 1)), np.array([0, 0, 1, 2]), np.array([-1e-20, 0, 0])
    proof = bounds(problem_of(x, y, 0.1, "inf"), np.zeros((3, 1)), b, np.zeros((4, 3)))
    assert Fraction(proof["primal"]) >= exact_hinge(x, y, np.zeros((3, 1)), b, 0.1)


def check_the_logistic_loss(bounds):
    """Against logarithms of 50 digits: margins that are exact, at eps = 0."""
    getcontext().prec = 50
    for seed in range(200):
        random = np.random.default_rng(seed)
        K = int(random.integers(3, 17))
        b = random.integers(-40, 40, K) / random.choice([1, 2, 64])
        x, y = np.zeros((K, 1)), np.arange(K)
        case = problem_of(x, y, 0.0, "inf", "logistic")
        loss = Decimal(0)
        for p in range(K):
            loss += sum(Decimal(float(one - b[p])).exp() for one in b).ln() / K
        proof = bounds(case, np.zeros((K, 1)), b, np.zeros((K, K)))
        assert loss <= Decimal(proof["primal"]) <= loss * (1 + Decimal("1e-12")) + Decimal("1e-150")


def check_the_entropy(bounds):
    """The value of alpha for the logistic loss, against logarithms of 200 digits."""
    getcontext().prec = 200
    for seed in range(200):
        random = np.random.default_rng(seed)
        K = int(random.integers(3, 7))
        sizes = random.random((K, K)) * random.choice([1, 1, 1e-12, 1e-80])
        sizes = (sizes + sizes.T) / 2  # one sample of each class: this balances
        np.fill_diagonal(sizes, 0)
        if seed % 3 == 0:
            sizes /= sizes.sum(axis=1).max() * (1 + 4e-15)  # one is at its share, or nearly
        sizes /= max(1, sizes.sum(axis=1).max() * (1 + 1e-9))
        alpha = sizes / K
        case = problem_of(random.normal(size=(K, 2)), np.arange(K), 100.0, "inf", "logistic")
        mass, unit = module.balanced(alpha, case.y, np.full(K, 1 / K))
        value = Decimal(0)
        for row in mass:
            a = [int(one) * Fraction(2) ** unit * K for one in row]
            for one in (*a, 1 - sum(a)):
                if one > 0:
                    one = Decimal(one.numerator) / Decimal(one.denominator)
                    value -= one * one.ln() / K
        proof = bounds(case, np.zeros((K, 2)), np.zeros(K), alpha)
        assert proof["violation"] == 0
        assert value * (1 - Decimal("1e-12")) <= Decimal(proof["dual"]) <= value


def check_alpha_at_its_bounds(bounds):
    """Every sample's share, towards the next class: W = 0 has the loss 1, and no bound is above."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        K, n = 7, int(random.integers(1, 4))  # here the sum of the shares often rounds to above 1
        y, weights = np.tile(np.arange(K), n), np.repeat(random.random(n), K)
        case = dataclasses.replace(problem_of(np.zeros((K * n, 1)), y, 0.1, "inf"), weights=weights)
        alpha = np.zeros((K * n, K))
        alpha[np.arange(K * n), (y + 1) % K] = 1.0
        proof = bounds(case, np.zeros((K, 1)), np.zeros(K), alpha)
        assert 1 - 1e-14 <= proof["dual"] <= 1


def check_a_violation_holds_up_to_its_reach(bounds):
    """Two far classes, a third one that no sample is near: the best of all weights in the reach
    must not have a loss below the bound."""
    for low, high in product(np.arange(1, 20) / 10, repeat=2):
        x, y = np.array([[-low], [high]]), np.arange(2)
        span = Fraction(float(high)) + Fraction(float(low))
        eps = float(span / 2 * (1 - Fraction(1, 10**9)))
        for norm in ("inf", "1", "2"):
            case, alpha = problem_of(x, y, eps, norm), np.array([[0, 0.5], [0.5, 0]])
            flow = np.zeros((2, 2, 1))
            proof = bounds(case, np.zeros((2, 1)), np.zeros(2), alpha, flow)
            w = Fraction(1000) / span
            assert proof["violation"] > 0
            assert 1 - w * (span / 2 - Fraction(eps)) >= Fraction(proof["dual"])


CHECKS = [one for name, one in list(globals().items()) if name.startswith("check_")]
SOURCE = pathlib.Path(module.__file__).read_text("utf-8")


class LeftToRight(two_classes.LeftToRight):
    """NumPy, but that it adds the products of a scalar product one after the other."""

    @staticmethod
    def dot(a, b):
        total = np.zeros((*a.shape[:-1], b.shape[1]))
        for one, other in zip(np.moveaxis(a, -1, 0), b, strict=True):
            total += one[..., None] * other
        return total


def bounds_of(source):
    """The function `bounds` of a changed source of its module."""
    changed = types.ModuleType("changed")
    exec(compile(source, "changed", "exec"), changed.__dict__)
    changed.np = LeftToRight()
    return changed.bounds


def of_two_classes(
    X,
    y,
    w,
    b,
    alpha,
    eps,
    norm="inf",
    loss="hinge",
    box=None,
    sample_weight=None,
    bounds=module.bounds,
):
    """What the certificate of two classes is asked, from the one of several; but in a box."""
    if box is not None:
        return advlinear.certificate(X, y, w, b, alpha, eps, norm, loss, box, sample_weight)
    y, n = (np.asarray(y) > 0).astype(int), len(y)
    weights = samples.weights(sample_weight, y)
    problem = samples.JointProblem(
        np.asarray(X, float), y, np.arange(2), weights, float(eps), norm, loss
    )
    W, both = np.stack([np.zeros(len(w)), w]), np.zeros((n, 2))
    both[np.arange(n), 1 - y] = alpha
    return bounds(problem, W, np.array([0.0, b]), both, np.zeros((2, 2, len(w))))


OF_TWO = [one for one in two_classes.CHECKS if one is not two_classes.check_where_terms_cancel]


@pytest.mark.parametrize("check", OF_TWO, ids=lambda check: check.__name__[6:])
def test_two_classes_of_several_pass_the_checks_of_two(check):
    check(of_two_classes)


def test_no_lower_bound_of_two_classes_exceeds_the_minimum_in_rational_arithmetic():
    """100 cases in which terms cancel; the balanced alpha is not that of two classes to the bit."""
    decided = 0
    for seed in range(3000, 3100):
        case = two_classes.cancelling(seed) | dict(box=None)
        how = dict(norm=case["norm"], weights=case["sample_weight"])
        least = two_classes.exact_minimum(case["X"], case["y"], case["eps"], **how)
        proof = of_two_classes(**case)
        assert Fraction(proof["primal"]) >= least
        assert Fraction(proof["dual"]) <= least or proof["violation"] > 0
        decided += proof["violation"] == 0 and proof["dual"] > 0
    assert decided > 10


def test_two_classes_of_several_have_the_bounds_of_two():
    """To 1e-12 of them, as all is rounded otherwise."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        n, d = int(random.integers(4, 40)), int(random.integers(1, 5))
        y, x = np.append([0, 1], random.integers(0, 2, n - 2)), random.normal(size=(n, d))
        case = dict(
            X=x + y[:, None],
            y=y,
            w=random.normal(size=d),
            b=float(random.normal()),
            alpha=random.normal(size=n) / n,
            eps=float(random.choice([0, 0.3, 3])),
            norm=str(random.choice(["inf", "2", "1"])),
            loss=str(random.choice(["hinge", "logistic"])),
            sample_weight=random.random(n),
        )
        proof, known = of_two_classes(**case), advlinear.certificate(**case)
        for name in known:
            assert proof[name] == pytest.approx(known[name], rel=1e-12, abs=1e-12), name


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__[6:])
@pytest.mark.parametrize("order", ["of BLAS", "from left to right"])
def test_bounds_allow_for(check, order):
    check(module.bounds if order == "of BLAS" else bounds_of(SOURCE))


# Each term for rounding in joint/certificate.py: what it is changed to, and what fails then.
TERMS = {
    "cost + off": ("cost", two_classes.check_terms_of_a_margin_that_cancel),
    "(len(used) + 8)": ("8", two_classes.check_many_small_terms_of_a_margin),
    "(terms[p] + terms[q] + cost)": ("cost", two_classes.check_terms_of_a_margin_that_cancel),
    " + np.abs(bias)": ("", two_classes.check_a_bias_whose_rounding_hides_a_loss),
    " * (1 + K * FEW)": ("", check_a_bias_that_vanishes_beside_one),
    " + TINY": ("", two_classes.check_a_logistic_loss_that_underflows),
    "eps - off": ("eps", check_alpha_that_misses_a_cut_by_less_than_rounding),
    "mass[:, None] * off + ": ("", check_a_flow_that_is_too_large_by_less_than_rounding),
    "violation * REACH * ": ("violation * ", check_a_violation_holds_up_to_its_reach),
    " - FEW * value": ("", check_alpha_at_its_bounds),
    "side * len(a.T) * 8 * U": ("0", two_classes.check_the_entropy),
}


@pytest.mark.parametrize("term", TERMS)
def test_no_term_for_rounding_can_be_left_out(term):
    changed, check = TERMS[term]
    assert SOURCE.count(term) == 1
    bounds = bounds_of(SOURCE.replace(term, changed))
    given = bounds if check in CHECKS else functools.partial(of_two_classes, bounds=bounds)
    with pytest.raises(AssertionError):
        check(given)


# --- what it takes and refuses -------------------------------------------------------------------

THREE = dict(
    X=[[0.0, 1], [1, 0], [2, 2]],
    y=["a", "b", "c"],
    w=np.zeros((3, 2)),
    b=np.zeros(3),
    alpha=np.full((3, 3), 1 / 6),
    eps=1.0,
)


def test_names_order_the_weights():
    """The columns of a DataFrame W go by the names of X, its rows by their numbers."""
    pandas = pytest.importorskip("pandas")
    x, y = np.random.default_rng(0).normal(size=(9, 2)), np.repeat(list("cab"), 3)
    W, alpha = np.arange(6.0).reshape(3, 2), np.full((9, 3), 1 / 18)
    expected = advlinear.certificate(x, y, W, [1, 2, 3], alpha, 0.1)
    frame = pandas.DataFrame(x, columns=["one", "two"])
    named = pandas.DataFrame(W, columns=["one", "two"]).loc[[2, 0, 1], ["two", "one"]]
    bias = pandas.Series([3.0, 1, 2], index=[2, 0, 1])
    assert advlinear.certificate(frame, y, named, bias, alpha, 0.1) == expected
    with pytest.raises(ValueError, match="lacks column 'two' of X"):
        advlinear.certificate(frame, y, named[["one"]], bias, alpha, 0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(w=np.zeros(2)), r"w needs shape \(3, 2\), not \(2,\)"),
        (dict(b=0.0), r"b needs shape \(3,\), not \(\)"),
        (dict(alpha=np.zeros(3)), r"alpha needs shape \(3, 3\), not \(3,\)"),
        (dict(alpha=np.full((3, 3), np.nan)), "alpha holds NaN or infinite numbers"),
        (dict(flow=np.zeros((3, 2))), r"flow needs shape \(3, 3, 2\), not \(3, 2\)"),
        (dict(norm="2"), r"the norm 2 needs a flow \(K, K, d\) for more than two classes: pass"),
        (dict(norm="1", loss="logistic"), "the norm 1 needs a flow"),
        (dict(box=(0, 2)), "a box needs two classes, not 3: a, b, c; leave it out"),
        (dict(sample_weight=[1, 0, 1]), "sample_weight needs a number above 0 in each class"),
        (
            dict(X=[[1e300, 0], [0, 0], [0, 1]], w=np.eye(3, 2) * 1e300),
            "the margins of .* overflow",
        ),
        (dict(exact=True, norm="1"), "exact=True needs the hinge in the L-infinity ball for more"),
        (dict(exact=True, loss="logistic"), "exact=True needs the hinge in the L-infinity ball"),
        (dict(y=["a", "a", "a"]), "y needs labels of two classes, not 1: a"),
        (dict(y=["a", "a", "b"], flow=np.zeros(2)), "flow is for more than two classes"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        advlinear.certificate(**THREE | change)


def test_more_than_sixteen_classes_are_refused_by_all():
    x, y = np.arange(17.0)[:, None], np.arange(17)
    with pytest.raises(ValueError, match="y needs labels of at most 16 classes, not 17: 0, 1, 2"):
        advlinear.certificate(x, y, np.zeros((17, 1)), np.zeros(17), np.zeros((17, 17)), 0.1)
    with pytest.raises(ValueError, match="path needs labels of two classes, not 17: 0, 1"):
        advlinear.path(x, y, 0.1, 0.2)
    proof = advlinear.certificate(
        x[:16], y[:16], np.zeros((16, 1)), np.zeros(16), np.full((16, 16), 1 / 15 / 16), 8.0
    )
    assert proof["dual"] == pytest.approx(1, abs=1e-14)
    assert proof["violation"] == 0


def test_alpha_of_zeros_needs_no_flow():
    proof = advlinear.certificate(**THREE | dict(norm="2", alpha=np.zeros((3, 3))))
    assert (proof["dual"], proof["violation"]) == (0, 0)


def test_nothing_that_is_given_changes():
    case = {name: np.array(value) for name, value in THREE.items()} | dict(eps=1.0)
    case["flow"] = np.random.default_rng(0).normal(size=(3, 3, 2))
    before = {name: np.copy(value) for name, value in case.items()}
    for norm in ("2", "inf"):
        advlinear.certificate(**case | dict(norm=norm))
    advlinear.certificate(**case | dict(norm="inf", exact=True))
    assert all((case[name] == before[name]).all() for name in case)
