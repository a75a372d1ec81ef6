"""attack.py: curves and stored numbers, against brute force and the Keras model."""

import dataclasses
import json
import shutil
from pathlib import Path

from common import cli, files, runs
from common.cli import InputError

import numpy as np
import pytest
from conftest import flat, tree

import advlinear
import attack
import data
import model
import plots

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
    accuracy = attack.evaluate(run, split, RADII[::2]).accuracy
    assert accuracy["correct"].tolist() == expected
    assert accuracy["accuracy"].tolist() == [correct / len(y) for correct in expected]


def test_curve_is_the_models(trained, sample, float64):
    for run in runs.read_runs(trained / sample.name).values():
        check_curve_is_the_models(run, sample)


@pytest.mark.mnist
def test_curve_is_the_models_on_mnist(mnist, float64):
    run = runs.load(cli.RESULTS / "mnist-0-1" / "runs" / "robust-eps0.2")
    check_curve_is_the_models(run, mnist)


# --- attack.py as a whole ------------------------------------------------------------------------


@pytest.fixture
def results(trained, tmp_path, monkeypatch):
    """A copy of the two trained runs, to be changed at will; no figures are drawn."""
    monkeypatch.setattr(plots, "draw", lambda *arguments, **options: [])
    return shutil.copytree(trained, tmp_path / "results")


def stored(results, name, threat="linf"):
    """A run and the folder of the attack on it."""
    dataset = results / "mnist-sample-0-1"
    return runs.load(dataset / "runs" / name), dataset / "attacks" / threat / name


def table(path):
    return files.from_csv(path.read_bytes())


def brute_force(run, split, eps):
    """Logits of the test images, each perturbed on its own."""
    images = zip(flat(split.x_test), split.y_test, strict=True)
    return np.array([(x - y * eps * np.sign(run.w)) @ run.w + run.b for x, y in images])


@pytest.mark.parametrize("name", [REGULAR, ROBUST])
def test_stored_numbers(results, sample, capsys, name):
    """Numbers in csv files are stored with nine digits, which is 1e-8 relative."""
    attack.main([name], results=results)
    run, folder = stored(results, name)
    accuracy, nearest = table(folder / "accuracy.csv"), table(folder / "nearest.csv")
    np.testing.assert_allclose(accuracy["eps"], RADII, rtol=1e-8)
    assert set(accuracy["samples"]) == {200}
    np.testing.assert_allclose(accuracy["accuracy"], accuracy["correct"] / 200, rtol=1e-8)
    for step in range(0, 101, 10):
        logits = brute_force(run, sample, RADII[step])
        assert accuracy["correct"][step] == (sample.y_test * logits > 0).sum()
        wrong = [i for i in np.argsort(np.abs(logits)) if sample.y_test[i] * logits[i] <= 0][:10]
        rows = np.isclose(nearest["eps"], RADII[step], rtol=0, atol=1e-6)
        assert nearest["index"][rows].tolist() == wrong
        assert nearest["rank"][rows].tolist() == list(range(len(wrong)))
        assert nearest["label"][rows].tolist() == sample.y_test[wrong].tolist()
        np.testing.assert_allclose(nearest["logit"][rows], logits[wrong], rtol=1e-8)
    logits = brute_force(run, sample, 0)
    samples = files.from_npz((folder / "samples.npz").read_bytes())
    assert samples["labels"].tolist() == sample.y_test.tolist()
    np.testing.assert_allclose(samples["logits"], logits, rtol=1e-9)  # float64 sums
    radii = sample.y_test * logits / np.abs(run.w).sum()
    np.testing.assert_allclose(samples["radii"], radii, rtol=1e-9)
    # Figures show the nearest image at each tenth radius.
    assert set(samples["image_index"]) == set(nearest["index"][nearest["rank"] == 0])
    assert (samples["images"] == sample.x_test[samples["image_index"], ..., 0]).all()
    told = capsys.readouterr().out.splitlines()[2].split()
    assert told[1:] == [f"{share:.4f}" for share in accuracy["accuracy"][:81:20]]


def test_table_ends_with_the_weakest_and_the_strongest_run(trained, sample):
    """At two fifths of the largest radius, unless both withstand as much, as here at 0.2."""
    stored_runs = runs.read_runs(trained / sample.name)
    attacks = {name: attack.evaluate(run, sample, RADII) for name, run in stored_runs.items()}
    *_, last = attack.table(sample.name, attacks).splitlines()
    assert last.count(REGULAR) <= 1
    attacks = {name: attack.evaluate(run, sample, RADII[:51]) for name, run in stored_runs.items()}
    *_, last = attack.table(sample.name, attacks).splitlines()
    least, most = (100 * attacks[name].accuracy["accuracy"][20] for name in (REGULAR, ROBUST))
    told = f"{REGULAR} is right on {least:.1f} % of the images and {ROBUST} on {most:.1f} %."
    assert last == f"At eps 0.1, {told}"


def test_images_of_eight_that_are_wrong_unperturbed(trained, sample):
    """Of a model that takes every image for a one."""
    run = runs.load(trained / sample.name / "runs" / REGULAR)
    found = attack.evaluate(dataclasses.replace(run, b=run.b + 100), sample, RADII[:1])
    assert found.nearest["rank"] == list(range(10))
    assert found.samples["image_index"].tolist() == sorted(found.nearest["index"][:8])


