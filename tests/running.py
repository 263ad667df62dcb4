"""Small runs, in this process and in others, and what is compared of the folders they leave."""

import inspect
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from counterpoint import api, cli, resume, run
from counterpoint.cli.training import run as run_command

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "counterpoint.cli"]
SHORT = {
    "rounds": 3,
    "local_epochs": 1,
    "batch_size": 8,
    "image_size": 32,
    "train_limit": 16,
    "workers": 1,
    "threads": 1,
}
TINY = {"model": "tests.running:Tiny"}


class Tiny(nn.Module):
    """A network that trains in no time, with batch norm and dropout in it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
        )
        self.head = nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


class Wide(Tiny):
    """A network of 1.6 MB that trains in no time."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.Sequential(nn.Linear(16, 20_000), nn.ReLU(), nn.Linear(20_000, num_classes))


class TinyDense(nn.Module):
    """A network that gives logits for every pixel, with batch norm in it."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.output = nn.Conv2d(4, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.output(self.body(images))


class Breaks(Tiny):
    """A network that gives NaN from a training batch on; the count is part of its state."""

    def __init__(self, num_classes: int, at: int) -> None:
        super().__init__(num_classes)
        self.at = at
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.batches += self.training
        return super().forward(images) * (torch.nan if self.batches >= self.at else 1.0)


class Overflows(Tiny):
    """A network with a weight that training makes infinite; its loss does not depend on it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.spare = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.spare.data.fill_(torch.inf)
        return super().forward(images)


def options(settings: dict[str, Any]) -> list[str]:
    """Settings as options of `counterpoint run`."""
    known = inspect.signature(run_command).parameters
    listed: list[str] = []
    for name, value in settings.items():
        direct = name in known
        listed += [f"--{name.replace('_', '-')}", str(value)] if direct else []
        listed += [] if direct else ["--set", f"{name}={value}"]
    return listed


def start(*arguments: object, limit: int | None = None) -> "subprocess.Popen[str]":
    """Start the command line in a process and session of its own.

    ``limit`` is the most bytes that a file may have: a full disk, as far as the process can tell.
    """

    def prepare() -> None:
        # whoever started the tests in the background may have had Ctrl-C ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for a process: its exit code, and what it wrote to stdout and stderr."""
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, out, err


def send(number: signal.Signals, process: "subprocess.Popen[str]", file: Path) -> None:
    """Send a signal to a process as soon as ``file`` is there.

    SIGINT goes to all of its session, as from a terminal; SIGKILL to the process alone.
    """
    give_up = time.monotonic() + 120
    while not file.exists() and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.002)
    if not file.exists() or process.poll() is not None:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"{file} came too late: {process.communicate()}")
    (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)


def alive(session: int) -> list[str]:
    """Command lines of the processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended
            continue
    return found


def all_ended(session: int) -> bool:
    """Whether a session has no process any more, or soon has none."""
    give_up = time.monotonic() + 20
    while alive(session) and time.monotonic() < give_up:
        time.sleep(0.05)
    return not alive(session)


def call(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process: exit code, stdout and stderr."""
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


class Stopped(BaseException):
    """Stops a run from outside, as an interrupt does."""


def stop_in(round: int) -> Callable[[dict[str, object]], None]:
    """Give a report that stops the run in a round, when the round before it is complete."""

    def report(event: dict[str, object]) -> None:
        if event.get("moment") == "epoch" and event["round"] == round:
            raise Stopped

    return report


def content(folder: Path) -> dict[str, bytes]:
    """Give all files of a run but its figures, and but the settings, which name workers."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not file.name.startswith("retrogress.")
        and file.name not in ("lock", "settings.yaml")
    }


def assert_same(folder: Path, reference: Path) -> None:
    """Two runs have left the same files, bit for bit, and have finished."""
    mine, other = content(folder), content(reference)
    assert "results.json" in other
    assert any(name.startswith("models") for name in other)
    odd = [name for name in sorted(mine | other) if mine.get(name) != other.get(name)]
    odd = [name for name in odd if name != "state/facts.json"]  # it depends on the data's place
    assert not odd, f"{folder}: not as in a run that was never stopped: {', '.join(odd)}"


def die_at(write: int | str) -> None:
    """Have this process killed in the middle of its n-th write to a run's folder.

    Or of the write of a file whose name begins with ``write``.
    """
    from counterpoint import folder

    done = 0
    replace, append = os.replace, folder.append_text

    def turn(target: Path) -> bool:
        nonlocal done
        done += 1
        return done == write or (isinstance(write, str) and target.name.startswith(write))

    def torn_replace(source: Path, target: Path) -> None:
        if turn(target):
            os.truncate(source, os.stat(source).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    def torn_append(path: Path, text: str) -> int:
        if turn(path):
            append(path, text[: len(text) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return append(path, text)

    os.replace, folder.append_text = torn_replace, torn_append


HELD: list[bytes] = []


def grow(client, job, report):
    """Hold on to 400 MB more for good, and say who does."""
    HELD.append(bytes(400 * 2**20))
    time.sleep(1.1)
    return os.getpid()


def die_with_the_lock(client, job, report):
    """Do a job as a worker that is killed while it reports: what it held stays locked."""
    report({"job": job})
    report.__self__._wlock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_fork(action: Callable[[], object]) -> int:
    """Do something in a fork of this process and give how it ended, as `subprocess` does."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def prepare_forks() -> None:
    """Import once what every run needs, and let no run draw its figure."""
    import monai.losses
    import monai.metrics  # noqa: F401
    import torch._dynamo  # noqa: F401

    api.draw_figures = lambda result: []


def die_everywhere(folder: Path, method: str, data: str, settings: dict[str, Any]) -> None:
    """Run a method again and again, killed at its first write, its second, ...; then go on.

    Leaves a folder for every write, NAME.killed with the files that the kill left, and a last
    folder of a run that was not killed. It is called in a process that has not computed anything
    yet: a fork of one that has could hang.
    """
    prepare_forks()
    for write in range(1, 1000):
        out = folder / f"{write:03d}"

        def dying(write: int = write, out: Path = out) -> None:
            die_at(write)
            run(method, data, out=out, settings=settings)

        how = in_a_fork(dying)
        if how == 0:
            return
        assert how == -signal.SIGKILL, how
        if (out / "settings.yaml").exists():
            (folder / f"{write:03d}.killed").write_text("\n".join(sorted(content(out))))
            assert in_a_fork(lambda out=out: resume(out)) == 0
        else:  # it was killed before there was anything to go on with
            assert in_a_fork(lambda out=out: run(method, data, out=out, settings=settings)) == 0


def die_once_each(
    folder: Path, data: str, cases: dict[str, tuple[str, dict[str, Any], str]]
) -> None:
    """Run every case twice: never stopped, and killed in the write of a file; then go on.

    Leaves CASE/never and CASE/run, and CASE/killed with the files that the kill left. As with
    `die_everywhere`, call it in a process that has not computed anything yet.
    """
    prepare_forks()
    for case, (method, settings, file) in cases.items():
        out = folder / case

        def whole(method=method, settings=settings, out=out) -> None:
            run(method, data, out=out / "never", settings=settings)

        def dying(method=method, settings=settings, out=out, file=file) -> None:
            die_at(file)
            run(method, data, out=out / "run", settings=settings)

        assert in_a_fork(whole) == 0, case
        assert in_a_fork(dying) == -signal.SIGKILL, case
        (out / "killed").write_text("\n".join(sorted(content(out / "run"))))
        assert in_a_fork(lambda out=out: resume(out / "run")) == 0, case
