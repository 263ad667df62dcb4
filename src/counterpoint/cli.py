"""The command line.

Exit codes: 0 all went well; 1 a run failed, what it had saved can be continued; 2 wrong usage,
settings or data; 130 interrupted by Ctrl-C.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from counterpoint.results import Result

app = typer.Typer(
    name="counterpoint",
    help="Federated learning on medical images from hospitals that do not look alike.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out, err = Console(), Console(stderr=True)
state: dict[str, Any] = {"debug": False}

DATA = "Data"
TRAINING = "Training"
METHOD = "Composition of the method"
MACHINE = "Machine"

# Options of `run` and the settings that they set; all other settings go by --set.
SETTING_OF = {
    "task": "data.task",
    "protocol": "data.protocol",
    "sites": "data.sites",
    "classes": "data.classes",
    "holdout": "data.holdout",
    "volumes": "data.volumes",
    "neighbours": "data.neighbours",
    "window": "data.window",
    "train_limit": "data.train_limit",
    "skip_bad": "data.skip_bad",
    "rounds": "schedule.rounds",
    "local_epochs": "schedule.local_epochs",
    "batch_size": "schedule.batch_size",
    "image_size": "schedule.image_size",
    "model": "schedule.model",
    "model_options": "schedule.model_options",
    "augmentation": "schedule.augmentation",
    "loss": "schedule.loss",
    "optimizer": "schedule.optimizer",
    "lr": "schedule.lr",
    "momentum": "schedule.momentum",
    "weight_decay": "schedule.weight_decay",
    "precision": "schedule.precision",
    "participation": "schedule.participation",
    "finetune_epochs": "schedule.finetune_epochs",
    "local": "local.kind",
    "aggregation": "aggregation.kind",
    "server": "server.kind",
    "harmonise": "harmonise.kind",
    "perturbation": "perturbation",
    "statistics": "statistics",
    "seed": "seed",
    "device": "machine.device",
    "workers": "machine.workers",
    "threads": "machine.threads",
}


def fail(text: str, code: int) -> NoReturn:
    """Print an error in words and leave."""
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)


def parsed(text: str, what: str) -> Any:
    """Read a value as YAML does: numbers, true and false, lists, mappings, else text."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        fail(f"{what}: can't read {text!r}", 2)


