"""The figures that compare models, recipes and attacks.

Each takes the stored results of a data set and returns a Figure; it raises Missing where a run, an
attack or a study is not there.
"""

import math

from lab.store import Missing

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures import style
from figures.article import STAMP, curve, draw_curve, stamp
from figures.style import BLUE, GREEN, NOTE, ORANGE
from recipes import NORMS
from runs import Model, Results, threat
from worst_case import sparsest

FOR_AND_AGAINST = LinearSegmentedColormap.from_list("ten", ["#e0862f", "white", "#1b2a8c"])
THREATENED = ("regular", "robust-eps0.2", "optimal-eps0.3")
SHOWN_AT = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3)  # radii of the pictures of the figure path
MODELS = ("regular", "robust-eps0.1", "robust-eps0.2", "robust-eps0.3")


def _stamp(axes, model: Model, title: str) -> None:
    stamp(axes, model.run)
    axes.set_title(f"{title}\n{model.run.pixels_in_use} pixels > 1 %", fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)


def attack(results: Results) -> Figure:
    """One test image under the worst attack on each of several models, as pictures and in numbers.

    The attack lowers the margin by ε‖w‖₁, and the model is fooled if no margin is left. Pixels with
    weights near 0 are pushed by the full ε, too: these pushes cost next to nothing of the margin.

    The image and the attacked image have one grey scale, from -eps to 1 + eps.

    Numbers: `studies/example.npz`, `attacks/linf/*.npz`, `runs/*.npz`.
    """
    results.choose(("regular", "robust-eps0.2"))  # there is an example, then
    shown = results.study("example")
    models, image = results.choose(shown["runs"].tolist()), shown["image"]
    eps, digits = models[1].run.settings.eps, models[0].run.facts["digits"]
    y, (own, other) = -1, digits  # illustrations.py takes an image of the lower digit
    figure = Figure(figsize=(8, 1 + 1.35 * len(models)))
    panels = figure.subplots(len(models), 5, width_ratios=(1, 1, 1, 1, 1.9))
    for row, model in zip(panels, models, strict=True):
        w, size = model.run.w, np.abs(model.run.w)
        push = -y * eps * np.sign(w).reshape(image.shape)
        margin = y * model.attack.logits[shown["index"]]
        left = margin - eps * size.sum()
        stamp(row[0], model.run)
        row[1].imshow(image, cmap="gray_r", vmin=-eps, vmax=1 + eps)
        row[2].imshow(push, cmap=STAMP, vmin=-2 * eps, vmax=2 * eps)
        row[3].imshow(image + push, cmap="gray_r", vmin=-eps, vmax=1 + eps)
        for axes in row[:4]:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(True)
        for axes, sign in ((row[1], "+"), (row[2], "=")):
            axes.text(1.12, 0.5, sign, transform=axes.transAxes, ha="center", va="center", size=14)
        if left <= 0:
            row[3].spines[:].set(linewidth=3, color="black")
        row[0].set_ylabel(model.label.replace(" ε", "\nε"), size=10, weight="bold")
        radius = model.attack.radii[shown["index"]]
        numbers = f"{margin:.2f} − {eps:g} × {size.sum():.2f} = {left:.2f}".replace("-", "−")
        row[4].axis("off")
        row[4].set_box_aspect(1 / 1.9)  # as high as the pictures
        for height, text, weight in (
            (0.78, numbers, "normal"),
            (0.5, f"says {own}: right" if left > 0 else f"says {other}: fooled", "bold"),
            (0.22, f"flips at ε = {radius:.3f}", "normal"),
        ):
            row[4].text(0, height, text, size=11, weight=weight, va="center")
    titles = ("weights", f"test image {shown['index']}", f"worst push, ±{eps:g}", "attacked image")
    for axes, title in zip(panels[0, :4], titles, strict=True):
        axes.set_title(title, size=10, loc="center")
    shades = f"white {-eps:g}, black {1 + eps:g}".replace("-", "−")
    notes = "green: near 0", shades, f"dark +{eps:g}, light −{eps:g}", shades
    for axes, note in zip(panels[-1, :4], notes, strict=True):
        axes.set_xlabel(note, size=8.5)
    panels[0, 4].set_title("margin − ε‖w‖₁ = what is left", size=10)
    figure.suptitle(
        f"The same {own} under attack: each pixel may change by at most {eps:g}\n"
        f"Weights: black counts for {digits[1]}, white for {digits[0]}. "
        "Push: dark adds ink, light removes it."
    )
    return figure


