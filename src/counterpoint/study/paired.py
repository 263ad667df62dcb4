"""Is a difference more than chance? Paired tests over the same test cases, pure functions.

The unit is the patient (or lesion): images of one are not independent, so they are drawn together.
What is tested is these models on other patients of the same sites. How much the training itself
varies is another question, for which there are only as many answers as seeds.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import wilcoxon

Floats = npt.NDArray[np.float64]
Weighted = Callable[[Floats], Floats]
"""A score of weighted cases: weights (draws, cases) to scores (draws,); NaN where undefined."""

BLOCK = 100
"""Draws at a time: bounds the memory."""


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for many comparisons (Holm 1979): no false finding at all, with 1 - alpha.

    The smallest is multiplied by their number, the next by one less, and none falls below one
    before it. NaN (nothing was tested) stays and does not count.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    corrected = np.full(len(values), np.nan)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    steps = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in corrected]


def signed_rank(differences: Floats) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test; 1 where nothing differs.

    >>> signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))  # 2 of 2^6 signs are as far out
    0.03125
    """
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences).pvalue)


def weighted_mean(values: Floats) -> Weighted:
    """Mean of values (cases,), without those that are NaN.

    >>> weighted_mean(np.array([1.0, 0.0, np.nan]))(np.array([[3.0, 1.0, 5.0]]))
    array([0.75])
    """
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)

    def score(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(weights @ filled / (weights @ there.astype(float)))

    return score


def weighted_macro_f1(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> Weighted:
    """Macro-F1, the mean over the classes that occur in labels or predictions.

    >>> score = weighted_macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]))
    >>> score(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])).round(3)
    array([0.667, 1.   ])
    """
    known = np.arange(int(max(labels.max(), predicted.max())) + 1)
    there, found = labels[:, None] == known, predicted[:, None] == known  # (cases, classes)
    hits, marks = 2.0 * (there & found), there.astype(float) + found

    def score(weights: Floats) -> Floats:
        twice_true, found_and_there = weights @ hits, weights @ marks
        occurs = found_and_there > 0
        f1 = np.where(occurs, twice_true / np.where(occurs, found_and_there, 1), 0)
        with np.errstate(invalid="ignore"):
            return np.asarray(f1.sum(1) / occurs.sum(1))

    return score


def weighted_auc(labels: npt.NDArray[np.int64], probabilities: Floats) -> Weighted:
    """Mean of the one-vs-rest areas over the classes that have cases of both kinds; ties half.

    >>> score = weighted_auc(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]))
    >>> score(np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 2.0]])).round(3)
    array([0.5 , 0.75])
    """

    def area(scores: Floats, positive: npt.NDArray[np.bool_], weights: Floats) -> Floats:
        order = np.argsort(scores, kind="stable")
        starts = np.unique(scores[order], return_index=True)[1]  # equal scores are one level
        up, down = (
            np.add.reduceat((weights * kind)[:, order], starts, axis=1)
            for kind in (positive, ~positive)
        )
        below = np.cumsum(down, axis=1) - down / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((up * below).sum(1) / (up.sum(1) * down.sum(1)))

    def score(weights: Floats) -> Floats:
        columns = enumerate(probabilities.T)
        areas = np.stack([area(of, labels == c, weights) for c, of in columns])
        return nan_mean(areas)

    return score


def nan_mean(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where nothing is left."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(0) / there.sum(0))


def draw_units(units: int, draws: int, seed: Sequence[int]) -> npt.NDArray[np.int32]:
    """How often each unit is in each draw of as many with replacement, (draws, units).

    >>> draw_units(5, draws=2, seed=[1]).sum(axis=1)
    array([5, 5])
    """
    rng = np.random.default_rng(seed)
    drawn = rng.integers(units, size=(draws, units))
    rows = np.arange(draws)[:, None] * units
    times = np.bincount((rows + drawn).ravel(), minlength=draws * units)
    return times.reshape(draws, units).astype(np.int32)


def drawn_scores(
    times: npt.NDArray[np.int32], units: npt.NDArray[np.int64], of: Weighted
) -> Floats:
    """The score in each draw: ``units`` (cases,) says whose each case is; all of a unit's come.

    >>> of = weighted_mean(np.array([0.0, 0.0, 1.0]))  # two cases of the first unit, one of another
    >>> drawn_scores(np.array([[1, 1], [0, 2]], dtype=np.int32), np.array([0, 0, 1]), of).round(3)
    array([0.333, 1.   ])
    """
    starts = range(0, len(times), BLOCK)
    blocks = [of(times[at : at + BLOCK][:, units].astype(np.float64)) for at in starts]
    return np.concatenate(blocks)


def two_sided(differences: Floats) -> float:
    """Two-sided p-value of bootstrap differences: how rarely they lie on either side of 0.

    It is the level at which the percentile interval just reaches 0, with one draw added on each
    side, so that it never is 0.

    >>> two_sided(np.array([0.1] * 99)), two_sided(np.zeros(99))
    (0.02, 1.0)
    """
    there = differences[np.isfinite(differences)]
    if not len(there):
        return float("nan")
    fewer = min((there <= 0).sum(), (there >= 0).sum())
    return float(min(1.0, 2 * (1 + fewer) / (1 + len(there))))


def unit_differences(entry: pd.DataFrame, baseline: pd.DataFrame) -> Floats:
    """Differences of a score by patient: mean over the cases, and seeds, that both were tested on.

    Both tables have the columns seed, site, unit, case and value.

    >>> rows = pd.DataFrame({"seed": [1, 2], "site": "A", "unit": 7, "case": [7, 7]})
    >>> unit_differences(rows.assign(value=[0.5, 0.75]), rows.assign(value=[0.25, 0.25]))
    array([0.375])
    """
    keys = ["seed", "site", "unit", "case"]
    both = entry.merge(baseline, on=keys, validate="one_to_one").dropna()
    both["difference"] = both["value_x"] - both["value_y"]
    return np.asarray(both.groupby(["site", "unit"])["difference"].mean(), dtype=np.float64)
