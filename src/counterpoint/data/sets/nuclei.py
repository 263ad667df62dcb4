"""Read nuclei in H&E from MoNuSAC 2020 (one site an organ), MoNuSeg 2018 and TNBC."""

import re
from collections import defaultdict
from pathlib import Path

import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.polygons import polygon_masks
from counterpoint.data.site import Reading
from counterpoint.data.tables import read_table
from counterpoint.errors import DataError, nearest

CLASSES = ("background", "nucleus")
_SOURCES = ("MoNuSAC", "MoNuSeg", "TNBC")
_IMAGES = (".tif", ".tiff", ".png")  # the first is taken where there are more
_TNBC_SLIDES = 11  # a later release adds slides that are not of this cancer

# The tissue source sites of TCGA, the second part of a patient's name, are each for one study.
_ORGANS = {
    "breast": "3C 4H 5L 5T A1 A2 A7 A8 AC AN AO AQ AR B6 BH C8 D8 E2 E9 EW GI GM HN JL LD LL LQ "
    "MS OK OL PE PL S3 UL UU V7 W8 WT XX Z7",
    "kidney": "2K 2Z 3Z 4A 5P 6D A3 A4 AK AL AS AT B0 B1 B2 B3 B4 B8 B9 BP BQ CJ CW CZ DV DW DZ "
    "EU EV F9 G6 G7 GK GL HE IA IZ J7 KL KM KN KO KV MH MM MW O9 P4 PJ Q2 SX T7 UN UZ V9 WN Y8",
    "lung": "05 18 21 22 33 34 35 37 38 39 43 44 46 49 4B 50 51 52 53 55 56 58 60 62 63 64 66 67 "
    "68 69 6A 70 71 73 75 77 78 79 80 83 85 86 90 91 92 93 94 95 96 97 98 99 J1 J2 L3 L4 L9 LA MF "
    "MN MP NC NJ NK O1 O2 S2 XC",
    "prostate": "2A 4L CH EJ FC G9 H9 HC HI J4 J9 KC KK M7 MG QU SU TK TP V1 VN VP WW X4 XA XJ XK "
    "XQ YJ YL ZG",
}
_ORGAN_OF = {code: organ for organ, codes in _ORGANS.items() for code in codes.split()}


def read(request: Request) -> Reading:
    """Read the archives as they unpack, in folders of root that begin with the data set's name.

    In ``MoNuSAC...`` and ``MoNuSeg...``, at any depth, every ``TCGA-XX-XXXX-....xml`` has an
    image of the same name beside it or in a neighbouring folder; in ``TNBC...`` a folder
    ``Slide_01`` has the images and ``GT_01`` their masks. Outlines are drawn as masks once.

    MoNuSAC is a site for every organ, known from the patient's name or, first, from
    ``root/organs.csv`` (columns patient and organ). HarmoFL has four sites of it as well, but does
    not say which; this is our assignment.

    Raises DataError that says which layout was looked for, or names the file.
    """
    folders = _folders(request.root)
    pairs: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    organs = _read_organs(request.root / "organs.csv")
    for source in ("MoNuSAC", "MoNuSeg"):
        for folder in folders[source]:
            for pair in _annotated(folder):
                name = _patient(pair[1])
                site = f"MoNuSAC {_organ(name, organs)}" if source == "MoNuSAC" else source
                pairs[site].append(pair)
    tables = {site: _table(found, request.cache) for site, found in sorted(pairs.items())}
    notes = []
    if any(site.startswith("MoNuSAC") for site in tables):
        notes.append(
            "MoNuSAC is split by organ: which of its patients are a site in HarmoFL is not public"
        )
    if folders["TNBC"]:
        tables["TNBC"], others = _read_tnbc(folders["TNBC"])
        if others:
            notes.append(f"site 'TNBC': slides after {_TNBC_SLIDES} were left out: {others}")
    missing = [source for source in _SOURCES if not folders[source]]
    if missing:
        notes.append(f"there are no folders for {' and '.join(missing)} in {request.root}")
    return Reading("nuclei", CLASSES, tables, tuple(notes), "segmentation")


def _folders(root: Path) -> dict[str, list[Path]]:
    """Return the folders of root by the data set whose name they begin with."""
    inside = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    found = {s: [p for p in inside if p.name.lower().startswith(s.lower())] for s in _SOURCES}
    if not any(found.values()):
        raise DataError(
            f"no nuclei data in {root}; looked for folders in it whose names begin with "
            f"{', '.join(_SOURCES)}, such as 'MoNuSAC_images_and_annotations', 'MoNuSeg 2018 "
            "Training Data' and 'TNBC_NucleiSegmentation'; unpack the archives there"
        )
    return found


