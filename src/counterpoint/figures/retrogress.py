"""The retrogress curve: score against communications (PRR-FL, MICCAI 2021, figure 1).

A point for each local epoch and one right after each merge; where a line falls at a whole number,
the model has lost by communicating.
"""

from typing import Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from counterpoint.report.words import heading
from counterpoint.results import Result


def style(model: str, models: list[str]) -> Literal["-", ":"]:
    """Solid for the model that a site uses, dotted for one that only takes part in the exchange.

    >>> style("model", ["model"]), style("model", ["personal", "model"])
    ('-', ':')
    """
    return ":" if "personal" in models and model != "personal" else "-"


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Points of one line: ``communications`` (the local epochs lie between two) and the scores.

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
    place = (rows["epoch"] / epochs).clip(upper=0.95)
    rows.loc[between, "communications"] = rows["round"] - 1 + place
    return rows.sort_values("communications", kind="stable")


def plot_retrogress(
    axes: Axes, scores: pd.DataFrame, title: str, legend: bool = True, metric: str = "macro_f1"
) -> None:
    """Draw one run's validation scores into ``axes``, one line a site and model."""
    rows = scores[(scores["split"] == "validation") & (scores["moment"] != "finetuned")]
    colours = mpl.colormaps["tab10"]
    models = list(dict.fromkeys(rows["model"]))
    for number, (site, of_site) in enumerate(rows.groupby("site", sort=False)):
        for model in models:
            line = curve(of_site[of_site["model"] == model])
            axes.plot(
                line["communications"],
                100 * line[metric],
                style(model, models),
                color=colours(number % 10),
                linewidth=1.4,
                label=str(site) if model == models[0] else None,
            )
            merged = line[line["moment"] == "merged"]
            axes.plot(
                merged["communications"],
                100 * merged[metric],
                "o",
                color=colours(number % 10),
                markersize=3.5,
            )
    for communication in range(1, int(rows["round"].max()) + 1):
        axes.axvline(communication, color="0.85", linewidth=0.8, zorder=0)
    handles, _ = axes.get_legend_handles_labels()
    if len(models) > 1:
        handles += [
            Line2D([], [], color="0.3", linestyle=style(m, models), label=m) for m in models
        ]
    handles.append(
        Line2D([], [], color="0.3", marker="o", linestyle="", label="just after a merge")
    )
    if legend:
        axes.legend(
            handles=handles, fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
        )
    axes.set_xlabel("communications")
    axes.set_ylabel(f"validation {heading(metric, unit=False)} (%)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def retrogress_curve(result: Result) -> Figure:
    """One run's validation scores against communications, a line a site."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    values = result.results
    title = f"{values['method']} on {values['data']}, batch norm: {values['statistics']}"
    plot_retrogress(figure.subplots(), result.scores, title, metric=values["score"])
    return figure
