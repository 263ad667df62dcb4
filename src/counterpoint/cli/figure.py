"""The command that draws the papers' figures from runs."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from counterpoint.cli.common import command, err, fail, give, note, parsed, state, words
from counterpoint.cli.complete import completes

LANDSCAPE = "Landscape"


@command
def figure(
    name: Annotated[
        str | None,
        typer.Argument(help="Which; left out, all are listed.", autocompletion=completes("figure")),
    ] = None,
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or folders with a run in each subfolder.")
    ] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for the figure's files.")] = Path(
        "figures"
    ),
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with this setting: NAME=VALUE; may be repeated."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Score to draw; left out, that which chose the models.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="convergence: rounds, gradients or bytes.", autocompletion=completes("against")
        ),
    ] = None,
    x: Annotated[
        str | None, typer.Option("--x", help="sweep: setting on the axis; found if one varies.")
    ] = None,
    lines: Annotated[
        str | None, typer.Option(help="sweep: setting with a line a value, or method.")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="surface or line: along random directions; plane: through the global model and "
            "two sites' optima.",
            rich_help_panel=LANDSCAPE,
            autocompletion=completes("shape"),
        ),
    ] = None,
    sites: Annotated[
        str | None, typer.Option(help="Only these, comma-separated.", rich_help_panel=LANDSCAPE)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Loss on validation or train images.",
            rich_help_panel=LANDSCAPE,
            autocompletion=completes("split"),
        ),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            help="Batch norm's at every point: recalibrated there, or as saved with the model.",
            rich_help_panel=LANDSCAPE,
            autocompletion=completes("statistics of a landscape"),
        ),
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Images of each site.", rich_help_panel=LANDSCAPE)
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="Points along an axis.", rich_help_panel=LANDSCAPE)
    ] = None,
    reach: Annotated[
        float | None,
        typer.Option(
            help="How far it goes to each side, in lengths of the filters; on a plane beyond the "
            "models, as a share of their largest distance from the global one.",
            rich_help_panel=LANDSCAPE,
        ),
    ] = None,
    directions: Annotated[
        int | None, typer.Option(help="Random directions of a line.", rich_help_panel=LANDSCAPE)
    ] = None,
    direction_seed: Annotated[
        int | None, typer.Option(help="Of the directions.", rich_help_panel=LANDSCAPE)
    ] = None,
    optima: Annotated[
        Path | None,
        typer.Option(
            help="plane: run with --aggregation none, for the sites' optima; left out, each "
            "site trains on from the global model.",
            rich_help_panel=LANDSCAPE,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder or table of the data, if it has moved.", rich_help_panel=LANDSCAPE
        ),
    ] = None,
) -> None:
    """Draw a figure of the papers from runs: PNG, SVG, PDF, and the numbers as CSV."""
    options = dict(locals())
    for given in ("name", "folders", "to", "where"):
        del options[given]
    if name is None:
        from counterpoint.figures import FIGURES

        listed = "\n".join(f"[bold]{n}[/]  {escape(text)}" for n, text in FIGURES.items())
        give(listed, FIGURES)
        return
    numbers, draw = _parts(name)
    if not folders:
        fail(f"which runs? counterpoint figure {name} RUN_OR_FOLDER...", 2)
    options["sites"] = words(sites)
    chosen = {key: value for key, value in options.items() if value is not None}
    for key in set(chosen) - set(inspect.signature(numbers).parameters):
        fail(f"--{key.replace('_', '-')} is not an option of the figure '{name}'", 2)

    from counterpoint.figures.save import save_with_numbers
    from counterpoint.report.live import counting
    from counterpoint.runs import gather

    runs = gather(folders, dict(_setting(text) for text in where or []))
    with counting(err, hidden=state["quiet"]) as progress:
        for key, helper in (("note", note), ("progress", progress)):
            if key in inspect.signature(numbers).parameters:
                chosen[key] = helper
        table = numbers(runs, **chosen)
    paths = save_with_numbers(draw(table), table, to / name)
    give(
        "\n".join(escape(str(path)) for path in paths),
        {"figure": name, "files": [str(path) for path in paths], "runs": len(runs)},
    )


def _parts(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What gives a figure's numbers, and what draws them."""
    from counterpoint.errors import nearest
    from counterpoint.figures import FIGURES

    if name not in FIGURES:
        hint = nearest(name, list(FIGURES))
        fail(f"unknown figure '{name}'{hint}; there are {', '.join(FIGURES)}", 2)
    module = import_module(f"counterpoint.figures.{name}")
    return module.numbers, module.draw


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        fail(f"--where {text}: write it as NAME=VALUE", 2)
    return name.strip(), parsed(value, f"--where {name}")
