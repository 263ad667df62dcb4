"""How large the pixels of some images are, and which images are pieces of one volume."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Extents:
    """Of some images, as networks see them, how large they are and in which volumes they lie.

    A volume is a grid of images: the slices of a file, its patches, or a single image. What a cut
    through an organ would be an outline of is not put together: slices of a file that do not all
    follow one another, or are not all in one part of the split, are volumes of their own.

    Attributes:
        spacing: (n, 3) float64, millimetres between an image's slices, rows and columns; NaN where
            it is not known.
        volumes: the volumes, each as (slices, rows, columns) of numbers of images.
        volume_of: (n,) int64, which of them an image is in; -1 for images that are not asked for.
    """

    spacing: npt.NDArray[np.float64]
    volumes: list[Whole]
    volume_of: Whole

    @classmethod
    def of(
        cls,
        places: Whole,
        spacing: npt.NDArray[np.float64],
        files: Whole,
        wanted: npt.NDArray[np.bool_] | None = None,
    ) -> Self:
        """From each image's place in its file (n, 3), spacing (n, 3) and file (n,).

        ``wanted`` (n,) are the images that are asked for, all if left out.

        >>> places = np.array([[0, 0, 0], [4, 0, 0], [5, 0, 0], [2, 0, 0], [4, 0, 0]])
        >>> found = Extents.of(places, np.ones((5, 3)), np.array([7, 8, 8, 9, 9]))
        >>> [volume.ravel().tolist() for volume in found.volumes]
        [[0], [1, 2], [3], [4]]
        """
        here = np.ones(len(files), dtype=np.bool_) if wanted is None else wanted
        order = np.lexsort((*places.T[::-1], files))
        runs = np.split(order, np.flatnonzero(np.diff(files[order])) + 1)
        volumes: list[Whole] = []
        for run in runs:
            grid = np.ptp(places[run], axis=0) + 1
            full = grid.prod() == len(run) == len(np.unique(places[run], axis=0))
            if full and here[run].all() and np.isfinite(spacing[run]).all():
                volumes.append(run.reshape(grid))
            else:
                volumes += list(run[here[run]].reshape(-1, 1, 1, 1))
        volume_of = np.full(len(files), -1)
        for number, volume in enumerate(volumes):
            volume_of[volume] = number
        return cls(spacing, volumes, volume_of)

    @classmethod
    def unknown(cls, count: int) -> Self:
        """Images of their own, of no known size."""
        numbers = np.arange(count)
        return cls(np.full((count, 3), np.nan), list(numbers.reshape(-1, 1, 1, 1)), numbers)
