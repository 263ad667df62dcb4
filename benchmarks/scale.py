"""From 4 to 1024 clients of which at most 16 take part in a round: memory, time, disk.

Every number of clients is a process of its own. Each client has 12 small images of its own, in
files; the network has the size that one gives a thousand clients on a laptop.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import counterpoint
from benchmarks.measure import RESULTS, arguments, table, write

TAKING_PART = 16
ROUNDS = 5
SPLITS = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2


def write_sites(folder: Path, clients: int) -> int:
    """Write each client's images, of two classes, and the table; bytes of the pixels."""
    rng = np.random.default_rng(0)
    lines = ["site,image,label,split,group"]
    for client in range(clients):
        home = folder / f"c{client:04d}"
        home.mkdir()
        for number, split in enumerate(SPLITS):
            pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8)
            pixels[..., number % 2] += 64
            Image.fromarray(pixels).save(home / f"{number}.png", compress_level=1)
            label = "green" if number % 2 else "red"
            lines.append(f"{home.name},{home.name}/{number}.png,{label},{split},{client}-{number}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return clients * len(SPLITS) * 32 * 32 * 3


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({one.st_ino: one.st_size for one in found}.values())  # a file may have two names


def one(clients: int) -> dict[str, float]:
    """Run a federation in this process and tell what it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = write_sites(folder, clients)
        ends: dict[int, float] = {}
        started: list[float] = []

        def watch(event: dict[str, object]) -> None:
            if "from" in event:
                started.append(time.perf_counter())
            if event.get("moment") == "epoch":
                ends[int(str(event["round"]))] = time.perf_counter()

        before = time.perf_counter()
        counterpoint.run(
            "fedavg",
            folder / "table.csv",
            out=folder / "run",
            report=watch,
            model="benchmarks.networks:TinyCNN",
            rounds=ROUNDS,
            local_epochs=1,
            image_size=32,
            batch_size=8,
            augmentation="none",
            participation=min(1.0, TAKING_PART / clients),
            workers=1,
            threads=1,
        )
        finished = time.perf_counter()
        rounds = [ends[r] - ends[r - 1] for r in range(2, ROUNDS + 1)]
        return {
            "clients": clients,
            "taking part": min(TAKING_PART, clients),
            "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "pixels MB": pixels / 2**20,
            "before the rounds s": started[0] - before,
            "a round s": float(np.median(rounds)),
            "all clients' last merge, test and models s": finished - ends[ROUNDS],
            "state MB": size_of(folder / "run" / "state") / 2**20,
            "whole run MB": size_of(folder / "run") / 2**20,
        }


def figure(rows: list[dict[str, float]]) -> None:
    """Peak memory, seconds a round and disk against the number of clients."""
    clients = [row["clients"] for row in rows]
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(9, 2.8), layout="constrained")
        for axes, name in zip(
            drawn.subplots(1, 3), ("peak MB", "a round s", "whole run MB"), strict=True
        ):
            values = [row[name] for row in rows]
            axes.plot(clients, values, marker="o", color="#1f5a93")
            axes.set_xscale("log", base=2)
            axes.set_xticks(clients, [f"{count:.0f}" for count in clients])
            axes.set_ylim(0, 1.1 * max(values))
            axes.set_xlabel("clients")
            axes.set_title(name, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
        drawn.savefig(RESULTS / "scale.png", dpi=150)


def main() -> None:
    """Every number of clients, in turn."""
    if sys.argv[1:2] == ["--clients"]:
        print(json.dumps(one(int(sys.argv[2]))))
        return
    chosen = arguments(__doc__)
    rows: list[dict[str, float]] = []
    for clients in (4, 16, 64) if chosen.quick else (4, 16, 64, 256, 1024):
        command = [sys.executable, "-m", "benchmarks.scale", "--clients", str(clients)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    text = table(list(rows[0]), [[float(value) for value in row.values()] for row in rows])
    at16 = next(row for row in rows if row["clients"] == 16)
    last = rows[-1]
    grown = last["peak MB"] - at16["peak MB"] - last["pixels MB"] + at16["pixels MB"]
    text += (
        f"\n\nPeak memory from 16 to {last['clients']:.0f} clients, beyond the pixels: "
        f"{100 * grown / at16['peak MB']:+.1f} % (wanted: below +10 %). "
        f"A round: {last['a round s'] / at16['a round s']:.2f} times as long."
        "\n\n![Memory, time and disk against the number of clients](scale.png)"
    )
    write("scale", "Clients, of which at most 16 take part in a round", text)
    figure(rows)


if __name__ == "__main__":
    main()
