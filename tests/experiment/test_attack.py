"""attack.py: curves and stored numbers, against brute force and the Keras model."""

import dataclasses
import shutil
from pathlib import Path

from lab import cli, store
from lab.cli import InputError

import numpy as np
import pytest
from conftest import flat, tree

import attack
import data
import explore
import model
import plots
import recipes
import runs
import tables
import worst_case

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
        perturbed = x + worst_case.perturbation(x, y, run.w, eps)
        logits = np.array(classifier(perturbed.reshape(split.x_test.shape)))[:, 0]
        expected.append(int((y * logits > 0).sum()))
    assert len(set(expected)) > 5
    found = attack.attack(run, split)
    assert found.correct[::2].tolist() == expected
    assert found.accuracy[::2].tolist() == [correct / len(y) for correct in expected]


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
    monkeypatch.setattr(plots, "draw", lambda *arguments: [])
    return shutil.copytree(trained, tmp_path / "results")


def stored(results, name, threat="linf"):
    """A run and the attack on it, read back."""
    dataset = results / "mnist-sample-0-1"
    run = runs.load_run(store.file(dataset, "runs", name))
    return run, runs.load_attack(store.file(dataset, "attacks", threat, name), run)


def illustration(results, run) -> runs.Illustration:
    return runs.load_illustration(
        results / "mnist-sample-0-1/illustrations" / f"{run.name}.npz", run
    )


def brute_force(run, split, eps):
    """Logits of the test images, each perturbed on its own."""
    images = zip(flat(split.x_test), split.y_test, strict=True)
    return np.array([(x - y * eps * np.sign(run.w)) @ run.w + run.b for x, y in images])


@pytest.mark.parametrize("name", [REGULAR, ROBUST])
def test_stored_numbers(results, sample, capsys, name):
    """Logits and radii are sums in float64, which another order changes by 1e-13."""
    attack.main([name], results=results)
    run, found = stored(results, name)
    shown = illustration(results, run)
    assert found.eps.tolist() == RADII.tolist()
    for step in range(0, 101, 10):
        logits = brute_force(run, sample, RADII[step])
        assert found.correct[step] == (sample.y_test * logits > 0).sum()
        wrong = [i for i in np.argsort(np.abs(logits)) if sample.y_test[i] * logits[i] <= 0][:10]
        rows = shown.nearest["eps"] == RADII[step]
        assert shown.nearest["index"][rows].tolist() == wrong
        assert shown.nearest["rank"][rows].tolist() == list(range(len(wrong)))
        assert shown.nearest["label"][rows].tolist() == sample.y_test[wrong].tolist()
        np.testing.assert_allclose(shown.nearest["logit"][rows], logits[wrong], rtol=1e-9)
    logits = brute_force(run, sample, 0)
    assert found.labels.tolist() == sample.y_test.tolist()
    np.testing.assert_allclose(found.logits, logits, rtol=1e-9)
    radii = sample.y_test * logits / np.abs(run.w).sum()
    np.testing.assert_allclose(found.radii, radii, rtol=1e-9)
    # Figures show the nearest image at each tenth radius.
    nearest = shown.nearest["index"][shown.nearest["rank"] == 0]
    assert set(shown.image_index) == set(nearest)
    assert (shown.images == sample.x_test[shown.image_index, ..., 0]).all()
    told = capsys.readouterr().out.splitlines()[2].split()
    assert told[1:] == [f"{share:.4f}" for share in found.accuracy[:81:20]]


def test_table_ends_with_the_weakest_and_the_strongest_run(trained, sample):
    """At two fifths of the largest radius, unless both withstand as much."""
    stored_runs = runs.read_runs(trained / sample.name)
    attacks = {name: attack.attack(run, sample) for name, run in stored_runs.items()}
    for name, share in ((REGULAR, 50), (ROBUST, 100)):
        attacks[name].correct[40] = share
    *_, last = attack.table(sample.name, attacks).splitlines()
    assert last == (
        f"At eps 0.2, {REGULAR} is right on 25.0 % of the images and {ROBUST} on 50.0 %."
    )
    attacks[REGULAR].correct[40] = 100
    *_, last = attack.table(sample.name, attacks).splitlines()
    assert last.startswith(ROBUST)


