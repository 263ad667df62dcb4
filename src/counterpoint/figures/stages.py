"""Stages of deputy-enhanced transfer over time, a row a site (PRR-FL, MICCAI 2021, section 2.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from counterpoint.figures.style import colour, plain

STAGES = {"recover": 2, "exchange": 5, "sublimate": 1}
"""The stages, and which colour each has."""


@dataclass(frozen=True)
class Stretch:
    """A stage that lasts from one moment to another, counted in communications."""

    stage: str
    start: float
    end: float


def draw_stages(axes: Axes, rows: Mapping[str, Sequence[Stretch]], legend: bool = True) -> None:
    """Draw bars; their letters tell the stage too, where there is room."""
    last = max((s.end for stretches in rows.values() for s in stretches), default=1.0)
    number = 0
    for place, stretches in enumerate(rows.values()):
        for stretch in stretches:
            width = stretch.end - stretch.start
            axes.barh(
                place,
                width,
                left=stretch.start,
                height=0.72,
                color=colour(STAGES.get(stretch.stage, 0)),
                alpha=0.75,
                edgecolor="none",
                gid=f"mark-{number}-shape",
            )
            if width > 0.025 * last:
                middle = stretch.start + width / 2
                axes.text(middle, place, stretch.stage[:1].upper(), ha="center", va="center")
            number += 1
    axes.set_yticks(range(len(rows)), [plain(name, 20, lines=1) for name in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("communications")
    if legend:
        known = [Patch(color=colour(number), alpha=0.75, label=n) for n, number in STAGES.items()]
        axes.legend(handles=known, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
