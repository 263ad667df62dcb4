"""Turn files, photographs or those with many slices, into images of one form and size."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from counterpoint.data import pixels
from counterpoint.data.dicom import dicom_geometry, is_dicom, is_single
from counterpoint.data.dicom_pixels import read_dicom, scaled
from counterpoint.data.geometry import Floats, Geometry
from counterpoint.data.pixels import BadImageError, Pixels, read_pixels
from counterpoint.data.site import Form
from counterpoint.errors import DataError

Kind = Literal["photograph", "nifti", "dicom"]

PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
NIFTI = (".nii", ".nii.gz")
_ENDINGS = (*PHOTOGRAPHS, *NIFTI, ".dcm", ".dicom", ".ima")


def without_ending(path: str) -> str:
    """A path without the ending of an image's name; numbers with dots are none.

    >>> without_ending("a/1.5.nii.gz"), without_ending("a/1.5")
    ('a/1.5', 'a/1.5')
    """
    ending = next((one for one in _ENDINGS if path.lower().endswith(one)), "")
    return path[: len(path) - len(ending)] or path


def kind_of(path: str) -> Kind:
    """Tell what a file is, by its name, else by its first bytes."""
    name = path.lower()
    if name.endswith(PHOTOGRAPHS):
        return "photograph"
    if name.endswith(NIFTI):
        return "nifti"
    return "dicom" if is_dicom(path) else "photograph"


def is_deep(path: str) -> bool:
    """Tell whether a file has more than 8 bits a channel; NIfTI and DICOM count as such."""
    return kind_of(path) != "photograph" or pixels.is_deep(path)


def is_large(path: str) -> bool:
    """Tell whether a file may have many slices, so that it is better read alone."""
    kind = kind_of(path)
    return kind == "nifti" or (kind == "dicom" and not is_single(path))


def geometry_of(path: str) -> Geometry:
    """Return size and place of a file's slices from its header; raises as the readers do."""
    kind = kind_of(path)
    if kind == "nifti":
        from counterpoint.data.nifti import nifti_geometry

        return nifti_geometry(path)
    if kind == "dicom":
        return dicom_geometry(path)
    width, height = pixels.size_of(path)
    return Geometry((1, height, width), None)


def unit_in_mm(path: str) -> float:
    """Return the millimetres of the unit that a file's geometry is in."""
    if kind_of(path) != "nifti":
        return 1.0
    from counterpoint.data.nifti import millimetres

    return millimetres(path)


def read_volume(path: str, window: tuple[float, float] | None) -> Floats:
    """Return a NIfTI or DICOM file's slices in 0 to 1, (slices, rows, columns), or (..., 3).

    See `Form` for ``window``. Raises as `read_nifti` and `read_dicom` do.
    """
    if kind_of(path) == "nifti":
        from counterpoint.data.nifti import read_nifti

        values = read_nifti(path)[0]
    else:
        values, done = read_dicom(path, window)
        if done:
            return values
    if window is None:
        window = min(0.0, float(values.min())), float(np.percentile(values, 99))
    return scaled(values, *window)


def read_images(
    path: str, frames: Sequence[int], size: int, form: Form, dtype: np.dtype[Any]
) -> Iterator[Pixels]:
    """Give the images of one file for every frame that is asked for, -1 for all of the file.

    Frames are counted from 0 in the order of `read_volume`: NIfTI slices from the feet to the
    head, however they are stored. Each answer is (k, channels, size, size), or
    (k, 1, size, size, size), of ``dtype``, which must be uint16 for NIfTI and DICOM. Raises
    BadImageError for what is broken or has no such frame, and DataError for a form that the file
    can't have.
    """
    if kind_of(path) == "photograph":
        _require_slices(path, form, "is a photograph")
        image = read_pixels(path, size, dtype)[np.newaxis]
        for frame in frames:
            _require_frame(frame, 1)
            yield image
        return
    values = read_volume(path, form.window)
    if len(values) == 1 or values.ndim == 4:
        _require_slices(path, form, "has a single slice" if len(values) == 1 else "is in colour")
    for frame in frames:
        if form.volumes == "slices":
            yield _slices(values, frame, size, form.neighbours)
            continue
        require_no_frame(path, frame, form)
        if form.volumes == "patches":
            yield cut(_deep(values), size, 0)[:, np.newaxis]
        else:
            yield _deep(_cube(values, size))[np.newaxis, np.newaxis]


