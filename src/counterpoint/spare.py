"""Large files that are needed no more, for the next ones to be written over.

The kernel holds their pages already. New ones take several times as long as the writing itself;
ten times and more on a virtual machine that gives unused memory back to its host.
"""

import os
from collections.abc import Iterable
from pathlib import Path

LARGE = 2**20
"""Bytes from which it pays."""

SPARES = ".*.spare.part"
"""Hidden and unfinished by their names: whoever looks for whole files does not find them."""


def put_aside(folder: Path, files: Iterable[Path]) -> None:
    """Take files of a folder out of it; the large ones wait there to be written over.

    Those that waited already and were not wanted are removed.
    """
    drop_spares(folder)
    for file in files:
        if not file.exists() or file.stat().st_size < LARGE:
            file.unlink(missing_ok=True)
            continue
        spare = file.with_name(f".{file.name}.spare.part")
        os.replace(file, spare)
        if spare.stat().st_nlink > 1:  # what has its other name must stay as it is
            spare.unlink()


def drop_spares(folder: Path) -> None:
    """Remove what waits in a folder to be written over."""
    for spare in folder.glob(SPARES):
        spare.unlink(missing_ok=True)


def take_spare(place: Path, size: int) -> bool:
    """Put a spare file of the same folder at ``place``, the nearest to ``size`` bytes, if any is.

    Of several processes that want the same one, one gets it.
    """
    if size < LARGE:
        return False
    waiting: list[tuple[int, Path]] = []
    for spare in place.parent.glob(SPARES):
        try:
            waiting.append((abs(spare.stat().st_size - size), spare))
        except FileNotFoundError:
            continue  # another process was first
    for _, spare in sorted(waiting):
        try:
            os.replace(spare, place)
        except FileNotFoundError:
            continue
        return True
    return False
