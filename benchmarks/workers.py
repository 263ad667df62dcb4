"""Sites side by side against one after the other, and what the run's own trial chooses."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import yaml

import counterpoint
from benchmarks.bare_loop import Watch
from benchmarks.measure import arguments, table, write

WAYS: dict[str, dict[str, Any]] = {
    "one worker, one thread": {"workers": 1, "threads": 1},
    "one worker, two threads": {"workers": 1, "threads": 2},
    "two workers, one thread each": {"workers": 2, "threads": 1},
    "two workers, two threads each (too many)": {"workers": 2, "threads": 2},
    "left to the trial": {},
}
WORKS = {"slim VGG16 128x128": "classification", "U-Net 128x128": "segmentation"}


def seconds_of(task: str, way: dict[str, Any], images: int, size: int) -> tuple[float, int]:
    """Seconds of the rounds of a run, its workers' start among them, and their number."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch()
        out = Path(folder) / "run"
        counterpoint.run(
            "fedavg",
            "phantom",
            out=out,
            report=watch,
            task=task,
            rounds=2,
            local_epochs=2,
            image_size=size,
            batch_size=16,
            train_limit=images,
            **way,
        )
        settings = yaml.safe_load((out / "settings.yaml").read_text())
        return watch.between("called", "rounds end")[0], int(settings["machine"]["workers"])


def main() -> None:
    """All ways in turns, for both tasks."""
    logging.disable()
    chosen = arguments(__doc__)
    turns, size, images = (1, 32, 8) if chosen.quick else (chosen.turns or 2, 128, 48)
    rows: list[list[object]] = []
    for name, task in WORKS.items():
        found: dict[str, list[tuple[float, int]]] = {way: [] for way in WAYS}
        for turn in range(turns):
            for way in list(WAYS) if turn % 2 else list(WAYS)[::-1]:
                found[way].append(seconds_of(task, WAYS[way], images, size))
                print(name, way, found[way][-1], flush=True)
        alone = found["one worker, one thread"]
        for way, taken in found.items():
            seconds = sorted(one for one, _ in taken)[len(taken) // 2]
            ratio = seconds / sorted(one for one, _ in alone)[len(alone) // 2]
            rows.append([name, way, seconds, f"{ratio:.2f}", taken[0][1]])
    said = (
        "FedAvg, 4 sites of 48 training images, 2 rounds of 2 epochs; seconds from the call to the "
        "end of the rounds, with the start of worker processes. Runs with one thread each give the "
        "same results bit for bit, whatever the number of workers.\n\n"
    )
    head = ["network", "way", "s", "times one worker", "workers"]
    write("workers", "Sites side by side", said + table(head, rows))


if __name__ == "__main__":
    main()
