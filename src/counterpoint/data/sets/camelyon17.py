"""Read Camelyon17 as WILDS packs it: patches of lymph nodes from five hospitals."""

from pathlib import Path

import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.shuffled import shuffled_split
from counterpoint.data.site import Reading
from counterpoint.data.tables import require_different
from counterpoint.errors import DataError

CLASSES = ("normal", "tumor")
_SEED = 0  # of the protocol "patches", which is to be the same for everybody
_COLUMNS = {
    "patient": r"\d+",
    "node": r"\d+",
    "x_coord": r"\d+",
    "y_coord": r"\d+",
    "tumor": "[01]",
    "center": "[0-4]",
}
"""The columns that are used, each with what its values must look like."""


def read(request: Request) -> Reading:
    """Read the five hospitals from ``root/metadata.csv`` and ``root/patches``.

    Both may also be in ``root/camelyon17_v1.0``, as the download of WILDS unpacks. A patch shows
    "tumor" if its middle does. With the protocol "patches" every hospital's patches are shuffled,
    as HarmoFL does; its list of files is not public, so these are not the same patches.

    Raises DataError that says which layout was looked for, or names file, line and column.
    """
    folder = _folder(request.root)
    rows = _read_metadata(folder / "metadata.csv")
    patient = rows["patient"].str.zfill(3)  # lost where a spreadsheet has saved the table
    node = "patient_" + patient + "_node_" + rows["node"]
    place = node + "/patch_" + node + "_x_" + rows["x_coord"] + "_y_" + rows["y_coord"] + ".png"
    require_different(folder / "metadata.csv", place, "patch")
    table = pd.DataFrame(
        {
            "image": f"{(folder / 'patches').absolute()}/" + place,
            "label": rows["tumor"].astype("int64"),
            "split": "",
            "group": "patient " + patient,
        }
    )
    tables = {f"hospital {center}": part for center, part in table.groupby(rows["center"])}
    if request.protocol != "patches":
        return Reading("camelyon17", CLASSES, tables)
    for center, site in tables.items():
        seed = [_SEED, int(center[-1])]
        tables[center] = site.assign(split=shuffled_split(len(site), seed))
    note = (
        f"every hospital's patches were shuffled (seed {_SEED}): 64 % training, 16 % validation "
        "and 20 % test, with patients in several parts; HarmoFL splits like this, but its list of "
        "files is not public"
    )
    return Reading("camelyon17", CLASSES, tables, (note,))


def _folder(root: Path) -> Path:
    """Return the folder that has metadata.csv and patches."""
    for folder in (root, root / "camelyon17_v1.0"):
        if (folder / "metadata.csv").is_file() and (folder / "patches").is_dir():
            return folder
    raise DataError(
        f"no Camelyon17 data in {root}; looked for metadata.csv together with the folder patches, "
        f"there and in {root}/camelyon17_v1.0; give the folder that holds these as root"
    )


def _read_metadata(file: Path) -> pd.DataFrame:
    """Return the checked columns as texts; the index is the line in the file.

    It is read by pandas and not as other tables are: there are 456 thousand lines.
    """
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except (OSError, ValueError) as error:  # ValueError: pandas' own errors, and encodings
        raise DataError(f"{file} can't be read ({error}); unpack the download again") from error
    missing = [name for name in _COLUMNS if name not in rows]
    if missing or rows.empty:
        raise DataError(
            f"{file} has {f'no column {missing[0]!r}' if missing else 'no rows'}; the table of "
            f"WILDS has {', '.join(_COLUMNS)}; unpack the download again"
        )
    rows = rows[list(_COLUMNS)].set_axis(range(2, len(rows) + 2))
    for name, pattern in _COLUMNS.items():
        bad = rows.index[~rows[name].str.fullmatch(pattern)]
        if len(bad):
            raise DataError(
                f"{file}, line {bad[0]}: {name} is {rows.at[bad[0], name]!r}; it must be "
                f"{_WORDS.get(name, 'a whole number')}"
            )
    return rows


_WORDS = {"tumor": "0 or 1", "center": "0 to 4, the hospital"}

DATASET = DataSet(
    name="camelyon17",
    summary="lymph node patches with and without tumor of five hospitals, as in WILDS",
    read=read,
    protocols=("grouped", "patches"),
)
