"""An encrypted tensor as bytes that tell what they are: a head that all can read, and ciphertexts.

In a payload it is a tensor of bytes under the name of the one that it hides, so that it crosses,
is written down and is kept as any other. Nothing is unpickled.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.encryption.key import SLOTS
from counterpoint.errors import PayloadError

MAGIC = b"counterpoint CKKS 1\n"
LONGEST = 1 << 20
"""Bytes that a head may have."""
TYPES = {str(one).removeprefix("torch."): one for one in (torch.float32, torch.float64)} | {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class Head:
    """What anybody can read of an encrypted tensor.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor, "float32" for example.
        weight: that the numbers were multiplied by; in a sum, that of all sites together.
        key: mark of the key, see `mark_of`.
        lengths: bytes of each ciphertext.
    """

    shape: tuple[int, ...]
    dtype: str
    weight: float
    key: str
    lengths: tuple[int, ...]

    @property
    def kind(self) -> tuple[tuple[int, ...], str, str]:
        """What must be equal for two tensors to be added."""
        return self.shape, self.dtype, self.key

    @property
    def numbers(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)


def pack(head: Head, ciphertexts: Sequence[bytes]) -> Tensor:
    """Head and ciphertexts as a tensor of bytes."""
    text = json.dumps(asdict(head)).encode()
    parts = [MAGIC, len(text).to_bytes(4, "little"), text, *ciphertexts]
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)


def unpack(tensor: Tensor) -> tuple[Head, list[bytes]]:
    """Read what :func:`pack` has made.

    Raises:
        PayloadError: if it is something else.
    """
    head, data = _read(tensor)
    ends = np.cumsum([0, *head.lengths]).tolist()
    return head, [data[start:end].tobytes() for start, end in pairwise(ends)]


def head_of(tensor: Tensor) -> Head | None:
    """The head of an encrypted tensor; None if it is none.

    >>> head_of(torch.ones(3))
    """
    try:
        return _read(tensor)[0]
    except PayloadError:
        return None


def _read(tensor: Tensor) -> tuple[Head, npt.NDArray[np.uint8]]:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise PayloadError("it is not encrypted")
    data = tensor.numpy()
    start = len(MAGIC) + 4
    if data[: len(MAGIC)].tobytes() != MAGIC:
        raise PayloadError("it is not encrypted")
    length = int.from_bytes(data[len(MAGIC) : start].tobytes(), "little")
    if length > LONGEST:
        raise PayloadError("its head is too long")
    try:
        values = json.loads(data[start : start + length].tobytes())
        head = Head(
            shape=tuple(int(side) for side in values["shape"]),
            dtype=str(values["dtype"]),
            weight=float(values["weight"]),
            key=str(values["key"]),
            lengths=tuple(int(size) for size in values["lengths"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise PayloadError("its head can't be read") from error
    rest = data[start + length :]
    if (
        head.dtype not in TYPES
        or not (math.isfinite(head.weight) and head.weight > 0)
        or min((*head.shape, *head.lengths), default=0) < 0
        or len(head.lengths) != -(-head.numbers // SLOTS)
        or sum(head.lengths) != len(rest)
    ):
        raise PayloadError("its head does not fit what follows it")
    return head, rest
