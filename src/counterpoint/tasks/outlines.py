"""How far the outlines of what was found are from those of the truth."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.extents import Extents

Labels = npt.NDArray[np.uint8]


@dataclass
class Outlines:
    """95 % Hausdorff distances of images in pixels, and of volumes in millimetres, by case.

    Volumes are put together as soon as all their images came, whatever the order.
    """

    extents: Extents
    pixels: dict[int, list[float]] = field(default_factory=dict)
    millimetres: dict[int, list[float]] = field(default_factory=dict)
    waiting: dict[int, dict[int, tuple[Labels, Labels]]] = field(default_factory=dict)

    def add(self, found: Tensor, truth: Tensor, cases: Tensor, rows: Tensor) -> None:
        """Take a batch in: what is there (N, classes, *space) bool, and which images these are."""
        far = hausdorff95(found[:, 1:], truth[:, 1:])
        for case, distance in zip(cases.tolist(), far, strict=True):
            self.pixels.setdefault(case, []).append(distance)
        pairs = zip(*(x.byte().argmax(1).byte().cpu().numpy() for x in (found, truth)), strict=True)
        for case, row, pair in zip(cases.tolist(), rows.tolist(), pairs, strict=True):
            if np.isnan(self.extents.spacing[row]).any():
                continue
            number = int(self.extents.volume_of[row])
            volume, images = self.extents.volumes[number], self.waiting.setdefault(number, {})
            images[row] = pair
            if len(images) == volume.size:
                one, other = (assembled(volume, images, of) for of in (0, 1))
                distance = in_millimetres(one, other, found.shape[1], self.extents.spacing[row])
                self.millimetres.setdefault(case, []).append(distance)
                del self.waiting[number]


def assembled(
    volume: npt.NDArray[np.int64], images: Mapping[int, tuple[Labels, Labels]], of: int
) -> Labels:
    """Put images together as a volume of three axes, see `Extents.volumes`.

    >>> slices = {4: (np.array([[0, 1]], np.uint8),), 9: (np.array([[2, 3]], np.uint8),)}
    >>> assembled(np.array([[[9]], [[4]]]), slices, 0).tolist()
    [[[2, 3]], [[0, 1]]]
    """
    pieces = np.stack([images[row][of] for row in volume.ravel().tolist()])
    space = (1,) * (4 - pieces.ndim) + pieces.shape[1:]
    blocks = pieces.reshape(*volume.shape, *space).transpose(0, 3, 1, 4, 2, 5)
    return blocks.reshape([n * side for n, side in zip(volume.shape, space, strict=True)])


def in_millimetres(
    found: Labels, truth: Labels, classes: int, spacing: npt.NDArray[np.float64]
) -> float:
    """95 % Hausdorff distance of a volume's classes (slices, rows, columns), averaged over them."""
    thick = np.array(found.shape) > 1  # a single slice has its outlines in its plane
    far = []
    for number in range(1, classes):  # one after the other: a volume can be large
        one, other = (torch.from_numpy(x.squeeze() == number)[None, None] for x in (found, truth))
        far += hausdorff95(one, other, spacing[thick])
    return float(mean_of_defined(np.array(far)))


def hausdorff95(
    found: Tensor, truth: Tensor, spacing: npt.NDArray[np.float64] | None = None
) -> list[float]:
    """95 % Hausdorff distance of each image's classes (N, classes, *space), averaged over them.

    In pixels, or by their ``spacing``. A class that only one of the two has is as far off as the
    image's diagonal; one that neither has does not count, and NaN is where that is all of them.
    """
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    sides = np.array(found.shape[2:]) * (1.0 if spacing is None else spacing)
    there = [mask.flatten(2).any(2).cpu() for mask in (found, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's about its own arguments
        warnings.simplefilter("ignore", UserWarning)  # and about empty masks, see below
        far = compute_hausdorff_distance(
            found.float().cpu(),
            truth.float().cpu(),
            include_background=True,
            percentile=95,
            spacing=None if spacing is None else spacing.tolist(),
        ).double()
    far = torch.where(there[0] & there[1], far, math.hypot(*sides))
    far = torch.where(there[0] | there[1], far, torch.nan)
    return [float(value) for value in mean_of_defined(far.numpy())]


def mean_of_defined(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    total, number = np.where(defined, values, 0).sum(-1), defined.sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
