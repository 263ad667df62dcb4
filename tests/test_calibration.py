"""How many sites train side by side."""

import sys
import threading
import warnings
from pathlib import Path

import loky
import pytest
import torch

from counterpoint import api, calibration, crew
from counterpoint.calibration import choose_workers
from counterpoint.cores import cores
from counterpoint.crew import Event, Report, share_cores
from counterpoint.memory import available, resident
from counterpoint.settings import make_settings
from counterpoint.tasks import make_task

SHAPE = (3, 16, 16)


def told(event: Event) -> None:
    """Report nothing."""


def choose(*images: int, most: int = 2, report: Report = told, **settings: object) -> int:
    chosen = make_settings("fedavg", "phantom", {"model": "tests.networks:Tiny", **settings})
    task = make_task("classification", ("a", "b"), chosen.method.schedule.loss)
    return choose_workers(chosen, task, SHAPE, images, most, threads=1, report=report)


@pytest.fixture
def takes(monkeypatch):
    """Say how long a step takes: of one model alone, and of two at once."""

    def say(alone: float, together: float) -> list[int]:
        asked: list[int] = []

        def seconds(models: list[object], *given: object) -> float:
            asked.append(len(models))
            return alone if len(models) == 1 else together

        monkeypatch.setattr(calibration, "_seconds", seconds)
        return asked

    return say


def test_side_by_side_where_it_saves_more_than_the_start_costs(takes):
    """50 rounds of 800 images in batches of 8 are 5000 steps: 500 s alone, 275 s two at a time."""
    takes(0.1, 0.11)
    assert choose(400, 400, rounds=50, local_epochs=1, batch_size=8) == 2


def test_one_after_the_other_where_two_at_once_take_twice_as_long(takes):
    takes(0.1, 0.2)
    assert choose(400, 400, rounds=50, local_epochs=1, batch_size=8) == 1


def test_one_after_the_other_where_one_site_has_nearly_all(takes):
    """Alone 500 s; side by side the large site's 760 images take 4750 steps of 0.11 s."""
    takes(0.1, 0.11)
    assert choose(760, 40, rounds=50, local_epochs=1, batch_size=8) == 1


def test_a_short_run_is_not_worth_the_start_of_processes(takes):
    asked = takes(0.1, 0.11)
    assert choose(40, 40, rounds=1, local_epochs=2, batch_size=8) == 1
    assert asked == [1]  # two at once were not even tried


@pytest.mark.parametrize(
    ("images", "asked", "given"),
    [
        ([50, 50], (None, None), (2, 1)),
        ([70, 30], (None, None), (1, 2)),  # 70 images on one core take longer than 100 on two
        ([70, 30], (2, None), (1, 2)),  # not four threads on two cores
        ([70, 30], (2, 1), (2, 1)),
        ([50, 50, 50], (3, None), (1, 2)),
        ([50] * 4, (4, None), (4, 1)),
    ],
)
def test_the_sites_share_two_cores(monkeypatch, images, asked, given):
    monkeypatch.setattr(crew, "physical_cores", lambda: 2)
    assert share_cores(images, *asked, torch.device("cpu")) == given


def test_a_core_that_takes_two_threads_is_one_to_compute_on(monkeypatch, capsys):
    def counted(only_physical_cores=False):
        if only_physical_cores:
            warnings.warn("could not find the number of physical cores", stacklevel=2)
            print("Traceback", file=sys.stderr)
        return 4 if only_physical_cores else 8

    monkeypatch.setattr(loky, "cpu_count", counted)
    with warnings.catch_warnings(action="error"):
        assert share_cores([50] * 4, None, None, torch.device("cpu")) == (4, 1)
        assert share_cores([50], None, None, torch.device("cpu")) == (1, 4)
    assert capsys.readouterr().err == ""
    most = crew.MOST_THREADS * cores()
    assert share_cores([50], None, most, torch.device("cpu")) == (1, most)  # if asked for


def test_workers_asked_for_are_cut_to_the_cores(monkeypatch, tmp_path):
    monkeypatch.setattr(api, "share_cores", lambda *given: (1, 2))
    settings = {"workers": 2, "image_size": 32, "train_limit": 4}
    chosen, *_ = api.prepare("fedavg", "phantom", tmp_path / "run", settings, lambda event: None)
    assert (chosen.machine.workers, chosen.machine.threads) == (1, 2)


def test_nothing_is_tried_where_there_is_no_choice(takes):
    asked = takes(0.1, 0.11)
    assert choose(400, 400, most=1) == 1
    assert asked == []


def test_a_trial_leaves_threads_and_random_numbers_as_they_were(monkeypatch):
    monkeypatch.setattr(calibration, "START", 0.0)
    threads, drawn = torch.get_num_threads(), torch.random.get_rng_state()
    assert choose(400, 400, rounds=50) in (1, 2)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), drawn)


def test_models_work_at_once():
    """Each waits until all have begun; one after the other they would wait in vain."""
    begun = threading.Barrier(3, timeout=30)

    class Waiting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            begun.wait()
            return images * self.weight

    batch = torch.ones(2, 3, 4, 4)
    assert calibration._seconds([Waiting() for _ in range(3)], batch, torch.float32) > 0


@pytest.mark.parametrize(("name", "workers"), [("mps", 1), ("cuda:1", 1), ("xpu", 1), ("cuda", 3)])
def test_workers_of_devices_beside_the_cpu(monkeypatch, name, workers):
    """One a GPU that can be told apart; side by side on one they only take each other's memory."""
    monkeypatch.setattr(crew, "physical_cores", lambda: 64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert share_cores([50] * 4, None, None, torch.device(name)) == (workers, 16)


def test_no_more_workers_than_memory_has_room_for(takes, monkeypatch):
    takes(0.1, 0.11)
    monkeypatch.setattr(calibration, "available", lambda: 4 * calibration.PROCESS + 1e9)
    sizes = iter([0, 5e8])
    monkeypatch.setattr(calibration, "resident", lambda: next(sizes))
    said: list[Event] = []
    assert choose(400, 400, 400, 400, most=4, rounds=50, batch_size=16, report=said.append) == 2
    assert said == [
        {
            "note": "there are cores for 4 sites side by side, and memory for 2; with --max-batch, "
            "batches in parts, they take less"
        }
    ]


def test_memory_is_that_of_the_machine_or_of_the_container(tmp_path):
    assert available(tmp_path) == float("inf")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8000 kB\n")
    assert available(tmp_path) == 8000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("2500\n")
    cached = "anon 800\nactive_file 500\ninactive_file 1000\n"  # given up where it is needed
    (group / "memory.stat").write_text(cached)
    for limit, left in (("max", 8000 * 1024), ("3000", 2000), ("500", 0)):
        (group / "memory.max").write_text(limit)
        assert available(tmp_path) == left
    assert resident(tmp_path / "none") == 0
    assert Path("/proc").exists() == (resident() > 1e6)
