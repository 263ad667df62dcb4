"""What an administrator does: submit a job, see how it goes, collect its results."""

import contextlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from counterpoint.errors import SettingsError, StateError, WriteError
from counterpoint.files import write_error, write_text
from counterpoint.flare.provision import read_project
from counterpoint.flare.simulate import require_flare


def admin_kit(folder: Path) -> tuple[str, Path]:
    """Name and startup kit of the administrator of a consortium's folder.

    Raises:
        SettingsError: if there are no kits yet.
    """
    values = read_project(folder)
    name = next(str(one["name"]) for one in values["participants"] if one["type"] == "admin")
    kits = sorted((folder / "kits" / str(values["name"])).glob(f"prod_*/{name}"))
    if not kits:
        raise SettingsError(
            f"{folder} has no startup kits yet; make them by "
            f"`counterpoint flare provision {folder}`"
        )
    return name, kits[-1]


@contextmanager
def session(folder: Path) -> Iterator[Any]:
    """A session with the server, with the administrator's certificate.

    Raises:
        StateError: if the server can't be reached or refuses.
    """
    require_flare()
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    name, kit = admin_kit(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells that it connects, even in JSON
            opened = new_secure_session(name, str(kit), timeout=20.0)
    except Exception as error:  # FLARE raises many kinds
        raise StateError(
            f"the server can't be reached with the kit {kit}: {error}. Is it started, and its name "
            "and port reachable from here?"
        ) from error
    try:
        yield opened
    except (SettingsError, StateError):
        raise
    except Exception as error:
        raise StateError(f"FLARE says: {error}") from error
    finally:
        opened.close()


def the_job(folder: Path) -> Path:
    """The folder of a consortium's job.

    Raises:
        SettingsError: if there is none.
    """
    read_project(folder)
    found = [one for one in (folder / "job").glob("*") if one.is_dir()]
    if len(found) != 1:
        raise SettingsError(f"{folder / 'job'} must have one folder, that of the job")
    return found[0]


def submit(folder: Path) -> str:
    """Submit the job of a consortium's folder; returns its id, which the folder remembers.

    Where it was submitted before and still runs, that is ended first: the run goes on from its
    last complete round, with all sites that are connected now.
    """
    job = the_job(folder)
    with session(folder) as opened:
        if (folder / "job-id").exists():
            end_job(opened, last_job(folder))
        number = str(opened.submit_job(str(job.absolute())))
    write_text(folder / "job-id", number)
    return number


def end_job(opened: Any, number: str, patience: float = 60.0) -> None:
    """End a job that runs or waits, and wait until it has ended.

    Raises:
        StateError: if it has not after ``patience`` seconds.
    """
    over = time.monotonic() + patience
    aborted = False
    while not (status := status_of(opened, number)).startswith("FINISHED"):
        if not aborted:
            aborted = abort(opened, number)
            if not aborted and status == "RUNNING":
                return  # the server was killed with it; FLARE leaves what it had noted
        if time.monotonic() > over:
            raise StateError(f"job {number} does not end; see `counterpoint flare status`")
        time.sleep(1)


def status_of(opened: Any, number: str) -> str:
    """How a job stands, in FLARE's words."""
    return str(opened.get_job_meta(number).get("status", ""))


def abort(opened: Any, number: str) -> bool:
    """Abort a job; whether there was anything to abort."""
    try:
        opened.abort_job(number)
    except Exception as error:  # FLARE's, of a kind that it raises for other reasons as well
        if "is not running" not in str(error):
            raise
        return False
    return True


def last_job(folder: Path) -> str:
    """The id of the job that was submitted last.

    Raises:
        SettingsError: if none was.
    """
    try:
        return (folder / "job-id").read_text().strip()
    except OSError as error:
        raise SettingsError(
            f"{folder} has submitted no job yet; do so by `counterpoint flare submit {folder}`"
        ) from error


def status(folder: Path) -> dict[str, Any]:
    """Which sites are connected, and how the last job stands."""
    with session(folder) as opened:
        clients = opened.get_system_info().client_info
        job = opened.get_job_meta(last_job(folder)) if (folder / "job-id").exists() else {}
    return {
        "sites connected": sorted(client.name for client in clients),
        "job": job.get("job_id", "none"),
        "state": job.get("status", ""),
        "submitted": job.get("submit_time_iso", ""),
    }


def collect(folder: Path, out: Path) -> list[Path]:
    """Download the results of the last job into new folders in ``out``; returns them.

    Raises:
        StateError: if there are none yet.
    """
    number = last_job(folder)
    with session(folder) as opened, tempfile.TemporaryDirectory() as place:
        result = Path(opened.download_job_result(number, place))
        found = sorted(result.rglob("counterpoint/*/settings.yaml"))
        if not found:
            raise StateError(f"job {number} has left no run; `counterpoint flare status` shows it")
        there = [to for file in found if (to := out / file.parent.name).exists()]
        if there:
            raise SettingsError(
                f"{there[0]} is there already and is left as it is; choose another --out"
            )
        return [copied(file.parent, out) for file in found]


def copied(run: Path, out: Path) -> Path:
    """A copy of a folder in ``out``; whole, or not there."""
    to, part = out / run.name, out / f".{run.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(run, part)
        os.replace(part, to)
    except shutil.Error as error:  # of some of the files: it lists them, each with its reason
        raise WriteError(f"{to} can't be written: {error.args[0][0][-1]}") from error
    except OSError as error:
        raise write_error(to, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return to
