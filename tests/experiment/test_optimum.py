"""optimum.py: what it stores, certified anew; tests/minima/test_minimum.py is about the minimum."""

import itertools
import re
import shutil
from fractions import Fraction

from lab import store
from lab.cli import RESULTS, InputError

import numpy as np
import pytest
import scipy.optimize
from conftest import script, tree

import advlinear
import data
import optimum
import recipes
import runs
import train
import worst_case
from advlinear.minima import program

EPS = [0.05, 0.2, 0.3]  # for the sample; its classes are separable at 0.05


def moves(x, y, eps, box):
    """How far a pixel (n, d) can be moved against a positive weight, and against a negative one."""
    bounds = (0, 1) if box else (-np.inf, np.inf)
    return [np.abs(np.clip(x - sign * eps * y[:, None], *bounds) - x) for sign in (1, -1)]


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


@pytest.fixture(scope="module")
def optima(tmp_path_factory):
    """A results folder with the optima of the sample at EPS, and at 0.3 with the box. To be read,
    not changed."""
    results = tmp_path_factory.mktemp("optima")
    for eps, box in ((EPS, False), (0.3, True)):
        optimum.main(eps, box=box, dataset="mnist-sample", results=results, quiet=True)
    return results


def stored(results, eps, box=False):
    name = f"optimal-eps{eps}{'-box' * box}"
    return runs.load_run(store.file(results / "mnist-sample-0-1", "runs", name))


@pytest.mark.mnist
@pytest.mark.parametrize("eps", [0.1, 0.2, 0.3])
def test_pixels_in_use_are_those_whose_weighted_class_means_differ_by_two_eps(mnist, eps):
    """The optimality conditions, from the published weights and dual solution, to 1e-9."""
    run = runs.load_run(store.file(RESULTS / "mnist-0-1", "runs", f"optimal-eps{eps}"))
    x, y = mnist.flat("train")
    ones, zeros = (
        np.average(x[y == side], axis=0, weights=run.alpha[y == side]) for side in (1, -1)
    )
    used = run.w != 0
    np.testing.assert_allclose((ones - zeros)[used], 2 * eps * np.sign(run.w[used]), atol=1e-9)
    assert np.abs(ones - zeros).max() <= 2 * eps + 1e-9


# --- that the published minima are unique --------------------------------------------------------

SOLVER = dict(primal_feasibility_tolerance=1e-10, dual_feasibility_tolerance=1e-10)


def published(eps) -> runs.Run:
    return runs.load_run(store.file(RESULTS / "mnist-0-1", "runs", f"optimal-eps{eps}"))


def conditions(x, y, alpha, eps):
    """What every optimal (w, b) keeps, given a dual solution alpha (n,): complementary slackness.

    w_j = 0 on each pixel whose constraint alpha keeps strictly. On the others, `tight`, w_j has the
    sign of the pull, which makes the worst-case margins linear: rows @ (w_tight, b). They are 1
    where 0 < alpha_i < 1/n, at least 1 where alpha_i = 0, and at most 1 where alpha_i = 1/n.

    Returns:
        tight (d,), signs (k,), rows (n, k + 1), and n alpha (n,).
    """
    pull = alpha @ (y[:, None] * x)
    tight = eps * alpha.sum() - np.abs(pull) < 1e-12  # the others by more than 1e-6
    assert (eps * alpha.sum() - np.abs(pull[~tight]) > 1e-6).all()
    signs = np.sign(pull[tight])
    rows = y[:, None] * np.column_stack([x[:, tight], np.ones(len(y))]) - eps * np.append(signs, 0)
    return tight, signs, rows, alpha * len(y)


def ranges(signs, rows, share):
    """The smallest and the largest value (k + 1, 2) of each weight, and of b, that are optimal."""
    zero, one = share < 1e-9, share > 1 - 1e-9
    program = dict(
        A_ub=np.vstack([-rows[zero], rows[one]]),
        b_ub=np.repeat([-1.0, 1.0], [zero.sum(), one.sum()]),
        A_eq=rows[~zero & ~one],
        b_eq=np.ones(len(rows) - zero.sum() - one.sum()),
        bounds=[(0, None) if sign > 0 else (None, 0) for sign in signs] + [(None, None)],
    )
    found = []
    for cost in np.eye(rows.shape[1]):
        least, most = (
            scipy.optimize.linprog(c, **program, method="highs", options=SOLVER)
            for c in (cost, -cost)
        )
        assert least.success
        assert most.success
        found.append((least.fun, -most.fun))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.mnist
