"""Train a linear classifier of two digits with a loss or its robust twin.

    python train.py                            the regular model
    python train.py --robust --eps 0.2         the robust one
    python train.py --robust --eps 0.1 0.2 0.3 --recipe converged

A loop of Python over epochs, around a compiled loop over batches, around one gradient step, with
every variable and gradient in reach. Each run is written to results/<dataset>/<run>/ (see runs.py).
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import cli
import cluster
import data
import files
import runs
from cli import RESULTS, InputError

# What a step reports of its batch, before the update: the accuracy, the share of samples inside
# the hinge's knee at 1 in the worst case, the L2 norm of the step's gradient by w, the trained
# loss, the number of pixels in use, and ||w||_1.
RECORD = ("accuracy", "active", "gradient", "loss", "pixels", "w_l1")


def main(
    robust: bool = False,
    eps: list[float] | None = None,
    norm: str = "inf",
    box: bool = False,
    recipe: str = "article",
    loss: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    momentum: float | None = None,
    schedule: str | None = None,
    init: str | None = None,
    seeds: list[int] | None = None,
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
    eager: bool = False,
    quiet: bool = False,
    callbacks: Sequence = (),
) -> list[Path]:
    """Train one model per radius and seed (without `robust`, per seed); None: as the recipe says.

    `callbacks` are Keras callbacks of your own. They see each step and epoch as it happens, and may
    stop the training; as they are no part of the run's name, give such runs a `results` of their
    own.

    Returns:
        The folders of the runs.

    Raises:
        InputError: the settings contradict each other or the data, or cannot be written.
    """
    task = cluster.task()
    if not robust and (eps is not None or norm != "inf" or box):
        raise InputError("--eps, --norm and --box need --robust: the hinge has no perturbation")
    if box and norm != "inf":
        raise InputError(f"--box is implemented for --norm inf, not for {norm}: leave one out")
    if task is None or task["chief"]:
        files.check_writable(results)
    strategy = cluster.join()
    split = data.load(dataset, tuple(digits), mnist_dir)
    given = dict(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        schedule=schedule,
        loss=loss,
        init=init,
        eager=eager or None,
    )
    given = {name: value for name, value in given.items() if value is not None}
    chosen = runs.recipe_defaults(recipe, robust, split.source) | given
    if chosen["batch_size"] > len(split.y_train):
        raise InputError(
            f"--batch-size {chosen['batch_size']} is larger than the training set of "
            f"{split.name}: choose at most {len(split.y_train)}"
        )
    last_batch = len(split.y_train) % chosen["batch_size"] or chosen["batch_size"]
    if strategy and last_batch < strategy.num_replicas_in_sync:
        raise InputError(
            f"--batch-size {chosen['batch_size']} leaves {last_batch} images in the last batch, "
            f"too few for {strategy.num_replicas_in_sync} workers: choose another"
        )
    radii = dict.fromkeys(map(float, [0.2] if eps is None else eps)) if robust else [0.0]
    wanted = [
        runs.Settings(split.name, recipe, robust, radius, norm, box, **chosen | {"seed": seed})
        for radius, seed in itertools.product(radii, dict.fromkeys(seeds or [chosen["seed"]]))
    ]
    with cluster.losses_told(strategy):
        if strategy:
            cluster.agree(strategy, f"{wanted} {split.checksum}")
        return [train(settings, split, results, quiet, callbacks, strategy) for settings in wanted]


def train(
    settings: runs.Settings,
    split: data.Dataset,
    results: Path,
    quiet: bool = False,
    callbacks: Sequence = (),
    strategy=None,
) -> Path:
    """Train and save one model, from its seed alone; print the result in one line.

    `strategy` is that of `cluster.join`; with it, all workers train and the chief saves.
    """
    tf = cli.import_tensorflow()
    import keras

    from callbacks import ProgressBar

    keras.utils.set_random_seed(settings.seed)
    n = len(split.y_train)
    steps_per_epoch = settings.steps_per_epoch(n)
    classifier = make_classifier(settings, split)
    train_set, test_set = (
        (tf.constant(x), tf.constant(y))
        for x, y in ((split.x_train, split.y_train), (split.x_test, split.y_test))
    )
    take_steps = make_steps(classifier, settings, *train_set, strategy)
    evaluate = make_evaluation(classifier, settings, train_set, test_set)
    history = keras.callbacks.History()
    chief = strategy is None or cluster.task()["chief"]
    progress = [] if quiet or not chief else [ProgressBar(settings.name)]
    watchers = keras.callbacks.CallbackList(
        [history, *progress, *callbacks],
        model=classifier,
        epochs=settings.epochs,
        steps=steps_per_epoch,
    )
    # An epoch in one call; one step in each where callbacks want to see the weights at each.
    steps_per_call = 1 if callbacks else steps_per_epoch

    records = []
    shuffle = np.random.default_rng(settings.seed)
    watchers.on_train_begin()
    for epoch in range(settings.epochs):
        watchers.on_epoch_begin(epoch)
        order = tf.constant(shuffle.permutation(n), tf.int32)
        for first in range(0, steps_per_epoch, steps_per_call):
            watchers.on_train_batch_begin(first)
            last = first + steps_per_call
            records.append(take_steps(order, first, last).numpy())
            watchers.on_train_batch_end(
                last - 1, dict(zip(RECORD, records[-1][-1].tolist(), strict=True))
            )
            if cli.INTERRUPTED.is_set():
                raise KeyboardInterrupt
        logs, weights = evaluate(), classifier.get_weights()
        watchers.on_epoch_end(epoch, logs)
        if classifier.stop_training:
            break
    watchers.on_train_end(logs)

    w, b = weights
    if not (np.isfinite(w).all() and np.isfinite(list(logs.values())).all()):
        raise InputError(f"{settings.name} diverged, nothing is written: lower --learning-rate")
    if not all(map(np.array_equal, weights, classifier.get_weights())):
        raise InputError(
            f"{settings.name}: a callback changed the weights after the last epoch, so they are "
            "not those of the history: nothing is written (restore_best_weights? leave it out)"
        )
    if not chief:
        return settings.folder(results)
    columns = {_column(name): history.history[name] for name in logs}
    versions = dict(tensorflow=tf.__version__, keras=keras.__version__)
    facts = runs.facts(split, versions)
    if strategy:
        facts["workers"] = strategy.num_replicas_in_sync
    steps = dict(zip(RECORD, np.concatenate(records).T.copy(), strict=True))
    folder = runs.save(results, settings, facts, w.ravel(), b[0], columns, steps=steps)
    report = [f"{settings.name}: test accuracy {columns['test_accuracy'][-1]:.4f}"]
    if settings.robust:
        robust_accuracy = columns["test_robust_accuracy"][-1]
        ball = runs.NORMS[settings.norm] + " box" * settings.box
        report.append(f"robust accuracy {robust_accuracy:.4f} at {ball} radius {settings.eps}")
        if minimum := _certified_minimum(results, settings, split):
            excess = columns["train_loss"][-1] / minimum - 1
            report.append(f"{100 * excess:.2f} % above the certified minimum {minimum:.7f}")
    print(", ".join([*report, f"written to {folder}"]), flush=True)
    return folder


def _certified_minimum(results: Path, settings: runs.Settings, split: data.Dataset) -> float | None:
    """The least possible training loss, where optimum.py has stored it for this very problem."""
    if (settings.norm, settings.box, settings.loss) != ("inf", False, "hinge"):
        return None
    folder = runs.optimal(settings.dataset, settings.eps).folder(results)
    if not folder.is_dir():
        return None
    config = runs.load(folder).config
    return config["certificate"]["dual"] if config["data_sha256"] == split.checksum else None


def make_classifier(settings: runs.Settings, split: data.Dataset):
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


def make_steps(classifier, settings: runs.Settings, x, y, strategy=None):
    """Gradient steps on batches of x (n, height, width, 1) and y (n,), many in one call.

    With a strategy, of several workers, each takes its share of every batch.

    Returns:
        A function of (order, first, last): it takes the steps from `first` to before `last` of an
        epoch that goes through the samples in this order (n,), and returns what each reports of its
        batch before the update, as RECORD names it: (last - first, 6), float32.
    """
    import tensorflow as tf

    import losses

    kernel, _ = classifier.trainable_variables
    loss_of, worst_case = _loss(kernel, settings)

    def gradients_and_means(batch):
        """Of the loss over the samples of these indices, of which this worker takes its share."""
        share = batch
        if strategy:
            worker = tf.distribute.get_replica_context()
            share = batch[worker.replica_id_in_sync_group :: strategy.num_replicas_in_sync]
        images, labels = tf.gather(x, share), tf.gather(y, share)
        with tf.GradientTape() as tape:
            margins = losses.margins(classifier(images, training=True), labels)
            worst = worst_case(margins, images, labels)
            loss = loss_of(worst)  # the robust loss; with eps = 0, the regular one
            # Every sample weighs the same: a smaller last batch takes a smaller step, as in
            # the article, which sums. Else it ends each epoch with a jolt of size eps to ||w||_1.
            weighted = loss * tf.cast(tf.size(labels), tf.float32) / settings.batch_size
        gradients = tape.gradient(weighted, classifier.trainable_variables)
        means = tf.stack([mean(margins > 0), mean(worst < 1), loss])
        if not strategy:
            return *gradients, means
        # From the means over each worker's share to those over the batch; all in one message.
        means *= tf.cast(tf.size(share) / tf.size(batch), tf.float32)
        return worker.all_reduce("SUM", [*gradients, means])

    def step(batch):
        if strategy:  # every replica has the same sums
            sums = strategy.run(gradients_and_means, (batch,))
            sums = [strategy.experimental_local_results(value)[0] for value in sums]
        else:
            sums = gradients_and_means(batch)
        *gradients, means = sums
        size = tf.abs(kernel)
        in_use = size > runs.PIXEL_IN_USE * tf.reduce_max(size)
        record = dict(
            zip(("accuracy", "active", "loss"), tf.unstack(means), strict=True),
            gradient=tf.norm(gradients[0]),
            pixels=tf.reduce_sum(tf.cast(in_use, tf.float32)),
            w_l1=tf.reduce_sum(size),
        )
        classifier.optimizer.apply(gradients, classifier.trainable_variables)
        return tf.stack([record[name] for name in RECORD])

    def mean(condition):
        return tf.reduce_mean(tf.cast(condition, tf.float32))

    def take_steps(order, first, last):
        records = tf.TensorArray(tf.float32, last - first, element_shape=[len(RECORD)])
        for i in tf.range(first, last):
            batch = order[i * settings.batch_size : (i + 1) * settings.batch_size]
            records = records.write(i - first, step(batch))
        return records.stack()

    if settings.eager:
        return take_steps
    signature = [tf.TensorSpec([None], tf.int32), *2 * [tf.TensorSpec([], tf.int32)]]
    return tf.function(take_steps, input_signature=signature)


def _loss(kernel, settings: runs.Settings):
    """The loss as a function of margins, and the worst-case margins of (margins, x, y)."""
    import losses

    def worst_case(margins, x, y):
        if settings.box:
            return losses.worst_case_margins_in_box(margins, x, y, kernel, settings.eps)
        return losses.worst_case_margins(margins, kernel, settings.eps, settings.norm)

    return getattr(losses, settings.loss), worst_case


def make_evaluation(classifier, settings: runs.Settings, train_set, test_set):
    """A function of nothing that gives the losses and accuracies on all of train and test.

    Each set is (x, y). The keys are Keras's: "loss" (the trained one) and "accuracy", "val_" before
    the test set's. A robust run adds the plain loss, "hinge" or "logistic", and "robust_accuracy"
    at its radius.
    """
    import losses

    kernel, _ = classifier.trainable_variables
    loss_of, worst_case = _loss(kernel, settings)

    def evaluate() -> dict[str, float]:
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

    return evaluate


def _column(name: str) -> str:
    """Keras's "loss" and "val_loss" are history.csv's train_loss and test_loss."""
    return "test_" + name.removeprefix("val_") if name.startswith("val_") else "train_" + name


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="train.py",
        description="Train a linear classifier of two digits with a loss or its robust twin.",
    )

    def recipe_default(name: str) -> str:
        """Per recipe; regular / robust where they differ."""
        texts = []
        for recipe, defaults in runs.RECIPES.items():
            text = str(defaults[name])
            if isinstance(defaults[name], dict):
                text = " / ".join(map(str, defaults[name].values()))
            texts.append(f"{recipe}: {text}")
        return f"(default: {'; '.join(texts)})"

    add = parser.add_argument
    add("--robust", action="store_true", help="train with the robust loss (default: the plain one)")
    add(
        "--eps",
        type=cli.radius,
        nargs="+",
        metavar="EPS",
        help="radii of the perturbation ball, in pixel units of [0, 1]; one model each "
        "(default: 0.2; needs --robust)",
    )
    add("--norm", choices=runs.NORMS, default="inf", help="of the ball (default: inf)")
    add("--box", action="store_true", help="perturbed pixels stay in [0, 1] (norm inf only)")
    add(
        "--recipe",
        choices=runs.RECIPES,
        default="article",
        help="defaults of the options below: the article's; converged: close to the minimum of "
        "the loss; kolter-madry: their tutorial's (default: article)",
    )
    settings = [
        ("epochs", cli.positive_int, "passes over the training set, more on the small digits"),
        ("batch_size", cli.positive_int, "images per step; the last batch may be smaller"),
        ("learning_rate", cli.positive, "of SGD on the mean loss"),
        ("momentum", cli.fraction, "of SGD, from 0 to below 1"),
    ]
    for name, kind, text in settings:
        flag = "--" + name.replace("_", "-")
        add(flag, type=kind, metavar="N", help=f"{text} {recipe_default(name)}")
    add(
        "--seed",
        "--seeds",
        dest="seeds",
        type=cli.seed,
        nargs="+",
        metavar="N",
        help="of the initial weights and the order of the batches; one model each (default: 0)",
    )
    add(
        "--schedule",
        choices=runs.SCHEDULES,
        help=f"learning rate: constant, or linearly to 0 {recipe_default('schedule')}",
    )
    add("--loss", choices=runs.LOSSES, help=f"of the margin {recipe_default('loss')}")
    add("--init", choices=runs.INITS, help=f"initial weights {recipe_default('init')}")
    parser.add_data()
    parser.add_results()
    add("--eager", action="store_true", help="do not compile the step: slower, for debugging")
    add("--quiet", action="store_true", help="no progress bar")
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
