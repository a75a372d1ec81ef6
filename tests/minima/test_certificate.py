"""The certificate against rational arithmetic: no upper bound is too low, no lower bound too high.

The references here are written with `fractions.Fraction`, one number after the other, and share
nothing with the package.
"""

import functools
import pathlib
import types
from decimal import Decimal, getcontext
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import scipy.sparse

import advlinear
from advlinear.minima import certificate as module


def fractions(values):
    return [Fraction(float(one)) for one in np.ravel(values)]


def exact_margins(x, y, w, b, eps, norm="inf", box=None):
    """The worst-case margins (n,), rational; in the L2 ball the plain ones."""
    w, b, eps, margins = fractions(w), Fraction(float(b)), Fraction(float(eps)), []
    sides = box and [fractions(np.broadcast_to(side, len(w))) for side in box]
    for row, label in zip(x, y, strict=True):
        row, sign = fractions(row), int(label)
        cost = {"inf": eps * sum(map(abs, w)), "1": eps * max(map(abs, w)), "2": 0}[norm]
        if box is not None:
            falls = [v * sign > 0 for v in w]
            room = [
                one - low if down else high - one
                for one, low, high, down in zip(row, *sides, falls, strict=True)
            ]
            cost = sum(abs(v) * min(eps, c) for v, c in zip(w, room, strict=True))
        margins.append(sign * (sum(map(Fraction.__mul__, w, row)) + b) - cost)
    return margins


def exact_hinge(x, y, w, b, eps, norm="inf", box=None, weights=None):
    weights = [Fraction(1)] * len(y) if weights is None else fractions(weights)
    losses = [max(Fraction(0), 1 - m) for m in exact_margins(x, y, w, b, eps, norm, box)]
    return sum(map(Fraction.__mul__, weights, losses)) / sum(weights)


def exact_minimum(x, y, eps, norm="inf", box=None, weights=None):
    """The least robust hinge, rational: the dual program, by the simplex method with Bland's rule.

    Maximise sum alpha over 0 <= alpha <= s with sum alpha y = 0 and the constraints on the
    features, which alpha = 0 keeps: so the slack variables are the first basis.
    """
    n, d = x.shape
    weights = [Fraction(1)] * n if weights is None else fractions(weights)
    total, eps, y = sum(weights), Fraction(float(eps)), [int(one) for one in y]
    columns = [fractions(x[:, j]) for j in range(d)]
    rows = [[Fraction(sign * one) for one in y] for sign in (1, -1)]
    yx = [[v * s for v, s in zip(column, y, strict=True)] for column in columns]
    if norm == "inf":
        for j, sign in product(range(d), (1, -1)):
            room = [eps] * n
            if box is not None:
                low, high = (Fraction(float(np.broadcast_to(side, d)[j])) for side in box)
                falls = [s * sign > 0 for s in y]
                room = [
                    min(eps, v - low if down else high - v)
                    for v, down in zip(columns[j], falls, strict=True)
                ]
            rows.append([sign * v - c for v, c in zip(yx[j], room, strict=True)])
    else:  # the L1 ball
        for signs in product((1, -1), repeat=d):
            sums = [sum(s * yx[j][i] for j, s in enumerate(signs)) for i in range(n)]
            rows.append([v - eps for v in sums])
    limits = [Fraction(0)] * len(rows) + [one / total for one in weights]
    rows += [[Fraction(int(i == k)) for i in range(n)] for k in range(n)]
    table = [
        [*row, *(Fraction(int(i == k)) for k in range(len(rows))), limits[i]]
        for i, row in enumerate(rows)
    ]
    gain, basis = (
        [Fraction(-1)] * n + [Fraction(0)] * (len(rows) + 1),
        list(range(n, n + len(rows))),
    )
    while any(one < 0 for one in gain[:-1]):
        enters = next(j for j, one in enumerate(gain[:-1]) if one < 0)
        ratios = [
            (row[-1] / row[enters], basis[i], i) for i, row in enumerate(table) if row[enters] > 0
        ]
        leaves = min(ratios)[2]
        pivot = table[leaves] = [one / table[leaves][enters] for one in table[leaves]]
        for i, row in enumerate(table):
            if i != leaves and row[enters]:
                table[i] = [one - row[enters] * p for one, p in zip(row, pivot, strict=True)]
        gain = [one - gain[enters] * p for one, p in zip(gain, pivot, strict=True)]
        basis[leaves] = enters
    return gain[-1]


