"""Augmentation of single images: what each change does to the pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from counterpoint.data.augment import (
    AUGMENTATIONS,
    blur_or_noise,
    brightness,
    gaussian_blur,
    median_blur,
    noise,
    prrfl,
    shift_scale_rotate,
)
from counterpoint.data.batches import batches
from counterpoint.data.site import Part


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


def test_of_ten_images_three_stay_and_the_others_are_blurred_or_noisy_alike() -> None:
    images = torch.rand(600, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    found = blur_or_noise(images, torch.Generator().manual_seed(0), p=0.7)
    assert torch.equal(images, before)
    known = [images, median_blur(images), gaussian_blur(images, 1.1)]
    same = [torch.isclose(found, one, atol=1e-5).flatten(1).all(1) for one in known]
    same.append(~torch.stack(same).any(0))  # noise
    shares = [one.float().mean().item() for one in same]
    assert shares == pytest.approx([0.3, 0.7 / 3, 0.7 / 3, 0.7 / 3], abs=0.06)


def moved(image: Tensor, shift: float = 0.0, scale: float = 0.0, degrees: float = 0.0) -> Tensor:
    """300 draws of a move of an image (S, S)."""
    images, generator = image.expand(300, 1, *image.shape), torch.Generator().manual_seed(0)
    return shift_scale_rotate(images, None, generator, shift, scale, degrees, p=1.0)[0][:, 0]


def test_images_move_both_ways_and_each_axis_by_itself() -> None:
    """A point, by up to a tenth of 40 pixels."""
    image, places = torch.zeros(40, 40), torch.arange(40.0)
    image[20, 20] = 1
    found = moved(image, shift=0.1)
    ways = [(found.sum(axis) @ places / found.sum((1, 2)) - 20).numpy() for axis in (1, 2)]
    for way in ways:
        assert [way.min(), way.max()] == pytest.approx([-4, 4], abs=0.2)
    assert abs(np.corrcoef(*ways)[0, 1]) < 0.2


def test_images_grow_and_shrink() -> None:
    """A disc with a radius of 10 pixels, by up to a tenth."""
    places = torch.arange(41.0) - 20
    disc = ((places[:, None] ** 2 + places**2) < 100).float()
    zoom = (moved(disc, scale=0.1).sum((1, 2)) / disc.sum()).sqrt()
    assert [zoom.min().item(), zoom.max().item()] == pytest.approx([0.9, 1.1], abs=0.02)


def test_images_turn_both_ways_by_degrees() -> None:
    """A bar, by up to 15; its angle follows from the second moments."""
    bar, places = torch.zeros(41, 41), torch.arange(41.0) - 20
    bar[20, 5:36] = 1
    found = moved(bar, degrees=15)
    xx, xy, yy = (
        (found * moment).sum((1, 2))
        for moment in (places**2, places[:, None] * places, places[:, None] ** 2)
    )
    angle = torch.rad2deg(torch.atan2(2 * xy, xx - yy) / 2)
    assert [angle.min().item(), angle.max().item()] == pytest.approx([-15, 15], abs=0.5)


def test_prrfl_moves_images_as_far_and_as_often_as_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, float] = {}

    def look(images: Tensor, masks: None, generator: torch.Generator, **how: float) -> object:
        seen.update(how)
        return images, masks

    monkeypatch.setattr("counterpoint.data.augment.shift_scale_rotate", look)
    prrfl(torch.rand(2, 1, 8, 8), None, torch.Generator())
    assert seen == {"shift": 0.1, "scale": 0.1, "degrees": 15, "p": 0.85}


def test_a_batch_without_images_needs_no_augmentation() -> None:
    """As they come where batches are drawn by chance."""
    numbers = np.arange(2)
    part = Part(np.zeros((2, 1, 4, 4), np.uint8), rows=numbers, labels=numbers, cases=numbers)
    none = [np.zeros(0, np.int64)]
    (batch,) = batches(
        [part], 2, torch.device("cpu"), order=torch.Generator(), augment=prrfl, samples=none
    )
    assert batch.images.shape == (0, 1, 4, 4)


def test_the_same_generator_draws_the_same() -> None:
    images = torch.rand(8, 3, 16, 16)
    for augment in AUGMENTATIONS.values():
        once, again = (augment(images, None, torch.Generator().manual_seed(3))[0] for _ in range(2))
        assert torch.equal(once, again)
        assert once.shape == images.shape
        assert once.min() >= 0
        assert once.max() <= 1


def test_masks_go_with_their_images_in_a_mixed_order() -> None:
    numbers = np.arange(12)
    masks = np.random.default_rng(0).integers(0, 2, (12, 5, 5)).astype(np.uint8)
    part = Part(255 * masks[:, None], numbers, numbers, numbers + 100, masks)
    still, moved = (
        list(
            batches(
                [part],
                5,
                torch.device("cpu"),
                order=torch.Generator().manual_seed(3),
                augment=augment,
            )
        )
        for augment in (None, AUGMENTATIONS["flips"])
    )
    cases = torch.cat([batch.cases for batch in still]) - 100
    assert sorted(cases.tolist()) == numbers.tolist() != cases.tolist()
    for case, mask in zip(cases, torch.cat([batch.target for batch in still]), strict=True):
        assert (mask.numpy() == masks[case]).all()
    for batch in (*still, *moved):
        assert torch.equal(batch.images[:, 0], batch.target.float())
    assert not torch.equal(moved[0].target, still[0].target)
