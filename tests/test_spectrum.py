"""Fourier mathematics: hand-derived cases and properties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from counterpoint.aggregation import Exchange, ProgressiveFourier
from counterpoint.harmonise import AmplitudeLayer
from counterpoint.server import WeightedMean
from counterpoint.spectrum import (
    SMALL,
    channel_sums,
    from_low_frequencies,
    low_frequencies,
    matrix_to_weight,
    normalise_amplitude,
    normalise_band,
    normalise_mean,
    take_band,
    unit_phase,
    weight_to_matrix,
)

shapes = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.tuples(*[st.integers(1, 4)] * 4),
    st.tuples(*[st.integers(1, 3)] * 5),
)
seeds = st.integers(0, 2**31)


def random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(shapes, seeds)
def test_layout_can_be_undone(shape: tuple[int, ...], seed: int) -> None:
    weight = random(shape, seed)
    assert torch.equal(matrix_to_weight(weight_to_matrix(weight), weight.shape), weight)


def test_layout_of_a_2d_kernel_is_the_released_one() -> None:
    weight = random((4, 3, 5, 7), 0)
    assert torch.equal(weight_to_matrix(weight), weight.permute(1, 2, 3, 0).reshape(15, 28))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((4, 3, 5, 7), torch.channels_last), ((4, 3, 2, 5, 7), torch.channels_last_3d)],
)
def test_layout_is_the_same_however_a_kernel_lies_in_memory(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    weight = random(shape, 0)
    turned = weight.contiguous(memory_format=layout)
    assert torch.equal(weight_to_matrix(turned), weight_to_matrix(weight))


def released_aggregate(weights: list[torch.Tensor], radius: float) -> list[torch.Tensor]:
    """PFA in its textbook form: whole complex transform, centred, band [c-b, c+b), real part."""
    spectra = [np.fft.fftshift(np.fft.fft2(weight_to_matrix(w).double().numpy())) for w in weights]
    amplitudes, phases = [np.abs(s) for s in spectra], [np.angle(s) for s in spectra]
    h, w = spectra[0].shape
    bh, bw = int(h * radius / 2), int(w * radius / 2)
    rows, columns = slice(h // 2 - bh, h // 2 + bh), slice(w // 2 - bw, w // 2 + bw)
    mean = np.mean([a[rows, columns] for a in amplitudes], axis=0)
    results = []
    for amplitude, phase, weight in zip(amplitudes, phases, weights, strict=True):
        amplitude[rows, columns] = mean
        mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real
        results.append(matrix_to_weight(torch.from_numpy(mixed), weight.shape))
    return results


@settings(max_examples=60, deadline=None)
@given(shapes, st.floats(0.05, 0.99), st.integers(1, 5), seeds)
def test_sharing_only_the_band_equals_the_whole_transform(
    shape: tuple[int, ...], radius: float, clients: int, seed: int
) -> None:
    """For any shape, 1-D to 3-D kernels, odd and even sides, any number of clients."""
    weights = [random(shape, seed + k) for k in range(clients)]
    bands = [low_frequencies(weight, radius) for weight in weights]
    expected = released_aggregate(weights, radius)
    for weight, band, whole in zip(weights, bands, expected, strict=True):
        mixed = weight
        if band is not None:
            mean = torch.stack([b.abs() for b in bands if b is not None]).mean(0)
            mixed = weight + from_low_frequencies(mean * unit_phase(band) - band, weight.shape)
        torch.testing.assert_close(mixed.double(), whole, atol=2e-5, rtol=0)


class Tiny(nn.Module):
    """Every kind of layer that aggregation meets: Conv1d to Conv3d, linear, norms, a bias."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv1d(3, 5, 3)
            self.conv2 = nn.Conv2d(4, 6, 3)
            self.conv3 = nn.Conv3d(2, 7, 3, bias=False)
            self.transposed = nn.ConvTranspose2d(3, 4, 2)
            self.bn = nn.BatchNorm2d(6)
            self.group = nn.GroupNorm(2, 6)
            self.layer = nn.LayerNorm(6)
            self.linear = nn.Linear(8, 5)
            for norm in (self.bn, self.group, self.layer):
                nn.init.normal_(norm.weight)


