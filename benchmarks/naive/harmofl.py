"""HarmoFL as a first implementation does it, from the description of how the released code works.

Images pass the network's amplitude normalisation one by one, through NumPy's complex128 transform,
in both forward passes of a step and in every evaluation; only the zero frequency is replaced.
Every image is decoded in every epoch and augmented alone; eager float32, one client after another.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.naive.images import Listed, loader
from counterpoint.models.densenet121 import DenseNet121

Batches = Callable[[Listed, np.random.Generator | None], Iterator[tuple[Tensor, Tensor]]]


@dataclass
class Work:
    """What is learnt: a network, its optimiser, how images come, the loss and the score."""

    network: nn.Module
    optimizer: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
    batches: Batches
    """Of some images, shuffled and augmented where there is a generator."""
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    """Of the classes that were found, and of those that are right."""


class Normalised(nn.Module):
    """A network behind amplitude normalisation, image by image; the first batch sets it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.amplitude: np.ndarray | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in -1..1, which are normalised in 0..1 as the library's are."""
        done = []
        for image in (images / 2 + 0.5).numpy().astype(np.float64):
            spectrum = np.fft.fft2(image, axes=(-2, -1))
            amplitude, phase = np.abs(spectrum), np.angle(spectrum)
            if self.amplitude is None:
                first = (images / 2 + 0.5).numpy().astype(np.float64)
                self.amplitude = np.abs(np.fft.fft2(first, axes=(-2, -1))).mean(0)
            amplitude = np.fft.fftshift(amplitude, axes=(-2, -1))
            shared = np.fft.fftshift(self.amplitude, axes=(-2, -1))
            row, column = (side // 2 for side in amplitude.shape[-2:])
            amplitude[:, row, column] = shared[:, row, column]
            amplitude = np.fft.ifftshift(amplitude, axes=(-2, -1))
            rebuilt = np.fft.ifft2(amplitude * np.exp(1j * phase), axes=(-2, -1))
            done.append(np.real(rebuilt).astype(np.float32))
        output: Tensor = self.network(torch.from_numpy(np.stack(done)) * 2 - 1)
        return output


def perturbed_step(
    model: Normalised,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """Two passes and a step, weight by weight."""
    optimizer.zero_grad()
    loss(model(images), target).backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    norm = torch.norm(torch.stack(norms))
    moved = []
    with torch.no_grad():
        for p in model.parameters():
            delta = torch.zeros_like(p) if p.grad is None else 0.05 * p.grad / (norm + 1e-12)
            p.add_(delta)
            moved.append(delta)
    optimizer.zero_grad()
    loss(model(images), target).backward()
    with torch.no_grad():
        for p, delta in zip(model.parameters(), moved, strict=True):
            p.sub_(delta)
    optimizer.step()


@torch.no_grad()
def score(model: nn.Module, work: Work, images: Listed) -> float:
    """The score on some images."""
    model.eval()
    found, wanted = [], []
    for batch, target in work.batches(images, None):
        found.append(model(batch).argmax(1))
        wanted.append(target)
    model.train()
    return work.score(torch.cat(found), torch.cat(wanted))


def federate(
    work: Work, images: list[dict[str, Listed]], rounds: int, epochs: int, seed: int
) -> float:
    """Train; the mean test score of the global model in the end."""
    rng = np.random.default_rng(seed)
    for layer in work.network.modules():  # as released: no running statistics
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    models = [Normalised(copy.deepcopy(work.network)) for _ in images]
    optimizers = [work.optimizer(model.parameters()) for model in models]
    for round in range(rounds):
        for model, optimizer, site in zip(models, optimizers, images, strict=True):
            for _ in range(epochs):
                for batch, target in work.batches(site["train"], rng):
                    perturbed_step(model, optimizer, batch, target, work.loss)
        with torch.no_grad():
            for weights in zip(*(m.parameters() for m in models), strict=True):
                mean = torch.stack(weights).mean(0)
                for weight in weights:
                    weight.copy_(mean)
        if round == 0:
            mean_amplitude = np.mean([np.asarray(model.amplitude) for model in models], axis=0)
            for model in models:
                model.amplitude = mean_amplitude
        for model, site in zip(models, images, strict=True):
            score(model, work, site["train"])
            score(model, work, site["validation"])
    tested = [score(model, work, site["test"]) for model, site in zip(models, images, strict=True)]
    return float(np.mean(tested))


def densenet(classes: int, size: int, batch_size: int) -> Work:
    """Classification, by macro-F1."""
    network = DenseNet121(classes, affine=False)
    # as released: each dense layer normalises all maps before it anew
    network.features = nn.Sequential(*network.features)
    return Work(
        network,
        partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4),
        lambda images, rng: loader(images, size, batch_size, rng, augment=rng is not None),
        F.cross_entropy,
        lambda found, wanted: float(f1_score(wanted, found, average="macro")),
    )


def run(
    images: list[dict[str, Listed]],
    classes: int,
    size: int,
    rounds: int,
    epochs: int,
    batch_size: int,
    seed: int,
    work: Callable[[int, int, int], Work] = densenet,
) -> float:
    """Train from a seed; the mean test score."""
    torch.manual_seed(seed)
    return federate(work(classes, size, batch_size), images, rounds, epochs, seed)
