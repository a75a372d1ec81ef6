"""Write the interactive page: drag the radius and see several models read the same digit.

It shows the models of the article's recipe, and needs them attacked with and without the box. Where
`python optimum.py --path` has been run, it shows the best possible model for each radius, too.

    python explore.py    results/<dataset>/explore.html of every data set

The page is one file and makes no network requests. Its weights and accuracy curves come from
results/, its images from the data set. It computes margins, radii and perturbations in JavaScript
(figures/explore.html), in float64 as advlinear does; tests/experiment/test_explore.py compares
the two.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path

from lab import cli, store
from lab.cli import RESULTS, ROOT, InputError
from lab.store import Missing

import numpy as np

import data
import plots
import runs
import worst_case
from figures import style

TEMPLATE = ROOT / "figures" / "explore.html"
STEPS = 501  # of the slider, from 0 to 0.5
SHOWN = 12  # images of each digit


def main(results: Path = RESULTS, mnist_dir: Path | None = None) -> None:
    """Write explore.html for each data set whose images can be had and whose runs are there.

    Raises:
        InputError: there is no such data set.
    """
    results = cli.results_folder(results)
    written, problems = [], []
    for dataset in runs.of_two_digits(results):
        try:
            split = data.load_named(dataset.name, mnist_dir)
            path = dataset / "explore.html"
            store.write(path, page(runs.read(dataset), split).encode())
            written.append(path)
        except InputError as error:
            problems.append(f"no page for {dataset.name}: {error}")
    if not written:
        none = f"no runs of two digits in {results}: run python train.py"
        raise InputError("; ".join(problems) or none)
    for problem in problems:
        cli.notice(problem)
    for path in written:
        print(path)


def page(stored: runs.Results, split: data.Dataset) -> str:
    """The page as HTML. Raises Missing: a run is not there, or not attacked with and without box.

    Weights are float32, pixels bytes and numbers of images 16 bits, all in base64. A pixel is
    float32(v / 255), as in data.py.
    """
    stored = dataclasses.replace(stored, runs=runs.trained_on(split, stored.runs, stored.folder))
    free = models_of(stored)
    boxed = stored.choose([model.run.name for model in free], "linf-box")
    best = {}
    if "path" in stored.studies:
        best = dict(best=best_of(stored, split))
    facts = dict(
        digits=list(split.digits),
        count=len(split.y_test),
        models=[
            dict(
                run=free_model.run.name,
                label=free_model.label,
                colour=style.colour(free_model.run.settings),
                dash=style.dash(free_model.run.settings),
                w=_base64(free_model.run.w.astype("<f4")),
                b=free_model.run.b,
                correct=[
                    _counts(worst_case.withstand(model.attack.radii, np.arange(STEPS) / 1000))
                    for model in (free_model, boxed_model)
                ],
            )
            for free_model, boxed_model in zip(free, boxed, strict=True)
        ],
        images=[
            dict(
                index=int(index),
                label=int(split.y_test[index]),
                pixels=_base64(np.uint8(np.round(255 * split.x_test[index]))),
            )
            for index in hard_to_easy(free)
        ],
        **best,
    )
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.replace("/* facts of explore.py */ {}", json.dumps(facts, separators=(",", ":")))


def models_of(stored: runs.Results) -> list[runs.Model]:
    """The models of the article's recipe by radius, the regular one first.

    Raises Missing: there is none, or one is not attacked without the box and with it.
    """
    recipe = [
        name for name, run in stored.runs.items() if plots.group_of(run.settings) == plots.ARTICLE
    ]
    missing = []
    for threat in ("linf", "linf-box"):
        try:
            stored.choose(recipe or ["regular"], threat)
        except Missing as error:
            missing.append(str(error))
    if missing:
        raise Missing("; ".join(dict.fromkeys(missing)))
    return sorted(stored.choose(recipe), key=lambda model: model.run.settings.eps)


def best_of(stored: runs.Results, split: data.Dataset) -> dict:
    """The best model for each step of the slider, packed, and how many test images it gets right.

    A model serves `uses` steps in turn, as advlinear's Path.at has it: at eps its weights are
    w / (1 - eps s), its bias b / (1 - eps s). `counts` says how many `pixels` each model uses;
    their `weights` follow one another. `end` is the radius from which w = 0 is best, if it is.

    The stored accuracy is without the box. That of the same models with the box is counted here.
    """
    grid, table = stored.study("path"), stored.study("path-models", "path")
    radii = np.arange(STEPS) / 1000
    models = np.searchsorted(table["radii"], radii, side="right")
    used, uses = np.unique(models, return_counts=True)
    entries = np.concatenate([np.arange(*table["w_indptr"][k : k + 2]) for k in used])
    (x, y), boxed = split.flat("test"), []
    for eps, k in zip(radii, models, strict=True):
        part, shrunk = slice(*table["w_indptr"][k : k + 2]), 1 - eps * table["s"][k]
        w, b = np.float64(table["w_data"][part]) / shrunk, table["b"][k] / shrunk
        flips = worst_case.signed_radii(x[:, table["w_indices"][part]], y, w, b, "inf", box=True)
        boxed.append(int(np.count_nonzero(flips > eps)))
    return dict(
        run="best",
        label="best possible for each ε",
        colour=style.BLUE,
        dash=style.SOLID,
        end=float(table["radii"][-1]) if len(table["radii"]) else 0.0,
        uses=_base64(uses.astype("<u2")),
        counts=_base64(np.diff(table["w_indptr"])[used].astype("<u2")),
        pixels=_base64(table["w_indices"][entries].astype("<u2")),
        weights=_base64(table["w_data"][entries].astype("<f4")),
        b=_base64(table["b"][used].astype("<f8")),
        s=_base64(table["s"][used].astype("<f8")),
        correct=[_counts(np.round(grid["test_accuracy"] * len(y))), _counts(boxed)],
    )


def _counts(images) -> str:
    return _base64(np.asarray(images).astype("<u2"))


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


def hard_to_easy(models: list[runs.Model]) -> np.ndarray:
    """Twelve test images of each digit, as indexes: at equal steps from the hardest to the easiest.

    An image is hard where its rank by radius is low in the mean over the models.
    """
    labels = models[0].attack.labels
    chosen = []
    for label in (-1, 1):
        members = np.flatnonzero(labels == label)
        radii = [model.attack.radii[members] for model in models]
        ranks = np.mean([worst_case.ranks(one) for one in radii], axis=0)
        steps = np.linspace(0, len(members) - 1, SHOWN).round().astype(int)
        chosen.append(members[np.argsort(ranks, kind="stable")[steps]])
    return np.concatenate(chosen)


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="explore.py", description="Write the interactive page explore.html.")
    parser.add_mnist_dir()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