def _annotated(folder: Path) -> list[tuple[Path, Path]]:
    """Return every annotation in a folder, at any depth, as a pair of image and annotation."""
    files = [p.absolute() for p in sorted(folder.rglob("*")) if not p.name.startswith(".")]
    images: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if path.suffix.lower() in _IMAGES:
            images[path.stem].append(path)
    annotations = [path for path in files if path.suffix.lower() == ".xml"]
    if not annotations:
        raise DataError(f"there are no annotations (.xml) in {folder}; unpack its archive again")
    return [(_image_of(path, images[path.stem]), path) for path in annotations]


def _image_of(annotation: Path, found: list[Path]) -> Path:
    """Return the image of an annotation: beside it, or in a folder beside that which it is in."""
    beside = [p for p in found if p.parent == annotation.parent]
    near = beside or [p for p in found if p.parent.parent == annotation.parent.parent]
    if near:
        # "Tissue Images" is preferred to folders with masks that other programs may have made.
        return min(
            near,
            key=lambda p: (_IMAGES.index(p.suffix.lower()), "image" not in p.parent.name.lower()),
        )
    slide = annotation.with_suffix(".svs")
    hint = (
        f"; {slide.name} can't be read, convert it with: vips copy {slide.name} {slide.stem}.tif"
        if slide.exists()
        else ""
    )
    raise DataError(
        f"the annotation {annotation} has no image {annotation.stem}.tif or .png beside it or in a "
        f"neighbouring folder{hint or '; unpack its archive again'}"
    )


def _patient(path: Path) -> str:
    """Return the patient that a file's name begins with, such as TCGA-A7-A13E."""
    match = re.match(r"TCGA-\w{2}-\w{4}", path.name)
    if not match:
        raise DataError(
            f"the name of {path} does not begin with a patient of TCGA, such as TCGA-A7-A13E; "
            "give it back the name that it came with, or move it elsewhere"
        )
    return match.group()


def _read_organs(file: Path) -> dict[str, str]:
    """Return the organs that the user has given, by patient; none without such a table."""
    if not file.exists():
        return {}
    rows = read_table(file, ("patient", "organ"))
    for line, organ in rows["organ"].items():
        if organ.lower() not in _ORGANS:
            raise DataError(
                f"{file}, line {line}: unknown organ '{organ}'{nearest(organ, list(_ORGANS))}; it "
                f"must be one of {', '.join(_ORGANS)}"
            )
    return {p[:12]: o.lower() for p, o in zip(rows["patient"], rows["organ"], strict=True)}


def _organ(patient: str, given: dict[str, str]) -> str:
    organ = given.get(patient) or _ORGAN_OF.get(patient.split("-")[1])
    if organ is None:
        raise DataError(
            f"MoNuSAC: the organ of {patient} is not known from its name; write it in organs.csv "
            f"(columns patient and organ: {', '.join(_ORGANS)}) in root"
        )
    return organ


def _table(pairs: list[tuple[Path, Path]], cache: Path) -> pd.DataFrame:
    """Return the rows of annotated images; draws their masks where they are not there yet."""
    drawn = polygon_masks(pairs, cache)
    rows = [
        (str(image), mask, view, _patient(annotation))
        for (image, annotation), (mask, view) in zip(pairs, drawn, strict=True)
    ]
    return pd.DataFrame(rows, columns=["image", "mask", "fov", "group"]).assign(label=0, split="")


def _read_tnbc(folders: list[Path]) -> tuple[pd.DataFrame, str]:
    """Return the rows of TNBC, and the names of slides that are not in the published set."""
    slides = sorted(p.absolute() for f in folders for p in f.rglob("Slide_*") if p.is_dir())
    rows, others = [], []
    for slide in slides:
        number = slide.name.removeprefix("Slide_")
        if not number.isdigit() or int(number) > _TNBC_SLIDES:
            others.append(slide.name)
            continue
        for image in sorted(slide.glob("[!.]*.png")):
            mask = slide.with_name(f"GT_{number}") / image.name
            rows.append((str(image), str(mask), f"TNBC {number}"))
    if not rows:
        raise DataError(
            f"site 'TNBC': no images Slide_01/01_1.png and so on in {folders[0]}; unpack "
            "TNBC_NucleiSegmentation.zip there"
        )
    table = pd.DataFrame(rows, columns=["image", "mask", "group"])
    return table.assign(label=0, split=""), ", ".join(others)


DATASET = DataSet(
    name="nuclei",
    summary="nuclei in H&E of four organs (MoNuSAC), of MoNuSeg and of TNBC, outlined",
    read=read,
    tasks=("segmentation",),
)
