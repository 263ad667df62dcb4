"""The server's own settings: the folder that its runs go to."""

from dataclasses import replace
from pathlib import Path

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from counterpoint.errors import SettingsError
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_does_not_fit, what_is_wrong

SETTINGS = "counterpoint-server.yaml"
"""Name of the server's own settings file in the folder ``local`` of its kit."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ServerFile:
    """What the server's settings file says.

    Attributes:
        runs: folder that its runs go to.
        imports: beginnings of names (``my_package.``) that a run may import here.
        events: file to write events to, for rehearsals.
    """

    runs: Path
    imports: tuple[str, ...] = ()
    events: Path | None = None


def read_server_file(path: Path) -> ServerFile:
    """Read the server's own settings.

    Raises:
        SettingsError: if the file can't be read, or naming what is wrong in it.
    """
    try:
        values = read_yaml(path)
        if not isinstance(values, dict) or "runs" not in values:
            raise SettingsError(
                f"{path}: it must name the folder of the server's runs, `runs: FOLDER`"
            )
        own = ServerFile(**values)
        return replace(own, runs=path.absolute().parent.parent / own.runs)
    except UNREADABLE as error:
        raise SettingsError(f"{path} can't be read: {what_is_wrong(error)}") from error
    except (ValidationError, TypeError) as error:
        raise SettingsError(f"{path}: {what_does_not_fit(error)}") from error
