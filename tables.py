"""Write the tables of README.md, between their markers, from results/ alone.

python tables.py
"""

import re
from pathlib import Path

import numpy as np

import cli
import files
import runs
import stored
from cli import RESULTS, ROOT, InputError

# The article's own numbers: its table for clean images, the rest read off its figure.
ARTICLE = {
    "regular": (".9990", ".25", ".00", ".00", ""),
    "robust-eps0.1": (".9985", ".99", ".915", ".37", ".09"),
    "robust-eps0.2": (".9990", ".99", ".965", ".78", ".17"),
    "robust-eps0.3": (".9976", ".99", ".945", ".833", ".59"),
}
# Kolter and Madry's recipe in NumPy (not part of this repository), mean and range over ten seeds:
# clean error and error at 0.2.
KOLTER_MADRY = {
    "regular": ("0.0008", "0.826 [0.80, 0.85]"),
    "robust": ("0.0037", "0.0243 [0.0236, 0.0251]"),
}
RADII = (0.0, 0.1, 0.2, 0.3, 0.4)


def main(results: Path = RESULTS, readme: Path = ROOT / "README.md") -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->` for each table.

    Other results than the published ones are not the README's: their tables are printed.

    Raises:
        InputError: a run or a marker is missing.
    """
    if results.resolve() != RESULTS and readme == ROOT / "README.md":
        print("\n".join(f"{name}\n\n{table}" for name, table in tables(results).items()))
        return
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
    models = Models(stored.load_models(dataset))
    return {
        "results": _results(models),
        "seeds": _seeds(models),
        "optimum": _optimum(models),
        "threats": _threats(models),
        "kolter-madry": _kolter_madry(models),
        "claims": _claims(models, dataset),
        "departures": _departures(models),
        "benchmark": _benchmark(dataset),
        "growth": _growth(dataset),
        "workers": _workers(dataset),
    }


class Models(dict):
    """Attacked runs by name; a missing one is an InputError that says so."""

    def __missing__(self, name):
        raise InputError(f"the tables need the attacked run {name}")


def _share(value: float) -> str:
    """.9986, as the field writes shares."""
    return f"{value:.4f}".removeprefix("0")


def _interval(model: stored.Model) -> str:
    """The 95 % Clopper-Pearson interval of one model's clean accuracy, as [.9974, 1.0000]."""
    from scipy.stats import binomtest  # slow to import: not for --help

    correct = model.attack.samples["radii"] > 0
    found = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, "exact")
    return f"[{_share(found.low)}, {_share(found.high)}]"


def _row(cells) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _head(*cells: str, left: int = 1) -> str:
    """The heading of a table, the first `left` columns left-aligned, the others right."""
    return _row(cells) + "|" + "---|" * left + "---:|" * (len(cells) - left) + "\n"


def _results(models: Models) -> str:
    radii = [f"ε = {eps:g}" for eps in RADII[1:]]
    text = _head("model", "numbers from", "clean", *radii, "training loss", "weights", left=2)
    for name, published in ARTICLE.items():
        text += _row([f"**{models[name].label}**", "the article", *published, "", ""])
        sources = [(name, "its recipe, here"), (f"{name}-converged", "`--recipe converged`")]
        if name != "regular":
            sources.append((name.replace("robust", "optimal"), "the exact minimum"))
        for run, source in sources:
            model = models[run]
            shares = [_share(model.accuracy(eps)) for eps in RADII]
            loss = f"{model.run.history['train_loss'][-1]:.4f}"
            text += _row(["", source, *shares, loss, str(runs.pixels_in_use(model.run.w))])
    return text


def _seeds(models: Models) -> str:
    """Mean and standard deviation over the seeds of the article's recipe."""
    radii = [f"ε = {eps:g}" for eps in RADII[1:]]
    text = _head("model", "n", "clean", *radii, "seed 0 clean, 95 % interval")
    for name in ARTICLE:
        members = [m for run, m in models.items() if re.fullmatch(rf"{name}(-seed\d+)?", run)]
        cells = []
        for eps in RADII:
            values = [model.accuracy(eps) for model in members]
            cells.append(f"{_share(np.mean(values))} ± {_share(np.std(values, ddof=1))}")
        interval = f"{_share(models[name].accuracy(0))} {_interval(models[name])}"
        text += _row([f"**{models[name].label}**", str(len(members)), *cells, interval])
    return text


def _optimum(models: Models) -> str:
    text = _head(
        "ε", "primal (above)", "dual (below)", "relative gap", "violation", "weights ≠ 0",
        "converged recipe above it", "article's recipe above it",
    )  # fmt: skip
    for eps in (0.1, 0.2, 0.3):
        run = models[f"optimal-eps{eps}"].run
        proof = run.config["certificate"]
        worst = max(value for name, value in proof.items() if name.startswith("violation"))
        above = [
            models[f"robust-eps{eps}{recipe}"].run.history["train_loss"][-1] / proof["dual"] - 1
            for recipe in ("-converged", "")
        ]
        text += _row(
            [
                f"{eps}",
                f"{proof['primal']:.9f}",
                f"{proof['dual']:.9f}",
                f"{abs(proof['gap']):.0e}",
                f"{worst:.0e}",
                str(np.count_nonzero(run.w)),
                *(f"{100 * value:.1f} %" for value in above),
            ]
        )
    return text


def _threats(models: Models) -> str:
    """Accuracy at one radius for each threat model."""
    radii = {"inf": 0.2, "2": 2.0, "1": 5.0}
    names = ("regular", "regular-initzeros", "robust-eps0.2", "robust-eps0.2-converged")
    names += ("robust-eps0.2-box-converged", "optimal-eps0.2", "optimal-eps0.3")
    cases = [(norm, box) for norm in radii for box in (False, True)]
    text = _head("run", *(f"{runs.NORMS[n]}, {radii[n]:g}{', box' * box}" for n, box in cases))
    found = [(radii[case[0]], Models(stored.under(runs.threat(*case), models))) for case in cases]
    for name in names:
        shares = [_share(attacked[name].accuracy(eps)) for eps, attacked in found]
        text += _row([f"`{name}`", *shares])
    return text


def _kolter_madry(models: Models) -> str:
    text = _head("", "clean error, reference", "ours", "error at ε = .2, reference", "ours")
    for kind, name in (("regular", "regular"), ("robust", "robust-eps0.2")):
        pattern = rf"{name}-kolter-madry(-seed\d+)?"
        members = [model for run, model in models.items() if re.fullmatch(pattern, run)]
        if not members:
            raise InputError(f"the tables need the attacked run {name}-kolter-madry")
        cells = []
        for eps, reference in zip((0.0, 0.2), KOLTER_MADRY[kind], strict=True):
            errors = [1 - model.accuracy(eps) for model in members]
            spread = f"{np.mean(errors):.4f} ± {np.std(errors, ddof=1):.4f}"
            cells += [reference, f"{spread} (n = {len(errors)})"]
        text += _row([kind, *cells])
    return text


def _against(one: stored.Model, other: stored.Model) -> str:
    """Clean errors of two models on the same images: where only one errs, and McNemar's exact p."""
    from scipy.stats import binomtest

    wrong, others = (model.attack.samples["radii"] <= 0 for model in (one, other))
    only, others_only = int((wrong & ~others).sum()), int((others & ~wrong).sum())
    p = binomtest(only, only + others_only).pvalue if only + others_only else 1.0
    return f"{only} images wrong by it alone, {others_only} by the regular model alone, p = {p:.3g}"


def _claims(models: Models, dataset: Path) -> str:
    """What holds and what does not, a line each."""
    regular, zeros, robust, strict = (
        models[name] for name in ("regular", "regular-initzeros", "robust-eps0.2", "robust-eps0.3")
    )
    optimal = models["optimal-eps0.3"]
    noise = stored.claim(dataset, "noise")
    moved = stored.claim(dataset, "transfer")
    copies = stored.claim(dataset, "copies")
    masked = stored.claim(dataset, "masking")

    def noisy(name, eps):
        row = (noise["run"] == name) & np.isclose(noise["eps"], eps)
        return _share(noise["random"][row][0])

    def copied(eps):
        row = (copies["source"] != copies["target"]) & np.isclose(copies["eps"], eps)
        values = copies["accuracy"][row]
        return f"{_share(values.mean())} ± {_share(values.std(ddof=1))} (n = {len(values)})"

    def transferred(source, target, eps):
        row = (moved["source"] == source) & (moved["target"] == target)
        return _share(moved["accuracy"][row & np.isclose(moved["eps"], eps)][0])

    def certainty(model, eps=0.2):
        """The median |logit| of what is misclassified, and the same in units of ||w||_1."""
        samples, size = model.attack.samples, np.abs(model.run.w).sum()
        y, logits = samples["labels"], samples["logits"] - samples["labels"] * eps * size
        median = np.median(np.abs(logits[y * logits <= 0]))
        return f"{median:.2f}", f"{median / size:.3f}"

    at = int(np.argmin(np.abs(masked["eps"] - 0.2)))
    far, near = certainty(regular), certainty(robust)
    in_l1 = Models(stored.under(runs.threat("1", False), models))
    own = [_share(regular.accuracy(eps)) for eps in (0.1, 0.2)]
    medians = [np.median(model.attack.samples["radii"]) for model in (regular, robust)]
    lines = [
        "**Holds: robust training withstands the attack.** At ε = .1 the regular model keeps "
        f"{own[0]}, the one trained for ε = .2 {_share(robust.accuracy(0.1))} "
        f"(`accuracy_noise`); half of the test images flip below {medians[0]:.3f} and "
        f"{medians[1]:.3f} (`radii`).",
        "**Holds in part: weak features make the regular model brittle.** Much of it is initial "
        f"noise: from zero weights it keeps {_share(zeros.accuracy(0.1))} at ε = .1 instead of "
        f"{own[0]}; at ε = .2 it falls to {_share(zeros.accuracy(0.2))} all the same "
        "(`init_ablation`).",
        "**Holds in part: a rough copy of the model is enough to fool it.** The perturbation "
        "computed on a copy from another seed leaves the regular model, over all pairs of six "
        f"seeds, {copied(0.1)} at ε = .1 and {copied(0.2)} at .2; its own leaves {own[0]} and "
        f"{own[1]}. The model from zero weights, which has no noise, makes the better copy: "
        f"{transferred('regular-initzeros', 'regular', 0.2)} at ε = .2 (`transfer`).",
        "**Not decided by these data: “robust models are slightly worse”** on clean images. The "
        f"seeds agree, but the test set is small: `{strict.run.name}` has "
        f"{_against(strict, regular)} (McNemar). The exact minimum at ε = .3 is worse: "
        f"{_against(optimal, regular)}.",
        "**Holds in part: a fooled robust model “is uncertain”.** At ε = .2 the median logit of "
        f"the misclassified is {far[0]} (regular) and {near[0]} (robust) in absolute value. But "
        f"logits scale with ‖w‖₁: per unit of it the two are {far[1]} and {near[1]} "
        "(`misclassified_logits`).",
        "**Does not hold at the minimum: “human aligned features”.** The exact minimum at ε = .3 "
        f"uses {np.count_nonzero(optimal.run.w)} pixels in the middle and keeps "
        f"{_share(optimal.accuracy(0.3))} there. A pixel is used only where the class means, "
        "weighted by the dual solution, differ by 2ε, and hardly any do: that is all that a linear "
        "model can rely on. The digit-like stamps come from stopping early (`optimum`).",
        "**Robust in one ball is not robust in another.** Two pixels are soon changed: within "
        f"‖δ‖₁ ≤ 2 that model keeps {_share(in_l1['optimal-eps0.3'].accuracy(2))}, the regular "
        f"one {_share(in_l1['regular'].accuracy(2))} (`threats`).",
        "**Ours: random noise shows nothing of it.** Under random ±.2 per pixel the regular model "
        f"keeps {noisy('regular', 0.2)}, under the worst ±.2 {own[1]} (`noise_or_attack`).",
        "**Ours: exact matters.** On a regular model of raw 0-255 pixels FGSM and PGD on the "
        f"cross-entropy, as usual libraries run them, report {_share(masked['fgsm'][at])} and "
        f"{_share(masked['pgd'][at])} at ε = .2, since their gradients vanish in float32. The "
        f"exact accuracy is {_share(masked['exact'][at])}; FGSM on the margin finds it, too "
        "(`masking`).",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _departures(models: Models) -> str:
    robust, strict = models["robust-eps0.2"].run, models["robust-eps0.3"]
    regular, zeros = models["regular"], models["regular-initzeros"]
    knee = 1 + robust.settings.eps * np.abs(robust.w).sum()
    weak = models["robust-eps0.2"].attack.landscape
    weak = {name: column[weak["pixel"] == "weak"] for name, column in weak.items()}
    least = {name: weak["weight"][np.argmin(weak[name])] for name in ("hinge", "robust_hinge")}
    kept = [str(np.count_nonzero(models[f"optimal-eps0.{k}"].run.w)) for k in (1, 2, 3)]
    brittle, better = (_share(model.accuracy(0.1)) for model in (regular, zeros))
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
            f"value, whatever its weight; the exact minima keep {', '.join(kept)} (ε .1, .2, .3)",
        ),
        (
            "Sum and mean",
            "sums the robust loss over a batch of 100 at learning rate 1e-4, averages the regular "
            "one at 0.1",
            "we average always; 1e-4 on the sum is 1e-2 on the mean. The sum also lets the last, "
            "smaller batch of an epoch take a smaller step, which we keep "
            f"(accuracy {_share(strict.accuracy(0.4))} at ε = .4 for `{strict.run.name}`)",
        ),
        (
            "Initial weights",
            "blames the brittle regular model on weak features",
            f"it starts from Glorot noise of ‖w‖₁ = {regular.run.steps['w_l1'][0]:.1f} and ends at "
            f"{facts['w_l1']:.1f}, of which {facts['w_l1_unlit']:.1f}, on {facts['pixels_unlit']} "
            "pixels that no training image lights, never moves. From zero weights its accuracy at "
            f"ε = .1 is {better} instead of {brittle} (`python train.py --init zeros`)",
        ),
        (
            "The table",
            "repeats the regular column at ε = .2, train 99.64 %",
            f"trains to {100 * train[0]:.2f} % (regular) and {100 * train[1]:.2f} % (ε = .2); "
            "2, 3 and 5 errors in 2115 are too few to tell models apart",
        ),
        (
            "Stopped early",
            "stops far from the minimum of its own loss",
            f"`{strict.run.name}` ends at {losses[0]:.3f}, the converged recipe at "
            f"{losses[1]:.4f}; accuracy at ε = .4: {_share(strict.accuracy(0.4))} against "
            f"{_share(converged.accuracy(0.4))}",
        ),
    ]
    text = _row(["", "the article", "here, measured"]) + "|---|---|---|\n"
    return text + "".join(_row([f"**{name}**", *cells]) for name, *cells in rows)


def _measured(dataset: Path, part: str) -> list[dict]:
    """The rows of a table that benchmark.py stored."""
    path = dataset / "benchmark" / f"{part}.csv"
    if not path.exists():
        raise InputError(f"the tables need {path}: run python benchmark.py --parts {part}")
    table = files.read_csv(path, text=("what", "with"))
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s"


def _benchmark(dataset: Path) -> str:
    titles = {
        "epoch": "an epoch of robust training, ε = .2",
        "attack": "test accuracy at 101 radii",
        "optimum": "the exact minimum, ε = .2",
        "start": "commands, against a bare `import tensorflow`",
    }
    text = _head("", "median", "ratio")
    for part, title in titles.items():
        text += _row([f"**{title}**", "", ""])
        for row in _measured(dataset, part):
            ratio = f"{row['ratio']:,.{0 if row['ratio'] >= 10 else 2}f}"
            text += _row([str(row["what"]), _time(row["seconds"]), ratio])
    return text


def _growth(dataset: Path) -> str:
    """One row for each thing timed and each way to grow: sizes, times, exponent."""
    text = _head("", "grows with", "sizes", "times", "exponent", left=2)
    rows = _measured(dataset, "growth")
    for what, variable in dict.fromkeys((row["what"], row["with"]) for row in rows):
        mine = [row for row in rows if (row["what"], row["with"]) == (what, variable)]
        sizes = ", ".join(f"{row[variable]:.0f}" for row in mine)
        times = ", ".join(_time(row["seconds"]) for row in mine)
        text += _row([what, variable, sizes, times, f"{mine[0]['exponent']:.2f}"])
    return text


def _workers(dataset: Path) -> str:
    text = _head("images in a batch", "one process", "two", "ratio", left=0)
    for row in _measured(dataset, "workers"):
        times = [_time(row[name]) for name in ("one", "two")]
        text += _row([f"{row['batch']:.0f}", *times, f"{row['ratio']:.2f}"])
    return text


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="tables.py", description="Write README.md's tables from results/.")
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
