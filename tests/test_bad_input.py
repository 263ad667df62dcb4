"""Wrong usage, bad data and training that fails: a sentence that names the cause, an exit code."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from counterpoint import run
from counterpoint.data import write_phantom
from counterpoint.errors import PayloadError, StateError, TrainingError
from counterpoint.folder import RunFolder
from counterpoint.results import Result
from counterpoint.server import WeightedMean
from tests.running import SHORT, TINY, call, ended, options, start

MEANT = "; did you mean"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Return a folder of own data: three sites with a folder each."""
    folder = write_phantom(tmp_path_factory.mktemp("clean") / "data", size=32, scale=0.1)
    shutil.rmtree(folder / "south")
    return folder


@pytest.fixture
def data(clean, tmp_path):
    """Return a copy of it to spoil."""
    return Path(shutil.copytree(clean, tmp_path / "data"))


@pytest.fixture
def train(tmp_path):
    """Return a function that runs `counterpoint run` on data with the settings of a short run."""

    def train(data: Path | str, *arguments: object, method: str = "fedavg", **settings):
        chosen = options(SHORT | TINY | {"rounds": 1} | settings)
        return call("run", method, data, "--out", tmp_path / "run", *chosen, *arguments)

    return train


def refused(answer: tuple[int, str, str], tmp_path: Path, *words: str, code: int = 2) -> None:
    """A command failed with these words, in one sentence, and has made no folder."""
    found, _, errors = answer
    assert found == code, answer
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    for word in words:
        assert word in errors
    assert not (tmp_path / "run").exists()


# Names and settings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prfl", "phantom"), ["unknown method 'prfl'", f"{MEANT} 'prrfl'", "silobn"]),
        (("no_such_file.py:METHOD", "phantom"), ["can't import no_such_file.py"]),
        (("counterpoint.methods.prrfl:X", "phantom"), ["no Method named 'X'"]),
        (("prrfl", "fantom"), ["'fantom' is neither", f"{MEANT} 'phantom'"]),
        (("prrfl", "dermoscopy"), ["dermoscopy needs root"]),
        (("prrfl", "dermoscopy", "--root", "nowhere"), ["nowhere"]),
        (("prrfl", "phantom", "--root", "x"), ["phantom is built in and takes no root"]),
        (("prrfl", "phantom", "--sites", "east,wets"), ["unknown site 'wets'", f"{MEANT} 'west'"]),
        (("prrfl", "phantom", "--sites", "east"), ["two or more sites", "only one ('east')"]),
        (("prrfl", "phantom", "--protocol", "groupd"), [f"'groupd' for phantom{MEANT} 'grouped'"]),
        (("prrfl", "phantom", "--set", "exchnage=0.5"), [f"'exchnage'{MEANT} 'exchange'"]),
        (("prrfl", "phantom", "--set", "local.mu=1"), ["unknown setting 'local.mu'"]),
        (("prrfl", "phantom", "--set", "kind=1"), ["unknown setting 'kind'"]),
        (("prrfl", "phantom", "--set", "rounds"), ["write it as NAME=VALUE"]),
        (("prrfl", "phantom", "--set", "rounds=["), ["can't read '['"]),
        (("prrfl", "phantom", "--set", "sublimate=0.1"), ["exchange <= sublimate"]),
        (("prrfl", "phantom", "--set", "seed=-1"), ["setting seed", "-1"]),
        (("prrfl", "phantom", "--rounds", "0"), ["setting schedule.rounds", "got 0"]),
        (("prrfl", "phantom", "--batch-size", "1"), ["setting schedule.batch_size", "got 1"]),
        (("prrfl", "phantom", "--image-size", "4"), ["setting schedule.image_size", "got 4"]),
        (("prrfl", "phantom", "--lr", "-1"), ["setting schedule.lr", "got -1"]),
        (("prrfl", "phantom", "--lr", "inf"), ["setting schedule.lr", "got inf"]),
        (("prrfl", "phantom", "--lr", "1e39"), ["setting schedule.lr", "got 1e+39"]),
        (("prrfl", "phantom", "--lr", "nan"), ["setting schedule.lr", "got nan"]),
        (("prrfl", "phantom", "--optimizer", "adma"), ["schedule.optimizer", "got 'adma'", "adam"]),
        (("prrfl", "phantom", "--local", "deputty"), [f"unknown local 'deputty'{MEANT} 'deputy'"]),
        (("prrfl", "phantom", "--statistics", "loca"), ["setting statistics", "got 'loca'"]),
        (("prrfl", "phantom", "--train-limit", "1"), ["train_limit is 1"]),
        (("prrfl", "phantom", "--device", "cuda:77"), ["device 'cuda:77' can't be used here"]),
        (("prrfl", "phantom", "--device", "gpu"), ["device 'gpu' can't be used here"]),
        (("prrfl", "phantom", "--workers", "0"), ["setting machine.workers", "got 0"]),
        (("prrfl", "phantom", "--config", "no.yaml"), ["settings file no.yaml"]),
    ],
)
def test_unknown_names_and_values(tmp_path, arguments, words):
    refused(call("run", *arguments, "--out", tmp_path / "run"), tmp_path, *words)


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ("slim-vgg61", None, [f"unknown model 'slim-vgg61'{MEANT} 'slim-vgg16'"]),
        ("tests.runing:Tiny", None, ["can't import tests.runing"]),
        ("tests.running:Tinny", None, [f"has no 'Tinny'{MEANT} 'Tiny'"]),
        (
            "tests.running:TINY",
            None,
            ["is not a class of torch.nn.Module"],
        ),
        ("tests.running:Breaks", None, ["can't be made with {'num_classes': 3}", "'at'"]),
        ("tests.running:Tiny", "{wide: 2}", ["can't be made", "'wide'"]),
        ("tests.running:Tiny", "{num_classes: 5}", ["shape (2, 5)", "(2, 3)", "--model-options"]),
        ("torch.nn:Identity", None, ["shape (2, 3, 32, 32) for two images", "needs (2, 3)"]),
        ("torch.nn:Linear", "{in_features: 4, out_features: 3}", ["can't take images", "32x32"]),
    ],
)
def test_models_that_do_not_fit(clean, tmp_path, train, model, given, words):
    more = ("--model-options", given) if given else ()
    refused(train(clean, *more, model=model), tmp_path, *words)