def cancelling(seed):
    """Arguments of `certificate` in which terms cancel, with w, b, alpha that are nearly right.

    Offsets to 1e15, scales from 1e-8 to 1e8, equal rows, weights of 1e17.
    """
    random = np.random.default_rng(seed)
    n, d = int(random.integers(2, 9)), int(random.integers(1, 4))
    y = np.where(random.random(n) < 0.5, 1.0, -1.0)
    y[:2] = -1, 1
    scale = 10.0 ** random.integers(-8, 9)
    x = random.normal(size=(n, d)) + y[:, None] * random.choice([0, 1, 3])
    if random.random() < 0.3:
        x = np.round(x)
    if random.random() < 0.3:
        x[n // 2 :] = x[: n - n // 2]
    if random.random() < 0.2:
        x[:, 0] = x[0, 0]
    eps = float(random.choice([0, 0.01, 0.1, 0.5, 3])) * scale
    x = x * scale
    x = x + random.choice([0, 0, 1, 1e3, 1e7, 1e15]) * random.choice([1, scale])
    norm = str(random.choice(["inf", "1"]))
    box = None
    if norm == "inf" and random.random() < 0.4:
        box = x.min(axis=0) - random.choice([0, scale]), x.max(axis=0)
    weights = random.choice([0, 1, 1 / 3, 1e12, 1e-9], n) if random.random() < 0.4 else None
    if weights is not None:
        weights[:2] = 1
    kind = random.integers(4)
    w, b = random.normal(size=d) / scale, random.normal()
    alpha = random.random(n) / n
    if kind < 2:
        try:
            found = advlinear.minimise(x, y, eps, norm, box=box, sample_weight=weights, tol=0.9)
            w, b, alpha = found.w, found.b, found.alpha
        except ValueError:
            pass
    if kind == 2:  # a large weight whose terms cancel against the bias
        w *= 1e17
        b = -float(w @ x[0])
    if random.random() < 0.3:  # alpha at its bounds
        alpha = np.where(random.random(n) < 0.5, 1.0, alpha)
    return dict(X=x, y=y, w=w, b=b, alpha=alpha, eps=eps, norm=norm, box=box, sample_weight=weights)


# Each check takes the function `certificate`, so that it can be given one without a rounding term.


def check_a_bias_whose_rounding_hides_a_loss(certificate):
    """A constant feature of weight -2^-60 and a bias of 1: the margin of sample 0 is below 1."""
    x, y = np.array([[1.0, 0], [1, 1]]), np.array([1, -1])
    case = dict(w=np.array([-(2.0**-60), 0]), b=1.0, alpha=np.zeros(2), eps=0.0)
    proof = certificate(x, y, **case, sample_weight=np.array([1, 1e-90]))
    assert proof["primal"] >= 2.0**-60


def check_many_small_terms_of_a_margin(certificate):
    """Added one by one to 1 they vanish, and the margins seem to be 1."""
    x, y = np.repeat([[1.0], [-1.0]], 1001, axis=1), np.array([1, -1])
    w = np.append(1, np.full(1000, -(2.0**-54)))
    assert certificate(x, y, w, 0.0, np.zeros(2), 0.0)["primal"] >= 1000 * 2.0**-54


def check_many_small_costs(certificate):
    """Added one by one to that of the first feature they vanish."""
    x, y, w = np.zeros((2, 1001)), np.array([-1, 1]), np.append(1, np.full(1000, 2.0**-54))
    found = certificate(x, y, w, 0.0, np.zeros(2), 1.0, box=(-2, 2))["primal"]
    assert Fraction(found) >= 2 + 1000 * Fraction(2) ** -54


def check_terms_of_a_margin_that_cancel(certificate):
    """Two features that are nearly equal, with weights of 1e17 and -1e17."""
    for seed in range(50):
        random = np.random.default_rng(seed)
        x = np.repeat(random.normal(size=(6, 1)), 2, axis=1)
        x[:, 1] += random.normal(size=6) * 1e-16
        x, y, w = np.vstack([x, -x]), np.repeat([-1, 1], 6), np.array([1e17, -1e17])
        found = certificate(x, y, w, 0.0, np.zeros(12), 0.0)["primal"]
        assert Fraction(found) >= exact_hinge(x, y, w, 0.0, 0.0)


def check_a_bias_that_vanishes_beside_one(certificate):
    """The mean of 1 - b twice and 1 + b, for b = -1e-20, is above 1."""
    x, y = np.zeros((3, 1)), np.array([1, 1, -1])
    found = certificate(x, y, np.zeros(1), -1e-20, np.zeros(3), 0.1)["primal"]
    assert Fraction(found) >= 1 + Fraction(1e-20) / 3


def check_a_logistic_loss_that_underflows(certificate):
    x, y = np.array([[-1.0], [1]]), np.array([-1, 1])
    assert certificate(x, y, [800.0], 0.0, np.zeros(2), 0, loss="logistic")["primal"] > 0


def check_alpha_that_misses_its_constraint_by_less_than_rounding(certificate):
    """eps is the float64 number just below the radius at which alpha is feasible."""
    for seed in range(100):
        random = np.random.default_rng(seed)
        norm, n = ("inf", "1", "2")[seed % 3], int(random.integers(2, 40))
        x, half = random.normal(size=(2 * n, 3)), random.random(n) / (4 * n)
        y, alpha = np.repeat([-1, 1], n), np.append(half, random.permutation(half))
        g = [
            sum(a * int(s) * v for a, s, v in zip(fractions(alpha), y, fractions(c), strict=True))
            for c in x.T
        ]
        total = sum(fractions(alpha))
        sizes = dict(zip(("inf", "1"), (max(map(abs, g)), sum(map(abs, g))), strict=True))
        square = sum(one * one for one in g)
        if norm == "2":
            eps = float(np.sqrt(float(square / total**2)))
            while Fraction(eps) ** 2 * total**2 >= square:
                eps = np.nextafter(eps, 0)
        else:
            eps = float(sizes[norm] / total)
            while Fraction(eps) * total >= sizes[norm]:
                eps = np.nextafter(eps, 0)
        for loss in ("hinge", "logistic"):
            proof = certificate(x, y, np.zeros(3), 0.0, alpha, float(eps), norm, loss)
            assert 0 < proof["violation"] < 1e-13


def check_many_numbers_of_a_column(certificate):
    """Added one by one they miss their sum by far more than a few operations do.

    eps is the float64 number just below the radius at which alpha is feasible.
    """
    for seed in range(10):
        random = np.random.default_rng(seed)
        n = 20_000
        x = np.append(np.full(n, random.random()), np.zeros(n))[:, None]
        y, alpha = np.repeat([1, -1], n), np.full(2 * n, 0.3 / n)
        radius = Fraction(x[0, 0]) / 2
        eps = float(radius)
        while Fraction(eps) >= radius:
            eps = float(np.nextafter(eps, 0))
        assert certificate(x, y, np.zeros(1), 0.0, alpha, eps)["violation"] > 0


def check_a_sum_that_underflows(certificate):
    """At eps = 0 alpha must keep an equation, and .1 times the smallest number is not 0."""
    x, y = np.array([[5e-324], [0]]), np.array([1, -1])
    assert certificate(x, y, np.zeros(1), 0.0, [0.1, 0.1], 0)["violation"] > 0


def check_a_violation_holds_up_to_its_reach(certificate):
    """Two samples at a radius of just less than half their distance: of all models within the reach
    the best one, whose weight is at it, must not have a loss below the bound."""
    for low, high in product(np.arange(1, 40) / 10, repeat=2):
        x, y = np.array([[-low], [high]]), [-1, 1]
        span = Fraction(float(high)) + Fraction(float(low))
        eps = float(span / 2 * (1 - Fraction(1, 10**9)))
        proof = certificate(x, y, [0.0], 0.0, [0.5, 0.5], eps)
        w = Fraction(1000) / span  # the loss is 1 - w (span / 2 - eps) for the best bias
        assert proof["violation"] > 0
        assert 1 - w * (span / 2 - Fraction(eps)) >= Fraction(proof["dual"])


def check_an_alpha_whose_balance_is_too_small_to_be_accurate(certificate):
    for size, alpha, eps in (
        (100, 5e-324, 98.0),
        (1e300, 1.1299203187732e-310, 0.99999999999999e300),
    ):
        x, y = np.array([[-size], [size]]), [-1, 1]
        proof = certificate(x, y, [1 / size], 0.0, [alpha, 0.3], eps)
        assert proof["dual"] == 0 or proof["violation"] > 0


def check_the_entropy(certificate):
    """The value of alpha for the logistic loss, against logarithms of 50 digits."""
    getcontext().prec = 50
    for seed in range(200):
        random = np.random.default_rng(seed)
        n = int(random.integers(2, 9))
        half = random.choice([random.random(n), 1 - 10.0 ** random.uniform(-15, -1, n)])
        y, share = np.repeat([-1, 1], n), 1 / (2 * n)
        alpha = np.append(half, half[::-1]) * share
        x = random.normal(size=(2 * n, 1))
        proof = certificate(x, y, np.zeros(1), 0.0, alpha, 100.0, loss="logistic")
        value = Decimal(0)
        for a in fractions(alpha):
            a = a * 2 * n
            parts = [Decimal(p.numerator) / Decimal(p.denominator) for p in (a, 1 - a)]
            value -= sum(p * p.ln() for p in parts if p > 0) / (2 * n)
        assert proof["violation"] == 0
        assert value - Decimal("1e-12") <= Decimal(proof["dual"]) <= value


def check_where_terms_cancel(certificate, seeds=range(300)):
    """`exact` against the loss written in fractions, and float64 against `exact`.

    Where float64 says that a bound holds for all weights, it is so in rational arithmetic, too.
    """
    decided = 0
    for seed in seeds:
        case = cancelling(seed)
        proof, exact = certificate(**case), advlinear.certificate(**case, exact=True)
        x, y, w, b = (case[name] for name in ("X", "y", "w", "b"))
        how = dict(norm=case["norm"], box=case["box"], weights=case["sample_weight"])
        loss = exact_hinge(x, y, w, b, case["eps"], **how)
        assert 0 <= Fraction(exact["primal"]) - loss <= loss / 2**52 + Fraction(2) ** -1074
        assert Fraction(proof["primal"]) >= loss
        assert proof["dual"] <= exact["dual"]
        assert proof["violation"] >= exact["violation"]
        for one in (proof, exact):
            assert one["gap"] >= 0
            assert Fraction(one["dual"]) <= loss
        decided += proof["violation"] == 0 and proof["dual"] > 0
    assert decided > len(seeds) / 8


CHECKS = [one for name, one in list(globals().items()) if name.startswith("check_")]


class LeftToRight:
    """NumPy, but that it adds the products of a scalar product one after the other.

    BLAS adds them in an order of its own on each machine, and the bounds hold for any.
    """

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def dot(a, b):
        products = a * b if b.ndim == 1 else (a[:, None] * b).T
        return np.add.accumulate(products, axis=1)[:, -1] if products.size else products.sum(axis=1)


def certificate_of(source):
    """The function `certificate` of a changed source of its module."""
    changed = types.ModuleType("changed")
    exec(compile(source, "changed", "exec"), changed.__dict__)
    changed.np = LeftToRight()
    return changed.certificate


SOURCE = pathlib.Path(module.__file__).read_text("utf-8")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__[6:])
@pytest.mark.parametrize("order", ["of BLAS", "from left to right"])
def test_bounds_allow_for(check, order):
    check(module.certificate if order == "of BLAS" else certificate_of(SOURCE))


