"""A personal model that starts from the merged one in every round, at no extra gradient (ours)."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from counterpoint.local.training import Training
from counterpoint.ranges import Fraction, NotNegative


@dataclass(frozen=True)
class Adapted:
    """One model is trained and shared; the site predicts with what it has made of it.

    The personal model is the shared one as it is after the site's local epochs, and a merge does
    not touch it until the next ones: there is nothing to fall back from. ``memory`` is the weight
    of the personal model of the round before, w_p = memory * w_p + (1 - memory) * w.

    ``anchor`` is the weight of KL(merged || model): what the merged model thinks of the images is
    kept in mind while the site trains (temperature 1, no gradient through the merged model).
    """

    kind: ClassVar[str] = "adapted"
    roles: ClassVar[tuple[str, ...]] = ("personal", "model")
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "personal"
    memory: Fraction = 0.0
    anchor: NotNegative = 0.0

    def train(self, training: Training) -> Iterator[str]:
        """One step for every batch; the personal model follows after each epoch."""
        model, personal = training.models["model"], training.models["personal"]
        merged = copy.deepcopy(model).eval()
        before = copy.deepcopy(personal.state_dict())
        for _ in range(training.epochs):
            for images, target in training.batches():
                outputs = training.forward("model", images)
                thought = self._thought(training, merged, images)
                training.step(
                    "model", images, outputs, partial(self.loss, training, target, thought)
                )
            follow(personal, model, before, self.memory)
            yield ""

    def _thought(self, training: Training, merged: nn.Module, images: Tensor) -> Tensor | None:
        if not self.anchor:
            return None
        with torch.no_grad():
            return training.forward_of(merged, images)

    def loss(
        self, training: Training, target: Tensor, thought: Tensor | None, outputs: Tensor
    ) -> Tensor:
        """The task's loss with the anchor."""
        loss = training.task.loss(outputs, target)
        if thought is None:
            return loss
        return loss + self.anchor * training.task.distil(thought, outputs)


@torch.no_grad()
def follow(personal: nn.Module, model: nn.Module, before: dict[str, Tensor], memory: float) -> None:
    """Make the personal model the mean of what it was before the round and of the trained model.

    >>> one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> was = {name: torch.zeros_like(t) for name, t in one.state_dict().items()}
    >>> follow(one, two, was, memory=0.5)
    >>> torch.equal(one.weight, two.weight / 2)
    True
    """
    for name, tensor in model.state_dict().items():
        own = personal.state_dict()[name]
        if memory and tensor.is_floating_point():
            own.copy_(memory * before[name] + (1 - memory) * tensor)
        else:
            own.copy_(tensor)
