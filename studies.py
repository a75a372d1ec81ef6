"""Studies beyond the article's experiment, each a file in results/<dataset>/studies/.

    python studies.py noise        accuracy under random +-eps noise, beside the worst case
    python studies.py transfer     accuracy under the perturbation computed on another model
    python studies.py seeds        accuracy of the recipes over several seeds
    python studies.py masking      gradient attacks that report robustness that is not there
    python studies.py ten-digits   linear classifiers of all ten digits, under exact attack
    python studies.py referee      how far the attacks of three libraries are from the exact one

A study takes the runs that it needs from results/, and trains those that are not there in a
temporary folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
import tempfile
import time
import warnings
from pathlib import Path

from lab import attackers, cli, library, store
from lab.cli import RESULTS, InputError

import numpy as np

import advlinear
import data
import optimum
import plots
import recipes
import runs
import train
import worst_case

NOISE_RADII = tuple(k / 20 for k in range(11))
DRAWS = 50  # random noises per test sample
TRANSFER_RADII = (0.1, 0.2)
SEED_RADII = (0.0, 0.1, 0.2, 0.3, 0.4)  # those of README.md's table
SCALE = 255  # raw pixels are from 0 to 255
MASKING_RADII = tuple(k / 50 for k in range(16))  # as a share of the pixel range
MASKING_AT = 10  # the place of 0.2 among them
MASKING_SEEDS = (0, 1, 2)
PGD_STEPS = 40
ROBUST_RADII = (0.05, 0.1)  # of the classifiers of ten digits that are trained to be robust
ADAM = dict(epochs=20, batch_size=200, learning_rate=0.003)
TEN_LARGEST = {"inf": 0.1, "2": 1.5, "1": 10}  # until most images are taken for another digit
LIBRARY_RADII = {"inf": (0.02, 0.04, 0.06), "2": (0.3, 0.6, 0.9), "1": (2.0, 4.0, 6.0)}
LIBRARY_IMAGES = 50  # of each digit, the first of the test
REFEREE_IMAGES = 100  # the first of each digit in the test, equally many of each
REFEREE_THREATS = [runs.threat(norm, True) for norm in (*recipes.NORMS, "0")]
AS_GOOD = 1e-3  # what exceeds the radius by at most this share of it counts as the best
LENGTHENED = 1e-5  # by so much are the perturbations of libraries, before they are compared


def main(
    names: list[str],
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
) -> None:
    """Make the studies named, store their tables and draw their figures.

    Raises:
        InputError: there is no such study, the data set cannot be had, or the tables cannot be
            written.
    """
    names, results = recipes.several(names), cli.results_folder(results)
    if unknown := [name for name in names if name not in STUDIES]:
        raise InputError(f"no study {unknown[0]!r}; there are: {', '.join(STUDIES)}")
    cli.check_writable(results)
    split = data.load(dataset, digits, mnist_dir)
    folder = results / split.name
    for name in names:
        source = dict(mnist_dir=mnist_dir) if name in OF_ALL_DIGITS else {}
        tables, used = STUDIES[name](split, folder, **source)
        print(runs.save_study(folder, name, tables, used))
    figures = [figure for name in names for figure in plots.showing(name)]
    if figures and folder in store.datasets(results):
        plots.draw([folder], figures)


# A study is a function of the data and of the folder of their results. It returns its tables by
# name, each a dict of columns, and the runs whose weights it used. docs/reference.md, "Adding a
# study", shows a new one.
Numbers = tuple[dict[str, dict], list[runs.Run]]


def obtain(settings: list[recipes.Settings], split: data.Dataset, folder: Path) -> list[runs.Run]:
    """The runs of these settings, as stored or else trained or solved now, in their order."""
    stored, found = runs.read_runs(folder), []
    with tempfile.TemporaryDirectory() as scratch:
        for one in cli.bar(settings, "training"):
            run = stored.get(one.name)
            if run is None or run.facts["data_sha256"] != split.checksum:
                make = optimum.optimise if one.recipe == recipes.OPTIMAL else train.train
                with contextlib.redirect_stdout(None):  # of a file that is gone afterwards
                    run = runs.load_run(make(one, split, Path(scratch)))
            found.append(run)
    return found


# --- random noise --------------------------------------------------------------------------------


def noise(split: data.Dataset, folder: Path) -> Numbers:
    """Accuracy when each pixel moves by +eps or -eps with equal chance, and in the worst case."""
    choose = functools.partial(recipes.settings, split.name)
    wanted = [choose(), choose(init="zeros"), *(choose(True, eps) for eps in (0.1, 0.2, 0.3))]
    members = obtain(wanted, split, folder)
    return {"noise": random_noise(members, split)}, members


def random_noise(members: list[runs.Run], split: data.Dataset, seed: int = 0) -> dict:
    """Columns run, eps; random: mean accuracy over the draws; error: its standard error; normal:
    the approximation Phi(m / (eps ||w||_2)); worst: the accuracy in the worst case.

    The noise changes the margin by eps y w.s, s in {-1, 1}^d, which has mean 0 and standard
    deviation eps ||w||_2, while the worst case takes eps ||w||_1: at most sqrt(d) times as much.
    """
    from scipy.special import ndtr

    x, y = split.flat("test")
    rng, rows = np.random.default_rng(seed), []
    for run in members:
        margins = y * (x @ run.w + run.b)
        radii = worst_case.signed_radii(x, y, run.w, run.b)
        signs = rng.integers(0, 2, (DRAWS, *x.shape), dtype=np.int8)
        shifts = np.array([2.0 * (draw @ run.w) - run.w.sum() for draw in signs])  # w.s
        for eps in NOISE_RADII:
            share = np.mean(margins + eps * shifts > 0, axis=0)
            spread = eps * worst_case.dual_norm(run.w, "2")
            rows.append(
                dict(
                    run=run.name,
                    eps=eps,
                    random=share.mean(),
                    # of the noise alone: the test samples are the same in every draw
                    error=np.sqrt((share * (1 - share)).sum() / DRAWS) / len(share),
                    normal=float(np.mean(ndtr(margins / spread) if spread else margins > 0)),
                    worst=float(np.mean(radii > eps)),
                )
            )
    return store.columns(rows)


# --- transfer ------------------------------------------------------------------------------------


def transfer(split: data.Dataset, folder: Path) -> Numbers:
    """Accuracy of one model under another's perturbation: of seven models, and of six seeds."""
    choose = functools.partial(recipes.settings, split.name)
    models = [choose(init=init, seed=seed) for init in ("glorot", "zeros") for seed in (0, 1)]
    models += [choose(True, eps) for eps in (0.1, 0.2, 0.3)]
    copies = [choose(seed=seed) for seed in range(6)]
    members = obtain(recipes.several(models + copies), split, folder)
    found = {run.name: run for run in members}
    tables = {
        table: accuracy_under_another([found[one.name] for one in wanted], split)
        for table, wanted in (("transfer", models), ("copies", copies))
    }
    return tables, members


