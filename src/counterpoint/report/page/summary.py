"""The first screen: what joining brings to each hospital, in words and in one table."""

import math

import numpy as np
import pandas as pd

from counterpoint.report.page.blocks import Block, Cell, Details, Items, Section, Table, Text
from counterpoint.report.page.runs import (
    FEW,
    Arm,
    Estimate,
    Study,
    difference,
    of_common_seeds,
)
from counterpoint.report.page.words import (
    between,
    counted,
    listed,
    named,
    points,
    points_between,
)
from counterpoint.report.words import number, unit_of
from counterpoint.resampling import score_of
from counterpoint.results import shown_metrics

SCORES = {
    "macro_f1": "The score is macro-F1: for each class, how many of its images are found and how "
    "many of those so called are right, joined to one number (F1); then the mean over the "
    "classes, so that rare classes count as much as frequent ones.",
    "dice": "The score is Dice: how far the area that the model marks and the area that people "
    "have marked cover each other, image by image; 100 % is exactly the same area.",
}


def summary(study: Study) -> Section:
    """In words, and as a table."""
    blocks: list[Block] = [Text(_about(study), "lead")]
    local, joined = study.local, study.joined
    if local and joined:
        blocks += [Text(_verdict(study, local, joined)), _by_site(study, local, joined)]
    blocks.append(_table(study))
    blocks += [Text(_score(study), "small"), _chosen(study)]
    if not local:
        blocks.append(
            Text(
                "What each hospital gains by joining can't be said from this alone: that takes "
                "the same training without any exchange. Run `counterpoint compare local "
                f"{study.main.first.values['method']} --data … --out STUDY`, then "
                "`counterpoint report STUDY`.",
                "small",
            )
        )
    return Section("summary", "In short", blocks)


def _about(study: Study) -> str:
    values = study.values
    trained = study.training_sites
    classes = study.classes
    what = "to outline structures" if values["task"] == "segmentation" else "to tell classes apart"
    if classes:
        what = f"to tell {listed(classes)} apart"
    runs, arms = len(study.runs), len(study.arms)
    how = f"with the method {study.arms[0].label}"
    if runs > 1:
        seeds = max(len(arm.runs) for arm in study.arms)
        upto = "" if len({len(arm.runs) for arm in study.arms}) == 1 else "up to "
        how = f"in {counted(arms, 'way')}, each with {upto}{counted(seeds, 'random seed')}"
        how += f" ({counted(runs, 'run')})"
    text = (
        f"{counted(len(trained), 'hospital')} ({listed(trained)}) trained models on "
        f"{values['data']} {what}, {how}. No images were exchanged"
    )
    if any(arm.kind == "pooled" for arm in study.arms):
        text += ", except in the comparison with all images in one place"
    if study.holdout:
        text += f". {study.holdout} did not train: its images show how a new hospital would fare"
    return f"{text}."


def _score(study: Study) -> str:
    text = SCORES.get(study.score, f"The score is {named(study.score)}.")
    if study.score == "macro_f1":
        guesses = {site: guess(study.main.first.cases_of(site)) for site in study.sites}
        low, high = min(guesses.values()), max(guesses.values())
        span = number("macro_f1", low)
        span += "" if number("macro_f1", high) == span else f" to {number('macro_f1', high)}"
        text += f" Calling every image by the hospital's most frequent class would give {span} %."
    return text


def guess(cases: pd.DataFrame) -> float:
    """Macro-F1 of calling every case by the most frequent class.

    >>> round(guess(pd.DataFrame({"class": ["a", "a", "b"]})), 2)
    0.4
    """
    usual = cases["class"].mode().iloc[0]
    always = cases.assign(predicted=usual)
    return float(score_of(always, "macro_f1")(np.ones((1, len(cases))))[0])


