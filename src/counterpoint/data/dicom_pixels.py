"""Read the pixels of DICOM as values in the file's own units, or in 0 to 1 by a window."""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.pixels.utils import pixel_array

from counterpoint.data.dicom import of_frame, read_header, series_of
from counterpoint.data.geometry import Floats
from counterpoint.data.pixels import BadImageError


def read_dicom(path: str, window: tuple[float, float] | None) -> tuple[Floats, bool]:
    """Return the values of all slices and whether they are in 0 to 1 already.

    Grey ones are (slices, rows, columns), after the rescale slope; they are in 0 to 1 if the file
    has a window or table for it (that of the middle slice is used for all) or ``window`` is given,
    and negatives (MONOCHROME1) are turned then, or by their sign else. Colours are
    (slices, rows, columns, 3) in 0 to 1. Slices are sorted by their position along the normal,
    else by their number.

    Raises BadImageError for broken files, compressions that can't be read, mixed series; DataError
    if a file can't be read at all.
    """
    frames, geometry = series_of(path)
    stored: dict[str, tuple[Dataset, npt.NDArray[Any]]] = {}
    planes = []
    middle = None
    for place, frame in enumerate(frames):
        if frame.file not in stored:
            stored = {frame.file: _pixels(frame.file)}  # one file at a time
        header, values = stored[frame.file]
        plane = values[frame.number]
        try:
            planes.append(plane if plane.ndim == 3 else _rescaled(header, plane, frame.number))
        except MemoryError:
            raise
        except Exception:
            raise BadImageError("a broken rescale slope or table in its header") from None
        if place == len(frames) // 2:
            middle = header, frame.number
    if middle is None or any(plane.shape != planes[0].shape for plane in planes):
        raise BadImageError(f"no series of {geometry}: slices differ in size or colour")
    volume = np.stack(planes)
    if volume.ndim == 4:
        return volume, True
    negative = middle[0].get("PhotometricInterpretation") == "MONOCHROME1"
    try:
        found = _windowed(volume, *middle, window)
    except Exception:
        raise BadImageError("a broken window in its header") from None
    if found is None:
        return (-volume if negative else volume), False
    return (1 - found if negative else found), True


def _pixels(file: str) -> tuple[Dataset, npt.NDArray[Any]]:
    """Return the header and the frames, (n, rows, columns), or (n, rows, columns, 3) in 0 to 1."""
    header = read_header(file, pixels=True)
    try:
        values = pixel_array(header)  # what is YBR is RGB then
        colours, several = header.SamplesPerPixel == 3, int(header.get("NumberOfFrames") or 1) > 1
        if values.ndim != 2 + colours + several:  # else columns would be taken for colours
            raise ValueError
        most = 2 ** int(header.BitsStored) - 1
        if header.PhotometricInterpretation == "PALETTE COLOR":
            values, colours = apply_color_lut(values, header)[..., :3], True
            most = np.iinfo(values.dtype).max
        if colours:
            values = scaled(values.astype(np.float32), 0, most)
        return header, values if several else values[np.newaxis]
    except MemoryError:
        raise
    except Exception:
        raise BadImageError(_why_no_pixels(header)) from None


def _why_no_pixels(header: Dataset) -> str:
    try:
        syntax = header.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            return "broken pixel data"
        name = syntax.name
        if get_decoder(syntax).is_available:
            return f"broken pixel data, or a kind of {name} that can't be read here"
    except Exception:
        return "pixels in an unknown form"
    return f"pixels compressed as {name}; install python-gdcm (pip install counterpoint[dicom])"


def _rescaled(header: Dataset, plane: npt.NDArray[Any], number: int) -> Floats:
    """Return a grey picture in the file's own units, such as Hounsfield's."""
    if "ModalityLUTSequence" in header:
        return np.asarray(apply_modality_lut(plane, header), dtype=np.float32)
    group = "PixelValueTransformationSequence"
    slope = of_frame(header, number, group, "RescaleSlope")
    intercept = of_frame(header, number, group, "RescaleIntercept")
    scale = np.float32(1 if slope is None else slope)
    return plane.astype(np.float32) * scale + np.float32(intercept or 0)


def _windowed(
    values: Floats, header: Dataset, number: int, window: tuple[float, float] | None
) -> Floats | None:
    """Return values in 0 to 1 by a window or the header's, or None if there is none."""
    if window is not None:
        return scaled(values, *window)
    centre = _first(of_frame(header, number, "FrameVOILUTSequence", "WindowCenter"))
    width = _first(of_frame(header, number, "FrameVOILUTSequence", "WindowWidth"))
    if centre is not None and width is not None and width > 0:
        form = of_frame(header, number, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR"
        if form == "SIGMOID":
            steep = -4 * (values.astype(np.float64) - centre) / width
            return np.asarray(1 / (1 + np.exp(steep)), dtype=np.float32)
        if form == "LINEAR" and width > 1:  # the standard's C.11.2.1.2.1
            centre, width = centre - 0.5, width - 1
        return scaled(values, centre - width / 2, centre + width / 2)
    if header.get("VOILUTSequence"):
        most = 2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
        found = apply_voi(np.rint(values).astype(np.int32), header)
        return scaled(found.astype(np.float32), 0, most)
    return None


def _first(value: Any) -> float | None:
    """Return a number, or the first of several."""
    if value is None or value == "":
        return None
    return float(value) if np.isscalar(value) or not hasattr(value, "__len__") else float(value[0])


def scaled(values: Floats, low: float, high: float) -> Floats:
    """Return values with ``low`` as 0 and ``high`` as 1; all 0 where they do not differ.

    >>> scaled(np.array([-5, 0, 5, 20], np.float32), 0, 10).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    if not high > low:
        return np.zeros_like(values)
    parts: Floats = (values - np.float32(low)) / np.float32(high - low)
    return parts.clip(0, 1)
