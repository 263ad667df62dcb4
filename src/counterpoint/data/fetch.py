"""Fetch a data set: its licence first, then files that are checked and put in place whole."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
import pooch  # type: ignore[import-untyped]

from counterpoint.data.downloads import DOWNLOADS, Download, File
from counterpoint.data.transfer import Resuming, on_disk
from counterpoint.data.unpack import ArchiveError, is_archive, unpack
from counterpoint.errors import DataError, SettingsError, nearest
from counterpoint.files import at_home

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, the bytes that are done, and how many there are, if known."""

RECORD = "fetched.json"
"""Name of the file in the root that notes what was fetched from where, with its checksums."""


def licence_of(name: str) -> str:
    """Return the terms of a data set in words: what, licence, citation, size and page.

    Raises SettingsError for an unknown name.

    >>> print(licence_of("hrf").splitlines()[1])
    Licence: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)
    """
    found = _known(name)
    return "\n".join(
        (
            f"{found.name}: {found.summary}",
            f"Licence: {found.licence}",
            f"Cite: {found.cite}",
            f"Size: {found.size}",
            f"Page: {found.page}",
            "These are our words for the terms; what the page says is what counts.",
        )
    )


def fetch(
    name: str,
    root: str | os.PathLike[str],
    *,
    accept: bool,
    progress: Progress = lambda what, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
    base: str | None = None,
) -> Path:
    """Download, check and unpack a data set, and return its folder in ``root``.

    ``accept`` says that the licence, see `licence_of`, was read and is kept to. ``progress`` is
    called as files come and are unpacked, ``say`` with sentences for the user. ``base`` is an
    address below which the files lie by their names, instead of where their publisher has them.

    The folder is put in place when it is whole. What was downloaded before an interruption is kept
    in ``root/.fetching``, and the next call goes on from there. A data set that is in place already
    is left as it is. Checksums are those that are published; where there is none, that of the first
    download is noted in ``root/fetched.json`` and checked in later ones.

    Raises SettingsError for an unknown name, a licence that isn't accepted, or a data set that is
    only given out by hand (the text then says where and how), and DataError if the files can't be
    had, are not the expected ones, or can't be written.
    """
    found = _known(name)
    if not found.files:
        raise SettingsError(
            f"{name} can't be fetched by a program: {found.by_hand}\n{licence_of(name)}"
        )
    if not accept:
        raise SettingsError(
            f"{name} is fetched once its licence is accepted, by --accept-licence (in Python: "
            f"accept=True):\n{licence_of(name)}"
        )
    if base is not None and not base.startswith(("http://", "https://")):
        raise SettingsError(f"the address {base} must begin with http:// or https://")
    if base is not None and urlsplit(base).username is not None:
        raise SettingsError(
            f"the address of {urlsplit(base).hostname} has a name or password in it, which would "
            "be noted with it; put them into the file ~/.netrc"
        )
    top = at_home(Path(root)).absolute()
    place = top / found.folder
    if not _in_place(top, found):
        with _alone(top) as work:
            if not _in_place(top, found):  # another process may have been at it
                _fetch_into(place, found, work / name, progress, say, base)
    return place


def _known(name: str) -> Download:
    if name not in DOWNLOADS:
        raise SettingsError(
            f"no data set '{name}' to fetch{nearest(name, list(DOWNLOADS))} "
            f"({', '.join(DOWNLOADS)})"
        )
    return DOWNLOADS[name]


def _in_place(top: Path, found: Download) -> bool:
    """Whether the data set is there; raises DataError for a folder that isn't ours."""
    place = top / found.folder
    if place.exists() and found.name not in _read_record(top):
        raise DataError(
            f"{place} is there already and was not put there by fetch; use it as it is, or move "
            "it away"
        )
    return place.exists()


@contextmanager
def _alone(top: Path) -> Iterator[Path]:
    """Give the folder for what isn't whole yet, to one process at a time."""
    work = top / ".fetching"
    lock = filelock.FileLock(work / "lock", timeout=0)
    with on_disk(work):
        work.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise DataError(
                f"another process is fetching into {top}; wait until it is done"
            ) from error
    try:
        yield work
    finally:
        with suppress(OSError):  # what isn't empty stays
            for folder in (path for path in work.iterdir() if path.is_dir()):
                folder.rmdir()
            (work / "lock").unlink()
            work.rmdir()
        lock.release()


