"""attack.py: curves and stored numbers, against brute force and the Keras model."""

import dataclasses
import shutil
from pathlib import Path

from common import cli, runs
from common.cli import InputError

import numpy as np
import pytest
from conftest import dual_norm, flat, tree

import advlinear
import attack
import data
import model
import plots
import recipes

RADII = np.arange(101) * 0.5 / 100
REGULAR, ROBUST = "regular-epochs5", "robust-eps0.05-epochs5"


def check_curve_is_the_models(run, split):
    """At each radius, the perturbed images go through the Keras layer in float64.

    The margins of the two ways differ by 1e-13, and no sample here is that close to the boundary.
    """
    classifier = model.linear(split.x_test.shape[1:])
    classifier.set_weights([run.w[:, None], np.array([run.b])])
    assert classifier(np.float64(split.x_test[:1])).dtype == "float64"
    x, y = split.flat("test")
    expected = []
    for eps in RADII[::2]:
        perturbed = x + advlinear.perturbation(x, y, run.w, eps)
        logits = np.array(classifier(perturbed.reshape(split.x_test.shape)))[:, 0]
        expected.append(int((y * logits > 0).sum()))
    assert len(set(expected)) > 5
    found = attack.evaluate(run, split, RADII[::2])
    assert found.correct.tolist() == expected
    assert found.accuracy.tolist() == [correct / len(y) for correct in expected]


def test_curve_is_the_models(trained, sample, float64):
    for run in runs.read_runs(trained / sample.name).values():
        check_curve_is_the_models(run, sample)


@pytest.mark.mnist
def test_curve_is_the_models_on_mnist(mnist, float64):
    run = runs.load_run(cli.RESULTS / "mnist-0-1" / "runs" / "robust-eps0.2.npz")
    check_curve_is_the_models(run, mnist)


# --- attack.py as a whole ------------------------------------------------------------------------


@pytest.fixture
def results(trained, tmp_path, monkeypatch):
    """A copy of the two trained runs, to be changed at will; no figures are drawn."""
    monkeypatch.setattr(plots, "main", lambda *arguments, **options: [])
    return shutil.copytree(trained, tmp_path / "results")


def stored(results, name, threat="linf"):
    """A run and the attack on it, read back."""
    dataset = results / "mnist-sample-0-1"
    run = runs.load_run(runs.file(dataset, "runs", name))
    return run, runs.load_attack(runs.file(dataset, "attacks", threat, name), run)


def brute_force(run, split, eps):
    """Logits of the test images, each perturbed on its own."""
    images = zip(flat(split.x_test), split.y_test, strict=True)
    return np.array([(x - y * eps * np.sign(run.w)) @ run.w + run.b for x, y in images])


@pytest.mark.parametrize("name", [REGULAR, ROBUST])
def test_stored_numbers(results, sample, capsys, name):
    """Logits and radii are sums in float64, which another order changes by 1e-13."""
    attack.main([name], results=results)
    run, found = stored(results, name)
    assert found.eps.tolist() == RADII.tolist()
    for step in range(0, 101, 10):
        logits = brute_force(run, sample, RADII[step])
        assert found.correct[step] == (sample.y_test * logits > 0).sum()
        wrong = [i for i in np.argsort(np.abs(logits)) if sample.y_test[i] * logits[i] <= 0][:10]
        rows = found.nearest["eps"] == RADII[step]
        assert found.nearest["index"][rows].tolist() == wrong
        assert found.nearest["rank"][rows].tolist() == list(range(len(wrong)))
        assert found.nearest["label"][rows].tolist() == sample.y_test[wrong].tolist()
        np.testing.assert_allclose(found.nearest["logit"][rows], logits[wrong], rtol=1e-9)
    logits = brute_force(run, sample, 0)
    assert found.labels.tolist() == sample.y_test.tolist()
    np.testing.assert_allclose(found.logits, logits, rtol=1e-9)
    radii = sample.y_test * logits / np.abs(run.w).sum()
    np.testing.assert_allclose(found.radii, radii, rtol=1e-9)
    # Figures show the nearest image at each tenth radius.
    nearest = found.nearest["index"][found.nearest["rank"] == 0]
    assert set(found.image_index) == set(nearest)
    assert (found.images == sample.x_test[found.image_index, ..., 0]).all()
    told = capsys.readouterr().out.splitlines()[2].split()
    assert told[1:] == [f"{share:.4f}" for share in found.accuracy[:81:20]]


