"""The pictures that explain the method: one function per figure of the article.

Each returns a Figure. Those that show trained models take the models of a group (see plots.py).
A docstring is the caption: what it is, what to see (one sentence of at most 25 words), and the
numbers behind it. Where the article's own drawing is wrong, it says what is changed.
"""

from lab.store import Missing

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from figures import layout, style
from figures.style import NOTE
from runs import Model
from worst_case import hinge

LARGEST = 2.5  # losses above are cut off in landscape_robust


def representative(models: list[Model], robust: bool) -> Model:
    """The regular model, or the robust one with the radius closest to the article's 0.2."""
    chosen = [model for model in models if model.run.settings.robust == robust]
    if not chosen:
        command = "python train.py --robust --eps 0.2" if robust else "python train.py"
        raise Missing(f"a {'robust' if robust else 'regular'} run is needed: run {command}")
    return min(chosen, key=lambda model: abs(model.run.settings.eps - 0.2 * robust))


def trained_by(models: list[Model]) -> str:
    """What a title says of how the models of a group were trained."""
    return models[0].run.settings.variant or "article's recipe"


def signed(number: float) -> str:
    """A number with two decimals and its sign, the minus as Matplotlib writes it."""
    return f"{number:+.2f}".replace("-", "−")


def _needs_hinge(model) -> None:
    if not model.run.settings.plain_hinge:
        raise Missing(f"{model.run.name} was not trained with the hinge in the plain L∞ ball")


def hinge_loss() -> Figure:
    """The hinge loss over the margin y f(x).

    A misclassified image has a loss of at least 1; the loss is 0 from a margin of 1 on.

    Numbers: computed in the function.
    """
    figure = Figure(figsize=(8, 3.6))
    axes = figure.subplots()
    m = np.linspace(-2, 3, 501)
    axes.plot(m, hinge(m), color="black")
    axes.plot(1, 0, "o", color="black")
    axes.annotate("kink at 1", (1, 0), (1.15, 0.3), color=NOTE)
    axes.axvline(0, color=NOTE, lw=0.8)
    axes.text(-0.08, 2.6, "wrong", ha="right", color=NOTE)
    axes.text(0.08, 2.6, "correct", color=NOTE)
    axes.set(xlabel="margin y f(x)", ylabel="loss", title="Hinge loss max(0, 1 − y f(x))")
    return figure


def hinge_margin() -> Figure:
    """The hinges of both classes over the logit, and the soft margin between −1 and 1.

    Between the logits −1 and 1 even a right answer has a loss above 0.

    Numbers: computed in the function.
    """
    figure = Figure(figsize=(8, 3.6))
    axes = figure.subplots()
    f = np.linspace(-3, 3, 601)
    axes.axvspan(-1, 1, color="#eeeeee", lw=0)
    for y in (1, -1):
        axes.plot(f, hinge(y * f), color="black")
        axes.text(-2 * y, 3.3, f"y = {y:+d}".replace("-", "−"), ha="left" if y > 0 else "right")
    axes.text(0, 3.6, "soft margin", ha="center", color=NOTE)
    axes.set(xlabel="logit f(x)", ylabel="loss", title="The two hinges and the soft margin")
    return figure


def landscape_complex() -> Figure:
    """The hinge loss over one input of a small non-linear network.

    Such a loss has hills and valleys, so its largest value near an input is hard to find.

    The network is real but untrained: 8 inputs, two hidden layers of 64 sines, a fixed seed.

    Numbers: computed in the function.
    """
    rng = np.random.default_rng(4)
    inputs = np.repeat(rng.uniform(0, 1, (1, 8)), 1001, axis=0)
    inputs[:, 0] = np.linspace(0, 1, 1001)
    hidden = inputs
    for scale in (3.0, 2.0):
        weights = rng.normal(0, scale / np.sqrt(hidden.shape[1]), (hidden.shape[1], 64))
        hidden = np.sin(hidden @ (3 * weights) + rng.uniform(-np.pi, np.pi, 64))
    logits = hidden @ rng.normal(0, 2 / np.sqrt(64), 64)
    figure = Figure(figsize=(8, 3.6))
    axes = figure.subplots()
    axes.plot(inputs[:, 0], hinge(logits), color="black")
    axes.set(
        xlabel="one of 8 inputs, xᵢ",
        ylabel="loss",
        title="Hinge loss of a random network (two layers of 64 sines)",
        ylim=(-0.05, None),
    )
    return figure


