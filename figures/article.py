"""The figures of the article's results, each of a group of models: one function per figure."""

from lab.store import Missing

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from figures import style
from figures.method import representative, signed
from figures.style import NOTE
from runs import PIXEL_IN_USE, Model, Run

STAMP = LinearSegmentedColormap.from_list("stamp", ["white", "#5f9873", "black"])
SHOWN = 8  # at most so many of the clean misclassified images; illustrations.py stores as many
ROWS = 5  # at most so many radii in misclassified_logits


def trained_by(models: list[Model]) -> str:
    """What a title says of how the models of a group were trained."""
    return models[0].run.settings.variant or "article's recipe"


def _needs_free_pixels(models: list[Model]) -> None:
    if models[0].attack.facts["box"]:
        raise Missing(
            "it shows attacks without the box: one in the box stores no images, and does not "
            "move each logit by ε‖w‖₁"
        )


def accuracy(models: list[Model]) -> Figure:
    """A table of the train and test accuracy of each model on clean images.

    Compare these accuracies, without an attack, with those under attack in accuracy_noise.

    Numbers: `runs/*.npz`.
    """
    figure = Figure(figsize=(8, 0.5 + 0.36 * (len(models) + 1)))
    axes = figure.subplots()
    axes.axis("off")
    rows = []
    for model in models:
        row = [model.label]
        for split in ("train", "test"):
            share = model.run.history[f"{split}_accuracy"][-1]
            n = model.run.facts[f"{split}_samples"]
            row.append(f"{100 * share:.2f} %  ({round((1 - share) * n)} of {n} wrong)")
        rows.append(row)
    table = axes.table(
        rows,
        colLabels=["model", "train", "test"],
        loc="center",
        cellLoc="left",
        colLoc="left",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.5)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor("#bbbbbb")
        if row == 0:
            cell.set_text_props(weight="bold")
    axes.set_title(f"Accuracy on clean images ({trained_by(models)})")
    return figure


def _row_label(axes, text: str) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)


def _image(
    axes, image: np.ndarray, digit: int, logit: float, low: float = 0.0, high: float = 1.0
) -> None:
    """A picture with the true digit and the logit below it."""
    axes.imshow(image, cmap="gray_r", vmin=low, vmax=high)
    axes.spines[:].set_visible(True)
    near = "≈ 0" if abs(logit) < 0.005 else signed(logit)
    axes.set_xlabel(f"a {digit}\n{near}", fontsize=9, labelpad=2)


def _digit(model: Model, label: float) -> int:
    return model.run.facts["digits"][int(label > 0)]


def _grid(rows: int, columns: int, width: float, title: str):
    """A figure of small square pictures without ticks."""
    figure = Figure(figsize=(width, 0.6 + rows * ((width - 1.5) / columns + 0.35)))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
    figure.suptitle(title)
    return figure, panels


def misclassified_regular(models: list[Model]) -> Figure:
    """The clean test images that each model gets wrong, nearest to the boundary first.

    Below each image are its true digit and its logit, which has the wrong sign.

    Numbers: `illustrations/*.npz`, `attacks/linf/*.npz`.
    """
    _needs_free_pixels(models)
    wrong = [int(m.run.facts["test_samples"] - m.attack.correct[0]) for m in models]
    columns = max(5, min(SHOWN, max(wrong)))
    title = f"Clean test images that each model gets wrong: digit and logit ({trained_by(models)})"
    figure, panels = _grid(len(models), columns, 8, title)
    for row, model, count in zip(panels, models, wrong, strict=True):
        shown = f"the {columns} nearest to 0 of " if count > columns else ""
        _row_label(row[0], f"{model.label}\n{shown}{count} wrong".replace("of ", "of\n"))
        stored = model.illustrated()
        nearest = stored.nearest
        at_zero = np.flatnonzero(nearest["eps"] == 0)[:columns]
        for axes, i in zip(row, at_zero, strict=False):
            image = stored.image(nearest["index"][i])
            _image(axes, image, _digit(model, nearest["label"][i]), nearest["logit"][i])
    return figure


def stamp(axes, run: Run):
    """The weights as a picture, symmetric around 0, up to the largest."""
    size = np.abs(run.w).max() or 1.0
    shape = run.facts["image_shape"][:2]
    return axes.imshow(run.w.reshape(shape) / size, cmap=STAMP, vmin=-1, vmax=1)


