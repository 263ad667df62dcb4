"""Image classification: cross-entropy, distillation, macro-F1, accuracy, one-vs-rest AUC."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Classification:
    """One label an image, out of ``classes``.

    >>> import torch
    >>> task = Classification(("benign", "malignant"))
    >>> task.scores(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1]))["macro_f1"]
    1.0
    """

    score: ClassVar[str] = "macro_f1"
    """The score that chooses models and stages."""

    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """Numbers that a network gives for an image."""
        return len(self.classes)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of logits (N, classes) and labels (N,)."""
        return F.cross_entropy(logits.float(), labels)

    def distil(self, teacher: Tensor, student: Tensor) -> Tensor:
        """KL(teacher || student) at temperature 1, mean over the batch; the teacher is detached.

        Zero where both agree:

        >>> z = Tensor([[1.0, -2.0, 0.5]])
        >>> Classification(("a", "b", "c")).distil(z, z).item()
        0.0
        """
        return F.kl_div(
            F.log_softmax(student.float(), dim=1),
            F.log_softmax(teacher.detach().float(), dim=1),
            reduction="batchmean",
            log_target=True,
        )

    def scores(self, logits: Tensor, labels: Tensor) -> dict[str, float]:
        """Scores of predictions: macro_f1, accuracy and auc in 0..1, and loss.

        Macro-F1 is the mean over the classes that occur in labels or predictions. AUC is the
        mean of one-vs-rest areas over the classes that have images of both kinds; NaN where no
        class has.
        """
        from torchmetrics.functional.classification import (
            multiclass_accuracy,
            multiclass_f1_score,
        )

        logits, labels = logits.float(), labels.long()
        k = self.outputs
        scores = {
            "macro_f1": multiclass_f1_score(logits, labels, k, average="macro").item(),
            "accuracy": multiclass_accuracy(logits, labels, k, average="micro").item(),
            "auc": self._auc(logits, labels),
            "loss": self.loss(logits, labels).item(),
        }
        # what float32 knows, without the digits that it does not
        return {name: round(value, 7) for name, value in scores.items()}

    def _auc(self, logits: Tensor, labels: Tensor) -> float:
        from torchmetrics.functional.classification import binary_auroc

        probabilities = logits.softmax(dim=1)
        areas = [
            binary_auroc(probabilities[:, c], (labels == c).long()).item()
            for c in range(self.outputs)
            if 0 < int((labels == c).sum()) < len(labels)
        ]
        return sum(areas) / len(areas) if areas else math.nan
