"""What a named data set is: how it is read, which splits and tasks it has."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from counterpoint.data.site import Reading, Task


@dataclass(frozen=True)
class Request:
    """What a reader is asked for.

    ``root`` is the folder of the data (it may not exist; of no meaning where the data set needs
    none), ``protocol`` one of the data set's protocols, ``task`` one of its tasks, ``cache`` a
    folder for what is made.
    """

    root: Path
    protocol: str
    task: Task
    cache: Path


@dataclass(frozen=True)
class DataSet:
    """A data set with a name: one file in ``data/sets`` with one of these, named DATASET.

    Attributes:
        name: as `counterpoint.load` and the command line call it.
        summary: what it is, in one line.
        read: gives the tables of all sites; see `Reading`. Raises DataError that says which
            layout was looked for, or names file and line.
        protocols: names of splits, the default first. ``"grouped"`` is made anew, with no group
            in two parts; for any other the reader fills the column ``split``.
        tasks: "classification", "segmentation" or both, the default first.
        needs_root: whether the user must say where the images are.
    """

    name: str
    summary: str
    read: Callable[[Request], Reading]
    protocols: tuple[str, ...] = ("grouped",)
    tasks: tuple[Task, ...] = ("classification",)
    needs_root: bool = True
