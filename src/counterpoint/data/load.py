"""Load a federation by name or path: read it, split it, and check it."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import Literal

import pandas as pd

from counterpoint.data.dataset import Request
from counterpoint.data.files import Progress, cache_folder
from counterpoint.data.own import own_task, read_own
from counterpoint.data.prepare import (
    check_leakage,
    limit_training,
    new_split,
    with_contents,
    with_presence,
    with_validation,
)
from counterpoint.data.rules import check_sites
from counterpoint.data.sets import datasets as known_sets
from counterpoint.data.site import Federation, Form, Reading, Site, Task
from counterpoint.errors import DataError, SettingsError, nearest
from counterpoint.files import at_home


def datasets() -> dict[str, str]:
    """Return the names that `load` knows, each with a sentence about the data.

    >>> {"dermoscopy", "phantom"} <= datasets().keys()
    True
    """
    return {name: one.summary for name, one in known_sets().items()}


def task_of(data: str | os.PathLike[str], wanted: str | None = None) -> Task:
    """Return the task that data are loaded for: the one that is wanted, or the data's usual one.

    A data set with a name has its own; your own table is for classification if it has a column
    ``label``, else for segmentation.

    Raises SettingsError for a task that is unknown or that the data set does not have.

    >>> task_of("phantom"), task_of("phantom", "segmentation")
    ('classification', 'segmentation')
    """
    if wanted not in (None, "classification", "segmentation"):
        raise SettingsError(
            f"unknown task '{wanted}'{nearest(str(wanted), ['classification', 'segmentation'])} "
            "(classification or segmentation)"
        )
    if data in known_sets():
        tasks = known_sets()[str(data)].tasks
        if wanted not in (None, *tasks):
            raise SettingsError(f"{data} has no task '{wanted}'; it has {' and '.join(tasks)}")
        return wanted or tasks[0]
    return wanted or own_task(_own_path(data))  # type: ignore[return-value]


_COLUMNS = (
    "image",
    "label",
    "split",
    "group",
    "content",
    "mask",
    "fov",
    "target",
    "frame",
    "case",
    "patient",
)


def load(
    data: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    protocol: str | None = None,
    seed: int = 1,
    sites: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    train_limit: int | Literal["smallest"] | None = None,
    holdout: str | None = None,
    task: str | None = None,
    volumes: str | None = None,
    neighbours: bool | None = None,
    window: Sequence[float] | None = None,
    skip_bad: bool = False,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress = lambda done, total: None,
    fewest: int = 2,
) -> Federation:
    """Return the federation of a named data set ("dermoscopy", "phantom") or of a CSV or folder.

    ``root`` is the folder of a named data set's images. ``protocol`` chooses the split: "grouped"
    makes one with ``seed`` that keeps every patient or lesion in one part; "published" (named data
    sets) and "given" (own data) take the split as it is. ``sites`` keeps only these sites (the
    split is made before, so it does not depend on them); ``holdout`` names one that does not train
    and is only scored. ``classes`` names the classes of your own data, in order: another label is
    refused then, where otherwise it would be a class more. ``train_limit`` cuts every site's
    training part to so many images or to that of the smallest site. ``task`` is "classification"
    or "segmentation", see `task_of`. ``volumes``, ``neighbours`` and ``window`` say how files with
    many slices are used, see `Form`; left open, as the data set has it. ``skip_bad`` leaves out
    missing files. ``cache`` is the folder for the phantom and the index of file contents.
    ``progress`` is called with (files read, files to read) while contents are compared.

    ``fewest`` is the least number of sites: 1 where the others are elsewhere.

    Raises SettingsError for an unknown name or option and DataError for data that can't be used:
    missing files, bad tables, sites that are too small, or a split that puts images of one
    patient, or the same image, in two parts (unless its protocol was asked for by name).
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise SettingsError(f"seed is {seed!r}; it must be a whole number, 0 or more")
    folder = cache_folder(cache)
    reading, used = _read(data, root, protocol, task_of(data, task), classes, folder)
    form = _form(reading.form, volumes, neighbours, window)
    kept = _kept_sites(list(reading.tables), sites)
    if holdout is not None:
        if "," in holdout and holdout not in reading.tables:
            raise SettingsError(f"one site can be held out (--holdout), not several: {holdout}")
        _kept_sites(list(reading.tables), [holdout])  # is there such a site?
        kept = [name for name in kept if name != holdout] + [holdout]
    notes = list(reading.notes)
    tables = with_presence(reading.tables, reading.task, kept, skip_bad, notes)
    frame = pd.concat(tables, names=["site", "line"]).reset_index()
    for name in ("mask", "fov"):
        if name in frame:
            frame[name] = frame[name].fillna("")  # of sites without any
    frame = with_contents(frame, folder, reading.task, progress)
    if used == "grouped":
        frame = new_split(frame, seed, notes)
    if used == "given":
        frame = with_validation(frame, notes)
    frame = frame[frame["site"].isin(kept) & frame["there"]]
    check_leakage(frame, protocol, data in known_sets(), notes)
    # before any is left out, so that a case has the same number whatever the seed
    for name, of in (("case", "image"), ("patient", "group")):
        frame[name] = frame.groupby("site")[of].transform(lambda values: pd.factorize(values)[0])
    frame = limit_training(frame, train_limit, holdout, seed, notes)
    columns = [c for c in _COLUMNS if c in frame]
    made = tuple(
        Site(name, frame.loc[frame["site"] == name, columns].reset_index(drop=True))
        for name in kept
    )
    held = made[-1] if holdout is not None else None
    training = made[:-1] if held else made
    try:
        notes += check_sites(training, held, reading.classes, reading.task, fewest)
    except DataError as error:
        missing = "; ".join(note for note in notes if "missing and were left out" in note)
        raise DataError(f"{error} ({missing})" if missing else str(error)) from error
    source = {
        "name": data if data in known_sets() else str(at_home(Path(data)).resolve()),
        "root": None if root is None else str(at_home(Path(root)).resolve()),
        "protocol": protocol,
        "split_seed": seed,
        "sites": None if sites is None else [name for name in kept if name != holdout],
        "holdout": holdout,
        "task": reading.task,
        "volumes": form.volumes,
        "neighbours": form.neighbours,
        "window": None if form.window is None else list(form.window),
        "classes": None if classes is None else list(classes),
        "train_limit": train_limit,
        "skip_bad": skip_bad,
    }
    return Federation(
        reading.name,
        reading.classes,
        training,
        used,
        tuple(notes),
        source,
        task=reading.task,
        form=form,
        holdout=held,
    )


