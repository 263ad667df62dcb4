"""Read one photograph as pixels of a wanted size."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from counterpoint.data.deep_colour import is_deep_colour, read_deep_colour
from counterpoint.errors import DataError

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_DEEP = ("I", "F")  # Pillow's modes with more than 8 bits a channel; I;16 and the like included
_MOST = 65535
# Tags of EXIF and TIFF.
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274


class BadImageError(ValueError):
    """A file is no image, or a broken one; the text says why without naming the file.

    ``column`` of its row says which file is meant: "image", "mask" or "fov".
    """

    def __init__(self, why: str, column: str = "image") -> None:
        super().__init__(why)
        self.column = column


def is_deep(path: str) -> bool:
    """Tell from the header whether an image has more than 8 bits; a broken one has not."""
    try:
        with Image.open(path) as image:
            return image.mode.startswith(_DEEP) or is_deep_colour(path)
    except Exception:  # Pillow's plugins raise many kinds; read_pixels will say what is wrong
        return False


@contextmanager
def upright(path: str, column: str = "image") -> Iterator[Image.Image]:
    """Open an image and turn it as its EXIF orientation says.

    Raises BadImageError, also for what goes wrong in the block, for a broken or far too large
    image (a "decompression bomb"), and DataError if the file can't be read at all.
    """
    try:
        with Image.open(path) as opened:
            _require_one_page(opened)
            yield ImageOps.exif_transpose(opened)
    except (DataError, BadImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("not an image in a known format", column) from error
    except Exception as error:  # Pillow's plugins raise many kinds for broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"the file {path} can't be read ({error.strerror})") from error
        raise BadImageError(str(error) or type(error).__name__, column) from error


def _require_one_page(image: Image.Image) -> None:
    """Refuse several images in one file; smaller copies behind the first are none of them."""
    if image.format not in ("TIFF", "GIF", "WEBP") or getattr(image, "n_frames", 1) == 1:
        return
    first = image.size
    image.seek(1)
    alike = image.size == first
    image.seek(0)
    if alike:
        raise BadImageError(f"{image.n_frames} images in one file; save one a file")  # type: ignore[attr-defined]


def size_of(path: str) -> tuple[int, int]:
    """Return an upright image's width and height from its header; raises as `upright` does."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            # of a TIFF, some versions of Pillow have turned the size already
            stored = (
                (int(image.tag_v2[_WIDTH]), int(image.tag_v2[_HEIGHT]))
                if isinstance(image, TiffImageFile)
                else image.size
            )
            return stored[::-1] if turned else stored
    except Exception:
        with upright(path) as image:  # says what is wrong
            return image.size


def read_pixels(path: str, size: int, dtype: np.dtype[Any]) -> Pixels:
    """Return an image as an array (3, size, size) of uint8 or uint16.

    Raises BadImageError for a broken image, a far too large one (a "decompression bomb"), or
    values outside 0 to 65535, and DataError if the file can't be read at all.
    """
    with upright(path) as image:  # which finds what is broken
        if is_deep_colour(path):
            return np.stack([_deep_channel(channel, size) for channel in _deep_channels(path)])
        if image.mode.startswith(_DEEP):
            grey = _deep_channel(image, size)
            if white := _white_at_zero(path):
                grey = np.uint16(white) - grey
            return np.repeat(grey[np.newaxis], 3, axis=0)
        image.info.pop("transparency", None)  # it is dropped; Pillow would warn about it
        resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
    return pixels if dtype == np.uint8 else pixels.astype(np.uint16) * np.uint16(257)


def _white_at_zero(path: str) -> int:
    """Return the darkest value of a TIFF in which 0 is white; 0 of all others."""
    with Image.open(path) as image:  # Pillow turns those of 8 bits itself
        if isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0:
            return int(2 ** image.tag_v2[_BITS][0] - 1) if image.mode.startswith("I;16") else 0
    return 0


def _deep_channels(path: str) -> list[Image.Image]:
    """Return red, green and blue of an image with 16 bits each."""
    try:
        return read_deep_colour(path)
    except ImportError as error:
        raise BadImageError(
            "colour of 16 bits; install imagecodecs (pip install counterpoint[colour16])"
        ) from error


def _deep_channel(image: Image.Image, size: int) -> npt.NDArray[np.uint16]:
    """Return one channel of more than 8 bits as uint16, its values kept as they are."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > _MOST:
        raise BadImageError(
            f"grey values from {values.min():g} to {values.max():g}; they must be 0 to {_MOST}"
        )
    if 0 < values.max() <= 1 and image.mode == "F":
        raise BadImageError(f"grey values from 0 to 1; save it with values from 0 to {_MOST}")
    # Float32 holds every 16-bit value exactly, and Pillow resizes it with antialiasing.
    grey = Image.fromarray(values.astype(np.float32)).resize(
        (size, size), Image.Resampling.BILINEAR
    )
    rounded: npt.NDArray[np.uint16] = np.rint(np.asarray(grey)).clip(0, _MOST).astype(np.uint16)
    return rounded