def accuracy_under_another(members: list[runs.Run], split: data.Dataset) -> dict:
    """Each target w under -y eps sign(v), v being the source: correct where m > eps sign(v).w."""
    x, y = split.flat("test")
    rows = []
    for eps, source, target in itertools.product(TRANSFER_RADII, members, members):
        fall = eps * np.sign(source.w) @ target.w
        accuracy = np.mean(y * (x @ target.w + target.b) > fall)
        rows.append(dict(source=source.name, target=target.name, eps=eps, accuracy=accuracy))
    return store.columns(rows)


# --- seeds ---------------------------------------------------------------------------------------


def seeds(split: data.Dataset, folder: Path) -> Numbers:
    """Six seeds of the article's four models, ten of Kolter and Madry's two.

    Columns model, recipe, seed; eps0 to eps0.4: accuracy at these radii; w_l1: ||w||_1.
    """
    wanted = []
    for recipe, radii, count in (
        ("article", (None, 0.1, 0.2, 0.3), 6),
        ("kolter-madry", (None, 0.2), 10),
    ):
        wanted += [
            recipes.settings(split.name, eps is not None, eps, recipe=recipe, seed=seed)
            for eps in radii
            for seed in range(count)
        ]
    x, y = split.flat("test")
    members, rows = obtain(wanted, split, folder), []
    for run in members:
        radii = worst_case.signed_radii(x, y, run.w, run.b)
        shares = zip(SEED_RADII, worst_case.accuracy(radii, np.array(SEED_RADII)), strict=True)
        rows.append(
            dict(model=run.settings.model, recipe=run.settings.recipe, seed=run.settings.seed)
            | {f"eps{eps:g}": share for eps, share in shares}
            | dict(w_l1=np.abs(run.w).sum())
        )
    return {"seeds": store.columns(rows)}, members


