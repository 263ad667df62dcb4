"""A site that does not train and is only scored."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from sklearn import metrics

import counterpoint
from counterpoint import api
from counterpoint.cli import common
from counterpoint.data import decode, load, write_phantom
from counterpoint.errors import DataError, LeakageError, StateError
from counterpoint.report.table import results_table
from counterpoint.results import Result
from tests.running import COMMAND, ROOT, Stopped, assert_same, call, content, options, stop_in

SITES = ["east", "north", "south"]
SHORT = {
    "rounds": 2,
    "local_epochs": 1,
    "batch_size": 8,
    "image_size": 32,
    "model": "tests.networks:Tiny",
    "augmentation": "none",
    "lr": 0.1,
    "workers": 1,
    "threads": 1,
}
PIXELS = SHORT | {"model": "unet", "model_options": "{features: 2}", "task": "segmentation"}


@pytest.fixture(scope="module", autouse=True)
def _no_figures():
    """Draw nothing: it takes longer than all else in such a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "draw_figures", lambda result: [])
        yield


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """Let tables be as wide as they like."""
    monkeypatch.setattr(common.out, "width", 200)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four small sites with a split of their own, 8 training images each."""
    folder = tmp_path_factory.mktemp("own") / "sites"
    write_phantom(folder, size=32, scale=0.15)
    for table in folder.glob("*/labels.csv"):
        rows = pd.read_csv(table).drop(columns="group")
        rows["split"] = ["train"] * 8 + ["validation"] * 2 + ["test"] * (len(rows) - 10)
        rows.to_csv(table, index=False)
    return folder


def run(method, data, out, *more, holdout="west", **settings):
    """Run the command line in this process."""
    given = SHORT | settings | ({"holdout": holdout} if holdout else {})
    code, shown, said = call("run", method, data, *options(given), "--out", out, *more)
    assert code == 0, said
    return Result(out), shown


def part(data, split="test", **choice):
    """Images in 0..1 and labels, or masks, of a part of west."""
    _, sites = decode(load(data, holdout="west", **choice), 32)
    found = sites[-1].part(split)
    assert sites[-1].name == "west"
    images = torch.from_numpy(found.images[found.rows].astype(np.float32) / 255)
    target = found.labels if found.targets is None else found.targets[found.rows]
    return images, target


@torch.no_grad()
def together(models, images):
    """Mean of the models' probabilities."""
    return torch.stack([model(images).softmax(1) for model in models]).mean(0).numpy()


def personal(folder):
    files = sorted((folder / "models" / "personal").glob("*.safetensors"))
    assert [file.stem for file in files] == SITES
    return [counterpoint.load_model(file)[0] for file in files]


