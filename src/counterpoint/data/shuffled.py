"""The split of HarmoFL: rows in random order, whoever they are of (pure)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def shuffled_split(count: int, seed: int | Sequence[int]) -> npt.NDArray[np.str_]:
    """Return the part of each of ``count`` rows: of all, 64 % train, 16 validation and 20 test.

    The rows are shuffled with ``seed``; patients are not kept together, so that it leaks. The
    counts are rounded as in HarmoFL's code.

    >>> shuffled_split(5, seed=1).tolist()
    ['train', 'train', 'validation', 'test', 'train']
    """
    order = np.random.default_rng(seed).permutation(count)
    train, known = count * 64 // 100, count * 80 // 100
    parts = np.full(count, "test", dtype="<U10")
    parts[order[:train]] = "train"
    parts[order[train:known]] = "validation"
    return parts
