"""Test scores as dots: a row a method or composition, a dot a site, the mean in black.

What the figures `sites` and `ablation` share.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from counterpoint.figures.style import INK, PAGE, axis_name, legend, look, pen, plain, scale_of
from counterpoint.runs import Run, over_seeds, require_numbers, undefined

MEAN = "mean over sites"


def by_site(runs: Sequence[Run], metric: str) -> tuple[list[pd.Series], str]:
    """Each run's test scores that means are over, and the words for the sites that these lack.

    They are those of all sites that trained, but for such at which some run has no such score:
    means over different sites are not compared.

    Raises:
        SettingsError: if no site has one.
    """
    rows = [
        (number, site, site != run.result.results["holdout"], scores[metric])
        for number, run in enumerate(runs)
        for site, scores in run.result.results["test"].items()
    ]
    table = pd.DataFrame(rows, columns=["run", "site", "trained", metric]).astype({metric: float})
    table = table[table["trained"]]
    require_numbers(table[metric], metric)
    lost = undefined(table, metric)
    used = table[~table["site"].isin(lost)]
    but = f" without {', '.join(lost)}" if lost else ""
    if used[metric].isna().any():  # every site lacks it in some run
        but = " with a score"
    return [scores[metric] for _, scores in used.groupby("run")], but


def test_scores(runs: Sequence[Run], metric: str) -> pd.DataFrame:
    """Test score of each site, and their mean, over the seeds: a row a name and site.

    ``of`` is "site", "held out" for a site that did not train, or "mean", which is without that.
    """
    rows = []
    means, but = by_site(runs, metric)
    for run, of_run in zip(runs, means, strict=True):
        values = run.result.results
        for site, scores in values["test"].items():
            kind = "held out" if site == values["holdout"] else "site"
            rows.append((run.name, metric, kind, site, scores[metric]))
        rows.append((run.name, metric, "mean", f"{MEAN}{but}", of_run.mean()))
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
    scale, held_out = scale_of(metric), set(numbers.loc[numbers["of"] == "held out", "site"])
    for row in numbers.to_dict("records"):
        mean = row["of"] == "mean"
        place = 0.0 if mean else 0.3 * ((sites.index(row["site"]) + 0.5) / len(sites) - 0.5)
        axes.errorbar(
            scale * row["mean"],
            names.index(row["name"]) + place,
            xerr=None if np.isnan(row["spread"]) else scale * row["spread"],
            elinewidth=1.0 if mean else 0.6,
            zorder=3 if mean else 2,
            **_dot(sites, "" if mean else row["site"], held_out),
        )
    axes.set_yticks(range(len(names)), [plain(name, 34) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"test {axis_name(metric)}")
    handles = [
        Line2D([], [], **_dot(sites, site, held_out), label=_in_words(site, held_out))
        for site in sites
    ]
    mean_of = plain(numbers.loc[numbers["of"] == "mean", "site"].iloc[0])
    legend(figure, [*handles, Line2D([], [], **_dot(sites, "", held_out), label=mean_of)])
    return figure


def _dot(sites: list[str], site: str, held_out: set[str]) -> dict[str, Any]:
    """How a site's dot looks; an empty name is that of the mean."""
    if not site:
        return {"color": INK, "marker": "d", "markersize": 5, "linestyle": ""}
    face = "white" if site in held_out else None
    return pen(sites.index(site)) | {"linestyle": "", "markerfacecolor": face}


def _in_words(site: str, held_out: set[str]) -> str:
    return plain(f"{site} (did not train)" if site in held_out else site)
