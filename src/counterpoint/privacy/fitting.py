"""Which methods a kind of privacy can be had with; the rest is refused in words."""

from typing import TYPE_CHECKING

from counterpoint.errors import SettingsError
from counterpoint.privacy.choice import PayloadNoise, RecordNoise
from counterpoint.privacy.records import NOISED

if TYPE_CHECKING:
    from counterpoint.methods import Method


def require_fitting_privacy(method: "Method") -> None:
    """Refuse what would leave a site past the noise, or what the noise would not bound.

    Raises:
        SettingsError: naming the part that does not fit, and what does.
    """
    if isinstance(method.privacy, PayloadNoise):
        _require_payload(method)
    if isinstance(method.privacy, RecordNoise):
        _require_records(method)


def require_slices_apart(method: "Method", neighbours: bool | None) -> None:
    """Refuse images that share slices where what one image changes is to be bounded.

    Raises:
        SettingsError: with what to do.
    """
    if method.privacy.kind == "records" and neighbours:
        raise SettingsError(
            "with neighbours a slice is in three images, and privacy 'records' bounds what one "
            "image changes; use --no-neighbours"
        )


def _require_payload(method: "Method") -> None:
    if method.pooled or method.aggregation.kind == "none":
        raise SettingsError("privacy 'payload' is for what leaves a site, and here nothing does")
    if method.schedule.weighting != "equal":
        raise SettingsError(
            f"weighting '{method.schedule.weighting}' tells the server a number of each site "
            "without noise; with privacy 'payload' use --set weighting=equal"
        )
    if method.aggregation.kind == "normalised":
        raise SettingsError(
            "aggregation 'normalised' sends how many steps a site took, which would use up the "
            "norm that privacy 'payload' leaves it; use --aggregation all --server mean"
        )
    if method.local.kind == "prototype-deputy":
        raise SettingsError(
            "local 'prototype-deputy' sends how many images of each class a site has, which "
            "would use up the norm that privacy 'payload' leaves it; use --local deputy"
        )


def _require_records(method: "Method") -> None:
    local, schedule = method.local.kind, method.schedule
    if local not in NOISED:
        raise SettingsError(
            f"local '{local}' learns in ways that clipping the gradients of single images does not "
            f"bound; with privacy 'records' use --local {', '.join(NOISED)}"
        )
    if local == "deputy" and max(schedule.local_epochs, schedule.finetune_epochs) > 1:
        raise SettingsError(
            "local 'deputy' chooses its stage by scores on the training images, which take no "
            "noise; with one local epoch there are no stages: use --local-epochs 1"
        )
    if method.perturbation:
        raise SettingsError(
            "a weight perturbation follows the gradient of all images before it is noised; with "
            "privacy 'records' use --perturbation 0"
        )
    if method.harmonise.kind != "none":
        raise SettingsError(
            f"harmoniser '{method.harmonise.kind}' takes the mean amplitude of a site's images "
            "without noise; with privacy 'records' use --harmonise none"
        )
    if schedule.loss == "balanced":
        raise SettingsError(
            f"loss '{schedule.loss}' depends on how many images each class has; with privacy "
            "'records' use --loss default"
        )
    if schedule.weighting == "closeness":
        raise SettingsError(
            "weighting 'closeness' is not accounted for; with privacy 'records' use "
            "--set weighting=equal, or images"
        )
    if schedule.precision != "float32":
        raise SettingsError("privacy 'records' clips in float32: use --precision float32")
