"""Time what this repository does beside the other ways to do it, in one run on one machine.

    python benchmark.py                        all parts, in an hour or more
    python benchmark.py --parts epoch attack   some of them: but for classes-minimum and mean, some
                                               minutes

In each part the contenders take turns, so that whatever else the machine does hits all alike. The
medians go to results/<dataset>/studies/benchmark-<part>.npz. A ratio is a time over that of ours.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from lab import cli, library, rivals, text
from lab.cli import RESULTS

import numpy as np
from numpy.lib.format import open_memmap

import advlinear
import data
import recipes
import runs
import train
import worst_case

EPS = 0.2  # the article's main radius
RADII = 101  # from 0 to 0.5
PARTS = ("epoch", "attack", "minimum", "threads", "classes", "classes-minimum", "data", "mean")
LIMIT = 20.0  # seconds that a rival is given for a minimum of two classes
MEAN_LIMIT = 120.0  # for one with a budget for all samples together
LONG_LIMIT = 600.0  # and for one of several classes
MEDIUM_LIMIT = 60.0  # and for one of sparse samples
FEW_RUNS, SHORT = 15, 3.0  # turns of a task: at most so many, and until so many seconds are over
LARGEST = 2e7  # numbers in the samples that rivals are given, of each option for several classes


def main(
    parts: list[str] | None = None,
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
) -> None:
    """Time the parts named, or all; print their tables and store them.

    Raises:
        InputError: there is no such part, the data set cannot be had, or the numbers cannot be
            written.
    """
    parts = recipes.several(PARTS if parts is None else parts)
    results = cli.results_folder(results)
    for part in parts:
        recipes.require("parts", part, PARTS)
    cli.check_writable(results)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # model.fit makes TensorFlow print more
    split = data.load(dataset, digits, mnist_dir)
    functions = epoch, attack, minima, threads, many_classes, joint_minima
    functions += minima_of_any_data, minima_of_the_mean
    measure = dict(zip(PARTS, functions, strict=True))
    for part in parts:
        columns, name = measure[part](split), f"benchmark-{part}"
        runs.save_study(results / split.name, name, {name: columns})
        print(f"{part} ({split.name})")
        shown = (columns[name] for name in ("what", "seconds", "ratio"))
        for what, seconds, ratio in zip(*shown, strict=True):
            print(f"  {what:36} {seconds:10.3g} s   ratio {ratio:.3g}", flush=True)


def race(contenders: dict, turns: int, slow: tuple[str, ...] = ()) -> dict[str, list[float]]:
    """Seconds of each contender (a function of nothing), in turns; the slow ones run once.

    A contender that returns a float has timed itself.
    """
    seconds = {name: [] for name in contenders}
    for turn in range(turns):
        for name, contender in contenders.items():
            if turn == 0 or name not in slow:
                started = time.perf_counter()
                spent = contender()
                timed_itself = isinstance(spent, float)
                seconds[name].append(spent if timed_itself else time.perf_counter() - started)
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
    """The second epoch of robust training by the article's recipe: ours, in Keras, in NumPy.

    (The first epoch includes the compilation.) All contenders start from the same weights and take
    the same steps. Raises AssertionError: they do not come to the same weights.
    """
    settings = recipes.settings(split.name, True, EPS, epochs=2)
    shuffle = np.random.default_rng(settings.seed)  # as train.py shuffles
    orders = [shuffle.permutation(len(split.y_train)) for _ in range(2)]
    eager = dataclasses.replace(settings, eager=True)
    ours = "compiled (train.py)"
    ways = {
        ours: lambda: compiled_loop(split, settings),
        "eager (train.py --eager)": lambda: compiled_loop(split, eager),
        "Keras model.fit": lambda: keras_fit(split, settings, orders),
        "NumPy": lambda: numpy_loop(split, settings, orders),
    }
    found = {}

    def timed(name):
        spent, found[name] = ways[name]()
        return spent

    seconds = race({name: lambda name=name: timed(name) for name in ways}, turns=5)
    for name, weights in found.items():
        # A weight that crosses zero may do so a step earlier in another rounding.
        allowed = settings.learning_rate * settings.eps + 1e-4
        difference = np.abs(weights - found[ours]).max()
        assert difference <= allowed, f"{name}: weights differ by {difference}"
    return table(seconds, ours)


def compiled_loop(split: data.Dataset, settings: recipes.Settings):
    """Seconds of the second epoch of train.fit, and the weights (d,) after it."""
    cli.import_tensorflow()
    import keras

    marks = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: marks.append(time.perf_counter()),
        on_train_batch_end=lambda batch, logs: marks.append(time.perf_counter()),
    )
    classifier = train.make_classifier(settings, split)
    watchers = keras.callbacks.CallbackList([clock], model=classifier)
    steps = settings.steps_per_epoch(len(split.y_train))  # an epoch in one call
    _, (kernel, _) = train.fit(classifier, settings, split, watchers, steps)
    return marks[3] - marks[2], kernel.ravel()


def keras_fit(split: data.Dataset, settings: recipes.Settings, orders):
    """The same with Keras's own loop; it is given the samples in order, for no time."""
    tf = cli.import_tensorflow()
    import losses

    classifier = train.make_classifier(settings, split)
    kernel, _ = classifier.trainable_variables

    def robust_hinge(y, logits):
        """As in train.py, every sample weighs the same, in a smaller last batch too."""
        worst = losses.worst_case_margins(losses.margins(logits, y), None, y, kernel, settings.eps)
        loss = losses.hinge(worst)
        return loss * tf.cast(tf.size(y), tf.float32) / settings.batch_size

    classifier.compile(classifier.optimizer, loss=robust_hinge)
    for order in orders:
        x, y = split.x_train[order], split.y_train[order]
        started = time.perf_counter()
        classifier.fit(x, y, batch_size=settings.batch_size, shuffle=False, verbose=0)
        spent = time.perf_counter() - started
    return spent, classifier.get_weights()[0].ravel()