def _verdict(study: Study, local: Arm, joined: Arm) -> str:
    sites = study.training_sites
    gains = {site: difference(joined, local, site, study.score) for site in sites}
    better = [s for s, gain in gains.items() if gain and gain.clear and gain.value > 0]
    worse = [s for s, gain in gains.items() if gain and gain.clear and gain.value < 0]
    apart = [s for s, gain in gains.items() if gain is None or gain.untested]
    few = [s for s, gain in gains.items() if gain and gain.few and s not in apart]
    unclear = [s for s in sites if s not in (*better, *worse, *apart, *few)]
    parts = []
    if better:
        parts.append(f"{listed(better)} {'gains' if len(better) == 1 else 'gain'}")
    if worse:
        parts.append(f"{listed(worse)} {'loses' if len(worse) == 1 else 'lose'}")
    if unclear:
        parts.append(f"for {listed(unclear)} there is no clear difference")
    if few:
        parts.append(
            f"{listed(few)} {'has' if len(few) == 1 else 'have'} too few test patients to tell"
        )
    if apart:
        parts.append(f"{listed(apart)} can't be compared")
    return f"By joining with {joined.label}, {'; '.join(parts)}:"


def _by_site(study: Study, local: Arm, joined: Arm) -> Items:
    return Items([(site, _sentence(study, local, joined, site)) for site in study.sites])


def _sentence(study: Study, local: Arm, joined: Arm, site: str) -> str:
    metric, unit = study.score, unit_of(study.score)
    pair = of_common_seeds(local, joined)
    alone, together = (arm.score(site, metric).value for arm in pair)
    gain = difference(joined, local, site, metric)
    names = "alone", "together"
    if site == study.holdout:  # it has no model of its own
        names = "the other hospitals' own models asked together", f"with {joined.label}"
    text = (
        f"{names[0]} {number(metric, alone)} {unit}, {names[1]} {number(metric, together)} "
        f"{unit}: {verdict(gain, metric)}"
    )
    if gain and not math.isnan(gain.low):
        text += f" (95 % interval {points_between(metric, gain)})"
    tested = joined.first.patients_of(site, metric).nunique()
    if tested < FEW:
        who = "test patient" if joined.first.result.patients_known else "test case"
        text += f"; judged on only {counted(tested, who)}"
    return f"{text}."


def verdict(gain: Estimate | None, metric: str) -> str:
    """A difference in words.

    >>> verdict(Estimate(0.02, 0.01, 0.03, patients=50), "dice")
    'gains 2.0 points'
    >>> verdict(Estimate(0.02, -0.01, 0.03, patients=50), "dice")
    'no clear difference, +2.0 points'
    >>> verdict(Estimate(0.02, 0.01, 0.03, patients=5), "dice")
    'too few test patients to tell, +2.0 points'
    """
    if gain is None or math.isnan(gain.value):
        return "can't be compared"
    if gain.untested:
        return f"{points(metric, gain.value)} points, not tested on the same images"
    if gain.few:
        return f"too few test patients to tell, {points(metric, gain.value)} points"
    if not gain.clear:
        return f"no clear difference, {points(metric, gain.value)} points"
    word = "gains" if gain.value > 0 else "loses"
    return f"{word} {number(metric, abs(gain.value))} points"


