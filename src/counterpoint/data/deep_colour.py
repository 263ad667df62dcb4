"""Colour of 16 bits in PNG and TIFF: Pillow would cut it to 8, so imagecodecs reads it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

_BITS, _PLANAR = 258, 284  # tags of TIFF


def is_deep_colour(path: str) -> bool:
    """Tell from the header whether an image has colour of 16 bits; a broken one has not."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA", "LA"):
                return False
            if isinstance(image, TiffImageFile):
                return bool(max(image.tag_v2.get(_BITS, (8,))) == 16)
            # Pillow's own mode is RGB; what it will cut is only in how it means to read the file.
            return any(";16" in str(tile.args) for tile in image.tile)
    except Exception:  # Pillow's plugins raise many kinds; who reads it will say what is wrong
        return False


def read_deep_colour(path: str) -> list[Image.Image]:
    """Return red, green and blue as float images, upright by their EXIF; alpha is dropped.

    Raises ImportError without imagecodecs. It fills up what a broken file lacks: look first.
    """
    import imagecodecs

    with Image.open(path) as image:
        decode = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.tiff_decode
        exif = image.getexif().tobytes()
        apart = isinstance(image, TiffImageFile) and image.tag_v2.get(_PLANAR) == 2
    values = np.asarray(decode(Path(path).read_bytes()), np.float32)
    if apart:  # red, green and blue are stored one after the other
        values = np.moveaxis(values, 0, -1)
    colours = values[..., :3] if values.shape[-1] > 2 else values[..., [0, 0, 0]]
    channels = [Image.fromarray(np.ascontiguousarray(colours[..., n])) for n in range(3)]
    for channel in channels:
        channel.info["exif"] = exif
    return [ImageOps.exif_transpose(channel) for channel in channels]