def test_model_options_reach_the_model(clean, tmp_path, train):
    """By option, by --set and from a file: all give a network that breaks in batch 1."""
    broken = ["round 1, ", "site 'east'", "loss of the model is nan"]
    file = tmp_path / "settings.yaml"
    file.write_text("schedule: {model_options: {at: 1}}\n")
    for more in (
        ("--model-options", "{at: 1}"),
        ("--set", "model_options={at: 1}"),
        ("--set", "schedule.model_options={at: 1}"),
        ("--config", file),
    ):
        code, _, errors = train(clean, *more, model="tests.running:Breaks")
        assert (code, [word for word in broken if word not in errors]) == (1, []), errors
        shutil.rmtree(tmp_path / "run")


def test_an_unknown_option_and_an_unknown_command(tmp_path):
    code, _, errors = call("run", "prrfl", "phantom", "--out", tmp_path / "run", "--roundz", "3")
    told = re.search(r"No such option:? '?--roundz'?", errors)  # by the version of click
    assert (code, bool(told), "--rounds" in errors.replace("--roundz", "")) == (2, True, True)
    code, _, errors = call("rum", "prrfl", "phantom")
    assert (code, "No such command 'rum'" in errors) == (2, True)
    refused(call("methods", "prfl"), tmp_path, f"{MEANT} 'prrfl'")
    refused(call("inspect", "fantom"), tmp_path, f"{MEANT} 'phantom'")


def test_a_process_says_it_in_a_sentence(tmp_path):
    """As the other tests here, but really from the outside."""
    process = start("run", "prfl", "phantom", "--out", tmp_path / "run")
    refused(ended(process), tmp_path, f"unknown method 'prfl'{MEANT} 'prrfl'")


# Data


def truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def edit(path: Path, change) -> None:
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join(line) + "\n" for line in change(lines)))


@pytest.mark.parametrize("spoil", [truncate, Path.unlink, lambda path: path.write_text("no image")])
def test_a_bad_file_is_named_or_left_out(data, tmp_path, train, spoil):
    bad = data / "north" / "images" / "0004.png"
    spoil(bad)
    refused(train(data), tmp_path, "site 'north'", "1 of 2", str(bad), "--skip-bad")
    code, printed, errors = train(data, "--skip-bad")
    assert (code, "error" in errors) == (0, False)
    (note,) = [n for n in Result(tmp_path / "run").results["data_notes"] if "left out" in n]
    assert "site 'north'" in note
    assert str(bad) in note
    assert "left out" in " ".join((printed + errors).split())
    code, shown, errors = call("inspect", data, "--skip-bad")
    assert (code, str(bad) in shown + errors) == (0, True)


