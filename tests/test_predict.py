"""Predictions are the run's own, in the size and the place of the images."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import counterpoint
import counterpoint.api
from counterpoint.api import read_data
from counterpoint.data.masks import read_mask
from counterpoint.data.search import find_images
from counterpoint.data.site import Form
from counterpoint.data.volumes import cut
from counterpoint.errors import DataError, SettingsError, StateError, TrainingError
from counterpoint.files import read_metadata, read_tensors, write_tensors
from counterpoint.harmonise import NoHarmoniser
from counterpoint.prediction import choose_model
from counterpoint.prediction.restore import resized, slices_of
from counterpoint.predictor import build_predictor, model_card
from counterpoint.results import Result
from counterpoint.settings import from_dict, read_file
from tests import running
from tests.networks import Dense
from tests.test_data_volumes import dicom, nifti, series

SMALL = {
    "rounds": 1,
    "local_epochs": 1,
    "batch_size": 8,
    "image_size": 32,
    "protocol": "given",
    "workers": 1,
    "lr": 0.05,
    "model": "tests.networks:Tiny",
}
DENSE = SMALL | {"task": "segmentation", "model": "tests.networks:Dense"}
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr(counterpoint.api, "draw_figures", lambda result: None)


def trained(folder, method, data, **settings):
    counterpoint.run(method, str(data), out=folder, settings=settings)
    return folder


def table_of_spots(folder):
    """A table with two sites and photographs of 32 x 32 pixels with a spot, large or small."""
    rng = np.random.default_rng(0)  # whatever tests came before
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"))
    rows = []
    for number in range(28):
        centre = rng.integers(10, 22, size=(2, 1, 1))
        mask = ((grid - centre) ** 2).sum(0) < (80 if number % 4 < 2 else 20)
        light = 150 * mask[..., None] + rng.normal(60, 20, size=(32, 32, 3))
        Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}-mask.png")
        split = "test" if number >= 16 else "train" if number < 12 else "validation"
        label = "large" if number % 4 < 2 else "small"
        rows.append(
            f"{['east', 'west'][number % 2]},{number}.png,{number}-mask.png,{label},{split}"
        )
    order = rng.permutation(len(rows))
    lines = ["site,image,mask,label,split", *(rows[n] for n in order)]
    (folder / "spots.csv").write_text("\n".join(lines))
    return folder / "spots.csv"


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    return table_of_spots(tmp_path_factory.mktemp("spots"))


@pytest.fixture(scope="module")
def answers(spots, tmp_path_factory):
    """A run that classifies, with a model a site."""
    return trained(tmp_path_factory.mktemp("predict") / "answers", "fedbn", spots, **SMALL)


@pytest.fixture(scope="module")
def masks(spots, tmp_path_factory):
    """A run that segments, with one global model."""
    return trained(tmp_path_factory.mktemp("predict") / "masks", "fedavg", spots, **DENSE)


@pytest.fixture(scope="module")
def balls(tmp_path_factory):
    """A table with two sites and volumes of 16 x 16 x 16 voxels that lie askew."""
    folder = tmp_path_factory.mktemp("balls")
    affine = np.array([[0, 0, -2.0, 5], [1.5, 0, 0, -3], [0, -1, 0, 8], [0, 0, 0, 1]])
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"))
    rows = []
    for number in range(8):
        centre = RNG.integers(5, 11, size=(3, 1, 1, 1))
        mask = ((grid - centre) ** 2).sum(0) < 16
        values = 100 * mask + RNG.normal(50, 20, size=mask.shape)
        nifti(folder / f"{number}.nii.gz", values.astype(np.float32), affine)
        nifti(folder / f"{number}-mask.nii.gz", mask.astype(np.uint8), affine)
        split = ["train", "train", "validation", "test"][number // 2]
        rows.append(f"{'AB'[number % 2]},{number}.nii.gz,{number}-mask.nii.gz,{number},{split}")
    (folder / "balls.csv").write_text("\n".join(["site,image,mask,patient,split", *rows]))
    return folder / "balls.csv"


def test_rows(run: Path) -> dict[str, pd.DataFrame]:
    """Each site's rows with test images, in the order of the run's arrays, with their cases."""
    settings = from_dict(read_file(run / "settings.yaml"))
    found = {}
    for site in read_data(settings).sites:
        case = pd.factorize(site.table["image"])[0]
        table = site.table.assign(case=case)
        found[site.name] = table[table["split"] == "test"]
    return found


test_rows.__test__ = False


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("prrfl", {}),
        ("harmofl", {}),
        ("harmofl", {"batch_size": 4}),
        ("harmofl", {"band": "dc", "statistics": "averaged"}),
        ("fedavg", {"precision": "bfloat16", "statistics": "recalibrated"}),
    ],
)
def test_the_run_s_test_images_get_the_run_s_answers(method, settings, spots, tmp_path):
    run = trained(tmp_path / "run", method, spots, **SMALL | settings)
    cases = Result(run).cases
    for site, rows in test_rows(run).items():
        found = counterpoint.predict(run, rows["image"], site=site)
        own = cases[cases["site"] == site].set_index("case").loc[rows["case"]]
        columns = [name for name in own if name.startswith("p_")]
        assert np.abs(found[columns].to_numpy() - own[columns].to_numpy()).max() < 2e-6
        assert found["predicted"].tolist() == own["predicted"].tolist()
        assert found["image"].tolist() == rows["image"].tolist()
        assert len(found) == 6
        assert found["p_large"].nunique() >= 5  # bfloat16 has few digits


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def assert_own_dice(run, tmp_path, **how):
    """The Dice of the masks that are written is that of the run, case by case."""
    cases = Result(run).cases
    for site, rows in test_rows(run).items():
        out = tmp_path / site
        table = counterpoint.predict(run, rows["image"], site=site, out=out, **how)
        for (_, row), written in zip(rows.iterrows(), table["mask"], strict=True):
            found = read_mask(str(out / written), "", row["image"], 2) == 1
            truth = read_mask(row["mask"], "", row["image"], 2) == 1
            (own,) = cases[(cases["site"] == site) & (cases["case"] == row["case"])]["dice"]
            assert dice(found, truth) == pytest.approx(own, abs=1e-5)
    return table


@pytest.mark.parametrize("method", ["prrfl", "harmofl"])
def test_masks_of_photographs_are_the_run_s(method, spots, tmp_path):
    """The images have the size of the network's, so that nothing is resized."""
    run = trained(tmp_path / "run", method, spots, **DENSE)
    assert_own_dice(run, tmp_path)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("fedavg", {"volumes": "slices", "neighbours": True, "image_size": 16}),
        ("harmofl", {"volumes": "slices", "window": (0, 160), "image_size": 16}),
        ("fedavg", {"volumes": "patches", "image_size": 8, "augmentation": "flips"}),
        ("harmofl", {"volumes": "whole", "image_size": 16, "augmentation": "flips"}),
    ],
)
def test_masks_of_volumes_are_the_run_s(method, settings, balls, tmp_path):
    chosen = DENSE | {"batch_size": 3} | settings
    if chosen["volumes"] == "whole":
        chosen["statistics"] = "averaged"  # a site has a single test volume
    run = trained(tmp_path / "run", method, balls, **chosen)
    table = assert_own_dice(run, tmp_path, probabilities=True)
    (image,) = table["image"]
    mask, shares = (
        nibabel.load(tmp_path / "B" / table[name].item()) for name in ("mask", "probabilities")
    )
    given = nibabel.load(image)
    assert mask.shape == given.shape == shares.shape[:3]
    assert np.allclose(mask.affine, given.affine)
    assert np.allclose(shares.affine, given.affine)
    assert (np.asarray(shares.dataobj).argmax(-1) == np.asarray(mask.dataobj)).all()
    count = int(np.asarray(mask.dataobj).sum())
    assert table["pixels_foreground"].item() == count
    assert table["ml_foreground"].item() == pytest.approx(count * 3 / 1000)