def test_the_minimum_at_radius_0_3_is_unique(mnist):
    """Over all optimal models each weight, and b, has one value: two linear programs for each."""
    run, (x, y) = published(0.3), mnist.flat("train")
    assert objective(x, y, run.w, run.b, 0.3) == pytest.approx(run.alpha.sum(), rel=1e-12)
    check_dual(x, y, run.alpha, 0.3)
    tight, *polytope = conditions(x, y, run.alpha, 0.3)
    assert tight.sum() == 17  # pixels; the other 767 weights are 0 in every minimum
    expected = np.append(run.w[tight], run.b)
    np.testing.assert_allclose(ranges(*polytope), np.stack([expected] * 2, axis=1), atol=1e-8)


@pytest.mark.mnist
@pytest.mark.parametrize("eps", [0.1, 0.2, 0.3])
def test_the_minimum_is_unique(mnist, eps):
    """The equations among the conditions have one solution: as many as unknowns, of full rank."""
    run, (x, y) = published(eps), mnist.flat("train")
    tight, _, rows, share = conditions(x, y, run.alpha, eps)
    equations = rows[(share > 1e-9) & (share < 1 - 1e-9)]
    assert np.linalg.svd(equations, compute_uv=False).min() > 0.01
    solution = np.linalg.lstsq(equations, np.ones(len(equations)))[0]
    np.testing.assert_allclose(solution, np.append(run.w[tight], run.b), atol=1e-9)
    assert not run.w[~tight].any()


@pytest.mark.slow
@pytest.mark.mnist
def test_a_minimum_that_is_not_unique_is_seen(mnist):
    """Of two copies of a pixel either may have the weight."""
    run, (x, y) = published(0.3), mnist.flat("train")
    heavy = np.argmax(np.abs(run.w))
    tight, *polytope = conditions(np.hstack([x, x[:, [heavy]]]), y, run.alpha, 0.3)
    assert tight[784]
    copy = ranges(*polytope)[-2]  # the last pixel; b comes after it
    np.testing.assert_allclose(copy, [0, run.w[heavy]], atol=1e-8)


# --- the stored run, and what is told of it ------------------------------------------------------


def test_failed_certificate_stores_nothing(tmp_path, monkeypatch):
    def wrong(problem, point):
        return 0 * point.theta, [0 * point.alpha]

    monkeypatch.setattr(program, "_finish", wrong)
    with pytest.raises(InputError, match=r"optimal-eps0.2: no certificate: the duality gap is"):
        optimum.main(eps=0.2, dataset="mnist-sample", results=tmp_path, quiet=True)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(("eps", "box"), [*((eps, False) for eps in EPS), (0.3, True)])
def test_stored_run_is_certified(optima, sample, eps, box):
    """Computed anew from w, b and alpha alone."""
    run, (x, y) = stored(optima, eps, box), sample.flat("train")
    upper, lower = objective(x, y, run.w, run.b, eps, box), sum(run.alpha)
    gap = (upper - lower) / max(upper, 1 / len(y))  # the minimum at 0.05 is 0
    assert gap <= 1e-6
    check_dual(x, y, run.alpha, eps, box)
    found = [run.facts["certificate"][name] for name in ("primal", "dual", "gap")]
    assert found == pytest.approx([upper, lower, gap], rel=1e-12, abs=1e-12)
    assert run.history["train_loss"] == pytest.approx([upper], rel=1e-12)


