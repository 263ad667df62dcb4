"""A method is a few small, separate choices and the settings that its paper trains with."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from counterpoint.aggregation import Aggregation, AllWeights
from counterpoint.harmonise import Harmoniser, NoHarmoniser
from counterpoint.local import LocalUpdate, Plain
from counterpoint.statistics import Statistics

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, lt=1e38)]  # float32 holds no more
NotNegative = Annotated[float, Field(ge=0, lt=1e38)]
PARTS = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


@dataclass(frozen=True, config=PARTS)
class Schedule:
    """How every site trains: the defaults are PRR-FL's on dermoscopy.

    ``lr`` is multiplied by ``lr_decay`` every ``lr_decay_rounds`` rounds. ``keep_optimizer``
    carries momenta over to the next round. ``weighting`` is the weight of a site in the mean.
    ``select_last`` is the part of the rounds, counted from the end, out of which validation
    chooses the model.
    """

    rounds: Count = 50
    local_epochs: Count = 5
    batch_size: Annotated[int, Field(ge=2)] = 16
    image_size: Annotated[int, Field(ge=8)] = 128
    model: str = "slim-vgg16"
    model_options: dict[str, Any] = field(default_factory=dict)
    augmentation: Literal["prrfl", "flips", "none"] = "prrfl"
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 1e-2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: NotNegative = 1e-6
    lr_decay: Share = 0.5
    lr_decay_rounds: Count = 5
    keep_optimizer: bool = False
    weighting: Literal["equal", "images"] = "equal"
    select_last: Share = 1.0
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
    harmonise: Harmoniser = field(default_factory=NoHarmoniser)
    local: LocalUpdate = field(default_factory=Plain)
    perturbation: NotNegative = 0.0
    aggregation: Aggregation = field(default_factory=AllWeights)
    statistics: Statistics = "averaged"
    pooled: bool = False
    schedule: Schedule = field(default_factory=Schedule)
