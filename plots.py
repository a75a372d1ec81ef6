"""Draw every figure from results/ alone: no TensorFlow, no data set.

    python plots.py                           all of them
    python plots.py accuracy_noise            those named

Runs that differ only in their radius form a group, which gets one set of figures: the article's
recipe in results/<dataset>/figures/, others in a folder below it, such as figures/converged/.
"""

import importlib
import io
import sys
from pathlib import Path

import tqdm

import cli
import files
import runs
import stored
from cli import RESULTS, ROOT, InputError

# Figure -> the module with the function of that name, which is imported when the first is drawn:
# Matplotlib takes too long for --help. Figures that need no run; of a group of models; of all
# models of a data set.
DIAGRAMS = dict.fromkeys(
    ("hinge_loss", "hinge_margin", "landscape_complex", "perturbation_boxes"), "diagrams"
)
FIGURES = dict.fromkeys(("landscape_simple", "hinge_robust", "landscape_robust"), "diagrams")
FIGURES |= dict.fromkeys(
    (
        "accuracy",
        "misclassified_regular",
        "model_weights",
        "accuracy_noise",
        "misclassified_noise",
        "misclassified_logits",
        "training",
    ),
    "figures",
)
COMPARISONS = dict.fromkeys(
    (
        "optimum",
        "init_ablation",
        "radii",
        "threats",
        "noise_or_attack",
        "transfer",
        "masking",
    ),
    "comparisons",
)
ALL = DIAGRAMS | FIGURES | COMPARISONS


def main(names: list[str] | None = None, results: Path = RESULTS) -> None:
    """Draw the figures named, or all. Raises InputError: there is nothing to draw."""
    written = draw(results, names)
    if names and not written:
        raise InputError("none of these figures can be drawn")
    for path in written:
        print(path)


def draw(results: Path, names: list[str] | None = None) -> list[Path]:
    """Draw figures from the stored numbers; returns the files written.

    A figure that the results do not suffice for is left out with a notice.

    Raises:
        InputError: there is no such figure, nothing to draw, or a damaged file; then no figure is
            written or removed.
    """
    if unknown := [name for name in names or [] if name not in ALL]:
        raise InputError(f"no figure {unknown[0]}; there are: {', '.join(ALL)}")
    loaded = {dataset: stored.load_models(dataset) for dataset in runs.list_datasets(results)}
    if not loaded:
        raise InputError(f"nothing to draw in {results}: run python train.py, python attack.py")
    todo = []
    for dataset, models in loaded.items():
        folder = dataset / "figures"
        todo += [(folder / name, ()) for name in DIAGRAMS]
        todo += [(folder / name, (models, dataset)) for name in COMPARISONS]
        for variant, group in stored.groups(models).items():
            todo += [(folder / variant / name, (group,)) for name in FIGURES]
    if names:
        todo = [(place, arguments) for place, arguments in todo if place.name in names]
    from matplotlib import style

    pictures, left_out = {}, {}
    bar = tqdm.tqdm(todo, "drawing", leave=False, disable=not sys.stderr.isatty())
    for place, arguments in bar:
        path = place.with_name(place.name + ".png")
        try:
            with style.context(ROOT / "style.mplstyle"):
                drawn, picture = function(place.name)(*arguments), io.BytesIO()
                drawn.savefig(picture, format="png", metadata={"Software": None})
            pictures[path] = picture.getvalue()
        except stored.Missing as error:
            left_out[path] = error
    # Not before all are drawn: where a file of numbers is damaged, every figure stays as it was.
    for path, picture in pictures.items():
        with files.whole_file(path) as file:
            file.write_bytes(picture)
    for path in left_out:
        path.unlink(missing_ok=True)  # it would show what is no longer there
    if names:
        for path, reason in left_out.items():
            print(f"NOTICE: left out {path.relative_to(results)}: {reason}", file=sys.stderr)
    elif left_out:
        missing = sorted({path.stem for path in left_out})
        where = "" if results == RESULTS else f" --results {results}"
        print(
            f"NOTICE: some runs do not suffice for {', '.join(missing)}; "
            f"python plots.py {missing[0]}{where} tells why",
            file=sys.stderr,
        )
    return list(pictures)


def function(name: str):
    """The function that draws the figure of this name."""
    return getattr(importlib.import_module(ALL[name]), name)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="plots.py",
        description="Draw the figures from results/ alone, without TensorFlow or the data set.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"figures to draw (default: all): {', '.join(ALL)}",
    )
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
