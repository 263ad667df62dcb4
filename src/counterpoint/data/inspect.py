"""The numbers that `counterpoint inspect` shows."""

import numpy as np
import pandas as pd
from PIL import Image

from counterpoint.data.pixels import BadImageError, read_pixels
from counterpoint.data.site import PARTS, Federation, Site
from counterpoint.errors import DataError

_SAMPLE = 64


def inspect(federation: Federation) -> pd.DataFrame:
    """Return one row a site, under the site's name.

    Columns: ``images``; the parts ``train``, ``validation`` and ``test``; a column ``class NAME``
    for every class; ``groups``; ``smallest`` and ``largest`` image by area (text, width x height);
    and the mean colour ``red``, ``green``, ``blue`` (0 to 255) of at most 64 images spread over
    the site's table. Raises DataError that names a file which can't be read.
    """
    rows = [_row(site, federation.classes) for site in federation.sites]
    return pd.DataFrame(rows, index=pd.Index([s.name for s in federation.sites], name="site"))


def _row(site: Site, classes: tuple[str, ...]) -> dict[str, object]:
    table = site.table
    row: dict[str, object] = {"images": len(table)}
    row |= {part: int((table["split"] == part).sum()) for part in PARTS}
    row |= {f"class {c}": int((table["label"] == i).sum()) for i, c in enumerate(classes)}
    row["groups"] = int(table["group"].nunique())
    sizes = sorted({_size(site, path) for path in table["image"]}, key=lambda s: (s[0] * s[1], s))
    row["smallest"], row["largest"] = (f"{w}x{h}" for w, h in (sizes[0], sizes[-1]))
    for name, value in zip(("red", "green", "blue"), _mean_colour(site), strict=True):
        row[name] = round(value, 1)
    return row


def _size(site: Site, path: str) -> tuple[int, int]:
    """Return an image's width and height in pixels from its header."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow's plugins raise many kinds for broken files
        raise DataError(
            f"site '{site.name}': {path} can't be read ({error}); replace it or leave it out"
        ) from error


def _mean_colour(site: Site) -> list[float]:
    """Return the mean red, green and blue (0 to 255) of a sample of the site's images."""
    images = site.table["image"].tolist()
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).astype(int))
    deep = np.dtype(np.uint16)  # fits every image, so that 8 and 16 bits are comparable
    means = []
    for place in chosen:
        try:
            means.append(read_pixels(images[place], 64, deep).mean(axis=(1, 2)) / 257)
        except BadImageError as error:
            raise DataError(
                f"site '{site.name}': {images[place]} can't be decoded ({error}); replace it or "
                "leave it out"
            ) from error
    return [float(value) for value in np.mean(means, axis=0)]
