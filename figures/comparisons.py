"""The figures that compare models, recipes and attacks.

Each takes the stored results of a data set and returns a Figure; it raises Missing where a run, an
attack or a study is not there.
"""

import math

from lab.store import Missing

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures import layout, style
from figures.article import counted, curve, dotted, draw_curve, in_two_lines, scale, stamp
from figures.style import BLACK, BLUE, GREEN, NOTE, ORANGE
from recipes import NORMS
from runs import Model, Results, threat
from worst_case import sparsest

THREATENED = ("regular", "robust-eps0.2", "optimal-eps0.3")
WORTH = (0.3, 0.4)  # radii whose worth as a mean budget the figure budgets marks
SHOWN_AT = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3)  # radii of the pictures of the figure path
SMALLEST = 1e-3  # percent: an excess below is one of the rounding of float32
MODELS = ("regular", "robust-eps0.1", "robust-eps0.2", "robust-eps0.3")


def _stamp(axes, model: Model, title: str) -> None:
    stamp(axes, model.run.w.reshape(model.run.facts["image_shape"][:2]))
    axes.set_title(f"{title}\n{counted(model.run.w)}", fontsize=9)


def attack(results: Results) -> Figure:
    """One test image under the worst attack on each of several models, as pictures and in numbers.

    The attack lowers the margin by ε‖w‖₁, and the model is fooled if no margin is left.

    Pixels with weights near 0 are changed by the full ε, too: this costs next to nothing of the
    margin. Weights are drawn as in model_weights.

    Numbers: `studies/example.npz`, `attacks/linf/*.npz`, `runs/*.npz`.
    """
    results.choose(("regular", "robust-eps0.2"))  # there is an example, then
    shown = results.study("example")
    models, image = results.choose(shown["runs"].tolist()), shown["image"]
    eps, digits = models[1].run.settings.eps, models[0].run.facts["digits"]
    y, (own, other) = -1, digits  # illustrations.py takes an image of the lower digit
    figure = Figure(figsize=(8, 1.1 + 1.2 * len(models)))
    place = dict(left=0.6, top=1.05, width=1.05, height=1.05)
    panels = layout.pictures(figure, len(models), 4, gap=(0.25, 0.15), **place)
    for row, model in zip(panels, models, strict=True):
        w = model.run.w.reshape(image.shape)
        perturbation = -y * eps * np.sign(w)
        margin, size = y * model.attack.logits[shown["index"]], np.abs(w).sum()
        left = margin - eps * size
        stamp(row[0], w)
        row[1].imshow(image, cmap="gray_r", vmin=0, vmax=1)
        dotted(row[2], perturbation, 2 * eps)  # in light colours, so that the dots can be seen
        row[3].imshow(image + perturbation, cmap="gray_r", vmin=-eps, vmax=1 + eps)
        for axes, sign in ((row[1], "+"), (row[2], "=")):
            axes.text(1.12, 0.5, sign, transform=axes.transAxes, ha="center", va="center", size=14)
        if left <= 0:
            row[3].spines[:].set(linewidth=3, color="black")
        row[0].set_ylabel(in_two_lines(model), size=9, weight="bold")
        radius = model.attack.radii[shown["index"]]
        numbers = f"{margin:.2f} − {eps:g} × {size:.2f} ≈ {left:.2f}".replace("-", "−")
        for height, text, weight in (
            (0.87, numbers, "normal"),
            (0.62, f"says {own}: right" if left > 0 else f"says {other}: fooled", "bold"),
            (0.37, f"flips at ε = {radius:.3f}", "normal"),
            (0.12, counted(w), "normal"),
        ):
            look = dict(size=10, weight=weight, va="center", transform=row[3].transAxes)
            row[3].text(1.14, height, text, **look)
    shades = f"white {-eps:g}, black {1 + eps:g}".replace("-", "−")
    for axes, title, note in zip(
        panels[0],
        ("weights", f"test image {shown['index']}", "perturbation", "attacked image"),
        ("white: ≤ 1 % of max", "white 0, black 1", f"±{eps:g}", shades),
        strict=True,
    ):
        axes.set_title(title, size=10, loc="center", pad=18)
        axes.text(0.5, 1.04, note, size=8, ha="center", transform=axes.transAxes)
    place = dict(size=10, transform=panels[0, 3].transAxes)
    panels[0, 3].text(1.14, 1.17, "margin − ε‖w‖₁ = what is left", **place)
    layout.headline(
        figure,
        f"The same {own} under the worst perturbation of at most {eps:g} per pixel\n"
        f"Weights: blue counts for {digits[1]}, dotted orange for {digits[0]}. "
        "Perturbation: blue adds ink, dotted orange removes it.",
    )
    return figure


