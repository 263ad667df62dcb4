"""Fed-ISIC2019 of FLamby: six centres, eight diagnoses, in either of two layouts."""

from pathlib import Path

import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.dermoscopy_tables import (
    indices,
    lesions,
    notes_on_lesions,
    site_rows,
    source_tables,
)
from counterpoint.data.site import Reading
from counterpoint.data.tables import read_table, require_different, split_names
from counterpoint.data.validation import complete_split
from counterpoint.errors import DataError

CLASSES = (
    "melanoma",
    "nevus",
    "basal cell carcinoma",
    "actinic keratosis",
    "benign keratosis",
    "dermatofibroma",
    "vascular lesion",
    "squamous cell carcinoma",
)
_CENTRES = (
    "BCN",
    "HAM vidir_molemax",
    "HAM vidir_modern",
    "HAM rosendahl",
    "MSK",
    "HAM vienna_dias",
)
_SPLIT = "train_test_split"
_FOLDERS = ("ISIC_2019_Training_Input_preprocessed", "ISIC_2019_Training_Input")
_METADATA = "ISIC_2019_Training_Metadata.csv"


def read(request: Request) -> Reading:
    """Read the centres, named "centre 0" to "centre 5", from either layout.

    FLamby's own: ``root/train_test_split`` (a CSV with image, center, target and fold) with
    ``root/ISIC_2019_Training_Input_preprocessed/ID.jpg``; the lesions are in
    ``root/ISIC_2019_Training_Metadata.csv``, where that is there. By source:
    ``root/<source>/labels.csv`` with image_id, image, lesion_id, flamby_center, flamby_target and
    flamby_fold; rows with an empty flamby_center are not in the benchmark.

    The published protocol takes the folds train and test; FLamby has no validation part, so it is
    taken from the training images. Raises DataError that says which layouts were looked for, or
    names file and line.
    """
    root = request.root
    split = next((f for f in (root / _SPLIT, root / f"{_SPLIT}.csv") if f.is_file()), None)
    rows = _by_source(root) if split is None else _flamby(root, split)
    tables = {
        f"centre {centre}": table.drop(columns="centre")
        for centre, table in rows.groupby("centre", sort=True)
    }
    notes = notes_on_lesions(tables)
    absent = [f"{c} ({_CENTRES[c]})" for c in range(len(_CENTRES)) if f"centre {c}" not in tables]
    if absent:
        notes.append(f"centres of Fed-ISIC2019 without images here: {', '.join(absent)}")
    if request.protocol == "published":
        tables, made = complete_split(tables)
        notes += made
    else:
        tables = {site: table.assign(split="") for site, table in tables.items()}
    return Reading("fed-isic2019", CLASSES, tables, tuple(notes))


def _by_source(root: Path) -> pd.DataFrame:
    """Return the rows of all sources with a column centre."""
    sources = source_tables(root, "flamby_center", "flamby_target", "flamby_fold")
    if not sources:
        raise DataError(
            f"no Fed-ISIC2019 data in {root}; looked for {root}/{_SPLIT} with the folder "
            f"{_FOLDERS[0]} (FLamby's layout) and for {root}/<source>/labels.csv (by source); give "
            "the folder that holds these as root"
        )
    found = []
    for file, raw in sources.items():
        rows = raw[raw["flamby_center"] != ""]
        labels = indices(file, rows["flamby_target"], CLASSES)
        splits = _folds(file, rows["flamby_fold"])
        table = site_rows(file, rows, labels, splits, "classification")
        found.append(table.assign(centre=indices(file, rows["flamby_center"], _CENTRES)))
    rows = pd.concat(found)
    if rows.empty:
        raise DataError(
            f"no row of {', '.join(map(str, sources))} has a flamby_center; it must be 0 to 5 for "
            "the images of the benchmark"
        )
    return rows


def _flamby(root: Path, file: Path) -> pd.DataFrame:
    """Return the rows of FLamby's own table with a column centre."""
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise DataError(
            f"{file} is there, but {root} has neither {' nor '.join(_FOLDERS)}; put the images "
            "there as ID.jpg"
        )
    rows = read_table(file, ("image", "center", "target", "fold"))
    require_different(file, rows["image"], "image")
    known: dict[str, str] = {}
    if (root / _METADATA).is_file():
        metadata = read_table(root / _METADATA, ("image", "lesion_id"))
        known = dict(zip(metadata["image"], metadata["lesion_id"], strict=True))
    table = pd.DataFrame(index=rows.index)
    table["image"] = [str(folder.absolute() / f"{image}.jpg") for image in rows["image"]]
    table["label"] = indices(file, rows["target"], CLASSES)
    table["split"] = _folds(file, rows["fold"])
    table["group"] = lesions(rows["image"], [known.get(image, "") for image in rows["image"]])
    return table.assign(centre=indices(file, rows["center"], _CENTRES))


def _folds(file: Path, column: pd.Series) -> list[str]:
    """Return the folds; DataError names the first line that has neither train nor test."""
    names = split_names(file, column)
    if "validation" in names:
        line = column.index[names.index("validation")]
        raise DataError(f"{file}, line {line}: {column.name} must be train or test")
    return names


DATASET = DataSet(
    name="fed-isic2019",
    summary="skin lesions of six centres, eight diagnoses: Fed-ISIC2019 of FLamby",
    read=read,
    protocols=("grouped", "published"),
)
