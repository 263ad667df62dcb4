"""What goes wrong on the day, looked at before: name, port, certificates, clock, disk, data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoint.errors import CounterpointError
from counterpoint.flare import check_line as line
from counterpoint.flare import check_machine as machine
from counterpoint.flare.startup_kit import UnknownError, WrongError, read_kit


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: was looked at.
        ok: whether it is right; None where it can't be known from here.
        found: in words.
        todo: what to do where it is not right.
    """

    what: str
    ok: bool | None
    found: str
    todo: str = ""


def check_kit(path: Path) -> Iterator[Check]:
    """Look at everything that a kit's owner can know before a run, one thing after the other.

    Raises:
        SettingsError: if there is no kit in the folder.
    """
    kit = read_kit(path)
    yield look("packages", machine.packages, kit)
    yield look("own certificate", line.certificate, kit)
    yield look("server's name", line.name, kit)
    if kit.kind == "server":
        yield look("port", line.free_port, kit)
        yield look("disk", machine.disk, kit)
        return
    yield look("server's port", line.port, kit)
    call = line.Call(kit)
    yield look("server's certificate", call.certificate)
    yield look("clock", call.clock)
    if kit.kind == "site":
        said = look("settings file", machine.settings, kit)
        yield said
        if said.ok and kit.plan.settings.encrypt:
            yield look("encryption key", machine.key, kit)
        yield look("device", machine.device, kit)
        yield look("disk", machine.disk, kit)
        yield look("data", machine.data, kit)


def look(what: str, at: Callable[..., str], *given: Any) -> Check:
    """Look at one thing; whatever goes wrong is a line of its own, and the next is looked at.

    >>> def broken() -> str:
    ...     raise WrongError("it is broken", "mend it")
    >>> look("the thing", broken)
    Check(what='the thing', ok=False, found='it is broken', todo='mend it')
    """
    try:
        return Check(what, True, at(*given))
    except WrongError as error:
        return Check(what, False, *error.args)
    except UnknownError as error:
        return Check(what, None, *error.args)
    except (CounterpointError, OSError) as error:
        return Check(what, False, str(error), "put that right, then look again")
