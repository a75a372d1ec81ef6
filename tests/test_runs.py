"""Runs on disk: their names, saving whole, and loading nothing that is damaged."""

import dataclasses
import errno
import hashlib
import itertools
import json
import shutil
import struct
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import tree
from hypothesis import given, settings
from hypothesis import strategies as st

import files
import runs
from cli import InputError

ARTICLE = {robust: runs.recipe_defaults("article", robust, "mnist") for robust in (False, True)}
CONVERGED = runs.recipe_defaults("converged", True, "mnist")
KOLTER_MADRY = runs.recipe_defaults("kolter-madry", True, "mnist")
REGULAR = runs.Settings("mnist-0-1", "article", False, 0.0, "inf", False, **ARTICLE[False])
ROBUST = runs.Settings("mnist-0-1", "article", True, 0.2, "inf", False, **ARTICLE[True])
COLUMNS = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
STEPS = ("loss", "active", "w_l1", "pixels")
FACTS = dict(image_shape=[4, 4, 1], data_sha256="0" * 64, versions={})


def save(results, settings=ROBUST, seed=0) -> Path:
    """A made-up run of two epochs of three steps."""
    random = np.random.default_rng(seed)
    history = {name: random.random(2).tolist() for name in COLUMNS}
    steps = {name: np.float32(random.random(6)) for name in STEPS}
    w, b = random.normal(size=16).astype(np.float32), np.float32(random.normal())
    return runs.save(results, settings, FACTS, w, b, history, steps=steps)


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "changes", "name"),
    [
        (REGULAR, {}, "regular"),
        (ROBUST, {}, "robust-eps0.2"),
        (ROBUST, {"eps": 1.0}, "robust-eps1"),
        (ROBUST, {"norm": "2"}, "robust-eps0.2-l2"),
        (ROBUST, {"box": True}, "robust-eps0.2-box"),
        (
            ROBUST,
            {"norm": "1", "box": True, "loss": "logistic"},
            "robust-eps0.2-l1-box-losslogistic",
        ),
        (ROBUST, {"recipe": "kolter-madry"} | KOLTER_MADRY, "robust-eps0.2-kolter-madry"),
        (
            ROBUST,
            CONVERGED,
            "robust-eps0.2-epochs150-batchsize200-learningrate0.02-momentum0.95-schedulelinear"
            "-initzeros",
        ),
        (ROBUST, {"learning_rate": 0.1}, "robust-eps0.2-learningrate0.1"),
        (REGULAR, {"init": "zeros", "seed": 3}, "regular-initzeros-seed3"),
        (REGULAR, {"eager": True}, "regular-eager"),
        (
            ROBUST,
            {"recipe": "converged"} | CONVERGED | {"seed": 1},
            "robust-eps0.2-converged-seed1",
        ),
    ],
)
def test_name_shows_what_differs_from_the_recipe(settings, changes, name):
    assert dataclasses.replace(settings, **changes).name == name


ROBUST_SETTINGS = st.builds(
    runs.Settings,
    dataset=st.just("mnist-0-1"),
    recipe=st.sampled_from(list(runs.RECIPES)),
    robust=st.just(True),
    eps=st.sampled_from([0.0, 0.1, 0.2, 1.0, 10.0, 1e-5]) | st.floats(0, 10),
    norm=st.sampled_from(list(runs.NORMS)),
    box=st.booleans(),
    loss=st.sampled_from(runs.LOSSES),
    epochs=st.sampled_from([1, 10, 200]) | st.integers(1, 999),
    batch_size=st.sampled_from([1, 100, 200]) | st.integers(1, 999),
    learning_rate=st.sampled_from([0.01, 0.02, 0.1, 1.0, 1e-5]) | st.floats(1e-9, 10),
    momentum=st.sampled_from([0.0, 0.95]) | st.floats(0, 0.999),
    schedule=st.sampled_from(runs.SCHEDULES),
    init=st.sampled_from(runs.INITS),
    seed=st.sampled_from([0, 1, 10]) | st.integers(0, 2**32 - 1),
    eager=st.booleans(),
)
# A regular run has no ball.
SETTINGS = ROBUST_SETTINGS | ROBUST_SETTINGS.map(
    lambda s: dataclasses.replace(s, robust=False, eps=0.0, norm="inf", box=False)
)
TUNED = list(CONVERGED)


@settings(max_examples=200)
@given(first=SETTINGS, second=SETTINGS, taken=st.sets(st.sampled_from(TUNED)))
def test_different_settings_have_different_names(first, second, taken):
    """`second` takes some fields of `first`, so that they often differ in one or two alone."""
    second = dataclasses.replace(second, **{name: getattr(first, name) for name in taken})
    assert (first.name == second.name) == (first == second)


