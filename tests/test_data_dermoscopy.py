import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import decode, inspect, load
from counterpoint.errors import DataError, SettingsError

PUBLISHED = {"A": (2091, 298, 598), "B": (2708, 386, 774), "C": (1144, 163, 328),
             "D": (1400, 199, 401)}  # fmt: skip
PARTS = ("train", "validation", "test")
SOURCES = {"A": "vidir_modern", "B": "vidir_molemax", "C": "rosendahl", "D": "isic2017"}


def benchmark():
    """Return 30 images a client; in A the first test image shows the first training lesion."""
    rows = []
    for client in "ABCD":
        for i in range(30):
            lesion = "" if client == "D" else f"HAM_{client}{0 if i == 29 else i}"
            split = "train" if i < 21 else "valid" if i < 24 else "test"
            rows.append((f"ISIC_{client}{i:02d}", lesion, client, split, str(i % 3)))
    names = ["image_id", "lesion_id", "prrfl_client", "prrfl_split", "prrfl_label"]
    return pd.DataFrame(rows, columns=names)


def save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def by_source(tmp_path):
    root = tmp_path / "by_source"
    for client, rows in benchmark().groupby("prrfl_client"):
        folder = root / SOURCES[client]
        extra = pd.DataFrame([["ISIC_X", "", "", "", ""]], columns=rows.columns)
        rows = pd.concat([rows, extra]).assign(
            image=lambda t: "images/" + t["image_id"] + ".png",
            mask=lambda t: "masks/" + t["image_id"] + ".png",
            dx=lambda t: t["prrfl_label"].map({"0": "nv", "1": "bkl", "2": "mel", "": "bcc"}),
            age="50",
        )
        if client == "D":
            rows.loc[rows["image_id"].isin(["ISIC_D05", "ISIC_D25"]), "mask"] = ""
        for number, (image, mask) in enumerate(zip(rows["image"], rows["mask"], strict=True)):
            save(folder / image, [ord(client), number])
            if mask:
                save(folder / mask, [0, ord(client), number])
        rows.to_csv(folder / "labels.csv", index=False)
    return root


@pytest.fixture(params=["root", "csv_folder", "beside", "data"])
def by_client(request, tmp_path):
    root = tmp_path / "by_client"
    base = root / "data" if request.param == "data" else root
    for client, rows in benchmark().groupby("prrfl_client"):
        name = f"client{client}"
        tables = {
            "root": base / name,
            "csv_folder": base / "csv_folder" / name,
            "beside": root.parent / "csv_folder" / name,
            "data": root / "csv_folder" / name,
        }[request.param]
        tables.mkdir(parents=True, exist_ok=True)
        resized = "img_resize256" if client == "C" else "img_resize128"
        for number, image in enumerate(rows["image_id"]):
            save(base / name / resized / f"{image}.png", [ord(client), number])
        for part, mine in rows.groupby("prrfl_split"):
            theirs = pd.DataFrame(
                {
                    "image_id": mine["image_id"],
                    "label": mine["prrfl_label"],
                    "label_binary": 0,
                    "lesion_id": mine["lesion_id"].replace("", "0"),
                    "dx": "nv",
                }
            )
            theirs.to_csv(tables / f"{part}_{name}.csv", index=False)
    return root


def published(federation):
    names = {}
    for site in federation.sites:
        ids = [path.rsplit("/", 1)[-1].removesuffix(".png") for path in site.table["image"]]
        columns = (site.table[c] for c in ("label", "split", "group"))
        names[site.name] = sorted(zip(ids, *columns, strict=True))
    return names


def test_both_layouts_give_the_same(by_source, by_client):
    for protocol in ("published", "grouped"):
        one = load("dermoscopy", by_source, protocol=protocol)
        two = load("dermoscopy", by_client, protocol=protocol)
        assert published(one) == published(two)
        assert [s.name for s in one.sites] == ["A", "B", "C", "D"]
        assert one.classes == ("nevus", "benign keratosis", "melanoma")


def test_published_leaks_and_says_so(by_source):
    federation = load("dermoscopy", by_source, protocol="published")
    assert federation.protocol == "published"
    for site in federation.sites:
        assert [(site.table["split"] == p).sum() for p in PARTS] == [21, 3, 6]
    unknown, note = federation.notes
    assert "site 'D': 30 of 30 images have no known lesion" in unknown
    assert "site 'A': 1 of 6 test images share a group" in note
    assert "HAM_A0" in note
    assert "site 'D'" not in note


