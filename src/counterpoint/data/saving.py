"""Write masks and class probabilities with the size and the place of the image they belong to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image

from counterpoint.data.geometry import Geometry
from counterpoint.data.nifti import like_nifti
from counterpoint.data.volumes import geometry_of, kind_of, unit_in_mm

COLOURS = (
    *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
"""What a mask's values look like: black for the background, then colours that people who are
colour-blind tell apart (Okabe and Ito 2008), again from the second where classes are more."""


def save_mask(stem: Path, image: str, mask: npt.NDArray[np.uint8]) -> Path:
    """Write the mask (slices, rows, columns) of an image, values 0 to classes - 1.

    That of a photograph is a PNG of the values, with a palette so that people can look at it.
    That of a NIfTI or DICOM image is a NIfTI file that lies where the image does; of DICOM with a
    single frame and no place in space it is a PNG.

    Returns ``stem`` with its suffix. Raises as the readers of the image do, and OSError.
    """
    geometry = geometry_of(image)
    if _is_flat(image, geometry):
        path = _with_suffix(stem, ".png")
        picture = Image.fromarray(mask[0])
        colours = [COLOURS[k if k == 0 else 1 + (k - 1) % 7] for k in range(256)]
        picture.putpalette([value for colour in colours for value in colour])
        picture.save(path)
        return path
    return _save_volume(_with_suffix(stem, ".nii.gz"), image, geometry, mask)


def save_probabilities(stem: Path, image: str, slices: Sequence[npt.NDArray[np.float32]]) -> Path:
    """Write the class probabilities (classes, rows, columns) of an image's slices, as float32.

    Where the mask is a PNG they are a NumPy file (classes, rows, columns), else a NIfTI file with
    the classes along a fourth axis. See `save_mask` for what is returned and raised.
    """
    geometry = geometry_of(image)
    if _is_flat(image, geometry):
        path = _with_suffix(stem, ".npy")
        np.save(path, slices[0])
        return path
    volume = np.stack([one.transpose(1, 2, 0) for one in slices])
    return _save_volume(_with_suffix(stem, ".nii.gz"), image, geometry, volume)


def _is_flat(image: str, geometry: Geometry) -> bool:
    """Tell whether an image is a picture without a place in space."""
    kind = kind_of(image)
    return kind == "photograph" or (
        kind == "dicom" and geometry.affine is None and geometry.shape[0] == 1
    )


def _with_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)  # a name may have dots of its own


def _save_volume(path: Path, image: str, geometry: Geometry, values: npt.NDArray[Any]) -> Path:
    if kind_of(image) == "nifti":
        made = like_nifti(image, values)
    else:  # columns, rows, slices, as converters of DICOM have it
        affine = None if geometry.affine is None else geometry.affine[:, [2, 1, 0, 3]]
        made = nibabel.Nifti1Image(np.swapaxes(values, 0, 2), affine)
        made.header.set_xyzt_units("mm")
    nibabel.save(made, path)
    return path


def voxel_volume(image: str) -> float | None:
    """Return the volume of an image's voxel in millilitres; None where the file does not say."""
    geometry = geometry_of(image)
    if geometry.affine is None or _is_flat(image, geometry):
        return None
    return float(abs(np.linalg.det(geometry.affine[:3, :3]))) * unit_in_mm(image) ** 3 / 1000
