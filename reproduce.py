"""Make everything that is published, or check that it still holds.

    python reproduce.py            every command, from an empty results/ to the tables of the pages
    python reproduce.py --check    recompute what follows from the stored weights, and compare

The first needs what requirements-dev.txt lists: a study compares with a library's attacks.
On the machine that made them, recomputed numbers agree to the last bit. Another machine sums in
another order, some numbers are stored with nine digits, and some are means in float32: hence the
tolerances below. A count of samples may differ by those that are within a tolerance of the radius.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common import cli, runs
from common.cli import RESULTS, ROOT, InputError

import numpy as np

import advlinear
import attack
import data
import recipes
import studies
from advlinear import minimum

THREATENED = (
    "regular regular-initzeros robust-eps0.2 robust-eps0.2-converged robust-eps0.2-box-converged "
    "optimal-eps0.2 optimal-eps0.2-box optimal-eps0.3"
)
BOXED = "robust-eps0.1 robust-eps0.3 robust-eps0.1-box-converged robust-eps0.3-box-converged"
COMMANDS = (
    "optimum.py --eps 0.1 0.2 0.3",
    "optimum.py --eps 0.2 --box",
    "train.py",
    "train.py --robust --eps 0.1 0.2 0.3",
    "train.py --init zeros",
    "train.py --recipe converged",
    "train.py --robust --eps 0.1 0.2 0.3 --recipe converged",
    "train.py --robust --eps 0.1 0.2 0.3 --recipe converged --box",
    "train.py --recipe kolter-madry",
    "train.py --recipe kolter-madry --robust --eps 0.2",
    "attack.py",
    f"attack.py --runs {BOXED} --box",
    *(
        f"attack.py --runs {THREATENED} {ball}"
        for ball in ("--box", "--norm 2", "--norm 2 --box", "--norm 1", "--norm 1 --box")
    ),
    "studies.py noise transfer seeds masking ten-digits",
    "benchmark.py",
    "plots.py",
    "explore.py",
    "tables.py",
)

DOUBLE = 1e-9  # float64: a sum of 784 products is off by some 1e-13
PRINTED = 1e-8  # nine digits in a csv
SINGLE = 1e-5  # float32: a mean over 12665 losses
UNCHECKED = (
    "not checked, as it takes training again: the earlier rows of history.csv, steps.npz, "
    "seeds.csv, copies.csv, masking.csv, ten-digits*.csv, the rows of other seeds in transfer.csv, "
    "and timings"
)

Row = tuple[str, float, float]  # what is compared, by how much it differs, by how much it may


def main(check: bool = False, results: Path = RESULTS, mnist_dir: Path | None = None) -> None:
    """Run all commands, or check the stored numbers; prints what it does.

    Raises:
        InputError: a command failed, a number differs, or nothing could be checked.
    """
    if check:
        return check_all(Path(results), mnist_dir)
    started = time.perf_counter()
    for command in COMMANDS:
        script, *arguments = shlex.split(command)
        arguments += ["--results", str(results)]
        if mnist_dir and script in ("train.py", "optimum.py", "studies.py", "benchmark.py"):
            arguments += ["--mnist-dir", str(mnist_dir)]
        print(f"python {script} {shlex.join(arguments)}", flush=True)
        begun = time.perf_counter()
        status = subprocess.run([sys.executable, ROOT / script, *arguments], check=False).returncode
        if status:
            raise InputError(f"python {command} ended with status {status}: see the lines above")
        print(f"{time.perf_counter() - begun:.1f} s\n", flush=True)
    print(f"everything in {time.perf_counter() - started:.0f} s")


# --- checking ------------------------------------------------------------------------------------


def check_all(results: Path, mnist_dir: Path | None = None) -> None:
    """Compare the stored numbers with those recomputed from the stored weights and the images.

    Raises:
        InputError: a number differs, or nothing could be checked.
    """
    checked = differing = 0
    for dataset in runs.datasets(results):
        stored = runs.read(dataset)
        try:
            split = data.load_named(dataset.name, mnist_dir)
        except InputError as error:
            cli.notice(f"{dataset.name} is not checked: {error}")
            continue
        rows, members = [], runs.trained_on(split, dataset, stored.runs)
        for name, run in cli.bar(list(members.items()), "checking"):
            rows += compare_run(run, split)
            for threat, attacks in stored.attacks.items():
                if name in attacks:
                    compared = compare_attack(attacks[name], run, split)
                    rows += [(f"{name}, {threat}: {what}", *rest) for what, *rest in compared]
            if name not in stored.attacks.get("linf", {}):
                again = runs.again_attack(name, "linf", dataset)
                print(f"{name}: no attack stored in linf (run {again})")
        rows += compare_studies(stored.studies, members, split)
        largest = {}
        for what, difference, allowed in rows:
            largest[allowed] = max(largest.get(allowed, 0), difference)
            if not difference <= allowed:
                differing += 1
                print(f"{what}: differs by {difference:.2g}, {allowed:g} is allowed")
        attacks = sum(map(len, stored.attacks.values()))
        print(
            f"{dataset.name}: checked {len(rows)} numbers of {len(members)} runs, {attacks} "
            "attacks on them and the studies"
        )
        for allowed, difference in sorted(largest.items()):
            print(f"largest difference where {allowed:g} is allowed: {difference:.2g}")
        checked += len(rows)
    print(UNCHECKED)
    if differing:
        raise InputError(f"{differing} stored numbers differ from the recomputed ones")
    if not checked:
        raise InputError(f"nothing in {results} could be checked")
    print("all that was checked agrees")


def relative_difference(old, new) -> float:
    """The largest difference, relative to sizes above 1; inf if shapes or infinities differ."""
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    if old.shape != new.shape:
        return np.inf
    differing = old != new  # equal infinities do not
    old, new = old[differing], new[differing]
    if not (np.isfinite(old) & np.isfinite(new)).all():
        return np.inf
    return float((np.abs(old - new) / np.maximum(1, np.abs(old))).max(initial=0.0))


def count_difference(old, new, radii, eps, tolerance: float) -> int:
    """Largest difference between the old and new counts (k,) of radii (n,) above eps (k,).

    Samples within `tolerance` of eps are ignored.
    """
    old, new, eps = (np.atleast_1d(values) for values in (old, new, eps))
    if old.shape != new.shape:
        return len(radii)
    at_edge = np.count_nonzero(np.abs(radii[:, None] - eps) <= tolerance, axis=0)
    return int(np.max(np.abs(old - new) - at_edge, initial=0))


def compare_run(run: runs.Run, split: data.Dataset) -> Iterator[Row]:
    """The last row of history.csv, and the certificate of a run of optimum.py."""
    settings = run.settings
    loss_of = dict(hinge=advlinear.hinge, logistic=lambda margins: np.logaddexp(0, -margins))
    loss_of = loss_of[settings.loss]
    for part in ("train", "test"):
        x, y = split.flat(part)
        margins = y * (x @ run.w + run.b)
        worst = advlinear.worst_case_margins(
            x, y, run.w, run.b, settings.eps, settings.norm, settings.box
        )
        for name, values in (("accuracy", margins), ("robust_accuracy", worst)):
            column = f"{part}_{name}"
            if column in run.history:
                old, new = run.history[column][-1] * len(y), np.count_nonzero(values > 0)
                difference = count_difference(round(old), new, values, 0.0, SINGLE)
                yield f"{run.name}: {column} in history.csv", difference, 0
        for name, values in (("loss", worst), (settings.loss, margins)):
            column = f"{part}_{name}"
            if column in run.history:
                mean = loss_of(values).mean()
                difference = relative_difference(run.history[column][-1], mean)
                yield f"{run.name}: {column} in history.csv", difference, SINGLE
    if settings.recipe == recipes.OPTIMAL:
        old = run.config["certificate"]
        new = advlinear.certificate(
            *split.flat("train"), run.w, run.b, run.alpha, settings.eps, settings.box
        )
        for name in ("primal", "dual"):
            difference = relative_difference(old[name], new[name])
            yield f"{run.name}: {name} in config.json", difference, DOUBLE
        yield f"{run.name}: gap of dual.npz", abs(new["gap"]), minimum.LARGEST_GAP
        violation = max(value for name, value in new.items() if name.startswith("violation"))
        yield f"{run.name}: violation by dual.npz", violation, 10 * minimum.TOLERANCE


def compare_attack(old: runs.Attack, run: runs.Run, split: data.Dataset) -> Iterator[Row]:
    """A stored attack against what attack.py computes now."""
    eps = old.accuracy["eps"]
    new = attack.evaluate(run, split, eps, old.facts["norm"], old.facts["box"])
    sizes = ("w_l1", "w_l1_unlit")
    for name, value in new.facts.items():
        if name in sizes:
            yield f"{name} in attack.json", relative_difference(old.facts[name], value), DOUBLE
        else:
            yield f"{name} in attack.json", float(old.facts[name] != value), 0
    for name, allowed in dict(labels=0, logits=DOUBLE, radii=DOUBLE, images=0).items():
        difference = relative_difference(old.samples[name], new.samples[name])
        yield f"{name} in samples.npz", difference, allowed
    counts = (table["correct"] for table in (old.accuracy, new.accuracy))
    difference = count_difference(*counts, new.samples["radii"], eps, DOUBLE)
    yield "correct in accuracy.csv", difference, 0
    shares = old.accuracy["correct"] / old.accuracy["samples"]
    difference = relative_difference(old.accuracy["accuracy"], shares)
    yield "accuracy in accuracy.csv", difference, PRINTED
    # Relative to what a unit of radius costs, as the radii are printed numbers, too.
    logits = (table["logit"] for table in (old.nearest, new.nearest))
    difference = relative_difference(*logits) / (1 + old.facts["w_l1"])
    yield "logit in nearest.csv", difference, PRINTED
    for name in ("hinge", "robust_hinge") if new.landscape else ():
        difference = relative_difference(old.landscape[name], new.landscape[name])
        yield f"{name} in landscape.csv", difference, PRINTED


def compare_studies(tables: dict, members: dict, split: data.Dataset) -> Iterator[Row]:
    """The tables, or rows of them, that follow from the stored runs."""
    old = tables.get("noise", {"run": []})
    names = dict.fromkeys(old["run"])
    if names and names.keys() <= members.keys():  # the draws depend on all of the runs
        new = studies.random_noise([members[name] for name in names], split)
        for name in ("random", "error", "normal", "worst"):
            yield f"{name} in noise.csv", relative_difference(old[name], new[name]), PRINTED
    if "example.npz" in tables and set(tables["example.npz"]["runs"]) <= members.keys():
        old = tables["example.npz"]
        new = attack.example({name: members[name] for name in old["runs"]}, split)
        for name in ("index", "image"):
            yield f"{name} in example.npz", relative_difference(old[name], new[name]), 0
    if "transfer" in tables:
        old = tables["transfer"]
        known = [run for name, run in members.items() if name in old["source"]]
        new = studies.accuracy_under_another(known, split)
        shares = dict(zip(zip(*list(old.values())[:3], strict=True), old["accuracy"], strict=True))
        for *key, accuracy in zip(*new.values(), strict=True):
            difference = relative_difference(shares[tuple(key)], accuracy)
            yield f"{key[1]} under {key[0]}'s in transfer.csv", difference, PRINTED


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="reproduce.py", description="Make everything that is published, or check it."
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="recompute what follows from the stored weights, and print what differs",
    )
    parser.add_mnist_dir()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
