"""The figures: what is drawn by default, from what, and the numbers that the pictures show."""

import dataclasses
import re
import shutil
from pathlib import Path

from lab import store
from lab.cli import RESULTS, InputError

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import advlinear
import attack
import illustrations
import plots
import recipes
import runs
import worst_case
from figures import article, comparisons, layout, method, style

HEADER = b"\x89PNG\r\n\x1a\n"
# The figures of the article, which are always drawn. Others may be added without a change here.
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
    return plots.group_models(published)["article"]


@pytest.fixture
def quick(monkeypatch):
    """Figures are made, but not turned into pictures, which takes most of the time."""

    def render(function, given, *rest):
        assert isinstance(function(*given), Figure)
        return HEADER

    monkeypatch.setattr(plots, "render", render)
    monkeypatch.setattr(plots, "PER_PROCESS", 1000)  # another process would draw


def copy_numbers(dataset, results):
    """A data set's folder without its figures, copied into another results folder."""
    without = shutil.ignore_patterns("figures")
    return shutil.copytree(dataset, results / dataset.name, ignore=without)


def test_pictures_of_the_same_numbers_are_not_drawn_again(tmp_path, drawn, monkeypatch, capsys):
    dataset, rendered = copy_numbers(drawn, tmp_path), []

    def render(function, given, *rest):
        rendered.append(function.__name__)
        return HEADER + bytes(len(rendered))

    monkeypatch.setattr(plots, "render", render)
    monkeypatch.setattr(plots, "PER_PROCESS", 1000)
    first = plots.main(results=tmp_path)
    count = len(rendered)
    assert count == len(first) > 10
    capsys.readouterr()
    assert plots.main(results=tmp_path) == first
    assert len(rendered) == count
    assert f"{count} of them were there already, of the same numbers" in capsys.readouterr().out
    first[0].unlink()
    plots.main(results=tmp_path)
    assert len(rendered) == count + 1
    attack = runs.read(dataset).attacks["linf"]["regular-epochs5"]
    attack.correct[0] -= 1
    runs.save_attack(dataset, "regular-epochs5", attack)
    plots.main(["accuracy_noise"], results=tmp_path)
    assert rendered[count + 1 :] == ["accuracy_noise"]


# --- which are drawn -----------------------------------------------------------------------------


def test_published_pictures_are_those_that_are_drawn_by_default(tmp_path, monkeypatch):
    dataset, published = copy_numbers(RESULTS / "mnist-0-1", tmp_path), RESULTS / "mnist-0-1"
    monkeypatch.setattr(plots, "render", lambda function, given, *rest: HEADER)
    drawn = {path.relative_to(dataset) for path in plots.main(results=tmp_path)}
    pictures = {path.relative_to(published) for path in (published / "figures").rglob("*.png")}
    todo = "run python plots.py, and commit results/mnist-0-1/figures"
    assert drawn == pictures, todo
    gallery = Path("figures", "README.md")
    same = (dataset / gallery).read_text("utf-8") == (published / gallery).read_text("utf-8")
    assert same, f"the gallery is not that of the captions: {todo}"


def test_the_gallery_shows_each_picture_with_its_command_and_its_numbers():
    folder = RESULTS / "mnist-0-1" / "figures"
    page = (folder / "README.md").read_text("utf-8")
    shown = re.findall(r"!\[(.+)\]\((.+)\)\n\n(.+)\n\n`(.+)` · numbers: (.+)\n", page)
    pictures = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert {picture for _, picture, *_ in shown} == pictures
    for alt, picture, see, command, numbers in shown:
        assert len(alt) > 20
        assert len(see) > 20
        name = Path(picture).stem
        group = f" --groups {Path(picture).parent}" if "/" in picture else ""
        assert command == f"python plots.py {name}{group}"
        patterns = re.findall(r"`(.+?)`", numbers)
        assert patterns or numbers == "computed in the function."
        for pattern in patterns:
            assert list(folder.parent.glob(pattern)), pattern


