"""The command line: a file for each kind of commands.

Exit codes: 0 all went well; 1 a run failed, what it had saved can be continued; 2 wrong usage,
settings or data; 130 interrupted by Ctrl-C, 143 ended by SIGTERM.
"""

import io
import os
import signal
import sys

from counterpoint.allocator import keep_for_good
from counterpoint.cli import (  # noqa: F401  (their commands)
    bring,
    cache,
    compare,
    figure,
    flare,
    flower,
    key,
    look,
    predict,
    report,
    table,
    training,
)
from counterpoint.cli.common import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    keep_for_good()
    for stream in (sys.stdout, sys.stderr):  # a terminal may not have all letters of a name
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.path.append(os.getcwd())  # so that --model my_networks:Net is found where you are
    app()
