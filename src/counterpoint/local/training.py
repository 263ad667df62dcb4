"""What a local update works with: models, optimisers, batches, and the step."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from counterpoint.perturbation import perturbed_step
from counterpoint.tasks import Classification


@runtime_checkable
class LocalUpdate(Protocol):
    """How a site trains. A site holds one model or several, each with a role.

    ``roles`` names them, ``shared`` is the one that takes part in the exchange and ``predicts``
    the one that the site uses.
    """

    kind: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    shared: ClassVar[str]
    predicts: ClassVar[str]

    def epoch(self, training: "Training") -> None:
        """Train all models for one local epoch."""
        ...


@dataclass
class Training:
    """A site's round of training, as a local update sees it.

    Attributes:
        models: one a role, on the device, in training mode.
        optimizers: one a role.
        task: losses and scores.
        batches: gives the epoch's augmented batches, images (N, C, S, S) in 0..1 and labels (N,).
        plain_batches: gives the training images in order and as they are, to score or calibrate.
        alpha: length of the weight perturbation; 0 for a plain step.
        precision: type in which networks compute (float32, or bfloat16 by autocast).
        epochs: local epochs in the round.
        stage: what a local update did in its last epoch, for the records; empty where it has none.
        start: parameters of the shared model at the start of the round, by name.
        gradients: images that a gradient was computed for so far.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    task: Classification
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    plain_batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    alpha: float = 0.0
    precision: torch.dtype = torch.float32
    epochs: int = 1
    stage: str = ""
    start: Mapping[str, Tensor] = field(default_factory=dict)
    gradients: int = 0
    _losses: dict[str, list[Tensor]] = field(default_factory=dict)

    def forward(self, role: str, images: Tensor) -> Tensor:
        """Logits of the model of ``role``, in float32."""
        with computing_in(self.precision, images):
            return self.models[role](images).float()  # type: ignore[no-any-return]

    def step(
        self, role: str, images: Tensor, logits: Tensor, loss_of: Callable[[Tensor], Tensor]
    ) -> None:
        """One optimiser step of the model of ``role``.

        ``logits`` come from :meth:`forward` on the same ``images``; ``loss_of`` turns logits into
        a loss and is called a second time, on new logits, where weights are perturbed.
        """
        model, optimizer = self.models[role], self.optimizers[role]
        loss = loss_of(logits)
        if self.alpha:
            perturbed_step(
                model, optimizer, loss, lambda: loss_of(self.forward(role, images)), self.alpha
            )
        else:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.gradients += len(images) * (2 if self.alpha else 1)
        self._losses.setdefault(role, []).append(loss.detach())

    def epoch_loss(self, role: str) -> float:
        """Mean training loss over the steps since the last call; NaN if there were none."""
        losses = self._losses.pop(role, [])
        return torch.stack(losses).mean().item() if losses else math.nan

    @torch.no_grad()
    def training_scores(self) -> dict[str, dict[str, float]]:
        """Scores of every model on the site's training images, in one pass over the data."""
        outputs, labels = predict(self.models, self.plain_batches(), self.precision)
        return {role: self.task.scores(logits, labels) for role, logits in outputs.items()}


def computing_in(precision: torch.dtype, images: Tensor) -> torch.autocast:
    """Let networks compute in ``precision``: autocast, or nothing for float32."""
    half = precision != torch.float32
    return torch.autocast(images.device.type, precision if half else None, enabled=half)


@torch.inference_mode()
def predict(
    models: Mapping[str, nn.Module],
    batches: Iterator[tuple[Tensor, Tensor]],
    precision: torch.dtype = torch.float32,
) -> tuple[dict[str, Tensor], Tensor]:
    """Logits (N, classes) of every model, in evaluation mode, and the labels (N,), on the CPU."""
    was_training = {role: model.training for role, model in models.items()}
    for model in models.values():
        model.eval()
    outputs: dict[str, list[Tensor]] = {role: [] for role in models}
    all_labels: list[Tensor] = []
    for images, labels in batches:
        with computing_in(precision, images):
            for role, model in models.items():
                outputs[role].append(model(images).float().cpu())
        all_labels.append(labels.cpu())
    for role, model in models.items():
        model.train(was_training[role])
    return {role: torch.cat(logits) for role, logits in outputs.items()}, torch.cat(all_labels)
