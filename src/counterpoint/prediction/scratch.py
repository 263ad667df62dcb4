"""Arrays that may be larger than the memory, on the disk as long as they are needed."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from counterpoint.errors import StateError


def stacked(parts: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """Put arrays (n, ...) of one shape and type after one another, whatever they need of space.

    None if there are none. Raises StateError if the disk is full.

    >>> stacked(iter([np.zeros((2, 3)), np.ones((1, 3))])).shape
    (3, 3)
    """
    rows, like = 0, None
    with _temporary_file() as file:
        for like in parts:
            file.write(np.ascontiguousarray(like).tobytes())
            rows += len(like)
        file.flush()
        if like is None:
            return None
        return np.memmap(file, like.dtype, mode="r", shape=(rows, *like.shape[1:]))


def empty(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Make room for an array of float32 on the disk; raises StateError if that is full."""
    with _temporary_file() as file:
        if hasattr(os, "posix_fallocate"):  # on a full disk, a memory map would be a crash
            os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))
        return np.memmap(file, np.float32, mode="r+", shape=shape)


@contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    """Give a file without a name; raises StateError if it can't be made or written."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        raise StateError(
            f"the folder for temporary files can't be written ({error.strerror or error}); free "
            "some space there, or name another folder by the variable TMPDIR"
        ) from error
