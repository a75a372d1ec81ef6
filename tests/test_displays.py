"""advlinear/displays.py: what is drawn is what the attack and the path say, at every radius.

Matplotlib draws into memory (Agg): no window opens.
"""

import subprocess
import sys
import warnings

from lab.cli import ROOT

import matplotlib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler

import advlinear
from advlinear import PathDisplay, RobustnessDisplay

matplotlib.use("Agg")

from matplotlib import pyplot

RNG = np.random.default_rng(0)
W, B = np.array([1.0, -2.0, 0.5]), 0.3
X = RNG.normal(size=(41, 3))
Y = np.where(X @ W + B + RNG.normal(0, 1, 41) > 0, 1, -1)  # some are wrong already


@pytest.fixture(autouse=True)
def _no_figures_stay_open():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def found():
    return advlinear.attack((W, B), X, Y)


@pytest.fixture(scope="module")
def boxed():
    """In this box, of a side per sample, radii above .3 are infinite."""
    return advlinear.attack((W, B), X, Y, box=(X - 0.3, X + 0.3))


@pytest.fixture(scope="module")
def samples():
    x = MinMaxScaler().fit_transform(RNG.normal(size=(60, 5)))
    return x, (x @ [3, -2, 1, 0, 0] + RNG.normal(0, 0.5, 60) > 1).astype(int)


@pytest.fixture(scope="module")
def path(samples):
    return advlinear.path(*samples, 0.0, 0.5)


