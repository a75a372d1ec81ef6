"""Runs, attacks and studies on disk: what is written is read back, or named as unsound."""

import hashlib
import importlib
import itertools
import shlex
import shutil
import struct
import warnings
from pathlib import Path
from types import SimpleNamespace

from common import files, runs
from common.cli import ResultsWarning

import numpy as np
import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

import recipes

ROBUST = recipes.settings("mnist-0-1", robust=True)
SPLIT = SimpleNamespace(digits=(0, 1), x_train=np.zeros((3, 2, 2, 1)), y_train=np.zeros(3))
SPLIT.y_test, SPLIT.checksum = np.zeros(5), "0" * 64

RUN, ATTACK = "runs/robust-eps0.2", "attacks/l2-box/robust-eps0.2"
TABLES = {"studies/transfer.csv", "studies/copies.csv"}
AGAIN = "attack.py --runs robust-eps0.2 --norm 2 --box"
PLACES = {  # the json, the command that makes it again, and what is not sound without it
    "run": (f"{RUN}/config.json", "train.py --robust --eps 0.2", {RUN, ATTACK}),
    "attack": (f"{ATTACK}/attack.json", AGAIN, {ATTACK}),
    "study": ("studies/transfer.json", "studies.py transfer", TABLES),
}
of_each_place = pytest.mark.parametrize("place", PLACES)


def save_run(results, settings=ROBUST, seed=0) -> Path:
    """A made-up run of two epochs of three steps, on images of four pixels."""
    random = np.random.default_rng(seed)
    w, b = np.float32(random.normal(size=4)), np.float32(random.normal())
    history, steps = {"train_loss": random.random(2)}, {"loss": np.float32(random.random(6))}
    return runs.save(results, settings, runs.facts(SPLIT, {}), w, b, history, steps=steps)


def make_attack(run, seed=0) -> runs.Attack:
    """A made-up attack in the L2 ball with the box, of numbers that nine digits hold."""
    return runs.Attack(
        facts=dict(norm="2", box=True, weights_sha256=run.weights_sha256, w_l1=1 / 3),
        accuracy=dict(eps=[0.0, 0.5], correct=[5, 1]),
        nearest=dict(eps=[0.5], index=[4], logit=[0.125 + seed]),
        samples=dict(
            radii=np.array([0.1, -np.inf, 0.3]),
            image_index=np.array([1, 4]),
            images=np.arange(8.0).reshape(2, 2, 2),
        ),
        landscape=dict(pixel=["strong", "weak"], hinge=[0.25, 0.5]),
    )


def write(dataset, place, seed=0) -> None:
    """A run, or an attack on it, or a study of it."""
    run = runs.load(save_run(dataset.parent, seed=seed) if place == "run" else dataset / RUN)
    if place == "attack":
        runs.save_attack(dataset, run.name, make_attack(run, seed))
    elif place == "study":
        table = {"source": ["regular"], "eps": [float(seed)]}
        tables = {"transfer": table, "copies": table}
        runs.save_study(dataset, "transfer", tables, {run.name: run})


@pytest.fixture
def dataset(tmp_path):
    """Two runs, of which one is attacked and used in a study, and another study."""
    dataset = tmp_path / "results" / "mnist-0-1"
    save_run(dataset.parent, recipes.settings("mnist-0-1"))
    for place in PLACES:
        write(dataset, place)
    runs.save_study(dataset, "seeds", {"seeds": {"seed": [0, 1]}})
    return dataset


