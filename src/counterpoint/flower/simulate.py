"""A rehearsal on one machine: Flower's SuperLink, and a SuperNode for each site."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoint.crew import Report
from counterpoint.errors import StateError
from counterpoint.files import write_text
from counterpoint.flower.programs import environment, program, require_flower
from counterpoint.flower.write import write_app
from counterpoint.remote.rehearsal import Rehearsal, end_session, follow, heed, rehearse
from counterpoint.remote.server_file import SETTINGS
from counterpoint.remote.site_file import settings_file
from counterpoint.results import Result

PR_SET_PDEATHSIG = 1  # from prctl.h
STARTED = 120.0
"""Seconds that the SuperLink has to start."""


def simulate(
    method: str,
    data: str,
    *,
    out: str | Path,
    report: Report = lambda event: None,
    settings: Mapping[str, Any] | None = None,
    min_sites: int = 0,
    deadline: int = 0,
) -> Result:
    """Do a run on Flower, on this machine. Its folder is that of `counterpoint.run`, bit for bit.

    Only what is for going on is not in it: the sites keep their states themselves.

    Args:
        method: as for `counterpoint.run`.
        data: the same.
        out: the same.
        report: the same; it is told of a site's scores when its answer has come.
        settings: the same.
        min_sites: sites that must take part in every round; all where 0.
        deadline: seconds that a site has for a round; 0 for no limit.

    Raises:
        CounterpointError: if data, settings, training or Flower fail.
    """
    require_flower()

    def engine(rehearsal: Rehearsal) -> None:
        plan, workspace = rehearsal.plan, rehearsal.workspace
        lay_out(rehearsal)
        app = write_app(workspace / "app", plan, min_sites, deadline)
        with started(workspace, list(plan.sites)) as flower:
            flower.run(app, plan.name, report)

    return rehearse(
        method, data, engine, out=out, report=report, settings=settings, min_sites=min_sites
    )


def lay_out(rehearsal: Rehearsal) -> None:
    """Write the settings files of server and sites, each in a folder of its own."""
    place = rehearsal.workspace
    write_text(place / "events", "")
    rehearsal.lay_out(
        place / "server" / "local" / SETTINGS,
        lambda client: place / "sites" / client / "local" / settings_file(client),
    )


def end_with_parent() -> None:
    """Ask Linux to end this process once its parent is gone, by ``kill -9`` for example."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(frozen=True)
class Flower:
    """Flower's processes on this machine."""

    workspace: Path
    environment: dict[str, str]

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        """Start a process, with a log of its own."""
        with open(self.workspace / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )

    def run(self, app: Path, name: str, report: Report) -> None:
        """Run an app until its run is finished.

        Raises:
            CounterpointError: what the run has ended with, or that Flower failed.
        """
        with open(self.workspace / "events", encoding="utf-8") as coming:
            coming.seek(0, os.SEEK_END)
            process = self.start(name, program("flwr"), "run", str(app), "here", "--stream")
            try:
                if heed(follow(coming, process), {name}, report):
                    return
            finally:
                end_session(process)
        said = (self.workspace / f"{name}.log").read_text(errors="replace").strip().splitlines()
        raise StateError(
            "Flower has ended, and not the run: "
            + (" ".join(said[-3:])[-500:] if said else "it has said nothing")
        )


@contextlib.contextmanager
def started(workspace: Path, clients: Sequence[str]) -> Iterator[Flower]:
    """Start server and sites on ports of this machine that are free, and end them afterwards.

    Raises:
        StateError: if the server does not start.
    """
    port, *ports = free_ports(1 + len(clients))
    address = f"127.0.0.1:{port}"
    home = workspace / "home"
    connection = f'[superlink.here]\naddress = "{address}"\ninsecure = true\n'
    write_text(home / "config.toml", connection)
    found = os.pathsep.join(place for place in sys.path if place)
    flower = Flower(workspace, environment({"FLWR_HOME": str(home), "PYTHONPATH": found}))
    command = [sys.executable, "-m", "counterpoint.cli", "flower"]
    here = ["--insecure", "--host", "127.0.0.1", "--port"]
    with contextlib.ExitStack() as stack:

        def start(name: str, *words: str) -> "subprocess.Popen[bytes]":
            process = flower.start(name, *command, *words)
            stack.callback(end_session, process)
            return process

        server = start("server", "server", str(workspace / "server"), "--", *here, str(port))
        for client, own in zip(clients, ports, strict=True):
            place = str(workspace / "sites" / client)
            start(client, "site", place, "--", "--superlink", address, *here, str(own))
        wait_for(f"http://{address}/health", server, workspace / "server.log")
        yield flower


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a process answers at an address.

    Raises:
        StateError: if it does not.
    """
    over = time.monotonic() + STARTED
    while process.poll() is None and time.monotonic() < over:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    said = log.read_text(errors="replace").strip().splitlines()
    raise StateError(f"Flower's SuperLink does not start: {' '.join(said[-3:])[-500:]}")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at.

    >>> len(set(free_ports(3)))
    3
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