def test_a_hospital_that_was_not_there(spots, tmp_path):
    table = pd.read_csv(spots)
    numbers = table["image"].str.removesuffix(".png").astype(int)
    table["site"] = np.array(["east", "north", "west"])[numbers % 3]
    table.to_csv(spots.parent / "three.csv", index=False)
    run = trained(tmp_path / "run", "fedbn", spots.parent / "three.csv", **SMALL, holdout="north")
    cases = Result(run).cases
    own = cases[cases["site"] == "north"].set_index("case")
    settings = from_dict(read_file(run / "settings.yaml"))
    site = read_data(settings).holdout.table
    case = pd.factorize(site["image"])[0]
    for image, number in zip(site["image"], case, strict=True):
        if number in own.index:
            found = counterpoint.predict(run, image, together=True).iloc[0]
            assert found["p_small"] == pytest.approx(own.loc[number, "p_small"], abs=2e-6)
    with pytest.raises(SettingsError, match="no --site"):
        counterpoint.predict(run, site["image"], together=True, site="east")
    together = choose_model(run, together=True)
    for suffix in (".pt2", ".safetensors"):
        with pytest.raises(StateError, match="single model"):
            counterpoint.export(together, tmp_path / f"x{suffix}")


def test_a_lone_file_predicts_as_its_run(masks, tmp_path):
    images = test_rows(masks)["east"]["image"][:3]
    file = shutil.copy(masks / "models" / "global.safetensors", tmp_path / "mine.safetensors")
    one, other = (
        counterpoint.predict(model, images, out=tmp_path / str(n), probabilities=True)
        for n, model in enumerate((masks, file))
    )
    assert one.equals(other)
    for name in one["probabilities"]:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    card = json.loads((tmp_path / "0" / "model.json").read_text())
    assert card["form"] == {"volumes": "slices", "neighbours": False, "window": None}