def test_a_new_figure_is_one_function(monkeypatch):
    """It takes nothing, the models of a group, or all results; its caption names its numbers."""

    def ink(results) -> Figure:
        """Ink of the images.

        What to see.

        Numbers: `studies/ink.npz`, `runs/*.npz`.
        """

    ink.__module__ = comparisons.__name__
    monkeypatch.setattr(comparisons, "ink", ink, raising=False)
    assert plots.figures()["results"][-1] is ink
    assert plots.showing("ink") == ["ink"]
    assert {f.__name__ for f in plots.figures()[""]} >= set(DIAGRAMS)
    assert {f.__name__ for f in plots.figures()["models"]} >= set(GROUPED)


def test_what_a_new_figure_lacks_is_said(monkeypatch):
    def takes_else(runs) -> Figure:
        """A.\n\nB.\n\nNumbers: `runs/*.npz`."""

    def returns_else(results):
        """A.\n\nB.\n\nNumbers: `runs/*.npz`."""

    def one_line(results) -> Figure:
        """A."""

    def no_numbers(results) -> Figure:
        """A.\n\nB.\n\nC."""

    def no_docstring(results) -> Figure:
        pass

    def helper(results):
        """What is no figure may have any docstring, and take anything."""

    for function, told in (
        (takes_else, r"takes \(runs\), not nothing, \(models\) or \(results\)"),
        (returns_else, "has the caption of a figure: annotate it -> Figure"),
        (one_line, "needs a docstring of three paragraphs"),
        (no_numbers, "needs a docstring of three paragraphs"),
        (no_docstring, "needs a docstring of three paragraphs"),
    ):
        with monkeypatch.context() as patch:
            function.__module__ = comparisons.__name__
            patch.setattr(comparisons, function.__name__, function, raising=False)
            with pytest.raises(TypeError, match=rf"\.{function.__name__} {told}"):
                plots.figures()
    helper.__module__ = comparisons.__name__
    monkeypatch.setattr(comparisons, "helper", helper, raising=False)
    assert helper not in plots.figures()["results"]


def test_every_caption_says_what_to_see_and_where_the_numbers_are():
    for function in (one for found in plots.figures().values() for one in found):
        what, see, numbers = plots.caption(function)
        assert what, function.__name__
        assert re.fullmatch(r"[^.]+([.]\d[^.]*)*[.]", see), f"{function.__name__}: one sentence"
        assert len(see.split()) <= 25, function.__name__
        assert "`" in numbers or numbers == "computed in the function.", function.__name__


def test_the_figures_of_a_study_are_drawn_after_it():
    for study, figures in dict(
        noise="noise_or_attack", path="path budgets", example="attack"
    ).items():
        assert plots.showing(study) == figures.split()
    assert plots.showing("seeds") == []


def test_after_an_attack_no_other_data_set_is_drawn(tmp_path, drawn, quick, capsys):
    """So the picture that is named first is one of the runs attacked."""
    published = copy_numbers(RESULTS / "mnist-0-1", tmp_path)
    dataset = copy_numbers(drawn, tmp_path)
    run = runs.load_run(dataset / "runs" / "regular-epochs5.npz")
    made = plots.draw_attacked({dataset: [run]}, "inf", False, everything=True)
    assert not (published / "figures").exists()
    assert {path.stem for path in made} >= {*DIAGRAMS, *GROUPED}
    assert str(published) not in capsys.readouterr().out


def test_other_groups_are_drawn_on_request(tmp_path, quick):
    dataset = copy_numbers(RESULTS / "mnist-0-1", tmp_path)
    plots.main(["accuracy"], ["box-converged"], results=tmp_path)
    assert "`attacks/linf" not in (dataset / "figures" / "README.md").read_text("utf-8")
    plots.main(["accuracy_noise"], ["box-converged"], results=tmp_path)
    assert "`attacks/linf-box/*" in (dataset / "figures" / "README.md").read_text("utf-8")
    drawn = plots.main(["accuracy", "training"], ["optimal", "kolter-madry"], results=tmp_path)
    assert {path.relative_to(dataset / "figures").as_posix() for path in drawn} == {
        "optimal/accuracy.png",  # an exact minimum has no steps, and so no training.png
        "kolter-madry/accuracy.png",
        "kolter-madry/training.png",
    }
    with pytest.raises(InputError, match="no group nonsense; there are: article, box-converged, "):
        plots.main(groups=["nonsense"], results=tmp_path)


