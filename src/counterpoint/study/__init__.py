"""Studies: methods compared on the same data, seeds and budget."""

from counterpoint.study.compare import compare
from counterpoint.study.entry import Entry
from counterpoint.study.findings import Findings

__all__ = ["Entry", "Findings", "compare"]
