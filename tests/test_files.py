"""Files are whole, on the disk before a round counts, and known again by their checksums."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch

from counterpoint import files, run
from counterpoint.data import write_phantom
from counterpoint.data.site import Form
from counterpoint.errors import StateError, WriteError
from counterpoint.files import LARGE, append_text, read_tensors, write_bytes, write_tensors
from counterpoint.folder import RunFolder
from counterpoint.kept import keep
from counterpoint.results import write_models
from counterpoint.settings import make_settings
from counterpoint.tasks import make_task
from tests.running import SHORT, TINY, Tiny

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


def test_a_model_is_looked_at_once_more_before_it_is_handed_on(tmp_path: Path) -> None:
    """Whatever the file's date says."""
    settings = make_settings("fedavg", "phantom", {})
    task = make_task("classification", ("a", "b"))
    kept = keep(tmp_path / "state", "one", TENSORS)
    path = tmp_path / "state" / kept.file
    about, spoiled = path.stat(), bytearray(path.read_bytes())
    spoiled[-1] ^= 1
    path.write_bytes(spoiled)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    out, chosen, state = tmp_path / "run", {"A": kept, "B": kept}, tmp_path / "state"
    with pytest.raises(StateError, match="damaged"):
        write_models(out, settings, task, (3, 8, 8), Form(), 1, chosen, state)


class Seen(Tiny):
    """Counts the batches of its site in a buffer of its own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1  # type: ignore[operator]
        return super().forward(images)


def test_a_model_that_counts_for_itself_is_not_taken_for_another_sites(
    tmp_path: Path, small: Path
) -> None:
    model = {"model": "tests.test_files:Seen", "statistics": "averaged"}
    run("fedavg", str(small), out=tmp_path / "run", settings=SHORT | model)
    files = list((tmp_path / "run/state").glob("*-candidate.safetensors"))
    assert len({file.stat().st_ino for file in files}) == len(files) > 1


def test_a_line_is_appended_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    append_text(path, "a,b\n")
    full = []

    def fsync(file: int) -> None:  # by then the line, or a part of it, is there
        full.append(file)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(WriteError, match="disk is full"):
        append_text(path, "1,2\n")
    assert full
    assert path.read_text() == "a,b\n"


def test_a_files_name_is_on_the_disk_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))
    write_bytes(tmp_path / "one", b"1")
    assert flushed == [(tmp_path / "one").stat().st_ino, tmp_path.stat().st_ino]
    flushed.clear()
    write_bytes(tmp_path / "other", b"1", flush=False)
    assert flushed == []
