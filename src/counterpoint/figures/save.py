"""Figures as files: the same bytes each time, written whole or not at all."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from counterpoint.figures.style import look
from counterpoint.files import write_bytes, write_text


@look
def drawn(figure: Figure, form: str) -> bytes:
    """A figure as ``png`` (200 dots per inch), ``svg`` or ``pdf``.

    >>> drawn(Figure(), "png")[1:4]
    b'PNG'
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it is drawn as a box
        figure.savefig(buffer, format=form, dpi=200, metadata=undated.get(form))
    return buffer.getvalue()


def save(figure: Figure, stem: Path, forms: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a figure beside others: ``stem`` with the ending of each form."""
    paths = [stem.with_name(f"{stem.name}.{form}") for form in forms]
    for path, form in zip(paths, forms, strict=True):
        write_bytes(path, drawn(figure, form))
    return paths


def save_with_numbers(figure: Figure, numbers: pd.DataFrame, stem: Path) -> list[Path]:
    """Write a figure as PNG, SVG and PDF, and the numbers that it shows as CSV beside it."""
    paths = save(figure, stem, ("png", "svg", "pdf"))
    table = stem.with_name(f"{stem.name}.csv")
    write_text(table, numbers.to_csv(index=False, lineterminator="\n"))
    return [*paths, table]
