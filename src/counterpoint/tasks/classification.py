"""Image classification: cross-entropy, macro-F1, accuracy, one-vs-rest AUC."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from counterpoint.extents import Extents
from counterpoint.resampling import Score, class_scores
from counterpoint.tasks.losses import balanced, cross_entropy


@dataclass(frozen=True)
class Classification:
    """One label an image, out of ``classes``.

    >>> task = Classification(("benign", "malignant"))
    >>> task.scores(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))["macro_f1"]
    1.0
    """

    kind: ClassVar[str] = "classification"
    score: ClassVar[str] = "macro_f1"

    classes: tuple[str, ...]
    criterion: Callable[..., Tensor] = cross_entropy
    balance: float = 1.0
    """Strength of the loss ``balanced``."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the scores."""
        single = [f"{of}_{c}" for c in self.classes for of in ("sensitivity", "specificity", "auc")]
        return ("macro_f1", "accuracy", "auc", "balanced_accuracy", *single)

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for an image."""
        return len(self.classes)

    def fitted(self, labels: npt.NDArray[np.int64]) -> Self:
        """The task at a site with these training labels."""
        if self.criterion is not balanced:
            return self
        counts = np.bincount(labels, minlength=self.outputs).astype(np.float32)
        frequencies = torch.from_numpy(counts / counts.sum())
        return self.with_loss(partial(balanced, frequencies=frequencies, strength=self.balance))

    def with_loss(self, criterion: Callable[..., Tensor]) -> Self:
        """The task with another loss."""
        return replace(self, criterion=criterion)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean loss of logits (N, classes) and labels (N,)."""
        return self.criterion(outputs.float(), target)

    def scorer(self, extents: Extents | None = None) -> "Answers":
        """Collects answers; all scores are quick."""
        return Answers(self)

    def scores(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Scores of predictions, in 0..1, and loss.

        Macro-F1 is the mean over the classes that occur in labels or predictions. AUC is the
        mean of one-vs-rest areas over the classes that have images of both kinds; NaN where no
        class has. For the others see :func:`counterpoint.resampling.class_scores`.
        """
        answers = Answers(self, [logits.float()], [labels.long()], [torch.arange(len(labels))])
        return answers.scores()


@dataclass
class Answers:
    """Logits and labels of a part, as they come."""

    task: Classification
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    cases: list[Tensor] = field(default_factory=list)

    def add(
        self, outputs: Tensor, target: Tensor, cases: Tensor, rows: Tensor | None = None
    ) -> None:
        """Take a batch in."""
        for kept, new in ((self.logits, outputs), (self.labels, target), (self.cases, cases)):
            kept.append(new.detach().cpu())

    def scores(self) -> dict[str, float]:
        """Scores of all answers; see :meth:`Classification.scores`."""
        cases, statistics = self.statistics()
        every = np.ones((1, len(cases)))
        scores = {name: float(of(every)[0]) for name, of in statistics.items()}
        scores["loss"] = self.task.loss(torch.cat(self.logits), torch.cat(self.labels)).item()
        # what float32 knows, without the digits that it does not
        return {name: round(value, 7) for name, value in scores.items()}

    def by_case(self) -> list[dict[str, float | int | str]]:
        """A row an image: its class, what was predicted, and the probabilities.

        These have all digits that float32 knows: rounded, those of a rare class would be ties.
        """
        names = self.task.classes
        probabilities = torch.cat(self.logits).softmax(1)
        rows = zip(
            torch.cat(self.cases).tolist(),
            torch.cat(self.labels).tolist(),
            probabilities.tolist(),
            strict=True,
        )
        return [
            {"case": case, "class": names[label], "predicted": names[int(np.argmax(p))]}
            | {f"p_{name}": float(f"{x:.9g}") for name, x in zip(names, p, strict=True)}
            for case, label, p in rows
        ]

    def statistics(self) -> tuple[Sequence[int], Mapping[str, Score]]:
        """All scores as functions of how often each image counts."""
        labels, logits = torch.cat(self.labels).numpy(), torch.cat(self.logits)
        predicted, probabilities = logits.argmax(1).numpy(), logits.softmax(1).numpy()
        scores = class_scores(labels, predicted, probabilities, self.task.classes)
        return torch.cat(self.cases).tolist(), scores