def optimum(results: Results) -> Figure:
    """Weights and accuracy after the article's recipe, the converged one, and at the minimum.

    From left to right the training loss falls to its minimum, and most weights fade to white.

    White weights are at most 1 % of the largest; the colour is drawn as in model_weights. Each row
    is one radius, so all lines are solid.

    Numbers: `runs/*.npz`, `attacks/linf/*.npz`.
    """
    radii, names = (0.1, 0.2, 0.3), ("article's recipe", "converged recipe", "exact minimum")
    figure = Figure(figsize=(8, 7.3))
    place = dict(top=1.05, height=1.4)
    stamps = layout.pictures(figure, 3, 3, left=0.35, width=1.4, gap=(0.32, 0.55), **place)
    curves = layout.panels(figure, 3, 1, left=5.95, width=1.9, gap=(0, 0.55), **place)[:, 0]
    for row, axes, eps in zip(stamps, curves, radii, strict=True):
        recipe, converged, minimum = results.choose(
            (f"robust-eps{eps}", f"robust-eps{eps}-converged", f"optimal-eps{eps}")
        )
        row[0].set_ylabel(f"trained for ε = {eps}")
        for panel, model, name in zip(row, (recipe, converged, minimum), names, strict=True):
            head = f"{name}\n" * (eps == radii[0])
            _stamp(panel, model, f"{head}loss {model.run.history['train_loss'][-1]:.4f}")
        at = np.linspace(0.025, 0.475, 10)
        draw_curve(axes, recipe, 0.5, label=names[0], ls="-", lw=2.6)
        draw_curve(axes, minimum, 0.5, label=names[2], ls="-", lw=1.4)
        found = [converged.accuracy(eps) for eps in at]
        shade = style.colour(converged.run.settings)
        axes.plot(at, found, "o", color=shade, mfc="white", label=names[1])
        axes.set(xlim=(0, 0.5), ylim=(0, 1.02), ylabel="test accuracy", xticks=(0, 0.2, 0.4))
    curves[2].legend(loc="lower left", handlelength=1.5, fontsize=8)
    curves[-1].set_xlabel("ε (dot: training radius)")
    scale(figure, 1.25, 6.75, recipe.run.facts["digits"])
    head = "Three stages of minimising the robust loss"
    layout.headline(figure, f"{head}: weights (each scaled to its max |w|), accuracy")
    return figure


def init_ablation(results: Results) -> Figure:
    """Weights and accuracy of the regular model, trained from random weights and from zeros.

    Training keeps the noise of random initial weights, which raises ‖w‖₁ and so lowers the accuracy
    under attack.

    Numbers: `runs/regular*.npz`, `attacks/linf/regular*.npz`.
    """
    chosen = results.choose(("regular", "regular-initzeros"))
    names = ("from random weights", "from zeros")
    figure = Figure(figsize=(8, 3.5))
    place = dict(left=0.2, top=1, width=1.75, height=1.75)
    stamps = layout.pictures(figure, 1, 2, gap=(0.2, 0), **place)[0]
    place = dict(left=4.75, top=0.7, width=3.1, height=2.2)
    (axes,) = layout.panels(figure, 1, 1, **place).flat
    for panel, model, name in zip(stamps, chosen, names, strict=True):
        _stamp(panel, model, f"{name}\n‖w‖₁ = {np.abs(model.run.w).sum():.1f}")
        draw_curve(axes, model, 0.5, label=name)
    axes.set(
        xlim=(0, 0.5),
        ylim=(0, 1.01),
        xlabel="radius ε, pixels may leave [0, 1]",
        ylabel="test accuracy",
    )
    axes.legend(loc="upper right")
    scale(figure, 0.95, 2.95, chosen[0].run.facts["digits"], width=2.2)
    noise, zeros = (f"{100 * model.accuracy(0.1):.1f} %" for model in chosen)
    layout.headline(
        figure, f"The regular model keeps {noise} at ε = 0.1; trained from zero weights, {zeros}"
    )
    return figure


