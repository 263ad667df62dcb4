"""Large files that are needed no more, for the next ones to be written over.

The kernel holds their pages already. New ones take several times as long as the writing itself;
ten times and more on a virtual machine that gives unused memory back to its host. Whoever still
reads such a file while the run goes on finds the next one's bytes in it, and another checksum.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

LARGE = 2**20
"""Bytes from which it pays."""

SPARES = ".*.spare.part"
"""Hidden and unfinished by their names: whoever looks for whole files does not find them."""


def put_aside(folder: Path, files: Iterable[Path]) -> None:
    """Remove files of a folder; the large ones wait there, under other names, to be written over.

    Those that waited already and were not wanted are gone then.
    """
    drop_spares(folder)
    for file in files:
        if file.exists() and file.stat().st_size >= LARGE:
            os.replace(file, file.with_name(f".{file.name}.spare.part"))
        else:
            file.unlink(missing_ok=True)


def drop_spares(folder: Path) -> None:
    """Remove what waits in a folder to be written over."""
    for spare in folder.glob(SPARES):
        spare.unlink(missing_ok=True)


def take_spare(place: Path, size: int) -> bool:
    """Put a spare file of the same folder at ``place``, of about ``size`` bytes, if there is one.

    Of several processes that want the same one, one gets it.
    """
    if size < LARGE:
        return False
    for spare in sorted(place.parent.glob(SPARES)):
        try:
            if size <= 2 * spare.stat().st_size <= 4 * size:
                os.replace(spare, place)
                if is_ours_alone(place):
                    return True
                place.unlink()
        except OSError:
            continue  # another process was first, or has it open
    return False


def is_ours_alone(file: Path) -> bool:
    """Whether a file can be written to, and changes nothing under any other name."""
    about = file.lstat()
    return stat.S_ISREG(about.st_mode) and about.st_nlink == 1 and os.access(file, os.W_OK)
