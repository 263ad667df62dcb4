"""What an aggregation may know of the round in which it shares or merges."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Exchange:
    """The round that a site shares after, or whose mean it merges.

    Attributes:
        progress: t/T, the part of the rounds that is over; 0 in the first one.
        start: parameters at the start of the round, by name; known when sharing.
        steps: optimiser steps of the round; known when sharing.
        momentum: of the optimiser.
    """

    progress: float = 0.0
    start: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    momentum: float = 0.0
