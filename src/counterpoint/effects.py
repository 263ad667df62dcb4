"""Settings that do nothing beside the others of a run: who set them should know."""

from counterpoint.methods import Method


def without_effect(method: Method) -> list[str]:
    """Sentences on settings that are not their default's and change nothing.

    >>> from counterpoint.settings import make_settings
    >>> without_effect(make_settings("fedavg", "phantom", {"balance": 0.5}).method)
    ["schedule.balance has no effect: the loss is 'default', not 'balanced'"]
    """
    schedule = method.schedule
    alone = method.pooled or method.aggregation.kind == "none"
    no_choice = schedule.participation < 1 or bool(schedule.finetune_epochs)
    known = (
        (
            "schedule.balance",
            schedule.balance != 1 and schedule.loss != "balanced",
            f"the loss is '{schedule.loss}', not 'balanced'",
        ),
        (
            "adaptive",
            method.adaptive and not method.perturbation,
            "there is no perturbation for it to measure",
        ),
        (
            "schedule.momentum",
            schedule.momentum != 0 and schedule.optimizer != "sgd",
            f"the optimiser is '{schedule.optimizer}'",
        ),
        (
            "schedule.keep_optimizer",
            schedule.keep_optimizer and schedule.optimizer == "sgd" and not schedule.momentum,
            "without momentum there is nothing to keep",
        ),
        (
            "schedule.select_last",
            schedule.select_last != 1 and no_choice,
            "with sites absent, or fine-tuning, only the last models can be chosen",
        ),
        (
            "schedule.weighting",
            schedule.weighting != "equal" and alone,
            "there is no mean in which sites could weigh more or less",
        ),
        (
            "schedule.participation",
            schedule.participation < 1 and method.pooled,
            "there is one pool of images, which always takes part",
        ),
    )
    return [f"{name} has no effect: {why}" for name, idle, why in known if idle]
