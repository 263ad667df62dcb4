"""Segmentation of images and volumes: Dice and its relatives, case by case."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from counterpoint.extents import Extents
from counterpoint.resampling import Score, weighted_mean
from counterpoint.tasks.losses import joint
from counterpoint.tasks.outlines import Outlines


@dataclass(frozen=True)
class Segmentation:
    """A class a pixel, out of ``classes``, the background first.

    Everything is counted case by case (a case is an image, or all slices or patches of one
    volume) and then averaged over the cases. ``dice`` is that of the foreground, the mean over its
    classes; ``dice_with_background`` counts the background as one class more, as both papers do,
    and is therefore higher. ``iou``, ``sensitivity`` and ``specificity`` are of the foreground,
    ``hd95`` is the 95th percentile of the distance between the outlines, in pixels of the image
    as the network sees it; a class that is missed, or found where it is not, is as far off as the
    image's diagonal. Of a case in slices or patches it is the mean over these. ``hd95_mm`` is that
    of whole volumes in millimetres, where the files say how large their pixels are; slices that do
    not make a volume (see `Extents`) are measured one by one. Both are slow and computed for the
    test images only.

    A class that is neither in a case's mask nor predicted is left out of that case's mean.

    >>> task = Segmentation(("background", "vessel"))
    >>> masks = torch.tensor([[[0, 1], [1, -1]]])
    >>> logits = torch.tensor([[[[5.0, 0.0], [5.0, 0.0]], [[0.0, 5.0], [0.0, 5.0]]]])
    >>> scorer = task.scorer()
    >>> scorer.add(logits, masks, torch.tensor([0]))
    >>> round(scorer.scores()["dice"], 3)  # one of two vessel pixels; the last one is not scored
    0.667
    """

    kind: ClassVar[str] = "segmentation"
    score: ClassVar[str] = "dice"

    classes: tuple[str, ...]
    criterion: Callable[..., Tensor] = joint

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores."""
        single = tuple(f"dice_{name}" for name in self.classes[1:]) if self.outputs > 2 else ()
        others = ("dice_with_background", "iou", "sensitivity", "specificity", "hd95", "hd95_mm")
        return ("dice", *single, *others)

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for a pixel."""
        return len(self.classes)

    def fitted(self, labels: npt.NDArray[np.int64]) -> Self:
        """The task as it is."""
        return self

    def with_loss(self, criterion: Callable[..., Tensor]) -> Self:
        """The task with another loss."""
        return replace(self, criterion=criterion)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Loss of logits (N, classes, *space) and masks (N, *space), -1 where not scored."""
        return self.criterion(outputs.float(), target)

    def scorer(self, extents: Extents | None = None) -> "Overlaps":
        """Counts overlaps; with the images' ``extents`` it takes the distances of outlines too."""
        return Overlaps(self, None if extents is None else Outlines(extents, self.outputs))


@dataclass
class Overlaps:
    """True and false positives and negatives, by case and class."""

    task: Segmentation
    outlines: Outlines | None = None
    counts: dict[int, Tensor] = field(default_factory=dict)
    loss: float = 0.0
    images: int = 0

    def add(
        self, outputs: Tensor, target: Tensor, cases: Tensor, rows: Tensor | None = None
    ) -> None:
        """Take a batch in."""
        k, scored = self.task.outputs, (target >= 0).unsqueeze(1)
        found = _one_hot(outputs.argmax(1), k) & scored
        truth = _one_hot(target.clamp(min=0), k) & scored
        space = tuple(range(2, found.dim()))
        true, positive, present = (
            x.sum(space).cpu().double()  # which not every device has
            for x in (found & truth, found, truth)
        )
        everything = scored.sum(space).cpu().double()
        counted = torch.stack(
            [true, positive - true, present - true, everything - positive - present + true], dim=2
        )  # (N, classes, TP FP FN TN)
        for case, row in zip(cases.tolist(), counted, strict=True):
            self.counts[case] = self.counts.get(case, torch.zeros(k, 4).double()) + row
        for one, mask in zip(outputs, target, strict=True):
            # image by image: a mean over the batch would depend on what else is in it
            self.loss += self.task.loss(one[None], mask[None]).item()
        self.images += len(target)
        if self.outlines and rows is not None:
            self.outlines.add(outputs.argmax(1), target, cases, rows)

    def scores(self) -> dict[str, float]:
        """Means over the cases, and the loss."""
        every = np.ones((1, len(self.counts)))
        values = {name: float(of(every)[0]) for name, of in self.statistics()[1].items()}
        return {n: round(v, 7) for n, v in (values | {"loss": self.loss / self.images}).items()}

    def by_case(self) -> list[dict[str, float | int | str]]:
        """A row a case with its scores."""
        cases, table = self._table()
        rows: list[dict[str, float | int | str]] = []
        for i, case in enumerate(cases):
            rows.append({"case": case, **{n: round(float(of[i]), 6) for n, of in table.items()}})
        return rows

    def statistics(self) -> tuple[Sequence[int], Mapping[str, Score]]:
        """Each score's mean as a function of how often each case counts."""
        cases, table = self._table()
        return cases, {name: weighted_mean(values) for name, values in table.items()}

    def _table(self) -> tuple[list[int], dict[str, npt.NDArray[np.float64]]]:
        """Cases in order, and each score of each case (NaN where it is not defined)."""
        cases = sorted(self.counts)
        tp, fp, fn, tn = torch.stack([self.counts[c] for c in cases]).numpy().transpose(2, 0, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            dice = 2 * tp / (2 * tp + fp + fn)  # (cases, classes)
            table = {
                "dice": _mean(dice[:, 1:]),
                "dice_with_background": _mean(dice),
                "iou": _mean((tp / (tp + fp + fn))[:, 1:]),
                "sensitivity": _mean((tp / (tp + fn))[:, 1:]),
                "specificity": _mean((tn / (tn + fp))[:, 1:]),
                "hd95": _by_case(self.outlines.pixels if self.outlines else {}, cases),
                "hd95_mm": _by_case(self.outlines.millimetres if self.outlines else {}, cases),
            }
        table |= {f"dice_{name}": dice[:, c] for c, name in enumerate(self.task.classes)}
        return cases, {name: table[name] for name in self.task.metrics}


def _one_hot(classes: Tensor, k: int) -> Tensor:
    """(N, *space) int64 to (N, k, *space) bool."""
    return F.one_hot(classes, k).movedim(-1, 1).bool()


def _by_case(values: Mapping[int, list[float]], cases: list[int]) -> npt.NDArray[np.float64]:
    """Each case's mean."""
    return np.array([_mean(np.array(values.get(case, []))) for case in cases])


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    total, number = np.where(defined, values, 0).sum(-1), defined.sum(-1)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
