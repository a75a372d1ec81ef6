"""Where the parts of a figure stand, in inches from its upper left corner.

Each figure gives its places, so Matplotlib neither solves for a layout nor draws to measure words.
A figure of a single panel needs none of this: style.mplstyle has its margins. At 160 dots per inch
a picture of 28 x 28 pixels has whole dots for each pixel where its side is a multiple of 0.175.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def panels(
    figure: Figure,
    rows: int,
    columns: int,
    left: float,
    top: float,
    width: float,
    height: float,
    gap: tuple[float, float] = (0.2, 0.5),
    **shared,
) -> np.ndarray:
    """Axes (rows, columns) of this width and height each; `gap` is between columns and rows.

    `shared` are sharex and sharey of Figure.subplots. A figure may have several such sets.
    """
    across, down = figure.get_size_inches()
    right = left + columns * width + (columns - 1) * gap[0]
    bottom = top + rows * height + (rows - 1) * gap[1]
    place = dict(left=left / across, right=right / across, top=1 - top / down)
    place |= dict(bottom=1 - bottom / down, wspace=gap[0] / width, hspace=gap[1] / height)
    return figure.subplots(rows, columns, squeeze=False, gridspec_kw=place, **shared)


def pictures(figure: Figure, rows: int, columns: int, *place, **more) -> np.ndarray:
    """Panels for pictures: as `panels`, in a thin frame and without ticks."""
    found = panels(figure, rows, columns, *place, **more)
    for axes in found.flat:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(True)
        axes.grid(False)
    return found


def headline(figure: Figure, text: str) -> None:
    """One or two lines above all panels."""
    across, down = figure.get_size_inches()
    figure.suptitle(text, x=0.1 / across, y=1 - 0.08 / down, ha="left", va="top")


def legend(figure: Figure, axes: Axes, columns: int, labels: list[str] | None = None) -> None:
    """The lines of one panel explained below all panels, under other labels if given."""
    lines, words = axes.get_legend_handles_labels()
    figure.legend(lines, labels or words, loc="lower center", ncols=columns)