def threats(results: Results) -> Figure:
    """Exact accuracy over the radius in three balls, without the box and with pixels in [0, 1].

    A model that is robust in one ball need not be so in another.

    A curve falls vertically where many images flip at the same radius. They do so where a model
    uses few pixels, which are black or white in most images.

    Numbers: `attacks/*/*.npz`.
    """
    attacked = {
        (norm, box): results.models(threat(norm, box)) for box in (False, True) for norm in NORMS
    }
    names = [name for name in THREATENED if all(name in found for found in attacked.values())]
    if not names:
        raise Missing(
            f"{' or '.join(THREATENED)} is needed, attacked in every ball: run python attack.py "
            "with --box, --norm 2, --norm 2 --box, --norm 1, --norm 1 --box"
        )
    figure = Figure(figsize=(8, 5.5))
    place = dict(left=0.65, top=0.95, width=2.25, height=1.6)
    shared = dict(sharex="col", sharey=True)
    panels = layout.panels(figure, 2, 3, gap=(0.2, 0.4), **place, **shared)
    for axes, ((norm, box), found) in zip(panels.flat, attacked.items(), strict=True):
        for name in names:
            model = found[name]
            end = model.attack.eps[-1]
            draw_curve(axes, model, end, label=model.label)
        pixels = "pixels in [0, 1]" if box else "no box"
        axes.set(xlim=(-0.02 * end, end), ylim=(-0.02, 1.02), title=f"{NORMS[norm]}, {pixels}")
    for axes in panels[1]:
        axes.set_xlabel("radius ε (dot: training radius)" if axes is panels[1, 0] else "radius ε")
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy")
    layout.legend(figure, panels[0, 0], 3)
    flat, round_ = (attacked[norm, False][names[-1]] for norm in ("inf", "2"))
    used = flat.run.pixels_in_use
    layout.headline(
        figure,
        f"{flat.label[:1].upper()}{flat.label[1:]} keeps {100 * flat.accuracy(0.2):.1f} % in the "
        "L∞ ball of radius 0.2, and "
        f"{100 * round_.accuracy(2):.1f} % in the L2 ball of radius 2\n"
        f"It uses {used} pixel{'s' * (used > 1)}: images equal in these flip at the same radius",
    )
    return figure


def noise_or_attack(results: Results) -> Figure:
    """Errors under random noise of ±ε in each pixel, beside the worst case of the same size.

    Under random noise errors stay below 0.5 %; in the worst case they exceed 96 %, so noise does
    not measure robustness.

    Numbers: `studies/noise.npz`, `attacks/linf/*.npz`.
    """
    table = results.study("noise")
    figure = Figure(figsize=(8, 3.9))
    place = dict(left=0.8, top=0.75, width=3.3, height=2.55)
    (panels,) = layout.panels(figure, 1, 2, gap=(0.3, 0), sharey=True, **place)
    for axes, name in zip(panels, ("regular", "robust-eps0.2"), strict=True):
        rows = table["run"] == name
        (model,) = results.choose([name])
        eps, random = table["eps"][rows], table["random"][rows]
        at, accuracy = curve(model, eps[-1])
        first = np.flatnonzero(at == 0)[-1]  # behind the images that are wrong without an attack
        look = style.line(model.run.settings)
        axes.plot(at[first:], 1 - accuracy[first:], **look, label="worst case")
        error = 200 * table["error"][rows].max()
        look = dict(ms=5, clip_on=False, label=f"random noise (± {error:.2f} %)")
        axes.plot(eps, 1 - random, "o", color=ORANGE, **look)
        axes.set(title=model.label, xlabel="ε: each pixel changes by +ε or −ε")
        axes.set(xlim=(0, eps[-1]), yscale="log", ylim=(2e-4, 1.3))
        axes.set_yticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"])
        axes.minorticks_off()
    panels[0].legend(loc="center right")
    panels[1].legend(loc="upper left")
    panels[0].set_ylabel("share of wrong test images")
    rows = (table["run"] == "regular") & np.isclose(table["eps"], 0.2)
    worst, random = (f"{100 * (1 - table[name][rows][0]):.2f} %" for name in ("worst", "random"))
    layout.headline(
        figure,
        f"At ε = 0.2 the regular model gets {random} wrong under random noise, "
        f"{worst} in the worst case",
    )
    return figure


