"""The optimisers: PyTorch's, without its compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from counterpoint.methods.method import Schedule
from counterpoint.optimizer import load_optimizer, make_optimizer, optimizer_tensors

SCHEDULES = {
    "sgd": Schedule(lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": Schedule(lr=0.1, optimizer="adam", weight_decay=0.01),
}


def theirs(model: nn.Module, which: str) -> torch.optim.Optimizer:
    if which == "adam":
        return torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.01)
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    images = torch.arange(12.0).reshape(4, 3) / 12
    for _ in range(count):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("which", SCHEDULES)
def test_as_pytorch(which: str) -> None:
    """The same bits as PyTorch's own, also when a saved state goes on."""
    ours, other, later = (nn.Linear(3, 2) for _ in range(3))
    for model in (other, later):
        model.load_state_dict(ours.state_dict())
    optimizer = make_optimizer(ours, SCHEDULES[which])
    steps(ours, optimizer, 5)
    steps(other, theirs(other, which), 5)
    assert torch.equal(ours.weight, other.weight)

    first, second = (make_optimizer(later, SCHEDULES[which]) for _ in range(2))
    steps(later, first, 2)
    load_optimizer(second, optimizer_tensors(first))
    steps(later, second, 3)
    assert torch.equal(later.weight, other.weight)


def test_no_compiler() -> None:
    """A whole run does not import PyTorch's compiler, which takes a second."""
    code = """
import sys, tempfile, counterpoint
options = {"rounds": 1, "local_epochs": 1, "image_size": 32, "train_limit": 4, "workers": 1}
with tempfile.TemporaryDirectory() as folder:
    counterpoint.run("fedavg", "phantom", out=f"{folder}/sgd", **options)
    options |= {"schedule.optimizer": "adam"}
    counterpoint.run("fedavg", "phantom", out=f"{folder}/adam", **options)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("which", SCHEDULES)
def test_momenta_keep_their_parameters_layout(which: str) -> None:
    """Read back in another one, a step of a U-Net takes twice as long."""
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, SCHEDULES[which])
    model(torch.ones(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    saved = {n: t.contiguous().clone() for n, t in optimizer_tensors(optimizer).items()}
    later = make_optimizer(model, SCHEDULES[which])
    load_optimizer(later, saved)
    momenta = [t for t in later.state[model.weight].values() if t.dim() == 4]
    assert momenta
    assert all(t.stride() == model.weight.stride() for t in momenta)
    assert all(torch.equal(t, saved[n]) for n, t in optimizer_tensors(later).items())