def test_what_repeats_the_articles_figures_is_drawn_on_request(tmp_path, quick):
    copy_numbers(RESULTS / "mnist-0-1", tmp_path)
    assert set(plots.ONCE) < set(GROUPED)
    for groups, wanted in ((None, {"figures"}), (["converged"], {"converged"})):
        drawn = plots.main(list(plots.ONCE), groups, results=tmp_path)
        assert {path.parent.name for path in drawn} == wanted
        assert {path.stem for path in drawn} == set(plots.ONCE)


def test_a_group_is_drawn_of_the_data_sets_that_have_it(tmp_path, drawn, quick):
    copy_numbers(RESULTS / "mnist-0-1", tmp_path)
    copy_numbers(drawn, tmp_path)
    (path,) = plots.main(["accuracy"], ["kolter-madry"], results=tmp_path)
    assert path == tmp_path / "mnist-0-1" / "figures" / "kolter-madry" / "accuracy.png"


def test_comparisons_are_drawn_from_the_published_numbers(published):
    for function in plots.figures()["results"]:
        assert plots.render(function, (published,)).startswith(HEADER)


@pytest.fixture(scope="module")
def drawn(trained, tmp_path_factory):
    """The runs on the sample, attacked, with the figures that attack.py draws."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("drawn") / "results")
    attack.main(results=results)
    return results / "mnist-sample-0-1"


def test_figures_that_attack_draws(drawn):
    """Of a group that is neither of the published ones; a picture repeats byte for byte."""
    top = {path.stem for path in (drawn / "figures").glob("*.png")}
    assert top >= set(DIAGRAMS)
    assert not top & set(GROUPED)
    assert {path.stem for path in (drawn / "figures" / "epochs5").glob("*.png")} >= set(GROUPED)
    path = drawn / "figures" / "epochs5" / "training.png"
    before = path.read_bytes()
    assert before.startswith(HEADER)
    assert plots.main(["training"], results=drawn.parent) == [path]
    assert path.read_bytes() == before


def test_what_is_left_out_is_said_in_one_line_with_a_command_that_says_why(
    drawn, tmp_path, capsys, quick
):
    dataset = copy_numbers(drawn, tmp_path)
    run = runs.load_run(dataset / "runs" / "regular-epochs5.npz")
    made = plots.draw_attacked({dataset: [run]}, "inf", False, everything=False)
    out, err = capsys.readouterr()
    assert err == ""
    count, _, command = out.splitlines()[-1].partition(" figures left out: python plots.py ")
    options = vars(plots._parser().parse_args(command.removesuffix(" says what is needed").split()))
    names = options["names"]
    assert len(names) == int(count)
    assert {"optimum", "attack"} <= set(names)
    assert not set(names) & {path.stem for path in made}
    assert options["results"] == tmp_path
    with pytest.raises(InputError, match="none of these"):
        plots.main(**options)
    notices = capsys.readouterr().err.splitlines()
    figures = [line.partition(".png: ")[0].rpartition("/")[2] for line in notices]
    assert figures == names
    assert any("robust-eps0.1 is needed: run python train.py --robust" in one for one in notices)


@pytest.mark.parametrize("format", plots.FORMATS)
def test_the_same_command_writes_the_same_bytes(published, monkeypatch, format):
    first = plots.render(comparisons.attack, (published,), format)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert plots.render(comparisons.attack, (published,), format) == first
    assert first.startswith({"png": HEADER, "svg": b"<?xml", "pdf": b"%PDF"}[format])


def test_dots_per_inch(published):
    sizes = [
        int.from_bytes(plots.render(comparisons.attack, (published,), "png", dpi)[16:20], "big")
        for dpi in (100, 200)
    ]
    assert sizes == [800, 1600]


def test_other_formats_lie_beside_the_png_and_not_in_the_gallery(drawn, tmp_path):
    dataset = copy_numbers(drawn, tmp_path)
    plots.main(["hinge_loss"], format="pdf", results=tmp_path)
    (figure,) = (dataset / "figures").glob("hinge_loss.*")
    assert figure.read_bytes().startswith(b"%PDF")
    assert "hinge_loss" not in (dataset / "figures" / "README.md").read_text("utf-8")


def test_what_cannot_be_drawn_is_told_with_a_command(drawn, tmp_path, capsys, quick):
    dataset = copy_numbers(drawn, tmp_path)
    (dataset / "runs" / "robust-eps0.05-epochs5.npz").unlink()
    old = dataset / "figures" / "epochs5" / "hinge_robust.png"
    old.parent.mkdir(parents=True)
    old.write_bytes(HEADER)
    (only,) = plots.main(["hinge_loss", "hinge_robust"], results=tmp_path)
    assert only.name == "hinge_loss.png"
    assert not old.exists()  # it would show what is no longer there
    with pytest.raises(InputError, match="none of these"):
        plots.main(["hinge_robust"], results=tmp_path)
    assert "a robust run is needed: run python train.py --robust" in capsys.readouterr().err
    shutil.rmtree(dataset / "attacks")
    plots.main(["hinge_loss"], results=tmp_path)
    told = "mnist-sample-0-1/regular-epochs5 is not drawn until python attack.py --runs regular-"
    assert told in capsys.readouterr().err


def test_models_that_no_radius_flips_are_drawn(tmp_path, sample, monkeypatch):
    """A regular model that misclassifies nothing, and a robust one with w = 0."""
    x, y = sample.flat("test")
    towards_ones = x[y > 0].mean(0) - x[y < 0].mean(0)
    b = -np.median(x @ towards_ones)
    right = y * (x @ towards_ones + b) > 0
    sample = dataclasses.replace(sample, x_test=sample.x_test[right], y_test=sample.y_test[right])
    facts, history = runs.facts_of(sample, {}), {"train_accuracy": [0.5], "test_accuracy": [0.5]}
    monkeypatch.setitem(attack.EPS_MAX, "inf", 1e-6)
    monkeypatch.setattr(illustrations, "EPS", np.arange(11) * 1e-6 / 10)
    for robust in (False, True):
        settings = recipes.settings(sample.name, robust)
        weights = np.float32(towards_ones * (not robust)), np.float32(b)
        run = runs.load_run(runs.save_run(tmp_path, settings, facts, *weights, history))
        runs.save_attack(tmp_path / sample.name, run.name, attack.attack(run, sample))
        pictures = illustrations.of_run(run, sample)
        runs.save_illustration(tmp_path / sample.name, run.name, pictures)
    names = ["misclassified_logits", "misclassified_noise", "accuracy_noise"]
    assert len(plots.main(names, results=tmp_path)) == 3


# --- what they show ------------------------------------------------------------------------------


def lines(figure, axes=0):
    return {line.get_label(): line.get_xydata() for line in figure.axes[axes].get_lines()}


def test_every_colour_stands_out_on_white():
    """A contrast of 3:1 at least, by the formula of WCAG 2."""
    colours = {name: value for name, value in vars(style).items() if str(value).startswith("#")}
    assert len(colours) > 5
    for value in colours.values():
        assert 1.05 / (luminance([int(value[k : k + 2], 16) / 255 for k in (1, 3, 5)]) + 0.05) >= 3


def test_the_looks_of_the_published_models(published):
    """The colour says what a model is, the dash its radius; no two look the same."""
    names = (
        "regular regular-initzeros robust-eps0.1 robust-eps0.2 robust-eps0.3 "
        "optimal-eps0.1 optimal-eps0.2 optimal-eps0.3"
    ).split()
    settings = {name: published.runs[name].settings for name in names}
    looks = {name: (style.colour(one), style.dash(one)) for name, one in settings.items()}
    assert len(set(looks.values())) == len(looks)
    assert looks["regular"] == (style.BLACK, style.SOLID)
    greens = [looks[f"robust-eps{eps}"][0] for eps in (0.1, 0.2, 0.3)]
    assert greens == [style.LIGHT, style.GREEN, style.DARK]
    for eps, dash in ((0.1, style.DASHED), (0.2, style.DASHDOT), (0.3, style.DOTTED)):
        assert looks[f"robust-eps{eps}"][1] == dash
        assert looks[f"optimal-eps{eps}"] == (style.BLUE, dash)
    assert style.colour(published.runs["robust-eps0.2-converged"].settings) == style.GREEN


def test_a_model_has_its_colour_and_dash_in_every_figure(published, models):
    found = 0
    for model in models:
        wanted = style.colour(model.run.settings), style.line(model.run.settings)["ls"]
        for figure in (
            article.accuracy_noise(models),
            article.training(models),
            comparisons.threats(published),
        ):
            for line in figure.axes[0].get_lines():
                if line.get_label() == model.label:
                    found += 1
                    drawn = Figure().subplots().plot([], color=wanted[0], ls=wanted[1], lw=1)[0]
                    assert line.get_color() == drawn.get_color()
                    assert line.get_linestyle() == drawn.get_linestyle()
    assert found == 4 + 4 + 2


def test_attack_shows_the_worst_perturbation_and_says_who_is_fooled(published):
    shown = published.study("example")
    index, image = int(shown["index"]), shown["image"].astype(np.float64)
    names = ["regular", "robust-eps0.2", "optimal-eps0.2"]
    assert shown["runs"].tolist() == names
    panels = np.array(comparisons.attack(published).axes).reshape(3, 4)
    for row, name in zip(panels, names, strict=True):
        run, found = published.runs[name], published.attacks["linf"][name]
        x, y = image.reshape(1, -1), np.array([-1.0])
        assert found.labels[index] == -1
        delta = worst_case.perturbation(x, y, run.w, 0.2).reshape(28, 28)
        pictures = [axes.get_images()[0] for axes in row]
        for picture, wanted in zip(pictures[1:], (image, delta, image + delta), strict=True):
            np.testing.assert_allclose(picture.get_array(), wanted, atol=1e-12)
        assert pictures[1].get_clim() == (0, 1)
        assert pictures[3].get_clim() == (-0.2, 1.2)
        (radius,) = worst_case.signed_radii(x, y, run.w, run.b)
        (left,) = worst_case.margins(x, y, run.w, run.b, 0.2)
        numbers, verdict, flips = (text.get_text() for text in row[3].texts[:3])
        assert numbers.replace("−", "-").endswith(f"≈ {left:.2f}")
        assert verdict == ("says 0: right" if radius > 0.2 else "says 1: fooled")
        assert (row[3].spines["top"].get_linewidth() > 2) == (radius <= 0.2)
        assert flips == f"flips at ε = {radius:.3f}"


def test_the_kink_of_the_robust_hinge_is_drawn_outward(models):
    run = method.representative(models, robust=True).run
    assert run.name == "robust-eps0.2"
    kink = 1 + 0.2 * np.abs(run.w).sum()
    logit, loss = lines(method.hinge_robust(models))["robust hinge"].T
    np.testing.assert_allclose(loss, np.maximum(0, kink - logit), atol=1e-9)


def test_the_loss_of_the_linear_model_is_straight_with_slope_minus_y_w(models):
    regular = method.representative(models, robust=False)
    label, w = regular.illustrated().nearest["label"][0], regular.run.w
    drawn = [line.get_xydata() for line in method.landscape_simple(models).axes[0].get_lines()]
    curves = [line for line in drawn if len(line) > 10]
    assert len(curves) == 3
    for curve, weight in zip(curves, (w.max(), w.min(), None), strict=True):
        curve = curve[curve[:, 1] > 0]
        slopes = np.diff(curve[:, 1]) / np.diff(curve[:, 0])
        assert len(slopes) > 10
        if weight is None:
            weight = -label * slopes[0]
            assert np.abs(w - weight).min() < 1e-9
        np.testing.assert_allclose(slopes, -label * weight, atol=1e-9)


def test_least_is_said_only_where_the_window_shows_it(models):
    """Not at the window's edge, and not where the loss is flat up to the edge."""
    weight = np.linspace(-1, 1, 21)
    assert method.least((weight - 0.5) ** 2) == 15
    assert method.least(-weight) is None
    assert method.least(weight) is None
    assert method.least(np.maximum(0, -weight)) is None
    strong, weak, *_ = method.landscape_robust(models).axes
    strong, weak = (axes.get_legend_handles_labels()[1] for axes in (strong, weak))
    assert "hinge: least at about −0.93" in weak
    assert "robust hinge: least at about +1.05" in strong
    assert "robust hinge: least at exactly 0" in weak


