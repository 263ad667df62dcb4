"""Segmentation from end to end: masks move with images, runs in 2-D and 3-D, and errors."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage
from sklearn import metrics
from torch import nn

import counterpoint
from counterpoint import api
from counterpoint.data import decode, load, write_phantom
from counterpoint.data.augment import AUGMENTATIONS, flip, shift_scale_rotate
from counterpoint.data.batches import Batch
from counterpoint.errors import DataError, SettingsError
from counterpoint.files import write_tensors
from counterpoint.harmonise import AmplitudeLayer, AmplitudeNormalisation, NoHarmoniser
from counterpoint.local import DeputyTransfer, Training
from counterpoint.predictor import build_predictor, load_model, model_card
from counterpoint.results import Result
from counterpoint.tasks import Segmentation
from tests.running import call, options

SITES = ["A", "B"]
PARTS = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
SHORT = {
    "rounds": 1,
    "local_epochs": 1,
    "batch_size": 4,
    "image_size": 16,
    "workers": 1,
    "threads": 1,
}
SMALL = SHORT | {"model": "unet", "model_options": "{features: 2}"}
DENSE = SMALL | {"task": "segmentation"}
DRAW_FIGURES = api.draw_figures


@pytest.fixture(scope="module", autouse=True)
def _no_figures():
    """Draw nothing: it takes longer than all else in such a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "draw_figures", lambda result: [])
        yield


# Augmentation and harmonising


