"""The server's part of FedNova (Wang et al., NeurIPS 2020, equation 6)."""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from counterpoint.aggregation.normalised import DIRECTION, STEPS
from counterpoint.errors import PayloadError
from counterpoint.payload import Payload


@dataclass(frozen=True)
class NormalisedMean:
    """x = x - (mean of a) * (mean of d): the mean direction, as far as the sites go on average."""

    kind: ClassVar[str] = "normalised"

    def update(
        self, mean: Payload, before: Payload, memory: Payload, taking_part: float
    ) -> tuple[Payload, Payload]:
        """Turn directions into weights."""
        if STEPS not in mean:
            raise PayloadError("server update 'normalised' needs the aggregation 'normalised'")
        down = {n: t for n, t in mean.items() if not n.startswith(DIRECTION) and n != STEPS}
        for name, d in mean.items():
            if name.startswith(DIRECTION):
                x = before[name.removeprefix(DIRECTION)]
                down[name.removeprefix(DIRECTION)] = (
                    x.double() - mean[STEPS].double() * d.double()
                ).to(d.dtype)
        return down, {}
