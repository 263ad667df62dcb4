"""Who does the work: this process, or several worker processes with a client each.

Sites are handed out in order and their results come back in order; a result never depends on who
computed it or when.
"""

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import loky
import torch
from loky.backend import get_context
from loky.process_executor import BrokenProcessPool

from counterpoint.client import Client
from counterpoint.cores import cores, physical_cores
from counterpoint.errors import SettingsError, TrainingError, first_line
from counterpoint.processor import settle, settled
from counterpoint.settings import Settings
from counterpoint.tasks import Task

GAIN = 0.9
"""The number of threads to this power is how much faster they are than one: two nearly twice."""
MOST_THREADS = 64
"""On a core; PyTorch breaks down with thousands."""
MOST_STARTS = 256
"""Worker processes are numbered as they start, so that GPUs go round; more than ever start."""

Event = dict[str, object]
Report = Callable[[Event], None]
Job = TypeVar("Job")
Done = TypeVar("Done")
Crew = Callable[[Callable[[Client, Any, Report], Done], Iterable[Any]], Iterator[Done]]
"""crew(work, jobs) gives work(client, job, report) for every job, in order."""


def told(report: Report, what: str) -> Callable[[int, int], None]:
    """A progress function (done, in all) that tells a report of ``what``: "decoded" for example.

    >>> told(print, "decoded")(3, 10)
    {'decoded': 3, 'of': 10}
    """
    return lambda done, total: report({what: done, "of": total})


def one_at_a_time(report: Report) -> Report:
    """A report that several threads may call, and that is called by one after the other."""
    turn = threading.Lock()

    def in_turn(event: Event) -> None:
        with turn:
            report(event)

    return in_turn


def choose_device(name: str) -> torch.device:
    """The device by its name; ``auto`` is a GPU where there is one, else the CPU.

    Raises:
        SettingsError: if there is no such device here.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise SettingsError(
            f"device '{name}' can't be used here; auto, cpu, cuda or cuda:1 are usual ({reason})"
        ) from error
    if device.type == "cuda":  # the same kernels and numbers each time, at some cost of speed
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
    return device


def share_cores(
    images: Sequence[int], workers: int | None, threads: int | None, device: torch.device
) -> tuple[int, int]:
    """Workers and threads a worker, where left open: sites fill the cores, or one a GPU.

    Threads depend on cores and sites, never on the number of workers, so neither do the scores.
    Whether all those workers pay is for `counterpoint.calibration` to say. ``images`` are the
    training images of each site.

    >>> share_cores([50, 50, 50, 50], workers=9, threads=1, device=torch.device("cpu"))
    (4, 1)
    """
    there = physical_cores()
    if threads and threads > MOST_THREADS * cores():
        raise SettingsError(
            f"{threads} threads on {cores()} cores; --threads are those of one worker, at most "
            f"{MOST_THREADS * cores()} here, and best as many as there are physical cores"
        )
    if threads is None:
        threads = threads_of_one(images, there)
        if workers and threads > 1 and device.type == "cpu":
            workers = min(workers, there // threads)  # many times as slow with more than the cores
    if workers is None and device.type != "cpu":
        several = device.type == "cuda" and device.index is None
        workers = torch.cuda.device_count() if several else 1
    workers = workers or max(1, there // threads)
    return min(workers, len(images)), threads


def threads_of_one(images: Sequence[int], cores: int) -> int:
    """Threads of a worker with which all sites are done soonest, on all cores.

    Where a site has most of the images, the others' workers would wait for it.

    >>> threads_of_one([50, 50, 50, 50], cores=2), threads_of_one([70, 30], cores=2)
    (1, 2)
    """
    ways = range(1, min(cores, len(images)) + 1)
    workers = min(ways, key=lambda of: busiest(images, of) / (cores // of) ** GAIN)
    return cores // workers


def busiest(images: Sequence[int], workers: int) -> int:
    """Images of the worker that has most, where each takes the next site when it is free.

    >>> busiest([33, 15], workers=2), busiest([40, 40, 30, 20], workers=2)
    (33, 70)
    """
    loads = [0] * workers
    for count in images:
        loads[loads.index(min(loads))] += count
    return max(loads)


@contextmanager
def gather(
    settings: Settings,
    task: Task,
    shape: tuple[int, ...],
    workers: int,
    threads: int,
    report: Report,
) -> Iterator[Crew[Any]]:
    """Make a crew of ``workers`` with ``threads`` torch threads each, and send it home after."""
    if workers == 1:
        with settled(threads):
            yield _alone(settings, task, shape, report)
        return
    context = get_context("loky")
    events, turns = context.SimpleQueue(), context.SimpleQueue()
    for turn in range(MOST_STARTS):
        turns.put(turn)
    done = threading.Event()
    failed: list[BaseException] = []
    listener = threading.Thread(target=_listen, args=(events, report, done, failed), daemon=True)
    listener.start()
    executor = loky.ProcessPoolExecutor(
        max_workers=workers,
        context=context,
        initializer=_start_worker,
        initargs=(settings, task, shape, threads, events, turns, os.getpid()),
        timeout=None,
        env={"OMP_NUM_THREADS": str(threads)},
    )

    def crew(work: Callable[..., Any], jobs: Iterable[Any]) -> Iterator[Any]:
        waiting = iter(jobs)
        try:
            # only so many at a time, so that results do not pile up before they are taken
            first = islice(waiting, 2 * workers)
            futures = deque(executor.submit(_work, work, job) for job in first)
            while futures:
                result = futures.popleft().result()
                futures.extend(executor.submit(_work, work, job) for job in islice(waiting, 1))
                if failed:
                    raise failed[0]
                yield result
        except BrokenProcessPool as error:
            raise TrainingError(
                "a worker process was ended from outside, often for want of memory; "
                "go on with `counterpoint resume RUN --workers 1`, or start again with --max-batch "
                "(batches in parts) or a smaller --batch-size"
            ) from error

    try:
        with settled(threads):  # more in this process would wait for the cores that workers have
            yield crew
    finally:
        # It ends waiting jobs itself, and stumbles over those that were cancelled before.
        executor.shutdown(wait=True, kill_workers=True)
        done.set()
        listener.join(timeout=5)


def _alone(settings: Settings, task: Task, shape: tuple[int, ...], report: Report) -> Crew[Any]:
    device = choose_device(settings.machine.device)
    client = _client_on(device, settings, task, shape, report)

    def crew(work: Callable[..., Any], jobs: Iterable[Any]) -> Iterator[Any]:
        for job in jobs:
            with memory_in_words():
                done = work(client, job, report)
            yield done

    return crew


REMEDY = "fewer --workers, --max-batch (batches in parts) or a smaller --batch-size"
"""Against too little memory, in training."""


@contextmanager
def memory_in_words(remedy: str = REMEDY) -> Iterator[None]:
    """Say what helps where there is too little memory, of a GPU or of the machine.

    Raises:
        TrainingError: in place of PyTorch's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        raise TrainingError(
            f"there is too little memory; try {remedy} [{first_line(error)}]"
        ) from error


