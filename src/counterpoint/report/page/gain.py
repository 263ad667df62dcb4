"""Who gains and who loses by joining, and the table of all methods."""

import math
from functools import partial

from counterpoint.figures.gain import Gain, draw_gains
from counterpoint.report.page.blocks import Block, Cell, Section, Table
from counterpoint.report.page.pictures import number_of, pictures
from counterpoint.report.page.runs import KINDS, Arm, Study, difference
from counterpoint.report.page.summary import gain_cell, score_cell, verdict
from counterpoint.report.page.svg import Mark
from counterpoint.report.page.words import named, points_between
from counterpoint.report.words import number, unit_of


def gain(study: Study) -> Section | None:
    """A figure of differences to training alone, and all methods side by side."""
    if len(study.arms) < 2:
        return None
    blocks: list[Block] = []
    if study.local and study.joined:
        blocks.append(_figure(study, study.local))
    blocks.append(_all(study))
    return Section("gain", "Who gains, who loses", blocks)


def _figure(study: Study, local: Arm) -> Block:
    metric = study.score
    unit = "points" if unit_of(metric) == "%" else unit_of(metric)
    scale = 100 if unit == "points" else 1
    arms = [arm for arm in study.arms if arm is not local]
    panels: dict[str, list[Gain]] = {}
    shown: dict[str, list[Arm]] = {}
    for site in study.sites:
        found = [(arm, difference(arm, local, site, metric)) for arm in arms]
        there = [(arm, of) for arm, of in found if of and not math.isnan(of.value)]
        shown[site] = [arm for arm, _ in there]
        panels[site] = [
            Gain(arm.label, number_of(arm), scale * of.value, scale * of.low, scale * of.high)
            for arm, of in there
        ]

    def sentences(site: str) -> list[str]:
        of_arm = [(arm, difference(arm, local, site, metric)) for arm in shown[site]]
        return [
            f"{site}, {arm.label}: {verdict(of, metric)}"
            + (f" ({points_between(metric, of)})" if of and not math.isnan(of.low) else "")
            for arm, of in of_arm
        ]

    def table(site: str, rows: list[Gain]) -> Table:
        cells: list[list[str | Cell]] = [
            [arm.label, gain_cell(difference(arm, local, site, metric), metric)]
            for arm in shown[site]
        ]
        caption = f"{site}: difference of {named(metric)} to {local.label}, in {unit}"
        return Table(caption, ["Method", "Difference"], cells)

    height = 1.1 + 0.34 * len(arms)
    return pictures(
        "gain",
        panels,
        partial(draw_gains, unit=unit),
        lambda site, rows: [Mark("", [tip]) for tip in sentences(site)],
        lambda site, rows: "Difference to training alone. " + ". ".join(sentences(site)),
        table,
        key=f"Right of the line at zero a hospital does better than alone ({local.label}), left "
        "of it worse; a bar that crosses the line is no clear difference."
        + (
            f" At {study.holdout}, which did not train, it is the other hospitals' own models that "
            "are asked together."
            if study.holdout
            else ""
        ),
        size=(5.2, height),
    )


def _all(study: Study) -> Table:
    """A row a method, a column a site."""
    metric = study.score
    head = ["Method", *study.sites, "Mean", "Worst hospital", "Seeds"]
    rows: list[list[str | Cell]] = []
    there = study.averaged(metric)
    for kind, title in KINDS.items():
        arms = [arm for arm in study.arms if arm.kind == kind]
        rows += [[title]] if arms else []
        for arm in arms:
            cells: list[str | Cell] = [arm.label]
            cells += [score_cell(arm.score(site, metric), metric) for site in study.sites]
            cells.append(number(metric, arm.mean(metric, there)))
            cells.append(number(metric, arm.worst(metric, there)))
            rows.append([*cells, str(len(arm.runs))])
    caption = f"All methods: test {named(metric)} in {unit_of(metric)}, with 95 % intervals"
    return Table(caption, head, rows)
