"""Amplitude normalisation (HarmoFL, Jiang et al., AAAI 2022, equations 2 to 4).

Every image keeps its own phase and is given a common amplitude, so that scanners and stains look
alike. The amplitude is learnt in the first round, averaged once over the clients, and fixed from
then on, in training and at test time. It is an input layer of the model: it travels, is saved and
is loaded with it, and so is the fact that it is frozen.
"""

from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from counterpoint.payload import Payload
from counterpoint.spectrum import (
    amplitude_of,
    channel_sums,
    half_width,
    half_widths_of,
    normalise_amplitude,
    normalise_band,
    normalise_mean,
    take_band,
)


class AmplitudeLayer(nn.Module):
    """Input layer that gives images (N, C, H, W), or volumes, in 0..1 a common amplitude.

    ``shape`` is (C, H, W) or (C, D, H, W). Buffers: ``amplitude`` (C, rows, columns), or (C,) for
    ``dc``; ``ready`` is set by the first training batch (before that, images pass as they are),
    ``frozen`` by :meth:`freeze`.

    >>> layer = AmplitudeLayer((1, 8, 8), band="full", momentum=0.1)
    >>> _ = layer.train()(torch.rand(4, 1, 8, 8))
    >>> layer.freeze()
    >>> layer.eval()(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """

    amplitude: Tensor
    ready: Tensor
    frozen: Tensor

    def __init__(
        self, shape: tuple[int, ...], band: Literal["full", "dc"] | float, momentum: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.band, self.momentum = band, momentum
        self.statistics_frozen = False  # see layers.frozen_statistics
        channels, *rows, columns = shape
        if band == "full":
            kept = (channels, *rows, columns // 2 + 1)
        elif isinstance(band, str):
            kept = (channels,)
        else:
            sides = [2 * half_width(side, band) + 1 for side in rows]
            kept = (channels, *sides, half_width(columns, band) + 1)
        self.register_buffer("amplitude", torch.zeros(kept))
        self.register_buffer("ready", torch.tensor(False))
        self.register_buffer("frozen", torch.tensor(False))

    def extra_repr(self) -> str:
        """Show the band in ``print(model)``."""
        return f"shape={self.shape}, band={self.band}"

    @torch.no_grad()
    def batch_amplitude(self, images: Tensor) -> Tensor:
        """Mean amplitude of a batch (N, C, ...), shaped like ``amplitude``."""
        if self.band == "dc":
            mean: Tensor = channel_sums(images).abs().mean(0)
            return mean
        spectrum = torch.fft.rfftn(images, dim=tuple(range(2, images.dim())))
        if self.band != "full":
            spectrum = take_band(spectrum, *half_widths_of(self.amplitude))
        amplitude: Tensor = amplitude_of(spectrum).mean(0)
        return amplitude

    @torch.no_grad()
    def update(self, images: Tensor) -> None:
        """Take a training batch into the running amplitude (eq. 3); the first batch sets it."""
        batch = self.batch_amplitude(images)
        weight = self.momentum if bool(self.ready) else 1.0
        self.amplitude.lerp_(batch, weight)
        self.ready.fill_(True)

    def freeze(self) -> None:
        """Fix the amplitude for good."""
        self.frozen.fill_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Harmonise images (N, C, ...).

        Raises:
            ValueError: if the images have another size than the layer.
        """
        if images.shape[1:] != self.shape:
            raise ValueError(
                f"amplitude normalisation was made for images of shape {self.shape}, "
                f"got {tuple(images.shape[1:])}"
            )
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            if self.training and not self.statistics_frozen and not bool(self.frozen):
                self.update(images)
            if not bool(self.ready):
                return images
            if self.band == "dc":
                return normalise_mean(images, self.amplitude)
            change = normalise_amplitude if self.band == "full" else normalise_band
            return change(images, self.amplitude)


@runtime_checkable
class Harmoniser(Protocol):
    """What happens to an image before the network: an input layer, and what of it is shared."""

    kind: ClassVar[str]

    def layer(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the input layer for images of ``shape`` (C, H, W) or (C, D, H, W)."""
        ...

    def share(self, layer: nn.Module) -> Payload:
        """What leaves the site of the layer's state."""
        ...

    def merge(self, layer: nn.Module, mean: Payload) -> None:
        """Take the mean of what all sites shared back in."""
        ...


@dataclass(frozen=True)
class AmplitudeNormalisation:
    """Give every image the federation's mean amplitude and leave it its own phase.

    ``band="full"`` is the paper; ``"dc"`` is what the released code computes (only the
    zero-frequency bin, a shift of each channel's mean); a radius between 0 and 1 replaces only
    the frequencies up to that fraction of the spectrum. ``momentum`` is the paper's v; the
    released code has, in effect, 0: the first batch decides.
    """

    kind: ClassVar[str] = "amplitude"
    band: Literal["full", "dc"] | float = "full"
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.band, str) and not 0 < self.band < 1:
            raise ValueError("harmonise.band must be 'full', 'dc' or a radius between 0 and 1")
        if not 0 <= self.momentum <= 1:
            raise ValueError("harmonise.momentum must lie between 0 and 1")

    def layer(self, shape: tuple[int, ...]) -> nn.Module:
        """Make the input layer."""
        return AmplitudeLayer(shape, self.band, self.momentum)

    def share(self, layer: nn.Module) -> Payload:
        """What leaves the site: the amplitude, until it is frozen."""
        assert isinstance(layer, AmplitudeLayer)
        if bool(layer.frozen) or not bool(layer.ready):
            return {}
        return {"harmonise.amplitude": layer.amplitude.detach().clone()}

    def merge(self, layer: nn.Module, mean: Payload) -> None:
        """Take the mean amplitude and fix it for good; where nothing is shared, the site's own."""
        assert isinstance(layer, AmplitudeLayer)
        if "harmonise.amplitude" in mean:
            layer.amplitude.copy_(mean["harmonise.amplitude"])
            layer.ready.fill_(True)  # also at a site that was absent so far
        if bool(layer.ready):
            layer.freeze()


@dataclass(frozen=True)
class NoHarmoniser:
    """Images reach the network as they are."""

    kind: ClassVar[str] = "none"

    def layer(self, shape: tuple[int, ...]) -> nn.Module:
        """An identity."""
        return nn.Identity()

    def share(self, layer: nn.Module) -> Payload:
        """Nothing."""
        return {}

    def merge(self, layer: nn.Module, mean: Payload) -> None:
        """Nothing to do."""


HARMONISERS: dict[str, type[Harmoniser]] = {
    choice.kind: choice for choice in (NoHarmoniser, AmplitudeNormalisation)
}
