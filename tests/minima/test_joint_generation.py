"""The minima of several classes in the L-infinity ball, against HiGHS on the whole program."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import minmax_scale

import advlinear
from advlinear import samples
from advlinear.minima.joint import generation, vertex
from advlinear.minima.joint.program import Part, least

TOL = 1e-6
ROADS = pytest.mark.parametrize("all_at_once", [1e6, 0], ids=["simplex", "rounds"])
MANY = pytest.param(range(24, 300), marks=pytest.mark.slow, id="many")


def whole_minimum(x, y, share, eps):
    """The minimum by HiGHS, with a variable t_pqj >= |w_pj - w_qj| for each pair and feature."""
    (n, d), K = x.shape, y.max() + 1
    pairs = {pair: m for m, pair in enumerate(itertools.combinations(range(K), 2))}
    bias, bound, loss = K * d, K * d + K, K * d + K + len(pairs) * d
    entries, right = [], []

    def at_most(limit, *parts):
        entries.extend((len(right), column, value) for column, value in parts)
        right.append(limit)

    for i, k in itertools.product(range(n), range(K)):
        if k == y[i]:
            continue
        t = bound + pairs[min(k, y[i]), max(k, y[i])] * d
        weights = [(y[i] * d + j, -x[i, j]) for j in range(d)]
        weights += [(k * d + j, x[i, j]) for j in range(d)] + [(t + j, eps) for j in range(d)]
        at_most(-1, *weights, (bias + y[i], -1), (bias + k, 1), (loss + i, -1))
    for ((p, q), m), j, sign in itertools.product(pairs.items(), range(d), (1, -1)):
        at_most(0, (p * d + j, sign), (q * d + j, -sign), (bound + m * d + j, -1))
    rows, columns, values = zip(*entries, strict=True)
    found = scipy.optimize.linprog(
        np.append(np.zeros(loss), share),
        scipy.sparse.csr_array((values, (rows, columns)), shape=(len(right), loss + n)),
        right,
        bounds=[(None, None)] * bound + [(0, None)] * (len(pairs) * d + n),
        options=dict(primal_feasibility_tolerance=1e-10, dual_feasibility_tolerance=1e-10),
    )
    return found.fun


def random_problem(seed):
    """X, y, sample_weight and eps: duplicates, constant features, offsets, units, one sample."""
    random = np.random.default_rng(seed)
    K, d = random.integers(3, 7), random.integers(1, 9)
    n = random.integers(K + 1, 60)
    y = np.append(np.arange(K), random.integers(0, K - (random.random() < 0.3), n - K))
    x = random.normal(size=(n, d)) + random.normal(size=(K, d))[y] * random.choice([0, 0.5, 1, 3])
    if random.random() < 0.3:
        x = x.round()
    if random.random() < 0.3:
        x[n // 2 :] = x[: n - n // 2]
    if random.random() < 0.2:
        x[:, 0] = 3
    if random.random() < 0.2:
        x = x * 10.0 ** random.integers(-4, 5, d)
    if random.random() < 0.2:
        x = x + 1e4 * random.normal(size=d)
    weights = None
    if random.random() < 0.3:
        weights = random.integers(0, 4, n) * 1.0
        weights[:K] = 1
    eps = random.choice([0.02, 0.1, 0.3, 1]) * (np.ptp(x, 0).max() if random.random() < 0.5 else 1)
    return x, y, weights, float(eps)


@ROADS
@pytest.mark.parametrize("seeds", [pytest.param(range(24), id="few"), MANY])
def test_random_minima_are_those_of_the_whole_program(seeds, all_at_once, monkeypatch):
    """Within 1e-6 of the larger of the minimum and the smallest share of a sample."""
    monkeypatch.setattr(generation, "ALL_AT_ONCE", all_at_once)
    for seed in seeds:
        x, y, weights, eps = random_problem(seed)
        best = advlinear.minimise(x, y, eps, sample_weight=weights)
        share = np.full(len(y), 1 / len(y)) if weights is None else weights / weights.sum()
        wanted = whole_minimum(x - x.mean(axis=0), y, share, eps)
        largest = TOL * max(wanted, share[share > 0].min())
        assert best.primal == pytest.approx(wanted, rel=0, abs=largest), seed
        steps = x - x[0]  # if whole numbers, eps may be exactly the margin between classes
        assert best.violation <= 1e-12 * np.allclose(steps, steps.round(), atol=1e-9), seed
        proof = advlinear.certificate(x, y, best.w, best.b, best.alpha, eps, sample_weight=weights)
        assert proof["gap"] == best.gap <= TOL, seed


@ROADS
def test_two_classes_by_this_road_have_the_same_minimum(all_at_once, monkeypatch):
    """To 1e-9, with the weights up to rounding where the minimum is at one point."""
    monkeypatch.setattr(generation, "ALL_AT_ONCE", all_at_once)
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 80)
    x = random.normal(size=(80, 6)) + y[:, None]
    best = advlinear.minimise(x, y, 0.2)
    problem = samples.JointProblem(x, y, np.arange(2), np.ones(80), 0.2, "inf", "hinge")
    W, b, alpha, flow, proof = generation.solve(problem, TOL, None)
    assert proof["primal"] == pytest.approx(best.primal, rel=1e-9)
    assert flow is None
    assert proof["violation"] == 0
    np.testing.assert_allclose(W[1] - W[0], best.w, atol=1e-6)
    assert b[1] - b[0] == pytest.approx(best.b, abs=1e-6)
    np.testing.assert_allclose(alpha.sum(), best.alpha.sum(), rtol=1e-9)


def test_iris():
    x, y = load_iris(return_X_y=True)
    best = advlinear.minimise(minmax_scale(x), y, 0.05)
    assert best.primal == pytest.approx(0.2622771, abs=5e-8)  # HiGHS
    assert best.violation == 0
    assert best.gap < 1e-9


@pytest.mark.slow
def test_digits_end_at_a_vertex():
    """Its minimum is that of HiGHS, to seven digits; and it has as many columns as options."""
    x, y = load_digits(return_X_y=True)
    lines = []
    best = advlinear.minimise(x / 16, y, 0.05, report=lines.append)
    assert best.primal == pytest.approx(0.2424125, abs=5e-8)
    assert best.gap < 1e-9
    assert best.violation == 0
    assert lines[0].startswith("round 1: ")
    assert lines[-1].startswith("vertex: ")
    steps = [np.unique(column) for column in best.W.T]
    columns = sum(len(one) - 1 for one in steps)  # one for each step of the weights of a feature
    share = best.alpha * len(y)
    between = np.count_nonzero((share > 1e-9) & (share < 1 - 1e-9))
    full = np.count_nonzero((share > 1e-9).sum(axis=1) * (share.sum(axis=1) > 1 - 1e-9) > 1)
    assert columns + 9 == between - full


def test_a_weight_of_two_is_a_sample_taken_twice_and_0_is_none():
    x, y, _, _ = random_problem(4)
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    weights[np.unique(y, return_index=True)[1]] = 1
    twice = np.repeat(np.arange(len(y)), weights)
    one = advlinear.minimise(x, y, 0.1, sample_weight=weights)
    other = advlinear.minimise(x[twice], y[twice], 0.1)
    assert one.primal == pytest.approx(other.primal, rel=1e-9)
    assert not one.alpha[weights == 0].any()


def test_labels_and_columns_keep_their_names():
    pandas = pytest.importorskip("pandas")
    x, y, _, _ = random_problem(4)
    names = [f"feature {j}" for j in range(x.shape[1])]
    best = advlinear.minimise(pandas.DataFrame(x, columns=names), np.array(list("abcdef"))[y], 0.1)
    assert best.classes.tolist() == list("abcdef")[: y.max() + 1]
    assert list(best.names) == names
    assert "classes, hinge, eps=0.1" in repr(best)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (dict(norm="2"), r"3 classes of 400 features: K \(d \+ 1\) above 1,000 needs the hinge in"),
        (dict(loss="logistic"), r"choose this, or fewer features"),
        (dict(eps=0.0), r"with eps above 0"),
        (dict(box=(0, 1)), "a box needs two classes, not 3"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(known, message):
    x, y = np.random.default_rng(0).random((30, 400)), np.arange(30) % 3
    with pytest.raises(ValueError, match=message):
        advlinear.minimise(x, y, **(dict(eps=0.1) | known))


@pytest.mark.parametrize("eps", [1e3, 1e200])
def test_far_above_the_range_no_weights_are_best(eps):
    x, y, _, _ = random_problem(1)
    best = advlinear.minimise(x, y, eps)
    share = np.bincount(y).max() / len(y)
    assert not best.w.any()
    assert best.primal == pytest.approx(min(1, 2 * (1 - share)), rel=1e-9)


# --- the parts -----------------------------------------------------------------------------------


def program_and_part():
    """A program of 5 classes, and a part with some options, groups and columns."""
    random = np.random.default_rng(3)
    y = random.integers(0, 5, 60)
    problem = samples.problem(random.random((60, 4)), y, 0.1, sample_weight=1 + random.random(60))
    program = generation._program(problem, TOL, None)[0]
    options = (random.random((60, 5)) < 0.3) & (np.arange(5) != y[:, None])
    columns = random.random((30, 4)) < 0.5
    return program, Part(program, options, random.integers(0, 5, 60), columns)


def test_the_rows_of_a_part_are_margins():
    """To 1e-12, of the weights of random columns; a group's is the mean of its samples."""
    program, part = program_and_part()
    theta = np.random.default_rng(0).random(part.columns.sum() + 4)
    W, b = part.weights(theta)
    margins = part.matrix() @ theta
    scores = program.x @ W.T + b
    sets, features = np.nonzero(part.columns)
    costs = np.zeros((5, 5))
    for size, column, j in zip(theta, program.sets[sets], features, strict=False):
        costs += size * program.price[j] * np.not_equal.outer(column, column)
    members = [[i] for i in part.single[0]] + part.groups
    assert len(members) == len(margins)
    assert len(part.groups) > 5
    for margin, rows, own, rival in zip(margins, members, *part.classes, strict=True):
        assert (program.y[rows] == own).all()
        mean = np.average((scores[:, own] - scores[:, rival])[rows], weights=program.c[rows])
        assert margin == pytest.approx(mean - costs[own, rival], abs=1e-12)


