"""What a study is: entries, seeds, data and settings; and the runs that it is made of."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from counterpoint.data import datasets, task_of
from counterpoint.errors import SettingsError, StateError
from counterpoint.files import at_home, write_text
from counterpoint.settings import Settings, as_dict, flatten, full_names, make_settings
from counterpoint.strict_yaml import UNREADABLE, read_yaml, what_is_wrong
from counterpoint.study.budget import Budget, Fit, common_schedule, fitting_epochs
from counterpoint.study.entry import Entry, folder_name

FILE = "study.yaml"
OF_ALL = ("seed", "task", "root", "sites", "holdout", "classes")
"""Last parts of the names of settings that an entry can't have of its own."""
EPOCHS = ("local_epochs", "schedule.local_epochs")


@dataclass(frozen=True)
class Planned:
    """One run of a study: what is trained, with which seed, and where it is kept."""

    entry: Entry
    seed: int
    folder: Path
    log: Path
    """What the run said; it is kept if the run failed."""

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.entry.label}, seed {self.seed}"

    @property
    def started(self) -> bool:
        """Whether there is something to go on with."""
        return (self.folder / "settings.yaml").is_file()

    @property
    def finished(self) -> bool:
        """Whether it has its results."""
        return (self.folder / "results.json").is_file()

    @property
    def reason(self) -> str:
        """Why there are no results yet."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            last = [line for line in lines if line.strip()][-1]
        except (OSError, IndexError):
            return "started, not finished" if self.started else "not run yet"
        return f"{last.removeprefix('error: ')} (all of it in {self.log})"


@dataclass(frozen=True)
class Study:
    """Entries that are run on the same data with the same seeds, to be compared.

    Attributes:
        folder: where all of it is kept.
        data: name of a data set, or path of a table or folder.
        entries: what is compared, by the name of its folders.
        seeds: of splits, weights and everything else that is drawn.
        settings: what all entries have in common, by name; the data's settings are among them.
        budget: "gradients": rounds, network, optimiser and so on are the same for all entries, and
            local epochs are cut so that all have the same number of gradients; "epochs": what is
            not given is each method's own default, as published.
    """

    folder: Path
    data: str
    entries: Mapping[str, Entry]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget = "gradients"

    def runs(self) -> list[Planned]:
        """All runs, seed by seed, so that an early look at the table is a fair one."""
        logs = self.folder / "logs"
        return [
            Planned(entry, seed, self.folder / f"{name}-{seed}", logs / f"{name}-{seed}.log")
            for seed in self.seeds
            for name, entry in self.entries.items()
        ]

    @cached_property
    def task(self) -> str:
        """Classification or segmentation."""
        return task_of(self.data, self.settings.get("data.task", self.settings.get("task")))

    @cached_property
    def shared(self) -> dict[str, Any]:
        """Settings that all entries share, in full where budgets are the same."""
        common = common_schedule(self.task) if self.budget == "gradients" else {}
        return over(over(common, self.settings), {"data.task": self.task})

    @cached_property
    def local_epochs(self) -> int:
        """Local epochs of a method with one gradient an image, where budgets are the same."""
        given = [value for name, value in self.shared.items() if name in EPOCHS]
        return TypeAdapter(int).validate_python(given[-1])

    def fit(self, entry: Entry) -> Fit | None:
        """An entry's local epochs for the common budget; None where it has its own."""
        if self.budget == "epochs" or any(name in entry.settings for name in EPOCHS):
            return None
        options = over(self.shared, entry.settings)
        method = make_settings(entry.method, self.data, options).method
        return fitting_epochs(method, self.local_epochs)

    def fits(self) -> list[str]:
        """What was done to local epochs so that gradients are the same, in sentences."""
        sentences = []
        for entry in self.entries.values():
            fit = self.fit(entry)
            if fit and fit.epochs != self.local_epochs:
                share = fit.gradients / self.local_epochs
                uneven = "" if share == 1 else f", {100 * share:.0f} % of the others' gradients"
                sentences.append(
                    f"{entry.label} takes {fit.gradients / fit.epochs:g} gradients an image, so it "
                    f"trains {fit.epochs} local epoch{'s' * (fit.epochs > 1)} a round instead of "
                    f"{self.local_epochs}"
                    f"{uneven}"
                )
        return sentences

    def settings_of(self, entry: Entry, seed: int) -> tuple[Settings, dict[str, Any]]:
        """The settings of a run, and those by which they differ from its method's defaults.

        Raises:
            SettingsError: naming the entry and the setting that is wrong.
        """
        try:
            fit = self.fit(entry)
            epochs = {EPOCHS[1]: fit.epochs} if fit else {}
            options = over(over(over(self.shared, entry.settings), epochs), {"seed": seed})
            return make_settings(entry.method, self.data, options), options
        except SettingsError as error:
            raise SettingsError(f"entry '{entry.label}': {error}") from error

    def save(self) -> None:
        """Write ``study.yaml``."""
        values = {
            "data": self.data,
            "budget": self.budget,
            "seeds": list(self.seeds),
            "settings": dict(self.settings),
            "entries": {
                name: dataclasses.asdict(replace(entry, name=entry.label))  # its file may go
                for name, entry in self.entries.items()
            },
        }
        plain = json.loads(json.dumps(values, default=str))
        write_text(self.folder / FILE, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def plan(
    folder: Path,
    data: str,
    entries: Sequence[Entry],
    seeds: Iterable[int],
    settings: Mapping[str, Any],
    budget: Budget = "gradients",
) -> Study:
    """Plan a study, checked as far as it can be before anything runs.

    Raises:
        SettingsError: for a setting that is wrong or an entry that comes twice.
    """
    if not entries:
        raise SettingsError("a study needs at least one method to compare")
    data = data if data in datasets() else str(at_home(Path(data)).resolve())
    settings = dict(flatten(settings))
    for name in ("root", "data.root"):
        if settings.get(name) is not None:
            settings[name] = str(at_home(Path(settings[name])).resolve())
    for name in ("seed", "data.seed"):
        if name in settings:
            raise SettingsError("a study has several seeds: give them by seeds (--seeds 1,2,3)")
    if budget not in get_args(Budget):
        raise SettingsError(f"unknown budget '{budget}'; known are {', '.join(get_args(Budget))}")
    study = Study(folder, data, {}, tuple(dict.fromkeys(seeds)), settings, budget)
    if not study.seeds:
        raise SettingsError("a study needs at least one seed")
    study = with_entries(study, entries)
    for entry in study.entries.values():
        for name in entry.settings:
            if name.rpartition(".")[2] in OF_ALL:
                raise SettingsError(
                    f"entry '{entry.label}': {name} must be the same for all entries, or their "
                    "scores can't be compared; say it once for all of them, or make two studies"
                )
        study.settings_of(entry, study.seeds[0])
    return study


def with_entries(study: Study, entries: Iterable[Entry]) -> Study:
    """The study with more entries; those that it has stay as they are."""
    known = dict(study.entries)
    labels = {entry.label for entry in known.values()}
    for entry in entries:
        if entry.label not in labels:
            known[folder_name(entry.label, list(known))] = entry
        elif not any(_same(entry, one) for one in known.values()):
            raise SettingsError(f"two entries are called '{entry.label}'; give one another name")
        labels.add(entry.label)
    return replace(study, entries=known)


def _same(one: Entry, other: Entry) -> bool:
    return (one.label, one.method, one.settings) == (other.label, other.method, other.settings)


def open_study(folder: Path) -> Study:
    """Read a study from its folder.

    Raises:
        StateError: if there is none, or its ``study.yaml`` is damaged.
    """
    file = folder / FILE
    try:
        values = read_yaml(file)
        study = TypeAdapter(Study).validate_python({"folder": folder, **values})
        each = ({name: value} for name, value in study.settings.items())
        # Versions before could note a setting by two names; the later one was used.
        return replace(study, settings=functools.reduce(over, each, {}))
    except FileNotFoundError as error:
        raise StateError(f"{folder} is not a study: it has no {FILE}") from error
    except (*UNREADABLE, ValidationError, TypeError) as error:
        raise StateError(
            f"{file} can't be read: {what_is_wrong(error)}; put it back as it was, or choose "
            "another --out"
        ) from error


def grown(kept: Study, asked: Study) -> Study:
    """A study with the entries and seeds that are asked for beside those that it has.

    Raises:
        SettingsError: naming the first setting in which what is asked for differs.
    """
    for name in ("data", "budget"):
        _require_same(kept, name, getattr(kept, name), getattr(asked, name))
    for entry in kept.entries.values():
        before, now = (_all_settings(study, entry) for study in (kept, asked))
        for name in {**before, **now}:
            _require_same(kept, name, before.get(name), now.get(name))
    study = with_entries(kept, asked.entries.values())
    return replace(study, seeds=tuple(dict.fromkeys((*kept.seeds, *asked.seeds))))


def over(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others that win, by full or short names.

    >>> over({"schedule.lr": 1, "local": "plain"}, {"schedule.lr": 2, "local": "deputy"})
    {'schedule.lr': 2, 'local.kind': 'deputy'}
    """
    first, second = full_names(settings), full_names(others)
    return {name: value for name, value in first.items() if name not in second} | second


def _all_settings(study: Study, entry: Entry) -> dict[str, Any]:
    return dict(flatten(as_dict(study.settings_of(entry, 0)[0])))


def _require_same(study: Study, name: str, before: object, now: object) -> None:
    if before != now:
        raise SettingsError(
            f"{study.folder} was begun with {name} {before}, and is asked for with {now}. Leave "
            "all settings out to go on with it as it was begun, or choose another --out"
        )
