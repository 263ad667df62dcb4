"""Counterpoint, as it is used: from files, every round scored and saved, test in the end."""

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

import counterpoint
from benchmarks.peers.work import BATCH, CLASSES, LR, WORKS, Work, told


def write_images(work: Work, folder: Path) -> Path:
    """Write the clients' training images, and six more each for validation and test."""
    lines = ["site,image,label,split"]
    rng = np.random.default_rng(0)
    for client in range(work.clients):
        for number in range(work.images + 12):
            pixels = rng.integers(0, 256, (work.size, work.size, 3), dtype=np.uint8)
            name = f"{client}-{number}.png"
            Image.fromarray(pixels).save(folder / name, compress_level=0)
            over = number - work.images
            split = "train" if over < 0 else "validation" if over < 6 else "test"
            lines.append(f"c{client:03d},{name},class {number % CLASSES},{split}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def simulate(work: Work) -> None:
    """FedAvg with everything that a run does."""
    counterpoint.run(
        "fedavg",
        FOLDER / "table.csv",
        out=FOLDER / "run",
        model=work.path,
        rounds=work.rounds,
        local_epochs=1,
        image_size=work.size,
        batch_size=BATCH,
        lr=LR,
        weight_decay=0.0,
        augmentation="none",
    )


if __name__ == "__main__":
    import sys

    with tempfile.TemporaryDirectory() as made:
        FOLDER = Path(made)
        write_images(WORKS[sys.argv[1]], FOLDER)
        told(simulate, f"counterpoint {version('counterpoint')}")
