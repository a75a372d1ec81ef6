"""More features than samples in the L2 ball, against the solver of all features."""

import cvxpy as cp
import numpy as np
import pytest
from test_minimum import objective

import advlinear
from advlinear import samples
from advlinear.minima import program, roads, wide

SAME = 2e-6  # relative to the minimum or the smallest share: two gaps of at most 1e-6


def random_problem(seed):
    """Arguments of `minimise`: fewer samples than features, which may be rounded, repeat or vary.

    One sample of a class, features in other units or constant, samples that repeat, weights.
    """
    random = np.random.default_rng(seed)
    n = int(random.integers(5, 60))
    d = int(random.integers(n + 1, 200))
    y = random.integers(0, 2, n) * 2 - 1
    y[:2] = -1, 1
    x = random.normal(size=(n, d)) + random.choice([0, 0.3]) * y[:, None] * random.normal(size=d)
    kind = seed % 7
    if kind == 1:
        x = np.round(x)
    if kind == 2:
        x[n // 2 :] = x[: n - n // 2]
    if kind == 3:
        x *= 10.0 ** random.uniform(-3, 1, d)
    if kind == 4:
        y[1:] = -y[0]
    if kind == 5:
        x[:, ::2] = 5.0
    x += random.choice([0, 1, 100])
    weights = random.choice([0, 0.5, 1, 7], n) if random.random() < 0.4 else np.ones(n)
    weights[:2] = 1
    spread = np.sqrt(x.var(axis=0).sum() / n)
    eps = spread * float(random.choice([1e-3, 0.3, 0.7, 0.9, 1, 1.1, 1.5, 10]))
    return x, y, eps, "2", ("hinge", "logistic")[seed % 2], None, weights


@pytest.mark.parametrize("seed", range(210))
def test_few_samples_have_the_minimum_of_all_features(seed):
    X, y, eps, norm, loss, box, weights = random_problem(seed)
    problem = samples.problem(X, y, eps, norm, loss, box, weights)
    _, _, _, wanted = roads.solve(problem, 1e-6, None, program.solve)
    found = advlinear.minimise(X, y, eps, norm, loss, box, weights)
    lightest = weights[weights > 0].min() / weights.sum()
    assert abs(found.primal - wanted["primal"]) <= SAME * max(wanted["primal"], lightest)
    assert found.violation == 0
    assert found.primal == pytest.approx(
        objective(X, y, found.w, found.b, eps, norm, loss, weights=weights), rel=1e-6, abs=1e-9
    )
    proof = advlinear.certificate(
        X, y, found.w, found.b, found.alpha, eps, norm, loss, None, weights
    )
    assert proof == {name: getattr(found, name) for name in proof}


@pytest.mark.parametrize("seed", range(300, 330))
def test_few_samples_against_a_conic_solver(seed):
    """Clarabel, to 1e-5 as its gap; where it does not say "optimal" the minimum is not attained."""
    X, y, eps, norm, loss, box, weights = random_problem(seed)
    w, b = cp.Variable(X.shape[1]), cp.Variable()
    margins = cp.multiply(y, (X - X.mean(axis=0)) @ w + b) - eps * cp.norm(w, 2)
    losses = cp.pos(1 - margins) if loss == "hinge" else cp.logistic(-margins)
    program = cp.Problem(cp.Minimize((weights / weights.sum()) @ losses))
    try:
        program.solve(solver="CLARABEL")
    except cp.SolverError:
        program = None
    if program is None or program.status != "optimal":
        pytest.skip("the conic solver does not find a minimum")
    found = advlinear.minimise(X, y, eps, norm, loss, box, weights)
    assert found.primal <= program.value + 1e-5
    assert found.dual >= program.value - 1e-5


def test_samples_of_weight_0_do_not_count(monkeypatch):
    """20 samples of a weight have fewer than 30 features, 40 samples have not."""
    taken = []
    monkeypatch.setattr(wide, "takes", lambda one: taken.append(one.x.shape) or True)
    random = np.random.default_rng(0)
    X, y, weights = random.normal(size=(40, 30)), np.arange(40) % 2, np.repeat([1, 0], 20)
    found = advlinear.minimise(X, y, 0.8, "2", sample_weight=weights)
    wanted = advlinear.minimise(X[:20], y[:20], 0.8, "2")
    assert taken == [(20, 30), (20, 30)]
    assert found.primal == pytest.approx(wanted.primal, rel=SAME)
    assert not found.alpha[20:].any()


def test_a_matrix_that_would_not_fit_is_refused_before_the_work():
    X = np.zeros((2, 20_000))
    X[1] = 1
    with pytest.raises(ValueError, match=r"20000 features need a matrix of 3.2e\+09 bytes"):
        advlinear.minimise(X, [0, 1], 0.1, "1")
    assert advlinear.minimise(X, [0, 1], 0.1, "2").primal == 0
