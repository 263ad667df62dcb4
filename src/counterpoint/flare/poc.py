"""A consortium rehearsed on one machine: its server and sites as processes, from kits like theirs.

The kits are of the rehearsal's own, in the folder ``poc`` of the consortium: their server is this
machine. All else is as on the day: certificates, mutual TLS, the sites' settings files, the job.
"""

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from counterpoint.crew import Event, Report
from counterpoint.errors import SettingsError, StateError, TrainingError
from counterpoint.files import write_text
from counterpoint.flare.processes import LOG, Processes, processes
from counterpoint.flare.provision import make_kits, read_project
from counterpoint.flare.session import collect, session, status_of, submit, the_job
from counterpoint.flare.simulate import require_flare

HOST = "localhost"
EVENTS = "events"


def rehearse(
    folder: Path,
    out: Path,
    report: Report = lambda event: None,
    patience: float = 300.0,
) -> list[Path]:
    """Start server and sites of a consortium's folder here, do its job, collect, and stop all.

    A rehearsal that was stopped goes on from its last complete round.

    Args:
        folder: that `counterpoint flare init` has made.
        out: folder for the runs.
        report: is told of scores as they come.
        patience: seconds that all may take to connect.

    Returns:
        The folders of the runs in ``out``.

    Raises:
        CounterpointError: if there is no such folder, or the run ends without results.
    """
    require_flare()
    job = the_job(folder)
    if (out / job.name).exists():
        raise SettingsError(f"{out / job.name} is there already and is left as it is; choose --out")
    place = lay_out(folder.absolute())
    with processes(sites=len(kits(place)) - 1) as ours:
        for kit in kits(place):
            ours.start(kit)
        wait_for_sites(place, ours, patience)
        (place / EVENTS).write_text("")
        number = submit(place)
        for event in follow(place, ours, number):
            report(event)
        return collect(place, out)


def lay_out(folder: Path) -> Path:
    """Write the rehearsal's folder, or bring the sites' settings and the job in it up to date."""
    place = folder / "poc"
    for part in ("sites", "job"):
        shutil.rmtree(place / part, ignore_errors=True)
        shutil.copytree(folder / part, place / part)
    server = place / "sites" / "counterpoint-server.yaml"
    own = yaml.safe_load(server.read_text(encoding="utf-8"))
    write_text(server, yaml.safe_dump(own | {"events": str(place / EVENTS)}))
    if not (place / "project.yml").exists():
        values = here(read_project(folder), free_port())
        write_text(place / "project.yml", yaml.safe_dump(values, sort_keys=False))
    if not list((place / "kits").glob("*/prod_*")):
        make_kits(place)
    for kit in kits(place):
        who = "server" if kit.name == HOST else kit.name
        shutil.copy(place / "sites" / f"counterpoint-{who}.yaml", kit / "local")
    return place


def here(project: Any, port: int) -> dict[str, Any]:
    """A project whose server is this machine.

    >>> made = here({"participants": [{"type": "server", "name": "fl.example.org"}]}, 8002)
    >>> made["participants"]
    [{'type': 'server', 'name': 'localhost', 'fed_learn_port': 8002, 'admin_port': 8002}]
    """
    at = {"name": HOST, "fed_learn_port": port, "admin_port": port}
    parts = [one | (at if one["type"] == "server" else {}) for one in project["participants"]]
    return {**project, "participants": parts}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("", 0))
        return int(one.getsockname()[1])


def kits(place: Path) -> list[Path]:
    """The kits of server and sites, the server's first."""
    values = read_project(place)
    newest = sorted((place / "kits" / str(values["name"])).glob("prod_*"))[-1]
    sites = [one["name"] for one in values["participants"] if one["type"] == "client"]
    return [newest / name for name in (HOST, *sites)]


def wait_for_sites(place: Path, ours: Processes, patience: float = 300.0) -> None:
    """Wait until the server takes calls and all sites are connected.

    Raises:
        StateError: if one of them ends, or ``patience`` seconds have gone by.
    """
    over = time.monotonic() + patience
    sites = {kit.name for kit in kits(place)[1:]}
    values = read_project(place)
    (port,) = (one["fed_learn_port"] for one in values["participants"] if one["type"] == "server")
    while not listens(port):
        rest(ours, over, f"the server; {kits(place)[0] / LOG} says why")
    with session(place) as opened:
        while missing := sites - {one.name for one in opened.get_system_info().client_info}:
            rest(ours, over, f"{', '.join(sorted(missing))}; {LOG} in their kits says why")


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((HOST, port)) == 0


def rest(ours: Processes, over: float, whom: str) -> None:
    """Let time go by while all is well."""
    ours.check_alive()
    if time.monotonic() > over:
        raise StateError(f"waited in vain for {whom}")
    time.sleep(0.5)


def follow(place: Path, ours: Processes, number: str) -> Iterator[Event]:
    """The events of a job as they come, till FLARE has ended it.

    Raises:
        StateError: if it ends and has not finished its run.
    """
    finished = ended = False
    look = 0.0
    with session(place) as opened, open(place / EVENTS, encoding="utf-8") as coming:
        while not ended:
            ours.check_alive()
            if time.monotonic() > look:
                status = status_of(opened, number)
                ended, look = status.startswith("FINISHED"), time.monotonic() + 2
            for line in coming:
                event = json.loads(line)
                if "failed" in event:
                    kind = TrainingError if event["kind"] == "TrainingError" else StateError
                    raise kind(str(event["failed"]))
                finished = finished or "finished" in event
                if "finished" not in event:
                    yield event
            time.sleep(0.2)
    if not finished:
        raise StateError(
            f"FLARE has ended the job ({status}), and not the run; {LOG} in the kits of "
            f"{place} says why"
        )
