"""Deputy-Enhanced Transfer (PRR-FL, Chen et al., MICCAI 2021, section 2.2)."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.training import Training
from counterpoint.ranges import NotNegative
from counterpoint.tasks import Scorer, Task
from counterpoint.tasks.distillation import kl_divergence, squared_difference

RECOVER, EXCHANGE, SUBLIMATE = "recover", "exchange", "sublimate"


@dataclass(frozen=True)
class DeputyTransfer:
    """A deputy model talks to the server and teaches the personal one, in three stages.

    Before each local epoch the score phi (macro-F1, Dice) of both models on the training images
    fixes the stage: *recover* (the personal model teaches the deputy), *exchange* (each teaches the
    other), *sublimate* (the deputy teaches the personal model). A round starts in *recover*. The
    personal model is never overwritten. With one local epoch a round, both teach each other
    throughout.

    ``exchange`` and ``sublimate`` are the paper's a1 and a2: the deputy's score, relative to the
    personal model's, from which the stage begins. The images are scored as they are; the released
    code scores augmented ones. What is learnt from the teacher is ``weight`` times the KL
    divergence, or ("mse", the journal's for segmentation, with weight 10) the mean squared
    difference of the probabilities.

    With ``stage_scores`` "passing" the scores are those of the last epoch's predictions as they
    came by in training: of augmented images, at weights on the move. That saves a pass over the
    training images an epoch, and the stage is not always that of the exact scores.
    """

    kind: ClassVar[str] = "deputy"
    roles: ClassVar[tuple[str, ...]] = ("personal", "deputy")
    shared: ClassVar[str] = "deputy"
    predicts: ClassVar[str] = "personal"
    exchange: float = 0.7
    sublimate: float = 0.9
    distillation: Literal["kl", "mse"] = "kl"
    weight: NotNegative = 1.0
    stage_scores: Literal["exact", "passing"] = "exact"

    def __post_init__(self) -> None:
        if not 0 <= self.exchange <= self.sublimate:
            raise ValueError(
                "local.exchange and .sublimate must satisfy 0 <= exchange <= sublimate"
            )

    def train(self, training: Training) -> Iterator[str]:
        """Fix the stage of each epoch, then one step of both models for every batch."""
        stage, passed = "", dict[str, Scorer]()
        for _ in range(training.epochs):
            stage = self.stage_of(training, stage, passed)
            if self.stage_scores == "passing":
                passed = {role: training.task.scorer() for role in self.roles}
            seen = 0
            for images, target in training.batches():
                outputs = {role: training.forward(role, images) for role in self.roles}
                cases = torch.arange(seen, seen := seen + len(images))
                for role, scorer in passed.items():
                    scorer.add(outputs[role].detach(), target, cases)
                for role, loss_of in self.losses(training.task, stage, outputs, target).items():
                    training.step(role, images, outputs[role], loss_of)
            yield stage

    def stage_of(self, training: Training, stage: str, passed: Mapping[str, Scorer]) -> str:
        """Stage of the epoch about to begin, by both models' scores: ``passed``, or taken now."""
        if training.epochs == 1:
            return EXCHANGE
        if not stage:  # the first epoch of a round
            return RECOVER
        phi = training.training_scores(passed)
        return self.next_stage(stage, phi["personal"], phi["deputy"])

    def next_stage(self, stage: str, personal: float, deputy: float) -> str:
        """Stage of the next epoch, from the last one's (empty at the start of a round).

        >>> det = DeputyTransfer()
        >>> det.next_stage("", 0.5, 0.9), det.next_stage("recover", 0.5, 0.9)
        ('recover', 'exchange')
        >>> det.next_stage("exchange", 0.5, 0.48), det.next_stage("sublimate", 0.5, 0.4)
        ('sublimate', 'exchange')
        """
        if not stage or deputy < self.exchange * personal:
            return RECOVER
        if stage == RECOVER or deputy < self.sublimate * personal:
            return EXCHANGE
        return SUBLIMATE

    def losses(
        self, task: Task, stage: str, outputs: dict[str, Tensor], target: Tensor
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        """Both models' losses in a stage, as functions of their outputs (N, classes, ...)."""
        teacher = {"personal": outputs["deputy"].detach(), "deputy": outputs["personal"].detach()}
        learns = {"personal": stage != RECOVER, "deputy": stage != SUBLIMATE}
        distil = kl_divergence if self.distillation == "kl" else squared_difference

        def loss_of(role: str, z: Tensor) -> Tensor:
            loss = task.loss(z, target)
            if learns[role] and len(z):  # batches that are drawn by chance may be empty
                loss = loss + self.weight * distil(teacher[role], z, target >= 0)
            return loss

        return {role: partial(loss_of, role) for role in self.roles}
