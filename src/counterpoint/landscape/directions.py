"""Directions in the space of a network's weights, and planes through models.

A direction maps names of parameters to tensors of their shapes; parameters that it does not name
stay where they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from counterpoint.errors import StateError
from counterpoint.layers import normalisation_parameters

Direction = Mapping[str, Tensor]


def filter_normalised(network: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """A random direction in which every filter is as long as the network's own (Li et al. 2018).

    Networks of one architecture get the same random numbers from equal generators, so that their
    landscapes can be compared although their weights are of different sizes. Biases and
    normalisation layers are left out, as in the paper (Visualizing the Loss Landscape of Neural
    Nets, NeurIPS 2018, section 4). A filter is what gives one output channel or feature.

    >>> layer = nn.Linear(3, 2)
    >>> direction = filter_normalised(layer, torch.Generator().manual_seed(1))
    >>> list(direction), torch.allclose(direction["weight"].norm(dim=1), layer.weight.norm(dim=1))
    (['weight'], True)
    """
    still, turned = normalisation_parameters(network), _transposed_weights(network)
    direction = {}
    for name, weight in network.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        if weight.dim() < 2 or name in still:
            continue
        filters = 1 if name in turned else 0
        rest = [axis for axis in range(weight.dim()) if axis != filters]
        length, wanted = (
            torch.linalg.vector_norm(t.detach(), dim=rest, keepdim=True) for t in (drawn, weight)
        )
        direction[name] = drawn * (wanted / length.clamp(min=1e-12))
    return direction


def _transposed_weights(network: nn.Module) -> set[str]:
    """Weights of transposed convolutions, whose output channels are on the second axis."""
    return {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, module in network.named_modules()
        if isinstance(module, _ConvTransposeNd)
    }


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through three models: the first, and two directions of length 1 at right angles."""

    origin: Direction
    across: Direction
    up: Direction

    def place(self, model: Direction) -> tuple[float, float, float]:
        """Where a model lies: its coordinates in the plane, and its distance from the plane."""
        way = _minus(model, self.origin)
        x, y = _dot(way, self.across), _dot(way, self.up)
        return x, y, max(_dot(way, way) - x * x - y * y, 0.0) ** 0.5


def plane_through(origin: Direction, second: Direction, third: Direction) -> Plane:
    """The plane through three models; the second lies on its first axis.

    Raises:
        StateError: if the models lie in a line.

    >>> models = [{"w": torch.tensor(p)} for p in ([0.0, 0.0], [2.0, 0.0], [1.0, 3.0])]
    >>> plane_through(*models).place(models[2])
    (1.0, 3.0, 0.0)
    """
    first, other = _minus(second, origin), _minus(third, origin)
    length = _dot(first, first) ** 0.5
    across = {name: t / max(length, 1e-12) for name, t in first.items()}
    along = _dot(other, across)
    left = {name: t - along * across[name] for name, t in other.items()}
    height = _dot(left, left) ** 0.5
    if height <= 1e-6 * max(length, _dot(other, other) ** 0.5) or length == 0:
        raise StateError("the three models lie in a line, and there is no one plane through them")
    return Plane(origin, across, {name: t / height for name, t in left.items()})


def _minus(model: Direction, other: Direction) -> dict[str, Tensor]:
    return {name: tensor.double() - other[name].double() for name, tensor in model.items()}


def _dot(one: Direction, other: Direction) -> float:
    return float(sum((one[name].double() * other[name].double()).sum() for name in one))
