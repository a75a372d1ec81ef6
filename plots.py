"""Draw the figures from results/ alone: no TensorFlow, no data set.

    python plots.py                           all of them
    python plots.py accuracy_noise            those named
    python plots.py --groups kolter-madry     those of another group
    python plots.py --format pdf              for a paper; --format png --dpi 300 for slides

Runs that differ only in their radius form a group. It is named after the settings that differ
from the article's recipe. The groups article and converged are drawn unless others are named.
Models that were trained in the box are drawn under attack in the box. Pictures go to
results/<dataset>/figures/, those of other groups than the article's into a folder below it.
README.md there shows all png files, with what to see and the numbers behind each.
"""

from __future__ import annotations

import functools
import inspect
import io
from pathlib import Path

from lab import cli, drawn, store
from lab.cli import RESULTS, ROOT, InputError
from lab.store import Missing

import recipes
import runs
from runs import Model, Results, Run

ARTICLE = "article"  # the group of the article's recipe
GROUPS = (ARTICLE, "converged")
# Figures that show nothing more of another group beside those of the article's. They are drawn of
# that group where it is drawn without the article's.
ONCE = (
    "landscape_simple",
    "hinge_robust",
    "misclassified_regular",
    "misclassified_noise",
    "misclassified_logits",
)
# Format -> what is left out of its metadata, so that the same numbers give the same bytes.
FORMATS = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
DPI = 160
PER_PROCESS = 8


def main(
    names: list[str] | None = None,
    groups: list[str] | None = None,
    format: str = "png",
    dpi: int = DPI,
    results: Path = RESULTS,
) -> list[Path]:
    """Draw figures from the stored numbers, and the page that shows them; returns their files.

    A picture that is there already, of the same numbers and by the same code, is not drawn again.
    A figure is left out where a run or study that it needs is missing; a notice tells of each run
    that is not attacked yet, and of each figure that is named and left out. If none is named, one
    line lists those that are left out, and the command that says why.

    Args:
        names, groups: which (default: all; article and converged).
        format: png, svg or pdf.
        dpi: dots per inch of a png.

    Raises:
        InputError: there is no such figure or group, or nothing to draw.
        Missing: none of the figures named can be drawn.
    """
    recipes.require("format", format, tuple(FORMATS))
    recipes.require("dpi", dpi, "dpi")
    names, groups = names and recipes.several(names), groups and recipes.several(groups)
    results = cli.results_folder(results)
    datasets = runs.of_two_digits(results)
    if not datasets:
        raise InputError(f"nothing to draw in {results}: run python train.py, python attack.py")
    known = [function.__name__ for functions in figures().values() for function in functions]
    if unknown := [name for name in names or [] if name not in known]:
        raise InputError(f"no figure {unknown[0]}; there are: {', '.join(known)}")
    return draw(datasets, names, groups, format, dpi)


def draw_attacked(
    attacked: dict[Path, list[Run]], norm: str, box: bool, everything: bool
) -> list[Path]:
    """Draw what shows an attack, in the data sets of the runs attacked alone; returns the files.

    If not `everything` was attacked, the figures of one group are drawn for the groups of these
    runs. Models that were trained in the box are drawn on request, by `main`. An attack that is
    not the one under which its runs are drawn stands in the figure threats alone.

    Raises:
        Missing: the figure threats cannot be drawn.
    """
    members = [run.settings for found in attacked.values() for run in found]
    shown = [one for one in members if threat_of(one) == runs.threat(norm, box)]
    if not shown or (box and not everything):
        return draw(list(attacked), ["threats"])
    groups = None if everything else sorted({group_of(one) for one in shown})
    return draw(list(attacked), None, groups)


