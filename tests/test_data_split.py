import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoint.data.split import grouped_split, limit_rows, merge_groups

ROWS = st.lists(
    st.tuples(st.integers(0, 25).map(str), st.integers(0, 2), st.sampled_from(["x", "y"])),
    min_size=1,
    max_size=80,
)
FRACTIONS = {"x": (0.7, 0.1, 0.2), "y": (0.5, 0.25, 0.25)}


def split(rows, seed=1):
    groups, labels, sites = zip(*rows, strict=True)
    return grouped_split(groups, labels, sites, FRACTIONS, seed)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 5))
def test_every_row_has_a_part_and_every_group_one(rows, seed):
    parts = split(rows, seed)
    assert len(parts) == len(rows)
    assert set(parts) <= {"train", "validation", "test"}
    by_group = pd.DataFrame({"group": [r[0] for r in rows], "part": parts}).groupby("group")
    assert (by_group["part"].nunique() == 1).all()
    assert (split(rows, seed) == parts).all()


@settings(max_examples=30, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    assert (split([rows[i] for i in order]) == split(rows)[order]).all()


def test_other_seed_other_split():
    rows = [(str(i), i % 3, "x") for i in range(60)]
    assert (split(rows, 1) != split(rows, 2)).any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=30))
def test_a_class_with_three_groups_is_in_all_parts(sizes):
    rows = [(f"g{i}", 0, "x") for i, n in enumerate(sizes) for _ in range(n)]
    parts = split(rows)
    assert set(parts) == {"train", "validation", "test"}
    for part, share in zip(("train", "validation", "test"), FRACTIONS["x"], strict=True):
        # Within a group of what is asked for, or what being present costs.
        assert abs((parts == part).sum() - share * len(rows)) <= 2 * max(sizes)


@pytest.mark.parametrize("seed", range(5))
def test_small_groups_fill_what_a_large_one_leaves(seed):
    groups = ["large"] * 40 + [f"small {n}" for n in range(40)]
    parts = grouped_split(groups, [0] * 80, ["x"] * 80, {"x": (0.5, 0.25, 0.25)}, seed)
    assert [(parts == part).sum() for part in ("train", "validation", "test")] == [40, 20, 20]


def test_large_groups_are_in_all_parts_and_differ_by_the_seed():
    """A third of the images in pairs, a few in groups of six that all differ in size otherwise."""
    sizes = [*range(3, 9), *[2] * 30, *[1] * 120]
    groups = [f"g{i}" for i, n in enumerate(sizes) for _ in range(n)]
    large = np.array([sizes[int(g[1:])] > 2 for g in groups])
    pairs = np.array([sizes[int(g[1:])] == 2 for g in groups])
    found = [
        grouped_split(groups, [0] * len(groups), ["x"] * len(groups), FRACTIONS, s)
        for s in range(8)
    ]
    for parts in found:
        for part, share in zip(("train", "validation", "test"), FRACTIONS["x"], strict=True):
            assert abs((parts == part).sum() - share * len(groups)) <= 1
    for rows in (pairs, large):
        shares = [
            np.mean([(parts[rows] == part).mean() for parts in found])
            for part in ("train", "validation", "test")
        ]
        assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.12)
        assert len({tuple(parts[rows]) for parts in found}) > 1


def test_proportions_by_site_and_class():
    rng = np.random.default_rng(0)
    rows = [(str(g), int(rng.choice(3, p=[0.7, 0.2, 0.1])), "xy"[g % 2]) for g in range(900)]
    frame = pd.DataFrame(rows, columns=["group", "label", "site"]).assign(part=split(rows))
    for (site, _), table in frame.groupby(["site", "label"]):
        for part, share in zip(("train", "validation", "test"), FRACTIONS[site], strict=True):
            assert abs((table["part"] == part).sum() - share * len(table)) <= 1


def test_limit_keeps_every_class_and_proportions():
    labels = [0] * 80 + [1] * 18 + [2] * 2
    rows = limit_rows(labels, 20, [1])
    assert len(set(rows.tolist())) == 20
    counts = np.bincount(np.array(labels)[rows])
    assert counts.min() >= 1
    assert abs(counts[0] - 16) <= 1
    assert (rows == limit_rows(labels, 20, [1])).all()
    assert (rows != limit_rows(labels, 20, [2])).any()
    assert limit_rows([0, 1], 5, [1]).tolist() == [0, 1]
    with pytest.raises(ValueError, match="3 classes"):
        limit_rows(labels, 2, [1])


def test_merging_is_transitive():
    assert merge_groups(["a", "b", "b", "c", "d"], [1, 1, 2, 2, 3]) == ["a", "a", "a", "a", "d"]
    assert merge_groups(["b", "c", "a", "b"], [1, 1, 2, 2]) == ["a", "a", "a", "a"]
