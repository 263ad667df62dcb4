"""All images of HAM10000's four sources and of ISIC 2017, one site a source."""

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.dermoscopy_tables import (
    LESION,
    notes_on_lesions,
    site_rows,
    source_tables,
    with_masks,
)
from counterpoint.data.site import Reading
from counterpoint.errors import DataError

_SOURCES = ("vidir_modern", "vidir_molemax", "rosendahl", "vienna_dias", "isic2017")
_CLASSES = {"nv": "nevus", "bkl": "benign keratosis", "mel": "melanoma"}
_OTHER = len(_CLASSES)  # of the diagnoses that classification leaves out


def read(request: Request) -> Reading:
    """Read every ``root/<source>/labels.csv`` as a site named like its folder.

    Columns: image_id, image, lesion_id (maybe empty), dx and, for segmentation, mask.
    Classification takes the images whose dx is nv, bkl or mel; segmentation those with a mask,
    and keeps splits in proportion to these three and "other". Raises DataError that says which
    layout was looked for, or names file and line.
    """
    sources = source_tables(request.root, "dx")
    if not sources:
        raise DataError(
            f"no dermoscopy data in {request.root}; looked for {request.root}/<source>/labels.csv "
            f"with a source such as {', '.join(_SOURCES)}; give the folder that holds these as root"
        )
    tables, notes = {}, []
    for file, rows in sources.items():
        site = file.parent.name
        if request.task == "classification":
            known = rows["dx"].isin(list(_CLASSES))
            if not known.all():
                notes.append(
                    f"site '{site}': {(~known).sum()} of {len(rows)} images have another diagnosis "
                    f"than {', '.join(_CLASSES)} and were left out"
                )
            rows = rows[known]
            if rows.empty:
                raise DataError(f"{file} has no row whose dx is one of {', '.join(_CLASSES)}")
        order = list(_CLASSES)
        labels = [order.index(dx) if dx in order else _OTHER for dx in rows["dx"]]
        tables[site] = site_rows(file, rows, labels, [""] * len(rows), request.task)
    if request.task == "segmentation":
        tables, left_out = with_masks(tables)
        notes += left_out
    missing = [source for source in _SOURCES if source not in tables]
    if missing:
        notes.append(f"of the five sources {', '.join(missing)} are not in {request.root}")
    notes += notes_on_lesions(tables)
    classes = LESION if request.task == "segmentation" else tuple(_CLASSES.values())
    return Reading("dermoscopy5", classes, tables, tuple(notes), request.task)


DATASET = DataSet(
    name="dermoscopy5",
    summary="skin lesions of five sources: all of HAM10000, and ISIC 2017",
    read=read,
    tasks=("classification", "segmentation"),
)
