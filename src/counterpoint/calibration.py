"""How many sites train side by side, measured on a few steps of the run's own network."""

import copy
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from counterpoint.crew import Report, busiest
from counterpoint.data.batches import layout
from counterpoint.first import first_predictor, laid_out
from counterpoint.local.training import computing_in
from counterpoint.memory import available, resident
from counterpoint.predictor import Predictor
from counterpoint.processor import settled
from counterpoint.settings import Settings
from counterpoint.tasks import Task

START = 3.0
"""Seconds that worker processes take before their first step: imports, on cores that are busy."""

PROCESS = 5e8
"""Bytes that a worker process takes before its first step."""

ENOUGH = 8
"""Images in the batch that is timed."""


def choose_workers(
    settings: Settings,
    task: Task,
    shape: tuple[int, ...],
    images: Sequence[int],
    most: int,
    threads: int,
    report: Report,
) -> int:
    """How many worker processes pay: ``most`` or 1. What a run computes does not depend on it.

    One step is timed alone, then ``most`` of them at once. Side by side wins if what it saves in
    the whole run is more than the start of the processes. Where memory has no room for ``most``
    of them, it is as many as there is room for.

    Args:
        settings: of the run.
        task: its task.
        shape: of an image (C, *space).
        images: training images of each site.
        most: workers that the cores have room for.
        threads: torch threads of a worker.
        report: is told if memory is what there is too little of.
    """
    if most == 1:
        return 1
    method, schedule = settings.method, settings.method.schedule
    first = laid_out(first_predictor(method, task, shape, settings.seed), len(shape) + 1)
    full = schedule.at_once(schedule.batch_size)
    batch = torch.full((min(ENOUGH, full), *shape), 0.5)
    batch = batch.contiguous(memory_format=layout(batch.dim()))
    precision: torch.dtype = getattr(torch, schedule.precision)
    with settled(threads):
        before = resident()
        _step(first, batch, precision)  # the first one sets things up
        most, cores = fitting(most, (resident() - before) * full / len(batch)), most
        if most < cores:
            report(
                {
                    "note": f"there are cores for {cores} sites side by side, and memory for {most}"
                    "; with --max-batch, batches in parts, they take less"
                }
            )
        if most == 1:
            return 1
        alone = _seconds([first], batch, precision)
        passes = len(method.local.roles) * (2 if method.perturbation else 1)
        times = schedule.rounds * schedule.local_epochs * passes / len(batch)
        one_by_one, longest = sum(images), busiest(images, most)
        if times * alone * (one_by_one - longest) < START:
            return 1
        several = [copy.deepcopy(first) for _ in range(most)]
        _seconds(several, batch, precision)  # as above
        together = _seconds(several, batch, precision)
    return most if times * (alone * one_by_one - together * longest) > START else 1


def fitting(most: int, grown: float) -> int:
    """Of ``most`` worker processes, as many as memory has room for; at least 1.

    Args:
        most: workers that the cores have room for.
        grown: bytes that a step with a whole batch takes.
    """
    return max(1, int(min(most, available() / (PROCESS + grown))))


def _seconds(models: list[Predictor], batch: Tensor, precision: torch.dtype) -> float:
    """Seconds until every model has taken a step, each in a thread of its own."""
    with ThreadPoolExecutor(len(models)) as pool:
        start = time.perf_counter()
        for done in [pool.submit(_step, model, batch, precision) for model in models]:
            done.result()
        return time.perf_counter() - start


def _step(model: Predictor, batch: Tensor, precision: torch.dtype) -> None:
    """Forward and backward; no weight is changed."""
    with computing_in(precision, batch):
        outputs = model.train()(batch)
    outputs.float().mean().backward()
    model.zero_grad()
