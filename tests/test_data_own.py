import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from counterpoint.data import load, write_phantom
from counterpoint.errors import DataError, SettingsError

SPLITS = ["train"] * 8 + ["val"] * 2 + ["TEST"] * 2


def rows(site, count=12):
    """Return a site's table: two classes in turn, a patient an image."""
    return pd.DataFrame(
        {
            "site": site,
            "image": [f"{site}/{i}.png" for i in range(count)],
            "label": [("cat", "dog")[i % 2] for i in range(count)],
            "split": (SPLITS * count)[:count],
            "patient": [f"{site}{i}" for i in range(count)],
        }
    )


@pytest.fixture
def table():
    return pd.concat([rows("1"), rows("2")], ignore_index=True)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a table and its images and returns the CSV's path."""

    def write(table: pd.DataFrame, **options) -> Path:
        rng = np.random.default_rng(0)
        for image in table.get("image", []):
            if image and not (tmp_path / image).exists():
                (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / image)
        table.to_csv(tmp_path / "all.csv", index=False, **options)
        return tmp_path / "all.csv"

    return write


def counts(federation):
    return [
        tuple((s.table["split"] == p).sum() for p in ("train", "validation", "test"))
        for s in federation.sites
    ]


def test_one_csv_as_it_is(table, write, tmp_path):
    federation = load(write(table))
    assert (federation.name, federation.protocol) == ("all", "given")
    assert federation.classes == ("cat", "dog")
    assert [s.name for s in federation.sites] == ["1", "2"]
    assert counts(federation) == [(8, 2, 2)] * 2
    first = federation.sites[0].table.iloc[0]
    assert first["image"] == str(tmp_path / "1" / "0.png")
    assert (first["label"], first["group"]) == (0, "10")
    assert federation.notes == ()


def test_a_folder_of_site_folders(table, write, tmp_path):
    write(table)
    for site in ("1", "2"):
        mine = table[table["site"] == site].assign(image=[f"{i}.png" for i in range(12)])
        mine.drop(columns="site").to_csv(tmp_path / site / "labels.csv", index=False)
    (tmp_path / "papers").mkdir()
    folder, csv = load(tmp_path), load(tmp_path / "all.csv")
    assert folder.fingerprint == csv.fingerprint
    assert any("papers" in note for note in folder.notes)


def test_absolute_paths_masks_and_integer_labels(table, write, tmp_path):
    path = write(table)
    table["image"] = [str(tmp_path / image) for image in table["image"]]
    table["label"] = [(10, 9)[i % 2] for i in range(24)]
    table["mask"] = ["", *table["image"].tolist()[1:]]
    federation = load(write(table))
    assert path.exists()
    assert federation.classes == ("9", "10")
    assert federation.sites[0].table["mask"].tolist()[:2] == ["", str(tmp_path / "1/1.png")]


def test_one_site_has_masks_and_the_other_none(tmp_path):
    write_phantom(tmp_path, size=8, scale=0.02)
    path = tmp_path / "east" / "labels.csv"
    pd.read_csv(path).drop(columns="mask").to_csv(path, index=False)
    east, north, *_ = load(tmp_path).sites
    assert set(east.table["mask"]) == {""}
    assert all(Path(mask).is_file() for mask in north.table["mask"])
    Path(north.table.loc[0, "mask"]).unlink()
    assert len(load(tmp_path).sites) == 4  # to tell images apart, masks need not be there


def test_no_split_makes_one_and_says_so(table, write):
    path = write(table.drop(columns=["split", "patient"]))
    federation = load(path)
    assert federation.protocol == "grouped"
    assert counts(federation) == [(8, 2, 2)] * 2
    text = " ".join(federation.notes)
    assert "a split was made with seed 1" in text
    assert "12 of 12 images have no known patient" in text
    assert load(path, seed=1).fingerprint == federation.fingerprint
    assert load(path, seed=2).fingerprint != federation.fingerprint
    with pytest.raises(DataError, match="no column 'split'"):
        load(path, protocol="given")


