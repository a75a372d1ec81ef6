"""Train a linear classifier of two digits with the hinge or the robust hinge loss.

    python train.py                            the regular model
    python train.py --robust --eps 0.2         the robust one
    python train.py --robust --eps 0.1 0.2 0.3 --recipe converged

The loop is plain Python over epochs and batches around one gradient step, with every variable
and gradient in reach. Each run is written to results/<dataset>/<run>/ (see runs.py).
"""

import platform
from pathlib import Path

import numpy as np

import cli
import data
import files
import runs
from cli import RESULTS, InputError

# What the step reports of its batch, before the update: the trained loss, the accuracy, the
# share of samples inside the knee (those that have a gradient), ||w||_1, the L2 norm of the
# loss's gradient by w, and the number of pixels in use.
RECORD = ("loss", "accuracy", "active", "w_l1", "gradient", "pixels")


def main(
    robust: bool = False,
    eps: list[float] | None = None,
    norm: str = "inf",
    recipe: str = "article",
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    schedule: str | None = None,
    init: str | None = None,
    seed: int | None = None,
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
    eager: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Train one model per radius (one regular model without `robust`); None: as the recipe says.

    Returns:
        The folders of the runs.

    Raises:
        InputError: the settings contradict each other or the data, or cannot be written.
    """
    if not robust and (eps is not None or norm != "inf"):
        raise InputError("--eps and --norm need --robust: the regular loss has no perturbation")
    files.check_writable(results)
    split = data.load(dataset, tuple(digits), mnist_dir)
    given = dict(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        schedule=schedule,
        init=init,
        seed=seed,
        eager=eager or None,
    )
    given = {name: value for name, value in given.items() if value is not None}
    chosen = runs.recipe_defaults(recipe, robust, split.source) | given
    if chosen["batch_size"] > len(split.y_train):
        raise InputError(
            f"--batch-size {chosen['batch_size']} is larger than the training set of "
            f"{split.name}: choose at most {len(split.y_train)}"
        )
    folders = []
    for radius in dict.fromkeys(map(float, eps or [0.2])) if robust else [0.0]:
        settings = runs.Settings(split.name, recipe, robust, radius, norm, **chosen)
        folders.append(train(settings, split, results, quiet))
    return folders


def train(settings: runs.Settings, split: data.Dataset, results: Path, quiet: bool) -> Path:
    """Train and save one model, from its seed alone; print the result in one line."""
    tf = cli.import_tensorflow()
    import keras

    import callbacks
    import model

    keras.utils.set_random_seed(settings.seed)
    n = len(split.y_train)
    steps_per_epoch = -(-n // settings.batch_size)  # the last batch may be smaller

    classifier = model.linear(split.x_train.shape[1:], settings.init, settings.seed)
    rate = settings.learning_rate
    if settings.schedule == "linear":
        total = settings.epochs * steps_per_epoch
        rate = keras.optimizers.schedules.PolynomialDecay(rate, total, end_learning_rate=0.0)
    classifier.compile(keras.optimizers.SGD(rate, settings.momentum))

    step = make_step(classifier, settings)
    evaluate = make_evaluation(classifier, settings, split)
    recorder, history = callbacks.StepRecorder(), keras.callbacks.History()
    watchers = [recorder, history] + ([] if quiet else [callbacks.ProgressBar(settings.name)])
    watchers = keras.callbacks.CallbackList(
        watchers, model=classifier, epochs=settings.epochs, steps=steps_per_epoch
    )

    shuffle = np.random.default_rng(settings.seed)
    watchers.on_train_begin()
    for epoch in range(settings.epochs):
        watchers.on_epoch_begin(epoch)
        order = shuffle.permutation(n)
        for i in range(steps_per_epoch):
            watchers.on_train_batch_begin(i)
            batch = order[i * settings.batch_size : (i + 1) * settings.batch_size]
            # Tensors, since tf.function takes far longer over NumPy arrays.
            x, y = tf.constant(split.x_train[batch]), tf.constant(split.y_train[batch])
            record, _gradients = step(x, y)
            watchers.on_train_batch_end(i, dict(zip(RECORD, record.numpy().tolist(), strict=True)))
        logs = evaluate()
        watchers.on_epoch_end(epoch, logs)
        if classifier.stop_training:
            break
    watchers.on_train_end()

    w, b = (variable.numpy() for variable in classifier.trainable_variables)
    if not (np.isfinite(w).all() and np.isfinite(list(logs.values())).all()):
        raise InputError(f"{settings.name} diverged, nothing is written: lower --learning-rate")
    columns = {_column(name): history.history[name] for name in logs}
    facts = dict(
        digits=list(split.digits),
        image_shape=list(split.x_train.shape[1:]),
        train_samples=n,
        test_samples=len(split.y_test),
        data_sha256=split.checksum,
        versions=dict(
            python=platform.python_version(),
            tensorflow=tf.__version__,
            keras=keras.__version__,
            numpy=np.__version__,
        ),
    )
    folder = runs.save(results, settings, facts, w.ravel(), b.item(), columns, recorder.arrays())
    report = [f"{settings.name}: test accuracy {columns['test_accuracy'][-1]:.4f}"]
    if settings.robust:
        robust_accuracy = columns["test_robust_accuracy"][-1]
        ball = runs.NORMS[settings.norm]
        report.append(f"robust accuracy {robust_accuracy:.4f} at {ball} radius {settings.eps}")
    print(", ".join([*report, f"written to {folder}"]), flush=True)
    return folder


def make_step(classifier, settings: runs.Settings):
    """One gradient step: (x, y) -> (record of the batch before the update, gradients)."""
    import tensorflow as tf

    import losses

    kernel, _ = classifier.trainable_variables

    def step(x, y):
        with tf.GradientTape() as tape:
            margins = losses.margins(classifier(x, training=True), y)
            worst = losses.worst_case_margins(margins, kernel, settings.eps, settings.norm)
            loss = losses.hinge(worst)  # the robust hinge; with eps = 0, the hinge
            # Every sample weighs the same: a smaller last batch takes a smaller step, as in
            # the article, which sums. Else it ends each epoch with a jolt of size eps to ||w||_1.
            weighted = loss * tf.cast(tf.size(y), tf.float32) / settings.batch_size
        gradients = tape.gradient(weighted, classifier.trainable_variables)
        size = tf.abs(kernel)
        in_use = size > runs.PIXEL_IN_USE * tf.reduce_max(size)
        record = [  # as RECORD names them
            loss,
            share(margins > 0),
            share(worst < 1),
            tf.reduce_sum(size),
            tf.norm(gradients[0]),
            tf.reduce_sum(tf.cast(in_use, tf.float32)),
        ]
        classifier.optimizer.apply(gradients, classifier.trainable_variables)
        return tf.stack(record), gradients

    def share(condition):
        return tf.reduce_mean(tf.cast(condition, tf.float32))

    if settings.eager:
        return step
    shape = (None, *classifier.input_shape[1:])
    return tf.function(step, input_signature=[tf.TensorSpec(shape), tf.TensorSpec([None])])


def make_evaluation(classifier, settings: runs.Settings, split: data.Dataset):
    """A function of nothing that gives the losses and accuracies on all of train and test.

    Its keys are Keras's: "loss" (the trained one) and "accuracy", "val_" before the test
    set's. A robust run adds "hinge", the plain loss, and "robust_accuracy" at its radius.
    """
    import tensorflow as tf

    import losses

    kernel, _ = classifier.trainable_variables
    splits = {
        "": (tf.constant(split.x_train), tf.constant(split.y_train)),
        "val_": (tf.constant(split.x_test), tf.constant(split.y_test)),
    }

    def evaluate() -> dict[str, float]:
        logs = {}
        for prefix, (x, y) in splits.items():
            margins = losses.margins(classifier(x), y)
            worst = losses.worst_case_margins(margins, kernel, settings.eps, settings.norm)
            logs[prefix + "loss"] = float(losses.hinge(worst))
            logs[prefix + "accuracy"] = float(np.mean(margins > 0))
            if settings.robust:
                logs[prefix + "hinge"] = float(losses.hinge(margins))
                logs[prefix + "robust_accuracy"] = float(np.mean(worst > 0))
        return logs

    return evaluate


def _column(name: str) -> str:
    """Keras's "loss" and "val_loss" are history.csv's train_loss and test_loss."""
    return "test_" + name.removeprefix("val_") if name.startswith("val_") else "train_" + name


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="train.py",
        description="Train a linear classifier of two digits with the hinge or robust hinge.",
    )

    def recipe_default(name: str) -> str:
        texts = []
        for recipe, defaults in runs.RECIPES.items():
            text = str(defaults[name])
            if name == "learning_rate":
                text = " / ".join(str(rate) for rate in dict.fromkeys(defaults[name].values()))
            if name == "epochs":
                text += f", on the small digits {runs.DIGITS_EPOCHS[recipe]}"
            texts.append(f"{recipe}: {text}")
        return f"(default: {'; '.join(texts)})"

    add = parser.add_argument
    add("--robust", action="store_true", help="train with the robust hinge (default: the hinge)")
    add(
        "--eps",
        type=cli.radius,
        nargs="+",
        metavar="EPS",
        help="radii of the perturbation ball, in pixel units of [0, 1]; one model each "
        "(default: 0.2; needs --robust)",
    )
    add("--norm", choices=runs.NORMS, default="inf", help="of the ball (default: inf)")
    add(
        "--recipe",
        choices=runs.RECIPES,
        default="article",
        help="defaults of the options below: the article's, or close to the minimum of the loss "
        "(default: article)",
    )
    settings = [
        ("epochs", cli.positive_int, "passes over the training set"),
        ("batch_size", cli.positive_int, "images per step; the last batch may be smaller"),
        ("learning_rate", cli.positive, "of SGD on the mean loss, regular / robust"),
        ("momentum", cli.fraction, "of SGD, from 0 to below 1"),
        ("seed", cli.seed, "of the initial weights and the order of the batches"),
    ]
    for name, kind, text in settings:
        flag = "--" + name.replace("_", "-")
        add(flag, type=kind, metavar="N", help=f"{text} {recipe_default(name)}")
    add(
        "--schedule",
        choices=runs.SCHEDULES,
        help=f"learning rate: constant, or linearly to 0 {recipe_default('schedule')}",
    )
    add("--init", choices=runs.INITS, help=f"initial weights {recipe_default('init')}")
    add(
        "--dataset",
        choices=("auto", "mnist", "digits"),
        default="auto",
        help="auto: MNIST where it can be had, else scikit-learn's 8x8 digits (default: auto)",
    )
    add(
        "--digits",
        type=cli.digit,
        nargs=2,
        metavar=("A", "B"),
        default=(0, 1),
        help="the two classes; the lower digit is -1 (default: 0 1)",
    )
    parser.add_mnist_dir()
    parser.add_results()
    add("--eager", action="store_true", help="do not compile the step: slower, for debugging")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
