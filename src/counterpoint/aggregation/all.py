"""All weights are averaged (FedAvg, McMahan et al., AISTATS 2017)."""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.aggregation.exchange import Exchange
from counterpoint.layers import other_buffers
from counterpoint.payload import Payload


@torch.no_grad()
def merge_plainly(network: nn.Module, mean: Payload) -> None:
    """Overwrite every parameter and buffer that the mean names with the mean."""
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name in mean:
            tensor.copy_(mean[name])


@dataclass(frozen=True)
class AllWeights:
    """Every parameter is averaged, normalisation's among them."""

    kind: ClassVar[str] = "all"

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site: every parameter."""
        tensors = dict(network.named_parameters()) | other_buffers(network)
        return {name: tensor.detach().float().clone() for name, tensor in tensors.items()}

    def merge(self, network: nn.Module, mean: Payload, exchange: Exchange) -> None:
        """Take the mean as it is."""
        merge_plainly(network, mean)