def in_words(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command's errors be a sentence and an exit code, not a traceback."""

    @functools.wraps(command)
    def checked(*args: Any, **kwargs: Any) -> None:
        from counterpoint.errors import CounterpointError, DataError, SettingsError

        try:
            command(*args, **kwargs)
        except CounterpointError as error:
            if state["debug"]:
                raise
            fail(str(error), 2 if isinstance(error, DataError | SettingsError) else 1)
        except KeyboardInterrupt:
            folder = state.get("folder")
            kept = f": complete rounds are kept, go on with `counterpoint resume {folder}`"
            err.print(f"\nstopped{kept if folder else ''}", highlight=False, markup=False)
            raise typer.Exit(130) from None

    return checked


def print_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from importlib.metadata import version

        print(f"counterpoint {version('counterpoint')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Federated learning on medical images from hospitals that do not look alike."""
    state["debug"] = debug


@app.command()
@in_words
def run(
    method: Annotated[str, typer.Argument(help="prrfl, harmofl, ... or my_method.py:METHOD")],
    data: Annotated[str, typer.Argument(help="retina, phantom, ... or your own table or folder")],
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
        typer.Option(help="classification or segmentation.", rich_help_panel=DATA),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="How to split: grouped, published, given.", rich_help_panel=DATA),
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
        typer.Option(help="Training images a site: a number or 'smallest'.", rich_help_panel=DATA),
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
        ),
    ] = None,
    model_options: Annotated[
        str | None,
        typer.Option(help="Its keyword arguments: '{key: value}'.", rich_help_panel=TRAINING),
    ] = None,
    augmentation: Annotated[
        str | None, typer.Option(help="prrfl, flips, none.", rich_help_panel=TRAINING)
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="cross-entropy, balanced; for segmentation joint, dice-ce, dice-focal.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam.", rich_help_panel=TRAINING)
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
        str | None, typer.Option(help="float32, bfloat16.", rich_help_panel=TRAINING)
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
            help="Local update: plain, proximal, contrastive, control-variates, alternating, "
            "ditto, deputy, prototype-deputy.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    aggregation: Annotated[
        str | None,
        typer.Option(
            help="all, except-normalisation, backbone, head, pfa, normalised, none.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            help="mean, momentum, adam, yogi, adagrad, normalised, control.",
            rich_help_panel=METHOD,
        ),
    ] = None,
    harmonise: Annotated[
        str | None, typer.Option(help="none, amplitude.", rich_help_panel=METHOD)
    ] = None,
    perturbation: Annotated[
        float | None,
        typer.Option(help="Length of the weight perturbation; 0: none.", rich_help_panel=METHOD),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(
            help="Batch norm's: averaged, local, recalibrated, batch.", rich_help_panel=METHOD
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn.", rich_help_panel=TRAINING)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1.", rich_help_panel=MACHINE)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Sites that train side by side.", rich_help_panel=MACHINE),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of one worker.", rich_help_panel=MACHINE)
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting: NAME=VALUE; may be repeated."),
    ] = None,
) -> None:
    """Train a federation: METHOD on DATA. Everything it leaves is in the folder --out.

    What is left out is the method's default: `counterpoint methods METHOD` shows them all.
    """
    given = {name: value for name, value in locals().items() if name in SETTING_OF}
    options = {SETTING_OF[name]: value for name, value in given.items() if value is not None}
    for name in ("data.train_limit", "schedule.model_options"):
        if name in options:
            options[name] = parsed(options[name], name)
    for name in ("data.sites", "data.classes"):
        if name in options:
            options[name] = [word.strip() for word in options[name].split(",")]
    if "data.window" in options:
        options["data.window"] = parsed(f"[{options['data.window']}]", "--window")
    if root is not None:
        options["data.root"] = str(root)
    for assignment in assignments or []:
        name, equals, value = assignment.partition("=")
        if not equals:
            fail(f"--set {assignment}: write it as NAME=VALUE", 2)
        options[name.strip()] = parsed(value, f"--set {name}")

    import counterpoint
    from counterpoint.report.live import live_display
    from counterpoint.settings import flatten, read_file

    from_file = dict(flatten(read_file(config))) if config else {}
    for name in ("method", "data.name"):
        from_file.pop(name, None)
    for part in ("harmonise", "local", "aggregation", "server"):
        kind = options.get(f"{part}.kind", from_file.get(f"{part}.kind"))
        if kind != from_file.get(f"{part}.kind"):  # then the file's values are of another kind
            from_file = {n: v for n, v in from_file.items() if not n.startswith(f"{part}.")}
    options = from_file | options
    short = Path(data).stem if Path(data).exists() else data
    name = Path(method.partition(":")[0]).stem
    folder = to or Path("runs") / f"{name}-{short}-{options.get('seed', 1)}"
    state["folder"] = folder
    with live_display(err) as report:
        result = counterpoint.run(method, data, out=folder, report=report, settings=options)
    _show(result)


@app.command()
@in_words
def resume(
    folder: Annotated[Path, typer.Argument(help="Folder of a run that was stopped.")],
    workers: Annotated[
        int | None, typer.Option(help="Sites that train side by side, if other than before.")
    ] = None,
) -> None:
    """Go on with a run that was stopped. The end is that of a run never stopped, bit for bit."""
    import counterpoint
    from counterpoint.report.live import live_display

    state["folder"] = folder
    with live_display(err) as report:
        result = counterpoint.resume(folder, workers=workers, report=report)
    _show(result)


@app.command()
@in_words
def show(folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")]) -> None:
    """Print the results of a run."""
    from counterpoint.results import Result

    _show(Result(folder))


@app.command()
@in_words
def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method and its defaults.")] = None,
    task: Annotated[
        str, typer.Option(help="Defaults for classification or segmentation.")
    ] = "classification",
) -> None:
    """List the methods and what they are composed of, or one method's settings."""
    from counterpoint.methods import methods as known
    from counterpoint.report.table import method_page, methods_table

    out.print(method_page(name, task) if name else methods_table(list(known())))


@app.command()
@in_words
def datasets() -> None:
    """List the data sets that have a name."""
    from counterpoint.data import datasets as known

    for name, sentence in known().items():
        out.print(f"[bold]{name}[/]  {sentence}", highlight=False)
    out.print(
        "Your own: a CSV with columns site, image, label (and split, group where known), or a "
        "folder with one folder a site that holds images and labels.csv.",
        highlight=False,
    )