def optimum(results: Results) -> Figure:
    """Weights and accuracy after the article's recipe, the converged one, and at the minimum.

    From left to right the training loss falls to its minimum; compare the number of weights above
    1 % of the largest.

    Numbers: `runs/*.npz`, `attacks/linf/*.npz`.
    """
    radii, names = (0.1, 0.2, 0.3), ("article's recipe", "converged recipe", "exact minimum")
    figure = Figure(figsize=(8, 7.4))
    figure.set_layout_engine("constrained", w_pad=0.09)
    panels = figure.subplots(3, 4, width_ratios=(1, 1, 1, 1.7))
    for row, eps in zip(panels, radii, strict=True):
        recipe, converged, minimum = results.choose(
            (f"robust-eps{eps}", f"robust-eps{eps}-converged", f"optimal-eps{eps}")
        )
        row[0].set_ylabel(f"trained for ε = {eps}")
        for axes, model, name in zip(row, (recipe, converged, minimum), names, strict=False):
            head = f"{name}\n" * (eps == radii[0])
            _stamp(axes, model, f"{head}loss {model.run.history['train_loss'][-1]:.4f}")
        at = np.linspace(0.025, 0.475, 10)
        draw_curve(row[3], recipe, 0.5, label=names[0], lw=2.6)
        draw_curve(row[3], minimum, 0.5, label=names[2], lw=1.4)
        found = [converged.accuracy(eps) for eps in at]
        shade = style.colour(converged.run.settings)
        row[3].plot(at, found, "o", color=shade, mfc="white", label=names[1])
        row[3].set(xlim=(0, 0.5), ylim=(0, 1.02), title="test accuracy")
        row[3].legend(loc="lower left", handlelength=3.2, fontsize=8)
    panels[-1, 3].set_xlabel(r"radius $\epsilon$ (dot: training radius)")
    figure.suptitle(
        "Three stages of minimising the robust loss: weights (each scaled to its max |w|), accuracy"
    )
    return figure


def init_ablation(results: Results) -> Figure:
    """Weights and accuracy of the regular model, trained from random weights and from zeros.

    Training with the plain hinge keeps the noise of random initial weights, which raises ‖w‖₁ and
    so lowers the accuracy under attack.

    Numbers: `runs/regular*.npz`, `attacks/linf/regular*.npz`.
    """
    chosen = results.choose(("regular", "regular-initzeros"))
    names = ("from random weights", "from zeros")
    figure = Figure(figsize=(8, 3.4))
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.8))
    for axes, model, name in zip(panels, chosen, names, strict=False):
        _stamp(axes, model, f"{name}\n‖w‖₁ = {np.abs(model.run.w).sum():.1f}")
        draw_curve(panels[2], model, 0.5, label=name)
    panels[2].set(
        xlim=(0, 0.5),
        ylim=(0, 1.01),
        xlabel="radius ε, pixels may leave [0, 1]",
        title="test accuracy",
    )
    panels[2].legend()
    noise, zeros = (f"{100 * model.accuracy(0.1):.1f} %" for model in chosen)
    figure.suptitle(
        f"The regular model keeps {noise} at ε = 0.1; trained from zero weights, {zeros}"
    )
    return figure


def radii(results: Results) -> Figure:
    """Histograms, one for each model: the smallest perturbation that flips each test image.

    The further right a histogram lies, the larger the perturbations that the model withstands; the
    line is the median.

    Numbers: `attacks/linf/*.npz`.
    """
    chosen = results.choose(MODELS)
    figure = Figure(figsize=(8, 6))
    panels = figure.subplots(len(chosen), 1, sharex=True, sharey=True)
    bins = np.linspace(0, 0.6, 61)
    for axes, model in zip(panels, chosen, strict=True):
        found = np.maximum(model.attack.radii, 0)
        median, shade = np.median(found), style.colour(model.run.settings)
        axes.hist(np.minimum(found, 0.6), bins, color=shade, alpha=0.6)
        axes.axvline(median, color=shade)
        axes.set_title(f"{model.label}: half flip below ε = {median:.3f}", fontsize=10)
        axes.set_ylabel("images")
    panels[-1].set_xlabel("smallest ε that flips the image (L∞, pixels may leave [0, 1])")
    count = len(chosen[0].attack.radii)
    figure.suptitle(
        f"The radius of each of {count} test images (0: misclassified without an attack)"
    )
    return figure


