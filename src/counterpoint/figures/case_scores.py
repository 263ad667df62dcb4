"""How well each test case came out: a point a case, the mean as a bar."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from counterpoint.figures.style import INK, colour, mark, plain


@dataclass(frozen=True)
class CaseScores:
    """A method's scores of a site's test cases."""

    label: str
    number: int
    values: Sequence[float]


def draw_case_scores(axes: Axes, rows: Sequence[CaseScores], xlabel: str) -> None:
    """A row a method, the first on top."""
    for i, row in enumerate(rows):
        height = np.linspace(-0.16, 0.16, max(len(row.values), 2))[: len(row.values)]
        axes.plot(
            row.values,
            i + height,
            mark(row.number),
            color=colour(row.number),
            alpha=0.65,
            markersize=5,
            markeredgewidth=0,
            gid=f"mark-{i}-points",
        )
        if len(row.values):
            middle = float(np.mean(row.values))
            axes.vlines(middle, i - 0.3, i + 0.3, color=INK, linewidth=1.6, gid=f"mark-{i}")
    axes.set_yticks(range(len(rows)), [plain(row.label, 24) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(xlabel)
