"""Runs that start from the weights of a file."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from counterpoint import api, resume, run
from counterpoint.errors import SettingsError, StateError
from counterpoint.files import read_tensors
from counterpoint.first import first_predictor
from counterpoint.remote.plan import plan_without_data
from counterpoint.settings import make_settings
from counterpoint.tasks import make_task
from counterpoint.weights import put_weights
from tests.running import SHORT, TINY, Tiny, call, options

ONE = SHORT | TINY | {"rounds": 1}


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr(api, "draw_figures", lambda result: [])


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Of a network for ten classes, as ones from elsewhere are."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "ten.safetensors"
    save_file(Tiny(10).state_dict(), path)
    return path


def first_of(settings, task=None):
    task = task or make_task("classification", ("a", "b", "c"))
    return first_predictor(settings.method, task, (3, 32, 32), settings.seed).network.state_dict()


@pytest.mark.parametrize("method", ["prrfl", "harmofl", "scaffold", "counterpoint"])
def test_what_fits_is_taken_and_what_does_not_is_drawn_by_the_seed(file, method):
    given = read_tensors(file)
    plain, started = (
        first_of(make_settings(method, "phantom", TINY | {"seed": 3} | more))
        for more in ({}, {"weights": str(file)})
    )
    assert plain.keys() == started.keys()
    for name, tensor in started.items():
        wanted = plain[name] if name.startswith("head.") else given.get(name, plain[name])
        assert torch.equal(tensor, wanted), name
    assert not torch.equal(plain["body.0.weight"], started["body.0.weight"])


def test_a_run_begins_there(file, tmp_path):
    """The first scores and the first payload are those of the file's weights."""
    said = []
    result = run(
        "fedavg", "phantom", out=tmp_path / "a", weights=file, report=said.append, lr=1e-9, **ONE
    )
    notes = [event["note"] for event in said if "note" in event]
    assert f"first weights of {file}: 6 of 8 tensors; drawn anew: head.weight, head.bias" in notes
    left = result.model().network.state_dict()
    for name, tensor in read_tensors(file).items():
        if name in ("body.0.weight", "body.1.weight", "body.1.bias"):
            assert torch.allclose(left[name], tensor, atol=1e-6)
    assert result.results["weights"]["file"] == "ten.safetensors"
    assert len(result.results["weights"]["sha256"]) == 64
    assert result.settings["schedule"]["weights"] == str(file)


def test_a_run_goes_on_from_another_ones_model(tmp_path, monkeypatch):
    """A folder of a run is its global model; the path is kept in full."""
    run("fedavg", "phantom", out=tmp_path / "first", **ONE)
    monkeypatch.chdir(tmp_path)
    code, _, told = call(
        "run", "prrfl", "phantom", *options(ONE), "--weights", "first", "--out", "then"
    )
    assert code == 0, told
    assert "8 of 8 tensors\n" in told
    settings = (tmp_path / "then" / "settings.yaml").read_text()
    assert f"weights: {tmp_path / 'first'}" in settings
    code, _, told = call(
        "run", "fedavg", "phantom", *options(ONE), "--weights", "then", "--out", "no"
    )
    assert code == 2
    assert "no run with a global model; name one of its models" in told.replace("\n", " ")
    assert "east.safetensors" in told
    assert not (tmp_path / "no").exists()


def test_a_stopped_run_goes_on_with_the_same_file_only(file, tmp_path):
    own = shutil.copy(file, tmp_path / "own.safetensors")
    more = ONE | {"rounds": 3, "weights": own}
    whole = run("prrfl", "phantom", out=tmp_path / "whole", **more)

    def stop(event):
        if event.get("round") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("prrfl", "phantom", out=tmp_path / "cut", report=stop, **more)
    torch.manual_seed(6)
    save_file(Tiny(10).state_dict(), own)
    with pytest.raises(StateError, match=r"own\.safetensors is not the file of weights"):
        resume(tmp_path / "cut")
    shutil.copy(file, own)
    resume(tmp_path / "cut")
    for name in ("scores.csv", "payloads.csv", "test_cases.csv"):
        assert (whole.path / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()


def test_prefixes_of_other_programs(file):
    given = read_tensors(file)
    for prefix in ("module.", "network."):
        odd = file.with_name(f"{prefix}safetensors")
        save_file({f"{prefix}{n}": t for n, t in given.items()} | {"x": torch.ones(2)}, odd)
        network = Tiny(10)
        done = put_weights(network, odd)
        assert not done.drawn
        assert all(torch.equal(t, given[n]) for n, t in network.state_dict().items())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no file"),
        (b"nothing", "is not a file of named tensors"),
        ({"other": torch.ones(2)}, r"it has 1 tensors \(other \(2,\)"),
        ({"body.0.weight": torch.full((4, 3, 3, 3), torch.nan)}, "body.0.weight in .* not finite"),
        ({"body.1.running_mean": torch.ones(4)}, "nothing in .* fits"),
    ],
)
def test_files_that_will_not_do(content, sentence, tmp_path):
    """Refused before there is a folder."""
    file = tmp_path / "odd.safetensors"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        save_file(content, file)
    with pytest.raises(SettingsError, match=sentence):
        run("fedavg", "phantom", out=tmp_path / "out", weights=file, **ONE)
    assert not (tmp_path / "out").exists()


def test_nothing_is_unpickled(tmp_path):
    torch.save(Tiny(3).state_dict(), tmp_path / "a.pth")
    with pytest.raises(SettingsError, match=r"make a \.safetensors of it where you trust it"):
        run("fedavg", "phantom", out=tmp_path / "out", weights=tmp_path / "a.pth", **ONE)


def test_across_sites_there_is_none(file):
    with pytest.raises(SettingsError, match="leave out --weights"):
        plan_without_data(
            "x", "fedavg", "phantom", ["A", "B"], ["a", "b"], TINY | {"weights": str(file)}
        )
