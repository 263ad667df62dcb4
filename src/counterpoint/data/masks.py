"""Read masks: every pixel's class, and what lies outside a field of view."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from counterpoint.data.geometry import Floats, Geometry
from counterpoint.data.pixels import BadImageError, upright
from counterpoint.data.site import IGNORED, Form
from counterpoint.data.volumes import chosen_slices, cut, geometry_of, kind_of, require_no_frame

Mask = npt.NDArray[np.uint8]

SHADES = -1
"""Of a mask in black and white, see `highest_class`."""

_FEW = 15  # larger values are shades of grey and not numbers of classes
_HALF = 127  # a JPEG's black and white are blurred: what is lighter than this is white


def read_masks(
    mask: str, fov: str, image: str, frames: Sequence[int], size: int, form: Form, classes: int
) -> Iterator[Mask]:
    """Give the masks of one image file for every frame that is asked for, -1 for all of the file.

    Each is (k, size, size), or (k, size, size, size), in the order of the file's images. See
    `read_mask` for what is in them and what is raised; a DataError also for a form that the file
    can't have.
    """
    whole = read_mask(mask, fov, image, classes)
    for frame in frames:
        if form.volumes == "slices":
            slices = [whole[k] for k in chosen_slices(len(whole), frame)]
            yield np.stack([nearest_neighbour(one, size) for one in slices])
            continue
        require_no_frame(image, frame, form)
        if form.volumes == "patches":
            yield cut(whole, size, IGNORED)
        else:
            yield nearest_neighbour(whole, size)[np.newaxis]


def read_mask(mask: str, fov: str, image: str, classes: int) -> Mask:
    """Return a mask (slices, rows, columns): indices of classes, `IGNORED` outside ``fov``.

    With two classes all that is not background is 1: in a picture with values above 15 what is
    lighter than half of 255 (or of its lightest value, if that is darker), else what is not 0;
    fractions, and areas of shades between black and white, are refused.
    With more classes the values are the indices.
    A picture is the mask of a photograph, or of a DICOM file with one frame; a NIfTI file is that
    of a NIfTI or DICOM image, whose place in space it must have. ``fov`` may be an empty text.

    Raises BadImageError for broken files, another size or place than the image's, colours and
    values that are no class; DataError if a file can't be read at all.
    """
    geometry = geometry_of(image)
    found = _read_classes(mask, geometry, "mask", classes)
    if not fov:
        return found
    return np.where(_read_classes(fov, geometry, "fov", 2) > 0, found, np.uint8(IGNORED))


def to_classes(
    values: npt.NDArray[Any], classes: int, grey: bool = True, column: str = "mask"
) -> Mask:
    """Return a mask's values as indices of classes; ``grey`` for pictures, see `read_mask`.

    >>> to_classes(np.array([0, 3, 5, 249, 255]), 2).tolist()
    [0, 0, 0, 1, 1]
    >>> to_classes(np.array([0, 3, 1]), 2).tolist(), to_classes(np.array([0, 3]), 4).tolist()
    ([0, 1, 1], [0, 3])
    """
    if values.dtype.kind == "f":  # as a file's slope and intercept may leave them
        near = np.rint(values)
        values = np.where(np.abs(values - near) < 1e-3, near, values)
    lightest = values.max(initial=0)
    if classes == 2 and grey and lightest > _FEW:
        _require_two_shades(values, column)
        values = values > min(_HALF, lightest // 2)
    elif classes == 2 and (values == np.rint(values)).all():
        values = values > 0
    wrong = values[(values < 0) | (values >= classes) | (values != np.rint(values))]
    if wrong.size:
        raise BadImageError(
            f"a value of {wrong.flat[0]:g}; with {classes} classes the values must be 0 to "
            f"{classes - 1}",
            column,
        )
    return values.astype(np.uint8)


def _require_two_shades(values: npt.NDArray[Any], column: str) -> None:
    """Raise BadImageError for a picture of more shades than two: is it of two classes or of more?

    Blurred edges, of JPEG files or after resizing, have many shades, and few pixels each, whose
    neighbours differ from them.
    """
    if values.dtype == np.uint8:  # faster than to sort them
        counts = np.bincount(values.ravel())
        shades, counts = np.flatnonzero(counts), counts[counts > 0]
    else:
        shades, counts = np.unique(values, return_counts=True)
    lightest = float(shades[-1])
    low, high = lightest / 8, lightest * 7 / 8
    greys = (shades > low) & (shades < high)
    some, white = counts[shades > 0].sum(), counts[shades >= high].sum()
    many = white < some / 3 and counts[greys].sum() > some / 10  # white is only one of them
    if many and _flat((values > low) & (values < high), values) > some / 10:
        raise BadImageError(
            f"it has areas of many values, up to {lightest:g}, as if they were numbers of objects "
            "or classes: of two classes they must be 0 and 255; save it so",
            column,
        )
    classes = (shades == 1) | (shades == 2)  # numbers of classes, beside a white for "ignore"
    if 3 <= len(shades) <= 4 and counts[greys | classes].max(initial=0) > values.size / 100:
        more = ", of more (--classes background,disc,cup) 0, 1, 2" if column == "mask" else ""
        raise BadImageError(
            f"its values are {', '.join(f'{shade:g}' for shade in shades)}: of two classes they "
            f"must be 0 and 255{more}; save it so",
            column,
        )


def _flat(chosen: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> int:
    """Return how many of the chosen pixels have the value of the pixels around them."""
    inner = (..., slice(1, -1), slice(1, -1))
    same = chosen[inner].copy()
    for down, right in ((0, 1), (2, 1), (1, 0), (1, 2)):
        rows, columns = (slice(at, at - 2 or None) for at in (down, right))
        same &= values[inner] == values[..., rows, columns]
    return int(same.sum())


def nearest_neighbour(values: Mask, size: int) -> Mask:
    """Return a mask with ``size`` pixels along every axis; each is that nearest to its centre.

    >>> nearest_neighbour(np.array([[0, 1], [2, 3]], np.uint8), 3)[0].tolist()
    [0, 1, 1]
    """
    for axis, length in enumerate(values.shape):
        places = ((np.arange(size) + 0.5) * length / size).astype(np.int64)
        values = np.take(values, places, axis=axis)
    return values


def highest_class(mask: str) -> int:
    """Return the highest class that is in a mask, for finding out how many there are.

    A picture with values above 15 has two, and so has any mask with 0 and 255 only: these give
    `SHADES`. A file that is not there or broken has none: what is wrong with it is said when it is
    decoded.
    """
    try:
        volume = kind_of(mask) == "nifti"
        values = _nifti(mask, "mask")[0] if volume else _values(mask, "mask")
    except Exception:
        return 0
    highest = values.max(initial=0)
    if not volume and highest > _FEW:
        return SHADES
    black_and_white = highest == 255 and np.isin(values, (0, 255)).all()
    return SHADES if black_and_white else int(np.rint(highest))


def _nifti(
    path: str, column: str, orientation: npt.NDArray[Any] | None = None
) -> tuple[Floats, Geometry]:
    from counterpoint.data.nifti import read_nifti

    return read_nifti(path, column, orientation)


def _read_classes(path: str, geometry: Geometry, column: str, classes: int) -> Mask:
    """Return a mask's classes (slices, rows, columns) after comparing it with its image."""
    kind = kind_of(path)
    if kind == "dicom":
        raise BadImageError("a DICOM file; save masks as NIfTI or PNG", column)
    if kind == "photograph":
        values = _values(path, column, shades=classes == 2)[np.newaxis]
        if values.shape != geometry.shape:
            sizes = f"{values.shape[2]}x{values.shape[1]} pixels, but its image has "
            wanted = f"{geometry.shape[2]}x{geometry.shape[1]}"
            more = f" and {geometry.shape[0]} slices" if geometry.shape[0] > 1 else ""
            raise BadImageError(sizes + wanted + more, column)
        return to_classes(values, classes, column=column)
    if geometry.affine is None:
        raise BadImageError(
            "a NIfTI mask, but its image has no place in space to lay it over; use a PNG", column
        )
    values, found = _nifti(path, column, geometry.orientation)
    if found.shape != geometry.shape:
        raise BadImageError(
            f"{found} voxels (slices x rows x columns), but its image has {geometry}", column
        )
    _require_same_place(found, geometry, column)
    return to_classes(values, classes, grey=False, column=column)


