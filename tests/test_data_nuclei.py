import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import decode, load, polygons
from counterpoint.errors import DataError

MONUSAC = {"A2": "breast", "B9": "kidney", "55": "lung", "G9": "prostate"}
NAMES = [f"MoNuSAC {organ}" for organ in sorted(MONUSAC.values())]
SQUARE = [(2, 3), (6.0, 3), (6, 7.0), (2, 7)]
CORNER = [(9, 9), (15, 9), (15, 15), (9, 15)]


def annotation(**outlines):
    """Return the XML of Aperio ImageScope with an annotation for every kind of nucleus."""
    text = '<?xml version="1.0" encoding="utf-8"?>\n<Annotations MicronsPerPixel="0.25">\n'
    for kind, polygons_ in outlines.items():
        text += f'<Annotation Id="1"><Attributes><Attribute Name="{kind}"/></Attributes><Regions>'
        text += "<RegionAttributeHeaders/>"
        for points in polygons_:
            text += '<Region Id="1" NegativeROA="0"><Vertices>'
            text += "".join(f'<Vertex X="{x}" Y="{y}" Z="0" />' for x, y in points)
            text += "</Vertices></Region>"
        text += "</Regions></Annotation>"
    return text + "</Annotations>"


def save(path, seed, size=(16, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def save_monusac(folder, patient, number, text):
    slide = f"{patient}-01Z-00-DX1"
    path = folder / slide / f"{slide}_{number}.tif"
    save(path, [zlib.crc32(patient.encode()), number])
    path.with_suffix(".svs").write_bytes(b"a whole slide image")
    path.with_suffix(".xml").write_text(text)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "nuclei"
    train, test = "MoNuSAC_images_and_annotations", "MoNuSAC Testing Data and Annotations"
    outlines = annotation(Epithelial=[SQUARE, [(1, 1), (2, 2)]], Lymphocyte=[CORNER])
    unclear = annotation(Epithelial=[SQUARE], Ambiguous=[CORNER])
    for code in MONUSAC:
        for patient in range(3):
            save_monusac(root / train, f"TCGA-{code}-A00{patient}", 1, outlines)
            save_monusac(root / train, f"TCGA-{code}-A00{patient}", 2, annotation(Neutrophil=[]))
        save_monusac(root / test, f"TCGA-{code}-A009", 1, unclear)
    data = root / "MoNuSeg 2018 Training Data"
    for number, patient in enumerate(["A7-A13E", "18-5592", "B0-5711", "G9-A000"]):
        name = f"TCGA-{patient}-01Z-00-DX1"
        save(data / "Tissue Images" / f"{name}.tif", [7, number])
        save(data / "Binary masks" / f"{name}.tif", [8, number])
        (data / "Annotations").mkdir(exist_ok=True)
        (data / "Annotations" / f"{name}.xml").write_text(annotation(Description=[CORNER]))
    for slide in (1, 2, 3, 12):
        for image in range(2):
            name = f"{slide:02d}_{image + 1}.png"
            save(root / "TNBC_NucleiSegmentation" / f"Slide_{slide:02d}" / name, [slide, image])
            mask = root / "TNBC_NucleiSegmentation" / f"GT_{slide:02d}" / name
            mask.parent.mkdir(exist_ok=True)
            Image.new("L", (16, 20), 255).save(mask)
    (root / train / "._TCGA-A2-A000.xml").write_bytes(b"what macOS leaves behind")
    return root


def by_site(federation):
    return {site.name: site.table for site in federation.sites}


def test_six_sites(root):
    federation = load("nuclei", root)
    assert federation.protocol == "grouped"
    assert federation.task == "segmentation"
    assert federation.classes == ("background", "nucleus")
    tables = by_site(federation)
    assert list(tables) == [*NAMES, "MoNuSeg", "TNBC"]
    assert [len(table) for table in tables.values()] == [7, 7, 7, 7, 4, 6]
    for code, organ in MONUSAC.items():
        groups = set(tables[f"MoNuSAC {organ}"]["group"])
        assert groups == {f"TCGA-{code}-A00{n}" for n in (0, 1, 2, 9)}
    assert set(tables["TNBC"]["group"]) == {"TNBC 01", "TNBC 02", "TNBC 03"}
    for table in tables.values():
        assert all(Image.open(path) for path in table["mask"])
        assert (table["target"] != "").all()
    assert "MoNuSAC is split by organ" in federation.notes[0]
    assert "slides after 11 were left out: Slide_12" in federation.notes[1]


def test_a_patient_of_two_sites_is_in_one_part(root):
    federation = load("nuclei", root)  # TCGA-G9-A000 is in MoNuSAC and in MoNuSeg
    table = pd.concat([site.table for site in federation.sites])
    assert (table["group"] == "TCGA-G9-A000").sum() == 3
    assert (table.groupby("group")["split"].nunique() == 1).all()
    assert not any("leaks" in note for note in federation.notes)


def test_masks_show_what_is_outlined(root):
    tables = by_site(load("nuclei", root))
    table = tables["MoNuSAC lung"].set_index("image")
    both, empty, unclear = (
        table[[part in path for path in table.index]].iloc[0]
        for part in ("A000-01Z-00-DX1_1", "A000-01Z-00-DX1_2", "A009-01Z-00-DX1_1")
    )
    mask = Image.open(both["mask"])
    assert mask.mode == "1"
    assert mask.size == (16, 20)  # width and height of the image
    pixels = np.zeros((20, 16), dtype=bool)
    pixels[3:8, 2:7] = pixels[9:16, 9:16] = True
    assert np.array_equal(np.asarray(mask), pixels)
    assert both["fov"] == empty["fov"] == ""
    assert not np.asarray(Image.open(empty["mask"])).any()
    view = np.asarray(Image.open(unclear["fov"]))
    assert not view[9:16, 9:16].any()
    assert view.sum() == 20 * 16 - 49
    assert np.asarray(Image.open(unclear["mask"])).sum() == 25
    assert (tables["TNBC"]["fov"] == "").all()


def test_the_tissue_image_is_taken(root):
    table = by_site(load("nuclei", root))["MoNuSeg"]
    assert all("Tissue Images" in path for path in table["image"])


def test_masks_are_drawn_once(root, tmp_path, monkeypatch):
    cache = tmp_path / "own cache"
    first = load("nuclei", root, cache=cache)
    kept = sorted(path.name for path in (cache / "masks").iterdir())
    assert len(kept) == 5  # four contents of annotations, and a field of view
    monkeypatch.setattr(polygons, "read_polygons", lambda path: pytest.fail(f"{path} read again"))
    assert load("nuclei", root, cache=cache).fingerprint == first.fingerprint
    assert sorted(path.name for path in (cache / "masks").iterdir()) == kept


def test_images_decode(root):
    _, sites = decode(load("nuclei", root, sites=["MoNuSeg", "TNBC"]), 8)
    assert [site.part("train").images.shape for site in sites] == [(4, 3, 8, 8), (6, 3, 8, 8)]


def test_organs_from_a_table(root):
    old = next(root.glob("MoNuSAC_*/TCGA-A2-A000*"))
    for path in [*old.iterdir(), old]:
        path.rename(path.with_name(path.name.replace("A2", "ZZ")))
    with pytest.raises(DataError, match=r"the organ of TCGA-ZZ-A000 is not known.*organs.csv"):
        load("nuclei", root)
    table = root / "organs.csv"
    table.write_text("patient,organ\nTCGA-ZZ-A000,Lung\n")
    assert "TCGA-ZZ-A000" in set(by_site(load("nuclei", root))["MoNuSAC lung"]["group"])
    table.write_text("patient,organ\nTCGA-ZZ-A000,lunge\n")
    with pytest.raises(DataError, match=r"organs.csv, line 2: .*'lunge'; did you mean 'lung'"):
        load("nuclei", root)


def test_data_sets_that_are_missing(root, tmp_path):
    for name in ("MoNuSeg 2018 Training Data", "TNBC_NucleiSegmentation"):
        (root / name).rename(tmp_path / name)
    federation = load("nuclei", root)
    assert [site.name for site in federation.sites] == NAMES
    assert f"there are no folders for MoNuSeg and TNBC in {root}" in federation.notes
    other = tmp_path / "one"
    other.mkdir()
    (tmp_path / "TNBC_NucleiSegmentation").rename(other / "tnbc")
    with pytest.raises(DataError, match=r"only one \('TNBC'\)"):
        load("nuclei", other)
    for wrong in (other / "tnbc", tmp_path / "nothing"):
        with pytest.raises(DataError, match=r"looked for folders .*MoNuSAC, MoNuSeg, TNBC"):
            load("nuclei", wrong)
    (other / "MoNuSeg").mkdir()
    with pytest.raises(DataError, match=r"no annotations \(.xml\) in .*MoNuSeg"):
        load("nuclei", other)
    (other / "MoNuSeg").rmdir()
    (other / "tnbc").rename(tmp_path / "away")
    (other / "tnbc").mkdir()
    with pytest.raises(DataError, match=r"no images Slide_01/01_1.png"):
        load("nuclei", other)


def test_images_that_are_missing(root):
    image = next(root.glob("MoNuSAC_*/TCGA-55-A001*/*_1.tif"))
    whole = image.read_bytes()
    image.unlink()
    words = r"DX1_1.xml has no image .*_1.tif or .png.*; .*_1.svs can't be read, convert it with"
    with pytest.raises(DataError, match=words):
        load("nuclei", root)
    image.with_suffix(".svs").unlink()
    with pytest.raises(DataError, match=r"has no image .*unpack its archive again"):
        load("nuclei", root)
    image.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"the image .*_1.tif can't be read"):
        load("nuclei", root)
    image.write_bytes(whole)
    mask = root / "TNBC_NucleiSegmentation" / "GT_01" / "01_1.png"
    mask.unlink()
    with pytest.raises(DataError, match=r"'TNBC': 1 of 6 images or masks are missing.*GT_01"):
        load("nuclei", root)
    assert len(by_site(load("nuclei", root, skip_bad=True))["TNBC"]) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Annotations>", r"can't be read \(ParseError"),
        ("<slide/>", "no annotation of Aperio ImageScope: it holds <slide>"),
        (annotation(Epithelial=[[("a", 1), (2, 2), (3, 3)]]), r"can't be read \(ValueError"),
        (annotation(Epithelial=[SQUARE]).replace("Y=", "Z2="), r"can't be read \(KeyError: 'Y'"),
    ],
)
def test_bad_annotations_name_the_file(root, text, words):
    path = next(root.glob("MoNuSAC_*/TCGA-55-A001*/*_1.xml"))
    path.write_text(text)
    with pytest.raises(DataError, match=rf"{path.name} (is )?{words}"):
        load("nuclei", root)


def test_a_name_without_a_patient(root):
    path = next(root.glob("MoNuSAC_*/TCGA-55-A001*/*_1.xml"))
    for file in (path, path.with_suffix(".tif")):
        file.rename(file.with_stem("first"))
    with pytest.raises(DataError, match=r"first.xml does not begin with a patient of TCGA"):
        load("nuclei", root)
