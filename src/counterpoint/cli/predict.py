"""Commands that use a trained model: on new images, and elsewhere."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from counterpoint.cli.common import MACHINE, command, err, give, note, say, state, warn
from counterpoint.cli.complete import completes

MODEL = Annotated[Path, typer.Argument(help="Folder of a finished run, or a .safetensors model.")]
SITE = Annotated[
    str | None, typer.Option(help="Whose personal model; the global one where left out.")
]


@command
def predict(
    model: MODEL,
    images: Annotated[
        list[Path],
        typer.Argument(help="Photographs, NIfTI, DICOM, folders with them, or a CSV."),
    ],
    to: Annotated[Path, typer.Option("--out", help="New folder for what is predicted.")],
    site: SITE = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="By the mean of all personal models: for a new hospital."),
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write those of every pixel, too.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out files that are broken or missing.")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images at a time.", rich_help_panel=MACHINE)
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1.", rich_help_panel=MACHINE)
    ] = "auto",
) -> None:
    """Predict the classes of images, or masks in the size and place of the images."""
    import counterpoint
    from counterpoint.report.live import prediction_bar

    with prediction_bar(err, note, warn, hidden=state["quiet"]) as report:
        table = counterpoint.predict(
            model,
            images,
            site=site,
            together=together,
            out=to,
            probabilities=probabilities,
            skip_bad=skip_bad,
            batch_size=batch_size,
            device=device,
            report=report,
        )
    found = table.to_dict("records")  # without what is no number: not every image has millilitres
    masks = " and masks/" if "mask" in table else ""
    rows = table.head(10).to_string(index=False)
    more = f"\n... {len(table) - 10} rows more" if len(table) > 10 else ""
    give(escape(rows + more), [{n: v for n, v in row.items() if v == v} for row in found])
    left = " and left_out.csv" if (to / "left_out.csv").exists() else ""
    say(f"Everything is in {to}: predictions.csv{masks}{left}")


@command
def export(
    model: MODEL,
    to: Annotated[Path, typer.Option("--out", help="File to write, e.g. model.onnx.")],
    site: SITE = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="safetensors, onnx, torchscript, program; by the suffix of --out (.safetensors, "
            ".onnx, .ts, .pt2) where left out.",
            autocompletion=completes("format"),
        ),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Images to compare on; the run's own where left out. May be repeated."),
    ] = None,
) -> None:
    """Write a model as a file for elsewhere, with a model card, and check that it agrees."""
    import dataclasses

    import counterpoint

    done = counterpoint.export(model, to, site=site, format=format, images=images)
    if done.real is None:
        note("the run's data are not there, so it was compared on random images only")
    if done.precision is not None:
        note(
            f"the run computed in another precision; float32 differs by up to {done.precision:.1e} "
            "from its own numbers"
        )
    real = (
        ""
        if done.real is None
        else f", {done.real:.1e} on {done.images} real one{'s' * (done.images > 1)}"
    )
    give(
        escape(
            f"{done.file} is written, its card is {done.card}\n"
            f"largest difference to the model: {done.random:.1e} on random images{real}"
        ),
        dataclasses.asdict(done),
    )