def test_neighbouring_radii_have_different_names():
    assert ROBUST.name != dataclasses.replace(ROBUST, eps=np.nextafter(0.2, 1).item()).name


@given(SETTINGS)
def test_name_is_a_plain_folder_name(settings):
    assert Path(settings.name).name == settings.name
    assert not settings.name.startswith((".", "-"))
    assert settings.name not in runs.NO_RUNS


# --- saving and loading ----------------------------------------------------------------------


def test_round_trip(tmp_path):
    random = np.random.default_rng(1)
    w, b = random.normal(size=16).astype(np.float32), np.float32(0.1)
    history = {name: [float(v) for v in np.float32(random.random(3))] for name in COLUMNS}
    steps = {name: np.float32(random.random(9)) for name in STEPS}
    folder = runs.save(tmp_path, ROBUST, FACTS, w, b, history, steps=steps)
    assert folder == tmp_path / "mnist-0-1" / "robust-eps0.2"
    run = runs.load(folder)
    assert (run.settings, run.name, run.folder) == (ROBUST, folder.name, folder)
    assert run.config == dataclasses.asdict(ROBUST) | FACTS
    assert run.w.dtype == np.float64
    assert (run.w == w).all()
    assert run.b == b
    assert run.history["epoch"].tolist() == [1, 2, 3]
    # Nine digits name a float32 among all.
    for name in COLUMNS:
        assert np.float32(run.history[name]).tolist() == history[name]
    assert (run.steps["loss"] == steps["loss"]).all()


def test_saving_twice_gives_the_same_bytes(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_weights_sha256_covers_weights_and_bias(tmp_path):
    run = runs.load(save(tmp_path))
    assert run.weights_sha256 == hashlib.sha256(struct.pack("<17d", *run.w, run.b)).hexdigest()


FILES = ("config.json", "weights.npz", "history.csv", "steps.npz")


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(tmp_path, name):
    folder = save(tmp_path)
    (folder / name).unlink()
    with pytest.raises(InputError, match=name) as caught:
        runs.load(folder)
    assert str(folder / name) in str(caught.value)
    assert "missing" in str(caught.value)


def check_refused(path):
    """Loading the run names this file as the culprit, in one line."""
    with pytest.raises(InputError) as caught:
        runs.load(path.parent)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00\n", b"PK\x03\x04", b"\x93NUMPY"])
def test_garbage_is_refused(tmp_path, name, content):
    path = save(tmp_path) / name
    path.write_bytes(content)
    check_refused(path)


@pytest.mark.parametrize("name", FILES)
def test_folder_in_place_of_a_file_is_refused(tmp_path, name):
    path = save(tmp_path) / name
    path.unlink()
    path.mkdir()
    check_refused(path)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(runs.Settings)])
def test_setting_that_is_missing_or_of_another_type_is_refused(tmp_path, name):
    path = save(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    for wrong in (config | {name: None}, config | {name: [config[name]]}):
        path.write_text(json.dumps(wrong))
        check_refused(path)
    del config[name]
    path.write_text(json.dumps(config))
    check_refused(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": "0.2"},
        {"eps": float("nan")},
        {"learning_rate": float("inf")},
        {"epochs": 10.0},
        {"epochs": True},
        {"robust": 1},
        {"recipe": "best"},
        {"norm": "3"},
        {"image_shape": None},
    ],
    ids=str,
)
def test_damaged_config_is_refused(tmp_path, wrong):
    path = save(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | wrong))
    check_refused(path)