@pytest.mark.parametrize("phase", ["local", "mean", "complex"])
@given(st.integers(1, 4), st.floats(0, 0.99), seeds)
@settings(max_examples=15, deadline=None)
def test_pfa_of_identical_weights_changes_nothing(
    phase: str, clients: int, progress: float, seed: int
) -> None:
    pfa, network, mean = ProgressiveFourier(phase=phase), Tiny(seed), WeightedMean()  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for client in range(clients):
        mean.add(str(client), pfa.share(network, Exchange(progress)))
    pfa.merge(network, mean.result(), Exchange(progress))
    for name, tensor in network.state_dict().items():
        tolerance = 0 if phase == "local" and clients in (1, 2, 4) else 1e-5
        torch.testing.assert_close(tensor, before[name], atol=tolerance, rtol=0)


def test_pfa_keeps_normalisation_at_home_and_averages_the_rest() -> None:
    pfa, networks, mean = ProgressiveFourier(), [Tiny(0), Tiny(1)], WeightedMean()
    payloads = [pfa.share(network, Exchange()) for network in networks]
    assert not [name for name in payloads[0] if name.startswith(("bn", "group", "layer"))]
    assert payloads[0]["conv2.weight.amplitude"].shape == (9, 7)  # 12 x 18, half-widths 4 and 6
    for number, payload in enumerate(payloads):
        mean.add(str(number), payload)
    biases = [network.linear.bias.detach().clone() for network in networks]
    scales = [network.bn.weight.detach().clone() for network in networks]
    for network, scale in zip(networks, scales, strict=True):
        pfa.merge(network, mean.result(), Exchange())
        torch.testing.assert_close(network.linear.bias.detach(), (biases[0] + biases[1]) / 2)
        assert torch.equal(network.bn.weight, scale)


@pytest.mark.parametrize("phase", ["mean", "complex"])
def test_phase_variants_by_hand(phase: str) -> None:
    """A 4x4 weight with one frequency (1, 1) inside the band, at two clients."""
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    angles, amplitudes = (0.2, 1.0), (1.0, 3.0)
    wave = 2 * torch.pi / 4 * (x + y)
    networks = [nn.Linear(4, 4, bias=False) for _ in range(2)]
    for network, angle, size in zip(networks, angles, amplitudes, strict=True):
        network.weight.data = size * torch.cos(wave + angle)
    pfa, mean = ProgressiveFourier(phase=phase, start=0.95, end=0.95), WeightedMean()  # type: ignore[arg-type]
    for number, network in enumerate(networks):
        mean.add(str(number), pfa.share(network, Exchange()))
    before = [network.weight.detach().clone() for network in networks]
    pfa.merge(networks[0], mean.result(), Exchange())
    by_phase = {"mean": 2.0 * torch.cos(wave + 0.6), "complex": (before[0] + before[1]) / 2}
    target = by_phase[phase]
    # half-width floor(4 * 0.95 / 2) = 1: of the frequencies (1, 1) and (-1, -1) the released band
    # holds only the second, so the weight moves half of the way
    torch.testing.assert_close(
        networks[0].weight.detach(), (before[0] + target) / 2, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_where_there_is_no_amplitude_its_phase_is_zero(size: float) -> None:
    """A constant weight has amplitude at frequency zero alone, a weight of zeros none at all."""
    network, other = (nn.Sequential(nn.Linear(8, 6, bias=False)) for _ in range(2))
    nn.init.constant_(network[0].weight, size)
    pfa, exchange = ProgressiveFourier(), Exchange(0.5)
    mean = pfa.share(other, exchange)
    pfa.merge(network, mean, exchange)
    band = mean["0.weight.amplitude"].to(torch.complex64)
    own = torch.zeros_like(band)
    own[band.shape[0] // 2, 0] = size * 48  # the sum
    expected = size + from_low_frequencies(band - own, torch.Size([6, 8]))
    torch.testing.assert_close(network[0].weight.detach(), expected)


@pytest.mark.parametrize("side", [510, 512])
def test_small_and_large_matrices_have_the_same_band(side: int) -> None:
    """They are transformed in two ways; the limit lies between these."""
    weight = random((side, side), 0)
    assert (weight.numel() < SMALL) == (side == 510)
    band = low_frequencies(weight, 0.5)
    b = side // 4
    whole = torch.fft.rfft2(weight.double())[..., : b + 1].roll(b, 0)[: 2 * b + 1]
    assert band is not None
    torch.testing.assert_close(band.to(whole.dtype), whole, atol=2e-3, rtol=0)


def test_an_image_without_contrast_takes_the_amplitude_with_phase_zero() -> None:
    amplitude = torch.rand(3, 6, 4)
    made = normalise_amplitude(torch.zeros(2, 3, 6, 6), amplitude)
    torch.testing.assert_close(made, torch.fft.irfft2(amplitude, s=(6, 6)).expand(2, 3, 6, 6))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (0, 3, 4, 5), (2, 1, 4, 5), (2, 3, 4, 5, 6)])
