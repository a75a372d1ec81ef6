"""reproduce.py: its check tells each changed number; its commands make all that is published."""

import dataclasses
import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from common import cli, files, runs
from common.cli import RESULTS, ROOT, InputError

import numpy as np
import pytest
from conftest import tree

import attack
import benchmark
import data
import optimum
import reproduce
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
            radii = np.arange(31) / 90  # of more than nine digits
            runs.save_attack(dataset, run.name, attack.evaluate(run, sample, radii, norm, box))
    for name, table in (
        ("noise", studies.random_noise(members, sample)),
        ("transfer", studies.accuracy_under_another(members, sample)),
    ):
        runs.save_study(dataset, name, {name: table}, studies.by_name(members))
    shown = studies.by_name(members)
    runs.save_study(dataset, "example", {}, shown, attack.example(shown, sample))
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
    (head, *rest, unchecked, verdict), _ = check(whole, capsys)
    assert head.startswith("mnist-sample-0-1: checked ")
    assert head.endswith(" of 3 runs, 6 attacks on them and the studies")
    assert all(line.startswith("largest difference where ") for line in rest)
    assert (unchecked, verdict) == (reproduce.UNCHECKED, "all that was checked agrees")


def alter(index, file, name, change):
    """Change a column, an array or a fact, and the SHA-256 that the json file has of it."""
    facts, path = json.loads(index.read_text()), index.with_name(file)
    if path == index:
        entries = facts if name in facts else facts["certificate"]
        entries[name] = change(entries[name])
    else:
        kind = path.suffix[1:]
        columns = getattr(files, f"from_{kind}")(path.read_bytes())
        columns[name] = change(columns[name])
        path.write_bytes(getattr(files, f"to_{kind}")(columns))
        facts["files"][file] = hashlib.sha256(path.read_bytes()).hexdigest()
    index.write_text(json.dumps(facts))


def check_altered(results, capsys, changes):
    """What the check tells once these numbers are changed, without by how much they differ."""
    for index, *change in changes:
        alter(results / "mnist-sample-0-1" / index, *change)
    out, err = check(results, capsys, status=2)
    told = {line.split(": differs by")[0] for line in out if ": differs by" in line}
    assert re.search(r"error: \d+ stored numbers differ from the recomputed ones$", err[-1])
    return told


def scaled(factor):
    return lambda values: values * (1 + factor)


def shifted(by):
    return lambda values: values + by


RUN, SOLVED = f"runs/{NAME}/config.json", f"runs/{OPTIMAL}/config.json"
LINF, L1_BOX = f"attacks/linf/{NAME}/attack.json", f"attacks/l1-box/{NAME}/attack.json"
NOISE, EXAMPLE = "studies/noise.json", "studies/example.json"


def test_each_changed_number_is_told_and_no_other(results, capsys):
    """The changes are small, but larger than what rounding may change."""
    changes = [
        (index, file, name, change)
        for index, file, names, change in (
            (LINF, "accuracy.csv", "correct", shifted(-1)),
            (LINF, "accuracy.csv", "accuracy", scaled(1e-6)),
            (L1_BOX, "nearest.csv", "logit", scaled(1e-4)),
            (LINF, "landscape.csv", "hinge robust_hinge", scaled(1e-6)),
            (LINF, "samples.npz", "labels", np.negative),
            (L1_BOX, "samples.npz", "logits radii", scaled(1e-7)),
            (LINF, "samples.npz", "images", shifted(1e-6)),
            (LINF, "attack.json", "w_l1 w_l1_unlit", scaled(1e-6)),
            (LINF, "attack.json", "pixels_unlit", shifted(-1)),
            (RUN, "history.csv", "train_loss test_hinge", shifted(1e-3)),
            (RUN, "history.csv", "train_accuracy test_robust_accuracy", shifted(-1 / 200)),
            (SOLVED, "config.json", "primal dual", scaled(1e-6)),
            (NOISE, "noise.csv", "random error normal worst", scaled(1e-3)),
            (EXAMPLE, "example.npz", "index image", shifted(1)),
        )
        for name in names.split()
    ]
    of = {LINF: f"{NAME}, linf: ", L1_BOX: f"{NAME}, l1-box: "}
    of |= {RUN: f"{NAME}: ", SOLVED: f"{OPTIMAL}: ", NOISE: "", EXAMPLE: ""}
    told = check_altered(results, capsys, changes)
    assert told == {f"{of[index]}{name} in {file}" for index, file, name, _ in changes}


