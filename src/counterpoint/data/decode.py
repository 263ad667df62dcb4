"""Decode every image and mask once into memory-mapped arrays of one size."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from counterpoint.cores import cores
from counterpoint.data.arrays import Stored
from counterpoint.data.bad import (
    FORMAT,
    Bad,
    describe,
    image_keys,
    remember,
    remembered,
    target_keys,
    without,
)
from counterpoint.data.extents import read_extents
from counterpoint.data.files import Progress, cache_folder, unwritable
from counterpoint.data.masks import read_masks
from counterpoint.data.pixels import BadImageError
from counterpoint.data.prepare import require_contents
from counterpoint.data.site import Federation, SiteData
from counterpoint.data.volumes import is_deep, is_large, kind_of, read_images
from counterpoint.errors import DataError, SettingsError

Images = npt.NDArray[Any]

_AT_ONCE = 256  # images on the way at a time: bounds memory, and how long stopping takes


def decode(
    federation: Federation,
    image_size: int,
    cache: str | os.PathLike[str] | None = None,
    *,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[Federation, list[SiteData]]:
    """Return the federation and, site by site, its images as arrays (n, 3, size, size).

    Photographs become RGB (grey is repeated; palettes are looked up and transparency is dropped, as
    Pillow's ``convert("RGB")`` does), upright by their EXIF orientation, and ``image_size`` pixels
    wide and high by antialiased bilinear interpolation, whatever their shape. The arrays are
    uint8; if any file of the federation is grey with more than 8 bits they are all uint16 over
    the full range, 8-bit values times 257. (Pillow itself reads 16-bit colour at 8 bits.)

    NIfTI and DICOM files become slices, patches or cubes as `Federation.form` says, so that a row
    may give several images; their arrays are uint16, 0 to 65535 for 0 to 1 of the window. Slices
    are resized as photographs are. Patches are cut at the file's own resolution and filled up with
    0 (their masks with `IGNORED`). The rows of one file are side by side in the arrays.

    For segmentation every image's mask (see `counterpoint.data.masks.read_mask`) is resized with
    the nearest neighbour. The sites are those of `Federation.everyone`.

    Arrays are kept in ``cache`` under a name made of the files' contents and the size, and used
    again. ``progress`` is called with (files done, files in all). Raises DataError for files
    that are no images, broken, far too large or out of range, and masks that do not fit their
    image, unless ``skip_bad`` leaves them out, and for a full disk; SettingsError for a size
    below 8.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 8:
        raise SettingsError(f"image_size is {image_size!r}; it must be a whole number, 8 or more")
    folder = _array_folder(cache)
    given = federation
    if skip_bad:
        federation = without(given, remembered(folder, given.form))
    dtype = _dtype(federation, image_size, folder)
    work = [
        _Work(federation, _by_file(site.table), image_size, dtype, folder)
        for site in federation.everyone
    ]
    bad = _write_arrays(work, progress)
    if bad and not skip_bad:
        raise DataError(
            f"{'; '.join(describe(federation, bad))}; replace these files, or leave them out "
            "with skip_bad=True (--skip-bad)"
        )
    if bad:
        remember(folder, given.form, bad)
        # from the start, so that the notes are the same whatever was known before
        return decode(given, image_size, cache, skip_bad=True, progress=progress)
    sites = [one.site_data(site.name) for one, site in zip(work, federation.everyone, strict=True)]
    if federation.task == "segmentation":
        found = _notes_on_masks(sites, federation.classes)
        notes = dict.fromkeys((*federation.notes, *found))  # once, if decoded again
        federation = replace(federation, notes=tuple(notes))
    return federation, sites


def _notes_on_masks(sites: Sequence[SiteData], classes: Sequence[str]) -> list[str]:
    """Return notes on classes that no training mask of a site has."""
    notes = []
    for site in sites:
        part, missing = site.part("train"), set(range(len(classes)))
        assert part.targets is not None
        for row in part.rows:  # mostly the first ones have them all
            missing -= {*np.flatnonzero(np.bincount(part.targets[row].ravel()))}
            if not missing:
                break
        notes += [
            f"site '{site.name}' has no training mask with '{classes[number]}' in it"
            for number in sorted(missing)
            if len(part)
        ]
    return notes


def _array_folder(cache: str | os.PathLike[str] | None) -> Path:
    folder = cache_folder(cache) / "arrays"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _by_file(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with those of one file side by side, so that each is read only once."""
    return table.iloc[np.argsort(pd.factorize(table["image"])[0], kind="stable")]


def _dtype(federation: Federation, size: int, folder: Path) -> np.dtype[Any]:
    """Return uint16 if any image has more than 8 bits a channel, else uint8.

    A site with such an image never has a uint8 array, so that finding all of them is the answer
    and no file has to be opened.
    """
    shallow, deep = np.dtype(np.uint8), np.dtype(np.uint16)
    tables = [_by_file(site.table) for site in federation.everyone]
    found = (_Work(federation, table, size, shallow, folder).images.counts() for table in tables)
    if all(counts is not None for counts in found):
        return shallow
    paths = [path for table in tables for path in table["image"].drop_duplicates()]
    with ThreadPoolExecutor(cores()) as pool:
        return deep if any(pool.map(is_deep, paths)) else shallow


class _Row(NamedTuple):
    """What is read for a row: ``frame`` is -1 for all of the file; texts may be empty."""

    image: str
    mask: str
    fov: str
    frame: int


_File = list[_Row]


@dataclass(frozen=True, eq=False)
class _Work:
    """What is to be done for a site: ``table`` has the rows of each file side by side."""

    federation: Federation
    table: pd.DataFrame
    size: int
    dtype: np.dtype[Any]
    folder: Path

    @property
    def images(self) -> Stored:
        """The place of the images: a name made of all that the pixels depend on."""
        form = self.federation.form
        shape = (form.channels, *[self.size] * form.dimensions)
        return self._stored(image_keys(self.table), shape, self.dtype)

    @property
    def targets(self) -> Stored | None:
        """The place of the masks; None if they are not needed."""
        if self.federation.task != "segmentation":
            return None
        keys = target_keys(self.table, self.federation)
        shape = (self.size,) * self.federation.form.dimensions
        return self._stored(keys, shape, np.dtype(np.uint8))

    @property
    def extents(self) -> Stored | None:
        """The place of the images' extents; None if they are not needed, or all photographs."""
        if self.federation.task != "segmentation":
            return None
        if all(kind_of(path) == "photograph" for path in self.table["image"]):
            return None
        keys = [f"{key}/{self.size}" for key in image_keys(self.table)]
        return self._stored(keys, (2, 3), np.dtype(np.float64))

    def _stored(self, keys: list[str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Stored:
        form = json.dumps(asdict(self.federation.form))
        text = "\n".join([*keys, str(shape), dtype.name, form, FORMAT])
        name = hashlib.sha256(text.encode()).hexdigest()
        return Stored(self.folder / f"{name}.npy", len(keys), shape, dtype)

    def read_images(self, file: _File) -> Iterator[Images]:
        """Give the images (k, C, S, ...) of each of a file's rows."""
        frames = [row.frame for row in file]
        return read_images(file[0].image, frames, self.size, self.federation.form, self.dtype)

    def read_targets(self, file: _File) -> Iterator[Images]:
        """Give the masks (k, S, ...) of each of a file's rows."""
        form, classes = self.federation.form, len(self.federation.classes)
        for (mask, fov), rows in groupby(file, key=lambda row: (row.mask, row.fov)):
            frames = [row.frame for row in rows]
            yield from read_masks(mask, fov, file[0].image, frames, self.size, form, classes)

    def read_extents(self, file: _File) -> Iterator[Images]:
        """Give place and spacing (k, 2, 3) of each of a file's rows."""
        frames = [row.frame for row in file]
        return read_extents(file[0].image, frames, self.size, self.federation.form)

    @property
    def files(self) -> list[_File]:
        """The rows of each file."""
        empty = [""] * len(self.table)
        frames = self.table["frame"] if "frame" in self.table else [-1] * len(self.table)
        columns = (self.table.get(name, empty) for name in ("image", "mask", "fov"))
        rows = map(_Row, *columns, map(int, frames))
        return [list(file) for _, file in groupby(rows, key=lambda row: row.image)]

    def site_data(self, name: str) -> SiteData:
        """Return the arrays' paths with what is known of each image."""
        counts = self.images.counts()
        if counts is None:
            raise DataError(f"{self.images.path} was removed or changed; decode again")
        rows = self.table.iloc[np.repeat(np.arange(len(counts)), counts)]
        return SiteData(
            name,
            self.images.path,
            rows["label"].to_numpy(dtype=np.int64),
            rows["split"].to_numpy(dtype="<U10"),
            _numbers(rows, "case", "image"),
            _numbers(rows, "patient", "group"),
            self.targets.path if self.targets else None,
            self.extents.path if self.extents else None,
        )


def _numbers(rows: pd.DataFrame, column: str, of: str) -> npt.NDArray[np.int64]:
    """The numbers in ``column``, or where there is none, new ones for the values of ``of``."""
    numbers = rows[column] if column in rows else pd.factorize(rows[of])[0]
    return np.asarray(numbers, dtype=np.int64)


def _write_arrays(work: list[_Work], progress: Progress | None) -> Bad:
    """Write the arrays that are not there yet; return what is bad."""
    todo = []
    for one in work:
        todo.append((one, one.images, image_keys(one.table), one.read_images))
        if one.targets:
            keys = target_keys(one.table, one.federation)
            todo.append((one, one.targets, keys, one.read_targets))
        if one.extents:
            todo.append((one, one.extents, image_keys(one.table), one.read_extents))
    total = sum(len(keys) for _, _, keys, _ in todo)
    done = 0

    def step(rows: int) -> None:
        nonlocal done
        done += rows
        if progress:
            progress(done, total)

    bad: Bad = {}
    for one, stored, keys, read in todo:
        if stored.counts() is not None:
            step(len(keys))
            continue
        try:
            stored.write(_good_rows(one, keys, read, step))
        except _BadFilesError as error:
            bad.update(error.found)
    return bad


class _BadFilesError(Exception):
    """Leaves an array unwritten; carries what is bad."""

    def __init__(self, found: Bad) -> None:
        super().__init__()
        self.found = found


def _good_rows(
    work: _Work,
    keys: list[str],
    read: Callable[[_File], Iterator[Images]],
    step: Callable[[int], None],
) -> Iterator[Images]:
    """Give each row's images; after the first bad one none, and in the end _BadFilesError.

    Raises DataError in the end if a file is no longer the one that was loaded.
    """
    found: Bad = {}
    for key, images in zip(keys, _in_order(work.files, read), strict=True):
        if isinstance(images, BadImageError):
            found[key] = (images.column, str(images))
        elif not found:
            yield images
        step(1)
    require_contents(work.table, work.folder.parent)
    if found:
        raise _BadFilesError(found)


def _in_order(
    files: list[_File], read: Callable[[_File], Iterator[Images]]
) -> Iterator[Images | BadImageError]:
    """Give each row's images, or why there are none; decoded by as many threads as cores.

    Files with many slices are decoded one after the other: only one is in memory.
    """

    def of_file(file: _File) -> list[Images] | list[BadImageError]:
        try:
            return list(read(file))
        except BadImageError as error:
            return [error] * len(file)

    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(files), _AT_ONCE):
            some = files[start : start + _AT_ONCE]
            large = list(pool.map(lambda file: is_large(file[0].image), some))
            ready = pool.map(of_file, [f for f, big in zip(some, large, strict=True) if not big])
            for file, big in zip(some, large, strict=True):
                yield from of_file(file) if big else next(ready)