def _fetch_into(
    place: Path,
    found: Download,
    work: Path,
    progress: Progress,
    say: Callable[[str], None],
    base: str | None,
) -> None:
    """Download all files to ``work``, unpack them there, note them and move them to ``place``."""
    with on_disk(work):
        work.mkdir(exist_ok=True)
        for left in work.glob("tmp*"):  # a process that was killed while it checked a file
            left.unlink()
    record = _read_record(place.parent)
    noted = record.get(found.name, {}).get("files", {})
    files = {}
    for file in found.files:
        url = f"{base.rstrip('/')}/{file.name}" if base else file.url
        files[file.name] = _download(file, url, work, noted, partial(progress, file.name), say)
    whole = work / "unpacked"
    with on_disk(whole):
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
    try:
        for file in found.files:
            _put(work, file, whole / file.to, partial(progress, f"unpacking {file.name}"))
    except BaseException:  # what was downloaded stays, and the disk may be full of the rest
        for folder in (whole, work / "archive"):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    record[found.name] = {"folder": found.folder, "licence": found.licence, "files": files}
    _write_record(place.parent, record)
    with on_disk(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(whole, place)
    shutil.rmtree(work, ignore_errors=True)


def _download(
    file: File,
    url: str,
    work: Path,
    noted: dict[str, Any],
    progress: Callable[[int, int | None], None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Bring one file to ``work`` and return what is to be noted of it."""
    first = noted.get(file.name, {}).get("sha256")
    checksum = file.checksum or (first and f"sha256:{first}")
    path = work / file.name
    log = pooch.get_logger()
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with on_disk(work):
            pooch.retrieve(
                url,
                known_hash=checksum,
                fname=file.name,
                path=work,
                downloader=Resuming(work / f"{file.name}.part", progress),
            )
    except ValueError as error:  # this is how pooch says that a checksum differs
        what = (
            "the one that its publisher, or those who use it, have noted"
            if file.checksum
            else f"the one that came the first time ({RECORD} has its checksum)"
        )
        raise DataError(
            f"{url}: the file that came is not {what}, and it was removed; run the same command "
            "again, and if it comes to the same, ask on the data set's page whether the file was "
            f"changed{'' if file.checksum else f' (then delete its entry in {RECORD})'} [{error}]"
        ) from error
    finally:
        log.setLevel(level)
    with on_disk(path):
        digest = pooch.file_hash(str(path))
        size = path.stat().st_size
    if not checksum:
        say(
            f"{file.name}: no checksum is known to compare it with; its SHA-256 is noted in "
            f"{RECORD} and checked if it is fetched again"
        )
    how = "published" if file.checksum else "first download"
    return {"url": url, "bytes": size, "sha256": digest, "checked": how}


def _put(work: Path, file: File, target: Path, progress: Callable[[int, int | None], None]) -> None:
    """Unpack or copy a downloaded file into the folder ``target``."""
    path = work / file.name
    with on_disk(target):
        target.mkdir(parents=True, exist_ok=True)
    if not is_archive(file.name):
        with on_disk(target):
            shutil.copyfile(path, target / file.name)
        return
    inner = work / "archive"
    with on_disk(inner):
        shutil.rmtree(inner, ignore_errors=True)
    try:
        unpack(path, inner, progress, gunzip=file.gunzip)
    except ArchiveError:
        path.unlink(missing_ok=True)
        raise
    with on_disk(target):
        # A single folder around everything is left off: archives differ in having one.
        while len(inside := list(inner.iterdir())) == 1 and inside[0].is_dir():
            inner = inside[0]
        for child in inside:
            os.rename(child, target / child.name)
        shutil.rmtree(work / "archive")


def _read_record(top: Path) -> dict[str, Any]:
    path = top / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({error}); repair it or move it away") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} isn't a record of what was fetched; move it away")
    return record


def _write_record(top: Path, record: dict[str, Any]) -> None:
    path = top / RECORD
    aside = path.with_name(f".{RECORD}.part")
    with on_disk(path):
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
