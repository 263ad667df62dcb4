"""Exported files predict as the model does, and say where it comes from."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import counterpoint
import counterpoint.api
from counterpoint.data.pixels import BadImageError
from counterpoint.data.site import Form
from counterpoint.errors import DataError, SettingsError, StateError
from counterpoint.exporting import FORMATS
from counterpoint.exporting.card import preprocessing
from counterpoint.exporting.portable import FixedAmplitude
from counterpoint.files import write_tensors
from counterpoint.harmonise import AmplitudeLayer, AmplitudeNormalisation, NoHarmoniser
from counterpoint.prediction.reading import read_as_trained
from counterpoint.predictor import build_predictor, load_model, model_card
from tests import running
from tests.test_predict import SMALL, table_of_spots

TINY, DENSE = "tests.networks:Tiny", "tests.networks:Dense"
SUFFIX = {name: one.suffix for name, one in FORMATS.items()}


class Moody(nn.Module):
    """A network that never says the same twice."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(1, num_classes)

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))[:, None]
        return self.head(mean + torch.rand_like(mean))


class Choosy(nn.Module):
    """A network whose way depends on what it sees, so that it is no graph."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(1, num_classes)

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))[:, None]
        return self.head(mean if mean.sum() > 0 else -mean)


def saved(file, model=TINY, shape=(3, 24, 24), harmonise=None, statistics="averaged", **facts):
    """Save a model that has seen images; facts are for its card."""
    harmonise = harmonise or NoHarmoniser()
    dense = model == DENSE
    classes = ("background", "inner", "outer") if dense else ("a", "b, and c", "d")
    torch.manual_seed(3)
    one = build_predictor(model, {}, 3, shape, harmonise, statistics, dense=dense)
    with torch.no_grad():
        for _ in range(3):
            one.train()(torch.rand(4, *shape) * torch.linspace(0.2, 1, shape[-1]))
        for name, tensor in one.named_parameters():
            tensor.add_(torch.randn_like(tensor) * (0.5 if "norm" not in name else 0.1))
    task = "segmentation" if dense else "classification"
    card = model_card(model, {}, task, classes, shape, harmonise, statistics, **facts)
    write_tensors(file, one.state_dict(), card)
    return file


CASES = {
    "plain": {},
    "amplitude": {"harmonise": AmplitudeNormalisation(), "statistics": "batch"},
    "mean": {"harmonise": AmplitudeNormalisation(band="dc")},
    "mask": {"model": DENSE, "harmonise": AmplitudeNormalisation(band=0.4)},
    "mean of volumes": {
        "model": DENSE,
        "shape": (1, 8, 8, 8),
        "harmonise": AmplitudeNormalisation(band="dc"),
        "statistics": "batch",
    },
    "volume": {
        "model": DENSE,
        "shape": (1, 8, 8, 8),
        "harmonise": AmplitudeNormalisation(),
        "statistics": "batch",
    },
}


ALIKE = {("plain", "onnx"), ("plain", "torchscript"), ("mean", "program"), ("mask", "torchscript")}
ALIKE |= {("mean of volumes", "safetensors")}
"""Left out, because another case has the same layers in that format."""


@pytest.mark.parametrize(
    ("case", "format"),
    [(case, format) for case in CASES for format in FORMATS if (case, format) not in ALIKE],
)
def test_every_format_predicts_as_the_model(case, format, tmp_path):
    file = saved(tmp_path / "m.safetensors", **CASES[case])
    out = tmp_path / f"out{SUFFIX[format]}"
    done = counterpoint.export(file, out)
    assert done.random < 1e-5
    assert (done.real, done.precision) == (None, None)
    predictor, card = load_model(file)
    for count in (2, 5):  # other numbers of images than those of the export
        images = torch.rand(count, *card["shape"]) ** 2
        with torch.no_grad():
            wanted = predictor(images)
        logits, shares = FORMATS[format].load(out)(images.numpy())
        assert shares.shape == wanted.shape
        assert np.abs(shares - wanted.softmax(1).numpy()).max() < 1e-5
        assert np.abs(logits - wanted.numpy()).max() < 1e-4
        assert shares.max() - shares.min() > 0.01  # it does say something


@pytest.mark.parametrize("band", ["full", 0.3, 0.9])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 9, 12), (1, 8, 6, 10)])
def test_the_transform_as_matrices(band, shape):
    layer = AmplitudeLayer(shape, band, momentum=0.1)
    layer.train()(torch.rand(4, *shape))
    portable = FixedAmplitude(layer.eval())
    grey = torch.full((1, *shape), 0.3)
    for images in (torch.rand(3, *shape), torch.zeros(1, *shape), grey, torch.rand(1, *shape) - 1):
        assert torch.allclose(portable(images), layer(images), atol=1e-5)


def test_a_layer_that_learnt_nothing_changes_nothing(tmp_path):
    """A site that never trained has no amplitude yet."""
    harmonise = AmplitudeNormalisation()
    one = build_predictor(TINY, {}, 3, (3, 24, 24), harmonise, "averaged")
    card = model_card(
        TINY, {}, "classification", ("a", "b", "c"), (3, 24, 24), harmonise, "averaged"
    )
    write_tensors(tmp_path / "m.safetensors", one.state_dict(), card)
    assert counterpoint.export(tmp_path / "m.safetensors", tmp_path / "m.pt2").random < 1e-6


def test_each_file_holds_its_card(tmp_path):
    file = saved(tmp_path / "m.safetensors", site="A", method="prrfl")
    outs = {name: tmp_path / f"out{suffix}" for name, suffix in SUFFIX.items()}
    for out in outs.values():
        counterpoint.export(file, out)
    metadata = onnx.load(outs["onnx"]).metadata_props
    extra = {"counterpoint.json": ""}
    torch.export.load(outs["program"], extra_files=extra)
    more = {"counterpoint.json": ""}
    torch.jit.load(str(outs["torchscript"]), _extra_files=more)
    cards = [
        {one.key: one.value for one in metadata}["counterpoint"],
        extra["counterpoint.json"],
        more["counterpoint.json"],
    ]
    wanted = load_model(outs["safetensors"])[1]
    assert wanted["classes"] == ["a", "b, and c", "d"]
    assert wanted["site"] == "A"
    assert all(json.loads(card) == wanted for card in cards)


def test_the_run_s_card_and_images(tmp_path, monkeypatch):
    monkeypatch.setattr(counterpoint.api, "draw_figures", lambda result: None)
    data = table_of_spots(tmp_path)
    settings = SMALL | {"precision": "bfloat16", "band": 0.5}
    own = settings | {"finetune_epochs": 1}
    run = counterpoint.run("harmofl", str(data), out=tmp_path / "own", settings=own)
    done = counterpoint.export(tmp_path / "own", tmp_path / "west.onnx", site="west")
    assert done.images == 6
    assert done.real < 1e-5
    assert 0 < done.precision < 0.1
    page = done.card.read_text()
    table = run.table.loc["west"]
    low, high = run.results["intervals"]["west"]["macro_f1"]
    assert done.card == tmp_path / "west.onnx.md"
    for words in (
        "not a medical device",
        "personal model of site west",
        "Data `spots`, split `given`; sites: east, west.",
        f"{100 * table['macro_f1']:.1f} ({100 * low:.1f} to {100 * high:.1f})",
        "amplitude normalisation (band 0.5)",
        "resized to 32x32 pixels",
        "one image alone can't be predicted",
        f"torch {torch.__version__}",
        "on 6 real ones",
        "computed in bfloat16",
        'onnxruntime.InferenceSession("west.onnx")',
    ):
        assert words in page, words
    assert "| east |" not in page
    assert "intervals over images. Of which patients they are is not known" in page
    (proto,) = onnx.load(done.file).metadata_props
    card = json.loads(proto.value)
    assert card["test"] == {"west": run.results["test"]["west"]}
    assert str(tmp_path) not in proto.value + page  # no paths of the training data
    counterpoint.run("harmofl", str(data), out=tmp_path / "run", settings=settings)
    whole = counterpoint.export(tmp_path / "run", tmp_path / "all.safetensors", site="west")
    assert "| east |" in whole.card.read_text()  # it is everybody's, whoever asks
    assert "personal" not in whole.card.read_text()
    images = [tmp_path / f"{number}.png" for number in range(3)]
    one, other = (counterpoint.predict(m, images) for m in (tmp_path / "run", whole.file))
    assert one.equals(other)


def test_the_card_says_which_round_and_its_tables_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(counterpoint.api, "draw_figures", lambda result: None)
    data = table_of_spots(tmp_path)
    data.write_text(data.read_text().replace("west", "we|st").replace("small", "sm|all"))
    settings = SMALL | {"rounds": 3, "select_last": 0.67}
    run = counterpoint.run("fedavg", str(data), out=tmp_path / "a", settings=settings)
    page = counterpoint.export(tmp_path / "a", tmp_path / "a.safetensors").card.read_text()
    number = run.results["chosen_round"]
    assert f"3 rounds; of rounds 2 to 3, validation chose the model of round {number}." in page
    assert "| we\\|st |" in page
    assert "| 1 | sm\\|all |" in page
    tuned = settings | {"finetune_epochs": 2}
    counterpoint.run("fedavg", str(data), out=tmp_path / "b", settings=tuned)
    done = counterpoint.export(tmp_path / "b", tmp_path / "b.safetensors", site="east")
    page = done.card.read_text()
    assert "validation chose" not in page
    assert "3 rounds; the model is that of the last round, then trained 2 more epochs" in page


def test_the_card_says_what_is_done_to_dicom_and_to_many_bits():
    shape = {"shape": [3, 24, 24]}
    own, given, whole = (
        preprocessing(SimpleNamespace(size=24, form=form, card=shape))
        for form in (Form(), Form(window=(-100, 300)), Form("whole"))
    )
    for words in (own, given, whole):
        assert "First come the file's slope and intercept (of DICOM each slice's own" in words
        assert "MONOCHROME1, in which small values are white, is turned" in words
    for words in (own, whole):
        assert "or a file with several slices, the middle slice's for all of them" in words
    assert "the range from -100 to 300 in these units" in given
    assert "by 65535 where grey, or colour in PNG or TIFF, has more than 8 bits" in own


def test_a_folder_by_the_name_of_a_data_set_has_its_own_terms(tmp_path, monkeypatch):
    monkeypatch.setattr(counterpoint.api, "draw_figures", lambda result: None)
    data = table_of_spots(tmp_path)
    table = pd.read_csv(data).assign(group=lambda t: t.index)
    (data.parent / "retina").mkdir()
    for kind in ("image", "mask"):
        table[kind] = [f"../{name}" for name in table[kind]]
    table.to_csv(data.parent / "retina" / "labels.csv", index=False)
    folder = data.parent / "retina" / "labels.csv"
    counterpoint.run("fedavg", str(folder), out=tmp_path / "run", settings=SMALL | {"rounds": 1})
    monkeypatch.setattr("counterpoint.exporting.card.Result.results", property(as_if_of_retina))
    page = counterpoint.export(tmp_path / "run", tmp_path / "all.safetensors").card.read_text()
    assert "Data `retina`" in page
    assert "The images have their own terms." in page
    assert "intervals over patients." in page


def as_if_of_retina(result):
    """A run's results, on data that are called as a data set is."""
    return json.loads((result.path / "results.json").read_text()) | {"data": "retina"}