def threats(results: Results) -> Figure:
    """Exact accuracy over the radius in three balls, without the box and with pixels in [0, 1].

    A model that is robust in one ball need not be so in another.

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
    figure = Figure(figsize=(8, 5.4))
    panels = figure.subplots(2, 3, sharex="col", sharey=True)
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
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    flat, round_ = (attacked[norm, False][names[-1]] for norm in ("inf", "2"))
    figure.suptitle(
        f"{flat.label} keeps {100 * flat.accuracy(0.2):.1f} % in the L∞ ball of radius 0.2, and "
        f"{100 * round_.accuracy(2):.1f} % in the L2 ball of radius 2"
    )
    return figure


def noise_or_attack(results: Results) -> Figure:
    """Accuracy under random noise of ±ε in each pixel, beside the worst case of the same size.

    Random noise of the same size hardly lowers the accuracy, so it does not measure robustness.

    Numbers: `studies/noise.npz`, `attacks/linf/*.npz`.
    """
    table = results.study("noise")
    figure = Figure(figsize=(8, 3.6))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("regular", "robust-eps0.2"), strict=True):
        rows = table["run"] == name
        (model,) = results.choose([name])
        eps, random = table["eps"][rows], table["random"][rows]
        axes.plot(*curve(model, eps[-1]), **style.line(model.run.settings), label="worst case")
        error = 2 * table["error"][rows].max()
        axes.plot(eps, random, "o", color=ORANGE, ms=5, label=f"random noise (± {error:.4f})")
        axes.plot(eps, table["normal"][rows], color=ORANGE, lw=1, label="its normal approximation")
        axes.set(title=model.label, xlabel="ε: each pixel moves by +ε or −ε")
        axes.set(xlim=(0, eps[-1]), ylim=(0, 1.02))
        axes.legend(loc="center right" if model.accuracy(eps[-1] / 2) < 0.5 else "center left")
    panels[0].set_ylabel("test accuracy")
    rows = (table["run"] == "regular") & np.isclose(table["eps"], 0.2)
    worst, random = (f"{100 * table[name][rows][0]:.1f} %" for name in ("worst", "random"))
    figure.suptitle(
        f"The regular model at ε = 0.2 keeps {random} under random noise, {worst} in the worst case"
    )
    return figure


def transfer(results: Results) -> Figure:
    """Accuracy of each model (column) under the perturbation computed on another (row), as a map.

    Read by column: no accuracy is below the framed one, under the model's own perturbation.

    Numbers: `studies/transfer.npz`.
    """
    table = results.study("transfer")
    names = list(dict.fromkeys(table["source"]))
    words = {"-eps": " ε = ", "-initzeros": ", from zeros", "-seed": ", seed "}
    for part, word in words.items():
        names = [name.replace(part, word) for name in names]
    figure = Figure(figsize=(8, 4.8))
    for axes, eps in zip(figure.subplots(1, 2, sharey=True), (0.1, 0.2), strict=True):
        rows = np.isclose(table["eps"], eps)
        matrix = table["accuracy"][rows].reshape(len(names), len(names))
        axes.imshow(matrix, cmap="gray", vmin=-0.6, vmax=1, aspect="auto")
        axes.grid(False)
        for (i, k), value in np.ndenumerate(matrix):
            shade = "white" if value < 0.25 else "black"
            axes.text(k, i, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=9)
        for i in range(len(names)):
            axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, lw=2.5))
        axes.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.set(title=f"ε = {eps}", xlabel="attacked model")
    figure.axes[0].set_ylabel("perturbation computed on")
    others = np.delete(matrix[:, 0], 0)
    figure.suptitle(
        f"ε = {eps}: {names[0]} keeps {matrix[0, 0]:.2f} under its own perturbation (framed), "
        f"{others.min():.2f} to {others.max():.2f} under those of others"
    )
    return figure


def masking(results: Results) -> Figure:
    """Accuracy that gradient attacks report on a model of raw 0-255 pixels, and the exact one.

    Attacks on the cross-entropy report an accuracy that is far too high: logits are so large that
    its gradient is exactly 0, in float64 as in float32, so they see no direction to move in; on the
    margin, FGSM is exact. One model is shown, of seed 0.

    Numbers: `studies/masking.npz`.
    """
    table = results.study("masking")
    figure = Figure(figsize=(8, 4))
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
        xlabel="radius ε, as a share of the pixel range",
        ylabel="test accuracy",
        ylim=(0, 1.04),
        title=f"One model, seed 0: at ε = {table['eps'][at]:g} FGSM reports {fgsm} and PGD {pgd}; "
        f"exact is {exact}",
    )
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.92))
    return figure


def ten_digits(results: Results) -> Figure:
    """Accuracy of three linear classifiers of ten digits in three balls: exact, FGM and PGD.

    Marks above the curve are attacks that miss the worst case; the marks are of some test images,
    the curve of all.

    Numbers: `studies/ten-digits.npz`.
    """
    exact = results.study("ten-digits")
    library = results.study("ten-digits-library", "ten-digits")
    labels = {"logistic": "logistic regression", "svm": "linear SVM", "ridge": "ridge"}
    count = f"{library['images'][0]:.0f} images"
    figure = Figure(figsize=(8, 7))
    panels = figure.subplots(3, 3, sharex="col", sharey=True)
    for row, name in zip(panels, labels, strict=True):
        for axes, norm in zip(row, NORMS, strict=True):
            for table, column, look in (
                (exact, "accuracy", dict(color=NOTE, label="exact")),
                (library, "fgm", dict(color=ORANGE, ls="", marker="^", label=f"FGM, {count}")),
                (library, "pgd", dict(color=ORANGE, ls="", marker="x", label=f"PGD, {count}")),
            ):
                rows = (table["model"] == name) & (table["threat"] == threat(norm, True))
                axes.plot(table["eps"][rows], table[column][rows], ms=8, mfc="white", **look)
            axes.set(xlim=(0, None), ylim=(0, 1.02), title=f"{labels[name]}, {NORMS[norm]}")
            axes.locator_params(axis="x", nbins=4)
        row[0].set_ylabel("test accuracy")
    for axes in panels[-1]:
        axes.set_xlabel("radius ε")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    fgm, pgd = (f"{(library[name] - library['exact']).max():.2f}" for name in ("fgm", "pgd"))
    figure.suptitle(
        f"Ten digits, pixels kept in [0, 1]: FGM reports up to {fgm} too much, PGD up to {pgd}"
    )
    return figure


def ten_digits_minimum(results: Results) -> Figure:
    """The certified minimum of all ten digits: its weights as images, and what it can do.

    Few pixels are in use. Trained by gradients the same loss gives the same accuracy; ten
    classifiers of one digit against the rest lose much of it.

    Of each pixel the weight that most digits have is subtracted, which changes no answer. Weights
    of more than half of the largest have its colour, and a dot marks those against the digit. The
    accuracy is in the L∞ ball, and pixels may leave [0, 1].

    Numbers: `studies/ten-digits.npz`.
    """
    table = results.study("ten-digits-models", "ten-digits")
    exact, weights = results.study("ten-digits"), results.study("weights", "ten-digits")
    at = dict(zip(table["model"].tolist(), range(len(table["model"])), strict=True))
    best = "minimum-eps0.05"
    stamps = sparsest(weights[f"{best}_W"])
    size, side = np.abs(stamps).max(), math.isqrt(stamps.shape[1])
    figure = Figure(figsize=(8, 7.4))
    above, below = figure.subfigures(2, 1, height_ratios=(1.3, 1))
    panels = above.subplots(2, 5)
    for digit, (axes, w) in enumerate(zip(panels.flat, stamps, strict=True)):
        picture = axes.imshow(
            w.reshape(side, side) / size, cmap=FOR_AND_AGAINST, vmin=-0.5, vmax=0.5
        )
        row, column = np.nonzero(w.reshape(side, side) < -0.05 * size)
        axes.plot(column, row, ".", color="#7a3d00", ms=2, mew=0)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)
        axes.set_title(f"{digit}: {np.count_nonzero(w)} weights", size=10, loc="center")
    bar = above.colorbar(
        picture, ax=panels, orientation="horizontal", fraction=0.05, shrink=0.7, aspect=40
    )
    bar.set_ticks([-0.5, 0, 0.5], labels=["dots: against the digit", "0", "for the digit"])
    bar.outline.set_visible(False)
    for axes, eps in zip(below.subplots(1, 2, sharey=True), (0.05, 0.1), strict=True):
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
        axes.set_title(f"trained for ε = {eps} (vertical line): least loss {least:.4f}", size=10)
    below.axes[0].set_ylabel("test accuracy")
    below.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    used, kept = (table[name][at[best]] for name in ("pixels", "linf0.05"))
    figure.suptitle(
        f"All ten digits, ε = 0.05: the model of least loss uses {used} of {stamps.shape[1]} "
        f"pixels; under attack it is right on {100 * kept:.1f} %"
    )
    return figure


def path(results: Results) -> Figure:
    """The best possible model at each radius: its loss, pixels, accuracy, and weights at six radii.

    The larger the radius, the fewer pixels the best model uses; beyond the last radius it uses
    none. No linear model has a smaller robust loss than the blue line in the first panel.

    Numbers: `studies/path.npz`, `runs/*.npz`, `attacks/linf/*.npz`.
    """
    grid, table = results.study("path"), results.study("path-models", "path")
    models = results.choose(MODELS)
    converged = results.choose([f"{name}-converged" for name in MODELS[1:]])
    eps, margin, end = grid["eps"], table["radii"][0], table["radii"][-1]
    figure = Figure(figsize=(8, 9.6))
    panels, stamps = figure.subfigures(2, 1, height_ratios=(7.4, 2))
    loss, pixels, accuracy = panels.subplots(3, 1, sharex=True, height_ratios=(1, 0.8, 1.1))

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
    loss.set_title(f"The least robust loss: 0 up to ε = {margin:.3f}, then it grows", size=10)
    loss.legend(loc="upper left", bbox_to_anchor=(0.1, 1))

    radii = np.append(table["radii"], eps[-1])
    used = np.diff(table["w_indptr"])
    pixels.step(np.append(0, radii), np.append(used[0], used), color=BLUE, where="pre", lw=1.2)
    pixels.set(ylabel="pixels in use", ylim=(0, None))
    few = table["radii"][np.flatnonzero(used > 4)[-1]]
    one = table["radii"][np.flatnonzero(used > 1)[-1]]
    pixels.set_title(
        f"Its pixels: {used.max()} at most, 4 or fewer beyond ε = {few:.3f}, 1 beyond {one:.3f}, "
        f"none beyond {end:.3f}",
        size=10,
    )
    for at in SHOWN_AT:
        pixels.axvline(at, color=NOTE, lw=0.6, ls=(0, style.DOTTED))

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
    accuracy.legend(loc="lower left", bbox_to_anchor=(0.22, 0.02), fontsize=8)
    for axes in (loss, pixels, accuracy):
        axes.axvline(end, color=NOTE, lw=1)

    for at, axes in zip(SHOWN_AT, stamps.subplots(1, len(SHOWN_AT)), strict=True):
        weights = _weights_at(table, at)
        axes.imshow(weights.reshape(28, 28), cmap=STAMP, vmin=-1, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.grid(False)
        axes.set_title(f"ε = {at:g}\n{np.count_nonzero(weights)} pixels", size=10, loc="center")
    stamps.supxlabel(
        "Weights of the best model at the dotted radii (black counts for 1, white for 0),\n"
        "each scaled to its max |w|; at 0.2 most are too small to be seen",
        size=10,
    )
    figure.suptitle("The best possible linear model for each radius ε, and what it can do")
    return figure


def _steep(eps, least, margin) -> tuple[np.ndarray, np.ndarray]:
    """The curve with its jump at the margin of the training set."""
    k = np.searchsorted(eps, margin)
    return np.insert(eps, k, [margin, margin]), np.insert(least, k, [0, least[k]])


def _weights_at(table, eps: float) -> np.ndarray:
    """The weights (784,) of the best model at a radius, divided by the largest."""
    k = np.searchsorted(table["radii"], eps, side="right")
    chosen = slice(*table["w_indptr"][k : k + 2])
    w = np.zeros(784)
    w[table["w_indices"][chosen]] = table["w_data"][chosen]
    return w / (np.abs(w).max() or 1)
