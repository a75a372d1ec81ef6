"""Operators, cones and losses keep what the interior point assumes of them.

Each is held against dense matrices that are built column by column from basis vectors, and against
derivatives by differences. Numbers in brackets are equations of docs/theory.md.
"""

import numpy as np
import pytest
import scipy.optimize

from advlinear.minima import cones, curvatures, interior, losses, operators, program, scaled
from advlinear.samples import problem as problem_of

EXACT = dict(rtol=1e-11, atol=1e-11)  # sums of some ten products of numbers near 1
N, D = 11, 4
rng = np.random.default_rng(0)
X, Y = rng.uniform(-0.5, 0.5, (N, D)), np.where(np.arange(N) % 3 == 0, 1.0, -1.0)
SCALE = rng.uniform(0.1, 0.4, D)
BOTH = np.hstack([Y[:, None] * X, -Y[:, None] * X]) - rng.uniform(0, 0.3, (N, 2 * D))
WEIGHTS = rng.uniform(0.2, 2, N)
DIAGONAL = curvatures.Diagonal(WEIGHTS)

PLAIN = operators.Plain(Y[:, None] * X, Y)
SPLIT = operators.Split(Y[:, None] * X, Y, SCALE)
BOXED = operators.Boxed(BOTH, Y)
OPERATORS = [PLAIN, SPLIT, BOXED]
CONES = [cones.Nonnegative(2 * D), cones.Largest(SCALE), cones.Lorentz(SCALE)]
PAIRS = [(SPLIT, CONES[0]), (BOXED, CONES[0]), (PLAIN, CONES[1]), (PLAIN, CONES[2])]


def named(one):
    return type(one).__name__


def size(one):
    """The length of theta."""
    plain = isinstance(one, operators.Plain | cones.Largest | cones.Lorentz)
    return D + 2 if plain else 2 * D + 1


def dense(linear, length):
    """The matrix of a linear function of so many numbers."""
    return np.stack([linear(one) for one in np.eye(length)], axis=1)


def inside(cone, seed=1):
    """A point s inside the cone, of the size of s."""
    values = np.random.default_rng(seed).uniform(0.3, 2, len(cone.matvec(np.ones(size(cone)))))
    if isinstance(cone, cones.Lorentz):
        values[0] = 1.3 * np.linalg.norm(values[1:])
    return values


def product(cone, s, z):
    if isinstance(cone, cones.Lorentz):
        return np.append(s @ z, s[0] * z[1:] + z[0] * s[1:])
    return s * z


def in_cone(cone, s):
    """At least 0 inside the cone, and 0 at its boundary."""
    return s[0] - np.linalg.norm(s[1:]) if isinstance(cone, cones.Lorentz) else s.min()


# --- operators -----------------------------------------------------------------------------------


def test_margins_are_those_of_the_worst_case():
    w, b, t = np.array([0.7, -0.2, 0.0, 1.1]), 0.3, 0.9
    margins = Y * (X @ w + b)
    split = np.concatenate([np.maximum(w, 0), np.maximum(-w, 0), [b]])
    np.testing.assert_allclose(PLAIN.matvec(np.r_[t, w, b]), margins - t, **EXACT)
    np.testing.assert_allclose(SPLIT.matvec(split), margins - SCALE @ abs(w), **EXACT)
    moved = Y * b + BOTH[:, :D] @ np.maximum(w, 0) + BOTH[:, D:] @ np.maximum(-w, 0)
    np.testing.assert_allclose(BOXED.matvec(split), moved, **EXACT)
    for operator, theta in ((PLAIN, np.r_[t, w, b]), (SPLIT, split), (BOXED, split)):
        np.testing.assert_array_equal(operator.weights(theta), w)


@pytest.mark.parametrize("one", [*OPERATORS, *CONES], ids=named)
def test_rmatvec_is_the_adjoint_of_matvec(one):
    forward = dense(one.matvec, size(one))
    backward = dense(one.rmatvec, len(forward))
    np.testing.assert_allclose(backward, forward.T, **EXACT)
    assert np.abs(forward).max() > 0.1


@pytest.mark.parametrize("operator", [PLAIN, BOXED], ids=named)
def test_gram_is_that_of_the_dense_matrix(operator, monkeypatch):
    monkeypatch.setattr(curvatures, "GRAM_BLOCK", 3)
    a = dense(operator.matvec, size(operator))
    np.testing.assert_allclose(operator.gram(DIAGONAL), a.T @ np.diag(WEIGHTS) @ a, **EXACT)


