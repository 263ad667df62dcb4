"""Whole runs on real images against a naive version of the released code's way.

Needs the images: the variables COUNTERPOINT_DERMOSCOPY and COUNTERPOINT_RETINA name their folders
(without the second, HarmoFL's U-Net is left out). Both sides are processes
of their own with all cores. Told are the seconds of the rounds alone, and those from the start of
the process to its end; the start of worker processes, where the library chooses them, is part of
the rounds, so that there are a few. The images are decoded into the library's cache before
(benchmarks.loading tells what that costs, once). The library's side keeps freed memory, as it does
on the command line; the naive one is as PyTorch comes. Image sizes and batches are those that the
methods were published with. A subset in the proportions of the whole; --full takes all dermoscopy
images, --prrfl measures PRR-FL alone, --densenet HarmoFL with DenseNet121. Every turn has a seed of
its own.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import counterpoint
from benchmarks.measure import arguments, table, write
from counterpoint.data import decode
from counterpoint.data.site import Federation

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


class Work(NamedTuple):
    """How much is done."""

    images: int | None
    """A site, in all parts; None for all."""
    size: int
    """Sides of the images in pixels."""
    batch_size: int
    rounds: int
    epochs: int = 1

    def __str__(self) -> str:
        return (
            f"{self.images or 'all'} images a site at {self.size} pixels, {self.rounds} round(s) "
            f"of {self.epochs} epoch(s), {self.batch_size} images a batch"
        )

    def options(self, mine: bool) -> dict[str, object]:
        """As the library's run takes it, or as the naive one does."""
        size, epochs = ("image_size", "local_epochs") if mine else ("size", "epochs")
        same = {"seed": SEED, "rounds": self.rounds, "batch_size": self.batch_size}
        return {**same, size: self.size, epochs: self.epochs}


PUBLISHED = Work(120, 128, 16, 2, 5), Work(400, 96, 128, 2), Work(None, 384, 16, 2)
"""PRR-FL, HarmoFL, and HarmoFL on masks."""
QUICK = Work(20, 32, 16, 1, 2), Work(20, 32, 16, 1), Work(None, 256, 8, 1)
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


def prrfl(table: Path, work: Work) -> dict[str, Side]:
    """PRR-FL with the slim VGG16."""
    mine = work.options(mine=True) | {"protocol": "given"}
    passing, half = {"local.stage_scores": "passing"}, {"precision": "bfloat16"}
    naive = work.options(mine=False)
    naive.pop("batch_size")  # it is 16 there, as released

    def run(options: dict[str, object]) -> str:
        return RUN.format(method="prrfl", data=str(table), score="macro_f1", options=options)

    name = "naive PRR-FL"
    return {
        name: Side(NAIVE.format(module="prrfl", options=naive)),
        "prrfl": Side(run(mine), name, "at least 1.5"),
        "prrfl, stages in passing": Side(run(mine | passing), name),
        EXACT: Side(run(mine | half), name, "at least 3"),
        PASSING: Side(run(mine | half | passing), name, "at least 3.5"),
    }


def harmofl(
    name: str, module: str, work: Work, given: Mapping[str, object], run: Callable[..., str]
) -> dict[str, Side]:
    """HarmoFL; ``run`` makes the program of the library's side from its options."""
    mine, naive = {**work.options(mine=True), **given}, f"naive {name}"
    return {
        naive: Side(NAIVE.format(module=module, options=work.options(mine=False))),
        f"{name}, released": Side(run(options=mine), naive, "at least 2"),
        f"{name}, released, bfloat16": Side(
            run(options=mine | {"precision": "bfloat16"}), naive, "at least 4"
        ),
    }


def tabulate(federation: Federation, to: Path) -> None:
    """Write a table of images with masks for the naive side."""
    rows = [site.table.assign(site=site.name) for site in federation.sites]
    pd.concat(rows)[["site", "split", "image", "mask"]].to_csv(to, index=False)


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
    chosen = arguments(__doc__, "--full", "--prrfl", "--densenet")
    root = Path(os.environ.get("COUNTERPOINT_DERMOSCOPY", "dermoscopy"))
    retina = os.environ.get("COUNTERPOINT_RETINA")
    if not root.is_dir():
        raise SystemExit(f"no images in {root}: set COUNTERPOINT_DERMOSCOPY to their folder")
    turns = chosen.turns or (1 if chosen.quick else 3)
    alone = "prrfl" if chosen.prrfl else "densenet" if chosen.densenet else ""
    amounts = QUICK if chosen.quick else PUBLISHED
    if chosen.full:
        amounts = amounts[0]._replace(images=None), amounts[1]._replace(images=None), amounts[2]
    with tempfile.TemporaryDirectory() as folder:
        tables = [Path(folder) / f"{name}.csv" for name in ("prrfl", "harmofl", "masks")]
        for path, work in zip(tables[:2], amounts[:2], strict=True):
            subset(root, work.images, path)
            decode(counterpoint.load(path, protocol="given"), work.size)  # into the cache
        program = partial(RUN.format, method="harmofl-released")
        labels = partial(program, data=str(tables[1]), score="macro_f1")
        given = {"protocol": "given", "augmentation": "prrfl"}
        groups = [
            (tables[0], prrfl(tables[0], amounts[0])),
            (tables[1], harmofl("HarmoFL", "harmofl", amounts[1], given, labels)),
        ]
        if retina:
            federation = counterpoint.load("retina", retina)
            decode(federation, amounts[2].size)
            tabulate(federation, tables[2])
            masks = partial(program, data="retina", score="dice")
            where = {"root": retina}
            dense = harmofl("HarmoFL, U-Net", "harmofl_masks", amounts[2], where, masks)
            groups.append((tables[2], dense))
        if alone:
            groups = [groups[("prrfl", "densenet").index(alone)]]
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
    what = "".join(
        f"{name}: {work}.\n"
        for name, work in zip(("PRR-FL", "HarmoFL", "U-Net"), amounts, strict=True)
    )
    what += (
        "The process counts imports and reading of data on both sides, and of ours the test and "
        "the figure at the end.\n\n"
    )
    alike = [a == b for a, b in zip(*stages.values(), strict=True)]
    said = f"\n\nStages as with the exact scores: {sum(alike)} of {len(alike)} local epochs."
    write(
        f"naive_{alone}" if alone else "naive",
        "Whole runs against the naive way",
        what + table(HEAD, rows) + (said if alike else ""),
    )


if __name__ == "__main__":
    main()
