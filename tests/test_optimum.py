"""optimum.py: the minimum, against the whole linear program; its certificate; its command."""

import functools
import json
import re
from unittest import mock

import numpy as np
import pytest
import scipy.optimize
from conftest import flat, script, tree
from hypothesis import given
from hypothesis import strategies as st

import attack
import data
import exact
import files
import optimum
import runs
import train
from cli import RESULTS, InputError

EPS = [0.05, 0.2, 0.3]
TIGHT = 1e-7  # HiGHS keeps its constraints to 1e-7 by default, and values here are of size 0.1


def whole_program(x, y, eps):
    """The least robust hinge, by one linear program over every sample and every pixel."""
    n, d = x.shape
    yx = y[:, None] * x
    # Variables u, v, b, xi: xi_i + y_i ((u - v).x_i + b) - eps sum(u + v) >= 1.
    rows = np.hstack([yx - eps, -yx - eps, y[:, None], np.eye(n)])
    cost = np.concatenate([np.zeros(2 * d + 1), np.full(n, 1 / n)])
    bounds = [(0, None)] * (2 * d) + [(None, None)] + [(0, None)] * n
    solved = scipy.optimize.linprog(cost, -rows, -np.ones(n), bounds=bounds, method="highs")
    assert solved.success
    return solved.fun


def objective(x, y, w, b, eps):
    return np.maximum(0, 1 - (y * (x @ w + b) - eps * np.abs(w).sum())).mean()


def check_dual(x, y, alpha, eps):
    """Every constraint of the dual, one by one, to 1e-8."""
    n = len(y)
    assert alpha.min() >= -1e-8
    assert alpha.max() <= 1 / n + 1e-8
    assert abs(sum(alpha * y)) <= 1e-8
    for pixel in x.T:
        assert abs((alpha * y * pixel).sum()) <= eps * alpha.sum() + 1e-8


@pytest.fixture(scope="module")
def optima(tmp_path_factory):
    """A results folder with the optima of the digits at EPS. To be read, not changed."""
    results = tmp_path_factory.mktemp("optima")
    optimum.main(eps=EPS, dataset="digits", results=results, quiet=True)
    return results


def stored(results, eps):
    return runs.load(results / "digits-0-1" / f"optimal-eps{eps}")


# --- the minimum -----------------------------------------------------------------------------


@pytest.mark.parametrize("eps", EPS)
def test_minimum_is_that_of_the_whole_program(optima, digits, eps):
    x, y = flat(digits.x_train), np.float64(digits.y_train)
    run = stored(optima, eps)
    expected = whole_program(x, y, eps)
    assert (expected > 1e-3) == (eps > 0.1)  # at 0.05 these digits are separable
    np.testing.assert_allclose(objective(x, y, run.w, run.b, eps), expected, rtol=0, atol=TIGHT)


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_minimum_for_another_pair_of_digits(eps):
    split = data.load("digits", (3, 8))
    x, y = flat(split.x_train), np.float64(split.y_train)
    w, b, alpha = optimum.minimise(x, y, eps)
    expected = whole_program(x, y, eps)
    np.testing.assert_allclose(objective(x, y, w, b, eps), expected, rtol=0, atol=TIGHT)
    np.testing.assert_allclose(alpha.sum(), expected, rtol=0, atol=TIGHT)
    check_dual(x, y, alpha, eps)


def check_minimum(x, y, eps):
    w, b, alpha = optimum.minimise(x, y, eps)
    expected = whole_program(x, y, eps)
    np.testing.assert_allclose(objective(x, y, w, b, eps), expected, rtol=0, atol=TIGHT)
    np.testing.assert_allclose(alpha.sum(), expected, rtol=0, atol=TIGHT)
    check_dual(x, y, alpha, eps)
    optimum.check_certificate(optimum.certificate(x, y, w, b, alpha, eps))


