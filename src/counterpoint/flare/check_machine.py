"""The machine, looked at before the day: packages, settings, key, device, disk, data."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from counterpoint.crew import choose_device
from counterpoint.encryption import mark_of, read_key
from counterpoint.first import new_predictor
from counterpoint.flare.kit import PACKAGES, versions
from counterpoint.flare.provision import KEY
from counterpoint.flare.startup_kit import Kit, WrongError
from counterpoint.remote.policy import PolicyError
from counterpoint.report.words import size

TIMES_A_NETWORK = 21
"""What a site keeps of a run, in networks: two states with deputies and optimiser, two means, two
candidates, the last two answers, and room to write each aside."""
TIMES_MORE_IF_ENCRYPTED = 35
"""Two means, the last two answers and one written aside are eight times as large."""


def packages(kit: Kit) -> str:
    """Versions here against those where the kit was made."""
    wanted = kit.known["versions"]
    here = versions()
    wrong = [
        f"{one} {here[one]} here, {wanted[one]} with the administrator"
        for one in PACKAGES
        if not alike(one, here[one], wanted.get(one, "none"))
    ]
    if wrong:
        raise WrongError("; ".join(wrong), "install the same versions as the administrator's")
    return ", ".join(f"{one} {here[one]}" for one in PACKAGES)


def alike(package: str, mine: str, other: str) -> bool:
    """Whether two versions work together: Counterpoint's and FLARE's must be equal.

    >>> alike("torch", "2.13.0+cpu", "2.13.1"), alike("nvflare", "2.9.0", "2.9.1")
    (True, False)
    """
    if package in ("counterpoint", "nvflare"):
        return mine == other
    return mine.split(".")[:2] == other.split(".")[:2]


def settings(kit: Kit) -> str:
    """The site's own file, and whether the plan's method and network may be used here."""
    if kit.name not in kit.plan.sites:
        raise WrongError(
            f"the plan has no site '{kit.name}'", "ask the administrator for a new kit"
        )
    rounds, own = kit.plan.settings.method.schedule.rounds, kit.own.policy.max_rounds
    if own is not None and own < rounds:
        raise WrongError(
            f"the policy allows {own} rounds, and the plan has {rounds}",
            "change max_rounds, or tell the administrator",
        )
    try:
        kit.own.policy.check_privacy(kit.plan.settings.method.privacy)
    except PolicyError as error:
        raise WrongError(
            f"{error}, and the plan does otherwise",
            "change the policy, or tell the administrator",
        ) from error
    if kit.own.policy.encrypted and not kit.plan.settings.encrypt:
        raise WrongError(
            "the policy lets payloads leave only encrypted, and the plan does not encrypt",
            "change the policy, or tell the administrator",
        )
    return f"{kit.plan.settings.method.name}, {rounds} rounds, data: {kit.own.data}"


def key(kit: Kit) -> str:
    """The encryption key: whether it is one, and nobody else's to read."""
    file = kit.own.key
    if file is None:
        raise WrongError(
            "the run encrypts what leaves, and the settings file names no `key`",
            f"write `key: {KEY}` into it, or ask the administrator for a new kit",
        )
    mark = mark_of(read_key(file))
    if file.stat().st_mode & 0o077:
        raise WrongError("others on this machine can read the key", f"chmod 600 '{file}'")
    return f"its mark is {mark}; at all sites it must be the same"


def device(kit: Kit) -> str:
    """Whether there is the device to compute on."""
    return str(choose_device(kit.own.device or kit.plan.settings.machine.device))


def disk(kit: Kit) -> str:
    """Room for what is kept of a run; of a server, which keeps less, as much is asked."""
    model = new_predictor(kit.plan.settings.method, kit.plan.task, kit.plan.shape)
    network = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    times = TIMES_A_NETWORK + (TIMES_MORE_IF_ENCRYPTED if kit.plan.settings.encrypt else 0)
    return room(kit.own.storage if kit.kind == "site" else kit.path, times * network)


def room(place: Path, needed: int) -> str:
    """Whether a folder, or the one that it will be made in, can be written and has room."""
    while not place.exists():
        place = place.parent
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise WrongError(
            f"{place} can't be written: {error.strerror}",
            "change `storage` in the settings file, or the folder's rights",
        ) from error
    free = shutil.disk_usage(place).free
    words = f"{size(free)} free in {place}, about {size(needed)} needed for a run"
    if free < needed:
        raise WrongError(words, "free some space, or change `storage` in the settings file")
    return words


def data(kit: Kit) -> str:
    """Read and decode all of the site's data, as the run will."""
    found, _ = kit.own.bring(kit.plan, kit.plan.sites[kit.name])
    counts = Counter(str(split) for split in found.splits)
    empty = [part for part in ("train", "validation", "test") if not counts[part]]
    if empty:
        raise WrongError(
            f"no image is for {' and '.join(empty)}", "put that right in your table or `protocol`"
        )
    policy = kit.own.policy
    if policy.max_epsilon is not None:
        try:
            policy.check_epsilon(policy.epsilon_of(kit.plan.settings.method, counts["train"]))
        except PolicyError as error:
            raise WrongError(str(error), "change the policy, or tell the administrator") from error
    images = ", ".join(f"{counts[part]} {part}" for part in ("train", "validation", "test"))
    return f"all of '{kit.name}' read and decoded: {images}"
