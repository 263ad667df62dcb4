"""The steps from what a reader found to rows that can be trained on; each says what it did.

``frame`` is everywhere one table with the images of all sites, with a column site.
"""

import os
import zlib
from pathlib import Path
from typing import Literal

import pandas as pd

from counterpoint.data.files import Progress, content_hashes
from counterpoint.data.leakage import (
    differently_labelled,
    find_leaks,
    repeated_files,
    shared_across_sites,
)
from counterpoint.data.site import PARTS
from counterpoint.data.split import grouped_split, limit_rows, merge_groups
from counterpoint.data.validation import complete_split
from counterpoint.errors import DataError, LeakageError, SettingsError

_FRACTIONS = (0.7, 0.1, 0.2)


def _readable(path: str) -> bool:
    """Whether there is such a file, or folder (a DICOM series), that may be read."""
    return os.access(path, os.R_OK)


def with_presence(
    tables: dict[str, pd.DataFrame], task: str, kept: list[str], skip_bad: bool, notes: list[str]
) -> dict[str, pd.DataFrame]:
    """Return the rows with a column ``there``: whether the files that the task needs can be read.

    Files that can't raise DataError unless they may be skipped. Sites that are not kept only help
    to make the split, so that theirs may be missing; a split is made of all rows, so that it does
    not depend on what is on this disk.
    """
    result = {}
    targets = ("mask", "fov") if task == "segmentation" else ()
    for site, table in tables.items():
        there = table["image"].map(_readable)
        for name in targets:
            if name in table:
                there &= table[name].fillna("").map(lambda path: path == "" or _readable(path))
        result[site] = table.assign(there=there.astype(bool))
        lost = table[~there]
        if lost.empty or site not in kept:
            continue
        first = []
        for line, row in lost.head(3).iterrows():
            paths = [row[n] for n in ("image", *targets) if row.get(n)]
            path = next(path for path in paths if not _readable(path))
            why = "" if not os.path.exists(path) else ", which may not be read"
            first.append(f"{path} (line {line}{why})")
        text = f"site '{site}': {len(lost)} of {len(table)} images or masks are missing"
        slash = "; write / where there is \\" if os.sep == "/" and "\\" in first[0] else ""
        if not skip_bad:
            raise DataError(
                f"{text}, first: {', '.join(first)}; correct the paths, which are relative to the "
                f"table's folder{slash}, or leave such rows out with skip_bad=True (--skip-bad)"
            )
        notes.append(f"{text} and were left out, first: {', '.join(first)}")
    return result


def with_contents(frame: pd.DataFrame, cache: Path, task: str, progress: Progress) -> pd.DataFrame:
    """Return the rows with the SHA-256 (hex) of each image and, for segmentation, of its target.

    ``file`` is that of the image's file; slices of one file differ in their frame, and so does
    their ``content``. Rows whose files are not there have marks of their own.
    """
    columns = ["image", *(c for c in ("mask", "fov") if task == "segmentation" and c in frame)]
    there = frame[frame["there"]]
    paths = {path for column in columns for path in there[column] if path}
    known = {"": "", **content_hashes(sorted(paths), cache, progress)}
    marks = [known.get(path, f"missing {path}") for path in frame["image"]]
    content = frame.assign(file=marks)["file"]
    frame = frame.assign(file=content)
    if "frame" in frame:
        frame = frame.assign(frame=frame["frame"].fillna(-1).astype("int64"))
        numbers = frame["frame"].map(lambda number: "" if number < 0 else f":{number}")
        content = content + numbers
    frame = frame.assign(content=content)
    if len(columns) > 1:
        parts = zip(*([known.get(p, "") for p in frame[c]] for c in columns[1:]), strict=True)
        frame = frame.assign(target=["+".join(part) for part in parts])
    return frame


def require_contents(table: pd.DataFrame, cache: Path) -> None:
    """Raise DataError if a file of a site's table is no longer what `with_contents` found."""
    columns = ["image", *(c for c in ("mask", "fov") if "target" in table and c in table)]
    paths = {path for column in columns for path in table[column] if path}
    known = {"": "", **content_hashes(sorted(paths), cache)}
    for _, row in table.iterrows():
        same = known[row["image"]] == row["content"].partition(":")[0]
        if same and "target" in table:
            same = "+".join(known[row[column]] for column in columns[1:]) == row["target"]
        if not same:
            raise DataError(
                f"{row['image']}, or its mask, has changed since it was looked at; run the same "
                "command again when files no longer change"
            )


