"""The pictures that explain the method: one function per figure of the article.

Each returns a Figure. Those that show trained models take the models of a group (see plots.py).
A docstring is the caption: what it is, what to see, and the numbers behind it. Where the article's
own drawing is wrong, it says what is changed.
"""

from lab.store import Missing

import numpy as np
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from figures import style
from figures.style import NOTE
from runs import Model
from worst_case import hinge


def representative(models: list[Model], robust: bool) -> Model:
    """The regular model, or the robust one with the radius closest to the article's 0.2."""
    chosen = [model for model in models if model.run.settings.robust == robust]
    if not chosen:
        command = "python train.py --robust --eps 0.2" if robust else "python train.py"
        raise Missing(f"a {'robust' if robust else 'regular'} run is needed: run {command}")
    return min(chosen, key=lambda model: abs(model.run.settings.eps - 0.2 * robust))


def signed(number: float) -> str:
    """A number with two decimals and its sign, the minus as Matplotlib writes it."""
    return f"{number:+.2f}".replace("-", "−")


def _needs_hinge(model) -> None:
    if not model.run.settings.plain_hinge:
        raise Missing(f"{model.run.name} was not trained with the hinge in the plain L∞ ball")


def _guide(axes, x: float) -> None:
    """A thin vertical guide line."""
    axes.axvline(x, color=NOTE, lw=0.8)


def hinge_loss() -> Figure:
    """The hinge loss over the margin y f(x).

    A misclassified image has a loss of at least 1; the loss is 0 once the margin is at least 1.

    Numbers: computed in the function.
    """
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    m = np.linspace(-2, 3, 501)
    axes.plot(m, hinge(m), color="black")
    axes.plot(1, 0, "o", color="black")
    axes.annotate("kink at 1", (1, 0), (1.15, 0.3), color=NOTE)
    _guide(axes, 0)
    axes.text(-0.08, 2.6, "wrong", ha="right", color=NOTE)
    axes.text(0.08, 2.6, "correct", color=NOTE)
    axes.set(xlabel=r"margin $y\hat y$", ylabel="loss", title=r"Hinge loss $\max(0, 1 - y\hat y)$")
    return figure


def hinge_margin() -> Figure:
    """The hinges of both classes over the logit, and the soft margin between −1 and 1.

    Between the logits −1 and 1 the loss is positive for both classes, even where the answer is
    right.

    Numbers: computed in the function.
    """
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    f = np.linspace(-3, 3, 601)
    axes.axvspan(-1, 1, color="#eeeeee", lw=0)
    for y in (1, -1):
        axes.plot(f, hinge(y * f), color="black")
        axes.text(-2 * y, 3.3, f"$y = {y:+d}$", ha="left" if y > 0 else "right")
    axes.text(0, 3.6, "soft margin", ha="center", color=NOTE)
    axes.set(xlabel=r"logit $\hat y$", ylabel="loss", title="The two hinges and the soft margin")
    return figure


