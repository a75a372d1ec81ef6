"""What watches the training: the record of each step, and the progress bar."""

import sys

from lab.cli import InputError

import keras
import numpy as np
import tensorflow as tf
import tqdm

from runs import PIXEL_IN_USE

# What a step records of its batch, before the update: accuracy, share of samples whose worst-case
# margin is below 1, L2 norm of the gradient by w, the trained loss, pixels in use, and ||w||_1.
STEP_COLUMNS = ("accuracy", "active", "gradient", "loss", "pixels", "w_l1")


def step_record(margins, worst, gradient, loss, kernel):
    """The row of STEP_COLUMNS of one step: a tensor."""
    accuracy, active = (tf.reduce_mean(tf.cast(c, tf.float32)) for c in (margins > 0, worst < 1))
    size = tf.abs(kernel)
    in_use = size > PIXEL_IN_USE * tf.reduce_max(size)
    pixels = tf.math.count_nonzero(in_use, dtype=tf.float32)
    return tf.stack([accuracy, active, tf.norm(gradient), loss, pixels, tf.reduce_sum(size)])


def step_logs(records: np.ndarray) -> dict:
    """What callbacks see of k steps (k, columns): name -> array (k,), or a float for one step."""
    values = records.T if len(records) > 1 else records[0].tolist()
    return dict(zip(STEP_COLUMNS, values, strict=True))


class StepRecorder(keras.callbacks.Callback):
    """Collects what each step records (article: "callbacks to collect partial results").

    The logs of a batch hold, for each column, a number or an array with one for each step.
    """

    def on_train_begin(self, logs=None):
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(logs)

    def columns(self) -> dict[str, np.ndarray]:
        """Column -> one number per step, float32."""
        return {
            name: np.hstack([logs[name] for logs in self.logs]).astype(np.float32)
            for name in self.logs[0]
        }


class ProgressBar(keras.callbacks.Callback):
    """One bar over all epochs; silent where stderr is no terminal."""

    def __init__(self, label: str):
        super().__init__()
        self.label = label

    def on_train_begin(self, logs=None):
        total = self.params["epochs"] * self.params["steps"]
        self.bar = tqdm.tqdm(
            total=total, desc=self.label, unit="step", leave=False, disable=not sys.stderr.isatty()
        )

    def on_epoch_end(self, epoch, logs=None):
        self.bar.update(self.params["steps"])
        self.bar.set_postfix({name: f"{logs[name]:.4f}" for name in ("loss", "val_accuracy")})

    def on_train_end(self, logs=None):
        self.bar.close()


def require_callbacks(callbacks) -> None:
    """Raise InputError unless all are Keras callbacks that leave the last epoch's weights."""
    for one in callbacks:
        if not isinstance(one, keras.callbacks.Callback):
            raise InputError(f"callbacks needs keras.callbacks.Callback objects, not {one!r}")
        if getattr(one, "restore_best_weights", False):
            raise InputError(
                "restore_best_weights would save other weights than those of the last epoch, which "
                "the history ends with: leave it out"
            )