def test_the_slope_of_the_robust_hinge_jumps_at_weight_0_by_what_theory_says(models):
    """By 2 eps times the share of active images; the mean loss at weight 0 is divided out."""
    model = method.representative(models, robust=True)
    table, axes = model.illustrated().landscape, method.landscape_robust(models).axes[3]
    plain, robust = (line.get_xydata() for line in axes.get_lines()[:2])
    at_zero = (table["pixel"] == "weak") & (table["weight"] == 0)
    zero = len(robust) // 2  # the first slope right of weight 0
    jump = (robust[zero, 1] - robust[zero - 1, 1]) * table["robust_hinge"][at_zero][0]
    assert robust[zero - 1, 1] < 0 < robust[zero, 1]
    active = model.run.steps["active"][-500:].mean()  # near the end of training, over batches
    assert jump == pytest.approx(2 * 0.2 * active, rel=0.1)
    assert plain[zero, 1] - plain[zero - 1, 1] < 0.1 * (robust[zero, 1] - robust[zero - 1, 1])


def read_off(curve, eps):
    """The height of a curve of steps at these radii."""
    return curve[np.searchsorted(curve[:, 0], eps, side="right") - 1, 1]


def test_accuracy_noise_is_exact_at_every_stored_radius(published, models):
    """The curve that is drawn, read off at the stored radii, gives the stored accuracy.

    Models that were trained in the box are drawn under the attack in the box.
    """
    boxed = plots.group_models(published)["box-converged"]
    for group, threat, pixels in (
        (models, "linf", "pixels may leave [0, 1]"),
        (boxed, "linf-box", "pixels kept in [0, 1]"),
    ):
        figure = article.accuracy_noise(group)
        assert pixels in figure.axes[0].get_xlabel()
        for model in group:
            found = published.attacks[threat][model.run.name]
            drawn = read_off(lines(figure)[model.label], found.eps[:-1])
            np.testing.assert_allclose(drawn, found.accuracy[:-1], rtol=1e-12)


