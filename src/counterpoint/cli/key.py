"""The command for encryption keys, which are the same for every engine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from counterpoint.cli.common import command, give


@command
def key(
    file: Annotated[Path, typer.Argument(help="File of the key.")],
) -> None:
    """Make an encryption key for the sites of a run; of one that is there, show the mark.

    Sites with the same mark have the same key. The mark is no secret; the key is: bring it to
    every site over a safe way, and never to the server.
    """
    from counterpoint.encryption import make_key, mark_of, read_key, write_key

    new = not file.exists()
    if new:
        write_key(file, make_key())
    mark = mark_of(read_key(file))
    words = "a new key" if new else "the key"
    give(escape(f"{file} has {words} with the mark {mark}"), {"file": str(file), "mark": mark})
