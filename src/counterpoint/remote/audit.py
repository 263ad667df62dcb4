"""A site's own record of what left it and what came, which the server never sees.

One line a tensor, and one for the text of each message. It is written before anything leaves:
where it can't be written, nothing leaves.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pandas as pd

from counterpoint.errors import StateError
from counterpoint.files import append_text
from counterpoint.remote.message import Message, sizes
from counterpoint.remote.plan import RECORD

TEXT = "(text)"
"""In place of a tensor's name: the message's text, with scores and the like."""


@dataclass(frozen=True)
class Line:
    """A line of the record: what crossed when, in which direction, and to or from whom."""

    time: str
    run: str
    round: int
    direction: str
    kind: str
    name: str
    shape: str
    bytes: int
    sha256: str
    party: str


def lines_of(message: Message, run: str, round: int, direction: str, party: str) -> list[Line]:
    """The lines for a message that crosses now."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    text = json.dumps(message.says).encode()
    what = {TEXT: ("", len(text), sha256(text).hexdigest()), **sizes(message.tensors)}
    return [
        Line(now, run, round, direction, message.kind, name, shape, size, digest, party)
        for name, (shape, size, digest) in what.items()
    ]


def record(folder: Path, lines: Iterable[Line]) -> None:
    """Append lines to the record of a site.

    Raises:
        StateError: if the disk is full or the record can't be written.
    """
    file = folder / RECORD
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not file.exists() or not file.stat().st_size:
        writer.writerow([field.name for field in fields(Line)])
    writer.writerows(astuple(line) for line in lines)
    append_text(file, text.getvalue())


def read_record(folder: Path) -> pd.DataFrame:
    """Read a site's record.

    Raises:
        StateError: if there is none.
    """
    file = folder / RECORD if folder.is_dir() else folder
    try:
        texts = {field.name: str for field in fields(Line) if field.type is str}
        found = pd.read_csv(file.absolute(), dtype=texts, keep_default_na=False)
        if missing := {field.name for field in fields(Line)} - {*found.columns}:
            raise ValueError(f"it has no column '{min(missing)}'")
        return found
    except (OSError, ValueError) as error:
        raise StateError(f"{file} can't be read as the record of a site: {error}") from error


def summary(lines: pd.DataFrame) -> pd.DataFrame:
    """A row a message: when, in which direction, how many tensors and bytes."""
    keys = ["run", "round", "kind", "direction", "time", "party"]
    grouped = lines.groupby(keys, sort=False)
    table = grouped.agg(
        tensors=("name", lambda names: (names != TEXT).sum()), bytes=("bytes", "sum")
    )
    return table.reset_index()
