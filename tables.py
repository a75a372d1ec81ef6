"""Write what people load or read of results/: csv files, and the tables of README.md and docs/.

    python tables.py

The csv files are results/<dataset>/tables/*.csv, with nine digits; no code of ours reads them. The
tables of the pages stand between their markers, and are made of the published results alone.
"""

from __future__ import annotations

import gzip
from dataclasses import asdict
from pathlib import Path

from lab import cli, store
from lab.cli import RESULTS, ROOT, InputError
from lab.tables import head, row, share, to_csv, write_pages

import numpy as np

import runs
from recipes import NORMS

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# The article's own numbers: its table for clean images, the rest read off its figure.
ARTICLE = {
    "regular": (".9990", ".25", ".00", ".00", ""),
    "robust-eps0.1": (".9985", ".99", ".915", ".37", ".09"),
    "robust-eps0.2": (".9990", ".99", ".965", ".78", ".17"),
    "robust-eps0.3": (".9976", ".99", ".945", ".833", ".59"),
}
# Kolter and Madry's recipe, rerun in NumPy (tests/experiment/test_train.py): mean ± standard
# deviation of ten seeds, of the clean error and of the error at 0.2.
KOLTER_MADRY = {
    "regular": ("0.0008 ± 0.0002", "0.8211 ± 0.0159"),
    "robust-eps0.2": ("0.0037 ± 0.0002", "0.0242 ± 0.0005"),
}
RADII = (0.0, 0.1, 0.2, 0.3, 0.4)


def main(results: Path = RESULTS, pages: tuple[Path, ...] = PAGES) -> None:
    """Write the csv files of each data set, and the tables of the pages.

    Raises:
        InputError: there is no run, a run that a page shows is missing, or a page has no markers
            for a table of this name.
    """
    results = cli.results_folder(results)
    datasets = runs.of_two_digits(results)
    if not datasets:
        raise InputError(f"no runs of two digits in {results}: python train.py makes one")
    for dataset in datasets:
        stored = runs.read(dataset)
        for name, rows in csv_tables(stored).items():
            content = to_csv(rows)
            if name == "radii":  # the only large one
                store.write(dataset / "tables" / "radii.csv.gz", gzip.compress(content, mtime=0))
            else:
                store.write(dataset / "tables" / f"{name}.csv", content)
        print(f"wrote {dataset / 'tables'}")
        if dataset.resolve() == RESULTS / "mnist-0-1":
            write_pages(page_tables(stored), pages)


# --- csv files -----------------------------------------------------------------------------------


def csv_tables(stored: runs.Results) -> dict[str, list[dict]]:
    """Rows of each table: runs, accuracy, history, radii, and one for each table of a study."""
    found = dict(runs=[], accuracy=[], history=[], radii=[])
    # The history of a robust run has its plain loss, too, under the name of the loss.
    losses = sorted({run.settings.loss for run in stored.runs.values() if run.settings.robust})
    columns = ("loss", "accuracy", "robust_accuracy", *losses)
    last_epoch = [f"{part}_{column}" for part in ("train", "test") for column in columns]
    for name, run in stored.runs.items():
        last = {column: values[-1] for column, values in run.history.items()}
        found["runs"].append(
            dict(run=name)
            | {key: value for key, value in asdict(run.settings).items() if key != "given_name"}
            | dict.fromkeys(last_epoch)
            | last
            | dict(w_l1=np.abs(run.w).sum(), w_l2=np.linalg.norm(run.w), b=run.b)
            | dict(weights_not_0=np.count_nonzero(run.w), pixels_in_use=run.pixels_in_use)
            | dict.fromkeys(CERTIFICATE)
            | run.facts.get("certificate", {})
        )
        for epoch in range(len(next(iter(run.history.values())))):
            values = {column: values[epoch] for column, values in run.history.items()}
            known = dict(run=name, epoch=epoch + 1) | dict.fromkeys(last_epoch)
            found["history"].append(known | values)
    for threat, attacks in stored.attacks.items():
        for name, attack in attacks.items():
            key, n = dict(run=name, threat=threat), len(attack.labels)
            columns = zip(attack.eps, attack.correct, attack.accuracy, strict=True)
            found["accuracy"] += [
                key | dict(eps=eps, correct=correct, samples=n, accuracy=share)
                for eps, correct, share in columns
            ]
            samples = zip(attack.labels, attack.radii, strict=True)
            found["radii"] += [
                key | dict(index=index, label=int(label), radius=radius)
                for index, (label, radius) in enumerate(samples)
            ]
    for name, table in stored.studies.items():
        shapes = {values.shape for values in table.values()}
        if len(shapes) == 1 and len(shapes.pop()) == 1:  # else they are no columns
            rows = zip(*table.values(), strict=True)
            found[name] = [dict(zip(table, values, strict=True)) for values in rows]
    return found


