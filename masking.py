"""Why exact matters: gradient attacks that report a robustness that is not there.

    python masking.py

A linear model trained on raw 0-255 pixels has logits in the hundreds. There the cross-entropy's
gradient by the logit, sigmoid(f) - 1 for a one and sigmoid(f) for a zero, is 0 in float32, and
its sign with it: FGSM and PGD move nothing and report the clean accuracy. On the margin in place
of the cross-entropy a single step is exact, as the gradient is then y w. Numbers go to
results/<dataset>/claims/masking.csv.
"""

import contextlib
import dataclasses
import tempfile
from pathlib import Path

import numpy as np

import cli
import data
import exact
import files
import runs
import train
from cli import RESULTS
from records import MASKED_RADII

SCALE = 255
RADII = np.array(MASKED_RADII)
STEPS = 40


def main(
    dataset: str = "auto",
    digits: tuple[int, int] = (0, 1),
    mnist_dir: Path | None = None,
    results: Path = RESULTS,
) -> None:
    """Train on raw pixels by the article's recipe, attack, store the numbers.

    Raises:
        InputError: the data set cannot be had, or the numbers cannot be written.
    """
    files.check_writable(results)
    split = data.load(dataset, tuple(digits), mnist_dir)
    raw = dataclasses.replace(split, x_train=SCALE * split.x_train, x_test=SCALE * split.x_test)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        run = runs.load(train.train(runs.article(split.name), raw, Path(folder), quiet=True))
    x = raw.x_test.reshape(len(raw.y_test), -1)
    radii = exact.sample_radii(x.astype(float), raw.y_test.astype(float), run.w, run.b)
    table = {"eps": RADII, "exact": exact.robust_correct(radii, SCALE * RADII) / len(radii)}
    for name, loss, steps in (
        ("fgsm", "cross-entropy", 1),
        ("pgd", "cross-entropy", STEPS),
        ("fgsm_margin", "margin", 1),
    ):
        climb = gradient_attack(run, x, raw.y_test, loss)
        table[name] = [climb(SCALE * eps, steps) for eps in RADII]
    path = results / split.name / "claims" / "masking.csv"
    with files.whole_file(path) as new:
        files.write_csv(new, table)
    print(path)
    k = int(np.argmin(np.abs(RADII - 0.2)))
    accuracies = [f"{name} {table[name][k]:.4f}" for name in list(table)[1:]]
    print(f"accuracy at {RADII[k]:.1f}: {', '.join(accuracies)}")


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


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="masking.py", description="Gradient attacks against the exact one on raw pixels."
    )
    parser.add_data()
    parser.add_results()
    return parser


if __name__ == "__main__":
    cli.run(main, _parser())
