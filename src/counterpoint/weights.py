"""Weights from a file, as the start of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from counterpoint.errors import SettingsError, StateError
from counterpoint.files import read_tensors

PREFIXES = ("network.", "module.")
"""What stands before a network's names in models of a run, and in those of parallel training."""

PICKLED = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pkl")


@dataclass(frozen=True)
class Taken:
    """What became of the tensors of a file: those of the network that it has, and has not.

    Attributes:
        taken: names that both have, in one shape.
        drawn: names of the network that stay as they were drawn; among them those of other shapes.
        unused: names of the file that the network does not have.
    """

    taken: tuple[str, ...]
    drawn: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """In words.

        >>> print(Taken(("a", "b"), ("head.weight",), ()))
        2 of 3 tensors; drawn anew: head.weight
        """
        text = f"{len(self.taken)} of {len(self.taken) + len(self.drawn)} tensors"
        for what, names in (("drawn anew", self.drawn), ("not used of it", self.unused)):
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                text += f"; {what}: {', '.join(names[:4])}{more}"
        return text


def weights_file(place: Path) -> Path:
    """The file that is meant by a file, or by the folder of a run: its global model.

    Raises:
        SettingsError: if there is none, or it is one that would have to be unpickled.
    """
    if place.is_dir():
        models = place / "models"
        if not (models / "global.safetensors").is_file():
            own = [str(one.relative_to(models)) for one in sorted(models.rglob("*.safetensors"))]
            there = f"; name one of its models, in {models}: {', '.join(own)}" if own else ""
            raise SettingsError(f"{place} is no run with a global model{there} (weights)")
        return models / "global.safetensors"
    if not place.is_file():
        raise SettingsError(f"there is no file {place} to take the first weights from (weights)")
    if place.suffix in PICKLED:
        raise SettingsError(
            f"{place} is a pickled file, and what is pickled can run any code when it is opened; "
            "make a .safetensors of it where you trust it: safetensors.torch.save_file("
            'torch.load(FILE, weights_only=True), "weights.safetensors")'
        )
    return place


@torch.no_grad()
def put_weights(network: nn.Module, place: Path) -> Taken:
    """Put the tensors of a file into a network, those that go by one name and have one shape.

    Raises:
        SettingsError: if the file can't be read, has numbers that are not finite, or nothing fits.
    """
    file = weights_file(place)
    try:
        found = by_plain_names(read_tensors(file))
    except StateError as error:
        raise SettingsError(f"{error} (weights)") from error
    own = network.state_dict()
    fits = [name for name, tensor in own.items() if has_place(tensor, found.get(name))]
    if not any(name in fits for name, _ in network.named_parameters()):
        raise SettingsError(
            f"nothing in {file} fits the network: it has {listed(found)}; the network "
            f"has {listed(own)} (weights)"
        )
    for name in fits:
        if not torch.isfinite(found[name].double()).all():
            raise SettingsError(f"{name} in {file} has numbers that are not finite (weights)")
        own[name].copy_(found[name])
    return Taken(
        tuple(fits),
        tuple(name for name in own if name not in fits),
        tuple(name for name in found if name not in own),
    )


def by_plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A network's tensors by its own names; what stands before the network is left out.

    >>> list(by_plain_names({"harmonise.amplitude": torch.ones(1), "network.a": torch.ones(1)}))
    ['a']
    """
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
    return dict(tensors)


def has_place(own: Tensor, given: Tensor | None) -> bool:
    """Whether a tensor of a file can be that of a network."""
    return (
        given is not None
        and own.shape == given.shape
        and own.is_floating_point() == given.is_floating_point()
    )


def listed(tensors: Mapping[str, Tensor]) -> str:
    """The first names with their shapes."""
    first = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3]]
    return f"{len(tensors)} tensors ({', '.join(first)}, ...)"
