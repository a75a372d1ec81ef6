"""Recorders for the training loop, as Keras callbacks (any of Keras's own works beside them)."""

import sys

import keras
import numpy as np
import tqdm


class StepRecorder(keras.callbacks.Callback):
    """Keeps what every batch reports: `steps[name]` is a list with one number per step.

    The names are those of the step in train.py. They describe the batch and the weights
    before the update.
    """

    def on_train_begin(self, logs=None):
        self.steps = {}

    def on_train_batch_end(self, batch, logs=None):
        for name, value in logs.items():
            self.steps.setdefault(name, []).append(value)

    def arrays(self) -> dict[str, np.ndarray]:
        """The record as float32 arrays of shape (steps,)."""
        return {name: np.float32(values) for name, values in self.steps.items()}


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

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix({name: f"{logs[name]:.4f}" for name in ("loss", "val_accuracy")})

    def on_train_end(self, logs=None):
        self.bar.close()
