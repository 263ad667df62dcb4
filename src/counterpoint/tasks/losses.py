"""Losses by name. The rarer ones of segmentation come from MONAI."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["default", "cross-entropy", "balanced", "joint", "dice-ce", "dice-focal"]


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, classes, ...) and target (N, ...); -1 does not count.

    Where nothing counts, as in patches outside a field of view, it is 0 and has no gradient.
    """
    total = F.cross_entropy(logits, target, ignore_index=-1, reduction="sum")
    return total / (target >= 0).sum().clamp(min=1)


def balanced(
    logits: Tensor, target: Tensor, frequencies: Tensor | None = None, strength: float = 1.0
) -> Tensor:
    """Cross-entropy of logits that are shifted by ``strength`` log of the class ``frequencies``.

    With strength 1 a network predicts as if all classes were equally frequent (Menon et al.:
    Long-tail learning via logit adjustment, ICLR 2021, equation 10). Macro-F1 of a site with very
    rare classes is best somewhere between that and 0, the plain loss.

    Equal frequencies change nothing, and where they are not known (at a site that did not train)
    they count as equal; a rare class has to be shown more surely:

    >>> z, y = torch.zeros(1, 2), torch.tensor([1])
    >>> balanced(z, y, torch.tensor([0.75, 0.25])) > balanced(z, y, torch.tensor([0.5, 0.5]))
    tensor(True)
    """
    if frequencies is None:
        return cross_entropy(logits, target)
    shift = strength * frequencies.to(logits).clamp(min=1e-6).log()
    return cross_entropy(logits + shift.view(1, -1, *[1] * (logits.dim() - 2)), target)


def inside(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Make pixels that are not to be scored (-1) perfectly predicted background.

    They then weigh nothing for the classes of interest, in any loss.
    """
    outside = target < 0
    if not bool(outside.any()):
        return logits, target
    sure = torch.full_like(logits, -50.0)
    sure[:, 0] = 50.0
    return torch.where(outside.unsqueeze(1), sure, logits), target.clamp(min=0)


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """1 - the Dice of the class probabilities, mean over images and classes, as MONAI's DiceLoss.

    Written out because it is the default of segmentation, and importing MONAI takes seconds.

    >>> soft_dice(torch.tensor([[[30.0, 0.0], [0.0, 30.0]]]), torch.tensor([[0, 1]])).item() < 1e-4
    True
    """
    probabilities = logits.softmax(1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probabilities)
    both = (probabilities * truth).flatten(2).sum(2)
    everything = (probabilities + truth).flatten(2).sum(2)
    return (1 - (2 * both + 1e-5) / (everything + 1e-5)).mean()


@cache
def _monai(name: str) -> Any:
    """A loss of MONAI, made when it is first used: importing MONAI takes seconds."""
    from monai import losses

    return getattr(losses, name)(softmax=True, to_onehot_y=True)


def joint(logits: Tensor, target: Tensor) -> Tensor:
    """(cross-entropy + soft Dice loss) / 2, background included, as HarmoFL's code has it."""
    return (cross_entropy(logits, target) + soft_dice(*inside(logits, target))) / 2


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy + soft Dice loss (MONAI's DiceCELoss)."""
    seen, classes = inside(logits, target)
    loss: Tensor = _monai("DiceCELoss")(seen, classes.unsqueeze(1))
    return loss


def dice_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Focal loss + soft Dice loss (MONAI's DiceFocalLoss)."""
    seen, classes = inside(logits, target)
    loss: Tensor = _monai("DiceFocalLoss")(seen, classes.unsqueeze(1))
    return loss


LOSSES: dict[str, dict[str, Callable[..., Tensor]]] = {
    "classification": {
        "default": cross_entropy,
        "cross-entropy": cross_entropy,
        "balanced": balanced,
    },
    "segmentation": {
        "default": joint,
        "cross-entropy": cross_entropy,
        "joint": joint,
        "dice-ce": dice_ce,
        "dice-focal": dice_focal,
    },
}
"""What each task can be trained with."""
