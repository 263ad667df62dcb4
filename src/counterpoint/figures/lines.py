"""Lines with a band of spread and with marks, such as scores or losses against communications."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from counterpoint.figures.style import colour, mark, plain


@dataclass(frozen=True)
class Line:
    """One line: ``y`` and, where several seeds were run, the ends ``low`` and ``high``.

    ``marked`` are the places in ``x`` that get a mark.
    """

    label: str
    number: int
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dash: Literal["-", ":", "--"] = "-"
    marked: Sequence[int] = ()


def draw_lines(axes: Axes, lines: Sequence[Line], xlabel: str, ylabel: str) -> None:
    """Draw lines; the parts of line i carry ids that begin with ``mark-i``."""
    faint = 0.15 if len(lines) < 4 else 0.08
    for i, line in enumerate(lines):
        hue = colour(line.number)
        if len(line.low):
            axes.fill_between(
                line.x,
                line.low,
                line.high,
                color=hue,
                alpha=faint,
                linewidth=0,
                gid=f"mark-{i}",
            )
        axes.plot(
            line.x,
            line.y,
            line.dash,
            color=hue,
            linewidth=1.6,
            label=plain(line.label),
            gid=f"mark-{i}",
        )
        axes.plot(
            [line.x[at] for at in line.marked],
            [line.y[at] for at in line.marked],
            mark(line.number),
            color=hue,
            markersize=4 if len(lines) < 8 else 3.2,
            linestyle="",
            gid=f"mark-{i}-points",
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
