"""Commands that train, and show what came of it."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from counterpoint.cli.common import (
    DATA,
    MACHINE,
    METHOD,
    OUTPUT,
    SHARED,
    TRAINING,
    command,
    err,
    give,
    out,
    say,
    shown_live,
    state,
)
from counterpoint.cli.complete import completes
from counterpoint.cli.options import (
    NOT_SETTINGS,
    data_and_schedule,
    note_other_method,
    require_fitting_file,
    settings_from,
    usual_folder,
)

if TYPE_CHECKING:
    from counterpoint.results import Result

LOG = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        help="Log to tensorboard or mlflow too; may be repeated. scores.csv is always written.",
        rich_help_panel=OUTPUT,
        autocompletion=completes("log"),
    ),
]


@command
def run(
    method: Annotated[
        str,
        typer.Argument(
            help="prrfl, harmofl, ... or my_method.py:METHOD", autocompletion=completes("method")
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="retina, phantom, ... or your own table or folder",
            autocompletion=completes("data"),
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(help="Folder of the named data set.", rich_help_panel=DATA)
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--out", help="New folder for the run; runs/METHOD-DATA-SEED where left out."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML or TOML file with settings; options win over it.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification or segmentation.",
            rich_help_panel=DATA,
            autocompletion=completes("task"),
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How to split: grouped, published, given; patches (camelyon17).",
            rich_help_panel=DATA,
            autocompletion=completes("protocol"),
        ),
    ] = None,
    sites: Annotated[
        str | None, typer.Option(help="Only these, comma-separated.", rich_help_panel=DATA)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="The only labels, in order, comma-separated.", rich_help_panel=DATA),
    ] = None,
    holdout: Annotated[
        str | None,
        typer.Option(help="A site that does not train and is only scored.", rich_help_panel=DATA),
    ] = None,
    volumes: Annotated[
        str | None,
        typer.Option(
            help="NIfTI and DICOM volumes as slices (2-D), patches or whole (3-D).",
            rich_help_panel=DATA,
            autocompletion=completes("volumes"),
        ),
    ] = None,
    neighbours: Annotated[
        bool | None,
        typer.Option(help="Slices before and after as channels.", rich_help_panel=DATA),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            help="Range of a volume's own units that is shown: LOW,HIGH.", rich_help_panel=DATA
        ),
    ] = None,
    train_limit: Annotated[
        str | None,
        typer.Option(
            help="Training images a site: a number or 'smallest'.",
            rich_help_panel=DATA,
            autocompletion=completes("train_limit"),
        ),
    ] = None,
    skip_bad: Annotated[
        bool | None,
        typer.Option("--skip-bad", help="Leave unreadable images out.", rich_help_panel=DATA),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Communications.", rich_help_panel=TRAINING)
    ] = None,
    local_epochs: Annotated[
        int | None,
        typer.Option(help="Passes over a site's images in each round.", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step.", rich_help_panel=TRAINING)
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            help="Most images on the device at a time; gradients of a batch's parts add up.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels; images are squeezed to squares.", rich_help_panel=TRAINING
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="slim-vgg16, densenet121, unet or an import path, e.g. "
            "monai.networks.nets:DenseNet121.",
            rich_help_panel=TRAINING,
            autocompletion=completes("model"),
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Start from the weights of a .safetensors file, or of a run's global model; what "
            "does not fit, such as the last layer, is drawn.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    model_options: Annotated[
        str | None,
        typer.Option(help="Its keyword arguments: '{key: value}'.", rich_help_panel=TRAINING),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="prrfl, flips, none.",
            rich_help_panel=TRAINING,
            autocompletion=completes("augmentation"),
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="cross-entropy, balanced; for segmentation joint, dice-ce, dice-focal.",
            rich_help_panel=TRAINING,
            autocompletion=completes("loss"),
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="sgd, adam.", rich_help_panel=TRAINING, autocompletion=completes("optimizer")
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.", rich_help_panel=TRAINING)
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Of SGD.", rich_help_panel=TRAINING)
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="L2 penalty.", rich_help_panel=TRAINING)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16.",
            rich_help_panel=TRAINING,
            autocompletion=completes("precision"),
        ),
    ] = None,
    participation: Annotated[
        float | None,
        typer.Option(help="Share of the sites in each round.", rich_help_panel=TRAINING),
    ] = None,
    finetune_epochs: Annotated[
        int | None,
        typer.Option(help="Epochs at each site after the last merge.", rich_help_panel=TRAINING),
    ] = None,
    local: Annotated[
        str | None,
        typer.Option(
            help="Local update: plain, adapted, proximal, contrastive, control-variates, "
            "alternating, ditto, deputy, prototype-deputy.",
            rich_help_panel=METHOD,
            autocompletion=completes("local"),
        ),
    ] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            help="all, except-normalisation, backbone, head, pfa, normalised, none.",
            rich_help_panel=METHOD,
            autocompletion=completes("aggregation"),
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="mean, momentum, adam, yogi, adagrad, normalised, control.",
            rich_help_panel=METHOD,
            autocompletion=completes("server"),
        ),
    ] = None,
    harmonise: Annotated[
        str | None,
        typer.Option(
            help="none, amplitude.", rich_help_panel=METHOD, autocompletion=completes("harmonise")
        ),
    ] = None,
    perturbation: Annotated[
        float | None,
        typer.Option(help="Length of the weight perturbation; 0: none.", rich_help_panel=METHOD),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            help="Batch norm's: averaged, local, recalibrated, batch, group.",
            rich_help_panel=METHOD,
            autocompletion=completes("statistics"),
        ),
    ] = None,
    privacy: Annotated[
        str | None,
        typer.Option(
            help="Differential privacy: none, payload, records.",
            rich_help_panel=METHOD,
            autocompletion=completes("privacy"),
        ),
    ] = None,
    encrypt: Annotated[
        bool | None,
        typer.Option(
            "--encrypt",
            help="Encrypt what leaves, so that the server adds what it can't read (TenSEAL).",
            rich_help_panel=METHOD,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn.", rich_help_panel=TRAINING)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:1.",
            rich_help_panel=MACHINE,
            autocompletion=completes("device"),
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Sites that train side by side; tried out if left open.", rich_help_panel=MACHINE
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one worker.", rich_help_panel=MACHINE)
    ] = None,
    log: LOG = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting: NAME=VALUE; may be repeated."),
    ] = None,
) -> None:
    """Train a federation: METHOD on DATA. Everything it leaves is in the folder --out.

    What is left out is the method's default: `counterpoint methods METHOD` shows them all.
    """
    options = settings_from(**locals())
    import counterpoint

    if config is not None:
        require_fitting_file(config, method, data, options)
        note_other_method(config, method)
    folder = to or usual_folder(method, data, options)
    with shown_live(folder, log or ()) as report:
        result = counterpoint.run(method, data, out=folder, report=report, settings=options)
    show_result(result, notes=not (out.is_terminal and err.is_terminal))  # else they stand above


def takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command of many runs the options of `run` that set something, as ``settings``.

    But the seed, of which such a command has several. Of a file, only data and schedule are taken:
    the composition in a run's ``settings.yaml`` would make one method of all.
    """
    left_out = {*NOT_SETTINGS, *SHARED, "seed"}
    ours = inspect.signature(run).parameters
    options = {name: one for name, one in ours.items() if name not in left_out}
    signature = inspect.signature(function)
    own = [one for one in signature.parameters.values() if one.name != "settings"]

    @functools.wraps(function)
    def with_settings(**given: Any) -> None:
        values = {name: given.pop(name) for name in options}
        config = values.pop("config")
        asked = settings_from(**values, config=None)
        function(**given, settings=data_and_schedule(config, asked) | asked if config else asked)

    with_settings.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *options.values()]
    )
    return with_settings


