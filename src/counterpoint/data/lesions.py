"""Draw made-up skin lesions: three kinds that differ in outline, texture and colours."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

KINDS = ("round", "scalloped", "irregular")

# How much red, green and blue light one unit of pigment takes away.
_BROWN = np.array([0.55, 0.95, 1.20])
_GREY = np.array([0.75, 0.90, 1.05])
_BLUE = np.array([1.25, 0.95, 0.60])
_BLOOD = np.array([0.15, 0.90, 0.75])


def band_noise(rng: np.random.Generator, size: int, low: float, high: float) -> Floats:
    """Return smooth noise (size, size), mean 0 and spread 1, of ``low`` to ``high`` waves."""
    waves = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(waves[:, None], waves[None, :])
    shape = np.exp(-((radius / high) ** 4)) * (1 - np.exp(-((radius / low) ** 4)))
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * shape).real
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9))


@dataclass(frozen=True)
class _View:
    """Where every pixel lies as seen from the lesion's centre: distance and angle."""

    distance: Floats
    angle: Floats
    x: Floats
    y: Floats


def draw(
    kind: str, lesion_seed: list[int], view_seed: list[int], size: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return an image (size, size, 3) in 0 to 1 and the lesion's mask (size, size).

    Two images of one lesion share ``lesion_seed`` and differ in ``view_seed``: place, turn,
    light and hairs.
    """
    rng, view_rng = np.random.default_rng(lesion_seed), np.random.default_rng(view_seed)
    view = _look(view_rng, size)
    inside, edge = _outline(kind, rng, view)
    pigment = _pigment(kind, rng, view, inside, size) * edge[..., None]
    tone = rng.uniform(0.0, 0.25)  # of the skin: pinker to browner
    skin = np.array([0.93, 0.76, 0.67]) * np.exp(-tone * _BROWN)
    mottle = 0.03 * band_noise(view_rng, size, 1, 5) + 0.015 * band_noise(view_rng, size, 10, 30)
    image = skin * np.exp(mottle)[..., None] * np.exp(-pigment)
    image *= view_rng.uniform(0.92, 1.05)
    return np.clip(_hairs(view_rng, image), 0, 1), inside > 0


def _look(rng: np.random.Generator, size: int) -> _View:
    """Return a view from a random place, turn and distance."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    dx, dy = rng.uniform(-0.16, 0.16, size=2)
    zoom, turn = rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi)
    across, down = np.meshgrid(axis - dx, axis - dy)
    x = (across * np.cos(turn) + down * np.sin(turn)) * zoom
    y = (down * np.cos(turn) - across * np.sin(turn)) * zoom
    return _View(np.hypot(x, y), np.arctan2(y, x), x, y)


def _outline(kind: str, rng: np.random.Generator, view: _View) -> tuple[Floats, Floats]:
    """Return how far inside the lesion every pixel is, and its soft edge (0 outside, 1 inside)."""
    radius = rng.uniform(0.38, 0.62)
    stretch = rng.uniform(0.0, 0.12)
    wave = stretch * np.cos(2 * (view.angle - rng.uniform(0, np.pi)))
    if kind == "round":
        for waves in (3, 4):
            wave += rng.uniform(0, 0.04) * np.cos(waves * view.angle + rng.uniform(0, 6))
        softness = rng.uniform(0.03, 0.08)
    elif kind == "scalloped":
        lobes = rng.integers(6, 10)
        depth = rng.uniform(0.06, 0.19)
        wave += depth * (np.abs(np.sin(lobes * view.angle / 2 + rng.uniform(0, 6))) - 0.64)
        softness = rng.uniform(0.015, 0.05)
    else:
        radius *= 1.05
        for waves in (1, 2, 3, 4, 5, 7):
            depth = rng.uniform(0.03, 0.24) / np.sqrt(waves)
            wave += depth * np.cos(waves * view.angle + rng.uniform(0, 2 * np.pi))
        softness = rng.uniform(0.02, 0.07)
    inside = radius * np.maximum(1 + wave, 0.25) - view.distance
    return inside, 1 / (1 + np.exp(-np.clip(inside / softness * 2, -30, 30)))


def _pigment(kind: str, rng: np.random.Generator, view: _View, inside: Floats, size: int) -> Floats:
    """Return the light that the lesion takes away at every pixel, (size, size, 3)."""
    strength = rng.uniform(0.4, 1.0)  # how typical the lesion is of its kind
    if kind == "round":
        net = np.maximum(band_noise(rng, size, 9, 13), 0)
        clouds = 0.15 * strength * band_noise(rng, size, 1, 4)
        amount = rng.uniform(0.5, 1.2) * (0.85 + 0.5 * np.clip(inside, 0, 1) + clouds) + 0.12 * net
        return np.asarray(np.maximum(amount, 0.1)[..., None] * _BROWN)
    if kind == "scalloped":
        folds = strength * band_noise(rng, size, 4, 8)
        amount = np.maximum(rng.uniform(0.5, 1.0) + 0.28 * folds, 0.08)
        amount += 1.1 * strength * _dots(rng, view, int(rng.integers(5, 13)), 0.04)
        amount *= 1 - 0.85 * _dots(rng, view, int(rng.integers(6, 15)), 0.045)
        return np.asarray(amount[..., None] * (_GREY if rng.random() < 0.4 else _BROWN))
    clouds = band_noise(rng, size, 0.7, 3)
    amount = np.maximum(rng.uniform(0.7, 1.4) + 0.5 * strength * clouds, 0.15)
    light = amount[..., None] * _BROWN
    for colour, most in ((_BLUE, 1.3), (_BLOOD, 1.0), (_BROWN, 1.6)):
        blotch = _dots(rng, view, 1 + int(rng.integers(0, 2)), rng.uniform(0.14, 0.26), 0.4)
        light = light + most * strength * blotch[..., None] * colour
    scar = _dots(rng, view, int(rng.integers(0, 2)), rng.uniform(0.10, 0.16), 0.35)
    return np.asarray(light * (1 - 0.7 * scar[..., None]))


def _dots(
    rng: np.random.Generator, view: _View, count: int, width: float, reach: float = 0.5
) -> Floats:
    """Return soft dots, 0 to 1, at random places not further than ``reach`` from the centre."""
    total = np.zeros_like(view.x)
    for _ in range(count):
        far, turn = reach * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        squared = (view.x - far * np.cos(turn)) ** 2 + (view.y - far * np.sin(turn)) ** 2
        total = np.maximum(total, np.exp(-squared / (2 * width**2)))
    return total


def _hairs(rng: np.random.Generator, image: Floats) -> Floats:
    """Return the image with up to four thin dark hairs, each an arc across it."""
    size = len(image)
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis, axis)
    for _ in range(max(0, int(rng.integers(-3, 5)))):
        turn, bend, shift = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5), rng.uniform(-0.9, 0.9)
        along, off = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        hair = np.exp(-(((off - shift - bend * along**2) / 0.014) ** 2)) * (
            along > rng.uniform(-1, 0)
        )
        image = image * (1 - 0.65 * hair[..., None])
    return image