def test_the_costs_of_a_chain_of_sets_are_the_norms_of_differences():
    """`behind` costs eps ||w_p - w_q||_1; a part's rows cost at least that."""
    program, part = program_and_part()
    theta = np.random.default_rng(0).random(part.columns.sum() + 4)
    W, b = part.weights(theta)
    behind = program.behind(W, b)
    scores = program.x @ W.T + b
    for i, k in itertools.product(range(60), range(5)):
        y = program.y[i]
        cost = program.price @ np.abs(W[y] - W[k])
        assert behind[i, k] == pytest.approx(scores[i, k] - scores[i, y] + cost, abs=1e-12)
    sample, rival = part.single
    assert (-part.matrix()[: len(sample)] @ theta >= behind[sample, rival] - 1e-12).all()


def test_slack_is_that_of_each_set_and_feature():
    program, _ = program_and_part()
    alpha = np.random.default_rng(0).random((60, 5)) * (np.arange(5) != program.y[:, None])
    slack, across = program.slack(alpha, program.price)
    for s, j in np.ndindex(slack.shape):
        inside = program.sets[s]
        mass = pull = 0.0
        for i, k in np.argwhere(alpha > 0):
            leaves = float(inside[program.y[i]]) - inside[k]
            mass += alpha[i, k] * abs(leaves)
            pull += alpha[i, k] * leaves * program.x[i, j]
        assert across[s] == pytest.approx(mass, rel=1e-12)
        assert slack[s, j] == pytest.approx(program.price[j] * mass - pull, abs=1e-10)


