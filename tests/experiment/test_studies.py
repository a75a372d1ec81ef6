"""studies.py: random noise, transfer, seeds and masked gradients, against the images themselves."""

import dataclasses
import shutil

from lab import attackers, cli, library
from lab.cli import RESULTS, InputError

import numpy as np
import pytest
from conftest import tree

import data
import optimum
import recipes
import runs
import studies
import train
import worst_case


@pytest.fixture(scope="module")
def members(trained, sample):
    """The regular and the robust run on the sample."""
    return list(runs.read_runs(trained / sample.name).values())


def exact_accuracy(run, x, y, eps):
    return np.mean(worst_case.signed_radii(x, y, run.w, run.b) > eps)


def test_every_study_is_in_the_list_at_the_top_of_the_script():
    listed = [name for name in studies.STUDIES if f"python studies.py {name} " in studies.__doc__]
    assert listed == list(studies.STUDIES), "add it to the docstring of studies.py"


def test_transfer_is_what_perturbed_images_give(members, sample):
    x, y = sample.flat("test")
    table = studies.accuracy_under_another(members, sample)
    weights = {run.name: (run.w, run.b) for run in members}
    assert len(table["eps"]) == 2 * len(members) ** 2
    for source, target, eps, accuracy in zip(*table.values(), strict=True):
        delta = worst_case.perturbation(x, y, weights[source][0], eps)
        w, b = weights[target]
        assert accuracy == np.mean(y * ((x + delta) @ w + b) > 0)


def test_random_noise_agrees_with_noisy_images_and_with_the_normal_approximation(members, sample):
    x, y = sample.flat("test")
    table = studies.random_noise(members, sample)
    rng, by_name = np.random.default_rng(1), {run.name: run for run in members}
    for name, eps, random, error, normal, worst in zip(*table.values(), strict=True):
        run, shares = by_name[name], []
        for _ in range(40):
            noise = eps * rng.choice([-1.0, 1.0], x.shape)
            shares.append(np.mean(y * ((x + noise) @ run.w + run.b) > 0))
        # Five standard errors of both draws; for the approximation, 0.02 for its own error.
        either = np.hypot(error, np.std(shares) / np.sqrt(len(shares)))
        assert abs(random - np.mean(shares)) <= 5 * either + 1e-12
        assert abs(random - normal) <= 5 * error + 0.02
        assert worst == exact_accuracy(run, x, y, eps)


@pytest.mark.parametrize("steps", [1, 40])
def test_gradient_attacks_are_exact_where_gradients_do_not_vanish(members, sample, steps):
    """Pixels are in [0, 1] and logits a few units. In float32 a tie may flip one sample."""
    x, y = sample.flat("test")
    for run in members:
        climb = studies.gradient_attack(run, x, y)
        for eps in (0.0, 0.03, 0.1, 0.2):
            found = climb(eps, steps)
            assert abs(found - exact_accuracy(run, x, y, eps)) <= 1 / len(y)


def test_masked_gradients_and_the_step_on_the_margin(tmp_path, sample, monkeypatch, capsys):
    """The attacks on the cross-entropy find too little, one step on the margin is exact."""
    monkeypatch.setattr(studies, "PGD_STEPS", 4)  # to save time
    monkeypatch.setattr(studies, "MASKING_RADII", (0.0, 0.02, 0.06, 0.2))
    monkeypatch.setattr(studies, "MASKING_AT", 2)
    monkeypatch.setattr(studies, "MASKING_SEEDS", (0, 3))
    studies.main("masking", dataset="mnist-sample", results=tmp_path)
    path = tmp_path / sample.name / "studies" / "masking.npz"
    assert capsys.readouterr().out == f"{path}\n"
    tables = runs.load_study(path, {})
    table, seeds = tables["masking"], tables["masking-seeds"]
    assert (seeds["seed"].tolist(), set(seeds["eps"])) == ([0, 3], {0.06})
    for name in ("exact", "fgsm", "pgd", "fgsm_margin"):
        assert seeds[name][0] == table[name][2]
    assert (seeds["median_margin"] > 800).all()  # beyond which exp(-m) is 0 in float64, too
    assert (seeds["zero_single"] >= seeds["zero_double"]).all()
    assert (seeds["zero_double"] > 0.5).all()
    tie = 1.01 / len(sample.y_test)  # in float32 a tie may flip one sample
    assert np.abs(table["fgsm_margin"] - table["exact"]).max() <= tie
    for name in ("fgsm", "pgd"):
        assert (table[name] >= table["exact"] - tie).all()
        assert (table[name] - table["exact"]).max() > 0.5
    assert list(path.parent.iterdir()) == [path]