def test_grouped_is_the_default_and_clean(by_source):
    federation = load("dermoscopy", by_source)
    assert federation.protocol == "grouped"
    frame = pd.concat([s.table for s in federation.sites])
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    assert len(federation.sites[3].table["group"].unique()) == 30
    for site in federation.sites:
        counts = [(site.table["split"] == p).sum() for p in PARTS]
        assert np.abs(np.array(counts) - [21, 3, 6]).max() <= 2


def test_roots_that_do_not_fit(tmp_path, by_source):
    with pytest.raises(SettingsError, match="needs root"):
        load("dermoscopy")
    with pytest.raises(DataError, match=r"looked for .*<source>/labels.csv.*clientA"):
        load("dermoscopy", tmp_path / "nothing")
    with pytest.raises(
        SettingsError, match=r"unknown protocol 'publised'.*did you mean 'published'"
    ):
        load("dermoscopy", by_source, protocol="publised")
    with pytest.raises(SettingsError, match="built in and takes no root"):
        load("phantom", by_source)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("prrfl_label", "3", r"rosendahl/labels.csv, line 2: prrfl_label is '3'"),
        ("prrfl_client", "E", "line 2: unknown prrfl_client 'E'"),
        ("prrfl_split", "tran", "line 2: unknown split 'tran'; did you mean 'train'"),
        ("image_id", "ISIC_C01", "line 3: the image ISIC_C01 is already in the table"),
        ("image", "images/no.png", r"'C': 1 of 30 images .*no.png \(line 2\)"),
    ],
)
def test_bad_values_name_file_and_line(by_source, column, value, words):
    path = by_source / "rosendahl" / "labels.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=words):
        load("dermoscopy", by_source)


def test_no_rows_of_the_benchmark(by_source):
    for path in by_source.glob("*/labels.csv"):
        pd.read_csv(path, dtype=str).assign(prrfl_client="").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"no row of .* has a prrfl_client"):
        load("dermoscopy", by_source)


def test_segmentation_takes_the_images_with_a_mask(by_source):
    federation = load("dermoscopy", by_source, task="segmentation", protocol="published")
    assert (federation.task, federation.classes) == ("segmentation", ("background", "lesion"))
    assert [len(s.table) for s in federation.sites] == [30, 30, 30, 28]
    assert federation.notes[0] == "site 'D': 2 of 30 images have no mask and were left out"
    for site in federation.sites:
        assert sorted(site.table["label"].unique()) == [0, 1, 2]  # the diagnosis
        images, masks = site.table["image"], site.table["mask"]
        assert masks.tolist() == [image.replace("/images/", "/masks/") for image in images]
        assert site.table["target"].str.len().min() == 64
    assert load("dermoscopy", by_source, task="segmentation").protocol == "grouped"


def test_classification_needs_no_masks(by_source):
    for mask in by_source.glob("*/masks/*"):
        mask.unlink()
    assert "mask" not in load("dermoscopy", by_source).sites[0].table
    with pytest.raises(DataError, match=r"'A': 30 of 30 images or masks are missing.*masks/ISIC_A"):
        load("dermoscopy", by_source, task="segmentation")


@pytest.mark.parametrize("name", ["dermoscopy", "dermoscopy5"])
def test_a_site_without_any_mask(by_source, name):
    path = by_source / "rosendahl" / "labels.csv"
    pd.read_csv(path, dtype=str).drop(columns="mask").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"site '(C|rosendahl)' has no masks; fill in the column"):
        load(name, by_source, task="segmentation")


def test_the_layout_by_client_has_no_masks(tmp_path):
    (tmp_path / "clientA").mkdir()
    with pytest.raises(DataError, match="has no masks; segmentation needs the layout by source"):
        load("dermoscopy", tmp_path, task="segmentation")