@pytest.mark.parametrize(("operator", "cone"), PAIRS, ids=lambda one: named(one))
def test_newtons_system_is_solved(operator, cone):
    """To 1e-9 of the largest entry: the diagonal is raised by 1e-14, the condition about 1e4."""
    scaling = cone.scaling(inside(cone, 1), inside(cone, 2))
    a, k = (dense(one.matvec, size(operator)) for one in (operator, cone))
    matrix = a.T @ np.diag(WEIGHTS) @ a + k.T @ dense(scaling.hessian, len(k)) @ k
    gram = operator.gram(DIAGONAL)
    applied = dense(lambda theta: operator.applied(gram, theta), size(operator))
    np.testing.assert_allclose(applied, a.T @ np.diag(WEIGHTS) @ a, **EXACT)
    solve = operator.solver(gram, scaling)
    expected = np.linalg.inv(matrix)
    found = dense(solve, size(operator))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(("operator", "cone"), PAIRS, ids=lambda one: named(one))
def test_a_matrix_that_is_not_finite_raises(operator, cone):
    scaling = cone.scaling(inside(cone, 1), inside(cone, 2))
    with np.errstate(invalid="ignore"), pytest.raises(np.linalg.LinAlgError, match="not finite"):
        operator.solver(operator.gram(curvatures.Diagonal(np.full(N, np.inf))), scaling)


@pytest.mark.parametrize("operator", OPERATORS, ids=named)
def test_a_subset_has_the_rows_and_columns_of_the_whole(operator):
    samples = np.array([2, 5, 7])
    whole = dense(operator.matvec, size(operator))
    np.testing.assert_array_equal(operator.subset(samples).y, Y[samples])
    found = dense(operator.subset(samples).matvec, size(operator))
    np.testing.assert_allclose(found, whole[samples], **EXACT)
    if operator is PLAIN:
        return
    columns = np.array([1, 3, 1 + D, 3 + D])
    part = dense(operator.restricted(samples, columns).matvec, len(columns) + 1)
    np.testing.assert_allclose(part, whole[np.ix_(samples, [*columns, 2 * D])], **EXACT)
    some = np.array([0, 6])
    found = operator.entries(samples, some)
    np.testing.assert_allclose(found, whole[np.ix_(samples, some)], **EXACT)


