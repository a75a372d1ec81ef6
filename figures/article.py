"""The figures of the article's results, each of a group of models: one function per figure."""

from lab.store import Missing

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures import layout, style
from figures.method import representative, signed, trained_by
from figures.style import NOTE
from runs import PIXEL_IN_USE, Model

STAMP = LinearSegmentedColormap.from_list("stamp", [style.AGAINST, "white", style.FOR])
FAINTEST = 0.15  # share of the full colour that the smallest weight shown has
SHOWN = 8  # at most so many of the clean misclassified images; illustrations.py stores as many
RADII = 5  # at most so many in misclassified_noise and misclassified_logits


def _needs_free_pixels(models: list[Model]) -> None:
    if models[0].attack.facts["box"]:
        raise Missing(
            "it shows attacks without the box: one in the box stores no images, and does not "
            "move each logit by ε‖w‖₁"
        )


def accuracy(models: list[Model]) -> Figure:
    """A table of the train and test accuracy of each model on clean images.

    Robust training costs few test images without an attack; accuracy_noise shows what it gains
    under attack.

    Numbers: `runs/*.npz`.
    """
    rows = [["model", "train", "test"]]
    for model in models:
        row = [model.label]
        for split in ("train", "test"):
            share = model.run.history[f"{split}_accuracy"][-1]
            n = model.run.facts[f"{split}_samples"]
            row.append(f"{100 * share:.2f} %  ({round((1 - share) * n)} of {n} wrong)")
        rows.append(row)
    figure = Figure(figsize=(8, 0.5 + 0.32 * len(rows)))
    place = dict(left=0.1, top=0.4, width=7.8, height=0.32 * len(rows))
    (axes,) = layout.panels(figure, 1, 1, **place).flat
    axes.set(xlim=(0, 7.8), ylim=(len(rows), 0))
    axes.axis("off")
    for k, row in enumerate(rows):
        axes.axhline(k + 1, color="#bbbbbb", lw=0.8)
        for left, text in zip((0.1, 2.4, 5.1), row, strict=True):
            axes.text(left, k + 0.5, text, va="center", weight="bold" if k == 0 else "normal")
    layout.headline(figure, f"Accuracy on clean images ({trained_by(models)}){_cost(models)}")
    return figure


def _cost(models: list[Model]) -> str:
    """By how many more clean test images robust models are wrong than the regular model."""
    wrong = {True: [], False: []}
    for model in models:
        clean = model.attack.correct[0]
        wrong[model.run.settings.robust].append(model.run.facts["test_samples"] - clean)
    if not all(wrong.values()):
        return ""
    more = sorted({f"{n - wrong[False][0]:.0f}" for n in wrong[True]}, key=float)
    found = " to ".join(dict.fromkeys((more[0], more[-1])))
    return f": robust training costs {found} test images".replace("-", "−")


def in_two_lines(model: Model) -> str:
    """The label of a model for a narrow place."""
    return model.label.replace(" ε", "\nε")


def _digit(model: Model, label: float) -> int:
    return model.run.facts["digits"][int(label > 0)]


def _words(model: Model, label: float, logit: float) -> str:
    """The true digit of an image and the logit, in two lines."""
    return f"a {_digit(model, label)}\n{'≈ 0' if abs(logit) < 0.005 else signed(logit)}"


def mosaic(figure: Figure, rows, labels, left, top, side, ends, heads=()) -> None:
    """Small pictures in rows, all as one image, with words below each and a label left of each row.

    `rows` are lists of (image (n, n), words) from left to right, `heads` stand above the columns;
    `ends` are the values of white and of black. The side of a picture, and the place of the first
    one, are in inches.
    """
    n = next((len(image) for row in rows for image, _ in row), 1)
    down, across = round(1.55 * n), round(1.1 * n)
    whole = np.full((len(rows) * down, max(len(row) for row in rows) * across + 1), float(ends[0]))
    size = dict(width=side * whole.shape[1] / n, height=side * whole.shape[0] / n)
    (axes,) = layout.panels(figure, 1, 1, left=left, top=top, **size).flat
    frames = []
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        axes.text(-0.12 * n, i * down + n / 2, label, ha="right", va="center", fontsize=9)
        for k, (image, words) in enumerate(row):
            y, x = i * down, k * across
            whole[y : y + n, x : x + n] = image
            frames.append(Rectangle((x, y), n, n))
            axes.text(x + n / 2, y + 1.05 * n, words, ha="center", va="top", fontsize=9)
    for k, text in enumerate(heads):
        axes.text(k * across + n / 2, -0.1 * n, text, ha="center", fontsize=9)
    edges = (0, whole.shape[1], whole.shape[0], 0)
    axes.imshow(whole, cmap="gray_r", vmin=ends[0], vmax=ends[1], extent=edges, aspect="auto")
    axes.add_collection(PatchCollection(frames, fc="none", ec="#bbbbbb", lw=0.8, clip_on=False))
    axes.axis("off")


