"""Counterpoint: federated learning on medical images from hospitals that do not look alike.

>>> import counterpoint
>>> federation = counterpoint.load("phantom")
>>> [site.name for site in federation.sites]
['east', 'north', 'south', 'west']
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoint.api import resume, run
    from counterpoint.data import Federation, Site, datasets, inspect, load
    from counterpoint.exporting import export
    from counterpoint.methods import Method, Schedule, find_method
    from counterpoint.prediction import predict
    from counterpoint.predictor import load_model
    from counterpoint.report.page import write_report
    from counterpoint.results import Result
    from counterpoint.study import compare

_HOMES = {
    "counterpoint.data": ("Federation", "Site", "datasets", "inspect", "load"),
    "counterpoint.api": ("resume", "run"),
    "counterpoint.exporting": ("export",),
    "counterpoint.methods": ("Method", "Schedule", "find_method"),
    "counterpoint.prediction": ("predict",),
    "counterpoint.predictor": ("load_model",),
    "counterpoint.report.page": ("write_report",),
    "counterpoint.results": ("Result",),
    "counterpoint.study": ("compare",),
}

__all__ = [
    "Federation",
    "Method",
    "Result",
    "Schedule",
    "Site",
    "compare",
    "datasets",
    "export",
    "find_method",
    "inspect",
    "load",
    "load_model",
    "predict",
    "resume",
    "run",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import counterpoint`` itself is instant."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'counterpoint' has no attribute '{name}'")
