"""Random noise, transfer and masked gradients against the images themselves, on the digits."""

import shutil

import numpy as np
import pytest
from conftest import without_figures

import attack
import claims
import cli
import data
import exact
import masking
import records
import runs
import stored
import train
from cli import InputError


@pytest.fixture(scope="module")
def split():
    return data.load("digits")


@pytest.fixture(scope="module")
def models(tmp_path_factory, split):
    """A regular and a robust model of the digits, attacked."""
    results = tmp_path_factory.mktemp("results")
    train.main(dataset="digits", epochs=60, results=results, quiet=True)
    train.main(True, [0.1], dataset="digits", epochs=60, results=results, quiet=True)
    with without_figures():
        attack.main(results=results)
    return list(stored.load_models(results / "digits-0-1").values())


def images(split):
    return split.x_test.reshape(len(split.y_test), -1).astype(float), split.y_test.astype(float)


def test_transfer_is_what_perturbed_images_give(models, split):
    x, y = images(split)
    table = claims.transfer(models, radii=(0.05, 0.2))
    weights = {model.run.name: (model.run.w, model.run.b) for model in models}
    assert len(table["eps"]) == 2 * len(models) ** 2
    for source, target, eps, accuracy in zip(*table.values(), strict=True):
        delta = exact.perturbation(x, y, weights[source][0], eps)
        w, b = weights[target]
        assert accuracy == np.mean(y * ((x + delta) @ w + b) > 0)


def test_random_noise_agrees_with_noisy_images_and_with_the_normal_approximation(models, split):
    x, y = images(split)
    table = claims.random_noise(models)
    rng = np.random.default_rng(1)
    for k, eps in enumerate(table["eps"]):
        model = next(m for m in models if m.run.name == table["run"][k])
        shares = []
        for _ in range(200):
            noise = eps * rng.choice([-1.0, 1.0], x.shape)
            shares.append(np.mean(y * ((x + noise) @ model.run.w + model.run.b) > 0))
        error = np.hypot(table["error"][k], np.std(shares) / np.sqrt(len(shares)))
        # Five standard errors of both draws; for the approximation, 0.02 for its own error.
        assert abs(table["random"][k] - np.mean(shares)) <= 5 * error + 1e-12
        assert abs(table["random"][k] - table["normal"][k]) <= 5 * error + 0.02
        assert table["worst"][k] <= table["random"][k] + 1e-12


def test_claims_without_the_runs_says_which(models):
    results = models[0].run.folder.parent.parent
    with pytest.raises(InputError, match="regular-seed1"):
        claims.main(results)


@pytest.mark.parametrize("steps", [1, 40])
def test_gradient_attacks_reach_the_exact_accuracy_where_gradients_do_not_vanish(
    models, split, steps
):
    """Pixels in [0, 1], logits of a few units: nothing is masked."""
    x, y = images(split)
    for model in models:
        for eps in (0.0, 0.03, 0.1, 0.2):
            found = masking.gradient_attack(model.run, x.astype(np.float32), y)(eps, steps)
            best = exact.robust_correct(model.attack.samples["radii"], np.array([eps]))[0] / len(y)
            assert abs(found - best) <= 1 / len(y)  # float32 at a tie: one sample


def test_a_step_on_the_margin_is_exact_where_the_cross_entropy_is_masked(split):
    """Logits in the hundreds: the cross-entropy moves little, the margin's gradient is y w."""
    x, y = images(split)
    rng = np.random.default_rng(0)
    w = 300 * (x[y > 0].mean(0) - x[y < 0].mean(0)) + rng.normal(size=x.shape[1])
    b = -float((x @ w).mean())
    run = runs.Run(None, None, {}, w, b, {}, {})
    radii = exact.sample_radii(x, y, w, b)
    for eps in (0.05, 0.2, 0.4):
        best = exact.robust_correct(radii, np.array([eps]))[0] / len(y)
        margin = masking.gradient_attack(run, x.astype(np.float32), y, "margin")(eps, 1)
        usual = masking.gradient_attack(run, x.astype(np.float32), y)(eps, 1)
        assert abs(margin - best) <= 1 / len(y)  # float32 at a tie: one sample
        assert usual >= best - 1 / len(y)
    assert usual > best + 0.2


def test_masking_never_goes_below_exact_and_is_stored(tmp_path, split, capsys, monkeypatch):
    monkeypatch.setattr(masking, "STEPS", 4)  # to save time
    masking.main(dataset="digits", results=tmp_path)
    path = tmp_path / "digits-0-1" / "claims" / "masking.csv"
    assert str(path) in capsys.readouterr().out
    columns = masking.files.read_csv(path)
    for name in ("fgsm", "pgd"):
        assert (columns[name] >= columns["exact"] - 1 / len(split.y_test)).all()
    assert not runs.list_runs(tmp_path / "digits-0-1")


def test_published_claims_are_what_the_command_makes(tmp_path, monkeypatch, no_figures):
    """To a few units of the ninth digit, as another machine may round it, and but for the drawn
    noise, of which there is little here. Needs no MNIST."""
    monkeypatch.setattr(claims, "DRAWS", 1)
    published = cli.RESULTS / "mnist-0-1"
    hidden = shutil.ignore_patterns("figures", "claims", "*box", "l1", "l2")
    shutil.copytree(published, tmp_path / published.name, ignore=hidden)
    claims.main(tmp_path)
    for name, shares in records.SHARES.items():
        if name != "masking":
            paths = [
                place / "claims" / f"{name}.csv" for place in (published, tmp_path / "mnist-0-1")
            ]
            old, new = (records.read_claim(path) for path in paths)
            for share in set(shares) - {"random", "error"}:
                np.testing.assert_allclose(new[share], old[share], rtol=1e-8)
