"""From numbers to a block of figures: one small figure a panel, and one file with all of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from counterpoint.figures.style import SCREEN, legend, panels, plain
from counterpoint.report.page.blocks import Entry, Picture, Pictures, Table
from counterpoint.report.page.runs import Arm, Study
from counterpoint.report.page.svg import Mark, to_svg

Data = TypeVar("Data")
MOST_AT_FIRST = 8
"""Methods that are shown at first; more lines than that nobody can follow."""


def pictures(
    name: str,
    panels: Mapping[str, Data],
    draw: Callable[[Axes, Data], None],
    marks: Callable[[str, Data], Sequence[Mark]],
    words: Callable[[str, Data], str],
    table: Callable[[str, Data], Table],
    *,
    legend: Sequence[Entry] = (),
    key: str = "",
    size: tuple[float, float] = (5.2, 3.2),
    file_draw: Callable[[Axes, Data], None] | None = None,
    small: bool = False,
) -> Pictures:
    """Draw each panel as a figure of its own.

    Args:
        name: of the block; figures are named after it, and so is its file.
        panels: what to draw, by title.
        draw: draws a panel.
        marks: what the page knows of a panel's marks, by their numbers.
        words: what a panel shows, in words.
        table: the same as a table.
        legend: names the series for all panels.
        key: says what kinds of lines and marks there are.
        size: width and height of a panel in inches.
        file_draw: draws a panel in the file, if otherwise than in the page.
        small: whether more than two fit side by side.
    """
    made = []
    for number, (title, data) in enumerate(panels.items()):
        ident = f"{name}-{number}"
        figure = panelled({title: data}, draw, size, titles=False)
        svg = to_svg(figure, ident, words(title, data), marks(title, data))
        text = words(title, data)
        made.append(Picture(ident, title, svg, text, table(title, data)))
    whole = partial(panelled, panels, file_draw or draw, size, named=bool(legend))
    return Pictures(made, name, whole, legend, key, small)


@mpl.rc_context(SCREEN)
def panelled(
    data: Mapping[str, Data],
    draw: Callable[[Axes, Data], None],
    size: tuple[float, float] = (5.2, 3.2),
    titles: bool = True,
    named: bool = False,
) -> Figure:
    """A figure with a panel of some size for each name, up to three side by side.

    ``named`` puts a legend below them, of what they have in common.
    """
    columns = min(len(data), 2 if len(data) == 4 else 3)
    figure, every = panels(len(data), columns, size[0] * columns, size[1], room=0.6 * named)
    for axes, (name, of_panel) in zip(every, data.items(), strict=True):
        draw(axes, of_panel)
        axes.set_title(plain(name, 40, lines=1) if titles else "")
    if named:
        legend(figure, [handle for axes in every for handle in axes.get_legend_handles_labels()[0]])
    return figure


def legend_of(study: Study) -> list[Entry]:
    """A legend with an entry an arm; of many, only the best of each kind and some others show."""
    if len(study.arms) < 2:
        return []
    ranked = [*study.headline, *(arm for arm in study.arms if arm not in study.headline)]
    shown = ranked[:MOST_AT_FIRST]
    return [Entry(arm.key, arm.label, number_of(arm), shown=arm in shown) for arm in study.arms]


def number_of(arm: Arm) -> int:
    """The number of an arm's colour."""
    return int(arm.key[1:])
