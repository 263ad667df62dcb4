"""The functions that a round is made of, each against the least that it could cost."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Times, arguments, side_by_side, table, write
from benchmarks.naive.prrfl import back, band, transform
from counterpoint.aggregation import Exchange, ProgressiveFourier
from counterpoint.data.batches import batches
from counterpoint.data.site import SiteData
from counterpoint.harmonise import AmplitudeLayer
from counterpoint.layers import spectral_weights
from counterpoint.local import DeputyTransfer, Training
from counterpoint.models.densenet121 import DenseNet121
from counterpoint.models.slim_vgg16 import SlimVGG16
from counterpoint.models.unet import UNet
from counterpoint.perturbation import Perturbation, perturbed_gradient
from counterpoint.spectrum import weight_to_matrix
from counterpoint.tasks import Classification

Sides = dict[str, Callable[[], object]]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "slim VGG16": lambda: SlimVGG16(3),
    "DenseNet121": lambda: DenseNet121(2),
    "U-Net": lambda: UNet(3, 2),
}


def aggregation(network: nn.Module) -> Sides:
    """PFA at one client, the bare real transforms of its weights, and the naive transform."""
    pfa, exchange = ProgressiveFourier(), Exchange(0.5)
    spectral = spectral_weights(network)
    weights = [p.detach() for name, p in network.named_parameters() if name in spectral]
    # Nothing changes in the network from turn to turn: the mean is the client's own.
    mean = pfa.share(network, exchange)

    def share_and_merge() -> None:
        pfa.share(network, exchange)
        pfa.merge(network, mean, exchange)

    def bare() -> None:
        for weight in weights:
            matrix = weight_to_matrix(weight)
            torch.fft.irfft2(torch.fft.rfft2(matrix), s=matrix.shape)

    return {
        "share + merge": share_and_merge,
        "bare": bare,
        "naive": lambda: [naive_pfa(weight) for weight in weights],
    }


def naive_pfa(weight: Tensor) -> Tensor:
    """One client's part of a layer as released: NumPy, complex128, the whole plane.

    A client is transformed twice: for the mean over all clients, and to be given it.
    """
    (mean, _), (amplitude, phase) = transform(weight), transform(weight)
    places = band(amplitude.shape, 0.825)
    amplitude[places] = mean[places]
    return back((amplitude, phase), weight)


def amplitude(kind: str, shape: tuple[int, ...]) -> Sides:
    """Amplitude normalisation in training, against the least that such a band needs."""
    images = torch.rand(shape).to(memory_format=torch.channels_last)
    layer = AmplitudeLayer(shape[1:], kind, 0.1)  # type: ignore[arg-type]
    layer.train()(images)
    frozen = copy.deepcopy(layer).eval()
    frozen.freeze()

    def bare() -> Tensor:
        if kind == "dc":
            return images + 0.5  # one read and one write
        return torch.fft.irfft2(torch.fft.rfft2(images), s=images.shape[2:])

    return {"frozen": lambda: frozen(images), "first round": lambda: layer(images), "bare": bare}


def perturbation(network: nn.Module, images: Tensor, target: Tensor) -> Sides:
    """A step with weight perturbation against two forward-backward passes and a step."""
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(network(images), target)

    def bare() -> None:
        for _ in range(2):
            optimizer.zero_grad()
            loss().backward()
        optimizer.step()

    def step() -> None:
        perturbed_gradient(network, loss(), loss, Perturbation(0.05))
        optimizer.step()

    return {"perturbed step": step, "bare": bare}


def deputy(folder: Path, images: int) -> Sides:
    """An epoch of DET, the stage's scores among it, against two models on shared batches.

    The bare side trains two models on the cross-entropy alone, and then passes the images through
    both once more, as the stage asks.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 64, 64), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    numbers = np.arange(images)
    site = SiteData(
        "A", folder / "images.npy", numbers % 3, np.array(["train"] * images), numbers, numbers
    )
    parts = [site.part("train")]
    cpu = torch.device("cpu")

    def training() -> Training:
        models = {
            role: SlimVGG16(3).to(memory_format=torch.channels_last)
            for role in DeputyTransfer.roles
        }
        return Training(
            models=models,
            optimizers={r: torch.optim.SGD(m.parameters(), lr=1e-3) for r, m in models.items()},
            task=Classification(("a", "b", "c")),
            batches=lambda: (
                (batch.images, batch.target)
                for batch in batches(parts, 16, cpu, order=torch.Generator().manual_seed(1))
            ),
            plain_batches=lambda: batches(parts, 64, cpu),
            epochs=2,
        )

    det, mine, bare = DeputyTransfer(), training(), training()

    def epochs_of_det() -> None:
        for _ in det.train(mine):  # two epochs, the second with a stage
            pass

    def bare_epochs() -> None:
        for epoch in range(2):
            if epoch:
                with torch.inference_mode():
                    for batch in batches(parts, 64, cpu):
                        for model in bare.models.values():
                            model.eval()(batch.images)
                for model in bare.models.values():
                    model.train()
            for images, target in bare.batches():
                for role, model in bare.models.items():
                    bare.optimizers[role].zero_grad()
                    nn.functional.cross_entropy(model(images), target).backward()
                    bare.optimizers[role].step()

    return {"DET": epochs_of_det, "bare": bare_epochs}


