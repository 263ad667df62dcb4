"""The papers' figures: the numbers that they show, and the command that draws them."""

import json
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg

from counterpoint.errors import SettingsError
from counterpoint.figures import FIGURES, ablation, convergence, retrogress, sites, style, sweep
from counterpoint.figures.save import drawn
from counterpoint.figures.spectra import Spectrum, draw_spectra
from counterpoint.runs import gather, predicting
from counterpoint.settings import as_dict, make_settings
from tests.running import call

# A run of two rounds of two epochs at two sites, without training: what is drawn is known.
ROUNDS, EPOCHS = 2, 2


def made(
    folder: Path, method: str = "fedavg", seed: int = 1, score: float = 0.5, **settings: Any
) -> Path:
    """Leave a finished run's folder whose scores follow from ``score``."""
    path = folder / f"{method}-{'-'.join(map(str, settings.values()))}-{seed}"
    options = {"rounds": ROUNDS, "local_epochs": EPOCHS, "seed": seed} | settings
    chosen = make_settings(method, "phantom", options)
    schedule = chosen.method.schedule
    rows: list[dict[str, object]] = []
    for number, site in enumerate(("A", "Überall $ 2")):
        for round in range(schedule.rounds + 1):
            at = {"round": round, "site": site, "model": chosen.method.local.predicts}
            at |= {"split": "validation", "loss": 1.0 - score, "macro_f1": score - 0.1 * number}
            rows.append(at | {"moment": "merged" if round else "start", "epoch": 0})
            for epoch in range(1, schedule.local_epochs + 1) if round else []:
                rows.append(at | {"moment": "epoch", "epoch": epoch, "macro_f1": score + 0.1})
        rows.append(rows[-1] | {"split": "test", "moment": "merged", "epoch": 0})
    path.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(path / "scores.csv", index=False)
    sent = [
        {"round": r, "site": s, "direction": d, "name": "w", "shape": "5", "bytes": 20}
        for r in range(1, schedule.rounds + 1)
        for s in ("A", "Überall $ 2")
        for d in ("up", "down")
    ]
    pd.DataFrame(sent).to_csv(path / "payloads.csv", index=False)
    test = {"A": score, "Überall $ 2": score - 0.2}
    results = {
        "method": method,
        "seed": seed,
        "task": "classification",
        "score": "macro_f1",
        "metrics": ["macro_f1"],
        "test": {site: {"macro_f1": value, "loss": 1 - value} for site, value in test.items()},
        "mean": {"macro_f1": score - 0.1, "loss": 1.1 - score},
        "holdout": None,
        "rounds": schedule.rounds,
        "images_with_gradient": 4000,
        "data": "phantom",
        "statistics": "averaged",
        "data_fingerprint": f"split {seed}",
    }
    (path / "results.json").write_text(json.dumps(results))
    (path / "settings.yaml").write_text(yaml.safe_dump(as_dict(chosen)))
    return path


def test_runs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    made(tmp_path, "fedavg", seed=1)
    made(tmp_path, "fedavg", seed=2)
    made(tmp_path, "harmofl", perturbation=0.05)
    made(tmp_path, "harmofl", perturbation=0.5)
    names = {run.name: run.seed for run in gather([tmp_path])}
    assert names == {"fedavg": 2, "harmofl, perturbation 0.05": 1, "harmofl, perturbation 0.5": 1}


