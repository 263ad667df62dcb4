"""What a local update works with: models, optimisers, batches, and the step."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from counterpoint.data.batches import Batch
from counterpoint.extents import Extents
from counterpoint.payload import Payload
from counterpoint.perturbation import Perturbation, perturbed_gradient
from counterpoint.privacy.records import NoisedGradient
from counterpoint.tasks import Scorer, Task


@runtime_checkable
class LocalUpdate(Protocol):
    """How a site trains in a round. A site holds one model or several, each with a role.

    ``roles`` names them, ``shared`` is the one that takes part in the exchange and ``predicts``
    the one that the site uses.
    """

    kind: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    shared: ClassVar[str]
    predicts: ClassVar[str]

    def train(self, training: "Training") -> Iterator[str]:
        """Train the local epochs of a round.

        Yields after each epoch what it was, for the records: the stage of a method that has
        stages, else an empty text. The models are scored there.
        """
        ...


@dataclass
class Training:
    """A site's round of training, as a local update sees it.

    Attributes:
        models: one a role, on the device, in training mode.
        optimizers: one a role.
        task: losses and scores.
        batches: gives an epoch's augmented batches: images (N, C, *space) in 0..1 and their
            labels (N,) or masks (N, *space).
        plain_batches: gives the training images as they are, with their cases.
        calibrating: the same in batches no smaller than those of training, for batch norm.
        alone: whether this is fine-tuning after the last merge, for the site itself.
        perturbation: of the weights in every step; None for a plain step.
        precision: type in which networks compute (float32, or bfloat16 by autocast).
        epochs: local epochs in the round.
        start: parameters of the shared model at the start of the round, by name.
        received: what of the last mean is meant for the local update; names begin with "local.".
        memory: tensors that the site keeps from round to round, by name.
        outgoing: what leaves the site beside the weights; names begin with "local.".
        gradients: images that a gradient was computed for so far.
        steps: optimiser steps of each model so far.
        share: what part of its batch the present images are; below 1 where a batch is too large
            for the device and comes in parts.
        complete: the present images are the last part of their batch.
        noised: the models whose gradients are clipped image by image and noised.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    task: Task
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    plain_batches: Callable[[], Iterator[Batch]]
    calibrating: Callable[[], Iterator[Batch]] = lambda: iter(())
    alone: bool = False
    perturbation: Perturbation | None = None
    precision: torch.dtype = torch.float32
    epochs: int = 1
    start: Mapping[str, Tensor] = field(default_factory=dict)
    received: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Payload = field(default_factory=dict)
    outgoing: Payload = field(default_factory=dict)
    gradients: int = 0
    steps: dict[str, int] = field(default_factory=dict)
    share: float = 1.0
    complete: bool = True
    noised: Mapping[str, NoisedGradient] = field(default_factory=dict)
    _losses: dict[str, list[Tensor]] = field(default_factory=dict)
    _shares: dict[str, float] = field(default_factory=dict)
    _gradients: dict[str, list[Tensor | None]] = field(default_factory=dict)

    def whole_batches(self) -> Iterator[list[tuple[Tensor, Tensor, float]]]:
        """An epoch's batches with all their parts at once: images, target, share of the batch."""
        parts = []
        for images, target in self.batches():
            parts.append((images, target, self.share))
            if self.complete:
                yield parts
                parts = []

    def parts_of(
        self, batch: list[tuple[Tensor, Tensor, float]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One of :meth:`whole_batches` part by part, as often as it is asked for."""
        for number, (images, target, share) in enumerate(batch, start=1):
            self.share, self.complete = share, number == len(batch)
            yield images, target

    def forward(self, role: str, images: Tensor) -> Tensor:
        """Outputs of the model of ``role``, in float32."""
        return self.forward_of(self.models[role], images)

    def forward_of(self, model: nn.Module, images: Tensor) -> Tensor:
        """Outputs of any model, in the run's precision, as float32."""
        with computing_in(self.precision, images):
            return model(images).float()  # type: ignore[no-any-return]

    def step(
        self, role: str, images: Tensor, outputs: Tensor, loss_of: Callable[[Tensor], Tensor]
    ) -> None:
        """One optimiser step of the model of ``role``, once its batch is complete.

        ``outputs`` come from :meth:`forward` on the same ``images``; ``loss_of`` turns outputs
        into a loss and is called a second time, on new outputs, where weights are perturbed.
        Gradients of the parts of a batch are added up, each with its share.
        """
        model, optimizer = self.models[role], self.optimizers[role]
        loss = loss_of(outputs)
        if role in self.noised:
            self.noised[role].take(loss, self.complete)
        elif self.perturbation:
            perturbed_gradient(
                model, loss, lambda: loss_of(self.forward(role, images)), self.perturbation
            )
        else:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        if self.share < 1 and role not in self.noised:
            self._add_up(role, list(model.parameters()))
        if self.complete:
            optimizer.step()
            self.steps[role] = self.steps.get(role, 0) + 1
        self.gradients += len(images) * (2 if self.perturbation else 1)
        self._losses.setdefault(role, []).append(loss.detach() * self.share)
        self._shares[role] = self._shares.get(role, 0.0) + self.share

    def _add_up(self, role: str, weights: list[nn.Parameter]) -> None:
        """Add the share of the present gradients to those of the batch's earlier parts."""
        before = self._gradients.pop(role, [None] * len(weights))
        for weight, earlier in zip(weights, before, strict=True):
            if weight.grad is not None:
                weight.grad *= self.share
                if earlier is not None:
                    weight.grad += earlier
        if not self.complete:
            self._gradients[role] = [weight.grad for weight in weights]
            for weight in weights:
                weight.grad = None

    def epoch_loss(self, role: str) -> float:
        """Mean training loss over the steps since the last call; NaN if there were none."""
        losses, steps = self._losses.pop(role, []), self._shares.pop(role, 0.0)
        return torch.stack(losses).sum().item() / steps if losses else math.nan

    def training_scores(self, passed: Mapping[str, Scorer] | None = None) -> dict[str, float]:
        """Each model's score (macro-F1, Dice) on the training images, in one pass over them.

        ``passed`` are scorers that have seen the images already: then there is no pass.
        """
        scorers = passed or evaluate(self.models, self.plain_batches(), self.task, self.precision)
        return {role: scorer.scores()[self.task.score] for role, scorer in scorers.items()}


def computing_in(precision: torch.dtype, images: Tensor) -> torch.autocast:
    """Let networks compute in ``precision``: autocast, or nothing for float32."""
    half = precision != torch.float32
    return torch.autocast(images.device.type, precision if half else None, enabled=half)


@torch.inference_mode()
def evaluate(
    models: Mapping[str, nn.Module],
    batches: Iterable[Batch],
    task: Task,
    precision: torch.dtype = torch.float32,
    extents: Extents | None = None,
) -> dict[str, Scorer]:
    """Score every model, in evaluation mode, in one pass; the slow scores only with extents."""
    was_training = {role: model.training for role, model in models.items()}
    scorers = {role: task.scorer(extents) for role in models}
    for model in models.values():
        model.eval()
    for images, target, cases, rows in batches:
        with computing_in(precision, images):
            outputs = {role: model(images) for role, model in models.items()}
        for role, output in outputs.items():
            scorers[role].add(output.float(), target, cases, rows)
    for role, model in models.items():
        model.train(was_training[role])
    return scorers


def squared_distance(model: nn.Module, start: Mapping[str, Tensor]) -> Tensor:
    """||w - w_start||^2 over all parameters of ``model``; ``start`` holds w_start by name.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 5.0)
    >>> squared_distance(layer, {"weight": torch.tensor([[3.0]])}).item()
    4.0
    """
    squares = [(p - start[name]).square().sum() for name, p in model.named_parameters()]
    return torch.stack(squares).sum()