@app.command()
@in_words
def fetch(
    name: Annotated[str | None, typer.Argument(help="Data set; left out, all are listed.")] = None,
    root: Annotated[Path | None, typer.Option(help="Folder to put it in; made if need be.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read its licence and keep to it.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Address below which the files are, if not the usual.")
    ] = None,
) -> None:
    """Download a data set. Its licence is shown first; without --accept-licence that is all."""
    from counterpoint.data.downloads import DOWNLOADS
    from counterpoint.data.fetch import fetch as get
    from counterpoint.data.fetch import licence_of
    from counterpoint.report.live import download_bars

    if name is None:
        for one in DOWNLOADS.values():
            how = one.size if one.files else "by hand"
            out.print(f"[bold]{one.name}[/]  {escape(one.summary)} ({how})", highlight=False)
        return
    if accept_licence:
        if root is None:
            fail("say with --root into which folder", 2)
        out.print(licence_of(name), highlight=False, markup=False, soft_wrap=True)

    def say(sentence: str) -> None:
        err.print(f"note: {sentence}", highlight=False, markup=False, soft_wrap=True)

    with download_bars(err) as progress:
        place = get(name, root or "", accept=accept_licence, progress=progress, say=say, base=url)
    out.print(f"{name} is in {place}", highlight=False, markup=False, soft_wrap=True)


@app.command()
@in_words
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Checkpoint that a released script has saved.")],
    source: Annotated[str, typer.Option("--from", help="Whose script: prrfl, harmofl.")],
    to: Annotated[Path, typer.Option("--out", help="File to write, e.g. model.safetensors.")],
    classes: Annotated[
        str | None,
        typer.Option(help="Names of the outputs, comma-separated; the paper's where left out."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Of a PRR-FL model; 128 where left out.")
    ] = None,
) -> None:
    """Make a checkpoint of the papers' released scripts into a model that load_model reads."""
    from counterpoint.released import import_checkpoint as bring

    names = None if classes is None else [word.strip() for word in classes.split(",")]
    written = bring(file, source, to, classes=names, image_size=image_size)
    out.print(f"{written} can be read by counterpoint.load_model", highlight=False, markup=False)


@app.command()
@in_words
def inspect(
    data: Annotated[str, typer.Argument(help="retina, phantom, ... or your own table or folder")],
    root: Annotated[Path | None, typer.Option(help="Folder of the named data set.")] = None,
    task: Annotated[str | None, typer.Option(help="classification or segmentation.")] = None,
    protocol: Annotated[str | None, typer.Option(help="grouped, published, given.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="The only labels, in order, comma-separated.")
    ] = None,
    volumes: Annotated[
        str | None, typer.Option(help="NIfTI and DICOM volumes as slices, patches or whole.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave missing files out.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of a split that is made.")] = 1,
) -> None:
    """Show sites, classes, sizes, splits, leakage and mean colour of data."""
    from counterpoint.data import inspect as look
    from counterpoint.data import load
    from counterpoint.errors import LeakageError
    from counterpoint.report.table import frame_table

    names = None if classes is None else [word.strip() for word in classes.split(",")]
    read = functools.partial(
        load,
        data,
        root,
        task=task,
        classes=names,
        volumes=volumes,
        seed=seed,
        skip_bad=skip_bad,
    )
    try:
        federation = read(protocol=protocol)
    except LeakageError:  # to be looked at, not to be trained on
        federation = read(protocol="given")
    out.print(frame_table(look(federation), f"{federation.name}, protocol {federation.protocol}"))
    for note in federation.notes:
        out.print(f"note: {note}", highlight=False, markup=False)
    if not any("leaks" in note for note in federation.notes):
        out.print("leakage: none found", highlight=False)


def _show(result: "Result") -> None:
    from counterpoint.report.table import results_table

    out.print(results_table(result))
    out.print(
        f"Everything is in {result.path}: scores.csv, test_cases.csv, results.json, models/, "
        "payloads.csv, retrogress.png",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    sys.path.append(os.getcwd())  # so that --model my_networks:Net is found where you are
    app()


if __name__ == "__main__":
    main()
