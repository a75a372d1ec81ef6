"""Hold stored numbers against those recomputed from the weights and the data.

On the machine that made them they agree to the last bit. Another one sums in another order; some
numbers are stored with nine digits, or are means in float32: hence the tolerances below. A number
of samples may differ only by those that are within a tolerance of the radius in question.

Each check yields rows (what, how far apart, how far they may be).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

import claims
import exact
import files
import optimum
import records
import runs
import stored

DOUBLE = 1e-9  # float64: a sum of 784 products is off by some 1e-13
PRINTED = 1e-8  # nine digits in a csv
SINGLE = 1e-5  # float32: a mean over 12665 losses

Row = tuple[str, float, float]


def apart(old, new) -> float:
    """The largest difference, relative to sizes above 1; inf if shapes or infinities differ."""
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if old.shape != new.shape:
        return np.inf
    differing = old != new  # equal infinities do not
    old, new = old[differing], new[differing]
    if not (np.isfinite(old) & np.isfinite(new)).all():
        return np.inf
    return float((np.abs(old - new) / np.maximum(1, np.abs(old))).max(initial=0.0))


def miscounted(old, new, radii, eps, tolerance: float) -> int:
    """The most that counts (k,) of radii above eps (k,) differ by, those at the edge aside."""
    old, new, eps = (np.atleast_1d(values) for values in (old, new, eps))
    if old.shape != new.shape:
        return len(radii)
    at_edge = np.count_nonzero(np.abs(radii[:, None] - eps) <= tolerance, axis=0)
    return int(np.max(np.abs(old - new) - at_edge, initial=0))


def attack(old: stored.Attack, new: dict) -> Iterator[Row]:
    """A stored attack against what `attack.evaluate` gives."""
    sizes = ("w_l1", "w_l1_unlit")
    told, found = (
        {name: value for name, value in facts.items() if name not in sizes}
        for facts in (old.facts, new["facts"])
    )
    yield "facts in attack.json", float(told != found), 0
    for name in sizes:
        yield f"{name} in attack.json", apart(old.facts[name], new["facts"][name]), DOUBLE
    for name, allowed in dict(labels=0, logits=DOUBLE, radii=DOUBLE, images=0).items():
        yield f"{name} in samples.npz", apart(old.samples[name], new["samples"][name]), allowed
    counts = [table["correct"] for table in (old.accuracy, new["accuracy"])]
    eps, radii = new["accuracy"]["eps"], new["samples"]["radii"]
    yield "eps in accuracy.csv", apart(old.accuracy["eps"], eps), PRINTED
    yield "correct in accuracy.csv", miscounted(*counts, radii, eps, DOUBLE), 0
    # Relative to what a unit of radius costs, as the radii are printed numbers, too.
    logits = [table["logit"] for table in (old.nearest, new["nearest"])]
    yield "logit in nearest.csv", apart(*logits) / (1 + old.facts["w_l1"]), PRINTED
    for name in ("hinge", "robust_hinge") if new["landscape"] else ():
        losses = [table[name] for table in (old.landscape, new["landscape"])]
        yield f"{name} in landscape.csv", apart(*losses), PRINTED


def claimed(dataset: Path, models: dict[str, stored.Model]) -> Iterator[Row]:
    """The tables in claims/ that rest on the stored attacks: all but masking.csv."""
    for name, new in claims.compute(models).items():
        old = stored.claim(dataset, name)
        for share in records.SHARES[name]:
            yield f"{share} in {name}.csv", apart(old[share], new[share]), PRINTED


def history(run: runs.Run, train_set, test_set) -> Iterator[Row]:
    """The last row of history.csv against the losses and accuracies of the stored weights.

    Each set is (x, y), (n, d) and (n,) in float64.
    """
    settings = run.settings
    loss = dict(hinge=lambda m: np.maximum(0, 1 - m), logistic=lambda m: np.logaddexp(0, -m))
    for part, (x, y) in (("train", train_set), ("test", test_set)):
        margins = y * (x @ run.w + run.b)
        cost = settings.eps * exact.dual_norm(run.w, settings.norm)
        if settings.box:
            cost = np.minimum(exact.room(x, y, run.w), settings.eps) @ np.abs(run.w)
        for prefix, values in (("", margins), ("robust_", margins - cost)):
            name = f"{part}_{prefix}accuracy"
            if name in run.history:
                counts = [round(run.history[name][-1] * len(y)), np.count_nonzero(values > 0)]
                yield f"{name} in history.csv", miscounted(*counts, values, 0.0, SINGLE), 0
        for name, values in (("loss", margins - cost), (settings.loss, margins)):
            name = f"{part}_{name}"
            if name in run.history:
                mean = loss[settings.loss](values).mean()
                yield f"{name} in history.csv", apart(run.history[name][-1], mean), SINGLE


def certificate(run: runs.Run, x, y) -> Iterator[Row]:
    """The certificate in config.json against the one that w, b and dual.npz make anew.

    x (n, d) and y (n,) are the training set in float64.
    """
    alpha = files.read_npz(run.folder / "dual.npz", ("alpha",))["alpha"]
    old = run.config["certificate"]
    new = optimum.certificate(x, y, run.w, run.b, alpha, run.settings.eps)
    for name in ("primal", "dual"):
        yield f"{name} in config.json", apart(old[name], new[name]), DOUBLE
    yield "gap of dual.npz", abs(new["gap"]), optimum.LARGEST_GAP
    violation = max(value for name, value in new.items() if name.startswith("violation"))
    yield "violation by dual.npz", violation, 10 * optimum.TOLERANCE
