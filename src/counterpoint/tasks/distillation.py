"""A teacher's distribution over the classes, and how far a student is from it."""

from torch import Tensor
from torch.nn import functional as F


def kl_divergence(teacher: Tensor, student: Tensor, counted: Tensor | None = None) -> Tensor:
    """KL(teacher || student) at temperature 1, mean over images and pixels; teacher detached.

    Both are logits (N, classes) or (N, classes, *space). ``counted`` (N, ...) says which images or
    pixels are; all where left out. Zero where they agree:

    >>> z = Tensor([[1.0, -2.0, 0.5]])
    >>> kl_divergence(z, z).item()
    0.0
    """
    loss = F.kl_div(
        F.log_softmax(student.float(), dim=1),
        F.log_softmax(teacher.detach().float(), dim=1),
        reduction="none",
        log_target=True,
    )
    return _mean(loss.sum(1), counted)


def squared_difference(teacher: Tensor, student: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean squared difference of the class probabilities; teacher detached (IEEE TMI 2022).

    Arguments as of :func:`kl_divergence`.
    """
    difference = student.float().softmax(1) - teacher.detach().float().softmax(1)
    return _mean(difference.square().mean(1), counted)


def _mean(losses: Tensor, counted: Tensor | None) -> Tensor:
    """Mean of what is counted; 0 if nothing is."""
    if counted is None:
        return losses.mean()
    return (losses * counted).sum() / counted.sum().clamp(min=1)
