"""What noise costs and what it is worth: FedAvg on the phantom with each kind of privacy.

    python studies/privacy/table.py OUT

OUT receives a run folder for every row; those that are there already are gone on with or only
read. The table goes to OUT/table.md and to the terminal. The records rows need Opacus
(`pip install 'counterpoint[privacy]'`). Noise is seeded, so that the table can be made again.
"""

import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer
from torch import Tensor, nn

import counterpoint
from counterpoint.report.words import number


class Small(nn.Module):
    """Three convolutions with group norm and a linear layer: 24,000 weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
                nn.GroupNorm(outputs // 16, outputs),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes)."""
        logits: Tensor = self.layers(images)
        return logits


COMMON: dict[str, object] = {
    "rounds": 20,
    "local_epochs": 2,
    "batch_size": 16,
    "image_size": 32,
    "model": "table:Small",
    "statistics": "local",
    "augmentation": "flips",
    "schedule.lr": 0.1,
    "schedule.momentum": 0.9,
    "lr_decay": 1.0,
    "workers": 1,
    "threads": 1,
}
ROWS: list[tuple[str, float]] = [
    ("none", 0.0),
    *(("payload", noise) for noise in (0.0, 0.001, 0.01, 0.1, 1.0)),
    *(("records", noise) for noise in (0.0, 0.25, 0.5, 1.0, 2.0)),
]
"""Kind of privacy and noise; the clip is 1."""


def settings_of(kind: str, noise: float) -> dict[str, object]:
    """The settings of a row."""
    if kind == "none":
        return COMMON
    private = {"privacy": kind, "clip": 1.0, "noise": noise, "privacy.seeded": True}
    faster = {"schedule.lr": 0.3} if kind == "records" else {}  # clipped gradients are short
    return COMMON | private | faster


def row_of(kind: str, noise: float, results: list[counterpoint.Result]) -> str:
    """A row of the table: scores are means over the seeds, with the smallest and the largest."""
    told = results[0].results.get("privacy", {})
    cells = [kind, f"{noise:g}" if told else ""]
    for name in ("epsilon", "epsilon_of_means"):
        values = list(told.get(name, {}).values())
        ends = sorted({f"{v:.3g}" for v in values if v is not None}, key=float)
        cells.append(" to ".join(ends[:1] + ends[1:][-1:]) if ends else "∞" if values else "")
    for metric in ("macro_f1", "auc"):
        found = sorted(result.results["mean"][metric] for result in results)
        mean, low, high = (number(metric, n) for n in (fmean(found), found[0], found[-1]))
        cells.append(f"{mean} ({low} to {high})" if len(found) > 1 else mean)
    return f"| {' | '.join(cells)} |"


def main(
    out: Annotated[Path, typer.Argument(help="Folder for the runs and the table.")],
    seeds: Annotated[int, typer.Option(help="Runs of every row, with seeds from 1.")] = 3,
) -> None:
    """Make the table."""
    sys.path.insert(0, str(Path(__file__).parent))  # for the network, by its import path
    head = ["privacy", "noise", "epsilon", "towards another site", "macro-F1 %", "AUC %"]
    lines = [
        f"Seeds 1 to {seeds}. Python {platform.python_version()} on {platform.machine()}, PyTorch "
        f"{version('torch')}.",
        "",
        ", ".join(f"{name} {value}" for name, value in COMMON.items()) + "; for records lr 0.3",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
    ]
    for kind, noise in ROWS:
        start, results = time.perf_counter(), []
        for seed in range(1, seeds + 1):
            folder = out / f"{kind}-{noise:g}-{seed}"
            if folder.exists():
                results.append(counterpoint.resume(folder))
            else:
                wanted = settings_of(kind, noise) | {"seed": seed}
                results.append(counterpoint.run("fedavg", "phantom", out=folder, settings=wanted))
        lines.append(row_of(kind, noise, results))
        print(f"{lines[-1]} {time.perf_counter() - start:.0f} s", flush=True)
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
