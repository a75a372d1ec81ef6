"""The figures that compare models across recipes: what the article's claim rests on.

Each takes the stored results of a data set and returns a Figure; it raises Missing where a run, an
attack or a study is not there.
"""

from common.runs import Missing, Model, Results, threat

import numpy as np
from matplotlib.figure import Figure

from figures.article import STAMP, STYLES, curve
from figures.method import DARK, GREEN, GREY
from recipes import NORMS

SHADES = ("black", "#6fc48f", GREEN, DARK)
THREATENED = ("regular", "robust-eps0.2", "robust-eps0.2-converged")
MODELS = ("regular", "robust-eps0.1", "robust-eps0.2", "robust-eps0.3")


def _stamp(axes, model: Model, title: str) -> None:
    run = model.run
    size = np.abs(run.w).max() or 1.0
    axes.imshow(run.w.reshape(run.config["image_shape"][:2]) / size, cmap=STAMP, vmin=-1, vmax=1)
    axes.set_title(f"{title}\n{run.pixels_in_use} pixels > 1 %", fontsize=9)
    axes.axis("off")


def _curves(axes, models: list[Model], labels: list[str], end: float = 0.5) -> None:
    """Exact accuracy over the radius, one line per model."""
    shades = ("black", GREEN, "#6fc48f")
    for model, label, shade, style in zip(models, labels, shades, STYLES, strict=False):
        axes.plot(*curve(model, end), color=shade, ls=style, label=label, lw=1.6)
    axes.set(xlim=(0, end), ylim=(0, 1.01), xlabel=r"radius $\epsilon$ (no pixel box)")


def optimum(results: Results) -> Figure:
    """Stamps and curves of the article's recipe, the converged one, and the exact minimum."""
    radii = (0.1, 0.2, 0.3)
    figure = Figure(figsize=(8, 8.4))
    panels = figure.subplots(3, 4, width_ratios=(1, 1, 1, 1.5))
    names = ("article's recipe", "converged", "exact minimum")
    for row, eps in zip(panels, radii, strict=True):
        chosen = results.choose(
            (f"robust-eps{eps}", f"robust-eps{eps}-converged", f"optimal-eps{eps}")
        )
        for axes, model, name in zip(row, chosen, names, strict=False):
            _stamp(axes, model, f"{name}\nloss {model.run.history['train_loss'][-1]:.4f}")
        _curves(row[3], chosen, names)
        row[3].axvline(eps, color=GREY, lw=1, ls=":")
        row[3].set_title(rf"$\epsilon$ = {eps}", fontsize=10)
        row[3].set_ylabel("test accuracy")
    handles = panels[0, 3].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    figure.suptitle("How far training goes: weights (each to its own max |w|) and accuracy")
    return figure


def init_ablation(results: Results) -> Figure:
    """The regular model from Glorot and from zero weights: what is initial noise."""
    chosen = results.choose(("regular", "regular-initzeros"))
    names = ("from Glorot noise", "from zeros")
    figure = Figure(figsize=(8, 3.2))
    panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.8))
    for axes, model, name in zip(panels, chosen, names, strict=False):
        _stamp(axes, model, f"{name}\n‖w‖₁ = {np.abs(model.run.w).sum():.1f}")
    _curves(panels[2], chosen, names)
    panels[2].set_ylabel("test accuracy")
    panels[2].legend()
    figure.suptitle("The regular model, by its initial weights (each to its own max |w|)")
    return figure


def radii(results: Results) -> Figure:
    """The smallest perturbation that flips each test sample, per model."""
    chosen = results.choose(MODELS)
    figure = Figure(figsize=(8, 5))
    panels = figure.subplots(len(chosen), 1, sharex=True)
    bins = np.linspace(0, 0.6, 121)
    for axes, model, shade in zip(panels, chosen, SHADES, strict=True):
        found = model.attack.samples["radii"]
        axes.hist(np.clip(found, 0, 0.6), bins, color=shade, alpha=0.5)
        median = np.median(found)
        axes.axvline(median, color=shade)
        axes.annotate(
            f"{model.label}: half flip below {median:.3f}",
            (0.42 if median < 0.2 else 0.02, 0.75),
            xycoords="axes fraction",
        )
        axes.set_ylabel("images")
    panels[-1].set_xlabel(r"smallest $\epsilon$ that flips the image ($L_\infty$, no pixel box)")
    count = len(chosen[0].attack.samples["radii"])
    figure.suptitle(f"The radius of each of {count} test images (at 0: wrong from the start)")
    return figure


def threats(results: Results) -> Figure:
    """Exact accuracy under each threat model: three balls, without and with the pixel box."""
    cases = [(norm, box) for norm in NORMS for box in (False, True)]
    attacked = {case: results.models(threat(*case)) for case in cases}
    names = [name for name in THREATENED if all(name in found for found in attacked.values())]
    if not names:
        raise Missing(
            f"{' or '.join(THREATENED)} is needed, attacked in every ball: run python attack.py "
            "with --box, --norm 2, --norm 2 --box, --norm 1, --norm 1 --box"
        )
    figure = Figure(figsize=(8, 3.8))
    panels = figure.subplots(1, 3, sharey=True)
    for name, shade in zip(names, (SHADES[0], GREEN, "#6fc48f"), strict=False):
        for (norm, box), found in attacked.items():
            model = found[name]
            end = model.attack.accuracy["eps"][-1]
            axes = panels[list(NORMS).index(norm)]
            label = name + ", box" * box
            style = "--" if box else "-"
            width = 1 + 0.8 * names.index(name)
            axes.plot(*curve(model, end), color=shade, ls=style, lw=width, label=label)
            axes.set(xlim=(-0.02 * end, end), ylim=(0, 1.01), title=f"{NORMS[norm]} ball")
            axes.set_xlabel(r"radius $\epsilon$")
    panels[0].set_ylabel("test accuracy")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle("Exact accuracy in three balls; dashed: pixels stay in [0, 1]", fontsize=11)
    return figure