# --- masked gradients ----------------------------------------------------------------------------


def masking(split: data.Dataset, folder: Path) -> Numbers:
    """Gradient attacks beside the exact accuracy, on models that are trained on raw 0-255 pixels.

    Their logits are in the ten thousands. For an image that is classified correctly, the gradient
    of the cross-entropy by the logit, sigmoid(f) - 1 for a one and sigmoid(f) for a zero, is then 0
    in float32 and in float64, as the sigmoid saturates, and so is its sign: FGSM and PGD move
    nothing, and report the clean accuracy. On the margin in place of the cross-entropy a single
    step is exact, as the gradient is then y w.

    The tables are masking: accuracies over the radius, of seed 0; masking-seeds: for each of three
    seeds those at one radius, the median margin, and the share of correctly classified images
    whose gradient is 0 in float32 (zero_single) and in float64 (zero_double).
    """
    raw = dataclasses.replace(split, x_train=SCALE * split.x_train, x_test=SCALE * split.x_test)
    x, y = raw.flat("test")
    eps, curves, rows = np.array(MASKING_RADII), [], []
    for seed in MASKING_SEEDS:
        settings = recipes.settings(split.name, seed=seed)
        with tempfile.TemporaryDirectory() as scratch:
            run = runs.load_run(train.train(settings, raw, Path(scratch)))
        logits = x @ run.w + run.b
        curves.append(dict(eps=eps) | accuracies_by_gradient(run, x, y, SCALE * eps))
        zero = dict(zero_single=vanishing(np.float32(logits), y), zero_double=vanishing(logits, y))
        at = {name: values[MASKING_AT] for name, values in curves[-1].items()}
        rows.append(dict(seed=seed, median_margin=np.median(y * logits)) | at | zero)
    return {"masking": curves[0], "masking-seeds": store.columns(rows)}, []


def accuracies_by_gradient(run: runs.Run, x, y, radii) -> dict[str, np.ndarray]:
    """Accuracy at each radius (k,): the exact one, and those that three attacks report."""
    exact = worst_case.accuracy(worst_case.signed_radii(x, y, run.w, run.b), radii)
    found = dict(exact=exact)
    for name, loss, steps in (
        ("fgsm", "cross-entropy", 1),
        ("pgd", "cross-entropy", PGD_STEPS),
        ("fgsm_margin", "margin", 1),
    ):
        climb = gradient_attack(run, x, y, loss)
        found[name] = np.array([climb(eps, steps) for eps in cli.bar(radii, name)])
    return found


def vanishing(logits, y) -> float:
    """The share of correctly classified images whose gradient by the logit (n,) is exactly 0."""
    from scipy.special import expit

    gradient = expit(logits) - (y > 0)
    return float(np.mean(gradient[y * logits > 0] == 0))