@pytest.mark.parametrize("name", ["image_shape", "data_sha256"])
def test_config_without_a_fact_is_refused(tmp_path, name):
    path = save(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    del config[name]
    path.write_text(json.dumps(config))
    check_refused(path)


def with_nan(w):
    return np.where(np.arange(w.size) == 3, np.nan, w)


@pytest.mark.parametrize(
    "changes",
    [
        {"w": lambda w: w[:-1]},
        {"w": lambda w: w[:, None]},
        {"w": with_nan},
        {"w": lambda w: w * np.inf},
        {"w": lambda w: w.astype(object)},
        {"w": lambda w: w.astype(str)},
        {"w": lambda w: w * 1j},
        {"b": lambda b: b[None]},
        {"b": lambda b: b * np.nan},
    ],
)
def test_wrong_weights_are_refused(tmp_path, changes):
    path = save(tmp_path) / "weights.npz"
    with np.load(path) as file:
        arrays = {name: changes.get(name, np.copy)(file[name]) for name in file.files}
    np.savez(path, **arrays)
    check_refused(path)


@pytest.mark.parametrize("key", ["w", "b"])
def test_weights_that_lack_an_array_are_refused(tmp_path, key):
    path = save(tmp_path) / "weights.npz"
    with np.load(path) as file:
        np.savez(path, **{name: file[name] for name in file.files if name != key})
    check_refused(path)


@pytest.mark.parametrize("name", ["weights.npz", "steps.npz"])
def test_array_in_place_of_an_archive_is_refused(tmp_path, name):
    path = save(tmp_path) / name
    with open(path, "wb") as file:
        np.save(file, np.zeros(16))
    check_refused(path)


@pytest.mark.parametrize("name", ["weights.npz", "steps.npz"])
def test_truncated_archive_is_refused(tmp_path, name):
    path = save(tmp_path) / name
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        check_refused(path)


@pytest.mark.parametrize("name", ["weights.npz", "steps.npz"])
def test_no_flipped_bit_changes_an_array(tmp_path, name):
    """The file is refused, or the bit told nothing of the arrays (a zip's date, say)."""
    path = save(tmp_path) / name
    whole, arrays = path.read_bytes(), files.read_npz(path)
    refused = []
    for place, bit in itertools.product(range(len(whole)), (0, 3)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = files.read_npz(path, tuple(arrays))
        except InputError as error:
            refused.append(str(error))
        else:
            assert all(np.array_equal(found[key], arrays[key]) for key in arrays)
    assert len(refused) > len(whole) / 3
    assert all(message.startswith(str(path)) for message in refused)


@pytest.mark.parametrize(
    "text",
    [
        "epoch,train_loss\n",
        "epoch,train_loss\n1,0.5,2\n",
        "epoch,train_loss\n1,0.5\n2\n",
        "epoch,train_loss\n1,nan\n",
        "epoch,train_loss\n1,-inf\n",
        "epoch,train_loss\n1,0.5\n2,half\n",
        "epoch,train_loss\n1,\n",
    ],
    ids=repr,
)
def test_damaged_history_is_refused(tmp_path, text):
    path = save(tmp_path) / "history.csv"
    path.write_text(text)
    check_refused(path)


def test_csv_round_trip(tmp_path):
    columns = {"name": ["a", "b,c"], "count": [1, 2], "value": [0.1, 1 / 3]}
    files.write_csv(tmp_path / "x.csv", columns)
    found = files.read_csv(tmp_path / "x.csv", text=("name",))
    assert found["name"].tolist() == columns["name"]
    assert found["count"].tolist() == columns["count"]
    np.testing.assert_allclose(found["value"], columns["value"], rtol=5e-9)  # nine digits
    with pytest.raises(ValueError, match="zip"):
        files.write_csv(tmp_path / "y.csv", {"a": [1], "b": [1, 2]})


# --- whole or not at all ---------------------------------------------------------------------


def write_half_and_raise(whole, name, error):
    with whole as path:
        (path / name).write_text("half")
        raise error


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InputError])
def test_failure_while_writing_leaves_all_as_it_was(tmp_path, exists, error):
    place = tmp_path / "mnist-0-1" / "robust-eps0.2"
    if exists:
        save(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(error):
        write_half_and_raise(files.whole_folder(place), "config.json", error)
    assert tree(tmp_path) == before
    assert [p.name for p in place.parent.iterdir()] == [place.name] * exists


@pytest.mark.parametrize("interrupted", [1, 2])
def test_interrupt_between_the_renames_leaves_all_as_it_was(tmp_path, monkeypatch, interrupted):
    place, rename = save(tmp_path), Path.rename
    before, calls = tree(tmp_path), []

    def fails_once(self, target):
        calls.append(target)
        if len(calls) == interrupted:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, seed=1)
    assert len(calls) >= interrupted
    assert tree(tmp_path) == before
    assert list(place.parent.iterdir()) == [place]


def test_replacing_leaves_nothing_of_the_old(tmp_path):
    place = save(tmp_path)
    (place / "old").touch()
    save(tmp_path, seed=1)
    assert list(place.parent.iterdir()) == [place]
    assert sorted(p.name for p in place.iterdir()) == sorted(FILES)
    save(tmp_path / "fresh", seed=1)
    assert tree(place) == tree(tmp_path / "fresh" / "mnist-0-1" / "robust-eps0.2")


def test_permissions_are_those_of_the_parent(tmp_path):
    place = save(tmp_path)
    assert place.stat().st_mode == place.parent.stat().st_mode


@pytest.mark.parametrize("exists", [True, False])
def test_whole_file(tmp_path, exists):
    path = tmp_path / "figures" / "x.svg"
    if exists:
        with files.whole_file(path) as new:
            new.write_text("whole")
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_half_and_raise(files.whole_file(path), "", KeyboardInterrupt)
    assert tree(tmp_path) == before == ({"figures/x.svg": b"whole"} if exists else {})
    assert list(path.parent.iterdir()) == [path] * exists


