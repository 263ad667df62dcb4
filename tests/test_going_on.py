"""A run never loses work: killed, interrupted, damaged or out of space, it reaches the same end."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from counterpoint import load, resume, run
from counterpoint.cli.common import what_is_left
from counterpoint.crew import gather, memory_in_words
from counterpoint.data import write_phantom
from counterpoint.errors import SettingsError, StateError, TrainingError
from counterpoint.folder import RunFolder, fingerprint
from counterpoint.results import Result
from counterpoint.settings import make_settings
from counterpoint.tasks import Classification
from tests.running import (
    ROOT,
    SHORT,
    TINY,
    Stopped,
    alive,
    all_ended,
    assert_same,
    call,
    content,
    ended,
    grow,
    options,
    send,
    start,
    stop_in,
)

# All that a site's state can hold: two models, an amplitude, and Adam's moments.
EVERYTHING = {
    "local": "deputy",
    "aggregation": "pfa",
    "statistics": "averaged",
    "optimizer": "adam",
    "keep_optimizer": True,
}
DENSE = {"model": "tests.running:TinyDense", "task": "segmentation"}
WIDE = {
    "model": "tests.running:Wide",
    "optimizer": "adam",
    "keep_optimizer": True,
    "rounds": 5,
    "select_last": 0.2,  # no candidate before the last round
}
# All that a run can leave between rounds, and a file in whose write it is killed.
KEPT = {
    "momentum": ("harmofl", TINY, "site-0000-00002-state"),
    "adam": ("harmofl", {**TINY, "optimizer": "adam"}, "site-0000-00002-state"),
    "scaffold": ("scaffold", TINY, "mean-00002"),
    "fedadam": ("fedadam", TINY, "server-00002"),
    "moon": ("moon", TINY, "site-0001-00003-state"),
    "prototypes": ("prrfl-journal", {**TINY, "local.warm_up": 1}, "site-0000-00002-state"),
    "participation": ("scaffold", {**TINY, "participation": 0.5, "rounds": 4}, "round-00002"),
    "finetune": ("finetune", {**TINY, "finetune_epochs": 2}, "site-0001-00004-candidate"),
    "segmentation": ("fedbn", DENSE, "site-0001-00002-state"),
    "written over": ("fedavg", WIDE, "site-0000-00005-state"),
}


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return a folder with the phantom's images for two sites, few and small."""
    folder = write_phantom(tmp_path_factory.mktemp("small") / "data", size=32, scale=0.1)
    for site in ("north", "south"):
        shutil.rmtree(folder / site)
    return folder


@pytest.fixture(scope="session")
def tiny(small, tmp_path_factory):
    """Return the folder of a run of a tiny network that was never stopped."""
    out = tmp_path_factory.mktemp("tiny") / "run"
    run("fedavg", str(small), out=out, settings=SHORT | TINY)
    return out


