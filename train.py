"""Train a linear classifier of two digits with the hinge loss or with the robust hinge loss.

    python train.py                            the regular model
    python train.py --robust --eps 0.2         the robust one
    python train.py --robust --eps 0.1 0.2 0.3 --recipe converged

The training loop is our own, around one gradient step, so that every variable and gradient is in
reach (article, "we build the custom routine"). A run is saved in results/<dataset>/runs/<run>.npz.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from common import cli, runs
from common.cli import RESULTS, InputError

import numpy as np

import data
import recipes

# What a step reports of its batch, before the update: accuracy, share of samples whose worst-case
# margin is below 1, L2 norm of the gradient by w, the trained loss, pixels in use, and ||w||_1.
STEP_COLUMNS = ("accuracy", "active", "gradient", "loss", "pixels", "w_l1")


def main(
    robust: bool = False,
    eps: float | Sequence[float] | None = None,
    norm: str = "inf",
    box: bool = False,
    recipe: str = "article",
    seeds: int | Sequence[int] = 0,
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
    quiet: bool = False,
    jobs: int = 1,
    callbacks: Sequence = (),
    name: str | None = None,
    **settings,
) -> list[Path]:
    """Train one model per radius and seed, save each, and print its result in one line.

    Args:
        robust: train with the robust loss, in the ball of radius `eps`, by `norm` and `box`.
        eps: one or more radii, in pixel units of [0, 1] (default: 0.2).
        jobs: how many models are trained side by side, each in a process of its own.
        callbacks: Keras callbacks of your own. They see each step and epoch as it happens and may
            stop the training. The run's name ends in -callbacks, or is `name`.
        settings: loss, epochs, batch_size, learning_rate, momentum, schedule, init or eager, in
            place of the recipe's.

    Returns:
        The files of the runs.

    Raises:
        InputError: a setting is not valid or contradicts another or the data, the data cannot be
            had, or the run cannot be written.
    """
    results = cli.results_folder(results)
    seeds = recipes.several(settings.pop("seed", seeds))
    radii, callbacks = recipes.several(eps), recipes.several(callbacks)

    def wanted(dataset: str) -> list[recipes.Settings]:
        found = [
            recipes.settings(dataset, robust, radius, norm, box, recipe, **settings, seed=seed)
            for radius, seed in itertools.product(radii, seeds)
        ]
        return [recipes.named(one, name) for one in found] if callbacks or name else found

    models = wanted("mnist-0-1")  # bad settings are refused before the data are read
    if not models:
        raise InputError("nothing to train: give at least one radius and one seed")
    if name and len(models) > 1:
        raise InputError(
            f"name {name!r} names one run, not {len(models)}: give one radius and seed"
        )
    recipes.require("jobs", jobs, "count")
    if jobs > 1 and callbacks:
        raise InputError("callbacks of your own see the training in this process: leave jobs out")
    cli.check_writable(results)
    split = data.load(dataset, digits, mnist_dir)
    models = wanted(split.name)
    for one in models:
        if one.batch_size > len(split.y_train):
            raise InputError(
                f"--batch-size {one.batch_size} is larger than the training set of {split.name}: "
                f"choose at most {len(split.y_train)}"
            )
    made = []
    for file in train_all(models, split, results, quiet, callbacks, jobs):
        print(report(runs.load_run(file), split, results, file), flush=True)
        made.append(file)
    return made


def train_all(models, split, results, quiet=True, callbacks=(), jobs=1) -> Iterable[Path]:
    """Train the models one after the other, or several at a time; yields their files in order."""
    if min(jobs, len(models)) == 1:
        return (train(one, split, results, quiet, callbacks) for one in models)
    import joblib

    cli.tell_progress(f"training {len(models)} models, {jobs} at a time")
    side_by_side = joblib.Parallel(n_jobs=jobs, return_as="generator")
    return side_by_side(joblib.delayed(train)(one, split, results, True) for one in models)


def train(settings, split: data.Dataset, results: Path, quiet=True, callbacks=()) -> Path:
    """Train one model, from its seed alone, and save it; returns its file."""
    cli.import_tensorflow()
    import keras

    from callbacks import ProgressBar, StepRecorder

    for one in callbacks:
        if not isinstance(one, keras.callbacks.Callback):
            raise InputError(f"callbacks needs keras.callbacks.Callback objects, not {one!r}")
        if getattr(one, "restore_best_weights", False):
            raise InputError(
                "restore_best_weights would save other weights than those of the last epoch, which "
                "the history ends with: leave it out"
            )
    classifier = make_classifier(settings, split)
    steps = settings.steps_per_epoch(len(split.y_train))
    history, recorder = keras.callbacks.History(), StepRecorder()
    bar = [] if quiet else [ProgressBar(settings.name)]
    watchers = keras.callbacks.CallbackList(
        [history, recorder, *bar, *callbacks], model=classifier, epochs=settings.epochs, steps=steps
    )
    logs, weights = fit(classifier, settings, split, watchers, 1 if callbacks else steps)
    check_outcome(settings, classifier, weights, logs)
    by_epoch = {name: history.history[name] for name in logs}
    return save(settings, split, results, weights, by_epoch, recorder.columns())


def fit(classifier, settings, split: data.Dataset, watchers, steps_per_execution: int):
    """The training loop: gradient steps on batches in random order, epoch after epoch.

    Args:
        watchers: a keras.callbacks.CallbackList. Its logs of a batch come from `step_logs`.
        steps_per_execution: how many steps one compiled call takes, as in Keras. With 1 the
            callbacks see each step as it happens.

    Returns:
        The logs and the weights [(d, 1), (1,)] of the last epoch.
    """
    import tensorflow as tf

    import losses

    x, y = train_set = tf.constant(split.x_train), tf.constant(split.y_train)
    test_set = tf.constant(split.x_test), tf.constant(split.y_test)
    kernel, _ = variables = classifier.trainable_variables
    loss_of, worst_case = make_loss(kernel, settings)
    batch_size = settings.batch_size

    def mean(condition):
        return tf.reduce_mean(tf.cast(condition, tf.float32))

    def train_step(batch):
        """One gradient step on the samples of these indices; returns its row of STEP_COLUMNS."""
        images, labels = tf.gather(x, batch), tf.gather(y, batch)
        with tf.GradientTape() as tape:
            margins = losses.margins(classifier(images, training=True), labels)
            worst = worst_case(margins, images, labels)  # m - eps ||w||_1 in the L-infinity ball
            loss = loss_of(worst)
            # As in the article, which sums, a smaller last batch takes a smaller step.
            scaled_loss = loss * tf.cast(tf.size(labels), tf.float32) / batch_size
        gradients = tape.gradient(scaled_loss, variables)
        accuracy, active = mean(margins > 0), mean(worst < 1)
        size = tf.abs(kernel)
        in_use = size > runs.PIXEL_IN_USE * tf.reduce_max(size)
        pixels = tf.math.count_nonzero(in_use, dtype=tf.float32)
        report = [accuracy, active, tf.norm(gradients[0]), loss, pixels, tf.reduce_sum(size)]
        classifier.optimizer.apply(gradients, variables)
        return tf.stack(report)

    def train_steps(order):
        """A step on each batch of these samples; returns (steps, len(STEP_COLUMNS))."""
        steps = -(-tf.size(order) // batch_size)
        reports = tf.TensorArray(tf.float32, steps, element_shape=[len(STEP_COLUMNS)])
        for i in tf.range(steps):
            batch = order[i * batch_size : (i + 1) * batch_size]
            reports = reports.write(i, train_step(batch))
        return reports.stack()

    if not settings.eager:
        train_steps = tf.function(train_steps, input_signature=[tf.TensorSpec([None], tf.int32)])
    shuffle, n = np.random.default_rng(settings.seed), len(split.y_train)
    watchers.on_train_begin()
    for epoch in range(settings.epochs):
        watchers.on_epoch_begin(epoch)
        order = shuffle.permutation(n).astype(np.int32)
        for first in range(0, settings.steps_per_epoch(n), steps_per_execution):
            last = first + steps_per_execution
            watchers.on_train_batch_begin(first)
            reports = train_steps(order[first * batch_size : last * batch_size]).numpy()
            watchers.on_train_batch_end(last - 1, step_logs(reports))
            if cli.INTERRUPTED.is_set():
                raise KeyboardInterrupt
        logs = evaluate(classifier, settings, train_set, test_set)
        weights = classifier.get_weights()
        watchers.on_epoch_end(epoch, logs)
        if classifier.stop_training:
            break
    watchers.on_train_end(logs)
    return logs, weights


def step_logs(reports: np.ndarray) -> dict:
    """What callbacks see of a call of k steps, given (k, len(STEP_COLUMNS)).

    Column -> array (k,), or a plain float for a single step.
    """
    values = reports.T if len(reports) > 1 else reports[0].tolist()
    return dict(zip(STEP_COLUMNS, values, strict=True))


def make_classifier(settings: recipes.Settings, split: data.Dataset):
    """The untrained model, compiled with its optimizer."""
    import keras

    import model

    rate = settings.learning_rate
    if settings.schedule == "linear":
        total = settings.epochs * settings.steps_per_epoch(len(split.y_train))
        rate = keras.optimizers.schedules.PolynomialDecay(rate, total, end_learning_rate=0.0)
    classifier = model.linear(split.x_train.shape[1:], settings.init, settings.seed)
    classifier.compile(keras.optimizers.SGD(rate, settings.momentum))
    return classifier


def make_loss(kernel, settings: recipes.Settings):
    """Two functions: the mean loss of margins (n,), and the worst-case margins of (margins, x, y).

    The robust loss is the loss of the worst-case margins, for the hinge and for the logistic loss.
    """
    import losses

    def worst_case(margins, x, y):
        if settings.box:
            return losses.worst_case_margins_in_box(margins, x, y, kernel, settings.eps)
        return losses.worst_case_margins(margins, kernel, settings.eps, settings.norm)

    return getattr(losses, settings.loss), worst_case


def evaluate(classifier, settings: recipes.Settings, train_set, test_set) -> dict[str, float]:
    """The losses and accuracies on all of train and test, each given as (x, y).

    The keys are Keras's: "loss" (the trained one) and "accuracy", with "val_" before the test
    set's. A robust run adds the plain loss, "hinge" or "logistic", and "robust_accuracy" at its
    radius.
    """
    import losses

    kernel, _ = classifier.trainable_variables
    loss_of, worst_case = make_loss(kernel, settings)
    logs = {}
    for prefix, (x, y) in (("", train_set), ("val_", test_set)):
        margins = losses.margins(classifier(x), y)
        worst = worst_case(margins, x, y)
        logs[prefix + "loss"] = float(loss_of(worst))
        logs[prefix + "accuracy"] = float(np.mean(margins > 0))
        if settings.robust:
            logs[prefix + settings.loss] = float(loss_of(margins))
            logs[prefix + "robust_accuracy"] = float(np.mean(worst > 0))
    return logs


def check_outcome(settings: recipes.Settings, classifier, weights: list, logs: dict) -> None:
    """Raise InputError if the run diverged, or if its weights are not those of its history."""
    finite = all(np.isfinite(values).all() for values in [*weights, list(logs.values())])
    if not finite:
        raise InputError(f"{settings.name} diverged, nothing is written: lower --learning-rate")
    if not all(map(np.array_equal, weights, classifier.get_weights())):
        raise InputError(
            f"{settings.name}: a callback changed the weights after the last epoch, so they are "
            "not those of the history: nothing is written"
        )


def save(settings, split, results: Path, weights: list, history: dict, steps: dict) -> Path:
    """Save a trained run; returns its file.

    `history` has one number per epoch for each name that `evaluate` gives, `steps` one per step.
    """
    import keras
    import tensorflow as tf

    kernel, bias = weights
    columns = {}  # a run says train_loss and test_loss where Keras says loss and val_loss
    for name, values in history.items():
        part = "test_" if name.startswith("val_") else "train_"
        columns[part + name.removeprefix("val_")] = values
    facts = runs.facts_of(split, dict(tensorflow=tf.__version__, keras=keras.__version__))
    return runs.save_run(results, settings, facts, kernel.ravel(), bias[0], columns, steps)


def report(run: runs.Run, split: data.Dataset, results: Path, file: Path) -> str:
    """The result of a run in one line."""
    settings, last = run.settings, {name: values[-1] for name, values in run.history.items()}
    parts = [f"{run.name}: test accuracy {last['test_accuracy']:.4f}"]
    if settings.robust:
        ball = recipes.NORMS[settings.norm] + " box" * settings.box
        kept = f"robust accuracy {last['test_robust_accuracy']:.4f} at {ball} radius {settings.eps}"
        parts += [kept, f"training loss {last['train_loss']:.4f}"]
        if minimum := certified_minimum(results, settings, split):
            parts.append(f"the least possible is {minimum:.7f} (certified)")
    return ", ".join([*parts, f"written to {file}"])


def certified_minimum(results: Path, settings: recipes.Settings, split) -> float | None:
    """The least possible training loss, where optimum.py has stored it for this very problem."""
    ball = settings.eps, settings.norm, settings.box
    problem = recipes.optimal(settings.dataset, *ball, settings.loss)
    run = runs.read_run(runs.run_file(results, problem))
    if run is None or run.facts["data_sha256"] != split.checksum:
        return None
    return run.facts["certificate"]["dual"]


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="train.py",
        description="Train a linear classifier of two digits with the hinge loss or with the "
        "robust hinge loss.",
    )
    add = parser.add_argument
    add("--robust", action="store_true", help="train with the robust loss (default: the plain one)")
    add(
        "--eps",
        type=float,
        nargs="+",
        help="radii of the perturbation ball, in pixel units of [0, 1]; one model each "
        "(default: 0.2; needs --robust)",
    )
    add("--norm", choices=recipes.NORMS, default="inf", help="of the ball (default: inf)")
    add("--box", action="store_true", help="perturbed pixels stay in [0, 1] (norm inf only)")
    add(
        "--recipe",
        choices=recipes.RECIPES,
        default="article",
        help="defaults of the options below: the article's; converged: close to the minimum of "
        "the loss; kolter-madry: their tutorial's (default: article)",
    )
    add(
        "--seed",
        "--seeds",
        dest="seeds",
        type=int,
        nargs="+",
        default=0,
        metavar="N",
        help="of the initial weights and the order of the batches; one model each (default: 0)",
    )
    for name, kind, text in (
        ("epochs", dict(type=int, metavar="N"), "passes over the training set"),
        ("batch_size", dict(type=int, metavar="N"), "images per step; the last batch is smaller"),
        ("learning_rate", dict(type=float, metavar="X"), "of SGD on the mean loss"),
        ("momentum", dict(type=float, metavar="X"), "of SGD, from 0 to below 1"),
        ("schedule", dict(choices=recipes.SCHEDULES), "learning rate: constant, or linearly to 0"),
        ("loss", dict(choices=recipes.LOSSES), "of the margin"),
        ("init", dict(choices=recipes.INITS), "initial weights"),
    ):
        option, text = "--" + name.replace("_", "-"), f"{text} {recipes.describe_default(name)}"
        add(option, default=argparse.SUPPRESS, help=text, **kind)
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="models trained side by side, each in a process of its own (default: 1)",
    )
    add(
        "--eager",
        action="store_true",
        default=argparse.SUPPRESS,
        help="do not compile the steps: slower, for debugging",
    )
    parser.add_data()
    parser.add_results()
    add("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
