"""Damaged results: the file is named in one line, and nothing is written or lost.

What tests/test_runs.py damages in the files of a run, `runs.load` refuses; here are the other
files, and what commands make of them all.
"""

import contextlib
import itertools
import json
import shutil

import numpy as np
import pytest
from conftest import tree, without_figures

import attack
import claims
import data
import files
import optimum
import plots
import records
import runs
import stored
import tables
import train
from cli import InputError

RUN = ("config.json", "weights.npz", "history.csv", "steps.npz")
ATTACK = ("attack.json", "accuracy.csv", "nearest.csv", "samples.npz", "landscape.csv")
CLAIMS = tuple(f"{name}.csv" for name in records.KEYS)
TABLES = ("accuracy.csv", "nearest.csv", "landscape.csv", *CLAIMS)
TEXT = ("pixel", "run", "source", "target")
REGULAR, ROBUST = "regular-epochs5", "robust-eps0.05-epochs5"


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """The two trained runs, attacked in two threat models, and made-up claims."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "results")
    with without_figures():
        attack.main(results=results)
        attack.main(norm="2", box=True, results=results)
    folder = results / "digits-0-1" / "claims"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, keys in records.KEYS.items():
        rows = np.array(list(itertools.product(*keys.values())), dtype=object)
        columns = dict(zip(keys, rows.T, strict=True))
        shares = {share: random.random(len(rows)) for share in records.SHARES[name]}
        files.write_csv(folder / f"{name}.csv", columns | shares)
    return results


@pytest.fixture
def results(whole, tmp_path):
    """A copy, to be damaged."""
    return shutil.copytree(whole, tmp_path / "results")


def find(results, name):
    """The file of this name: of the robust run, of the plain attack on it, or of the claims."""
    dataset = results / "digits-0-1"
    folders = {ATTACK: dataset / "attack" / "linf" / ROBUST, CLAIMS: dataset / "claims"}
    return next((f for names, f in folders.items() if name in names), dataset / ROBUST) / name


def read(path):
    """The table of claims, or the models, that figures and tables get of this file."""
    if path.parent.name == "claims":
        return stored.claim(path.parent.parent, path.stem)
    dataset = next(parent for parent in path.parents if parent.name == "digits-0-1")
    return stored.load_models(dataset)


def check_refused(path, reader=read):
    with pytest.raises(InputError) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ") or message.startswith(f"{path}: ")
    assert len(message) > len(str(path)) + 10
    assert "\n" not in message


def check_refused_and_all_left(results, path, command):
    before = tree(results)
    check_refused(path, lambda path: command(results))
    assert tree(results) == before


def test_whole_results_are_read(results):
    dataset = results / "digits-0-1"
    models = stored.load_models(dataset)
    assert set(models) == set(stored.under("l2-box", models)) == {"regular-epochs5", ROBUST}
    assert models[ROBUST].attack.landscape["pixel"].size == 2 * 121
    for name, shares in records.SHARES.items():
        assert set(shares) < set(stored.claim(dataset, name))


# --- any file --------------------------------------------------------------------------------

GARBAGE = (b"", b"\n", b"{", b"[]", b"null", b"\xff\xfe\x00\n", b"PK\x03\x04", b"\x93NUMPY")
GARBAGE += (b"a,b\n1,2\n", b"eps,eps\n1,2\n", b'"\n', b"\0" * 100)


@pytest.mark.parametrize("name", RUN + ATTACK + CLAIMS)
def test_garbage_or_a_folder_is_refused(results, name):
    path = find(results, name)
    for content in GARBAGE:
        path.write_bytes(content)
        check_refused(path)
    path.unlink()
    path.mkdir()
    check_refused(path)


@pytest.mark.parametrize("name", RUN + ATTACK)
def test_missing_file_is_named(results, name):
    path = find(results, name)
    path.unlink()
    check_refused(path)


@pytest.mark.parametrize("name", CLAIMS)
def test_missing_claim_is_named_with_the_command_that_makes_it(results, name):
    path = find(results, name)
    path.unlink()
    with pytest.raises(stored.Missing, match=r"python (claims|masking)\.py") as caught:
        read(path)
    assert str(caught.value).startswith(str(path))


def test_file_in_place_of_the_folder_of_an_attack_is_refused(results):
    folder = find(results, "attack.json").parent
    shutil.rmtree(folder)
    folder.write_text("here it was")
    check_refused(folder / "attack.json")


def same(old, new, close=()):
    """Whether two dictionaries of arrays or facts are equal; those in `close` to eight digits."""
    assert set(old) == set(new)
    return all(
        np.allclose(old[name], new[name], rtol=1e-7, atol=1e-7)
        if name in close
        else np.array_equal(old[name], new[name])
        for name in old
    )


@pytest.mark.parametrize("name", ATTACK + CLAIMS)
def test_truncated_file_is_refused(results, name):
    """Cut at some 30 places, and after every tenth row and the last."""
    path = find(results, name)
    content = path.read_bytes()
    ends = [k + 1 for k, byte in enumerate(content) if byte == ord("\n")]
    sizes = {*range(0, len(content), len(content) // 30), *range(len(content) - 4, len(content))}
    sizes |= {*ends[:-1:10], *ends[-3:-1]}
    if name == "landscape.csv":  # to the last row of the strong pixel: no pixel is dropped then
        sizes.discard(ends[121])
    if name == "attack.json":  # without the line's end it is whole
        sizes.discard(len(content) - 1)
    run = runs.load(find(results, "config.json").parent)

    reader = read if name in CLAIMS else lambda path: stored.load_attack(path.parent, run)
    for size in sizes:
        path.write_bytes(content[:size])
        check_refused(path, reader)


# What no other number tells, and the nine digits of a csv file.
LOOSE = {
    "attack.json": (("w_l1_unlit", "pixels_unlit"), ("w_l1",)),
    "accuracy.csv": ((), ("eps", "accuracy")),
    "nearest.csv": ((), ("eps", "logit")),
    "samples.npz": ((), ()),
    "landscape.csv": (("hinge", "robust_hinge"), ("weight",)),
}


@pytest.mark.parametrize("name", ATTACK)
def test_flipped_bits_are_noticed_or_change_nothing(results, name):
    """A checksum of other weights makes an attack stale, which is as if it were not there."""
    path = find(results, name)
    run = runs.load(find(results, "config.json").parent)
    before = stored.load_attack(path.parent, run)
    content, refused = path.read_bytes(), []
    random = np.random.default_rng(0)
    free, close = LOOSE[name]
    for place, bit in zip(
        random.integers(0, len(content), 150), random.integers(0, 8, 150), strict=True
    ):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            found = stored.load_attack(path.parent, run)
        except InputError as error:
            refused.append(str(error))
            continue
        if found is None:
            assert name == "attack.json"
            continue
        for part in ("facts", "accuracy", "nearest", "samples", "landscape"):
            old, new = (
                {key: value for key, value in getattr(it, part).items() if key not in free}
                for it in (before, found)
            )
            assert same(old, new, close)
    assert len(refused) > 20
    assert all(message.startswith(str(path)) and "\n" not in message for message in refused)


# --- json ------------------------------------------------------------------------------------


def test_endless_nesting_is_refused(results):
    path = find(results, "attack.json")
    path.write_text("[" * 10**5)
    check_refused(path)


@pytest.mark.parametrize("key", list(records.FACTS))
def test_fact_that_is_missing_or_of_another_type_is_refused(results, key):
    path = find(results, "attack.json")
    facts = json.loads(path.read_text())
    for value in (
        None,
        [facts[key]],
        {},
        "0.5" if key != "norm" else 2,
        True if key != "box" else 1,
    ):
        if key.endswith("sha256") and value == "0.5":  # of other weights; of other data
            continue
        path.write_text(json.dumps(facts | {key: value}))
        check_refused(path)
    del facts[key]
    path.write_text(json.dumps(facts))
    check_refused(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"norm": "2"},
        {"norm": "3"},
        {"box": True},
        {"data_sha256": "0" * 64},
        {"w_l1": 1.0},
        {"w_l1": float("nan")},
        {"w_l1_unlit": float("inf")},
        {"w_l1_unlit": -1.0},
        {"pixels_unlit": -1},
        {"pixels_unlit": 65},
        {"pixels_unlit": 10**400},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_facts_at_odds_with_the_run_are_refused(results, wrong):
    path = find(results, "attack.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    check_refused(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"digits": None},
        {"digits": [0]},
        {"digits": [0, "1"]},
        {"digits": [0, 10]},
        {"image_shape": [64]},
        {"image_shape": [8.0, 8, 1]},
        {"image_shape": [-8, -8, 1]},
        {"train_samples": None},
        {"train_samples": 240.0},
        {"test_samples": "120"},
        {"test_samples": 0},
        {"seed": 1},
        {"eps": 0.1},
    ],
    ids=str,
)
def test_config_that_figures_cannot_rest_on_is_refused(results, wrong):
    path = find(results, "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    check_refused(path)


@pytest.mark.parametrize("wrong", [{"gap": None}, {"primal": float("nan")}, {"violation_box": "0"}])
def test_certificate_that_tables_cannot_rest_on_is_refused(tmp_path, wrong):
    names = "primal dual gap violation_box violation_balance violation_pixel".split()
    facts = dict(
        digits=[0, 1],
        image_shape=[8, 8, 1],
        train_samples=240,
        test_samples=120,
        data_sha256="0" * 64,
        certificate=dict.fromkeys(names, 0.0) | wrong,
    )
    columns = "train_loss train_accuracy test_loss test_accuracy".split()
    history = {name: [0.5] for name in columns}
    settings = runs.optimal("digits-0-1", 0.1)
    folder = runs.save(tmp_path, settings, facts, np.ones(64), np.array(0.0), history)
    check_refused(folder / "config.json")


# --- npz -------------------------------------------------------------------------------------


def first_is(value):
    def change(array):
        array = array.copy()
        array.flat[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("labels", first_is(0)),
        ("labels", lambda a: a[:-1]),
        ("labels", lambda a: a.astype(str)),
        ("labels", lambda a: a.astype(int)),
        ("logits", first_is(np.inf)),
        ("logits", first_is(np.nan)),
        ("logits", lambda a: a[:, None]),
        ("radii", first_is(np.nan)),
        ("radii", lambda a: a.astype(object)),
        ("radii", lambda a: np.append(a, 0.1)),
        ("radii", lambda a: a * 1j),
        ("image_index", first_is(-1)),
        ("image_index", first_is(120)),
        ("image_index", lambda a: a * 0),
        ("image_index", lambda a: a.astype(float)),
        ("image_index", lambda a: a[:-1]),
        ("image_index", lambda a: (a + 1) % 120),
        ("images", first_is(1.5)),
        ("images", first_is(-0.5)),
        ("images", lambda a: a[1:]),
        ("images", lambda a: a[:, 1:]),
        ("images", lambda a: a.reshape(len(a), -1)),
        ("images", lambda a: a > 0),
    ],
)
def test_wrong_samples_are_refused(results, key, change):
    path = find(results, "samples.npz")
    arrays = files.read_npz(path)
    np.savez(path, **arrays | {key: change(arrays[key])})
    check_refused(path)


def test_samples_that_lack_an_array_are_refused(results):
    path = find(results, "samples.npz")
    arrays = files.read_npz(path)
    for key in arrays:
        np.savez(path, **{name: arrays[name] for name in arrays if name != key})
        check_refused(path)


@pytest.mark.parametrize(
    "change", [lambda a: a[:-1], lambda a: a[:, None], lambda a: a * np.inf, lambda a: a[:0]]
)
def test_wrong_steps_are_refused(results, change):
    path = find(results, "steps.npz")
    arrays = files.read_npz(path)
    np.savez(path, **arrays | {"w_l1": change(arrays["w_l1"])})
    check_refused(path)


# --- csv -------------------------------------------------------------------------------------


def rows_of(path):
    return [line.split(",") for line in path.read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(",".join(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["history.csv", *TABLES])
def test_wrong_rows_are_refused(results, name):
    path = find(results, name)
    header, *rows = rows_of(path)
    assert len(rows) > 2
    for wrong in (
        [header, *rows[:-1]],
        [header, *rows[1:]],
        [header, *rows[:1], *rows[2:]],
        [header, *rows, rows[-1]],
        [header, *rows[::-1]],
        [header, *rows[:-1], rows[-1][:-1]],
        [header, *rows[:-1], [*rows[-1], "0"]],
        [header],
    ):
        write(path, wrong)
        check_refused(path)
    path.write_text(path.read_text() + ",".join(rows[0]))
    check_refused(path)


@pytest.mark.parametrize("name", TABLES)
def test_wrong_columns_are_refused(results, name):
    path = find(results, name)
    rows = rows_of(path)
    for k in range(len(rows[0])):
        write(path, [row[:k] + row[k + 1 :] for row in rows])
        check_refused(path)
        write(path, [[*rows[0][:k], "other", *rows[0][k + 1 :]], *rows[1:]])
        check_refused(path)
    write(path, [[*row, "0" if i else "more"] for i, row in enumerate(rows)])
    check_refused(path)


@pytest.mark.parametrize("name", ["history.csv", *TABLES])
def test_what_is_no_number_is_refused(results, name):
    path = find(results, name)
    rows = rows_of(path)
    for k, column in enumerate(rows[0]):
        for wrong in ("nan", "-inf", "half", ""):
            if column not in TEXT:
                row = [*rows[2][:k], wrong, *rows[2][k + 1 :]]
                write(path, [*rows[:2], row, *rows[3:]])
                check_refused(path)


@pytest.mark.parametrize(
    ("name", "column", "values"),
    [
        ("history.csv", "epoch", "7 1.5"),
        ("accuracy.csv", "eps", "-0.1 0.1 0.006"),
        ("accuracy.csv", "correct", "-1 0 121 119.5"),
        ("accuracy.csv", "samples", "0 121"),
        ("accuracy.csv", "accuracy", "0.5 2"),
        ("nearest.csv", "eps", "0.45 0.01 -1 0.7"),
        ("nearest.csv", "rank", "-1 9 0.5"),
        ("nearest.csv", "index", "-1 0.5 120 1e300"),
        ("nearest.csv", "label", "0 2"),
        ("nearest.csv", "logit", "0 1e300"),
        ("landscape.csv", "pixel", "weak other"),
        ("landscape.csv", "index", "-1 64 0.5"),
        ("landscape.csv", "weight", "0 1e300"),
        ("landscape.csv", "hinge", "-1 1e300"),
        ("landscape.csv", "robust_hinge", "-1"),
        ("noise.csv", "run", "regular-seed1"),
        ("noise.csv", "eps", "0.07"),
        ("noise.csv", "random", "-0.1 1.1"),
        ("transfer.csv", "source", "robust-eps0.1"),
        ("transfer.csv", "target", "regular-seed5"),
        ("copies.csv", "accuracy", "-0.1 1.1"),
        ("masking.csv", "exact", "-0.1 1.1"),
    ],
)
def test_numbers_at_odds_with_the_others_are_refused(results, name, column, values):
    path = find(results, name)
    rows = rows_of(path)
    k = rows[0].index(column)
    for value in values.split():
        row = [*rows[2][:k], value, *rows[2][k + 1 :]]
        write(path, [*rows[:2], row, *rows[3:]])
        check_refused(path)


# --- commands --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUN + ATTACK)
@pytest.mark.parametrize(
    "command", [plots.main, claims.main, tables.main], ids=lambda c: c.__module__
)
def test_commands_name_the_file_and_write_nothing(results, name, command):
    (results / "digits-0-1").rename(results / "mnist-0-1")  # the data set of the tables
    path = results / "mnist-0-1" / find(results, name).relative_to(results / "digits-0-1")
    path.write_bytes(path.read_bytes()[:-9])
    check_refused_and_all_left(results, path, lambda results: command(results=results))


@pytest.mark.parametrize("figure", ["noise_or_attack", "transfer", "masking", "threats"])
def test_every_figure_stays_as_it_was_where_one_rests_on_damage(results, monkeypatch, figure):
    """Though figures that come before it can be drawn."""
    if figure == "threats":
        path = results / "digits-0-1" / "attack" / "l2-box" / ROBUST / "samples.npz"
        monkeypatch.setattr("comparisons.THREATENED", (ROBUST,))
    else:
        path = find(results, {"noise_or_attack": "noise.csv"}.get(figure, f"{figure}.csv"))
    path.write_bytes(path.read_bytes()[:-9])
    old = results / "digits-0-1" / "figures" / "hinge_loss.png"
    old.parent.mkdir()
    old.write_bytes(b"as it was")
    names = ["hinge_loss", figure]
    check_refused_and_all_left(results, path, lambda results: plots.draw(results, names))
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    assert old in plots.draw(results, ["hinge_loss"])


# --- a full disk -----------------------------------------------------------------------------


@contextlib.contextmanager
def full_disk():
    """No file of this process may grow beyond 300 bytes: EFBIG stands in for ENOSPC."""
    resource = pytest.importorskip("resource", reason="there are no such limits here")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (
            lambda results: train.main(dataset="digits", epochs=5, results=results),
            "regular-epochs5",
        ),
        (lambda results: optimum.main([0.2], dataset="digits", results=results), "optimal-eps0.2"),
        (lambda results: attack.main(results=results), f"attack/linf/{REGULAR}"),
        (lambda results: plots.main(["hinge_loss"], results), "figures/hinge_loss.png"),
    ],
    ids=["train", "optimum", "attack", "plots"],
)
def test_full_disk(results, capsys, command, place):
    before = tree(results)
    with pytest.raises(InputError, match=f"^cannot write .*/{place}: File too large$"), full_disk():
        command(results)
    assert tree(results) == before
    assert not list(results.rglob(".*"))


def test_full_disk_costs_the_cache_alone(tmp_path, capsys):
    """The images are used all the same."""
    images = {"train_0": np.random.default_rng(0).integers(0, 255, (9, 8, 8), np.uint8)}
    with full_disk():
        data._write_cache(tmp_path / "mnist-0-1.npz", images)
    assert "NOTICE: MNIST is not cached: cannot write " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