@pytest.fixture(scope="session")
def after_two(small, tmp_path_factory):
    """Return the folder of the same run, stopped when two of its three rounds were complete."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        run("fedavg", str(small), out=out, settings=SHORT | TINY, report=stop_in(3))
    return out


@pytest.fixture
def stopped(after_two, tmp_path):
    """Return a copy of the stopped run, to go on with or to damage."""
    return Path(shutil.copytree(after_two, tmp_path / "stopped"))


def rounds(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "state").glob("round-*.json"))


@pytest.mark.parametrize("method", ["fedavg", "harmofl", "fedbn"])
def test_what_all_sites_have_is_written_once(small, tmp_path, monkeypatch, method):
    """A file system without links has it once a site; all else is the same."""
    run(method, str(small), out=tmp_path / "links", settings=SHORT | TINY)
    monkeypatch.setattr(os, "link", failing_link)
    run(method, str(small), out=tmp_path / "none", settings=SHORT | TINY)
    assert_same(tmp_path / "links", tmp_path / "none")
    of_a_run = {
        name: [file.stat().st_ino for file in (tmp_path / name).glob("state/*candidate*")]
        for name in ("links", "none")
    }
    assert all(len(places) >= 2 for places in of_a_run.values())
    files = {name: len(set(places)) for name, places in of_a_run.items()}
    assert files["none"] == len(of_a_run["none"])
    assert (files["links"] < files["none"]) == (method != "fedbn")
    for file in (tmp_path / "links").glob("state/*candidate*"):
        if method == "harmofl":  # only batches are not counted
            assert load_file(file)["harmonise.ready"].item()


def failing_link(*_: object) -> None:
    raise OSError("no links here")


# Killed


def test_killed_three_times(small, tmp_path):
    """By kill -9: after a round, in the middle of a round, and between last round and results."""
    settings = SHORT | {"select_last": 1.0, "rounds": 2}
    out, never = tmp_path / "run", tmp_path / "never"
    run("prrfl", str(small), out=never, settings=settings)
    process = start("run", "prrfl", small, "--out", out, *options(settings))
    for file in ("round-00001.json", "site-0000-00002-state.safetensors", "round-00003.json"):
        send(signal.SIGKILL, process, out / "state" / file)
        assert ended(process)[0] == -signal.SIGKILL
        assert not (out / "results.json").exists()
        process = start("resume", out)
    code, printed, errors = ended(process)
    assert (code, "warning" in errors, "Traceback" in errors) == (0, False, False)
    assert "test scores" in printed
    assert_same(out, never)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_kept_optimizer_is_kept(small, tmp_path, optimizer):
    """Without it the runs above would say little: it changes what the second round does."""
    means = []
    for keep in (True, False):
        settings = SHORT | TINY | {"optimizer": optimizer, "momentum": 0.9, "rounds": 2}
        out = tmp_path / str(keep)
        run("fedavg", str(small), out=out, settings=settings | {"keep_optimizer": keep})
        left = content(out)
        assert (b"optimizer/model/0/" in left["state/site-0000-00002-state.safetensors"]) == keep
        means.append(left["state/mean-00002.safetensors"])
    assert means[0] != means[1]


def test_killed_in_every_write(small, tmp_path):
    """Whichever write to the run's folder the kill comes in, half of it done, the end is the same.

    Each of some 30 runs is killed by SIGKILL in another write; see `die_everywhere`.
    """
    settings = {**SHORT, **TINY, **EVERYTHING, "rounds": 2}
    code = (
        "import sys, json; from pathlib import Path; from tests.running import die_everywhere;"
        "die_everywhere(Path(sys.argv[1]), 'harmofl', sys.argv[2], json.loads(sys.argv[3]))"
    )
    arguments = [str(tmp_path), str(small), json.dumps(settings)]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=280,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    *killed, reference = sorted(folder for folder in tmp_path.iterdir() if folder.is_dir())
    left = "\n".join(path.read_text() for path in tmp_path.glob("*.killed"))
    for torn in ("00002-state", "00002-candidate", "mean-", "round-00003", "results", "east"):
        assert re.search(rf"\.[\w-]*{torn}[.\w-]*\.part", left), f"no kill in a write of {torn}"
    assert len(killed) > 28
    for folder in killed:
        assert_same(folder, reference)


@pytest.fixture(scope="module")
def killed(small, tmp_path_factory):
    """Return a folder with two runs of each of KEPT: killed and gone on with, and never stopped."""
    folder = tmp_path_factory.mktemp("killed")
    cases = {n: (method, SHORT | settings, file) for n, (method, settings, file) in KEPT.items()}
    code = (
        "import sys, json; from pathlib import Path; from tests.running import die_once_each;"
        "die_once_each(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(small), json.dumps(cases)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=280,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return folder


@pytest.mark.parametrize("case", KEPT)
def test_killed_with_all_that_can_be_kept(killed, case):
    """By kill -9 in the middle of a write: what server and sites remember comes back too."""
    torn, left = KEPT[case][2], (killed / case / "killed").read_text()
    assert re.search(rf"\.{torn}.*\.part", left)
    assert ("state/round-0000" in left, "results.json" in left) == (True, False)
    if case == "written over":  # of the states of round 2, one is, the other was waiting for it
        waiting = [f"site-000{site}-00002-state.safetensors.spare.part" in left for site in (0, 1)]
        assert waiting == [False, True]
    assert not list((killed / case).rglob("*.part"))
    assert_same(killed / case / "run", killed / case / "never")


def test_there_was_something_to_keep(killed):
    """Without it the test above would say little."""

    def kept(case: str, file: str) -> dict[str, torch.Tensor]:
        return load_file(killed / case / "never" / "state" / f"{file}.safetensors")

    def moved(tensors: dict[str, torch.Tensor], prefix: str) -> bool:
        return any(n.startswith(prefix) and bool(t.any()) for n, t in tensors.items())

    def trained(case: str) -> pd.DataFrame:
        scores = Result(killed / case / "never").scores
        return scores[scores["moment"].isin(["epoch", "finetuned"])]

    for case in ("momentum", "adam"):
        assert moved(kept(case, "site-0001-00003-state"), "optimizer/model/0/")
        assert moved(kept(case, "site-0001-00003-state"), "model/model/harmonise.amplitude")
    assert moved(kept("scaffold", "mean-00003"), "local.control.")
    assert moved(kept("scaffold", "site-0001-00003-state"), "memory/")
    assert moved(kept("fedadam", "server-00003"), "m.")
    assert moved(kept("fedadam", "server-00003"), "v.")
    assert moved(kept("moon", "site-0001-00003-state"), "memory/network.")
    assert moved(kept("prototypes", "site-0001-00003-state"), "memory/rounds")
    assert moved(kept("prototypes", "mean-00003"), "local.prototypes")
    assert moved(kept("segmentation", "site-0001-00003-state"), "optimizer/model/0/")
    by_round = trained("participation").groupby("round")["site"].agg(list)
    assert by_round.str.len().tolist() == [1, 1, 1, 1]
    assert {site for (site,) in by_round} == {"east", "west"}
    finetuned = trained("finetune").query("moment == 'finetuned' and split == 'validation'")
    assert sorted(finetuned["epoch"]) == [1, 1, 2, 2]
    assert Result(killed / "segmentation" / "never").table["hd95"].notna().any()


def test_killed_with_workers(small, tiny, tmp_path):
    """No worker outlives its parent, even after kill -9, and one process goes on to the end."""
    out = tmp_path / "run"
    two = SHORT | TINY | {"workers": 2}
    process = start("run", "fedavg", small, "--out", out, *options(two))
    send(signal.SIGKILL, process, out / "state" / "round-00001.json")
    workers = [line for line in alive(process.pid) if "loky" in line]
    assert len(workers) >= 2
    assert all_ended(process.pid)
    assert ended(process)[0] == -signal.SIGKILL
    resume(out, workers=1)
    assert_same(out, tiny)


def test_a_killed_worker(small, tiny, tmp_path):
    """A worker that is killed, as for want of memory, is an error in words; then it goes on."""
    out = tmp_path / "run"

    def kill_a_worker(event: dict[str, object]) -> None:
        if event.get("round") == 2 and event.get("moment") == "epoch":
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    line = (folder / "cmdline").read_text()
                except OSError:
                    continue
                if int(parent) == os.getpid() and "LokyProcess" in line:
                    os.kill(int(folder.name), signal.SIGKILL)

    two = SHORT | TINY | {"workers": 2}
    with pytest.raises(TrainingError, match=r"worker process was ended.*counterpoint resume"):
        run("fedavg", str(small), out=out, settings=two, report=kill_a_worker)
    assert rounds(out)
    resume(out, workers=1)
    assert_same(out, tiny)


def test_a_worker_killed_while_it_reports():
    """It is an error, and not a wait without end; what was reported before is not lost."""
    code = (
        "from counterpoint.crew import gather\n"
        "from counterpoint.settings import make_settings\n"
        "from counterpoint.tasks import Classification\n"
        "from tests.running import die_with_the_lock\n"
        "settings = make_settings('fedavg', 'phantom', {'model': 'tests.running:Tiny'})\n"
        "with gather(settings, Classification(('a', 'b')), (3, 32, 32), 2, 1, print) as crew:\n"
        "    list(crew(die_with_the_lock, [1, 2]))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    assert "TrainingError: a worker process was ended" in process.stderr
    assert "{'job': " in process.stdout


def test_a_worker_may_grow():
    """loky takes that for a leak where psutil is installed, and would start another."""
    pytest.importorskip("psutil")
    settings = make_settings("fedavg", "phantom", {"model": "tests.running:Tiny"})
    task = Classification(("a", "b"))
    with gather(settings, task, (3, 32, 32), 2, 1, lambda event: None) as crew:
        assert len(set(crew(grow, range(5)))) == 2


@pytest.mark.parametrize("case", ["adam", "segmentation"])
def test_workers_change_nothing(small, killed, tmp_path, case):
    method, settings, _ = KEPT[case]
    run(method, str(small), out=tmp_path / "two", settings=SHORT | settings | {"workers": 2})
    assert_same(tmp_path / "two", killed / case / "never")
    saved = (tmp_path / "two" / "settings.yaml").read_text()
    one = (killed / case / "never" / "settings.yaml").read_text()
    assert saved == one.replace("workers: 1", "workers: 2") != one


def test_the_servers_process_has_the_threads_of_a_worker(small, tmp_path):
    """With more it would wait for cores that its workers have, at every sum."""
    before, seen = torch.get_num_threads(), []

    def report(event: dict[str, object]) -> None:
        if "validation" in event:
            seen.append(torch.get_num_threads())

    torch.set_num_threads(3)
    try:
        two = SHORT | TINY | {"workers": 2}
        run("fedavg", str(small), out=tmp_path / "run", settings=two, report=report)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


# Interrupted


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted(small, tiny, tmp_path, workers):
    """Ctrl-C: exit code 130, a sentence on how to go on, and no process stays behind."""
    out = tmp_path / "run"
    settings = SHORT | TINY | {"workers": workers}
    process = start("run", "fedavg", small, "--out", out, *options(settings))
    send(signal.SIGINT, process, out / "state" / "round-00001.json")
    code, _, errors = ended(process)
    assert code == 130, errors
    assert "counterpoint resume" in errors
    assert "Traceback" not in errors
    assert all_ended(process.pid)
    assert not list(out.rglob("*.part"))
    assert not (out / "results.json").exists()
    resume(out, workers=1)
    assert_same(out, tiny)


# Damaged


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (flip, "site-0000-00002-state.safetensors"),
        (cut, "site-0001-00002-state.safetensors"),
        (Path.unlink, "site-0001-00002-state.safetensors"),
        (flip, "site-0000-00002-candidate.safetensors"),
        (flip, "mean-00002.safetensors"),
        (flip, "round-00002.json"),
        (cut, "round-00002.json"),
        (lambda path: path.write_bytes(b""), "round-00002.json"),
        (lambda path: path.write_bytes(b"\xff\0"), "round-00002.json"),
    ],
)
def test_a_damaged_round_is_played_again(stopped, tiny, damage, file):
    damage(stopped / "state" / file)
    events = []
    resume(stopped, report=events.append)
    warnings = [str(event["warning"]) for event in events if "warning" in event]
    assert len(warnings) == 1
    assert str(stopped / "state" / file) in warnings[0]
    assert "the round before it is used" in warnings[0]
    assert [event["from"] for event in events if "from" in event] == [1]
    assert_same(stopped, tiny)


def test_an_undamaged_run_goes_on_where_it_was(stopped, tiny):
    """What the tests of damage stand against: no warning, and two rounds are not played again."""
    events = []
    resume(stopped, report=events.append)
    assert not [event for event in events if "warning" in event]
    assert [event["from"] for event in events if "from" in event] == [2]
    assert_same(stopped, tiny)


def test_a_damage_is_said_on_the_command_line(stopped, tiny):
    flip(stopped / "state" / "site-0000-00002-state.safetensors")
    code, printed, errors = call("resume", stopped)
    assert (code, "test scores" in printed) == (0, True)
    said = "".join(errors.split())  # lines may be broken anywhere
    assert "warning:" in said
    assert "isdamaged;theroundbeforeitisused" in said
    assert_same(stopped, tiny)


def test_logs_that_were_added_to_are_cut_back(stopped, tiny):
    for log in ("scores.csv", "payloads.csv"):
        with open(stopped / log, "a", encoding="utf-8") as file:
            file.write("4,half a li")
    resume(stopped)
    assert_same(stopped, tiny)


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_all_rounds_damaged(stopped, damage):
    for round in (1, 2):
        damage(stopped / "state" / f"site-0000-0000{round}-state.safetensors")
    before = content(stopped)
    with pytest.raises(StateError, match=r"no saved round .* is whole: .*00002.*00001") as caught:
        resume(stopped)
    assert "another --out" in str(caught.value)
    assert call("resume", stopped)[0] == 1
    assert content(stopped) == before


def test_models_chosen_long_ago_are_damaged(stopped):
    """Both saved rounds name them; what was trained since is not lost."""

    def stop_at_the_last_merge(event: dict[str, object]) -> None:
        if (event.get("round"), event.get("moment")) == (3, "merged"):
            raise Stopped

    with pytest.raises(Stopped):
        resume(stopped, report=stop_at_the_last_merge)  # rounds 2 and 3 are complete
    models = {file.stat().st_ino: file for file in (stopped / "state").glob("*candidate*")}
    for file in models.values():  # one that all sites have is one file with several names
        flip(file)
    events = []
    result = resume(stopped, report=events.append)
    warnings = [str(event["warning"]) for event in events if "warning" in event]
    assert "chooses among the rounds from here on" in warnings[-1]
    assert result.results["chosen_round"] >= 2
    assert [event["from"] for event in events if "from" in event] == [2]


def test_nothing_is_left_to_choose(stopped):
    """The models chosen so far are damaged, and so is the notebook of an earlier round."""

    def stop_at_the_test(event: dict[str, object]) -> None:
        if "tested" in event:
            raise Stopped

    with pytest.raises(Stopped):
        resume(stopped, report=stop_at_the_test)
    *_, older, last = sorted((stopped / "state").glob("round-*.json"))
    chosen = RunFolder(stopped)._read(last).candidates
    (stopped / "state" / next(iter(chosen.values())).file).unlink()
    cut(older)
    with pytest.raises(StateError, match=r"damaged, and no round is left .* another --out"):
        resume(stopped)
    assert not (stopped / "models").exists()
    assert not (stopped / "results.json").exists()


def test_a_run_across_sites_is_not_resumed_here(stopped):
    """Its states are at its sites; those of a rehearsal are gone."""
    facts = json.loads((stopped / "state" / "facts.json").read_text())
    (stopped / "state" / "facts.json").write_text(json.dumps(facts | {"plan": "its checksum"}))
    code, _, error = call("resume", stopped)
    assert code == 1
    assert "Submit its job again" in error
    assert "another --out" in error
    code, _, error = call("run", "fedavg", "phantom", "--out", stopped)
    assert code == 2
    assert "choose another --out" in error
    assert "resume" not in error
    assert "resume" not in what_is_left(stopped)


def test_workers_that_can_not_be(stopped):
    code, _, error = call("resume", stopped, "--workers", 0)
    assert code == 2
    assert "machine.workers" in error


def test_a_folder_that_was_left_half_written_is_swept(stopped, tiny):
    left = stopped / ".predictions.123.part"
    left.mkdir()
    (left / "one.png").write_text("half")
    resume(stopped)
    assert not left.exists()
    assert_same(stopped, tiny)


def test_what_was_left_out_at_the_loading_stays_out(small, tmp_path):
    """A federation that is loaded with ``skip_bad`` is gone on with as it was."""
    data = Path(shutil.copytree(small, tmp_path / "data"))
    table = pd.read_csv(data / "east" / "labels.csv")
    with_one_more = pd.concat([table, table.tail(1).assign(image="nowhere.png")])
    with_one_more.to_csv(data / "east" / "labels.csv", index=False)
    federation = load(data, skip_bad=True)
    settings = {name: value for name, value in (SHORT | TINY).items() if name != "train_limit"}
    with pytest.raises(Stopped):
        run("fedavg", federation, out=tmp_path / "run", settings=settings, report=stop_in(2))
    assert resume(tmp_path / "run").results["mean"]


def test_lost_lines_of_a_log(stopped):
    (stopped / "scores.csv").write_text("round\n")
    with pytest.raises(StateError, match=r"no saved round .*scores.csv has lost lines"):
        resume(stopped)


# Out of space


@contextmanager
def most_bytes(limit: int) -> Iterator[None]:
    """Let no file that this process writes grow beyond ``limit``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("limit", "file", "in_a_process"),
    [
        (500, "state/site-0000-00003-candidate.safetensors", True),
        (1900, "payloads.csv", False),
    ],
)
def test_a_full_disk(stopped, tiny, limit, file, in_a_process):
    """The round that does not fit has not happened; with more space, the end is the same."""
    notebook = (stopped / "state" / "round-00002.json").read_bytes()
    if in_a_process:
        code, _, errors = ended(start("resume", stopped, limit=limit))
    else:
        with most_bytes(limit):
            code, _, errors = call("resume", stopped)
    assert (code, "Traceback" in errors) == (1, False), errors
    assert f"the disk is full: {stopped / file}" in errors
    assert f"free some space and try again: go on with `counterpoint resume {stopped}`" in errors
    assert not list(stopped.rglob("*.part"))
    assert rounds(stopped) == ["round-00001.json", "round-00002.json"]
    assert (stopped / "state" / "round-00002.json").read_bytes() == notebook
    saved, damaged = RunFolder(stopped).latest()
    assert (saved.round, damaged) == (2, [])
    resume(stopped)
    assert_same(stopped, tiny)


