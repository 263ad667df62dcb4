"""What leaves a site, and how the mean is taken back in: one file an aggregation."""

from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from counterpoint.aggregation.all import AllWeights
from counterpoint.aggregation.except_normalisation import ExceptNormalisation
from counterpoint.aggregation.nothing import Nothing
from counterpoint.aggregation.pfa import ProgressiveFourier
from counterpoint.payload import Payload


@runtime_checkable
class Aggregation(Protocol):
    """What an aggregation does at the site; the server's part is always a mean.

    ``progress`` is t/T: the part of the rounds that is over, 0 in the first one.
    """

    kind: ClassVar[str]

    def share(self, network: nn.Module, progress: float) -> Payload:
        """What leaves the site."""
        ...

    def merge(self, network: nn.Module, mean: Payload, progress: float) -> None:
        """Take the mean of what all sites shared back in."""
        ...


AGGREGATIONS: dict[str, type[Aggregation]] = {
    choice.kind: choice for choice in (AllWeights, ExceptNormalisation, ProgressiveFourier, Nothing)
}

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "AllWeights",
    "ExceptNormalisation",
    "Nothing",
    "ProgressiveFourier",
]
