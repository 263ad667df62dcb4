"""What is done for privacy beyond keeping images at their site: a choice beside the method."""

from typing import ClassVar, Protocol, runtime_checkable

from pydantic.dataclasses import dataclass

from counterpoint.ranges import Chance, NotNegative, Positive


@runtime_checkable
class Privacy(Protocol):
    """One of the kinds below."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class NoPrivacy:
    """Payloads leave as they are."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class PayloadNoise:
    """What leaves a site is clipped and noised there: all that it says of the site is bounded.

    After McMahan et al. (Learning differentially private recurrent language models, ICLR 2018),
    with the noise added by each site, so that the server need not be trusted. The change of the
    payload from what all know already is scaled to the norm ``clip`` or less, over all tensors
    together, and noise of standard deviation ``noise * clip`` is added to every number. Epsilon
    is told at ``delta``.

    With ``seeded`` the noise follows from the run's seed, for simulations that are to be repeated:
    who knows the seed can take it off again. Otherwise it comes from the operating system.
    """

    kind: ClassVar[str] = "payload"
    clip: Positive = 1.0
    noise: NotNegative = 1.0
    delta: Chance = 1e-5
    seeded: bool = False


@dataclass(frozen=True)
class RecordNoise:
    """Every step of training bounds and blurs what a single image changes (DP-SGD).

    After Abadi et al. (Deep learning with differential privacy, CCS 2016), by Opacus: each image
    comes into a batch by chance, its gradient is scaled to the norm ``clip`` or less, and noise
    of standard deviation ``noise * clip`` is added to every number of their sum. Epsilon of a
    site's whole run is told at ``delta``, which should be far below one over its number of images.

    ``seeded`` is as in :class:`PayloadNoise`; it also fixes which images come into a batch.
    """

    kind: ClassVar[str] = "records"
    clip: Positive = 1.0
    noise: NotNegative = 1.0
    delta: Chance = 1e-5
    seeded: bool = False


PRIVACIES: dict[str, type[Privacy]] = {
    choice.kind: choice for choice in (NoPrivacy, PayloadNoise, RecordNoise)
}
