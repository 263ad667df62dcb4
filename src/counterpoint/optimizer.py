"""The optimiser of a model, and its state as named tensors."""

import torch
from torch import nn

from counterpoint.methods.method import Schedule
from counterpoint.payload import Payload


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD or Adam, as the schedule has it."""
    if schedule.optimizer == "adam":
        return torch.optim.Adam(
            model.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Payload:
    """Momenta and the like as named tensors: no pickle in a saved state."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Payload) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        parameter = parameters[int(index)]
        # Adam's step counter stays on the CPU.
        place = tensor.clone() if key == "step" else tensor.to(parameter.device, copy=True)
        optimizer.state[parameter][key] = place