def probabilities(result):
    """Class probabilities of west's test images, as the run has noted them."""
    rows = result.cases[result.cases["site"] == "west"].sort_values("case")
    return rows[[name for name in rows if name.startswith("p_")]].to_numpy()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A run through a real process: its folder and what it printed."""
    out = tmp_path_factory.mktemp("holdout") / "run"
    words = [*options(SHORT | {"train_limit": 12}), "--holdout", "west", "--out", str(out)]
    done = subprocess.run(
        [*COMMAND, "run", "fedavg", "phantom", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "200", "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT)])},
    )
    assert done.returncode == 0, done.stderr
    return Result(out), done.stdout


def test_nothing_crosses_to_or_from_the_site(phantom):
    with open(phantom[0].path / "payloads.csv", newline="") as file:
        crossed = {(row["site"], row["direction"]) for row in csv.DictReader(file)}
    assert crossed == {(site, way) for site in SITES for way in ("up", "down")}


def test_no_score_of_it_before_the_test(phantom):
    scores = phantom[0].scores
    of_west = scores[scores["site"] == "west"]
    assert of_west["split"].tolist() == ["test"]
    assert set(scores.loc[scores["split"] != "test", "site"]) == set(SITES)


def test_the_table_says_that_it_did_not_train(phantom):
    result, shown = phantom
    lines = shown.splitlines()
    (line,) = (line for line in lines if line.split()[:1] == ["west"])
    assert "west (did not train)" in line
    assert f"{100 * result.results['test']['west']['macro_f1']:.1f}" in line
    assert shown.count("did not train") == 1
    assert any("(worst)" in line for line in lines)


def test_eighty_columns_are_enough_for_the_table(phantom):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(results_table(phantom[0]))
    lines = console.export_text().splitlines()
    (line,) = (line for line in lines if line.split()[:1] == ["west"])
    assert "west (did not train)" in line
    low, high = phantom[0].results["intervals"]["west"]["macro_f1"]
    assert f" {100 * low:.1f} to {100 * high:.1f} " in line


def test_results_name_it_and_leave_it_out_of_the_mean(phantom):
    result = phantom[0]
    values = result.results
    assert values["holdout"] == "west"
    assert list(values["test"]) == [*SITES, "west"]
    for name in ("macro_f1", "accuracy", "loss"):
        own = [values["test"][site][name] for site in SITES]
        assert values["mean"][name] == pytest.approx(np.mean(own))
    assert values["worst_site"] in SITES
    assert values["intervals"].keys() == values["test"].keys()
    # bytes are those of a site that trains
    sent = pd.read_csv(result.path / "payloads.csv").query("direction == 'up'")["bytes"].sum()
    assert values["bytes"]["up_per_round_and_site"] == sent / 2 / 3
    saved = yaml.safe_load((result.path / "settings.yaml").read_text())
    assert saved["data"]["holdout"] == "west"


def test_it_is_scored_with_the_global_model(phantom):
    result = phantom[0]
    assert result.results["one_global_model"]
    images, labels = part("phantom", train_limit=12)
    model, card = counterpoint.load_model(result.path / "models" / "global.safetensors")
    assert "site" not in card
    wanted = together([model], images)
    np.testing.assert_allclose(probabilities(result), wanted, atol=2e-6)
    scores, found = result.results["test"]["west"], wanted.argmax(1)
    assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(labels, found), abs=1e-6)
    macro = metrics.f1_score(labels, found, average="macro")
    assert scores["macro_f1"] == pytest.approx(macro, abs=1e-6)
    loss = metrics.log_loss(labels, wanted, labels=[0, 1, 2])
    assert scores["loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("method", ["local", "prrfl", "fedbn"])
def test_personal_models_vote_with_their_probabilities(method, data, tmp_path):
    result, _ = run(method, data, tmp_path / "run")
    assert not result.results["one_global_model"]
    models = personal(result.path)
    images, labels = part(data)
    wanted = together(models, images)
    np.testing.assert_allclose(probabilities(result), wanted, atol=2e-6)
    assert np.abs(together(models[:1], images) - wanted).max() > 1e-4  # one alone says otherwise
    scores = result.results["test"]["west"]
    macro = metrics.f1_score(labels, wanted.argmax(1), average="macro")
    assert scores["macro_f1"] == pytest.approx(macro, abs=1e-6)
    areas = [metrics.roc_auc_score(labels == c, wanted[:, c]) for c in set(labels.tolist())]
    assert scores["auc"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_so_do_those_that_segment(data, tmp_path):
    settings = PIXELS | {"image_size": 32}
    result, _ = run("local", data, tmp_path / "run", **settings)
    images, masks = part(data, task="segmentation")
    models = personal(result.path)
    found = together(models, images).argmax(1)
    dice = [metrics.f1_score(m.ravel(), f.ravel()) for m, f in zip(masks, found, strict=True)]
    assert 0 < np.mean(dice) < 1
    assert result.results["test"]["west"]["dice"] == pytest.approx(np.mean(dice), abs=1e-5)


def test_a_page_shows_what_all_models_together_say_there(data, tmp_path):
    """Of the held out site's images, too; its spectra are not asked for, for it has no model."""
    settings = PIXELS | {"image_size": 32, "harmonise": "amplitude"}
    result, _ = run("prrfl", data, tmp_path / "run", **settings)
    code, _, said = call("report", result.path, "--thumbnails", "--out", tmp_path / "page.html")
    assert code == 0, said
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search(r"Test case \d+ of west", page)
    assert "As the network of prrfl sees them" in page


def test_a_pooled_model_is_scored_there_too(data, tmp_path):
    result, shown = run("pooled", data, tmp_path / "run")
    wanted = together([result.model()], part(data)[0])
    np.testing.assert_allclose(probabilities(result), wanted, atol=2e-6)
    assert "west (did not train)" in shown
    trained = result.results["images_with_gradient"]
    assert trained == 2 * 3 * 8  # rounds, sites, images


