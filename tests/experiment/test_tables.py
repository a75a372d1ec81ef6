"""tables.py: the csv files are what the npz files hold, read as people load them."""

import gzip
import shutil

from lab.cli import RESULTS
from lab.tables import to_csv

import numpy as np
import pandas as pd
import pytest
from conftest import tree

import attack
import runs
import tables

NO_COLUMNS = {"example", "weights", "path-models"}
NINE = dict(rtol=5e-9, atol=0)  # digits


@pytest.fixture(scope="module")
def dataset(trained, sample, tmp_path_factory):
    """Two runs on the sample, attacked in two balls, a study, and the tables of all that."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("tables") / "results")
    dataset = results / sample.name
    for run in runs.read_runs(dataset).values():
        for norm, box in (("inf", False), ("2", True)):
            runs.save_attack(dataset, run.name, attack.attack(run, sample, norm, box))
    runs.save_study(
        dataset,
        "mine",
        {"mine": {"name": ["a", "b,c"], "share": [1 / 3, 0.5]}, "weights": {"W": np.ones((2, 2))}},
    )
    tables.main(results=results)
    return dataset


def check_tables(dataset):
    """Every row of the csv files against the arrays, to nine digits; returns the files' names."""
    stored, folder = runs.read(dataset), dataset / "tables"
    listed = pd.read_csv(folder / "runs.csv", dtype={"norm": str}).set_index("run")
    history = pd.read_csv(folder / "history.csv")
    accuracy, radii = (pd.read_csv(folder / name) for name in ("accuracy.csv", "radii.csv.gz"))
    assert set(listed.index) == set(stored.runs) == set(history["run"])
    for name, run in stored.runs.items():
        row, epochs = listed.loc[name], history[history["run"] == name]
        assert (row["eps"], row["norm"], row["robust"]) == (
            run.settings.eps,
            run.settings.norm,
            run.settings.robust,
        )
        assert row["weights_not_0"] == np.count_nonzero(run.w)
        np.testing.assert_allclose(row["w_l1"], np.abs(run.w).sum(), **NINE)
        assert epochs["epoch"].tolist() == list(range(1, len(epochs) + 1))
        for column, values in run.history.items():
            np.testing.assert_allclose(epochs[column], values, **NINE)
            np.testing.assert_allclose(row[column], values[-1], **NINE)
        for key, value in run.facts.get("certificate", {}).items():
            np.testing.assert_allclose(row[key], value, **NINE)
    count = 0
    for threat, attacks in stored.attacks.items():
        for name, found in attacks.items():
            mine = accuracy[(accuracy["run"] == name) & (accuracy["threat"] == threat)]
            np.testing.assert_allclose(mine["eps"], found.eps, **NINE)
            assert mine["correct"].tolist() == found.correct.tolist()
            assert set(mine["samples"]) == {len(found.labels)}
            np.testing.assert_allclose(mine["accuracy"], found.accuracy, **NINE)
            each = radii[(radii["run"] == name) & (radii["threat"] == threat)]
            assert each["index"].tolist() == list(range(len(found.labels)))
            assert each["label"].tolist() == found.labels.tolist()
            np.testing.assert_allclose(each["radius"], found.radii, **NINE)
            count += 1
    assert len(accuracy[["run", "threat"]].drop_duplicates()) == count
    for name, table in stored.studies.items():
        if name in NO_COLUMNS:
            continue
        assert (folder / f"{name}.csv").is_file(), f"no {name}.csv: run python tables.py"
        found = pd.read_csv(folder / f"{name}.csv")
        assert list(found) == list(table)
        for column, values in table.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(found[column], values, **NINE)
            else:
                assert found[column].tolist() == values.tolist()
    return {path.name for path in folder.iterdir()}


def test_csv_files_hold_what_the_npz_files_hold(dataset):
    names = check_tables(dataset)
    assert names == {"runs.csv", "history.csv", "accuracy.csv", "radii.csv.gz", "mine.csv"}


def test_published_csv_files_hold_what_the_published_npz_files_hold():
    names = check_tables(RESULTS / "mnist-0-1")
    studies = runs.read(RESULTS / "mnist-0-1").studies.keys() - NO_COLUMNS
    files = {f"{name}.csv" for name in studies} | {"radii.csv.gz"}
    assert names == files | {"runs.csv", "history.csv", "accuracy.csv"}


def test_the_same_results_give_the_same_bytes(dataset):
    before = tree(dataset / "tables")
    tables.main(results=dataset.parent)
    assert tree(dataset / "tables") == before
    head = gzip.decompress(before["radii.csv.gz"]).decode().partition("\n")[0]
    assert head == "run,threat,index,label,radius"


def test_nine_digits_tell_any_two_float32_numbers_apart():
    """10,000 of all sizes."""
    bits = np.random.default_rng(0).integers(0, 2**32, 10_000, dtype=np.uint32)
    values = bits.view(np.float32)[np.isfinite(bits.view(np.float32))]
    lines = to_csv({"value": value} for value in values).decode().splitlines()
    assert np.array_equal(np.float32(lines[1:]), values)
