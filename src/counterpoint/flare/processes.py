"""Processes of FLARE on this machine, and an end to all that they start."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from counterpoint.cores import physical_cores
from counterpoint.errors import StateError

MARK = "COUNTERPOINT_STARTED_BY"
"""Variable of the environment that says who has started a process. FLARE gives each job a session
of its own, and its processes outlive their parents: nothing else tells which are ours."""
LOG = "output.txt"
"""File in a kit with what its process prints."""


@dataclass
class Processes:
    """Processes by the folders that they were started in; ``sites`` of them share the cores."""

    sites: int = 1
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: dict[Path, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, kit: Path) -> None:
        """Start a kit as its ``start.sh`` does, but once: what ends is not started again."""
        self.run(kit, ["bash", str(kit / "startup" / "sub_start.sh"), "--once"], kit / LOG)

    def run(self, place: Path, command: list[str], log: Path) -> "subprocess.Popen[bytes]":
        """Start a command in a folder, with the Python and the packages of this process."""
        there = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": os.pathsep.join([there, os.environ.get("PATH", "")]),
            "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
            "LOKY_MAX_CPU_COUNT": str(max(1, physical_cores() // self.sites)),
            MARK: self.mark,
        }
        with open(log, "ab") as output:
            self.started[place] = subprocess.Popen(
                command,
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.started[place]

    def check_alive(self) -> None:
        """Raise StateError if a kit's process has ended."""
        for kit, process in self.started.items():
            if process.poll() is not None:
                raise StateError(
                    f"the process of {kit} has ended with code {process.returncode}; "
                    f"{kit / LOG} says why"
                )

    def kill(self, kit: Path) -> None:
        """End all processes of a kit as a power cut does; a job's own would outlive the kit's."""
        for process in self.all():
            with contextlib.suppress(psutil.Error):
                if any(str(kit) in word for word in process.cmdline()):
                    process.kill()
        self.started.pop(kit).wait()

    def all(self) -> list[psutil.Process]:
        """All processes that were started, and those that they have started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def end(self, patience: float = 10.0) -> None:
        """End them all: asked first, then made to."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            over = time.monotonic() + patience
            for process in self.all():
                with contextlib.suppress(psutil.Error):
                    process.send_signal(number)
            while self.all() and time.monotonic() < over:
                for started in self.started.values():
                    started.poll()
                time.sleep(0.2)
        self.started.clear()


@contextlib.contextmanager
def processes(sites: int = 1) -> Iterator[Processes]:
    """Processes that are all ended after the block, however it is left."""
    ours = Processes(sites)
    try:
        yield ours
    finally:
        with undisturbed():
            ours.end()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: a second one must not leave processes behind."""
    main = threading.current_thread() is threading.main_thread()  # no other is interrupted
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