@command
def resume(
    folder: Annotated[Path, typer.Argument(help="Folder of a run that was stopped.")],
    root: Annotated[
        Path | None, typer.Option(help="Folder or table of the data, if it has moved.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:1, if other than before.",
            autocompletion=completes("device"),
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Sites that train side by side, if other than before.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one worker, if other than before.")
    ] = None,
    log: LOG = None,
) -> None:
    """Go on with a run that was stopped. The end is that of a run never stopped, bit for bit."""
    import counterpoint

    with shown_live(folder, log or ()) as report:
        result = counterpoint.resume(
            folder, root=root, device=device, workers=workers, threads=threads, report=report
        )
    show_result(result)


@command
def show(folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")]) -> None:
    """Print the results of a run."""
    from counterpoint.results import Result

    show_result(Result(folder))


def show_result(result: "Result", notes: bool = True) -> None:
    """Print the results of a run, with notes on its data, and where everything is."""
    from counterpoint.report.table import results_table

    give(
        results_table(result, notes=notes and not state["quiet"]),
        {"folder": str(result.path)} | result.results,
    )
    left = ("scores.csv", "test_cases.csv", "results.json", "models", "payloads.csv")
    there = [name for name in (*left, "retrogress.png") if (result.path / name).exists()]
    say(f"Everything is in {result.path}: {', '.join(there)}".replace(" models,", " models/,"))