def test_the_split_does_not_depend_on_the_place_or_the_kept_sites(table, write, tmp_path):
    third = pd.concat([table, rows("3")], ignore_index=True).drop(columns=["split", "patient"])
    write(third)
    shutil.copytree(tmp_path, tmp_path.parent / "moved")
    whole, moved = load(tmp_path / "all.csv"), load(tmp_path.parent / "moved" / "all.csv")
    assert whole.fingerprint == moved.fingerprint
    two = load(tmp_path / "all.csv", sites=["3", "1"])
    assert [s.name for s in two.sites] == ["1", "3"]
    assert two.sites[1].table["split"].tolist() == whole.sites[2].table["split"].tolist()
    with pytest.raises(SettingsError, match=r"unknown site 'no'.*sites: 1, 2, 3"):
        load(tmp_path / "all.csv", sites=["1", "no"])


def test_a_leaking_patient_is_an_error_unless_accepted(table, write):
    table.loc[[0, 10, 23], "patient"] = "pat7"
    path = write(table)
    with pytest.raises(
        DataError, match=r"'1': 1 of 2 test images share .*pat7.*--protocol grouped"
    ):
        load(path)
    accepted = load(path, protocol="given")
    assert any("leaks" in n and "'2': 1 of 2" in n and "in front" in n for n in accepted.notes)
    clean = load(path, protocol="grouped")
    frame = pd.concat([s.table for s in clean.sites])
    assert frame[frame["group"] == "pat7"]["split"].nunique() == 1


def test_equal_files_leak_or_are_noted(table, write, tmp_path):
    path = write(table)
    shutil.copy(tmp_path / "1" / "0.png", tmp_path / "1" / "1.png")
    assert any("2 images have a twin" in note for note in load(path).notes)
    shutil.copy(tmp_path / "1" / "0.png", tmp_path / "2" / "11.png")
    with pytest.raises(DataError, match=r"'2': 1 of 2 test images are the same file .*2/11.png"):
        load(path)
    frame = pd.concat([s.table for s in load(path, protocol="grouped").sites])
    twins = frame[frame["content"].duplicated(keep=False)]
    assert (len(twins), twins["group"].nunique(), twins["split"].nunique()) == (3, 1, 1)


def test_the_split_does_not_depend_on_which_files_are_here(table, write, tmp_path):
    """Two hospitals have one table, each its own images; at one of them two files are equal."""
    path = write(table.drop(columns="split"))
    shutil.copy(tmp_path / "1" / "0.png", tmp_path / "1" / "1.png")
    everywhere = load(path)
    shutil.move(tmp_path / "1", tmp_path / "elsewhere")
    alone = load(path, sites=["2"], fewest=1)
    assert alone.sites[0].table["split"].tolist() == everywhere.sites[1].table["split"].tolist()


def test_a_train_limit_does_not_depend_on_the_order_of_rows(table, write):
    kept = []
    for order in (table, table[::-1], table.sample(frac=1, random_state=1)):
        (site,) = (s for s in load(write(order), train_limit=4).sites if s.name == "1")
        rows = site.table[site.table["split"] == "train"]
        kept.append({Path(name).name for name in rows["image"]})
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 4


def test_rows_without_a_patient_may_have_a_lesion(table, write):
    """Of each row, the first column that names something counts."""
    table = table.assign(lesion=[f"l{n // 2}" for n in range(len(table))])
    table.loc[:3, "patient"] = ""
    groups = pd.concat([s.table for s in load(write(table), protocol="grouped").sites])["group"]
    assert groups.tolist()[:6] == ["l0", "l0", "l1", "l1", "14", "15"]


def test_train_limit(table, write):
    path = write(pd.concat([table, rows("3", 36)], ignore_index=True))
    assert counts(load(path)) == [(8, 2, 2), (8, 2, 2), (24, 6, 6)]
    smallest = load(path, train_limit="smallest")
    assert counts(smallest) == [(8, 2, 2), (8, 2, 2), (8, 6, 6)]
    assert "site '3': 8 of 24 training images are used" in smallest.notes
    assert counts(load(path, train_limit=3)) == [(3, 2, 2), (3, 2, 2), (3, 6, 6)]
    for bad in (1, "large", True, 2.5):
        with pytest.raises(SettingsError, match="train_limit is"):
            load(path, train_limit=bad)


def test_train_limit_below_the_classes(table, write):
    table.loc[0, "label"] = "bird"
    with pytest.raises(SettingsError, match="train_limit 2 is too small for site '1': 3 classes"):
        load(write(table), train_limit=2)


def test_a_lacking_class_is_a_note(table, write):
    table["label"] = table["label"].where(table.index != 0, "bird")
    assert load(write(table)).notes == ("site '2' has no training image of class 'bird'",)


