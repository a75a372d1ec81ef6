"""Numbers that only pictures need: images nearest to the boundary, loss landscapes, the example.

attack.py stores them beside its attacks in the L-infinity ball, and the functions of figures/ read
them: misclassified_regular, misclassified_noise, landscape_simple, landscape_robust and attack.
"""

from __future__ import annotations

from pathlib import Path

from lab import store

import numpy as np

import data
import runs
import worst_case

EPS = np.arange(11) * 5 / 100  # the radii at which misclassified images are shown
NEAREST = 10  # misclassified images recorded at each
SHOWN = 8  # of those that are wrong without an attack, the images stored for the figure
COLUMNS = 56  # pixels in a block of weight_landscape, which a cache of the processor holds
EXAMPLE = ("regular", "robust-eps0.2", "optimal-eps0.2")  # the models of the figure attack


def of_run(run: runs.Run, split: data.Dataset) -> runs.Illustration:
    """All that pictures need of one run."""
    nearest = nearest_misclassified(run, split)
    shown = {
        row["index"]
        for row in nearest
        if row["rank"] == 0 or (row["eps"] == 0 and row["rank"] < SHOWN)
    }
    shown = np.array(sorted(shown), dtype=np.int64)
    settings = run.settings
    has_landscape = settings.robust and settings.plain_hinge  # eps decides which pixels stay in use
    return runs.Illustration(
        facts=dict(weights_sha256=run.weights_sha256, data_sha256=split.checksum),
        image_index=shown,
        images=split.x_test[shown, ..., 0],
        nearest=store.columns(nearest, ("eps", "rank", "index", "label", "logit")),
        landscape=weight_landscape(run, split) if has_landscape else {},
    )


def nearest_misclassified(run: runs.Run, split: data.Dataset) -> list[dict]:
    """At each radius, the misclassified perturbed samples whose logits are nearest to 0."""
    (x, y), rows = split.flat("test"), []
    clean, cost = x @ run.w + run.b, np.abs(run.w).sum()
    for eps in EPS:
        logits = clean - y * eps * cost
        wrong = np.flatnonzero(y * logits <= 0)
        wrong = wrong[np.argsort(np.abs(logits[wrong]), kind="stable")][:NEAREST]
        rows += [
            dict(eps=float(eps), rank=rank, index=int(i), label=int(y[i]), logit=logits[i])
            for rank, i in enumerate(wrong)
        ]
    return rows


def weight_landscape(run: runs.Run, split: data.Dataset) -> dict[str, list]:
    """Mean training loss over one weight v, all others as trained: two pixels, two losses.

    The strong pixel has the largest |w_j|. The weak one is dropped by the robust loss: at
    v = 0 the mean of y x_j over the active samples is at most eps in absolute value, so the
    loss is least at exactly v = 0. Of those it is the one on which the plain hinge pulls most.
    """
    eps, w, hinge = run.settings.eps, run.w, worst_case.hinge
    y = split.y_train.astype(np.float64)
    x = split.x_train.reshape(len(y), -1)
    margins = y * (x @ w + run.b)
    others = eps * (np.abs(w).sum() - np.abs(w))  # what the other weights cost, for each j

    def of(pixels):
        """For some pixels y x_j (n, k), and the margins with w_j = 0."""
        yx = y[:, None] * x[:, pixels]
        return yx, margins[:, None] - yx * w[pixels]

    dropped, pull = np.zeros(len(w), dtype=bool), np.zeros(len(w))
    for k in range(0, len(w), COLUMNS):
        some = slice(k, k + COLUMNS)
        yx, plain = of(some)
        active = plain - others[some] < 1
        dropped[some] = np.abs((active * yx).sum(0)) <= eps * active.sum(0)
        pull[some] = np.abs(((plain < 1) * yx).mean(0))
    pixels = {"strong": int(np.argmax(np.abs(w)))}
    if (dropped & (pull > 0)).any():
        pixels["weak"] = int(np.argmax(np.where(dropped, pull, -1.0)))
    grid = 1.5 * np.abs(w).max() * np.arange(-60, 61) / 60  # 0 exactly, which linspace may miss
    rows = []
    for pixel, j in pixels.items():
        yx, plain = (column[:, 0] for column in of([j]))
        robust = plain - others[j]
        rows += [
            dict(
                pixel=pixel,
                index=j,
                weight=v,
                hinge=hinge(plain + yx * v).mean(),
                robust_hinge=hinge(robust + yx * v - eps * abs(v)).mean(),
            )
            for v in grid
        ]
    return store.columns(rows)


def save_example(dataset: Path, known: dict[str, runs.Run], split: data.Dataset) -> None:
    """Store the image of the figure attack, once the first two of its models are attacked."""
    attacked = store.names(dataset / "attacks" / "linf")
    members = [known[name] for name in EXAMPLE if name in known and name in attacked]
    if {run.name for run in members} >= set(EXAMPLE[:2]):
        runs.save_study(dataset, "example", {"example": example(members, split)}, members)


def example(members: list[runs.Run], split: data.Dataset) -> dict[str, np.ndarray]:
    """A test image of the lower digit that is typical for each of the runs.

    Each run ranks the images of this digit by their radii in the L-infinity ball. We take the image
    that minimises the largest distance of its ranks from the middle rank.

    Returns:
        index (), image (height, width), and runs: their names.
    """
    x, y = split.flat("test")
    lower = np.flatnonzero(y < 0)
    farthest = np.zeros(len(lower))
    for run in members:
        ranks = worst_case.ranks(worst_case.signed_radii(x[lower], y[lower], run.w, run.b))
        farthest = np.maximum(farthest, np.abs(ranks - (len(lower) - 1) / 2))
    index = lower[np.argmin(farthest)]
    names = np.array([run.name for run in members])
    return dict(index=index, image=split.x_test[index, ..., 0], runs=names)
