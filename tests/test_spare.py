"""Large files that are needed no more are written over, and only they."""

import hashlib
import os
from pathlib import Path

import pytest

from counterpoint.errors import WriteError
from counterpoint.files import write_bytes
from counterpoint.spare import LARGE, drop_spares, put_aside, take_spare


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("size", [LARGE, LARGE + 7, 4 * LARGE])
def test_a_file_is_written_over_one_that_is_needed_no_more(tmp_path: Path, size: int) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    write_bytes(old, b"a" * 2 * LARGE)
    number = old.stat().st_ino
    put_aside(tmp_path, [old])
    assert not old.exists()
    data = b"b" * size
    assert write_bytes(new, data) == hashlib.sha256(data).hexdigest()
    assert new.read_bytes() == data
    assert new.stat().st_ino == number
    assert names(tmp_path) == {"new"}


def test_a_small_file_leaves_the_large_one_to_others(tmp_path: Path) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    write_bytes(large, bytes(LARGE))
    write_bytes(small, b"1")
    put_aside(tmp_path, [large, small])
    assert names(tmp_path) == {".large.spare.part"}  # a small one is not kept for long
    write_bytes(small, b"2")
    assert names(tmp_path) == {".large.spare.part", "small"}


def test_what_has_another_name_stays_as_it_is(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_bytes(one, b"a" * LARGE)
    os.link(one, other)
    put_aside(tmp_path, [one])
    write_bytes(tmp_path / "new", b"b" * LARGE)
    assert other.read_bytes() == b"a" * LARGE
    assert names(tmp_path) == {"other", "new"}


@pytest.mark.parametrize("kind", ["symlink", "read-only"])
def test_what_can_t_be_written_to_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    elsewhere, file = tmp_path / "elsewhere" / "object", tmp_path / "file"
    write_bytes(elsewhere, b"a" * LARGE)
    if kind == "symlink":
        file.symlink_to(elsewhere)
    else:
        write_bytes(file, b"a" * LARGE)
        monkeypatch.setattr(os, "access", lambda file, mode: mode != os.W_OK)  # root may all
    put_aside(tmp_path, [file])
    write_bytes(tmp_path / "new", b"b" * LARGE)
    assert (tmp_path / "new").read_bytes() == b"b" * LARGE
    assert elsewhere.read_bytes() == b"a" * LARGE
    assert names(tmp_path) == {"new", "elsewhere"}


def test_one_of_about_the_size_is_taken_and_nobody_gets_one_twice(tmp_path: Path) -> None:
    sizes = {"a": 16, "b": 5, "c": 2, "d": 8}
    for name, size in sizes.items():
        write_bytes(tmp_path / name, bytes(size * LARGE))
    put_aside(tmp_path, [tmp_path / name for name in sizes])
    places = [tmp_path / f"{number}" for number in range(3)]
    assert [take_spare(place, 4 * LARGE) for place in places] == [True, True, True]
    assert [place.stat().st_size // LARGE for place in places] == [5, 2, 8]
    assert not take_spare(tmp_path / "3", 4 * LARGE)
    assert names(tmp_path) == {".a.spare.part", "0", "1", "2"}


def test_what_was_not_wanted_goes(tmp_path: Path) -> None:
    for name in "xy":
        write_bytes(tmp_path / name, bytes(LARGE))
    put_aside(tmp_path, [tmp_path / "x", tmp_path / "gone already"])
    put_aside(tmp_path, [tmp_path / "y"])
    assert names(tmp_path) == {".y.spare.part"}
    drop_spares(tmp_path)
    assert names(tmp_path) == set()


def test_a_file_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "old", bytes(LARGE))
    put_aside(tmp_path, [tmp_path / "old"])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="disk is full"):
        write_bytes(tmp_path / "new", b"b" * LARGE)
    assert names(tmp_path) == set()