CERTIFICATE = ("primal", "dual", "gap", "violation")


# --- the tables of the pages ---------------------------------------------------------------------


def page_tables(stored: runs.Results) -> dict[str, str]:
    """Marker name -> Markdown, from the published runs on MNIST."""
    return {
        "results": _results(stored),
        "seeds": _seeds(stored),
        "optimum": _optimum(stored),
        "rational": _rational(stored),
        "threats": _threats(stored),
        "kolter-madry": _kolter_madry(stored),
        "ten-digits": _ten_digits(stored),
        "referee": _referee(stored),
        "benchmark": _benchmark(stored),
        "benchmark-minimum": _minima(stored),
        "benchmark-threads": _threads(stored),
        "benchmark-classes-minimum": _joint_minima(stored),
        "benchmark-classes-rivals": _joint_rivals(stored),
        "benchmark-data": _minima_of_any_data(stored),
        "benchmark-data-rivals": _rivals_on_any_data(stored),
        "benchmark-mean": _minima_of_the_mean(stored),
    }


def _results(stored: runs.Results) -> str:
    radii = [f"ε = {eps:g}" for eps in RADII[1:]]
    text = head("model", "numbers from", "clean", *radii, "training loss", "pixels", left=2)
    for name, published in ARTICLE.items():
        sources = [(name, "its recipe, here"), (f"{name}-converged", "`--recipe converged`")]
        if name != "regular":
            sources.append((name.replace("robust", "optimal"), "the exact minimum"))
        models = stored.choose([run for run, _ in sources])
        text += row([f"**{models[0].label}**", "the article", *published, "", ""])
        for model, (_, source) in zip(models, sources, strict=True):
            shares = [share(model.accuracy(eps)) for eps in RADII]
            loss = f"{model.run.history['train_loss'][-1]:.4f}"
            text += row(["", source, *shares, loss, str(model.run.pixels_in_use)])
    return text


def _over_seeds(stored: runs.Results, recipe: str) -> dict[str, dict[str, np.ndarray]]:
    """Model -> the columns of studies/seeds.csv in the rows of this recipe."""
    table = stored.study("seeds")
    chosen = table["recipe"] == recipe
    return {
        str(model): {name: v[chosen & (table["model"] == model)] for name, v in table.items()}
        for model in dict.fromkeys(table["model"][chosen])
    }


def _seeds(stored: runs.Results) -> str:
    """Mean and standard deviation over the seeds of the article's recipe."""
    from scipy.stats import binomtest  # slow to import: not for --help

    radii = [f"ε = {eps:g}" for eps in RADII[1:]]
    text = head("model", "seeds", "clean", *radii, "seed 0 clean, 95 % interval")
    for name, columns in _over_seeds(stored, "article").items():
        (model,) = stored.choose([name])
        cells = []
        for eps in RADII:
            values = columns[f"eps{eps:g}"]
            cells.append(f"{share(np.mean(values))} ± {share(np.std(values, ddof=1))}")
        correct = model.attack.radii > 0
        found = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, "exact")
        interval = f"{share(model.accuracy(0))} [{share(found.low)}, {share(found.high)}]"
        text += row([f"**{model.label}**", str(len(columns["seed"])), *cells, interval])
    return text


