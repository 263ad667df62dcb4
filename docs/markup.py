"""What these pages need beside Markdown: formulae, and docstrings as they are written here."""

import re
from collections.abc import Iterator
from html import unescape

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor
from markdown.preprocessors import Preprocessor

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:func|class|meth|mod):(?=`)")


class AsMathML(Postprocessor):
    """Formulae, found by Arithmatex, as MathML: browsers draw it, with no script and no font."""

    def run(self, text: str) -> str:
        """Replace every formula of a page."""
        return FORMULA.sub(self._one, text)

    def _one(self, found: re.Match[str]) -> str:
        return convert(unescape(found[2]), display="block" if found[1] == "div" else "inline")


class Docstrings(Preprocessor):
    """Doctests become blocks of code, and roles such as ``:func:`` plain names."""

    def run(self, lines: list[str]) -> list[str]:
        """Change the lines of a text."""
        return list(self._changed([*lines, ""]))

    def _changed(self, lines: list[str]) -> Iterator[str]:
        fenced = example = False
        for line in lines:
            if line.lstrip().startswith("```"):
                fenced = not fenced
            elif example and not line.strip():
                example = False
                yield "```"
            elif line.startswith(">>> ") and not (fenced or example):
                example = True
                yield "```pycon"
            yield line if fenced or example else ROLE.sub("", line)


class Markup(Extension):
    """To be listed with ``pymdownx.arithmatex`` and ``generic: true``."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Before fences are read, and after raw HTML is back in its place."""
        md.preprocessors.register(Docstrings(md), "docstrings", 100)
        md.postprocessors.register(AsMathML(md), "mathml", 0)
