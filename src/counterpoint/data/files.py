"""The cache folder, and content hashes of image files with a small index."""

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from counterpoint.cores import cores
from counterpoint.errors import DataError
from counterpoint.files import at_home

Progress = Callable[[int, int], None]
"""Is told how much is done, and of how much."""


def cache_path(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return where the cache is: ``cache``, or COUNTERPOINT_CACHE, or the user's usual place."""
    chosen = cache or os.environ.get("COUNTERPOINT_CACHE")
    path = at_home(Path(chosen or platformdirs.user_cache_dir("counterpoint")))
    if not chosen and path.parts[0] == "~":
        raise DataError("there is no home to keep the cache in; name a folder: COUNTERPOINT_CACHE")
    return path.absolute()


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder, made if need be: that of `cache_path`.

    Only its owner can read it if it is made here: decoded images are patient data, and names of
    files can be. Raises DataError when it can't be made or written.
    """
    folder = cache_path(cache)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def unwritable(folder: Path, error: OSError) -> DataError:
    """Return the DataError for a folder that could not be written, whatever the reason."""
    return DataError(
        f"the cache folder {folder} can't be written ({error.strerror or error}); free some space "
        "there, or name a folder that can be written and has space: COUNTERPOINT_CACHE, or for a "
        "site of a run across hospitals `cache` in its settings file"
    )


def part_of(path: Path) -> Path:
    """Return a name beside ``path`` for what is not whole, or no longer."""
    return path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and rename it to ``path`` after the block.

    Other processes so see either the whole file or none. After an error the temporary file is
    removed; an OSError (full disk, no permission) becomes a DataError that names the folder.
    """
    temporary = part_of(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: str) -> str:
    """Return the SHA-256 of a file's content as hex digits; raises DataError if unreadable.

    For a folder (a DICOM series) it is over the sorted hashes of its files, whatever their names.
    """
    if os.path.isdir(path):
        inside = sorted(sha256(file) for file in _inside(path))
        return hashlib.sha256("\n".join(inside).encode()).hexdigest()
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"the file {path} can't be read ({error.strerror or error})") from error


def content_hashes(
    paths: Iterable[str], cache: Path, progress: Progress = lambda done, total: None
) -> dict[str, str]:
    """Return the SHA-256 (hex) of every file, by path.

    An index in ``cache`` remembers path, size and times of change, so that only new or changed
    files are read; ``progress`` is told of those. A broken index is made anew.
    """
    file = cache / "content.json"
    index = _read_index(file)
    stamps = {path: _stamp(path) for path in paths}
    unknown = [path for path, stamp in stamps.items() if index.get(path, [""])[0] != stamp]
    if unknown:
        with ThreadPoolExecutor(cores()) as pool:
            found = zip(unknown, pool.map(sha256, unknown), strict=True)
            for done, (path, digest) in enumerate(found, start=1):
                index[path] = [stamps[path], digest]
                progress(done, len(unknown))
        # It would grow for ever, and every run reads it: what is gone is left out.
        index = {p: of for p, of in index.items() if p in stamps or os.path.exists(p)}
        with written_whole(file) as temporary:
            temporary.write_text(json.dumps(index), encoding="utf-8")
    return {path: index[path][1] for path in stamps}


def _stamp(path: str) -> str:
    """Return what changes with a file: its size, and its times in nanoseconds.

    One of them is that of its inode: a copy may bring the time of its original along. For a folder
    it is a hash of the names and stamps of all its files.
    """
    if os.path.isdir(path):
        inside = [f"{os.path.basename(file)} {_stamp(file)}" for file in sorted(_inside(path))]
        return hashlib.sha256("\n".join(inside).encode(errors="surrogateescape")).hexdigest()
    try:
        stat = os.stat(path)
    except OSError as error:
        raise DataError(f"the file {path} can't be read ({error.strerror or error})") from error
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _inside(folder: str) -> list[str]:
    """Return the files of a folder, but for hidden ones."""
    try:
        with os.scandir(folder) as entries:
            return [e.path for e in entries if e.is_file() and not e.name.startswith(".")]
    except OSError as error:
        raise DataError(f"the folder {folder} can't be read ({error.strerror or error})") from error


def _read_index(file: Path) -> dict[str, list[str]]:
    """Return the index, empty if there is none or if it is broken: it only saves time."""
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(index, dict):
        return {}
    return {p: e for p, e in index.items() if isinstance(e, list) and len(e) == 2}
