"""reproduce.py: its check tells each changed number; its commands make all that is published."""

import dataclasses
import functools
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from lab import cli, store
from lab.cli import RESULTS, ROOT, InputError

import numpy as np
import pytest
from conftest import tree

import attack
import benchmark
import data
import illustrations
import optimum
import reproduce
import runs
import studies
import train

NAME = "robust-eps0.05-epochs5"
OPTIMAL = "optimal-eps0.3-box"
BALLS = (("inf", False), ("1", True))


@pytest.fixture(scope="module")
def whole(trained, sample, tmp_path_factory):
    """Two trained runs and an optimum, attacked in two threat models, and three studies of them."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "results")
    optimum.main(0.3, box=True, dataset="mnist-sample", results=results, quiet=True)
    dataset = results / sample.name
    members = list(runs.read_runs(dataset).values())
    for run in members:
        for norm, box in BALLS:
            runs.save_attack(dataset, run.name, attack.attack(run, sample, norm, box))
        runs.save_illustration(dataset, run.name, illustrations.of_run(run, sample))
    for name, table in (
        ("noise", studies.random_noise(members, sample)),
        ("transfer", studies.accuracy_under_another(members, sample)),
        ("example", illustrations.example(members, sample)),
    ):
        runs.save_study(dataset, name, {name: table}, members)
    return results


@pytest.fixture
def results(whole, tmp_path):
    """A copy, to be changed at will."""
    return shutil.copytree(whole, tmp_path / "results")


def check(results, capsys, status=0):
    """The lines of stdout and stderr of `reproduce.py --check`, which writes nothing."""
    before, ended = tree(results), 0
    command = ["reproduce.py", "--check", "--results", str(results)]
    with mock.patch.object(sys, "argv", command):
        try:
            cli.run(reproduce.main, reproduce._parser())
        except SystemExit as error:
            ended = error.code
    out, err = capsys.readouterr()
    assert (ended, tree(results)) == (status, before), out + err
    return out.splitlines(), err.splitlines()


def test_what_is_stored_is_what_is_recomputed(whole, capsys):
    (head, unchecked, *rest, verdict), _ = check(whole, capsys)
    assert head.startswith("mnist-sample-0-1: checked ")
    assert head.endswith(" of 3 run(s), 6 attack(s) on them and 3 table(s) of studies")
    assert unchecked.startswith("not checked, as it takes training again: epochs before the last")
    assert unchecked.endswith(", and the tables of no study")
    assert all(line.startswith("largest difference where ") for line in rest)
    assert verdict == "all that was checked agrees"


def alter(path, name, change):
    """Change an array, or a fact, as a program with an error would have written it."""
    arrays = store.from_npz(path)
    facts = json.loads(arrays.pop("facts").item())
    if name in arrays:
        arrays[name] = change(arrays[name])
    else:
        entries = facts if name in facts else facts["certificate"]
        entries[name] = change(entries[name])
    del facts["sha256"]
    store.save(path, facts["command"], facts, arrays)


def check_altered(results, capsys, changes):
    """What the check tells once these numbers are changed, without by how much they differ."""
    for path, *change in changes:
        alter(results / "mnist-sample-0-1" / f"{path}.npz", *change)
    out, err = check(results, capsys, status=2)
    told = {line.split(": differs by")[0] for line in out if ": differs by" in line}
    assert re.search(r"error: \d+ stored numbers differ from the recomputed ones$", err[-1])
    return told


def scaled(factor):
    return lambda values: values * (1 + factor)


def shifted(by):
    return lambda values: values + by


RUN, SOLVED = f"runs/{NAME}", f"runs/{OPTIMAL}"
LINF, L1_BOX = f"attacks/linf/{NAME}", f"attacks/l1-box/{NAME}"
PICTURES = f"illustrations/{NAME}"


def test_each_changed_number_is_told_and_no_other(results, capsys):
    """The changes are small, but larger than what rounding may change."""
    changes = [
        (file, name, change)
        for file, names, change in (
            (LINF, "correct", shifted(-1)),
            (PICTURES, "nearest_logit", scaled(1e-4)),
            (PICTURES, "nearest_rank", shifted(1)),
            (PICTURES, "landscape_hinge landscape_robust_hinge", scaled(1e-6)),
            (LINF, "labels", np.negative),
            (L1_BOX, "logits radii", scaled(1e-7)),
            (PICTURES, "images", shifted(1e-6)),
            (LINF, "w_l1 w_l1_unlit", scaled(1e-6)),
            (LINF, "pixels_unlit", shifted(-1)),
            (RUN, "history_train_loss history_test_hinge", shifted(1e-3)),
            (RUN, "history_train_accuracy history_test_robust_accuracy", shifted(-1 / 200)),
            (SOLVED, "primal dual", scaled(1e-6)),
            (SOLVED, "violation", shifted(1e-6)),
            ("studies/noise", "noise_random noise_error noise_normal noise_worst", scaled(1e-3)),
            ("studies/example", "example_index example_image", shifted(1)),
        )
        for name in names.split()
    ]
    where = {LINF: f"{NAME}, linf", L1_BOX: f"{NAME}, l1-box", RUN: NAME, SOLVED: OPTIMAL}
    where |= {"studies/noise": "noise", "studies/example": "example"}
    where[PICTURES] = f"{NAME}, illustration"
    told = check_altered(results, capsys, changes)
    strip = ("history_", "noise_", "example_")
    names = [(file, functools.reduce(str.removeprefix, strip, name)) for file, name, _ in changes]
    # The recomputed counts follow from the stored radii, so that they tell of these, too.
    also = {f"{NAME}, l1-box: correct"} & told
    assert told == {f"{where[file]}: {name}" for file, name in names} | also


def test_a_changed_dual_solution_and_a_changed_transfer_are_told(results, capsys):
    def less(values):
        return np.append(values[0] - 1e-6, values[1:])

    changes = [(SOLVED, "alpha", scaled(1e-3)), ("studies/transfer", "transfer_accuracy", less)]
    told = check_altered(results, capsys, changes)
    assert {f"{OPTIMAL}: dual", f"{OPTIMAL}: gap", "transfer: accuracy"} <= told
    assert all(line.startswith((f"{OPTIMAL}: ", "transfer: ")) for line in told)


def test_a_missing_attack_is_told(results, capsys):
    (results / "mnist-sample-0-1" / "attacks" / "linf" / f"{NAME}.npz").unlink()
    (head, *_), _ = check(results, capsys)
    assert head.startswith(f"{NAME}: no attack stored in linf (run python attack.py --runs {NAME}")


def test_a_damaged_run_is_named_and_the_others_are_checked(results, capsys):
    """The studies' rows of the other runs, too."""
    (results / "mnist-sample-0-1" / "runs" / f"{NAME}.npz").write_bytes(b"")
    (head, *_), (told,) = check(results, capsys, status=1)
    assert " of 2 run(s), 4 attack(s) " in head
    assert f"{NAME}.npz is damaged" in told


