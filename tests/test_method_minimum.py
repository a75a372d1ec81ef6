"""minimise and certificate, against the whole linear program of another solver."""

import functools
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

import advlinear
import data
from advlinear import minimum

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
    found = advlinear.minimise(x, y, eps, box=box)
    expected, primal = whole_program(x, y, eps, box), objective(x, y, found.w, found.b, eps, box)
    np.testing.assert_allclose(primal, expected, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(found.alpha.sum(), expected, rtol=0, atol=ROUNDING)
    check_dual(x, y, found.alpha, eps, box)
    assert found.primal == pytest.approx(primal, rel=1e-12, abs=1e-12)
    assert found.dual == found.alpha.sum()
    assert found.gap == (found.primal - found.dual) / max(found.primal, 1 / len(y)) <= 1e-6
    return expected


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
    monkeypatch.delattr(minimum, "Program")
    x, y = tiny.flat("train")
    kept = np.arange(len(y)) >= np.count_nonzero(y < 0) // 3
    smaller = np.mean(y[kept] < 0)
    assert check_minimum(x[kept], y[kept], 0.7, box) == pytest.approx(2 * smaller, abs=ROUNDING)


REFUSED = [
    (dict(y=[1, 1]), "y needs labels of two classes, not 1: 1$"),
    (
        dict(y=list("abcdef"), X=np.ones((6, 1))),
        "of two classes, not 6: a, .*, ...$",
    ),
    (dict(y=[0, np.nan]), "y needs labels that can be sorted, without NaN or None"),
    (dict(y=[0, None]), "y needs labels that can be sorted, without NaN or None"),
    (dict(y=[[0], [1]]), r"y needs shape \(2,\), one label per sample, not \(2, 1\)"),
    (dict(y=np.ma.array([0, 1], mask=[0, 1])), "y is a masked array"),
    (dict(X=[[0.5], [np.nan]]), "X holds NaN or infinite numbers"),
    (dict(X=[[0.5], [np.inf]]), "X holds NaN or infinite numbers"),
    (dict(X=[[0.5], [0.1j]]), "X needs real numbers"),
    (dict(X=[["a"], ["b"]]), "X needs real numbers"),
    (dict(X=[0.5, 0.1]), r"X needs shape \(n, d\), not \(2,\)"),
    (dict(X=np.ma.array([[0.5], [0.1]], mask=[[0], [1]])), "X is a masked array"),
    (dict(X=scipy.sparse.eye(2)), "X is sparse"),
    (dict(eps=-0.1), "eps must be a finite number of at least 0, not -0.1"),
    (dict(eps=np.nan), "eps must be a finite number"),
    (dict(eps=np.inf), "eps must be a finite number"),
    (dict(eps="0.1"), "eps must be a finite number of at least 0, not '0.1'"),
    (dict(X=[[0.5], [1.1]], box=True), r"with the box X must be in \[0, 1\], not from 0.5 to 1.1"),
    (dict(X=[[0.5], [0.5 + 1e-9]], eps=0), "no certificate: .*: scale the features"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        advlinear.minimise(**dict(X=[[0.5], [0.1]], y=[0, 1], eps=0.1) | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "labels", [[0, 1], [False, True], [7, 9], [1.5, 2.5], ["no", "yes"]], ids=str
)
def test_whatever_numpy_can_make_an_array_of(tiny, labels):
    """Lists, frames and series, and any two labels, of which the lower counts as -1."""
    x, y = (values[::4] for values in tiny.flat("train"))
    expected = advlinear.minimise(x, y, 0.1)
    assert expected.classes.tolist() == [-1, 1]
    named = [labels[int(one > 0)] for one in y]
    for X, names in ((x.tolist(), named), (pd.DataFrame(x), pd.Series(named))):
        found = advlinear.minimise(X, names, np.float32(0.1).item())
        assert found.classes.tolist() == labels
        assert found.primal == pytest.approx(expected.primal, rel=1e-6)
    assert len(repr(found)) < 120


def test_what_the_certificate_does_not_confirm_is_not_returned(tiny, monkeypatch):
    x, y = tiny.flat("train")
    solve = minimum._solve
    for spoil, message in (
        (lambda w, b, alpha: (1.01 * w, b, alpha), "the relative gap is"),
        (lambda w, b, alpha: (w, b, np.where(alpha > 0, alpha + 1e-7, 0)), "no certificate"),
        (lambda w, b, alpha: (w, b, alpha + 1e-7), "no certificate"),
        (lambda w, b, alpha: (np.nan * w, b, alpha), "the relative gap is nan"),
    ):
        monkeypatch.setattr(minimum, "_solve", lambda *given, s=spoil: s(*solve(*given)))
        with pytest.raises(ValueError, match=message):
            advlinear.minimise(x, y, 0.2)


def test_minimum_at_full_size_needs_no_warm_start(sample, monkeypatch):
    """All samples and pixels that matter are then added on the way."""
    monkeypatch.setattr(minimum, "approximate_minimum", lambda *arguments: (np.zeros(784), 0.0))
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
    monkeypatch.setattr(minimum, "approximate_minimum", lambda *arguments: start)
    assert advlinear.minimise(x, y, 0.2).primal <= ROUNDING


def few_steps():
    """A warm start of few steps on small batches, as a few images need no more."""
    start = functools.partial(minimum.approximate_minimum, steps=50, batch=10)
    return mock.patch.object(minimum, "approximate_minimum", start)


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
    monkeypatch.setattr(minimum, "approximate_minimum", lambda *arguments: (w, 0.0))
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
    found = advlinear.minimise(x, y, eps, box=box)
    primal = objective(x, y, found.w, found.b, eps, box)
    assert primal == pytest.approx(value, rel=0, abs=5.01e-8)
    assert primal - found.alpha.sum() <= 1e-6 * value
    check_dual(x, y, found.alpha, eps, box)


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
    proof = advlinear.certificate(x, y, w, b, alpha, eps, box)
    assert max(proof[f"violation_{name}"] for name in ("box", "balance", "pixel")) <= 1e-15
    assert proof["primal"] == pytest.approx(objective(x, y, w, b, eps, box), rel=1e-12)
    assert proof["primal"] >= proof["dual"] == pytest.approx(alpha.sum(), rel=1e-12)


def test_certificate_notices_what_is_spoiled(sample):
    """The entry that tells is enough to refuse a proof that is sound otherwise."""
    x, y = sample.flat("train")
    found, n = advlinear.minimise(x, y, 0.2), len(y)
    w, b, alpha = found.w, found.b, found.alpha
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
        proof = advlinear.certificate(x, y, *spoiled, 0.2)
        assert proof[entry] > (1e-6 if entry == "gap" else 1e-8)


def test_certificate_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"w and alpha need shapes \(1,\) and \(2,\)"):
        advlinear.certificate([[0.1], [0.5]], [0, 1], np.ones(2), 0.0, np.ones(2), 0.1)
