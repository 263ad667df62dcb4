"""What a run's noise is worth: the entry ``privacy`` of ``results.json``."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from counterpoint.privacy.choice import PayloadNoise, RecordNoise
from counterpoint.privacy.gaussian import epsilon_of
from counterpoint.privacy.records import NOISED, epsilon_of_steps, steps_of

if TYPE_CHECKING:
    from counterpoint.methods import Method

SCORES = "the validation and test scores that each site reports, and the choice of a round by them"
COUNTS = "how many images a site has, and that it took part"
SEEDED = "anything at all from who knows the run's seed: the noise follows from it"
BROKEN_OFF = (
    "rounds that a site began and had to begin again, as after a crash: they count once (across "
    "sites a round is answered once, unless a site's own policy says `repeats`)"
)


def account(
    method: "Method",
    images: Mapping[str, int],
    asked: Mapping[str, Sequence[int]],
    payloads: pd.DataFrame,
) -> dict[str, Any] | None:
    """Settings, epsilon of every site, and what is not covered; None where privacy is "none".

    Args:
        method: with its privacy.
        images: training images of each client, of those that have told it.
        asked: for each client, the rounds that it was to train in. All of them count, for what a
            client has sent has left it, though it came too late or was refused.
        payloads: as in ``payloads.csv``; tells whose payloads became the mean of a round.

    Epsilon is None where nothing is guaranteed.
    """
    privacy = method.privacy
    if isinstance(privacy, PayloadNoise):
        found = _of_payloads(method, privacy, asked, payloads)
    elif isinstance(privacy, RecordNoise):
        found = _of_records(method, privacy, images, asked)
    else:
        return None
    not_covered = [*found.pop("not_covered"), SCORES, COUNTS, BROKEN_OFF]
    if privacy.seeded:
        not_covered.insert(0, SEEDED)
    return {
        "kind": privacy.kind,
        "clip": privacy.clip,
        "noise": privacy.noise,
        "delta": privacy.delta,
        "noise_from": "the run's seed" if privacy.seeded else "the operating system",
        **found,
        "not_covered": not_covered,
    }


def epsilon_of_run(method: "Method", images: int, rounds: int, delta: float) -> float:
    """What a run costs a site, towards the server; infinite where nothing is guaranteed.

    Args:
        method: with its privacy.
        images: training images of the site.
        rounds: that the site is to train in.
        delta: at which epsilon is told.

    Raises:
        SettingsError: if Opacus is needed and not installed.
    """
    privacy = method.privacy
    if isinstance(privacy, RecordNoise):
        models = len(NOISED[method.local.kind])  # one sample gives them all a step
        share = 1 / steps_of(images, method.schedule.batch_size)
        steps = _steps_of_run(method, images, rounds)
        return epsilon_of_steps(privacy.noise / math.sqrt(models), share, steps, delta)
    if isinstance(privacy, PayloadNoise) and privacy.noise:
        return epsilon_of([2 / privacy.noise] * rounds, delta)
    return math.inf


def _steps_of_run(method: "Method", images: int, rounds: int) -> int:
    epochs = rounds * method.schedule.local_epochs + method.schedule.finetune_epochs
    return epochs * steps_of(images, method.schedule.batch_size)


def _of_payloads(
    method: "Method",
    privacy: PayloadNoise,
    asked: Mapping[str, Sequence[int]],
    payloads: pd.DataFrame,
) -> dict[str, Any]:
    """A site's other data could give any other change: two of norm ``clip`` are 2 clip apart.

    Who gets every payload sees the site's own noise on it. Another site sees only means, with the
    noise of all but itself.
    """
    up = payloads[payloads["direction"] == "up"].groupby("round")["site"].unique()
    mixed = {site: [len(there) for there in up if site in there] for site in asked}
    far = math.inf if not privacy.noise else 2 / privacy.noise
    towards_server = {
        s: epsilon_of_run(method, 0, len(rounds), privacy.delta) for s, rounds in asked.items()
    }
    towards_sites = {
        s: epsilon_of(
            [far / math.sqrt(present - 1) if present > 1 else math.inf for present in rounds],
            privacy.delta,
        )
        for s, rounds in mixed.items()
    }
    not_covered = []
    if method.local.shared != method.local.predicts or method.statistics in (
        "local",
        "recalibrated",
    ):
        not_covered.append("models that a site keeps for itself, should they be handed on")
    return {
        "unit": "all data of a site",
        "epsilon": _plain(towards_server),
        "epsilon_of_means": _plain(towards_sites),
        "accountant": "exact, Gaussian",
        "not_covered": not_covered,
    }


def _of_records(
    method: "Method",
    privacy: RecordNoise,
    images: Mapping[str, int],
    asked: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Every image comes into a batch by chance; with or without it, a sum differs by clip."""
    epsilon = {
        site: epsilon_of_run(method, count, len(asked[site]), privacy.delta)
        for site, count in images.items()
    }
    steps = {s: _steps_of_run(method, count, len(asked[s])) for s, count in images.items()}
    not_covered = [
        "a patient of whom a site has several images, slices or patches: for k of them, epsilon is "
        "up to k times as large, and delta more",
        "a slice that changes the grey values of its whole volume, where volumes have no --window",
    ]
    if method.local.kind == "ditto":
        not_covered.append("personal models, which are trained without noise and stay at a site")
    if silent := [site for site in asked if site not in images]:
        not_covered.insert(0, f"sites that have not said how many images they have: {silent}")
    few = [site for site, count in images.items() if privacy.delta * count >= 1]
    if few:
        not_covered.insert(0, f"a delta of 1/images or more allows an image to leak: {few}")
    return {
        "unit": "one training image",
        "epsilon": dict.fromkeys(asked) | _plain(epsilon),
        "steps": steps,
        "accountant": "Renyi, by Opacus, for batches drawn by chance",
        "not_covered": not_covered,
    }


def _plain(epsilon: Mapping[str, float]) -> dict[str, float | None]:
    return {s: round(e, 4) if math.isfinite(e) else None for s, e in epsilon.items()}
