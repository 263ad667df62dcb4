"""The dermoscopy benchmark of PRR-FL (HAM10000 and ISIC 2017), in either of two layouts."""

from pathlib import Path

import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.dermoscopy_tables import (
    LESION,
    indices,
    lesions,
    notes_on_lesions,
    site_rows,
    source_tables,
    with_masks,
)
from counterpoint.data.site import Reading, Task
from counterpoint.data.tables import read_table, require_different, split_names
from counterpoint.errors import DataError

CLASSES = ("nevus", "benign keratosis", "melanoma")
_CLIENTS = ("A", "B", "C", "D")
_FOLDERS = ("img_resize128", "img_resize256")
_PARTS = ("train", "valid", "test")


def read(request: Request) -> Reading:
    """Read the four clients A to D with the published split, from either layout.

    By source: ``root/<source>/labels.csv`` with the columns image_id, image, lesion_id,
    prrfl_client, prrfl_split, prrfl_label and, for segmentation, mask; rows with an empty
    prrfl_client are not in the benchmark. By client, as the authors have it and for classification
    alone: ``root/clientA/img_resize128/ID.png`` (or img_resize256; or all in root/data) with
    train_clientA.csv, valid_clientA.csv and test_clientA.csv in root/clientA,
    root/csv_folder/clientA or beside root in csv_folder/clientA.

    For segmentation images without a mask are left out, and the label stays the diagnosis, by
    which splits are kept in proportion.

    Raises DataError that says which layouts were looked for, or names file and line.
    """
    root, task = request.root, request.task
    tables = _by_source(root, task) or _by_client(root, task)
    notes: list[str] = []
    if task == "segmentation":
        tables, notes = with_masks(tables)
    notes += notes_on_lesions(tables)
    classes = LESION if task == "segmentation" else CLASSES
    return Reading("dermoscopy", classes, tables, tuple(notes), task)


def _by_source(root: Path, task: Task) -> dict[str, pd.DataFrame]:
    """Return the tables of the clients from the tables of the sources, if there are any."""
    sources = source_tables(root, "prrfl_client", "prrfl_split", "prrfl_label")
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in _CLIENTS}
    for file, raw in sources.items():
        for name, rows in raw[raw["prrfl_client"] != ""].groupby("prrfl_client", sort=False):
            if name not in found:
                raise DataError(
                    f"{file}, line {rows.index[0]}: unknown prrfl_client '{name}'; it must be "
                    "A, B, C, D or empty"
                )
            labels = indices(file, rows["prrfl_label"], CLASSES)
            splits = split_names(file, rows["prrfl_split"])
            found[str(name)].append(site_rows(file, rows, labels, splits, task))
    if sources and not any(found.values()):
        raise DataError(
            f"no row of {', '.join(map(str, sources))} has a prrfl_client; it must be A, B, C or D "
            "for the images of the benchmark"
        )
    return {name: pd.concat(tables) for name, tables in found.items() if tables}


def _by_client(root: Path, task: Task) -> dict[str, pd.DataFrame]:
    """Return the tables of the clients in the authors' layout."""
    bases = (root, root / "data")
    base = next((b for b in bases if any((b / f"client{c}").is_dir() for c in _CLIENTS)), None)
    if base is None:
        raise DataError(
            f"no dermoscopy data in {root}; looked for {root}/<source>/labels.csv (by source) and "
            f"for {root}/clientA to clientD with img_resize128 (by client, also in {root}/data); "
            "give the folder that holds these as root"
        )
    if task == "segmentation":
        raise DataError(
            f"{base} is the layout by client, which has no masks; segmentation needs the layout by "
            "source: <source>/labels.csv with a column 'mask'"
        )
    return {name: _client(base, name) for name in _CLIENTS}


def _client(base: Path, name: str) -> pd.DataFrame:
    """Return one client's table from the authors' three CSVs."""
    client = f"client{name}"
    places = [base / client, base / "csv_folder" / client, base.parent / "csv_folder" / client]
    wanted = [f"{part}_{client}.csv" for part in _PARTS]
    folder = next((p for p in places if all((p / file).is_file() for file in wanted)), None)
    if folder is None:
        raise DataError(
            f"site '{name}': {', '.join(wanted)} are not together in any of "
            f"{', '.join(map(str, places))}; copy csv_folder/{client} of the authors' code there"
        )
    images = next((base / client / f for f in _FOLDERS if (base / client / f).is_dir()), None)
    if images is None:
        raise DataError(
            f"site '{name}': {base / client} has neither {' nor '.join(_FOLDERS)}; put the images "
            "there as ID.png"
        )
    parts = []
    for part, file in zip(_PARTS, wanted, strict=True):
        rows = read_table(folder / file, ("image_id", "label", "lesion_id"))
        require_different(folder / file, rows["image_id"], "image")
        table = pd.DataFrame(index=rows.index)
        table["image"] = [str(images.absolute() / f"{image}.png") for image in rows["image_id"]]
        table["label"] = indices(folder / file, rows["label"], CLASSES)
        table["split"] = "validation" if part == "valid" else part
        table["group"] = lesions(rows["image_id"], rows["lesion_id"])
        parts.append(table)
    return pd.concat(parts)


DATASET = DataSet(
    name="dermoscopy",
    summary="skin lesions of four sources, the published benchmark of PRR-FL",
    read=read,
    protocols=("grouped", "published"),
    tasks=("classification", "segmentation"),
)
