"""The server only averages: a streaming weighted mean in constant memory."""

from collections.abc import Mapping

import torch
from torch import Tensor

from counterpoint.errors import PayloadError
from counterpoint.payload import Payload, all_finite, check


class WeightedMean:
    """Weighted mean of payloads, added one at a time in the order of the sites.

    Sums are kept in float64 and the order is fixed by the caller, so the bits never depend on
    which site was first to answer.

    >>> mean = WeightedMean()
    >>> mean.add("A", {"w": torch.tensor([1.0])}, weight=1)
    >>> mean.add("B", {"w": torch.tensor([4.0])}, weight=2)
    >>> mean.result()
    {'w': tensor([3.])}
    """

    def __init__(self) -> None:
        self._sum: dict[str, Tensor] = {}
        self._like: dict[str, Tensor] | None = None
        self._weight = 0.0

    def add(self, site: str, payload: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add one site's payload.

        Raises:
            PayloadError: if names, shapes or values are wrong; the mean is left as it was.
            ValueError: if the weight is not positive.
        """
        if not weight > 0:
            raise ValueError(f"the weight of site '{site}' must be positive, not {weight}")
        check(payload, site, self._like)
        if self._like is None:
            # Names, shapes and types of the first payload, without its numbers.
            self._like = {name: tensor.to("meta") for name, tensor in payload.items()}
            self._sum = {
                name: torch.zeros(tensor.shape, dtype=torch.float64)
                for name, tensor in payload.items()
            }
        for name, tensor in payload.items():
            self._sum[name].add_(tensor.detach().cpu(), alpha=weight)  # exact: sums are float64
        self._weight += weight

    def result(self) -> Payload:
        """Return the mean, in the types in which the payloads came; empty if nothing was added.

        Raises:
            PayloadError: if it is beyond all numbers of that type.
        """
        mean = {
            name: (total / self._weight).to((self._like or {})[name].dtype)
            for name, total in self._sum.items()
        }
        for name, tensor in mean.items():
            if not all_finite(tensor):
                raise PayloadError(f"the mean of '{name}' is too large to be a number")
        return mean
