"""Compare methods on the same data, seeds and budget: run what is missing, then make the table."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from counterpoint.cores import physical_cores
from counterpoint.errors import SettingsError
from counterpoint.results import Result
from counterpoint.settings import Machine, changed, full_names, to_yaml
from counterpoint.study.budget import Budget
from counterpoint.study.entry import Entry, parse_entry, varied
from counterpoint.study.findings import Findings, find, require_known, study_in
from counterpoint.study.plan import FILE, Planned, Study, grown, open_study, plan
from counterpoint.study.running import Tell, held, run_missing, share_cores
from counterpoint.study.scores import Finished, Split, require_one_training
from counterpoint.study.writers import write

MOST_SEEDS = 1000


def say_nothing(run: Planned | None, event: dict[str, object]) -> None:
    """Report nothing."""


def compare(
    entries: Sequence[str | Entry] = (),
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | Path,
    seeds: int | Iterable[int] | None = None,
    vary: Mapping[str, Sequence[Any]] | None = None,
    budget: Budget | None = None,
    metric: str | None = None,
    baseline: str | None = None,
    split: Split = "test",
    jobs: int | None = None,
    report: Tell = say_nothing,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Findings:
    """Run methods on the same data and seeds, and compare them.

    Every run is a process and a run folder of its own in ``out``. Those that are finished are only
    read, those that were started are gone on with, those that failed are tried again; a failure
    does not stop the others. ``out`` also gets table.csv, table.md, table.tex and study.json.

    Args:
        entries: methods as for :func:`counterpoint.run`, each alone or with settings of its own
            (``"fedavg:statistics=recalibrated"``). Empty to make the table of what is in ``out``.
        data: name of a data set, or path of a table or folder; a study that was begun knows it.
        out: the study's folder, new or begun.
        seeds: how many (1, 2, ...), or which; where left out those of a study that was begun, and
            3 for a new one.
        vary: values by setting; every entry runs with every combination.
        budget: "gradients" gives all entries the same rounds, network, optimiser and so on, and
            so many local epochs that all compute the same number of gradients; "epochs" leaves
            what is not given at each method's own default.
        metric: score that is shown and tested; the task's where left out.
        baseline: entry that all others are tested against; local, else fedavg, else the first.
        split: images whose scores are shown; "validation" to choose settings by, without a look at
            test scores.
        jobs: runs side by side; as many as the cores allow where left out.
        report: is told of every event of every run; called from several threads.
        settings: settings of all entries by name, as in a file.
        **options: the same by keyword, as for :func:`counterpoint.run`.

    Raises:
        CounterpointError: for wrong settings or data, for settings that are not those with which
            ``out`` was begun, or if no run at all could be finished. Single runs that failed are
            in ``Findings.missing``.
    """
    out = Path(out)
    given = full_names(settings or {}) | full_names(options)
    lasting, machine = apart(given)
    if not entries:
        if data is not None or lasting or vary or seeds is not None or budget is not None:
            raise SettingsError(
                "without methods, the table of what is there is made, and settings change nothing; "
                "name the methods to compare"
            )
        study = study_in(out)
        found = find(study, metric, baseline, split)
        write(found)
        return found
    listed = [parse_entry(one) if isinstance(one, str) else one for one in entries]
    listed = varied(listed, vary or {})
    if isinstance(seeds, int) and seeds > MOST_SEEDS:
        raise SettingsError(
            f"{seeds} seeds are more than anybody waits for; which seeds are said as a list, for "
            f"one of them [{seeds}] (--seeds {seeds},)"
        )
    numbers = range(1, seeds + 1) if isinstance(seeds, int) else seeds
    study = study_asked_for(out, data, listed, numbers, lasting, budget)
    require_known(study, metric, baseline, split)
    with held(study):
        require_as_begun(study)
        study.save()
        if runs := [run for run in study.runs() if not run.finished]:
            for sentence in study.fits():
                report(None, {"note": sentence})
            report(None, {"runs": len(runs)})
        jobs, machine = share_cores(len(runs), jobs, machine, physical_cores())
        run_missing(study, runs, jobs, machine, report)
        found = find(study, metric, baseline, split)
        write(found)
    return found


def study_asked_for(
    out: Path,
    data: str | os.PathLike[str] | None,
    entries: Sequence[Entry],
    seeds: Iterable[int] | None,
    settings: Mapping[str, Any],
    budget: Budget | None,
) -> Study:
    """A new study, or the one in ``out`` with the entries and seeds that are asked for."""
    kept = open_study(out) if (out / FILE).exists() else None
    if kept is None:
        if data is None:
            raise SettingsError(f"{out} is not a study yet: say on which data (--data)")
        if out.exists() and (not out.is_dir() or list(out.glob("[!.]*"))):
            raise SettingsError(
                f"{out} exists already, is no study and is left as it is; choose another --out"
            )
        seeds = (1, 2, 3) if seeds is None else seeds
        return plan(out, os.fspath(data), entries, seeds, settings, budget or "gradients")
    asked = plan(
        out,
        kept.data if data is None else os.fspath(data),
        entries,
        kept.seeds if seeds is None else seeds,
        settings or kept.settings,
        budget or kept.budget,
    )
    return grown(kept, asked)


def require_as_begun(study: Study) -> None:
    """Refuse a method that is no longer what runs of the study were trained with.

    Raises:
        StateError: naming the run and the setting.
    """
    for run in study.runs():
        if run.finished:
            now = yaml.safe_load(to_yaml(study.settings_of(run.entry, run.seed)[0]))
            del now["data"]  # of which a run knows more, and which a study asks for by itself
            was = Finished(run, Result(run.folder)).settings
            require_one_training(run.entry.label, (run.folder, was), ("the method", now))


def apart(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Machine]:
    """Settings of the training, and those of the machine, which may change from call to call.

    >>> apart({"rounds": 2, "threads": 1})
    ({'rounds': 2}, Machine(device='auto', workers=None, threads=1, compile=False))
    """
    names = {field.name for field in fields(Machine)}
    names |= {f"machine.{name}" for name in names}
    values = {n.removeprefix("machine."): value for n, value in settings.items() if n in names}
    machine = changed(Machine(), "machine", values)
    return {name: value for name, value in settings.items() if name not in names}, machine


def parse_seeds(text: str) -> int | list[int]:
    """Read how many seeds, or which.

    >>> parse_seeds("3"), parse_seeds("1,5,9"), parse_seeds("7,")
    (3, [1, 5, 9], [7])
    """
    try:
        numbers = TypeAdapter(list[int]).validate_python(
            [one.strip() for one in text.split(",") if one.strip()]
        )
    except ValidationError:
        numbers = []
    if not numbers or min(numbers) < 0:
        raise SettingsError(f"seeds '{text}': write how many (3), or which (1,5,9)")
    return numbers if "," in text else numbers[0]
