"""Where the time of a round goes, part by part: of PRR-FL, and of HarmoFL as released.

The parts are functions of the library, watched from outside. Time inside of a part that is inside
of another one counts for the inner one only; a generator counts while it works.
"""

import inspect
import logging
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

import counterpoint
from benchmarks.measure import arguments, table, write
from counterpoint import at_site, client, federation, folder, kept, server
from counterpoint.aggregation import ProgressiveFourier
from counterpoint.data import augment
from counterpoint.first import first_predictor
from counterpoint.harmonise import AmplitudeLayer
from counterpoint.local.training import Training
from counterpoint.predictor import Predictor
from counterpoint.settings import make_settings
from counterpoint.tasks import make_task

CONVOLUTIONS = (
    "forward, of training",
    "loss, backward, step of the optimiser",
    "scores of the stage (both models, training images)",
    "scores on validation images",
)
PARTS = {
    "forward, of training": (Training, "forward"),
    "loss, backward, step of the optimiser": (Training, "step"),
    "scores of the stage (both models, training images)": (Training, "training_scores"),
    "scores on validation images": (client.Client, "score"),
    "batches: reading and scaling images": (client, "batches"),
    "augmentation": (augment, "AUGMENTATIONS"),
    "amplitude normalisation": (AmplitudeLayer, "forward"),
    "PFA: share": (ProgressiveFourier, "share"),
    "PFA: merge": (ProgressiveFourier, "merge"),
    "mean at the server": (server.WeightedMean, "add"),
    "state: copies out of the models": (client.Client, "put_down"),
    "state: into the models": (client.Client, "take_up"),
    "states and models that can be chosen: written": (at_site, "keep"),
    "mean: written": (federation, "keep"),
    "state and mean: read": (kept, "read_tensors"),
    "notebook and logs": (folder.RunFolder, "commit"),
}


class Clock:
    """Seconds by part, where the innermost part has the time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.open: list[str] = ["everything else"]
        self.since = time.perf_counter()

    def turn(self) -> None:
        """Give the time since the last turn to the part that is open."""
        now = time.perf_counter()
        self.seconds[self.open[-1]] += now - self.since
        self.since = now

    def enter(self, part: str) -> None:
        """Open a part."""
        self.turn()
        self.open.append(part)

    def leave(self) -> None:
        """Close it."""
        self.turn()
        self.open.pop()

    def watch(self, part: str, of: Callable[..., Any]) -> Callable[..., Any]:
        """A function, or generator function, that is the same but for being watched."""

        def through(steps: Iterator[Any]) -> Iterator[Any]:
            while True:
                self.enter(part)
                try:
                    given = next(steps)
                except StopIteration:
                    return
                finally:
                    self.leave()
                yield given

        def called(*given: Any, **named: Any) -> Any:
            if inspect.isgeneratorfunction(of):
                return through(of(*given, **named))
            self.enter(part)
            try:
                return of(*given, **named)
            finally:
                self.leave()

        return called


def best_rate(size: int) -> float:
    """Operations a second of a large product of matrices, or of a convolution: the faster one."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    images = torch.rand(16, 128, 64, 64).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    sides: list[tuple[Callable[[], object], float]] = [
        (lambda: a @ b, 2 * size**3),
        (lambda: layer(images), 2 * 9 * 128 * images.numel()),
    ]
    found = []
    for do, operations in sides:
        for _ in range(6):
            started = time.perf_counter()
            with torch.inference_mode():
                do()
            found.append(operations / (time.perf_counter() - started))
    return max(found)


def operations(method: str, options: dict[str, Any]) -> tuple[float, float]:
    """Operations of the network for an image: forward, and forward and backward."""
    settings = make_settings(method, "phantom", options)
    task = make_task(options["task"], ("a", "b", "c"), "default")
    shape = (3, *[settings.method.schedule.image_size] * 2)
    network, images = (
        first_predictor(settings.method, task, shape, 0).network,
        torch.rand(2, *shape),
    )
    counted = []
    for backward in (False, True):
        with FlopCounterMode(display=False) as counter:
            outputs = network(images)
            if backward:
                outputs.sum().backward()
        counted.append(counter.get_total_flops() / len(images))
    return counted[0], counted[1]


