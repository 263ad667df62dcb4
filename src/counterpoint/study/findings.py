"""What a study has found: scores, differences, budgets, and what there is to say of them."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from counterpoint.errors import SettingsError, StateError, nearest
from counterpoint.report.words import OF_A_CLASS, heading, leaks
from counterpoint.resampling import TOO_FEW
from counterpoint.results import Result, runs_in
from counterpoint.runs import undefined
from counterpoint.study.differences import DRAWS, SEED, Difference, data_of, differences
from counterpoint.study.entry import Entry, parse_entry
from counterpoint.study.plan import FILE, Study, open_study
from counterpoint.study.scores import (
    BUDGET,
    MEAN,
    Finished,
    Split,
    by_seed,
    over_seeds,
    require_one_training,
    tidy,
)
from counterpoint.tasks import make_task

UNKNOWN_PATIENTS = (
    "WARNING: it is not known whose all test images are; where a patient has several, intervals "
    "are too narrow and p-values too small"
)


OF_VALIDATION = (
    "Validation scores, of the rounds that were chosen by them: to choose settings by, and higher "
    "than on images that nothing was chosen by. No test score is in these tables, and nothing is "
    "tested."
)


@dataclass(frozen=True, eq=False)
class Findings:
    """The table of a study and everything around it.

    Attributes:
        folder: the study's folder.
        scores: a row an entry, seed and site: all scores and what the run cost.
        metric: the score that the table shows.
        split: the images that the scores are of, "test" or "validation".
        sites: the sites, those held out last.
        held_out: those of them that did not train.
        table: a row an entry; mean and standard deviation over the seeds of the score at every
            site, of its mean over the sites and of the worst site.
        budgets: a row an entry: rounds, local epochs, local steps a round and site, gradient
            evaluations, bytes a round and site.
        baseline: the entry that the others are compared to.
        differences: every other entry against it.
        missing: runs that have no results, with the reason.
        notes: sentences: what was compared, how it was tested, what differs.
    """

    folder: Path
    scores: pd.DataFrame
    metric: str
    split: Split
    sites: tuple[str, ...]
    held_out: tuple[str, ...]
    table: pd.DataFrame
    budgets: pd.DataFrame
    baseline: str
    differences: list[Difference]
    missing: list[tuple[str, str]]
    notes: list[str]

    @property
    def entries(self) -> list[str]:
        """The entries that have results, in order."""
        return list(self.table.index)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values; NaN is None."""
        rows = {
            str(entry): {
                str(column): {"mean": row[(column, "mean")], "sd": row[(column, "std")]}
                for column in self.table.columns.get_level_values(0).unique()
            }
            for entry, row in self.table.iterrows()
        }
        plain = {
            "folder": str(self.folder),
            "metric": self.metric,
            "split": self.split,
            "baseline": self.baseline,
            "sites": list(self.sites),
            "held_out": list(self.held_out),
            "seeds": sorted(int(seed) for seed in self.scores["seed"].unique()),
            "table": rows,
            "budgets": self.budgets.to_dict("index"),
            "differences": [asdict(one) for one in self.differences],
            "missing": [{"run": run, "reason": reason} for run, reason in self.missing],
            "notes": self.notes,
        }
        return dict(_without_nan(plain))


