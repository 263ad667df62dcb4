"""Loss landscapes: against parabolas known by hand, and of small runs."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import counterpoint
from counterpoint import api
from counterpoint.errors import SettingsError, StateError
from counterpoint.figures import landscape as figure
from counterpoint.landscape import (
    filter_normalised,
    losses_around,
    numbers,
    plane_through,
    scene,
)
from counterpoint.landscape.scene import Scene, source_of_statistics
from counterpoint.landscape.view import View
from counterpoint.landscape.walk import loss_on
from counterpoint.predictor import Predictor
from counterpoint.runs import gather
from counterpoint.settings import make_settings
from counterpoint.statistics import recalibrate
from counterpoint.tasks import make_task
from tests.networks import Tiny
from tests.running import call

SETTINGS = {
    "rounds": 2,
    "local_epochs": 1,
    "batch_size": 8,
    "image_size": 32,
    "train_limit": 16,
    "workers": 1,
    "model": "tests.networks:Tiny",
    "lr": 0.05,
}
FEW = {"images": 8, "points": 3}


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_landscape_of_a_linear_model_is_the_parabola() -> None:
    x, y = torch.randn(20, 3, generator=drawn(1)).double(), torch.randn(20, 1, generator=drawn(2))
    model = nn.Linear(3, 1, bias=False).double()
    ways = [torch.randn(1, 3, generator=drawn(seed)).double() for seed in (3, 4)]
    positions = np.array([[a, b] for a in (-2.0, 0.0, 0.5) for b in (-1.0, 0.0, 3.0)])

    def loss() -> float:
        return (model(x) - y).square().mean().item()

    found = losses_around(model, [{"weight": way} for way in ways], positions, loss)
    moments, target = x.T @ x / 20, x.T @ y.double() / 20  # loss = w M w - 2 w t + mean(y^2)
    w, d = model.weight.detach(), torch.cat(ways)
    for (a, b), value in zip(positions, found, strict=True):
        step = torch.tensor([[a, b]]) @ d
        known = loss() + 2 * ((w @ moments - target.T) @ step.T) + step @ moments @ step.T
        assert value == pytest.approx(known.item())


class Layers(nn.Module):
    """One layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.up = nn.ConvTranspose2d(4, 5, 2)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 2)


@pytest.mark.parametrize(("name", "axis"), [("conv", 0), ("up", 1), ("head", 0)])
def test_every_filter_of_a_direction_is_as_long_as_the_networks(name: str, axis: int) -> None:
    network = Layers()
    direction = filter_normalised(network, drawn(1))[f"{name}.weight"]
    weight = network.get_submodule(name).weight
    for number in range(weight.shape[axis]):
        of_direction, of_weight = (t.select(axis, number).norm() for t in (direction, weight))
        torch.testing.assert_close(of_direction, of_weight)


def test_biases_and_normalisation_stay_where_they_are() -> None:
    names = set(filter_normalised(Layers(), drawn(1)))
    assert names == {"conv.weight", "up.weight", "head.weight"}


def test_networks_with_other_weights_get_the_same_direction_but_for_its_lengths() -> None:
    one, other = (filter_normalised(Layers(), drawn(1))["conv.weight"] for _ in range(2))
    assert not torch.equal(one, other)
    for a, b in zip(one.flatten(1), other.flatten(1), strict=True):
        torch.testing.assert_close(a / a.norm(), b / b.norm())


def batch(seed: int) -> tuple[Tensor, Tensor]:
    return torch.rand(8, 3, 16, 16, generator=drawn(seed)), torch.arange(8) % 3