def _client_on(
    device: torch.device, settings: Settings, task: Task, shape: tuple[int, ...], report: Report
) -> Client:
    client = Client(settings.method, task, shape, settings.seed, device)
    if settings.machine.compile:
        from counterpoint.compiled import compile_networks  # the compiler is heavy

        batch = client.schedule.at_once(client.schedule.batch_size)
        seconds = compile_networks(client.models.values(), shape, batch, client.precision, device)
        report({"note": f"torch.compile took {seconds:.0f} s"})
    return client


def _listen(
    events: Any, report: Report, done: threading.Event, failed: list[BaseException]
) -> None:
    """Pass events on until all is done; a killed worker may have left ``put`` locked for good.

    Where ``report`` raises, the pipe is still emptied, or the workers would wait for ever.
    """
    while True:
        over = done.is_set()  # before looking, so that none is missed
        if not events.empty():
            event = events.get()
            try:
                if not failed:
                    report(event)
            except BaseException as error:
                failed.append(error)
        elif over:
            return
        else:
            done.wait(0.05)


# What a worker process has: its client, and where it reports to.
_client: Client | None = None
_events: Any = None
_failed: Exception | None = None


def _start_worker(
    settings: Settings,
    task: Task,
    shape: tuple[int, ...],
    threads: int,
    events: Any,
    turns: Any,
    parent: int,
) -> None:
    global _client, _events, _failed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    # With psutil at hand loky ends a worker that has grown by 300 MB; training does.
    loky.process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize
    settle(threads)
    _events = events
    try:
        name = settings.machine.device
        if name in ("auto", "cuda") and torch.cuda.is_available():
            name = f"cuda:{turns.get() % torch.cuda.device_count()}"
            torch.cuda.set_device(name)  # first, or each worker would take memory of the first GPU
        _client = _client_on(choose_device(name), settings, task, shape, events.put)
    except Exception as error:  # loky would only say that the process is gone
        _failed = error


def _end_with(parent: int) -> None:
    """End this worker once the process that started it is gone, by ``kill -9`` for example."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _work(work: Callable[..., Any], job: Any) -> Any:
    if _failed:
        raise _failed
    assert _client is not None
    with memory_in_words():
        return work(_client, job, _events.put)
