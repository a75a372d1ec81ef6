"""Operators, cone and losses of several classes keep what the interior point assumes of them.

Each is held against dense matrices, built column by column, and against derivatives by differences.
Numbers in brackets are equations of docs/theory.md.
"""

from itertools import combinations

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from advlinear.minima import cones, curvatures, interior
from advlinear.minima import losses as two_classes
from advlinear.minima.joint import cones as joint_cones
from advlinear.minima.joint import losses, operators

EXACT = dict(rtol=1e-11, atol=1e-11)  # sums of some ten products of numbers near 1
N, D, K, EPS = 13, 3, 4, 0.1
N_PAIRS = K * (K - 1) // 2
rng = np.random.default_rng(0)
X, Y = rng.uniform(-0.5, 0.5, (N, D)), np.arange(N) % K
SCALE, WEIGHTS = rng.uniform(0.1, 0.4, D), rng.uniform(0.2, 2, N)

CLASSES = operators.Classes(X, Y, K)
FEW = losses.Options(np.array([0, 1, 1, 1, 2, 2, 3]))  # of four samples, one to three options
FEW_WEIGHTS = np.array([0.5, 1, 2, 1.5])
PAIRS = [joint_cones.Pairs(cone, K) for cone in (cones.Largest(SCALE), cones.Lorentz(SCALE))]


def dense(linear, length):
    """The matrix of a linear function of so many numbers."""
    return np.stack([linear(one) for one in np.eye(length)], axis=1)


def columns():
    """`Columns` with one column for each set of classes and each feature."""
    own, rival, sample = CLASSES.own, CLASSES.rival, CLASSES.options.sample
    classes = np.eye(K)[:, :-1]  # the last has the bias 0
    entries = []
    for chosen in (set(one) for size in (1, 2) for one in combinations(range(K), size)):
        inside, meets = (np.isin(one, list(chosen)) for one in (own, rival))
        sign = inside.astype(float) - meets
        entries += [sign * X[sample, j] - EPS * np.abs(sign) for j in range(D)]
    return operators.Columns(np.column_stack([*entries, classes[own] - classes[rival]]))


def size(operator):
    return len(operator.rmatvec(np.zeros(len(CLASSES.own))))


def coupled(seed=1):
    random = np.random.default_rng(seed)
    return losses.Coupled(
        CLASSES.options, random.uniform(0.1, 2, len(CLASSES.own)), random.uniform(0.1, 2, N)
    )


def dense_coupled(curvature):
    """diag(d) - d d^T / (e + sum d) of each sample, written out."""
    matrix, sample = np.diag(curvature.d), curvature.options.sample
    for i, e in enumerate(curvature.e):
        d = np.where(sample == i, curvature.d, 0)
        matrix -= np.outer(d, d) / (e + d.sum())
    return matrix


# --- operators and the cone ----------------------------------------------------------------------


def test_margins_of_all_weights_are_those_of_the_worst_case():
    W, b = rng.standard_normal((K, D)), rng.standard_normal(K)
    W[-1] = b[-1] = 0
    sizes = rng.uniform(0, 1, N_PAIRS)
    theta = np.concatenate([sizes, np.column_stack([W, b])[:-1].ravel()])
    t = dict(zip(combinations(range(K), 2), sizes, strict=True))
    expected = [
        (W[y] - W[k]) @ x + b[y] - b[k] - t[min(y, k), max(y, k)]
        for x, y in zip(X, Y, strict=True)
        for k in range(K)
        if k != y
    ]
    np.testing.assert_allclose(CLASSES.matvec(theta), expected, **EXACT)
    np.testing.assert_array_equal(CLASSES.weights(theta), np.column_stack([W, b]))


