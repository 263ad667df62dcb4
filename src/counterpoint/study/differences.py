"""Every entry against the baseline, paired over the test cases that both were tested on.

What is tested is these models on other patients of the same sites. How much the training itself
varies is another question, for which there are only as many answers as seeds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from counterpoint.resampling import (
    TOO_FEW,
    Floats,
    drawn_scores,
    holm,
    interval,
    nan_mean,
    score_of,
    two_sided,
)
from counterpoint.runs import LOWER_IS_BETTER
from counterpoint.study.scores import Finished, Split

DRAWS, SEED = 2000, 0
Run = tuple[str, int]
"""A finished run by entry and seed."""
BOOTSTRAP = "paired bootstrap"


@dataclass(frozen=True)
class Difference:
    """An entry's mean score over the sites minus the baseline's, and whether it is chance.

    Attributes:
        entry: the entry.
        baseline: what it is compared to.
        seeds: seeds that both have, on the same data; of these:
        difference: mean difference, as scores are (0..1 for shares).
        low: lower end of the bootstrap interval.
        high: its upper end.
        better: in how many seeds the entry is better.
        test: name of the test; empty where nothing could be tested.
        p: its two-sided p-value.
        corrected: the same after Holm's correction for all entries.
        units: patients (where known, else cases) that were drawn.
        cases: test cases that were compared, counted once a seed.
        few: sites with so few of them that interval and p are too sure.
    """

    entry: str
    baseline: str
    seeds: tuple[int, ...]
    difference: float
    low: float
    high: float
    better: int
    test: str
    p: float
    corrected: float
    units: int
    cases: int
    few: tuple[str, ...] = ()


def differences(
    runs: Sequence[Finished],
    baseline: str,
    metric: str,
    means: "pd.Series[float]",
    left_out: Collection[str] = (),
    split: Split = "test",
) -> list[Difference]:
    """Compare all entries with the baseline.

    Args:
        runs: all that are finished.
        baseline: label of the entry that the others are compared to.
        metric: the score.
        means: over the sites, by entry and seed.
        left_out: sites that are not in them.
        split: of the scores; of validation there is nothing to be tested.
    """
    known = metric != "loss" and split == "test"  # cases, with a score of their own
    cases = {(run.label, run.seed): cases_of(run, left_out) for run in runs} if known else {}
    drawn = drawn_scores_of(cases, metric)
    base = {run.seed: run for run in runs if run.label == baseline}
    found = []
    for entry in dict.fromkeys(run.label for run in runs if run.label != baseline):
        own = (run for run in runs if run.label == entry and run.seed in base)
        seeds = tuple(run.seed for run in own if data_of(run) == data_of(base[run.seed]))
        by_seed = np.array([means[entry, seed] - means[baseline, seed] for seed in seeds])
        one = difference(entry, baseline, metric, by_seed, seeds)
        found.append(tested(one, cases, drawn, metric) if known and seeds else one)
    corrected = holm([one.p for one in found])
    return [replace(one, corrected=p) for one, p in zip(found, corrected, strict=True)]


def data_of(run: Finished) -> tuple[str, str]:
    """What is equal for runs with the same images, labels and split, and with the same patients.

    The data's fingerprint knows nothing of patients: a table may name them after the first runs.
    """
    known = (run.result.path / "test_cases.csv").is_file()
    units = cases_of(run)[["site", "case", "unit"]].to_csv(index=False) if known else ""
    return run.result.results["data_fingerprint"], units


def difference(
    entry: str, baseline: str, metric: str, by_seed: Floats, seeds: tuple[int, ...]
) -> Difference:
    """A difference that is not tested yet; ``by_seed`` are those of the single seeds."""
    better = by_seed < 0 if metric in LOWER_IS_BETTER else by_seed > 0
    nothing = float("nan")
    return Difference(
        entry=entry,
        baseline=baseline,
        seeds=seeds,
        difference=float(by_seed.mean()) if len(by_seed) else nothing,
        low=nothing,
        high=nothing,
        better=int(better.sum()),
        test="",
        p=nothing,
        corrected=nothing,
        units=0,
        cases=0,
    )


def tested(
    one: Difference, cases: Mapping[Run, pd.DataFrame], drawn: Mapping[Run, Floats], metric: str
) -> Difference:
    """The difference with its interval and p-value."""
    pairs = [((one.entry, seed), (one.baseline, seed)) for seed in one.seeds]
    own = pd.concat([cases[entry] for entry, _ in pairs])
    by_site = [drawn[entry] - drawn[baseline] for entry, baseline in pairs]
    draws = np.mean([nan_mean(sites) for sites in by_site], axis=0)
    low, high = interval(draws)
    units = own[["site", "unit"]].drop_duplicates()
    counts = [units_by_site(cases[run], metric) for pair in pairs for run in pair]
    few = pd.concat(counts).groupby(level="site").min()  # in the run that has fewest
    return replace(
        one,
        low=low,
        high=high,
        test=BOOTSTRAP,
        p=two_sided(draws),
        units=len(units),
        cases=len(own),
        few=tuple(str(site) for site in few[few < TOO_FEW].index),
    )


def units_by_site(cases: pd.DataFrame, metric: str) -> "pd.Series[int]":
    """How many patients a site's score rests on: those of a case in which it is defined.

    >>> cases = pd.DataFrame({"site": "x", "unit": ["1", "2", "2"], "dice": [0.5, np.nan, np.nan]})
    >>> [int(units_by_site(cases, metric)["x"]) for metric in ("dice", "macro_f1")]
    [1, 2]
    """
    units = cases["unit"]
    if metric in cases:
        units = units.where(cases[metric].notna())
    return units.groupby(cases["site"]).nunique()


def cases_of(run: Finished, left_out: Collection[str] = ()) -> pd.DataFrame:
    """A run's test cases at the sites that trained and are not left out; ``unit`` is the patient.

    Runs of an earlier version did not note the patient, nor numbers that hold for all seeds: there
    each case of each seed is a unit.
    """
    cases = run.result.cases
    sites = [site for site in run.sites if site not in left_out]
    cases = cases[cases["site"].isin(sites)].assign(seed=run.seed)
    if "group" in cases:
        unit = cases["group"].astype(str)
    else:
        unit = str(run.seed) + ":" + cases["case"].astype(str)
    return cases.assign(unit=unit)


def drawn_scores_of(cases: Mapping[Run, pd.DataFrame], metric: str) -> dict[Run, Floats]:
    """Every run's score (sites, draws) at each site in each draw of patients.

    At every site as many patients are drawn as all runs together have; the same for every run,
    whatever it predicted: that makes it paired.
    """
    if not cases:
        return {}
    everyone = pd.concat([rows[["site", "unit"]] for rows in cases.values()]).drop_duplicates()
    by_site: dict[Run, list[Floats]] = {run: [] for run in cases}
    for site, of_site in everyone.groupby("site"):
        seed = [SEED, *str(site).encode()]
        for run, rows in cases.items():
            own = rows[rows["site"] == site]
            score = score_of(own, metric)
            by_site[run].append(drawn_scores(score, own["unit"], DRAWS, seed, of_site["unit"]))
    return {run: np.stack(scores) for run, scores in by_site.items()}
