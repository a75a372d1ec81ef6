"""The callbacks of the training loop: the record of each step, and the progress bar."""

import sys

import keras
import numpy as np
import tqdm


class StepRecorder(keras.callbacks.Callback):
    """Collects what each step reports (article: "callbacks to collect partial results").

    The logs of a batch hold, for each column, a number or an array with one for each step.
    """

    def on_train_begin(self, logs=None):
        self.reports = []

    def on_train_batch_end(self, batch, logs=None):
        self.reports.append(logs)

    def columns(self) -> dict[str, np.ndarray]:
        """Column -> one number per step, float32."""
        return {
            name: np.hstack([report[name] for report in self.reports]).astype(np.float32)
            for name in self.reports[0]
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