def test_margins_of_columns_are_those_of_the_weights_they_stand_for():
    """One of them in the L-infinity ball: w = lambda on a set of classes, and 0 on the others."""
    operator = columns()
    theta = np.zeros(size(operator))
    theta[0], theta[K * D], theta[-(K - 1) :] = 0.7, 0.4, [0.3, -0.2, 0.1]  # of {0}, of {0, 1}
    W, b = np.zeros((K, D)), np.array([0.3, -0.2, 0.1, 0])
    W[0, 0] += 0.7
    W[[0, 1], 0] += 0.4
    expected = [
        (W[y] - W[k]) @ x + b[y] - b[k] - EPS * np.abs(W[y] - W[k]).sum()
        for x, y in zip(X, Y, strict=True)
        for k in range(K)
        if k != y
    ]
    np.testing.assert_allclose(operator.matvec(theta), expected, **EXACT)


@pytest.mark.parametrize("operator", [CLASSES, columns()], ids=["classes", "columns"])
def test_rmatvec_is_the_adjoint_of_matvec(operator):
    forward = dense(operator.matvec, size(operator))
    backward = dense(operator.rmatvec, len(CLASSES.own))
    np.testing.assert_allclose(backward, forward.T, **EXACT)
    assert np.abs(forward).max() > 0.1


@pytest.mark.parametrize("cone", PAIRS, ids=["Largest", "Lorentz"])
def test_the_cone_bounds_the_norm_of_each_difference(cone):
    forward = dense(cone.matvec, size(CLASSES))
    backward = dense(cone.rmatvec, len(forward))
    np.testing.assert_allclose(backward, forward.T, **EXACT)
    theta = rng.standard_normal(size(CLASSES))
    tight, weights = cone.tightest(theta), CLASSES.weights(theta)[:, :-1]
    order = 2 if isinstance(cone.cone, cones.Lorentz) else np.inf
    norms = [
        np.linalg.norm(SCALE * (weights[p] - weights[q]), order)
        for p, q in combinations(range(K), 2)
    ]
    np.testing.assert_allclose(tight[:N_PAIRS], norms, **EXACT)
    np.testing.assert_array_equal(tight[N_PAIRS:], theta[N_PAIRS:])
    tight[:N_PAIRS] += 0.1
    s = cone.matvec(tight)
    gradient = cone.barrier_gradient(s)
    slopes = scipy.optimize.approx_fprime(s, cone.barrier, 1e-8)
    np.testing.assert_allclose(slopes, gradient, rtol=1e-4, atol=1e-4)
    assert s @ gradient == pytest.approx(cone.degree, rel=1e-9)


@pytest.mark.parametrize("cone", PAIRS, ids=["Largest", "Lorentz"])
def test_each_pair_is_scaled_and_stepped_by_itself(cone):
    """The same as the cone of one pair, pair by pair; the matrix against the dense one."""
    theta = np.concatenate([np.full(N_PAIRS, 5.0), rng.standard_normal(size(CLASSES) - N_PAIRS)])
    s = cone.matvec(theta)
    z = 0.3 * cone.barrier_gradient(s) + 0.01 * s
    ds, dz = rng.standard_normal((2, len(s)))
    scaling = cone.scaling(s, z)
    each = [cone.cone.scaling(*one) for one in zip(cone.each(s), cone.each(z), strict=True)]
    steps = list(zip(each, cone.each(ds), cone.each(dz), strict=True))
    for found, expected in (
        (scaling.hessian(ds), [one.hessian(a) for one, a, _ in steps]),
        (scaling.complement(0.2), [one.complement(0.2) for one in each]),
        (scaling.complement(0.2, (ds, dz)), [one.complement(0.2, (a, b)) for one, a, b in steps]),
    ):
        np.testing.assert_array_equal(found, np.concatenate(expected))
    longest = np.array([one.longest(a, b) for one, a, b in steps])
    np.testing.assert_array_equal(scaling.longest(ds, dz), longest.min(axis=0))
    k, gram = dense(cone.matvec, len(theta)), np.ones((len(theta),) * 2)
    scaling.add_hessian(gram)
    np.testing.assert_allclose(gram, 1 + k.T @ dense(scaling.hessian, len(s)) @ k, **EXACT)


