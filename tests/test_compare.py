"""Studies from end to end: runs in this process, in others, and what is made of them."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from counterpoint import api, compare
from counterpoint.cli.training import takes_settings
from counterpoint.errors import SettingsError, StateError
from counterpoint.results import Result
from counterpoint.runs import undefined
from counterpoint.study import differences, running
from counterpoint.study.compare import study_asked_for
from counterpoint.study.differences import cases_of, difference, drawn_scores_of, score_of
from counterpoint.study.entry import parse_entry
from counterpoint.study.findings import about_settings, about_undefined, find, study_in
from counterpoint.study.job import work
from counterpoint.study.plan import Planned, grown, open_study, plan
from counterpoint.study.scores import Finished
from counterpoint.study.sheets import differences_sheet, sheets
from counterpoint.study.writers import latex, markdown, write
from tests.running import call, ended, start

SMALL = {"rounds": 2, "local_epochs": 2, "image_size": 32, "batch_size": 8, "train_limit": 16}
SMALL |= {"model": "tests.running:Tiny", "lr": 0.1}
DENSE = SMALL | {"task": "segmentation", "model": "tests.running:TinyDense", "local_epochs": 1}
MACHINE = {"machine.workers": 1, "machine.threads": 1}


def made(folder, entries, seeds, settings):
    """A study whose runs were done in this process, as their own processes do them."""
    study = plan(folder, "phantom", [parse_entry(one) for one in entries], seeds, settings)
    study.save()
    for run in study.runs():
        options = study.settings_of(run.entry, run.seed)[1] | MACHINE
        job = {"method": run.entry.method, "data": "phantom", "folder": str(run.folder)}
        work(job | {"settings": options, "workers": 1}, lambda event: None)
    return study


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    """What takes a second a run and is looked at elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "draw_figures", lambda result: None)
        yield


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
    entries = ["prrfl", "local", "local:momentum=0", "fedavg:statistics=recalibrated"]
    return made(tmp_path_factory.mktemp("study") / "s", entries, [1, 2], SMALL)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    return made(tmp_path_factory.mktemp("study") / "s", ["local", "fedavg"], [1, 2], DENSE)


def results_of(study, name):
    files = (study.folder / f"{name}-{seed}" / "results.json" for seed in study.seeds)
    return [json.loads(file.read_text()) for file in files]


def test_all_had_the_same_gradients(classified):
    budgets = find(classified).budgets
    assert budgets["gradients"].nunique() == 1
    assert budgets["local_epochs"].to_dict()["prrfl"] == 1
    assert budgets["local_epochs"].to_dict()["local"] == 2
    assert budgets["local_steps"].to_dict()["local"] == 2 * 2  # 16 images in batches of 8, twice
    assert budgets.loc["local", "gradients"] == 4 * 16 * 2 * 2  # sites, images, epochs, rounds
    assert budgets.loc["local", "bytes_up"] == 0
    assert budgets.loc["prrfl", "bytes_up"] > 0
    assert any("the same number of rounds and of gradient" in one for one in find(classified).notes)


def test_the_table_is_that_of_the_results(classified):
    found = find(classified)
    assert found.entries == [
        "prrfl",
        "local",
        "local:momentum=0",
        "fedavg:statistics=recalibrated",
    ]
    runs = results_of(classified, "prrfl")
    for site in found.sites:
        values = [run["test"][site]["macro_f1"] for run in runs]
        cell = found.table.loc["prrfl"][site]
        assert cell["mean"] == pytest.approx(mean(values))
        assert cell["std"] == pytest.approx(stdev(values))
    worst = [min(site["macro_f1"] for site in run["test"].values()) for run in runs]
    assert found.table.loc["prrfl"][("worst site", "mean")] == pytest.approx(mean(worst))
    assert found.table.loc["prrfl"][("mean", "mean")] == pytest.approx(
        mean(run["mean"]["macro_f1"] for run in runs)
    )