def test_a_study_takes_stored_runs_and_trains_the_missing_ones(trained, sample, monkeypatch):
    """A run on other images counts as missing; what is trained for a study is not stored."""
    before, trained_now = tree(trained), []

    def record(settings, *arguments, **options):
        trained_now.append(settings.name)
        return do_train(settings, *arguments, **options)

    do_train = train.train
    monkeypatch.setattr(train, "train", record)
    wanted = [recipes.settings(sample.name, epochs=epochs) for epochs in (5, 1)]
    found = studies.obtain(wanted, sample, trained / sample.name)
    assert [run.settings for run in found] == wanted
    assert found[0].w.tolist() == runs.read_runs(trained / sample.name)[wanted[0].name].w.tolist()
    assert trained_now == ["regular-epochs1"]
    other = dataclasses.replace(sample, checksum="0" * 64)
    studies.obtain(wanted[:1], other, trained / sample.name)
    assert trained_now == ["regular-epochs1", "regular-epochs5"]
    assert tree(trained) == before


def test_tables_of_the_studies(tmp_path, sample, monkeypatch):
    """Of made-up weights in place of training, which takes a second for each run."""

    def obtain(settings, split, folder):
        rng = np.random.default_rng(0)
        return [runs.Run(s, {}, rng.normal(size=784), rng.normal(), {}, {}) for s in settings]

    monkeypatch.setattr(studies, "obtain", obtain)
    studies.main(["transfer", "seeds"], dataset="mnist-sample", results=tmp_path)
    stored = runs.read(tmp_path / sample.name).studies
    assert len(stored["transfer"]["eps"]) == 2 * 7**2
    assert len(stored["copies"]["eps"]) == 2 * 6**2
    table, (x, y) = stored["seeds"], sample.flat("test")
    keys = list(zip(table["model"], table["recipe"], table["seed"], strict=True))
    assert len(set(keys)) == 4 * 6 + 2 * 10
    index = np.load(tmp_path / sample.name / "studies" / "seeds.npz")["facts"].item()
    for k, run in enumerate(obtain(keys, sample, None)):
        assert run.weights_sha256 in index
        assert table["w_l1"][k] == pytest.approx(np.abs(run.w).sum(), rel=1e-12)
        for eps in studies.SEED_RADII:
            expected = exact_accuracy(run, x, y, eps)
            assert table[f"eps{eps:g}"][k] == pytest.approx(expected, rel=1e-12)


# --- the published tables ------------------------------------------------------------------------


def test_published_seeds_agree_with_the_stored_runs():
    """Seed 0 of each model, from the attacks that are stored."""
    published = runs.read(RESULTS / "mnist-0-1")
    table, models = published.study("seeds"), published.models()
    rows = np.flatnonzero(table["seed"] == 0)
    assert len(rows) == 6
    for row in rows:
        recipe = table["recipe"][row].replace("article", "")
        model = models[f"{table['model'][row]}-{recipe}".strip("-")]
        assert table["w_l1"][row] == pytest.approx(np.abs(model.run.w).sum(), rel=1e-9)
        for eps in studies.SEED_RADII:
            assert table[f"eps{eps:g}"][row] == pytest.approx(model.accuracy(eps), rel=1e-9)