def draw(
    datasets: list[Path],
    names: list[str] | None = None,
    groups: list[str] | None = None,
    format: str = "png",
    dpi: int = DPI,
) -> list[Path]:
    """Draw figures of these data sets, and the page that shows them. Raises as `main` does."""
    read = [runs.read(dataset) for dataset in datasets]
    grouped = [group_models(stored) for stored in read]
    there = sorted(set().union(*grouped))
    if missing := [group for group in groups or [] if group not in there]:
        raise InputError(f"no group {missing[0]}; there are: {', '.join(there)}")
    todo = []
    for stored, found in zip(read, grouped, strict=True):
        todo += pictures(stored, {group: found[group] for group in choose(found, groups)})
    todo = [(*to, f, given) for *to, f, given in todo if not names or f.__name__ in names]
    paths = [folder / f"{function.__name__}.{format}" for folder, function, _ in todo]
    sources = [drawn.source(function, given, format, dpi) for _, function, given in todo]
    known = {dataset: drawn.Drawn(dataset / "figures") for dataset in datasets}
    of = [next(known[one] for one in datasets if one in path.parents) for path in paths]
    new = [k for k, path in enumerate(paths) if not of[k].holds(path, sources[k])]
    work = functools.partial(_try_to_render, format=format, dpi=dpi)
    made = cli.side_by_side(work, [todo[k][1:] for k in new], _processes(len(new)), "drawing")
    left_out = []
    for k, picture in zip(new, cli.bar(made, "drawing", len(new)), strict=True):
        if isinstance(picture, bytes):
            store.write(paths[k], picture)
            of[k].add(paths[k], sources[k], picture)
            continue
        paths[k].unlink(missing_ok=True)  # it would show what is no longer there
        left_out.append(paths[k])
        if names:
            cli.notice(f"left out {paths[k].relative_to(datasets[0].parent)}: {picture}")
    for dataset in datasets:
        if (dataset / "figures").is_dir():
            known[dataset].save()
            store.write(dataset / "figures" / "README.md", gallery(dataset).encode())
    written = [path for path in paths if path not in left_out]
    left_out = [path.stem for path in left_out]
    if names and not written:
        raise Missing("none of these figures can be drawn")
    print(summary(written))
    if kept := len(paths) - len(new):
        print(f"{kept} of them were there already, of the same numbers")
    if left_out and not names:
        left_out = list(dict.fromkeys(left_out))
        again = " ".join(["python plots.py", *left_out, *(["--groups", *groups] if groups else [])])
        again = store.again(again, datasets[0] / "figures" / "README.md")
        count = f"{len(left_out)} figure{'s' * (len(left_out) > 1)}"
        print(f"{count} left out: {again} says what is needed")
    return written


def _try_to_render(one: tuple, format: str, dpi: int) -> bytes | Missing:
    function, given = one
    try:
        return render(function, given, format, dpi)
    except Missing as error:
        return error