def test_all_is_put_back_bit_for_bit_also_after_an_error() -> None:
    network = Tiny(3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    way = filter_normalised(network, drawn(1))
    loss = loss_on(network, [batch(1)], make_task("classification", ("a", "b", "c")), [batch(2)[0]])
    losses = losses_around(network, [way], np.array([[-1.0], [0.3]]), loss)
    assert losses[0] != losses[1]

    def fails() -> float:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        losses_around(network, [way], np.array([[1.0]]), fails)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_statistics_are_estimated_anew_at_every_point_or_left_as_saved() -> None:
    task, network = make_task("classification", ("a", "b", "c")), Tiny(3)
    way = filter_normalised(network, drawn(1))
    images, target = batch(1)
    there = Tiny(3)
    there.load_state_dict(network.state_dict())
    with torch.no_grad():
        for name, direction in way.items():
            there.get_parameter(name).add_(direction, alpha=0.5)
    here = np.array([[0.5]])
    for calibration in ([], [batch(2)[0], batch(3)[0]]):
        found = losses_around(
            network, [way], here, loss_on(network, [(images, target)], task, calibration)
        )
        recalibrate(there, calibration) if calibration else None
        with torch.no_grad():
            known = task.loss(there.eval()(images), target).item()
        assert found.item() == pytest.approx(known, rel=1e-6)


def test_a_plane_holds_its_three_models_and_says_how_far_others_are() -> None:
    models = [{"w": torch.randn(4, generator=drawn(seed))} for seed in range(4)]
    plane = plane_through(*models[:3])
    for model in models[:3]:
        x, y, far = plane.place(model)
        assert far == pytest.approx(0, abs=1e-5)
        rebuilt = plane.origin["w"] + x * plane.across["w"] + y * plane.up["w"]
        torch.testing.assert_close(rebuilt.float(), model["w"])
    x, y, far = plane.place(models[3])
    way = (models[3]["w"] - models[0]["w"]).norm().item()
    assert x**2 + y**2 + far**2 == pytest.approx(way**2)
    assert far > 0.1
    with pytest.raises(StateError, match="in a line"):
        plane_through(models[0], models[1], models[1])


@pytest.mark.parametrize(
    ("statistics", "options", "wanted"),
    [
        ("recalibrated", {"batch_size": 16}, (2, 16)),  # as a run recalibrates
        ("recalibrated", {"batch_size": 16, "max_batch": 4}, (2, 4)),
        ("batch", {"batch_size": 16, "max_batch": 8}, (8, 0)),  # as a run scores
        ("batch", {"batch_size": 12}, (12, 0)),
    ],
)
def test_batches_are_as_large_as_in_the_run(
    statistics: str,
    options: dict[str, int],
    wanted: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of images so large that two are scored at a time."""
    monkeypatch.setattr(scene, "scored_at_once", lambda pixels: 2)
    sizes: dict[str, list[int]] = {}

    def taken(
        network: object, seen: list[Any], task: object, calibration: list[Any], _: object
    ) -> Any:
        sizes["seen"] = [len(images) for images, _ in seen]
        sizes["calibration"] = [len(images) for images in calibration]

    monkeypatch.setattr(scene, "loss_on", taken)
    given = make_settings(
        "fedavg", "phantom", {"statistics": statistics, "image_size": 32} | options
    )
    federation, sites = counterpoint.data.decode(counterpoint.load("phantom"), 32)
    site = sites[0]
    place = Scene(None, given, federation, {site.name: site}, torch.device("cpu"))  # type: ignore[arg-type]
    network = Tiny(3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and statistics == "batch":
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    place.loss(Predictor(nn.Identity(), network), site.name, View(images=24))
    assert (max(sizes["seen"]), max(sizes["calibration"], default=0)) == wanted


def test_whose_statistics_a_landscape_is_of() -> None:
    def said(norm: nn.Module) -> str:
        return source_of_statistics(Predictor(nn.Identity(), nn.Sequential(norm)), "recalibrated")

    assert said(nn.BatchNorm2d(1)) == "recalibrated"
    assert said(nn.BatchNorm2d(1, track_running_stats=False)) == "batch"
    assert said(nn.InstanceNorm2d(1)) == said(nn.GroupNorm(1, 1)) == "none"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FedAvg, HarmoFL and local training on the phantom, with one seed."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(api, "draw_figures", lambda result: None)
        for method in ("fedavg", "harmofl", "local"):
            counterpoint.run(method, "phantom", out=folder / method, settings=SETTINGS)
    return folder


def test_in_the_middle_is_the_loss_that_the_run_has_noted(study: Path) -> None:
    """With the model's own statistics and all validation images; every site has its own."""
    runs = gather([study / "fedavg"])
    table = numbers(runs, "surface", images=10_000, points=3, statistics="saved")
    assert set(table["statistics"]) == {"saved"}
    values, scores = runs[0].result.results, runs[0].result.scores
    chosen = (scores["round"] == values["chosen_round"]) & (scores["moment"] == "merged")
    noted = scores[chosen & (scores["split"] == "validation")].set_index("site")["loss"]
    middle = table[(table["x"] == 0) & (table["y"] == 0)].set_index("site")["loss"]
    assert 0 < table["images"].max() < 10_000  # as many as there are
    assert ("up to" in figure.caption(table)) == (table["images"].nunique() > 1)
    pd.testing.assert_series_equal(middle.sort_index(), noted.sort_index(), rtol=1e-5)


def test_methods_share_images_directions_and_axes_and_it_is_the_same_again(study: Path) -> None:
    runs = gather([study], {"method": "fedavg"}) + gather([study], {"method": "harmofl"})
    steps: list[tuple[int, int]] = []
    one, again = (
        numbers(
            runs,
            "line",
            ["north"],
            directions=2,
            **FEW,
            progress=lambda w, d, t: steps.append((d, t)),
        )
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(one, again)
    assert steps[-1] == (12, 12)
    assert dict(zip(one["name"], one["statistics"], strict=True)) == {
        "fedavg": "recalibrated",
        "harmofl": "batch",
    }
    at = one.groupby("name")[["direction", "x"]].agg(list)
    assert at.loc["fedavg"].tolist() == at.loc["harmofl"].tolist()
    middle = one[(one["name"] == "fedavg") & (one["x"] == 0)]["loss"]
    assert middle.nunique() == 1  # whatever the direction
    other = numbers(runs[:1], "line", ["north"], directions=1, direction_seed=2, **FEW)
    assert other["loss"].iloc[0] != one["loss"].iloc[0]


@pytest.mark.parametrize("optima", [None, "local"])
def test_a_plane_marks_the_global_and_the_local_optima(study: Path, optima: str | None) -> None:
    given = study / optima if optima else None
    sites = ["north", "south", "west"]
    table = numbers(gather([study / "fedavg"]), "plane", sites, split="train", optima=given, **FEW)
    marks = table[table["mark"].notna() & (table["site"] == "north")].set_index("mark")
    assert list(marks.index) == ["global optimum", *sites]
    assert marks.loc["global optimum", ["x", "y", "distance"]].tolist() == [0, 0, 0]
    assert marks.loc["north", "y"] == pytest.approx(0, abs=1e-6)
    for site in ("north", "south"):
        assert marks.loc[site, "distance"] == pytest.approx(0, abs=1e-4)
    assert marks.loc["west", "distance"] > 1e-3
    assert (table["x"].min(), table["x"].max()) != (0, 0)
    if optima:  # the loss at the mark is that of the local run's own model
        runs = gather([study / "local"])
        alone = numbers(runs, "line", ["north"], split="train", directions=1, **FEW)
        middle = alone[alone["x"] == 0]["loss"].item()
        assert marks.loc["north", "loss"] == pytest.approx(middle, rel=1e-3)
    figure.draw(table)


def test_what_can_not_be_compared_is_refused(study: Path, tmp_path: Path) -> None:
    runs = gather([study / "fedavg"])
    with pytest.raises(SettingsError, match="no global model"):
        numbers(gather([study / "local"]), "plane")
    with pytest.raises(SettingsError, match="did you mean 'north'"):
        numbers(runs, sites=["nort"])
    with pytest.raises(SettingsError, match="two sites"):
        numbers(runs, "plane", ["north"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "draw_figures", lambda result: None)
        changed = SETTINGS | {"seed": 2, "rounds": 1}
        counterpoint.run("local", "phantom", out=tmp_path / "r", settings=changed)
    with pytest.raises(SettingsError, match="the same seed"):
        numbers(runs, "plane", optima=tmp_path / "r")
    with pytest.raises(SettingsError, match="no seed in common"):
        numbers(gather([study / "fedavg", tmp_path / "r"]))


def test_the_command_draws_a_landscape(study: Path, tmp_path: Path) -> None:
    words = ["--sites", "north,south", "--images", 8, "--points", 3, "--out", tmp_path]
    runs = (study / "fedavg", study / "harmofl")
    code, _, err = call("figure", "landscape", *runs, *words)
    assert code == 0, err
    svg = (tmp_path / "landscape.svg").read_text()
    assert "batch (harmofl)" in svg
    assert "8 validation images" in svg
    assert len(pd.read_csv(tmp_path / "landscape.csv")) == 2 * 2 * 9