def numpy_loop(split: data.Dataset, settings: recipes.Settings, orders):
    """The same in plain NumPy: what the arithmetic alone costs."""
    w, b = (np.squeeze(values) for values in train.make_classifier(settings, split).get_weights())
    x, y = split.x_train.reshape(len(split.y_train), -1), split.y_train
    eps, rate = np.float32(settings.eps), np.float32(settings.learning_rate)
    for order in orders:
        started = time.perf_counter()
        for first in range(0, len(order), settings.batch_size):
            batch = order[first : first + settings.batch_size]
            images, labels = x[batch], y[batch]
            margins = labels * (images @ w + b)
            worst = margins - eps * np.abs(w).sum()
            pull = np.where(worst < 1, labels, np.float32(0)) / np.float32(settings.batch_size)
            gradient = eps * np.abs(pull).sum() * np.sign(w) - pull @ images
            w, b = w - rate * gradient, b + rate * pull.sum()
        spent = time.perf_counter() - started
    return spent, w


# --- the attack ------------------------------------------------------------------------------


def attack(split: data.Dataset) -> dict:
    """The accuracy of a trained model at 101 radii: exactly, and in other ways.

    The library is the Adversarial Robustness Toolbox, where it is installed. PGD is timed at five
    radii, and its seconds are given times 101 / 5.
    """
    from threadpoolctl import threadpool_limits  # imports NumPy

    settings = recipes.settings(split.name, True, EPS)
    with tempfile.TemporaryDirectory() as folder:
        run = runs.load_run(train.train(settings, split, Path(folder)))
    x, y = split.flat("test")
    classifier, radii = keras_model(run), np.arange(RADII) * 0.005
    chosen = np.stack([y < 0, y > 0], axis=1)

    few = radii[10::20]

    def exactly(box: bool, threads: int | None):
        with threadpool_limits(threads):
            found = worst_case.signed_radii(x, y, run.w, run.b, "inf", box)
            worst_case.withstand(found, radii)

    def passes():
        towards = split.y_test[:, None, None, None] * np.sign(run.w).reshape(split.x_test[0].shape)
        for eps in radii:
            logits = classifier(np.float32(split.x_test - eps * towards))
            np.count_nonzero(y * logits[:, 0] > 0)

    def by_library(steps: int, sizes, box: bool):
        estimator = library_model(run, box)
        return lambda: [
            library.attack(estimator, eps, steps).generate(split.x_test, chosen)
            for eps in sizes[sizes > 0]
        ]

    contenders = {
        "exact": lambda: exactly(False, None),
        "exact, one thread": lambda: exactly(False, 1),
        "exact, pixels in [0, 1]": lambda: exactly(True, None),
        "exact, pixels in [0, 1], one thread": lambda: exactly(True, 1),
        "101 passes of perturbed images": passes,
    }
    if library.installed():
        contenders["FGSM, library"] = by_library(1, radii, False)
        contenders["FGSM, pixels in [0, 1], library"] = by_library(1, radii, True)
        contenders["PGD, 40 steps, library"] = by_library(40, few, False)
    seconds = race(contenders, turns=3)
    for name in seconds:
        if "PGD" in name:
            seconds[name] = [value * RADII / len(few) for value in seconds[name]]
    return table(seconds, "exact")