def test_table_ends_with_the_weakest_and_the_strongest_run(trained, sample):
    """At two fifths of the largest radius, unless both withstand as much, as here at 0.2."""
    stored_runs = runs.read_runs(trained / sample.name)
    attacks = {name: attack.evaluate(run, sample, RADII) for name, run in stored_runs.items()}
    *_, last = attack.table(sample.name, attacks).splitlines()
    assert last.count(REGULAR) <= 1
    attacks = {name: attack.evaluate(run, sample, RADII[:51]) for name, run in stored_runs.items()}
    *_, last = attack.table(sample.name, attacks).splitlines()
    least, most = (100 * attacks[name].accuracy[20] for name in (REGULAR, ROBUST))
    told = f"{REGULAR} is right on {least:.1f} % of the images and {ROBUST} on {most:.1f} %."
    assert last == f"At eps 0.1, {told}"


def test_images_of_eight_that_are_wrong_unperturbed(trained, sample):
    """Of a model that takes every image for a one."""
    run = runs.load_run(runs.file(trained / sample.name, "runs", REGULAR))
    found = attack.evaluate(dataclasses.replace(run, b=run.b + 100), sample, RADII[:1])
    assert found.nearest["rank"] == list(range(10))
    assert found.image_index.tolist() == sorted(found.nearest["index"][:8])


def test_the_example_is_typical_for_every_run(trained, sample):
    """No other image of the lower digit has all of its ranks nearer to the middle."""
    members = list(runs.read_runs(trained / sample.name).values())
    found = attack.example(members, sample)
    assert found["runs"].tolist() == [run.name for run in members]
    zeros = [i for i, y in enumerate(sample.y_test) if y == -1]
    x = flat(sample.x_test)
    largest = dict.fromkeys(zeros, 0.0)
    for run in members:
        margins = {i: -(x[i] @ run.w + run.b) for i in zeros}  # they order as the radii do
        for i in zeros:
            below = sum(margins[j] < margins[i] for j in zeros)
            largest[i] = max(largest[i], abs(below - (len(zeros) - 1) / 2))
    assert largest[int(found["index"])] == min(largest.values())
    np.testing.assert_array_equal(found["image"], sample.x_test[found["index"], ..., 0])


def test_the_example_is_stored_once_its_models_are_there(trained, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "main", lambda *arguments, **options: [])
    monkeypatch.setattr(attack, "EXAMPLE", ("regular-epochs5", "absent", "robust-eps0.05-epochs5"))
    shutil.copytree(trained, tmp_path / "results")
    dataset = tmp_path / "results" / sample.name
    attack.main(results=tmp_path / "results")
    monkeypatch.setattr(attack, "EXAMPLE", ("regular-epochs5", "robust-eps0.05-epochs5", "absent"))
    shutil.rmtree(dataset / "attacks")
    attack.main(norm="2", results=tmp_path / "results")  # none is attacked in L-infinity
    assert not (dataset / "studies").exists()
    attack.main(results=tmp_path / "results")
    found = runs.read(dataset).study("example")
    assert found["runs"].tolist() == ["regular-epochs5", "robust-eps0.05-epochs5"]


def test_what_is_drawn_after_an_attack(results, sample, monkeypatch):
    """In one call: the groups named, if their figures show this attack; else all threats."""
    drawn = []
    monkeypatch.setattr(plots, "main", lambda names, groups, results: drawn.append((names, groups)))
    attack.main(results=results)
    attack.main([REGULAR], results=results)
    attack.main(norm="2", results=results)
    attack.main(box=True, results=results)  # no run is trained in the box
    assert drawn == [(None, None), (None, ["epochs5"]), (["threats"], None), (["threats"], None)]


def test_a_figure_that_cannot_be_drawn_yet_is_no_error(trained, tmp_path, capsys):
    results = shutil.copytree(trained, tmp_path / "results")
    attack.main(norm="2", results=results)
    (notice,) = (line for line in capsys.readouterr().err.splitlines() if "threats" in line)
    assert notice.startswith("NOTICE: left out mnist-sample-0-1/figures/threats.png: ")


