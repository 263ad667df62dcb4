"""Distances of outlines in millimetres: of whole volumes, by hand, from headers to results."""

import json
import math

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist
from torch.nn import functional as F

from counterpoint import api
from counterpoint.data import decode, load
from counterpoint.data.extents import read_extents
from counterpoint.data.site import Form, SiteData
from counterpoint.data.volumes import cut
from counterpoint.errors import DataError
from counterpoint.extents import Extents
from counterpoint.results import Result
from counterpoint.tasks import Segmentation
from tests.running import call, options
from tests.test_data_volumes import dicom, nifti, series

TASK = Segmentation(("background", "organ"))
MM = (5.0, 0.5, 2.0)


def extents(*volumes):
    """Of volumes, each a grid and a spacing."""
    images = [
        (place, spacing, number)
        for number, (grid, spacing) in enumerate(volumes)
        for place in np.ndindex(*grid)
    ]
    places, spacings, files = map(np.array, zip(*images, strict=True))
    return Extents.of(places, spacings, files)


def scores(found, truth, cases, sizes, batch=3, seed=0, task=TASK):
    """Of masks (n, *space) that are found in batches of mixed order."""
    scorer = task.scorer(sizes)
    found, truth, cases = (torch.as_tensor(x, dtype=torch.int64) for x in (found, truth, cases))
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(seed))
    for rows in order.split(batch):
        logits = F.one_hot(found[rows], task.outputs).movedim(-1, 1).float()
        scorer.add(logits, truth[rows], cases[rows], rows)
    return scorer


def by_hand(found, truth, spacing):
    """Distances between the outlines, both ways, the larger of the two 95th percentiles."""
    edges = [np.argwhere(m & ~ndimage.binary_erosion(m)) * spacing for m in (found, truth)]
    far = cdist(*edges)
    return max(np.percentile(far.min(axis), 95) for axis in (0, 1))


def blobs(seed, *shape):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (smooth > 0.02).astype(np.int64)


@pytest.mark.parametrize(("axis", "step"), [(0, 1), (0, 2), (1, 3), (2, 2)])
def test_a_box_that_is_moved_is_as_far_off_as_it_was_moved(axis, step):
    truth = np.zeros((9, 12, 12), dtype=np.int64)
    truth[2:5, 3:6, 3:6] = 1
    found = np.roll(truth, step, axis)
    of = scores(found, truth, [4] * 9, extents(((9, 1, 1), MM)))
    assert of.scores()["hd95_mm"] == pytest.approx(step * MM[axis])
    assert [row["hd95_mm"] for row in of.by_case()] == pytest.approx([step * MM[axis]])


@given(st.integers(0, 10**6), st.integers(1, 9))
@settings(deadline=None, max_examples=15)
def test_volumes_in_slices_and_alone_whatever_the_batches(seed, batch):
    """Two volumes of other sizes, and one slice of a third, which has its outline in its plane."""
    sizes = extents(((6, 1, 1), MM), ((4, 1, 1), (1, 1, 3)), ((1, 1, 1), (7, 0.5, 0.25)))
    truth, found = blobs(seed, 11, 12, 12), blobs(seed + 1, 11, 12, 12)
    for masks in (truth, found):
        masks[:, 2, 2] = 1  # none is empty
    rows = scores(found, truth, [*[3] * 6, *[1] * 4, 2], sizes, batch, seed).by_case()
    wanted = {
        3: by_hand(found[:6] > 0, truth[:6] > 0, MM),
        1: by_hand(found[6:10] > 0, truth[6:10] > 0, (1, 1, 3)),
        2: by_hand(found[10] > 0, truth[10] > 0, (0.5, 0.25)),
    }
    assert {row["case"]: row["hd95_mm"] for row in rows} == pytest.approx(wanted, abs=1e-4)


def test_patches_are_put_together():
    truth, found = blobs(1, 20, 18, 13), blobs(2, 20, 18, 13)
    pieces = [cut(masks, 8, 0) for masks in (found, truth)]
    assert len(pieces[0]) == 3 * 3 * 2
    of = scores(*pieces, [0] * 18, extents(((3, 3, 2), MM)), batch=5)
    assert of.scores()["hd95_mm"] == pytest.approx(by_hand(found > 0, truth > 0, MM), abs=1e-4)


@pytest.mark.parametrize(("last", "together"), [(8, True), (9, False)])
def test_slices_that_a_table_names_are_a_volume_if_they_follow_one_another(last, together):
    """A gap would be an outline, and so would a cut through an organ."""
    truth, found = blobs(1, 4, 12, 12), blobs(2, 4, 12, 12)
    frames = np.array([7, 5, 6, last])
    places = np.stack([frames, 0 * frames, 0 * frames], axis=1)
    sizes = Extents.of(places, np.array([MM] * 4), np.zeros(4, dtype=np.int64))
    order = [1, 2, 0, 3]
    wanted = [by_hand(found[order] > 0, truth[order] > 0, MM)]
    if not together:
        wanted = [by_hand(f > 0, t > 0, MM[1:]) for f, t in zip(found, truth, strict=True)]
    of = scores(found, truth, [0] * 4, sizes)
    assert of.scores()["hd95_mm"] == pytest.approx(np.mean(wanted), abs=1e-4)