def test_a_full_disk_at_the_figure(stopped, tiny):
    """Figures are larger than all else here; they are whole or not there, and drawn later."""
    with most_bytes(10_000):
        code, _, errors = call("resume", stopped)
    assert (code, f"the disk is full: {stopped / 'retrogress.png'}" in errors) == (1, True)
    assert not list(stopped.glob("*retrogress*"))
    assert call("resume", stopped)[0] == 0
    assert (stopped / "retrogress.svg").read_text().endswith("</svg>\n")
    assert_same(stopped, tiny)


# Not the same run


def test_a_folder_that_exists_is_left_as_it_is(stopped, small, tmp_path):
    before = content(stopped)
    code, _, errors = call("run", "fedavg", small, "--out", stopped, *options(SHORT | TINY))
    assert code == 2
    assert f"counterpoint resume {stopped}" in errors
    assert content(stopped) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    for out in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        code, _, errors = call("run", "fedavg", small, "--out", out, *options(SHORT | TINY))
        assert (code, "another --out" in errors, "resume" in errors) == (2, True, False)
    assert content(tmp_path / "mine") == {"thesis.txt": b"years"}


def test_no_run_to_go_on_with(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        code, _, errors = call("resume", path)
        assert (code, f"{path} is not the folder of a run" in errors) == (1, True)
        assert call("show", path)[0] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_settings_that_cannot_be_read(stopped):
    (stopped / "settings.yaml").write_text("method: [")
    with pytest.raises(StateError, match=r"settings.yaml can't be read"):
        resume(stopped)


def test_a_finished_run_is_shown_again(tiny, tmp_path):
    out = Path(shutil.copytree(tiny, tmp_path / "run"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.*")}
    shown, again = call("show", out), call("resume", out)
    assert shown[:2] == again[:2]
    assert "was complete already" in again[2]
    assert (again[0], "test scores" in again[1], "worst" in again[1]) == (0, True, True)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.*")}
    assert before == after
    assert_same(out, tiny)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\nseed: 1\n", "\nseed: 2\n"),
        ("lr: 0.01", "lr: 0.02"),
        ("machine:", "machines:"),
        ("kind: plain", "kind: proximal"),
    ],
)
def test_other_settings_are_refused(stopped, tiny, before, after):
    file = stopped / "settings.yaml"
    text = file.read_text()
    assert text.count(before) == 1
    kept = content(stopped)
    file.write_text(text.replace(before, after))
    assert call("resume", stopped)[0] in (1, 2)
    assert content(stopped) == kept
    file.write_text("# a remark, which changes nothing\n" + text)
    resume(stopped)
    assert_same(stopped, tiny)


def test_a_run_of_an_earlier_version_goes_on(stopped, tiny):
    """What could not be set when it was started has the value that changes nothing."""
    file, facts_file = stopped / "settings.yaml", stopped / "state" / "facts.json"
    values, facts = yaml.safe_load(file.read_text()), json.loads(facts_file.read_text())
    assert facts["settings"] == fingerprint(values)
    del values["schedule"]["max_batch"], values["machine"]["compile"]
    file.write_text(yaml.safe_dump(values))
    facts_file.write_text(json.dumps(facts | {"settings": fingerprint(values)}))
    resume(stopped)
    assert (stopped / "scores.csv").read_bytes() == (tiny / "scores.csv").read_bytes()


@pytest.mark.parametrize("change", ["an image", "a label", "a row"])
def test_other_data_are_refused(small, tiny, tmp_path, change):
    mine = Path(shutil.copytree(small, tmp_path / "data"))
    table = mine / "east" / "labels.csv"
    image = mine / "east" / "images" / "0003.png"
    kept = table.read_text(), image.read_bytes()
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run("fedavg", str(mine), out=out, settings=SHORT | TINY, report=stop_in(3))
    before = content(out)
    lines = kept[0].splitlines()
    if change == "an image":
        pixels = np.asarray(Image.open(image)).copy()
        pixels[0, 0, 0] ^= 1
        Image.fromarray(pixels).save(image)
    elif change == "a label":
        kind = {"nevus": "melanoma"}.get(lines[1].split(",")[2], "nevus")
        lines[1] = ",".join([*lines[1].split(",")[:2], kind, lines[1].split(",")[3]])
        table.write_text("\n".join(lines) + "\n")
    else:
        table.write_text("\n".join(lines[:-1]) + "\n")
    code, _, errors = call("resume", out)
    assert code == 1
    assert f"the data are not those that {out} was started on" in errors
    assert "images, labels or splits of east" in errors
    assert content(out) == before
    table.write_text(kept[0])
    image.write_bytes(kept[1])
    resume(out)
    assert_same(out, tiny)


def test_two_processes_on_one_run(stopped, tiny):
    """The second is refused, and the first goes on unharmed."""
    seen = []

    def start_another(event: dict[str, object]) -> None:
        if event.get("moment") == "epoch" and not seen:
            seen.append(ended(start("resume", stopped)))

    resume(stopped, report=start_another)
    ((code, _, errors),) = seen
    assert code == 1
    assert f"another process is working on {stopped}" in errors
    assert_same(stopped, tiny)


def crew_of(device: str = "cpu") -> Any:
    settings = make_settings("fedavg", "phantom", {"model": "tests.running:Tiny", "device": device})
    return gather(settings, Classification(("a", "b")), (3, 32, 32), 2, 1, print)


def process_id(client: object, job: object, report: object) -> int:
    return os.getpid()


def test_a_worker_that_dies_between_two_rounds_says_so() -> None:
    with crew_of() as crew:
        first, *_ = crew(process_id, range(4))
        os.kill(first, signal.SIGKILL)
        time.sleep(1)
        with pytest.raises(TrainingError, match="was ended from outside"):
            list(crew(process_id, range(4)))


def test_what_is_wrong_at_the_start_of_a_worker_is_said() -> None:
    """And not that it was ended from outside."""
    words = "device 'cuda:5' can't be used here"
    with crew_of("cuda:5") as crew, pytest.raises(SettingsError, match=words):
        list(crew(process_id, range(4)))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_no_bug(error: Exception) -> None:
    words = "too little memory; try fewer --workers, --max"
    with pytest.raises(TrainingError, match=words), memory_in_words():
        raise error
    with pytest.raises(RuntimeError, match="another"), memory_in_words():
        raise RuntimeError("another")


def test_another_device_is_told(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        run("fedavg", "phantom", out=out, report=stop_in(2), **SHORT, **TINY)
    file = out / "state" / "facts.json"
    file.write_text(file.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    said: list[dict[str, object]] = []
    resume(out, report=said.append)
    assert any("was begun on cuda and goes on on cpu" in str(e.get("warning")) for e in said)