def old(file, target, without):
    """Copy a model without some of what its card says."""
    card = json.loads(read_metadata(file)["counterpoint"])
    kept = {name: value for name, value in card.items() if name not in without}
    write_tensors(target, read_tensors(file), {"counterpoint": json.dumps(kept)})
    return target


def test_models_of_older_versions(balls, tmp_path):
    settings = DENSE | {"image_size": 16, "neighbours": True, "window": (10, 200)}
    run = trained(tmp_path / "run", "fedavg", balls, **settings)
    file = run / "models" / "global.safetensors"
    image = test_rows(run)["A"]["image"].item()
    wanted = counterpoint.predict(run, image)
    old(file, file, ("form", "precision", "batch_size", "seed"))
    assert choose_model(run).form == Form("slices", True, (10.0, 200.0))
    assert counterpoint.predict(run, image).equals(wanted)
    with pytest.raises(DataError, match=r"does not say how volumes are read.*run's folder"):
        counterpoint.predict(file, image)
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "grey.png")
    assert len(counterpoint.predict(file, tmp_path / "grey.png")) == 1


def test_batches_and_company_do_not_matter(masks, answers):
    images = test_rows(masks)["west"]["image"][:5].tolist()
    for run, site in ((masks, None), (answers, "west")):
        together = counterpoint.predict(run, images, site=site)
        by_two = counterpoint.predict(run, images, site=site, batch_size=2)
        alone = pd.concat([counterpoint.predict(run, image, site=site) for image in images])
        for other in (by_two, alone.reset_index(drop=True)):
            numbers = together.select_dtypes("number").columns
            assert together["image"].tolist() == other["image"].tolist()
            assert np.allclose(together[numbers], other[numbers], atol=2e-6)


def test_as_many_images_pass_the_network_together_as_is_asked_for(masks, monkeypatch):
    images, model = test_rows(masks)["west"]["image"][:4], choose_model(masks)
    sizes, forward = [], Dense.forward

    def look(network, batch):
        sizes.append(len(batch))
        return forward(network, batch)

    monkeypatch.setattr(Dense, "forward", look)
    for size in (None, 2):
        counterpoint.predict(model, images, batch_size=size)
    assert sizes == [4, 2, 2]


def test_a_model_that_needs_company(spots, tmp_path):
    run = trained(tmp_path / "run", "harmofl", spots, **SMALL)
    images = test_rows(run)["west"]["image"][:4].tolist()
    with pytest.raises(DataError, match="one image alone can't be; give several"):
        counterpoint.predict(run, images[0], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingsError, match="must be 2 or more"):
        counterpoint.predict(run, images, batch_size=1)
    told = []
    four = counterpoint.predict(run, images, report=told.append)
    assert "depend on which images are given" in told[0]["note"]
    assert told[-1] == {"predicted": 4, "of": 4}
    two = counterpoint.predict(run, images[:2])
    assert not np.allclose(four.iloc[:2, 2:], two.iloc[:, 2:], atol=1e-6)
    by_two = counterpoint.predict(run, images, batch_size=2)
    assert not np.allclose(four.iloc[:, 2:], by_two.iloc[:, 2:], atol=1e-6)


