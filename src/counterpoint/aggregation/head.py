"""Only the head is averaged (LG-FedAvg, Liang et al., 2020, arXiv 2001.01523, algorithm 1)."""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.aggregation.all import AllWeights
from counterpoint.aggregation.exchange import Exchange
from counterpoint.layers import head_parameters
from counterpoint.payload import Payload


@dataclass(frozen=True)
class Head(AllWeights):
    """The last layer with weights is common, the representation before it each site's own."""

    kind: ClassVar[str] = "head"

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site: the head's parameters."""
        common = head_parameters(network)
        shared = super().share(network, exchange)
        return {name: tensor for name, tensor in shared.items() if name in common}