def gradient_attack(run: runs.Run, x, y, loss: str = "cross-entropy"):
    """FGSM and PGD on "cross-entropy" or "margin", in float32 as usual, on x (n, d), y (n,).

    Returns:
        A function of (eps, steps) that gives the accuracy: FGSM for one step, else PGD. Each step
        goes along the sign of the gradient, by eps for FGSM and 2.5 eps / steps for PGD (Madry et
        al. 2018), and is projected to the L-infinity ball of radius eps.
    """
    tf = cli.import_tensorflow()
    w, b = tf.constant(run.w, tf.float32), tf.constant(run.b, tf.float32)
    clean, labels = tf.constant(x, tf.float32), tf.constant(y > 0, tf.float32)

    @tf.function
    def step(moved, eps, size):
        with tf.GradientTape() as tape:
            tape.watch(moved)
            logits = tf.linalg.matvec(moved, w) + b
            if loss == "margin":
                height = (1 - 2 * labels) * logits
            else:
                height = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        moved += size * tf.sign(tape.gradient(height, moved))
        return tf.clip_by_value(moved, clean - eps, clean + eps)

    def climb(eps: float, steps: int) -> float:
        size = eps if steps == 1 else 2.5 * eps / steps
        moved = clean
        for _ in range(steps):
            moved = step(moved, tf.constant(eps, tf.float32), tf.constant(size, tf.float32))
        return float(np.mean(y * (moved.numpy() @ run.w + run.b) > 0))

    return climb


# --- ten digits ----------------------------------------------------------------------------------


def ten_digits(split: data.Dataset, folder: Path, mnist_dir: Path | None = None) -> Numbers:
    """Linear classifiers of all ten digits, under exact attack and under a library's.

    They do not depend on the two digits of `split`, only on its source. Three are fitted without a
    thought of attacks, six to be robust. The tables are ten-digits: exact accuracy on all test
    images over the radius, of the six in the L-infinity ball alone; ten-digits-models: `of_models`;
    ten-digits-library: of the three on a few images, beside FGM and PGD of the Adversarial
    Robustness Toolbox; ten-digits-rivals: which digit the nearest adversarial example of each image
    is taken for, in the L-infinity ball and the box; weights: W (10, d) and b (10,) of each
    classifier.
    """
    if not library.installed():
        raise InputError(
            "ten-digits needs the Adversarial Robustness Toolbox: type "
            f"{sys.executable} -m pip install -r requirements-dev.txt"
        )
    every = data.load_all(split.source, mnist_dir)
    (x_train, y_train), (x, y) = (every.flat(part) for part in ("train", "test"))
    y = y.astype(int)
    few = np.concatenate([np.flatnonzero(y == digit)[:LIBRARY_IMAGES] for digit in range(10)])
    curves, compared, taken = [], [], []
    plain = linear_classifiers(x_train, y_train)
    minima = [recipes.optimal(every.name, eps) for eps in ROBUST_RADII]
    minima = obtain(minima, every, folder.parent / every.name)
    models = plain | robust_classifiers(x_train, y_train, minima)
    for name, (W, b) in cli.bar(list(models.items()), "attacking"):
        attacks = library_attacks(W, b, x[few], y[few]) if name in plain else None
        for norm, box in (("inf", False), *((norm, True) for norm in recipes.NORMS)):
            if norm != "inf" and not attacks:
                continue
            found = advlinear.attack((W, b), x, y, norm, (0, 1) if box else None)
            key = dict(model=name, threat=runs.threat(norm, box))
            radii = np.linspace(0, TEN_LARGEST[norm], 21)
            shares = zip(radii, found.curve(radii), strict=True)
            curves += [key | dict(eps=eps, accuracy=share) for eps, share in shares]
            if box and attacks:
                compared += [key | row for row in beside_library(found.radii[few], attacks, norm)]
            if key["threat"] == "linf-box" and attacks:
                taken += [dict(model=name) | row for row in taken_for(y, found.rival)]
    tables = {"ten-digits": curves, "ten-digits-library": compared, "ten-digits-rivals": taken}
    tables = {name: store.columns(rows) for name, rows in tables.items()}
    tables["ten-digits-models"] = of_models(models, every)
    weights = {f"{name}_W": W for name, (W, _) in models.items()}
    weights |= {f"{name}_b": b for name, (_, b) in models.items()}
    return tables | {"weights": weights}, minima


Classifiers = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> W (10, d), b (10,)


