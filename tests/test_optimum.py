"""optimum.py: the minimum, against the whole linear program, and its certificate."""

import dataclasses
import functools
import re
import shutil
from unittest import mock

from common import runs
from common.cli import RESULTS, InputError

import numpy as np
import pytest
import scipy.optimize
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

import data
import optimum
import recipes
import train

EPS = [0.05, 0.2, 0.3]  # for the sample; its classes are separable at 0.05
ROUNDING = 1e-7  # the two solvers keep each constraint to 1e-9 and 1e-7


def moves(x, y, eps, box):
    """How far a pixel (n, d) can be moved against a positive weight, and against a negative one."""
    bounds = (0, 1) if box else (-np.inf, np.inf)
    return [np.abs(np.clip(x - sign * eps * y[:, None], *bounds) - x) for sign in (1, -1)]


def whole_program(x, y, eps, box=False):
    """The least robust hinge, by one linear program over every sample and every pixel."""
    n, d = x.shape
    yx, (plus, minus) = y[:, None] * x, moves(x, y, eps, box)
    # Variables u, v, b, xi: xi_i + y_i ((u - v).x_i + b) - plus_i.u - minus_i.v >= 1.
    rows = np.hstack([yx - plus, -yx - minus, y[:, None], np.eye(n)])
    cost = np.concatenate([np.zeros(2 * d + 1), np.full(n, 1 / n)])
    bounds = [(0, None)] * (2 * d) + [(None, None)] + [(0, None)] * n
    solved = scipy.optimize.linprog(cost, -rows, -np.ones(n), bounds=bounds, method="highs")
    assert solved.success
    return solved.fun


def objective(x, y, w, b, eps, box=False):
    """The mean robust hinge, written out."""
    plus, minus = moves(x, y, eps, box)
    cost = plus @ np.maximum(w, 0) + minus @ np.maximum(-w, 0)
    return np.maximum(0, 1 - (y * (x @ w + b) - cost)).mean()


def check_dual(x, y, alpha, eps, box=False):
    """Each constraint of the dual, to 1e-8: ten times the solver's tolerance."""
    n = len(y)
    assert alpha.min() >= -1e-8
    assert alpha.max() <= 1 / n + 1e-8
    assert abs(sum(alpha * y)) <= 1e-8
    for pixel, plus, minus in zip(x.T, *(move.T for move in moves(x, y, eps, box)), strict=True):
        pull = (alpha * y * pixel).sum()
        assert pull <= (alpha * plus).sum() + 1e-8
        assert -pull <= (alpha * minus).sum() + 1e-8


def check_minimum(x, y, eps, box=False):
    """Primal and dual solution of `minimise` against the whole program; returns its value."""
    w, b, alpha = optimum.minimise(x, y, eps, box=box)
    expected = whole_program(x, y, eps, box)
    np.testing.assert_allclose(objective(x, y, w, b, eps, box), expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(alpha.sum(), expected, rtol=0, atol=ROUNDING)
    check_dual(x, y, alpha, eps, box)
    optimum.check_certificate(optimum.certificate(x, y, w, b, alpha, eps, box))
    return expected


@pytest.fixture(scope="module")
def optima(tmp_path_factory):
    """A results folder with the optima of the sample at EPS, and at 0.3 with the box. To be read,
    not changed."""
    results = tmp_path_factory.mktemp("optima")
    for eps, box in ((EPS, False), (0.3, True)):
        optimum.main(eps, box, dataset="mnist-sample", results=results, quiet=True)
    return results


def stored(results, eps, box=False):
    name = f"optimal-eps{eps}{'-box' * box}"
    return runs.load(results / "mnist-sample-0-1" / "runs" / name)


# --- the minimum ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("eps", "value"), [(0.05, 0), (0.1, 0.0529), (0.2, 0.4188), (0.3, 1)])
def test_minimum_is_that_of_the_whole_program(tiny, eps, value):
    """From separable classes to a radius at which w = 0 is best."""
    assert check_minimum(*tiny.flat("train"), eps) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.2, 0.3, 0.6])
def test_minimum_in_the_box_is_that_of_the_whole_program(tiny, eps):
    """It is no larger than without the box."""
    x, y = tiny.flat("train")
    assert check_minimum(x, y, eps, box=True) <= whole_program(x, y, eps) + ROUNDING


