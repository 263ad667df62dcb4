"""What the cache holds is shown, and removed as a whole."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from counterpoint import cli
from counterpoint.data import decode, load, write_phantom
from counterpoint.data.cached import KINDS, entries, remove

DAY = 24 * 3600


def call(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.app, ["cache", *words])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two sizes of four small sites, and something that is not ours."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(folder))
    write_phantom(tmp_path / "own", size=16, scale=0.2)
    for size in (8, 16):
        decode(load(tmp_path / "own"), size)
    for theirs in ("thesis.txt", "arrays/mine.npy", "masks/mine.png", "film.part"):
        (folder / theirs).parent.mkdir(exist_ok=True)
        (folder / theirs).write_text("not ours")
    return folder


def shown(*words: str) -> dict[str, object]:
    code, out, err = call(*words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)  # type: ignore[no-any-return]


def theirs(folder: Path) -> list[str]:
    return sorted(
        file.name
        for file in folder.rglob("*")
        if file.is_file() and file.read_bytes() == b"not ours"
    )


def test_what_there_is_is_shown(cache: Path) -> None:
    told = shown()
    arrays = list(cache.glob("arrays/*.npy"))
    assert told["path"] == str(cache)
    assert told["kinds"].keys() == {"decoded images", "indexes"}  # type: ignore[attr-defined]
    images = told["kinds"]["decoded images"]  # type: ignore[index]
    assert images["entries"] == len(arrays) - 1 == 8
    assert images["size"] == sum(file.stat().st_size for file in arrays) - len("not ours")
    assert told["removed"] == {"entries": 0, "size": 0}
    _, out, _ = call()
    assert "decoded images" in out
    assert str(cache) in out


def test_all_of_it_is_removed_but_nothing_else(cache: Path, tmp_path: Path) -> None:
    others, before = theirs(cache), shown()
    _, sites = decode(load(tmp_path / "own"), 16)
    images = np.array(sites[0].part("train").images)
    told = shown("--clear")
    assert told["removed"] == {"entries": before["entries"], "size": before["size"]}
    assert (told["entries"], told["size"]) == (0, 0)
    assert sorted(file.name for file in cache.rglob("*") if file.is_file()) == others
    _, again = decode(load(tmp_path / "own"), 16)
    np.testing.assert_array_equal(again[0].part("train").images, images)


def test_another_folder_and_who_may_read_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.stat().st_mode & 0o077 == 0
    monkeypatch.delenv("COUNTERPOINT_CACHE")
    code, out, _ = call(str(cache), "--clear")
    assert code == 0
    assert str(cache) in out.replace("\n", "")
    assert sorted(file.name for file in cache.glob("arrays/*.npy")) == ["mine.npy"]
    code, _, told = call(str(tmp_path / "none"))
    assert code == 2
    assert "none is no folder" in told.replace("\n", "")


def test_what_was_not_used_for_days_is_removed(cache: Path) -> None:
    old, newer, *_ = sorted(cache.glob("arrays/[0-9a-f]*.npy"))
    counts = old.with_suffix(".counts.npy")
    counts.write_bytes(b"part of the same entry")
    for file, days in ((old, 40), (counts, 40), (newer, 20)):
        os.utime(file, (time.time() - days * DAY,) * 2)
    told = shown("--older-than", "30")
    assert told["removed"]["entries"] == 1  # type: ignore[index]
    assert not old.exists()
    assert not counts.exists()
    assert newer.exists()
    assert shown("--older-than", "10")["removed"]["entries"] == 1  # type: ignore[index]


def test_every_kind_is_known(tmp_path: Path) -> None:
    name = "0" * 64
    for file in (
        f"arrays/{name}.npy",
        f"arrays/{name}.counts.npy",
        f"arrays/{'1' * 64}.npy",
        f"masks/{name}-10x20-1.png",
        f"masks/{name}-10x20-1-view.png",
        "phantom-1/east/labels.csv",
        "content.json",
        "prostate-slices.json",
        "arrays/unreadable-3-1.2-2.0.json",
        "phantom-1.123-0123abcd.part/east/labels.csv",
        f"arrays/{name}.npy.123-0123abcd.part",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    found = entries(tmp_path)
    counts = {kind: sum(entry.kind == kind for entry in found) for kind in KINDS}
    assert list(counts.values()) == [2, 1, 1, 3, 2]
    assert sum(entry.size for entry in found) == 11
    remove(tmp_path, found)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_an_empty_cache_and_wrong_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "none"))
    assert shown()["entries"] == 0
    assert not (tmp_path / "none").exists()
    code, _, err = call("--clear", "--older-than", "3")
    assert (code, "not both" in err) == (2, True)
    assert call("--older-than", "-1")[0] == 2


def test_an_interrupted_removal_leaves_no_folder_that_counts_as_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "phantom-1" / "north").mkdir(parents=True)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        remove(tmp_path, entries(tmp_path))
    assert [entry.kind for entry in entries(tmp_path)] == ["left unfinished"]


def test_a_mask_is_removed_before_what_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("", "-view"):
        (tmp_path / "masks" / f"{'0' * 64}-8x8-1{name}.png").write_text("a mask")
    removed, unlink = [], Path.unlink

    def watched(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.stem[-4:])
        unlink(path)

    monkeypatch.setattr(Path, "unlink", watched)
    remove(tmp_path, entries(tmp_path))
    assert removed == ["x8-1", "view"]


def test_a_file_that_goes_while_it_is_looked_at(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = Path.stat

    def gone(path: Path, **options: bool) -> os.stat_result:
        if path.name == "content.json":
            raise FileNotFoundError(errno.ENOENT, "gone")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", gone)
    assert "decoded images" in {entry.kind for entry in entries(cache)}
