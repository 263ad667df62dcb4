"""Measure several ways to the same thing side by side, and write the table down.

A ratio of two times means something on a shared, noisy machine only if both were taken in the same
moment. So the sides are timed in turns, in another order each time, and a ratio is the median over
the turns. Beside wall time there is the processor time of the process: it leaves out what other
processes took.
"""

import argparse
import datetime
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from counterpoint.processor import settle

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Times:
    """Wall and processor seconds of one side, a number a turn."""

    wall: list[float]
    processor: list[float]

    def ratio(self, other: "Times", clock: str = "wall") -> float:
        """How many times as long as ``other``: the median over the turns."""
        mine, its = getattr(self, clock), getattr(other, clock)
        return statistics.median(a / b for a, b in zip(mine, its, strict=True))

    @property
    def median(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall)


def side_by_side(
    sides: Mapping[str, Callable[[], object]], turns: int, calls: int = 1, warm_up: bool = True
) -> dict[str, Times]:
    """Time ``calls`` calls of every side in every turn; seconds a call."""
    times = {name: Times([], []) for name in sides}
    shuffled = random.Random(0)
    for turn in range(-1 if warm_up else 0, turns):
        for name in shuffled.sample(list(sides), len(sides)):
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(calls):
                sides[name]()
            if turn >= 0:
                times[name].wall.append((time.perf_counter() - wall) / calls)
                times[name].processor.append((time.process_time() - processor) / calls)
    return times


def arguments(description: str | None, *more: str) -> argparse.Namespace:
    """Read the command line: ``--quick``, ``--threads N``, and flags of a script's own."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer turns and smaller work")
    parser.add_argument("--threads", type=int, default=1, help="torch threads (1)")
    parser.add_argument("--turns", type=int, help="how often each side is timed")
    for flag in more:
        parser.add_argument(flag, action="store_true")
    chosen = parser.parse_args()
    settle(chosen.threads)  # as runs do
    return chosen


def machine() -> str:
    """Processor, cores, load before the measurement, versions and date, as one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(": ")[2] if models else name
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} torch thread(s), load "
        f"{os.getloadavg()[0]:.1f}; PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}; {datetime.date.today()}"
    )


STARTED_ON, STARTED_WITH = machine(), os.getloadavg()[0]


def write(name: str, title: str, text: str) -> None:
    """Write ``results/name.md``: what was measured, by which command, on which machine."""
    script = Path(sys.argv[0]).resolve()
    module = ".".join(script.relative_to(RESULTS.parents[1]).with_suffix("").parts)
    words = ("PATH" if word.startswith("/") else word for word in sys.argv[1:])
    command = " ".join(["python -m", module, *words])
    load = f"; load at the end {os.getloadavg()[0]:.1f}"
    if max(STARTED_WITH, os.getloadavg()[0]) > 1.5 * (os.cpu_count() or 1):
        load += "\n\n**Measured under load: other processes had most of the processor.**"
    page = f"# {title}\n\n`{command}`\n\n{STARTED_ON}{load}\n\n{text.strip()}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay rows out as Markdown; numbers with three significant digits."""
    lines = [[_cell(cell) for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
