"""Curves of an attack and of a path, drawn as scikit-learn's displays draw theirs.

Matplotlib is imported when a curve is drawn. Importing this module, and constructing a display, do
without it.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from advlinear.attacks.attack import Found, attack
from advlinear.attacks.moves import TargetMoves
from advlinear.minima.path import Path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D
    from numpy.typing import ArrayLike

SIZES = {
    "inf": "radius ε of the attack (L∞ ball)",
    "2": "radius ε of the attack (L2 ball)",
    "1": "radius ε of the attack (L1 ball)",
    "0": "number of features that change",
}
MEANS = {
    "inf": "mean budget ε of the attack (L∞ ball)",
    "2": "mean budget ε of the attack (L2 ball)",
    "1": "mean budget ε of the attack (L1 ball)",
}
SHARES = "accuracy under attack", "share not taken for the target"
DASHES = "-", "--", "-.", ":"  # of the curves in one Axes, to tell them apart without colours
AFTER = 1.05  # a curve ends at so many times the largest finite radius
POINTS = 401  # of the curves of a path, besides its breakpoints
USUAL, BEYOND_USUAL = 0.95, 2  # weights are shown up to twice those of 95 % of the interval
NAMED = 10  # weights with a colour and a name of their own; Matplotlib's cycle has ten colours


def _require(given: Any, kind: type, function: str) -> None:
    """Raise ValueError unless it is what this function returns."""
    if not isinstance(given, kind):
        raise ValueError(
            f"a display needs what advlinear.{function} returns, not {type(given).__name__}"
        )


class RobustnessDisplay:
    """The accuracy under the worst perturbation over its size: exact, with a step at each radius.

    `from_estimator` attacks a model and draws, `from_found` draws what `advlinear.attack` returned.
    For several models in one picture pass the `ax_` of the first as `ax`. The curve begins at 0,
    with the accuracy without an attack, and ends a little beyond the largest finite radius of all
    curves in its ax. It stays above 0 there if nothing makes some of the samples wrong. The dot is
    at the median radius, which the legend states.

    Args:
        found: a `Found`.
        name: of the model, for the legend; or None.

    Attributes:
        found, name: as given.
        median: the median of found.radii, inf included.
        ax_, figure_: the axes and the figure, after `plot`.
        line_: the curve, after `plot`: its x are 0, the finite radii, the median and the end; its y
            found.curve of them.

    Example, of a model whose score is x1 - 2 x2, and of two samples with the radii 1 and 2:

        >>> import advlinear
        >>> found = advlinear.attack(([1.0, -2.0], 0.0), [[3.0, 0.0], [0.0, 3.0]], [1, 0])
        >>> display = advlinear.RobustnessDisplay.from_found(found, name="mine")
        >>> display.line_.get_xdata().tolist(), display.line_.get_ydata().tolist()
        ([0.0, 1.0, 1.5, 2.0, 2.1], [1.0, 0.5, 0.5, 0.0, 0.0])
        >>> display.line_.get_label()
        'mine (median radius 1.5)'
    """

    ax_: Axes
    figure_: Figure | SubFigure
    line_: Line2D

    def __init__(self, found: Found, *, name: str | None = None) -> None:
        _require(found, Found, "attack")
        self.found = found
        self.name = name
        self.median = float(np.median(found.radii))

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: ArrayLike,
        *,
        norm: str | float = "inf",
        box: tuple | None = None,
        scale: ArrayLike | None = None,
        n_jobs: int | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **line: Any,
    ) -> RobustnessDisplay:
        """Attack a model and draw its curve.

        Args:
            model, X, y, norm, box, scale, n_jobs: as of `advlinear.attack`.
            name: for the legend; by default the name of the model's class, if it has one.
            ax, line: as of `plot`.

        Raises:
            ValueError: as from `advlinear.attack` and `plot`. ImportError: as from `plot`.
        """
        _pyplot(cls)  # before the attack, which may take long
        if name is None and type(model) not in (tuple, list) and not inspect.isroutine(model):
            name = type(model).__name__
        found = attack(model, X, y, norm, box, n_jobs, scale)
        return cls(found, name=name).plot(ax, **line)

    @classmethod
    def from_found(
        cls, found: Found, *, name: str | None = None, ax: Axes | None = None, **line: Any
    ) -> RobustnessDisplay:
        """Draw the curve of what `advlinear.attack` returned; see `plot`."""
        return cls(found, name=name).plot(ax, **line)

    def plot(
        self, ax: Axes | None = None, *, name: str | None = None, **line: Any
    ) -> RobustnessDisplay:
        """Draw the curve.

        Args:
            ax: where; None for a new figure.
            name: for the legend, in place of the display's.
            line: colour and the like, as of Matplotlib's `plot`. A label replaces the name and the
                median. Without a linestyle the curves in ax have other dashes each, four in turn.

        Raises:
            ValueError: ax has curves of another norm, or of a target where this has none.
            ImportError: Matplotlib is not installed.
        """
        pyplot = _pyplot(type(self))
        ax = pyplot.subplots()[1] if ax is None else ax
        task, radii = self.found._moves.task, self.found.radii
        _set_labels(ax, SIZES[task.norm], SHARES[isinstance(self.found._moves, TargetMoves)])
        finite, name = radii[np.isfinite(radii)], name or self.name
        end = AFTER * finite.max(initial=0) or 1.0
        marked = [self.median] if np.isfinite(self.median) else []
        x = np.unique([0, *finite, *marked, end])
        median = f"median radius {self.median:.3g}".replace("inf", "∞")
        style = dict(
            label=f"{name} ({median})" if name else median,
            drawstyle="steps-post",
            marker="o",
            markevery=np.flatnonzero(np.isin(x, marked)).tolist(),
        )
        if not line.keys() & {"linestyle", "ls"}:
            style["linestyle"] = DASHES[len(_curves(ax)) % len(DASHES)]
        (self.line_,) = ax.plot(x, self.found.curve(x), **(style | line))
        _end_together(ax, self.line_)
        ax.set_ylim(-0.02, 1.02)
        ax.legend(loc="upper right")
        self.ax_, self.figure_ = ax, ax.figure
        return self


class PathDisplay:
    """The least robust hinge over the radius, the number of weights in use, and the weights.

    `from_path` draws what `advlinear.path` returned, in panels one above the other: the minimum, as
    a band between both bounds; how many weights of the best model are other than 0; and with
    coefficients=True each weight, the regularisation path as of the Lasso. Between two breakpoints
    the best model changes its scale alone, and with the budget "mean" not at all; at a breakpoint
    its weights jump.

    Args:
        path: a `Path`.
        feature_names: (d,) names of the weights; by default those of the path, else x0, x1, ...
        name: of the path, for the legend of the minimum; or None for no legend.

    Attributes:
        path, feature_names, name: as given, or the default.
        ax_, figure_: the panel of the minimum and the figure, after `plot`.
        axes_: a list of all panels, after `plot`; as `ax`, it takes another path, too.
        line_: the upper bound of the minimum, after `plot`.

    Example, of samples whose minimum is .5 / (1 - eps) up to eps = .5, and from there 1, that of
    the weight 0:

        >>> import advlinear
        >>> path = advlinear.path([[0], [1], [1], [2]], [0, 1, 0, 1], 0.0, 0.8)
        >>> display = advlinear.PathDisplay.from_path(path, coefficients=True)
        >>> display.line_.get_ydata()[[0, -1]].round(6).tolist()
        [0.5, 1.0]
        >>> display.axes_[1].lines[0].get_ydata()[[0, -1]].tolist()
        [1, 0]
    """

    ax_: Axes
    axes_: list[Axes]
    figure_: Figure | SubFigure
    line_: Line2D

    def __init__(
        self,
        path: Path,
        *,
        feature_names: Sequence[Any] | np.ndarray | None = None,
        name: str | None = None,
    ) -> None:
        _require(path, Path, "path")
        d = path.w.shape[1]
        given = path.names if feature_names is None else feature_names
        names = [f"x{j}" for j in range(d)] if given is None else list(given)
        if len(names) != d:
            raise ValueError(f"feature_names needs {d} names, not {len(names)}")
        self.path = path
        self.feature_names = names
        self.name = name

    @classmethod
    def from_path(
        cls,
        path: Path,
        *,
        coefficients: bool = False,
        feature_names: Sequence[Any] | np.ndarray | None = None,
        name: str | None = None,
        ax: Axes | Sequence[Axes] | np.ndarray | None = None,
        **line: Any,
    ) -> PathDisplay:
        """Draw what `advlinear.path` returned; see the class and `plot`."""
        display = cls(path, feature_names=feature_names, name=name)
        return display.plot(ax, coefficients=coefficients, **line)

    def plot(
        self,
        ax: Axes | Sequence[Axes] | np.ndarray | None = None,
        *,
        coefficients: bool = False,
        name: str | None = None,
        **line: Any,
    ) -> PathDisplay:
        """Draw two panels, or three.

        Args:
            ax: None for a new figure; or one Axes, which is divided into panels; or one Axes per
                panel, such as the `axes_` of another display.
            coefficients: whether there is a third panel, of each weight that is ever in use. The
                ten that are in use up to the largest radii have colours and names, others are grey.
                Weights more than twice as large as those of 95 % of the interval are cut off, which
                the panel then says. The names stand on the right of it: layout="constrained" of a
                figure leaves room for them.
            name: for the legend, in place of the display's.
            line: colour and the like of the first two panels, as of Matplotlib's `plot`.

        Raises:
            ValueError: ax is neither one Axes nor one per panel; one is in no grid or is divided
                already; or has curves of another ball or budget.
            ImportError: Matplotlib is not installed.
        """
        pyplot = _pyplot(type(self))
        from matplotlib import ticker

        path, name = self.path, name or self.name
        panels = _panels(pyplot, ax, 3 if coefficients else 2)
        heights = "least robust hinge", "weights in use", "weights"
        for panel, height in zip(panels, heights, strict=False):
            now = panel.get_ylabel()
            size = (MEANS if path.budget == "mean" else SIZES)[path.norm]
            _set_labels(panel, size, now if now.startswith(height) else height)
            panel.label_outer()
        within = np.linspace(path.eps_min, path.eps_max, POINTS)
        before = np.nextafter(path.radii, 0)  # so that a jump is a vertical line
        eps = np.unique([*within, *path.radii, *before[before >= path.eps_min]])
        models = np.searchsorted(path.radii, eps, side="right")
        upper, lower = path.bounds(eps)
        (self.line_,) = panels[0].plot(eps, upper, **({"label": name} | line))
        colour = self.line_.get_color()
        panels[0].fill_between(eps, lower, upper, color=colour, alpha=0.3, linewidth=0)
        used = np.asarray((path.w != 0).sum(axis=1)).ravel()
        panels[1].plot(eps, used[models], **({"color": colour} | line))
        panels[1].yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        if coefficients:
            self._draw_weights(panels[2], eps, models)
        if name or "label" in line:
            panels[0].legend(loc="lower right")
        self.ax_, self.axes_, self.figure_ = panels[0], panels, panels[0].figure
        return self

    def _draw_weights(self, ax: Axes, eps: np.ndarray, models: np.ndarray) -> None:
        """Each weight other than 0 at a radius eps (m,), where the best model is models (m,)."""
        ever = np.flatnonzero(np.asarray((self.path.w != 0).sum(axis=0)).ravel())
        scaled = self.path.w[:, ever].toarray()[models]
        weights = scaled / self.path._shrunk(eps, models)[:, None]
        in_use = weights != 0
        last = len(eps) - in_use[::-1].argmax(axis=0)  # one behind the last radius with the weight
        order = np.lexsort([-np.abs(weights).max(axis=0, initial=0), -last])
        for rank, j in enumerate(order):
            style: dict[str, Any] = dict(color="0.75", linewidth=0.8, zorder=1.5)
            if rank < NAMED:
                style = dict(label=str(self.feature_names[ever[j]]), zorder=3 - rank / NAMED)
            ax.plot(eps, weights[:, j], **style)
        self._cut(ax, eps, weights)
        if len(order):
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)

    def _cut(self, ax: Axes, eps: np.ndarray, weights: np.ndarray) -> None:
        """Leave out of the panel what is far above the usual weights.

        Weights grow without bound towards the margin of separable classes.

        Args:
            weights: (m, u) at the radii eps (m,).
        """
        largest = np.abs(weights).max(axis=1, initial=0)
        evenly = np.interp(np.linspace(eps[0], eps[-1], POINTS), eps, largest)
        limit = BEYOND_USUAL * np.quantile(evenly, USUAL)
        if not 0 < limit < largest.max():
            return
        shown = weights[largest <= limit]
        ax.set_ylim(1.05 * shown.min(initial=0), 1.05 * shown.max(initial=0))
        ax.set_ylabel("weights (the largest are cut off)")


def _pyplot(display: type) -> Any:
    """Matplotlib's pyplot. Raises ImportError: it is not installed."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ImportError(
            f"advlinear.{display.__name__} draws with Matplotlib: type pip install matplotlib",
            name="matplotlib",
        ) from None
    return pyplot