def find(
    study: Study,
    metric: str | None = None,
    baseline: str | None = None,
    split: Split = "test",
) -> Findings:
    """Make the table of what is there.

    Args:
        study: its folder is read.
        metric: the score to show and to test; the task's where left out.
        baseline: label of the entry that all others are compared to; where left out, "local" if
            there is one, else "fedavg", else the first.
        split: "validation" to choose settings by: no test score is shown, and nothing tested.

    Raises:
        StateError: if no run is finished, or runs do not belong together.
        SettingsError: for a metric, baseline or split that is not there.
    """
    known_split(split)
    planned = study.runs()
    runs = in_order([Finished(p, Result(p.folder)) for p in planned if p.finished], study)
    missing = [(p.name, p.reason) for p in planned if not p.finished]
    if not runs:
        reasons = "; ".join(f"{run}: {reason}" for run, reason in missing)
        raise StateError(f"{study.folder} has no finished run yet: {reasons}")
    require_one_kind(study.folder, runs)
    values = runs[0].result.results
    require_alike(runs)
    metric = known_metric(metric or values["score"], [*values["metrics"], "loss"])
    asked, labels = baseline, [run.label for run in runs]
    if asked is not None:
        asked = known_baseline(asked, [entry.label for entry in study.entries.values()])
    baseline = known_baseline(asked if asked in labels else None, labels)
    scores = tidy(runs, split)
    wide, left_out = by_seed(scores, metric), undefined(scores, metric)
    compared = differences(runs, baseline, metric, wide[MEAN], left_out, split)
    held_out = tuple(dict.fromkeys(scores.loc[~scores["trained"], "site"]))
    trained = dict.fromkeys(scores.loc[scores["trained"], "site"])
    budgets = scores.groupby("entry", sort=False)[list(BUDGET)].mean()
    budgets["statistics"] = scores.groupby("entry", sort=False)["statistics"].first()
    return Findings(
        folder=study.folder,
        scores=scores,
        metric=metric,
        split=split,
        sites=(*trained, *held_out),
        held_out=held_out,
        table=over_seeds(wide),
        budgets=budgets,
        baseline=baseline,
        differences=compared,
        missing=missing,
        notes=[
            *about_data(runs),
            *about_baseline(asked, baseline),
            *about_seeds(runs),
            *about_undefined(scores, metric),
            *about_budgets(budgets, baseline),
            *about_settings(runs),
            *(
                [OF_VALIDATION]
                if split == "validation"
                else [*about_choosing(runs), *about_tests(compared, runs, metric)]
            ),
        ],
    )


def study_in(folder: Path) -> Study:
    """The study of a folder, or the one that a folder of finished runs amounts to.

    Such runs are told apart by their folders' names, which end in their seeds (``fedavg-1``).

    Raises:
        StateError: if there are neither.
    """
    if (folder / FILE).exists():
        return open_study(folder)
    entries: dict[str, Entry] = {}
    seeds: list[int] = []
    for run in runs_in(folder):
        name, seed = run.path.name, int(run.results["seed"])
        if not name.endswith(f"-{seed}"):
            raise StateError(
                f"{folder} has no {FILE}, and of {name} the name does not end in its seed; call "
                f"it {name}-{seed}, so that runs of several seeds are known for one entry"
            )
        name = name.removesuffix(f"-{seed}")
        entries[name] = Entry(run.results["method"], name=name)
        seeds.append(seed)
    return Study(folder, "", entries, tuple(sorted(set(seeds))))


def in_order(runs: Sequence[Finished], study: Study) -> list[Finished]:
    """Entry by entry, as the study has them."""
    labels = [entry.label for entry in study.entries.values()]
    return sorted(runs, key=lambda run: (labels.index(run.label), run.seed))


def require_one_kind(folder: Path, runs: Sequence[Finished]) -> None:
    """Refuse a folder with runs on several data or tasks."""
    names = ("data", "task", "metrics")
    kinds = {str([run.result.results[name] for name in names]): run for run in runs}
    if len(kinds) > 1:
        one, other, *_ = kinds.values()
        words = (
            f"{run.planned.folder.name} ({run.result.results['data']}, "
            f"{run.result.results['task']})"
            for run in (one, other)
        )
        raise StateError(
            f"{folder} has runs that can't be compared: {' and '.join(words)}; "
            "keep each data set and task in a folder of its own"
        )


def require_alike(runs: Sequence[Finished]) -> None:
    """Refuse runs of an entry that were not trained alike."""
    first: dict[str, Finished] = {}
    for run in runs:
        other = first.setdefault(run.label, run)
        places = ((one.result.path, one.settings) for one in (other, run))
        require_one_training(run.label, *places)


def known_metric(metric: str, known: Sequence[str]) -> str:
    """The metric, if the runs have it."""
    if metric not in known:
        hint = nearest(metric, list(known))
        raise SettingsError(f"unknown metric '{metric}'{hint}; there are {', '.join(known)}")
    return metric