# --- the curvature -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 4, 1000])
def test_the_coupled_curvature_is_that_of_the_dense_matrix(block, monkeypatch):
    monkeypatch.setattr(losses, "GRAM_BLOCK", block)
    curvature = coupled()
    matrix, a = dense_coupled(curvature), rng.standard_normal((len(CLASSES.own), 5))
    np.testing.assert_allclose(dense(curvature.matvec, len(matrix)), matrix, **EXACT)
    np.testing.assert_allclose(curvature.gram(a), a.T @ matrix @ a, **EXACT)
    a = dense(CLASSES.matvec, size(CLASSES))
    np.testing.assert_allclose(CLASSES.gram(curvature), a.T @ matrix @ a, **EXACT)


def test_the_coupled_curvature_takes_different_numbers_of_options():
    curvature = losses.Coupled(FEW, np.arange(1.0, 8), np.array([1.0, 0.5, 2, 3]))
    matrix = dense_coupled(curvature)
    np.testing.assert_allclose(dense(curvature.matvec, 7), matrix, **EXACT)
    np.testing.assert_allclose(curvature.gram(np.eye(7)), matrix, **EXACT)


def test_a_small_rest_is_not_lost_to_rounding():
    """Of e = 1e-12, along which D x is 1e-12 of d: in rational numbers d e / (d + e)."""
    curvature = losses.Coupled(losses.Options(np.zeros(2, int)), np.ones(2), np.array([1e-12]))
    expected = 1e-12 / (2 + 1e-12)
    np.testing.assert_allclose(curvature.matvec(np.ones(2)), expected, rtol=1e-14)
    gram = curvature.gram(np.ones((2, 1)))
    np.testing.assert_allclose(gram, 2 * expected, rtol=1e-3)  # 1 - gamma |v|^2 is 7e-7


@pytest.mark.parametrize("case", ["columns", "Largest", "Lorentz"])
def test_newtons_system_is_solved(case):
    """To 1e-8 of the largest entry: the diagonal is raised by 1e-14, the condition about 1e5."""
    operator, cone = (columns(), None) if case == "columns" else (CLASSES, None)
    if case == "columns":
        cone = cones.Orthant(size(operator) - (K - 1), K - 1)
    else:
        cone = PAIRS[case == "Lorentz"]
    theta = np.full(size(operator), 0.5)
    theta[:N_PAIRS] = 3
    s = cone.matvec(theta)
    scaling, curvature = cone.scaling(s, cone.barrier_gradient(s)), coupled()
    a, k = (dense(one.matvec, size(operator)) for one in (operator, cone))
    matrix = a.T @ dense_coupled(curvature) @ a + k.T @ dense(scaling.hessian, len(s)) @ k
    found = dense(operator.solver(operator.gram(curvature), scaling), size(operator))
    expected = np.linalg.inv(matrix)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


# --- the losses ----------------------------------------------------------------------------------


def test_values_are_those_of_the_largest_violation_and_of_the_softmax():
    margins = np.array([-800.0, 2, 0.5, -1, 900, 800, 1])
    np.testing.assert_array_equal(losses.hinge(FEW, margins), [801, 2, 0, 0])
    sums = [scipy.special.logsumexp([0, *-margins[FEW.sample == i]]) for i in range(4)]
    found = losses.logistic(FEW, margins)
    np.testing.assert_allclose(found, sums, rtol=1e-15, atol=1e-300)
    tiny = losses.logistic(FEW, np.full(7, 50.0))
    np.testing.assert_allclose(tiny, np.exp(-50.0) * np.array([1, 3, 2, 1]), rtol=1e-12)


def test_the_first_alpha_is_inside_and_balanced():
    for loss in ("hinge", "logistic"):
        state = losses.first_state(
            loss, WEIGHTS, CLASSES.options, CLASSES.own, CLASSES.rival, np.zeros(len(CLASSES.own))
        )
        assert state.alpha.min() > 0
        assert (CLASSES.options.sum(state.alpha) < 0.6 * WEIGHTS).all()
        of_own, of_rival = (np.bincount(one, state.alpha) for one in (CLASSES.own, CLASSES.rival))
        np.testing.assert_allclose(of_own, of_rival, **EXACT)


