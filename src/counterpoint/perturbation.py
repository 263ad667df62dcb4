"""Weight perturbation towards flat optima (HarmoFL, AAAI 2022, equations 6 and 7).

The gradient is taken a second time at theta + delta, delta = alpha * g / ||g||, and the optimiser
steps from theta with it. The norm runs over all parameters together. The second pass must not move
batch norm's running statistics: they would count every batch twice, at weights that nobody keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from counterpoint.layers import frozen_statistics


@dataclass(frozen=True)
class Perturbation:
    """How far, and measured how, the weights are moved for the second gradient.

    ``length`` is HarmoFL's alpha (0.05), which is the rho of sharpness-aware minimisation (Foret et
    al., ICLR 2021). With ``adaptive``, directions are scaled by the size of each weight (ASAM, Kwon
    et al., ICML 2021): delta = rho * t^2 g / ||t g|| with t = |w| + 0.01.
    """

    length: float
    adaptive: bool = False

    def of(self, weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """The perturbation delta of each weight."""
        scales = [w.abs() + 0.01 for w in weights] if self.adaptive else None
        steep = torch._foreach_mul(gradients, scales) if scales else gradients
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(steep)))
        length = self.length / (norm + 1e-12)
        return [g * length for g in (torch._foreach_mul(steep, scales) if scales else steep)]


def perturbed_gradient(
    model: nn.Module,
    loss: Tensor,
    loss_again: Callable[[], Tensor],
    perturbation: Perturbation,
) -> None:
    """Leave the gradient at the perturbed weights in ``.grad``, and the weights as they were.

    Whatever optimiser steps with it then, its weight decay is not part of the ascent direction.

    Args:
        model: the model; what is in ``.grad`` is overwritten.
        loss: the loss at the present weights, with its graph.
        loss_again: computes the loss on the same batch anew, at the perturbed weights.
        perturbation: its length (0.05 in the paper) and how it is measured.

    >>> w = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(w.weight, 2.0)
    >>> loss = lambda: (w.weight**2).sum() / 2  # gradient = w
    >>> perturbed_gradient(w, loss(), loss, Perturbation(0.5))
    >>> w.weight.item(), w.weight.grad.item()
    (2.0, 2.5)
    """
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    moved = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    with torch.no_grad():
        kept = [p.clone() for p in moved]
        for parameter, delta in zip(moved, perturbation.of(kept, gradients), strict=True):
            parameter.add_(delta)
    model.zero_grad()
    with frozen_statistics(model):
        loss_again().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter, weight in zip(moved, kept, strict=True):
            parameter.copy_(weight)
