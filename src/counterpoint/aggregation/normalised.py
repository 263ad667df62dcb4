"""Directions are averaged, not end points (FedNova, Wang et al., NeurIPS 2020, equation 6)."""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.aggregation.all import AllWeights
from counterpoint.aggregation.exchange import Exchange
from counterpoint.payload import Payload

DIRECTION, STEPS = "direction.", "steps"


@dataclass(frozen=True)
class Normalised(AllWeights):
    """A site that takes more steps does not pull the mean more.

    What leaves a site is its way per step, d = (x - y) / a, and a. x are the weights at the start
    of the round, y at its end; a is the number of steps K, with momentum rho the sum of their
    weights, a = (K - rho (1 - rho^K) / (1 - rho)) / (1 - rho). The server update ``normalised``
    goes the mean direction for the mean number of steps.
    """

    kind: ClassVar[str] = "normalised"

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site: direction and length."""
        a = step_weight(exchange.steps, exchange.momentum)
        payload: Payload = {STEPS: torch.tensor(a)}
        for name, y in super().share(network, exchange).items():
            x = exchange.start[name].to(y) if name in exchange.start else y
            payload[DIRECTION + name] = (x - y) / a
        return payload


def step_weight(steps: int, momentum: float) -> float:
    """||a||_1 of ``steps`` steps of SGD with ``momentum``.

    >>> step_weight(5, 0.0), step_weight(2, 0.5)  # 1 + 1.5
    (5.0, 2.5)
    """
    rho = momentum
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho) if steps else 1.0