def _optimum(stored: runs.Results) -> str:
    text = head(
        "ε", "primal (upper bound)", "dual (lower bound)", "relative gap", "violation",
        "weights ≠ 0", "converged recipe above it", "article's recipe above it",
    )  # fmt: skip
    for eps in (0.1, 0.2, 0.3):
        optimal, *trained = stored.choose(
            [f"optimal-eps{eps}", f"robust-eps{eps}-converged", f"robust-eps{eps}"]
        )
        proof = optimal.run.facts["certificate"]
        above = [m.run.history["train_loss"][-1] / proof["dual"] - 1 for m in trained]
        text += row(
            [
                f"{eps}",
                f"{proof['primal']:.9f}",
                f"{proof['dual']:.9f}",
                f"{abs(proof['gap']):.0e}",
                f"{proof['violation']:.0e}",
                str(np.count_nonzero(optimal.run.w)),
                *(f"{100 * value:.1f} %" for value in above),
            ]
        )
    return text


def _rational(stored: runs.Results) -> str:
    """Both bounds of each minimum in rational arithmetic, with all their digits."""
    text, table = head("run", "lower bound", "upper bound", "violation"), stored.study("rational")
    for name, *values in zip(
        *(table[n] for n in ("run", "dual", "primal", "violation")), strict=True
    ):
        text += row([f"`{name}`", *(f"{value:.17g}" for value in values)])
    return text


def _threats(stored: runs.Results) -> str:
    """Accuracy at one radius for each threat model."""
    radii = {"inf": 0.2, "2": 2.0, "1": 5.0}
    names = ("regular", "regular-initzeros", "robust-eps0.2", "robust-eps0.2-converged")
    names += ("robust-eps0.2-box-converged", "optimal-eps0.2", "optimal-eps0.2-box")
    names += ("optimal-eps0.3", "optimal-eps1.5-l2", "optimal-eps20-l1")
    cases = [(norm, box) for norm in radii for box in (False, True)]
    text = head("run", *(f"{NORMS[n]}, {radii[n]:g}{', box' * box}" for n, box in cases))
    attacked = [stored.choose(names, runs.threat(*case)) for case in cases]
    for name, *models in zip(names, *attacked, strict=True):
        accuracies = [m.accuracy(radii[n]) for m, (n, _) in zip(models, cases, strict=True)]
        text += row([f"`{name}`", *map(share, accuracies)])
    return text


def _kolter_madry(stored: runs.Results) -> str:
    text = head("", "clean error, NumPy rerun", "ours", "error at ε = .2, NumPy rerun", "ours")
    for name, columns in _over_seeds(stored, "kolter-madry").items():
        cells = []
        for eps, reference in zip((0.0, 0.2), KOLTER_MADRY[name], strict=True):
            errors = 1 - columns[f"eps{eps:g}"]
            spread = f"{np.mean(errors):.4f} ± {np.std(errors, ddof=1):.4f}"
            cells += [reference, spread]
        text += row([name.split("-")[0], *cells])
    return text


def _ten_digits(stored: runs.Results) -> str:
    """Losses, accuracies and weights of linear classifiers of ten digits."""
    words = {
        "logistic": "logistic regression",
        "svm": "linear SVM, one against the rest",
        "ridge": "ridge, one against the rest",
        "minimum": "**certified minimum**",
        "adam": "the same loss by gradients",
        "rest": "one against the rest, certified",
    }
    radii = ("ε = .05", "ε = .1")
    text = head(
        "classifier",
        "trained for",
        *(f"loss, {at}" for at in radii),
        "clean",
        *radii,
        *(f"{at}, box" for at in radii),
        "weights ≠ 0",
        "pixels",
        left=2,
    )
    table = stored.study("ten-digits-models", "ten-digits")
    for name, *numbers in zip(*table.values(), strict=True):
        kind, _, eps = name.partition("-eps")
        cells = [words[kind], f"ε = {eps.removeprefix('0')}" if eps else ""]
        cells += [f"{loss:.4f}" for loss in numbers[:2]] + [share(part) for part in numbers[2:7]]
        text += row([*cells, *map(str, numbers[7:])])
    return text