def known_split(split: str) -> None:
    """Refuse what is no part of a split that has scores."""
    known = list(get_args(Split))
    if split not in known:
        raise SettingsError(f"split '{split}'{nearest(split, known)} (of {' and '.join(known)})")


def known_baseline(baseline: str | None, labels: Sequence[str]) -> str:
    """The baseline's label: the one asked for, else that of local, of fedavg, or the first.

    >>> known_baseline(None, ["prrfl", "fedavg:lr=1"]), known_baseline(None, ["prrfl", "ditto"])
    ('fedavg:lr=1', 'prrfl')
    """
    if baseline is None:
        usual = [n for m in ("local", "fedavg") for n in labels if n.partition(":")[0] == m]
        return [*usual, labels[0]][0]
    if baseline in labels:
        return baseline
    there = list(dict.fromkeys(labels))
    try:
        label = parse_entry(baseline).label
    except SettingsError:
        label = baseline
    if label not in there:
        hint = nearest(baseline, there)
        raise SettingsError(
            f"baseline '{baseline}' is no entry, or has no finished run{hint}; there are "
            f"{', '.join(there)}"
        )
    return label


def require_known(study: Study, metric: str | None, baseline: str | None, split: str) -> None:
    """Refuse what no run will have, a metric, say: before hours of training, not after.

    Raises:
        SettingsError: naming what there is.
    """
    known_split(split)
    known_baseline(baseline, [entry.label for entry in study.entries.values()])
    # names of classes are known when the data are read
    of_a_class = ("dice_",) if study.task == "segmentation" else OF_A_CLASS
    if metric and not metric.startswith(of_a_class):
        known_metric(metric, [*make_task(study.task, ("", "")).metrics, "loss"])


def about_baseline(asked: str | None, used: str) -> list[str]:
    """That differences are to another entry than the one asked for, which has no results."""
    if asked in (None, used):
        return []
    return [f"WARNING: {asked} has no finished run, so differences are to {used}"]


def about_undefined(scores: pd.DataFrame, metric: str) -> list[str]:
    """Sites that no mean has, for want of a score in some run; or that there is none everywhere."""
    name, trained = heading(metric, unit=False), scores[scores["trained"]]
    if sites := undefined(scores, metric):
        where = f"for some run at {', '.join(sites)}, which all means and differences leave out"
    elif trained[metric].isna().all():
        where = "at any site, so there are no means and no differences; choose another --metric"
    elif trained[metric].isna().groupby(trained["site"]).any().all():
        where = "for some run at every site, so means and differences are over different sites"
    else:
        return []
    return [f"WARNING: {name} is not defined {where}"]


def about_seeds(runs: Sequence[Finished]) -> list[str]:
    """Which seeds there are, whether splits differ by them, and whether all entries have all."""
    seeds = sorted({run.seed for run in runs})
    prints = {run.seed: set[tuple[str, str]]() for run in runs}
    of_entry = {run.label: set[str]() for run in runs}
    for run in runs:
        prints[run.seed].add(data_of(run))
        of_entry[run.label].add(run.result.results["data_fingerprint"])
    protocols = ", ".join(sorted({run.result.results["protocol"] for run in runs}))
    if len(seeds) == 1:
        spread = "A single seed, so nothing is known of how much training varies."
    else:
        same = all(len(found) == 1 for found in of_entry.values())
        splits = "the same split for all seeds" if same else "a split drawn anew for each seed"
        spread = f"Mean ± standard deviation over {len(seeds)} seeds, {splits}."
    notes = [f"{spread} Protocol: {protocols}."]
    for seed, found in prints.items():
        if len(found) > 1:
            notes.append(
                f"WARNING: with seed {seed} the entries are not known to have had the same images, "
                "labels, split and patients; such runs are not paired"
            )
    for label in dict.fromkeys(run.label for run in runs):
        own = sorted(run.seed for run in runs if run.label == label)
        if own != seeds:
            notes.append(
                f"WARNING: {label} has only seed {', '.join(map(str, own))}, so its means are not "
                "of the same seeds as the others'"
            )
    return notes


