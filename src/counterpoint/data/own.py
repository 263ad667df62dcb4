"""Read a user's own images: one CSV with a site column, or a folder with a folder a site."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from counterpoint.cores import cores
from counterpoint.data.dicom import patient_group
from counterpoint.data.masks import SHADES, highest_class
from counterpoint.data.site import IGNORED, Reading, Task
from counterpoint.data.tables import (
    class_names,
    clean_label,
    holds_a_split,
    misspelt,
    read_lines,
    read_table,
    require_values,
    split_names,
)
from counterpoint.data.volumes import kind_of
from counterpoint.errors import DataError, nearest
from counterpoint.report.words import typed

_GROUPS = ("group", "patient", "patient_id", "lesion", "lesion_id")
_MAY_BE_GROUPS = ("pid", "patientid", "subject", "subject_id", "participant_id", "case_id", "case")
_PATIENTS = ("patient", "patient_id")
_FIELDS = ("fov", "fov_mask")
_REQUIRED = {"classification": ("image", "label"), "segmentation": ("image", "mask")}


def own_task(path: Path) -> Task:
    """Return "segmentation" if the first table has masks and no labels, else "classification".

    A column whose name is nearly label counts as one; `read_own` then says how it is spelt.
    """
    tables = [path] if path.is_file() else [path / "labels.csv", *sorted(path.glob("*/labels.csv"))]
    table = next((table for table in tables if table.is_file()), None)
    if table is None:
        return "classification"  # read_own says what is missing
    try:
        lines = read_lines(table)
    except DataError:
        return "classification"
    names = [name.lower() for name in lines[0][1]] if lines else []
    labels = "label" in names or misspelt(names, ("label",))
    return "segmentation" if "mask" in names and not labels else "classification"


def read_own(
    path: Path,
    *,
    use_split: bool = True,
    only_classes: Sequence[str] | None = None,
    task: Task = "classification",
) -> Reading:
    """Read one CSV (columns site, image, label) or a folder of site folders with labels.csv each.

    Images are photographs, NIfTI or DICOM files, or folders with a DICOM series. Optional columns:
    split, group (or patient, patient_id, lesion, lesion_id; where there is none, DICOM files are
    grouped by a hash of the patient's ID), mask and fov (or fov_mask, a mask of what counts).
    Image and mask paths are relative to the CSV's folder; site
    names and labels are any texts. With ``use_split`` false a split column is not looked at. The
    classes are the labels that occur, or ``only_classes`` in their order, and then no other label
    may occur.

    For segmentation every row needs a mask and a label is optional: it only helps to make a split
    in proportion. ``only_classes`` are then the names of the masks' values 0, 1, ...; where left
    out, all masks are looked through for the highest one.

    Raises DataError, which names file, line or column and says what to do.
    """
    if not path.exists():
        raise DataError(f"there is no file or folder {path}; check the path")
    notes: list[str] = []
    if path.is_file():
        sources = _one_csv(path, task)
    elif (path / "labels.csv").is_file():
        sources = _one_csv(path / "labels.csv", task)
    else:
        sources = _site_folders(path, task, notes)
    _require_no_misspelt(sources, use_split)
    _require_whole_patients(sources, use_split)
    _require_split_everywhere(sources, use_split)
    tables = {
        site: _to_site(file, raw, site, use_split, task) for site, (file, raw) in sources.items()
    }
    notes += _notes_on_columns(sources, tables)
    for name in only_classes or ():
        if list(only_classes or ()).count(name) > 1:
            raise DataError(f"the class '{name}' is named twice; name every class once")
    labels = class_names([label for table in tables.values() for label in table["label"]])
    images = sum(map(len, tables.values()))
    if only_classes is None and task == "classification" and 2 * len(labels) > images > 2:
        raise DataError(
            f"the column 'label' has {len(labels)} different values for {images} images; a class "
            "needs several images: is the class in another column?"
        )
    if only_classes is not None and task == "classification":
        _require_labels(sources, tables, only_classes)
        labels = tuple(only_classes)
    notes += _notes_on_classes(labels)
    index = {name: place for place, name in enumerate(labels)}
    for table in tables.values():
        table["label"] = table["label"].map(index).astype("int64")
    classes = labels if task == "classification" else _mask_classes(tables, only_classes)
    name = path.stem if path.is_file() else path.name
    return Reading(name, classes, tables, tuple(notes), task)


def _mask_classes(tables: dict[str, pd.DataFrame], names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the masks' values; without ``names`` all masks are looked through."""
    if names is None:
        paths = sorted({path for table in tables.values() for path in table["mask"]})
        with ThreadPoolExecutor(cores()) as pool:
            found = dict(zip(paths, pool.map(highest_class, paths), strict=True))
        highest = max(found.values(), default=0)
        if highest > 1 and SHADES in found.values():
            odd, shaded = (next(p for p in paths if found[p] == of) for of in (highest, SHADES))
            raise DataError(
                f"{shaded} is a mask in black and white, or has values above 15, but {odd} has "
                f"values up to {highest}; save all masks with the same values, or say what they "
                "are (--classes background,...)"
            )
        names = ["background", *map(str, range(1, highest + 1))]
        if highest < 2:
            names = ["background", "foreground"]
    if not 2 <= len(names) <= IGNORED:
        raise DataError(
            f"masks with {len(names)} classes; segmentation needs 2 to {IGNORED}, the background "
            "first (--classes background,lesion)"
        )
    return tuple(names)


def _one_csv(file: Path, task: Task) -> dict[str, tuple[Path, pd.DataFrame]]:
    """Return the rows of a single CSV by site, in the order in which the sites come."""
    table = read_table(file, ("site", *_REQUIRED[task]))
    require_values(file, table["site"])
    _require_different_images(file, table)
    return {str(site): (file, rows) for site, rows in table.groupby("site", sort=False)}


def _site_folders(
    folder: Path, task: Task, notes: list[str]
) -> dict[str, tuple[Path, pd.DataFrame]]:
    """Return the rows of every site folder, in the order of names; the others go to the notes."""
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    sites = [p for p in inside if (p / "labels.csv").is_file()]
    columns = ",".join(_REQUIRED[task])
    if not sites:
        raise DataError(
            f"{folder} has neither a labels.csv nor folders with one; give a CSV with columns "
            f"site,{columns} or a folder with one folder a site, each with images and a "
            f"labels.csv (columns {columns}); where folders say what is in them, "
            f"`counterpoint table {typed(folder)}` makes the table"
        )
    left_out = [p.name for p in inside if p not in sites]
    for place in inside:
        tables = [file.name for file in place.iterdir() if file.name.lower() == "labels.csv"]
        if place not in sites and tables:
            raise DataError(f"{place} has a table '{tables[0]}'; call it labels.csv")
    if left_out:
        notes.append(f"folders without labels.csv were left out: {', '.join(left_out)}")
    sources = {
        p.name: (p / "labels.csv", read_table(p / "labels.csv", _REQUIRED[task])) for p in sites
    }
    for site, (file, table) in sources.items():
        _require_different_images(file, table)
        if "site" in table and (table["site"] != site).any():
            notes.append(f"{file}: its column 'site' is not looked at; the folder's name counts")
    return sources


def _require_different_images(file: Path, table: pd.DataFrame) -> None:
    """Raise DataError if an image is not named or is named twice in a table."""
    require_values(file, table["image"])
    seen: dict[str, object] = {}
    for line, image in table["image"].items():
        path = _absolute(file, image)
        if path in seen:
            raise DataError(
                f"{file}, line {line}: the image {image} is already in line {seen[path]}; "
                "keep one of the two rows"
            )
        seen[path] = line


def _require_no_misspelt(sources: dict[str, tuple[Path, pd.DataFrame]], use_split: bool) -> None:
    """Raise DataError for a split or a group under another name: a run would do without it."""
    for file, table in dict(sources.values()).items():
        optional = (*(["split"] if use_split else []), *([] if _group_column(table) else _GROUPS))
        for text in misspelt(list(table.columns), optional):
            raise DataError(f"{file}: {text} Rename it, to something else if that is not meant")
    for file, table in sources.values():  # site by site: one may have a single part
        other = holds_a_split(table) if use_split and "split" not in table else None
        if other:
            raise DataError(
                f"{file}: the column '{other}' holds a split, and only one called 'split' is used; "
                "rename it, or make a new split with protocol='grouped' (--protocol grouped)"
            )


def _require_whole_patients(sources: dict[str, tuple[Path, pd.DataFrame]], use_split: bool) -> None:
    """Raise DataError if groups would part images that are of one patient, says another column.

    A split that is there may keep them together all the same. An empty group is an image's own.
    """
    for file, table in sources.values():
        used = _group_column(table)
        splits = table["split"].str.lower() if use_split and _has_split(table) else None
        for other in [name for name in _PATIENTS if name in table and name != used]:
            known = table[table[other] != ""].map(clean_label)
            for patient, rows in known.groupby(other, sort=False):
                if splits is not None and splits[rows.index].nunique() == 1:
                    continue
                if rows[used].nunique() > 1 or (len(rows) > 1 and (rows[used] == "").any()):
                    raise DataError(
                        f"{file}, line {rows.index[0]}: the images of {other} '{patient}' are not "
                        f"in one group of the column '{used}', which would part them; keep one of "
                        "the two columns"
                    )


def _has_split(table: pd.DataFrame) -> bool:
    return "split" in table.columns and bool((table["split"] != "").any())


def _require_split_everywhere(
    sources: dict[str, tuple[Path, pd.DataFrame]], use_split: bool
) -> None:
    """Raise DataError if some sites have a split and others do not."""
    without = [site for site, (_, table) in sources.items() if not _has_split(table)]
    if use_split and without and len(without) < len(sources):
        file, table = sources[without[0]]
        place = f"{file}, line {table.index[0]}" if "split" in table.columns else f"{file}"
        raise DataError(
            f"{place}: site '{without[0]}' has no split but other sites have one; fill in the "
            "column 'split' for every row or leave it out everywhere (or use protocol='grouped')"
        )


def _to_site(file: Path, raw: pd.DataFrame, site: str, use_split: bool, task: Task) -> pd.DataFrame:
    """Return a site's table in the columns of `Reading`; labels are still texts."""
    require_values(file, raw[_REQUIRED[task][1]])
    table = pd.DataFrame(index=raw.index)
    table["image"] = [_absolute(file, value) for value in raw["image"]]
    labels = raw["label"] if "label" in raw.columns else [""] * len(raw)
    table["label"] = [clean_label(value) for value in labels]
    table["split"] = split_names(file, raw["split"]) if use_split and _has_split(raw) else ""
    known = _groups(raw, table["image"])
    # The name of an unknown group has no absolute path, so that a split does not depend on it.
    table["group"] = [
        value or f"image:{site}/{image}" for value, image in zip(known, raw["image"], strict=True)
    ]
    field = next((name for name in _FIELDS if name in raw.columns), None)
    for name, source in (("mask", "mask"), ("fov", field)):
        if source in raw.columns:
            table[name] = [_absolute(file, value) if value else "" for value in raw[source]]
    return table


def _require_labels(
    sources: dict[str, tuple[Path, pd.DataFrame]],
    tables: dict[str, pd.DataFrame],
    classes: Sequence[str],
) -> None:
    """Raise DataError for the first label that is not one of the classes."""
    for site, table in tables.items():
        for line, label in table["label"].items():
            if label not in classes:
                raise DataError(
                    f"{sources[site][0]}, line {line}: the label '{label}' of site '{site}' is not "
                    f"one of the classes {', '.join(classes)}{nearest(label, list(classes))}"
                )


def _absolute(file: Path, value: str) -> str:
    return os.path.abspath(os.path.join(file.parent, value))


def _groups(raw: pd.DataFrame, images: pd.Series) -> list[str]:
    """Return each row's patient or lesion, by the first column that names one.

    Of DICOM files without, it is a name made from the patient's ID in the header.
    """
    columns = [raw[name].map(clean_label) for name in _GROUPS if name in raw]  # 17.0 is 17
    named = [next(filter(None, values), "") for values in zip(*columns, strict=True)]
    named = named or [""] * len(raw)

    def known(name: str, image: str) -> str:
        return name or _patient(image)

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(known, named, images))