def test_masks_have_the_size_of_the_images(masks, tmp_path):
    source = test_rows(masks)["east"]["image"].iloc[0]
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    with Image.open(source) as image:
        image.resize((150, 70)).save(folder / "wide.png")
        image.resize((40, 60)).save(folder / "deeper" / "small.jpg", quality=95)
        image.convert("L").save(folder / "grey.png")
        deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
        Image.fromarray(deep).save(folder / "deep.png")
        turned = image.resize((150, 70))
        turned.getexif()[0x0112] = 6  # to be turned by 90 degrees
        turned.save(folder / "turned.png", exif=turned.getexif())
    (folder / "notes.txt").write_text("none")
    table = counterpoint.predict(masks, folder, out=tmp_path / "out", probabilities=True)
    names = ["deep", "grey", "turned", "wide", "deeper/small"]
    assert table["mask"].tolist() == [f"masks/{name}.png" for name in names]
    sizes = dict.fromkeys(names, (32, 32)) | {
        "turned": (70, 150),
        "wide": (150, 70),
        "deeper/small": (40, 60),
    }
    for name, row in zip(names, table.itertuples(), strict=True):
        with Image.open(tmp_path / "out" / row.mask) as mask:
            assert (mask.size, mask.mode) == (sizes[name], "P")
            values = np.asarray(mask)
            assert mask.convert("RGB").getcolors(99)[0][1] in ((0, 0, 0), (230, 159, 0))
        shares = np.load(tmp_path / "out" / row.probabilities)
        assert shares.shape == (2, *values.shape)
        assert np.allclose(shares.sum(0), 1, atol=1e-5)
        assert (shares.argmax(0) == values).all()
        assert (values == 1).sum() == row.pixels_foreground
    grey, deep = (np.load(tmp_path / "out" / f"probabilities/{n}.npy") for n in ("grey", "deep"))
    assert np.allclose(grey, deep, atol=1e-6)  # 8 and 16 bits of the same


