"""Scores as people write them."""

import math
import os
import shlex
from collections.abc import Mapping
from typing import Any

HEADINGS = {
    "macro_f1": "macro-F1",
    "auc": "AUC",
    "dice": "Dice",
    "dice_with_background": "Dice with background",
    "iou": "IoU",
    "hd95": "HD95",
    "hd95_mm": "HD95",
}
OF_A_CLASS = ("sensitivity_", "specificity_", "auc_")
"""Beginnings of the names of scores that each class of a classification has."""
UNITS = {"loss": "", "hd95": "px", "hd95_mm": "mm"}
"""Of scores that are no shares: these are shown in percent."""


def unit_of(metric: str) -> str:
    """The unit that a score is shown in.

    >>> unit_of("dice"), unit_of("hd95"), unit_of("hd95_mm"), unit_of("loss")
    ('%', 'px', 'mm', '')
    """
    return UNITS.get(metric, "%")


def heading(metric: str, unit: bool = True) -> str:
    """A score's name as a heading.

    >>> heading("macro_f1"), heading("dice_disc"), heading("hd95_mm"), heading("auc_a", unit=False)
    ('macro-F1 %', 'Dice disc %', 'HD95 mm', 'AUC a')
    """
    name = HEADINGS.get(metric)
    if name is None:
        of, _, single = metric.partition("_")
        name = f"{HEADINGS[of]} {single}" if of in HEADINGS else metric.replace("_", " ")
    return f"{name} {unit_of(metric)}".rstrip() if unit else name


def number(metric: str, value: float | None) -> str:
    """A score as people write it: shares in percent, a loss and distances as they are.

    >>> number("macro_f1", 0.4567), number("loss", 0.4567), number("auc", None)
    ('45.7', '0.457', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    if metric == "loss":
        return f"{value:.3f}"
    return f"{value:.1f}" if metric in UNITS else f"{100 * value:.1f}"


def size(count: float) -> str:
    """Bytes as people write them.

    >>> size(952), size(31_064_776), size(4.2e9)
    ('952 bytes', '31.1 MB', '4.20 GB')
    """
    for name, unit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= unit:
            shown = count / unit
            return f"{shown:.{2 if shown < 10 else 1}f} {name}"
    return f"{count:.0f} bytes"


def leaks(note: str) -> bool:
    """Whether a note of the data says that a patient or an image is in two parts of the split.

    Images of equal content within one part are no leak.

    >>> leaks("the split leaks: 3 of 9 ..."), leaks("2 images have a twin of equal content")
    (True, False)
    """
    return "the split leaks" in note


def privacy_in_words(told: Mapping[str, Any]) -> str:
    """The entry ``privacy`` of a run's results as a sentence.

    >>> privacy_in_words({"kind": "records", "clip": 1.0, "noise": 2.0, "delta": 1e-05,
    ...                   "noise_from": "the run's seed", "unit": "one training image",
    ...                   "epsilon": {"A": 3.21, "B": 4.0}})
    "records, clip 1, noise 2 from the run's seed: epsilon 3.21 to 4 for one training image at \
delta 1e-05"
    """
    text = (
        f"{told['kind']}, clip {told['clip']:g}, noise {told['noise']:g} from {told['noise_from']}"
    )
    if "epsilon_of_means" in told:
        return (
            f"{text}: epsilon for {told['unit']} {_span(told['epsilon'])} towards the server, "
            f"{_span(told['epsilon_of_means'])} towards another site, at delta {told['delta']:g}"
        )
    return f"{text}: epsilon {_span(told['epsilon'])} for {told['unit']} at delta {told['delta']:g}"


def encryption_in_words(told: Mapping[str, Any]) -> str:
    """The entry ``encryption`` of a run's results as a sentence.

    >>> encryption_in_words({"scheme": "CKKS", "hidden": "payloads, from the server",
    ...                      "not_hidden": ["names", "scores"]})
    'encrypted (CKKS): payloads, from the server; not hidden: names; scores'
    """
    return (
        f"encrypted ({told['scheme']}): {told['hidden']}; "
        f"not hidden: {'; '.join(told['not_hidden'])}"
    )


def _span(epsilon: Mapping[str, float | None]) -> str:
    values = [math.inf if value is None else value for value in epsilon.values()]
    low, high = (
        "infinite (no guarantee)" if math.isinf(end) else f"{end:.3g}"
        for end in (min(values), max(values))
    )
    return low if low == high else f"{low} to {high}"


def typed(path: str | os.PathLike[str]) -> str:
    """A path as it is typed in a shell; one that begins like an option is none there.

    >>> typed("runs/my study"), typed("-x")
    ("'runs/my study'", './-x')
    """
    text = os.fspath(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
