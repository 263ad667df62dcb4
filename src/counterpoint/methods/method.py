"""A method is a few small, separate choices and the settings that its paper trains with."""

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from counterpoint.aggregation import Aggregation, AllWeights
from counterpoint.harmonise import Harmoniser, NoHarmoniser
from counterpoint.local import LocalUpdate, Plain
from counterpoint.privacy import NoPrivacy, Privacy
from counterpoint.ranges import Count, Fraction, NotNegative, Positive, Share
from counterpoint.server_update import Mean, ServerUpdate
from counterpoint.statistics import Statistics
from counterpoint.tasks import Loss

PARTS = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


@dataclass(frozen=True, config=PARTS)
class Schedule:
    """How every site trains: the defaults are PRR-FL's on dermoscopy.

    ``lr`` is multiplied by ``lr_decay`` every ``lr_decay_rounds`` rounds. ``keep_optimizer``
    carries momenta over to the next round. ``weights`` is a file (safetensors), or the folder of a
    run, whose weights the network starts from where names and shapes are the same; the others, all
    if it is empty, are drawn by the seed. ``weighting`` is the weight of a site in the mean: the
    same for all, its number of training images, or ("closeness": inverse distance aggregation,
    Yeganeh et al. 2020) one over the distance of its weights from those it began the round with.
    ``max_batch`` is the most images that the device works on at a time: a larger batch comes in
    parts whose gradients are added up, which is the same but for what is taken over the images of
    a batch: batch norm, the amplitude of HarmoFL, the direction of a weight perturbation, and the
    mean over pixels where masks leave some out.
    ``participation`` is the share of the sites that take part in a round, drawn anew each time.
    ``balance`` is the strength of the loss "balanced": how much rarer classes count more.
    ``select_last`` is the part of the rounds, counted from the end, out of which validation
    chooses the model. ``finetune_epochs`` are trained at each site after the last merge, with
    ``lr`` as at the start.
    """

    rounds: Count = 50
    local_epochs: Count = 5
    batch_size: Annotated[int, Field(ge=2)] = 16
    max_batch: Annotated[int, Field(ge=2)] | None = None
    image_size: Annotated[int, Field(ge=8)] = 128
    model: str = "slim-vgg16"
    model_options: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    augmentation: Literal["prrfl", "flips", "none"] = "prrfl"
    loss: Loss = "default"
    balance: NotNegative = 1.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 1e-2
    momentum: Fraction = 0.0
    weight_decay: NotNegative = 1e-6
    lr_decay: Share = 0.5
    lr_decay_rounds: Count = 5
    keep_optimizer: bool = False
    weighting: Literal["equal", "images", "closeness"] = "equal"
    participation: Share = 1.0
    select_last: Share = 1.0
    finetune_epochs: Annotated[int, Field(ge=0)] = 0
    precision: Literal["float32", "bfloat16"] = "float32"

    def lr_at(self, round: int) -> float:
        """Learning rate of a round, counted from 1.

        >>> [Schedule().lr_at(round) for round in (1, 5, 6)]
        [0.01, 0.01, 0.005]
        """
        return self.lr * self.lr_decay ** ((round - 1) // self.lr_decay_rounds)

    def at_once(self, batch_size: int) -> int:
        """Images of a batch that the device works on at a time.

        >>> Schedule().at_once(64), Schedule(max_batch=8).at_once(64)
        (64, 8)
        """
        return min(batch_size, self.max_batch or batch_size)

    @property
    def first_choice(self) -> int:
        """First round, counted from 1, whose model validation may choose.

        Only after the last round every site is there, or has fine-tuned its model; where sites
        are absent or models fine-tuned, there is no choice.

        >>> Schedule(rounds=50, select_last=0.2).first_choice
        41
        """
        if self.participation < 1 or self.finetune_epochs:
            return self.rounds
        return self.rounds - max(1, int(self.rounds * self.select_last + 1e-9)) + 1


SEGMENTATION = Schedule(
    rounds=500,
    local_epochs=1,
    batch_size=16,
    image_size=384,
    model="unet",
    augmentation="flips",
    optimizer="adam",
    lr=1e-4,
    weight_decay=1e-4,
    lr_decay=1.0,
    keep_optimizer=True,
)
"""How every site trains for segmentation: the defaults are HarmoFL's on prostate MRI."""


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
        adaptive: measure the perturbation relative to the size of each weight (ASAM).
        aggregation: what leaves a site, and how the mean is taken back in.
        server: what the server does with the mean before it goes down.
        statistics: where batch norm's running statistics come from.
        privacy: what is done for privacy beyond keeping images at their site.
        pooled: train one model on all sites' images in one place (no federation: an upper bound).
        schedule: rounds, network, optimiser for classification.
        segmentation: the same for segmentation.
        segmentation_local: how a site trains for segmentation, if not as for classification.
    """

    name: str
    paper: str
    summary: str
    harmonise: Harmoniser = field(default_factory=NoHarmoniser)
    local: LocalUpdate = field(default_factory=Plain)
    perturbation: NotNegative = 0.0
    adaptive: bool = False
    aggregation: Aggregation = field(default_factory=AllWeights)
    server: ServerUpdate = field(default_factory=Mean)
    statistics: Statistics = "averaged"
    privacy: Privacy = field(default_factory=NoPrivacy)
    pooled: bool = False
    schedule: Schedule = field(default_factory=Schedule)
    segmentation: Schedule = SEGMENTATION
    segmentation_local: LocalUpdate | None = None
