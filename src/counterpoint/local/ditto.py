"""Ditto (Li, Hu, Beirami, Smith, ICML 2021, algorithm 1): a personal model near the global one."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.training import Training, squared_distance
from counterpoint.ranges import NotNegative


@dataclass(frozen=True)
class Ditto:
    """Two models a site: the global one as in FedAvg, and a personal one v that stays.

    v is trained on the task's loss + lambda/2 * ||v - w_start||^2 (equation 1 of the paper), with
    w_start the global weights at the start of the round. ``strength`` is lambda; the paper tries
    0.1 to 2.
    """

    kind: ClassVar[str] = "ditto"
    roles: ClassVar[tuple[str, ...]] = ("personal", "global")
    shared: ClassVar[str] = "global"
    predicts: ClassVar[str] = "personal"
    strength: NotNegative = 1.0

    def train(self, training: Training) -> Iterator[str]:
        """One step of both models for every batch."""
        for _ in range(training.epochs):
            for images, target in training.batches():
                outputs = training.forward("global", images)
                training.step("global", images, outputs, partial(training.task.loss, target=target))
                outputs = training.forward("personal", images)
                training.step("personal", images, outputs, partial(self.loss, training, target))
            yield ""

    def loss(self, training: Training, target: Tensor, outputs: Tensor) -> Tensor:
        """The personal model's loss."""
        far = squared_distance(training.models["personal"], training.start)
        return training.task.loss(outputs, target) + self.strength / 2 * far
