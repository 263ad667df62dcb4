"""Runs sorted into the arms of a study: equal settings but for the seed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from counterpoint.errors import SettingsError
from counterpoint.report.page.runs import KINDS, Arm, Kind, Run, Study
from counterpoint.results import runs_in

_OWN_MATTER = ("seed", "data.split_seed", "data.root")  # and the machine: not what a method is


def read_study(paths: Sequence[Path]) -> Study:
    """Read runs, or folders of runs.

    Raises:
        StateError: if a path holds no finished run, or one that can't be read.
        SettingsError: if the runs are not about the same sites and task.
    """
    found = {run.path.resolve(): run for path in paths for run in runs_in(path)}
    runs = [Run(result) for result in found.values()]
    abouts = {_about(run): run for run in runs}
    if len(abouts) > 1:
        listed = "; ".join(f"{about} in {run.path}" for about, run in abouts.items())
        raise SettingsError(
            f"these runs can't be compared on one page, their data are not the same: {listed}. "
            "Name the runs of one of them, such as FOLDER/classification-*"
        )
    unfinished = [str(p.name) for path in paths for p in _unfinished(path)]
    return Study(tuple(_arms(runs)), tuple(unfinished))


def _about(run: Run) -> str:
    values = run.values
    sites = ", ".join(values["test"])
    held = f", {values['holdout']} held out" if values["holdout"] else ""
    return f"{values['task']} on {values['data']} ({sites}{held})"


def _unfinished(path: Path) -> Iterable[Path]:
    for file in sorted(path.glob("*/settings.yaml")):
        if not (file.parent / "results.json").exists():
            yield file.parent


def _arms(runs: Sequence[Run]) -> list[Arm]:
    """Sort runs into arms: equal settings but for the seed."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(sorted(_identity(run).items(), key=str)), []).append(run)
    kinds = list(KINDS)
    sorted_groups = sorted(
        (tuple(sorted(group, key=lambda run: run.seed)) for group in groups.values()),
        key=lambda group: kinds.index(kind_of(group[0])),
    )
    for group in sorted_groups:
        _require_different(group)
    labels = _labels(sorted_groups)
    first = 0 if kind_of(sorted_groups[0][0]) == "local" else 1  # grey is for training alone
    return [
        Arm(f"s{first + place}", label, kind_of(group[0]), group)
        for place, (label, group) in enumerate(zip(labels, sorted_groups, strict=True))
    ]


def _require_different(group: Sequence[Run]) -> None:
    first: dict[tuple[int, str], Run] = {}
    for run in group:
        other = first.setdefault(run.seeds, run)
        if other is not run:
            raise SettingsError(
                f"{other.path} and {run.path} are one method with one seed, and would count as "
                "two runs; leave one of them out"
            )


def _identity(run: Run) -> dict[str, Any]:
    return {
        name: value
        for name, value in run.settings.items()
        if name not in _OWN_MATTER and not name.startswith("machine.")
    }


def kind_of(run: Run) -> Kind:
    """What kind of model a hospital ends with.

    A model is common where all its weights are averaged and nothing is trained after the merge;
    batch norm's running statistics may be the site's own.
    """
    settings = run.settings
    if settings.get("pooled"):
        return "pooled"
    if settings["aggregation.kind"] == "none":
        return "local"
    if run.values["one_global_model"]:
        return "common"
    models = set(run.result.scores["model"])
    whole = settings["aggregation.kind"] in ("all", "normalised") and models == {"model"}
    return "common" if whole and not settings.get("schedule.finetune_epochs") else "personal"


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The methods' names; where a method is there twice, with the settings that differ."""
    labels = []
    for group in groups:
        name = str(group[0].values["method"])
        twins = [_identity(other[0]) for other in groups if other[0].values["method"] == name]
        mine = _identity(group[0])
        odd = [key for key in mine if any(twin.get(key) != mine[key] for twin in twins)]
        said: list[str] = []
        for key in odd:
            others = [twin for twin in twins if twin.get(key) != mine[key]]
            if others:  # the setting tells this arm from some that are still like it
                part, _, last = key.rpartition(".")
                said.append(f"{part if last == 'kind' else last} {mine[key]}")
                twins = [twin for twin in twins if twin not in others]
        if len(said) > 2:
            said = [group[0].path.name]
        labels.append(f"{name} ({', '.join(said)})" if said else name)
    return labels