def test_slices_that_are_named_twice_are_each_of_their_own():
    """Outlined by two readers, say."""
    places = np.array([[3, 0, 0], [4, 0, 0], [4, 0, 0]])
    sizes = Extents.of(places, np.array([MM] * 3), np.zeros(3, dtype=np.int64))
    assert [volume.ravel().tolist() for volume in sizes.volumes] == [[0], [1], [2]]


def test_a_volume_of_which_slices_are_in_another_part_is_not_put_together(tmp_path):
    np.save(tmp_path / "sizes.npy", np.array([[[k % 3, 0, 0], MM] for k in range(9)]))
    splits = np.array(["test"] * 3 + ["test", "train", "test"] + ["train"] * 3)
    zeros, files = np.zeros(9, dtype=np.int64), np.arange(9) // 3
    site = SiteData("A", tmp_path, zeros, splits, files, files, sizes=tmp_path / "sizes.npy")
    found = site.extents("test")
    assert [volume.ravel().tolist() for volume in found.volumes] == [[0, 1, 2], [3], [5]]
    assert found.volume_of.tolist() == [0, 0, 0, 1, -1, 2, -1, -1, -1]
    (tmp_path / "sizes.npy").unlink()
    with pytest.raises(DataError, match=r"sizes\.npy can't be read"):
        site.extents("test")


def test_what_is_missed_is_as_far_off_as_the_diagonal_and_nothing_is_no_distance():
    square, empty = np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    square[:, 1:4, 1:4] = 1
    found = np.concatenate([empty, square, empty, square])
    truth = np.concatenate([square, empty, empty, square])
    sizes = extents(*[((2, 1, 1), MM)] * 4)
    rows = scores(found, truth, [0, 0, 1, 1, 2, 2, 3, 3], sizes).by_case()
    far = math.hypot(2 * 5, 8 * 0.5, 8 * 2)
    assert [r["hd95_mm"] for r in rows] == pytest.approx([far, far, math.nan, 0], nan_ok=True)
    truth[:, 6:] = -1  # what patches are filled up with, say
    rows = scores(found, truth, [0, 0, 1, 1, 2, 2, 3, 3], sizes).by_case()
    far = math.hypot(2 * 5, 6 * 0.5, 8 * 2)
    assert [r["hd95_mm"] for r in rows] == pytest.approx([far, far, math.nan, 0], nan_ok=True)


def test_classes_are_averaged_and_what_is_not_scored_has_no_outline():
    three = Segmentation(("background", "zone", "gland"))
    truth = np.zeros((4, 12, 12), dtype=np.int64)
    truth[:, 1:3, 1:3], truth[:, 6:9, 6:9] = 1, 2
    found = np.zeros_like(truth)
    found[:, 1:3, 2:4], found[:, 6:9, 6:9] = 1, 2  # the zone is one column off
    of = scores(found, truth, [0] * 4, extents(((4, 1, 1), MM)), task=three)
    assert of.scores()["hd95_mm"] == pytest.approx((2.0 + 0.0) / 2)
    found[:, 11] = 2
    truth[:, 10:] = -1
    of = scores(found, truth, [0] * 4, extents(((4, 1, 1), MM)), task=three)
    assert of.scores()["hd95_mm"] == pytest.approx((2.0 + 0.0) / 2)


def test_no_size_no_millimetres_and_of_views_their_pixels_size_is_enough():
    masks = blobs(1, 6, 12, 12)
    known, unknown = ((2, 1, 1), MM), ((2, 1, 1), [math.nan] * 3)
    views = ((2, 1, 1), [math.nan, 0.5, 2])
    found = masks.copy()
    found[4:] = np.roll(masks[4:], 1, 2)
    of = scores(found, masks, [0, 0, 1, 1, 2, 2], extents(unknown, known, views))
    wanted = np.mean([by_hand(f > 0, m > 0, MM[1:]) for f, m in zip(found, masks, strict=True)][4:])
    far = [row["hd95_mm"] for row in of.by_case()]
    assert far == pytest.approx([math.nan, 0.0, wanted], nan_ok=True)
    masks = masks[:4]
    alone = scores(masks, masks, [0, 0, 1, 1], Extents.unknown(4)).scores()
    assert math.isnan(alone["hd95_mm"])
    assert alone["hd95"] == 0.0


# From headers to results


