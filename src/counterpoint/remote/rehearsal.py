"""A rehearsal: a run whose sites are all on this machine, each in a process of an engine."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from counterpoint.api import draw_figures, prepare, task_of
from counterpoint.crew import Event, Report
from counterpoint.data.site import Federation, SiteData
from counterpoint.encryption import make_key, write_key
from counterpoint.errors import SettingsError, StateError, TrainingError
from counterpoint.files import write_bytes
from counterpoint.folder import RunFolder
from counterpoint.methods import find_method
from counterpoint.remote.plan import Plan, plain_name
from counterpoint.remote.site_file import write_decoded, write_site_file
from counterpoint.results import Result
from counterpoint.settings import Settings, full_names

ANY_CODE = [""]
"""Whatever a run names may be imported: sites and server are one user's on one machine."""


@dataclass(frozen=True)
class Rehearsal:
    """A run whose data are here, and the folder in which the engine has its own files."""

    plan: Plan
    federation: Federation
    sites: list[SiteData]
    out: Path
    workspace: Path

    def lay_out(self, server_file: Path, site_file: Callable[[str], Path]) -> None:
        """Write the settings files of server and sites, and each site's images."""
        server = {
            "runs": str(self.out.parent),
            "imports": ANY_CODE,
            "events": str(self.workspace / "events"),
        }
        write_site_file(server_file, server)
        shared = shared_key(self.workspace, self.plan.settings.encrypt)
        for client, site in zip(self.plan.sites, self.sites, strict=True):
            place = self.workspace / "sites" / client
            write_decoded(place / "data.npz", site, self.federation.fingerprint)
            own = {"storage": str(place), "decoded": str(place / "data.npz"), "imports": ANY_CODE}
            write_site_file(site_file(client), {**own, "policy": {"seeded": True}, **shared})


def rehearse(
    method: str,
    data: str,
    engine: Callable[[Rehearsal], None],
    *,
    out: str | Path,
    report: Report = lambda event: None,
    settings: Mapping[str, Any] | None = None,
    min_sites: int = 0,
) -> Result:
    """Do a run on an engine, on this machine: its folder is that of `counterpoint.run`.

    Args:
        method: as for `counterpoint.run`.
        data: the same.
        engine: does the run that it is given, and returns when the server has finished it.
        out: as for `counterpoint.run`.
        report: the same.
        settings: the same.
        min_sites: sites that must take part in every round; all where 0.

    Raises:
        CounterpointError: if data, settings, training or the engine fail.
    """
    out = Path(out).absolute()
    try:
        plain_name(out.name)  # the run's, which the sites know it by
    except SettingsError as error:
        raise SettingsError(f"{error}; choose another --out") from error
    refuse_what_needs_all_data(method, settings or {})
    chosen, federation, sites = prepare(method, data, out, settings or {}, report)
    plan = plan_of(out.name, chosen, federation)
    plan.require_enough(min_sites)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as workspace:
        facts = {"fingerprint": federation.fingerprint, "notes": list(federation.notes)}
        facts["plan"] = plan.fingerprint
        RunFolder.create(out, chosen, task_of(chosen, federation).metrics, facts)
        engine(Rehearsal(plan, federation, sites, out, Path(workspace)))
        gather_from_sites(Path(workspace), plan, out, report)
    result = Result(out)
    draw_figures(result)
    return result


def refuse_what_needs_all_data(method: str, settings: Mapping[str, Any]) -> None:
    """Refuse what can't be done without the data of all sites in one place."""
    wanted, found = full_names(settings), find_method(method)
    if wanted.get("pooled", found.pooled):
        raise SettingsError(
            f"method '{found.name}' trains on the data of all sites in one place; "
            "use `counterpoint run`"
        )
    if wanted.get("data.holdout"):
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
    return Plan(plain_name(name), settings, federation.classes, federation.form, clients, facts)


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


def gather_from_sites(
    workspace: Path, plan: Plan, out: Path, report: Report = lambda event: None
) -> None:
    """Bring into the run's folder what the sites keep: their models, and the test cases.

    A site that was left out of the test has neither; that is told.

    Raises:
        StateError: if the run has no results.
    """
    if not (out / "results.json").exists():
        raise StateError(f"the simulator has ended and {out} has no results")
    table = b""
    for client in plan.sites:
        place = workspace / "sites" / client / plan.name
        if not (place / "test_cases.csv").exists():
            report({"warning": f"site '{plan.sites[client]}' was not tested and has no model"})
            continue
        cases = (place / "test_cases.csv").read_bytes()
        table += cases if not table else cases.partition(b"\n")[2]
        if not (out / "models" / "global.safetensors").exists():  # else it is theirs, too
            shutil.copytree(place / "models", out / "models", dirs_exist_ok=True)
    write_bytes(out / "test_cases.csv", table)