def new_split(frame: pd.DataFrame, seed: int, notes: list[str]) -> pd.DataFrame:
    """Return the rows with a new split that keeps groups and equal files together.

    Every site's fractions are those of the split it has, or 70, 10 and 20 %.
    """
    fractions = {}
    for site, table in frame.groupby("site", sort=False):
        counts = [float((table["split"] == part).sum()) for part in PARTS]
        total = sum(counts)
        fractions[str(site)] = [n / total for n in counts] if total else list(_FRACTIONS)
    if (frame["split"] != "").any():
        notes.append("the split that came with the data is not used")
    # Of the groups that the tables name; only then do equal files move to one part, so that a file
    # that is not on this machine changes nothing for others.
    named = frame["group"].tolist()
    parts = grouped_split(named, frame["label"].tolist(), frame["site"].tolist(), fractions, seed)
    part_of = dict(zip(named, parts, strict=True))
    groups = merge_groups(named, frame["file"].tolist())
    notes.append(
        f"a split was made with seed {seed}: about 70 % training, 10 % validation and 20 % test "
        "images a site, in proportion to the classes, with no known patient or lesion in two parts"
    )
    return frame.assign(group=groups, split=[part_of[group] for group in groups])


def with_validation(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Return the rows with a validation part, from the training images of sites that have none.

    Groups and equal files stay together.
    """
    parts = frame.groupby("site", sort=False)["split"].agg(set)
    if all("validation" in of for of in parts):
        return frame
    groups = merge_groups(frame["group"].tolist(), frame["file"].tolist())
    together = frame.assign(group=groups).drop(columns=["site", "line"])
    tables = {str(site): together[frame["site"] == site] for site in parts.index}
    done, said = complete_split(tables)
    notes += said
    return frame.assign(split=pd.concat(done.values())["split"])


def check_leakage(
    frame: pd.DataFrame, protocol: str | None, published: bool, notes: list[str]
) -> None:
    """Add notes on leakage, or raise LeakageError if it was not accepted by naming the protocol."""
    leaks = find_leaks(frame.assign(content=frame["file"]))
    repeated = repeated_files(frame)
    if len(repeated):
        first = ", ".join(repeated["image"][:3])
        notes.append(f"{len(repeated)} images have a twin of equal content in their part: {first}")
    torn = differently_labelled(frame)
    if len(torn):
        first = ", ".join(torn["image"][:2])
        notes.append(f"{len(torn)} images have a twin of equal content with another label: {first}")
    if not leaks:
        return
    text = "the split leaks: " + "; ".join(map(str, leaks))
    shared = shared_across_sites(frame)
    if shared:
        text += f"; {len(shared)} groups are split across sites (first: {', '.join(shared[:3])})"
    if shared and not published:
        text += "; if such ids mean different patients, put the site's name in front of them"
    if protocol is not None:
        notes.append(f"{text}; scores on it are too good")
        return
    as_it_is = "published" if published else "given"
    raise LeakageError(
        f"{text}. protocol='grouped' (--protocol grouped) makes a clean split; "
        f"protocol='{as_it_is}' (--protocol {as_it_is}) accepts this one as it is"
    )


def limit_training(
    frame: pd.DataFrame,
    limit: int | Literal["smallest"] | None,
    holdout: str | None,
    seed: int,
    notes: list[str],
) -> pd.DataFrame:
    """Return the rows with the training part of every site that trains cut to ``limit`` images."""
    if limit is None:
        return frame
    rows = frame[(frame["split"] == "train") & (frame["site"] != holdout)]
    rows = rows.sort_values(["content", "group"], kind="stable")  # whatever the order of a table
    training = {str(site): table for site, table in rows.groupby("site", sort=False)}
    if limit == "smallest":
        most = max(2, min((len(table) for table in training.values()), default=2))
    elif isinstance(limit, int) and not isinstance(limit, bool) and limit >= 2:
        most = limit
    else:
        raise SettingsError(f"train_limit is {limit!r}; it must be 2 or more, or 'smallest'")
    dropped: list[object] = []
    for site, table in training.items():
        try:
            # The site's name is part of the seed: its choice does not depend on other sites.
            keep = limit_rows(table["label"].tolist(), most, [seed, zlib.crc32(site.encode())])
        except ValueError as error:
            raise SettingsError(
                f"train_limit {most} is too small for site '{site}': {error}"
            ) from error
        dropped += table.index.delete(keep.tolist()).tolist()
        notes.append(f"site '{site}': {len(keep)} of {len(table)} training images are used")
    return frame.drop(index=dropped)
