"""The key that all sites share and the server never has, and the parameters of the encryption.

The scheme is CKKS (Cheon, Kim, Kim and Song, ASIACRYPT 2017) as TenSEAL has it, in its symmetric
form: who encrypts has the key that decrypts. Ciphertexts are only ever added, so one prime holds
the numbers. With polynomials of degree 4096, 109 bits of primes give 128 bits of security
(Albrecht et al., Homomorphic Encryption Standard, 2018, table 1).
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from counterpoint.errors import EncryptionError, SettingsError
from counterpoint.files import write_secret

RING = 4096
"""Degree of the polynomials; a ciphertext holds half as many numbers."""
SLOTS = RING // 2
PRIMES = (60, 49)
"""Bits of the primes: of the one for numbers, and of one that FLARE's way of making keys needs."""
SCALE = 34
"""Bits behind the point with which numbers are encrypted; noise takes the last ten of them."""
GRID = 20
"""Bits behind the point to which a sum is rounded once it is decrypted: little noise shows then."""
LARGEST = 2.0 ** (PRIMES[0] - SCALE - 2)
"""Most that a sum over all sites may come to, up or down."""
SMALLEST_WEIGHT = 0.05
"""Least weight of a site: beside the grid, less would make a mean that is off by 1e-5."""


def require_tenseal() -> Any:
    """The module TenSEAL.

    Raises:
        EncryptionError: if it is not installed.
    """
    try:
        import tenseal
    except ImportError as error:
        raise EncryptionError(
            "TenSEAL, which encrypts, is not installed; get it by "
            "`pip install 'counterpoint[encryption]'`"
        ) from error
    return tenseal


def make_key() -> bytes:
    """Make a new key, from the operating system's entropy."""
    return _bytes_of(_new_context())


def write_key(path: Path, key: bytes) -> Path:
    """Write a key to a file that only its owner can read.

    Raises:
        SettingsError: if there is a file already; it is left as it is.
        StateError: if the file can't be written.
    """
    try:
        write_secret(path, key)
    except FileExistsError as error:
        raise SettingsError(f"{path} is there already and is left as it is") from error
    return path


def read_key(path: Path) -> bytes:
    """Read a key: one of :func:`write_key`, or the ``client_context.tenseal`` of a kit of FLARE.

    Raises:
        EncryptionError: if it is none, or one of other parameters. The sentence names no path, for
            a site tells it to the server.
    """
    tenseal = require_tenseal()
    try:
        context = tenseal.context_from(path.read_bytes())
    except OSError as error:
        raise EncryptionError(
            f"the file with the encryption key can't be read: {error.strerror}"
        ) from error
    except Exception as error:  # TenSEAL's own, of many kinds
        raise EncryptionError("the file of the encryption key holds none") from error
    if not context.is_private():
        raise EncryptionError(
            "the file of the encryption key has no secret key in it: it is the server's, "
            "who can only add"
        )
    if _parameters(context) != _parameters(server_context()):
        raise EncryptionError("the encryption key was made with other parameters than are used")
    return _bytes_of(context)


def mark_of(key: bytes) -> str:
    """What tells one key from another, and nothing else of it: the start of its SHA-256.

    >>> one = make_key()
    >>> mark_of(one) == mark_of(one) != mark_of(make_key())
    True
    """
    return hashlib.sha256(b"counterpoint encryption key" + key).hexdigest()[:16]


@lru_cache(maxsize=4)
def site_context(key: bytes) -> Any:
    """What TenSEAL encrypts and decrypts by."""
    return require_tenseal().context_from(key, n_threads=1)


@lru_cache(maxsize=1)
def server_context() -> Any:
    """What TenSEAL adds by: the parameters, and no key, neither secret nor public."""
    keyless = _new_context().serialize(
        save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    return require_tenseal().context_from(keyless, n_threads=1)


def _new_context() -> Any:
    tenseal = require_tenseal()
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=RING,
        coeff_mod_bit_sizes=list(PRIMES),
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        n_threads=1,
    )
    context.global_scale = 2**SCALE
    return context


def _bytes_of(context: Any) -> bytes:
    """A context as bytes: the same for the same key, whoever has written it."""
    return bytes(
        context.serialize(
            save_public_key=False,
            save_secret_key=True,
            save_galois_keys=False,
            save_relin_keys=False,
        )
    )


def _parameters(context: Any) -> tuple[tuple[int, ...], float]:
    return tuple(context.seal_context().data.key_parms_id()), float(context.global_scale)