def chosen_slices(count: int, frame: int) -> range:
    """Return the numbers of the slices that are meant by a frame; -1 is all.

    >>> list(chosen_slices(3, -1)), list(chosen_slices(3, 1))
    ([0, 1, 2], [1])
    """
    _require_frame(frame, count)
    return range(count) if frame < 0 else range(frame, frame + 1)


def cut(values: npt.NDArray[Any], size: int, fill: int) -> npt.NDArray[Any]:
    """Cut (a, b, c) into cubes (n, size, size, size), the last axis' neighbours first.

    The last cubes of an axis are filled up with ``fill``.
    """
    counts = [-(-length // size) for length in values.shape]
    widths = [(0, n * size - length) for n, length in zip(counts, values.shape, strict=True)]
    padded = np.pad(values, widths, constant_values=fill)
    a, b, c = counts
    blocks = padded.reshape(a, size, b, size, c, size).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(blocks).reshape(-1, size, size, size)


def require_no_frame(path: str, frame: int, form: Form) -> None:
    """Raise DataError for a row that is one slice where whole volumes are wanted."""
    if frame >= 0:
        raise DataError(
            f"{path}: the table has single slices of it, which can't be used as "
            f"'{form.volumes}'; use volumes='slices'"
        )


def _require_slices(path: str, form: Form, why: str) -> None:
    if form.volumes != "slices":
        raise DataError(
            f"{path} {why} and no volume, so volumes='{form.volumes}' can't be used; "
            "use volumes='slices'"
        )


def _require_frame(frame: int, count: int) -> None:
    if frame >= count:
        raise BadImageError(f"no slice {frame}: it has {count}, counted from 0")


def _deep(values: Floats) -> npt.NDArray[np.uint16]:
    """Return values from 0 to 1 as whole numbers from 0 to 65535."""
    rounded: npt.NDArray[np.uint16] = np.rint(values * np.float32(65535)).astype(np.uint16)
    return rounded


def _slices(values: Floats, frame: int, size: int, neighbours: bool) -> npt.NDArray[np.uint16]:
    """Return slices as images (k, 3, size, size)."""
    wanted = chosen_slices(len(values), frame)
    if values.ndim == 4:
        return np.stack([_colours(values[k], size) for k in wanted])
    reach = 1 if neighbours else 0
    last = len(values) - 1
    threes = [[min(max(k + d, 0), last) for d in (-reach, 0, reach)] for k in wanted]
    needed = {k for three in threes for k in three}
    resized = {k: _deep(_resized(values[k], size, size)) for k in needed}
    return np.stack([[resized[k] for k in three] for three in threes])


def _colours(values: Floats, size: int) -> npt.NDArray[np.uint16]:
    return np.stack([_deep(_resized(values[..., c], size, size)) for c in range(3)])


def _cube(values: Floats, size: int) -> Floats:
    """Return a volume as (size, size, size): linear along each axis, antialiased."""
    planes = np.stack([_resized(plane, size, size) for plane in values])
    flat = planes.reshape(len(planes), size * size)  # Pillow resizes each axis by itself
    return _resized(flat, size, size * size).reshape(size, size, size)


def _resized(plane: Floats, rows: int, columns: int) -> Floats:
    """Return a plane in another size by antialiased bilinear interpolation, as photographs are."""
    picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    resized: Floats = np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR))
    return resized.clip(0, 1)