@given(
    n=st.integers(1, 12),
    d=st.integers(1, 5),
    eps=st.sampled_from([0.0, 0.05, 0.2, 0.7]) | st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_minimum_of_a_few_images(n, d, eps, seed):
    """Many pixels are exactly 0 or 1. From far fewer steps of the start, which must not matter."""
    random = np.random.default_rng(seed)
    x = np.clip(random.uniform(-0.5, 1.5, (n, d)), 0, 1)
    start = functools.partial(optimum.approximate_minimum, steps=50, batch=10)
    with mock.patch.object(optimum, "approximate_minimum", start):
        check_minimum(x, random.choice([-1.0, 1.0], n), eps)


@given(seed=st.integers(0, 2**32 - 1), eps=st.floats(0, 1))
def test_any_feasible_alpha_bounds_any_weights_from_below(seed, eps):
    """Weak duality, for random weights and random alpha scaled into the dual's constraints."""
    random = np.random.default_rng(seed)
    x, y = random.random((8, 3)), np.repeat([-1.0, 1.0], 4)
    half = random.random(4)
    alpha = np.concatenate([half, random.permutation(half)]) / 8  # balanced, at most 1 / n
    if (np.abs((alpha * y) @ x) > eps * alpha.sum()).any():
        alpha[:] = 0
    w, b = random.normal(size=3), random.normal()
    proof = optimum.certificate(x, y, w, b, alpha, eps)
    assert proof["violation_box"] == proof["violation_pixel"] == 0
    assert proof["violation_balance"] <= 1e-15
    assert proof["primal"] >= proof["dual"]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([[0, 0], [0, 0]], [1, -1]),  # nothing to tell them apart by
        ([[1, 0], [1, 0]], [1, -1]),
        ([[1, 0], [0.5, 1]], [1, 1]),  # one class: the bias does it
        ([[1, 0], [0, 1]], [1, -1]),  # separable
        ([[0.5]], [-1]),
    ],
)
@pytest.mark.parametrize("eps", [0.0, 0.1, 2.0])
def test_minimum_of_simple_cases(monkeypatch, x, y, eps):
    start = optimum.approximate_minimum
    monkeypatch.setattr(optimum, "approximate_minimum", lambda *a: start(*a, steps=50, batch=10))
    check_minimum(np.float64(x), np.float64(y), eps)


@pytest.mark.parametrize("factor", [0.0, 1.0, -1.0, 1000.0])
def test_the_start_does_not_decide_the_minimum(monkeypatch, digits, factor):
    """Not even one that leaves no sample inside the knee, or none outside, or no pixel."""
    x, y = flat(digits.x_train), np.float64(digits.y_train)
    w = factor * (x[y > 0].mean(0) - x[y < 0].mean(0))
    monkeypatch.setattr(optimum, "approximate_minimum", lambda *arguments: (w, 0.0))
    found, b, alpha = optimum.minimise(x, y, 0.2)
    expected = whole_program(x, y, 0.2)
    np.testing.assert_allclose(objective(x, y, found, b, 0.2), expected, rtol=0, atol=TIGHT)
    check_dual(x, y, alpha, 0.2)


def test_no_trained_run_is_below_the_minimum(optima, tmp_path, digits):
    """Weak duality, in float64; to 1e-8 for what the dual solution violates."""
    x, y = flat(digits.x_train), np.float64(digits.y_train)
    bounds = {}
    for eps in EPS:
        with np.load(stored(optima, eps).folder / "dual.npz") as dual:
            bounds[eps] = dual["alpha"].sum()
    short, nearer = dict(eps=EPS, epochs=5), dict(eps=[0.2], recipe="converged", epochs=150)
    excess = []
    for options in (short, short | dict(box=True), nearer):
        options = dict(robust=True, dataset="digits", results=tmp_path, quiet=True) | options
        for run in map(runs.load, train.main(**options)):
            eps = run.settings.eps
            excess.append(objective(x, y, run.w, run.b, eps) - bounds[eps])
    assert len(excess) == 7
    assert min(excess) >= -1e-8
    # The last one comes near, so that the comparison is no empty one.
    assert excess[-1] < 0.5 * bounds[0.2]


