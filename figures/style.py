"""What each colour and each dash means, the same in every figure and in explore.html.

The colour says what a model is: black the regular model (grey if trained from zero weights), green
a robust one (the darker, the larger its radius), blue the exact minimum. The dash says the radius
that it is trained for; in the figure optimum the row says it, and all lines are solid. Hollow
circles are the converged recipe, where it stands beside others. A loss has the colour of the model
that is trained with it: black the hinge, green the robust hinge. Orange is random noise (dots) and
gradient attacks: FGSM (triangles), PGD (crosses). In the figure referee each attack has a row, and
the colour says the model again. Dark grey are words, thin lines, and the classifiers of ten digits
that are not robust; those that are have the colours above.
In pictures of weights white is a weight of 0, or one too small to be in use. Blue counts for the
digit 1, or for the digit that the picture belongs to; orange with dots counts against it. Both are
equally dark, so that in grey a darker pixel is a larger weight.
Every colour has a contrast of at least 3:1 on white.
"""

import numpy as np

from recipes import OPTIMAL, Settings

BLACK, GREY = "#000000", "#6e6e6e"
LIGHT, GREEN, DARK = "#3a9862", "#217a45", "#0a4526"  # robust for a radius of .1, .2, .3
BLUE, ORANGE = "#3b4fd8", "#c2570c"
NOTE = "#555555"  # dark grey
FOR, AGAINST, DOT = "#4055d0", "#a84400", "#1a0a00"  # weights; in grey the dots tell the sign

SOLID, DASHED, DASHDOT, DOTTED = (), (5, 1.5), (6, 1.5, 1.2, 1.5), (1.2, 1.2)
OTHER = (3, 1, 1, 1, 1, 1)  # any other radius; a regular model from zero weights
DASHES = {0.0: SOLID, 0.1: DASHED, 0.2: DASHDOT, 0.3: DOTTED}
UNIT = {"inf": 1, "2": 10, "1": 50}  # a radius of 2 in L2, or 10 in L1, looks like .2 in L∞


def colour(settings: Settings) -> str:
    if settings.recipe == OPTIMAL:
        return BLUE
    if not settings.robust:
        return GREY if settings.variant == "initzeros" else BLACK
    shades = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in (LIGHT, GREEN, DARK)])
    size = settings.eps / UNIT[settings.norm]
    mixed = [round(np.interp(size, (0.1, 0.2, 0.3), channel)) for channel in shades.T]
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def dash(settings: Settings) -> tuple[float, ...]:
    """Lengths of line and gap in turns, in units of the line's width; () for a solid line."""
    if settings.variant == "initzeros":
        return OTHER
    return DASHES.get(settings.eps / UNIT[settings.norm], OTHER)


def line(settings: Settings) -> dict:
    """Colour and dash as Matplotlib takes them."""
    return dict(color=colour(settings), ls=(0, dash(settings)) if dash(settings) else "-")