def test_all_sources_as_sites(by_source):
    federation = load("dermoscopy5", by_source)
    assert [s.name for s in federation.sites] == sorted(SOURCES.values())
    assert federation.classes == ("nevus", "benign keratosis", "melanoma")
    assert [len(s.table) for s in federation.sites] == [30] * 4
    assert federation.sites[0].table["group"].str.startswith("image:ISIC_D").all()
    assert federation.sites[1].table["group"].nunique() == 29
    text = "\n".join(federation.notes)
    assert "site 'isic2017': 1 of 31 images have another diagnosis than nv, bkl, mel" in text
    assert "of the five sources vienna_dias are not in" in text
    assert "site 'isic2017': 30 of 30 images have no known lesion" in text

    federation = load("dermoscopy5", by_source, task="segmentation")
    assert [len(s.table) for s in federation.sites] == [29, 31, 31, 31]
    assert sorted(federation.sites[1].table["label"].unique()) == [0, 1, 2, 3]
    assert "site 'isic2017': 2 of 31 images have no mask and were left out" in federation.notes


def test_all_sources_where_there_are_none(tmp_path, by_source):
    with pytest.raises(DataError, match=r"looked for .*<source>/labels.csv.*vienna_dias"):
        load("dermoscopy5", tmp_path / "nothing")
    with pytest.raises(SettingsError, match="unknown protocol 'published' for dermoscopy5"):
        load("dermoscopy5", by_source, protocol="published")
    path = by_source / "rosendahl" / "labels.csv"
    pd.read_csv(path, dtype=str).assign(dx="bcc").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"rosendahl/labels.csv has no row whose dx is one of nv"):
        load("dermoscopy5", by_source)


def test_incomplete_client_folders(tmp_path):
    (tmp_path / "clientA").mkdir()
    with pytest.raises(DataError, match=r"'A': train_clientA.csv, .* are not together"):
        load("dermoscopy", tmp_path)
    for part in ("train", "valid", "test"):
        (tmp_path / "clientA" / f"{part}_clientA.csv").write_text(
            "image_id,label,lesion_id\na,0,0\n"
        )
    with pytest.raises(DataError, match=r"'A': .* has neither img_resize128 nor img_resize256"):
        load("dermoscopy", tmp_path)


def test_the_real_published_split(shared_data):
    federation = load("dermoscopy", shared_data / "dermoscopy", protocol="published")
    counts = {
        s.name: tuple(int((s.table["split"] == p).sum()) for p in PARTS) for s in federation.sites
    }
    assert counts == PUBLISHED
    _, note = federation.notes
    assert "site 'A': 419 of 598 test images share" in note
    assert "site 'C': 159 of 328 test images share" in note


def test_the_real_grouped_split(shared_data):
    federation = load("dermoscopy", shared_data / "dermoscopy")
    frame = pd.concat([s.table.assign(site=s.name) for s in federation.sites])
    assert (frame.groupby("group")["split"].nunique() == 1).all()
    for (site, _), table in frame.groupby(["site", "label"]):
        largest = table["group"].value_counts().max()
        for part, count in zip(PARTS, PUBLISHED[site], strict=True):
            wanted = len(table) * count / sum(PUBLISHED[site])
            assert abs((table["split"] == part).sum() - wanted) <= largest
        assert table["split"].nunique() == 3
    numbers = inspect(federation)
    assert numbers.loc["D", ["groups", "smallest"]].tolist() == [2000, "256x256"]


def test_real_images_decode(shared_data, tmp_path):
    federation = load("dermoscopy", shared_data / "dermoscopy", sites=["C", "D"], train_limit=20)
    _, sites = decode(federation, 16)
    assert [len(s.part("train")) for s in sites] == [20, 20]
    assert 60 < sites[0].part("test").images.mean() < 220


def test_the_real_masks(shared_data):
    root = shared_data / "dermoscopy"
    federation = load("dermoscopy", root, task="segmentation", protocol="published")
    assert [len(s.table) for s in federation.sites] == [2987, 3868, 1635, 1800]
    assert "site 'D': 200 of 2000 images have no mask and were left out" in federation.notes


def test_the_real_five_sources(shared_data):
    root = shared_data / "dermoscopy"
    names = ["isic2017", "rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias"]
    for task, counts in (
        ("classification", [2202, 1635, 2987, 3868, 427]),
        ("segmentation", [1968, 2259, 3363, 3954, 439]),
    ):
        federation = load("dermoscopy5", root, task=task)
        assert {s.name: len(s.table) for s in federation.sites} == dict(
            zip(names, counts, strict=True)
        )
        frame = pd.concat([s.table for s in federation.sites])
        assert (frame.groupby("group")["split"].nunique() == 1).all()
        assert not any("of the five sources" in note for note in federation.notes)
