"""What the data readers give: sites, federations and parts that are ready for training."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from counterpoint.errors import DataError, nearest

PARTS = ("train", "validation", "test")

# These classes compare by identity (eq=False): tables and arrays have no single truth value.


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader found, before a split is chosen and checked.

    ``tables`` maps a site's name to its table: one row an image, the index is the line in the
    table's file, columns ``image`` (absolute path), ``label`` (index in ``classes``), ``split``
    (a name of `PARTS`, or an empty text where none is given), ``group`` and, where there are any,
    ``mask`` (absolute path or an empty text).
    """

    name: str
    classes: tuple[str, ...]
    tables: dict[str, pd.DataFrame]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Site:
    """One hospital.

    ``table`` has one row an image: ``image`` (absolute path, text), ``label`` (int, index in
    `Federation.classes`), ``split`` ("train", "validation" or "test"), ``group`` (text; an image
    without a known patient or lesion is its own group), ``content`` (SHA-256 of the file, hex)
    and, where masks are known, ``mask`` (absolute path, or an empty text).
    """

    name: str
    table: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Federation:
    """The sites that train together, with the split that is used and what was done to get it.

    ``protocol`` names how the split came about ("grouped", "published" or "given"); ``notes`` are
    sentences for the user: splits made, rows left out, warnings.
    """

    name: str
    classes: tuple[str, ...]
    sites: tuple[Site, ...]
    protocol: str
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `load` that give this federation again; empty where it was made by hand."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over classes, site names and every row's content, label and split.

        It changes when any of these or the order of rows changes, and not when files move.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for site in self.sites:
            digest.update(json.dumps(site.name).encode())
            columns = (site.table[name].tolist() for name in ("content", "label", "split"))
            digest.update(json.dumps(list(zip(*columns, strict=True))).encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Part:
    """One split of one site, ready for training.

    ``images`` is the whole site, memory-mapped, (n, 3, S, S) uint8 or uint16; ``rows`` (int64)
    are this part's indices in it and ``labels`` (int64, as long as ``rows``) its classes.
    """

    images: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class SiteData:
    """A decoded site: the path of its array, opened only when a part is asked for.

    It is small and can be pickled, so that worker processes get paths and not pixels.
    ``labels`` (int64) and ``splits`` (text) have one entry an image of the array.
    """

    name: str
    array: Path
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]

    def part(self, split: str) -> Part:
        """Return one part of the site; raise DataError for an unknown part or a lost array."""
        if split not in PARTS:
            raise DataError(f"unknown part '{split}'{nearest(split, list(PARTS))} (of {PARTS})")
        try:
            images = np.load(self.array, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(
                f"site '{self.name}': the decoded images in {self.array} can't be read ({error}); "
                "decode the federation again"
            ) from error
        rows = np.flatnonzero(self.splits == split).astype(np.int64)
        return Part(images, rows, self.labels[rows])