def _read(
    data: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    protocol: str | None,
    task: Task,
    classes: Sequence[str] | None,
    cache: Path,
) -> tuple[Reading, str]:
    """Return what the reader found and the protocol to use."""
    if data in known_sets():
        found = known_sets()[str(data)]
        if classes is not None:
            raise SettingsError(f"classes is only for your own data; those of {data} are known")
        _require_protocol(protocol, list(found.protocols), found.name)
        if found.needs_root and root is None:
            raise SettingsError(
                f"{data} needs root (--root DIR), the folder that holds its images; docs/data says "
                "where they come from"
            )
        if not found.needs_root and root is not None:
            raise SettingsError(f"{data} is built in and takes no root")
        used = protocol or found.protocols[0]
        place = at_home(Path(root or cache))
        return found.read(Request(place, used, task, cache)), used
    if root is not None:
        raise SettingsError("root is for data sets with a name; give your own data's path as data")
    _require_protocol(protocol, ["given", "grouped"], "own data")
    path = _own_path(data)
    reading = read_own(path, use_split=protocol != "grouped", only_classes=classes, task=task)
    has_split = all((table["split"] != "").all() for table in reading.tables.values())
    if protocol == "given" and not has_split:
        raise DataError(f"{data} has no column 'split'; add one or use protocol='grouped'")
    return reading, "given" if has_split else "grouped"


def _own_path(data: str | os.PathLike[str]) -> Path:
    path = at_home(Path(data))
    if not path.exists():
        raise SettingsError(
            f"'{data}' is neither a data set ({', '.join(known_sets())}) nor a file or folder"
            f"{nearest(str(data), list(known_sets()))}"
        )
    return path


def _form(
    usual: Form, volumes: str | None, neighbours: bool | None, window: Sequence[float] | None
) -> Form:
    """Return the data set's usual form with what the user wants otherwise."""
    if volumes not in (None, "slices", "patches", "whole"):
        raise SettingsError(f"volumes is {volumes!r}; it must be slices, patches or whole")
    form = usual
    if volumes is not None:
        form = replace(form, volumes=volumes)  # type: ignore[arg-type]
    if neighbours is not None:
        form = replace(form, neighbours=neighbours)
    if window is not None:
        numbers = all(isinstance(end, Real) for end in window)
        if not numbers or len(window) != 2 or not window[0] < window[1]:
            raise SettingsError(f"window is {list(window)}; it must be two numbers, low and high")
        form = replace(form, window=(float(window[0]), float(window[1])))
    return form


def _require_protocol(protocol: str | None, known: list[str], of: str) -> None:
    if protocol is not None and protocol not in known:
        raise SettingsError(
            f"unknown protocol '{protocol}' for {of}{nearest(protocol, known)} "
            f"(one of {', '.join(known)})"
        )


def _kept_sites(found: list[str], wanted: Sequence[str] | None) -> list[str]:
    """Return the wanted sites in the order of the data; all if none are named."""
    if wanted is None:
        return found
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in found:
            close = difflib.get_close_matches(name, found, n=1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise SettingsError(f"unknown site '{name}'{hint} (sites: {', '.join(found)})")
    return [name for name in found if name in names]
