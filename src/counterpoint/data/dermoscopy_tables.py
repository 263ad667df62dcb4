"""What the dermoscopy data sets share: tables by source, labels, lesions and masks."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from counterpoint.data.site import Task
from counterpoint.data.tables import clean_label, read_table, require_different, require_values
from counterpoint.errors import DataError

LESION = ("background", "lesion")
"""Classes of the masks."""


def source_tables(root: Path, *columns: str) -> dict[Path, pd.DataFrame]:
    """Return the rows of every ``root/<source>/labels.csv`` by file; none if there is no such file.

    Every table has the columns image_id, image, lesion_id and ``columns``; maybe also mask.
    Raises DataError, which names file, line or column.
    """
    tables = {}
    for file in sorted(root.glob("*/labels.csv")):
        rows = read_table(file, ("image_id", "image", "lesion_id", *columns))
        require_different(file, rows["image_id"], "image")
        require_values(file, rows["image"])
        tables[file] = rows
    return tables


def site_rows(
    file: Path, rows: pd.DataFrame, labels: Sequence[int], splits: Sequence[str], task: Task
) -> pd.DataFrame:
    """Return rows of a source in the columns of `Reading`, with masks for segmentation."""
    table = pd.DataFrame(
        {
            "image": _paths(file, rows["image"]),
            "label": pd.array(labels, dtype="int64"),
            "split": splits,
            "group": lesions(rows["image_id"], rows["lesion_id"]),
        },
        index=rows.index,
    )
    if task == "segmentation":
        table["mask"] = _paths(file, rows["mask"]) if "mask" in rows else ""
    return table


def indices(file: Path, column: pd.Series, classes: Sequence[str]) -> list[int]:
    """Return a column of class indices; DataError names the first line that has none of them."""
    found = []
    for line, value in column.items():
        text = clean_label(value)
        if text not in map(str, range(len(classes))):
            known = ", ".join(f"{index} ({name})" for index, name in enumerate(classes))
            raise DataError(
                f"{file}, line {line}: {column.name} is '{value}'; it must be one of {known}"
            )
        found.append(int(text))
    return found


def lesions(images: Iterable[str], lesion_ids: Iterable[str]) -> list[str]:
    """Return the group of every image: its lesion, or the image itself where that is not known.

    The authors of PRR-FL write lesion_id 0 for every image of client D: unknown, and not one
    lesion.

    >>> lesions(["ISIC_1", "ISIC_2"], ["HAM_7", "0"])
    ['HAM_7', 'image:ISIC_2']
    """
    pairs = zip(images, lesion_ids, strict=True)
    return [f"image:{image}" if lesion in ("", "0") else lesion for image, lesion in pairs]


def notes_on_lesions(tables: dict[str, pd.DataFrame]) -> list[str]:
    """Return a note for every site with images whose lesion is not known."""
    unknown = {s: int(t["group"].str.startswith("image:").sum()) for s, t in tables.items()}
    return [
        f"site '{site}': {count} of {len(tables[site])} images have no known lesion, so images of "
        "one lesion can't be kept in one part"
        for site, count in unknown.items()
        if count
    ]


def with_masks(tables: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the tables without the images that have no mask, and notes with counts.

    Raises DataError for a site without any mask.
    """
    kept, notes = {}, []
    for site, table in tables.items():
        kept[site] = table[table["mask"] != ""]
        lost = len(table) - len(kept[site])
        if lost == len(table):
            raise DataError(
                f"site '{site}' has no masks; fill in the column 'mask' of its labels.csv (paths "
                "relative to the table's folder), or take the task classification"
            )
        if lost:
            notes.append(
                f"site '{site}': {lost} of {len(table)} images have no mask and were left out"
            )
    return kept, notes


def _paths(file: Path, column: pd.Series) -> list[str]:
    folder = file.parent.absolute()
    return [str(folder / value) if value else "" for value in column]
