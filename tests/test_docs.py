"""README.md and docs/ against results/, the files that they name, and the code that they show."""

import inspect
import json
import math
import os
import re
import subprocess
import sys

from lab import attackers, store
from lab.cli import RESULTS, ROOT, InputError

import numpy as np
import pytest
import scipy.stats
from matplotlib import pyplot

import advlinear
import data
import losses
import plots
import recipes
import reproduce
import runs
import studies
import tables
import train

PAGES = {page.name: page.read_text(encoding="utf-8") for page in tables.PAGES}


@pytest.fixture(scope="module")
def stored():
    return runs.read(RESULTS / "mnist-0-1")


def prose(page: str) -> str:
    """The page without its generated tables, on one line."""
    text = re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", "", PAGES[page], flags=re.DOTALL)
    return " ".join(text.split())


def test_the_tables_are_those_of_the_results():
    everything = "".join(PAGES.values())
    for name, table in tables.page_tables(runs.read(RESULTS / "mnist-0-1")).items():
        assert f"<!-- {name} -->\n{table}<!-- /{name} -->" in everything


def at(table: dict, column: str, **keys) -> float:
    """The value of a column in the one row of these keys."""
    chosen = np.ones(len(table[column]), bool)
    for name, value in keys.items():
        close = isinstance(value, float)
        chosen &= np.isclose(table[name], value) if close else table[name] == value
    (value,) = table[column][chosen]
    return value


