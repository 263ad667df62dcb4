"""Test scores as dots: a row a method or composition, a dot a site, the mean in black.

What the figures `sites` and `ablation` share.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from counterpoint.figures.gather import Run, over_seeds
from counterpoint.figures.style import PAGE, axis_name, legend, look, pen, plain, scale_of

MEAN = "mean over sites"


def test_scores(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Test score of each site, and their mean, over the seeds: a row a name and site.

    ``of`` is "site", "held out" for a site that did not train, or "mean", which is without that.
    """
    rows = []
    for run in runs:
        values = run.result.results
        for site, scores in values["test"].items():
            kind = "held out" if site == values["holdout"] else "site"
            rows.append((run.name, metric, kind, site, scores[metric]))
        rows.append((run.name, metric, "mean", MEAN, values["mean"][metric]))
    table = pd.DataFrame(rows, columns=["name", "metric", "of", "site", "value"])
    return over_seeds(table.astype({"value": float}), ["name", "metric", "of", "site"])


@look
def draw(numbers: pd.DataFrame) -> Figure:
    """A row a name, a dot a site, the mean in black; bars are one standard deviation over seeds."""
    names = list(dict.fromkeys(numbers["name"]))
    sites = list(dict.fromkeys(numbers.loc[numbers["of"] != "mean", "site"]))
    metric = numbers["metric"].iloc[0]
    figure = Figure(figsize=(PAGE * 0.75, 0.9 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    for row in numbers.itertuples():
        at, mean = names.index(row.name), row.of == "mean"
        number = -1 if mean else sites.index(row.site)
        look_of = {"color": "black", "marker": "D"} if mean else pen(number) | {"linestyle": ""}
        aside = 0.0 if mean else 0.3 * (number - (len(sites) - 1) / 2) / max(len(sites), 1)
        axes.errorbar(
            scale_of(metric) * row.mean,
            at + aside,
            xerr=None if pd.isna(row.spread) else scale_of(metric) * row.spread,
            **look_of,
            markersize=5 if mean else 3.5,
            markerfacecolor="white" if row.of == "held out" else None,
            elinewidth=1.0 if mean else 0.6,
            zorder=3 if mean else 2,
        )
    axes.set_yticks(range(len(names)), [plain(name, 34) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"test {axis_name(metric)}")
    legend(figure, _handles(numbers, sites))
    return figure


def _handles(numbers: pd.DataFrame, sites: list[str]) -> list[Line2D]:
    held_out = set(numbers.loc[numbers["of"] == "held out", "site"])
    handles = [
        Line2D(
            [],
            [],
            **(pen(number) | {"linestyle": ""}),
            markerfacecolor="white" if site in held_out else None,
            label=plain(f"{site} (did not train)" if site in held_out else site),
        )
        for number, site in enumerate(sites)
    ]
    return [*handles, Line2D([], [], color="black", marker="D", linestyle="", label=MEAN)]
