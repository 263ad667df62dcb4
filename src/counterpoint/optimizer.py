"""The optimiser of a model, and its state as named tensors."""

import inspect

import torch
from torch import nn

from counterpoint.methods.method import Schedule
from counterpoint.payload import Payload


class WithoutCompiler(torch.optim.Optimizer):
    """An optimiser without PyTorch's wrappers, which import its compiler: a second a process."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class Adam(WithoutCompiler, torch.optim.Adam):
    """PyTorch's."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class SGD(WithoutCompiler, torch.optim.SGD):
    """PyTorch's."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """SGD or Adam, as the schedule has it."""
    if schedule.optimizer == "adam":
        return Adam(model.parameters(), lr=schedule.lr, weight_decay=schedule.weight_decay)
    return SGD(
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
        # Adam's step counter stays on the CPU. All else has its parameter's layout, as before it
        # was saved: in another, a step takes twice as long.
        like = torch.empty_like(parameter, dtype=tensor.dtype) if key != "step" else tensor.clone()
        optimizer.state[parameter][key] = like.detach().copy_(tensor)
