"""Draws the figures of the mathematics page with the functions that the methods use.

python docs/figures.py [FOLDER]
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from counterpoint import load
from counterpoint.aggregation import ProgressiveFourier
from counterpoint.data import decode
from counterpoint.data.batches import batches
from counterpoint.figures.save import save
from counterpoint.harmonise import AmplitudeLayer
from counterpoint.local import DeputyTransfer
from counterpoint.models import SlimVGG16
from counterpoint.perturbation import Perturbation
from counterpoint.spectrum import (
    add_to_band,
    half_width,
    low_frequencies,
    normalise_amplitude,
)

HERE = Path(__file__).parent / "figures"


def centred_mask(height: int, width: int, radius: float) -> Tensor:
    """Which share of each frequency's amplitude is averaged, zero frequency in the middle."""
    bh, bw = half_width(height, radius), half_width(width, radius)
    band = torch.ones(2 * bh + 1, bw + 1)
    band[0] = band[-1] = band[:, -1] = 0.5  # as `from_low_frequencies` has it
    band[0, -1] = 0
    half = add_to_band(torch.zeros(height, width // 2 + 1), band, axes=2)
    mirrored = half.flip(0).roll(1, 0).flip(1)[:, 1:-1] if width % 2 == 0 else None
    assert mirrored is not None, "even widths only"
    return torch.fft.fftshift(torch.cat([half, mirrored], dim=1))


def sent(radius: float) -> float:
    """Share of slim VGG16's convolution and linear weights that PFA sends."""
    weights = [p.detach() for p in SlimVGG16(num_classes=3).parameters() if p.dim() > 1]
    bands = [low_frequencies(weight, radius) for weight in weights]
    return sum(b.numel() for b in bands if b is not None) / sum(w.numel() for w in weights)


def pfa_band() -> Figure:
    """The band at the first round and in the end, and what is sent."""
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    first, last, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    pfa = ProgressiveFourier()
    for axes, radius in ((first, pfa.start), (last, pfa.end)):
        mask = centred_mask(24, 40, radius)
        axes.imshow(mask, cmap="Blues", vmin=0, vmax=1, extent=(-20, 20, 12, -12), aspect="auto")
        axes.set(title=f"averaged, r = {radius:g}", xlabel="frequency (columns)")
    first.set_ylabel("frequency (rows)")
    progress = np.linspace(0, 1, 30)
    radii = [pfa.radius(t) for t in progress]
    right.plot(progress, radii, label="r, side of the band")
    right.plot(progress, [sent(r) for r in radii], label="numbers sent, of all weights")
    right.set(xlabel="rounds played, of all", ylim=(0, 1), title="more of it as rounds go by")
    right.legend(frameon=False)
    return figure


def stages() -> Figure:
    """Stages of deputy-enhanced transfer for a deputy that learns, falls and learns again."""
    det = DeputyTransfer()
    deputy = [0.55, 0.62, 0.75, 0.84, 0.93, 0.95, 0.86, 0.92, 0.66, 0.74, 0.92, 0.96]
    stage, named = "", []
    for score in deputy:
        stage = det.next_stage(stage, 1.0, score)
        named.append(stage)
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots()
    colours = {"recover": "#f6d6c8", "exchange": "#e6e6f5", "sublimate": "#d3ecd9"}
    for epoch, stage in enumerate(named):
        first = stage not in named[:epoch]
        axes.axvspan(epoch - 0.5, epoch + 0.5, color=colours[stage], label=stage if first else None)
    axes.plot(deputy, "k.-", label="deputy's score / personal model's")
    for ratio in (det.exchange, det.sublimate):
        axes.axhline(ratio, color="grey", linestyle=":")
    axes.set(
        xlabel="local epoch",
        ylim=(0.5, 1),
        xlim=(-0.5, len(deputy) - 0.5),
        yticks=[0.5, det.exchange, 0.8, det.sublimate, 1.0],
    )
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def amplitudes() -> Figure:
    """Images of two sites of the phantom, as they are and with a common amplitude."""
    _, sites = decode(load("phantom", sites=["north", "south"]), 96)
    images, learnt = [], []
    for site in sites:
        layer = AmplitudeLayer((3, 96, 96), band="full", momentum=0.1).train()
        shown = [b.images for b in batches([site.part("train")], 16, torch.device("cpu"))]
        for batch in shown:
            layer(batch)
        images.append(shown[0])
        learnt.append(layer.amplitude)
    common = torch.stack(learnt).mean(dim=0)
    figure = Figure(figsize=(6.6, 2.6), layout="constrained")
    rows = figure.subplots(2, 6)
    for column in range(6):
        site, number = divmod(column, 3)
        image = images[site][number : number + 1]
        for axes, shown in zip(
            rows[:, column], (image, normalise_amplitude(image, common)), strict=True
        ):
            axes.imshow(shown[0].permute(1, 2, 0).clamp(0, 1))
            axes.set(xticks=[], yticks=[])
        rows[0, column].set_title(sites[site].name)
    rows[0, 0].set_ylabel("as it is")
    rows[1, 0].set_ylabel("common amplitude")
    return figure


def valleys(w: Tensor) -> Tensor:
    """A loss with a narrow valley at -1, the deeper one, and a wide one at 1."""
    return 1.2 - 1.1 * torch.exp(-((w + 1) ** 2) / 0.06) - torch.exp(-((w - 1) ** 2) / 0.8)


def perturbation() -> Figure:
    """A loss, and what it is at the weights where the second gradient is taken."""
    length = 0.12
    weights = torch.linspace(-1.6, 2.4, 800, requires_grad=True)
    (gradients,) = torch.autograd.grad(valleys(weights).sum(), weights)
    moved = [
        w + Perturbation(length).of([w], [g])[0]
        for w, g in zip(weights.detach(), gradients, strict=True)
    ]
    seen = valleys(torch.stack(moved))
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.plot(weights.detach(), valleys(weights).detach(), color="grey", label="loss")
    axes.plot(weights.detach(), seen, label=f"at perturbed weights, length {length:g}")
    axes.set(xlabel="weight", ylabel="loss")
    axes.legend(frameon=False, loc="lower right")
    return figure


FIGURES = {
    "pfa-band": pfa_band,
    "det-stages": stages,
    "amplitudes": amplitudes,
    "perturbation": perturbation,
}


def main(folder: Path = HERE) -> None:
    """Draw all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "counterpoint", "font.size": 9}):
        for name, draw in FIGURES.items():
            save(draw(), folder / name, ("png",))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