def test_same_command_gives_the_same_bytes_and_one_line_for_each_model(optima, tmp_path, capsys):
    written = optimum.main([0.3, 0.05, 0.3], dataset="mnist-sample", results=tmp_path, quiet=True)
    assert [file.name for file in written] == ["optimal-eps0.3.npz", "optimal-eps0.05.npz"]
    for line, file in zip(capsys.readouterr().out.splitlines(), written, strict=True):
        run = runs.load_run(file)
        primal = run.facts["certificate"]["primal"]
        assert line.startswith(f"{run.name}: minimum {primal:.9f}, certified gap ")
        assert f" {(run.w != 0).sum()} weights other than 0," in line
        assert file.read_bytes() == (optima / file.relative_to(tmp_path)).read_bytes()


def test_a_minimum_that_is_no_more_than_a_bound_is_told_in_words(optima, tmp_path, capsys):
    """0, and the loss of w = 0."""
    separable = "the minimum is 0: the classes are separable with a worst-case margin of 1"
    notes = [stored(optima, eps).facts.get("note") for eps in EPS]
    assert notes == [separable, None, None]
    for eps, told in ((0.05, separable), (1, "w = 0 is optimal: no weights are better than ")):
        (file,) = optimum.main(eps, box=True, dataset="mnist-sample", results=tmp_path, quiet=True)
        assert f"({told}" in capsys.readouterr().out
        assert runs.load_run(file).facts["note"].startswith(told)


# --- the bounds without rounding -----------------------------------------------------------------


def exact_loss(x, y, w, b, eps, box):
    """The mean robust hinge of float64 numbers, in fractions."""
    w, b, eps, total = [Fraction(v) for v in w], Fraction(b), Fraction(eps), Fraction(0)
    used = [j for j, v in enumerate(w) if v]
    for row, sign in zip(x, y.astype(int).tolist(), strict=True):
        row = {j: Fraction(row[j]) for j in used}
        cost = dict.fromkeys(used, eps)
        if box:
            cost = {j: min(eps, row[j] if w[j] * sign > 0 else 1 - row[j]) for j in used}
        margin = sign * (sum(w[j] * row[j] for j in used) + b)
        total += max(0, 1 - margin + sum(abs(w[j]) * cost[j] for j in used))
    return total / len(y)


def test_stored_minima_are_verified_in_rational_arithmetic(optima, sample, tmp_path, capsys):
    """The upper bound is the loss in fractions, rounded up; one line for each minimum."""
    results = shutil.copytree(optima, tmp_path / "results")
    optimum.main(0.3, loss="logistic", dataset="mnist-sample", results=results, quiet=True)
    capsys.readouterr()
    (file,) = optimum.main(verify=True, dataset="mnist-sample", results=results)
    told = capsys.readouterr().out
    assert "optimal-eps0.3-losslogistic: not verified: " in told
    (table,) = runs.load_study(file, runs.read_runs(results / "mnist-sample-0-1")).values()
    proofs = {name: k for k, name in enumerate(table["run"].tolist())}
    x, y = sample.flat("train")
    for eps, box in [*((eps, False) for eps in EPS), (0.3, True)]:
        run = stored(results, eps, box)
        k = proofs.pop(run.name)
        loss = exact_loss(x, y, run.w.tolist(), run.b, eps, box)
        assert 0 <= Fraction(table["primal"][k]) - loss <= loss / 2**52
        assert (
            f"{run.name}: minimum from {float(table['dual'][k])} to {float(table['primal'][k])}"
            in told
        )
        stated = run.facts["certificate"]
        assert stated["dual"] <= table["dual"][k] <= table["primal"][k] <= stated["primal"]
    assert not proofs


def test_nothing_to_verify(tmp_path):
    with pytest.raises(InputError, match=r"no minimum in .* to verify"):
        optimum.main(verify=True, dataset="mnist-sample", results=tmp_path)
    for problem in (dict(eps=0.1), dict(loss="logistic"), dict(norm="1")):
        with pytest.raises(InputError, match="--verify is of all stored minima: leave the problem"):
            optimum.main(verify=True, dataset="mnist-sample", results=tmp_path, **problem)
    assert tree(tmp_path) == {}


