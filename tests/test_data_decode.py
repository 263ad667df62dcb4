import json
import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import Federation, Site, decode, load, write_phantom
from counterpoint.data.bad import remember
from counterpoint.data.files import content_hashes, sha256
from counterpoint.data.pixels import BadImageError, is_deep, read_pixels
from counterpoint.errors import DataError, SettingsError

BYTE, WORD = np.dtype(np.uint8), np.dtype(np.uint16)


@pytest.fixture
def tiny(tmp_path):
    return write_phantom(tmp_path / "data", size=20, scale=0.02)


def save(image, path, **options):
    image.save(path, **options)
    return str(path)


def test_rgb_has_its_values_and_channels_first(tmp_path):
    values = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    path = save(Image.fromarray(values), tmp_path / "a.png")
    assert (read_pixels(path, 8, BYTE) == values.transpose(2, 0, 1)).all()
    assert (read_pixels(path, 8, WORD) == 257 * values.transpose(2, 0, 1).astype(int)).all()


def test_resizing_is_antialiased_and_ignores_the_aspect(tmp_path):
    stripes = np.zeros((16, 32), np.uint8)
    stripes[:, ::2] = 200
    pixels = read_pixels(save(Image.fromarray(stripes), tmp_path / "a.png"), 8, BYTE)
    assert pixels.shape == (3, 8, 8)
    assert np.abs(pixels[:, :, 1:-1].astype(int) - 100).max() <= 3


def test_grey_palette_and_transparency(tmp_path):
    grey = read_pixels(save(Image.new("L", (8, 8), 70), tmp_path / "l.png"), 8, BYTE)
    assert (grey == 70).all()
    palette = Image.new("RGB", (8, 8), (10, 20, 30)).quantize(4)
    path = save(palette, tmp_path / "p.png", transparency=b"\0")
    assert read_pixels(path, 8, BYTE)[:, 0, 0].tolist() == [10, 20, 30]
    clear = save(Image.new("RGBA", (8, 8), (9, 8, 7, 0)), tmp_path / "rgba.png")
    assert read_pixels(clear, 8, BYTE)[:, 0, 0].tolist() == [9, 8, 7]


def test_exif_orientation_is_applied(tmp_path):
    values = np.zeros((8, 8, 3), np.uint8)
    values[:4] = 255  # the upper half is white; orientation 3 turns it upside down
    exif = Image.Exif()
    exif[0x0112] = 3
    path = save(Image.fromarray(values), tmp_path / "a.png", exif=exif)
    assert read_pixels(path, 8, BYTE)[0, 0, 0] == 0


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_their_values(tmp_path, name):
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    path = save(Image.fromarray(values), tmp_path / name)
    assert (read_pixels(path, 8, WORD) == values[None]).all()


def colour16(tmp_path, name, channels=3):
    """A colour image whose lower bytes matter, and its values (8, 8, channels)."""
    import imagecodecs

    values = (np.arange(8 * 8 * channels) * 331 % 65536).astype(np.uint16).reshape(8, 8, channels)
    encode = imagecodecs.png_encode if name.endswith("png") else imagecodecs.tiff_encode
    (tmp_path / name).write_bytes(encode(values))
    return str(tmp_path / name), values


@pytest.mark.parametrize(("name", "channels"), [("a.png", 3), ("a.png", 4), ("a.tif", 3)])
def test_colour_of_sixteen_bits_keeps_its_values(tmp_path, name, channels):
    path, values = colour16(tmp_path, name, channels)
    assert (read_pixels(path, 8, WORD) == values[..., :3].transpose(2, 0, 1)).all()
    assert is_deep(path)


def test_colour_of_sixteen_bits_cut_short_is_a_bad_image(tmp_path):
    path, _ = colour16(tmp_path, "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadImageError):
        read_pixels(path, 8, WORD)


def test_colour_of_sixteen_bits_says_what_to_install(tmp_path, monkeypatch):
    path, _ = colour16(tmp_path, "a.png")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(BadImageError, match="colour16"):
        read_pixels(path, 8, WORD)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((8, 8), -4, np.int32), "from -4"),
        (np.full((8, 8), 70000, np.int32), "70000"),
        (np.full((8, 8), np.nan, np.float32), "nan"),
        (np.full((8, 8), 0.5, np.float32), "0 to 1"),
    ],
)
def test_grey_values_out_of_range(tmp_path, values, words):
    path = save(Image.fromarray(values), tmp_path / "a.tif")
    with pytest.raises(BadImageError, match=words):
        read_pixels(path, 8, WORD)


