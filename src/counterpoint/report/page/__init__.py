"""The report of a run, or of a study of several: one HTML page that needs nothing else.

Each section is a function from the runs to a title and blocks (`blocks.Section`); `page.html`
knows how each kind of block looks.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from counterpoint.errors import SettingsError
from counterpoint.figures.save import save
from counterpoint.figures.style import SERIES
from counterpoint.files import write_text
from counterpoint.report.page.arms import read_study
from counterpoint.report.page.blocks import Block, Details, Pictures, Section
from counterpoint.report.page.cases import cases
from counterpoint.report.page.cautions import cautions
from counterpoint.report.page.curves import retrogress, training
from counterpoint.report.page.gain import gain
from counterpoint.report.page.payloads import payloads
from counterpoint.report.page.repeat import repeat
from counterpoint.report.page.runs import Study
from counterpoint.report.page.spectra import spectra
from counterpoint.report.page.stages import stages
from counterpoint.report.page.summary import summary
from counterpoint.report.page.words import listed

FORMS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    figures: tuple[Path, ...]
    cautions: tuple[str, ...]
    """What a reader must know before believing a number, as the page says on top."""


def write_report(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] | None = None,
    thumbnails: bool = False,
    figures: bool = False,
) -> Report:
    """Write one self-contained HTML page about a run, or about several side by side.

    The page opens from a mail attachment: it asks the network for nothing. It holds numbers, names
    of hospitals and classes, and no image, unless ``thumbnails`` asks for them: patient data.

    Args:
        runs: a run's folder, a folder of run folders, or several of either.
        out: the page to write; left out, ``report.html`` in the folder.
        thumbnails: put small pictures of the worst test cases into the page.
        figures: write every figure as PNG, PDF and SVG too, into ``figures`` beside the page.

    Raises:
        StateError: if there is no finished run, or something can't be read or written.
        SettingsError: if the runs are about different data, or ``out`` is needed and not given.
    """
    paths = [Path(runs)] if isinstance(runs, str | os.PathLike) else [Path(run) for run in runs]
    if out is None and len(paths) != 1:
        raise SettingsError("say which file to write (--out) where several folders are given")
    page = paths[0] / "report.html" if out is None else Path(out)
    if page.exists() and page.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"{page} exists already and is no page; choose another --out")
    study = read_study(paths)
    sections = make_sections(study, thumbnails)
    write_text(page, render(study, sections, thumbnails))
    written: list[Path] = []
    for block in drawings(sections) if figures else ():
        written += save(block.whole(), page.parent / "figures" / block.name, FORMS)
    return Report(page, tuple(written), tuple(cautions(study)))


def make_sections(study: Study, thumbnails: bool) -> list[Section]:
    """All sections that there is something to say in, in the order of the page."""
    made = [
        summary(study),
        gain(study),
        retrogress(study),
        training(study),
        stages(study),
        cases(study, thumbnails),
        spectra(study),
        payloads(study),
        repeat(study),
    ]
    return [section for section in made if section]


def drawings(sections: Sequence[Section]) -> Iterable[Pictures]:
    """All blocks of figures, those folded away too."""

    def within(blocks: Sequence[Block]) -> Iterable[Pictures]:
        for block in blocks:
            if isinstance(block, Pictures):
                yield block
            elif isinstance(block, Details):
                yield from within(block.blocks)

    for section in sections:
        yield from within(section.blocks)


def render(study: Study, sections: Sequence[Section], thumbnails: bool) -> str:
    """The page as HTML. Names may hold anything: all texts are escaped."""
    environment = Environment(
        loader=PackageLoader("counterpoint.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = with_code
    here = files("counterpoint.report.page")
    style, script = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = environment.get_template("page.html").render(
        title=title_of(study),
        sections=sections,
        cautions=cautions(study),
        thumbnails=thumbnails,
        style=style,
        script=script,
        digest=digest,
        colours=len(SERIES),
        version=study.values["versions"]["counterpoint"],
    )
    return text.lstrip()


def with_code(text: str) -> Markup:
    """A text as HTML, what stands between backticks as code.

    >>> print(with_code("use `--out` for <b>"))
    use <code>--out</code> for &lt;b&gt;
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def title_of(study: Study) -> str:
    """The page's title."""
    methods = [arm.label for arm in study.arms]
    said = listed(methods) if len(methods) < 4 else f"{len(methods)} methods"
    return f"{said} on {study.values['data']}"