def noise_or_attack(results: Results) -> Figure:
    """Accuracy under random noise of +-eps per pixel beside the worst case."""
    table = results.study("noise")
    figure = Figure(figsize=(8, 3.6))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("regular", "robust-eps0.2"), strict=True):
        rows = table["run"] == name
        (model,) = results.choose([name])
        eps = table["eps"][rows]
        axes.plot(*curve(model, eps[-1]), color="black", label="worst case")
        axes.plot(eps, table["normal"][rows], color=GREEN, ls="--", label="random, normal approx.")
        axes.errorbar(
            eps,
            table["random"][rows],
            2 * table["error"][rows],
            fmt="o",
            ms=4,
            color=DARK,
            label="random, drawn (± 2 s.e.)",
        )
        axes.set(title=model.label, xlabel=r"$\epsilon$: each pixel moves by $\pm\epsilon$")
        axes.set(xlim=(0, eps[-1]), ylim=(0, 1.02))
    panels[0].set_ylabel("test accuracy")
    panels[1].legend(loc="lower left")
    figure.suptitle("Random noise or attack: the same size, another direction", fontsize=11)
    return figure


def transfer(results: Results) -> Figure:
    """Accuracy of each model (column) under the perturbation computed on another (row)."""
    table = results.study("transfer")
    names = list(dict.fromkeys(table["source"]))
    figure = Figure(figsize=(8, 4.6))
    for axes, eps in zip(figure.subplots(1, 2, sharey=True), (0.1, 0.2), strict=True):
        rows = np.isclose(table["eps"], eps)
        matrix = table["accuracy"][rows].reshape(len(names), len(names))
        axes.imshow(matrix, cmap="Greens_r", vmin=0, vmax=1.3, aspect="auto")
        axes.grid(False)
        for (i, k), value in np.ndenumerate(matrix):
            shade = "white" if value < 0.6 else "black"
            axes.text(k, i, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set(title=rf"$\epsilon$ = {eps}", xlabel="attacked model")
    figure.axes[0].set_ylabel("perturbation computed on")
    figure.suptitle("Transfer: test accuracy when the attack knows another model", fontsize=11)
    return figure


def masking(results: Results) -> Figure:
    """Gradient attacks on a model of raw 0-255 pixels against the exact accuracy."""
    table = results.study("masking")
    figure = Figure(figsize=(6, 3.6))
    axes = figure.subplots()
    axes.plot(table["eps"], table["exact"], color="black", label="exact")
    axes.plot(
        table["eps"], table["fgsm_margin"], "o", color=GREEN, ms=4, label="FGSM on the margin"
    )
    for name, label, mark in (("fgsm", "FGSM", "^"), ("pgd", "PGD, 40 steps,", "x")):
        label += " on the cross-entropy"
        axes.plot(table["eps"], table[name], mark, color=DARK, ms=7, mfc="none", label=label)
    axes.set(
        xlabel=r"radius $\epsilon$, as a share of the pixel range",
        ylabel="test accuracy",
        ylim=(0, 1.02),
        title="Raw 0-255 pixels: float32 gradients vanish, accuracy does not",
    )
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.93))
    return figure


def ten_digits(results: Results) -> Figure:
    """Exact accuracy of linear classifiers of ten digits in three balls, beside FGM and PGD."""
    exact, library = results.study("ten-digits"), results.study("ten-digits-library")
    labels = {"logistic": "logistic regression", "svm": "linear SVM", "ridge": "ridge"}
    figure = Figure(figsize=(8, 4.2))
    panels = figure.subplots(1, 3, sharey=True)
    for axes, norm in zip(panels, NORMS, strict=True):
        for name, shade, style in zip(labels, ("black", GREEN, "#6fc48f"), STYLES, strict=False):
            for table, column, look in (
                (exact, "accuracy", dict(ls=style, label=f"{labels[name]}, exact")),
                (library, "fgm", dict(ls="", marker="^", label=f"{labels[name]}, FGM")),
                (library, "pgd", dict(ls="", marker="x", label=f"{labels[name]}, PGD")),
            ):
                rows = (table["model"] == name) & (table["threat"] == threat(norm, True))
                eps, share = table["eps"][rows], table[column][rows]
                axes.plot(eps, share, color=shade, ms=7, mfc="none", mew=1.5, **look)
        axes.set(xlim=(0, None), ylim=(0, 1.01), title=f"{NORMS[norm]} ball")
        axes.set_xlabel(r"radius $\epsilon$")
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_ylabel("test accuracy")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=9)
    count = f"{library['images'][0]:.0f}"
    figure.suptitle(
        f"Ten digits, pixels in [0, 1]: exact accuracy, and a library's attacks on {count} images",
        fontsize=11,
    )
    return figure