def test_a_bomb_is_a_bad_image(tmp_path, monkeypatch):
    path = save(Image.new("L", (64, 64)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadImageError, match="decompression bomb"):
        read_pixels(path, 8, BYTE)


def test_parts_are_the_files(tiny):
    federation, sites = decode(load(tiny), 20)
    site, data = federation.sites[0], pickle.loads(pickle.dumps(sites[0]))
    assert len(pickle.dumps(sites[0])) < 5000
    for name in ("train", "validation", "test"):
        part, rows = data.part(name), site.table[site.table["split"] == name]
        assert len(part) == len(rows)
        assert isinstance(part.images, np.memmap)
        assert part.images.shape == (len(site.table), 3, 20, 20)
        assert part.labels.tolist() == rows["label"].tolist()
        wanted = np.asarray(Image.open(rows["image"].iloc[0])).transpose(2, 0, 1)
        assert (part.images[part.rows[0]] == wanted).all()
    with pytest.raises(DataError, match="did you mean 'train'"):
        data.part("trian")
    data.array.unlink()
    with pytest.raises(DataError, match="decode the federation again"):
        data.part("train")


def test_the_second_time_no_image_is_opened(tiny, monkeypatch):
    seen = []
    federation = load(tiny)
    _, first = decode(federation, 16, progress=lambda done, total: seen.append((done, total)))
    total = sum(len(s.table) for s in federation.sites)
    assert seen[0] == (1, total)
    assert seen[-1] == (total, total)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    _, second = decode(load(tiny), 16)
    assert [s.array for s in first] == [s.array for s in second]


def test_a_cut_off_array_is_made_again(tiny):
    federation = load(tiny)
    _, sites = decode(federation, 12)
    whole = sites[0].array.read_bytes()
    sites[0].array.write_bytes(whole[:-5])
    decode(federation, 12)
    assert sites[0].array.read_bytes() == whole
    assert not list(sites[0].array.parent.glob("*.part"))


def test_one_deep_image_makes_all_sites_16_bit(tiny):
    values = np.full((20, 20), 1234, np.uint16)
    Image.fromarray(values).save(tiny / "east" / "images" / "0000.png")
    _, sites = decode(load(tiny), 20)
    images = [site.part("train").images for site in sites]
    assert {i.dtype for i in images} == {WORD}
    assert (images[0][0] == 1234).all()
    assert (images[1] % 257 == 0).all()


def test_bad_files_are_named_or_left_out(tiny):
    cut, text = (tiny / "east" / "images" / f"000{i}.png" for i in range(2))
    cut.write_bytes(cut.read_bytes()[:300])
    text.write_text("no image")
    federation = load(tiny)
    with pytest.raises(DataError, match=r"'east': 2 of \d+ .*0000.png .*0001.png .*skip_bad"):
        decode(federation, 20)
    for _ in range(2):  # the second time the bad files are known
        cleaned, sites = decode(federation, 20, skip_bad=True)
        assert len(cleaned.sites[0].table) == len(federation.sites[0].table) - 2
        assert len(sites[0].labels) == len(cleaned.sites[0].table)
        assert any("2 of" in n and "left out" in n and "0000.png" in n for n in cleaned.notes)
        assert cleaned.fingerprint != federation.fingerprint


def test_leaving_out_checks_the_sites_again(tiny):
    federation = load(tiny)
    table = federation.sites[0].table
    for path in table.loc[table["split"] == "test", "image"]:
        with open(path, "wb") as file:
            file.write(os.urandom(50))
    with pytest.raises(DataError, match="'east' has too few test images"):
        decode(load(tiny, seed=1), 20, skip_bad=True)


def test_bad_size_and_unwritable_cache(tiny, tmp_path):
    federation = load(tiny)
    with pytest.raises(SettingsError, match="image_size is 2"):
        decode(federation, 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="COUNTERPOINT_CACHE"):
        decode(federation, 16, cache=tmp_path / "file")


def test_a_full_disk_is_named(tiny, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    federation = load(tiny)
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(DataError, match=r"cache.arrays can't be written \(No space left"):
        decode(federation, 16, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "arrays").iterdir())


def test_content_is_read_again_only_after_a_change(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_text("one")
    first = content_hashes([str(file)], tmp_path)
    assert first == {str(file): sha256(str(file))}
    files = sys.modules["counterpoint.data.files"]
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256", lambda _: pytest.fail("a file was read"))
        assert content_hashes([str(file)], tmp_path) == first
    file.write_text("three")
    assert content_hashes([str(file)], tmp_path) != first
    (tmp_path / "content.json").write_text("{broken")
    assert content_hashes([str(file)], tmp_path) == {str(file): sha256(str(file))}


def test_the_index_forgets_files_that_are_gone(tmp_path):
    cache, gone, here = tmp_path / "cache", tmp_path / "gone", tmp_path / "here"
    cache.mkdir()
    for file in (gone, here):
        file.write_text("some")
    content_hashes([str(gone)], cache)
    gone.unlink()
    content_hashes([str(here)], cache)
    assert list(json.loads((cache / "content.json").read_text())) == [str(here)]


def test_the_fingerprint_sees_every_change():
    def made(**change):
        columns = {"content": ["a", "b"], "label": [0, 1], "split": ["train", "test"]} | change
        return Federation("n", ("x", "y"), (Site("s", pd.DataFrame(columns)),), "given")

    prints = {
        made().fingerprint,
        made(content=["a", "c"]).fingerprint,
        made(label=[1, 1]).fingerprint,
        made(split=["test", "test"]).fingerprint,
    }
    assert len(prints) == 4
    assert made().fingerprint == made().fingerprint


def test_rows_of_one_file_come_together(tiny):
    federation = load(tiny)
    site = federation.sites[0]
    twice = pd.concat([site.table, site.table.head(2)], ignore_index=True)
    _, sites = decode(replace(federation, sites=(Site("x", twice), *federation.sites[1:])), 12)
    assert sites[0].cases[:4].tolist() == [0, 0, 1, 1]
    part = sites[0].part("train")
    assert (part.images[0] == part.images[1]).all()
    assert len(sites[0].labels) == len(twice) == len(part.images)


def test_remembered_and_broken_lists(tiny):
    cut = tiny / "east" / "images" / "0000.png"
    cut.write_text("no image")
    _, sites = decode(load(tiny), 20, skip_bad=True)
    for text in ("[1]", "{broken", '{"a": 1}'):
        for file in sites[0].array.parent.glob("unreadable-*.json"):
            file.write_text(text)
        again = decode(load(tiny), 20, skip_bad=True)
        assert len(again[0].sites[0].table) == len(sites[0].labels)


def test_a_file_that_changes_between_looking_and_decoding(tiny, tmp_path):
    """Under the mark of the first content the second would be used for ever."""
    federation = load(tiny, cache=tmp_path / "cache")
    image = federation.sites[0].table.loc[0, "image"]
    Image.new("RGB", (20, 20), (200, 0, 0)).save(image)
    with pytest.raises(DataError, match="has changed since it was looked at"):
        decode(federation, 8, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "arrays").glob("*.npy"))[1:]
    decode(load(tiny, cache=tmp_path / "cache"), 8, tmp_path / "cache")


def test_one_site_leaves_its_bad_files_out(tiny, tmp_path):
    """As at a hospital, where the other sites are elsewhere."""
    federation = load(tiny, sites=["east"], fewest=1)
    os.truncate(federation.sites[0].table.loc[0, "image"], 20)
    federation, _ = decode(load(tiny, sites=["east"], fewest=1), 8, tmp_path, skip_bad=True)
    assert "left out" in str(federation.notes)


def test_what_is_bad_in_one_form_is_not_in_another(tiny, tmp_path):
    federation = load(tiny)
    key = federation.sites[0].table.loc[0, "content"]
    folder = tmp_path / "arrays"
    folder.mkdir()
    remember(folder, federation.form, {key: ("image", "a broken window in its header")})
    for form, images in ((federation.form, -1), (replace(federation.form, window=(0, 1)), 0)):
        used, _ = decode(replace(federation, form=form), 8, tmp_path, skip_bad=True)
        assert len(used.sites[0].table) - len(federation.sites[0].table) == images