def test_the_example_is_typical_for_every_run(trained, sample):
    """No other image of the lower digit has all of its ranks nearer to the middle."""
    members = runs.read_runs(trained / sample.name)
    found = attack.example(members, sample)
    assert found["runs"].tolist() == list(members)
    zeros = [i for i, y in enumerate(sample.y_test) if y == -1]
    x = flat(sample.x_test)
    largest = dict.fromkeys(zeros, 0.0)
    for run in members.values():
        margins = {i: -(x[i] @ run.w + run.b) for i in zeros}  # they order as the radii do
        for i in zeros:
            below = sum(margins[j] < margins[i] for j in zeros)
            largest[i] = max(largest[i], abs(below - (len(zeros) - 1) / 2))
    assert largest[int(found["index"])] == min(largest.values())
    np.testing.assert_array_equal(found["image"], sample.x_test[found["index"], ..., 0])


def test_the_example_is_stored_once_its_models_are_there(trained, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "draw", lambda *arguments, **options: [])
    monkeypatch.setattr(attack, "EXAMPLE", ("regular-epochs5", "absent", "robust-eps0.05-epochs5"))
    shutil.copytree(trained, tmp_path / "results")
    dataset = tmp_path / "results" / sample.name
    attack.main(results=tmp_path / "results")
    monkeypatch.setattr(attack, "EXAMPLE", ("regular-epochs5", "robust-eps0.05-epochs5", "absent"))
    shutil.rmtree(dataset / "attacks")
    attack.main(norm="2", results=tmp_path / "results")  # none is attacked in L-infinity
    assert not (dataset / "studies").exists()
    attack.main(results=tmp_path / "results")
    found = runs.read(dataset).study("example.npz")
    assert found["runs"].tolist() == ["regular-epochs5", "robust-eps0.05-epochs5"]


def test_what_is_drawn_after_an_attack(results, sample, monkeypatch):
    """Figures of the groups named, where they show this attack; else the one of all threats."""
    drawn = []
    monkeypatch.setattr(plots, "draw", lambda results, *which: drawn.append(which[:2]) or [])
    attack.main(results=results)
    attack.main([REGULAR], results=results)
    attack.main(norm="2", results=results)
    attack.main(box=True, results=results)  # no run is trained in the box
    assert drawn == [(None, None), (None, ["epochs5"]), (["threats"], None), (["threats"], None)]


def test_stored_facts(results, sample):
    attack.main(results=results)
    lit = flat(sample.x_train).max(axis=0) > 0
    for name in (REGULAR, ROBUST):
        run, folder = stored(results, name)
        facts = json.loads((folder / "attack.json").read_text())
        assert ("landscape.csv" in facts.pop("files")) == (name == ROBUST)
        sizes = [facts.pop("w_l1"), facts.pop("w_l1_unlit")]
        assert sizes == pytest.approx([np.abs(run.w).sum(), np.abs(run.w[~lit]).sum()], rel=1e-12)
        assert 0 < facts.pop("pixels_unlit") == np.count_nonzero(~lit)
        sums = dict(weights_sha256=run.weights_sha256, data_sha256=sample.checksum)
        assert facts == dict(norm="inf", box=False) | sums


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("box", [False, True])
def test_every_threat_model(results, sample, norm, box):
    """The count of the radii agrees with the images perturbed at each tenth radius."""
    attack.main([REGULAR], norm=norm, box=box, results=results)
    run, folder = stored(results, REGULAR, f"l{norm}-box" if box else f"l{norm}")
    x, y = sample.flat("test")
    accuracy, nearest = table(folder / "accuracy.csv"), table(folder / "nearest.csv")
    radii = np.linspace(0, {"inf": 0.5, "2": 5, "1": 20}[norm], 101)
    np.testing.assert_allclose(accuracy["eps"], radii, rtol=1e-8)
    for step, eps in enumerate(radii[::10]):
        logits = (x + advlinear.perturbation(x, y, run.w, eps, norm, box)) @ run.w + run.b
        wrong = np.sort(np.abs(logits[y * logits <= 0]))
        assert len(wrong) == 200 - accuracy["correct"][10 * step]
        found = np.abs(nearest["logit"][np.isclose(nearest["eps"], eps, rtol=1e-8)])
        np.testing.assert_allclose(found, wrong[:10], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [REGULAR, f"mnist-sample-0-1/{REGULAR}"])
def test_attacking_one_run_leaves_the_others(results, name):
    """The same attack gives the same bytes, another one the radii that it is given."""
    attack.main(results=results)
    before = tree(results)
    attack.main(results=results)
    assert tree(results) == before
    attack.main([name], eps_max=0.2, eps_steps=4, results=results)
    changed = {path for path, content in tree(results).items() if content != before[path]}
    assert {Path(path).parent.name for path in changed} == {REGULAR}
    _, folder = stored(results, REGULAR)
    found = table(folder / "accuracy.csv")["eps"]
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.15, 0.2], rtol=1e-8)
    assert set(table(folder / "nearest.csv")["eps"]) == {0}


def test_unknown_run_and_no_runs_are_refused(results, tmp_path):
    before = tree(results)
    with pytest.raises(InputError, match=rf"no run robust-eps9 in .* mnist-sample-0-1/{REGULAR}"):
        attack.main([REGULAR, "robust-eps9"], results=results)
    assert tree(results) == before
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