def about_data(runs: Sequence[Finished]) -> list[str]:
    """What makes scores too good, or images fewer, as the runs noted it of their data."""
    noted = dict.fromkeys(note for run in runs for note in run.result.results["data_notes"])
    return [
        *(f"WARNING: {note}" for note in noted if leaks(note)),
        *(note for note in noted if "left out" in note),
    ]


def about_budgets(budgets: pd.DataFrame, baseline: str) -> list[str]:
    """Entries whose gradients or rounds are not the baseline's."""
    notes = []
    costs = {str(entry): row for entry, row in budgets.to_dict("index").items()}
    base = costs[baseline]
    for entry, cost in costs.items():
        share = cost["gradients"] / base["gradients"]
        if abs(share - 1) > 0.005:
            notes.append(
                f"BUDGETS DIFFER: {entry} had {100 * share:.0f} % of the gradient evaluations of "
                f"{baseline}"
            )
        if cost["rounds"] != base["rounds"]:
            notes.append(
                f"BUDGETS DIFFER: {entry} had {cost['rounds']:.0f} rounds, {baseline} "
                f"{base['rounds']:.0f}"
            )
    return notes or ["All entries had the same number of rounds and of gradient evaluations."]


def about_settings(runs: Sequence[Finished]) -> list[str]:
    """In which settings of the training, beside local epochs, entries differ."""
    notes = []
    for name in map(str, runs[0].settings["schedule"]):
        who: dict[str, dict[str, None]] = {}
        for run in runs:
            value = str(run.settings["schedule"].get(name))
            value = Path(value).name if name == "weights" else value
            who.setdefault(value, {})[run.label] = None
        if len(who) > 1 and name not in ("local_epochs", "rounds"):
            values = "; ".join(f"{value} ({', '.join(labels)})" for value, labels in who.items())
            notes.append(f"{name} differs: {values}")
    return notes


def about_choosing(runs: Sequence[Finished]) -> list[str]:
    """That test scores are none to choose settings by, where a method has several."""
    labels: dict[str, set[str]] = {}
    for run in runs:
        labels.setdefault(run.planned.entry.method, set()).add(run.label)
    several = [method for method, found in labels.items() if len(found) > 1]
    if not several:
        return []
    return [
        f"Of {', '.join(several)} there are several choices of settings. One that is chosen by "
        "these test scores is better here than on other images: choose by --split validation."
    ]


def about_tests(compared: Sequence[Difference], runs: Sequence[Finished], metric: str) -> list[str]:
    """What was tested, in words."""
    tested = [one for one in compared if one.test]
    if metric == "loss":
        return ["Nothing was tested: the loss is known of a part as a whole, and not by case."]
    if not tested:
        return ["Nothing was tested: no two entries have test cases of one split to be paired."]
    first = tested[0]
    known = all(run.result.patients_known for run in runs)
    unit = "patients or lesions" if known else "test images (not all patients are known)"
    few = dict.fromkeys(site for one in tested for site in one.few)
    warned = [
        f"WARNING: fewer than {TOO_FEW} test patients at {', '.join(few)}: drawn again and again "
        "they are much the same, so intervals are too narrow and p-values too small"
    ]
    return [
        f"Differences in mean {heading(metric, unit=False)} over the sites to {first.baseline}, "
        f"paired: 95 % percentile interval of {DRAWS} bootstrap draws (seed {SEED}) of {unit} "
        "within each site, the same for both; two-sided p from where 0 lies among the draws. "
        f"{_most(one.units for one in tested)} units and {_most(one.cases for one in tested)} "
        f"tested cases over {_most(len(one.seeds) for one in tested)} seed(s); p corrected "
        f"by Holm for {len(tested)} {'comparisons' if len(tested) > 1 else 'comparison'}.",
        "Intervals and p-values speak of chance in the choice of test cases, for the models that "
        "were trained. How much training itself varies shows only in the spread over the seeds.",
        *(warned if few else []),
        *([] if known else [UNKNOWN_PATIENTS]),
    ]


def _most(numbers: Iterable[int]) -> str:
    """A number that all have, or the largest.

    >>> _most([3, 3]), _most([2, 3])
    ('3', 'up to 3')
    """
    known = sorted(set(numbers))
    return str(known[0]) if len(known) == 1 else f"up to {known[-1]}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and value != value else value
