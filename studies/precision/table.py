"""Whether bfloat16, and stages taken in passing, change scores: dermoscopy, the same seeds.

    python studies/precision/table.py DERMOSCOPY OUT

OUT receives a run folder for every row and seed; those that are there already are gone on with or
only read. The table goes to OUT/table.md and to the terminal. Validation chooses the round; test
scores are of that model. Differences are to float32, seed by seed.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import typer

import counterpoint

COMMON: dict[str, object] = {
    "rounds": 4,
    "image_size": 64,
    "train_limit": 300,
    "batch_size": 16,
    "model": "slim-vgg16",
    "augmentation": "prrfl",
    "optimizer": "sgd",
    "schedule.model_options": {},
    "schedule.lr": 1e-2,
    "schedule.momentum": 0.9,
    "schedule.weight_decay": 1e-5,
    "keep_optimizer": False,
    "lr_decay": 0.5,
    "lr_decay_rounds": 3,
    "select_last": 1.0,
}
BFLOAT16 = {"precision": "bfloat16"}
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    "PRR-FL, float32": ("prrfl", {"local_epochs": 2}),
    "PRR-FL, bfloat16": ("prrfl", {"local_epochs": 2, **BFLOAT16}),
    "PRR-FL, bfloat16, stages in passing": (
        "prrfl",
        {"local_epochs": 2, "stage_scores": "passing", **BFLOAT16},
    ),
}
"""Name: method and its own settings."""


def run(name: str, root: Path, out: Path, seed: int) -> counterpoint.Result:
    """Do a run, or go on with it, or read it."""
    method, own = ROWS[name]
    folder = out / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if (folder / "settings.yaml").exists():
        return counterpoint.resume(folder)
    settings = COMMON | own | {"seed": seed, "data.root": str(root)}
    return counterpoint.run(method, "dermoscopy", out=folder, settings=settings)


def spread(values: list[float], sign: str = "") -> str:
    """Mean and standard deviation over the seeds, in percent."""
    return f"{100 * fmean(values):{sign}.1f} ± {100 * stdev(values):.1f}"


def main(
    dermoscopy: Path,
    out: Path,
    seeds: Annotated[int, typer.Option(help="Seeds 1, 2, ...; two or more.", min=2)] = 3,
) -> None:
    """Run what is missing, then print the table."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ROWS}
    for seed in range(1, seeds + 1):
        for name, rows in found.items():
            start = time.perf_counter()
            values = run(name, dermoscopy, out, seed).results
            tests = [row["macro_f1"] for row in values["test"].values()]
            rows.append((fmean(tests), min(tests), values["mean"]["auc"]))
            took = time.perf_counter() - start
            print(f"{name} {seed}: {100 * fmean(tests):.1f}, {took:.0f} s", flush=True)
    lines = [
        f"Test scores in %, mean ± standard deviation over seeds 1 to {seeds}. Python "
        f"{platform.python_version()} on {platform.machine()}, PyTorch {version('torch')}.",
        "",
        ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in COMMON.items()),
        "",
        "| run | macro-F1, mean of the sites | worst site | AUC | macro-F1 to float32 | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        cells = [spread(list(column)) for column in zip(*rows, strict=True)]
        pairs = list(zip(rows, found["PRR-FL, float32"], strict=True))
        to = [spread([one[i] - other[i] for one, other in pairs], "+") for i in (0, 2)]
        lines.append(f"| {' | '.join([name, *cells, *to])} |")
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