@pytest.mark.mnist
@pytest.mark.parametrize(("eps", "value"), [(0.1, 0.0222018), (0.2, 0.0754299), (0.3, 0.1219451)])
def test_minimum_on_mnist(mnist, eps, value):
    """The minima of the program solved whole, known to seven digits after the point."""
    x, y = optimum.flat(mnist.x_train, mnist.y_train)
    w, b, alpha = optimum.minimise(x, y, eps)
    assert objective(x, y, w, b, eps) == pytest.approx(value, rel=0, abs=5e-8 + 1e-10)
    assert objective(x, y, w, b, eps) - alpha.sum() <= 1e-6 * value
    check_dual(x, y, alpha, eps)


# --- the certificate -------------------------------------------------------------------------


@pytest.mark.parametrize("eps", EPS)
def test_stored_certificate_holds(optima, digits, eps):
    """From weights.npz and dual.npz alone, computed afresh."""
    x, y = flat(digits.x_train), np.float64(digits.y_train)
    folder = stored(optima, eps).folder
    with np.load(folder / "weights.npz") as weights, np.load(folder / "dual.npz") as dual:
        w, b, alpha = weights["w"], weights["b"], dual["alpha"]
    upper, lower = objective(x, y, w, b, eps), sum(alpha)
    assert upper - lower <= 1e-6 * max(upper, 1 / len(y))  # the least is 0 at 0.05
    check_dual(x, y, alpha, eps)
    proof = json.loads((folder / "config.json").read_text())["certificate"]
    assert proof["primal"] == pytest.approx(upper, rel=1e-12)
    assert proof["dual"] == pytest.approx(lower, rel=1e-12)
    assert proof["gap"] == pytest.approx((upper - lower) / max(upper, 1 / len(y)), abs=1e-12)
    assert max(proof[f"violation_{name}"] for name in ("box", "balance", "pixel")) <= 1e-8


def damaged(x, y, w, b, alpha, what):
    """One of the three spoiled, and the entry of the certificate that tells."""
    n = len(y)
    ones, zeros = np.flatnonzero(y > 0), np.flatnonzero(y < 0)
    w, alpha = w.copy(), alpha.copy()
    if what == "weights":
        w[np.argmax(np.abs(w))] *= 1.01
    elif what == "bias":
        b += 0.1
    elif what == "too small":
        alpha *= 0.999
    elif what == "negative":  # balance is kept
        free = ones[alpha[ones] == 0][0], zeros[alpha[zeros] == 0][0]
        alpha[list(free)] = -1e-6
    elif what == "above 1/n":
        alpha[[np.argmax(alpha * (y > 0)), np.argmax(alpha * (y < 0))]] += 1 / n
    elif what == "balance":
        alpha[np.argmax(np.where(y > 0, alpha, 0))] -= 1e-6
    elif what == "pixel":  # two images alone: within the box and balanced
        alpha[:] = 0
        alpha[[ones[0], zeros[0]]] = 1 / n
    return w, b, alpha


@pytest.mark.parametrize(
    ("what", "entry"),
    [
        ("weights", "gap"),
        ("bias", "gap"),
        ("too small", "gap"),
        ("negative", "violation_box"),
        ("above 1/n", "violation_box"),
        ("balance", "violation_balance"),
        ("pixel", "violation_pixel"),
    ],
)
def test_certificate_notices(optima, digits, what, entry):
    x, y = flat(digits.x_train), np.float64(digits.y_train)
    run = stored(optima, 0.2)
    with np.load(run.folder / "dual.npz") as dual:
        alpha = dual["alpha"]
    whole = optimum.certificate(x, y, run.w, run.b, alpha, 0.2)
    optimum.check_certificate(whole)
    proof = optimum.certificate(x, y, *damaged(x, y, run.w, run.b, alpha, what), 0.2)
    assert proof[entry] > 5e-7
    # That entry alone, in a proof that is sound otherwise, is enough to refuse it.
    for wrong in (proof, whole | {entry: proof[entry]} if entry != "gap" else proof):
        with pytest.raises(InputError, match="no certificate: ") as caught:
            optimum.check_certificate(wrong)
        assert "\n" not in str(caught.value)
    if entry != "gap":
        with pytest.raises(InputError, match=f"no certificate: {entry} is "):
            optimum.check_certificate(whole | {entry: proof[entry]})


