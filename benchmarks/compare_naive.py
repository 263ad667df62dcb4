"""Whole runs on real images against a naive version of the released code's way.

Needs the images: the variables COUNTERPOINT_DERMOSCOPY and COUNTERPOINT_RETINA name their folders
(without the second, HarmoFL's U-Net is left out). Both sides are processes
of their own with all cores. Told are the seconds of the rounds alone, and those from the start of
the process to its end; the start of worker processes, where the library chooses them, is part of
the rounds, so that there are a few. The images are decoded into the library's cache before
(benchmarks.loading tells what that costs, once). The library's side keeps freed memory, as it does
on the command line; the naive one is as PyTorch comes. A subset in the proportions of the whole;
--full takes all dermoscopy images. Every turn has a seed of its own.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import counterpoint
from benchmarks.measure import arguments, table, write
from counterpoint.data import decode

NAIVE = """
import resource, sys, time
from benchmarks.naive.images import sites_of
from benchmarks.naive.{module} import run
sites, classes = sites_of(sys.argv[1])
started = time.perf_counter()
score = run(sites, classes, **{options})
peak = max(resource.getrusage(who).ru_maxrss for who in (0, -1))  # itself, its workers
print(time.perf_counter() - started, score, peak)
"""

RUN = """
import resource, sys, counterpoint
from benchmarks.bare_loop import Watch
from counterpoint.allocator import keep_for_good
keep_for_good()  # as the command line does
watch = Watch()
result = counterpoint.run({method!r}, {data!r}, out=sys.argv[2], report=watch, **{options})
score = result.table[{score!r}].mean()
peak = max(resource.getrusage(who).ru_maxrss for who in (0, -1))  # itself, its workers
print(watch.between("rounds begin", "rounds end")[0], score, peak)
"""


SEED = 987654321
"""Stands in the programs for the seed of a turn."""
EXACT, PASSING = "prrfl, bfloat16", "prrfl, bfloat16, stages in passing"


def stages_of(run: Path) -> list[str]:
    """The stage of every local epoch of every site, first epochs (always *recover*) left out."""
    scores = pd.read_csv(run / "scores.csv")
    trained = scores[(scores["moment"] == "epoch") & (scores["model"] == "personal")]
    trained = trained[trained["epoch"] > 1].sort_values(["site", "round", "epoch"])
    return [str(stage) for stage in trained["stage"]]


def subset(root: Path, images: int | None, to: Path) -> None:
    """Write a table of the four sites' images, about so many a site, the split as published."""
    frames = []
    for labels in sorted(root.glob("*/labels.csv")):
        rows = pd.read_csv(labels, dtype=str)
        rows = rows[rows["prrfl_client"].notna()]
        kept = 1.0 if images is None else images / max(1, len(rows))
        for (site, part, label), some in rows.groupby(
            ["prrfl_client", "prrfl_split", "prrfl_label"]
        ):
            some = some.sample(min(len(some), max(2, round(kept * len(some)))), random_state=1)
            frame = pd.DataFrame({"image": [str(labels.parent / name) for name in some["image"]]})
            frames.append(
                frame.assign(
                    site=str(site),
                    label=f"class {label}",
                    split="validation" if part == "valid" else str(part),
                )
            )
    pd.concat(frames).to_csv(to, index=False)


@dataclass
class Side:
    """A process to be timed: the program, and what it is held against."""

    code: str
    against: str = ""
    wanted: str = ""


class Seen(NamedTuple):
    """What a process took, and the score that it printed."""

    rounds: float
    """Seconds of the rounds alone."""
    wall: float
    processor: float
    score: float
    peak: float
    """MB, of the largest process."""


def process(code: str, *words: str) -> Seen:
    """Run a program."""
    before = os.times()
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    rounds, score, peak = map(float, done.stdout.split()[-3:])
    return Seen(rounds, wall, spent, score, peak / 1024)


def classification(
    table: Path, size: tuple[int, int], rounds: tuple[int, int], epochs: int
) -> dict[str, Side]:
    """PRR-FL with the slim VGG16, HarmoFL with DenseNet121: their image sizes and rounds."""
    common = {"seed": SEED}
    run = partial(RUN.format, data=str(table), score="macro_f1")
    prrfl = common | {"protocol": "given", "rounds": rounds[0], "local_epochs": epochs}
    prrfl |= {"image_size": size[0]}
    passing = {"local.stage_scores": "passing"}
    half = {"precision": "bfloat16"}
    harmofl = common | {"protocol": "given", "rounds": rounds[1], "local_epochs": 1}
    harmofl |= {"image_size": size[1], "batch_size": 16, "augmentation": "prrfl"}
    one, other = "naive PRR-FL", "naive HarmoFL"
    naive_prrfl = common | {"rounds": rounds[0], "size": size[0], "epochs": epochs}
    naive_harmofl = common | {"rounds": rounds[1], "size": size[1], "epochs": 1, "batch_size": 16}
    return {
        one: Side(NAIVE.format(module="prrfl", options=naive_prrfl)),
        "prrfl": Side(run(method="prrfl", options=prrfl), one, "at least 1.5"),
        "prrfl, stages in passing": Side(run(method="prrfl", options=prrfl | passing), one),
        EXACT: Side(run(method="prrfl", options=prrfl | half), one, "at least 3"),
        PASSING: Side(run(method="prrfl", options=prrfl | half | passing), one, "at least 3.5"),
        other: Side(NAIVE.format(module="harmofl", options=naive_harmofl)),
        "harmofl-released": Side(
            run(method="harmofl-released", options=harmofl), other, "at least 2"
        ),
        "harmofl-released, bfloat16": Side(
            run(method="harmofl-released", options=harmofl | half), other, "at least 4"
        ),
    }


