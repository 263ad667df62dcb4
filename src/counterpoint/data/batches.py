"""Batches of images out of memory-mapped arrays, whole batches at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.data.site import IGNORED, Part

Augmentation = Callable[[Tensor, Tensor | None, torch.Generator], tuple[Tensor, Tensor | None]]


class Batch(NamedTuple):
    """Some images of one or several parts.

    ``images`` (N, C, *space) float32 in 0..1, ``target`` labels (N,) or masks (N, *space) int64
    with -1 where nothing is scored, ``cases`` (N,) int64, ``rows`` (N,) int64 the images' numbers
    in the array of their site.
    """

    images: Tensor
    target: Tensor
    cases: Tensor
    rows: Tensor | None = None


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


def scored_at_once(pixels: int) -> int:
    """Images of so many pixels (or voxels) that go through a network at a time for their scores.

    They are at most 32 images, and have 2^20 pixels if they are more than one: what a layer puts
    out for them takes memory.

    >>> scored_at_once(128**2), scored_at_once(512**2), scored_at_once(160**3)
    (32, 4, 1)
    """
    return max(1, min(32, 2**20 // pixels))


def in_parts(count: int, most: int | None) -> list[slice]:
    """Cut a batch of ``count`` images into parts of about equal size, of ``most`` or fewer.

    No part is of one image, so that three with at most two stay together.

    >>> in_parts(10, 4), in_parts(3, 2)
    ([slice(0, 3, None), slice(3, 6, None), slice(6, 10, None)], [slice(0, 3, None)])
    """
    parts = max(1, min(-(-count // most), count // 2)) if most else 1
    ends = [count * number // parts for number in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]


def take(part: Part, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Images (n, C, *space) of a part as float32 in 0..1."""
    images = part.images[part.rows[positions]]
    largest = np.float32(np.iinfo(images.dtype).max)
    scaled: npt.NDArray[np.float32] = images.astype(np.float32)
    scaled /= largest
    return scaled


def take_target(part: Part, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels (n,) of a part, or masks (n, *space) with -1 where nothing is scored."""
    if part.targets is None:
        return part.labels[positions]
    masks = part.targets[part.rows[positions]].astype(np.int64)
    masks[masks == IGNORED] = -1
    return masks


def batches(
    parts: Sequence[Part],
    batch_size: int,
    device: torch.device,
    *,
    order: torch.Generator | None = None,
    augment: Augmentation | None = None,
    samples: Iterable[npt.NDArray[np.int64]] | None = None,
) -> Iterator[Batch]:
    """Go once through ``parts``, in batches.

    Args:
        parts: one part, or several to be seen as one (pooled training).
        batch_size: images a batch; see :func:`split_into_batches` for the last one.
        device: where the batches go.
        order: shuffles, and draws the augmentation; as they stand without.
        augment: changes a whole batch.
        samples: the images of each batch by their number, possibly none, in place of batches of
            ``batch_size``.
    """
    source = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    position = np.concatenate([np.arange(len(part)) for part in parts])
    count = len(position)
    if samples is None:
        permutation = (
            np.arange(count) if order is None else torch.randperm(count, generator=order).numpy()
        )
        samples = (permutation[cut] for cut in split_into_batches(count, batch_size))
    first = parts[0]
    for chosen in samples:
        dense = first.targets is not None
        images = np.empty((len(chosen), *first.images.shape[1:]), dtype=np.float32)
        target = np.empty((len(chosen), *first.images.shape[2:] * dense), dtype=np.int64)
        cases, rows = np.empty((2, len(chosen)), dtype=np.int64)
        for index, part in enumerate(parts):
            here = source[chosen] == index
            if here.any():
                places = position[chosen[here]]
                images[here] = take(part, places)
                target[here] = take_target(part, places)
                cases[here], rows[here] = part.cases[places], part.rows[places]
        seen, wanted = torch.from_numpy(images), torch.from_numpy(target)
        if augment is not None and order is not None and len(chosen):
            seen, moved = augment(seen, wanted if dense else None, order)
            wanted = wanted if moved is None else moved
        seen = seen.contiguous(memory_format=layout(seen.dim()))
        pinned = device.type == "cuda"  # from pinned memory the copy runs beside the computation
        if pinned:
            seen, wanted = seen.pin_memory(), wanted.pin_memory()
        yield Batch(
            seen.to(device, non_blocking=pinned),
            wanted.to(device, non_blocking=pinned),
            torch.from_numpy(cases),
            torch.from_numpy(rows),
        )


def layout(axes: int) -> torch.memory_format:
    """Return the memory format that is faster for convolutions on batches of so many axes."""
    return torch.channels_last_3d if axes == 5 else torch.channels_last
