"""NVIDIA FLARE with certificates and real processes: a server, sites, and what befalls them.

Slow, as each job has to start its processes: run them by `pytest -m slow`.
"""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: pip install .[flare]")

import psutil

from counterpoint.data import write_phantom
from counterpoint.errors import StateError
from counterpoint.flare.job import write_job
from counterpoint.flare.poc import EVENTS, follow, kits, lay_out, wait_for_sites
from counterpoint.flare.processes import LOG, processes
from counterpoint.flare.provision import write_consortium
from counterpoint.flare.session import collect, status, submit
from counterpoint.remote import Plan
from counterpoint.remote.site_file import settings_file
from tests import lies
from tests.markers import damage, found, found_in, markers, plant
from tests.running import SHORT, start
from tests.test_remote import Loopback

pytestmark = pytest.mark.slow

SITES = ["north", "south"]
CLASSES = ["irregular", "round", "scalloped"]
PATIENCE = 240.0
"""Seconds; a machine with other work takes its time."""
LIMIT = 1 << 20
"""Bytes that a file may have on the disk that is full: more than a log has, less than a state."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = write_phantom(tmp_path_factory.mktemp("two") / "data", size=32, scale=0.1)
    for site in ("east", "west"):
        shutil.rmtree(folder / site)
    return folder


def settings(rounds):
    return SHORT | {"rounds": rounds, "model": "tests.running:Wide"}


def consortium(data, folder, engine):
    """Write a consortium's folder, of the engine's run and with its sites' own names."""
    write_consortium(
        folder,
        Plan(**plan_of(engine), name=folder.name),
        server="fl.example.org",
        port=8002,
        organisation="all",
        admin="admin@example.org",
        data={"data": str(data), "root": None},
        min_sites=0,
        deadline=0,
    )
    for file in (folder / "sites").glob("*.yaml"):
        file.write_text(file.read_text() + "\nimports: [tests.]\n")
    return folder


@pytest.fixture(scope="module")
def place(data, tmp_path_factory):
    """Return the folder of a rehearsal whose kits are made."""
    folder = tmp_path_factory.mktemp("consortium")
    engine = Loopback(folder, "fedavg", data, **settings(1))
    return lay_out(consortium(data, folder / "together", engine))


RECORDER = """
import os, sys

if os.environ.get("FRAMES_OF") in sys.orig_argv:
    from nvflare.fuel.f3.sfm.conn_manager import ConnManager

    take = ConnManager.process_frame_task

    def record(self, connection, frame):
        with open(os.path.join(os.environ["FRAMES"], str(os.getpid())), "ab") as file:
            file.write(frame)
        return take(self, connection, frame)

    ConnManager.process_frame_task = record

if os.environ.get("LIES_OF") in sys.orig_argv and "worker_process" in " ".join(sys.orig_argv):
    from tests.lies import lie_at_the_desk

    lie_at_the_desk()
"""
"""What every Python imports first. The server's own note down what they receive, out of TLS; those
of a job at one site lie where the run is one for lies."""


@pytest.fixture(scope="module")
def frames(place, tmp_path_factory):
    """Return the folder with all that the processes of the server receive."""
    folder, code = (tmp_path_factory.mktemp(name) for name in ("frames", "recorder"))
    (code / "sitecustomize.py").write_text(RECORDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(code))
        patch.setenv("FRAMES", str(folder))
        patch.setenv("FRAMES_OF", str(kits(place)[0]))
        patch.setenv("LIES_OF", str(kits(place)[2]))
        yield folder


@pytest.fixture(scope="module")
def ours(place, frames):
    """Return the processes of server and sites, connected."""
    with processes() as started:
        for kit in kits(place):
            started.start(kit)
        wait_for_sites(place, started, PATIENCE)
        yield started
    assert not started.all()


def job(place, engine, name, min_sites, deadline=0):
    """Put a run in place of the job, and submit it."""
    shutil.rmtree(place / "job")
    plan = Plan(**{**engine, "name": name})
    write_job(place / "job" / name, [plan], min_sites, deadline)
    (place / EVENTS).write_text("")
    return submit(place)


