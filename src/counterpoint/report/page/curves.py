"""Scores and losses over time: retrogress curves and training curves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from counterpoint.figures.lines import Line, draw_lines
from counterpoint.figures.retrogress import curve
from counterpoint.report.page.blocks import Block, Cell, Entry, Section, Table, Text
from counterpoint.report.page.pictures import legend_of, number_of, pictures
from counterpoint.report.page.runs import Arm, Study
from counterpoint.report.page.svg import Mark
from counterpoint.report.page.words import listed, named, points
from counterpoint.report.words import number, unit_of

MOST_MARKS = 40
"""Marks on a line that can be pointed at; more would hide it."""


@dataclass(frozen=True)
class Track:
    """A line with what the page says of it."""

    arm: Arm
    series: str
    line: Line
    tips: Sequence[str]


def retrogress(study: Study) -> Section:
    """Validation scores against communications."""
    metric = study.score
    scale = 100 if unit_of(metric) == "%" else 1
    panels = {
        site: [
            track
            for arm in study.arms
            for track in _tracks(study, arm, site, metric, scale, lambda rows: rows)
        ]
        for site in study.training_sites
    }
    ylabel = f"validation {named(metric)} ({unit_of(metric)})"
    figure = _figure(study, "retrogress", panels, ylabel, f"{named(metric)} on validation images")
    blocks: list[Block] = [
        Text(
            "Retrogress is what a model loses by a communication: where a line falls at a mark, "
            "the hospital's model was better just before the common weights were merged in."
        ),
        figure,
        _losses(study),
    ]
    return Section("retrogress", "Retrogress curves", blocks)


def _losses(study: Study) -> Table:
    """Mean retrogress of each arm's models."""
    head = ["Method", "Model", *study.training_sites, "Mean"]
    rows: list[list[str | Cell]] = []
    for arm in study.arms:
        for model in _models(arm):
            drops = [_drops(arm, model, site, study.score) for site in study.training_sites]
            there = [drop for drop in drops if not math.isnan(drop)]
            mean = sum(there) / len(there) if there else float("nan")
            used = model == arm.first.result.predicts
            name = "used at the hospital" if used else "taking part only"
            cells = [points(study.score, -drop) for drop in [*drops, mean]]
            rows.append([arm.label, f"{model} ({name})", *cells])
    caption = (
        f"Change of validation {named(study.score)} at a communication, mean over the rounds; "
        "negative is retrogress"
    )
    return Table(caption, head, rows)


def _drops(arm: Arm, model: str, site: str, metric: str) -> float:
    from counterpoint.results import retrogress as drops_of

    found = [drops_of(run.result.scores, metric) for run in arm.runs]
    chosen = [t[(t["model"] == model) & (t["site"] == site)]["retrogress"] for t in found]
    values = pd.concat(chosen)
    return float(values.mean()) if len(values) else float("nan")


def training(study: Study) -> Section:
    """Losses in training and on validation images."""
    panels = {
        site: [
            track
            for arm in study.arms
            for track in [
                *_tracks(study, arm, site, "train_loss", 1, _in_training, only_used=True),
                *_tracks(study, arm, site, "loss", 1, _in_training, only_used=True, dash="--"),
            ]
        ]
        for site in study.training_sites
    }
    figure = _figure(study, "training", panels, "loss", "training and validation loss")
    text = (
        "Solid: the loss in training, which is what a step makes smaller. Dashed: the same on "
        "validation images. Where the dashed line rises while the solid one falls, the model "
        "learns its training images by heart. Losses of methods with another loss function do not "
        "compare."
    )
    solid = {t.arm.label for tracks in panels.values() for t in tracks if t.line.dash == "-"}
    without = [arm for arm in study.arms if arm.label not in solid]
    noised = [arm.label for arm in without if "privacy" in arm.first.values]
    if made := [arm.label for arm in without if arm.label not in noised]:
        text += f" {listed(made)}: the model in use is made of a trained one; no solid line."
    if noised:
        text += f" {listed(noised)}: under differential privacy the loss in training is not told, "
        text += "as it would leave the hospital without noise; no solid line."
    return Section("training", "Training curves", [Text(text), figure])


def _in_training(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["moment"] == "epoch"]


def _models(arm: Arm) -> list[str]:
    return list(dict.fromkeys(arm.first.result.scores["model"]))


def _tracks(
    study: Study,
    arm: Arm,
    site: str,
    column: str,
    scale: float,
    keep: Callable[[pd.DataFrame], pd.DataFrame],
    only_used: bool = False,
    dash: str = "",
) -> list[Track]:
    """An arm's lines at a site, one a model."""
    tracks = []
    for model in _models(arm):
        used = model == arm.first.result.predicts
        if only_used and not used:
            continue
        table = _mean_over_seeds(arm, site, model, column, keep)
        if table.empty:
            continue
        alone = len(study.arms) == 1
        label = model if alone else arm.label
        what = {"train_loss": "training loss", "loss": "validation loss"}.get(column, model)
        hue = (1 if used else 2) if alone else number_of(arm)
        marked = _marked(table)
        spread = len(arm.runs) > 1
        line = Line(
            label,
            hue,
            table["communications"].tolist(),
            (scale * table["mean"]).tolist(),
            (scale * table["min"]).tolist() if spread else (),
            (scale * table["max"]).tolist() if spread else (),
            dash or ("-" if used else ":"),  # type: ignore[arg-type]
            marked,
        )
        metric = "loss" if "loss" in column else column
        tips = [_tip(arm, what, table.iloc[at], metric, spread) for at in marked]
        series = f"model-{model}" if alone and not only_used else arm.key
        tracks.append(Track(arm, series, line, tips))
    return tracks


