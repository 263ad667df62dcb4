"""The report: its numbers, what it keeps to itself, and the page in a browser."""

import base64
import hashlib
import html
import io
import json
import math
import re
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser
from sklearn import metrics
from typer.testing import CliRunner

from counterpoint import api, exam, load, run, write_report
from counterpoint.cli import app
from counterpoint.errors import SettingsError, StateError
from counterpoint.figures.style import SERIES
from counterpoint.report import page as pages
from counterpoint.report.page import runs as study_runs
from counterpoint.report.page.arms import read_study
from counterpoint.report.page.cases import worst_cases
from counterpoint.report.page.cautions import cautions
from counterpoint.report.page.curves import training
from counterpoint.report.page.payloads import sent
from counterpoint.report.page.pictures import legend_of
from counterpoint.report.page.repeat import settings_text
from counterpoint.report.page.runs import difference, of_common_seeds
from counterpoint.report.page.summary import guess, judged, summary
from counterpoint.report.page.thumbnails import FOUND, TRUTH
from counterpoint.report.page.words import points, without_names
from counterpoint.report.words import size
from counterpoint.resampling import (
    draw,
    drawn_runs,
    drawn_scores,
    interval,
    score_of,
    weighted_mean,
)
from counterpoint.results import Result
from tests.browser import Visit, chromium  # noqa: F401  (a fixture)
from tests.running import SHORT, TINY

HOSTILE = '<script>alert("1")</script>'
LONG = "Universitätsklinikum-für-alle-Fälle-" * 4 + "病院 $x_1$"


@pytest.fixture(scope="module", autouse=True)
def _short() -> object:
    """Leave out what takes most time in a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "draw_figures", lambda result: None)
        patch.setattr(exam, "DRAWS", 30)
        patch.setattr(study_runs, "DRAWS", 200)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study: three methods on the phantom, two of them with two seeds."""
    there = tmp_path_factory.mktemp("study")
    quick = SHORT | TINY | {"rounds": 2, "local_epochs": 2}
    for method, seed in (("local", 1), ("local", 2), ("prrfl", 1), ("prrfl", 2), ("harmofl", 1)):
        run(method, "phantom", out=there / f"{method}-{seed}", seed=seed, **quick)
    write_report(there, figures=True)
    return there


