"""Commands that show what there is: methods, data sets, and what is in data."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from counterpoint.cli.common import command, err, give, note, parsed, say, state, warn, words
from counterpoint.cli.complete import completes


@command
def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show one method and its defaults.", autocompletion=completes("method")
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="Defaults for classification or segmentation.", autocompletion=completes("task")
        ),
    ] = "classification",
) -> None:
    """List the methods and what they are composed of, or one method's settings."""
    from counterpoint.methods import methods as known
    from counterpoint.report.table import method_page, methods_table
    from counterpoint.settings import as_dict, make_settings

    if name:
        settings = as_dict(make_settings(name, "phantom", {"data.task": task}))
        del settings["data"], settings["machine"]
        give(method_page(name, task), settings)
    else:
        summaries = {n: method.summary for n, method in known().items()}
        give(methods_table(list(known()), task), summaries)


@command
def datasets() -> None:
    """List the data sets that have a name."""
    from counterpoint.data import datasets as known

    lines = [f"[bold]{name}[/]  {sentence}" for name, sentence in known().items()]
    give("\n".join(lines), known())
    say(
        "Your own: a CSV with columns site, image, label (and split, group where known), or a "
        "folder with one folder a site that holds images and labels.csv. `counterpoint table` "
        "makes the table of folders that say what is in them."
    )


@command
def inspect(
    data: Annotated[
        str,
        typer.Argument(
            help="retina, phantom, ... or your own table or folder",
            autocompletion=completes("data"),
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="Folder of the named data set.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="classification or segmentation.", autocompletion=completes("task")),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="grouped, published, given, patches.", autocompletion=completes("protocol")
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="The only labels, in order, comma-separated.")
    ] = None,
    volumes: Annotated[
        str | None,
        typer.Option(
            help="NIfTI and DICOM volumes as slices, patches or whole.",
            autocompletion=completes("volumes"),
        ),
    ] = None,
    sites: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    holdout: Annotated[str | None, typer.Option(help="A site that is not to train.")] = None,
    window: Annotated[
        str | None, typer.Option(help="Range of a volume's own units that is shown: LOW,HIGH.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave missing and unreadable files out.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of a split that is made.", min=0)] = 1,
) -> None:
    """Show sites, classes, sizes, splits, leakage and mean colour of data."""
    from counterpoint.crew import told
    from counterpoint.data import decode, load
    from counterpoint.data import inspect as look
    from counterpoint.data.own import patients_known
    from counterpoint.errors import LeakageError
    from counterpoint.report.live import live_display
    from counterpoint.report.table import frame_table

    read = functools.partial(
        load,
        data,
        root,
        task=task,
        classes=words(classes),
        volumes=volumes,
        sites=words(sites),
        holdout=holdout,
        window=parsed(f"[{window}]", "--window") if window else None,
        seed=seed,
        skip_bad=skip_bad,
    )
    with live_display(err, quiet=state["quiet"]) as report:
        try:
            federation = read(protocol=protocol, progress=told(report, "checked"))
        except LeakageError:  # to be looked at, not to be trained on
            federation = read(protocol="given")
        if skip_bad:
            federation, _ = decode(federation, 32, skip_bad=True, progress=told(report, "decoded"))
        frame = look(federation, progress=told(report, "inspected"))
    table = frame_table(frame, f"{federation.name}, protocol {federation.protocol}")
    give(table, {"sites": frame.to_dict("index"), "notes": list(federation.notes)})
    leaks = [sentence for sentence in federation.notes if "leaks" in sentence]
    for sentence in federation.notes:
        if sentence in leaks:
            warn(sentence)
        elif not state["json"]:
            note(sentence)
    if not leaks:
        known = patients_known(federation.notes)
        say(f"leakage: none found{'' if known else ', as far as patients are known'}")
