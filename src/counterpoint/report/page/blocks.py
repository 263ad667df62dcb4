"""What a page is made of: a section is a title and a list of these blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, a smaller second line, and how it is to look."""

    text: str
    detail: str = ""
    tone: Literal["", "good", "bad"] = ""
    share: float | None = None
    """0 to 1: how strongly the cell is shaded."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    tone: Literal["", "lead", "small", "heading"] = ""


@dataclass(frozen=True)
class Items:
    """A list of sentences; of a pair the first is set off as a heading."""

    kind: ClassVar[str] = "items"
    items: Sequence[str | tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table: the first cell of every row is its heading; a row of one cell heads a group."""

    kind: ClassVar[str] = "table"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    wide: bool = False
    """Whether texts may be long, so that lines may break."""

    @property
    def words(self) -> list[bool]:
        """For each column, whether it holds words rather than numbers.

        >>> Table("", ["Case", "Class", "Score"], [["1", "nevus", "2.5"]]).words
        [False, True, False]
        """
        full = [row for row in self.rows if len(row) == len(self.head)]
        texts = [[c if isinstance(c, str) else c.text for c in row] for row in full]
        columns = zip(*texts, strict=True) if texts else [()] * len(self.head)
        return [any(text[:1].isalpha() for text in column) for column in columns]


@dataclass(frozen=True)
class Picture:
    """A figure as SVG for the page, what it shows in words, and the same as a table."""

    name: str
    title: str
    svg: str
    words: str
    table: Table


@dataclass(frozen=True)
class Entry:
    """A line of a legend; pressing it shows or hides all marks of ``series``."""

    series: str
    label: str
    colour: int
    shown: bool = True


@dataclass(frozen=True)
class Pictures:
    """Figures side by side, with a legend that they share."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    name: str
    whole: Callable[[], Figure]
    """Draws all of them as one figure, for a file."""
    legend: Sequence[Entry] = ()
    key: str = ""
    """What lines and marks mean, in words."""
    small: bool = False


@dataclass(frozen=True)
class Photo:
    """A thumbnail: PNG as a data URI, and what it shows."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Photos:
    """Thumbnails side by side."""

    kind: ClassVar[str] = "photos"
    photos: Sequence[Photo]


@dataclass(frozen=True)
class Code:
    """Text to be copied as it is."""

    kind: ClassVar[str] = "code"
    text: str
    name: str


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: "Sequence[Block]"
    open: bool = False


Block = Text | Items | Table | Pictures | Photos | Code | Details


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    name: str
    title: str
    blocks: Sequence[Block]
