"""What an engine costs: start-up, seconds and bytes a round, memory; here, on FLARE, on Flower.

Four sites with 16 training images each and networks that train in no time, of two sizes: what is
left of a round is the engine. FLARE is its simulator: a process for the server and one for each
site, on this machine. Flower is a SuperLink, a SuperNode and a process of our own for each site,
and a process that Flower starts for every message. `FLARE alone` carries as many bytes and has no
code of ours in it: what a network costs on these cores, whoever uses it. Every measurement is a
process of its own, with its children. An engine that is not installed is left out.
"""

import importlib.util
import itertools
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from benchmarks.measure import arguments, table, write
from counterpoint import run
from counterpoint.data import write_phantom
from counterpoint.flare.simulate import simulate as on_flare
from counterpoint.flower.simulate import simulate as on_flower

ENGINES: dict[str, Callable[..., Any]] = {
    "in one process": run,
    "FLARE": on_flare,
    "Flower": on_flower,
}
ALONE = "FLARE alone"
NEEDS = {"FLARE": "nvflare", ALONE: "nvflare", "Flower": "flwr"}
NETWORKS = {"tiny": "TinyCNN", "25 million": "Large"}
ROLES = {
    "site": ("simulator_worker", "flower site"),
    "server": ("flare.simulate import main", "flwr-serverapp"),
}
"""By which words in a command line a process is known; FLARE's simulator has the server in it."""
SETTINGS = {
    "local_epochs": 1,
    "image_size": 32,
    "batch_size": 16,
    "train_limit": 16,
    "augmentation": "none",
    "workers": 1,
    "threads": 1,
}


def one(engine: str, network: str, rounds: int) -> dict[str, Any]:
    """Do a run in this process; when it began and each round was done, and MB that crossed."""
    if engine == ALONE:
        from benchmarks.bare_flare import carry  # it needs FLARE

        size = {"TinyCNN": 21_000, "Large": 100_000_000}[network]
        return {"ends": carry(size, rounds), "up": 4 * size / 2**20, "down": 4 * size / 2**20}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_phantom(folder / "data", size=32, scale=0.1)
        ends = {0: time.time()}

        def watch(event: dict[str, object]) -> None:
            if event.get("moment") == "epoch":
                ends[int(str(event["round"]))] = time.time()

        settings = SETTINGS | {"rounds": rounds, "model": f"benchmarks.networks:{network}"}
        ENGINES[engine]("fedavg", str(data), out=folder / "run", report=watch, settings=settings)
        sent = pd.read_csv(folder / "run" / "payloads.csv")
        middle = sent[sent["round"] == 2].groupby("direction")["bytes"].sum() / 2**20
        return {"ends": list(ends.values()), "up": middle["up"], "down": middle["down"]}


def measure(engine: str, network: str, rounds: int) -> dict[str, float]:
    """Have a process do a run; its numbers, with what it and its children took."""
    command = [sys.executable, "-m", "benchmarks.engines", "--one", engine, network, str(rounds)]
    used = Used()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL) as process,
    ):
        while process.poll() is None:
            used.look(process.pid)
            time.sleep(0.3)
        said.seek(0)
        lines = said.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{engine} with {network} has failed")
    found = json.loads(lines[-1])
    ends = found.pop("ends")
    return {
        "first": ends[1] - ends[0],
        "round": statistics.median(b - a for a, b in itertools.pairwise(ends[1:])),
        "processor": used.processor(ends[1], ends[-1]) / (len(ends) - 2),
        **found,
        "processes": len(used.roles),
        "server": used.largest("server"),
        "site": used.largest("site"),
        "together": used.most,
    }