def keras_model(run: runs.Run):
    """The Keras layer with the weights of the run."""
    import model

    classifier = model.linear(tuple(run.facts["image_shape"]))
    classifier.set_weights([np.float32(run.w[:, None]), np.float32([run.b])])
    return classifier


def library_model(run: runs.Run, box: bool = False):
    """Our model as the Adversarial Robustness Toolbox wants it: logits (-f, f), a loss to climb.

    The loss is minus the margin, whose gradient does not vanish where the model is sure.
    """
    import keras

    classifier = keras_model(run)
    images = keras.Input(classifier.input_shape[1:])
    logit = classifier(images)
    two = keras.Model(images, keras.layers.Concatenate()([-logit, logit]))

    def minus_margin(chosen, logits):
        return keras.ops.mean(keras.ops.sum((0.5 - chosen) * logits, axis=1))

    return library.estimator(two, minus_margin, box)


# --- certified minima of other problems ------------------------------------------------------


def minima(split: data.Dataset) -> dict:
    """Seconds to a certified gap of 1e-6, and those of others where cvxpy is installed.

    The gap and the violation are those of `advlinear.certificate`; the gap of a rival is that of
    its loss above our lower bound. A ratio is to our seconds on the same problem. The synthetic
    problems have the sizes of their names beside MNIST, and shrink with a smaller data set. A rival
    is stopped after LIMIT seconds, besides those of its modelling, and has no gap if nothing came.
    """
    columns = {name: [] for name in ("what", "runs", "seconds", "ratio", "gap", "violation")}
    for name, (x, y, eps, how) in _minima(split):
        started = time.perf_counter()
        found = advlinear.minimise(x, y, eps, **how)
        ours = time.perf_counter() - started
        proof = advlinear.certificate(x, y, found.w, found.b, found.alpha, eps, **how)
        assert proof["gap"] <= 1e-6, (name, proof)
        lines = [(name, ours, proof["gap"], proof["violation"])]
        others = {}
        if importlib.util.find_spec("cvxpy") and x.size <= LARGEST and "box" not in how:
            others["cvxpy, Clarabel"] = functools.partial(rivals.conic_minimum, **how)
            if not how:
                others["HiGHS"] = rivals.whole_program
        for solver, solve in others.items():
            started = time.perf_counter()
            value = solve(x, np.where(y == y.max(), 1, -1), eps, limit=LIMIT)
            seconds = time.perf_counter() - started
            gap = (value - found.dual) / max(found.primal, 1 / len(y))
            lines.append((f"{name}, {solver}", seconds, gap, np.nan))
        for what, seconds, gap, violation in lines:
            values = what, 1, seconds, seconds / ours, gap, violation
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return columns


def threads(split: data.Dataset) -> dict:
    """Seconds of each minimum and of two paths where BLAS may use one thread, and where two.

    In turns, medians. A ratio is to the seconds with one thread.
    """
    import scipy.linalg  # noqa: F401  it brings a BLAS of its own, which is then found, too
    import threadpoolctl

    blas = threadpoolctl.ThreadpoolController()
    columns = {name: [] for name in ("what", "runs", "seconds", "ratio")}
    for name, task in _on_threads(split):
        taken = {1: [], 2: []}
        while not taken[2] or (len(taken[2]) < FEW_RUNS and sum(taken[2]) < SHORT):
            for count, seconds in taken.items():
                with blas.limit(limits=count, user_api="blas"):
                    started = time.perf_counter()
                    task()
                    seconds.append(time.perf_counter() - started)
        one = statistics.median(taken[1])
        for what, seconds in ((name, taken[1]), (f"{name}, two threads", taken[2])):
            median = statistics.median(seconds)
            values = what, len(seconds), median, median / one
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return columns


