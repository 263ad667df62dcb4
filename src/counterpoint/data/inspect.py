"""The numbers that `counterpoint inspect` shows."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from math import prod

import numpy as np
import numpy.typing as npt
import pandas as pd

from counterpoint.data.files import Progress
from counterpoint.data.masks import read_mask
from counterpoint.data.pixels import BadImageError
from counterpoint.data.site import IGNORED, PARTS, Federation, Form, Site
from counterpoint.data.volumes import chosen_slices, geometry_of, is_large, read_images
from counterpoint.errors import DataError

_SAMPLE = 64
_LARGE_SAMPLE = 8  # of files with many slices, which take long to read


def inspect(federation: Federation, progress: Progress = lambda done, total: None) -> pd.DataFrame:
    """Return one row a site, under the site's name; the site held out is the last.

    Columns: ``images`` (rows of its table; a volume counts once); the parts ``train``,
    ``validation`` and ``test``; a column ``class NAME`` for every class with the number of its
    images, or for segmentation ``NAME %`` with its mean share (0 to 100) of the pixels that
    count; ``groups``; ``smallest`` and ``largest`` image by area or volume (text, width x height,
    x slices); and the mean colour ``red``, ``green``, ``blue`` (0 to 255). Shares and colours are
    those of at most 64 images (8 volumes; of their middle slices the colour) spread over the
    site's table. ``progress`` is called with (files looked at, files in all), from any thread.
    Raises DataError that names a file which can't be read.
    """
    done, total = count(1), sum(site.table["image"].nunique() for site in federation.everyone)

    def step() -> None:
        progress(next(done), total)

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda site: _row(site, federation, step), federation.everyone))
    names = [site.name for site in federation.everyone]
    return pd.DataFrame(rows, index=pd.Index(names, name="site"))


def _row(site: Site, federation: Federation, step: Callable[[], None]) -> dict[str, object]:
    table, classes = site.table, federation.classes
    row: dict[str, object] = {"images": len(table)}
    row |= {part: int((table["split"] == part).sum()) for part in PARTS}
    sample = _sample(table)
    if federation.task == "segmentation":
        shares = _mean_shares(site, sample, len(classes))
        row |= {f"{c} %": round(100 * s, 2) for c, s in zip(classes, shares, strict=True)}
    else:
        row |= {f"class {c}": int((table["label"] == i).sum()) for i, c in enumerate(classes)}
    row["groups"] = int(table["group"].nunique())
    sizes = sorted(
        {_size(site, file, step) for _, file in table.drop_duplicates("image").iterrows()}
    )
    row["smallest"], row["largest"] = (
        "x".join(map(str, size)) for _, *size in (sizes[0], sizes[-1])
    )
    colours = _mean_colour(site, sample, federation.form)
    for name, value in zip(("red", "green", "blue"), colours, strict=True):
        row[name] = round(value, 1)
    return row


def _sample(table: pd.DataFrame) -> pd.DataFrame:
    """Return some rows, evenly spread."""
    count = min(len(table), _LARGE_SAMPLE if is_large(table["image"].iloc[0]) else _SAMPLE)
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, count).astype(int))]


@contextmanager
def _named(site: Site, row: pd.Series) -> Iterator[None]:
    """Raise DataError, which names the file, for one that is broken."""
    try:
        yield
    except BadImageError as error:
        raise DataError(
            f"site '{site.name}': {row[error.column]} can't be decoded ({error}); replace it or "
            "leave it out"
        ) from error


def _size(site: Site, row: pd.Series, step: Callable[[], None]) -> tuple[int, ...]:
    """Return an image's area or volume, its width and height, and its slices if it has many."""
    with _named(site, row):
        slices, height, width = geometry_of(row["image"]).shape
    step()
    size = (width, height) if slices == 1 else (width, height, slices)
    return prod(size), *size


def _mean_colour(site: Site, sample: pd.DataFrame, form: Form) -> list[float]:
    """Return the mean red, green and blue (0 to 255) of a sample."""
    deep = np.dtype(np.uint16)  # fits every image, so that 8 and 16 bits are comparable
    flat = Form(window=form.window)
    means = []
    for _, row in sample.iterrows():
        with _named(site, row):
            path, frame = row["image"], int(row.get("frame", -1))
            if frame < 0:
                frame = geometry_of(path).shape[0] // 2
            (image,) = read_images(path, [frame], 64, flat, deep)
            means.append(image.mean(axis=(0, 2, 3)) / 257)
    return [float(value) for value in np.mean(means, axis=0)]


def _mean_shares(site: Site, sample: pd.DataFrame, classes: int) -> list[float]:
    """Return each class's mean share (0 to 1) of the pixels that are not ignored."""
    shares: list[npt.NDArray[np.float64]] = []
    for _, row in sample.iterrows():
        with _named(site, row):
            mask = read_mask(row["mask"], row.get("fov", ""), row["image"], classes)
            mask = mask[chosen_slices(len(mask), int(row.get("frame", -1)))]
        counts = np.bincount(mask[mask != IGNORED], minlength=classes)
        shares.append(counts / max(counts.sum(), 1))
    return [float(value) for value in np.mean(shares, axis=0)]
