"""A run on FLARE's simulator: one machine, a process for the server and one for each site."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoint.crew import Report
from counterpoint.errors import SettingsError, StateError
from counterpoint.files import write_text
from counterpoint.flare.job import SERVER, SITE, write_job
from counterpoint.remote.plan import Plan
from counterpoint.remote.rehearsal import Rehearsal, follow, heed, rehearse
from counterpoint.remote.server_file import SETTINGS
from counterpoint.remote.site_file import settings_file
from counterpoint.results import Result


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
    """Do a run on FLARE's simulator. Its folder is that of `counterpoint.run`, bit for bit.

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
        CounterpointError: if data, settings, training or the simulator fail.
    """
    require_flare()

    def engine(rehearsal: Rehearsal) -> None:
        lay_out(rehearsal)
        write_job(rehearsal.workspace / "job", [rehearsal.plan], min_sites, deadline)
        run_simulator(rehearsal.workspace, [rehearsal.plan], report)

    return rehearse(
        method, data, engine, out=out, report=report, settings=settings, min_sites=min_sites
    )


def require_flare() -> None:
    """Raise SettingsError where FLARE is not installed."""
    try:
        import nvflare  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "NVIDIA FLARE is not installed; get it by `pip install 'counterpoint[flare]'`"
        ) from error


def lay_out(rehearsal: Rehearsal) -> None:
    """Write the settings files of server and sites into the simulator's workspace."""
    local = rehearsal.workspace / "flare" / "local"
    rehearsal.lay_out(local / SETTINGS, lambda client: local / settings_file(client))
    write_text(local / "resources.json", json.dumps({"class_allow_list": [SERVER, SITE]}))


def run_simulator(workspace: Path, plans: Sequence[Plan], report: Report) -> None:
    """Run the job in the workspace, in a process of its own, until all plans are finished.

    Raises:
        CounterpointError: what the server has ended with, or that the simulator failed.
    """
    from counterpoint.flare.processes import processes  # it needs what FLARE brings

    events, log = workspace / "events", workspace / "log"
    events.touch()
    code = "import sys; from counterpoint.flare.simulate import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(workspace), ",".join(plans[0].sites)]
    with processes() as ours, open(events, encoding="utf-8") as coming:
        process = ours.run(workspace, command, log)
        if heed(follow(coming, process), {plan.name for plan in plans}, report):
            return  # all is on the disk; FLARE would take its time to close
    errors = [line for line in log.read_text(errors="replace").splitlines() if "ERROR" in line]
    raise StateError(
        f"FLARE's simulator ended with code {process.returncode}, and not the run: "
        + (errors[-1][:500] if errors else "it has said nothing")
    )


def main(workspace: str, clients: str) -> None:
    """Run the simulator; called in a process of its own."""
    from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

    place = Path(workspace)
    code = SimulatorRunner(
        job_folder=str(place / "job"),
        workspace=str(place / "flare"),
        clients=clients,
        threads=len(clients.split(",")),
    ).run()
    sys.exit(code)
