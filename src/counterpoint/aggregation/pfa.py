"""Progressive Fourier Aggregation (PRR-FL, Chen et al., MICCAI 2021, section 2.1)."""

from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from counterpoint.aggregation.all import merge_plainly
from counterpoint.aggregation.exchange import Exchange
from counterpoint.layers import normalisation_parameters, other_buffers, spectral_weights
from counterpoint.payload import Payload
from counterpoint.spectrum import amplitude_of, from_low_frequencies, low_frequencies

Phase = Literal["local", "mean", "complex"]
PARTS: dict[Phase, tuple[str, ...]] = {
    "local": ("amplitude",),
    "mean": ("amplitude", "phase"),
    "complex": ("real", "imaginary"),
}
"""What of a band leaves the site."""


@dataclass(frozen=True)
class ProgressiveFourier:
    """Only the low-frequency amplitude of the weights is averaged, more of it as rounds go by.

    In round t of T (from 0) the band covers the fraction r(t) = start + t/T * (end - start) of
    each side of a weight's spectrum. A client sends the band of its amplitude, takes back the
    mean, and keeps its own phase (``phase="local"``, MICCAI 2021). ``"mean"`` averages the angles
    too (arithmetically, as the journal's code does; IEEE TMI 2022); ``"complex"`` averages the
    complex numbers of the band. Normalisation layers stay at the client, biases are averaged.
    """

    kind: ClassVar[str] = "pfa"
    phase: Phase = "local"
    start: float = 0.7
    end: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.end < 1:
            raise ValueError("aggregation.start and .end must satisfy 0 < start <= end < 1")

    def radius(self, progress: float) -> float:
        """Fraction of each side in the band when ``progress`` = t/T of the rounds are over."""
        return self.start + progress * (self.end - self.start)

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site: bands of convolution and linear weights, other parameters whole."""
        radius, spectral = self.radius(exchange.progress), spectral_weights(network)
        local = normalisation_parameters(network)
        payload: Payload = {}
        for name, parameter in network.named_parameters():
            if name in local:
                continue
            if name not in spectral:
                payload[name] = parameter.detach().float().clone()
                continue
            band = low_frequencies(parameter.detach().float(), radius)
            if band is not None:
                payload |= {f"{name}.{part}": t for part, t in self._parts(band).items()}
        return payload | {n: b.detach().float().clone() for n, b in other_buffers(network).items()}

    @torch.no_grad()
    def merge(self, network: nn.Module, mean: Payload, exchange: Exchange) -> None:
        """Take the mean back in; the network must still hold the weights that were shared."""
        radius, spectral = self.radius(exchange.progress), spectral_weights(network)
        for name, parameter in network.named_parameters():
            band = low_frequencies(parameter.float(), radius) if name in spectral else None
            if band is not None:
                change = self._change(band, {p: mean[f"{name}.{p}"] for p in PARTS[self.phase]})
                parameter.add_(from_low_frequencies(change, parameter.shape))
        merge_plainly(network, mean)

    def _parts(self, band: Tensor) -> dict[str, Tensor]:
        if self.phase == "complex":
            return {"real": band.real.contiguous(), "imaginary": band.imag.contiguous()}
        if self.phase == "mean":
            return {"amplitude": amplitude_of(band), "phase": band.angle()}
        return {"amplitude": amplitude_of(band)}

    def _change(self, own: Tensor, mean: Payload) -> Tensor:
        """The band's change from a client's own numbers to the mean."""
        if self.phase == "complex":
            return torch.complex(mean["real"], mean["imaginary"]) - own
        if self.phase == "mean":
            return torch.polar(mean["amplitude"], mean["phase"]) - own
        amplitude = amplitude_of(own)
        change = own * (mean["amplitude"] - amplitude).div_(amplitude)  # exactly 0 where equal
        if not bool(amplitude.all()):  # where the own amplitude is 0, its phase is 0
            change = torch.where(amplitude == 0, mean["amplitude"].to(change.dtype), change)
        return change
