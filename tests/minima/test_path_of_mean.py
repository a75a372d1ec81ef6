"""path of the budget "mean": against other solvers, rational arithmetic, and the budget "each"."""

import itertools
from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.preprocessing import minmax_scale
from test_path import (
    COST,
    ROUNDING,
    by_hand,
    cancelling,
    cancer,
    exact_dual_norm,
    exact_lines,
    exact_loss,
    exact_margins,
    few_samples,
    found_of,
    fractions,
    gap_of,
    largest_margin,
    margin_of,
    mean_hinge,
    no_larger,
    random_size,
    separable,
    whole_program,
)

import advlinear
from advlinear.minima import budgets, pieces


def path(*problem, **options):
    return advlinear.path(*problem, **options, budget="mean")


def objective(x, y, w, b, eps, norm="inf"):
    """The largest expected hinge, written out: the mean hinge and eps times the norm of w."""
    return np.maximum(0, 1 - y * (x @ w + b)).mean() + eps * np.linalg.norm(w, COST[norm])


def other_solver(x, y, eps, norm):
    """The least of it: by HiGHS as a linear program, in the L2 ball by Clarabel of cvxpy."""
    if norm == "2":
        w, b = cp.Variable(x.shape[1]), cp.Variable()
        hinge = cp.sum(cp.pos(1 - cp.multiply(y, x @ w + b))) / len(y)
        program = cp.Problem(cp.Minimize(hinge + eps * cp.norm(w, 2)))
        return program.solve(solver="CLARABEL")
    return whole_program(x, y, eps, norm, "mean")[0]


def check(found, x, y, eps, norm="inf"):
    """The model and both bounds at each eps, against another solver and to the tolerance."""
    allowed = 1e-6 if norm == "2" else ROUNDING
    for radius in eps:
        best = found.at(radius)
        value = objective(x, y, best.w, best.b, radius, norm)
        size = 1 + np.abs(best.w).sum() * np.abs(x).max()
        assert best.primal == pytest.approx(value, rel=0, abs=1e-14 * size * len(y))
        assert best.dual - allowed <= other_solver(x, y, radius, norm) <= best.primal + allowed
        assert gap_of(best.primal, best.dual, len(y)) <= found.gap + 1e-12


# --- every eps at once ----------------------------------------------------------------------------

PROBLEMS = dict(
    kind=st.sampled_from(["normal", "bits", "thirds", "equal"]),
    n=st.integers(2, 20),
    d=st.integers(1, 6),
    ends=st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)) | st.just((0, 0.5)),
    seed=st.integers(0, 2**32 - 1),
)


@given(**PROBLEMS, tol=st.sampled_from([0, 1e-4, 0.01]))
def test_both_bounds_at_any_eps_of_a_few_samples(kind, n, d, ends, seed, tol):
    x, y = few_samples(kind, n, d, seed)
    low, high = sorted(ends)
    found = path(x, y, low, high, tol=tol)
    assert found.gap <= (tol or 1e-9)
    check(found, x, y, [low, high, *np.random.default_rng(seed).uniform(low, high, 3)])


@pytest.mark.parametrize("norm", ["2", "1"])
@given(**PROBLEMS)
def test_both_bounds_at_any_eps_in_the_other_balls(norm, kind, n, d, ends, seed):
    x, y = few_samples(kind, n, d, seed)
    low, high = sorted(ends)
    found = path(x, y, low, high, norm=norm, tol=1e-3)
    assert found.gap <= 1e-3
    check(found, x, y, [low, high, *np.random.default_rng(seed).uniform(low, high, 2)], norm)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_with_a_tolerance_few_models_bound_the_minimum_to_it(tol):
    """Nowhere further apart than `gap`, which is no bound but the value. The minimum is concave."""
    x, y = cancer()
    found, every = (path(x, y, 0, 0.2, tol=one) for one in (tol, 0))
    eps = np.append(np.geomspace(1e-8, 0.2, 10_000), 0)
    primal, dual = found.bounds(eps)
    least, _ = every.bounds(eps)
    gaps = (primal - dual) / np.maximum(primal, 1 / len(y))
    assert 0.9 * found.gap <= gaps.max() <= found.gap <= tol
    assert (dual <= least * (1 + 1e-11)).all()
    assert (least <= primal * (1 + 1e-11)).all()
    assert len(found.s) < len(every.s)
    evenly, _ = every.bounds(np.linspace(0, 0.2, 1001))
    assert (np.diff(evenly, 2) <= 1e-12).all()


