"""Plain local training: the task's loss, one step a batch (FedAvg)."""

from functools import partial
from typing import ClassVar

from pydantic.dataclasses import dataclass

from counterpoint.local.training import Training


@dataclass(frozen=True)
class Plain:
    """One model a site, trained on the task's loss."""

    kind: ClassVar[str] = "plain"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"

    def epoch(self, training: Training) -> None:
        """One step for every batch."""
        for images, labels in training.batches():
            logits = training.forward("model", images)
            training.step("model", images, logits, partial(training.task.loss, labels=labels))