def test_alpha_of_the_rows_and_of_the_samples():
    _, part = program_and_part()
    alpha = np.random.default_rng(0).random(len(part.owner.sample))
    whole = part.spread(alpha)
    np.testing.assert_allclose(part.gathered(whole), alpha, rtol=1e-12)
    assert whole.sum() == pytest.approx(alpha.sum(), rel=1e-12)


@pytest.mark.parametrize("per_feature", [1, 3])
def test_least_takes_the_least_of_each_feature(per_feature):
    values = np.random.default_rng(0).random((30, 8))
    values[values > 0.2] = np.inf
    chosen = least(values, per_feature)
    for column, one in zip(values.T, chosen.T, strict=True):
        wanted = sorted(column[np.isfinite(column)])[:per_feature]
        assert sorted(column[one]) == wanted


def test_a_part_without_its_worst_options_has_a_lower_minimum():
    """By Jensen's inequality, and as fewer options are in it; with all columns, so a bound."""
    program, part = program_and_part()
    rivals = np.arange(5) != program.y[:, None]
    every = np.ones(part.columns.shape, dtype=bool)
    whole = vertex.solve(Part(program, rivals, program.y, every), None)
    worst = np.where(
        program.values(program.behind(whole.W, whole.b)).max(axis=1) > 0, part.worst, 0
    )
    some = vertex.solve(Part(program, part.options, worst, every), None)
    assert some.alpha.sum() < whole.alpha.sum()