def test_a_changed_dual_solution_and_a_changed_transfer_are_told(results, capsys):
    changes = [
        (SOLVED, "dual.npz", "alpha", scaled(1e-3)),
        ("studies/transfer.json", "transfer.csv", "accuracy", lambda v: [v[0] - 1e-6, *v[1:]]),
    ]
    assert check_altered(results, capsys, changes) == {
        f"{OPTIMAL}: dual in config.json",
        f"{OPTIMAL}: gap of dual.npz",
        f"{OPTIMAL}: violation by dual.npz",
        f"{OPTIMAL} under {OPTIMAL}'s in transfer.csv",
    }


def test_a_missing_attack_is_told(results, capsys):
    shutil.rmtree(results / "mnist-sample-0-1" / "attacks" / "linf" / NAME)
    (head, *_), _ = check(results, capsys)
    assert head.startswith(f"{NAME}: no attack stored in linf (run python attack.py --runs {NAME}")


def test_a_damaged_run_is_named_and_the_others_are_checked(results, capsys):
    """The studies' rows of the other runs, too."""
    (results / "mnist-sample-0-1" / "runs" / NAME / "weights.npz").write_bytes(b"")
    (head, *_), (told,) = check(results, capsys, status=1)
    assert " of 2 runs, 4 attacks " in head
    assert "weights.npz is damaged" in told


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


def test_a_count_may_differ_by_the_samples_at_the_edge():
    """By two at the radius 0.2, where two samples are within the tolerance, by none at 0.3."""
    radii, eps = np.array([0.1, 0.2, 0.2 + 1e-12, 0.4]), np.array([0.2, 0.3])
    for new, difference in (([3, 1], 0), ([4, 1], 1), ([1, 2], 1), ([1], 4)):
        assert reproduce.count_difference([1, 1], new, radii, eps, 1e-9) == difference


@pytest.mark.mnist
def test_published_numbers(mnist, tmp_path, capsys):
    """Of three of the published runs; `python reproduce.py --check` takes them all."""
    for name in ("robust-eps0.3", "optimal-eps0.1", "regular-kolter-madry"):
        for part in ("runs", "attacks/linf"):
            place = Path("mnist-0-1") / part / name
            shutil.copytree(RESULTS / place, tmp_path / place)
    (head, *_), _ = check(tmp_path, capsys)
    assert head.startswith("mnist-0-1: checked ")
    assert " of 3 runs, 3 attacks on them " in head


# --- the commands --------------------------------------------------------------------------------


def test_the_commands_make_all_that_is_published(sample, tmp_path, monkeypatch):
    """Each is parsed by its script, which then says what it would train, solve or attack."""
    # What git tracks is published; beside it there may be runs of one's own.
    command = ["git", "ls-files", "results"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    published = [Path(name).parts[2:] for name in listed.stdout.split()]
    if not published:
        pytest.skip("this is no git checkout")
    split = dataclasses.replace(sample, name="mnist-0-1")
    made, attacked, studied = set(), set(), set()
    monkeypatch.setattr(data, "load", lambda *arguments: split)
    monkeypatch.setattr(train, "train", lambda settings, *rest: made.add(settings.name))
    monkeypatch.setattr(optimum, "optimise", lambda settings, *rest: made.add(settings.name))

    def run(command, check):
        _, path, *arguments = command
        script = importlib.import_module(path.stem)
        options = vars(script._parser().parse_args(arguments))
        assert options["results"] == tmp_path
        if script in (train, optimum):
            script.main(**options)
        elif script is attack:
            threat = runs.threat(options["norm"], options["box"])
            attacked.update((threat, name) for name in options["runs_named"] or made)
        elif script is studies:
            studied.update(options["names"])
        elif script is benchmark:
            studied.update(f"benchmark-{part}" for part in options["parts"] or benchmark.PARTS)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(reproduce.subprocess, "run", run)
    reproduce.main(results=tmp_path)
    assert made == {parts[1] for parts in published if parts[0] == "runs"}
    assert attacked == {tuple(parts[1:3]) for parts in published if parts[0] == "attacks"}
    tables = [Path(parts[1]) for parts in published if parts[0] == "studies"]
    assert studied == {runs.study_of(table.stem) for table in tables if table.suffix == ".csv"}


def test_a_command_that_fails_ends_all(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=2)
    monkeypatch.setattr(reproduce.subprocess, "run", lambda *arguments, **options: failed)
    with pytest.raises(InputError, match=r"python optimum\.py .* ended with status 2"):
        reproduce.main(results=tmp_path)
