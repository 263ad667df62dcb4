"""Ablation: the papers' methods with each of their parts, with all of them and with none.

HarmoFL's are amplitude normalisation and weight perturbation; PRR-FL's are Progressive Fourier
Aggregation (PFA) and Deputy-Enhanced Transfer (DET), and the journal version's prototypes (CPA).
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from counterpoint.errors import SettingsError
from counterpoint.figures.dots import draw as draw
from counterpoint.figures.dots import test_scores
from counterpoint.runs import Run, named, score_of, varying

PARTS: Mapping[str, Callable[[Run], bool]] = {
    "amplitude": lambda run: run["harmonise.kind"] == "amplitude",
    "perturbation": lambda run: run["perturbation"] > 0,
    "PFA": lambda run: run["aggregation.kind"] == "pfa",
    "DET": lambda run: run["local.kind"] in ("deputy", "prototype-deputy"),
    "CPA": lambda run: run["local.kind"] == "prototype-deputy",
}
"""Parts of the papers' methods, and whether a run has them."""


OF_PARTS = ("harmonise.", "aggregation.", "local.", "perturbation", "adaptive")


def numbers(
    runs: Sequence[Run],
    metric: str | None = None,
    note: Callable[[str], None] = lambda sentence: None,
) -> pd.DataFrame:
    """Test scores over the seeds: a row a composition and site, those with fewest parts first.

    ``note`` is told of settings beside the parts in which the runs differ.

    Raises:
        SettingsError: if all runs have the same parts.
    """
    if len({parts_of(run) for run in runs}) < 2:
        raise SettingsError(
            "an ablation needs runs with and without a part, and these all have "
            f"{in_words(parts_of(runs[0]))}; make them by `counterpoint run harmofl DATA`, with "
            "`--perturbation 0`, with `--harmonise none`, and with both"
        )
    if others := [name for name in varying(runs) if not name.startswith(OF_PARTS)]:
        note(f"beside their parts, the runs differ in {', '.join(others)}: so may their scores")
    ordered = sorted(runs, key=lambda run: (len(parts_of(run)), parts_of(run)))
    methods: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        methods.setdefault(parts_of(run), set()).add(run.method)

    def name_of(run: Run) -> str:
        words = in_words(parts_of(run))
        return words if len(methods[parts_of(run)]) == 1 else f"{words} ({run.method})"

    return test_scores(named(ordered, name_of), score_of(runs, metric))


def parts_of(run: Run) -> tuple[str, ...]:
    """Which of the papers' parts a run has."""
    return tuple(name for name, has in PARTS.items() if has(run))


def in_words(parts: Sequence[str]) -> str:
    """Parts as a figure calls them.

    >>> in_words(["PFA", "DET"]), in_words([])
    ('PFA + DET', 'none of the parts')
    """
    return " + ".join(parts) or "none of the parts"
