"""Read files for a model as it was given images in training."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from counterpoint.data.site import Form
from counterpoint.data.volumes import is_deep, is_large, kind_of, read_images
from counterpoint.errors import DataError
from counterpoint.prediction.chosen import Chosen

Words = npt.NDArray[np.uint16]

_AT_ONCE = 64  # photographs that are read together


def read_as_trained(path: str, chosen: Chosen) -> Words:
    """Return a file's images (k, C, S, S) or (k, 1, S, S, S), as the network was given them.

    Raises BadImageError for what is broken, DataError for what the model can't be given.
    """
    deep = is_deep(path)
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    form = form_of(chosen, path)
    images = np.concatenate(list(read_images(path, [-1], chosen.size, form, dtype)))
    return images if deep else images.astype(np.uint16) * np.uint16(257)


def form_of(chosen: Chosen, path: str) -> Form:
    """How a file is read; DataError if the model does not say."""
    if chosen.form is not None:
        return chosen.form
    if len(chosen.card["shape"]) == 3 and kind_of(path) == "photograph":
        return Form()
    raise DataError(
        f"{path}: this model does not say how volumes are read, because it was saved by an older "
        "version; give its run's folder instead of the file"
    )


def chunks_of(files: Sequence[str]) -> Iterator[list[str]]:
    """Cut files into those that are read together: many photographs, or one volume."""
    chunk: list[str] = []
    for path in files:
        large = is_large(path)
        if chunk and (large or len(chunk) == _AT_ONCE):
            yield chunk
            chunk = []
        chunk.append(path)
        if large:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
