"""A method is a few small, separate choices and the settings that its paper trains with."""

from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from counterpoint.aggregation import Aggregation, AllWeights
from counterpoint.harmonise import AmplitudeNormalisation, NoHarmoniser
from counterpoint.local import LocalUpdate, Plain
from counterpoint.statistics import Statistics

PARTS = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


@dataclass(frozen=True, config=PARTS)
class Schedule:
    """How every site trains: the defaults are PRR-FL's on dermoscopy.

    ``lr`` is multiplied by ``lr_decay`` every ``lr_decay_rounds`` rounds. ``keep_optimizer``
    carries momenta over to the next round. ``weighting`` is the weight of a site in the mean.
    ``select_last`` is the part of the rounds, counted from the end, out of which validation
    chooses the model.
    """

    rounds: int = Field(50, ge=1)
    local_epochs: int = Field(5, ge=1)
    batch_size: int = Field(16, ge=2)
    image_size: int = Field(128, ge=8)
    model: str = "slim-vgg16"
    model_options: dict[str, Any] = Field(default_factory=dict)
    augmentation: Literal["prrfl", "flips", "none"] = "prrfl"
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(1e-2, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(1e-6, ge=0)
    lr_decay: float = Field(0.5, gt=0, le=1)
    lr_decay_rounds: int = Field(5, ge=1)
    keep_optimizer: bool = False
    weighting: Literal["equal", "images"] = "equal"
    select_last: float = Field(1.0, gt=0, le=1)
    precision: Literal["float32", "bfloat16"] = "float32"

    def lr_at(self, round: int) -> float:
        """Learning rate of a round, counted from 1.

        >>> [Schedule().lr_at(round) for round in (1, 5, 6)]
        [0.01, 0.01, 0.005]
        """
        return self.lr * self.lr_decay ** ((round - 1) // self.lr_decay_rounds)

    @property
    def first_choice(self) -> int:
        """First round, counted from 1, whose model validation may choose.

        >>> Schedule(rounds=50, select_last=0.2).first_choice
        41
        """
        return self.rounds - max(1, int(self.rounds * self.select_last + 1e-9)) + 1


@dataclass(frozen=True, config=PARTS)
class Method:
    """A method of federated learning, as a composition.

    Attributes:
        name: as the command line calls it.
        paper: where it was published.
        summary: what it does, in a sentence or two.
        harmonise: what happens to an image before the network.
        local: how a site trains in a round.
        perturbation: length alpha of the weight perturbation in every step; 0 for none.
        aggregation: what leaves a site, and how the mean is taken back in.
        statistics: where batch norm's running statistics come from.
        pooled: train one model on all sites' images in one place (no federation: an upper bound).
        schedule: rounds, network, optimiser.
    """

    name: str
    paper: str
    summary: str
    harmonise: AmplitudeNormalisation | NoHarmoniser = Field(default_factory=NoHarmoniser)
    local: LocalUpdate = Field(default_factory=Plain)
    perturbation: float = Field(0.0, ge=0)
    aggregation: Aggregation = Field(default_factory=AllWeights)
    statistics: Statistics = "averaged"
    pooled: bool = False
    schedule: Schedule = Field(default_factory=Schedule)