def transfer(results: Results) -> Figure:
    """Accuracy of each model (column) under the perturbation computed on another (row), as a map.

    At ε = 0.2 the perturbation that leaves the regular model 0.00 leaves every other model 0.64 or
    more.

    In each column no accuracy is below the framed one, under the model's own perturbation.

    Numbers: `studies/transfer.npz`.
    """
    table = results.study("transfer")
    names = list(dict.fromkeys(table["source"]))
    words = {"-eps": " ε = ", "-initzeros": ", from zeros", "-seed": ", seed "}
    for part, word in words.items():
        names = [name.replace(part, word) for name in names]
    figure = Figure(figsize=(8, 4.75))
    place = dict(left=2.15, top=0.75, width=2.8, height=2.5)
    (panels,) = layout.panels(figure, 1, 2, gap=(0.15, 0), sharey=True, **place)
    for axes, eps in zip(panels, (0.1, 0.2), strict=True):
        rows = np.isclose(table["eps"], eps)
        matrix = table["accuracy"][rows].reshape(len(names), len(names))
        axes.imshow(matrix, cmap="gray", vmin=-0.6, vmax=1, aspect="auto")
        axes.grid(False)
        for (i, k), value in np.ndenumerate(matrix):
            shade = "white" if value < 0.25 else "black"
            axes.text(k, i, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=9)
        for i in range(len(names)):
            frame = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, lw=2.5, clip_on=False, zorder=3)
            axes.add_patch(frame)
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set(title=f"ε = {eps}", xlabel="attacked model")
    panels[0].set_ylabel("perturbation computed on")
    others = np.delete(matrix[:, 0], 0)
    layout.headline(
        figure,
        f"ε = {eps}: {names[0]} keeps {matrix[0, 0]:.2f} under its own perturbation (framed), "
        f"{others.min():.2f} to {others.max():.2f} under those of others",
    )
    return figure


def masking(results: Results) -> Figure:
    """Accuracy that gradient attacks report on a model of raw 0-255 pixels, and the exact one.

    Attacks on the cross-entropy report an accuracy that is far too high, as its gradient is exactly
    0; on the margin, FGSM is exact.

    The logits are so large that the gradient is 0 in float64 as in float32, and gives the attack no
    direction. One model is shown, of seed 0.

    Numbers: `studies/masking.npz`.
    """
    table = results.study("masking")
    figure = Figure(figsize=(8, 3.8))
    axes = figure.subplots()
    axes.plot(table["eps"], table["exact"], color="black", label="exact")
    for name, label, look in (
        ("fgsm_margin", "FGSM on the margin", dict(marker="^")),
        ("fgsm", "FGSM on the cross-entropy", dict(marker="^", mfc="white", ms=8)),
        ("pgd", "PGD, 40 steps, on the cross-entropy", dict(marker="x", ms=8)),
    ):
        axes.plot(table["eps"], table[name], ls="", color=ORANGE, label=label, **look)
    at = np.argmin(np.abs(table["eps"] - 0.2))
    fgsm, pgd, exact = (f"{table[name][at]:.3f}" for name in ("fgsm", "pgd", "exact"))
    axes.set(
        xlabel="radius ε, as a share of the range of the raw pixels, 0 to 255",
        ylabel="test accuracy",
        ylim=(0, 1.04),
        title=f"At ε = {table['eps'][at]:g} FGSM reports {fgsm} and PGD {pgd} on the "
        f"cross-entropy; exact is {exact}",
    )
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
    return figure


