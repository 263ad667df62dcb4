import io
import itertools
import sys
import warnings
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from counterpoint.data import decode, inspect, load
from counterpoint.data.dicom import patient_group
from counterpoint.data.files import content_hashes, sha256
from counterpoint.data.masks import read_mask, read_masks
from counterpoint.data.nifti import like_nifti, nifti_geometry, read_nifti
from counterpoint.data.own import _groups
from counterpoint.data.pixels import BadImageError
from counterpoint.data.site import IGNORED, Form
from counterpoint.data.volumes import cut, geometry_of, kind_of, read_images, read_volume
from counterpoint.errors import DataError

WORD = np.dtype(np.uint16)
RNG = np.random.default_rng(0)
NAME, NUMBER = "Zaphodmarker", "IDmarker4711"
SPLITS = ["train"] * 2 + ["validation"] + ["test"]


def nifti(path, values, affine=None):
    nibabel.Nifti1Image(np.asarray(values), np.eye(4) if affine is None else affine).to_filename(
        path
    )
    return str(path)


def dicom(path, values, position=(0, 0, 0), directions=(1, 0, 0, 0, 1, 0), **fields):
    """Write values (rows, columns), (n, rows, columns) or (rows, columns, 3) as DICOM."""
    values = np.asarray(values)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    header.PatientName, header.PatientID = NAME, NUMBER
    header.SeriesInstanceUID = "1.2.3"
    colour = values.ndim == 3 and values.shape[-1] == 3
    header.SamplesPerPixel = 3 if colour else 1
    header.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        header.PlanarConfiguration = 0
    elif values.ndim == 3:
        header.NumberOfFrames = len(values)
    header.Rows, header.Columns = values.shape[:2] if colour else values.shape[-2:]
    header.BitsAllocated = header.BitsStored = 8 * values.dtype.itemsize
    header.HighBit = header.BitsAllocated - 1
    header.PixelRepresentation = int(values.dtype.kind == "i")
    if position is not None:
        header.ImagePositionPatient = list(position)
        header.ImageOrientationPatient = list(directions)
        header.PixelSpacing = [2, 3]
    header.PixelData = values.tobytes()
    for name, value in fields.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)
    return str(path)


def series(folder, values, **fields):
    """Write slices in a mixed order: the names and numbers say nothing about the place."""
    folder.mkdir()
    order = np.random.default_rng(1).permutation(len(values))
    for number, place in enumerate(order):
        dicom(
            folder / f"{number}.dcm",
            values[place],
            position=(10, 20, 5 * place - 7),
            InstanceNumber=number,
            **fields,
        )
    return str(folder)


def as_slices(values):
    """Turn (x, y, z) in RAS into slices as they are looked at."""
    return np.asarray(values).transpose(2, 1, 0)[:, ::-1, ::-1]


def test_kinds(tmp_path):
    assert kind_of("a.PNG") == "photograph"
    assert kind_of("a.nii.gz") == "nifti"
    assert kind_of(str(tmp_path)) == "dicom"
    plain = dicom(tmp_path / "no_suffix", np.zeros((4, 4), np.uint16))
    assert kind_of(plain) == "dicom"
    (tmp_path / "text").write_text("none")
    assert kind_of(str(tmp_path / "text")) == "photograph"


@pytest.mark.parametrize("axes", itertools.permutations(range(3)))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, 1), (-1, -1, -1)])
def test_every_orientation_gives_the_same_slices(tmp_path, axes, flips):
    values = RNG.normal(size=(4, 5, 6)).astype(np.float32)
    turned = values.transpose(axes)[tuple(slice(None, None, f) for f in flips)]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        affine[old, new] = flip
        affine[old, 3] = 0 if flip > 0 else values.shape[old] - 1
    path = nifti(tmp_path / "a.nii.gz", turned, affine)
    found, geometry = read_nifti(path)
    assert (found == as_slices(values)).all()
    assert geometry.shape == (6, 5, 4)
    plain = nifti_geometry(nifti(tmp_path / "b.nii", values))
    assert np.allclose(geometry.affine, plain.affine)
    # the first row is in front and the first column is the patient's right
    assert np.allclose(geometry.affine @ [0, 0, 0, 1], [3, 4, 0, 1])


