"""Who gains and who loses by joining: differences to training alone, with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from counterpoint.figures.style import INK, colour, mark, plain


@dataclass(frozen=True)
class Gain:
    """A method's difference to training alone, and the ends of its interval (may be NaN)."""

    label: str
    number: int
    value: float
    low: float
    high: float


def draw_gains(axes: Axes, gains: Sequence[Gain], unit: str) -> None:
    """A row a method, the first on top; right of the line at zero is better than alone."""
    axes.axvline(0, color=INK, linewidth=1)
    for i, gain in enumerate(gains):
        if not math.isnan(gain.low):
            axes.hlines(
                i, gain.low, gain.high, color=colour(gain.number), linewidth=2, gid=f"mark-{i}"
            )
        axes.plot(
            [gain.value],
            [i],
            mark(gain.number),
            color=colour(gain.number),
            markersize=7,
            gid=f"mark-{i}-points",
        )
    axes.set_yticks(range(len(gains)), [plain(gain.label, 24) for gain in gains])
    axes.set_ylim(max(len(gains), 1) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"difference to training alone ({unit})")
