"""Time what this repository does beside the other ways to do it, in one run on one machine.

    python benchmark.py                        all parts, in about six minutes
    python benchmark.py --parts epoch attack   some of them

In each part the contenders take turns, so that whatever else the machine does hits all alike. The
medians go to results/<dataset>/benchmark/<part>.csv. A ratio is a time over that of ours, an
exponent the slope of log time over log size.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

import cli
import cluster
import data
import exact
import files
import masking
import optimum
import runs
import train
from cli import RESULTS, ROOT

EPS = 0.2  # the article's main radius
RADII = np.arange(101) * 0.005
PARTS = ("epoch", "attack", "optimum", "start", "growth", "workers")


def main(
    parts: list[str] | None = None,
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
) -> None:
    """Time the parts named, or all; print their tables and store them.

    Raises:
        InputError: the data set cannot be had, or the numbers cannot be written.
    """
    files.check_writable(results)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # model.fit makes TensorFlow talk of itself
    split = data.load(dataset, tuple(digits), mnist_dir)
    measure = dict(
        zip(PARTS, (epoch, attack, exact_minimum, start_up, growth, workers), strict=True)
    )
    for part in parts or PARTS:
        columns = measure[part](split)
        with files.whole_file(results / split.name / "benchmark" / f"{part}.csv") as path:
            files.write_csv(path, columns)
        print(f"{part} ({split.name})\n{_text(columns)}\n", flush=True)


def race(contenders: dict, turns: int, slow: tuple[str, ...] = ()) -> dict[str, list[float]]:
    """Seconds of each contender (a function of nothing), in turns; the slow ones run once."""
    seconds = {name: [] for name in contenders}
    for turn in range(turns):
        for name, contender in contenders.items():
            if turn == 0 or name not in slow:
                started = time.perf_counter()
                contender()
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table(seconds: dict[str, list[float]], ours: str) -> dict:
    """Columns: what was timed, how often, the median in seconds, its ratio to that of `ours`."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "what": list(median),
        "runs": [len(values) for values in seconds.values()],
        "seconds": list(median.values()),
        "ratio": [value / median[ours] for value in median.values()],
    }


# --- an epoch of training --------------------------------------------------------------------


def epoch(split: data.Dataset) -> dict:
    """An epoch of robust training by the article's recipe: in train.py, in Keras, in NumPy.

    All take the same steps. Raises AssertionError: they do not come to the same weights.
    """
    settings = runs.article(split.name, EPS)
    order = np.random.default_rng(0).permutation(len(split.y_train))
    ways = {
        "compiled (train.py)": ours(split, settings, order),
        "eager (train.py --eager)": ours(split, dataclasses.replace(settings, eager=True), order),
        "Keras model.fit": keras_fit(split, settings, order),
        "NumPy": numpy_loop(split, settings, order),
        "NumPy, recording as train.py": numpy_loop(split, settings, order, record=True),
    }
    found = {name: way() for name, way in ways.items()}  # the first epoch, and compilation
    for name, weights in found.items():
        # A weight that crosses zero may do so a step earlier in another rounding.
        allowed = settings.learning_rate * settings.eps + 1e-4
        apart = np.abs(weights - found["compiled (train.py)"]).max()
        assert apart <= allowed, f"{name}: weights {apart} apart"
    return table(race(ways, turns=5), "compiled (train.py)")


def ours(split: data.Dataset, settings: runs.Settings, order, strategy=None):
    """A function that trains an epoch further, and returns the weights (d,)."""
    tf = cli.import_tensorflow()
    classifier = train.make_classifier(settings, split)
    x, y, order = tf.constant(split.x_train), tf.constant(split.y_train), tf.constant(order)
    take_steps = train.make_steps(classifier, settings, x, y, strategy)
    steps = settings.steps_per_epoch(len(split.y_train))

    def way():
        take_steps(tf.cast(order, tf.int32), 0, steps)
        return classifier.get_weights()[0].ravel()

    return way


