"""Run what is missing: each run a process, several side by side, none in another's way."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import IO, Any

import filelock

from counterpoint.crew import choose_device
from counterpoint.errors import StateError
from counterpoint.files import write_error
from counterpoint.settings import Machine
from counterpoint.study.plan import Planned, Study, over

Tell = Callable[[Planned | None, dict[str, object]], None]
"""Is told of every event of a run, or (None) of the study; called from several threads. A run's
last event is ``ended``: an empty text, or why it failed."""


@contextmanager
def held(study: Study) -> Iterator[None]:
    """Keep a second process from working on the same study.

    Raises:
        StateError: if one does already.
    """
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(study.folder / ".lock", timeout=0).acquire()
    except filelock.Timeout as error:
        raise StateError(f"another process is working on {study.folder}; wait for it") from error
    except OSError as error:
        raise write_error(study.folder, error) from error
    with lock:
        yield


def share_cores(runs: int, jobs: int | None, machine: Machine, cores: int) -> tuple[int, Machine]:
    """How many runs are side by side, and what each has, so that together they fill the cores.

    A GPU has one run at a time. Scores do not depend on it, but by rounding on ``threads``.

    >>> share_cores(runs=9, jobs=None, machine=Machine(device="cpu"), cores=4)
    (4, Machine(device='cpu', workers=1, threads=1, compile=False))
    >>> share_cores(runs=2, jobs=None, machine=Machine(device="cpu", threads=2), cores=8)
    (2, Machine(device='cpu', workers=2, threads=2, compile=False))
    """
    if choose_device(machine.device).type != "cpu":
        return jobs or 1, machine
    threads = machine.threads or 1
    jobs = jobs or max(1, min(runs, cores // (threads * (machine.workers or 1))))
    workers = machine.workers or max(1, cores // (threads * jobs))
    return jobs, replace(machine, workers=workers, threads=threads)


class Queue:
    """The first run of a seed decodes its images alone; the others then find them decoded."""

    def __init__(self) -> None:
        self.ready: set[int] = set()
        self.busy = False
        self.turn = threading.Condition()

    def wait(self, seed: int) -> None:
        """Return when the seed's images are decoded, or nobody else is at it."""
        with self.turn:
            self.turn.wait_for(lambda: seed in self.ready or not self.busy)
            self.busy = self.busy or seed not in self.ready

    def passed(self, seed: int) -> None:
        """Let the others pass: a run has decoded the seed's images, or has failed to."""
        with self.turn:
            if seed not in self.ready:
                self.ready.add(seed)
                self.busy = False
                self.turn.notify_all()


def run_missing(
    study: Study, runs: Sequence[Planned], jobs: int, machine: Machine, tell: Tell
) -> list[Planned]:
    """Run what has no results yet, ``jobs`` at a time; returns those that failed.

    Runs that were started are gone on with. If this process is interrupted or killed, all of them
    end at once, and what they had completed is kept.
    """
    running: set[subprocess.Popen[str]] = set()
    turn, queue, stopped = threading.Lock(), Queue(), False

    def pass_on(run: Planned, event: dict[str, object]) -> None:
        if "from" in event:  # it trains: all is decoded
            queue.passed(run.seed)
        tell(run, event)

    def play(run: Planned) -> bool:
        nonlocal stopped
        queue.wait(run.seed)
        try:
            with turn:
                if stopped:
                    return False
                process = start(study, run, machine)
                running.add(process)
            code = follow(process, run, pass_on)
        except BaseException:
            stopped = True  # nothing more is begun
            raise
        finally:
            queue.passed(run.seed)
        with turn:
            running.discard(process)
            if stopped:
                return False
        why = verdict(run, code)
        tell(run, {"ended": why})
        return not why

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        played = {pool.submit(play, run): run for run in runs if not run.finished}
        try:
            return [played[future] for future in as_completed(played) if not future.result()]
        finally:
            with turn:
                stopped = True
                for process in running:
                    process.kill()


def start(study: Study, run: Planned, machine: Machine) -> "subprocess.Popen[str]":
    """Start the process of a run, in a session of its own: Ctrl-C is for whoever started it."""
    _, options = study.settings_of(run.entry, run.seed)
    job = {
        "method": run.entry.method,
        "data": study.data,
        "folder": str(run.folder),
        "settings": over(options, {"machine": asdict(machine)}),
        "workers": machine.workers,
        "path": [place or os.getcwd() for place in sys.path],
    }
    try:
        run.log.parent.mkdir(parents=True, exist_ok=True)
        log = open(run.log, "w", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise write_error(run.log, error) from error
    with log:
        process = subprocess.Popen(
            [sys.executable, "-m", "counterpoint.study.job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": str(machine.threads or 1)},
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has died already: its end says why
        process.stdin.write(json.dumps(job, default=str) + "\n")
        process.stdin.flush()
    return process


def follow(
    process: "subprocess.Popen[str]",
    run: Planned,
    tell: Callable[[Planned, dict[str, object]], None],
) -> int:
    """Pass a run's events on until it ends; returns its exit code."""
    assert process.stdout is not None
    for event in events_of(process.stdout):
        tell(run, event)
    code = process.wait()
    with suppress(BrokenPipeError):
        process.stdin.close()  # type: ignore[union-attr]
    process.stdout.close()
    return code


def verdict(run: Planned, code: int) -> str:
    """Why a run failed that ended with an exit code; empty if it did not. Its log is kept then."""
    if code == 0 and run.finished:
        run.log.unlink(missing_ok=True)
        return ""
    if code < 0:
        with open(run.log, "a", encoding="utf-8") as log:
            log.write(f"error: {ended_by(-code)}\n")
    return run.reason


def events_of(lines: IO[str]) -> Iterator[dict[str, Any]]:
    """Events out of lines of JSON; the last line of a killed process may be torn."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


def ended_by(number: int) -> str:
    """What a signal means, in words.

    >>> ended_by(9)
    'ended from outside by SIGKILL, often for want of memory; try fewer --jobs'
    """
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    hint = ", often for want of memory; try fewer --jobs" if number == signal.SIGKILL else ""
    return f"ended from outside by {name}{hint}"
