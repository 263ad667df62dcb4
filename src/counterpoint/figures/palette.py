"""Colours that colour-blind readers can tell apart, and figures drawn with them.

Each colour has a contrast of 3:1 or more on white, and goes with a mark of its own shape, so that
nothing is told by colour alone.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Data = TypeVar("Data")

SERIES = (
    "#4d4d55",
    "#0072b2",
    "#d55e00",
    "#008a64",
    "#b0508a",
    "#8a6c00",
    "#6a5acd",
    "#2b94b0",
)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, MUTED, LINE = "#1d2026", "#5b616e", "#d5d8de"


def colour(number: int) -> str:
    """The colour of a series, from 0; after eight they come again.

    >>> colour(1) == colour(9)
    True
    """
    return SERIES[number % len(SERIES)]


def mark(number: int) -> str:
    """The mark of a series: shapes shift when the colours come again.

    >>> mark(1) == mark(9)
    False
    """
    return MARKS[(number + number // len(SERIES)) % len(MARKS)]


def short(name: str, most: int = 20) -> str:
    """A name cut to a length that an axis has room for.

    >>> short("St. Elsewhere"), short("a very long name of a hospital", 12)
    ('St. Elsewhere', 'a very long…')
    """
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


@contextmanager
def styled() -> Iterator[None]:
    """Draw with the colours of this module, and take names as they are (no mathematics)."""
    settings: Any = {
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlesize": 12,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "font.size": 11.5,
        "legend.frameon": False,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # the page's reader has fonts of their own; in files a missing letter is a box
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def panelled(
    panels: Mapping[str, Data],
    draw: Callable[[Axes, Data], None],
    size: tuple[float, float] = (5.2, 3.2),
    titles: bool = True,
    legend: bool = False,
) -> Figure:
    """A figure with a panel for each name, drawn by ``draw``; up to three side by side.

    ``legend`` names what the panels have in common once, below them.
    """
    columns = min(3 if len(panels) != 4 else 2, len(panels))
    rows = ceil(len(panels) / columns)
    with styled():
        figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, data) in zip(grid, panels.items(), strict=False):
            draw(axes, data)
            if titles:
                axes.set_title(short(name, 40))
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        if legend:
            named: dict[str, Any] = {}
            for axes in grid[: len(panels)]:
                for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                    named.setdefault(label, handle)
            columns = min(4, len(named))
            handles, labels = list(named.values()), list(named)
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    return figure