@pytest.fixture(scope="module")
def study(folder: Path) -> study_runs.Study:
    return read_study([folder])


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Runs on own images whose sites, classes and files have names that want to break out."""
    there = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(1)
    rows = []
    for number, site in enumerate((HOSTILE, LONG)):
        for i in range(30):
            name = f"secret-{number}-{i}.png"
            pixels = rng.integers(0, 200, (16, 16, 3), dtype=np.uint8)
            pixels[4:12, 4:12, i % 2] += 50
            Image.fromarray(pixels).save(there / name)
            mask = np.zeros((16, 16), dtype=np.uint8)
            mask[4:12, 4 : 8 + i % 5] = 1
            Image.fromarray(mask).save(there / f"mask-{name}")
            label = ("<b>ill</b>", "well & good")[i % 2]
            split = ("train", "validation", "test")[i // 10]
            group = f"patient-{number}-{i // 2}" if i else f"patient-{number}-10"
            rows.append((site, name, label, f"mask-{name}", split, group))
    table = there / "table.csv"
    columns = ["site", "image", "label", "mask", "split", "group"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.drop(columns="mask").to_csv(table, index=False)
    frame.drop(columns="label").to_csv(there / "masks.csv", index=False)
    quick = {"rounds": 1, "local_epochs": 1, "image_size": 16, "batch_size": 8, "protocol": "given"}
    quick |= {"workers": 1, "threads": 1}
    classes, masks = there / "runs" / "classes", there / "runs" / "masks"
    run("fedavg", table, out=classes, **quick, model="tests.running:Tiny")
    dense = "tests.running:TinyDense"
    run("fedavg", there / "masks.csv", out=masks, **quick, model=dense, task="segmentation")
    page = write_report(masks, out=there / "page.html", thumbnails=True).page
    return SimpleNamespace(folder=there, classes=classes, masks=masks, page=page)


def visible(text: str) -> str:
    """The page's text, without tags, styles and scripts."""
    text = re.sub(r"<(style|script)\b.*?</\1>", "", text, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", text)))


# Numbers


def test_scores_of_drawn_cases_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(3)
    cases = pd.DataFrame({"class": rng.choice(list("abc"), 40), "dice": rng.random(40)})
    cases["predicted"] = np.where(rng.random(40) < 0.6, cases["class"], "a")
    cases.loc[3, "dice"] = np.nan
    counts = draw(40, 5, np.random.default_rng(2))
    found = {metric: score_of(cases, metric)(counts) for metric in ("macro_f1", "accuracy", "dice")}
    for i, count in enumerate(counts):
        chosen = cases.loc[np.repeat(np.arange(40), count)]
        f1 = metrics.f1_score(chosen["class"], chosen["predicted"], average="macro")
        right = metrics.accuracy_score(chosen["class"], chosen["predicted"])
        assert found["macro_f1"][i] == pytest.approx(f1)
        assert found["accuracy"][i] == pytest.approx(right)
        assert found["dice"][i] == pytest.approx(chosen["dice"].mean())


def test_an_interval_of_seeds_is_wider_where_seeds_disagree() -> None:
    draws = np.random.default_rng(1).normal(0, 0.01, 4000)
    low, high = interval(drawn_runs([draws, draws]))
    assert high - low == pytest.approx(2 * 1.96 * 0.01, rel=0.1)  # more runs, not more patients
    low, high = interval(drawn_runs([draws - 1, draws + 1]))
    assert low == pytest.approx(-1, abs=0.1)
    assert high == pytest.approx(1, abs=0.1)


def test_every_score_of_several_seeds_has_an_interval(study: study_runs.Study) -> None:
    for metric in study.values["metrics"]:
        found = study.local.score("east", metric)
        assert found.low - 1e-6 <= found.value <= found.high + 1e-6, metric  # digits of a score


def test_runs_are_sorted_into_arms(study: study_runs.Study) -> None:
    kinds = [(arm.label, arm.kind, [run.seed for run in arm.runs]) for arm in study.arms]
    assert kinds == [
        ("local", "local", [1, 2]),
        ("harmofl", "common", [1]),
        ("prrfl", "personal", [1, 2]),
    ]


def test_of_many_methods_the_best_are_shown_at_first(study: study_runs.Study) -> None:
    local, harmofl, prrfl = study.arms
    others = [study_runs.Arm(f"s{i}", f"other {i}", "common", harmofl.runs) for i in range(3, 14)]
    many = study_runs.Study((local, harmofl, *others, prrfl))
    entries = {entry.label: entry.shown for entry in legend_of(many)}
    assert sum(entries.values()) == 8
    assert entries["local"]
    assert entries["harmofl"]
    assert entries["prrfl"]
    assert not entries["other 13"]


def test_a_difference_is_paired_by_seed_and_case(study: study_runs.Study, folder: Path) -> None:
    local, harmofl, prrfl = study.arms
    found = difference(prrfl, local, "east", "macro_f1")
    tests = {
        name: json.loads((folder / name / "results.json").read_text())["test"]["east"]["macro_f1"]
        for name in ("local-1", "local-2", "prrfl-1", "prrfl-2", "harmofl-1")
    }
    wanted = tests["prrfl-1"] + tests["prrfl-2"] - tests["local-1"] - tests["local-2"]
    assert found.value == pytest.approx(wanted / 2)
    assert found.low <= found.high
    alone = difference(harmofl, local, "east", "macro_f1")
    assert alone.value == pytest.approx(tests["harmofl-1"] - tests["local-1"])
    same = difference(local, local, "east", "macro_f1")
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_many_images_of_few_patients_are_few(study: study_runs.Study) -> None:
    local, _, prrfl = study.arms
    arms = []
    for arm in (local, prrfl):
        one = study_runs.Run(arm.first.result)
        one.cases = one.cases.assign(group=0)
        arms.append(study_runs.Arm(arm.key, arm.label, arm.kind, (one,)))
    found = difference(arms[1], arms[0], "east", "macro_f1")
    assert (found.patients, found.few, found.clear) == (1, True, False)
    assert (math.isnan(found.low), found.untested) == (True, False)
    said = all_text(summary(study_runs.Study(tuple(arms))))
    assert "too few test patients to tell" in said
    # of one patient every draw is the same: no interval, however many seeds
    runs = [altered(arms[0].first, cases=arms[0].first.cases) for _ in range(2)]
    twice = study_runs.Arm("s0", "local", "local", tuple(runs))
    assert math.isnan(twice.score("east", "macro_f1").low)


def altered(run: study_runs.Run, **of: object) -> study_runs.Run:
    """A run with another table or other settings, or with values laid over its own."""
    one = study_runs.Run(run.result)
    one.values = run.values | of.pop("values", {})
    for name, value in of.items():
        setattr(one, name, value)
    return one


def arm_of(kind: str, run: study_runs.Run, label: str = "") -> study_runs.Arm:
    return study_runs.Arm(f"s{len(kind) % 3}", label or kind, kind, (run,))


def all_text(of: object) -> str:
    """All words of a section, or of a block."""
    if isinstance(of, str | int | float | bool | None):
        return f"{of}\n"
    inner = of if isinstance(of, list | tuple) else getattr(of, "__dict__", {}).values()
    return "".join(map(all_text, inner))


def test_patients_without_a_score_do_not_count(own: SimpleNamespace) -> None:
    """Nobody's Dice is known of but four of a site's patients in one of two runs."""
    (arm,) = read_study([own.masks]).arms
    cases = arm.first.cases.assign(group=range(len(arm.first.cases)))
    fewer = cases.assign(dice=cases["dice"].where(cases.groupby("site").cumcount() < 4))
    whole, thin = (altered(arm.first, cases=table) for table in (cases, fewer))
    for one, other in ((whole, thin), (thin, whole)):
        arms = arm_of("common", one), arm_of("local", other)
        assert difference(*arms, LONG, "dice").patients == 4
        assert difference(*arms, LONG, "dice").few
    assert not difference(arm_of("common", whole), arm_of("local", whole), LONG, "dice").few
    both = study_runs.Study((arm_of("local", whole), arm_of("common", thin)))
    assert "judged on only 4 test" in all_text(summary(both))
    assert any(f"{LONG} (4)" in said for said in cautions(both))


def test_means_are_over_the_same_hospitals(study: study_runs.Study) -> None:
    """One at which a run has no score is in no mean, and the page says so."""
    local, harmofl, _ = study.arms
    tests = {site: dict(of) for site, of in harmofl.first.values["test"].items()}
    tests["west"]["macro_f1"] = None
    odd = arm_of("common", altered(harmofl.first, values={"test": tests}), "odd")
    both = study_runs.Study((local, odd))
    three = ["east", "north", "south"]
    assert both.averaged("macro_f1") == three
    found = [run.values["test"][site]["macro_f1"] for run in local.runs for site in three]
    assert local.mean("macro_f1", three) == pytest.approx(np.mean(found))
    assert f"{100 * np.mean(found):.1f}" in all_text(summary(both))
    wanted = "macro-F1 is not defined in every run at west, which its means leave out."
    assert wanted in cautions(both)
    assert not any("not defined" in said for said in cautions(study))


def test_the_differences_that_are_counted_are_those_that_are_judged(
    study: study_runs.Study,
) -> None:
    local, harmofl, prrfl = study.arms
    second = arm_of("local", altered(local.first), "local again")
    pooled = arm_of("pooled", altered(harmofl.first), "pooled")
    many = study_runs.Study((local, second, harmofl, prrfl, pooled))
    assert len(study.main.first.cases_of("west")) >= 10
    assert judged(many) == 4 * 4
    assert "16 differences to training alone are judged" in all_text(summary(many))
    few = altered(harmofl.first, cases=harmofl.first.cases.assign(group=0))
    assert judged(study_runs.Study((local, arm_of("common", few), prrfl))) == 4  # of prrfl
    assert judged(study_runs.Study((local, pooled))) == 0  # no figure of differences


def test_other_scores_in_the_first_table_say_whose_they_are(study: study_runs.Study) -> None:
    _, harmofl, prrfl = study.arms
    table = next(b for b in summary(study_runs.Study((harmofl, prrfl))).blocks if b.kind == "table")
    assert table.head[3:] == ["harmofl: accuracy", "harmofl: AUC"]
    alone = next(b for b in summary(study_runs.Study((harmofl,))).blocks if b.kind == "table")
    assert alone.head[2:] == ["accuracy", "AUC"]


def test_why_there_is_no_training_loss(study: study_runs.Study) -> None:
    """Noise is another reason than a model that is made of a trained one."""
    arms = []
    for name, values in (("noised", {"privacy": {"kind": "records"}}), ("made", {})):
        result = Result(study.main.first.path)
        result.scores = result.scores.assign(train_loss=np.nan)
        arms.append(arm_of("personal", altered(study_runs.Run(result), values=values), name))
    text = all_text(training(study_runs.Study(tuple(arms))).blocks[0])
    assert "noised: under differential privacy the loss in training is not told" in text
    assert "made: the model in use is made of a trained one" in text


def test_seeds_on_the_same_patients_find_nothing_where_nothing_is() -> None:
    """Five seeds of two methods that are equally good, on 50 patients: 5 % are called clear."""
    rng = np.random.default_rng(0)
    clear = 0
    for _ in range(200):
        patients = rng.normal(size=50)
        draws = [
            drawn_scores(weighted_mean(patients + rng.normal(0, 0.1, 50)), np.arange(50), 200, 1)
            for _ in range(5)
        ]
        low, high = interval(drawn_runs(draws))
        clear += low > 0 or high < 0
    assert clear < 24


def test_other_test_images_leave_no_interval(study: study_runs.Study) -> None:
    local, _, prrfl = study.arms
    one = study_runs.Run(prrfl.first.result)
    one.values = one.values | {"data_fingerprint": "of other images"}
    odd = study_runs.Arm("s9", "odd", "personal", (one,))
    found = difference(odd, local, "east", "macro_f1")
    assert np.isfinite(found.value)
    assert np.isnan(found.low)
    said = cautions(study_runs.Study((*study.arms, odd)))
    assert any("odd" in s and "no intervals" in s for s in said)


def test_the_means_gain_is_that_of_the_seeds_that_both_have(folder: Path, tmp_path: Path) -> None:
    for name in ("local-1", "local-2", "prrfl-1"):
        shutil.copytree(folder / name, tmp_path / name)
    study = read_study([tmp_path])
    assert study.local is not None
    assert study.joined is not None
    pair = of_common_seeds(study.local, study.joined)
    assert [run.seed for arm in pair for run in arm.runs] == [1, 1]
    gains = [difference(study.joined, study.local, s, "macro_f1") for s in study.sites]
    mean = sum(gain.value for gain in gains if gain) / len(gains)
    page = tmp_path / "page.html"
    write_report(tmp_path, out=page)
    text = page.read_text(encoding="utf-8")
    assert f">{points('macro_f1', mean)}<" in text
    assert any("not run with the same seeds" in said for said in cautions(study))
    shutil.copytree(folder / "local-1", tmp_path / "again")
    with pytest.raises(SettingsError, match="are one method with one seed"):
        read_study([tmp_path])


def test_patients_that_are_not_known_are_not_said_to_be_drawn(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "local-1", tmp_path / "local-1")
    file = tmp_path / "local-1" / "results.json"
    values = json.loads(file.read_text())
    page = tmp_path / "page.html"
    write_report(tmp_path, out=page)
    known = page.read_text(encoding="utf-8")
    values["data_notes"] = ["site 'A': 3 of 9 images have no known patient or lesion"]
    file.write_text(json.dumps(values))
    write_report(tmp_path, out=page)
    unknown = page.read_text(encoding="utf-8")
    assert "Patients were drawn" in known
    assert "Patients were drawn" not in unknown
    assert "It is not known of all images whose they are" in unknown


def test_a_run_whose_cases_stayed_at_the_sites(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "local-1", tmp_path / "together")
    (tmp_path / "together" / "test_cases.csv").unlink()
    shutil.rmtree(tmp_path / "together" / "models")
    with pytest.raises(StateError, match="those of a run across sites stayed at the sites"):
        write_report(tmp_path / "together")
    with pytest.raises(StateError, match="models and test cases stayed at the sites"):
        Result(tmp_path / "together").model()
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "together")]).stdout
    assert "scores.csv, results.json, payloads.csv" in shown


