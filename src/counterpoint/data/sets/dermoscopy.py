"""Read the dermoscopy benchmark of PRR-FL (HAM10000 and ISIC 2017), in either of two layouts."""

from pathlib import Path

import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.site import Reading
from counterpoint.data.tables import read_table, split_names
from counterpoint.errors import DataError

CLASSES = ("nevus", "benign keratosis", "melanoma")
_CLIENTS = ("A", "B", "C", "D")
_FOLDERS = ("img_resize128", "img_resize256")
_PARTS = ("train", "valid", "test")


def read_dermoscopy(root: Path) -> Reading:
    """Read the four clients A to D with the published split, from either layout.

    By source: ``root/<source>/labels.csv`` with the columns image_id, image, lesion_id,
    prrfl_client, prrfl_split, prrfl_label (and mask); rows with an empty prrfl_client are not in
    the benchmark. By client, as the authors have it: ``root/clientA/img_resize128/ID.png`` (or
    img_resize256; or all in root/data) with train_clientA.csv, valid_clientA.csv and
    test_clientA.csv in root/clientA, root/csv_folder/clientA or beside root in csv_folder/clientA.

    Raises DataError that says which layouts were looked for, or names file and line.
    """
    by_source = sorted(root.glob("*/labels.csv"))
    if by_source:
        return _reading(_read_sources(by_source))
    for base in (root, root / "data"):
        if any((base / f"client{name}").is_dir() for name in _CLIENTS):
            return _reading({name: _read_client(base, name) for name in _CLIENTS})
    raise DataError(
        f"no dermoscopy data in {root}; looked for {root}/<source>/labels.csv (by source) and for "
        f"{root}/clientA to clientD with img_resize128 (by client, also in {root}/data); give the "
        "folder that holds these as root"
    )


def _reading(tables: dict[str, pd.DataFrame]) -> Reading:
    """Return the reading, with notes on sites whose lesions are not known."""
    unknown = {s: int(t["group"].str.startswith("image:").sum()) for s, t in tables.items()}
    notes = tuple(
        f"site '{site}': {count} of {len(tables[site])} images have no known lesion, so images of "
        "one lesion can't be kept in one part"
        for site, count in unknown.items()
        if count
    )
    return Reading("dermoscopy", CLASSES, tables, notes)


def _read_sources(files: list[Path]) -> dict[str, pd.DataFrame]:
    """Return the tables of the clients from the tables of the sources."""
    columns = ("image_id", "image", "lesion_id", "prrfl_client", "prrfl_split", "prrfl_label")
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in _CLIENTS}
    for file in files:
        raw = read_table(file, columns)
        raw = raw[raw["prrfl_client"] != ""]
        for name, rows in raw.groupby("prrfl_client", sort=False):
            if name not in found:
                raise DataError(
                    f"{file}, line {rows.index[0]}: unknown prrfl_client '{name}'; it must be "
                    "A, B, C, D or empty"
                )
            images = [str(file.parent.absolute() / image) for image in rows["image"]]
            table = _table(file, rows, images, "prrfl_label")
            table["split"] = split_names(file, rows["prrfl_split"])
            if "mask" in rows.columns:
                folder = file.parent.absolute()
                table["mask"] = [str(folder / mask) if mask else "" for mask in rows["mask"]]
            found[str(name)].append(table)
    if not any(found.values()):
        raise DataError(
            f"no row of {', '.join(map(str, files))} has a prrfl_client; it must be A, B, C or D "
            "for the images of the benchmark"
        )
    return {name: pd.concat(tables) for name, tables in found.items() if tables}


def _read_client(base: Path, name: str) -> pd.DataFrame:
    """Return one client's table from the authors' three CSVs."""
    client = f"client{name}"
    places = [base / client, base / "csv_folder" / client, base.parent / "csv_folder" / client]
    wanted = [f"{part}_{client}.csv" for part in _PARTS]
    tables = next((p for p in places if all((p / file).is_file() for file in wanted)), None)
    if tables is None:
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
        rows = read_table(tables / file, ("image_id", "label", "lesion_id"))
        paths = [str(images.absolute() / f"{image}.png") for image in rows["image_id"]]
        table = _table(tables / file, rows, paths, "label")
        table["split"] = "validation" if part == "valid" else part
        parts.append(table)
    return pd.concat(parts)


def _table(file: Path, rows: pd.DataFrame, images: list[str], label: str) -> pd.DataFrame:
    """Return image, label and group of the rows; checks the labels and that images differ."""
    for line, value in rows[label].items():
        if value not in ("0", "1", "2"):
            raise DataError(
                f"{file}, line {line}: {label} is '{value}'; it must be 0 (nevus), 1 (benign "
                "keratosis) or 2 (melanoma)"
            )
    twice = rows["image_id"][rows["image_id"].duplicated()]
    if len(twice):
        raise DataError(
            f"{file}, line {twice.index[0]}: the image {twice.iloc[0]} is already in the table; "
            "keep one of the two rows"
        )
    table = pd.DataFrame({"image": images}, index=rows.index)
    table["label"] = rows[label].astype("int64")
    # The authors write lesion_id 0 for every image of client D: unknown, and not one lesion.
    table["group"] = [
        f"image:{image}" if lesion in ("", "0") else lesion
        for image, lesion in zip(rows["image_id"], rows["lesion_id"], strict=True)
    ]
    return table


def read(request: Request) -> Reading:
    """Read the benchmark; see `read_dermoscopy`."""
    return read_dermoscopy(request.root)


DATASET = DataSet(
    name="dermoscopy",
    summary="skin lesions of four sources, the published benchmark of PRR-FL",
    read=read,
    protocols=("grouped", "published"),
)
