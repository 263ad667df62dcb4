"""Files of tensors that are kept from round to round, by name and checksum."""

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from counterpoint.files import read_tensors, write_tensors
from counterpoint.payload import Payload


class Kept(NamedTuple):
    """A file of tensors in ``state/``, by name and checksum."""

    file: str
    sha256: str

    def read(self, folder: Path) -> Payload:
        """Read the tensors; raise StateError if they are not the ones that were written."""
        return read_tensors(folder / self.file, self.sha256)


@lru_cache(maxsize=1)
def read_mean(kept: Kept, folder: Path) -> Payload:
    """Read the mean, once for all sites of a round; its tensors must be left as they are."""
    return kept.read(folder)


def keep(folder: Path, name: str, tensors: Payload, salt: str = "", flush: bool = True) -> Kept:
    """Write tensors into a folder in one stroke; a secret ``salt`` has its checksum tell nothing.

    Without one, who knows the checksum can see whether tensors that he has guessed are these.
    Without ``flush`` the file is not on the disk for certain until it is flushed.
    """
    file, metadata = f"{name}.safetensors", {"salt": salt} if salt else None
    return Kept(file, write_tensors(folder / file, tensors, metadata, flush))


def keep_again(folder: Path, name: str, earlier: Kept) -> Kept | None:
    """Give a file that is kept a second name; None where that can't be done."""
    kept = Kept(f"{name}.safetensors", earlier.sha256)
    path = folder / kept.file
    with suppress(OSError):  # a file system without links, or the file is gone
        path.unlink(missing_ok=True)
        os.link(folder / earlier.file, path)
        if path.stat().st_nlink > 1:  # else nobody could tell that it has two names
            return kept
    return None
