"""A startup kit as it lies at its owner's, and what looking at one can end with."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from counterpoint.errors import SettingsError
from counterpoint.flare.kit import KNOWN
from counterpoint.remote.plan import Plan
from counterpoint.remote.site_file import SiteFile, read_site_file, settings_file

KINDS = {"fed_client.json": "site", "fed_server.json": "server", "fed_admin.json": "administrator"}


class WrongError(Exception):
    """Something is not right: what was found, and what to do."""


class UnknownError(Exception):
    """Something can't be known: why, and what to do."""


@dataclass(frozen=True)
class Kit:
    """A startup kit as it lies at its owner's."""

    path: Path
    kind: str
    name: str
    host: str
    port: int

    def file(self, ending: str) -> Path:
        """The kit's own certificate (``crt``) or key (``key``)."""
        return self.path / "startup" / f"{'server' if self.kind == 'server' else 'client'}.{ending}"

    @property
    def authority(self) -> Path:
        """The certificate of who has signed those of all."""
        return self.path / "startup" / "rootCA.pem"

    @cached_property
    def known(self) -> dict[str, Any]:
        """What the administrator has put into the kit: the plan, and versions of packages."""
        file = self.path / "local" / KNOWN
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise WrongError(
                f"{file} can't be read: {error}", "ask the administrator for a new kit"
            ) from error

    @cached_property
    def own(self) -> SiteFile:
        """The site's own settings."""
        return read_site_file(self.path / "local" / settings_file(self.name))

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run that the kit was made for."""
        plans = list(self.known["plans"].values())
        return Plan.from_dict(plans[0], self.own.imports if self.kind == "site" else ("",))


def read_kit(path: Path) -> Kit:
    """Read what a startup kit says of itself.

    Raises:
        SettingsError: if there is none in the folder.
    """
    path = path.absolute()
    try:
        for file, kind in KINDS.items():
            if (path / "startup" / file).exists():
                return _read(path, kind, json.loads((path / "startup" / file).read_text()))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise SettingsError(f"{path} can't be read as a startup kit: {error!r}") from error
    raise SettingsError(
        f"{path} is no startup kit: it has none of {', '.join(KINDS)} in a folder `startup`. Name "
        "the folder that came from the administrator"
    )


def _read(path: Path, kind: str, says: Any) -> Kit:
    if kind == "administrator":
        admin = says["admin"]
        return Kit(path, kind, str(admin["username"]), str(admin["host"]), int(admin["port"]))
    host, _, port = says["servers"][0]["service"]["target"].rpartition(":")
    name = host if kind == "server" else str(says["client"]["fqsn"])
    return Kit(path, kind, name, str(host), int(port))
