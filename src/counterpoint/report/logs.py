"""A run's numbers where people already look: a log follows ``scores.csv`` and copies it elsewhere.

``scores.csv`` has what rounds are complete, and is cut back when a run goes on, so a log that only
follows it never shows a round that did not happen. Settings and scores are copied, and nothing
that could name a patient: no image, no file name, no note.
"""

import csv
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from counterpoint.crew import Event, Report
from counterpoint.errors import SettingsError, nearest
from counterpoint.folder import SCORES
from counterpoint.report.words import OF_A_CLASS, typed
from counterpoint.settings import flatten

LOGS = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}
"""Logs by name, each a module of this package with a class that makes it."""


class Point(NamedTuple):
    """One number of a curve."""

    site: str
    """The site, or "mean" for that of all sites that took part."""
    name: str
    """Such as ``macro_f1/merged`` or ``loss/trained/deputy``."""
    step: int
    """Local epochs since the start."""
    value: float


class Log(Protocol):
    """A place that takes a run's numbers."""

    def open(self, settings: Mapping[str, Any], goes_on: bool) -> None:
        """Begin the run's log, or find it again where the run goes on."""
        ...

    def write(self, points: Iterable[Point]) -> None:
        """Take points in; after a resume all of them come again, from the first."""
        ...

    def close(self, results: Mapping[str, float] | None, status: str) -> None:
        """End the log with the test scores, if the run has come so far."""
        ...


def make_log(name: str, folder: Path) -> Log:
    """Make the log of a run's folder, or say which package is missing.

    Raises:
        SettingsError: if there is no such log, or its package is not installed.
    """
    if name not in LOGS:
        raise SettingsError(
            f"unknown log '{name}'{nearest(name, list(LOGS))}; known are {', '.join(LOGS)} "
            "(scores.csv is always written)"
        )
    try:
        module = importlib.import_module(f"counterpoint.report.{name}")
    except ImportError as error:
        raise SettingsError(
            f"log '{name}' needs a package that is not installed ({error}); "
            f"pip install 'counterpoint[{name}]'"
        ) from error
    log: Log = getattr(module, LOGS[name])(folder)
    return log


def kept_logs(folder: Path) -> list[str]:
    """Names of the logs that a run has begun; it goes on with them."""
    return [name for name in LOGS if (folder / name).is_dir()]


@contextmanager
def logged(folder: str | Path, *names: str, report: Report | None = None) -> Iterator[Report]:
    """Log the run in ``folder`` while it lasts: give what is yielded to ``run`` as its ``report``.

    Args:
        folder: the run's, new or of a run that goes on or is finished.
        names: "tensorboard", "mlflow"; those that the run has begun before go on in any case.
        report: is told of all events too, and with a warning of a log that has failed. A log that
            fails is given up; the run is not.

    Raises:
        SettingsError: if a log is unknown or its package is not installed.

    >>> with logged("RUN") as report:       # no logs: scores.csv is written by the run itself
    ...     report({"note": "nothing happens"})
    """
    folder = Path(folder)
    tell: Report = report or (lambda event: None)
    wanted = dict.fromkeys([*names, *kept_logs(folder)])
    copies = [Copy(name, make_log(name, folder), folder, tell) for name in wanted]

    def take(event: Event) -> None:
        tell(event)
        for copy in copies:
            copy.follow(event)

    with ExitStack() as stack:
        for copy in copies:
            stack.push(copy.end)
        yield take


