"""Results, methods and sites as terminal tables."""

import textwrap
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from counterpoint.report.words import (
    encryption_in_words,
    heading,
    leaks,
    number,
    privacy_in_words,
    size,
)
from counterpoint.results import Result, shown_metrics
from counterpoint.settings import CHOICES, as_dict, make_settings


def chosen_by(values: dict[str, Any]) -> str:
    """How the model was chosen, in words."""
    of = f"model of round {values['chosen_round']} of {values['rounds']}"
    if values.get("chosen_from") == values["rounds"]:
        return f"{of}, the last"
    return f"{of}, chosen by mean validation {heading(values['score'], unit=False)}"


SHORT = {
    "sensitivity": "sens. %",
    "specificity": "spec. %",
    "dice_with_background": "Dice with bg %",
}
"""Headings that are shorter in a terminal, where all scores should fit into 80 columns."""


def narrow(metric: str) -> str:
    """A score's heading in short lines, so that its column is hardly wider than its numbers.

    >>> narrow("macro_f1"), narrow("sensitivity"), narrow("loss")
    ('macro-F1\\n%', 'sens.\\n%', 'loss')
    """
    words = SHORT.get(metric, heading(metric))
    return textwrap.fill(words, 6, break_long_words=False, break_on_hyphens=False)


USUAL = (
    "--harmonise none",
    "--local plain",
    "--aggregation all",
    "--server mean",
    "--privacy none",
)
"""What a method does where it says nothing else."""


def results_table(result: Result, notes: bool = True) -> RenderableType:
    """Test scores per site with mean and worst site, and what else a run says at its end."""
    values = result.results
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=Text(f"{values['method']} on {values['data']}: test scores"),
        caption=f"{chosen_by(values)}; batch norm: {values['statistics']}; "
        f"protocol: {values['protocol']}; seed {values['seed']}",
    )
    score, metrics = values["score"], [*shown_metrics(values), "loss"]
    table.add_column("site")
    for metric in metrics:
        table.add_column(narrow(metric), justify="right")
        if metric == score:
            table.add_column("95 % interval", justify="right")
    for site, scores in values["test"].items():
        name = f"{site} (worst)" if site == values["worst_site"] else site
        if site == values["holdout"]:
            name = f"{site} (did not train)"
            table.add_section()
        cells = [number(m, scores[m]) for m in metrics]
        ends = [number(score, end) for end in values["intervals"][site][score]]
        cells.insert(metrics.index(score) + 1, "-" if "-" in ends else " to ".join(ends))
        table.add_row(Text(name), *cells)
    table.add_section()
    cells = [number(m, values["mean"][m]) for m in metrics]
    cells.insert(metrics.index(score) + 1, "")
    table.add_row("mean", *cells, style="bold")
    lines = [
        f"retrogress of the {'model' if model == 'model' else f'{model} model'}: "
        f"{100 * abs(numbers['mean']):.1f} points of {heading(score, unit=False)} "
        f"{'gained' if numbers['mean'] < 0 else 'lost'} at a merge on average"
        for model, numbers in values["retrogress"].items()
        if values["bytes"]["down_per_round_and_site"]  # else nothing is merged
    ]
    sent, got = (values["bytes"][f"{d}_per_round_and_site"] for d in ("up", "down"))
    lines.append(f"each site and round: {size(sent)} up, {size(got)} down")
    if private := values.get("privacy"):
        lines.append(f"privacy: {privacy_in_words(private)}")
        lines.append(f"not covered by it: {'; '.join(private['not_covered'])}")
    if encrypted := values.get("encryption"):
        lines.append(encryption_in_words(encrypted))
    said = values["data_notes"]
    lines += [f"warning: {note}" for note in said if leaks(note)]
    lines += [f"note: {note}" for note in said if notes and not leaks(note)]
    return Group(table, *(Text(line) for line in lines))


def methods_table(names: list[str], task: str) -> Table:
    """All methods and their compositions, as the options that make the same of any other."""
    table = Table(
        title=f"methods for {task} and what they are composed of", box=None, pad_edge=False
    )
    table.add_column("method", no_wrap=True)
    table.add_column("composition")
    for name in names:
        method = make_settings(name, "phantom", {"data.task": task}).method
        parts = [f"--{part} {getattr(method, part).kind}" for part in CHOICES]
        parts = [part for part in parts if part not in USUAL]
        if method.perturbation:
            adaptive = " --set adaptive=true" if method.adaptive else ""
            parts.append(f"--perturbation {method.perturbation:g}{adaptive}")
        if method.schedule.loss != "default":
            parts.append(f"--loss {method.schedule.loss}")
        if method.schedule.weighting != "equal":
            parts.append(f"--set weighting={method.schedule.weighting}")
        if method.schedule.finetune_epochs:
            parts.append(f"--finetune-epochs {method.schedule.finetune_epochs}")
        if method.pooled:
            parts.append("(pooled)")
        table.add_row(name, Text(" ".join([*parts, f"--statistics {method.statistics}"])))
    table.caption = f"What is not named: {' '.join(USUAL)} --perturbation 0"
    return table


def method_page(name: str, task: str) -> RenderableType:
    """One method: paper, summary, and every setting with its default for a task."""
    settings = make_settings(name, "phantom", {"data.task": task})
    table = Table(title=f"settings of {name} for {task} and their defaults")
    table.add_column("setting")
    table.add_column("default")
    values = as_dict(settings)
    for section in (*CHOICES, "schedule"):
        for field, value in values[section].items():
            table.add_row(f"{section}.{field}", Text(str(value)))
        table.add_section()
    for field in ("perturbation", "adaptive", "statistics", "pooled", "seed"):
        table.add_row(field, str(values[field]))
    method = settings.method
    return Group(
        Text(method.name, style="bold"),
        Text(method.summary),
        Text(method.paper, style="italic"),
        table,
        Text("Set any of them with --set NAME=VALUE or in a file given by --config."),
    )


def frame_table(frame: pd.DataFrame, title: str) -> Table:
    """Any data frame as a table, turned on its side: one column a row of the frame."""
    table = Table(title=Text(title))
    table.add_column("")
    for name in frame.index:
        table.add_column(Text(str(name)), justify="right", overflow="fold")
    for column in frame.columns:
        cells = [f"{v:.1f}" if isinstance(v, float) else str(v) for v in frame[column].tolist()]
        table.add_row(Text(str(column)), *map(Text, cells))
    return table
