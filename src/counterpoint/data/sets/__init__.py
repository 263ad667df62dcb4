"""Data sets with a name, one file each: every file here with a DATASET is one more."""

import importlib
import pkgutil
from functools import cache

from counterpoint.data.dataset import DataSet


@cache
def datasets() -> dict[str, DataSet]:
    """All data sets that come with the package, by name.

    >>> "phantom" in datasets()
    True
    """
    found = {}
    for module in pkgutil.iter_modules(__path__):
        one = getattr(importlib.import_module(f"{__name__}.{module.name}"), "DATASET", None)
        if isinstance(one, DataSet):
            found[one.name] = one
    return dict(sorted(found.items()))