# --- cones ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_the_hessian_is_one_matrix_symmetric_and_positive(cone):
    scaling = cone.scaling(inside(cone, 1), inside(cone, 2))
    k = dense(cone.matvec, size(cone))
    hessian = dense(scaling.hessian, len(k))
    np.testing.assert_allclose(hessian, hessian.T, **EXACT)
    assert np.linalg.eigvalsh(hessian).min() > 0
    gram = np.ones((size(cone),) * 2)
    scaling.add_hessian(gram)
    np.testing.assert_allclose(gram, 1 + k.T @ hessian @ k, **EXACT)


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_at_s_equal_to_the_gradient_times_mu_the_hessian_is_that_of_the_barrier(cone):
    """On the central path, z = mu grad B(s), H is -mu times the second derivative of B."""
    s, mu = inside(cone), 0.3
    scaling = cone.scaling(s, mu * cone.barrier_gradient(s))
    expected = [
        -mu * (cone.barrier_gradient(s + move) - cone.barrier_gradient(s - move)) / 2e-5
        for move in 1e-5 * np.eye(len(s))
    ]
    np.testing.assert_allclose(dense(scaling.hessian, len(s)), np.array(expected).T, rtol=1e-5)
    np.testing.assert_allclose(scaling.complement(mu), 0, atol=1e-11)


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_the_barrier_and_its_gradient(cone):
    s = inside(cone)
    gradient = cone.barrier_gradient(s)
    slopes = scipy.optimize.approx_fprime(s, cone.barrier, 1e-7)
    np.testing.assert_allclose(slopes, gradient, rtol=1e-5, atol=1e-5)
    assert s @ gradient == pytest.approx(cone.degree, rel=1e-12)
    assert in_cone(cone, gradient) > 0


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_a_newton_step_of_the_cone_reaches_the_products(cone):
    """To second order in the step; with the predictor's products taken off, to that as well."""
    s, z = inside(cone, 1), inside(cone, 2)
    scaling, away = cone.scaling(s, z), np.random.default_rng(3).standard_normal(len(s))
    mu = s @ z / cone.degree
    if not isinstance(cone, cones.Lorentz):
        ds = 0.1 * away
        dz = scaling.complement(mu) - scaling.hessian(ds)
        np.testing.assert_allclose(s * dz + z * ds, mu - s * z, **EXACT)
        corrected = scaling.complement(mu, (ds, dz)) - scaling.hessian(ds)
        np.testing.assert_allclose(s * corrected + z * ds, mu - s * z - ds * dz, **EXACT)
        return
    # W, independent of the code: the symmetric root of the mean that maps z to W^-1 s
    h = dense(scaling.hessian, len(s))
    values, vectors = np.linalg.eigh(h)
    inverse = vectors @ np.diag(np.sqrt(values)) @ vectors.T  # W^-1, as H = W^-2
    w = np.linalg.inv(inverse)
    np.testing.assert_allclose(w @ z, inverse @ s, rtol=1e-9)
    ds, unit = 0.1 * away, np.eye(len(s))[0]
    lam = w @ z
    for predicted in (None, (away, ds)):
        dz = scaling.complement(mu, predicted) - scaling.hessian(ds)
        reached = product(cone, lam, w @ dz + inverse @ ds) + product(cone, lam, lam)
        if predicted:
            reached += product(cone, inverse @ predicted[0], w @ predicted[1])
        np.testing.assert_allclose(reached, mu * unit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_the_longest_steps_land_on_the_boundary(cone):
    """To 1e-12 of s. A direction inside the cone never leaves it."""
    s, z = inside(cone, 1), inside(cone, 2)
    scaling, random = cone.scaling(s, z), np.random.default_rng(4)
    landed = 0
    for _ in range(50):
        ds, dz = random.standard_normal((2, len(s)))
        for point, change, step in zip((s, z), (ds, dz), scaling.longest(ds, dz), strict=True):
            if step == np.inf:
                assert in_cone(cone, change) >= 0
                continue
            landed += 1
            assert in_cone(cone, point + step * change) == pytest.approx(0, abs=1e-12 * (1 + step))
            assert in_cone(cone, point + 0.999 * step * change) > 0
    assert landed > 50
    assert scaling.longest(s, z) == (np.inf, np.inf)


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_the_tightest_theta_is_on_the_boundary_and_has_the_same_weights(cone):
    operator = SPLIT if type(cone) is cones.Nonnegative else PLAIN
    theta = np.random.default_rng(5).uniform(0.5, 1, size(cone))
    if operator is PLAIN:
        theta[0] = 10.0
    tight = cone.tightest(theta)
    np.testing.assert_allclose(operator.weights(tight), operator.weights(theta), **EXACT)
    assert tight[-1] == theta[-1]
    assert in_cone(cone, cone.matvec(tight)) == pytest.approx(0, abs=1e-15)
    margins, larger = operator.matvec(theta), operator.matvec(tight)
    assert (larger > margins).all()
    np.testing.assert_allclose(operator.tightened(margins, theta, tight), larger, **EXACT)


@pytest.mark.parametrize("cone", CONES, ids=named)
def test_dual_slack_says_whether_there_is_a_z(cone):
    """K^T z = -descent with z in C, for z inside, and for z that a linear program does not find."""
    z = inside(cone)
    descent = -cone.rmatvec(z)
    assert cone.dual_slack(descent, 0.0) > 0
    for error in (0.1, 1e6):
        assert cone.dual_slack(descent, error) < cone.dual_slack(descent, 0.0)
    assert cone.dual_slack(descent, 1e6) < 0
    random, signs = np.random.default_rng(6), set()
    for _ in range(30):
        if isinstance(cone, cones.Lorentz):
            z = random.standard_normal(len(z)) + 2 * np.eye(len(z))[0]
            expected, descent = in_cone(cone, z), -cone.rmatvec(z)
            assert cone.dual_slack(descent, 0.0) == pytest.approx(expected, abs=1e-12)
        else:
            descent = -np.abs(random.standard_normal(size(cone)))
            descent[:-1] += random.choice([0.0, 0.3])
            descent[0] *= 20 * random.random()
            descent[-1] = 0
            k = dense(cone.matvec, size(cone))
            found = scipy.optimize.linprog(np.zeros(len(k)), A_eq=k.T, b_eq=-descent)
            expected = 1 if found.success else -1
            assert np.sign(cone.dual_slack(descent, 0.0)) == expected
        signs.add(np.sign(expected))
    assert signs == {-1, 1}


# --- losses --------------------------------------------------------------------------------------


def test_values_of_the_losses():
    margins = np.array([-800.0, -1, 0, 0.5, 1, 3, 800])
    hinge = losses.Hinge.start(np.ones(7), np.full(7, 0.5), margins).values(margins)
    np.testing.assert_array_equal(hinge, [801, 2, 1, 0.5, 0, 0, 0])
    logistic = losses.Logistic.start(np.ones(7), np.full(7, 0.5), margins).values(margins)
    with np.errstate(over="ignore"):
        expected = np.log1p(np.exp(-margins))
    np.testing.assert_allclose(logistic[1:], expected[1:], rtol=1e-15, atol=1e-300)
    assert logistic[0] == 800


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_the_first_alpha_has_the_same_sum_in_both_classes(loss):
    """Half of c in the lighter one; and where there is one class alone, half of c."""
    first = losses.First.of(loss, WEIGHTS, Y)
    alpha = first(np.zeros(N)).alpha
    sums = WEIGHTS[Y > 0].sum(), WEIGHTS[Y < 0].sum()
    assert alpha @ Y == pytest.approx(0, abs=1e-14)
    assert alpha.sum() == pytest.approx(min(sums), rel=1e-14)
    np.testing.assert_array_equal(first.part(slice(2, 5))(np.zeros(3)).alpha, alpha[2:5])
    one = losses.First.of(loss, WEIGHTS[Y > 0], Y[Y > 0])
    found = one(np.zeros(len(one.y))).alpha
    np.testing.assert_allclose(found, WEIGHTS[Y > 0] / 2, rtol=1e-15)


def test_the_hinge_solves_the_linearised_equations_six():
    """Each equation of (6) after a full step misses by the second-order terms alone."""
    random = np.random.default_rng(7)
    margins, dm = random.standard_normal((2, N))
    alpha, mu = WEIGHTS * random.uniform(0.1, 0.9, N), 0.2
    state = losses.Hinge.start(WEIGHTS, alpha, margins)
    np.testing.assert_allclose(state.over - state.under, margins - 1, **EXACT)
    assert min(state.over.min(), state.under.min()) > 0
    state = state.at(margins + 0.1)  # equations that do not hold yet
    other = state.step(state.target(0.0), random.standard_normal(N))
    for predicted in (None, other):
        target = state.target(mu, predicted)
        step = state.step(target, dm)
        np.testing.assert_array_equal(step.alpha, state.curvature.matvec(target.margins - dm))
        moved = state.move(step, 1.0, 1.0)
        np.testing.assert_allclose(moved.over - moved.under, margins + 0.1 + dm - 1, **EXACT)
        np.testing.assert_allclose(moved.alpha + moved.rest, WEIGHTS, **EXACT)
        second = np.zeros(N) if predicted is None else predicted.alpha * predicted.over
        left = mu - second + step.alpha * step.over
        np.testing.assert_allclose(moved.alpha * moved.over, left, **EXACT)
        second = np.zeros(N) if predicted is None else -predicted.alpha * predicted.under
        left = mu - second - step.alpha * step.under
        np.testing.assert_allclose(moved.rest * moved.under, left, **EXACT)
        products = moved.alpha @ moved.over + moved.rest @ moved.under
        assert moved.products == pytest.approx(products, rel=1e-14)
    assert state.n_products == 2 * N


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_steps_of_the_hinge_land_on_the_boundary(seed):
    random = np.random.default_rng(seed)
    margins, change = random.standard_normal((2, N))
    alpha = WEIGHTS * random.uniform(0.1, 0.9, N)
    state = losses.Hinge.start(WEIGHTS, alpha, margins).at(margins)
    target = state.target(0.0)
    step = state.step(target, target.margins - change / state.curvature.diagonal)
    moved = state.move(step, step.longest_primal, step.longest_dual)
    for parts in ((moved.over, moved.under), (moved.alpha, moved.rest)):
        assert np.concatenate(parts).min() == pytest.approx(0, abs=1e-13)


def test_the_alpha_of_the_logistic_loss_and_its_curvature_are_derivatives():
    """By central differences, to 1e-8."""
    margins, h = np.random.default_rng(9).standard_normal(N) * 2, 1e-5
    state = losses.Logistic.start(WEIGHTS, WEIGHTS / 2, margins).at(margins)
    slope = (state.values(margins + h) - state.values(margins - h)) / (2 * h)
    np.testing.assert_allclose(state.alpha, -WEIGHTS * slope, rtol=1e-8)
    falls = (state.at(margins - h).alpha - state.at(margins + h).alpha) / (2 * h)
    np.testing.assert_allclose(state.curvature.diagonal, falls, rtol=1e-8)
    target = state.target(0.1)
    assert not np.concatenate(target).any()
    step = state.step(target, np.full(N, 1e9))
    assert step.longest_primal == step.longest_dual == np.inf
    moved = state.move(step, 1.0, 1.0)  # cut at its bounds
    np.testing.assert_array_equal(moved.alpha, 0)
    assert moved.products == moved.n_products == 0


# --- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize(("operator", "cone"), PAIRS, ids=lambda one: named(one))
def test_a_full_step_keeps_the_dual_constraint(operator, cone, loss, monkeypatch):
    """A^T alpha + f + K^T z = 0 after a step of length 1, and z follows from s; to 1e-9.

    Of samples in three blocks.
    """
    monkeypatch.setattr(scaled, "BLOCK_SIZE", 0)
    monkeypatch.setattr(scaled, "FEWEST_ROWS", 4)
    theta = np.full(size(cone), 0.2)
    if operator is PLAIN:
        theta[0] = 2.0
    linear_term = operator.rmatvec(np.random.default_rng(10).uniform(0, 1, N))
    state = losses.BY_NAME[loss].start(WEIGHTS, WEIGHTS / 2, operator.matvec(theta))
    z = 0.5 * cone.barrier_gradient(cone.matvec(theta))
    samples = interior.Samples.of(operator, state, operator.matvec(theta))
    assert len(samples.blocks) == 3
    iterate = interior.Iterate(theta, samples, z, operator.rmatvec(state.alpha))
    newton = interior.Newton(operator, cone, linear_term, iterate)
    predicted = newton.direction(0.0)
    for change in (predicted, newton.direction(0.1), newton.direction(0.1, predicted)):
        blocks = change.samples.blocks
        d_alpha = np.concatenate([one.change.alpha for one in blocks])
        alpha = newton.samples.whole("alpha") + d_alpha
        left = operator.rmatvec(alpha) + linear_term + cone.rmatvec(z + change.z)
        np.testing.assert_allclose(left, 0, atol=1e-9)
        if change is not predicted:
            np.testing.assert_allclose(change.adjoint, operator.rmatvec(d_alpha), **EXACT)
        moved, _ = change.samples.each(interior.Block.move, 0.3, 0.3)
        margins = operator.matvec(theta + 0.3 * change.theta)
        np.testing.assert_allclose(moved.whole("margins"), margins, **EXACT)


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_the_adjoint_of_each_iterate_is_that_of_its_alpha(loss, monkeypatch):
    """Also where a step leads alpha beyond its bounds, as with the logistic loss and d > n."""
    solve, n_iterates = interior.solve, 0

    def solve_and_check(operator, cone, linear_term, start, theta, rule, **more):
        def checked(iterate, number):
            nonlocal n_iterates
            n_iterates += 1
            expected = operator.rmatvec(iterate.alpha)
            np.testing.assert_allclose(iterate.adjoint, expected, atol=1e-12 * iterate.alpha.sum())
            return rule(iterate, number)

        return solve(operator, cone, linear_term, start, theta, checked, **more)

    monkeypatch.setattr(interior, "solve", solve_and_check)
    monkeypatch.setattr(program, "AT_ONCE", 0)
    for seed in range(40):
        random = np.random.default_rng(seed)
        x, y = random.normal(size=(50, 60)), np.arange(50) % 2
        x[:, :3] += y[:, None]
        x[random.random(x.shape) < 0.7] = 0
        problem = problem_of(x, y, 10.0 ** random.uniform(-3, -1), "inf", loss)
        assert program.solve(problem, 1e-6, None)[-1]["gap"] <= 1e-6
    assert n_iterates > 40 * 5
