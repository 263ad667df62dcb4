"""The command that shows and empties the cache."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterpoint.cli.common import command, fail, give, say

if TYPE_CHECKING:
    from rich.table import Table

    from counterpoint.data.cached import Entry


@command
def cache(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Another one, such as cache in a site's storage folder."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all of it.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Remove what was not used for so many days."),
    ] = None,
) -> None:
    """Show what the cache holds, or empty it: decoded images and the like, made again when needed.

    It is the folder COUNTERPOINT_CACHE, or the user's usual place. A site of a run across
    hospitals has its own.
    """
    from counterpoint.data.cached import entries, remove
    from counterpoint.data.files import cache_path
    from counterpoint.report.words import size

    if clear and older_than is not None:
        fail("give --clear or --older-than, not both", 2)
    if older_than is not None and not older_than < 1e5:
        fail(f"--older-than {older_than:g}: that is no number of days", 2)
    if folder is not None and not folder.is_dir():
        fail(f"{folder} is no folder", 2)
    folder, unwanted = cache_path(folder), []
    found = entries(folder)
    if clear or older_than is not None:
        since = datetime.now() - timedelta(days=older_than or 0)
        unwanted = [entry for entry in found if clear or entry.used < since]
        remove(folder, unwanted)
    left = [entry for entry in found if entry not in unwanted]
    kinds = {
        kind: summary([entry for entry in left if entry.kind == kind])
        for kind in dict.fromkeys(entry.kind for entry in left)
    }
    removed = {"entries": len(unwanted), "size": sum(entry.size for entry in unwanted)}
    total = sum(entry.size for entry in left)
    give(
        table(kinds),
        {"path": str(folder), "entries": len(left), "size": total, "kinds": kinds}
        | {"removed": removed},
    )
    say(f"{len(left)} entries, {size(total)}, in {folder}")
    if clear or older_than is not None:
        say(f"removed: {removed['entries']} entries, {size(removed['size'])}")


def summary(entries: "list[Entry]") -> dict[str, Any]:
    """How many entries, their bytes, and when one of them was last used."""
    return {
        "entries": len(entries),
        "size": sum(entry.size for entry in entries),
        "last_used": max(entry.used for entry in entries).isoformat(" ", "minutes"),
    }


def table(kinds: dict[str, dict[str, Any]]) -> "Table":
    """The entries by kind."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from counterpoint.report.words import size

    made = Table("what", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("entries", "size", "last used"):
        made.add_column(column, justify="right")
    for kind, of in kinds.items():
        made.add_row(kind, str(of["entries"]), size(of["size"]), of["last_used"])
    return made
