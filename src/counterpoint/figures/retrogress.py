"""The retrogress curve: score against communications (PRR-FL, MICCAI 2021, figure 1).

A point for each local epoch and one right after each merge; where a line falls at a whole number,
the model has lost by communicating.
"""

from collections.abc import Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from counterpoint.figures.style import axis_name, legend, look, panels, pen, plain, scale_of
from counterpoint.results import Result
from counterpoint.runs import Run, over_seeds, require_numbers, score_of


def numbers(runs: Sequence[Run], metric: str | None = None) -> pd.DataFrame:
    """Validation score at each moment: a row a name, site, model and point of the line.

    A site that is absent in a round has no point there in that run, so that a point may be the mean
    of fewer ``runs``.
    """
    score = score_of(runs, metric)
    lines = [
        curve(rows).assign(name=run.name, metric=score, value=lambda r: r[score])
        for run in runs
        for rows in [_validation(run.result.scores)]
    ]
    if metric:  # a run draws its own figure, whatever there is to be seen
        require_numbers(pd.concat(line["value"] for line in lines), metric)
    keys = ["name", "site", "model", "communications", "moment", "metric"]
    table = over_seeds(pd.concat(lines), keys)
    # one run may have a round that an earlier one lacks; lines stay in the order they came in
    line = table.groupby(keys[:3], sort=False).ngroup()
    order = table.assign(line=line).sort_values(["line", "communications"], kind="stable").index
    return table.loc[order].reset_index(drop=True)


def _validation(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[(scores["split"] == "validation") & (scores["moment"] != "finetuned")]


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of lines: ``communications`` (the local epochs lie between two) and the scores.

    >>> rows = pd.DataFrame({"round": [0, 1, 1, 1], "epoch": [0, 1, 2, 0],
    ...                      "moment": ["start", "epoch", "epoch", "merged"]})
    >>> curve(rows)["communications"].tolist()
    [0.0, 0.5, 0.95, 1.0]
    """
    rows = rows.copy()
    epochs = max(int(rows["epoch"].max()), 1)
    between = rows["moment"] == "epoch"
    rows["communications"] = rows["round"].astype(float)
    # The last epoch stands just before the merge, so that the fall shows as a fall.
    last = max(0.95, 1 - 0.5 / epochs)
    place = (rows["epoch"] / epochs).where(rows["epoch"] < epochs, last)
    rows.loc[between, "communications"] = rows["round"] - 1 + place
    return rows.sort_values("communications", kind="stable")


Dash = Literal["-", ":"]
MANY = 20
"""Sites above which a line each can be told apart no more: their mean is drawn, and their range."""


def over_sites(numbers: pd.DataFrame) -> pd.DataFrame:
    """The mean over the sites that were scored at a moment, and between what most of them lie.

    ``low`` and ``high`` are the 10th and the 90th percentile.

    >>> rows = pd.DataFrame({"name": "m", "site": list("ab"), "model": "model", "moment": "start",
    ...                      "communications": 0.0, "metric": "dice", "mean": [0.5, 0.7]})
    >>> over_sites(rows)[["site", "mean", "low", "high"]].round(2).values.tolist()
    [['mean of 2 sites; band: the middle 80 %', 0.6, 0.52, 0.68]]
    """
    keys = ["name", "model", "communications", "moment", "metric"]
    grouped = numbers.groupby(keys, sort=False)["mean"]
    drawn = grouped.mean().reset_index()
    drawn["low"], drawn["high"] = grouped.quantile(0.1).values, grouped.quantile(0.9).values
    count = numbers["site"].nunique()
    drawn = drawn.sort_values(["name", "model", "communications"], kind="stable")
    drawn["runs"] = numbers["runs"].max() if "runs" in numbers else 1
    return drawn.assign(site=f"mean of {count} sites; band: the middle 80 %")


def style(model: str, models: list[str]) -> Dash:
    """Solid for the model that a site uses, dotted for one that only takes part in the exchange.

    >>> style("model", ["model"]), style("model", ["personal", "model"])
    ('-', ':')
    """
    return ":" if "personal" in models and model != "personal" else "-"


@look
def draw(numbers: pd.DataFrame) -> Figure:
    """A panel a method, a line a site; bands are one standard deviation over the seeds.

    Of more than 20 sites, the mean is drawn, in a band that holds the middle 80 % of them.
    """
    if numbers["site"].nunique() > MANY:
        numbers = over_sites(numbers)
    else:
        spread = numbers["spread"].fillna(0)
        numbers = numbers.assign(low=numbers["mean"] - spread, high=numbers["mean"] + spread)
    names, sites = (list(dict.fromkeys(numbers[of])) for of in ("name", "site"))
    metric = numbers["metric"].iloc[0]
    height = 1.7 if len(names) > 1 else 2.7
    figure, every = panels(len(names), 3, height=height, sharex=True, sharey=True)
    for number, (axes, name) in enumerate(zip(every, names, strict=True)):
        _panel(axes, numbers[numbers["name"] == name], sites, scale_of(metric))
        axes.set_title(plain(name, 40))
        axes.set_xlabel("communications" if number + 3 >= len(names) else "")
    if len(names) > 3:
        figure.supylabel(f"validation {axis_name(metric)}", fontsize=8)
    else:  # in the middle of the panels, however tall the legend is
        every[0].set_ylabel(f"validation {axis_name(metric)}")
    handles = [
        Line2D([], [], **pen(i) | {"linestyle": "-"}, label=plain(s)) for i, s in enumerate(sites)
    ]
    if numbers["model"].nunique() > 1:
        kinds: dict[Dash, str] = {"-": "model that the site uses", ":": "model in the exchange"}
        handles += [Line2D([], [], color="0.3", linestyle=k, label=w) for k, w in kinds.items()]
    handles.append(Line2D([], [], linestyle="", label="marks: just after a merge"))
    if numbers.groupby("name")["runs"].nunique().max() > 1:
        handles.append(Line2D([], [], linestyle="", label="means: of the runs that were there"))
    legend(figure, handles)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, sites: list[str], scale: float) -> None:
    for communication in range(1, int(rows["communications"].max()) + 1):
        axes.axvline(communication, color="0.8", linewidth=0.6, zorder=0)
    models = list(dict.fromkeys(rows["model"]))
    for key, line in rows.groupby(["site", "model"], sort=False):
        site, model = map(str, key)
        x, y, own = line["communications"], scale * line["mean"], pen(sites.index(site))
        colour = own["color"]
        axes.plot(x, y, style(model, models), color=colour)
        merged, used = line["moment"] == "merged", style(model, models) == "-"
        face = None if used else "white"
        axes.plot(x[merged], y[merged], own["marker"], color=colour, markerfacecolor=face)
        if used:
            low, high = scale * line["low"], scale * line["high"]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.grid(visible=False, axis="x")


def retrogress_curve(result: Result) -> Figure:
    """One run's validation scores against communications, a line a site."""
    values = result.results
    title = f"{values['method']} on {values['data']}, batch norm: {values['statistics']}"
    return draw(numbers([Run(result, name=title)]))