def test_the_largest_gap_may_be_where_the_minimum_is_the_share_of_a_sample():
    """From eps = 0 to 1 the bounds are .1 + .8 eps and .6 eps, and 1 / n is .5: .4 at eps = .5."""
    found = by_hand([0.0, 1.0], [0.0, 0.6], np.inf, 0.8, 0.1, "mean")
    eps = np.linspace(0, 1, 1001)
    primal, dual = found.bounds(eps)
    gaps = (primal - dual) / np.maximum(primal, 0.5)
    assert eps[gaps.argmax()] == pytest.approx(0.5, abs=1e-3)
    eps, gaps = found._gaps()
    assert gaps[eps <= 1].max() == pytest.approx(0.4, rel=1e-12)


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_the_minimum_of_separable_classes_starts_along_their_largest_margin(norm, sample):
    """At eps = 0 it is 0. Up to the first radius it is eps over the margin, by other solvers.

    To 1e-7 where all corners are kept, else to the tolerance.
    """
    x, y = separable(2) if norm != "inf" else sample.flat("train")
    tol, near = (0, 1e-7) if norm == "inf" else (1e-4, 2e-4)
    found = path(x, y, 0, 0.5, norm=norm, tol=tol)
    margin = largest_margin(x, y, norm)[0] if norm != "inf" else margin_of(x, y)
    assert found.at(0).primal == found.at(0).dual == found.proved[0] == 0
    assert found.reach == np.inf
    assert found.s[0] == pytest.approx(1 / margin, rel=near)
    first = found.proved[1]
    assert found.bounds(first)[1] == pytest.approx(first / margin, rel=near)
    for eps in (0.1 * first, first):
        best = found.at(eps)
        assert best.primal == pytest.approx(eps / margin, rel=near)
        assert (y * (x @ best.w + best.b)).min() >= 1 - near


def test_above_some_eps_no_weights_are_best(tiny):
    """Unequal classes: the loss is then 2 on the smaller one."""
    x, y = (values[30:] for values in tiny.flat("train"))
    found = path(x, y, 0.01, 3)
    least = 2 * min(np.mean(y < 0), np.mean(y > 0))
    for eps in (found.radii[-1] * (1 + 1e-9), 3):
        best = found.at(eps)
        assert not best.w.any()
        assert best.primal == pytest.approx(least, rel=1e-14)
        assert best.dual == pytest.approx(least, rel=1e-14)
    assert found.at(found.radii[-1] * (1 - 1e-9)).w.any()


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_classes_that_are_not_separable_have_a_bound_from_0_on_for_weights_up_to_reach(norm):
    """By other solvers; `reach` is large for the range of the features."""
    x, y = load_iris(return_X_y=True)
    x, y = minmax_scale(x)[y > 0], np.where(y[y > 0] > 1, 1.0, -1.0)
    x[:4] = x[-4:]
    found = path(x, y, 0, 0.1, norm=norm, tol=1e-3)
    assert found.gap <= 1e-3
    assert 0 < found.proved[0] < 1e-3
    assert found.reach >= 999 / np.linalg.norm(np.ptp(x, axis=0) / 2, float(norm))
    assert found.reach >= 1.99 * np.linalg.norm(found.at(found.proved[0]).w, COST[norm])
    check(found, x, y, [0, found.proved[0] / 2], norm)


