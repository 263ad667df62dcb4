"""The loss landscape around the global and local optima (HarmoFL, AAAI 2022, figure 1).

What it shows is computed in `counterpoint.landscape`. A row a method and a column a site; axes are
the same everywhere, colours the same within a site.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from counterpoint.figures.style import PAGE, colour, legend, look, panels, pen, plain
from counterpoint.landscape.numbers import GLOBAL
from counterpoint.landscape.numbers import numbers as numbers

STEPS, COLOURS = 14, "cividis"
BESIDE = 4
"""Sites beside one another."""
STAR: dict[str, Any] = {
    "marker": "*",
    "color": colour(2),
    "markeredgecolor": "white",
    "markersize": 9,
}
OWN: dict[str, Any] = {"marker": "o", "color": colour(2), "markeredgecolor": "black"}
OTHER = OWN | {"color": "white"}
MARKS = {
    "global optimum": STAR,
    "optimum of the panel's site": OWN,
    "optimum of another site": OTHER,
}


@look
def draw(numbers: pd.DataFrame) -> Figure:
    """Lines with a panel a site, or contours with a row a method and a column a site."""
    shape = numbers["shape"].iloc[0]
    figure = _lines(numbers) if shape == "line" else _contours(numbers, shape == "plane")
    figure.suptitle(caption(numbers), fontsize=7)
    return figure


def caption(numbers: pd.DataFrame) -> str:
    """How it was measured, in words: images, split, and batch norm's statistics a method."""
    most, split = numbers["images"].max(), numbers["split"].iloc[0]
    count = most if numbers["images"].min() == most else f"up to {most}"
    sources: dict[str, list[str]] = {}
    for row in numbers.drop_duplicates("name").to_dict("records"):
        sources.setdefault(str(row["statistics"]), []).append(plain(row["name"], 60))
    words = "; ".join(
        source if len(sources) == 1 else f"{source} ({', '.join(names)})"
        for source, names in sources.items()
    )
    return f"loss on {count} {split} images a site; batch norm: {words}"


def _lines(numbers: pd.DataFrame) -> Figure:
    """Mean over the directions, and between which losses they lie."""
    sites, names = (list(dict.fromkeys(numbers[of])) for of in ("site", "name"))
    figure, every = panels(len(sites), 4, height=1.7, sharex=True)
    for axes, site in zip(every, sites, strict=True):
        here = numbers[numbers["site"] == site]
        for number, name in enumerate(names):
            of = here[here["name"] == name].groupby("x")["loss"].agg(["mean", "min", "max"])
            look_of = pen(number) | {"marker": None}
            axes.plot(of.index, of["mean"], **look_of, label=plain(name))
            axes.fill_between(
                of.index, of["min"], of["max"], color=look_of["color"], alpha=0.15, linewidth=0
            )
        axes.set_title(plain(site, 24))
        axes.set_ylim(*_clipped(here["loss"]))
        axes.set_xlabel("step (filter lengths)")
    every[0].set_ylabel("loss")
    legend(figure, every[0].get_lines())
    return figure


def _clipped(losses: "pd.Series[float]") -> tuple[float, float]:
    """Ends of an axis of losses, which may explode far away."""
    losses = losses[np.isfinite(losses)]
    if losses.empty:
        return 0.0, 1.0
    low, usual = float(losses.min()), float(losses.quantile(0.9))
    room = max(usual - low, 1e-6)
    return low - 0.08 * room, usual + 0.3 * room


def _contours(numbers: pd.DataFrame, plane: bool) -> Figure:
    """Blocks of up to four sites, a column each, with a row a method."""
    sites, names = (list(dict.fromkeys(numbers[of])) for of in ("site", "name"))
    columns = min(len(sites), BESIDE)
    blocks = -(-len(sites) // columns)
    side = min(PAGE / columns, 2.4)
    high = blocks * (side * len(names) + 0.9) + 0.3
    figure = Figure(figsize=(max(side * columns + 0.6, 3.0), high), layout="constrained")
    grid = figure.subplots(
        blocks * len(names), columns, squeeze=False, sharex=True, sharey=True
    ).reshape(blocks, len(names), columns)
    for number in range(blocks * columns):
        block, column = divmod(number, columns)
        if number >= len(sites):
            for left_over in grid[block, :, column]:
                left_over.remove()
            continue
        here = numbers[numbers["site"] == sites[number]]
        levels = levels_of(here["loss"])
        norm = LogNorm(levels[0], levels[-1])
        for axes, name in zip(grid[block, :, column], names, strict=True):
            _contour(axes, here[here["name"] == name], levels, norm)
            axes.set_ylabel(plain(name, 18) if column == 0 else "")
            axes.set_aspect("equal")
        grid[block, 0, column].set_title(plain(sites[number], int(side * 12)))
        lowest = grid[block, -1, column]
        lowest.set_xlabel("distance of the weights" if plane else "step (filter lengths)")
        lowest.tick_params(labelbottom=True)
        figure.colorbar(
            ScalarMappable(norm, COLOURS),
            ax=list(grid[block, :, column]),
            location="bottom",
            extend="max",
            label="loss",
            ticks=levels[[1, STEPS // 2, STEPS - 2]],
            format="%.3g",
        ).minorticks_off()
    if plane:
        legend(figure, [Line2D([], [], linestyle="", **of, label=w) for w, of in MARKS.items()])
    return figure


def levels_of(losses: "pd.Series[float]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Levels of contours, closer where the loss is low; the highest tenth is not told apart.

    >>> levels_of(pd.Series([1.0, 10.0] + [100.0] * 8))[[0, -1]]
    array([  1., 100.])
    """
    finite = losses[np.isfinite(losses) & (losses > 0)]
    if finite.empty:
        finite = pd.Series([1.0])
    low, high = float(finite.min()), float(finite.quantile(0.9))
    return np.geomspace(low, max(high, low * 1.01), STEPS)


def _contour(axes: Axes, rows: pd.DataFrame, levels: Any, norm: LogNorm) -> None:
    """One surface, with the models on it where they are marked."""
    ground = rows[rows["mark"].isna()].pivot(index="y", columns="x", values="loss")
    heights = np.clip(np.nan_to_num(ground.to_numpy(), nan=np.inf), levels[0], levels[-1] * 1.001)
    where = (ground.columns.to_numpy(), ground.index.to_numpy())
    axes.contourf(*where, heights, levels, norm=norm, cmap=COLOURS, extend="max")
    axes.contour(*where, heights, levels, colors="white", linewidths=0.3)
    marks = rows[rows["mark"].notna()]
    for mark in marks[marks["mark"] != GLOBAL].to_dict("records"):
        own, at = mark["mark"] == mark["site"], (mark["x"], mark["y"])
        axes.plot(*at, linestyle="", **(OWN if own else OTHER))
        axes.annotate(
            plain(mark["mark"]),
            at,
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=6,
            color="white",
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "black", "alpha": 0.4, "linewidth": 0},
        )
    if marks.empty:
        axes.plot(0, 0, "+", color="white", markersize=6)
    else:
        axes.plot(0, 0, linestyle="", **STAR)
    axes.grid(visible=False)