def test_radii_that_are_not_those_of_the_perturbed_images_are_refused(trained, sample, monkeypatch):
    run = runs.load_run(store.file(trained / sample.name, "runs", REGULAR))
    right = worst_case.signed_radii
    monkeypatch.setattr(worst_case, "signed_radii", lambda *problem: 1.1 * right(*problem))
    with pytest.raises(AssertionError, match=REGULAR):
        attack.attack(run, sample)


def test_what_is_drawn_after_an_attack(results, sample, monkeypatch):
    """Of the data set attacked: the recipes attacked if their figures show it, else all threats."""
    shutil.copytree(results / sample.name, results / "other")  # which is no data set's name
    drawn = []
    monkeypatch.setattr(plots, "draw", lambda folders, *which: drawn.append((folders, *which)))
    attack.main(results=results)
    attack.main([REGULAR], results=results)
    attack.main(norm="2", results=results)
    attack.main(box=True, results=results)  # no run is trained in the box
    here = [results / sample.name]
    threats = (here, ["threats"])
    assert drawn == [(here, None, None), (here, None, ["epochs5"]), threats, threats]


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
        assert bool(illustration(results, run).landscape) == (name == ROBUST)
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
    """The count of the radii agrees with the images perturbed at each tenth radius.

    Only the plain L-infinity ball has pictures.
    """
    attack.main([REGULAR], norm=norm, box=box, results=results)
    run, found = stored(results, REGULAR, f"l{norm}-box" if box else f"l{norm}")
    assert (results / sample.name / "illustrations").exists() == ((norm, box) == ("inf", False))
    x, y = sample.flat("test")
    radii = np.linspace(0, {"inf": 0.5, "2": 5, "1": 20}[norm], 101)
    np.testing.assert_allclose(found.eps, radii, rtol=1e-12)
    for step, eps in enumerate(radii[::10]):
        logits = (x + worst_case.perturbation(x, y, run.w, eps, norm, box)) @ run.w + run.b
        assert np.count_nonzero(y * logits > 0) == found.correct[10 * step]


@pytest.mark.parametrize("name", [REGULAR, f"mnist-sample-0-1/{REGULAR}"])
def test_attacking_one_run_leaves_the_others(results, name):
    """The same attack gives the same bytes."""
    attack.main(results=results)
    before = tree(results)
    attack.main(results=results)
    assert tree(results) == before
    for path in results.rglob("*.npz"):
        if path.parent.name != "runs":
            path.unlink()
    attack.main([name], results=results)
    made = {path for path in tree(results) if "/runs/" not in path}
    assert {Path(path).name for path in made} == {f"{REGULAR}.npz"}
    assert all(tree(results)[path] == before[path] for path in made)


def test_unknown_run_and_no_runs_are_refused(results, tmp_path):
    before = tree(results)
    with pytest.raises(InputError, match=rf"no run robust-eps9 in .* mnist-sample-0-1/{REGULAR}"):
        attack.main([REGULAR, "robust-eps9"], results=results)
    assert tree(results) == before
    with pytest.raises(InputError, match=r"no runs of two digits in .*: python train\.py makes"):
        attack.main(results=tmp_path / "empty")


def test_runs_of_ten_digits_are_left_alone(results, capsys):
    """By all scripts of two digits; named, one says which command attacks it."""
    runs.save_run(
        results, recipes.optimal("mnist-all", 0.05), {}, np.ones((10, 3)), np.ones(10), {}
    )
    before = tree(results / "mnist-all")
    attack.main(results=results)
    attack.main(box=True, results=results)
    plots.main(results=results)
    tables.main(results=results)
    out, err = capsys.readouterr()
    assert "mnist-all" not in out + err
    assert tree(results / "mnist-all") == before
    line = "mnist-all/optimal-eps0.05 is of ten digits: python studies.py ten-digits attacks those"
    with pytest.raises(InputError, match=line):
        attack.main("mnist-all/optimal-eps0.05", results=results)
    shutil.rmtree(results / "mnist-sample-0-1")
    for module in (attack, plots, tables, explore):
        with pytest.raises(InputError, match=r"no runs of two digits|nothing to draw"):
            module.main(results=results)


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
