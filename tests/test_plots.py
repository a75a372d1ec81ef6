"""The figures, drawn from runs on the offline data set."""

import inspect
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import script
from matplotlib.figure import Figure

import attack
import comparisons
import diagrams
import figures
import plots
import runs
import stored
import train
from cli import RESULTS, ROOT, InputError

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
    assert set(article) <= set(plots.ALL)
    paths = {path.name for path in (trained / "digits-0-1").rglob("*.png")}
    assert {f"{name}.png" for name in article} <= paths


def test_every_figure_named_is_a_function_and_every_function_is_named():
    for name, module in plots.ALL.items():
        assert plots.function(name).__module__ == module
    made = {
        name
        for module in (diagrams, figures, comparisons)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if inspect.signature(function).return_annotation is Figure
    }
    assert made == set(plots.ALL)


def test_tables_are_written_without_matplotlib():
    code = (
        "import sys, cli, tables; tables.tables(cli.RESULTS); sys.exit('matplotlib' in sys.modules)"
    )
    assert script("-c", code).returncode == 0


def test_the_progress_bar_counts_what_is_drawn(trained, monkeypatch):
    totals = []
    monkeypatch.setattr(plots.tqdm, "tqdm", lambda todo, *_, **__: totals.append(len(todo)) or todo)
    plots.draw(trained, ["hinge_loss", "training"])
    assert totals == [2]


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


def test_a_figure_without_its_run_is_left_out_with_the_command_that_makes_it(
    trained, tmp_path, capsys
):
    dataset = tmp_path / "digits-0-1"
    for part in (REGULAR, "attack"):
        shutil.copytree(trained / "digits-0-1" / part, dataset / part)
    stale = dataset / "figures" / "epochs3" / "hinge_robust.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(HEADER)
    assert [path.stem for path in plots.draw(tmp_path, ["hinge_loss", "hinge_robust"])] == [
        "hinge_loss"
    ]
    assert not stale.exists()
    with pytest.raises(InputError, match="none of these"):
        plots.main(["hinge_robust"], tmp_path)
    assert "python train.py --robust" in capsys.readouterr().err


def test_a_run_trained_anew_is_not_drawn_with_the_old_attack(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "results")
    dataset = tmp_path / "results" / "digits-0-1"
    run = runs.load(dataset / REGULAR)
    np.savez(run.folder / "weights.npz", w=np.float32(2 * run.w), b=np.float32(run.b))
    assert list(stored.load_models(dataset)) == [f"robust-eps0.{k}-epochs3" for k in (1, 2, 3)]
    assert f"{REGULAR} is not drawn until python attack.py" in capsys.readouterr().err


def test_unknown_figure_and_empty_results_are_refused(trained, tmp_path):
    with pytest.raises(InputError, match="no figure nonsense"):
        plots.draw(trained, ["nonsense"])
    with pytest.raises(InputError, match=r"train\.py"):
        plots.draw(tmp_path)


def lines(figure, axes=0):
    return {line.get_label(): line.get_xydata() for line in figure.axes[axes].get_lines()}


def models_of(results):
    (models,) = stored.groups(stored.load_models(results / "digits-0-1")).values()
    return models


def test_the_knee_of_the_robust_hinge_is_drawn_outward(trained):
    models = models_of(trained)
    robust = stored.first(models, robust=True).run
    knee = 1 + 0.2 * np.abs(robust.w).sum()
    curve = lines(diagrams.hinge_robust(models))["robust hinge"]
    logit, loss = curve[:, 0], curve[:, 1]
    np.testing.assert_allclose(loss, np.maximum(0, knee - logit), atol=1e-9)


def test_the_linear_landscape_is_straight_with_slope_minus_y_w(trained):
    models = models_of(trained)
    regular = stored.first(models, robust=False)
    label = regular.attack.nearest["label"][0]
    curve = next(iter(lines(diagrams.landscape_simple(models)).values()))
    curve = curve[curve[:, 1] > 0]
    slopes = np.diff(curve[:, 1]) / np.diff(curve[:, 0])
    pixel = np.argmax(np.abs(regular.run.w))
    np.testing.assert_allclose(slopes, -label * regular.run.w[pixel], atol=1e-9)


def test_the_weak_pixel_is_drawn_with_its_least_loss_at_exactly_zero(trained):
    *_, weak_robust = diagrams.landscape_robust(models_of(trained)).axes
    labels = [line.get_label() for line in weak_robust.get_lines()]
    assert "least at exactly 0" in labels


def test_accuracy_noise_is_exact_at_every_stored_radius(trained):
    """The step function drawn, read off at the 101 stored radii, gives the stored accuracies."""
    models = models_of(trained)
    curves = lines(figures.accuracy_noise(models))
    for model in models:
        table = model.attack.accuracy
        eps, share = curves[model.label].T
        drawn = share[np.searchsorted(eps, table["eps"][:-1], side="right") - 1]
        np.testing.assert_allclose(drawn, table["accuracy"][:-1], atol=1e-8)  # nine digits


def test_misclassified_noise_names_the_radius_of_every_column(trained):
    models = models_of(trained)
    figure = figures.misclassified_noise(models)
    titles = [axes.get_title(loc="center") for axes in figure.axes[:11]]
    assert titles == [f"{eps:g}" for eps in models[0].attack.accuracy["eps"][::10]]


def test_histograms_of_logits_keep_to_their_side_of_the_boundary(trained):
    """Misclassified zeros have logits >= 0, ones <= 0: as many on each side as there are."""
    models = models_of(trained)
    regular = stored.first(models, robust=False)
    axes = figures.misclassified_logits(models).axes[0]
    y, logits = (regular.attack.samples[name] for name in ("labels", "logits"))
    perturbed = logits - y * 0.5 * np.abs(regular.run.w).sum()
    wrong = y * perturbed <= 0
    assert f"{wrong.sum()}" in [text.get_text() for text in axes.texts]


def test_stamps_are_symmetric_around_zero(trained):
    drawn = figures.model_weights(models_of(trained))
    for axes, model in zip(drawn.axes, models_of(trained), strict=False):
        (image,) = axes.get_images()
        assert image.get_clim() == (-1, 1)
        size = np.abs(model.run.w).max()
        np.testing.assert_allclose(image.get_array().ravel(), model.run.w / size)


def test_comparisons_are_drawn_from_the_published_numbers(tmp_path):
    """From the files alone, so without MNIST."""
    hidden = shutil.ignore_patterns("figures", "dual.npz")
    shutil.copytree(RESULTS / "mnist-0-1", tmp_path / "mnist-0-1", ignore=hidden)
    written = plots.draw(tmp_path, list(plots.COMPARISONS))
    assert {path.stem for path in written} == set(plots.COMPARISONS)
    for path in written:
        assert path.read_bytes().startswith(b"\x89PNG")
