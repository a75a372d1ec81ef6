"""attack.py: curves, landscapes and stored numbers, against brute force and the model."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import dual_norm, flat, tree, without_figures

import attack
import cli
import data
import exact
import files
import model
import plots
import runs
from cli import InputError

EPS = np.arange(101) * 0.5 / 100


def made_up_run(split, seed=0, **settings) -> runs.Run:
    """Random weights that lean towards the right classes, under these settings."""
    fixed = dict(dataset=split.name, recipe="article", robust=True, eps=0.05, norm="inf", box=False)
    tuned = runs.recipe_defaults("article", True, split.source)
    settings = runs.Settings(**fixed | tuned | settings)
    x = flat(split.x_train)
    w = 0.3 * (x[split.y_train > 0].mean(0) - x[split.y_train < 0].mean(0))
    w = np.random.default_rng(seed).normal(w, 0.05)
    facts = dict(data_sha256=split.checksum)
    return runs.Run(cli.RESULTS / "made-up", settings, facts, w, 0.1, {}, {})


# --- the curve -------------------------------------------------------------------------------


def check_curve_is_the_models(run, split):
    """At each radius, the perturbed images go through the Keras layer in float64. The margins of
    the two ways differ by 1e-13, and no sample here is that close to the boundary."""
    classifier = model.linear(split.x_test.shape[1:])
    classifier.set_weights([run.w[:, None], np.array([run.b])])
    assert classifier(np.float64(split.x_test[:1])).dtype == "float64"
    y, x = np.float64(split.y_test), flat(split.x_test)
    expected = []
    for eps in EPS[::2]:
        perturbed = x + exact.perturbation(x, y, run.w, eps)
        logits = np.array(classifier(perturbed.reshape(split.x_test.shape)))[:, 0]
        expected.append(int((y * logits > 0).sum()))
    assert len(set(expected)) > 5
    accuracy = attack.evaluate(run, split, EPS[::2])["accuracy"]
    assert accuracy["correct"].tolist() == expected
    assert accuracy["accuracy"].tolist() == [correct / len(y) for correct in expected]


def test_curve_is_the_models(digits, float64):
    check_curve_is_the_models(made_up_run(digits), digits)


@pytest.mark.mnist
def test_curve_is_the_models_on_mnist(mnist, float64):
    check_curve_is_the_models(runs.load(cli.RESULTS / "mnist-0-1" / "robust-eps0.2"), mnist)


# --- the landscape ---------------------------------------------------------------------------


def check_landscape_is_the_loss(run, split, landscape):
    """Each point is the mean loss after the weight is replaced; sums in float64, to 1e-12."""
    x, y = flat(split.x_train), np.float64(split.y_train)
    for j, v, plain, robust in zip(
        *(landscape[name] for name in ("index", "weight", "hinge", "robust_hinge")), strict=True
    ):
        w = run.w.copy()
        w[j] = v
        margins = y * (x @ w + run.b)
        worst = margins - run.settings.eps * dual_norm(w, run.settings.norm)[0]
        np.testing.assert_allclose(plain, np.maximum(0, 1 - margins).mean(), rtol=1e-12)
        np.testing.assert_allclose(robust, np.maximum(0, 1 - worst).mean(), rtol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 15, 27])  # with 15 and 27, rounding can miss weight 0
def test_landscape(digits, seed):
    run = made_up_run(digits, seed)
    landscape = attack.weight_landscape(run, digits)
    check_landscape_is_the_loss(run, digits, landscape)
    pixel, weight, loss = (
        np.array(landscape[name]) for name in ("pixel", "weight", "robust_hinge")
    )
    strong, weak = (np.unique(np.array(landscape["index"])[pixel == p]) for p in ("strong", "weak"))
    assert strong.tolist() == [np.argmax(np.abs(run.w))]
    assert len(weak) == 1
    # The weak pixel's loss is least where its weight is zero, which is one of the points.
    loss, weight = loss[pixel == "weak"], weight[pixel == "weak"]
    assert (weight == 0).sum() == 1
    assert (loss[weight == 0] <= loss).all()
    assert loss[weight == 0] < loss.max()


@pytest.mark.parametrize("norm", ["2", "1"])
def test_landscape_of_another_ball(digits, norm):
    """There is none, or it is that of the loss that was trained."""
    run = made_up_run(digits, norm=norm)
    landscape = attack.evaluate(run, digits, EPS)["landscape"]
    if landscape is not None:
        check_landscape_is_the_loss(run, digits, landscape)


def test_regular_runs_have_no_landscape(digits):
    assert attack.evaluate(made_up_run(digits, robust=False), digits, EPS)["landscape"] is None


# --- attack.py as a whole --------------------------------------------------------------------


@pytest.fixture
def results(trained, tmp_path):
    """A copy of the two trained runs, to be changed at will."""
    return shutil.copytree(trained, tmp_path / "results")


def stored(run):
    return run.folder.parent / "attack" / "linf" / run.name


def read_runs(results):
    return [runs.load(folder) for folder in runs.list_runs(results / "digits-0-1")]


def brute_force(run, split, eps):
    """Logits of the perturbed test images, sample by sample, perturbing every pixel in turn."""
    logits = []
    for image, y in zip(flat(split.x_test), split.y_test, strict=True):
        perturbed = [x - eps * y * np.sign(w) for x, w in zip(image, run.w, strict=True)]
        logits.append(sum(x * w for x, w in zip(perturbed, run.w, strict=True)) + run.b)
    return np.array(logits)


def test_stored_numbers(results, digits, no_figures, capsys):
    attack.main(results=results)
    regular, robust = read_runs(results)
    assert (regular.settings.robust, robust.settings.robust) == (False, True)
    names = ["accuracy.csv", "attack.json", "nearest.csv", "samples.npz"]
    assert sorted(tree(stored(regular))) == names
    assert sorted(tree(stored(robust))) == sorted([*names, "landscape.csv"])
    table = capsys.readouterr().out
    for run in (regular, robust):
        accuracy = files.read_csv(stored(run) / "accuracy.csv")
        np.testing.assert_allclose(accuracy["eps"], EPS, rtol=1e-8)  # nine digits
        assert (accuracy["samples"] == 120).all()
        np.testing.assert_allclose(accuracy["accuracy"], accuracy["correct"] / 120, rtol=1e-8)
        nearest = files.read_csv(stored(run) / "nearest.csv")
        assert set(nearest["eps"].round(6)) <= set(EPS[::10].round(6))
        for step in range(0, 101, 10):
            logits = brute_force(run, digits, EPS[step])
            assert accuracy["correct"][step] == (digits.y_test * logits > 0).sum()
            wrong = [i for i in np.argsort(np.abs(logits)) if digits.y_test[i] * logits[i] <= 0]
            rows = np.isclose(nearest["eps"], EPS[step], rtol=0, atol=1e-6)
            assert nearest["index"][rows].tolist() == wrong[:10]
            assert nearest["rank"][rows].tolist() == list(range(len(wrong[:10])))
            assert nearest["label"][rows].tolist() == digits.y_test[wrong[:10]].tolist()
            np.testing.assert_allclose(nearest["logit"][rows], logits[wrong[:10]], rtol=1e-8)
        samples = files.read_npz(stored(run) / "samples.npz")
        assert (samples["labels"] == digits.y_test).all()
        logits = brute_force(run, digits, 0)
        np.testing.assert_allclose(samples["logits"], logits, rtol=1e-9)
        size = np.abs(run.w).sum()
        np.testing.assert_allclose(samples["radii"], digits.y_test * logits / size, rtol=1e-9)
        # Figures show the nearest image at each tenth radius, and eight that are wrong unperturbed.
        first, clean = nearest["rank"] == 0, nearest["eps"] == 0
        shown = set(nearest["index"][first | (clean & (nearest["rank"] < 8))])
        assert set(samples["image_index"]) == shown
        assert (samples["images"] == digits.x_test[samples["image_index"], ..., 0]).all()
        facts = json.loads((stored(run) / "attack.json").read_text())
        assert (facts["norm"], facts["box"]) == ("inf", False)
        assert facts["weights_sha256"] == run.weights_sha256
        assert facts["data_sha256"] == digits.checksum
        assert run.name in table
        assert f"{accuracy['accuracy'][20]:.4f}" in table


def test_stored_landscape(results, digits, no_figures):
    attack.main(results=results)
    robust = read_runs(results)[1]
    written = files.read_csv(stored(robust) / "landscape.csv", text=("pixel",))
    for name, column in attack.weight_landscape(robust, digits).items():
        if name == "pixel":
            assert written[name].tolist() == column
        else:
            np.testing.assert_allclose(written[name], column, rtol=1e-8, atol=1e-12)


def test_attacking_twice_gives_the_same_bytes(results, no_figures):
    attack.main(results=results)
    once = tree(results)
    attack.main(results=results)
    assert tree(results) == once


def test_norms_of_the_weights_are_stored(results, digits, no_figures):
    attack.main(results=results)
    for run in read_runs(results):
        facts = json.loads((stored(run) / "attack.json").read_text())
        unlit = [j for j in range(64) if not flat(digits.x_train)[:, j].any()]
        assert facts["pixels_unlit"] == len(unlit) > 0
        assert facts["w_l1"] == pytest.approx(sum(map(abs, run.w)), rel=1e-12)
        assert facts["w_l1_unlit"] == pytest.approx(sum(abs(run.w[j]) for j in unlit), rel=1e-12)


def test_number_and_range_of_the_radii(results, no_figures):
    attack.main(results=results, eps_max=0.2, eps_steps=4)
    for run in read_runs(results):
        accuracy = files.read_csv(stored(run) / "accuracy.csv")
        np.testing.assert_allclose(accuracy["eps"], [0, 0.05, 0.1, 0.15, 0.2], rtol=1e-8)
        assert set(files.read_csv(stored(run) / "nearest.csv")["eps"]) <= {0}


@pytest.mark.parametrize("name", ["regular-epochs5", "digits-0-1/regular-epochs5"])
def test_attacking_one_run_leaves_the_others(results, no_figures, name):
    attack.main(results=results)
    regular, robust = read_runs(results)
    before = tree(stored(regular)), tree(stored(robust))
    attack.main(runs_named=[name], eps_steps=20, results=results)
    assert tree(stored(robust)) == before[1]
    assert tree(stored(regular)) != before[0]
    assert len(files.read_csv(stored(regular) / "accuracy.csv")["eps"]) == 21


def test_unknown_run_is_refused(results, no_figures):
    before = tree(results)
    with pytest.raises(InputError, match=r"no run robust-eps9 in .* digits-0-1/regular-epochs5"):
        attack.main(runs_named=["regular-epochs5", "robust-eps9"], results=results)
    assert tree(results) == before


def test_no_runs(tmp_path, no_figures):
    with pytest.raises(InputError, match=r"no runs in .*: python train\.py makes one"):
        attack.main(results=tmp_path)


@pytest.fixture
def no_mnist(monkeypatch):
    load_named = data.load_named

    def load(name, mnist_dir=None):
        if name.startswith("mnist"):
            raise InputError("MNIST is out of reach")
        return load_named(name, mnist_dir)

    monkeypatch.setattr(data, "load_named", load)


def test_data_set_out_of_reach_is_skipped(results, no_figures, capsys, no_mnist):
    attack.main(results=results)
    shutil.copytree(results / "digits-0-1", results / "mnist-0-1")
    before = tree(results)
    shutil.rmtree(results / "digits-0-1" / "attack")
    capsys.readouterr()
    attack.main(results=results)
    assert tree(results) == before
    out, err = capsys.readouterr()
    assert "digits-0-1" in out
    names = ", ".join(run.name for run in read_runs(results))
    left = f"NOTICE: not attacking mnist-0-1 ({names}), stored numbers stay: "
    assert err == left + "MNIST is out of reach\n"


def test_no_data_set_at_all(results, no_figures, no_mnist):
    (results / "digits-0-1").rename(results / "mnist-0-1")
    before = tree(results)
    with pytest.raises(InputError, match=r"python plots\.py redraws the figures"):
        attack.main(results=results)
    assert tree(results) == before


def test_run_of_other_data_is_refused(results, no_figures):
    path = read_runs(results)[1].folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"data_sha256": "0" * 64}))
    before = tree(results)
    with pytest.raises(InputError, match=re.escape(f"{path}: trained on other data than")):
        attack.main(results=results)
    assert tree(results) == before


def test_damaged_run_is_named(results, no_figures):
    path = read_runs(results)[0].folder / "weights.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=re.escape(str(path))):
        attack.main(results=results)


def test_figures_of_models_that_no_radius_flips(results, digits, capsys):
    """The regular one misclassifies nothing; the robust one, with w = 0, one digit whole."""
    x, y = flat(digits.x_test), digits.y_test
    towards_ones = x[y > 0].mean(0) - x[y < 0].mean(0)
    b = -(np.quantile(x[y < 0] @ towards_ones, 0.95) + (x[y > 0] @ towards_ones).min()) / 2
    for run in read_runs(results):
        w = towards_ones * (not run.settings.robust)
        assert (y * (x @ w + b) > 0).all() != run.settings.robust
        np.savez(run.folder / "weights.npz", w=np.float32(w), b=np.float32(b))
    attack.main(eps_max=1e-6, eps_steps=5, results=results)  # the only tenth radius is 0
    assert "misclassified_logits" in capsys.readouterr().err
    with without_figures():
        attack.main(eps_max=1e-6, eps_steps=10, results=results)
    assert plots.draw(results, ["misclassified_logits"])
