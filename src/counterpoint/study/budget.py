"""The same budget for every entry: gradients are counted, and local epochs cut to fit."""

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import nn

from counterpoint.data.batches import Batch
from counterpoint.errors import SettingsError
from counterpoint.local import Training
from counterpoint.methods import Method, Schedule
from counterpoint.methods.method import SEGMENTATION
from counterpoint.perturbation import Perturbation
from counterpoint.tasks.classification import Classification

Budget = Literal["gradients", "epochs"]

OWN = ("loss", "balance", "weighting", "finetune_epochs")
"""Parts of a schedule that belong to a method's idea; all others can be the same for all."""

_IMAGES = 2


def common_schedule(task: str) -> dict[str, Any]:
    """How every entry trains where nothing is said: rounds, network, optimiser and so on.

    They are the defaults of `counterpoint.Schedule` for the task, by their full names.

    >>> common_schedule("classification")["schedule.rounds"]
    50
    """
    schedule = SEGMENTATION if task == "segmentation" else Schedule()
    names = [field.name for field in fields(schedule) if field.name not in OWN]
    return {f"schedule.{name}": getattr(schedule, name) for name in names}


def gradients_an_image(method: Method, epochs: int) -> float:
    """Gradients that a method computes for each training image in a round of ``epochs``.

    They are counted, by letting it train a tiny network on a single batch, so that they hold for
    any local update: two a local epoch where two models learn, or weights are perturbed.

    Raises:
        SettingsError: if the method can't train that network.

    >>> from counterpoint.methods import find_method
    >>> [gradients_an_image(find_method(name), 3) for name in ("fedavg", "prrfl", "fedrep")]
    [3.0, 6.0, 3.0]
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        training = _tiny_training(method, epochs)
        try:
            for _ in method.local.train(training):
                pass
        except Exception as error:  # whatever a local update of one's own may raise
            raise SettingsError(
                f"the gradients of {method.name} can't be counted ({error}); use --budget epochs"
            ) from error
    return training.gradients / _IMAGES


@dataclass(frozen=True)
class Fit:
    """Local epochs for a budget, and what they cost: gradients an image in a round."""

    epochs: int
    gradients: float


def fitting_epochs(method: Method, budget: int) -> Fit:
    """The most local epochs that need no more gradients than ``budget`` plain ones; at least one.

    >>> from counterpoint.methods import find_method
    >>> fitting_epochs(find_method("prrfl"), 4), fitting_epochs(find_method("fedavg"), 4)
    (Fit(epochs=2, gradients=4.0), Fit(epochs=4, gradients=4.0))
    >>> fitting_epochs(find_method("prrfl"), 5)
    Fit(epochs=2, gradients=4.0)
    """
    for epochs in range(budget, 0, -1):
        gradients = gradients_an_image(method, epochs)
        if gradients <= budget or epochs == 1:
            return Fit(epochs, gradients)
    raise SettingsError(f"a budget of {budget} local epochs is none; give at least 1")


def _tiny_training(method: Method, epochs: int) -> Training:
    task = Classification(("a", "b"))
    models = {role: _tiny_network() for role in method.local.roles}
    images, labels = torch.rand(_IMAGES, 3, 4, 4), torch.arange(_IMAGES)
    shared = models[method.local.shared]
    length = method.perturbation
    return Training(
        models=models,
        optimizers={role: torch.optim.SGD(m.parameters(), lr=0.01) for role, m in models.items()},
        task=task,
        batches=lambda: iter([(images, labels)]),
        plain_batches=lambda: iter([Batch(images, labels, labels)]),
        perturbation=Perturbation(length, method.adaptive) if length else None,
        epochs=epochs,
        start={name: p.detach().clone() for name, p in shared.named_parameters()},
    )


def _tiny_network() -> nn.Module:
    layers = (nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 2))
    return nn.Sequential(*layers)