def test_a_run_counts_once(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    assert len(gather([first, tmp_path / "a"])) == 1
    made(tmp_path / "b")
    with pytest.raises(SettingsError, match="same settings and seed"):
        gather([tmp_path / "a", tmp_path / "b"])


def test_a_run_that_is_reached_by_a_link_counts_once(tmp_path: Path) -> None:
    path = made(tmp_path)
    (tmp_path / "link").symlink_to(path)
    assert len(gather([path, tmp_path / "link"])) == 1


def test_a_run_on_another_number_of_processes_is_no_other_run(tmp_path: Path) -> None:
    one, other = (made(tmp_path, workers=count) for count in (1, 2))
    with pytest.raises(SettingsError, match="same settings and seed"):
        gather([one, other])


@pytest.mark.parametrize("setting", ["split_seed", "workers"])
def test_seeds_may_have_other_splits_and_processes(setting: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        made(tmp_path, seed=seed, **{setting: seed})
    assert {run.name for run in gather([tmp_path])} == {"fedavg"}


def test_runs_on_different_data_are_not_drawn_together(tmp_path: Path) -> None:
    made(tmp_path, task="segmentation")
    made(tmp_path, "local")
    with pytest.raises(SettingsError, match=r"data\.task.*--where"):
        gather([tmp_path])
    assert len(gather([tmp_path], {"data.task": "segmentation"})) == 1


def test_runs_without_a_site_are_not_drawn_with_those_that_have_it(tmp_path: Path) -> None:
    paths = [made(tmp_path), made(tmp_path, holdout="north")]
    with pytest.raises(SettingsError, match=r"data\.holdout \(None, north\)"):
        gather(paths)


@pytest.mark.parametrize("other", [{"model": "deputy"}, {"moment": "finetuned"}])
def test_scores_of_another_model_and_after_fine_tuning_are_not_drawn(
    other: dict[str, str], tmp_path: Path
) -> None:
    file = made(tmp_path) / "scores.csv"
    (run,) = gather([tmp_path])
    wanted, scores = predicting(run), pd.read_csv(file)
    more = scores[scores["split"] == "validation"].assign(**other)
    pd.concat([more, scores]).to_csv(file, index=False)
    (run,) = gather([tmp_path])
    found = [one.reset_index(drop=True) for one in (predicting(run), wanted)]
    pd.testing.assert_frame_equal(*found)


def test_retrogress_shows_the_fall_at_a_merge_and_the_spread_over_seeds(tmp_path: Path) -> None:
    for seed, score in ((1, 0.5), (2, 0.7)):
        made(tmp_path, seed=seed, score=score)
    table = retrogress.numbers(gather([tmp_path]))
    line = table[table["site"] == "A"]
    assert line["communications"].tolist() == [0, 0.5, 0.95, 1, 1.5, 1.95, 2]
    np.testing.assert_allclose(line["mean"], [0.6, 0.7, 0.7, 0.6, 0.7, 0.7, 0.6])
    np.testing.assert_allclose(line["spread"], 0.2 / 2**0.5)
    assert set(line["runs"]) == {2}


def test_lines_run_to_the_right_though_a_site_was_absent_in_a_seeds_first_round(
    tmp_path: Path,
) -> None:
    made(tmp_path, seed=1)
    first = made(tmp_path, seed=2)
    scores = pd.read_csv(first / "scores.csv")
    there = scores[(scores["site"] != "A") | (scores["round"] != 1) | (scores["split"] == "test")]
    there.to_csv(first / "scores.csv", index=False)
    one = tmp_path / "fedavg--1"
    scores = pd.read_csv(one / "scores.csv")
    there = scores[(scores["site"] != "A") | (scores["round"] != 0) | (scores["split"] == "test")]
    there.to_csv(one / "scores.csv", index=False)
    table = retrogress.numbers(gather([tmp_path]))
    line = table[table["site"] == "A"]
    assert line["communications"].tolist() == [0, 0.5, 0.95, 1, 1.5, 1.95, 2]
    assert line["runs"].tolist() == [1, 1, 1, 1, 2, 2, 2]
    words = [text.get_text() for text in retrogress.draw(table).legends[0].get_texts()]
    assert "means: of the runs that were there" in words


def test_a_sweeps_line_runs_to_the_right_whatever_order_the_runs_came_in() -> None:
    rows = [
        ("macro_f1", "data.train_limit", x, "", "mean over sites", 0.1 * n, 0.0, 1)
        for n, x in enumerate([10, 2, 3, "smallest"])
    ]
    columns = ["metric", "setting", "x", "line", "of", "mean", "spread", "runs"]
    figure = sweep.draw(pd.DataFrame(rows, columns=columns))
    (container,) = figure.axes[0].containers
    assert list(container[0].get_xdata()) == [0, 1, 2, 3]  # type: ignore[index]
    heights = np.asarray(container[0].get_ydata(), dtype=float)  # type: ignore[index]
    np.testing.assert_allclose(heights, [10, 20, 0, 30])


@pytest.mark.parametrize("names", ["site {}", "St. Elisabeth University Hospital {}, Department"])
def test_a_legend_of_many_sites_lies_below_the_panel(names: str) -> None:
    rows = [
        ("fedavg", "macro_f1", "site", names.format(n), n / 40, np.nan, 1) for n in range(40)
    ] + [("fedavg", "macro_f1", "mean", "mean over sites", 0.5, np.nan, 1)]
    columns = ["name", "metric", "of", "site", "mean", "spread", "runs"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that there is no room for what is drawn
        figure = sites.draw(pd.DataFrame(rows, columns=columns))
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    (axes,) = figure.axes
    assert axes.get_window_extent().height > 20
    assert figure.legends[0].get_window_extent().y1 <= axes.get_window_extent().y0


def test_of_many_sites_retrogress_draws_the_mean_and_the_middle(tmp_path: Path) -> None:
    made(tmp_path)
    table = retrogress.numbers(gather([tmp_path]))
    one = table[table["site"] == "A"]
    many = pd.concat(one.assign(site=f"s{n}", mean=n / 100) for n in range(21))
    figure = retrogress.draw(many)
    words = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert words == ["mean of 21 sites; band: the middle 80 %", "marks: just after a merge"]
    (line,) = [x for x in figure.axes[0].lines if len(x.get_xdata()) == len(one)]
    np.testing.assert_allclose(line.get_ydata(), 10)  # percent
    (band,) = figure.axes[0].collections
    low, high = (f(band.get_paths()[0].vertices[:, 1]) for f in (np.min, np.max))
    np.testing.assert_allclose([low, high], [2, 18])


def test_lines_of_many_sites_differ_by_more_than_colour(tmp_path: Path) -> None:
    made(tmp_path)
    table = retrogress.numbers(gather([tmp_path]))
    one = table[table["site"] == "A"]
    figure = retrogress.draw(pd.concat(one.assign(site=f"s{n}") for n in range(20)))
    handles = figure.legends[0].legend_handles[:20]
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 20
    drawn = [x for x in figure.axes[0].lines if x.get_marker() not in ("", "None")]
    assert len({(x.get_color(), x.get_marker()) for x in drawn}) == 20
    _, (axes,) = style.panels(1, 1)
    lines = [Spectrum(str(n), n, np.arange(3) / 4, np.arange(3)) for n in range(20)]
    draw_spectra(axes, lines)
    lined, marked = axes.lines[::2], axes.lines[1::2]
    assert lined[0].get_color() == lined[8].get_color()
    assert lined[0].get_linestyle() != lined[8].get_linestyle()
    assert len({(x.get_color(), x.get_marker()) for x in marked}) == 20


@pytest.mark.parametrize(
    ("against", "cost"),
    [("rounds", [0, 1, 2]), ("gradients", [0, 2000, 4000]), ("bytes", [0, 40, 80])],
)
def test_convergence_knows_what_a_round_costs(
    against: str, cost: list[float], tmp_path: Path
) -> None:
    made(tmp_path)
    table = convergence.numbers(gather([tmp_path]), against=against)
    score = table[table["metric"] == "macro_f1"]
    assert score["cost"].tolist() == cost
    np.testing.assert_allclose(score["mean"], 0.45)  # 0.5 and 0.4
    np.testing.assert_allclose(table[table["metric"] == "loss"]["mean"], 0.5)


def test_finetuning_costs_gradients_that_no_round_did(tmp_path: Path) -> None:
    made(tmp_path, finetune_epochs=4)  # as many as the rounds have together
    table = convergence.numbers(gather([tmp_path]), against="gradients")
    assert table["cost"].max() == 2000


def test_sweep_takes_mean_and_worst_site_over_the_seeds(tmp_path: Path) -> None:
    for alpha, score in ((0.005, 0.5), (0.05, 0.9), (0.5, 0.3)):
        for seed in (1, 2):
            made(tmp_path, "harmofl", seed, score + 0.02 * seed, perturbation=alpha)
    table = sweep.numbers(gather([tmp_path]))
    assert set(table["setting"]) == {"perturbation"}
    worst = table[table["of"] == "worst site"]
    assert worst["x"].tolist() == [0.005, 0.05, 0.5]
    np.testing.assert_allclose(worst["mean"], [0.33, 0.73, 0.13])
    np.testing.assert_allclose(worst["spread"], 0.02 / 2**0.5)
    mean = table[table["of"] == "mean over sites"]
    np.testing.assert_allclose(mean["mean"], [0.43, 0.83, 0.23])
    loss = sweep.numbers(gather([tmp_path]), metric="loss")
    largest = loss[loss["of"] == "worst site"]["mean"]
    np.testing.assert_allclose(largest, [0.67, 0.27, 0.87])


def test_sweep_over_two_settings_has_a_line_for_each_value_of_one(tmp_path: Path) -> None:
    for alpha in (0, 0.05, 0.5):
        for epochs in (1, 5):
            made(tmp_path, "harmofl", perturbation=alpha, local_epochs=epochs)
    table = sweep.numbers(gather([tmp_path]))
    assert set(table["setting"]) == {"perturbation"}
    assert set(table["line"]) == {"local epochs 1", "local epochs 5"}
    turned = sweep.numbers(gather([tmp_path]), x="local_epochs")
    assert set(turned["setting"]) == {"schedule.local_epochs"}
    assert turned["line"].nunique() == 3


def test_what_a_budget_changes_with_the_setting_is_not_taken_for_a_second_one(
    tmp_path: Path,
) -> None:
    for alpha, epochs in ((0, 4), (0.05, 2), (0.5, 2)):
        made(tmp_path, "harmofl", perturbation=alpha, local_epochs=epochs)
    table = sweep.numbers(gather([tmp_path]))
    assert set(table["setting"]) == {"perturbation"}
    assert set(table["line"]) == {""}


def test_sweep_over_the_threshold_of_pfa_leaves_out_methods_without_it(tmp_path: Path) -> None:
    made(tmp_path, "fedavg")
    for start in (0.5, 0.7):
        made(tmp_path, "prrfl", start=start)
    table = sweep.numbers(gather([tmp_path]))
    assert set(table["setting"]) == {"aggregation.start"}
    assert set(table["line"]) == {"prrfl"}


@pytest.mark.parametrize(
    ("settings", "options", "says"),
    [
        ([{}], {}, "nothing to sweep over"),
        ([{"lr": 0.1}, {"lr": 0.2}], {"x": "perturbation"}, "--vary perturbation="),
        ([{"lr": 0.1}, {"lr": 0.2}], {"x": "pertubation"}, "did you mean 'perturbation'"),
        (
            [{"lr": a, "momentum": b, "batch_size": c} for a, b, c in np.ndindex(2, 2, 2)],
            {},
            "--where",
        ),
        ([{}], {"metric": "dice"}, "macro_f1, loss"),
    ],
)
def test_sweeps_that_are_none_say_what_to_do(
    settings: list[dict[str, Any]], options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    for one in settings:
        shifted = {name: value + 0.1 if name == "lr" else value for name, value in one.items()}
        made(
            tmp_path,
            **{
                n: v * 0.5 if n == "momentum" else v + 2 * (n == "batch_size")
                for n, v in shifted.items()
            },
        )
    with pytest.raises(SettingsError, match=re.escape(says)):
        sweep.numbers(gather([tmp_path]), **options)


def test_ablation_has_a_row_for_each_set_of_parts(tmp_path: Path) -> None:
    cases = {"amplitude": 0.05, "none": 0.0}
    for harmonise in cases:
        for alpha in (0.0, 0.05):
            made(tmp_path, "harmofl", score=0.5 + alpha, harmonise=harmonise, perturbation=alpha)
    table = ablation.numbers(gather([tmp_path]))
    assert list(dict.fromkeys(table["name"])) == [
        "none of the parts",
        "amplitude",
        "perturbation",
        "amplitude + perturbation",
    ]
    mean = table[(table["of"] == "mean") & (table["name"] == "perturbation")]
    assert mean["mean"].item() == pytest.approx(0.45)


def test_ablation_of_prrfl_says_what_else_differs(tmp_path: Path) -> None:
    made(tmp_path, "prrfl")
    made(tmp_path, "prrfl", local="plain")
    made(tmp_path, "prrfl", aggregation="except-normalisation", lr=0.5)
    said: list[str] = []
    table = ablation.numbers(gather([tmp_path]), note=said.append)
    assert set(table["name"]) == {"DET", "PFA", "PFA + DET"}
    assert len(said) == 1
    assert "schedule.lr" in said[0]
    assert "local" not in said[0].replace("local_epochs", "")


def test_ablation_of_one_composition_says_what_to_run(tmp_path: Path) -> None:
    made(tmp_path, "harmofl")
    with pytest.raises(SettingsError, match="--perturbation 0"):
        ablation.numbers(gather([tmp_path]))


def test_a_site_that_did_not_train_is_no_part_of_mean_and_worst(tmp_path: Path) -> None:
    for alpha in (0.1, 0.2):
        path = made(tmp_path, "harmofl", perturbation=alpha)
        values = json.loads((path / "results.json").read_text())
        values["holdout"] = "Überall $ 2"
        (path / "results.json").write_text(json.dumps(values))
    table = sweep.numbers(gather([tmp_path]))
    np.testing.assert_allclose(table["mean"], 0.5)
    kinds = sites.numbers(gather([tmp_path])).groupby("site")["of"].first()
    assert kinds["Überall $ 2"] == "held out"


def undefined_at(path: Path, *lost: str) -> None:
    """Take a score away from a run at some sites."""
    values = json.loads((path / "results.json").read_text())
    for site in lost:
        values["test"][site]["macro_f1"] = None
    left = [of["macro_f1"] for of in values["test"].values() if of["macro_f1"] is not None]
    values["mean"]["macro_f1"] = sum(left) / len(left) if left else None
    (path / "results.json").write_text(json.dumps(values))


def test_means_of_all_runs_are_over_the_same_sites(tmp_path: Path) -> None:
    """A site at which one run has no score is in no run's mean, and the figure says so."""
    one, other = (made(tmp_path, "harmofl", perturbation=alpha) for alpha in (0.1, 0.2))
    undefined_at(one, "A")
    runs = gather([tmp_path])
    rows = sites.numbers(runs)
    mean = rows[rows["of"] == "mean"]
    assert set(mean["site"]) == {"mean over sites without A"}
    np.testing.assert_allclose(mean["mean"], 0.3)  # of the other site, in both runs
    words = [text.get_text() for text in sites.draw(rows).legends[0].get_texts()]
    assert "mean over sites without A" in words
    table = sweep.numbers(runs)
    assert set(table["of"]) == {"mean over sites without A", "worst site without A"}
    np.testing.assert_allclose(table["mean"], 0.3)
    assert sweep.draw(table).axes[0].get_title() == "mean over sites without A"
    undefined_at(other, "Überall $ 2")
    runs = gather([tmp_path])
    assert set(sweep.numbers(runs)["of"]) == {
        "mean over sites with a score",
        "worst site with a score",
    }


def test_a_score_that_no_site_has_is_not_drawn(tmp_path: Path) -> None:
    for alpha in (0.1, 0.2):
        path = made(tmp_path, "harmofl", perturbation=alpha)
        undefined_at(path, "A", "Überall $ 2")
        scores = pd.read_csv(path / "scores.csv")
        scores.assign(macro_f1=np.nan).to_csv(path / "scores.csv", index=False)
    for figure in (sites, sweep, convergence, retrogress):
        with pytest.raises(SettingsError, match="macro_f1 is not defined at any site"):
            figure.numbers(gather([tmp_path]), metric="macro_f1")
    retrogress.numbers(gather([tmp_path]))  # as each run draws for itself


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    for seed in (1, 2):
        made(folder, "fedavg", seed)
        for alpha in (0.005, 0.05):
            made(folder, "harmofl", seed, perturbation=alpha)
    return folder


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "landscape"])
def test_the_command_writes_picture_and_numbers(name: str, study: Path, tmp_path: Path) -> None:
    code, out, err = call("figure", name, study, "--out", tmp_path)
    assert code == 0, err
    endings = ("png", "svg", "pdf", "csv")
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f"{name}.{e}" for e in endings)
    assert str(tmp_path / f"{name}.png") in out.replace("\n", "")
    svg = (tmp_path / f"{name}.svg").read_text()
    words = " ".join(ET.fromstring(svg).itertext())
    assert ("communications" if name == "retrogress" else "%") in words  # text, not outlines
    if name not in ("convergence", "sweep"):
        assert "Überall $ 2" in words


def test_a_figure_drawn_again_is_the_same_file(study: Path) -> None:
    table = sites.numbers(gather([study]))
    for form in ("png", "svg", "pdf"):
        assert drawn(sites.draw(table), form) == drawn(sites.draw(table), form)


def test_without_a_name_the_command_lists_the_figures() -> None:
    code, out, _ = call("figure")
    assert code == 0
    assert all(name in out for name in FIGURES)
    assert json.loads(call("figure", "--json")[1]).keys() == FIGURES.keys()


@pytest.mark.parametrize(
    ("words", "says", "wanted"),
    [
        (["swep"], "did you mean 'sweep'", 2),
        (["sweep"], "which runs?", 2),
        (["sweep", "STUDY", "--against", "bytes"], "--against is not an option", 2),
        (["convergence", "STUDY", "--against", "byte"], "did you mean 'bytes'", 2),
        (["sites", "STUDY", "--where", "lr"], "NAME=VALUE", 2),
        (["sites", "STUDY", "--where", "method=prrfl"], "fedavg, harmofl", 2),
        (["sites", "nowhere"], "no finished run", 1),
        (["landscape", "STUDY", "--shape", "ball"], "line or surface or plane", 2),
        (["landscape", "STUDY", "--split", "test"], "validation or train", 2),
        (["landscape", "STUDY", "--points", "2"], "3 or more", 2),
        (["landscape", "STUDY", "--shape", "plane", "--statistics", "saved"], "leave", 2),
    ],
)
def test_wrong_words_are_refused_in_words(
    words: list[str], says: str, wanted: int, study: Path, tmp_path: Path
) -> None:
    given = [str(study) if word == "STUDY" else word for word in words]
    code, _, err = call("figure", *given, "--out", tmp_path / "out")
    assert code == wanted, err
    assert says in err.replace("\n", " ")
    assert not (tmp_path / "out").exists()
