"""Whole runs on dermoscopy images against a naive version of the released code's way.

Needs the images: the variable COUNTERPOINT_DERMOSCOPY names their folder. Both sides are processes
of their own with all cores. Told are the seconds of the rounds alone, and those from the start of
the process to its end; the images are decoded into the library's cache before
(benchmarks.loading tells what that costs, once). The library's side keeps freed memory, as it does
on the command line; the naive one is as PyTorch comes. A subset in the proportions of the whole;
--full takes all images. Every turn has a seed of its own.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import counterpoint
from benchmarks.measure import arguments, table, write
from counterpoint.data import decode

NAIVE = """
import sys, time, pandas as pd
from pathlib import Path
from benchmarks.naive.{module} import run
table = pd.read_csv(sys.argv[1])
classes = sorted(table["label"].unique())
sites = [
    {{part: [(Path(p), classes.index(y)) for p, y in zip(rows["image"], rows["label"])]
     for part, rows in site.groupby("split")}}
    for _, site in table.groupby("site")
]
started = time.perf_counter()
score = run(sites, len(classes), **{options})
print(time.perf_counter() - started, score)
"""

RUN = """
import sys, counterpoint
from benchmarks.bare_loop import Watch
from counterpoint.allocator import keep_for_good
keep_for_good()  # as the command line does
watch = Watch()
result = counterpoint.run(
    {method!r}, sys.argv[1], out=sys.argv[2], protocol="given", report=watch, **{options}
)
print(watch.between("rounds begin", "rounds end")[0], result.table["macro_f1"].mean())
"""


SEED = 987654321
"""Stands in the programs for the seed of a turn."""
EXACT_AND_PASSING = "prrfl, bfloat16", "prrfl, bfloat16, stages in passing"


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


def process(code: str, *words: str) -> tuple[float, float, float, float]:
    """Run a program; wall and processor seconds, those of its rounds, and the score it prints."""
    before = os.times()
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(done.stderr)
    spent = after.children_user + after.children_system
    rounds, score = map(float, done.stdout.split()[-2:])
    return wall, spent - before.children_user - before.children_system, rounds, score


def main() -> None:
    """PRR-FL and HarmoFL, float32 and bfloat16."""
    chosen = arguments(__doc__, "--full")
    root = Path(os.environ.get("COUNTERPOINT_DERMOSCOPY", "dermoscopy"))
    if not root.is_dir():
        raise SystemExit(f"no images in {root}: set COUNTERPOINT_DERMOSCOPY to their folder")
    turns = chosen.turns or (1 if chosen.quick else 3)
    images = None if chosen.full else 20 if chosen.quick else 120
    size = (32, 32) if chosen.quick else (128, 96)
    rounds, epochs = 1 if chosen.quick else 4, 2 if chosen.quick else 5
    common = {"seed": SEED}
    prrfl = {"rounds": 1, "local_epochs": epochs, "image_size": size[0]}
    harmofl = {
        "rounds": rounds,
        "local_epochs": 1,
        "image_size": size[1],
        "batch_size": 16,
        "augmentation": "prrfl",
    }
    sides = {
        "naive PRR-FL": NAIVE.format(
            module="prrfl", options=common | {"rounds": 1, "size": size[0], "epochs": epochs}
        ),
        "prrfl": RUN.format(method="prrfl", options=common | prrfl),
        "prrfl, bfloat16": RUN.format(
            method="prrfl", options=common | prrfl | {"precision": "bfloat16"}
        ),
        "prrfl, bfloat16, stages in passing": RUN.format(
            method="prrfl",
            options=common | prrfl | {"precision": "bfloat16", "local.stage_scores": "passing"},
        ),
        "naive HarmoFL": NAIVE.format(
            module="harmofl",
            options=common | {"rounds": rounds, "size": size[1], "epochs": 1, "batch_size": 16},
        ),
        "harmofl-released": RUN.format(method="harmofl-released", options=common | harmofl),
        "harmofl-released, bfloat16": RUN.format(
            method="harmofl-released", options=common | harmofl | {"precision": "bfloat16"}
        ),
    }
    wanted = ["", "at least 1.5", "at least 3", "at least 3.5", "", "at least 2", "at least 4"]
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in sides}
    stages: dict[str, list[str]] = {name: [] for name in EXACT_AND_PASSING}
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "table.csv"
        subset(root, images, listed)
        federation = counterpoint.load(listed, protocol="given")
        for pixels in size:
            decode(federation, pixels)  # into the cache
        for turn in range(turns):
            for number, (name, code) in enumerate(sides.items()):
                code = code.replace(str(SEED), str(turn + 1))
                run = Path(folder) / f"run-{turn}-{number}"
                seen = process(code, str(listed), str(run))
                found[name].append(seen)
                if name in EXACT_AND_PASSING:
                    stages[name] += stages_of(run)
                print(name, seen, flush=True)
    rows = []
    for name, target in zip(sides, wanted, strict=True):
        naive = found[
            "naive PRR-FL" if "prrfl" in name.lower().replace("-", "") else "naive HarmoFL"
        ]
        mine = found[name]
        ratios = [
            statistics.median(a[clock] / b[clock] for a, b in zip(naive, mine, strict=True))
            for clock in (0, 1, 2)
        ]
        scores = ", ".join(f"{100 * x[3]:.1f}" for x in mine)
        rows.append(
            [
                name,
                statistics.median(x[2] for x in mine),
                f"{ratios[2]:.2f}",
                target,
                statistics.median(x[0] for x in mine),
                f"{ratios[0]:.2f}",
                f"{ratios[1]:.2f}",
                f"{100 * statistics.mean(x[3] for x in mine):.1f} ({scores})",
            ]
        )
    head = [
        "side",
        "s of the rounds",
        "times as fast",
        "wanted",
        "s of the process",
        "times as fast",
        "by CPU time",
        "test macro-F1 (a seed each)",
    ]
    what = (
        f"{images or 'all'} images a site. PRR-FL: 1 round of {epochs} epochs at {size[0]} pixels. "
        f"HarmoFL: {rounds} round(s) of 1 epoch at {size[1]} pixels. The process counts imports "
        "and reading of data on both sides, and of ours the test and the figure at the end.\n\n"
    )
    alike = [a == b for a, b in zip(*stages.values(), strict=True)]
    said = f"\n\nStages as with the exact scores: {sum(alike)} of {len(alike)} local epochs."
    write("naive", "Whole runs against the naive way", what + table(head, rows) + said)


if __name__ == "__main__":
    main()