def of_models(models: Classifiers, split: data.Dataset) -> dict:
    """Columns of each classifier: its loss, accuracies and weights, in the L-infinity ball.

    loss0.05, loss0.1: the robust hinge of all classes together on the training images, at these
    radii; clean: accuracy on the test images, where a tie is an error; linf0.05, linf-box0.05, ...:
    under the worst perturbation, without the box and with pixels in [0, 1]; weights: how many are
    not 0, and pixels: how many have one, after `worst_case.sparsest`.
    """
    (x_train, y_train), (x, y) = (split.flat(part) for part in ("train", "test"))
    rows = []
    for name, (W, b) in models.items():
        W, b = W.astype(np.float64), b.astype(np.float64)
        row, used = dict(model=name), worst_case.sparsest(W) != 0
        for eps in ROBUST_RADII:
            worst = worst_case.margins(x_train, y_train, W, b, eps)
            row[f"loss{eps:g}"] = worst_case.hinge(worst).mean()
        for box in (False, True):
            found = advlinear.attack((W, b), x, y.astype(int), "inf", (0, 1) if box else None)
            row |= {} if box else dict(clean=found.curve(0))
            shares = zip(ROBUST_RADII, found.curve(ROBUST_RADII), strict=True)
            row |= {f"{runs.threat('inf', box)}{eps:g}": share for eps, share in shares}
        rows.append(row | dict(weights=used.sum(), pixels=used.any(axis=0).sum()))
    return store.columns(rows)


def beside_library(radii, attacks, norm: str) -> list[dict]:
    """The exact accuracy of images of these radii (n,), and that under the library's attacks."""
    return [
        dict(eps=eps, images=len(radii), exact=np.mean(radii > eps))
        | {how: attacks(eps, norm, how) for how in ("fgm", "pgd")}
        for eps in LIBRARY_RADII[norm]
    ]


def taken_for(y, rival) -> list[dict]:
    """How many images of each digit are taken for each rival, of y (n,) and rival (n,)."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (y, rival), 1)
    return [
        dict(digit=digit, rival=other, count=count)
        for (digit, other), count in np.ndenumerate(counts)
    ]


def linear_classifiers(x, y, names: tuple[str, ...] = ("logistic", "svm", "ridge")) -> Classifiers:
    """W (10, d) and b (10,) of linear classifiers of scikit-learn, float32, on x (n, d), y (n,).

    None of these solvers draws random numbers. With C at its default of 1 the first two take
    about three times as long, and their test accuracy on MNIST differs by 0.2 % at most.
    """
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.svm import LinearSVC

    models = {
        "logistic": LogisticRegression(C=0.1, max_iter=1000),  # multinomial
        "svm": LinearSVC(C=0.01, dual=False),  # one against the rest
        "ridge": RidgeClassifier(solver="cholesky"),
    }
    found = {}
    for name in cli.bar(list(names), "fitting"):
        model = models[name].fit(x, y)
        found[name] = np.float32(model.coef_), np.float32(model.intercept_)
    return found


def robust_classifiers(x, y, minima: list[runs.Run]) -> Classifiers:
    """Three for each of ROBUST_RADII, on x (n, d), y (n,); tells of each how long it took.

    minimum-eps0.05: the certified minimum of all classes together, which is given; adam-eps0.05:
    the same loss by gradients; rest-eps0.05: the certified minima of each class against the rest.
    """
    found = {}
    for run in minima:
        eps = run.settings.eps
        found[f"minimum-eps{eps:g}"] = run.w, run.b
        for name, fit in (("adam", together_by_gradients), ("rest", against_the_rest)):
            started = time.perf_counter()
            found[f"{name}-eps{eps:g}"] = fit(x, y, eps)
            print(f"{name}-eps{eps:g}: {time.perf_counter() - started:.0f} s", flush=True)
    return found


def against_the_rest(x, y, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """W (10, d) and b (10,) of least robust hinge, each class against the rest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes without weights
        fitted = advlinear.RobustClassifier(eps, multi_class="ovr").fit(x, y)
    return fitted.coef_, fitted.intercept_


