"""Intervals for what several runs say together, and for differences between methods."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

Draws = npt.NDArray[np.float64]
"""A score, or a difference of scores, as it comes out in each of many draws (draws,)."""


def drawn_counts(cases: pd.DataFrame, draws: int, seed: int) -> npt.NDArray[np.int64]:
    """How often each case comes in each draw with replacement: (draws, cases).

    Where a column ``group`` says which patient a case is of, patients come with all their cases.
    Equal tables and seeds give equal draws, which is what makes a comparison paired.

    >>> drawn_counts(pd.DataFrame({"group": [7, 7, 8]}), 2, seed=1).sum(1) >= 2
    array([ True,  True])
    """
    owners = cases["group"] if "group" in cases else pd.Series(range(len(cases)))
    which, _ = pd.factorize(owners)
    return _drawn(which.astype(np.int64).tobytes(), draws, seed)


@lru_cache(maxsize=16)  # the methods of a study are tested on the same cases
def _drawn(owners: bytes, draws: int, seed: int) -> npt.NDArray[np.int64]:
    which = np.frombuffer(owners, dtype=np.int64)
    patients = int(which.max()) + 1
    shares = np.full(patients, 1 / patients)
    counts = np.random.default_rng(seed).multinomial(patients, shares, size=draws)
    return np.asarray(counts[:, which], dtype=np.int64)


def score_of(cases: pd.DataFrame, counts: npt.NDArray[np.int64], metric: str) -> Draws:
    """A score of cases that come ``counts`` (draws, cases) times: one number a draw.

    ``macro_f1`` and ``accuracy`` come from the columns class and predicted; any other score is
    the mean of its column over the cases that have it.

    >>> cases = pd.DataFrame({"class": ["a", "b"], "predicted": ["a", "a"]})
    >>> score_of(cases, np.array([[1, 1], [2, 0]]), "macro_f1").round(2).tolist()
    [0.33, 1.0]
    """
    if metric not in ("macro_f1", "accuracy"):
        values = cases[metric].to_numpy(dtype=float)
        there = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            mean: Draws = counts @ np.where(there, values, 0) / (counts @ there)
        return mean
    truth, found = cases["class"].to_numpy(str), cases["predicted"].to_numpy(str)
    if metric == "accuracy":
        share: Draws = counts @ (truth == found) / counts.sum(1)
        return share
    names = np.unique([truth, found])[:, None]
    is_class, is_found = truth == names, found == names
    both = counts @ is_class.T + counts @ is_found.T  # (draws, classes)
    hit = 2 * (counts @ (is_class & is_found).T)
    f1 = np.divide(hit, both, out=np.full(both.shape, np.nan), where=both > 0)
    average: Draws = np.nanmean(f1, axis=1)
    return average


def interval(runs: Sequence[Draws], level: float = 0.95) -> tuple[float, float]:
    """The interval that holds a share of the draws; of several runs, runs are drawn as well.

    So the interval of several seeds tells of both chances: which patients were tested, and how
    training happened to go.

    >>> low, high = interval([np.linspace(0, 1, 1001)])
    >>> round(low, 3), round(high, 3)
    (0.025, 0.975)
    """
    values = runs[0]
    if len(runs) > 1:
        table, rng = np.stack(runs), np.random.default_rng(1)
        shape = (table.shape[1], len(runs))
        values = table[rng.integers(len(runs), size=shape), rng.integers(shape[0], size=shape)]
        values = values.mean(1)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
