"""Draw every figure from results/ alone: no TensorFlow, no data set.

    python plots.py                           all of them
    python plots.py accuracy_noise            those named

Runs that differ only in their radius form a group, which gets one set of figures: the article's
recipe in results/<dataset>/figures/, others in a folder below it, such as figures/converged/.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import matplotlib.style
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import cli
import diagrams
import files
import runs
from cli import RESULTS, ROOT, InputError
from diagrams import DARK, GREEN, GREY, Missing, first

STAMP = LinearSegmentedColormap.from_list("stamp", ["white", "#8fbf9f", "black"])
FEW = 20  # fewer samples than this are drawn one by one, not as a density


@dataclass(frozen=True)
class Attack:
    """What attack.py stored about one run: attack.json, tables as column -> array, samples.npz."""

    facts: dict
    accuracy: dict[str, np.ndarray]
    nearest: dict[str, np.ndarray]
    samples: dict[str, np.ndarray]
    landscape: dict[str, np.ndarray] | None

    def image(self, index: int) -> np.ndarray:
        """The stored test image (height, width) of this index, in [0, 1]."""
        return self.samples["images"][np.flatnonzero(self.samples["image_index"] == index)[0]]


@dataclass(frozen=True)
class Model:
    run: runs.Run
    attack: Attack

    @property
    def label(self) -> str:
        settings = self.run.settings
        if not settings.robust:
            return "regular"
        norm = "" if settings.norm == "inf" else f", {runs.NORMS[settings.norm]}"
        return f"robust ε = {settings.eps:g}{norm}"


def main(names: list[str] | None = None, results: Path = RESULTS) -> None:
    """Draw the figures named, or all. Raises InputError: one of them cannot be drawn."""
    for path in draw(results, names):
        print(path)


def draw(results: Path, names: list[str] | None = None) -> list[Path]:
    """Draw figures from the stored numbers; returns the files written.

    A figure that the results do not suffice for is left out with a notice, unless it is named.
    """
    if unknown := [name for name in names or [] if name not in DIAGRAMS | FIGURES]:
        raise InputError(f"no figure {unknown[0]}; there are: {', '.join(DIAGRAMS | FIGURES)}")
    groups = {dataset: load_groups(dataset) for dataset in runs.list_datasets(results)}
    if not any(groups.values()):
        raise InputError(f"nothing to draw in {results}: run python train.py, python attack.py")
    todo = []
    for dataset, variants in groups.items():
        todo += [(dataset / "figures" / name, DIAGRAMS[name], ()) for name in DIAGRAMS]
        for folder, models in variants:
            todo += [(folder / name, FIGURES[name], (models,)) for name in FIGURES]
    written, left_out = [], []
    for place, figure, arguments in todo:
        if names and place.name not in names:
            continue
        path = place.with_name(place.name + ".png")
        try:
            with mpl.style.context(ROOT / "style.mplstyle"):
                drawn = figure(*arguments)
                with files.whole_file(path) as file:
                    drawn.savefig(file, metadata={"Software": None})
            written.append(path)
        except Missing as error:
            path.unlink(missing_ok=True)  # it would show what is no longer there
            left_out.append(f"{path.relative_to(results)}: {error}")
    for reason in left_out:
        print(f"NOTICE: left out {reason}", file=sys.stderr)
    if names and not written:
        raise InputError(left_out[0])
    return written


def load_groups(dataset: Path) -> list[tuple[Path, list[Model]]]:
    """(figures folder, its models) per variant: the regular model first, then by radius."""
    groups = {}
    for folder in runs.list_runs(dataset):
        run = runs.load(folder)
        attack = _load_attack(dataset / "attack" / "linf" / run.name, run)
        if attack:
            groups.setdefault(run.settings.variant, []).append(Model(run, attack))
    for models in groups.values():
        models.sort(key=lambda model: (model.run.settings.robust, model.run.settings.eps))
    return [(dataset / "figures" / variant, groups[variant]) for variant in sorted(groups)]


def _load_attack(folder: Path, run: runs.Run) -> Attack | None:
    """The stored attack on this run, or None, with a notice, where there is none of its weights."""
    try:
        facts = json.loads((folder / "attack.json").read_text())
        current = facts["weights_sha256"] == run.weights_sha256
    except FileNotFoundError:
        current = False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'attack.json'} is damaged ({error})") from None
    if not current:
        print(f"NOTICE: {run.name} is not drawn until python attack.py is run", file=sys.stderr)
        return None
    names = ("labels", "logits", "radii", "image_index", "images")
    landscape = None
    if runs.has_landscape(run.settings):
        landscape = files.read_csv(folder / "landscape.csv", text=("pixel",))
    return Attack(
        facts,
        files.read_csv(folder / "accuracy.csv"),
        files.read_csv(folder / "nearest.csv"),
        files.read_npz(folder / "samples.npz", names),
        landscape,
    )


def colour(models: list[Model], model: Model) -> str:
    """Black for the regular model, light to dark green by radius for the robust ones."""
    if not model.run.settings.robust:
        return "black"
    robust = [other for other in models if other.run.settings.robust]
    greens = LinearSegmentedColormap.from_list("greens", ["#9ad9ae", GREEN, DARK])
    return mpl.colors.to_hex(greens(robust.index(model) / max(1, len(robust) - 1)))


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
        rows, colLabels=["model", "train", "test"], loc="center", cellLoc="left", edges="horizontal"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(10)
    table.scale(1, 1.5)
    for (row, _), cell in table.get_celld().items():
        cell.set_edgecolor("#bbbbbb")
        if row == 0:
            cell.set_text_props(weight="bold", color=DARK)
    axes.set_title("Accuracy on clean images")
    return figure


def _row_label(axes, text: str) -> None:
    axes.set_ylabel(text, rotation=0, ha="right", va="center", fontsize=9)


def _image(axes, image: np.ndarray, low: float = 0.0, high: float = 1.0) -> None:
    axes.imshow(image, cmap="gray_r", vmin=low, vmax=high)


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
    columns = 8
    title = "Clean test images that each model gets wrong, with logits (the 8 nearest to 0)"
    figure, panels = _grid(len(models), columns, 8, title)
    for row, model in zip(panels, models, strict=True):
        wrong = model.run.config["test_samples"] - int(model.attack.accuracy["correct"][0])
        _row_label(row[0], f"{model.label}\n{wrong} wrong")
        nearest = model.attack.nearest
        at_zero = np.flatnonzero(nearest["eps"] == 0)[:columns] if wrong else []
        for axes, i in zip(row, at_zero, strict=False):
            _image(axes, model.attack.image(nearest["index"][i]))
            axes.set_xlabel(f"{nearest['logit'][i]:+.2f}", fontsize=8)
    return figure


def model_weights(models: list[Model]) -> Figure:
    """The stamps: the weights as images, each symmetric around 0 and scaled to its max |w|."""
    columns = min(4, len(models))
    rows = -(-len(models) // columns)
    figure = Figure(figsize=(8, 1.0 + 8 / columns * 1.15 * rows))
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
            f"{model.label}\n{runs.pixels_in_use(run.w)} pixels in use\nmax |w| = {size:.2f}",
            fontsize=10,
        )
    low, high = models[0].run.config["digits"]
    bar = figure.colorbar(picture, ax=panels, orientation="horizontal", fraction=0.05, aspect=50)
    bar.set_ticks([-1, 0, 1], labels=[f"−max |w|: digit {low}", "0", f"max |w|: digit {high}"])
    bar.outline.set_visible(False)
    return figure


def accuracy_noise(models: list[Model]) -> Figure:
    """Accuracy under the worst-case perturbation over its radius, exact."""
    figure = Figure(figsize=(8, 4))
    axes = figure.subplots()
    for model in reversed(models):
        eps, share = (model.attack.accuracy[name] for name in ("eps", "accuracy"))
        shade = colour(models, model)
        axes.fill_between(eps, share, color=shade, alpha=0.12, lw=0)
        axes.plot(eps, share, color=shade, label=model.label)
        trained = model.run.settings.eps
        if model.run.settings.robust and model.run.settings.norm == "inf" and trained <= eps[-1]:
            axes.plot(trained, np.interp(trained, eps, share), "o", color=shade)
    axes.axhline(0.5, color=GREY, lw=1, ls=":")
    axes.text(0.002, 0.51, "coin toss", color=GREY, fontsize=9)
    axes.set(
        xlim=(0, eps[-1]),
        ylim=(0, 1.01),
        xlabel=r"radius $\epsilon$ of the perturbation, $\Vert\delta\Vert_\infty \leq \epsilon$",
        ylabel="test accuracy",
        title="Accuracy under attack (dot: the radius trained for)",
    )
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=4)
    return figure


def misclassified_noise(models: list[Model]) -> Figure:
    """Per model and tenth radius, the misclassified perturbed image nearest to the boundary."""
    radii = np.unique(np.concatenate([model.attack.accuracy["eps"][::10] for model in models]))
    title = (
        "Nearest misclassified image by radius, with its logit "
        f"(white {-radii[-1]:g}, black {1 + radii[-1]:g})"
    )
    figure, panels = _grid(len(models), len(radii), 9, title)
    for row, model in zip(panels, models, strict=True):
        nearest, run = model.attack.nearest, model.run
        _row_label(row[0], model.label.replace(" ", "\n", 1))
        for axes, eps in zip(row, radii, strict=True):
            if row is panels[0]:
                axes.set_title(f"{eps:g}", loc="center", fontsize=9)
            found = np.flatnonzero((nearest["eps"] == eps) & (nearest["rank"] == 0))
            if not len(found):
                axes.text(0.5, 0.5, "none", ha="center", va="center", color=GREY, fontsize=9)
                axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
                continue
            image = model.attack.image(nearest["index"][found[0]])
            delta = -nearest["label"][found[0]] * eps * np.sign(run.w).reshape(image.shape)
            _image(axes, image + delta, -radii[-1], 1 + radii[-1])
            axes.set_xlabel(f"{nearest['logit'][found[0]]:+.2f}", fontsize=7, labelpad=2)
    return figure


def misclassified_logits(models: list[Model]) -> Figure:
    """Ridges: the logits of misclassified samples at each tenth radius, regular and robust."""
    from scipy.stats import gaussian_kde

    pair = [first(models, robust=False), first(models, robust=True)]
    figure = Figure(figsize=(8, 5))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    reach = 0.0
    for axes, model in zip(panels, pair, strict=True):
        y, logits = (model.attack.samples[name] for name in ("labels", "logits"))
        shade = colour(models, model)
        for level, eps in enumerate(model.attack.accuracy["eps"][10::10]):
            perturbed = logits - y * eps * np.abs(model.run.w).sum()
            wrong = perturbed[y * perturbed <= 0]
            reach = max(reach, np.abs(wrong).max(initial=0.0))
            if len(wrong) < FEW:
                axes.plot(wrong, np.full(len(wrong), level + 0.12), "|", color=shade, ms=8)
            else:
                span = np.linspace(wrong.min() - 1, wrong.max() + 1, 400)
                density = gaussian_kde(wrong, 0.15)(span)
                ridge = level + 1.4 * density / density.max()
                axes.fill_between(span, level, ridge, color="white", alpha=0.7, zorder=-level)
                axes.fill_between(span, level, ridge, color=shade, alpha=0.25, zorder=-level)
                axes.plot(span, ridge, color=shade, lw=1.2, zorder=-level)
            axes.text(
                1, level + 0.1, f"{len(wrong)}", transform=axes.get_yaxis_transform(), fontsize=8
            )
        axes.axvline(0, color=GREY, lw=1, ls=":")
        axes.set(title=model.label, xlabel="logit of the perturbed image")
        axes.text(
            1, level + 1.7, "samples", transform=axes.get_yaxis_transform(), ha="right", fontsize=8
        )
    radii = pair[0].attack.accuracy["eps"][10::10]
    panels[0].set_yticks(range(len(radii)), [f"{eps:g}" for eps in radii])
    panels[0].set(ylabel=r"radius $\epsilon$", xlim=(-reach - 1, reach + 1))
    figure.suptitle(
        "Logits of misclassified samples (ridges scaled to one height; few samples: ticks)",
        fontsize=11,
    )
    return figure


def training(models: list[Model]) -> Figure:
    """The record of every step: loss, ||w||_1, share of active samples, pixels in use."""
    figure = Figure(figsize=(8, 5.4))
    titles = {
        "loss": "trained loss of the batch",
        "w_l1": r"$\Vert w\Vert_1$",
        "active": "active share of the batch",
        "pixels": f"pixels in use (|w| > {runs.PIXEL_IN_USE:.0%} of the largest)",
    }
    panels = figure.subplots(2, 2, sharex=True)
    for axes, (name, title) in zip(panels.flat, titles.items(), strict=True):
        for model in models:
            values = model.run.steps[name]
            window = -(-len(values) // 25)
            means = np.convolve(values, np.ones(window) / window, "valid")
            steps = np.arange(len(means)) + window
            axes.plot(steps, means, color=colour(models, model), lw=1.4, label=model.label)
        if name in ("loss", "active"):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, None)
        axes.set_title(title, fontsize=10)
    for axes in panels[1]:
        axes.set_xlabel("step")
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    figure.suptitle("Training: moving means over 4 % of the steps", fontsize=11)
    return figure


def _named(*functions) -> dict:
    return {function.__name__: function for function in functions}


# Figures that need no run; figures of a group of models.
DIAGRAMS = _named(
    diagrams.hinge_loss,
    diagrams.hinge_margin,
    diagrams.landscape_complex,
    diagrams.perturbation_boxes,
)
FIGURES = _named(
    diagrams.landscape_simple,
    diagrams.hinge_robust,
    diagrams.landscape_robust,
    accuracy,
    misclassified_regular,
    model_weights,
    accuracy_noise,
    misclassified_noise,
    misclassified_logits,
    training,
)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="plots.py",
        description="Draw the figures from results/ alone, without TensorFlow or the data set.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"figures to draw (default: all): {', '.join(DIAGRAMS | FIGURES)}",
    )
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