@pytest.mark.parametrize("offset", [0, 1, 1e4, 1e7])
def test_the_same_numbers_stored_sparse_are_proved_as_well(offset):
    """Without a zero in a column; the proof of an array is that of its sparse twin."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        x, y = random.random((300, 4)), random.integers(0, 2, 300)
        x[:, 0] += offset + 0.3 * y
        x[:, 3] *= random.random(300) < 0.3
        best = advlinear.minimise(x, y, 0.05)
        found = advlinear.minimise(scipy.sparse.csc_array(x), y, 0.05)
        assert best.violation == found.violation == 0
        assert found.primal == pytest.approx(best.primal, rel=1e-9)
        assert found.dual == pytest.approx(best.dual, rel=1e-9)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__[6:])
def test_bounds_of_sparse_samples_allow_for(check):
    check(of_sparse(module.certificate))


def of_sparse(certificate):
    """The same function, which gives it X as a sparse array."""
    return lambda X, *rest, **how: certificate(scipy.sparse.csr_array(X), *rest, **how)


def test_a_violation_holds_up_to_its_reach_in_rational_arithmetic():
    check_a_violation_holds_up_to_its_reach(functools.partial(advlinear.certificate, exact=True))


@pytest.mark.slow
@pytest.mark.parametrize("order", ["of BLAS", "from left to right"])
def test_a_thousand_cases_in_which_terms_cancel(order):
    certificate = module.certificate if order == "of BLAS" else certificate_of(SOURCE)
    check_where_terms_cancel(certificate, range(300, 1300))


TERMS = {  # each term for rounding in certificate.py, what it reaches, and the same without it
    " - (n_terms + 8) * 2 * U * terms": "",
    "(n_terms + 8)": "8",
    "_dot(abs(x), size) + abs(bias) + cost": "abs(bias) + cost",
    "+ abs(bias) + cost": "+ cost",
    "abs(bias) + cost": "abs(bias)",
    " / total * (1 + FEW)": " / total",
    " + TINY": "",
    "3 * (n_terms + 12) * U * terms + ": "",
    " + 3 * n * SMALLEST": "",
    " - FEW * value": "",
    " - FEW * terms": "",
    "violation * REACH * ": "violation * ",
    "least = least if least > TINY else 0.0": "pass",
}


@pytest.mark.parametrize("term", TERMS)
def test_no_term_for_rounding_can_be_left_out(term):
    assert SOURCE.count(term) == 1
    certificate = certificate_of(SOURCE.replace(term, TERMS[term]))
    assert any(fails(check, certificate) for check in CHECKS)


def fails(check, certificate):
    try:
        check(certificate)
    except AssertionError:
        return True
    return False


SPARSE_TERMS = {  # what counts the numbers of a row, and of a column, of a sparse X
    "int(np.diff(problem.x.indptr).max())": "0",
    "np.minimum(_counts(problem.x), 2 * block)": "np.zeros(d)",
}


@pytest.mark.parametrize("term", SPARSE_TERMS)
def test_no_count_of_the_numbers_of_sparse_samples_can_be_left_out(term):
    assert SOURCE.count(term) == 1
    certificate = certificate_of(SOURCE.replace(term, SPARSE_TERMS[term]))
    assert any(fails(check, of_sparse(certificate)) for check in CHECKS)


def test_no_lower_bound_exceeds_the_minimum_found_in_rational_arithmetic():
    """120 cases by a simplex method in fractions; with a violation the bound has its own reach."""
    decided = 0
    for seed in range(2000, 2120):
        case = cancelling(seed)
        how = dict(norm=case["norm"], box=case["box"], weights=case["sample_weight"])
        least = exact_minimum(case["X"], case["y"], case["eps"], **how)
        for exact in (False, True):
            proof = advlinear.certificate(**case, exact=exact)
            assert Fraction(proof["primal"]) >= least
            assert Fraction(proof["dual"]) <= least or proof["violation"] > 0
        decided += proof["violation"] == 0 and proof["dual"] > 0
    assert decided > 15


# --- what it refuses, and what a solution of other make is worth ---------------------------------


def test_an_offset_that_the_bias_cannot_follow_is_no_proof():
    """At 1e14 a bias of float64 moves in steps of an eighth, so no (w, b) has a margin of 1."""
    x, y = 1e14 + np.array([[0.95], [1.10625], [1.41875]]), [-1, 1, 1]
    try:
        found = advlinear.minimise(x, y, 0)
    except ValueError as error:
        assert "subtract the mean of each feature" in str(error)  # noqa: PT017
    else:
        assert Fraction(found.primal) >= exact_hinge(x, y, found.w, found.b, 0)
    for seed in range(20):
        x, y = 1e14 + np.random.default_rng(seed).random((8, 2)), np.tile([-1, 1], 4)
        for tol in (1e-6, 0.5):
            try:
                found = advlinear.minimise(x, y, 0.05, tol=tol)
            except ValueError:
                continue
            assert Fraction(found.primal) >= exact_hinge(x, y, found.w, found.b, 0.05)
            assert Fraction(found.dual) <= exact_minimum(x, y, 0.05)
            assert found.dual <= found.primal


def test_equal_samples_of_both_labels_have_no_loss_of_zero():
    """Whatever weights of 1e17 make of it by rounding: half of the samples are wrong."""
    x, y = np.full((6, 2), 0.1), np.tile([-1, 1], 3)
    for w in ([1e17, -1e17], [1.7e17, -1.3e17]):
        for b in (0.0, 1.0, -0.1 * w[0]):
            proof = advlinear.certificate(x, y, w, b, np.full(6, 1 / 6), 0)
            assert proof["primal"] >= 1
            assert proof["dual"] <= 1


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(b=3 * np.array([-1, 1])), r"b needs shape \(\), not \(2,\)"),
        (dict(b=1j), "b holds complex numbers"),
        (dict(b=None), r"b (holds|needs)"),
        (dict(b="a"), "b needs real numbers"),
        (dict(b=np.nan), "b holds NaN or infinite numbers"),
        (dict(w=[1, 2]), r"w needs shape \(1,\), not \(2,\)"),
        (dict(w=[1j]), "w holds complex numbers"),
        (dict(w=[np.inf]), "w holds NaN or infinite numbers"),
        (dict(alpha=[0.1]), r"alpha needs shape \(2,\), not \(1,\)"),
        (dict(alpha=[0.1, np.nan]), "alpha holds NaN or infinite numbers"),
        (dict(alpha=np.ma.array([0.1, 0.2], mask=[0, 1])), "alpha is a masked array"),
        (dict(b=10**400), "b holds numbers above 1e301"),
        (dict(w=[1.2e308]), "w holds numbers above 1e301"),
        (dict(eps=10**400), "eps must be a finite number of at least 0"),
        (dict(sample_weight=[1e300, 1e-300]), "sample_weight has a number below 1e-100 of the"),
        (dict(X=[[-1e308], [1e308]]), "X holds numbers above 1e301, which overflow"),
        (dict(sample_weight=[1, 1e-200]), "sample_weight has a number below 1e-100 of the largest"),
    ],
)
def test_numbers_that_are_refused(exact, change, message):
    case = dict(X=[[0.5], [0.1]], y=[0, 1], w=[0.0], b=0.0, alpha=[0.0, 0.0], eps=0.1)
    with pytest.raises(ValueError, match=message):
        advlinear.certificate(**case | change, exact=exact)


def test_margins_that_overflow_are_refused():
    for size, w, b, eps in (
        (1e200, 1e200, 0, 0.1),
        (1e300, 1e8, 0, 0.1),
        (1e300, 1e300, 0, 0.1),
        (1, 1, 1e301, 0.1),
        (1, 1, 0, 1.7e308),
        (1e-300, 1e301, 0, 1.0),
    ):
        for loss in ("hinge", "logistic"):
            with pytest.raises(ValueError, match=r"the margins of .* overflow"):
                advlinear.certificate([[size], [-size]], [0, 1], [w], b, [0, 0], eps, loss=loss)
    with pytest.raises(ValueError, match="the bounds overflow: scale"):
        advlinear.certificate([[1e300], [-1e300]], [0, 1], [1e300], 0, [0, 0], 0.1, exact=True)


@pytest.mark.parametrize("exact", ["no", 1, np.nan, None, [True]])
def test_exact_is_true_or_false(exact):
    with pytest.raises(ValueError, match="exact must be True or False, not "):
        advlinear.certificate([[0.5], [0.1]], [0, 1], [0.0], 0.0, [0, 0], 0.1, exact=exact)


@pytest.mark.parametrize("how", [dict(norm="2"), dict(loss="logistic")])
def test_exact_is_refused_where_numbers_are_not_rational(how):
    with pytest.raises(ValueError, match="exact=True needs the hinge in the L-infinity or the L1"):
        advlinear.certificate([[0.5], [0.1]], [0, 1], [0.0], 0.0, [0, 0], 0.1, **how, exact=True)
