"""The command that compares methods."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from counterpoint.cli.common import command, err, fail, give, note, rounds_in, say, state
from counterpoint.cli.complete import completes
from counterpoint.cli.training import takes_settings

STUDY = "Study"


@command
@takes_settings
def compare(
    out: Annotated[Path, typer.Option(help="Folder of the study, new or begun.")],
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            help="prrfl, fedavg:statistics=recalibrated, my_method.py:METHOD, ... "
            "None: runs nothing, makes the tables of what is there.",
            autocompletion=completes("method"),
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="retina, phantom, ... or your own table or folder.",
            autocompletion=completes("data"),
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="How many (3), or which (1,5,9). [default: those of the study, 3 for a new one]",
            rich_help_panel=STUDY,
        ),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE,VALUE,...: every method with each value; may be repeated.",
            rich_help_panel=STUDY,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What is the same for all: gradients (rounds, network, gradient evaluations), or "
            "nothing but what you give: epochs. [default: gradients]",
            rich_help_panel=STUDY,
            autocompletion=completes("budget"),
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The method that all others are tested against. [default: local, or fedavg]",
            autocompletion=completes("method"),
            rich_help_panel=STUDY,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="The score to show: dice, auc, ...", rich_help_panel=STUDY),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="Whose scores to show: test, or validation, to choose settings by.",
            rich_help_panel=STUDY,
            autocompletion=completes("split of a table"),
        ),
    ] = "test",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs side by side; as the cores allow.", rich_help_panel=STUDY),
    ] = None,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Compare METHODS on the same data, seeds and budget: run what is missing, print the table.

    Options of the training are those of `run` and hold for all methods.
    """
    from counterpoint.study.compare import compare as run_study
    from counterpoint.study.compare import parse_seeds
    from counterpoint.study.entry import parse_vary
    from counterpoint.study.live import study_display
    from counterpoint.study.writers import terminal

    grid = dict(named := [parse_vary(one) for one in vary or []])
    if len(grid) < len(named):
        fail("--vary: a setting is named twice; give all its values at once", 2)
    with study_display(err, quiet=state["quiet"]) as report:
        try:
            found = run_study(
                methods or [],
                data,
                out=out,
                seeds=None if seeds is None else parse_seeds(seeds),
                vary=grid,
                budget=budget,  # type: ignore[arg-type]  # checked there
                metric=metric,
                baseline=baseline,
                split=split,  # type: ignore[arg-type]  # checked there
                jobs=jobs,
                report=report,
                settings=settings,
            )
        except KeyboardInterrupt:
            kept = any(map(rounds_in, out.glob("*/")))
            what = "complete rounds are kept" if kept else "no round was complete"
            note(f"{what}; the same command goes on")
            raise
    give(terminal(found), found.as_dict())
    say(f"The table is in {out}: table.csv, table.md, table.tex, study.json; every run in a folder")
    if found.missing:
        fail("; ".join(f"{run}: {why}" for run, why in found.missing), 1)
