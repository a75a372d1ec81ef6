"""Runs, attacks and studies on disk: what is written is read back, or named as unsound.

lab/store.py writes and reads the files, runs.py says what they hold.
"""

import copy
import importlib
import json
import pickle
import shlex
import warnings
from pathlib import Path
from types import SimpleNamespace

from lab import store
from lab.cli import InputError, ResultsWarning

import numpy as np
import pytest
from conftest import tree
from hypothesis import given
from hypothesis import strategies as st

import recipes
import runs

ROBUST = recipes.settings("mnist-0-1", robust=True)
SPLIT = SimpleNamespace(digits=(0, 1), x_train=np.zeros((3, 2, 2, 1)), y_train=np.zeros(3))
SPLIT.y_test, SPLIT.checksum = np.zeros(3), "0" * 64

RUN, ATTACK = "runs/robust-eps0.2.npz", "attacks/l2-box/robust-eps0.2.npz"
PICTURES = "illustrations/robust-eps0.2.npz"
STUDY, SEEDS = "studies/transfer.npz", "studies/seeds.npz"
AGAIN = {  # file -> the command that makes it again
    "runs/regular.npz": "train.py",
    RUN: "train.py --robust --eps 0.2",
    ATTACK: "attack.py --runs robust-eps0.2 --norm 2 --box",
    PICTURES: "attack.py --runs robust-eps0.2",
    STUDY: "studies.py transfer",
    SEEDS: "studies.py seeds",
}
LOST = {
    RUN: {RUN, ATTACK, PICTURES}
}  # what is not sound without a file, where that is more than the file


def save_run(results, settings=ROBUST, seed=0) -> Path:
    """A made-up run of two epochs of three steps, on images of four pixels."""
    random = np.random.default_rng(seed)
    w, b = np.float32(random.normal(size=4)), np.float32(random.normal())
    history, steps = {"train_loss": random.random(2)}, {"loss": np.float32(random.random(6))}
    return runs.save_run(results, settings, runs.facts_of(SPLIT, {}), w, b, history, steps)


def make_attack(run, seed=0) -> runs.Attack:
    """A made-up attack in the L2 ball with the box."""
    return runs.Attack(
        facts=dict(norm="2", box=True, weights_sha256=run.weights_sha256, w_l1=1 / 3),
        eps=np.array([0.0, 0.5]),
        correct=np.array([3, 1]),
        labels=np.float32([-1, 1, 1]),
        logits=np.array([-1.0, 1, 2]),
        radii=np.array([0.1, -np.inf, 0.3]),
    )


def make_illustration(run, seed=0) -> runs.Illustration:
    """Made-up numbers for the pictures of a run."""
    return runs.Illustration(
        facts=dict(weights_sha256=run.weights_sha256),
        image_index=np.array([1, 4]),
        images=np.arange(8.0).reshape(2, 2, 2),
        nearest=dict(eps=np.array([0.5]), index=np.array([4]), logit=np.array([0.125 + seed])),
        landscape=dict(pixel=np.array(["strong", "weak"]), hinge=np.array([0.25, 0.5])),
    )


def write(dataset, file, seed=0) -> None:
    """A run, or an attack on it, or a study of it."""
    if file == RUN:
        save_run(dataset.parent, seed=seed)
        return
    run = runs.load_run(dataset / RUN)
    if file == ATTACK:
        runs.save_attack(dataset, run.name, make_attack(run, seed))
    elif file == PICTURES:
        runs.save_illustration(dataset, run.name, make_illustration(run, seed))
    else:
        table = {"source": ["regular"], "eps": [float(seed)]}
        runs.save_study(dataset, "transfer", {"transfer": table, "copies": table}, [run])


@pytest.fixture
def dataset(tmp_path):
    """Two runs, of which one is attacked and used in a study, and another study."""
    dataset = tmp_path / "results" / "mnist-0-1"
    save_run(dataset.parent, recipes.settings("mnist-0-1"))
    for file in (RUN, ATTACK, PICTURES, STUDY):
        write(dataset, file)
    runs.save_study(dataset, "seeds", {"seeds": {"seed": [0, 1]}})
    return dataset


