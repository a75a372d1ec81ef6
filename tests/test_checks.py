"""attack.py --check: it agrees with what was stored, and tells of each number that was changed."""

import json
import shutil

import numpy as np
import pytest
from conftest import tree, without_figures

import attack
import checks
import claims
import cli
import files
import optimum
import stored
from cli import InputError

ROBUST = "robust-eps0.05-epochs5"


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """Two trained runs and an optimum, attacked in two threat models."""
    results = shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "results")
    optimum.main([0.3], dataset="digits", results=results, quiet=True)
    with without_figures():
        attack.main(results=results, eps_max=1 / 3)  # radii that nine digits do not hold
        attack.main(norm="1", box=True, results=results)
    return results


@pytest.fixture
def results(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "results")


def check(results, capsys, message=None, **options):
    """The lines printed by --check, which writes nothing; with `message`, it ends with that."""
    before = tree(results)
    capsys.readouterr()
    if message is None:
        attack.main(check=True, results=results, **options)
    else:
        with pytest.raises(InputError, match=message):
            attack.main(check=True, results=results, **options)
    assert tree(results) == before
    return capsys.readouterr().out.splitlines()


def test_what_is_stored_is_what_is_recomputed(results, capsys):
    head, *differences = check(results, capsys)
    assert head == "digits-0-1: recomputed 3 runs and 6 attacks on them"
    assert len(differences) == 5
    assert all(line.startswith("largest difference where ") for line in differences)
    head, *_ = check(results, capsys, runs_named=[ROBUST])
    assert head == "digits-0-1: recomputed 1 runs and 2 attacks on them"


def alter_csv(path, name, change):
    columns = files.read_csv(path, text=("pixel", "source", "target"))
    columns[name] = change(columns[name])
    whole_numbers = {"correct", "samples", "index", "rank", "label", "epoch"}
    files.write_csv(
        path, {k: v.astype(int) if k in whole_numbers else v for k, v in columns.items()}
    )


def alter_npz(path, name, change):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {name: change(arrays[name])})


def alter_json(path, name, change):
    facts = json.loads(path.read_text())
    proof = facts["certificate"] if name in facts.get("certificate", {}) else facts
    proof[name] = change(proof[name])
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("place", "name", "change", "told"),
    [
        (f"attack/l1-box/{ROBUST}/nearest.csv", "logit", lambda v: v * (1 + 1e-5), "logit in near"),
        (f"attack/linf/{ROBUST}/landscape.csv", "hinge", lambda v: v * (1 - 1e-6), "hinge in lan"),
        (f"attack/linf/{ROBUST}/attack.json", "w_l1_unlit", lambda v: v * 0.9, "w_l1_unlit in at"),
        (f"attack/linf/{ROBUST}/attack.json", "pixels_unlit", lambda v: v - 1, "facts in attack"),
        (f"{ROBUST}/history.csv", "train_loss", lambda v: v + 1e-3, "train_loss in history.csv"),
        (f"{ROBUST}/history.csv", "test_hinge", lambda v: v + 1e-3, "test_hinge in history.csv"),
        (f"{ROBUST}/history.csv", "test_robust_accuracy", lambda v: v - 1 / 120, "test_robust_acc"),
        ("optimal-eps0.3/config.json", "primal", lambda v: v * (1 + 1e-6), "primal in config.json"),
        ("optimal-eps0.3/config.json", "dual", lambda v: v * (1 - 1e-6), "dual in config.json"),
        ("optimal-eps0.3/dual.npz", "alpha", lambda v: v * 1.001, "violation by dual.npz"),
    ],
)
def test_what_was_changed_is_told(results, capsys, place, name, change, told):
    path = results / "digits-0-1" / place
    {".csv": alter_csv, ".npz": alter_npz, ".json": alter_json}[path.suffix](path, name, change)
    lines = check(results, capsys, message=r"\d+ stored numbers differ from the recomputed ones")
    assert [line for line in lines if told in line and "apart" in line]


def test_an_attack_on_other_weights_is_told(results, capsys):
    alter_npz(results / "digits-0-1" / ROBUST / "weights.npz", "b", lambda v: v + np.float32(1e-4))
    lines = check(results, capsys, message="differ")
    assert f"{ROBUST}: linf: of other weights: inf apart, 0 allowed" in lines


def test_a_missing_attack_is_told(results, capsys):
    shutil.rmtree(results / "digits-0-1" / "attack" / "linf" / ROBUST)
    lines = check(results, capsys, message="1 stored numbers differ")
    assert f"{ROBUST}: linf: no attack is stored: inf apart, 0 allowed" in lines


def test_changed_claims_are_told(tmp_path, monkeypatch):
    """Of the published ones: a share that was altered, and noise drawn otherwise. No MNIST."""
    monkeypatch.setattr(claims, "DRAWS", 1)
    published = cli.RESULTS / "mnist-0-1"
    models = stored.load_models(published)
    shutil.copytree(published / "claims", tmp_path / "claims")
    alter_csv(tmp_path / "claims" / "copies.csv", "accuracy", lambda v: v * (1 - 1e-6))
    rows = list(checks.claimed(tmp_path, models))
    told = {what for what, difference, allowed in rows if difference > allowed}
    assert told == {"random in noise.csv", "error in noise.csv", "accuracy in copies.csv"}
    assert len(rows) == 6


def test_apart():
    assert checks.apart([1, np.inf], [1, np.inf]) == 0
    assert checks.apart([1.0], [1.0, 2.0]) == checks.apart([np.inf], [1.0]) == np.inf
    assert checks.apart([100.0, 0.5], [101.0, 0.5]) == 0.01  # relative to sizes above 1
    assert checks.apart([0.1], [0.3]) == pytest.approx(0.2)  # absolute below
    assert checks.apart([], []) == 0


def test_a_count_may_differ_by_the_samples_at_the_edge():
    """By two at the radius of .2, where two samples are within the tolerance, and by none at .3."""
    radii, eps = np.array([0.1, 0.2, 0.2 + 1e-12, 0.4]), np.array([0.2, 0.3])
    assert checks.miscounted([1, 1], [3, 1], radii, eps, 1e-9) == 0
    assert checks.miscounted([1, 1], [4, 1], radii, eps, 1e-9) == 1
    assert checks.miscounted([1, 1], [1, 2], radii, eps, 1e-9) == 1
    assert checks.miscounted([1], [1, 1], radii, eps, 1e-9) == 4


@pytest.mark.mnist
def test_published_numbers(mnist, capsys):
    """Of three of the published runs; `python attack.py --check` takes them all."""
    names = ["robust-eps0.3", "optimal-eps0.1", "regular-kolter-madry"]
    attack.main(check=True, runs_named=names)
    out = capsys.readouterr().out
    assert out.startswith("mnist-0-1: recomputed 3 runs and 3 attacks on them\n")