def _processes(pictures: int) -> int:
    """How many share so many pictures: starting one takes as long as drawing about ten."""
    import joblib

    return max(1, min(pictures // PER_PROCESS, joblib.cpu_count()))


def figures() -> dict[str, list]:
    """All functions that draw, by what they take: "" nothing, "models" of a group, "results".

    They are the functions of figures/ that return a Figure, in the order in which they are written.
    So a new figure is one new function there, and nothing else.

    Raises:
        TypeError: such a function takes something else, its docstring is no caption, or a function
            has a caption and is not annotated to return a Figure.
    """
    from figures import article, comparisons, method  # imports Matplotlib, too slow for --help

    found = {"": [], "models": [], "results": []}
    for module in (method, article, comparisons):
        for function in filter(inspect.isfunction, vars(module).values()):
            if function.__module__ != module.__name__:
                continue
            look, where = inspect.signature(function), f"{module.__name__}.{function.__name__}"
            takes = ", ".join(look.parameters)
            if look.return_annotation is not module.Figure:
                if "\nNumbers:" in (inspect.getdoc(function) or ""):
                    raise TypeError(f"{where} has the caption of a figure: annotate it -> Figure")
            elif takes not in found:
                raise TypeError(f"{where} takes ({takes}), not nothing, (models) or (results)")
            else:
                caption(function)
                found[takes].append(function)
    return found


def showing(study: str) -> list[str]:
    """The figures whose captions name this study among the numbers behind them."""
    every = [function for functions in figures().values() for function in functions]
    return [f.__name__ for f in every if f"`studies/{study}.npz`" in caption(f)[2]]


def pictures(stored: Results, groups: dict[str, list[Model]]) -> list[tuple]:
    """What can be drawn of a data set: the folder, the function, and what the function takes.

    A notice tells of each run that is not attacked yet.
    """
    known, folder = figures(), stored.folder / "figures"
    for name, run in stored.runs.items():
        if name not in stored.models(threat_of(run.settings)):
            path = store.file(stored.folder, "attacks", threat_of(run.settings), name)
            cli.notice(
                f"{stored.folder.name}/{name} is not drawn until {runs.command(path)} is run"
            )
    found = [(folder, function, ()) for function in known[""]]
    found += [(folder, function, (stored,)) for function in known["results"]]
    for group, models in groups.items():
        place = folder if group == ARTICLE else folder / group
        left_out = ONCE if ARTICLE in groups and group != ARTICLE else ()
        drawn = [function for function in known["models"] if function.__name__ not in left_out]
        found += [(place, function, (models,)) for function in drawn]
    return found


def render(function, given: tuple, format: str = "png", dpi: int = DPI) -> bytes:
    """The figure that the function draws, as the bytes of a file; the same each time."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture, known = io.BytesIO(), dict(metadata=FORMATS[format])
    with style.context(ROOT / "figures" / "style.mplstyle"):
        figure = function(*given)
        if format == "png":  # savefig would draw it twice
            figure.dpi = dpi
            FigureCanvasAgg(figure).print_png(picture, **known)
        else:
            figure.savefig(picture, format=format, dpi=dpi, **known)
    return picture.getvalue()


def caption(function) -> tuple[str, str, str]:
    """From the docstring of a figure: what it is, what to see, and the numbers behind it.

    These are its first two paragraphs and its last one. Raises TypeError: one of them is missing.
    """
    parts = [" ".join(text.split()) for text in (inspect.getdoc(function) or "").split("\n\n")]
    if len(parts) < 3 or not parts[-1].startswith("Numbers: "):
        raise TypeError(
            f"{function.__module__}.{function.__name__} needs a docstring of three paragraphs, "
            "separated by empty lines: what it is, what to see, and Numbers: with the files"
        )
    what, see, *_, numbers = parts
    return what, see, numbers.removeprefix("Numbers: ")


def gallery(dataset: Path) -> str:
    """The page that shows every png of a data set, in Markdown."""
    known, folder = figures(), dataset / "figures"
    article = known[""] + known["models"]
    parts = [("Comparisons", "", known["results"]), ("The article's figures", "", article)]
    for group in sorted(path.name for path in folder.glob("*/")):
        parts.append((f"Models of the {group} recipe", group, known["models"]))
    low, high = dataset.name.split("-")[-2:]
    lines = [
        f"# Figures of {dataset.name}",
        "`python plots.py` draws the pictures and writes this page. Below each picture: what to "
        f"see, the command that draws it, and the files of numbers behind it, in "
        f"`{dataset.name}/`.",
        f"- The logit of an image x is f(x) = w·x + b: negative for {low}, positive for {high}.\n"
        f"- The margin is y f(x), with y = −1 for {low} and +1 for {high}: it is above 0 if the "
        "answer is right.\n"
        "- ‖w‖₁ is the sum of all |wⱼ|. A perturbation of at most ε per pixel lowers the margin by "
        "at most ε‖w‖₁.\n"
        "- A ball holds all perturbations of at most the radius ε. The box keeps each pixel in "
        "[0, 1].\n"
        "- FGSM (or FGM) and PGD are attacks that follow gradients. The converged recipe trains "
        "close to the minimum of the loss.",
    ]
    for title, group, functions in parts:
        shown = [f for f in functions if (folder / group / f"{f.__name__}.png").is_file()]
        lines += [f"## {title}"] if shown else []
        for function in shown:
            name = function.__name__
            what, see, numbers = caption(function)
            if "box" in group.split("-"):
                numbers = numbers.replace("attacks/linf/", "attacks/linf-box/")
            command = f"python plots.py {name}" + f" --groups {group}" * bool(group)
            lines += [
                f"### {name}",
                f"![{what}]({f'{group}/' * bool(group)}{name}.png)",
                see,
                f"`{command}` · numbers: {numbers}",
            ]
    return "\n\n".join(lines) + "\n"


def threat_of(settings: recipes.Settings) -> str:
    """The attack under which a model is drawn: in the box if it was trained in the box."""
    return runs.threat("inf", settings.box)


def group_of(settings: recipes.Settings) -> str:
    ball = runs.threat(settings.norm, settings.box).removeprefix("linf").strip("-")
    return "-".join(filter(None, [ball, settings.variant])) or ARTICLE


def group_models(stored: Results) -> dict[str, list[Model]]:
    """Models that differ only in their radius, by group: regular first, then by radius."""
    found = {}
    for name, run in stored.runs.items():
        if model := stored.models(threat_of(run.settings)).get(name):
            found.setdefault(group_of(run.settings), []).append(model)
    for members in found.values():
        members.sort(
            key=lambda model: (model.run.settings.robust, model.run.settings.eps, model.run.name)
        )
    return dict(sorted(found.items()))


def choose(found: dict[str, list[Model]], groups: list[str] | None) -> list[str]:
    """Those named; by default article and converged, or all if there is neither."""
    if groups:
        return [group for group in groups if group in found]
    return [group for group in GROUPS if group in found] or list(found)


def summary(written: list[Path]) -> str:
    """Where the pictures are and which to open first, a line for each folder."""
    folders = {}
    for path in written:
        folders.setdefault(path.parent, []).append(path.name)
    lines = []
    for folder, names in folders.items():
        if len(names) == 1:
            lines.append(f"1 figure: {folder / names[0]}")
            continue
        best = [f for n in ("attack.", "accuracy_noise.") for f in names if f.startswith(n)]
        first = (best or names)[0]
        lines.append(f"{len(names)} figures in {folder}: open {first} first")
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
        help="figures to draw, such as accuracy_noise (default: all; "
        "results/mnist-0-1/figures/README.md shows them)",
    )
    parser.add_argument(
        "--groups",
        nargs="+",
        metavar="GROUP",
        help="groups whose figures are drawn, such as kolter-madry (default: article, converged)",
    )
    parser.add_argument("--format", choices=FORMATS, default="png", help="(default: png)")
    parser.add_argument(
        "--dpi", type=int, default=DPI, metavar="N", help=f"dots per inch of a png (default: {DPI})"
    )
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
