"""Control variates (SCAFFOLD, Karimireddy et al., ICML 2020, algorithm 1, option II)."""

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from counterpoint.aggregation.normalised import step_weight
from counterpoint.local.training import Training

CONTROL = "local.control."


@dataclass(frozen=True)
class ControlVariates:
    """Every step follows g - c_i + c: the site's own drift c_i off, the federation's c on.

    After the round, c_i becomes c_i - c + (x - y) / (K * lr): x are the weights at its start, y at
    its end, K the steps. What leaves the site beside y is the change of c_i; the server adds its
    mean to c (server update ``control``). The correction is a term <c - c_i, y> of the loss, whose
    gradient it is. All controls begin at 0. The algorithm is made for SGD without momentum; with
    it, a gradient counts in several steps, and K is the sum of these weights (`step_weight`).
    Fine-tuning after the last merge is for the site alone and has no correction.
    """

    kind: ClassVar[str] = "control-variates"
    roles: ClassVar[tuple[str, ...]] = ("model",)
    shared: ClassVar[str] = "model"
    predicts: ClassVar[str] = "model"

    def train(self, training: Training) -> Iterator[str]:
        """One corrected step for every batch, then the new control."""
        model = training.models["model"]
        zero = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        own = {name: training.memory.get(name, z) for name, z in zero.items()}
        common = {name: training.received.get(CONTROL + name, z) for name, z in zero.items()}
        correction = zero if training.alone else {n: common[n] - own[n] for n in zero}
        for _ in range(training.epochs):
            for images, target in training.batches():
                outputs = training.forward("model", images)
                loss = partial(self.loss, training, target, correction)
                training.step("model", images, outputs, loss)
            yield ""
        sgd = training.optimizers["model"].param_groups[0]
        way = step_weight(training.steps["model"], sgd["momentum"]) * float(sgd["lr"])
        for name, y in model.named_parameters():
            moved = (training.start[name] - y.detach()) / way
            training.memory[name] = moved - correction[name]
            training.outgoing[CONTROL + name] = training.memory[name] - own[name]

    def loss(
        self, training: Training, target: Tensor, correction: dict[str, Tensor], outputs: Tensor
    ) -> Tensor:
        """The task's loss with the linear term."""
        parameters = training.models["model"].named_parameters()
        terms = [(correction[name] * p).sum() for name, p in parameters]
        return training.task.loss(outputs, target) + torch.stack(terms).sum()
