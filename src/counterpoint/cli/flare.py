"""Commands for runs across sites on NVIDIA FLARE."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from counterpoint.cli.across import (
    DEADLINE,
    MIN_SITES,
    consortium_of,
    engine,
    rehearsed,
    with_options_of_run,
)
from counterpoint.cli.common import err, give, note, state

flare = engine("flare", "Runs across sites on NVIDIA FLARE.")


@flare
@with_options_of_run
def simulate(*, min_sites: MIN_SITES = 0, deadline: DEADLINE = 0, **given: Any) -> None:
    """Train as `run` does, on FLARE's simulator: a process a site. The results are the same."""
    from counterpoint.flare.simulate import simulate as simulated

    rehearsed(simulated, given, min_sites=min_sites, deadline=deadline)


@flare
@with_options_of_run
def init(
    *,
    host: Annotated[str, typer.Option(help="Name of the server, as sites reach it.")] = "localhost",
    port: Annotated[int, typer.Option(help="The one port, open at the server only.")] = 8002,
    organisation: Annotated[str, typer.Option(help="Of all, in the certificates.")] = "consortium",
    admin: Annotated[str, typer.Option(help="Who submits jobs.")] = "admin@consortium.org",
    min_sites: MIN_SITES = 0,
    deadline: DEADLINE = 0,
    **given: Any,
) -> None:
    """Write what a consortium needs: project.yml, the job, each site's settings file, in --out.

    DATA is what each site is told to read; every site changes that in its own file. --sites and
    --classes must be given, as nobody has all the data to look them up.
    """
    from counterpoint.flare.provision import write_consortium
    from counterpoint.flare.simulate import require_flare
    from counterpoint.report.words import typed

    require_flare()
    plan, folder, data = consortium_of(given)
    write_consortium(
        folder,
        plan,
        server=host,
        port=port,
        organisation=organisation,
        admin=admin,
        data=data,
        min_sites=min_sites,
        deadline=deadline,
    )
    give(
        escape(
            f"{folder} is ready. Look through {folder}/sites, then: "
            f"counterpoint flare provision {typed(folder)}"
        ),
        {"folder": str(folder), "sites": list(plan.sites.values())},
    )


FOLDER = Annotated[Path, typer.Argument(help="Folder that `counterpoint flare init` has made.")]


@flare
def provision(folder: FOLDER) -> None:
    """Make a startup kit with its certificates for server, sites and administrator."""
    from counterpoint.flare.provision import make_kits
    from counterpoint.flare.simulate import require_flare

    require_flare()
    kits = make_kits(folder)
    give(
        escape(
            f"{kits} has a startup kit for each: send each only its own, over a safe way; "
            "start them by startup/start.sh"
        ),
        {"kits": str(kits)},
    )


@flare
def check(
    kit: Annotated[Path, typer.Argument(help="Your startup kit.")] = Path(),
) -> None:
    """Tell before the day whether name, port, certificates, clock, disk and data are right.

    For the owner of a startup kit, on the machine where it will run: site, server or administrator.
    A site's data are read and decoded. The exit code is 1 if anything failed.
    """
    from rich.table import Table
    from rich.text import Text

    from counterpoint.flare.simulate import require_flare

    require_flare()
    from counterpoint.flare.check import check_kit

    table = Table("", "", "found", "what to do", title=Text(f"the startup kit {kit}"))
    marks = {True: Text("ok", "green"), False: Text("failed", "bold red"), None: Text("not known")}
    found = []
    for one in check_kit(kit):
        note(f"{one.what}: {marks[one.ok]}")
        found.append(one)
        table.add_row(Text(one.what), marks[one.ok], Text(one.found), Text(one.todo))
    give(table, [asdict(one) for one in found])
    if any(one.ok is False for one in found):
        raise typer.Exit(1)


@flare
def poc(
    folder: FOLDER,
    to: Annotated[Path, typer.Option("--out", help="Folder for the runs.")] = Path("runs"),
) -> None:
    """Rehearse a consortium on this machine: real processes, certificates, the sites' settings.

    Server and sites are started from kits of their own in FOLDER/poc, the job is submitted,
    followed and collected, and all are stopped, after Ctrl-C as well; then, the same command goes
    on from the last complete round.
    """
    from counterpoint.flare.simulate import require_flare

    require_flare()
    from counterpoint.flare.poc import rehearse
    from counterpoint.report.live import live_display

    note("making kits and starting server and sites; this takes a minute")
    with live_display(err, quiet=state["quiet"]) as report:
        runs = rehearse(folder, to, report)
    give(escape("\n".join(map(str, runs))), {"runs": [str(run) for run in runs]})


@flare
def submit(folder: FOLDER) -> None:
    """Submit the job; where it was stopped before, it goes on from its last complete round."""
    from counterpoint.flare.session import submit as send

    job = send(folder)
    give(f"job {job} is submitted", {"job": job})


@flare
def status(folder: FOLDER) -> None:
    """Show which sites are connected, and how the job stands."""
    from counterpoint.flare.session import status as ask

    found = ask(folder)
    lines = [
        f"{name}: {', '.join(value) if isinstance(value, list) else value}"
        for name, value in found.items()
    ]
    give(escape("\n".join(lines)), found)


@flare
def collect(
    folder: FOLDER,
    to: Annotated[Path, typer.Option("--out", help="Folder for the runs.")] = Path("runs"),
) -> None:
    """Download the results: scores, payloads and what model all sites share."""
    from counterpoint.flare.session import collect as download

    runs = download(folder, to)
    give(escape("\n".join(map(str, runs))), {"runs": [str(run) for run in runs]})
