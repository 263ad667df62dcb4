"""How far the outlines of what was found are from those of the truth."""

import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.extents import Extents

Labels = npt.NDArray[np.uint8]

UNSCORED = 255


@dataclass
class Outlines:
    """95 % Hausdorff distances of images in pixels, and of volumes in millimetres, by case.

    Volumes are put together when all their images came, in whatever order; those that wait are
    kept compressed, which makes little of masks.
    """

    extents: Extents
    classes: int
    pixels: dict[int, list[float]] = field(default_factory=dict)
    millimetres: dict[int, list[float]] = field(default_factory=dict)
    waiting: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def add(self, predicted: Tensor, target: Tensor, cases: Tensor, rows: Tensor) -> None:
        """Take a batch in: classes (N, *space) that were found, and true ones, -1 if not scored."""
        pairs = torch.stack([predicted, target], dim=1)
        pairs[(target < 0)[:, None].expand_as(pairs)] = UNSCORED
        each = zip(cases.tolist(), rows.tolist(), pairs.byte().cpu().numpy(), strict=True)
        for case, row, pair in each:
            self.pixels.setdefault(case, []).append(distance(pair[0], pair[1], self.classes))
            number = int(self.extents.volume_of[row])
            volume, images = self.extents.volumes[number], self.waiting.setdefault(number, {})
            if volume.size > 1:
                images[row] = zlib.compress(pair.tobytes(), 1)
                if len(images) < volume.size:
                    continue
                pair = assembled(volume, images, pair.shape)
            del self.waiting[number]
            thick = np.array((1,) * (4 - pair.ndim) + pair.shape[1:]) > 1
            spacing = self.extents.spacing[row][thick]
            if np.isfinite(spacing).all():
                found, truth = (labels.squeeze() for labels in pair)  # a slice's are in its plane
                far = distance(found, truth, self.classes, spacing)
                self.millimetres.setdefault(case, []).append(far)


def assembled(
    volume: npt.NDArray[np.int64], images: Mapping[int, bytes], shape: tuple[int, ...]
) -> Labels:
    """Put compressed pairs of images (2, *space) together as one of volumes, three axes each.

    >>> slices = {row: zlib.compress(bytes([row, row, 0, 0])) for row in (4, 9)}
    >>> assembled(np.array([[[9]], [[4]]]), slices, (2, 1, 2)).tolist()
    [[[[9, 9]], [[4, 4]]], [[[0, 0]], [[0, 0]]]]
    """
    flat = b"".join(zlib.decompress(images[row]) for row in volume.ravel().tolist())
    space = (1,) * (4 - len(shape)) + shape[1:]
    blocks = np.frombuffer(flat, np.uint8).reshape(*volume.shape, 2, *space)
    sides = [n * side for n, side in zip(volume.shape, space, strict=True)]
    return blocks.transpose(3, 0, 4, 1, 5, 2, 6).reshape(2, *sides)


def distance(
    found: Labels,
    truth: Labels,
    classes: int,
    spacing: npt.NDArray[np.float64] | None = None,
) -> float:
    """95 % Hausdorff distance, in pixels or by their spacing, averaged over the foreground classes.

    A class that only one of the two has is as far off as the diagonal of what is scored; one that
    neither has does not count, and NaN is where that is all of them.
    """
    from monai.metrics.utils import get_edge_surface_distance

    steps = np.ones(found.ndim) if spacing is None else spacing
    distances = []
    for number in range(1, classes):  # one after the other: a volume can be large
        one, other = found == number, truth == number
        if one.any() and other.any():
            masks = torch.from_numpy(one), torch.from_numpy(other)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # MONAI's about its own arguments
                ways = get_edge_surface_distance(
                    masks[0], masks[1], spacing=steps.tolist(), symmetric=True
                )[1]
            distances.append(max(np.percentile(way.numpy(), 95) for way in ways))
        elif one.any() or other.any():
            distances.append(float(np.linalg.norm(steps * sides(truth != UNSCORED))))
    return float(np.mean(distances)) if distances else np.nan


def sides(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Lengths of the smallest box around what is there.

    >>> sides(np.array([[0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)).tolist()
    [1, 3]
    """
    others: Iterable[tuple[int, ...]] = (
        tuple({*range(mask.ndim)} - {axis}) for axis in range(mask.ndim)
    )
    return np.array([np.ptp(np.flatnonzero(mask.any(axes))) + 1 for axes in others])
