"""Amplitude spectra of the hospitals' images, before and after they are given a common one."""

import numpy as np
import torch
from torch import Tensor

from counterpoint.figures.spectra import Spectrum, draw_spectra, radial_profile
from counterpoint.report.page.blocks import Block, Entry, Section, Table, Text
from counterpoint.report.page.images import Source
from counterpoint.report.page.pictures import pictures
from counterpoint.report.page.runs import Arm, Study
from counterpoint.report.page.svg import Mark

MOST = 200
"""Training images of a site that a spectrum is made of."""


def spectra(study: Study) -> Section:
    """Profiles before, and after where a method has amplitude normalisation."""
    harmonised = [a for a in study.arms if a.first.settings.get("harmonise.kind") == "amplitude"]
    arm = harmonised[0] if harmonised else study.main
    title = "Amplitude spectra"
    images = Source(arm.first).opened
    if isinstance(images, str):
        return Section("spectra", title, [Text(f"Left out: {images}.", "small")])
    samples = {site: images.training(site, MOST) for site in study.training_sites}
    before = _profiles(samples)
    panels = {"As the hospitals took them": before}
    text = (
        "A spectrum says how much of the contrast of a hospital's training images is in coarse "
        "structure (left) and in fine detail and noise (right). Hospitals whose lines lie apart "
        "have images that look different to a network. "
        f"On average over the frequencies, the hospitals differ {_apart(before)}"
    )
    if harmonised:
        after = _profiles(_harmonised(arm, samples))
        panels[f"As the network of {arm.label} sees them"] = after
        text += f" before amplitude normalisation, and {_apart(after)} after it"
    else:
        text += "; no method here gives the images a common amplitude (HarmoFL does)"
    return Section("spectra", title, [Text(f"{text}."), _figure(study, panels)])


def _profiles(samples: dict[str, Tensor]) -> list[Spectrum]:
    return [
        Spectrum(site, number, *radial_profile(images))
        for number, (site, images) in enumerate(samples.items())
    ]


@torch.inference_mode()
def _harmonised(arm: Arm, samples: dict[str, Tensor]) -> dict[str, Tensor]:
    """The images as the arm's models harmonise them."""
    result = arm.first.result
    return {site: result.model(site).harmonise(images) for site, images in samples.items()}


def _apart(profiles: list[Spectrum]) -> str:
    """How far the profiles are spread, as a factor of amplitude."""
    table = np.stack([profile.values for profile in profiles])
    factor = 10 ** float((table.max(0) - table.min(0)).mean())
    return "by less than 1 %" if factor < 1.01 else f"by a factor of {factor:.2f}"


def _figure(study: Study, panels: dict[str, list[Spectrum]]) -> Block:
    def marks(title: str, profiles: list[Spectrum]) -> list[Mark]:
        found = []
        for one in profiles:
            step = max(1, len(one.values) // 16)
            tips = [
                f"{one.label}: {value:.2f} at {frequency:.3g} cycles a pixel"
                for frequency, value in zip(one.frequencies, one.values, strict=True)
            ][::step]
            found.append(Mark(f"site-{one.number}", tips))
        return found

    def words(title: str, profiles: list[Spectrum]) -> str:
        return f"{title}: mean log10 amplitude against spatial frequency. Spread {_apart(profiles)}"

    def table(title: str, profiles: list[Spectrum]) -> Table:
        places = range(0, len(profiles[0].values), max(1, len(profiles[0].values) // 12))
        rows = [
            [f"{profiles[0].frequencies[at]:.3g}", *(f"{one.values[at]:.2f}" for one in profiles)]
            for at in places
        ]
        return Table(f"{title}: mean log10 amplitude", ["Frequency", *samples], rows)

    samples = [one.label for one in next(iter(panels.values()))]
    # colours begin where those of `pen` do
    legend = [Entry(f"site-{number}", site, number + 1) for number, site in enumerate(samples)]

    return pictures("spectra", panels, draw_spectra, marks, words, table, legend=legend)
