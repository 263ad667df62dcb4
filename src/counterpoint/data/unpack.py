"""Unpack zip and tar archives that come from elsewhere, with nothing outside the folder."""

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from shutil import disk_usage
from typing import IO, Self

from counterpoint.data.transfer import on_disk
from counterpoint.errors import DataError

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
_CHUNK = 1 << 20


class ArchiveError(DataError):
    """The archive is damaged, or has a member that must not be unpacked."""


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked.

    >>> is_archive("images.zip"), is_archive("labels.csv")
    (True, False)
    """
    return name.lower().endswith(_SUFFIXES)


def unpack(
    archive: Path,
    folder: Path,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    *,
    gunzip: bool = False,
) -> None:
    """Unpack the files of an archive into a folder that is not there yet, and is made.

    Only plain files are unpacked, with the permissions that new files have. A link, a device, or a
    name that leads out of the folder is refused: nothing that a tar's filter has to judge is ever
    made. Litter of macOS (``__MACOSX``, ``._*``, ``.DS_Store``) is left out. With ``gunzip`` a
    member ``x.gz`` becomes ``x``. ``progress`` is called with the bytes of the archive that are
    read and how many there are.

    Raises ArchiveError that names archive and member, and DataError if the disk is full.
    """
    size = archive.stat().st_size
    try:
        with open(archive, "rb") as raw:
            members = _zip if archive.name.lower().endswith(".zip") else _tar
            for name, source in members(archive, raw):
                path = folder / _inside(archive, name)
                if source is None or _litter(path):
                    continue
                content: _Content = source
                if gunzip and path.suffix == ".gz":
                    content, path = gzip.GzipFile(fileobj=source), path.with_suffix("")
                with on_disk(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with open(path, "wb") as file:
                        for piece in _pieces(archive, content):
                            file.write(piece)
                progress(raw.tell(), size)
            progress(size, size)
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    if not folder.exists():
        raise _damaged(archive, "it has no files")


_Content = IO[bytes] | gzip.GzipFile
_Members = Iterator[tuple[str, IO[bytes] | None]]
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    UnicodeError,
    NotImplementedError,  # a way of packing that Python does not know
    RuntimeError,  # a password is wanted
)


def _zip(path: Path, raw: IO[bytes]) -> _Members:
    """Give names and contents; None for a folder."""
    with zipfile.ZipFile(raw) as archive:
        needed, free = sum(i.file_size for i in archive.infolist()), disk_usage(path.parent).free
        if needed > free:
            raise DataError(
                f"{path.name} unpacks to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
                f"in {path.parent}; make room there, and run the same command again"
            )
        for info in archive.infolist():
            if info.is_dir():
                yield info.filename, None
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _refused(path, info.filename, "is a link or a device")
            with archive.open(info) as source:
                yield info.filename, source


def _tar(path: Path, raw: IO[bytes]) -> _Members:
    """Give names and contents; None for a folder."""
    with tarfile.open(fileobj=raw, tarinfo=_Header) as archive:
        while info := archive.next():
            if not (info.isreg() or info.isdir()):
                raise _refused(path, info.name, "is a link or a device")
            yield info.name, archive.extractfile(info) if info.isreg() else None
            # It would keep all of them, and there may be half a million.
            archive.members = []  # type: ignore[attr-defined]
        unpacked = archive.fileobj  # to its end, where gzip has the checksum
        while unpacked and unpacked.read(_CHUNK):
            pass


class _Header(tarfile.TarInfo):
    """A member's header; a damaged one is an error, and not the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the block of zeros that is the end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is damaged or missing: {error}") from error


def _inside(archive: Path, name: str) -> PurePosixPath:
    """Return a member's name as a path that stays in the folder, or raise ArchiveError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(sign in name for sign in "\\:\0"):
        raise _refused(archive, name, "leads out of the folder")
    return path


def _refused(archive: Path, member: str, why: str) -> ArchiveError:
    return ArchiveError(
        f"{archive.name} is not to be trusted: its member '{member}' {why}; the archive was "
        "removed, and nothing of it was put in place"
    )


def _litter(path: Path) -> bool:
    return "__MACOSX" in path.parts or path.name == ".DS_Store" or path.name.startswith("._")


def _pieces(archive: Path, source: _Content) -> Iterator[bytes]:
    """Give a member's content; an error in reading it is one of the archive, not of the disk."""
    try:
        while piece := source.read(_CHUNK):
            yield piece
    except _DAMAGE as error:
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception | str) -> ArchiveError:
    return ArchiveError(
        f"{archive.name} is damaged or not what its name says ({error}); it was removed, run the "
        "same command again"
    )