@pytest.mark.parametrize("box", [False, True])
def test_whether_no_weights_are_optimal_is_seen_first(tiny, monkeypatch, box):
    """Without a linear program. The loss is then 2 on the smaller class and 0 on the other."""
    monkeypatch.delattr(optimum, "Program")
    x, y = tiny.flat("train")
    kept = np.arange(len(y)) >= np.count_nonzero(y < 0) // 3
    smaller = np.mean(y[kept] < 0)
    assert check_minimum(x[kept], y[kept], 0.7, box) == pytest.approx(2 * smaller, abs=ROUNDING)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[0.5], [0.1]], [0, 1], r"labels y must be -1 and \+1, and both occur, not \[0.0, 1.0\]"),
        ([[0.5], [0.1]], [1, 1], r"labels y must be -1 and \+1, and both occur, not \[1.0\]"),
        ([[0.5], [0.1]], [-1, np.nan], "labels y must be"),
        ([[0.5], [1.1]], [-1, 1], r"with the box x must be in \[0, 1\], not from 0.5 to 1.1"),
        ([[0.5], [np.nan]], [-1, 1], "with the box x must be"),
    ],
)
def test_samples_that_are_refused(x, y, message):
    with pytest.raises(ValueError, match=f"^{message}.*$"):
        optimum.minimise(np.float64(x), np.float64(y), 0.1, box=True)


def test_minimum_at_full_size_needs_no_warm_start(sample, monkeypatch):
    """All samples and pixels that matter are then added on the way."""
    monkeypatch.setattr(optimum, "approximate_minimum", lambda *arguments: (np.zeros(784), 0.0))
    assert check_minimum(*sample.flat("train"), 0.2) > 0.02


def test_minimum_for_digits_that_are_hard_to_tell_apart():
    """A quarter of the images of 3 and 8, and one pixel of each 3x3."""
    split = data.load("mnist-sample", (3, 8))
    x, y = split.x_train[::4, 1::3, 1::3].reshape(200, -1), split.y_train[::4]
    for eps in (0.02, 0.1):
        assert check_minimum(np.float64(x), np.float64(y), eps) > 0.05


def test_minimum_from_a_start_at_which_the_solver_cycles(sample, monkeypatch):
    """Half of the images and the difference of the class means; the minimum is 0."""
    x, y = (values[::2] for values in sample.flat("train"))
    start = x[y > 0].mean(0) - x[y < 0].mean(0), 0.0
    monkeypatch.setattr(optimum, "approximate_minimum", lambda *arguments: start)
    proof = optimum.certificate(x, y, *optimum.minimise(x, y, 0.2), 0.2)
    optimum.check_certificate(proof)
    assert proof["primal"] <= ROUNDING


def few_steps():
    """A warm start of few steps on small batches, as a few images need no more."""
    start = functools.partial(optimum.approximate_minimum, steps=50, batch=10)
    return mock.patch.object(optimum, "approximate_minimum", start)


@given(
    n=st.integers(2, 12),
    d=st.integers(1, 5),
    eps=st.sampled_from([0.0, 0.05, 0.2, 0.7]) | st.floats(0, 1),
    box=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_minimum_of_a_few_images(n, d, eps, box, seed):
    """About half of the pixels are exactly 0 or 1."""
    random = np.random.default_rng(seed)
    x = np.clip(random.uniform(-0.5, 1.5, (n, d)), 0, 1)
    y = np.append(random.choice([-1.0, 1.0], n - 2), [-1, 1])
    with few_steps():
        check_minimum(x, y, eps, box)


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("eps", [0.0, 0.1, 2.0])
def test_minimum_of_simple_cases(eps, box):
    with few_steps():
        for x, y in (
            ([[0, 0], [0, 0]], [1, -1]),  # black images of both classes
            ([[1, 0], [1, 0]], [1, -1]),  # equal images of both classes
            ([[1, 0], [0, 1]], [1, -1]),  # separable
            ([[0.5], [0.5], [0.6]], [-1, -1, 1]),
        ):
            check_minimum(np.float64(x), np.float64(y), eps, box)


@pytest.mark.parametrize("factor", [0.0, 1.0, -1.0, 1000.0])
def test_the_start_does_not_decide_the_minimum(monkeypatch, tiny, factor):
    """The program may start with every sample or with almost none, and with no pixel."""
    x, y = tiny.flat("train")
    w = factor * (x[y > 0].mean(0) - x[y < 0].mean(0))
    monkeypatch.setattr(optimum, "approximate_minimum", lambda *arguments: (w, 0.0))
    check_minimum(x, y, 0.2)


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("eps", "box", "value"),
    [
        (0.1, False, 0.0222018),
        (0.2, False, 0.0754299),
        (0.3, False, 0.1219451),
        (0.2, True, 0.0555141),
    ],
)
def test_minimum_on_mnist(mnist, eps, box, value):
    """The values of the program solved whole, known to seven digits after the point."""
    x, y = mnist.flat("train")
    w, b, alpha = optimum.minimise(x, y, eps, box=box)
    assert objective(x, y, w, b, eps, box) == pytest.approx(value, rel=0, abs=5.01e-8)
    assert objective(x, y, w, b, eps, box) - alpha.sum() <= 1e-6 * value
    check_dual(x, y, alpha, eps, box)