def test_second_writer_is_told_and_the_first_wins(tmp_path):
    """flock takes two openings in one process for two processes."""
    place = tmp_path / "mnist-0-1" / "robust-eps0.2"
    with files.whole_folder(place) as folder:
        (folder / "config.json").write_text("first")
        runs.list_runs(place.parent)  # a reader leaves it alone
        with pytest.raises(InputError, match=f"another process is writing {place}"):
            save(tmp_path, seed=1)
    assert tree(tmp_path) == {"mnist-0-1/robust-eps0.2/config.json": b"first"}
    save(tmp_path, seed=1)
    assert runs.load(place)


@pytest.mark.parametrize("moved_aside", [True, False])
def test_what_a_killed_process_left_is_put_back_by_reading_or_writing(tmp_path, moved_aside):
    for act in (runs.list_runs, lambda dataset: save(tmp_path, REGULAR)):
        place = save(tmp_path)
        before = tree(place)
        workshop = place.with_name(f".{place.name}.part")
        shutil.copytree(place, workshop / "new")
        if moved_aside:
            place.rename(workshop / "old")
        act(place.parent)
        assert tree(place) == before
        assert not list(place.parent.glob(".*"))


@pytest.fixture(params=["none", "unsupported"])
def no_locks(request, monkeypatch):
    """As on Windows, and on some network folders."""
    if request.param == "none":
        monkeypatch.setattr(files, "fcntl", None)
    else:
        error = OSError(errno.ENOLCK, "No locks available")
        monkeypatch.setattr(files.fcntl, "flock", mock.Mock(side_effect=error))


def test_writing_where_there_are_no_locks(tmp_path, no_locks):
    place = save(tmp_path)
    save(tmp_path, seed=1)
    assert list(place.parent.iterdir()) == [place]


def test_writers_without_locks_leave_each_other_alone(tmp_path, no_locks):
    place = tmp_path / "mnist-0-1" / "robust-eps0.2"
    with files.whole_folder(place) as folder:
        (folder / "config.json").write_text("first")
        assert save(tmp_path, REGULAR)
        runs.list_runs(place.parent)
        message = f"another process is writing {place}, .* if there is none, remove .*part"
        with pytest.raises(InputError, match=message):
            save(tmp_path, seed=1)
    assert (place / "config.json").read_text() == "first"
    assert not list(place.parent.glob(".*"))


def test_what_a_killed_process_moved_aside_is_put_back_without_locks(tmp_path, no_locks):
    place = save(tmp_path)
    before, workshop = tree(place), place.with_name(f".{place.name}.part")
    workshop.mkdir()
    place.rename(workshop / "old")
    assert runs.list_runs(place.parent) == [place]
    assert tree(place) == before
    with pytest.raises(InputError, match="if there is none, remove"):
        save(tmp_path, seed=1)
    shutil.rmtree(workshop)
    assert save(tmp_path, seed=1) == place


@pytest.mark.parametrize("writer", [files.whole_folder, files.whole_file])
def test_place_below_a_file_is_an_input_error(tmp_path, writer):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"), writer(tmp_path / "file" / "run"):
        raise AssertionError("there is no place to write to")


def test_check_writable(tmp_path):
    files.check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to --results"):
        files.check_writable(tmp_path / "file" / "results")


# --- listing and counting --------------------------------------------------------------------


def test_listing(tmp_path):
    for made in (ROBUST, REGULAR, dataclasses.replace(ROBUST, eps=0.1)):
        save(tmp_path, made)
    shutil.copytree(tmp_path / "mnist-0-1", tmp_path / ".hidden")
    for name in (*runs.NO_RUNS, ".robust-eps0.3-x8a"):
        (tmp_path / "mnist-0-1" / name).mkdir()
    (tmp_path / "digits-0-1" / "attack").mkdir(parents=True)
    (tmp_path / "notes.txt").touch()
    dataset = tmp_path / "mnist-0-1"
    assert runs.list_datasets(tmp_path) == [dataset]
    names = [folder.name for folder in runs.list_runs(dataset)]
    assert names == ["regular", "robust-eps0.1", "robust-eps0.2"]
    assert runs.list_datasets(tmp_path / "absent") == []


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20))
def test_pixels_in_use(w):
    largest = max(abs(v) for v in w)
    assert runs.pixels_in_use(np.array(w)) == sum(abs(v) > 0.01 * largest for v in w)


def test_pixels_in_use_of_no_weights():
    assert runs.pixels_in_use(np.zeros(5)) == runs.pixels_in_use(np.zeros(0)) == 0