def test_nifti_that_is_refused(tmp_path):
    with pytest.raises(BadImageError, match=r"4 dimensions \(3x3x3x2\)"):
        read_nifti(nifti(tmp_path / "a.nii", np.zeros((3, 3, 3, 2), np.float32)))
    with pytest.raises(BadImageError, match="no numbers"):
        read_nifti(nifti(tmp_path / "b.nii", np.full((3, 3, 3), np.nan, np.float32)))
    with pytest.raises(BadImageError, match="no numbers"):
        read_nifti(nifti(tmp_path / "i.nii", np.full((3, 3, 3), -np.inf, np.float32)))
    path = nifti(tmp_path / "c.nii.gz", RNG.normal(size=(9, 9, 9)))
    whole = (tmp_path / "c.nii.gz").read_bytes()
    (tmp_path / "c.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImageError, match="broken"):
        read_nifti(path)
    (tmp_path / "d.nii").write_text("no image")
    with pytest.raises(BadImageError, match="not a NIfTI file"):
        read_nifti(str(tmp_path / "d.nii"))
    with pytest.raises(DataError, match=r"e.nii can't be read"):
        read_nifti(str(tmp_path / "e.nii"))
    assert read_nifti(nifti(tmp_path / "f.nii", np.ones((3, 4, 5, 1))))[0].shape == (5, 4, 3)


def test_nothing_but_numbers_is_in_a_mask(tmp_path):
    """Of an image what is no number becomes the smallest value: a mask would get a class of it."""
    values = np.ones((3, 3, 3), np.float32)
    values[0] = np.nan
    path = nifti(tmp_path / "a.nii", values)
    assert (read_nifti(path)[0] == 1).all()
    with pytest.raises(BadImageError, match="no numbers"):
        read_nifti(path, "mask")


def test_an_answer_has_the_unit_of_length_of_its_image(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6)), np.eye(4))
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "a.nii")
    made = like_nifti(str(tmp_path / "a.nii"), np.zeros((6, 5, 4), np.uint8))
    assert made.header.get_xyzt_units()[0] == "micron"


def test_windows(tmp_path):
    values = np.linspace(-50, 100, 1000).reshape(10, 10, 10)
    path = nifti(tmp_path / "a.nii", values)
    assert np.allclose(read_volume(path, (0, 50)), as_slices(np.clip(values / 50, 0, 1)), atol=1e-5)
    top = np.percentile(values, 99)
    wanted = np.clip((values + 50) / (top + 50), 0, 1)
    assert np.allclose(read_volume(path, None), as_slices(wanted), atol=1e-5)
    path = nifti(tmp_path / "b.nii", values + 200)  # nothing below 0: 0 stays black
    assert read_volume(path, None).min() == pytest.approx(150 / (top + 200), abs=1e-3)
    assert (read_volume(nifti(tmp_path / "c.nii", np.zeros((3, 3, 3))), None) == 0).all()
    values[:2] = np.nan  # outside of what was measured
    with_holes = read_volume(nifti(tmp_path / "d.nii", values), None)
    assert (with_holes[:, :, -2:] == 0).all()
    assert with_holes.max() == 1


def test_dicom_slope_window_and_negatives(tmp_path):
    values = np.arange(64, dtype=np.int16).reshape(8, 8)
    units = values * 2.0 - 10
    fields = {"RescaleSlope": 2, "RescaleIntercept": -10}
    path = dicom(tmp_path / "a.dcm", values, **fields)
    assert np.allclose(read_volume(path, (0, 100))[0], np.clip(units / 100, 0, 1))
    plain = read_volume(path, None)[0]
    assert np.allclose(plain, np.clip((units + 10) / (np.percentile(units, 99) + 10), 0, 1))
    fields |= {"WindowCenter": [40, 7], "WindowWidth": [21, 7]}
    path = dicom(tmp_path / "b.dcm", values, **fields)
    wanted = np.clip((units - 39.5) / 20 + 0.5, 0, 1)
    assert np.allclose(read_volume(path, None)[0], wanted, atol=1e-6)
    path = dicom(tmp_path / "c.dcm", values, **fields, VOILUTFunction="LINEAR_EXACT")
    assert np.allclose(read_volume(path, None)[0], np.clip((units - 29.5) / 21, 0, 1), atol=1e-6)
    path = dicom(tmp_path / "d.dcm", values, **fields, VOILUTFunction="SIGMOID")
    assert np.allclose(read_volume(path, None)[0], 1 / (1 + np.exp(-4 * (units - 40) / 21)))
    path = dicom(tmp_path / "e.dcm", values, **fields, PhotometricInterpretation="MONOCHROME1")
    assert np.allclose(read_volume(path, None)[0], 1 - wanted, atol=1e-6)
    assert np.allclose(read_volume(path, (0, 100))[0], 1 - np.clip(units / 100, 0, 1))
    path = dicom(tmp_path / "f.dcm", values, PhotometricInterpretation="MONOCHROME1")
    negative = read_volume(path, None)[0]
    assert negative.flat[0] == 1
    assert (np.diff(negative.ravel()) <= 0).all()


