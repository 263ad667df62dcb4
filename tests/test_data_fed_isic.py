import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import load
from counterpoint.errors import DataError

NAMES = ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
PARTS = ("train", "validation", "test")


def benchmark():
    """Return 30 images of each of three centres; one lesion of centre 2 is in both folds."""
    rows = []
    for centre, target_count in ((0, 8), (2, 3), (4, 2)):
        for i in range(30):
            lesion = f"L{centre}_{0 if i == 29 else i}" if centre != 4 else ""
            fold = "train" if i < 24 else "test"
            rows.append((f"ISIC_{centre}{i:02d}", lesion, centre, i % target_count, fold))
    return pd.DataFrame(rows, columns=["image", "lesion_id", "center", "target", "fold"])


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def flamby(tmp_path):
    """Return a folder in FLamby's layout, with a table that has all columns of theirs."""
    root = tmp_path / "flamby"
    rows = benchmark()
    for number, image in enumerate(rows["image"]):
        save(root / "ISIC_2019_Training_Input_preprocessed" / f"{image}.jpg", number)
    table = pd.DataFrame({"image": rows["image"]})
    for index, name in enumerate(NAMES):
        table[name] = (rows["target"] == index).astype(float)
    table = table.assign(target=rows["target"], center=rows["center"], fold=rows["fold"])
    table["fold2"] = table["fold"] + "_" + table["center"].astype(str)
    table.to_csv(root / "train_test_split", index=False)
    metadata = rows[["image", "lesion_id"]].assign(age_approx="50", sex="")
    metadata.to_csv(root / "ISIC_2019_Training_Metadata.csv", index=False)
    return root


@pytest.fixture
def by_source(tmp_path):
    root = tmp_path / "by_source"
    rows = benchmark()
    rows["seed"] = range(len(rows))
    for centre, mine in rows.groupby("center"):
        folder = root / f"source{centre}"
        for image, seed in zip(mine["image"], mine["seed"], strict=True):
            save(folder / "images" / f"{image}.jpg", seed)
        table = pd.DataFrame(
            {
                "image_id": mine["image"],
                "image": "images/" + mine["image"] + ".jpg",
                "lesion_id": mine["lesion_id"],
                "flamby_center": mine["center"].astype(str),
                "flamby_target": mine["target"].astype(str),
                "flamby_fold": mine["fold"],
            }
        )
        table.loc[len(rows)] = ["ISIC_X", "images/none.jpg", "", "", "", ""]
        table.to_csv(folder / "labels.csv", index=False)
    return root


def ids(federation):
    columns = ("label", "split", "group", "content")
    return {
        site.name: sorted(
            zip(
                [path.rsplit("/", 1)[-1] for path in site.table["image"]],
                *(site.table[c] for c in columns),
                strict=True,
            )
        )
        for site in federation.sites
    }


def test_both_layouts_give_the_same(flamby, by_source):
    for protocol in ("grouped", "published"):
        one = load("fed-isic2019", flamby, protocol=protocol)
        two = load("fed-isic2019", by_source, protocol=protocol)
        assert ids(one) == ids(two)
        assert one.notes == two.notes
        assert [s.name for s in one.sites] == ["centre 0", "centre 2", "centre 4"]
    assert len(one.classes) == 8
    assert one.classes[0] == "melanoma"


def test_grouped_is_the_default_and_clean(flamby):
    federation = load("fed-isic2019", flamby)
    assert federation.protocol == "grouped"
    frame = pd.concat([s.table for s in federation.sites])
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    text = "\n".join(federation.notes)
    assert "site 'centre 4': 30 of 30 images have no known lesion" in text
    assert "without images here: 1 (HAM vidir_molemax), 3 (HAM rosendahl), 5 (HAM vienna_di" in text
    assert "site 'centre 4' has no training image of class 'squamous cell carcinoma'" in text


