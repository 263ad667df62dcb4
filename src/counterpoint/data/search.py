"""Find the images that are meant by files, folders and tables."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from counterpoint.data.dicom import is_dicom, series_id
from counterpoint.data.tables import read_table, require_values
from counterpoint.data.volumes import NIFTI, PHOTOGRAPHS
from counterpoint.errors import DataError

IMAGES = ("images", "image", "img", "imgs")
MASKS = ("masks", "mask", "segmentations", "segmentation", "annotations", "labels")
FIELDS = ("fov", "fov_mask")
"""Names of folders, in small letters, that say what is in them."""


Missing = Callable[[str, str, str], None]
"""Is told of an image that a table names, of its file that is not there, and of the table's line.

The two are the same, but where the field of view is missing.
"""


def find_images(
    places: Iterable[str | os.PathLike[str]], missing: Missing | None = None
) -> dict[str, str]:
    """Return the paths of all images, each once, in the order in which they are named.

    The values are paths of fields of view, empty texts where there are none.

    A place is an image file, a CSV with a column ``image`` and maybe ``fov`` or ``fov_mask`` (paths
    are relative to its folder), or a folder. A folder is searched with all that is in it, in the
    order of names, for photographs, NIfTI and DICOM files, but for folders of masks (``masks``,
    ``fov``, ...) beside one called ``images``. DICOM files of one series that have a folder to
    themselves are one image, the folder.

    Raises DataError for a place that is not there or has no images, a table that can't be read or
    names what is not there (unless ``missing`` is to be told of it), and a folder in which several
    DICOM series are mixed.
    """
    found: list[tuple[str, str]] = []
    for place in (os.fspath(place) for place in places):
        if not os.path.exists(place):
            raise DataError(f"{place} is not there; give image files, folders or a CSV")
        if os.path.isdir(place):
            inside = list(_in_folder(place))
            if not inside:
                raise DataError(f"{place} holds no photographs, NIfTI or DICOM files")
            found += [(path, "") for path in inside]
        elif place.lower().endswith(".csv"):
            found += _in_table(Path(place), missing or _refuse)
        else:
            found.append((place, ""))
    if not found:
        raise DataError(
            "no images are there; give image files, folders or a CSV with column 'image'"
        )
    names: dict[str, str] = {}
    fields: dict[str, str] = {}
    for path, fov in found:
        require_utf8(path)
        place = os.path.abspath(path)
        names.setdefault(place, path)
        if fov and os.path.abspath(fields.setdefault(place, fov)) != os.path.abspath(fov):
            raise DataError(f"{path} has two fields of view, {fields[place]} and {fov}; keep one")
    return {path: fields.get(place, "") for place, path in names.items()}


def _in_table(file: Path, missing: Missing) -> list[tuple[str, str]]:
    table = read_table(file, ("image",))
    require_values(file, table["image"])
    field = next((name for name in ("fov", "fov_mask") if name in table), None)
    found = []
    for line, row in table.iterrows():
        paths = [row["image"], row[field] if field else ""]
        image, fov = (os.path.join(file.parent, path) if path else "" for path in paths)
        gone = next((path for path in (image, fov) if path and not os.path.exists(path)), None)
        if gone:
            missing(image, gone, f"{file}, line {line}")
        else:
            found.append((image, fov))
    return found


def _refuse(image: str, path: str, line: str) -> None:
    raise DataError(
        f"{line}: {path} is not there; correct the path, which is relative to the table's folder"
    )


def require_utf8(path: str) -> None:
    """Raise DataError for a name of other bytes, which could be written to no table."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = path.encode(errors="surrogateescape").decode(errors="replace")
        raise DataError(f"the name of {shown} is not in UTF-8; rename the file") from error


def _in_folder(folder: str) -> Iterator[str]:
    for here, folders, paths in walk(folder):
        if any(name.lower() in IMAGES for name in folders):  # with masks of theirs beside them
            folders[:] = [name for name in folders if name.lower() not in (*MASKS, *FIELDS)]
        yield from images_among(here, paths)


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk` in the order of names, with the paths of files; hidden ones are left out.

    Links are followed, and every folder is entered once. Folders that are taken from the list are
    left out. Raises DataError for a folder that can't be read.
    """

    def unreadable(error: OSError) -> None:
        raise DataError(f"the folder {error.filename} can't be read ({error.strerror})") from error

    seen = set()
    for here, folders, names in os.walk(folder, onerror=unreadable, followlinks=True):
        place = os.path.realpath(here)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [os.path.join(here, name) for name in sorted(names) if not name.startswith(".")]
        yield here, folders, paths


def images_among(folder: str, paths: list[str]) -> list[str]:
    """Return those of a folder's files that are images; DICOM files of one series are the folder.

    Raises DataError where several series are mixed.
    """
    others = [path for path in paths if not path.lower().endswith((*PHOTOGRAPHS, *NIFTI))]
    known = [path for path in paths if path not in set(others)]
    return known + _series(folder, [path for path in others if _is_dicom_image(path)])


def _is_dicom_image(path: str) -> bool:
    return os.path.basename(path).upper() != "DICOMDIR" and is_dicom(path)


def _series(folder: str, files: list[str]) -> list[str]:
    """Return the DICOM files of a folder as images: the folder, if they are one series.

    Files without a place in space, such as the views of a radiograph, are images of their own.
    """
    sizes = Counter(map(series_id, files))
    if all(count == 1 for series, count in sizes.items() if series):
        return files
    series = sum(1 for one in sizes if one)
    if series > 1:
        raise DataError(
            f"the folder {folder} has the files of {series} DICOM series; keep one series in a "
            "folder"
        )
    return [folder]  # a file of no series beside it is named when they are read
