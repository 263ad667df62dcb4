"""Commands that bring something in: data sets, and models of the papers' released scripts."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from counterpoint.cli.common import command, err, fail, give, note, say, state, words
from counterpoint.cli.complete import completes


@command
def fetch(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Data set; left out, all are listed.", autocompletion=completes("download")
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder to put it in; made if need be.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its licence and keep to it.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Address below which the files are, if not the usual.")
    ] = None,
) -> None:
    """Download a data set. Its licence is shown first; without --accept-licence that is all."""
    from counterpoint.data.downloads import DOWNLOADS
    from counterpoint.data.fetch import fetch as get
    from counterpoint.data.fetch import licence_of
    from counterpoint.report.live import download_bars

    if name is None:
        known = {
            one.name: f"{one.summary} ({one.size if one.files else 'by hand'})"
            for one in DOWNLOADS.values()
        }
        give("\n".join(f"[bold]{n}[/]  {escape(text)}" for n, text in known.items()), known)
        return
    if accept_licence:
        if root is None:
            fail("say with --root into which folder", 2)
        say(licence_of(name))
    with download_bars(err, hidden=state["quiet"]) as progress:
        place = get(name, root or "", accept=accept_licence, progress=progress, say=note, base=url)
    give(escape(f"{name} is in {place}"), {"name": name, "folder": str(place)})


@command
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Checkpoint that a released script has saved.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", help="Whose script: prrfl, harmofl.", autocompletion=completes("source")
        ),
    ],
    to: Annotated[Path, typer.Option("--out", help="File to write, e.g. model.safetensors.")],
    classes: Annotated[
        str | None,
        typer.Option(help="Names of the outputs, comma-separated; the paper's where left out."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Of a PRR-FL model; 128 where left out.")
    ] = None,
) -> None:
    """Make a checkpoint of the papers' released scripts into a model that load_model reads."""
    from counterpoint.released import import_checkpoint as bring

    written = bring(file, source, to, classes=words(classes), image_size=image_size)
    give(escape(f"{written} can be read by counterpoint.load_model"), {"file": str(written)})
