"""What leaves a site: a flat mapping of names to float tensors. Nothing else crosses."""

from collections.abc import Mapping
from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from counterpoint.errors import PayloadError

Payload: TypeAlias = dict[str, Tensor]


def to_bytes(payload: Mapping[str, Tensor]) -> bytes:
    """Serialise a payload as safetensors: names, shapes and numbers, no code.

    >>> from_bytes(to_bytes({"w": torch.ones(2)}))
    {'w': tensor([1., 1.])}
    """
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in payload.items()})


def from_bytes(data: bytes) -> Payload:
    """Read what :func:`to_bytes` wrote.

    Raises:
        PayloadError: if the bytes are damaged or not a payload.
    """
    try:
        return load(data)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise PayloadError(f"these {len(data)} bytes are not a payload: {error}") from error


def check(payload: Mapping[str, Tensor], site: str, like: Mapping[str, Tensor] | None) -> None:
    """Refuse a payload that has other names or shapes than ``like``, or a number not finite.

    Raises:
        PayloadError: naming the site and the tensor.
    """
    if like is not None and payload.keys() != like.keys():
        odd = sorted(payload.keys() ^ like.keys())
        raise PayloadError(
            f"site '{site}' sent other names than the sites before it; first difference: '{odd[0]}'"
        )
    for name, tensor in payload.items():
        if like is not None and tensor.shape != like[name].shape:
            raise PayloadError(
                f"site '{site}' sent '{name}' as {tuple(tensor.shape)}, "
                f"the sites before it as {tuple(like[name].shape)}"
            )
        if not all_finite(tensor):
            raise PayloadError(f"site '{site}' sent '{name}' with a number that is not finite")


def all_finite(tensor: Tensor) -> bool:
    """Whether no number is NaN or infinite: then their sum is not either, unless it overflows.

    >>> all_finite(torch.ones(3)), all_finite(torch.tensor([float("inf")]))
    (True, False)
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