def test_a_site_of_bad_files_only(data, tmp_path, train):
    for image in (data / "west" / "images").iterdir():
        image.write_text(f"no image {image.name}")
    refused(train(data, "--skip-bad"), tmp_path, "site 'west' has no images")
    refused(train(data), tmp_path, "site 'west'", "can't be decoded")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: [["image", "mask", "lable", "group"], *t[1:]], ["no column 'label'", "'lable'"]),
        (lambda t: t[:1], ["has a first line but no rows"]),
        (lambda t: [*t[:3], [*t[3][:2], "", t[3][3]], *t[4:]], ["line 4: no value in", "'label'"]),
        (lambda t: [*t[:3], t[3][:2], *t[4:]], ["line 4: 2 values but 4 columns"]),
        (lambda t: [*t[:3], t[2], *t[4:]], ["line 4", "is already in line 3"]),
        (lambda t: t[:4], ["site 'east' has too few"]),
        (lambda t: [t[0], *([*r[:2], "nevus", r[3]] for r in t[1:])], ["of class 'nevus'"]),
    ],
)
def test_a_bad_table_is_named(data, tmp_path, train, change, words):
    edit(data / "east" / "labels.csv", change)
    refused(train(data), tmp_path, "east", *words)


def test_own_data_of_one_site_or_none(data, tmp_path, train):
    shutil.rmtree(data / "west")
    shutil.rmtree(data / "north")
    refused(train(data), tmp_path, "two or more sites", "only one ('east')")
    shutil.rmtree(data / "east")
    refused(train(data), tmp_path, "neither a labels.csv nor folders with one")
    refused(train(tmp_path / "nothing.csv"), tmp_path, "neither a data set")


# Training that fails


def test_a_loss_that_is_not_finite(clean, tmp_path, train):
    code, _, errors = train(clean, lr=1e30)
    assert code == 1
    for word in ("round 1, local epoch 1, site 'east'", "loss of the model is nan", "(--lr)"):
        assert word in errors
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_later_failure_leaves_the_last_good_round(clean, tmp_path):
    """East breaks in its second batch of round 2; what round 1 left is whole, and stays so."""
    one = {**SHORT, "batch_size": 16, "sites": ["east", "west"], "train_limit": 16}
    settings = one | {"model": "tests.running:Breaks", "model_options": {"at": 3}}
    settings |= {"local_epochs": 2, "rounds": 3}
    where = r"round 2, local epoch 1, site 'east': the loss of the model is nan"
    with pytest.raises(TrainingError, match=where):
        run("fedbn", str(clean), out=tmp_path / "run", settings=settings)
    for _ in range(2):  # to go on gives the same error again
        saved, damaged = RunFolder.open(tmp_path / "run").latest()
        assert (saved.round, damaged) == (1, [])
        code, _, errors = call("resume", tmp_path / "run")
        assert (code, "round 2, local epoch 1, site 'east'" in errors) == (1, True)
    with pytest.raises(StateError, match="no results yet; go on with"):
        _ = Result(tmp_path / "run").results


def test_a_payload_that_is_not_finite(clean, tmp_path, train):
    """No loss shows it: the server refuses what the site sends."""
    code, _, errors = train(clean, model="tests.running:Overflows")
    assert code == 1
    assert "round 1: site 'east' sent 'spare' with a number that is not finite" in errors
    assert not list((tmp_path / "run" / "state").glob("round-*"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_the_mean_takes_no_bad_payload(value):
    mean = WeightedMean()
    good = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([0.5])}
    mean.add("A", good)
    spoilt = {"w": torch.tensor([0.0, value]), "b": torch.tensor([0.5])}
    with pytest.raises(PayloadError, match=r"site 'B' sent 'w' with a number that is not finite"):
        mean.add("B", spoilt)
    with pytest.raises(PayloadError, match=r"site 'B' sent 'w' as \(1,\), .* as \(2,\)"):
        mean.add("B", good | {"w": torch.zeros(1)})
    with pytest.raises(PayloadError, match=r"site 'B' sent other names .* 'b'"):
        mean.add("B", {"w": good["w"]})
    with pytest.raises(ValueError, match="weight of site 'B'"):
        mean.add("B", good, weight=0)
    assert {name: tensor.tolist() for name, tensor in mean.result().items()} == {
        "w": [1.0, 2.0],
        "b": [0.5],
    }