def read(dataset) -> tuple[dict, list[str]]:
    """All that `runs.read` takes as sound, by file, as bytes; and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = runs.read(dataset)
    assert [str(w.message) for w in caught if w.category is not ResultsWarning] == []
    sound = {f"runs/{name}.npz": run for name, run in found.runs.items()}
    tables = dict(transfer=("transfer", "copies"), seeds=("seeds",))
    for study, names in tables.items():
        if here := {name: found.studies[name] for name in names if name in found.studies}:
            sound[f"studies/{study}.npz"] = here
    for threat, attacks in found.attacks.items():
        sound |= {f"attacks/{threat}/{name}.npz": attack for name, attack in attacks.items()}
    sound |= {f"illustrations/{name}.npz": one for name, one in found.illustrations.items()}
    return {file: pickle.dumps(content) for file, content in sound.items()}, [
        str(warning.message) for warning in caught
    ]


# --- what is sound -------------------------------------------------------------------------------


def test_run_round_trip(tmp_path):
    w, b = np.float32([0.1, -2, 0, 1 / 3]), np.float32(0.7)
    history = {"train_loss": [0.3, 0.2, 0.1]}
    steps, alpha = {"loss": np.float32([0.1, 0.2])}, np.array([0.1, 0, 0.2])
    facts = runs.facts_of(SPLIT, {"highspy": "1"}) | {"certificate": {"primal": 0.1, "gap": 1e-17}}
    file = runs.save_run(tmp_path, ROBUST, facts, w, b, history, steps, alpha=alpha)
    assert file == tmp_path / "mnist-0-1" / "runs" / "robust-eps0.2.npz"
    run = runs.load_run(file)
    assert (run.settings, run.name) == (ROBUST, "robust-eps0.2")
    assert run.facts.items() >= facts.items()
    assert run.facts["command"] == "python train.py --robust --eps 0.2"
    assert (run.w.dtype, run.w.tolist(), run.b) == (np.float64, w.tolist(), b)
    assert run.history["train_loss"].tolist() == history["train_loss"]
    assert run.steps["loss"].tolist() == steps["loss"].tolist()
    assert run.steps["loss"].dtype == np.float32
    assert np.array_equal(run.alpha, alpha)


def test_attack_and_study_round_trip(dataset):
    results = runs.read(dataset)
    (model,) = results.choose(["robust-eps0.2"], "l2-box")
    pictures = make_illustration(model.run)
    for written, read in (
        (make_attack(model.run), model.attack),
        (pictures, model.illustrated()),
    ):
        assert read.facts.items() >= written.facts.items()
        old, new = written.arrays(), read.arrays()
        assert set(new) == set(old)
        assert all(np.array_equal(new[name], old[name]) for name in old)
    assert np.array_equal(model.illustrated().image(4), pictures.images[1])
    assert model.attack.accuracy.tolist() == [1, 1 / 3]
    assert model.accuracy(0.1) == 1 / 3  # the sample of radius 0.1 does not withstand 0.1
    assert results.study("seeds")["seed"].tolist() == [0, 1]
    assert results.study("copies", "transfer")["source"].tolist() == ["regular"]


def test_a_table_that_would_be_pickled_is_refused(dataset):
    with pytest.raises(TypeError, match="seeds_name holds Python objects"):
        runs.save_study(dataset, "seeds", {"seeds": {"name": [None, "a"]}})
    assert read(dataset)[1] == []


def test_writing_twice_gives_the_same_bytes(dataset):
    before = tree(dataset)
    for file in (RUN, ATTACK, STUDY):
        write(dataset, file)
    assert tree(dataset) == before


def test_files_of_others_do_not_matter(dataset):
    """As the Finder of macOS, or an interrupted write, leaves them in any folder."""
    before, _ = read(dataset)
    for folder in [dataset.parent, *dataset.parent.rglob("*/")]:
        for name in (".DS_Store", "Thumbs.db", "._regular.npz", "regular.npz.7.new"):
            (folder / name).write_bytes(b"anything")
    assert read(dataset) == (before, [])
    assert store.datasets(dataset.parent) == [dataset]


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
        (lambda: results.study("rivals", "ten-digits"), "studies.py ten-digits"),
    ):
        told = f"(is needed|must be attacked in linf-box): run python {again}( --results|$)"
        with pytest.raises(store.Missing, match=told):
            need()


# --- what is not ---------------------------------------------------------------------------------


def check_named_or_without_effect(dataset, before, file, what) -> bool:
    """The file is named in one line with its command, or all is read as before; tells which."""
    sound, lines = read(dataset)
    if sound == before:
        assert lines == [], what
        return False
    line, *more = lines
    assert line.startswith(f"{dataset / file} is damaged ("), what
    assert line.endswith(f"): run python {AGAIN[file]} --results {dataset.parent}"), what
    assert "\n" not in line
    assert more == []
    lost = LOST.get(file, {file})
    assert sound == {name: content for name, content in before.items() if name not in lost}, what
    return True


def edits(facts: dict, random):
    """A copy of the facts with one field, at any depth, deleted, renamed, retyped or changed."""
    facts = copy.deepcopy(facts)
    places = [(facts, name) for name in facts]
    for parent, name in places:
        if isinstance(parent[name], dict):
            places += [(parent[name], inner) for inner in parent[name]]
    parent, name = places[random.integers(len(places))]
    how = random.choice(["delete", "rename", "retype", "change"])
    value = parent.pop(name)
    if how == "rename":
        parent[f"{name}s"] = value
    elif how == "retype":
        parent[name] = [value] if random.integers(2) else None if isinstance(value, str) else "1"
    elif how == "change":
        parent[name] = f"{value}x" if isinstance(value, str) else 7
    return facts, f"{how} {name}"


@pytest.mark.parametrize("file", AGAIN)
def test_damage_is_named_in_one_line_or_changes_nothing(dataset, file):
    """Flipped bytes, cuts, other files, and edits of the facts in a file that is a sound zip."""
    before, _ = read(dataset)
    path, random = dataset / file, np.random.default_rng(0)
    whole, named, trials = path.read_bytes(), 0, 0
    others = [other for other in AGAIN if other != file]
    for _ in range(20):
        kind = random.choice(["flip", "cut", "swap", "edit"])
        content = bytearray(whole)
        if kind == "flip":
            content[random.integers(len(content))] ^= random.integers(1, 256)
        elif kind == "cut":
            content = content[: random.integers(len(content))]
        elif kind == "swap":
            content = (dataset / random.choice(others)).read_bytes()
        else:
            arrays = store.from_npz(path)
            changed, kind = edits(json.loads(arrays["facts"].item()), random)
            content = store.to_npz(arrays | dict(facts=json.dumps(changed)))
        path.write_bytes(content)
        named += check_named_or_without_effect(dataset, before, file, kind)
        trials += 1
        path.write_bytes(whole)
    assert named >= 0.8 * trials  # the rest are flips in time stamps and the like


@pytest.mark.parametrize("change", ["nan", "other", "dtype", "shape", "missing", "more", "pickle"])
def test_an_array_that_is_not_the_one_written_is_named(dataset, change):
    before, _ = read(dataset)
    arrays = store.from_npz(dataset / RUN)
    w = arrays["w"]
    changed = dict(
        nan=dict(w=w * np.nan),
        other=dict(w=w + np.float32(1e-6)),
        dtype=dict(w=w.astype(np.float64)),
        shape=dict(w=w[:, None]),
        missing={},
        more=dict(z=w),
        pickle=dict(w=np.array([{}], dtype=object)),
    )[change]
    if change == "missing":
        del arrays["b"]
    (dataset / RUN).write_bytes(store.to_npz(arrays | changed))
    assert check_named_or_without_effect(dataset, before, RUN, change)


def test_a_run_of_another_data_set_is_refused(dataset):
    save_run(dataset.parent, recipes.settings("mnist-sample-0-1"))
    other = dataset.parent / "mnist-sample-0-1" / "runs" / "regular.npz"
    (dataset / "runs" / "regular.npz").write_bytes(other.read_bytes())
    with pytest.raises(store.Unsound, match=r"was written as mnist-sample-0-1/runs/regular\): run"):
        runs.load_run(dataset / "runs" / "regular.npz")


def test_attack_and_study_of_other_weights_are_stale(dataset):
    write(dataset, RUN, seed=1)
    sound, lines = read(dataset)
    for line, file in zip(lines, (ATTACK, STUDY, PICTURES), strict=True):
        assert line.startswith(f"{dataset / file} is stale (")
        assert line.endswith(f": run python {AGAIN[file]} --results {dataset.parent}")
    assert set(sound) == {"runs/regular.npz", RUN, SEEDS}


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("runs/regular-initzeros", "train.py --init zeros SAMPLE"),
        ("runs/optimal-eps0.1", "optimum.py --eps 0.1 SAMPLE"),
        ("illustrations/regular", "attack.py --runs regular"),
        ("attacks/linf/regular", "attack.py --runs regular"),
        ("studies/noise", "studies.py noise SAMPLE"),
        ("studies/benchmark-epoch", "benchmark.py --parts epoch SAMPLE"),
    ],
)
def test_command_of_another_data_set_in_another_folder(tmp_path, file, command):
    """The line names both, and the script takes the options. (An attack is read with its run.)"""
    save_run(tmp_path, recipes.settings("mnist-sample-3-5"))
    path = tmp_path / "mnist-sample-3-5" / f"{file}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    _, (line,) = read(tmp_path / "mnist-sample-3-5")
    told = line.partition(": run python ")[2]
    command = command.replace("SAMPLE", "--dataset mnist-sample --digits 3 5")
    assert told == f"{command} --results {tmp_path}"
    script, *arguments = shlex.split(told)
    module = importlib.import_module(script.removesuffix(".py"))
    assert module._parser().parse_args(arguments).results == tmp_path


def test_a_damaged_run_of_other_settings_is_named(tmp_path):
    """Its command stood in the file alone."""
    file = save_run(tmp_path, recipes.settings("mnist-0-1", True, 0.15))
    file.write_bytes(b"")
    _, (line,) = read(tmp_path / "mnist-0-1")
    assert line.startswith(f"{file} is damaged (")
    assert line.endswith("): run the command that made it, or remove it")


# --- writing -------------------------------------------------------------------------------------


class Killed(BaseException):
    """As kill -9, after which a process does nothing more."""


@pytest.mark.parametrize("operation", ["mkdir", "write_bytes", "replace"])
def test_killed_writer_leaves_the_old_file(dataset, monkeypatch, operation):
    """A file is half written, under another name, when the writer is killed."""
    before, done = read(dataset), getattr(Path, operation)

    def killed(path, *arguments, **options):
        if operation == "write_bytes":
            done(path, arguments[0][: len(arguments[0]) // 2])
        raise Killed

    monkeypatch.setattr(Path, operation, killed)
    for file in (RUN, ATTACK, PICTURES, STUDY):
        with pytest.raises(Killed):
            write(dataset, file, seed=1)
    monkeypatch.undo()
    assert read(dataset) == before


def test_full_disk_leaves_the_old_file(dataset):
    """No file may grow beyond 100 bytes."""
    resource = pytest.importorskip("resource", reason="there are no such limits here")
    before = read(dataset)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"^cannot write .*robust-eps0.2.npz: File too large$"):
            write(dataset, RUN, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(dataset) == before