def ten_digits(results: Results) -> Figure:
    """Accuracy of three linear classifiers of ten digits in three balls: exact, FGM and PGD.

    Triangles and crosses above the dashes are attacks that miss the worst case.

    Exact accuracies are those of all test images (line) and of the images that the attacks are
    computed on (dashes).

    Numbers: `studies/ten-digits.npz`.
    """
    exact = results.study("ten-digits")
    library = results.study("ten-digits-library", "ten-digits")
    labels = {"logistic": "logistic regression", "svm": "linear SVM", "ridge": "ridge"}
    count = f"{library['images'][0]:.0f} images"
    figure = Figure(figsize=(8, 6.8))
    place = dict(left=0.65, top=0.85, width=2.15, height=1.35)
    shared = dict(sharex="col", sharey=True)
    panels = layout.panels(figure, 3, 3, gap=(0.35, 0.45), **place, **shared)
    for row, name in zip(panels, labels, strict=True):
        for axes, norm in zip(row, NORMS, strict=True):
            for table, column, label, look in (
                (exact, "accuracy", "exact, all images", dict(color=NOTE)),
                (library, "exact", f"exact, {count}", dict(color="black", ls="", marker="_")),
                (library, "fgm", f"FGM, {count}", dict(color=ORANGE, ls="", marker="^")),
                (library, "pgd", f"PGD, {count}", dict(color=ORANGE, ls="", marker="x")),
            ):
                rows = (table["model"] == name) & (table["threat"] == threat(norm, True))
                look |= dict(ms=8, mfc="white", label=label, clip_on=False, zorder=3)
                axes.plot(table["eps"][rows], table[column][rows], **look)
            axes.set(xlim=(0, None), ylim=(0, 1.02), title=f"{labels[name]}, {NORMS[norm]}")
            axes.locator_params(axis="x", nbins=4)
        row[0].set_ylabel("test accuracy")
    for axes in panels[-1]:
        axes.set_xlabel("radius ε")
    layout.legend(figure, panels[0, 0], 4)
    worst = np.argmax(library["fgm"] - library["exact"])
    name, ball, eps = (library[column][worst] for column in ("model", "threat", "eps"))
    exact, fgm, pgd = (f"{library[column][worst]:.2f}" for column in ("exact", "fgm", "pgd"))
    norm = next(norm for norm in NORMS if threat(norm, True) == ball)
    layout.headline(
        figure,
        "Ten digits, pixels kept in [0, 1]: gradient attacks can miss the worst case by far:\n"
        f"{labels[name]} in the {NORMS[norm]} ball of radius {eps:g}: FGM reports {fgm}, "
        f"PGD {pgd}; exact is {exact}",
    )
    return figure


def ten_digits_minimum(results: Results) -> Figure:
    """The certified minimum of all ten digits: its weights as images, and what it can do.

    Trained by gradients the same loss gives the same accuracy; ten classifiers of one digit against
    the rest lose much of it.

    Of each pixel the weight that most digits have is subtracted, which changes no answer. The
    colour is the signed root of a weight's share of the largest. The accuracy is in the L∞ ball,
    and pixels may leave [0, 1].

    Numbers: `studies/ten-digits.npz`.
    """
    table = results.study("ten-digits-models", "ten-digits")
    exact, weights = results.study("ten-digits"), results.study("weights", "ten-digits")
    at = dict(zip(table["model"].tolist(), range(len(table["model"])), strict=True))
    best = "minimum-eps0.05"
    stamps = sparsest(weights[f"{best}_W"])
    size, side = np.abs(stamps).max(), math.isqrt(stamps.shape[1])
    figure = Figure(figsize=(8, 8.05))
    place = dict(left=0.2, top=0.75, width=1.4, height=1.4)
    panels = layout.pictures(figure, 2, 5, gap=(0.15, 0.5), **place)
    for digit, (axes, w) in enumerate(zip(panels.flat, stamps, strict=True)):
        stamp(axes, w.reshape(side, side), size)
        words = counted(w, size, "weights").replace(", ", ",\n")
        axes.set_title(f"{digit}: {words}", size=9, loc="center")
    scale(figure, 2.3, 4.3, ("other digits", "the digit"))
    place = dict(left=0.65, top=5.2, width=3.45, height=2)
    (curves,) = layout.panels(figure, 1, 2, gap=(0.3, 0), sharey=True, **place)
    for axes, eps in zip(curves, (0.05, 0.1), strict=True):
        for name, label, look in (
            (f"minimum-eps{eps}", "certified minimum", dict(color=BLUE, lw=3)),
            (
                f"adam-eps{eps}",
                "the same loss by gradients",
                dict(color=GREEN, ls="", marker="o", mfc="white", ms=5, markevery=2),
            ),
            (f"rest-eps{eps}", "one against the rest", dict(color=ORANGE, ls=(0, style.DASHED))),
            ("logistic", "logistic regression", dict(color=NOTE, lw=1)),
        ):
            rows = (exact["model"] == name) & (exact["threat"] == "linf")
            axes.plot(exact["eps"][rows], exact["accuracy"][rows], label=label, **look)
        least = table[f"loss{eps}"][at[f"minimum-eps{eps}"]]
        axes.axvline(eps, color=NOTE, lw=0.8)
        axes.set(xlim=(0, 1.04 * exact["eps"][rows][-1]), ylim=(0, 1.02), xlabel="radius ε")
        axes.set_title(f"for ε = {eps} (vertical line): least loss {least:.4f}", size=10)
    curves[0].set_ylabel("test accuracy")
    layout.legend(figure, axes, 4)
    used, kept = (table[name][at[best]] for name in ("pixels", "linf0.05"))
    layout.headline(
        figure,
        f"All ten digits, ε = 0.05: the minimum uses {used} of {stamps.shape[1]} pixels, "
        f"and {100 * kept:.1f} % stay right under attack",
    )
    return figure


