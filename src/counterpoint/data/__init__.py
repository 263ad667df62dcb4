"""Federations of medical images: find, check, split and decode them."""

from counterpoint.data.decode import decode
from counterpoint.data.inspect import inspect
from counterpoint.data.load import datasets, load, task_of
from counterpoint.data.phantom import write_phantom
from counterpoint.data.site import Federation, Form, Part, Site, SiteData, Task

__all__ = [
    "Federation",
    "Form",
    "Part",
    "Site",
    "SiteData",
    "Task",
    "datasets",
    "decode",
    "inspect",
    "load",
    "task_of",
    "write_phantom",
]