@given(st.integers(0, 10**6), st.sampled_from([(5, 5), (6, 4), (3, 4, 5)]), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_flips_move_masks_with_images(seed, shape, n):
    drawn = np.random.default_rng(seed)
    masks = torch.from_numpy(drawn.integers(-1, 3, (n, *shape)))
    images = torch.stack([masks.float(), masks.float() ** 2], 1)
    order = torch.Generator().manual_seed(seed)
    found, moved = flip(images, masks, order)
    assert torch.equal(found[:, 0], moved.float())
    assert torch.equal(found[:, 1], moved.float() ** 2)
    for one, other in zip(masks.numpy(), moved.numpy(), strict=True):
        axes = range(one.ndim)
        ways = [[a for a in axes if number >> a & 1] for number in range(2**one.ndim)]
        assert any((np.flip(one, way) == other).all() for way in ways)


def test_every_image_is_flipped_for_itself_along_every_axis():
    cube = torch.arange(8.0).reshape(2, 2, 2)
    images = cube.expand(200, 1, 2, 2, 2)
    found, none = flip(images, None, torch.Generator().manual_seed(0))
    assert none is None
    kinds, counts = found.flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8
    assert counts.min() > 10


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_moved_masks_stay_on_their_images(seed):
    """A smooth outline is the same after both ways of interpolation, but for a pixel at it."""
    size, n = 32, 4
    noise = np.random.default_rng(seed).normal(size=(n, size, size))
    blobs = ndimage.gaussian_filter(noise, (0, 4, 4)) > 0
    masks = torch.from_numpy(blobs.astype(np.int64))
    images = torch.stack([masks.float(), torch.ones(n, size, size)], 1)
    order = torch.Generator().manual_seed(seed)
    found, moved = shift_scale_rotate(images, masks, order, 0.1, 0.1, 15, p=0.9)
    shown, inside = found[:, 0].numpy(), found[:, 1].numpy()
    new = moved.numpy()
    # what comes into view is black and not scored; nothing else is
    assert (new[inside == 0] == -1).all()
    assert (new[inside > 0.999] >= 0).all()
    clear = (inside > 0.999) & (np.abs(shown - 0.5) > 0.49)  # no border between the four pixels
    assert clear.mean() > 0.4
    assert ((shown > 0.5) == (new == 1))[clear].all()
    # and beside a border the nearest pixel weighs a quarter at least
    away = (inside > 0.999) & (np.abs(shown - new) > 0.75 + 1e-4)
    assert not away.any()


def test_nothing_moves_with_a_probability_of_0():
    images, masks = torch.rand(3, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.long)
    found, moved = shift_scale_rotate(images, masks, torch.Generator(), 0.5, 0.5, 90, p=0)
    assert torch.equal(found, images)
    assert torch.equal(moved, masks)


@pytest.mark.parametrize("name", ["flips", "none", "prrfl"])
def test_ignored_pixels_stay_ignored(name):
    """A ring that is not scored around what is: no augmentation brings it back."""
    masks = torch.full((40, 32, 32), -1)
    masks[:, 8:24, 8:24] = 1
    images = (masks > 0).float()[:, None].expand(-1, 3, -1, -1)
    found, moved = AUGMENTATIONS[name](images, masks, torch.Generator().manual_seed(1))
    assert set(moved.unique().tolist()) == {-1, 1}
    share = (moved > 0).float().mean().item()
    assert share == pytest.approx(0.25, rel=0.1)
    assert found.shape == images.shape


def by_fft(x, amplitude, kept):
    """Give x (C, D, H, W) the amplitude where ``kept`` and leave it its phase, with numpy."""
    axes = (1, 2, 3)
    spectrum = np.fft.fftn(x, axes=axes)
    new = np.where(kept, amplitude * np.exp(1j * np.angle(spectrum)), spectrum)
    back = np.fft.ifftn(new, axes=axes)
    assert np.abs(back.imag).max() < 1e-9
    return back.real


@pytest.mark.parametrize("shape", [(1, 6, 4, 8), (2, 5, 7, 6)])
@pytest.mark.parametrize("band", ["full", "dc", 0.6])
def test_amplitude_normalisation_of_volumes_is_that_of_numpy(band, shape):
    drawn = np.random.default_rng(0)
    seen, x = drawn.random((3, *shape)), drawn.random((2, *shape))
    layer = AmplitudeLayer(shape, band, momentum=0.3).train()
    layer(torch.from_numpy(seen[:2]).float())
    layer(torch.from_numpy(seen[2:]).float())
    layer.freeze()
    found = layer.eval()(torch.from_numpy(x).float()).numpy()
    each = np.abs(np.fft.fftn(seen, axes=(2, 3, 4)))
    amplitude = 0.7 * each[:2].mean(0) + 0.3 * each[2]
    sides = np.meshgrid(*[np.abs(np.fft.fftfreq(n, 1 / n)) for n in shape[1:]], indexing="ij")
    radius = {"full": 1, "dc": 0}.get(band, band)
    within = [side <= int(n * radius / 2) for side, n in zip(sides, shape[1:], strict=True)]
    kept = np.logical_and.reduce(within)
    assert 0 < kept.sum() == (kept.size if band == "full" else 1 if band == "dc" else kept.sum())
    wanted = np.stack([by_fft(one, amplitude, kept) for one in x])
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert np.abs(found - x).max() > 1e-3


# Models


@pytest.mark.parametrize(
    ("shape", "model", "model_options"),
    [
        ((3, 16, 16), "unet", {"features": 2}),
        ((1, 16, 16, 16), "unet", {"features": 2, "affine": False}),
        (
            (1, 16, 16, 16),
            "monai.networks.nets:UNet",
            {"channels": [2, 4], "strides": [2], "norm": "batch"},
        ),
    ],
)
@pytest.mark.parametrize("harmonise", [NoHarmoniser(), AmplitudeNormalisation(band=0.5)])
def test_a_saved_predictor_is_loaded_again(shape, model, model_options, harmonise, tmp_path):
    classes = ("background", "left", "right")
    one = build_predictor(model, model_options, 3, shape, harmonise, "averaged", dense=True)
    images = torch.rand(2, *shape)
    with torch.no_grad():
        for _ in range(3):  # statistics and amplitudes of their own
            one.train()(images)
    card = model_card(
        model, model_options, "segmentation", classes, shape, harmonise, "averaged", site="A"
    )
    write_tensors(tmp_path / "m.safetensors", one.state_dict(), card)
    other, found = load_model(tmp_path / "m.safetensors")
    assert not other.training
    assert (found["task"], found["classes"]) == ("segmentation", list(classes))
    assert (found["shape"], found["site"]) == (list(shape), "A")
    with torch.no_grad():
        wanted = one.eval()(images)
        assert torch.equal(other(images), wanted)
        fresh = build_predictor(model, model_options, 3, shape, harmonise, "averaged", dense=True)
        assert not torch.equal(fresh.eval()(images), wanted)
    assert wanted.shape == (2, 3, *shape[1:])


class Says(nn.Module):
    """A network that gives the same masks whatever it sees."""

    def __init__(self, masks):
        super().__init__()
        self.logits = nn.functional.one_hot(masks, 2).movedim(-1, 1).float()

    def forward(self, images):
        return self.logits[: len(images)]


@pytest.mark.parametrize(
    ("pixels", "before", "stage"),
    [
        (4, "recover", "recover"),  # Dice 8/14, below 0.7
        (6, "recover", "exchange"),  # Dice 12/16
        (9, "recover", "exchange"),  # Dice 18/19, but first they must exchange
        (9, "exchange", "sublimate"),
        (8, "sublimate", "sublimate"),  # Dice 16/18... of a personal model with 18/19
        (6, "sublimate", "exchange"),
        (4, "sublimate", "recover"),
    ],
)
def test_the_stages_of_the_deputy_go_by_dice(pixels, before, stage):
    target = torch.zeros(2, 5, 8, dtype=torch.long)
    target[:, 0] = target[:, 1, :2] = 1  # 10 pixels an image
    target[:, 4] = -1

    def finds(count):
        masks = torch.zeros_like(target)
        masks.view(2, -1)[:, :count] = 1
        masks[:, 4] = 1  # not scored
        return Says(masks)

    personal = 9 if before == "sublimate" else 10
    training = Training(
        models={"personal": finds(personal), "deputy": finds(pixels)},
        optimizers={},
        task=Segmentation(("background", "vessel")),
        batches=lambda: iter([]),
        plain_batches=lambda: iter([Batch(torch.zeros(2, 3, 5, 8), target, torch.arange(2))]),
        epochs=2,
    )
    phi = training.training_scores()
    wanted = {"personal": 2 * personal / (personal + 10), "deputy": 2 * pixels / (pixels + 10)}
    assert phi == pytest.approx(wanted, abs=1e-6)
    assert DeputyTransfer(exchange=0.7, sublimate=0.9).stage_of(training, before, {}) == stage


# Runs


def write_table(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def picture(path, values):
    Image.fromarray(values).save(path)
    return path.name


def disc(size, radius, *places):
    """A ball (or disc) of 1 around a place."""
    grid = np.meshgrid(*[np.arange(size)] * len(places), indexing="ij")
    far = sum((axis - place) ** 2 for axis, place in zip(grid, places, strict=True))
    return (far <= radius**2).astype(np.uint8)


def photographs(folder, spoil=False, fov=True):
    """Two sites with discs, patients and a field of view; what lies outside it may be wrong."""
    folder.mkdir()
    drawn = np.random.default_rng(5)
    rows = []
    seen = disc(20, 8, 10, 10)
    for site in SITES:
        for number, part in enumerate(PARTS):
            mask = disc(20, 4, *drawn.integers(8, 12, 2))
            image = drawn.integers(0, 90, (20, 20, 3)) + 120 * mask[..., None]
            wrong = drawn.integers(0, 2, (20, 20)).astype(np.uint8)
            mask = np.where(seen, mask, wrong if spoil else mask)
            name = f"{site}{number}"
            row = {
                "site": site,
                "image": picture(folder / f"{name}.png", image.astype(np.uint8)),
                "mask": picture(folder / f"{name}-mask.png", 255 * mask),
                "split": part,
                "patient": f"secret{site}{number // 2 if part != 'test' else 9}",
            }
            if fov:
                row["fov"] = picture(folder / f"{name}-fov.png", 255 * seen)
            rows.append(row)
    return write_table(folder, rows)


def run(method, data, out, **settings):
    """Run the command line in this process."""
    code, shown, said = call("run", method, data, *options(settings), "--out", out)
    assert code == 0, said
    return Result(out), shown


def refused(data, out, *words, method="fedavg", **settings):
    """Run the command line, which must refuse with all words and leave nothing."""
    code, _, said = call("run", method, data, *options(settings), "--out", out)
    assert code == 2, said
    for word in words:
        assert word in said, said
    assert not out.exists()


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    return photographs(tmp_path_factory.mktemp("eyes") / "data", spoil=True)


@pytest.fixture(scope="module")
def trained(eyes, tmp_path_factory):
    """A run of PRR-FL with its folder."""
    out = tmp_path_factory.mktemp("trained") / "run"
    settings = DENSE | {"rounds": 2, "local_epochs": 3, "lr": 0.01}
    return run("prrfl", eyes, out, **settings)


def test_what_lies_outside_the_field_of_view_changes_nothing(trained, eyes, tmp_path):
    """All pixels outside are wrong, or none is: not a bit differs but in the masks."""
    right = photographs(tmp_path / "right")
    settings = DENSE | {"rounds": 2, "local_epochs": 3, "lr": 0.01}
    other, _ = run("prrfl", right, tmp_path / "run", **settings)
    for name in ("scores.csv", "test_cases.csv", "payloads.csv"):
        assert (other.path / name).read_bytes() == (trained[0].path / name).read_bytes(), name
    assert other.results["test"] == trained[0].results["test"]
    # and without a field of view it does matter
    rows = pd.read_csv(eyes)
    bare = eyes.with_name("bare.csv")
    rows.drop(columns="fov").to_csv(bare, index=False)
    whole, _ = run("prrfl", bare, tmp_path / "bare", **settings)
    assert whole.results["test"] != other.results["test"]


def test_scores_of_a_run_by_hand(trained, eyes):
    """Of the personal model that was left, on the pixels within the field of view."""
    result, shown = trained
    _, sites = decode(load(eyes), 16)
    for data in sites:
        model = result.model(data.name)
        part = data.part("test")
        images = torch.from_numpy(part.images[part.rows].astype(np.float32) / 255)
        with torch.no_grad():
            found = model(images).argmax(1).numpy()
        wanted = []
        for mask, one in zip(part.targets[part.rows], found, strict=True):
            scored = mask != 255
            assert 0.3 < scored.mean() < 0.7
            wanted.append(metrics.f1_score(mask[scored], one[scored]))
        scores = result.results["test"][data.name]
        assert scores["dice"] == pytest.approx(np.mean(wanted), abs=1e-6)
        rows = result.cases[result.cases["site"] == data.name].sort_values("case")
        assert rows["dice"].tolist() == pytest.approx(wanted, abs=1e-6)
        assert f"{100 * scores['dice']:.1f}" in shown


def test_stages_are_logged_with_dice(trained):
    scores = trained[0].scores
    epochs = scores[scores["moment"] == "epoch"]
    assert set(epochs.loc[epochs["epoch"] == 1, "stage"]) == {"recover"}
    assert set(epochs["stage"]) <= {"recover", "exchange", "sublimate"}
    assert epochs["dice"].between(0, 1).all()
    assert epochs["hd95"].isna().all()  # slow, so of the test images only
    assert "macro_f1" not in scores


def test_test_cases_name_no_file_and_no_patient(trained, eyes):
    text = (trained[0].path / "test_cases.csv").read_text()
    for word in ("secret", ".png", str(eyes.parent)):
        assert word not in text
    rows = trained[0].cases
    metrics_ = ["dice", "dice_with_background", "iou", "sensitivity", "specificity"]
    metrics_ += ["hd95", "hd95_mm"]
    assert list(rows) == ["site", "case", "group", *metrics_]
    assert rows.groupby("site")["case"].apply(list).to_dict() == {"A": [6, 7], "B": [6, 7]}


def test_one_patient_has_no_interval(trained):
    """All test images of a site are one patient's here, so that every draw is the same."""
    values = trained[0].results
    for site in SITES:
        assert values["test"][site]["dice"] is not None
        assert set(map(tuple, values["intervals"][site].values())) == {(None, None)}


def test_the_phantom_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "draw_figures", DRAW_FIGURES)
    out = tmp_path / "run"
    words = ["--task", "segmentation", "--model", "unet", "--model-options", "{features: 4}"]
    words += [*options(SHORT | {"train_limit": 8}), "--sites", "west,south", "--out", out]
    code, shown, said = call("run", "fedavg", "phantom", *words)
    assert code == 0, said
    for heading in ("Dice", "IoU", "HD95"):
        assert heading in shown
    values = json.loads((out / "results.json").read_text())
    assert (values["task"], values["score"]) == ("segmentation", "dice")
    assert values["test"].keys() == {"west", "south"}
    assert Result(out).model()(torch.rand(1, 3, 16, 16)).shape == (1, 2, 16, 16)
    assert (out / "retrogress.png").exists()
    assert call("show", out)[1].split() == shown.split()


def test_a_network_of_monai_in_two_dimensions(eyes, tmp_path):
    choice = {
        "model": "monai.networks.nets:UNet",
        "model_options": "{channels: [4, 8, 16], strides: [2, 2], norm: batch}",
    }
    result, _ = run("fedbn", eyes, tmp_path / "run", **DENSE | choice)
    assert type(result.model("A").network).__module__.startswith("monai.networks.nets")
    assert result.table["dice"].between(0, 1).all()
    sent = set(pd.read_csv(result.path / "payloads.csv")["name"])
    norms = {n for n, _ in result.model("A").network.named_parameters() if ".adn.N." in n}
    assert norms
    assert not sent & norms


def volumes(folder, fov=False):
    """Two sites with NIfTI volumes of 20 x 18 x 16 voxels and a ball of 2 around one of 1."""
    folder.mkdir()
    drawn = np.random.default_rng(6)
    rows = []
    for site in SITES:
        for number, part in enumerate([*PARTS[:1], *PARTS[2:7]]):
            name = f"{site}{number}"
            ball = disc(20, 6, 9, 10, 8)
            mask = (ball + disc(20, 3, 9, 10, 8))[:, :18, :16]
            image = drawn.normal(0, 0.2, mask.shape) + mask
            row = {"site": site, "image": f"{name}.nii.gz", "mask": f"{name}m.nii", "split": part}
            files = {row["image"]: image, row["mask"]: mask}
            if fov:  # of the four patches it has one
                row["fov"] = f"{name}f.nii"
                files[row["fov"]] = np.zeros_like(mask)
                files[row["fov"]][8:, 8:] = 1
            for path, values in files.items():
                kind = np.float32 if values.dtype.kind == "f" else np.uint8
                nibabel.Nifti1Image(values.astype(kind), np.eye(4)).to_filename(folder / path)
            rows.append(row)
    return write_table(folder, rows)


def test_volumes_as_patches(tmp_path):
    data = volumes(tmp_path / "data")
    settings = DENSE | {"volumes": "patches", "augmentation": "flips", "loss": "dice-ce"}
    result, _ = run("fedavg", data, tmp_path / "run", **settings)
    model, card = load_model(result.path / "models" / "global.safetensors")
    assert card["shape"] == [1, 16, 16, 16]
    assert card["classes"] == ["background", "1", "2"]
    assert model(torch.rand(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
    assert {"dice_1", "dice_2", "hd95"} < set(result.table)
    # a volume is one case, of four patches
    assert result.cases.groupby("site")["case"].apply(list).to_dict() == {"A": [5], "B": [5]}
    _, sites = decode(load(data, volumes="patches"), 16)
    part = sites[0].part("test")
    assert len(part) == 4
    images = torch.from_numpy(part.images[part.rows].astype(np.float32) / 65535)
    with torch.no_grad():
        found = model(images).argmax(1).numpy()
    masks = part.targets[part.rows]
    scored = masks != 255
    assert scored.sum() == 20 * 18 * 16  # what the cubes were filled up with does not count
    each = metrics.f1_score(masks[scored], found[scored], labels=[1, 2], average=None)
    scores = result.results["test"]["A"]
    assert [scores["dice_1"], scores["dice_2"]] == pytest.approx(each, abs=1e-6)
    assert scores["dice"] == pytest.approx(each.mean(), abs=1e-6)


@pytest.mark.parametrize("method", ["prrfl", "harmofl"])
def test_volumes_as_a_whole_in_a_network_of_monai(method, tmp_path):
    """With low frequencies of 5-D weights, or amplitudes of volumes."""
    choice = {
        "model": "monai.networks.nets:UNet",
        "model_options": "{channels: [4, 8], strides: [2], norm: batch}",
        "volumes": "whole",
        "loss": "dice-focal",
    }
    data = volumes(tmp_path / "data")
    if method == "harmofl":  # it needs two images to score
        rows = pd.read_csv(data)
        rows["split"] = rows["split"].replace("test", "validation")
        rows.loc[rows["image"].str.contains("[34]", regex=True), "split"] = "test"
        rows.loc[rows["image"].str.contains("[25]", regex=True), "split"] = "validation"
        rows.to_csv(data, index=False)
    result, _ = run(method, data, tmp_path / "run", **DENSE | choice)
    model = result.model("A")
    images = torch.rand(2, 1, 16, 16, 16)
    assert model(images).shape == (2, 3, 16, 16, 16)
    sent = pd.read_csv(result.path / "payloads.csv").query("direction == 'up'")
    assert len(sent)
    assert ("harmonise.amplitude" in set(sent["name"])) == (method == "harmofl")
    if method == "harmofl":
        again, _ = load_model(result.path / "models" / "global.safetensors")
        assert bool(again.harmonise.frozen)
        assert torch.equal(again(images), model(images))


def test_patches_outside_the_field_of_view_do_not_stop_a_run(tmp_path):
    """Batches of two patches, so that some have no pixel that counts."""
    data = volumes(tmp_path / "data", fov=True)
    settings = DENSE | {"volumes": "patches", "batch_size": 2, "loss": "cross-entropy"}
    result, _ = run("fedavg", data, tmp_path / "run", **settings)
    losses = result.scores["loss"]
    assert losses.notna().all()
    assert (losses > 0).all()
    _, sites = decode(load(data, volumes="patches"), 16)
    scored = (sites[0].part("train").targets != 255).any(axis=(1, 2, 3))
    assert scored.mean() == 0.25


def test_a_data_set_without_any_foreground_can_be_run(tmp_path):
    """There is no Dice where nothing is found; then the loss chooses the model."""
    data = photographs(tmp_path / "data", fov=False)
    for file in data.parent.glob("*-mask.png"):
        Image.new("L", (20, 20)).save(file)
    settings = DENSE | {"rounds": 2, "lr": 0.05, "local_epochs": 8, "classes": "background,x"}
    result, shown = run("fedavg", data, tmp_path / "run", **settings)
    assert result.table["dice"].isna().all()
    merged = result.scores.query("moment == 'merged' and split == 'validation'")
    by_round = merged.groupby("round")[["dice", "loss"]].mean()
    assert by_round["dice"].isna().all()
    assert result.results["chosen_round"] == by_round["loss"].idxmin()
    assert "nan" not in shown


def dicom(path, values, patient):
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.PatientName, header.PatientID = f"Zaphod{patient}", f"number{patient}"
    header.SeriesInstanceUID = "1.2.3"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = values.shape
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelData = values.tobytes()
    header.save_as(path, enforce_file_format=True)
    return path.name


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """A classification run on DICOM files: 60 patients, two images each, at two sites."""
    folder = tmp_path_factory.mktemp("dicom")
    drawn = np.random.default_rng(7)
    rows = []
    for number in range(120):
        bright = drawn.random() < 0.5
        values = drawn.integers(0, 2500 if bright else 1500, (12, 14)).astype(np.uint16)
        ill = bright ^ (drawn.random() < 0.2)  # a fifth can't be told
        name = dicom(folder / f"{number}.dcm", values, patient=number // 2)
        site = "B" if number % 4 > 1 else "A"
        rows.append({"site": site, "image": name, "label": "ill" if ill else "well"})
    out = folder / "run"
    choice = {"model": "tests.networks:Tiny", "augmentation": "none", "window": "0,2500"}
    settings = SHORT | choice | {"rounds": 6, "lr": 0.3, "image_size": 8, "local_epochs": 4}
    return run("fedavg", write_table(folder, rows), out, **settings)[0]


def test_a_run_on_dicom_files(radiographs):
    values = radiographs.results
    assert values["task"] == "classification"
    assert values["protocol"] == "grouped"
    assert not any("have no known patient" in note for note in values["data_notes"])
    sites = load(radiographs.path.parent / "table.csv").sites
    assert [site.table["group"].nunique() for site in sites] == [30, 30]
    settings = (radiographs.path / "settings.yaml").read_text()
    assert "2500" in settings
    for file in ("settings.yaml", "results.json", "scores.csv", "test_cases.csv"):
        text = (radiographs.path / file).read_text()
        assert "Zaphod" not in text
        assert "number1" not in text


def test_cases_of_classification_by_hand(radiographs):
    rows = radiographs.cases
    assert list(rows) == ["site", "case", "group", "class", "predicted", "p_ill", "p_well"]
    assert (rows["p_ill"] + rows["p_well"]).to_numpy() == pytest.approx(1, abs=2e-6)
    for site, of in rows.groupby("site"):
        scores = radiographs.results["test"][site]
        assert len(of) > 8
        right = metrics.accuracy_score(of["class"], of["predicted"])
        assert scores["accuracy"] == pytest.approx(right, abs=1e-6)
        macro = metrics.f1_score(of["class"], of["predicted"], average="macro")
        assert scores["macro_f1"] == pytest.approx(macro, abs=1e-6)


def test_intervals_lie_around_the_scores(radiographs):
    values = radiographs.results
    for site in SITES:
        assert values["intervals"][site].keys() == {*values["metrics"]}
        assert {"macro_f1", "accuracy", "auc", "sensitivity_ill"} < {*values["metrics"]}
        for name, (low, high) in values["intervals"][site].items():
            assert 0 <= low <= values["test"][site][name] + 1e-6
            assert values["test"][site][name] - 1e-6 <= high <= 1
        low, high = values["intervals"][site]["accuracy"]
        assert 0.05 < high - low < 0.8
    again = counterpoint.resume(radiographs.path).results  # a finished run is only read
    assert again == values


# Errors in words


def test_a_classification_network_for_segmentation(eyes, tmp_path):
    choice = {"model": "slim-vgg16", "model_options": "{}", "image_size": 32}
    refused(eyes, tmp_path / "run", "gives outputs of shape (2, 2)", "(2, 2, 32, 32)",
            "--model", **DENSE | choice)  # fmt: skip


def test_a_segmentation_network_for_classification(tmp_path):
    write_phantom(tmp_path / "data", size=16, scale=0.02)
    refused(tmp_path / "data", tmp_path / "run", "(2, 3, 16, 16)", "the task needs (2, 3)", **SMALL)


def test_sizes_that_a_unet_can_not_halve_four_times(eyes, tmp_path):
    settings = DENSE | {"image_size": 24}
    refused(eyes, tmp_path / "run", "'unet'", "multiples of 16", "(24, 24)", **settings)


def test_augmentation_of_photographs_on_volumes(tmp_path):
    settings = DENSE | {"volumes": "whole", "augmentation": "prrfl"}
    refused(
        volumes(tmp_path / "data"), tmp_path / "run", "'prrfl'", "--augmentation flips", **settings
    )


def test_volumes_of_photographs(eyes, tmp_path):
    settings = DENSE | {"volumes": "patches"}
    refused(eyes, tmp_path / "run", "is a photograph", "slices", **settings)


@pytest.mark.parametrize("loss", ["balanced"])
def test_a_loss_of_another_task(loss, eyes, tmp_path):
    settings = DENSE | {"loss": loss}
    refused(eyes, tmp_path / "run", f"segmentation has no loss '{loss}'", "joint", **settings)


def test_a_loss_of_segmentation_for_classification(tmp_path):
    write_phantom(tmp_path / "data", size=16, scale=0.02)
    settings = SHORT | {"model": "tests.networks:Tiny", "loss": "dice-ce"}
    words = "classification has no loss 'dice-ce'", "cross-entropy"
    refused(tmp_path / "data", tmp_path / "run", *words, **settings)


def test_segmentation_without_masks(tmp_path):
    write_phantom(tmp_path / "data", size=16, scale=0.02)
    for table in (tmp_path / "data").glob("*/labels.csv"):
        pd.read_csv(table).drop(columns="mask").to_csv(table, index=False)
    refused(tmp_path / "data", tmp_path / "run", "labels.csv", "mask", **DENSE)
    with pytest.raises(DataError, match="mask"):
        load(tmp_path / "data", task="segmentation")


def test_a_task_that_there_is_not(tmp_path):
    words = "retina has no task 'classification'", "segmentation"
    refused("retina", tmp_path / "run", *words, **SMALL | {"task": "classification"})
    with pytest.raises(SettingsError, match="mean 'segmentation'"):
        load("phantom", task="segmentatoin")


def test_real_vessels(shared_data, tmp_path):
    if not (shared_data / "retina").is_dir():
        pytest.skip("no retina data")
    result = counterpoint.run(
        "fedavg",
        "retina",
        root=shared_data / "retina",
        out=tmp_path / "run",
        settings=SHORT | {"image_size": 32, "train_limit": 8},
        model_options={"features": 4},
    )
    values = result.results
    assert values["task"] == "segmentation"
    assert values["test"].keys() == {"hrf", "les_av"}
    assert result.table["dice"].between(0, 1).all()
    assert (result.table["loss"] > 0).all()
    site = next(s for s in load("retina", shared_data / "retina").sites if s.name == "hrf")
    assert len(result.cases.query("site == 'hrf'")) == (site.table["split"] == "test").sum()
