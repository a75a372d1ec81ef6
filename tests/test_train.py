"""Training, against stochastic gradient descent in plain NumPy and the article's numbers."""

import dataclasses

import keras
import numpy as np
import pytest
from conftest import dual_norm, flat, tree

import cli
import exact
import model
import runs
import train
from cli import InputError

COMMITTED = cli.RESULTS / "mnist-0-1"
ARTICLE_RUNS = ["regular", "robust-eps0.1", "robust-eps0.2", "robust-eps0.3"]


def train_digits(results, **options):
    """The runs that `train.main` makes on digits, read back."""
    options = dict(dataset="digits", epochs=3, results=results, quiet=True) | options
    return [runs.load(folder) for folder in train.main(**options)]


def descend(split, settings):
    """SGD on the (robust) loss in NumPy and float64: weights, bias, and what each step reports.

    It shares with train.py the initial weights and the seed of the order of the samples alone.
    """
    x, y, n = flat(split.x_train), np.float64(split.y_train), len(split.y_train)
    initial = model.linear(split.x_train.shape[1:], settings.init, settings.seed)
    w, b = np.float64(initial.get_weights()[0].ravel()), 0.0
    velocity_w, velocity_b = np.zeros_like(w), 0.0
    random, size = np.random.default_rng(settings.seed), settings.batch_size
    total, reports = settings.epochs * -(-n // size), []
    for _ in range(settings.epochs):
        order = random.permutation(n)
        for start in range(0, n, size):
            batch = order[start : start + size]
            margins = y[batch] * (x[batch] @ w + b)
            if settings.box:  # how far each pixel moves, and what that costs each sample
                against = y[batch, None] * np.sign(w)
                moved = np.minimum(settings.eps, np.where(against > 0, x[batch], 1 - x[batch]))
                cost, slope = moved @ np.abs(w), moved * np.sign(w)
            else:
                norm, slope = dual_norm(w, settings.norm)
                cost, slope = settings.eps * norm, settings.eps * np.tile(slope, (len(batch), 1))
            worst = margins - cost
            active = worst < 1
            if settings.loss == "hinge":
                loss, pull = np.maximum(0, 1 - worst), active
            else:
                loss, pull = np.logaddexp(0, -worst), 1 / (1 + np.exp(worst))
            by_w = -(pull * y[batch]) @ x[batch] + pull @ slope
            by_b = -(pull * y[batch]).sum()
            report = dict(
                loss=loss.mean(),
                accuracy=(margins > 0).mean(),
                active=active.mean(),
                w_l1=np.abs(w).sum(),
                gradient=np.linalg.norm(by_w) / size,
                pixels=(np.abs(w) > 0.01 * np.abs(w).max()).sum(),
            )
            linear = settings.schedule == "linear"
            rate = settings.learning_rate * (1 - len(reports) / total if linear else 1)
            velocity_w = settings.momentum * velocity_w - rate * by_w / size
            velocity_b = settings.momentum * velocity_b - rate * by_b / size
            w, b = w + velocity_w, b + velocity_b
            reports.append(report)
    return w, b, {name: np.array([r[name] for r in reports]) for name in reports[0]}


def objective(run, x, y):
    """The trained loss of a run, in float64."""
    worst = (
        y * (flat(x) @ run.w + run.b) - run.settings.eps * dual_norm(run.w, run.settings.norm)[0]
    )
    return np.maximum(0, 1 - worst).mean()


def errors(run, split, radius=0.0):
    """How many test samples an L-infinity perturbation of this radius flips, from its formula."""
    margins = split.y_test * (flat(split.x_test) @ run.w + run.b)
    return int((margins - radius * np.abs(run.w).sum() <= 0).sum())


@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(robust=True, eps=[0.05]),
        dict(robust=True, eps=[0.3], norm="2", init="zeros"),
        dict(robust=True, eps=[0.5], norm="1", seeds=[4]),
        dict(momentum=0.9, schedule="linear", learning_rate=0.05),
        dict(robust=True, eps=[0.02], momentum=0.9, schedule="linear", batch_size=64, seeds=[1]),
        dict(robust=True, eps=[0.02], recipe="converged"),
        dict(robust=True, eps=[0.1], box=True),
        dict(robust=True, eps=[0.3], box=True, recipe="converged", seeds=[2]),
        dict(loss="logistic", learning_rate=1.0),
        dict(recipe="kolter-madry"),
        dict(robust=True, eps=[0.2], recipe="kolter-madry", batch_size=64),
        dict(robust=True, eps=[1.0], norm="2", loss="logistic", init="zeros"),
        dict(robust=True, eps=[0.2], box=True, loss="logistic", momentum=0.5),
    ],
    ids=str,
)
def test_training_is_gradient_descent(tmp_path, digits, options):
    """The weights of every run, and what its steps report, are NumPy's.

    Float32 against float64: sums of 64 products of size 1 are off by 1e-6, and few steps add few
    of these. (Accuracy, active samples and pixels are counts; none sits on its threshold here.)
    """
    (run,) = train_digits(tmp_path, **options)
    w, b, steps = descend(digits, run.settings)
    np.testing.assert_allclose(run.w, w, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run.b, b, rtol=0, atol=1e-5)
    assert set(run.steps) == set(train.RECORD)
    for name in train.RECORD:
        np.testing.assert_allclose(run.steps[name], steps[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_history_is_of_the_saved_weights(tmp_path, digits):
    """The last row, recomputed in float64; float32 keeps five digits of a mean of 240 losses."""
    made = [{}, dict(robust=True, eps=[0.05, 0.1]), dict(robust=True, eps=[0.3], norm="2")]
    for run in [run for options in made for run in train_digits(tmp_path, **options)]:
        expected = {"epoch": 3}
        for split in ("train", "test"):
            x, y = getattr(digits, f"x_{split}"), getattr(digits, f"y_{split}")
            margins = y * (flat(x) @ run.w + run.b)
            worst = margins - run.settings.eps * dual_norm(run.w, run.settings.norm)[0]
            expected[f"{split}_loss"] = np.maximum(0, 1 - worst).mean()
            expected[f"{split}_accuracy"] = (margins > 0).mean()
            if run.settings.robust:
                expected[f"{split}_hinge"] = np.maximum(0, 1 - margins).mean()
                expected[f"{split}_robust_accuracy"] = (worst > 0).mean()
        assert {name: column[-1] for name, column in run.history.items()} == pytest.approx(
            expected, rel=1e-5
        )
        assert len(run.history["epoch"]) == 3
        assert all(len(column) == 3 * 3 for column in run.steps.values())  # 240 samples by 100


def test_config_tells_the_settings_and_the_data(tmp_path, digits):
    (run,) = train_digits(tmp_path, robust=True, eps=[0.05], seeds=[7])
    defaults = runs.recipe_defaults("article", True, "digits")
    tuned = defaults | dict(epochs=3, seed=7)
    assert run.settings == runs.Settings("digits-0-1", "article", True, 0.05, "inf", False, **tuned)
    assert run.config["data_sha256"] == digits.checksum
    assert run.config["image_shape"] == [8, 8, 1]
    assert (run.config["train_samples"], run.config["test_samples"]) == (240, 120)
    assert run.config["versions"]["keras"] == keras.__version__


def test_eager_is_compiled(tmp_path):
    """XLA and fused kernels may round sums of 64 numbers otherwise: 1e-6."""
    options = dict(robust=True, eps=[0.05], momentum=0.5)
    (compiled,) = train_digits(tmp_path, **options)
    (eager,) = train_digits(tmp_path, eager=True, **options)
    assert eager.name == compiled.name + "-eager"
    np.testing.assert_allclose(eager.w, compiled.w, rtol=0, atol=1e-6)
    for name in train.RECORD:
        np.testing.assert_allclose(eager.steps[name], compiled.steps[name], rtol=1e-5, atol=1e-6)


def test_runs_do_not_touch_each_other(tmp_path):
    """Several radii in one process give the bytes of each alone, and so does each once more."""
    made = train_digits(tmp_path / "together", robust=True, eps=[0.1, 0.05, 0.1])
    assert [run.settings.eps for run in made] == [0.1, 0.05]
    for eps in (0.05, 0.1):
        train_digits(tmp_path / "alone", robust=True, eps=[eps])
    assert tree(tmp_path / "alone") == tree(tmp_path / "together")
    assert len(tree(tmp_path / "alone")) == 2 * 4
    train_digits(tmp_path / "alone", robust=True, eps=[0.1])
    assert tree(tmp_path / "alone") == tree(tmp_path / "together")


def test_seeds_are_single_runs(tmp_path):
    """Radii first, then seeds; each once; the bytes of each alone."""
    options = dict(robust=True, eps=[0.1, 0.05], epochs=2)
    made = train_digits(tmp_path / "together", seeds=[1, 2, 1], **options)
    found = [(run.settings.eps, run.settings.seed) for run in made]
    assert found == [(0.1, 1), (0.1, 2), (0.05, 1), (0.05, 2)]
    for eps, seed in found:
        train_digits(tmp_path / "alone", robust=True, eps=[eps], epochs=2, seeds=[seed])
    assert tree(tmp_path / "alone") == tree(tmp_path / "together")
    assert len(tree(tmp_path / "alone")) == 4 * 4


def test_history_of_another_loss_and_of_the_box(tmp_path, digits):
    """The last row as above, from the exact worst-case perturbation in the box."""
    for loss in ("hinge", "logistic"):
        (run,) = train_digits(tmp_path, robust=True, eps=[0.1], box=True, loss=loss)
        x, y = flat(digits.x_test), np.float64(digits.y_test)
        delta = exact.perturbation(x, y, run.w, 0.1, "inf", True)
        margins, worst = (y * (images @ run.w + run.b) for images in (x, x + delta))
        mean = {
            "hinge": lambda m: np.maximum(0, 1 - m).mean(),
            "logistic": lambda m: np.logaddexp(0, -m).mean(),
        }[loss]
        expected = {
            "test_loss": mean(worst),
            f"test_{loss}": mean(margins),
            "test_accuracy": (margins > 0).mean(),
            "test_robust_accuracy": (worst > 0).mean(),
        }
        columns = {name: column[-1] for name, column in run.history.items()}
        assert {name: columns[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_seed_decides_the_run(tmp_path):
    (one,), (other,) = (train_digits(tmp_path, seeds=[seed], epochs=1) for seed in (0, 1))
    assert (one.w != other.w).any()


@pytest.mark.parametrize("eps", [1, np.float64(0.25)])
def test_any_real_number_is_a_radius(tmp_path, eps):
    """As a sweep over a list of whole numbers or over an array has them."""
    (run,) = train_digits(tmp_path, robust=True, eps=[eps], epochs=1)
    assert run.name == f"robust-eps{eps:g}-epochs1"
    assert run.settings.eps == eps


def test_diverged_run_is_not_written(tmp_path):
    """Its weights are not finite, so that no script could read it back."""
    with pytest.raises(InputError):
        train_digits(tmp_path, learning_rate=1e38)
    assert tree(tmp_path) == {}


def test_one_line_tells_the_result(tmp_path, capsys):
    (run,) = train_digits(tmp_path, robust=True, eps=[0.05])
    out, err = capsys.readouterr()
    clean, robust = (run.history[f"test_{name}"][-1] for name in ("accuracy", "robust_accuracy"))
    assert f"{run.name}: test accuracy {clean:.4f}, robust accuracy {robust:.4f}" in out
    assert str(run.folder) in out
    assert out.count("\n") == 1
    assert err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(eps=[0.1]), "--eps, --norm and --box need --robust"),
        (dict(norm="2"), "--eps, --norm and --box need --robust"),
        (dict(box=True), "--eps, --norm and --box need --robust"),
        (dict(robust=True, box=True, norm="2"), "--box is implemented for --norm inf, not for 2"),
        (dict(batch_size=241), "--batch-size 241 is larger than .* choose at most 240"),
        (dict(digits=(3, 3)), "two different digits"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train_digits(tmp_path, **options)
    assert tree(tmp_path) == {}


def test_largest_batch_is_the_training_set(tmp_path):
    (run,) = train_digits(tmp_path, batch_size=240)
    assert len(run.steps["loss"]) == 3


# --- callbacks -------------------------------------------------------------------------------


def test_own_callbacks_see_and_stop_the_training(tmp_path):
    """Early stopping on the loss, which never falls by 1e9: the first epoch sets the mark, the
    second ends the training. The other callback sees every step, epoch, and the model."""
    seen, models = [], []
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=0, min_delta=1e9)
    watch = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: models.append(watch.model),
        on_train_batch_end=lambda batch, logs: seen.append((batch, set(logs))),
        on_epoch_end=lambda epoch, logs: seen.append((epoch, set(logs))),
    )
    (run,) = train_digits(tmp_path, epochs=9, callbacks=[stop, watch])
    batches = [(batch, set(train.RECORD)) for batch in range(3)]
    logs = {"loss", "accuracy", "val_loss", "val_accuracy"}
    ended = len(run.history["epoch"])
    assert ended == 2
    assert seen == [entry for epoch in range(ended) for entry in [*batches, (epoch, logs)]]
    assert len(run.steps["loss"]) == 3 * ended
    (classifier,) = models
    assert (classifier.get_weights()[0].ravel() == np.float32(run.w)).all()


def test_own_callbacks_see_the_weights_of_each_step(tmp_path):
    """||w||_1 after a step is what the next step reports of itself."""
    sizes = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: sizes.append(
            np.abs(watch.model.get_weights()[0]).sum()
        )
    )
    (run,) = train_digits(tmp_path, callbacks=[watch])
    np.testing.assert_allclose(sizes[:-1], run.steps["w_l1"][1:], rtol=1e-6)
    assert len(set(sizes)) == 9


def test_weights_that_are_not_those_of_the_history_are_not_saved(tmp_path):
    """The first epoch's are the best by this measure, and the callback puts them back."""
    stop = keras.callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    with pytest.raises(InputError, match="a callback changed the weights after the last epoch"):
        train_digits(tmp_path, epochs=5, callbacks=[stop])
    assert list(tmp_path.rglob("*.*")) == []


def test_own_callbacks_do_not_change_the_numbers(tmp_path):
    train_digits(tmp_path / "without")
    train_digits(tmp_path / "with", callbacks=(keras.callbacks.Callback(),))
    assert tree(tmp_path / "with") == tree(tmp_path / "without")


# --- MNIST, against the article and its replication in NumPy ------------------------------------


def committed(name) -> runs.Run:
    return runs.load(COMMITTED / name)


@pytest.mark.mnist
@pytest.mark.parametrize("name", ARTICLE_RUNS)
def test_committed_weights_are_gradient_descents(mnist, name):
    """A weight that crosses zero may cross it one step sooner or later with another rounding,
    and then differs by up to learning rate * eps = 0.003. Else rounding adds up to below 1e-4."""
    run = committed(name)
    w, b, _ = descend(mnist, run.settings)
    difference = np.abs(run.w - w)
    assert difference.max() <= run.settings.learning_rate * run.settings.eps + 1e-4
    assert np.quantile(difference, 0.98) < 1e-4
    np.testing.assert_allclose(run.b, b, rtol=0, atol=1e-4)


@pytest.mark.mnist
def test_committed_run_is_what_its_command_makes(mnist, tmp_path):
    """Compared as above: other machines round otherwise."""
    (folder,) = train.main(robust=True, eps=[0.2], dataset="mnist", results=tmp_path, quiet=True)
    fresh, old = runs.load(folder), committed("robust-eps0.2")
    difference = np.abs(fresh.w - old.w)
    assert difference.max() <= 0.01 * 0.2 + 1e-4
    assert np.quantile(difference, 0.98) < 1e-4
    np.testing.assert_allclose(fresh.b, old.b, rtol=0, atol=1e-4)
    assert dataclasses.asdict(fresh.settings) == dataclasses.asdict(old.settings)
    for name, column in old.history.items():
        # Losses to 1e-3 of their size; accuracies to 2 of 2115 samples.
        np.testing.assert_allclose(fresh.history[name], column, rtol=1e-3, atol=1e-3)


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("name", "accuracy"), list(zip(ARTICLE_RUNS, [0.9990, 0.9985, 0.9990, 0.9976], strict=True))
)
def test_clean_accuracy_is_the_articles(mnist, name, accuracy):
    """To three errors in 2115, which is what another order of the batches makes."""
    assert abs(errors(committed(name), mnist) - (1 - accuracy) * 2115) <= 3


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("robust-eps0.2", [0.992, 0.964, 0.776, 0.17]),
        ("robust-eps0.3", [0.992, 0.947, 0.829, 0.575]),
    ],
)
def test_robust_accuracy_is_the_replicated_one(mnist, name, curve):
    """Against its replication in NumPy, to the 0.03 that the seed makes."""
    run = committed(name)
    radii = exact.sample_radii(flat(mnist.x_test), mnist.y_test, run.w, run.b)
    found = exact.robust_correct(radii, np.array([0.1, 0.2, 0.3, 0.4])) / 2115
    np.testing.assert_allclose(found, curve, rtol=0, atol=0.03)
    assert found[1] == 1 - errors(run, mnist, 0.2) / 2115


@pytest.mark.mnist
@pytest.mark.parametrize(
    ("eps", "minimum", "excess"),
    [(0.1, 0.0222018, 0.10), (0.2, 0.0754299, 0.05), (0.3, 0.1219451, 0.05)],
)
def test_converged_runs_are_near_the_certified_minimum(mnist, eps, minimum, excess):
    """Against the minima of the linear program solved whole, given to seven digits."""
    run = committed(f"robust-eps{eps}-converged")
    assert run.settings.eps == eps
    found = objective(run, mnist.x_train, mnist.y_train)
    assert minimum - 1e-5 <= found <= minimum * (1 + excess)
    # As history.csv has it, from float32.
    assert found == pytest.approx(run.history["train_loss"][-1], rel=1e-4)
