"""What the commands of all engines share: the options of `run`, a rehearsal, a consortium.

And the command that is the same for all of them, `audit`.
"""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterpoint.cli.common import SHARED, app, command, fail, give, shown_live, state, words
from counterpoint.cli.options import settings_from, usual_folder
from counterpoint.cli.training import run, show_result

if TYPE_CHECKING:
    from counterpoint.remote import Plan
    from counterpoint.results import Result

MIN_SITES = Annotated[
    int, typer.Option(help="Sites that must take part in every round; 0: all of them.")
]
DEADLINE = Annotated[int, typer.Option(help="Seconds that a site has for a round; 0: no limit.")]


def engine(name: str, title: str) -> Callable[..., Callable[..., None]]:
    """Begin the group of an engine's commands; what comes back makes a function one of them."""
    group = typer.Typer(
        name=name,
        help=title,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.add_typer(group)
    return functools.partial(command, group=group)


def with_options_of_run(function: Any) -> Any:
    """Give a function the options of `run`, before its own; they come as keywords."""
    own = inspect.signature(function).parameters.values()
    shared = [
        one
        for name, one in inspect.signature(run).parameters.items()
        if name not in SHARED and name != "log"
    ]
    added = [one for one in own if one.kind is one.KEYWORD_ONLY]
    plain = [one.replace(kind=one.POSITIONAL_OR_KEYWORD) for one in (*shared, *added)]
    function.__signature__ = inspect.Signature(plain)
    function.__annotations__ = {one.name: one.annotation for one in plain}
    return function


def rehearsed(simulate: "Callable[..., Result]", given: dict[str, Any], **own: int) -> None:
    """Do a run on an engine's processes on this machine, and show its results."""
    options = settings_from(**given)
    method, data = given["method"], given["data"]
    usual = usual_folder(method, data, options)
    folder = given["to"] or usual.with_name(re.sub(r"[^\w.-]+", "-", usual.name))
    with shown_live(folder) as report:
        result = simulate(method, data, out=folder, report=report, settings=options, **own)
    show_result(result)


def consortium_of(given: dict[str, Any]) -> "tuple[Plan, Path, dict[str, str | None]]":
    """The plan of a run across sites, the folder for it, and the data that sites are told to read.

    Names of sites that were not given are asked for.
    """
    from counterpoint.remote.plan import plan_without_data

    options = settings_from(**given)
    if not options.get("data.sites"):
        if state["json"]:
            fail("name the sites: --sites A,B", 2)
        options["data.sites"] = words(typer.prompt("Names of the sites, comma-separated"))
    folder = given["to"] or Path("consortium")
    sites, classes = options.pop("data.sites"), options.pop("data.classes", None)
    root, data = options.pop("data.root", None), given["data"]
    plan = plan_without_data(folder.absolute().name, given["method"], data, sites, classes, options)
    return (
        plan,
        folder,
        {
            "data": str(Path(data).absolute()) if Path(data).exists() else data,
            "root": str(Path(root).absolute()) if root else None,
        },
    )


@command
def audit(
    folder: Annotated[Path, typer.Argument(help="A site's storage folder, or its audit.csv.")],
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="A line a tensor.")] = False,
) -> None:
    """Show a site's own record of what left it and what came, which the server never sees."""
    from rich.table import Table
    from rich.text import Text

    from counterpoint.remote.audit import read_record, summary

    lines = read_record(folder)
    lines = lines[lines["run"] == run] if run else lines
    found = lines if tensors else summary(lines)
    table = Table(title=Text(f"the record of {folder}"))
    for name in found.columns:  # a narrow terminal breaks names and checksums, and loses nothing
        table.add_column(str(name), overflow="fold")
    for row in found.astype(str).itertuples(index=False):
        table.add_row(*map(Text, row))
    give(table, found.to_dict("records"))
