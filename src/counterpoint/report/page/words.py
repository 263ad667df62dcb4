"""How a page says numbers, names and notes."""

import math
import re

from counterpoint.report.page.runs import Estimate
from counterpoint.report.words import heading, number

_NAMES = re.compile(
    r"(\s*\(first: .*?\)(?=[.;,)]|\s|$)|, first: .*$"
    r"|(?<= in their part): .*$|(?<= with another label): .*$)"
)
_PATHS = re.compile(r"(?<![\w.])(?:/[^\s:;,()'\"]+)+/([^\s:;,()'\"]+)")


def named(metric: str) -> str:
    """A score's name, without a unit."""
    return heading(metric, unit=False)


def listed(names: list[str]) -> str:
    """Names as a phrase.

    >>> listed(["A"]), listed(["A", "B", "C"])
    ('A', 'A, B and C')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, thing: str) -> str:
    """A number of things.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {thing}{'' if count == 1 else 's'}"


def between(metric: str, of: Estimate) -> str:
    """The interval of a score, or an empty text."""
    if math.isnan(of.low):
        return ""
    return f"{number(metric, of.low)} to {number(metric, of.high)}"


def points(metric: str, value: float) -> str:
    """A difference with its sign.

    >>> points("dice", 0.0123), points("dice", -0.5)
    ('+1.2', '−50.0')
    """
    if math.isnan(value):
        return "-"
    text = number(metric, abs(value))
    return text if not float(text) else f"{'+' if value > 0 else '−'}{text}"


def points_between(metric: str, of: Estimate) -> str:
    """The interval of a difference, or an empty text."""
    if math.isnan(of.low):
        return ""
    return f"{points(metric, of.low)} to {points(metric, of.high)}"


def without_names(note: str) -> str:
    """A note without patients' numbers and the folders above a file, for a page that travels.

    >>> without_names("the split leaks: 3 of 9 test images share a group with train images "
    ...               "(first: p7, p8); scores on it are too good")
    'the split leaks: 3 of 9 test images share a group with train images; scores on it are too good'
    >>> without_names("/home/x/my.csv: no column 'group'")
    "my.csv: no column 'group'"
    """
    return _PATHS.sub(r"\1", _NAMES.sub("", note))
