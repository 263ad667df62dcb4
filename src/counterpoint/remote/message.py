"""What crosses between server and site: a text in JSON, and named tensors as checked bytes.

Tensors go as safetensors: names, shapes and numbers, no code. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from counterpoint.errors import PayloadError
from counterpoint.payload import Payload, from_bytes, to_bytes

LONGEST = 64 << 20
"""Bytes that the text of a message may have."""


@dataclass(frozen=True)
class Message:
    """A text and tensors; ``kind`` says what is asked or answered.

    >>> import torch
    >>> text, tensors = Message("visit", {"round": 1}, {"b": torch.ones(1)}).packed()
    >>> Message.unpacked(text, tensors)
    Message(kind='visit', says={'round': 1}, tensors={'b': tensor([1.])})
    """

    kind: str
    says: dict[str, Any] = field(default_factory=dict)
    tensors: Payload = field(default_factory=dict)

    @cached_property
    def data(self) -> bytes:
        """The tensors as bytes, made once."""
        return to_bytes(self.tensors) if self.tensors else b""

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def text(self) -> str:
        """The text that goes with the bytes; with their checksum in it, it stands for all."""
        head = {
            "kind": self.kind,
            "says": self.says,
            "names": list(self.tensors),
            "sha256": self.sha256,
        }
        return json.dumps(head)

    def packed(self) -> tuple[str, bytes]:
        """The message as text and bytes."""
        return self.text, self.data

    def saying(self, says: dict[str, Any]) -> "Message":
        """A message that says something else, with the same tensors, which are not packed anew."""
        other = replace(self, says=says)
        vars(other).update(data=self.data, sha256=self.sha256)
        return other

    @classmethod
    def unpacked(cls, text: object, data: object) -> "Message":
        """Read a message.

        Raises:
            PayloadError: if it is none, or not as it was sent.
        """
        if not isinstance(text, str) or not isinstance(data, bytes) or len(text) > LONGEST:
            raise PayloadError("this is no message of Counterpoint")
        try:
            head = json.loads(text)
            kind, says, names = str(head["kind"]), dict(head["says"]), [*map(str, head["names"])]
            sha256 = head["sha256"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise PayloadError("this is no message of Counterpoint") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PayloadError("the tensors of a message are not as they were sent")
        tensors = from_bytes(data) if data else {}
        if sorted(tensors) != sorted(names):
            raise PayloadError("a message has other tensors than it says")
        message = cls(kind, says, {name: tensors[name] for name in names})
        vars(message).update(data=data, sha256=sha256, text=text)
        return message


def sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, int, str]]:
    """Shape, bytes and SHA-256 (hex) of each tensor.

    >>> import torch
    >>> sizes({"w": torch.zeros(2, 3)})["w"][:2]
    ('2x3', 24)
    """
    return {
        name: (
            "x".join(str(side) for side in tensor.shape),
            tensor.numel() * tensor.element_size(),
            sha256_of(tensor),
        )
        for name, tensor in tensors.items()
    }


def sha256_of(tensor: Tensor) -> str:
    """SHA-256 (hex) over the numbers of a tensor, as they lie in memory."""
    import torch

    plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(plain.numpy().data).hexdigest()