def _patient(path: str) -> str:
    return patient_group(path) if kind_of(path) == "dicom" else ""


def _group_column(table: pd.DataFrame) -> str | None:
    """Return the column of groups, if possible one that is not empty."""
    there = [name for name in _GROUPS if name in table.columns]
    return next((name for name in there if (table[name] != "").any()), there[0] if there else None)


def _notes_on_columns(
    sources: dict[str, tuple[Path, pd.DataFrame]], tables: dict[str, pd.DataFrame]
) -> list[str]:
    """Return notes on misspelt columns and on rows whose patient is not known."""
    notes = []
    for file, table in dict(sources.values()).items():
        notes += [f"{file}: {text}" for text in misspelt(list(table.columns), ("mask", "fov"))]
    for site, (_, table) in sources.items():
        column = _group_column(table)
        unknown = int(tables[site]["group"].str.startswith("image:").sum())
        if unknown:
            why = "no column group, patient or lesion_id" if column is None else f"empty '{column}'"
            if column is None and (other := [name for name in _MAY_BE_GROUPS if name in table]):
                why += f"; if '{other[0]}' names patients, call it 'patient'"
            notes.append(
                f"site '{site}': {unknown} of {len(table)} images have no known patient or lesion "
                f"({why}), so images of one patient can't be kept in one part"
            )
    return notes


def patients_known(data_notes: Iterable[str]) -> bool:
    """Whether it is known of every image whose it is, as notes on the data tell.

    >>> patients_known(["site 'A': 3 of 9 images have no known patient or lesion"])
    False
    >>> patients_known(["site 'D': 9 of 9 images have no known lesion"])
    False
    >>> patients_known(["a split was made, with no known patient or lesion in two parts"])
    True
    """
    return not any("images have no known" in note for note in data_notes)


def _notes_on_classes(classes: tuple[str, ...]) -> list[str]:
    """Return notes on classes that differ only in upper and lower case."""
    by_case: dict[str, list[str]] = {}
    for name in classes:
        by_case.setdefault(name.casefold(), []).append(name)
    return [
        f"the labels {', '.join(names)} differ only in upper and lower case and are taken as "
        "different classes"
        for names in by_case.values()
        if len(names) > 1
    ]
