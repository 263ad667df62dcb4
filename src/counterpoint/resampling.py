"""Bootstrap over patients: draws, scores of what is drawn, intervals and p-values; pure functions.

Images of one patient are not independent, so patients are drawn, with replacement, and all images
of one come together. A draw is how often each case counts, and a score is a function of that: then
thousands of draws are a few products of matrices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Score = Callable[[Floats], Floats]
"""A score of weighted cases: weights (draws, cases) to scores (draws,); NaN where undefined."""

TOO_FEW = 10
"""Of fewer patients a bootstrap draws much the same again and again: intervals are too narrow."""

BLOCK = 100
"""Draws at a time: bounds the memory."""


def weighted_mean(values: npt.ArrayLike) -> Score:
    """Mean of values (cases,), without those that are NaN.

    >>> weighted_mean([1.0, 0.0, np.nan])(np.array([[3.0, 1.0, 5.0]]))
    array([0.75])
    """
    values = np.asarray(values, dtype=np.float64)
    there = np.isfinite(values)
    filled = np.where(there, values, 0.0)

    def score(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(weights @ filled / (weights @ there.astype(float)))

    return score


def weighted_macro_f1(labels: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Score:
    """Macro-F1, the mean over the classes that occur in labels or predictions (cases,).

    >>> score = weighted_macro_f1(np.array([0, 0, 1]), np.array([0, 1, 1]))
    >>> score(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])).round(3)
    array([0.667, 1.   ])
    """
    known = np.unique([labels, predicted])
    there, found = labels[:, None] == known, predicted[:, None] == known  # (cases, classes)
    hits, marks = 2.0 * (there & found), there.astype(float) + found

    def score(weights: Floats) -> Floats:
        twice_true, found_and_there = weights @ hits, weights @ marks
        occurs = found_and_there > 0
        f1 = np.where(occurs, twice_true / np.where(occurs, found_and_there, 1), 0)
        with np.errstate(invalid="ignore"):
            return np.asarray(f1.sum(1) / occurs.sum(1))

    return score


def area(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> Score:
    """Area under the ROC curve of scores (cases,); ties half. NaN without cases of both kinds."""
    order = np.argsort(scores, kind="stable")
    starts = np.unique(scores[order], return_index=True)[1]  # equal scores are one level

    def score(weights: Floats) -> Floats:
        up, down = (
            np.add.reduceat((weights * kind)[:, order], starts, axis=1)
            for kind in (positive, ~positive)
        )
        below = np.cumsum(down, axis=1) - down / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((up * below).sum(1) / (up.sum(1) * down.sum(1)))

    return score


def weighted_auc(labels: npt.NDArray[np.int64], probabilities: npt.NDArray[Any]) -> Score:
    """Mean of the one-vs-rest areas over the classes that have cases of both kinds; ties half.

    >>> score = weighted_auc(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]))
    >>> score(np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 2.0]])).round(3)
    array([0.5 , 0.75])
    """

    def score(weights: Floats) -> Floats:
        columns = enumerate(probabilities.T)
        return nan_mean(np.stack([area(of, labels == c)(weights) for c, of in columns]))

    return score


def class_scores(
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    probabilities: npt.NDArray[Any],
    classes: Sequence[str],
) -> dict[str, Score]:
    """All scores of a classification, from labels and answers (cases,), probabilities (cases, k).

    A class's sensitivity is the share of its cases that are found, its specificity the share of
    the others that are not called so; balanced accuracy is the mean sensitivity of the classes
    that have cases.

    >>> scores = class_scores(np.array([0, 0, 1]), np.array([0, 1, 1]), np.eye(2)[[0, 1, 1]], "ab")
    >>> every = np.ones((1, 3))
    >>> {name: round(float(of(every)[0]), 2) for name, of in scores.items()}["sensitivity_a"]
    0.5
    """
    sensitivity = {
        c: weighted_mean(np.where(labels == c, predicted == c, np.nan)) for c in range(len(classes))
    }
    scores: dict[str, Score] = {
        "macro_f1": weighted_macro_f1(labels, predicted),
        "accuracy": weighted_mean(labels == predicted),
        "auc": weighted_auc(labels, probabilities),
        "balanced_accuracy": lambda w: nan_mean(np.stack([of(w) for of in sensitivity.values()])),
    }
    for c, name in enumerate(classes):
        scores[f"sensitivity_{name}"] = sensitivity[c]
        others = np.where(labels != c, predicted != c, np.nan)
        scores[f"specificity_{name}"] = weighted_mean(others)
        scores[f"auc_{name}"] = area(probabilities[:, c], labels == c)
    return scores


def score_of(cases: pd.DataFrame, metric: str) -> Score:
    """A score of a run's test cases, as ``test_cases.csv`` has them.

    The mean of its own column where there is one (segmentation); macro_f1, accuracy and auc come
    from the columns class, predicted and p_NAME.

    >>> cases = pd.DataFrame({"class": ["a", "b"], "predicted": ["a", "a"],
    ...                       "p_a": [0.9, 0.6], "p_b": [0.1, 0.4]})
    >>> score_of(cases, "macro_f1")(np.array([[1.0, 1.0], [2.0, 0.0]])).round(2).tolist()
    [0.33, 1.0]
    """
    if metric in cases:
        return weighted_mean(cases[metric])
    likely = [name[2:] for name in map(str, cases) if name.startswith("p_")]
    answers = cases[["class", "predicted"]].astype(str)
    names = list(dict.fromkeys([*likely, *np.unique(answers)]))
    truth, predicted = (answers[of].map(names.index).to_numpy(dtype=np.int64) for of in answers)
    probabilities = cases.reindex(columns=[f"p_{name}" for name in names]).to_numpy(dtype=float)
    known = class_scores(truth, predicted, probabilities, names)
    if metric not in known or (metric.startswith("auc") and len(names) > len(likely)):
        raise ValueError(f"no case has a '{metric}', and nothing is known of how to make one")
    return known[metric]


def nan_mean(values: Floats) -> Floats:
    """Mean over the first axis of what is not NaN; NaN where nothing is left."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(0) / there.sum(0))