def _table(study: Study) -> Table:
    metric, arms = study.score, study.headline
    local, joined = study.local, study.joined
    titles = {"local": "Alone", "common": "One common model", "personal": "Personal models"}
    head = ["Hospital"]
    head += (
        [named(metric)]
        if len(study.arms) == 1
        else [f"{titles.get(arm.kind, 'Pooled')}: {arm.label}" for arm in arms]
    )
    if local and joined:
        head += [f"Gain with {joined.label}"]
    whose = "" if len(study.arms) == 1 else f"{arms[0].label}: "
    head += [
        f"{whose}{named(m)}" + ("" if unit_of(m) == "%" else f" {unit_of(m)}")
        for m in others(study)
    ]
    rows: list[list[str | Cell]] = []
    for site in study.sites:
        name = f"{site} (did not train)" if site == study.holdout else site
        cells: list[str | Cell] = [name]
        cells += [score_cell(arm.score(site, metric), metric) for arm in arms]
        if local and joined:
            cells.append(gain_cell(difference(joined, local, site, metric), metric))
        cells += [score_cell(arms[0].score(site, other), other) for other in others(study)]
        rows.append(cells)
    of, there = "Mean of those that trained" if study.holdout else "Mean", study.averaged(metric)
    mean: list[str | Cell] = [of, *(number(metric, arm.mean(metric, there)) for arm in arms)]
    if local and joined:
        gains = [difference(joined, local, site, metric) for site in there]
        known = [gain.value for gain in gains if gain]
        whole = known and len(known) == len(gains)  # else another mean than those beside it
        mean.append(points(metric, sum(known) / len(known)) if whole else "-")
    mean += [number(other, arms[0].mean(other, study.averaged(other))) for other in others(study)]
    caption = (
        f"Test {named(metric) if len(arms) > 1 else 'scores'} in {unit_of(metric)}, with 95 % "
        "intervals; "
        "the score just after training, on images that training never saw"
    )
    return Table(caption, head, [*rows, mean])


def others(study: Study) -> list[str]:
    """A task's other scores that the first table has room for: none beside a gain."""
    if study.local and study.joined:
        return []
    wanted = ("accuracy", "auc", "dice_with_background", "sensitivity", "hd95_mm", "hd95")
    return [name for name in wanted if name in shown_metrics(study.values)][:3]


def score_cell(of: Estimate, metric: str) -> Cell:
    """A score with its interval below it."""
    return Cell(number(metric, of.value), between(metric, of))


def gain_cell(gain: Estimate | None, metric: str) -> Cell:
    """A difference with its interval, marked where it is clear."""
    if gain is None:
        return Cell("-")
    if not gain.clear:
        return Cell(points(metric, gain.value), points_between(metric, gain) or "no interval")
    tone, sign = ("good", "▲") if gain.value > 0 else ("bad", "▼")
    text = f"{sign} {points(metric, gain.value)}"
    return Cell(text, points_between(metric, gain), tone)  # type: ignore[arg-type]


def judged(study: Study) -> int:
    """How many differences to training alone the page could call clear, whoever's they are."""
    local = study.local
    if not (local and study.joined):
        return 0
    found = [
        difference(arm, local, site, study.score)
        for arm in study.arms
        if arm is not local
        for site in study.sites
    ]
    return sum(not (gain.untested or gain.few) for gain in found if gain)


def _chosen(study: Study) -> Details:
    several = max(len(arm.runs) for arm in study.arms) > 1
    sentences = [
        "An interval says how far the choice of test patients could have moved a number: of "
        "intervals made in this way, about 95 of 100 hold the score that these models would have "
        "on all such patients of the hospital. Where the interval of a difference holds zero, the "
        "page says “no clear difference”: there may be one, but these images do not show it.",
        f"Of each kind, the method shown is the one with the best {named(study.score)} on "
        "validation images; test images played no part in the choice.",
        "Differences are paired: both models are scored on the same test images, drawn again and "
        "again with replacement."
        + (" Where several seeds were run, seeds are drawn as well." if several else ""),
    ]
    if (count := judged(study)) > 1:
        sentences.append(
            f"{count} differences to training alone are judged on this page, each by itself: "
            f"if none were real, about {count / 20:.1f} of them would be called clear all the same."
        )
    if len(study.runs) == 1:
        sentences = sentences[:1]
    if not all(run.result.patients_known for run in study.runs):
        sentences.append(
            "It is not known of all images whose they are, so those were drawn one by one; where a "
            "patient has many, the interval is somewhat too narrow."
        )
    elif len(study.runs) == 1:
        sentences.append("Patients were drawn with replacement, all images of one together.")
    return Details("How to read these numbers", [Items(sentences)])