def sentences(stored) -> list[str]:
    """What docs/article.md says in numbers, with the numbers computed from results/."""
    share = tables.share
    regular, zeros, converged = stored.choose(
        ["regular", "regular-initzeros", "robust-eps0.3-converged"]
    )
    one, two, three = stored.choose([f"optimal-eps0.{k}" for k in (1, 2, 3)])
    boxed, near = stored.choose(["optimal-eps0.2-box", "robust-eps0.2-box-converged"])
    minimum = boxed.run.facts["certificate"]["dual"]
    excess = 100 * (near.run.history["train_loss"][-1] / minimum - 1)
    robust, strict = stored.choose(["robust-eps0.2", "robust-eps0.3"])
    in_l1 = stored.models("l1")

    copies = stored.study("copies", "transfer")
    pairs = copies["source"] != copies["target"]
    spread = {eps: copies["accuracy"][pairs & np.isclose(copies["eps"], eps)] for eps in (0.1, 0.2)}
    copied = {e: f"{share(v.mean())} ± {share(v.std(ddof=1))}" for e, v in spread.items()}
    moved = at(
        stored.study("transfer"), "accuracy", source="regular-initzeros", target="regular", eps=0.2
    )

    def only_wrong(model):
        """Clean images that this model alone gets wrong, the regular model alone, McNemar's p."""
        wrong, other = (m.attack.radii <= 0 for m in (model, regular))
        mine, others = int((wrong & ~other).sum()), int((other & ~wrong).sum())
        return mine, others, f"p = {scipy.stats.binomtest(mine, mine + others).pvalue:.3g}"

    def certainty(model):
        """Median size of the logits of what is misclassified at .2; the same over ||w||_1."""
        size = np.abs(model.run.w).sum()
        worst = model.attack.labels * model.attack.logits - 0.2 * size
        return np.median(-worst[worst <= 0]), np.median(-worst[worst <= 0]) / size

    weak = robust.illustrated().landscape
    weak = {name: column[weak["pixel"] == "weak"] for name, column in weak.items()}
    least = {name: weak["weight"][np.argmin(weak[name])] for name in ("hinge", "robust_hinge")}
    assert least["robust_hinge"] == 0
    facts, masked = regular.attack.facts, stored.study("masking")
    seeds = stored.study("masking-seeds", "masking")
    assert set(seeds["zero_single"]) == set(seeds["zero_double"]) == {1.0}
    assert share(min(seeds["fgsm"])) == share(min(seeds["pgd"])) == share(masked["fgsm"][0])
    noisy = at(stored.study("noise"), "random", run="regular", eps=0.2)
    wrong, strict_wrong = only_wrong(strict), only_wrong(three)
    logits = [certainty(model) for model in (regular, robust)]
    medians = [np.median(model.attack.radii) for model in (regular, robust)]
    start = regular.run.steps["w_l1"][0]
    names = "ten-digits-library", "ten-digits-rivals"
    library, taken = (stored.study(name, "ten-digits") for name in names)
    svm = [
        [
            share(at(library, how, model="svm", threat=threat, eps=eps))
            for how in "exact fgm pgd".split()
        ]
        for threat, eps in (("linf-box", 0.06), ("l1-box", 6.0))
    ]
    counts = taken["count"][taken["model"] == "svm"].reshape(10, 10)
    digit, rival = np.unravel_index(counts.argmax(), counts.shape)
    losses = [m.run.history["train_loss"][-1] for m in (strict, converged)]
    train = [100 * m.run.history["train_accuracy"][-1] for m in (regular, robust)]
    pixels = [np.count_nonzero(m.run.w) for m in (one, two, three)]
    own = [share(regular.accuracy(eps)) for eps in (0.1, 0.2)]
    return [
        f"accuracy of {own[0]}, the model trained for ε = .2 keeps {share(robust.accuracy(0.1))}",
        f"below a radius of {medians[0]:.3f} for the regular model, and below {medians[1]:.3f}",
        f"from zero weights it keeps {share(zeros.accuracy(0.1))} at ε = .1 instead of {own[0]}",
        f"At ε = .2 it still falls to {share(zeros.accuracy(0.2))}",
        f"Over all {len(spread[0.1])} ordered pairs of six seeds, the attacked model keeps "
        f"{copied[0.1]} at ε = .1 and {copied[0.2]} at ε = .2",
        f"computed on itself it keeps {own[0]} and {own[1]}",
        f"its perturbation leaves the regular model {share(moved)} at ε = .2",
        f"for ε = .3 gets {wrong[0]} images wrong that the regular model gets right, and the "
        f"regular model gets {wrong[1]} wrong",
        f"gives {wrong[2]}",
        f"{strict_wrong[0]} images against {strict_wrong[1]}, {strict_wrong[2]}",
        f"median size of {logits[0][0]:.2f} for the regular model and {logits[1][0]:.2f}",
        f"the two medians are {logits[0][1]:.3f} and {logits[1][1]:.3f}",
        f"at ε = .3 uses {pixels[2]} pixels in the middle of the image and keeps "
        f"{share(three.accuracy(0.3))} at this radius",
        f"at ε = .3 keeps {share(in_l1['optimal-eps0.3'].accuracy(2))}, and the regular model "
        f"keeps {share(in_l1['regular'].accuracy(2))}",
        f"the regular model keeps {share(noisy)}; in the worst case it keeps {own[1]}",
        f"they report an accuracy of {share(at(masked, 'fgsm', eps=0.2))} and "
        f"{share(at(masked, 'pgd', eps=0.2))}.",
        f"Half of its margins are above {seeds['median_margin'][0]:.0f}",
        f"The exact accuracy is {share(at(masked, 'exact', eps=0.2))}",
        f"With two other seeds the exact accuracy is {share(seeds['exact'][1])} and "
        f"{share(seeds['exact'][2])}, and both attacks again report {share(seeds['fgsm'][1])}",
        f"On {library['images'][0]:.0f} test images at ε = .06 in L∞, with pixels in [0, 1], the "
        f"linear SVM keeps {svm[0][0]}",
        f"Toolbox report {svm[0][1]} and {svm[0][2]}, because",
        f"they report {svm[1][1]} and {svm[1][2]}; the exact accuracy is {svm[1][0]}",
        f"turns {counts.max():.0f} of {counts[digit].sum():.0f} images of {digit} "
        f"into a {rival}, more than",
        f"which is {1 + 0.2 * np.abs(robust.run.w).sum():.2f} for the model trained for ε = .2",
        f"the plain hinge is least at −{-least['hinge']:.2f}",
        f"at ε = .1, .2, .3 have {pixels[0]}, {pixels[1]} and {pixels[2]} weights other than 0",
        f"with ‖w‖₁ = {start:.1f} and ends at {facts['w_l1']:.1f}. Of the "
        f"{facts['w_l1']:.1f}, {facts['w_l1_unlit']:.1f} lie on {facts['pixels_unlit']} pixels",
        f"we get {train[0]:.2f} % for the regular model and {train[1]:.2f} % for ε = .2",
        f"ends at {losses[0]:.3f}; the converged recipe ends at {losses[1]:.4f}. At ε = .4 the two "
        f"keep {share(strict.accuracy(0.4))} and {share(converged.accuracy(0.4))}",
        f"minimum at ε = .2 is {minimum:.9f}, with {np.count_nonzero(boxed.run.w)} weights other "
        f"than 0. The converged recipe, trained with the box, ends {excess:.1f} % above it",
        *of_other_problems(stored),
        *of_the_path(stored),
        *of_the_mean_budget(stored),
        *of_ten_digits(stored),
        *of_referee(stored),
    ]


