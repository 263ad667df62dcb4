"""Commands for runs across sites on Flower."""

from pathlib import Path
from typing import Annotated, Any

import typer

from counterpoint.cli.common import app, command, give, shown_live, state
from counterpoint.cli.flare import DEADLINE, MIN_SITES, with_options_of_run
from counterpoint.cli.training import settings_from, show_result, usual_folder

flower = typer.Typer(
    name="flower",
    help="Runs across sites on Flower.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(flower)


@with_options_of_run
def simulate(*, min_sites: MIN_SITES = 0, deadline: DEADLINE = 0, **given: Any) -> None:
    """Train as `run` does, on Flower's SuperLink and a SuperNode a site. The results are the same.

    Flower's control interface is then open to every user of this machine, and to nobody else.
    """
    from counterpoint.flower.simulate import simulate as simulated

    options = settings_from(**given)
    folder = given["to"] or usual_folder(given["method"], given["data"], options)
    with shown_live(folder) as report:
        result = simulated(
            given["method"],
            given["data"],
            out=folder,
            report=report,
            settings=options,
            min_sites=min_sites,
            deadline=deadline,
        )
    show_result(result)


command(simulate, flower)


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
    from counterpoint.remote.plan import plan_without_data

    require_flower()
    if not given["sites"] and not state["json"]:
        given["sites"] = typer.prompt("Names of the sites, comma-separated")
    options = settings_from(**given)
    folder = given["to"] or Path("consortium")
    sites, classes = options.pop("data.sites"), options.pop("data.classes", None)
    root = options.pop("data.root", None)
    plan = plan_without_data(folder.name, given["method"], given["data"], sites, classes, options)
    data = given["data"]
    write_consortium(
        folder,
        plan,
        host=host,
        port=port,
        data=str(Path(data).absolute()) if Path(data).exists() else data,
        root=str(Path(root).absolute()) if root else None,
        min_sites=min_sites,
        deadline=deadline,
    )
    give(
        f"{folder} is ready: {folder}/app for `flwr run`, {folder}/server for the server, and a "
        f"folder in {folder}/sites for each site",
        {"folder": str(folder), "sites": sites},
    )


command(init, flower)

FOLDER = Annotated[Path, typer.Argument(help="Folder that `counterpoint flower init` has made.")]
FURTHER = Annotated[
    list[str] | None, typer.Argument(help="Words for Flower's own program, after --.")
]


def server(folder: FOLDER, further: FURTHER = None) -> None:
    """Start the server: Flower's SuperLink, with what follows -- for it."""
    import os

    from counterpoint.flower.programs import SERVER, environment, program
    from counterpoint.remote.server_file import SETTINGS, read_server_file

    path = (folder / "local" / SETTINGS).absolute()
    read_server_file(path)
    link = program("flower-superlink")
    os.execve(link, [link, *(further or [])], environment({SERVER: str(path)}))


command(server, flower)


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


command(site, flower)
