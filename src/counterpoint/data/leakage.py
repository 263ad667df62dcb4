"""Find images of one patient, or the same image, in two parts of a split (pure, on tables)."""

from dataclasses import dataclass

import pandas as pd

_PAIRS = (("test", "train"), ("validation", "train"), ("test", "validation"))
_WORDS = {"group": "share a group (patient or lesion) with", "content": "are the same file as"}


@dataclass(frozen=True)
class Leak:
    """``count`` of the ``total`` images of a site's ``part`` are also known from ``other``.

    ``key`` is "group" or "content"; ``first`` has up to three group ids or image paths.
    """

    site: str
    part: str
    other: str
    key: str
    count: int
    total: int
    first: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"site '{self.site}': {self.count} of {self.total} {self.part} images "
            f"{_WORDS[self.key]} {self.other} images (first: {', '.join(self.first)})"
        )


def find_leaks(rows: pd.DataFrame) -> tuple[Leak, ...]:
    """Return every leak, within and across sites, in the order of sites.

    ``rows`` has the images of all sites, with columns site, split, group, content and image.

    >>> rows = pd.DataFrame({"site": ["x", "x"], "split": ["train", "test"], "group": ["p", "p"],
    ...                      "content": ["1", "2"], "image": ["a.png", "b.png"]})
    >>> print(find_leaks(rows)[0])
    site 'x': 1 of 1 test images share a group (patient or lesion) with train images (first: p)
    """
    leaks = []
    for key in ("group", "content"):
        shown = "group" if key == "group" else "image"
        keys_of = {part: set(table[key]) for part, table in rows.groupby("split")}
        for part, other in _PAIRS:
            of_part = rows[rows["split"] == part]
            shared = of_part[of_part[key].isin(list(keys_of.get(other, ())))]
            for site, table in shared.groupby("site", sort=False):
                total = int((of_part["site"] == site).sum())
                first = tuple(str(value) for value in table[shown].drop_duplicates()[:3])
                leaks.append(Leak(str(site), part, other, key, len(table), total, first))
    order = {site: place for place, site in enumerate(rows["site"].drop_duplicates())}
    return tuple(sorted(leaks, key=lambda leak: order[leak.site]))


def shared_across_sites(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the groups that are at more than one site and in more than one part, sorted."""
    by_group = rows.groupby("group")[["site", "split"]].nunique()
    return tuple(sorted(str(g) for g in by_group.index[(by_group > 1).all(axis=1)]))


def repeated_files(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose file content is in the same part more than once."""
    return rows[rows.duplicated(["split", "content"], keep=False)]


def differently_labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose file content comes with several labels, twins side by side."""
    several = rows.groupby("content")["label"].transform("nunique") > 1
    return rows[several].sort_values("content", kind="stable")
