"""What a page reads of its runs: their scores, and the differences between them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from counterpoint.errors import StateError
from counterpoint.resampling import (
    TOO_FEW,
    Floats,
    drawn_runs,
    drawn_scores,
    interval,
    score_of,
)
from counterpoint.results import Result, read_log
from counterpoint.runs import by_name

DRAWS = 1000
FEW = 30
"""Of fewer test patients at a hospital, or images of unknown ones, the reader is told."""
Kind = Literal["local", "common", "personal", "pooled"]
KINDS: dict[Kind, str] = {
    "local": "Alone: every hospital trains on its own images only",
    "common": "One common model for all hospitals",
    "personal": "Personal models: each hospital keeps its own",
    "pooled": "All images in one place (no federation)",
}


@dataclass(frozen=True)
class Estimate:
    """A score or a difference, with the ends of its 95 % interval (NaN where there is none)."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    patients: int = 0
    """That a difference rests on, with a score each; where it was not noted whose they are, test
    cases."""

    @property
    def few(self) -> bool:
        """Whether a difference rests on so few patients that its interval can't be trusted."""
        return self.patients < TOO_FEW

    @property
    def untested(self) -> bool:
        """Whether a difference has no interval for want of test images in common."""
        return math.isnan(self.low) and not self.patients

    @property
    def clear(self) -> bool:
        """Whether the interval of a difference leaves out zero, and can be trusted."""
        return not self.few and (self.low > 0 or self.high < 0)


