"""Our method against local training, FedAvg with recalibrated statistics, PRR-FL and HarmoFL.

    python studies/counterpoint/compare.py DERMOSCOPY RETINA OUT [--seeds 3] [--task segmentation]

All have the same network, optimiser, learning rate, rounds, augmentation and number of gradient
evaluations: methods that take two gradients for an image get half the local epochs. Validation
chooses the round; test scores are of that model. OUT receives a run folder for each; those that are
there already are gone on with or only read. The tables go to OUT/table.md and to the terminal.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer

import counterpoint
from counterpoint.report.table import number

# name: method, its own settings, gradients an image and epoch
RUNS: dict[str, dict[str, tuple[str, dict[str, object], int]]] = {
    "classification": {
        "local only": ("local", {}, 1),
        "FedAvg, recalibrated": ("fedavg", {"statistics": "recalibrated"}, 1),
        "PRR-FL": ("prrfl", {}, 2),
        "HarmoFL": ("harmofl", {}, 2),
        "counterpoint": ("counterpoint", {}, 1),
        "local only, balanced loss": ("local", {"loss": "balanced", "balance": 0.5}, 1),
    },
    "segmentation": {
        "local only": ("local", {}, 1),
        "FedAvg, recalibrated": ("fedavg", {"statistics": "recalibrated"}, 1),
        "PRR-FL": ("prrfl", {}, 2),
        "HarmoFL": ("harmofl", {}, 2),
        "counterpoint": ("counterpoint", {}, 1),
    },
}
COMMON: dict[str, object] = {
    "schedule.model_options": {},
    "keep_optimizer": False,
    "lr_decay": 0.5,
    "lr_decay_rounds": 3,
    "select_last": 1.0,
    "precision": "bfloat16",
    "schedule.weight_decay": 1e-5,
}
TASKS: dict[str, dict[str, object]] = {
    "classification": {
        "data": "dermoscopy",
        "rounds": 4,
        "local_epochs": 4,
        "image_size": 64,
        "train_limit": 300,
        "batch_size": 16,
        "model": "slim-vgg16",
        "augmentation": "prrfl",
        "optimizer": "sgd",
        "schedule.lr": 1e-2,
        "schedule.momentum": 0.9,
    },
    "segmentation": {
        "data": "retina",
        "rounds": 8,
        "local_epochs": 4,
        "image_size": 128,
        "batch_size": 4,
        "model": "unet",
        "augmentation": "flips",
        "optimizer": "adam",
        "schedule.lr": 1e-3,
    },
}


def run(name: str, task: str, root: Path, out: Path, seed: int) -> counterpoint.Result:
    """Run a method with a seed, or go on with it, or read it."""
    method, own, cost = RUNS[task][name]
    folder = out / f"{task}-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if (folder / "settings.yaml").exists():
        return counterpoint.resume(folder)
    settings = COMMON | TASKS[task] | own
    settings["local_epochs"] = int(str(settings["local_epochs"])) // cost
    settings |= {"seed": seed, "data.root": str(root), "data.task": task}
    data = str(settings.pop("data"))
    return counterpoint.run(method, data, out=folder, settings=settings)


def spread(values: list[float]) -> str:
    """Mean and standard deviation over the seeds, in percent."""
    text = number("dice", mean(values))
    return f"{text} ± {number('dice', stdev(values))}" if len(values) > 1 else text


def table(results: dict[str, list[counterpoint.Result]]) -> list[str]:
    """Test score a site, mean, worst site and validation score, over the seeds, as Markdown."""
    first = next(iter(results.values()))[0].results
    score, sites = first["score"], list(first["test"])
    head = ["method", *sites, "mean", "worst site", "validation", "gradients"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, runs in results.items():
        tests = [{site: row[score] for site, row in r.results["test"].items()} for r in runs]
        cells = [spread([test[site] for test in tests]) for site in sites]
        cells += [spread([mean(test.values()) for test in tests])]
        cells += [spread([min(test.values()) for test in tests])]
        cells += [spread([r.results["validation"] for r in runs])]
        cells += [str(runs[0].results["images_with_gradient"])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def main(
    dermoscopy: Path,
    retina: Path,
    out: Path,
    seeds: Annotated[int, typer.Option(help="Seeds 1, 2, ...; the split is drawn anew.")] = 3,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
) -> None:
    """Run what is missing, then print the tables."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        f"Test scores in %, mean ± standard deviation over {seeds} seeds (splits and weights). "
        f"Python {platform.python_version()} on {platform.machine()}, PyTorch {version('torch')}."
    ]
    for one, root in (("classification", dermoscopy), ("segmentation", retina)):
        if task not in (None, one):
            continue
        results: dict[str, list[counterpoint.Result]] = {name: [] for name in RUNS[one]}
        for seed in range(1, seeds + 1):
            for name, runs in results.items():
                start = time.perf_counter()
                runs.append(run(name, one, root, out, seed))
                print(f"{one} {name} {seed}: {time.perf_counter() - start:.0f} s", flush=True)
        given = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in TASKS[one].items())
        lines += ["", f"{one}: {given}", "", *table(results)]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
