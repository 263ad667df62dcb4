"""The tutorial with five terminals, as its page has it: the commands are read from there.

Slow, as it is a whole consortium twice, in a rehearsal and from its kits.
"""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: pip install .[flare]")

import psutil

from counterpoint.flare.processes import MARK, processes
from counterpoint.remote.audit import read_record
from counterpoint.results import Result
from tests.running import ROOT

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "flare.md"
PORT = 8002
PATIENCE = 600.0
"""Seconds; a machine with other work takes its time."""
STEP = re.compile(
    r"^### (?P<step>\d+)\.|^```sh title=\"(?P<title>[^\"]+)\"\n(?P<text>.*?)^```", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """Commands of the page, and which step, terminals and sites they are of."""

    step: int
    terminals: list[str]
    sites: list[str]
    text: str

    def for_site(self, site):
        """The commands as another site types them, which has its own name in place of the first."""
        return re.sub(rf"\b{self.sites[0]}\b", site, self.text)


def blocks():
    """The commands of the tutorial in their order."""
    text = PAGE.read_text(encoding="utf-8").partition("## One machine, five terminals")[2]
    step, made = 0, []
    for found in STEP.finditer(text.partition("## Who keeps what")[0]):
        if found["step"]:
            step = int(found["step"])
            continue
        of, _, sites = found["title"].partition(":")
        names = [name.strip() for name in sites.split(",") if name.strip()]
        made.append(Block(step, re.findall(r"\d", of), names, found["text"]))
    return made


class Terminals:
    """Shells in one folder, in which `counterpoint` is this Python's."""

    def __init__(self, folder, ours):
        self.folder, self.ours, self.count = folder, ours, 0
        place = folder.parent / "bin"
        place.mkdir()
        command = place / "counterpoint"
        python = shlex.quote(sys.executable)
        command.write_text(f'#!/bin/sh\nexec {python} -m counterpoint.cli "$@"\n')
        command.chmod(0o755)
        path = [str(place), os.path.dirname(sys.executable), os.environ["PATH"]]
        self.environment = os.environ | {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
            MARK: ours.mark,
        }

    def type(self, text, fails=False):
        """Type commands into a new shell, and give what they print."""
        self.count += 1
        output = self.folder.parent / f"terminal-{self.count:02d}.txt"
        with open(output, "wb") as file:
            done = subprocess.run(
                ["bash", "-e", "-c", text],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,  # no pipe: what start.sh leaves behind would keep it open
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=PATIENCE,
            )
        said = output.read_text(errors="replace")
        assert fails or done.returncode == 0, f"{text}\n{said}"
        return said

    def until(self, what, true):
        """Wait for what a reader waits for."""
        over = time.monotonic() + PATIENCE
        while not (found := true()):
            assert time.monotonic() < over, what
            time.sleep(1)
        return found


@contextlib.contextmanager
def nothing_left(folder):
    """End whatever was started from a folder, should a test fail on the way."""
    try:
        yield
    finally:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(str(folder) in word for word in process.cmdline()):
                    process.kill()


def listens():
    with socket.socket() as one:
        return one.connect_ex(("localhost", PORT)) == 0


def test_the_page_has_the_steps_and_all_five_terminals():
    made = blocks()
    assert {block.step for block in made} == set(range(9))
    assert {one for block in made for one in block.terminals} == set("12345")
    assert all(len(block.sites) == 3 for block in made if "3" in block.terminals)


def test_the_tutorial_as_it_is_written(tmp_path):
    assert not listens(), f"something listens at port {PORT}, which the tutorial uses"
    folder = tmp_path / "empty"
    folder.mkdir()
    with nothing_left(folder), processes() as ours:
        terminals = Terminals(folder, ours)
        submitted = False
        for block in blocks():
            began = time.monotonic()
            if block.step == 5:
                terminals.until("the server does not listen", listens)
            if "status" in block.text:  # a reader looks until it shows what the page says
                wanted = "FINISHED:COMPLETED" if submitted else "north, south, west"
                terminals.until(wanted, lambda b=block, w=wanted: w in terminals.type(b.text))
                continue
            submitted = submitted or "submit" in block.text
            for site in block.sites or [None]:
                said = terminals.type(block.for_site(site) if site else block.text)
            print(f"step {block.step}: {time.monotonic() - began:.0f} s")
            if block.step == 7:
                assert "visit" in said
        terminals.until("processes are left", lambda: not ours.all())
    look_at(folder)


def look_at(folder):
    """What the page says of what is left is there, and the rehearsal gave the same scores."""
    result, rehearsed = Result(folder / "runs" / "together"), Result(folder / "rehearsal/together")
    kits = folder / "together" / "kits" / "together" / "prod_00"
    assert sorted(result.results["test"]) == ["north", "south", "west"]
    assert result.results["test"] == rehearsed.results["test"]
    assert not (folder / "runs" / "together" / "models" / "personal").exists()
    for site in ("north", "south", "west"):
        mine = kits / site / "counterpoint"
        assert (mine / "together" / "models" / "personal" / f"{site}.safetensors").exists()
        assert (mine / "together" / "test_cases.csv").exists()
        assert set(read_record(mine)["kind"]) == {"hello", "visit", "test"}
    assert list((kits / "localhost" / "flare" / "jobs-storage").iterdir())