def of_other_problems(stored) -> list[str]:
    """The sentences on the minima in other balls and of the logistic loss."""
    round_, flat, logistic, recipe = stored.choose(
        "optimal-eps1.5-l2 optimal-eps20-l1 optimal-eps0.2-losslogistic "
        "robust-eps0.2-kolter-madry".split()
    )
    least = [model.run.facts["certificate"]["dual"] for model in (round_, flat, logistic)]
    used = {np.count_nonzero(model.run.w) for model in (round_, flat)}
    loss = recipe.run.history["train_loss"][-1]
    return [
        f"In the L2 ball of radius 1.5 the minimum is {least[0]:.9f}, in the L1 ball of radius 20 "
        f"it is {least[1]:.9f}; both best models use all {used.pop()} pixels",
        f"at ε = .2 it is {least[2]:.9f}, with {np.count_nonzero(logistic.run.w)} weights other "
        f"than 0: Kolter and Madry's robust recipe, at {loss:.4f}, stops "
        f"{100 * (loss / least[2] - 1):.1f} % above it",
    ]


def of_the_path(stored) -> list[str]:
    """The sentences on every radius at once."""
    grid, models = stored.study("path"), stored.study("path-models", "path")
    radii, used = models["radii"], np.diff(models["w_indptr"])
    places = {round(eps, 3): k for k, eps in enumerate(grid["eps"])}
    pixels = {eps: grid["pixels"][k] for eps, k in places.items()}
    kept = {eps: tables.share(grid["test_accuracy"][k]) for eps, k in places.items()}
    gap = (grid["primal"] - grid["dual"]) / np.maximum(grid["primal"], 1 / 12665)
    assert gap.max() <= 1.8e-9
    (step,) = np.flatnonzero((used[:-1] > 4) & (used[1:] <= 4))
    one = radii[np.flatnonzero(used > 1)[-1]]
    jump = models["p"][1] / (1 - radii[0] * models["s"][1])
    assert kept[0.041] == tables.share(grid["test_accuracy"][grid["eps"] > 0.0155].max())
    found = [
        f"uses {pixels[0.03]} pixels at ε = .03, {pixels[0.05]} at .05, {pixels[0.1]} at .1, "
        f"{pixels[0.15]} at .15, {pixels[0.2]} at .2, {pixels[0.3]} at .3, and one from {one:.3f} "
        f"to {radii[-1]:.3f}",
        f"At ε = {radii[step]:.3f} a single step takes it from {used[step]} pixels to "
        f"{used[step + 1]}.",
        f"The loss tells the two digits apart up to ε = {radii[-1]:.3f}.",
        f"the training set, ε = {radii[0]:.4f}, the minimum is 0",
    ]
    return [
        *(sentence.replace(" 0.", " .") for sentence in found),
        f"at every radius from 0 to .5, by {len(used)} models",
        f"at ε = .47 one pixel still gets {100 * float(kept[0.47]):.1f} % of the test images",
        f"jumps to {jump:.4f}, about {jump * 12665:.0f}/12665",
        f"keeps {kept[0.036]} of them at ε = .036, just below the margin, and {kept[0.041]} at ε "
        "= .041, just above it",
    ]


