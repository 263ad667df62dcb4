"""The server's part of SCAFFOLD (Karimireddy et al., ICML 2020, algorithm 1, lines 16 and 17)."""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from counterpoint.payload import Payload

CONTROL = "local.control."


@dataclass(frozen=True)
class AddToControl:
    """c = c + |S|/N * (mean change of the c_i): c stays the mean of all sites' controls.

    Weights go down as their mean (the paper's global step size 1).
    """

    kind: ClassVar[str] = "control"

    def update(
        self, mean: Payload, before: Payload, memory: Payload, taking_part: float
    ) -> tuple[Payload, Payload]:
        """Add the mean change to the common control."""
        down = dict(mean)
        for name, change in mean.items():
            if name.startswith(CONTROL):
                down[name] = before.get(name, torch.zeros_like(change)) + taking_part * change
        return down, {}
