"""How much memory this process has taken, and how much there is to be had."""

import math
import os
from pathlib import Path

LIMITS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Where it says what a container may take and has taken, in version 2 and 1 of control groups."""


def resident(file: Path = Path("/proc/self/statm")) -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(file.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0


def available(root: Path = Path("/")) -> float:
    """Bytes that processes can still take here, of the machine or of a container's share.

    Infinity where the system does not say.

    >>> available() > 0
    True
    """
    return min(_of_machine(root / "proc/meminfo"), *(_of_container(root, *of) for of in LIMITS))


def _of_machine(file: Path) -> float:
    try:
        lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError, IndexError):
        return math.inf


def _of_container(root: Path, place: str, limit: str, taken: str, total: str) -> float:
    try:
        most, now = (int((root / place / name).read_text()) for name in (limit, taken))
        lines = (root / place / "memory.stat").read_text().splitlines()
        counts = dict(line.split() for line in lines)
        # what has been read of files is counted, and given up where it is needed
        cached = sum(int(counts.get(f"{total}{of}active_file", 0)) for of in ("in", ""))
    except (OSError, ValueError):  # no container, or "max"
        return math.inf
    return max(0, most - now + cached)
