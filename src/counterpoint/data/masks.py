"""Read masks: every pixel's class, and what lies outside a field of view."""

from typing import Any

import numpy as np
import numpy.typing as npt

from counterpoint.data.pixels import BadImageError, size_of, upright
from counterpoint.data.site import IGNORED

Mask = npt.NDArray[np.uint8]

_FEW = 15  # larger values are shades of grey and not numbers of classes
_HALF = 127  # a JPEG's black and white are blurred: what is lighter than this is white


def read_mask(mask: str, fov: str, image: str, size: int, classes: int) -> Mask:
    """Return a photograph's mask (size, size): indices of classes, `IGNORED` outside ``fov``.

    With two classes all that is not background is 1: in a picture with values above 15 what is
    lighter than half of 255, else what is not 0. With more classes the values are the indices.
    ``fov`` may be an empty text. Raises BadImageError for broken files, other sizes than the
    image's, colours and values that are no class; DataError if a file can't be read at all.
    """
    found = to_classes(_read_picture(mask, image, "mask"), classes)
    if fov:
        found = np.where(to_classes(_read_picture(fov, image, "fov"), 2), found, np.uint8(IGNORED))
    return nearest_neighbour(found, size)


def to_classes(values: npt.NDArray[Any], classes: int, grey: bool = True) -> Mask:
    """Return a mask's values as indices of classes; ``grey`` for pictures, see `read_mask`.

    >>> to_classes(np.array([0, 3, 250, 255]), 2).tolist()
    [0, 0, 1, 1]
    >>> to_classes(np.array([0, 3, 1]), 2).tolist(), to_classes(np.array([0, 3]), 4).tolist()
    ([0, 1, 1], [0, 3])
    """
    if classes == 2:
        shades = grey and values.max(initial=0) > _FEW
        return (values > (_HALF if shades else 0)).astype(np.uint8)
    wrong = values[(values < 0) | (values >= classes) | (values != np.rint(values))]
    if wrong.size:
        raise BadImageError(
            f"a value of {wrong.flat[0]:g}; with {classes} classes the values must be 0 to "
            f"{classes - 1}",
            "mask",
        )
    return values.astype(np.uint8)


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

    A picture with values above 15 has two. A file that is not there or broken has none: what
    is wrong with it is said when it is decoded.
    """
    try:
        values = _values(mask, "mask")
    except Exception:
        return 0
    highest = float(values.max(initial=0))
    return 1 if highest > _FEW else int(highest)


def _read_picture(path: str, image: str, column: str) -> npt.NDArray[Any]:
    """Return a picture's values (height, width) after comparing its size with the image's."""
    values = _values(path, column)
    width, height = size_of(image)
    if values.shape != (height, width):
        raise BadImageError(
            f"{values.shape[1]}x{values.shape[0]} pixels, but its image has {width}x{height}",
            column,
        )
    return values


def _values(path: str, column: str) -> npt.NDArray[Any]:
    """Return the grey values, or a palette's indices, of an upright picture (height, width)."""
    with upright(path, column) as picture:
        if picture.mode == "LA":
            picture = picture.convert("L")
        elif picture.mode not in ("1", "L", "P") and not picture.mode.startswith(("I", "F")):
            picture = picture.convert("RGB")
        values = np.asarray(picture)
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise BadImageError("a picture in colours; a mask's values must be grey", column)
        values = values[..., 0]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise BadImageError("values that are no numbers", column)
    return values