def recalibrated(model, images):
    """The model with batch norm's statistics of these images: one batch, so they are its."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
            layer.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def test_recalibrated_statistics_are_estimated_there_without_labels(data, tmp_path):
    """Its labels change its scores and nothing else; with a loss that looks at frequencies."""
    settings = {"statistics": "recalibrated", "loss": "balanced"}
    result, _ = run("fedavg", data, tmp_path / "run", **settings)
    models = personal(result.path)
    training, _ = part(data, "train")
    assert len(training) == 8
    images, labels = part(data)
    before = together(models, images)
    wanted = together([recalibrated(model, training) for model in models], images)
    np.testing.assert_allclose(probabilities(result), wanted, atol=5e-6)
    assert np.abs(before - wanted).max() > 1e-3
    # how frequent its classes are is not known, so its loss is the plain one
    loss = metrics.log_loss(labels, wanted, labels=[0, 1, 2])
    assert result.results["test"]["west"]["loss"] == pytest.approx(loss, abs=1e-5)

    others = shutil.copytree(data, tmp_path / "others" / "sites")
    rows = pd.read_csv(others / "west" / "labels.csv")
    rows["label"] = rows["label"].map(
        {"irregular": "scalloped", "round": "irregular", "scalloped": "round"}
    )
    rows.to_csv(others / "west" / "labels.csv", index=False)
    again, _ = run("fedavg", others, tmp_path / "again", **settings)
    mine, other = content(result.path), content(again.path)
    models = {name for name in mine if name.startswith("models")}
    assert len(models) == 3
    for name in models | {"payloads.csv"}:
        assert mine[name] == other[name], name
    assert (probabilities(result) == probabilities(again)).all()
    for site in SITES:
        assert result.results["test"][site] == again.results["test"][site]
    assert result.results["test"]["west"] != again.results["test"]["west"]


def test_an_unknown_site(data, tmp_path):
    out = tmp_path / "run"
    code, _, said = call("run", "fedavg", data, *options(SHORT), "--holdout", "wset", "--out", out)
    assert code == 2
    assert "unknown site 'wset'; did you mean 'west'?" in said
    assert not out.exists()


def test_too_few_sites_are_left(data, tmp_path):
    two = ["--sites", "east, west", "--holdout", "west"]
    out = tmp_path / "run"
    code, _, said = call("run", "fedavg", data, *options(SHORT), *two, "--out", out)
    assert code == 2
    assert "with 'west' held out there are fewer than two sites to train" in said
    assert not out.exists()
    federation = load(data, sites=["east", "north"], holdout="west")  # it need not be named twice
    assert [site.name for site in federation.sites] == ["east", "north"]
    assert federation.holdout.name == "west"
    assert [site.name for site in federation.everyone] == ["east", "north", "west"]


def test_a_holdout_that_is_too_small_is_refused(data, tmp_path):
    small = shutil.copytree(data, tmp_path / "sites")
    rows = pd.read_csv(small / "west" / "labels.csv")
    rows[rows["split"] != "test"].to_csv(small / "west" / "labels.csv", index=False)
    with pytest.raises(DataError, match="site 'west' has too few test images"):
        load(small, holdout="west")


def test_a_run_that_was_stopped_goes_on_to_the_same_end(data, tmp_path):
    whole, _ = run("prrfl", data, tmp_path / "whole")
    with pytest.raises(Stopped):
        counterpoint.run(
            "prrfl",
            data,
            out=tmp_path / "run",
            settings=SHORT | {"holdout": "west"},
            report=stop_in(2),
        )
    assert not (tmp_path / "run" / "results.json").exists()
    code, again, said = call("resume", tmp_path / "run")
    assert code == 0, said
    assert_same(tmp_path / "run", whole.path)
    assert "west (did not train)" in again


def test_a_run_does_not_go_on_when_the_site_has_changed(data, tmp_path):
    mine = shutil.copytree(data, tmp_path / "sites")
    settings = SHORT | {"holdout": "west"}
    with pytest.raises(Stopped):
        counterpoint.run("fedavg", mine, out=tmp_path / "run", settings=settings, report=stop_in(2))
    table = mine / "west" / "labels.csv"
    table.write_text(table.read_text().replace("round", "irregular", 1))
    with pytest.raises(StateError, match="data are not those"):
        counterpoint.resume(tmp_path / "run")


@pytest.mark.parametrize("leak", ["patient", "file"])
def test_a_split_that_leaks_into_the_site_is_found(leak, data, tmp_path):
    mine = shutil.copytree(data, tmp_path / "sites")
    tables = {site: pd.read_csv(mine / site / "labels.csv") for site in ("east", "west")}
    if leak == "patient":
        for site, rows in tables.items():
            rows["patient"] = [f"{site}-{number}" for number in range(len(rows))]
        tables["west"].loc[len(tables["west"]) - 1, "patient"] = "east-0"
        words = "site 'west': 1 of .* test images share a group .* train images .first: east-0"
    else:
        source, copy = tables["east"].loc[0, "image"], tables["west"]["image"].iloc[-1]
        shutil.copy(mine / "east" / source, mine / "west" / copy)
        words = "site 'west': 1 of .* test images are the same file as train images"
    for site, rows in tables.items():
        rows.to_csv(mine / site / "labels.csv", index=False)
    with pytest.raises(LeakageError, match=words):
        load(mine, holdout="west")
    assert load(mine, sites=SITES).holdout is None  # without it there is nothing to leak
    clean = load(mine, holdout="west", protocol="grouped")
    rows = pd.concat([site.table for site in clean.everyone])
    assert rows.groupby("group")["split"].nunique().max() == 1


def test_results_are_plain_json_and_shown_again(data, tmp_path):
    """A site without foreground has no sensitivity and no interval of it: null, not NaN."""
    mine = shutil.copytree(data, tmp_path / "sites")
    from PIL import Image

    for mask in (mine / "west" / "masks").iterdir():
        Image.new("1", (32, 32)).save(mask)
    result, shown = run("fedavg", mine, tmp_path / "run", **PIXELS)

    def refuse(word):
        raise AssertionError(f"results.json has {word}")

    values = json.loads((result.path / "results.json").read_text(), parse_constant=refuse)
    assert values["test"]["west"]["sensitivity"] is None
    assert values["intervals"]["west"]["sensitivity"] == [None, None]
    assert values["intervals"]["east"]["sensitivity"][0] is not None
    assert "west (did not train)" in shown
    assert results_table(result) is not None


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("method", "more"),
    [("fedavg", {"statistics": "recalibrated"}), ("prrfl-journal", {}), ("counterpoint", {})],
)
def test_only_training_images_make_a_model(method, more, split, data, tmp_path):
    """In one round, of which there is nothing to choose, other images change scores alone."""
    other = shutil.copytree(data, tmp_path / "other" / "sites")
    for table in other.glob("*/labels.csv"):
        rows = pd.read_csv(table)
        for name in rows.loc[rows["split"] == split, "image"]:
            file = table.parent / name
            Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    kept = []
    for number, place in enumerate((data, other)):
        out = tmp_path / str(number)
        result, _ = run(method, place, out, holdout=None, **({"rounds": 1} | more))
        kept.append(content(result.path))
    names = [name for name in kept[0] if name.startswith(("models", "state/mean"))]
    assert len(names) > 1
    assert all(kept[0][name] == kept[1][name] for name in names)
    assert kept[0]["scores.csv"] != kept[1]["scores.csv"]


def test_intervals_need_two_patients(tmp_path):
    write_phantom(tmp_path / "own", size=16, scale=0.2)
    for file in tmp_path.glob("own/*/labels.csv"):
        rows = pd.read_csv(file)
        parts = ["train"] * 4 + ["validation"] * 2 + ["test"] * (len(rows) - 6)
        people = [
            f"p{n}" if n < 6 or file.parent.name == "east" else "one" for n in range(len(rows))
        ]
        rows.assign(split=parts, group=people).to_csv(file, index=False)
    chosen = {"rounds": 1, "data.protocol": "given", "model": "tests.running:Tiny"}
    found = counterpoint.run(
        "fedavg", tmp_path / "own", out=tmp_path / "run", settings=SHORT | chosen
    )
    east, west = (found.results["intervals"][site]["macro_f1"] for site in ("east", "west"))
    assert east[0] <= east[1]
    assert west == [None, None]
    shown = Console(width=120, record=True, file=io.StringIO())
    shown.print(results_table(found))
    (line,) = (one for one in shown.export_text().splitlines() if one.split()[:1] == ["west"])
    assert " - " in line