def _on_threads(split: data.Dataset):
    """The name of each task, and a function of nothing that does it."""
    for name, (*problem, how) in _minima(split):
        yield name, functools.partial(advlinear.minimise, *problem, **how)
        if name == "breast cancer, inf hinge":
            yield "path, breast cancer", functools.partial(advlinear.path, *problem[:2], 0.05, 0.5)
    yield f"path, {split.name}", functools.partial(advlinear.path, *split.flat("train"), 0.2, 0.5)


def _minima(split: data.Dataset):
    """The name, and (x, y, eps, options) of each problem."""
    from sklearn.datasets import load_breast_cancer

    random, share = np.random.default_rng(0), min(1, len(split.y_train) / 10_000)

    def noisy(n, d):
        x, truth = random.normal(size=(int(n * share), d)), random.normal(size=d)
        return x, np.sign(x @ truth) * np.where(random.random(len(x)) < 0.2, -1, 1)

    def one_hot(n, sizes):
        parts = [np.eye(k)[random.integers(0, k, int(n * share))] for k in sizes]
        x = np.concatenate(parts, axis=1)
        return x, np.where(random.random(len(x)) < 0.24 + 0.1 * x[:, 0], 1.0, -1.0)

    def forest(n):  # ten measures, and 44 that are rarely 1, as in the data set of covertypes
        x = random.normal(size=(int(n * share), 54))
        x[:, 10:] = random.random((len(x), 44)) < 0.03
        score = x @ random.normal(size=54) + 1.5 * random.normal(size=len(x))
        return (x - x.mean(axis=0)) / x.std(axis=0), np.sign(score)

    def pair(*digits):
        return data.load(split.source, digits).flat("train")

    yield "noisy 20,000 x 200", (*noisy(20_000, 200), 0.02, {})
    yield "noisy 5,000 x 784", (*noisy(5_000, 784), 0.02, {})
    yield "one-hot 30,000 x 124", (*one_hot(30_000, (9, 16, 7, 15, 6, 5, 2, 42, 22)), 0.2, {})
    yield "100,000 x 54 standardised", (*forest(100_000), 0.02, {})
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    for norm, eps in (("inf", 0.1), ("2", 0.3), ("1", 0.5)):
        for loss in ("hinge", "logistic"):
            yield f"breast cancer, {norm} {loss}", (x, y, eps, _how(norm, loss))
    for digits in ((3, 5), (4, 9)):
        for eps in (0.05, 0.1):
            yield f"{digits[0]} against {digits[1]}, {eps}", (*pair(*digits), eps, {})
    for norm, eps in (("inf", 0.2), ("2", 1.5), ("1", 20)):
        for loss in ("hinge", "logistic"):
            yield f"{split.name}, {norm} {loss}", (*split.flat("train"), eps, _how(norm, loss))
    yield f"{split.name}, inf hinge, box", (*split.flat("train"), 0.2, dict(box=(0, 1)))
    pairs = [pair(k, k + 1) for k in range(0, 10, 2)]
    x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    yield "even against odd, 0.05", (x, y, 0.05, {})


def _how(norm: str, loss: str) -> dict:
    """The options of `minimise` that are not its defaults."""
    default = dict(norm="inf", loss="hinge")
    return {key: one for key, one in dict(norm=norm, loss=loss).items() if one != default[key]}


# --- certified minima of several classes -----------------------------------------------------