def row(what: str, side: str, times: dict[str, Times], against: str, target: str) -> list[object]:
    """One line of the table."""
    one, other = times[side], times[against]
    return [
        what,
        side,
        f"{one.median * 1e3:.2f}",
        f"{other.median * 1e3:.2f}",
        f"{one.ratio(other):.2f}",
        f"{one.ratio(other, 'processor'):.2f}",
        target,
    ]


def main() -> None:
    """Measure all of it."""
    chosen = arguments(__doc__)
    turns = 5 if chosen.quick else 31
    rows: list[list[object]] = []
    for name, make in NETWORKS.items():
        times = side_by_side(aggregation(make().to(memory_format=torch.channels_last)), turns)
        rows.append(row(f"PFA, {name}", "share + merge", times, "bare", "at most 3"))
        rows.append(row(f"PFA, {name}", "naive", times, "share + merge", "at least 12"))
    for kind, target in (("dc", "at most 2"), ("full", "at most 2")):
        for shape in ((128, 3, 96, 96), (16, 3, 384, 384)):
            times = side_by_side(amplitude(kind, shape), turns)
            what = f"amplitude {kind}, {'x'.join(map(str, shape))}"
            rows.append(row(what, "frozen", times, "bare", target))
            rows.append(row(what, "first round", times, "bare", ""))
    few = 3 if chosen.quick else 15
    works = {
        "slim VGG16 128x128, batch 16": (SlimVGG16(3), (16, 3, 128, 128), (16,)),
        "DenseNet121 96x96, batch 16": (DenseNet121(2), (16, 3, 96, 96), (16,)),
        "U-Net 128x128, batch 4": (UNet(3, 2), (4, 3, 128, 128), (4, 128, 128)),
    }
    for name, (network, size, labels) in works.items():
        images = torch.rand(size).to(memory_format=torch.channels_last)
        times = side_by_side(perturbation(network, images, torch.randint(2, labels)), few)
        rows.append(row(f"perturbation, {name}", "perturbed step", times, "bare", "at most 1.05"))
    with tempfile.TemporaryDirectory() as folder:
        times = side_by_side(deputy(Path(folder), 64 if chosen.quick else 256), few)
    rows.append(row("two DET epochs, slim VGG16 64x64", "DET", times, "bare", ""))
    head = ["what", "side", "ms", "ms it is held against", "ratio", "ratio of CPU time", "wanted"]
    write("functions", "Functions against the least that they could cost", table(head, rows))


if __name__ == "__main__":
    main()