@pytest.mark.mnist
def test_published_noise_is_what_the_stored_runs_give(mnist, monkeypatch):
    """To 1e-8, and the drawn noise to five standard errors of a few other draws."""
    monkeypatch.setattr(studies, "DRAWS", 4)
    published = runs.read(RESULTS / "mnist-0-1")
    old = published.study("noise")
    members = [published.runs[name] for name in dict.fromkeys(old["run"])]
    new = studies.random_noise(members, mnist, seed=1)
    for name in ("eps", "normal", "worst"):
        np.testing.assert_allclose(new[name], old[name], rtol=1e-8)
    either = np.hypot(old["error"], new["error"])
    assert (np.abs(old["random"] - new["random"]) <= 5 * either + 1e-8).all()


# --- ten digits ----------------------------------------------------------------------------------


def check_ten_digits(tables: dict, counts) -> None:
    """No attack of the library is below the exact accuracy; all images (10,) have a rival."""
    library, taken = tables["ten-digits-library"], tables["ten-digits-rivals"]
    for how in ("fgm", "pgd"):
        assert (library[how] >= library["exact"]).all()
    for name in ("logistic", "svm", "ridge"):
        mine = taken["model"] == name
        assert np.array_equal(taken["count"][mine].reshape(10, 10).sum(axis=1), counts)
        assert not taken["count"][mine & (taken["digit"] == taken["rival"])].any()


ROBUST = [f"{kind}-eps{eps}" for eps in (0.05, 0.1) for kind in ("minimum", "adam", "rest")]


def test_ten_digits(tmp_path, sample, tiny_ten, trained, monkeypatch):
    """On shrunken images: the tables, the stored weights, and the figures where there are runs.

    (Without capsys: to import the library, absl closes a stderr that is not the present one.)
    """
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    shutil.copytree(trained / sample.name, tmp_path / sample.name)
    monkeypatch.setattr(studies, "PGD_STEPS", 4)  # these to save time
    monkeypatch.setattr(studies, "LIBRARY_IMAGES", 2)
    monkeypatch.setattr(studies, "LIBRARY_RADII", {"inf": (0.03,), "2": (0.4,), "1": (2.0,)})
    monkeypatch.setattr(data, "load_all", lambda *arguments: tiny_ten)
    stored = optimum.main(0.1, digits="all", results=tmp_path, quiet=True)
    studies.main("ten-digits", dataset="mnist-sample", results=tmp_path)
    assert list((tmp_path / tiny_ten.name / "runs").iterdir()) == stored  # the other is not kept
    folder = tmp_path / sample.name
    for name in ("ten_digits", "ten_digits_minimum"):
        assert (folder / "figures" / f"{name}.png").is_file()
    tables = runs.read(folder).studies
    check_ten_digits(tables, np.full(10, 100))
    assert set(tables["ten-digits-library"]["images"]) == {20}
    curves, (x, y) = tables["ten-digits"], tiny_ten.flat("test")
    assert len(curves["eps"]) == (3 * 4 + 6 * 2) * 21
    models, weights = tables["ten-digits-models"], tables["weights"]
    assert models["model"].tolist() == ["logistic", "svm", "ridge", *ROBUST]
    for place, name in enumerate(models["model"]):
        W, b = (weights[f"{name}_{part}"].astype(np.float64) for part in "Wb")
        scores = np.sort(x @ W.T + b)
        clean = np.mean(((x @ W.T + b).argmax(axis=1) == y) & (scores[:, -1] > scores[:, -2]))
        assert clean > 0.6 or name.startswith("rest")
        assert models["clean"][place] == clean
        for threat in ("linf", "linf-box", "l2-box", "l1-box"):
            rows = (curves["model"] == name) & (curves["threat"] == threat)
            accuracy = curves["accuracy"][rows]
            assert len(accuracy) == 21 * (threat.startswith("linf") or name not in ROBUST)
            assert (accuracy[:1] == clean).all()
            assert (np.diff(accuracy) <= 0).all()
            if threat.startswith("linf"):
                assert accuracy[10] == models[f"{threat}0.05"][place]
                assert accuracy[20] == models[f"{threat}0.1"][place]