def test_validation_scores_choose_settings_and_no_test_score_is_shown(classified):
    found = find(classified, split="validation", baseline="local")
    for entry, folder in (("prrfl", "prrfl"), ("local", "local")):
        runs = results_of(classified, folder)
        chosen = [run["validation"] for run in runs]  # by which the round was chosen
        assert found.table.loc[entry][("mean", "mean")] == pytest.approx(mean(chosen))
    assert {(one.test, one.units) for one in found.differences} == {("", 0)}
    shown = sheets(found)[0]
    assert shown.title == "Validation macro-F1 %"
    assert len(found.scores) == len(find(classified).scores)
    for _, row in found.scores.iterrows():
        own = Result(classified.folder / row["folder"]).validation
        assert row["macro_f1"] == own.loc[row["site"], "macro_f1"]
    assert any("No test score is in these tables" in note for note in found.notes)
    assert not any("bootstrap" in note for note in found.notes)
    test = find(classified)
    assert any("Of local there are several choices of settings" in note for note in test.notes)
    with pytest.raises(SettingsError, match="did you mean 'validation'"):
        find(classified, split="valid")


def test_validation_scores_are_those_of_the_model_that_predicts(classified):
    for run in classified.runs():
        result = Result(run.folder)
        table = result.validation
        assert list(table.index) == list(result.table.index)
        assert list(table) == list(result.table)
        assert table["macro_f1"].mean() == pytest.approx(result.results["validation"])


def test_a_method_against_itself(classified):
    found = find(classified, baseline="local")
    itself = next(one for one in found.differences if one.entry == "local:momentum=0")
    assert (itself.difference, itself.low, itself.high) == (0, 0, 0)
    assert (itself.p, itself.corrected, itself.better) == (1, 1, 0)
    assert itself.seeds == (1, 2)


def test_differences_and_their_tests(classified):
    found = find(classified, baseline="fedavg:statistics=recalibrated")
    table = found.table[("mean", "mean")]
    for one in found.differences:
        assert one.difference == pytest.approx(table[one.entry] - table[one.baseline])
        assert one.low <= one.difference + 0.05
        assert one.high >= one.difference - 0.05
        assert one.test == "paired bootstrap"
    # holm: nothing becomes smaller, and the smallest is multiplied by how many there are
    smallest = min(found.differences, key=lambda one: one.p)
    assert smallest.corrected == pytest.approx(min(1, 3 * smallest.p))
    same = find(classified, baseline="fedavg:statistics=recalibrated")
    assert same.differences == found.differences  # drawn by a seed of its own


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "auc"])
def test_scores_of_all_cases_are_the_results(classified, metric):
    for planned in classified.runs()[:2]:
        run = Finished(
            planned, find(classified) and __import__("counterpoint").Result(planned.folder)
        )
        for site, rows in cases_of(run).groupby("site"):
            score = score_of(rows, metric)(np.ones((1, len(rows))))
            assert score == pytest.approx(run.result.results["test"][site][metric], abs=1e-5)


def test_cases_are_known_again_under_another_seed(classified):
    """A training limit takes other images for another seed; the cases keep their numbers."""
    one, other = (
        pd.read_csv(classified.folder / f"local-{seed}" / "test_cases.csv") for seed in (1, 2)
    )
    both = one.merge(other, on=["site", "case"])
    assert 0 < len(both) < len(one)
    assert (both["class_x"] == both["class_y"]).all()
    assert (both["group_x"] == both["group_y"]).all()
    (first, *_) = find(classified).differences
    assert len(one) < first.units < first.cases == len(one) + len(other)


def patients(dice, site="x"):
    """The cases of a run at one site: one a patient, who are numbered from 0."""
    rows = {"site": site, "unit": list(map(str, range(len(dice)))), "dice": dice}
    return pd.DataFrame(rows)


def test_another_seeds_cases_are_others_where_patients_are_not_known():
    cases = pd.DataFrame({"site": ["x", "x"], "case": [0, 1]})
    run = SimpleNamespace(sites=["x"], seed=3, result=SimpleNamespace(cases=cases))
    assert cases_of(run)["unit"].tolist() == ["3:0", "3:1"]


def test_cases_of_a_site_that_was_held_out_do_not_count():
    cases = pd.DataFrame({"site": ["x", "y"], "case": [0, 1], "group": [5, 6]})
    run = SimpleNamespace(sites=["x"], seed=3, result=SimpleNamespace(cases=cases))
    assert cases_of(run)["site"].tolist() == ["x"]


