"""Proximal local training (FedProx, Li et al., MLSys 2020, equation 2)."""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.plain import Plain
from counterpoint.local.training import Training, squared_distance
from counterpoint.ranges import NotNegative


@dataclass(frozen=True)
class Proximal(Plain):
    """The task's loss + mu/2 * ||w - w_start||^2, w_start the weights at the start of the round.

    mu = 0.01 as PRR-FL's code has it for its comparison; the paper tries 0.001 to 1.
    """

    kind: ClassVar[str] = "proximal"
    mu: NotNegative = 0.01

    def loss(self, training: Training, target: Tensor, outputs: Tensor) -> Tensor:
        """The task's loss with the proximal term."""
        far = squared_distance(training.models["model"], training.start)
        return super().loss(training, target, outputs) + self.mu / 2 * far