def test_broken_images_of_the_run_are_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(counterpoint.api, "draw_figures", lambda result: None)
    data = table_of_spots(tmp_path)
    run = counterpoint.run(
        "fedavg", str(data), out=tmp_path / "run", settings=SMALL | {"rounds": 1}
    )
    table, site = pd.read_csv(data), next(iter(run.results["test"]))
    first = table[(table["split"] == "test") & (table["site"] == site)].iloc[0]
    monkeypatch.setattr(
        "counterpoint.exporting.compare.read_as_trained",
        lambda path, chosen: broken(path, chosen, str(first["image"])),
    )
    done = counterpoint.export(tmp_path / "run", tmp_path / "all.safetensors")
    assert done.images == 5


def broken(path, chosen, name):
    """Read an image, unless it is the one of a name."""
    if path.endswith(f"/{name}"):
        raise BadImageError("a broken image", "image")
    return read_as_trained(path, chosen)


def test_what_can_t_be_run_or_written_whole_is_not_left(tmp_path, monkeypatch):
    file = saved(tmp_path / "m.safetensors")

    def fails(*given):
        raise RuntimeError("no such\n operator")

    kind = FORMATS["torchscript"]
    with monkeypatch.context() as patched:
        patched.setitem(FORMATS, "torchscript", replace(kind, load=lambda path: fails))
        with pytest.raises(StateError, match=r"can't be run \(no such operator\)"):
            counterpoint.export(file, tmp_path / "m.ts")
    monkeypatch.setattr("counterpoint.exporting.api.write_text", fails)
    with pytest.raises(RuntimeError):
        counterpoint.export(file, tmp_path / "m.ts")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_what_differs_is_not_left(tmp_path):
    file = saved(tmp_path / "m.safetensors", model="tests.test_export:Moody")
    for format in FORMATS:
        with pytest.raises(StateError, match="does not predict as the model does"):
            counterpoint.export(file, tmp_path / f"out{SUFFIX[format]}")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_network_that_is_no_graph(tmp_path):
    file = saved(tmp_path / "m.safetensors", model="tests.test_export:Choosy")
    with pytest.raises(StateError, match="can't be captured as a graph"):
        counterpoint.export(file, tmp_path / "m.pt2")
    assert counterpoint.export(file, tmp_path / "again.safetensors").random == 0


