"""First the head, then the body (FedRep, Collins et al., ICML 2021, algorithm 1)."""

from collections.abc import Iterator, Set
from functools import partial
from typing import ClassVar

from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.layers import head_parameters
from counterpoint.local.training import Training
from counterpoint.ranges import Count


@dataclass(frozen=True)
class Alternating:
    """The local epochs train the head with the body fixed; the last ``body_epochs`` the body.

    With no more local epochs than that, every batch is a step of the head and then one of the body.
    The head is the last layer with weights, see `counterpoint.layers.head_parameters`.
    """

    kind: ClassVar[str] = "alternating"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"
    body_epochs: Count = 1

    def train(self, training: Training) -> Iterator[str]:
        """One step of head or body, or of both, for every batch."""
        model = training.models["model"]
        both = training.epochs <= self.body_epochs
        learnt = {name for name, p in model.named_parameters() if p.requires_grad}
        head = learnt & head_parameters(model)
        names = {"head": head, "body": learnt - head}
        try:
            for epoch in range(training.epochs):
                late = epoch >= training.epochs - self.body_epochs
                parts = ("head", "body") if both else ("body",) if late else ("head",)
                for batch in training.whole_batches():
                    for part in parts:
                        train_only(model, names[part])
                        for images, target in training.parts_of(batch):
                            outputs = training.forward("model", images)
                            loss = partial(training.task.loss, target=target)
                            training.step("model", images, outputs, loss)
                yield " and ".join(parts)
        finally:
            train_only(model, learnt)


def train_only(model: nn.Module, names: Set[str]) -> None:
    """Let gradients reach only the parameters of these names."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
