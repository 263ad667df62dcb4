"""A teacher's distribution over the classes, and how far a student is from it."""

from torch import Tensor
from torch.nn import functional as F


def kl_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(teacher || student) at temperature 1, mean over images and pixels; teacher detached.

    Both are logits (N, classes) or (N, classes, *space). Zero where they agree:

    >>> z = Tensor([[1.0, -2.0, 0.5]])
    >>> kl_divergence(z, z).item()
    0.0
    """
    loss = F.kl_div(
        F.log_softmax(student.float(), dim=1),
        F.log_softmax(teacher.detach().float(), dim=1),
        reduction="sum",
        log_target=True,
    )
    return loss * student.shape[1] / student.numel()


def squared_difference(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared difference of the class probabilities; teacher detached (IEEE TMI 2022)."""
    return F.mse_loss(student.float().softmax(1), teacher.detach().float().softmax(1))