def landscape_simple(models: list[Model]) -> Figure:
    """The hinge loss of the regular linear model over single pixels of a misclassified image.

    Each pixel changes the loss along a straight line, so the loss is largest at an end.

    The image is the one nearest to the boundary; the pixels are those of the largest and of the
    smallest weight, and one whose weight is halfway in between. The loss of a linear model is
    convex in each pixel: a line of slope −y w, and 0 where the margin is above 1.

    Numbers: `illustrations/*.npz`, `attacks/linf/*.npz`, `runs/*.npz`.
    """
    model = representative(models, robust=False)
    _needs_hinge(model)
    stored, w = model.illustrated(), model.run.w
    nearest = stored.nearest
    if not len(nearest["index"]):
        raise Missing("no sample is misclassified at any radius")
    sample, y = int(nearest["index"][0]), int(nearest["label"][0])
    margin, image = y * model.attack.logits[sample], stored.image(sample).ravel()
    digit = model.run.facts["digits"][int(y > 0)]
    value, width = np.linspace(0, 1, 201), model.run.facts["image_shape"][1]
    figure = Figure(figsize=(8, 3.6))
    (axes,) = layout.panels(figure, 1, 1, left=0.7, top=0.35, width=4.6, height=2.7).flat
    halfway = np.argmin(np.abs(w - (w.max() + w.min()) / 2))
    dashes = (style.SOLID, style.DASHED, style.DOTTED)
    for pixel, dash in zip((np.argmax(w), np.argmin(w), halfway), dashes, strict=True):
        row, column = divmod(int(pixel), width)
        loss = hinge(margin + y * w[pixel] * (value - image[pixel]))
        label = f"w = {signed(w[pixel])} (row {row}, column {column})"
        axes.plot(value, loss, color="black", ls=(0, dash) if dash else "-", label=label)
        axes.plot(image[pixel], hinge(margin), "o", color="black")
    axes.plot([], [], "o", color="black", label="value in the image")
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    axes.set(
        xlabel=f"value of one pixel of test image {sample}, others as they are",
        ylabel="loss",
        title=f"Loss of the regular linear model for a digit {digit} (y = {'+−'[y < 0]}1): "
        f"lines of slope {'−' * (y > 0)}w",
        xlim=(-0.02, 1.02),
    )
    return figure


def perturbation_boxes() -> Figure:
    """Five points in three dimensions, each with its L∞ ball.

    In three dimensions the L∞ ball of radius ε is a cube whose sides are 2ε long.

    The attacker may choose any perturbation within the ball.

    Numbers: computed in the function.
    """
    figure = Figure(figsize=(8, 4.2))
    axes = figure.add_axes((0.05, 0.05, 0.9, 0.9), projection="3d")
    axes.computed_zorder = False
    eps = 0.11
    points = [
        (0.2, 0.8, 0.7),
        (0.75, 0.85, 0.3),
        (0.15, 0.2, 0.35),
        (0.6, 0.3, 0.85),
        (0.8, 0.2, 0.45),
    ]
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    faces = [np.insert(square, k, side, axis=1) for k in range(3) for side in (-1, 1)]
    for z, point in enumerate(np.array(points)):  # far ones first
        ball = Poly3DCollection([point + eps * face for face in faces], zorder=2 * z)
        ball.set(facecolor=NOTE, edgecolor="black", alpha=0.15, linewidth=0.8)
        axes.add_collection3d(ball)
        axes.plot(*point[:, None], "o", color="black", ms=5, zorder=2 * z + 1)
    x, y, z = np.array(points[-1]) - eps  # a lower edge of the cube in front
    axes.plot([x, x + 2 * eps], [y, y], [z, z], color="black", zorder=2 * len(points))
    axes.text(x + eps, y, z - 0.09, "2ε", ha="center")
    axes.set_box_aspect((1, 1, 1), zoom=0.95)  # cubes look like cubes
    axes.set(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1), xlabel="x₁", ylabel="x₂", zlabel="x₃")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticks([0.5, 1])
        axis.set_pane_color("white")
    layout.headline(figure, "The L∞ ball of allowed perturbations: a cube of side 2ε")
    return figure


def hinge_robust(models: list[Model]) -> Figure:
    """The hinge and the robust hinge over the logit, for both classes, with a model's numbers.

    The robust hinge is the hinge shifted by ε‖w‖₁ towards larger margins.

    The article draws the shift inward.

    Numbers: `runs/*.npz`.
    """
    model = representative(models, robust=True)
    _needs_hinge(model)
    run, look = model.run, style.line(model.run.settings)
    shift = run.settings.eps * np.abs(run.w).sum()
    height = -0.1 * (1 + shift)
    figure = Figure(figsize=(8, 3.8))
    place = dict(left=0.6, top=0.7, width=3.5, height=2.55)
    (panels,) = layout.panels(figure, 1, 2, gap=(0.25, 0), sharey=True, **place)
    f = np.linspace(-1.6 - shift, 1.6 + shift, 801)
    for axes, y, digit in zip(panels, (1, -1), reversed(run.facts["digits"]), strict=True):
        axes.plot(f, hinge(y * f), color="black", label="hinge")
        axes.plot(f, hinge(y * f - shift), **look, label="robust hinge")
        axes.plot([y], [0], "o", color="black")
        axes.plot([y * (1 + shift)], [0], "o", color=look["color"])
        arrow = dict(arrowstyle="->", color=NOTE, shrinkA=0, shrinkB=0)
        axes.annotate("", (y * (1 + shift), height), (y, height), arrowprops=arrow)
        middle = y * (1 + shift / 2)
        label = f"ε‖w‖₁ = {shift:.2f}"
        axes.text(middle, 1.4 * height, label, ha="center", va="top")
        axes.set(xlabel="logit f(x)", title=f"digit {digit}: y = {y:+d}".replace("-", "−"))
    axes.set_ylim(3.2 * height, None)
    axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 0])
    axes.legend(loc="upper left")
    panels[0].set_ylabel("loss")
    layout.headline(
        figure,
        f"The kink moves outward, from margin 1 to 1 + ε‖w‖₁ = {1 + shift:.2f} "
        f"({model.label}, {trained_by(models)})",
    )
    return figure