# --- ten digits ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ten(tiny_ten, tmp_path_factory):
    """A results folder with the minimum of ten digits at .1, on shrunken images."""
    results = tmp_path_factory.mktemp("ten")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_all", lambda *arguments: tiny_ten)
        optimum.main(0.1, digits="all", dataset="mnist-sample", results=results, quiet=True)
    return results


def stored_ten(results) -> runs.Run:
    return runs.load_run(store.file(results / "mnist-sample-all", "runs", "optimal-eps0.1"))


def check_dual_of_classes(x, y, alpha, eps):
    """The constraints of the dual of several classes: for all sets S of classes, and all pixels."""
    n, K = alpha.shape
    other = np.arange(K) != y[:, None]
    assert alpha[other].min() >= -1e-12
    assert (alpha * other).sum(axis=1).max() <= 1 / n + 1e-12
    alpha = np.where(other, alpha, 0.0)
    net = np.where(other, -alpha, alpha.sum(axis=1, keepdims=True))  # (n, K)
    np.testing.assert_allclose(net.sum(axis=0), 0, atol=1e-12)
    pull = net.T @ x
    between = np.array([alpha[y == k].sum(axis=0) for k in range(K)])
    between += between.T
    for size in range(1, K):
        for chosen in itertools.combinations(range(K - 1), size):  # the last one is never in
            inside = np.isin(np.arange(K), chosen)
            allowed = eps * between[np.ix_(inside, ~inside)].sum()
            assert np.abs(pull[inside].sum(axis=0)).max() <= allowed + 1e-9


def test_a_stored_minimum_of_ten_digits_is_certified(ten, tiny_ten):
    """Computed anew from w, b and alpha alone, and each constraint of the dual written out."""
    run, (x, y) = stored_ten(ten), tiny_ten.flat("train")
    assert run.settings == recipes.optimal("mnist-sample-all", 0.1)
    y = y.astype(int)
    check_dual_of_classes(x, y, run.alpha, 0.1)
    margins = worst_case.margins(x, y, run.w, run.b, 0.1)
    upper, lower = np.maximum(0, 1 - margins).mean(), run.alpha.sum()
    assert 0 < upper - lower <= 1e-6 * upper
    stated = run.facts["certificate"]
    assert stated == optimum.certificate(run, tiny_ten)
    assert [stated["primal"], stated["dual"]] == pytest.approx([upper, lower], rel=1e-9)
    assert stated["violation"] == 0
    x, y = tiny_ten.flat("test")
    for name, eps in (("test_accuracy", 0), ("test_robust_accuracy", 0.1)):
        kept = advlinear.attack((run.w, run.b), x, y.astype(int)).curve(eps)
        assert run.history[name] == [kept]
    assert (run.facts["digits"], run.facts["train_samples"]) == (list(range(10)), 400)


def test_the_same_minimum_of_ten_digits_has_the_same_bytes_and_one_line(
    ten, tiny_ten, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(data, "load_all", lambda *arguments: tiny_ten)
    (file,) = optimum.main([0.1], digits=["all"], dataset="mnist-sample", results=tmp_path)
    (line,) = capsys.readouterr().out.splitlines()
    run = runs.load_run(file)
    used = np.count_nonzero(worst_case.sparsest(run.w))
    assert line.startswith(f"optimal-eps0.1: minimum {run.facts['certificate']['primal']:.9f}, ")
    assert f" {used} weights other than 0, " in line
    assert file.read_bytes() == (ten / file.relative_to(tmp_path)).read_bytes()
    (file,) = optimum.main(9 / 10, digits="all", dataset="mnist-sample", results=tmp_path)
    assert "(w = 0 is optimal: no weights are better than " in capsys.readouterr().out


def test_minima_of_ten_digits_are_verified_in_rational_arithmetic(
    ten, tiny_ten, tmp_path, monkeypatch
):
    monkeypatch.setattr(data, "load_all", lambda *arguments: tiny_ten)
    results = shutil.copytree(ten, tmp_path / "results")
    (file,) = optimum.main(verify=True, digits="all", dataset="mnist-sample", results=results)
    (table,) = runs.load_study(file, runs.read_runs(results / tiny_ten.name)).values()
    stated = optimum.certificate(stored_ten(results), tiny_ten)
    assert table["run"].tolist() == ["optimal-eps0.1"]
    assert table["violation"].tolist() == [0]
    assert stated["dual"] <= table["dual"][0] <= table["primal"][0] <= stated["primal"]


@pytest.mark.parametrize(
    "option", [dict(path=True), dict(norm="2"), dict(box=True), dict(loss="logistic")], ids=str
)
def test_what_ten_digits_cannot_be_asked_for(option, tmp_path):
    radii = () if "path" in option else 0.1
    with pytest.raises(InputError, match="--digits all is of the hinge in the L∞ ball, at the rad"):
        optimum.main(radii, digits="all", dataset="mnist-sample", results=tmp_path, **option)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("digits", "line"),
    [
        (["3"], "--digits needs two different digits from 0 to 9, not [3]"),
        (["all", "3"], "--digits needs two different digits from 0 to 9, not ['all', 3]"),
        (["1", "2", "3"], "--digits needs two different digits from 0 to 9, not [1, 2, 3]"),
        (["ten"], "argument --digits: invalid"),
    ],
)
def test_other_digits_are_refused_in_one_line(digits, line, tmp_path):
    options = ["--dataset", "mnist-sample", "--results", tmp_path]
    done = script("optimum.py", "--eps", "0.1", "--digits", *digits, *options)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert line in done.stderr


