"""Files are whole, on the disk before a round counts, and known again by their checksums."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

from counterpoint import files, run
from counterpoint.data import write_phantom
from counterpoint.errors import StateError, WriteError
from counterpoint.files import LARGE, read_tensors, write_bytes, write_tensors
from counterpoint.folder import RunFolder
from tests.running import SHORT, TINY

TENSORS = {"a": torch.arange(LARGE / 4)}


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of what is hashed from here on."""
    sha256, lengths = hashlib.sha256, []

    def watched(data: bytes) -> object:
        lengths.append(len(data))
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", watched)
    return lengths


def test_what_was_just_written_is_not_hashed_again(tmp_path: Path, hashed: list[int]) -> None:
    path = tmp_path / "one"
    digest = write_tensors(path, TENSORS)
    assert len(hashed) == 1
    assert torch.equal(read_tensors(path, digest)["a"], TENSORS["a"])
    assert len(hashed) == 1
    with pytest.raises(StateError, match="damaged"):
        read_tensors(path, digest[::-1])  # another file is asked for


@pytest.mark.parametrize("change", ["byte", "replaced", "longer"])
def test_what_was_changed_since_is_noticed(tmp_path: Path, change: str) -> None:
    path, other = tmp_path / "one", tmp_path / "other"
    digest = write_tensors(path, TENSORS)
    about, spoiled = path.stat(), bytearray(path.read_bytes())
    spoiled[-1] ^= 1
    if change == "replaced":
        other.write_bytes(spoiled)
        os.replace(other, path)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    else:
        path.write_bytes(spoiled + (b"1" if change == "longer" else b""))
        later = about.st_mtime_ns + (10**9 if change == "byte" else 0)  # a clock may be coarse
        os.utime(path, ns=(about.st_atime_ns, later))
    with pytest.raises(StateError, match="damaged"):
        read_tensors(path, digest)


def test_few_checksums_are_remembered(
    tmp_path: Path, hashed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "REMEMBERED", 2)
    monkeypatch.setattr(files, "_written", {})
    digests = [write_tensors(tmp_path / name, TENSORS) for name in "abc"]
    write_bytes(tmp_path / "small", b"1")  # hashed in no time
    hashed.clear()
    for name, digest in zip("abc", digests, strict=True):
        read_tensors(tmp_path / name, digest)
    assert len(hashed) == 1  # the oldest


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a few small images of the phantom's sites."""
    return write_phantom(tmp_path_factory.mktemp("small") / "data", size=32, scale=0.05)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_files_are_on_the_disk_before_a_round_counts(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    flushed: set[Path] = set()
    commit, noted = RunFolder.commit, []

    def watched(folder: RunFolder, notebook, rows) -> None:  # type: ignore[no-untyped-def]
        own = {*notebook.states.values(), *notebook.candidates.values()}
        assert {folder.state / kept.file for kept in own} <= flushed
        noted.append(notebook.round)
        commit(folder, notebook, rows)

    monkeypatch.setattr("counterpoint.here.flush_file", lambda file: flushed.add(file))
    monkeypatch.setattr(RunFolder, "commit", watched)
    run("fedbn", str(small), out=tmp_path / "run", settings=SHORT | TINY | {"workers": workers})
    assert noted[-1] > 1
    assert flushed


def test_a_disk_that_does_not_take_a_file_stops_the_round(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path) -> None:
        if "-00002-" in file.name:
            raise WriteError(f"the disk is full: {file}")

    monkeypatch.setattr("counterpoint.here.flush_file", full)
    with pytest.raises(WriteError, match="disk is full"):
        run("fedavg", str(small), out=tmp_path / "run", settings=SHORT | TINY)
    assert [file.name for file in (tmp_path / "run/state").glob("round-*.json")] == [
        "round-00001.json"
    ]
