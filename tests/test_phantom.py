import multiprocessing
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from counterpoint.data import decode, inspect, load, write_phantom
from counterpoint.data.phantom import phantom_folder

NAMES = ["east", "north", "south", "west"]


def pixels(folder: Path):
    return {p.relative_to(folder): np.asarray(Image.open(p)) for p in sorted(folder.rglob("*.png"))}


def test_two_generations_are_identical(tmp_path):
    one, two = (pixels(write_phantom(tmp_path / n, size=32, scale=0.02)) for n in "ab")
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)
    other = pixels(write_phantom(tmp_path / "c", size=32, scale=0.02, seed=1))
    assert any((one[name] != other[name]).any() for name in one)


def test_the_builtin_data_set():
    federation = load("phantom")
    assert federation.name == "phantom"
    assert federation.protocol == "grouped"
    assert federation.classes == ("irregular", "round", "scalloped")
    assert [s.name for s in federation.sites] == NAMES
    assert [len(s.table) for s in federation.sites] == [200, 260, 150, 111]
    for site in federation.sites:
        assert site.table["group"].nunique() < len(site.table)
        assert site.table.groupby("split")["label"].nunique().eq(3).all()
        image, mask = site.table.loc[0, ["image", "mask"]]
        assert (Image.open(image).size, Image.open(image).mode) == ((96, 96), "RGB")
        assert Image.open(mask).mode == "1"
        assert 0.05 < np.asarray(Image.open(mask)).mean() < 0.6
    assert load("phantom").fingerprint == federation.fingerprint


def test_the_scanners_differ_in_colour():
    colours = inspect(load("phantom"))[["red", "green", "blue"]]
    cast = colours.sub(colours.mean(axis=1), axis=0)
    for i, one in enumerate(NAMES):
        for other in NAMES[i + 1 :]:
            assert np.abs(cast.loc[one] - cast.loc[other]).max() > 15


def test_classes_can_be_told_apart_by_simple_numbers():
    """Far from a network's score, but above what the majority gives."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import balanced_accuracy_score

    federation, sites = decode(load("phantom"), 32)
    parts = {}
    for part in ("train", "test"):
        found = [site.part(part) for site in sites]
        x = np.concatenate([p.images[p.rows] for p in found]).astype(float)
        tiles = x.reshape(len(x), 3, 8, 4, 8, 4)
        features = np.concatenate([tiles.mean((3, 5)), tiles.std((3, 5))], 1).reshape(len(x), -1)
        parts[part] = features, np.concatenate([p.labels for p in found])
    forest = RandomForestClassifier(100, random_state=0, class_weight="balanced")
    forest.fit(*parts["train"])
    assert balanced_accuracy_score(parts["test"][1], forest.predict(parts["test"][0])) > 0.45
    assert len(federation.classes) == 3


def test_a_tiny_one_can_be_loaded(tmp_path):
    write_phantom(tmp_path / "tiny", size=24, scale=0.05)
    federation = load(tmp_path / "tiny")
    assert [s.name for s in federation.sites] == NAMES
    assert all(len(s.table) >= 12 for s in federation.sites)


def _make(cache):
    import counterpoint.data.phantom as phantom

    whole = phantom.write_phantom
    phantom.write_phantom = lambda folder: whole(folder, size=16, scale=0.02)
    return str(phantom_folder(cache))


def test_two_processes_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        one, two = pool.map(_make, [tmp_path, tmp_path], chunksize=1)
    assert one == two
    assert [p.name for p in tmp_path.iterdir()] == [Path(one).name]
    assert len(pd.read_csv(Path(one) / "north" / "labels.csv")) >= 12
