"""Find the images that are meant by files, folders and tables."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from counterpoint.data.dicom import is_dicom, series_id
from counterpoint.data.layout import FIELDS, IMAGES, MASKS
from counterpoint.data.tables import read_table, require_values
from counterpoint.data.volumes import PHOTOGRAPHS
from counterpoint.errors import DataError

_VOLUMES = (".nii", ".nii.gz")


def find_images(places: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Return the paths of all images, each once, in the order in which they are named.

    The values are paths of fields of view, empty texts where there are none.

    A place is an image file, a CSV with a column ``image`` and maybe ``fov`` or ``fov_mask`` (paths
    are relative to its folder), or a folder. A folder is searched with all that is in it, in the
    order of names, for photographs, NIfTI and DICOM files, but for folders of masks (``masks``,
    ``fov``, ...) beside one called ``images``. DICOM files of one series that have a folder to
    themselves are one image, the folder.

    Raises DataError for a place that is not there or has no images, a table that can't be read,
    and a folder in which several DICOM series are mixed.
    """
    found: dict[str, str] = {}
    for place in (os.fspath(place) for place in places):
        if not os.path.exists(place):
            raise DataError(f"{place} is not there; give image files, folders or a CSV")
        if os.path.isdir(place):
            inside = list(_in_folder(place))
            if not inside:
                raise DataError(f"{place} holds no photographs, NIfTI or DICOM files")
            found |= dict.fromkeys(inside, "")
        elif place.lower().endswith(".csv"):
            found |= _in_table(Path(place))
        else:
            found[place] = ""
    if not found:
        raise DataError("no images; give image files, folders or a CSV with a column 'image'")
    once: dict[str, str] = {}
    for path in found:
        once.setdefault(os.path.abspath(path), path)
    return {path: found[path] for path in once.values()}


def _in_table(file: Path) -> dict[str, str]:
    table = read_table(file, ("image",))
    require_values(file, table["image"])
    field = next((name for name in ("fov", "fov_mask") if name in table), None)
    found = {}
    for line, row in table.iterrows():
        paths = [row["image"], row[field] if field else ""]
        image, fov = (os.path.join(file.parent, path) if path else "" for path in paths)
        for path in filter(None, (image, fov)):
            if not os.path.exists(path):
                raise DataError(
                    f"{file}, line {line}: {path} is not there; correct the path, which is "
                    "relative to the table's folder"
                )
        found[image] = fov
    return found


def _in_folder(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(name.lower() in IMAGES for name in folders):  # with masks of theirs beside them
            folders[:] = [name for name in folders if name.lower() not in (*MASKS, *FIELDS)]
        paths = [os.path.join(here, name) for name in sorted(names) if not name.startswith(".")]
        others = [path for path in paths if not path.lower().endswith((*PHOTOGRAPHS, *_VOLUMES))]
        dicoms = [path for path in others if _is_dicom_image(path)]
        yield from (path for path in paths if path not in set(others))
        yield from _series(here, dicoms)


def _is_dicom_image(path: str) -> bool:
    return os.path.basename(path).upper() != "DICOMDIR" and is_dicom(path)


def _series(folder: str, files: list[str]) -> list[str]:
    """Return the DICOM files of a folder as images: the folder, if they are one series."""
    sizes = Counter(map(series_id, files))
    if len(files) < 2 or max(sizes.values()) == 1:
        return files
    if len(sizes) > 1:
        raise DataError(
            f"the folder {folder} has the files of {len(sizes)} DICOM series; keep one series in a "
            "folder"
        )
    return [folder]