def read(dataset) -> tuple[set[str], list[str]]:
    """What `runs.read` takes as sound, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = runs.read(dataset)
    assert all(warning.category is ResultsWarning for warning in caught)
    sound = {f"runs/{name}" for name in found.runs}
    sound |= {f"studies/{name}.csv" for name in found.studies}
    for threat, attacks in found.attacks.items():
        sound |= {f"attacks/{threat}/{name}" for name in attacks}
    return sound, [str(warning.message) for warning in caught]


# --- what is sound -------------------------------------------------------------------------------


def test_run_round_trip(tmp_path):
    w, b = np.float32([0.1, -2, 0, 1 / 3]), np.float32(0.7)
    history = {"train_loss": np.float32([0.3, 0.2, 0.1])}
    steps, dual = {"loss": np.float32([0.1, 0.2])}, {"alpha": np.array([0.1, 0, 0.2])}
    facts = runs.facts(SPLIT, {"highspy": "1"})
    folder = runs.save(tmp_path, ROBUST, facts, w, b, history, steps=steps, dual=dual)
    assert folder == tmp_path / "mnist-0-1" / "runs" / "robust-eps0.2"
    run = runs.load(folder)
    assert (run.settings, run.name) == (ROBUST, "robust-eps0.2")
    assert run.config.items() >= facts.items()
    assert (run.w.dtype, run.w.tolist(), run.b) == (np.float64, w.tolist(), b)
    assert run.history["epoch"].tolist() == [1, 2, 3]
    assert np.array_equal(np.float32(run.history["train_loss"]), history["train_loss"])
    assert np.array_equal(run.steps["loss"], steps["loss"])
    assert np.array_equal(run.alpha, dual["alpha"])
    content = struct.pack("<5d", *run.w, run.b)
    assert run.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_attack_and_study_round_trip(dataset):
    results = runs.read(dataset)
    (model,) = results.choose(["robust-eps0.2"], "l2-box")
    written = make_attack(model.run)
    assert model.attack.facts == written.facts
    for part in ("accuracy", "nearest", "samples", "landscape"):
        old, new = getattr(written, part), getattr(model.attack, part)
        assert list(new) == list(old)
        assert all(np.array_equal(new[name], old[name]) for name in old)
    assert np.array_equal(model.attack.image(4), written.samples["images"][1])
    assert model.accuracy(0.1) == 1 / 3  # the sample of radius 0.1 does not withstand 0.1
    assert results.study("seeds")["seed"].tolist() == [0, 1]
    assert results.study("copies")["source"].tolist() == ["regular"]


def test_writing_twice_gives_the_same_bytes(dataset):
    before = tree(dataset)
    for place in PLACES:
        write(dataset, place)
    assert tree(dataset) == before


def test_files_of_others_do_not_matter(dataset):
    """As the Finder of macOS, or an interrupted write, leaves them in any folder."""
    before, _ = read(dataset)
    for folder in [dataset.parent, *dataset.parent.rglob("*/")]:
        for name in (".DS_Store", "Thumbs.db", "left.csv.new"):
            (folder / name).write_bytes(b"anything")
    assert read(dataset) == (before, [])
    assert runs.datasets(dataset.parent) == [dataset]


@given(st.lists(st.floats(-10, 10), max_size=20))
def test_pixels_in_use_exceed_one_percent_of_the_largest_weight(w):
    run = runs.Run(ROBUST, {}, np.array(w), 0.0, {}, {})
    largest = max(map(abs, w), default=0)
    assert run.pixels_in_use == sum(abs(v) > 0.01 * largest for v in w)


def test_what_is_missing_is_told_with_the_command_that_makes_it(dataset):
    results = runs.read(dataset)
    for need, again in (
        (lambda: results.choose(["robust-eps0.3"]), "train.py --robust --eps 0.3"),
        (lambda: results.choose(["regular"], "linf-box"), "attack.py --runs regular --box"),
        (lambda: results.study("noise"), "studies.py noise"),
    ):
        told = f"(is needed|must be attacked in linf-box): run python {again}( --results|$)"
        with pytest.raises(runs.Missing, match=told):
            need()


# --- what is not ---------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@of_each_place
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flip", "cut", "missing"])
def test_damage_is_named_in_one_line_and_the_rest_is_read(dataset, place, damage):
    name, again, lost = PLACES[place]
    index, before = dataset / name, read(dataset)[0]
    listed = [index.with_name(name) for name in files.read_numbers(index, "")[1]]
    for path in listed if damage is flip else [*listed, index]:  # the json has no checksum
        whole = path.read_bytes()
        damage(path)
        sound, (line,) = read(dataset)
        unfinished = path == index and damage is Path.unlink
        assert line.startswith(f"{index.parent} is unfinished" if unfinished else f"{path} is ")
        assert line.endswith(f": run python {again} --results {dataset.parent}")
        assert "\n" not in line
        assert sound == before - lost
        path.write_bytes(whole)


def test_run_in_the_folder_of_another_is_refused(dataset):
    folder = dataset / "runs" / "regular"
    shutil.copytree(folder, folder.with_name("regular-seed1"))
    with pytest.raises(files.Unsound, match=r"settings are those of regular\): run .*--seed 1"):
        runs.load(folder.with_name("regular-seed1"))


def test_attack_and_study_of_other_weights_are_stale(dataset):
    write(dataset, "run", seed=1)
    sound, lines = read(dataset)
    stale = (ATTACK, *PLACES["attack"][1:]), PLACES["study"]
    for line, (place, again, _) in zip(lines, stale, strict=True):
        assert line.startswith(f"{dataset / place} is stale (")
        assert line.endswith(f": run python {again} --results {dataset.parent}")
    assert sound == {"runs/regular", RUN, "studies/seeds.csv"}


@pytest.mark.parametrize(
    ("place", "command"),
    [
        ("runs/regular-initzeros", "train.py --init zeros SAMPLE"),
        ("runs/optimal-eps0.1", "optimum.py --eps 0.1 SAMPLE"),
        ("attacks/linf/regular", "attack.py --runs regular"),
        ("studies/noise.csv", "studies.py noise SAMPLE"),
        ("studies/benchmark-epoch.csv", "benchmark.py --parts epoch SAMPLE"),
    ],
)
def test_command_of_another_data_set_in_another_folder(tmp_path, place, command):
    """The line names both, and the script takes the options."""
    save_run(tmp_path, recipes.settings("mnist-sample-3-5"))
    (tmp_path / "mnist-sample-3-5" / place).mkdir(parents=True)
    _, (line,) = read(tmp_path / "mnist-sample-3-5")
    told = line.partition(": run python ")[2]
    command = command.replace("SAMPLE", "--dataset mnist-sample --digits 3 5")
    assert told == f"{command} --results {tmp_path}"
    script, *arguments = shlex.split(told)
    module = importlib.import_module(script.removesuffix(".py"))
    assert module._parser().parse_args(arguments).results == tmp_path


# --- a killed writer -----------------------------------------------------------------------------


class Killed(BaseException):
    """As kill -9, after which a process does nothing more."""


def kill_at(monkeypatch, last: int) -> None:
    """End the writer in place of its file operation number `last`; a file is half written then."""
    count = itertools.count()

    def watch(name, operation):
        def watched(path, *arguments, **options):
            if next(count) == last:
                if name == "write_bytes":
                    operation(path, arguments[0][: len(arguments[0]) // 2])
                raise Killed
            return operation(path, *arguments, **options)

        monkeypatch.setattr(Path, name, watched)

    for name in ("unlink", "mkdir", "write_bytes", "replace"):
        watch(name, getattr(Path, name))


@of_each_place
def test_killed_writer_leaves_no_mixture(dataset, monkeypatch, place):
    """The old or the new folder is whole, or the reader says which command makes it again.

    Killed before each file operation in turn, where an older version stands.
    """
    name, again, lost = PLACES[place]
    index, before, finished = dataset / name, read(dataset)[0], False
    old = files.read_numbers(index, "")
    write(dataset, place, seed=1)
    new = files.read_numbers(index, "")
    assert new != old
    for last in itertools.count():
        write(dataset, place)
        with monkeypatch.context() as patch:
            kill_at(patch, last)
            try:
                write(dataset, place, seed=1)
                finished = True
            except Killed:
                pass
        sound, lines = read(dataset)
        lines = [line for line in lines if " is stale " not in line]  # as is right for a new run
        if lines:
            (line,) = lines
            assert line.startswith(f"{index.parent} is unfinished ({index.name} is missing)")
            assert line.endswith(f": run python {again} --results {dataset.parent}")
            assert sound == before - lost
        else:
            assert files.read_numbers(index, "") in (old, new)
        write(dataset, place, seed=1)  # the command makes it whole
        assert files.read_numbers(index, "") == new
        if finished:
            break
    assert last >= 1 + 3 * (len(new[1]) + 1)  # the json is removed; a file takes three operations
