"""The built-in data set: made-up skin lesions of four sites, made on first use."""

from dataclasses import replace

from counterpoint.data.dataset import DataSet, Request
from counterpoint.data.own import read_own
from counterpoint.data.phantom import phantom_folder
from counterpoint.data.site import Reading


def read(request: Request) -> Reading:
    """Make the images if they are not there yet, and read them as a user's own would be."""
    reading = read_own(phantom_folder(request.cache), task=request.task)
    return replace(reading, name="phantom")


DATASET = DataSet(
    name="phantom",
    summary="made-up skin lesions of four sites, built in and made on first use",
    read=read,
    tasks=("classification", "segmentation"),
    needs_root=False,
)
