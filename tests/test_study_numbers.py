"""The statistics and budgets of a study, against hands and other libraries."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from counterpoint import resampling
from counterpoint.errors import SettingsError
from counterpoint.local import Plain
from counterpoint.methods import find_method, methods
from counterpoint.resampling import drawn_scores, weighted_mean
from counterpoint.study.budget import common_schedule, fitting_epochs, gradients_an_image
from counterpoint.study.entry import Entry, folder_name, parse_entry, parse_vary, varied
from counterpoint.study.plan import grown, open_study, over, plan
from counterpoint.study.scores import by_seed, over_seeds


def test_holm_by_hand():
    # sorted .005 .01 .03 .04; times 4, 3, 2, 1: .02 .03 .06 .04; none below one before it
    assert resampling.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert resampling.holm([0.9, 0.8]) == [1, 1]
    assert resampling.holm([]) == []
    corrected = resampling.holm([0.01, math.nan, 0.04])  # two were tested
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])


@pytest.fixture
def answers():
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet([1, 1, 1], 60).round(2)  # with ties
    probabilities /= probabilities.sum(1, keepdims=True)
    labels = rng.choice(3, 60, p=[0.7, 0.25, 0.05])
    weights = rng.integers(0, 4, (20, 60)).astype(float)
    return labels, probabilities, weights


def test_weighted_macro_f1_is_that_of_repeated_cases(answers):
    labels, probabilities, weights = answers
    predicted = probabilities.argmax(1)
    found = resampling.weighted_macro_f1(labels, predicted)(weights)
    for score, times in zip(found, weights.astype(int), strict=True):
        own, guess = np.repeat(labels, times), np.repeat(predicted, times)
        assert score == pytest.approx(metrics.f1_score(own, guess, average="macro"))


def test_macro_f1_leaves_out_classes_that_nobody_has_or_names():
    score = resampling.weighted_macro_f1(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
    without = np.array([[1.0, 1.0, 1.0, 0.0]])  # no case of class 2 is drawn
    assert score(without) == pytest.approx(metrics.f1_score([0, 0, 1], [0, 1, 1], average="macro"))


def test_weighted_auc_is_that_of_repeated_cases(answers):
    labels, probabilities, weights = answers
    found = resampling.weighted_auc(labels, probabilities)(weights)
    for score, times in zip(found, weights.astype(int), strict=True):
        own, guess = np.repeat(labels, times), np.repeat(probabilities, times, axis=0)
        areas = [metrics.roc_auc_score(own == c, guess[:, c]) for c in range(3) if (own == c).any()]
        assert score == pytest.approx(np.mean(areas))


def test_weighted_auc_of_a_single_class_is_undefined():
    score = resampling.weighted_auc(np.array([0, 0]), np.array([[0.5, 0.5], [0.6, 0.4]]))
    assert np.isnan(score(np.ones((1, 2)))).all()


def test_bootstrap_interval_has_the_width_that_is_known():
    """The mean of n values has the standard deviation s / sqrt(n), and 1.96 of it each side."""
    values = np.random.default_rng(5).normal(0.3, 1, 400)
    means = drawn_scores(weighted_mean(values), np.arange(400), 4000, seed=1)
    low, high = np.percentile(means, [2.5, 97.5])
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_more_images_of_the_same_patients_tell_nothing_more():
    values = np.random.default_rng(6).normal(size=50)
    once = drawn_scores(weighted_mean(values), np.arange(50), 500, seed=2)
    units = np.repeat(np.arange(50), 9)
    often = drawn_scores(weighted_mean(np.repeat(values, 9)), units, 500, seed=2)
    assert often == pytest.approx(once)


def test_patients_without_a_case_are_drawn_too():
    """Draws of two models are the same patients, though one was not tested on all of them."""
    everyone = np.array(["c", "a", "b", "d"])
    some = drawn_scores(weighted_mean([0.0, 1.0]), ["d", "a"], 300, 5, among=everyone)
    values = [math.nan, 1.0, math.nan, 0.0]
    every = drawn_scores(weighted_mean(values), everyone, 300, 5)
    assert np.isnan(some).any()
    assert np.array_equal(some, every, equal_nan=True)


def test_a_difference_that_every_case_has_is_certain():
    base = np.random.default_rng(7).normal(size=30)
    own, other = (
        drawn_scores(weighted_mean(values), np.arange(30), 999, seed=3)
        for values in (base + 0.1, base)
    )
    assert own - other == pytest.approx(np.full(999, 0.1))
    assert resampling.two_sided(own - other) == pytest.approx(2 / 1000)
    assert resampling.two_sided(other - other) == 1


def test_p_is_fair_where_there_is_nothing_to_find():
    """Of tests of equal methods, about a twentieth is below 0.05."""
    rng = np.random.default_rng(8)
    found = []
    for _ in range(400):
        mean = weighted_mean(rng.normal(size=60))
        found.append(resampling.two_sided(drawn_scores(mean, np.arange(60), 400, seed=4)))
    assert 0.02 < np.mean(np.array(found) < 0.05) < 0.09


def test_table_by_hand():
    scores = pd.DataFrame(
        [
            ("a", 1, "A", True, 0.5),
            ("a", 1, "B", True, 0.7),
            ("a", 1, "H", False, 0.1),
            ("a", 2, "A", True, 0.9),
            ("a", 2, "B", True, 0.7),
            ("a", 2, "H", False, 0.3),
        ],
        columns=["entry", "seed", "site", "trained", "dice"],
    )
    table = over_seeds(by_seed(scores, "dice")).loc["a"]
    assert table[("A", "mean")] == pytest.approx(0.7)
    assert table[("A", "std")] == pytest.approx(math.sqrt(0.08))  # divided by 2 - 1
    assert table[("mean", "mean")] == pytest.approx(0.7)  # of 0.6 and 0.8, without H
    assert table[("worst site", "mean")] == pytest.approx(0.6)  # of 0.5 and 0.7
    assert table[("H", "mean")] == pytest.approx(0.2)
    far = by_seed(scores.rename(columns={"dice": "hd95"}), "hd95")
    assert far["worst site"].tolist() == [0.7, 0.9]  # a distance is worst where it is largest


@pytest.mark.parametrize("name", methods())
def test_epochs_fit_the_budget(name):
    fit = fitting_epochs(find_method(name), 4)
    assert fit.gradients == 4
    assert fit.gradients == gradients_an_image(find_method(name), fit.epochs)


def test_two_gradients_twice_over():
    both = replace(find_method("prrfl"), perturbation=0.05)
    assert gradients_an_image(both, 1) == 4
    assert fitting_epochs(both, 2).epochs == 1  # one local epoch it has to be


def test_a_local_update_that_can_not_be_counted_is_named():
    class Odd(Plain):
        def train(self, training):
            training.models["model"].surely_not_there()
            yield ""

    with pytest.raises(SettingsError, match=r"odd can't be counted.*--budget epochs"):
        gradients_an_image(replace(find_method("fedavg"), name="odd", local=Odd()), 1)


def test_what_a_method_is_made_of_is_not_made_common():
    common = common_schedule("segmentation")
    assert common["schedule.model"] == "unet"
    assert not {"schedule.loss", "schedule.weighting", "schedule.finetune_epochs"} & set(common)


def test_entries():
    entry = parse_entry("fedavg:statistics=recalibrated, lr=0.1,model=a.b:Net")
    assert entry.settings == {"statistics": "recalibrated", "lr": 0.1, "model": "a.b:Net"}
    assert parse_entry("fedavg").label == "fedavg"
    with pytest.raises(SettingsError, match="did you mean 'prrfl'"):
        parse_entry("prfl:lr=1")
    with pytest.raises(SettingsError, match="NAME=VALUE"):
        parse_vary("lr")
    grid = dict([parse_vary("lr=0.1,0.2"), parse_vary("statistics=local,batch")])
    labels = [one.label for one in varied([Entry("fedavg", {"momentum": 0})], grid)]
    assert labels[1] == "fedavg:momentum=0,lr=0.1,statistics=batch"
    assert len(set(labels)) == 4
    for own in ({"lr": 9}, {"schedule.lr": 9}):  # would be lost
        with pytest.raises(SettingsError, match=r"schedule\.lr is varied for all entries"):
            varied([Entry("fedavg", own)], grid)


def test_a_method_of_a_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom counterpoint.methods.fedavg import METHOD as F\n"
        "METHOD = replace(F, name='my-avg')\n"
    )
    entry = parse_entry(f"{file}:METHOD:lr=0.5")
    assert (entry.label, entry.settings) == ("my-avg:lr=0.5", {"lr": 0.5})


def test_folder_names_are_safe_and_differ():
    label = "my.py:METHOD:model_options={a: 'ä/b'}"
    name = folder_name(label, [])
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert folder_name(label, [name.upper()]) == f"{name}-2"
    assert len(folder_name("x" * 500, [])) <= 80


def test_later_settings_win_whatever_they_are_called():
    settings = over(over({"schedule.lr": 1.0}, {"lr": 2.0}), {"schedule.lr": 3.0})
    assert settings == {"schedule.lr": 3.0}


@pytest.fixture
def begun(tmp_path):
    entries = [parse_entry("prrfl"), parse_entry("fedavg:lr=0.5")]
    study = plan(tmp_path / "s", "phantom", entries, [1, 2], {"rounds": 3, "local_epochs": 4})
    study.folder.mkdir()
    study.save()
    return open_study(study.folder)


def test_a_study_is_read_as_it_was_written(begun):
    assert [run.folder.name for run in begun.runs()] == [
        "prrfl-1",
        "fedavg-lr-0.5-1",
        "prrfl-2",
        "fedavg-lr-0.5-2",
    ]
    settings = {run.folder.name: begun.settings_of(run.entry, run.seed)[0] for run in begun.runs()}
    prrfl, fedavg = (settings[name].method.schedule for name in ("prrfl-2", "fedavg-lr-0.5-2"))
    assert (prrfl.rounds, prrfl.local_epochs, fedavg.local_epochs) == (3, 2, 4)
    assert (prrfl.lr, fedavg.lr) == (0.01, 0.5)
    assert prrfl.select_last == 1  # the same for all, not as published
    assert settings["prrfl-2"].seed == 2
    assert begun.fits() == [
        "prrfl takes 2 gradients an image, so it trains 2 local epochs a round instead of 4"
    ]


def test_published_settings_are_left_where_budgets_are_epochs(tmp_path):
    study = plan(
        tmp_path, "phantom", [parse_entry("prrfl"), parse_entry("harmofl")], [1], {}, "epochs"
    )
    prrfl, harmofl = (
        study.settings_of(one, 1)[0].method.schedule for one in study.entries.values()
    )
    assert (prrfl.rounds, prrfl.local_epochs, prrfl.select_last) == (50, 5, 0.2)
    assert (harmofl.rounds, harmofl.model) == (100, "densenet121")


def test_local_epochs_of_an_entry_are_its_own(tmp_path):
    entries = varied([Entry("harmofl")], {"local_epochs": [1, 3]})
    study = plan(tmp_path, "phantom", entries, [1], {"local_epochs": 4})
    epochs = [study.settings_of(one, 1)[0].method.schedule.local_epochs for one in entries]
    assert epochs == [1, 3]


def test_other_settings_are_refused_by_name(begun):
    def asked(settings, data="phantom", **others):
        return plan(begun.folder, data, [parse_entry("local")], [1, 7], settings, **others)

    same = {"schedule.rounds": 3, "schedule.local_epochs": 4}
    study = grown(begun, asked(same))  # the same in other words, an entry and a seed more
    assert list(study.entries) == ["prrfl", "fedavg-lr-0.5", "local"]
    assert study.seeds == (1, 2, 7)
    for settings, words in (
        ({"rounds": 3, "local_epochs": 6}, "schedule.local_epochs"),
        ({"rounds": 5, "local_epochs": 4}, "schedule.rounds 3, and is asked for with 5"),
        (same | {"protocol": "grouped"}, "data.protocol"),
        (same | {"image_size": 32}, "image_size 128"),
    ):
        with pytest.raises(SettingsError, match=words):
            grown(begun, asked(settings))
    with pytest.raises(SettingsError, match="budget gradients"):
        grown(begun, asked(same, budget="epochs"))


def test_plans_that_can_not_be_are_refused_in_words(tmp_path):
    for entries, settings, words in (
        (["fedavg:roundz=3"], {}, "entry 'fedavg:roundz=3': unknown setting 'roundz'"),
        (["scaffold"], {"optimizer": "adam"}, "entry 'scaffold'.*--optimizer sgd"),
        (["fedavg"], {"seed": 3}, "several seeds"),
        ([], {}, "at least one method"),
    ):
        with pytest.raises(SettingsError, match=words):
            plan(tmp_path, "phantom", [parse_entry(one) for one in entries], [1], settings)
    with pytest.raises(SettingsError, match="two entries are called 'x'"):
        plan(tmp_path, "phantom", [Entry("fedavg", name="x"), Entry("local", name="x")], [1], {})
