"""Load a federation by name or path: read it, split it, and check it."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd

from counterpoint.data.dermoscopy import read_dermoscopy
from counterpoint.data.files import cache_folder, content_hashes
from counterpoint.data.own import read_own
from counterpoint.data.phantom import phantom_folder
from counterpoint.data.prepare import check_leakage, existing_rows, limit_training, new_split
from counterpoint.data.rules import check_sites
from counterpoint.data.site import Federation, Reading, Site
from counterpoint.errors import DataError, SettingsError, nearest

_DATASETS = {
    "dermoscopy": "skin lesions of four sources, the published benchmark of PRR-FL (needs root)",
    "phantom": "made-up skin lesions of four sites, built in and made on first use",
}


def datasets() -> dict[str, str]:
    """Return the names that `load` knows, each with a sentence about the data.

    >>> list(datasets())
    ['dermoscopy', 'phantom']
    """
    return dict(_DATASETS)


def load(
    data: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    *,
    protocol: str | None = None,
    seed: int = 1,
    sites: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    train_limit: int | Literal["smallest"] | None = None,
    skip_bad: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> Federation:
    """Return the federation of a named data set ("dermoscopy", "phantom") or of a CSV or folder.

    ``root`` is the folder of the dermoscopy data. ``protocol`` chooses the split: "grouped" makes
    one with ``seed`` that keeps every patient or lesion in one part; "published" (dermoscopy) and
    "given" (own data) take the split as it is. ``sites`` keeps only these sites (the split is made
    before, so it does not depend on them). ``classes`` names the classes of your own data, in
    order: another label is refused then, where otherwise it would be a class more.
    ``train_limit`` cuts every site's training part to so many images or to that of the smallest
    site. ``skip_bad`` leaves out missing files. ``cache`` is the folder for the phantom and the
    index of file contents.

    Raises SettingsError for an unknown name or option and DataError for data that can't be used:
    missing files, bad tables, sites that are too small, or a split that puts images of one
    patient, or the same image, in two parts (unless its protocol was asked for by name).
    """
    folder = cache_folder(cache)
    reading, used = _read(data, root, protocol, classes, folder)
    kept = _kept_sites(list(reading.tables), sites)
    notes = list(reading.notes)
    tables = existing_rows(reading.tables, kept, skip_bad, notes)
    frame = pd.concat(tables, names=["site", "line"]).reset_index()
    frame["content"] = frame["image"].map(content_hashes(frame["image"].tolist(), folder))
    if "mask" in frame:
        frame["mask"] = frame["mask"].fillna("")  # of sites without any masks
    if used == "grouped":
        frame = new_split(frame, seed, notes)
    frame = frame[frame["site"].isin(kept)]
    check_leakage(frame, protocol, data == "dermoscopy", notes)
    frame = limit_training(frame, train_limit, seed, notes)
    columns = [c for c in ("image", "label", "split", "group", "content", "mask") if c in frame]
    made = tuple(
        Site(name, frame.loc[frame["site"] == name, columns].reset_index(drop=True))
        for name in kept
    )
    notes += check_sites(made, reading.classes)
    source = {
        "name": data if data in _DATASETS else str(Path(data).expanduser().resolve()),
        "root": None if root is None else str(Path(root).expanduser().resolve()),
        "protocol": protocol,
        "split_seed": seed,
        "sites": None if sites is None else kept,
        "classes": None if classes is None else list(classes),
        "train_limit": train_limit,
        "skip_bad": skip_bad,
    }
    return Federation(reading.name, reading.classes, made, used, tuple(notes), source)


def _read(
    data: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    protocol: str | None,
    classes: Sequence[str] | None,
    cache: Path,
) -> tuple[Reading, str]:
    """Return what the reader found and the protocol to use."""
    if classes is not None and data in _DATASETS:
        raise SettingsError(f"classes is only for your own data; those of {data} are known")
    if root is not None and data != "dermoscopy":
        raise SettingsError("root is only for data='dermoscopy'; give your own data's path as data")
    if data == "dermoscopy":
        _require_protocol(protocol, ["grouped", "published"], "dermoscopy")
        if root is None:
            raise SettingsError("dermoscopy needs root, the folder that holds its images")
        return read_dermoscopy(Path(root).expanduser()), protocol or "grouped"
    if data == "phantom":
        _require_protocol(protocol, ["grouped"], "phantom")
        return replace(read_own(phantom_folder(cache)), name="phantom"), "grouped"
    _require_protocol(protocol, ["given", "grouped"], "own data")
    path = Path(data).expanduser()
    if not path.exists():
        names = ", ".join(_DATASETS)
        raise SettingsError(
            f"'{data}' is neither a data set ({names}) nor a file or folder"
            f"{nearest(str(data), list(_DATASETS))}"
        )
    reading = read_own(path, use_split=protocol != "grouped", only_classes=classes)
    has_split = all((table["split"] != "").all() for table in reading.tables.values())
    if protocol == "given" and not has_split:
        raise DataError(f"{data} has no column 'split'; add one or use protocol='grouped'")
    return reading, "given" if has_split else "grouped"


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
