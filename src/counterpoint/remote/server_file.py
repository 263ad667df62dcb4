"""The server's own settings: the folder that its runs go to."""

from pathlib import Path
from typing import Any

import yaml

from counterpoint.errors import SettingsError

SETTINGS = "counterpoint-server.yaml"
"""Name of the server's own settings file in the folder ``local`` of its kit."""


def read_server_file(path: Path) -> dict[str, Any]:
    """Read the server's own settings: ``runs``, the folder that its runs go to.

    Raises:
        SettingsError: if the file can't be read or does not say it.
    """
    try:
        own = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} can't be read: {error}") from error
    if not isinstance(own, dict) or not isinstance(own.get("runs"), str):
        raise SettingsError(f"{path}: it must name the folder of the server's runs, `runs: FOLDER`")
    return own | {"runs": str(path.absolute().parent.parent / own["runs"])}
