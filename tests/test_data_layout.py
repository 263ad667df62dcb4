"""Tables out of folders, by the function and by the command."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import load
from counterpoint.data.layout import table_of
from counterpoint.errors import DataError


@pytest.fixture
def put(tmp_path):
    """Return a function that saves a small image of its own at each path below a folder."""
    drawn = np.random.default_rng(0)

    def put(*paths, mask=False):
        for path in paths:
            file = tmp_path / "study" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = drawn.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray((pixels[..., 0] > 99).astype(np.uint8) if mask else pixels).save(file)
        return tmp_path / "study"

    return put


def values(table, *columns):
    return table[list(columns)].values.tolist()


def test_a_folder_a_class(put):
    folder = put("Lyon/cat/b.png", "Lyon/cat/a/7.jpg", "Lyon/dog/c.png", "Graz/dog/d.tif")
    (folder / "Lyon" / "notes.txt").write_text("not an image")
    (folder / "Lyon" / ".hidden.png").write_text("not an image")
    table = table_of(folder)
    assert list(table) == ["site", "image", "label"]
    assert values(table, "site", "label") == [
        ["Graz", "dog"],
        ["Lyon", "cat"],
        ["Lyon", "cat"],
        ["Lyon", "dog"],
    ]
    assert table["image"].tolist()[:2] == [
        str(folder / "Graz" / "dog" / "d.tif"),
        str(folder / "Lyon" / "cat" / "a" / "7.jpg"),
    ]


def test_folders_of_a_split_and_patients_in_names(put):
    folder = put("Lyon/Training/cat/p1_3.png", "Lyon/test/dog/p2_1.png", "Graz/val/dog/p1_1.png")
    table = table_of(folder, r"(p\d+)_")
    assert values(table, "site", "split", "label", "group") == [
        ["Graz", "validation", "dog", "Graz-p1"],
        ["Lyon", "train", "cat", "Lyon-p1"],
        ["Lyon", "test", "dog", "Lyon-p2"],
    ]


def test_images_and_masks(put):
    folder = put("A/images/1.jpg", "A/images/1_2.jpg", "B/Images/x/3.png", "B/fov/x/3.png")
    put("A/masks/1.png", "A/masks/1_2_mask.png", "B/masks/x/3_seg.png", mask=True)
    table = table_of(folder)
    assert list(table) == ["site", "image", "mask", "fov"]
    masks = [str(folder / m) for m in ("A/masks/1.png", "A/masks/1_2_mask.png")]
    assert table["mask"].tolist() == [*masks, str(folder / "B/masks/x/3_seg.png")]
    assert table["fov"].tolist() == ["", "", str(folder / "B/fov/x/3.png")]


@pytest.mark.parametrize(
    ("images", "masks", "what"),
    [
        ([], [], "has no folders with images"),
        (["Lyon/1.png"], [], "does not lie in a folder of its class"),
        (["train/cat/1.png"], [], "is called like a part of a split"),
        (["Lyon/images/1.png"], [], "nothing in a folder called masks"),
        (["Lyon/images/1.png"], ["Lyon/masks/2.png"], "no file of the same name"),
        (["Lyon/images/1.png"], ["Lyon/masks/1_a.png", "Lyon/masks/1_b.png"], "2 files of the"),
        (["A/images/1.png"], ["A/masks/1.png", "A/masks/2.png"], "2.png is the mask of no image"),
        (["A/images/1.png", "A/images/1.jpg"], ["A/masks/1.png"], "is the mask of 2 images"),
        (["A/images/1.png", "B/cat/1.png"], ["A/masks/1.png"], "neither images nor masks"),
    ],
)
def test_what_does_not_fit_is_named(put, images, masks, what):
    folder = put(*images)
    put(*masks, mask=True).mkdir(exist_ok=True)
    with pytest.raises(DataError, match=what):
        table_of(folder)


def test_a_patient_that_is_not_found_is_named(put):
    folder = put("Lyon/cat/p1_3.png", "Lyon/cat/x.png")
    with pytest.raises(DataError, match=r"x\.png: no patient is found in 'cat/x\.png'"):
        table_of(folder, r"p(\d+)_")


def counterpoint(*words):
    return subprocess.run(
        [sys.executable, "-m", "counterpoint.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_makes_a_table_that_can_be_used(put):
    classes = [f"{site}/{label}/p{n}_1.png" for site in "AB" for label in "xy" for n in range(10)]
    folder = put(*classes)
    done = counterpoint("table", folder, "--group", r"(p\d+)_", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == {"A": 20, "B": 20}
    assert pd.read_csv(folder / "labels.csv")["image"][0] == "A/x/p0_1.png"
    federation = load(folder)
    assert federation.classes == ("x", "y")
    assert not [note for note in federation.notes if "have no known patient" in note]
    again = counterpoint("table", folder)
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_the_command_refuses_wrong_words(put, tmp_path):
    folder = put("A/x/1.png")
    for words, what in (
        (["--group", "p1"], "parentheses"),
        (["--group", "(p1"], "missing"),
        (["--group", "(p1)"], "no patient is found"),
    ):
        done = counterpoint("table", folder, *words)
        assert (done.returncode, what in done.stderr) == (2, True), done.stderr
    assert not (folder / "labels.csv").exists()
    assert "--group" in counterpoint("table", folder, "--out", tmp_path / "t.csv").stderr
    assert pd.read_csv(tmp_path / "t.csv")["image"].tolist() == ["study/A/x/1.png"]
    assert counterpoint("table", tmp_path / "nothing").returncode == 2