def test_budgets_draws_what_the_package_finds_for_both_budgets(published, tiny):
    """Of the models under each budget `Found.curve`, and of the minima those of `path`.

    On the published minima the theorem holds: a radius is worth itself times the minimum there.
    """
    figure = comparisons.budgets(published)
    for k, budget in ((1, "each"), (2, "mean")):
        for name in comparisons.THREATENED:
            (model,) = published.choose([name])
            drawn = lines(figure, k)[model.label]
            radii = np.clip(model.attack.radii, 0, None)
            eps = np.random.default_rng(0).uniform(0, drawn[-1, 0], 100)
            found = advlinear.attack(([1.0], 0.0), radii[:, None], np.ones(len(radii), int))
            np.testing.assert_allclose(read_off(drawn, eps), found.curve(eps, budget), rtol=1e-12)
    grid, table = published.study("path"), published.study("path-models", "path")
    least = comparisons.mean_minimum(table, grid["eps"] * grid["primal"])
    above = grid["primal"] > 0
    np.testing.assert_allclose(least[above], grid["primal"][above], rtol=1e-8)
    x, y = tiny.flat("train")
    eps = np.linspace(0.001, 0.5, 100)
    path, mean = (advlinear.path(x, y, 0, 0.5, tol=0, budget=one) for one in ("each", "mean"))
    least = comparisons.mean_minimum(vars(path), eps)
    np.testing.assert_allclose(least, mean.bounds(eps)[0], rtol=1e-9)