def referee(results: Results) -> Figure:
    """How near the attacks of three libraries come to the smallest perturbations there are.

    An exact attack has 100 % on the left, and .001 % or less on the right.

    Dots are 100 images of two digits under the regular model, squares 93 of all ten under logistic
    regression, with pixels in [0, 1]. The excess of a perturbation is how much it is larger than
    the exact radius. All are made .001 % longer first, as libraries compute in float32. In each
    ball the best attack comes first. Those without a dot need three classes; those without a mark
    on the right make fewer than half of the images wrong.

    Numbers: `studies/referee.npz`.
    """
    table = results.study("referee")
    names = {threat(norm, True): name for norm, name in (NORMS | {"0": "L0"}).items()}
    columns = (table[name].tolist() for name in ("threat", "attack", "library"))
    keys = list(zip(*columns, strict=True))
    heights, counts, down = {}, {}, 0.0
    for key in dict.fromkeys(keys):
        down += 1.6 * (key[0] not in counts)  # room for the name of the ball
        counts[key[0]] = counts.get(key[0], 0) + 1
        heights[key], down = down, down + 1
    figure = Figure(figsize=(8, 0.175 * down + 1.45))
    place = dict(left=2.5, top=0.75, width=2.4, height=0.175 * down)
    ((shares, excess),) = layout.panels(figure, 1, 2, gap=(0.4, 0), sharey=True, **place)
    at = np.array([heights[key] for key in keys])
    for model, label, look in (
        ("regular", "two digits, regular model", dict(marker="o", color=BLACK, ms=4)),
        ("logistic", "ten digits, logistic", dict(marker="s", color=NOTE, mfc="none", ms=7)),
    ):
        rows = table["model"] == model
        look |= dict(ls="", label=label, clip_on=False, zorder=3)
        shares.plot(100 * table["within"][rows], at[rows], **look)
        rows &= table["never"] <= 0.5
        excess.plot(np.maximum(100 * table["median"][rows], SMALLEST), at[rows], **look)
    shares.set(xlim=(0, 100), title="% of images within 0.1 %")
    excess.set(xscale="log", xlim=(SMALLEST, 300), title="median excess, %")
    excess.set_xticks([0.001, 0.01, 0.1, 1, 10, 100], ["≤ .001", ".01", ".1", "1", "10", "100"])
    excess.minorticks_off()
    excess.axvline(0.1, color=NOTE, lw=0.8)
    words = [f"{attack} ({library})" for _, attack, library in heights]
    shares.set_yticks(list(heights.values()), words, fontsize=8.5)
    shares.set_ylim(down - 0.3, -0.1)
    for ball in counts:
        first = min(height for key, height in heights.items() if key[0] == ball)
        shares.text(-2, first - 0.95, names[ball], weight="bold", size=10, ha="right", va="center")
        for axes in (shares, excess):
            axes.axhline(first - 0.95, color=NOTE, lw=0.6)
    layout.legend(figure, shares, 2)
    best = {key for key, share in zip(keys, table["within"], strict=True) if share == 1}
    layout.headline(
        figure,
        f"{len(best)} of {len(heights)} attacks come within 0.1 % of the smallest perturbation on "
        "every image\nof two digits, none on those of ten; none finds a smaller one",
    )
    return figure


