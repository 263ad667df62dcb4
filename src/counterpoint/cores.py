"""How many cores there are to work with."""

import loky


def cores() -> int:
    """Cores that this process may use: a scheduler or a container may give it few of many.

    ``LOKY_MAX_CPU_COUNT`` in the environment makes them fewer.

    >>> cores() >= 1
    True
    """
    return int(loky.cpu_count())