def of_the_mean_budget(stored) -> list[str]:
    """The sentences on a budget for all images together."""
    grid, models = (
        stored.study("path"),
        stored.choose(["regular", "robust-eps0.2", "optimal-eps0.3"]),
    )
    least = dict(zip(grid["eps"].round(3), grid["primal"], strict=True))
    worth = [tables.share(eps * least[eps]) for eps in (0.2, 0.3, 0.4)]
    radii = [np.clip(model.attack.radii, 0, None) for model in models]

    def kept(eps):
        spent = [np.cumsum(np.sort(r)) / len(r) for r in radii]
        return [tables.share(np.mean(one > eps)) for one in spent]

    small, large = kept(0.02), kept(0.1)
    each = [tables.share(model.accuracy(0.02)) for model in models]
    lost = [tables.share(r.mean()) for r in radii]
    return [
        f"ε = .2 of every image is worth a mean budget of {worth[0]}, ε = .3 is worth {worth[1]}, "
        f"and ε = .4 is worth {worth[2]}.",
        f"With a mean of .02 the regular model keeps {small[0]} of the test images, the model "
        f"trained for ε = .2 keeps {small[1]}, and the exact minimum at ε = .3 keeps {small[2]}. "
        f"If every image moves by at most .02, they keep {each[0]}, {each[1]} and {each[2]}.",
        f"mean radius**: {lost[0]}, {lost[1]} and {lost[2]} for the three",
        f"At a mean budget of .1 the three models keep {large[0]}, {large[1]} and {large[2]}.",
    ]


def of_ten_digits(stored) -> list[str]:
    """The sentences on the minima of all ten digits."""
    table = stored.study("ten-digits-models", "ten-digits")
    rows = {
        str(row[0]): dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)
    }
    (least, most), rest = (
        [rows[f"{kind}-eps{eps}"] for eps in (0.05, 0.1)] for kind in ("minimum", "rest")
    )
    adam = [rows[f"adam-eps{eps}"] for eps in (0.05, 0.1)]
    kept = {
        kind: [tables.share(row[f"linf{eps}"]) for row, eps in zip(both, (0.05, 0.1), strict=True)]
        for kind, both in (("minimum", (least, most)), ("adam", adam), ("rest", rest))
    }
    proofs = runs.read(RESULTS / "mnist-all").study("rational")
    assert proofs["run"].tolist() == ["optimal-eps0.05", "optimal-eps0.1"]
    assert proofs["violation"].tolist() == [0, 0]
    assert proofs["gap"].max() <= 1e-6
    bounds = zip(proofs["dual"], proofs["primal"], strict=True)
    bounds = [
        f"{math.floor(dual * 1e12) / 1e12:.12f} and {math.ceil(primal * 1e12) / 1e12:.12f}"
        for dual, primal in bounds
    ]
    above = [
        f"{100 * (row[f'loss{eps}'] / dual - 1):.2f} %"
        for row, eps, dual in zip(adam, (0.05, 0.1), proofs["dual"], strict=True)
    ]
    empty = ~stored.study("weights", "ten-digits")["rest-eps0.1_W"].any(axis=1)
    plain = rows["logistic"]
    return [
        "`python optimum.py --digits all --eps 0.05 0.1`",
        f"At ε = .05 the minimum is between {bounds[0]}, at ε = .1 between {bounds[1]}",
        f"Adam ends {above[0]} above the minimum at ε = .05 and {above[1]} above it at ε = .1",
        f"It uses {least['pixels']} of 784 pixels at ε = .05 and {most['pixels']} at ε = .1; Adam "
        f"uses {adam[0]['pixels']} and {adam[1]['pixels']}",
        f"At ε = .05 the minimum keeps {kept['minimum'][0]} of the test images under attack and "
        f"Adam keeps {kept['adam'][0]}. At ε = .1 they keep {kept['minimum'][1]} and "
        f"{kept['adam'][1]}.",
        f"for {NUMBERS[empty.sum()]} of the ten digits against the rest. So "
        f"{tables.share(rest[1]['clean'])} of the clean images are right, and {kept['rest'][1]} "
        f"under attack. At ε = .05 it keeps {kept['rest'][0]}, where the minimum of all digits "
        f"together keeps {kept['minimum'][0]}",
        f"The minimum for ε = .05 keeps {tables.share(least['linf0.1'])} at ε = .1, more than the "
        f"minimum for ε = .1 itself, and gets {tables.share(least['clean'])} of the clean images "
        f"right, where that one gets {tables.share(most['clean'])}",
        f"gets {tables.share(plain['clean'])} of the clean images right and keeps "
        f"{tables.share(plain['linf0.05'])} at ε = .05",
        f"on the {sum(data.mnist.KNOWN['mnist'][digit][1] for digit in range(10))} test images",
    ]


