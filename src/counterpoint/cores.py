"""How many cores there are to work with."""

import io
import warnings
from contextlib import redirect_stderr

import loky


def cores() -> int:
    """Cores that this process may use: a scheduler or a container may give it few of many.

    ``LOKY_MAX_CPU_COUNT`` in the environment makes them fewer. Of a processor whose cores take two
    threads each, these count as two.

    >>> cores() >= 1
    True
    """
    return int(loky.cpu_count())


def physical_cores() -> int:
    """As :func:`cores`, but each core once: two threads on one share what multiplies.

    Where that can't be told, all of them.

    >>> 1 <= physical_cores() <= cores()
    True
    """
    # where loky can't tell, it warns, and prints its own error
    with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
        return int(loky.cpu_count(only_physical_cores=True))