def _referee(stored: runs.Results) -> str:
    """Of each attack of a library how near it comes to the exact one, on both models."""
    heads = "within .1 %", "median excess", "not found", "time"
    both = [f"{digits}: {part}" for digits in ("two", "ten") for part in heads]
    text = head("ball", "attack", "library", *both, left=3)
    table, found = stored.study("referee"), {}
    for values in zip(*table.values(), strict=True):
        one = dict(zip(table, values, strict=True))
        key = one["threat"], one["attack"], f"{one['library']} {one['version']}"
        found.setdefault(key, {})[one["model"]] = _of_referee(one)
    balls = {runs.threat(norm, True): ball for norm, ball in (NORMS | {"0": "L0"}).items()}
    for (threat, *names), models in found.items():
        two, ten = (models.get(model, [""] * len(heads)) for model in ("regular", "logistic"))
        text += row([balls[threat], *names, *two, *ten])
    return text


def _of_referee(one: dict) -> list[str]:
    excess = one["median"] if one["never"] <= 0.5 else np.nan
    if not excess < 1:
        told = "" if np.isnan(excess) else f"{100 * excess:.0f} %"
    else:
        told = f"{100 * excess:.2g} %" if excess >= 1.05e-5 else "0.001 %" if excess > 0 else "0"
    shares = [f"{100 * one[name]:.0f} %" for name in ("within", "never")]
    return [shares[0], told, shares[1], f"{one['ratio']:,.0f}"]


