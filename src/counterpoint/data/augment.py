"""Augmentation of whole batches (N, C, S, S) in 0..1, drawn from a given generator.

What moves pixels moves the masks (N, S, S) of a segmentation with them; pixels that come into view
from outside an image are black, and not scored. Volumes (N, C, S, S, S) are flipped only.

``prrfl`` is what PRR-FL names for dermoscopy: flips, brightness, one of median blur, Gaussian blur
or noise, and shift-scale-rotate, with its probabilities and ranges. Every image draws for itself.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor | None]
"""Images and, for segmentation, their masks."""


def uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    """Draw (n,) numbers between ``low`` and ``high``."""
    return torch.rand(n, generator=generator) * (high - low) + low


def chance(n: int, p: float, generator: Generator) -> Tensor:
    """Draw (n,) booleans that are true with probability ``p``."""
    return torch.rand(n, generator=generator) < p


def flip(images: Tensor, masks: Tensor | None, generator: Generator) -> Pair:
    """Flip each image along every axis of space with probability 1/2."""
    for axis in range(2, images.dim()):
        turned = chance(len(images), 0.5, generator)
        turned = turned.view(-1, *[1] * (images.dim() - 1))
        images = torch.where(turned, images.flip(axis), images)
        if masks is not None:
            masks = torch.where(turned[:, 0], masks.flip(axis - 1), masks)
    return images, masks


def brightness(images: Tensor, generator: Generator, limit: float, p: float) -> Tensor:
    """Add up to ``limit`` of the full range to an image's values, or take it off."""
    shift = uniform(len(images), -limit, limit, generator) * chance(len(images), p, generator)
    return (images + shift[:, None, None, None]).clamp(0, 1)


def in_order(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest, the middle and the largest of three tensors, number by number."""
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    return torch.minimum(a, b), torch.maximum(a, b), c


def median_blur(images: Tensor) -> Tensor:
    """Median over 3x3 pixels, edges repeated.

    With each column of three in order, the median of all nine is that of the largest of the
    smallest, the middle of the middle ones and the smallest of the largest.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    columns = in_order(*(padded[..., y : y + height, :] for y in range(3)))
    small, middle, large = ([of[..., x : x + width] for x in range(3)] for of in columns)
    largest = torch.maximum(torch.maximum(small[0], small[1]), small[2])
    smallest = torch.minimum(torch.minimum(large[0], large[1]), large[2])
    return in_order(largest, in_order(*middle)[1], smallest)[1]


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian over 5x5 pixels, edges repeated."""
    channels = images.shape[1]
    profile = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / (2 * sigma**2))
    profile = (profile / profile.sum()).to(images)
    rows = profile.view(1, 1, 5, 1).repeat(channels, 1, 1, 1)
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), rows.mT, groups=channels)


def noise(images: Tensor, generator: Generator, low: float, high: float) -> Tensor:
    """Add Gaussian noise whose variance, on a 0..255 scale, lies between ``low`` and ``high``."""
    deviation = uniform(len(images), low, high, generator).sqrt() / 255
    drawn = torch.randn(images.shape, generator=generator)
    return (images + drawn * deviation[:, None, None, None]).clamp(0, 1)


def blur_or_noise(images: Tensor, generator: Generator, p: float) -> Tensor:
    """Each image gets, with probability ``p``, one of median blur, Gaussian blur or noise."""
    which = torch.randint(3, (len(images),), generator=generator)
    which[~chance(len(images), p, generator)] = 3
    images = images.clone()
    changes: list[Callable[[Tensor], Tensor]] = [
        median_blur,
        lambda x: gaussian_blur(x, sigma=1.1),
        lambda x: noise(x, generator, 5.0, 30.0),
    ]
    for index, change in enumerate(changes):
        chosen = which == index
        if chosen.any():
            images[chosen] = change(images[chosen])
    return images


def shift_scale_rotate(
    images: Tensor,
    masks: Tensor | None,
    generator: Generator,
    shift: float,
    scale: float,
    degrees: float,
    p: float,
) -> Pair:
    """Move, zoom and turn each image with probability ``p``; what comes into view is black."""
    n = len(images)
    moved = chance(n, p, generator)
    angle = uniform(n, -math.radians(degrees), math.radians(degrees), generator) * moved
    zoom = 1 + uniform(n, -scale, scale, generator) * moved
    dx, dy = (2 * uniform(n, -shift, shift, generator) * moved for _ in range(2))
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    rows = [torch.stack([cosine, -sine, dx], 1), torch.stack([sine, cosine, dy], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    turned = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    images = torch.where(moved[:, None, None, None], turned, images)
    if masks is not None:  # raised by one, so that what comes into view, 0, is -1: not scored
        raised = (masks + 1).float()[:, None]
        seen = F.grid_sample(raised, grid, mode="nearest", align_corners=False)[:, 0].long() - 1
        masks = torch.where(moved[:, None, None], seen, masks)
    return images, masks


def prrfl(images: Tensor, masks: Tensor | None, generator: Generator) -> Pair:
    """PRR-FL's augmentation."""
    images, masks = flip(images, masks, generator)
    images = brightness(images, generator, limit=0.2, p=0.75)
    images = blur_or_noise(images, generator, p=0.7)
    return shift_scale_rotate(images, masks, generator, shift=0.1, scale=0.1, degrees=15, p=0.85)


def none(images: Tensor, masks: Tensor | None, generator: Generator) -> Pair:
    """Images as they are."""
    return images, masks


AUGMENTATIONS = {"prrfl": prrfl, "flips": flip, "none": none}
