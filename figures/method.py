"""The pictures that explain the method: one function per figure of the article.

Each returns a Figure. Those that show trained models take the models of a group (see plots.py).
Where the article's own drawing is wrong, the docstring says what is changed.
"""

from common.runs import Missing, Model

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from exact import hinge

GREEN, DARK, PALE, GREY = "#2a9d5c", "#0b5d33", "#cfe8d6", "#777777"


def representative(models: list[Model], robust: bool) -> Model:
    """The regular model, or the robust one with the radius closest to the article's 0.2."""
    chosen = [model for model in models if model.run.settings.robust == robust]
    if not chosen:
        command = "python train.py --robust --eps 0.2" if robust else "python train.py"
        raise Missing(f"a {'robust' if robust else 'regular'} run is needed: run {command}")
    return min(chosen, key=lambda model: abs(model.run.settings.eps - 0.2 * robust))


def _needs_hinge(model) -> None:
    settings = model.run.settings
    if (settings.loss, settings.norm, settings.box) != ("hinge", "inf", False):
        raise Missing(f"{model.run.name} was not trained with the hinge in the plain L∞ ball")


def hinge_loss() -> Figure:
    """The hinge over the margin y f(x)."""
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    m = np.linspace(-2, 3, 501)
    axes.plot(m, hinge(m), color="black")
    axes.plot(1, 0, "o", color=GREEN)
    axes.annotate("knee at 1", (1, 0), (1.15, 0.45), color=DARK)
    axes.axvline(0, color=GREY, lw=1, ls=":")
    axes.text(-0.08, 2.6, "wrong", ha="right", color=GREY)
    axes.text(0.08, 2.6, "correct", color=GREY)
    axes.set(xlabel=r"margin $y\hat y$", ylabel="loss", title=r"Hinge loss $\max(0, 1 - y\hat y)$")
    return figure


def hinge_margin() -> Figure:
    """The hinges of both classes over the logit, and the soft margin between -1 and 1."""
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    f = np.linspace(-3, 3, 601)
    axes.axvspan(-1, 1, color=PALE, lw=0)
    axes.plot(f, hinge(f), color="black", label="$y = +1$")
    axes.plot(f, hinge(-f), color=GREEN, ls="--", label="$y = -1$")
    axes.text(0, 3.6, "soft margin", ha="center", color=DARK)
    axes.set(xlabel=r"logit $\hat y$", ylabel="loss", title="The two hinges and the soft margin")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.1))
    return figure


def landscape_complex() -> Figure:
    """The hinge over one input of a small non-linear network, at y = +1: irregular.

    The network is real but untrained: 8 inputs, two hidden layers of 64 sines, a fixed seed.
    """
    rng = np.random.default_rng(4)
    inputs = np.repeat(rng.uniform(0, 1, (1, 8)), 1001, axis=0)
    inputs[:, 0] = np.linspace(0, 1, 1001)
    hidden = inputs
    for scale in (3.0, 2.0):
        weights = rng.normal(0, scale / np.sqrt(hidden.shape[1]), (hidden.shape[1], 64))
        hidden = np.sin(hidden @ (3 * weights) + rng.uniform(-np.pi, np.pi, 64))
    logits = hidden @ rng.normal(0, 2 / np.sqrt(64), 64)
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    axes.plot(inputs[:, 0], hinge(logits), color="black")
    axes.set(
        xlabel="one of 8 inputs, $x_i$",
        ylabel="loss",
        title="The hinge of a random network of 2 × 64 sines",
        ylim=(0, None),
    )
    return figure


def landscape_simple(models: list) -> Figure:
    """The same for the regular linear model: a straight line of slope -y w_i, up to the knee.

    The test sample nearest to the boundary among the misclassified, over its heaviest pixel.
    """
    model = representative(models, robust=False)
    _needs_hinge(model)
    nearest = model.attack.nearest
    if not len(nearest["index"]):
        raise Missing("no sample is misclassified at any radius")
    sample, y = int(nearest["index"][0]), int(nearest["label"][0])
    pixel = int(np.argmax(np.abs(model.run.w)))
    slope = -y * model.run.w[pixel]
    value = np.linspace(0, 1, 201)
    here = model.attack.image(sample).ravel()[pixel]
    margin = y * model.attack.samples["logits"][sample]
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    axes.plot(value, hinge(margin - slope * (value - here)), color="black")
    axes.plot(here, hinge(margin), "o", color=GREEN)
    axes.annotate(
        "its value", (here, hinge(margin)), (8, -16), textcoords="offset points", color=DARK
    )
    row, column = divmod(pixel, model.run.config["image_shape"][1])
    axes.set(
        xlabel=f"one input $x_i$: row {row}, column {column} of test image {sample}, $y = {y:+d}$",
        ylabel="loss",
        title=f"The linear model: a straight line, slope $-y w_i = {slope:+.2f}$",
        xlim=(-0.05, 1.05),
        ylim=(0, 1.2 * hinge(margin - slope * (value - here)).max()),
    )
    return figure