def plan_of(engine):
    names = ("settings", "classes", "form", "facts")
    return {name: getattr(engine.plan, name) for name in names} | {
        "sites": dict(zip(SITES, SITES, strict=True))
    }


def until(ours, file, true, may_end=frozenset()):
    """Wait until what a file holds is as wanted."""
    over = time.monotonic() + PATIENCE
    while not (file.exists() and true(file)):
        for kit, process in ours.started.items():
            assert kit in may_end or process.poll() is None, kit
        assert time.monotonic() < over, file.exists() and file.read_text()
        time.sleep(0.05)


def rounds_of(file):
    sent = pd.read_csv(file)
    return sent["round"].max() if len(sent) else 0


def same_as_loopback(engine, place, run):
    """Server, sites and messages have left the same files, bit for bit."""
    server, _, *_ = kits(place)
    for file in ("scores.csv", "payloads.csv", "results.json"):
        there = server / "runs" / run / file
        assert there.read_bytes() == (engine.folder / "server" / file).read_bytes(), file
    for site, kit in zip(SITES, kits(place)[1:], strict=True):
        mine = kit / "counterpoint" / run / "models" / "personal" / f"{site}.safetensors"
        other = engine.folder / site / "run" / "models" / "personal" / mine.name
        assert mine.read_bytes() == other.read_bytes(), site


def test_a_server_that_is_killed_goes_on_from_its_last_round(data, place, ours, tmp_path):
    engine = Loopback(tmp_path, "fedavg", data, **settings(6))
    engine.run()
    server = kits(place)[0]
    folder = server / "runs" / "killed"
    job(place, plan_of(engine), "killed", 0)
    until(ours, folder / "payloads.csv", lambda file: rounds_of(file) >= 2)
    ours.kill(server)
    had = rounds_of(folder / "payloads.csv")
    assert not (folder / "results.json").exists()
    ours.start(server)
    wait_for_sites(place, ours, PATIENCE)
    (place / EVENTS).write_text("")
    events = list(follow(place, ours, submit(place)))
    (begun,) = [event["from"] for event in events if "from" in event]
    assert 2 <= begun <= had + 1
    print(f"killed when round {had} was done; the server went on from round {begun}")
    same_as_loopback(engine, place, "killed")


def test_a_full_disk_leaves_a_site_out_and_the_others_as_they_are(data, place, ours, tmp_path):
    engine = Loopback(tmp_path, "fedavg", data, **settings(10))
    server, _, south = kits(place)
    number = job(place, plan_of(engine), "full", 1)
    file = server / "runs" / "full" / "payloads.csv"
    until(ours, file, lambda file: rounds_of(file) >= 2)
    of_south = [
        one
        for one in ours.all()
        if any(str(south) in word for word in one.cmdline()) and one.pid != ours.started[south].pid
    ]
    assert of_south
    for one in of_south:
        one.rlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
    until(ours, place / EVENTS, lambda file: file.read_text().count("'south' is left out") >= 2)
    for one in of_south:
        one.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    told = [event["warning"] for event in follow(place, ours, number) if "warning" in event]
    reason = "a file that the site keeps is damaged or missing, or can't be written"
    assert all(f"site 'south' is left out: {reason}" in one for one in told)
    logs = "".join(log.read_text() for log in south.rglob("log.txt"))
    assert "the disk is full" in logs
    without = {int(one.split(":")[0].removeprefix("round ")) for one in told}
    print(f"south's disk was full in rounds {sorted(without)}: {told[0]}")
    engine.change = lambda site, message, reply: (
        None if site == "south" and message.says.get("round") in without else reply
    )
    engine.run(min_sites=1)
    same_as_loopback(engine, place, "full")


def rounds_without(told):
    """By round of events, the words with which the one site was left out."""
    warned = [event["warning"] for event in told if "warning" in event]
    return {
        int(one.split(":")[0].removeprefix("round ")): one for one in warned if "left out" in one
    }