def test_a_series_is_sorted_by_its_place(tmp_path):
    values = RNG.integers(0, 1000, (5, 8, 6)).astype(np.uint16)
    path = series(tmp_path / "s", values)
    (tmp_path / "s" / "notes.txt").write_text("no picture")
    assert np.allclose(read_volume(path, (0, 1000)) * 1000, values, atol=1e-2)
    geometry = geometry_of(path)
    assert geometry.shape == (5, 8, 6)
    # rows go to the back by 2 mm, columns to the left by 3 mm, slices up by 5 mm
    first, step = geometry.affine @ [0, 0, 0, 1], geometry.affine @ [1, 1, 1, 0]
    assert first.tolist() == [-10, -20, -7, 1]
    assert step.tolist() == [-3, -2, 5, 0]
    by_number = tmp_path / "n"
    by_number.mkdir()
    for k, plane in enumerate(values):
        dicom(by_number / f"{9 - k}.dcm", plane, position=None, InstanceNumber=k)
    assert np.allclose(read_volume(str(by_number), (0, 1000)) * 1000, values, atol=1e-2)
    assert geometry_of(str(by_number)).affine is None


def test_multi_frame_files(tmp_path):
    values = RNG.integers(0, 255, (3, 8, 6)).astype(np.uint16)
    film = dicom(tmp_path / "film.dcm", values, position=None)
    assert np.allclose(read_volume(film, (0, 255)) * 255, values, atol=1e-3)
    frames = []
    for k in (2, 0, 1):
        position, plane, scale, frame = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 4 * k]
        plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        scale.RescaleSlope, scale.RescaleIntercept = k + 1, 0
        frame.PlanePositionSequence, frame.PlaneOrientationSequence = [position], [plane]
        frame.PixelValueTransformationSequence = [scale]
        frames.append(frame)
    enhanced = dicom(
        tmp_path / "e.dcm", values, position=None, PerFrameFunctionalGroupsSequence=frames
    )
    wanted = np.stack([values[1], values[2] * 2, values[0] * 3])
    assert np.allclose(read_volume(enhanced, (0, 1000)) * 1000, wanted, atol=1e-2)


