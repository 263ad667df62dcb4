import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import decode, load
from counterpoint.errors import DataError, SettingsError

PARTS = ("train", "validation", "test")


def metadata():
    """Return 48 patches a hospital, of four patients with one node or two."""
    rows = []
    for center in range(5):
        for i in range(48):
            patient = center * 20 + i % 4
            node = 1 if i < 40 else 2
            rows.append((f"{patient:03d}", node, 96 * i, 32 * i, i // 4 % 2, i % 8, center, 0))
    names = ["patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"]
    return pd.DataFrame(rows, columns=names)


def name_of(row):
    node = f"patient_{row.patient}_node_{row.node}"
    return f"patches/{node}/patch_{node}_x_{row.x_coord}_y_{row.y_coord}.png"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    root = tmp_path_factory.mktemp("wilds") / "camelyon17_v1.0"
    table = metadata()
    rng = np.random.default_rng(1)
    for row in table.itertuples():
        path = root / name_of(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).save(path)
    table.to_csv(root / "metadata.csv")  # its first column, the index, has no name
    return root


@pytest.fixture
def root(packed, tmp_path):
    """Return a copy whose table may be spoilt."""
    (tmp_path / "metadata.csv").write_text((packed / "metadata.csv").read_text())
    (tmp_path / "patches").symlink_to(packed / "patches")
    return tmp_path


def test_either_folder_and_the_default_is_clean(packed):
    outer, inner = load("camelyon17", packed.parent), load("camelyon17", packed)
    assert outer.fingerprint == inner.fingerprint
    assert outer.protocol == "grouped"
    assert outer.classes == ("normal", "tumor")
    assert [site.name for site in outer.sites] == [f"hospital {n}" for n in range(5)]
    table = pd.concat([site.table for site in outer.sites])
    assert len(table) == 240
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert not any("leaks" in note for note in outer.notes)
    for site in outer.sites:
        assert set(site.table["split"]) == set(PARTS)
        assert site.table["group"].nunique() == 4
        assert (site.table.groupby("split")["label"].nunique() == 2).all()


def test_labels_and_groups_belong_to_the_right_files(packed):
    site = load("camelyon17", packed, sites=["hospital 3", "hospital 1"]).sites[1]
    wanted = metadata().query("center == 3")
    assert site.name == "hospital 3"
    assert site.table["image"].tolist() == [str(packed / name_of(r)) for r in wanted.itertuples()]
    assert site.table["label"].tolist() == wanted["tumor"].tolist()
    assert site.table["group"].tolist() == [f"patient {p}" for p in wanted["patient"]]


def test_patches_leaks_and_says_so(packed):
    federation = load("camelyon17", packed, protocol="patches")
    for site in federation.sites:
        assert [(site.table["split"] == p).sum() for p in PARTS] == [30, 8, 10]
    shuffled, leaks = federation.notes
    assert "every hospital's patches were shuffled (seed 0)" in shuffled
    assert "not public" in shuffled
    assert "the split leaks: site 'hospital 0': 10 of 10 test images share a group" in leaks
    again = load("camelyon17", packed, protocol="patches", seed=5)
    assert again.fingerprint == federation.fingerprint  # it is the same for everybody
    first, second = (site.table["split"].tolist() for site in federation.sites[:2])
    assert first != second


def test_hospital_held_out(packed):
    federation = load("camelyon17", packed, holdout="hospital 2")
    assert federation.holdout.name == "hospital 2"
    assert [site.name[-1] for site in federation.sites] == ["0", "1", "3", "4"]


def test_patches_decode(packed):
    _, sites = decode(load("camelyon17", packed, sites=["hospital 0", "hospital 4"]), 8)
    assert sites[0].part("train").images.shape == (48, 3, 8, 8)


def test_patients_that_lost_their_zeros(root):
    path = root / "metadata.csv"
    pd.read_csv(path, index_col=0).to_csv(path)  # patient 000 becomes 0
    assert "patient_000_node_1" in load("camelyon17", root).sites[0].table["image"][0]


def test_roots_that_do_not_fit(root, tmp_path):
    with pytest.raises(DataError, match=r"looked for metadata.csv together .*camelyon17_v1.0"):
        load("camelyon17", root / "patches")
    with pytest.raises(DataError, match=r"looked for metadata.csv"):
        load("camelyon17", tmp_path / "nothing")
    with pytest.raises(SettingsError, match=r"unknown protocol 'patch'.*'patches'"):
        load("camelyon17", root, protocol="patch")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("tumor", "2", r"metadata.csv, line 3: tumor is '2'; it must be 0 or 1"),
        ("center", "5", r"line 3: center is '5'; it must be 0 to 4"),
        ("x_coord", "1.5", r"line 3: x_coord is '1.5'; it must be a whole number"),
        ("patient", "", r"line 3: patient is ''"),
        ("node", "7", r"'hospital 0': 1 of 48 images .*node_7_x_96_y_32.png \(line 3\)"),
    ],
)
def test_bad_values_name_file_and_line(root, column, value, words):
    path = root / "metadata.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[1, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(DataError, match=words):
        load("camelyon17", root)


def test_tables_that_can_not_be_used(root):
    path = root / "metadata.csv"
    lines = path.read_text().splitlines()
    for text, words in (
        ("\n".join([*lines, lines[1]]), r"line 242: the patch patient_000.* is already in"),
        (lines[0], "has no rows"),
        ("", "can't be read"),
        ("a,b\n1,2", "has no column 'patient'"),
        ("\n".join([*lines, "1,2,3,4,5,6,7,8,9,10"]), "can't be read .*line 242"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=words):
            load("camelyon17", root)
    path.write_bytes(b"patient\n\xff\xfe")
    with pytest.raises(DataError, match="can't be read"):
        load("camelyon17", root)


def test_one_hospital_only(root):
    path = root / "metadata.csv"
    pd.read_csv(path, dtype=str).query("center == '1'").to_csv(path, index=False)
    with pytest.raises(DataError, match=r"only one \('hospital 1'\)"):
        load("camelyon17", root)
