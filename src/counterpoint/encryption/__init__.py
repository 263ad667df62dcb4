"""Secure aggregation by homomorphic encryption: the server adds what it can't read.

Each site multiplies its payload by its weight and encrypts it; the server adds the ciphertexts and
hands the sum back with the sum of the weights; each site decrypts and divides. All sites share one
key, which the server does not have. It is the same for every engine.
"""

from counterpoint.encryption.fitting import (
    account_of_encryption,
    require_enough,
    require_fitting_encryption,
)
from counterpoint.encryption.key import make_key, mark_of, read_key, write_key
from counterpoint.encryption.lock import Lock
from counterpoint.encryption.sealed import head_of
from counterpoint.encryption.total import EncryptedSum

__all__ = [
    "EncryptedSum",
    "Lock",
    "account_of_encryption",
    "head_of",
    "make_key",
    "mark_of",
    "read_key",
    "require_enough",
    "require_fitting_encryption",
    "write_key",
]
