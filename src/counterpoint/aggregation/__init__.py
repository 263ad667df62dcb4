"""What leaves a site, and how the mean is taken back in: one file an aggregation."""

from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from counterpoint.aggregation.all import AllWeights
from counterpoint.aggregation.backbone import Backbone
from counterpoint.aggregation.except_normalisation import ExceptNormalisation
from counterpoint.aggregation.exchange import Exchange
from counterpoint.aggregation.head import Head
from counterpoint.aggregation.normalised import Normalised
from counterpoint.aggregation.nothing import Nothing
from counterpoint.aggregation.pfa import ProgressiveFourier
from counterpoint.payload import Payload


@runtime_checkable
class Aggregation(Protocol):
    """What an aggregation does at the site; the server's part is always a mean."""

    kind: ClassVar[str]

    def share(self, network: nn.Module, exchange: Exchange) -> Payload:
        """What leaves the site."""
        ...

    def merge(self, network: nn.Module, mean: Payload, exchange: Exchange) -> None:
        """Take the mean of what all sites shared back in."""
        ...


AGGREGATIONS: dict[str, type[Aggregation]] = {
    choice.kind: choice
    for choice in (
        AllWeights,
        ExceptNormalisation,
        Backbone,
        Head,
        ProgressiveFourier,
        Normalised,
        Nothing,
    )
}

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "AllWeights",
    "Backbone",
    "ExceptNormalisation",
    "Exchange",
    "Head",
    "Normalised",
    "Nothing",
    "ProgressiveFourier",
]
