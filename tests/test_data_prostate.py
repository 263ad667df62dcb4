import shutil

import nibabel
import numpy as np
import pandas as pd
import pytest

from counterpoint.data import load
from counterpoint.data.shuffled import shuffled_split
from counterpoint.errors import DataError

SITES = ("BIDMC", "HK", "I2CVB", "ISBI", "ISBI_1.5", "UCL")
PARTS = ("train", "validation", "test")
# slices, and train, validation and test slices of HarmoFL's index files
PUBLISHED = {"BIDMC": (261, 167, 41, 53), "HK": (157, 100, 25, 32), "I2CVB": (468, 299, 75, 94),
             "ISBI": (411, 263, 65, 83), "ISBI_1.5": (384, 245, 62, 77),
             "UCL": (175, 112, 28, 35)}  # fmt: skip


def save(folder, case, shown, seed, ending=".nii.gz", flip=False, word="_segmentation"):
    """Write a volume of 8 slices with a mask on the slices ``shown`` (counted from the feet)."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((6, 5, 8), dtype=np.uint8)
    for number, frame in enumerate(shown):
        mask[2:4, 1:3, frame] = 1 + number % 2  # ISBI has two zones
    volume = np.random.default_rng(seed).integers(0, 900, mask.shape).astype(np.int16)
    affine = np.diag([0.6, 0.6, 3.0, 1.0])
    if flip:  # the file's first slice is the head's
        affine[2, 2], volume, mask = -3.0, volume[:, :, ::-1], mask[:, :, ::-1]
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / f"{case}{ending}")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / f"{case}{word}{ending}")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("prostate")
    for place, site in enumerate(SITES):
        for case in range(4):
            shown = range(1 + case % 2, 6)
            save(root / site, f"Case{case:02d}", shown, [place, case], flip=case == 3)
    (root / "HK" / "._Case00.nii.gz").write_bytes(b"what macOS leaves behind")
    (root / "HK" / "readme.txt").write_text("")
    return root


@pytest.fixture
def root(made, tmp_path):
    for site in ("HK", "UCL"):
        shutil.copytree(made / site, tmp_path / site)
    return tmp_path


def test_slices_that_show_prostate(made):
    federation = load("prostate", made)
    assert [site.name for site in federation.sites] == list(SITES)
    assert federation.task == "segmentation"
    assert federation.classes == ("background", "prostate")
    assert federation.form.volumes == "slices"
    assert federation.form.neighbours
    assert federation.form.channels == 3
    for site in federation.sites:
        table = site.table
        assert len(table) == 18
        frames = table.groupby("group")["frame"].agg(list)
        assert frames.to_dict() == {
            f"{site.name}/Case{n:02d}": list(range(1 + n % 2, 6)) for n in range(4)
        }
        pairs = zip(table["image"], table["mask"], strict=True)
        assert all(m == i.replace(".nii", "_segmentation.nii") for i, m in pairs)
        assert table["content"].nunique() == 18
    assert "BIDMC 18 of 32, HK 18 of 32" in federation.notes[0]


def test_grouped_is_the_default_and_clean(made):
    federation = load("prostate", made)
    assert federation.protocol == "grouped"
    table = pd.concat([site.table for site in federation.sites])
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert all(set(site.table["split"]) == set(PARTS) for site in federation.sites)
    assert not any("leaks" in note for note in federation.notes)


def test_published_leaks_and_says_so(made):
    federation = load("prostate", made, protocol="published")
    for site in federation.sites:
        assert [(site.table["split"] == p).sum() for p in PARTS] == [11, 3, 4]
    _, shuffled, leaks = federation.notes
    assert "slices were shuffled (seed 0)" in shuffled
    assert "the split leaks: site 'BIDMC': 4 of 4 test images share a group" in leaks
    again = load("prostate", made, protocol="published", seed=9)
    assert again.fingerprint == federation.fingerprint


@pytest.mark.parametrize("site", SITES)
def test_published_has_the_published_numbers(site):
    total, *counts = PUBLISHED[site]
    split = shuffled_split(total, 0)
    assert [(split == part).sum() for part in PARTS] == counts


def test_volumes_are_opened_once(root, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load("prostate", root, cache=cache)
    monkeypatch.setattr(nibabel, "load", lambda path: pytest.fail(f"{path} was opened again"))
    assert load("prostate", root, cache=cache).fingerprint == first.fingerprint
    moved = root.parent / "elsewhere"
    shutil.copytree(root, moved)
    assert load("prostate", moved, cache=cache).fingerprint == first.fingerprint
    monkeypatch.undo()
    (cache / "prostate-slices.json").write_text("broken")
    assert load("prostate", root, cache=cache).fingerprint == first.fingerprint


def test_other_spellings(root):
    for case in range(3):
        save(root / "ISBI", f"case{case:02d}", [2, 3], case, ".nii", word="_Segmentation")
    site = load("prostate", root).sites[1]
    assert site.name == "ISBI"
    assert site.table["frame"].tolist() == [2, 3] * 3
    assert site.table["mask"][0].endswith("ISBI/case00_Segmentation.nii")
    assert set(site.table["group"]) == {"ISBI/case00", "ISBI/case01", "ISBI/case02"}


def test_sites_that_are_missing(root):
    notes = load("prostate", root).notes
    assert "there are no folders for the sites BIDMC, I2CVB, ISBI, ISBI_1.5" in notes
    shutil.rmtree(root / "HK")
    with pytest.raises(DataError, match=r"only one \('UCL'\)"):
        load("prostate", root)
    with pytest.raises(DataError, match=r"looked for the folders BIDMC, HK.*Case00_segmentation"):
        load("prostate", root / "UCL")


def test_files_that_are_missing(root):
    (root / "HK" / "Case01_segmentation.nii.gz").unlink()
    with pytest.raises(DataError, match=r"'HK': .*Case01.nii.gz has no mask \(case01_segm"):
        load("prostate", root)
    (root / "HK" / "Case01.nii.gz").unlink()
    (root / "UCL" / "Case02.nii.gz").unlink()
    with pytest.raises(DataError, match=r"'UCL': .*Case02_segmentation.nii.gz has no volume"):
        load("prostate", root)
    shutil.rmtree(root / "UCL")
    (root / "UCL").mkdir()
    with pytest.raises(DataError, match=r"'UCL': there are no .nii.gz"):
        load("prostate", root)


def test_masks_that_do_not_fit(root):
    mask = root / "UCL" / "Case00_segmentation.nii.gz"
    whole = mask.read_bytes()
    mask.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"Case00_segmentation.nii.gz can't be read as NIfTI"):
        load("prostate", root)
    nibabel.save(nibabel.Nifti1Image(np.ones((6, 5, 7), np.uint8), np.diag([1, 1, 3, 1])), mask)
    with pytest.raises(DataError, match=r"\(6, 5, 8\) voxels.* \(6, 5, 7\)"):
        load("prostate", root)
    shape = np.ones((6, 5, 8), np.uint8)
    nibabel.save(nibabel.Nifti1Image(shape, np.diag([-1, 1, 3, 1])), mask)
    with pytest.raises(DataError, match=r"axes RAS.* axes LAS; .*one size and orientation"):
        load("prostate", root)
    (root / "UCL" / "Case00.nii.gz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"Case00.nii.gz can't be read as NIfTI"):
        load("prostate", root)
