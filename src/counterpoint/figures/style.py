"""How all figures look: readable in print at column width, and for colour-blind readers.

Colours are those of Okabe and Ito (Color Universal Design, 2008), without yellow, which is lost on
white paper. Lines differ by marker and dash as well, for a grey printer. Text stays text in SVG
and PDF, so that it can be searched and edited.
"""

import math
import textwrap
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from counterpoint.report.words import heading

COLUMN, PAGE = 3.5, 7.2
"""Widths in inches: one column, and both columns of a printed page."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^vPX*"
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))
_INSTALLED = {font.name for font in font_manager.fontManager.ttflist}
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Arial Unicode MS", "Noto Sans")
"""The first comes with matplotlib; what it lacks is taken from the others, if they are here."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "font.family": [*(name for name in FONTS if name in _INSTALLED), "sans-serif"],
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "text.parse_math": False,  # a site may have $ in its name
    "svg.fonttype": "none",
    "svg.hashsalt": "counterpoint",
    "pdf.fonttype": 42,
}

look = mpl.rc_context(STYLE)
"""Decorator, and context, of everything that draws or saves."""


def pen(number: int) -> dict[str, Any]:
    """Colour, dash and marker of a figure's n-th line, from 0; they come again after 28.

    >>> pen(0)["color"] == pen(7)["color"], pen(0) == pen(7)
    (True, False)
    """
    turn, place = divmod(number, len(COLOURS))
    marker = MARKERS[(place + turn) % len(MARKERS)]
    return {"color": COLOURS[place], "linestyle": DASHES[turn % len(DASHES)], "marker": marker}


def plain(name: object, width: int = 32) -> str:
    """A name as matplotlib draws it: long ones in lines, and none hidden for its underscore.

    >>> plain("_A"), plain("St. Mary's Hospital, Department of Dermatology", width=20)
    (' _A', "St. Mary's Hospital,\\nDepartment of\\nDermatology")
    """
    lines = textwrap.wrap(str(name), width) or [""]
    if len(lines) > 3:
        lines = [*lines[:2], f"{lines[2][: width - 1]}…"]
    shown = "\n".join(lines)
    return f" {shown}" if shown.startswith("_") else shown


def panels(
    count: int, columns: int, width: float = PAGE, height: float = 1.9, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, in rows of up to ``columns``; ``height`` is that of a row.

    Below them there is room for a legend.
    """
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **shared)
    every = list(grid.flat)
    for left_over in every[count:]:
        left_over.remove()
    for above in every[count - columns : count] if rows > 1 else []:
        above.tick_params(labelbottom=True)  # nothing stands below the last ones
    return figure, every[:count]


def legend(figure: Figure, handles: list[Any]) -> None:
    """One legend for all panels, below them, in as many columns as its words leave room for."""
    labels = [str(handle.get_label()) for handle in handles]
    if not handles:
        return
    longest = max(len(line) for label in labels for line in label.split("\n"))
    room = int(figure.get_figwidth() * 17)  # characters of the legend's size, about
    columns = max(1, min(len(handles), room // (longest + 7)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def scale_of(metric: str) -> float:
    """What a score is multiplied by to be shown: shares in percent, a loss and distances not.

    >>> scale_of("dice"), scale_of("loss")
    (100.0, 1.0)
    """
    return 1.0 if metric in ("loss", "hd95") else 100.0


def axis_name(metric: str) -> str:
    """A score's name with its unit, for an axis.

    >>> axis_name("macro_f1"), axis_name("hd95"), axis_name("loss")
    ('macro-F1 (%)', 'HD95 (px)', 'loss')
    """
    unit = {"loss": "", "hd95": " (px)"}.get(metric, " (%)")
    return f"{heading(metric, unit=False)}{unit}"
