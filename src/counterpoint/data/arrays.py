"""Arrays on the disk that are made once, in the order of a table's rows, and used again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterpoint.data.files import written_whole


@dataclass(frozen=True)
class Stored:
    """An array (n, *shape) at ``path``, in which each of ``rows`` has one image or more."""

    path: Path
    rows: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def _counts(self) -> Path:
        return self.path.with_suffix(".counts.npy")

    def counts(self) -> npt.NDArray[np.int64] | None:
        """Return how many images each row has; None if the array is not there or not whole."""
        try:
            found = np.load(self.path, mmap_mode="r")  # fails if it is shorter than it says
            if found.shape[1:] != self.shape or found.dtype != self.dtype:
                return None
            if len(found) == self.rows:
                return np.ones(self.rows, dtype=np.int64)
            counts: npt.NDArray[np.int64] = np.load(self._counts)
        except (OSError, ValueError, EOFError):
            return None
        return counts if len(counts) == self.rows and counts.sum() == len(found) else None

    def write(self, images: Iterator[npt.NDArray[Any]]) -> None:
        """Write the array from every row's images (k, *shape); nothing is left after an error.

        It is written in order and not through a memory map: there, a full disk is a crash.
        """
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (0, *self.shape)}
        counts = []
        with written_whole(self.path) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for row in images:
                file.write(np.ascontiguousarray(row, dtype=self.dtype).tobytes())
                counts.append(len(row))
            file.seek(0)  # numpy's header has room for the length to grow
            np.lib.format.write_array_header_1_0(
                file, header | {"shape": (sum(counts), *self.shape)}
            )
            if sum(counts) != self.rows:
                with written_whole(self._counts) as beside, open(beside, "wb") as small:
                    np.save(small, np.array(counts, dtype=np.int64))
