"""Figures as files: the same bytes each time, written whole or not at all."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from counterpoint.files import write_bytes


def drawn(figure: Figure, form: str) -> bytes:
    """A figure as ``png`` (150 dots per inch), ``svg`` or ``pdf``.

    >>> drawn(Figure(), "png")[1:4]
    b'PNG'
    """
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=150, metadata=undated.get(form))
    return buffer.getvalue()


def save(figure: Figure, stem: Path, forms: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a figure beside others: ``stem`` with the ending of each form."""
    paths = [stem.with_name(f"{stem.name}.{form}") for form in forms]
    for path, form in zip(paths, forms, strict=True):
        write_bytes(path, drawn(figure, form))
    return paths