def loss_of_classes(x, y, W, b, eps):
    """The robust hinge of several classes, written out for each sample and rival."""
    total = 0.0
    for one, own in zip(x, y.astype(int), strict=True):
        scores = W @ one + b
        falls = eps * np.abs(W[own] - W).sum(axis=1)
        total += max(0, *(1 - (scores[own] - scores - falls))[np.arange(len(W)) != own])
    return total / len(y)


def test_no_classifier_of_ten_digits_is_below_the_certified_minimum(
    tiny_ten, tmp_path, monkeypatch
):
    """Weak duality, and training by gradients comes close; the weights are counted by hand."""
    longer = dict(epochs=300, batch_size=100, learning_rate=0.03)
    monkeypatch.setattr(studies, "ADAM", longer)  # as an epoch has few steps
    settings = [recipes.optimal(tiny_ten.name, eps) for eps in studies.ROBUST_RADII]
    minima, (x, y) = studies.obtain(settings, tiny_ten, tmp_path), tiny_ten.flat("train")
    models = studies.robust_classifiers(x, y, minima)
    table = studies.of_models(models, tiny_ten)
    assert table["model"] == list(models) == ROBUST
    for eps, run in zip(studies.ROBUST_RADII, minima, strict=True):
        least, losses = run.facts["certificate"]["dual"], table[f"loss{eps:g}"]
        for (W, b), loss in zip(models.values(), losses, strict=True):
            expected = loss_of_classes(x, y, W.astype(float), b.astype(float), eps)
            assert loss == pytest.approx(expected, rel=1e-12)
            assert loss >= least
        close = dict(zip(table["model"], losses, strict=True))
        assert close[f"minimum-eps{eps:g}"] <= least * (1 + 2e-6)
        assert close[f"adam-eps{eps:g}"] < 1.05 * least < close[f"rest-eps{eps:g}"]
        place = table["model"].index(f"minimum-eps{eps:g}")
        zero = [max(np.count_nonzero(w == value) for value in w) for w in run.w.T]
        assert table["weights"][place] == run.w.size - sum(zero)
        assert table["pixels"][place] == sum(count < 10 for count in zero)


