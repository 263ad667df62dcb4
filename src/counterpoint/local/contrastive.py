"""Model-contrastive local training (MOON, Li, He, Song, CVPR 2021, equations 1 to 3)."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from counterpoint.layers import watched_features
from counterpoint.local.training import Training, computing_in
from counterpoint.ranges import NotNegative, Positive


@dataclass(frozen=True)
class Contrastive:
    """The task's loss + mu * l_con, which draws features to the global model's.

    l_con = -log(e^{cos(z, z_glob)/tau} / (e^{cos(z, z_glob)/tau} + e^{cos(z, z_prev)/tau})): z
    are the features of the model in training, z_glob those of the model that the site received,
    z_prev those of the model that it had at the end of its last round. There is no such model in
    the first round, and no contrast. Features are what enters the last layer, averaged over space;
    the paper puts a projection head before it, which other networks do not have.
    """

    kind: ClassVar[str] = "contrastive"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"
    mu: NotNegative = 1.0
    temperature: Positive = 0.5

    def train(self, training: Training) -> Iterator[str]:
        """One step for every batch; then remember the model."""
        model = training.models["model"]
        received = copy.deepcopy(model).eval()
        previous = copy.deepcopy(received)
        if training.memory:
            previous.load_state_dict(training.memory)
        with (
            watched_features(model) as own,
            watched_features(received) as near,
            watched_features(previous) as far,
        ):
            for _ in range(training.epochs):
                for images, target in training.batches():
                    contrast_of = None
                    if training.memory:
                        with torch.no_grad(), computing_in(training.precision, images):
                            received(images)
                            previous(images)
                        contrast_of = partial(contrast, near=pooled(near()), far=pooled(far()))
                    outputs = training.forward("model", images)
                    loss = partial(self.loss, training, target, own, contrast_of)
                    training.step("model", images, outputs, loss)
                yield ""
        training.memory = {n: t.detach().clone() for n, t in model.state_dict().items()}

    def loss(
        self,
        training: Training,
        target: Tensor,
        own: Callable[[], Tensor],
        contrast_of: Callable[..., Tensor] | None,
        outputs: Tensor,
    ) -> Tensor:
        """The task's loss with the contrast of the features of the last forward pass."""
        loss = training.task.loss(outputs, target)
        if contrast_of is None:
            return loss
        return loss + self.mu * contrast_of(pooled(own()), temperature=self.temperature)


def pooled(features: Tensor) -> Tensor:
    """Features (N, F, *space) averaged over space, (N, F) in float32."""
    return features.float().flatten(2).mean(2) if features.dim() > 2 else features.float()


def contrast(z: Tensor, near: Tensor, far: Tensor, temperature: float) -> Tensor:
    """The model-contrastive loss of features (N, F), mean over the batch (equation 2).

    >>> z = torch.tensor([[1.0, 0.0]])
    >>> round(contrast(z, z, -z, temperature=1.0).item(), 4)  # log(1 + e^-2)
    0.1269
    """
    similar = torch.stack([F.cosine_similarity(z, other) for other in (near, far)], dim=1)
    nearest = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    return F.cross_entropy(similar / temperature, nearest)