def test_nothing_checked_is_an_error(results, tmp_path, capsys):
    (results / "mnist-sample-0-1").rename(results / "another")
    for place in (results, tmp_path / "empty"):
        _, (*_, error) = check(place, capsys, status=2)
        assert error == f"reproduce.py: error: nothing in {place} could be checked"


def test_relative_difference():
    difference = reproduce.relative_difference
    assert difference([1, np.inf], [1, np.inf]) == 0
    assert difference([1.0], [1.0, 2.0]) == difference([np.inf], [1.0]) == np.inf
    assert difference([1.0], [np.nan]) == np.inf
    assert difference([100.0, 0.5], [101.0, 0.5]) == 0.01  # relative to sizes above 1
    assert difference([0.1], [0.3]) == pytest.approx(0.2)  # absolute below
    assert difference([], []) == 0


@pytest.mark.mnist
def test_published_numbers(mnist, tmp_path, capsys):
    """Of three of the published runs; `python reproduce.py --check` takes them all."""
    for name in ("robust-eps0.3", "optimal-eps0.1", "regular-kolter-madry"):
        for part in ("runs", "attacks/linf"):
            place = Path("mnist-0-1", part, f"{name}.npz")
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(RESULTS / place, tmp_path / place)
    (head, *_), _ = check(tmp_path, capsys)
    assert head.startswith("mnist-0-1: checked ")
    assert " of 3 run(s), 3 attack(s) on them " in head


# --- the commands --------------------------------------------------------------------------------


def test_the_commands_make_all_that_is_published(sample, tmp_path, monkeypatch):
    """Each is parsed by its script, which then says what it would train, solve or attack."""
    # What git tracks is published; beside it there may be runs of one's own.
    command = ["git", "ls-files", "results"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    published = [Path(name.removesuffix(".npz")).parts[1:] for name in listed.stdout.split()]
    if not published:
        pytest.skip("this is no git checkout")
    here, ten = "mnist-0-1", "mnist-all"
    split, every = (dataclasses.replace(sample, name=name) for name in (here, ten))
    made, attacked, studied = set(), set(), set()

    def make(settings, *rest, **more):
        made.add((settings.dataset, settings.name))

    monkeypatch.setattr(data, "load", lambda *arguments: split)
    monkeypatch.setattr(data, "load_all", lambda *arguments: every)
    monkeypatch.setattr(train, "train", make)
    monkeypatch.setattr(optimum, "follow_path", lambda of, *rest: studied.add((of.name, "path")))
    monkeypatch.setattr(
        optimum, "verify_stored", lambda of, *rest: studied.add((of.name, "rational"))
    )
    monkeypatch.setattr(runs, "load_run", lambda file: None)
    monkeypatch.setattr(runs, "report", lambda *arguments: "")
    monkeypatch.setattr(optimum, "optimise", make)

    def run(command, check):
        _, path, *arguments = command
        script = importlib.import_module(path.stem)
        options = vars(script._parser().parse_args(arguments))
        assert options["results"] == tmp_path
        if script in (train, optimum):
            script.main(**options)
        elif script is attack:
            threat = runs.threat(options["norm"], options["box"])
            names = options["runs_named"] or [name for dataset, name in made if dataset == here]
            attacked.update((threat, name) for name in names)
        elif script is studies:
            studied.update((here, name) for name in options["names"])
        elif script is benchmark:
            parts = options["parts"] or benchmark.PARTS
            studied.update((here, f"benchmark-{part}") for part in parts)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    reproduce.main(results=tmp_path)

    def of_kind(kind):
        return {(parts[0], *parts[2:]) for parts in published if parts[1] == kind}

    assert made == of_kind("runs")
    assert {(here, *names) for names in attacked} == of_kind("attacks")
    assert {(here, name) for threat, name in attacked if threat == "linf"} == of_kind(
        "illustrations"
    )
    assert studied | {(here, "example")} == of_kind("studies")


def test_every_study_that_is_stored_is_made_by_a_command():
    """Of those of studies.py. It needs no git, so that it sees a new study before it is tracked."""
    made = {name for one in reproduce.COMMANDS if "studies.py" in one for name in one.split()[1:]}
    stored = set(store.names(RESULTS / "mnist-0-1" / "studies")) & studies.STUDIES.keys()
    assert stored - made == set(), "add it to COMMANDS in reproduce.py"


def test_a_command_that_fails_ends_all(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=2)
    monkeypatch.setattr(reproduce.subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(InputError, match=r"python optimum\.py .* ended with status 2"):
        reproduce.main(results=tmp_path)
