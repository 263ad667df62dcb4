"""Retinal vessels: DRIVE, STARE, CHASE_DB1 and HRF as published, or folders with labels.csv."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.site import Reading
from counterpoint.data.tables import (
    misspelt,
    read_table,
    require_different,
    require_values,
    split_names,
)
from counterpoint.data.validation import complete_split
from counterpoint.errors import DataError

_NEEDED = ("id", "image", "mask")
_OPTIONAL = ("fov_mask", "split", "patient", "disease")


def read(request: Request) -> Reading:
    """Read every site folder of ``root``: one with labels.csv, or DRIVE, STARE, CHASE_DB1, HRF.

    ``<site>/labels.csv`` has the columns id, image and mask, and may have fov_mask, split, patient
    and disease; paths are relative to it. The four names (in any case, with or without _) are
    understood in the layout in which they are published. Splits are kept in proportion to the
    disease.

    The protocol published takes the split of the source; where it has no validation part, some of
    its training images become it, and where there is no split at all, one is made. Raises
    DataError that says which layout was looked for, or names file and line.
    """
    tables: dict[str, pd.DataFrame] = {}
    notes: list[str] = []
    inside = sorted(request.root.iterdir()) if request.root.is_dir() else []
    for folder in inside:
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        if (folder / "labels.csv").is_file():
            rows = _labels(folder / "labels.csv", notes)
        elif reader := _PUBLISHED.get(folder.name.lower().replace("_", "")):
            rows = _table(folder, reader(folder, notes))
        else:
            notes.append(f"{folder} has no labels.csv and was left out")
            continue
        tables[folder.name] = _site(folder, rows, notes)
    if not tables:
        raise DataError(
            f"no retina data in {request.root}; looked for {request.root}/<site>/labels.csv and "
            f"for the folders DRIVE, STARE, CHASE_DB1 and HRF in {request.root}; give the folder "
            "that holds two or more of these as root"
        )
    if request.protocol == "published":
        tables, made = complete_split(tables, least=2)
        notes += made
    else:
        tables = {site: table.assign(split="") for site, table in tables.items()}
    return Reading("retina", ("background", "vessel"), tables, tuple(notes), "segmentation")


def _site(folder: Path, rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return the rows of a labels.csv in the columns of `Reading`, with notes on what is lacking.

    Sites number their patients alike, so that the site's name is part of a group's.
    """
    site, place = folder.name, folder.absolute()
    # Every image of HRF is of another patient.
    patients = rows["id"] if site.lower() == "hrf" else rows["patient"]
    table = pd.DataFrame(index=rows.index)
    table["image"] = [str(place / image) for image in rows["image"]]
    table["label"] = pd.factorize(rows["disease"], sort=True)[0].astype("int64")
    table["split"] = rows["split"]
    table["group"] = [
        f"{site}/{patient}" if patient else f"image:{site}/{name}"
        for name, patient in zip(rows["id"], patients, strict=True)
    ]
    table["mask"] = [str(place / mask) for mask in rows["mask"]]
    table["fov"] = [str(place / fov) if fov else "" for fov in rows["fov_mask"]]
    for values, lacking in (
        (patients, "known patient, so images of one patient can't be kept in one part"),
        (table["fov"], "field of view, so all their pixels are learnt and scored"),
    ):
        count = (values == "").sum()
        if count:
            notes.append(f"site '{site}': {count} of {len(table)} images have no {lacking}")
    return table


def _labels(file: Path, notes: list[str]) -> pd.DataFrame:
    """Return the rows of a labels.csv, with all optional columns."""
    rows = read_table(file, _NEEDED)
    for name in _NEEDED:
        require_values(file, rows[name])
    for name in ("id", "image"):
        require_different(file, rows[name], name)
    notes += [f"{file}: {text}" for text in misspelt(list(rows.columns), _OPTIONAL)]
    for name in _OPTIONAL:
        if name not in rows:
            rows[name] = ""
    if (rows["split"] != "").any():
        rows["split"] = split_names(file, rows["split"])
    return rows


def _table(folder: Path, found: list[dict[str, str]]) -> pd.DataFrame:
    """Return what a published layout has, as if it were read from a labels.csv."""
    if not found:
        raise DataError(
            f"{folder} has no images where {folder.name} has them as published; unpack it there, "
            "or write a labels.csv (columns id, image, mask, fov_mask)"
        )
    lines = range(1, len(found) + 1)
    return pd.DataFrame(found, columns=[*_NEEDED, *_OPTIONAL], index=lines).fillna("")


def _drive(folder: Path, notes: list[str]) -> list[dict[str, str]]:
    """Find training|test / images/21_training.tif, 1st_manual/21_manual1.gif, mask/..."""
    parts = {"training": "train", "test": "test"}
    if not (folder / "test" / "1st_manual").is_dir():
        notes.append(
            f"site '{folder.name}': {folder / 'test'} has no 1st_manual, so only the training "
            "images are used, as if they had no split"
        )
        parts = {"training": ""}
    return [
        {
            "id": name,
            "image": f"{part}/images/{name}.tif",
            "mask": f"{part}/1st_manual/{name.split('_')[0]}_manual1.gif",
            "fov_mask": f"{part}/mask/{name}_mask.gif",
            "split": split,
        }
        for part, split in parts.items()
        for name in _stems(folder / part / "images", f"*_{part}.tif")
    ]


def _stare(folder: Path, notes: list[str]) -> list[dict[str, str]]:
    """Find labels-ah/im0001.ah.ppm and the image of each, stare-images/im0001.ppm."""
    if any(folder.glob("*/*.ppm.gz")):
        raise DataError(f"{folder} has packed files; unpack them: gunzip {folder}/*/*.ppm.gz")
    names = [name.removesuffix(".ah") for name in _stems(folder / "labels-ah", "*.ah.ppm")]
    return [
        {"id": name, "image": f"stare-images/{name}.ppm", "mask": f"labels-ah/{name}.ah.ppm"}
        for name in names
    ]


def _chase(folder: Path, notes: list[str]) -> list[dict[str, str]]:
    """Find Image_01L.jpg and Image_01L_1stHO.png; both eyes of a child are one patient."""
    return [
        {"id": name, "image": f"{name}.jpg", "mask": f"{name}_1stHO.png", "patient": name[:-1]}
        for name in _stems(folder, "Image_*[LR].jpg")
    ]


def _hrf(folder: Path, notes: list[str]) -> list[dict[str, str]]:
    """Find images/01_dr.JPG, manual1/01_dr.tif and mask/01_dr_mask.tif; also g and h for dr."""
    images = sorted(p for p in folder.glob("images/*") if p.suffix.lower() == ".jpg")
    return [
        {
            "id": image.stem,
            "image": f"images/{image.name}",
            "mask": f"manual1/{image.stem}.tif",
            "fov_mask": f"mask/{image.stem}_mask.tif",
            "disease": image.stem.rpartition("_")[2],
        }
        for image in images
    ]


def _stems(folder: Path, pattern: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(pattern))


_PUBLISHED: dict[str, Callable[[Path, list[str]], list[dict[str, str]]]] = {
    "drive": _drive,
    "stare": _stare,
    "chasedb1": _chase,
    "hrf": _hrf,
}

DATASET = DataSet(
    name="retina",
    summary="blood vessels in photographs of the retina: DRIVE, STARE, CHASE_DB1, HRF and others",
    read=read,
    protocols=("grouped", "published"),
    tasks=("segmentation",),
)
