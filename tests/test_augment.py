"""Augmentation of single images: what each change does to the pixels."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from counterpoint.data.augment import AUGMENTATIONS, brightness, gaussian_blur, median_blur, noise


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 5), st.integers(0, 2**31))
def test_the_median_is_the_fifth_of_nine(height: int, width: int, levels: int, seed: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    if levels:  # many equal pixels
        images = (images * levels).round() / levels
    nine = F.unfold(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3).view(2, 3, 9, height, width)
    assert torch.equal(median_blur(images), nine.sort(2).values[:, :, 4])


def test_gaussian_blur_spreads_a_point() -> None:
    """exp(-d^2 / (2 * 1.1^2)) along each axis: 1, 0.6615 and 0.1914, divided by their sum."""
    point = torch.zeros(1, 1, 9, 9)
    point[0, 0, 4, 4] = 1
    weights = [math.exp(-(d**2) / 2.42) for d in range(-2, 3)]
    profile = torch.tensor(weights) / sum(weights)
    found = gaussian_blur(point, sigma=1.1)[0, 0]
    torch.testing.assert_close(found[2:7, 2:7], profile[:, None] * profile)
    assert torch.allclose(gaussian_blur(torch.full((1, 3, 6, 5), 0.25), 1.1), torch.tensor(0.25))


def test_brightness_moves_whole_images_and_stays_in_range() -> None:
    images = torch.full((500, 1, 2, 2), 0.9)
    moved = brightness(images, torch.Generator().manual_seed(0), limit=0.2, p=0.75)
    assert torch.equal(moved.amin((1, 2, 3)), moved.amax((1, 2, 3)))
    assert moved.max() == 1
    assert 0.7 <= moved.min() < 0.75
    assert 0.65 < (moved[:, 0, 0, 0] != images[:, 0, 0, 0]).float().mean() < 0.85


def test_noise_has_the_variance_that_is_asked_for() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    added = noise(grey, torch.Generator().manual_seed(0), low=16.0, high=16.0) - grey
    assert abs(added.std().item() * 255 - 4) < 0.1
    assert abs(added.mean().item()) < 1e-3


def test_the_same_generator_draws_the_same() -> None:
    images = torch.rand(8, 3, 16, 16)
    for augment in AUGMENTATIONS.values():
        once, again = (augment(images, None, torch.Generator().manual_seed(3))[0] for _ in range(2))
        assert torch.equal(once, again)
        assert once.shape == images.shape
        assert once.min() >= 0
        assert once.max() <= 1