def draw(display) -> None:
    """Let Matplotlib draw all that is shown, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display.figure_.canvas.draw()


def heights(line, eps):
    """The height of a curve that keeps the height of each point up to the next."""
    assert line.get_drawstyle() == "steps-post"
    x, y = line.get_data()
    assert (np.diff(x) > 0).all()
    return y[np.searchsorted(x, eps, side="right") - 1]


def marked(line):
    return [(line.get_xdata()[k], line.get_ydata()[k]) for k in line.get_markevery()]


# --- accuracy over the radius --------------------------------------------------------------------


def test_the_curve_is_the_accuracy_of_the_model_under_the_worst_perturbation(found):
    """Counted anew from the worst-case margins y (w.x + b) - eps ||w||_1."""
    display = RobustnessDisplay.from_found(found)
    eps = RNG.uniform(0, 1.05 * found.radii.max(), 500)
    worst = Y * (X @ W + B) - eps[:, None] * np.abs(W).sum()
    np.testing.assert_array_equal(heights(display.line_, eps), (worst > 0).mean(axis=1))
    draw(display)


@pytest.mark.parametrize("name", ["found", "boxed"])
def test_the_curve_falls_at_each_radius_and_nowhere_else(name, request):
    found = request.getfixturevalue(name)
    line = RobustnessDisplay.from_found(found).line_
    steps = np.unique(found.radii[(found.radii > 0) & np.isfinite(found.radii)])
    for eps in (steps, np.nextafter(steps, 0), np.nextafter(steps, 9)):
        np.testing.assert_array_equal(heights(line, eps), found.curve(eps))
    assert (heights(line, np.nextafter(steps, 0)) > heights(line, steps)).all()
    x, y = line.get_data()
    np.testing.assert_array_equal(x[1:][np.diff(y) < 0], steps)


def test_the_ends_are_honest(found, boxed):
    """Wrong samples are missing at 0, samples that nothing flips are there at the end."""
    for one in (found, boxed):
        display = RobustnessDisplay.from_found(one)
        x, y = display.line_.get_data()
        assert (x[0], y[0]) == (0, np.mean(one.radii > 0))
        assert y[-1] == np.mean(np.isinf(one.radii))
        assert x[-1] == pytest.approx(1.05 * one.radii[np.isfinite(one.radii)].max())
        assert display.ax_.get_xlim() == (0, x[-1])
    assert (found.radii == 0).any()
    assert np.isinf(boxed.radii).any()


def test_the_median_of_the_radii_is_marked_on_the_curve(found):
    for rows in (slice(None), slice(1, None)):  # an odd and an even number of samples
        part = advlinear.attack((W, B), X[rows], Y[rows])
        display = RobustnessDisplay.from_found(part)
        median = np.median(part.radii)
        assert display.median == median
        assert marked(display.line_) == [(median, part.curve(median))]
        assert display.line_.get_marker() == "o"
        assert display.line_.get_label() == f"median radius {median:.3g}"


@pytest.mark.parametrize(
    ("y", "start", "median"), [([1, 1], 1, "∞"), ([-1, -1], 0, "0"), ([1, -1], 0.5, "∞")]
)
def test_where_nothing_flips_or_all_are_wrong_the_curve_is_flat(y, start, median):
    found = advlinear.attack(([1.0], 9.0), [[0.0], [1.0]], y, box=(0, 1))
    display = RobustnessDisplay.from_found(found)
    assert display.line_.get_data()[0].tolist() == [0, 1]
    assert display.line_.get_data()[1].tolist() == [start, start]
    assert display.line_.get_label() == f"median radius {median}"
    assert marked(display.line_) == ([(0, 0)] if median == "0" else [])
    draw(display)


def test_several_models_in_one_ax_go_on_to_one_end(found, boxed):
    """Also those that were drawn before one that goes further; a curve taken out is forgotten."""
    fixed = RobustnessDisplay.from_found(boxed, name="box")
    own = fixed.line_.get_xdata()[-1]
    further = RobustnessDisplay.from_found(found, name="no box", ax=fixed.ax_)
    end = 1.05 * max(found.radii.max(), boxed.radii[np.isfinite(boxed.radii)].max())
    for display, one in ((fixed, boxed), (further, found)):
        eps = np.linspace(0, end, 300)
        np.testing.assert_array_equal(heights(display.line_, eps), one.curve(eps))
        assert display.line_.get_xdata()[-1] == pytest.approx(end)
    assert fixed.ax_.get_xlim() == pytest.approx((0, end))
    texts = [text.get_text() for text in fixed.ax_.get_legend().get_texts()]
    assert [text.partition(" (")[0] for text in texts] == ["box", "no box"]
    fixed.ax_.cla()
    again = RobustnessDisplay.from_found(boxed, ax=fixed.ax_)
    assert again.ax_.get_xlim() == (0, own)
    draw(again)


def test_an_ax_that_is_given_is_used_and_its_figure_alone(found):
    figure, (_, ax) = pyplot.subplots(1, 2)
    display = RobustnessDisplay(found).plot(ax)
    assert (display.ax_, display.figure_) == (ax, figure)
    assert ax.lines[0] is display.line_
    assert len(pyplot.get_fignums()) == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "radius ε of the attack (L∞ ball)",
        "accuracy under attack",
    )
    RobustnessDisplay(found).plot()
    assert len(pyplot.get_fignums()) == 2


def test_what_matplotlib_takes_of_a_line_is_passed_on(found):
    display = RobustnessDisplay.from_found(found, name="first", color="red", linestyle="--")
    assert (display.line_.get_color(), display.line_.get_linestyle()) == ("red", "--")
    assert display.line_.get_label().startswith("first (median radius ")
    assert display.plot(name="other").line_.get_label().startswith("other (median radius ")
    assert display.plot(label="mine", marker="").line_.get_label() == "mine"


def test_an_estimator_is_attacked_as_told():
    model = LogisticRegression().fit(X, Y)
    how = dict(norm="2", box=(-4, 4), scale=[1, 0.5, 2])
    display = RobustnessDisplay.from_estimator(model, X, Y, **how, n_jobs=1, color="green")
    found = advlinear.attack(model, X, Y, **how)
    np.testing.assert_array_equal(display.found.radii, found.radii)
    assert (found.radii != advlinear.attack(model, X, Y).radii).any()
    assert display.line_.get_color() == "green"
    assert display.ax_.get_xlabel() == "radius ε of the attack (L2 ball)"
    assert display.name == "LogisticRegression"
    given = RobustnessDisplay.from_estimator(model, X, Y, **how, name="mine", ax=display.ax_)
    assert given.line_.get_label().startswith("mine (")


def test_models_without_a_class_of_their_own_have_no_name():
    classes = (Y + 1) // 2
    for model in ((W, B), lambda points: points @ W + B):
        assert RobustnessDisplay.from_estimator(model, X, classes).name is None
    best = advlinear.minimise(X, Y, 0.1)
    assert RobustnessDisplay.from_estimator(best, X, Y).name == "Minimum"


def test_curves_of_another_norm_or_with_a_target_are_refused_in_one_ax(found):
    ax = RobustnessDisplay.from_found(found).ax_
    with pytest.raises(
        ValueError,
        match=r"^ax shows radius ε of the attack \(L∞ ball\): draw radius ε of the attack \(L2",
    ):
        RobustnessDisplay.from_found(advlinear.attack((W, B), X, Y, norm=2), ax=ax)
    target = advlinear.attack((W, B), X, None, target=1)
    with pytest.raises(ValueError, match="accuracy under attack: draw share not taken for the"):
        RobustnessDisplay.from_found(target, ax=ax)
    assert len(ax.lines) == 1
    alone = RobustnessDisplay.from_found(target)
    assert alone.ax_.get_ylabel() == "share not taken for the target"


# --- a path --------------------------------------------------------------------------------------


def test_the_path_is_drawn_as_it_is_at_every_radius(path):
    """The minimum, the number of weights and each weight, against `Path.at`: also on both sides of
    each breakpoint, where the weights jump."""
    display = PathDisplay.from_path(path, coefficients=True)
    minimum, in_use, weights = display.axes_
    x = display.line_.get_xdata()
    assert (x[0], x[-1]) == (0, 0.5)
    assert {*path.radii} <= {*x}
    assert {*np.nextafter(path.radii, 0)} <= {*x}
    best = [path.at(eps) for eps in x]
    np.testing.assert_array_equal(display.line_.get_ydata(), [one.primal for one in best])
    counted = [np.count_nonzero(one.w) for one in best]
    np.testing.assert_array_equal(in_use.lines[0].get_ydata(), counted)
    drawn = {line.get_label(): line.get_ydata() for line in weights.lines}
    ever = np.flatnonzero(np.any([one.w for one in best], axis=0))
    assert drawn.keys() == {f"x{j}" for j in ever}
    for j in ever:
        wanted = [one.w[j] for one in best]
        np.testing.assert_allclose(drawn[f"x{j}"], wanted, rtol=1e-14)
    assert display.ax_ is minimum
    draw(display)


def test_the_band_is_between_both_bounds(samples):
    """With a tolerance that lets them differ by a third."""
    path = advlinear.path(*samples, 0.02, 0.5, tol=0.3)
    display = PathDisplay.from_path(path)
    assert len(display.axes_) == 2
    (band,) = display.ax_.collections
    x, y = np.array(band.get_paths()[0].vertices).T
    for eps in RNG.choice(display.line_.get_xdata(), 30):
        upper, lower = path.bounds(eps)
        assert y[x == eps].min() == pytest.approx(lower, rel=1e-12)
        assert y[x == eps].max() == pytest.approx(upper, rel=1e-12)
    assert path.gap > 0.1


def test_weights_have_the_names_of_the_columns(samples):
    pandas = pytest.importorskip("pandas")
    x, y = samples
    frame = pandas.DataFrame(x, columns=["one", "two", "three", "four", "five"])
    path = advlinear.path(frame, y, 0.05, 0.5)
    assert list(path.names) == list(frame.columns)
    display = PathDisplay.from_path(path, coefficients=True)
    first = display.axes_[2].lines[0].get_label()
    last = path.at(np.nextafter(path.radii[-1], 0))  # the last model with weights
    assert first in frame.columns[last.w != 0]
    named = PathDisplay(path, feature_names=list("abcde")).plot(coefficients=True)
    assert named.axes_[2].lines[0].get_label() == "abcde"[list(frame.columns).index(first)]
    with pytest.raises(ValueError, match="feature_names needs 5 names, not 2"):
        PathDisplay(path, feature_names=["a", "b"])


def test_the_ten_weights_that_stay_longest_have_names():
    x = RNG.uniform(size=(150, 14))
    path = advlinear.path(x, x.sum(1) + RNG.normal(0, 0.2, 150) > 7, 0.01, 0.3)
    display = PathDisplay.from_path(path, coefficients=True)
    lines = display.axes_[2].lines
    ends = [line.get_xdata()[np.flatnonzero(line.get_ydata())[-1]] for line in lines]
    assert len(lines) == 14
    assert ends == sorted(ends, reverse=True)
    assert [line.get_label()[0] for line in lines] == ["x"] * 10 + ["_"] * 4
    assert len({line.get_color() for line in lines}) == 11
    assert len(display.axes_[2].get_legend().get_texts()) == 10


def test_weights_that_grow_without_bound_do_not_hide_the_others(samples):
    """Of separable classes, from a radius just below their margin on."""
    x = np.array([[0.0, 0.2], [0.1, 0.9], [0.3, 0.1], [0.8, 0.5]])
    path = advlinear.path(x, [0, 0, 1, 1], 0.0, 0.4)
    display = PathDisplay.from_path(path, coefficients=True)
    weights = np.abs([line.get_ydata() for line in display.axes_[2].lines]).max(axis=0)
    limit = np.abs(display.axes_[2].get_ylim()).max()
    assert weights.max() > 10 * limit
    assert np.mean(weights < limit) > 0.8
    assert display.axes_[2].get_ylabel() == "weights (the largest are cut off)"
    usual = PathDisplay.from_path(advlinear.path(*samples, 0.1, 0.3), coefficients=True)
    assert usual.axes_[2].get_ylabel() == "weights"
    draw(display)


def test_one_ax_is_divided_and_takes_a_second_path_through_its_panels(path):
    figure, (left, right) = pyplot.subplots(1, 2)
    display = PathDisplay.from_path(path, ax=right, name="one", color="red")
    assert display.figure_ is figure
    assert {panel.figure for panel in display.axes_} == {figure}
    whole = right.get_position()
    for panel in display.axes_:
        assert panel.get_position().x0 == pytest.approx(whole.x0)
        assert whole.y0 - 1e-9 <= panel.get_position().y0 < panel.get_position().y1
        assert panel.get_position().y1 <= whole.y1 + 1e-9
    assert not left.lines
    with pytest.raises(ValueError, match=r"ax=display\.axes_ for a second path"):
        PathDisplay.from_path(path, ax=right)
    other = PathDisplay(path).plot(display.axes_, name="two")
    assert [len(panel.lines) for panel in other.axes_] == [2, 2]
    assert display.line_.get_color() == display.axes_[1].lines[0].get_color() == "red"
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["one", "two"]
    assert len(pyplot.get_fignums()) == 1
    draw(other)


def test_panels_that_do_not_fit_are_refused(path, samples):
    _, axes = pyplot.subplots(3)
    with pytest.raises(ValueError, match="ax needs one Axes, or 2: one per panel, not 3"):
        PathDisplay.from_path(path, ax=axes)
    with pytest.raises(ValueError, match="ax needs an Axes of a grid"):
        PathDisplay.from_path(path, ax=pyplot.figure().add_axes((0, 0, 1, 1)))
    PathDisplay.from_path(path, ax=axes, coefficients=True)
    other = advlinear.path(*samples, 0.1, 0.5, norm=2, tol=0.01)
    with pytest.raises(ValueError, match=r"draw radius ε of the attack \(L2 ball\) "):
        PathDisplay.from_path(other, ax=axes, coefficients=True)


def test_a_path_of_the_mean_budget_has_panels_of_its_own(path, samples):
    """The weights of a model are drawn as they are, and the axis says which budget it is."""
    mean = advlinear.path(*samples, 0.0, 0.5, budget="mean")
    display = PathDisplay.from_path(mean, coefficients=True)
    x, drawn = display.line_.get_xdata(), display.axes_[2].lines[0]
    j = int(drawn.get_label().removeprefix("x"))
    np.testing.assert_array_equal(drawn.get_ydata(), [mean.at(eps).w[j] for eps in x])
    assert display.axes_[-1].get_xlabel() == "mean budget ε of the attack (L∞ ball)"
    with pytest.raises(ValueError, match=r"shows mean budget ε .*: draw radius ε of the attack"):
        PathDisplay.from_path(path, ax=display.axes_, coefficients=True)
    draw(display)


def test_an_interval_of_one_radius_and_a_path_without_weights(samples):
    display = PathDisplay.from_path(advlinear.path(*samples, 0.1, 0.1), coefficients=True)
    assert display.line_.get_xdata().tolist() == [0.1]
    draw(display)
    none = PathDisplay.from_path(advlinear.path(*samples, 0.9, 1.0), coefficients=True)
    assert len(none.axes_[2].lines) == 0
    draw(none)


# --- without Matplotlib --------------------------------------------------------------------------

WITHOUT = """
import sys

