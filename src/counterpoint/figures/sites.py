"""Test score of every site and their mean, method by method: who gains, and who pays."""

from collections.abc import Sequence

import pandas as pd

from counterpoint.figures.dots import draw as draw
from counterpoint.figures.dots import test_scores
from counterpoint.runs import Run, score_of


def numbers(runs: Sequence[Run], metric: str | None = None) -> pd.DataFrame:
    """Test scores over the seeds: a row a name and site, and a row for the mean over the sites."""
    return test_scores(runs, score_of(runs, metric))
