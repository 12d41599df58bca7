"""What all figures have in common: their colours, a figure that belongs to nobody else, and what is shown where there is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import MissingExtra

__all__ = ["BLUE", "COLOURS", "GREEN", "GREY", "ORANGE", "PINK", "RED", "SKY", "empty", "subplots"]

#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = BLUE, ORANGE, GREEN, RED, SKY, PINK, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#999999"


def subplots(rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """A figure and its axes, or what to install."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingExtra("plots need the package matplotlib: pip install 'llmkit[plot]'") from None
    figure, axes = pyplot.subplots(rows, columns, layout="constrained", **options)
    # pyplot's own list would keep it for ever, and a notebook would show it twice.
    pyplot.close(figure)
    for one in np.ravel(axes):
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize="small")
    return figure, axes


def empty(axes: Any, title: str, text: str) -> None:
    """Say in the place of the data why there is none."""
    axes.set_title(title, loc="left", fontsize="medium", fontweight="bold")
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#666666")
    axes.set_xticks([])
    axes.set_yticks([])