def test_stored_facts(results, sample):
    attack.main(results=results)
    lit = flat(sample.x_train).max(axis=0) > 0
    for name in (REGULAR, ROBUST):
        run, found = stored(results, name)
        assert bool(found.landscape) == (name == ROBUST)
        facts = found.facts
        sizes = [facts["w_l1"], facts["w_l1_unlit"]]
        assert sizes == pytest.approx([np.abs(run.w).sum(), np.abs(run.w[~lit]).sum()], rel=1e-12)
        assert 0 < facts["pixels_unlit"] == np.count_nonzero(~lit)
        assert (facts["norm"], facts["box"]) == ("inf", False)
        assert facts["weights_sha256"] == run.weights_sha256
        assert facts["data_sha256"] == sample.checksum
        assert facts["command"] == f"python attack.py --runs {name}"


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("box", [False, True])
def test_every_threat_model(results, sample, norm, box):
    """The count of the radii agrees with the images perturbed at each tenth radius."""
    attack.main([REGULAR], norm=norm, box=box, results=results)
    run, found = stored(results, REGULAR, f"l{norm}-box" if box else f"l{norm}")
    x, y = sample.flat("test")
    radii = np.linspace(0, {"inf": 0.5, "2": 5, "1": 20}[norm], 101)
    np.testing.assert_allclose(found.eps, radii, rtol=1e-12)
    for step, eps in enumerate(radii[::10]):
        logits = (x + advlinear.perturbation(x, y, run.w, eps, norm, box)) @ run.w + run.b
        wrong = np.sort(np.abs(logits[y * logits <= 0]))
        assert len(wrong) == 200 - found.correct[10 * step]
        logits = np.abs(found.nearest["logit"][np.isclose(found.nearest["eps"], eps, rtol=1e-12)])
        np.testing.assert_allclose(logits, wrong[:10], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [REGULAR, f"mnist-sample-0-1/{REGULAR}"])
def test_attacking_one_run_leaves_the_others(results, name):
    """The same attack gives the same bytes, another one the radii that it is given."""
    attack.main(results=results)
    before = tree(results)
    attack.main(results=results)
    assert tree(results) == before
    attack.main([name], eps_max=0.2, eps_steps=4, results=results)
    changed = {path for path, content in tree(results).items() if content != before[path]}
    assert {Path(path).name for path in changed} == {f"{REGULAR}.npz"}
    _, found = stored(results, REGULAR)
    np.testing.assert_allclose(found.eps, [0, 0.05, 0.1, 0.15, 0.2], rtol=1e-12)
    assert set(found.nearest["eps"]) == {0}


def test_unknown_run_and_no_runs_are_refused(results, tmp_path):
    before = tree(results)
    with pytest.raises(InputError, match=rf"no run robust-eps9 in .* mnist-sample-0-1/{REGULAR}"):
        attack.main([REGULAR, "robust-eps9"], results=results)
    assert tree(results) == before
    for eps in (dict(eps_steps=10**12), dict(eps_max=1e308)):
        with pytest.raises(InputError, match=r"--eps-(steps|max) needs a .*, not 1"):
            attack.main([REGULAR], results=results, **eps)
    with pytest.raises(InputError, match=r"no runs in .*: python train\.py makes one"):
        attack.main(results=tmp_path / "empty")


def test_data_set_out_of_reach(results, capsys):
    """Its runs are left out, with a notice if they are named; with no others it is an error."""
    shutil.copytree(results / "mnist-sample-0-1", results / "other")  # which is no data set's name
    attack.main(results=results)
    assert capsys.readouterr().err == ""
    attack.main([REGULAR], results=results)
    assert capsys.readouterr().err.startswith("NOTICE: not attacking other: ")
    shutil.rmtree(results / "mnist-sample-0-1")
    with pytest.raises(InputError, match=r"nothing is attacked.*python plots\.py redraws"):
        attack.main(results=results)
    assert not (results / "other" / "attacks").exists()


