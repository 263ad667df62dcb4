"""Every method on real images, once each: dermoscopy (classification) and retina (segmentation).

    python studies/all_methods/table.py DERMOSCOPY RETINA OUT [--task segmentation] [--only NAME]

DERMOSCOPY and RETINA are the folders of the images. OUT receives a run folder a method and task;
those that are there already are gone on with or only read. The table goes to OUT/table.md and to
the terminal. Methods that take two gradients for an image (two models a site, or perturbed
weights) get half the local epochs, so that all have the same number of gradient evaluations.
"""

import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import counterpoint
from counterpoint.methods import Method, methods
from counterpoint.report.words import number, size

COMMON: dict[str, object] = {
    "schedule.model_options": {},
    "keep_optimizer": False,
    "lr_decay": 1.0,
    "select_last": 1.0,
    "precision": "bfloat16",
    "schedule.weight_decay": 1e-5,
}
TASKS: dict[str, dict[str, object]] = {
    "classification": {
        "data": "dermoscopy",
        "rounds": 2,
        "local_epochs": 2,
        "image_size": 64,
        "train_limit": 100,
        "batch_size": 16,
        "model": "slim-vgg16",
        "augmentation": "prrfl",
        "optimizer": "sgd",
        "schedule.lr": 1e-2,
        "schedule.momentum": 0.9,
    },
    "segmentation": {
        "data": "retina",
        "rounds": 3,
        "local_epochs": 4,
        "image_size": 128,
        "batch_size": 4,
        "model": "unet",
        "augmentation": "flips",
        "optimizer": "adam",
        "schedule.lr": 1e-3,
    },
}


def cost(method: Method) -> int:
    """Gradients that a method takes for an image in an epoch."""
    trained = {"ditto": 2, "deputy": 2, "prototype-deputy": 2}.get(method.local.kind, 1)
    return trained * (2 if method.perturbation else 1)


def run(name: str, task: str, root: Path, out: Path, seed: int) -> counterpoint.Result:
    """Run a method, or go on with it, or read it."""
    folder = out / f"{task}-{name}"
    if (folder / "settings.yaml").exists():
        return counterpoint.resume(folder)
    settings = COMMON | TASKS[task] | {"seed": seed, "data.root": str(root), "data.task": task}
    epochs = int(str(settings.pop("local_epochs")))
    settings["local_epochs"] = epochs // cost(methods()[name])
    if methods()[name].schedule.finetune_epochs:
        settings["finetune_epochs"] = epochs
    if methods()[name].local.kind == "control-variates":  # made for SGD, refused with Adam
        settings |= {"optimizer": "sgd", "schedule.lr": 1e-2}
    data = str(settings.pop("data"))
    return counterpoint.run(name, data, out=folder, settings=settings)


def table(results: dict[str, counterpoint.Result]) -> list[str]:
    """The main score a site, mean, worst, bytes and images with gradient, as Markdown."""
    first = next(iter(results.values())).results
    score = first["score"]
    head = ["method", *first["test"], "mean", "worst", "up", "gradients"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, result in results.items():
        values = result.results
        scores = [row[score] for row in values["test"].values()]
        cells = [number(score, s) for s in (*scores, values["mean"][score], min(scores))]
        cells += [size(values["bytes"]["up_per_round_and_site"])]
        cells += [str(values["images_with_gradient"])]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def main(
    dermoscopy: Path,
    retina: Path,
    out: Path,
    seed: Annotated[int, typer.Option()] = 1,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these methods.")] = None,
) -> None:
    """Run what is missing, then print the tables."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        f"Seed {seed}, test scores in %, one real run each. Python {platform.python_version()} on "
        f"{platform.machine()}, PyTorch {version('torch')}.",
    ]
    for one, root in (("classification", dermoscopy), ("segmentation", retina)):
        if task not in (None, one):
            continue
        results = {}
        for name in only or methods():
            start = time.perf_counter()
            results[name] = run(name, one, root, out, seed)
            print(f"{one} {name}: {time.perf_counter() - start:.0f} s", flush=True)
        given = ", ".join(f"{k.rpartition('.')[2]} {v}" for k, v in TASKS[one].items())
        lines += ["", f"{one}: {given}", "", *table(results)]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
