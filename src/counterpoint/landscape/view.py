"""How a landscape is looked at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from counterpoint.errors import SettingsError, nearest

SHAPES = {"line": (41, 1.0), "surface": (15, 1.0), "plane": (15, 0.5)}
"""What can be walked: the usual points along an axis, and reach."""


@dataclass(frozen=True)
class View:
    """What is walked, how far, and on which images; see `counterpoint.landscape.numbers`.

    ``points`` and ``reach`` are the shape's usual ones where left out.

    Raises:
        SettingsError: if a value is unknown or out of range.
    """

    shape: str = "surface"
    split: str = "validation"
    statistics: str = "recalibrated"
    images: int = 128
    points: int = 0
    reach: float = 0.0
    directions: int = 3
    direction_seed: int = 1

    def __post_init__(self) -> None:
        for name, known in (
            ("shape", list(SHAPES)),
            ("split", ["validation", "train"]),
            ("statistics", ["recalibrated", "saved"]),
        ):
            value = getattr(self, name)
            if value not in known:
                raise SettingsError(
                    f"a landscape's {name} is {' or '.join(known)}, not '{value}'"
                    f"{nearest(value, known)}"
                )
        points, reach = SHAPES[self.shape]
        object.__setattr__(self, "points", self.points or points)
        object.__setattr__(self, "reach", self.reach or reach)
        for name, least in (("images", 2), ("points", 3), ("directions", 1)):
            if getattr(self, name) < least:
                raise SettingsError(f"a landscape's {name} must be {least} or more")
        if not 0 < self.reach < float("inf"):
            raise SettingsError("a landscape's reach must be more than 0, and no infinity")
        if self.shape == "plane" and self.statistics == "saved":
            raise SettingsError(
                "on a plane through several models no model's saved statistics of batch norm fit; "
                "leave --statistics away: they are estimated anew at every point"
            )

    @property
    def ticks(self) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Positions along an axis.

        >>> View("line", points=5).ticks
        array([-1. , -0.5,  0. ,  0.5,  1. ])
        """
        return np.linspace(-self.reach, self.reach, self.points)

    @property
    def walks(self) -> int:
        """How often every site is walked over."""
        return self.directions if self.shape == "line" else 1

    def grid(self, x: tuple[float, float], y: tuple[float, float]) -> pd.DataFrame:
        """Points of a grid between two ends each way, with columns x and y.

        >>> View(points=3).grid((0, 1), (0, 2)).to_numpy().tolist()[:4]
        [[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [0.0, 1.0]]
        """
        across, up = np.meshgrid(np.linspace(*x, self.points), np.linspace(*y, self.points))
        return pd.DataFrame({"x": across.ravel(), "y": up.ravel()})
