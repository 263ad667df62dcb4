"""Plain local training: the task's loss, one step a batch (FedAvg)."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.training import Training


@dataclass(frozen=True)
class Plain:
    """One model a site, trained on the task's loss."""

    kind: ClassVar[str] = "plain"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"

    def train(self, training: Training) -> Iterator[str]:
        """One step for every batch."""
        for _ in range(training.epochs):
            for images, target in training.batches():
                outputs = training.forward("model", images)
                training.step("model", images, outputs, partial(self.loss, training, target))
            yield ""

    def loss(self, training: Training, target: Tensor, outputs: Tensor) -> Tensor:
        """The task's loss."""
        return training.task.loss(outputs, target)
