"""All Fourier mathematics, as pure functions on tensors.

Two uses. *Progressive Fourier Aggregation* (Chen et al., MICCAI 2021, section 2.1) mixes the
low-frequency amplitude of the clients' weights. *Amplitude normalisation* (Jiang et al., AAAI
2022, equations 2 to 4) gives every image a common amplitude and leaves it its own phase.

Real signals have conjugate-symmetric spectra, so everything here works on the half plane of
``rfft2``, and a *band* is a block of low frequencies: rows ``-b .. b`` and columns ``0 .. b'``.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

SMALL = 2**18
"""Entries of a matrix that is transformed axis by axis: ``rfft2`` takes one core for it."""


def weight_to_matrix(weight: Tensor) -> Tensor:
    """Lay a weight out as the matrix that is transformed.

    A linear weight (out, in) stays as it is. A convolution weight (N, C, D1, ..., Dn) becomes
    (C*D1*...*Dn-1, Dn*N): input channels and leading kernel axes are rows, the last kernel axis
    and the output channels are columns. For a 2-D kernel that is the released layout
    ``permute(1, 2, 3, 0).reshape(C*D1, D2*N)``.

    Raises:
        ValueError: if the weight has fewer than two axes.

    >>> weight_to_matrix(torch.zeros(32, 3, 5, 7)).shape
    torch.Size([15, 224])
    """
    sides = matrix_shape(weight.shape)
    if weight.dim() == 2:
        return weight
    # Transposed as a plain matrix, which is much faster than axis by axis; so is the way back.
    if weight.is_contiguous():
        return weight.flatten(1).t().contiguous().view(sides)
    filters, channels = weight.shape[:2]  # in channels_last, the channels are the last axis
    rows = weight.movedim(1, -1).flatten(1).t().contiguous()
    return rows.view(-1, channels, filters).transpose(0, 1).reshape(sides)


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """Sides of :func:`weight_to_matrix` of a weight of ``shape``.

    >>> matrix_shape(torch.Size([32, 3, 5, 7]))
    (15, 224)
    """
    if len(shape) < 2:
        raise ValueError(f"a weight needs two axes or more, this one has {len(shape)}")
    if len(shape) == 2:
        return shape[0], shape[1]
    return shape[1:-1].numel(), shape[-1] * shape[0]


def matrix_to_weight(matrix: Tensor, shape: torch.Size) -> Tensor:
    """Undo :func:`weight_to_matrix` for a weight of ``shape``.

    >>> w = torch.randn(4, 3, 5, 7)
    >>> torch.equal(matrix_to_weight(weight_to_matrix(w), w.shape), w)
    True
    """
    if len(shape) == 2:
        return matrix
    return matrix.reshape(-1, shape[0]).t().contiguous().view(shape)


def half_width(side: int, radius: float) -> int:
    """Half-width b of the band on an axis of length ``side``: floor(side * radius / 2).

    >>> half_width(3, 0.7), half_width(64, 0.7), half_width(2, 0.7)
    (1, 22, 0)
    """
    return int(side * radius / 2)


def quarters(spectrum: Tensor, band: Tensor, axes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of a half-plane spectrum, and of where each of them lies in the band.

    In the band (..., 2b+1, b'+1) the frequencies of an axis go from -b to b. In an unshifted
    spectrum (..., H, W//2+1) they are apart: 0 .. b begin the axis and -b .. -1 end it.

    >>> [(a.tolist(), b.tolist()) for a, b in quarters(torch.arange(6.0), torch.zeros(2), axes=1)]
    [([0.0, 1.0], [0.0, 0.0])]
    """
    places = []
    for axis in range(-axes, -1):
        side, b = spectrum.shape[axis], band.shape[axis] // 2
        places.append([(slice(0, b + 1), slice(b, None)), (slice(side - b, side), slice(0, b))])
    places.append([(slice(0, band.shape[-1]), slice(None))])
    for choice in product(*places):
        there, here = zip(*choice, strict=True)
        yield spectrum[(..., *there)], band[(..., *here)]