def test_extents_of_files(tmp_path):
    values = np.zeros((20, 10, 6), np.float32)
    affine = np.diag([0.5, -2.0, 3.0, 1])  # x, y, z
    path = nifti(tmp_path / "a.nii.gz", values, affine)

    def read(path, size, frames=(-1,), **form):
        return list(read_extents(path, frames, size, Form(**form)))

    (slices,) = read(path, 8)
    assert slices[:, 0].tolist() == [[k, 0, 0] for k in range(6)]
    assert (slices[:, 1] == [3, 2 * 10 / 8, 0.5 * 20 / 8]).all()
    one, two = read(path, 8, [4, 0])
    assert (one[:, 0].tolist(), two[:, 0].tolist()) == ([[4, 0, 0]], [[0, 0, 0]])
    (patches,) = read(path, 8, volumes="patches")
    assert patches[:, 0].tolist() == [[0, j, k] for j in range(2) for k in range(3)]
    assert (patches[:, 1] == [3, 2, 0.5]).all()
    (whole,) = read(path, 8, volumes="whole")
    assert whole.tolist() == [[[0, 0, 0], [3 * 6 / 8, 2 * 10 / 8, 0.5 * 20 / 8]]]
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "b.nii")
    small = read(str(tmp_path / "b.nii"), 8, volumes="patches")[0]
    assert small[0, 1] == pytest.approx([0.003, 0.002, 0.0005])
    stack = series(tmp_path / "series", np.zeros((4, 6, 8), np.uint16))
    (found,) = read(stack, 8, volumes="patches")
    assert found.tolist() == [[[0, 0, 0], [5, 2, 3]]]
    film = dicom(tmp_path / "film.dcm", np.zeros((3, 6, 8), np.uint16), position=None)
    (found,) = read(film, 8)
    assert (found[:, 0, 0] == [0, 1, 2]).all()
    assert np.isnan(found[:, 1]).all()
    view = np.zeros((6, 8), np.uint16)
    (found,) = read(dicom(tmp_path / "x.dcm", view, position=None, PixelSpacing=[0.2, 0.1]), 8)
    assert found[0, 1] == pytest.approx([math.nan, 0.2 * 6 / 8, 0.1], nan_ok=True)


def test_another_image_size_has_other_pixels(tmp_path):
    """From one cache."""
    table = load(hospital(tmp_path / "data"), task="segmentation", protocol="given")
    for size in (8, 16, 8):
        (site, _) = decode(table, size)[1]
        assert site.extents("test").spacing[0].tolist() == [4.0, 16 / size, 24 / size]


def hospital(folder):
    """Two sites whose volumes have other voxels, a box in each."""
    folder.mkdir()
    drawn, rows = np.random.default_rng(3), []
    for site, voxel in (("A", (1.0, 1.0, 4.0)), ("B", (0.5, 0.5, 2.0))):
        for number, part in enumerate(["train", "train", "validation", "test", "test"]):
            mask = np.zeros((24, 16, 7), np.uint8)
            mask[5:15, 4:12, 2:5] = 1
            image = (drawn.normal(0, 0.2, mask.shape) + mask).astype(np.float32)
            name = f"{site}{number}"
            nifti(folder / f"{name}.nii.gz", image, np.diag([*voxel, 1]))
            nifti(folder / f"{name}m.nii.gz", mask, np.diag([*voxel, 1]))
            files = {"image": f"{name}.nii.gz", "mask": f"{name}m.nii.gz"}
            rows.append({"site": site, **files, "split": part})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


def test_a_run_on_volumes_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "draw_figures", lambda result: [])
    table, out = hospital(tmp_path / "data"), tmp_path / "run"
    words = {"rounds": 2, "local_epochs": 3, "image_size": 16, "batch_size": 4}
    words |= {"model": "unet", "model_options": "{features: 4}", "workers": 1, "threads": 1}
    words |= {"task": "segmentation", "protocol": "given"}
    code, shown, said = call("run", "fedavg", table, *options(words), "--out", out)
    assert code == 0, said
    assert " mm " in shown
    values = json.loads((out / "results.json").read_text())
    assert "hd95_mm" in values["metrics"]
    # by hand: the model's masks of both test volumes of a site
    model = Result(out).model()
    for site in decode(load(table, task="segmentation", protocol="given"), 16)[1]:
        part = site.part("test")
        images = torch.from_numpy(part.images[part.rows].astype(np.float32) / 65535)
        with torch.inference_mode():
            found = model(images).argmax(1).numpy().reshape(2, 7, 16, 16)
        truth = part.targets[part.rows].reshape(2, 7, 16, 16)
        z, xy = {"A": (4.0, 1.0), "B": (2.0, 0.5)}[site.name]
        spacing = (z, xy * 16 / 16, xy * 24 / 16)
        assert (found > 0).any((1, 2, 3)).all()
        wanted = [by_hand(*pair, spacing) for pair in zip(found > 0, truth > 0, strict=True)]
        assert values["test"][site.name]["hd95_mm"] == pytest.approx(np.mean(wanted), abs=1e-3)


def test_photographs_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "draw_figures", lambda result: [])
    words = {"rounds": 1, "local_epochs": 1, "image_size": 16, "batch_size": 4, "train_limit": 8}
    words |= {"model": "unet", "model_options": "{features: 2}", "task": "segmentation"}
    out = tmp_path / "run"
    code, shown, said = call("run", "fedavg", "phantom", *options(words), "--out", out)
    assert code == 0, said
    assert "mm" not in shown
    values = json.loads((out / "results.json").read_text())
    assert "hd95" in values["metrics"]
    assert {row["hd95_mm"] for row in values["test"].values()} == {None}
