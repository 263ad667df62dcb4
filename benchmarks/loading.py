"""From the command to the first step: imports, decoding, and what batches cost of a step.

With the variable COUNTERPOINT_DERMOSCOPY naming the folder of the dermoscopy images, their decoding
is measured too: 600 of them, or with --full all 12,217.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import counterpoint
from benchmarks.measure import arguments, side_by_side, table, write
from counterpoint.data import decode
from counterpoint.data.augment import AUGMENTATIONS
from counterpoint.data.batches import batches
from counterpoint.models.slim_vgg16 import SlimVGG16
from counterpoint.models.unet import UNet

UNTIL = """
import torch

class ReachedError(Exception):
    pass

def reached(*given):
    raise ReachedError

def report(event):
    if {begun} and "from" in event:
        reached()

torch.optim.SGD.step = torch.optim.Adam.step = reached
import counterpoint

try:
    counterpoint.run(
        "prrfl", "phantom", out={out!r}, task={task!r}, image_size=128, workers=1, report=report
    )
except ReachedError:
    pass
"""
"""A run that ends where its rounds begin, with the first score, or at its first step."""


def seconds(*command: str) -> tuple[float, float]:
    """Wall and processor seconds of a process."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    spent = after.children_user + after.children_system
    return wall, spent - before.children_user - before.children_system


def start_up(turns: int) -> list[list[object]]:
    """Lines of the table: commands and first steps, from a cold process and a warm cache."""
    cases: dict[str, tuple[list[str], str]] = {
        "counterpoint --help": (["-m", "counterpoint.cli", "--help"], "under 0.5 s"),
        "import torch": (["-c", "import torch"], ""),
        "import counterpoint.api": (["-c", "import counterpoint.api"], ""),
    }
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in ("classification", "segmentation"):
            for what, begun, wanted in (
                ("the rounds of a run begin", True, "under 3 s"),
                ("its first step, after the first scores of both models", False, ""),
            ):
                code = UNTIL.format(out=f"{folder}/run", task=task, begun=begun)
                cases[f"{what}, {task}"] = (["-c", code], wanted)
        for what, (words, wanted) in cases.items():
            found = []
            for turn in range(turns + 1):
                shutil.rmtree(f"{folder}/run", ignore_errors=True)
                once = seconds(sys.executable, *words)
                if turn:
                    found.append(once)
            wall, spent = (statistics.median(column) for column in zip(*found, strict=True))
            rows.append([what, wall, spent, wanted])
    return rows


def decoding(root: Path, images: int | None) -> list[list[object]]:
    """Lines of the table: decoding files the first time, and finding them the second time."""
    with tempfile.TemporaryDirectory() as folder:
        frames = []
        for labels in sorted(root.glob("*/labels.csv")):
            rows = pd.read_csv(labels, dtype=str)
            if images is not None:
                rows = rows.sample(images // 5, random_state=1)
            paths = [str(labels.parent / name) for name in rows["image"]]
            group = rows["lesion_id"].fillna(rows["image_id"])
            # what is decoded does not depend on the labels, so any do
            labelled = ["one" if number % 2 else "other" for number in range(len(rows))]
            site = {"site": labels.parent.name, "image": paths, "label": labelled}
            frames.append(pd.DataFrame(site).assign(group=group.to_numpy()))
        listed = pd.concat(frames)
        listed.to_csv(f"{folder}/table.csv", index=False)
        found = []
        for what in ("read and decode", "again"):
            started, before = time.perf_counter(), time.process_time()
            federation = counterpoint.load(
                f"{folder}/table.csv", protocol="grouped", cache=f"{folder}/cache"
            )
            decode(federation, 128, f"{folder}/cache")
            wall = time.perf_counter() - started
            rate = f"{len(listed) / wall:.0f} images/s"
            found.append(
                [
                    f"{what}, {len(listed)} dermoscopy images",
                    wall,
                    time.process_time() - before,
                    rate,
                ]
            )
    return found


def batch_share(turns: int) -> list[list[object]]:
    """Lines of the table: an epoch's batches alone against the epoch's steps."""
    rows: list[list[object]] = []
    works: dict[str, tuple[str, nn.Module, str]] = {
        "slim VGG16 128x128, augmentation prrfl": ("classification", SlimVGG16(3), "prrfl"),
        "U-Net 128x128, augmentation flips": ("segmentation", UNet(3, 2), "flips"),
    }
    for what, (task, network, augmentation) in works.items():
        _, sites = decode(counterpoint.load("phantom", task=task, train_limit=32), 128)
        parts, cpu = [sites[0].part("train")], torch.device("cpu")
        network = network.to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
        augment = AUGMENTATIONS[augmentation]
        one = next(iter(batches(parts, 16, cpu)))

        def epoch(parts=parts, augment=augment) -> None:  # type: ignore[no-untyped-def]
            order = torch.Generator().manual_seed(1)
            for _ in batches(parts, 16, torch.device("cpu"), order=order, augment=augment):
                pass

        def steps(network=network, optimizer=optimizer, one=one) -> None:  # type: ignore[no-untyped-def]
            for _ in range(2):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(one.images), one.target).backward()
                optimizer.step()

        times = side_by_side({"batches": epoch, "steps": steps}, turns)
        share = times["batches"].ratio(times["steps"], "processor")
        rows.append(
            [
                what,
                times["batches"].median / 2 * 1e3,
                times["steps"].median / 2 * 1e3,
                f"{100 * share:.1f} %",
                "under 5 %",
            ]
        )
    return rows


def main() -> None:
    """Measure all of it."""
    chosen = arguments(__doc__, "--full")
    text = table(["start", "s", "CPU s", "wanted"], start_up(1 if chosen.quick else 7))
    share = batch_share(3 if chosen.quick else 15)
    head = ["step", "ms for a batch", "ms for its step", "share (CPU time)", "wanted"]
    text += "\n\n" + table(head, share)
    root = Path(os.environ.get("COUNTERPOINT_DERMOSCOPY", "dermoscopy"))
    if root.is_dir():
        images = None if chosen.full else 60 if chosen.quick else 600
        head = ["decoding, to 128x128, all cores", "s", "CPU s", "rate"]
        text += "\n\n" + table(head, decoding(root, images))
    write("loading", "Loading: start, batches, decoding", text)


if __name__ == "__main__":
    main()