def test_wrong_late_and_broken_answers_cost_their_rounds_and_nothing_else(
    data, place, ours, tmp_path, monkeypatch
):
    """Numbers that are none, shapes, names, scores; slow, late, twice; a damaged state."""
    engine = Loopback(tmp_path, "fedavg", data, **settings(12))
    number = job(place, plan_of(engine), "lies", 1, lies.DEADLINE)
    told = list(follow(place, ours, number))
    without = rounds_without(told)
    expected = {round: words for round, (_, words) in lies.LIES.items() if words}
    assert sorted(without) == sorted(expected), without
    for round, words in expected.items():
        assert words in without[round]
        assert "site 'south' is left out" in without[round]
    logs = "".join(log.read_text() for log in kits(place)[2].rglob("log.txt"))
    assert "the state before it is used" in logs
    # FLARE asks before a late answer is sent whether it is still waited for
    assert re.search("peer=south.* is not found", (kits(place)[0] / LOG).read_text())
    monkeypatch.setattr(lies.time, "sleep", lambda seconds: None)

    def change(site, message, reply):
        if site != "south" or message.kind != "visit":
            return reply
        round = message.says["round"]
        answer = lies.lie(round, reply, tmp_path / "south" / "run" / "state")
        return None if round == lies.LATE else answer

    engine.change = change
    engine.run(min_sites=1)
    same_as_loopback(engine, place, "lies")
    print(*without.values(), sep="\n")


def test_a_site_that_is_killed_in_mid_round_is_back_in_after_its_start(data, place, ours, tmp_path):
    """Its processes are gone at once; started again, FLARE gives the job to it when it is sent."""
    engine = Loopback(tmp_path, "fedavg", data, **settings(40))
    _, _, south = kits(place)
    job(place, plan_of(engine), "dies", 1, 10)
    until(ours, place / EVENTS, lambda file: "'south' is left out" in file.read_text(), {south})
    ours.started.pop(south).wait(timeout=10)
    ours.start(south)
    wait_for_sites(place, ours, PATIENCE)
    assert status(place)["state"] == "RUNNING"  # with the other site, all the time
    before = [json.loads(line) for line in (place / EVENTS).read_text().splitlines()]
    (place / EVENTS).write_text("")
    again = list(follow(place, ours, submit(place)))
    (begun,) = [event["from"] for event in again if "from" in event]
    without = {round for round in rounds_without(before + again) if round <= begun}
    assert min(without) == lies.DEADLY
    assert not [round for round in rounds_without(again) if round > begun + 1]
    engine.change = lambda site, message, reply: (
        None if site == "south" and message.says.get("round") in without else reply
    )
    engine.run(min_sites=1)
    same_as_loopback(engine, place, "dies")
    print(f"killed in round {lies.DEADLY}, left out of {sorted(without)}, back after {begun}")


@contextlib.contextmanager
def planted(place, folder):
    """Have the sites work on images, names and tables that are full of markers."""
    tables = plant(folder, SITES)
    own = [
        kit / "local" / settings_file(site)
        for site, kit in zip(SITES, kits(place)[1:], strict=True)
    ]
    before = [file.read_text() for file in own]
    for file, text, table in zip(own, before, tables.values(), strict=True):
        file.write_text(re.sub("^data: .*$", f"data: {table}", text, flags=re.M))
    try:
        yield tables
    finally:
        for file, text in zip(own, before, strict=True):
            file.write_text(text)


