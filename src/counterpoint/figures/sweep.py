"""A sweep: test score against a setting (HarmoFL's alpha and local epochs, PFA's threshold).

The mean over the sites and the worst site; a line for each value of a second setting, or a method.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from counterpoint.errors import SettingsError
from counterpoint.figures.dots import MEAN, by_site
from counterpoint.figures.style import axis_name, legend, look, panels, pen, plain, scale_of
from counterpoint.runs import (
    LOWER_IS_BETTER,
    Run,
    over_seeds,
    said,
    score_of,
    setting_named,
    short,
    varying,
)

SYMBOLS = {"perturbation": "perturbation α", "aggregation.start": "PFA threshold at the start"}


def numbers(
    runs: Sequence[Run], metric: str | None = None, x: str | None = None, lines: str | None = None
) -> pd.DataFrame:
    """Test scores over the seeds: a row a value of ``x``, a line, and a way to take the sites.

    Args:
        runs: what to draw; those that do not have the setting are left out.
        metric: the score.
        x: setting on the axis; found if one or two settings vary.
        lines: setting (or "method") that has a line for each of its values.

    Raises:
        SettingsError: if nothing varies, or it is not clear what should be drawn against what.
    """
    score = score_of(runs, metric)
    across, beside = _chosen(runs, x, lines)
    rows = []
    having = [run for run in runs if run[across] is not None]
    scores, but = by_site(having, score)
    for run, own in zip(having, scores, strict=True):
        line = "" if beside is None else run.method if beside == "method" else said(run, beside)
        worst = own.max() if score in LOWER_IS_BETTER else own.min()
        for of, value in ((MEAN, own.mean()), ("worst site", worst)):
            rows.append((score, across, _plain(run[across]), line, f"{of}{but}", value))
    columns = ["metric", "setting", "x", "line", "of", "value"]
    table = over_seeds(pd.DataFrame(rows, columns=columns), columns[:-1])
    return table.sort_values(["of", "line", "x"], kind="stable", key=_order).reset_index(drop=True)


def _plain(value: Any) -> float | str:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _order(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Numbers by size, before texts in the order in which they came."""
    try:
        return column.astype(float)
    except (TypeError, ValueError):
        return pd.Series(pd.factorize(column)[0], index=column.index)


def _chosen(runs: Sequence[Run], x: str | None, lines: str | None) -> tuple[str, str | None]:
    """The setting on the axis, and what has a line for each value.

    What follows from these two, such as local epochs that a budget has halved, may vary as well.
    """
    methods = list(dict.fromkeys(run.method for run in runs))
    beside = setting_named(lines, runs) if lines else "method" if len(methods) > 1 else None
    across = setting_named(x, runs) if x else _best(runs, left(runs, beside), beside)
    wanted, values = across or "perturbation", {repr(run[across]) for run in runs if across}
    if len(values) < 2:
        raise SettingsError(
            f"these runs of {' and '.join(methods)} do not differ in "
            f"{across or 'anything but their seeds'}, so there is nothing to sweep over; make some "
            f"by `counterpoint compare {methods[0]} --data DATA --vary {wanted}=VALUE,VALUE --out "
            "STUDY`"
        )
    assert across
    beside = beside or _best(runs, left(runs, across), across)
    if others := left(runs, across, beside):
        raise SettingsError(
            f"beside {' and '.join(filter(None, (across, beside)))}, the runs differ in "
            f"{' and '.join(others)}; choose one for --x, one for --lines, and a value for each "
            f"other by --where {others[0]}=VALUE"
        )
    return across, beside


def left(runs: Sequence[Run], *keys: str | None) -> list[str]:
    """Settings that vary among runs that are alike in some settings."""
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(repr([run[key] for key in keys if key]), []).append(run)
    return list(dict.fromkeys(name for alike in cells.values() for name in varying(alike)))


def _best(runs: Sequence[Run], settings: Sequence[str], *keys: str | None) -> str | None:
    """The setting that leaves fewest others varying; among equals numbers, and most values."""

    def order(setting: str) -> tuple[int, bool, int]:
        values = {repr(run[setting]): run[setting] for run in runs if run[setting] is not None}
        words = any(isinstance(value, str | bool) for value in values.values())
        return len(left(runs, setting, *keys)), words, -len(values)

    return min(settings, key=order, default=None)


def scale_for(values: Sequence[Any]) -> Literal["log", "linear", "even"]:
    """How an axis shows values: words, and zero among far smaller steps, stand evenly apart.

    >>> scale_for([0.005, 0.05, 0.5]), scale_for([1, 2, 5]), scale_for([0, 0.005, 0.5])
    ('log', 'linear', 'even')
    """
    if any(isinstance(value, str) for value in values):
        return "even"
    steps = sorted(abs(value) for value in values if value)
    if not steps or steps[-1] < 10 * steps[0]:
        return "linear"
    return "log" if len(steps) == len(values) and min(values) > 0 else "even"


@look
def draw(numbers: pd.DataFrame) -> Figure:
    """Panels for the mean and the worst site; bars are one standard deviation over the seeds."""
    kinds, lines = (list(dict.fromkeys(numbers[of])) for of in ("of", "line"))
    metric, setting = numbers["metric"].iloc[0], numbers["setting"].iloc[0]
    values = sorted(dict.fromkeys(numbers["x"].tolist()), key=_by_size)
    figure, every = panels(len(kinds), 2, height=2.0, sharex=True, sharey=True)
    for axes, kind in zip(every, kinds, strict=True):
        for number, line in enumerate(lines):
            rows = numbers[(numbers["of"] == kind) & (numbers["line"] == line)]
            _line(axes, rows, values, scale_of(metric), number)
        _axis(axes, values)
        axes.set_title(plain(kind, 48))
        axes.set_xlabel(SYMBOLS.get(setting, short(setting)))
    every[0].set_ylabel(f"test {axis_name(metric)}")
    if len(lines) > 1:
        legend(figure, every[0].containers)
    return figure


def _by_size(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _line(axes: Axes, rows: pd.DataFrame, values: list[Any], scale: float, number: int) -> None:
    even = scale_for(values) == "even"
    rows = rows.iloc[np.argsort([values.index(x) for x in rows["x"]])]  # the line runs to the right
    axes.errorbar(
        [values.index(x) if even else x for x in rows["x"]],
        scale * rows["mean"],
        yerr=scale * rows["spread"].fillna(0),
        **pen(number),
        elinewidth=0.7,
        capsize=2,
        label=plain(rows["line"].iloc[0]),
    )


def _axis(axes: Axes, values: list[Any]) -> None:
    scale = scale_for(values)
    if scale == "log":
        axes.set_xscale("log")
    places = list(range(len(values))) if scale == "even" else values
    words = [f"{value:g}" if isinstance(value, float) else plain(value, 14) for value in values]
    axes.set_xticks(places, words)
    axes.minorticks_off()
