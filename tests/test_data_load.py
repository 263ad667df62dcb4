import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import Federation, Site, datasets, inspect, load, write_phantom
from counterpoint.errors import DataError, SettingsError


def test_names_and_suggestions(tmp_path):
    assert {"dermoscopy", "phantom"} <= set(datasets())
    with pytest.raises(SettingsError, match=r"dermoscopy, .*phantom.*did you mean 'phantom'"):
        load("fantom")
    with pytest.raises(SettingsError, match="neither a data set"):
        load(tmp_path / "nothing.csv")
    with pytest.raises(SettingsError, match="unknown protocol 'given' for phantom"):
        load("phantom", protocol="given")


def test_kept_sites_and_suggestions():
    assert [s.name for s in load("phantom", sites=["west", "north"]).sites] == ["north", "west"]
    with pytest.raises(SettingsError, match="unknown site 'nort'; did you mean 'north'"):
        load("phantom", sites=["nort", "west"])
    with pytest.raises(DataError, match="only one"):
        load("phantom", sites="west")
    with pytest.raises(DataError, match="there is none"):
        load("phantom", sites=[])


def test_an_unwritable_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can be written .*: COUNTERPOINT_CACHE"):
        load("phantom", cache=tmp_path / "file" / "cache")


def test_inspect_counts_sizes_and_colours(tmp_path):
    colours = {"x": (250, 10, 30), "y": (0, 128, 255)}
    sites = []
    for name, colour in colours.items():
        paths = [str(tmp_path / f"{name}{i}.png") for i in range(3)]
        for path, size in zip(paths, [(4, 5), (20, 10), (5, 5)], strict=True):
            Image.new("RGB", size, colour).save(path)
        table = pd.DataFrame(
            {
                "image": paths,
                "label": [0, 1, 1],
                "split": ["train", "validation", "test"],
                "group": ["a", "a", "b"],
                "content": ["1", "2", "3"],
            }
        )
        sites.append(Site(name, table))
    federation = Federation("n", ("cat", "dog"), tuple(sites), "given")
    numbers = inspect(federation)
    assert numbers.index.tolist() == ["x", "y"]
    assert numbers.loc["x"].to_dict() == {
        "images": 3, "train": 1, "validation": 1, "test": 1, "class cat": 1, "class dog": 2,
        "groups": 2, "smallest": "4x5", "largest": "20x10",
        "red": 250.0, "green": 10.0, "blue": 30.0,
    }  # fmt: skip
    (tmp_path / "y1.png").write_text("no image")
    with pytest.raises(DataError, match=r"site 'y': .*y1.png"):
        inspect(federation)


def test_the_folder_reader_and_the_phantom_agree(tmp_path):
    folder = write_phantom(tmp_path / "own", size=16, scale=0.02)
    assert load(folder).fingerprint == load(folder, protocol="grouped").fingerprint
