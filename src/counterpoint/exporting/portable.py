"""A model as plain tensor operations: what every format and runtime can hold."""

import math

import torch
from torch import Tensor, nn

from counterpoint.errors import StateError
from counterpoint.harmonise import AmplitudeLayer
from counterpoint.predictor import Predictor
from counterpoint.spectrum import rounding_of


class Portable(nn.Module):
    """A predictor without decisions: images (N, C, *space) in 0..1 to logits and probabilities.

    Both are (N, classes), for segmentation (N, classes, *space).
    """

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        if not isinstance(predictor, Predictor):
            raise StateError("only a single model can be exported, not several that vote")
        self.harmonise = portable_harmoniser(predictor.harmonise)
        self.network = predictor.network
        self.low, self.high = predictor.input_range

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and probabilities."""
        logits = self.network(self.harmonise(images) * (self.high - self.low) + self.low)
        return logits, logits.softmax(1)


def portable_harmoniser(layer: nn.Module) -> nn.Module:
    """What a harmonising layer does at test time, without complex numbers.

    Raises:
        StateError: if the layer is of a kind that is not known here.
    """
    if isinstance(layer, nn.Identity) or (isinstance(layer, AmplitudeLayer) and not layer.ready):
        return nn.Identity()
    if not isinstance(layer, AmplitudeLayer):
        raise StateError(f"a harmoniser {type(layer).__name__} can't be exported")
    return FixedMean(layer) if layer.band == "dc" else FixedAmplitude(layer)


class FixedMean(nn.Module):
    """Amplitude normalisation of the zero frequency; see `normalise_mean`."""

    amplitude: Tensor

    def __init__(self, layer: AmplitudeLayer) -> None:
        super().__init__()
        self.register_buffer("amplitude", layer.amplitude.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, ...) of the same mean, by operations that do not depend on their layout."""
        total = images.flatten(2).sum(2)
        sign = torch.where(total < 0, -1.0, 1.0)
        shift = (sign * self.amplitude - total) / math.prod(images.shape[2:])
        return images + shift.reshape(*shift.shape, *[1] * (images.dim() - 2))


class FixedAmplitude(nn.Module):
    """Amplitude normalisation with the transform as products with matrices of real numbers.

    Few runtimes have Fourier transforms and complex numbers, all have matrix products. Only the
    change is transformed back, x' = x + F^-1(A e^{i arg F} - F) over the frequencies of the band,
    and the mean is taken out before, so that its size does not cost the others their digits.

    >>> layer = AmplitudeLayer((1, 6, 8), band=0.5, momentum=0.1)
    >>> _ = layer.train()(torch.rand(4, 1, 6, 8))
    >>> images = torch.rand(2, 1, 6, 8)
    >>> torch.allclose(FixedAmplitude(layer)(images), layer.eval()(images), atol=1e-6)
    True
    """

    amplitude: Tensor
    zero: Tensor
    weights: Tensor

    def __init__(self, layer: AmplitudeLayer) -> None:
        super().__init__()
        sides, kept = layer.shape[1:], tuple(layer.amplitude.shape[1:])
        whole = layer.band == "full"
        self.space = tuple(range(2, 2 + len(sides)))
        self.pixels = math.prod(sides)
        self.register_buffer("amplitude", layer.amplitude.clone())
        zero = torch.ones(())
        for axis, side, count in zip(self.space, sides, kept, strict=True):
            first = 0 if whole or axis == self.space[-1] else -(count // 2)  # a band is -b .. b
            numbers = torch.arange(first, first + count)
            angle = 2 * math.pi * (numbers[:, None] * torch.arange(side) % side).double() / side
            self.register_buffer(f"cosine{axis}", angle.cos().float())  # (frequencies, pixels)
            self.register_buffer(f"sine{axis}", angle.sin().float())
            zero = zero[..., None] * (numbers == 0)
        self.register_buffer("zero", zero)
        # a column of the half plane stands for its mirror image as well, if that is another one
        twice = (numbers > 0) & (2 * numbers != sides[-1])
        self.register_buffer("weights", (1.0 + twice) / self.pixels)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, ...) of the same amplitude."""
        mean = images.mean(dim=self.space, keepdim=True)
        real, imaginary = self.transformed(images - mean)
        real = real + mean * self.pixels * self.zero
        size = (real.square() + imaginary.square()).sqrt()
        there = size > rounding_of(images)
        scale = self.amplitude / torch.where(there, size, 1.0)
        return images + self.transformed_back(
            torch.where(there, real * scale, self.amplitude) - real, imaginary * scale - imaginary
        )

    def transformed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the half plane's band."""
        *others, last = self.space
        cosine, sine = self.matrices(last)
        real, imaginary = images @ cosine.mT, -(images @ sine.mT)
        for axis in others:
            cosine, sine = (matrix.mT for matrix in self.matrices(axis))
            real, imaginary = (
                along(axis, real, cosine) + along(axis, imaginary, sine),
                along(axis, imaginary, cosine) - along(axis, real, sine),
            )
        return real, imaginary

    def transformed_back(self, real: Tensor, imaginary: Tensor) -> Tensor:
        """The real image of a half plane's band; all other frequencies are 0."""
        *others, last = self.space
        for axis in others:
            cosine, sine = self.matrices(axis)
            real, imaginary = (
                along(axis, real, cosine) - along(axis, imaginary, sine),
                along(axis, imaginary, cosine) + along(axis, real, sine),
            )
        cosine, sine = self.matrices(last)
        return (real * self.weights) @ cosine - (imaginary * self.weights) @ sine

    def matrices(self, axis: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines (frequencies, pixels) of an axis."""
        return self.get_buffer(f"cosine{axis}"), self.get_buffer(f"sine{axis}")


def along(axis: int, values: Tensor, matrix: Tensor) -> Tensor:
    """Multiply an axis by a matrix from the right.

    >>> along(2, torch.ones(1, 1, 2, 3), torch.ones(2, 5)).shape
    torch.Size([1, 1, 5, 3])
    """
    return (values.movedim(axis, -1) @ matrix).movedim(-1, axis)
