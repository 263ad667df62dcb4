"""The command that makes a table of images in folders."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from counterpoint.cli.common import command, fail, give, note, say


@command
def table(
    folder: Annotated[Path, typer.Argument(help="Folder with one folder a site.")],
    to: Annotated[
        Path | None,
        typer.Option("--out", help="New CSV; labels.csv in the folder where left out."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Regular expression whose (first parentheses) find the patient in an image's "
            "path below its site's folder.",
        ),
    ] = None,
) -> None:
    """Make a table of images that lie in folders: SITE/CLASS/..., or SITE/images and SITE/masks.

    Folders of a split, SITE/train/CLASS/..., become the table's split.
    """
    from counterpoint.data.layout import table_of
    from counterpoint.files import write_text
    from counterpoint.report.words import typed

    try:
        parentheses = re.compile(group or "()").groups
    except re.error as error:
        fail(f"--group {group}: {error}", 2)
    if not parentheses:
        fail(f"--group {group}: put parentheses around what names the patient", 2)
    file = to or folder / "labels.csv"
    if file.exists():
        fail(f"{file} exists already and is left as it is; choose another --out", 2)
    made = table_of(folder, group)
    for name in ("image", "mask", "fov"):
        if name in made:
            made[name] = [one and os.path.relpath(one, file.parent) for one in made[name]]
    write_text(file, made.to_csv(index=False))
    images, columns = dict(Counter(made["site"])), [str(name) for name in made]
    facts = {"table": str(file), "columns": columns, "images": images}
    give(escape("\n".join(f"{site}: {number} images" for site, number in images.items())), facts)
    say(
        f"the table is {file} ({', '.join(columns)}); `counterpoint inspect {typed(file)}` shows it"
    )
    if group is None:
        note(
            "who is seen is not known, so images of one patient can't be kept in one part: name "
            "the patients in a column 'group' of the table, or by --group"
        )