def take_band(spectrum: Tensor, *half_widths: int) -> Tensor:
    """Cut the band (..., 2b+1, b'+1) out of a half-plane spectrum (..., H, W//2+1).

    One half-width an axis; for volumes there are three axes.
    """
    *rows, columns = half_widths
    band = spectrum[..., : columns + 1]
    for axis, b in zip(range(-len(half_widths), -1), rows, strict=True):
        below, above = band.narrow(axis, band.shape[axis] - b, b), band.narrow(axis, 0, b + 1)
        band = torch.cat([below, above], axis)
    return band


def add_to_band(spectrum: Tensor, delta: Tensor, axes: int) -> Tensor:
    """Add ``delta`` (..., 2b+1, b'+1) to the band of ``spectrum``, in place, and return it."""
    for there, here in quarters(spectrum, delta, axes):
        there += here
    return spectrum


def amplitude_of(spectrum: Tensor) -> Tensor:
    """|F| of a complex tensor; ``abs`` gives the same but is slow for complex numbers on a CPU."""
    real, imaginary = spectrum.real, spectrum.imag
    return torch.addcmul(real.square(), imaginary, imaginary).sqrt_()


def unit_phase(spectrum: Tensor, rounding: float = 0.0) -> Tensor:
    """Phase factor e^{i arg F} of a complex tensor; 1 where |F| is ``rounding`` or less.

    There the phase would be that of what a transform has rounded off, another one in each runtime.
    """
    phase, gone = torch.sgn(spectrum), amplitude_of(spectrum) <= rounding
    return phase.masked_fill_(gone, 1) if bool(gone.any()) else phase


def rounding_of(images: Tensor) -> float:
    """What rounding leaves of a frequency that images (N, C, ...) in 0..1 do not have.

    Among images of 8 bits some frequencies are exactly 0 by chance, or by being flat.

    >>> rounding_of(torch.zeros(1, 3, 64, 64))
    6.4e-05
    """
    return 1e-6 * math.sqrt(images.shape[2:].numel())


def low_frequencies(weight: Tensor, radius: float) -> Tensor | None:
    """Low-frequency band (2bh+1, bw+1), complex, of a weight's spectrum; None where it is empty.

    A side so short that its half-width is 0 leaves nothing to share.

    >>> low_frequencies(torch.zeros(64, 256), 0.7).shape
    torch.Size([45, 90])
    >>> low_frequencies(torch.zeros(2, 64), 0.7) is None
    True
    """
    bh, bw = (half_width(side, radius) for side in matrix_shape(weight.shape))
    if bh == 0 or bw == 0:
        return None
    matrix = weight_to_matrix(weight)
    if matrix.numel() < SMALL:
        spectrum = torch.fft.fft(torch.fft.rfft(matrix)[:, : bw + 1], dim=0)
    else:
        spectrum = torch.fft.rfft2(matrix)
    return take_band(spectrum, bh, bw)


def from_low_frequencies(band: Tensor, shape: torch.Size) -> Tensor:
    """The weight of ``shape`` whose spectrum is ``band`` in the released band, and else zero.

    The released code replaces rows [-bh, bh) and columns [-bw, bw) and keeps the real part of the
    inverse transform. That is irfft2(Ms * band), with the mask Ms = (M(k) + M(-k)) / 2 and a band
    as :func:`low_frequencies` cuts it: Ms is 1, at the band's edges 1/2, and 0 in the corners of
    which neither the frequency nor its mirror image is in the released band. The transform is
    linear: a weight whose band is to change by ``band`` changes by this, and not at all where that
    is zero.

    >>> band = torch.zeros(5, 3, dtype=torch.complex64)
    >>> band[2, 0] = 48  # zero frequency: the sum
    >>> from_low_frequencies(band, torch.Size([6, 8])).unique()
    tensor([1.])
    """
    bh, bw = band.shape[-2] // 2, band.shape[-1] - 1
    height, width = matrix_shape(shape)
    # irfft2 in two steps, as the columns behind the band are zero and need no transform.
    columns = torch.cat([band[bh:], band.new_zeros(height - 2 * bh - 1, bw + 1), band[:bh]])
    for edge in (columns[:, bw], columns[bh, :bw], columns[-bh, :bw]):  # elsewhere the mask is 1
        edge /= 2
    columns[-bh, bw] = 0
    return matrix_to_weight(torch.fft.irfft(torch.fft.ifft(columns, dim=0), n=width), shape)