def perturbation_boxes() -> Figure:
    """Points in three dimensions, each with its L-infinity ball: a box of side 2 eps."""
    figure = Figure(figsize=(6, 4.4))
    axes = figure.add_subplot(projection="3d")
    axes.computed_zorder = False
    eps = 0.11
    points = [
        (0.2, 0.8, 0.7),
        (0.75, 0.85, 0.3),
        (0.15, 0.2, 0.35),
        (0.5, 0.4, 0.8),
        (0.8, 0.2, 0.45),
    ]
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    faces = [np.insert(square, k, side, axis=1) for k in range(3) for side in (-1, 1)]
    for z, point in enumerate(np.array(points)):  # far ones first
        box = Poly3DCollection([point + eps * face for face in faces], zorder=2 * z)
        box.set(facecolor=GREEN, edgecolor=DARK, alpha=0.18, linewidth=0.8)
        axes.add_collection3d(box)
        axes.plot(*point[:, None], "o", color="black", ms=5, zorder=2 * z + 1)
    axes.set(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1), xlabel="$x_1$", ylabel="$x_2$", zlabel="$x_3$")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticks([0.5, 1])
        axis.set_pane_color("white")
    axes.set_box_aspect(None, zoom=0.9)
    axes.set_title(r"Allowed perturbations: a box of side $2\epsilon$ around each point")
    return figure


def hinge_robust(models: list) -> Figure:
    """The hinge and the robust hinge, for both classes, with the trained model's numbers.

    The knee moves outward, from margin 1 to 1 + eps ||w||_1: the robust loss is stricter. The
    article draws the shift inward.
    """
    model = representative(models, robust=True)
    _needs_hinge(model)
    run = model.run
    shift = run.settings.eps * np.abs(run.w).sum()
    figure = Figure(figsize=(8, 3.6))
    f = np.linspace(-1.6 - shift, 1.6 + shift, 801)
    for axes, y in zip(figure.subplots(1, 2, sharey=True), (1, -1), strict=True):
        axes.plot(f, hinge(y * f), color="black", label="hinge")
        axes.plot(f, hinge(y * f - shift), color=GREEN, ls="--", label="robust hinge")
        axes.plot([y], [0], "o", color="black")
        axes.plot([y * (1 + shift)], [0], "o", color=GREEN)
        height = -0.1 * (1 + shift)
        axes.annotate(
            "",
            (y * (1 + shift), height),
            (y, height),
            arrowprops=dict(arrowstyle="->", color=DARK, shrinkA=0, shrinkB=0),
        )
        middle = y * (1 + shift / 2)
        label = rf"$\epsilon\Vert w\Vert_1$ = {shift:.2f}"
        axes.text(middle, 1.4 * height, label, ha="center", va="top", color=DARK)
        axes.set(xlabel=r"logit $\hat y$", title=f"$y = {y:+d}$", ylim=(3.2 * height, None))
        axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 0])
    axes.legend(loc="upper left")
    figure.axes[0].set_ylabel("loss")
    figure.suptitle(
        rf"The knee moves outward, from margin 1 to $1 + \epsilon\Vert w\Vert_1$ = {1 + shift:.2f} "
        f"({run.name})",
        fontsize=11,
    )
    return figure


def _least_at(weight: float) -> str:
    return f"least at about {weight:+.2f}" if weight else "least at exactly 0"


def landscape_robust(models: list) -> Figure:
    """Mean training loss over one weight, others as trained: what eps does to the gradient.

    On the weak pixel the robust loss is least at exactly w_i = 0; the plain hinge is not.
    """
    model = representative(models, robust=True)
    table = model.attack.landscape
    if table is None:
        raise Missing(f"{model.run.name} has no landscape: it needs a hinge run in the L∞ ball")
    figure = Figure(figsize=(8, 5.2))
    panels = figure.subplots(2, 2, sharex=True)
    losses = (("hinge", "hinge", "black", "-"), ("robust_hinge", "robust hinge", GREEN, "--"))
    for column, pixel in zip(panels.T, ("strong", "weak"), strict=True):
        rows = table["pixel"] == pixel
        if not rows.any():
            raise Missing(f"{model.run.name} drops no pixel")
        weight, index = table["weight"][rows], int(table["index"][rows][0])
        place = divmod(index, model.run.config["image_shape"][1])
        column[0].set_title(f"a {pixel} pixel: row {place[0]}, column {place[1]}")
        column[1].set_xlabel("its weight $w_i$")
        for axes, (name, label, shade, style) in zip(column, losses, strict=True):
            loss = table[name][rows]
            best = np.argmin(loss)
            axes.plot(weight, loss, color=shade, ls=style)
            axes.axvline(0, color=GREY, lw=1, ls=":")
            axes.plot(weight[best], loss[best], "o", color=shade, label=_least_at(weight[best]))
            trained = model.run.w[index]
            axes.plot(
                trained,
                np.interp(trained, weight, loss),
                "d",
                color="white",
                mec=shade,
                label=f"trained: {trained:+.2f}" if abs(trained) >= 0.005 else "trained: about 0",
            )
            axes.set(ylim=(0, None), ylabel=f"mean {label}" if pixel == "strong" else "")
            axes.legend(loc="upper center", fontsize=9, frameon=True, edgecolor="none")
    figure.suptitle(
        f"The mean loss over one weight, others as trained ({model.run.name})", fontsize=11
    )
    return figure
