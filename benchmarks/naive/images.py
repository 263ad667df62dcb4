"""Images as a first implementation reads them: one by one, from the file, every time."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image, ImageFilter
from torch import Tensor

Listed = list[tuple[Path, int | str]]
"""Images, each with the number of its class or the path of its mask."""


def sites_of(path: str) -> tuple[list[dict[str, Listed]], int]:
    """The images of a table by site and part, and the number of classes.

    Columns: site, split, image, and label or mask (0 is background, all else is not).
    """
    table = pd.read_csv(path)
    if "mask" in table:
        table["target"], classes = table["mask"], 2
    else:
        table["target"], names = pd.factorize(table["label"], sort=True)
        classes = len(names)
    sites = [
        {
            str(part): [(Path(p), y) for p, y in zip(rows["image"], rows["target"], strict=True)]
            for part, rows in site.groupby("split")
        }
        for _, site in table.groupby("site")
    ]
    return sites, classes


def augmented(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Flips, brightness, one of two blurs or noise, shift-scale-rotate, for one image."""
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if rng.random() < 0.75:
        shift = rng.uniform(-0.2, 0.2) * 255
        image = image.point([min(255, max(0, round(v + shift))) for v in range(256)] * 3)
    if rng.random() < 0.7:
        which = rng.integers(3)
        if which == 0:
            image = image.filter(ImageFilter.MedianFilter(3))
        elif which == 1:
            image = image.filter(ImageFilter.GaussianBlur(1.1))
        else:
            pixels = np.asarray(image, dtype=np.float32)
            noise = rng.normal(0, math.sqrt(rng.uniform(5, 30)), pixels.shape)
            image = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
    if rng.random() < 0.85:
        angle, zoom = math.radians(rng.uniform(-15, 15)), rng.uniform(0.9, 1.1)
        c, s, half = math.cos(angle) / zoom, math.sin(angle) / zoom, image.width / 2
        dx, dy = rng.uniform(-0.1, 0.1, 2) * image.width
        matrix = (c, -s, half - c * half + s * half + dx, s, c, half - s * half - c * half + dy)
        image = image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
    return image


def loader(
    listed: Listed, size: int, batch_size: int, rng: np.random.Generator | None, augment: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (N, 3, S, S) in -1..1 and labels; shuffled and augmented where there is ``rng``."""
    order = np.arange(len(listed)) if rng is None else rng.permutation(len(listed))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        if len(chosen) == 1 and start:  # batch norm needs two
            continue
        arrays: list[npt.NDArray[np.float32]] = []
        for index in chosen:
            image = Image.open(listed[index][0]).convert("RGB")
            image = image.resize((size, size), Image.Resampling.BILINEAR)
            if augment and rng is not None:
                image = augmented(image, rng)
            arrays.append(np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1)
        labels = [listed[index][1] for index in chosen]
        yield torch.from_numpy(np.stack(arrays)), torch.tensor(labels)