def keras_fit(split: data.Dataset, settings: runs.Settings, order):
    """The same with Keras's own loop; it is given the samples in order, for no time."""
    tf = cli.import_tensorflow()
    import losses

    classifier = train.make_classifier(settings, split)
    kernel, _ = classifier.trainable_variables
    x, y = split.x_train[order], split.y_train[order]

    def robust_hinge(y, logits):
        """As in train.py, every sample weighs the same, in a smaller last batch too."""
        loss = losses.robust_hinge(losses.margins(logits, y), kernel, settings.eps)
        return loss * tf.cast(tf.size(y), tf.float32) / settings.batch_size

    classifier.compile(classifier.optimizer, loss=robust_hinge)

    def way():
        classifier.fit(x, y, batch_size=settings.batch_size, shuffle=False, verbose=0)
        return classifier.get_weights()[0].ravel()

    return way


def numpy_loop(split: data.Dataset, settings: runs.Settings, order, record: bool = False):
    """The same in plain NumPy: what the arithmetic alone costs."""
    weights, bias = (
        np.squeeze(values) for values in train.make_classifier(settings, split).get_weights()
    )
    x, y = split.x_train.reshape(len(order), -1), split.y_train
    state = dict(w=weights.copy(), b=bias.copy())
    eps, rate = np.float32(settings.eps), np.float32(settings.learning_rate)

    def way():
        w, b = state["w"], state["b"]
        for first in range(0, len(order), settings.batch_size):
            batch = order[first : first + settings.batch_size]
            images, labels = x[batch], y[batch]
            margins = labels * (images @ w + b)
            size = np.abs(w)
            worst = margins - eps * size.sum()
            pull = np.where(worst < 1, labels, np.float32(0)) / np.float32(settings.batch_size)
            gradient = eps * np.abs(pull).sum() * np.sign(w) - pull @ images
            if record:
                _ = (
                    np.maximum(0, 1 - worst).mean(),
                    (margins > 0).mean(),
                    (worst < 1).mean(),
                    size.sum(),
                    np.linalg.norm(gradient),
                    (size > runs.PIXEL_IN_USE * size.max()).sum(),
                )
            w, b = w - rate * gradient, b + rate * pull.sum()
        state.update(w=w, b=b)
        return w

    return way


# --- the attack ------------------------------------------------------------------------------


def attack(split: data.Dataset) -> dict:
    """The accuracy of a trained model at 101 radii: exactly by one sort, and in other ways.

    PGD is timed at five of them, and its seconds are given times 101 / 5.
    """
    tf = cli.import_tensorflow()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        run = runs.load(train.train(runs.article(split.name, EPS), split, Path(folder), quiet=True))
    x, y = split.x_test.reshape(len(split.y_test), -1), split.y_test
    classifier = keras_model(run)
    climb = masking.gradient_attack(run, x, y, "margin")

    def sort():
        radii = exact.sample_radii(x.astype(np.float64), y.astype(np.float64), run.w, run.b)
        exact.robust_correct(radii, RADII)

    def passes():
        towards = y[:, None] * np.sign(run.w).astype(np.float32)
        for eps in RADII:
            moved = x - np.float32(eps) * towards
            logits = classifier(tf.constant(moved.reshape(split.x_test.shape)))
            np.count_nonzero(y * logits[:, 0] > 0)

    few = RADII[10::20]
    contenders = {
        "exact, by one sort": sort,
        "101 passes of perturbed images": passes,
        "FGSM": lambda: [climb(eps, 1) for eps in RADII],
        f"PGD, {masking.STEPS} steps": lambda: [climb(eps, masking.STEPS) for eps in few],
    }
    if importlib.util.find_spec("art"):
        estimator, chosen = library_model(run), np.stack([y < 0, y > 0], axis=1)
        for steps, radii in ((1, RADII), (masking.STEPS, few)):
            name = f"PGD, {steps} steps, library" if steps > 1 else "FGSM, library"
            contenders[name] = lambda steps=steps, radii=radii: [
                library_attack(estimator, eps, steps).generate(split.x_test, chosen)
                for eps in radii[radii > 0]
            ]
    seconds = race(contenders, turns=3)
    for name in seconds:
        if "PGD" in name:
            seconds[name] = [value * len(RADII) / len(few) for value in seconds[name]]
    return table(seconds, "exact, by one sort")


def keras_model(run: runs.Run):
    """The Keras layer with the weights of the run."""
    import model

    classifier = model.linear(tuple(run.config["image_shape"]))
    classifier.set_weights([np.float32(run.w[:, None]), np.float32([run.b])])
    return classifier


