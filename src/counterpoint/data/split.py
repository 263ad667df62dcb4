"""Make a split that keeps every group together and every class in proportion (pure)."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from counterpoint.data.site import PARTS

Stratum = tuple[str, int]


def grouped_split(
    groups: Sequence[str],
    labels: Sequence[int],
    sites: Sequence[str],
    fractions: Mapping[str, Sequence[float]],
    seed: int,
) -> npt.NDArray[np.str_]:
    """Return the part ("train", "validation" or "test") of every row.

    ``groups``, ``labels`` and ``sites`` have one entry a row; ``fractions`` gives each site its
    (train, validation, test) fractions, which add up to 1. No group is in two parts, not even
    across sites. Every class of a site keeps the site's fractions as nearly as groups allow and is
    in all three parts if it has three groups of its own. Where several parts have room for a group,
    chance places it by how much each of them misses, so that large groups are in all parts. The
    result depends on the seed and on which rows there are, not on their order.

    >>> grouped_split(list("aabc"), [0, 0, 0, 0], ["x"] * 4, {"x": (0.5, 0.25, 0.25)}, seed=1)
    array(['train', 'train', 'validation', 'test'], dtype='<U10')
    """
    members: dict[str, Counter[Stratum]] = {}
    for group, label, site in zip(groups, labels, sites, strict=True):
        members.setdefault(group, Counter())[(site, int(label))] += 1
    size = Counter[Stratum]()
    groups_left = Counter[Stratum]()
    for strata in members.values():
        size.update(strata)
        groups_left.update(strata.keys())
    missing = {s: [share * n for share in fractions[s[0]]] for s, n in size.items()}
    empty = {s: {p for p in range(3) if fractions[s[0]][p] > 0} for s in size}

    chosen: dict[str, int] = {}
    draws = np.random.default_rng([seed, 1]).random(len(members))
    for group, draw in zip(_order(members, seed), draws, strict=True):
        strata = members[group]
        # A stratum is urgent when its remaining groups are only just enough for its empty parts.
        urgent = [s for s in strata if groups_left[s] <= len(empty[s])]
        wanted = [sum(n * missing[s][p] for s, n in sorted(strata.items())) for p in range(3)]
        room = [all(n <= missing[s][p] + 1e-9 for s, n in strata.items()) for p in range(3)]
        if any(room) and not urgent:
            shares = np.cumsum([max(0.0, w) * r for w, r in zip(wanted, room, strict=True)])
            part = int(np.searchsorted(shares, draw * shares[-1], side="right"))
        else:
            part = max(range(3), key=lambda p: (sum(p in empty[s] for s in urgent), wanted[p], -p))
        chosen[group] = part
        for stratum, n in strata.items():
            missing[stratum][part] -= n
            groups_left[stratum] -= 1
            empty[stratum].discard(part)
    return np.array([PARTS[chosen[group]] for group in groups], dtype="<U10")


def _order(members: Mapping[str, Counter[Stratum]], seed: int) -> list[str]:
    """Return the groups in seeded random order, those that are hardest to place first."""
    names = sorted(members)
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    return sorted(shuffled, key=lambda g: (-len(members[g]), -members[g].total()))


def limit_rows(labels: Sequence[int], limit: int, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return at most ``limit`` indices (sorted) of ``labels``, in proportion to the classes.

    Every class that is present keeps at least one row, so ``limit`` must be at least their number
    (ValueError). The choice depends on ``seed`` (a list of non-negative ints) alone.

    >>> limit_rows([0, 0, 0, 0, 1], 3, [7]).tolist()[-1]
    4
    """
    values = np.asarray(labels)
    if len(values) <= limit:
        return np.arange(len(values), dtype=np.int64)
    classes, counts = np.unique(values, return_counts=True)
    if limit < len(classes):
        raise ValueError(f"{len(classes)} classes do not fit in {limit} images")
    rng = np.random.default_rng(list(seed))
    keep = np.ones(len(classes), dtype=np.int64)
    while keep.sum() < limit:  # the class that is furthest below its share gets the next place
        keep[np.argmax(np.where(keep < counts, counts * limit / len(values) - keep, -np.inf))] += 1
    chosen = [rng.permutation(np.flatnonzero(values == c))[:k] for c, k in zip(classes, keep)]  # noqa: B905
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def merge_groups(groups: Sequence[str], keys: Sequence[Hashable]) -> list[str]:
    """Return the groups after joining all that share a key; a joined one has its first name.

    >>> merge_groups(["b", "a", "c", "d"], [1, 1, 2, 3])
    ['a', 'a', 'c', 'd']
    """
    parent: dict[str, str] = {group: group for group in groups}

    def top(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    first: dict[Hashable, str] = {}
    for group, key in zip(groups, keys, strict=True):
        one, two = sorted((top(group), top(first.setdefault(key, group))))
        parent[two] = one
    return [top(group) for group in groups]
