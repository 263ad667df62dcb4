"""Deputy-Enhanced Transfer (PRR-FL, Chen et al., MICCAI 2021, section 2.2)."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.local.training import Training
from counterpoint.tasks import Classification

RECOVER, EXCHANGE, SUBLIMATE = "recover", "exchange", "sublimate"


@dataclass(frozen=True)
class DeputyTransfer:
    """A deputy model talks to the server and teaches the personal one, in three stages.

    Before each local epoch the score phi of both models on the training images fixes the stage:
    *recover* (the personal model teaches the deputy), *exchange* (each teaches the other),
    *sublimate* (the deputy teaches the personal model). A round starts in *recover*. The personal
    model is never overwritten. With one local epoch a round, both teach each other throughout.

    ``exchange`` and ``sublimate`` are the paper's a1 and a2: the deputy's score, relative to the
    personal model's, from which the stage begins. The images are scored as they are; the released
    code scores augmented ones.
    """

    kind: ClassVar[str] = "deputy"
    roles: ClassVar[tuple[str, ...]] = ("personal", "deputy")
    shared: ClassVar[str] = "deputy"
    predicts: ClassVar[str] = "personal"
    exchange: float = 0.7
    sublimate: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.exchange <= self.sublimate:
            raise ValueError(
                "local.exchange and .sublimate must satisfy 0 <= exchange <= sublimate"
            )

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

    def epoch(self, training: Training) -> None:
        """Fix the stage, then one step of both models for every batch."""
        training.stage = self.stage_of(training)
        for images, labels in training.batches():
            logits = {role: training.forward(role, images) for role in self.roles}
            for role, loss_of in self.losses(training.task, training.stage, logits, labels).items():
                training.step(role, images, logits[role], loss_of)

    def stage_of(self, training: Training) -> str:
        """Stage of the epoch that is about to begin; scores both models where it depends on it."""
        if training.epochs == 1:
            return EXCHANGE
        if not training.stage:  # the first epoch of a round
            return RECOVER
        scores = training.training_scores()
        phi = {role: scores[role][training.task.score] for role in self.roles}
        return self.next_stage(training.stage, phi["personal"], phi["deputy"])

    def losses(
        self, task: Classification, stage: str, logits: dict[str, Tensor], labels: Tensor
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        """Both models' losses in a stage, as functions of their logits (N, classes)."""
        teacher = {"personal": logits["deputy"].detach(), "deputy": logits["personal"].detach()}
        learns = {"personal": stage != RECOVER, "deputy": stage != SUBLIMATE}

        def loss_of(role: str, z: Tensor) -> Tensor:
            loss = task.loss(z, labels)
            return loss + task.distil(teacher[role], z) if learns[role] else loss

        return {role: partial(loss_of, role) for role in self.roles}