def path(results: Results) -> Figure:
    """The best possible model at each radius: its loss, pixels, accuracy, and weights at six radii.

    On the whole, the larger the radius, the fewer pixels the best model uses; beyond ε = 0.471 it
    uses none.

    No linear model has a smaller robust loss than the blue line in the first panel. The colour of a
    weight is the signed root of its share of the largest.

    Numbers: `studies/path.npz`, `runs/*.npz`, `attacks/linf/*.npz`.
    """
    grid, table = results.study("path"), results.study("path-models", "path")
    models = results.choose(MODELS)
    converged = results.choose([f"{name}-converged" for name in MODELS[1:]])
    facts = models[0].run.facts
    eps, margin, end = grid["eps"], table["radii"][0], table["radii"][-1]
    figure = Figure(figsize=(8, 10.4))
    place = dict(left=0.65, top=0.65, width=7.15, height=1.85)
    loss, pixels, accuracy = layout.panels(figure, 3, 1, gap=(0, 0.4), sharex=True, **place)[:, 0]

    loss.plot(*_steep(eps, grid["primal"], margin), color=BLUE, label="least possible")
    for group, name, look in (
        (models[1:], "article's recipe", dict(marker="o")),
        (converged, "converged recipe", dict(marker="o", mfc="white", ms=8)),
    ):
        for k, model in enumerate(group):
            settings = model.run.settings
            loss.plot(
                settings.eps,
                model.run.history["train_loss"][-1],
                color=style.colour(settings),
                ls="",
                label=name if k == 1 else None,
                **look,
            )
    loss.set(ylabel="robust loss (train)", ylim=(-0.02, 1.02))
    loss.set_title(f"The least robust loss is 0 up to ε = {margin:.3f}, then it grows", size=10)
    loss.legend(loc="upper left", bbox_to_anchor=(0.1, 1))

    radii = np.append(table["radii"], eps[-1])
    used = np.diff(table["w_indptr"])
    pixels.step(np.append(0, radii), np.append(used[0], used), color=BLUE, where="pre", lw=1.2)
    pixels.set(ylabel="pixels in use", ylim=(0, None))
    two, one = (table["radii"][np.flatnonzero(used > count)[-1]] for count in (2, 1))
    pixels.set_title(
        f"Its pixels: {used.max()} at most, 2 beyond ε = {two:.3f}, 1 beyond {one:.3f}, "
        f"none beyond {end:.3f}",
        size=10,
    )
    for at in SHOWN_AT:
        pixels.axvline(at, color=NOTE, lw=0.6, ls=(0, style.DOTTED))
    words = f"beyond ε = {end:.3f}\nall weights are 0"
    pixels.text(end - 0.004, 0.6 * used.max(), words, color=NOTE, ha="right", size=9)

    for model in models:
        draw_curve(accuracy, model, eps[-1], label=model.label, lw=1.3)
    some = eps < end  # no model tells the digits apart beyond
    for part, dash in (("test", style.SOLID), ("train", style.DOTTED)):
        accuracy.plot(
            eps[some],
            grid[f"{part}_accuracy"][some],
            color=BLUE,
            lw=2.6 if part == "test" else 1.4,
            ls=(0, dash) if dash else "-",
            label=f"best model of each ε, {part}",
        )
    accuracy.set(ylabel="accuracy at ε", ylim=(0, 1.02), xlim=(0, eps[-1]), xlabel="radius ε")
    last = 100 * grid["test_accuracy"][some][-1]
    accuracy.set_title(
        f"Its accuracy at this ε: still {last:.0f} % of the test images just before {end:.3f} "
        "(dots: training radii)",
        size=10,
    )
    accuracy.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    for axes in (loss, pixels, accuracy):
        axes.axvline(end, color=NOTE, lw=1)

    place = dict(left=0.5, top=8.45, width=1.05, height=1.05)
    stamps = layout.pictures(figure, 1, len(SHOWN_AT), gap=(0.2, 0), **place)[0]
    for at, axes in zip(SHOWN_AT, stamps, strict=True):
        weights = _weights_at(table, at).reshape(facts["image_shape"][:2])
        stamp(axes, weights)
        words = counted(weights).replace(", ", ",\n")
        axes.set_title(f"ε = {at:g}\n{words}", size=9, loc="center")
    scale(figure, 2.3, 9.7, facts["digits"])
    words = "Weights of the best model at the dotted radii, each scaled to its max |w|"
    figure.text(0.5, 0.01, words, ha="center", size=10)
    layout.headline(figure, "The best possible linear model for each radius ε, and what it can do")
    return figure


