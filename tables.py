"""Write the tables of README.md, between their markers, from results/ alone.

python tables.py
"""

import re
from pathlib import Path

import numpy as np

import cli
import files
import plots
import runs
from cli import RESULTS, ROOT, InputError

# The article's own numbers: its table for clean images, its figure for the rest.
ARTICLE = {
    "regular": (".9990", ".25", ".00", ".00", ""),
    "robust-eps0.1": (".9985", ".99", ".915", ".37", ".09"),
    "robust-eps0.2": (".9990", ".99", ".965", ".78", ".17"),
    "robust-eps0.3": (".9976", ".99", ".945", ".833", ".59"),
}
RADII = (0.0, 0.1, 0.2, 0.3, 0.4)


def main(results: Path = RESULTS, readme: Path = ROOT / "README.md") -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` for each table.

    Raises:
        InputError: a run or a marker is missing.
    """
    text = readme.read_text(encoding="utf-8")
    for name, table in tables(results).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise InputError(f"{readme} has no markers <!-- {name} --> and <!-- /{name} -->")
        text = pattern.sub(lambda found, table=table: found[1] + table + found[2], text)
    with files.whole_file(readme) as new:
        new.write_text(text, encoding="utf-8")
    print(f"wrote the tables of {readme}")


def tables(results: Path) -> dict[str, str]:
    """Marker name -> Markdown, from the published runs on MNIST."""
    dataset = results / "mnist-0-1"
    models = {m.run.name: m for _, group in plots.load_groups(dataset) for m in group}
    wanted = [name + recipe for recipe in ("", "-converged") for name in ARTICLE]
    if missing := [name for name in [*wanted, "regular-initzeros"] if name not in models]:
        raise InputError(f"{dataset} lacks the attacked run {missing[0]}")
    return {"results": _results(models), "departures": _departures(models)}


def accuracy(model: plots.Model, eps: float) -> float:
    """Stored test accuracy at one of the attacked radii."""
    table = model.attack.accuracy
    return float(table["accuracy"][np.argmin(np.abs(table["eps"] - eps))])


def _share(value: float) -> str:
    """.9986, as the field writes shares."""
    return f"{value:.4f}".removeprefix("0")


def _row(cells) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _results(models: dict[str, plots.Model]) -> str:
    head = ["model", "numbers from", "clean", *(f"ε = {eps:g}" for eps in RADII[1:])]
    text = _row([*head, "training loss", "pixels in use"]) + "|---|---" + "|---:" * 7 + "|\n"
    for name, published in ARTICLE.items():
        text += _row([f"**{models[name].label}**", "the article", *published, "", ""])
        for recipe, source in (("", "its recipe, here"), ("-converged", "`--recipe converged`")):
            model = models[name + recipe]
            shares = [_share(accuracy(model, eps)) for eps in RADII]
            loss = f"{model.run.history['train_loss'][-1]:.4f}"
            text += _row(["", source, *shares, loss, str(runs.pixels_in_use(model.run.w))])
    return text


def _departures(models: dict[str, plots.Model]) -> str:
    robust, strict = models["robust-eps0.2"].run, models["robust-eps0.3"]
    regular, zeros = models["regular"], models["regular-initzeros"]
    knee = 1 + robust.settings.eps * np.abs(robust.w).sum()
    weak = models["robust-eps0.2"].attack.landscape
    weak = {name: column[weak["pixel"] == "weak"] for name, column in weak.items()}
    least = {name: weak["weight"][np.argmin(weak[name])] for name in ("hinge", "robust_hinge")}
    kept = [str(runs.pixels_in_use(models[f"robust-eps0.{k}"].run.w)) for k in (1, 2, 3)]
    brittle, better = (_share(accuracy(model, 0.1)) for model in (regular, zeros))
    facts = regular.attack.facts
    train = [regular.run.history["train_accuracy"][-1], robust.history["train_accuracy"][-1]]
    converged = models["robust-eps0.3-converged"]
    losses = [m.run.history["train_loss"][-1] for m in (strict, converged)]
    rows = [
        (
            "The shift",
            "draws the knee of the robust hinge moved inward, to forgive near misses",
            f"it moves outward, to margin 1 + ε‖w‖₁ = {knee:.2f} for `{robust.name}`: stricter "
            "(`hinge_robust`)",
        ),
        (
            "The gradient",
            "writes ∂L/∂xᵢ = −y wᵢ ± ε",
            "ε only lifts the line over xᵢ; it enters ∂L/∂wⱼ = −y xⱼ + ε sign(wⱼ). On a weak "
            f"pixel the robust loss is least at wⱼ = {least['robust_hinge']:g}, the hinge at "
            f"{least['hinge']:.2f} (`landscape_robust`)",
        ),
        (
            "What is wiped off",
            "“weights that are smaller than epsilon”",
            "a pixel goes when the mean of y xⱼ over the active samples is below ε in absolute "
            f"value, whatever its weight: {', '.join(kept)} pixels stay at ε = .1, .2, .3",
        ),
        (
            "Sum and mean",
            "sums the robust loss over a batch of 100 at learning rate 1e-4, averages the regular "
            "one at 0.1",
            "we average always; 1e-4 on the sum is 1e-2 on the mean. The sum also lets the last, "
            "smaller batch of an epoch take a smaller step, which we keep "
            f"(accuracy {_share(accuracy(strict, 0.4))} at ε = .4 for `{strict.run.name}`)",
        ),
        (
            "Initial weights",
            "blames the brittle regular model on weak features",
            f"it starts from Glorot noise of ‖w‖₁ = {regular.run.steps['w_l1'][0]:.1f} and ends at "
            f"{facts['w_l1']:.1f}; on {facts['pixels_unlit']} pixels that no training image lights "
            f"the noise never moves. From zero weights its accuracy at ε = .1 is {better} instead "
            f"of {brittle} (`python train.py --init zeros`)",
        ),
        (
            "The table",
            "repeats the regular column at ε = .2, train 99.64 %",
            f"trains to {100 * train[0]:.2f} % (regular) and {100 * train[1]:.2f} % (ε = .2); "
            "differences of a few errors in 2115 are noise",
        ),
        (
            "Stopped early",
            "stops far from the minimum of its own loss",
            f"`{strict.run.name}` ends at {losses[0]:.3f}, the converged recipe at "
            f"{losses[1]:.4f}; accuracy at ε = .4: {_share(accuracy(strict, 0.4))} against "
            f"{_share(accuracy(converged, 0.4))}",
        ),
    ]
    text = _row(["", "the article", "here, measured"]) + "|---|---|---|\n"
    return text + "".join(_row([f"**{name}**", *cells]) for name, *cells in rows)


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="tables.py", description="Write README.md's tables from results/.")
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