def joint_minima(split: data.Dataset) -> dict:
    """CPU seconds to a certified gap of 1e-6 with all classes at once, and those of others.

    One thread, as other work on the machine changes CPU seconds least; `wall` has the seconds that
    passed. Ours is solved in a process of its own, whose largest memory, with Python's and that of
    X, is `megabytes`. `features` and `weights` are in use, that is different between the classes,
    and not 0. What a gap, a violation and a ratio are is said in `minima`.
    """
    names = "what runs seconds ratio wall n d classes minimum gap violation features weights"
    columns = {name: [] for name in (*names.split(), "megabytes")}
    conic = importlib.util.find_spec("cvxpy") is not None
    if conic:
        import cvxpy  # noqa: F401  so that its import is in nobody's seconds
    for name, (x, y, eps, how) in _joint(split):
        found, taken, wall, megabytes = solved_apart(x, y, eps, how)
        proof = advlinear.certificate(
            x, y, found.W, found.b, found.alpha, eps, flow=found.flow, **how
        )
        assert proof["gap"] <= 1e-6, (name, proof)
        sizes = *x.shape, len(found.classes)
        used = np.count_nonzero(np.ptp(found.W, axis=0)), np.count_nonzero(found.W)
        bounds = proof["primal"], proof["gap"], proof["violation"]
        lines = [(name, 1, taken, 1.0, wall, *sizes, *bounds, *used, megabytes)]
        others = {}
        if x.size * (len(found.classes) - 1) <= LARGEST:
            if conic:
                others["cvxpy, Clarabel"] = functools.partial(rivals.joint_conic_minimum, **how)
            if not how:
                for method, told in (("highs-ds", "simplex"), ("highs-ipm", "interior point")):
                    program = functools.partial(rivals.joint_whole_program, method=method)
                    others[f"HiGHS, {told}"] = program
        for solver, solve in others.items():
            started = time.process_time(), time.perf_counter()
            value = solve(x, np.searchsorted(found.classes, y), eps, limit=LONG_LIMIT)
            seconds = time.process_time() - started[0]
            wall = time.perf_counter() - started[1]
            gap = (value - found.dual) / max(found.primal, 1 / len(y))
            times = seconds, seconds / taken, wall
            lines.append((f"{name}, {solver}", 1, *times, *sizes, value, gap, *[np.nan] * 4))
        for line in lines:
            for column, value in zip(columns.values(), line, strict=True):
                column.append(value)
    return columns


def _joint(split: data.Dataset):
    """The name, and (x, y, eps, options) of each problem; those of few samples first."""
    from sklearn.datasets import load_digits, load_iris
    from sklearn.preprocessing import minmax_scale

    x, y = load_iris(return_X_y=True)
    yield "iris, inf hinge, 0.05", (minmax_scale(x), y, 0.05, {})
    x, y = load_digits(return_X_y=True)
    for norm, loss, eps in (
        *(("inf", "hinge", 0.05), ("inf", "logistic", 0.05)),
        *(("2", "hinge", 0.05), ("2", "hinge", 0.5), ("2", "logistic", 0.5)),
        *(("1", "hinge", 0.05), ("1", "hinge", 1.5), ("1", "logistic", 1.5)),
    ):
        yield f"digits, {norm} {loss}, {eps:g}", (x / 16, y, eps, _how(norm, loss))
    x, y = data.load_ten(split.source)[:2]
    some = np.random.default_rng(0).permutation(len(y))[:10_000]
    for name, rows in (("some of", some), ("all of", slice(None))):
        for eps in (0.05, 0.1):
            yield f"{name} {split.source}, inf hinge, {eps:g}", (x[rows], y[rows], eps, {})


def solved_apart(x, y, eps: float, how: dict) -> tuple[advlinear.Minimum, float, float, float]:
    """The minimum; CPU seconds, seconds, and the most megabytes of the process that solved it.

    The samples are read from a file, so that this process holds them once. A process that is
    started from ours would count our memory, too: so a server starts it (not on Windows, where the
    memory is not measured). A memory-mapped X stays one.
    """
    from scipy import sparse

    server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, context) as process:
        file = Path(folder) / "x.npy"
        if isinstance(x, np.memmap):
            read = functools.partial(np.load, x.filename, mmap_mode="r")
        elif sparse.issparse(x):
            sparse.save_npz(file.with_suffix(".npz"), x)
            read = functools.partial(sparse.load_npz, file.with_suffix(".npz"))
        else:
            np.save(file, x)
            read = functools.partial(np.load, file)
        return process.submit(_solved, read, y, eps, how).result()


