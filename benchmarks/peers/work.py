"""The work that every simulator is given: networks, tensors, and a site's local epoch."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.networks import SmallCNN
from counterpoint.models.slim_vgg16 import SlimVGG16

CLASSES = 3
BATCH, LR = 16, 0.02  # at 0.05 a loss can jump, whoever trains


class Slim(SlimVGG16):
    """The slim VGG16 with the weights with which all begin."""

    def __init__(self, num_classes: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(num_classes)


class Small(SmallCNN):
    """The small network with the weights with which all begin."""

    def __init__(self, num_classes: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(num_classes)


@dataclass(frozen=True)
class Work:
    """FedAvg of so many clients, each with so many images of a size, one local epoch a round."""

    network: type[nn.Module]
    clients: int
    images: int
    size: int
    rounds: int = 3


WORKS = {
    "silo": Work(Slim, clients=4, images=256, size=64),
    "many": Work(Small, clients=100, images=32, size=32),
    "silo, quick": Work(Slim, clients=4, images=32, size=64),
    "many, quick": Work(Small, clients=8, images=32, size=32),
}


def pixels(work: Work, client: int) -> tuple[Tensor, Tensor]:
    """A client's images (n, 3, S, S) as bytes, noise that is brighter from class to class."""
    generator = torch.Generator().manual_seed(client)
    labels = torch.arange(work.images) % CLASSES
    noise = torch.randint(0, 176, (work.images, 3, work.size, work.size), generator=generator)
    return (noise + 40 * labels[:, None, None, None]).to(torch.uint8), labels


def tensors(work: Work, client: int) -> tuple[Tensor, Tensor]:
    """A client's images (n, 3, S, S) in -1..1 and labels, in memory."""
    images, labels = pixels(work, client)
    return images / 127.5 - 1, labels


def local_epoch(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train a network for one epoch, for simulators that leave this to their user."""
    optimizer = torch.optim.SGD(network.parameters(), lr=LR)
    network.train()
    order = torch.randperm(len(images))
    for start in range(0, len(images), BATCH):
        chosen = order[start : start + BATCH]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
        optimizer.step()


@torch.no_grad()
def final_loss(network: nn.Module, work: Work) -> float:
    """Mean cross-entropy over all training images, with the statistics of each batch of 16.

    Simulators differ in what they do with batch norm's running statistics; this is what all can
    be held against: whoever did fewer steps, or others, ends elsewhere.
    """
    network.train()
    losses = [
        nn.functional.cross_entropy(network(images), labels).item()
        for client in range(work.clients)
        for images, labels in zip(*(t.split(BATCH) for t in tensors(work, client)), strict=True)
    ]
    return sum(losses) / len(losses)


def told(simulate: Callable[[Work], nn.Module], version: str) -> None:
    """Run ``simulate`` on the work that the command line names; print seconds and loss as JSON.

    ``simulate`` returns the last global network, for images in -1..1.
    """
    work = WORKS[sys.argv[1]]
    started = time.perf_counter()
    network = simulate(work)
    seconds = time.perf_counter() - started
    loss = final_loss(network, work)
    print(json.dumps({"version": version, "seconds": seconds, "loss": loss}))
