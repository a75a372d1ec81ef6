"""The figures, drawn from runs on the offline data set."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import attack
import diagrams
import plots
import runs
import train
from cli import ROOT, InputError

REGULAR = "regular-epochs3"
HEADER = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with four models of the digits, attacked, and all their figures."""
    results = tmp_path_factory.mktemp("results")
    train.main(dataset="digits", epochs=3, results=results, quiet=True)
    train.main(True, [0.1, 0.2, 0.3], dataset="digits", epochs=3, results=results, quiet=True)
    attack.main(results=results)
    return results


def test_every_figure_of_the_article_is_drawn(trained):
    article = (
        "hinge_loss hinge_margin landscape_complex landscape_simple perturbation_boxes "
        "hinge_robust landscape_robust accuracy misclassified_regular model_weights "
        "accuracy_noise misclassified_noise misclassified_logits training"
    ).split()
    assert set(article) <= set(plots.DIAGRAMS | plots.FIGURES)
    paths = {path.name for path in (trained / "digits-0-1").rglob("*.png")}
    assert {f"{name}.png" for name in article} <= paths


def test_a_named_figure_alone_is_drawn_and_repeats_byte_for_byte(trained):
    (path,) = plots.draw(trained, ["training"])
    first = path.read_bytes()
    assert first.startswith(HEADER)
    assert plots.draw(trained, ["training"]) == [path]
    assert path.read_bytes() == first


def test_drawing_needs_neither_tensorflow_nor_the_data(trained):
    code = (
        "import sys, pathlib, plots; plots.draw(pathlib.Path(sys.argv[1]), ['accuracy_noise']); "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'sklearn', 'data')))"
    )
    command = [sys.executable, "-c", code, str(trained)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_a_figure_without_its_run_is_left_out_with_the_command_that_makes_it(trained, tmp_path):
    dataset = tmp_path / "digits-0-1"
    for part in (REGULAR, "attack"):
        shutil.copytree(trained / "digits-0-1" / part, dataset / part)
    stale = dataset / "figures" / "epochs3" / "hinge_robust.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(HEADER)
    assert stale not in plots.draw(tmp_path)
    assert not stale.exists()
    with pytest.raises(InputError, match=r"train\.py --robust"):
        plots.draw(tmp_path, ["hinge_robust"])


def test_a_run_trained_anew_is_not_drawn_with_the_old_attack(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "results")
    dataset = tmp_path / "results" / "digits-0-1"
    run = runs.load(dataset / REGULAR)
    np.savez(run.folder / "weights.npz", w=np.float32(2 * run.w), b=np.float32(run.b))
    ((_, models),) = plots.load_groups(dataset)
    assert [model.run.name for model in models] == [f"robust-eps0.{k}-epochs3" for k in (1, 2, 3)]
    assert f"{REGULAR} is not drawn until python attack.py" in capsys.readouterr().err


def test_unknown_figure_and_empty_results_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="no figure nonsense"):
        plots.draw(trained, ["nonsense"])
    with pytest.raises(InputError, match=r"train\.py"):
        plots.draw(tmp_path)


def lines(figure, axes=0):
    return {line.get_label(): line.get_xydata() for line in figure.axes[axes].get_lines()}


def models_of(results):
    ((_, models),) = plots.load_groups(results / "digits-0-1")
    return models


def test_the_knee_of_the_robust_hinge_is_drawn_outward(trained):
    models = models_of(trained)
    robust = diagrams.first(models, robust=True).run
    knee = 1 + 0.2 * np.abs(robust.w).sum()
    curve = lines(diagrams.hinge_robust(models))["robust hinge"]
    logit, loss = curve[:, 0], curve[:, 1]
    np.testing.assert_allclose(loss, np.maximum(0, knee - logit), atol=1e-9)


def test_the_linear_landscape_is_straight_with_slope_minus_y_w(trained):
    models = models_of(trained)
    regular = diagrams.first(models, robust=False)
    samples = regular.attack.samples
    label = samples["labels"][np.argmin(samples["labels"] * samples["logits"])]
    curve = next(iter(lines(diagrams.landscape_simple(models)).values()))
    curve = curve[curve[:, 1] > 0]
    slopes = np.diff(curve[:, 1]) / np.diff(curve[:, 0])
    pixel = np.argmax(np.abs(regular.run.w))
    np.testing.assert_allclose(slopes, -label * regular.run.w[pixel], atol=1e-9)


def test_the_weak_pixel_is_drawn_with_its_least_loss_at_exactly_zero(trained):
    *_, weak_robust = diagrams.landscape_robust(models_of(trained)).axes
    assert [text.get_text() for text in weak_robust.texts] == ["least at exactly 0"]


def test_accuracy_noise_draws_the_stored_curves(trained):
    models = models_of(trained)
    curves = lines(plots.accuracy_noise(models))
    for model in models:
        table = model.attack.accuracy
        stored = np.stack([table["eps"], table["accuracy"]], 1)
        np.testing.assert_array_equal(curves[model.label], stored)


def test_stamps_are_symmetric_around_zero(trained):
    figure = plots.model_weights(models_of(trained))
    for axes, model in zip(figure.axes, models_of(trained), strict=False):
        (image,) = axes.get_images()
        assert image.get_clim() == (-1, 1)
        size = np.abs(model.run.w).max()
        np.testing.assert_allclose(image.get_array().ravel(), model.run.w / size)