def least(
    spent: dict[str, float], passes: Counter[str], of_image: tuple[float, float], rate: float
) -> str:
    """What the round's passes would take at the best rate of the processor."""
    forward, both = of_image
    work = passes["scored"] * forward + passes["trained"] * both
    took = sum(spent.get(part, 0.0) for part in CONVOLUTIONS)
    return (
        f"\n\nThe passes of the network ({passes['trained']} images forward and backward, "
        f"{passes['scored']} forward) are {work / 1e12:.2f} * 10^12 operations in float32. At the "
        f"{rate / 1e9:.0f} * 10^9 a second of a large product or convolution they would "
        f"take {work / rate:.1f} s; they took {took:.1f} s. "
        f"Without these passes the round takes {sum(spent.values()) - took:.2f} s.\n\n"
    )


def watched(method: str, options: dict[str, Any]) -> tuple[dict[str, float], Counter[str]]:
    """Seconds of each part of the second of three rounds, and images in passes of the network."""
    clock = Clock()
    passes: Counter[str] = Counter()
    forward = Predictor.forward

    def counted(model: Predictor, images: torch.Tensor) -> torch.Tensor:
        passes["trained" if torch.is_grad_enabled() else "scored"] += len(images)
        return forward(model, images)

    def report(event: dict[str, object]) -> None:
        if event.get("moment") == "merged" and event["round"] == 1 + len(marks):
            clock.turn()
            marks.append((dict(clock.seconds), Counter(passes)))

    marks: list[tuple[dict[str, float], Counter[str]]] = []
    with ExitStack() as patches, tempfile.TemporaryDirectory() as name:
        patches.enter_context(patch.object(Predictor, "forward", counted))
        watching = {n: clock.watch("augmentation", f) for n, f in augment.AUGMENTATIONS.items()}
        patches.enter_context(patch.dict(augment.AUGMENTATIONS, watching))
        for part, (place, attribute) in PARTS.items():
            if attribute != "AUGMENTATIONS":
                seen = clock.watch(part, getattr(place, attribute))
                patches.enter_context(patch.object(place, attribute, seen))
        counterpoint.run(
            method, "phantom", out=Path(name) / "run", report=report, rounds=3, workers=1, **options
        )
    (first, done), (last, all_done), *_ = marks
    return {part: last[part] - first.get(part, 0.0) for part in last}, all_done - done


CASES: list[tuple[str, str, dict[str, Any]]] = [
    (
        "PRR-FL, slim VGG16, 5 local epochs",
        "prrfl",
        {"task": "classification", "local_epochs": 5, "image_size": 128, "train_limit": 32},
    ),
    (
        "HarmoFL as released, DenseNet121",
        "harmofl-released",
        {"task": "classification", "train_limit": 128},
    ),
    (
        "HarmoFL as released, U-Net, batches of 8",
        "harmofl-released",
        {"task": "segmentation", "image_size": 256, "batch_size": 8, "train_limit": 16},
    ),
]


def main() -> None:
    """One round after a first one, in which everything is set up."""
    logging.disable()
    chosen = arguments(__doc__)
    said = (
        "4 sites of phantom images, in one process; the second of three rounds, from its first "
        "merge to the next round's.\n\n"
    )
    rate = best_rate(512 if chosen.quick else 4096)
    less = {"image_size": 32, "train_limit": 16, "batch_size": 8} if chosen.quick else {}
    for name, method, case in CASES:
        options = case | less | {"threads": chosen.threads}
        spent, passes = watched(method, options)
        total = sum(spent.values())
        rows = [
            [part, 1000 * seconds, f"{100 * seconds / total:.2f} %"]
            for part, seconds in sorted(spent.items(), key=lambda item: -item[1])
        ]
        rows.append(["the round", 1000 * total, "100 %"])
        schedule = make_settings(method, "phantom", options).method.schedule
        said += (
            f"## {name}\n\n{options['train_limit']} training images a site, or fewer, of "
            f"{schedule.image_size} pixels.\n\n"
        )
        said += table(["part", "ms", ""], rows)
        said += least(spent, passes, operations(method, options), rate)
    write("profile_round", "Where a round goes", said.rstrip())


if __name__ == "__main__":
    main()