@pytest.mark.parametrize("entry", ["gap", "violation_box", "violation_balance", "violation_pixel"])
def test_certificate_that_is_no_number_is_refused(optima, entry):
    whole = stored(optima, 0.2).config["certificate"]
    with pytest.raises(InputError, match="no certificate: "):
        optimum.check_certificate(whole | {entry: np.nan})


def test_failed_certificate_stores_nothing(tmp_path, monkeypatch, digits):
    x, y = flat(digits.x_train), digits.y_train
    wrong = np.zeros(x.shape[1]), 0.0, np.zeros(len(y))
    monkeypatch.setattr(optimum, "minimise", lambda *arguments: wrong)
    with pytest.raises(InputError, match="no certificate: the relative gap is"):
        optimum.main(eps=[0.2], dataset="digits", results=tmp_path, quiet=True)
    assert tree(tmp_path) == {}


# --- the stored run --------------------------------------------------------------------------


@pytest.mark.parametrize("eps", EPS)
def test_stored_run(optima, digits, eps):
    """Loaded like any other; its one row of history is of its weights, in nine digits."""
    run = stored(optima, eps)
    assert run.settings == runs.optimal("digits-0-1", eps)
    assert sorted(tree(run.folder)) == ["config.json", "dual.npz", "history.csv", "weights.npz"]
    assert run.config["data_sha256"] == digits.checksum
    assert run.config["image_shape"] == [8, 8, 1]
    assert run.steps == {}
    expected = {"epoch": 1}
    for part in ("train", "test"):
        x, y = flat(getattr(digits, f"x_{part}")), getattr(digits, f"y_{part}")
        margins = y * (x @ run.w + run.b)
        worst = margins - eps * np.abs(run.w).sum()
        expected[f"{part}_loss"] = np.maximum(0, 1 - worst).mean()
        expected[f"{part}_accuracy"] = (margins > 0).mean()
        expected[f"{part}_hinge"] = np.maximum(0, 1 - margins).mean()
        expected[f"{part}_robust_accuracy"] = (worst > 0).mean()
    found = {name: column.item() for name, column in run.history.items()}
    assert found == pytest.approx(expected, rel=1e-8)


def test_stored_run_can_be_attacked(optima, tmp_path, digits, no_figures, capsys):
    for folder in runs.list_runs(optima / "digits-0-1"):
        run = runs.load(folder)
        history = {name: values for name, values in run.history.items() if name != "epoch"}
        runs.save(tmp_path, run.settings, run.config, run.w, run.b, history)
    x, y = flat(digits.x_test), digits.y_test
    for norm, box in (("inf", False), ("inf", True), ("2", True)):
        attack.main(norm=norm, box=box, results=tmp_path)
        threat = tmp_path / "digits-0-1" / "attack" / runs.threat(norm, box)
        for eps in EPS:
            run = stored(tmp_path, eps)
            accuracy = files.read_csv(threat / run.name / "accuracy.csv")
            radii = exact.sample_radii(x, y, run.w, run.b, norm, box)
            assert accuracy["correct"].tolist() == [(radii > e).sum() for e in accuracy["eps"]]
            assert run.name in capsys.readouterr().out or eps != EPS[0]


def test_same_command_gives_the_same_bytes(optima, tmp_path, capsys):
    for _ in range(2):
        optimum.main(eps=[0.3, 0.05, 0.3], dataset="digits", results=tmp_path, quiet=True)
        out, err = capsys.readouterr()
        assert [line.split(":")[0] for line in out.splitlines()] == [
            "optimal-eps0.3",
            "optimal-eps0.05",
        ]
        assert err == ""
    for eps in (0.05, 0.3):
        assert tree(stored(tmp_path, eps).folder) == tree(stored(optima, eps).folder)
    assert len(list((tmp_path / "digits-0-1").iterdir())) == 2