def landscape_complex() -> Figure:
    """The hinge loss over one input of a small non-linear network.

    Such a loss has many hills and valleys, so its largest value near an input is hard to find.

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
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    axes.plot(inputs[:, 0], hinge(logits), color="black")
    axes.set(
        xlabel="one of 8 inputs, $x_i$",
        ylabel="loss",
        title="Hinge loss of a random network (two layers of 64 sines)",
        ylim=(-0.05, None),
    )
    return figure


def landscape_simple(models: list) -> Figure:
    """The hinge loss of the regular linear model over one pixel of a misclassified image.

    The loss is convex in each pixel, so it is largest at an end of the pixel's range.

    The image is the one nearest to the boundary, the pixel the one of the largest weight.

    Numbers: `illustrations/*.npz`, `attacks/linf/*.npz`, `runs/*.npz`.
    """
    model = representative(models, robust=False)
    _needs_hinge(model)
    stored = model.illustrated()
    nearest = stored.nearest
    if not len(nearest["index"]):
        raise Missing("no sample is misclassified at any radius")
    sample, y = int(nearest["index"][0]), int(nearest["label"][0])
    pixel = int(np.argmax(np.abs(model.run.w)))
    slope = -y * model.run.w[pixel]
    value = np.linspace(0, 1, 201)
    here = stored.image(sample).ravel()[pixel]
    margin = y * model.attack.logits[sample]
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    loss = hinge(margin - slope * (value - here))
    axes.plot(value, loss, **style.line(model.run.settings))
    axes.plot(here, hinge(margin), "o", color="black")
    side = 1 if here < 0.5 else -1
    place = dict(textcoords="offset points", ha="left" if side > 0 else "right")
    axes.annotate("value in the image", (here, hinge(margin)), (10 * side, 12), color=NOTE, **place)
    row, column = divmod(pixel, model.run.facts["image_shape"][1])
    axes.set(
        xlabel=f"one input $x_i$: row {row}, column {column} of test image {sample}, $y = {y:+d}$",
        ylabel="loss",
        title=f"The linear model: a straight line, slope $-y w_i = {slope:+.2f}$",
        xlim=(-0.05, 1.05),
        ylim=(0, 1.3 * loss.max()),
    )
    return figure


def perturbation_boxes() -> Figure:
    """Five points in three dimensions, each with its L∞ ball.

    The attacker may move each point anywhere in its cube, whose sides are 2ε long.

    Numbers: computed in the function.
    """
    figure = Figure(figsize=(6, 4.2))
    axes = figure.add_subplot(projection="3d")
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
        box = Poly3DCollection([point + eps * face for face in faces], zorder=2 * z)
        box.set(facecolor=NOTE, edgecolor="black", alpha=0.15, linewidth=0.8)
        axes.add_collection3d(box)
        axes.plot(*point[:, None], "o", color="black", ms=5, zorder=2 * z + 1)
    x, y, z = np.array(points[-1]) - eps  # a lower edge of the box in front
    axes.plot([x, x + 2 * eps], [y, y], [z, z], color="black", zorder=2 * len(points))
    axes.text(x + eps, y, z - 0.09, r"$2\epsilon$", ha="center")
    axes.set(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1), xlabel="$x_1$", ylabel="$x_2$", zlabel="$x_3$")
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_ticks([0.5, 1])
        axis.set_pane_color("white")
    axes.set_box_aspect(None, zoom=0.95)
    axes.set_title(r"Allowed perturbations: a cube of side $2\epsilon$ around each point")
    return figure


def hinge_robust(models: list) -> Figure:
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
    figure = Figure(figsize=(8, 3.6))
    f = np.linspace(-1.6 - shift, 1.6 + shift, 801)
    for axes, y in zip(figure.subplots(1, 2, sharey=True), (1, -1), strict=True):
        axes.plot(f, hinge(y * f), color="black", label="hinge")
        axes.plot(f, hinge(y * f - shift), **look, label="robust hinge")
        axes.plot([y], [0], "o", color="black")
        axes.plot([y * (1 + shift)], [0], "o", color=look["color"])
        arrow = dict(arrowstyle="->", color=NOTE, shrinkA=0, shrinkB=0)
        axes.annotate("", (y * (1 + shift), height), (y, height), arrowprops=arrow)
        middle = y * (1 + shift / 2)
        label = rf"$\epsilon\Vert w\Vert_1$ = {shift:.2f}"
        axes.text(middle, 1.4 * height, label, ha="center", va="top")
        axes.set(xlabel=r"logit $\hat y$", title=f"$y = {y:+d}$", ylim=(3.2 * height, None))
        axes.set_yticks([tick for tick in axes.get_yticks() if tick >= 0])
    axes.legend(loc="upper left")
    figure.axes[0].set_ylabel("loss")
    figure.suptitle(
        rf"The kink moves outward, from margin 1 to $1 + \epsilon\Vert w\Vert_1$ = {1 + shift:.2f} "
        f"({run.name})"
    )
    return figure


def least(weight: np.ndarray, loss: np.ndarray) -> int | None:
    """Where the loss is least; None if that may lie beyond the window, or where it is flat."""
    best = int(np.argmin(loss))
    rise = min(loss[0], loss[-1]) - loss[best]
    return best if rise > 0.01 * np.ptp(loss) else None


def landscape_robust(models: list) -> Figure:
    """The mean training loss over a single weight, for a strong and a weak pixel, by two losses.

    On the weak pixel (right) the robust hinge has a kink at a weight of 0 and is lowest there, so
    training drives the weight to 0; the plain hinge has no kink.

    Numbers: `illustrations/*.npz`, `runs/*.npz`.
    """
    model = representative(models, robust=True)
    table = model.illustrated().landscape
    if not table:
        raise Missing(f"{model.run.name} has no landscape: it needs a hinge run in the L∞ ball")
    figure = Figure(figsize=(8, 5.6))
    panels = figure.subplots(2, 2, sharex=True)
    looks = {"hinge": dict(color="black"), "robust_hinge": style.line(model.run.settings)}
    for column, pixel in zip(panels.T, ("strong", "weak"), strict=True):
        rows = table["pixel"] == pixel
        if not rows.any():
            raise Missing(f"{model.run.name} drops no pixel")
        weight, index = table["weight"][rows], int(table["index"][rows][0])
        trained = model.run.w[index]
        place = divmod(index, model.run.facts["image_shape"][1])
        column[0].set_title(f"a {pixel} pixel: row {place[0]}, column {place[1]}")
        column[1].set_xlabel("its weight $w_i$")
        for axes, (name, look) in zip(column, looks.items(), strict=True):
            loss, shade = table[name][rows], look["color"]
            _guide(axes, 0)
            axes.plot(weight, loss, **look)
            if (best := least(weight, loss)) is not None:
                where = f"about {signed(weight[best])}" if weight[best] else "exactly 0"
                frame = dict(color=shade, mfc="none", ms=11, label=f"least at {where}")
                axes.plot(weight[best], loss[best], "s", **frame)
            else:
                axes.plot([], [], " ", label="no clear minimum in view")
            label = f"trained: {signed(trained)}" if abs(trained) >= 0.005 else "trained: about 0"
            height = np.interp(trained, weight, loss)
            axes.plot(trained, height, "|", color=shade, ms=11, label=label)
            axes.set(ylim=(-0.06 * loss.max(), 1.4 * loss.max()))
            axes.legend(loc="upper right", handlelength=1, handletextpad=0.4)
    for axes, loss in zip(panels[:, 0], ("hinge", "robust hinge"), strict=True):
        axes.set_ylabel(f"mean {loss}")
    figure.suptitle(f"The mean loss over one weight, others as trained ({model.run.name})")
    return figure