def misclassified_regular(models: list[Model]) -> Figure:
    """The clean test images that each model gets wrong, nearest to the boundary first.

    Below each image are its true digit and its logit, which has the wrong sign.

    Numbers: `illustrations/*.npz`, `attacks/linf/*.npz`.
    """
    _needs_free_pixels(models)
    wrong = [int(m.run.facts["test_samples"] - m.attack.correct[0]) for m in models]
    columns = max(5, min(SHOWN, max(wrong)))
    rows, labels = [], []
    for model, count in zip(models, wrong, strict=True):
        shown = f"the {columns} nearest\nto 0 of " if count > columns else ""
        labels.append(f"{in_two_lines(model)}\n{shown}{count} wrong")
        stored = model.illustrated()
        near = stored.nearest
        at = np.flatnonzero(near["eps"] == 0)[:columns]
        found = zip(*(near[name][at] for name in ("index", "label", "logit")), strict=True)
        rows.append([(stored.image(i), _words(model, *of)) for i, *of in found])
    side = min(0.875, 6.2 / (1.1 * columns))
    figure = Figure(figsize=(8, 0.45 + 1.55 * side * len(models)))
    mosaic(figure, rows, labels, left=1.7, top=0.45, side=side, ends=(0, 1))
    head = "Clean test images that each model gets wrong: digit and logit"
    layout.headline(figure, f"{head} ({trained_by(models)})")
    return figure


def shades(w: np.ndarray, largest: float = 0) -> np.ndarray:
    """Weights as shares of the full colour, -1 to 1: the signed root of their share of the largest.

    A weight that is not in use is white. Others have at least the share FAINTEST of the colour, so
    that even the smallest can be seen. `largest` is that of w itself if not given.
    """
    share = np.abs(w) / (largest or np.abs(w).max() or 1.0)
    return np.sign(w) * (share > PIXEL_IN_USE) * (FAINTEST + (1 - FAINTEST) * np.sqrt(share))


def counted(w: np.ndarray, largest: float = 0, of: str = "pixels") -> str:
    """How many weights are not 0, and how many of them `shades` does not leave white."""
    used = np.count_nonzero(shades(w, largest))
    return f"{np.count_nonzero(w)} {of}, {used} above {100 * PIXEL_IN_USE:g} %"


def dotted(axes, shown: np.ndarray, end: float = 1) -> None:
    """Numbers (height, width) from -end to end as colours. Dots mark those below 0."""
    axes.imshow(shown, cmap=STAMP, vmin=-end, vmax=end)
    row, column = np.nonzero(shown < 0)
    dots = 72 * axes.bbox.width / axes.figure.dpi / shown.shape[1]  # points for each pixel
    axes.plot(column, row, ".", color=style.DOT, ms=0.5 * dots, mew=0)


def stamp(axes, w: np.ndarray, largest: float = 0) -> None:
    """Weights (height, width) as a picture in the colours of `shades`."""
    dotted(axes, shades(w, largest))


