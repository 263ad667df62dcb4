"""The mean goes down as it is."""

from typing import ClassVar, Protocol, runtime_checkable

from pydantic.dataclasses import dataclass

from counterpoint.payload import Payload

NOT_WEIGHTS = ("statistics.", "local.", "harmonise.")
"""Names that begin so are no weights: their mean always goes down as it is."""


@runtime_checkable
class ServerUpdate(Protocol):
    """What becomes of the mean; the server never sees anything but means."""

    kind: ClassVar[str]

    def update(
        self, mean: Payload, before: Payload, memory: Payload, taking_part: float
    ) -> tuple[Payload, Payload]:
        """Turn a mean into what goes down.

        Args:
            mean: of what the sites sent in this round.
            before: what the sites had got before they trained; in the first round, the weights
                that all of them began with.
            memory: what the last call returned as its second value; empty at first.
            taking_part: the share of all sites that took part in this round.

        Returns:
            What goes down, and what the server keeps.
        """
        ...


@dataclass(frozen=True)
class Mean:
    """The server only averages."""

    kind: ClassVar[str] = "mean"

    def update(
        self, mean: Payload, before: Payload, memory: Payload, taking_part: float
    ) -> tuple[Payload, Payload]:
        """The mean as it is."""
        return mean, {}