def test_what_a_boxed_attack_does_not_store_is_not_drawn(published):
    boxed = plots.group_models(published)["box-converged"]
    for function in (
        article.misclassified_regular,
        article.misclassified_noise,
        article.misclassified_logits,
    ):
        with pytest.raises(store.Missing, match="one in the box stores no images"):
            function(boxed)


def test_misclassified_noise_shows_the_perturbed_images_and_their_logits(models):
    curves, pictures = article.misclassified_noise(models).axes
    (image,) = pictures.get_images()
    regular, words = models[0].illustrated(), [text.get_text() for text in pictures.texts]
    assert [text for text in words if text.startswith("ε = ")] == [
        f"ε = {eps}" for eps in (0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    near = regular.nearest
    row = np.flatnonzero((near["eps"] == 0.2) & (near["rank"] == 0))[0]
    clean = regular.image(near["index"][row]).ravel()
    delta = -near["label"][row] * 0.2 * np.sign(models[0].run.w)
    left = round(1.1 * 28)  # the second of the first row
    shown = image.get_array()[:28, left : left + 28]
    np.testing.assert_allclose(shown.ravel(), clean + delta, atol=1e-6)  # float32
    logit = f"{near['logit'][row]:+.2f}".replace("-", "−")
    assert words[2] == f"a {(near['label'][row] + 1) // 2:g}\n{logit}"
    for model, line in zip(models, curves.get_lines(), strict=True):
        near = model.illustrated().nearest
        for eps, height in line.get_xydata():
            assert height == np.abs(near["logit"][near["eps"] == eps]).min()


def test_histograms_show_the_share_of_the_wrong_images_on_equal_axes(models):
    figure = article.misclassified_logits(models)
    assert len(figure.axes) == 5
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in figure.axes}) == 1
    for axes, eps in zip(figure.axes, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True):
        for bars, robust in zip(axes.patches, (False, True), strict=True):
            model = method.representative(models, robust)
            kind = "robust" if robust else "regular"
            y, logits = (model.attack.labels, model.attack.logits)
            logits = logits - y * eps * np.abs(model.run.w).sum()
            wrong = logits[y * logits <= 0]
            heights, edges, _ = bars.get_data()
            assert np.abs(edges).min() < 1e-12
            np.testing.assert_allclose(heights * len(wrong), np.histogram(wrong, edges)[0])
            np.testing.assert_allclose(heights.sum(), 1)
            assert f"{kind}: {len(wrong)} of 2115 wrong" in [text.get_text() for text in axes.texts]
            assert set(y[y * logits <= 0][wrong < 0]) <= {1}  # as the titles say


