"""Nothing leaves the site."""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.aggregation.exchange import Exchange
from counterpoint.payload import Payload


@dataclass(frozen=True)
class Nothing:
    """Every site trains alone."""

    kind: ClassVar[str] = "none"

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """Nothing."""
        return {}

    def merge(self, network: nn.Module, mean: Payload, exchange: Exchange) -> None:
        """Nothing to take."""