def _mean_over_seeds(
    arm: Arm, site: str, model: str, column: str, keep: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Columns communications, moment, mean, min and max of a site's validation scores."""
    pieces = []
    for run in arm.runs:
        scores = run.result.scores
        chosen = scores[
            (scores["split"] == "validation")
            & (scores["site"] == site)
            & (scores["model"] == model)
            & (scores["moment"] != "finetuned")
        ]
        if len(chosen):
            pieces.append(keep(curve(chosen)).dropna(subset=[column]))
    if not pieces:
        return pd.DataFrame()
    every = pd.concat(pieces)
    groups = every.groupby(["communications", "moment"])[column]
    return groups.agg(["mean", "min", "max"]).reset_index().sort_values("communications")


def _marked(table: pd.DataFrame) -> list[int]:
    """Places that get a mark: those just after a merge, thinned out where they are many."""
    places = [at for at, moment in enumerate(table["moment"]) if moment != "epoch"]
    places = places or list(range(len(table)))
    step = math.ceil(len(places) / MOST_MARKS)
    return places[::step]


def _tip(arm: Arm, what: str, row: "pd.Series[float]", metric: str, spread: bool) -> str:
    moment = {"start": "before training", "merged": "just after the merge"}.get(str(row["moment"]))
    text = f"{arm.label}, {what}: {number(metric, row['mean'])} {unit_of(metric)}".rstrip()
    if spread:
        text += f" ({number(metric, row['min'])} to {number(metric, row['max'])} over the seeds)"
    text += f"; communication {row['communications']:.4g}"
    return f"{text}, {moment}" if moment else text


def _figure(
    study: Study, name: str, panels: dict[str, list[Track]], ylabel: str, what: str
) -> Block:
    def draw(axes: Axes, tracks: list[Track]) -> None:
        draw_lines(axes, [track.line for track in tracks], "communications", ylabel)
        if ylabel == "loss":  # one that explodes should not hide the others
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(loss_ticks(seen))

    seen = [y for tracks in panels.values() for track in tracks for y in track.line.y]

    def words(site: str, tracks: list[Track]) -> str:
        ends = [f"{t.line.label} ends at {t.line.y[-1]:.3g}" for t in tracks if len(t.line.y)]
        return f"{site}: {what} against communications. {'; '.join(dict.fromkeys(ends))}"

    several = max(len(arm.runs) for arm in study.arms) > 1
    key = "Solid: the model that the hospital uses; dotted: one that only takes part in the "
    key += "exchange. Marks: just after a communication."
    if name == "training":
        key = "Solid: training; dashed: validation."
    if several:
        key += " Lines are means over the seeds; bands reach from the lowest to the highest."
    legend = legend_of(study)
    if not legend and name == "retrogress":
        models = _models(study.arms[0])
        used = study.arms[0].first.result.predicts
        if len(models) > 1:
            legend = [Entry(f"model-{m}", f"{m} model", 1 if m == used else 2) for m in models]
    return pictures(
        name,
        panels,
        draw,
        lambda site, tracks: [Mark(track.series, track.tips) for track in tracks],
        words,
        partial(_table, what),
        legend=legend,
        key=key,
    )


def loss_ticks(values: Sequence[float]) -> Locator:
    """Where the axis of these losses has numbers: 1, 2, 5, 10, ..., or closer where they are near.

    >>> loss_ticks([0.6, 1.2]).tick_values(0.6, 1.2).round(3).tolist()
    [0.6, 0.8, 1.0, 1.2]
    """
    usual, known = LogLocator(subs=(1, 2, 5)), [y for y in values if 0 < y < math.inf] or [1]
    low, high = min(known), max(known)
    inside = [tick for tick in usual.tick_values(low, high) if low <= tick <= high]
    return usual if len(inside) > 2 else MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])


def _table(what: str, site: str, tracks: list[Track]) -> Table:
    """The marked points as a table."""
    columns: dict[str, dict[str, str]] = {}
    for track in tracks:
        line = track.line
        name = f"{line.label}{' (dashed)' if line.dash == '--' else ''}"
        name += " (dotted)" if line.dash == ":" else ""
        columns[name] = {f"{line.x[at]:.4g}": f"{line.y[at]:.3g}" for at in line.marked}
    moments = sorted({x for values in columns.values() for x in values}, key=float)
    rows = [[x, *(values.get(x, "-") for values in columns.values())] for x in moments]
    return Table(f"{site}: {what}", ["Communications", *columns], rows)