def test_the_legend_of_accuracy_noise_says_where_half_of_the_images_are_wrong(models):
    (legend,) = article.accuracy_noise(models).legends
    for text, model in zip(legend.get_texts(), models, strict=True):
        label, _, at = text.get_text().partition(": half are wrong at ")
        assert label == model.label
        assert model.accuracy(float(at)) == pytest.approx(0.5, abs=0.01)  # three decimals


def test_means_over_steps_start_at_the_first_step_and_leave_no_step_out():
    values = np.random.default_rng(0).normal(size=1270)
    middle, means = article.by_log_step(values)
    assert (middle[0], means[0]) == (1, values[0])
    edges = [round(middle[0])]
    while edges[-1] <= 1270:  # a bin from a to b has its middle at sqrt(a b)
        edges.append(round(middle[len(edges) - 1] ** 2 / edges[-1]) + 1)
    np.testing.assert_allclose(np.diff(edges) @ means, values.sum())
    assert np.all(np.diff(article.by_log_step(-np.arange(1270.0))[1]) < 0)  # no cliff, no bump


def test_the_circles_of_the_converged_recipe_lie_at_its_accuracy(published):
    figure = comparisons.optimum(published)
    for row, eps in enumerate((0.1, 0.2, 0.3)):
        circles = lines(figure, 9 + row)["converged recipe"]
        radii = published.attacks["linf"][f"robust-eps{eps}-converged"].radii
        np.testing.assert_allclose(circles[:, 1], [(radii > at).mean() for at in circles[:, 0]])


def test_titles_take_their_numbers_from_the_results(published):
    for function, numbers in (
        (comparisons.masking, ("FGSM reports 0.999", "PGD 0.999", "exact is 0.304")),
        (comparisons.init_ablation, ("keeps 23.2 %", "zero weights, 95.7 %")),
        (
            comparisons.threats,
            ("98.2 % in the L∞ ball of radius 0.2", "0.0 % in the L2 ball of radius 2"),
        ),
        (comparisons.noise_or_attack, ("0.10 % wrong under random noise", "99.95 % in the worst")),
    ):
        title = title_of(function(published))
        assert all(number in title for number in numbers), title


