"""Corners that were once wrong: names, unequal sites, numbers that are not finite, reports."""

import math
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

import counterpoint
from counterpoint import api
from counterpoint.api import moved
from counterpoint.data import write_phantom
from counterpoint.errors import DataError, SettingsError, StateError, TrainingError
from counterpoint.methods import find_method
from counterpoint.report.table import results_table
from counterpoint.results import retrogress, runs_in
from counterpoint.settings import make_settings, read_file
from counterpoint.statistics import recalibrate
from tests.running import Stopped, assert_same, stop_in

SHORT = {
    "rounds": 1,
    "local_epochs": 1,
    "image_size": 32,
    "batch_size": 8,
    "model": "tests.networks:Tiny",
    "model_options": {},
    "threads": 1,
    "workers": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own data: four small sites of different sizes."""
    path = tmp_path_factory.mktemp("own") / "sites"
    write_phantom(path, scale=0.25)
    return path


def renamed(folder: Path, to: Path, names: dict[str, str]) -> Path:
    shutil.copytree(folder, to)
    for old, new in names.items():
        (to / old).rename(to / new)
    return to


def run(data: object, out: Path, method: str = "fedavg", **options: object) -> counterpoint.Result:
    return counterpoint.run(method, data, out=out, settings=SHORT | options)  # type: ignore[arg-type]


def test_sites_of_different_sizes_still_end_with_one_global_model(
    folder: Path, tmp_path: Path
) -> None:
    """They have seen other numbers of batches, which no model tells."""
    result = run(folder, tmp_path / "run")
    counter = "network.features.1.num_batches_tracked"
    states = [load_file(file) for file in (result.path / "state").glob("*-state.safetensors")]
    counts = {state[f"model/model/{counter}"].item() for state in states if state}
    assert len(counts) > 1
    models = [result.model(site).state_dict() for site in result.table.index]
    assert {model[counter].item() for model in models} == {0}
    assert (result.path / "models" / "global.safetensors").exists()


def test_site_names_that_pandas_takes_for_nothing_and_very_long_ones(
    folder: Path, tmp_path: Path
) -> None:
    long = "Московский городской онкологический госпиталь № 62"
    names = {"east": "NA", "west": long, "north": "St. Mary [north]"}
    data = renamed(folder, tmp_path / "data", names)
    result = run(data, tmp_path / "run", method="prrfl")
    assert sorted(result.table.index) == sorted([*names.values(), "south"])
    assert set(result.scores["site"]) == {*names.values(), "south"}
    assert result.results["bytes"]["up_per_round_and_site"] > 0
    assert result.model(long)(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    console = Console(record=True, width=200)
    console.print(results_table(result))
    assert "St. Mary [north]" in console.export_text()


def test_names_that_differ_in_case_only_are_refused(folder: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path / "data", {"east": "Graz", "west": "graz"})
    with pytest.raises(DataError, match="'Graz' and 'graz' differ only in upper and lower case"):
        counterpoint.load(data)


@pytest.mark.parametrize("name", ["mean", "Mean", "worst site"])
def test_names_that_tables_have_for_something_else_are_refused(
    name: str, folder: Path, tmp_path: Path
) -> None:
    data = renamed(folder, tmp_path / "data", {"east": name})
    with pytest.raises(DataError, match=f"a site is called '{name}', .*; give it another name"):
        counterpoint.load(data)


def test_the_names_that_are_refused_are_those_of_the_tables() -> None:
    from counterpoint.data.rules import RESERVED
    from counterpoint.study.scores import MEAN, WORST

    assert set(RESERVED) == {MEAN, WORST}


@pytest.mark.parametrize("method", ["local", "fedavg"])
def test_weights_that_blow_up_in_the_last_step_do_not_pass(
    method: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="round 1, local epoch 1, site 'east': the loss"):
        run(folder, tmp_path / "run", method, lr=1e37, batch_size=1000)
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_report_that_raises_ends_the_run_instead_of_hanging_it(
    folder: Path, tmp_path: Path
) -> None:
    def report(event: dict[str, object]) -> None:
        if event.get("moment") == "epoch":
            raise RuntimeError("no more paper")

    with pytest.raises(RuntimeError, match="no more paper"):
        counterpoint.run(
            "fedavg",
            folder,
            out=tmp_path / "run",
            settings=SHORT | {"workers": 2, "rounds": 3},
            report=report,
        )


def test_notes_come_before_the_training(folder: Path, tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    counterpoint.run("fedavg", folder, out=tmp_path / "run", settings=SHORT, report=events.append)
    kinds = ["note" if "note" in event else "score" for event in events if "decoded" not in event]
    assert kinds[0] == "note"
    assert "note" not in kinds[kinds.index("score") :]


def test_data_settings_of_a_loaded_federation_are_refused(folder: Path, tmp_path: Path) -> None:
    federation = counterpoint.load(folder, train_limit=12)
    with pytest.raises(SettingsError, match=r"counterpoint\.load"):
        run(federation, tmp_path / "a", train_limit=4)
    result = run(federation, tmp_path / "b")
    assert result.results["images_with_gradient"] == 4 * 12
    again = counterpoint.resume(tmp_path / "b")  # knows how the federation was loaded
    assert again.results == result.results


def test_a_run_on_a_federation_object_goes_on_without_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = counterpoint.load(folder, seed=5)
    whole = run(federation, tmp_path / "a", rounds=2)
    run(federation, tmp_path / "b", rounds=2)
    for file in [tmp_path / "b" / "results.json", *(tmp_path / "b" / "state").glob("*00003*")]:
        file.unlink()
    monkeypatch.chdir(tmp_path)
    again = counterpoint.resume(tmp_path / "b")
    assert again.results["test"] == whole.results["test"]


def test_changed_settings_are_noticed(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run")
    file = tmp_path / "run" / "settings.yaml"
    (tmp_path / "run" / "results.json").unlink()
    text = file.read_text()
    for changed in (text.replace("rounds: 1\n", "rounds: 2\n", 1), ""):
        file.write_text(changed)
        with pytest.raises(StateError, match="not what this run was started with"):
            counterpoint.resume(tmp_path / "run")
    file.write_text(text)
    counterpoint.resume(tmp_path / "run", workers=2)  # the machine's settings may change


def test_a_run_goes_on_where_its_data_have_moved(folder: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path / "data", {})
    whole = run(data, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(StateError, match=r"no longer at .*data; say where they are by --root"):
        counterpoint.resume(tmp_path / "run")
    with pytest.raises(SettingsError, match="choose another by --device"):
        counterpoint.resume(tmp_path / "run", root=tmp_path / "elsewhere", device="cuda:77")
    again = counterpoint.resume(
        tmp_path / "run", root=tmp_path / "elsewhere", device="cpu", threads=1
    )
    assert again.results["test"] == whole.results["test"]


def test_a_named_data_set_may_move_as_well() -> None:
    settings = make_settings("fedavg", "retina", {"data.root": "/before", "task": "segmentation"})
    assert (moved(settings, "now").data.name, moved(settings, "now").data.root) == ("retina", "now")
    own = make_settings("fedavg", "/before.csv", {})
    assert (moved(own, "now.csv").data.name, moved(own, "now.csv").data.root) == ("now.csv", None)


def test_too_little_memory_for_a_trial_is_said_in_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: object) -> int:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(api, "choose_workers", greedy)
    with pytest.raises(TrainingError, match="there is too little memory; try fewer --workers"):
        counterpoint.run("fedavg", folder, out=tmp_path / "run", rounds=1, image_size=32)
    assert not (tmp_path / "run").exists()


def test_a_leak_is_a_warning_of_a_run(folder: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path / "data", {})
    for table in data.glob("*/labels.csv"):
        rows = pd.read_csv(table)
        rows["split"] = [("train", "test", "validation")[n % 3] for n in range(len(rows))]
        rows.assign(group="one patient").to_csv(table, index=False)
    events: list[dict[str, object]] = []
    options = SHORT | {"data.protocol": "given"}
    result = counterpoint.run(
        "fedavg", data, out=tmp_path / "run", settings=options, report=events.append
    )
    said = [str(event["warning"]) for event in events if "warning" in event]
    assert any("the split leaks" in words for words in said)
    console = Console(record=True, width=200)
    console.print(results_table(result, notes=False))  # as --quiet shows it
    shown = console.export_text()
    assert "warning: " in shown
    assert "note: " not in shown


@pytest.mark.parametrize(
    ("spoiled", "where"),
    [
        (b"method: [fedavg\nseed: 1\n", "line 2, column 5: expected ',' or ']'"),
        (b"\x00\x00", "it is damaged"),
        (b"\xff\xfe\xfa", "it is damaged"),
    ],
)
def test_settings_that_are_damaged_are_said_in_words(
    spoiled: bytes, where: str, folder: Path, tmp_path: Path
) -> None:
    run(folder, tmp_path / "run")
    file = tmp_path / "run" / "settings.yaml"
    file.write_bytes(spoiled)
    with pytest.raises(StateError, match=r"settings\.yaml can't be read: .*; put it back") as said:
        counterpoint.resume(tmp_path / "run")
    with pytest.raises(SettingsError, match=r"settings\.yaml can't be read: .*; correct") as other:
        read_file(file)
    for error in (said, other):
        assert where in str(error.value)
        assert "\n" not in str(error.value)


def test_labels_outside_the_classes(folder: Path, tmp_path: Path) -> None:
    classes = ["round", "scalloped", "irregular"]
    assert counterpoint.load(folder, classes=classes).classes == tuple(classes)
    data = renamed(folder, tmp_path / "data", {})
    table = data / "east" / "labels.csv"
    lines = table.read_text().splitlines()
    lines[3] = lines[3].replace("round", "ruond").replace("scalloped", "ruond")
    lines[3] = lines[3].replace("irregular", "ruond")
    table.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"labels\.csv, line 4: the label 'ruond'.*mean 'round'"):
        counterpoint.load(data, classes=classes)


def test_batch_statistics_need_two_images_to_score(folder: Path, tmp_path: Path) -> None:
    data = renamed(folder, tmp_path / "data", {})
    table = data / "east" / "labels.csv"
    head, *lines = table.read_text().splitlines()
    parts = ["validation"] + ["test"] * 4 + ["train"] * (len(lines) - 5)
    table.write_text(
        "\n".join([f"{head},split", *(f"{x},{p}" for x, p in zip(lines, parts, strict=True))])
    )
    for site in ("north", "south", "west"):
        other = data / site / "labels.csv"
        head, *lines = other.read_text().splitlines()
        parts = ["validation"] * 4 + ["test"] * 4 + ["train"] * (len(lines) - 8)
        rows = [f"{x},{p}" for x, p in zip(lines, parts, strict=True)]
        other.write_text("\n".join([f"{head},split", *rows]))
    options = {"data.protocol": "given", "statistics": "batch"}
    with pytest.raises(DataError, match="'east' has a single validation image"):
        run(data, tmp_path / "run", **options)
    held = run(data, tmp_path / "held", holdout="east", **options)  # where it is never used
    assert held.results["holdout"] == "east"


@pytest.mark.parametrize("method", ["local", "pooled"])
def test_group_norm_needs_nothing_of_a_mean(method: str, folder: Path, tmp_path: Path) -> None:
    result = run(folder, tmp_path / "run", method=method, statistics="group")
    assert result.results["statistics"] == "group"


def test_a_site_that_is_held_out_is_recalibrated_on_two_images_or_more(
    folder: Path, tmp_path: Path
) -> None:
    """One would be known only after all rounds: batch norm of a vector needs two."""
    data = renamed(folder, tmp_path / "data", {})
    for table in data.glob("*/labels.csv"):
        rows = pd.read_csv(table)
        rows["split"] = [("test", "validation", "train")[min(n // 4, 2)] for n in range(len(rows))]
        if table.parent.name == "east":
            rows["split"] = ["train", *["test"] * (len(rows) - 1)]
        rows.to_csv(table, index=False)
    options = {"data.protocol": "given", "statistics": "recalibrated", "holdout": "east"}
    with pytest.raises(SettingsError, match="'east', which is held out, needs two or more"):
        run(data, tmp_path / "run", **options)


def test_recalibration_of_instance_norm_with_running_statistics() -> None:
    network = nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True))
    x = torch.randn(40, 2, 50, generator=torch.Generator().manual_seed(0)) * 3 + 5
    recalibrate(network, x.split(10))
    norm = network[0]
    assert isinstance(norm, nn.InstanceNorm1d)
    torch.testing.assert_close(norm.running_mean, torch.full((2,), 5.0), atol=0.3, rtol=0)
    torch.testing.assert_close(norm.running_var, torch.full((2,), 9.0), atol=0.6, rtol=0)


def test_a_method_in_a_file_is_found_from_any_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from counterpoint.methods import Method\n"
        "METHOD = Method(name='mine', paper='none', summary='FedAvg again')\n"
    )
    monkeypatch.chdir(tmp_path)
    run(folder, tmp_path / "run", method="mine.py:METHOD")
    (tmp_path / "run" / "results.json").unlink()
    monkeypatch.chdir("/")
    assert counterpoint.resume(tmp_path / "run").results["method"] == "mine"


def test_a_broken_method_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def :\n")
    with pytest.raises(SettingsError, match="SyntaxError"):
        run("phantom", tmp_path / "run", method=f"{tmp_path}/broken.py:METHOD")


def test_a_model_that_is_no_network(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'builtins:dict' is not a class of torch\.nn\.Module"):
        run("phantom", tmp_path / "run", model="builtins:dict")


def test_a_card_from_elsewhere_can_only_name_a_network(folder: Path, tmp_path: Path) -> None:
    """A model file whose card names something else than a network has it not called."""
    import json

    from counterpoint.files import read_metadata, read_tensors, write_tensors

    run(folder, tmp_path / "run")
    path = tmp_path / "run" / "models" / "global.safetensors"
    card = json.loads(read_metadata(path)["counterpoint"])
    evil = tmp_path / "evil.safetensors"
    for model in ("os:system", "builtins:exec", "pathlib:Path"):
        card["model"] = model
        write_tensors(evil, read_tensors(path), {"counterpoint": json.dumps(card)})
        with pytest.raises(SettingsError, match=r"not a class of torch\.nn\.Module"):
            counterpoint.load_model(evil)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counterpoint.load_model(path)[1]["classes"] == ["irregular", "round", "scalloped"]


def test_a_folder_that_can_not_be_made_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    replace = os.replace

    def full(source: object, target: object) -> None:
        if str(target).endswith("settings.yaml"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)  # type: ignore[type-var]

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StateError, match=r"disk is full.*nothing is left"):
        run(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    run(folder, tmp_path / "run")


def test_compiled_networks_give_the_same_run(tmp_path, monkeypatch):
    """With a compiler that changes nothing, so that the test need not wait for a real one."""
    used, made = [], []

    def noted(graph, inputs):
        made.append(graph)
        return graph.forward

    def compile_simply(network):
        used.append(network)
        network._compiled_call_impl = torch.compile(network._call_impl, backend=noted)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_simply)
    notes = []
    for compiled in (False, True):
        counterpoint.run(
            "prrfl",
            "phantom",
            out=tmp_path / str(compiled),
            report=lambda event: notes.append(event.get("note", "")),
            compile=compiled,
            statistics="recalibrated",
            **SHORT | {"rounds": 1, "local_epochs": 2},
        )
    one, other = ((tmp_path / str(c) / "scores.csv").read_bytes() for c in (False, True))
    assert one == other
    assert len(used) == 2
    # for training and for scoring, whatever the number of images, and not for each momentum
    assert len(made) == 2
    assert any("torch.compile took" in note for note in notes)


def test_a_compiler_that_fails_is_named(tmp_path, monkeypatch):
    def broken(network):
        network._compiled_call_impl = lambda *args: 1 / 0

    monkeypatch.setattr(torch.nn.Module, "compile", broken)
    with pytest.raises(SettingsError, match=r"torch.compile fails.*compile=true"):
        counterpoint.run("fedavg", "phantom", out=tmp_path / "run", compile=True, **SHORT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"method": "lo', "can't be read: Unterminated string"),
        ("[1]", "can't be read"),
        ("{}", "lacks method, data, task"),
    ],
)
def test_results_that_are_damaged_are_said_in_words(
    tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(StateError, match=f"{words}.*remove it, and `counterpoint resume"):
        _ = counterpoint.Result(tmp_path).table
    (tmp_path / "test_cases.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StateError, match="has no column 'site'"):
        _ = counterpoint.Result(tmp_path).cases


def test_of_a_folder_with_stopped_runs_one_is_named_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"holds none$"):
        runs_in(tmp_path)
    (tmp_path / "fedavg-1").mkdir()
    (tmp_path / "fedavg-1" / "settings.yaml").touch()
    with pytest.raises(StateError, match=r"holds none; go on .* resume .*fedavg-1`$"):
        runs_in(tmp_path)


def test_a_run_of_objects_made_by_hand_goes_on_with_them(folder: Path, tmp_path: Path) -> None:
    method = replace(find_method("fedavg"), name="mine")
    federation = replace(counterpoint.load(folder), source={})
    settings = SHORT | {"rounds": 2}
    counterpoint.run(method, federation, out=tmp_path / "never", settings=settings)
    with pytest.raises(Stopped):
        counterpoint.run(
            method, federation, out=tmp_path / "run", settings=settings, report=stop_in(2)
        )
    with pytest.raises(SettingsError, match="unknown method 'mine'"):
        counterpoint.resume(tmp_path / "run")
    counterpoint.resume(tmp_path / "run", data=federation, method=method)
    assert_same(tmp_path / "run", tmp_path / "never")


def test_an_undefined_score_is_not_replaced_by_that_of_an_earlier_epoch() -> None:
    rows = [("epoch", 1, 0.0), ("epoch", 2, math.nan), ("merged", 0, 0.0)]
    at = {"round": 1, "site": "A", "model": "model", "split": "validation"}
    scores = pd.DataFrame([at | {"moment": m, "epoch": e, "dice": d} for m, e, d in rows])
    assert retrogress(scores, "dice").empty


def test_a_compiler_that_fails_without_a_word_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(network: nn.Module) -> None:
        def fails(*_: object) -> None:
            raise NotImplementedError

        network._compiled_call_impl = fails

    monkeypatch.setattr(nn.Module, "compile", broken)
    with pytest.raises(SettingsError, match=r"fails here \(NotImplementedError.*compile=true"):
        run("phantom", tmp_path / "run", compile=True)