def _solved(read: Callable, y, eps: float, how: dict) -> tuple:
    for classes in (2, 3):  # so that imports are not in the seconds
        advlinear.minimise(np.eye(classes), np.arange(classes), eps, **how)
    x = read()
    started = time.process_time(), time.perf_counter()
    found = advlinear.minimise(x, y, eps, **how)
    taken = time.process_time() - started[0], time.perf_counter() - started[1]
    try:
        import resource
    except ImportError:  # on Windows
        return found, *taken, np.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found, *taken, most / (2**20 if sys.platform == "darwin" else 2**10)


# --- certified minima of any data --------------------------------------------------------------


def minima_of_any_data(split: data.Dataset) -> dict:
    """CPU seconds to a certified gap of 1e-6: sparse text, many features, more samples than memory.

    One thread. `numbers` are those that X holds, without the zeros of a sparse one, and `weights`
    are other than 0. scikit-learn's solvers minimise a penalised loss instead, four times, with
    penalties a factor of 4 apart around that of our minimum; the best of the four counts, and the
    seconds are of all. HiGHS is stopped after MEDIUM_LIMIT seconds. The columns are else those of
    `joint_minima`.
    """
    names = "what runs seconds ratio wall n d numbers minimum gap violation weights megabytes"
    columns = {name: [] for name in names.split()}

    def add(*line):
        for column, value in zip(columns.values(), line, strict=True):
            column.append(value)

    with tempfile.TemporaryDirectory() as folder:
        for name, (x, y, eps, how), others in _any_data(split, Path(folder)):
            found, taken, wall, megabytes = solved_apart(x, y, eps, how)
            proof = advlinear.certificate(x, y, found.w, found.b, found.alpha, eps, **how)
            assert proof["gap"] <= 1e-6, (name, proof)
            sizes = *x.shape, x.nnz if hasattr(x, "nnz") else x.size
            bounds = proof["primal"], proof["gap"], proof["violation"]
            add(name, 1, taken, 1.0, wall, *sizes, *bounds, np.count_nonzero(found.w), megabytes)
            for solver in others:
                started = time.process_time(), time.perf_counter()
                value = _by_another(solver, x, y, found)
                seconds = time.process_time() - started[0]
                wall = time.perf_counter() - started[1]
                gap = (value - found.dual) / max(found.primal, 1 / len(y))
                line = f"{name}, {solver}", 1, seconds, seconds / taken, wall, *sizes
                add(*line, value, gap, *[np.nan] * 3)
    return columns


def _any_data(split: data.Dataset, folder: Path):
    """The name, (x, y, eps, options) and the other solvers of each problem."""
    random, share = np.random.default_rng(0), min(1, len(split.y_train) / 10_000)

    def sized(*counts):
        return [max(int(count * share), 20) for count in counts]

    def noisy(n, d, dtype=np.float64, file=None):
        """X in blocks, as it may be larger than memory."""
        shape, truth = (n, d), random.normal(size=d)
        x = np.empty(shape, dtype) if file is None else open_memmap(file, "w+", dtype, shape)
        y = np.empty(n)
        for k in range(0, n, 100_000):
            block = random.normal(size=(min(100_000, n - k), d))
            x[k : k + 100_000] = block
            right = np.where(random.random(len(block)) < 0.2, -1, 1)
            y[k : k + 100_000] = np.sign(block @ truth) * right
        return x, y

    def informative(n, d):
        """A hundred features tell the classes, each a little; a tenth of the labels are wrong."""
        y, x = np.where(random.random(n) < 0.5, -1, 1), random.normal(size=(n, d))
        few = min(100, d)
        x[:, :few] += 0.7 * y[:, None] * random.random(few)
        return x, np.where(random.random(n) < 0.1, -y, y)

    real, name = text.newsgroups(), "newsgroups"
    x, y = text.zipf(*sized(11_293, 73_712), 160, seed=1) if real is None else real
    if real is None:
        name = "like newsgroups"
    for norm, loss, eps in (
        *(("inf", "hinge", 0.001), ("inf", "logistic", 0.001), ("inf", "hinge", 0.0003)),
        *(("2", "logistic", 0.02), ("2", "hinge", 0.02)),
    ):
        others = "liblinear", "saga" if loss == "logistic" else "HiGHS"
        if (norm, loss) == ("2", "hinge"):
            others = ("liblinear",)
        yield f"{name}, {norm} {loss}, {eps:g}", (x, y, eps, _how(norm, loss)), others
    x, y = text.zipf(*sized(11_000, 130_000), 120, seed=0)
    for loss, others in ("hinge", ("liblinear", "HiGHS")), ("logistic", ("liblinear", "saga")):
        yield f"Zipf, inf {loss}, 0.00055", (x, y, 0.00055, _how("inf", loss)), others
    x, y = informative(*sized(600, 20_000))
    for norm, loss, eps in ("2", "hinge", 6.5), ("2", "logistic", 6.5), ("inf", "hinge", 0.2):
        yield f"wide, {norm} {loss}, {eps:g}", (x, y, eps, _how(norm, loss)), ("liblinear",)
    x, y = noisy(*sized(1_000_000, 50), np.float32)
    yield "many, 2 hinge, 0.1", (x, y, 0.1, _how("2", "hinge")), ()
    x, y = noisy(*sized(10_000_000), 20, np.float32, folder / "x.npy")
    yield "on disk, 2 logistic, 0.1", (x, y, 0.1, _how("2", "logistic")), ()
    yield "the same in memory", (np.array(x), y, 0.1, _how("2", "logistic")), ()