class Copy:
    """Follows a run's ``scores.csv`` with a log; gives up, with a warning, when the log fails."""

    def __init__(self, name: str, log: Log, folder: Path, tell: Report) -> None:
        self.name, self.log, self.folder, self.tell = name, log, folder, tell
        self.failed = self.opened = False
        self.epochs = self.read = 0

    def follow(self, event: Event) -> None:
        """Copy what is new; the first event that counts is that the rounds begin."""
        if self.opened or "from" in event:
            self._try(self._copy)

    def end(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Copy the rest and close, whatever the run has come to."""
        if not (self.folder / "settings.yaml").is_file() or (kind and not self.opened):
            return
        status = (
            "FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED"
        )
        self._try(self._copy)
        self._try(lambda: self.log.close(final_scores(self.folder), status))

    def _copy(self) -> None:
        if not self.opened:
            goes_on = (self.folder / self.name).is_dir()
            settings = loggable(yaml.safe_load((self.folder / "settings.yaml").read_text("utf-8")))
            self.log.open(settings, goes_on)
            self.epochs, self.opened = int(settings["schedule.local_epochs"]), True
        rows, self.read = new_rows(self.folder / "scores.csv", self.read)
        if rows:
            self.log.write(points(rows, self.epochs))

    def _try(self, step: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            step()
        except Exception as error:  # whatever a server, a disk or their packages may raise
            self.failed = True
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.tell(
                {
                    "warning": f"{self.name} has failed ({reason[0]}); the run goes on without. "
                    f"scores.csv has everything: `counterpoint resume {typed(self.folder)} "
                    f"--log {self.name}` brings it there later"
                }
            )


def new_rows(path: Path, start: int) -> tuple[list[dict[str, str]], int]:
    """Whole lines of a CSV file from byte ``start`` on, and where they end."""
    with open(path, "rb") as file:
        columns = next(csv.reader([file.readline().decode()]))
        file.seek(max(start, file.tell()))
        start = file.tell()
        whole = file.read().rpartition(b"\n")
    lines = whole[0] + whole[1]
    rows = csv.DictReader(lines.decode().splitlines(keepends=True), columns)
    return list(rows), start + len(lines)


def points(rows: Iterable[Mapping[str, str]], epochs: int) -> list[Point]:
    """Points of complete rounds, each site's and their mean; rows are those of ``scores.csv``.

    A model that is scored just after a merge has the name ``merged``, one that has trained since
    ``trained``; at one step, the second minus the first is the retrogress of that merge. A model
    that is not the one which predicts is named too. Scores of a single class would be many.

    >>> row = {"round": "2", "site": "A", "model": "model", "moment": "merged", "epoch": "0",
    ...        "stage": "", "split": "validation", "macro_f1": "0.5", "loss": "nan"}
    >>> points([row], epochs=5)[0]
    Point(site='A', name='macro_f1/merged', step=10, value=0.5)
    """
    found: list[Point] = []
    rows = list(rows)
    predicts = "personal" if any(row["model"] == "personal" for row in rows) else "model"
    for row in rows:
        if row["split"] != "validation":
            continue
        trained = row["moment"] in ("epoch", "finetuned")
        begun = int(row["round"]) - (row["moment"] == "epoch")
        role = "" if row["model"] == predicts else f"/{row['model']}"
        found += [
            Point(
                row["site"],
                f"{score}/{'trained' if trained else 'merged'}{role}",
                begun * epochs + int(row["epoch"]),
                float(value),
            )
            for score, value in row.items()
            if score not in SCORES and not score.startswith(OF_A_CLASS)
            if value and float(value) == float(value)
        ]
    return found + means(found)


def means(of_sites: Iterable[Point]) -> list[Point]:
    """The mean over the sites of all points with the same name and step."""
    values: dict[tuple[str, int], list[float]] = {}
    for point in of_sites:
        values.setdefault((point.name, point.step), []).append(point.value)
    return [Point("mean", *key, sum(of) / len(of)) for key, of in values.items()]


def loggable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, without folders: of paths only the last part is kept.

    >>> loggable({"method": "/me/mine.py:METHOD", "data": {"name": "/x/study.csv", "root": "/x"}})
    {'method': 'mine.py:METHOD', 'data.name': 'study.csv'}
    """
    flat = dict(flatten(settings))
    flat.pop("data.root", None)
    paths = {"method", "data.name", "schedule.weights"} & flat.keys()
    return flat | {name: Path(str(flat[name])).name for name in paths}


def final_scores(folder: Path) -> dict[str, float] | None:
    """What a finished run says of the test, by name: each site's scores and the sites' mean."""
    file = folder / "results.json"
    if not file.is_file():
        return None
    results = json.loads(file.read_text(encoding="utf-8"))
    of_sites = results["test"] | {"mean": results["mean"]}
    scores = {f"{m}/test/{site}": v for site, of in of_sites.items() for m, v in of.items()}
    scores |= {f"retrogress/{role}": of["mean"] for role, of in results["retrogress"].items()}
    scores |= {f"bytes/{name}": value for name, value in results["bytes"].items()}
    scores["images_with_gradient"] = results["images_with_gradient"]
    scores["chosen_round"] = results["chosen_round"]
    return {name: float(v) for name, v in scores.items() if v is not None and v == v}
