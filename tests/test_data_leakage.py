import pandas as pd

from counterpoint.data.leakage import find_leaks, repeated_files, shared_across_sites


def table(*rows):
    frame = pd.DataFrame(rows, columns=["site", "split", "group", "content"])
    return frame.assign(image=[f"{i}.png" for i in range(len(frame))])


def test_clean_tables_have_no_leaks():
    rows = table(("x", "train", "a", "1"), ("x", "test", "b", "2"), ("y", "test", "c", "3"))
    assert find_leaks(rows) == ()
    assert shared_across_sites(rows) == ()
    assert repeated_files(rows).empty


def test_a_group_in_two_parts_of_a_site():
    rows = table(("x", "train", "a", "1"), ("x", "test", "a", "2"), ("x", "test", "b", "3"))
    (leak,) = find_leaks(rows)
    assert (leak.site, leak.part, leak.other, leak.count, leak.total) == (
        "x",
        "test",
        "train",
        1,
        2,
    )
    assert leak.first == ("a",)


def test_a_group_in_two_parts_across_sites():
    rows = table(("x", "train", "a", "1"), ("y", "validation", "a", "2"))
    (leak,) = find_leaks(rows)
    assert (leak.site, leak.part, leak.key) == ("y", "validation", "group")
    assert shared_across_sites(rows) == ("a",)


def test_the_same_file_in_two_parts_and_in_one():
    rows = table(
        ("x", "train", "a", "1"), ("x", "test", "b", "1"), ("x", "train", "c", "2"),
        ("y", "train", "d", "2"),
    )  # fmt: skip
    (leak,) = find_leaks(rows)
    assert (leak.key, leak.first) == ("content", ("1.png",))
    assert "same file as train images" in str(leak)
    assert repeated_files(rows)["group"].tolist() == ["c", "d"]