def _by_another(solver: str, x, y, found: advlinear.Minimum) -> float:
    """The robust loss of the weights of another solver on the problem of this minimum."""
    known = found.eps, found.norm, found.loss
    if solver == "HiGHS":
        return rivals.whole_program(x, y, found.eps, limit=MEDIUM_LIMIT)
    C = 1 / (found.eps * max(len(y) * found.alpha.sum(), 1))
    if found.norm == "2":
        C *= np.linalg.norm(found.w)
    return min(rivals.penalised(x, y, *known, solver, C * 4.0**k) for k in (-1, 0, 1, 2))


# --- certified minima with a budget for all samples together ------------------------------------


def minima_of_the_mean(split: data.Dataset) -> dict:
    """CPU seconds to a minimum with budget="mean", of ours and of the other packages installed.

    Each solver works in a process of its own, on one thread of linear algebra, and first solves a
    tiny problem, so that no import and no compilation is in its seconds. They are a median. `loss`
    is by the upper bound of `advlinear.certificate`, and `gap` that loss above our lower bound;
    both are NaN of a solver that was stopped after MEAN_LIMIT seconds, or found no weights.
    """
    columns = {name: [] for name in "what runs seconds ratio wall loss gap violation".split()}
    for rival in rivals.OF_THE_MEAN:
        if not rival.installed():
            print(f"  {rival.name} is left out, as {rival.package} is not installed", flush=True)
    for name, (x, y, eps, norm, loss) in _of_the_mean(split):
        how = dict(norm=norm, loss=loss, budget="mean")
        problem = x, y, eps, norm, loss
        found, *times = within(None, _our_minimum, problem)
        proof = advlinear.certificate(x, y, found.w, found.b, found.alpha, eps, **how)
        assert proof["gap"] <= 1e-6, (name, proof)
        lines = [(name, *times, proof["primal"], proof["gap"], proof["violation"])]
        for rival in rivals.OF_THE_MEAN:
            if not (rival.installed() and rival.takes(x, norm, loss)):
                continue
            weights, *times = within(MEAN_LIMIT, rival.weights, problem)
            value = np.nan if weights is None else rivals.loss_of(x, y, *weights, eps, **how)
            gap = (value - found.dual) / max(found.primal, 1 / len(y))
            lines.append((f"{name}, {rival.name}", *times, value, gap, np.nan))
        for what, runs_taken, seconds, wall, *bounds in lines:
            line = what, runs_taken, seconds, seconds / lines[0][2], wall, *bounds
            for column, value in zip(columns.values(), line, strict=True):
                column.append(value)
    return columns


