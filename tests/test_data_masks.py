import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import decode, inspect, load
from counterpoint.data.masks import (
    SHADES,
    highest_class,
    nearest_neighbour,
    read_masks,
    to_classes,
)
from counterpoint.data.pixels import BadImageError
from counterpoint.data.site import IGNORED, Form
from counterpoint.errors import DataError


def read_mask(mask, fov, image, size, classes):
    return next(read_masks(mask, fov, image, [-1], size, Form(), classes))[0]


SPLITS = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2


@pytest.fixture
def save(tmp_path):
    """Return a function that writes values as a picture and returns its path."""

    def save(values, name="mask.png", **options):
        picture = values if isinstance(values, Image.Image) else Image.fromarray(np.array(values))
        picture.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return save


@pytest.fixture
def image(save):
    return save(np.zeros((8, 8, 3), np.uint8), "image.png")


@pytest.fixture
def write(save, tmp_path):
    """Return a function that writes a table of two sites with (8, 8) images and masks."""

    def write(mask=None, change=None, fov=None):
        rng = np.random.default_rng(0)
        rows = []
        for site in ("x", "y"):
            for i, split in enumerate(SPLITS):
                name = f"{site}{i}"
                save(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), f"{name}.png")
                values = np.eye(8, dtype=np.uint8) * 255 if mask is None else mask
                save(values, f"{name}-mask.png")
                rows.append([site, f"{name}.png", f"{name}-mask.png", split, name])
        table = pd.DataFrame(rows, columns=["site", "image", "mask", "split", "patient"])
        if fov is not None:
            save(fov, "fov.png")
            table["fov_mask"] = "fov.png"
        table = table if change is None else change(table)
        table.to_csv(tmp_path / "all.csv", index=False)
        return tmp_path / "all.csv"

    return write


def test_two_classes_are_background_and_all_else(save, image):
    values = np.zeros((8, 8), np.uint8)
    values[0] = 1
    few = read_mask(save(values), "", image, 8, 2)
    assert (few == values).all()
    assert (read_mask(save(values * 5), "", image, 8, 2) == values).all()
    assert (read_mask(save(values.astype(bool)), "", image, 8, 2) == values).all()
    assert (read_mask(save(values.astype(np.uint16) * 65535), "", image, 8, 2) == values).all()
    colours = np.repeat(values[..., None] * 255, 3, axis=2)
    assert (read_mask(save(colours), "", image, 8, 2) == values).all()


