"""A payload against what all know already: its change, in units that make one norm meaningful."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoint.layers import spectral_weights
from counterpoint.payload import Payload
from counterpoint.privacy.choice import PayloadNoise
from counterpoint.privacy.gaussian import Source, clipped, noised

CHANGES = ("local.control.",)
"""Names that begin so are changes themselves: what they are counted from is 0."""


def protect(
    payload: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    units: Mapping[str, float],
    privacy: PayloadNoise,
    source: Source,
) -> Payload:
    """Clip and noise a payload's change from ``known`` (zeros where that has no such name).

    ``units`` are what each tensor is measured in, 1 where left out. Types and shapes stay.
    A running variance may come out below 0: see :func:`variances_from_zero`.

    >>> far = {"w": torch.tensor([4.0, 5.0])}
    >>> protect(far, {"w": torch.ones(2)}, {}, PayloadNoise(clip=1.0, noise=0.0), lambda n: b"")
    {'w': tensor([1.6000, 1.8000])}
    """
    start = {n: fitted(known.get(n), t.shape).double() for n, t in payload.items()}
    unit = {name: units.get(name, 1.0) for name in payload}
    change = {n: (t.detach().cpu().double() - start[n]) / unit[n] for n, t in payload.items()}
    change = noised(clipped(change, privacy.clip), privacy.noise * privacy.clip, source)
    return {n: (start[n] + unit[n] * change[n]).to(t.dtype) for n, t in payload.items()}


def variances_from_zero(mean: Payload) -> Payload:
    """A mean of noised payloads, its variances not below 0.

    Not at each site before the mean is taken: the noise of the others hides a site from those that
    see means only, and cut off at 0 much of that noise would be gone.

    >>> variances_from_zero({"statistics.norm.running_var": torch.tensor([-0.5, 2.0])})
    {'statistics.norm.running_var': tensor([0., 2.])}
    """
    return {n: t.clamp(min=0) if n.endswith("running_var") else t for n, t in mean.items()}


def fitted(known: Tensor | None, shape: torch.Size) -> Tensor:
    """``known`` in another shape: zeros where there is nothing known.

    The band of a spectrum grows from round to round: its rows to both sides, its columns to one
    (see `counterpoint.spectrum.low_frequencies`).

    >>> fitted(torch.ones(1, 1), torch.Size([3, 2]))
    tensor([[0., 0.],
            [1., 0.],
            [0., 0.]])
    """
    if known is None:
        return torch.zeros(shape)
    known = known.detach().cpu()
    if known.shape == shape:
        return known
    wide = torch.zeros(shape, dtype=known.dtype)
    if len(shape) == known.dim() == 2 and all(
        a >= b for a, b in zip(shape, known.shape, strict=True)
    ):
        rows, columns = known.shape
        first = (shape[0] - rows) // 2
        wide[first : first + rows, :columns] = known
    return wide


def known_to_all(first: Mapping[str, Tensor], mean: Mapping[str, Tensor]) -> Payload:
    """What a round's payload is counted from: the last mean, before it the common first weights.

    Where a band of the mean is narrower than this round's, the first weights fill its rim.

    >>> known_to_all({"a": torch.zeros(1), "b": torch.ones(1)}, {"a": torch.ones(1)})
    {'a': tensor([1.]), 'b': tensor([1.])}
    """
    known = dict(first)
    for name, tensor in mean.items():
        if name.startswith(CHANGES):
            continue
        if name in first and first[name].shape != tensor.shape:
            inside = fitted(torch.ones_like(tensor), first[name].shape) > 0
            known[name] = torch.where(inside, fitted(tensor, first[name].shape), first[name].cpu())
        else:
            known[name] = tensor
    return known


def units_of(payload: Mapping[str, Tensor], network: nn.Module, pixels: int) -> dict[str, float]:
    """What each tensor of a payload is measured in, where that is not 1.

    The band of a weight's spectrum is measured so that the whole spectrum has the norm of the
    weight (Parseval); the amplitude of images so that its norm is the root mean square of their
    pixels. Otherwise such tensors, thousands of times larger than weights, would be all that a
    common norm is about.
    """
    spectral, parameters = spectral_weights(network), dict(network.named_parameters())
    units = {name: float(pixels) for name in payload if name.startswith("harmonise.")}
    for name in payload:
        weight, _, part = name.rpartition(".")
        if weight in spectral and part in ("amplitude", "real", "imaginary"):
            units[name] = math.sqrt(parameters[weight].numel())
    return units