def test_published_takes_validation_from_training(flamby):
    federation = load("fed-isic2019", flamby, protocol="published", seed=7)
    assert ids(federation) == ids(load("fed-isic2019", flamby, protocol="published"))
    for site in federation.sites:
        assert (site.table["split"] == "test").sum() == 6
        assert 2 <= (site.table["split"] == "validation").sum() <= 8  # one a class, if there are 3
        validation = set(site.table.loc[site.table["split"] == "validation", "group"])
        assert not validation & set(site.table.loc[site.table["split"] == "train", "group"])
    text = "\n".join(federation.notes)
    assert "'centre 4': its split has no validation part; 2 of 24 training images" in text
    assert "'centre 2': 1 of 6 test images share a group" in text


def test_flamby_without_lesions(flamby):
    (flamby / "ISIC_2019_Training_Metadata.csv").unlink()
    (flamby / "train_test_split").rename(flamby / "train_test_split.csv")
    federation = load("fed-isic2019", flamby)
    text = "\n".join(federation.notes)
    assert "site 'centre 0': 30 of 30 images have no known lesion" in text


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("center", "6", r"train_test_split, line 2: center is '6'; it must be one of 0 \(BCN\)"),
        ("target", "8", r"line 2: target is '8'; it must be one of 0 \(melanoma\)"),
        ("fold", "valid", "line 2: fold must be train or test"),
        ("fold", "tst", "line 2: unknown split 'tst'; did you mean 'test'"),
        ("image", "ISIC_001", "line 3: the image ISIC_001 is already in the table"),
        ("image", "ISIC_999", r"'centre 0': 1 of 30 images .*ISIC_999.jpg \(line 2\)"),
    ],
)
def test_bad_values_name_file_and_line(flamby, column, value, words):
    path = flamby / "train_test_split"
    table = pd.read_csv(path, dtype=str)
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=words):
        load("fed-isic2019", flamby)


def test_roots_that_do_not_fit(tmp_path, by_source):
    with pytest.raises(DataError, match=r"looked for .*train_test_split.*<source>/labels.csv"):
        load("fed-isic2019", tmp_path / "nothing")
    (tmp_path / "train_test_split").write_text("image,center,target,fold\na,0,0,train\n")
    with pytest.raises(DataError, match="has neither ISIC_2019_Training_Input_preprocessed nor"):
        load("fed-isic2019", tmp_path)
    for path in by_source.glob("*/labels.csv"):
        pd.read_csv(path, dtype=str).assign(flamby_center="").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"no row of .* has a flamby_center"):
        load("fed-isic2019", by_source)


def test_a_centre_of_one_class(flamby):
    path = flamby / "train_test_split"
    table = pd.read_csv(path, dtype=str)
    table.loc[table["center"] == "4", "target"] = "1"
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match="'centre 4': all 21 training images are of class 'nevus'"):
        load("fed-isic2019", flamby)


def test_the_real_folds(shared_data):
    federation = load("fed-isic2019", shared_data / "dermoscopy", protocol="published")
    counts = {
        s.name: tuple(int((s.table["split"] == p).sum()) for p in PARTS) for s in federation.sites
    }
    assert {s: (train + validation, test) for s, (train, validation, test) in counts.items()} == {
        "centre 1": (3163, 791),
        "centre 2": (2691, 672),
        "centre 3": (1807, 452),
        "centre 4": (655, 164),
        "centre 5": (351, 88),
    }
    for train, validation, _ in counts.values():
        assert 0.09 < validation / (train + validation) < 0.13
    text = "\n".join(federation.notes)
    assert "without images here: 0 (BCN)" in text
    assert "share a group (patient or lesion) with train images" in text
    assert "validation images share a group" not in text


def test_the_real_centres_split_by_lesion(shared_data):
    federation = load("fed-isic2019", shared_data / "dermoscopy")
    frame = pd.concat([s.table for s in federation.sites])
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    assert [len(s.table) for s in federation.sites] == [3954, 3363, 2259, 819, 439]
