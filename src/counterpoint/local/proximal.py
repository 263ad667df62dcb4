"""Proximal local training (FedProx, Li et al., MLSys 2020, equation 2)."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.training import Training, squared_distance
from counterpoint.ranges import NotNegative


@dataclass(frozen=True)
class Proximal:
    """The task's loss + mu/2 * ||w - w_start||^2, w_start the weights at the start of the round.

    mu = 0.01 as PRR-FL's code has it for its comparison; the paper tries 0.001 to 1.
    """

    kind: ClassVar[str] = "proximal"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"
    mu: NotNegative = 0.01

    def train(self, training: Training) -> Iterator[str]:
        """One step for every batch."""
        for _ in range(training.epochs):
            for images, target in training.batches():
                outputs = training.forward("model", images)
                training.step("model", images, outputs, partial(self.loss, training, target))
            yield ""

    def loss(self, training: Training, target: Tensor, outputs: Tensor) -> Tensor:
        """The task's loss with the proximal term."""
        far = squared_distance(training.models["model"], training.start)
        return training.task.loss(outputs, target) + self.mu / 2 * far