def library_model(run: runs.Run, box: bool = False):
    """Our model as the Adversarial Robustness Toolbox wants it: logits (-f, f), a loss to climb.

    The loss is minus the margin, whose gradient does not vanish where the model is sure.
    """
    import keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses PyTorch
        from art.estimators.classification import TensorFlowV2Classifier
    classifier = keras_model(run)
    images = keras.Input(classifier.input_shape[1:])
    logit = classifier(images)
    two = keras.Model(images, keras.layers.Concatenate()([-logit, logit]))

    def minus_margin(chosen, logits):
        return keras.ops.mean(keras.ops.sum((0.5 - chosen) * logits, axis=1))

    return TensorFlowV2Classifier(
        model=two,
        nb_classes=2,
        input_shape=classifier.input_shape[1:],
        loss_object=minus_margin,
        clip_values=(0.0, 1.0) if box else None,
    )


def library_attack(estimator, eps: float, steps: int):
    """FGSM (one step) or PGD of the toolbox, in the L-infinity ball."""
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent

    known = dict(norm=np.inf, eps=float(eps), batch_size=4096)
    if steps == 1:
        return FastGradientMethod(estimator, **known)
    size = 2.5 * float(eps) / steps
    return ProjectedGradientDescent(
        estimator, eps_step=size, max_iter=steps, verbose=False, **known
    )


# --- the exact minimum -----------------------------------------------------------------------


def exact_minimum(split: data.Dataset) -> dict:
    """The linear program by rows and columns, and given whole to the same solver."""
    x, y = optimum.flat(split.x_train, split.y_train)
    values = {}

    def ours():
        values["ours"] = optimum.minimise(x, y, EPS)[2].sum()

    def whole():
        program = optimum.Program(y[:, None] * x, y, EPS)
        program.add_samples(np.arange(len(y)))
        program.add_pixels(np.flatnonzero(x.any(axis=0)))
        values["whole"] = program.solve()[2].sum()

    contenders = {"ours": ours, "the whole program": whole}
    seconds = race(contenders, turns=3, slow=("the whole program",))
    assert abs(values["ours"] - values["whole"]) <= 1e-8, values
    return table(seconds, "ours")


# --- start-up --------------------------------------------------------------------------------


def start_up(split: data.Dataset) -> dict:
    """Commands as a user gives them, beside a bare import of TensorFlow."""
    with tempfile.TemporaryDirectory() as folder:
        place = ["--results", folder, "--dataset", split.source, "--digits"]
        place += [str(digit) for digit in split.digits]
        results = place[:2]

        def command(*arguments, status=0):
            done = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False
            )
            assert done.returncode == status, done.stderr

        def article():
            command("train.py", "--quiet", *place)
            command("train.py", "--quiet", "--robust", "--eps", "0.1", "0.2", "0.3", *place)
            command("attack.py", *results)

        article()
        contenders = {
            "import tensorflow": lambda: command("-c", "import tensorflow"),
            "train.py --help": lambda: command("train.py", "--help"),
            "attack.py --help": lambda: command("attack.py", "--help"),
            "train.py, option refused": lambda: command("train.py", "--eps", "0.2", status=2),
            "plots.py, one figure": lambda: command("plots.py", "accuracy_noise", *results),
            "attack.py, one run": lambda: command(
                "attack.py", "--runs", "regular", "--norm", "2", *results
            ),
            "train.py, one model": lambda: command("train.py", "--quiet", *place),
            "the article: four models, attacks, figures": article,
        }
        return table(race(contenders, turns=3), "import tensorflow")


# --- growth ----------------------------------------------------------------------------------


def growth(split: data.Dataset) -> dict:
    """How time grows with the samples (repeated, with jitter) and the pixels (each made four)."""
    columns = {name: [] for name in ("what", "with", "samples", "pixels", "seconds", "exponent")}
    variants = {
        "samples": [enlarged(split, times, 1) for times in (1, 2, 4)],
        "pixels": [split, enlarged(split, 1, 2)],
    }
    for what, make in (
        ("epoch of training", grown_epoch),
        ("exact attack", grown_attack),
        ("exact minimum", grown_minimum),
    ):
        for variable, sizes in variants.items():
            contenders = {k: make(bigger) for k, bigger in enumerate(sizes)}
            for contender in contenders.values():
                contender()  # compiles
            found = race(contenders, turns=5)
            seconds = [statistics.median(found[k]) for k in contenders]
            shapes = [(len(one.y_train), one.x_train[0].size) for one in sizes]
            measure = [shape[variable == "pixels"] for shape in shapes]
            exponent = np.polyfit(np.log(measure), np.log(seconds), 1)[0]
            for (samples, pixels), value in zip(shapes, seconds, strict=True):
                row = (what, variable, samples, pixels, value, exponent)
                for column, entry in zip(columns.values(), row, strict=True):
                    column.append(entry)
    return columns


