"""Outlines in the XML of Aperio ImageScope, drawn as masks that are kept in the cache."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw

from counterpoint.data.files import content_hashes, unwritable, written_whole
from counterpoint.errors import DataError

Polygon = list[tuple[float, float]]

_FORMAT = "1"  # part of the masks' names: raise it when they come out differently
_UNCLEAR = "ambiguous"


def read_polygons(path: Path) -> tuple[list[Polygon], list[Polygon]]:
    """Return the outlines of an annotation file and those of regions marked as ambiguous.

    Every outline is a list of (x, y) in pixels from the image's upper left; those with fewer than
    three points enclose nothing and are left out. Raises DataError that names the file.
    """
    try:
        root = ElementTree.parse(path).getroot()
        if root.tag != "Annotations":
            raise DataError(f"{path} is no annotation of Aperio ImageScope: it holds <{root.tag}>")
        clear: list[Polygon] = []
        unclear: list[Polygon] = []
        for annotation in root.iter("Annotation"):
            names = [one.get("Name", "").strip().lower() for one in annotation.iter("Attribute")]
            for region in annotation.iter("Region"):
                points = [
                    (float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iter("Vertex")
                ]
                if len(points) > 2:
                    (unclear if _UNCLEAR in names else clear).append(points)
    except (ElementTree.ParseError, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"the annotation {path} can't be read ({type(error).__name__}: {error}); get it again"
        ) from error
    return clear, unclear


def draw_polygons(polygons: Sequence[Polygon], size: tuple[int, int]) -> Image.Image:
    """Return an image of 1 bit, ``size`` (width, height) pixels, that is set inside and on them.

    >>> import numpy as np
    >>> np.asarray(draw_polygons([[(1, 1), (2, 1), (2, 2), (1, 2)]], (4, 3))).astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    """
    image = Image.new("1", size)
    draw = ImageDraw.Draw(image)
    for points in polygons:
        draw.polygon(points, fill=1, outline=1)
    return image


def polygon_masks(pairs: Sequence[tuple[Path, Path]], cache: Path) -> list[tuple[str, str]]:
    """Return the paths of a mask and a field of view for every pair of image and annotation.

    The mask is set inside the outlines; the field of view is clear inside the ambiguous regions,
    and an empty text where there are none. Both are PNG in ``cache``, drawn once for an
    annotation's content and an image's size. Raises DataError that names a file.
    """
    folder = cache / "masks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    contents = content_hashes([str(annotation) for _, annotation in pairs], cache)

    def one(pair: tuple[Path, Path]) -> tuple[str, str]:
        image, annotation = pair
        size = _size(image)
        name = f"{contents[str(annotation)]}-{size[0]}x{size[1]}-{_FORMAT}"
        mask, view = folder / f"{name}.png", folder / f"{name}-view.png"
        if not mask.exists():
            clear, unclear = read_polygons(annotation)
            if unclear:  # first, so that it is there whenever the mask is
                seen = draw_polygons(unclear, size).point(lambda value: not value, "1")
                _save(seen, view)
            _save(draw_polygons(clear, size), mask)
        return str(mask), str(view) if view.exists() else ""

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, pairs))


def _save(image: Image.Image, path: Path) -> None:
    with written_whole(path) as temporary:
        image.save(temporary, format="PNG")


def _size(path: Path) -> tuple[int, int]:
    """Return an image's width and height in pixels from its header."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow's plugins raise many kinds for broken files
        raise DataError(f"the image {path} can't be read ({error}); get it again") from error