def test_colours_and_compression(tmp_path):
    values = RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8)
    path = dicom(tmp_path / "a.dcm", values)
    image = next(read_images(path, [-1], 8, Form(), WORD))
    assert (image == values.transpose(2, 0, 1)[None] * 257.0).all()
    ybr = Image.fromarray(values).convert("YCbCr")
    path = dicom(tmp_path / "b.dcm", np.asarray(ybr), PhotometricInterpretation="YBR_FULL")
    assert np.abs(read_volume(path, None)[0] * 255 - values).max() <= 3
    grey = RNG.integers(0, 4000, (8, 8)).astype(np.uint16)
    packed = pydicom.dcmread(dicom(tmp_path / "c.dcm", grey))
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "c.dcm")
    assert np.allclose(read_volume(str(tmp_path / "c.dcm"), (0, 4000))[0] * 4000, grey, atol=0.01)
    for kind, syntax, options in (
        ("JPEG", JPEGBaseline8Bit, {"quality": 95}),
        ("JPEG2000", JPEG2000Lossless, {}),
    ):
        stream = io.BytesIO()
        Image.fromarray((grey // 16).astype(np.uint8)).save(stream, kind, **options)
        packed = pydicom.dcmread(dicom(tmp_path / "e.dcm", (grey // 16).astype(np.uint8)))
        packed.PixelData = encapsulate([stream.getvalue()])
        packed["PixelData"].is_undefined_length = True
        packed.file_meta.TransferSyntaxUID = syntax
        packed.save_as(tmp_path / "e.dcm")
        assert np.allclose(
            read_volume(str(tmp_path / "e.dcm"), (0, 255))[0] * 255, grey // 16, atol=9
        )
    packed.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    packed.save_as(tmp_path / "d.dcm")
    with pytest.raises(BadImageError, match=r"JPEG Lossless.*counterpoint\[dicom\]|broken"):
        read_volume(str(tmp_path / "d.dcm"), None)


def test_dicom_that_is_refused(tmp_path):
    plane = np.zeros((8, 8), np.uint16)

    def refused(words, *files):
        for file in tmp_path.glob("s/*"):
            file.unlink()
        (tmp_path / "s").mkdir(exist_ok=True)
        for name, fields in files:
            dicom(tmp_path / "s" / name, **({"values": plane} | fields))
        with pytest.raises(BadImageError, match=words):
            read_volume(str(tmp_path / "s"), None)

    refused("without DICOM")
    refused("2 series", ("a.dcm", {}), ("b.dcm", {"SeriesInstanceUID": "1.2.9"}))
    refused("different sizes", ("a.dcm", {}), ("b.dcm", {"values": plane[:4]}))
    places = [("a.dcm", {}), ("b.dcm", {}), ("c.dcm", {"position": (0, 0, 9)})]
    refused("at one place", *places)
    other = {"position": (0, 0, 9), "directions": (0, 1, 0, 0, 0, 1)}
    refused("not parallel", ("a.dcm", {}), ("b.dcm", other))
    cut_off = tmp_path / "x.dcm"
    dicom(cut_off, plane)
    cut_off.write_bytes(cut_off.read_bytes()[:-20])
    with pytest.raises(BadImageError, match="broken pixel data"):
        read_volume(str(cut_off), None)
    cut_off.write_text("no image")
    with pytest.raises(BadImageError, match="not a DICOM file"):
        read_volume(str(cut_off), None)


def test_slices_and_their_neighbours(tmp_path):
    values = RNG.random((8, 8, 4)).astype(np.float32)
    path = nifti(tmp_path / "a.nii.gz", values)
    planes = np.rint(as_slices(values) * np.float32(65535)).astype(np.uint16)
    form = Form(window=(0, 1))
    everything, third = read_images(path, [-1, 2], 8, form, WORD)
    assert (everything == np.repeat(planes[:, None], 3, axis=1)).all()
    assert (third == everything[2:3]).all()
    form = Form(neighbours=True, window=(0, 1))
    everything, first, last = read_images(path, [-1, 0, 3], 8, form, WORD)
    before = np.stack([planes[[0, 0, 1]], planes[[0, 1, 2]], planes[[1, 2, 3]], planes[[2, 3, 3]]])
    assert (everything == before).all()
    assert (first == before[:1]).all()
    assert (last == before[3:]).all()
    with pytest.raises(BadImageError, match="no slice 4: it has 4"):
        next(read_images(path, [4], 8, form, WORD))


def joined(cubes, shape):
    """Put the cubes of `cut` together again."""
    size = cubes.shape[-1]
    a, b, c = (-(-length // size) for length in shape)
    whole = cubes.reshape(a, b, c, size, size, size).transpose(0, 3, 1, 4, 2, 5)
    return whole.reshape(a * size, b * size, c * size)


@given(st.tuples(*[st.integers(1, 13)] * 3), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_patches_are_the_volume_cut_up(shape, size):
    values = np.arange(1, np.prod(shape) + 1).reshape(shape)
    cubes = cut(values, size, 0)
    whole = joined(cubes, shape)
    a, b, c = shape
    assert (whole[:a, :b, :c] == values).all()
    assert whole.sum() == values.sum()  # the rest is 0
    assert len(cubes) == np.prod([-(-length // size) for length in shape])


def test_patches_and_whole_volumes(tmp_path):
    values = np.zeros((20, 10, 16), np.float32)
    values[10:] = 1
    path = nifti(tmp_path / "a.nii", values)
    (patches,) = read_images(path, [-1], 8, Form("patches", window=(0, 1)), WORD)
    assert patches.shape == (2 * 2 * 3, 1, 8, 8, 8)
    whole = joined(patches[:, 0], (16, 10, 20))
    assert (whole[:16, :10, :20] == as_slices(values) * 65535).all()
    (cube,) = read_images(path, [-1], 8, Form("whole", window=(0, 1)), WORD)
    assert cube.shape == (1, 1, 8, 8, 8)
    assert (cube[..., :3] == 65535).all()  # the patient's right comes first
    assert (cube[..., 5:] == 0).all()


def test_whole_volumes_are_interpolated_along_every_axis(tmp_path):
    ramps = np.stack(np.meshgrid(*[np.linspace(0, 1, 12)] * 3, indexing="ij"))
    for axis in range(3):
        path = nifti(tmp_path / f"{axis}.nii", as_slices(ramps[2 - axis]).transpose(2, 1, 0))
        (cube,) = read_images(path, [-1], 8, Form("whole", window=(0, 1)), WORD)
        means = cube[0, 0].mean(axis=tuple(a for a in range(3) if a != 2 - axis)) / 65535
        steps = np.abs(np.diff(means))
        assert np.allclose(steps[1:-1], steps[2], atol=0.02)
        assert means.mean() == pytest.approx(0.5, abs=0.01)


def test_what_is_no_volume(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    for path in (str(tmp_path / "a.png"), dicom(tmp_path / "b.dcm", np.zeros((8, 8), np.uint16))):
        with pytest.raises(DataError, match=r"[ab]\.(png|dcm) .* no volume.*volumes='slices'"):
            next(read_images(path, [-1], 8, Form("patches"), WORD))
    path = nifti(tmp_path / "c.nii", np.ones((4, 4, 4)))
    with pytest.raises(DataError, match=r"c.nii: the table has single slices"):
        next(read_images(path, [1], 8, Form("whole"), WORD))


def test_masks_follow_their_volumes(tmp_path):
    values = RNG.random((9, 10, 11)).astype(np.float32)
    mask = (values > 0.5).astype(np.uint8)
    affine = np.diag([1.5, 1, 2, 1.0])
    image = nifti(tmp_path / "a.nii.gz", values, affine)
    flipped = affine @ np.array([[-1, 0, 0, 8], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    path = nifti(tmp_path / "m.nii.gz", mask[::-1], flipped)  # stored the other way round
    assert (read_mask(path, "", image, 2) == as_slices(mask)).all()
    (slices,) = read_masks(path, "", image, [4], 10, Form(), 2)
    assert slices.shape == (1, 10, 10)
    (patches,) = read_masks(path, "", image, [-1], 8, Form("patches"), 2)
    whole = joined(patches, (11, 10, 9))
    assert (whole[:11, :10, :9] == as_slices(mask)).all()
    assert (whole[11:] == IGNORED).all()
    assert (whole[:, :, 9:] == IGNORED).all()
    (cube,) = read_masks(path, "", image, [-1], 8, Form("whole"), 2)
    assert cube.shape == (1, 8, 8, 8)
    seen = np.zeros_like(mask)
    seen[:4] = 1
    fov = nifti(tmp_path / "f.nii", seen, affine)
    found = read_mask(path, fov, image, 2)
    assert ((found == IGNORED) == (as_slices(seen) == 0)).all()


def test_masks_of_dicom(tmp_path):
    values = RNG.integers(0, 255, (5, 8, 6)).astype(np.uint16)
    mask = (values > 99).astype(np.uint8)
    image = series(tmp_path / "s", values)
    # NIfTI counts (x, y, z) to the right and to the front
    affine = np.array([[3, 0, 0, -25], [0, 2, 0, -34], [0, 0, 5, -7], [0, 0, 0, 1.0]])
    path = nifti(tmp_path / "m.nii", mask[:, ::-1, ::-1].transpose(2, 1, 0), affine)
    assert (read_mask(path, "", image, 2) == mask).all()
    single = dicom(tmp_path / "a.dcm", values[0])
    Image.fromarray(mask[0] * 255).save(tmp_path / "m.png")
    assert (read_mask(str(tmp_path / "m.png"), "", single, 2)[0] == mask[0]).all()
    with pytest.raises(BadImageError, match=r"6x8 pixels, but its image has 6x8 and 5 slices"):
        read_mask(str(tmp_path / "m.png"), "", image, 2)
    with pytest.raises(BadImageError, match="save masks as NIfTI or PNG"):
        read_mask(single, "", single, 2)
    nowhere = dicom(tmp_path / "n.dcm", values, position=None)
    with pytest.raises(BadImageError, match="no place in space"):
        read_mask(path, "", nowhere, 2)


def test_masks_that_lie_elsewhere(tmp_path):
    image = nifti(tmp_path / "a.nii", np.zeros((4, 5, 6)))
    shape = nifti(tmp_path / "b.nii", np.zeros((4, 5, 7)))
    with pytest.raises(BadImageError, match=r"7x5x4 voxels .* has 6x5x4"):
        read_mask(shape, "", image, 2)
    for shift, fits in ((0.2, True), (0.3, False)):
        affine = np.eye(4)
        affine[1, 3] = shift
        place = nifti(tmp_path / "c.nii", np.zeros((4, 5, 6)), affine)
        if fits:
            read_mask(place, "", image, 2)
        else:
            with pytest.raises(BadImageError, match=r"0.3 mm away"):
                read_mask(place, "", image, 2)
    values = nifti(tmp_path / "d.nii", np.full((4, 5, 6), 1.5))
    with pytest.raises(BadImageError, match=r"a value of 1.5"):
        read_mask(values, "", image, 3)


TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("turn", "sides", "thicker", "shift", "apart"),
    [
        (np.eye(3), [1, 1, 8], 1, 1, "1 mm"),
        (TURN, [1, 8, 8], 1, 1, "1 mm"),
        (np.eye(3), [1, 1, 1], 1.01, 0, "1.99 mm"),
    ],
    ids=["flat voxels", "flat voxels that are turned", "thicker slices"],
)
def test_a_mask_fits_to_a_quarter_of_a_voxels_shortest_side(
    turn, sides, thicker, shift, apart, tmp_path
):
    """In every corner: of 200 slices that are a hundredth too thick, the last is 1.99 mm away."""
    image, mask = np.eye(4), np.eye(4)
    image[:3, :3], mask[:3, :3] = turn * sides, turn * sides * [1, 1, thicker]
    mask[0, 3] = shift
    zeros = np.zeros((2, 2, 200), np.uint8)
    paths = [nifti(tmp_path / name, zeros, a) for name, a in (("i.nii", image), ("m.nii", mask))]
    assert not read_mask(paths[0], "", paths[0], 2).any()
    with pytest.raises(BadImageError, match=f"lies {apart} away"):
        read_mask(paths[1], "", paths[0], 2)


def test_a_folder_has_a_content(tmp_path):
    path = series(tmp_path / "s", np.zeros((2, 4, 4), np.uint16))
    first = content_hashes([path], tmp_path)
    assert first == {path: sha256(path)}
    (tmp_path / "s" / "0.dcm").rename(tmp_path / "s" / "7.dcm")
    assert content_hashes([path], tmp_path) == first  # names do not count
    dicom(tmp_path / "s" / "8.dcm", np.ones((4, 4), np.uint16))
    assert content_hashes([path], tmp_path) != first


def test_the_patient_is_a_hash(tmp_path):
    plane = np.zeros((4, 4), np.uint16)
    one, same = dicom(tmp_path / "a.dcm", plane), series(tmp_path / "s", [plane, plane])
    assert patient_group(one) == patient_group(same)
    assert patient_group(one).startswith("dicom:")
    assert len(patient_group(one)) == 18
    assert patient_group(dicom(tmp_path / "b.dcm", plane, PatientID="x")) != patient_group(one)
    assert patient_group(dicom(tmp_path / "c.dcm", plane, PatientID="ANONYMOUS")) == ""
    assert patient_group(dicom(tmp_path / "d.dcm", plane, PatientID="")) == ""
    assert patient_group(str(tmp_path / "none.dcm")) == ""


@pytest.fixture
def scans(tmp_path):
    """Write a table of two sites: NIfTI files in one and DICOM series in the other."""
    rows = []
    for i, split in enumerate(SPLITS):
        values = RNG.random((9, 10, 5 + i)).astype(np.float32)
        nifti(tmp_path / f"x{i}.nii.gz", values)
        nifti(tmp_path / f"x{i}-mask.nii.gz", (values > 0.5).astype(np.uint8))
        rows.append(["x", f"x{i}.nii.gz", f"x{i}-mask.nii.gz", split, f"x{i}"])
        planes = (values * 1000).astype(np.uint16)
        dicom_folder = tmp_path / f"y{i}"
        series(dicom_folder, planes)
        affine = nibabel.affines.from_matvec(np.diag([-3.0, -2.0, 5.0]), [-10, -20, -7])
        mask = (planes > 500).astype(np.uint8).transpose(2, 1, 0)
        nifti(tmp_path / f"y{i}-mask.nii.gz", mask, affine)
        rows.append(["y", f"y{i}", f"y{i}-mask.nii.gz", split, f"y{i}"])
    table = pd.DataFrame(rows, columns=["site", "image", "mask", "split", "patient"])
    table.to_csv(tmp_path / "all.csv", index=False)
    return tmp_path / "all.csv"


def test_volumes_as_slices_from_table_to_part(scans, tmp_path):
    federation = load(scans, neighbours=True)
    seen = []
    _, sites = decode(federation, 16, progress=lambda *step: seen.append(step))
    assert seen[-1] == (24, 24)  # images, masks and headers
    one, other = (site.part("train") for site in sites)
    assert one.images.dtype == np.uint16
    assert one.images.shape == (5 + 6 + 7 + 8, 3, 16, 16)
    assert one.targets.shape == (26, 16, 16)
    assert one.cases.tolist() == [0] * 5 + [1] * 6
    assert sites[0].part("test").cases.tolist() == [3] * 8
    assert other.cases.tolist() == [0] * 9 + [1] * 9  # DICOM keeps its own slices
    assert sites[0].groups.tolist() == np.repeat(range(4), [5, 6, 7, 8]).tolist()
    assert len(one.labels) == len(one.rows) == 11
    again = decode(load(scans, neighbours=True), 16)[1]
    assert [site.array for site in again] == [site.array for site in sites]
    assert (again[0].cases == sites[0].cases).all()
    plain = decode(load(scans), 16)[1]
    assert plain[0].array != sites[0].array


@pytest.mark.parametrize(("volumes", "count"), [("patches", [4, 4, 4, 4]), ("whole", [1] * 4)])
def test_volumes_as_cubes_from_table_to_part(scans, volumes, count):
    federation = load(scans, volumes=volumes)
    _, sites = decode(federation, 8)
    part = sites[0].part("train")
    assert part.images.shape == (sum(count), 1, 8, 8, 8)
    assert part.targets.shape == (sum(count), 8, 8, 8)
    assert sites[0].cases.tolist() == np.repeat(range(4), count).tolist()
    image = part.images[0, 0] / 65535
    known = part.targets[0] != IGNORED
    assert known.any()
    assert image[known & (part.targets[0] == 1)].mean() > image[part.targets[0] == 0].mean()


def test_bad_volumes_are_named_or_left_out(scans, tmp_path):
    nifti(tmp_path / "x0-mask.nii.gz", np.zeros((9, 10, 4), np.uint8))
    (tmp_path / "y1" / "0.dcm").write_text("no image")
    federation = load(scans)
    with pytest.raises(DataError) as caught:
        decode(federation, 8)
    text = str(caught.value)
    assert f"{tmp_path / 'x0-mask.nii.gz'} of {tmp_path / 'x0.nii.gz'} (4x10x9 voxels" in text
    assert f"{tmp_path / 'y1'} (not a DICOM file" in text
    with pytest.raises(DataError, match="too few train"):
        decode(federation, 8, skip_bad=True)


def test_who_it_is_is_never_shown(tmp_path, caplog):
    cache = tmp_path / "cache"
    rows = []
    for site, i in itertools.product("xy", range(12)):
        path = tmp_path / f"{site}{i}.dcm"
        identity = {"PatientName": f"{NAME}^{site}{i}", "PatientID": f"{NUMBER}{site}{i // 2}"}
        identity |= {"PatientBirthDate": "not a date " + NAME, "StudyID": NUMBER * 9}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dicom(path, RNG.integers(0, 99, (8, 8)).astype(np.uint16), **identity)
        rows.append([site, path.name, "ab"[i % 2]])
    caplog.clear()  # of what pydicom said while writing
    broken = tmp_path / "x0.dcm"
    broken.write_bytes(broken.read_bytes()[:-30])
    table = pd.DataFrame(rows, columns=["site", "image", "label"])
    table.to_csv(tmp_path / "all.csv", index=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        federation = load(tmp_path / "all.csv", cache=cache)
        with pytest.raises(DataError) as caught:
            decode(federation, 8, cache=cache)
        cleaned, sites = decode(federation, 8, cache=cache, skip_bad=True)
    frame = pd.concat([site.table for site in federation.sites])
    assert frame["group"].nunique() == 12
    assert frame["group"].str.startswith("dicom:").all()
    assert not any("have no known" in note for note in federation.notes)
    shown = [caught.value, caught.value.__context__, *federation.notes, *cleaned.notes, *sites]
    text = " ".join(
        [*map(str, shown), frame.to_csv(), *(str(w.message) for w in said), caplog.text]
    )
    text += " ".join(str(one.source) for one in (federation, cleaned))
    for file in cache.rglob("*"):
        text += file.name + (file.read_bytes().decode("latin-1") if file.is_file() else "")
    assert len(text) > 1000
    for secret in (NAME, NUMBER):
        assert secret.lower() not in text.lower()


def test_inspect_knows_volumes(scans):
    numbers = inspect(load(scans))
    assert numbers.loc["x", ["images", "smallest", "largest"]].tolist() == [4, "9x10x5", "9x10x8"]
    assert numbers.loc["y", "smallest"] == "5x10x9"
    assert numbers.loc["x", "foreground %"] == pytest.approx(50, abs=5)
    assert numbers.loc["x", "red"] == numbers.loc["x", "blue"] == pytest.approx(128, abs=10)


def test_rows_of_single_slices_read_their_file_once(scans, tmp_path, monkeypatch):
    federation = load(scans)
    sites = []
    for site in federation.sites:
        four = [
            site.table.assign(frame=k, content=site.table["content"] + f":{k}") for k in range(4)
        ]
        sites.append(replace(site, table=pd.concat(four, ignore_index=True)))
    read = []
    volumes = sys.modules["counterpoint.data.volumes"]
    monkeypatch.setattr(
        volumes, "read_volume", lambda path, window: read.append(path) or read_volume(path, window)
    )
    _, data = decode(replace(federation, sites=tuple(sites)), 8)
    assert len(read) == len(set(read)) == 8
    assert data[0].cases.tolist() == np.repeat(range(4), 4).tolist()
    whole = decode(federation, 8)[1]
    images, everything = data[0].part("train").images, whole[0].part("train").images
    assert (images[:4] == everything[:4]).all()
    assert (images[4:8] == everything[5:9]).all()
    targets = data[1].part("train").targets
    assert (targets[4:8] == whole[1].part("train").targets[9:13]).all()


@pytest.mark.filterwarnings("ignore:The number of bytes of pixel data")
@pytest.mark.parametrize("colours", [(), (3,)])
def test_frames_that_the_header_does_not_know_of(tmp_path, colours):
    """Else the columns of the pictures would be taken for their colours."""
    film = RNG.integers(0, 9, (4, 6, 5, *colours)).astype(np.uint8)
    path = dicom(tmp_path / "film.dcm", film[0], position=None, PixelData=film.tobytes())
    with pytest.raises(BadImageError, match="broken pixel data"):
        read_volume(path, None)


def test_what_all_frames_of_an_enhanced_file_share(tmp_path):
    values = RNG.integers(0, 255, (3, 8, 6)).astype(np.uint16)
    frames = []
    for number in range(3):
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 4 * number]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    plane, measures, scale, shared = Dataset(), Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [2, 3]
    scale.RescaleSlope, scale.RescaleIntercept = 2, -100
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    shared.PixelValueTransformationSequence = [scale]
    path = dicom(
        tmp_path / "e.dcm",
        values,
        position=None,
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[shared],
    )
    wanted = np.clip((values * 2.0 - 100) / 1000, 0, 1)
    assert np.allclose(read_volume(path, (0, 1000)), wanted, atol=1e-5)
    assert abs(np.linalg.det(geometry_of(path).affine[:3, :3])) == pytest.approx(2 * 3 * 4)


def test_a_sagittal_series_lies_where_it_says(tmp_path):
    values = RNG.integers(0, 255, (5, 8, 6)).astype(np.uint16)
    (tmp_path / "s").mkdir()
    for place, plane in enumerate(values):
        dicom(
            tmp_path / "s" / f"{place * 2 % 5}.dcm",
            plane,
            position=(4 * place, 20, 30),
            directions=(0, 1, 0, 0, 0, -1),  # their normal is (-1, 0, 0)
        )
    path = str(tmp_path / "s")
    assert np.allclose(read_volume(path, (0, 255)) * 255, values[::-1], atol=1e-3)
    affine = geometry_of(path).affine
    assert (affine @ [0, 0, 0, 1]).tolist() == [-16, -20, 30, 1]
    assert (affine @ [1, 1, 1, 0]).tolist() == [4, -3, -2, 0]


def test_tables_in_a_header_are_looked_up(tmp_path):
    steps = np.arange(16, dtype=np.uint16).reshape(4, 4) % 4
    table = np.array([0, 1000, 500, 4095])
    tables = {"ModalityLUTSequence": (16, (0, 4095)), "VOILUTSequence": (12, None)}
    for name, (bits, window) in tables.items():
        lut = Dataset()
        lut.add_new("LUTDescriptor", "US", [4, 0, bits])
        lut.add_new("LUTData", "US", table.tolist())
        path = dicom(tmp_path / f"{bits}.dcm", steps, **{name: [lut]})
        assert np.allclose(read_volume(path, window)[0] * 4095, table[steps], atol=0.01)
    colours = np.array([[0, 9, 200, 255], [7, 7, 0, 1], [255, 0, 3, 50]], np.uint8)
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in zip(("Red", "Green", "Blue"), colours, strict=True):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        fields[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    path = dicom(tmp_path / "p.dcm", steps.astype(np.uint8), **fields)
    assert np.allclose(read_volume(path, None)[0] * 255, colours.T[steps], atol=0.01)


@pytest.mark.parametrize("column", [["", "", "", ""], ["", "", "", "p9"]])
def test_headers_tell_the_patient_where_a_row_does_not(column, tmp_path):
    """An empty column is as none; a row that names its patient needs no header."""
    names = [
        dicom(tmp_path / f"{number}.dcm", np.full((4, 4), number, np.uint16), PatientID=patient)
        for number, patient in enumerate(("a", "a", "b", "b"))
    ]
    found = _groups(pd.DataFrame({"patient": column}), pd.Series(names))
    assert found[0] == found[1] == patient_group(names[0])
    assert found[2] == patient_group(names[2]) != found[0]
    assert found[3] == (column[3] or found[2])
