"""Make a table of images in folders: one a site, and in it one a class, or images and masks."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

import pandas as pd

from counterpoint.data.search import FIELDS, IMAGES, MASKS, images_among, require_utf8, walk
from counterpoint.data.tables import SPLITS
from counterpoint.data.volumes import without_ending
from counterpoint.errors import DataError


class Found(NamedTuple):
    """An image or a mask: its site, its part of a split ("" for none), and where it lies."""

    site: str
    split: str
    folder: str
    """Its class, or what it is: one of `IMAGES`, `MASKS` or `FIELDS`."""
    within: PurePath
    """Its place in that folder."""
    path: Path


def table_of(folder: Path, group: str | None = None) -> pd.DataFrame:
    """Return the table of images that lie in folders, one row an image, in order of their paths.

    A folder a site; in it a folder a class, or ``images`` and ``masks`` (and ``fov``) with files
    of the same names, where a mask's may go on (``7.jpg``, ``7_mask.png``). Above or below these
    there may be folders of a split, such as ``train`` and ``test``. DICOM files of one series that
    have a folder to themselves are one image, the folder. Other files are not looked at.

    Args:
        folder: that holds the sites' folders.
        group: regular expression that is found in an image's path below the site's folder; what
            its first parentheses hold is the patient, and images are refused without one.

    Returns:
        Columns site, image, then label or mask, fov, split, group where there are such. Paths
        are absolute; groups have the site's name in front, as sites may number patients alike.

    Raises:
        DataError: that names the folder or file that does not fit, and says what does.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; check the path")
    tables = sorted(folder.glob("labels.csv")) or sorted(folder.glob("*/labels.csv"))
    if tables:
        raise DataError(f"{tables[0]} is a table already: use it as it is, or remove it first")
    files = list(_files(folder))
    if not files:
        raise DataError(f"{folder} has no folders with images; it needs one a site")
    masks = any(file.folder in MASKS for file in files)
    rows = _with_masks(files) if masks else _with_labels(files)
    if group is not None:
        for file, row in rows:
            row["group"] = f"{file.site}-{_patient(group, file)}"
    table = pd.DataFrame([row for _, row in rows])
    empty = [name for name in ("fov", "split") if name in table and not (table[name] != "").any()]
    return table.drop(columns=empty)


def _files(folder: Path) -> Iterator[Found]:
    """Give all images and masks below the folders of the sites."""
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if place.name.lower() in SPLITS:
            raise DataError(
                f"{place} is called like a part of a split, where the folders of the sites are "
                "looked for; put the sites above (SITE/train/...)"
            )
        inside = (images_among(here, paths) for here, _, paths in walk(str(place)))
        for path in sorted(Path(path) for paths in inside for path in paths):
            require_utf8(str(path))
            yield _found(place, path)


def _found(site: Path, path: Path) -> Found:
    """What an image's path says of it."""
    words = list(path.relative_to(site).parts)
    # the first two folders may be the split and the class, or the other way round
    splits = [n for n, word in enumerate(words[:-1][:2]) if word.lower() in SPLITS]
    split = SPLITS[words.pop(splits[0]).lower()] if splits else ""
    first, *rest = words
    if not rest:
        raise DataError(
            f"{path} does not lie in a folder of its class, or in one called images or masks; put "
            "it there, or write a table by hand"
        )
    kind = first.lower() if first.lower() in (*IMAGES, *MASKS, *FIELDS) else first
    return Found(site.name, split, kind, PurePath(*rest), path)


def _with_labels(files: list[Found]) -> list[tuple[Found, dict[str, str]]]:
    """Rows whose label is the name of the folder."""
    for file in files:
        if file.folder in (*IMAGES, *FIELDS):
            raise DataError(
                f"{file.path} lies in '{file.folder}' and nothing in a folder called masks; give "
                "images a folder a class, or a folder of masks beside theirs"
            )
    return [(file, _row(file, label=file.folder, split=file.split)) for file in files]


def _with_masks(files: list[Found]) -> list[tuple[Found, dict[str, str]]]:
    """Rows with the mask, and the field of view where there are such, that fit by their names."""
    images, kinds = [file for file in files if file.folder in IMAGES], (*IMAGES, *MASKS, *FIELDS)
    for file in files:
        if file.folder not in kinds:
            raise DataError(
                f"{file.path} lies in neither images nor masks, which other files do; put it into "
                "one of them, or write a table by hand"
            )
    beside: dict[tuple[str, str, bool], list[Found]] = {}
    for file in files:
        if file.folder not in IMAGES:
            beside.setdefault((file.site, file.split, file.folder in MASKS), []).append(file)
    rows = []
    for image in images:
        mask = _fitting(image, beside.get((image.site, image.split, True), []))
        fields = beside.get((image.site, image.split, False), [])
        field = str(_fitting(image, fields).path) if fields else ""
        rows.append((image, _row(image, mask=str(mask.path), fov=field, split=image.split)))
    used = Counter(row["mask"] for _, row in rows)
    for file in files:
        if file.folder in MASKS and used[str(file.path)] != 1:
            what = f"{used[str(file.path)]} images" if used[str(file.path)] else "no image"
            raise DataError(
                f"{file.path} is the mask of {what}, by its name; call it as its image is called"
            )
    return rows


def _fitting(image: Found, beside: list[Found]) -> Found:
    """The one of the files beside an image that is called as it is."""
    stem = without_ending(image.within.as_posix())
    others = {file: without_ending(file.within.as_posix()) for file in beside}
    fits = [file for file, other in others.items() if other == stem]
    fits = fits or [file for file, other in others.items() if other.startswith(f"{stem}_")]
    if len(fits) == 1:
        return fits[0]
    what = f"{len(fits)} files" if fits else "no file"
    raise DataError(
        f"{image.path}: there is {what} of the same name beside it in its masks or fov; there must "
        f"be one, such as {image.path.name} or {without_ending(image.path.name)}_mask.png"
    )


def _patient(group: str, file: Found) -> str:
    where = PurePath(file.split, file.folder, file.within).as_posix()
    found = re.search(group, where)
    if found is None or not found.group(1):
        raise DataError(f"{file.path}: no patient is found in '{where}' by the pattern {group}")
    return found.group(1)


def _row(file: Found, **values: str) -> dict[str, str]:
    return {"site": file.site, "image": os.path.abspath(file.path)} | values
