"""Find and sort the slices of DICOM: a file with one frame or many, or a folder with a series.

What identifies a patient is never read but for the patient's ID, of which only a hash leaves this
module. Nothing that pydicom says is passed on, because it may quote a header.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, dcmread

from counterpoint.data.geometry import Geometry
from counterpoint.data.pixels import BadImageError
from counterpoint.errors import DataError

_SUFFIXES = (".dcm", ".dicom", ".ima")
_NOBODY = {"", "0", "anonymous", "anonymized", "anonymised", "anon", "none", "unknown", "na", "n/a"}
MISSING = 1.75
"""Times the usual distance of slices at which one is missing: exactly 2, but for rounding."""
_TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM counts to the left and to the back


def is_dicom(path: str) -> bool:
    """Tell a folder or a DICOM file by its name or its mark."""
    if os.path.isdir(path) or path.lower().endswith(_SUFFIXES):
        return True
    try:
        with open(path, "rb") as file:
            file.seek(128)
            return file.read(4) == b"DICM"
    except OSError:
        return False


def patient_group(path: str) -> str:
    """Return a name for the patient that does not tell who it is: "dicom:" and 12 hex digits.

    It is from the SHA-256 of the patient's ID; an empty text where there is none that tells
    patients apart, or the file can't be read.
    """
    try:
        first = _files(path)[0]
        header = dcmread(first, stop_before_pixels=True, specific_tags=["PatientID"])
        name = _raw(header, "PatientID")
    except Exception:  # what is wrong is said when the image is decoded
        return ""
    if name.decode(errors="replace").lower() in _NOBODY:
        return ""
    return f"dicom:{hashlib.sha256(name).hexdigest()[:12]}"


def series_id(file: str) -> bytes:
    """Return what the slices of one series have in common; empty for what is no slice of one.

    That is a file without a place in space, or a broken one.
    """
    try:
        tag, place = "SeriesInstanceUID", "ImagePositionPatient"
        header = dcmread(file, stop_before_pixels=True, specific_tags=[tag, place])
        return _raw(header, tag) if place in header else b""
    except Exception:  # what is wrong is said when the image is decoded
        return b""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a series: where it is stored, and where it lies (millimetres, LPS)."""

    file: str
    number: int
    instance: int
    position: npt.NDArray[np.float64] | None
    directions: npt.NDArray[np.float64] | None
    spacing: npt.NDArray[np.float64] | None
    thickness: float | None


def dicom_geometry(path: str) -> Geometry:
    """Return size and place from the headers; raises as `series_of` does."""
    return series_of(path)[1]


def pixel_spacing(path: str) -> npt.NDArray[np.float64] | None:
    """Return the millimetres between rows and columns; None where the first header does not say.

    Raises as `series_of` does.
    """
    return series_of(path)[0][0].spacing


def is_single(path: str) -> bool:
    """Tell from the header whether a DICOM file has one frame; a broken one has."""
    try:
        return not os.path.isdir(path) and len(series_of(path)[0]) == 1
    except (BadImageError, DataError):
        return True


def _files(path: str) -> list[str]:
    """Return a file, or the DICOM files of a folder in the order of names."""
    if not os.path.isdir(path):
        return [path]
    try:
        inside = sorted(p for p in Path(path).iterdir() if p.is_file() and p.name[0] != ".")
    except OSError as error:
        raise DataError(f"the folder {path} can't be read ({error.strerror or error})") from error
    files = [str(p) for p in inside if p.name.upper() != "DICOMDIR" and is_dicom(str(p))]
    if not files:
        raise BadImageError("a folder without DICOM files")
    return files


def _raw(header: Dataset, name: str) -> bytes:
    """Return a text as it is stored: when decoding an odd one, pydicom quotes it in a warning."""
    item = header.get_item(name)
    value = None if item is None else item.value
    return (value.encode() if isinstance(value, str) else bytes(value or b"")).strip(b" \0")


def read_header(file: str, pixels: bool = False) -> Dataset:
    """Return a file's header, with its pixels if need be; raises as `series_of` does."""
    try:
        return dcmread(file, stop_before_pixels=not pixels)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"the file {file} can't be read ({error.strerror})") from None
        raise BadImageError("not a DICOM file, or a broken one") from None


