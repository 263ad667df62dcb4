"""All weights but those of normalisation layers are averaged (FedBN, Li et al., ICLR 2021)."""

from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.aggregation.all import AllWeights
from counterpoint.aggregation.exchange import Exchange
from counterpoint.layers import normalisation_parameters
from counterpoint.payload import Payload


@dataclass(frozen=True)
class ExceptNormalisation(AllWeights):
    """Scale and shift of every normalisation layer stay at the site, found by module type."""

    kind: ClassVar[str] = "except-normalisation"

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site: every parameter outside normalisation layers."""
        local = normalisation_parameters(network)
        shared = super().share(network, exchange)
        return {name: tensor for name, tensor in shared.items() if name not in local}