def half_widths_of(band: Tensor) -> tuple[int, ...]:
    """Half-widths of a band (C, 2b+1, ..., b'+1).

    >>> half_widths_of(torch.zeros(3, 5, 7, 3))
    (2, 3, 2)
    """
    return (*(side // 2 for side in band.shape[1:-1]), band.shape[-1] - 1)


def normalise_amplitude(images: Tensor, amplitude: Tensor) -> Tensor:
    """Give images (N, C, H, W) the ``amplitude`` and leave them their own phase (eq. 4).

    ``amplitude`` (C, H, W//2+1) is a common amplitude on the half plane. Volumes (N, C, D, H, W)
    and their amplitudes have one axis more.

    >>> x = torch.rand(2, 3, 8, 8)
    >>> y = normalise_amplitude(x, torch.fft.rfft2(x[0]).abs())
    >>> torch.allclose(y[0], x[0], atol=1e-6)
    True
    """
    space = tuple(range(2, images.dim()))
    spectrum = torch.fft.rfftn(images, dim=space)
    spectrum = unit_phase(spectrum, rounding_of(images)).mul_(amplitude)
    harmonised: Tensor = torch.fft.irfftn(spectrum, s=images.shape[2:], dim=space)
    return harmonised


def normalise_band(images: Tensor, amplitude: Tensor) -> Tensor:
    """Give images (N, C, H, W) the ``amplitude`` (C, 2bh+1, bw+1) in its band of low frequencies.

    Phases, and the frequencies outside the band, stay the images' own. A frequency that an image
    does not have (see :func:`rounding_of`) gets the phase 0.
    """
    space = tuple(range(2, images.dim()))
    spectrum = torch.fft.rfftn(images, dim=space)
    own = take_band(spectrum, *half_widths_of(amplitude))
    change = amplitude * unit_phase(own, rounding_of(images)) - own
    for axis in range(-len(space), -1):
        if own.shape[axis] > spectrum.shape[axis]:  # H/2 is -H/2, so that it is there twice
            change.select(axis, 0).div_(2)
            change.select(axis, -1).div_(2)
    spectrum = add_to_band(spectrum, change, axes=len(space))
    harmonised: Tensor = torch.fft.irfftn(spectrum, s=images.shape[2:], dim=space)
    return harmonised


def channel_sums(images: Tensor) -> Tensor:
    """Sums (N, C) over the pixels of images (N, C, ...): their zero frequency.

    >>> channel_sums(torch.ones(2, 3, 4, 5)).tolist()
    [[20.0, 20.0, 20.0], [20.0, 20.0, 20.0]]
    """
    pixels = images.movedim(1, -1)
    if pixels.is_contiguous():  # channels_last: whole rows are added first, which is much faster
        rows = pixels.flatten(2).sum(1)
        pixels = rows.view(len(images), images.shape[3:].numel(), images.shape[1])
    sums: Tensor = pixels.sum(tuple(range(1, pixels.dim() - 1)))
    return sums


def normalise_mean(images: Tensor, amplitude: Tensor) -> Tensor:
    """Replace only the zero-frequency amplitude (C,) of images (N, C, ...); no transform needed.

    This is what the released HarmoFL code computes: a shift of each channel's mean,
    x + (sign(DC) * A - DC) / (H * W), where DC is the channel's sum.

    >>> normalise_mean(torch.ones(1, 1, 2, 2), torch.tensor([8.0])).unique()
    tensor([2.])
    """
    total = channel_sums(images)
    shift = (torch.where(total < 0, -1.0, 1.0) * amplitude - total) / images.shape[2:].numel()
    shift = shift.view(*shift.shape, *[1] * (images.dim() - 2))
    # A row of pixels in the images' own layout: pixel by pixel, channels_last is slow to add to.
    return images + torch.zeros_like(images[:, :, :1], dtype=shift.dtype).add_(shift)
