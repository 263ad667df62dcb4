"""The test, once, with the models that validation chose: scores, cases and intervals."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterpoint.client import Client, ClientData, Row
from counterpoint.crew import Report
from counterpoint.files import read_tensors
from counterpoint.resampling import drawn_scores, interval
from counterpoint.results import all_equal
from counterpoint.seeds import derive_seed

DRAWS = 1000
"""Of patients, for an interval."""


@dataclass(frozen=True)
class Exam:
    """A site's test images, and the files with the models to score on them."""

    data: ClientData
    models: tuple[Path, ...]
    seed: int
    elsewhere: bool = False
    """Whether the site is one that did not train."""


Tested = tuple[Row, list[Row], dict[str, list[float | None]]]
"""A site's scores, a row a case, and the scores' intervals."""


def score_test(client: Client, job: Exam, report: Report) -> list[Tested]:
    """Score a site's test images; a site that did not train is scored by all models together."""
    models = [read_tensors(path) for path in job.models]
    if job.elsewhere:
        # sites with one model in common have one vote
        votes = models[:1] if len(models) > 1 and all_equal(models) else models
        found = [client.test_elsewhere(job.data, votes)]
    else:
        found = list(client.test(job.data, models[0]))
    results: list[Tested] = []
    for (row, scorer), site in zip(found, job.data.sites, strict=True):
        patient = dict(zip(site.cases.tolist(), site.groups.tolist(), strict=True))
        cases: list[Row] = [
            {"site": site.name, "case": of["case"], "group": patient[int(of["case"])], **of}
            for of in scorer.by_case()
        ]
        numbers, statistics = scorer.statistics()
        patients = np.array([patient[number] for number in numbers])
        seeds = {n: derive_seed(job.seed, "interval", site.name, n) for n in statistics}
        several = len(np.unique(patients)) > 1  # of a single patient, all draws are the same
        intervals: dict[str, list[float | None]] = {
            name: _plain(interval(drawn_scores(of, patients, DRAWS, seeds[name])))
            if several
            else [None, None]
            for name, of in statistics.items()
        }
        results.append((row, cases, intervals))
    return results


def _plain(interval: tuple[float, float]) -> list[float | None]:
    """An interval as JSON has it, which knows no NaN.

    >>> _plain((0.5, 0.75)), _plain((math.nan, math.nan))
    ([0.5, 0.75], [None, None])
    """
    return [None if math.isnan(end) else end for end in interval]
