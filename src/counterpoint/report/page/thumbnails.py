"""Small pictures of test images, as PNG in data URIs."""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 240
"""Pixels of a thumbnail's side."""
TRUTH, FOUND = (255, 255, 255), (255, 138, 31)
"""Colours of the outlines: what people marked, and what the model marked."""


def png(image: npt.NDArray[np.float32]) -> str:
    """An image (C, H, W) in 0..1 as a data URI.

    >>> png(np.zeros((3, 8, 8), dtype=np.float32))[:22]
    'data:image/png;base64,'
    """
    return _uri(_enlarged(image))


def outlined(
    image: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> str:
    """An image (C, H, W) with outlines of two masks (H, W), as a data URI."""
    pixels = _enlarged(image).copy()
    for mask, colour in ((truth, TRUTH), (found, FOUND)):
        scored = np.where(truth >= 0, mask, 0)  # what lies outside a field of view is not judged
        pixels[_outline(scored, pixels.shape[:2])] = colour
    return _uri(pixels)


def worst_plane(
    pixels: npt.NDArray[np.float32],
    truth: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of a case's images (n, C, *space), the plane with most wrong pixels: image and masks."""
    if pixels.ndim == 5:  # volumes: every plane is an image
        n, c, depth, *plane = pixels.shape
        pixels = pixels.transpose(0, 2, 1, 3, 4).reshape(n * depth, c, *plane)
        truth, found = (mask.reshape(n * depth, *plane) for mask in (truth, found))
    wrong = ((truth != found) & (truth >= 0)).sum(axis=(1, 2))
    worst = int(wrong.argmax())
    return pixels[worst], truth[worst], found[worst]


def _enlarged(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(C, H, W) in 0..1 to (h, w, 3) in 0..255, the longer side of length `SIDE`."""
    colours = image if image.shape[0] == 3 else np.repeat(image[:1], 3, axis=0)
    pixels = (255 * np.clip(colours, 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    scale = SIDE / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _outline(mask: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Where the classes of an enlarged mask border on one another."""
    inside = mask.astype(np.uint8)
    large = np.asarray(
        Image.fromarray(inside).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    )
    edge = np.zeros(large.shape, dtype=np.bool_)
    edge[1:] |= large[1:] != large[:-1]
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    return edge


def _uri(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