@pytest.mark.parametrize(("metric", "better"), [("dice", 1), ("hd95", 2)])
def test_in_how_many_seeds_an_entry_is_better(metric, better):
    changes = np.array([-3.0, -1.0, 2.0])
    assert difference("a", "b", metric, changes, (1, 2, 3)).better == better


def test_every_site_is_drawn_by_itself():
    """Means of 0 and 1 are 0, 1/2 or 1; those of 1 and 0 at another site do not undo them."""
    rows = pd.concat([patients([0, 1], "x"), patients([1, 0], "y")])
    draws = drawn_scores_of({("a", 1): rows}, "dice")["a", 1].mean(0)
    assert sorted(set(draws.tolist())) == [0, 0.25, 0.5, 0.75, 1]


def test_draws_are_of_the_patients_of_all_runs():
    """A run that lacks one of two has no score in the quarter of the draws of that one alone."""
    cases = {("a", 1): patients([0.5]), ("b", 1): patients([0.5, 0.5])}
    (draws,) = drawn_scores_of(cases, "dice")["a", 1]
    assert np.isnan(draws).mean() == pytest.approx(0.25, abs=0.05)


def compared(rows, seeds):
    """Two entries with the same cases in every seed."""
    cases = {(entry, seed): rows for entry in "ab" for seed in seeds}
    one = difference("a", "b", "dice", np.zeros(len(seeds)), seeds)
    return differences.tested(one, cases, drawn_scores_of(cases, "dice"), "dice")


def test_patients_are_counted_by_site_and_once_for_all_seeds():
    """Those of two sites that have the same number are two."""
    found = compared(pd.concat([patients([0.5] * 12, site) for site in "xy"]), (1, 2))
    assert (found.units, found.cases) == (2 * 12, 2 * 12 * 2)


@pytest.mark.parametrize(("count", "few"), [(9, ("x",)), (10, ())])
def test_fewer_than_ten_patients_are_few(count, few):
    assert compared(patients([0.5] * count), (1,)).few == few


def test_patients_without_a_score_in_either_entry_make_a_site_few():
    """Of the first entry's twelve patients all have one, of the baseline's five."""
    cases = {("a", 1): patients([0.5] * 12), ("b", 1): patients([0.5] * 5 + [np.nan] * 7)}
    one = difference("a", "b", "dice", np.zeros(1), (1,))
    drawn = drawn_scores_of(cases, "dice")
    assert differences.tested(one, cases, drawn, "dice").few == ("x",)


def test_segmentation_is_tested_by_the_same_draws(segmented, monkeypatch):
    """So that p can't speak of another difference than the one beside it."""
    found = find(segmented)
    assert not any("fewer than" in note for note in found.notes)
    (one,) = found.differences
    assert (one.entry, one.baseline, one.test) == ("fedavg", "local", "paired bootstrap")
    assert found.metric == "dice"
    assert (one.p < 0.05) == (one.low > 0 or one.high < 0)
    monkeypatch.setattr(differences, "TOO_FEW", 10**6)
    again = find(segmented)
    assert set(again.differences[0].few) == {"east", "north", "south", "west"}
    assert any("WARNING: fewer than" in note for note in again.notes)
    far = find(segmented, metric="hd95")
    pairs = zip(results_of(segmented, "fedavg"), results_of(segmented, "local"), strict=True)
    closer = [own["mean"]["hd95"] < base["mean"]["hd95"] for own, base in pairs]
    assert far.differences[0].better == sum(closer)


def test_the_loss_is_shown_and_not_tested(classified):
    found = find(classified, metric="loss")
    assert {one.test for one in found.differences} == {""}
    assert any("the loss is known of a part as a whole" in note for note in found.notes)
    best = {row for row, place in sheets(found)[0].best if place == 1}
    losses = found.table[(found.sites[0], "mean")].tolist()
    assert {losses[row] for row in best} == {min(losses)}


