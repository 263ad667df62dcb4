"""Weight perturbation towards flat optima (HarmoFL, AAAI 2022, equations 6 and 7).

The gradient is taken a second time at theta + delta, delta = alpha * g / ||g||, and the optimiser
steps from theta with it. The norm runs over all parameters together. The second pass must not move
batch norm's running statistics: they would count every batch twice, at weights that nobody keeps.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from counterpoint.layers import frozen_statistics


def perturbed_step(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Tensor,
    loss_again: Callable[[], Tensor],
    alpha: float,
) -> None:
    """One optimiser step with weight perturbation.

    Args:
        model: the model whose parameters ``optimizer`` holds.
        optimizer: any optimiser; its weight decay is not part of the ascent direction.
        loss: the loss at the present weights, with its graph.
        loss_again: computes the loss on the same batch anew, at the perturbed weights.
        alpha: length of the perturbation (0.05 in the paper); 0 leaves the plain step, at the
            price of two passes.

    >>> w = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(w.weight, 2.0)
    >>> loss = lambda: (w.weight**2).sum() / 2  # gradient = w
    >>> perturbed_step(w, torch.optim.SGD(w.parameters(), lr=1.0), loss(), loss, alpha=0.5)
    >>> w.weight.item()  # 2 - (2 + 0.5)
    -0.5
    """
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    moved = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in moved if p.grad is not None]
    with torch.no_grad():
        norm = torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(g) for g in gradients])
        )
        scale = alpha / (norm + 1e-12)
        kept = [p.clone() for p in moved]
        for parameter, gradient in zip(moved, gradients, strict=True):
            parameter.add_(gradient * scale)
    optimizer.zero_grad()
    with frozen_statistics(model):
        loss_again().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter, weight in zip(moved, kept, strict=True):
            parameter.copy_(weight)
    optimizer.step()
