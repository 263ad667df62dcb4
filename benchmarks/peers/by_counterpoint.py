"""Counterpoint, as it is used: from files, every round scored and saved, test in the end."""

import dataclasses
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

import counterpoint
from benchmarks.peers.work import BATCH, LR, WORKS, Work, pixels, told


def write_images(work: Work, folder: Path) -> Path:
    """Write the clients' training images, and six more each for validation and test."""
    lines = ["site,image,label,split"]
    more = dataclasses.replace(work, images=12)
    for client in range(work.clients):
        training, others = pixels(work, client), pixels(more, work.clients + client)
        images = torch.cat([training[0], others[0]]).permute(0, 2, 3, 1).numpy()
        labels = torch.cat([training[1], others[1]]).tolist()
        splits = ["train"] * work.images + ["validation"] * 6 + ["test"] * 6
        for number, (image, label, split) in enumerate(zip(images, labels, splits, strict=True)):
            name = f"{client}-{number}.png"
            Image.fromarray(image).save(folder / name, compress_level=0)
            lines.append(f"c{client:03d},{name},class {label},{split}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def simulate(work: Work) -> nn.Module:
    """FedAvg with everything that a run does."""
    result = counterpoint.run(
        "fedavg",
        FOLDER / "table.csv",
        out=FOLDER / "run",
        model=f"benchmarks.peers.work:{work.network.__name__}",
        rounds=work.rounds,
        local_epochs=1,
        image_size=work.size,
        batch_size=BATCH,
        lr=LR,
        momentum=0.0,
        weight_decay=0.0,
        augmentation="none",
        select_last=1 / work.rounds,
    )
    return nn.Sequential(ZeroToOne(), result.model())


class ZeroToOne(nn.Module):
    """Images in -1..1 as a predictor takes them."""

    def forward(self, images: Tensor) -> Tensor:
        """Images in 0..1."""
        return (images + 1) / 2


if __name__ == "__main__":
    import sys

    with tempfile.TemporaryDirectory() as made:
        FOLDER = Path(made)
        write_images(WORKS[sys.argv[1]], FOLDER)
        told(simulate, f"counterpoint {version('counterpoint')}")
