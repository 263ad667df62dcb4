"""What the finished runs of a study say: one tidy table, and means with spread over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import pandas as pd

from counterpoint.data.batches import split_into_batches
from counterpoint.errors import StateError
from counterpoint.results import Result
from counterpoint.runs import LOWER_IS_BETTER, undefined
from counterpoint.settings import flatten
from counterpoint.study.plan import Planned

Split = Literal["test", "validation"]
Settings = tuple[Path | str, dict[str, Any]]
"""Where settings are from, and what they are."""
BUDGET = ("rounds", "local_epochs", "local_steps", "gradients", "bytes_up", "bytes_down")


@dataclass(frozen=True)
class Finished:
    """A finished run of a study."""

    planned: Planned
    result: Result

    @property
    def label(self) -> str:
        """The entry that it is of."""
        return self.planned.entry.label

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.planned.seed

    @property
    def settings(self) -> dict[str, Any]:
        """The content of its ``settings.yaml``."""
        try:
            return self.result.settings
        except StateError as error:
            raise StateError(
                f"{error}; put it back as it was, or remove the run's folder, and the run is made "
                "anew"
            ) from error

    @property
    def sites(self) -> list[str]:
        """The sites that trained, in order."""
        values = self.result.results
        return [site for site in values["test"] if site != values["holdout"]]

    @property
    def budget(self) -> dict[str, float]:
        """What it cost: see `BUDGET`; bytes a round and site, NaN where not known."""
        values, schedule = self.result.results, self.settings["schedule"]
        return {
            "rounds": values["rounds"],
            "local_epochs": schedule["local_epochs"],
            "local_steps": local_steps(values.get("training_images", {}), schedule),
            "gradients": values["images_with_gradient"],
            "bytes_up": values["bytes"]["up_per_round_and_site"],
            "bytes_down": values["bytes"]["down_per_round_and_site"],
        }


_OWN_MATTER = ("seed", "method", "data.split_seed", "data.root", "machine.")
"""Beginnings of the names of settings in which runs of one entry may differ."""


def require_one_training(label: str, one: Settings, other: Settings) -> None:
    """Refuse two runs of an entry that were not trained alike: their mean would be of nothing.

    A method in a file of one's own may have changed between them. Settings that only one of them
    has are of another version.

    Args:
        label: of the entry.
        one: folder of a run, and its settings as in ``settings.yaml``.
        other: of another run, or of what it would be now.

    Raises:
        StateError: naming the runs and the first setting that differs.
    """
    first, second = (dict(flatten(values)) for _, values in (one, other))
    for name in first.keys() & second.keys():
        if not name.startswith(_OWN_MATTER) and first[name] != second[name]:
            raise StateError(
                f"runs of '{label}' were not trained alike: {name} is {first[name]} in {one[0]} "
                f"and {second[name]} in {other[0]}; has the method's file changed? Call what it "
                "is now by another name, or move those runs away"
            )


def local_steps(images: dict[str, int], schedule: dict[str, Any]) -> float:
    """Batches that a site trains on in a round, mean over the sites; NaN where not known.

    >>> local_steps({"A": 32, "B": 40}, {"batch_size": 16, "local_epochs": 2})
    5.0
    """
    batches = [len(split_into_batches(count, schedule["batch_size"])) for count in images.values()]
    return schedule["local_epochs"] * fmean(batches) if batches else float("nan")


def tidy(runs: Sequence[Finished], split: Split = "test") -> pd.DataFrame:
    """A row an entry, seed and site: all scores, what the run cost, and where it is.

    ``trained`` is false for a site that was held out, of which there is no validation score.
    """
    rows = []
    for run in runs:
        values = run.result.results
        of_site = values["test"]
        if split == "validation":
            of_site = run.result.validation.to_dict("index")
        for site, scores in of_site.items():
            rows.append(
                {
                    "entry": run.label,
                    "method": values["method"],
                    "seed": run.seed,
                    "site": site,
                    "trained": site != values["holdout"],
                    **{n: np.nan if x is None else x for n, x in scores.items()},
                    "chosen_round": values["chosen_round"],
                    "statistics": values["statistics"],
                    **run.budget,
                    "protocol": values["protocol"],
                    "data_fingerprint": values["data_fingerprint"],
                    "folder": run.planned.folder.name,
                }
            )
    return pd.DataFrame(rows)


def by_seed(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row an entry and seed; a column a site, and ``mean`` and ``worst site`` of those trained.

    The last two are of the sites that are not `undefined`.

    >>> scores = pd.DataFrame({"entry": "a", "seed": 1, "site": ["A", "B"], "trained": True,
    ...                        "dice": [0.5, 0.75]})
    >>> by_seed(scores, "dice").iloc[0].to_dict()
    {'A': 0.5, 'B': 0.75, 'mean': 0.625, 'worst site': 0.5}
    """
    keys = ["entry", "seed"]
    order = list(dict.fromkeys(scores["site"]))
    wide = scores.pivot(index=keys, columns="site", values=metric)[order]
    used = scores["trained"] & ~scores["site"].isin(undefined(scores, metric))
    own = scores[used].groupby(keys)[metric]
    worst = own.max() if metric in LOWER_IS_BETTER else own.min()
    wide[[MEAN, WORST]] = pd.DataFrame({MEAN: own.mean(), WORST: worst})
    return wide.rename_axis(columns=None).loc[scores[keys].drop_duplicates().agg(tuple, axis=1)]


MEAN, WORST = "mean", "worst site"


def over_seeds(wide: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample standard deviation over the seeds (NaN for a single one), as two levels.

    Entries stay in the order in which they come.
    """
    entries = list(dict.fromkeys(wide.index.get_level_values("entry")))
    return wide.groupby(level="entry").agg(["mean", "std"]).loc[entries]
