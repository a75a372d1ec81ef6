"""illustrations.py: what only pictures need, against brute force over images and weights."""

import dataclasses
import shutil

from lab import store

import numpy as np
import pytest
from conftest import dual_norm, flat

import attack
import illustrations
import plots
import recipes
import runs

REGULAR, ROBUST = "regular-epochs5", "robust-eps0.05-epochs5"


def test_images_of_eight_that_are_wrong_unperturbed(trained, sample, monkeypatch):
    """Of a model that takes every image for a one."""
    run = runs.load_run(store.file(trained / sample.name, "runs", REGULAR))
    monkeypatch.setattr(illustrations, "EPS", [0.0])
    found = illustrations.of_run(dataclasses.replace(run, b=run.b + 100), sample)
    assert found.nearest["rank"] == list(range(10))
    assert found.image_index.tolist() == sorted(found.nearest["index"][:8])


def test_the_example_is_typical_for_every_run(trained, sample):
    """No other image of the lower digit has all of its ranks nearer to the middle."""
    members = list(runs.read_runs(trained / sample.name).values())
    found = illustrations.example(members, sample)
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
    monkeypatch.setattr(plots, "draw", lambda *arguments: [])
    monkeypatch.setattr(illustrations, "EXAMPLE", (REGULAR, "absent", ROBUST))
    shutil.copytree(trained, tmp_path / "results")
    dataset = tmp_path / "results" / sample.name
    attack.main(results=tmp_path / "results")
    monkeypatch.setattr(illustrations, "EXAMPLE", (REGULAR, ROBUST, "absent"))
    shutil.rmtree(dataset / "attacks")
    attack.main(norm="2", results=tmp_path / "results")  # none is attacked in L-infinity
    assert not (dataset / "studies").exists()
    attack.main(results=tmp_path / "results")
    found = runs.read(dataset).study("example")
    assert found["runs"].tolist() == [REGULAR, ROBUST]


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
    table = illustrations.weight_landscape(run, tiny)
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
    table = illustrations.weight_landscape(run, tiny)
    assert set(table["pixel"]) == {"strong"}
    assert table["robust_hinge"] == pytest.approx(table["hinge"], rel=1e-12)


@pytest.mark.parametrize(
    "other", [dict(norm="2"), dict(norm="1"), dict(box=True), dict(loss="logistic"), None], ids=str
)
def test_only_the_robust_hinge_in_the_plain_ball_has_a_landscape(sample, other):
    run = made_up_run(sample)
    assert illustrations.of_run(run, sample).landscape
    settings = recipes.settings(sample.name, other is not None, **other or {})
    run = dataclasses.replace(run, settings=settings)
    assert not illustrations.of_run(run, sample).landscape


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
        table = illustrations.weight_landscape(run, tiny)
        weak = {
            j for j, pixel in zip(table["index"], table["pixel"], strict=True) if pixel == "weak"
        }
        assert weak == {max(pulls, key=pulls.get)}