def together_by_gradients(x, y, eps: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """W (10, d) and b (10,), float32, by Adam on the robust hinge of all classes, from zeros.

    The learning rate falls linearly to 0. Of .001, .003 and .01 as its start, .003 ends lowest on
    MNIST at eps .05.
    """
    tf = cli.import_tensorflow()
    import keras

    images, labels = tf.constant(x, tf.float32), tf.constant(y, tf.int32)
    size, steps = ADAM["batch_size"], ADAM["epochs"] * -(-len(y) // ADAM["batch_size"])
    variables = W, b = tf.Variable(tf.zeros((10, x.shape[1]))), tf.Variable(tf.zeros(10))
    rate = keras.optimizers.schedules.PolynomialDecay(ADAM["learning_rate"], steps, 0.0)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def step(batch):
        with tf.GradientTape() as tape:
            loss = hinge_of_classes(W, b, tf.gather(images, batch), tf.gather(labels, batch), eps)
        optimizer.apply(tape.gradient(loss, variables), variables)

    shuffle = np.random.default_rng(seed)
    for _ in cli.bar(range(ADAM["epochs"]), "adam"):
        order = shuffle.permutation(len(y)).astype(np.int32)
        for first in range(0, len(y), size):
            step(tf.constant(order[first : first + size]))
    return W.numpy(), b.numpy()


def hinge_of_classes(W, b, x, y, eps):
    """The robust hinge of several classes: max(0, 1 - m) of the smallest worst-case margin, mean.

    Tensors W (K, d), b (K,), x (n, d), y (n,) from 0 to K - 1; the twin of `worst_case.margins`.
    The margin over class k is f_y(x) - f_k(x) - eps ||w_y - w_k||_1, and 1 over the class itself.
    """
    import tensorflow as tf

    scores = tf.matmul(x, W, transpose_b=True) + b
    falls = eps * tf.reduce_sum(tf.abs(W[:, None] - W), axis=2)  # ||w_y - w_k||_1 of each pair
    margins = tf.gather(scores, y, batch_dims=1)[:, None] - scores - tf.gather(falls, y)
    margins += tf.one_hot(y, b.shape[0], dtype=b.dtype)
    return tf.reduce_mean(1 - tf.reduce_min(margins, axis=1))


def library_attacks(W, b, x, y):
    """FGM and PGD of the Adversarial Robustness Toolbox, in the box, on x (n, d), y (n,).

    The model is a Keras layer of ten logits, and the attacks climb its cross-entropy, in float32.

    Returns:
        A function of (eps, norm, "fgm" or "pgd") that gives the accuracy.
    """
    estimator = library.linear(W, b)
    images, chosen = np.float32(x), np.eye(10, dtype=np.float32)[y]

    def accuracy(eps: float, norm: str, how: str) -> float:
        steps = dict(fgm=1, pgd=PGD_STEPS)[how]
        moved = library.attack(estimator, eps, steps, norm).generate(images, chosen)
        scores = moved.astype(np.float64) @ W.T.astype(np.float64) + b
        return float(np.mean(scores.argmax(axis=1) == y))

    return accuracy


# --- the attacks of libraries --------------------------------------------------------------------


def referee(split: data.Dataset, folder: Path, mnist_dir: Path | None = None) -> Numbers:
    """How far the smallest perturbations that attacks find are from the smallest there are.

    On the regular model of two digits and on logistic regression of all ten, with pixels in [0, 1].
    Attacks of libraries that are not installed are left out, and a notice names these libraries.

    Columns of each attack and model, for each threat the best attack first: threat, attack,
    library, version, model; images: how many are compared, of those that are right without an
    attack; within: the share of these whose perturbation exceeds the radius by at most .1 %;
    median: the median excess, over those that the attack makes wrong; never: the share that it does
    not; seconds of the processor, and their ratio to ours, on the machine that it ran on. The
    libraries compute in float32, and may stop where rounding decides whether an image is wrong. So
    their perturbations are lengthened by a hundred-thousandth first.

    Raises:
        InputError: none of the libraries is installed.
        ValueError: an attack finds a perturbation below a radius, which would refute ours.
    """
    there = attackers.installed()
    for module in (one for one in attackers.PACKAGES if one not in there):
        cli.notice(f"left out {attackers.NAMES[module]}: pip install {attackers.PACKAGES[module]}")
    if not there:
        raise InputError("referee needs one of these libraries")
    (run,) = obtain([recipes.settings(split.name)], split, folder)
    x, y = split.flat("test")
    every = data.load_all(split.source, mnist_dir)
    logistic = linear_classifiers(*every.flat("train"), names=("logistic",))["logistic"]
    two = np.stack([-run.w / 2, run.w / 2]), np.array([-run.b / 2, run.b / 2])
    rows = []
    for name, (W, b), images, labels in (
        (run.name, two, x, (y > 0).astype(int)),
        ("logistic", logistic, *every.flat("test")),
    ):
        few = first_of_each(labels.astype(int), REFEREE_IMAGES)
        chosen = images[few], labels[few].astype(int)
        problem = attackers.Problem(np.float32(W), np.float32(b), *chosen)
        rows += [dict(model=name) | row for row in against_the_exact(problem, there)]
    return {"referee": store.columns(best_first(rows))}, [run]


def best_first(rows: list[dict]) -> list[dict]:
    """The rows of `referee` by threat, then by the share within .1 % and the median excess."""

    def place(row: dict) -> tuple:
        keys = "threat", "attack", "library"
        same = [one for one in rows if all(one[k] == row[k] for k in keys)]
        within, median = (np.mean([one[k] for one in same]) for k in ("within", "median"))
        return REFEREE_THREATS.index(row["threat"]), -within, np.nan_to_num(median, nan=np.inf)

    return sorted(rows, key=place)


def first_of_each(y, count: int) -> np.ndarray:
    """The places of `count` labels in y (n,), the first of each label, equally many of each."""
    labels = np.unique(y)
    return np.concatenate([np.flatnonzero(y == one)[: count // len(labels)] for one in labels])


def against_the_exact(problem: attackers.Problem, modules: list[str]) -> list[dict]:
    """A row for each attack of these libraries; see `referee`."""
    rows, exact = [], {}
    attacks = [one for one in attackers.ATTACKS if one.module in modules]
    for one in cli.bar([one for one in attacks if len(problem.b) >= one.classes], "attacking"):
        if one.norm not in exact:
            exact[one.norm] = timed_radii(problem, one.norm)
        found, ours = exact[one.norm]
        attackers.prepare(problem, one.module)
        started = time.process_time()
        points = attackers.points(problem, one)
        seconds = time.process_time() - started
        longer = problem.x + (1 + LENGTHENED) * (points.astype(np.float64) - problem.x)
        longer = np.clip(longer, np.minimum(points, 0), np.maximum(points, 1))
        possible = (found.radii > 0) & np.isfinite(found.radii)
        excess = found.compare(longer).excess[possible]
        reached = ~np.isnan(excess)
        rows.append(
            dict(
                threat=runs.threat(one.norm, True),
                attack=one.name,
                library=attackers.NAMES[one.module],
                version=attackers.version(one.module),
                images=len(excess),
                within=np.mean(excess <= AS_GOOD),
                median=np.median(excess[reached]) if reached.any() else np.nan,
                never=np.mean(~reached),
                seconds=seconds,
                ratio=seconds / ours,
            )
        )
    return rows


def timed_radii(problem: attackers.Problem, norm: str) -> tuple[advlinear.Found, float]:
    """The exact attack on the same images in the box, and the median seconds of five calls."""
    seconds = []
    for _ in range(5):
        started = time.process_time()
        found = advlinear.attack((problem.W, problem.b), problem.x, problem.y, norm, (0, 1))
        seconds.append(time.process_time() - started)
    return found, float(np.median(seconds))


STUDIES = {
    "noise": noise,
    "transfer": transfer,
    "seeds": seeds,
    "masking": masking,
    "ten-digits": ten_digits,
    "referee": referee,
}
OF_ALL_DIGITS = ("ten-digits", "referee")  # which also read the other eight


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="studies.py", description="Make studies beyond the article's experiment."
    )
    parser.add_argument(
        "names",
        nargs="+",
        metavar="STUDY",
        help=f"{', '.join(STUDIES)}; docs/article.md says what they show",
    )
    parser.add_data()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
