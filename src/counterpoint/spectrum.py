"""All Fourier mathematics, as pure functions on tensors.

Two uses. *Progressive Fourier Aggregation* (Chen et al., MICCAI 2021, section 2.1) mixes the
low-frequency amplitude of the clients' weights. *Amplitude normalisation* (Jiang et al., AAAI
2022, equations 2 to 4) gives every image a common amplitude and leaves it its own phase.

Real signals have conjugate-symmetric spectra, so everything here works on the half plane of
``rfft2``, and a *band* is a block of low frequencies: rows ``-b .. b`` and columns ``0 .. b'``.
"""

import torch
from torch import Tensor


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
    if weight.dim() < 2:
        raise ValueError(f"a weight needs two axes or more, this one has {weight.dim()}")
    if weight.dim() == 2:
        return weight
    moved = weight.movedim(0, -1)
    return moved.reshape(moved.shape[:-2].numel(), -1)


def matrix_to_weight(matrix: Tensor, shape: torch.Size) -> Tensor:
    """Undo :func:`weight_to_matrix` for a weight of ``shape``.

    >>> w = torch.randn(4, 3, 5, 7)
    >>> torch.equal(matrix_to_weight(weight_to_matrix(w), w.shape), w)
    True
    """
    if len(shape) == 2:
        return matrix
    return matrix.reshape(*shape[1:], shape[0]).movedim(-1, 0)


def half_width(side: int, radius: float) -> int:
    """Half-width b of the band on an axis of length ``side``: floor(side * radius / 2).

    >>> half_width(3, 0.7), half_width(64, 0.7), half_width(2, 0.7)
    (1, 22, 0)
    """
    return int(side * radius / 2)


def band_rows(height: int, b: int, device: torch.device | None = None) -> Tensor:
    """Row indices of the frequencies -b .. b in an unshifted spectrum, as (2b+1,) int64.

    >>> band_rows(8, 2)
    tensor([6, 7, 0, 1, 2])
    """
    return torch.arange(-b, b + 1, device=device) % height


def take_band(spectrum: Tensor, *half_widths: int) -> Tensor:
    """Cut the band (..., 2b+1, b'+1) out of a half-plane spectrum (..., H, W//2+1).

    One half-width an axis; for volumes there are three axes.
    """
    band = spectrum[..., : half_widths[-1] + 1]
    for axis, b in zip(range(-len(half_widths), -1), half_widths, strict=False):
        band = band.index_select(axis, band_rows(spectrum.shape[axis], b, spectrum.device))
    return band


