"""Make the built-in data set: made-up skin lesions as four sites' scanners would show them."""

import csv
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from counterpoint.data.files import part_of, unwritable
from counterpoint.data.lesions import KINDS, Floats, band_noise, draw

_VERSION = "phantom-1"  # names the folder: raise it when images come out differently
_AGAIN = 6  # one image in so many is the second one of its patient


@dataclass(frozen=True)
class Scanner:
    """How a site's camera renders a scene.

    ``gains`` multiply red, green and blue; ``gamma`` above 1 darkens; ``contrast`` below 1 is
    flat; ``blur`` is in pixels at size 96; ``vignette`` is the light lost in the corners; ``noise``
    is the spread (of 0 to 1) of noise whose spectrum is "white", "1/f" or "banded".
    """

    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    blur: float
    vignette: float
    noise: float
    spectrum: str


@dataclass(frozen=True)
class _SitePlan:
    """A site's number of images, shares of the three kinds, and scanner."""

    images: int
    shares: tuple[float, float, float]
    scanner: Scanner


_SITES = {
    "north": _SitePlan(
        260, (0.60, 0.23, 0.17), Scanner((1.0, 0.97, 0.95), 1.0, 1.0, 0.0, 0.05, 0.02, "white")
    ),
    "east": _SitePlan(
        200, (0.66, 0.18, 0.16), Scanner((0.86, 0.84, 1.16), 0.85, 0.70, 1.1, 0.10, 0.035, "1/f")
    ),
    "south": _SitePlan(
        150, (0.50, 0.22, 0.28), Scanner((1.10, 0.88, 0.64), 1.10, 1.10, 0.4, 0.50, 0.025, "white")
    ),
    "west": _SitePlan(
        110, (0.56, 0.26, 0.18), Scanner((0.82, 1.06, 0.84), 1.0, 0.85, 0.3, 0.20, 0.04, "banded")
    ),
}


def write_phantom(
    folder: str | os.PathLike[str], *, size: int = 96, scale: float = 1.0, seed: int = 0
) -> Path:
    """Write four site folders with images, masks and labels.csv; return ``folder``.

    Images are RGB PNG of ``size`` x ``size``, masks 1-bit PNG. ``scale`` multiplies the number of
    images (721 in all), but each site has at least four of each kind. The same arguments give the
    same pixels.
    """
    for place, (name, plan) in enumerate(_SITES.items()):
        _write_site(Path(folder) / name, plan, size, scale, [seed, place])
    return Path(folder)


def phantom_folder(cache: Path) -> Path:
    """Return the built-in data set's folder in the cache, after making it on first use.

    It is made under another name and renamed, so that several processes may do this at once.
    Raises DataError if the cache can't be written.
    """
    folder = cache / _VERSION
    if folder.is_dir():
        return folder
    temporary = part_of(folder)
    try:
        write_phantom(temporary)
        os.rename(temporary, folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was first, and its folder is as good
            raise unwritable(cache, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write_site(folder: Path, plan: _SitePlan, size: int, scale: float, seed: list[int]) -> None:
    """Write one site's images, masks and labels.csv."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (kind, patient) in enumerate(_patients(plan, scale, seed)):
        scene, mask = draw(KINDS[kind], [*seed, 1, patient], [*seed, 2, number], size)
        pixels = render(scene, plan.scanner, np.random.default_rng([*seed, 3, number]))
        image, outline = f"images/{number:04d}.png", f"masks/{number:04d}.png"
        Image.fromarray(pixels).save(folder / image)
        Image.fromarray(mask).save(folder / outline)
        rows.append([image, outline, KINDS[kind], f"{folder.name}-{patient:04d}"])
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "label", "group"], *rows])


def _patients(plan: _SitePlan, scale: float, seed: list[int]) -> list[tuple[int, int]]:
    """Return (kind, patient) of every image, in random order."""
    images = []
    patient = 0
    for kind, share in enumerate(plan.shares):
        for number in range(max(4, round(plan.images * share * scale))):
            patient += (number + 1) % _AGAIN > 0
            images.append((kind, patient))
    order = np.random.default_rng([*seed, 0]).permutation(len(images))
    return [images[i] for i in order]


def render(scene: Floats, scanner: Scanner, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a scene (size, size, 3) in 0 to 1 as the scanner's 8-bit image."""
    size = len(scene)
    image = _blur(scene, scanner.blur * size / 96)
    image = np.clip(image, 1e-3, None) ** scanner.gamma
    image = 0.6 + (image - 0.6) * scanner.contrast
    image = image * np.array(scanner.gains) * (1 + rng.normal(0, 0.02, size=3))
    axis = np.linspace(-1, 1, size)
    corner = (axis[:, None] ** 2 + axis[None, :] ** 2) / 2
    image = image * (1 - scanner.vignette * corner**1.5)[..., None]
    image = image + scanner.noise * _noise(scanner.spectrum, size, rng)
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255), dtype=np.uint8)


def _blur(image: Floats, spread: float) -> Floats:
    """Return an image blurred by a Gaussian of ``spread`` pixels; edges are mirrored."""
    if spread <= 0:
        return image
    reach = int(np.ceil(3 * spread))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * spread**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        widths = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, widths, mode="symmetric")
        length = image.shape[axis]
        image = sum(
            weight * np.take(padded, range(start, start + length), axis=axis)
            for start, weight in enumerate(kernel)
        )
    return image


def _noise(spectrum: str, size: int, rng: np.random.Generator) -> Floats:
    """Return noise (size, size, 3) of mean 0 and spread about 1."""
    if spectrum == "white":
        return rng.normal(size=(size, size, 3))
    if spectrum == "1/f":
        waves = np.fft.fftfreq(size, 1 / size)
        radius = np.maximum(np.hypot(waves[:, None], waves[None, :]), 1)[..., None]
        noise = np.fft.ifft2(
            np.fft.fft2(rng.normal(size=(size, size, 3)), axes=(0, 1)) / radius, axes=(0, 1)
        ).real
        return np.asarray(noise / noise.std())
    rows = np.arange(size)[:, None, None] / size
    bands = np.sin(2 * np.pi * (14 * rows + rng.random())) + rng.normal(0, 0.5, size=(size, 1, 1))
    return np.asarray(bands + 0.3 * band_noise(rng, size, 5, 40)[..., None])