def of_referee(stored) -> list[str]:
    """The sentences on the attacks of libraries."""
    table = stored.study("referee")
    two, ten = (table["model"] == name for name in ("regular", "logistic"))
    attacks = set(zip(table["threat"], table["attack"], table["library"], strict=True))
    (right,) = set(table["images"][ten])
    assert set(table["images"][two]) == {studies.REFEREE_IMAGES}
    every = two & (table["within"] == 1)
    assert not (table["within"][ten] == 1).any()
    best = {
        threat.removesuffix("-box"): table["within"][ten & (table["threat"] == threat)].max()
        for threat in studies.REFEREE_THREATS
    }

    def within(attack: str, ball: str, library: str = "Foolbox") -> list[float]:
        key = dict(attack=attack, threat=f"{ball}-box", library=library)
        return [at(table, "within", model=model, **key) for model in ("regular", "logistic")]

    for attack, ball, library in (
        *(("DeepFool", "l2", name) for name in attackers.NAMES.values()),
        *(("FAB", ball, "adv-lib") for ball in ("linf", "l1")),
        ("VFGA", "l0", "adv-lib"),
    ):
        assert within(attack, ball, library)[1] == best[ball]
    best = {ball: f"{100 * share:.0f} %" for ball, share in best.items()}
    fmn, fmn_l2 = (
        [f"{100 * share:.0f} %" for share in within("FMN", ball)] for ball in ("linf", "l2")
    )
    ratios = table["ratio"][every]
    (step,) = {
        one.settings["eps_step"]
        for one in attackers.ATTACKS
        if (one.function, one.norm) == ("FastGradientMethod", "inf")
    }
    return [
        f"Logistic regression gets {right} of its 100 right",
        f"The {len(attacks)} attacks found no smaller perturbation on any image",
        f"{every.sum()} of the {two.sum()} attacks that take two classes come within .1 % of the "
        "radius on all 100 images",
        f"They took {ratios.min():.0f} to {ratios.max():,.0f} times our time",
        f"in L2 DeepFool of each library ({best['l2']}), in L∞ and L1 FAB ({best['linf']} and "
        f"{best['l1']}), in L0 VFGA ({best['l0']})",
        f"up to its steps of {step:g}".replace(" 0.", " ."),
        "perturbations are made .001 % longer",
        f"FMN of Foolbox comes within .1 % on {fmn[0]} and {fmn[1]} of the images in L∞, and on "
        f"{fmn_l2[0]} and {fmn_l2[1]} in L2",
    ]


NUMBERS = "no one two three four five six seven eight nine ten".split()


