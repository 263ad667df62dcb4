"""The loss at points around a network's weights: in place, and everything is put back."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from counterpoint.landscape.directions import Direction
from counterpoint.local.training import computing_in
from counterpoint.statistics import recalibrate
from counterpoint.tasks import Task


def losses_around(
    network: nn.Module,
    directions: Sequence[Direction],
    positions: npt.NDArray[np.float64],
    loss: Callable[[], float],
    step: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.float64]:
    """``loss()`` at w + sum_k a_k d_k for every position a; the weights are put back bit for bit.

    Args:
        network: holds the weights w, and is moved in place.
        directions: K of them.
        positions: (P, K).
        loss: gives the loss of the network as it is.
        step: is called after every position.

    Returns:
        The losses (P,).

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(layer.weight, 3.0)
    >>> square = lambda: layer.weight.square().item()
    >>> losses_around(layer, [{"weight": torch.ones(1, 1)}], np.array([[-3.0], [1.0]]), square)
    array([ 0., 16.])
    """
    parameters = dict(network.named_parameters())
    moving = [name for name in parameters if any(name in direction for direction in directions)]
    losses = []
    with torch.no_grad(), put_back(network):
        start = {name: parameters[name].clone() for name in moving}
        for position in positions:
            for name in moving:
                weight = parameters[name].copy_(start[name])
                for length, direction in zip(position.tolist(), directions, strict=True):
                    if name in direction:
                        weight.add_(direction[name].to(weight), alpha=length)
            losses.append(loss())
            step()
    return np.array(losses)


@contextmanager
def put_back(network: nn.Module) -> Iterator[None]:
    """Whatever is done to the network's tensors, afterwards they are as they were."""
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        yield
    finally:
        network.load_state_dict(kept)


def loss_on(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    task: Task,
    calibration: Sequence[Tensor] = (),
    precision: torch.dtype = torch.float32,
) -> Callable[[], float]:
    """The mean loss over some batches, as a function that takes the network as it is.

    Args:
        network: is put into evaluation mode.
        batches: what the network is given, and the targets.
        task: gives the loss.
        calibration: on these, batch norm's running statistics are estimated anew each time;
            without them, those that the network has are used.
        precision: type in which the network computes.
    """
    network.eval()
    images = sum(len(seen) for seen, _ in batches)

    def loss() -> float:
        with torch.no_grad(), computing_in(precision, batches[0][0]):
            if calibration:
                recalibrate(network, calibration)
            losses = [task.loss(network(x), y).item() * len(x) for x, y in batches]
        return sum(losses) / images

    return loss