def _require_same_place(one: Geometry, other: Geometry, column: str) -> None:
    """Raise BadImageError if a corner of a volume lies elsewhere by a quarter of a voxel."""
    if one.affine is None or other.affine is None:
        return
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)], dtype=np.float64)
    corners[:, :3] *= np.array(one.shape) - 1
    apart = float(np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1).max())
    voxel = float(np.linalg.norm(other.affine[:3, :3], axis=0).min())
    if apart > voxel / 4:
        raise BadImageError(
            f"it lies {apart:.3g} mm away from its image in space (another affine); resample it "
            "to its image",
            column,
        )


def _values(path: str, column: str, shades: bool = False) -> npt.NDArray[Any]:
    """Return the values (height, width) of an upright picture.

    Of one with a palette these are the indices, but with ``shades`` the shades of grey where it
    has no other colours: black and white may come in any order there.
    """
    with upright(path, column) as picture:
        values = np.asarray(picture)
        if picture.mode == "LA":
            values = values[..., 0]
        elif picture.mode not in ("1", "L", "P") and not picture.mode.startswith(("I", "F")):
            values = np.asarray(picture.convert("RGB"))
            if (values != values[..., :1]).any():
                raise BadImageError("a picture in colours; a mask's values must be grey", column)
            values = values[..., 0]
        elif picture.mode == "P" and shades:
            colours = np.asarray(picture.convert("RGB"))
            if (colours == colours[..., :1]).all():
                values = colours[..., 0]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadImageError("values that are no numbers", column)
    return values
