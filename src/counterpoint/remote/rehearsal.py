"""A rehearsal: a run whose sites are all on this machine, each in a process of an engine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from counterpoint.crew import Event, Report
from counterpoint.data.site import Federation
from counterpoint.encryption import make_key, write_key
from counterpoint.errors import SettingsError, StateError, TrainingError
from counterpoint.files import write_bytes
from counterpoint.remote.plan import Plan
from counterpoint.settings import Settings

ANY_CODE = [""]
"""Whatever a run names may be imported: sites and server are one user's on one machine."""


def refuse_what_needs_all_data(settings: Settings, federation: Federation) -> None:
    """Refuse what can't be done without the data of all sites in one place."""
    if settings.method.pooled:
        raise SettingsError(
            f"method '{settings.method.name}' trains on the data of all sites in one place; "
            "use `counterpoint run`"
        )
    if federation.holdout:
        raise SettingsError(
            "a site that is held out is scored with the models of all sites, which stay where they "
            "are; use `counterpoint run`, or leave --holdout away"
        )


def plan_of(name: str, settings: Settings, federation: Federation) -> Plan:
    """The plan of a run whose data are all here."""
    facts = {
        "data": federation.name,
        "protocol": federation.protocol,
        "holdout": None,
        "data_fingerprint": federation.fingerprint,
        "data_notes": list(federation.notes),
    }
    clients = {f"site-{number}": site.name for number, site in enumerate(federation.sites, start=1)}
    return Plan(name, settings, federation.classes, federation.form, clients, facts)


def shared_key(workspace: Path, encrypt: bool) -> dict[str, str]:
    """What the settings files of all sites say of their key: a new one, if the run encrypts."""
    if not encrypt:
        return {}
    return {"key": str(write_key(workspace / "sites" / "encryption.key", make_key()))}


def follow(coming: TextIO, process: "subprocess.Popen[bytes]") -> Iterator[Event]:
    """The events of a server as they come, till its process ends."""
    while True:
        over = process.poll() is not None
        for line in coming:
            yield json.loads(line)
        if over:
            return
        time.sleep(0.1)


def heed(events: Iterator[Event], runs: set[str], report: Report) -> bool:
    """Hand a server's events on till all runs are finished; False if they end before that.

    Raises:
        CounterpointError: what a run has failed of.
    """
    unfinished = set(runs)
    for event in events:
        if "failed" in event:
            kind = TrainingError if event["kind"] == "TrainingError" else StateError
            raise kind(str(event["failed"]))
        unfinished.discard(str(event.get("finished")))
        if not unfinished:
            return True
        if "finished" not in event:
            report(event)
    return False


def end_session(process: "subprocess.Popen[bytes]") -> None:
    """End a process, and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def gather_from_sites(workspace: Path, plan: Plan, out: Path) -> None:
    """Bring into the run's folder what the sites keep: their models, and the test cases.

    Raises:
        StateError: if the run has no results.
    """
    if not (out / "results.json").exists():
        raise StateError(f"the simulator has ended and {out} has no results")
    table = b""
    for client in plan.sites:
        place = workspace / "sites" / client / plan.name
        cases = (place / "test_cases.csv").read_bytes()
        table += cases if not table else cases.partition(b"\n")[2]
        shutil.copytree(place / "models", out / "models", dirs_exist_ok=True)
    write_bytes(out / "test_cases.csv", table)