def test_sums_of_channels_in_any_layout(shape: tuple[int, ...]) -> None:
    images = random(shape, 0)
    last = images.movedim(1, -1).contiguous().movedim(-1, 1)
    for one in (images, last, images.transpose(-1, -2)):
        torch.testing.assert_close(channel_sums(one), images.sum(tuple(range(2, len(shape)))))


def test_a_short_side_shares_nothing() -> None:
    network = nn.Linear(64, 2, bias=False)
    assert ProgressiveFourier().share(network, Exchange()) == {}


def test_band_grows_with_the_rounds() -> None:
    pfa = ProgressiveFourier(start=0.7, end=0.95)
    assert pfa.radius(0.0) == pytest.approx(0.7)
    assert pfa.radius(49 / 50) == pytest.approx(0.945)


@given(st.integers(2, 12), st.integers(2, 12), seeds)
@settings(max_examples=30, deadline=None)
def test_an_image_with_its_own_amplitude_comes_back(height: int, width: int, seed: int) -> None:
    image = random((1, 2, height, width), seed)
    amplitude = torch.fft.rfft2(image[0]).abs()
    torch.testing.assert_close(normalise_amplitude(image, amplitude), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius", [0.3, 0.7, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(41, 41), (12, 9), (9, 12), (5, 7, 6)])
def test_an_image_with_its_own_band_comes_back(shape: tuple[int, ...], radius: float) -> None:
    """Also where the band holds every frequency, in an order of its own."""
    layer = AmplitudeLayer((2, *shape), band=radius, momentum=0.1).train()
    image = random((1, 2, *shape), 4)
    torch.testing.assert_close(layer(image), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(8, 8), (9, 7), (8, 5), (4, 6, 5)])
def test_the_widest_band_is_full(shape: tuple[int, ...]) -> None:
    batch, image = random((4, 2, *shape), 1), random((1, 2, *shape), 2)
    full, widest = (AmplitudeLayer((2, *shape), band, 0.1).train() for band in ("full", 1.0))
    for layer in (full, widest):
        layer(batch)
        layer.eval()
    torch.testing.assert_close(widest(image), full(image), atol=1e-5, rtol=0)


def test_dc_is_the_full_normalisation_of_one_frequency() -> None:
    images = random((3, 2, 6, 5), 1)
    amplitude = torch.tensor([7.0, 2.0])
    spectrum = torch.fft.rfft2(images)
    own = spectrum[..., 0, 0]
    spectrum[..., 0, 0] = amplitude * unit_phase(own)
    expected = torch.fft.irfft2(spectrum, s=(6, 5))
    torch.testing.assert_close(normalise_mean(images, amplitude), expected)
    band = amplitude[:, None, None]  # a band of half-width 0 holds the zero frequency alone
    torch.testing.assert_close(normalise_band(images, band), expected)


@pytest.mark.parametrize("change", [1e-7, -1e-7])
def test_frequencies_that_an_image_does_not_have_get_phase_0(change: float) -> None:
    """And not that of rounding errors: a flat image is the same image with others of them."""
    flat = torch.full((1, 1, 16, 16), 0.3)
    checkered = 0.5 + 0.25 * torch.ones(1, 1, 16, 16)
    checkered[..., ::2, :] -= 0.5  # nothing but one frequency and the mean
    amplitude = torch.fft.rfft2(torch.rand(1, 16, 16)).abs()
    noise = change * torch.randn(1, 1, 16, 16, dtype=torch.float64)
    for images in (flat, checkered):
        other = (images.double() + noise).float() + change
        for common in (amplitude, take_band(amplitude, 3, 3)):
            harmonise = normalise_amplitude if common is amplitude else normalise_band
            one, two = harmonise(images, common), harmonise(other, common)
            assert torch.allclose(one, two, atol=1e-5)
