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
BAND = {"band": "dc"}  # HarmoFL's full band needs longer training than an example is worth
PLANE = ["--shape", "plane", "--sites", "north,south", "--split", "train", "--points", "7"]
FIGURES = {
    "retrogress": ["methods"],
    "convergence": ["methods", "--against", "bytes"],
    "sites": ["methods"],
    "landscape": ["methods/fedavg-1", "methods/harmofl-1-dc", *PLANE],
    "sweep": ["sweep"],
    "ablation": ["ablation"],
}


def runs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What is run: a folder, a method, and its own settings."""
    for seed in (1, 2):
        yield "methods", "fedavg", {"seed": seed}
        yield "methods", "prrfl", {"seed": seed}
        yield "methods", "harmofl", {"seed": seed} | BAND
        for alpha in (0.005, 0.05, 0.5):
            for epochs in (1, 3):
                own = {"seed": seed, "perturbation": alpha, "local_epochs": epochs}
                yield "sweep", "harmofl", own | BAND
        for alpha in (0.0, 0.05):
            yield "ablation", "harmofl", {"seed": seed, "perturbation": alpha} | BAND
            yield "ablation", "harmofl", {"seed": seed, "perturbation": alpha, "harmonise": "none"}


def main(folder: Path, out: Annotated[Path, typer.Option()] = Path("docs/figures")) -> None:
    """Run what is missing, then draw."""
    for group, method, own in runs():
        name = "-".join(map(str, [method, *own.values()]))
        if not (folder / group / name / "results.json").exists():
            print(group, name, flush=True)
            counterpoint.run(method, "phantom", out=folder / group / name, settings=COMMON | own)
    command = [sys.executable, "-m", "counterpoint.cli", "figure"]
    for figure, words in FIGURES.items():
        given = [str(folder / word) if (folder / word).is_dir() else word for word in words]
        subprocess.run([*command, figure, *given, "--out", str(out)], check=True)
        for ending in ("png", "pdf", "csv"):  # one form each is enough for a page
            (out / f"{figure}.{ending}").unlink()


if __name__ == "__main__":
    typer.run(main)
