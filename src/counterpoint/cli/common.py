"""What all commands share: the app, where they print, and how errors become words."""

import functools
import inspect
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.markup import escape

if TYPE_CHECKING:
    from counterpoint.crew import Report

EPILOG = (
    "Exit codes: 0 done; 1 it failed, and what was saved can be gone on with; 2 wrong words, "
    "settings or data; 130 interrupted by Ctrl-C; 143 ended by SIGTERM.\n\n"
    "Names and options complete in your shell after: counterpoint --install-completion"
)

app = typer.Typer(
    name="counterpoint",
    help="Federated learning on medical images from hospitals that do not look alike.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
out, err = Console(), Console(stderr=True)
state: dict[str, Any] = {"debug": False, "quiet": False, "json": False}

DATA = "Data"
TRAINING = "Training"
METHOD = "Composition of the method"
MACHINE = "Machine"
OUTPUT = "Output"

SHARED: dict[str, Any] = {
    "quiet": Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="No progress and no notes; warnings only.", rich_help_panel=OUTPUT
        ),
    ],
    "json": Annotated[
        bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT)
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=OUTPUT)
    ],
}
"""Options that every command has."""


def command(function: Callable[..., None], group: typer.Typer = app) -> Callable[..., None]:
    """Make a function a command of a group: with the shared options, and with errors in words.

    Exit codes are those of the package's docstring.
    """
    signature = inspect.signature(function)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in SHARED.items()
    ]

    @functools.wraps(function)
    def in_words(*args: Any, **kwargs: Any) -> None:
        from counterpoint.errors import CounterpointError, DataError, SettingsError

        state.pop("folder", None)  # of a command before, in the same process
        state.update({name: kwargs.pop(name) or state[name] for name in SHARED})
        kwargs = {name: expanded(value) for name, value in kwargs.items()}
        try:
            function(*args, **kwargs)
        except CounterpointError as error:
            if state["debug"]:
                traceback.print_exc()
            fail(str(error), 2 if isinstance(error, DataError | SettingsError) else 1)
        except (KeyboardInterrupt, typer.Abort):
            kept = what_is_left(state["folder"]) if state.get("folder") else ""
            err.print(f"\nstopped{kept}", highlight=False, markup=False, soft_wrap=True)
            raise typer.Exit(130) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError) and nobody_reads():
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(1) from None
            if state["debug"]:
                traceback.print_exc()
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}", 1)
        except Exception as error:
            if state["debug"] or isinstance(error, typer.Exit):
                raise
            what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            fail(
                f"{what}. This is a bug of Counterpoint's: run it again with --debug, and report "
                "what that shows",
                1,
            )

    parameters = [*signature.parameters.values(), *shared]
    in_words.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    in_words.__annotations__ = function.__annotations__ | SHARED
    group.command()(in_words)
    return in_words


def nobody_reads() -> bool:
    """Whether who read the output has enough and is gone, as ``head`` goes."""
    with suppress(Exception):  # no such thing as poll, or no file behind the output
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def expanded(value: Any) -> Any:
    """A folder as the shell would have it: in ``--out=~/runs`` it leaves the ~ as it is."""
    from counterpoint.files import at_home

    if isinstance(value, list):
        return [expanded(one) for one in value]
    return at_home(value) if isinstance(value, Path) else value


def rounds_in(folder: Path) -> bool:
    """Whether a round of a run is complete."""
    return any(folder.glob("state/round-*.json"))


def what_is_left(folder: Path) -> str:
    """What is left of a run that was stopped, and how to go on with it."""
    from counterpoint.folder import going_on

    if not (folder / "settings.yaml").is_file():
        return " before anything was begun"
    kept = ": complete rounds are kept" if rounds_in(folder) else " before a round was complete"
    return f"{kept}; {going_on(folder)}"


def fail(text: str, code: int) -> NoReturn:
    """Print an error in words and leave."""
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code)


def give(result: RenderableType, data: Any) -> None:
    """Print a command's result: for people, or with ``--json`` the same as ``data``."""
    if state["json"]:
        print(json.dumps(data, indent=2, ensure_ascii=False, default=str))
    else:
        out.print(result, highlight=False, soft_wrap=isinstance(result, str))


def say(text: str) -> None:
    """Print a line of text for people; nothing with ``--quiet`` or ``--json``."""
    if not (state["json"] or state["quiet"]):
        out.print(text, highlight=False, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a note to the terminal's error stream; nothing with ``--quiet``."""
    if not state["quiet"]:
        err.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning to the terminal's error stream, whatever the options."""
    err.print(f"[bold yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)


@contextmanager
def shown_live(folder: Path, logs: Iterable[str] = ()) -> "Iterator[Report]":
    """Show and log a run as it goes, and tell after Ctrl-C that ``folder`` can be gone on with."""
    from counterpoint.errors import WriteError
    from counterpoint.folder import going_on
    from counterpoint.report.live import live_display
    from counterpoint.report.logs import logged

    state["folder"] = folder
    with (
        live_display(err, quiet=state["quiet"]) as shown,
        logged(folder, *logs, report=shown) as report,
    ):
        try:
            yield report
        except WriteError as error:
            if not (folder / "settings.yaml").is_file():
                raise
            raise WriteError(f"{error}: {going_on(folder)}") from error


def parsed(text: str, what: str) -> Any:
    """Read a value as YAML does: numbers, true and false, lists, mappings, else text."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        fail(f"{what}: can't read {text!r}", 2)


def words(text: str | None) -> list[str] | None:
    """The words of a comma-separated option, or None."""
    return None if text is None else [word.strip() for word in text.split(",")]


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
    state.update(debug=debug, quiet=False, json=False)
