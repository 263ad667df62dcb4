"""Read NIfTI files (.nii, .nii.gz) as axial slices.

Import it where there is such a file: nibabel takes half a second.
"""

from contextlib import suppress
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from counterpoint.data.geometry import Floats, Geometry
from counterpoint.data.pixels import BadImageError
from counterpoint.errors import DataError

# Slices from the feet up, rows from the front to the back, columns from the patient's right to
# the left: as a radiologist looks at it, and as axial DICOM series are stored.
_AXIAL = axcodes2ornt(("S", "P", "L"))


def nifti_geometry(path: str) -> Geometry:
    """Return size and place from the header, with axial slices; raises as `read_nifti` does."""
    return _turned(_load(path, "image"), _AXIAL, "image")[1]


def read_nifti(
    path: str, column: str = "image", orientation: npt.NDArray[Any] | None = None
) -> tuple[Floats, Geometry]:
    """Return a file's values (slices, rows, columns), after its slope, and their geometry.

    The slices are axial, which are the planes along the last axis of the volume in canonical
    orientation (RAS), or as ``orientation`` says. What is no number (NaN) in an image, as
    resampling leaves it outside of what was measured, becomes the smallest value. Raises
    BadImageError (about ``column``) for files that are broken, have no three dimensions or values
    that are no numbers; DataError if the file can't be read at all.
    """
    loaded = _load(path, column)
    transform, geometry = _turned(loaded, _AXIAL if orientation is None else orientation, column)
    try:
        values = loaded.get_fdata(dtype=np.float32, caching="unchanged").reshape(_shape(loaded))
    except MemoryError:
        raise
    except Exception as error:  # zlib, nibabel and numpy raise many kinds for broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"the file {path} can't be read ({error.strerror})") from error
        raise BadImageError(f"a broken NIfTI file ({error})", column) from error
    nothing = np.isnan(values)
    if column == "image" and nothing.any() and not nothing.all():
        values = np.where(nothing, np.nanmin(values), values)
    if not np.isfinite(values).all():
        raise BadImageError("values that are no numbers", column)
    return np.ascontiguousarray(apply_orientation(values, transform)), geometry


def like_nifti(path: str, values: npt.NDArray[Any]) -> Any:
    """Return axial slices (slices, rows, columns, ...) as a volume that lies where a file's does.

    The axes are in the file's own order, and of its header only what says where it lies is kept.
    """
    loaded = _load(path, "image")
    stored = io_orientation(loaded.affine)
    turned = apply_orientation(values, ornt_transform(_AXIAL, stored))
    large = isinstance(loaded.header, nibabel.Nifti2Header)
    make: Any = nibabel.Nifti2Image if large else nibabel.Nifti1Image
    # of a flat image the third axis is there again where classes are the fourth
    space = _shape(loaded) if values.ndim > 3 else loaded.shape[:3]
    made = make(turned.reshape(*space, *values.shape[3:]), loaded.affine)
    with suppress(ValueError):  # no quaternion: then the volume lies as the other matrix says
        made.set_qform(*loaded.get_qform(coded=True))
    made.set_sform(*loaded.get_sform(coded=True))
    made.header.set_xyzt_units(*_units(loaded))
    return made


def millimetres(path: str) -> float:
    """Return the length of a file's unit of space; of one that says nothing, a millimetre."""
    unit = _units(_load(path, "image"))[0]
    return {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)


def _units(loaded: Any) -> tuple[str, str]:
    """Units of space and time; "unknown" for codes that are none."""
    try:
        space, time = loaded.header.get_xyzt_units()
    except KeyError:
        return "unknown", "unknown"
    return space, time


def _load(path: str, column: str) -> Any:
    """Open a file without its values."""
    try:
        loaded = nibabel.load(path)
        shape, kind = loaded.shape, loaded.get_data_dtype().kind  # type: ignore[attr-defined]
        if not isinstance(loaded, nibabel.Nifti1Pair):  # CIFTI has no volume
            raise ValueError
    except Exception as error:  # nibabel raises many kinds for broken files
        unread = isinstance(error, OSError) and error.errno is not None
        if unread or isinstance(error, FileNotFoundError | PermissionError):
            why = getattr(error, "strerror", None) or "it is not there or may not be read"
            raise DataError(f"the file {path} can't be read ({why})") from error
        raise BadImageError("not a NIfTI file, or a broken one", column) from error
    if len(shape) > 3 and np.prod(shape[3:]) > 1:
        raise BadImageError(
            f"{len(shape)} dimensions ({'x'.join(map(str, shape))}); save one volume a file",
            column,
        )
    if len(shape) < 2 or 0 in shape or kind not in "iuf":
        raise BadImageError("no volume of plain numbers", column)
    return loaded


def _shape(loaded: Any) -> tuple[int, int, int]:
    x, y, z = (*loaded.shape[:3], 1)[:3]
    return x, y, z


def _turned(
    loaded: Any, orientation: npt.NDArray[Any], column: str
) -> tuple[npt.NDArray[Any], Geometry]:
    """Return how the axes have to be turned, and the geometry that comes out."""
    before = io_orientation(loaded.affine)
    if not np.isfinite(before).all():
        raise BadImageError("a header that does not say how the volume lies in space", column)
    transform = ornt_transform(before, orientation)
    shape = _shape(loaded)
    turned = tuple(shape[axis] for axis in np.argsort(transform[:, 0]))
    return transform, Geometry(turned, loaded.affine @ inv_ornt_aff(transform, shape))
