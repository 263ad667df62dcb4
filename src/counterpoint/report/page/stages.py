"""Stages of deputy-enhanced transfer over time, site by site."""

from functools import partial

import pandas as pd

from counterpoint.figures.stages import Stretch, draw_stages
from counterpoint.report.page.blocks import Block, Cell, Section, Table, Text
from counterpoint.report.page.pictures import pictures
from counterpoint.report.page.runs import Arm, Run, Study
from counterpoint.report.page.svg import Mark
from counterpoint.report.page.words import counted

MEANINGS = (
    "Recover: the deputy has just taken the common weights in and does badly, so it learns from "
    "the personal model, and gives nothing back. Exchange: it does well enough that both learn "
    "from each other. Sublimate: it is nearly as good or better, and teaches the personal model."
)


def stages(study: Study) -> Section | None:
    """A strip a site, for each arm whose local update goes in stages."""
    staged = [arm for arm in study.arms if _rows(arm.first)]
    if not staged:
        return None
    blocks: list[Block] = [Text(MEANINGS), *(_figure(arm) for arm in staged)]
    return Section("stages", "Stages of the transfer", blocks)


def _rows(run: Run) -> dict[str, list[Stretch]]:
    """For each site, the stretches of epochs in one stage."""
    scores = run.result.scores
    staged = scores[(scores["moment"] == "epoch") & (scores["stage"] != "")]
    staged = staged.drop_duplicates(["site", "round", "epoch"])
    return {str(site): stretches(rows) for site, rows in staged.groupby("site", sort=False)}


def stretches(rows: pd.DataFrame) -> list[Stretch]:
    """Epochs of one site, neighbours of one stage joined.

    >>> rows = pd.DataFrame({"round": [1, 1, 2], "epoch": [1, 2, 1],
    ...                      "stage": ["recover", "exchange", "recover"]})
    >>> [(s.stage, s.start, s.end) for s in stretches(rows)]
    [('recover', 0.0, 0.5), ('exchange', 0.5, 1.0), ('recover', 1.0, 1.5)]
    """
    epochs = int(rows["epoch"].max())
    found: list[Stretch] = []
    for row in rows.sort_values(["round", "epoch"]).itertuples():
        start = int(str(row.round)) - 1 + (int(str(row.epoch)) - 1) / epochs
        stage, end = str(row.stage), start + 1 / epochs
        if found and found[-1].stage == stage and abs(found[-1].end - start) < 1e-9:
            start = found.pop().start
        found.append(Stretch(stage, start, end))
    return found


def _figure(arm: Arm) -> Block:
    run = arm.first
    rows = _rows(run)
    title = f"{arm.label}, seed {run.seed}"

    def marks(title: str, rows: dict[str, list[Stretch]]) -> list[Mark]:
        return [
            Mark("", [f"{site}: {one.stage}, communications {one.start:.4g} to {one.end:.4g}"])
            for site, all_of_site in rows.items()
            for one in all_of_site
        ]

    shares = {site: _shares(of_site) for site, of_site in rows.items()}
    names = list(dict.fromkeys(name for share in shares.values() for name in share))

    def words(title: str, rows: dict[str, list[Stretch]]) -> str:
        said = [
            f"{site}: " + ", ".join(f"{name} {100 * part:.0f} %" for name, part in share.items())
            for site, share in shares.items()
        ]
        return f"Stages over time at {counted(len(rows), 'hospital')}. {'; '.join(said)}"

    def table(title: str, rows: dict[str, list[Stretch]]) -> Table:
        cells: list[list[str | Cell]] = [
            [site, *(f"{100 * share.get(name, 0):.0f} %" for name in names)]
            for site, share in shares.items()
        ]
        return Table(f"{title}: share of the epochs in each stage", ["Hospital", *names], cells)

    return pictures(
        f"stages-{arm.key}",
        {title: rows},
        partial(draw_stages, legend=False),
        marks,
        words,
        table,
        key="R recover, E exchange, S sublimate; a communication lies at each whole number.",
        size=(7.5, 0.9 + 0.42 * len(rows)),
        file_draw=draw_stages,
    )


def _shares(of_site: list[Stretch]) -> dict[str, float]:
    total = sum(one.end - one.start for one in of_site)
    found: dict[str, float] = {}
    for one in of_site:
        found[one.stage] = found.get(one.stage, 0.0) + (one.end - one.start) / total
    return found
