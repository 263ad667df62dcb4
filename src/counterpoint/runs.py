"""Runs side by side: what they are called, and in which settings they differ.

A *name* here stands for all runs that differ by nothing but their seeds. Seeds, and where and on
how many processes a run was made, are never told apart.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from counterpoint.errors import SettingsError, nearest
from counterpoint.results import Result, runs_in
from counterpoint.settings import CHOICES, flatten, read_file, resolve

ALIKE = ("method", "seed", "data.root", "data.split_seed")
"""Settings that do not make a run another one; the method's name is looked at by itself."""

LOWER_IS_BETTER = ("loss", "hd95", "hd95_mm")
"""Scores of which less is better."""


@dataclass(frozen=True)
class Run:
    """A finished run with its settings by dotted name, and what it is called in a figure."""

    result: Result
    settings: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.result.results["method"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.result.results["seed"])

    def __getitem__(self, setting: str) -> Any:
        """Value of a setting; None where the method's parts do not have it."""
        return self.method if setting == "method" else self.settings.get(setting)


def gather(folders: Iterable[Path], where: Mapping[str, Any] | None = None) -> list[Run]:
    """The finished runs in some folders, named, in the order in which they are found.

    ``where`` keeps those that have these settings, by dotted or short name.

    Raises:
        StateError: if a folder holds no finished run.
        SettingsError: if none is left, one is there twice, or their data are not the same.
    """
    found = {r.path.resolve(): r for folder in folders for r in runs_in(folder)}
    runs = [Run(r, by_name(read_file(r.path / "settings.yaml"))) for r in found.values()]
    for name, value in (where or {}).items():
        full = setting_named(name, runs)
        left = [run for run in runs if _is(run[full], value)]
        if not left:
            there = ", ".join(dict.fromkeys(str(run[full]) for run in runs))
            raise SettingsError(f"no run has {full} = {value}; there are {there}")
        runs = left
    _require_one_data_set(runs)
    _require_different(runs)
    return named(runs, lambda run: run.method)


def _is(known: object, wanted: object) -> bool:
    """Whether a setting has a value; 1e-3 is a text to YAML, and a number to who typed it."""
    if isinstance(known, float) and isinstance(wanted, str):
        with suppress(ValueError):
            return known == float(wanted)
    return known == wanted


def setting_named(name: str, runs: Sequence[Run]) -> str:
    """Full name of a setting of some runs; "method" is one.

    Raises:
        SettingsError: if no run has it.
    """
    known = dict.fromkeys(setting for run in runs for setting in run.settings)
    return resolve(name, list(known | {"method": None}))


def varying(runs: Sequence[Run]) -> list[str]:
    """Full names of the settings that differ among runs, but for those that never count.

    A part's own settings are compared among the runs that have the part.

    >>> runs = [Run(Result("."), {"lr": lr, "seed": seed}) for lr, seed in ((1, 1), (2, 2))]
    >>> varying(runs)
    ['lr']
    """
    values: dict[str, set[str]] = {}
    for run in runs:
        for name, value in run.settings.items():
            if name not in ALIKE and not name.startswith("machine."):
                values.setdefault(name, set()).add(repr(value))
    return [name for name, different in values.items() if len(different) > 1]


def short(setting: str) -> str:
    """A setting as figures call it.

    >>> short("schedule.local_epochs"), short("aggregation.kind"), short("aggregation.start")
    ('local epochs', 'aggregation', 'aggregation start')
    """
    section, _, last = setting.rpartition(".")
    if last == "kind":
        return section
    words = last.replace("_", " ")
    return f"{section} {words}" if section in CHOICES else words


def named(runs: Sequence[Run], name_of: Callable[[Run], str]) -> list[Run]:
    """Runs with names: where ``name_of`` does not tell settings apart, these are added."""
    names = [name_of(run) for run in runs]
    alike = {
        name: varying([r for r, n in zip(runs, names, strict=True) if n == name]) for name in names
    }
    return [
        replace(
            run, name=", ".join([name, *(said(run, s) for s in alike[name] if run[s] is not None)])
        )
        for run, name in zip(runs, names, strict=True)
    ]