def test_missing_files_are_an_error_or_left_out(table, write, tmp_path):
    path = write(table)
    for i in range(4):
        (tmp_path / "2" / f"{i}.png").unlink()
    with pytest.raises(DataError, match=r"'2': 4 of 12 .*2/0.png \(line 14\).*--skip-bad"):
        load(path)
    federation = load(path, skip_bad=True)
    assert counts(federation)[1] == (4, 2, 2)
    assert any("4 of 12" in note and "left out" in note for note in federation.notes)


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (3, "label", "", r"all.csv, line 5: no value in column 'label'"),
        (3, "label", "NaN", r"line 5: no value in column 'label'"),
        (
            3,
            "site",
            "NA",
            r"line 5: no value in column 'site'.*NA, N/A, nan and null count as none",
        ),
        (3, "image", "", r"line 5: no value in column 'image'"),
        (3, "image", "1/../1/1.png", r"line 5: the image .* is already in line 3"),
        (3, "split", "", r"line 5: no value in column 'split'"),
        (3, "split", "trane", r"line 5: unknown split 'trane'; did you mean 'train'"),
    ],
)
def test_a_bad_value_names_its_line(table, write, row, column, value, words):
    table.loc[row, column] = value
    with pytest.raises(DataError, match=words):
        load(write(table))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename(columns={"label": "lable"}), "no column 'label'; did you mean 'lable'"),
        (lambda t: t.drop(columns="site"), "no column 'site'.*its columns: image"),
        (lambda t: t[:0], "no rows"),
        (lambda t: t[:12], "two or more.*only one"),
        (lambda t: t.assign(split="train"), "'1' has too few test images"),
        (lambda t: t[t["split"] != "TEST"], "'1' has too few test images"),
        (lambda t: t[(t["split"] != "train") | (t.index % 12 == 0)], "too few training|few train"),
        (lambda t: t.assign(label=["cat"] * 12 + ["cat", "dog"] * 6), "'1': all 8 .* 'cat'"),
    ],
)
def test_tables_that_cannot_be_used(table, write, change, words):
    with pytest.raises(DataError, match=words):
        load(write(change(table)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty"),
        (b"site,image,label\nx,1,2\n\xff\xfe,1,2\n", "line 3, is not UTF-8"),
        (b"site\timage\tlabel\nx\t1\t2\n", "separated by tabs"),
        (b"hospital,image,label\nx,1,2\n", "is it 'hospital'. Call it 'site'"),
        (b"site,image,diagnosis\nx,1,2\n", "is it 'diagnosis'. Call it 'label'"),
        (b"site,image,masks\nx,1,2\n", "if 'masks' has the masks .* call it 'mask'"),
        (b'site,image,label\n"x,1,2\n', "check its quotes"),
        (b"site,image,label\nx,1\n", "line 2: 2 values but 3 columns"),
        (b"site,image,label\n\nx,1,2,3\n", "line 3: 4 values"),
        (b"site;image;label\nx;1;2\n", "semicolons"),
        (b"site,image,label,label\nx,1,2,3\n", "'label' more than once"),
    ],
)
def test_files_that_are_no_tables(tmp_path, text, words):
    (tmp_path / "all.csv").write_bytes(text)
    with pytest.raises(DataError, match=words):
        load(tmp_path / "all.csv")


def test_spreadsheet_habits_are_understood(table, write):
    table.columns = [" Site", "Image ", "LABEL", "Split", "patient"]
    table.insert(0, "age", 50)
    plain = load(write(table.rename(columns=str.strip).rename(columns=str.lower)))
    path = write(plain_columns := table, encoding="utf-8-sig")
    assert list(plain_columns)[1] == " Site"
    path.write_bytes(path.read_bytes() + b",,,,,\r\n")
    assert load(path).fingerprint == plain.fingerprint


def test_suspicious_columns_and_labels_are_noted(table, write):
    table.loc[0, "label"] = "Dog"
    notes = " ".join(load(write(table.assign(masks="none"))).notes)
    assert "'masks' is not used; did you mean 'mask'" in notes
    assert "Dog, dog differ only in upper and lower case" in notes


@pytest.mark.parametrize(("column", "meant"), [("split", "spilt"), ("patient", "patients")])
def test_a_misspelt_split_or_patient_is_refused(table, write, column, meant):
    """Without it, other images are tested, or those of one patient come into two parts."""
    path = write(table.rename(columns={column: meant}))
    with pytest.raises(DataError, match=rf"'{meant}' is not used; did you mean '{column}'"):
        load(path)


