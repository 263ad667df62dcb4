"""Batches of images out of memory-mapped arrays, whole batches at a time."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.data.site import Part

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def split_into_batches(count: int, batch_size: int) -> list[slice]:
    """Cut ``count`` images into batches; a last batch of one image joins the one before it.

    Batch norm can't normalise a single image, and no image is left out.

    >>> split_into_batches(9, 4)
    [slice(0, 4, None), slice(4, 9, None)]
    """
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], count], strict=True)]


def take(part: Part, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Images (n, 3, S, S) of a part as float32 in 0..1."""
    images = part.images[part.rows[positions]]
    largest = np.float32(np.iinfo(images.dtype).max)
    scaled: npt.NDArray[np.float32] = images.astype(np.float32) / largest
    return scaled


def batches(
    parts: Sequence[Part],
    batch_size: int,
    device: torch.device,
    *,
    order: torch.Generator | None = None,
    augment: Augmentation | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go once through ``parts``: images (N, 3, S, S) float32 in 0..1 and labels (N,) int64.

    Args:
        parts: one part, or several to be seen as one (pooled training).
        batch_size: images a batch; see :func:`split_into_batches` for the last one.
        device: where the batches go.
        order: shuffles, and draws the augmentation; as they stand without.
        augment: changes a whole batch.
    """
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    position = np.concatenate([np.arange(len(part)) for part in parts])
    count = len(position)
    permutation = (
        np.arange(count) if order is None else torch.randperm(count, generator=order).numpy()
    )
    for cut in split_into_batches(count, batch_size):
        chosen = permutation[cut]
        first = parts[source[chosen[0]]].images
        images = np.empty((len(chosen), *first.shape[1:]), dtype=np.float32)
        labels = np.empty(len(chosen), dtype=np.int64)
        for index, part in enumerate(parts):
            here = source[chosen] == index
            if here.any():
                images[here] = take(part, position[chosen[here]])
                labels[here] = part.labels[position[chosen[here]]]
        batch = torch.from_numpy(images)
        if augment is not None and order is not None:
            batch = augment(batch, order)
        yield (
            batch.to(device, memory_format=torch.channels_last, non_blocking=True),
            torch.from_numpy(labels).to(device, non_blocking=True),
        )