def test_the_loss_of_several_classes_and_its_gradient(float64):
    """Against the sum written out, and its differences in random directions."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    x, y = random.random((30, 5)), random.integers(0, 4, 30)
    W, b = random.normal(size=(4, 5)), random.normal(size=4)
    variables = tf.Variable(W), tf.Variable(b)
    with tf.GradientTape() as tape:
        loss = studies.hinge_of_classes(*variables, tf.constant(x), tf.constant(y), 0.1)
    assert float(loss) == pytest.approx(loss_of_classes(x, y, W, b, 0.1), rel=1e-12)
    slopes = [slope.numpy() for slope in tape.gradient(loss, variables)]
    for _ in range(5):
        along = random.normal(size=(4, 5)), random.normal(size=4)
        ends = [
            loss_of_classes(x, y, W + h * along[0], b + h * along[1], 0.1) for h in (1e-6, -1e-6)
        ]
        expected = sum((slope * part).sum() for slope, part in zip(slopes, along, strict=True))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(expected, rel=1e-6)


def test_ten_digits_without_the_library_says_what_to_type(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(library, "installed", lambda: False)
    with pytest.raises(InputError, match=r"pip install -r requirements-dev\.txt$"):
        studies.main("ten-digits", dataset="mnist-sample", results=tmp_path)


def test_published_ten_digits():
    tables = runs.read(RESULTS / "mnist-0-1").studies
    check_ten_digits(tables, [data.mnist.KNOWN["mnist"][digit][1] for digit in range(10)])


# --- the attacks of libraries --------------------------------------------------------------------


def test_referee(tmp_path, sample, tiny_ten, members, monkeypatch):
    """On a few images, with what this machine has in any case; the two-digit rows by hand."""
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    regular, chosen = members[0], {"FGM, smallest ε", "DeepFool", "APGD on DLR"}
    attacks = [one for one in attackers.ATTACKS if one.name in chosen]
    monkeypatch.setattr(attackers, "ATTACKS", attacks)
    monkeypatch.setattr(attackers, "installed", lambda: ["art"])
    monkeypatch.setattr(studies, "obtain", lambda *arguments: [regular])
    monkeypatch.setattr(studies, "REFEREE_IMAGES", 20)
    monkeypatch.setattr(data, "load_all", lambda *arguments: tiny_ten)
    told = []
    monkeypatch.setattr(cli, "notice", told.append)
    studies.main("referee", dataset="mnist-sample", results=tmp_path)
    assert told == [
        "left out Foolbox: pip install foolbox",
        "left out adv-lib: pip install adv-lib",
    ]
    path = tmp_path / sample.name / "studies" / "referee.npz"
    table = runs.load_study(path, {})["referee"]
    assert table["threat"].tolist() == ["linf-box"] * 2 + ["l2-box"] * 4 + ["l1-box"] * 2
    assert set(table["library"]) == {"ART"}
    assert (table["ratio"] > 0).all()
    x, y = sample.flat("test")
    few = np.concatenate([np.flatnonzero(y == one)[:10] for one in (-1, 1)])
    x, y = x[few], y[few]
    W, b = (np.float32([-part / 2, part / 2]) for part in (regular.w, regular.b))
    problem = attackers.Problem(W, b, x, (y > 0).astype(int))
    for one in attacks:
        if one.module != "art":
            continue
        radii = worst_case.signed_radii(x, y, regular.w, regular.b, one.norm, box=True)
        points = attackers.points(problem, one)
        assert np.array_equal(points, attackers.points(problem, one))
        assert ((points >= 0) & (points <= 1)).all()
        sizes = np.linalg.norm(points - x, float(one.norm), axis=1)
        found = (y * (points @ regular.w + regular.b) <= 1e-6) & (radii > 0)
        excess = sizes / np.maximum(radii, 1e-9) - 1
        threat = runs.threat(one.norm, True)
        rows = [table["threat"] == threat, table["attack"] == one.name]
        (row,) = np.flatnonzero(np.all([*rows, table["model"] == regular.name], axis=0))
        assert table["images"][row] == (radii > 0).sum() == 20
        assert table["never"][row] == pytest.approx(1 - found.mean(), abs=1e-12)
        assert table["within"][row] == np.mean(found & (excess <= 1e-3))
        if found.any():
            assert table["median"][row] == pytest.approx(np.median(excess[found]), abs=2e-5)


def test_what_referee_needs(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(attackers, "installed", list)
    with pytest.raises(InputError, match="referee needs one of these libraries"):
        studies.main("referee", dataset="mnist-sample", results=tmp_path)


def test_the_best_attack_of_each_threat_comes_first():
    rows = [
        dict(
            threat=f"l{norm}-box",
            attack=name,
            library="",
            model=model,
            within=within,
            median=median,
        )
        for norm, name, model, within, median in (
            ("0", "a", "two", 1.0, 0.0),
            ("2", "b", "two", 0.5, 0.1),
            ("2", "c", "two", 0.6, 0.1),
            ("2", "d", "two", 0.0, np.nan),
            ("2", "b", "ten", 0.9, 0.1),
            ("2", "e", "two", 0.0, 9.0),
        )
    ]
    assert [row["attack"] for row in studies.best_first(rows)] == list("bbceda")


def test_published_referee():
    """No excess is below 0, up to the rounding that is allowed for; so no radius is refuted."""
    table = runs.read(RESULTS / "mnist-0-1").study("referee")
    assert set(table["library"]) == set(attackers.NAMES.values())
    assert set(table["threat"]) == set(studies.REFEREE_THREATS)
    assert (table["images"] > 90).all()
    for name in ("within", "never"):
        assert ((table[name] >= 0) & (table[name] <= 1 - table["within"] * (name == "never"))).all()
    assert (np.isnan(table["median"]) == (table["never"] == 1)).all()
    assert np.nanmin(table["median"]) >= 0