def test_wrong_words(tmp_path):
    file = saved(tmp_path / "m.safetensors")
    with pytest.raises(SettingsError, match=r"suffix does not say.*\.onnx \(onnx\)"):
        counterpoint.export(file, tmp_path / "m.bin")
    with pytest.raises(SettingsError, match="unknown format 'onx'; did you mean 'onnx'"):
        counterpoint.export(file, tmp_path / "m.bin", format="onx")
    with pytest.raises(SettingsError, match=r"m\.safetensors exists already"):
        counterpoint.export(file, file)
    (tmp_path / "m.pt2.md").write_text("mine")
    with pytest.raises(SettingsError, match=r"m\.pt2\.md exists already"):
        counterpoint.export(file, tmp_path / "m.pt2")
    (tmp_path / "broken.png").write_text("none")
    with pytest.raises(DataError, match="compare on is broken"):
        counterpoint.export(file, tmp_path / "m.ts", images=tmp_path / "broken.png")
    assert not (tmp_path / "m.ts").exists()


def test_without_the_packages(tmp_path, monkeypatch):
    file = saved(tmp_path / "m.safetensors")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"onnxruntime; pip install 'counterpoint\[export\]'"):
        counterpoint.export(file, tmp_path / "m.onnx")


def test_the_command(tmp_path):
    file = saved(tmp_path / "m.safetensors")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(
        tmp_path / "a.png"
    )
    words = ["export", file, "--out", tmp_path / "m.model", "--format", "program"]
    code, out, err = running.ended(running.start(*words, "--images", tmp_path / "a.png"))
    assert (code, err) == (0, "")
    assert "on 1 real one" in out
    assert torch.export.load(tmp_path / "m.model") is not None
    code, _, err = running.call(*words)
    assert code == 2
    assert "exists already" in err
    code, out, err = running.call("export", file, "--out", tmp_path / "m.ts", "--json")
    assert code == 0
    assert "random images only" in err
    assert json.loads(out)["real"] is None
