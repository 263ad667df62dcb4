"""Bring what a network says of an image back to the size of the file it was read from."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from counterpoint.data.site import Form

Floats = npt.NDArray[np.float32]


def slices_of(found: Floats, shape: Sequence[int], form: Form) -> Iterator[Floats]:
    """Give the class probabilities (classes, rows, columns) of a file's slices, one after another.

    Args:
        found: (n, classes, S, S), the network's for every slice, or (n, classes, S, S, S), for
            every cube in the order of `counterpoint.data.volumes.cut`.
        shape: (slices, rows, columns) of the file.
        form: how the file was read.

    Where images were resized, probabilities are resized back by the same antialiased bilinear
    interpolation, and the class is chosen after that: outlines stay smooth, where resized masks
    would have stairs, and nothing changes where the size is the same.

    >>> halves = np.array([[[[1, 0], [1, 0]], [[0, 1], [0, 1]]]], np.float32)  # left, right
    >>> next(slices_of(halves, (1, 2, 4), Form())).argmax(0)[0]
    array([0, 0, 1, 1])
    """
    if form.volumes == "slices":
        for one in found:
            yield resized(one, shape[1:])
    elif form.volumes == "patches":
        yield from _joined(found, shape)
    else:
        (cube,) = found
        classes, depth, rows, columns = cube.shape
        flat = resized(cube.reshape(classes, depth, rows * columns), (shape[0], rows * columns))
        for plane in flat.reshape(classes, shape[0], rows, columns).swapaxes(0, 1):
            yield resized(plane, shape[1:])


def resized(planes: Floats, size: Sequence[int]) -> Floats:
    """Resize planes (n, rows, columns) as photographs are read."""
    if planes.shape[1:] == tuple(size):
        return planes
    given: Tensor = torch.from_numpy(np.ascontiguousarray(planes))
    made = F.interpolate(given[None], tuple(size), mode="bilinear", antialias=True)
    answer: Floats = made[0].numpy()
    return answer


def _joined(cubes: Floats, shape: Sequence[int]) -> Iterator[Floats]:
    """Undo `counterpoint.data.volumes.cut`, a slice at a time, without what it was filled up by."""
    _, classes, size, _, _ = cubes.shape
    layers, rows, columns = (-(-side // size) for side in shape)
    grid = cubes.reshape(layers, rows, columns, *cubes.shape[1:])
    for number in range(shape[0]):
        tiles = grid[number // size, :, :, :, number % size]  # (rows, columns, classes, S, S)
        plane = tiles.transpose(2, 0, 3, 1, 4).reshape(classes, rows * size, columns * size)
        yield np.ascontiguousarray(plane[:, : shape[1], : shape[2]])
