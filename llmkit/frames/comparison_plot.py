"""Quality against cost as a figure, with labels that do not lie on one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..drawing import BLUE, GREY, empty, subplots

__all__ = ["draw"]

Floats = npt.NDArray[np.float64]

#: Where a label may stand: points to the right and above, and which of its corners is there. The first that is free is taken.
_NEAR = [(9, 0, "left", "center"), (-9, 0, "right", "center"), (0, 9, "center", "bottom"), (0, -9, "center", "top")]
_FAR = [(x, y, "left" if x > 0 else "right", "center") for reach in (18, 32, 48, 66, 86) for x in (14, -14) for y in (reach, -reach)]


def draw(
    labels: Sequence[str],
    at: Floats,
    heights: Floats,
    bounds: Sequence[tuple[float, float]] | None,
    across: str,
    upward: str,
    title: str,
) -> Any:
    """A point a label; those without a place are named below."""
    figure, axes = subplots(1, 1, figsize=(7.5, 4.8))
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.grid(color=GREY, alpha=0.2)
    axes.set_ylabel(upward)
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    placed = np.flatnonzero(np.isfinite(at) & np.isfinite(heights))
    absent = [label for place, label in enumerate(labels) if place not in placed]
    axes.set_xlabel(across + (f"\nnot shown, unknown: {', '.join(map(_short, absent))}" if absent else ""))
    if not len(placed):
        empty(axes, title, "nothing is known")
        return figure
    places: list[int] = placed.tolist()
    x, y = at[places], heights[places]
    _scale(axes, x)
    best = _frontier(x, y)
    axes.plot(x[best], y[best], color=GREY, linewidth=1, zorder=1)
    for one in places if bounds is not None else ():
        assert bounds is not None
        axes.vlines(at[one], *bounds[one], color=BLUE, alpha=0.35, linewidth=2, zorder=2)
    axes.plot(x, y, "o", color=BLUE, markersize=7, zorder=5)
    axes.margins(x=0.12, y=0.15)
    _begin(axes, x)
    if upward != "mean score":
        axes.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        low, high = axes.get_ylim()
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if high - low > 0.04 else 1))
    _label(figure, axes, x, y, [_short(labels[place]) for place in places])
    return figure


def _scale(axes: Any, x: Floats) -> None:
    """Logarithmic where the dearest is several times the cheapest; what is free then stands left of the rest."""
    paid = x[x > 0]
    if len(paid) and paid.max() > 5 * paid.min():
        if len(paid) == len(x):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=paid.min() / 2, linscale=0.4)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")


def _begin(axes: Any, x: Floats) -> None:
    """On an even scale what is free stands at the edge."""
    if axes.get_xscale() == "linear":
        axes.set_xlim(0 if x.min() > 0 else -0.05 * (x.max() or 1.0), 1.2 * (x.max() or 1.0))


def _frontier(x: Floats, y: Floats) -> list[int]:
    """The places that no other beats in both, from left to right."""
    found: list[int] = []
    for place in sorted(range(len(x)), key=lambda one: (x[one], -y[one])):
        if not found or y[place] > y[found[-1]]:
            found.append(place)
    return found


def _label(figure: Any, axes: Any, x: Floats, y: Floats, labels: Sequence[str]) -> None:
    """Each label at the first place beside its point that no other label, no point and no edge is in."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    apart = [withStroke(linewidth=2.5, foreground=axes.get_facecolor())]  # from lines that go through the words
    figure.draw_without_rendering()  # the layout is known from here on
    points = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_bounds(left - 5, low - 5, 10, 10) for left, low in points]
    edge = axes.get_window_extent()
    for place in np.argsort(-y, kind="stable").tolist():
        others = taken[:place] + taken[place + 1 :]
        for number, (across, up, side, level) in enumerate(_NEAR + _FAR):
            point = (x[place], y[place])
            text = axes.annotate(
                labels[place], point, (across, up), textcoords="offset points", ha=side, va=level, fontsize="small", zorder=4
            )
            box = text.get_window_extent()
            inside = box.x0 >= edge.x0 and box.x1 <= edge.x1 and box.y0 >= edge.y0 and box.y1 <= edge.y1
            if inside and not any(box.overlaps(other) for other in others):
                if number >= len(_NEAR):
                    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6}
                    axes.annotate("", point, (across, up), textcoords="offset points", arrowprops=line, zorder=1)
                break
            text.remove()
        else:  # nowhere is free: there are dozens
            text = axes.annotate(labels[place], point, (8, 0), textcoords="offset points", va="center", fontsize="small")
            box = text.get_window_extent()
        text.set_path_effects(apart)
        taken.append(box)


def _short(label: str) -> str:
    return label if len(label) <= 34 else f"{label[:32]}…"
