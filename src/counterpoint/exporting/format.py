"""What a format is to the rest of the house."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from torch import Tensor

from counterpoint.prediction.chosen import Chosen

Card = dict[str, Any]
Run = Callable[[npt.NDArray[Any]], tuple[npt.NDArray[Any], npt.NDArray[Any]]]
"""Images (N, C, *space) in 0..1 to logits and probabilities, by what was read from a file."""


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: as the command line calls it.
        suffix: by which its files are known.
        write: makes the file's bytes of a model, example images (2, C, *space) and the card.
        load: reads a file of it as whoever gets it would.
        use: how to use the file, as lines of Python.
    """

    name: str
    suffix: str
    write: Callable[[Chosen, Tensor, Card], bytes]
    load: Callable[[Path], Run]
    use: str
