"""HarmoFL on masks, with the U-Net, as a first implementation does it; see `harmofl`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive import harmofl
from benchmarks.naive.harmofl import Work
from benchmarks.naive.images import Listed
from counterpoint.models.unet import UNet


def pairs(
    listed: Listed, size: int, batch_size: int, rng: np.random.Generator | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (N, 3, S, S) in -1..1 and masks (N, S, S), one pair after the other from its files.

    Shuffled and flipped where there is ``rng``.
    """
    order = np.arange(len(listed)) if rng is None else rng.permutation(len(listed))
    for start in range(0, len(order), batch_size):
        images, masks = [], []
        for index in order[start : start + batch_size]:
            path, drawn = listed[index]
            image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            mask = (
                Image.open(Path(drawn)).convert("L").resize((size, size), Image.Resampling.NEAREST)
            )
            for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM):
                if rng is not None and rng.random() < 0.5:
                    image, mask = image.transpose(turn), mask.transpose(turn)
            images.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
            masks.append((np.asarray(mask) > 0).astype(np.int64))
        yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    """Half cross-entropy, half soft Dice."""
    p = outputs.softmax(1)
    truth = F.one_hot(target, p.shape[1]).movedim(-1, 1).float()
    both, all_ = (p * truth).sum((2, 3)), p.sum((2, 3)) + truth.sum((2, 3))
    dice = 1 - ((2 * both + 1e-5) / (all_ + 1e-5)).mean()
    return (F.cross_entropy(outputs, target) + dice) / 2


def dice(found: Tensor, wanted: Tensor) -> float:
    """Mean over the images of the foreground's Dice."""
    both, all_ = (found & wanted).sum((1, 2)), (found + wanted).sum((1, 2))
    return float((2 * both / all_).mean())


def unet(classes: int, size: int, batch_size: int) -> Work:
    """Segmentation, by Dice."""
    return Work(
        UNet(3, classes, affine=False),
        partial(torch.optim.Adam, lr=1e-4, weight_decay=1e-4),
        lambda images, rng: pairs(images, size, batch_size, rng),
        loss,
        dice,
    )


run = partial(harmofl.run, work=unet)
