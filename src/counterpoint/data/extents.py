"""Read from headers how large pixels are, and where in its file an image lies."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from counterpoint.data.dicom import pixel_spacing
from counterpoint.data.geometry import Geometry
from counterpoint.data.site import Form
from counterpoint.data.volumes import chosen_slices, geometry_of, kind_of, unit_in_mm


def read_extents(
    path: str, frames: Sequence[int], size: int, form: Form
) -> Iterator[npt.NDArray[np.float64]]:
    """Give place and spacing (k, 2, 3) of the k images that a file gives for every frame.

    They are as in `Extents`, of images in the order of `read_images`. The size of a photograph's
    pixels is not known. Raises as the readers of the image do.
    """
    shape: tuple[int, ...] = (1, size, size)
    voxel = np.full(3, np.nan)
    if kind_of(path) != "photograph":
        geometry = geometry_of(path)
        shape, voxel = geometry.shape, voxel_size(path, geometry)
    whole = np.array(shape)
    for frame in frames:
        if form.volumes == "slices":
            places = [(k, 0, 0) for k in chosen_slices(shape[0], frame)]
            spacing = voxel * [1, *whole[1:] / size]
        elif form.volumes == "patches":
            places, spacing = list(np.ndindex(*-(-whole // size))), voxel
        else:
            places, spacing = [(0, 0, 0)], voxel * whole / size
        yield np.stack([np.array(places, float), np.tile(spacing, (len(places), 1))], axis=1)


def voxel_size(path: str, geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return the millimetres between slices, rows and columns; NaN where a file does not say."""
    if geometry.affine is not None:
        sides: npt.NDArray[np.float64] = np.linalg.norm(geometry.affine[:3, :3], axis=0)
        return sides * unit_in_mm(path)
    plane = pixel_spacing(path) if kind_of(path) == "dicom" else None
    return np.array([np.nan, *(plane if plane is not None else (np.nan, np.nan))])
