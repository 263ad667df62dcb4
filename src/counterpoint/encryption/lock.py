"""At a site: what leaves is encrypted, what comes down is decrypted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.encryption.key import (
    GRID,
    LARGEST,
    SLOTS,
    SMALLEST_WEIGHT,
    mark_of,
    require_tenseal,
    site_context,
)
from counterpoint.encryption.sealed import TYPES, Head, pack, unpack
from counterpoint.errors import EncryptionError, PayloadError
from counterpoint.payload import Payload


@dataclass(frozen=True)
class Lock:
    """What a site encrypts and decrypts by.

    Attributes:
        key: that all sites share.
        sites: how many take part in the run; their sum must stay in range.
    """

    key: bytes
    sites: int

    def seal(self, payload: Mapping[str, Tensor], weight: float) -> Payload:
        """Encrypt a payload, multiplied by the site's weight, so that the server need only add.

        Names stay, and each tensor becomes one of bytes.

        Raises:
            EncryptionError: naming the tensor, if a number in it is not finite or too large.
        """
        if weight < SMALLEST_WEIGHT:
            raise EncryptionError(
                f"the site's weight {weight:.3g} is too small for the precision of encryption, "
                f"which asks for {SMALLEST_WEIGHT} or more; use --set weighting=equal"
            )
        tenseal, context = require_tenseal(), site_context(self.key)
        sealed = {}
        for name, tensor in payload.items():
            numbers = self._in_range(name, tensor, weight)
            parts = [
                tenseal.ckks_vector(context, numbers[start : start + SLOTS]).serialize()
                for start in range(0, len(numbers), SLOTS)
            ]
            head = Head(
                shape=tuple(tensor.shape),
                dtype=str(tensor.dtype).removeprefix("torch."),
                weight=weight,
                key=mark_of(self.key),
                lengths=tuple(map(len, parts)),
            )
            sealed[name] = pack(head, parts)
        return sealed

    def unseal(self, total: Mapping[str, Tensor]) -> Payload:
        """Decrypt sums of encrypted payloads, and divide them by the weight of all sites: the mean.

        Sums are rounded to multiples of 2**-20 (see `GRID`), which is far above the noise that
        encryption leaves in them. That noise should not show: who has a sum encrypted and learns it
        with the noise, from a model that is made public say, can compute the key (Li and
        Micciancio, EUROCRYPT 2021).

        Raises:
            EncryptionError: if they were encrypted with another key, or are damaged.
        """
        return {name: self._open(name, tensor) for name, tensor in total.items()}

    def _open(self, name: str, tensor: Tensor) -> Tensor:
        tenseal, context = require_tenseal(), site_context(self.key)
        try:
            head, parts = unpack(tensor)
        except PayloadError as error:
            raise EncryptionError(f"the mean of '{name}' can't be decrypted: {error}") from error
        if head.key != mark_of(self.key):
            raise EncryptionError(
                f"the mean of '{name}' was encrypted with the key {head.key}, and the key here is "
                f"{mark_of(self.key)}; all sites must have the same key, from beginning to end"
            )
        try:
            found = [tenseal.ckks_vector_from(context, part).decrypt() for part in parts]
        except Exception as error:  # TenSEAL's own, of many kinds
            raise EncryptionError(f"the mean of '{name}' is damaged: {error}") from error
        numbers = np.concatenate([*map(np.asarray, found), np.empty(0)])
        numbers = np.rint(numbers * 2.0**GRID) / 2.0**GRID / head.weight
        if len(numbers) != head.numbers:
            raise EncryptionError(f"the mean of '{name}' is damaged: numbers are missing")
        return torch.from_numpy(numbers).reshape(head.shape).to(TYPES[head.dtype])

    def _in_range(self, name: str, tensor: Tensor, weight: float) -> npt.NDArray[np.float64]:
        flat = tensor.detach().cpu().reshape(-1)
        if not tensor.is_floating_point():
            raise EncryptionError(f"'{name}' has whole numbers, which are not encrypted")
        if not torch.isfinite(flat).all():
            raise EncryptionError(f"'{name}' has a number that is not finite")
        numbers = flat.double() * weight
        most = LARGEST / self.sites
        if len(numbers) and numbers.abs().max().item() > most:
            raise EncryptionError(
                f"'{name}' times the site's weight {weight:g} has the size "
                f"{numbers.abs().max().item():.3g}; with {self.sites} sites, encryption has room "
                f"for {most:.3g}. Use --set weighting=equal, or go without encryption"
            )
        return numbers.numpy()
