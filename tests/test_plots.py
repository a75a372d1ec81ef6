"""The figures: what is drawn by default, from what, and the numbers that the pictures show."""

import dataclasses
import inspect
import shutil

from common import runs
from common.cli import RESULTS, InputError

import numpy as np
import pytest
from matplotlib.figure import Figure

import attack
import plots
import recipes
from figures import article, comparisons, method

HEADER = b"\x89PNG\r\n\x1a\n"
GROUPED = (
    "landscape_simple hinge_robust landscape_robust accuracy misclassified_regular model_weights "
    "accuracy_noise misclassified_noise misclassified_logits training"
).split()
DIAGRAMS = "hinge_loss hinge_margin landscape_complex perturbation_boxes".split()


@pytest.fixture(scope="module")
def published():
    return runs.read(RESULTS / "mnist-0-1")


@pytest.fixture(scope="module")
def models(published):
    """The published models of the article's recipe: regular, then robust by radius."""
    return plots.group_models(published.models())["article"]


@pytest.fixture
def quick(monkeypatch):
    """Figures are made, but not turned into pictures, which takes most of the time."""

    def render(function, given):
        assert isinstance(function(*given), Figure)
        return HEADER

    monkeypatch.setattr(plots, "render", render)


def copy_numbers(dataset, results):
    """A data set's folder without its figures, copied into another results folder."""
    without = shutil.ignore_patterns("figures")
    return shutil.copytree(dataset, results / dataset.name, ignore=without)


# --- which are drawn -----------------------------------------------------------------------------


def test_published_pictures_are_those_that_are_drawn_by_default(tmp_path, monkeypatch):
    dataset, published = copy_numbers(RESULTS / "mnist-0-1", tmp_path), RESULTS / "mnist-0-1"
    monkeypatch.setattr(plots, "render", lambda function, given: HEADER)
    drawn = {path.relative_to(dataset) for path in plots.draw(tmp_path)}
    assert drawn == {path.relative_to(published) for path in published.rglob("*.png")}
    assert len(drawn) == 32


def test_every_function_that_returns_a_figure_is_listed():
    listed = {function.__name__ for functions in plots.figures() for function in functions}
    assert listed == {
        name
        for module in (method, article, comparisons)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if inspect.signature(function).return_annotation is Figure
    }


def test_other_groups_are_drawn_on_request(tmp_path, quick):
    dataset = copy_numbers(RESULTS / "mnist-0-1", tmp_path)
    drawn = plots.draw(tmp_path, ["accuracy", "training"], ["optimal", "kolter-madry"])
    assert {path.relative_to(dataset / "figures").as_posix() for path in drawn} == {
        "optimal/accuracy.png",  # an exact minimum has no steps, and so no training.png
        "kolter-madry/accuracy.png",
        "kolter-madry/training.png",
    }
    with pytest.raises(InputError, match="no group nonsense; there are: article, box-converged, "):
        plots.draw(tmp_path, groups=["nonsense"])


def test_comparisons_are_drawn_from_the_published_numbers(published):
    for function in plots.figures()[2]:
        assert plots.render(function, (published,)).startswith(HEADER)


