"""What every site must have before training can start."""

from collections.abc import Sequence

from counterpoint.data.site import PARTS, Site
from counterpoint.errors import DataError

RESERVED = ("mean", "worst site")
"""Names of rows and columns that stand beside those of sites."""


def check_sites(
    training: Sequence[Site],
    held: Site | None,
    classes: Sequence[str],
    task: str = "classification",
    fewest: int = 2,
) -> list[str]:
    """Return notes about classes that a site's training part lacks (classification).

    Raises DataError, which names the site, for fewer sites to train than ``fewest``, names that
    differ in case only or are `RESERVED`, an empty site, an empty part, fewer than two training
    images, or a training part with a single class. A site that is held out needs test images only.
    """
    if held and len(training) < fewest:
        raise DataError(
            f"with '{held.name}' held out there are fewer than two sites to train; add sites, or "
            "leave holdout away"
        )
    sites = [*training, held] if held else training
    if len(sites) < fewest:
        found = f"only one ('{sites[0].name}')" if sites else "none"
        raise DataError(
            f"a federation needs two or more sites and there is {found}; add a second site (even "
            "training that shares nothing is judged on the other sites)"
        )
    folded = [site.name.casefold() for site in sites]
    for name in RESERVED:
        if name in folded:
            raise DataError(
                f"a site is called '{sites[folded.index(name)].name}', and so is something else in "
                "tables of results; give it another name"
            )
    for place, site in enumerate(sites):
        if folded.index(folded[place]) < place:
            twin = sites[folded.index(folded[place])].name
            raise DataError(
                f"sites '{twin}' and '{site.name}' differ only in upper and lower case; give them "
                "one name if they are one hospital, or two that differ"
            )
    if held:
        _check_parts(held, (("test", 1),))
    return [note for site in training for note in _check_site(site, classes, task)]


def _check_parts(site: Site, needed: Sequence[tuple[str, int]]) -> dict[str, int]:
    """Return how many images a site's parts have, or raise DataError if they are too few."""
    if site.table.empty:
        raise DataError(f"site '{site.name}' has no images; add some or leave the site out")
    counts = {part: int((site.table["split"] == part).sum()) for part in PARTS}
    found = ", ".join(f"{n} {part}" for part, n in counts.items())
    found += f", in {site.table['group'].nunique()} group(s)" if "group" in site.table else ""
    for part, least in needed:
        if counts[part] < least:
            raise DataError(
                f"site '{site.name}' has too few {part} images ({found}; needed: at least "
                f"{least} {part}); add images or groups, change its split, or leave the site out"
            )
    return counts


def _check_site(site: Site, classes: Sequence[str], task: str) -> list[str]:
    """Return a site's notes, or raise DataError if it can't be trained on."""
    counts = _check_parts(site, (("train", 2), ("validation", 1), ("test", 1)))
    if task == "segmentation":
        return []
    present = set(site.table.loc[site.table["split"] == "train", "label"])
    if len(present) == 1:
        raise DataError(
            f"site '{site.name}': all {counts['train']} training images are of class "
            f"'{classes[present.pop()]}'; add images of another class or leave the site out"
        )
    return [
        f"site '{site.name}' has no training image of class '{name}'"
        for index, name in enumerate(classes)
        if index not in present
    ]
