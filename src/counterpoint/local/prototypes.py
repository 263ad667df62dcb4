"""The conjoint prototype-aligned loss of PRR-FL's journal version (Chen et al., IEEE TMI 2022)."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from counterpoint.layers import watched_features
from counterpoint.local.deputy import DeputyTransfer
from counterpoint.local.training import Training, computing_in
from counterpoint.ranges import NotNegative, Positive

COUNTS, SUMS, PRESENT = "local.counts", "local.prototypes", "local.present"


@dataclass(frozen=True)
class PrototypeDeputy(DeputyTransfer):
    """Deputy-Enhanced Transfer with a loss that minds rare classes and prototypes.

    The loss of an image (or pixel) of class c with logits z is -g_c log p_c, with
    p_c = e^{z_c} / (e^{z_c} + sum_{j != c} s_cj e^{z_j}). s_cj = (N_j / N_c)^beta where class c has
    more images in the whole federation than class j, else 1, so that frequent classes press rare
    ones less. g_c = (1 + tau) / (cos(local prototype, global prototype) + tau) in round
    ``warm_up`` + 1 of the site and later, 1 before: a class counts more where the site sees it
    otherwise than the federation. A prototype is the mean feature of a class, of the deputy,
    before the last layer. What leaves the site beside the weights: its counts and its prototypes.
    The released code adds noise to the global prototypes of images, which is left out here.
    """

    kind: ClassVar[str] = "prototype-deputy"
    beta: NotNegative = 0.8
    tau: Positive = 3.0
    warm_up: int = 15

    def train(self, training: Training) -> Iterator[str]:
        """Deputy-Enhanced Transfer with the aligned loss, then the site's prototypes."""
        classes = training.task.outputs
        rounds = int(training.memory.get("rounds", torch.zeros(()))) + 1
        counts, sums = class_features(training, classes)
        common = training.received
        own = sums / counts.clamp(min=1)[:, None]
        weights = torch.ones_like(counts)
        if rounds > self.warm_up and SUMS in common:
            agreed = common[SUMS] / common[PRESENT].clamp(min=1e-12)[:, None]
            seen = (counts > 0) & (common[PRESENT] > 0)
            cosine = F.cosine_similarity(own, agreed)
            weights = torch.where(seen, (1 + self.tau) / (cosine + self.tau), 1.0)
        shift = log_pressure(common.get(COUNTS, counts), self.beta)
        task = training.task
        training.task = task.with_loss(partial(aligned, shift=shift, weights=weights))
        try:
            yield from super().train(training)
        finally:
            training.task = task
        training.memory["rounds"] = torch.tensor(float(rounds))
        counts, sums = class_features(training, classes)
        training.outgoing |= {
            COUNTS: counts,
            SUMS: sums / counts.clamp(min=1)[:, None],
            PRESENT: (counts > 0).float(),
        }


def log_pressure(counts: Tensor, beta: float) -> Tensor:
    """Log s_cj (classes, classes) of class counts (classes,): row c is added to the logits.

    Only their proportions matter. A class that nobody has counts as the rarest.

    >>> log_pressure(torch.tensor([2.0, 0.25, 0.0]), beta=1.0).exp()
    tensor([[1.0000, 0.1250, 0.1250],
            [1.0000, 1.0000, 1.0000],
            [1.0000, 1.0000, 1.0000]])
    """
    rarest = counts.where(counts > 0, torch.inf).min().clamp(max=1)
    log = counts.where(counts > 0, rarest).log()
    return beta * (log[None, :] - log[:, None]).clamp(max=0)


def aligned(logits: Tensor, target: Tensor, shift: Tensor, weights: Tensor) -> Tensor:
    """The aligned loss of logits (N, classes, ...) and target (N, ...), mean over what counts.

    Without pressure and with equal weights it is the cross-entropy:

    >>> z, y = torch.randn(4, 3), torch.tensor([0, 1, 2, -1])
    >>> loss = aligned(z, y, torch.zeros(3, 3), torch.ones(3))
    >>> torch.allclose(loss, F.cross_entropy(z, y, ignore_index=-1))
    True
    """
    counted = target >= 0
    z = logits.movedim(1, -1)[counted]
    y = target[counted]
    losses = F.cross_entropy(z + shift.to(z)[y], y, reduction="none")
    return (weights.to(z)[y] * losses).sum() / counted.sum().clamp(min=1)


@torch.no_grad()
def class_features(training: Training, classes: int) -> tuple[Tensor, Tensor]:
    """Counts (classes,) and sums of the deputy's features (classes, F) over the training images."""
    deputy = training.models["deputy"]
    was_training = deputy.training
    deputy.eval()
    counts, sums = torch.zeros(classes), torch.zeros(())
    with watched_features(deputy) as features:
        for batch in training.plain_batches():
            with computing_in(training.precision, batch.images):
                deputy(batch.images)
            found = features().float().movedim(1, -1)
            target = batch.target
            if target.shape != found.shape[:-1]:  # features of another size than the mask
                found = found.flatten(1, -2).mean(1)[:, None].expand(-1, target[0].numel(), -1)
                target = target.reshape(len(target), -1)
            counted = target >= 0
            one_hot = F.one_hot(target[counted], classes).to(found)
            sums = sums.to(found) + one_hot.T @ found[counted]
            counts = counts.to(found) + one_hot.sum(0)
    deputy.train(was_training)
    return counts, sums
