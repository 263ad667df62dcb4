"""Scores as people write them."""

import math

HEADINGS = {
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "dice": "Dice",
    "dice_with_background": "Dice with background",
    "iou": "IoU",
    "hd95": "HD95",
}


def heading(metric: str, unit: bool = True) -> str:
    """A score's name as a heading.

    >>> heading("macro_f1"), heading("dice_disc"), heading("hd95"), heading("auc", unit=False)
    ('macro-F1 %', 'Dice disc %', 'HD95 px', 'AUC')
    """
    name = HEADINGS.get(metric)
    if name is None:
        name = f"Dice {metric[5:]}" if metric.startswith("dice_") else metric.replace("_", " ")
    if not unit or metric == "loss":
        return name
    return f"{name} px" if metric == "hd95" else f"{name} %"


def number(metric: str, value: float | None) -> str:
    """A score as people write it: shares in percent, a loss and distances as they are.

    >>> number("macro_f1", 0.4567), number("loss", 0.4567), number("auc", None)
    ('45.7', '0.457', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    if metric == "loss":
        return f"{value:.3f}"
    return f"{value:.1f}" if metric == "hd95" else f"{100 * value:.1f}"
