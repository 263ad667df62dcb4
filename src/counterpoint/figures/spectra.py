"""Amplitude spectra of hospitals' images: how much there is of each fineness of detail."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from counterpoint.figures.style import pen, plain


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A site's radial profile: mean log10 amplitude at each of some frequencies."""

    label: str
    number: int
    frequencies: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]


def radial_profile(images: Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean log10 amplitude of images (N, C, *space) against spatial frequency.

    Frequencies are in cycles a pixel, 0 to 0.5, in bins as wide as the transform is fine; the mean
    is taken over images, channels and directions.

    >>> frequencies, values = radial_profile(torch.ones(1, 1, 8, 8))
    >>> frequencies.tolist(), round(float(values[0]), 2)
    ([0.0, 0.125, 0.25, 0.375, 0.5], 1.81)
    """
    space = images.shape[2:]
    axes = tuple(range(2, images.dim()))
    amplitude = torch.fft.fftn(images.double(), dim=axes).abs()
    mean = torch.log10(amplitude + 1e-6).mean(dim=(0, 1))
    grids = torch.meshgrid(*(torch.fft.fftfreq(side) for side in space), indexing="ij")
    radius = torch.stack(grids).square().sum(0).sqrt()
    side = min(space)
    bins = torch.round(radius * side).long().flatten().numpy()
    count = np.bincount(bins)
    total = np.bincount(bins, weights=mean.flatten().numpy())
    last = side // 2 + 1
    return np.arange(last) / side, (total / np.maximum(count, 1))[:last]


def draw_spectra(axes: Axes, spectra: Sequence[Spectrum]) -> None:
    """A line a site; its mark and dash tell it from one of the same colour."""
    for i, one in enumerate(spectra):
        look = pen(one.number)
        axes.plot(
            one.frequencies,
            one.values,
            color=look["color"],
            linestyle=look["linestyle"],
            linewidth=1.6,
            label=plain(one.label),
            gid=f"mark-{i}",
        )
        at = slice(0, None, max(1, len(one.values) // 16))
        axes.plot(
            one.frequencies[at],
            one.values[at],
            look["marker"],
            color=look["color"],
            markersize=3.5,
            gid=f"mark-{i}-points",
        )
    axes.set_xlabel("spatial frequency (cycles a pixel)")
    axes.set_ylabel("mean log10 amplitude")
