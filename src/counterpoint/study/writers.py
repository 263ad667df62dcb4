"""A study's tables for the terminal, as Markdown, LaTeX, CSV and JSON."""

import json

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from counterpoint.files import write_text
from counterpoint.study.findings import Findings
from counterpoint.study.sheets import Sheet, sheets

_TEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def write(found: Findings) -> None:
    """Write table.csv, table.md, table.tex and study.json into the study's folder."""
    write_text(found.folder / "table.csv", found.scores.to_csv(index=False, lineterminator="\n"))
    write_text(found.folder / "table.md", markdown(found))
    write_text(found.folder / "table.tex", latex(found))
    text = json.dumps(found.as_dict(), indent=2, ensure_ascii=False, default=str)
    write_text(found.folder / "study.json", text + "\n")


def lines_of(found: Findings) -> list[str]:
    """What there is to say under the tables."""
    return [*found.notes, *(f"MISSING: {run}: {why}" for run, why in found.missing)]


def terminal(found: Findings) -> RenderableType:
    """The tables and notes for a terminal."""
    tables = []
    for sheet in sheets(found):
        table = Table(title=Text(sheet.title, "bold"), box=SIMPLE_HEAD, pad_edge=False)
        rows = [[row[0].replace(":", ":\n", 1).replace(",", ",\n"), *row[1:]] for row in sheet.rows]
        table.add_column(sheet.columns[0], overflow="fold")
        for name in sheet.columns[1:]:
            table.add_column(Text(name), justify="right", overflow="fold")
        for at, row in enumerate(rows):
            bold = ("bold" if (at, place) in sheet.best else "" for place in range(len(row)))
            table.add_row(*(Text(cell, style) for cell, style in zip(row, bold, strict=True)))
        tables.append(table)
    return Group(*tables, *(Text(line) for line in lines_of(found)))


def markdown(found: Findings) -> str:
    """The tables and notes as Markdown."""
    parts = []
    for sheet in sheets(found):
        head = [f"**{sheet.title}**", "", _row(_escaped([sheet.columns])[0])]
        head.append("|---|" + "---:|" * (len(sheet.columns) - 1))
        cells = (
            [f"**{c}**" if (at, place) in sheet.best else c for place, c in enumerate(texts)]
            for at, texts in enumerate(_escaped(sheet.rows))
        )
        parts.append("\n".join([*head, *map(_row, cells)]))
    parts.append("\n".join(f"- {line}" for line in lines_of(found)))
    return "\n\n".join(parts) + "\n"


def latex(found: Findings) -> str:
    r"""The tables as LaTeX floats, for a document with ``\usepackage{booktabs}``."""
    notes = [tex(line) for line in lines_of(found)]
    floats = [
        latex_float(sheet, " ".join([tex(sheet.title) + ".", *(notes if at == 0 else [])]))
        for at, sheet in enumerate(sheets(found))
    ]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(floats)


def latex_float(sheet: Sheet, caption: str) -> str:
    """One table as a float."""
    cells = (
        [
            rf"\textbf{{{tex(cell)}}}" if (at, place) in sheet.best else tex(cell)
            for place, cell in enumerate(row)
        ]
        for at, row in enumerate(sheet.rows)
    )
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(sheet.columns) - 1)}}}",
        r"\toprule",
        " & ".join(map(tex, sheet.columns)) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in cells),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    r"""Text with LaTeX's own characters escaped.

    >>> tex("my_site & 5 %"), tex("1.0 ± 0.1")
    ('my\\_site \\& 5 \\%', '1.0 $\\pm$ 0.1')
    """
    return "".join(_TEX.get(mark, mark) for mark in text)


def _escaped(rows: list[list[str]]) -> list[list[str]]:
    return [[cell.replace("|", "\\|") for cell in row] for row in rows]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