def test_groups_that_part_a_patient_are_refused(table, write):
    """`group` comes before `patient`; a patient's lesions may well be told apart."""
    table["patient"] = [f"{site}{i // 3}" for i, site in enumerate(table["site"])]
    each = [f"g{i}" for i in range(24)]
    with pytest.raises(DataError, match=r"line 2: the images of patient '10' are not in one"):
        load(write(table.assign(group=each)), protocol="grouped")
    with pytest.raises(DataError, match=r"line 2: the images of patient '10' are not in one"):
        load(write(table.assign(group=["", *each[1:]])), protocol="grouped")
    by_patient = load(write(table), protocol="grouped")
    for other in ({"lesion": each}, {"group": ""}):
        path = write(table.assign(**other))
        assert load(path, protocol="grouped").fingerprint == by_patient.fingerprint
    table["patient"] = table["site"] + table["split"].str.lower()
    assert load(write(table.assign(group=each))).protocol == "given"  # it parts nobody


def test_a_split_under_another_name_is_not_passed_over(table, write):
    table.loc[table.index[-12:], "split"] = "train"  # of the last site
    path = write(table.rename(columns={"split": "fold"}))
    with pytest.raises(DataError, match="the column 'fold' holds a split, and only one called"):
        load(path)
    assert load(path, protocol="grouped").protocol == "grouped"


def test_a_patient_under_another_name_is_named(table, write):
    notes = " ".join(load(write(table.rename(columns={"patient": "pid"}))).notes)
    assert "if 'pid' names patients, call it 'patient'" in notes


def test_equal_images_with_different_labels_are_noted(table, write, tmp_path):
    path = write(table)
    (tmp_path / "1" / "1.png").write_bytes((tmp_path / "1" / "0.png").read_bytes())
    notes = " ".join(load(path, protocol="grouped").notes)
    assert "2 images have a twin of equal content with another label" in notes


def test_a_class_named_twice(table, write):
    with pytest.raises(DataError, match="the class 'dog' is named twice"):
        load(write(table), classes=["cat", "dog", "dog"])


def test_a_label_that_is_no_class(table, write):
    with pytest.raises(DataError, match=r"24 different values for 24 images.*another column"):
        load(write(table.assign(label=[f"text {i}" for i in range(24)])))


def test_a_site_folder_whose_table_has_another_name(table, write, tmp_path):
    write(table)
    for site in ("1", "2"):
        mine = table[table["site"] == site].assign(image=[f"{i}.png" for i in range(12)])
        mine.to_csv(tmp_path / site / "labels.csv", index=False)
    assert not [note for note in load(tmp_path).notes if "column 'site'" in note]
    (tmp_path / "2" / "labels.csv").rename(tmp_path / "2" / "Labels.CSV")
    with pytest.raises(DataError, match=r"2 has a table 'Labels.CSV'; call it labels.csv"):
        load(tmp_path)
    (tmp_path / "2" / "Labels.CSV").rename(tmp_path / "2" / "labels.csv")
    mine.assign(site="Graz").to_csv(tmp_path / "2" / "labels.csv", index=False)
    assert any("its column 'site' is not looked at" in note for note in load(tmp_path).notes)


def test_a_split_without_validation_gets_one(table, write):
    table.loc[table["split"] == "val", "split"] = "train"
    table.loc[table["site"] == "2", "split"] = SPLITS  # this one has its own
    table.loc[1, "patient"] = table.loc[0, "patient"]
    federation = load(write(table))
    assert counts(federation) == [(8, 2, 2)] * 2
    (note,) = federation.notes
    assert "'1': its split has no validation part; 2 of 10 training images became it" in note
    first = federation.sites[0].table
    assert set(first[first["split"] == "test"]["image"].map(lambda x: Path(x).stem)) == {"10", "11"}
    assert first.groupby("group")["split"].nunique().max() == 1


def test_files_that_may_not_be_read_are_named_or_left_out(table, write, monkeypatch):
    path = write(table)
    readable = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: readable(p, mode) and Path(p).name != "3.png")
    with pytest.raises(DataError, match=r"1/3.png \(line 5, which may not be read\)"):
        load(path)
    assert [len(site.table) for site in load(path, skip_bad=True).sites] == [11, 11]


