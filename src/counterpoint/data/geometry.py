"""Size and place of a volume."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterpoint.data.pixels import BadImageError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Size and place of a volume.

    ``shape`` is (slices, rows, columns); ``affine`` (4, 4) takes such indices to millimetres, or a
    NIfTI file's own unit (right, anterior, superior), None where the file does not say.
    """

    shape: tuple[int, ...]
    affine: npt.NDArray[np.float64] | None

    @property
    def orientation(self) -> npt.NDArray[Any]:
        """How the axes lie, for nibabel; `BadImageError` where it is not known."""
        if self.affine is None:
            raise BadImageError("no position in space, so that a NIfTI mask can't be laid over it")
        from nibabel.orientations import io_orientation

        found: npt.NDArray[Any] = io_orientation(self.affine)
        return found

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))