class Run:
    """A finished run, with what it was started with."""

    def __init__(self, result: Result) -> None:
        self.result, self.path = result, result.path
        self.values = result.results
        self._drawn: dict[tuple[str, str, tuple[str, ...]], Floats] = {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of ``settings.yaml``, with dotted names."""
        return by_name(self.result.settings)

    @cached_property
    def cases(self) -> pd.DataFrame:
        """A row a test image or volume."""
        if not (self.path / "test_cases.csv").exists():
            raise StateError(
                f"{self.path} has no test_cases.csv; those of a run across sites stayed at the "
                "sites, so there can be no page of it here"
            )
        return self.result.cases

    @cached_property
    def payloads(self) -> pd.DataFrame:
        """A row an array that crossed."""
        return read_log(self.path / "payloads.csv")

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.values["seed"])

    @property
    def seeds(self) -> tuple[int, str]:
        """The run's seed, and that of its split where it has one of its own."""
        return self.seed, str(self.settings.get("data.split_seed"))

    @cached_property
    def _by_site(self) -> dict[str, pd.DataFrame]:
        groups = self.cases.groupby("site", sort=False)
        return {str(site): rows.reset_index(drop=True) for site, rows in groups}

    def cases_of(self, site: str) -> pd.DataFrame:
        """A site's test cases, in their order."""
        return self._by_site[site]

    def patients_of(self, site: str, metric: str = "") -> "pd.Series[str]":
        """Whose each test case of a site is; where it was not noted, each is a patient's own.

        Of a score that cases have each for itself, those only in which it is defined.
        """
        cases = self.cases_of(site)
        if metric in cases:
            cases = cases[cases[metric].notna()]
        if "group" in cases:
            return cases["group"].astype(str)
        return f"{self.seed}:" + cases["case"].astype(str)

    def drawn_scores(self, site: str, metric: str, among: tuple[str, ...]) -> Floats:
        """A site's score in each draw of patients ``among`` these; the same draws in all runs."""
        key = site, metric, among
        if key not in self._drawn:
            score, patients = score_of(self.cases_of(site), metric), self.patients_of(site)
            seed = [0, *site.encode()]
            self._drawn[key] = drawn_scores(score, patients, DRAWS, seed, among)
        return self._drawn[key]


@dataclass(frozen=True, eq=False)
class Arm:
    """One method with one choice of settings, run with one or several seeds."""

    key: str
    label: str
    kind: Kind
    runs: tuple[Run, ...]

    @property
    def first(self) -> Run:
        """The run of the first seed."""
        return self.runs[0]

    @property
    def validation(self) -> float:
        """Mean validation score of the chosen models: by this, and not by the test, arms rank."""
        return sum(float(run.values["validation"]) for run in self.runs) / len(self.runs)

    def score(self, site: str, metric: str) -> Estimate:
        """A site's test score, mean over the seeds."""
        found = [run.values["test"][site][metric] for run in self.runs]
        if any(value is None for value in found):
            return Estimate(float("nan"))
        if len(self.runs) == 1:
            ends = self.first.values["intervals"][site].get(metric)
        elif fewest_patients(self.runs, site, metric) > 1:
            among = all_patients(self.runs, site)
            draws = [run.drawn_scores(site, metric, among) for run in self.runs]
            ends = interval(drawn_runs(draws))
        else:
            ends = None
        if ends is None or None in ends:
            return Estimate(sum(found) / len(found))
        return Estimate(sum(found) / len(found), *ends)

    def mean(self, metric: str, sites: Sequence[str]) -> float:
        """Mean over some sites and the seeds; NaN where there are none."""
        tests = [run.values["test"][site][metric] for run in self.runs for site in sites]
        return sum(tests) / len(tests) if tests else math.nan

    def worst(self, metric: str, sites: Sequence[str]) -> float:
        """Score of the site that fares worst in a run, mean over the seeds."""
        tests = [[run.values["test"][site][metric] for site in sites] for run in self.runs]
        return sum(min(of, default=math.nan) for of in tests) / len(tests)


def all_patients(runs: Iterable[Run], site: str) -> tuple[str, ...]:
    """Everyone who was tested at a site in any of these runs."""
    return tuple(sorted({one for run in runs for one in run.patients_of(site)}))


def fewest_patients(runs: Iterable[Run], site: str, metric: str) -> int:
    """Of how many patients each run has a score; of a single one, all draws are the same."""
    return min(run.patients_of(site, metric).nunique() for run in runs)


def difference(arm: Arm, other: Arm, site: str, metric: str) -> Estimate | None:
    """How much better ``arm`` is than ``other`` at a site; None where no seed has both.

    Runs are compared seed by seed. The interval is paired: in each draw both are scored on the
    same patients. There is none where the two were not tested on the same cases.
    """
    pairs = in_pairs(arm, other)
    values = [[run.values["test"][site][metric] for run in pair] for pair in pairs]
    if not pairs or any(None in pair for pair in values):
        return None
    mean = sum(one - two for one, two in values) / len(pairs)
    if not all(same_cases(*pair, site) for pair in pairs):
        return Estimate(mean)
    both = [run for pair in pairs for run in pair]
    patients = fewest_patients(both, site, metric)
    if patients == 1:
        return Estimate(mean, patients=patients)
    among = all_patients(both, site)
    drawn = [[run.drawn_scores(site, metric, among) for run in pair] for pair in pairs]
    ends = interval(drawn_runs([one - two for one, two in drawn]))
    return Estimate(mean, *ends, patients=patients)


def in_pairs(arm: Arm, other: Arm) -> list[tuple[Run, Run]]:
    """The runs of two arms with the same seeds."""
    partners = {run.seeds: run for run in other.runs}
    return [(run, partners[run.seeds]) for run in arm.runs if run.seeds in partners]


def of_common_seeds(arm: Arm, other: Arm) -> tuple[Arm, Arm]:
    """Two arms with the seeds only that both have; as they are where there are none."""
    pairs = in_pairs(arm, other)
    if not pairs:
        return arm, other
    one, two = zip(*pairs, strict=True)
    return replace(arm, runs=one), replace(other, runs=two)


def same_cases(one: Run, two: Run, site: str) -> bool:
    """Whether two runs were tested on the same images, of the same patients, of a site."""
    both = {*one.cases} & {*two.cases}
    known = [name for name in ("case", "class", "group") if name in both]
    return one.values["data_fingerprint"] == two.values["data_fingerprint"] and one.cases_of(site)[
        known
    ].equals(two.cases_of(site)[known])


@dataclass(frozen=True, eq=False)
class Study:
    """All runs of a page: the arms, and what they have in common."""

    arms: tuple[Arm, ...]
    unfinished: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The results of the first run; for what all have in common."""
        return self.arms[0].first.values

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def score(self) -> str:
        """The score that chooses models: macro_f1 or dice."""
        return str(self.values["score"])

    @property
    def sites(self) -> list[str]:
        """All sites, one that is held out last."""
        return list(self.values["test"])

    @property
    def holdout(self) -> str | None:
        """The site that did not train."""
        held = self.values["holdout"]
        return None if held is None else str(held)

    @property
    def training_sites(self) -> list[str]:
        """The sites that trained."""
        return [site for site in self.sites if site != self.holdout]

    def averaged(self, metric: str) -> list[str]:
        """The sites that trained and have a score in every run: means are over the same sites."""
        return [
            site
            for site in self.training_sites
            if all(run.values["test"][site][metric] is not None for run in self.runs)
        ]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as far as the test cases tell."""
        columns = self.arms[0].first.cases.columns
        return [name[2:] for name in columns if name.startswith("p_")]

    def best(self, *kinds: Kind) -> Arm | None:
        """The arm of these kinds with the best validation score; of equals, the first."""
        fitting = [arm for arm in self.arms if arm.kind in kinds]
        return max(fitting, key=lambda arm: arm.validation, default=None)

    @property
    def local(self) -> Arm | None:
        """Training alone: what joining is measured against."""
        return self.best("local")

    @property
    def joined(self) -> Arm | None:
        """The federated arm that validation prefers."""
        return self.best("common", "personal")

    @property
    def headline(self) -> list[Arm]:
        """The best arm of each kind by validation, which the first table shows."""
        best = [self.best(kind) for kind in ("local", "common", "personal")]
        return [arm for arm in best if arm] or [self.arms[0]]

    @property
    def main(self) -> Arm:
        """The arm that the page speaks of where it can only speak of one."""
        return self.joined or self.arms[0]
