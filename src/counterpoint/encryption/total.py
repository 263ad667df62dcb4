"""At the server: encrypted payloads are added, which needs no key."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from counterpoint.encryption.key import SCALE, SLOTS, require_tenseal, server_context
from counterpoint.encryption.sealed import Head, pack, unpack
from counterpoint.errors import PayloadError
from counterpoint.payload import Payload

Ciphertexts = dict[str, tuple[Head, list[Any]]]


class EncryptedSum:
    """Sum of encrypted payloads, added one at a time, in place of `WeightedMean`.

    The sites have multiplied by their weights already; the sum goes down with the weight of all.
    """

    def __init__(self) -> None:
        self._sum: Ciphertexts = {}
        self._empty = True

    def add(self, site: str, payload: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add one site's payload.

        Raises:
            PayloadError: if something in it is not encrypted, or other than what was added before;
                the sum is left as it was.
        """
        found = read(payload, site, weight)
        if self._empty:
            self._sum, self._empty = found, False
            return
        if found.keys() != self._sum.keys():
            odd = sorted(found.keys() ^ self._sum.keys())
            raise PayloadError(
                f"site '{site}' sent other names than the sites before it; first difference: "
                f"'{odd[0]}'"
            )
        for name, (head, _) in found.items():
            before = self._sum[name][0]
            if head.key != before.key:
                raise PayloadError(
                    f"site '{site}' has encrypted with the key {head.key}, the sites before it "
                    f"with {before.key}; all sites must have the same"
                )
            if head.kind != before.kind:
                raise PayloadError(
                    f"site '{site}' sent '{name}' as {head.shape} {head.dtype}, the sites before "
                    f"it as {before.shape} {before.dtype}"
                )
        for name, (head, parts) in found.items():
            before, total = self._sum[name]
            for one, part in zip(total, parts, strict=True):
                one.add_(part)
            self._sum[name] = replace(before, weight=before.weight + head.weight), total

    def result(self) -> Payload:
        """The sum, still encrypted; empty if nothing was added."""
        total = {}
        for name, (head, parts) in self._sum.items():
            data = [part.serialize() for part in parts]
            total[name] = pack(replace(head, lengths=tuple(map(len, data))), data)
        return total


def read(payload: Mapping[str, Tensor], site: str, weight: float) -> Ciphertexts:
    """The ciphertexts of a payload.

    Raises:
        PayloadError: naming site and tensor, if it is not encrypted, or not with that weight.
    """
    tenseal, context = require_tenseal(), server_context()
    found = {}
    for name, tensor in payload.items():
        try:
            head, data = unpack(tensor)
        except PayloadError as error:
            raise PayloadError(f"site '{site}' sent '{name}' wrongly: {error}") from error
        if head.weight != weight:
            raise PayloadError(f"site '{site}' has encrypted '{name}' with another weight")
        try:
            parts = [tenseal.ckks_vector_from(context, one) for one in data]
        except Exception as error:  # TenSEAL's own, of many kinds
            raise PayloadError(
                f"site '{site}' sent '{name}' with a ciphertext that can't be read: {error}"
            ) from error
        first = list(context.seal_context().data.first_parms_id())
        found_in = [(c.scale, list(c.parms_id())) for part in parts for c in part.ciphertext()]
        if any(one != (2.0**SCALE, first) for one in found_in):
            raise PayloadError(f"site '{site}' has encrypted '{name}' with other parameters")
        sizes = [min(SLOTS, head.numbers - start) for start in range(0, head.numbers, SLOTS)]
        if [part.size() for part in parts] != sizes:
            raise PayloadError(f"site '{site}' sent '{name}' with too few or too many numbers")
        found[name] = head, parts
    return found