def series_of(path: str) -> tuple[list[Frame], Geometry]:
    """Return the frames in the order of slices, and their geometry.

    They are sorted by their position along the normal, else by their numbers. Raises BadImageError
    for broken files and for folders with more than one series, DataError if a file can't be read
    at all.
    """
    frames: list[Frame] = []
    series, sizes = set(), set()
    for file in _files(path):
        header = read_header(file)
        try:
            sizes.add((int(header.Rows), int(header.Columns)))
            series.add(_raw(header, "SeriesInstanceUID"))
            instance = int(header.get("InstanceNumber") or 0)
            count = int(header.get("NumberOfFrames") or 1)
            frames += [_frame(header, file, number, instance) for number in range(count)]
        except Exception:
            name = f" ({os.path.basename(file)})" if file != path else ""
            raise BadImageError(f"a DICOM file without a picture, or a broken one{name}") from None
    if len(series) > 1 or len(sizes) > 1:
        what = f"{len(series)} series" if len(series) > 1 else "slices of different sizes"
        raise BadImageError(f"a folder with {what}; keep one series in a folder")
    try:
        return _sorted(frames, sizes.pop())
    except BadImageError:
        raise
    except Exception:
        raise BadImageError("a place in space that is broken in its header") from None


def _frame(header: Dataset, file: str, number: int, instance: int) -> Frame:
    position = of_frame(header, number, "PlanePositionSequence", "ImagePositionPatient")
    directions = of_frame(header, number, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = of_frame(header, number, "PixelMeasuresSequence", "PixelSpacing")
    thickness = of_frame(header, number, "PixelMeasuresSequence", "SliceThickness")
    return Frame(
        file,
        number,
        instance,
        None if not position else np.array(position, dtype=np.float64),
        None if not directions else np.array(directions, dtype=np.float64).reshape(2, 3),
        None if not spacing else np.array(spacing, dtype=np.float64),
        None if not thickness else float(thickness),
    )


def of_frame(header: Dataset, number: int, group: str, name: str) -> Any:
    """Return a value of a frame: from the header itself, or where enhanced DICOM has it."""
    if name in header:
        return header[name].value
    for sequence, place in (
        ("PerFrameFunctionalGroupsSequence", number),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        items = header.get(sequence)
        if items and group in items[place] and name in items[place][group].value[0]:
            return items[place][group].value[0][name].value
    return None


def _sorted(frames: list[Frame], size: tuple[int, int]) -> tuple[list[Frame], Geometry]:
    """Return the frames by their place along the normal, else by their numbers."""
    shape = (len(frames), *size)
    by_number = sorted(frames, key=lambda f: (f.instance, f.file, f.number))
    known = [(f.position, f.directions) for f in by_number]
    positions = [p for p, d in known if p is not None and d is not None]
    directions = by_number[0].directions
    if len(positions) < len(frames) or directions is None:
        return by_number, Geometry(shape, None)
    if any(d is None or not np.allclose(d, directions, atol=1e-3) for _, d in known):
        raise BadImageError("slices that are not parallel; keep one stack in a folder")
    normal = np.cross(directions[0], directions[1])
    heights = np.array([position @ normal for position in positions])
    order = np.argsort(heights, kind="stable")
    steps = np.diff(heights[order])
    if len(steps) and steps.max() < 1e-3:  # a film of one place
        return by_number, Geometry(shape, None)
    if len(steps) and steps.min() < 1e-3:
        raise BadImageError("several slices at one place; keep one volume in a folder or file")
    if len(steps) and steps.max() > MISSING * np.median(steps):
        gap = int(steps.argmax())
        below, above = heights[order[gap]], heights[order[gap + 1]]
        raise BadImageError(
            f"no slices between {below:g} and {above:g} mm, where others are {np.median(steps):g} "
            "mm apart; is the series complete?"
        )
    spacing, thickness = by_number[0].spacing, by_number[0].thickness
    affine = None
    if spacing is not None and (len(steps) or thickness):
        first, last = positions[order[0]], positions[order[-1]]
        step = (last - first) / len(steps) if len(steps) else normal * thickness
        affine = np.eye(4)
        # The second direction is that in which rows follow each other, the first that of columns.
        columns = np.stack([step, directions[1] * spacing[0], directions[0] * spacing[1]], axis=1)
        affine[:3, :3] = _TO_RAS @ columns
        affine[:3, 3] = _TO_RAS @ first
    return [by_number[i] for i in order], Geometry(shape, affine)
