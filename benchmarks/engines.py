"""What an engine costs: start-up, seconds and bytes a round, memory; in one process and on FLARE.

Four sites with 16 training images each and networks that train in no time, of two sizes: what is
left of a round is the engine. FLARE is its simulator: a process for the server and one for each
site, on this machine. Every measurement is a process of its own, with its children.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.measure import arguments, table, write
from counterpoint import run
from counterpoint.data import write_phantom
from counterpoint.flare.simulate import simulate

ENGINES = {"in one process": run, "FLARE": simulate}
NETWORKS = {"tiny": "TinyCNN", "25 million": "Large"}
SETTINGS = {
    "local_epochs": 1,
    "image_size": 32,
    "batch_size": 16,
    "train_limit": 16,
    "augmentation": "none",
    "workers": 1,
    "threads": 1,
}


def one(engine: str, network: str, rounds: int) -> dict[str, float]:
    """Do a run in this process; tell when each round was done, and what crossed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_phantom(folder / "data", size=32, scale=0.1)
        ends: dict[int, float] = {}

        def watch(event: dict[str, object]) -> None:
            if event.get("moment") == "epoch":
                ends[int(str(event["round"]))] = time.perf_counter()

        settings = SETTINGS | {"rounds": rounds, "model": f"benchmarks.networks:{network}"}
        before = time.perf_counter()
        ENGINES[engine]("fedavg", str(data), out=folder / "run", report=watch, settings=settings)
        seconds = statistics.median(ends[r] - ends[r - 1] for r in range(2, rounds + 1))
        sent = pd.read_csv(folder / "run" / "payloads.csv")
        middle = sent[sent["round"] == 2].groupby("direction")["bytes"].sum()
        return {
            "first": ends[1] - before,
            "round": seconds,
            "up": middle["up"] / 2**20,
            "down": middle["down"] / 2**20,
        }


def measure(engine: str, network: str, rounds: int) -> dict[str, float]:
    """Have a process do a run; its numbers, with the memory of it and of its children."""
    command = [sys.executable, "-m", "benchmarks.engines", "--one", engine, network, str(rounds)]
    peaks: dict[int, float] = {}
    most = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            now = resident(process.pid)
            peaks = {pid: max(now.get(pid, 0), peaks.get(pid, 0)) for pid in now.keys() | peaks}
            most = max(most, sum(now.values()))
            time.sleep(0.3)
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{engine} with {network} has failed")
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found | {"processes": len(peaks), "largest": max(peaks.values()), "together": most}


def resident(pid: int) -> dict[int, float]:
    """Resident MB of a process and of all that descend from it."""
    found = {}
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            found[process.pid] = process.memory_info().rss / 2**20
    except psutil.Error:
        pass  # it has just ended
    return found


def main() -> None:
    """Both engines, with both networks."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    rounds = 4 if arguments(__doc__).quick else 12
    found = {
        (engine, parameters): measure(engine, network, rounds)
        for parameters, network in NETWORKS.items()
        for engine in ENGINES
    }
    rows = [
        [engine, parameters, *numbers.values()] for (engine, parameters), numbers in found.items()
    ]
    head = [
        "engine",
        "parameters",
        "to the end of round 1 s",
        "a round s",
        "MB up a round",
        "MB down a round",
        "processes",
        "largest process MB",
        "all together MB",
    ]
    more = ", ".join(
        f"{found['FLARE', size]['round'] - found['in one process', size]['round']:.1f} s ({size})"
        for size in NETWORKS
    )
    text = (
        f"{table(head, rows)}\n\n"
        f"FedAvg, 4 sites, {rounds} rounds; a round is the median of those after the first, which "
        "has the start-up in it, from the call. What FLARE adds to a round, "
        f"sites and server sharing these cores: {more} (wanted: below 3 s).\n\n"
        "Bytes are of tensors, of all sites together. Memory is resident, taken every 0.3 s; "
        "shared pages count in each process. `processes` counts helpers of a moment as well."
    )
    write("engines", "What an engine costs", text)


if __name__ == "__main__":
    main()
