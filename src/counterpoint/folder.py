"""The folder of a run: what is kept for people, and the state from which it goes on.

``state/round-0007.json`` is the notebook of round 7: which files hold the sites' states and the
mean, with their checksums, and how long the logs were. It is written last, in one stroke; until
then the round has not happened. The two newest are kept: if one is damaged, the other is used.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock

from counterpoint.errors import SettingsError, StateError
from counterpoint.files import (
    append_text,
    write_bytes,
    write_error,
    write_text,
)
from counterpoint.kept import Kept
from counterpoint.methods import Method
from counterpoint.report.words import typed
from counterpoint.settings import Settings, as_dict, from_dict, to_yaml
from counterpoint.spare import put_aside
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_is_wrong

SCORES = ["round", "site", "model", "moment", "epoch", "stage", "split"]
LOSSES = ["loss", "train_loss"]
PAYLOADS = ["round", "site", "direction", "name", "shape", "bytes"]


@dataclass
class Notebook:
    """Where a run stands after a round.

    Attributes:
        round: the last round that is complete, from 1; 0 before the first.
        states: for each site, its state.
        mean: what went down after the round, by the names of all rounds.
        fresh: the names in it that are of this round.
        server: what the server keeps beside it.
        visits: for each site, the last round that it took part in.
        best: round chosen so far by validation, 0 for none.
        best_score: its mean validation score.
        best_loss: its mean validation loss.
        candidates: for each site, its predicting model of that round.
        gradients: images that gradients were computed for so far.
        lengths: bytes of every log.
    """

    round: int = 0
    states: dict[str, Kept] = field(default_factory=dict)
    mean: Kept | None = None
    server: Kept | None = None
    fresh: list[str] = field(default_factory=list)
    visits: dict[str, int] = field(default_factory=dict)
    best: int = 0
    best_score: float = -1.0
    best_loss: float = 0.0
    candidates: dict[str, Kept] = field(default_factory=dict)
    gradients: int = 0
    lengths: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> set[Kept]:
        """All files that the notebook needs."""
        kept = {*self.states.values(), *self.candidates.values()}
        return kept | {one for one in (self.mean, self.server) if one}

    @classmethod
    def parse(cls, body: str) -> "Notebook":
        """Read a notebook from JSON; raise ValueError or TypeError if it is none."""
        values = json.loads(body)
        for name in ("states", "candidates"):
            values[name] = {site: Kept(*kept) for site, kept in values[name].items()}
        for name in ("mean", "server"):
            values[name] = Kept(*values[name]) if values[name] else None
        return cls(**values)


class RunFolder:
    """A run's folder. Make one with :meth:`create`, come back to one with :meth:`open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Settings,
        metrics: Sequence[str],
        facts: Mapping[str, object],
    ) -> "RunFolder":
        """Make a new run folder.

        Args:
            path: must not exist, or be empty, or left by a process that was killed in here.
            settings: saved as ``settings.yaml``.
            metrics: names of the scores, for the columns of ``scores.csv``.
            facts: what a resumed run must find unchanged, such as the data's fingerprint.

        Raises:
            SettingsError: if there is something at ``path`` already.
            StateError: if it can't be written.
        """
        cls.check_free(path)
        folder, was_there = cls(path), path.exists()
        failed: Exception | None = None
        try:
            folder.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failed = write_error(path, error)
        else:
            with folder.lock():
                cls.check_free(path)  # again: another process may have made it meanwhile
                try:
                    folder._begin(settings, metrics, facts)
                except StateError as error:
                    failed = error
        if failed:
            shutil.rmtree(path, ignore_errors=True)
            if was_there:  # it was empty
                path.mkdir(exist_ok=True)
            raise StateError(f"{failed}. Nothing was started and nothing is left there") from failed
        return folder

    def _begin(
        self, settings: Settings, metrics: Sequence[str], facts: Mapping[str, object]
    ) -> None:
        logs = {"scores.csv": [*SCORES, *metrics, *LOSSES], "payloads.csv": PAYLOADS}
        for log, columns in logs.items():
            write_text(self.path / log, _csv_line({c: c for c in columns}, columns))
        facts = {**facts, "settings": fingerprint(as_dict(settings)), "columns": logs}
        write_text(self.state / "facts.json", json.dumps(facts, indent=1, sort_keys=True))
        write_text(self.path / "settings.yaml", to_yaml(settings))

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise SettingsError if there is something at ``path`` already."""
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if taken and not RunFolder(path).half_made:
            go_on = (
                f"{going_on(path)}, or choose"
                if (path / "settings.yaml").exists() and not RunFolder(path).across_sites
                else "choose"
            )
            raise SettingsError(
                f"{path} exists already and is left as it is; {go_on} another --out"
            )

    @property
    def half_made(self) -> bool:
        """Whether a process was killed while it made this folder, of which settings come last."""
        if not self.state.is_dir():
            return False
        there, inside = (
            {file.name for file in folder.iterdir() if not file.name.startswith(".")}
            for folder in (self.path, self.state)
        )
        return there <= {"state", "scores.csv", "payloads.csv"} and inside <= {"facts.json", "lock"}

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Come back to a run folder.

        Raises:
            StateError: if there is none at ``path``.
        """
        if not path.exists():
            raise StateError(f"{path} is not the folder of a run: there is no such folder")
        if not (path / "settings.yaml").is_file() or not (path / "state").is_dir():
            raise StateError(
                f"{path} is not the folder of a run: settings.yaml or state/ is missing"
            )
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second process from working on the same run.

        Raises:
            StateError: if one does already.
        """
        try:
            # who only looks whether a new folder is free lets go at once
            held = filelock.FileLock(self.state / "lock", timeout=0.5).acquire()
        except filelock.Timeout as error:
            raise StateError(f"another process is working on {self.path}; wait for it") from error
        except (OSError, NotImplementedError) as error:  # a file system that has no locks
            known = error if isinstance(error, OSError) else OSError(errno.ENOLCK, str(error))
            raise write_error(self.state / "lock", known) from error
        with held:
            try:
                yield
            finally:
                self.sweep()

    def settings(self, method: Method | None = None) -> Settings:
        """Read the settings of the run; ``method`` where it can't be found by its name."""
        try:
            values = read_yaml(self.path / "settings.yaml")
        except UNREADABLE as error:
            raise StateError(
                f"{self.path / 'settings.yaml'} can't be read: {what_is_wrong(error)}; put it back "
                "as it was, or start the run again with another --out"
            ) from error
        # Of the file, not of what is made of it: later versions have more settings.
        if not isinstance(values, dict) or fingerprint(values) != self.facts().get("settings"):
            raise StateError(
                f"{self.path / 'settings.yaml'} is not what this run was started with; put it back "
                "as it was, or start another run with it by --config"
            )
        return from_dict(values, method)

    def facts(self) -> dict[str, object]:
        """Read what :meth:`create` was told."""
        path = self.state / "facts.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StateError(f"{path} can't be read: {error}") from error
        return dict(facts)

    @property
    def across_sites(self) -> bool:
        """Whether the run's sites are elsewhere, with their states; a rehearsal's were."""
        with suppress(StateError):
            return "plan" in self.facts()
        return False

    @property
    def finished(self) -> bool:
        """Whether the run has its final results."""
        return (self.path / "results.json").is_file()

    def commit(
        self, notebook: Notebook, rows: Mapping[str, Sequence[Mapping[str, object]]]
    ) -> None:
        """End a round: append the logs, then write the notebook, which makes the round count."""
        notebook.lengths = {log: self.append(log, new) for log, new in rows.items()}
        body = json.dumps(asdict(notebook), indent=1, sort_keys=True)
        checksum = hashlib.sha256(body.encode()).hexdigest()
        write_text(self._page(notebook.round), f"{checksum}\n{body}\n")
        self._clear_away()

    def append(self, log: str, rows: Sequence[Mapping[str, object]]) -> int:
        """Append rows to a log and return its length in bytes."""
        columns = self._columns[log]
        return append_text(self.path / log, "".join(_csv_line(row, columns) for row in rows))

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """Columns of the logs."""
        columns = self.facts().get("columns")
        if not isinstance(columns, dict):
            raise StateError(f"{self.state / 'facts.json'} was written by another version")
        return columns

    def latest(self) -> tuple[Notebook, list[str]]:
        """The newest notebook that is whole, and a sentence for each damaged one before it.

        Before the first round is complete, an empty one. Logs are cut back to where they were.

        Raises:
            StateError: if rounds were saved and none of them is whole.
        """
        damaged: list[str] = []
        self.sweep()
        for path in sorted(self.state.glob("round-*.json"), reverse=True):
            try:
                notebook = self._read(path)
            except StateError as error:
                damaged.append(f"{error}; the round before it is used")
                continue
            self._go_back_to(notebook, path)
            return notebook, damaged
        for path in sorted(self.state.glob("round-*.json")):  # two rounds can have the same choice
            with suppress(StateError):
                notebook = self._read(path, with_choice=False)
                self._go_back_to(notebook, path)
                said = (
                    f"round {notebook.round} is gone on with, without the models that validation "
                    "had chosen so far: it chooses among the rounds from here on"
                )
                return notebook, [*damaged, said]
        if damaged:
            raise StateError(
                f"no saved round of {self.path} is whole: {'; '.join(damaged)}. "
                "Start again with another --out"
            )
        heads = {log: _csv_line({c: c for c in cs}, cs) for log, cs in self._columns.items()}
        self._cut_back({log: len(head.encode()) for log, head in heads.items()})
        return Notebook(), []

    def _go_back_to(self, notebook: Notebook, path: Path) -> None:
        """Leave of the logs and the notebooks what there was when this one was written."""
        self._cut_back(notebook.lengths)
        for newer in self.state.glob("round-*.json"):
            if newer > path:
                newer.unlink()
        self._clear_away()  # what a process left that was killed before it could

    def files_here(self, notebook: Notebook) -> set[Kept]:
        """The files of a notebook that lie in this folder: all of them."""
        return notebook.files

    def sweep(self) -> None:
        """Remove spare files, and what processes left that were killed while they wrote."""
        for left in self.path.rglob(".*.part"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def _read(self, path: Path, with_choice: bool = True) -> Notebook:
        try:
            checksum, _, body = path.read_text(encoding="utf-8").partition("\n")
            if hashlib.sha256(body.rstrip("\n").encode()).hexdigest() != checksum:
                raise StateError(f"{path} is damaged")
            notebook = Notebook.parse(body)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StateError(f"{path} is damaged ({error})") from error
        if not with_choice:
            notebook = replace(notebook, best=0, best_score=-1.0, best_loss=0.0, candidates={})
        for kept in sorted(self.files_here(notebook)):
            file = self.state / kept.file
            if not file.is_file():
                raise StateError(f"{file} is missing")
            if hashlib.sha256(file.read_bytes()).hexdigest() != kept.sha256:
                raise StateError(f"{file} is damaged")
        for log, length in notebook.lengths.items():
            if not (self.path / log).is_file() or (self.path / log).stat().st_size < length:
                raise StateError(f"{self.path / log} has lost lines")
        return notebook

    def _cut_back(self, lengths: Mapping[str, int]) -> None:
        for log, length in lengths.items():
            try:
                with open(self.path / log, "r+b") as file:
                    file.truncate(length)
            except OSError as error:
                raise StateError(f"{self.path / log} can't be gone on with: {error}") from error

    def _page(self, round: int) -> Path:
        return self.state / f"round-{round:05d}.json"

    def _clear_away(self) -> None:
        """Remove what the two newest notebooks do not need."""
        pages = sorted(self.state.glob("round-*.json"))
        needed: set[str] = set()
        for page in pages[-2:]:
            try:
                needed |= self._read_quickly(page)
            except (OSError, ValueError, TypeError, KeyError):
                return  # a damaged page: keep everything
        for page in pages[:-2]:
            page.unlink(missing_ok=True)
        put_aside(self.state, [f for f in self.state.glob("*.safetensors") if f.name not in needed])

    def _read_quickly(self, page: Path) -> set[str]:
        body = page.read_text(encoding="utf-8").partition("\n")[2]
        return {kept.file for kept in Notebook.parse(body).files}

    def write_table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Write a CSV in one stroke; its columns are those of the first row."""
        columns = list(rows[0]) if rows else []
        lines = [_csv_line(row, columns) for row in [{c: c for c in columns}, *rows]]
        write_text(self.path / name, "".join(lines))

    def write_results(self, results: Mapping[str, object]) -> None:
        """Write ``results.json``, which makes the run finished."""
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_bytes(self.path / "results.json", text.encode())


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over all settings but the machine's, as plain values."""
    values = {name: value for name, value in settings.items() if name != "machine"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _csv_line(row: Mapping[str, object], columns: Iterable[str]) -> str:
    """One line of a log, numbers in full precision.

    >>> _csv_line({"a": 0.1, "c": 'x "y", z'}, "abc")
    '0.1,,"x ""y"", z"\\n'
    """
    cells = []
    for column in columns:
        text = str(row.get(column, ""))
        if any(mark in text for mark in ',"\n\r'):
            text = '"' + text.replace('"', '""') + '"'
        cells.append(text)
    return ",".join(cells) + "\n"


def going_on(path: Path) -> str:
    """How to go on with a run that was stopped."""
    if RunFolder(path).across_sites:  # whose sites have their states, or had them
        return (
            "to go on with a run across sites, submit its job again; a rehearsal can't be gone on "
            "with, start it again with another --out"
        )
    return f"go on with `counterpoint resume {typed(path)}`"