def test_ids_are_different(text: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_few_cases_are_no_clear_difference() -> None:
    assert study_runs.Estimate(0.2, 0.1, 0.3, patients=10).clear
    assert not study_runs.Estimate(0.2, 0.1, 0.3, patients=9).clear
    assert not study_runs.Estimate(0.2, -0.1, 0.3, patients=99).clear


def test_the_page_says_the_scores_of_the_runs(text: str, folder: Path) -> None:
    shown = visible(text)
    local = [json.loads((folder / f"local-{i}" / "results.json").read_text()) for i in (1, 2)]
    for site in ("east", "north", "south", "west"):
        mean = np.mean([values["test"][site]["macro_f1"] for values in local])
        assert f"{site}: alone {100 * mean:.1f} %, together" in shown
    values = json.loads((folder / "harmofl-1" / "results.json").read_text())
    low, high = values["intervals"]["west"]["macro_f1"]
    assert f"{100 * low:.1f} to {100 * high:.1f}" in shown
    assert "4 hospitals (east, north, south and west) trained models on phantom" in shown


def test_the_page_says_what_left(text: str, folder: Path) -> None:
    sent = pd.read_csv(folder / "prrfl-1" / "payloads.csv")
    up = sent[sent["direction"] == "up"]
    row = text[text.index("Bytes over a whole run") :]
    row = visible(row[row.index(">prrfl<") :])
    total = int(up[up["site"] == "east"]["bytes"].sum())
    assert row.split(">")[-1].split()[:3] == ["prrfl", *size(total).split()]
    for name in set(sent["name"]):
        assert name in text
    assert "local: nothing left a hospital" in visible(text)


def test_it_is_said_what_left_beside_the_weights(
    study: study_runs.Study, own: SimpleNamespace, text: str, tmp_path: Path
) -> None:
    run("prrfl-journal", "phantom", out=tmp_path / "run", **SHORT | TINY | {"rounds": 1})
    (journal,) = read_study([tmp_path / "run"]).arms
    said = sent(journal)
    assert said.startswith("amplitudes and phases of the low frequencies of the weights (the high")
    assert "how many training images (of segmentation: pixels) it has of each class" in said
    assert "the mean feature of each class, which is computed from its images" in said
    settings = journal.first.settings | {"aggregation.phase": "complex"}
    one = altered(journal.first, settings=settings)
    assert "the low frequencies of the weights as complex numbers" in sent(arm_of("personal", one))
    _, harmofl, prrfl = study.arms
    assert "their phases and all high frequencies stay" in sent(prrfl)
    assert "class" not in sent(prrfl)
    assert sent(harmofl).endswith("which is computed from the images themselves")
    assert "mean amplitude of the hospital's images" in visible(text)
    (fedavg,) = read_study([own.classes]).arms
    assert sent(fedavg).endswith(
        "means and variances of the features that normalisation layers see"
    )
    mine = fedavg.first.payloads.assign(name="local.mine")
    added = arm_of("common", altered(fedavg.first, payloads=mine))
    assert sent(added).endswith("what its local update adds (names that begin with “local.”)")


def test_confusions_are_counted_over_the_seeds(text: str, folder: Path) -> None:
    cases = pd.concat(pd.read_csv(folder / f"local-{i}" / "test_cases.csv") for i in (1, 2))
    east = cases[cases["site"] == "east"]
    names = [name[2:] for name in east if name.startswith("p_")]
    table = metrics.confusion_matrix(east["class"], east["predicted"], labels=names)
    for i, truth in enumerate(names):
        for j, found in enumerate(names):
            share = 100 * table[i, j] / table[i].sum()
            tip = f"{table[i, j]} images of {truth} called {found} ({share:.0f} %)"
            assert tip in html.unescape(text), tip


def test_the_frequent_class_as_a_guess() -> None:
    cases = pd.DataFrame({"class": list("aaab")})
    assert guess(cases) == pytest.approx(
        metrics.f1_score(list("aaab"), list("aaaa"), average="macro")
    )


def test_the_worst_cases_are_the_surest_errors(study: study_runs.Study) -> None:
    cases = study.main.first.cases_of("north")
    worst = worst_cases(cases, "macro_f1")
    wrong = cases[cases["class"] != cases["predicted"]]
    surest = wrong[[n for n in cases if n.startswith("p_")]].max(axis=1).sort_values()
    assert worst["sure"].tolist() == surest.tolist()[::-1][:5]


def test_cautions_are_found_in_the_runs(own: SimpleNamespace, study: study_runs.Study) -> None:
    said = cautions(read_study([own.classes]))
    assert said[0].startswith("Leakage: the split leaks")
    assert any("came with the data" in sentence for sentence in said)
    assert any("One random seed only" in sentence for sentence in said)
    assert any(
        "patients" in one and re.search(rf"{re.escape(HOSTILE)} \(\d\)", one) for one in said
    )
    of_study = cautions(study)
    assert not any("Leakage" in sentence or "One random" in sentence for sentence in of_study)
    assert any("the same seeds" in sentence for sentence in of_study)
    assert any("batch statistics" in s and s.startswith("harmofl") for s in of_study)


def test_only_what_leaks_is_called_leakage(own: SimpleNamespace) -> None:
    (arm,) = read_study([own.classes]).arms
    notes = [
        "2 images have a twin of equal content in their part: /a/b.png, x.png",
        "the split leaks: 1 of 9; scores on it are too good",
        "site 'A' has no training mask with 'leaks' in it",
    ]
    said = cautions(
        study_runs.Study((arm_of("common", altered(arm.first, values={"data_notes": notes})),))
    )
    assert said[:2] == [
        "Leakage: the split leaks: 1 of 9; scores on it are too good.",
        "2 images have a twin of equal content in their part.",
    ]
    assert not any("training mask" in sentence for sentence in said)


def test_a_network_without_batch_norm_has_no_statistics_that_cost(own: SimpleNamespace) -> None:
    (arm,) = read_study([own.classes]).arms
    assert any("batch norm's statistics were averaged" in said for said in cautions(one_arm(arm)))
    sent_up = arm.first.payloads
    without = sent_up[~sent_up["name"].str.startswith("statistics.")]
    plain = arm_of("common", altered(arm.first, payloads=without))
    assert not any("batch norm's" in said for said in cautions(one_arm(plain)))


def one_arm(arm: study_runs.Arm) -> study_runs.Study:
    return study_runs.Study((arm,))


# What it keeps to itself


def test_names_are_text_and_nothing_else(own: SimpleNamespace, tmp_path: Path) -> None:
    page = write_report(own.classes, out=tmp_path / "page.html").page
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<b>ill</b>" not in text
    assert text.count("<script") == 1
    assert HOSTILE in visible(text.replace("&lt;script&gt;alert", "<i></i>&lt;script&gt;alert"))
    assert "病院 $x_1$" in text


def test_no_patient_no_file_and_no_folder_is_named(own: SimpleNamespace, tmp_path: Path) -> None:
    page = write_report(own.classes, out=tmp_path / "page.html").page
    text = page.read_text(encoding="utf-8")
    assert "patient-0" in (own.classes / "results.json").read_text()  # in a note on the leak
    for secret in ("patient-0", "patient-1", "secret", str(own.folder)):
        assert secret not in text
    assert "<img" not in text


@pytest.mark.parametrize(
    ("note", "wanted"),
    [
        (
            "3 images are missing and were left out, first: /a/b.png (line 3), /c.png",
            "3 images are missing and were left out",
        ),
        (
            "2 images have a twin of equal content in their part: /a/b.png, x.png",
            "2 images have a twin of equal content in their part",
        ),
        (
            "2 images have a twin of equal content with another label: /x/Doe_Anna.png, b c.png",
            "2 images have a twin of equal content with another label",
        ),
        ("x (first: p1, p2); y (first: p3)", "x; y"),
        ("about 70 % training, 10 % validation", "about 70 % training, 10 % validation"),
    ],
)
def test_notes_lose_their_names(note: str, wanted: str) -> None:
    assert without_names(note) == wanted


def test_thumbnails_only_if_asked_for(own: SimpleNamespace, tmp_path: Path) -> None:
    text = own.page.read_text(encoding="utf-8")
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', text)
    assert len(shown) == 6  # three a site
    for data, alt in shown:
        assert base64.b64decode(data)[1:4] == b"PNG"
        assert "Dice" in alt
    assert "Patient data." in text
    assert "secret" not in text
    plain = write_report(own.masks, out=tmp_path / "plain.html").page.read_text(encoding="utf-8")
    assert "<img" not in plain
    assert "Patient data." not in plain


@pytest.mark.parametrize(
    ("settings", "without", "why"),
    [
        ({"statistics": "batch"}, ["east", "north", "south", "west"], "other images of a batch"),
        ({"statistics": "recalibrated", "holdout": "west"}, ["west"], "calibrated on this"),
    ],
)
def test_where_a_case_alone_is_another_prediction_none_is_drawn(
    settings: dict[str, str], without: list[str], why: str, tmp_path: Path
) -> None:
    dense = {"model": "tests.running:TinyDense", "task": "segmentation", "rounds": 1}
    run("fedavg", "phantom", out=tmp_path / "run", **SHORT | dense | settings)
    page = write_report(tmp_path / "run", thumbnails=True).page.read_text(encoding="utf-8")
    said = re.search(r"shown\. ([^.]*): no orange, as the score is of [^.]*;", visible(page))
    assert said
    assert said[1].replace(" and ", ", ").split(", ") == without
    assert why in said[0]
    shown = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(shown) == 12
    for data, alt in shown:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        drawn = {mark: bool((pixels == mark).all(-1).any()) for mark in (TRUTH, FOUND)}
        unlike = any(f" of {site}," in alt for site in without)
        assert drawn[TRUTH] or not unlike, alt
        assert drawn[FOUND] is not unlike, alt
        assert ("predicted" in alt) is not unlike


def test_cases_are_numbered_as_the_page_says(own: SimpleNamespace, tmp_path: Path) -> None:
    """From 0, in the order of the table, without what is missing."""
    table = pd.read_csv(own.folder / "table.csv").iloc[::-1]
    table["image"] = [str(own.folder / name) for name in table["image"]]
    table.loc[25, "image"] = str(tmp_path / "missing.png")
    table.to_csv(tmp_path / "table.csv", index=False)
    loaded = load(tmp_path / "table.csv", protocol="given", skip_bad=True)
    for site in loaded.sites:
        there = [n for n in table.loc[table["site"] == site.name, "image"] if "missing" not in n]
        assert dict(zip(site.table["image"], site.table["case"], strict=True)) == {
            name: number for number, name in enumerate(there)
        }
    page = visible(own.page.read_text(encoding="utf-8"))
    assert "Cases are numbered from 0: the hospital's image files in the order of its" in page


def test_a_page_keeps_no_folder_of_the_machine(own: SimpleNamespace, tmp_path: Path) -> None:
    """Of a method of one's own, the settings hold the whole path."""
    shutil.copytree(own.masks, tmp_path / "run")
    file = tmp_path / "run" / "settings.yaml"
    values = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(values | {"method": "/home/jane/mine.py:METHOD"}))
    shown = settings_text(study_runs.Run(Result(tmp_path / "run")))
    assert yaml.safe_load(shown)["method"] == "mine.py:METHOD"
    assert "/" not in yaml.safe_load(shown)["data"]["name"]


