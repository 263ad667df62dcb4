"""The live display of a study: a bar for all runs, and one for each that is on its way."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from counterpoint.report.live import in_words
from counterpoint.study.plan import Planned
from counterpoint.study.running import Tell


class Board:
    """Takes the events of all runs in and draws where each is; a line a run that has ended."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[words]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self.console, self.quiet = console, quiet
        self.whole = self.progress.add_task("runs", total=None, visible=False, words="")
        self.runs = self.ended = 0
        self.bars: dict[str, TaskID] = {}
        self.said: set[str] = set()
        self.lock = threading.Lock()

    def take(self, run: Planned | None, event: dict[str, object]) -> None:
        """Take an event of a run, or of the study, in; called from any thread."""
        with self.lock:
            if run is None:
                self.take_of_all(event)
                return
            if run.name not in self.bars:
                self.bars[run.name] = self.progress.add_task(run.name, total=None, words="starting")
            bar = self.bars[run.name]
            if "ended" in event:
                self.progress.remove_task(bar)
                self.ended += 1
                self.progress.update(self.whole, completed=self.ended, words=self.count)
                words = f"failed: {event['ended']}" if event["ended"] else "done"
                self.say(f"{self.count}: {run.name}: {words}")
            elif words := in_words(event):
                if words not in self.said:  # all runs say the same of the same data
                    self.said.add(words)
                    self.say(f"{run.name}: {words}", always="warning" in event)
            elif "decoded" in event:
                self.progress.update(bar, words="decoding images")
            elif "from" in event:
                self.progress.update(bar, total=int(str(event["rounds"])))
            elif "round" in event:
                at = int(str(event["round"]))
                self.progress.update(bar, completed=at, words=f"round {at}")

    def take_of_all(self, event: dict[str, object]) -> None:
        """Take an event of the study in: how many runs there are, or a note."""
        if "runs" in event:
            self.runs = int(str(event["runs"]))
            self.progress.update(self.whole, total=self.runs, words=self.count, visible=True)
        else:
            self.say(f"note: {event['note']}")

    @property
    def count(self) -> str:
        """How many of the runs have ended."""
        return f"{self.ended} of {self.runs}"

    def say(self, words: str, always: bool = False) -> None:
        """Print a line above the bars."""
        if always or not self.quiet:
            self.console.print(words, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def study_display(console: Console, quiet: bool = False) -> Iterator[Tell]:
    """Show a study as it goes; only what has ended where the console is not a terminal.

    With ``quiet`` only warnings.
    """
    board = Board(console, quiet)
    with board.progress:
        yield board.take
