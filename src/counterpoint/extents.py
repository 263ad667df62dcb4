"""How large the pixels of some images are, and which images are pieces of one volume."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Extents:
    """Of some images, as networks see them, how large they are and in which volumes they lie.

    A volume is a grid of images: slices that follow one another, all patches of a file, or a
    single image. A file of which not all slices are there may be several.

    Attributes:
        spacing: (n, 3) float64, millimetres between an image's slices, rows and columns; NaN where
            it is not known.
        volumes: the volumes, each as (slices, rows, columns) of numbers of images.
        volume_of: (n,) int64, which of them an image is in.
    """

    spacing: npt.NDArray[np.float64]
    volumes: list[Whole]
    volume_of: Whole

    @classmethod
    def of(cls, places: Whole, spacing: npt.NDArray[np.float64], files: Whole) -> Self:
        """From each image's place among those of its file (n, 3), spacing (n, 3) and file (n,).

        >>> places = np.array([[0, 0, 0], [4, 0, 0], [5, 0, 0], [9, 0, 0]])
        >>> found = Extents.of(places, np.ones((4, 3)), np.array([7, 8, 8, 8]))
        >>> [volume.ravel().tolist() for volume in found.volumes]
        [[0], [1, 2], [3]]
        """
        order = np.lexsort((*places.T[::-1], files))
        apart = (np.diff(files[order]) != 0) | (np.diff(places[order, 0]) > 1)
        runs = np.split(order, np.flatnonzero(apart) + 1)
        volumes = [volume for run in runs for volume in _grids(run, places[run])]
        volume_of = np.empty(len(files), dtype=np.int64)
        for number, volume in enumerate(volumes):
            volume_of[volume] = number
        return cls(spacing, volumes, volume_of)

    @classmethod
    def unknown(cls, count: int) -> Self:
        """Images of their own, of no known size."""
        places = np.zeros((count, 3), dtype=np.int64)
        return cls.of(places, np.full((count, 3), np.nan), np.arange(count))


def _grids(images: Whole, places: Whole) -> Iterator[Whole]:
    """Images in the order of their places as one grid; one by one where they make none."""
    grid = np.ptp(places, axis=0) + 1
    if grid.prod() == len(images) == len(np.unique(places, axis=0)):
        yield images.reshape(grid)
    else:  # a table that names slices twice
        yield from images.reshape(-1, 1, 1, 1)
