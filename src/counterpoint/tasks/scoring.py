"""What a task is to the rest of the house."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from counterpoint.extents import Extents
from counterpoint.resampling import Score


class Task(Protocol):
    """Loss and scores of what is learnt.

    ``score`` names the score that chooses models and stages, ``metrics`` all scores in the order
    in which they are shown, and ``outputs`` is the number of channels that a network gives.
    Targets are labels (N,) int64, or masks (N, *space) int64 with -1 where nothing is scored.
    """

    kind: ClassVar[str]
    score: ClassVar[str]

    def __init__(self, classes: tuple[str, ...], criterion: Callable[..., Tensor]) -> None: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores."""
        ...

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for an image, or for each of its pixels."""
        ...

    def fitted(self, labels: npt.NDArray[np.int64]) -> Self:
        """The task at a site, for losses that depend on how frequent its classes are."""
        ...

    def with_loss(self, criterion: Callable[..., Tensor]) -> Self:
        """The task with another loss, a function of outputs and targets."""
        ...

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch."""
        ...

    def scorer(self, extents: Extents | None = None) -> "Scorer":
        """Something that takes batches in and gives scores; the slow ones only with extents."""
        ...


class Scorer(Protocol):
    """Scores of a model, batch by batch."""

    def add(
        self, outputs: Tensor, target: Tensor, cases: Tensor, rows: Tensor | None = None
    ) -> None:
        """Take a batch in: outputs (N, ...), target, and to which case (N,) each belongs.

        ``rows`` (N,) are the images' numbers in what the extents are of.
        """
        ...

    def scores(self) -> dict[str, float]:
        """All scores and the loss; NaN where one is not defined."""
        ...

    def by_case(self) -> list[dict[str, float | int | str]]:
        """A row a case: what was predicted, or how well."""
        ...

    def statistics(self) -> tuple[Sequence[int], Mapping[str, Score]]:
        """The cases in order, and each score as a function of how often each of them counts."""
        ...
