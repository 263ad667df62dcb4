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
BATCH, LR = 16, 0.01


@dataclass(frozen=True)
class Work:
    """FedAvg of so many clients, each with so many images of a size, one local epoch a round."""

    network: Callable[[int], nn.Module]
    path: str
    clients: int
    images: int
    size: int
    rounds: int = 3


WORKS = {
    "silo": Work(SlimVGG16, "slim-vgg16", clients=4, images=256, size=64),
    "many": Work(SmallCNN, "benchmarks.networks:SmallCNN", clients=100, images=32, size=32),
    "tiny": Work(SmallCNN, "benchmarks.networks:SmallCNN", clients=4, images=32, size=32),
}


def tensors(work: Work, client: int) -> tuple[Tensor, Tensor]:
    """A client's images (n, 3, S, S) in -1..1 and labels, in memory."""
    generator = torch.Generator().manual_seed(client)
    labels = torch.arange(work.images) % CLASSES
    images = torch.rand(work.images, 3, work.size, work.size, generator=generator) * 2 - 1
    return images, labels


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


def told(simulate: Callable[[Work], None], version: str) -> None:
    """Run ``simulate`` on the work that the command line names; print its seconds as JSON."""
    work = WORKS[sys.argv[1]]
    torch.manual_seed(0)
    started = time.perf_counter()
    simulate(work)
    seconds = time.perf_counter() - started
    print(json.dumps({"version": version, "seconds": seconds}))