def enlarged(split: data.Dataset, times: int, side: int) -> data.Dataset:
    """The samples several times with jitter of 0.02, each pixel as side x side pixels."""
    random = np.random.default_rng(0)
    parts = {}
    for name in ("train", "test"):
        x = getattr(split, f"x_{name}").repeat(side, axis=1).repeat(side, axis=2)
        more = [x + random.normal(0, 0.02, x.shape).astype(np.float32) for _ in range(times - 1)]
        parts[f"x_{name}"] = np.clip(np.concatenate([x, *more]), 0, 1)
        parts[f"y_{name}"] = np.tile(getattr(split, f"y_{name}"), times)
    return dataclasses.replace(split, **parts)


def grown_epoch(split: data.Dataset):
    order = np.random.default_rng(0).permutation(len(split.y_train))
    return ours(split, runs.article(split.name, EPS), order)


def grown_attack(split: data.Dataset):
    x, y = optimum.flat(split.x_train, split.y_train)
    w = y @ x / len(y)
    return lambda: exact.robust_correct(exact.sample_radii(x, y, w, 0.0), RADII)


def grown_minimum(split: data.Dataset):
    x, y = optimum.flat(split.x_train, split.y_train)
    return lambda: optimum.minimise(x, y, EPS)


# --- several workers -------------------------------------------------------------------------


def workers(split: data.Dataset) -> dict:
    """A training step by one process and by two on this machine, for three sizes of the batch.

    The two take turns, three each; medians.
    """
    columns = {name: [] for name in ("batch", "one", "two", "ratio")}
    for batch in (100, 1000, len(split.y_train)):
        batch = min(batch, len(split.y_train))
        turns = [[step_by(count, split, batch) for count in (1, 2)] for _ in range(3)]
        one, two = map(statistics.median, zip(*turns, strict=True))
        for column, value in zip(columns.values(), (batch, one, two, two / one), strict=True):
            column.append(value)
    return columns


def step_by(count: int, split: data.Dataset, batch: int) -> float:
    """The seconds of a step by so many processes that share each batch."""
    code = f"import benchmark; benchmark.time_step({split.source!r}, {split.digits}, {batch})"
    hosts, started = free_hosts(count), []
    for index in range(count):
        task = dict(cluster=dict(worker=hosts), task=dict(type="worker", index=index))
        environment = os.environ | {"TF_CONFIG": json.dumps(task) if count > 1 else ""}
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        started.append(
            subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, **options)
        )
    return max(float(process.communicate()[0].split()[-1]) for process in started)


def free_hosts(count: int) -> list[str]:
    """Addresses on this machine that no other process listens on now."""
    with contextlib.ExitStack() as stack:
        listening = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in listening]


def time_step(source: str, digits: tuple[int, int], batch: int) -> None:
    """In a process of its own: print the seconds of a step, the median of seven epochs."""
    strategy = cluster.join()
    split = data.load(source, digits)
    settings = dataclasses.replace(runs.article(split.name, EPS), batch_size=batch)
    way = ours(split, settings, np.arange(len(split.y_train)), strategy)
    way()  # compiles
    seconds = race({"": way}, turns=7)[""]
    print(statistics.median(seconds) / settings.steps_per_epoch(len(split.y_train)))


def _text(columns: dict) -> str:
    """The columns, aligned; three significant digits."""
    rows = [list(columns)]
    for row in zip(*columns.values(), strict=True):
        rows.append([f"{v:.3g}" if isinstance(v, float) else str(v) for v in row])
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    return "\n".join(
        "  ".join(f"{v:{w}}" for v, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="benchmark.py", description="Time training, attack, optimum and start-up."
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="which to time (default: all)")
    parser.add_data()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