def test_a_jpeg_has_clean_edges(save):
    values = np.zeros((64, 64), np.uint8)
    values[10:50, 20:40] = 255
    image = save(np.zeros((64, 64, 3), np.uint8), "image.png")
    path = save(values, "mask.jpg", quality=40)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert (read_mask(path, "", image, 64, 2) == values // 255).all()


def test_a_palette_counts_by_its_indices(save, image):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 3
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    assert (read_mask(save(picture), "", image, 8, 3) == values).all()


def test_a_palette_of_white_and_black_has_its_colours(save, image):
    values = np.zeros((8, 8), np.uint8)
    values[:2] = 1
    for black, name in ((0, "mask.png"), (1, "mask.gif")):
        picture = Image.fromarray(values if black == 0 else 1 - values, mode="P")
        picture.putpalette([0, 0, 0, 255, 255, 255] if black == 0 else [255, 255, 255, 0, 0, 0])
        assert (read_mask(save(picture, name), "", image, 8, 2) == values).all()
    transparent = Image.fromarray(np.stack([values * 255, values], axis=2), mode="LA")
    assert (read_mask(save(transparent), "", image, 8, 2) == values).all()


def test_a_palette_of_colours_counts_by_its_indices_with_two_classes_too(save, image):
    values = np.eye(8, dtype=np.uint8)
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([200, 0, 0, 0, 200, 0])  # red for 0
    assert (read_mask(save(picture), "", image, 8, 2) == values).all()


def test_the_highest_class_of_a_transparent_picture_is_that_of_its_grey(save):
    values = np.diag([1, 2, 1, 2]).astype(np.uint8)
    pixels = np.stack([values, np.full((4, 4), 255, np.uint8)], axis=2)
    assert highest_class(save(Image.fromarray(pixels, mode="LA"))) == 2


@pytest.mark.parametrize(("values", "highest"), [([0, 255], SHADES), ([0, 3, 255], 255)])
def test_a_volume_is_black_and_white_only_if_it_has_nothing_else(values, highest, tmp_path):
    file = tmp_path / "mask.nii"
    volume = np.resize(np.array(values, np.uint8), (4, 4, 4))
    nibabel.Nifti1Image(volume, np.eye(4)).to_filename(file)
    assert highest_class(str(file)) == highest


def test_masks_that_are_refused(save, image):
    values = np.zeros((8, 8), np.uint8)
    values[3, 3] = 7
    with pytest.raises(BadImageError, match=r"a value of 7; with 3 classes .* 0 to 2"):
        read_mask(save(values), "", image, 8, 3)
    with pytest.raises(BadImageError, match="10x8 pixels, but its image has 8x8"):
        read_mask(save(np.zeros((8, 10), np.uint8)), "", image, 8, 2)
    with pytest.raises(BadImageError, match="colours"):
        read_mask(save(np.full((8, 8, 3), (200, 10, 10), np.uint8)), "", image, 8, 2)
    with pytest.raises(BadImageError, match="8x9") as caught:
        read_mask(save(values), save(np.zeros((9, 8), np.uint8), "fov.png"), image, 8, 2)
    assert caught.value.column == "fov"


@pytest.mark.parametrize("shades", [[0, 128, 255], [0, 50, 100], [255, 128, 0]])
def test_a_picture_of_a_few_shades_may_be_of_more_classes(save, image, shades):
    values = np.array(shades, np.uint8)[np.arange(64).reshape(8, 8) % len(shades)]
    told = ", ".join(map(str, sorted(shades)))
    with pytest.raises(BadImageError, match=f"its values are {told}: .*--classes"):
        read_mask(save(values), "", image, 8, 2)


def test_numbers_beside_white_are_refused(save, image):
    values = np.array([0, 1, 2, 255], np.uint8)[np.arange(64).reshape(8, 8) % 4]
    with pytest.raises(BadImageError, match="its values are 0, 1, 2, 255"):
        read_mask(save(values), "", image, 8, 2)


@pytest.mark.parametrize("shades", [[0, 254, 255], [0, 4, 250, 255]])
def test_nearly_black_and_white_is_black_and_white(save, image, shades):
    places = np.arange(64).reshape(8, 8) % len(shades)
    found = read_mask(save(np.array(shades, np.uint8)[places]), "", image, 8, 2)
    assert (found == (np.array(shades) > 127)[places]).all()


def test_shades_of_sixteen_bits(save, image):
    values = np.array([0, 30000, 65535], np.uint16)[np.arange(64).reshape(8, 8) % 3]
    with pytest.raises(BadImageError, match="its values are 0, 30000, 65535: "):
        read_mask(save(values), "", image, 8, 2)


def test_two_shades_are_two_classes_however_dark(save, image):
    values = np.eye(8, dtype=np.uint8)
    assert (read_mask(save(values * 100), "", image, 8, 2) == values).all()


def test_a_volume_has_whole_numbers():
    with pytest.raises(BadImageError, match=r"a value of 0\.5"):
        to_classes(np.array([0.0, 0.5, 1.0]), 2, grey=False)
    assert to_classes(np.array([1e-8, 0.9999999]), 2, grey=False).tolist() == [0, 1]


def test_a_mask_of_other_values_than_the_others_is_named(write, save, tmp_path):
    path = write()
    save(np.arange(64, dtype=np.uint8).reshape(8, 8) % 4, "y3-mask.png")
    with pytest.raises(DataError, match=r"x0-mask.png is .* black and white.*y3-mask.png has .* 3"):
        load(path)


def test_a_class_that_no_training_mask_has_is_noted(write, save, tmp_path):
    path = write()
    for number in range(4):
        save(np.zeros((8, 8), np.uint8), f"y{number}-mask.png")
    federation, _ = decode(load(path), 8, cache=tmp_path / "cache")
    assert [note for note in federation.notes if "mask" in note] == [
        "site 'y' has no training mask with 'foreground' in it"
    ]
    again, _ = decode(federation, 8, cache=tmp_path / "cache")
    assert again.notes == federation.notes


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png"])
def test_sizes_are_compared_upright(save, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = np.zeros((12, 8), np.uint8)
    values[2, :] = 255
    image = save(np.zeros((8, 12, 3), np.uint8), f"image.{suffix}", exif=exif)
    assert (read_mask(save(values), "", image, 24, 2).mean(axis=1) > 0).sum() == 2


def test_outside_the_field_of_view_nothing_counts(save, image):
    values, seen = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    values[:4], seen[:, :4] = 255, 255
    found = read_mask(save(values), save(seen, "fov.png"), image, 8, 2)
    assert (found[:, 4:] == IGNORED).all()
    assert (found[:, :4] == values[:, :4] // 255).all()


def test_nearest_neighbour_makes_no_new_values():
    values = np.random.default_rng(0).choice([0, 7], (13, 9)).astype(np.uint8)
    for size in (4, 9, 31):
        assert set(np.unique(nearest_neighbour(values, size))) <= {0, 7}
    doubled = nearest_neighbour(values[:9], 18)
    assert (doubled[::2, ::2] == values[:9]).all()
    assert (doubled[1::2, 1::2] == values[:9]).all()
    assert to_classes(np.zeros((0,)), 2).size == 0


def test_own_masks_from_table_to_part(write, monkeypatch):
    path = write()
    federation = load(path)
    assert (federation.task, federation.classes) == ("segmentation", ("background", "foreground"))
    _, sites = decode(federation, 16)
    part = sites[0].part("train")
    assert part.targets.shape == (8, 16, 16)
    assert part.targets.dtype == np.uint8
    assert isinstance(part.targets, np.memmap)
    assert (part.targets[0] == nearest_neighbour(np.eye(8, dtype=np.uint8), 16)).all()
    assert part.cases.tolist() == [0, 1, 2, 3]
    federation = load(path, classes=["skin", "lesion"])
    assert federation.classes == ("skin", "lesion")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    assert decode(federation, 16)[1][0].targets == sites[0].targets


def test_more_classes_are_counted(write):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 4
    path = write(values)
    federation = load(path)
    assert federation.classes == ("background", "1", "2", "3")
    assert (decode(federation, 8)[1][1].part("test").targets[0] == values).all()
    with pytest.raises(DataError, match=r"x0-mask.png of .*x0.png \(a value of 3; with 3 classes"):
        decode(load(path, classes=["a", "b", "c"]), 8)
    with pytest.raises(DataError, match="1 classes; segmentation needs 2"):
        load(path, classes=["a"])


def test_a_field_of_view_in_the_table(write):
    seen = np.zeros((8, 8), np.uint8)
    seen[:, :4] = 255
    plain, federation = load(write()), load(write(fov=seen))
    assert plain.fingerprint != federation.fingerprint
    targets = decode(federation, 8)[1][0].part("train").targets
    assert (targets[..., 4:] == IGNORED).all()
    assert set(np.unique(targets[..., :4])) == {0, 1}


def test_bad_masks_are_named_or_left_out(write, tmp_path, save):
    path = write()
    (tmp_path / "x1-mask.png").write_text("no image")
    save(np.zeros((9, 9), np.uint8), "y2-mask.png")
    federation = load(path)
    with pytest.raises(DataError) as caught:
        decode(federation, 8)
    text = str(caught.value)
    assert f"{tmp_path / 'x1-mask.png'} of {tmp_path / 'x1.png'} (not an image" in text
    assert "y2-mask.png" in text
    assert "y2.png (9x9 pixels, but its image has 8x8)" in text
    for _ in range(2):
        cleaned, sites = decode(federation, 8, skip_bad=True)
        assert [len(site.table) for site in cleaned.sites] == [7, 7]
        assert [len(site.labels) for site in sites] == [7, 7]
        assert any("x1-mask.png" in note and "left out" in note for note in cleaned.notes)


def test_every_row_needs_a_mask(write):
    with pytest.raises(DataError, match=r"line 4: no value in column 'mask'"):
        load(write(change=lambda t: t.assign(mask=t["mask"].where(t.index != 2, ""))))
    with pytest.raises(DataError, match="no column 'mask'"):
        load(write(change=lambda t: t.drop(columns="mask")), task="segmentation")


def test_the_site_held_out_is_decoded_too():
    federation = load("phantom", task="segmentation", holdout="west")
    assert federation.classes == ("background", "foreground")
    _, sites = decode(federation, 32)
    assert [site.name for site in sites][-1] == "west"
    held = sites[-1].part("test")
    assert held.targets.shape == (len(federation.holdout.table), 32, 32)
    assert set(np.unique(held.targets)) == {0, 1}
    assert len(np.unique(sites[-1].groups)) == federation.holdout.table["group"].nunique()


def test_inspect_shows_the_classes_shares(write, tmp_path, save):
    values, seen = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    values[:2], seen[:4] = 255, 255
    numbers = inspect(load(write(values, fov=seen)))
    assert numbers.loc["x", "background %"] == 50
    assert numbers.loc["y", "foreground %"] == 50
    assert "class background" not in numbers
    assert numbers.loc["x", "smallest"] == "8x8"
    save(np.zeros((9, 9), np.uint8), "y0-mask.png")
    with pytest.raises(DataError, match=r"site 'y': .*y0-mask.png can't be decoded \(9x9"):
        inspect(load(tmp_path / "all.csv"))


def test_labels_only_help_to_split(write):
    def without_split(table):
        return table.drop(columns="split").assign(label=["a", "b"] * 8)

    federation = load(write(change=without_split), task="segmentation")
    assert federation.classes == ("background", "foreground")
    for site in federation.sites:
        assert site.table.loc[site.table["split"] == "test", "label"].nunique() == 2


@pytest.mark.parametrize(("objects", "kind"), [(20, np.uint8), (60, np.uint8), (60, np.uint16)])
def test_numbered_objects_are_no_shades(save, image, objects, kind):
    """Thresholded, the objects with low numbers would become background."""
    values = np.zeros((64, 64), kind)
    for number in range(objects):
        y, x = 8 * (number // 8), 8 * (number % 8)
        values[y + 1 : y + 7, x + 1 : x + 7] = number + 1
    big = save(np.zeros((64, 64, 3), np.uint8), "big.png")
    with pytest.raises(BadImageError, match=f"many values, up to {objects}"):
        read_mask(save(values), "", big, 64, 2)


def test_blurred_edges_are_shades(save):
    """However thin what they belong to: vessels are mostly edge."""
    lines = Image.new("L", (256, 256))
    lines.paste(255, (0, 100, 256, 108))
    lines.paste(255, (40, 0, 47, 256))
    small = lines.rotate(17).resize((64, 64), Image.Resampling.BILINEAR)
    photograph = save(np.zeros((64, 64, 3), np.uint8), "image.png")
    assert 0.03 < read_mask(save(small), "", photograph, 64, 2).mean() < 0.08
    votes = np.zeros((64, 64), np.uint8)  # of five readers, most of whom agree on most
    for number, edge in enumerate((10, 11, 12, 13, 14), start=1):
        votes[edge:-edge, edge:-edge] = 51 * number
    assert read_mask(save(votes), "", photograph, 64, 2).mean() == (64 - 24) ** 2 / 64**2


def test_a_scaled_volumes_highest_class_is_rounded(tmp_path):
    volume = nibabel.Nifti1Image(np.full((2, 2, 2), 1.99999, np.float32), np.eye(4))
    nibabel.save(volume, tmp_path / "mask.nii.gz")
    assert highest_class(str(tmp_path / "mask.nii.gz")) == 2
