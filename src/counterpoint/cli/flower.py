"""Commands for runs across sites on Flower."""

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
from counterpoint.cli.common import give, state

flower = engine("flower", "Runs across sites on Flower.")


@flower
@with_options_of_run
def simulate(*, min_sites: MIN_SITES = 0, deadline: DEADLINE = 0, **given: Any) -> None:
    """Train as `run` does, on Flower's SuperLink and a SuperNode a site. The results are the same.

    Flower's control interface is then open to every user of this machine, and to nobody else.
    """
    from counterpoint.flower.simulate import simulate as simulated

    rehearsed(simulated, given, min_sites=min_sites, deadline=deadline)


@flower
@with_options_of_run
def init(
    *,
    host: Annotated[str, typer.Option(help="Name of the server, as sites reach it.")] = "localhost",
    port: Annotated[int, typer.Option(help="The one port, open at the server only.")] = 8443,
    min_sites: MIN_SITES = 0,
    deadline: DEADLINE = 0,
    **given: Any,
) -> None:
    """Write what a consortium needs: an app of Flower, and folders for server and sites, in --out.

    DATA is what each site is told to read; every site changes that in its own file. --sites and
    --classes must be given, as nobody has all the data to look them up.
    """
    from counterpoint.flower.programs import require_flower
    from counterpoint.flower.write import write_consortium

    require_flower()
    plan, folder, data = consortium_of(given)
    write_consortium(
        folder,
        plan,
        host=host,
        port=port,
        data=data,
        min_sites=min_sites,
        deadline=deadline,
    )
    give(
        escape(
            f"{folder} is ready: {folder}/app for `flwr run`, {folder}/server for the server, and "
            f"a folder in {folder}/sites for each site"
        ),
        {"folder": str(folder), "sites": list(plan.sites.values())},
    )


FOLDER = Annotated[Path, typer.Argument(help="Folder that `counterpoint flower init` has made.")]
FURTHER = Annotated[
    list[str] | None, typer.Argument(help="Words for Flower's own program, after --.")
]


@flower
def server(folder: FOLDER, further: FURTHER = None) -> None:
    """Start the server: Flower's SuperLink, with what follows -- for it."""
    import os

    from counterpoint.flower.programs import SERVER, environment, program
    from counterpoint.remote.server_file import SETTINGS, read_server_file

    path = (folder / "local" / SETTINGS).absolute()
    read_server_file(path)
    link = program("flower-superlink")
    os.execve(link, [link, *(further or [])], environment({SERVER: str(path)}))


@flower
def site(folder: FOLDER, further: FURTHER = None) -> None:
    """Start a site: its own process, and Flower's SuperNode, with what follows -- for it."""
    import logging

    from counterpoint.flower.programs import require_flower

    require_flower()
    from counterpoint.flower.site import serve

    logging.basicConfig(
        level=logging.WARNING if state["quiet"] else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
    )
    raise typer.Exit(serve(folder, further or []))
