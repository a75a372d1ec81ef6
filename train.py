"""Train a linear classifier of two digits with the hinge loss or with the robust hinge loss.

python train.py                            the regular model
python train.py --robust --eps 0.2         the robust one
python train.py --robust --eps 0.1 0.2 0.3 --recipe converged
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from lab import cli
from lab.cli import RESULTS, InputError

import numpy as np

import data
import recipes
import runs


def train_step(classifier, images, labels, settings: recipes.Settings):
    """One gradient step on a batch (article, "we build the custom routine"); returns its record.

    The loss is the mean over the batch of the hinge, max(0, 1 - m), of the worst-case margins
    m - eps ||w||_1. That is the robust hinge; a regular model has eps = 0. A sample whose
    worst-case margin is below 1 adds -y x_j + eps sign(w_j) to the gradient of weight j. So, where
    the mean of y x_j over these samples is below eps in size, weight j is driven to 0.
    """
    import tensorflow as tf

    import losses
    from callbacks import step_record

    loss_of, ball = getattr(losses, settings.loss), (settings.eps, settings.norm, settings.box)
    kernel, _ = variables = classifier.trainable_variables
    with tf.GradientTape() as tape:
        margins = losses.margins(classifier(images, training=True), labels)
        worst = losses.worst_case_margins(margins, images, labels, kernel, *ball)
        loss = loss_of(worst)  # losses.hinge, unless --loss says otherwise
        # As in the article, which sums: a smaller last batch takes a smaller step.
        scaled_loss = loss * tf.cast(tf.size(labels), tf.float32) / settings.batch_size
    gradients = tape.gradient(scaled_loss, variables)
    record = step_record(margins, worst, gradients[0], loss, kernel)  # before the update
    classifier.optimizer.apply(gradients, variables)
    return record


def fit(classifier, settings, split: data.Dataset, watchers, steps_per_execution: int):
    """The training loop: gradient steps on batches in random order, epoch after epoch.

    Args:
        watchers: a keras.callbacks.CallbackList. Its logs of a batch are `callbacks.step_logs`.
        steps_per_execution: how many steps one compiled call takes, as in Keras. With 1 the
            callbacks see each step as it happens.

    Returns:
        The logs and the weights [(d, 1), (1,)] of the last epoch.
    """
    import tensorflow as tf

    from callbacks import STEP_COLUMNS, step_logs

    x, y = train_set = tf.constant(split.x_train), tf.constant(split.y_train)
    test_set = tf.constant(split.x_test), tf.constant(split.y_test)
    n, size = len(split.y_train), settings.batch_size

    def train_steps(order):
        """A step on each batch of these samples; returns (steps, len(STEP_COLUMNS))."""
        steps = -(-tf.size(order) // size)
        records = tf.TensorArray(tf.float32, steps, element_shape=[len(STEP_COLUMNS)])
        for i in tf.range(steps):
            batch = order[i * size : (i + 1) * size]
            record = train_step(classifier, tf.gather(x, batch), tf.gather(y, batch), settings)
            records = records.write(i, record)
        return records.stack()

    if not settings.eager:
        train_steps = tf.function(train_steps, input_signature=[tf.TensorSpec([None], tf.int32)])
    shuffle = np.random.default_rng(settings.seed)
    watchers.on_train_begin()
    for epoch in range(settings.epochs):
        watchers.on_epoch_begin(epoch)
        order = shuffle.permutation(n).astype(np.int32)
        for first in range(0, settings.steps_per_epoch(n), steps_per_execution):
            last = first + steps_per_execution
            watchers.on_train_batch_begin(first)
            records = train_steps(order[first * size : last * size]).numpy()
            watchers.on_train_batch_end(last - 1, step_logs(records))
            if cli.INTERRUPTED.is_set():
                raise KeyboardInterrupt
        logs = evaluate(classifier, settings, train_set, test_set)
        weights = classifier.get_weights()
        watchers.on_epoch_end(epoch, logs)
        if classifier.stop_training:
            break
    watchers.on_train_end(logs)
    return logs, weights


def evaluate(classifier, settings: recipes.Settings, train_set, test_set) -> dict[str, float]:
    """The losses and accuracies on all of train and test, each given as (x, y).

    The keys are Keras's: "loss" (the trained one) and "accuracy", with "val_" before the test
    set's. A robust run adds the plain loss, under its own name such as "hinge", and
    "robust_accuracy" at its radius.
    """
    import losses

    loss_of, ball = getattr(losses, settings.loss), (settings.eps, settings.norm, settings.box)
    kernel, _ = classifier.trainable_variables
    logs = {}
    for prefix, (x, y) in (("", train_set), ("val_", test_set)):
        margins = losses.margins(classifier(x), y)
        worst = losses.worst_case_margins(margins, x, y, kernel, *ball)
        logs[prefix + "loss"] = float(loss_of(worst))
        logs[prefix + "accuracy"] = float(np.mean(margins > 0))
        if settings.robust:
            logs[prefix + settings.loss] = float(loss_of(margins))
            logs[prefix + "robust_accuracy"] = float(np.mean(worst > 0))
    return logs


# --- from settings to a file ---------------------------------------------------------------------


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


def train(settings, split: data.Dataset, results: Path, quiet=True, callbacks=()) -> Path:
    """Train one model, from its seed alone, and save it; returns its file.

    Raises:
        InputError: the training diverged, or a callback changed the weights after its end.
    """
    tf = cli.import_tensorflow()
    import keras

    from callbacks import ProgressBar, StepRecorder, require_callbacks

    require_callbacks(callbacks)
    classifier = make_classifier(settings, split)
    steps = settings.steps_per_epoch(len(split.y_train))
    history, recorder = keras.callbacks.History(), StepRecorder()
    bar = [] if quiet else [ProgressBar(settings.name)]
    watchers = keras.callbacks.CallbackList(
        [history, recorder, *bar, *callbacks], model=classifier, epochs=settings.epochs, steps=steps
    )
    logs, weights = fit(classifier, settings, split, watchers, 1 if callbacks else steps)
    if not all(np.isfinite(values).all() for values in [*weights, list(logs.values())]):
        raise InputError(f"{settings.name} diverged, nothing is written: lower --learning-rate")
    if not all(map(np.array_equal, weights, classifier.get_weights())):
        raise InputError(
            f"{settings.name}: a callback changed the weights after the last epoch, so they are "
            "not those of the history: nothing is written"
        )
    columns = {}  # a run says train_loss and test_loss where Keras says loss and val_loss
    for name in logs:
        part = "test_" if name.startswith("val_") else "train_"
        columns[part + name.removeprefix("val_")] = history.history[name]
    facts = runs.facts_of(split, dict(tensorflow=tf.__version__, keras=keras.__version__))
    kernel, bias = weights
    made = kernel.ravel(), bias[0], columns, recorder.columns()
    return runs.save_run(results, settings, facts, *made)


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
    **settings,
) -> list[Path]:
    """Train one model per radius and seed, save each, and print its result in one line.

    Args:
        robust: train with the robust loss, in the ball of radius `eps`, by `norm` and `box`.
        eps: one or more radii, in pixel units of [0, 1] (default: 0.2).
        jobs: how many models are trained side by side, each in a process of its own.
        callbacks: Keras callbacks of your own. They see each step and epoch as it happens and may
            stop the training. The run's name ends in -callbacks.
        settings: loss, epochs, batch_size, learning_rate, momentum, schedule, init or eager, in
            place of the recipe's.

    Returns:
        The files of the runs.

    Raises:
        InputError: a setting is not valid or contradicts another or the data, the data cannot be
            had, or the run cannot be written.
    """
    results, callbacks = cli.results_folder(results), recipes.several(callbacks)
    seeds, radii = recipes.several(settings.pop("seed", seeds)), recipes.several(eps)
    wanted = (robust, radii, norm, box, recipe, seeds)
    if not recipes.grid("mnist-0-1", *wanted, **settings):  # refused before the data are read
        raise InputError("nothing to train: give at least one radius and one seed")
    recipes.require("jobs", jobs, "count")
    if jobs > 1 and callbacks:
        raise InputError("callbacks of your own see the training in this process: leave jobs out")
    cli.check_writable(results)
    split = data.load(dataset, digits, mnist_dir)
    models = recipes.grid(split.name, *wanted, **settings)
    models = [recipes.with_callbacks(one) for one in models] if callbacks else models
    if models[0].batch_size > len(split.y_train):
        raise InputError(
            f"--batch-size {models[0].batch_size} is larger than the training set of {split.name}: "
            f"choose at most {len(split.y_train)}"
        )
    known = dict(split=split, results=results, quiet=quiet or jobs > 1, callbacks=callbacks)
    work, made = functools.partial(train, **known), []
    for file in cli.side_by_side(work, models, jobs, "training models"):
        print(runs.report(runs.load_run(file), results), flush=True)
        made.append(file)
    return made


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="train.py",
        description="Train a linear classifier of two digits with the hinge loss or with the "
        "robust hinge loss.",
    )
    add, unset = parser.add_argument, argparse.SUPPRESS
    add("--robust", action="store_true", help="train with the robust loss (default: the plain one)")
    text = "radii of the perturbation ball, in pixel units of [0, 1]; one model each "
    add("--eps", type=float, nargs="+", help=f"{text}(default: 0.2; needs --robust)")
    parser.add_ball(recipes.NORMS, "perturbed pixels stay in [0, 1] (norm inf only)")
    text = "defaults of the options below: the article's; converged: close to the minimum of the "
    text += "loss; kolter-madry: their tutorial's (default: article)"
    add("--recipe", choices=recipes.RECIPES, default="article", help=text)
    text = "of the initial weights and the order of the batches; one model each (default: 0)"
    known = dict(dest="seeds", type=int, nargs="+", default=0, metavar="N")
    add("--seed", "--seeds", help=text, **known)
    for name, (known, text) in recipes.OPTIONS.items():
        text = f"{text} {recipes.describe_default(name)}"
        add("--" + name.replace("_", "-"), default=unset, help=text, **known)
    text = "models trained side by side, each in a process of its own (default: 1)"
    add("--jobs", type=int, default=1, metavar="N", help=text)
    text = "do not compile the steps: slower, for debugging"
    add("--eager", action="store_true", default=unset, help=text)
    parser.add_data()
    parser.add_results()
    add("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
