"""Decode every image once into memory-mapped arrays of one size."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL

from counterpoint.data.files import cache_folder, unwritable, written_whole
from counterpoint.data.pixels import BadImageError, Pixels, is_deep, read_pixels
from counterpoint.data.rules import check_sites
from counterpoint.data.site import Federation, Site, SiteData
from counterpoint.errors import DataError, SettingsError

Progress = Callable[[int, int], None]

_FORMAT = "1"  # part of the arrays' names: raise it when pixels come out differently
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

    Images become RGB (grey is repeated; palettes are looked up and transparency is dropped, as
    Pillow's ``convert("RGB")`` does), upright by their EXIF orientation, and ``image_size`` pixels
    wide and high by antialiased bilinear interpolation, whatever their shape. The arrays are
    uint8; if any image of the federation is grey with more than 8 bits they are all uint16 over
    the full range, 8-bit values times 257. (Pillow itself reads 16-bit colour at 8 bits.)

    Arrays are kept in ``cache`` under a name made of the files' contents and the size, and used
    again. ``progress`` is called with (images done, images in all). Raises DataError for files
    that are no images, broken, far too large or out of range, unless ``skip_bad`` leaves them out,
    and for a full disk; SettingsError for a size below 8.
    """
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 8:
        raise SettingsError(f"image_size is {image_size!r}; it must be a whole number, 8 or more")
    folder = _array_folder(cache)
    given = federation
    if skip_bad:
        federation = _without(given, _remembered_bad(folder))
    dtype = _dtype(federation, image_size, folder)
    bad = _write_arrays(federation, image_size, dtype, folder, progress)
    if bad and not skip_bad:
        raise DataError(
            f"{'; '.join(_describe(federation, bad))}; replace these files, or leave them out "
            "with skip_bad=True (--skip-bad)"
        )
    if bad:
        _remember_bad(folder, bad)
        # from the start, so that the notes are the same whatever was known before
        return decode(given, image_size, cache, skip_bad=True, progress=progress)
    return federation, [
        SiteData(
            site.name,
            _array_path(folder, site.table, image_size, dtype),
            site.table["label"].to_numpy(dtype=np.int64),
            site.table["split"].to_numpy(dtype="<U10"),
            np.arange(len(site.table), dtype=np.int64),
            pd.factorize(site.table["group"])[0].astype(np.int64),
        )
        for site in federation.everyone
    ]


def _array_folder(cache: str | os.PathLike[str] | None) -> Path:
    folder = cache_folder(cache) / "arrays"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _dtype(federation: Federation, size: int, folder: Path) -> np.dtype[Any]:
    """Return uint16 if any image has more than 8 bits a channel, else uint8.

    A site with such an image never has a uint8 array, so that finding all of them is the answer
    and no file has to be opened.
    """
    shallow, deep = np.dtype(np.uint8), np.dtype(np.uint16)
    tables = [site.table for site in federation.sites]
    if all(_fits(_array_path(folder, t, size, shallow), len(t), size, shallow) for t in tables):
        return shallow
    paths = [path for table in tables for path in table["image"]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return deep if any(pool.map(is_deep, paths)) else shallow


def _array_path(folder: Path, table: pd.DataFrame, size: int, dtype: np.dtype[Any]) -> Path:
    """Return the place of a site's array: a name made of all that its pixels depend on."""
    key = "\n".join([*table["content"], str(size), dtype.name, _FORMAT])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"


def _fits(path: Path, count: int, size: int, dtype: np.dtype[Any]) -> bool:
    """Tell whether an array is there, of the right shape and whole, from its header and size."""
    shape = (count, 3, size, size)
    try:
        found = np.load(path, mmap_mode="r")  # fails if the file is shorter than its header says
        return bool(found.shape == shape and found.dtype == dtype)
    except (OSError, ValueError, EOFError):
        return False


def _write_arrays(
    federation: Federation,
    size: int,
    dtype: np.dtype[Any],
    folder: Path,
    progress: Progress | None,
) -> dict[str, str]:
    """Write the arrays that are not there yet; return the contents of bad files with reasons."""
    total = sum(len(site.table) for site in federation.sites)
    done = 0
    bad: dict[str, str] = {}
    for site in federation.sites:
        path = _array_path(folder, site.table, size, dtype)
        if _fits(path, len(site.table), size, dtype):
            done += len(site.table)
            if progress:
                progress(done, total)
            continue
        try:
            with written_whole(path) as temporary, open(temporary, "wb") as file:
                # Written in order and not through a memory map: there, a full disk is a crash.
                header = {"descr": dtype.str, "fortran_order": False}
                header["shape"] = (len(site.table), 3, size, size)
                np.lib.format.write_array_header_1_0(file, header)
                found: dict[str, str] = {}
                contents = site.table["content"].tolist()
                pixels = _in_order(site.table["image"].tolist(), size, dtype)
                for content, image in zip(contents, pixels, strict=True):
                    if isinstance(image, str):
                        found[content] = image
                    elif not found:
                        file.write(image.tobytes())
                    done += 1
                    if progress:
                        progress(done, total)
                if found:
                    raise _BadFilesError(found)
        except _BadFilesError as error:
            bad.update(error.found)
    return bad


class _BadFilesError(Exception):
    """Leaves an array unwritten; carries the contents of bad files with reasons."""

    def __init__(self, found: dict[str, str]) -> None:
        super().__init__()
        self.found = found


def _in_order(paths: list[str], size: int, dtype: np.dtype[Any]) -> Iterator[Pixels | str]:
    """Give every image's pixels, or why there are none; decoded by as many threads as cores."""

    def read(path: str) -> Pixels | str:
        try:
            return read_pixels(path, size, dtype)
        except BadImageError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(read, paths[start : start + _AT_ONCE])


def _describe(federation: Federation, bad: dict[str, str]) -> list[str]:
    """Return a sentence a site on its bad files: how many, and the first three with reasons."""
    sentences = []
    for site in federation.sites:
        rows = site.table[site.table["content"].isin(list(bad))]
        pairs = zip(rows["image"][:3], rows["content"][:3], strict=True)
        if len(rows):
            first = ", ".join(f"{image} ({bad[content]})" for image, content in pairs)
            sentences.append(
                f"site '{site.name}': {len(rows)} of {len(site.table)} images can't be decoded, "
                f"first: {first}"
            )
    return sentences


def _without(federation: Federation, bad: dict[str, str]) -> Federation:
    """Return the federation without the bad files, with notes, after checking its sites again."""
    left_out = [f"{text}; left out" for text in _describe(federation, bad)]
    if not left_out:
        return federation
    sites = tuple(
        Site(s.name, s.table[~s.table["content"].isin(list(bad))].reset_index(drop=True))
        for s in federation.sites
    )
    notes = [*federation.notes, *left_out]
    notes += [note for note in check_sites(sites, federation.classes) if note not in notes]
    return replace(federation, sites=sites, notes=tuple(notes))


def _bad_index(folder: Path) -> Path:
    """Return the list of bad contents; another Pillow may read them, so it has its version."""
    return folder / f"unreadable-{PIL.__version__}.json"


def _remembered_bad(folder: Path) -> dict[str, str]:
    """Return what was found to be bad before: without it every start would decode in vain."""
    try:
        found = json.loads(_bad_index(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember_bad(folder: Path, bad: dict[str, str]) -> None:
    with written_whole(_bad_index(folder)) as temporary:
        temporary.write_text(json.dumps(_remembered_bad(folder) | bad), encoding="utf-8")
