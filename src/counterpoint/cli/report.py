"""The command that writes the report of runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from counterpoint.cli.common import command, give, note, state


@command
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="A run's folder, a folder of run folders, or several of either."),
    ],
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Page to write; left out, report.html in the folder."),
    ] = None,
    figures: Annotated[
        bool,
        typer.Option(
            "--figures", help="Write each figure as PNG, PDF and SVG too, into figures beside it."
        ),
    ] = False,
    thumbnails: Annotated[
        bool,
        typer.Option(
            "--thumbnails", help="Show small pictures of the worst test cases: patient data."
        ),
    ] = False,
) -> None:
    """Write one HTML page about runs: what each hospital gains, curves, errors, what left it."""
    from counterpoint.report.page import write_report

    written = write_report(runs, out=to, thumbnails=thumbnails, figures=figures)
    for sentence in () if state["json"] else written.cautions:
        note(sentence)
    if thumbnails:
        note(f"{written.page} shows test images: it is patient data")
    give(
        escape(str(written.page)),
        {
            "page": str(written.page),
            "figures": [str(path) for path in written.figures],
            "cautions": list(written.cautions),
        },
    )