def test_nothing_of_patients_comes_to_the_server(data, place, ours, frames, tmp_path):
    """A run whose training fails with an error full of markers, then one with a damaged image.

    Searched are all frames that the server has received since it was started, its whole kit with
    logs and stored jobs, and what the administrator collects.
    """
    server, *sites = kits(place)
    with planted(place, tmp_path) as tables:
        known = markers(tables.values())
        fails = Loopback(tmp_path, "fedavg", data, **settings(2) | {"model": "tests.markers:Fails"})
        with pytest.raises(StateError, match="0 of 2 sites"):
            list(follow(place, ours, job(place, plan_of(fails), "fails", 0)))
        damage(tables["south"])
        runs = Loopback(tmp_path, "fedavg", data, **settings(2))
        told = list(follow(place, ours, job(place, plan_of(runs), "damaged", 1)))
    assert any("'south' is left out: the site's data can't be used" in str(one) for one in told)
    received = [file.read_bytes() for file in frames.iterdir()]
    assert len(received) >= 3  # the server's own, and one for each job
    assert any(b"counterpoint.tensors" in one for one in received)
    assert not set().union(*(found(known, one) for one in received))
    collected = collect(place, tmp_path / "out")
    assert not any(found_in(known, run) for run in collected)
    assert not found_in(known, server)
    for kit in sites:  # each site's own log has it, and the search finds it there
        logs = [file.read_bytes() for file in kit.rglob("*log*") if file.is_file()]
        assert {"patient", "file name", "folder"} <= set().union(
            *(found(known, one) for one in logs)
        )
    print(f"{sum(map(len, received))} bytes received and {server.name}'s kit have no marker")


def test_a_strangers_certificate_is_refused(place, ours, tmp_path):
    """Somebody with kits of a consortium of the same names, made by another authority."""
    shutil.copytree(place, tmp_path / "strange" / "poc", ignore=shutil.ignore_patterns("kits"))
    for part in ("sites", "job", "project.yml"):
        there = tmp_path / "strange"
        copy = shutil.copytree if (place / part).is_dir() else shutil.copy
        copy(place / part, there / part)
    strange = lay_out(tmp_path / "strange")
    kit = kits(strange)[1]
    command = [sys.executable, "-m", "counterpoint.cli", "flare", "check", str(kit), "--json"]
    before = status(place)["sites connected"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["own certificate"]["ok"]
    assert not found["server's certificate"]["ok"]
    assert "not that of the kit's consortium" in found["server's certificate"]["found"]
    # one who does trust the server's certificate is refused by the server
    shutil.copy(kits(place)[1] / "startup" / "rootCA.pem", kit / "startup")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert "this kit's certificate" in found["server's certificate"]["found"]
    with processes() as theirs:
        theirs.start(kit)
        over = time.monotonic() + 60
        while "certificate" not in (text := (kit / "output.txt").read_text().lower()):
            assert time.monotonic() < over, text
            time.sleep(0.5)
    assert status(place)["sites connected"] == before == sorted(SITES)


def test_check_of_a_kit_whose_server_is_up(place, ours):
    command = [sys.executable, "-m", "counterpoint.cli", "flare", "check"]
    kit = kits(place)[1]
    done = subprocess.run(
        [*command, str(kit), "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert [one["ok"] for one in found] == [True] * 10


def test_ctrl_c_ends_all_of_a_rehearsal_and_it_goes_on(data, tmp_path):
    engine = Loopback(tmp_path, "prrfl", data, **settings(5))
    engine.run()
    folder = consortium(data, tmp_path / "rehearsed", engine)
    command = ["flare", "poc", folder, "--out", tmp_path / "out"]
    process = start(*command)
    events = folder / "poc" / EVENTS
    over = time.monotonic() + PATIENCE
    while not (events.exists() and '"round": 2' in events.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < over
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert not processes_of(folder)
    again = start(*command, "--quiet")
    _, errors = again.communicate(timeout=2 * PATIENCE)
    assert again.returncode == 0, errors
    assert not processes_of(folder)
    assert json.loads(events.read_text().splitlines()[0])["from"] >= 1
    same_as_loopback(engine, folder / "poc", "rehearsed")
    for file in ("scores.csv", "payloads.csv", "results.json"):
        collected = tmp_path / "out" / "rehearsed" / file
        assert collected.read_bytes() == (engine.folder / "server" / file).read_bytes()


def processes_of(folder):
    """Command lines of processes that were started from kits in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            found += [line] if str(folder) in line and "nvflare" in line else []
    return found