def test_without_the_images_the_rest_is_there(own: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(own.masks, tmp_path / "run")
    settings = tmp_path / "run" / "settings.yaml"
    settings.write_text(settings.read_text().replace("masks.csv", "gone.csv"))
    page = write_report(tmp_path / "run", thumbnails=True).page
    shown = visible(page.read_text(encoding="utf-8"))
    assert "Left out: the images can't be read here" in shown
    assert "The pictures are left out" in shown
    assert "What left each hospital" in shown


# Files and errors


def test_figures_are_files_too(folder: Path) -> None:
    names = {file.name for file in (folder / "figures").iterdir()}
    stems = {"gain", "retrogress", "training", "spectra", "stages-s2", "confusion-s0"}
    assert {f"{stem}.{form}" for stem in stems for form in ("png", "pdf", "svg")} <= names
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for file in (folder / "figures").iterdir():
        assert file.read_bytes().startswith(starts[file.suffix])


def test_the_same_runs_give_the_same_page(study: study_runs.Study, folder: Path, text: str) -> None:
    assert len(read_study([folder / "prrfl-1", folder]).runs) == 5
    assert write_report(folder, out=folder / "again.html").page.read_text(encoding="utf-8") == text
    assert not list(folder.glob(".*"))


def test_a_single_run_says_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    page = write_report(folder / "prrfl-1", out=tmp_path / "one.html").page
    shown = visible(page.read_text(encoding="utf-8"))
    assert "counterpoint compare local prrfl" in shown
    assert "Who gains" not in shown
    assert "recover" in shown


def test_the_command(folder: Path, tmp_path: Path, own: SimpleNamespace) -> None:
    def call(*words: object) -> SimpleNamespace:
        done = CliRunner().invoke(app, ["report", *map(str, words)])
        return SimpleNamespace(code=done.exit_code, out=done.stdout, err=done.stderr)

    done = call(own.masks, "--out", tmp_path / "p.html", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert Path(said["page"]).is_file()
    assert said["cautions"]
    assert done.err == ""  # they are not said twice
    assert call(folder / "prrfl-1", folder / "local-1").code == 2  # where to?
    mixed = call(folder, own.classes, "--out", tmp_path / "m.html")
    assert mixed.code == 2
    assert "not the same" in mixed.err.replace("\n", " ")
    empty = call(tmp_path / "nowhere")
    assert empty.code == 1
    assert not (tmp_path / "m.html").exists()


def test_errors_are_sentences(tmp_path: Path, folder: Path, own: SimpleNamespace) -> None:
    with pytest.raises(StateError, match="no finished run"):
        write_report(tmp_path)
    with pytest.raises(SettingsError, match="classification on phantom"):
        write_report([folder, own.masks], out=tmp_path / "x.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="can't be written"):
        write_report(folder / "local-1", out=tmp_path / "file" / "x.html")


# The page


def test_the_page_asks_for_nothing_by_its_own_words(text: str) -> None:
    script = re.search(r"<script>(.*?)</script>", text, flags=re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:image/png)', text)
    assert "url(http" not in text
    assert "@import" not in text
    assert len(text) < 2_000_000


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_colours_stand_out_in_both_themes() -> None:
    style = (Path(pages.__file__).parent / "page.css").read_text()
    for start in (":root {", ':root[data-theme="dark"] {'):
        body = style[style.index(start) :].split("}")[0]
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", body))

        def contrast(one: str, other: str, colours: dict[str, str] = colours) -> float:
            light, dark = sorted((luminance(colours[n]) for n in (one, other)), reverse=True)
            return (light + 0.05) / (dark + 0.05)

        for name in ("ink", "muted", "link", "good", "bad"):
            assert contrast(name, "ground") >= 4.5, (start, name)
        assert contrast("ink", "warn") >= 4.5
        for number in range(len(SERIES)):
            assert contrast(f"s{number}", "ground") >= 3, (start, number)
    light = style[style.index(":root {") :].split("}")[0]
    assert [re.search(rf"--s{i}: (#\w+)", light)[1] for i in range(len(SERIES))] == list(SERIES)


def test_it_loads_in_a_browser_and_asks_for_nothing(browser: Browser, folder: Path) -> None:
    visit = Visit(browser, folder / "report.html")
    assert visit.requests == [(folder / "report.html").as_uri()]
    assert visit.complaints == []
    refused = visit.page.evaluate("fetch('data:text/plain,x').then(() => 'sent', () => 'refused')")
    assert refused == "refused"


def test_the_theme_can_be_chosen_and_paper_stays_white(browser: Browser, folder: Path) -> None:
    visit = Visit(browser, folder / "report.html", color_scheme="light")
    page, ground = visit.page, "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) == "rgb(21, 23, 28)"
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.emulate_media(color_scheme="light")
    button.click()
    assert page.evaluate(ground) == "rgb(21, 23, 28)"
    assert button.inner_text() == "Theme: dark"
    page.reload()
    assert page.evaluate(ground) == "rgb(21, 23, 28)"
    page.emulate_media(media="print")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    ink = "getComputedStyle(document.querySelector('.figure text')).fill"
    assert page.evaluate(ink) == "rgb(29, 32, 38)"


def test_a_method_can_be_hidden_everywhere(browser: Browser, folder: Path) -> None:
    page = Visit(browser, folder / "report.html").page
    marks = page.locator('.figure [data-series="s2"]')
    count = marks.count()
    assert count > 8
    seen = "els => els.filter(e => getComputedStyle(e).display !== 'none').length"
    assert marks.evaluate_all(seen) == count
    buttons = page.get_by_role("button", name="prrfl", exact=True)
    assert buttons.count() == 2  # retrogress and training
    buttons.first.focus()
    page.keyboard.press("Enter")
    assert marks.evaluate_all(seen) == 0
    assert [b.get_attribute("aria-pressed") for b in buttons.all()] == ["false", "false"]
    assert page.locator('.figure [data-series="s0"]').evaluate_all(seen) > 0
    buttons.last.click()
    assert marks.evaluate_all(seen) == count


def test_values_by_pointer_and_by_keyboard(browser: Browser, folder: Path) -> None:
    page = Visit(browser, folder / "report.html").page
    tip = page.locator("#tip")
    figure = page.locator("#retrogress-0")
    figure.focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    assert re.match(r"local, model: \d+\.\d % .* before training", first), first
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.get_by_role("button", name="local", exact=True).first.click()
    figure.focus()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("harmofl")  # what is hidden is passed over
    page.locator("#gain-0 .tip").last.hover()
    assert tip.inner_text().startswith("east, prrfl: ")


@pytest.mark.parametrize("width", [320, 360, 1200])
def test_nothing_runs_over_the_edge(
    browser: Browser,
    folder: Path,
    own: SimpleNamespace,
    width: int,
) -> None:
    for file in (folder / "report.html", own.page):
        page = Visit(browser, file, viewport={"width": width, "height": 700}).page
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everybody_can_use_it(browser: Browser, folder: Path, own: SimpleNamespace) -> None:
    for file, scheme in ((folder / "report.html", "light"), (own.page, "dark")):
        page = Visit(browser, file, color_scheme=scheme).page
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        found = Axe().run(page).response["violations"]
        assert found == [], [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
        levels = page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
        )
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        figures = page.locator("svg.figure")
        assert figures.count() > 3
        for figure in figures.all():
            assert figure.get_attribute("role") == "img"
            assert len(figure.get_attribute("aria-label") or "") > 20
        assert page.locator("table:not(:has(caption))").count() == 0
        assert page.locator("table:not(:has(th[scope=col]))").count() == 0
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"


def test_it_can_be_printed(browser: Browser, folder: Path) -> None:
    page = Visit(browser, folder / "report.html", color_scheme="dark").page
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", paper)) < 40