@pytest.mark.mnist
@pytest.mark.parametrize("eps", [0.05, 0.1])
def test_published_minima_of_ten_digits_are_certified(mnist, eps):
    """From the stored weights and alpha, by the constraints written out above."""
    run = runs.load_run(store.file(RESULTS / "mnist-all", "runs", f"optimal-eps{eps}"))
    x, y = data.load_all("mnist").flat("train")
    check_dual_of_classes(x, y.astype(int), run.alpha, eps)
    loss = worst_case.hinge(worst_case.margins(x, y, run.w, run.b, eps)).mean()
    assert loss <= run.alpha.sum() * (1 + 1e-6)


# --- the distance of a trained run from the minimum ----------------------------------------------


def test_training_tells_its_distance_from_the_minimum(optima, tmp_path, sample, capsys):
    """No trained run is below the certified minimum (weak duality), and a longer one is nearer."""
    results, excesses = shutil.copytree(optima, tmp_path / "results"), []
    x, y = sample.flat("train")
    minimum = stored(optima, 0.2).alpha.sum()
    for options in (dict(epochs=2), dict(recipe="converged", epochs=100)):
        options |= dict(dataset="mnist-sample", results=results, quiet=True)
        (file,) = train.main(robust=True, eps=0.2, **options)
        run = runs.load_run(file)
        loss = objective(x, y, run.w, run.b, 0.2)
        excesses.append(loss / minimum - 1)
        told = re.search(
            r", training loss (\S+), the least possible is (\S+) \(certified\), ",
            capsys.readouterr().out,
        )
        assert float(told[2]) == pytest.approx(minimum, rel=0, abs=1e-7)  # seven digits are told
        assert float(told[1]) == pytest.approx(loss, rel=0, abs=6e-5)  # four, of a float32
    assert excesses[0] / 10 > excesses[1] >= -1e-8


def test_the_minimum_of_another_problem_is_not_told(optima, sample):
    """Of another loss or ball, or of other images."""
    facts = dict(data_sha256=sample.checksum)

    def told(*problem, facts=facts, **changed) -> float | None:
        settings = recipes.settings(sample.name, True, *problem, **changed)
        return runs.certified_minimum(runs.Run(settings, facts, np.ones(1), 0, {}, {}), optima)

    assert told(0.2, epochs=1) == pytest.approx(0.0260154, abs=1e-7)
    assert told(0.3, box=True) == pytest.approx(0.0580790, abs=1e-7)
    for changed in (dict(eps=0.1), dict(norm="2"), dict(box=True), dict(loss="logistic")):
        assert told(**(dict(eps=0.2) | changed)) is None
    assert told(0.2, facts=dict(data_sha256="0" * 64)) is None