@pytest.mark.mnist
@pytest.mark.parametrize("eps", [0.1, 0.2, 0.3])
def test_pixels_in_use_are_those_whose_weighted_class_means_differ_by_two_eps(mnist, eps):
    """The optimality conditions, from the published weights and dual solution, to 1e-9."""
    run = runs.load(RESULTS / "mnist-0-1" / "runs" / f"optimal-eps{eps}")
    x, y = mnist.flat("train")
    ones, zeros = (
        np.average(x[y == side], axis=0, weights=run.alpha[y == side]) for side in (1, -1)
    )
    used = run.w != 0
    np.testing.assert_allclose((ones - zeros)[used], 2 * eps * np.sign(run.w[used]), atol=1e-9)
    assert np.abs(ones - zeros).max() <= 2 * eps + 1e-9


# --- the certificate -----------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(1, 5), box=st.booleans())
def test_any_feasible_dual_solution_bounds_any_weights_from_below(seed, factor, box):
    """Weak duality, for random weights, and random alpha at a radius that makes it feasible.

    In the box it is feasible at 1, where every image may become any other.
    """
    random = np.random.default_rng(seed)
    x, y = random.random((8, 3)), np.repeat([-1.0, 1.0], 4)
    half = random.random(4)
    alpha = np.concatenate([half, random.permutation(half)]) / 8  # balanced, at most 1 / n
    eps = factor * np.abs((alpha * y) @ x).max() / alpha.sum()
    w, b = random.normal(size=3), random.normal()
    if box:
        pull = (alpha * y) @ x
        eps = next(
            eps
            for eps in np.linspace(0, 1, 21)
            for plus, minus in [moves(x, y, eps, True)]
            if (np.maximum(pull - alpha @ plus, -pull - alpha @ minus) <= 1e-15).all()
        )
    proof = optimum.certificate(x, y, w, b, alpha, eps, box)
    assert max(proof[f"violation_{name}"] for name in ("box", "balance", "pixel")) <= 1e-15
    assert proof["primal"] == pytest.approx(objective(x, y, w, b, eps, box), rel=1e-12)
    assert proof["primal"] >= proof["dual"] == pytest.approx(alpha.sum(), rel=1e-12)


def test_certificate_notices_what_is_spoiled(optima, sample):
    """The entry that tells is enough to refuse a proof that is sound otherwise."""
    x, y = sample.flat("train")
    run, n = stored(optima, 0.2), len(y)
    w, b, alpha = run.w, run.b, run.alpha
    sound = optimum.certificate(x, y, w, b, alpha, 0.2)
    optimum.check_certificate(sound)
    most, none = np.zeros(n), np.zeros(n)  # one sample of each class, which keeps the balance
    for side in (1, -1):
        most[np.argmax(np.where(y == side, alpha, -1))] = 1
        none[np.argmin(np.where(y == side, alpha, 1))] = 1
    for entry, *spoiled in (
        ("gap", 1.01 * w, b, alpha),
        ("gap", w, b + 0.1, alpha),
        ("gap", w, b, 0.999 * alpha),
        ("violation_box", w, b, alpha - 1e-6 * none),  # negative
        ("violation_box", w, b, alpha + most / n),  # above 1 / n
        ("violation_balance", w, b, alpha - 1e-6 * most * (y > 0)),
        ("violation_pixel", w, b, none / n),  # within the box and balanced
    ):
        proof = optimum.certificate(x, y, *spoiled, 0.2)
        told = "the relative gap" if entry == "gap" else entry
        for wrong in (proof[entry], np.nan):
            with pytest.raises(InputError, match=f"^no certificate: {told} is .*$"):
                optimum.check_certificate(sound | {entry: wrong})


def test_failed_certificate_stores_nothing(tmp_path, monkeypatch):
    wrong = np.zeros(784), 0.0, np.zeros(800)
    monkeypatch.setattr(optimum, "minimise", lambda *arguments: wrong)
    with pytest.raises(InputError, match="no certificate: the relative gap is"):
        optimum.main(eps=0.2, dataset="mnist-sample", results=tmp_path, quiet=True)
    assert tree(tmp_path) == {}