def test_every_number_of_ours_in_the_article_is_that_of_the_results(stored):
    """Each sentence stands there. Without them no number of two or more digits is left but the
    article's batch and training accuracy, raw pixels up to 255, 95 %, and 2115 test images; nor
    the gap of the path, steps of PGD, and one of the path's 501 radii."""
    rest = prose("article.md")
    for sentence in sentences(stored):
        assert sentence in rest, sentence
        rest = rest.replace(sentence, "", 1)
    numbers = re.findall(r"(?<![\w.])(?:\d*\.\d{2,}|\d{2,}(?:\.\d+)?)(?![\w-])", rest)
    assert sorted(set(numbers)) == [".016", "100", "2115", "255", "40", "501", "95", "99.64"]


def test_the_numbers_in_the_readme_are_those_of_the_results(stored):
    regular, robust, optimal = stored.choose(["regular", "robust-eps0.2", "optimal-eps0.2"])
    minimum = optimal.run.facts["certificate"]["dual"]
    for sentence in (
        f"falls to {100 * regular.accuracy(0.1):.0f} %",
        f"keeps {100 * robust.accuracy(0.1):.0f} %",
        f"certified: {minimum:.7f}".replace("0.", "."),
    ):
        assert sentence in prose("README.md"), sentence
    for model in (regular, robust):
        shares = " ".join(f"{model.accuracy(eps):.4f}" for eps in tables.RADII)
        assert f"{model.run.name} {shares}" in prose("README.md")
    for eps in (0.1, 0.2, 0.3):
        found, least = stored.choose([f"robust-eps{eps}-converged", f"optimal-eps{eps}"])
        assert found.run.history["train_loss"][-1] < 1.03 * least.run.history["train_loss"][-1]


def test_the_races_of_the_minima_ended_as_the_page_says(stored):
    table = stored.study("benchmark-minimum")
    seconds = dict(zip(table["what"].tolist(), table["seconds"].tolist(), strict=True))
    for solver, count in (", cvxpy, Clarabel", 20), (", HiGHS", 10):
        raced = [what for what in seconds if what.endswith(solver)]
        won = [what for what in raced if seconds[what.removesuffix(solver)] < seconds[what]]
        assert len(won) == len(raced) == count
    small = 1000 * seconds["breast cancer, inf hinge"]
    assert f"breast cancer (569 × 30, hinge, L∞) in {small:.1f} ms" in prose("benchmarks.md")


def test_the_minima_of_several_classes_are_as_the_page_says(stored):
    table = stored.study("benchmark-classes-minimum")
    ours = ~np.isnan(table["weights"])
    assert (table["gap"][ours] <= 1e-6).all()
    assert (table["violation"][ours] == 0).all()
    assert "In every row the violation is 0" in prose("benchmarks.md")
    seconds = dict(zip(table["what"].tolist(), table["seconds"].tolist(), strict=True))
    ends = ", cvxpy, Clarabel", ", HiGHS, simplex", ", HiGHS, interior point"
    raced = [(what.removesuffix(end), what) for end in ends for what in seconds if end in what]
    assert len(raced) == 9 + 2 + 2
    assert all(seconds[ours] < seconds[theirs] for ours, theirs in raced)
    assert "faster than all of these on all of these problems" in prose("benchmarks.md")


def test_the_minima_of_any_data_are_as_the_page_says(stored):
    table = stored.study("benchmark-data")
    ours = ~np.isnan(table["weights"])
    assert ours.sum() == 13
    assert (table["gap"][ours] <= 1e-6).all()
    assert (table["violation"][ours] == 0).all()
    text = PAGES["benchmarks.md"].partition("## Any data")[2].partition("\n## ")[0]
    assert "In every row the violation is 0" in " ".join(text.split())


