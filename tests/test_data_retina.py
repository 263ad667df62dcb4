import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import load
from counterpoint.errors import DataError, SettingsError

COUNT = iter(range(10_000))


def save(path):
    """Write an image or mask, different from all others, in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(next(COUNT))
    if path.suffix == ".gif" or "manual" in str(path) or "HO" in path.name or ".ah." in path.name:
        Image.fromarray(rng.integers(0, 2, (12, 10), dtype=np.uint8) * 255).save(path)
    else:
        Image.fromarray(rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(path)


def write_drive(folder):
    for part, numbers in (("training", range(21, 31)), ("test", range(1, 6))):
        for n in numbers:
            save(folder / part / "images" / f"{n:02d}_{part}.tif")
            save(folder / part / "1st_manual" / f"{n:02d}_manual1.gif")
            save(folder / part / "mask" / f"{n:02d}_{part}_mask.gif")
            if part == "test":
                save(folder / part / "2nd_manual" / f"{n:02d}_manual2.gif")


def write_stare(folder):
    for n in range(1, 11):
        save(folder / "stare-images" / f"im{n:04d}.ppm")
        save(folder / "labels-ah" / f"im{n:04d}.ah.ppm")
        save(folder / "labels-vk" / f"im{n:04d}.vk.ppm")
    save(folder / "stare-images" / "im0399.ppm")  # not all images of STARE have vessels


def write_chase(folder):
    for child in range(1, 8):
        for eye in "LR":
            save(folder / f"Image_{child:02d}{eye}.jpg")
            save(folder / f"Image_{child:02d}{eye}_1stHO.png")
            save(folder / f"Image_{child:02d}{eye}_2ndHO.png")


def write_hrf(folder):
    for n in range(1, 6):
        for kind in ("dr", "g", "h"):
            image = f"{n:02d}_{kind}"
            save(folder / "images" / f"{image}.{'JPG' if kind == 'dr' else 'jpg'}")
            save(folder / "manual1" / f"{image}.tif")
            save(folder / "mask" / f"{image}_mask.tif")


def write_table(folder, count=12, **columns):
    rows = pd.DataFrame({"id": [f"{n}" for n in range(count)]})
    rows["image"] = "images/" + rows["id"] + ".png"
    rows["mask"] = "masks/" + rows["id"] + ".png"
    rows["fov_mask"] = "fov/" + rows["id"] + ".png"
    for path in [*rows["image"], *rows["mask"], *rows["fov_mask"]]:
        save(folder / path)
    rows.assign(**columns).to_csv(folder / "labels.csv", index=False)


@pytest.fixture
def root(tmp_path):
    write_drive(tmp_path / "DRIVE")
    write_stare(tmp_path / "stare")
    write_chase(tmp_path / "CHASEDB1")
    write_hrf(tmp_path / "HRF")
    return tmp_path


def site(federation, name):
    return next(s.table for s in federation.sites if s.name == name)


def parts(table):
    return tuple(int((table["split"] == p).sum()) for p in ("train", "validation", "test"))


def relative(table, root):
    """Return image, mask and field of view of the first row, from the root."""
    row = table.sort_values("image").iloc[0]
    return [str(row[n]).removeprefix(f"{root}/") for n in ("image", "mask", "fov")]


def test_the_published_layouts(root):
    federation = load("retina", root)
    assert (federation.task, federation.protocol) == ("segmentation", "grouped")
    assert federation.classes == ("background", "vessel")
    assert {s.name: len(s.table) for s in federation.sites} == {
        "CHASEDB1": 14, "DRIVE": 15, "HRF": 15, "stare": 10,
    }  # fmt: skip
    assert relative(site(federation, "DRIVE"), root) == [
        "DRIVE/test/images/01_test.tif",
        "DRIVE/test/1st_manual/01_manual1.gif",
        "DRIVE/test/mask/01_test_mask.gif",
    ]
    assert relative(site(federation, "stare"), root) == [
        "stare/stare-images/im0001.ppm",
        "stare/labels-ah/im0001.ah.ppm",
        "",
    ]
    assert relative(site(federation, "CHASEDB1"), root) == [
        "CHASEDB1/Image_01L.jpg",
        "CHASEDB1/Image_01L_1stHO.png",
        "",
    ]
    assert relative(site(federation, "HRF"), root) == [
        "HRF/images/01_dr.JPG",
        "HRF/manual1/01_dr.tif",
        "HRF/mask/01_dr_mask.tif",
    ]
    text = "\n".join(federation.notes)
    assert "'DRIVE': 15 of 15 images have no known patient" in text
    assert "'stare': 10 of 10 images have no field of view, so all their pixels are learnt" in text
    assert "'HRF'" not in text


def test_children_and_patients_are_groups(root):
    federation = load("retina", root)
    children = site(federation, "CHASEDB1")
    assert (children.groupby("group")["split"].agg(["size", "nunique"]) == [2, 1]).all(axis=None)
    patients = site(federation, "HRF")
    assert sorted(patients["group"])[:3] == ["HRF/01_dr", "HRF/01_g", "HRF/01_h"]
    assert patients.groupby("label")["split"].nunique().tolist() == [3, 3, 3]  # by disease


def test_the_published_split(root):
    federation = load("retina", root, protocol="published")
    drive = site(federation, "DRIVE")
    assert parts(drive) == (8, 2, 5)
    assert drive.loc[drive["split"] == "test", "image"].str.contains("/test/").all()
    assert federation.fingerprint == load("retina", root, protocol="published", seed=5).fingerprint
    text = "\n".join(federation.notes)
    assert "'DRIVE': its split has no validation part; 2 of 10 training images" in text
    assert "'HRF': its source gives no split; one was made" in text
    assert "leaks" not in text


def test_drive_without_manual_test_masks(root):
    for path in (root / "DRIVE" / "test" / "1st_manual").iterdir():
        path.unlink()
    (root / "DRIVE" / "test" / "1st_manual").rmdir()
    federation = load("retina", root)
    assert site(federation, "DRIVE")["image"].str.contains("training").all()
    assert any("only the training images are used" in note for note in federation.notes)


def test_folders_with_a_table(tmp_path):
    split = ["train"] * 5 + ["val"] + ["test"] * 6
    write_table(tmp_path / "x", patient=[f"p{n // 2}" for n in range(12)], disease="glaucoma")
    write_table(tmp_path / "y", split=split, fov_mask="")
    write_table(tmp_path / "hrf", split=["train"] * 6 + ["test"] * 6)
    (tmp_path / "notes").mkdir()
    federation = load("retina", tmp_path, protocol="published")
    assert parts(site(federation, "y")) == (5, 1, 6)
    assert parts(site(federation, "hrf")) == (4, 2, 6)
    assert site(federation, "hrf")["group"].tolist()[0] == "hrf/0"
    x, y = site(federation, "x"), site(federation, "y")
    assert (x.groupby("group")["split"].nunique() == 1).all()
    assert x["group"].nunique() == 6
    assert x["fov"].tolist()[0] == str(tmp_path / "x" / "fov" / "0.png")
    assert (y["fov"] == "").all()
    assert y["group"].tolist()[0] == "image:y/0"
    text = "\n".join(federation.notes)
    assert "notes has no labels.csv and was left out" in text
    assert "site 'y': 12 of 12 images have no field of view" in text


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("mask", "", "x/labels.csv, line 2: no value in column 'mask'"),
        ("id", "1", "x/labels.csv, line 3: the id 1 is already in the table"),
        ("image", "images/1.png", "line 3: the image images/1.png is already"),
        ("split", "tran", "x/labels.csv, line 2: unknown split 'tran'"),
        ("split", "", "x/labels.csv, line 2: no value in column 'split'"),
        ("fov_mask", "fov/no.png", r"site 'x': 1 of 12 images or masks are missing.*fov/no.png"),
    ],
)
def test_bad_values_name_file_and_line(tmp_path, column, value, words):
    write_table(tmp_path / "x", split=["train"] * 8 + ["test"] * 4)
    write_table(tmp_path / "y")
    path = tmp_path / "x" / "labels.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=words):
        load("retina", tmp_path)


def test_roots_that_do_not_fit(tmp_path, root):
    with pytest.raises(DataError, match=r"looked for .*<site>/labels.csv and for the folders DRIV"):
        load("retina", tmp_path / "nothing")
    with pytest.raises(SettingsError, match="retina has no task 'classification'"):
        load("retina", root, task="classification")
    with pytest.raises(DataError, match="only one"):
        load("retina", root, sites=["HRF"])
    (root / "stare" / "labels-ah" / "im0011.ah.ppm.gz").write_text("")
    with pytest.raises(DataError, match="packed files; unpack them: gunzip"):
        load("retina", root)
    (root / "stare" / "labels-ah" / "im0011.ah.ppm.gz").unlink()
    (root / "HRF" / "manual1" / "01_dr.tif").unlink()
    with pytest.raises(DataError, match=r"'HRF': 1 of 15 images or masks .*manual1/01_dr.tif"):
        load("retina", root)
    (root / "Chase_DB1").mkdir()
    with pytest.raises(DataError, match="Chase_DB1 has no images where Chase_DB1 has them"):
        load("retina", root)


def test_the_real_sites(shared_data):
    root = shared_data / "retina"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    federation = load("retina", root, protocol="published")
    assert {s.name: parts(s.table) for s in federation.sites} == {
        "hrf": (21, 3, 21),
        "les_av": (9, 2, 11),
    }
    assert all((s.table["fov"] != "").all() for s in federation.sites)
    federation = load("retina", root)
    assert {s.name: parts(s.table) for s in federation.sites} == {
        "hrf": (33, 3, 9),
        "les_av": (15, 2, 5),
    }
