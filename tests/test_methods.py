"""Every method and every composition runs on the phantom and leaves what it should."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import counterpoint
from counterpoint.errors import SettingsError
from counterpoint.methods import Method, Schedule, find_method, methods

SMALL = {
    "rounds": 2,
    "local_epochs": 2,
    "image_size": 32,
    "batch_size": 8,
    "train_limit": 16,
    "model": "tests.networks:Tiny",
    "model_options": {},
    "workers": 1,
    "threads": 1,
}
SLIM = {"model": "slim-vgg16", "local_epochs": 1, "sites": ["east", "west"]}
COMPOSITIONS = {
    "fourier aggregation without a deputy": ("fedavg", {"aggregation": "pfa"}),
    "a deputy without fourier aggregation": ("fedavg", {"local": "deputy"}),
    "amplitude only": ("fedavg", {"harmonise": "amplitude"}),
    "amplitude as released": ("fedavg", {"harmonise": {"kind": "amplitude", "band": "dc"}}),
    "amplitude up to a radius": ("fedavg", {"harmonise": {"kind": "amplitude", "band": 0.3}}),
    "perturbation only": ("fedavg", {"perturbation": 0.05}),
    "both systems": ("prrfl", {"harmonise": "amplitude", "perturbation": 0.05}),
    "phases averaged": ("prrfl", {"phase": "mean"}),
    "complex band": ("prrfl", {"phase": "complex"}),
    "one local epoch": ("prrfl", {"local_epochs": 1}),
    "fedavg recalibrated": ("fedavg", {"statistics": "recalibrated"}),
    "harmofl recalibrated": ("harmofl", {"statistics": "recalibrated"}),
    "prrfl with batch statistics": ("prrfl", {"statistics": "batch"}),
    "prrfl with averaged statistics": ("prrfl", {"statistics": "averaged"}),
    "weighted by images": ("fedavg", {"weighting": "images"}),
    "adam, kept": ("fedavg", {"optimizer": "adam", "lr": 1e-3, "keep_optimizer": True}),
    "bfloat16": ("prrfl", {"precision": "bfloat16"}),
    "no normalisation": ("prrfl", {"model": "tests.networks:NoNorm"}),
    "no normalisation, fedbn": ("fedbn", {"model": "tests.networks:NoNorm"}),
    "no normalisation, recalibrated": (
        "fedavg",
        {"model": "tests.networks:NoNorm", "statistics": "recalibrated"},
    ),
    "densenet121": (
        "harmofl",
        {
            "model": "monai.networks.nets:DenseNet121",
            "model_options": {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]},
        },
    ),
}
CASES = {name: (name, {}) for name in methods()} | COMPOSITIONS


def run(tmp_path: Path, method: str, options: dict[str, object]) -> counterpoint.Result:
    return counterpoint.run(method, "phantom", out=tmp_path / "run", settings=SMALL | options)


@pytest.mark.parametrize("case", CASES)
def test_runs_and_leaves_what_it_should(case: str, tmp_path: Path) -> None:
    method, options = CASES[case]
    result = run(tmp_path, method, dict(options))
    scores, epochs = result.scores, int(str(options.get("local_epochs", 2)))

    test = scores[scores["split"] == "test"]
    assert sorted(test["site"]) == ["east", "north", "south", "west"]  # once a site
    assert result.table["macro_f1"].between(0, 1).all()
    assert result.table["loss"].map(math.isfinite).all()
    roles = scores["model"].unique()
    validation = scores[scores["split"] == "validation"]
    finetuned = 5 if method == "finetune" else 0
    assert len(validation) == 4 * len(roles) * (1 + 2 * (epochs + 1) + finetuned)

    values = result.results
    role = "personal" if "personal" in roles else "model"
    moment = ("finetuned", finetuned) if finetuned else ("merged", 0)
    chosen = validation[validation["model"] == role].set_index(["moment", "epoch"]).loc[[moment]]
    by_round = chosen.groupby("round")[["macro_f1", "loss"]].mean()
    # these choose out of the last fifth of the rounds, or have no choice
    first = 2 if method in ("prrfl", "prrfl-journal", "finetune") else 1
    best = max(range(first, 3), key=lambda r: (by_round.macro_f1[r], -by_round.loss[r]))
    assert values["chosen_round"] == best
    assert values["validation"] == pytest.approx(by_round.macro_f1[best])

    x = torch.rand(2, 3, 32, 32)
    assert result.model("east" if method != "pooled" else None)(x).shape == (2, 3)
    for name in ("settings.yaml", "payloads.csv", "retrogress.png", "retrogress.svg"):
        assert (result.path / name).stat().st_size > 0


def test_which_methods_have_a_global_model(tmp_path: Path) -> None:
    for method, expected in (("fedavg", True), ("fedbn", False)):
        result = run(tmp_path / method, method, {})
        assert (result.path / "models" / "global.safetensors").exists() is expected
        weights = [result.model(site).state_dict() for site in ("east", "west")]
        equal = [torch.equal(weights[0][name], weights[1][name]) for name in weights[0]]
        assert all(equal) is expected


def shared_names(result: counterpoint.Result, round: int) -> set[str]:
    payloads = pd.read_csv(result.path / "payloads.csv")
    return set(payloads[(payloads["round"] == round) & (payloads["direction"] == "up")]["name"])


def test_what_leaves_a_site(tmp_path: Path) -> None:
    one = SLIM | {"rounds": 1}
    fedavg = shared_names(run(tmp_path / "a", "fedavg", one), 1)
    fedbn = shared_names(run(tmp_path / "b", "fedbn", one), 1)
    silobn = shared_names(run(tmp_path / "c", "silobn", one), 1)
    harmofl = run(tmp_path / "d", "harmofl", SLIM)
    prrfl = run(tmp_path / "e", "prrfl", SLIM)
    statistics = {name for name in fedavg if "running" in name}
    assert len(statistics) == 2 * 14
    assert silobn == fedavg - statistics
    assert len(silobn - fedbn) == 2 * 14  # scale and shift of 14 batch norms
    assert fedbn < silobn
    assert shared_names(harmofl, 1) == silobn | {"harmonise.amplitude"}
    assert shared_names(harmofl, 2) == silobn
    assert shared_names(prrfl, 1) == {f"{name}.amplitude" for name in fedbn}
    assert shared_names(run(tmp_path / "f", "local", {}), 1) == set()
    sent = prrfl.results["bytes"]["up_per_round_and_site"]
    everything = 4 * 2_371_104
    # about r^2 / 2 of the weights, with radii 0.7 and 0.825 in the two rounds
    assert 0.24 * everything < sent < 0.34 * everything


def test_personal_model_never_loses_by_communicating(tmp_path: Path) -> None:
    result = run(tmp_path, "prrfl", {"local_epochs": 3})
    assert result.results["retrogress"]["personal"]["by_round"] == [0.0, 0.0]
    scores = result.scores
    stages = scores[(scores["moment"] == "epoch") & (scores["model"] == "personal")]
    assert (stages[stages["epoch"] == 1]["stage"] == "recover").all()
    assert (stages[stages["epoch"] == 2]["stage"] != "sublimate").all()


def test_fedavg_of_one_round_is_the_mean_of_models_trained_alone(tmp_path: Path) -> None:
    one = {"rounds": 1, "local_epochs": 2}
    alone = run(tmp_path / "a", "local", one)
    together = run(tmp_path / "b", "fedavg", one).model().state_dict()
    sites = [alone.model(site).state_dict() for site in alone.table.index]
    for name, tensor in together.items():
        if tensor.is_floating_point():  # running statistics too
            mean = torch.stack([site[name] for site in sites]).mean(0)
            torch.testing.assert_close(tensor, mean, atol=1e-6, rtol=0, msg=name)


def test_recalibration_differs_from_averaging_only_in_statistics(tmp_path: Path) -> None:
    one = {"rounds": 1, "local_epochs": 1}
    averaged = run(tmp_path / "a", "fedavg", one).model("east").state_dict()
    anew = run(tmp_path / "b", "fedavg", one | {"statistics": "recalibrated"}).model("east")
    for name, tensor in anew.state_dict().items():
        if "num_batches" not in name:
            same = torch.equal(tensor, averaged[name])
            assert same is ("running" not in name), name


def test_a_model_that_all_sites_have_is_kept_once(tmp_path: Path) -> None:
    result = run(tmp_path, "fedavg", {"rounds": 1, "local_epochs": 1})
    assert [path.name for path in (result.path / "models").rglob("*")] == ["global.safetensors"]
    assert result.model_file("east") == result.model_file()
    with pytest.raises(SettingsError, match="it has one global model, of east, north, south, west"):
        result.model("eats")


def test_pooled_trains_on_everything_and_is_scored_everywhere(tmp_path: Path) -> None:
    result = run(tmp_path, "pooled", {"rounds": 1, "local_epochs": 1})
    assert result.results["images_with_gradient"] == 4 * 16
    assert list(result.table.index) == ["east", "north", "south", "west"]
    assert not (result.path / "models" / "personal").exists()


@pytest.mark.parametrize(
    ("method", "options", "sites"), [("pooled", {}, 4), ("fedavg", {"participation": 0.5}, 2)]
)
def test_the_display_is_told_how_many_epochs_will_come(
    tmp_path: Path, method: str, options: dict[str, object], sites: int
) -> None:
    events: list[dict[str, object]] = []
    counterpoint.run(method, "phantom", out=tmp_path, report=events.append, **SMALL | options)
    (start,) = (event for event in events if "from" in event)
    epochs = [
        event
        for event in events
        if event.get("moment") == "epoch" and event["model"] == start["predicts"]
    ]
    assert start["sites"] == sites
    assert len(epochs) == SMALL["rounds"] * SMALL["local_epochs"] * sites


@pytest.mark.parametrize("method", ["local", "pooled"])
@pytest.mark.parametrize("statistics", ["averaged", "recalibrated"])
def test_statistics_that_never_come_are_refused(
    tmp_path: Path, method: str, statistics: str
) -> None:
    """Where nothing is merged, results would name statistics that no model has."""
    with pytest.raises(SettingsError, match=f"can't be '{statistics}'; use --statistics local"):
        counterpoint.run(method, "phantom", out=tmp_path / "run", statistics=statistics)
    assert not (tmp_path / "run").exists()


def test_own_method_by_file_and_by_object(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from counterpoint.aggregation import ProgressiveFourier\n"
        "from counterpoint.methods import Method\n"
        "METHOD = Method(name='mine', paper='none', summary='PFA alone',\n"
        "                aggregation=ProgressiveFourier(start=0.5), statistics='local')\n"
    )
    by_file = run(tmp_path / "a", f"{file}:METHOD", {})
    by_object = run(tmp_path / "b", find_method(f"{file}:METHOD"), {})  # type: ignore[arg-type]
    assert by_file.results["test"] == by_object.results["test"]
    assert by_file.results["method"] == "mine"


def test_the_method_of_the_readme(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = [part.partition("\n")[2].partition("```")[0] for part in readme.split("```python")]
    (own,) = [block for block in blocks if "METHOD = " in block]
    (tmp_path / "mine.py").write_text(own)
    result = run(tmp_path, f"{tmp_path}/mine.py:METHOD", {"rounds": 1, "local_epochs": 1})
    assert result.results["method"] == find_method(f"{tmp_path}/mine.py:METHOD").name


def test_every_method_says_where_it_comes_from() -> None:
    for method in methods().values():
        assert len(method.paper) > 7
        assert len(method.summary) > 20


def test_prrfl_has_the_papers_settings() -> None:
    schedule = find_method("prrfl").schedule
    assert (schedule.rounds, schedule.local_epochs, schedule.batch_size) == (50, 5, 16)
    assert (schedule.image_size, schedule.lr, schedule.weight_decay) == (128, 1e-2, 1e-6)
    assert schedule.first_choice == 41
    assert schedule.lr_at(50) == pytest.approx(1.953125e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("prfl", "unknown method 'prfl'; did you mean 'prrfl'"),
        ("nowhere.at.all:METHOD", "can't import"),
        ("counterpoint.methods.prrfl:NOPE", "no Method named 'NOPE'"),
    ],
)
def test_unknown_methods(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        find_method(name)


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds"):
        Schedule(rounds=0)
    with pytest.raises(ValueError, match="perturbation"):
        Method(name="x", paper="y", summary="z", perturbation=-1)


def test_a_balanced_loss_knows_a_sites_classes(tmp_path: Path) -> None:
    """Of equal logits: -log of the share of the class among the site's training images."""
    options = SMALL | {"rounds": 1, "local_epochs": 1, "loss": "balanced"}
    options |= {"model": "tests.points:Point", "model_options": {"start": [0.0, 0.0, 0.0]}}
    del options["train_limit"]
    result = counterpoint.run("fedavg", "phantom", out=tmp_path / "run", settings=options)
    start = result.scores.query("moment == 'start'").set_index("site")["loss"]
    for site in counterpoint.load("phantom", seed=1).sites:
        labels = site.table.groupby("split")["label"]
        share = labels.get_group("train").value_counts(normalize=True)
        wanted = -np.log(labels.get_group("validation").map(share)).mean()
        assert start[site.name] == pytest.approx(wanted, rel=1e-4)


def test_every_model_of_a_site_takes_the_common_amplitude(tmp_path: Path) -> None:
    result = run(tmp_path, "prrfl", {"harmonise": "amplitude"})
    layers = [result.model(site).harmonise for site in result.table.index]
    assert len(layers) == 4
    for layer in layers:
        assert bool(layer.frozen)
        assert torch.equal(layer.amplitude, layers[0].amplitude)
