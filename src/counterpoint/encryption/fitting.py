"""Which methods encryption can be had with, and what a run says of it."""

from typing import TYPE_CHECKING, Any

from counterpoint.encryption.key import GRID, PRIMES, RING, SCALE, require_tenseal
from counterpoint.errors import SettingsError

if TYPE_CHECKING:
    from counterpoint.methods import Method

FEWEST = 2
"""Sites that a sum must be of: of one site's alone, the others would learn what it sent."""
NOT_HIDDEN = (
    "names and shapes of the tensors, and the weight of each site",
    "validation and test scores, losses and stages of training, how many images a site has, and "
    "the rounds it took part in",
    "the mean, from every site, as in any federation; of two sites, each can tell the other's",
    "any single payload, from who has the key and what goes to the server: a site that works "
    "together with the server, or who made the key",
)


def require_fitting_encryption(method: "Method") -> None:
    """Refuse what a server can't do that sees nothing but ciphertexts.

    Raises:
        SettingsError: naming the part that does not fit, and what does.
    """
    if method.pooled or method.aggregation.kind == "none":
        raise SettingsError(
            f"method '{method.name}' lets nothing leave a site that could be encrypted; leave out "
            "--encrypt"
        )
    if method.server.kind != "mean":
        raise SettingsError(
            f"server '{method.server.kind}' computes with the mean, which the server can't read if "
            "it is encrypted; use --server mean (with a method that is made for it), or leave out "
            "--encrypt"
        )
    require_tenseal()


def require_enough(sites: int) -> None:
    """Refuse to encrypt where so few sites take part in a round that a sum could be of one alone.

    Raises:
        SettingsError: saying how many there must be.
    """
    if sites < FEWEST:
        raise SettingsError(
            f"with encryption, {FEWEST} sites or more must take part in every round "
            "(--participation, and across a network --min-sites): the sum of one alone would show "
            "the others what it has sent"
        )


def account_of_encryption() -> dict[str, Any]:
    """The entry ``encryption`` of ``results.json``."""
    return {
        "scheme": "CKKS, symmetric, by TenSEAL",
        "ring": RING,
        "prime_bits": list(PRIMES),
        "scale_bits": SCALE,
        "grid_bits": GRID,
        "hidden": "payloads and means, from the server",
        "not_hidden": list(NOT_HIDDEN),
    }
