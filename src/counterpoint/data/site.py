"""What the data readers give: sites, federations and parts that are ready for training."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from counterpoint.errors import DataError, nearest
from counterpoint.extents import Extents

PARTS = ("train", "validation", "test")

# These classes compare by identity (eq=False): tables and arrays have no single truth value.


Task = Literal["classification", "segmentation"]
IGNORED = 255
"""Value of a mask's pixel that is neither learnt nor scored, outside a field of view."""


@dataclass(frozen=True)
class Form:
    """In which form files with many slices (NIfTI, DICOM series) reach the networks.

    ``volumes``: "slices" (2-D images, 3 channels), "patches" (cubes of the image size, 1 channel)
    or "whole" (every volume resized to one cube, 1 channel). ``neighbours`` gives a slice the one
    before and the one after as first and last channel, instead of itself three times. ``window``
    is the range of the file's own units (after its rescale slope) that becomes 0 to 1; where left
    out, a DICOM file's own window, else 0 (or the smallest value, if below) to the 99th percentile
    of the volume. Photographs are always 2-D with 3 channels.
    """

    volumes: Literal["slices", "patches", "whole"] = "slices"
    neighbours: bool = False
    window: tuple[float, float] | None = None

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return 3 if self.volumes == "slices" else 1

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return 2 if self.volumes == "slices" else 3


@dataclass(frozen=True, eq=False)
class Reading:
    """What a reader found, before a split is chosen and checked.

    ``tables`` maps a site's name to its table: one row a file (or a slice of one), the index is
    the line in the table's file (or any number), with the columns

    - ``image``: absolute path of an image, a NIfTI or DICOM file, or a folder with a DICOM series;
    - ``label``: index in ``classes``; for segmentation an index by which splits are kept in
      proportion, such as the disease, or 0;
    - ``split``: a name of `PARTS`, or an empty text where none is given;
    - ``group``: the patient or lesion; ``image:...`` where it is not known;
    - ``mask``: absolute path, where there are any (needed in every row for segmentation);
    - ``fov``: absolute path of a mask outside which nothing is learnt or scored, or an empty text
      (may be left out);
    - ``frame``: which slice of the file, from 0; -1 (or no such column) for all of it.

    For segmentation ``classes`` are the names of the masks' values 0, 1, ..., the background
    first. With two classes everything that is not background is the second.
    """

    name: str
    classes: tuple[str, ...]
    tables: dict[str, pd.DataFrame]
    notes: tuple[str, ...] = ()
    task: Task = "classification"
    form: Form = Form()


@dataclass(frozen=True, eq=False)
class Site:
    """One hospital.

    ``table`` has one row a file (or slice): ``image`` (absolute path, text), ``label`` (int, index
    in `Federation.classes`), ``split`` ("train", "validation" or "test"), ``group`` (text; an
    image without a known patient or lesion is its own group), ``content`` (SHA-256 of the file,
    hex) and, where they are known, ``mask`` and ``fov`` (absolute paths, or empty texts),
    ``target`` (SHA-256 over both, hex) and ``frame`` (int). ``case`` and ``patient`` (int) number
    the files and groups of the site, whichever of them a split or a limit leaves in.
    """

    name: str
    table: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Federation:
    """The sites that train together, with the split that is used and what was done to get it.

    ``protocol`` names how the split came about ("grouped", "published" or "given"); ``notes`` are
    sentences for the user: splits made, rows left out, warnings. ``holdout`` is a site that does
    not train and is only scored.
    """

    name: str
    classes: tuple[str, ...]
    sites: tuple[Site, ...]
    protocol: str
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `load` that give this federation again; empty where it was made by hand."""
    task: Task = "classification"
    form: Form = Form()
    holdout: Site | None = None

    @property
    def everyone(self) -> tuple[Site, ...]:
        """All sites, that which is held out last."""
        return (*self.sites, self.holdout) if self.holdout else self.sites

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over classes, site names and every row's content, label and split.

        It changes when any of these or the order of rows changes, and not when files move.
        """
        digest = hashlib.sha256(json.dumps([self.task, self.classes]).encode())
        for site in self.everyone:
            digest.update(json.dumps(site.name).encode())
            digest.update(_said_in_full(site))
        return digest.hexdigest()

    @property
    def site_fingerprints(self) -> dict[str, str]:
        """SHA-256 (hex) over every row's content, label and split, for each site."""
        return {s.name: hashlib.sha256(_said_in_full(s)).hexdigest() for s in self.everyone}


def _said_in_full(site: Site) -> bytes:
    """Content, label, split, mask and frame of a site's rows."""
    known = ("content", "label", "split", "target", "frame")
    columns = (site.table[name].tolist() for name in known if name in site.table)
    return json.dumps(list(zip(*columns, strict=True))).encode()


@dataclass(frozen=True, eq=False)
class Part:
    """One split of one site, ready for training.

    ``images`` is the whole site, memory-mapped, (n, C, S, S) or (n, 1, S, S, S), uint8 or uint16.
    ``rows`` (int64) are this part's indices in it, ``labels`` (int64) its classes and ``cases``
    (int64) say which of them are slices or patches of one file; both are as long as ``rows``.
    ``targets``, for segmentation, is the whole site's masks, (n, S, S) or (n, S, S, S) uint8,
    values as in `Reading.classes` or `IGNORED`.
    """

    images: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    cases: npt.NDArray[np.int64]
    targets: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class SiteData:
    """A decoded site: the paths of its arrays, opened only when a part is asked for.

    It is small and can be pickled, so that worker processes get paths and not pixels.
    ``labels`` (int64), ``splits`` (text), ``cases`` (int64, see `Part`) and ``groups`` (int64,
    equal for images of one patient) have one entry an image of the array; ``targets`` is the path
    of the masks, for segmentation, and ``sizes`` that of places and spacings (n, 2, 3), see
    `Extents`, if any is known.
    """

    name: str
    array: Path
    labels: npt.NDArray[np.int64]
    splits: npt.NDArray[np.str_]
    cases: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    targets: Path | None = None
    sizes: Path | None = None

    def part(self, split: str) -> Part:
        """Return one part of the site; raise DataError for an unknown part or a lost array."""
        if split not in PARTS:
            raise DataError(f"unknown part '{split}'{nearest(split, list(PARTS))} (of {PARTS})")
        images = self._loaded(self.array)
        targets = None if self.targets is None else self._loaded(self.targets)
        rows = np.flatnonzero(self.splits == split).astype(np.int64)
        return Part(images, rows, self.labels[rows], self.cases[rows], targets)

    def extents(self, split: str) -> Extents:
        """Return how large the images of a part are, and which of them are pieces of one volume.

        Their numbers are those of the whole site. Raises DataError for a lost array.
        """
        if self.sizes is None:
            return Extents.unknown(len(self.labels))
        places, spacing = self._loaded(self.sizes).swapaxes(0, 1)
        return Extents.of(places.astype(np.int64), spacing, self.cases, self.splits == split)

    def _loaded(self, path: Path) -> npt.NDArray[Any]:
        """Open an array that decoding left."""
        try:
            found: npt.NDArray[Any] = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise DataError(
                f"site '{self.name}': the decoded images in {path} can't be read ({error}); "
                "decode the federation again"
            ) from error
        return found