def test_captions_agree_with_the_results(published):
    """Captions are docstrings, so their numbers are typed."""

    def see(function) -> str:
        return plots.caption(function)[1]

    table = published.study("path-models", "path")
    assert f"beyond ε = {table['radii'][-1]:.3f} it uses none" in see(comparisons.path)
    table = published.study("transfer")
    rows = (table["source"] == "regular") & (table["eps"] == 0.2)
    own, *others = np.sort(table["accuracy"][rows])
    words = f"leaves the regular model {own:.2f} leaves every other model {others[0]:.2f} or more"
    assert words in see(comparisons.transfer)
    table = published.study("noise")
    rows = np.isin(table["run"], ["regular", "robust-eps0.2"])
    assert "noise errors stay below 0.5 %" in see(comparisons.noise_or_attack)
    assert table["random"][rows].min() > 0.995
    assert "they exceed 96 %" in see(comparisons.noise_or_attack)
    assert table["worst"][rows & (table["eps"] == 0.5)].max() < 0.04
    grouped = plots.group_models(published)
    for models in (grouped["article"], grouped["converged"]):
        active = [model.run.steps["active"][-500:].mean() for model in models]
        pixels = [model.run.pixels_in_use for model in models]
        assert active == sorted(active)
        assert pixels == sorted(pixels, reverse=True)


def title_of(figure) -> str:
    return figure.get_suptitle() or figure.axes[0].get_title()


@pytest.mark.parametrize("name", ["masking", "noise_or_attack", "transfer", "ten_digits"])
def test_titles_follow_the_studies(published, name):
    """All shares halved: a title whose numbers were written by hand would stay."""
    function = getattr(comparisons, name)
    halved = {
        study: {
            column: values / 2
            if values.dtype == float and column not in ("eps", "images")
            else values
            for column, values in table.items()
        }
        for study, table in published.studies.items()
        if study not in ("example", "weights")
    }
    changed = dataclasses.replace(published, studies=halved)
    assert title_of(function(changed)) != title_of(function(published))


def test_stamps_show_the_signed_root_of_the_pixels_in_use(models):
    """Symmetric around white, and dots mark the negative ones."""
    drawn = article.model_weights(models)
    for axes, model in zip(drawn.axes, models, strict=False):
        (image,), (dots,), w = axes.get_images(), axes.get_lines(), model.run.w
        assert image.get_clim() == (-1, 1)
        np.testing.assert_allclose(article.STAMP(0.5), 1, atol=0.01)
        shown, share = image.get_array().ravel(), np.abs(w) / np.abs(w).max()
        assert np.count_nonzero(shown) == model.run.pixels_in_use
        used = shown != 0
        np.testing.assert_allclose(shown[used], (np.sign(w) * (0.15 + 0.85 * share**0.5))[used])
        column, row = dots.get_data()
        np.testing.assert_array_equal(np.sort(28 * row + column), np.flatnonzero(shown < 0))


def luminance(colour) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return np.dot(channels, (0.2126, 0.7152, 0.0722))


def test_signs_can_be_told_in_grey():
    """Both signs are about equally dark, and the dots that mark one of them are far darker."""
    against, for_ = (luminance(article.STAMP(end)) + 0.05 for end in (0.0, 1.0))
    assert 0.9 < against / for_ < 1.1
    dot = luminance([int(style.DOT[k : k + 2], 16) / 255 for k in (1, 3, 5)]) + 0.05
    assert against / dot > 3


# --- where things stand --------------------------------------------------------------------------


def test_panels_stand_where_they_are_put():
    figure = Figure(figsize=(8, 4))
    found = layout.panels(figure, 2, 3, left=0.5, top=0.25, width=2, height=1.5, gap=(0.25, 0.4))
    for (row, column), axes in np.ndenumerate(found):
        left, bottom, width, height = axes.get_position().bounds
        place = np.array([8 * left, 4 * (1 - bottom - height), 8 * width, 4 * height])
        wanted = [0.5 + 2.25 * column, 0.25 + 1.9 * row, 2, 1.5]
        np.testing.assert_allclose(place, wanted, atol=1e-12)


def test_nothing_is_cut_off_at_the_edge_of_a_published_picture():
    """Layouts are given, so Matplotlib makes no room for words that are longer than thought."""
    for path in (RESULTS / "mnist-0-1" / "figures").rglob("*.png"):
        picture = imread(path)
        edges = picture[0], picture[-1], picture[:, 0], picture[:, -1]
        assert all((edge == 1).all() for edge in edges), path
