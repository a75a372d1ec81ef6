"""The figures of the article's results, each of a group of models: one function per figure."""

from common.runs import PIXEL_IN_USE, Missing, Model

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from figures.method import DARK, GREEN, GREY, representative

STAMP = LinearSegmentedColormap.from_list("stamp", ["white", "#5f9873", "black"])
SHOWN = 8  # at most so many of the clean misclassified images; attack.py stores as many
FEW = 100  # fewer samples than this are drawn one by one, not as a histogram


def colour(models: list[Model], model: Model) -> str:
    """Black for the regular model, light to dark green by radius for the robust ones."""
    if not model.run.settings.robust:
        return "black"
    robust = [other for other in models if other.run.settings.robust]
    greens = LinearSegmentedColormap.from_list("greens", ["#6fc48f", GREEN, DARK])
    return mpl.colors.to_hex(greens(robust.index(model) / max(1, len(robust) - 1)))


def trained_by(models: list[Model]) -> str:
    """What a title says of how the models of a group were trained."""
    return models[0].run.settings.variant or "article's recipe"


def accuracy(models: list[Model]) -> Figure:
    """The table of train and test accuracy after training (article, "accuracy")."""
    figure = Figure(figsize=(8, 0.5 + 0.36 * (len(models) + 1)))
    axes = figure.subplots()
    axes.axis("off")
    rows = []
    for model in models:
        row = [model.label]
        for split in ("train", "test"):
            share = model.run.history[f"{split}_accuracy"][-1]
            n = model.run.config[f"{split}_samples"]
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
            cell.set_text_props(weight="bold", color=DARK)
    axes.set_title(f"Accuracy on clean images ({trained_by(models)})")
    return figure


def _row_label(axes, text: str) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)


def _image(axes, image: np.ndarray, logit: float, low: float = 0.0, high: float = 1.0) -> None:
    axes.imshow(image, cmap="gray_r", vmin=low, vmax=high)
    axes.spines[:].set_visible(True)
    near = abs(logit) < 0.005
    axes.set_xlabel("≈ 0" if near else f"{logit:+.2f}".replace("-", "−"), fontsize=8, labelpad=2)


def _grid(rows: int, columns: int, width: float, title: str):
    """A figure of small square pictures without ticks."""
    figure = Figure(figsize=(width, 0.5 + rows * (width - 1.5) / columns * 1.2))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
    figure.suptitle(title, fontsize=11)
    return figure, panels


def misclassified_regular(models: list[Model]) -> Figure:
    """The clean test samples that each model gets wrong, nearest to the boundary first."""
    wrong = [int(m.run.config["test_samples"] - m.attack.accuracy["correct"][0]) for m in models]
    columns = max(5, min(SHOWN, max(wrong)))
    title = f"Clean test images that each model gets wrong, with logits ({trained_by(models)})"
    figure, panels = _grid(len(models), columns, 8, title)
    for row, model, count in zip(panels, models, wrong, strict=True):
        shown = f"the {columns} nearest to 0 of " if count > columns else ""
        _row_label(row[0], f"{model.label}\n{shown}{count} wrong".replace("of ", "of\n"))
        nearest = model.attack.nearest
        at_zero = np.flatnonzero(nearest["eps"] == 0)[:columns]
        for axes, i in zip(row, at_zero, strict=False):
            _image(axes, model.attack.image(nearest["index"][i]), nearest["logit"][i])
    return figure


def model_weights(models: list[Model]) -> Figure:
    """The stamps: the weights as images, each symmetric around 0 and scaled to its max |w|."""
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(max(4, 2 * columns), 1.2 + 2.2 * rows))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, model in zip(panels.flat, models, strict=False):
        run = model.run
        size = np.abs(run.w).max() or 1.0
        picture = axes.imshow(
            run.w.reshape(run.config["image_shape"][:2]) / size, cmap=STAMP, vmin=-1, vmax=1
        )
        axes.set_title(
            f"{model.label}\nmax |w| = {size:.2f}\n{run.pixels_in_use} pixels > 1 % of it",
            fontsize=9,
        )
    low, high = models[0].run.config["digits"]
    bar = figure.colorbar(picture, ax=panels, orientation="horizontal", fraction=0.05, aspect=50)
    bar.set_ticks([-1, 0, 1], labels=[f"−max |w|: digit {low}", "0", f"max |w|: digit {high}"])
    bar.outline.set_visible(False)
    figure.suptitle(
        f"Weights as images, each scaled to its own max |w| ({trained_by(models)})", fontsize=11
    )
    return figure