def test_sites_must_agree_on_having_a_split(table, write):
    table.loc[12:, "split"] = ""
    path = write(table)
    with pytest.raises(DataError, match="line 14: site '2' has no split"):
        load(path)
    assert load(path, protocol="grouped").protocol == "grouped"


def test_a_folder_without_sites(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match=r"neither a labels.csv nor folders with one"):
        load(tmp_path)


def test_a_split_does_not_depend_on_which_sites_files_are_here(table, write, tmp_path):
    """Two hospitals with one table and patients in common, each with its own images only."""
    table["patient"] = [f"P{i // 2 + 3 * (site == '2')}" for site in "12" for i in range(12)]
    path = write(table.drop(columns="split"))
    parts = []
    for here, away in (("1", "2"), ("2", "1")):
        (tmp_path / away).rename(tmp_path / "away")
        (site,) = load(path, sites=[here], fewest=1).sites
        parts.append(dict(zip(site.table["group"], site.table["split"], strict=True)))
        (tmp_path / "away").rename(tmp_path / away)
    common = parts[0].keys() & parts[1].keys()
    assert len(common) == 3
    assert all(parts[0][patient] == parts[1][patient] for patient in common)


def test_validation_is_not_made_of_patients_that_train_elsewhere(table, write):
    second = table["site"] == "2"
    table.loc[second, "split"] = ["train"] * 10 + ["test"] * 2
    table.loc[second & (table.index < 18), "patient"] = [f"1{i}" for i in range(6)]
    site = load(write(table)).sites[1].table
    assert (site["split"] == "validation").sum() == 2  # one a class
    assert (site.loc[site["group"].str.startswith("1"), "split"] == "train").all()


def test_a_patients_number_may_be_written_as_a_decimal(table, write):
    table["patient"] = [f"{i // 2}.0" for i in range(12)] + [f"{i // 2}" for i in range(12)]
    one, two = load(write(table.drop(columns="split"))).sites
    parts = [dict(zip(s.table["group"], s.table["split"], strict=True)) for s in (one, two)]
    assert parts[0] == parts[1]


def test_a_site_that_only_tests_needs_only_test_images(table, write):
    table.loc[table["site"] == "2", "split"] = "test"
    third = rows("3")
    path = write(pd.concat([table, third], ignore_index=True))
    federation = load(path, holdout="2", train_limit="smallest")
    assert federation.holdout is not None
    assert set(federation.holdout.table["split"]) == {"test"}
    assert [sum(s.table["split"] == "train") for s in federation.sites] == [8, 8]
    with pytest.raises(DataError, match="site '2' has too few train images"):
        load(path)
    table.loc[table["site"] == "2", "split"] = "train"
    table["patient"] = [f"{site}-{i}" for site in "12" for i in range(12)]
    with pytest.raises(DataError, match=r"site '2' has too few test .*at least 1 test"):
        load(write(pd.concat([table, third], ignore_index=True)), holdout="2")


def test_the_smallest_site_is_one_that_trains(table, write):
    few = rows("3", 12).iloc[[0, 1, 8, 9, 10, 11]]
    path = write(pd.concat([table, few], ignore_index=True))
    federation = load(path, holdout="3", train_limit="smallest")
    assert [sum(s.table["split"] == "train") for s in federation.sites] == [8, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text + text.splitlines()[0] + "\n", "line 26: the first line once more"),
        (lambda text: text.replace("1/3.png", "1/\0.png"), "line 5, is no text"),
    ],
)
def test_lines_that_are_no_rows(table, write, change, words):
    path = write(table)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=words):
        load(path)


def test_an_umlaut_is_one_sign_or_two(table, write):
    table["site"] = ["Z\u00fcrich", "Zu\u0308rich"] * 6 + ["2"] * 12
    assert [site.name for site in load(write(table)).sites] == ["Z\u00fcrich", "2"]


def test_equal_names_at_two_sites_are_no_patient(table, write, tmp_path):
    write(table)
    for site, way in (("1", 1), ("2", -1)):
        mine = table[table["site"] == site].drop(columns=["site", "patient"])
        mine = mine.assign(image=[f"{i}.png" for i in range(12)], split=SPLITS[::way])
        mine.to_csv(tmp_path / site / "labels.csv", index=False)
    one, two = load(tmp_path).sites
    assert not set(one.table["group"]) & set(two.table["group"])
    assert len(set(one.table["group"])) == 12
