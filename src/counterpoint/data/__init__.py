"""Federations of medical images: find, check, split and decode them."""

from counterpoint.data.decode import decode
from counterpoint.data.inspect import inspect
from counterpoint.data.load import datasets, load
from counterpoint.data.phantom import write_phantom
from counterpoint.data.site import Federation, Part, Site, SiteData

__all__ = [
    "Federation",
    "Part",
    "Site",
    "SiteData",
    "datasets",
    "decode",
    "inspect",
    "load",
    "write_phantom",
]
