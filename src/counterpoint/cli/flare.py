"""Commands for runs across sites on NVIDIA FLARE."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from counterpoint.cli.common import SHARED, app, command, give, shown_live
from counterpoint.cli.training import chosen, run, show_result

flare = typer.Typer(
    name="flare",
    help="Runs across sites on NVIDIA FLARE.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(flare)

MIN_SITES = Annotated[
    int, typer.Option(help="Sites that must take part in every round; 0: all of them.")
]
DEADLINE = Annotated[int, typer.Option(help="Seconds that a site has for a round; 0: no limit.")]


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


@with_options_of_run
def simulate(*, min_sites: MIN_SITES = 0, deadline: DEADLINE = 0, **given: Any) -> None:
    """Train as `run` does, on FLARE's simulator: a process a site. The results are the same."""
    from counterpoint.flare.simulate import simulate as simulated

    options, folder = chosen(given)
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


command(simulate, flare)


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
    table = Table(*map(str, found.columns), title=Text(f"the record of {folder}"))
    for row in found.astype(str).itertuples(index=False):
        table.add_row(*map(Text, row))
    give(table, found.to_dict("records"))
