"""Read the prostate MRI of six sources that Liu Quande put together (SAML), slice by slice."""

import json
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.files import content_hashes, written_whole
from counterpoint.data.shuffled import shuffled_split
from counterpoint.data.site import Form, Reading
from counterpoint.errors import DataError

CLASSES = ("background", "prostate")
SITES = ("BIDMC", "HK", "I2CVB", "ISBI", "ISBI_1.5", "UCL")
ALSO = ("BMC", "RUNMC")
"""The two hospitals of ISBI by their own names, as another copy of the data has them."""
_SEED = 0  # of the protocol "published", which is to be the same for everybody
_MASK = "_segmentation"
_ENDINGS = (".nii", ".nii.gz")

Slices = tuple[int, list[int]]
"""How many slices a volume has, and the numbers of those that show prostate."""


def read(request: Request) -> Reading:
    """Read ``root/<site>/Case00.nii.gz`` with ``Case00_segmentation.nii.gz`` beside it.

    The sites are those of `SITES` and `ALSO` that are there. A row is a slice that shows prostate,
    by its place on the last axis of the volume in RAS+ orientation; the others are left out, as in
    HarmoFL. With the protocol "published" a site's slices are shuffled as HarmoFL does, with a
    seed of our own. Volumes are opened once: what they show is remembered in the cache.

    Raises DataError that says which layout was looked for, or names the file.
    """
    folders = [request.root / s for s in (*SITES, *ALSO) if (request.root / s).is_dir()]
    if not folders:
        raise DataError(
            f"no prostate data in {request.root}; looked for the folders {', '.join(SITES)} in "
            "it, with Case00.nii.gz and Case00_segmentation.nii.gz and so on; give the folder that "
            "holds these as root"
        )
    pairs = {folder.name: _pairs(folder) for folder in folders}
    slices = _slices([pair for found in pairs.values() for pair in found], request.cache)
    tables = {site: _table(site, found, slices) for site, found in pairs.items()}
    if request.protocol == "published":
        for site, table in tables.items():
            split = shuffled_split(len(table), [_SEED, zlib.crc32(site.encode())])
            tables[site] = table.assign(split=split)
    notes = _notes(pairs, slices, request.protocol)
    form = Form(volumes="slices", neighbours=True)
    return Reading("prostate", CLASSES, tables, notes, "segmentation", form)


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return a site's volumes, each with its mask, in the order of their names."""
    found = {
        path.name.lower().removesuffix(".gz").removesuffix(".nii"): path.absolute()
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".")
    }
    if not found:
        raise DataError(
            f"site '{folder.name}': there are no .nii.gz or .nii files in {folder}; put the "
            "site's cases there or remove the folder"
        )
    for name, path in found.items():
        other = name.removesuffix(_MASK) if name.endswith(_MASK) else name + _MASK
        if other not in found:
            what = "volume" if name.endswith(_MASK) else f"mask ({other}.nii.gz)"
            raise DataError(
                f"site '{folder.name}': {path} has no {what} beside it; get that file too, or "
                "remove this one"
            )
    return [(path, found[name + _MASK]) for name, path in found.items() if name + _MASK in found]


def _slices(pairs: list[tuple[Path, Path]], cache: Path) -> dict[Path, Slices]:
    """Return the slices of every volume, by its path; from the cache where they are known."""
    index = cache / "prostate-slices.json"
    try:
        known: dict[str, Slices] = dict(json.loads(index.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}  # it only saves time
    contents = content_hashes([str(path) for pair in pairs for path in pair], cache)
    keys = {pair: "+".join(contents[str(path)] for path in pair) for pair in pairs}
    new = [pair for pair in pairs if keys[pair] not in known]
    if new:
        with ThreadPoolExecutor() as pool:
            found = pool.map(lambda pair: _look(*pair), new)
            known |= {keys[pair]: slices for pair, slices in zip(new, found, strict=True)}
        with written_whole(index) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")
    return {pair[0]: known[keys[pair]] for pair in pairs}


def _look(image: Path, mask: Path) -> Slices:
    """Return the slices of a volume from its mask; raise DataError if the two do not fit."""
    import nibabel  # only here: no other data set needs it

    nib: Any = nibabel  # half of it has no types
    path = image
    try:
        volume = nib.load(image)
        path = mask
        target = nib.load(mask)
        shapes = [one.shape for one in (volume, target)]
        axes = ["".join(map(str, nib.aff2axcodes(one.affine))) for one in (volume, target)]
        values = np.asanyarray(nib.as_closest_canonical(target).dataobj)
    except Exception as error:  # nibabel and gzip raise many kinds for broken files
        raise DataError(f"{path} can't be read as NIfTI ({error}); get it again") from error
    if shapes[0] != shapes[1] or axes[0] != axes[1] or len(shapes[0]) != 3:
        raise DataError(
            f"{image} is {shapes[0]} voxels, axes {axes[0]}, and {mask} is {shapes[1]}, axes "
            f"{axes[1]}; both must be volumes of one size and orientation (save the mask with the "
            "header of its image)"
        )
    return values.shape[2], np.flatnonzero((values > 0).any(axis=(0, 1))).tolist()


def _table(site: str, pairs: list[tuple[Path, Path]], slices: dict[Path, Slices]) -> pd.DataFrame:
    """Return a site's rows, one a slice that shows prostate."""
    rows = [
        (str(image), str(mask), f"{site}/{image.name.split('.')[0]}", frame)
        for image, mask in pairs
        for frame in slices[image][1]
    ]
    table = pd.DataFrame(rows, columns=["image", "mask", "group", "frame"])
    return table.assign(label=0, split="")


def _notes(
    pairs: dict[str, list[tuple[Path, Path]]], slices: dict[Path, Slices], protocol: str
) -> tuple[str, ...]:
    counts = []
    for site, found in pairs.items():
        shown = sum(len(slices[image][1]) for image, _ in found)
        counts.append(f"{site} {shown} of {sum(slices[image][0] for image, _ in found)}")
    notes = [f"only slices that show prostate are used: {', '.join(counts)}"]
    others = SITES if not set(ALSO) & set(pairs) else [s for s in SITES if "ISBI" not in s]
    missing = [site for site in others if site not in pairs]
    if missing:
        notes.append(f"there are no folders for the sites {', '.join(missing)}")
    if protocol == "published":
        notes.append(
            f"every site's slices were shuffled (seed {_SEED}): 64 % training, 16 % validation and "
            "20 % test, with patients in several parts; HarmoFL splits like this, in another order"
        )
    return tuple(notes)


DATASET = DataSet(
    name="prostate",
    summary="T2-weighted prostate MRI of six sources, outlined, as in HarmoFL",
    read=read,
    protocols=("grouped", "published"),
    tasks=("segmentation",),
)