def test_a_rival_without_samples_has_a_first_alpha_above_0():
    own, rival = np.array([0, 1, 0, 1]), np.array([1, 0, 2, 2])
    options = losses.Options(np.arange(4))
    alpha = losses.first_state("hinge", np.ones(4), options, own, rival, np.zeros(4)).alpha
    assert alpha.min() > 0
    assert alpha.max() < 1


def test_the_hinge_solves_the_linearised_equations():
    """Each equation of (31) after a full step misses by the second-order terms alone."""
    random = np.random.default_rng(7)
    margins, dm = random.standard_normal((2, 7))
    alpha, mu = random.uniform(0.05, 0.15, 7), 0.2
    state = losses.Hinge.start(FEW, FEW_WEIGHTS, alpha, margins)
    under = state.under[FEW.sample]
    np.testing.assert_allclose(state.over - under, margins - 1, **EXACT)
    assert min(state.over.min(), state.under.min()) > 0
    state = state.at(margins + 0.1)  # equations that do not hold yet
    other = state.step(state.target(0.0), random.standard_normal(7))
    for predicted in (None, other):
        target = state.target(mu, predicted)
        step = state.step(target, dm)
        full = dense_coupled(state.curvature)
        np.testing.assert_allclose(step.alpha, full @ (target.margins - dm), **EXACT)
        np.testing.assert_allclose(FEW.sum(step.alpha), -step.rest, **EXACT)
        over, rest = state.over + step.over, state.rest + step.rest
        under = state.under + step.under
        np.testing.assert_allclose(over - under[FEW.sample], margins + 0.1 + dm - 1, **EXACT)
        left = mu + step.alpha * step.over
        left -= 0 if predicted is None else predicted.alpha * predicted.over
        np.testing.assert_allclose((state.alpha + step.alpha) * over, left, **EXACT)
        left = mu + step.rest * step.under
        left -= 0 if predicted is None else predicted.rest * predicted.under
        np.testing.assert_allclose(rest * under, left, **EXACT)
    assert state.n_products == 7 + 4
    products = state.alpha @ state.over + state.rest @ state.under
    assert state.products == pytest.approx(products, rel=1e-14)


def test_steps_of_the_hinge_stay_inside_and_keep_the_sums():
    random = np.random.default_rng(8)
    for _ in range(20):
        margins, dm = random.standard_normal((2, 7))
        state = losses.Hinge.start(FEW, FEW_WEIGHTS, random.uniform(0.05, 0.15, 7), margins)
        state = state.at(margins)
        step = state.step(state.target(0.0), 10 * dm)
        for values, change, longest in (
            (np.append(state.over, state.under), [step.over, step.under], step.longest_primal),
            (np.append(state.alpha, state.rest), [step.alpha, step.rest], step.longest_dual),
        ):
            if longest < np.inf:
                landed = values + longest * np.concatenate(change)
                assert landed.min() == pytest.approx(0, abs=1e-12)
        primal, dual = (min(1, 0.99 * one) for one in (step.longest_primal, step.longest_dual))
        moved = state.move(step, primal, dual)
        assert min(moved.alpha.min(), moved.rest.min(), moved.over.min(), moved.under.min()) > 0
        np.testing.assert_allclose(FEW.sum(moved.alpha) + moved.rest, FEW_WEIGHTS, **EXACT)
        np.testing.assert_allclose(moved.alpha, state.alpha + dual * step.alpha, **EXACT)