@pytest.fixture
def copied(classified, tmp_path):
    shutil.copytree(classified.folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_other_data_are_not_paired(copied):
    file = copied / "prrfl-2" / "results.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"data_fingerprint": "another"}))
    found = find(study_in(copied))
    assert found.differences[0].seeds == (1,)
    assert any(note.startswith("WARNING: with seed 2 the entries are not") for note in found.notes)


def test_runs_of_other_patients_are_not_paired(copied):
    """Their column was added to the table later on: the same images, drawn otherwise."""
    file = copied / "prrfl-2" / "test_cases.csv"
    cases = pd.read_csv(file)
    cases.assign(group=cases["group"] // 2).to_csv(file, index=False)
    found = find(study_in(copied))
    assert found.differences[0].seeds == (1,)
    (said,) = (note for note in found.notes if note.startswith("WARNING: with seed 2"))
    assert "split and patients; such runs are not paired" in said


def changed(file, **values):
    """A file of JSON with other values."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_runs_of_an_entry_that_were_trained_otherwise_are_no_mean(copied, classified):
    """A method in a file of one's own may be another one by now."""
    file = copied / "prrfl-2" / "settings.yaml"
    file.write_text(file.read_text().replace("statistics: local", "statistics: averaged"))
    words = r"'prrfl' were not trained alike: statistics is local in .*prrfl-1 and averaged in"
    with pytest.raises(StateError, match=words):
        find(study_in(copied))
    with pytest.raises(StateError, match=r"averaged in .*prrfl-2 and local in the method"):
        compare(["prrfl"], out=copied)


def test_a_method_whose_file_is_gone_keeps_its_name(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from counterpoint.methods import Method\n"
        "METHOD = Method(name='mine', paper='none', summary='Nothing new.')\n"
    )
    study = plan(tmp_path / "s", "phantom", [parse_entry(f"{mine}:METHOD")], [1], SMALL)
    study.save()
    again = plan(tmp_path / "s", "phantom", [parse_entry(f"{mine}:METHOD")], [2], SMALL)
    assert grown(open_study(tmp_path / "s"), again).seeds == (1, 2)
    mine.unlink()
    assert [entry.label for entry in open_study(tmp_path / "s").entries.values()] == ["mine"]


@pytest.mark.parametrize("setting", ["seed=7", "holdout=west", "data.sites=[west]", "task=x"])
def test_what_entries_can_not_have_of_their_own(tmp_path, setting):
    with pytest.raises(SettingsError, match="must be the same for all entries"):
        plan(tmp_path, "phantom", [parse_entry(f"fedavg:{setting}")], [1], SMALL)


def test_a_baseline_without_results_is_said_and_replaced(copied):
    """Hours of the others are not lost."""
    for seed in (1, 2):
        (copied / f"prrfl-{seed}" / "results.json").unlink()
    found = find(study_in(copied), baseline="prrfl")
    assert found.baseline == "local"
    assert "WARNING: prrfl has no finished run, so differences are to local" in found.notes
    with pytest.raises(SettingsError, match="baseline 'nobody' is no entry"):
        find(study_in(copied), baseline="nobody")


def test_a_study_that_goes_on_has_its_own_seeds(copied):
    kept = study_asked_for(copied, None, [parse_entry("fedavg")], None, {}, None)
    assert kept.seeds == (1, 2)
    new = study_asked_for(copied / "new", "phantom", [parse_entry("fedavg")], None, SMALL, None)
    assert new.seeds == (1, 2, 3)


def test_a_site_without_a_score_is_in_no_mean(copied):
    """Means over other sites are not compared."""
    before = find(study_in(copied))
    of_three = before.scores[before.scores["site"] != "west"]
    for seed in (1, 2):
        file = copied / f"local-{seed}" / "results.json"
        values = json.loads(file.read_text())
        values["test"]["west"]["macro_f1"] = None
        changed(file, **values)
    found = find(study_in(copied))
    for entry in found.entries:
        wanted = of_three.loc[of_three["entry"] == entry, "macro_f1"].mean()
        assert found.table.loc[entry, ("mean", "mean")] == pytest.approx(wanted)
    assert any("not defined for some run at west, which all means" in n for n in found.notes)
    one = next(one for one in found.differences if one.entry == "prrfl")
    assert one.low <= one.difference <= one.high


def test_sites_that_are_all_without_a_score_somewhere_stay(copied):
    """Else nothing would be left, and hours of training without a table."""
    sites = ("east", "north", "south", "west")
    for site, (name, seed) in zip(sites, [("local", 1), ("local", 2), ("prrfl", 1), ("prrfl", 2)]):  # noqa: B905
        file = copied / f"{name}-{seed}" / "results.json"
        values = json.loads(file.read_text())
        values["test"][site]["macro_f1"] = None
        changed(file, **values)
    found = find(study_in(copied))
    assert not any("leave out" in note for note in found.notes)
    assert all(one.low <= one.high for one in found.differences)


def test_that_means_are_over_different_sites_or_none_is_said():
    table = pd.DataFrame({"site": [*"AABBCC"], "trained": True, "dice": [1, np.nan, 2, 3, 4, 5]})
    assert undefined(table, "dice") == ["A"]
    nowhere = table.assign(dice=[1, np.nan, 2, 3, np.nan, np.nan])  # at C in no run
    assert undefined(nowhere, "dice") == ["A", "C"]
    (said,) = about_undefined(nowhere, "dice")
    assert "at A, C, which all means and differences leave out" in said
    (said,) = about_undefined(table.assign(dice=[1, np.nan] * 3), "dice")
    assert said.endswith("at every site, so means and differences are over different sites")
    (said,) = about_undefined(table.assign(dice=np.nan), "dice")
    assert "Dice is not defined at any site, so there are no means" in said
    assert about_undefined(table.assign(dice=1.0), "dice") == []


def test_a_study_that_names_a_setting_twice_goes_on(copied):
    """As versions before could write it; the later one was used."""
    file = copied / "study.yaml"
    values = yaml.safe_load(file.read_text())
    values["settings"] = {"schedule.rounds": 9, **values["settings"]}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    assert open_study(copied).settings["schedule.rounds"] == 2
    asked = study_asked_for(copied, None, [parse_entry("fedavg")], None, {}, None)
    assert "fedavg" in asked.entries


def test_patients_that_are_not_known_are_not_claimed(copied):
    for file in copied.glob("*/results.json"):
        changed(file, data_notes=["site 'A': 3 of 9 images have no known patient or lesion (x)"])
    notes = " ".join(find(study_in(copied)).notes)
    assert "draws (seed 0) of test images (not all patients are known)" in notes
    assert "WARNING: it is not known whose all test images are" in notes


def test_a_table_says_what_its_data_lack(copied):
    """Each once, however many runs noted it."""
    leak = "the split leaks: 3 of 9 test images share a group with train images"
    for file in copied.glob("*/results.json"):
        changed(file, data_notes=[leak, "4 images are missing and were left out", "a split"])
    notes = find(study_in(copied)).notes
    assert notes[:2] == [f"WARNING: {leak}", "4 images are missing and were left out"]
    assert "a split" not in notes


def test_few_patients_are_few_in_any_seed():
    """Seven in one seed and seven others in the next are not fourteen."""
    cases = {
        (entry, seed): patients([0.5] * 7).assign(seed=seed, unit=[f"{seed}-{n}" for n in range(7)])
        for entry in "ab"
        for seed in (1, 2)
    }
    one = difference("a", "b", "dice", np.zeros(2), (1, 2))
    assert differences.tested(one, cases, drawn_scores_of(cases, "dice"), "dice").few == ("x",)


def test_what_is_missing_is_said(copied):
    shutil.rmtree(copied / "prrfl-2")
    (copied / "logs").mkdir(exist_ok=True)
    (copied / "logs" / "prrfl-2.log").write_text("note: x\nerror: the loss is nan\n")
    found = find(study_in(copied))
    reason = f"the loss is nan (all of it in {copied / 'logs' / 'prrfl-2.log'})"
    assert found.missing == [("prrfl, seed 2", reason)]
    assert "MISSING: prrfl, seed 2: the loss is nan" in markdown(found)
    assert any("prrfl has only seed 1" in note for note in found.notes)
    assert sheets(found)[0].rows[0][-1] == "1"
    assert "±" not in sheets(found)[0].rows[0][1]
    for run in copied.glob("*/results.json"):
        run.unlink()
    with pytest.raises(StateError, match=r"no finished run yet.*the loss is nan"):
        find(study_in(copied))


def test_budgets_that_differ_are_flagged(copied):
    file = copied / "prrfl-2" / "results.json"
    values = json.loads(file.read_text())
    cost = values["images_with_gradient"]
    file.write_text(json.dumps(values | {"images_with_gradient": 2 * cost}))
    notes = find(study_in(copied)).notes
    assert any("BUDGETS DIFFER: prrfl had 150 % of the gradient" in note for note in notes)


def test_a_folder_of_runs_is_a_study(copied, classified):
    (copied / "study.yaml").unlink()
    found = find(study_in(copied))
    assert set(found.entries) == set(classified.entries)
    assert found.table.loc["prrfl"].tolist() == find(classified).table.loc["prrfl"].tolist()
    (copied / "prrfl-1").rename(copied / "mine")
    with pytest.raises(StateError, match="does not end in its seed; call it mine-1"):
        study_in(copied)


def test_runs_of_two_tasks_are_no_study(copied, segmented):
    (copied / "study.yaml").unlink()
    shutil.copytree(segmented.folder / "fedavg-1", copied / "fedavg-1")
    with pytest.raises(StateError, match=r"can't be compared: .*segmentation"):
        find(study_in(copied))


def test_files(copied, classified):
    found = find(study_in(copied))
    write(found)
    again = pd.read_csv(copied / "table.csv")
    assert again["macro_f1"].tolist() == found.scores["macro_f1"].tolist()
    assert len(again) == 4 * 2 * 4  # entries, seeds, sites
    values = json.loads((copied / "study.json").read_text())
    assert values["table"]["prrfl"]["mean"]["mean"] == found.table.loc["prrfl"][("mean", "mean")]
    assert values["differences"][0]["seeds"] == [1, 2]
    for line in (copied / "table.md").read_text().splitlines():
        if line.startswith("|"):
            columns = line.count("|")
        elif line.startswith("-"):
            break
    assert columns == 1 + len(sheets(found)[-1].columns)


def test_latex_is_escaped_and_whole(classified):
    text = latex(find(classified))
    body = text.replace("% needs \\usepackage{booktabs}\n", "")
    assert not re.search(r"(?<!\\)[%#_]", body)  # nor a comment, nor a subscript
    assert "<" not in body.replace("$<$", "")
    plain = re.sub(r"\\[{}]", "", body)
    assert plain.count("{") == plain.count("}")
    for name in ("table", "tabular"):
        assert body.count(rf"\begin{{{name}}}") == body.count(rf"\end{{{name}}}") == 3
    for table in body.split(r"\begin{tabular}")[1:]:
        columns = len(re.match(r"\{(l r*|lr*)\}", table).group(1))
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) >= 4
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
    assert body.count(r"\textbf") >= 6  # the best of each column
    assert "over 2 seeds" in body
    assert "Protocol: grouped" in body


def test_the_command_prints_what_is_there(copied):
    code, out, _ = call("compare", "--out", copied, "--json", "--baseline", "prrfl")
    assert code == 0
    assert json.loads(out)["baseline"] == "prrfl"
    code, out, _ = call("compare", "--out", copied, "--metric", "auc")
    assert code == 0
    assert "Test AUC %" in out
    assert (copied / "table.tex").exists()
    for options, words in (
        (["--baseline", "fedbn"], "no finished run"),
        (["--metric", "dice"], "there are macro_f1"),
        (["--rounds", "3"], "settings change nothing"),
        (["fedavg", "--baseline", "fedbn"], "no finished run"),
        (["fedavg", "--metric", "dice"], "there are macro_f1"),
        (["fedavg", "--budget", "money"], "unknown budget 'money'"),
        (["fedavg", "--rounds", "9"], "was begun with"),
        (["fedavg", "--seeds", "few"], "write how many"),
        (["fedavg", "--vary", "lr"], "NAME=VALUE,VALUE"),
    ):
        code, _, err = call("compare", *options, "--out", copied)
        assert (code, words in err) == (2, True), err


def test_nothing_is_begun_where_something_is(tmp_path):
    (tmp_path / "thesis.doc").write_text("all of it")
    code, _, err = call("compare", "fedavg", "--data", "phantom", "--out", tmp_path)
    assert code == 2
    assert "is no study and is left as it is" in err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]
    code, _, err = call("compare", "fedavg", "--out", tmp_path / "new")
    assert code == 2
    assert "--data" in err
    assert not (tmp_path / "new").exists()