@pytest.fixture(scope="module")
def drawn(trained, tmp_path_factory):
    """The runs on the sample, attacked, with the figures that attack.py draws."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("drawn") / "results")
    attack.main(results=results)
    return results / "mnist-sample-0-1"


def test_figures_that_attack_draws(drawn):
    """Of a group that is neither of the published ones; a picture repeats byte for byte."""
    assert {path.stem for path in (drawn / "figures").glob("*.png")} == set(DIAGRAMS)
    assert {path.stem for path in (drawn / "figures" / "epochs5").glob("*.png")} == set(GROUPED)
    path = drawn / "figures" / "epochs5" / "training.png"
    before = path.read_bytes()
    assert before.startswith(HEADER)
    assert plots.draw(drawn.parent, ["training"]) == [path]
    assert path.read_bytes() == before


def test_what_cannot_be_drawn_is_told_with_a_command(drawn, tmp_path, capsys, quick):
    dataset = copy_numbers(drawn, tmp_path)
    shutil.rmtree(dataset / "runs" / "robust-eps0.05-epochs5")
    old = dataset / "figures" / "epochs5" / "hinge_robust.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(HEADER)
    (only,) = plots.draw(tmp_path, ["hinge_loss", "hinge_robust"])
    assert only.name == "hinge_loss.png"
    assert not old.exists()  # it would show what is no longer there
    with pytest.raises(InputError, match="none of these"):
        plots.main(["hinge_robust"], results=tmp_path)
    assert "a robust run is needed: run python train.py --robust" in capsys.readouterr().err
    shutil.rmtree(dataset / "attacks")
    plots.main(["hinge_loss"], results=tmp_path)
    told = "NOTICE: mnist-sample-0-1/regular-epochs5 is not drawn until python attack.py is run\n"
    assert capsys.readouterr().err == told


def test_models_that_no_radius_flips_are_drawn(tmp_path, sample):
    """A regular model that misclassifies nothing, and a robust one with w = 0."""
    x, y = sample.flat("test")
    towards_ones = x[y > 0].mean(0) - x[y < 0].mean(0)
    b = -np.median(x @ towards_ones)
    right = y * (x @ towards_ones + b) > 0
    sample = dataclasses.replace(sample, x_test=sample.x_test[right], y_test=sample.y_test[right])
    facts, history = runs.facts(sample, {}), {"train_accuracy": [0.5], "test_accuracy": [0.5]}
    for steps, count in ((5, 0), (10, 1)):  # misclassified_logits shows each tenth radius
        for robust in (False, True):
            settings = recipes.settings(sample.name, robust)
            weights = np.float32(towards_ones * (not robust)), np.float32(b)
            run = runs.load(runs.save(tmp_path, settings, facts, *weights, history))
            found = attack.evaluate(run, sample, np.arange(steps + 1) * 1e-6 / steps)
            runs.save_attack(tmp_path / sample.name, run.name, found)
        names = ["misclassified_logits", "misclassified_noise", "accuracy_noise"]
        assert len(plots.draw(tmp_path, names)) == 2 + count


# --- what they show ------------------------------------------------------------------------------


def lines(figure, axes=0):
    return {line.get_label(): line.get_xydata() for line in figure.axes[axes].get_lines()}


def test_the_knee_of_the_robust_hinge_is_drawn_outward(models):
    run = method.representative(models, robust=True).run
    assert run.name == "robust-eps0.2"
    knee = 1 + 0.2 * np.abs(run.w).sum()
    logit, loss = lines(method.hinge_robust(models))["robust hinge"].T
    np.testing.assert_allclose(loss, np.maximum(0, knee - logit), atol=1e-9)


def test_the_loss_of_the_linear_model_is_straight_with_slope_minus_y_w(models):
    regular = method.representative(models, robust=False)
    label = regular.attack.nearest["label"][0]
    (curve, _) = lines(method.landscape_simple(models)).values()
    curve = curve[curve[:, 1] > 0]
    slopes = np.diff(curve[:, 1]) / np.diff(curve[:, 0])
    heaviest = regular.run.w[np.argmax(np.abs(regular.run.w))]
    assert len(slopes) > 10
    np.testing.assert_allclose(slopes, -label * heaviest, atol=1e-9)


def test_the_robust_loss_of_the_weak_pixel_is_least_at_exactly_zero(models):
    *_, weak_robust = method.landscape_robust(models).axes
    assert "least at exactly 0" in lines(weak_robust.figure, axes=-1)


def test_accuracy_noise_is_exact_at_every_stored_radius(models):
    """The curve that is drawn, read off at the stored radii, gives the stored accuracy."""
    curves = lines(article.accuracy_noise(models))
    for model in models:
        table = model.attack.accuracy
        eps, share = curves[model.label].T
        read_off = share[np.searchsorted(eps, table["eps"][:-1], side="right") - 1]
        np.testing.assert_allclose(read_off, table["accuracy"][:-1], atol=1e-8)  # nine digits


def test_misclassified_noise_shows_every_tenth_radius_and_the_perturbed_image(models):
    figure = article.misclassified_noise(models)
    titles = [axes.get_title(loc="center") for axes in figure.axes[:11]]
    assert titles == [f"{eps:g}" for eps in models[0].attack.accuracy["eps"][::10]]
    (image,) = figure.axes[4].get_images()  # of the regular model at 0.2
    attacked = models[0].attack
    row = np.flatnonzero((attacked.nearest["eps"] == 0.2) & (attacked.nearest["rank"] == 0))[0]
    clean = attacked.image(attacked.nearest["index"][row]).ravel()
    delta = -attacked.nearest["label"][row] * 0.2 * np.sign(models[0].run.w)
    np.testing.assert_allclose(image.get_array().ravel(), clean + delta, atol=1e-6)  # float32


def test_histograms_show_as_many_logits_as_are_misclassified(models):
    regular = method.representative(models, robust=False)
    axes = article.misclassified_logits(models).axes[0]
    y, logits = (regular.attack.samples[name] for name in ("labels", "logits"))
    size = np.abs(regular.run.w).sum()
    texts = [text.get_text() for text in axes.texts]
    for eps in np.arange(1, 11) * 0.05:
        assert f"{(y * logits - eps * size <= 0).sum()}" in texts


def test_stamps_are_symmetric_around_zero(models):
    drawn = article.model_weights(models)
    for axes, model in zip(drawn.axes, models, strict=False):
        (image,) = axes.get_images()
        assert image.get_clim() == (-1, 1)
        size = np.abs(model.run.w).max()
        np.testing.assert_allclose(image.get_array().ravel(), model.run.w / size)
