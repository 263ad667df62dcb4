"""PRR-FL, HarmoFL, both together and their baselines on dermoscopy, at one small budget.

    python studies/first_comparison/compare.py ROOT OUT [--seed 1] [--rounds 8] [--local-epochs 2]

ROOT is the folder of the dermoscopy images. OUT receives a run folder for every method; those that
are there already are gone on with or only read. The table goes to OUT/table.md and to the
terminal, the retrogress curves of PRR-FL and FedAvg to OUT/retrogress.png.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import counterpoint
from counterpoint.figures import retrogress
from counterpoint.figures.save import save
from counterpoint.report.words import number, size
from counterpoint.runs import Run

HARMONISED = {"harmonise": "amplitude", "perturbation": 0.05}
RUNS: dict[str, tuple[str, dict[str, object]]] = {
    "local only": ("local", {}),
    "FedAvg": ("fedavg", {}),
    "FedAvg, recalibrated": ("fedavg", {"statistics": "recalibrated"}),
    "FedBN": ("fedbn", {}),
    "PRR-FL": ("prrfl", {}),
    "HarmoFL, batch statistics": ("harmofl", {}),
    "HarmoFL, recalibrated": ("harmofl", {"statistics": "recalibrated"}),
    "PRR-FL + HarmoFL": ("prrfl", HARMONISED),
    "HarmoFL, zero frequency, recalibrated": (
        "harmofl",
        {"statistics": "recalibrated", "band": "dc"},
    ),
}
# The same for every method, so that only the methods differ.
COMMON: dict[str, object] = {
    "image_size": 64,
    "train_limit": 400,
    "batch_size": 16,
    "model": "slim-vgg16",
    "model_options": {},
    "augmentation": "prrfl",
    "optimizer": "sgd",
    "lr": 1e-2,
    "schedule.momentum": 0.9,
    "weight_decay": 1e-6,
    "lr_decay": 1.0,
    "keep_optimizer": False,
    "select_last": 1.0,
    "precision": "bfloat16",
}


def table(results: dict[str, counterpoint.Result]) -> list[str]:
    """Test macro-F1 a site, mean, worst site, AUC, retrogress, bytes and images, as Markdown."""
    sites = list(next(iter(results.values())).results["test"])
    head = ["method", *sites, "mean", "worst", "mean AUC", "retrogress", "up", "down", "images"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, result in results.items():
        values = result.results
        scores = {site: row["macro_f1"] for site, row in values["test"].items()}
        drops = values["retrogress"]
        shared = drops.get("deputy", drops.get("model", {"mean": float("nan")}))
        cells = [number("macro_f1", score) for score in scores.values()]
        cells += [number("macro_f1", values["mean"]["macro_f1"])]
        cells += [number("macro_f1", min(scores.values())), number("auc", values["mean"]["auc"])]
        cells += [f"{100 * shared['mean']:+.1f}"]
        cells += [size(values["bytes"][f"{d}_per_round_and_site"]) for d in ("up", "down")]
        cells += [str(values["images_with_gradient"])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def draw(results: dict[str, counterpoint.Result], path: Path) -> None:
    """PRR-FL's retrogress curve beside FedAvg's."""
    shown = ("FedAvg", "FedAvg, recalibrated", "PRR-FL")
    figure = retrogress.draw(retrogress.numbers([Run(results[n], name=n) for n in shown]))
    save(figure, path.with_suffix(""), ["png"])


def main(
    root: Path,
    out: Path,
    seed: Annotated[int, typer.Option()] = 1,
    rounds: Annotated[int, typer.Option()] = 8,
    local_epochs: Annotated[int, typer.Option()] = 2,
) -> None:
    """Run what is missing, then print the table."""
    out.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, (method, options) in RUNS.items():
        folder, start = out / name.replace(", ", "-").replace(" ", "-"), time.perf_counter()
        if (folder / "settings.yaml").exists():
            results[name] = counterpoint.resume(folder)
        else:
            settings = COMMON | options | {"rounds": rounds, "local_epochs": local_epochs}
            settings |= {"seed": seed, "data.root": str(root)}
            results[name] = counterpoint.run(method, "dermoscopy", out=folder, settings=settings)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    lines = [
        f"Test macro-F1 (%) a site; seed {seed}, {rounds} rounds of {local_epochs} local epochs, "
        "400 training images a site, batches of 16, 64x64 pixels, bfloat16. "
        f"Python {platform.python_version()} on {platform.machine()}, PyTorch {version('torch')}.",
        "",
        *table(results),
    ]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    draw(results, out / "retrogress.png")


if __name__ == "__main__":
    typer.run(main)