def segmentation(root: Path, table: Path, size: int, rounds: int) -> dict[str, Side]:
    """HarmoFL with the U-Net, on photographs of the retina."""
    federation = counterpoint.load("retina", root)
    decode(federation, size)  # into the cache
    rows = [site.table.assign(site=site.name) for site in federation.sites]
    pd.concat(rows)[["site", "split", "image", "mask"]].to_csv(table, index=False)
    options: dict[str, object] = {"seed": SEED, "rounds": rounds, "batch_size": 8}
    naive = options | {"epochs": 1, "size": size}
    mine = options | {"root": str(root), "local_epochs": 1, "image_size": size}
    run = partial(RUN.format, method="harmofl-released", data="retina", score="dice")
    name = "naive HarmoFL, U-Net"
    return {
        name: Side(NAIVE.format(module="harmofl_masks", options=naive)),
        "harmofl-released, U-Net": Side(run(options=mine), name, "at least 2"),
        "harmofl-released, U-Net, bfloat16": Side(
            run(options=mine | {"precision": "bfloat16"}), name, "at least 4"
        ),
    }


def row(name: str, side: Side, mine: list[Seen], naive: list[Seen]) -> list[object]:
    """One line of the table."""

    def times(clock: str) -> str:
        pairs = zip(naive, mine, strict=True)
        return f"{statistics.median(getattr(a, clock) / getattr(b, clock) for a, b in pairs):.2f}"

    scores = ", ".join(f"{100 * one.score:.1f}" for one in mine)
    return [
        name,
        statistics.median(one.rounds for one in mine),
        times("rounds"),
        side.wanted,
        statistics.median(one.wall for one in mine),
        times("wall"),
        times("processor"),
        f"{statistics.median(one.peak for one in mine):.0f}",
        f"{100 * statistics.mean(one.score for one in mine):.1f} ({scores})",
    ]


HEAD = [
    "side",
    "s of the rounds",
    "times as fast",
    "wanted",
    "s of the process",
    "times as fast",
    "by CPU time",
    "MB at the peak",
    "test macro-F1 or Dice (a seed each)",
]


def main() -> None:
    """PRR-FL and HarmoFL, float32 and bfloat16."""
    chosen = arguments(__doc__, "--full")
    root = Path(os.environ.get("COUNTERPOINT_DERMOSCOPY", "dermoscopy"))
    retina = os.environ.get("COUNTERPOINT_RETINA")
    if not root.is_dir():
        raise SystemExit(f"no images in {root}: set COUNTERPOINT_DERMOSCOPY to their folder")
    turns = chosen.turns or (1 if chosen.quick else 3)
    images = None if chosen.full else 20 if chosen.quick else 120
    size, dense_size = ((32, 32), 32) if chosen.quick else ((128, 96), 256)
    rounds, epochs, dense_rounds = ((1, 1), 2, 1) if chosen.quick else ((2, 8), 5, 4)
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "labels.csv", Path(folder) / "masks.csv"
        subset(root, images, tables[0])
        federation = counterpoint.load(tables[0], protocol="given")
        for pixels in size:
            decode(federation, pixels)  # into the cache
        groups = [(tables[0], classification(tables[0], size, rounds, epochs))]
        if retina:
            groups.append(
                (tables[1], segmentation(Path(retina), tables[1], dense_size, dense_rounds))
            )
        found: dict[str, list[Seen]] = {name: [] for _, sides in groups for name in sides}
        stages: dict[str, list[str]] = {EXACT: [], PASSING: []}
        for turn in range(turns):
            for table_of, sides in groups:
                for name, side in sides.items():
                    run = Path(folder) / f"run-{turn}-{name}"
                    code = side.code.replace(str(SEED), str(turn + 1))
                    found[name].append(process(code, str(table_of), str(run)))
                    if name in stages:
                        stages[name] += stages_of(run)
                    print(name, found[name][-1], flush=True)
    rows = [
        row(name, side, found[name], found[side.against or name])
        for _, sides in groups
        for name, side in sides.items()
    ]
    what = (
        f"{images or 'all'} images a site. PRR-FL: {rounds[0]} round(s) of {epochs} epochs at "
        f"{size[0]} pixels. HarmoFL: {rounds[1]} of 1 epoch at {size[1]} pixels; the U-Net: "
        f"{dense_rounds} of 1 epoch on the retinas of two sites at {dense_size}. The process "
        "counts imports and reading of data on both sides, and of ours the test and the figure at "
        "the end.\n\n"
    )
    alike = [a == b for a, b in zip(*stages.values(), strict=True)]
    said = f"\n\nStages as with the exact scores: {sum(alike)} of {len(alike)} local epochs."
    write("naive", "Whole runs against the naive way", what + table(HEAD, rows) + said)


if __name__ == "__main__":
    main()
