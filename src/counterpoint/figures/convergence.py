"""Convergence: validation score and loss against rounds, gradients or bytes (HarmoFL, figure 5a).

Scores are the mean over the sites, just after each merge, of the models that the sites use. Methods
that take two gradients for an image, or send less, are compared fairly only with ``against``
"gradients" (images that a gradient was computed for) or "bytes" (up and down, of one site).
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from counterpoint.errors import SettingsError, nearest
from counterpoint.figures.style import axis_name, legend, look, panels, pen, plain, scale_of
from counterpoint.results import read_log
from counterpoint.runs import Run, over_seeds, predicting, require_numbers, score_of

AGAINST = {
    "rounds": ("rounds", 1.0),
    "gradients": ("gradients (thousand images, all sites)", 1e3),
    "bytes": ("sent and received (MB a site)", 1e6),
}
"""What may be on the axis: its name there, and the unit that it is divided by."""


def numbers(
    runs: Sequence[Run], metric: str | None = None, against: str = "rounds"
) -> pd.DataFrame:
    """Validation score and loss after each round: a row a name, metric and round.

    They are means over the sites; of one that was absent, the score before counts.

    Raises:
        SettingsError: if ``against`` or ``metric`` is unknown.
    """
    if against not in AGAINST:
        hint = nearest(against, list(AGAINST))
        raise SettingsError(f"--against {against} is unknown{hint}; it is {', '.join(AGAINST)}")
    score = score_of(runs, metric)
    rows = []
    for run in runs:
        validation = predicting(run)
        after = validation[validation["moment"].isin(["start", "merged"])]
        cost = cost_of(run, against)
        for one in dict.fromkeys((score, "loss")):
            by_site = after.pivot_table(one, "round", "site").sort_index().ffill()
            for round, value in by_site.mean(axis=1).items():
                rows.append((run.name, one, against, round, cost[int(str(round))], value))
    table = pd.DataFrame(rows, columns=["name", "metric", "against", "round", "cost", "value"])
    require_numbers(table.loc[table["metric"] == score, "value"], score)
    keys = ["name", "metric", "against", "round"]
    costs = table.groupby(keys, sort=False)["cost"].mean().reset_index()
    return costs.merge(over_seeds(table, keys), on=keys)


def cost_of(run: Run, against: str) -> list[float]:
    """What a run has cost by the end of round 0 (nothing), 1, 2, ...

    Gradients are known in all and spread evenly over the epochs, which differ only where some
    sites are absent.
    """
    rounds = int(run.result.results["rounds"])
    if against == "rounds":
        return [float(round) for round in range(rounds + 1)]
    if against == "gradients":
        epochs = run["schedule.local_epochs"] * rounds
        share = epochs / (epochs + run["schedule.finetune_epochs"])
        each = share * run.result.results["images_with_gradient"] / rounds
        return [round * each for round in range(rounds + 1)]
    payloads = read_log(run.result.path / "payloads.csv")
    sites = max(len(set(payloads["site"])), 1)
    each_round = payloads.groupby("round")["bytes"].sum()
    return [
        float(each_round[each_round.index <= round].sum()) / sites for round in range(rounds + 1)
    ]


@look
def draw(numbers: pd.DataFrame) -> Figure:
    """A panel a metric, a line a name; bands are one standard deviation over the seeds."""
    metrics, names = (list(dict.fromkeys(numbers[of])) for of in ("metric", "name"))
    label, unit = AGAINST[numbers["against"].iloc[0]]
    figure, every = panels(len(metrics), 2, height=2.1)
    for axes, metric in zip(every, metrics, strict=True):
        for number, name in enumerate(names):
            line = numbers[(numbers["metric"] == metric) & (numbers["name"] == name)]
            _line(axes, line, scale_of(metric), unit, number)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=label == "rounds"))
        axes.set_xlabel(label)
        axes.set_ylabel(f"validation {axis_name(metric)}")
    legend(figure, every[0].get_lines())
    return figure


def _line(axes: Axes, line: pd.DataFrame, scale: float, unit: float, number: int) -> None:
    x, y, spread = line["cost"] / unit, scale * line["mean"], scale * line["spread"].fillna(0)
    axes.plot(
        x, y, **pen(number), label=plain(line["name"].iloc[0]), markevery=max(1, len(x) // 12)
    )
    axes.fill_between(
        x, y - spread, y + spread, color=pen(number)["color"], alpha=0.15, linewidth=0
    )