def scale(figure: Figure, left, top, digits: tuple, width: float = 3) -> None:
    """What the colours of weights mean: a bar with words on both sides, placed in inches."""
    place = dict(left=left, top=top, width=width, height=0.14)
    (axes,) = layout.pictures(figure, 1, 1, **place).flat
    w = np.linspace(-1, 1, 401)
    w = np.sign(w) * np.clip((np.abs(w) - FAINTEST) / (1 - FAINTEST), 0, 1) ** 2
    look = dict(extent=(-1, 1, 0, 1), aspect="auto")
    axes.imshow(shades(w)[None], cmap=STAMP, vmin=-1, vmax=1, **look)
    dots = np.linspace(-0.95, -0.25, 15)
    axes.plot(dots, 0.5 + 0 * dots, ".", color=style.DOT, ms=2, mew=0)
    ticks = shades(np.array([-1, -0.25, 0, 0.25, 1]))
    white = f"≤ {100 * PIXEL_IN_USE:g} %"
    axes.set_xticks(ticks, ["max |w|", "25 %", white, "25 %", "max |w|"], fontsize=9)
    axes.text(-1.06, 0.5, f"dots: for {digits[0]}", ha="right", va="center", fontsize=9)
    axes.text(1.06, 0.5, f"for {digits[1]} (root scale)", ha="left", va="center", fontsize=9)


