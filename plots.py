"""Draw the figures from results/ alone: no TensorFlow, no data set.

    python plots.py                           all of them
    python plots.py accuracy_noise            those named
    python plots.py --groups kolter-madry     those of other recipes

Runs that differ only in their radius form a group. It is named after the settings that differ
from the article's recipe. The groups article and converged are drawn unless others are named.
Pictures go to results/<dataset>/figures/, those of other groups than the article's into a folder
below it.
"""

import io
from pathlib import Path

from common import cli, files, runs
from common.cli import RESULTS, ROOT, InputError
from common.runs import Missing, Model

import recipes

ARTICLE = "article"  # the group of the article's recipe
GROUPS = (ARTICLE, "converged")


def main(
    names: list[str] | None = None, groups: list[str] | None = None, results: Path = RESULTS
) -> None:
    """Draw the figures named, or all. Raises InputError: there is nothing to draw."""
    names, groups = names and recipes.several(names), groups and recipes.several(groups)
    written = draw(results, names, groups, tell=cli.notice)
    if names and not written:
        raise InputError("none of these figures can be drawn")
    for path in written:
        print(path)


def figures() -> tuple[list, list, list]:
    """The functions that draw, by what they take: nothing; the models of a group; all results."""
    from figures import article, comparisons, method  # imports Matplotlib, too slow for --help

    return (
        [
            method.hinge_loss,
            method.hinge_margin,
            method.landscape_complex,
            method.perturbation_boxes,
        ],
        [
            method.landscape_simple,
            method.hinge_robust,
            method.landscape_robust,
            article.accuracy,
            article.misclassified_regular,
            article.model_weights,
            article.accuracy_noise,
            article.misclassified_noise,
            article.misclassified_logits,
            article.training,
        ],
        [
            comparisons.optimum,
            comparisons.init_ablation,
            comparisons.radii,
            comparisons.threats,
            comparisons.noise_or_attack,
            comparisons.transfer,
            comparisons.masking,
            comparisons.ten_digits,
        ],
    )


def draw(
    results: Path = RESULTS,
    names: list[str] | None = None,
    groups: list[str] | None = None,
    datasets: list[Path] | None = None,
    tell=lambda line: None,
) -> list[Path]:
    """Draw figures from the stored numbers; returns the files written.

    A figure is left out where a run or study that it needs is missing.

    Args:
        names, groups, datasets: which (default: all; article and converged; all below `results`).
        tell: called with a line for each run that is not attacked yet, and for each figure that
            is named and left out.

    Raises:
        InputError: there is no such figure or group, or nothing to draw.
    """
    results = cli.folder("results", results)
    datasets = runs.datasets(results) if datasets is None else datasets
    if not datasets:
        raise InputError(f"nothing to draw in {results}: run python train.py, python attack.py")
    diagrams, of_a_group, of_all = figures()
    known = [function.__name__ for function in diagrams + of_a_group + of_all]
    if unknown := [name for name in names or [] if name not in known]:
        raise InputError(f"no figure {unknown[0]}; there are: {', '.join(known)}")
    todo = []
    for dataset in datasets:
        stored = runs.read(dataset)
        for name in stored.runs.keys() - stored.models().keys():
            tell(f"{dataset.name}/{name} is not drawn until python attack.py is run")
        todo += [(dataset / "figures", function, ()) for function in diagrams]
        todo += [(dataset / "figures", function, (stored,)) for function in of_all]
        for group, models in choose(group_models(stored.models()), groups).items():
            folder = dataset / "figures" / ("" if group == ARTICLE else group)
            todo += [(folder, function, (models,)) for function in of_a_group]
    todo = [(*to, f, given) for *to, f, given in todo if not names or f.__name__ in names]
    written = []
    for folder, function, given in cli.bar(todo, "drawing"):
        path = folder / f"{function.__name__}.png"
        try:
            files.write(path, render(function, given))
            written.append(path)
        except Missing as error:
            path.unlink(missing_ok=True)  # it would show what is no longer there
            if names:
                tell(f"left out {path.relative_to(results)}: {error}")
    return written


def render(function, given: tuple) -> bytes:
    """The figure that the function draws, as the bytes of a png."""
    from matplotlib import style

    picture = io.BytesIO()
    with style.context(ROOT / "figures" / "style.mplstyle"):
        function(*given).savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def group_of(settings: recipes.Settings) -> str:
    ball = runs.threat(settings.norm, settings.box).removeprefix("linf").strip("-")
    return "-".join(filter(None, [ball, settings.variant])) or ARTICLE


def group_models(models: dict[str, Model]) -> dict[str, list[Model]]:
    """Models that differ only in their radius, by group: regular first, then by radius."""
    found = {}
    for model in models.values():
        found.setdefault(group_of(model.run.settings), []).append(model)
    for members in found.values():
        members.sort(
            key=lambda model: (model.run.settings.robust, model.run.settings.eps, model.run.name)
        )
    return dict(sorted(found.items()))


def choose(found: dict[str, list[Model]], groups: list[str] | None) -> dict[str, list[Model]]:
    """The groups named; by default article and converged, or all where there is neither."""
    if groups is None:
        groups = [group for group in GROUPS if group in found] or list(found)
    for group in groups:
        if group not in found:
            raise InputError(f"no group {group}; there are: {', '.join(found)}")
    return {group: found[group] for group in groups}


def summary(written: list[Path]) -> str:
    """Where the pictures are and which to open first, in a line."""
    folders = {}
    for path in written:
        folders.setdefault(path.parent, []).append(path.stem)
    lines = []
    for folder, names in folders.items():
        first = "accuracy_noise" if "accuracy_noise" in names else names[0]
        figures = "1 figure" if len(names) == 1 else f"{len(names)} figures"
        lines.append(f"{figures} in {folder}: open {first}.png first")
    return "\n".join(lines)


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="plots.py",
        description="Draw the figures from results/ alone, without TensorFlow or the data set.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="figures to draw, such as accuracy_noise (default: all; docs/reference.md lists them)",
    )
    parser.add_argument(
        "--groups",
        nargs="+",
        metavar="GROUP",
        help="recipes whose figures are drawn, such as kolter-madry (default: article, converged)",
    )
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