import advlinear

found = advlinear.attack(([1.0], 0.5), [[1.0]], [1])
path = advlinear.path([[0], [1], [1], [2]], [0, 1, 0, 1], 0.1, 0.4)
displays = advlinear.RobustnessDisplay(found), advlinear.PathDisplay(path)
print("matplotlib" in sys.modules)
sys.modules["matplotlib"] = None  # as if it were not installed
model = None  # would be refused, if it were looked at
for draw in (
    displays[0].plot,
    displays[1].plot,
    lambda: advlinear.RobustnessDisplay.from_estimator(model, [[1.0]], [1]),
    lambda: advlinear.PathDisplay.from_path(path),
):
    try:
        draw()
    except ImportError as error:
        print(error.name, error)
"""


def test_matplotlib_is_imported_when_drawing_alone_and_told_where_it_is_missing():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    needed = "matplotlib advlinear.{} draws with Matplotlib: type pip install matplotlib"
    names = ["RobustnessDisplay", "PathDisplay"] * 2
    assert done.stdout.splitlines() == ["False", *map(needed.format, names)]


def test_a_display_of_something_else_is_refused():
    best = advlinear.minimise([[0.0], [1.0]], [0, 1], 0.1)
    line = "a display needs what advlinear.{} returns, not {}$"
    with pytest.raises(ValueError, match=line.format("path", "Minimum")):
        advlinear.PathDisplay.from_path(best)
    with pytest.raises(ValueError, match=line.format("attack", "Minimum")):
        advlinear.RobustnessDisplay.from_found(best)
