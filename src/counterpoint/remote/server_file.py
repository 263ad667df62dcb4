"""The server's own settings: the folder that its runs go to."""

from pathlib import Path
from typing import Any

from counterpoint.errors import SettingsError
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_is_wrong

SETTINGS = "counterpoint-server.yaml"
"""Name of the server's own settings file in the folder ``local`` of its kit."""


def read_server_file(path: Path) -> dict[str, Any]:
    """Read the server's own settings: ``runs``, the folder that its runs go to.

    Raises:
        SettingsError: if the file can't be read or does not say it.
    """
    try:
        own = read_yaml(path)
    except UNREADABLE as error:
        raise SettingsError(f"{path} can't be read: {what_is_wrong(error)}") from error
    if not isinstance(own, dict) or not isinstance(own.get("runs"), str):
        raise SettingsError(f"{path}: it must name the folder of the server's runs, `runs: FOLDER`")
    return own | {"runs": str(path.absolute().parent.parent / own["runs"])}