def test_sums_that_rounding_has_moved_are_set_right():
    """Where rest is small alpha follows it; where alpha is small, rest follows alpha."""
    options, weights = losses.Options(np.array([0, 0, 1, 1])), np.ones(2)
    alpha, rest = np.array([0.5, 0.5 + 1e-6, 1e-20, 1e-20]), np.array([1e-9, 0.9])
    none = np.zeros(4)
    state = losses.Hinge(options, weights, alpha, rest, none + 1, np.ones(2))
    still = two_classes.SampleStep(none, none, np.zeros(2), np.inf, np.inf, np.zeros(2))
    moved = state.move(still, 1.0, 1.0)
    np.testing.assert_array_equal(moved.rest, [1e-9, 1])
    np.testing.assert_allclose(options.sum(moved.alpha)[0], 1 - 1e-9, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(moved.alpha[2:], 1e-20)


def test_the_alpha_of_the_logistic_loss_and_its_curvature_are_derivatives():
    """By central differences, to 1e-8."""
    margins, h = np.random.default_rng(9).standard_normal(7) * 2, 1e-5
    start = losses.Logistic.start(FEW, FEW_WEIGHTS, np.full(7, 0.1), margins)
    state = start.at(margins)
    moves = h * np.eye(7)
    slope = [(start.total(margins + one) - start.total(margins - one)) / (2 * h) for one in moves]
    np.testing.assert_allclose(state.alpha, -np.array(slope), rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(FEW.sum(state.alpha) + state.rest, FEW_WEIGHTS, **EXACT)
    falls = [
        (state.at(margins - one).alpha - state.at(margins + one).alpha) / (2 * h) for one in moves
    ]
    np.testing.assert_allclose(dense_coupled(state.curvature), falls, rtol=1e-7, atol=1e-9)
    step = state.step(state.target(0.1), margins)
    np.testing.assert_allclose(step.alpha, -np.array(falls) @ margins, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(FEW.sum(step.alpha), -step.rest, **EXACT)
    far = state.at(np.full(7, -900.0))
    np.testing.assert_allclose(FEW.sum(far.alpha), FEW_WEIGHTS, **EXACT)


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
def test_one_option_for_each_sample_is_the_loss_of_two_classes(loss):
    random = np.random.default_rng(10)
    margins, dm = random.standard_normal((2, N))
    alpha = WEIGHTS * random.uniform(0.1, 0.9, N)
    options = losses.Options(np.arange(N))
    name = loss.capitalize()
    joint = getattr(losses, name).start(options, WEIGHTS, alpha, margins).at(margins + 0.1)
    alone = getattr(two_classes, name).start(WEIGHTS, alpha, margins).at(margins + 0.1)
    assert joint.total(margins) == pytest.approx(alone.total(margins), rel=1e-14)
    assert isinstance(alone.curvature, curvatures.Diagonal)
    np.testing.assert_allclose(joint.curvature.matvec(dm), alone.curvature.matvec(dm), **EXACT)
    steps = [one.step(one.target(0.3), dm) for one in (joint, alone)]
    np.testing.assert_allclose(steps[0].rest, -steps[1].alpha, **EXACT)
    for name in ("alpha", "over", "under"):
        np.testing.assert_allclose(*(getattr(one, name) for one in steps), **EXACT)


# --- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["hinge", "logistic"])
@pytest.mark.parametrize("cone", PAIRS, ids=["Largest", "Lorentz"])
def test_a_full_step_keeps_the_dual_constraint(cone, loss):
    """A^T alpha + K^T z = 0 after a step of length 1; to 1e-9."""
    theta = np.concatenate([np.full(N_PAIRS, 2.0), np.full(size(CLASSES) - N_PAIRS, 0.2)])
    state = losses.first_state(
        loss, WEIGHTS, CLASSES.options, CLASSES.own, CLASSES.rival, CLASSES.matvec(theta)
    )
    z = 0.5 * cone.barrier_gradient(cone.matvec(theta))
    none = np.zeros(len(theta))
    samples = interior.Samples.of(CLASSES, state, CLASSES.matvec(theta))
    iterate = interior.Iterate(theta, samples, z, CLASSES.rmatvec(state.alpha))
    newton = interior.Newton(CLASSES, cone, none, iterate)
    predicted = newton.direction(0.0)
    for change in (predicted, newton.direction(0.1), newton.direction(0.1, predicted)):
        (block,) = change.samples.blocks
        alpha = block.alpha + block.change.alpha
        left = CLASSES.rmatvec(alpha) + cone.rmatvec(z + change.z)
        np.testing.assert_allclose(left, 0, atol=1e-9)
