"""What is learnt: loss, distillation and scores; one file a task."""

from counterpoint.errors import SettingsError
from counterpoint.tasks.classification import Classification
from counterpoint.tasks.losses import LOSSES, Loss
from counterpoint.tasks.scoring import Scorer, Task
from counterpoint.tasks.segmentation import Segmentation

TASKS: dict[str, type[Task]] = {choice.kind: choice for choice in (Classification, Segmentation)}


def make_task(
    kind: str, classes: tuple[str, ...], loss: Loss = "default", balance: float = 1.0
) -> Task:
    """Make a task by its kind; ``balance`` is the strength of the loss "balanced".

    Raises:
        SettingsError: if the task has no such loss.

    >>> make_task("segmentation", ("background", "vessel")).score
    'dice'
    """
    chosen = LOSSES[kind]
    if loss not in chosen:
        raise SettingsError(
            f"{kind} has no loss '{loss}'; it has {', '.join(chosen)} (schedule.loss)"
        )
    if kind == Classification.kind:
        return Classification(classes, chosen[loss], balance)
    return TASKS[kind](classes, chosen[loss])


__all__ = [
    "TASKS",
    "Classification",
    "Loss",
    "Scorer",
    "Segmentation",
    "Task",
    "make_task",
]