def draw(patients: int, draws: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each patient is in each draw of as many with replacement, (draws, patients).

    >>> draw(5, draws=2, rng=np.random.default_rng(1)).sum(axis=1)
    array([5, 5])
    """
    drawn = rng.integers(patients, size=(draws, patients))
    rows = np.arange(draws)[:, None] * patients
    times = np.bincount((rows + drawn).ravel(), minlength=draws * patients)
    return times.reshape(draws, patients)


def drawn_scores(
    score: Score,
    patients: npt.ArrayLike,
    draws: int,
    seed: int | Sequence[int],
    among: npt.ArrayLike | None = None,
) -> Floats:
    """The score in each of many draws (draws,); equal patients and seeds give equal draws.

    So the difference of two models' scores is paired, draw by draw.

    Args:
        score: of weighted cases.
        patients: (cases,) whose each case is.
        draws: how many.
        seed: of the draws.
        among: all who may be drawn, where there are others than those who have a case here.

    >>> of = weighted_mean([0.0, 0.0, 1.0])  # two cases of the first patient, one of another
    >>> np.unique(drawn_scores(of, ["a", "a", "b"], draws=99, seed=1)).round(2)
    array([0.  , 0.33, 1.  ])
    """
    everyone = np.unique(patients if among is None else among)
    owner, rng = np.searchsorted(everyone, patients), np.random.default_rng(seed)
    sizes = [min(BLOCK, draws - done) for done in range(0, draws, BLOCK)]
    weights = (draw(len(everyone), size, rng)[:, owner].astype(np.float64) for size in sizes)
    return np.concatenate([score(block) for block in weights])


def drawn_runs(runs: Sequence[Floats]) -> Floats:
    """Draws of the mean of several runs' scores, the runs drawn with replacement as well.

    So their interval tells of both chances: which patients were tested, and how training happened
    to go. A draw is of the same patients in all runs: more runs do not make more patients. Draws
    (draws,) of one run are left as they are.
    """
    if len(runs) == 1:
        return runs[0]
    table, rng = np.stack(runs), np.random.default_rng(1)
    shape = (table.shape[1], len(runs))
    chosen = table[rng.integers(len(runs), size=shape), np.arange(shape[0])[:, None]]
    return nan_mean(chosen.T)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of draws: it holds the share ``level`` of those that are defined.

    >>> low, high = interval(np.linspace(0, 1, 1001))
    >>> round(low, 3), round(high, 3)
    (0.025, 0.975)
    """
    there = values[np.isfinite(values)]
    if not len(there):
        return float("nan"), float("nan")
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(there, [tail, 100 - tail])
    return float(low), float(high)


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
