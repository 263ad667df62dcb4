"""A personal model that starts from the merged one in every round, at no extra gradient (ours)."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from counterpoint.layers import running_statistics
from counterpoint.local.training import Training
from counterpoint.ranges import Fraction
from counterpoint.statistics import recalibrate


@dataclass(frozen=True)
class Adapted:
    """One model is trained and shared; the site predicts with what it has made of it.

    The personal model lies between the merged model and what the site's local epochs have made of
    it, w_p = blend * w_merged + (1 - blend) * w: between two such models there is no barrier, and
    the middle is often better than both ends (Wortsman et al.: Robust fine-tuning of zero-shot
    models, CVPR 2022). Its batch norm is calibrated on the training images, without labels. A merge
    does not touch it, so there is nothing to fall back from.
    """

    kind: ClassVar[str] = "adapted"
    roles: ClassVar[tuple[str, ...]] = ("personal", "model")
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "personal"
    blend: Fraction = 0.5

    def train(self, training: Training) -> Iterator[str]:
        """One step for every batch; the personal model follows after each epoch."""
        model, personal = training.models["model"], training.models["personal"]
        merged = copy.deepcopy(model.state_dict())
        for _ in range(training.epochs):
            for images, target in training.batches():
                outputs = training.forward("model", images)
                training.step("model", images, outputs, partial(training.task.loss, target=target))
            blend_into(personal, merged, model, self.blend)
            if self.blend:
                recalibrate(personal, (batch.images for batch in training.calibrating()))
            yield ""


@torch.no_grad()
def blend_into(
    personal: nn.Module, merged: dict[str, torch.Tensor], model: nn.Module, blend: float
) -> None:
    """Overwrite ``personal`` with blend * merged + (1 - blend) * model.

    That is for weights and batch norm's statistics; all else is as in ``model``.

    >>> one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> blend_into(one, {n: torch.zeros_like(t) for n, t in two.state_dict().items()}, two, 0.5)
    >>> torch.equal(one.weight, two.weight / 2)
    True
    """
    own = personal.state_dict()
    mixed = dict(model.named_parameters()).keys() | running_statistics(model).keys()
    for name, tensor in model.state_dict().items():
        between = name in mixed and tensor.is_floating_point()
        own[name].copy_(blend * merged[name] + (1 - blend) * tensor if between else tensor)