@dataclass
class Used:
    """What a process and all that descend from it take: processor, and resident memory in MB."""

    roles: dict[int, str] = field(default_factory=dict)
    peaks: dict[int, float] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    so_far: list[tuple[float, float]] = field(default_factory=list)
    most: float = 0.0

    def look(self, pid: int) -> None:
        """Look at them now."""
        together = 0.0
        try:
            parent = psutil.Process(pid)
            for one in (parent, *parent.children(recursive=True)):
                if one.pid not in self.roles:
                    line = " ".join(one.cmdline())
                    known = (r for r, words in ROLES.items() if any(word in line for word in words))
                    self.roles[one.pid] = next(known, "")
                size, times = one.memory_info().rss / 2**20, one.cpu_times()
                together += size
                self.peaks[one.pid] = max(size, self.peaks.get(one.pid, 0.0))
                self.seconds[one.pid] = times.user + times.system
        except psutil.Error:
            pass  # it has just ended
        self.most = max(self.most, together)
        self.so_far.append((time.time(), sum(self.seconds.values())))

    def processor(self, begin: float, end: float) -> float:
        """Seconds of a processor between two times."""
        when, seconds = zip(*self.so_far, strict=True)
        return float(np.diff(np.interp([begin, end], when, seconds))[0])

    def largest(self, role: str) -> float:
        """The most that a process of a kind had."""
        mine = (size for pid, size in self.peaks.items() if self.roles[pid] == role)
        return max(mine, default=float("nan"))


def main() -> None:
    """All engines that are installed, with both networks."""
    if sys.argv[1:2] == ["--one"]:
        print("\n" + json.dumps(one(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    chosen = arguments(__doc__, "--no-flower")
    rounds = 4 if chosen.quick else 8
    engines = [
        one
        for one in (*ENGINES, ALONE)
        if (one not in NEEDS or importlib.util.find_spec(NEEDS[one]))
        and not (one == "Flower" and chosen.no_flower)
    ]
    found = {
        (engine, parameters): measure(engine, network, rounds)
        for parameters, network in NETWORKS.items()
        for engine in engines
    }
    write("engines", "What an engine costs", page(found, rounds))


def page(found: dict[tuple[str, str], dict[str, float]], rounds: int) -> str:
    """The numbers as a table, and what they say."""
    rows = [
        [
            engine,
            parameters,
            *("-" if math.isnan(number) else number for number in numbers.values()),
        ]
        for (engine, parameters), numbers in found.items()
    ]
    head = [
        "engine",
        "parameters",
        "to the end of round 1 s",
        "a round s",
        "processor s a round",
        "MB up a round",
        "MB down a round",
        "processes",
        "server MB",
        "a site MB",
        "all together MB",
    ]
    return (
        f"{table(head, rows)}\n\n"
        f"FedAvg, 4 sites, {rounds} rounds; a round is the median of those after the first, which "
        "has the start-up in it, from the call. `FLARE alone` carries the same bytes in its own "
        "programs, without training, saving or checking. Bytes are of tensors, of all sites "
        "together. Memory is resident, taken every 0.3 s, and the most that a process of the kind "
        "had; shared pages count in each. `processes` counts those of a moment as well: Flower "
        "starts one for every message.\n\n" + "\n".join(sentences(found))
    )


def sentences(found: dict[tuple[str, str], dict[str, float]]) -> list[str]:
    """What an engine adds to a round, sites and server sharing the cores."""
    lines = []
    for size, engine in itertools.product(NETWORKS, ("FLARE", "Flower")):
        if (engine, size) not in found:
            continue
        here, there = found["in one process", size], found[engine, size]
        line = f"- {engine}, {size}: {there['round'] - here['round']:.1f} s a round more than in "
        line += f"one process, {there['processor'] - here['processor']:.1f} s of processor"
        if engine == "FLARE":
            alone = found[ALONE, size]
            wall, processor = (
                there[what] - here[what] - alone[what] for what in ("round", "processor")
            )
            line += f"; beyond the bytes, which FLARE alone carries, {wall:.1f} s (wanted: below "
            line += f"3 s) and {processor:.1f} s of processor. In one process the sites work one "
            line += "after the other, on FLARE at once: a second core hides a part"
        lines.append(line)
    return lines


if __name__ == "__main__":
    main()
