"""What an engine costs: start-up, seconds and bytes a round, memory; here, on FLARE, on Flower.

Four sites with 16 training images each and networks that train in no time, of two sizes: what is
left of a round is the engine. FLARE is its simulator: a process for the server and one for each
site, on this machine. Flower is a SuperLink, a SuperNode and a process of our own for each site,
and a process that Flower starts for every message. `FLARE alone` carries as many bytes and has no
code of ours in it: what a network costs on these cores, whoever uses it. Every measurement is a
process of its own, with its children. An engine that is not installed is left out.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def one(engine: str, network: str, rounds: int) -> dict[str, float]:
    """Do a run in this process; tell when each round was done, and what crossed."""
    if engine == ALONE:
        from benchmarks.bare_flare import carry  # it needs FLARE

        size = {"TinyCNN": 21_000, "Large": 100_000_000}[network]
        first, *rest = carry(size, rounds)
        crossed = 4 * size / 2**20
        return {"first": first, "round": statistics.median(rest), "up": crossed, "down": crossed}
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
    roles: dict[int, str] = {}
    most = 0.0
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL) as process,
    ):
        while process.poll() is None:
            now = resident(process.pid, roles)
            peaks = {pid: max(now.get(pid, 0), peaks.get(pid, 0)) for pid in now.keys() | peaks}
            most = max(most, sum(now.values()))
            time.sleep(0.3)
        said.seek(0)
        lines = said.read().splitlines()
    if process.returncode:
        raise SystemExit(f"{engine} with {network} has failed")
    found: dict[str, float] = json.loads(lines[-1])
    of = {
        role: max((peaks[pid] for pid in peaks if roles.get(pid) == role), default=float("nan"))
        for role in ("server", "site")
    }
    return found | {"processes": len(peaks), **of, "together": most}


def resident(pid: int, roles: dict[int, str]) -> dict[int, float]:
    """Resident MB of a process and of all that descend from it; notes who is who."""
    found = {}
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            found[process.pid] = process.memory_info().rss / 2**20
            if process.pid not in roles:
                line = " ".join(process.cmdline())
                known = (r for r, words in ROLES.items() if any(word in line for word in words))
                roles[process.pid] = next(known, "")
    except psutil.Error:
        pass  # it has just ended
    return found


def main() -> None:
    """All engines that are installed, with both networks."""
    if sys.argv[1:2] == ["--one"]:
        print("\n" + json.dumps(one(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    rounds = 4 if arguments(__doc__).quick else 8
    engines = [
        one for one in (*ENGINES, ALONE) if one not in NEEDS or importlib.util.find_spec(NEEDS[one])
    ]
    found = {
        (engine, parameters): measure(engine, network, rounds)
        for parameters, network in NETWORKS.items()
        for engine in engines
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
        "server MB",
        "a site MB",
        "all together MB",
    ]
    text = (
        f"{table(head, rows)}\n\n"
        f"FedAvg, 4 sites, {rounds} rounds; a round is the median of those after the first, which "
        "has the start-up in it, from the call. `FLARE alone` carries the same bytes in its own "
        "programs, without training, saving or checking. Bytes are of tensors, of all sites "
        "together. Memory is resident, taken every 0.3 s, and the most that a process of the kind "
        "had; shared pages count in each. `processes` counts those of a moment as well: Flower "
        "starts one for every message.\n\n" + "\n".join(sentences(found, engines))
    )
    write("engines", "What an engine costs", text)


def sentences(found: dict[tuple[str, str], dict[str, float]], engines: list[str]) -> list[str]:
    """What an engine adds to a round, sites and server sharing the cores."""
    lines = []
    for size in NETWORKS:
        here = found["in one process", size]["round"]
        alone = found[ALONE, size]["round"] if ALONE in engines else 0.0
        for engine in set(engines) & {"FLARE", "Flower"}:
            adds = found[engine, size]["round"] - here
            line = f"- {engine}, {size}: {adds:.1f} s a round more than in one process"
            if engine == "FLARE":
                line += f", {adds - alone:.1f} s more than that and the bytes (wanted: below 3 s)"
            lines.append(line)
    return sorted(lines)


if __name__ == "__main__":
    main()