def test_a_file_of_settings_brings_training_and_no_composition(copied, tmp_path):
    """Else the file of one method's run would make one method of all entries."""
    file = copied / "fedavg-statistics-recalibrated-1" / "settings.yaml"
    given = {}

    @takes_settings
    def command(settings):
        given.update(settings)

    options = dict.fromkeys(inspect.signature(command).parameters)
    command(**options | {"config": file, "rounds": 7})
    assert given["schedule.model"] == "tests.running:Tiny"
    assert given["schedule.rounds"] == 7  # options win over the file
    assert given["data.train_limit"] == 16
    assert {name.partition(".")[0] for name in given} == {"data", "schedule"}
    assert not {"data.name", "data.split_seed", "seed"} & set(given)


def planned(folder: Path, seed: int = 1) -> Planned:
    return Planned(parse_entry("fedavg"), seed, folder / f"f-{seed}", folder / f"f-{seed}.log")


def doing(script: str) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True)


def test_a_run_that_is_killed_from_outside_says_so(tmp_path):
    process = doing("import os; os.kill(os.getpid(), 9)")
    run = planned(tmp_path)
    why = running.verdict(run, running.follow(process, run, lambda run, event: None))
    assert why.startswith("ended from outside by SIGKILL, often for want of memory")
    assert str(tmp_path / "f-1.log") in why


