"""The mean training loss over a single weight, which shows what eps does to the gradient.

attack.py stores it for each run that was trained with the robust hinge in the L-infinity ball.
"""

from common import files
from common.runs import Run

import numpy as np

import advlinear
import data

COLUMNS = ("pixel", "index", "weight", "hinge", "robust_hinge")


def has_landscape(settings) -> bool:
    """Whether eps decides which pixels stay in use: the robust hinge in the plain ball."""
    return settings.robust and settings.plain_hinge


def weight_landscape(run: Run, split: data.Dataset) -> dict[str, list]:
    """Mean training loss over one weight v, all others as trained: two pixels, two losses.

    The strong pixel has the largest |w_j|. The weak one is dropped by the robust loss: at
    v = 0 the mean of y x_j over the active samples is at most eps in absolute value, so the
    loss is least at exactly v = 0. Of those it is the one on which the plain hinge pulls most.
    """
    eps, w = run.settings.eps, run.w
    y = split.y_train.astype(np.float64)
    x = split.x_train.reshape(len(y), -1)
    margins = y * (x @ w + run.b)
    yx = y[:, None] * x
    plain = margins[:, None] - yx * w  # margins with w_j = 0, for each j
    robust = plain - eps * (np.abs(w).sum() - np.abs(w))
    active = robust < 1
    dropped = np.abs((active * yx).sum(0)) <= eps * active.sum(0)
    pull = np.abs(((plain < 1) * yx).mean(0))
    pixels = {"strong": int(np.argmax(np.abs(w)))}
    if (dropped & (pull > 0)).any():
        pixels["weak"] = int(np.argmax(np.where(dropped, pull, -1.0)))
    grid = 1.5 * np.abs(w).max() * np.arange(-60, 61) / 60  # 0 exactly, which linspace may miss
    rows = [
        dict(
            pixel=pixel,
            index=j,
            weight=v,
            hinge=advlinear.hinge(plain[:, j] + yx[:, j] * v).mean(),
            robust_hinge=advlinear.hinge(robust[:, j] + yx[:, j] * v - eps * abs(v)).mean(),
        )
        for pixel, j in pixels.items()
        for v in grid
    ]
    return files.columns(COLUMNS, rows)
