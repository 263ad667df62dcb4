"""All weights but the head's are averaged (FedPer, Arivazhagan et al., 2019; FedRep, ICML 2021)."""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.aggregation.all import AllWeights
from counterpoint.aggregation.exchange import Exchange
from counterpoint.layers import head_parameters
from counterpoint.payload import Payload


@dataclass(frozen=True)
class Backbone(AllWeights):
    """The last layer with weights stays at the site: a common body, a head of one's own."""

    kind: ClassVar[str] = "backbone"

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site: every parameter before the head."""
        local = head_parameters(network)
        shared = super().share(network, exchange)
        return {name: tensor for name, tensor in shared.items() if name not in local}
