"""Run a federation, and go on with one: the two calls that do everything."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import counterpoint.data as readers
from counterpoint.calibration import choose_workers
from counterpoint.crew import (
    Event,
    Report,
    choose_device,
    memory_in_words,
    one_at_a_time,
    share_cores,
    told,
)
from counterpoint.data.files import sha256
from counterpoint.data.site import Federation, SiteData
from counterpoint.effects import without_effect
from counterpoint.encryption import require_enough
from counterpoint.errors import DataError, SettingsError, StateError
from counterpoint.federation import federate, input_shape, sites_a_round
from counterpoint.files import at_home
from counterpoint.first import new_predictor
from counterpoint.folder import RunFolder
from counterpoint.methods import Method
from counterpoint.privacy import require_slices_apart
from counterpoint.report.words import leaks
from counterpoint.results import Result
from counterpoint.settings import Data, Settings, changed, full_names, make_settings
from counterpoint.tasks import Task, make_task
from counterpoint.weights import put_weights, weights_file


def ignore(event: Event) -> None:
    """Report nothing."""


def run(
    method: str | Method,
    data: str | os.PathLike[str] | Federation,
    *,
    out: str | Path,
    report: Report = ignore,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Result:
    """Train a federation and leave everything in the folder ``out``.

    Args:
        method: a method's name, an import path ``my_method.py:METHOD``, or a Method.
        data: name of a data set, path of your own table or folder, or what `counterpoint.load`
            gave.
        out: a folder that does not exist yet.
        report: is told of every score as it comes, and of what there is to say of the data. With
            several workers it is called from other threads, but never from two at once.
        settings: settings by name, as in a file.
        **options: the same by keyword; short names do: ``rounds=5, lr=0.1, local="deputy"``.

    Returns:
        The result: scores, settings, and the models to load.

    Raises:
        CounterpointError: if data, settings, training or the folder fail; the text says where.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> result = run("fedavg", "phantom", out=folder, rounds=1, local_epochs=1, image_size=32,
    ...              train_limit=16, workers=1)
    >>> list(result.table.columns)[:4]
    ['macro_f1', 'accuracy', 'auc', 'balanced_accuracy']
    """
    report, wanted = one_at_a_time(report), full_names(settings or {}) | full_names(options)
    place = at_home(Path(out))
    chosen, federation, sites = prepare(method, data, place, wanted, report)
    made = task_of(chosen, federation)
    if chosen.machine.workers is None:
        chosen = _calibrated(chosen, federation, made, report)
    facts = {
        "fingerprint": federation.fingerprint,
        "sites": federation.site_fingerprints,
        "notes": list(federation.notes),
        "device": str(choose_device(chosen.machine.device)),
        "weights": checksum_of_weights(chosen),
    }
    folder = RunFolder.create(place, chosen, made.metrics, facts)
    return _leave(federate(folder, chosen, federation, made, sites, report))


def prepare(
    method: str | Method,
    data: str | os.PathLike[str] | Federation,
    out: Path,
    settings: Mapping[str, Any],
    report: Report,
) -> tuple[Settings, Federation, list[SiteData]]:
    """Make the settings of a run, read and decode its data, and check that all of it will do."""
    name = data.name if isinstance(data, Federation) else os.fspath(data)
    wanted = full_names(settings)
    for setting in ("data.root", "schedule.weights"):
        if isinstance(wanted.get(setting), os.PathLike):
            wanted[setting] = os.fspath(wanted[setting])
    task = wanted.pop("data.task", None)
    if isinstance(data, Federation) and task not in (None, data.task):
        raise SettingsError(
            f"the federation was loaded for {data.task}, and the task asked for is {task}; load it "
            f"with task='{task}'"
        )
    task = data.task if isinstance(data, Federation) else readers.task_of(name, task)
    chosen = make_settings(method, name, {**wanted, "data.task": task})
    for sentence in without_effect(chosen.method):
        report({"note": sentence})
    RunFolder.check_free(out)
    device = choose_device(chosen.machine.device)
    if not isinstance(data, Federation):
        federation = read_data(chosen, report)
    elif chosen.data == Data(name=name, task=data.task, skip_bad=chosen.data.skip_bad):
        federation = data
    else:
        raise SettingsError(
            "settings of the data can't be changed for a federation that is loaded already; give "
            "them to counterpoint.load"
        )
    skip_bad = chosen.data.skip_bad or bool(federation.source.get("skip_bad"))
    if federation.source:  # said in full, so that the run can go on from any folder
        source = {**federation.source, "skip_bad": skip_bad}
        chosen = dataclasses.replace(chosen, data=Data(**source))
    _require_statistics(chosen, federation)
    require_slices_apart(chosen.method, federation.form.neighbours)
    if chosen.encrypt:
        require_enough(sites_a_round(len(federation.sites), chosen.method.schedule.participation))
    made = task_of(chosen, federation)
    say_first(chosen, made, input_shape(federation, chosen), report)
    workers, threads = _cores(chosen, federation, device)
    chosen = _with_machine(chosen, workers=chosen.machine.workers and workers, threads=threads)
    return chosen, *_decode(chosen, federation, report)


def resume(
    out: str | Path,
    *,
    data: Federation | None = None,
    method: Method | None = None,
    root: str | os.PathLike[str] | None = None,
    device: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    report: Report = ignore,
) -> Result:
    """Go on with a run that was stopped; the end is bit for bit that of a run never stopped.

    Args:
        out: the run's folder.
        data: needed only where the run was given a federation that was made by hand.
        method: the same for a method.
        root: folder of a named data set, or your own table or folder, where it has moved.
        device: another one than before; its arithmetic may round otherwise.
        workers: another number than before.
        threads: the same.
        report: is told of every score as it comes.

    Raises:
        StateError: if the folder is not a run's, its data moved or changed, or all saved rounds
            are damaged.
        SettingsError: if there is no such device here.
    """
    folder, report = RunFolder.open(at_home(Path(out))), one_at_a_time(report)
    chosen = folder.settings(method)
    if folder.finished:
        report({"note": f"{folder.path} was complete already"})
        return _leave(Result(folder.path))
    if folder.across_sites:
        raise StateError(
            f"{folder.path} is of a run across sites, which have its states. Submit its job again "
            "to go on with it; a rehearsal (simulate) can't be gone on with: start it again with "
            "another --out"
        )
    chosen = _with_machine(chosen, device=device, workers=workers, threads=threads)
    try:
        choose_device(chosen.machine.device)
    except SettingsError as error:
        raise SettingsError(f"{error}; choose another by --device") from error
    federation = data or read_data(_where_data_are(chosen, root), report)
    federation, sites = _decode(chosen, federation, report)
    _require_same_data(folder, federation)
    if folder.facts().get("weights", "") != checksum_of_weights(chosen):
        raise StateError(
            f"{chosen.method.schedule.weights} is not the file of weights that {folder.path} was "
            "started from; put it back as it was"
        )
    made = task_of(chosen, federation)
    return _leave(federate(folder, chosen, federation, made, sites, report))


def moved(settings: Settings, root: str | os.PathLike[str]) -> Settings:
    """Settings with the data in another place: a named data set's folder, or one's own table."""
    data, place = settings.data, os.fspath(at_home(Path(root)))
    if data.name in readers.datasets():
        data = dataclasses.replace(data, root=place)
    else:
        data = dataclasses.replace(data, name=place)
    return dataclasses.replace(settings, data=data)


def _where_data_are(settings: Settings, root: str | os.PathLike[str] | None) -> Settings:
    """Settings with the place of the data that is given, or the one of before if it is there."""
    if root is not None:
        return moved(settings, root)
    data = settings.data
    before = data.root if data.name in readers.datasets() else data.name
    if before and not Path(before).exists():
        raise StateError(
            f"the data are no longer at {before}; say where they are by --root (in Python root=, "
            "or data= for a federation that was made by hand)"
        )
    return settings


def _require_same_data(folder: RunFolder, federation: Federation) -> None:
    """Raise StateError, with the sites that changed, if the data are not those of the start."""
    facts = folder.facts()
    if facts.get("fingerprint") == federation.fingerprint:
        return
    before, now = dict(facts.get("sites") or {}), federation.site_fingerprints  # type: ignore[call-overload]
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    where = f" of {', '.join(changed)}" if before and changed else ""
    raise StateError(
        f"the data are not those that {folder.path} was started on: images, labels or splits"
        f"{where} changed; a run goes on with the same data only, so put them back as they were "
        "(or another version of Counterpoint, that splits otherwise, began it: go on with that)"
    )


def say_first(settings: Settings, task: Task, shape: tuple[int, ...], report: Report) -> None:
    """Make the first model, which fails here if it does, and say what a file gives to it."""
    file, predictor = settings.method.schedule.weights, new_predictor(settings.method, task, shape)
    if file:
        report({"note": f"first weights of {file}: {put_weights(predictor.network, Path(file))}"})


def checksum_of_weights(settings: Settings) -> str:
    """SHA-256 (hex) of the file of first weights; empty where there is none."""
    file = settings.method.schedule.weights
    return sha256(str(weights_file(Path(file)))) if file else ""


def task_of(settings: Settings, federation: Federation) -> Task:
    """The task of a run."""
    schedule = settings.method.schedule
    return make_task(federation.task, federation.classes, schedule.loss, schedule.balance)


def read_data(settings: Settings, report: Report = ignore) -> Federation:
    """Load the data that the settings name."""
    data = dataclasses.asdict(settings.data)
    name, seed = data.pop("name"), data.pop("split_seed")
    data["sites"] = data["sites"] or None  # none named: all of them
    if seed is None:
        seed = settings.seed
    return readers.load(name, **data, seed=seed, progress=told(report, "checked"))


def _require_statistics(settings: Settings, federation: Federation) -> None:
    """Refuse statistics of batch norm that would only stand in the results."""
    method, held = settings.method, federation.holdout
    few = held is not None and int((held.table["split"] == "train").sum()) < 2
    if held and few and method.statistics == "recalibrated":
        raise SettingsError(
            f"statistics 'recalibrated' are taken from training images, of which '{held.name}', "
            "which is held out, needs two or more; give it some (no label of them is used), or use "
            "--statistics averaged"
        )
    if method.aggregation.kind != "none" or method.statistics in ("local", "batch", "group"):
        return
    if method.statistics == "recalibrated" and held:
        return  # at the site that is held out
    raise SettingsError(
        f"'{method.name}' takes nothing back in, so batch norm's statistics can't be "
        f"'{method.statistics}'; use --statistics local, batch or group"
    )


def _decode(
    settings: Settings, federation: Federation, report: Report
) -> tuple[Federation, list[SiteData]]:
    """Decode the images, say what there is to say of the data, and check that they will do."""
    federation, sites = readers.decode(
        federation,
        settings.method.schedule.image_size,
        skip_bad=settings.data.skip_bad,
        progress=told(report, "decoded"),
    )
    for note in federation.notes:
        report({"warning" if leaks(note) else "note": note})
    _require_statistics(settings, federation)  # again, as images may have been left out
    if federation.form.dimensions == 3 and settings.method.schedule.augmentation == "prrfl":
        raise SettingsError(
            "augmentation 'prrfl' is for 2-D images; use --augmentation flips for volumes"
        )
    if settings.method.statistics == "batch":
        for number, site in enumerate(sites):
            trains = number < len(federation.sites)  # the last one may be held out
            for part in ("validation", "test") if trains else ("test",):
                if len(site.part(part)) < 2:
                    raise DataError(
                        f"site '{site.name}' has a single {part} image: batch norm can't use the "
                        "statistics of one image. Add images, or use --statistics recalibrated"
                    )
    return federation, sites


def _leave(result: Result) -> Result:
    if not (result.path / "retrogress.svg").exists():
        draw_figures(result)
    return result


def draw_figures(result: Result) -> None:
    """Draw the figures that a finished run leaves beside its numbers."""
    from counterpoint.figures.retrogress import retrogress_curve  # matplotlib: not at the start
    from counterpoint.figures.save import save

    save(retrogress_curve(result), result.path / "retrogress")


def _images(settings: Settings, federation: Federation) -> list[int]:
    """Training images of each client."""
    images = [int((site.table["split"] == "train").sum()) for site in federation.sites]
    return [sum(images)] if settings.method.pooled else images


def _cores(settings: Settings, federation: Federation, device: torch.device) -> tuple[int, int]:
    """Workers that the machine has room for, and the threads of one."""
    images, machine = _images(settings, federation), settings.machine
    return share_cores(images, machine.workers, machine.threads, device)


def _calibrated(settings: Settings, federation: Federation, task: Task, report: Report) -> Settings:
    """The settings with the number of workers that was left open."""
    device = choose_device(settings.machine.device)
    workers, threads = _cores(settings, federation, device)
    if device.type == "cpu":
        images, shape = _images(settings, federation), input_shape(federation, settings)
        with memory_in_words():
            workers = choose_workers(settings, task, shape, images, workers, threads, report)
    return _with_machine(settings, workers=workers, threads=threads)


def _with_machine(settings: Settings, **values: str | int | None) -> Settings:
    """Settings with what is given of the machine."""
    given = {name: value for name, value in values.items() if value is not None}
    machine = changed(settings.machine, "machine", given)
    return dataclasses.replace(settings, machine=machine)