def model_weights(models: list[Model]) -> Figure:
    """The weights of each model as an image: black counts for one digit, white for the other.

    Robust training usually leaves few pixels in use; their number is above each picture.

    The scale is symmetric around 0, and reaches to the largest weight of each model.

    Numbers: `runs/*.npz`.
    """
    rows = -(-len(models) // 4)
    figure = Figure(figsize=(8, 1.05 + 2.2 * rows))
    panels = figure.subplots(rows, 4, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, model in zip(panels.flat, models, strict=False):
        run = model.run
        picture, size = stamp(axes, run), np.abs(run.w).max()
        axes.set_title(
            f"{model.label}\nmax |w| = {size:.3g}\n{run.pixels_in_use} pixels > 1 % of it",
            fontsize=9,
        )
    low, high = models[0].run.facts["digits"]
    bar = figure.colorbar(picture, ax=panels, orientation="horizontal", fraction=0.05, aspect=50)
    bar.set_ticks([-1, 0, 1], labels=[f"−max |w|: digit {low}", "0", f"max |w|: digit {high}"])
    bar.outline.set_visible(False)
    figure.suptitle(f"Weights as images, each scaled to its own max |w| ({trained_by(models)})")
    return figure


def curve(model: Model, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact accuracy over the radius up to `end`, as the corners of a step function."""
    radii = np.sort(np.clip(model.attack.radii, 0, None))
    before = radii[radii < end]
    share = 1 - np.arange(len(before) + 1) / len(radii)
    eps = np.concatenate([[0], before, [end]])
    return np.repeat(eps, 2)[1:-1], np.repeat(share, 2)


def draw_curve(axes, model: Model, end: float, **look) -> None:
    """Exact accuracy over the radius, in the model's look; a dot at its training radius."""
    settings = model.run.settings
    look = style.line(settings) | look
    axes.plot(*curve(model, end), **look)
    if settings.robust and settings.norm == model.attack.facts["norm"] and settings.eps <= end:
        axes.plot(settings.eps, model.accuracy(settings.eps), "o", color=look["color"])


def kept(models: list[Model], eps: float) -> str:
    """What a title says of a radius: the accuracy of the weakest and of the strongest model."""
    order = sorted(models, key=lambda model: model.accuracy(eps))
    ends = (order[0], order[-1])
    parts = [f"{model.label} keeps {100 * model.accuracy(eps):.1f} %" for model in ends]
    return f"ε = {eps:g}: {', '.join(dict.fromkeys(parts))}"


def accuracy_noise(models: list[Model]) -> Figure:
    """The accuracy of each model under the worst-case perturbation, over its radius.

    The further right a curve falls, the larger the perturbations that the model withstands; the
    horizontal line is the accuracy of always giving the more frequent digit.

    The curves are exact: each step is the radius at which one test image flips.

    Numbers: `attacks/linf/*.npz`.
    """
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    attacked = models[0].attack
    end, labels = attacked.eps[-1], attacked.labels
    for model in models:
        draw_curve(axes, model, end, label=model.label)
    constant = max(np.mean(labels > 0), np.mean(labels < 0))
    axes.axhline(constant, color=NOTE, lw=0.8)
    axes.text(1.005 * end, constant, "a constant\nanswer", color=NOTE, va="center", fontsize=9)
    pixels = "pixels kept in [0, 1]" if attacked.facts["box"] else "pixels may leave [0, 1]"
    ball = r"$\Vert\delta\Vert_\infty \leq \epsilon$"
    axes.set(
        xlim=(0, end),
        ylim=(0, 1.01),
        xlabel=rf"radius $\epsilon$ of the perturbation, {ball}, {pixels} (dot: training radius)",
        ylabel=f"accuracy on {len(labels)} test images",
        title=f"Accuracy in the worst case ({trained_by(models)})\n{kept(models, 0.4 * end)}",
    )
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def misclassified_noise(models: list[Model]) -> Figure:
    """Misclassified images under attack, one for each model and each of several radii.

    Compare the logits at large ε: that of the regular model is far from 0 even for the image
    nearest to the boundary, those of the robust models are much closer.

    Numbers: `illustrations/*.npz`, `runs/*.npz`.
    """
    _needs_free_pixels(models)
    radii = np.unique(np.concatenate([model.attack.eps[::10] for model in models]))
    title = (
        "Each cell has its own image: the misclassified one that is nearest to the boundary\n"
        f"Below it: its digit and logit; grey scale from −{radii[-1]:g} (white) to "
        f"{1 + radii[-1]:g} (black) ({trained_by(models)})"
    )
    figure, panels = _grid(len(models), len(radii), 9, title)
    for axes, eps in zip(panels[0], radii, strict=True):
        axes.set_title(f"ε = {eps:g}", loc="center", fontsize=9)
    for row, model in zip(panels, models, strict=True):
        stored, run = model.illustrated(), model.run
        nearest = stored.nearest
        _row_label(row[0], model.label.replace(" ε", "\nε"))
        for axes, eps in zip(row, radii, strict=True):
            found = np.flatnonzero((nearest["eps"] == eps) & (nearest["rank"] == 0))
            if not len(found):
                axes.text(0.5, 0.5, "none", ha="center", va="center", color=NOTE, fontsize=9)
                axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
                continue
            image, label, logit = (nearest[name][found[0]] for name in ("index", "label", "logit"))
            image = stored.image(image)
            delta = -label * eps * np.sign(run.w).reshape(image.shape)
            ends = -radii[-1], 1 + radii[-1]
            _image(axes, image + delta, _digit(model, label), logit, *ends)
    return figure


def misclassified(model: Model, eps: float) -> np.ndarray:
    """The logits of the test images that are wrong in the worst case, without the box."""
    y = model.attack.labels
    perturbed = model.attack.logits - y * eps * np.abs(model.run.w).sum()
    return perturbed[y * perturbed <= 0]


def misclassified_logits(models: list[Model]) -> Figure:
    """Histograms of the logits of misclassified images at several radii, regular and robust.

    As ε grows, the logits of the images that the regular model gets wrong move away from 0, those
    of the robust model stay much closer; part of the difference is that logits scale with ‖w‖₁.

    All histograms have the same bins, with an edge at 0. Smoothing would move mass across 0.

    Numbers: `attacks/linf/*.npz`, `runs/*.npz`.
    """
    _needs_free_pixels(models)
    pair = [representative(models, robust=False), representative(models, robust=True)]
    radii = np.unique(np.concatenate([model.attack.eps[10::10] for model in pair]))
    every = -(-len(radii) // ROWS)
    radii = radii[every - 1 :: every]
    figure = Figure(figsize=(8, 1.2 + 0.95 * len(radii)))
    panels = figure.subplots(len(radii), 2, sharex=True, sharey=True, squeeze=False)
    wrong = [[misclassified(model, eps) for model in pair] for eps in radii]
    reach = 1.05 * max(np.abs(logits).max(initial=0) for row in wrong for logits in row) or 1.0
    bins = np.linspace(-reach, reach, 81)
    for row, eps, logits in zip(panels, radii, wrong, strict=True):
        row[0].set_ylabel(f"ε = {eps:g}", rotation=0, ha="right", va="center", labelpad=10)
        for axes, model, found in zip(row, pair, logits, strict=True):
            n = len(model.attack.labels)
            shade = style.colour(model.run.settings)
            axes.stairs(np.histogram(found, bins)[0] / n, bins, fill=True, color=shade)
            axes.axvline(0, color=NOTE, lw=0.8)
            text = f"{len(found)} of {n}\nwrong"
            axes.text(0.99, 0.95, text, transform=axes.transAxes, ha="right", va="top", fontsize=9)
    for axes, model in zip(panels[0], pair, strict=True):
        axes.set_title(model.label)
    for axes in panels[-1]:
        axes.set_xlabel("logit of the perturbed image")
    panels[0, 0].set(xlim=(-reach, reach))
    panels[0, 0].yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    eps = pair[1].run.settings.eps
    medians = [
        f"{np.median(np.abs(logits)):.2f} ({model.label})"
        for model in pair
        if len(logits := misclassified(model, eps))
    ]
    found = f"Misclassified at ε = {eps:g}: median |logit| {', '.join(medians)}"
    figure.suptitle(
        f"{found if medians else 'Logits of the misclassified'}\n"
        f"Heights: share of all test images ({trained_by(models)})"
    )
    return figure


def by_log_step(values: np.ndarray, bins: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """The middle and the mean of bins of about equal width on a logarithmic axis of steps."""
    edges = np.unique(np.geomspace(1, len(values) + 1, bins + 1).round().astype(int))
    means = np.add.reduceat(values, edges[:-1] - 1) / np.diff(edges)
    return np.sqrt(edges[:-1] * (edges[1:] - 1)), means


def training(models: list[Model]) -> Figure:
    """Training loss, ‖w‖₁, share of active images and pixels in use, over the training steps.

    At the end of training, compare the share of active images and the number of pixels in use.

    Numbers: `runs/*.npz`.
    """
    if not all(model.run.steps for model in models):
        raise Missing("an exact minimum has no steps")
    figure = Figure(figsize=(8, 6))
    averaged = {
        "loss": "training loss",
        "active": "share active: worst-case margin below 1",
    }
    exact = {"w_l1": r"$\Vert w\Vert_1$", "pixels": f"pixels above {PIXEL_IN_USE:.0%} of max |w|"}
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (name, title) in zip(panels.T.flat, (averaged | exact).items(), strict=True):
        for model in models:
            values = model.run.steps[name]
            steps = np.arange(1, len(values) + 1)
            if name in averaged:
                steps, values = by_log_step(values)
            axes.plot(steps, values, **style.line(model.run.settings), lw=1.4, label=model.label)
        axes.set(xscale="log", title=title)
        if name in averaged:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, None)
    for axes in panels[1]:
        axes.set_xlabel("step")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    figure.suptitle(f"Training; the left panels are smoothed ({trained_by(models)})")
    return figure
