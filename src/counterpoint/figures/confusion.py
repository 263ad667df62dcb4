"""A confusion matrix: what the images are (rows) against what the model calls them (columns)."""

from dataclasses import dataclass
from textwrap import fill

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from counterpoint.figures.style import LINE, colour, plain


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts (classes, classes): rows are the truth."""

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each row as shares of its class; 0 for a class without images."""
        shares: npt.NDArray[np.float64] = self.counts / np.maximum(
            self.counts.sum(1, keepdims=True), 1
        )
        return shares


def draw_confusion(axes: Axes, table: Confusion) -> None:
    """Cells with the share of their row in percent, and the count below it."""
    names = [plain(name, 24, lines=1) for name in table.classes]
    broken = [fill(name, 11) for name in names]
    places = range(len(names))
    for row in places:
        for column in places:
            share = float(table.shares[row, column])
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=colour(1),
                    alpha=0.04 + 0.5 * share,
                    gid=f"mark-{row * len(names) + column}-shape",
                )
            )
            axes.text(column, row - 0.08, f"{100 * share:.0f} %", ha="center", va="center")
            count = f"{table.counts[row, column]:d}"
            axes.text(column, row + 0.24, count, ha="center", va="center", fontsize=9)
    for place in range(1, len(names)):
        axes.axhline(place - 0.5, color=LINE, linewidth=0.8)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(places, broken)
    axes.set_yticks(places, broken)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("the model says")
    axes.set_ylabel("the image is")