def test_run_of_other_images_is_passed_over(results, sample, monkeypatch):
    other = dataclasses.replace(sample, checksum="0" * 64)
    monkeypatch.setattr(data, "load_named", lambda *arguments: other)
    with pytest.warns(cli.ResultsWarning) as told:
        attack.main([ROBUST], results=results)
    lines = [str(warning.message) for warning in told]
    assert len(lines) == 2
    assert lines[1].startswith(f"{ROBUST} was trained on other images than {sample.name} has now:")
    assert not (results / sample.name / "attacks").exists()


# --- the loss over one weight --------------------------------------------------------------------


def made_up_run(split, seed=0, eps=0.05, norm="inf") -> runs.Run:
    """Random weights that lean towards the right classes."""
    x = flat(split.x_train)
    towards_ones = x[split.y_train > 0].mean(0) - x[split.y_train < 0].mean(0)
    w = np.random.default_rng(seed).normal(0.3 * towards_ones, 0.05)
    settings = recipes.settings(split.name, True, eps, norm)
    return runs.Run(settings, {}, w, 0.1, {}, {})


def check_points(run, split, table):
    """Each point is the mean loss once the weight is replaced; both are float64, to 1e-12."""
    x, y = split.flat("train")
    for _, j, v, plain, robust in zip(*table.values(), strict=True):
        w = run.w.copy()
        w[j] = v
        margins = y * (x @ w + run.b)
        worst = margins - run.settings.eps * dual_norm(w, "inf")[0]
        np.testing.assert_allclose(plain, np.maximum(0, 1 - margins).mean(), rtol=1e-12)
        np.testing.assert_allclose(robust, np.maximum(0, 1 - worst).mean(), rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_each_point_is_the_loss_and_a_weak_pixel_is_best_at_zero(tiny, seed):
    run = made_up_run(tiny, seed)
    table = attack.weight_landscape(run, tiny)
    check_points(run, tiny, table)
    columns = {name: np.array(column) for name, column in table.items()}
    strong, weak = (columns["pixel"] == name for name in ("strong", "weak"))
    assert set(columns["index"][strong]) == {np.argmax(np.abs(run.w))}
    assert len(set(columns["index"][weak])) == 1
    weight, loss = columns["weight"][weak], columns["robust_hinge"][weak]
    assert np.count_nonzero(weight == 0) == 1  # exactly, as the kink is there
    assert loss[weight == 0] == loss.min() < loss.max()
    assert np.abs(weight).max() > np.abs(run.w).max()


def test_at_radius_zero_no_pixel_is_weak(tiny):
    run = made_up_run(tiny, eps=0.0)
    table = attack.weight_landscape(run, tiny)
    assert set(table["pixel"]) == {"strong"}
    assert table["robust_hinge"] == pytest.approx(table["hinge"], rel=1e-12)


@pytest.mark.parametrize(
    "other", [dict(norm="2"), dict(norm="1"), dict(box=True), dict(loss="logistic"), None], ids=str
)
def test_only_the_robust_hinge_in_the_plain_ball_has_a_landscape(other):
    assert attack.has_landscape(recipes.settings("mnist-0-1", True))
    settings = recipes.settings("mnist-0-1", other is not None, **other or {})
    assert not attack.has_landscape(settings)


def test_the_weak_pixel_is_dropped_by_the_active_samples_alone(tiny):
    """At the kink, where the mean of y x_j is at most eps over the active samples and not over all.

    Of those, the weak pixel is the one on which the plain hinge pulls most.
    """
    x, y = tiny.flat("train")
    for seed in range(20):
        run = made_up_run(tiny, seed, eps=0.02)
        size, margins = np.abs(run.w), y * (x @ run.w + run.b)
        pulls = {}
        for j in range(x.shape[1]):
            without = margins - y * x[:, j] * run.w[j]
            active = without - 0.02 * (size.sum() - size[j]) < 1
            if active.any() and abs(np.mean((y * x[:, j])[active])) <= 0.02:
                pulls[j] = abs(np.mean((without < 1) * y * x[:, j]))
        table = attack.weight_landscape(run, tiny)
        weak = {
            j for j, pixel in zip(table["index"], table["pixel"], strict=True) if pixel == "weak"
        }
        assert weak == {max(pulls, key=pulls.get)}