def test_probabilities_are_resized_as_images_are_read():
    """Reading makes a ramp smaller, restoring makes it larger: away from the ends it is itself."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    plane = np.broadcast_to(ramp, (48, 64))[np.newaxis]
    small = resized(plane, (16, 16))
    assert np.allclose(resized(small, (48, 64))[0, 24, 8:-8], ramp[8:-8], atol=0.01)


@pytest.mark.parametrize("shape", [(5, 9, 12), (8, 4, 4), (3, 4, 5)])
def test_cubes_are_put_together_again(shape):
    values = RNG.random((2, *shape)).astype(np.float32)
    cubes = np.stack([cut(one, 4, 0) for one in values], axis=1)
    found = np.stack(list(slices_of(cubes, shape, Form("patches"))), axis=1)
    assert (found == values).all()


def test_a_cube_is_stretched_along_every_axis():
    ramps = np.meshgrid(*[np.linspace(0, 1, 8, dtype=np.float32)] * 3, indexing="ij")
    found = np.stack(
        list(slices_of(np.stack(ramps)[np.newaxis], (12, 5, 20), Form("whole"))), axis=1
    )
    assert found.shape == (3, 12, 5, 20)
    for axis in range(3):
        one = np.moveaxis(found[axis], axis, -1)
        assert np.allclose(one, one[0, 0])  # along the other axes nothing changes
        assert (np.diff(one[0, 0]) >= 0).all()
        assert np.allclose(one[0, 0], 1 - one[0, 0][::-1], atol=1e-6)


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """A model that says which pixels are lighter than half, of slices of 24 pixels."""
    file = tmp_path_factory.mktemp("light") / "light.safetensors"
    one = build_predictor(
        "tests.networks:Dense", {}, 2, (3, 24, 24), NoHarmoniser(), "averaged", dense=True
    )
    with torch.no_grad():
        for tensor in one.state_dict().values():
            if tensor.is_floating_point():
                tensor.zero_()
        one.network.body.weight[0, 0, 1, 1], one.network.body.weight[1, 0, 1, 1] = 1, -1
        one.network.norm.running_var.fill_(1)
        one.network.norm.weight.fill_(1)
        one.network.head.weight[1, 0] = one.network.head.weight[0, 1] = 20
    card = model_card(
        "tests.networks:Dense", {}, "segmentation", ("dark", "light"), (3, 24, 24),
        NoHarmoniser(), "averaged", form={"volumes": "slices", "window": [0, 100]},
    )  # fmt: skip
    write_tensors(file, one.state_dict(), card)
    return file


def half(shape):
    """A volume whose upper half along the first axis is 100, with one dark corner."""
    values = np.zeros(shape, np.int16)
    values[shape[0] // 2 :] = 100
    values[-shape[0] // 4 :, -shape[1] // 4 :] = 0
    return values


@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (2, 0), (0, 0)])
def test_a_nifti_mask_lies_where_its_image_does(codes, light, tmp_path):
    turn = np.array([[0, -0.8, 0.6, 3], [2, 0, 0, 4], [0, 0.6, 0.8, 5], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(half((24, 16, 5)), turn)
    image.set_qform(turn, codes[0])
    image.set_sform(turn, codes[1])
    image.header["descrip"] = b"Name^Marker"
    image.to_filename(tmp_path / "a.nii.gz")
    row = counterpoint.predict(light, tmp_path / "a.nii.gz", out=tmp_path / "out").iloc[0]
    assert row["mask"] == "masks/a.nii.gz"
    mask, given = (nibabel.load(f) for f in (tmp_path / "out" / row["mask"], tmp_path / "a.nii.gz"))
    assert np.allclose(mask.affine, given.affine)
    for form in ("qform", "sform"):
        mine, its = (getattr(one, f"get_{form}")(coded=True) for one in (mask, given))
        assert mine[1] == its[1]
        assert mine[0] is its[0] is None or np.allclose(mine[0], its[0])
    assert mask.header.get_zooms() == given.header.get_zooms()
    assert mask.get_data_dtype() == np.uint8
    assert (np.asarray(mask.dataobj) == (half((24, 16, 5)) > 50)).mean() > 0.97
    assert b"Marker" not in mask.header.binaryblock


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_answers_are_of_the_kind_and_shape_of_their_nifti_file(kind, light, tmp_path):
    """Also of a flat one: its classes are a fourth axis, and no slices."""
    kind(half((24, 16)), np.diag([1, 2, 3, 1])).to_filename(tmp_path / "a.nii")
    row = counterpoint.predict(
        light, tmp_path / "a.nii", out=tmp_path / "out", probabilities=True
    ).iloc[0]
    mask = nibabel.load(tmp_path / "out" / row["mask"])
    (shares,) = (tmp_path / "out" / "probabilities").glob("*.nii*")
    assert type(mask) is kind
    assert mask.shape == (24, 16)
    assert nibabel.load(shares).shape == (24, 16, 1, 2)


def test_masks_of_dicom(light, tmp_path):
    values = np.stack([half((20, 30)).astype(np.uint16)] * 4)
    values[0] = 0  # the lowest slice is dark
    folder = Path(series(tmp_path / "series", values))
    dicom(tmp_path / "one.dcm", values[1], position=None)
    dicom(tmp_path / "film.dcm", values, position=None, SeriesInstanceUID="1.2.4")
    table = counterpoint.predict(light, tmp_path, out=tmp_path / "out").set_index("image")
    found = {Path(image).name: mask for image, mask in table["mask"].items()}
    assert found == {
        "one.dcm": "masks/one.png",
        "film.dcm": "masks/film.nii.gz",
        "series": "masks/series.nii.gz",
    }
    mask = read_mask(str(tmp_path / "out" / "masks" / "series.nii.gz"), "", str(folder), 2)
    assert (mask == (values > 50)).mean() > 0.97
    assert not mask[0].any()
    ml = table.loc[str(folder), "ml_light"]
    assert ml == pytest.approx(table.loc[str(folder), "pixels_light"] * 2 * 3 * 5 / 1000)
    with Image.open(tmp_path / "out" / "masks" / "one.png") as picture:
        assert (np.asarray(picture) == mask[1]).all()
    film = np.asarray(nibabel.load(tmp_path / "out" / "masks" / "film.nii.gz").dataobj)
    assert (film.transpose(2, 1, 0)[1] == mask[1]).all()


def test_outside_the_field_of_view_is_background(light, tmp_path):
    Image.fromarray(np.full((20, 24), 255, np.uint8)).save(tmp_path / "a.png")
    inside = np.zeros((20, 24), np.uint8)
    inside[4:9, 5:20] = 255
    Image.fromarray(inside).save(tmp_path / "fov.png")
    (tmp_path / "t.csv").write_text("image,fov\na.png,fov.png\n")
    row = counterpoint.predict(light, tmp_path / "t.csv", out=tmp_path / "out").iloc[0]
    with Image.open(tmp_path / "out" / row["mask"]) as mask:
        assert (np.asarray(mask) == inside // 255).all()
    Image.fromarray(inside[1:]).save(tmp_path / "fov.png")
    with pytest.raises(DataError, match=r"a\.png can't be read: 24x19 pixels"):
        counterpoint.predict(light, tmp_path / "t.csv")


def test_what_is_found(tmp_path):
    picture = Image.fromarray(np.zeros((4, 4), np.uint8))
    for name in ("b/x.png", "a/x.jpeg", ".hidden/x.png", "a/.x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name)
    nifti(tmp_path / "v.nii", np.zeros((3, 3, 3)))
    for number in range(2):
        dicom(
            tmp_path / f"film{number}",
            np.zeros((4, 4), np.uint16),
            SeriesInstanceUID=f"1.2.{number}",
        )
    (tmp_path / "t.csv").write_text("image,label\nb/x.png,1\nv.nii,2\n")
    below = [str(tmp_path / n) for n in ("v.nii", "film0", "film1", "a/x.jpeg", "b/x.png")]
    assert list(find_images([tmp_path])) == below
    assert list(find_images([tmp_path / "t.csv", tmp_path])) == [
        below[4], below[0], *below[1:4]
    ]  # fmt: skip
    dicom(tmp_path / "film2", np.zeros((4, 4), np.uint16), SeriesInstanceUID="1.2.1")
    with pytest.raises(DataError, match="2 DICOM series; keep one series"):
        find_images([tmp_path])
    for name, what in (("none", "is not there"), ("empty", "holds no photographs")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=what):
            find_images([tmp_path / name])
    (tmp_path / "t.csv").write_text("image\nb/x.png\nlost.png\n")
    with pytest.raises(DataError, match=r"t.csv, line 3: .*lost\.png is not there"):
        find_images([tmp_path / "t.csv"])
    with pytest.raises(DataError, match="no images"):
        find_images([])


def test_masks_beside_images_are_no_images(tmp_path):
    picture = Image.fromarray(np.zeros((4, 4), np.uint8))
    for name in ("A/images/x.png", "A/masks/x.png", "A/FOV/x.png", "masks/y.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        picture.save(tmp_path / name)
    assert list(find_images([tmp_path])) == [
        str(tmp_path / "A/images/x.png"),
        str(tmp_path / "masks/y.png"),
    ]


def test_bad_images_are_named(masks, tmp_path):
    good = test_rows(masks)["west"]["image"][:2].tolist()
    (tmp_path / "broken.png").write_text("none")
    files = [good[0], tmp_path / "broken.png", good[1]]
    with pytest.raises(DataError, match=r"broken\.png can't be read: not an image.*--skip-bad"):
        counterpoint.predict(masks, files, out=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.png"]  # nothing half-written
    told = []
    table = counterpoint.predict(
        masks, files, out=tmp_path / "out", skip_bad=True, report=told.append
    )
    assert table["image"].tolist() == good
    assert "broken.png" in told[0]["warning"]
    with pytest.raises(DataError, match="none of the images"):
        counterpoint.predict(masks, tmp_path / "broken.png", skip_bad=True)
    with pytest.raises(SettingsError, match="exists already"):
        counterpoint.predict(masks, good, out=tmp_path / "out")


def test_the_wrong_model(answers, masks, tmp_path):
    image = test_rows(masks)["west"]["image"].iloc[0]
    with pytest.raises(SettingsError, match=r"no global model; it has east, west.*--site"):
        counterpoint.predict(answers, image)
    with pytest.raises(SettingsError, match="'weste'; did you mean 'west'"):
        counterpoint.predict(answers, image, site="weste")
    with pytest.raises(SettingsError, match="'global'; it has one global model, of"):
        counterpoint.predict(masks, image, site="global")
    with pytest.raises(SettingsError, match="no site to choose"):
        counterpoint.predict(masks / "models" / "global.safetensors", image, site="west")
    with pytest.raises(StateError, match="is not there"):
        counterpoint.predict(tmp_path / "none", image)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StateError, match="has no models yet"):
        counterpoint.predict(tmp_path / "empty", image)
    with pytest.raises(SettingsError, match="models that segment"):
        counterpoint.predict(answers, image, site="west", probabilities=True)
    with pytest.raises(SettingsError, match="batch_size"):
        counterpoint.predict(masks, image, batch_size=0)


def test_slices_are_classified_one_by_one(answers, tmp_path):
    volume = RNG.integers(0, 100, size=(12, 12, 3)).astype(np.int16)
    nifti(tmp_path / "v.nii.gz", volume)
    table = counterpoint.predict(answers, tmp_path, site="west", out=tmp_path / "out")
    assert table["slice"].tolist() == [0, 1, 2]
    saved = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert saved.columns.tolist() == table.columns.tolist()
    assert np.allclose(saved.filter(like="p_").sum(axis=1), 1, atol=1e-5)
    assert not (tmp_path / "out" / "masks").exists()


def test_the_command(masks, tmp_path):
    images = test_rows(masks)["west"]["image"][:2].tolist()
    words = ["predict", masks, *images, "--site", "west", "--out"]
    code, out, err = running.ended(running.start(*words, tmp_path / "out", "--json"))
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert [row["image"] for row in rows] == images
    with Image.open(tmp_path / "out" / rows[0]["mask"]) as mask:
        assert rows[0]["pixels_foreground"] == int(np.asarray(mask).sum())
    code, out, err = running.call(*words, tmp_path / "more")
    assert code == 0
    assert "predictions.csv and masks/" in out
    code, _, err = running.call(*words, tmp_path / "out")
    assert code == 2
    assert "exists already" in err


def test_instance_norm_needs_no_company(tmp_path):
    """It normalises every image by itself, though it keeps no running statistics either."""
    options = {"channels": [4, 8], "strides": [2], "norm": "instance", "spatial_dims": 2}
    given = ("monai.networks.nets:UNet", options)
    one = build_predictor(*given, 2, (3, 24, 24), NoHarmoniser(), "averaged", dense=True)
    card = model_card(
        *given, "segmentation", ("dark", "light"), (3, 24, 24), NoHarmoniser(), "averaged"
    )
    write_tensors(tmp_path / "m.safetensors", one.state_dict(), card)
    assert any(isinstance(layer, torch.nn.InstanceNorm2d) for layer in one.modules())
    for name in "ab":
        pixels = RNG.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    alone = counterpoint.predict(tmp_path / "m.safetensors", files[0], batch_size=1)
    both = counterpoint.predict(tmp_path / "m.safetensors", files)
    assert alone["pixels_light"].iloc[0] == both["pixels_light"].iloc[0]


def test_a_header_that_is_odd_where_nothing_hangs_on_it(light, tmp_path):
    """A quaternion that is none beside a good matrix, and units of no meaning."""
    image = nibabel.Nifti1Image(half((24, 16, 5)), np.diag([1, 2, 3, 1]))
    image.header["qform_code"] = image.header["sform_code"] = 1
    image.header["quatern_b"], image.header["quatern_c"] = 1, 0.1
    image.header["xyzt_units"] = 6
    image.to_filename(tmp_path / "a.nii")
    with pytest.raises(ValueError, match="w2 should be positive"):
        nibabel.load(tmp_path / "a.nii").get_qform(coded=True)
    row = counterpoint.predict(light, tmp_path / "a.nii", out=tmp_path / "out").iloc[0]
    mask = nibabel.load(tmp_path / "out" / row["mask"])
    assert np.allclose(mask.affine, np.diag([1, 2, 3, 1]))
    assert mask.get_sform(coded=True)[1] == 1
    assert row["ml_light"] == pytest.approx(row["pixels_light"] * 6 / 1000)


@pytest.mark.parametrize("kind", ["to a folder", "to nothing", "mount"])
def test_a_folder_that_can_t_be_made_anew_is_refused_at_once(light, tmp_path, monkeypatch, kind):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    out, place = tmp_path / "out", tmp_path / "place"
    if kind == "mount":
        out.mkdir()
        monkeypatch.setattr(Path, "is_mount", lambda path: path == out)
    else:
        out.symlink_to(place)
    if kind == "to a folder":
        place.mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingsError, match="is a link or a mounted folder"):
        counterpoint.predict(light, tmp_path / "a.png", out=out)
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_file_in_a_series_is_named_and_can_be_left_out(light, tmp_path):
    values = np.stack([half((20, 30)).astype(np.uint16)] * 4)
    series(tmp_path / "good", values)
    series(tmp_path / "bad", values)
    whole = (tmp_path / "bad" / "0.dcm").read_bytes()
    (tmp_path / "bad" / "IM9").write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"bad can't be read: .*IM9"):
        counterpoint.predict(light, tmp_path)
    told = []
    table = counterpoint.predict(light, tmp_path, skip_bad=True, report=told.append)
    assert table["image"].tolist() == [str(tmp_path / "good")]
    assert ["IM9" in str(event.get("warning")) for event in told] == [True, False]
    words = ("predict", light, tmp_path, "--out", tmp_path / "out", "--skip-bad", "--quiet")
    code, _, said = running.call(*words)
    assert code == 0, said
    assert "IM9" in "".join(said.split())
    assert "left out" in " ".join(said.split())


def test_what_is_left_out_is_listed(light, tmp_path):
    Image.fromarray(half((20, 30)).astype(np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    (tmp_path / "t.csv").write_text("image,fov\ngood.png,\nlost.png,\nbad.png,\ngood.png,f.png\n")
    out, words = tmp_path / "out", ("predict", light, tmp_path / "t.csv", "--out", tmp_path / "out")
    code, _, said = running.call(*words)
    assert code == 2
    assert "t.csv, line 3" in " ".join(said.split())
    assert not out.exists()
    code, printed, said = running.call(*words, "--skip-bad")
    assert code == 0, said
    assert "left_out.csv" in printed + said
    assert said.count("left out") == 3
    table = pd.read_csv(out / "left_out.csv")
    assert [Path(path).name for path in table["image"]] == ["lost.png", "good.png", "bad.png"]
    assert ["line 3" in why for why in table["why"]] == [True, False, False]
    assert "f.png is not there" in table["why"][1]
    assert pd.read_csv(out / "predictions.csv")["image"].tolist() == [str(tmp_path / "good.png")]
    counterpoint.predict(light, tmp_path / "good.png", out=tmp_path / "all", skip_bad=True)
    assert not (tmp_path / "all" / "left_out.csv").exists()


def test_a_field_of_view_is_not_lost_where_an_image_is_named_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "fov.png", "other.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    (tmp_path / "t.csv").write_text("image,fov\na.png,fov.png\n")
    for places in (["t.csv", "a.png"], ["a.png", "t.csv"], ["t.csv", tmp_path / "a.png"]):
        ((_, fov),) = find_images(places).items()
        assert Path(fov).absolute() == tmp_path / "fov.png"
    (tmp_path / "u.csv").write_text("image,fov\na.png,other.png\n")
    with pytest.raises(DataError, match="two fields of view"):
        find_images(["t.csv", "u.csv"])


def test_too_little_memory_says_what_helps(light, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    chosen = choose_model(light)
    monkeypatch.setattr(Dense, "forward", full)
    with pytest.raises(TrainingError, match="try a smaller --batch-size, or --device cpu"):
        counterpoint.predict(chosen, tmp_path / "a.png")


def test_every_class_is_counted_by_itself(tmp_path):
    given = ("tests.networks:Dense", {})
    one = build_predictor(*given, 3, (3, 24, 24), NoHarmoniser(), "averaged", dense=True)
    network = one.network
    with torch.no_grad():
        for tensor in one.state_dict().values():
            if tensor.is_floating_point():
                tensor.zero_()
        network.body.weight[0, 0, 1, 1], network.body.weight[1, 0, 1, 1] = 1, -1
        network.norm.running_var.fill_(1)
        network.norm.weight.fill_(1)
        network.head.weight[2, 0] = network.head.weight[0, 1] = 20
        network.head.bias[1] = 4
    names = ("background", "cup", "disc")
    card = model_card(*given, "segmentation", names, (3, 24, 24), NoHarmoniser(), "averaged")
    write_tensors(tmp_path / "m.safetensors", one.state_dict(), card)
    rows = np.repeat(np.array([0, 128, 255], np.uint8), [10, 6, 8])
    Image.fromarray(np.repeat(rows[:, None], 24, axis=1)).save(tmp_path / "a.png")
    row = counterpoint.predict(tmp_path / "m.safetensors", tmp_path / "a.png").iloc[0]
    assert (row["pixels_cup"], row["pixels_disc"]) == (6 * 24, 8 * 24)