def _of_the_mean(split: data.Dataset):
    """The name, and (x, y, eps, norm, loss) of each problem."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    small = (x - x.mean(axis=0)) / x.std(axis=0), np.where(y > 0, 1.0, -1.0)
    large = [np.float64(values) for values in split.flat("train")]
    for name, (x, y), radii in (
        ("breast cancer", small, {"inf": 0.03, "2": 0.1}),
        (split.name, large, {"inf": 0.01, "2": 0.1}),
    ):
        for norm, eps in radii.items():
            for loss in ("hinge", "logistic"):
                yield f"{name}, {norm} {loss}, {eps:g}", (x, y, eps, norm, loss)


def _our_minimum(x, y, eps: float, norm: str, loss: str) -> advlinear.Minimum:
    return advlinear.minimise(x, y, eps, norm, loss, budget="mean")


def within(limit: float | None, solve: Callable, problem: tuple) -> tuple:
    """solve(*problem) in a process of its own, which is ended after so many seconds.

    Returns what it returned, how often it was called, and the medians of its CPU seconds and of the
    seconds that passed; or None, 0, limit and limit, if it was ended. Raises EOFError: it failed,
    and has said how.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_repeated, args=(there, solve, problem))
    process.start()
    there.close()  # so that the end of the process is seen here
    try:
        here.recv()  # it has its samples, and has warmed up
        return here.recv() if here.poll(limit) else (None, 0, limit, limit)
    finally:
        process.kill()
        process.join()


def _repeated(pipe, solve: Callable, problem: tuple) -> None:
    """Say when it is ready; then send what `within` returns."""
    from threadpoolctl import threadpool_limits

    random, (*_, norm, loss) = np.random.default_rng(0), problem
    tiny = random.normal(size=(20, 3)), np.where(np.arange(20) < 10, 1.0, -1.0)
    cpu, wall = [], []
    with threadpool_limits(1):
        solve(*tiny, 0.1, norm, loss)
        pipe.send("ready")
        while not wall or (len(wall) < FEW_RUNS and sum(wall) < SHORT):
            started = time.process_time(), time.perf_counter()
            found = solve(*problem)
            cpu.append(time.process_time() - started[0])
            wall.append(time.perf_counter() - started[1])
    pipe.send((found, len(wall), statistics.median(cpu), statistics.median(wall)))


# --- the attack on many classes ---------------------------------------------------------------


def many_classes(split: data.Dataset) -> dict:
    """The attack on a linear model of 1,000 classes, beside the product that its scores take.

    Random weights on 5,000 samples of 2,048 random features >= 0: the sizes of a linear model on
    the features of ImageNet. (On the sample of MNIST 30 classes, 100 samples, 64 features.) The
    distance to every rival, one pair of classes after the other, is timed on few samples, and its
    seconds are given times their share.
    """
    n, d, k, few = (5000, 2048, 1000, 10) if split.name.startswith("mnist-0") else (100, 64, 30, 10)
    random = np.random.default_rng(0)
    x = np.maximum(random.normal(size=(n, d)), 0)
    x /= x.max()
    W, b = random.normal(scale=0.03, size=(k, d)), random.normal(scale=0.01, size=k)
    own = (x @ W.T + b).argmax(axis=1)
    box, radii = (np.zeros(d), np.ones(d)), {}

    def exactly(norm: str, sides):
        radii[norm, sides is not None] = advlinear.attack((W, b), x, own, norm, sides).radii

    def each_rival():
        started, nearest = time.perf_counter(), np.full(few, np.inf)
        for i in range(few):
            gaps = (x[i] @ W[own[i]] + b[own[i]]) - (W @ x[i] + b)
            for rival in np.flatnonzero(np.arange(k) != own[i]):
                a, gap = W[own[i]] - W[rival], gaps[[rival]]
                found = worst_case.distance(gap, a, x[[i]], "inf", box)[0]
                nearest[i] = min(nearest[i], found)
        radii["each rival"] = nearest
        return (time.perf_counter() - started) * n / few

    ours = "L-infinity, in the box"
    contenders = {
        ours: lambda: exactly("inf", box),
        "L-infinity": lambda: exactly("inf", None),
        "L2": lambda: exactly("2", None),
        "L1": lambda: exactly("1", None),
        "the product X @ W.T alone": lambda: np.copyto(np.empty((n, k)), x @ W.T),
        "L-infinity, in the box, each rival": each_rival,
    }
    seconds = race(contenders, turns=3, slow=("L-infinity, in the box, each rival",))
    np.testing.assert_allclose(radii["inf", True][:few], radii["each rival"], rtol=1e-12)
    return table(seconds, ours)


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="benchmark.py", description="Time training, attack and minimum.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="which to time (default: all)")
    parser.add_data()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