@pytest.mark.parametrize("seed", range(30))
def test_a_path_from_0_is_not_refused(seed):
    """Parts of small data sets, of which some are separable, in one ball each."""
    x, y = separable(seed)
    norm = ["inf", "2", "1"][seed // 4 % 3]
    found = path(x, y, 0, 1, norm=norm, tol=1e-3)
    assert 0 <= found.gap <= 1e-3
    assert found.reach == np.inf or found.at(0).primal > 0


@pytest.mark.parametrize("power", [-300, -40, 1, 34, 300])
@pytest.mark.parametrize(("norm", "tol"), [("inf", 0), ("inf", 1e-4), ("2", 0.01), ("1", 0.01)])
def test_a_path_in_another_unit_is_the_same_to_the_last_bit(norm, tol, power):
    """A power of two changes no digit of X; w is in units of 1 / X, eps is in those of X."""
    x, y = load_breast_cancer(return_X_y=True)
    x, y = ((x - x.mean(axis=0)) / x.std(axis=0))[:100], y[:100]
    one = path(x, y, 0.01, 1, norm=norm, tol=tol)
    unit = 2.0**power
    two = path(x * unit, y, 0.01 * unit, unit, norm=norm, tol=tol)
    assert len(one.radii) > 5
    for name, factor in dict(s=unit, b=1, p=1, dual=1, radii=1 / unit, proved=1 / unit).items():
        assert np.array_equal(getattr(two, name) * factor, getattr(one, name)), name
    assert np.array_equal(two.w.toarray() * unit, one.w.toarray())


def test_a_sparse_path_is_that_of_the_array(monkeypatch):
    monkeypatch.setattr("advlinear.minima.path.SMALL_SPARSE", 0)
    x, y = cancer()
    found, expected = (path(one, y, 0, 0.2, tol=0) for one in (scipy.sparse.csr_array(x), x))
    assert found.gap <= 1e-8
    np.testing.assert_allclose(found.radii, expected.radii, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.p, expected.p, rtol=0, atol=1e-12)


# --- what one budget says of the other ------------------------------------------------------------


@pytest.mark.parametrize("seed", range(36))
def test_the_minima_and_models_of_both_budgets_are_the_same(seed):
    """V_mean(eps) = V_each(eps / V_mean(eps)), also of the weights, up to their scale.

    Up to the slope of P at the largest margin, the radius is that margin, and the minimum of the
    mean lies in the jump of that of each. Conversely V_mean(r V_each(r)) = V_each(r).
    """
    x, y = separable(seed)
    mean, each = path(x, y, 0, 0.3, tol=0), advlinear.path(x, y, 0, 1, tol=0)
    random = np.random.default_rng(seed)
    for eps in [*random.uniform(0, 0.3, 5), *10.0 ** random.uniform(-6, -1, 10)]:
        best = mean.at(eps)
        radius = eps / best.primal
        if mean.p[np.searchsorted(mean.radii, eps, side="right")] == 0:
            assert radius == pytest.approx(each.radii[0], rel=1e-7)
            assert best.primal <= each.bounds(each.radii[0])[0] * (1 + 1e-9)
            continue
        other = each.at(radius)
        assert other.primal == pytest.approx(best.primal, rel=1e-7)
        if np.abs(mean.radii - eps).min() > 1e-9:
            shrunk = 1 + radius * np.abs(other.w).sum()
            np.testing.assert_allclose(other.w / shrunk, best.w, rtol=1e-6, atol=1e-9)
    for radius in random.uniform(0, 0.3, 10):
        if value := each.at(radius).primal:
            assert mean.at(radius * value).primal == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("norm", ["2", "1"])
@pytest.mark.parametrize("seed", range(12))
def test_the_bounds_of_both_budgets_do_not_contradict_each_other(norm, seed):
    """The same, of minima known to a tolerance: those of each do not fall as the radius grows."""
    x, y = separable(seed)
    mean = path(x, y, 0, 0.3, norm=norm, tol=1e-3)
    each = advlinear.path(x, y, 0, 8, norm=norm, tol=1e-3)
    random = np.random.default_rng(seed)
    for eps in [*random.uniform(0, 0.3, 5), *10.0 ** random.uniform(-6, -1, 10)]:
        best = mean.at(eps)
        below, above = 1 - 1e-7, 1 + 1e-12  # the margin of `each` is known to 1e-8
        assert each.at(eps / best.primal * below).dual <= best.primal * (1 + 1e-12)
        assert each.at(eps / best.dual * above).primal >= best.dual
    for radius in random.uniform(0, 0.3, 10):
        other = each.at(radius)
        assert mean.at(radius * other.primal).dual <= other.primal * (1 + 1e-12)
        assert mean.at(radius * other.dual).primal >= other.dual * (1 - 1e-12)


# --- rounding: in rational arithmetic -------------------------------------------------------------


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("seed", range(50))
def test_bounds_of_a_dual_solution_hold_in_exact_arithmetic(norm, seed):
    """c and D are on the safe side of its size and sum."""
    x, y, random = cancelling(seed, random_size(seed, 9), random_size(seed + 1, 6))
    n, found = len(y), found_of(x, y, norm, "mean")
    alphas = random.uniform(-0.1, 1.1, (20, n)) * random.integers(0, 2, (20, n))
    for alpha in alphas / n:
        found.add_alpha(alpha)
    found._look_at_alphas()
    exact_x, exact_y = fractions(x), fractions(y)
    balanced, _ = pieces.balanced(alphas / n * n, y > 0)
    other = {"inf": "1", "2": "2", "1": "inf"}[norm]  # of the ball, not of its dual
    for alpha, c, dual in zip(balanced, *found._points[0], strict=True):
        terms = [a * yi / n for a, yi in zip(fractions(alpha), exact_y, strict=True)]
        pull = [
            sum(t * v for t, v in zip(terms, column, strict=True))
            for column in zip(*exact_x, strict=True)
        ]
        assert Fraction(dual) <= sum(map(abs, terms))
        assert no_larger(pull, other, Fraction(c))


@pytest.mark.parametrize("seed", range(100))
def test_bounds_between_breakpoints_are_rounded_outwards(seed):
    """The line of a model, the chord of two lower bounds, and the line that `reach` gives.

    Also the size of alpha, of the ratio r of its size and its sum.
    """
    random = np.random.default_rng(seed)
    for r, total in 10.0 ** random.uniform(-5, 5, (100, 2)):
        size = Fraction(float(r * budgets.BUDGET_OF["mean"].unit(total)))
        assert size >= Fraction(float(r)) * Fraction(float(total))
    proved = np.sort(random.uniform(0.1, 5, 3)) * 10.0 ** -random.integers(0, 9)
    dual = np.sort(random.uniform(0.01, 1, 3))
    reach = random.uniform(0, 1) * dual[0] / proved[0]
    s, p = random.uniform(0, 1, 2)
    found = by_hand(proved, dual, reach, s, p, "mean")
    (c, d), reach = (fractions(proved), fractions(dual)), Fraction(reach)
    for eps in random.uniform(0, proved[2], 200):
        exact, (primal, bound) = Fraction(eps), map(Fraction, map(float, found.bounds(eps)))
        line = Fraction(p) + exact * Fraction(s)
        assert line <= primal <= line * (1 + Fraction(1, 10**15))
        if eps < proved[0]:
            lower = d[0] - (c[0] - exact) * reach
        else:
            k = 0 if eps < proved[1] else 1
            lower = d[k] + (exact - c[k]) / (c[k + 1] - c[k]) * (d[k + 1] - d[k])
        assert lower - Fraction(1, 10**14) <= bound <= lower
    np.testing.assert_allclose(found.bounds(proved)[1], dual, rtol=1e-14)


@pytest.mark.parametrize("seed", range(150))
def test_a_path_never_says_more_than_exact_arithmetic(seed):
    """From 0 on: of the model, and of the exact minimum, or of what `reach` says."""
    x, y, random = cancelling(seed, random_size(seed, 5), random_size(seed + 1, 2))
    high = random.uniform(0.1, 1) * (np.ptp(x, axis=0).max() or 1.0)
    large = np.abs(x).max() / (np.ptp(x, axis=0).max() or 1.0) > 1e7  # the bias is rounded by 1e-9
    try:
        found = path(x, y, 0, high, tol=0.99 if large else random.choice([0, 1e-4]))
    except ValueError:
        assert large
        return
    exact_x, exact_y = fractions(x), fractions(y)
    lines = exact_lines(exact_x, exact_y)
    beside = np.concatenate([found.radii, found.proved, found.proved * (1 + 1e-15)])
    for eps in [0.0, high, *random.uniform(0, high, 3), *beside, *found.proved[:2] / 2]:
        if not 0 <= eps <= high:
            continue
        best, exact = found.at(eps), Fraction(float(eps))
        w, b = fractions(best.w), Fraction(best.b)
        loss = mean_hinge(exact_margins(exact_x, exact_y, w, b)) + exact * exact_dual_norm(w, "inf")
        assert loss <= Fraction(best.primal)
        limited = found.reach < np.inf and eps < found.proved[0]
        for line in lines:
            if not limited or line[0] <= Fraction(found.reach):
                assert Fraction(best.dual) <= exact_loss(line, exact, "mean")
        assert 0 <= gap_of(best.primal, best.dual, len(y)) <= found.gap + 1e-15


def test_lower_bounds_that_are_kept_are_corners_of_the_concave_function_above_all():
    """By all chords: a point is a corner where none passes above it."""
    random = np.random.default_rng(1)
    c, d = np.sort(random.random(20)), np.sort(random.random(20))
    kept = pieces.convex(c, -d)
    chords = [
        (d[i] * (c[j] - c) + d[j] * (c - c[i])) / (c[j] - c[i])
        for i, j in itertools.combinations(range(20), 2)
    ]
    inside = [(c[i] < c) & (c < c[j]) for i, j in itertools.combinations(range(20), 2)]
    above = np.any([(one >= d) & k for one, k in zip(chords, inside, strict=True)], axis=0)
    assert kept == np.flatnonzero(~above).tolist()