def model_weights(models: list[Model]) -> Figure:
    """The weights of each model as an image: blue for one digit, dotted orange for the other.

    The larger the training radius, the fewer weights exceed 1 % of the largest; smaller ones are
    white.

    The colour is the signed root of a weight's share of the largest. White are weights of at most
    1 % of the largest.

    Numbers: `runs/*.npz`.
    """
    rows = -(-len(models) // 4)
    figure = Figure(figsize=(8, 0.85 + 2.4 * rows))
    place = dict(left=0.2, top=0.95, width=1.75, height=1.75)
    panels = layout.pictures(figure, rows, 4, gap=(0.2, 0.65), **place)
    for axes in panels.flat[len(models) :]:
        axes.axis("off")
    for axes, model in zip(panels.flat, models, strict=False):
        run = model.run
        stamp(axes, run.w.reshape(run.facts["image_shape"][:2]))
        size = np.abs(run.w).max()
        axes.set_title(
            f"{model.label}\nmax |w| = {size:.3g}\n{counted(run.w)}",
            fontsize=9,
        )
    scale(figure, 2.3, 0.4 + 2.4 * rows, models[0].run.facts["digits"])
    layout.headline(
        figure, f"Weights as images, each scaled to its own max |w| ({trained_by(models)})"
    )
    return figure


def curve(model: Model, end: float, budget: str = "each") -> tuple[np.ndarray, np.ndarray]:
    """Exact accuracy over the radius up to `end`, as the corners of a step function.

    With the budget "mean" over the mean of all perturbations: the worst ones flip the images of the
    smallest radii, and leave the others as they are.
    """
    radii = np.sort(np.clip(model.attack.radii, 0, None))
    if budget == "mean":
        radii = np.cumsum(radii) / len(radii)
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

    The further right a curve falls, the larger the perturbations that the model withstands.

    The curves are exact: each step is the radius at which one test image flips. The horizontal line
    is the accuracy of always giving the more frequent digit.

    Numbers: `attacks/linf/*.npz`.
    """
    figure = Figure(figsize=(8, 4.6 + 0.2 * -(-len(models) // 2)))  # two in each line of the legend
    (axes,) = layout.panels(figure, 1, 1, left=0.65, top=0.6, width=6.5, height=3.35).flat
    attacked = models[0].attack
    end, labels = attacked.eps[-1], attacked.labels
    for model in models:
        draw_curve(axes, model, end, label=model.label)
    high = np.mean(labels > 0)
    constant, digit = max((high, 1), (1 - high, 0))
    axes.axhline(constant, color=NOTE, lw=0.8)
    words = f"always\nanswering {models[0].run.facts['digits'][digit]}"
    axes.text(1.005 * end, constant, words, color=NOTE, va="center", fontsize=9)
    pixels = "pixels kept in [0, 1]" if attacked.facts["box"] else "pixels may leave [0, 1]"
    axes.set(
        xlim=(0, end),
        ylim=(0, 1.01),
        xlabel=f"radius ε of the perturbation in the L∞ ball, {pixels} (dot: training radius)",
        ylabel=f"accuracy on {len(labels)} test images",
    )
    layout.headline(
        figure, f"Accuracy in the worst case ({trained_by(models)})\n{kept(models, 0.4 * end)}"
    )
    medians = [np.median(np.maximum(model.attack.radii, 0)) for model in models]
    half = [f"{m.label}: half are wrong at {at:.3f}" for m, at in zip(models, medians, strict=True)]
    layout.legend(figure, axes, 2, half)
    return figure


def _shown(models: list[Model]) -> np.ndarray:
    """The radii above 0 at which misclassified images are shown, at most RADII of them."""
    radii = np.unique(np.concatenate([model.attack.eps[10::10] for model in models]))
    every = -(-len(radii) // RADII)
    return radii[every - 1 :: every]


def misclassified_noise(models: list[Model]) -> Figure:
    """Misclassified images under attack, one for each model and radius, and their logits.

    At large radii every wrong logit of the regular model is far from 0; a logit grows with ‖w‖₁,
    given on the left.

    Numbers: `illustrations/*.npz`, `runs/*.npz`.
    """
    _needs_free_pixels(models)
    radii = _shown(models)
    ends, rows = (-radii[-1], 1 + radii[-1]), []
    figure = Figure(figsize=(8, 1 + 1.085 * len(models)))
    place = dict(left=5.7, top=1, width=2.15, height=1.085 * len(models) - 0.55)
    (axes,) = layout.panels(figure, 1, 1, **place).flat
    for model in models:
        stored, run, row = model.illustrated(), model.run, []
        near = stored.nearest
        first = {near["eps"][i]: i for i in np.flatnonzero(near["rank"] == 0)}
        for eps in radii:
            if eps not in first:
                row.append((np.full(run.facts["image_shape"][:2], ends[0]), "none"))
                continue
            index, label, logit = (near[name][first[eps]] for name in ("index", "label", "logit"))
            image = stored.image(index)
            delta = -label * eps * np.sign(run.w).reshape(image.shape)
            row.append((image + delta, _words(model, label, logit)))
        rows.append(row)
        at, look = list(first.values()), style.line(run.settings)
        axes.plot(near["eps"][at], np.abs(near["logit"][at]), **look, label=model.label)
    axes.set(xlim=(0, radii[-1]), ylim=(0, None), xlabel="radius ε", ylabel="|logit|")
    axes.set_title("The same for more radii:\n|logit| of the nearest image", fontsize=10)
    axes.legend(loc="upper left", fontsize=8)
    heads = [f"ε = {eps:g}" for eps in radii]
    labels = [f"{in_two_lines(m)}\n‖w‖₁ = {np.abs(m.run.w).sum():.1f}" for m in models]
    mosaic(figure, rows, labels, left=1.2, top=0.9, side=0.7, ends=ends, heads=heads)
    layout.headline(
        figure,
        f"For each ε, the misclassified image nearest to the boundary ({trained_by(models)})\n"
        f"Below it: digit and logit; grey scale from −{radii[-1]:g} (white) to {ends[1]:g} (black)",
    )
    return figure


def misclassified(model: Model, eps: float) -> np.ndarray:
    """The logits of the test images that are wrong in the worst case, without the box."""
    y = model.attack.labels
    perturbed = model.attack.logits - y * eps * np.abs(model.run.w).sum()
    return perturbed[y * perturbed <= 0]


def misclassified_logits(models: list[Model]) -> Figure:
    """Histograms of the logits of misclassified images at several radii, regular and robust.

    The attack moves each logit by ε‖w‖₁; as ‖w‖₁ is large, the wrong logits of the regular model
    lie far from 0.

    A misclassified 1 has a negative logit, a misclassified 0 a positive one. All histograms
    have the same bins, with an edge at 0.

    Numbers: `attacks/linf/*.npz`, `runs/*.npz`.
    """
    _needs_free_pixels(models)
    pair = [representative(models, robust=False), representative(models, robust=True)]
    radii, (low, high) = _shown(pair), pair[0].run.facts["digits"]
    figure = Figure(figsize=(8, 1.5 + 0.95 * len(radii)))
    place = dict(left=2.4, top=0.9, width=5.4, height=0.8)
    shared = dict(sharex=True, sharey=True)
    panels = layout.panels(figure, len(radii), 1, gap=(0, 0.15), **place, **shared)[:, 0]
    wrong = [[misclassified(model, eps) for model in pair] for eps in radii]
    reach = 1.05 * max(np.abs(logits).max(initial=0) for row in wrong for logits in row) or 1.0
    bins = np.linspace(-reach, reach, 161)
    for axes, eps, row in zip(panels, radii, wrong, strict=True):
        place = dict(transform=axes.transAxes, ha="right")
        axes.text(-0.1, 0.8, f"ε = {eps:g}", weight="bold", **place)
        for model, logits, height in zip(pair, row, (0.45, 0.15), strict=True):
            shade, n = style.colour(model.run.settings), len(model.attack.labels)
            look = dict(fc=to_rgba(shade, 0.3)) if model.run.settings.robust else dict(fc=shade)
            share = np.histogram(logits, bins)[0] / max(len(logits), 1)
            label = f"{model.label}, ‖w‖₁ = {np.abs(model.run.w).sum():.1f}"
            axes.stairs(share, bins, fill=True, ec=shade, lw=0.8, label=label, **look)
            kind = "robust" if model.run.settings.robust else "regular"
            words = f"{kind}: {len(logits)} of {n} wrong"
            axes.text(-0.1, height, words, color=shade, fontsize=9, **place)
        axes.axvline(0, color=NOTE, lw=0.8)
    panels[0].set(xlim=(-reach, reach), ylim=(0, None))
    panels[0].yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    panels[0].set_title(f"digit {high}, taken for {low}")
    panels[0].set_title(f"digit {low}, taken for {high}", loc="right")
    panels[-1].set_xlabel("logit of the perturbed image")
    layout.legend(figure, panels[0], 2)
    eps = pair[1].run.settings.eps
    medians = [
        f"{np.median(np.abs(logits)):.2f} ({model.label})"
        for model in pair
        if len(logits := misclassified(model, eps))
    ]
    found = f"Misclassified at ε = {eps:g}: median |logit| {', '.join(medians)}"
    layout.headline(
        figure,
        f"{found if medians else 'Logits of the misclassified'}\n"
        f"Heights: share of the images that the model gets wrong ({trained_by(models)})",
    )
    return figure


def by_log_step(values: np.ndarray, bins: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """The middle and the mean of bins of about equal width on a logarithmic axis of steps."""
    edges = np.unique(np.geomspace(1, len(values) + 1, bins + 1).round().astype(int))
    means = np.add.reduceat(values, edges[:-1] - 1) / np.diff(edges)
    return np.sqrt(edges[:-1] * (edges[1:] - 1)), means


def training(models: list[Model]) -> Figure:
    """Training loss, ‖w‖₁, share of active images and pixels in use, over the training steps.

    The larger the radius of training, the more images stay active and the fewer pixels remain in
    use.

    Numbers: `runs/*.npz`.
    """
    if not all(model.run.steps for model in models):
        raise Missing("an exact minimum has no steps")
    figure = Figure(figsize=(8, 5.7 + 0.2 * -(-len(models) // 4)))
    averaged = {
        "loss": "training loss",
        "active": "share active: worst-case margin below 1",
    }
    exact = {"w_l1": "‖w‖₁", "pixels": f"pixels above {100 * PIXEL_IN_USE:g} % of max |w|"}
    place = dict(left=0.65, top=0.7, width=3.35, height=1.95)
    panels = layout.panels(figure, 2, 2, gap=(0.55, 0.4), sharex=True, **place)
    for axes, (name, title) in zip(panels.T.flat, (averaged | exact).items(), strict=True):
        for model in models:
            values = model.run.steps[name]
            steps = np.arange(1, len(values) + 1)
            if name in averaged:
                steps, values = by_log_step(values)
            axes.plot(steps, values, **style.line(model.run.settings), lw=1.4, label=model.label)
        axes.set(xscale="log", title=title)
        axes.xaxis.set_major_formatter("{x:g}")
        if name in averaged:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
        else:
            axes.set_ylim(0, None)
        axes.minorticks_off()
    for axes in panels[1]:
        axes.set_xlabel("step")
    layout.legend(figure, panels[0, 0], 4)
    layout.headline(figure, f"Training; the left panels are smoothed ({trained_by(models)})")
    return figure