def test_an_interrupt_ends_all_runs(tmp_path, monkeypatch):
    class Interrupted(BaseException):
        pass

    processes = []

    def start(study, run, machine):
        processes.append(doing("import time; print('{\"from\": 1}', flush=True); time.sleep(60)"))
        return processes[-1]

    ends = []

    def tell(run, event):
        ends.extend(event.get("ended", []))
        if len(processes) == 2:
            raise Interrupted

    monkeypatch.setattr(running, "start", start)
    runs = [planned(tmp_path, seed) for seed in (1, 2, 3)]
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        running.run_missing(None, runs, jobs=2, machine=None, tell=tell)
    assert time.monotonic() - begun < 30
    assert len(processes) == 2  # the third was not begun
    assert ends == []  # they did not fail, they were stopped
    assert [process.wait(timeout=10) for process in processes] == [-signal.SIGKILL] * 2


def test_killed_in_the_middle_then_asked_again(tmp_path):
    """The runs end with their study; the same words go on, and a failure stops no other run."""
    out = tmp_path / "study"
    broken = "fedavg:model=tests.running:Breaks,model_options={at: 3}"
    small = ["--rounds", 4, "--local-epochs", 1, "--image-size", 32, "--train-limit", 16]
    small += ["--batch-size", 8, "--model", "tests.running:Tiny", "--seeds", "5,"]
    small += ["--jobs", 1, "--workers", 1]
    words = ["compare", "local", broken, "--data", "phantom", *small, "--out", out]
    process = start(*words)
    give_up = time.monotonic() + 120
    while not (out / "local-5" / "state" / "round-00001.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    code, out_text, err = call(*words)
    assert code == 1, err
    assert "Test macro-F1" in out_text
    found = find(study_in(out))
    ((run, why),) = found.missing
    assert run == f"{broken}, seed 5"
    assert "site 'east'" in why
    assert "site 'east'" in err
    assert found.entries == ["local"]
    alone = made(tmp_path / "alone", ["local"], [5], dict(SMALL, rounds=4, local_epochs=1, lr=0.01))
    for file in ("scores.csv", "test_cases.csv"):
        assert (out / "local-5" / file).read_bytes() == (
            alone.folder / "local-5" / file
        ).read_bytes()


def test_in_python(tmp_path):
    with pytest.raises(SettingsError, match=r"entry 'fedavg'.*rounds"):
        compare(["fedavg"], "phantom", out=tmp_path / "s", rounds=0)
    assert not (tmp_path / "s").exists()
    assert os.listdir(tmp_path) == []


def test_a_second_seed_on_the_same_patients_makes_nothing_surer():
    rng = np.random.default_rng(1)
    answers = {"a": patients(rng.random(12)), "b": patients(np.zeros(12))}

    def found(seeds):
        cases = {(entry, seed): answers[entry] for entry in "ab" for seed in seeds}
        one = difference("a", "b", "dice", np.full(len(seeds), 0.5), seeds)
        return differences.tested(one, cases, drawn_scores_of(cases, "dice"), "dice")

    once, twice = found((1,)), found((1, 2))
    assert (twice.low, twice.high, twice.p) == pytest.approx((once.low, once.high, once.p))
    assert 0 < once.low < once.high  # the entry minus the baseline


def test_a_site_that_did_not_train_is_shown_and_in_no_mean(copied):
    for file in copied.glob("*/results.json"):
        changed(file, holdout="west")
    found = find(study_in(copied))
    assert (found.sites[-1], found.held_out) == ("west", ("west",))
    assert "west (did not train)" in sheets(found)[0].columns
    three = found.scores[found.scores["site"] != "west"]
    for entry in found.entries:
        wanted = three.loc[three["entry"] == entry, "macro_f1"].mean()
        assert found.table.loc[entry, ("mean", "mean")] == pytest.approx(wanted)
    one = found.differences[0]
    cases = pd.concat(pd.read_csv(copied / f"{one.entry}-{s}" / "test_cases.csv") for s in (1, 2))
    assert one.cases == (cases["site"] != "west").sum()


def test_cases_of_a_site_that_is_left_out_do_not_count():
    cases = pd.DataFrame({"site": ["x", "y"], "case": [0, 1], "group": [5, 6]})
    run = SimpleNamespace(sites=["x", "y"], seed=3, result=SimpleNamespace(cases=cases))
    assert cases_of(run, ["x"])["site"].tolist() == ["y"]


def test_the_table_of_differences_has_each_number_in_its_column(classified):
    found = find(classified, baseline="local")
    one = replace(
        found.differences[0],
        difference=0.012,
        low=-0.034,
        high=0.056,
        p=0.011,
        corrected=0.033,
        better=1,
    )
    sheet = differences_sheet(replace(found, differences=[one]))
    assert sheet.title == "Difference to local in mean macro-F1, in points, paired bootstrap"
    assert ", in px," in differences_sheet(replace(found, metric="hd95")).title
    (row,) = sheet.rows
    assert dict(zip(sheet.columns, row, strict=True)) == {
        "method": one.entry,
        "difference": "+1.2",
        "95 % interval": "-3.4 to +5.6",
        "p": "0.011",
        "p (Holm)": "0.033",
        "seeds better": "1 of 2",
    }


@pytest.mark.parametrize(("given", "wanted"), [(2, [1, 2]), ([4], [4])])
def test_a_number_of_seeds_counts_from_one(given, wanted, tmp_path, monkeypatch):
    class EnoughError(Exception):
        pass

    asked = []

    def look(out, data, entries, seeds, settings, budget):
        asked.extend(seeds)
        raise EnoughError

    monkeypatch.setattr(sys.modules["counterpoint.study.compare"], "study_asked_for", look)
    with pytest.raises(EnoughError):
        compare(["fedavg"], "phantom", out=tmp_path / "s", seeds=given)
    assert asked == wanted


def test_splits_that_differ_are_said(classified, segmented):
    for study in (classified, segmented):
        assert any("over 2 seeds, a split drawn anew for each seed" in n for n in find(study).notes)


def test_settings_that_differ_are_said():
    schedules = {"a": {"lr": 0.1, "rounds": 2}, "b": {"lr": 0.1, "rounds": 3}}
    schedules |= {"c": {"lr": 0.2, "rounds": 2}}
    runs = [SimpleNamespace(label=n, settings={"schedule": s}) for n, s in schedules.items()]
    assert about_settings(runs) == ["lr differs: 0.1 (a, b); 0.2 (c)"]
    assert about_settings(runs[:2]) == []
