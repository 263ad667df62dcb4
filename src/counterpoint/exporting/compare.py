"""Whether what was exported predicts as the model does, on random images and on real ones."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from counterpoint.api import read_data
from counterpoint.data.pixels import BadImageError
from counterpoint.data.search import find_images
from counterpoint.errors import CounterpointError, DataError, StateError
from counterpoint.exporting.format import Run
from counterpoint.local.training import computing_in
from counterpoint.prediction.chosen import Chosen
from counterpoint.prediction.loop import Place
from counterpoint.prediction.reading import read_as_trained
from counterpoint.settings import from_dict, read_file

TOLERANCE = 1e-4
_FEW = 8

Images = npt.NDArray[np.float32]


def difference(chosen: Chosen, run: Run, images: Images) -> float:
    """Largest difference of a probability; StateError if it, or that of a logit, is too large."""
    with torch.no_grad():
        logits = chosen.predictor(torch.from_numpy(images)).float()
    try:
        found = run(images)
    except Exception as error:  # a runtime's own, of any kind
        reason = " ".join(str(error).split())[:300]
        raise StateError(
            f"the exported file can't be run ({reason}), so it was not kept; try another format"
        ) from error
    far = [
        float(np.abs(one - wanted.numpy()).max())
        for one, wanted in zip(found, (logits, logits.softmax(1)), strict=True)
    ]
    large = max(1.0, float(logits.abs().max()))  # float32 has seven digits
    if not (far[0] <= TOLERANCE * large and far[1] <= TOLERANCE):
        raise StateError(
            f"the exported file does not predict as the model does (probabilities differ by up to "
            f"{far[1]:.2g}, allowed are {TOLERANCE:g}), so it was not kept; try another format"
        )
    return far[1]


@torch.no_grad()
def probabilities_in(precision: torch.dtype, chosen: Chosen, images: Images) -> Images:
    """Probabilities of a model that computes in another precision."""
    given = torch.from_numpy(images)
    with computing_in(precision, given):
        logits = chosen.predictor(given)
    found: Images = logits.float().softmax(1).numpy()
    return found


def given_images(images: Place | Iterable[Place], chosen: Chosen) -> Images | None:
    """The first of the images that were given to compare on."""
    files = find_images([images] if isinstance(images, str | os.PathLike) else images)
    try:
        return _first(files, chosen)
    except BadImageError as error:
        raise DataError(f"the first of the images to compare on is broken: {error}") from error


def images_of_run(chosen: Chosen) -> Images | None:
    """Some test images of the model's site, or of the first; None if the data are not there."""
    if chosen.run is None:
        return None
    try:
        federation = read_data(from_dict(read_file(chosen.run / "settings.yaml")))
        own = [one for one in federation.sites if one.name == chosen.card.get("site")]
        table = (own or federation.sites)[0].table
        files = table.loc[table["split"] == "test", "image"].drop_duplicates()
        return _first(files, chosen, skip_bad=True)
    except CounterpointError:
        return None


def _first(files: Iterable[str], chosen: Chosen, skip_bad: bool = False) -> Images | None:
    """Some images of files, (n, C, *space) in 0..1, at least two; None if all were skipped."""
    found: list[npt.NDArray[Any]] = []
    for path in files:
        try:
            found += list(read_as_trained(path, chosen))
        except (BadImageError, DataError):
            if not skip_bad:
                raise
        if len(found) >= _FEW:
            break
    if not found:
        return None
    images = np.stack((found * 2)[: max(2, min(_FEW, len(found)))])
    return images.astype(np.float32) / np.float32(65535)
