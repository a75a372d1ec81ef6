"""landscape.py: each point against the mean loss of the model with that weight."""

from common import runs

import numpy as np
import pytest
from conftest import dual_norm, flat

import recipes
from landscape import has_landscape, weight_landscape


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
    table = weight_landscape(run, tiny)
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
    table = weight_landscape(run, tiny)
    assert set(table["pixel"]) == {"strong"}
    assert table["robust_hinge"] == pytest.approx(table["hinge"], rel=1e-12)


@pytest.mark.parametrize(
    "other", [dict(norm="2"), dict(norm="1"), dict(box=True), dict(loss="logistic"), None], ids=str
)
def test_only_the_robust_hinge_in_the_plain_ball_has_a_landscape(other):
    assert has_landscape(recipes.settings("mnist-0-1", True))
    settings = recipes.settings("mnist-0-1", other is not None, **other or {})
    assert not has_landscape(settings)
