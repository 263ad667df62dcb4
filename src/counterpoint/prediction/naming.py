"""Names for what is written about files, so that no two get the same."""

import os
from collections.abc import Sequence

from counterpoint.data.volumes import without_ending


def output_names(files: Sequence[str]) -> list[str]:
    """Return a distinct name without suffix for each of distinct files.

    It is the path below the folder that all have in common, so that equal names in different
    folders stay apart. If two of a folder differ in their suffix only, all names keep theirs.

    >>> output_names(["/data/a/1.png", "/data/b/1.png"])
    ['a/1', 'b/1']
    >>> output_names(["/data/1.png", "/data/1.jpg", "/data/2.nii.gz"])
    ['1.png', '1.jpg', '2.nii.gz']
    """
    paths = [os.path.abspath(file) for file in files]
    top = os.path.commonpath([os.path.dirname(path) for path in paths])
    below = [os.path.relpath(path, top) for path in paths]
    short = [without_ending(path) for path in below]
    return short if len({name.casefold() for name in short}) == len(short) else below