STYLES = ("-", (0, (5, 1.5)), (0, (4, 1, 1, 1)), (0, (1, 1)))  # told apart in grey


def curve(model: Model, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact accuracy over the radius up to `end`, as the corners of a step function."""
    radii = np.sort(np.clip(model.attack.samples["radii"], 0, None))
    before = radii[radii < end]
    share = 1 - np.arange(len(before) + 1) / len(radii)
    eps = np.concatenate([[0], before, [end]])
    return np.repeat(eps, 2)[1:-1], np.repeat(share, 2)


def accuracy_noise(models: list[Model]) -> Figure:
    """Accuracy under the worst-case perturbation over its radius, exact."""
    figure = Figure(figsize=(8, 4.2))
    axes = figure.subplots()
    end = models[0].attack.accuracy["eps"][-1]
    for k, model in reversed(list(enumerate(models))):
        eps, share = curve(model, end)
        shade = colour(models, model)
        axes.fill_between(eps, share, color=shade, alpha=0.1, lw=0)
        axes.plot(eps, share, color=shade, ls=STYLES[k % len(STYLES)], label=model.label)
        trained = model.run.settings.eps
        if model.run.settings.robust and model.run.settings.norm == "inf" and trained <= end:
            axes.plot(trained, model.accuracy(trained), "o", color=shade)
    labels = models[0].attack.samples["labels"]
    constant = max(np.mean(labels > 0), np.mean(labels < 0))
    axes.axhline(constant, color=GREY, lw=1, ls=":")
    axes.text(
        0.995 * end, constant + 0.01, "one answer for all", color=GREY, ha="right", fontsize=9
    )
    axes.set(
        xlim=(0, end),
        ylim=(0, 1.01),
        xlabel=r"radius $\epsilon$ of the perturbation, $\Vert\delta\Vert_\infty \leq \epsilon$"
        " (no pixel box)",
        ylabel=f"accuracy on {len(labels)} test images",
        title=f"Exact accuracy under attack; dots: the radius trained for ({trained_by(models)})",
    )
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside lower center", ncols=4)
    return figure


def misclassified_noise(models: list[Model]) -> Figure:
    """Per model and tenth radius, the misclassified perturbed image nearest to the boundary."""
    radii = np.unique(np.concatenate([model.attack.accuracy["eps"][::10] for model in models]))
    title = (
        "The misclassified perturbed image nearest to the boundary, with its logit\n"
        rf"(columns: $\epsilon$; white {-radii[-1]:g}, black {1 + radii[-1]:g}; "
        f"{trained_by(models)})"
    )
    figure, panels = _grid(len(models), len(radii), 9, title)
    for axes, eps in zip(panels[0], radii, strict=True):
        axes.set_title(f"{eps:g}", loc="center", fontsize=9)
    for row, model in zip(panels, models, strict=True):
        nearest, run = model.attack.nearest, model.run
        _row_label(row[0], model.label.replace(" ", "\n", 1))
        for axes, eps in zip(row, radii, strict=True):
            found = np.flatnonzero((nearest["eps"] == eps) & (nearest["rank"] == 0))
            if not len(found):
                axes.text(0.5, 0.5, "none", ha="center", va="center", color=GREY, fontsize=9)
                axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
                continue
            image = model.attack.image(nearest["index"][found[0]])
            delta = -nearest["label"][found[0]] * eps * np.sign(run.w).reshape(image.shape)
            logit = nearest["logit"][found[0]]
            _image(axes, image + delta, logit, -radii[-1], 1 + radii[-1])
    return figure


def misclassified_logits(models: list[Model]) -> Figure:
    """Ridges: the logits of misclassified samples at each tenth radius, regular and robust.

    Histograms with one bin width for all radii of a model, an edge at 0, and one common height:
    no smoothing could widen them or carry them across the boundary.
    """
    pair = [representative(models, robust=False), representative(models, robust=True)]
    radii = np.unique(np.concatenate([model.attack.accuracy["eps"][10::10] for model in pair]))
    if not len(radii):
        raise Missing("it shows each tenth radius (python attack.py --eps-steps 10, or more)")
    figure = Figure(figsize=(8, 5))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, model in zip(panels, pair, strict=True):
        y, logits = (model.attack.samples[name] for name in ("labels", "logits"))
        size = np.abs(model.run.w).sum()
        perturbed = logits - y * radii[:, None] * size
        wrong = [row[y * row <= 0] for row in perturbed]
        reach = 1.05 * max(np.abs(row).max(initial=0.0) for row in wrong) or 1.0
        bins = np.linspace(-reach, reach, 81)
        for level, row in enumerate(wrong):
            shade, depth = colour(models, model), 20 - level
            if len(row) < FEW:
                axes.plot(row, np.full(len(row), level + 0.15), "|", color=shade, ms=8)
            else:
                counts, _ = np.histogram(row, bins)
                ridge = level + 1.5 * counts / counts.max()
                axes.stairs(ridge, bins, baseline=level, fill=True, color="white", zorder=depth)
                axes.stairs(
                    ridge, bins, baseline=level, fill=True, color=shade, alpha=0.3, zorder=depth
                )
                axes.stairs(ridge, bins, baseline=level, color=shade, lw=1, zorder=depth)
            place = dict(transform=axes.get_yaxis_transform(), ha="right", fontsize=8, zorder=30)
            axes.text(0.99, level + 0.12, f"{len(row)}", **place)
        axes.text(0.99, level + 1.3, f"wrong of {len(y)}", **place)
        axes.axvline(0, color=GREY, lw=1, ls=":", zorder=25)
        axes.set(
            title=rf"{model.label}: $\Vert w\Vert_1$ = {size:.1f}",
            xlabel="logit of the perturbed image",
            xlim=(-reach, 1.25 * reach),
        )
    panels[0].set_yticks(range(len(radii)), [f"{eps:g}" for eps in radii])
    panels[0].set(ylabel=r"radius $\epsilon$", ylim=(-0.15, len(radii) + 1))
    figure.suptitle(
        "Logits of the misclassified; each histogram at one height, ticks where under "
        f"{FEW} ({trained_by(models)})",
        fontsize=11,
    )
    return figure


def training(models: list[Model]) -> Figure:
    """The record of every step: loss, ||w||_1, share of active samples, pixels in use."""
    if not all(model.run.steps for model in models):
        raise Missing("an exact minimum has no steps")
    figure = Figure(figsize=(8, 5.6))
    window = -(-len(models[0].run.steps["loss"]) // 100)
    titles = {
        "loss": f"loss trained on, mean of {window} steps",
        "w_l1": r"$\Vert w\Vert_1$",
        "active": f"share of the batch inside the knee, mean of {window} steps",
        "pixels": f"pixels above {PIXEL_IN_USE:.0%} of max |w|",
    }
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        for k, model in enumerate(models):
            values = model.run.steps[name]
            if name in ("loss", "active"):
                total = np.cumsum(values)
                values = np.append(
                    total[:window] / np.arange(1, window + 1),
                    (total[window:] - total[:-window]) / window,
                )
            style = STYLES[k % len(STYLES)]
            steps = np.arange(1, len(values) + 1)
            axes.plot(
                steps, values, color=colour(models, model), ls=style, lw=1.3, label=model.label
            )
        axes.set_xscale("log")
        if name in ("loss", "active"):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, None)
        axes.set_title(title, fontsize=10)
    for axes in panels[1]:
        axes.set_xlabel("step")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    figure.suptitle(f"Training ({trained_by(models)})", fontsize=11)
    return figure