def by_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name; of a file of weights without its folder, which figures don't tell.

    >>> by_name({"schedule": {"rounds": 2, "weights": "/home/me/a.safetensors"}})
    {'schedule.rounds': 2, 'schedule.weights': 'a.safetensors'}
    """
    flat = dict(flatten(settings))
    if "schedule.weights" in flat:
        flat["schedule.weights"] = Path(flat["schedule.weights"]).name
    return flat


def said(run: Run, setting: str) -> str:
    """A setting and its value in words."""
    value = run[setting]
    return (
        f"{short(setting)} {value:g}" if isinstance(value, float) else f"{short(setting)} {value}"
    )


def over_seeds(frame: pd.DataFrame, by: Sequence[str], value: str = "value") -> pd.DataFrame:
    """Mean over the runs, and how far they lie apart, for each combination of the columns ``by``.

    Returns the columns ``by``, then ``mean``, ``spread`` (standard deviation, n - 1; NaN for one
    run), ``lowest``, ``highest`` and ``runs``. What is NaN in a run is left out.

    >>> over_seeds(pd.DataFrame({"name": ["a", "a"], "value": [1.0, 3.0]}), ["name"])
      name  mean    spread  lowest  highest  runs
    0    a   2.0  1.414214     1.0      3.0     2
    """
    groups = frame.groupby(list(by), sort=False, dropna=False)[value]
    table = groups.agg(mean="mean", spread="std", lowest="min", highest="max", runs="count")
    return table.reset_index()


def score_of(runs: Sequence[Run], metric: str | None = None) -> str:
    """The score to draw: ``metric`` if the runs have it, or what they were chosen by.

    Raises:
        SettingsError: if they do not have it.
    """
    values = runs[0].result.results
    known = [*values["metrics"], "loss"]
    if metric not in (None, *known):
        hint = nearest(str(metric), known)
        raise SettingsError(
            f"these runs have no score '{metric}'{hint}; they have {', '.join(known)}"
        )
    return metric or str(values["score"])


def require_numbers(values: "pd.Series[float]", metric: str) -> None:
    """Refuse a score that no site has, of which a figure would be empty.

    Raises:
        SettingsError: naming it.
    """
    if values.isna().all():
        raise SettingsError(
            f"{metric} is not defined at any site in these runs; choose another --metric"
        )


def predicting(run: Run) -> pd.DataFrame:
    """Validation scores of the model that a site uses, before any fine-tuning at the end."""
    scores = run.result.scores
    role = scores.loc[scores["split"] == "test", "model"].iloc[0]
    rows = (scores["split"] == "validation") & (scores["moment"] != "finetuned")
    used: pd.DataFrame = scores[rows & (scores["model"] == role)]
    return used


def _require_one_data_set(runs: Sequence[Run]) -> None:
    for name in ("data.name", "data.task", "data.holdout"):
        different = list(dict.fromkeys(str(run[name]) for run in runs))
        if len(different) > 1:
            raise SettingsError(
                f"the runs differ in {name} ({', '.join(different)}), and scores of different data "
                f"can't be drawn together; choose by --where {name}={different[0]}"
            )
    for name in ("sites", "protocol"):
        found = (run.result.results.get("test" if name == "sites" else name, ()) for run in runs)
        texts = (v if isinstance(v, str) else ", ".join(sorted(v)) for v in found)
        values = list(dict.fromkeys(filter(None, texts)))  # an early version noted no protocol
        if len(values) > 1:
            raise SettingsError(
                f"the runs differ in their {name} ({'; '.join(values)}), and scores of different "
                "data can't be drawn together; name the runs of one of them"
            )


def _require_different(runs: Sequence[Run]) -> None:
    seen: dict[str, Run] = {}
    for run in runs:
        key = repr([(n, v) for n, v in run.settings.items() if not n.startswith("machine.")])
        if key in seen:
            raise SettingsError(
                f"{seen[key].result.path} and {run.result.path} have the same settings and seed: "
                "they are one run, and would count as two; leave one out"
            )
        seen[key] = run


def undefined(scores: pd.DataFrame, metric: str) -> list[str]:
    """Sites that trained and at which some run has no such score.

    They are in no run's mean: means over different sites are not compared. None, where it would
    be all of them.

    >>> scores = pd.DataFrame({"site": [*"AABB"], "trained": True, "hd95": [1, None, 2, 3]})
    >>> undefined(scores, "hd95")
    ['A']
    """
    known = scores[scores["trained"]].groupby("site", sort=False)[metric]
    found = known.count() < known.size()
    return [] if found.all() else [str(site) for site in found.index[found]]
