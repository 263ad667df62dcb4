"""What the cache folder holds, and how it is emptied. All of it is made again when needed."""

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from counterpoint.data.files import part_of, unwritable

KINDS = {
    "decoded images": r"arrays/([0-9a-f]{64})(\.counts)?\.npy",
    "drawn masks": r"masks/([0-9a-f]{64}-.+?)(-view)?\.png",
    "phantom": r"(phantom-\d+)",
    "indexes": r"(content\.json|prostate-slices\.json|arrays/unreadable-.+\.json)",
    "left unfinished": r"(.+\.\d+-[0-9a-f]{8}\.part)",
}
"""What there is, and how it is called; what is called otherwise is not ours and is left alone."""


@dataclass(frozen=True)
class Entry:
    """Something that was kept as a whole: its files, or folder.

    Attributes:
        kind: one of `KINDS`.
        paths: what to remove.
        size: bytes.
        used: when it was last read or written, as far as the file system notes that.
    """

    kind: str
    paths: tuple[Path, ...]
    size: int
    used: datetime


def entries(folder: Path) -> list[Entry]:
    """Return all that a cache folder holds; nothing if there is no such folder."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("arrays/*"), *folder.glob("masks/*")]):
        name = path.relative_to(folder).as_posix()
        for kind, pattern in KINDS.items():
            if match := re.fullmatch(pattern, name):
                found.setdefault((kind, match[1]), []).append(path)
    return [_entry(kind, paths) for (kind, _), paths in found.items()]


def _entry(kind: str, paths: list[Path]) -> Entry:
    stats = []
    for file in (file for path in paths for file in _files(path)):
        with suppress(FileNotFoundError):  # another process is at work
            stats.append(file.stat())
    used = max((max(stat.st_atime, stat.st_mtime) for stat in stats), default=0.0)
    size = sum(stat.st_size for stat in stats)
    return Entry(kind, tuple(paths), size, datetime.fromtimestamp(used))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
    else:
        yield from (file for file in path.rglob("*") if file.is_file())


def remove(folder: Path, unwanted: Iterable[Entry]) -> None:
    """Remove entries of a cache folder; raises DataError if one can't be removed.

    What is left of an entry if this is interrupted does not count as whole: a folder has another
    name by then, and of files the one goes first without which the others are not looked at.
    """
    for entry in unwanted:
        for path in reversed(entry.paths):
            try:
                if path.is_dir():
                    shutil.rmtree(path.rename(part_of(path)))
                else:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(folder, error) from error