def least(loss: np.ndarray) -> int | None:
    """Where a convex loss is least, its slope 0; None if that may lie beyond the window."""
    best = int(np.argmin(loss))
    return best if loss[best] < min(loss[0], loss[-1]) else None


def slopes(weight: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slopes between weights, in the middle of each two; at 0, those of both sides."""
    steep, zero = np.diff(loss) / np.diff(weight), np.flatnonzero(weight == 0)[0]
    middle = (weight[1:] + weight[:-1]) / 2
    return np.insert(middle, zero, [0, 0]), np.insert(steep, zero, steep[zero - 1 : zero + 1])


def landscape_robust(models: list[Model]) -> Figure:
    """The mean training loss over a single weight, for a strong and a weak pixel, and its slope.

    At weight 0 the slope of the robust hinge jumps; on the weak pixel it jumps past 0, so training
    keeps the weight at 0.

    Both losses are divided by their own values at weight 0, as the robust one is much larger. Large
    values are cut off, and weights where the robust loss is far beyond.

    Numbers: `illustrations/*.npz`, `runs/*.npz`.
    """
    model = representative(models, robust=True)
    table = model.illustrated().landscape
    if not table:
        raise Missing(f"{model.run.name} has no landscape: it needs a hinge run in the L∞ ball")
    figure = Figure(figsize=(8, 6.2))
    place = dict(left=0.75, top=1.45, width=3.4, height=1.95)
    panels = layout.panels(figure, 2, 2, gap=(0.4, 0.25), sharex="col", **place)
    for column, pixel in zip(panels.T, ("strong", "weak"), strict=True):
        rows = table["pixel"] == pixel
        if not rows.any():
            raise Missing(f"{model.run.name} drops no pixel")
        _draw_landscape(*column, {name: values[rows] for name, values in table.items()}, model)
    panels[0, 0].set_ylabel("mean loss,\nrelative to weight 0")
    panels[1, 0].set_ylabel("slope of the line above")
    head = f"The mean training loss over one weight, others as trained ({model.label}"
    layout.headline(figure, f"{head}, {trained_by(models)})")
    return figure


def _draw_landscape(loss, slope, table: dict[str, np.ndarray], model: Model) -> None:
    """Both losses of one pixel and their slopes, in two panels with the same weights."""
    weight, index = table["weight"], int(table["index"][0])
    zero = np.flatnonzero(weight == 0)[0]
    robust = table["robust_hinge"] / table["robust_hinge"][zero]
    half = min(weight[-1], 2 * np.abs(weight[robust > LARGEST]).min(initial=np.inf))
    looks = {"hinge": dict(color="black"), "robust_hinge": style.line(model.run.settings)}
    for name, look in looks.items():
        height = table[name] / table[name][zero]
        label, best = f"{name.replace('_', ' ')}: ", least(height)
        if best is None:
            label += "falls up to the last weight"
        else:
            label += (
                f"least at about {signed(weight[best])}" if weight[best] else "least at exactly 0"
            )
            label += " (not shown)" * bool(abs(weight[best]) > half)
            loss.plot(weight[best], height[best], "s", color=look["color"], mfc="none", ms=11)
        loss.plot(weight, height, **look, label=label)
        slope.plot(*slopes(weight, height), **look)
    jump = np.abs(np.diff(robust) / np.diff(weight))[zero - 1 : zero + 1].max()
    trained = model.run.w[index]
    for axes in (loss, slope):
        axes.axvline(0, color=NOTE, lw=0.8)
        axes.axvline(trained, color=NOTE, ls=":", lw=1.4)
    slope.axhline(0, color=NOTE, lw=0.8)
    about = signed(trained) if abs(trained) >= 0.005 else "about 0"
    loss.plot([], [], color=NOTE, ls=":", lw=1.4, label=f"trained weight: {about}")
    loss.plot([], [], "s", color=NOTE, mfc="none", ms=9, label="minimum")
    row, column = divmod(index, model.run.facts["image_shape"][1])
    title = f"a {table['pixel'][0]} pixel: row {row}, column {column}"
    look = dict(title=title, title_fontsize=11, alignment="left", borderaxespad=0)
    loss.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.01), **look)
    loss.set(xlim=(-1.05 * half, 1.05 * half), ylim=(-0.12, LARGEST))
    slope.locator_params(axis="x", nbins=6)
    slope.set(xlabel="its weight", ylim=(-2.5 * jump, 2.5 * jump))