def _time(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _small(value: float) -> str:
    return f"{value:.0e}" if value > 0 else "0"


def _benchmark(stored: runs.Results) -> str:
    titles = {
        "epoch": "an epoch of robust training, ε = .2",
        "attack": "test accuracy at 101 radii",
        "classes": "the attack on 1,000 classes: 5,000 samples of 2,048 features",
    }
    text = head("", "median", "ratio")
    for part, title in titles.items():
        text += row([f"**{title}**", "", ""])
        table = stored.study(f"benchmark-{part}")
        for what, seconds, ratio in zip(
            table["what"], table["seconds"], table["ratio"], strict=True
        ):
            text += row([what, _time(seconds), f"{ratio:,.{0 if ratio >= 10 else 2}f}"])
    return text


def _minima(stored: runs.Results) -> str:
    solvers = {"": "advlinear", ", cvxpy, Clarabel": "Clarabel", ", HiGHS": "HiGHS"}
    return _beside(stored.study("benchmark-minimum"), solvers)


def _joint_rivals(stored: runs.Results) -> str:
    solvers = {"": "advlinear", ", cvxpy, Clarabel": "Clarabel"}
    solvers |= {f", HiGHS, {how}": f"HiGHS, {how}" for how in ("simplex", "interior point")}
    table = stored.study("benchmark-classes-minimum")
    return _beside(table, solvers, alone=False)


def _joint_minima(stored: runs.Results) -> str:
    """Of each problem of several classes its size, its minimum, and what finding it took."""
    table = stored.study("benchmark-classes-minimum")
    heads = "n × d × K", "minimum", "gap", "violation", "CPU", "elapsed", "memory"
    text = head("data, ε", *heads, "features", "weights not 0")
    for k in np.flatnonzero(~np.isnan(table["weights"])):
        one = {name: column[k] for name, column in table.items()}
        sizes = " × ".join(f"{one[name]:,.0f}" for name in ("n", "d", "classes"))
        proof = [f"{one['minimum']:.7f}", _small(one["gap"]), _small(one["violation"])]
        taken = [_time(one["seconds"]), _time(one["wall"]), f"{one['megabytes']:,.0f} MB"]
        used = [f"{one[name]:,.0f}" for name in ("features", "weights")]
        text += row([one["what"], sizes, *proof, *taken, *used])
    return text


def _minima_of_any_data(stored: runs.Results) -> str:
    """Of each problem of two classes its size, its minimum, and what finding it took."""
    table = stored.study("benchmark-data")
    heads = "n × d", "numbers in X", "minimum", "gap", "violation", "CPU", "elapsed", "memory"
    text = head("data, ε", *heads, "weights not 0")
    for k in np.flatnonzero(~np.isnan(table["weights"])):
        one = {name: column[k] for name, column in table.items()}
        sizes = [" × ".join(f"{one[name]:,.0f}" for name in "nd"), f"{one['numbers']:,.0f}"]
        proof = [f"{one['minimum']:.7f}", _small(one["gap"]), _small(one["violation"])]
        taken = [_time(one["seconds"]), _time(one["wall"]), f"{one['megabytes']:,.0f} MB"]
        text += row([one["what"], *sizes, *proof, *taken, f"{one['weights']:,.0f}"])
    return text


def _rivals_on_any_data(stored: runs.Results) -> str:
    solvers = {"": "advlinear"} | {f", {name}": name for name in ("liblinear", "saga", "HiGHS")}
    return _beside(stored.study("benchmark-data"), solvers, alone=False)


def _minima_of_the_mean(stored: runs.Results) -> str:
    """Of each problem with a budget for all samples what each solver found, and how fast."""
    text, table = head("", "loss", "gap", "CPU", "ratio"), stored.study("benchmark-mean")
    for k, what in enumerate(table["what"]):
        one = {name: column[k] for name, column in table.items()}
        if not np.isnan(one["violation"]):
            problem, solver = what, "advlinear"
            text += row([f"**{what}**", "", "", "", ""])
        else:
            solver = what.removeprefix(f"{problem}, ")
        cells = [f"{one['loss']:.7f}", _small(one["gap"])]
        cells += [_time(one["seconds"]), f"{one['ratio']:,.{0 if one['ratio'] >= 10 else 2}f}"]
        text += row([solver, *(["", "stopped", "", ""] if np.isnan(one["gap"]) else cells)])
    return text


def _beside(table: dict, solvers: dict[str, str], alone: bool = True) -> str:
    """Seconds and gap of each problem, beside those of other solvers.

    solvers: how the names of their rows end, and the names of the solvers. alone: whether problems
    that no other solver was given have a row, too.
    """
    found = {}
    for what, seconds, gap in zip(*(table[n] for n in ("what", "seconds", "gap")), strict=True):
        other = next((end for end in solvers if end and what.endswith(end)), "")
        told = "stopped" if np.isnan(gap) else _small(gap)
        found.setdefault(what.removesuffix(other), {})[other] = [_time(seconds), told]
    heads = [f"{solver}{part}" for solver in solvers.values() for part in ("", ": gap")]
    text = head("data, ε", *heads)
    for what, cells in found.items():
        if alone or len(cells) > 1:
            text += row([what, *(cell for end in solvers for cell in cells.get(end, ["", ""]))])
    return text


def _threads(stored: runs.Results) -> str:
    """Seconds of each task where BLAS may use one thread, and where two."""
    text, table = head("", "one thread", "two threads", "ratio"), stored.study("benchmark-threads")
    columns = [table[name].tolist() for name in ("what", "seconds", "ratio")]
    (what, seconds, _), (_, two, ratios) = ([c[k::2] for c in columns] for k in (0, 1))
    for name, *times, ratio in zip(what, seconds, two, ratios, strict=True):
        text += row([name, *map(_time, times), f"{ratio:.2f}"])
    return text


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="tables.py", description="Write csv files, and the tables of README.md and docs/."
    )
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