def add_to_band(spectrum: Tensor, delta: Tensor, axes: int = 2) -> Tensor:
    """Return ``spectrum`` with ``delta`` (..., 2b+1, b'+1) added to its band over so many axes."""
    places: list[Tensor] = []
    for axis in range(-axes, 0):
        length = delta.shape[axis]
        along = (
            torch.arange(length, device=spectrum.device)
            if axis == -1
            else band_rows(spectrum.shape[axis], length // 2, spectrum.device)
        )
        places.append(along.view(-1, *[1] * (-1 - axis)))
    result = spectrum.clone()
    result[(..., *places)] += delta  # type: ignore[index]  # no frequency is in a band twice
    return result


def symmetrised_mask(bh: int, bw: int, like: Tensor) -> Tensor:
    """Mask (2bh+1, bw+1) with entries 0, 1/2 and 1 that equals the released one-sided band.

    The released code replaces rows [-bh, bh) and columns [-bw, bw) and keeps the real part of the
    inverse transform. That is the same as the mask (M(k) + M(-k)) / 2 on a real transform.

    >>> symmetrised_mask(1, 1, torch.zeros(()))
    tensor([[0.5000, 0.0000],
            [1.0000, 0.5000],
            [0.5000, 0.5000]])
    """
    rows = torch.arange(-bh, bh + 1, device=like.device)
    columns = torch.arange(0, bw + 1, device=like.device)
    forward = (rows < bh)[:, None] & (columns < bw)[None, :]
    # M(-k): the row -k lies in [-bh, bh) when k > -bh; the column -k always does (k <= bw).
    mirrored = (rows > -bh)[:, None].expand_as(forward)
    return (forward.to(like.dtype) + mirrored.to(like.dtype)) / 2


def unit_phase(spectrum: Tensor) -> Tensor:
    """Phase factor e^{i arg F} of a complex tensor; 1 where F is 0."""
    amplitude = spectrum.abs()
    return torch.where(amplitude > 0, spectrum / amplitude, torch.ones_like(spectrum))


def low_frequencies(weight: Tensor, radius: float) -> Tensor | None:
    """Low-frequency band (2bh+1, bw+1), complex, of a weight's spectrum; None where it is empty.

    A side so short that its half-width is 0 leaves nothing to share.

    >>> low_frequencies(torch.zeros(64, 256), 0.7).shape
    torch.Size([45, 90])
    >>> low_frequencies(torch.zeros(2, 64), 0.7) is None
    True
    """
    matrix = weight_to_matrix(weight)
    bh, bw = (half_width(side, radius) for side in matrix.shape)
    if bh == 0 or bw == 0:
        return None
    return take_band(torch.fft.rfft2(matrix), bh, bw)


def change_low_frequencies(weight: Tensor, change: Tensor) -> Tensor:
    """Add ``change`` to a weight's low frequencies, through the released band.

    ``change`` is a band as :func:`low_frequencies` cuts it. The transform is linear, so only the
    change is transformed back, w' = w + irfft2(Ms * change), and a change of zero leaves the
    weight bit for bit as it was.

    >>> w = torch.randn(6, 8)
    >>> torch.equal(change_low_frequencies(w, torch.zeros(5, 3, dtype=torch.complex64)), w)
    True
    """
    bh, bw = change.shape[-2] // 2, change.shape[-1] - 1
    height, width = weight_to_matrix(weight).shape
    masked = symmetrised_mask(bh, bw, weight) * change
    spectrum = add_to_band(masked.new_zeros(height, width // 2 + 1), masked)
    moved = torch.fft.irfft2(spectrum, s=(height, width))
    return weight + matrix_to_weight(moved, weight.shape)


def half_widths_of(band: Tensor) -> tuple[int, ...]:
    """Half-widths of a band (C, 2b+1, ..., b'+1).

    >>> half_widths_of(torch.zeros(3, 5, 7, 3))
    (2, 3, 2)
    """
    return (*(side // 2 for side in band.shape[1:-1]), band.shape[-1] - 1)


def normalise_amplitude(images: Tensor, amplitude: Tensor) -> Tensor:
    """Give images (N, C, H, W) the ``amplitude`` and leave them their own phase (eq. 4).

    ``amplitude`` is the band (C, 2bh+1, bw+1) of a common amplitude, or the whole half plane
    (C, H, W//2+1). Frequencies outside the band stay the image's own. Volumes (N, C, D, H, W) and
    their amplitudes have one axis more.

    >>> x = torch.rand(2, 3, 8, 8)
    >>> y = normalise_amplitude(x, torch.fft.rfft2(x[0]).abs())
    >>> torch.allclose(y[0], x[0], atol=1e-6)
    True
    """
    space = tuple(range(2, images.dim()))
    spectrum = torch.fft.rfftn(images, dim=space)
    if amplitude.shape[1:] == spectrum.shape[2:]:
        spectrum = amplitude * unit_phase(spectrum)
    else:
        own = take_band(spectrum, *half_widths_of(amplitude))
        spectrum = add_to_band(spectrum, amplitude * unit_phase(own) - own, axes=len(space))
    harmonised: Tensor = torch.fft.irfftn(spectrum, s=images.shape[2:], dim=space)
    return harmonised


def normalise_mean(images: Tensor, amplitude: Tensor) -> Tensor:
    """Replace only the zero-frequency amplitude (C,) of images (N, C, ...); no transform needed.

    This is what the released HarmoFL code computes: a shift of each channel's mean,
    x + (sign(DC) * A - DC) / (H * W), where DC is the channel's sum.

    >>> normalise_mean(torch.ones(1, 1, 2, 2), torch.tensor([8.0])).unique()
    tensor([2.])
    """
    space = tuple(range(2, images.dim()))
    pixels = images.shape[2:].numel()
    mean = images.mean(dim=space, keepdim=True)
    sign = torch.where(mean < 0, -1.0, 1.0)
    return images + (sign * (amplitude / pixels).view(-1, *[1] * len(space)) - mean)