# --- the stored run ------------------------------------------------------------------------------


@pytest.mark.parametrize(("eps", "box"), [*((eps, False) for eps in EPS), (0.3, True)])
def test_stored_run_is_certified(optima, sample, eps, box):
    """Computed anew from weights.npz and dual.npz alone."""
    run, (x, y) = stored(optima, eps, box), sample.flat("train")
    upper, lower = objective(x, y, run.w, run.b, eps, box), sum(run.alpha)
    gap = (upper - lower) / max(upper, 1 / len(y))  # the minimum at 0.05 is 0
    assert gap <= 1e-6
    check_dual(x, y, run.alpha, eps, box)
    found = [run.config["certificate"][name] for name in ("primal", "dual", "gap")]
    assert found == pytest.approx([upper, lower, gap], rel=1e-12, abs=1e-12)
    assert run.history["train_loss"] == pytest.approx([upper], rel=1e-8)  # nine digits


def test_same_command_gives_the_same_bytes_and_one_line_for_each_model(optima, tmp_path, capsys):
    written = optimum.main([0.3, 0.05, 0.3], dataset="mnist-sample", results=tmp_path, quiet=True)
    assert [folder.name for folder in written] == ["optimal-eps0.3", "optimal-eps0.05"]
    for line, folder in zip(capsys.readouterr().out.splitlines(), written, strict=True):
        run = runs.load(folder)
        primal = run.config["certificate"]["primal"]
        assert line.startswith(f"{run.name}: minimum {primal:.9f}, certified gap ")
        assert f" {(run.w != 0).sum()} weights other than 0," in line
        assert tree(folder) == tree(optima / folder.relative_to(tmp_path))


def test_a_minimum_that_is_no_more_than_a_bound_is_told_in_words(optima, tmp_path, capsys):
    """0, and the loss of w = 0."""
    separable = "the minimum is 0: the classes are separable with a worst-case margin of 1"
    notes = [stored(optima, eps).config.get("note") for eps in EPS]
    assert notes == [separable, None, None]
    for eps, told in ((0.05, separable), (1, "w = 0 is optimal: no weights are better than ")):
        (folder,) = optimum.main(eps, True, "mnist-sample", results=tmp_path, quiet=True)
        assert f"({told}" in capsys.readouterr().out
        assert runs.load(folder).config["note"].startswith(told)


# --- the distance of a trained run from the minimum ----------------------------------------------


def test_training_tells_its_distance_from_the_minimum(optima, tmp_path, sample, capsys):
    """No trained run is below the certified minimum (weak duality), and a longer one is nearer."""
    results, excesses = shutil.copytree(optima, tmp_path / "results"), []
    x, y = sample.flat("train")
    minimum = stored(optima, 0.2).alpha.sum()
    for options in (dict(epochs=2), dict(recipe="converged", epochs=100)):
        options |= dict(dataset="mnist-sample", results=results, quiet=True)
        (folder,) = train.main(robust=True, eps=0.2, **options)
        run = runs.load(folder)
        excesses.append(100 * (objective(x, y, run.w, run.b, 0.2) / minimum - 1))
        told = re.search(
            r", loss (\S+) % above its certified minimum (\S+), ", capsys.readouterr().out
        )
        assert float(told[2]) == pytest.approx(minimum, rel=0, abs=1e-7)  # seven digits are told
        # Two digits after the point are told, of a loss in float32.
        assert float(told[1]) == pytest.approx(excesses[-1], rel=1e-4, abs=0.006)
    assert excesses[0] / 10 > excesses[1] >= -1e-6


def test_the_minimum_of_another_problem_is_not_told(optima, sample):
    """Of another loss or ball, or of other images."""
    settings = functools.partial(recipes.settings, sample.name, True)
    found = train.certified_minimum(optima, settings(0.2, epochs=1), sample)
    assert found == pytest.approx(0.0260154, abs=1e-7)
    boxed = train.certified_minimum(optima, settings(0.3, box=True), sample)
    assert boxed == pytest.approx(0.0580790, abs=1e-7)
    elsewhere = dict(eps=0.2, box=True)
    for changed in (dict(eps=0.1), dict(norm="2"), elsewhere, dict(loss="logistic")):
        assert train.certified_minimum(optima, settings(**changed), sample) is None
    other = dataclasses.replace(sample, checksum="0" * 64)
    assert train.certified_minimum(optima, settings(0.2), other) is None