def budgets(results: Results) -> Figure:
    """The least loss if every image moves by at most ε, or the mean of all; models under both.

    Both have the same best models: the radius ε of each image is worth the mean budget ε times the
    least loss there (grey lines).

    Left is the training loss, right the test accuracy. A mean budget flips the images of the
    smallest radii, and leaves the others as they are. Pixels may leave [0, 1]. The exact minimum
    uses two pixels, and so many images have the same radius: there it drops.

    Numbers: `studies/path.npz`, `attacks/linf/*.npz`.
    """
    grid, table = results.study("path"), results.study("path-models", "path")
    models = results.choose(THREATENED)
    end, margin = grid["eps"][-1], table["radii"][0]
    figure = Figure(figsize=(8, 4.1))
    place = dict(top=0.85, height=2.45)
    (loss,) = layout.panels(figure, 1, 1, left=0.6, width=3.1, **place).flat
    shared = dict(gap=(0.2, 0), sharey=True)
    each, mean = layout.panels(figure, 1, 2, left=4.4, width=1.65, **place, **shared)[0]

    loss.plot(*_steep(grid["eps"], grid["primal"], margin), color=ORANGE)
    loss.plot(grid["eps"], mean_minimum(table, grid["eps"]), color=ORANGE, ls=(0, style.DASHED))
    for eps in WORTH:
        value = np.interp(eps, grid["eps"], grid["primal"])
        worth = eps * value
        loss.plot([worth, eps], [value, value], "o-", color=NOTE, lw=1, ms=4)
        words = f"{eps:g} × {value:.3f} = {worth:.3f}"
        loss.text((worth + eps) / 2, value + 0.015, words, color=NOTE, size=9, ha="center")
    loss.text(0.26, 0.7, "mean of all\nimages ≤ ε", ha="right", size=9)
    loss.text(0.44, 0.5, "every\nimage ≤ ε", ha="right", size=9)
    loss.set(xlim=(0, end), ylim=(0, 1.02), xlabel="ε (size: the largest change of a pixel)")
    loss.set(ylabel="least robust loss (train)")

    for axes, budget, title in (
        (each, "each", "every image ≤ ε"),
        (mean, "mean", "mean of all ≤ ε"),
    ):
        for model in models:
            look = style.line(model.run.settings)
            axes.plot(*curve(model, end, budget), label=model.label, **look)
        axes.set(xlim=(0, end), ylim=(0, 1.02), xlabel="ε")
        axes.set_title(title, size=10)
        axes.set_xticks([0, 0.2, 0.4])
    loss.set_title("the least loss of any model", size=10)
    each.set_ylabel("test accuracy")
    layout.legend(figure, each, 3)
    layout.headline(
        figure,
        "Both budgets have the same best models:\n"
        "ε for every image equals a mean budget of ε times the least loss (grey lines)",
    )
    return figure


def mean_minimum(table: dict[str, np.ndarray], eps: np.ndarray) -> np.ndarray:
    """The least largest hinge (k,) if the mean perturbation is at most eps (k,).

    `table` has the models of the path: those of every budget of each image are those of the mean.
    """
    return (table["p"] + eps[:, None] * table["s"]).min(axis=1)


def _steep(eps, least, margin) -> tuple[np.ndarray, np.ndarray]:
    """The curve with its jump at the margin of the training set."""
    k = np.searchsorted(eps, margin)
    return np.insert(eps, k, [margin, margin]), np.insert(least, k, [0, least[k]])


def _weights_at(table, eps: float) -> np.ndarray:
    """The weights (784,) of the best model at a radius."""
    k = np.searchsorted(table["radii"], eps, side="right")
    chosen = slice(*table["w_indptr"][k : k + 2])
    w = np.zeros(784)
    w[table["w_indices"][chosen]] = table["w_data"][chosen]
    return w
