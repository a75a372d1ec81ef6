"""The progress bar of the training loop, as a Keras callback (Keras's own work beside it)."""

import sys

import keras
import tqdm


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
