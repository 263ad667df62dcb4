"""Proximal local training (FedProx, Li et al., MLSys 2020, equation 2)."""

from functools import partial
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.training import Training


@dataclass(frozen=True)
class Proximal:
    """The task's loss + mu/2 * ||w - w_start||^2, w_start the weights at the start of the round.

    mu = 0.01 as PRR-FL's code has it for its comparison; the paper tries 0.001 to 1.
    """

    kind: ClassVar[str] = "proximal"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"
    mu: float = 0.01

    def __post_init__(self) -> None:
        if self.mu < 0:
            raise ValueError("local.mu must not be negative")

    def epoch(self, training: Training) -> None:
        """One step for every batch."""
        for images, labels in training.batches():
            logits = training.forward("model", images)
            training.step("model", images, logits, partial(self.loss, training, labels))

    def loss(self, training: Training, labels: Tensor, logits: Tensor) -> Tensor:
        """The task's loss with the proximal term."""
        parameters = training.models["model"].named_parameters()
        squares = [(p - training.start[name]).square().sum() for name, p in parameters]
        return training.task.loss(logits, labels) + self.mu / 2 * torch.stack(squares).sum()
