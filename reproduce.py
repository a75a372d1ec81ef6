"""Make everything that is published, or check that it still holds.

    python reproduce.py            every command, from an empty results/ to the tables of the pages
    python reproduce.py --check    recompute what follows from the stored weights, and compare

The first needs what requirements-dev.txt lists: a study compares with a library's attacks. Another
compares with two more libraries, foolbox and adv-lib, and leaves them out where they are missing.
On the machine that made them, recomputed numbers agree to the last bit. Another machine sums in
another order, and some numbers are means in float32: hence the tolerances below.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lab import cli, store
from lab.cli import RESULTS, ROOT, InputError

import numpy as np

import attack
import data
import illustrations
import optimum
import runs
import studies
import worst_case

IN_EVERY_BALL = (
    "regular regular-initzeros robust-eps0.2 robust-eps0.2-converged robust-eps0.2-box-converged "
    "optimal-eps0.2 optimal-eps0.2-box optimal-eps0.3 optimal-eps1.5-l2 optimal-eps20-l1"
)
BOXED = "robust-eps0.1 robust-eps0.3 robust-eps0.1-box-converged robust-eps0.3-box-converged"
COMMANDS = (
    "optimum.py --eps 0.1 0.2 0.3",
    "optimum.py --eps 0.2 --box",
    "optimum.py --eps 1.5 --norm 2",
    "optimum.py --eps 20 --norm 1",
    "optimum.py --eps 0.2 --loss logistic",
    "optimum.py --verify",
    "optimum.py --digits all --eps 0.05 0.1",
    "optimum.py --digits all --verify",
    "optimum.py --path",
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
        f"attack.py --runs {IN_EVERY_BALL} {ball}"
        for ball in ("--box", "--norm 2", "--norm 2 --box", "--norm 1", "--norm 1 --box")
    ),
    "studies.py noise transfer seeds masking ten-digits referee",
    "benchmark.py",
    "plots.py",
    "explore.py",
    "tables.py",
)

DOUBLE = 1e-9  # float64: a sum of 784 products is off by some 1e-13
SINGLE = 1e-5  # float32: a mean over 12665 losses
Row = tuple[str, float, float]  # what is compared, by how much it differs, by how much it may


def main(check: bool = False, results: Path = RESULTS, mnist_dir: Path | None = None) -> None:
    """Run all commands, or check the stored numbers; prints what it does.

    Raises:
        InputError: a command failed, a number differs, or nothing could be checked.
    """
    results = cli.results_folder(results)
    if check:
        return check_all(results, mnist_dir)
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
    checked, differing, attacked = 0, 0, runs.of_two_digits(results)
    for dataset in store.datasets(results):
        stored = runs.read(dataset)
        try:
            split = data.load_named(dataset.name, mnist_dir)
        except InputError as error:
            cli.notice(f"{dataset.name} is not checked: {error}")
            continue
        rows, members = [], runs.trained_on(split, stored.runs, dataset)
        for name, run in cli.bar(list(members.items()), "checking"):
            rows += differences(name, *last_epoch(run, split), SINGLE)
            if proof := run.facts.get("certificate"):
                rows += differences(name, proof, optimum.certificate(run, split))
            for threat, attacks in stored.attacks.items():
                if name in attacks:
                    rows += compare_attack(f"{name}, {threat}", attacks[name], run, split)
            if name in stored.illustrations:
                rows += compare_illustration(name, stored.illustrations[name], run, split)
            if dataset in attacked and name not in stored.attacks.get("linf", {}):
                again = runs.command(store.file(dataset, "attacks", "linf", name))
                print(f"{name}: no attack stored in linf (run {again})")
        unchecked = set(stored.studies)
        for name, *tables in studies_again(stored.studies, members, split, mnist_dir):
            rows += differences(name, *tables)
            unchecked.remove(name)
        largest = {}
        for what, difference, allowed in rows:
            largest[allowed] = max(largest.get(allowed, 0), difference)
            if not difference <= allowed:
                differing += 1
                print(f"{what}: differs by {difference:.2g}, {allowed:g} is allowed")
        attacks = sum(map(len, stored.attacks.values()))
        print(
            f"{dataset.name}: checked {len(rows)} numbers of {len(members)} run(s), {attacks} "
            f"attack(s) on them and {len(stored.studies) - len(unchecked)} table(s) of studies"
        )
        print(
            "not checked, as it takes training again: epochs before the last, steps, other seeds "
            f"in transfer, and the tables {', '.join(sorted(unchecked)) or 'of no study'}"
        )
        for allowed, difference in sorted(largest.items()):
            print(f"largest difference where {allowed:g} is allowed: {difference:.2g}")
        checked += len(rows)
    if differing:
        raise InputError(f"{differing} stored numbers differ from the recomputed ones")
    if not checked:
        raise InputError(f"nothing in {results} could be checked")
    print("all that was checked agrees")


def differences(where: str, old: dict, new: dict, allowed: float = DOUBLE) -> Iterator[Row]:
    """By how much each of the old numbers differs from the new one of its name.

    Text and whole numbers must be equal; others may differ by `allowed`.
    """
    for name, value in new.items():
        if np.asarray(value).dtype.kind == "f":
            yield f"{where}: {name}", relative_difference(old[name], value), allowed
        else:
            yield f"{where}: {name}", 0.0 if np.array_equal(old[name], value) else np.inf, 0.0


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


def last_epoch(run: runs.Run, split: data.Dataset) -> tuple[dict, dict]:
    """The losses and accuracies after the last epoch, as stored and as computed from the images."""
    cli.import_tensorflow()
    import losses

    settings, new = run.settings, {}
    mean_loss, ball = getattr(losses, settings.loss), (settings.eps, settings.norm, settings.box)
    for part in ("train", "test"):
        x, y = split.flat(part)
        margins = worst_case.margins(x, y, run.w, run.b)
        worst = worst_case.margins(x, y, run.w, run.b, *ball)
        new[f"{part}_loss"], new[f"{part}_accuracy"] = float(mean_loss(worst)), np.mean(margins > 0)
        if settings.robust:
            new[f"{part}_{settings.loss}"] = float(mean_loss(margins))
            new[f"{part}_robust_accuracy"] = np.mean(worst > 0)
    return {name: values[-1] for name, values in run.history.items()}, new


def compare_attack(where: str, old: runs.Attack, run: runs.Run, split) -> Iterator[Row]:
    """A stored attack against what attack.py computes now."""
    new = attack.attack(run, split, old.facts["norm"], old.facts["box"])
    yield from differences(where, old.facts, new.facts)
    # A radius that is off by rounding may be on the other side of one of eps.
    arrays = new.arrays() | dict(correct=worst_case.withstand(old.radii, old.eps))
    yield from differences(where, old.arrays(), arrays)


def compare_illustration(where: str, old: runs.Illustration, run: runs.Run, split) -> Iterator[Row]:
    """What is stored for pictures of a run against what is computed now."""
    arrays = illustrations.of_run(run, split).arrays()
    # Which of two images comes first may be a matter of rounding; their logits are compared.
    arrays.pop("nearest_index"), arrays.pop("nearest_label")
    yield from differences(f"{where}, illustration", old.arrays(), arrays)


def studies_again(
    tables: dict, members: dict, split: data.Dataset, mnist_dir: Path | None
) -> Iterator[tuple]:
    """Name, stored and recomputed table of each study, or of those rows that follow from runs."""
    if (old := tables.get("noise")) and set(old["run"]) <= members.keys():
        used = [members[name] for name in dict.fromkeys(old["run"])]
        yield "noise", old, studies.random_noise(used, split)  # the draws depend on all of them
    if (old := tables.get("example")) and set(old["runs"]) <= members.keys():
        yield "example", old, illustrations.example([members[name] for name in old["runs"]], split)
    if (old := tables.get("rational")) and set(old["run"]) <= members.keys():
        proofs = [optimum.certificate(members[name], split, exact=True) for name in old["run"]]
        yield "rational", old, store.columns(proofs)
    if old := tables.get("ten-digits-models"):
        weights, every = tables["weights"], data.load_all(split.source, mnist_dir)
        models = {name: (weights[f"{name}_W"], weights[f"{name}_b"]) for name in old["model"]}
        yield "ten-digits-models", old, studies.of_models(models, every)
    if old := tables.get("transfer"):
        known = [name for name in dict.fromkeys(old["source"]) if name in members]
        rows = np.isin(old["source"], known) & np.isin(old["target"], known)
        new = studies.accuracy_under_another([members[name] for name in known], split)
        yield "transfer", {name: values[rows] for name, values in old.items()}, new


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
