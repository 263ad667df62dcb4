"""The small figures of docs/figures.md: runs on the phantom, then the commands that draw them.

    python studies/figures/examples.py RUNS [--out docs/figures]

RUNS receives the runs; those that are there already are only read. Networks and images are tiny,
so that it takes minutes: the figures show what a figure looks like, and nothing of the methods.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

import counterpoint

COMMON = {
    "rounds": 5,
    "local_epochs": 2,
    "image_size": 32,
    "batch_size": 8,
    "train_limit": 48,
    "model": "monai.networks.nets:DenseNet",
    "model_options": {"init_features": 16, "growth_rate": 8, "block_config": [2, 2], "bn_size": 2},
    "optimizer": "sgd",
    "lr": 0.05,
    "momentum": 0.9,
    "keep_optimizer": False,
    "select_last": 1.0,
    "augmentation": "flips",
}
FIGURES = {
    "retrogress": ["methods"],
    "convergence": ["methods", "--against", "bytes"],
    "sites": ["methods"],
    "landscape": ["optima", "--shape", "plane", "--sites", "north,south", "--split", "train"],
    "sweep": ["sweep"],
    "ablation": ["ablation"],
}


def runs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What is run: a folder, a method, and its own settings."""
    for method in ("fedavg", "prrfl", "harmofl"):
        yield "methods", method, {"seed": 1}
        yield "methods", method, {"seed": 2}
    for method in ("fedavg", "harmofl"):
        yield "optima", method, {}
    for alpha in (0.005, 0.05, 0.5):
        for epochs in (1, 3):
            for seed in (1, 2):
                own = {"perturbation": alpha, "local_epochs": epochs, "seed": seed}
                yield "sweep", "harmofl", own
    for harmonise in ("none", "amplitude"):
        for alpha in (0.0, 0.05):
            for seed in (1, 2):
                own = {"harmonise": harmonise, "perturbation": alpha, "seed": seed}
                yield "ablation", "harmofl", own


def main(folder: Path, out: Annotated[Path, typer.Option()] = Path("docs/figures")) -> None:
    """Run what is missing, then draw."""
    for group, method, own in runs():
        name = "-".join([method, *(f"{key}-{value}" for key, value in own.items())])
        if not (folder / group / name / "results.json").exists():
            print(group, name, flush=True)
            counterpoint.run(method, "phantom", out=folder / group / name, settings=COMMON | own)
    for figure, (group, *words) in FIGURES.items():
        command = [sys.executable, "-m", "counterpoint.cli", "figure", figure, folder / group]
        subprocess.run([*map(str, command), *words, "--out", str(out)], check=True)
    for left in out.glob("*.*"):  # a picture each is enough for a page
        if left.suffix != ".png":
            left.unlink()


if __name__ == "__main__":
    typer.run(main)
