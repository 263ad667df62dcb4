"""How all figures look: in print at column width, and on the report's page.

Each colour has a contrast of 3:1 or more on white, and goes with a mark of its own shape and, once
colours come again, a dash, so that nothing is told by colour alone. Text stays text in SVG and PDF,
so that it can be searched and edited.
"""

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from counterpoint.report.words import UNITS, heading, unit_of

ROOM = 0.6
"""Inches below the panels: for their axis and a short legend."""

COLUMN, PAGE = 3.5, 7.2
"""Widths in inches: one column, and both columns of a printed page."""

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
"""Colours after Okabe and Ito (2008), darkened for white; grey is what others are measured by."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))
INK, MUTED, LINE = "#1d2026", "#5b616e", "#d5d8de"
_INSTALLED = {font.name for font in font_manager.fontManager.ttflist}
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Arial Unicode MS", "Noto Sans")
"""The first comes with matplotlib; what it lacks is taken from the others, if they are here."""

COMMON: dict[Any, Any] = {
    "font.family": [*(name for name in FONTS if name in _INSTALLED), "sans-serif"],
    "text.color": INK,
    "text.parse_math": False,  # a site may have $ in its name
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "counterpoint",
    "pdf.fonttype": 42,
}
PRINT = COMMON | {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
}
SCREEN = COMMON | {
    "font.size": 11.5,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.linewidth": 0.7,
}

look = mpl.rc_context(PRINT)
"""Decorator, and context, of everything that draws for print or saves."""


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


def pen(number: int) -> dict[str, Any]:
    """Colour, dash and marker of a figure's n-th line, from 0: grey is left for the eighth.

    >>> pen(0)["color"] == pen(8)["color"], pen(0) == pen(8)
    (True, False)
    """
    dash = DASHES[number // len(SERIES) % len(DASHES)]
    return {"color": colour(number + 1), "linestyle": dash, "marker": mark(number + 1)}


def plain(name: object, width: int = 32, lines: int = 3) -> str:
    """A name as matplotlib draws it: long ones in lines, and none hidden for its underscore.

    >>> plain("_A"), plain("St. Mary's Hospital, Department of Dermatology", width=20)
    (' _A', "St. Mary's Hospital,\\nDepartment of\\nDermatology")
    >>> plain("a very long name of a hospital", width=12, lines=1)
    'a very long…'
    """
    shown = textwrap.wrap(str(name), width) or [""]
    if len(shown) > lines:
        shown = [*shown[: lines - 1], f"{shown[lines - 1][: width - 1]}…"]
    text = "\n".join(shown)
    return f" {text}" if text.startswith("_") else text


def panels(
    count: int,
    columns: int,
    width: float = PAGE,
    height: float = 1.9,
    room: float = ROOM,
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in rows of up to ``columns``; ``height`` is that of a row.

    Below them there is ``room`` for a legend.
    """
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + room), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    every = list(grid.flat)
    for left_over in every[count:]:
        left_over.remove()
    for above in every[count - columns : count] if rows > 1 else []:
        above.tick_params(labelbottom=True)  # nothing stands below the last ones
    return figure, every[:count]


def legend(figure: Figure, handles: Iterable[Any]) -> None:
    """One legend for all panels, below them, in as many columns as its words leave room for.

    What several panels have in common is named once. The figure grows by what the legend needs.
    """
    named: dict[str, Any] = {}
    for handle in handles:
        named.setdefault(str(handle.get_label()), handle)
    if not named:
        return
    longest = max(len(line) for label in named for line in label.split("\n"))
    size = font_manager.FontProperties(size=mpl.rcParams["legend.fontsize"]).get_size_in_points()
    room = int(figure.get_figwidth() * 119 / size)  # characters, about
    columns = max(1, min(len(named), room // (longest + 7)))
    lines = math.ceil(len(named) / columns) * max(label.count("\n") + 1 for label in named)
    figure.set_figheight(figure.get_figheight() + max(0.0, lines * size * 1.55 / 72 - ROOM / 2))
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=columns)


def scale_of(metric: str) -> float:
    """What a score is multiplied by to be shown: shares in percent, a loss and distances not.

    >>> scale_of("dice"), scale_of("loss")
    (100.0, 1.0)
    """
    return 1.0 if metric in UNITS else 100.0


def axis_name(metric: str) -> str:
    """A score's name with its unit, for an axis.

    >>> axis_name("macro_f1"), axis_name("hd95"), axis_name("loss")
    ('macro-F1 (%)', 'HD95 (px)', 'loss')
    """
    unit = unit_of(metric)
    return f"{heading(metric, unit=False)} ({unit})" if unit else heading(metric)
