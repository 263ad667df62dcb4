"""Files as they come out of hospitals: incomplete series, odd TIFFs, copies with old times."""

import os
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from counterpoint.data.dicom import series_of
from counterpoint.data.dicom_pixels import read_dicom
from counterpoint.data.files import content_hashes
from counterpoint.data.layout import table_of
from counterpoint.data.nifti import read_nifti
from counterpoint.data.own import own_task
from counterpoint.data.pixels import BadImageError, read_pixels
from counterpoint.data.saving import voxel_volume
from counterpoint.data.search import find_images
from counterpoint.errors import DataError
from tests.test_data_volumes import dicom, nifti

PLANE = np.arange(24, dtype=np.uint16).reshape(4, 6)
DEEP = np.dtype(np.uint16)


def series(folder, heights, **fields):
    folder.mkdir(parents=True)
    for number, height in enumerate(heights):
        dicom(folder / f"IM{number:04d}", PLANE + number, position=(0, 0, height), **fields)
    return folder


def test_a_series_without_one_of_its_slices_is_refused(tmp_path):
    whole = series(tmp_path / "whole", [0, 5, 10.2, 15, 20], PixelSpacing=[1, 1])
    assert len(series_of(str(whole))[0]) == 5
    torn = series(tmp_path / "torn", [0, 5, 10, 20, 25], PixelSpacing=[1, 1])
    with pytest.raises(BadImageError, match="no slices between 10 and 20 mm, where others are 5"):
        series_of(str(torn))


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    fields = {"PixelSpacing": [2, 3]}
    thick = dicom(tmp_path / "thick", PLANE, SliceThickness=5, **fields)
    assert voxel_volume(str(thick)) == pytest.approx(0.03)
    assert voxel_volume(str(dicom(tmp_path / "unknown", PLANE, **fields))) is None


def test_micrometres_are_no_millimetres(tmp_path):
    file = tmp_path / "v.nii"
    volume = nibabel.Nifti1Image(np.zeros((3, 3, 3)), np.diag([10.0, 10, 10, 1]))
    volume.header.set_xyzt_units("micron")
    volume.to_filename(file)
    assert voxel_volume(str(file)) == pytest.approx(1e-6 / 1000)


def test_views_without_a_place_are_images_of_their_own(tmp_path):
    for name in ("a", "b"):
        dicom(tmp_path / name, PLANE, position=None)
    assert list(find_images([tmp_path])) == [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.mark.parametrize("fields", [{"PixelSpacing": [1]}, {"position": (1, 2)}])
def test_a_header_that_is_broken_makes_a_bad_image(tmp_path, fields):
    file = str(
        dicom(tmp_path / "x", PLANE, **{"PixelSpacing": [1, 1], "SliceThickness": 1} | fields)
    )
    with pytest.raises(BadImageError, match="broken"):
        read_dicom(file, None)


def test_a_share_that_is_gone_is_no_broken_file(tmp_path, monkeypatch):
    file = nifti(tmp_path / "v.nii.gz", np.zeros((3, 3, 3)))

    def gone(*given, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(nibabel, "load", gone)
    with pytest.raises(DataError, match="can't be read \\(Input/output error"):
        read_nifti(file)


def test_a_copy_that_brings_its_time_along_is_read_again(tmp_path):
    file, other = tmp_path / "a.raw", tmp_path / "b.raw"
    file.write_bytes(b"one")
    other.write_bytes(b"two")
    for path in (file, other):
        os.utime(path, (1, 1))
    before = content_hashes([str(file)], tmp_path)
    shutil.copy2(other, file)
    assert content_hashes([str(file)], tmp_path) != before


def test_a_slice_of_a_series_that_is_replaced_by_an_older_one(tmp_path):
    folder = series(tmp_path / "s", [0, 1, 2])
    before = content_hashes([str(folder)], tmp_path)
    other = dicom(tmp_path / "other", PLANE + 9, position=(0, 0, 1))
    os.utime(other, (1, 1))
    shutil.copy2(other, folder / "IM0001")
    assert content_hashes([str(folder)], tmp_path) != before


def test_series_are_rows_of_a_table(tmp_path):
    for site in "AB":
        for patient in (1, 2):
            series(tmp_path / "study" / site / "ill" / f"p{patient}.1", [0, 1, 2])
    table = table_of(tmp_path / "study", r"(p\d)")
    assert table["image"].tolist() == [
        str(tmp_path / "study" / site / "ill" / f"p{n}.1") for site in "AB" for n in (1, 2)
    ]
    assert table["group"].tolist() == ["A-p1", "A-p2", "B-p1", "B-p2"]


def test_links_are_followed_and_names_must_be_text(tmp_path):
    store, study = tmp_path / "store", tmp_path / "study"
    (study / "A" / "dog").mkdir(parents=True)
    store.mkdir()
    for place in (store, study / "A" / "dog"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(place / "1.png")
    (study / "A" / "cat").symlink_to(store)
    (study / "A" / "round").symlink_to(study / "A")
    assert table_of(study)["label"].tolist() == ["cat", "dog"]
    assert len(find_images([study])) == 2
    os.rename(os.fsencode(store / "1.png"), os.fsencode(store) + b"/M\xfcller.png")
    for find in (table_of, lambda folder: find_images([folder])):
        with pytest.raises(DataError, match=r"M.ller\.png is not in UTF-8"):
            find(study)


def test_pages_of_one_file(tmp_path):
    page = Image.fromarray(np.zeros((8, 8), np.uint8))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    with pytest.raises(BadImageError, match="3 images in one file"):
        read_pixels(str(tmp_path / "stack.tif"), 8, np.dtype(np.uint8))
    page.save(tmp_path / "pyramid.tif", save_all=True, append_images=[page.resize((4, 4))])
    assert read_pixels(str(tmp_path / "pyramid.tif"), 8, np.dtype(np.uint8)).shape == (3, 8, 8)


def test_sixteen_bits_in_which_nothing_is_white(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs the extra colour16")
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    file = tmp_path / "white.tif"
    file.write_bytes(imagecodecs.tiff_encode(values, photometric="miniswhite"))
    assert (read_pixels(str(file), 8, DEEP)[0] == 65535 - values).all()


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_colours_that_are_stored_one_after_the_other(tmp_path, compression):
    imagecodecs = pytest.importorskip("imagecodecs", reason="needs the extra colour16")
    values = np.random.default_rng(0).integers(0, 65536, (3, 8, 8)).astype(np.uint16)
    file = tmp_path / "planar.tif"
    file.write_bytes(
        imagecodecs.tiff_encode(
            values, photometric="rgb", planarconfig="separate", compression=compression
        )
    )
    assert (read_pixels(str(file), 8, DEEP) == values).all()


def test_quoted_names_of_columns(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text('\n"site","image","mask"\n"A","1.png","2.png"\n')
    assert own_task(file) == "segmentation"