def test_one_line_tells_the_certificate(tmp_path, capsys):
    (folder,) = optimum.main(eps=[0.2], dataset="digits", results=tmp_path, quiet=True)
    out, _ = capsys.readouterr()
    run = runs.load(folder)
    proof = run.config["certificate"]
    assert out.startswith(f"{run.name}: minimum {proof['primal']:.9f}, certified gap ")
    assert f" {(run.w != 0).sum()} pixels," in out
    assert out.endswith(f"written to {folder}\n")
    assert out.count("\n") == 1


# --- the distance of a trained run -----------------------------------------------------------


def trained_report(results, capsys, **options):
    options = dict(robust=True, eps=[0.2], dataset="digits", epochs=2, quiet=True) | options
    capsys.readouterr()
    folders = train.main(results=results, **options)
    return capsys.readouterr().out, [runs.load(folder) for folder in folders]


def test_training_tells_its_distance_from_the_minimum(tmp_path, digits, capsys):
    optimum.main(eps=[0.2], dataset="digits", results=tmp_path, quiet=True)
    x, y = flat(digits.x_train), np.float64(digits.y_train)
    minimum = whole_program(x, y, 0.2)
    out, (run,) = trained_report(tmp_path, capsys)
    match = re.search(r", (\S+) % above the certified minimum (\S+), written to ", out)
    assert float(match[2]) == pytest.approx(minimum, rel=0, abs=1e-7)
    # Two digits after the point, from a loss in float32.
    excess = 100 * (objective(x, y, run.w, run.b, 0.2) / minimum - 1)
    assert float(match[1]) == pytest.approx(excess, rel=1e-4, abs=0.006)
    assert excess > 1


@pytest.mark.parametrize(
    "options",
    [
        dict(eps=[0.1]),
        dict(norm="2"),
        dict(box=True),
        dict(loss="logistic"),
        dict(digits=(3, 8)),
        dict(robust=False, eps=None),
    ],
    ids=str,
)
def test_training_on_another_problem_tells_none(optima, tmp_path, capsys, options):
    place = tmp_path / "digits-0-1" / "optimal-eps0.2"
    place.mkdir(parents=True)
    for name, content in tree(stored(optima, 0.2).folder).items():
        (place / name).write_bytes(content)
    assert "certified" not in trained_report(tmp_path, capsys, **options)[0]
    assert "certified" in trained_report(tmp_path, capsys)[0]


# --- the command -----------------------------------------------------------------------------


def test_command(tmp_path):
    """Progress goes to stderr, the result to stdout; no TensorFlow is needed."""
    arguments = ["--eps", "0.2", "--dataset", "digits", "--results", tmp_path]
    code = (
        "import sys, runpy; sys.argv[0] = 'optimum.py'; "
        "runpy.run_path('optimum.py', run_name='__main__'); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = script("-c", code, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("optimal-eps0.2: minimum ")
    assert all(line.startswith("eps 0.2: ") for line in done.stderr.splitlines())


@pytest.mark.mnist
@pytest.mark.parametrize("eps", [0.1, 0.2, 0.3])
def test_pixels_are_used_where_weighted_class_means_differ_by_two_eps(mnist, eps):
    """What README.md says of the minimum, from the published weights and dual (to 1e-9)."""
    folder = RESULTS / "mnist-0-1" / f"optimal-eps{eps}"
    w = np.load(folder / "weights.npz")["w"]
    alpha = np.load(folder / "dual.npz")["alpha"]
    x, y = optimum.flat(mnist.x_train, mnist.y_train)
    ones, zeros = (np.average(x[y == side], axis=0, weights=alpha[y == side]) for side in (1, -1))
    np.testing.assert_allclose((ones - zeros)[w != 0], 2 * eps * np.sign(w[w != 0]), atol=1e-9)
    assert np.abs(ones - zeros).max() <= 2 * eps + 1e-9
