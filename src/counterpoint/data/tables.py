"""Read a CSV as plain text, and turn its columns into labels and splits with checks."""

import csv
import difflib
import re
import unicodedata
from pathlib import Path

import pandas as pd

from counterpoint.errors import DataError, nearest

_NOTHING = {"", "nan", "na", "n/a", "null"}
_PATHS = ("image", "mask", "fov", "fov_mask")
SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "training": "train",
    "dev": "validation",
    "testing": "test",
}
_OTHER_NAMES = {
    "site": ("hospital", "centre", "center", "institution", "client", "clinic"),
    "image": ("filename", "file", "path", "image_path", "img", "image_id"),
    "label": ("class", "diagnosis", "dx", "target", "category"),
    "mask": ("masks", "segmentation", "seg", "mask_path"),
}


def read_table(path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """Return a CSV's rows as texts without spaces around; the index is the line in the file.

    Column names are in lower case; lines without any value are left out, and marks for "no value"
    ("", "nan", "NA", "N/A", "null") become empty texts. Raises DataError, which names file, line
    or column, if the file can't be read, a line has too few or too many values, a column is twice
    or not there, or there are no rows.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path} is empty; it needs a first line with {', '.join(required)}")
    _, header = lines.pop(0)
    names = [name.lower() for name in header]
    _check_columns(path, names, required)
    for number, values in lines:
        if len(values) != len(names):
            raise DataError(
                f"{path}, line {number}: {len(values)} values but {len(names)} columns; put texts "
                "that have commas in double quotes"
            )
        if values == header:
            raise DataError(f"{path}, line {number}: the first line once more; take it out")
    if not lines:
        raise DataError(f"{path} has a first line but no rows; add one row an image")
    rows = [
        [_value(name, value) for name, value in zip(names, values, strict=True)]
        for _, values in lines
    ]
    return pd.DataFrame(rows, columns=names, index=[n for n, _ in lines], dtype=object)


def _value(column: str, text: str) -> str:
    """Return a value; an umlaut may be one sign or two, and is the same name, but not file."""
    if text.lower() in _NOTHING:
        return ""
    return text if column in _PATHS else unicodedata.normalize("NFC", text)


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return (line number, values) for every line that has a value, the header's line first."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, [v.strip() for v in values]) for values in reader]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {_line_that_is_no_text(path)}, is not UTF-8 text; save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} can't be read as a CSV ({error}); check its quotes") from error
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror or error})") from error
    for number, values in lines:
        if any("\0" in value for value in values):
            raise DataError(
                f"{path}, line {number}, is no text (it has a NUL sign); save it as CSV"
            )
    return [(number, values) for number, values in lines if any(values)]


def _line_that_is_no_text(path: Path) -> int:
    lines = path.read_bytes().split(b"\n")
    return next(n for n, line in enumerate(lines, 1) if "\ufffd" in line.decode(errors="replace"))


def _check_columns(path: Path, names: list[str], required: tuple[str, ...]) -> None:
    """Raise DataError unless all required columns are there, once."""
    for name in required:
        if name not in names:
            for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
                if len(names) == 1 and mark in names[0]:
                    raise DataError(f"{path} is separated by {word}; save it with commas")
            other = next((n for n in _OTHER_NAMES.get(name, ()) if n in names), None)
            masks = next((n for n in _OTHER_NAMES["mask"] if n in names), None)
            hint = f"; is it '{other}'? Call it '{name}'" if other else nearest(name, names)
            if name == "label" and masks and not hint:
                hint = f"; if '{masks}' has the masks of a segmentation, call it 'mask'"
            raise DataError(
                f"{path} has no column '{name}'{hint} "
                f"(its columns: {', '.join(names)}; required: {', '.join(required)})"
            )
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the column '{twice[0]}' more than once; keep one of them")


def holds_a_split(table: pd.DataFrame) -> str | None:
    """Return the name of a column in which every row says train, validation or test."""
    for name in table.columns:
        values = {str(value).lower() for value in table[name]}
        if len(values) > 1 and values <= SPLITS.keys():
            return str(name)
    return None


def misspelt(names: list[str], known: tuple[str, ...]) -> list[str]:
    """Return sentences about columns that are not used but look like a known one.

    >>> misspelt(["image", "spilt", "age"], ("image", "split"))
    ["the column 'spilt' is not used; did you mean 'split'?"]
    """
    sentences = []
    for name in names:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        if name not in known and close and close[0] not in names:
            sentences.append(f"the column '{name}' is not used; did you mean '{close[0]}'?")
    return sentences


def require_values(path: Path, column: pd.Series) -> None:
    """Raise DataError, naming the first line, if a column has an empty value."""
    for line, value in column.items():
        if not value:
            raise DataError(
                f"{path}, line {line}: no value in column '{column.name}'; fill it in (NA, N/A, "
                "nan and null count as none)"
            )


def require_different(path: Path, column: pd.Series, what: str) -> None:
    """Raise DataError, naming the line, if a column has an empty value, or one twice."""
    require_values(path, column)
    twice = column[column.duplicated()]
    if len(twice):
        raise DataError(
            f"{path}, line {twice.index[0]}: the {what} {twice.iloc[0]} is already in the table; "
            "keep one of the two rows"
        )


def split_names(path: Path, column: pd.Series) -> list[str]:
    """Return a split column in the spelling train, validation, test.

    "val", "dev", "training" and the like are understood, in any case; DataError names the first
    line that is not.
    """
    require_values(path, column)
    names = []
    for line, value in column.items():
        if value.lower() not in SPLITS:
            raise DataError(
                f"{path}, line {line}: unknown split '{value}'{nearest(value, list(SPLITS))}; "
                "it must be train, validation or test"
            )
        names.append(SPLITS[value.lower()])
    return names


def clean_label(value: str) -> str:
    """Return a label; whole numbers that were written as decimals lose their ".0".

    >>> clean_label("2.0"), clean_label("nv")
    ('2', 'nv')
    """
    return re.sub(r"^(-?\d+)\.0+$", r"\1", value)


def class_names(labels: list[str]) -> tuple[str, ...]:
    """Return the distinct labels in order, whole numbers by value.

    >>> class_names(["10", "9", "10"]), class_names(["b", "a"])
    (('9', '10'), ('a', 'b'))
    """
    distinct = sorted(set(labels))
    if all(re.fullmatch(r"-?\d+", label) for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)
