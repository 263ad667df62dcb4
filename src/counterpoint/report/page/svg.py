"""A matplotlib figure as SVG in a page: colours of the page's theme, hover texts, a name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from matplotlib.figure import Figure

from counterpoint.figures.save import drawn
from counterpoint.figures.style import INK, LINE, MUTED, SERIES

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_ROLES = {INK: "ink", MUTED: "muted", LINE: "line", "#000000": "ink"}
_VARIABLES = {value: f"var(--s{i})" for i, value in enumerate(SERIES)} | {
    value: f"var(--{role})" for value, role in _ROLES.items()
}
_MARK = re.compile(r"mark-(\d+)(-points|-shape)?$")


@dataclass(frozen=True)
class Mark:
    """What a page knows of a figure's mark: its series, and a hover text for each point."""

    series: str = ""
    tips: Sequence[str] = ()


def to_svg(figure: Figure, name: str, words: str, marks: Sequence[Mark] = ()) -> str:
    """Return a figure as an element to be put into HTML.

    Args:
        figure: its parts have ids ``mark-0``, ``mark-0-points``, ``mark-1``, ...
        name: unlike that of any other figure of the page; ids in it begin with it.
        words: what the figure shows, for those who can't see it.
        marks: for each number in those ids.
    """
    root = ElementTree.fromstring(drawn(figure, "svg"))
    for unwanted in root.findall(f"{_SVG}metadata"):
        root.remove(unwanted)
    used = _used_ids(root)
    for element in root.iter():
        _restyle(element)
        _rename(element, name, used, marks)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"class": "figure", "role": "img", "aria-label": words, "id": name}
    ElementTree.register_namespace("", _SVG[1:-1])
    text = ElementTree.tostring(root, encoding="unicode")
    text = text.replace(f' xmlns="{_SVG[1:-1]}"', "", 1)  # in HTML an svg element needs none
    return re.sub(r">\s+<", "><", text)


def _used_ids(root: ElementTree.Element) -> set[str]:
    """The ids that something in the figure points to."""
    used = set()
    for element in root.iter():
        used.update(re.findall(r"url\(#([^)]+)\)", element.get("clip-path", "")))
        used.add(element.get(_LINK, "")[1:])
    return used - {""}


def _rename(element: ElementTree.Element, name: str, used: set[str], marks: Sequence[Mark]) -> None:
    """Make ids the figure's own, drop those that nobody needs, and mark the marks."""
    own = element.attrib.pop("id", "")
    if own in used:
        element.set("id", f"{name}-{own}")
    if clip := element.get("clip-path"):
        element.set("clip-path", clip.replace("url(#", f"url(#{name}-"))
    if link := element.attrib.pop(_LINK, None):
        element.set("href", f"#{name}-{link[1:]}")
    found = _MARK.match(own)
    if not found or int(found[1]) >= len(marks):
        return
    mark = marks[int(found[1])]
    element.set("class", "mark")
    if mark.series:
        element.set("data-series", mark.series)
    places = {"-points": list(element.iter(f"{_SVG}use")), "-shape": [element]}
    for place, tip in zip(places.get(found[2] or "", []), mark.tips, strict=False):
        place.set("class", "mark tip" if place is element else "tip")
        ElementTree.SubElement(place, f"{_SVG}title").text = tip


def _restyle(element: ElementTree.Element) -> None:
    """Let colours follow the theme, and texts the page's font; the ground stays clear."""
    if element.tag == f"{_SVG}style":
        element.text = ""  # the page's own says how lines join
    if "d" in element.attrib:
        element.set("d", _short_path(element.get("d", "")))
    style = element.get("style")
    if style is None:
        return
    style = re.sub(r"font-family:[^;]*(;|$)", "", style)
    style = re.sub(r"fill: #ffffff", "fill: none", style)
    style = re.sub(r"#[0-9a-f]{6}", lambda m: _VARIABLES.get(m[0], m[0]), style)
    element.set("style", style.strip().removesuffix(";"))


def _short_path(path: str) -> str:
    """A path with a tenth of a point, which is more than a screen shows.

    >>> _short_path("M 155.424836 -142.539618 L 1 2")
    'M155.4 -142.5L1 2'
    """
    path = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), path)
    return re.sub(r"\s*([MLCQz])\s*", r"\1", path).strip()
