"""How many sites train side by side."""

import os
import threading

import pytest
import torch

from counterpoint import api, calibration
from counterpoint.calibration import choose_workers
from counterpoint.crew import share_cores
from counterpoint.settings import make_settings
from counterpoint.tasks import make_task

SHAPE = (3, 16, 16)


def choose(*images: int, most: int = 2, **settings: object) -> int:
    chosen = make_settings("fedavg", "phantom", {"model": "tests.networks:Tiny", **settings})
    task = make_task("classification", ("a", "b"), chosen.method.schedule.loss)
    return choose_workers(chosen, task, SHAPE, images, most, threads=1)


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
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    assert share_cores(images, *asked, torch.device("cpu")) == given


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
