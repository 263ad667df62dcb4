"""Flower's own programs, and the environment that they are started in."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from counterpoint.errors import SettingsError

SITE = "COUNTERPOINT_SITE"
"""Variable of the environment: the socket of the site's own process."""
SERVER = "COUNTERPOINT_SERVER"
"""Variable of the environment: path of the server's own settings file."""
USUAL = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # an app of ours needs no more
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",  # seconds till a message gets its process
}
"""What is set where the environment does not say otherwise."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a program of Flower: it tells nobody of itself unless asked to.

    Flower's programs start others by name, so those of this Python come first.
    """
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**USUAL, **os.environ, "PATH": os.pathsep.join(places), **(more or {})}


def program(name: str) -> str:
    """Path of one of Flower's programs, from the same environment as this Python.

    Raises:
        SettingsError: if Flower is not installed.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise SettingsError(
            f"Flower is not installed (there is no {path}); get it by "
            "`pip install 'counterpoint[flower]'`"
        )
    return str(path)


def require_flower() -> None:
    """Raise SettingsError where Flower is not installed."""
    program("flwr")
