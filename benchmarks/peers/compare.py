"""Wall time and peak memory of several simulators on the same work, in turns.

Each is a process of its own: the others with the Python of their environment (``--python``).
Memory is the largest sum over the process and its children of what is theirs alone and their part
of what is shared (PSS).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, table, write

HEAD = ["work", "simulator", "s of the simulation", "s of the process", "peak MB", "last loss"]
SIMULATORS = ("counterpoint", "flower", "fluke", "pfl", "blazefl")
APART = 0.1
"""Most that last losses may differ by; all begin at about 1.1. Orders of images are drawn."""


def family(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text().rpartition(")")[2].split()[1]
                )
            except OSError:
                continue
    found = [root]
    for pid in found:  # grows as it goes
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def memory(pids: list[int]) -> float:
    """Sum of the proportional set sizes, in MB."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def once(python: str, simulator: str, work: str) -> dict[str, float | str]:
    """Run one simulator; what it tells, its whole time and its peak memory."""
    started, peak = time.perf_counter(), [0.0]
    running = subprocess.Popen(
        [python, "-m", f"benchmarks.peers.by_{simulator}", work],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=RESULTS.parents[1],
        env=os.environ | {"PYTHONPATH": f"{RESULTS.parents[1]}:{RESULTS.parents[1]}/src"},
    )

    def watch() -> None:
        while running.poll() is None:
            peak[0] = max(peak[0], memory(family(running.pid)))
            time.sleep(0.25)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = running.communicate()
    watcher.join()
    if running.returncode:
        raise SystemExit(f"{simulator}: {errors[-2000:]}")
    told = next(line for line in reversed(out.splitlines()) if line.startswith('{"version"'))
    return json.loads(told) | {"whole": time.perf_counter() - started, "peak": peak[0]}


def require_same_end(work: str, losses: list[float]) -> None:
    """Fail where simulators can't have done the same work: their networks are not equally good."""
    if max(losses) - min(losses) > APART:
        raise SystemExit(f"{work}: the losses {losses} are too far apart to be of the same work")


def main() -> None:
    """All simulators, all works."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", required=True, help="Python of the peers' environment")
    parser.add_argument("--quick", action="store_true", help="one turn of small works")
    parser.add_argument("--turns", type=int, default=3, help="how often each simulator runs (3)")
    parser.add_argument("--only", nargs="*", default=SIMULATORS, help="some of the simulators")
    chosen = parser.parse_args()
    rows: list[list[Any]] = []
    for work in ("silo, quick", "many, quick") if chosen.quick else ("silo", "many"):
        found: dict[str, list[dict[str, float | str]]] = {name: [] for name in chosen.only}
        for _ in range(1 if chosen.quick else chosen.turns):
            for simulator in chosen.only:
                python = sys.executable if simulator == "counterpoint" else chosen.python
                found[simulator].append(once(python, simulator, work))
                print(work, simulator, found[simulator][-1], flush=True)
        for runs in found.values():
            medians = [
                statistics.median(float(run[name]) for run in runs)
                for name in ("seconds", "whole", "peak", "loss")
            ]
            rows.append([work, str(runs[0]["version"]), *medians])
        write("peers", "Other simulators on the same work", table(HEAD, rows))
        require_same_end(work, [row[-1] for row in rows if row[0] == work])


if __name__ == "__main__":
    main()
