"""The live display of a run: round, site, epoch, stage, loss, score, time left."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from counterpoint.crew import Event, Report
from counterpoint.report.words import heading, number

DOING = {
    "checked": "comparing files",
    "inspected": "looking at images",
    "decoded": "decoding images",
    "tested": "scoring test images",
}
"""Work besides the rounds, by the event that tells how much of it is done."""


class Display:
    """Takes a run's events and draws where every site stands."""

    def __init__(self) -> None:
        self.rounds = self.epochs = 0
        self.doing = ""
        self.predicts, self.score = "", ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f} %"),
            TimeRemainingColumn(),
        )
        self.bar = self.progress.add_task("starting", total=None)
        self.lines: dict[str, Event] = {}
        self.lock = threading.Lock()

    def take(self, event: Event) -> None:
        """Take an event in; called from any thread."""
        with self.lock:
            if doing := next((name for name in DOING if name in event), ""):
                self._at(DOING[doing], *(int(str(event[name])) for name in (doing, "of")))
            elif "from" in event:
                start, self.rounds, self.epochs, sites = (
                    int(str(event[name])) for name in ("from", "rounds", "epochs", "sites")
                )
                self.predicts, self.score = str(event["predicts"]), str(event["score"])
                a_round = self.epochs * sites
                self.progress.reset(
                    self.bar, total=self.rounds * a_round, completed=start * a_round
                )
            elif event.get("model") == self.predicts:
                self.lines[str(event["site"])] = event
                if event["moment"] == "epoch":
                    self.progress.advance(self.bar)
                at = min(int(str(event["round"])) + (event["moment"] != "epoch"), self.rounds)
                self.progress.update(self.bar, description=f"round {at} of {self.rounds}")

    def _at(self, doing: str, done: int, total: int) -> None:
        if doing != self.doing:  # time left is that of this work, not of the one before
            self.doing = doing
            self.progress.reset(self.bar, total=total)
        self.progress.update(self.bar, description=doing, total=total, completed=done)

    def __rich__(self) -> Group:
        table = Table(box=None, pad_edge=False)
        score = heading(self.score) if self.score else ""
        for column in ("site", "round", "epoch", "stage", "loss", score, ""):
            table.add_column(column, justify="left" if column in ("site", "stage", "") else "right")
        with self.lock:
            for site, e in sorted(self.lines.items()):
                merged = e["moment"] != "epoch"
                table.add_row(
                    Text(site),
                    str(e["round"]),
                    "-" if merged else f"{e['epoch']}/{self.epochs}",
                    str(e.get("stage", "") or "-"),
                    f"{e.get('train_loss') or e['loss']:.3f}",
                    number(self.score, float(str(e[self.score]))),
                    "just merged" if merged else "",
                )
        return Group(self.progress, table)  # the bar first: what is too long is cut at its end


@contextmanager
def download_bars(
    console: Console, hidden: bool = False
) -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar a file; gives a function of (file, bytes done, bytes in all)."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=hidden,
    )
    tasks: dict[str, TaskID] = {}

    def progress(what: str, done: int, total: int | None) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what)
        bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield progress


@contextmanager
def prediction_bar(
    console: Console,
    note: Callable[[str], None],
    warn: Callable[[str], None],
    hidden: bool = False,
) -> Iterator[Report]:
    """A progress bar over files that are predicted; notes and warnings are passed on."""
    with counting(console, hidden) as progress:

        def report(event: Event) -> None:
            if "note" in event:
                note(str(event["note"]))
            elif "warning" in event:
                warn(str(event["warning"]))
            else:
                progress("predicting", int(str(event["predicted"])), int(str(event["of"])))

        yield report


@contextmanager
def counting(console: Console, hidden: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work that is counted; gives a function of (what is done, done, in all)."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
    )
    task = bars.add_task("", total=None)

    def progress(what: str, done: int, total: int) -> None:
        bars.update(task, description=what, completed=done, total=total)

    with bars:
        yield progress


def in_words(event: Event) -> str:
    """A warning or note as a line of text; empty for any other event."""
    for kind in ("warning", "note"):
        if kind in event:
            return f"{kind}: {event[kind]}"
    return ""


def say(console: Console, event: Event) -> None:
    """Print warnings and notes, and nothing else."""
    if words := in_words(event):
        console.print(words, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def live_display(console: Console, quiet: bool = False) -> Iterator[Report]:
    """Show a run as it goes; only warnings and notes where the console is not a terminal.

    With ``quiet`` only warnings.
    """
    if quiet:
        yield lambda event: say(console, event) if "warning" in event else None
        return
    if not console.is_terminal:
        yield partial(say, console)
        return
    display = Display()

    def take(event: Event) -> None:
        if in_words(event):
            say(console, event)  # above what is drawn, where it stays
        else:
            display.take(event)

    with Live(display, console=console, refresh_per_second=4, transient=True):
        yield take