def _set_labels(ax: Axes, size: str, height: str) -> None:
    """Name both axes. Raises ValueError: ax has a curve of another ball or budget, or a target."""
    for now, wanted in ((ax.get_xlabel(), size), (ax.get_ylabel(), height)):
        if now != wanted and now in (*SIZES.values(), *MEANS.values(), *SHARES):
            raise ValueError(f"ax shows {now}: draw {wanted} in an Axes of its own")
    ax.set(xlabel=size, ylabel=height)


def _curves(ax: Axes) -> list[Any]:
    """The curves of attacks in ax, without those removed."""
    return [one for one in vars(ax).get("_advlinear_curves", []) if one.axes is ax]


def _end_together(ax: Axes, line: Line2D) -> None:
    """Let all curves in ax end at the largest of their ends, each at its own last height."""
    curves = [*_curves(ax), line]
    vars(ax)["_advlinear_curves"] = curves
    end = max(one.get_xdata()[-1] for one in curves)
    for one in curves:
        one.set_xdata(np.append(one.get_xdata()[:-1], end))
    ax.set_xlim(0, end)


def _panels(pyplot: Any, ax: Any, count: int) -> list[Axes]:
    """So many panels above each other: see `PathDisplay.plot`, also for what is raised."""
    if ax is None:
        size = 6.4, 2.4 * count
        _, panels = pyplot.subplots(count, sharex=True, figsize=size, layout="constrained")
        return list(panels)
    panels = list(np.ravel(ax))
    if len(panels) == count:
        return panels
    if len(panels) != 1:
        raise ValueError(f"ax needs one Axes, or {count}: one per panel, not {len(panels)}")
    (whole,) = panels
    place = whole.get_subplotspec()
    if place is None or not whole.axison:
        raise ValueError(
            "ax needs an Axes of a grid, as from pyplot.subplots, that is not divided yet; or pass "
            "ax=display.axes_ for a second path"
        )
    whole.set_axis_off()
    grid = place.subgridspec(count, 1, hspace=0.1)
    return list(grid.subplots(sharex=True))
