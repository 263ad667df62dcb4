"""Files that can't be decoded: which rows they are, what is said of them, and remembering them."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from counterpoint.data.files import written_whole
from counterpoint.data.rules import check_sites
from counterpoint.data.site import Federation, Form, Site

Bad = dict[str, tuple[str, str]]
"""What is wrong with the rows of a key: the column of the file that is meant, and why."""

FORMAT = "5"
"""Part of the names of all that is kept: raise it when pixels come out differently."""


def image_keys(table: pd.DataFrame) -> list[str]:
    """Return what each row's image depends on."""
    return [str(content) for content in table["content"]]


def target_keys(table: pd.DataFrame, federation: Federation) -> list[str]:
    """Return what each row's mask depends on; its image's size is checked, too."""
    pairs = zip(table["content"], table["target"], strict=True)
    return [f"{content}/{target}/{len(federation.classes)}" for content, target in pairs]


def _faults(table: pd.DataFrame, federation: Federation, bad: Bad) -> list[tuple[str, str] | None]:
    """Return what is wrong with each row, or None."""
    faults = [bad.get(key) for key in image_keys(table)]
    if federation.task != "segmentation":
        return faults
    targets = target_keys(table, federation)
    return [fault or bad.get(key) for fault, key in zip(faults, targets, strict=True)]


def describe(federation: Federation, bad: Bad) -> list[str]:
    """Return a sentence a site on its bad files: how many, and the first three with reasons."""
    sentences = []
    for site in federation.everyone:
        faults = _faults(site.table, federation, bad)
        texts = []
        for (_, row), fault in zip(site.table.iterrows(), faults, strict=True):
            if fault:
                column, why = fault
                whose = "" if column == "image" else f" of {row['image']}"
                texts.append(f"{row[column]}{whose} ({why})")
        if texts:
            masks = " or masks" if federation.task == "segmentation" else ""
            sentences.append(
                f"site '{site.name}': {len(texts)} of {len(site.table)} images{masks} can't be "
                f"decoded, first: {', '.join(list(dict.fromkeys(texts))[:3])}"
            )
    return sentences


def without(federation: Federation, bad: Bad) -> Federation:
    """Return the federation without the bad files, with notes, after checking its sites again."""
    left_out = [f"{text}; left out" for text in describe(federation, bad)]
    if not left_out:
        return federation
    everyone = []
    for site in federation.everyone:
        good = [fault is None for fault in _faults(site.table, federation, bad)]
        everyone.append(Site(site.name, site.table[good].reset_index(drop=True)))
    notes = [*federation.notes, *left_out]
    held = everyone.pop() if federation.holdout else None
    found = check_sites(everyone, held, federation.classes, federation.task, fewest=1)
    notes += [note for note in found if note not in notes]
    return replace(federation, sites=tuple(everyone), holdout=held, notes=tuple(notes))


def _bad_index(folder: Path, form: Form) -> Path:
    """Return the list of bad contents; its name has the versions of those who can't read them.

    And the form: a window in a file's header that can't be used does not matter beside another.
    """
    found = []
    for reader in ("pillow", "nibabel", "pydicom", "python-gdcm", "imagecodecs"):
        with suppress(PackageNotFoundError):
            found.append(version(reader))
    mark = hashlib.sha256(json.dumps(asdict(form)).encode()).hexdigest()[:8]
    return folder / f"unreadable-{FORMAT}-{'-'.join(found)}-{mark}.json"


def remembered(folder: Path, form: Form) -> Bad:
    """Return what was found to be bad before: without it every start would decode in vain."""
    try:
        found = json.loads(_bad_index(folder, form).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    whole = {key: fault for key, fault in found.items() if isinstance(fault, list)}
    return {key: (str(fault[0]), str(fault[1])) for key, fault in whole.items() if len(fault) == 2}


def remember(folder: Path, form: Form, bad: Bad) -> None:
    """Add to what is known to be bad; raises DataError if the folder can't be written."""
    with written_whole(_bad_index(folder, form)) as temporary:
        temporary.write_text(json.dumps(remembered(folder, form) | bad), encoding="utf-8")