def test_the_minima_of_the_mean_are_as_the_page_says(stored):
    """Every solver that was not stopped came within 1e-6, but for the hinge of skglm."""
    table = stored.study("benchmark-mean")
    ours = ~np.isnan(table["violation"])
    assert ours.sum() == 8
    assert (table["violation"][ours] == 0).all()
    assert set(table["what"][np.isnan(table["gap"])]) == {
        "mnist-0-1, inf hinge, 0.01, skglm",
        "mnist-0-1, inf hinge, 0.01, dro",
    }
    assert set(table["what"][table["gap"] > 1e-6]) == {"breast cancer, inf hinge, 0.03, skglm"}
    assert set(table["what"][table["ratio"] < 1]) == {
        "breast cancer, inf logistic, 0.03, liblinear",
        "breast cancer, inf logistic, 0.03, skglm",
        "breast cancer, 2 logistic, 0.1, skglm",
        "mnist-0-1, inf logistic, 0.01, liblinear",
        "mnist-0-1, inf logistic, 0.01, skglm",
    }


def test_the_optimum_that_is_none_is_as_the_page_says():
    """With the version of cvxpy that the page names. The warnings are of cvxpy's bounds."""
    cvxpy = pytest.importorskip("cvxpy")
    code = example("benchmarks.md", "A wrong answer with the status optimal")
    assert f"cvxpy {cvxpy.__version__} with HiGHS" in prose("benchmarks.md")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    said = [line.rpartition("  # ")[2] for line in code.splitlines() if "  # " in line]
    assert done.stdout.splitlines() == said
    assert "invalid value encountered in matmul" in done.stderr


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_every_link_and_every_file_named_is_there(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https:)([^)#]*)#?([^)]*)\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), anchor
    for script in re.findall(r"`((?:\w+/)*\w+\.py)`", text):
        assert any((ROOT / f / script).is_file() for f in ("", "advlinear/minima")), script
    for folder in re.findall(r"`(\w+)/`", text) if page.name == "README.md" else ():
        assert (ROOT / folder).is_dir(), folder


def anchors(text: str) -> set[str]:
    """Those that a code host gives the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_setting_and_study_is_described():
    reference = PAGES["reference.md"]
    for name in recipes.RECIPES["article"].keys() - {"eager", "seed"}:
        assert f"`--{name.replace('_', '-')}`" in reference
    for name in store.names(RESULTS / "mnist-0-1" / "studies"):
        told = f"{name} needs a row in the table of studies of docs/reference.md"
        assert f"| `{name}` |" in reference or name.startswith("benchmark-"), told


def test_every_script_is_in_the_readme():
    for script in ROOT.glob("*.py"):
        assert f"`{script.name}`" in PAGES["README.md"], script.name


def example(page: str, section: str) -> str:
    """The one piece of Python code in a section of a page."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


def test_the_thirteen_names_of_the_package_are_on_its_page():
    (section,) = re.findall(
        r"^## The thirteen names\n(.*?)(?=^## )", PAGES["package.md"], re.M | re.S
    )
    names = re.findall(r"^\| `(\w+)", section, re.MULTILINE)
    assert len(set(names)) == 13
    for name in names:
        assert len(inspect.getdoc(getattr(advlinear, name))) > 20, name


RUN = """
import contextlib, io, json, sys

printed = []
for block in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(block, {})
    printed.append(out.getvalue().splitlines())
json.dump(printed, sys.stdout)
"""


def test_every_block_on_the_package_runs_in_an_empty_folder_and_prints_what_it_says(tmp_path):
    """With the package, and no other module of this repository, to be found. (The blocks of the
    README run in tests/test_package.py.) The pictures that they write are those on the page."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "advlinear").symlink_to(ROOT / "advlinear")
    (tmp_path / "empty").mkdir()
    blocks = re.findall(r"```python\n(.*?)```", PAGES["package.md"], re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", RUN],
        cwd=tmp_path / "empty",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "package"), "MPLBACKEND": "agg"},
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for block, printed in zip(blocks, json.loads(done.stdout), strict=True):
        lines = [line.strip() for line in block.splitlines()]
        said = [line.rpartition("  # ")[2] for line in lines if line.startswith("print(")]
        assert printed == said, block
    for path in (tmp_path / "empty").iterdir():  # fonts may differ a little elsewhere
        drawn, shown = pyplot.imread(path), pyplot.imread(ROOT / "docs" / path.name)
        again = f"run the block of docs/package.md that writes {path.name} in docs/"
        assert drawn.shape == shown.shape, again
        assert np.abs(drawn - shown).mean() < 0.01, again


def test_the_callback_in_the_reference_works_as_printed(tmp_path, monkeypatch):
    """Into another folder, on the sample."""
    made, main = [], train.main
    elsewhere = dict(results=tmp_path, dataset="mnist-sample", quiet=True)
    monkeypatch.setattr(train, "main", lambda **given: made.extend(main(**given, **elsewhere)))
    exec(example("reference.md", "Callbacks of your own"), {})
    (file,) = made
    assert f"`{file.name}`" in prose("reference.md")


def test_the_study_in_the_reference_works_as_printed(tmp_path, monkeypatch):
    """As if it stood in studies.py."""
    monkeypatch.setattr(studies, "ink", None, raising=False)  # so that it is gone afterwards
    exec(example("reference.md", "Adding a study"), vars(studies))
    monkeypatch.setitem(studies.STUDIES, "ink", studies.ink)
    options = dict(dataset="mnist-sample", results=tmp_path)
    train.main(robust=True, eps=0.1, quiet=True, **options)
    studies.main(["ink"], **options)
    tables.main(results=tmp_path)
    head, row = (tmp_path / "mnist-sample-0-1/tables/ink.csv").read_text().splitlines()
    assert head == "run,flipped,kept"
    assert row.startswith("robust-eps0.1,0.")


def test_the_figure_in_the_reference_works_as_printed(stored, monkeypatch):
    """As if it stood in figures/comparisons.py, and nowhere else."""
    from figures import comparisons

    monkeypatch.setattr(comparisons, "sparsity", None, raising=False)  # so that it is gone then
    exec(example("reference.md", "Adding a figure"), vars(comparisons))
    assert comparisons.sparsity in plots.figures()["results"]
    assert plots.render(comparisons.sparsity, (stored,)).startswith(b"\x89PNG")
    assert plots.caption(comparisons.sparsity)[2] == "`runs/*.npz`."


def test_the_loss_in_the_reference_works_as_printed(tmp_path, monkeypatch, capsys):
    """As if it stood in losses.py, and its name in recipes.py; the check knows it, too. The line
    for REFERENCE gives the same loss, and a derivative that agrees with its differences."""
    monkeypatch.setattr(
        losses, "squared_hinge", None, raising=False
    )  # so that it is gone afterwards
    exec(example("reference.md", "Adding a loss"), vars(losses))
    monkeypatch.setitem(recipes.VALID, "loss", (*recipes.LOSSES, "squared_hinge"))
    options = dict(loss="squared_hinge", dataset="mnist-sample", results=tmp_path)
    (file,) = train.main(robust=True, eps=0.1, epochs=3, quiet=True, **options)
    reproduce.main(check=True, results=tmp_path)
    assert "all that was checked agrees" in capsys.readouterr().out
    run = runs.load_run(file)
    x, y = data.load("mnist-sample").flat("train")
    worst = y * (x @ run.w + run.b) - 0.1 * np.abs(run.w).sum()
    expected = np.mean(np.maximum(0, 1 - worst) ** 2)
    assert run.history["train_loss"][-1] == pytest.approx(expected, rel=1e-5)
    (line,) = re.findall(r'^`("squared_hinge": .+),`$', PAGES["reference.md"], re.MULTILINE)
    ((value, slope),) = eval(f"{{{line}}}", {"np": np}).values()
    assert value(worst).mean() == pytest.approx(expected)
    differences = (value(worst + 1e-6) - value(worst - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope(worst), differences, rtol=0, atol=1e-5)


def test_pages_without_markers_are_refused_and_left_alone(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(InputError, match="no page has markers for the table benchmark"):
        tables.write_pages({"benchmark": ""}, (page,))
    assert page.read_text(encoding="utf-8") == "no markers"
