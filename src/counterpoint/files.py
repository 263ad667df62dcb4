"""Files that are either whole or not there: written aside, flushed, renamed."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from counterpoint.errors import SettingsError, StateError, WriteError
from counterpoint.spare import take_spare

LARGE = 2**20
"""Bytes from which a file's checksum is taken while it is written, and remembered."""
REMEMBERED = 4096
"""Files whose checksums are remembered: the last ones that were written."""

Mark = tuple[int, int, int]
"""Of a file: its number, its bytes, and when it was changed."""
_written: dict[Path, tuple[str, Mark]] = {}


def at_home(path: Path) -> Path:
    """A path with the home in place of a ~ at its beginning, if there is such a home.

    >>> at_home(Path("runs/1")).as_posix()
    'runs/1'
    """
    try:
        return path.expanduser()
    except RuntimeError:  # it is a name that begins so
        return path


def write_bytes(path: Path, data: bytes, flush: bool = True) -> str:
    """Write a file in one stroke and return its SHA-256 (hex).

    Without ``flush``, a power cut can spoil it until :func:`flush_file` is called.

    Raises:
        WriteError: if the disk is full or the folder can't be written; nothing is left behind.
    """
    if len(data) < LARGE:
        _write(path, [data], flush)
        return hashlib.sha256(data).hexdigest()
    with ThreadPoolExecutor(1) as beside:  # both take long
        hashed = beside.submit(hashlib.sha256, data)
        _write(path, [data], flush)
        digest = hashed.result().hexdigest()
    _written.pop(path, None)
    with suppress(OSError):
        _written[path] = digest, _mark(path)
    if len(_written) > REMEMBERED:
        del _written[next(iter(_written))]
    return digest


def flush_file(path: Path) -> None:
    """Wait until a file that was written is on the disk.

    Raises:
        WriteError: if it does not get there.
    """
    try:
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def _mark(path: Path) -> Mark:
    about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def write_quickly(path: Path, *parts: bytes) -> None:
    """Write a file that can be done without: as :func:`write_bytes`, but a power cut may spoil it.

    Whoever reads it must be able to tell whether it is whole.
    """
    _write(path, parts, flush=False)


def _write(path: Path, parts: Sequence[bytes], flush: bool) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        over = take_spare(aside, sum(map(len, parts)))
        with open(aside, "r+b" if over else "wb") as file:
            file.writelines(parts)
            file.truncate()  # a spare file may be longer
            file.flush()
            if flush:
                os.fsync(file.fileno())
        os.replace(aside, path)
        if flush:
            _flush_names(path.parent)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise write_error(path, error) from error


def _flush_names(folder: Path) -> None:
    """Have the names of a folder's files on the disk, as some file systems keep them for later."""
    with suppress(OSError):  # not every system can
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, in one stroke.

    Raises:
        FileExistsError: if there is a file already; it is left as it is.
        WriteError: if the file can't be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        # nobody else's file or link: it would stay theirs to read
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _give_name(aside, path)
    except FileExistsError:
        raise
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


def _give_name(aside: Path, path: Path) -> None:
    """Give a file its name, unless there is one by that name."""
    try:
        os.link(aside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        path.touch(exist_ok=False)
        try:
            os.replace(aside, path)
        except OSError:
            path.unlink()
            raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes ``path`` after the block; after an error, nothing.

    Raises:
        SettingsError: if there is something at ``path`` already.
        WriteError: if the disk is full or the folder can't be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingsError(f"{path} exists already and is left as it is; choose another --out")
    if path.absolute() == Path.cwd():
        raise SettingsError("--out is this very folder, which can't be made anew; name another")
    if path.is_symlink() or path.is_mount():
        raise SettingsError(
            f"{path} is a link or a mounted folder, which can't be made anew; name a new folder in "
            "it by --out"
        )
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.mkdir(parents=True)
        yield aside
        if path.exists():
            path.rmdir()
        os.replace(aside, path)
    except OSError as error:
        raise WriteError(f"{write_error(path, error)}. Nothing is left there") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_error(path: Path, error: OSError) -> WriteError:
    """Say in words why a file can't be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return WriteError(
            f"the disk is full: {path} can't be written ({error.strerror}). Nothing that was saved "
            "before is lost; free some space and try again"
        )
    why = error.strerror or str(error)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        why = "there is a file in the place of its folder"
    return WriteError(f"{path} can't be written: {why}; choose a place that can be written to")


def write_text(path: Path, text: str) -> str:
    """Write a UTF-8 text file in one stroke; see :func:`write_bytes`."""
    return write_bytes(path, text.encode())


def append_text(path: Path, text: str) -> int:
    """Append to a file, all or nothing, flush it to the disk and return its new length in bytes.

    Raises:
        WriteError: if the disk is full or the file can't be written.
    """
    before = None
    try:
        with open(path, "ab") as file:
            before = file.tell()
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
    except OSError as error:
        if before is not None:  # no half a line, which the next one would go on with
            with suppress(OSError):
                os.truncate(path, before)
        raise write_error(path, error) from error


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: dict[str, str] | None = None,
    flush: bool = True,
) -> str:
    """Write named tensors (on the CPU, contiguous) as safetensors; see :func:`write_bytes`."""
    return write_bytes(path, save(dict(tensors), metadata=metadata), flush)


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read named tensors and, where ``sha256`` is given, check that they are the ones written.

    They come in the order of their names; the file's reader alone gives another one each time.

    Raises:
        StateError: if the file is missing, damaged or another one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path} can't be read: {error.strerror or error}") from error
    if sha256 is not None and not _is(path, data, sha256):
        raise StateError(f"{path} is damaged: its checksum is not the one that was noted")
    try:
        return dict(sorted(load(data).items()))
    except (SafetensorError, ValueError) as error:
        raise StateError(f"{path} is not a file of named tensors: {error}") from error


def _is(path: Path, data: bytes, sha256: str) -> bool:
    """Whether a file's content has a checksum; not taken again of what was just written here."""
    known = _written.get(path)
    if known and known[0] == sha256:
        with suppress(OSError):
            if known[1] == _mark(path):
                return True
    return hashlib.sha256(data).hexdigest() == sha256


def is_whole(file: Path, sha256: str) -> bool:
    """Whether a file is there and as it was written."""
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == sha256
    except OSError:
        return False


def read_metadata(path: Path) -> dict[str, str]:
    """Read the texts that were written beside the tensors of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path} can't be read as a model: {error}") from error
