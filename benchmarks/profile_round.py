"""Where the time of a round of PRR-FL goes, part by part.

The parts are functions of the library, watched from outside. Time inside of a part that is inside
of another one counts for the inner one only; a generator counts while it works.
"""

import inspect
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import counterpoint
from benchmarks.measure import arguments, table, write
from counterpoint import client, folder, server
from counterpoint.aggregation import ProgressiveFourier
from counterpoint.data import augment
from counterpoint.local.training import Training

PARTS = {
    "forward, of training": (Training, "forward"),
    "loss, backward, step of the optimiser": (Training, "step"),
    "scores of the stage (both models, training images)": (Training, "training_scores"),
    "scores on validation images": (client.Client, "score"),
    "batches: reading and scaling images": (client, "batches"),
    "augmentation": (augment, "AUGMENTATIONS"),
    "PFA: share": (ProgressiveFourier, "share"),
    "PFA: merge": (ProgressiveFourier, "merge"),
    "mean at the server": (server.WeightedMean, "add"),
    "state: copies out of the models": (client.Client, "put_down"),
    "state: into the models": (client.Client, "take_up"),
    "state, mean and models: written": (folder, "write_tensors"),
    "state and mean: read": (folder, "read_tensors"),
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


def main() -> None:
    """One round after a first one, in which everything is set up."""
    logging.disable()
    chosen = arguments(__doc__)
    clock, rounds = Clock(), 3

    def report(event: dict[str, object]) -> None:
        if event.get("moment") == "merged" and event["round"] == 1 and clock.seconds:
            clock.turn()
            if not marks:
                marks.append(dict(clock.seconds))
        if event.get("moment") == "merged" and event["round"] == rounds - 1 and len(marks) == 1:
            clock.turn()
            marks.append(dict(clock.seconds))

    marks: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        patches: list[Any] = [
            patch.dict(
                augment.AUGMENTATIONS,
                {n: clock.watch("augmentation", f) for n, f in augment.AUGMENTATIONS.items()},
            )
        ]
        for part, (place, attribute) in PARTS.items():
            if attribute != "AUGMENTATIONS":
                watched = clock.watch(part, getattr(place, attribute))
                patches.append(patch.object(place, attribute, watched))
        for one in patches:
            one.start()
        try:
            counterpoint.run(
                "prrfl",
                "phantom",
                out=Path(name) / "run",
                report=report,
                rounds=rounds,
                local_epochs=5,
                image_size=32 if chosen.quick else 128,
                train_limit=16 if chosen.quick else 32,
                workers=1,
                threads=chosen.threads,
            )
        finally:
            for one in patches:
                one.stop()
    first, last = marks
    spent = {part: last[part] - first.get(part, 0.0) for part in last}
    total = sum(spent.values())
    rows = [
        [part, 1000 * seconds, f"{100 * seconds / total:.2f} %"]
        for part, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]
    rows.append(["the round", 1000 * total, "100 %"])
    said = (
        "4 sites of 32 training images of 128x128, slim VGG16, 5 local epochs, in one process; the "
        "second of three rounds, from its first merge to the next round's.\n\n"
    )
    write("profile_round", "Where a round of PRR-FL goes", said + table(["part", "ms", ""], rows))


if __name__ == "__main__":
    main()
